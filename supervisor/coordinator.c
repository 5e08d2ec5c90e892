/* coordinator.c - see coordinator.h. */
#include "supervisor/coordinator.h"

#include "common/base/buf.h"

#define STATE_SIZE 16u

enum db_err coordinator_open(struct coordinator *k, const char *path, uint64_t *term, uint64_t *failovers,
			     struct errmsg *em)
{
	uint8_t state[STATE_SIZE];
	enum db_err err;
	size_t len;

	*term = 0;
	*failovers = 0;
	err = slotfile_open(&k->file, path, state, sizeof(state), &len, em);
	if (err != DB_OK || len == 0)
		return err;
	if (len != STATE_SIZE) {
		coordinator_close(k);
		return errmsg_set(em, DB_CORRUPT, "\"%s\" holds %zu bytes instead of %u", path, len, STATE_SIZE);
	}
	*term = load_u64le(state);
	*failovers = load_u64le(state + 8);
	return DB_OK;
}

enum db_err coordinator_store(struct coordinator *k, uint64_t term, uint64_t failovers, struct errmsg *em)
{
	uint8_t state[STATE_SIZE];

	store_u64le(state, term);
	store_u64le(state + 8, failovers);
	return slotfile_write(&k->file, state, sizeof(state), em);
}

void coordinator_close(struct coordinator *k)
{
	slotfile_close(&k->file);
}

/* coordinator.c - see coordinator.h. */
#include "supervisor/coordinator.h"

#include <string.h>

#include "common/base/buf.h"

#define STATE_SIZE     24u
#define STATE_SIZE_OLD 16u /* without the number of nodes */

enum db_err coordinator_open(struct coordinator *k, const char *path, struct coordinator_state *state,
			     struct errmsg *em)
{
	uint8_t bytes[STATE_SIZE];
	enum db_err err;
	size_t len;

	memset(state, 0, sizeof(*state));
	err = slotfile_open(&k->file, path, bytes, sizeof(bytes), &len, em);
	if (err != DB_OK || len == 0)
		return err;
	if (len != STATE_SIZE && len != STATE_SIZE_OLD) {
		coordinator_close(k);
		return errmsg_set(em, DB_CORRUPT, "\"%s\" holds %zu bytes instead of %u", path, len, STATE_SIZE);
	}
	state->term = load_u64le(bytes);
	state->failovers = load_u64le(bytes + 8);
	if (len == STATE_SIZE)
		state->nodes = load_u64le(bytes + 16);
	return DB_OK;
}

enum db_err coordinator_store(struct coordinator *k, const struct coordinator_state *state, struct errmsg *em)
{
	uint8_t bytes[STATE_SIZE];

	store_u64le(bytes, state->term);
	store_u64le(bytes + 8, state->failovers);
	store_u64le(bytes + 16, state->nodes);
	return slotfile_write(&k->file, bytes, sizeof(bytes), em);
}

void coordinator_close(struct coordinator *k)
{
	slotfile_close(&k->file);
}

/* coordinator.c - see coordinator.h. */
#include "supervisor/coordinator.h"

#include <string.h>

#include "common/base/buf.h"

#define SIZE_MAX_EVER (24u + MEMBERS_BYTES_MAX)
#define SIZE_NODES    24u /* without the members */
#define SIZE_OLDEST   16u /* without the number of nodes */

static bool decode(struct coordinator_state *state, const uint8_t *bytes, size_t len)
{
	struct rd r;

	rd_init(&r, bytes, len);
	state->term = rd_u64le(&r);
	state->failovers = rd_u64le(&r);
	if (len > SIZE_OLDEST)
		state->nodes = rd_u64le(&r);
	if (len > SIZE_NODES)
		members_get(&r, &state->members);
	return !r.bad && r.left == 0;
}

enum db_err coordinator_open(struct coordinator *k, const char *path, struct coordinator_state *state,
			     struct errmsg *em)
{
	uint8_t bytes[SIZE_MAX_EVER];
	enum db_err err;
	size_t len;

	memset(state, 0, sizeof(*state));
	err = slotfile_open(&k->file, path, bytes, sizeof(bytes), &len, em);
	if (err != DB_OK || len == 0)
		return err;
	if (decode(state, bytes, len))
		return DB_OK;
	memset(state, 0, sizeof(*state));
	coordinator_close(k);
	return errmsg_set(em, DB_CORRUPT, "\"%s\" holds %zu bytes that are not understood", path, len);
}

enum db_err coordinator_store(struct coordinator *k, const struct coordinator_state *state, struct errmsg *em)
{
	struct buf b = {0};
	enum db_err err;

	buf_put_u64le(&b, state->term);
	buf_put_u64le(&b, state->failovers);
	buf_put_u64le(&b, state->nodes);
	members_put(&b, &state->members);
	err = b.failed ? errmsg_set(em, DB_NOMEM, "no memory to store the term")
		       : slotfile_write(&k->file, b.data, b.len, em);
	buf_fini(&b);
	return err;
}

void coordinator_close(struct coordinator *k)
{
	slotfile_close(&k->file);
}

/*
 * checkpointer.h - the thread that keeps the base file close behind the log, the next segment ready, and the log within its
 * bounds (node/retention.h).
 */
#ifndef GRIZZLY_NODE_CHECKPOINTER_H
#define GRIZZLY_NODE_CHECKPOINTER_H

#include <stdbool.h>

#include "common/base/err.h"
#include "common/store/store.h"
#include "node/retention.h"

struct checkpointer;

struct checkpointer_options {
	struct store *store;
	struct retention_policy policy;
	/* Both on the checkpointer's thread. Whether the log is archived, and up to which LSN. */
	bool (*archived)(void *arg, uint64_t *lsn);
	/* The log has reached its cap: whoever holds records below keep_lsn lets go of them. */
	void (*cut)(void *arg, uint64_t keep_lsn);
	void *arg;
};

enum db_err checkpointer_create(struct checkpointer **out, const struct checkpointer_options *options,
				struct errmsg *em);
void checkpointer_free(struct checkpointer *c); /* waits for a checkpoint under way; NULL is fine */

#endif

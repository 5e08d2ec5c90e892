/*
 * checkpointer.h - the thread that keeps the base file close behind the log and the next segment ready.
 */
#ifndef GRIZZLY_NODE_CHECKPOINTER_H
#define GRIZZLY_NODE_CHECKPOINTER_H

#include "common/base/err.h"
#include "common/store/store.h"

struct checkpointer;

/* keep_bytes: how much log to keep for replicas that are behind. */
enum db_err checkpointer_create(struct checkpointer **out, struct store *store, uint64_t keep_bytes, struct errmsg *em);
void checkpointer_free(struct checkpointer *c); /* waits for a checkpoint under way; NULL is fine */

#endif

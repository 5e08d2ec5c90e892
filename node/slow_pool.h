/*
 * slow_pool.h - threads for reads that would hold up an event loop.
 *
 * Each thread has a reader connection of its own and streams its answer with back-pressure. A bounded queue feeds them;
 * when it is full the client is told so (OVERLOADED) instead of waiting without end.
 */
#ifndef GRIZZLY_NODE_SLOW_POOL_H
#define GRIZZLY_NODE_SLOW_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/http/server.h"
#include "common/query/request.h"
#include "common/store/store.h"

struct slow_pool;

enum db_err slow_pool_create(struct slow_pool **out, struct store *store, const char *node_id, unsigned thread_count,
			     unsigned queue_max, struct errmsg *em);
/* Jobs under way are cancelled and answered, waiting ones too. NULL is fine. */
void slow_pool_free(struct slow_pool *p);

/* Runs request (of kind READ) and answers through stream. DB_OK: takes both. DB_BUSY: the queue is full, both stay the
 * caller's. started_us and deadline_ms: common/base/clock.h. */
enum db_err slow_pool_submit(struct slow_pool *p, struct query_request *request, struct http_stream *stream,
			     uint64_t started_us, uint64_t deadline_ms);
/* Whether jobs wait for a thread. While they do, slow_pool_expire() is to be called now and then: it answers those that
 * have waited beyond their deadline and drops those whose client has gone. Any thread. */
bool slow_pool_has_waiting(struct slow_pool *p);
void slow_pool_expire(struct slow_pool *p);

#endif

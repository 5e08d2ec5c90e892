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
#include "common/remote/remote_tables.h"
#include "common/store/store.h"
#include "node/slow_log.h"

struct slow_pool;

struct slow_pool_options {
	struct store *store;
	const char *node_id;
	unsigned thread_count;
	unsigned queue_max;
	uint64_t result_rows_max;               /* of an answer; 0: no limit */
	uint64_t result_bytes_max;              /* likewise */
	const struct remote_tables_env *remote; /* what requests with tables of other nodes need; copied */
	struct timings *timings;                /* these are borrowed; NULL: nobody counts */
	struct slow_log *slow_log;              /* not NULL */
};

enum db_err slow_pool_create(struct slow_pool **out, const struct slow_pool_options *options, struct errmsg *em);
/* Jobs under way are cancelled and answered, waiting ones too. NULL is fine. */
void slow_pool_free(struct slow_pool *p);

/* Runs request (of kind READ) and answers through stream. federated: its references to other nodes' tables, NULL: it has
 * none. DB_OK: takes all three. DB_BUSY: the queue is full, they stay the caller's. started_us and deadline_ms: common/base/clock.h. */
enum db_err slow_pool_submit(struct slow_pool *p, struct query_request *request, struct federated_request *federated,
			     struct http_stream *stream, uint64_t started_us, uint64_t deadline_ms);
/* An INSERT whose SELECT names tables of other nodes: the SELECT runs here, the rest is the writer's. In its owner's hands but
 * between slow_pool_submit_fill() and done(). */
struct slow_fill {
	const struct federated_request *federated; /* borrowed */
	uint64_t deadline_ms;
	void (*done)(struct slow_fill *f); /* any thread, no lock held; the pool's last access */
	struct query_request *filled;      /* the request for the writer, the owner's to free; NULL: error */
	struct buf remote;                 /* ,"remote":[…], the owner's */
	struct query_error error;
};

/* DB_OK: done() follows. DB_BUSY: the queue is full; DB_NOMEM. */
enum db_err slow_pool_submit_fill(struct slow_pool *p, struct slow_fill *fill);
/* Takes no more fills, ends those there are, and returns when the last done() has. */
void slow_pool_stop_fills(struct slow_pool *p);

/* Whether jobs wait for a thread. While they do, slow_pool_expire() is to be called now and then: it answers those that
 * have waited beyond their deadline and drops those whose client has gone. Any thread. */
bool slow_pool_has_waiting(struct slow_pool *p);
void slow_pool_expire(struct slow_pool *p);

#endif

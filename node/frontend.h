/*
 * frontend.h - POST /query: where each request goes.
 *
 * On a master, reads run at once on the HTTP worker's own connection under an operation budget and move to the slow pool
 * when they exceed it; writes go to the writer. On a replica, `stale` and `session` reads run here, everything else is
 * forwarded to the master. While there is no master (or this one is not ready yet) requests are parked and tried again
 * when the node's role changes, until their deadline: a failover looks like a slow answer, not like an error. A read that
 * asks for an LSN this node does not have yet waits in the same way, on no thread of its own.
 *
 * One front_worker per HTTP worker, used on that worker's thread only; write answers come back to it as posted tasks.
 */
#ifndef GRIZZLY_NODE_FRONTEND_H
#define GRIZZLY_NODE_FRONTEND_H

#include "common/base/config.h"
#include "common/http/server.h"
#include "common/remote/remote_pool.h"
#include "common/remote/remote_access.h"
#include "common/store/store.h"
#include "node/admin.h"
#include "node/lost_writes.h"
#include "node/roles.h"
#include "common/base/timings.h"
#include "node/slow_log.h"
#include "node/slow_pool.h"

struct frontend;
struct front_worker;

struct frontend_options {
	struct store *store;
	struct roles *roles;
	struct slow_pool *slow_pool;
	struct slow_pool *federated_pool; /* of reads that name tables of other nodes */
	struct lost_writes *lost_writes;
	struct admin *admin;
	struct remote_access *access;
	struct remote_pool *pool;
	const struct cluster_config *config; /* these seven are borrowed */
	const char *node_id;
	unsigned node;             /* from 1 */
	struct slow_log *slow_log; /* borrowed */
};

struct frontend_counters {
	uint64_t reads_inline, reads_slow, writes, forwarded, parked;
};

enum db_err frontend_create(struct frontend **out, const struct frontend_options *options, struct errmsg *em);
/* From now on nothing waits for a master: parked requests are answered. NULL is fine. */
void frontend_stop(struct frontend *f);
void frontend_free(struct frontend *f); /* after the HTTP server's workers have ended; NULL is fine */

/* http_options.worker_start and worker_stop call these. */
enum db_err front_worker_create(struct front_worker **out, struct frontend *f, struct http_worker *worker,
				struct errmsg *em);
void front_worker_free(struct front_worker *w);

/* The route's handler; the worker's data is its front_worker. */
void frontend_on_query(struct http_request *http);
/* The same for GET /writes/REQUEST_ID. */
void frontend_on_writes(struct http_request *http);
/* The role changed: every worker tries its parked requests again. Any thread. */
void frontend_on_role_change(struct frontend *f);
/* The visible LSN has moved: workers with requests that wait for one look at them. Any thread. */
void frontend_on_visible(struct frontend *f);

void frontend_get_counters(struct frontend *f, struct frontend_counters *out);
/* Adds what the workers have counted. */
void frontend_collect_timings(struct frontend *f, struct timings *sum);

#endif

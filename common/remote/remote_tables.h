/*
 * remote_tables.h - requests that run here and name tables of other nodes.
 *
 * One struct remote_tables per process holds what is known of other nodes' tables. A request runs on a slow-query thread, on
 * its connection, which blocks for the other nodes' answers: see remote_query.h for how.
 */
#ifndef GRIZZLY_COMMON_REMOTE_REMOTE_TABLES_H
#define GRIZZLY_COMMON_REMOTE_REMOTE_TABLES_H

#include "common/query/exec.h"
#include "common/query/federated_request.h"
#include "common/remote/remote_access.h"
#include "common/remote/remote_pool.h"

struct remote_tables;

/* dir is copied: where rows go that outgrow memory. */
enum db_err remote_tables_create(struct remote_tables **out, const char *dir, struct errmsg *em);
void remote_tables_free(struct remote_tables *t); /* no request is under way; NULL is fine */

struct remote_tables_env {
	struct remote_tables *tables;
	struct remote_pool *pool;
	struct remote_access *access; /* all borrowed */
};

/* As query_read() (common/query/exec.h), for a request with references that runs here, EXPLAIN FEDERATED too. An answer has
 * "remote". Errors of other nodes are REMOTE_ERROR (FORBIDDEN: a node that may not be asked) and name host:port@table. */
enum query_outcome remote_tables_read(const struct remote_tables_env *env, struct query_conn *c,
				      const struct federated_request *fr, const struct query_read_limits *limits,
				      const struct query_sink *sink, uint64_t started_us, struct buf *out,
				      struct query_error *error);

/* INSERT INTO table of this node SELECT … of other nodes' tables (plan FEDERATED_FILL_HERE), on the master: runs the SELECT on
 * c and makes the request for the writer. QUERY_OK: *filled is the caller's, for query_request_free(), and borrows
 * fr->request; remote holds ,"remote":[…] for the answer. Otherwise *error is the answer. */
enum query_code remote_tables_fill(const struct remote_tables_env *env, struct query_conn *c,
				   const struct federated_request *fr, const struct query_read_limits *limits,
				   struct query_request **filled, struct buf *remote, struct query_error *error);

#endif

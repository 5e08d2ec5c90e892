/*
 * conn.h - the inside of a query_conn, for the files that run requests on it (classify, run, exec_read, exec_write).
 *
 * Invariants between requests: every statement is reset, so that no snapshot stays pinned; the guard is disarmed; no
 * transaction is open except the writer's batch.
 */
#ifndef GRIZZLY_COMMON_QUERY_CONN_H
#define GRIZZLY_COMMON_QUERY_CONN_H

#include "common/query/authorizer.h"
#include "common/query/exec.h"
#include "common/query/guard.h"
#include "common/query/receipts.h"
#include "common/query/statement_cache.h"

#define CONN_ALONE_WITH_ID "VACUUM takes no request_id: it runs outside any transaction, and is harmless to repeat"

/* Our own statements, prepared once. */
enum conn_control {
	CONN_BEGIN,
	CONN_BEGIN_IMMEDIATE,
	CONN_COMMIT,
	CONN_ROLLBACK,
	CONN_SAVEPOINT,
	CONN_RELEASE,
	CONN_ROLLBACK_TO,
	CONN_CONTROL_COUNT
};

struct query_conn {
	sqlite3 *db; /* owned */
	struct query_conn_options options;
	struct authorizer authorizer;
	struct guard guard;
	struct statement_cache *cache;
	sqlite3_stmt *control[CONN_CONTROL_COUNT];
	struct receipts receipts;
	uint64_t repeated_lsn; /* see query_repeated_lsn() */
	bool in_batch; /* between query_batch_begin() and commit or rollback, even when SQLite lost the transaction */
};

/* Runs one of our own statements; an SQLite result code, SQLITE_OK when done. */
int conn_control(struct query_conn *c, enum conn_control which);
bool conn_in_transaction(const struct query_conn *c);
/* Rolls back whatever transaction is open. Failure is logged: SQLite ends the transaction all the same. */
void conn_rollback(struct query_conn *c);

/* What a client is told of SQLite's rc, which the last call on c->db returned. */
enum query_code conn_error(struct query_conn *c, int rc, struct query_error *error);
/* The same for the node: an internal error. */
enum db_err conn_db_error(struct query_conn *c, int rc, struct errmsg *em, const char *what);

#endif

/*
 * exec_write.c - the writing half of exec.h. Called by the one writer thread of a master.
 *
 * A batch is one SQLite transaction, each request a savepoint in it. SQLite itself may end the whole transaction when a
 * statement fails; conn_in_transaction() tells afterwards, and the caller is told by *batch_lost.
 */
#include "common/query/run.h"

enum db_err query_batch_begin(struct query_conn *c, struct errmsg *em)
{
	int rc = conn_control(c, CONN_BEGIN_IMMEDIATE);

	if (rc != SQLITE_OK)
		return conn_db_error(c, rc, em, "cannot begin a transaction");
	c->in_batch = true;
	return DB_OK;
}

enum db_err query_batch_commit(struct query_conn *c, struct errmsg *em)
{
	enum db_err err = DB_OK;
	int rc;

	c->in_batch = false;
	if (!conn_in_transaction(c))
		return errmsg_set(em, DB_INVALID, "cannot commit: the transaction was rolled back before");
	rc = conn_control(c, CONN_COMMIT);
	if (rc != SQLITE_OK)
		err = conn_db_error(c, rc, em, "cannot commit");
	conn_rollback(c); /* does nothing after a commit */
	return err;
}

void query_batch_rollback(struct query_conn *c)
{
	c->in_batch = false;
	conn_rollback(c);
}

/* Undoes the request. Returns false when that took the whole transaction, or SQLite had taken it already. */
static bool undo(struct query_conn *c)
{
	if (!conn_in_transaction(c))
		return false;
	if (conn_control(c, CONN_ROLLBACK_TO) == SQLITE_OK && conn_control(c, CONN_RELEASE) == SQLITE_OK)
		return true;
	conn_rollback(c);
	return false;
}

/* A deferred constraint would only fail the COMMIT, and with it the requests of others. */
static enum query_code check_deferred(struct query_conn *c, struct query_error *error)
{
	int violated = 0;
	int high = 0;
	int rc = sqlite3_db_status(c->db, SQLITE_DBSTATUS_DEFERRED_FKS, &violated, &high, 0);

	if (rc != SQLITE_OK)
		return conn_error(c, rc, error);
	if (violated != 0)
		return query_error_set(error, QUERY_CONSTRAINT, "FOREIGN KEY constraint failed");
	return QUERY_OK;
}

static enum query_code run_guarded(struct run *r, uint64_t deadline_ms)
{
	enum query_outcome outcome;

	guard_arm(&r->c->guard, 0, deadline_ms, NULL);
	outcome = run_request(r);
	guard_disarm(&r->c->guard);
	return outcome == QUERY_ANSWERED ? QUERY_OK : r->error->code;
}

uint64_t query_repeated_lsn(const struct query_conn *c)
{
	return c->repeated_lsn;
}

static enum query_code run_and_check(struct run *r, uint64_t deadline_ms)
{
	enum query_code code = run_guarded(r, deadline_ms);

	return code == QUERY_OK ? check_deferred(r->c, r->error) : code;
}

/* The same for a request with a request_id: not twice, and with a receipt. */
static enum query_code run_once(struct run *r, uint64_t deadline_ms)
{
	struct query_conn *c = r->c;
	bool found;
	enum query_code code;

	code = receipts_find(c, r->request, r->out, &found, &c->repeated_lsn, r->error);
	if (code != QUERY_OK || found)
		return code;
	code = run_and_check(r, deadline_ms);
	if (code == QUERY_OK && r->wrote)
		code = receipts_keep(c, r->request, r->out->data + r->start, r->out->len - r->start, r->error);
	return code;
}

/* Runs the request between a savepoint and its release. */
static enum query_code run_in_savepoint(struct run *r, uint64_t deadline_ms)
{
	struct query_conn *c = r->c;
	enum query_code code;
	int rc = conn_control(c, CONN_SAVEPOINT);

	if (rc != SQLITE_OK)
		return conn_error(c, rc, r->error);
	code = r->request->request_id != NULL ? run_once(r, deadline_ms) : run_and_check(r, deadline_ms);
	if (code != QUERY_OK)
		return code;
	rc = conn_control(c, CONN_RELEASE); /* outside a batch this commits */
	return rc == SQLITE_OK ? QUERY_OK : conn_error(c, rc, r->error);
}

/* VACUUM refuses to run in any transaction, a savepoint included. */
static bool is_alone(struct query_conn *c, const struct query_request *request)
{
	struct query_error ignored; /* whatever it is, the run meets it again */
	enum query_kind kind;

	return !c->in_batch && query_classify(c, request, &kind, &ignored) == QUERY_OK &&
	       kind == QUERY_KIND_WRITE_ALONE;
}

static enum query_code run_trusted(struct query_conn *c, const char *sql, struct query_error *error)
{
	enum query_code code = QUERY_OK;
	int rc = conn_control(c, CONN_SAVEPOINT);

	if (rc != SQLITE_OK)
		return conn_error(c, rc, error);
	authorizer_enter(&c->authorizer, AUTHORIZER_TRUSTED);
	rc = sqlite3_exec(c->db, sql, NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		code = conn_error(c, rc, error);
	c->authorizer.phase = AUTHORIZER_STEP;
	if (code != QUERY_OK)
		return code;
	rc = conn_control(c, CONN_RELEASE);
	return rc == SQLITE_OK ? QUERY_OK : conn_error(c, rc, error);
}

enum query_code query_write_trusted(struct query_conn *c, const char *sql, struct query_error *error, bool *batch_lost)
{
	enum query_code code;

	*batch_lost = false;
	if (!c->in_batch || !conn_in_transaction(c)) {
		*batch_lost = true;
		return query_error_set(error, QUERY_INTERNAL, "there is no transaction for it");
	}
	code = run_trusted(c, sql, error);
	if (code != QUERY_OK && !undo(c))
		*batch_lost = true;
	return code;
}

enum query_code query_write(struct query_conn *c, const struct query_request *request, uint64_t deadline_ms,
			    struct buf *out, struct query_error *error, bool *batch_lost)
{
	struct run r = {
	    .c = c,
	    .request = request,
	    .error = error,
	    .out = out,
	    .bytes_max = c->options.result_bytes_max,
	    .start = out->len,
	    .whole = out->len,
	};
	enum query_code code;

	*batch_lost = false;
	c->repeated_lsn = 0;
	if (c->in_batch && !conn_in_transaction(c)) {
		*batch_lost = true;
		return query_error_set(error, QUERY_INTERNAL, "the transaction of this batch was rolled back before");
	}
	r.alone_allowed = is_alone(c, request);
	code = r.alone_allowed ? run_guarded(&r, deadline_ms) : run_in_savepoint(&r, deadline_ms);
	if (code == QUERY_OK)
		return QUERY_OK;
	run_break_off(&r, QUERY_FAILED);
	if (!r.alone_allowed && !undo(c))
		*batch_lost = c->in_batch;
	return code;
}

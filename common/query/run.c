/*
 * run.c - see run.h. On the connection's thread; blocks only where the sink does.
 *
 * Every failing path leaves the statement reset and its bindings cleared: run_statement() is the only door to
 * sqlite3_step() for clients' statements.
 */
#include "common/query/run.h"

#include <assert.h>
#include <inttypes.h>

#include "common/query/bind.h"
#include "common/query/sql_text.h"
#include "common/query/typed_rows.h"

enum query_code run_check_format(const struct query_request *request, const struct statement *first,
				 struct query_error *error)
{
	if (request->format == QUERY_NDJSON && (request->from_statements || !first->last || first->writes))
		return query_error_set(error, QUERY_BAD_REQUEST,
				       "format \"ndjson\" is for a single statement that reads, given as \"sql\"");
	return QUERY_OK;
}

bool run_holds_several(const struct query_request *request, const struct statement *first)
{
	const struct query_statement *s = &request->statements[0];

	if (request->from_statements)
		return request->statement_count > 1;
	return first != NULL ? !first->last : sql_looks_several(s->sql, s->sql + s->sql_len);
}

static enum query_outcome fail(struct run *r, enum query_code code)
{
	assert(code != QUERY_OK);
	(void)code; /* it is in r->error */
	if (r->several)
		r->error->statement = (int)r->index;
	return QUERY_FAILED;
}

enum query_outcome run_out_of_memory(struct run *r)
{
	return fail(r, query_error_set(r->error, QUERY_INTERNAL, "out of memory"));
}

static enum query_outcome too_many_bytes(struct run *r)
{
	if (r->reading)
		return QUERY_OVER_BUDGET;
	return fail(r, query_error_set(r->error, QUERY_TOO_LARGE,
				       "the answer is larger than %zu bytes, the most a request that writes may return",
				       r->bytes_max));
}

/* A budget is for what can still be run again elsewhere. */
static enum query_outcome step_failed(struct run *r, int rc)
{
	enum guard_stop stop = r->c->guard.stop;

	if ((rc & 0xFF) == SQLITE_INTERRUPT && stop == GUARD_CANCELLED)
		return QUERY_GONE;
	if ((rc & 0xFF) == SQLITE_INTERRUPT && stop == GUARD_OVER_BUDGET && r->reading)
		return QUERY_OVER_BUDGET;
	return fail(r, conn_error(r->c, rc, r->error));
}

/* After the clock or the flag was asked outside SQLite. */
static enum query_outcome guard_stopped(struct run *r)
{
	return step_failed(r, SQLITE_INTERRUPT);
}

static void mark_whole(struct run *r, enum run_open open)
{
	if (r->out->failed)
		return;
	r->whole = r->out->len;
	r->open = open;
}

static enum query_outcome flush(struct run *r)
{
	r->flushed_bytes += r->out->len;
	if (!r->sink->flush(r->sink->arg, r->out))
		return QUERY_GONE;
	buf_clear(r->out);
	r->flushed = true;
	r->start = 0;
	mark_whole(r, r->open);
	r->c->guard.ops_max = 0; /* too late to run it elsewhere */
	return guard_check(&r->c->guard) == GUARD_GO ? QUERY_ANSWERED : guard_stopped(r);
}

/* What the operator allows an answer to be, wherever it is made. */
static enum query_outcome check_result(struct run *r)
{
	if (r->result_rows_max != 0 && r->rows > r->result_rows_max)
		return fail(r, query_error_set(r->error, QUERY_TOO_LARGE,
					       "the answer has more than %" PRIu64
					       " rows, the most that this cluster allows (query.result_rows_max)",
					       r->result_rows_max));
	if (r->result_bytes_max != 0 && r->flushed_bytes + (r->out->len - r->start) > r->result_bytes_max)
		return fail(r, query_error_set(r->error, QUERY_TOO_LARGE,
					       "the answer is larger than %" PRIu64
					       " bytes, the most that this cluster allows (query.result_bytes_max)",
					       r->result_bytes_max));
	return QUERY_ANSWERED;
}

/* A row or a result is complete: hands it on when enough has gathered, or checks that it may stay. */
static enum query_outcome piece_done(struct run *r, enum run_open open)
{
	size_t waiting = r->out->len - r->start;

	if (r->out->failed)
		return run_out_of_memory(r);
	if (check_result(r) != QUERY_ANSWERED)
		return QUERY_FAILED;
	mark_whole(r, open);
	if (r->sink != NULL)
		return waiting >= r->sink->chunk_bytes ? flush(r) : QUERY_ANSWERED;
	return r->bytes_max != 0 && waiting > r->bytes_max ? too_many_bytes(r) : QUERY_ANSWERED;
}

static enum query_outcome put_row(struct run *r, struct statement *s, uint64_t row)
{
	struct buf *out = r->out;
	bool ok;

	if (r->typed) {
		ok = typed_rows_put_row(out, s->stmt, s->shape.columns);
	} else if (r->request->format == QUERY_ROWS) {
		if (row > 0)
			buf_put_u8(out, ',');
		ok = result_put_row(out, &s->shape, s->stmt);
	} else if (r->request->format == QUERY_OBJECTS) {
		if (row > 0)
			buf_put_u8(out, ',');
		ok = result_put_object(out, &s->shape, s->stmt);
	} else {
		ok = result_put_object(out, &s->shape, s->stmt);
		buf_put_u8(out, '\n');
	}
	if (!ok)
		return run_out_of_memory(r);
	r->rows++;
	return piece_done(r, r->open);
}

static void open_result(struct run *r)
{
	if (r->results)
		buf_puts(r->out, r->index > 0 ? ",{" : "{");
}

static enum query_outcome begin_rows(struct run *r, struct statement *s)
{
	if (!result_shape_update(&s->shape, s->stmt))
		return run_out_of_memory(r);
	if (r->request->format != QUERY_ROWS && !result_shape_keys(&s->shape, s->stmt))
		return run_out_of_memory(r);
	if (r->request->format == QUERY_NDJSON)
		return QUERY_ANSWERED;
	if (r->typed) {
		if (!typed_rows_put_columns(r->out, s->stmt))
			return run_out_of_memory(r);
	} else {
		open_result(r);
		buf_put(r->out, s->shape.head.data, s->shape.head.len);
	}
	if (r->out->failed)
		return run_out_of_memory(r);
	mark_whole(r, RUN_OPEN_ROWS);
	return QUERY_ANSWERED;
}

static void end_rows(struct run *r, uint64_t rows)
{
	if (r->request->format == QUERY_NDJSON)
		return;
	if (r->typed) {
		typed_rows_put_result_end(r->out, rows);
		return;
	}
	buf_puts(r->out, "],\"row_count\":");
	json_put_int(r->out, (int64_t)rows);
}

/* Statements that only write have no columns; what else has none still answers with (no) rows. */
static enum query_outcome run_rows(struct run *r, struct statement *s)
{
	enum query_outcome outcome;
	uint64_t rows = 0;
	int rc = sqlite3_step(s->stmt);

	if (rc == SQLITE_DONE && s->writes && sqlite3_column_count(s->stmt) == 0)
		return QUERY_ANSWERED;
	if (rc != SQLITE_ROW && rc != SQLITE_DONE)
		return step_failed(r, rc);
	outcome = begin_rows(r, s);
	while (outcome == QUERY_ANSWERED && rc == SQLITE_ROW) {
		outcome = put_row(r, s, rows++);
		if (outcome != QUERY_ANSWERED)
			return outcome;
		rc = sqlite3_step(s->stmt);
	}
	if (outcome != QUERY_ANSWERED)
		return outcome;
	if (rc != SQLITE_DONE)
		return step_failed(r, rc);
	end_rows(r, rows);
	return QUERY_ANSWERED;
}

/* Once it has run and before anything else touches the connection's counters. */
static void put_changes(struct run *r, const struct statement *s)
{
	sqlite3 *db = r->c->db;

	if (sqlite3_column_count(s->stmt) > 0)
		buf_put_u8(r->out, ',');
	else
		open_result(r);
	buf_puts(r->out, "\"rows_affected\":");
	json_put_int(r->out, s->dml ? sqlite3_changes64(db) : 0);
	buf_puts(r->out, ",\"last_insert_id\":");
	json_put_int(r->out, s->dml ? sqlite3_last_insert_rowid(db) : 0);
}

static enum query_outcome run_statement(struct run *r, struct statement *s)
{
	struct query_conn *c = r->c;
	enum query_outcome outcome;

	authorizer_enter(&c->authorizer, s->alone ? AUTHORIZER_TRUSTED : AUTHORIZER_STEP);
	c->authorizer.pragma_writes_allowed = s->pragma_writes;
	if (s->dml)
		sqlite3_set_last_insert_rowid(c->db, 0);
	outcome = run_rows(r, s);
	if (outcome == QUERY_ANSWERED && s->writes) {
		put_changes(r, s);
		r->wrote = true;
	}
	sqlite3_reset(s->stmt); /* returns the step's error again */
	c->authorizer.phase = AUTHORIZER_STEP;
	if (outcome != QUERY_ANSWERED)
		return outcome;
	if (r->results && !r->typed)
		buf_put_u8(r->out, '}');
	return piece_done(r, RUN_OPEN_RESULTS);
}

/* What the first statement decides about the whole answer. */
static enum query_outcome begin_answer(struct run *r, const struct statement *first)
{
	enum query_code code;

	r->results = r->request->from_statements || !first->last;
	r->several = run_holds_several(r->request, first);
	code = run_check_format(r->request, first, r->error);
	if (code != QUERY_OK)
		return fail(r, code);
	if (r->request->format == QUERY_NDJSON)
		return QUERY_ANSWERED;
	if (r->typed)
		typed_rows_put_magic(r->out);
	else
		buf_puts(r->out, r->sink != NULL ? "{" : "{\"status\":\"ok\",");
	if (r->results && !r->typed)
		buf_puts(r->out, "\"results\":[");
	mark_whole(r, RUN_OPEN_RESULTS);
	return QUERY_ANSWERED;
}

enum query_code run_check_role(const struct query_request *request, const struct statement *s,
			       struct query_error *error)
{
	if (s->needs <= request->role)
		return QUERY_OK;
	return query_error_set(error, QUERY_FORBIDDEN,
			       "this statement needs a token with the role %s; this one's is %s",
			       auth_role_name(s->needs), auth_role_name(request->role));
}

static enum query_outcome check_statement(struct run *r, const struct statement *s)
{
	if (run_check_role(r->request, s, r->error) != QUERY_OK)
		return fail(r, QUERY_FORBIDDEN);
	if (r->request->from_statements && !s->last)
		return fail(r,
			    query_error_set(r->error, QUERY_BAD_REQUEST,
					    "each of \"statements\" holds one SQL statement, this one holds several"));
	if (r->reading && s->writes)
		return fail(r, query_error_set(r->error, QUERY_INTERNAL,
					       "a statement that writes came to a connection that only reads"));
	if (s->alone && r->request->request_id != NULL)
		return fail(r, query_error_set(r->error, QUERY_BAD_REQUEST, "%s", CONN_ALONE_WITH_ID));
	if (s->alone && (r->several || !r->alone_allowed))
		return fail(r, query_error_set(r->error, QUERY_BAD_REQUEST,
					       "VACUUM must be the only statement of its request"));
	return QUERY_ANSWERED;
}

static enum query_outcome run_next(struct run *r, struct binder *b, struct statement *s)
{
	enum query_outcome outcome = r->index == 0 ? begin_answer(r, s) : QUERY_ANSWERED;
	enum query_code code;

	if (outcome == QUERY_ANSWERED)
		outcome = check_statement(r, s);
	if (outcome != QUERY_ANSWERED)
		return outcome;
	code = binder_bind(b, r->c, s, r->error);
	outcome = code == QUERY_OK ? run_statement(r, s) : fail(r, code);
	sqlite3_clear_bindings(s->stmt); /* always SQLITE_OK */
	r->index++;
	return outcome;
}

static enum query_outcome prepare_failed(struct run *r, int rc)
{
	if (r->index == 0)
		r->several = run_holds_several(r->request, NULL);
	return fail(r, conn_error(r->c, rc, r->error));
}

static enum query_outcome run_script(struct run *r, const struct query_statement *script)
{
	enum query_outcome outcome = QUERY_ANSWERED;
	struct script_walk walk;
	struct statement *s;
	struct binder binder;
	int rc;

	authorizer_enter(&r->c->authorizer, AUTHORIZER_STEP);
	rc = script_walk_begin(&walk, r->c->cache, script->sql, script->sql_len);
	if (rc != SQLITE_OK)
		return prepare_failed(r, rc);
	binder_init(&binder, script);
	while (outcome == QUERY_ANSWERED) {
		rc = script_walk_next(&walk, &s);
		if (rc != SQLITE_OK)
			outcome = prepare_failed(r, rc);
		else if (s == NULL)
			break;
		else
			outcome = run_next(r, &binder, s);
	}
	script_walk_end(&walk);
	return outcome;
}

enum query_outcome run_request(struct run *r)
{
	enum query_outcome outcome = QUERY_ANSWERED;
	size_t i;

	r->start = r->out->len;
	mark_whole(r, RUN_OPEN_ANSWER);
	if (guard_check(&r->c->guard) != GUARD_GO)
		return guard_stopped(r);
	for (i = 0; i < r->request->statement_count && outcome == QUERY_ANSWERED; i++)
		outcome = run_script(r, &r->request->statements[i]);
	if (outcome != QUERY_ANSWERED)
		return outcome;
	r->several = false; /* what fails from here on is no statement's fault */
	if (r->results && !r->typed)
		buf_puts(r->out, "]");
	mark_whole(r, RUN_OPEN_ANSWER);
	return r->out->failed ? run_out_of_memory(r) : QUERY_ANSWERED;
}

enum query_outcome run_break_off(struct run *r, enum query_outcome outcome)
{
	struct buf *out = r->out;

	out->failed = false;
	if (!r->flushed || outcome == QUERY_GONE) {
		out->len = r->start;
		return outcome;
	}
	out->len = r->whole;
	if (r->request->format == QUERY_NDJSON) {
		answer_put_error(out, r->error);
		return QUERY_BROKEN;
	}
	if (r->typed) {
		typed_rows_put_error(out, r->error);
		return QUERY_BROKEN;
	}
	if (r->open == RUN_OPEN_ROWS)
		buf_puts(out, r->results ? "]}" : "]");
	if (r->open != RUN_OPEN_ANSWER && r->results)
		buf_puts(out, "]");
	buf_puts(out, ",");
	answer_put_error_fields(out, r->error);
	buf_puts(out, "}\n");
	return QUERY_BROKEN;
}

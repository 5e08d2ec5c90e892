/*
 * remote_tables.c - see remote_tables.h: a request from its units to the end of its answer.
 *
 * The connection lends its sqlite3 handle, its guard and its authorizer; statements of the request are prepared in a cache
 * of their own, for they hold virtual tables that go with the request.
 */
#include "common/remote/remote_tables.h"

#include <stdlib.h>

#include "common/base/clock.h"
#include "common/query/run.h"
#include "common/query/typed_rows.h"
#include "common/remote/remote_explain.h"
#include "common/remote/remote_fill.h"
#include "common/remote/remote_rewrite.h"
#include "common/remote/remote_study.h"
#include "common/remote/remote_vtab.h"

#define STATEMENTS_MAX 64
#define PASSES_MAX     1000
#define BEGINNINGS_MAX 3                  /* when another node's schema changes */
#define MEMORY_MAX     ((size_t)24 << 20) /* of rows that one query keeps; more go to disk */
#define FILL_BYTES_MAX ((size_t)48 << 20) /* of an INSERT's rows; a value may have 64 MiB */
#define DISK_MAX       ((size_t)2 << 30)

struct remote_tables {
	struct remote_schemas *schemas;
	char *dir;
};

enum db_err remote_tables_create(struct remote_tables **out, const char *dir, struct errmsg *em)
{
	struct remote_tables *t = calloc(1, sizeof(*t));

	*out = NULL;
	if (t != NULL) {
		t->schemas = remote_schemas_create();
		t->dir = strdup(dir);
	}
	if (t == NULL || t->schemas == NULL || t->dir == NULL) {
		remote_tables_free(t);
		return errmsg_set(em, DB_NOMEM, "out of memory");
	}
	*out = t;
	return DB_OK;
}

void remote_tables_free(struct remote_tables *t)
{
	if (t == NULL)
		return;
	remote_schemas_free(t->schemas);
	free(t->dir);
	free(t);
}

/* ---- what goes to the client */

/* Stands between a run and the client's sink: what a pass yields that may turn out to be a collecting one goes nowhere. */
struct gate {
	struct remote_query *q;
	const struct query_sink *sink; /* NULL: all stays in the buffer */
	bool dropped;
};

static bool gate_flush(void *arg, struct buf *out)
{
	struct gate *g = arg;

	if (g->q->may_miss || g->q->missed) {
		g->dropped = true;
		buf_clear(out);
		return true;
	}
	g->q->sent = true;
	return g->sink->flush(g->sink->arg, out);
}

/* ---- passes */

/* Keyed scans whose keys the passes so far may not have met all: several may depend on each other. */
static bool may_miss_more(const struct remote_query *q, bool whole_pass)
{
	size_t i, open = 0;

	for (i = 0; i < q->plan_count; i++) {
		const struct remote_plan *plan = q->plans[i];

		open += plan->in_loop && plan->keyed && (plan->chosen || plan->key_count > 0) && plan->whole == NULL;
	}
	return open > 1 || (open == 1 && !whole_pass);
}

/* The remote side's error is the reason of whatever SQLite made of it; the statement's number stays. */
static enum query_outcome fail_remote(struct remote_query *q, struct query_error *error)
{
	int statement = error->code != QUERY_OK ? error->statement : -1;

	if (q->asker.cancelled != NULL && atomic_load(q->asker.cancelled))
		return QUERY_GONE;
	*error = q->error;
	error->statement = statement;
	return QUERY_FAILED;
}

/* One pass. *again: another one is to follow. */
static enum query_outcome run_pass(struct remote_query *q, struct run *r, struct gate *gate, bool *again)
{
	enum query_outcome outcome;

	*again = false;
	q->missed = q->abort = gate->dropped = false;
	r->error->code = QUERY_OK;
	outcome = run_request(r);
	if (q->error.code != QUERY_OK)
		return fail_remote(q, r->error);
	if (outcome == QUERY_GONE || r->c->guard.stop != GUARD_GO)
		return outcome;
	if (q->missed) {
		bool whole_pass = !q->abort && outcome == QUERY_ANSWERED;

		if (remote_query_fetch_keys(q) != QUERY_OK)
			return fail_remote(q, r->error);
		if (q->replan)
			return outcome;
		q->may_miss = may_miss_more(q, whole_pass);
		*again = true;
	} else if (outcome == QUERY_ANSWERED && gate->dropped) {
		q->may_miss = false;
		*again = true;
	}
	return outcome;
}

static enum query_outcome run_passes(struct remote_query *q, struct run *r, const struct query_sink *sink)
{
	struct gate gate = {.q = q, .sink = sink};
	const struct query_sink through = {gate_flush, &gate, sink != NULL ? sink->chunk_bytes : 0};
	const struct run fresh = *r;
	enum query_outcome outcome = QUERY_FAILED;
	bool again = true;
	int pass;

	q->may_miss = q->has_keyed;
	for (pass = 0; again && pass < PASSES_MAX && !q->replan; pass++) {
		*r = fresh;
		r->out->len = fresh.start;
		r->sink = sink != NULL ? &through : NULL;
		outcome = run_pass(q, r, &gate, &again);
	}
	if (again && !q->replan) {
		query_error_set(r->error, QUERY_SQL_ERROR,
				"the query was begun %d times and always asked for more of other nodes", PASSES_MAX);
		outcome = QUERY_FAILED;
	}
	if (!q->sent) { /* what a pass flushed went nowhere */
		r->flushed = false;
		r->start = fresh.start;
	}
	r->sink = sink;
	return outcome;
}

/* ---- in a snapshot */

/* A table or view of that very name would hide ours. */
static enum query_code check_names(struct remote_query *q, struct query_conn *c, struct query_error *error)
{
	sqlite3_stmt *stmt = NULL;
	size_t i;
	int rc;

	authorizer_enter(&c->authorizer, AUTHORIZER_TRUSTED);
	rc = sqlite3_prepare_v2(c->db, "SELECT 1 FROM sqlite_schema WHERE name = ? COLLATE NOCASE", -1, &stmt, NULL);
	for (i = 0; i < q->unit_count && rc == SQLITE_OK; i++) {
		sqlite3_bind_text(stmt, 1, q->units[i]->module, -1, SQLITE_STATIC);
		if (sqlite3_step(stmt) == SQLITE_ROW) {
			query_error_set(error, QUERY_SQL_ERROR,
					"%s: this node has a table of that very name, which hides the other node's",
					q->units[i]->module);
			break;
		}
		rc = sqlite3_reset(stmt);
	}
	if (rc != SQLITE_OK)
		conn_error(c, rc, error);
	sqlite3_finalize(stmt);
	c->authorizer.phase = AUTHORIZER_STEP;
	return error->code;
}

/* What is prepared goes: SQLite asks anew how to scan. */
static enum query_code prepare_anew(struct remote_query *q, struct run *r)
{
	struct query_conn *c = r->c;

	statement_cache_free(c->cache);
	c->cache = statement_cache_create(c->db, &c->authorizer, STATEMENTS_MAX);
	if (c->cache == NULL)
		return query_error_set(r->error, QUERY_INTERNAL, "out of memory");
	remote_study_forget(q);
	return remote_study(q, c, r->request, r->error);
}

/* How SQLite scans the units; asked twice when its first idea was made without knowing that a table is small. */
static enum query_code study(struct remote_query *q, struct run *r)
{
	enum query_code code = remote_study(q, r->c, r->request, r->error);

	if (code != QUERY_OK || !remote_study_small_tables(q, r->c))
		return code;
	q->prefer_keys = true;
	return prepare_anew(q, r);
}

/* Registered, prepared, looked at, run. */
static enum query_outcome run_prepared(struct remote_query *q, struct run *r, const struct federated_request *fr,
				       const struct query_sink *sink)
{
	struct query_conn *c = r->c;
	const struct run fresh = *r;
	enum query_outcome outcome;
	int rc;

	r->error->code = QUERY_OK;
	if (check_names(q, c, r->error) != QUERY_OK)
		return QUERY_FAILED;
	rc = remote_vtab_register(q);
	if (rc != SQLITE_OK) {
		conn_error(c, rc, r->error);
		return QUERY_FAILED;
	}
	if (study(q, r) != QUERY_OK)
		return QUERY_FAILED;
	if (fr->scans[0] != NULL && fr->scans[0]->statements[0].verb == FEDERATED_PLAN)
		return remote_explain(q, r);
	if (remote_query_prefetch(q) != QUERY_OK)
		return fail_remote(q, r->error);
	outcome = run_passes(q, r, sink);
	if (!q->replan)
		return outcome;
	q->prefer_keys = q->replan = false;
	*r = fresh;
	r->out->len = fresh.start;
	r->error->code = QUERY_OK;
	if (prepare_anew(q, r) != QUERY_OK)
		return QUERY_FAILED;
	return run_passes(q, r, sink);
}

static enum query_outcome run_in_snapshot(struct remote_query *q, struct run *r, const struct federated_request *fr,
					  const struct query_read_limits *limits, const struct query_sink *sink,
					  uint64_t *lsn)
{
	struct query_conn *c = r->c;
	struct statement_cache *shared = c->cache;
	enum query_outcome outcome = QUERY_FAILED;
	int rc = conn_control(c, CONN_BEGIN);

	if (rc != SQLITE_OK) {
		conn_error(c, rc, r->error);
		return QUERY_FAILED;
	}
	c->cache = statement_cache_create(c->db, &c->authorizer, STATEMENTS_MAX);
	guard_arm(&c->guard, 0, limits->deadline_ms, limits->cancelled);
	if (c->cache != NULL)
		outcome = run_prepared(q, r, fr, sink);
	else
		query_error_set(r->error, QUERY_INTERNAL, "out of memory");
	*lsn = c->options.snapshot_lsn != NULL ? c->options.snapshot_lsn(c->db) : 0;
	guard_disarm(&c->guard);
	statement_cache_free(c->cache);
	c->cache = shared;
	remote_vtab_unregister(q);
	if (outcome != QUERY_ANSWERED) {
		conn_rollback(c);
		return outcome;
	}
	rc = conn_control(c, CONN_COMMIT);
	if (rc != SQLITE_OK) {
		conn_error(c, rc, r->error);
		conn_rollback(c);
		return QUERY_FAILED;
	}
	return outcome;
}

/* ---- the request */

static void put_end(struct run *r, const struct remote_asker *asker, uint64_t lsn, uint64_t started_us)
{
	uint64_t now = clock_mono_us();

	if (r->typed) {
		typed_rows_put_end(r->out, r->index, lsn);
		return;
	}
	if (r->request->format == QUERY_NDJSON)
		return;
	answer_put_trailer_fields(r->out, lsn, r->c->options.node_id, now > started_us ? now - started_us : 0);
	remote_asker_put(asker, r->out);
	buf_puts(r->out, r->sink != NULL ? ",\"status\":\"ok\"}\n" : "}\n");
}

/* The nodes in the order of their first mention. */
static enum query_code mention_all(struct remote_asker *asker, const struct federated_request *fr,
				   struct query_error *error)
{
	size_t i, j;

	for (i = 0; i < fr->request->statement_count; i++)
		for (j = 0; fr->scans[i] != NULL && j < fr->scans[i]->ref_count; j++)
			if (!remote_asker_mention(asker, fr->scans[i]->refs[j].address))
				return query_error_set(error, QUERY_INTERNAL, "out of memory");
	return QUERY_OK;
}

/* What SQLite does not find may be new in another node's table: what was remembered of it goes. */
static void doubt_schemas(struct remote_query *q)
{
	size_t i;

	for (i = 0; i < q->unit_count; i++) {
		if (!q->units[i]->cached)
			continue;
		remote_schemas_forget(q->schemas, q->units[i]->schema);
		q->stale = true;
	}
}

/* From the beginning. *again: another node's schema turned out to have changed, and nothing was sent. */
static enum query_outcome begin(struct remote_query *q, struct run *r, const struct federated_request *fr,
				const struct query_read_limits *limits, const struct query_sink *sink,
				uint64_t started_us, bool *again)
{
	struct query_request rewritten = {0};
	enum query_outcome outcome = QUERY_FAILED;
	size_t start = r->out->len;
	uint64_t lsn = 0;

	*again = false;
	r->request = &rewritten;
	if (remote_rewrite(q, fr, &rewritten, r->error) == QUERY_OK)
		outcome = run_in_snapshot(q, r, fr, limits, sink, &lsn);
	if (outcome == QUERY_ANSWERED) {
		r->sink = sink;
		put_end(r, &q->asker, lsn, started_us);
		if (r->out->failed)
			outcome = run_out_of_memory(r);
	}
	if (outcome != QUERY_ANSWERED) {
		if (r->error->code == QUERY_SQL_ERROR)
			doubt_schemas(q);
		*again = q->stale && !q->sent && outcome == QUERY_FAILED;
		if (*again)
			r->out->len = start;
		else
			outcome = run_break_off(r, outcome);
	}
	remote_rewrite_fini(&rewritten);
	return outcome;
}

/* What a request is asked by. */
static void init_asker(struct remote_query *q, const struct remote_tables_env *env, const struct federated_request *fr,
		       const struct query_read_limits *limits)
{
	q->asker = (struct remote_asker){.pool = env->pool,
					 .access = env->access,
					 .request = fr->request,
					 .deadline_ms = limits->deadline_ms,
					 .cancelled = limits->cancelled,
					 .meanwhile = remote_query_read_meanwhile,
					 .meanwhile_arg = q,
					 .hops = fr->hops};
	remote_asker_init(&q->asker);
}

/* Begins, and begins again while other nodes' schemas turn out to have changed. */
static enum query_outcome run_whole(struct remote_query *q, const struct remote_tables_env *env,
				    const struct run *fresh, const struct federated_request *fr,
				    const struct query_read_limits *limits, const struct query_sink *sink,
				    uint64_t started_us)
{
	enum query_outcome outcome = QUERY_FAILED;
	struct run r;
	bool again = true;
	int i;

	if (mention_all(&q->asker, fr, fresh->error) != QUERY_OK)
		return QUERY_FAILED;
	for (i = 0; again && i < BEGINNINGS_MAX; i++) {
		r = *fresh;
		q->budget = (struct row_budget){MEMORY_MAX, DISK_MAX, env->tables->dir};
		q->stale = q->has_keyed = q->prefer_keys = q->replan = q->has_where = q->outer_joins = q->left_joins =
		    false;
		q->root_count = 0;
		q->error.code = QUERY_OK;
		outcome = begin(q, &r, fr, limits, sink, started_us, &again);
		remote_query_fini(q);
	}
	return outcome;
}

enum query_outcome remote_tables_read(const struct remote_tables_env *env, struct query_conn *c,
				      const struct federated_request *fr, const struct query_read_limits *limits,
				      const struct query_sink *sink, uint64_t started_us, struct buf *out,
				      struct query_error *error)
{
	struct remote_query q = {.schemas = env->tables->schemas, .db = c->db};
	const struct run fresh = {.c = c,
				  .error = error,
				  .out = out,
				  .bytes_max = limits->bytes_max,
				  .reading = true,
				  .start = out->len,
				  .whole = out->len};
	enum query_outcome outcome;

	init_asker(&q, env, fr, limits);
	outcome = run_whole(&q, env, &fresh, fr, limits, sink, started_us);
	remote_asker_fini(&q.asker);
	return outcome;
}

/* ---- an INSERT's SELECT */

/* The SELECT alone, as a request; one whose tables are all of one node in parentheses, so that it may be sent there whole.
 * *text is its SQL. */
static enum query_code take_select(const struct federated_request *fr, const struct remote_fill_parts *parts,
				   struct query_request *request, struct query_statement *statement, struct buf *text,
				   struct federated_request **select, struct query_error *error)
{
	const struct query_statement *whole = &fr->request->statements[0];
	const char *sql = whole->sql + parts->select;
	size_t len = parts->select_end - parts->select;
	struct federation *scan;
	bool alone;

	if (federation_scan(&scan, sql, len, error) != QUERY_OK)
		return error->code;
	alone = scan->statements[0].one_address && !scan->statements[0].names_local && whole->param_count == 0;
	federation_free(scan);
	if (alone)
		buf_puts(text, "SELECT * FROM (");
	buf_put(text, sql, len);
	if (alone)
		buf_puts(text, "\n)"); /* it may end in a comment */
	buf_put_u8(text, '\0');
	if (text->failed)
		return query_error_set(error, QUERY_INTERNAL, "out of memory");
	*statement = *whole;
	statement->sql = (const char *)text->data;
	statement->sql_len = text->len - 1;
	*request = *fr->request;
	request->document = NULL;
	request->statements = statement;
	request->from_statements = false;
	request->format = QUERY_ROWS;
	if (federated_request_scan(select, request, error) != QUERY_OK)
		return error->code;
	(*select)->hops = fr->hops;
	return QUERY_OK;
}

static enum query_code run_select(struct remote_query *q, const struct remote_tables_env *env, struct query_conn *c,
				  const struct federated_request *select, const struct query_read_limits *limits,
				  struct buf *rows, struct query_error *error)
{
	const struct run fresh = {
	    .c = c, .error = error, .out = rows, .bytes_max = FILL_BYTES_MAX, .reading = true, .typed = true};

	switch (run_whole(q, env, &fresh, select, limits, NULL, clock_mono_us())) {
	case QUERY_ANSWERED:
		return QUERY_OK;
	case QUERY_OVER_BUDGET:
		return query_error_set(error, QUERY_TOO_LARGE,
				       "the rows for the INSERT are more than %zu MiB: insert them in several parts",
				       FILL_BYTES_MAX >> 20);
	case QUERY_GONE:
		return query_error_set(error, QUERY_NO_MASTER, "the node is stopping; the request was not executed");
	default:
		return error->code;
	}
}

enum query_code remote_tables_fill(const struct remote_tables_env *env, struct query_conn *c,
				   const struct federated_request *fr, const struct query_read_limits *limits,
				   struct query_request **filled, struct buf *remote, struct query_error *error)
{
	struct remote_query q = {.schemas = env->tables->schemas, .db = c->db};
	const struct query_request *from = fr->request;
	struct federated_request *select = NULL;
	struct query_statement statement;
	struct query_request request;
	struct remote_fill_parts parts;
	struct buf text = {0}, rows = {0};
	enum query_code code;

	*filled = NULL;
	if (from->statement_count != 1 || fr->scans[0]->statement_count != 1)
		return query_error_set(
		    error, QUERY_SQL_ERROR,
		    "an INSERT from tables of other nodes must be the only statement of its request");
	code = remote_fill_split(fr->scans[0], from->statements[0].sql, from->statements[0].sql_len, &parts, error);
	if (code == QUERY_OK)
		code = take_select(fr, &parts, &request, &statement, &text, &select, error);
	if (code == QUERY_OK) {
		init_asker(&q, env, select, limits);
		code = run_select(&q, env, c, select, limits, &rows, error);
		if (code == QUERY_OK)
			remote_asker_put(&q.asker, remote);
		remote_asker_fini(&q.asker);
	}
	if (code == QUERY_OK)
		code = remote_fill_build(filled, from, &parts, &rows, error);
	federated_request_free(select);
	buf_fini(&text);
	buf_fini(&rows);
	return code;
}

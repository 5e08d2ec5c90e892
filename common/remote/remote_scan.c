/*
 * remote_scan.c - see remote_query.h: scans that are asked for as they are, and cursors over what came.
 *
 * An answer is read as SQLite steps through it. Kept rows go into a store on their way; a cursor that begins again reads the
 * store and goes on where the answer stands. While one answer is waited for, all others are read as they come: a node
 * whose answers nobody reads may have no thread left for the one that is waited for. What was not to be kept is stored
 * from where it stands, and its cursor goes on in the store.
 */
#include "common/remote/remote_query.h"

#include <assert.h>
#include <stdlib.h>

#define MEANWHILE_ROWS 1000 /* at a time */

/* ---- any request's answer */

/* The statement before the rows: 0 the version, 1 the size. */
static enum query_code take_head(struct remote_plan *plan, const struct rows_reader *r, struct query_error *error)
{
	struct remote_schema *schema = plan->unit->schema;
	const struct query_value *v = rows_reader_values(r);
	const char *name = plan->unit->name;

	if (rows_reader_column_count(r) != 1)
		return query_error_set(error, QUERY_REMOTE_ERROR, "%s: its answer is damaged: not what was asked for",
				       name);
	if (rows_reader_result_count(r) == 1 && (v[0].type != QUERY_INTEGER || v[0].integer != schema->version)) {
		plan->query->stale = true;
		remote_schemas_forget(plan->query->schemas, schema);
		return query_error_set(error, QUERY_REMOTE_ERROR, "%s: its schema changed while the query ran", name);
	}
	if (rows_reader_result_count(r) == 2 && v[0].type == QUERY_INTEGER && v[0].integer >= 0)
		atomic_store(&schema->rows, (uint64_t)v[0].integer);
	return QUERY_OK;
}

/* The other node does not know what we took for granted: what we know of it may be old. */
static void note_refusal(struct remote_plan *plan, const struct query_error *refused)
{
	if (refused->code != QUERY_SQL_ERROR)
		return;
	plan->query->stale = true;
	remote_schemas_forget(plan->query->schemas, plan->unit->schema);
}

static enum query_code fail_damaged(struct remote_plan *plan)
{
	struct query_error error = {.statement = -1};

	query_error_set(&error, QUERY_REMOTE_ERROR, "%s: its answer is damaged: not what was asked for",
			plan->unit->name);
	return remote_query_fail(plan->query, &error);
}

enum query_code remote_next_row(struct remote_plan *plan, struct remote_ask *ask, size_t columns, bool wait,
				const struct query_value **values, bool *busy)
{
	struct query_error error = {.statement = -1}, refused;
	const struct rows_reader *r;

	*values = NULL;
	*busy = false;
	for (;;) {
		enum remote_event event = remote_ask_next(ask, wait, &error, &refused);

		r = remote_ask_reader(ask);
		switch (event) {
		case REMOTE_ROW:
			if (rows_reader_result_count(r) > 2) {
				remote_ask_count_row(ask);
				*values = rows_reader_values(r);
				return QUERY_OK;
			}
			if (take_head(plan, r, &error) != QUERY_OK)
				return remote_query_fail(plan->query, &error);
			break;
		case REMOTE_RESULT:
			if (rows_reader_result_count(r) > 3 ||
			    (rows_reader_result_count(r) == 3 && rows_reader_column_count(r) != columns))
				return fail_damaged(plan);
			break;
		case REMOTE_DONE:
			return rows_reader_result_count(r) == 3 ? QUERY_OK : fail_damaged(plan);
		case REMOTE_BUSY:
			*busy = true;
			return QUERY_OK;
		case REMOTE_FAILED:
			note_refusal(plan, &refused);
			return remote_query_fail(plan->query, &error);
		}
	}
}

/* ---- results */

void remote_result_free(struct remote_result *r)
{
	if (r == NULL)
		return;
	remote_ask_free(r->ask);
	row_store_free(r->store);
	buf_fini(&r->arguments);
	free(r);
}

/* A row on its way into the store. */
static enum query_code store_row(struct remote_result *r, const struct query_value *values, struct stored_row **row)
{
	struct query_error error = {.statement = -1};
	struct errmsg em = {0};
	enum db_err err = row_store_add(r->store, values, row, &em);

	if (err == DB_OK) {
		(*row)->hash = (uint32_t)row_store_count(r->store); /* until it is indexed: its number */
		return QUERY_OK;
	}
	query_error_set(&error, err == DB_TOO_LARGE ? QUERY_TOO_LARGE : QUERY_INTERNAL, "%s: %s", r->plan->unit->name,
			em.text);
	return remote_query_fail(r->plan->query, &error);
}

/* Takes the next row from the answer; into the store when there is one. QUERY_OK with *values NULL: there is none, or (*busy)
 * none has come and it was not to be waited for. */
static enum query_code pull(struct remote_result *r, bool wait, const struct query_value **values, bool *busy)
{
	struct stored_row *row;
	enum query_code code;

	*values = NULL;
	*busy = false;
	if (r->ask == NULL)
		return QUERY_OK;
	code = remote_next_row(r->plan, r->ask, r->plan->shape.column_count, wait, values, busy);
	if (code == QUERY_OK && *values != NULL && r->store != NULL)
		code = store_row(r, *values, &row);
	if (code == QUERY_OK && *values == NULL && !*busy) {
		remote_ask_free(r->ask);
		r->ask = NULL;
	}
	return code;
}

/* Rows that went by go into a store from here on. The current one belongs to the answer's reader: it is saved first. */
static enum query_code begin_store(struct remote_result *r)
{
	struct remote_cursor *c = r->reader;
	struct stored_row *row;

	r->store = row_store_create(&r->plan->query->budget, r->plan->shape.column_count);
	if (r->store == NULL)
		return remote_query_no_memory(r->plan->query);
	if (c == NULL || c->values == NULL)
		return QUERY_OK;
	if (store_row(r, c->values, &row) != QUERY_OK)
		return r->plan->query->error.code;
	c->source = SOURCE_STORE;
	c->store = r->store;
	c->lasting = true;
	c->values = NULL;
	c->row = row_store_next(r->store, &c->walk);
	return QUERY_OK;
}

enum query_code remote_result_load(struct remote_result *r)
{
	const struct query_value *values;
	enum query_code code = QUERY_OK;
	bool busy;

	if (r->store == NULL && r->ask != NULL)
		code = begin_store(r);
	if (code != QUERY_OK)
		return code;
	do
		code = pull(r, true, &values, &busy);
	while (code == QUERY_OK && values != NULL);
	return code;
}

/* 1: something has come and is in the store; 0: nothing; -1: it failed. */
static int read_result(struct remote_result *r)
{
	const struct query_value *values;
	int read = 0, i;
	bool busy;

	if (r->store == NULL && begin_store(r) != QUERY_OK)
		return -1;
	for (i = 0; i < MEANWHILE_ROWS && r->ask != NULL; i++) {
		if (pull(r, false, &values, &busy) != QUERY_OK)
			return -1;
		if (busy)
			break;
		read = 1;
	}
	return read;
}

static int read_other(struct remote_result *r, const struct remote_ask *waited_for)
{
	return r != NULL && r->ask != NULL && r->ask != waited_for ? read_result(r) : 0;
}

int remote_query_read_meanwhile(void *arg, const struct remote_ask *waited_for)
{
	struct remote_query *q = arg;
	struct remote_result *r;
	int read = 0, now;
	size_t i;

	for (i = 0; i < q->plan_count; i++) {
		for (r = q->plans[i]->results; r != NULL; r = r->next) {
			now = read_other(r, waited_for);
			if (now < 0)
				return -1;
			read |= now;
		}
		now = read_other(q->plans[i]->whole, waited_for);
		if (now >= 0)
			read |= now;
		if (now >= 0)
			now = remote_keys_read_meanwhile(q->plans[i], waited_for);
		if (now < 0)
			return -1;
		read |= now;
	}
	return read;
}

struct remote_result *remote_result_start(struct remote_plan *plan, const struct remote_argument *arguments,
					  uint64_t limit, bool keep)
{
	struct remote_query *q = plan->query;
	const struct remote_name name = {plan->unit->address, plan->unit->name};
	struct remote_result *r = calloc(1, sizeof(*r));
	struct query_error error = {.statement = -1};
	struct buf statements = {0};

	if (r == NULL) {
		remote_query_no_memory(q);
		return NULL;
	}
	r->plan = plan;
	r->keep = keep;
	if (keep)
		r->store = row_store_create(&q->budget, plan->shape.column_count);
	remote_arguments_put(&r->arguments, arguments, plan->shape.condition_count);
	buf_put_u64le(&r->arguments, limit);
	remote_sql_put_scan(&statements, &plan->shape, arguments, limit);
	if (statements.failed || r->arguments.failed || (keep && r->store == NULL))
		remote_query_no_memory(q);
	else if (remote_ask_start(&r->ask, &q->asker, &name, (const char *)statements.data, statements.len, &error) !=
		 QUERY_OK)
		remote_query_fail(q, &error);
	buf_fini(&statements);
	if (r->ask == NULL) {
		remote_result_free(r);
		return NULL;
	}
	return r;
}

static bool has_values(const struct remote_shape *shape)
{
	size_t i;

	for (i = 0; i < shape->condition_count; i++)
		if (!remote_condition_is_unary(&shape->conditions[i]))
			return true;
	return shape->limit >= 0;
}

/* Whether its rows may be needed again. */
static bool must_keep(const struct remote_plan *plan)
{
	return plan->query->has_keyed || plan->in_loop || plan->unit->numbered;
}

enum query_code remote_query_prefetch(struct remote_query *q)
{
	size_t i, started = 0;

	for (i = 0; i < q->plan_count && started < REMOTE_AHEAD_MAX; i++) {
		struct remote_plan *plan = q->plans[i];
		struct remote_argument *none;
		struct remote_result *r;

		if (!plan->chosen || plan->results != NULL || has_values(&plan->shape))
			continue;
		none = calloc(plan->shape.condition_count + 1, sizeof(*none));
		if (none == NULL)
			return remote_query_no_memory(q);
		r = remote_result_start(plan, none, UINT64_MAX, must_keep(plan));
		free(none);
		if (r == NULL)
			return q->error.code;
		plan->results = r;
		started++;
	}
	return QUERY_OK;
}

/* ---- cursors */

/* The result of a scan with these values, that may be read from the start. NULL: q->error. */
static struct remote_result *find_result(struct remote_plan *plan, const struct remote_argument *arguments,
					 uint64_t limit)
{
	struct remote_result *r;
	struct buf bytes = {0};
	bool again = false;

	remote_arguments_put(&bytes, arguments, plan->shape.condition_count);
	buf_put_u64le(&bytes, limit);
	if (bytes.failed) {
		buf_fini(&bytes);
		remote_query_no_memory(plan->query);
		return NULL;
	}
	for (r = plan->results; r != NULL; r = r->next) {
		if (r->arguments.len != bytes.len || memcmp(r->arguments.data, bytes.data, bytes.len) != 0)
			continue;
		if (r->keep || !r->taken)
			break;
		again = true; /* it went by; this time it is kept */
	}
	buf_fini(&bytes);
	if (r != NULL)
		return r;
	r = remote_result_start(plan, arguments, limit, again || must_keep(plan));
	if (r == NULL)
		return NULL;
	r->next = plan->results;
	plan->results = r;
	return r;
}

/* Nobody reads a stream that its cursor has left. */
void remote_cursor_clear(struct remote_cursor *c)
{
	if (c->result != NULL && c->result->reader == c) {
		remote_ask_free(c->result->ask);
		c->result->ask = NULL;
		c->result->reader = NULL;
	}
	c->source = SOURCE_NONE;
	c->result = NULL;
	c->row = NULL;
	c->values = NULL;
	c->eof = true;
}

static bool make_room(struct remote_cursor *c, size_t columns)
{
	struct query_value *room;

	if (columns <= c->room_len)
		return true;
	room = realloc(c->room, columns * sizeof(*room));
	if (room == NULL)
		return false;
	c->room = room;
	c->room_len = columns;
	return true;
}

enum query_code remote_cursor_filter(struct remote_cursor *c, struct remote_plan *plan,
				     struct remote_argument *arguments, uint64_t limit)
{
	remote_cursor_clear(c);
	c->plan = plan;
	if (!make_room(c, plan->shape.column_count + plan->shape.condition_count))
		return remote_query_no_memory(plan->query);
	c->lasting = true;
	if (plan->in_loop && plan->keyed)
		return remote_keys_filter(c, plan, arguments);
	c->result = find_result(plan, arguments, limit);
	if (c->result == NULL)
		return plan->query->error.code;
	c->result->taken = true;
	c->result->reader = c->result->keep ? NULL : c;
	c->source = c->result->keep ? SOURCE_STORE : SOURCE_STREAM;
	c->lasting = c->result->keep;
	c->store = c->result->store;
	memset(&c->walk, 0, sizeof(c->walk));
	return remote_cursor_next(c);
}

/* The next row of the store or, behind its last, of the answer. */
static enum query_code step_store(struct remote_cursor *c)
{
	const struct query_value *values;
	enum query_code code;
	bool busy;

	c->row = row_store_next(c->store, &c->walk);
	if (c->row != NULL || c->result->ask == NULL)
		return QUERY_OK;
	code = pull(c->result, true, &values, &busy);
	if (code == QUERY_OK && values != NULL)
		c->row = row_store_next(c->store, &c->walk);
	return code;
}

enum query_code remote_cursor_next(struct remote_cursor *c)
{
	const struct query_value *values;
	enum query_code code = QUERY_OK;
	bool busy;

	c->values = NULL;
	if (c->source == SOURCE_STREAM && c->result->store != NULL) {
		c->source = SOURCE_STORE; /* the rest of it was put there */
		c->store = c->result->store;
		c->lasting = true;
	}
	switch (c->source) {
	case SOURCE_NONE:
		break;
	case SOURCE_STREAM:
		code = pull(c->result, true, &values, &busy);
		c->values = values;
		c->eof = values == NULL;
		return code;
	case SOURCE_STORE:
		code = step_store(c);
		break;
	case SOURCE_LIST:
		c->row = c->row->next;
		break;
	case SOURCE_INDEX:
		c->row = row_index_next(c->row);
		break;
	}
	c->eof = c->row == NULL;
	return code;
}

const struct query_value *remote_cursor_values(struct remote_cursor *c)
{
	if (c->values == NULL && c->row != NULL) {
		row_store_values(c->store, c->row, c->room);
		c->values = c->room;
	}
	return c->values;
}

void remote_cursor_fini(struct remote_cursor *c)
{
	remote_cursor_clear(c);
	free(c->room);
}

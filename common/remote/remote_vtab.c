/*
 * remote_vtab.c - see remote_vtab.h.
 * xBestIndex is in remote_choose.c.
 */
#include "common/remote/remote_vtab.h"

#include <assert.h>
#include <stdlib.h>

struct remote_table {
	sqlite3_vtab base;
	struct remote_unit *unit;
};

struct remote_vtab_cursor {
	sqlite3_vtab_cursor base;
	struct remote_cursor at;
};

/* ---- connecting */

static int table_connect(sqlite3 *db, void *aux, int argc, const char *const *argv, sqlite3_vtab **out, char **error)
{
	struct remote_unit *unit = aux;
	struct remote_table *table = calloc(1, sizeof(*table));
	struct buf create = {0};
	int rc;

	(void)argc;
	(void)argv;
	(void)error;
	remote_schema_put_create(&create, unit->schema);
	if (table == NULL || create.failed)
		rc = SQLITE_NOMEM;
	else
		rc = sqlite3_declare_vtab(db, (const char *)create.data);
	buf_fini(&create);
	if (rc == SQLITE_OK)
		rc = sqlite3_vtab_config(db, SQLITE_VTAB_DIRECTONLY);
	if (rc != SQLITE_OK) {
		free(table);
		return rc;
	}
	table->unit = unit;
	*out = &table->base;
	return SQLITE_OK;
}

static int table_disconnect(sqlite3_vtab *base)
{
	free((struct remote_table *)base);
	return SQLITE_OK;
}

static int table_best_index(sqlite3_vtab *base, sqlite3_index_info *info)
{
	return remote_choose(((struct remote_table *)base)->unit, info);
}

/* ---- cursors */

static int table_open(sqlite3_vtab *base, sqlite3_vtab_cursor **out)
{
	struct remote_vtab_cursor *c = calloc(1, sizeof(*c));

	(void)base;
	if (c == NULL)
		return SQLITE_NOMEM;
	c->at.eof = true;
	*out = &c->base;
	return SQLITE_OK;
}

static int cursor_close(sqlite3_vtab_cursor *base)
{
	struct remote_vtab_cursor *c = (struct remote_vtab_cursor *)base;

	remote_cursor_fini(&c->at);
	free(c);
	return SQLITE_OK;
}

/* The statement fails; why is in the query. */
static int step_result(sqlite3_vtab_cursor *base, enum query_code code)
{
	struct remote_unit *unit = ((struct remote_table *)base->pVtab)->unit;

	if (code == QUERY_OK && !unit->query->abort)
		return SQLITE_OK;
	sqlite3_free(base->pVtab->zErrMsg);
	base->pVtab->zErrMsg = sqlite3_mprintf("%s", code != QUERY_OK ? unit->query->error.message : "begins again");
	return SQLITE_ERROR;
}

static void get_value(sqlite3_value *from, struct query_value *to)
{
	switch (sqlite3_value_type(from)) {
	case SQLITE_INTEGER:
		to->type = QUERY_INTEGER;
		to->integer = sqlite3_value_int64(from);
		break;
	case SQLITE_FLOAT:
		to->type = QUERY_REAL;
		to->real = sqlite3_value_double(from);
		break;
	case SQLITE_TEXT:
		to->type = QUERY_TEXT;
		to->data.bytes = (const char *)sqlite3_value_text(from);
		to->data.len = (size_t)sqlite3_value_bytes(from);
		break;
	case SQLITE_BLOB:
		to->type = QUERY_BLOB;
		to->data.bytes = sqlite3_value_blob(from);
		to->data.len = (size_t)sqlite3_value_bytes(from);
		break;
	default:
		to->type = QUERY_NULL;
	}
}

/* A text that is compared with a numeric column is compared as the number it looks like: SQLite itself says which. */
static void make_numeric(sqlite3_value *from, struct query_value *to)
{
	sqlite3_value *copy = sqlite3_value_dup(from);

	if (copy == NULL)
		return;
	switch (sqlite3_value_numeric_type(copy)) {
	case SQLITE_INTEGER:
		to->type = QUERY_INTEGER;
		to->integer = sqlite3_value_int64(copy);
		break;
	case SQLITE_FLOAT:
		to->type = QUERY_REAL;
		to->real = sqlite3_value_double(copy);
		break;
	default:
		break;
	}
	sqlite3_value_free(copy);
}

/* Copies the values of an IN, for each is gone when the next is asked for. */
static int take_list(struct remote_plan *plan, const struct remote_condition *condition, sqlite3_value *from,
		     struct remote_argument *to)
{
	struct query_value *list = NULL, *grown;
	size_t room = 0, count = 0;
	sqlite3_value *item;
	int rc;

	for (rc = sqlite3_vtab_in_first(from, &item); rc == SQLITE_OK && item != NULL;
	     rc = sqlite3_vtab_in_next(from, &item)) {
		struct query_value v = {.type = QUERY_NULL};
		char *copy;

		get_value(item, &v);
		if (v.type == QUERY_NULL)
			continue;
		if (!remote_condition_may_push(&plan->shape, condition, &v))
			to->skip = true;
		if (count == room) {
			room = room > 0 ? room * 2 : 16;
			grown = realloc(list, room * sizeof(*list));
			if (grown == NULL) {
				rc = SQLITE_NOMEM;
				break;
			}
			list = grown;
		}
		if (v.type == QUERY_TEXT || v.type == QUERY_BLOB) {
			copy = malloc(v.data.len + 1);
			if (copy == NULL) {
				rc = SQLITE_NOMEM;
				break;
			}
			if (v.data.len > 0)
				memcpy(copy, v.data.bytes, v.data.len);
			v.data.bytes = copy;
		}
		list[count++] = v;
	}
	if (list == NULL)
		list = calloc(1, sizeof(*list));
	to->list = list;
	to->list_len = count;
	if (rc == SQLITE_DONE)
		rc = SQLITE_OK;
	return list == NULL ? SQLITE_NOMEM : rc;
}

static void free_arguments(struct remote_argument *arguments, size_t count)
{
	size_t i, j;

	for (i = 0; arguments != NULL && i < count; i++) {
		for (j = 0; j < arguments[i].list_len; j++)
			if (arguments[i].list[j].type == QUERY_TEXT || arguments[i].list[j].type == QUERY_BLOB)
				free((char *)arguments[i].list[j].data.bytes);
		free((struct query_value *)arguments[i].list);
	}
	free(arguments);
}

/* A list that is a good part of the table is no condition worth sending. */
static bool is_long(const struct remote_plan *plan, size_t len)
{
	uint64_t rows = atomic_load(&plan->shape.schema->rows), share = rows == UINT64_MAX ? 0 : rows / 5;

	return len > 20000 && len > share;
}

static int take_arguments(struct remote_plan *plan, sqlite3_value **argv, struct remote_argument *arguments,
			  bool *empty)
{
	const struct remote_shape *shape = &plan->shape;
	size_t i;
	int rc;

	for (i = 0; i < shape->condition_count; i++) {
		const struct remote_condition *condition = &shape->conditions[i];
		struct remote_argument *a = &arguments[i];
		bool numeric =
		    condition->column < 0 || shape->schema->columns[condition->column].affinity == REMOTE_NUMERIC;

		if (condition->is_in) {
			rc = take_list(plan, condition, argv[i], a);
			if (rc != SQLITE_OK)
				return rc;
			*empty = *empty || a->list_len == 0;
			a->skip = a->skip || is_long(plan, a->list_len);
			continue;
		}
		if (remote_condition_is_unary(condition))
			continue;
		get_value(argv[i], &a->value);
		if ((a->value.type == QUERY_TEXT || a->value.type == QUERY_BLOB) && a->value.data.bytes == NULL)
			a->value.data.bytes = "";
		if (a->value.type == QUERY_TEXT && numeric && condition->op != SQLITE_INDEX_CONSTRAINT_LIKE &&
		    condition->op != SQLITE_INDEX_CONSTRAINT_GLOB)
			make_numeric(argv[i], &a->value);
		*empty = *empty || (a->value.type == QUERY_NULL && remote_condition_needs_value(condition));
		a->skip = !remote_condition_may_push(shape, condition, &a->value);
	}
	return SQLITE_OK;
}

/* How many rows LIMIT and OFFSET leave to be asked for. */
static uint64_t take_limit(const struct remote_shape *shape, sqlite3_value **argv)
{
	sqlite3_int64 limit, offset = 0;

	if (shape->limit < 0)
		return UINT64_MAX;
	limit = sqlite3_value_int64(argv[shape->limit]);
	if (shape->offset >= 0)
		offset = sqlite3_value_int64(argv[shape->offset]);
	if (limit < 0)
		return UINT64_MAX;
	return (uint64_t)limit + (uint64_t)(offset > 0 ? offset : 0);
}

static int cursor_filter(sqlite3_vtab_cursor *base, int id, const char *label, int argc, sqlite3_value **argv)
{
	struct remote_vtab_cursor *c = (struct remote_vtab_cursor *)base;
	struct remote_query *q = ((struct remote_table *)base->pVtab)->unit->query;
	struct remote_plan *plan = q->plans[id];
	struct remote_argument *arguments = calloc(plan->shape.condition_count + 1, sizeof(*arguments));
	enum query_code code = QUERY_OK;
	bool empty = false;
	int rc;

	(void)label;
	(void)argc;
	rc = arguments != NULL ? take_arguments(plan, argv, arguments, &empty) : SQLITE_NOMEM;
	if (rc == SQLITE_OK && empty)
		remote_cursor_clear(&c->at);
	else if (rc == SQLITE_OK)
		code = remote_cursor_filter(&c->at, plan, arguments, take_limit(&plan->shape, argv));
	free_arguments(arguments, plan->shape.condition_count);
	return rc != SQLITE_OK ? rc : step_result(base, code);
}

static int cursor_next(sqlite3_vtab_cursor *base)
{
	return step_result(base, remote_cursor_next(&((struct remote_vtab_cursor *)base)->at));
}

static int cursor_eof(sqlite3_vtab_cursor *base)
{
	return ((struct remote_vtab_cursor *)base)->at.eof;
}

static void put_result(sqlite3_context *context, const struct query_value *v, bool lasting)
{
	switch (v->type) {
	case QUERY_INTEGER:
		sqlite3_result_int64(context, v->integer);
		break;
	case QUERY_REAL:
		sqlite3_result_double(context, v->real);
		break;
	case QUERY_TEXT:
		sqlite3_result_text64(context, v->data.len > 0 ? v->data.bytes : "", v->data.len,
				      lasting ? SQLITE_STATIC : SQLITE_TRANSIENT, SQLITE_UTF8);
		break;
	case QUERY_BLOB:
		sqlite3_result_blob64(context, v->data.len > 0 ? v->data.bytes : "", v->data.len,
				      lasting ? SQLITE_STATIC : SQLITE_TRANSIENT);
		break;
	case QUERY_NULL:
		sqlite3_result_null(context);
		break;
	}
}

static int cursor_column(sqlite3_vtab_cursor *base, sqlite3_context *context, int column)
{
	struct remote_cursor *c = &((struct remote_vtab_cursor *)base)->at;
	const struct query_value *values = remote_cursor_values(c);
	int at = values != NULL && column >= 0 && (size_t)column < c->plan->shape.schema->column_count
		     ? c->plan->position[column]
		     : -1;

	if (at >= 0)
		put_result(context, &values[at], c->lasting);
	else
		sqlite3_result_null(context);
	return SQLITE_OK;
}

static int cursor_rowid(sqlite3_vtab_cursor *base, sqlite3_int64 *rowid)
{
	struct remote_cursor *c = &((struct remote_vtab_cursor *)base)->at;
	struct remote_query *q = ((struct remote_table *)base->pVtab)->unit->query;
	const struct query_value *values = remote_cursor_values(c);
	int at = c->plan->position[c->plan->shape.schema->column_count];
	struct query_error error = {.statement = -1};

	if (c->plan->unit->numbered && c->row != NULL) {
		*rowid = c->row->hash;
		return SQLITE_OK;
	}
	if (values != NULL && at >= 0 && values[at].type == QUERY_INTEGER) {
		*rowid = values[at].integer;
		return SQLITE_OK;
	}
	if (!q->number_rows) /* OR over several conditions, say: begin again, and number them */
		q->stale = q->number_rows = true;
	query_error_set(&error, QUERY_SQL_ERROR, "%s: its rows have no rowid", c->plan->unit->name);
	return step_result(base, remote_query_fail(q, &error));
}

/* ---- modules */

static const sqlite3_module remote_module = {
    .iVersion = 1,
    .xConnect = table_connect,
    .xBestIndex = table_best_index,
    .xDisconnect = table_disconnect,
    .xDestroy = table_disconnect,
    .xOpen = table_open,
    .xClose = cursor_close,
    .xFilter = cursor_filter,
    .xNext = cursor_next,
    .xEof = cursor_eof,
    .xColumn = cursor_column,
    .xRowid = cursor_rowid,
};

int remote_vtab_register(struct remote_query *q)
{
	int rc = SQLITE_OK;
	size_t i;

	for (i = 0; i < q->unit_count && rc == SQLITE_OK; i++) {
		rc = sqlite3_create_module_v2(q->db, q->units[i]->module, &remote_module, q->units[i], NULL);
		q->units[i]->registered = rc == SQLITE_OK;
	}
	return rc;
}

void remote_vtab_unregister(struct remote_query *q)
{
	size_t i;

	for (i = 0; i < q->unit_count; i++) {
		if (q->units[i]->registered)
			sqlite3_create_module_v2(q->db, q->units[i]->module, NULL, NULL, NULL);
		q->units[i]->registered = false;
	}
}

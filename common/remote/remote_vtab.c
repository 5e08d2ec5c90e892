/*
 * remote_vtab.c - see remote_vtab.h.
 *
 * xBestIndex turns what SQLite offers into a remote_plan, and idxNum is its id. It pushes every condition it can write, and
 * lets SQLite check each again: what the other node compares is at least what SQLite would find (remote_sql.h). LIMIT is
 * pushed only when all conditions are, with constants whose comparison is known to be exact, and none can be hidden.
 *
 * Costs are in SQLite's measure, about one for a row stepped over here: a remote row costs some for its way, a request
 * far more; a scan in a loop asks for many keys at once, so that a key costs little.
 */
#include "common/remote/remote_vtab.h"

#include <assert.h>
#include <stdlib.h>

#define COST_REQUEST  1000.0
#define COST_ROW      3.0  /* one that comes over */
#define COST_LOOK     0.3  /* one that the other node looks at, for a condition without an index */
#define COST_KEY      40.0 /* one of many keys */
#define ROWS_UNKNOWN  1000
#define PREFER_ROWS   2000   /* query.prefer_keys: a scan of more rows than this … */
#define PREFER_FACTOR 1000.0 /* … is made so much dearer */

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

/* ---- the best index */

/* What is being put together. */
struct choice {
	const struct remote_schema *schema;
	sqlite3_index_info *info;
	struct remote_shape shape;
	bool exact;      /* all that SQLite offered is pushed, and the other node decides as SQLite would */
	bool has_list;   /* an IN is among it */
	double selected; /* share of the rows that remain */
	bool by_index;
	bool by_key; /* at most one row */
	bool prefer_keys, numbered, has_where, outer_joins;
	int limit_at, offset_at; /* in info's constraints; -1: none */
};

static bool is_supported(unsigned char op)
{
	switch (op) {
	case SQLITE_INDEX_CONSTRAINT_EQ:
	case SQLITE_INDEX_CONSTRAINT_GT:
	case SQLITE_INDEX_CONSTRAINT_GE:
	case SQLITE_INDEX_CONSTRAINT_LT:
	case SQLITE_INDEX_CONSTRAINT_LE:
	case SQLITE_INDEX_CONSTRAINT_LIKE:
	case SQLITE_INDEX_CONSTRAINT_GLOB:
	case SQLITE_INDEX_CONSTRAINT_IS:
	case SQLITE_INDEX_CONSTRAINT_ISNULL:
	case SQLITE_INDEX_CONSTRAINT_ISNOTNULL:
		return true;
	default:
		return false;
	}
}

/* The collation of constraint i, when it is not the column's own. False: it is one that the other node may not have. */
static bool find_collation(const struct choice *c, int i, const struct remote_column *column, const char **collation)
{
	static const char *const known[] = {"BINARY", "NOCASE", "RTRIM"};
	const char *wanted = sqlite3_vtab_collation(c->info, i), *own = column != NULL ? column->collation : "BINARY";
	unsigned char op = c->info->aConstraint[i].op;
	size_t k;

	*collation = NULL;
	if (column == NULL || wanted == NULL || op == SQLITE_INDEX_CONSTRAINT_LIKE ||
	    op == SQLITE_INDEX_CONSTRAINT_GLOB || op == SQLITE_INDEX_CONSTRAINT_ISNULL ||
	    op == SQLITE_INDEX_CONSTRAINT_ISNOTNULL || sqlite3_stricmp(wanted, own) == 0)
		return true;
	for (k = 0; k < sizeof(known) / sizeof(known[0]); k++)
		if (sqlite3_stricmp(wanted, known[k]) == 0)
			*collation = known[k];
	return *collation != NULL;
}

/* Whether the comparison has one meaning, known now. */
static bool is_exact(const struct choice *c, int i, const struct remote_column *column)
{
	unsigned char op = c->info->aConstraint[i].op;
	sqlite3_value *value;

	if (op == SQLITE_INDEX_CONSTRAINT_ISNULL || op == SQLITE_INDEX_CONSTRAINT_ISNOTNULL)
		return true;
	if (sqlite3_vtab_rhs_value(c->info, i, &value) != SQLITE_OK || value == NULL)
		return false;
	if (column == NULL || column->affinity == REMOTE_NUMERIC)
		return true;
	return sqlite3_value_type(value) == SQLITE_TEXT || sqlite3_value_type(value) == SQLITE_BLOB;
}

/* How far a condition narrows things down. */
static void weigh(struct choice *c, const struct remote_condition *condition, const struct remote_column *column)
{
	bool indexed = condition->collation == NULL && (column == NULL || column->indexed);

	switch (condition->op) {
	case SQLITE_INDEX_CONSTRAINT_EQ:
	case SQLITE_INDEX_CONSTRAINT_IS:
		if (condition->collation == NULL && (column == NULL || column->unique) && !condition->is_in)
			c->by_key = true;
		c->selected *= condition->is_in ? 0.05 : 0.01;
		break;
	case SQLITE_INDEX_CONSTRAINT_ISNULL:
		c->selected *= 0.1;
		break;
	case SQLITE_INDEX_CONSTRAINT_ISNOTNULL:
		c->selected *= 0.9;
		return;
	case SQLITE_INDEX_CONSTRAINT_LIKE:
	case SQLITE_INDEX_CONSTRAINT_GLOB:
		c->selected *= 0.25;
		return;
	default:
		c->selected *= 0.25;
	}
	c->by_index = c->by_index || indexed;
}

static void add_condition(struct choice *c, int i)
{
	const struct sqlite3_index_constraint *from = &c->info->aConstraint[i];
	const struct remote_column *column = from->iColumn >= 0 ? &c->schema->columns[from->iColumn] : NULL;
	struct remote_condition *condition = &c->shape.conditions[c->shape.condition_count];

	if (c->numbered || !from->usable || !is_supported(from->op) || from->iColumn >= (int)c->schema->column_count ||
	    (column == NULL && c->schema->rowid_name == NULL) || (column != NULL && column->affinity == REMOTE_NONE) ||
	    !find_collation(c, i, column, &condition->collation)) {
		c->exact = false;
		return;
	}
	condition->column = from->iColumn;
	condition->op = from->op;
	condition->is_in = from->op == SQLITE_INDEX_CONSTRAINT_EQ && sqlite3_vtab_in(c->info, i, -1) != 0;
	if (condition->is_in) {
		sqlite3_vtab_in(c->info, i, 1);
		c->has_list = true;
	}
	c->exact = c->exact && !condition->is_in && is_exact(c, i, column);
	c->info->aConstraintUsage[i].argvIndex = (int)++c->shape.condition_count;
	weigh(c, condition, column);
}

static void add_conditions(struct choice *c)
{
	int i;

	for (i = 0; i < c->info->nConstraint; i++) {
		unsigned char op = c->info->aConstraint[i].op;

		if (op == SQLITE_INDEX_CONSTRAINT_LIMIT && c->info->aConstraint[i].usable)
			c->limit_at = i;
		else if (op == SQLITE_INDEX_CONSTRAINT_OFFSET && c->info->aConstraint[i].usable)
			c->offset_at = i;
		else if (op == SQLITE_INDEX_CONSTRAINT_LIMIT || op == SQLITE_INDEX_CONSTRAINT_OFFSET)
			c->exact = false;
		else
			add_condition(c, i);
	}
}

static void add_orders(struct choice *c)
{
	sqlite3_index_info *info = c->info;
	int i;

	if (c->numbered)
		return;
	for (i = 0; i < info->nOrderBy; i++) {
		int column = info->aOrderBy[i].iColumn;

		if ((column < 0 && c->schema->rowid_name == NULL) ||
		    (column >= 0 && c->schema->columns[column].affinity == REMOTE_NONE))
			return;
	}
	for (i = 0; i < info->nOrderBy; i++)
		c->shape.orders[c->shape.order_count++] = (struct remote_order){
		    .column = info->aOrderBy[i].iColumn, .descending = info->aOrderBy[i].desc != 0};
	info->orderByConsumed = info->nOrderBy > 0;
	c->shape.distinct = info->nOrderBy > 0 && !c->outer_joins && sqlite3_vtab_distinct(info) >= 2;
}

static void add_limit(struct choice *c)
{
	sqlite3_index_info *info = c->info;
	int arguments = (int)c->shape.condition_count, i;

	if (c->limit_at < 0 || c->numbered || c->has_where || !c->exact ||
	    (info->nOrderBy > 0 && !info->orderByConsumed))
		return;
	for (i = 0; i < info->nConstraint; i++)
		if (info->aConstraintUsage[i].argvIndex > 0)
			info->aConstraintUsage[i].omit = 1;
	c->shape.limit = arguments;
	info->aConstraintUsage[c->limit_at].argvIndex = ++arguments;
	if (c->offset_at >= 0) {
		c->shape.offset = arguments;
		info->aConstraintUsage[c->offset_at].argvIndex = ++arguments;
	}
}

/* ---- what is asked for */

static bool wants_column(const struct choice *c, size_t column)
{
	const struct remote_schema *schema = c->schema;
	size_t i;

	if (c->numbered || (c->info->colUsed & ((sqlite3_uint64)1 << (column < 63 ? column : 63))) != 0 ||
	    (int)column == schema->rowid_column)
		return true;
	for (i = 0; i < c->shape.condition_count; i++)
		if (c->shape.conditions[i].column == (int)column &&
		    c->shape.conditions[i].op == SQLITE_INDEX_CONSTRAINT_EQ)
			return true; /* rows may have to be found by it */
	for (i = 0; schema->without_rowid && i < schema->key_count; i++)
		if (schema->key_columns[i] == column)
			return true; /* SQLite tells rows apart by it */
	for (i = 0; c->shape.distinct && i < c->shape.order_count; i++)
		if (c->shape.orders[i].column == (int)column)
			return true; /* ORDER BY of a SELECT DISTINCT */
	return false;
}

static bool wants_rowid(const struct choice *c)
{
	size_t i;

	if (c->schema->rowid_name == NULL || c->schema->rowid_column >= 0)
		return false;
	if (!c->shape.distinct)
		return true; /* SQLite does not say whether it needs it */
	for (i = 0; i < c->shape.order_count; i++)
		if (c->shape.orders[i].column < 0)
			return true;
	return false;
}

static void add_columns(struct choice *c)
{
	struct remote_shape *shape = &c->shape;
	size_t i;

	for (i = 0; i < c->schema->column_count; i++)
		if (wants_column(c, i))
			shape->columns[shape->column_count++] = (int)i;
	if (wants_rowid(c))
		shape->columns[shape->column_count++] = REMOTE_ROWID;
	if (shape->column_count == 0)
		shape->columns[shape->column_count++] = -2;
}

/*
 * A view's or subquery's rows cannot be told apart, and SQLite may take two scans of them together (OR) only if it can: so
 * there two scans with conditions must look dearer than one without.
 */
static void set_cost(struct choice *c)
{
	uint64_t known = atomic_load(&c->schema->rows);
	double rows = known == UINT64_MAX ? ROWS_UNKNOWN : (double)known, all, cost;
	bool plain = c->shape.condition_count == 0;

	if (rows < 1)
		rows = 1;
	all = COST_REQUEST + COST_ROW * rows;
	rows = c->by_key ? 1 : rows * c->selected;
	if (rows < 1)
		rows = 1;
	cost = COST_KEY + COST_ROW * rows;
	if (!c->by_index)
		cost += COST_LOOK * (all / COST_ROW);
	if (plain || cost > all)
		cost = all;
	if (!plain && c->schema->rowid_name == NULL && !c->schema->without_rowid && cost < 0.6 * all)
		cost = 0.6 * all;
	if (c->prefer_keys && rows > PREFER_ROWS)
		cost *= PREFER_FACTOR;
	c->info->estimatedCost = cost;
	c->info->estimatedRows = (sqlite3_int64)rows;
}

static bool make_room(struct choice *c)
{
	size_t constraints = (size_t)c->info->nConstraint, orders = (size_t)c->info->nOrderBy;

	c->shape.columns = calloc(c->schema->column_count + 2, sizeof(*c->shape.columns));
	c->shape.conditions = calloc(constraints + 1, sizeof(*c->shape.conditions));
	c->shape.orders = calloc(orders + 1, sizeof(*c->shape.orders));
	if (c->shape.columns != NULL && c->shape.conditions != NULL && c->shape.orders != NULL)
		return true;
	free(c->shape.columns);
	free(c->shape.conditions);
	free(c->shape.orders);
	return false;
}

static int table_best_index(sqlite3_vtab *base, sqlite3_index_info *info)
{
	struct remote_unit *unit = ((struct remote_table *)base)->unit;
	struct choice c = {.schema = unit->schema,
			   .info = info,
			   .exact = true,
			   .selected = 1,
			   .prefer_keys = unit->query->prefer_keys,
			   .numbered = unit->numbered,
			   .has_where = unit->query->has_where,
			   .outer_joins = unit->query->outer_joins,
			   .limit_at = -1,
			   .offset_at = -1};
	struct remote_plan *plan;

	c.shape.schema = unit->schema;
	c.shape.limit = c.shape.offset = -1;
	if (!make_room(&c))
		return SQLITE_NOMEM;
	add_conditions(&c);
	add_orders(&c);
	add_limit(&c);
	add_columns(&c);
	set_cost(&c);
	plan = remote_query_add_plan(unit->query, unit, &c.shape);
	if (plan == NULL)
		return SQLITE_NOMEM;
	info->idxNum = (int)plan->id;
	info->idxStr = plan->label;
	return SQLITE_OK;
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

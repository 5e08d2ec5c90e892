/*
 * remote_choose.c - see remote_vtab.h: what SQLite is offered for a scan, and at which cost.
 *
 * xBestIndex turns what SQLite offers into a remote_plan, and idxNum is its id. It pushes every condition it can write, and
 * lets SQLite check each again: what the other node compares is at least what SQLite would find (remote_sql.h). LIMIT is
 * pushed only when all conditions are, with constants whose comparison is known to be exact, and none can be hidden.
 *
 * Costs are in SQLite's measure, about one for a row stepped over here: a remote row costs some for its way, a request
 * far more; a scan in a loop asks for many keys at once, so that a key costs little.
 */
#include "common/remote/remote_vtab.h"

#include <stdlib.h>

#define COST_REQUEST  1000.0
#define COST_ROW      3.0  /* one that comes over */
#define COST_LOOK     0.3  /* one that the other node looks at, for a condition without an index */
#define COST_KEY      40.0 /* one of many keys */
#define ROWS_UNKNOWN  1000
#define PREFER_ROWS   2000   /* query.prefer_keys: a scan of more rows than this … */
#define PREFER_FACTOR 1000.0 /* … is made so much dearer */

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
	bool prefer_keys, numbered, has_where, outer_joins, left_joins;
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

/*
 * What must not be pushed, for it would find too little. LIKE and GLOB of an outer join's ON clause: SQLite 3.40 offers them for
 * the left table, too. An upper bound for texts, unless it is a constant: one of a numeric column makes numbers of the
 * texts, which are then below any text.
 */
static bool is_misleading(const struct choice *c, int i, const struct remote_column *column)
{
	unsigned char op = c->info->aConstraint[i].op;

	if (op == SQLITE_INDEX_CONSTRAINT_LIKE || op == SQLITE_INDEX_CONSTRAINT_GLOB)
		return c->outer_joins || c->left_joins;
	if (op != SQLITE_INDEX_CONSTRAINT_LT && op != SQLITE_INDEX_CONSTRAINT_LE)
		return false;
	return column != NULL && column->affinity != REMOTE_NUMERIC && !is_exact(c, i, column);
}

static void add_condition(struct choice *c, int i)
{
	const struct sqlite3_index_constraint *from = &c->info->aConstraint[i];
	const struct remote_column *column = from->iColumn >= 0 ? &c->schema->columns[from->iColumn] : NULL;
	struct remote_condition *condition = &c->shape.conditions[c->shape.condition_count];

	if (c->numbered || is_misleading(c, i, column) || !from->usable || !is_supported(from->op) ||
	    from->iColumn >= (int)c->schema->column_count || (column == NULL && c->schema->rowid_name == NULL) ||
	    (column != NULL && column->affinity == REMOTE_NONE) ||
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

int remote_choose(struct remote_unit *unit, sqlite3_index_info *info)
{
	struct choice c = {.schema = unit->schema,
			   .info = info,
			   .exact = true,
			   .selected = 1,
			   .prefer_keys = unit->query->prefer_keys,
			   .numbered = unit->numbered,
			   .has_where = unit->query->has_where,
			   .outer_joins = unit->query->outer_joins,
			   .left_joins = unit->query->left_joins,
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

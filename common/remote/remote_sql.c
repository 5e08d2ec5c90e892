/* remote_sql.c - see remote_sql.h. */
#include "common/remote/remote_sql.h"

#include <assert.h>
#include <sqlite3.h>

#include "common/query/ship_request.h"

#define VARIABLES_MAX   30000 /* of one statement; SQLite's own limit is 32766 */
#define KEYS_MAX        4000
#define KEYS_SINGLE_MAX 10000 /* of one value each, as a JSON array */
#define JSON_INT_MAX    ((int64_t)1 << 62)

/* ---- what may be asked */

bool remote_condition_is_unary(const struct remote_condition *c)
{
	return c->op == SQLITE_INDEX_CONSTRAINT_ISNULL || c->op == SQLITE_INDEX_CONSTRAINT_ISNOTNULL;
}

bool remote_condition_needs_value(const struct remote_condition *c)
{
	return !remote_condition_is_unary(c) && c->op != SQLITE_INDEX_CONSTRAINT_IS;
}

static enum remote_affinity affinity_of(const struct remote_shape *shape, int column)
{
	return column == REMOTE_ROWID ? REMOTE_NUMERIC : shape->schema->columns[column].affinity;
}

/*
 * What SQLite compares depends on the affinity of both sides, and that of the value's side is not told. A numeric column
 * decides alone. Any other, compared with a column of numbers, is turned into a number itself ('05' = 5), which the other
 * node would not do for a bare value: so numbers are not compared there with texts or blobs.
 */
bool remote_condition_may_push(const struct remote_shape *shape, const struct remote_condition *c,
			       const struct query_value *v)
{
	if (remote_condition_is_unary(c) || c->op == SQLITE_INDEX_CONSTRAINT_LIKE ||
	    c->op == SQLITE_INDEX_CONSTRAINT_GLOB || v->type == QUERY_NULL)
		return true;
	if (affinity_of(shape, c->column) == REMOTE_NUMERIC)
		return true;
	return v->type == QUERY_TEXT || v->type == QUERY_BLOB;
}

/* ---- values */

static bool is_utf8(const uint8_t *p, size_t len)
{
	size_t i = 0, more;

	while (i < len) {
		uint8_t b = p[i++];
		uint32_t c, least;

		if (b < 0x80)
			continue;
		if (b >= 0xC2 && b <= 0xDF)
			c = b & 0x1F, more = 1, least = 0x80;
		else if (b >= 0xE0 && b <= 0xEF)
			c = b & 0x0F, more = 2, least = 0x800;
		else if (b >= 0xF0 && b <= 0xF4)
			c = b & 0x07, more = 3, least = 0x10000;
		else
			return false;
		for (; more > 0; more--) {
			if (i == len || (p[i] & 0xC0) != 0x80)
				return false;
			c = c << 6 | (p[i++] & 0x3F);
		}
		if (c < least || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
			return false;
	}
	return true;
}

static bool is_odd_text(const struct query_value *v)
{
	return v->type == QUERY_TEXT && !is_utf8((const uint8_t *)v->data.bytes, v->data.len);
}

/* The SQL of a parameter, and its JSON behind the others'. A text that JSON cannot carry goes as a blob; the plus keeps the
 * CAST from lending it an affinity. */
static void put_parameter(struct buf *sql, struct buf *params, const struct query_value *v)
{
	struct query_value blob = *v;

	if (params->len > 0)
		buf_put_u8(params, ',');
	if (is_odd_text(v)) {
		blob.type = QUERY_BLOB;
		buf_puts(sql, "+CAST(? AS TEXT)");
		ship_request_put_value(params, &blob);
		return;
	}
	buf_put_u8(sql, '?');
	ship_request_put_value(params, v);
}

/* ---- the SELECT */

static void put_column(struct buf *sql, const struct remote_shape *shape, int column)
{
	const struct remote_schema *schema = shape->schema;

	if (column == REMOTE_ROWID) {
		buf_printf(sql, "t.%s", schema->rowid_name);
	} else if (column < 0) {
		buf_puts(sql, "NULL");
	} else {
		buf_puts(sql, "t.");
		federation_put_identifier(sql, schema->columns[column].name, strlen(schema->columns[column].name));
	}
}

static const char *operator_of(unsigned char op)
{
	switch (op) {
	case SQLITE_INDEX_CONSTRAINT_EQ:
		return " = ";
	case SQLITE_INDEX_CONSTRAINT_GT:
		return " > ";
	case SQLITE_INDEX_CONSTRAINT_GE:
		return " >= ";
	case SQLITE_INDEX_CONSTRAINT_LT:
		return " < ";
	case SQLITE_INDEX_CONSTRAINT_LE:
		return " <= ";
	case SQLITE_INDEX_CONSTRAINT_IS:
		return " IS ";
	case SQLITE_INDEX_CONSTRAINT_LIKE:
		return " LIKE ";
	case SQLITE_INDEX_CONSTRAINT_GLOB:
		return " GLOB ";
	case SQLITE_INDEX_CONSTRAINT_ISNULL:
		return " IS NULL";
	default:
		assert(op == SQLITE_INDEX_CONSTRAINT_ISNOTNULL);
		return " IS NOT NULL";
	}
}

/* The column and its operator; what it is compared with follows. */
static void put_left(struct buf *sql, const struct remote_shape *shape, const struct remote_condition *c)
{
	put_column(sql, shape, c->column);
	if (c->collation != NULL)
		buf_printf(sql, " COLLATE %s", c->collation);
	buf_puts(sql, c->is_in ? " IN " : operator_of(c->op));
}

/* Whether a JSON array carries it exactly, and json_each() gives it back. */
static bool fits_json(const struct query_value *v)
{
	if (v->type == QUERY_INTEGER)
		return v->integer > -JSON_INT_MAX && v->integer < JSON_INT_MAX;
	return v->type == QUERY_TEXT && memchr(v->data.bytes, 0, v->data.len) == NULL && !is_odd_text(v);
}

static void put_json_value(struct buf *array, const struct query_value *v)
{
	buf_put_u8(array, array->len == 0 ? '[' : ',');
	ship_request_put_value(array, v);
}

/* The array as a parameter. */
static void put_array(struct buf *params, struct buf *array)
{
	struct query_value text = {.type = QUERY_TEXT};

	if (array->len == 0)
		buf_put_u8(array, '[');
	buf_put_u8(array, ']');
	text.data.bytes = (const char *)array->data;
	text.data.len = array->len;
	if (params->len > 0)
		buf_put_u8(params, ',');
	if (!array->failed)
		ship_request_put_value(params, &text);
	params->failed = params->failed || array->failed;
	buf_fini(array);
}

static void put_list(struct buf *sql, struct buf *params, const struct remote_argument *a)
{
	struct buf array = {0};
	size_t i;

	for (i = 0; i < a->list_len && fits_json(&a->list[i]); i++)
		;
	if (i == a->list_len && i > 16) {
		buf_puts(sql, "(SELECT value FROM json_each(?))");
		for (i = 0; i < a->list_len; i++)
			put_json_value(&array, &a->list[i]);
		put_array(params, &array);
		return;
	}
	buf_put_u8(sql, '(');
	for (i = 0; i < a->list_len; i++) {
		if (i > 0)
			buf_put_u8(sql, ',');
		put_parameter(sql, params, &a->list[i]);
	}
	buf_put_u8(sql, ')');
}

static void put_condition(struct buf *sql, struct buf *params, const struct remote_shape *shape,
			  const struct remote_condition *c, const struct remote_argument *a)
{
	put_left(sql, shape, c);
	if (c->is_in)
		put_list(sql, params, a);
	else if (!remote_condition_is_unary(c))
		put_parameter(sql, params, &a->value);
}

static void put_columns(struct buf *sql, const struct remote_shape *shape)
{
	size_t i;

	for (i = 0; i < shape->column_count; i++) {
		if (i > 0)
			buf_put_u8(sql, ',');
		put_column(sql, shape, shape->columns[i]);
	}
}

static void put_orders(struct buf *sql, const struct remote_shape *shape, const char *before)
{
	size_t i;

	if (shape->order_count == 0 && before == NULL)
		return;
	buf_puts(sql, " ORDER BY ");
	if (before != NULL)
		buf_puts(sql, before);
	for (i = 0; i < shape->order_count; i++) {
		if (i > 0 || before != NULL)
			buf_put_u8(sql, ',');
		put_column(sql, shape, shape->orders[i].column);
		if (shape->orders[i].descending)
			buf_puts(sql, " DESC");
	}
}

/* ---- requests */

/* The version and, of a table with rowids, the size. */
static void put_heads(struct buf *out, const struct remote_schema *schema)
{
	static const char version[] = "PRAGMA schema_version";
	struct buf sql = {0};

	remote_put_statement(out, version, sizeof(version) - 1);
	if (schema->rowid_name != NULL && !schema->has_stat)
		buf_printf(&sql, "SELECT max(%s) FROM %s", schema->rowid_name, schema->source);
	else
		buf_puts(&sql, "SELECT NULL");
	remote_put_statement(out, (const char *)sql.data, sql.len);
	out->failed = out->failed || sql.failed;
	buf_fini(&sql);
}

static void put_with_params(struct buf *out, struct buf *sql, struct buf *params)
{
	buf_puts(out, ",{\"sql\":");
	json_put_string(out, (const char *)sql->data, sql->len);
	if (params->len > 0) {
		buf_puts(out, ",\"params\":[");
		buf_put(out, params->data, params->len);
		buf_put_u8(out, ']');
	}
	buf_put_u8(out, '}');
	out->failed = out->failed || sql->failed || params->failed;
	buf_fini(sql);
	buf_fini(params);
}

void remote_sql_put_scan(struct buf *out, const struct remote_shape *shape, const struct remote_argument *arguments,
			 uint64_t limit)
{
	struct buf sql = {0}, params = {0};
	const char *before = " WHERE ";
	size_t i;

	put_heads(out, shape->schema);
	buf_puts(&sql, shape->distinct ? "SELECT DISTINCT " : "SELECT ");
	put_columns(&sql, shape);
	buf_printf(&sql, " FROM %s AS t", shape->schema->source);
	for (i = 0; i < shape->condition_count; i++) {
		if (arguments[i].skip)
			continue;
		buf_puts(&sql, before);
		before = " AND ";
		put_condition(&sql, &params, shape, &shape->conditions[i], &arguments[i]);
	}
	put_orders(&sql, shape, NULL);
	if (limit != UINT64_MAX)
		buf_printf(&sql, " LIMIT %llu", (unsigned long long)limit);
	put_with_params(out, &sql, &params);
}

/* How many values a key has. */
static size_t count_valued(const struct remote_shape *shape)
{
	size_t i, count = 0;

	for (i = 0; i < shape->condition_count; i++)
		count += !shape->conditions[i].is_in && !remote_condition_is_unary(&shape->conditions[i]);
	return count;
}

size_t remote_sql_keys_max(const struct remote_shape *shape)
{
	size_t valued = count_valued(shape);

	if (valued <= 1)
		return KEYS_SINGLE_MAX;
	return VARIABLES_MAX / valued < KEYS_MAX ? VARIABLES_MAX / valued : KEYS_MAX;
}

/* Whether SQLite there can find a key's rows by an index; else it had better choose the order of the join itself. */
static bool has_indexed(const struct remote_shape *shape)
{
	size_t i;

	for (i = 0; i < shape->condition_count; i++) {
		const struct remote_condition *c = &shape->conditions[i];

		if (!c->is_in && c->collation == NULL && (c->column < 0 || shape->schema->columns[c->column].indexed))
			return true;
	}
	return false;
}

/* The conditions, compared with what is called value of the key, or a0, a1, … of it. */
static void put_key_conditions(struct buf *sql, const struct remote_shape *shape, bool single)
{
	const char *before = " WHERE ";
	size_t i, n = 0;

	for (i = 0; i < shape->condition_count; i++) {
		const struct remote_condition *c = &shape->conditions[i];

		if (c->is_in)
			continue;
		buf_puts(sql, before);
		before = " AND ";
		put_left(sql, shape, c);
		if (remote_condition_is_unary(c))
			continue;
		if (single)
			buf_puts(sql, "k.value");
		else
			buf_printf(sql, "k.a%zu", n++);
	}
}

/* As one parameter, [key, …]: when all keys are of one value that JSON carries. */
static bool put_keys_as_json(struct buf *sql, struct buf *params, const struct remote_shape *shape,
			     const struct remote_key_values *keys, size_t count)
{
	struct buf array = {0};
	size_t at = 0, i;

	if (count_valued(shape) != 1)
		return false;
	while (shape->conditions[at].is_in || remote_condition_is_unary(&shape->conditions[at]))
		at++;
	for (i = 0; i < count; i++)
		if (!fits_json(&keys[i].values[at]))
			return false;
	for (i = 0; i < count; i++)
		put_json_value(&array, &keys[i].values[at]);
	put_array(params, &array);
	buf_puts(sql, "SELECT k.key,");
	put_columns(sql, shape);
	buf_printf(sql, " FROM json_each(?) AS k %sJOIN %s AS t", has_indexed(shape) ? "CROSS " : "",
		   shape->schema->source);
	put_key_conditions(sql, shape, true);
	put_orders(sql, shape, "k.key");
	return true;
}

static void put_keys_as_values(struct buf *sql, struct buf *params, const struct remote_shape *shape,
			       const struct remote_key_values *keys, size_t count)
{
	size_t i, j, n = 0;

	buf_puts(sql, "WITH k(i");
	for (i = 0; i < count_valued(shape); i++)
		buf_printf(sql, ",a%zu", n++);
	buf_puts(sql, ") AS (VALUES ");
	for (i = 0; i < count; i++) {
		buf_printf(sql, "%s(%zu", i > 0 ? "," : "", i);
		for (j = 0; j < shape->condition_count; j++) {
			const struct remote_condition *c = &shape->conditions[j];

			if (c->is_in || remote_condition_is_unary(c))
				continue;
			buf_put_u8(sql, ',');
			put_parameter(sql, params, &keys[i].values[j]);
		}
		buf_put_u8(sql, ')');
	}
	buf_puts(sql, ") SELECT k.i,");
	put_columns(sql, shape);
	buf_printf(sql, " FROM k %sJOIN %s AS t", has_indexed(shape) ? "CROSS " : "", shape->schema->source);
	put_key_conditions(sql, shape, false);
	put_orders(sql, shape, "k.i");
}

void remote_sql_put_keys(struct buf *out, const struct remote_shape *shape, const struct remote_key_values *keys,
			 size_t count)
{
	struct buf sql = {0}, params = {0};

	put_heads(out, shape->schema);
	if (!put_keys_as_json(&sql, &params, shape, keys, count))
		put_keys_as_values(&sql, &params, shape, keys, count);
	put_with_params(out, &sql, &params);
}

/* ---- for people */

void remote_sql_put_text(struct buf *out, const struct remote_shape *shape, bool keys)
{
	const char *before = " WHERE ";
	size_t i;

	buf_puts(out, shape->distinct ? "SELECT DISTINCT " : "SELECT ");
	if (keys)
		buf_puts(out, "k.key,");
	put_columns(out, shape);
	buf_printf(out, " FROM %s%s AS t", keys ? "keys AS k JOIN " : "", shape->schema->source);
	for (i = 0; i < shape->condition_count; i++) {
		const struct remote_condition *c = &shape->conditions[i];

		if (keys && c->is_in)
			continue;
		buf_puts(out, before);
		before = " AND ";
		put_left(out, shape, c);
		if (c->is_in)
			buf_puts(out, "(…)");
		else if (!remote_condition_is_unary(c))
			buf_puts(out, keys ? "k.value" : "?");
	}
	put_orders(out, shape, keys ? "k.key" : NULL);
	if (shape->limit >= 0 && !keys)
		buf_puts(out, " LIMIT ?");
}

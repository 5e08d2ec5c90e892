/* remote_schema_parts.c - see remote_schema_parts.h. */
#include "common/remote/remote_schema_parts.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "common/query/ship_request.h"

#define ROWS_GUESS_QUERY 1000   /* nothing is known of what a subquery or view yields */
#define COUNT_MAX        20000  /* rows counted one by one */
#define ROWS_GUESS_MANY  200000 /* more than that, but how many */

enum first_result { FIRST_VERSION, FIRST_COLUMNS, FIRST_KIND, FIRST_INFO, FIRST_INDEXES, FIRST_STAT };
enum second_result { SECOND_VERSION, SECOND_SIZE, SECOND_STAT_OR_COLLATION };

/* ---- writing */

void remote_put_statement(struct buf *out, const char *sql, size_t len)
{
	if (out->len > 0)
		buf_put_u8(out, ',');
	buf_puts(out, "{\"sql\":");
	json_put_string(out, sql, len);
	buf_put_u8(out, '}');
}

static void put_plain(struct buf *out, const char *sql)
{
	remote_put_statement(out, sql, strlen(sql));
}

/* One parameter: the table's name. */
static void put_about(struct buf *out, const char *sql, const char *table)
{
	const struct query_value name = {.type = QUERY_TEXT, .data = {table, strlen(table)}};

	buf_puts(out, ",{\"sql\":");
	json_put_string(out, sql, strlen(sql));
	buf_puts(out, ",\"params\":[");
	ship_request_put_value(out, &name);
	buf_puts(out, "]}");
}

static void put_built(struct buf *out, struct buf *sql)
{
	remote_put_statement(out, (const char *)sql->data, sql->len);
	out->failed = out->failed || sql->failed;
	buf_fini(sql);
}

void remote_schema_put_first(struct buf *out, const struct remote_schema *schema, const char *table)
{
	struct buf sql = {0};

	put_plain(out, "PRAGMA schema_version");
	buf_puts(&sql, "SELECT * FROM ");
	buf_puts(&sql, schema->source);
	buf_puts(&sql, " LIMIT 0");
	put_built(out, &sql);
	if (table == NULL)
		return;
	put_about(out, "SELECT type, wr FROM pragma_table_list(?) WHERE schema = 'main'", table);
	put_about(out, "SELECT name, type, pk, hidden FROM pragma_table_xinfo(?)", table);
	put_about(
	    out,
	    "SELECT l.name, l.\"unique\", l.origin, l.partial, i.seqno, i.name, i.coll FROM pragma_index_list(?) AS l, "
	    "pragma_index_xinfo(l.name) AS i WHERE i.\"key\" ORDER BY l.seq, i.seqno",
	    table);
	put_plain(out, "SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_stat1'");
}

/* SELECT <test of each column> FROM (SELECT * FROM source WHERE 0 UNION SELECT value, value, …). The UNION is what makes a
 * row whose columns compare as the source's do; it keeps SQLite from looking through. */
static void put_probe(struct buf *out, const struct remote_schema *schema, const char *value, const char *const test[2])
{
	struct buf sql = {0};
	size_t i;

	buf_puts(&sql, "WITH probe(");
	for (i = 0; i < schema->column_count; i++)
		buf_printf(&sql, "%sc%zu", i > 0 ? "," : "", i);
	buf_puts(&sql, ") AS (SELECT * FROM ");
	buf_puts(&sql, schema->source);
	buf_puts(&sql, " WHERE 0 UNION SELECT ");
	for (i = 0; i < schema->column_count; i++)
		buf_printf(&sql, "%s%s", i > 0 ? "," : "", value);
	buf_puts(&sql, ") SELECT ");
	for (i = 0; i < schema->column_count; i++) {
		buf_printf(&sql, "%s(c%zu = %s)", i > 0 ? "," : "", i, test[0]);
		if (test[1] != NULL)
			buf_printf(&sql, " + 2 * (c%zu = %s)", i, test[1]);
	}
	buf_puts(&sql, " FROM probe");
	put_built(out, &sql);
}

void remote_schema_put_size(struct buf *out, const struct remote_schema *schema, const char *table)
{
	struct buf sql = {0};

	put_plain(out, "PRAGMA schema_version");
	if (schema->is_query || schema->rowid_name == NULL) {
		if (schema->without_rowid)
			buf_printf(&sql, "SELECT count(*) FROM (SELECT 1 FROM %s LIMIT %d)", schema->source,
				   COUNT_MAX + 1);
		else
			buf_puts(&sql, "SELECT NULL");
	} else {
		buf_printf(&sql, "SELECT max(%s) FROM %s", schema->rowid_name, schema->source);
	}
	put_built(out, &sql);
	if (schema->has_stat && table != NULL)
		put_about(out, "SELECT stat FROM sqlite_stat1 WHERE tbl = ? COLLATE NOCASE", table);
}

void remote_schema_put_second(struct buf *out, const struct remote_schema *schema, const char *table)
{
	static const char *const collation[2] = {"'A'", "'a '"};
	static const char *const number[2] = {"1", "1.0"};
	static const char *const text[2] = {"CAST('1' AS TEXT)", NULL};

	remote_schema_put_size(out, schema, table);
	if (!schema->has_stat || table == NULL)
		put_plain(out, "SELECT NULL WHERE 0");
	put_probe(out, schema, "'a'", collation);
	put_probe(out, schema, "'1'", number);
	put_probe(out, schema, "1", text);
}

/* ---- columns */

/* Whether SQLite would take text for a type and nothing but a type: words, and one or two numbers in parentheses. */
static bool is_plain_type(const char *type)
{
	static const char *const keywords[] = {"constraint", "primary", "not",     "null",       "unique",
					       "check",      "default", "collate", "references", "generated",
					       "as",         "always",  "foreign"};
	const char *p = type;
	size_t i;

	while (*p != '\0' && *p != '(') {
		size_t len = 0;

		while (isalnum((unsigned char)p[len]) || p[len] == '_')
			len++;
		if (len == 0 || isdigit((unsigned char)*p))
			return false;
		for (i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++)
			if (strlen(keywords[i]) == len && strncasecmp(p, keywords[i], len) == 0)
				return false;
		p += len;
		while (*p == ' ')
			p++;
	}
	if (*p == '\0')
		return true;
	if (p == type)
		return false;
	p++;
	p += strspn(p, "0123456789");
	if (*p == ',') {
		p++;
		p += strspn(p, " ");
		p += strspn(p, "0123456789");
	}
	return strcmp(p, ")") == 0 && p[-1] != '(' && p[-1] != ',' && p[-1] != ' ';
}

bool remote_schema_take_columns(struct remote_schema *schema, const struct rows_reader *r)
{
	size_t count = rows_reader_column_count(r), i;

	schema->columns = calloc(count, sizeof(*schema->columns));
	if (schema->columns == NULL)
		return false;
	for (i = 0; i < count; i++) {
		struct remote_column *c = &schema->columns[i];

		c->name = strdup(rows_reader_column_name(r, i));
		c->type = strdup(rows_reader_column_type(r, i));
		c->collation = "BINARY";
		schema->column_count = i + 1;
		if (c->name == NULL || c->type == NULL)
			return false;
	}
	return true;
}

static int find_column(const struct remote_schema *schema, const struct query_value *name)
{
	size_t i;

	for (i = 0; name->type == QUERY_TEXT && i < schema->column_count; i++)
		if (strlen(schema->columns[i].name) == name->data.len &&
		    strncasecmp(schema->columns[i].name, name->data.bytes, name->data.len) == 0)
			return (int)i;
	return -1;
}

static bool text_is(const struct query_value *v, const char *text)
{
	return v->type == QUERY_TEXT && v->data.len == strlen(text) &&
	       strncasecmp(v->data.bytes, text, v->data.len) == 0;
}

static bool take_kind(struct remote_schema *schema, const struct query_value *v, size_t columns)
{
	if (columns != 2 || v[1].type != QUERY_INTEGER)
		return false;
	if (text_is(&v[0], "table") || text_is(&v[0], "shadow")) {
		schema->without_rowid = v[1].integer != 0;
		if (!schema->without_rowid)
			schema->rowid_name = "rowid";
	}
	return true;
}

static bool take_info(struct remote_schema *schema, const struct query_value *v, size_t columns)
{
	int at;

	if (columns != 4 || v[2].type != QUERY_INTEGER || v[3].type != QUERY_INTEGER)
		return false;
	at = find_column(schema, &v[0]);
	if (at < 0 || v[2].integer <= 0)
		return true;
	if (schema->key_columns == NULL)
		schema->key_columns = calloc(schema->column_count, sizeof(*schema->key_columns));
	if (schema->key_columns == NULL || (uint64_t)v[2].integer > schema->column_count)
		return false;
	schema->key_columns[v[2].integer - 1] = (size_t)at;
	schema->key_count++;
	if (text_is(&v[1], "INTEGER"))
		schema->rowid_column = at; /* unless there is more to the key: settle_first() */
	return true;
}

/* An index's column: index, unique, origin, partial, position, column, collation. */
static bool take_index(struct remote_schema *schema, const struct query_value *v, size_t columns)
{
	int at;

	if (columns != 7 || v[1].type != QUERY_INTEGER || v[3].type != QUERY_INTEGER || v[4].type != QUERY_INTEGER)
		return false;
	if (text_is(&v[2], "pk") && !schema->without_rowid)
		schema->rowid_column = -1; /* INTEGER PRIMARY KEY DESC, say: an index of its own */
	at = find_column(schema, &v[5]);
	if (v[3].integer == 0 && v[4].integer == 0 && at >= 0)
		schema->columns[at].indexed = true;
	return true;
}

bool remote_schema_take_first(struct remote_schema *schema, size_t result, const struct query_value *v, size_t columns)
{
	switch (result) {
	case FIRST_KIND:
		return take_kind(schema, v, columns);
	case FIRST_INFO:
		return take_info(schema, v, columns);
	case FIRST_INDEXES:
		return take_index(schema, v, columns);
	case FIRST_STAT:
		schema->has_stat = columns == 1 && v[0].type == QUERY_INTEGER && v[0].integer > 0;
		return true;
	default:
		return false;
	}
}

/* A name that no column has taken. */
static const char *find_rowid_name(const struct remote_schema *schema)
{
	static const char *const names[] = {"rowid", "_rowid_", "oid"};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const struct query_value name = {.type = QUERY_TEXT, .data = {names[i], strlen(names[i])}};

		if (find_column(schema, &name) < 0)
			return names[i];
	}
	return NULL;
}

bool remote_schema_settle_first(struct remote_schema *schema)
{
	size_t i;

	if (schema->rowid_name != NULL)
		schema->rowid_name = find_rowid_name(schema);

	if (schema->column_count == 0 || (schema->without_rowid && schema->key_count == 0))
		return false;
	if (schema->key_count != 1 || schema->rowid_name == NULL)
		schema->rowid_column = -1;
	if (schema->rowid_column >= 0) {
		schema->columns[schema->rowid_column].indexed = true;
		schema->columns[schema->rowid_column].unique = true;
	}
	if (schema->key_count > schema->column_count)
		return false;
	if (schema->key_count == 1)
		schema->columns[schema->key_columns[0]].unique = true;
	for (i = 0; i < schema->column_count; i++) {
		/* Two columns of one name no table has. A subquery's are made unique by SQLite. */
		size_t j;

		for (j = 0; j < i; j++)
			if (strcasecmp(schema->columns[i].name, schema->columns[j].name) == 0)
				return false;
	}
	return true;
}

/* ---- how they compare, and the size */

static bool take_size(struct remote_schema *schema, const struct query_value *v, size_t columns)
{
	uint64_t rows = ROWS_GUESS_QUERY;

	if (columns != 1 || (v[0].type != QUERY_INTEGER && v[0].type != QUERY_NULL))
		return false;
	if (v[0].type == QUERY_INTEGER)
		rows = v[0].integer > 0 ? (uint64_t)v[0].integer : 0;
	else if (schema->rowid_name != NULL)
		rows = 0;
	if (schema->rowid_name == NULL && rows > COUNT_MAX)
		rows = ROWS_GUESS_MANY;
	atomic_store(&schema->rows, rows);
	return true;
}

/* "rows …" of sqlite_stat1. Larger than the largest rowid it can only be out of date. */
static bool take_stat(struct remote_schema *schema, const struct query_value *v, size_t columns)
{
	char text[24];
	uint64_t rows;

	if (columns != 1)
		return false;
	if (v[0].type != QUERY_TEXT || v[0].data.len == 0 || !isdigit((unsigned char)v[0].data.bytes[0]))
		return true;
	snprintf(text, sizeof(text), "%.*s", (int)(v[0].data.len < 20 ? v[0].data.len : 20), v[0].data.bytes);
	rows = strtoull(text, NULL, 10);
	if (schema->rowid_name == NULL || rows < atomic_load(&schema->rows) / 4)
		rows = rows > 0 ? rows : 1;
	else
		return true;
	atomic_store(&schema->rows, rows);
	return true;
}

static bool take_probe(struct remote_schema *schema, size_t probe, const struct query_value *v, size_t columns)
{
	size_t i;

	if (columns != schema->column_count)
		return false;
	for (i = 0; i < columns; i++) {
		struct remote_column *c = &schema->columns[i];

		if (v[i].type != QUERY_INTEGER || v[i].integer < 0 || v[i].integer > 3)
			return false;
		if (probe == 0)
			c->collation = v[i].integer == 0 ? "BINARY" : v[i].integer == 1 ? "NOCASE" : "RTRIM";
		else if (probe == 1)
			c->affinity = v[i].integer == 3   ? REMOTE_NUMERIC
				      : v[i].integer == 1 ? REMOTE_TEXT
							  : REMOTE_BLOB;
		else if (c->affinity == REMOTE_BLOB && v[i].integer == 1)
			c->affinity = REMOTE_NONE;
	}
	return true;
}

bool remote_schema_take_second(struct remote_schema *schema, size_t result, const struct query_value *v, size_t columns)
{
	if (result == SECOND_SIZE)
		return take_size(schema, v, columns);
	if (result == SECOND_STAT_OR_COLLATION)
		return take_stat(schema, v, columns);
	return result <= 5 && take_probe(schema, result - 3, v, columns);
}

/* ---- what SQLite is told */

/* A type that has the column's affinity; its own when it may be shown to SQLite. */
static const char *declared_type(const struct remote_column *c)
{
	static const char *const types[] = {
	    [REMOTE_NONE] = "", [REMOTE_BLOB] = "", [REMOTE_TEXT] = "TEXT", [REMOTE_NUMERIC] = "NUMERIC"};

	if (remote_type_affinity(c->type) == (c->affinity == REMOTE_NONE ? REMOTE_BLOB : c->affinity) &&
	    is_plain_type(c->type))
		return c->type;
	return types[c->affinity];
}

/* SQLite's rules. */
enum remote_affinity remote_type_affinity(const char *type)
{
	if (strcasestr(type, "INT") != NULL)
		return REMOTE_NUMERIC;
	if (strcasestr(type, "CHAR") != NULL || strcasestr(type, "CLOB") != NULL || strcasestr(type, "TEXT") != NULL)
		return REMOTE_TEXT;
	if (type[0] == '\0' || strcasestr(type, "BLOB") != NULL)
		return REMOTE_BLOB;
	return REMOTE_NUMERIC;
}

/* ANY is a type without affinity in STRICT tables, a numeric one in others. */
static bool is_strict(const struct remote_schema *schema)
{
	static const char *const types[] = {"int", "integer", "real", "text", "blob", "any"};
	bool any = false;
	size_t i, k;

	for (i = 0; i < schema->column_count; i++) {
		const struct remote_column *c = &schema->columns[i];

		for (k = 0; k < sizeof(types) / sizeof(types[0]) && strcasecmp(c->type, types[k]) != 0; k++)
			;
		if (k == sizeof(types) / sizeof(types[0]))
			return false;
		any = any || (strcasecmp(c->type, "any") == 0 && c->affinity == REMOTE_BLOB);
	}
	return any;
}

void remote_schema_put_create(struct buf *out, const struct remote_schema *schema)
{
	bool strict = is_strict(schema);
	size_t i;

	buf_puts(out, "CREATE TABLE x(");
	for (i = 0; i < schema->column_count; i++) {
		const struct remote_column *c = &schema->columns[i];

		if (i > 0)
			buf_put_u8(out, ',');
		federation_put_identifier(out, c->name, strlen(c->name));
		buf_put_u8(out, ' ');
		buf_puts(out, strict ? c->type : declared_type(c));
		if (strcmp(c->collation, "BINARY") != 0) {
			buf_puts(out, " COLLATE ");
			buf_puts(out, c->collation);
		}
	}
	if (schema->without_rowid) {
		buf_puts(out, ", PRIMARY KEY(");
		for (i = 0; i < schema->key_count; i++) {
			const char *name = schema->columns[schema->key_columns[i]].name;

			if (i > 0)
				buf_put_u8(out, ',');
			federation_put_identifier(out, name, strlen(name));
		}
		buf_puts(out, strict ? ")) WITHOUT ROWID, STRICT" : ")) WITHOUT ROWID");
	} else {
		buf_puts(out, strict ? ") STRICT" : ")");
	}
	buf_put_u8(out, '\0');
}

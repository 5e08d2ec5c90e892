/*
 * test_remote_sql.c - what is sent for scans of other nodes' tables: SELECTs that SQLite takes and that mean what was asked,
 * and the parts of an INSERT from other nodes.
 */
#include "common/remote/remote_sql.h"

#include <jansson.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "common/remote/remote_fill.h"
#include "tests/unit/unit.h"

static struct remote_column columns[] = {
    {.name = "id",
     .type = "integer",
     .affinity = REMOTE_NUMERIC,
     .collation = "BINARY",
     .indexed = true,
     .unique = true},
    {.name = "na\"me", .type = "text", .affinity = REMOTE_TEXT, .collation = "NOCASE"},
    {.name = "x", .type = "", .affinity = REMOTE_BLOB, .collation = "BINARY"},
};
static char source[] = "main.\"t\"";
static struct remote_schema schema = {
    .source = source, .columns = columns, .column_count = 3, .rowid_name = "rowid", .rowid_column = 0};

static struct query_value integer(int64_t i)
{
	return (struct query_value){.type = QUERY_INTEGER, .integer = i};
}

static struct query_value text(const char *s)
{
	return (struct query_value){.type = QUERY_TEXT, .data = {s, strlen(s)}};
}

static sqlite3 *open_db(void)
{
	sqlite3 *db;

	CU_ASSERT_EQUAL_FATAL(sqlite3_open(":memory:", &db), SQLITE_OK);
	CU_ASSERT_EQUAL_FATAL(
	    sqlite3_exec(db,
			 "CREATE TABLE t(id INTEGER PRIMARY KEY, \"na\"\"me\" TEXT COLLATE NOCASE, x);"
			 "INSERT INTO t VALUES (1, 'Anna', 1), (2, 'bob', 'two'), (3, 'ANNA', x'03'), (4, NULL, NULL)",
			 NULL, NULL, NULL),
	    SQLITE_OK);
	return db;
}

/* Runs the last of the statements in array as another node would, and puts all values, rows apart by ';'. */
static void run(sqlite3 *db, const struct buf *statements, char *out, size_t size)
{
	char *json = NULL;
	json_t *array, *s, *params, *p;
	sqlite3_stmt *stmt;
	size_t i, at = 0;
	int c;

	CU_ASSERT_FATAL(!statements->failed);
	CU_ASSERT_FATAL(asprintf(&json, "[%.*s]", (int)statements->len, (const char *)statements->data) > 0);
	array = json_loads(json, JSON_ALLOW_NUL, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(array);
	CU_ASSERT_EQUAL(json_array_size(array), 3);
	s = json_array_get(array, 2);
	CU_ASSERT_EQUAL_FATAL(sqlite3_prepare_v2(db, json_string_value(json_object_get(s, "sql")), -1, &stmt, NULL),
			      SQLITE_OK);
	params = json_object_get(s, "params");
	CU_ASSERT_EQUAL(sqlite3_bind_parameter_count(stmt), (int)json_array_size(params));
	for (i = 0; i < json_array_size(params); i++) {
		p = json_array_get(params, i);
		if (json_is_integer(p))
			sqlite3_bind_int64(stmt, (int)i + 1, json_integer_value(p));
		else if (json_is_string(p))
			sqlite3_bind_text(stmt, (int)i + 1, json_string_value(p), -1, SQLITE_TRANSIENT);
		else if (json_is_object(p))
			sqlite3_bind_blob(stmt, (int)i + 1, "\xff", 1, SQLITE_STATIC); /* the test's only blob */
	}
	out[0] = '\0';
	while (sqlite3_step(stmt) == SQLITE_ROW) {
		for (c = 0; c < sqlite3_column_count(stmt); c++) {
			const char *value = (const char *)sqlite3_column_text(stmt, c);

			at += (size_t)snprintf(out + at, size - at, "%s%s", c > 0 ? "," : "", value ? value : "NULL");
		}
		at += (size_t)snprintf(out + at, size - at, ";");
	}
	CU_ASSERT_EQUAL(sqlite3_finalize(stmt), SQLITE_OK);
	json_decref(array);
	free(json);
}

static void assert_scan(const struct remote_shape *shape, const struct remote_argument *arguments, uint64_t limit,
			const char *expected)
{
	sqlite3 *db = open_db();
	struct buf statements = {0};
	char got[500];

	remote_sql_put_scan(&statements, shape, arguments, limit);
	run(db, &statements, got, sizeof(got));
	CU_ASSERT_STRING_EQUAL(got, expected);
	buf_fini(&statements);
	sqlite3_close(db);
}

static void test_scans(void)
{
	int ids[] = {0}, rowid_name[] = {REMOTE_ROWID, 1}, nothing[] = {-2};
	struct remote_condition c[2] = {{.column = 0, .op = SQLITE_INDEX_CONSTRAINT_GE}};
	struct remote_order order[] = {{1, false}, {0, true}};
	struct remote_argument a[2] = {{.value = integer(2)}};
	struct query_value list[20];
	struct remote_shape s = {.schema = &schema, .columns = ids, .column_count = 1, .conditions = c, .limit = -1};
	size_t i;

	assert_scan(&s, a, UINT64_MAX, "1;2;3;4;");
	s.condition_count = 1;
	assert_scan(&s, a, UINT64_MAX, "2;3;4;");
	a[0].skip = true;
	assert_scan(&s, a, 2, "1;2;");
	c[0] = (struct remote_condition){.column = 1, .op = SQLITE_INDEX_CONSTRAINT_EQ};
	a[0] = (struct remote_argument){.value = text("anna")};
	assert_scan(&s, a, UINT64_MAX, "1;3;");
	c[0].collation = "BINARY";
	assert_scan(&s, a, UINT64_MAX, "");
	c[0] = (struct remote_condition){.column = 1, .op = SQLITE_INDEX_CONSTRAINT_ISNULL};
	assert_scan(&s, a, UINT64_MAX, "4;");
	c[0] = (struct remote_condition){.column = 1, .op = SQLITE_INDEX_CONSTRAINT_LIKE};
	a[0].value = text("%B");
	assert_scan(&s, a, UINT64_MAX, "2;");
	a[0].value = text("\xff"); /* no UTF-8: goes as a blob, is compared as a text */
	c[0].op = SQLITE_INDEX_CONSTRAINT_LT;
	assert_scan(&s, a, UINT64_MAX, "1;2;3;");
	c[0] = (struct remote_condition){.column = 0, .op = SQLITE_INDEX_CONSTRAINT_EQ, .is_in = true};
	for (i = 0; i < 20; i++)
		list[i] = integer((int64_t)i * 3);
	a[0] = (struct remote_argument){.list = list, .list_len = 2};
	assert_scan(&s, a, UINT64_MAX, "3;");
	a[0].list_len = 20; /* as a JSON array */
	assert_scan(&s, a, UINT64_MAX, "3;");
	s.condition_count = 0;
	s.columns = rowid_name;
	s.column_count = 2;
	s.orders = order;
	s.order_count = 2;
	assert_scan(&s, a, UINT64_MAX, "4,NULL;3,ANNA;1,Anna;2,bob;");
	s.columns = nothing;
	s.column_count = 1;
	s.order_count = 0;
	assert_scan(&s, a, 2, "NULL;NULL;");
}

static void assert_keys(const struct remote_shape *shape, const struct remote_key_values *keys, size_t count,
			const char *expected)
{
	sqlite3 *db = open_db();
	struct buf statements = {0};
	char got[500];

	remote_sql_put_keys(&statements, shape, keys, count);
	run(db, &statements, got, sizeof(got));
	CU_ASSERT_STRING_EQUAL(got, expected);
	buf_fini(&statements);
	sqlite3_close(db);
}

static void test_many_keys_in_one_request(void)
{
	int ids[] = {0, 1};
	struct remote_condition c[2] = {{.column = 0, .op = SQLITE_INDEX_CONSTRAINT_EQ},
					{.column = 2, .op = SQLITE_INDEX_CONSTRAINT_ISNOTNULL}};
	struct query_value values[3][2] = {{integer(3)}, {integer(7)}, {integer(1)}};
	struct remote_key_values keys[3] = {{values[0]}, {values[1]}, {values[2]}};
	struct remote_shape s = {
	    .schema = &schema, .columns = ids, .column_count = 2, .conditions = c, .condition_count = 2, .limit = -1};

	assert_keys(&s, keys, 3, "0,3,ANNA;2,1,Anna;"); /* a JSON array */
	values[1][0] = (struct query_value){.type = QUERY_REAL, .real = 2.0};
	assert_keys(&s, keys, 1, "0,3,ANNA;");
	c[0] = (struct remote_condition){.column = 1, .op = SQLITE_INDEX_CONSTRAINT_EQ};
	values[0][0] = text("ANNA");
	values[1][0] = text("\xff");
	values[2][0] = text("BOB");
	assert_keys(&s, keys, 3, "0,1,Anna;0,3,ANNA;2,2,bob;"); /* VALUES, for the odd text */
	c[1] = (struct remote_condition){.column = 0, .op = SQLITE_INDEX_CONSTRAINT_LE};
	values[0][1] = integer(2);
	values[1][1] = values[2][1] = integer(9);
	assert_keys(&s, keys, 3, "0,1,Anna;2,2,bob;");
	c[1] = (struct remote_condition){.column = 0, .op = SQLITE_INDEX_CONSTRAINT_EQ, .is_in = true}; /* left out */
	assert_keys(&s, keys, 3, "0,1,Anna;0,3,ANNA;2,2,bob;");
}

static void test_numbers_are_compared_with_texts_here_only(void)
{
	struct remote_shape s = {.schema = &schema};
	struct remote_condition c = {.column = 1, .op = SQLITE_INDEX_CONSTRAINT_EQ};
	struct query_value number = integer(5), word = text("5"), null = {.type = QUERY_NULL};

	CU_ASSERT(!remote_condition_may_push(&s, &c, &number));
	CU_ASSERT(remote_condition_may_push(&s, &c, &word));
	CU_ASSERT(remote_condition_may_push(&s, &c, &null));
	c.column = 2;
	CU_ASSERT(!remote_condition_may_push(&s, &c, &number));
	c.column = 0;
	CU_ASSERT(remote_condition_may_push(&s, &c, &number) && remote_condition_may_push(&s, &c, &word));
	c.column = REMOTE_ROWID;
	CU_ASSERT(remote_condition_may_push(&s, &c, &word));
	CU_ASSERT(remote_condition_needs_value(&c));
	c.op = SQLITE_INDEX_CONSTRAINT_IS;
	CU_ASSERT(!remote_condition_needs_value(&c));
}

static void test_parts_of_an_insert(void)
{
	static const struct {
		const char *sql;
		const char *select; /* NULL: SQL_ERROR */
	} cases[] = {
	    {"INSERT INTO l SELECT * FROM h:1@t", "SELECT * FROM h:1@t"},
	    {" replace into l(a, \"select\") with q AS (SELECT 1 FROM h:1@t) select * from q returning a",
	     "with q AS (SELECT 1 FROM h:1@t) select * from q "},
	    {"INSERT OR IGNORE INTO l AS x VALUES ((SELECT 1 FROM h:1@t ON CONFLICT)) ON CONFLICT(a) DO NOTHING",
	     "VALUES ((SELECT 1 FROM h:1@t ON CONFLICT)) "},
	    {"INSERT INTO l SELECT * FROM h:1@t ON CONFLICT DO UPDATE SET a = ?", NULL},
	    {"INSERT INTO l SELECT 1 ON CONFLICT DO UPDATE SET a = (SELECT 1 FROM h:1@t)", NULL},
	    {"WITH q AS (SELECT 1 FROM h:1@t) INSERT INTO l SELECT * FROM q", NULL},
	    {"DELETE FROM l WHERE a IN (SELECT 1 FROM h:1@t)", NULL},
	};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *sql = cases[i].sql, *expected = cases[i].select;
		struct query_error error = {.statement = -1};
		struct remote_fill_parts parts;
		struct federation *f;
		enum query_code code;

		CU_ASSERT_EQUAL_FATAL(federation_scan(&f, sql, strlen(sql), &error), QUERY_OK);
		code = remote_fill_split(f, sql, strlen(sql), &parts, &error);
		CU_ASSERT_EQUAL(code, expected != NULL ? QUERY_OK : QUERY_SQL_ERROR);
		if (code == QUERY_OK && expected != NULL) {
			CU_ASSERT_EQUAL(parts.select_end - parts.select, strlen(expected));
			CU_ASSERT_EQUAL(memcmp(sql + parts.select, expected, strlen(expected)), 0);
		}
		federation_free(f);
	}
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"scans", test_scans},
	    {"many keys in one request", test_many_keys_in_one_request},
	    {"numbers are compared with texts here only", test_numbers_are_compared_with_texts_here_only},
	    {"parts of an INSERT", test_parts_of_an_insert},
	    {NULL, NULL},
	};

	return unit_run("remote_sql", tests);
}

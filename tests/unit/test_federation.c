/*
 * test_federation.c - host:port@table in SQL text: what is found, what it is rewritten to, what is refused.
 *
 * What a rewritten text means is SQLite's to say: every one is prepared on a database that has the tables.
 */
#include "common/query/federation.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/query/federated_request.h"
#include "tests/unit/unit.h"

static struct federation *scan(const char *sql)
{
	struct query_error error = {0};
	struct federation *f;

	if (federation_scan(&f, sql, strlen(sql), &error) != QUERY_OK)
		fprintf(stderr, "%s: %s\n", sql, error.message);
	CU_ASSERT_EQUAL(error.code, QUERY_OK);
	return f;
}

static struct federation *scan_refs(const char *sql, size_t refs)
{
	struct federation *f = scan(sql);

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	if (f->ref_count != refs)
		fprintf(stderr, "%s: %zu references\n", sql, f->ref_count);
	CU_ASSERT_EQUAL_FATAL(f->ref_count, refs);
	return f;
}

static char *rewrite(const struct federation *f, const char *sql, federation_put_fn put)
{
	struct buf out = {0};
	size_t len;

	federation_rewrite(&out, f, sql, 0, strlen(sql), put, NULL);
	buf_put_u8(&out, '\0');
	return (char *)buf_take(&out, &len);
}

/* One reference, and what stands for it when it is shipped and when the statement runs here. */
static void assert_rewritten(const char *sql, const char *address, const char *table, const char *shipped,
			     const char *local)
{
	struct federation *f = scan_refs(sql, 1);
	char *text = rewrite(f, sql, federation_put_shipped);

	CU_ASSERT_STRING_EQUAL(f->refs[0].address, address);
	CU_ASSERT_STRING_EQUAL(f->refs[0].table, table);
	CU_ASSERT_STRING_EQUAL(text, shipped);
	if (strcmp(text, shipped) != 0)
		fprintf(stderr, "%s\n", text);
	free(text);
	text = rewrite(f, sql, federation_put_local);
	CU_ASSERT_STRING_EQUAL(text, local);
	if (strcmp(text, local) != 0)
		fprintf(stderr, "%s\n", text);
	free(text);
	federation_free(f);
}

static void assert_refused(const char *sql, const char *words)
{
	struct query_error error = {0};
	struct federation *f;

	CU_ASSERT_EQUAL(federation_scan(&f, sql, strlen(sql), &error), QUERY_SQL_ERROR);
	CU_ASSERT_PTR_NULL(f);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.message, words));
	if (strstr(error.message, words) == NULL)
		fprintf(stderr, "%s: \"%s\" does not say \"%s\"\n", sql, error.message, words);
}

static void test_hosts_of_every_kind(void)
{
	assert_rewritten("SELECT * FROM db1:8080@t", "db1:8080", "t", "SELECT * FROM main.\"t\"",
			 "SELECT * FROM \"db1:8080@t\" AS \"t\"");
	assert_rewritten("SELECT * FROM 10.0.0.7:80@t", "10.0.0.7:80", "t", "SELECT * FROM main.\"t\"",
			 "SELECT * FROM \"10.0.0.7:80@t\" AS \"t\"");
	assert_rewritten("SELECT * FROM [::1]:80@t", "[::1]:80", "t", "SELECT * FROM main.\"t\"",
			 "SELECT * FROM \"[::1]:80@t\" AS \"t\"");
	assert_rewritten("SELECT * FROM [0:0:0:0:0:0:0:1]:00080@t", "[::1]:80", "t", "SELECT * FROM main.\"t\"",
			 "SELECT * FROM \"[::1]:80@t\" AS \"t\"");
	assert_rewritten("SELECT * FROM My-Host_1.Example.org:65535@t;", "my-host_1.example.org:65535", "t",
			 "SELECT * FROM main.\"t\";", "SELECT * FROM \"my-host_1.example.org:65535@t\" AS \"t\";");
}

static void test_tables_in_every_quote(void)
{
	assert_rewritten("SELECT * FROM h:1@\"my \"\"own\"\" t\"", "h:1", "my \"own\" t",
			 "SELECT * FROM main.\"my \"\"own\"\" t\"",
			 "SELECT * FROM \"h:1@my \"\"own\"\" t\" AS \"my \"\"own\"\" t\"");
	assert_rewritten("SELECT * FROM h:1@`a``b` x", "h:1", "a`b", "SELECT * FROM main.\"a`b\" x",
			 "SELECT * FROM \"h:1@a`b\" x");
	assert_rewritten("SELECT * FROM h:1@[a b]", "h:1", "a b", "SELECT * FROM main.\"a b\"",
			 "SELECT * FROM \"h:1@a b\" AS \"a b\"");
	assert_rewritten("SELECT * FROM h:1@'a''b'", "h:1", "a'b", "SELECT * FROM main.\"a'b\"",
			 "SELECT * FROM \"h:1@a'b\" AS \"a'b\"");
	assert_rewritten("SELECT * FROM h:1@\xC3\xA4pfel$1", "h:1", "\xC3\xA4pfel$1",
			 "SELECT * FROM main.\"\xC3\xA4pfel$1\"",
			 "SELECT * FROM \"h:1@\xC3\xA4pfel$1\" AS \"\xC3\xA4pfel$1\"");
	assert_rewritten("SELECT * FROM h:1@order", "h:1", "order", "SELECT * FROM main.\"order\"",
			 "SELECT * FROM \"h:1@order\" AS \"order\"");
}

static void test_an_alias_is_left_as_it_is(void)
{
	static const char *const with[] = {"SELECT * FROM h:1@t AS x",         "SELECT * FROM h:1@t x",
					   "SELECT * FROM h:1@t \"x\"",        "SELECT * FROM h:1@t [x] JOIN u",
					   "SELECT * FROM h:1@t/**/x WHERE 1", "SELECT * FROM h:1@t 'x'",
					   "UPDATE h:1@t AS x SET a=1"};
	static const char *const without[] = {"SELECT * FROM h:1@t",
					      "SELECT * FROM h:1@t, u",
					      "SELECT * FROM h:1@t WHERE 1",
					      "SELECT * FROM h:1@t LEFT JOIN u",
					      "SELECT * FROM h:1@t natural join u",
					      "SELECT * FROM h:1@t GROUP BY 1",
					      "SELECT * FROM h:1@t UNION SELECT 1",
					      "SELECT * FROM (h:1@t)",
					      "SELECT * FROM h:1@t NOT INDEXED",
					      "SELECT * FROM h:1@t -- x",
					      "UPDATE h:1@t SET a=1",
					      "INSERT INTO h:1@t DEFAULT VALUES",
					      "INSERT INTO h:1@t(a) VALUES(1)",
					      "DELETE FROM h:1@t RETURNING a",
					      "SELECT * FROM h:1@t WINDOW w AS ()"};
	size_t i;

	for (i = 0; i < sizeof(with) / sizeof(with[0]); i++) {
		struct federation *f = scan_refs(with[i], 1);

		CU_ASSERT_TRUE(f->refs[0].has_alias);
		federation_free(f);
	}
	for (i = 0; i < sizeof(without) / sizeof(without[0]); i++) {
		struct federation *f = scan_refs(without[i], 1);

		CU_ASSERT_FALSE(f->refs[0].has_alias);
		federation_free(f);
	}
}

static void test_no_reference_where_sql_has_none(void)
{
	static const char *const texts[] = {
	    "SELECT 'h:1@t'",
	    "SELECT \"h:1@t\"",
	    "SELECT * FROM \"h:1@t\"",
	    "SELECT 1 -- h:1@t",
	    "SELECT 1 /* FROM h:1@t */",
	    "SELECT 1 /* FROM h:1@t",
	    "SELECT @a, :b, $c, ?1",
	    "SELECT a--b:80@c\n FROM t",
	    "SELECT $a::b(h:1@t)",
	    "SELECT x AS 'mail@host', [a@b]",
	    "INSERT INTO t VALUES ('it''s h:1@t')",
	    "SELECT 'unfinished h:1@t",
	    "",
	    ";;",
	    "@",
	};
	size_t i;

	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		CU_ASSERT_PTR_NULL(scan(texts[i]));
}

static void test_every_place_of_a_table(void)
{
	static const struct {
		const char *sql;
		size_t refs;
	} cases[] = {
	    {"SELECT * FROM a, h:1@b, c, h:1@d", 2},
	    {"SELECT * FROM a JOIN h:1@b ON a.x = b.x AND a.y IN (1, 2), h:1@c", 2},
	    {"SELECT * FROM a JOIN b USING (x, y), h:1@c", 1},
	    {"SELECT * FROM (a JOIN h:1@b), (SELECT * FROM h:1@c)", 2},
	    {"SELECT * FROM ((h:1@a, h:1@b))", 2},
	    {"SELECT (SELECT max(x) FROM h:1@a), EXISTS (SELECT 1 FROM h:1@b) FROM c", 2},
	    {"SELECT * FROM a WHERE x IN h:1@b AND y NOT IN h:1@c", 2},
	    {"SELECT * FROM a WHERE x IN (SELECT x FROM h:1@b)", 1},
	    {"WITH c AS (SELECT * FROM h:1@a), d(x) AS NOT MATERIALIZED (SELECT 1 FROM h:1@b) SELECT * FROM c, d", 2},
	    {"SELECT 1 FROM h:1@a UNION ALL SELECT 2 FROM h:1@b EXCEPT SELECT 3 FROM h:1@c", 3},
	    {"INSERT INTO t SELECT * FROM h:1@a", 1},
	    {"INSERT OR IGNORE INTO h:1@a SELECT * FROM h:1@b", 2},
	    {"REPLACE INTO h:1@a VALUES (1, 2)", 1},
	    {"UPDATE OR REPLACE h:1@a SET x = b.x FROM h:1@b WHERE a.id = b.id", 2},
	    {"DELETE FROM h:1@a WHERE x IN (SELECT x FROM h:1@b)", 2},
	    {"WITH c AS (SELECT 1) DELETE FROM h:1@a", 1},
	    {"EXPLAIN QUERY PLAN SELECT * FROM h:1@a", 1},
	    {"EXPLAIN FEDERATED SELECT * FROM h:1@a", 1},
	    {"SELECT * FROM a LEFT OUTER JOIN h:1@b CROSS JOIN h:1@c NATURAL JOIN h:1@d", 3},
	    {"SELECT count(*) FILTER (WHERE x > 1) OVER (ORDER BY y) FROM h:1@a", 1},
	    {"SELECT * FROM h:1@a window, h:1@b", 2},
	    {"SELECT * FROM a WHERE x IS NOT DISTINCT FROM y ORDER BY z, w", 0},
	};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct federation *f = scan(cases[i].sql);

		CU_ASSERT_EQUAL(f == NULL ? 0 : f->ref_count, cases[i].refs);
		if ((f == NULL ? 0 : f->ref_count) != cases[i].refs)
			fprintf(stderr, "%s\n", cases[i].sql);
		federation_free(f);
	}
}

static void test_what_is_refused(void)
{
	assert_refused("SELECT * FROM h:0@t", "the port in \"h:0@\" must be from 1 to 65535");
	assert_refused("SELECT * FROM h:65536@t", "must be from 1 to 65535");
	assert_refused("SELECT * FROM h:99999999999999999999999@t", "must be from 1 to 65535");
	assert_refused("SELECT * FROM h:80@", "after \"h:80@\" a table's name is expected");
	assert_refused("SELECT * FROM h:80@ t", "after \"h:80@\" a table's name is expected");
	assert_refused("SELECT * FROM h:80@1t", "after \"h:80@\" a table's name is expected");
	assert_refused("SELECT * FROM h:80@\"\"", "is empty");
	assert_refused("SELECT * FROM h:80@\"t", "is not closed");
	assert_refused("SELECT * FROM h:80@\"t\"\"", "is not closed");
	assert_refused("SELECT * FROM h:80@\"", "is not closed");
	assert_refused("SELECT * FROM h:80@main.t", "no \".\" may follow \"h:80@main\"");
	assert_refused("SELECT h:80@t.x FROM h:80@t", "no \".\" may follow");
	assert_refused("SELECT * FROM main.\"h\".x:80@t", "no schema may stand before");
	assert_refused("SELECT * FROM :80@t", "before \":80@\" a host is expected");
	assert_refused("SELECT * FROM \"h\":80@t", "before \":80@\" a host is expected");
	assert_refused("SELECT * FROM [h]:80@t", "\"[h]\" is no host");
	assert_refused("SELECT * FROM [::1::]:80@t", "is no host");
	assert_refused("SELECT * FROM a..b:80@t", "is no host");
	assert_refused("SELECT * FROM a-:80@t", "is no host");
	assert_refused("SELECT h:80@t", "may stand only where a table's name may");
	assert_refused("SELECT * FROM a WHERE h:80@t = 1", "may stand only where a table's name may");
	assert_refused("SELECT * FROM a WHERE x IN (h:80@t)", "may stand only where a table's name may");
	assert_refused("CREATE VIEW v AS SELECT * FROM h:80@t", "not in CREATE VIEW");
	assert_refused("CREATE TEMP VIEW v AS SELECT * FROM h:80@t", "not in CREATE VIEW");
	assert_refused("CREATE TABLE v AS SELECT * FROM h:80@t", "not in CREATE TABLE");
	assert_refused("create unique index i on h:80@t(x)", "not in CREATE INDEX");
	assert_refused("CREATE TRIGGER g AFTER INSERT ON a BEGIN INSERT INTO h:80@t VALUES(1); END",
		       "not in CREATE TRIGGER");
	assert_refused("CREATE TRIGGER g AFTER INSERT ON a BEGIN DELETE FROM b; INSERT INTO h:80@t VALUES(1); END",
		       "not in CREATE TRIGGER");
	assert_refused("DROP TABLE h:80@t", "not in DROP TABLE");
	assert_refused("ALTER TABLE h:80@t RENAME TO x", "not in ALTER TABLE");
	assert_refused("PRAGMA table_info(h:80@t)", "not in PRAGMA TABLE_INFO");
	assert_refused("h:80@t", "tables of other nodes may be named in SELECT");
}

static void test_triggers_end_where_they_end(void)
{
	struct federation *f = scan_refs("CREATE TRIGGER g AFTER INSERT ON a BEGIN DELETE FROM b; END; "
					 "SELECT * FROM h:1@t; CREATE TABLE trigger(x); SELECT * FROM h:1@t",
					 2);

	CU_ASSERT_EQUAL(f->statement_count, 4);
	CU_ASSERT_EQUAL(f->refs[1].statement, 3);
	federation_free(f);
}

static void test_statements_are_told_apart(void)
{
	static const char sql[] = "SELECT 1; ; SELECT ';' FROM h:1@a -- ;\n; INSERT INTO h:1@b VALUES (1);"
				  "INSERT INTO c SELECT * FROM g:1@d, h:1@e; EXPLAIN FEDERATED SELECT 1 FROM h:1@f;"
				  "EXPLAIN UPDATE h:1@g SET x=1; UPDATE c SET y = 2; PRAGMA page_size;";
	static const struct {
		enum federated_verb verb;
		size_t refs;
		bool local, writes_local, one;
	} expected[] = {
	    {FEDERATED_READ, 0, false, false, false}, {FEDERATED_READ, 1, false, false, true},
	    {FEDERATED_WRITE, 1, false, false, true}, {FEDERATED_WRITE, 2, true, true, false},
	    {FEDERATED_PLAN, 1, false, false, true},  {FEDERATED_EXPLAIN, 1, false, false, true},
	    {FEDERATED_WRITE, 0, true, true, false},  {FEDERATED_OTHER, 0, false, false, false},
	};
	struct federation *f = scan_refs(sql, 6);
	size_t i;

	CU_ASSERT_EQUAL_FATAL(f->statement_count, sizeof(expected) / sizeof(expected[0]));
	for (i = 0; i < f->statement_count; i++) {
		const struct federated_statement *s = &f->statements[i];

		CU_ASSERT_EQUAL(s->verb, expected[i].verb);
		CU_ASSERT_EQUAL(s->ref_count, expected[i].refs);
		CU_ASSERT_EQUAL(s->names_local, expected[i].local);
		CU_ASSERT_EQUAL(s->writes_local, expected[i].writes_local);
		CU_ASSERT_EQUAL(s->one_address, expected[i].one);
	}
	CU_ASSERT_EQUAL(memcmp(sql + f->statements[4].body, " SELECT 1 FROM h:1@f", 20), 0);
	CU_ASSERT_EQUAL(sql[f->statements[1].end], ';');
	CU_ASSERT_EQUAL(memcmp(sql + f->statements[2].start, "INSERT INTO h:1@b", 17), 0);
	CU_ASSERT_TRUE(f->refs[1].written);
	CU_ASSERT_FALSE(f->refs[2].written);
	federation_free(f);
}

static void test_which_names_are_local(void)
{
	static const struct {
		const char *sql;
		bool local;
	} cases[] = {
	    {"SELECT * FROM h:1@a", false},
	    {"SELECT * FROM h:1@a, b", true},
	    {"SELECT * FROM h:1@a JOIN main.b", true},
	    {"SELECT * FROM h:1@a, \"b\"", true},
	    {"SELECT * FROM h:1@a WHERE x IN b", true},
	    {"SELECT * FROM h:1@a WHERE x IN (b)", false},
	    {"SELECT * FROM h:1@a WHERE EXISTS (SELECT 1 FROM b)", true},
	    {"SELECT * FROM h:1@a, (b)", true},
	    {"SELECT * FROM h:1@a, json_each(a.j)", false},
	    {"SELECT * FROM h:1@a, json_each", true},
	    {"SELECT * FROM h:1@a, docs('word')", true},
	    {"SELECT * FROM h:1@a, pragma_table_info('b')", true},
	    {"WITH b AS (SELECT 1) SELECT * FROM h:1@a, b", false},
	    {"WITH b AS (SELECT 1) SELECT * FROM h:1@a, \"B\"", false},
	    {"WITH b AS (SELECT 1) SELECT * FROM h:1@a, main.b", true},
	    {"SELECT * FROM (WITH b AS (SELECT 1) SELECT * FROM b), h:1@a, b", true},
	    {"WITH RECURSIVE b(n) AS (SELECT 1 UNION SELECT n + 1 FROM b) SELECT * FROM b, h:1@a", false},
	    {"INSERT INTO b SELECT * FROM h:1@a", true},
	    {"INSERT INTO h:1@a SELECT * FROM b", true},
	    {"INSERT INTO h:1@a WITH b AS (SELECT 1) SELECT * FROM b", false},
	    {"WITH b AS (SELECT 1) INSERT INTO b SELECT * FROM h:1@a", true},
	    {"UPDATE h:1@a SET x = (SELECT y FROM b)", true},
	    {"SELECT 1 FROM h:1@a WHERE x IS DISTINCT FROM b", false},
	    {"SELECT x with, y FROM h:1@a", false},
	};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct federation *f = scan_refs(cases[i].sql, 1);

		CU_ASSERT_EQUAL(f->statements[0].names_local, cases[i].local);
		if (f->statements[0].names_local != cases[i].local)
			fprintf(stderr, "%s\n", cases[i].sql);
		federation_free(f);
	}
}

/* Each expected query's text, in order, "|" between. */
static void assert_queries(const char *sql, const char *expected)
{
	struct federation *f = scan(sql);
	struct buf found = {0};
	size_t i;

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	for (i = 0; i < f->query_count; i++) {
		if (i > 0)
			buf_put_u8(&found, '|');
		buf_put(&found, sql + f->queries[i].start, f->queries[i].end - f->queries[i].start);
		CU_ASSERT_TRUE(f->queries[i].ref_count > 0);
	}
	buf_put_u8(&found, '\0');
	CU_ASSERT_STRING_EQUAL((const char *)found.data, expected);
	if (strcmp((const char *)found.data, expected) != 0)
		fprintf(stderr, "%s: %s\n", sql, (const char *)found.data);
	buf_fini(&found);
	federation_free(f);
}

static void test_queries_that_can_be_shipped(void)
{
	assert_queries("SELECT * FROM a, (SELECT count(*) FROM h:1@b GROUP BY x) c",
		       "SELECT count(*) FROM h:1@b GROUP BY x");
	assert_queries("WITH c AS (SELECT 1 FROM h:1@b) SELECT * FROM c, a", "SELECT 1 FROM h:1@b");
	assert_queries("SELECT * FROM a WHERE x IN (SELECT 1 FROM h:1@b WHERE y IN (SELECT 2 FROM h:1@c))",
		       "SELECT 1 FROM h:1@b WHERE y IN (SELECT 2 FROM h:1@c)");
	assert_queries("SELECT * FROM a WHERE x IN (SELECT 1 FROM h:1@b WHERE y IN (SELECT 2 FROM g:1@c))",
		       "SELECT 2 FROM g:1@c");
	assert_queries("SELECT * FROM (SELECT 1 FROM h:1@b), (SELECT 1 FROM h:1@b, a), (SELECT 2 FROM g:1@d)",
		       "SELECT 1 FROM h:1@b|SELECT 2 FROM g:1@d");
	assert_queries("SELECT * FROM a, (h:1@b JOIN h:1@c)", "");
	assert_queries("WITH c AS (SELECT 1) SELECT * FROM (SELECT * FROM h:1@b, c)", "");
	assert_queries("SELECT * FROM (WITH c AS (SELECT 1) SELECT * FROM h:1@b, c)",
		       "WITH c AS (SELECT 1) SELECT * FROM h:1@b, c");
	assert_queries("WITH RECURSIVE c AS (SELECT 1 FROM h:1@b UNION SELECT x FROM c) SELECT * FROM c", "");
	assert_queries("WITH c AS (SELECT 1 FROM h:1@b), d AS (SELECT 1 FROM c, h:1@e) SELECT * FROM d",
		       "SELECT 1 FROM h:1@b");
}

static void test_parameters_in_queries_are_seen(void)
{
	struct federation *f =
	    scan_refs("SELECT ? FROM (SELECT 1 FROM h:1@a), (SELECT 1 FROM h:1@b WHERE x = (:y))", 2);

	CU_ASSERT_EQUAL_FATAL(f->query_count, 2);
	CU_ASSERT_FALSE(f->queries[0].has_params);
	CU_ASSERT_TRUE(f->queries[1].has_params);
	CU_ASSERT_EQUAL(f->queries[1].place, FEDERATED_FROM);
	federation_free(f);
}

/* The names that a text rewritten for here needs exist: then SQLite takes it. */
static void test_sqlite_takes_what_was_rewritten(void)
{
	static const char *const texts[] = {
	    "SELECT t.id, u.id FROM h:1@t JOIN h:2@u ON t.id = u.id WHERE t.name LIKE 'a@b:%'",
	    "SELECT id FROM h:1@t UNION ALL SELECT x.id FROM h:2@u x",
	    "SELECT * FROM h:1@t WHERE id IN h:2@u AND id NOT IN h:2@u ORDER BY t.id",
	    "WITH t AS (SELECT * FROM h:1@t) SELECT t.id FROM t, h:2@u",
	    "SELECT (SELECT max(id) FROM h:1@t), [a] FROM (SELECT 1 AS a)",
	    "SELECT * FROM (h:1@t LEFT JOIN h:2@u USING (id)), (SELECT 1)",
	};
	sqlite3 *db;
	size_t i;

	CU_ASSERT_EQUAL_FATAL(sqlite3_open(":memory:", &db), SQLITE_OK);
	CU_ASSERT_EQUAL(sqlite3_exec(db,
				     "CREATE TABLE \"h:1@t\"(id, name); CREATE TABLE \"h:2@u\"(id);"
				     "CREATE TABLE t(id, name); CREATE TABLE u(id)",
				     NULL, NULL, NULL),
			SQLITE_OK);
	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct federation *f = scan(texts[i]);
		char *local = rewrite(f, texts[i], federation_put_local);
		char *shipped = rewrite(f, texts[i], federation_put_shipped);

		CU_ASSERT_EQUAL(sqlite3_exec(db, local, NULL, NULL, NULL), SQLITE_OK);
		CU_ASSERT_EQUAL(sqlite3_exec(db, shipped, NULL, NULL, NULL), SQLITE_OK);
		free(local);
		free(shipped);
		federation_free(f);
	}
	CU_ASSERT_EQUAL(sqlite3_close(db), SQLITE_OK);
}

static void test_limits_hold(void)
{
	struct buf sql = {0};
	struct query_error error = {0};
	struct federation *f;
	int i;

	buf_puts(&sql, "SELECT 1 FROM h:1@t");
	for (i = 0; i < FEDERATION_REFS_MAX; i++)
		buf_puts(&sql, ",h:1@t");
	CU_ASSERT_EQUAL(federation_scan(&f, (char *)sql.data, sql.len, &error), QUERY_SQL_ERROR);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "more than"));
	buf_clear(&sql);
	buf_puts(&sql, "SELECT @a ");
	for (i = 0; i < FEDERATION_DEPTH_MAX; i++)
		buf_puts(&sql, "(");
	CU_ASSERT_EQUAL(federation_scan(&f, (char *)sql.data, sql.len, &error), QUERY_SQL_ERROR);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "nested too deeply"));
	/* A megabyte of what might begin a host is looked through in linear time. */
	buf_clear(&sql);
	buf_puts(&sql, "SELECT @a ");
	for (i = 0; i < 500000; i++)
		buf_puts(&sql, "-a");
	CU_ASSERT_EQUAL(federation_scan(&f, (char *)sql.data, sql.len, &error), QUERY_OK);
	CU_ASSERT_PTR_NULL(f);
	buf_fini(&sql);
}

static void test_requests_are_looked_through(void)
{
	static const char body[] = "{\"statements\": [{\"sql\": \"SELECT 1\"}, {\"sql\": \"SELECT @a FROM b\"},"
				   "{\"sql\": \"SELECT * FROM h:1@t\"}]}";
	static const char bad[] = "{\"statements\": [{\"sql\": \"SELECT 1\"}, {\"sql\": \"SELECT * FROM h:0@t\"}]}";
	static const char plain[] = "{\"sql\": \"SELECT 'a@b'\"}";
	const struct query_request_limits limits = {0};
	struct query_error error = {.statement = -1};
	struct federated_request *fr;
	struct query_request *r;

	CU_ASSERT_EQUAL_FATAL(query_request_parse(&r, body, strlen(body), &limits, &error), QUERY_OK);
	CU_ASSERT_EQUAL(federated_request_scan(&fr, r, &error), QUERY_OK);
	CU_ASSERT_PTR_NOT_NULL_FATAL(fr);
	CU_ASSERT_PTR_NULL(fr->scans[0]);
	CU_ASSERT_PTR_NULL(fr->scans[1]);
	CU_ASSERT_PTR_NOT_NULL(fr->scans[2]);
	federated_request_free(fr);
	query_request_free(r);
	CU_ASSERT_EQUAL_FATAL(query_request_parse(&r, bad, strlen(bad), &limits, &error), QUERY_OK);
	CU_ASSERT_EQUAL(federated_request_scan(&fr, r, &error), QUERY_SQL_ERROR);
	CU_ASSERT_EQUAL(error.statement, 1);
	CU_ASSERT_PTR_NULL(fr);
	query_request_free(r);
	CU_ASSERT_EQUAL_FATAL(query_request_parse(&r, plain, strlen(plain), &limits, &error), QUERY_OK);
	CU_ASSERT_EQUAL(federated_request_scan(&fr, r, &error), QUERY_OK);
	CU_ASSERT_PTR_NULL(fr);
	query_request_free(r);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"hosts of every kind", test_hosts_of_every_kind},
	    {"tables in every quote", test_tables_in_every_quote},
	    {"an alias is left as it is", test_an_alias_is_left_as_it_is},
	    {"no reference where SQL has none", test_no_reference_where_sql_has_none},
	    {"every place of a table", test_every_place_of_a_table},
	    {"what is refused", test_what_is_refused},
	    {"triggers end where they end", test_triggers_end_where_they_end},
	    {"statements are told apart", test_statements_are_told_apart},
	    {"which names are local", test_which_names_are_local},
	    {"queries that can be shipped", test_queries_that_can_be_shipped},
	    {"parameters in queries are seen", test_parameters_in_queries_are_seen},
	    {"SQLite takes what was rewritten", test_sqlite_takes_what_was_rewritten},
	    {"limits hold", test_limits_hold},
	    {"requests are looked through", test_requests_are_looked_through},
	    {NULL, NULL},
	};

	return unit_run("federation", tests);
}

/* test_query_write.c - writes, batches and what is denied: one request's failure never touches another's work. */
#include <unistd.h>

#include "tests/unit/query_fixture.h"

static void assert_count(struct query_fixture *b, const char *sql, int64_t expected)
{
	char *body = fixture_body(sql, "rows");
	json_t *v, *row;

	CU_ASSERT_EQUAL(fixture_read(b, body), QUERY_ANSWERED);
	v = fixture_json(b);
	row = json_array_get(json_object_get(v, "rows"), 0);
	CU_ASSERT_EQUAL(json_integer_value(json_array_get(row, 0)), expected);
	if (json_integer_value(json_array_get(row, 0)) != expected)
		fprintf(stderr, "%s: %lld, expected %lld\n", sql, (long long)json_integer_value(json_array_get(row, 0)),
			(long long)expected);
	json_decref(v);
	free(body);
}

static void assert_answer(struct query_fixture *b, const char *expected)
{
	bool same = b->out.len >= strlen(expected) && memcmp(b->out.data, expected, strlen(expected)) == 0;

	CU_ASSERT(same);
	if (!same)
		fprintf(stderr, " got %.*s\nwant %s (%s)\n", (int)b->out.len, (char *)b->out.data, expected,
			b->error.message);
	json_decref(fixture_json(b));
}

static void assert_write_fails(struct query_fixture *b, const char *sql, enum query_code code, const char *words)
{
	char *body = fixture_body(sql, "rows");

	CU_ASSERT_EQUAL(fixture_write(b, body), code);
	CU_ASSERT_PTR_NOT_NULL(strstr(b->error.message, words));
	if (b->error.code != code || strstr(b->error.message, words) == NULL)
		fprintf(stderr, "%s: %s %s\n", sql, query_code_name(b->error.code), b->error.message);
	free(body);
}

static void test_writes_count_rows_and_tell_the_last_id(void)
{
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
	assert_answer(
	    &b,
	    "{\"status\":\"ok\",\"rows_affected\":0,\"last_insert_id\":0,\"lsn\":1,\"node\":\"node1\",\"time_ms\":");
	fixture_write_ok(&b, "INSERT INTO t(a) VALUES(1),(2),(3)");
	assert_answer(&b, "{\"status\":\"ok\",\"rows_affected\":3,\"last_insert_id\":3,");
	fixture_write_ok(&b, "UPDATE t SET a=a+1 WHERE id>1");
	assert_answer(&b, "{\"status\":\"ok\",\"rows_affected\":2,\"last_insert_id\":0,");
	fixture_write_ok(&b, "CREATE TABLE u AS SELECT * FROM t");
	assert_answer(&b, "{\"status\":\"ok\",\"rows_affected\":0,\"last_insert_id\":0,");
	fixture_write_ok(&b, "DROP TABLE IF EXISTS missing");
	assert_answer(&b, "{\"status\":\"ok\",\"rows_affected\":0,\"last_insert_id\":0,");
	fixture_write_ok(&b, "WITH x AS (SELECT 7 AS a) INSERT INTO t(a) SELECT a FROM x");
	assert_answer(&b, "{\"status\":\"ok\",\"rows_affected\":1,\"last_insert_id\":4,");
	fixture_write_ok(&b, "DELETE FROM t");
	assert_answer(&b, "{\"status\":\"ok\",\"rows_affected\":4,\"last_insert_id\":0,");
	fixture_write_ok(&b, "PRAGMA user_version=77");
	assert_answer(&b, "{\"status\":\"ok\",\"rows_affected\":0,\"last_insert_id\":0,");
	assert_count(&b, "PRAGMA user_version", 77);
	fixture_write_ok(&b, "PRAGMA optimize");
	fixture_write_ok(&b, "ANALYZE; REINDEX");
	fixture_fini(&b);
}

static void test_returning_gives_rows_too(void)
{
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)");
	fixture_write_ok(&b, "INSERT INTO t(a) VALUES('x'),('y') RETURNING id, a");
	assert_answer(
	    &b, "{\"status\":\"ok\",\"columns\":[\"id\",\"a\"],\"types\":[\"integer\",\"text\"],\"rows\":[[1,\"x\"],"
		"[2,\"y\"]],\"row_count\":2,\"rows_affected\":2,\"last_insert_id\":2,\"lsn\":1");
	CU_ASSERT_EQUAL(fixture_write(&b, "{\"format\":\"objects\",\"statements\":[{\"sql\":\"DELETE FROM t WHERE id=? "
					  "RETURNING a\",\"params\":[1]},{\"sql\":\"SELECT count(*) AS n FROM t\"}]}"),
			QUERY_OK);
	assert_answer(
	    &b, "{\"status\":\"ok\",\"results\":[{\"columns\":[\"a\"],\"types\":[\"text\"],\"rows\":[{\"a\":\"x\"}],"
		"\"row_count\":1,\"rows_affected\":1,\"last_insert_id\":0},{\"columns\":[\"n\"],\"types\":[\"\"],"
		"\"rows\":[{\"n\":1}],\"row_count\":1}],\"lsn\":1");
	fixture_fini(&b);
}

static void test_a_later_statement_may_need_an_earlier_one(void)
{
	static const char sql[] = "CREATE TABLE t(a); INSERT INTO t VALUES(1),(2); SELECT sum(a) AS s FROM t";
	enum query_kind kind;
	struct query_fixture b;

	fixture_init(&b);
	CU_ASSERT_EQUAL(fixture_classify_sql(&b, sql, &kind), QUERY_OK);
	CU_ASSERT_EQUAL(kind, QUERY_KIND_WRITE);
	fixture_write_ok(&b, sql);
	assert_answer(
	    &b,
	    "{\"status\":\"ok\",\"results\":[{\"rows_affected\":0,\"last_insert_id\":0},{\"rows_affected\":2,"
	    "\"last_insert_id\":2},{\"columns\":[\"s\"],\"types\":[\"\"],\"rows\":[[3]],\"row_count\":1}],\"lsn\":1,");
	assert_write_fails(&b, sql, QUERY_SQL_ERROR, "already exists");
	CU_ASSERT_EQUAL(b.error.statement, 0);
	fixture_write_ok(&b, "DROP TABLE t");
	fixture_write_ok(&b, sql); /* prepared once, prepared anew by SQLite */
	fixture_fini(&b);
}

static void test_a_failing_statement_undoes_its_whole_request_alone(void)
{
	struct errmsg em = {0};
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a UNIQUE)");
	UNIT_OK(query_batch_begin(b.writer, &em), &em);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO t VALUES(1)\"}", 0), QUERY_OK);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO t VALUES(2); INSERT INTO t VALUES(1)\"}", 0),
			QUERY_CONSTRAINT);
	CU_ASSERT_EQUAL(b.error.statement, 1);
	CU_ASSERT_FALSE(b.batch_lost);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT OR FAIL INTO t VALUES(8),(1)\"}", 0), QUERY_CONSTRAINT);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"CREATE TABLE u(x); SELEC\"}", 0), QUERY_SQL_ERROR);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO t VALUES(3); SELECT ?\"}", 0), QUERY_BAD_REQUEST);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO t VALUES(4)\"}", 0), QUERY_OK);
	UNIT_OK(query_batch_commit(b.writer, &em), &em);
	assert_count(&b, "SELECT count(*) FROM t", 2);
	assert_count(&b, "SELECT sum(a) FROM t", 5);
	assert_count(&b, "SELECT count(*) FROM sqlite_master WHERE name='u'", 0);
	fixture_fini(&b);
}

static void test_a_batch_rolls_back_as_a_whole(void)
{
	struct errmsg em = {0};
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	UNIT_OK(query_batch_begin(b.writer, &em), &em);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO t VALUES(1)\"}", 0), QUERY_OK);
	query_batch_rollback(b.writer);
	query_batch_rollback(b.writer); /* again is harmless */
	CU_ASSERT_NOT_EQUAL(query_batch_commit(b.writer, &em), DB_OK);
	assert_count(&b, "SELECT count(*) FROM t", 0);
	fixture_fini(&b);
}

static void test_foreign_keys_are_enforced(void)
{
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p)");
	assert_write_fails(&b, "INSERT INTO c VALUES(1)", QUERY_CONSTRAINT, "FOREIGN KEY");
	fixture_fini(&b);
}

static void test_a_deferred_constraint_fails_its_own_request(void)
{
	struct errmsg em = {0};
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE p(id INTEGER PRIMARY KEY);"
			     "CREATE TABLE c(p REFERENCES p DEFERRABLE INITIALLY DEFERRED)");
	UNIT_OK(query_batch_begin(b.writer, &em), &em);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO p VALUES(5)\"}", 0), QUERY_OK);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO c VALUES(1)\"}", 0), QUERY_CONSTRAINT);
	CU_ASSERT_FALSE(b.batch_lost);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO c VALUES(2); INSERT INTO p VALUES(2)\"}", 0),
			QUERY_OK);
	UNIT_OK(query_batch_commit(b.writer, &em), &em);
	assert_count(&b, "SELECT count(*) FROM p", 2);
	assert_count(&b, "SELECT count(*) FROM c", 1);
	fixture_fini(&b);
}

static void test_a_rollback_hidden_in_a_constraint_reports_the_lost_batch(void)
{
	struct errmsg em = {0};
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a UNIQUE); CREATE TRIGGER g BEFORE INSERT ON t WHEN new.a=13 "
			     "BEGIN SELECT RAISE(ROLLBACK,'thirteen'); END");
	UNIT_OK(query_batch_begin(b.writer, &em), &em);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO t VALUES(1)\"}", 0), QUERY_OK);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO t VALUES(13)\"}", 0), QUERY_CONSTRAINT);
	CU_ASSERT_STRING_EQUAL(b.error.message, "thirteen");
	CU_ASSERT(b.batch_lost);
	/* A caller that does not notice can write nothing. */
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO t VALUES(2)\"}", 0), QUERY_INTERNAL);
	CU_ASSERT(b.batch_lost);
	CU_ASSERT_EQUAL(query_batch_commit(b.writer, &em), DB_INVALID);
	assert_count(&b, "SELECT count(*) FROM t", 0);
	UNIT_OK(query_batch_begin(b.writer, &em), &em);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO t VALUES(1)\"}", 0), QUERY_OK);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT OR ROLLBACK INTO t VALUES(1)\"}", 0), QUERY_CONSTRAINT);
	CU_ASSERT(b.batch_lost);
	query_batch_rollback(b.writer);
	assert_count(&b, "SELECT count(*) FROM t", 0);
	fixture_write_ok(&b, "INSERT INTO t VALUES(1)");
	fixture_fini(&b);
}

#define SERIES(n) "WITH RECURSIVE s(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM s WHERE x<" #n ") "

static void test_a_deadline_stops_a_write(void)
{
	struct errmsg em = {0};
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	UNIT_OK(query_batch_begin(b.writer, &em), &em);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"" SERIES(1000000000) "INSERT INTO t SELECT x FROM s\"}",
					 clock_mono_ms() + 20),
			QUERY_TIMEOUT);
	CU_ASSERT(b.batch_lost); /* SQLite interrupts a write no other way */
	query_batch_rollback(b.writer);
	UNIT_OK(query_batch_begin(b.writer, &em), &em);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO t VALUES(1)\"}", 0), QUERY_OK);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO t VALUES(2)\"}", 1), QUERY_TIMEOUT);
	CU_ASSERT_FALSE(b.batch_lost); /* too late before it began: nothing to interrupt */
	UNIT_OK(query_batch_commit(b.writer, &em), &em);
	assert_count(&b, "SELECT count(*) FROM t", 1);
	fixture_fini(&b);
}

static void test_too_many_returned_bytes_undo_the_request(void)
{
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	assert_write_fails(&b, SERIES(50000) "INSERT INTO t SELECT x FROM s RETURNING a", QUERY_TOO_LARGE,
			   "100000 bytes");
	assert_count(&b, "SELECT count(*) FROM t", 0);
	fixture_fini(&b);
}

/* Each is refused by a reader that classifies it and by the writer alike. */
static void assert_denied(struct query_fixture *b, const char *sql, const char *words)
{
	enum query_kind kind;

	CU_ASSERT_EQUAL(fixture_classify_sql(b, sql, &kind), QUERY_FORBIDDEN);
	CU_ASSERT_PTR_NOT_NULL(strstr(b->error.message, words));
	if (b->error.code != QUERY_FORBIDDEN || strstr(b->error.message, words) == NULL)
		fprintf(stderr, "%s: %s %s\n", sql, query_code_name(b->error.code), b->error.message);
	assert_write_fails(b, sql, QUERY_FORBIDDEN, words);
}

static void test_denied_sql_says_why(void)
{
	static const struct {
		const char *sql, *words;
	} cases[] = {
	    {"ATTACH 'x.db' AS x", "ATTACH"},
	    {"ATTACH '' AS x", "ATTACH"},
	    {"DETACH x", "DETACH"},
	    {"BEGIN", "use \"statements\""},
	    {"BEGIN IMMEDIATE", "use \"statements\""},
	    {"COMMIT", "use \"statements\""},
	    {"END TRANSACTION", "use \"statements\""},
	    {"ROLLBACK", "use \"statements\""},
	    {"SAVEPOINT grizzly_request", "use \"statements\""},
	    {"RELEASE grizzly_request", "use \"statements\""},
	    {"ROLLBACK TO grizzly_request", "use \"statements\""},
	    {"SELECT load_extension('x')", "load_extension"},
	    {"SELECT LOAD_EXTENSION('x','y')", "load_extension"},
	    {"SELECT fts3_tokenizer('simple')", "fts3_tokenizer"},
	    {"CREATE TEMP TABLE x(a)", "temporary"},
	    {"CREATE TABLE temp.x(a)", "temporary"},
	    {"CREATE VIEW temp.x AS SELECT 1", "temporary"},
	    {"CREATE TRIGGER temp.x AFTER INSERT ON main.t BEGIN SELECT 1; END", "temporary"},
	    {"CREATE TEMP VIEW x AS SELECT 1", "temporary"},
	    {"CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END", "temporary"},
	    {"CREATE VIRTUAL TABLE temp.x USING fts5(a)", "temporary"},
	    {"VACUUM INTO 'copy.db'", "VACUUM INTO"},
	    {"vacuum /* x */ main into 'copy.db'", "VACUUM INTO"},
	    {"VACUUM \"main\" INTO 'copy.db'", "VACUUM INTO"},
	    {"VACUUM main INTO ?", "VACUUM INTO"},
	    {"PRAGMA journal_mode", "journal_mode"},
	    {"PRAGMA journal_mode=DELETE", "journal_mode"},
	    {"PRAGMA locking_mode=EXCLUSIVE", "locking_mode"},
	    {"PRAGMA main.page_size=8192", "page_size"},
	    {"PRAGMA foreign_keys=OFF", "read, not set"},
	    {"PRAGMA foreign_keys(0)", "read, not set"},
	    {"PRAGMA schema_version=9", "read, not set"},
	    {"PRAGMA encoding='UTF-16'", "read, not set"},
	    {"PRAGMA writable_schema=1", "writable_schema"},
	    {"PRAGMA defer_foreign_keys=1", "defer_foreign_keys"},
	    {"PRAGMA query_only=1", "query_only"},
	    {"PRAGMA cache_size=1", "cache_size"},
	    {"PRAGMA synchronous=OFF", "synchronous"},
	    {"PRAGMA temp_store_directory='/'", "temp_store_directory"},
	    {"PRAGMA database_list", "database_list"},
	    {"PRAGMA wal_checkpoint(TRUNCATE)", "wal_checkpoint"},
	    {"PRAGMA auto_vacuum=1", "auto_vacuum"},
	    {"PRAGMA mmap_size=0", "mmap_size"},
	    {"PRAGMA shrink_memory", "shrink_memory"},
	    {"PRAGMA case_sensitive_like=1", "case_sensitive_like"},
	    {"PRAGMA trusted_schema=1", "trusted_schema"},
	    {"PRAGMA no_such_pragma", "no_such_pragma"},
	    {"EXPLAIN PRAGMA journal_mode=DELETE", "journal_mode"},
	    {"SELECT * FROM sqlite_stmt", "sqlite_stmt"},
	};
	struct query_fixture b;
	size_t i;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_denied(&b, cases[i].sql, cases[i].words);
	assert_write_fails(&b, "INSERT INTO t VALUES(1); COMMIT", QUERY_FORBIDDEN, "statements");
	CU_ASSERT_EQUAL(b.error.statement, 1);
	assert_count(&b, "SELECT count(*) FROM t", 0);
	fixture_fini(&b);
}

static void test_pragma_functions_obey_the_same_rules(void)
{
	static const char *const denied[] = {
	    "SELECT * FROM pragma_database_list",
	    "SELECT * FROM pragma_journal_mode",
	    "SELECT * FROM pragma_optimize",
	};
	struct query_fixture b;
	size_t i;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	for (i = 0; i < sizeof(denied) / sizeof(denied[0]); i++) {
		char *body = fixture_body(denied[i], "rows");
		enum query_outcome outcome = fixture_read(&b, body);

		CU_ASSERT_EQUAL(outcome, QUERY_FAILED);
		CU_ASSERT_EQUAL(b.error.code, QUERY_FORBIDDEN);
		if (b.error.code != QUERY_FORBIDDEN)
			fprintf(stderr, "%s: %s\n", denied[i], b.error.message);
		free(body);
	}
	assert_count(&b, "SELECT count(*) FROM pragma_table_info('t')", 1);
	fixture_fini(&b);
}

static void test_the_schema_table_cannot_be_written(void)
{
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a); CREATE VIRTUAL TABLE f USING fts5(x)");
	assert_write_fails(&b, "DELETE FROM sqlite_master", QUERY_SQL_ERROR, "may not be modified");
	assert_write_fails(&b, "UPDATE sqlite_schema SET sql=''", QUERY_SQL_ERROR, "may not be modified");
	assert_write_fails(&b, "DELETE FROM f_data", QUERY_SQL_ERROR, "may not be modified");
	fixture_fini(&b);
}

static void test_full_text_and_rtree_tables_work(void)
{
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE VIRTUAL TABLE f5 USING fts5(x); CREATE VIRTUAL TABLE f4 USING fts4(x);"
			     "CREATE VIRTUAL TABLE r USING rtree(id, a, b)");
	fixture_write_ok(&b, "INSERT INTO f5 VALUES('bears roam'); INSERT INTO f4 VALUES('bears roam');"
			     "INSERT INTO r VALUES(1, 0.5, 1.5)");
	fixture_write_ok(&b, "INSERT INTO f4(f4) VALUES('optimize')");
	fixture_write_ok(&b, "INSERT INTO f5(f5) VALUES('rebuild')");
	assert_count(&b, "SELECT count(*) FROM f5 WHERE f5 MATCH 'bears'", 1);
	assert_count(&b, "SELECT count(*) FROM f4 WHERE f4 MATCH 'roam'", 1);
	assert_count(&b, "SELECT count(*) FROM r WHERE a < 1", 1);
	fixture_write_ok(&b, "DROP TABLE f5; DROP TABLE f4; DROP TABLE r");
	fixture_fini(&b);
}

static void test_vacuum_runs_alone(void)
{
	static const char *const several[] = {"VACUUM; SELECT 1", "SELECT 1; VACUUM"};
	enum query_kind kind;
	struct query_fixture b;
	size_t i;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
	CU_ASSERT_EQUAL(fixture_classify_sql(&b, " -- tidy up\nVACUUM main;", &kind), QUERY_OK);
	CU_ASSERT_EQUAL(kind, QUERY_KIND_WRITE_ALONE);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"VACUUM main;\"}", 0), QUERY_OK);
	assert_answer(&b, "{\"status\":\"ok\",\"rows_affected\":0,\"last_insert_id\":0,\"lsn\":1");
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"statements\":[{\"sql\":\"VACUUM\"}]}", 0), QUERY_OK);
	assert_answer(&b, "{\"status\":\"ok\",\"results\":[{\"rows_affected\":0,\"last_insert_id\":0}],\"lsn\":1");
	for (i = 0; i < 2; i++) {
		CU_ASSERT_EQUAL(fixture_classify_sql(&b, several[i], &kind), QUERY_BAD_REQUEST);
		assert_write_fails(&b, several[i], QUERY_BAD_REQUEST, "only statement");
	}
	assert_write_fails(&b, "INSERT INTO t VALUES(2); VACUUM", QUERY_BAD_REQUEST, "only statement");
	assert_write_fails(&b, "VACUUM", QUERY_BAD_REQUEST, "only statement"); /* inside a batch */
	assert_denied(&b, "ATTACH '' AS vacuum_db", "ATTACH");                 /* what VACUUM may do, nobody else may */
	assert_count(&b, "SELECT count(*) FROM t", 1);
	fixture_fini(&b);
}

static void test_requests_are_classified_by_what_they_do(void)
{
	static const struct {
		const char *sql;
		enum query_kind kind;
	} cases[] = {
	    {"SELECT * FROM t", QUERY_KIND_READ},
	    {"INSERT INTO t VALUES(1)", QUERY_KIND_WRITE},
	    {"SELECT 1; DELETE FROM t", QUERY_KIND_WRITE},
	    {"WITH x AS (SELECT 1) DELETE FROM t", QUERY_KIND_WRITE},
	    {"DROP TABLE IF EXISTS missing", QUERY_KIND_WRITE},
	    {"CREATE TABLE IF NOT EXISTS t(a)", QUERY_KIND_WRITE},
	    {"PRAGMA user_version", QUERY_KIND_READ},
	    {"PRAGMA user_version=3", QUERY_KIND_WRITE},
	    {"PRAGMA application_id(3)", QUERY_KIND_WRITE},
	    {"PRAGMA optimize", QUERY_KIND_WRITE},
	    {"PRAGMA incremental_vacuum(10)", QUERY_KIND_WRITE},
	    {"EXPLAIN DELETE FROM t", QUERY_KIND_READ},
	    {"EXPLAIN VACUUM", QUERY_KIND_READ},
	    {"UPDATE t SET a=1 RETURNING a", QUERY_KIND_WRITE},
	    {"ALTER TABLE t RENAME TO u", QUERY_KIND_WRITE},
	    {"ANALYZE", QUERY_KIND_WRITE},
	};
	enum query_kind kind;
	struct query_fixture b;
	size_t i;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	for (i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) { /* twice: new, and from the cache */
		CU_ASSERT_EQUAL(fixture_classify_sql(&b, cases[i / 2].sql, &kind), QUERY_OK);
		CU_ASSERT_EQUAL(kind, cases[i / 2].kind);
		if (b.error.code != QUERY_OK || kind != cases[i / 2].kind)
			fprintf(stderr, "%s: %d %s\n", cases[i / 2].sql, kind, b.error.message);
	}
	CU_ASSERT_EQUAL(fixture_classify_sql(&b, "INSERT INTO nowhere VALUES(1)", &kind), QUERY_SQL_ERROR);
	CU_ASSERT_EQUAL(fixture_classify_sql(&b, "CREATE TABLE u(a); SELECT * FROM u", &kind), QUERY_OK);
	CU_ASSERT_EQUAL(fixture_classify(&b, "{\"format\":\"ndjson\",\"sql\":\"DELETE FROM t\"}", &kind),
			QUERY_BAD_REQUEST);
	fixture_fini(&b);
}

static void test_a_write_outside_a_batch_is_its_own_transaction(void)
{
	struct query_fixture b;

	fixture_init(&b);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES(1)\"}", 0),
			QUERY_OK);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO t VALUES(2); INSERT INTO t VALUES(1)\"}", 0),
			QUERY_CONSTRAINT);
	CU_ASSERT_FALSE(b.batch_lost);
	assert_count(&b, "SELECT count(*) FROM t", 1);
	fixture_fini(&b);
}

static void test_a_bulk_load_runs_through_one_text(void)
{
	struct query_fixture b;
	struct buf sql = {0};
	char *body;
	json_t *v;
	int i;

	fixture_init(&b);
	buf_puts(&sql, "CREATE TABLE t(a);");
	for (i = 0; i < 5000; i++)
		buf_printf(&sql, "INSERT INTO t VALUES(%d);\n", i);
	buf_put_u8(&sql, 0);
	body = fixture_body((char *)sql.data, "rows");
	CU_ASSERT_EQUAL(fixture_write(&b, body), QUERY_TOO_LARGE); /* 5000 results are above the fixture's limit */
	free(body);
	sql.data[60000] = '\0';
	*strrchr((char *)sql.data, ';') = '\0';
	body = fixture_body((char *)sql.data, "rows");
	CU_ASSERT_EQUAL(fixture_write(&b, body), QUERY_OK);
	v = fixture_json(&b);
	assert_count(&b, "SELECT count(*) FROM t", (int64_t)json_array_size(json_object_get(v, "results")) - 1);
	json_decref(v);
	free(body);
	buf_fini(&sql);
	fixture_fini(&b);
}

static void test_a_full_disk_is_the_nodes_error(void)
{
	struct errmsg em = {0};
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	sqlite3_set_authorizer(b.writer_db, NULL, NULL); /* max_page_count stands in for a full disk */
	CU_ASSERT_EQUAL(sqlite3_exec(b.writer_db, "PRAGMA max_page_count=10", NULL, NULL, NULL), SQLITE_OK);
	UNIT_OK(query_batch_begin(b.writer, &em), &em);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO t VALUES(zeroblob(200000))\"}", 0),
			QUERY_INTERNAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.error.message, "disk is full"));
	query_batch_rollback(b.writer);
	assert_count(&b, "SELECT count(*) FROM t", 0);
	fixture_fini(&b);
}

/* Whatever is sent, the answer is JSON or an error, and the connections stay usable. */
static void try_sql(struct query_fixture *b, const char *sql)
{
	json_t *o = json_pack("{s:s}", "sql", sql);
	const struct query_request_limits limits = {0};
	struct query_request *r = NULL;
	enum query_kind kind;
	char *body;

	if (o == NULL)
		return; /* not UTF-8 any more */
	body = json_dumps(o, 0);
	if (query_request_parse(&r, body, strlen(body), &limits, &b->error) == QUERY_OK)
		r->role = AUTH_ADMIN;
	if (r != NULL && query_classify(b->reader, r, &kind, &b->error) == QUERY_OK) {
		if (kind == QUERY_KIND_READ)
			fixture_read(b, body);
		else if (kind == QUERY_KIND_WRITE)
			fixture_write(b, body);
	}
	query_request_free(r);
	free(body);
	json_decref(o);
}

static void test_mutated_sql_never_harms(void)
{
	static const char *const samples[] = {
	    "SELECT a, a AS a FROM t WHERE a IN (1, 'x;y') /* c */ ORDER BY 1 -- end",
	    "INSERT INTO t VALUES(1),(x'00ff') RETURNING *; DELETE FROM t WHERE a=\"a\"",
	    "CREATE TABLE u(a, b); CREATE TRIGGER g AFTER INSERT ON u BEGIN DELETE FROM t; END; DROP TABLE u",
	    "VACUUM main INTO 'no'; PRAGMA user_version=3; EXPLAIN SELECT 1; SAVEPOINT s; ROLLBACK",
	};
	static const char alphabet[] = ";'\"`[]()*/-=?: \n,xIB0";
	struct query_fixture b;
	unsigned seed = 5;
	int round, k;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	for (round = 0; round < 4000; round++) {
		char sql[128];

		snprintf(sql, sizeof(sql), "%s", samples[round % 4]);
		for (k = 0; k < 1 + round % 3; k++)
			sql[(size_t)rand_r(&seed) % strlen(sql)] =
			    alphabet[(size_t)rand_r(&seed) % (sizeof(alphabet) - 1)];
		if (round % 5 == 0)
			sql[(size_t)rand_r(&seed) % strlen(sql)] = '\0';
		try_sql(&b, sql);
		CU_ASSERT_EQUAL(sqlite3_txn_state(b.reader_db, NULL), SQLITE_TXN_NONE);
		CU_ASSERT_EQUAL(sqlite3_txn_state(b.writer_db, NULL), SQLITE_TXN_NONE);
	}
	CU_ASSERT_EQUAL(fixture_read(&b, "{\"sql\":\"SELECT 1\"}"), QUERY_ANSWERED);
	CU_ASSERT(access("no", F_OK) != 0);
	fixture_fini(&b);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"writes count rows and tell the last id", test_writes_count_rows_and_tell_the_last_id},
	    {"RETURNING gives rows too", test_returning_gives_rows_too},
	    {"a later statement may need an earlier one", test_a_later_statement_may_need_an_earlier_one},
	    {"a failing statement undoes its whole request alone",
	     test_a_failing_statement_undoes_its_whole_request_alone},
	    {"a batch rolls back as a whole", test_a_batch_rolls_back_as_a_whole},
	    {"foreign keys are enforced", test_foreign_keys_are_enforced},
	    {"a deferred constraint fails its own request", test_a_deferred_constraint_fails_its_own_request},
	    {"a rollback hidden in a constraint reports the lost batch",
	     test_a_rollback_hidden_in_a_constraint_reports_the_lost_batch},
	    {"a deadline stops a write", test_a_deadline_stops_a_write},
	    {"too many returned bytes undo the request", test_too_many_returned_bytes_undo_the_request},
	    {"denied SQL says why", test_denied_sql_says_why},
	    {"PRAGMA functions obey the same rules", test_pragma_functions_obey_the_same_rules},
	    {"the schema table cannot be written", test_the_schema_table_cannot_be_written},
	    {"full-text and R-tree tables work", test_full_text_and_rtree_tables_work},
	    {"VACUUM runs alone", test_vacuum_runs_alone},
	    {"requests are classified by what they do", test_requests_are_classified_by_what_they_do},
	    {"a write outside a batch is its own transaction", test_a_write_outside_a_batch_is_its_own_transaction},
	    {"a bulk load runs through one text", test_a_bulk_load_runs_through_one_text},
	    {"a full disk is the node's error", test_a_full_disk_is_the_nodes_error},
	    {"mutated SQL never harms", test_mutated_sql_never_harms},
	    {NULL, NULL},
	};

	return unit_run("query write", tests);
}

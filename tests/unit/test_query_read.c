/* test_query_read.c - reads: values, shapes, formats, parameters, streaming, limits. */
#include "tests/unit/query_fixture.h"

static void test_a_select_answers_columns_types_and_rows(void)
{
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(id INTEGER PRIMARY KEY, Name VarChar(20), x REAL)");
	fixture_write_ok(&b, "INSERT INTO t VALUES(1,'a',1.0),(2,NULL,-0.5)");
	fixture_read_is(
	    &b, "{\"sql\":\"SELECT *, id+1 AS n FROM t\"}",
	    "{\"status\":\"ok\",\"columns\":[\"id\",\"Name\",\"x\",\"n\"],\"types\":[\"integer\",\"varchar(20)\","
	    "\"real\",\"\"],\"rows\":[[1,\"a\",1.0,2],[2,null,-0.5,3]],\"row_count\":2,\"lsn\":42,"
	    "\"node\":\"node1\",\"time_ms\":");
	fixture_read_is(
	    &b, "{\"sql\":\"SELECT id FROM t WHERE 0\"}",
	    "{\"status\":\"ok\",\"columns\":[\"id\"],\"types\":[\"integer\"],\"rows\":[],\"row_count\":0,\"lsn\":42");
	fixture_fini(&b);
}

static void test_every_value_is_exact_and_valid_json(void)
{
	struct query_fixture b;

	fixture_init(&b);
	fixture_read_is(
	    &b,
	    "{\"sql\":\"SELECT 9223372036854775807 a,-9223372036854775808 b,9e999 c,-9e999 d,x'0001ff' e,"
	    "x'' f,zeroblob(2) g,1e300 h,'' i, 0.1+0.2 j\"}",
	    "{\"status\":\"ok\",\"columns\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\",\"j\"],\"types\":"
	    "[\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\"],\"rows\":[[9223372036854775807,"
	    "-9223372036854775808,{\"$real\":\"inf\"},{\"$real\":\"-inf\"},{\"$blob\":\"AAH/\"},{\"$blob\":\"\"},"
	    "{\"$blob\":\"AAA=\"},1e+300,\"\",0.30000000000000004]]");
	fixture_read_is(&b, "{\"sql\":\"SELECT CAST(x'61ff62' AS TEXT) a, CAST(x'410042' AS TEXT) b\"}",
			"{\"status\":\"ok\",\"columns\":[\"a\",\"b\"],\"types\":[\"\",\"\"],\"rows\":[[\"a\xEF\xBF\xBD"
			"b\",\"A\\u0000B\"]]");
	json_decref(fixture_json(&b));
	fixture_fini(&b);
}

static void test_parameters_come_back_as_they_went_in(void)
{
	struct query_fixture b;

	fixture_init(&b);
	fixture_read_is(
	    &b,
	    "{\"sql\":\"SELECT ?,?,?,?,?,?,?\",\"params\":[null,true,-9223372036854775808,2.0,\"x\\u0000y\","
	    "{\"$blob\":\"AAE=\"},{\"$real\":\"-inf\"}]}",
	    "{\"status\":\"ok\",\"columns\":[\"?\",\"?\",\"?\",\"?\",\"?\",\"?\",\"?\"],\"types\":[\"\",\"\",\"\",\"\","
	    "\"\",\"\",\"\"],"
	    "\"rows\":[[null,1,-9223372036854775808,2.0,\"x\\u0000y\",{\"$blob\":\"AAE=\"},{\"$real\":\"-inf\"}]]");
	fixture_read_is(
	    &b, "{\"sql\":\"SELECT :a||@b||$c AS s, :a\",\"params\":{\"a\":\"1\",\"@b\":\"2\",\"c\":\"3\"}}",
	    "{\"status\":\"ok\",\"columns\":[\"s\",\":a\"],\"types\":[\"\",\"\"],\"rows\":[[\"123\",\"1\"]]");
	fixture_read_is(
	    &b, "{\"sql\":\"SELECT ? AS a; SELECT ? AS b, ? AS c\",\"params\":[1,2,3]}",
	    "{\"status\":\"ok\",\"results\":[{\"columns\":[\"a\"],\"types\":[\"\"],\"rows\":[[1]],\"row_count\":1},"
	    "{\"columns\":[\"b\",\"c\"],\"types\":[\"\",\"\"],\"rows\":[[2,3]],\"row_count\":1}],\"lsn\":42,");
	fixture_read_is(
	    &b, "{\"sql\":\"SELECT :x AS a; SELECT :x+:y AS b\",\"params\":{\"x\":1,\"y\":2}}",
	    "{\"status\":\"ok\",\"results\":[{\"columns\":[\"a\"],\"types\":[\"\"],\"rows\":[[1]],\"row_count\":1},"
	    "{\"columns\":[\"b\"],\"types\":[\"\"],\"rows\":[[3]],\"row_count\":1}]");
	fixture_fini(&b);
}

static void test_wrong_parameters_are_refused_with_both_counts(void)
{
	static const struct {
		const char *body, *words;
	} cases[] = {
	    {"{\"sql\":\"SELECT ?\"}", "1 parameter expected, 0 given"},
	    {"{\"sql\":\"SELECT ?,?\",\"params\":[1]}", "2 parameters expected, 1 given"},
	    {"{\"sql\":\"SELECT ?\",\"params\":[1,2]}", "1 parameter expected, 2 given"},
	    {"{\"sql\":\"SELECT 1\",\"params\":[1]}", "0 parameters expected, 1 given"},
	    {"{\"sql\":\"SELECT ?5\",\"params\":[1]}", "5 parameters expected, 1 given"},
	    {"{\"sql\":\"SELECT ?; SELECT ?\",\"params\":[1]}", "2 parameters expected, 1 given"},
	    {"{\"sql\":\"SELECT ?; SELECT ?\",\"params\":[1,2,3]}", "2 parameters expected, 3 given"},
	    {"{\"sql\":\"SELECT :a\",\"params\":{\"b\":1}}", "no value given for parameter :a"},
	    {"{\"sql\":\"SELECT :a\",\"params\":{\"a\":1,\"b\":1}}", "\"b\" is given but not used"},
	    {"{\"sql\":\"SELECT 1\",\"params\":{\"a\":1}}", "\"a\" is given but not used"},
	    {"{\"sql\":\"SELECT ?\",\"params\":{\"a\":1}}", "as an array"},
	};
	struct query_fixture b;
	size_t i;

	fixture_init(&b);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CU_ASSERT_EQUAL(fixture_read(&b, cases[i].body), QUERY_FAILED);
		CU_ASSERT_EQUAL(b.error.code, QUERY_BAD_REQUEST);
		CU_ASSERT_PTR_NOT_NULL(strstr(b.error.message, cases[i].words));
		if (strstr(b.error.message, cases[i].words) == NULL)
			fprintf(stderr, "%s: %s\n", cases[i].body, b.error.message);
		CU_ASSERT_EQUAL(b.out.len, 0);
	}
	fixture_fini(&b);
}

static void test_objects_keep_repeated_columns_apart(void)
{
	struct query_fixture b;

	fixture_init(&b);
	fixture_read_is(
	    &b, "{\"format\":\"objects\",\"sql\":\"SELECT 1 AS a,2 AS a,3 AS \\\"a:1\\\",4 AS a, 5 AS b\"}",
	    "{\"status\":\"ok\",\"columns\":[\"a\",\"a\",\"a:1\",\"a\",\"b\"],\"types\":[\"\",\"\",\"\",\"\",\"\"],"
	    "\"rows\":[{\"a\":1,\"a:2\":2,\"a:1\":3,\"a:3\":4,\"b\":5}],\"row_count\":1");
	json_decref(fixture_json(&b));
	fixture_fini(&b);
}

static void test_ndjson_is_one_object_a_line_and_nothing_else(void)
{
	struct query_fixture b;

	fixture_init(&b);
	fixture_read_is(&b, "{\"format\":\"ndjson\",\"sql\":\"VALUES(1,'x'),(2,NULL)\"}",
			"{\"column1\":1,\"column2\":\"x\"}\n{\"column1\":2,\"column2\":null}\n");
	CU_ASSERT_EQUAL(b.out.data[b.out.len - 1], '\n');
	CU_ASSERT_EQUAL(fixture_read(&b, "{\"format\":\"ndjson\",\"sql\":\"SELECT 1 WHERE 0\"}"), QUERY_ANSWERED);
	CU_ASSERT_EQUAL(b.out.len, 0);
	CU_ASSERT_EQUAL(fixture_read(&b, "{\"format\":\"ndjson\",\"sql\":\"SELECT 1; SELECT 2\"}"), QUERY_FAILED);
	CU_ASSERT_EQUAL(b.error.code, QUERY_BAD_REQUEST);
	CU_ASSERT_EQUAL(fixture_read(&b, "{\"format\":\"ndjson\",\"statements\":[{\"sql\":\"SELECT 1\"}]}"),
			QUERY_FAILED);
	CU_ASSERT_EQUAL(b.error.code, QUERY_BAD_REQUEST);
	fixture_fini(&b);
}

static void test_statements_answer_results_even_for_one(void)
{
	struct query_fixture b;

	fixture_init(&b);
	fixture_read_is(
	    &b, "{\"statements\":[{\"sql\":\"SELECT 1 AS a;\"}]}",
	    "{\"status\":\"ok\",\"results\":[{\"columns\":[\"a\"],\"types\":[\"\"],\"rows\":[[1]],\"row_count\":1}],"
	    "\"lsn\":42,\"node\":\"node1\"");
	fixture_read_is(&b, "{\"sql\":\" ; SELECT 1 AS a ; -- done\\n ;/* really */\"}",
			"{\"status\":\"ok\",\"columns\":[\"a\"]");
	CU_ASSERT_EQUAL(fixture_read(&b, "{\"statements\":[{\"sql\":\"SELECT 1\"},{\"sql\":\"SELECT 2; SELECT 3\"}]}"),
			QUERY_FAILED);
	CU_ASSERT_EQUAL(b.error.code, QUERY_BAD_REQUEST);
	CU_ASSERT_EQUAL(b.error.statement, 1);
	fixture_fini(&b);
}

static void test_sql_errors_pass_through_and_name_the_statement(void)
{
	struct query_fixture b;

	fixture_init(&b);
	CU_ASSERT_EQUAL(fixture_read(&b, "{\"sql\":\"SELEC 1\"}"), QUERY_FAILED);
	CU_ASSERT_EQUAL(b.error.code, QUERY_SQL_ERROR);
	CU_ASSERT_STRING_EQUAL(b.error.message, "near \"SELEC\": syntax error");
	CU_ASSERT_EQUAL(b.error.statement, -1);
	CU_ASSERT_EQUAL(fixture_read(&b, "{\"sql\":\"SELECT 1; SELECT * FROM nowhere\"}"), QUERY_FAILED);
	CU_ASSERT_STRING_EQUAL(b.error.message, "no such table: nowhere");
	CU_ASSERT_EQUAL(b.error.statement, 1);
	CU_ASSERT_EQUAL(fixture_read(&b, "{\"sql\":\"SELECT ';' FROM nowhere; SELECT 1\"}"), QUERY_FAILED);
	CU_ASSERT_EQUAL(b.error.statement, 0);
	CU_ASSERT_EQUAL(fixture_read(&b, "{\"sql\":\"SELECT ';' FROM nowhere;\"}"), QUERY_FAILED);
	CU_ASSERT_EQUAL(b.error.statement, -1);
	CU_ASSERT_EQUAL(fixture_read(&b, "{\"sql\":\"SELECT abs(-9223372036854775808)\"}"), QUERY_FAILED);
	CU_ASSERT_EQUAL(b.error.code, QUERY_SQL_ERROR);
	CU_ASSERT_STRING_EQUAL(b.error.message, "integer overflow");
	CU_ASSERT_EQUAL(fixture_read(&b, "{\"sql\":\"SELECT zeroblob(100000000)\"}"), QUERY_FAILED);
	CU_ASSERT_EQUAL(b.error.code, QUERY_TOO_LARGE);
	fixture_fini(&b);
}

static void test_explain_and_pragmas_that_read_are_reads(void)
{
	static const char *const reads[] = {
	    "EXPLAIN INSERT INTO t VALUES(9)",
	    "EXPLAIN QUERY PLAN DELETE FROM t",
	    "PRAGMA table_info(t)",
	    "PRAGMA user_version",
	    "PRAGMA integrity_check",
	    "SELECT * FROM pragma_table_info('t')",
	    "PRAGMA foreign_keys",
	    "PRAGMA main.page_size",
	    "WITH x AS (SELECT 1) SELECT * FROM x",
	    "VALUES(1)",
	    "PRAGMA index_list('t')",
	    "PRAGMA table_list",
	};
	enum query_kind kind;
	struct query_fixture b;
	size_t i;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	for (i = 0; i < sizeof(reads) / sizeof(reads[0]); i++) {
		char *body = fixture_body(reads[i], "rows");

		CU_ASSERT_EQUAL(fixture_classify(&b, body, &kind), QUERY_OK);
		CU_ASSERT_EQUAL(kind, QUERY_KIND_READ);
		if (fixture_read(&b, body) != QUERY_ANSWERED || kind != QUERY_KIND_READ) {
			CU_FAIL("not answered as a read");
			fprintf(stderr, "%s: %s\n", reads[i], b.error.message);
		}
		free(body);
	}
	fixture_fini(&b);
}

static void test_a_changed_schema_changes_the_cached_columns(void)
{
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
	fixture_read_is(&b, "{\"format\":\"objects\",\"sql\":\"SELECT * FROM t\"}",
			"{\"status\":\"ok\",\"columns\":[\"a\"],\"types\":[\"\"],\"rows\":[{\"a\":1}]");
	fixture_write_ok(&b, "ALTER TABLE t ADD COLUMN b TEXT DEFAULT 'x'");
	fixture_read_is(
	    &b, "{\"format\":\"objects\",\"sql\":\"SELECT * FROM t\"}",
	    "{\"status\":\"ok\",\"columns\":[\"a\",\"b\"],\"types\":[\"\",\"text\"],\"rows\":[{\"a\":1,\"b\":\"x\"}]");
	fixture_write_ok(&b, "DROP TABLE t");
	CU_ASSERT_EQUAL(fixture_read(&b, "{\"format\":\"objects\",\"sql\":\"SELECT * FROM t\"}"), QUERY_FAILED);
	CU_ASSERT_EQUAL(b.error.code, QUERY_SQL_ERROR);
	fixture_fini(&b);
}

static void test_plans_are_those_of_the_present_schema(void)
{
	static const char plan[] = "{\"sql\":\"EXPLAIN QUERY PLAN SELECT a FROM t WHERE a = 1\"}";
	static const char head[] = "{\"status\":\"ok\",\"columns\":[\"id\",\"parent\",\"notused\",\"detail\"],"
				   "\"types\":[\"\",\"\",\"\",\"\"],";
	struct query_fixture b;
	char expected[300];
	int i;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	for (i = 0; i < 2; i++) {
		snprintf(expected, sizeof(expected), "%s\"rows\":[[2,0,0,\"SCAN t\"]]", head);
		fixture_read_is(&b, plan, expected);
		CU_ASSERT_EQUAL(fixture_read(&b, "{\"sql\":\"EXPLAIN DELETE FROM t\"}"), QUERY_ANSWERED);
		fixture_write_ok(&b, "CREATE INDEX i ON t(a)");
		/* The old schema goes, and with it what a list made of it would name. */
		CU_ASSERT_EQUAL(fixture_read(&b, "{\"sql\":\"SELECT * FROM t\"}"), QUERY_ANSWERED);
		CU_ASSERT_EQUAL(fixture_read(&b, "{\"sql\":\"EXPLAIN DELETE FROM t\"}"), QUERY_ANSWERED);
		fixture_write_ok(&b, "DROP INDEX i; CREATE INDEX j ON t(a)");
		snprintf(expected, sizeof(expected), "%s\"rows\":[[2,0,0,\"SEARCH t USING COVERING INDEX j (a=?)\"]]",
			 head);
		fixture_read_is(&b, plan, expected);
		fixture_write_ok(&b, "DROP INDEX j");
	}
	fixture_fini(&b);
}

static void test_a_table_made_anew_with_other_columns_is_seen_at_once(void)
{
	struct query_fixture b;
	enum query_kind kind;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a, b)");
	CU_ASSERT_EQUAL(fixture_read(&b, "{\"sql\":\"SELECT * FROM t\"}"), QUERY_ANSWERED);
	fixture_write_ok(&b, "DROP TABLE t; CREATE TABLE t(v)");
	CU_ASSERT_EQUAL(fixture_classify_sql(&b, "INSERT INTO t VALUES(1)", &kind), QUERY_OK);
	CU_ASSERT_EQUAL(kind, QUERY_KIND_WRITE);
	fixture_fini(&b);
}

static void test_many_texts_and_long_scripts_pass_through_the_cache(void)
{
	struct query_fixture b;
	struct buf sql = {0};
	char *body;
	json_t *v;
	int i, round;

	fixture_init(&b);
	for (i = 0; i < 50; i++) {
		char one[64];

		snprintf(one, sizeof(one), "{\"sql\":\"SELECT %d AS a; SELECT 1\"}", i % 7);
		CU_ASSERT_EQUAL(fixture_read(&b, one), QUERY_ANSWERED);
	}
	for (i = 0; i < 40; i++)
		buf_printf(&sql, "SELECT %d AS a;", i);
	buf_put_u8(&sql, 0);
	body = fixture_body((char *)sql.data, "rows");
	for (round = 0; round < 3; round++) { /* some statements kept, the rest prepared each time */
		CU_ASSERT_EQUAL(fixture_read(&b, body), QUERY_ANSWERED);
		v = fixture_json(&b);
		CU_ASSERT_EQUAL(json_array_size(json_object_get(v, "results")), 40);
		json_decref(v);
	}
	free(body);
	buf_fini(&sql);
	fixture_fini(&b);
}

static void test_a_megabyte_of_sql_is_answered(void)
{
	struct query_fixture b;
	struct buf sql = {0};
	char *body;

	fixture_init(&b);
	buf_puts(&sql, "SELECT length('");
	for (int i = 0; i < 1 << 20; i++)
		buf_put_u8(&sql, 'x');
	buf_put(&sql, "') AS n", 8);
	body = fixture_body((char *)sql.data, "rows");
	CU_ASSERT_EQUAL(fixture_read(&b, body), QUERY_ANSWERED);
	CU_ASSERT_PTR_NOT_NULL(memmem(b.out.data, b.out.len, "[[1048576]]", 11));
	free(body);
	buf_fini(&sql);
	fixture_fini(&b);
}

#define SERIES(n) "WITH RECURSIVE s(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM s WHERE x<" #n ") "

static void test_a_budget_is_reported_and_leaves_nothing(void)
{
	const struct query_read_limits ops = {.ops_max = 20000};
	const struct query_read_limits bytes = {.bytes_max = 1000};
	struct query_fixture b;

	fixture_init(&b);
	CU_ASSERT_EQUAL(fixture_read_with(&b, "{\"sql\":\"" SERIES(1000000) "SELECT count(*) FROM s\"}", &ops, NULL),
			QUERY_OVER_BUDGET);
	CU_ASSERT_EQUAL(b.out.len, 0);
	CU_ASSERT_EQUAL(fixture_read_with(&b, "{\"sql\":\"" SERIES(100) "SELECT count(*) FROM s\"}", &ops, NULL),
			QUERY_ANSWERED);
	CU_ASSERT_EQUAL(fixture_read_with(&b, "{\"sql\":\"" SERIES(1000) "SELECT x FROM s\"}", &bytes, NULL),
			QUERY_OVER_BUDGET);
	CU_ASSERT_EQUAL(b.out.len, 0);
	fixture_fini(&b);
}

static void test_a_deadline_stops_a_read(void)
{
	struct query_read_limits limits = {.deadline_ms = clock_mono_ms() + 20};
	struct query_fixture b;

	fixture_init(&b);
	CU_ASSERT_EQUAL(
	    fixture_read_with(&b, "{\"sql\":\"" SERIES(1000000000) "SELECT count(*) FROM s\"}", &limits, NULL),
	    QUERY_FAILED);
	CU_ASSERT_EQUAL(b.error.code, QUERY_TIMEOUT);
	CU_ASSERT(clock_mono_ms() < limits.deadline_ms + 2000);
	/* Past before it begins. */
	CU_ASSERT_EQUAL(fixture_read_with(&b, "{\"sql\":\"SELECT 1\"}", &limits, NULL), QUERY_FAILED);
	CU_ASSERT_EQUAL(b.error.code, QUERY_TIMEOUT);
	CU_ASSERT_EQUAL(fixture_read(&b, "{\"sql\":\"SELECT 1\"}"), QUERY_ANSWERED);
	fixture_fini(&b);
}

/* Gathers pieces; cancels, fails, or runs out of time at a given one. */
struct gatherer {
	struct buf all;
	int pieces;
	int refuse_at; /* 0: never */
	int cancel_at;
	int late_at;
	atomic_bool cancelled;
	uint64_t deadline_ms;
};

static bool gather(void *arg, struct buf *out)
{
	struct gatherer *g = arg;

	buf_put(&g->all, out->data, out->len);
	buf_clear(out);
	g->pieces++;
	if (g->pieces == g->cancel_at)
		atomic_store(&g->cancelled, true);
	while (g->pieces == g->late_at && clock_mono_ms() < g->deadline_ms)
		;
	return g->pieces != g->refuse_at;
}

static enum query_outcome stream(struct query_fixture *b, struct gatherer *g, const char *body, size_t chunk_bytes)
{
	const struct query_sink sink = {.flush = gather, .arg = g, .chunk_bytes = chunk_bytes};
	const struct query_read_limits limits = {
	    .cancelled = &g->cancelled, .deadline_ms = g->deadline_ms, .ops_max = 50000};
	enum query_outcome outcome = fixture_read_with(b, body, &limits, &sink);

	buf_put(&g->all, b->out.data, b->out.len);
	return outcome;
}

static json_t *gathered_json(struct gatherer *g)
{
	json_t *v = json_loadb((char *)g->all.data, g->all.len, JSON_REJECT_DUPLICATES, NULL);

	if (v == NULL)
		fprintf(stderr, "not JSON: %.*s\n", (int)g->all.len, (char *)g->all.data);
	CU_ASSERT_PTR_NOT_NULL_FATAL(v);
	buf_fini(&g->all);
	return v;
}

static void assert_streams_the_same(struct query_fixture *b, const char *body, size_t chunk_bytes)
{
	struct gatherer g = {0};
	json_t *streamed, *whole;

	CU_ASSERT_EQUAL(stream(b, &g, body, chunk_bytes), QUERY_ANSWERED);
	CU_ASSERT(memmem(g.all.data, g.all.len, ",\"status\":\"ok\"}\n", 16) != NULL);
	streamed = gathered_json(&g);
	CU_ASSERT_EQUAL(fixture_read(b, body), QUERY_ANSWERED);
	whole = fixture_json(b);
	json_object_del(streamed, "time_ms");
	json_object_del(whole, "time_ms");
	CU_ASSERT(json_equal(streamed, whole));
	json_decref(streamed);
	json_decref(whole);
}

static void test_streamed_answers_equal_whole_ones(void)
{
	static const char *const bodies[] = {
	    "{\"sql\":\"" SERIES(300) "SELECT x, x*0.5, 'text' FROM s\"}",
	    "{\"format\":\"objects\",\"sql\":\"" SERIES(300) "SELECT x, x AS x FROM s\"}",
	    "{\"sql\":\"" SERIES(50) "SELECT x FROM s; SELECT 1 WHERE 0; SELECT 2\"}",
	    "{\"statements\":[{\"sql\":\"SELECT ?\",\"params\":[1]},{\"sql\":\"" SERIES(50) "SELECT x FROM s\"}]}",
	    "{\"sql\":\"SELECT 1 WHERE 0\"}",
	};
	struct query_fixture b;
	size_t i;

	fixture_init(&b);
	for (i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		assert_streams_the_same(&b, bodies[i], 1);
		assert_streams_the_same(&b, bodies[i], 100);
		assert_streams_the_same(&b, bodies[i], 1 << 20);
	}
	fixture_fini(&b);
}

/* The 500th row fails. */
#define FAILS_LATE SERIES(1000) "SELECT CASE WHEN x=500 THEN abs(-9223372036854775808) ELSE x END AS x FROM s"

static void test_a_stream_that_breaks_is_closed_as_valid_json(void)
{
	static const char *const bodies[] = {
	    "{\"sql\":\"" FAILS_LATE "\"}",
	    "{\"format\":\"objects\",\"sql\":\"" FAILS_LATE "\"}",
	    "{\"sql\":\"SELECT 1; " FAILS_LATE "\"}",
	    "{\"statements\":[{\"sql\":\"SELECT 1\"},{\"sql\":\"SELECT abs(-9223372036854775808)\"}]}",
	    "{\"statements\":[{\"sql\":\"SELECT 1\"},{\"sql\":\"SELECT * FROM nowhere\"}]}",
	};
	struct query_fixture b;
	size_t i;

	fixture_init(&b);
	for (i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		struct gatherer g = {0};
		json_t *v;

		CU_ASSERT_EQUAL(stream(&b, &g, bodies[i], 5), QUERY_BROKEN);
		v = gathered_json(&g);
		CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(v, "status")), "error");
		CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(v, "code")), "SQL_ERROR");
		CU_ASSERT_EQUAL(json_object_get(v, "statement") != NULL, i >= 2);
		CU_ASSERT_EQUAL(json_array_size(json_object_get(v, "rows")), i < 2 ? 499 : 0);
		CU_ASSERT_PTR_NULL(json_object_get(v, "row_count"));
		json_decref(v);
		/* Nothing flushed: a plain error. */
		CU_ASSERT_EQUAL(stream(&b, &g, bodies[i], 1 << 20), QUERY_FAILED);
		CU_ASSERT_EQUAL(g.all.len, 0);
		CU_ASSERT_EQUAL(b.error.code, QUERY_SQL_ERROR);
		buf_fini(&g.all);
	}
	fixture_fini(&b);
}

static void test_ndjson_that_breaks_ends_with_an_error_line(void)
{
	static const char last[] =
	    "{\"x\":499}\n{\"status\":\"error\",\"code\":\"SQL_ERROR\",\"message\":\"integer overflow\"}\n";
	struct gatherer g = {0};
	struct query_fixture b;

	fixture_init(&b);
	CU_ASSERT_EQUAL(stream(&b, &g, "{\"format\":\"ndjson\",\"sql\":\"" FAILS_LATE "\"}", 64), QUERY_BROKEN);
	CU_ASSERT(g.all.len > strlen(last) && memcmp(g.all.data + g.all.len - strlen(last), last, strlen(last)) == 0);
	buf_fini(&g.all);
	fixture_fini(&b);
}

static void test_a_budget_ends_with_the_first_piece(void)
{
	struct gatherer g = {0};
	struct query_fixture b;

	fixture_init(&b);
	CU_ASSERT_EQUAL(stream(&b, &g, "{\"sql\":\"" SERIES(100000) "SELECT x FROM s\"}", 1000), QUERY_ANSWERED);
	CU_ASSERT(g.pieces > 100);
	buf_fini(&g.all);
	fixture_fini(&b);
}

static void test_a_client_that_goes_ends_the_stream(void)
{
	struct gatherer refusing = {.refuse_at = 3};
	struct gatherer cancelled = {.cancel_at = 3};
	struct gatherer before = {.cancelled = true};
	struct query_fixture b;

	fixture_init(&b);
	CU_ASSERT_EQUAL(stream(&b, &refusing, "{\"sql\":\"" SERIES(100000) "SELECT x FROM s\"}", 100), QUERY_GONE);
	CU_ASSERT_EQUAL(refusing.pieces, 3);
	CU_ASSERT_EQUAL(stream(&b, &cancelled, "{\"sql\":\"" SERIES(100000) "SELECT x FROM s\"}", 100), QUERY_GONE);
	CU_ASSERT_EQUAL(cancelled.pieces, 3);
	CU_ASSERT_EQUAL(stream(&b, &before, "{\"sql\":\"SELECT 1\"}", 100), QUERY_GONE);
	CU_ASSERT_EQUAL(b.out.len, 0);
	buf_fini(&refusing.all);
	buf_fini(&cancelled.all);
	buf_fini(&before.all);
	fixture_fini(&b);
}

static void test_a_deadline_during_a_stream_breaks_it(void)
{
	struct gatherer g = {.late_at = 2, .deadline_ms = clock_mono_ms() + 500};
	struct query_fixture b;
	json_t *v;

	fixture_init(&b);
	CU_ASSERT_EQUAL(stream(&b, &g, "{\"sql\":\"" SERIES(1000) "SELECT x FROM s\"}", 100), QUERY_BROKEN);
	CU_ASSERT_EQUAL(g.pieces, 2);
	v = gathered_json(&g);
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(v, "code")), "TIMEOUT");
	json_decref(v);
	fixture_fini(&b);
}

/* Rows and bytes are those of all statements, flushed or not. */
static void test_a_result_is_no_larger_than_allowed(void)
{
	const struct query_read_limits rows = {.result_rows_max = 100}, bytes = {.result_bytes_max = 1000};
	struct gatherer g = {0};
	const struct query_sink sink = {.flush = gather, .arg = &g, .chunk_bytes = 100};
	struct query_fixture b;
	json_t *v;

	fixture_init(&b);
	CU_ASSERT_EQUAL(fixture_read_with(&b, "{\"sql\":\"" SERIES(100) "SELECT x FROM s\"}", &rows, NULL),
			QUERY_ANSWERED);
	CU_ASSERT_EQUAL(fixture_read_with(&b, "{\"sql\":\"" SERIES(101) "SELECT x FROM s\"}", &rows, NULL),
			QUERY_FAILED);
	CU_ASSERT_EQUAL(b.error.code, QUERY_TOO_LARGE);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.error.message, "query.result_rows_max"));
	CU_ASSERT_EQUAL(fixture_read_with(&b, "{\"sql\":\"SELECT 1; " SERIES(100) "SELECT x FROM s\"}", &rows, NULL),
			QUERY_FAILED);
	CU_ASSERT_EQUAL(b.error.code, QUERY_TOO_LARGE);
	CU_ASSERT_EQUAL(b.error.statement, 1);
	CU_ASSERT_EQUAL(fixture_read_with(&b, "{\"sql\":\"SELECT zeroblob(1000)\"}", &bytes, NULL), QUERY_FAILED);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.error.message, "query.result_bytes_max"));
	CU_ASSERT_EQUAL(fixture_read_with(&b, "{\"sql\":\"" SERIES(1000) "SELECT x FROM s\"}", &bytes, &sink),
			QUERY_BROKEN);
	buf_put(&g.all, b.out.data, b.out.len);
	CU_ASSERT(g.all.len > 900 && g.all.len < 1500);
	v = gathered_json(&g);
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(v, "code")), "TOO_LARGE");
	json_decref(v);
	fixture_fini(&b);
}

static void test_a_read_sees_one_snapshot(void)
{
	struct query_fixture b;
	json_t *v, *results;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
	CU_ASSERT_EQUAL(fixture_read(&b, "{\"sql\":\"SELECT count(*) FROM t; SELECT count(*) FROM t\"}"),
			QUERY_ANSWERED);
	v = fixture_json(&b);
	results = json_object_get(v, "results");
	CU_ASSERT(json_equal(json_array_get(results, 0), json_array_get(results, 1)));
	json_decref(v);
	CU_ASSERT_EQUAL(fixture_read(&b, "{\"sql\":\"INSERT INTO t VALUES(2)\"}"), QUERY_FAILED);
	CU_ASSERT_EQUAL(b.error.code, QUERY_INTERNAL);
	fixture_read_is(&b, "{\"sql\":\"SELECT count(*) AS n FROM t\"}",
			"{\"status\":\"ok\",\"columns\":[\"n\"],\"types\":[\"\"],\"rows\":[[1]]");
	fixture_fini(&b);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"a SELECT answers columns, types and rows", test_a_select_answers_columns_types_and_rows},
	    {"every value is exact and valid JSON", test_every_value_is_exact_and_valid_json},
	    {"parameters come back as they went in", test_parameters_come_back_as_they_went_in},
	    {"wrong parameters are refused with both counts", test_wrong_parameters_are_refused_with_both_counts},
	    {"objects keep repeated columns apart", test_objects_keep_repeated_columns_apart},
	    {"ndjson is one object a line and nothing else", test_ndjson_is_one_object_a_line_and_nothing_else},
	    {"statements answer results even for one", test_statements_answer_results_even_for_one},
	    {"SQL errors pass through and name the statement", test_sql_errors_pass_through_and_name_the_statement},
	    {"a result is no larger than allowed", test_a_result_is_no_larger_than_allowed},
	    {"EXPLAIN and PRAGMAs that read are reads", test_explain_and_pragmas_that_read_are_reads},
	    {"a changed schema changes the cached columns", test_a_changed_schema_changes_the_cached_columns},
	    {"plans are those of the present schema", test_plans_are_those_of_the_present_schema},
	    {"a table made anew with other columns is seen at once",
	     test_a_table_made_anew_with_other_columns_is_seen_at_once},
	    {"many texts and long scripts pass through the cache",
	     test_many_texts_and_long_scripts_pass_through_the_cache},
	    {"a megabyte of SQL is answered", test_a_megabyte_of_sql_is_answered},
	    {"a budget is reported and leaves nothing", test_a_budget_is_reported_and_leaves_nothing},
	    {"a deadline stops a read", test_a_deadline_stops_a_read},
	    {"streamed answers equal whole ones", test_streamed_answers_equal_whole_ones},
	    {"a stream that breaks is closed as valid JSON", test_a_stream_that_breaks_is_closed_as_valid_json},
	    {"ndjson that breaks ends with an error line", test_ndjson_that_breaks_ends_with_an_error_line},
	    {"a budget ends with the first piece", test_a_budget_ends_with_the_first_piece},
	    {"a client that goes ends the stream", test_a_client_that_goes_ends_the_stream},
	    {"a deadline during a stream breaks it", test_a_deadline_during_a_stream_breaks_it},
	    {"a read sees one snapshot", test_a_read_sees_one_snapshot},
	    {NULL, NULL},
	};

	return unit_run("query read", tests);
}

/*
 * test_timings.c - histograms, their text, and a slow query's shape and plan.
 */
#include "common/base/timings.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/metrics_text.h"
#include "common/query/explain.h"
#include "tests/unit/query_fixture.h"
#include "tests/unit/unit.h"

static uint64_t count_of(const struct histogram *h, size_t bucket)
{
	return atomic_load(&h->counts[bucket]);
}

static void test_a_value_falls_into_the_first_bucket_that_holds_it(void)
{
	struct histogram h = {0};
	size_t i;

	for (i = 0; i < histogram_us.count; i++) {
		CU_ASSERT(i == 0 || histogram_us.bounds[i] > histogram_us.bounds[i - 1]);
		histogram_add(&h, &histogram_us, histogram_us.bounds[i], 1);
		CU_ASSERT_EQUAL(count_of(&h, i), 1);
		histogram_add(&h, &histogram_us, histogram_us.bounds[i] + 1, 1);
		CU_ASSERT_EQUAL(count_of(&h, i + 1), 1);
		h = (struct histogram){0};
	}
	histogram_add(&h, &histogram_us, 0, 3);
	CU_ASSERT_EQUAL(count_of(&h, 0), 3);
	histogram_add(&h, &histogram_us, UINT64_MAX / 4, 1);
	CU_ASSERT_EQUAL(count_of(&h, histogram_us.count), 1);
	CU_ASSERT_EQUAL(atomic_load(&h.sum), UINT64_MAX / 4);
}

static void *count_many(void *arg)
{
	struct timings *t = arg;
	int i;

	for (i = 0; i < 20000; i++)
		timings_add(t, TIMING_READ_WHOLE, (uint64_t)i % 100);
	return NULL;
}

static void test_nothing_counted_by_several_threads_is_lost(void)
{
	struct timings *t = calloc(2, sizeof(*t));
	pthread_t threads[4];
	uint64_t total = 0;
	size_t i;

	CU_ASSERT_PTR_NOT_NULL_FATAL(t);
	for (i = 0; i < 4; i++)
		CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, count_many, &t[0]), 0);
	for (i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	timings_add(NULL, TIMING_READ_WHOLE, 1); /* nobody counts */
	timings_collect(&t[1], &t[0]);
	timings_collect(&t[1], &t[0]);
	for (i = 0; i <= HISTOGRAM_BOUNDS_MAX; i++)
		total += count_of(&t[1].stages[TIMING_READ_WHOLE], i);
	CU_ASSERT_EQUAL(total, 160000);
	CU_ASSERT_EQUAL(atomic_load(&t[1].stages[TIMING_READ_WHOLE].sum), (uint64_t)2 * 4 * 200 * 4950);
	CU_ASSERT_STRING_EQUAL(timing_kind(TIMING_WRITE_SYNC), "write");
	CU_ASSERT_STRING_EQUAL(timing_stage(TIMING_WRITE_SYNC), "sync");
	free(t);
}

static void expect_text(struct buf *out, const char *expected)
{
	buf_put(out, "", 1);
	if (strcmp((const char *)out->data, expected) != 0)
		fprintf(stderr, "got      %s\nexpected %s\n", (const char *)out->data, expected);
	CU_ASSERT_STRING_EQUAL((const char *)out->data, expected);
	buf_clear(out);
}

static void test_the_text_is_prometheus(void)
{
	static const struct histogram_scale scale = {.count = 3, .bounds = {10, 1500000, 20000000}};
	struct histogram h = {0};
	struct buf out = {0};
	struct metrics_text m = {.out = &out, .labels = "node=\"node1\""};

	metrics_one(&m, "things_total", "counter", "Things.", 7);
	expect_text(&out, "# HELP grizzly_things_total Things.\n# TYPE grizzly_things_total counter\n"
			  "grizzly_things_total{node=\"node1\"} 7\n");
	metrics_one_ms(&m, "age_seconds", "Age.", 12034);
	expect_text(&out, "# HELP grizzly_age_seconds Age.\n# TYPE grizzly_age_seconds gauge\n"
			  "grizzly_age_seconds{node=\"node1\"} 12.034\n");
	m.labels = "";
	metrics_sample(&m, "", 1);
	metrics_sample(&m, "a=\"b\"", 2);
	expect_text(&out, "grizzly_age_seconds 1\ngrizzly_age_seconds{a=\"b\"} 2\n");
	histogram_add(&h, &scale, 10, 1);
	histogram_add(&h, &scale, 1000000, 2);
	histogram_add(&h, &scale, 30000000, 1);
	m.name = "x_seconds";
	metrics_histogram(&m, "k=\"v\"", &h, &scale, true);
	expect_text(&out, "grizzly_x_seconds_bucket{k=\"v\",le=\"0.00001\"} 1\n"
			  "grizzly_x_seconds_bucket{k=\"v\",le=\"1.5\"} 3\n"
			  "grizzly_x_seconds_bucket{k=\"v\",le=\"20\"} 3\n"
			  "grizzly_x_seconds_bucket{k=\"v\",le=\"+Inf\"} 4\n"
			  "grizzly_x_seconds_sum{k=\"v\"} 32.000010\n"
			  "grizzly_x_seconds_count{k=\"v\"} 4\n");
	buf_fini(&out);
}

/* ---- explain.h */

static struct query_request *request_of(const char *body)
{
	const struct query_request_limits limits = {0};
	struct query_error error = {0};
	struct query_request *r;

	CU_ASSERT_EQUAL_FATAL(query_request_parse(&r, body, strlen(body), &limits, &error), QUERY_OK);
	return r;
}

static void expect_shape(const char *body, size_t max, const char *expected)
{
	struct query_request *r = request_of(body);
	struct buf out = {0};

	query_put_shape(&out, r, max);
	expect_text(&out, expected);
	buf_fini(&out);
	query_request_free(r);
}

static void test_a_shape_shows_no_value(void)
{
	expect_shape(
	    "{\"sql\":\"SELECT  a,'it''s me', 1.5e3 FROM t -- 'remark'\\n WHERE \\\"b c\\\"=x'00' OR d IN(1,-2)\"}",
	    500, "SELECT a,?, ? FROM t WHERE \"b c\"=x? OR d IN(?,-?)");
	expect_shape("{\"statements\":[{\"sql\":\"DELETE FROM t\"},{\"sql\":\"INSERT INTO t VALUES(?,:a)\","
		     "\"params\":[1,2]}]}",
		     500, "DELETE FROM t; INSERT INTO t VALUES(?,:a)");
	expect_shape("{\"sql\":\"SELECT aaaaaaaaaaaaaaaaaaaa, bbbbbbbbbbbbbbbbbbbbb\"}", 32,
		     "SELECT aaaaaaaaaaaaaaaaaaaa,…");
	expect_shape("{\"sql\":\"SELECT 'never closed\"}", 500, "SELECT ?");
}

static void expect_plan(struct query_fixture *b, const char *body, const char *expected)
{
	struct query_request *r = request_of(body);
	struct buf out = {0};

	query_put_plan(&out, b->reader, r);
	expect_text(&out, expected);
	buf_fini(&out);
	query_request_free(r);
}

static void test_a_plan_is_sqlites_and_nothing_is_executed(void)
{
	struct query_fixture b;

	fixture_init(&b);
	CU_ASSERT_EQUAL_FATAL(sqlite3_exec(b.writer_db,
					   "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE INDEX i ON t(b)", NULL,
					   NULL, NULL),
			      SQLITE_OK);
	expect_plan(&b, "{\"sql\":\"SELECT a FROM t WHERE b = ?\",\"params\":[1]}",
		    "SEARCH t USING COVERING INDEX i (b=?)");
	expect_plan(&b, "{\"statements\":[{\"sql\":\"SELECT * FROM t\"},{\"sql\":\"DELETE FROM t WHERE a = 1\"}]}",
		    "SCAN t; SEARCH t USING INTEGER PRIMARY KEY (rowid=?)");
	expect_plan(&b, "{\"sql\":\"SELECT * FROM t; SELECT b FROM t ORDER BY b\"}",
		    "SCAN t; SCAN t USING COVERING INDEX i");
	expect_plan(&b, "{\"sql\":\"SELECT * FROM nothing\"}", "no plan: SQL logic error");
	expect_plan(&b, "{\"sql\":\"INSERT INTO t(b) VALUES(1)\"}", "");
	CU_ASSERT_EQUAL(sqlite3_total_changes(b.reader_db), 0);
	CU_ASSERT(sqlite3_next_stmt(b.reader_db, NULL) == NULL ||
		  !sqlite3_stmt_busy(sqlite3_next_stmt(b.reader_db, NULL)));
	fixture_fini(&b);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"a value falls into the first bucket that holds it",
	     test_a_value_falls_into_the_first_bucket_that_holds_it},
	    {"nothing counted by several threads is lost", test_nothing_counted_by_several_threads_is_lost},
	    {"the text is Prometheus'", test_the_text_is_prometheus},
	    {"a shape shows no value", test_a_shape_shows_no_value},
	    {"a plan is SQLite's and nothing is executed", test_a_plan_is_sqlites_and_nothing_is_executed},
	    {NULL, NULL},
	};

	return unit_run("timings", tests);
}

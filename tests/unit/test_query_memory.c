/*
 * test_query_memory.c - memory that runs out: the nth allocation of SQLite or of the JSON parser fails, for every n.
 *
 * Whatever fails, the client is told, nothing is half done, and the connection works again afterwards.
 */
#include "tests/unit/query_fixture.h"

#define ATTEMPTS_MAX 3000

/* Allocations until one fails; negative: never. Statics, for neither library hands its hooks a context. */
static long allocations_left = -1;
static sqlite3_mem_methods sqlite_malloc;

static bool fails_now(void)
{
	if (allocations_left < 0)
		return false;
	return allocations_left-- == 0;
}

static void *failing_sqlite_malloc(int n)
{
	return fails_now() ? NULL : sqlite_malloc.xMalloc(n);
}

static void *failing_sqlite_realloc(void *p, int n)
{
	return fails_now() ? NULL : sqlite_malloc.xRealloc(p, n);
}

static void *failing_json_malloc(size_t n)
{
	return fails_now() ? NULL : malloc(n);
}

static void test_a_request_that_cannot_be_kept_is_an_error(void)
{
	static const char body[] =
	    "{\"statements\":[{\"sql\":\"SELECT ?\",\"params\":[1,\"x\",2.5,{\"$blob\":\"AAEC\"}]}],"
	    "\"token\":\"t\"}";
	const struct query_request_limits limits = {0};
	struct query_request *r;
	struct query_error error;
	enum query_code code = QUERY_INTERNAL;
	long n;

	json_set_alloc_funcs(failing_json_malloc, free);
	for (n = 0; n < ATTEMPTS_MAX && code != QUERY_OK; n++) {
		allocations_left = n;
		code = query_request_parse(&r, body, strlen(body), &limits, &error);
		/* jansson 2.14 reports some failed allocations without their cause. */
		CU_ASSERT(code == QUERY_OK || code == QUERY_INTERNAL || code == QUERY_BAD_REQUEST);
		CU_ASSERT_EQUAL(r != NULL, code == QUERY_OK);
		query_request_free(r);
	}
	allocations_left = -1;
	json_set_alloc_funcs(malloc, free);
	CU_ASSERT(n > 5 && code == QUERY_OK);
}

static void test_a_read_that_runs_out_of_memory_answers_an_error(void)
{
	static const char body[] =
	    "{\"format\":\"objects\",\"sql\":\"SELECT *, a||'y' AS a FROM t ORDER BY a; SELECT 1\"}";
	enum query_outcome outcome = QUERY_FAILED;
	struct query_request *r;
	struct query_fixture b;
	long n;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a TEXT, b REAL); INSERT INTO t VALUES('x', 1.5),('z', 2.5)");
	r = fixture_parse(body);
	for (n = 0; n < ATTEMPTS_MAX && outcome != QUERY_ANSWERED; n++) {
		const struct query_read_limits limits = {0};

		buf_clear(&b.out);
		allocations_left = n;
		outcome = query_read(b.reader, r, &limits, NULL, 0, &b.out, &b.error);
		allocations_left = -1;
		CU_ASSERT(outcome == QUERY_ANSWERED || (outcome == QUERY_FAILED && b.error.code == QUERY_INTERNAL));
		CU_ASSERT(outcome == QUERY_ANSWERED || b.out.len == 0);
		CU_ASSERT_EQUAL(sqlite3_txn_state(b.reader_db, NULL), SQLITE_TXN_NONE);
		CU_ASSERT_EQUAL(fixture_read(&b, "{\"sql\":\"SELECT count(*) FROM t\"}"), QUERY_ANSWERED);
	}
	CU_ASSERT(outcome == QUERY_ANSWERED);
	query_request_free(r);
	fixture_fini(&b);
}

/* One try in a batch with a request before it; returns whether the write went well. */
static bool write_with_failure(struct query_fixture *b, const struct query_request *first,
			       const struct query_request *r, long nth)
{
	struct errmsg em = {0};
	enum query_code code;

	UNIT_OK(query_batch_begin(b->writer, &em), &em);
	buf_clear(&b->out);
	CU_ASSERT_EQUAL(query_write(b->writer, first, 0, &b->out, &b->error, &b->batch_lost), QUERY_OK);
	buf_clear(&b->out);
	allocations_left = nth;
	code = query_write(b->writer, r, 0, &b->out, &b->error, &b->batch_lost);
	allocations_left = -1;
	CU_ASSERT(code == QUERY_OK || code == QUERY_INTERNAL);
	CU_ASSERT(code == QUERY_OK || b->out.len == 0);
	if (b->batch_lost)
		query_batch_rollback(b->writer);
	else
		UNIT_OK(query_batch_commit(b->writer, &em), &em);
	return code == QUERY_OK;
}

/* Rows 1 (of the first request) and 2, 3 (of the second, both or neither). */
static void assert_whole_requests(struct query_fixture *b, bool wrote)
{
	const char *expected = b->batch_lost ? "\"rows\":[[0,0]]" : wrote ? "\"rows\":[[1,2]]" : "\"rows\":[[1,0]]";

	CU_ASSERT_EQUAL(fixture_read(b, "{\"sql\":\"SELECT count(a=1 OR NULL), count(a>1 OR NULL) FROM t\"}"),
			QUERY_ANSWERED);
	CU_ASSERT_PTR_NOT_NULL(memmem(b->out.data, b->out.len, expected, strlen(expected)));
}

static void test_a_write_that_runs_out_of_memory_leaves_whole_requests(void)
{
	struct query_request *first = fixture_parse("{\"sql\":\"INSERT INTO t VALUES(1)\"}");
	struct query_request *r =
	    fixture_parse("{\"sql\":\"INSERT INTO t VALUES(2) RETURNING a||'x'; CREATE TABLE u(a); "
			  "INSERT INTO t SELECT max(a)+1 FROM t\"}");
	struct query_fixture b;
	bool wrote = false;
	long n;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	for (n = 0; n < ATTEMPTS_MAX && !wrote; n++) {
		bool lost;

		wrote = write_with_failure(&b, first, r, n);
		lost = b.batch_lost;
		assert_whole_requests(&b, wrote);
		b.batch_lost = lost;
		fixture_write_ok(&b, "DELETE FROM t");
	}
	CU_ASSERT(wrote);
	query_request_free(first);
	query_request_free(r);
	fixture_fini(&b);
}

/* Rows of t and receipts, of the second request: both or neither. */
static void assert_receipt_with_write(struct query_fixture *b, bool wrote, bool with_table)
{
	const char *expected = wrote && !b->batch_lost ? "\"rows\":[[1,1]]" : "\"rows\":[[0,0]]";

	if (!with_table) { /* of receipts: gone with the failed request */
		CU_ASSERT_EQUAL(fixture_read(b, "{\"sql\":\"SELECT count(*) FROM _grizzly_receipts\"}"), QUERY_FAILED);
		return;
	}
	CU_ASSERT_EQUAL(fixture_read(b, "{\"sql\":\"SELECT (SELECT count(*) FROM t WHERE a=2), (SELECT count(*) FROM "
					"_grizzly_receipts WHERE request_id='x')\"}"),
			QUERY_ANSWERED);
	CU_ASSERT_PTR_NOT_NULL(memmem(b->out.data, b->out.len, expected, strlen(expected)));
}

/* Fails every allocation in turn until the write is done: with_table, where there are receipts already. */
static void fail_until_done(struct query_fixture *b, const struct query_request *first, const struct query_request *r,
			    bool with_table)
{
	bool wrote = false;
	long n;

	for (n = 0; n < ATTEMPTS_MAX && !wrote; n++) {
		bool lost;

		wrote = write_with_failure(b, first, r, n);
		lost = b->batch_lost;
		assert_receipt_with_write(b, wrote, with_table || wrote);
		b->batch_lost = lost;
		fixture_write_ok(b, "DELETE FROM t WHERE a=1");
	}
	CU_ASSERT(wrote);
	CU_ASSERT_EQUAL(query_repeated_lsn(b->writer), 0);
}

static void test_a_receipt_that_runs_out_of_memory_undoes_its_write(void)
{
	struct query_request *first = fixture_parse("{\"sql\":\"INSERT INTO t VALUES(1)\"}");
	struct query_request *r = fixture_parse("{\"sql\":\"INSERT INTO t VALUES(2)\",\"request_id\":\"x\"}");
	struct query_fixture b;
	bool repeated = false;
	long n;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	fail_until_done(&b, first, r, false);
	for (n = 0; n < ATTEMPTS_MAX && !repeated; n++) { /* and the repeat, which must not write either way */
		repeated = write_with_failure(&b, first, r, n);
		fixture_write_ok(&b, "DELETE FROM t WHERE a=1");
		b.batch_lost = false;
		assert_receipt_with_write(&b, true, true);
	}
	CU_ASSERT(repeated);
	query_request_free(first);
	query_request_free(r);
	fixture_fini(&b);
}

static void test_a_receipt_among_others_that_runs_out_of_memory_undoes_its_write(void)
{
	struct query_request *first = fixture_parse("{\"sql\":\"INSERT INTO t VALUES(1)\",\"request_id\":\"first\"}");
	struct query_request *other = fixture_parse("{\"sql\":\"INSERT INTO t VALUES(1)\"}");
	struct query_request *r = fixture_parse("{\"sql\":\"INSERT INTO t VALUES(2)\",\"request_id\":\"x\"}");
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	CU_ASSERT(write_with_failure(&b, other, first, -1));
	fail_until_done(&b, other, r, true);
	query_request_free(first);
	query_request_free(other);
	query_request_free(r);
	fixture_fini(&b);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"a request that cannot be kept is an error", test_a_request_that_cannot_be_kept_is_an_error},
	    {"a read that runs out of memory answers an error", test_a_read_that_runs_out_of_memory_answers_an_error},
	    {"a write that runs out of memory leaves whole requests",
	     test_a_write_that_runs_out_of_memory_leaves_whole_requests},
	    {"a receipt that runs out of memory undoes its write",
	     test_a_receipt_that_runs_out_of_memory_undoes_its_write},
	    {"a receipt among others that runs out of memory undoes its write",
	     test_a_receipt_among_others_that_runs_out_of_memory_undoes_its_write},
	    {NULL, NULL},
	};
	sqlite3_mem_methods failing;

	if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &sqlite_malloc) != SQLITE_OK)
		return 1;
	failing = sqlite_malloc;
	failing.xMalloc = failing_sqlite_malloc;
	failing.xRealloc = failing_sqlite_realloc;
	if (sqlite3_config(SQLITE_CONFIG_MALLOC, &failing) != SQLITE_OK)
		return 1;
	return unit_run("query memory", tests);
}

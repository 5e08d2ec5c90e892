/*
 * test_receipts.c - request_ids: which are allowed, what makes two requests the same, and the table of receipts.
 */
#include <string.h>

#include "tests/unit/query_fixture.h"

/* A writer whose receipts have bounds, in place of the fixture's. */
static void use_bounds(struct query_fixture *b, uint64_t count_max, uint64_t age_max_ms, uint64_t bytes_max)
{
	const struct query_conn_options options = {
	    .node_id = "node1", .result_bytes_max = 4 << 20, .receipts = {count_max, age_max_ms, bytes_max}};
	const char *path = sqlite3_db_filename(b->writer_db, "main");
	char copy[UNIT_PATH_MAX];
	struct errmsg em = {0};

	snprintf(copy, sizeof(copy), "%s", path);
	query_conn_free(b->writer);
	CU_ASSERT_EQUAL_FATAL(sqlite3_open(copy, &b->writer_db), SQLITE_OK);
	UNIT_OK(query_conn_create(&b->writer, b->writer_db, &options, &em), &em);
}

static enum query_code write_id(struct query_fixture *b, const char *sql, const char *id)
{
	struct buf body = {0};
	enum query_code code;

	buf_puts(&body, "{\"sql\":");
	json_put_string(&body, sql, strlen(sql));
	buf_printf(&body, ",\"request_id\":\"%s\"}", id);
	buf_put_u8(&body, 0);
	code = fixture_write(b, (const char *)body.data);
	buf_fini(&body);
	return code;
}

static void write_id_ok(struct query_fixture *b, const char *sql, const char *id, bool repeated)
{
	CU_ASSERT_EQUAL(write_id(b, sql, id), QUERY_OK);
	if (b->error.code != QUERY_OK)
		fprintf(stderr, "%s: %s\n", sql, b->error.message);
	buf_put_u8(&b->out, 0);
	CU_ASSERT_EQUAL(b->out.data != NULL && strstr((char *)b->out.data, ",\"repeated\":true,\"lsn\":") != NULL,
			repeated);
}

static int64_t number(struct query_fixture *b, const char *sql)
{
	sqlite3_stmt *stmt;
	int64_t v = -1;

	CU_ASSERT_EQUAL_FATAL(sqlite3_prepare_v2(b->reader_db, sql, -1, &stmt, NULL), SQLITE_OK);
	if (sqlite3_step(stmt) == SQLITE_ROW)
		v = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	return v;
}

static void test_ids_are_short_utf8_without_control_characters(void)
{
	static const struct {
		const char *id;
		size_t len;
		bool ok;
	} cases[] = {
	    {"", 0, false},
	    {"a", 1, true},
	    {" ", 1, true},
	    {"\x7e", 1, true},
	    {"\x7f", 1, false},
	    {"\x1f", 1, false},
	    {"a\0b", 3, false},
	    {"\xc2\x80", 2, false}, /* U+0080 */
	    {"\xc2\x9f", 2, false},
	    {"\xc2\xa0", 2, true},
	    {"\xc3\xa9", 2, true},
	    {"\xc3", 1, false},
	    {"\xc0\xaf", 2, false},         /* overlong */
	    {"\xe0\x80\xaf", 3, false},     /* overlong */
	    {"\xed\xa0\x80", 3, false},     /* a surrogate */
	    {"\xf4\x8f\xbf\xbf", 4, true},  /* U+10FFFF */
	    {"\xf4\x90\x80\x80", 4, false}, /* beyond */
	    {"\xf8\x88\x80\x80\x80", 5, false},
	    {"\x80", 1, false},
	    {"0123456789012345678901234567890123456789012345678901234567890123", 64, true},
	    {"01234567890123456789012345678901234567890123456789012345678901234", 65, false},
	};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (query_request_id_ok(cases[i].id, cases[i].len) != cases[i].ok)
			fprintf(stderr, "case %zu\n", i);
		CU_ASSERT_EQUAL(query_request_id_ok(cases[i].id, cases[i].len), cases[i].ok);
	}
}

static void fingerprint(const char *body, uint8_t out[QUERY_FINGERPRINT_SIZE])
{
	struct query_request *r = fixture_parse(body);

	query_request_fingerprint(r, out);
	query_request_free(r);
}

static void test_a_fingerprint_tells_requests_apart(void)
{
	static const char *const bodies[] = {
	    "{\"sql\":\"a\"}",
	    "{\"sql\":\"a \"}",
	    "{\"sql\":\"a\",\"format\":\"objects\"}",
	    "{\"statements\":[{\"sql\":\"a\"}]}",
	    "{\"statements\":[{\"sql\":\"a\"},{\"sql\":\"b\"}]}",
	    "{\"statements\":[{\"sql\":\"b\"},{\"sql\":\"a\"}]}",
	    "{\"statements\":[{\"sql\":\"ab\"}]}",
	    "{\"sql\":\"a\",\"params\":[null]}",
	    "{\"sql\":\"a\",\"params\":[0]}",
	    "{\"sql\":\"a\",\"params\":[0.0]}",
	    "{\"sql\":\"a\",\"params\":[-0.0]}",
	    "{\"sql\":\"a\",\"params\":[\"0\"]}",
	    "{\"sql\":\"a\",\"params\":[{\"$blob\":\"MA==\"}]}",
	    "{\"sql\":\"a\",\"params\":[\"\"]}",
	    "{\"sql\":\"a\",\"params\":[\"0\",\"1\"]}",
	    "{\"sql\":\"a\",\"params\":[\"1\",\"0\"]}",
	    "{\"sql\":\"a\",\"params\":[\"01\",\"\"]}",
	    "{\"sql\":\"a\",\"params\":[\"0\",\"\",\"1\"]}",
	    "{\"sql\":\"a\",\"params\":{\"x\":1,\"y\":2}}",
	    "{\"sql\":\"a\",\"params\":{\"x\":2,\"y\":1}}",
	    "{\"sql\":\"a\",\"params\":{\"x\":1,\":y\":2}}",
	    "{\"statements\":[{\"sql\":\"a\",\"params\":[1]},{\"sql\":\"a\"}]}",
	    "{\"statements\":[{\"sql\":\"a\"},{\"sql\":\"a\",\"params\":[1]}]}",
	};
	const size_t count = sizeof(bodies) / sizeof(bodies[0]);
	uint8_t prints[sizeof(bodies) / sizeof(bodies[0])][QUERY_FINGERPRINT_SIZE];
	size_t i, j;

	for (i = 0; i < count; i++) {
		fingerprint(bodies[i], prints[i]);
		for (j = 0; j < i; j++) {
			if (memcmp(prints[i], prints[j], QUERY_FINGERPRINT_SIZE) == 0)
				fprintf(stderr, "%s\n%s\n", bodies[i], bodies[j]);
			CU_ASSERT(memcmp(prints[i], prints[j], QUERY_FINGERPRINT_SIZE) != 0);
		}
	}
}

static void test_a_fingerprint_looks_at_nothing_else_and_never_changes(void)
{
	/* These bytes lie in databases: a change means QUERY_FINGERPRINT_VERSION and a way to tell the old ones. */
	static const uint8_t golden[QUERY_FINGERPRINT_SIZE] = {0xf3, 0x68, 0x35, 0x25, 0x14, 0x1a, 0x8b, 0x5a,
							       0x4e, 0x41, 0xc7, 0x27, 0xec, 0xba, 0xec, 0x80};
	uint8_t a[QUERY_FINGERPRINT_SIZE], b[QUERY_FINGERPRINT_SIZE];

	fingerprint("{\"sql\":\"INSERT INTO t VALUES (:x, :y)\",\"params\":{\"x\":1,\"y\":\"two\"}}", a);
	fingerprint("{\"params\":{\"y\":\"two\",\"x\":1},\"timeout_ms\":5,\"request_id\":\"r\",\"token\":\"t\","
		    "\"consistency\":\"session\",\"min_lsn\":3,\"sql\":\"INSERT INTO t VALUES (:x, :y)\"}",
		    b);
	CU_ASSERT(memcmp(a, b, sizeof(a)) == 0);
	CU_ASSERT(memcmp(a, golden, sizeof(a)) == 0);
}

static void test_a_receipt_is_there_exactly_when_the_write_is(void)
{
	struct query_fixture b;
	struct errmsg em = {0};

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(a UNIQUE)");
	/* The whole batch goes, with the table of receipts that was made in it. */
	UNIT_OK(query_batch_begin(b.writer, &em), &em);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO t VALUES(1)\",\"request_id\":\"x\"}", 0),
			QUERY_OK);
	CU_ASSERT_EQUAL(query_repeated_lsn(b.writer), 0);
	query_batch_rollback(b.writer);
	CU_ASSERT_EQUAL(number(&b, "SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_grizzly%' ESCAPE '\\'"), 0);
	write_id_ok(&b, "INSERT INTO t VALUES(1)", "x", false);
	write_id_ok(&b, "INSERT INTO t VALUES(1)", "x", true);
	/* One request of the batch goes. */
	UNIT_OK(query_batch_begin(b.writer, &em), &em);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO t VALUES(2)\",\"request_id\":\"y\"}", 0),
			QUERY_OK);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO t VALUES(2)\",\"request_id\":\"z\"}", 0),
			QUERY_CONSTRAINT);
	UNIT_OK(query_batch_commit(b.writer, &em), &em);
	CU_ASSERT_EQUAL(number(&b, "SELECT group_concat(request_id, '') = 'xy' FROM _grizzly_receipts"), 1);
	CU_ASSERT_EQUAL(number(&b, "SELECT count(*) FROM t"), 2);
	/* A request that turns out to read leaves none. */
	write_id_ok(&b, "SELECT count(*) FROM t", "r", false);
	CU_ASSERT_EQUAL(number(&b, "SELECT count(*) FROM _grizzly_receipts"), 2);
	fixture_fini(&b);
}

static void test_deferred_keys_that_fail_leave_no_receipt(void)
{
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b,
			 "CREATE TABLE p(a PRIMARY KEY); CREATE TABLE k(a REFERENCES p DEFERRABLE INITIALLY DEFERRED)");
	CU_ASSERT_EQUAL(write_id(&b, "INSERT INTO k VALUES(1)", "x"), QUERY_CONSTRAINT);
	write_id_ok(&b, "INSERT INTO k VALUES(1); INSERT INTO p VALUES(1)", "x", false);
	fixture_fini(&b);
}

static void test_a_find_sees_what_its_snapshot_has(void)
{
	struct query_fixture b;
	struct errmsg em = {0};
	bool found = true;
	uint64_t lsn;

	fixture_init(&b);
	CU_ASSERT_EQUAL(query_find_write(b.reader, "x", &found, &lsn, &b.error), QUERY_OK);
	CU_ASSERT_FALSE(found); /* no table at all */
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	UNIT_OK(query_batch_begin(b.writer, &em), &em);
	CU_ASSERT_EQUAL(fixture_write_in(&b, "{\"sql\":\"INSERT INTO t VALUES(1)\",\"request_id\":\"x\"}", 0),
			QUERY_OK);
	CU_ASSERT_EQUAL(query_find_write(b.reader, "x", &found, &lsn, &b.error), QUERY_OK);
	CU_ASSERT_FALSE(found);
	UNIT_OK(query_batch_commit(b.writer, &em), &em);
	CU_ASSERT_EQUAL(query_find_write(b.reader, "x", &found, &lsn, &b.error), QUERY_OK);
	CU_ASSERT(found);
	CU_ASSERT_EQUAL(query_find_write(b.reader, "X", &found, &lsn, &b.error), QUERY_OK);
	CU_ASSERT_FALSE(found);
	fixture_fini(&b);
}

static void insert_many(struct query_fixture *b, unsigned first, unsigned count, unsigned answer_bytes)
{
	char sql[128], id[32];
	unsigned i;

	snprintf(sql, sizeof(sql), "INSERT INTO t VALUES(1) RETURNING hex(zeroblob(%u))", answer_bytes / 2);
	for (i = first; i < first + count; i++) {
		snprintf(id, sizeof(id), "id%u", i);
		CU_ASSERT_EQUAL_FATAL(write_id(b, sql, id), QUERY_OK);
	}
}

/* What the running sums say of the table must be what is in it. */
static void check_sums(struct query_fixture *b)
{
	CU_ASSERT_EQUAL(number(b, "SELECT max(seq) - min(seq) + 1 - count(*) FROM _grizzly_receipts"), 0);
	CU_ASSERT_EQUAL(number(b, "SELECT (SELECT bytes_end FROM _grizzly_receipts ORDER BY seq DESC LIMIT 1) - "
				  "(SELECT bytes_end - bytes FROM _grizzly_receipts ORDER BY seq LIMIT 1) - sum(bytes) "
				  "FROM _grizzly_receipts"),
			0);
	CU_ASSERT_EQUAL(number(b, "SELECT count(*) FROM _grizzly_receipts WHERE bytes != 64 + length(request_id) + "
				  "length(answer)"),
			0);
}

static void test_the_oldest_go_when_there_are_too_many(void)
{
	struct query_fixture b;

	fixture_init(&b);
	use_bounds(&b, 10, 0, 0);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	insert_many(&b, 0, 9, 2);
	CU_ASSERT_EQUAL(number(&b, "SELECT count(*) FROM _grizzly_receipts"), 9);
	insert_many(&b, 9, 41, 2);
	CU_ASSERT_EQUAL(number(&b, "SELECT count(*) FROM _grizzly_receipts"), 10);
	CU_ASSERT_EQUAL(number(&b, "SELECT count(*) FROM _grizzly_receipts WHERE request_id = 'id40'"), 1);
	check_sums(&b);
	use_bounds(&b, 3, 0, 0); /* a smaller bound is reached little by little */
	insert_many(&b, 50, 1, 2);
	CU_ASSERT_EQUAL(number(&b, "SELECT count(*) FROM _grizzly_receipts"), 4);
	insert_many(&b, 51, 2, 2);
	CU_ASSERT_EQUAL(number(&b, "SELECT count(*) FROM _grizzly_receipts"), 3);
	insert_many(&b, 0, 1, 2); /* forgotten: a new write */
	CU_ASSERT_EQUAL(number(&b, "SELECT count(*) FROM t"), 54);
	check_sums(&b);
	fixture_fini(&b);
}

static void test_the_oldest_go_when_they_are_too_large(void)
{
	struct query_fixture b;
	int64_t bytes;
	unsigned i;

	fixture_init(&b);
	use_bounds(&b, 0, 0, 100000);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	for (i = 0; i < 3; i++) {
		insert_many(&b, i * 1000, 400, 2); /* 400 small ones, then one that is as large as most of them */
		CU_ASSERT(number(&b, "SELECT sum(bytes) FROM _grizzly_receipts") <= 100000);
		insert_many(&b, i * 1000 + 400, 1, 80000);
		bytes = number(&b, "SELECT sum(bytes) FROM _grizzly_receipts");
		CU_ASSERT(bytes <= 100000);
		CU_ASSERT(bytes > 80000);
		check_sums(&b);
	}
	insert_many(&b, 9000, 1, 500000); /* beyond the bound all by itself: it stays until the next comes */
	CU_ASSERT_EQUAL(number(&b, "SELECT count(*) FROM _grizzly_receipts"), 1);
	insert_many(&b, 9000, 1, 500000);
	CU_ASSERT_EQUAL(number(&b, "SELECT count(*) FROM t"), 1204); /* that was a repeat */
	insert_many(&b, 9001, 1, 2);
	CU_ASSERT_EQUAL(number(&b, "SELECT count(*) FROM _grizzly_receipts"), 1);
	check_sums(&b);
	fixture_fini(&b);
}

static void test_the_oldest_go_when_they_are_too_old(void)
{
	uint64_t then_ms;
	struct query_fixture b;

	fixture_init(&b);
	use_bounds(&b, 0, 1, 0);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	insert_many(&b, 0, 1, 2);
	then_ms = clock_wall_us() / 1000;
	while (clock_wall_us() / 1000 < then_ms + 3)
		;
	write_id_ok(&b, "INSERT INTO t VALUES(1) RETURNING hex(zeroblob(1))", "id0", true); /* until a new one comes */
	insert_many(&b, 1, 1, 2);
	CU_ASSERT_EQUAL(number(&b, "SELECT count(*) FROM _grizzly_receipts WHERE request_id = 'id0'"), 0);
	check_sums(&b);
	fixture_fini(&b);
}

static void test_an_answer_too_large_to_keep_undoes_the_write(void)
{
	struct query_fixture b;

	fixture_init(&b);
	use_bounds(&b, 0, 0, 0);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	CU_ASSERT_EQUAL(write_id(&b, "INSERT INTO t VALUES(1) RETURNING hex(zeroblob(600000))", "x"), QUERY_TOO_LARGE);
	CU_ASSERT_EQUAL(number(&b, "SELECT count(*) FROM t"), 0);
	write_id_ok(&b, "INSERT INTO t VALUES(1) RETURNING hex(zeroblob(500000))", "x", false);
	write_id_ok(&b, "INSERT INTO t VALUES(1) RETURNING hex(zeroblob(500000))", "x", true);
	CU_ASSERT_EQUAL(number(&b, "SELECT count(*) FROM t"), 1);
	fixture_fini(&b);
}

static void test_a_foreign_table_of_the_name_is_an_error_of_the_node(void)
{
	struct query_fixture b;

	fixture_init(&b);
	CU_ASSERT_EQUAL(sqlite3_set_authorizer(b.writer_db, NULL, NULL), SQLITE_OK);
	CU_ASSERT_EQUAL(sqlite3_exec(b.writer_db, "CREATE TABLE t(a); CREATE TABLE _grizzly_receipts(x)", 0, 0, 0),
			SQLITE_OK);
	CU_ASSERT_EQUAL(write_id(&b, "INSERT INTO t VALUES(1)", "x"), QUERY_INTERNAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.error.message, "_grizzly_receipts"));
	CU_ASSERT_EQUAL(number(&b, "SELECT count(*) FROM t"), 0);
	fixture_write_ok(&b, "INSERT INTO t VALUES(1)"); /* without an id all is well */
	fixture_fini(&b);
}

struct seen {
	char text[256];
	size_t len;
};

static void each(void *arg, const char *id, size_t len, uint64_t lsn)
{
	struct seen *s = arg;

	s->len += (size_t)snprintf(s->text + s->len, sizeof(s->text) - s->len, "%.*s@%d ", (int)len, id, (int)lsn);
}

static void test_receipts_after_an_lsn_are_listed_newest_first(void)
{
	struct query_fixture b;
	struct seen seen = {.len = 0};
	struct errmsg em = {0};

	fixture_init(&b);
	UNIT_OK(receipts_after(b.reader_db, 0, each, &seen, &em), &em);
	CU_ASSERT_EQUAL(seen.len, 0);
	fixture_write_ok(&b, "CREATE TABLE t(a)");
	insert_many(&b, 0, 4, 2);
	CU_ASSERT_EQUAL(sqlite3_set_authorizer(b.writer_db, NULL, NULL), SQLITE_OK);
	CU_ASSERT_EQUAL(sqlite3_exec(b.writer_db, "UPDATE _grizzly_receipts SET lsn = 10 * seq", 0, 0, 0), SQLITE_OK);
	UNIT_OK(receipts_after(b.reader_db, 20, each, &seen, &em), &em);
	CU_ASSERT_STRING_EQUAL(seen.text, "id3@40 id2@30 ");
	fixture_fini(&b);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"ids are short UTF-8 without control characters", test_ids_are_short_utf8_without_control_characters},
	    {"a fingerprint tells requests apart", test_a_fingerprint_tells_requests_apart},
	    {"a fingerprint looks at nothing else and never changes",
	     test_a_fingerprint_looks_at_nothing_else_and_never_changes},
	    {"a receipt is there exactly when the write is", test_a_receipt_is_there_exactly_when_the_write_is},
	    {"deferred keys that fail leave no receipt", test_deferred_keys_that_fail_leave_no_receipt},
	    {"a find sees what its snapshot has", test_a_find_sees_what_its_snapshot_has},
	    {"the oldest go when there are too many", test_the_oldest_go_when_there_are_too_many},
	    {"the oldest go when they are too large", test_the_oldest_go_when_they_are_too_large},
	    {"the oldest go when they are too old", test_the_oldest_go_when_they_are_too_old},
	    {"an answer too large to keep undoes the write", test_an_answer_too_large_to_keep_undoes_the_write},
	    {"a foreign table of the name is an error of the node",
	     test_a_foreign_table_of_the_name_is_an_error_of_the_node},
	    {"receipts after an LSN are listed newest first", test_receipts_after_an_lsn_are_listed_newest_first},
	    {NULL, NULL},
	};

	return unit_run("receipts", tests);
}

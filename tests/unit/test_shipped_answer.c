/*
 * test_shipped_answer.c - another node's answer on its way to our client: what passes, what is kept, where it may break.
 *
 * Each answer is fed whole and in pieces of every size, which must come to the same.
 */
#include "common/remote/shipped_answer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/query/ship_request.h"
#include "tests/unit/unit.h"

#define ROWS_ANSWER                                                                                                    \
	"{\"status\":\"ok\",\"columns\":[\"a\",\"b\"],\"types\":[\"\",\"text\"],\"rows\":[[1,\"x\\\"]}\"],"            \
	"[-2.5e+10,{\"$blob\":\"AAA=\"}],[null,true]],\"row_count\":3,\"lsn\":77,\"node\":\"n\\\"1\",\"time_ms\":1."   \
	"250}\n"
#define ROWS_MEMBERS                                                                                                   \
	"\"columns\":[\"a\",\"b\"],\"types\":[\"\",\"text\"],\"rows\":[[1,\"x\\\"]}\"],"                               \
	"[-2.5e+10,{\"$blob\":\"AAA=\"}],[null,true]],\"row_count\":3"

/* Feeds text in pieces of step bytes; takes what is ready out after each, as a stream does. */
static enum db_err feed(struct shipped_answer *a, const char *text, size_t len, size_t step, struct buf *sent)
{
	struct errmsg em = {0};
	enum db_err err = DB_OK;
	const void *ready;
	size_t at, piece;

	for (at = 0; at < len && err == DB_OK; at += piece) {
		piece = step < len - at ? step : len - at;
		err = shipped_answer_feed(a, text + at, piece, &em);
		if (err != DB_OK)
			break;
		ready = shipped_answer_ready(a, &piece);
		buf_put(sent, ready, piece);
		shipped_answer_sent(a, piece);
		piece = step < len - at ? step : len - at;
	}
	CU_ASSERT_EQUAL(em.err, err);
	return err;
}

static void take_rest(struct shipped_answer *a, struct buf *sent)
{
	const void *ready;
	size_t len;

	ready = shipped_answer_ready(a, &len);
	buf_put(sent, ready, len);
	buf_put_u8(sent, '\0');
}

static void assert_passes(const char *text, bool ndjson, const char *members, uint64_t rows, bool is_error)
{
	size_t step, len = strlen(text);
	struct errmsg em = {0};

	for (step = 1; step <= len; step++) {
		struct shipped_answer *a;
		struct buf sent = {0};

		UNIT_OK(shipped_answer_create(&a, ndjson, false), &em);
		CU_ASSERT_EQUAL(feed(a, text, len, step, &sent), DB_OK);
		UNIT_OK(shipped_answer_end(a, &em), &em);
		CU_ASSERT_EQUAL(shipped_answer_is_error(a), is_error && !ndjson);
		take_rest(a, &sent);
		CU_ASSERT_STRING_EQUAL((char *)sent.data, members);
		CU_ASSERT_EQUAL(shipped_answer_rows(a), rows);
		buf_fini(&sent);
		shipped_answer_free(a);
	}
}

static void assert_refused(const char *text, bool ndjson)
{
	size_t step, len = strlen(text);

	for (step = 1; step <= len; step++) {
		struct shipped_answer *a;
		struct buf sent = {0};
		struct errmsg em = {0};
		enum db_err err;

		UNIT_OK(shipped_answer_create(&a, ndjson, false), &em);
		err = feed(a, text, len, step, &sent);
		if (err == DB_OK)
			err = shipped_answer_end(a, &em);
		CU_ASSERT_EQUAL(err, DB_CORRUPT);
		if (err != DB_CORRUPT)
			fprintf(stderr, "taken: %s\n", text);
		buf_fini(&sent);
		shipped_answer_free(a);
	}
}

static void test_answers_pass(void)
{
	assert_passes(ROWS_ANSWER, false, ROWS_MEMBERS, 3, false);
	assert_passes("{\"columns\":[],\"rows\":[],\"row_count\":0,\"remote\":[{\"node\":\"x\"}],\"status\":\"ok\"}",
		      false, "\"columns\":[],\"rows\":[],\"row_count\":0", 0, false);
	assert_passes(" { \"status\" : \"ok\" , \"rows_affected\" : 3 , \"last_insert_id\" : -1 } ", false,
		      "\"rows_affected\":3,\"last_insert_id\":-1", 0, false);
	assert_passes("{\"results\":[{\"columns\":[\"a\"],\"rows\":[[1],[2]],\"row_count\":2},{\"rows_affected\":1},"
		      "{\"columns\":[1],\"rows\":[{\"rows\":1}],\"row_count\":1}],\"status\":\"ok\"}",
		      false,
		      "\"results\":[{\"columns\":[\"a\"],\"rows\":[[1],[2]],\"row_count\":2},{\"rows_affected\":1},"
		      "{\"columns\":[1],\"rows\":[{\"rows\":1}],\"row_count\":1}]",
		      3, false);
	assert_passes("{\"status\":\"error\",\"code\":\"SQL_ERROR\",\"message\":\"m\"}", false, "", 0, true);
	assert_passes("{\"a\":1}\n{\"a\":\"}\\n{\"}\n", true, "{\"a\":1}\n{\"a\":\"}\\n{\"}\n", 2, false);
	assert_passes("{\"a key, for it is a column's name, of any length: 890123456789012345678901234567890\":1}\n", true,
		      "{\"a key, for it is a column's name, of any length: 890123456789012345678901234567890\":1}\n", 1,
		      false);
	assert_passes("{\"status\":\"ok\",\"repeated\":true,\"rows_affected\":0}", false,
		      "\"repeated\":true,\"rows_affected\":0", 0, false);
}

static void test_what_is_no_answer_is_refused(void)
{
	static const char *const texts[] = {
	    "x",
	    "[]",
	    "{",
	    "{}",
	    "{\"status\":\"fine\"}",
	    "{\"status\":\"ok\"",
	    "{\"status\":\"ok\"}}",
	    "{\"status\":\"ok\",}",
	    "{\"status\" \"ok\"}",
	    "{\"status\":\"ok\",\"status\":\"ok\"}",
	    "{\"status\":\"ok\",\"rows\":[1}}",
	    "{\"status\":\"ok\",\"rows\":[1],,\"a\":1}",
	    "{\"status\":\"ok\",\"rows\":[,1]}",
	    "{\"status\":\"ok\",\"rows\":[1,]}",
	    "{\"status\":\"ok\",\"rows\":[1 2]}",
	    "{\"status\":\"ok\",\"rows\":[nul]}",
	    "{\"status\":\"ok\",\"rows\":[01]}",
	    "{\"status\":\"ok\",\"rows\":[1.]}",
	    "{\"status\":\"ok\",\"rows\":[1e]}",
	    "{\"status\":\"ok\",\"rows\":[-]}",
	    "{\"status\":\"ok\",\"rows\":[+1]}",
	    "{\"status\":\"ok\",\"rows\":[123456789012345678901234567890123]}",
	    "{\"status\":\"ok\",\"rows\":[\"a\nb\"]}",
	    "{\"status\":\"ok\",\"rows\":[\"a]}",
	    "{\"status\":\"ok\",a:1}",
	    "{\"status\":\"ok\",\"rows\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}",
	    "{\"status\":\"ok\",\"0123456789012345678901234567890123456789012345678901234567890123456789\":1}",
	};
	static const char *const lines[] = {
	    "x\n",          "{\"a\":1}", "{\"a\":1}\n[1]\n", "{\"a\":1}\n\n{\"a\":2}\n", "{\n",
	    "{\"a\":1]}\n", "{]}\n",     "{\"a\":\"\\x\"}\n"};
	size_t i;

	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_refused(texts[i], false);
	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		assert_refused(lines[i], true);
}

static void assert_faulty(const char *members, bool reads)
{
	struct shipped_answer *a;
	struct errmsg em = {0};
	struct buf text = {0}, sent = {0};
	enum db_err err;

	buf_printf(&text, "{%s%s\"status\":\"ok\"}", members, members[0] != '\0' ? "," : "");
	UNIT_OK(shipped_answer_create(&a, false, reads), &em);
	err = feed(a, (char *)text.data, text.len, 9, &sent);
	if (err == DB_OK)
		err = shipped_answer_end(a, &em);
	CU_ASSERT_EQUAL(err, DB_CORRUPT);
	if (err != DB_CORRUPT)
		fprintf(stderr, "taken: %s\n", members);
	shipped_answer_free(a);
	buf_fini(&text);
	buf_fini(&sent);
}

/* It is JSON and says ok, and yet rows may be missing. */
static void test_what_is_incomplete_is_refused(void)
{
	static const char *const members[] = {
	    "",
	    "\"lsn\":1",
	    "\"columns\":[\"a\"]",
	    "\"rows\":[],\"row_count\":0",
	    "\"columns\":[\"a\"],\"rows\":[[1]]",
	    "\"columns\":[\"a\"],\"rows\":[[1]],\"row_count\":2",
	    "\"columns\":[\"a\"],\"rows\":[[1]],\"row_count\":0",
	    "\"columns\":[\"a\"],\"rows\":[[1]],\"row_count\":null",
	    "\"columns\":[\"a\"],\"rows\":[[1,2]],\"row_count\":1",
	    "\"columns\":[\"a\",\"b\"],\"rows\":[[1,2],{\"a\":1}],\"row_count\":2",
	    "\"columns\":[\"a\"],\"rows\":[1],\"row_count\":1",
	    "\"columns\":[\"a\"],\"rows\":{},\"row_count\":0",
	    "\"columns\":\"a\",\"rows\":[],\"row_count\":0",
	    "\"columns\":[\"a\"],\"columns\":[],\"rows\":[[]],\"row_count\":1",
	    "\"columns\":[\"a\"],\"rows\":[[1]],\"rows\":[],\"row_count\":1",
	    "\"results\":[{}]",
	    "\"results\":[1]",
	    "\"results\":[{\"columns\":[\"a\"],\"rows\":[[1]],\"row_count\":1},{\"columns\":[],\"rows\":[]}]",
	    "\"results\":[],\"results\":[]",
	    "\"results\":[],\"columns\":[],\"rows\":[],\"row_count\":0",
	    "\"columns\":[\"a\"],\"rows\":[[\"\\x\"]],\"row_count\":1",
	    "\"columns\":[\"a\"],\"rows\":[[\"\\u12g4\"]],\"row_count\":1",
	    "\"columns\":[\"a\"],\"rows\":[[\"\\u12\"]],\"row_count\":1",
	    "\"columns\":[\"a\"],\"rows\":[[\"\xFF\"]],\"row_count\":1",
	    "\"columns\":[\"a\"],\"rows\":[[\"\xC0\x80\"]],\"row_count\":1",
	    "\"columns\":[\"a\"],\"rows\":[[\"\xED\xA0\x80\"]],\"row_count\":1",
	    "\"columns\":[\"a\"],\"rows\":[[\"\xF4\x90\x80\x80\"]],\"row_count\":1",
	    "\"columns\":[\"a\"],\"rows\":[[\"\xE2\x82\"]],\"row_count\":1",
	};
	size_t i;

	for (i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		assert_faulty(members[i], false);
	assert_faulty("\"rows_affected\":1,\"last_insert_id\":1", true);
	assert_faulty("\"results\":[{\"rows_affected\":1}]", true);
}

/* Wherever an answer is cut, what was sent and the end that is put to it are JSON with the first rows, whole. */
static void check_cut(const char *text, size_t cut, const char *rows_path)
{
	struct shipped_answer *a;
	struct buf sent = {0};
	struct errmsg em = {0};
	json_error_t why;
	json_t *json, *rows;

	buf_puts(&sent, "{");
	UNIT_OK(shipped_answer_create(&a, false, false), &em);
	CU_ASSERT_EQUAL(feed(a, text, cut, 7, &sent), DB_OK);
	shipped_answer_break_off(a);
	{
		const void *ready;
		size_t len;

		ready = shipped_answer_ready(a, &len);
		buf_put(&sent, ready, len);
	}
	buf_puts(&sent, shipped_answer_has_members(a) ? "," : "");
	buf_puts(&sent, "\"status\":\"error\"}");
	json = json_loadb((char *)sent.data, sent.len, JSON_REJECT_DUPLICATES, &why);
	if (json == NULL)
		fprintf(stderr, "cut at %zu: %s: %.*s\n", cut, why.text, (int)sent.len, (char *)sent.data);
	CU_ASSERT_PTR_NOT_NULL_FATAL(json);
	rows = json_object_get(json, rows_path);
	CU_ASSERT_TRUE(rows == NULL || json_is_array(rows));
	CU_ASSERT_TRUE(json_array_size(rows) <= 3);
	json_decref(json);
	buf_fini(&sent);
	shipped_answer_free(a);
}

static void test_an_answer_may_break_off_anywhere(void)
{
	static const char several[] = "{\"results\":[{\"columns\":[\"a\"],\"rows\":[[1],[2]],\"row_count\":2},"
				      "{\"rows_affected\":1},{\"columns\":[1],\"rows\":[{\"a\":{\"$blob\":\"\"}}],"
				      "\"row_count\":1}],\"status\":\"ok\"}";
	size_t cut;

	for (cut = 0; cut < strlen(ROWS_ANSWER); cut++)
		check_cut(ROWS_ANSWER, cut, "rows");
	for (cut = 0; cut < strlen(several); cut++)
		check_cut(several, cut, "results");
}

static void test_lines_break_off_at_a_line(void)
{
	static const char text[] = "{\"a\":1}\n{\"status\":\"error\",\"code\":\"TIMEOUT\",\"message\":\"late\"}\n";
	struct query_error error;
	struct shipped_answer *a;
	struct buf sent = {0};
	struct errmsg em = {0};

	UNIT_OK(shipped_answer_create(&a, true, false), &em);
	CU_ASSERT_EQUAL(feed(a, text, strlen(text), 5, &sent), DB_OK);
	CU_ASSERT_TRUE(shipped_answer_is_error(a));
	shipped_answer_error(a, &error);
	CU_ASSERT_EQUAL(error.code, QUERY_TIMEOUT);
	CU_ASSERT_STRING_EQUAL(error.message, "late");
	shipped_answer_break_off(a);
	take_rest(a, &sent);
	CU_ASSERT_STRING_EQUAL((char *)sent.data, "{\"a\":1}\n");
	buf_clear(&sent);
	shipped_answer_free(a);
	UNIT_OK(shipped_answer_create(&a, true, false), &em);
	CU_ASSERT_EQUAL(feed(a, "{\"a\":1}\n{\"a\":2}\n{\"a\"", 20, 3, &sent), DB_OK);
	CU_ASSERT_FALSE(shipped_answer_is_error(a));
	shipped_answer_break_off(a);
	take_rest(a, &sent);
	CU_ASSERT_STRING_EQUAL((char *)sent.data, "{\"a\":1}\n{\"a\":2}\n");
	buf_fini(&sent);
	shipped_answer_free(a);
}

static void test_what_it_says_of_itself_is_kept(void)
{
	static const char text[] = "{\"status\":\"error\",\"code\":\"CONSTRAINT\",\"message\":\"a \\\"b\\\" \\u00e4\","
				   "\"statement\":3}";
	struct query_error error;
	struct shipped_answer *a;
	struct buf sent = {0};
	struct errmsg em = {0};
	uint64_t lsn = 0;

	UNIT_OK(shipped_answer_create(&a, false, false), &em);
	CU_ASSERT_EQUAL(feed(a, text, strlen(text), 11, &sent), DB_OK);
	CU_ASSERT_FALSE(shipped_answer_lsn(a, &lsn));
	shipped_answer_error(a, &error);
	CU_ASSERT_EQUAL(error.code, QUERY_CONSTRAINT);
	CU_ASSERT_STRING_EQUAL(error.message, "a \"b\" \xC3\xA4");
	CU_ASSERT_EQUAL(error.statement, 3);
	shipped_answer_free(a);
	UNIT_OK(shipped_answer_create(&a, false, false), &em);
	CU_ASSERT_EQUAL(feed(a, ROWS_ANSWER, strlen(ROWS_ANSWER), 11, &sent), DB_OK);
	CU_ASSERT_TRUE(shipped_answer_lsn(a, &lsn));
	CU_ASSERT_EQUAL(lsn, 77);
	shipped_answer_free(a);
	buf_fini(&sent);
}

/* ---- requests to ship: parsed again, they say what they said, but for the references */

static void assert_ships(const char *body, const char *expected)
{
	const struct query_request_limits limits = {0};
	struct query_error error = {.statement = -1};
	struct federated_request *fr;
	struct query_request *r, *again;
	struct buf out = {0};

	CU_ASSERT_EQUAL_FATAL(query_request_parse(&r, body, strlen(body), &limits, &error), QUERY_OK);
	CU_ASSERT_EQUAL_FATAL(federated_request_scan(&fr, r, &error), QUERY_OK);
	CU_ASSERT_PTR_NOT_NULL_FATAL(fr);
	ship_request_put(&out, fr, 1234);
	CU_ASSERT_EQUAL(query_request_parse(&again, out.data, out.len, &limits, &error), QUERY_OK);
	buf_put_u8(&out, '\0');
	CU_ASSERT_STRING_EQUAL((char *)out.data, expected);
	if (strcmp((char *)out.data, expected) != 0)
		fprintf(stderr, "%s\n", (char *)out.data);
	buf_fini(&out);
	query_request_free(again);
	federated_request_free(fr);
	query_request_free(r);
}

static void test_requests_to_ship(void)
{
	assert_ships("{\"sql\":\"SELECT * FROM h:1@t\",\"token\":\"secret\"}",
		     "{\"sql\":\"SELECT * FROM main.\\\"t\\\"\",\"consistency\":\"linearizable\",\"format\":\"rows\","
		     "\"timeout_ms\":1234}");
	assert_ships(
	    "{\"sql\":\"SELECT ?,?,?,?,?,? FROM h:1@t\",\"params\":[1,-9223372036854775808,1.0,null,\"a\\\"\\u0000b\","
	    "{\"$blob\":\"AP8=\"}],\"format\":\"ndjson\",\"consistency\":\"session\",\"min_lsn\":5,"
	    "\"timeout_ms\":9,\"request_id\":\"r\\\"1\"}",
	    "{\"sql\":\"SELECT ?,?,?,?,?,? FROM main.\\\"t\\\"\",\"params\":[1,-9223372036854775808,1.0,null,"
	    "\"a\\\"\\u0000b\",{\"$blob\":\"AP8=\"}],\"consistency\":\"session\",\"format\":\"ndjson\","
	    "\"timeout_ms\":1234,\"min_lsn\":5,\"request_id\":\"r\\\"1\"}");
	assert_ships(
	    "{\"statements\":[{\"sql\":\"DELETE FROM h:1@t WHERE a=:a\",\"params\":{\"a\":{\"$real\":\"-inf\"}}},"
	    "{\"sql\":\"SELECT 1\"}],\"consistency\":\"stale\",\"max_lag_ms\":7,\"format\":\"objects\"}",
	    "{\"statements\":[{\"sql\":\"DELETE FROM main.\\\"t\\\" WHERE "
	    "a=:a\",\"params\":{\"a\":{\"$real\":\"-inf\"}}},"
	    "{\"sql\":\"SELECT 1\"}],\"consistency\":\"stale\",\"format\":\"objects\",\"timeout_ms\":1234,"
	    "\"max_lag_ms\":7}");
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"answers pass", test_answers_pass},
	    {"what is no answer is refused", test_what_is_no_answer_is_refused},
	    {"what is incomplete is refused", test_what_is_incomplete_is_refused},
	    {"an answer may break off anywhere", test_an_answer_may_break_off_anywhere},
	    {"lines break off at a line", test_lines_break_off_at_a_line},
	    {"what it says of itself is kept", test_what_it_says_of_itself_is_kept},
	    {"requests to ship", test_requests_to_ship},
	    {NULL, NULL},
	};

	return unit_run("shipped_answer", tests);
}

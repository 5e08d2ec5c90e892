/* test_rows_reader.c - another node's rows as JSON: what comes out, however the bytes are cut, and what is refused. */
#include "common/remote/rows_reader.h"

#include <stdio.h>
#include <string.h>

#include "tests/unit/rows_events.h"

#define JSON_TYPE "application/json"

static void assert_json(const char *text, const char *expected)
{
	assert_reads(200, JSON_TYPE, text, strlen(text), expected);
}

#define JSON_ROWS                                                                                                      \
	"{\"status\":\"ok\",\"columns\":[\"id\",\"n\\u00e4me\"],\"types\":[\"integer\",\"\"],\"rows\":[[1,\"a\"],"     \
	"[-9223372036854775808,null],[9223372036854775807,{\"$blob\":\"AGJj\"}],[1.5,{\"$real\":\"-inf\"}]],"          \
	"\"row_count\":4,\"lsn\":77,\"node\":\"n\\\"]1\",\"time_ms\":0.125,\"remote\":[{\"node\":\"x\",\"ms\":1}]}\n"
#define JSON_ROWS_READ                                                                                                 \
	"result 1 id:integer n\xC3\xA4me:; 1,t'a'; -9223372036854775808,null; 9223372036854775807,x'~bc'; "            \
	"0x1.8p+0,-inf; done 4 lsn 77; "

static void test_json_rows(void)
{
	assert_json(JSON_ROWS, JSON_ROWS_READ);
	assert_json("{\"columns\":[\"a\"],\"types\":[\"\"],\"rows\":[],\"row_count\":0,\"lsn\":3,\"status\":\"ok\"}",
		    "result 1 a:; done 0 lsn 3; ");
	assert_json(" { \"columns\" : [ ] , \"types\" : [ ] , \"rows\" : [ [ ] , [] ] , \"row_count\" : 2 , \"x\" : "
		    "{\"rows\":[1,[{}]]} , \"status\" : \"ok\" } \r\n",
		    "result 1; ; ; done 2 lsn 0; ");
}

static void test_json_results(void)
{
	assert_json(
	    "{\"status\":\"ok\",\"results\":[{\"columns\":[\"v\"],\"types\":[\"\"],\"rows\":[[7]],"
	    "\"row_count\":1},{\"columns\":[\"a\",\"a\"],\"types\":[\"\",\"text\"],\"rows\":[[1,\"\"],[2,\"\"]],"
	    "\"row_count\":2},{\"rows_affected\":1,\"last_insert_id\":4}],\"lsn\":5,\"node\":\"n\",\"time_ms\":1.0}",
	    "result 1 v:; 7; result 2 a: a:text; 1,t''; 2,t''; result 3; done 3 lsn 5; ");
	assert_json("{\"status\":\"ok\",\"results\":[],\"lsn\":5}", "done 0 lsn 5; ");
	assert_json("{\"status\":\"ok\",\"rows_affected\":2,\"last_insert_id\":9,\"lsn\":6}",
		    "result 1; done 0 lsn 6; ");
}

static void test_json_texts(void)
{
	assert_json(
	    "{\"columns\":[\"a\"],\"types\":[\"\"],\"rows\":[[\"q\\\"b\\\\s\\/\\b\\f\\n\\r\\t\\u0041\\u00E9\\u20ac"
	    "\\ud83d\\ude00|\\u0000|\xC3\xA9 a plain text of more than eight bytes\\\\\"]],\"row_count\":1,\"status\":"
	    "\"ok\"}",
	    "result 1 a:; t'q\"b\\s/\b\f\n\r\tA\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80|~|\xC3\xA9 a plain text of more "
	    "than eight bytes\\'; done 1 lsn 0; ");
}

static void assert_json_item(const char *item, const char *expected)
{
	char text[512], read[512];

	snprintf(
	    text, sizeof(text),
	    "{\"columns\":[\"a\",\"b\"],\"types\":[\"\",\"\"],\"rows\":[[%s,%s]],\"row_count\":1,\"status\":\"ok\"}",
	    item, item);
	snprintf(read, sizeof(read), "result 1 a: b:; %s,%s; done 1 lsn 0; ", expected, expected);
	assert_json(text, read);
}

static void assert_json_item_broken(const char *item)
{
	char text[512];

	snprintf(text, sizeof(text), "{\"columns\":[\"a\"],\"types\":[\"\"],\"rows\":[[%s]],\"row_count\":1}", item);
	assert_broken(JSON_TYPE, text, strlen(text), "damaged");
}

static void test_json_values(void)
{
	static const char *const broken[] = {"9223372036854775808",
					     "-9223372036854775809",
					     "99999999999999999999",
					     "01",
					     "-",
					     "1.",
					     ".5",
					     "1e",
					     "1e+",
					     "+1",
					     "1e999",
					     "0x1",
					     "NaN",
					     "true",
					     "nul",
					     "nulL",
					     "\"\\x\"",
					     "\"\\ud800\"",
					     "\"\\udc00\"",
					     "\"\\ud800\\u0041\"",
					     "\"\\u12g4\"",
					     "\"\\u12\"",
					     "\"\n\"",
					     "{\"$blob\":\"A\"}",
					     "{\"$blob\":\"AB==\"}",
					     "{\"$blob\":\"AA==\",\"x\":1}",
					     "{\"$blob\":\"\\u0041A==\"}",
					     "{\"$blob\":1}",
					     "{\"$real\":\"nan\"}",
					     "{\"$real\":\"-\"}",
					     "{\"x\":\"inf\"}",
					     "{}",
					     "[1]",
					     "1,2",
					     "",
					     "1,",
					     "1 1",
					     "11111111111111111111111111111111111111111111111111111111111111111.5"};
	size_t i;

	assert_json_item("0", "0");
	assert_json_item("-0", "0");
	assert_json_item("-9223372036854775808", "-9223372036854775808");
	assert_json_item("-0.0", "-0x0p+0");
	assert_json_item("0.1", "0x1.999999999999ap-4");
	assert_json_item("1e22", "0x1.0f0cf064dd592p+73");
	assert_json_item("1E+23", "0x1.52d02c7e14af6p+76");
	assert_json_item("5e-324", "0x0.0000000000001p-1022");
	assert_json_item("1.7976931348623157e308", "0x1.fffffffffffffp+1023");
	assert_json_item("123456789012345678901234567890.5", "0x1.8ee90ff6c373ep+96");
	assert_json_item("9007199254740993.0", "0x1p+53");
	assert_json_item("{\"$real\":\"inf\"}", "inf");
	assert_json_item("{\"$blob\":\"\"}", "x''");
	assert_json_item("{\"$blob\":\"YWI=\"}", "x'ab'");
	for (i = 0; i < sizeof(broken) / sizeof(broken[0]); i++)
		assert_json_item_broken(broken[i]);
}

static void test_json_errors(void)
{
	const char *error =
	    "{\"status\":\"error\",\"code\":\"CONSTRAINT\",\"message\":\"no \\\"such\\\"\",\"statement\":2}\n";
	struct buf out = {0};

	assert_reads(409, JSON_TYPE, error, strlen(error), "refused CONSTRAINT 2 no \"such\"; ");
	assert_json("{\"status\":\"error\",\"code\":\"NEWER\",\"message\":\"x\"}", "refused INTERNAL -1 x; ");
	assert_json(
	    "{\"columns\":[\"a\"],\"types\":[\"\"],\"rows\":[[1],[2]],\"status\":\"error\",\"code\":\"TIMEOUT\","
	    "\"message\":\"late\"}",
	    "result 1 a:; 1; 2; refused TIMEOUT -1 late; ");
	assert_json(
	    "{\"results\":[{\"columns\":[\"a\"],\"types\":[\"\"],\"rows\":[[1]]}],\"status\":\"error\",\"code\":"
	    "\"SQL_ERROR\",\"message\":\"m\",\"statement\":1}",
	    "result 1 a:; 1; refused SQL_ERROR 1 m; ");
	/* It shows before the body's end, which never comes. */
	CU_ASSERT_EQUAL(read_events(&out, 400, JSON_TYPE, error, strlen(error) - 1, 9, false), ROWS_REFUSED);
	buf_fini(&out);
	CU_ASSERT_EQUAL(read_events(&out, 500, JSON_TYPE, JSON_ROWS, strlen(JSON_ROWS), 9, true), ROWS_BROKEN);
	CU_ASSERT_PTR_NOT_NULL(strstr((char *)out.data, "HTTP 500 that says ok"));
	buf_fini(&out);
}

static void test_json_damage(void)
{
	static const struct {
		const char *text, *why;
	} broken[] = {
	    {"[]", "does not begin"},
	    {"{}", "no status"},
	    {"{\"status\":\"fine\"}", "status is none"},
	    {"{\"status\":1}", "text is expected"},
	    {"{\"status\":\"error\",\"message\":\"x\"}", "no code"},
	    {"{\"status\":\"ok\",\"status\":\"ok\"}", "twice"},
	    {"{\"status\":\"ok\",}", "key is expected"},
	    {"{\"status\":\"ok\" \"lsn\":1}", "comma"},
	    {"{\"status\",\"ok\"}", "colon"},
	    {"{\"status\":\"ok\",\"lsn\":1}x", "follows its end"},
	    {"{\"status\":\"ok\",\"lsn\":-1}", "count is none"},
	    {"{\"status\":\"ok\",\"lsn\":1.0}", "count is none"},
	    {"{\"status\":\"ok\",\"x\":[}}", "brackets"},
	    {"{\"status\":\"ok\",\"x\":,\"lsn\":1}", "value is expected"},
	    {"{\"columns\":[\"a\"],\"rows\":[]}", "before their types"},
	    {"{\"types\":[\"a\"]}", "before columns"},
	    {"{\"columns\":[\"a\"],\"types\":[],\"rows\":[]}", "not as many types"},
	    {"{\"columns\":[],\"types\":[\"a\"]}", "more types"},
	    {"{\"columns\":[\"a\\u0000b\"]}", "name is none"},
	    {"{\"columns\":[1]}", "text is expected"},
	    {"{\"columns\":{}}", "array is expected"},
	    {"{\"columns\":[\"a\"],\"columns\":[\"a\"]}", "twice"},
	    {"{\"row_count\":0}", "before the rows"},
	    {"{\"columns\":[\"a\"],\"status\":\"ok\"}", "no rows"},
	    {"{\"columns\":[\"a\"],\"types\":[\"\"],\"rows\":[[1]],\"row_count\":2}", "not as many rows"},
	    {"{\"columns\":[\"a\"],\"types\":[\"\"],\"rows\":[[1]],\"status\":\"ok\"}", "no row count"},
	    {"{\"columns\":[\"a\"],\"types\":[\"\"],\"rows\":[[]]}", "fewer values"},
	    {"{\"columns\":[\"a\"],\"types\":[\"\"],\"rows\":[[1][2]]}", "comma"},
	    {"{\"columns\":[\"a\"],\"types\":[\"\"],\"rows\":[1]}", "row is expected"},
	    {"{\"columns\":[\"a\"],\"types\":[\"\"],\"rows\":[[1],]}", "row is expected"},
	    {"{\"results\":[{\"columns\":[\"a\"],\"types\":[\"\"],\"rows\":[]}],\"status\":\"ok\"}", "no row count"},
	    {"{\"results\":[{\"columns\":[\"a\"]}]}", "no rows"},
	    {"{\"results\":[1]}", "result is expected"},
	    {"{\"results\":[],\"columns\":[]}", "beside results"},
	    {"{\"columns\":[],\"results\":[]}", "beside results"},
	};
	char deep[256] = "{\"x\":";
	size_t i;

	for (i = 0; i < sizeof(broken) / sizeof(broken[0]); i++)
		assert_broken(JSON_TYPE, broken[i].text, strlen(broken[i].text), broken[i].why);
	memset(deep + 5, '[', 100);
	assert_broken(JSON_TYPE, deep, strlen(deep), "brackets");
	assert_every_cut_shows(JSON_TYPE, (const uint8_t *)JSON_ROWS, strlen(JSON_ROWS) - 1);
	flip_every_bit(JSON_TYPE, (const uint8_t *)JSON_ROWS, strlen(JSON_ROWS));
}

static void test_types_and_limits(void)
{
	const struct rows_reader_limits limits = {.columns_max = 2, .row_bytes_max = 100};
	struct query_error error = {.statement = -1};
	struct rows_reader *r;
	struct errmsg em = {0};
	const char *head = "{\"columns\":[\"a\"],\"types\":[\"\"],\"rows\":[[\"";
	const char *wide = "{\"columns\":[\"a\",\"b\",\"c\"]";
	int i;

	CU_ASSERT_EQUAL(rows_reader_create(&r, 502, "text/html", NULL, &em), DB_INVALID);
	CU_ASSERT_PTR_NULL(r);
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, "HTTP 502"));
	CU_ASSERT_EQUAL(rows_reader_create(&r, 200, NULL, NULL, &em), DB_INVALID);
	CU_ASSERT_EQUAL(rows_reader_create(&r, 200, "application/jsonx", NULL, &em), DB_INVALID);
	UNIT_OK(rows_reader_create(&r, 200, "Application/JSON; charset=utf-8", NULL, &em), &em);
	rows_reader_free(r);
	UNIT_OK(rows_reader_create(&r, 200, JSON_TYPE, &limits, &em), &em);
	CU_ASSERT_EQUAL(rows_reader_feed(r, head, strlen(head)), DB_OK);
	CU_ASSERT_EQUAL(rows_reader_next(r, &error), ROWS_RESULT);
	for (i = 0; i < 110 && rows_reader_next(r, &error) == ROWS_MORE; i++)
		CU_ASSERT_EQUAL(rows_reader_feed(r, "x", 1), DB_OK);
	CU_ASSERT_EQUAL(i, 99);
	CU_ASSERT_EQUAL(rows_reader_next(r, &error), ROWS_BROKEN);
	CU_ASSERT_EQUAL(error.code, QUERY_TOO_LARGE);
	rows_reader_free(r);
	UNIT_OK(rows_reader_create(&r, 200, JSON_TYPE, &limits, &em), &em);
	CU_ASSERT_EQUAL(rows_reader_feed(r, wide, strlen(wide)), DB_OK);
	CU_ASSERT_EQUAL(rows_reader_next(r, &error), ROWS_BROKEN);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.message, "too many columns"));
	rows_reader_free(r);
	rows_reader_free(NULL);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"JSON: rows of one result", test_json_rows},
	    {"JSON: several results, and those without rows", test_json_results},
	    {"JSON: texts with every escape", test_json_texts},
	    {"JSON: values exact to the last bit, and what is none", test_json_values},
	    {"JSON: errors, at once and behind rows", test_json_errors},
	    {"JSON: damage, every cut, every bit flipped", test_json_damage},
	    {"content types and limits", test_types_and_limits},
	    {NULL, NULL},
	};

	return unit_run("rows_reader", tests);
}

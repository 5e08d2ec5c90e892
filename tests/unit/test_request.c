/* test_request.c - request bodies: what is taken, what is refused and how, and that no bytes can crash the parser. */
#include "common/query/request.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/unit.h"

static const struct query_request_limits limits = {.sql_length_max = 1 << 20, .statements_max = 100};

static enum query_code parse(struct query_request **r, const char *body, struct query_error *error)
{
	return query_request_parse(r, body, strlen(body), &limits, error);
}

static struct query_request *parse_ok(const char *body)
{
	struct query_request *r;
	struct query_error error = {0};

	if (parse(&r, body, &error) != QUERY_OK)
		fprintf(stderr, "%s: %s\n", body, error.message);
	CU_ASSERT_PTR_NOT_NULL_FATAL(r);
	return r;
}

static void assert_refused(const char *body, enum query_code code, const char *words)
{
	struct query_request *r;
	struct query_error error = {0};

	CU_ASSERT_EQUAL(parse(&r, body, &error), code);
	CU_ASSERT_EQUAL(error.code, code);
	CU_ASSERT_PTR_NULL(r);
	CU_ASSERT_PTR_NOT_NULL(strstr(error.message, words));
	if (strstr(error.message, words) == NULL)
		fprintf(stderr, "%s: \"%s\" does not say \"%s\"\n", body, error.message, words);
	query_request_free(r);
}

static void test_a_plain_request_has_defaults(void)
{
	struct query_request *r = parse_ok("{\"sql\": \"SELECT 1\"}");

	CU_ASSERT_EQUAL(r->statement_count, 1);
	CU_ASSERT_STRING_EQUAL(r->statements[0].sql, "SELECT 1");
	CU_ASSERT_EQUAL(r->statements[0].sql_len, 8);
	CU_ASSERT_EQUAL(r->statements[0].param_count, 0);
	CU_ASSERT_FALSE(r->from_statements);
	CU_ASSERT_PTR_NULL(r->token);
	CU_ASSERT_EQUAL(r->consistency, QUERY_LINEARIZABLE);
	CU_ASSERT_EQUAL(r->min_lsn, 0);
	CU_ASSERT_EQUAL(r->max_lag_ms, UINT64_MAX);
	CU_ASSERT_EQUAL(r->timeout_ms, 0);
	CU_ASSERT_EQUAL(r->format, QUERY_ROWS);
	query_request_free(r);
}

static void test_every_key_is_taken(void)
{
	struct query_request *r =
	    parse_ok("{\"sql\":\"SELECT 1\",\"token\":\"t\",\"consistency\":\"session\",\"min_lsn\":7,"
		     "\"timeout_ms\":250,\"format\":\"ndjson\"}");

	CU_ASSERT_STRING_EQUAL(r->token, "t");
	CU_ASSERT_EQUAL(r->consistency, QUERY_SESSION);
	CU_ASSERT_EQUAL(r->min_lsn, 7);
	CU_ASSERT_EQUAL(r->timeout_ms, 250);
	CU_ASSERT_EQUAL(r->format, QUERY_NDJSON);
	query_request_free(r);
	r = parse_ok("{\"sql\":\"SELECT 1\",\"consistency\":\"stale\",\"max_lag_ms\":0,\"format\":\"objects\"}");
	CU_ASSERT_EQUAL(r->consistency, QUERY_STALE);
	CU_ASSERT_EQUAL(r->max_lag_ms, 0);
	CU_ASSERT_EQUAL(r->format, QUERY_OBJECTS);
	query_request_free(r);
}

static void test_every_kind_of_value_is_taken_exactly(void)
{
	struct query_request *r =
	    parse_ok("{\"sql\":\"x\",\"params\":[null,true,false,9223372036854775807,-9223372036854775808,1.0,-0.0,"
		     "\"a\\u0000b\","
		     "{\"$blob\":\"AAEC\"},{\"$blob\":\"\"},{\"$real\":\"inf\"},{\"$real\":\"-inf\"}]}");
	const struct query_param *p = r->statements[0].params;

	CU_ASSERT_EQUAL_FATAL(r->statements[0].param_count, 12);
	CU_ASSERT_EQUAL(p[0].value.type, QUERY_NULL);
	CU_ASSERT(p[1].value.type == QUERY_INTEGER && p[1].value.integer == 1);
	CU_ASSERT(p[2].value.type == QUERY_INTEGER && p[2].value.integer == 0);
	CU_ASSERT(p[3].value.integer == INT64_MAX && p[4].value.integer == INT64_MIN);
	CU_ASSERT(p[5].value.type == QUERY_REAL && p[5].value.real == 1.0);
	CU_ASSERT(p[6].value.type == QUERY_REAL && signbit(p[6].value.real));
	CU_ASSERT(p[7].value.type == QUERY_TEXT && p[7].value.data.len == 3);
	CU_ASSERT(memcmp(p[7].value.data.bytes, "a\0b", 3) == 0);
	CU_ASSERT(p[8].value.type == QUERY_BLOB && p[8].value.data.len == 3);
	CU_ASSERT(memcmp(p[8].value.data.bytes, "\0\1\2", 3) == 0);
	CU_ASSERT(p[9].value.type == QUERY_BLOB && p[9].value.data.len == 0);
	CU_ASSERT(isinf(p[10].value.real) && p[10].value.real > 0 && isinf(p[11].value.real) && p[11].value.real < 0);
	CU_ASSERT_PTR_NULL(p[0].name);
	query_request_free(r);
}

static void test_statements_have_their_own_params(void)
{
	struct query_request *r = parse_ok("{\"statements\":[{\"sql\":\"a\",\"params\":[1,2]},{\"sql\":\"b\"},"
					   "{\"params\":{\"x\":3,\":y\":{\"$blob\":\"QQ==\"}},\"sql\":\"c\"}]}");

	CU_ASSERT(r->from_statements);
	CU_ASSERT_EQUAL_FATAL(r->statement_count, 3);
	CU_ASSERT_EQUAL(r->statements[0].param_count, 2);
	CU_ASSERT_EQUAL(r->statements[1].param_count, 0);
	CU_ASSERT_EQUAL_FATAL(r->statements[2].param_count, 2);
	CU_ASSERT_STRING_EQUAL(r->statements[2].params[0].name, "x");
	CU_ASSERT_STRING_EQUAL(r->statements[2].params[1].name, ":y");
	CU_ASSERT_EQUAL(r->statements[2].params[1].value.data.bytes[0], 'A');
	query_request_free(r);
}

static void test_what_is_wrong_is_named(void)
{
	static const struct {
		const char *body, *words;
	} cases[] = {
	    {"", "empty"},
	    {"[]", "must be a JSON object, not an array"},
	    {"3", "must be a JSON object"},
	    {"{", "invalid JSON"},
	    {"{\"sql\":\"SELECT 1\"} x", "invalid JSON"},
	    {"{\"sql\":\"SELECT 1\",\"sql\":\"SELECT 2\"}", "duplicate"},
	    {"{\"sql\":\"\xFF\"}", "UTF-8"},
	    {"{}", "\"sql\" or \"statements\" is required"},
	    {"{\"sq\":\"SELECT 1\"}", "unknown key \"sq\""},
	    {"{\"sql\":\"SELECT 1\",\"requestid\":\"a\"}", "unknown key \"requestid\""},
	    {"{\"sql\":5}", "\"sql\" must be a string, not an integer"},
	    {"{\"sql\":null}", "not null"},
	    {"{\"sql\":\"a\",\"statements\":[]}", "exclude each other"},
	    {"{\"statements\":[]}", "is empty"},
	    {"{\"statements\":{}}", "must be an array"},
	    {"{\"statements\":[\"SELECT 1\"]}", "array of objects"},
	    {"{\"statements\":[{\"sql\":\"a\",\"format\":\"rows\"}]}", "unknown key \"format\""},
	    {"{\"statements\":[{\"params\":[]}]}", "\"sql\" is missing"},
	    {"{\"statements\":[{\"sql\":\"a\"}],\"params\":[]}", "goes with \"sql\""},
	    {"{\"sql\":\"\"}", "holds no statement"},
	    {"{\"sql\":\" ;; -- nothing\\n/* at all */ \"}", "holds no statement"},
	    {"{\"sql\":\"SELECT\\u0000 1\"}", "NUL"},
	    {"{\"sql\":\"a\",\"params\":3}", "an array or an object"},
	    {"{\"sql\":\"a\",\"params\":[[1]]}", "not an array"},
	    {"{\"sql\":\"a\",\"params\":[{}]}", "$blob"},
	    {"{\"sql\":\"a\",\"params\":[{\"$blob\":1}]}", "$blob"},
	    {"{\"sql\":\"a\",\"params\":[{\"$blob\":\"a\"}]}", "base64"},
	    {"{\"sql\":\"a\",\"params\":[{\"$real\":\"nan\"}]}", "inf"},
	    {"{\"sql\":\"a\",\"params\":[{\"$blob\":\"\",\"x\":1}]}", "$blob"},
	    {"{\"sql\":\"a\",\"params\":{\"\":1}}", "empty name"},
	    {"{\"sql\":\"a\",\"params\":[9223372036854775808]}", "too big integer"},
	    {"{\"sql\":\"a\",\"params\":[-9223372036854775809]}", "too big"},
	    {"{\"sql\":\"a\",\"params\":[1e999]}", "overflow"},
	    {"{\"sql\":\"a\",\"params\":[NaN]}", "invalid"},
	    {"{\"sql\":\"a\",\"token\":7}", "\"token\" must be a string"},
	    {"{\"sql\":\"a\",\"token\":\"t\\u0000\"}", "NUL"},
	    {"{\"sql\":\"a\",\"consistency\":\"strong\"}", "\"strong\""},
	    {"{\"sql\":\"a\",\"format\":1}", "\"format\" must be"},
	    {"{\"sql\":\"a\",\"min_lsn\":-1}", "zero or more"},
	    {"{\"sql\":\"a\",\"min_lsn\":1.5}", "an integer"},
	    {"{\"sql\":\"a\",\"timeout_ms\":0}", "greater than zero"},
	    {"{\"sql\":\"a\",\"max_lag_ms\":\"1\"}", "an integer"},
	    {"{\"sql\":\"a\",\"consistency\":\"stale\",\"min_lsn\":1}", "session"},
	    {"{\"sql\":\"a\",\"consistency\":\"session\",\"max_lag_ms\":1}", "stale"},
	};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_refused(cases[i].body, QUERY_BAD_REQUEST, cases[i].words);
}

static void test_the_failing_one_of_several_statements_is_told(void)
{
	struct query_request *r;
	struct query_error error = {0};

	CU_ASSERT_EQUAL(parse(&r, "{\"statements\":[{\"sql\":\"a\"},{\"sql\":\"\"}]}", &error), QUERY_BAD_REQUEST);
	CU_ASSERT_EQUAL(error.statement, 1);
	CU_ASSERT_EQUAL(parse(&r, "{\"statements\":[{\"sql\":\"\"}]}", &error), QUERY_BAD_REQUEST);
	CU_ASSERT_EQUAL(error.statement, -1);
}

/* {"sql":"<fill × count>"} */
static char *body_of(size_t count, char fill)
{
	char *body = malloc(count + 16);

	CU_ASSERT_PTR_NOT_NULL_FATAL(body);
	memcpy(body, "{\"sql\":\"", 8);
	memset(body + 8, fill, count);
	memcpy(body + 8 + count, "\"}", 3);
	return body;
}

static void test_sql_at_the_limit_is_taken_and_one_more_is_too_large(void)
{
	char *body = body_of(1 << 20, 'x');
	struct query_request *r = parse_ok(body);

	CU_ASSERT_EQUAL(r->statements[0].sql_len, 1 << 20);
	query_request_free(r);
	free(body);
	body = body_of((1 << 20) + 1, 'x');
	assert_refused(body, QUERY_TOO_LARGE, "bytes");
	free(body);
}

static void test_too_many_statements_are_too_large(void)
{
	struct buf b = {0};
	int i;

	buf_puts(&b, "{\"statements\":[{\"sql\":\"a\"}");
	for (i = 0; i < 100; i++)
		buf_puts(&b, ",{\"sql\":\"a\"}");
	buf_puts(&b, "]}");
	buf_put_u8(&b, 0);
	assert_refused((char *)b.data, QUERY_TOO_LARGE, "101 entries");
	buf_fini(&b);
}

static void test_too_many_names_are_refused(void)
{
	struct buf b = {0};
	int i;

	buf_puts(&b, "{\"sql\":\"a\",\"params\":{\"p\":0");
	for (i = 0; i < QUERY_NAMED_PARAMS_MAX; i++)
		buf_printf(&b, ",\"p%d\":0", i);
	buf_puts(&b, "}}");
	buf_put_u8(&b, 0);
	assert_refused((char *)b.data, QUERY_BAD_REQUEST, "use an array");
	buf_fini(&b);
}

static void test_deep_nesting_is_refused(void)
{
	struct buf b = {0};
	int i;

	buf_puts(&b, "{\"sql\":\"a\",\"params\":");
	for (i = 0; i < 200000; i++)
		buf_put_u8(&b, '[');
	buf_put_u8(&b, 0);
	assert_refused((char *)b.data, QUERY_BAD_REQUEST, "invalid JSON");
	buf_fini(&b);
}

static const char sample[] =
    "{\"statements\":[{\"sql\":\"INSERT INTO t "
    "VALUES(?,?)\",\"params\":[1,{\"$blob\":\"AAEC\"}]},{\"sql\":\"x\",\"params\":"
    "{\":a\":{\"$real\":\"-inf\"},\"b\":-1.5e3}}],\"token\":\"s\\u00e9\",\"consistency\":\"session\",\"min_lsn\":12,"
    "\"timeout_ms\":5,\"format\":\"objects\"}";

static void try_bytes(const char *bytes, size_t len)
{
	char *exact = malloc(len == 0 ? 1 : len); /* so that reading past the end shows */
	struct query_request *r;
	struct query_error error = {0};
	enum query_code code;

	CU_ASSERT_PTR_NOT_NULL_FATAL(exact);
	memcpy(exact, bytes, len);
	code = query_request_parse(&r, exact, len, &limits, &error);
	if ((code == QUERY_OK) != (r != NULL) || (code != QUERY_OK && error.message[0] == '\0'))
		CU_FAIL("neither a request nor an error");
	query_request_free(r);
	free(exact);
}

static void test_every_truncation_is_an_error(void)
{
	struct query_request *r = parse_ok(sample);
	size_t len;

	query_request_free(r);
	for (len = 0; len < strlen(sample); len++) {
		struct query_error error = {0};

		CU_ASSERT_EQUAL(query_request_parse(&r, sample, len, &limits, &error), QUERY_BAD_REQUEST);
		try_bytes(sample, len);
	}
}

static void test_mutations_never_crash(void)
{
	static const char alphabet[] = "{}[]\",:\\0-.eE$ \xFF\x80tfn\x01";
	char body[sizeof(sample)];
	unsigned seed = 1;
	size_t i, k;

	for (i = 0; i < 60000; i++) {
		memcpy(body, sample, sizeof(sample));
		for (k = 0; k < 1 + i % 4; k++) {
			size_t at = (size_t)rand_r(&seed) % strlen(sample);

			body[at] = alphabet[(size_t)rand_r(&seed) % (sizeof(alphabet) - 1)];
		}
		try_bytes(body, strlen(sample));
	}
	CU_PASS("survived");
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"a plain request has defaults", test_a_plain_request_has_defaults},
	    {"every key is taken", test_every_key_is_taken},
	    {"every kind of value is taken exactly", test_every_kind_of_value_is_taken_exactly},
	    {"statements have their own params", test_statements_have_their_own_params},
	    {"what is wrong is named", test_what_is_wrong_is_named},
	    {"the failing one of several statements is told", test_the_failing_one_of_several_statements_is_told},
	    {"SQL at the limit is taken and one more is too large",
	     test_sql_at_the_limit_is_taken_and_one_more_is_too_large},
	    {"too many statements are too large", test_too_many_statements_are_too_large},
	    {"too many names are refused", test_too_many_names_are_refused},
	    {"deep nesting is refused", test_deep_nesting_is_refused},
	    {"every truncation is an error", test_every_truncation_is_an_error},
	    {"mutations never crash", test_mutations_never_crash},
	    {NULL, NULL},
	};

	return unit_run("request", tests);
}

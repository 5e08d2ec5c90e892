/* test_answer.c - the values and fixed parts of answers: exact, always valid JSON, whatever bytes come in. */
#include "common/query/answer.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/query/base64.h"
#include "common/query/number.h"
#include "common/query/number_powers.h"
#include "tests/unit/unit.h"

#define RANDOM_REALS 300000

/* A fixed sequence (Marsaglia's xorshift64*), so that a failure repeats. */
static uint64_t next_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 2685821657736338717u;
}

static const char *text_of(struct buf *b)
{
	buf_put_u8(b, 0);
	return (const char *)b->data;
}

static void assert_real(double v, const char *expected)
{
	struct buf b = {0};

	json_put_real(&b, v);
	CU_ASSERT_STRING_EQUAL(text_of(&b), expected);
	if (strcmp((char *)b.data, expected) != 0)
		fprintf(stderr, "%.17g: %s, expected %s\n", v, (char *)b.data, expected);
	buf_fini(&b);
}

static void test_integers_are_exact_to_both_ends(void)
{
	const int64_t values[] = {0,         1, -1, 9, 10, 99, 100, -100, 12345, INT64_MAX, INT64_MIN, INT64_MIN + 1,
				  1000000000};
	char expected[32];
	size_t i;

	for (i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		struct buf b = {0};

		snprintf(expected, sizeof(expected), "%lld", (long long)values[i]);
		json_put_int(&b, values[i]);
		CU_ASSERT_STRING_EQUAL(text_of(&b), expected);
		buf_fini(&b);
	}
}

static void test_reals_always_look_like_reals(void)
{
	assert_real(0.0, "0.0");
	assert_real(-0.0, "-0.0");
	assert_real(1.0, "1.0");
	assert_real(-1.5, "-1.5");
	assert_real(0.1, "0.1");
	assert_real(3.14, "3.14");
	assert_real(0.30000000000000004, "0.30000000000000004");
	assert_real(1e16, "10000000000000000.0");
	assert_real(1e17, "1e+17");
	assert_real(1e300, "1e+300");
	assert_real(1.5e-7, "1.5e-7");
	assert_real(0.0001, "0.0001");
	assert_real(0.00001, "1e-5");
	assert_real(123456789.125, "123456789.125");
	assert_real(9007199254740993.0, "9007199254740992.0");
	assert_real(5e-324, "5e-324");
	assert_real(2.2250738585072014e-308, "2.2250738585072014e-308");
	assert_real(1.7976931348623157e308, "1.7976931348623157e+308");
	assert_real(9.5e-3, "0.0095");
	assert_real(2e-44, "2e-44");
}

static void test_infinite_reals_are_wrapped_and_nan_is_null(void)
{
	assert_real(INFINITY, "{\"$real\":\"inf\"}");
	assert_real(-INFINITY, "{\"$real\":\"-inf\"}");
	assert_real(NAN, "null");
}

/* Number of significant digits of a decimal text. */
static int significant_digits(const char *text)
{
	int digits = 0, zeros = 0;

	for (; *text != '\0' && *text != 'e'; text++) {
		if (*text < '0' || *text > '9' || (digits == 0 && *text == '0'))
			continue;
		zeros = *text == '0' ? zeros + 1 : 0;
		digits++;
	}
	return digits - zeros;
}

/* The fewest digits that printf needs, which rounds correctly. */
static int fewest_digits(double v)
{
	char text[64];
	int precision;

	for (precision = 1; precision < 17; precision++) {
		snprintf(text, sizeof(text), "%.*e", precision - 1, v);
		if (strtod(text, NULL) == v)
			break;
	}
	snprintf(text, sizeof(text), "%.*e", precision - 1, v);
	return significant_digits(text);
}

static bool reads_back(double v)
{
	char text[NUMBER_TEXT_MAX + 1];
	size_t len = number_put_real(text, v);
	double back;

	text[len] = '\0';
	back = strtod(text, NULL);
	if (memcmp(&back, &v, sizeof(v)) == 0 && strpbrk(text, ".e") != NULL)
		return true;
	fprintf(stderr, "%.17g written as %s\n", v, text);
	return false;
}

static void test_reals_of_any_bits_read_back(void)
{
	uint64_t state = 42;
	int i;

	for (i = 0; i < RANDOM_REALS; i++) {
		uint64_t bits = next_random(&state);
		double v;

		if (i % 3 == 0) /* a small exponent, the everyday case */
			bits = (bits & ~((uint64_t)0x7FF << 52)) | (1000 + bits % 60) << 52;
		memcpy(&v, &bits, sizeof(v));
		if (isfinite(v) && !reads_back(v)) {
			CU_FAIL("a real does not read back");
			return;
		}
	}
	CU_PASS("all read back");
}

static void test_reals_have_the_fewest_digits(void)
{
	char text[NUMBER_TEXT_MAX + 1];
	uint64_t state = 7;
	int i;

	for (i = 0; i < RANDOM_REALS / 20; i++) {
		double v = (double)(next_random(&state) % 100000000) / pow(10, i % 12);

		if (i % 4 == 0) {
			uint64_t bits = next_random(&state) & ~((uint64_t)1 << 63);

			memcpy(&v, &bits, sizeof(v));
		}
		if (!isfinite(v) || v == 0)
			continue;
		text[number_put_real(text, v)] = '\0';
		if (significant_digits(text) != fewest_digits(v)) {
			fprintf(stderr, "%.17g written as %s\n", v, text);
			CU_FAIL("a real has too many digits");
			return;
		}
	}
	CU_PASS("all shortest");
}

static void test_every_power_of_two_and_ten_reads_back(void)
{
	char text[32];
	int e;

	for (e = -1074; e <= 1023; e++) {
		CU_ASSERT(reads_back(ldexp(1, e)));
		CU_ASSERT(reads_back(nextafter(ldexp(1, e), 0)));
		CU_ASSERT(reads_back(nextafter(ldexp(1, e), INFINITY)));
	}
	for (e = -323; e <= 308; e++) {
		snprintf(text, sizeof(text), "1e%d", e);
		CU_ASSERT(reads_back(strtod(text, NULL)));
	}
}

/* g(k+1) is 10 * g(k), halved as often as it takes, but for what rounding up adds. */
static void test_powers_of_ten_follow_each_other(void)
{
	int i;

	for (i = 0; i + 1 < NUMBER_POWER_MAX - NUMBER_POWER_MIN + 1; i++) {
		long double a = ldexpl((long double)number_powers[i].high, 64) + (long double)number_powers[i].low;
		long double b =
		    ldexpl((long double)number_powers[i + 1].high, 64) + (long double)number_powers[i + 1].low;
		long double ratio = b / a;

		CU_ASSERT(fabsl(ratio - 1.25L) < 1e-17L || fabsl(ratio - 0.625L) < 1e-17L);
	}
	CU_ASSERT(number_powers[-NUMBER_POWER_MIN].high == (uint64_t)1 << 63 &&
		  number_powers[-NUMBER_POWER_MIN].low == 0);
}

/* Writes s as JSON and reads it with a parser that checks UTF-8. */
static void assert_string(const char *s, size_t len, const char *expected, size_t expected_len)
{
	struct buf b = {0};
	json_t *v;

	json_put_string(&b, s, len);
	v = json_loadb((char *)b.data, b.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(v);
	CU_ASSERT_EQUAL(json_string_length(v), expected_len);
	CU_ASSERT(memcmp(json_string_value(v), expected, expected_len) == 0);
	json_decref(v);
	buf_fini(&b);
}

static void assert_same_string(const char *s, size_t len)
{
	assert_string(s, len, s, len);
}

static void test_text_survives_with_controls_quotes_and_nuls(void)
{
	char all[128];
	size_t i, at;

	for (i = 0; i < sizeof(all); i++)
		all[i] = (char)i;
	assert_same_string(all, sizeof(all));
	assert_same_string("", 0);
	assert_same_string("Zürich 東京 🐻", strlen("Zürich 東京 🐻"));
	for (at = 0; at < 40; at++) { /* a quote at every offset of the word-wise scan */
		char text[40];

		memset(text, 'x', sizeof(text));
		text[at] = '"';
		assert_same_string(text, sizeof(text));
		text[at] = '\\';
		assert_same_string(text, sizeof(text));
		text[at] = '\0';
		assert_same_string(text, sizeof(text));
	}
}

#define FFFD "\xEF\xBF\xBD"

static void test_each_invalid_utf8_byte_is_replaced(void)
{
	assert_string("\xFF", 1, FFFD, 3);
	assert_string("a\x80z", 3, "a" FFFD "z", 5);
	assert_string("\xC0\xAF", 2, FFFD FFFD, 6);          /* overlong */
	assert_string("\xED\xA0\x80", 3, FFFD FFFD FFFD, 9); /* surrogate */
	assert_string("\xF4\x90\x80\x80", 4, FFFD FFFD FFFD FFFD, 12);
	assert_string("\xE2\x82", 2, FFFD FFFD, 6); /* cut */
	assert_string("\xE2\x82\xAC", 3, "\xE2\x82\xAC", 3);
}

static void test_random_bytes_make_valid_json(void)
{
	uint64_t state = 3;
	char text[64];
	size_t i, len;
	int round;

	for (round = 0; round < 20000; round++) {
		struct buf b = {0};
		json_t *v;

		len = next_random(&state) % sizeof(text);
		for (i = 0; i < len; i++)
			text[i] = (char)(next_random(&state) >> 40);
		json_put_string(&b, text, len);
		v = json_loadb((char *)b.data, b.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
		CU_ASSERT_PTR_NOT_NULL_FATAL(v);
		json_decref(v);
		buf_fini(&b);
	}
}

static void test_blobs_go_through_base64_and_back(void)
{
	uint8_t bytes[67], back[80];
	uint64_t state = 9;
	size_t len, i, back_len;

	for (len = 0; len <= sizeof(bytes); len++) {
		struct buf b = {0};

		for (i = 0; i < len; i++)
			bytes[i] = (uint8_t)next_random(&state);
		json_put_blob(&b, bytes, len);
		CU_ASSERT(memcmp(b.data, "{\"$blob\":\"", 10) == 0);
		CU_ASSERT(base64_decode(back, &back_len, (char *)b.data + 10, b.len - 12));
		CU_ASSERT_EQUAL(back_len, len);
		CU_ASSERT(memcmp(back, bytes, len) == 0);
		buf_fini(&b);
	}
}

static void test_base64_refuses_what_is_not(void)
{
	static const char *const bad[] = {"a",     "ab",   "abc",   "ab=c", "====", "a===", "ab c",
					  "abc\n", "ab-_", "abcd=", "QQ=A", "QR==", "QUJ="};
	uint8_t out[16];
	size_t i, len;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CU_ASSERT_FALSE(base64_decode(out, &len, bad[i], strlen(bad[i])));
	CU_ASSERT(base64_decode(out, &len, "QUI=", 4) && len == 2 && memcmp(out, "AB", 2) == 0);
}

static void test_errors_have_the_documented_shape(void)
{
	struct query_error error;
	struct buf b = {0};

	CU_ASSERT_EQUAL(query_error_set(&error, QUERY_CONSTRAINT, "no \"%s\"", "x\xFF"), QUERY_CONSTRAINT);
	answer_put_error(&b, &error);
	CU_ASSERT_STRING_EQUAL(text_of(&b),
			       "{\"status\":\"error\",\"code\":\"CONSTRAINT\",\"message\":\"no \\\"x" FFFD "\\\"\"}\n");
	buf_clear(&b);
	error.statement = 3;
	answer_put_error(&b, &error);
	CU_ASSERT_PTR_NOT_NULL(strstr(text_of(&b), ",\"statement\":3}\n"));
	buf_fini(&b);
	CU_ASSERT_EQUAL(query_code_http_status(QUERY_NO_QUORUM), 503);
	CU_ASSERT_STRING_EQUAL(query_code_name(QUERY_OK), "OK");
}

static void test_the_trailer_ends_an_answer(void)
{
	struct buf b = {0};

	answer_put_trailer(&b, UINT64_MAX, "node1", 12034);
	CU_ASSERT_STRING_EQUAL(text_of(&b), ",\"lsn\":18446744073709551615,\"node\":\"node1\",\"time_ms\":12.034}\n");
	buf_fini(&b);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"integers are exact to both ends", test_integers_are_exact_to_both_ends},
	    {"reals always look like reals", test_reals_always_look_like_reals},
	    {"infinite reals are wrapped and NaN is null", test_infinite_reals_are_wrapped_and_nan_is_null},
	    {"reals of any bits read back", test_reals_of_any_bits_read_back},
	    {"reals have the fewest digits", test_reals_have_the_fewest_digits},
	    {"every power of two and ten reads back", test_every_power_of_two_and_ten_reads_back},
	    {"powers of ten follow each other", test_powers_of_ten_follow_each_other},
	    {"text survives with controls, quotes and NULs", test_text_survives_with_controls_quotes_and_nuls},
	    {"each invalid UTF-8 byte is replaced", test_each_invalid_utf8_byte_is_replaced},
	    {"random bytes make valid JSON", test_random_bytes_make_valid_json},
	    {"blobs go through base64 and back", test_blobs_go_through_base64_and_back},
	    {"base64 refuses what is not", test_base64_refuses_what_is_not},
	    {"errors have the documented shape", test_errors_have_the_documented_shape},
	    {"the trailer ends an answer", test_the_trailer_ends_an_answer},
	    {NULL, NULL},
	};

	return unit_run("answer", tests);
}

/*
 * fuzz_request.c - what a client sends, up to where SQL begins: the framing of HTTP, the body of POST /query, numbers.
 *
 * The first byte chooses. Framing: the bytes are fed whole and in pieces, parts of which are skipped, which must come to the
 * same end. Body: a request that is accepted is well-formed in every field. Numbers: a real or an integer reads back as the
 * same one, and reals are as short as the shortest of printf's that do.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/http/frame.h"
#include "common/query/number.h"
#include "common/query/request.h"
#include "common/query/sql_text.h"
#include "tests/fuzz/fuzz.h"

#define HEAD_MAX 512u
#define BODY_MAX 256u

/* ---- framing */

static void check_frame(const struct http_frame *f, size_t fed, size_t size)
{
	FUZZ_CHECK(fed <= size);
	FUZZ_CHECK(f->state == FRAME_BAD || f->body_bytes <= BODY_MAX);
	if (f->state == FRAME_BAD) {
		FUZZ_CHECK(query_code_http_status(f->error.code) >= 400 && f->error.message[0] != '\0');
		FUZZ_CHECK(f->error.statement == -1);
	} else if (f->state != FRAME_COMPLETE) {
		FUZZ_CHECK(fed == size); /* else it would wait for ever */
	}
}

/* Feeds everything in pieces whose lengths follow from step; like conn.c, goes on where a head ended, and skips what need not
 * be seen of a piece. */
static size_t feed(struct http_frame *f, const uint8_t *data, size_t size, size_t step)
{
	size_t fed = 0, len, took;

	while (fed < size && f->state != FRAME_COMPLETE && f->state != FRAME_BAD) {
		len = step > 0 && step < size - fed ? step : size - fed;
		took = step > 0 ? http_frame_skip(f, len) : 0;
		if (took == 0)
			took = http_frame_feed(f, data + fed, len);
		FUZZ_CHECK(took <= len);
		FUZZ_CHECK(took > 0 || f->state == FRAME_COMPLETE || f->state == FRAME_BAD);
		fed += took;
	}
	return fed;
}

static void fuzz_frame(struct fuzz_in *in)
{
	size_t step = 1 + in_u8(in) % 16u;
	struct http_frame whole, pieces;
	size_t fed_whole, fed_pieces;

	http_frame_init(&whole, HEAD_MAX, BODY_MAX);
	http_frame_init(&pieces, HEAD_MAX, BODY_MAX);
	fed_whole = feed(&whole, in->p, in->left, 0);
	fed_pieces = feed(&pieces, in->p, in->left, step);
	check_frame(&whole, fed_whole, in->left);
	check_frame(&pieces, fed_pieces, in->left);
	FUZZ_CHECK(whole.state == pieces.state);
	if (whole.state == FRAME_COMPLETE) {
		FUZZ_CHECK(fed_whole == fed_pieces);
		FUZZ_CHECK(whole.body_bytes == pieces.body_bytes && whole.chunked == pieces.chunked);
		FUZZ_CHECK(whole.expect_continue == pieces.expect_continue);
		FUZZ_CHECK(whole.has_authorization == pieces.has_authorization);
	} else if (whole.state == FRAME_BAD) {
		FUZZ_CHECK(whole.error.code == pieces.error.code);
	}
	http_frame_reset(&whole);
	FUZZ_CHECK(whole.state == FRAME_START);
	http_frame_fini(&whole);
	http_frame_fini(&pieces);
}

/* ---- the body of POST /query */

static void check_value(const struct query_value *v)
{
	size_t i, sum = 0;

	switch (v->type) {
	case QUERY_NULL:
	case QUERY_INTEGER:
		return;
	case QUERY_REAL:
		FUZZ_CHECK(!isnan(v->real));
		return;
	case QUERY_TEXT:
	case QUERY_BLOB:
		for (i = 0; i < v->data.len; i++)
			sum += (uint8_t)v->data.bytes[i]; /* every byte may be read */
		FUZZ_CHECK(sum <= v->data.len * 255);
		return;
	}
	fuzz_fail("a value has a type", __FILE__, __LINE__);
}

static void check_request(const struct query_request *r, const struct query_request_limits *limits)
{
	size_t i, j;

	FUZZ_CHECK(r->statement_count >= 1 && r->statement_count <= limits->statements_max);
	FUZZ_CHECK(r->min_lsn == 0 || r->consistency != QUERY_STALE);
	FUZZ_CHECK(r->format <= QUERY_NDJSON && r->consistency <= QUERY_STALE);
	for (i = 0; i < r->statement_count; i++) {
		const struct query_statement *s = &r->statements[i];
		const char *end = s->sql + s->sql_len;

		FUZZ_CHECK(s->sql_len <= limits->sql_length_max && *end == '\0' && strlen(s->sql) == s->sql_len);
		FUZZ_CHECK(sql_skip_space(s->sql, end) <= end && sql_skip_blank(s->sql, end) <= end);
		FUZZ_CHECK(sql_verb(sql_skip_blank(s->sql, end), end) <= SQL_VERB_OTHER);
		sql_looks_several(s->sql, end);
		for (j = 0; j < s->param_count; j++)
			check_value(&s->params[j].value);
	}
}

static void fuzz_body(struct fuzz_in *in)
{
	const struct query_request_limits limits = {.sql_length_max = 200, .statements_max = 5};
	struct query_request *r;
	struct query_error error = {0};
	enum query_code code = query_request_parse(&r, in->p, in->left, &limits, &error);

	if (code == QUERY_OK) {
		check_request(r, &limits);
	} else {
		FUZZ_CHECK(r == NULL && error.code == code && error.message[0] != '\0');
		FUZZ_CHECK(code == QUERY_BAD_REQUEST || code == QUERY_TOO_LARGE);
		FUZZ_CHECK(error.statement >= -1 && error.statement < 5);
	}
	query_request_free(r);
}

/* ---- numbers */

static void check_real(double v)
{
	char text[NUMBER_TEXT_MAX + 1], printed[64];
	size_t len = number_put_real(text, v), digits = 0, i;
	double back;
	int precision;

	FUZZ_CHECK(len > 0 && len <= NUMBER_TEXT_MAX);
	text[len] = '\0';
	back = strtod(text, NULL);
	FUZZ_CHECK(memcmp(&back, &v, sizeof(v)) == 0); /* the sign of zero included */
	FUZZ_CHECK(strpbrk(text, ".eE") != NULL);
	for (precision = 1; precision < 17; precision++) {
		snprintf(printed, sizeof(printed), "%.*e", precision - 1, v);
		if (strtod(printed, NULL) == v)
			break;
	}
	for (i = 0; i < len && text[i] != 'e' && text[i] != 'E'; i++)
		if (text[i] >= '0' && text[i] <= '9' && (digits > 0 || text[i] != '0'))
			digits++;
	while (i > 0 && digits > 0 && (text[i - 1] == '0' || text[i - 1] == '.'))
		digits -= text[--i] == '0'; /* zeros at the end, before the exponent, are no information */
	FUZZ_CHECK(digits <= (size_t)precision);
}

static void fuzz_number(struct fuzz_in *in)
{
	uint64_t bits = in_u64(in);
	char text[NUMBER_TEXT_MAX + 1], expected[NUMBER_TEXT_MAX + 1];
	size_t len;
	double v;

	memcpy(&v, &bits, sizeof(v));
	if (isfinite(v))
		check_real(v);
	len = number_put_uint(text, bits);
	FUZZ_CHECK((size_t)snprintf(expected, sizeof(expected), "%llu", (unsigned long long)bits) == len);
	FUZZ_CHECK(memcmp(text, expected, len) == 0);
	len = number_put_int(text, (int64_t)bits);
	FUZZ_CHECK((size_t)snprintf(expected, sizeof(expected), "%lld", (long long)bits) == len);
	FUZZ_CHECK(memcmp(text, expected, len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};

	switch (in_u8(&in) % 4u) {
	case 0:
		fuzz_number(&in);
		break;
	case 1:
		fuzz_frame(&in);
		break;
	default:
		fuzz_body(&in);
	}
	return 0;
}

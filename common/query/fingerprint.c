/*
 * fingerprint.c - query_request_id_ok() and query_request_fingerprint() of request.h. Pure, cannot fail.
 *
 * Everything that enters the hash enters with its length and its type, so that no two requests run into the same bytes.
 * Named parameters are hashed one by one and combined with XOR: an object has no order, and some languages shuffle it.
 */
#include "common/query/request.h"

#include <string.h>
#include <xxhash.h>

#include "common/base/buf.h"

/* The length of the UTF-8 sequence at p and its code point; 0: malformed. left > 0. */
static size_t utf8_decode(const unsigned char *p, size_t left, uint32_t *code_point)
{
	static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len, i;

	*code_point = p[0];
	if (p[0] < 0x80)
		return 1;
	len = p[0] >= 0xf0 && p[0] < 0xf8 ? 4 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xc0 && p[0] < 0xe0 ? 2 : 0;
	if (len == 0 || len > left)
		return 0;
	*code_point &= 0x7fu >> len;
	for (i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		*code_point = *code_point << 6 | (p[i] & 0x3fu);
	}
	if (*code_point < smallest[len] || *code_point > 0x10ffff || (*code_point >= 0xd800 && *code_point <= 0xdfff))
		return 0;
	return len;
}

bool query_request_id_ok(const char *id, size_t len)
{
	const unsigned char *p = (const unsigned char *)id;
	uint32_t code_point;
	size_t at = 0, n;

	if (len == 0 || len > QUERY_REQUEST_ID_MAX)
		return false;
	for (; at < len; at += n) {
		n = utf8_decode(p + at, len - at, &code_point);
		if (n == 0 || code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0))
			return false;
	}
	return true;
}

/* A hash so far. Each item is hashed by itself and chained with what was before it; so it needs no memory. */
struct chain {
	XXH128_hash_t hash;
};

static void add_bytes(struct chain *c, const void *bytes, size_t len)
{
	XXH128_hash_t item = len > 0 ? XXH3_128bits(bytes, len) : (XXH128_hash_t){0, 0};
	uint8_t block[40];

	store_u64le(block, c->hash.low64);
	store_u64le(block + 8, c->hash.high64);
	store_u64le(block + 16, item.low64);
	store_u64le(block + 24, item.high64);
	store_u64le(block + 32, len);
	c->hash = XXH3_128bits(block, sizeof(block));
}

static void add_u64(struct chain *c, uint64_t v)
{
	uint8_t bytes[8];

	store_u64le(bytes, v);
	add_bytes(c, bytes, sizeof(bytes));
}

static void add_value(struct chain *c, const struct query_value *v)
{
	uint64_t bits;

	add_u64(c, (uint64_t)v->type);
	switch (v->type) {
	case QUERY_NULL:
		break;
	case QUERY_INTEGER:
		add_u64(c, (uint64_t)v->integer);
		break;
	case QUERY_REAL:
		memcpy(&bits, &v->real, sizeof(bits));
		add_u64(c, bits);
		break;
	case QUERY_TEXT:
	case QUERY_BLOB:
		add_bytes(c, v->data.bytes, v->data.len);
		break;
	}
}

static void add_params(struct chain *c, const struct query_statement *s)
{
	struct chain all = {0}, one;
	size_t i;

	add_u64(c, s->param_count);
	if (s->param_count == 0)
		return;
	add_u64(c, s->params[0].name != NULL);
	for (i = 0; i < s->param_count; i++) {
		if (s->params[i].name == NULL) {
			add_value(c, &s->params[i].value);
			continue;
		}
		memset(&one, 0, sizeof(one));
		add_bytes(&one, s->params[i].name, strlen(s->params[i].name));
		add_value(&one, &s->params[i].value);
		all.hash.low64 ^= one.hash.low64;
		all.hash.high64 ^= one.hash.high64;
	}
	add_u64(c, all.hash.low64);
	add_u64(c, all.hash.high64);
}

void query_request_fingerprint(const struct query_request *r, uint8_t out[QUERY_FINGERPRINT_SIZE])
{
	struct chain c = {0};
	size_t i;

	if (r->asked != NULL)
		r = r->asked;
	add_u64(&c, QUERY_FINGERPRINT_VERSION);
	add_u64(&c, (uint64_t)r->format);
	add_u64(&c, r->from_statements);
	add_u64(&c, r->statement_count);
	for (i = 0; i < r->statement_count; i++) {
		add_bytes(&c, r->statements[i].sql, r->statements[i].sql_len);
		add_params(&c, &r->statements[i]);
	}
	store_u64le(out, c.hash.low64);
	store_u64le(out + 8, c.hash.high64);
}

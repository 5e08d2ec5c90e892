/*
 * json_put.c - the JSON values of answer.h, written straight into a buffer. Called for every value of every row, so each
 * reserves once and copies runs. A failed allocation shows in out->failed.
 */
#include <math.h>

#include "common/query/answer.h"
#include "common/query/number.h"

#define ONES  0x0101010101010101u
#define HIGHS 0x8080808080808080u

/* True when one of eight bytes must not be copied as it is: control, quote, backslash, or not ASCII. A borrow may raise
 * a false alarm behind a true one, never hide one. */
static bool word_is_special(uint64_t w)
{
	uint64_t quote = w ^ ONES * '"';
	uint64_t backslash = w ^ ONES * '\\';

	return ((w | (w - ONES * 0x20) | (quote - ONES) | (backslash - ONES)) & HIGHS) != 0;
}

static bool byte_is_special(uint8_t c)
{
	return c < 0x20 || c == '"' || c == '\\' || c >= 0x80;
}

/* Length of the run from p that needs no care. */
static size_t plain_run(const uint8_t *p, size_t len)
{
	size_t i = 0;
	uint64_t w;

	for (; i + sizeof(w) <= len; i += sizeof(w)) {
		memcpy(&w, p + i, sizeof(w));
		if (word_is_special(w))
			break;
	}
	while (i < len && !byte_is_special(p[i]))
		i++;
	return i;
}

/* Length of the well-formed UTF-8 character at p (Unicode, table 3-7): 2 to 4, or 0. */
static size_t utf8_length(const uint8_t *p, size_t len)
{
	uint8_t low = 0x80, high = 0xBF;
	size_t need, i;

	if (p[0] >= 0xC2 && p[0] <= 0xDF)
		need = 2;
	else if (p[0] >= 0xE0 && p[0] <= 0xEF)
		need = 3;
	else if (p[0] >= 0xF0 && p[0] <= 0xF4)
		need = 4;
	else
		return 0;
	if (p[0] == 0xE0)
		low = 0xA0; /* shorter forms exist */
	else if (p[0] == 0xED)
		high = 0x9F; /* surrogates */
	else if (p[0] == 0xF0)
		low = 0x90;
	else if (p[0] == 0xF4)
		high = 0x8F; /* beyond U+10FFFF */
	if (len < need || p[1] < low || p[1] > high)
		return 0;
	for (i = 2; i < need; i++)
		if ((p[i] & 0xC0) != 0x80)
			return 0;
	return need;
}

static void put_escape(struct buf *out, uint8_t c)
{
	static const char hex[] = "0123456789abcdef";
	char escape[6] = {'\\', 0, '0', '0', hex[c >> 4], hex[c & 15]};

	switch (c) {
	case '"':
	case '\\':
		escape[1] = (char)c;
		break;
	case '\n':
		escape[1] = 'n';
		break;
	case '\r':
		escape[1] = 'r';
		break;
	case '\t':
		escape[1] = 't';
		break;
	default:
		escape[1] = 'u';
		buf_put(out, escape, 6);
		return;
	}
	buf_put(out, escape, 2);
}

/* Writes what is special at p and returns its length. */
static size_t put_special(struct buf *out, const uint8_t *p, size_t len)
{
	size_t n;

	if (p[0] < 0x80) {
		put_escape(out, p[0]);
		return 1;
	}
	n = utf8_length(p, len);
	if (n > 0)
		buf_put(out, p, n);
	else
		buf_put(out, "\xEF\xBF\xBD", 3);
	return n > 0 ? n : 1;
}

void json_put_string(struct buf *out, const char *s, size_t len)
{
	const uint8_t *p = (const uint8_t *)s;
	size_t run;

	if (!buf_reserve(out, len + 2))
		return;
	out->data[out->len++] = '"';
	while (len > 0 && !out->failed) {
		run = plain_run(p, len);
		buf_put(out, p, run);
		p += run;
		len -= run;
		while (len > 0 && byte_is_special(p[0]) && !out->failed) {
			size_t n = put_special(out, p, len);

			p += n;
			len -= n;
		}
	}
	buf_put(out, "\"", 1);
}

void json_put_int(struct buf *out, int64_t v)
{
	if (buf_reserve(out, NUMBER_TEXT_MAX))
		out->len += number_put_int((char *)out->data + out->len, v);
}

void json_put_real(struct buf *out, double v)
{
	if (isfinite(v)) {
		if (buf_reserve(out, NUMBER_TEXT_MAX))
			out->len += number_put_real((char *)out->data + out->len, v);
	} else if (isnan(v)) {
		buf_puts(out, "null");
	} else {
		buf_puts(out, v > 0 ? "{\"$real\":\"inf\"}" : "{\"$real\":\"-inf\"}");
	}
}

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void put_base64(uint8_t *at, const uint8_t *p, size_t len)
{
	uint32_t group;

	for (; len >= 3; len -= 3, p += 3, at += 4) {
		group = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
		at[0] = (uint8_t)base64_digits[group >> 18];
		at[1] = (uint8_t)base64_digits[group >> 12 & 63];
		at[2] = (uint8_t)base64_digits[group >> 6 & 63];
		at[3] = (uint8_t)base64_digits[group & 63];
	}
	if (len == 0)
		return;
	group = (uint32_t)p[0] << 16 | (len == 2 ? (uint32_t)p[1] << 8 : 0);
	at[0] = (uint8_t)base64_digits[group >> 18];
	at[1] = (uint8_t)base64_digits[group >> 12 & 63];
	at[2] = len == 2 ? (uint8_t)base64_digits[group >> 6 & 63] : '=';
	at[3] = '=';
}

void json_put_blob(struct buf *out, const void *bytes, size_t len)
{
	size_t encoded = len / 3 * 4 + (len % 3 != 0 ? 4 : 0);

	buf_puts(out, "{\"$blob\":\"");
	if (!buf_reserve(out, encoded))
		return;
	put_base64(out->data + out->len, bytes, len);
	out->len += encoded;
	buf_puts(out, "\"}");
}

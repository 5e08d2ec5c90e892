/*
 * json_text.c - see json_text.h. What is UTF-8: RFC 3629, section 4 (no overlong forms, no surrogates, up to U+10FFFF).
 */
#include "common/remote/json_text.h"

#include <stddef.h>
#include <string.h>

/* c is no ASCII and begins a character. */
static bool begin_character(struct json_text *t, uint8_t c)
{
	t->low = 0x80;
	t->high = 0xbf;
	if (c >= 0xc2 && c <= 0xdf) {
		t->more = 1;
	} else if (c >= 0xe0 && c <= 0xef) {
		t->more = 2;
		t->low = c == 0xe0 ? 0xa0 : 0x80;
		t->high = c == 0xed ? 0x9f : 0xbf;
	} else if (c >= 0xf0 && c <= 0xf4) {
		t->more = 3;
		t->low = c == 0xf0 ? 0x90 : 0x80;
		t->high = c == 0xf4 ? 0x8f : 0xbf;
	} else {
		return false;
	}
	return true;
}

static bool continue_character(struct json_text *t, uint8_t c)
{
	if (c < t->low || c > t->high)
		return false;
	t->more--;
	t->low = 0x80;
	t->high = 0xbf;
	return true;
}

static bool is_hex(uint8_t c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* One byte that is not plain ASCII by itself; NULL, or what is wrong. */
static const char *take_byte(struct json_text *t, uint8_t c)
{
	if (t->more > 0)
		return continue_character(t, c) ? NULL : "a text is not UTF-8";
	if (t->escaped) {
		t->escaped = false;
		t->hex_left = c == 'u' ? 4 : 0;
		return c != '\0' && strchr("\"\\/bfnrtu", c) != NULL ? NULL : "a text has an unknown escape";
	}
	if (t->hex_left > 0) {
		t->hex_left--;
		return is_hex(c) ? NULL : "a text has a malformed escape";
	}
	if (c < 0x20)
		return "a control character stands in a text";
	if (c == '\\')
		t->escaped = true;
	else if (c >= 0x80 && !begin_character(t, c))
		return "a text is not UTF-8";
	return NULL;
}

/* The first byte from p on that is not plain ASCII by itself; end when there is none before it. */
static const char *find_not_plain(const char *p, const char *end)
{
	const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
	uint64_t w, quote, backslash;

	for (; (size_t)(end - p) >= sizeof(w); p += sizeof(w)) {
		memcpy(&w, p, sizeof(w));
		quote = w ^ ones * '"';
		backslash = w ^ ones * '\\';
		if (((w | (quote - ones) | (backslash - ones) | (w - ones * 0x20)) & highs) != 0)
			break; /* one of these eight, perhaps */
	}
	while (p < end && *p != '"' && *p != '\\' && (uint8_t)*p >= 0x20 && (uint8_t)*p < 0x80)
		p++;
	return p;
}

const char *json_text_take(struct json_text *t, const char *p, const char *end, bool *done, const char **wrong)
{
	*done = false;
	while (p < end) {
		bool plain = !t->escaped && t->hex_left == 0 && t->more == 0;

		if (plain)
			p = find_not_plain(p, end);
		if (p == end)
			break;
		if (plain && *p == '"') {
			*done = true;
			return p + 1;
		}
		*wrong = take_byte(t, (uint8_t)*p++);
		if (*wrong != NULL)
			return NULL;
	}
	return p;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static const char *skip_digits(const char *p)
{
	while (is_digit(*p))
		p++;
	return p;
}

/* Where the number at p ends; NULL: it is none. A byte that is none of a number stands behind it. */
static const char *number_end(const char *p)
{
	const char *from;

	if (*p == '-')
		p++;
	from = p;
	p = skip_digits(p);
	if (p == from || (*from == '0' && p > from + 1))
		return NULL;
	if (*p == '.') {
		from = ++p;
		p = skip_digits(p);
		if (p == from)
			return NULL;
	}
	if (*p == 'e' || *p == 'E') {
		p++;
		if (*p == '-' || *p == '+')
			p++;
		from = p;
		p = skip_digits(p);
		if (p == from)
			return NULL;
	}
	return p;
}

bool json_text_is_scalar(const char *p, const char *end)
{
	if (*p == '-' || is_digit(*p))
		return number_end(p) == end;
	return (end - p == 4 && (memcmp(p, "null", 4) == 0 || memcmp(p, "true", 4) == 0)) ||
	       (end - p == 5 && memcmp(p, "false", 5) == 0);
}

/*
 * rows_json.c - see rows_form.h: answers of format "rows" as JSON.
 *
 * A state machine whose steps each take one token; a token that is cut stays until the rest of it comes. Texts are unescaped
 * and blobs decoded where they stand, for neither grows. Of the answer and of its results the keys that matter are looked
 * at; values of others are passed over without being kept. Stricter than JSON where our nodes are: no duplicate of a key
 * that matters, columns and types before rows, a row count for each result, integers within 64 bits.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/query/base64.h"
#include "common/query/json_scan.h"
#include "common/remote/rows_form.h"

#define NUMBER_MAX 64u  /* bytes of a number; ours have at most 25 */
#define KEY_MAX    256u /* bytes of a key as it comes */
#define DEPTH_MAX  30u  /* brackets open in a value that is passed over */

enum state {
	ST_BEGIN, /* before the answer's { */
	ST_FIRST_KEY,
	ST_KEY,
	ST_COLON,
	ST_VALUE,
	ST_AFTER_VALUE, /* , or } of the answer or a result */
	ST_SKIP,        /* in a value of no interest */
	ST_FIRST_RESULT,
	ST_RESULT,
	ST_AFTER_RESULT,
	ST_FIRST_NAME,
	ST_NAME,
	ST_AFTER_NAME,
	ST_FIRST_ROW,
	ST_ROW,
	ST_AFTER_ROW,
	ST_ROW_ENDED, /* the row was handed out */
	ST_FIRST_ITEM,
	ST_ITEM,
	ST_AFTER_ITEM,
	ST_END, /* behind the answer's } */
};

enum key {
	KEY_OTHER,
	KEY_STATUS,
	KEY_RESULTS,
	KEY_COLUMNS,
	KEY_TYPES,
	KEY_ROWS,
	KEY_ROW_COUNT,
	KEY_LSN,
	KEY_CODE,
	KEY_MESSAGE,
	KEY_STATEMENT,
	KEY_COUNT
};

static const char *const key_names[KEY_COUNT] = {
    [KEY_STATUS] = "status",   [KEY_RESULTS] = "results",     [KEY_COLUMNS] = "columns", [KEY_TYPES] = "types",
    [KEY_ROWS] = "rows",       [KEY_ROW_COUNT] = "row_count", [KEY_LSN] = "lsn",         [KEY_CODE] = "code",
    [KEY_MESSAGE] = "message", [KEY_STATEMENT] = "statement"};

#define BIT(key) (1u << (key))

static enum rows_take bad(struct rows_reader *r, const char *why)
{
	rows_broken(r, why);
	return ROWS_BAD;
}

static const char *at(const struct rows_reader *r, size_t offset)
{
	return (const char *)r->in.data + offset;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* False: nothing but spaces is left. */
static bool skip_spaces(struct rows_reader *r)
{
	while (r->pos < r->in.len && is_space(*at(r, r->pos)))
		r->pos++;
	return r->pos < r->in.len;
}

/* ---- texts */

/* The text whose quote stands at offset `quote`. ROWS_TOOK: it ends before *behind, which is past its other quote, and
 * *escaped tells whether it is to be unescaped. */
static enum rows_take find_text_end(struct rows_reader *r, size_t quote, size_t *behind, bool *escaped)
{
	const char *start = at(r, 0), *end = start + r->in.len;
	const char *p = start + (r->scan > quote ? r->scan : quote + 1);

	if (r->scan <= quote)
		r->scan_escaped = false;
	for (;;) {
		p = json_find_special(p, end);
		if (p < end && *p == '"') {
			r->scan = 0;
			*escaped = r->scan_escaped;
			*behind = (size_t)(p + 1 - start);
			return ROWS_TOOK;
		}
		if (p < end && *p != '\\')
			return bad(r, "a control character stands in a text");
		if (end - p < 2) {
			r->scan = (size_t)(p - start);
			return ROWS_CUT;
		}
		r->scan_escaped = true;
		p += 2;
	}
}

/* The four hex digits at p; -1: they are none. */
static int32_t hex4(const char *p)
{
	int32_t v = 0;
	int i;

	for (i = 0; i < 4; i++) {
		char c = p[i];

		if (c >= '0' && c <= '9')
			v = v << 4 | (c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			v = v << 4 | ((c | 0x20) - 'a' + 10);
		else
			return -1;
	}
	return v;
}

static char *put_utf8(char *out, uint32_t c)
{
	if (c < 0x80) {
		*out++ = (char)c;
	} else if (c < 0x800) {
		*out++ = (char)(0xC0 | c >> 6);
		*out++ = (char)(0x80 | (c & 63));
	} else if (c < 0x10000) {
		*out++ = (char)(0xE0 | c >> 12);
		*out++ = (char)(0x80 | (c >> 6 & 63));
		*out++ = (char)(0x80 | (c & 63));
	} else {
		*out++ = (char)(0xF0 | c >> 18);
		*out++ = (char)(0x80 | (c >> 12 & 63));
		*out++ = (char)(0x80 | (c >> 6 & 63));
		*out++ = (char)(0x80 | (c & 63));
	}
	return out;
}

/* The \uXXXX, or pair of them, whose first digit is at *p, which moves behind it. NULL: it is none. */
static char *put_unicode(char *out, const char **p, const char *end)
{
	int32_t low, c = end - *p >= 4 ? hex4(*p) : -1;

	if (c < 0 || (c >= 0xDC00 && c <= 0xDFFF))
		return NULL;
	*p += 4;
	if (c < 0xD800 || c > 0xDBFF)
		return put_utf8(out, (uint32_t)c);
	if (end - *p < 6 || (*p)[0] != '\\' || (*p)[1] != 'u')
		return NULL;
	low = hex4(*p + 2);
	if (low < 0xDC00 || low > 0xDFFF)
		return NULL;
	*p += 6;
	return put_utf8(out, 0x10000u + ((uint32_t)(c - 0xD800) << 10) + (uint32_t)(low - 0xDC00));
}

/* Unescapes len bytes in place. The new length, or SIZE_MAX. */
static size_t unescape(char *text, size_t len)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *p = text, *end = text + len, *which;
	char *out = text;

	while (p < end) {
		if (*p != '\\') {
			*out++ = *p++;
			continue;
		}
		p++; /* find_text_end() saw that something follows */
		if (*p == 'u') {
			p++;
			out = put_unicode(out, &p, end);
			if (out == NULL)
				return SIZE_MAX;
			continue;
		}
		which = *p != '\0' ? strchr(from, *p) : NULL;
		if (which == NULL)
			return SIZE_MAX;
		*out++ = to[which - from];
		p++;
	}
	return (size_t)(out - text);
}

/* The text that begins at pos with its quote; pos moves behind it. */
static enum rows_take take_text(struct rows_reader *r, size_t *start, size_t *len)
{
	size_t behind;
	bool escaped;
	enum rows_take take = find_text_end(r, r->pos, &behind, &escaped);

	if (take != ROWS_TOOK)
		return take;
	*start = r->pos + 1;
	*len = behind - 1 - *start;
	if (escaped)
		*len = unescape((char *)r->in.data + *start, *len);
	if (*len == SIZE_MAX)
		return bad(r, "an escape in a text is none");
	r->pos = behind;
	return ROWS_TOOK;
}

/* ---- numbers */

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* What a number's text says: digits of it as an integer, while they fit, and the power of ten that it stands for. */
struct number {
	bool negative, is_real, exact;
	uint64_t digits;
	int power;
};

static const char *gather_digits(struct number *n, const char *p, int power)
{
	for (; is_digit(*p); p++) {
		n->power += power;
		if (n->digits > (UINT64_MAX - 9) / 10)
			n->exact = false;
		else
			n->digits = n->digits * 10 + (uint64_t)(*p - '0');
	}
	return p;
}

/* p is a number's text behind which a byte stands that is none of a number. False: it is not JSON's. */
static bool scan_number(struct number *n, const char *p, const char *end)
{
	const char *from;
	int power = 0;
	bool negative;

	*n = (struct number){.exact = true, .negative = *p == '-'};
	p += n->negative;
	from = p;
	p = gather_digits(n, p, 0);
	if (p == from || (*from == '0' && p > from + 1))
		return false;
	if (*p == '.') {
		n->is_real = true;
		from = ++p;
		p = gather_digits(n, p, -1);
		if (p == from)
			return false;
	}
	if (*p == 'e' || *p == 'E') {
		n->is_real = true;
		p++;
		negative = *p == '-';
		p += *p == '-' || *p == '+';
		from = p;
		for (; is_digit(*p); p++)
			power = power < 10000 ? power * 10 + (*p - '0') : power;
		if (p == from)
			return false;
		n->power += negative ? -power : power;
	}
	return p == end;
}

/* Exact when both the digits and the power are exact doubles, for then there is one rounding; else as strtod() says. */
static double real_of(const struct number *n, const char *text)
{
	static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
					1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
	double v;

	if (!n->exact || n->digits > (uint64_t)1 << 53 || n->power < -22 || n->power > 22)
		return strtod(text, NULL);
	v = (double)n->digits;
	v = n->power < 0 ? v / powers[-n->power] : v * powers[n->power];
	return n->negative ? -v : v;
}

static bool integer_of(const struct number *n, int64_t *out)
{
	if (!n->exact || n->is_real || n->digits > (uint64_t)INT64_MAX + n->negative)
		return false;
	*out = n->negative ? (int64_t)(0 - n->digits) : (int64_t)n->digits;
	return true;
}

static bool is_number_byte(char c)
{
	return is_digit(c) || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E';
}

static enum rows_take take_number(struct rows_reader *r, struct query_value *v)
{
	const char *p = at(r, r->pos), *end = at(r, r->in.len), *behind = p;
	struct number n;

	while (behind < end && is_number_byte(*behind))
		behind++;
	if ((size_t)(behind - p) > NUMBER_MAX)
		return bad(r, "a number is too long");
	if (behind == end)
		return ROWS_CUT;
	if (!scan_number(&n, p, behind))
		return bad(r, "a value is none");
	if (n.is_real) {
		v->type = QUERY_REAL;
		v->real = real_of(&n, p);
		if (!isfinite(v->real))
			return bad(r, "a real is out of range");
	} else {
		v->type = QUERY_INTEGER;
		if (!integer_of(&n, &v->integer))
			return bad(r, "an integer has more than 64 bits");
	}
	r->pos += (size_t)(behind - p);
	return ROWS_TOOK;
}

/* ---- values of rows */

/* The word at pos; ROWS_CUT only while what has come fits it. */
static enum rows_take take_word(struct rows_reader *r, const char *word)
{
	size_t len = strlen(word), have = r->in.len - r->pos;

	if (memcmp(at(r, r->pos), word, have < len ? have : len) != 0)
		return bad(r, "a value is none");
	if (have < len)
		return ROWS_CUT;
	r->pos += len;
	return ROWS_TOOK;
}

/* {"$blob":"…"} or {"$real":"…"}, without spaces, as our nodes write it. pos stays until all of it is there. */
static enum rows_take take_tagged(struct rows_reader *r, struct query_value *v, size_t *v_at)
{
	static const char blob_head[] = "{\"$blob\":\"", real_head[] = "{\"$real\":\"";
	const size_t head = sizeof(blob_head) - 1;
	size_t have = r->in.len - r->pos < head ? r->in.len - r->pos : head;
	bool is_blob = memcmp(at(r, r->pos), blob_head, have) == 0;
	size_t text, behind;
	enum rows_take take;
	bool escaped;

	if (!is_blob && memcmp(at(r, r->pos), real_head, have) != 0)
		return bad(r, "a value is none");
	if (have < head)
		return ROWS_CUT;
	text = r->pos + head;
	take = find_text_end(r, text - 1, &behind, &escaped);
	if (take != ROWS_TOOK)
		return take;
	if (behind == r->in.len) {
		r->scan = behind - 1; /* the brace is missing */
		r->scan_escaped = escaped;
		return ROWS_CUT;
	}
	if (*at(r, behind) != '}' || escaped)
		return bad(r, "a value is none");
	r->pos = behind + 1;
	if (is_blob) {
		v->type = QUERY_BLOB;
		*v_at = text;
		if (!base64_decode(r->in.data + text, &v->data.len, at(r, text), behind - 1 - text))
			return bad(r, "a blob is not base64");
		return ROWS_TOOK;
	}
	v->type = QUERY_REAL;
	v->real = *at(r, text) == '-' ? -INFINITY : INFINITY;
	text += *at(r, text) == '-';
	if (behind - 1 - text != 3 || memcmp(at(r, text), "inf", 3) != 0)
		return bad(r, "a value is none");
	return ROWS_TOOK;
}

/* The value at pos, into the row. */
static enum rows_take take_item(struct rows_reader *r)
{
	size_t *v_at = &r->value_at[r->value_count];
	struct query_value *v = &r->values[r->value_count];
	enum rows_take take;
	char c = *at(r, r->pos);

	*v_at = 0;
	if (c == '"') {
		v->type = QUERY_TEXT;
		take = take_text(r, v_at, &v->data.len);
	} else if (c == '-' || is_digit(c)) {
		take = take_number(r, v);
	} else if (c == '{') {
		take = take_tagged(r, v, v_at);
	} else {
		v->type = QUERY_NULL;
		take = take_word(r, "null");
	}
	r->value_count += take == ROWS_TOOK;
	return take;
}

/* ---- values that are passed over */

static enum rows_take begin_skip(struct rows_reader *r)
{
	char c = *at(r, r->pos);

	if (c == ',' || c == '}' || c == ']')
		return bad(r, "a value is expected");
	r->json.skip_depth = 0;
	r->json.skip_kinds = 0;
	r->json.skip_string = r->json.skip_slash = false;
	r->json.state = ST_SKIP;
	return ROWS_TOOK;
}

/* A bracket. */
static bool skip_bracket(struct rows_json *j, char c)
{
	bool is_object = c == '{' || c == '}';

	if (c == '{' || c == '[') {
		j->skip_kinds = j->skip_kinds << 1 | is_object;
		return ++j->skip_depth <= DEPTH_MAX;
	}
	if (j->skip_depth == 0 || (j->skip_kinds & 1) != is_object)
		return false;
	j->skip_kinds >>= 1;
	j->skip_depth--;
	return true;
}

/* Goes on in a value of no interest. It ends before a comma or bracket that is not its own. */
static enum rows_take skip_value(struct rows_reader *r)
{
	struct rows_json *j = &r->json;
	char c;

	for (; r->pos < r->in.len; r->pos++) {
		c = *at(r, r->pos);
		if (j->skip_string) {
			if (j->skip_slash)
				j->skip_slash = false;
			else if (c == '\\')
				j->skip_slash = true;
			else if (c == '"')
				j->skip_string = false;
		} else if (j->skip_depth == 0 && (c == ',' || c == '}' || c == ']')) {
			j->state = ST_AFTER_VALUE;
			return ROWS_TOOK;
		} else if (c == '"') {
			j->skip_string = true;
		} else if ((c == '{' || c == '[' || c == '}' || c == ']') && !skip_bracket(j, c)) {
			return bad(r, "its brackets do not match");
		}
	}
	return ROWS_CUT;
}

/* ---- members of the answer and of its results */

static enum rows_take take_key(struct rows_reader *r)
{
	struct rows_json *j = &r->json;
	size_t start, len, quote = r->pos;
	unsigned key;
	enum rows_take take = take_text(r, &start, &len);

	if (take == ROWS_CUT ? r->in.len - r->pos > KEY_MAX : take == ROWS_TOOK && r->pos - quote > KEY_MAX)
		return bad(r, "a key is too long");
	if (take != ROWS_TOOK)
		return take;
	for (key = KEY_COUNT - 1; key > KEY_OTHER; key--)
		if (strlen(key_names[key]) == len && memcmp(key_names[key], at(r, start), len) == 0)
			break;
	j->key = key;
	j->state = ST_COLON;
	return ROWS_TOOK;
}

static enum rows_take take_count(struct rows_reader *r, uint64_t *out)
{
	struct query_value v;
	enum rows_take take = take_number(r, &v);

	if (take != ROWS_TOOK)
		return take;
	if (v.type != QUERY_INTEGER || v.integer < 0)
		return bad(r, "a count is none");
	*out = (uint64_t)v.integer;
	r->json.state = ST_AFTER_VALUE;
	return ROWS_TOOK;
}

static enum rows_take take_row_count(struct rows_reader *r)
{
	uint64_t count;
	enum rows_take take = take_count(r, &count);

	if (take == ROWS_TOOK && count != r->result_rows)
		return bad(r, "it has not as many rows as it says");
	return take;
}

static enum rows_take take_statement(struct rows_reader *r)
{
	uint64_t statement;
	enum rows_take take = take_count(r, &statement);

	if (take == ROWS_TOOK && statement <= INT32_MAX)
		r->error.statement = (int)statement;
	return take;
}

/* "status", "code", "message". */
static enum rows_take take_words(struct rows_reader *r)
{
	struct rows_json *j = &r->json;
	size_t start, len, quote = r->pos;
	enum rows_take take;

	if (*at(r, r->pos) != '"')
		return bad(r, "a text is expected");
	take = take_text(r, &start, &len);
	if (take == ROWS_CUT ? r->in.len - r->pos > ROWS_MESSAGE_MAX
			     : take == ROWS_TOOK && r->pos - quote > ROWS_MESSAGE_MAX)
		return bad(r, "a message is too long");
	if (take != ROWS_TOOK)
		return take;
	j->state = ST_AFTER_VALUE;
	if (j->key == KEY_CODE) {
		r->error.code = rows_error_code(at(r, start), len);
	} else if (j->key == KEY_MESSAGE) {
		rows_set_error_message(r, at(r, start), len);
	} else if (len == 2 && memcmp(at(r, start), "ok", 2) == 0) {
		j->status = ROWS_STATUS_OK;
	} else if (len == 5 && memcmp(at(r, start), "error", 5) == 0) {
		j->status = ROWS_STATUS_ERROR;
	} else {
		return bad(r, "its status is none");
	}
	return ROWS_TOOK;
}

static enum rows_take open_array(struct rows_reader *r, enum state state)
{
	if (*at(r, r->pos) != '[')
		return bad(r, "an array is expected");
	r->pos++;
	r->json.state = state;
	return ROWS_TOOK;
}

/* Columns and types, in this order. */
static enum rows_take open_names(struct rows_reader *r)
{
	struct rows_json *j = &r->json;

	if (j->key == KEY_COLUMNS)
		rows_begin_columns(r);
	else if (!(j->seen & BIT(KEY_COLUMNS)))
		return bad(r, "types come before columns");
	j->names_are_types = j->key == KEY_TYPES;
	return open_array(r, ST_FIRST_NAME);
}

/* The value of a key that matters. *event is what opening it means. */
static enum rows_take take_known(struct rows_reader *r, enum rows_event *event)
{
	struct rows_json *j = &r->json;
	enum rows_take take;

	switch (j->key) {
	case KEY_COLUMNS:
	case KEY_TYPES:
		return open_names(r);
	case KEY_ROWS:
		if (!(j->seen & BIT(KEY_TYPES)))
			return bad(r, "rows come before their types");
		take = open_array(r, ST_FIRST_ROW);
		if (take == ROWS_TOOK)
			*event = rows_begin_result(r);
		return take;
	case KEY_RESULTS:
		j->has_results = true;
		return open_array(r, ST_FIRST_RESULT);
	case KEY_ROW_COUNT:
		if (!(j->seen & BIT(KEY_ROWS)))
			return bad(r, "a row count comes before the rows");
		return take_row_count(r);
	case KEY_LSN:
		return take_count(r, &r->lsn);
	case KEY_STATEMENT:
		return take_statement(r);
	default:
		return take_words(r);
	}
}

static bool is_of_result(unsigned key)
{
	return key == KEY_COLUMNS || key == KEY_TYPES || key == KEY_ROWS || key == KEY_ROW_COUNT;
}

/* The keys of a result matter in it, and in the answer itself when that has no `results`; the others there. */
static enum rows_take take_value(struct rows_reader *r, enum rows_event *event)
{
	struct rows_json *j = &r->json;
	unsigned *seen = is_of_result(j->key) ? &j->seen : &j->keys_seen;
	enum rows_take take;

	if (j->key == KEY_OTHER || (j->in_result && seen == &j->keys_seen))
		return begin_skip(r);
	if ((*seen & BIT(j->key)) != 0)
		return bad(r, "a key comes twice");
	if (!j->in_result && (j->has_results ? seen == &j->seen : j->key == KEY_RESULTS && j->seen != 0))
		return bad(r, "rows stand beside results");
	take = take_known(r, event);
	if (take == ROWS_TOOK)
		*seen |= BIT(j->key);
	return take;
}

/* A result without rows is one of a statement that wrote. */
static enum rows_take end_result(struct rows_reader *r, enum rows_event *event)
{
	struct rows_json *j = &r->json;

	if ((j->seen & BIT(KEY_ROWS)) != 0) {
		j->uncounted |= (j->seen & BIT(KEY_ROW_COUNT)) == 0;
		return ROWS_TOOK;
	}
	if (j->seen != 0)
		return bad(r, "a result has columns and no rows");
	rows_begin_columns(r);
	*event = rows_begin_result(r);
	return ROWS_TOOK;
}

static enum rows_take end_answer(struct rows_reader *r, enum rows_event *event)
{
	struct rows_json *j = &r->json;

	j->state = ST_END;
	if (j->status == ROWS_STATUS_NONE)
		return bad(r, "it has no status");
	if (j->status == ROWS_STATUS_ERROR) {
		if ((j->keys_seen & BIT(KEY_CODE)) == 0)
			return bad(r, "an error has no code");
		*event = rows_ended(r, true);
		return ROWS_TOOK;
	}
	if (!j->has_results && end_result(r, event) != ROWS_TOOK)
		return ROWS_BAD;
	return j->uncounted ? bad(r, "it has no row count") : ROWS_TOOK;
}

/* ---- steps */

/* Where lists of things are: the state before the first, before a next, and behind one. */
static enum rows_take separator(struct rows_reader *r, char closes, enum state next, enum state closed)
{
	char c = *at(r, r->pos);

	if (c != ',' && c != closes)
		return bad(r, "a comma is expected");
	r->pos++;
	r->json.state = c == ',' ? next : closed;
	return ROWS_TOOK;
}

/* Whether the list ends before its first thing. */
static bool is_empty(struct rows_reader *r, char closes, enum state closed)
{
	if (*at(r, r->pos) != closes)
		return false;
	r->pos++;
	r->json.state = closed;
	return true;
}

static enum rows_take step_object(struct rows_reader *r, enum rows_event *event)
{
	struct rows_json *j = &r->json;
	bool closes = *at(r, r->pos) == '}';

	if (j->state == ST_COLON) {
		if (*at(r, r->pos++) != ':')
			return bad(r, "a colon is expected");
		j->state = ST_VALUE;
		return ROWS_TOOK;
	}
	if (j->state == ST_VALUE)
		return take_value(r, event);
	if (closes && j->state != ST_KEY) {
		r->pos++;
		if (!j->in_result)
			return end_answer(r, event);
		j->state = ST_AFTER_RESULT;
		j->in_result = false;
		if (end_result(r, event) != ROWS_TOOK)
			return ROWS_BAD;
		j->seen = 0;
		return ROWS_TOOK;
	}
	if (j->state == ST_AFTER_VALUE)
		return separator(r, '}', ST_KEY, ST_KEY);
	return *at(r, r->pos) == '"' ? take_key(r) : bad(r, "a key is expected");
}

static enum rows_take step_results(struct rows_reader *r)
{
	struct rows_json *j = &r->json;

	if (j->state == ST_AFTER_RESULT)
		return separator(r, ']', ST_RESULT, ST_AFTER_VALUE);
	if (j->state == ST_FIRST_RESULT && is_empty(r, ']', ST_AFTER_VALUE))
		return ROWS_TOOK;
	if (*at(r, r->pos++) != '{')
		return bad(r, "a result is expected");
	j->in_result = true;
	j->seen = 0;
	j->state = ST_FIRST_KEY;
	return ROWS_TOOK;
}

static enum rows_take step_names(struct rows_reader *r)
{
	struct rows_json *j = &r->json;
	enum rows_take take;
	size_t start, len;

	if (j->state == ST_AFTER_NAME)
		return separator(r, ']', ST_NAME, ST_AFTER_VALUE);
	if (j->state == ST_FIRST_NAME && is_empty(r, ']', ST_AFTER_VALUE))
		return ROWS_TOOK;
	if (*at(r, r->pos) != '"')
		return bad(r, "a text is expected");
	take = take_text(r, &start, &len);
	if (take != ROWS_TOOK)
		return take;
	j->state = ST_AFTER_NAME;
	return rows_add_name(r, j->names_are_types, at(r, start), len) ? ROWS_TOOK : ROWS_BAD;
}

static enum rows_take step_rows(struct rows_reader *r)
{
	struct rows_json *j = &r->json;

	if (j->state == ST_AFTER_ROW)
		return separator(r, ']', ST_ROW, ST_AFTER_VALUE);
	if (j->state == ST_FIRST_ROW && is_empty(r, ']', ST_AFTER_VALUE))
		return ROWS_TOOK;
	if (*at(r, r->pos) != '[')
		return bad(r, "a row is expected");
	rows_begin_row(r);
	r->pos++;
	j->state = ST_FIRST_ITEM;
	return ROWS_TOOK;
}

/* In a row; as much of it as is there. */
static enum rows_take step_items(struct rows_reader *r, enum rows_event *event)
{
	struct rows_json *j = &r->json;
	enum rows_take take = ROWS_TOOK;

	while (take == ROWS_TOOK && skip_spaces(r)) {
		char c = *at(r, r->pos);

		if (j->state == ST_AFTER_ITEM || (c == ']' && j->state == ST_FIRST_ITEM)) {
			if (c == ']' && r->value_count < r->column_count)
				return bad(r, "a row has fewer values than columns");
			take = separator(r, ']', ST_ITEM, ST_ROW_ENDED);
			if (j->state == ST_ROW_ENDED) {
				*event = rows_row_complete(r);
				return ROWS_TOOK;
			}
		} else if (r->value_count == r->column_count) {
			return bad(r, "a row has more values than columns");
		} else {
			take = take_item(r);
			if (take == ROWS_TOOK)
				j->state = ST_AFTER_ITEM;
		}
	}
	return take == ROWS_TOOK ? ROWS_CUT : take;
}

static enum rows_take step(struct rows_reader *r, enum rows_event *event)
{
	struct rows_json *j = &r->json;

	if (j->state == ST_SKIP)
		return skip_value(r);
	if (!skip_spaces(r))
		return ROWS_CUT;
	if (j->state == ST_BEGIN) {
		if (*at(r, r->pos++) != '{')
			return bad(r, "it does not begin with {");
		j->state = ST_FIRST_KEY;
		return ROWS_TOOK;
	}
	if (j->state == ST_END)
		return bad(r, "something follows its end");
	if (j->state >= ST_FIRST_ITEM)
		return step_items(r, event);
	if (j->state >= ST_FIRST_ROW)
		return step_rows(r);
	if (j->state >= ST_FIRST_NAME)
		return step_names(r);
	if (j->state >= ST_FIRST_RESULT)
		return step_results(r);
	return step_object(r, event);
}

enum rows_event rows_json_next(struct rows_reader *r)
{
	enum rows_event event = ROWS_MORE;
	enum rows_take take = ROWS_TOOK;

	if (r->json.state == ST_ROW_ENDED) {
		r->in_row = false;
		r->json.state = ST_AFTER_ROW;
	}
	while (take == ROWS_TOOK && event == ROWS_MORE)
		take = step(r, &event);
	if (take == ROWS_BAD)
		return r->end;
	if (take == ROWS_CUT && r->finished && r->json.state == ST_END)
		return rows_ended(r, false);
	return event;
}

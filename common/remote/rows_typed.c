/*
 * rows_typed.c - see rows_form.h: answers in the typed form of typed_rows.h.
 *
 * Takes mark by mark, and in a row value by value; one that is cut stays until the rest of it comes. What is not written as
 * typed_rows.c would write it is refused.
 */
#include <math.h>
#include <string.h>

#include "common/remote/rows_form.h"

#define CODE_MAX 64u /* bytes of an error's code */

enum state {
	ST_MAGIC,
	ST_BETWEEN, /* a result, or the end */
	ST_NAMES,   /* names and types of columns */
	ST_ROWS,    /* a row, or the end of the result */
	ST_ITEMS,   /* values of a row */
	ST_ROW_ENDED,
	ST_END,
};

/* A place in what was fed, that is taken over when all of something was there. */
struct cursor {
	const uint8_t *p, *end;
};

static enum rows_take bad(struct rows_reader *r, const char *why)
{
	rows_broken(r, why);
	return ROWS_BAD;
}

static struct cursor cursor_of(const struct rows_reader *r)
{
	return (struct cursor){r->in.data + r->pos, r->in.data + r->in.len};
}

static enum rows_take took(struct rows_reader *r, const struct cursor *c)
{
	r->pos = (size_t)(c->p - r->in.data);
	return ROWS_TOOK;
}

static enum rows_take take_number(struct rows_reader *r, struct cursor *c, uint64_t *out)
{
	uint64_t v = 0;
	unsigned shift;

	for (shift = 0; c->p < c->end; shift += 7) {
		uint8_t byte = *c->p++;

		if (shift == 63 && byte > 1)
			return bad(r, "a number is too large");
		v |= (uint64_t)(byte & 0x7F) << shift;
		if (byte < 0x80) {
			*out = v;
			return byte == 0 && shift > 0 ? bad(r, "a number is longer than it need be") : ROWS_TOOK;
		}
	}
	return ROWS_CUT;
}

/* A length, which is at most max, and so many bytes. */
static enum rows_take take_bytes(struct rows_reader *r, struct cursor *c, size_t max, const char **bytes, size_t *len)
{
	uint64_t n;
	enum rows_take take = take_number(r, c, &n);

	if (take != ROWS_TOOK)
		return take;
	if (n > max) {
		rows_too_large(r, "a part");
		return ROWS_BAD;
	}
	if ((size_t)(c->end - c->p) < n)
		return ROWS_CUT;
	*bytes = (const char *)c->p;
	*len = (size_t)n;
	c->p += n;
	return ROWS_TOOK;
}

/* ---- marks */

static enum rows_take take_magic(struct rows_reader *r)
{
	size_t have = r->in.len - r->pos < TYPED_ROWS_MAGIC_LEN ? r->in.len - r->pos : TYPED_ROWS_MAGIC_LEN;

	if (have > 0 && memcmp(r->in.data + r->pos, TYPED_ROWS_MAGIC, have) != 0)
		return bad(r, "it does not begin as typed rows of version 1 do");
	if (have < TYPED_ROWS_MAGIC_LEN)
		return ROWS_CUT;
	r->pos += TYPED_ROWS_MAGIC_LEN;
	r->typed.state = ST_BETWEEN;
	return ROWS_TOOK;
}

static enum rows_take take_columns(struct rows_reader *r, struct cursor *c)
{
	uint64_t count;
	enum rows_take take = take_number(r, c, &count);

	if (take != ROWS_TOOK)
		return take;
	if (count > r->limits.columns_max)
		return bad(r, "it has too many columns");
	rows_begin_columns(r);
	r->typed.columns = count;
	r->typed.state = ST_NAMES;
	return took(r, c);
}

static enum rows_take take_result_end(struct rows_reader *r, struct cursor *c)
{
	uint64_t rows;
	enum rows_take take = take_number(r, c, &rows);

	if (take != ROWS_TOOK)
		return take;
	if (rows != r->result_rows)
		return bad(r, "it has not as many rows as it says");
	r->typed.state = ST_BETWEEN;
	return took(r, c);
}

static enum rows_take take_end(struct rows_reader *r, struct cursor *c)
{
	uint64_t results, lsn = 0;
	enum rows_take take = take_number(r, c, &results);

	if (take == ROWS_TOOK)
		take = take_number(r, c, &lsn);
	if (take != ROWS_TOOK)
		return take;
	if (results != r->result_count)
		return bad(r, "it has not as many results as it says");
	r->lsn = lsn;
	r->typed.state = ST_END;
	return took(r, c);
}

static enum rows_take take_error(struct rows_reader *r, struct cursor *c, enum rows_event *event)
{
	const char *code, *message;
	size_t code_len, message_len;
	uint64_t statement;
	enum rows_take take = take_bytes(r, c, CODE_MAX, &code, &code_len);

	if (take == ROWS_TOOK)
		take = take_bytes(r, c, ROWS_MESSAGE_MAX, &message, &message_len);
	if (take == ROWS_TOOK)
		take = take_number(r, c, &statement);
	if (take != ROWS_TOOK)
		return take;
	if (statement > INT32_MAX)
		return bad(r, "an error names no statement");
	r->error.code = rows_error_code(code, code_len);
	rows_set_error_message(r, message, message_len);
	r->error.statement = (int)statement - 1;
	*event = rows_ended(r, true);
	return ROWS_TOOK;
}

/* What may come between rows and results. */
static enum rows_take take_mark(struct rows_reader *r, enum rows_event *event)
{
	bool in_result = r->typed.state == ST_ROWS;
	struct cursor c = cursor_of(r);

	if (c.p == c.end)
		return ROWS_CUT;
	switch (*c.p++) {
	case TYPED_ROWS_ROW:
		if (!in_result)
			break;
		rows_begin_row(r);
		r->typed.state = ST_ITEMS;
		return took(r, &c);
	case TYPED_ROWS_RESULT_END:
		if (!in_result)
			break;
		return take_result_end(r, &c);
	case TYPED_ROWS_COLUMNS:
		if (in_result)
			break;
		return take_columns(r, &c);
	case TYPED_ROWS_END:
		if (in_result)
			break;
		return take_end(r, &c);
	case TYPED_ROWS_ERROR:
		return take_error(r, &c, event);
	default:
		break;
	}
	return bad(r, "a mark stands where it may not");
}

static enum rows_take take_name(struct rows_reader *r, enum rows_event *event)
{
	bool is_type = r->column_count == r->typed.columns;
	struct cursor c = cursor_of(r);
	const char *name;
	size_t len;
	enum rows_take take;

	if (r->type_count == r->typed.columns) {
		r->typed.state = ST_ROWS;
		*event = rows_begin_result(r);
		return ROWS_TOOK;
	}
	take = take_bytes(r, &c, r->limits.row_bytes_max, &name, &len);
	if (take != ROWS_TOOK)
		return take;
	return rows_add_name(r, is_type, name, len) ? took(r, &c) : ROWS_BAD;
}

/* ---- rows */

static enum rows_take take_integer(struct rows_reader *r, struct cursor *c, struct query_value *v)
{
	uint64_t zigzag;
	enum rows_take take = take_number(r, c, &zigzag);

	if (take != ROWS_TOOK)
		return take;
	v->type = QUERY_INTEGER;
	v->integer = (int64_t)(zigzag >> 1 ^ (0 - (zigzag & 1)));
	if (v->integer >= 0 && v->integer <= TYPED_SHORT_INTEGER_MAX)
		return bad(r, "a small integer is written as a large one");
	return ROWS_TOOK;
}

static enum rows_take take_real(struct rows_reader *r, struct cursor *c, struct query_value *v)
{
	uint64_t bits;

	if (c->end - c->p < 8)
		return ROWS_CUT;
	bits = load_u64le(c->p);
	c->p += 8;
	v->type = QUERY_REAL;
	memcpy(&v->real, &bits, sizeof(bits));
	return isnan(v->real) ? bad(r, "a real is no number") : ROWS_TOOK;
}

static enum rows_take take_data(struct rows_reader *r, struct cursor *c, struct query_value *v, size_t *v_at,
				bool is_text)
{
	const char *bytes;
	enum rows_take take = take_bytes(r, c, r->limits.row_bytes_max, &bytes, &v->data.len);

	if (take != ROWS_TOOK)
		return take;
	if (is_text && v->data.len <= TYPED_SHORT_TEXT_MAX)
		return bad(r, "a short text is written as a long one");
	v->type = is_text ? QUERY_TEXT : QUERY_BLOB;
	*v_at = (size_t)((const uint8_t *)bytes - r->in.data);
	return ROWS_TOOK;
}

/* The value at the cursor, which is not at its end. */
static enum rows_take take_item(struct rows_reader *r, struct cursor *c, struct query_value *v, size_t *v_at)
{
	uint8_t tag = *c->p++;

	*v_at = 0;
	if (tag >= TYPED_SHORT_INTEGER) {
		v->type = QUERY_INTEGER;
		v->integer = tag - TYPED_SHORT_INTEGER;
		return ROWS_TOOK;
	}
	if (tag >= TYPED_SHORT_TEXT) {
		v->type = QUERY_TEXT;
		v->data.len = tag - TYPED_SHORT_TEXT;
		*v_at = (size_t)(c->p - r->in.data);
		if ((size_t)(c->end - c->p) < v->data.len)
			return ROWS_CUT;
		c->p += v->data.len;
		return ROWS_TOOK;
	}
	switch (tag) {
	case TYPED_NULL:
		v->type = QUERY_NULL;
		return ROWS_TOOK;
	case TYPED_REAL:
		return take_real(r, c, v);
	case TYPED_INTEGER:
		return take_integer(r, c, v);
	case TYPED_TEXT:
	case TYPED_BLOB:
		return take_data(r, c, v, v_at, tag == TYPED_TEXT);
	default:
		return bad(r, "a value is none");
	}
}

static enum rows_take take_items(struct rows_reader *r, enum rows_event *event)
{
	struct cursor c = cursor_of(r);
	enum rows_take take;

	while (r->value_count < r->column_count) {
		if (c.p == c.end)
			return ROWS_CUT;
		take = take_item(r, &c, &r->values[r->value_count], &r->value_at[r->value_count]);
		if (take != ROWS_TOOK)
			return take;
		r->value_count++;
		took(r, &c);
	}
	*event = rows_row_complete(r);
	r->typed.state = ST_ROW_ENDED;
	return ROWS_TOOK;
}

enum rows_event rows_typed_next(struct rows_reader *r)
{
	enum rows_event event = ROWS_MORE;
	enum rows_take take = ROWS_TOOK;

	while (take == ROWS_TOOK && event == ROWS_MORE) {
		switch (r->typed.state) {
		case ST_MAGIC:
			take = take_magic(r);
			break;
		case ST_NAMES:
			take = take_name(r, &event);
			break;
		case ST_ROW_ENDED:
			r->in_row = false;
			r->typed.state = ST_ROWS;
			break;
		case ST_ITEMS:
			take = take_items(r, &event);
			break;
		case ST_END:
			if (r->pos < r->in.len)
				return rows_broken(r, "something follows its end");
			return r->finished ? rows_ended(r, false) : ROWS_MORE;
		default:
			take = take_mark(r, &event);
			break;
		}
	}
	return take == ROWS_BAD ? r->end : event;
}

/* rows_reader.c - see rows_reader.h and rows_form.h: what both forms have in common. */
#include "common/remote/rows_reader.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/remote/rows_form.h"

#define COLUMNS_MAX   32767u
#define ROW_BYTES_MAX ((size_t)256 << 20)

/* "application/json; charset=utf-8" is application/json. */
static bool is_type(const char *content_type, const char *type)
{
	size_t len = strlen(type);

	return strncasecmp(content_type, type, len) == 0 &&
	       (content_type[len] == '\0' || content_type[len] == ';' || content_type[len] == ' ');
}

enum db_err rows_reader_create(struct rows_reader **out, int http_status, const char *content_type,
			       const struct rows_reader_limits *limits, struct errmsg *em)
{
	bool is_typed = content_type != NULL && is_type(content_type, TYPED_ROWS_TYPE);
	struct rows_reader *r;

	*out = NULL;
	if (!is_typed && (content_type == NULL || !is_type(content_type, "application/json")))
		return errmsg_set(em, DB_INVALID, "what answered there (HTTP %d) is no Grizzly node", http_status);
	r = calloc(1, sizeof(*r));
	if (r == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	r->is_typed = is_typed;
	r->http_status = http_status;
	if (limits != NULL)
		r->limits = *limits;
	if (r->limits.columns_max == 0 || r->limits.columns_max > COLUMNS_MAX)
		r->limits.columns_max = COLUMNS_MAX;
	if (r->limits.row_bytes_max == 0)
		r->limits.row_bytes_max = ROW_BYTES_MAX;
	r->end = ROWS_MORE;
	r->error.statement = -1;
	*out = r;
	return DB_OK;
}

void rows_reader_free(struct rows_reader *r)
{
	if (r == NULL)
		return;
	buf_fini(&r->in);
	buf_fini(&r->names);
	free(r->name_at);
	free(r->values);
	free(r->value_at);
	free(r);
}

/* ---- ends */

static enum rows_event end_with(struct rows_reader *r, enum rows_event end)
{
	r->end = end;
	r->in_row = false;
	buf_fini(&r->in);
	r->pos = r->keep = r->scan = 0;
	return end;
}

enum rows_event rows_broken(struct rows_reader *r, const char *why)
{
	query_error_set(&r->error, QUERY_REMOTE_ERROR, "its answer is damaged: %s", why);
	return end_with(r, ROWS_BROKEN);
}

enum rows_event rows_too_large(struct rows_reader *r, const char *what)
{
	query_error_set(&r->error, QUERY_TOO_LARGE, "%s of its answer is larger than %zu bytes", what,
			r->limits.row_bytes_max);
	return end_with(r, ROWS_BROKEN);
}

enum rows_event rows_no_memory(struct rows_reader *r)
{
	query_error_set(&r->error, QUERY_INTERNAL, "out of memory for its answer");
	return end_with(r, ROWS_BROKEN);
}

enum rows_event rows_ended(struct rows_reader *r, bool is_error)
{
	if (is_error)
		return end_with(r, ROWS_REFUSED);
	if (r->http_status != 200) {
		query_error_set(&r->error, QUERY_REMOTE_ERROR, "its answer is damaged: HTTP %d that says ok",
				r->http_status);
		return end_with(r, ROWS_BROKEN);
	}
	return end_with(r, ROWS_DONE);
}

enum query_code rows_error_code(const char *name, size_t len)
{
#define X(code, status)                                                                                                \
	if (len == sizeof(#code) - 1 && memcmp(name, #code, len) == 0)                                                 \
		return QUERY_##code;
	QUERY_CODE_LIST(X)
#undef X
	return QUERY_INTERNAL;
}

void rows_set_error_message(struct rows_reader *r, const char *text, size_t len)
{
	size_t fits = len < sizeof(r->error.message) ? len : sizeof(r->error.message) - 1;

	memcpy(r->error.message, text, fits);
	r->error.message[fits] = '\0';
}

/* ---- columns and rows */

void rows_begin_columns(struct rows_reader *r)
{
	buf_clear(&r->names);
	r->column_count = r->type_count = 0;
}

bool rows_add_name(struct rows_reader *r, bool is_type, const char *text, size_t len)
{
	size_t count = r->column_count + r->type_count;

	if (memchr(text, '\0', len) != NULL) {
		rows_broken(r, "a column's name is none");
		return false;
	}
	if (is_type ? r->type_count == r->column_count : r->column_count == r->limits.columns_max) {
		rows_broken(r, is_type ? "it has more types than columns" : "it has too many columns");
		return false;
	}
	if (r->names.len + len > r->limits.row_bytes_max) {
		rows_too_large(r, "the head");
		return false;
	}
	if (count == r->name_room) {
		size_t room = r->name_room == 0 ? 32 : 2 * r->name_room;
		size_t *grown = reallocarray(r->name_at, room, sizeof(*grown));

		if (grown == NULL) {
			rows_no_memory(r);
			return false;
		}
		r->name_at = grown;
		r->name_room = room;
	}
	r->name_at[count] = r->names.len;
	buf_put(&r->names, text, len);
	buf_put_u8(&r->names, '\0');
	if (r->names.failed) {
		rows_no_memory(r);
		return false;
	}
	if (is_type)
		r->type_count++;
	else
		r->column_count++;
	return true;
}

static bool make_room_for_values(struct rows_reader *r)
{
	struct query_value *values;
	size_t *value_at;

	if (r->column_count <= r->value_room)
		return true;
	values = reallocarray(r->values, r->column_count, sizeof(*values));
	if (values == NULL)
		return false;
	r->values = values;
	value_at = reallocarray(r->value_at, r->column_count, sizeof(*value_at));
	if (value_at == NULL)
		return false;
	r->value_at = value_at;
	r->value_room = r->column_count;
	return true;
}

enum rows_event rows_begin_result(struct rows_reader *r)
{
	if (r->type_count != r->column_count)
		return rows_broken(r, "it has not as many types as columns");
	if (!make_room_for_values(r))
		return rows_no_memory(r);
	r->result_count++;
	r->result_rows = 0;
	return ROWS_RESULT;
}

void rows_begin_row(struct rows_reader *r)
{
	r->in_row = true;
	r->keep = r->pos;
	r->value_count = 0;
}

enum rows_event rows_row_complete(struct rows_reader *r)
{
	size_t i;

	assert(r->value_count == r->column_count);
	if (r->pos - r->keep > r->limits.row_bytes_max)
		return rows_too_large(r, "a row");
	for (i = 0; i < r->column_count; i++)
		if (r->values[i].type == QUERY_TEXT || r->values[i].type == QUERY_BLOB)
			r->values[i].data.bytes = (const char *)r->in.data + r->value_at[i];
	r->rows++;
	r->result_rows++;
	return ROWS_ROW;
}

/* ---- what others call */

enum db_err rows_reader_feed(struct rows_reader *r, const void *bytes, size_t len)
{
	if (r->end != ROWS_MORE)
		return DB_OK; /* it does not matter any more */
	assert(!r->finished);
	if (!r->in_row)
		r->keep = r->pos;
	if (r->keep > r->in.len / 2) { /* seldom worth it before */
		memmove(r->in.data, r->in.data + r->keep, r->in.len - r->keep);
		r->in.len -= r->keep;
		r->pos -= r->keep;
		r->scan -= r->scan > 0 ? r->keep : 0;
		if (r->in_row) {
			size_t i;

			for (i = 0; i < r->value_count; i++)
				r->value_at[i] -= r->keep;
		}
		r->keep = 0;
	}
	buf_put(&r->in, bytes, len);
	if (!r->in.failed)
		return DB_OK;
	rows_no_memory(r);
	return DB_NOMEM;
}

void rows_reader_finish(struct rows_reader *r)
{
	r->finished = true;
}

enum rows_event rows_reader_next(struct rows_reader *r, struct query_error *error)
{
	enum rows_event event;

	if (r->end == ROWS_MORE) {
		event = r->is_typed ? rows_typed_next(r) : rows_json_next(r);
		if (event == ROWS_MORE && r->finished)
			event = rows_broken(r, "it is cut short");
		else if (event == ROWS_MORE && r->in.len - (r->in_row ? r->keep : r->pos) > r->limits.row_bytes_max)
			event = rows_too_large(r, "a row");
	} else {
		event = r->end;
	}
	if (event == ROWS_REFUSED || event == ROWS_BROKEN)
		*error = r->error;
	return event;
}

size_t rows_reader_column_count(const struct rows_reader *r)
{
	return r->column_count;
}

const char *rows_reader_column_name(const struct rows_reader *r, size_t i)
{
	assert(i < r->column_count);
	return (const char *)r->names.data + r->name_at[i];
}

const char *rows_reader_column_type(const struct rows_reader *r, size_t i)
{
	assert(i < r->type_count);
	return (const char *)r->names.data + r->name_at[r->column_count + i];
}

const struct query_value *rows_reader_values(const struct rows_reader *r)
{
	return r->values;
}

size_t rows_reader_result_count(const struct rows_reader *r)
{
	return r->result_count;
}

uint64_t rows_reader_rows(const struct rows_reader *r)
{
	return r->rows;
}

uint64_t rows_reader_lsn(const struct rows_reader *r)
{
	return r->lsn;
}

/* typed_rows.c - see typed_rows.h. The row function is the hottest code of a read that another node asked for. */
#include "common/query/typed_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* "q=0", "q=0.0": refused. */
static bool is_refused(const char *params, const char *end)
{
	const char *q = params;

	while (q < end && (q = memchr(q, ';', (size_t)(end - q))) != NULL) {
		for (q++; q < end && (*q == ' ' || *q == '\t');)
			q++;
		if (end - q > 2 && (*q == 'q' || *q == 'Q') && q[1] == '=')
			return strtod(q + 2, NULL) <= 0;
	}
	return false;
}

bool typed_rows_accepted(const char *accept)
{
	const size_t len = sizeof(TYPED_ROWS_TYPE) - 1;
	const char *end;

	for (; accept != NULL && *accept != '\0'; accept = *end == ',' ? end + 1 : end) {
		accept += strspn(accept, " \t");
		end = strchrnul(accept, ',');
		if (strncasecmp(accept, TYPED_ROWS_TYPE, len) == 0 && strchr(",; \t", accept[len]) != NULL &&
		    !is_refused(accept + len, end))
			return true;
	}
	return false;
}

/* Room for TYPED_NUMBER_BYTES_MAX is there. */
static uint8_t *store_number(uint8_t *at, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		*at++ = (uint8_t)(v | 0x80);
	*at++ = (uint8_t)v;
	return at;
}

void typed_rows_put_number(struct buf *out, uint64_t v)
{
	if (buf_reserve(out, TYPED_NUMBER_BYTES_MAX))
		out->len = (size_t)(store_number(out->data + out->len, v) - out->data);
}

/* Each of these writes one value at the end of out, where VALUE_BYTES_MAX and the bytes of a text or blob have room. */
#define VALUE_BYTES_MAX (1 + TYPED_NUMBER_BYTES_MAX)

static inline void store_integer(struct buf *out, int64_t v)
{
	uint8_t *at = out->data + out->len;

	if (v >= 0 && v <= TYPED_SHORT_INTEGER_MAX) {
		*at++ = (uint8_t)(TYPED_SHORT_INTEGER | v);
	} else {
		*at++ = TYPED_INTEGER;
		at = store_number(at, (uint64_t)v << 1 ^ (uint64_t)(v >> 63));
	}
	out->len = (size_t)(at - out->data);
}

static inline void store_real(struct buf *out, double v)
{
	uint64_t bits;

	if (isnan(v)) {
		out->data[out->len++] = TYPED_NULL;
		return;
	}
	memcpy(&bits, &v, sizeof(bits));
	out->data[out->len] = TYPED_REAL;
	store_u64le(out->data + out->len + 1, bits);
	out->len += 9;
}

static inline void store_bytes(struct buf *out, enum typed_rows_value tag, const void *bytes, size_t len)
{
	uint8_t *at = out->data + out->len;

	if (tag == TYPED_TEXT && len <= TYPED_SHORT_TEXT_MAX) {
		*at++ = (uint8_t)(TYPED_SHORT_TEXT | len);
	} else {
		*at++ = (uint8_t)tag;
		at = store_number(at, len);
	}
	if (len > 0)
		memcpy(at, bytes, len);
	out->len = (size_t)(at + len - out->data);
}

void typed_rows_put_value(struct buf *out, const struct query_value *v)
{
	bool has_bytes = v->type == QUERY_TEXT || v->type == QUERY_BLOB;

	if (!buf_reserve(out, VALUE_BYTES_MAX + (has_bytes ? v->data.len : 0)))
		return;
	if (v->type == QUERY_NULL)
		out->data[out->len++] = TYPED_NULL;
	else if (v->type == QUERY_INTEGER)
		store_integer(out, v->integer);
	else if (v->type == QUERY_REAL)
		store_real(out, v->real);
	else
		store_bytes(out, v->type == QUERY_TEXT ? TYPED_TEXT : TYPED_BLOB, v->data.bytes, v->data.len);
}

/* One value; room is what the rest of the row needs besides texts and blobs. False: SQLite had no memory for it. */
static bool put_column(struct buf *out, sqlite3_value *v, size_t room)
{
	int type = sqlite3_value_type(v);
	const void *bytes;
	size_t len;

	switch (type) {
	case SQLITE_INTEGER:
		store_integer(out, sqlite3_value_int64(v));
		return true;
	case SQLITE_FLOAT:
		store_real(out, sqlite3_value_double(v));
		return true;
	case SQLITE_TEXT:
	case SQLITE_BLOB:
		bytes = type == SQLITE_TEXT ? sqlite3_value_text(v) : sqlite3_value_blob(v);
		len = (size_t)sqlite3_value_bytes(v);
		if (bytes == NULL && (type == SQLITE_TEXT || len > 0))
			return false;
		if (buf_reserve(out, room + len))
			store_bytes(out, type == SQLITE_TEXT ? TYPED_TEXT : TYPED_BLOB, bytes, len);
		return true;
	default:
		out->data[out->len++] = TYPED_NULL;
		return true;
	}
}

bool typed_rows_put_row(struct buf *out, sqlite3_stmt *stmt, int columns)
{
	size_t room = 1 + (size_t)columns * VALUE_BYTES_MAX;
	int i;

	if (buf_reserve(out, room))
		out->data[out->len++] = TYPED_ROWS_ROW;
	for (i = 0; i < columns && !out->failed; i++)
		if (!put_column(out, sqlite3_column_value(stmt, i), room))
			return false;
	return true;
}

void typed_rows_put_magic(struct buf *out)
{
	buf_put(out, TYPED_ROWS_MAGIC, TYPED_ROWS_MAGIC_LEN);
}

static void put_name(struct buf *out, const char *name, size_t len)
{
	typed_rows_put_number(out, len);
	buf_put(out, name, len);
}

/* Folded as in result_shape.c. */
static void put_type(struct buf *out, const char *type)
{
	size_t len = type != NULL ? strlen(type) : 0, i;

	put_name(out, type, len);
	for (i = out->len - len; !out->failed && i < out->len; i++)
		if (out->data[i] >= 'A' && out->data[i] <= 'Z')
			out->data[i] = (uint8_t)(out->data[i] - 'A' + 'a');
}

bool typed_rows_put_columns(struct buf *out, sqlite3_stmt *stmt)
{
	int columns = sqlite3_column_count(stmt), i;
	const char *name;

	buf_put_u8(out, TYPED_ROWS_COLUMNS);
	typed_rows_put_number(out, (uint64_t)columns);
	for (i = 0; i < columns; i++) {
		name = sqlite3_column_name(stmt, i);
		if (name == NULL)
			return false;
		put_name(out, name, strlen(name));
	}
	for (i = 0; i < columns; i++)
		put_type(out, sqlite3_column_decltype(stmt, i));
	return true;
}

void typed_rows_put_result_end(struct buf *out, uint64_t rows)
{
	buf_put_u8(out, TYPED_ROWS_RESULT_END);
	typed_rows_put_number(out, rows);
}

void typed_rows_put_end(struct buf *out, uint64_t results, uint64_t lsn)
{
	buf_put_u8(out, TYPED_ROWS_END);
	typed_rows_put_number(out, results);
	typed_rows_put_number(out, lsn);
}

void typed_rows_put_error(struct buf *out, const struct query_error *error)
{
	const char *code = query_code_name(error->code);

	buf_put_u8(out, TYPED_ROWS_ERROR);
	put_name(out, code, strlen(code));
	put_name(out, error->message, strnlen(error->message, sizeof(error->message)));
	typed_rows_put_number(out, error->statement >= 0 ? (uint64_t)error->statement + 1 : 0);
}

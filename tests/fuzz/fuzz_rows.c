/*
 * fuzz_rows.c - any bytes as another node's rows.
 *
 * The first byte chooses the form, the second the size of the pieces. Read whole and in pieces an answer comes to the same
 * events; what a whole typed answer held is written again to the same bytes, for every value has one form.
 */
#include <stdlib.h>
#include <string.h>

#include "common/remote/rows_reader.h"
#include "tests/fuzz/fuzz.h"

/* What was read: a typed answer of its own. */
struct record {
	struct buf bytes;
	bool in_result;
	uint64_t rows;
	struct query_error error;
};

static void put_name(struct buf *out, const char *name)
{
	typed_rows_put_number(out, strlen(name));
	buf_puts(out, name);
}

static void end_result(struct record *rec)
{
	if (rec->in_result)
		typed_rows_put_result_end(&rec->bytes, rec->rows);
	rec->in_result = false;
	rec->rows = 0;
}

static void begin_result(struct record *rec, const struct rows_reader *r)
{
	size_t i, count = rows_reader_column_count(r);

	end_result(rec);
	rec->in_result = true;
	buf_put_u8(&rec->bytes, TYPED_ROWS_COLUMNS);
	typed_rows_put_number(&rec->bytes, count);
	for (i = 0; i < count; i++)
		put_name(&rec->bytes, rows_reader_column_name(r, i));
	for (i = 0; i < count; i++)
		put_name(&rec->bytes, rows_reader_column_type(r, i));
}

static void put_row(struct record *rec, const struct rows_reader *r)
{
	size_t i;

	rec->rows++;
	buf_put_u8(&rec->bytes, TYPED_ROWS_ROW);
	for (i = 0; i < rows_reader_column_count(r); i++)
		typed_rows_put_value(&rec->bytes, &rows_reader_values(r)[i]);
}

static enum rows_event drain(struct record *rec, struct rows_reader *r)
{
	enum rows_event event;

	while ((event = rows_reader_next(r, &rec->error)) == ROWS_RESULT || event == ROWS_ROW) {
		if (event == ROWS_RESULT)
			begin_result(rec, r);
		else
			put_row(rec, r);
	}
	return event;
}

static enum rows_event read_all(struct record *rec, const char *type, const uint8_t *p, size_t len, size_t step)
{
	const struct rows_reader_limits limits = {.columns_max = 100, .row_bytes_max = 1 << 16};
	enum rows_event event = ROWS_MORE;
	struct rows_reader *r;
	uint8_t *piece;
	size_t n;

	typed_rows_put_magic(&rec->bytes);
	FUZZ_CHECK(rows_reader_create(&r, 200, type, &limits, NULL) == DB_OK);
	while (len > 0 && event == ROWS_MORE) {
		n = step > 0 && step < len ? step : len;
		piece = malloc(n); /* of exactly its size */
		FUZZ_CHECK(piece != NULL);
		memcpy(piece, p, n);
		FUZZ_CHECK(rows_reader_feed(r, piece, n) == DB_OK);
		free(piece);
		p += n;
		len -= n;
		event = drain(rec, r);
	}
	if (event == ROWS_MORE) {
		rows_reader_finish(r);
		event = drain(rec, r);
	}
	FUZZ_CHECK(event == ROWS_DONE || event == ROWS_REFUSED || event == ROWS_BROKEN);
	FUZZ_CHECK(event != ROWS_BROKEN || rec->error.message[0] != '\0');
	if (event == ROWS_DONE) {
		end_result(rec);
		typed_rows_put_end(&rec->bytes, rows_reader_result_count(r), rows_reader_lsn(r));
	}
	rows_reader_free(r);
	return event;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	const char *type = in_u8(&in) % 2 == 0 ? "application/json" : TYPED_ROWS_TYPE;
	size_t step = 1 + in_u8(&in) % 32u;
	struct record whole = {0}, pieces = {0}, again = {0};
	enum rows_event event = read_all(&whole, type, in.p, in.left, 0);

	FUZZ_CHECK(read_all(&pieces, type, in.p, in.left, step) == event);
	FUZZ_CHECK(whole.bytes.len == pieces.bytes.len);
	FUZZ_CHECK(memcmp(whole.bytes.data, pieces.bytes.data, whole.bytes.len) == 0);
	FUZZ_CHECK(event != ROWS_REFUSED || strcmp(whole.error.message, pieces.error.message) == 0);
	if (event == ROWS_DONE) {
		if (strcmp(type, TYPED_ROWS_TYPE) == 0)
			FUZZ_CHECK(whole.bytes.len == in.left && memcmp(whole.bytes.data, in.p, in.left) == 0);
		FUZZ_CHECK(read_all(&again, TYPED_ROWS_TYPE, whole.bytes.data, whole.bytes.len, 0) == ROWS_DONE);
		FUZZ_CHECK(again.bytes.len == whole.bytes.len);
		FUZZ_CHECK(memcmp(again.bytes.data, whole.bytes.data, whole.bytes.len) == 0);
	}
	buf_fini(&whole.bytes);
	buf_fini(&pieces.bytes);
	buf_fini(&again.bytes);
	return 0;
}

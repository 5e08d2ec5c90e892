/*
 * rows_events.h - what the tests of rows_reader.h share: an answer read to its end as a text, however it is cut or changed.
 *
 * An answer is read whole and in pieces of every size, which must come to the same; read up to every position and cut there
 * it must never pass for whole; with any bit flipped it must not do worse than say something else.
 */
#ifndef GRIZZLY_TESTS_UNIT_ROWS_EVENTS_H
#define GRIZZLY_TESTS_UNIT_ROWS_EVENTS_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/remote/rows_reader.h"
#include "tests/unit/unit.h"

/* ---- what is read, as a text */

static inline void put_value(struct buf *out, const struct query_value *v)
{
	size_t i;

	switch (v->type) {
	case QUERY_NULL:
		buf_puts(out, "null");
		break;
	case QUERY_INTEGER:
		buf_printf(out, "%" PRId64, v->integer);
		break;
	case QUERY_REAL:
		buf_printf(out, "%a", v->real);
		break;
	case QUERY_TEXT:
	case QUERY_BLOB:
		buf_puts(out, v->type == QUERY_TEXT ? "t'" : "x'");
		for (i = 0; i < v->data.len; i++)
			buf_printf(out, "%c", v->data.bytes[i] == '\0' ? '~' : v->data.bytes[i]);
		buf_puts(out, "'");
		break;
	}
}

static inline void put_event(struct buf *out, struct rows_reader *r, enum rows_event event,
			     const struct query_error *error)
{
	size_t i;

	switch (event) {
	case ROWS_RESULT:
		buf_printf(out, "result %zu", rows_reader_result_count(r));
		for (i = 0; i < rows_reader_column_count(r); i++)
			buf_printf(out, " %s:%s", rows_reader_column_name(r, i), rows_reader_column_type(r, i));
		break;
	case ROWS_ROW:
		for (i = 0; i < rows_reader_column_count(r); i++) {
			buf_puts(out, i > 0 ? "," : "");
			put_value(out, &rows_reader_values(r)[i]);
		}
		break;
	case ROWS_DONE:
		buf_printf(out, "done %" PRIu64 " lsn %" PRIu64, rows_reader_rows(r), rows_reader_lsn(r));
		break;
	default:
		buf_printf(out, "%s %s %d %s", event == ROWS_REFUSED ? "refused" : "broken",
			   query_code_name(error->code), error->statement, error->message);
	}
	buf_puts(out, "; ");
}

/* Feeds len bytes in pieces of step. finish: the body came whole. The last event; ROWS_MORE when it was not finished. */
static inline enum rows_event read_events(struct buf *out, int status, const char *type, const void *bytes, size_t len,
					  size_t step, bool finish)
{
	struct query_error error = {.statement = -1};
	enum rows_event event = ROWS_MORE;
	struct errmsg em = {0};
	struct rows_reader *r;
	size_t at = 0, piece;
	uint8_t *exact;

	UNIT_OK(rows_reader_create(&r, status, type, NULL, &em), &em);
	do {
		piece = len - at < step ? len - at : step;
		exact = malloc(piece + 1); /* so that a sanitizer sees what is read behind its end */
		memcpy(exact, (const uint8_t *)bytes + at, piece);
		CU_ASSERT_EQUAL(rows_reader_feed(r, exact, piece), DB_OK);
		free(exact);
		at += piece;
		if (at == len && finish)
			rows_reader_finish(r);
		while ((event = rows_reader_next(r, &error)) == ROWS_RESULT || event == ROWS_ROW)
			put_event(out, r, event, &error);
	} while (event == ROWS_MORE && at < len);
	if (event != ROWS_MORE)
		put_event(out, r, event, &error);
	CU_ASSERT(event == ROWS_MORE || rows_reader_next(r, &error) == event);
	buf_put_u8(out, '\0');
	rows_reader_free(r);
	return event;
}

static inline void assert_reads(int status, const char *type, const void *bytes, size_t len, const char *expected)
{
	size_t step;

	for (step = 1; step <= len + 1; step += step < 70 || step > len - 70 ? 1 : 31) {
		struct buf out = {0};

		read_events(&out, status, type, bytes, len, step <= len ? step : len, true);
		CU_ASSERT_STRING_EQUAL((char *)out.data, expected);
		if (strcmp((char *)out.data, expected) != 0)
			printf("step %zu:\n%s\nnot\n%s\n", step, out.data, expected);
		buf_fini(&out);
	}
}

/* No answer: it is broken, and expected is in the message. */
static inline void assert_broken(const char *type, const void *bytes, size_t len, const char *expected)
{
	size_t step;

	for (step = 1; step <= len; step++) {
		struct buf out = {0};

		CU_ASSERT_EQUAL(read_events(&out, 200, type, bytes, len, step, true), ROWS_BROKEN);
		CU_ASSERT_PTR_NOT_NULL(strstr((char *)out.data, expected));
		if (strstr((char *)out.data, expected) == NULL)
			printf("%.*s: %s\n", (int)len, (const char *)bytes, out.data);
		buf_fini(&out);
	}
}

/* Cut at every position it is never done, and begins as the whole does. */
static inline void assert_every_cut_shows(const char *type, const uint8_t *bytes, size_t len)
{
	struct buf whole = {0};
	size_t cut;

	CU_ASSERT_EQUAL(read_events(&whole, 200, type, bytes, len, len, true), ROWS_DONE);
	for (cut = 0; cut < len; cut++) {
		struct buf open = {0}, finished = {0};

		CU_ASSERT_EQUAL(read_events(&open, 200, type, bytes, cut, 7, false), ROWS_MORE);
		CU_ASSERT_EQUAL(strncmp((char *)open.data, (char *)whole.data, open.len - 1), 0);
		CU_ASSERT_EQUAL(read_events(&finished, 200, type, bytes, cut, 7, true), ROWS_BROKEN);
		CU_ASSERT_PTR_NOT_NULL(strstr((char *)finished.data, "cut short"));
		buf_fini(&open);
		buf_fini(&finished);
	}
	buf_fini(&whole);
}

/* Every bit flipped: an end of some kind, the same in small pieces as in one. */
static inline void flip_every_bit(const char *type, const uint8_t *bytes, size_t len)
{
	uint8_t *flipped = malloc(len);
	size_t bit;

	memcpy(flipped, bytes, len);
	for (bit = 0; bit < 8 * len; bit++) {
		struct buf whole = {0}, pieces = {0};
		enum rows_event event;

		flipped[bit / 8] ^= (uint8_t)(1u << bit % 8);
		event = read_events(&whole, 200, type, flipped, len, len, true);
		CU_ASSERT(event == ROWS_DONE || event == ROWS_REFUSED || event == ROWS_BROKEN);
		CU_ASSERT_EQUAL(read_events(&pieces, 200, type, flipped, len, 5, true), event);
		CU_ASSERT_STRING_EQUAL((char *)whole.data, (char *)pieces.data);
		flipped[bit / 8] = bytes[bit / 8];
		buf_fini(&whole);
		buf_fini(&pieces);
	}
	free(flipped);
}

#endif

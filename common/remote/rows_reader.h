/*
 * rows_reader.h - reads what another node answers to POST /query, row by row, as the bytes come.
 *
 * Two forms, told apart by the Content-Type: the JSON of format "rows" (docs/protocol.md, "Answer"), with one result or with
 * `results`, and the typed form that nodes speak among each other (docs/protocol.md, "Typed rows"; typed_rows.h writes it).
 * Whoever asks sends ROWS_ACCEPT_HEADER with the request and takes what comes: an older node, an error and a write answer
 * with JSON. Values are exact either way: integers over all 64 bits, reals to the last bit, texts with NULs inside, blobs.
 *
 *	rows_reader_create(&r, status, content_type, NULL, &em)
 *	loop: switch (rows_reader_next(r, &error))
 *		ROWS_RESULT: rows_reader_column_count(r), rows_reader_column_name(r, i), …
 *		ROWS_ROW: rows_reader_values(r)[i]
 *		ROWS_MORE: rows_reader_feed(r, bytes, len), or rows_reader_finish(r) when the body has come whole
 *		ROWS_DONE, ROWS_REFUSED, ROWS_BROKEN: the end
 *
 * Rows come as soon as their bytes are there, long before it is known whether the answer ends well: only ROWS_DONE says that
 * they were all. Memory is that of what was fed and not yet read, one row and the columns.
 *
 * Pure; one per answer, one thread at a time. The bytes are hostile: anything that is no such answer is ROWS_BROKEN.
 */
#ifndef GRIZZLY_COMMON_REMOTE_ROWS_READER_H
#define GRIZZLY_COMMON_REMOTE_ROWS_READER_H

#include <stddef.h>
#include <stdint.h>

#include "common/query/request.h"
#include "common/query/typed_rows.h"

/* A header of requests whose answer a rows_reader reads. */
#define ROWS_ACCEPT_HEADER "Accept: " TYPED_ROWS_TYPE ", application/json;q=0.5"

struct rows_reader;

struct rows_reader_limits {
	size_t columns_max;   /* of one result; 0: 32767 */
	size_t row_bytes_max; /* of one row, or of all columns' names and types, as they come; 0: 256 MiB */
};

enum rows_event {
	ROWS_MORE, /* all that was fed is read: feed more, or finish */
	ROWS_RESULT, /* the next statement's result begins: its columns are known. No columns: it returned none (a write) */
	ROWS_ROW,     /* a row of that result */
	ROWS_DONE,    /* the answer came whole and says ok; after rows_reader_finish() only. The LSN is known */
	ROWS_REFUSED, /* the other node answered with an error, or broke its answer off with one: *error is that error, its
		       * code, message and statement (INTERNAL when the code is none that we know) */
	ROWS_BROKEN, /* what came is no whole answer, or too large, or memory is short: *error is REMOTE_ERROR, TOO_LARGE or
		       * INTERNAL, and its message says what is wrong, to be put behind "host:port@table: " */
};

/* http_status and content_type are those of the answer's head; limits NULL: the defaults. An answer whose status is not 200
 * is never ROWS_DONE. DB_INVALID: the type is neither form, so what answered there is no Grizzly node; DB_NOMEM. */
enum db_err rows_reader_create(struct rows_reader **out, int http_status, const char *content_type,
			       const struct rows_reader_limits *limits, struct errmsg *em);
void rows_reader_free(struct rows_reader *r); /* NULL is fine */

/* Copies len bytes of the body, cut anywhere. Invalidates rows_reader_values(). DB_NOMEM, which rows_reader_next() then says
 * as well. Cheapest in pieces of some 16 to 256 KiB, each read to ROWS_MORE before the next. */
enum db_err rows_reader_feed(struct rows_reader *r, const void *bytes, size_t len);
/* The body has come whole by HTTP's rules; from here on rows_reader_next() is never ROWS_MORE. Do not call it for a
 * connection that broke: there the error of the connection is what to tell, unless rows_reader_next() has ended already. */
void rows_reader_finish(struct rows_reader *r);

/* The next thing in the answer. Once it is ROWS_DONE, ROWS_REFUSED or ROWS_BROKEN it stays so. *error is set by the last two
 * alone. */
enum rows_event rows_reader_next(struct rows_reader *r, struct query_error *error);

/* Of the result that the last ROWS_RESULT began; names and types live until the next one. Texts as JSON has them. */
size_t rows_reader_column_count(const struct rows_reader *r);
const char *rows_reader_column_name(const struct rows_reader *r, size_t i); /* as the statement has it, may repeat */
const char *rows_reader_column_type(const struct rows_reader *r, size_t i); /* declared, in lower case; "": none */

/* The current row, a value for each column, after ROWS_ROW. Texts and blobs are borrowed until the next call of
 * rows_reader_next() or rows_reader_feed(); texts are not NUL-terminated, and may not be valid UTF-8. */
const struct query_value *rows_reader_values(const struct rows_reader *r);

size_t rows_reader_result_count(const struct rows_reader *r); /* results begun so far: the current one's index plus 1 */
uint64_t rows_reader_rows(const struct rows_reader *r);       /* rows of all results so far */
uint64_t rows_reader_lsn(const struct rows_reader *r);        /* that was read; after ROWS_DONE, 0 when none was said */

#endif

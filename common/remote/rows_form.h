/*
 * rows_form.h - the inside of a rows_reader, for the files that read one form each (rows_json.c, rows_typed.c).
 *
 * `in` holds what was fed and is still needed: from `keep` on, where the row or token under way begins. `pos` is the next
 * byte to look at. Everything that is remembered of `in` is an offset, for feeding moves the bytes; a row's values become
 * pointers when it is complete. Nothing is scanned twice, however small the pieces: a value that is cut is gone on with
 * at `scan`.
 */
#ifndef GRIZZLY_COMMON_REMOTE_ROWS_FORM_H
#define GRIZZLY_COMMON_REMOTE_ROWS_FORM_H

#include <stdbool.h>

#include "common/base/buf.h"
#include "common/remote/rows_reader.h"

#define ROWS_MESSAGE_MAX ((size_t)16 << 10) /* bytes of an error's message as it comes */

/* What became of something that may be cut. */
enum rows_take {
	ROWS_TOOK,
	ROWS_CUT, /* it goes on in bytes that have not come */
	ROWS_BAD, /* rows_broken() was called */
};

struct rows_json {
	unsigned state;
	unsigned key;
	bool in_result;   /* in an object of `results`, else in the answer's own */
	bool has_results; /* the answer has `results` */
	bool names_are_types;
	unsigned seen;       /* keys of the result that came, a bit each: none comes twice */
	unsigned keys_seen;  /* the same of the answer */
	unsigned skip_depth; /* brackets open in a value that is passed over */
	uint32_t skip_kinds; /* of these: 1 is an object */
	bool skip_string, skip_slash;
	enum { ROWS_STATUS_NONE, ROWS_STATUS_OK, ROWS_STATUS_ERROR } status;
	bool uncounted; /* a result ended without its row count: the answer must be an error */
};

struct rows_typed {
	unsigned state;
	uint64_t columns; /* of the result whose names come */
};

struct rows_reader {
	bool is_typed;
	int http_status;
	struct rows_reader_limits limits;
	struct buf in;
	size_t pos, keep;
	size_t scan; /* how far the cut value at pos was looked through; 0: not at all */
	bool scan_escaped;
	bool in_row;
	bool finished;
	enum rows_event end; /* ROWS_MORE: not yet */
	struct query_error error;

	size_t column_count;
	size_t type_count;
	struct buf names; /* names, then types, each NUL-terminated */
	size_t *name_at;  /* where in names; names first, types behind them */
	size_t name_room;
	struct query_value *values; /* of the row under way */
	size_t *value_at;           /* offsets in `in` of its texts and blobs */
	size_t value_room;
	size_t value_count;

	size_t result_count;
	uint64_t rows, result_rows;
	uint64_t lsn;
	union {
		struct rows_json json;
		struct rows_typed typed;
	};
};

/* One step of a form: ROWS_MORE when a token is cut, else what was found; the end is set with the two functions below. */
enum rows_event rows_json_next(struct rows_reader *r);
enum rows_event rows_typed_next(struct rows_reader *r);

/* The answer is no good, or too large. */
enum rows_event rows_broken(struct rows_reader *r, const char *why);
enum rows_event rows_too_large(struct rows_reader *r, const char *what);
enum rows_event rows_no_memory(struct rows_reader *r);
/* It ended as it should: r->error has the other node's error, or there is none. */
enum rows_event rows_ended(struct rows_reader *r, bool is_error);
enum query_code rows_error_code(const char *name, size_t len);
void rows_set_error_message(struct rows_reader *r, const char *text, size_t len);

/* Forgets the columns: a result begins. */
void rows_begin_columns(struct rows_reader *r);
/* Adds a name or, behind all of those, a type. False: the end was set. */
bool rows_add_name(struct rows_reader *r, bool is_type, const char *text, size_t len);
/* The columns are complete. ROWS_RESULT. */
enum rows_event rows_begin_result(struct rows_reader *r);
void rows_begin_row(struct rows_reader *r);
/* The row ends at pos. ROWS_ROW. */
enum rows_event rows_row_complete(struct rows_reader *r);

#endif

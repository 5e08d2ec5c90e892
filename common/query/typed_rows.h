/*
 * typed_rows.h - answers of reads in the typed form that nodes speak among each other: quick to write and to read.
 *
 * The counterpart of the JSON of answer.h and result_shape.h for run.c; rows_reader.h reads it. The format is described in
 * docs/protocol.md, "Typed rows", and here:
 *
 *	answer  = "GzRows" 0x00 version, result*, end
 *	result  = 'C' count name*count type*count, row*, 'c' row_count
 *	row     = 'R' value*count
 *	end     = 'E' result_count lsn  |  'X' code message statement+1      (an error may stand before any row or mark)
 *	name, type, code, message = length, bytes
 *	value   = 0x00                                   NULL
 *		| 0x01 eight bytes, little-endian        REAL, never NaN
 *		| 0x02 zigzag                            INTEGER below 0 or above 127
 *		| 0x03 length bytes                      TEXT of 64 bytes or more
 *		| 0x04 length bytes                      BLOB
 *		| 0x40+length bytes                      TEXT below 64 bytes
 *		| 0x80+integer                           INTEGER from 0 to 127
 *
 * Numbers are base-128, least significant first, at most ten bytes, without needless ones. Every value has exactly one form,
 * and a reader refuses others. An answer without its end was cut.
 *
 * Pure. Memory: out->failed.
 */
#ifndef GRIZZLY_COMMON_QUERY_TYPED_ROWS_H
#define GRIZZLY_COMMON_QUERY_TYPED_ROWS_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/query/answer.h"
#include "common/query/request.h"

#define TYPED_ROWS_TYPE      "application/vnd.grizzly.rows+v1"
#define TYPED_ROWS_MAGIC     "GzRows\0\1" /* bump the last byte, and the type's name, when the format changes */
#define TYPED_ROWS_MAGIC_LEN 8

enum typed_rows_mark {
	TYPED_ROWS_COLUMNS = 'C',
	TYPED_ROWS_ROW = 'R',
	TYPED_ROWS_RESULT_END = 'c',
	TYPED_ROWS_END = 'E',
	TYPED_ROWS_ERROR = 'X',
};

enum typed_rows_value {
	TYPED_NULL = 0,
	TYPED_REAL = 1,
	TYPED_INTEGER = 2,
	TYPED_TEXT = 3,
	TYPED_BLOB = 4,
	TYPED_SHORT_TEXT = 0x40,
	TYPED_SHORT_INTEGER = 0x80,
};

#define TYPED_SHORT_TEXT_MAX    63
#define TYPED_SHORT_INTEGER_MAX 127
#define TYPED_NUMBER_BYTES_MAX  10

/* Whether an Accept header (NULL: none came) names TYPED_ROWS_TYPE without refusing it (";q=0"). */
bool typed_rows_accepted(const char *accept);

void typed_rows_put_magic(struct buf *out);
/* The columns of stmt's result; declared types in lower case. False: SQLite had no memory for a name. */
bool typed_rows_put_columns(struct buf *out, sqlite3_stmt *stmt);
/* The current row of stmt, whose result has that many columns. False: SQLite had no memory for a value. */
bool typed_rows_put_row(struct buf *out, sqlite3_stmt *stmt, int columns);
void typed_rows_put_result_end(struct buf *out, uint64_t rows);
void typed_rows_put_end(struct buf *out, uint64_t results, uint64_t lsn);
void typed_rows_put_error(struct buf *out, const struct query_error *error);

/* The pieces of these, for rows that come from elsewhere. A NaN is NULL. */
void typed_rows_put_number(struct buf *out, uint64_t v);
void typed_rows_put_value(struct buf *out, const struct query_value *v);

#endif

/*
 * answer_shape.h - whether what one statement yielded is complete: columns, rows as wide as they, as many as were told.
 *
 * shipped_answer.c tells what it meets in an object that is the result of one statement. Pure.
 */
#ifndef GRIZZLY_COMMON_REMOTE_ANSWER_SHAPE_H
#define GRIZZLY_COMMON_REMOTE_ANSWER_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

/* All zero where the object begins. */
struct answer_shape {
	bool has_columns, has_rows, has_count, has_affected;
	uint64_t columns, rows, count;
};

/* What a member of the object is. */
enum answer_member {
	ANSWER_MEMBER_OTHER,
	ANSWER_MEMBER_COLUMNS,
	ANSWER_MEMBER_ROWS,
	ANSWER_MEMBER_COUNT,
	ANSWER_MEMBER_AFFECTED,
};

/* These return NULL, or what is wrong (a constant). */

/* A member's value begins, with the byte first. */
const char *answer_shape_begin(struct answer_shape *s, const char *key, char first, enum answer_member *member);
/* A row has ended, with so many values. is_list: it is an array or object. */
const char *answer_shape_row(struct answer_shape *s, bool is_list, uint64_t values);
/* The object has ended: of an answer that says ok this must be true. reads: rows are what was asked for. */
const char *answer_shape_end(const struct answer_shape *s, bool reads);

#endif

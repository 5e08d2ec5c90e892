/*
 * answer_shape.c - see answer_shape.h.
 */
#include "common/remote/answer_shape.h"

#include <stddef.h>
#include <string.h>

/* A member that may come once, with a value of this kind. */
static const char *take_once(bool *has, bool kind_is_right, const char *twice, const char *wrong_kind)
{
	if (*has)
		return twice;
	*has = true;
	return kind_is_right ? NULL : wrong_kind;
}

const char *answer_shape_begin(struct answer_shape *s, const char *key, char first, enum answer_member *member)
{
	*member = ANSWER_MEMBER_OTHER;
	if (strcmp(key, "columns") == 0) {
		*member = ANSWER_MEMBER_COLUMNS;
		return take_once(&s->has_columns, first == '[', "columns come twice", "its columns are no list");
	}
	if (strcmp(key, "rows") == 0) {
		*member = ANSWER_MEMBER_ROWS;
		if (!s->has_columns)
			return "its rows come without columns";
		return take_once(&s->has_rows, first == '[', "rows come twice", "its rows are no list");
	}
	if (strcmp(key, "row_count") == 0) {
		*member = ANSWER_MEMBER_COUNT;
		return take_once(&s->has_count, first >= '0' && first <= '9', "row_count comes twice",
				 "its row_count is no number");
	}
	if (strcmp(key, "rows_affected") == 0) {
		*member = ANSWER_MEMBER_AFFECTED;
		return take_once(&s->has_affected, first >= '0' && first <= '9', "rows_affected comes twice",
				 "its rows_affected is no number");
	}
	return NULL;
}

const char *answer_shape_row(struct answer_shape *s, bool is_list, uint64_t values)
{
	s->rows++;
	if (!is_list)
		return "a row is no list";
	return values == s->columns ? NULL : "a row has not as many values as there are columns";
}

const char *answer_shape_end(const struct answer_shape *s, bool reads)
{
	if (!s->has_rows && (reads || !s->has_affected))
		return "it has no rows";
	if (s->has_rows && !s->has_count)
		return "it has no row_count";
	if (s->has_rows && s->count != s->rows)
		return "its row_count is not the number of its rows";
	return NULL;
}

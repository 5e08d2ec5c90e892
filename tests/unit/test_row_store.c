/* test_row_store.c - rows of other nodes: kept exactly, found by hash, on disk and not beyond their budget. */
#include "common/remote/row_store.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/unit.h"

static const struct query_value nasty[] = {
    {.type = QUERY_NULL},
    {.type = QUERY_INTEGER, .integer = 0},
    {.type = QUERY_INTEGER, .integer = -1},
    {.type = QUERY_INTEGER, .integer = INT64_MAX},
    {.type = QUERY_INTEGER, .integer = INT64_MIN},
    {.type = QUERY_INTEGER, .integer = 300},
    {.type = QUERY_REAL, .real = 0.1},
    {.type = QUERY_REAL, .real = -0.0},
    {.type = QUERY_REAL, .real = DBL_MAX},
    {.type = QUERY_REAL, .real = INFINITY},
    {.type = QUERY_TEXT, .data = {"", 0}},
    {.type = QUERY_TEXT, .data = {"a\0b", 3}},
    {.type = QUERY_BLOB, .data = {"\xff\x00", 2}},
    {.type = QUERY_BLOB, .data = {"", 0}},
};
#define NASTY (sizeof(nasty) / sizeof(nasty[0]))

static bool same(const struct query_value *a, const struct query_value *b)
{
	if (a->type != b->type)
		return false;
	switch (a->type) {
	case QUERY_INTEGER:
		return a->integer == b->integer;
	case QUERY_REAL:
		return memcmp(&a->real, &b->real, sizeof(a->real)) == 0;
	case QUERY_TEXT:
	case QUERY_BLOB:
		return a->data.len == b->data.len && memcmp(a->data.bytes, b->data.bytes, a->data.len) == 0;
	default:
		return true;
	}
}

static void test_values_come_back_exactly(void)
{
	struct row_budget budget = {1 << 20, 0, NULL};
	struct row_store *s = row_store_create(&budget, NASTY);
	struct query_value values[NASTY];
	struct row_walk walk = {0};
	struct stored_row *row, *other;
	struct errmsg em = {0};
	size_t i, k;

	CU_ASSERT_PTR_NOT_NULL_FATAL(s);
	CU_ASSERT_PTR_NULL(row_store_next(s, &walk));
	for (k = 0; k < 3; k++)
		UNIT_OK(row_store_add(s, nasty, &row, &em), &em);
	UNIT_OK(row_store_add(s, nasty, &other, &em), &em);
	CU_ASSERT(row_store_same(row, other));
	row_store_drop_last(s, other);
	CU_ASSERT_EQUAL(row_store_count(s), 3);
	for (k = 0; k < 3; k++) {
		row = row_store_next(s, &walk);
		CU_ASSERT_PTR_NOT_NULL_FATAL(row);
		row_store_values(s, row, values);
		for (i = 0; i < NASTY; i++)
			CU_ASSERT(same(&values[i], &nasty[i]));
	}
	CU_ASSERT_PTR_NULL(row_store_next(s, &walk));
	UNIT_OK(row_store_add(s, nasty, &row, &em), &em);
	CU_ASSERT_PTR_EQUAL(row_store_next(s, &walk), row); /* a walk meets what came behind it */
	row_store_free(s);
	CU_ASSERT_EQUAL(budget.memory_left, 1 << 20);
}

static void test_rows_by_hash_in_order(void)
{
	struct row_budget budget = {1 << 24, 0, NULL};
	struct row_store *s = row_store_create(&budget, 1);
	struct query_value v = {.type = QUERY_INTEGER}, got;
	const struct stored_row *found;
	struct row_index *index;
	struct stored_row *row;
	struct errmsg em = {0};
	int64_t i, last;

	for (i = 0; i < 10000; i++) {
		v.integer = i;
		UNIT_OK(row_store_add(s, &v, &row, &em), &em);
		row->hash = (uint32_t)(i % 10) * 4096; /* many share a bucket */
	}
	CU_ASSERT_EQUAL(row_index_create(&index, s), DB_OK);
	for (i = 0, last = -1, found = row_index_find(index, 7 * 4096); found != NULL;
	     found = row_index_next(found), i++) {
		row_store_values(s, found, &got);
		CU_ASSERT(got.integer % 10 == 7 && got.integer > last);
		last = got.integer;
	}
	CU_ASSERT_EQUAL(i, 1000);
	CU_ASSERT_PTR_NULL(row_index_find(index, 11 * 4096));
	row_index_free(index);
	row_store_free(s);
}

static void test_what_outgrows_memory_goes_to_disk_and_no_further(void)
{
	char dir[UNIT_PATH_MAX], text[1000];
	struct row_budget budget = {100 << 10, 40 << 20, NULL};
	struct query_value v = {.type = QUERY_TEXT, .data = {text, sizeof(text)}}, got;
	struct row_store *s;
	struct row_walk walk = {0};
	struct stored_row *row;
	struct errmsg em = {0};
	enum db_err err = DB_OK;
	size_t count = 0, walked = 0;

	unit_tmpdir(dir);
	memset(text, 'x', sizeof(text));
	s = row_store_create(&budget, 1);
	while (err == DB_OK && count < 1000) {
		err = row_store_add(s, &v, &row, &em);
		count += err == DB_OK;
	}
	CU_ASSERT_EQUAL(err, DB_TOO_LARGE); /* there is no directory: memory is all */
	CU_ASSERT(count < 100);
	budget.dir = dir;
	for (err = DB_OK; err == DB_OK && count < 100000;) {
		err = row_store_add(s, &v, &row, &em);
		count += err == DB_OK;
	}
	CU_ASSERT_EQUAL(err, DB_TOO_LARGE);
	CU_ASSERT(count > 20000 && em.text[0] != '\0');
	while ((row = row_store_next(s, &walk)) != NULL) {
		row_store_values(s, row, &got);
		walked += got.data.len == sizeof(text) && got.data.bytes[999] == 'x';
	}
	CU_ASSERT_EQUAL(walked, count);
	row_store_free(s);
	CU_ASSERT(budget.memory_left == 100 << 10 && budget.disk_left == 40 << 20);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"values come back exactly", test_values_come_back_exactly},
	    {"rows by hash, in order", test_rows_by_hash_in_order},
	    {"what outgrows memory goes to disk and no further", test_what_outgrows_memory_goes_to_disk_and_no_further},
	    {NULL, NULL},
	};

	return unit_run("row_store", tests);
}

/*
 * test_lost_writes.c - the list of cut writes: what it keeps, over restarts and damage, and how a store's tail comes
 * into it.
 */
#include "node/lost_writes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/query/exec.h"
#include "tests/unit/unit.h"

static struct lost_writes *open_list(const char *dir)
{
	struct lost_writes *l;
	struct errmsg em = {0};

	UNIT_OK(lost_writes_create(&l, dir, &em), &em);
	CU_ASSERT_PTR_NOT_NULL_FATAL(l);
	return l;
}

static void add(struct lost_writes *l, const char *id, uint64_t lsn)
{
	struct errmsg em = {0};

	UNIT_OK(lost_writes_add(l, id, strlen(id), lsn, &em), &em);
}

/* The LSN of id in the list; 0: not there. */
static uint64_t find(struct lost_writes *l, const char *id)
{
	uint64_t lsn = 0;

	return lost_writes_find(l, id, &lsn) ? lsn : 0;
}

static void node_dir(char out[UNIT_PATH_MAX])
{
	char top[UNIT_PATH_MAX];

	unit_tmpdir(top);
	snprintf(out, UNIT_PATH_MAX, "%.480s/node1", top);
}

static void test_a_list_survives_a_restart(void)
{
	char dir[UNIT_PATH_MAX];
	struct lost_writes *l;
	struct errmsg em = {0};

	node_dir(dir);
	l = open_list(dir);
	CU_ASSERT_EQUAL(find(l, "a"), 0);
	add(l, "a", 7);
	add(l, "\xc3\xa9", 8);
	add(l, "a", 9); /* lost twice */
	UNIT_OK(lost_writes_save(l, &em), &em);
	add(l, "b", 10); /* not saved */
	CU_ASSERT_EQUAL(find(l, "b"), 10);
	lost_writes_free(l);
	l = open_list(dir);
	CU_ASSERT_EQUAL(find(l, "a"), 9);
	CU_ASSERT_EQUAL(find(l, "\xc3\xa9"), 8);
	CU_ASSERT_EQUAL(find(l, "b"), 0);
	CU_ASSERT_EQUAL(lost_writes_add(l, "\n", 1, 1, &em), DB_INVALID);
	lost_writes_free(l);
}

static void test_the_newest_stay(void)
{
	char dir[UNIT_PATH_MAX], id[32];
	struct lost_writes *l;
	struct errmsg em = {0};
	unsigned i;

	node_dir(dir);
	l = open_list(dir);
	for (i = 1; i <= LOST_WRITES_MAX + 5; i++) {
		snprintf(id, sizeof(id), "id%u", i);
		add(l, id, i);
	}
	UNIT_OK(lost_writes_save(l, &em), &em);
	lost_writes_free(l);
	l = open_list(dir);
	CU_ASSERT_EQUAL(find(l, "id5"), 0);
	CU_ASSERT_EQUAL(find(l, "id6"), 6);
	CU_ASSERT_EQUAL(find(l, id), LOST_WRITES_MAX + 5);
	lost_writes_free(l);
}

static size_t read_file(const char *path, uint8_t *out, size_t size)
{
	FILE *f = fopen(path, "r");
	size_t len;

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	len = fread(out, 1, size, f);
	fclose(f);
	return len;
}

static void write_file(const char *path, const uint8_t *bytes, size_t len)
{
	FILE *f = fopen(path, "w");

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	CU_ASSERT_EQUAL(fwrite(bytes, 1, len, f), len);
	fclose(f);
}

static void test_the_format_is_what_it_was(void)
{
	static const uint8_t golden[] = {'G', 'Z', 'L', 'O', 'S', 'T', '0', '1', 1, 0, 0, 0,   7,
					 0,   0,   0,   0,   0,   0,   0,   2,   0, 0, 0, 'a', 'b'};
	char dir[UNIT_PATH_MAX], path[UNIT_PATH_MAX + 8];
	uint8_t bytes[256];
	struct lost_writes *l;
	struct errmsg em = {0};

	node_dir(dir);
	l = open_list(dir);
	add(l, "ab", 7);
	UNIT_OK(lost_writes_save(l, &em), &em);
	lost_writes_free(l);
	snprintf(path, sizeof(path), "%s.lost", dir);
	CU_ASSERT_EQUAL(read_file(path, bytes, sizeof(bytes)), sizeof(golden) + 8);
	CU_ASSERT(memcmp(bytes, golden, sizeof(golden)) == 0);
}

/* Every cut and every changed byte: an empty list, never a wrong one. */
static void test_damage_is_noticed(void)
{
	char dir[UNIT_PATH_MAX], path[UNIT_PATH_MAX + 8];
	uint8_t bytes[256];
	struct lost_writes *l;
	struct errmsg em = {0};
	size_t len, i;

	node_dir(dir);
	snprintf(path, sizeof(path), "%s.lost", dir);
	l = open_list(dir);
	add(l, "a", 7);
	add(l, "b", 8);
	UNIT_OK(lost_writes_save(l, &em), &em);
	lost_writes_free(l);
	len = read_file(path, bytes, sizeof(bytes));
	for (i = 0; i < 2 * len; i++) {
		if (i < len)
			bytes[i] ^= 0x41;
		write_file(path, bytes, i < len ? len : i - len);
		if (i < len)
			bytes[i] ^= 0x41;
		l = open_list(dir);
		CU_ASSERT_EQUAL(find(l, "a"), 0);
		CU_ASSERT_EQUAL(find(l, "b"), 0);
		add(l, "c", 9);
		UNIT_OK(lost_writes_save(l, &em), &em);
		lost_writes_free(l);
		l = open_list(dir);
		CU_ASSERT_EQUAL(find(l, "c"), 9);
		lost_writes_free(l);
	}
}

/* ---- a store's tail */

static uint64_t next_lsn(void *arg)
{
	return store_tip_lsn(arg) + 1;
}

static void write_one(struct store *s, struct query_conn *c, const char *body)
{
	const struct query_request_limits limits = {0};
	struct query_error error = {0};
	struct query_request *r;
	struct buf out = {0};
	struct errmsg em = {0};
	bool lost;

	(void)s;
	CU_ASSERT_EQUAL_FATAL(query_request_parse(&r, body, strlen(body), &limits, &error), QUERY_OK);
	r->role = AUTH_ADMIN;
	UNIT_OK(query_batch_begin(c, &em), &em);
	CU_ASSERT_EQUAL(query_write(c, r, 0, &out, &error, &lost), QUERY_OK);
	UNIT_OK(query_batch_commit(c, &em), &em);
	query_request_free(r);
	buf_fini(&out);
}

/* A master's store with committed writes and a tail; returns the last committed LSN. */
static uint64_t fill_store(struct store *s, bool ids_before)
{
	struct query_conn_options options = {.node_id = "node1", .next_lsn = next_lsn, .next_lsn_arg = s};
	struct query_conn *c;
	struct errmsg em = {0};
	uint64_t committed_lsn;
	sqlite3 *db;

	store_set_term(s, 1);
	UNIT_OK(store_open_writer(s, &db, &em), &em);
	UNIT_OK(query_conn_create(&c, db, &options, &em), &em);
	write_one(s, c, "{\"sql\":\"create table t(a)\"}");
	if (ids_before)
		write_one(s, c, "{\"sql\":\"insert into t values(1)\",\"request_id\":\"kept\"}");
	committed_lsn = store_tip_lsn(s);
	store_set_committed(s, committed_lsn);
	write_one(s, c, "{\"sql\":\"insert into t values(2)\",\"request_id\":\"cut1\"}");
	write_one(s, c, "{\"sql\":\"insert into t values(3)\"}");
	write_one(s, c, "{\"sql\":\"insert into t values(4)\",\"request_id\":\"cut2\"}");
	query_conn_free(c);
	return committed_lsn;
}

static void check_tail(bool ids_before)
{
	struct store_options options = {.segment_size_bytes = 1 << 20};
	char dir[UNIT_PATH_MAX], list_dir[UNIT_PATH_MAX];
	struct lost_writes *l;
	struct errmsg em = {0};
	struct store *s;
	uint64_t lsn;

	unit_tmpdir(dir);
	node_dir(list_dir);
	options.dir = dir;
	UNIT_OK(store_open(&s, &options, &em), &em);
	lsn = fill_store(s, ids_before);
	l = open_list(list_dir);
	lost_writes_note_tail(l, s, lsn);
	UNIT_OK(store_cut(s, lsn, &em), &em);
	lost_writes_note_tail(l, s, lsn); /* nothing is left to be lost */
	lost_writes_free(l);
	l = open_list(list_dir);
	CU_ASSERT_EQUAL(find(l, "kept"), 0);
	CU_ASSERT_EQUAL(find(l, "cut1"), lsn + 1);
	CU_ASSERT_EQUAL(find(l, "cut2"), lsn + 3);
	lost_writes_free(l);
	store_close(s);
}

static void test_the_ids_of_a_tail_are_lost_and_no_others(void)
{
	struct errmsg em = {0};

	UNIT_OK(store_init_sqlite(&em), &em);
	check_tail(true);
	check_tail(false); /* the table itself is in the tail */
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"a list survives a restart", test_a_list_survives_a_restart},
	    {"the newest stay", test_the_newest_stay},
	    {"the format is what it was", test_the_format_is_what_it_was},
	    {"damage is noticed", test_damage_is_noticed},
	    {"the ids of a tail are lost, and no others", test_the_ids_of_a_tail_are_lost_and_no_others},
	    {NULL, NULL},
	};

	return unit_run("lost_writes", tests);
}

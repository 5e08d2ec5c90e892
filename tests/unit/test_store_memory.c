/*
 * test_store_memory.c - memory that runs out below a store, and clocks that jump.
 *
 * The program is linked with wrappers around malloc, calloc and realloc as our own code calls them (libraries are not
 * affected): the nth allocation of an operation fails, for every n until none fails any more. Whatever failed, the
 * operation says so and left nothing behind: the same operation then succeeds, checksums fit, and a reopened store holds
 * what was acknowledged and nothing else.
 */
#include "tests/unit/store_fixture.h"

#define ATTEMPTS_MAX 500

/* The wrappers have no context but these. Allocations until one fails; negative: none does. */
static long allocations_left = -1;
static bool failed; /* one did */
static int64_t wall_offset_us;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t size);
uint64_t __real_clock_wall_us(void);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *p, size_t size);
uint64_t __wrap_clock_wall_us(void);

static bool fails_now(void)
{
	if (allocations_left < 0 || allocations_left-- > 0)
		return false;
	failed = true;
	return true;
}

void *__wrap_malloc(size_t size)
{
	return fails_now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return fails_now() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *p, size_t size)
{
	return fails_now() ? NULL : __real_realloc(p, size);
}

uint64_t __wrap_clock_wall_us(void)
{
	return __real_clock_wall_us() + (uint64_t)wall_offset_us;
}

static void arm(long n)
{
	failed = false;
	allocations_left = n;
}

/* Returns whether an allocation failed since arm(). */
static bool disarm(void)
{
	allocations_left = -1;
	return failed;
}

static void test_a_commit_without_memory_changes_nothing(void)
{
	struct fixture f;
	struct store_status before, after;
	int64_t rows = 0;
	long n, failures = 0;
	bool hit = true;
	int rc;

	fixture_new(&f);
	f.options.segment_size_bytes = (size_t)64 << 10;
	fixture_close(&f);
	fixture_open(&f);
	SQL(f.w, "create table t(a integer primary key, b)");
	for (n = 0; n < ATTEMPTS_MAX && hit; n++) {
		store_get_status(f.s, &before);
		arm(n);
		rc = fixture_try(f.w, "insert into t(b) values (randomblob(30000))"); /* segments change now and then */
		hit = disarm();
		store_get_status(f.s, &after);
		if (rc == SQLITE_OK) {
			rows++;
			CU_ASSERT_EQUAL(after.tip.lsn, before.tip.lsn + 1);
		} else {
			failures++;
			CU_ASSERT(hit);
			CU_ASSERT_EQUAL(after.tip.lsn, before.tip.lsn);
			CU_ASSERT_EQUAL(after.db_checksum, before.db_checksum);
		}
		CU_ASSERT_EQUAL(VALUE(f.w, "select count(*) from t"), rows);
		SQL(f.w, "insert into t(b) values (randomblob(30000))"); /* what failed works again at once */
		rows++;
	}
	CU_ASSERT_FALSE(hit);
	CU_ASSERT(failures > 3);
	fixture_check_all(&f, "select count(*) from t");
	CU_ASSERT_EQUAL(VALUE(f.w, "select count(*) from t"), rows);
	fixture_close(&f);
}

static void test_a_new_segment_without_memory_leaves_the_log_whole(void)
{
	struct fixture f;
	int64_t rows = 0;
	long n;
	bool hit = true;

	fixture_new(&f);
	f.options.segment_size_bytes = (size_t)64 << 10;
	fixture_close(&f);
	fixture_open(&f);
	SQL(f.w, "create table t(a integer primary key, b)");
	for (n = 0; n < ATTEMPTS_MAX && hit;
	     n++) { /* the record is larger than a segment: each commit begins a new one */
		arm(n);
		rows += fixture_try(f.w, "insert into t(b) values (randomblob(90000))") == SQLITE_OK;
		hit = disarm();
		CU_ASSERT_EQUAL(VALUE(f.w, "select count(*) from t"), rows);
	}
	CU_ASSERT(!hit && rows > 0);
	CU_ASSERT(n > 3);
	fixture_check_all(&f, "select count(*) from t");
	CU_ASSERT_EQUAL(VALUE(f.w, "select count(*) from t"), rows);
	fixture_close(&f);
}

static void test_a_term_start_without_memory_may_be_tried_again(void)
{
	struct fixture f;
	struct errmsg em = {0};
	uint64_t lsn = 0, tip;
	enum db_err err = DB_NOMEM;
	long n;

	fixture_new(&f);
	SQL(f.w, "create table t(a)");
	tip = store_tip_lsn(f.s);
	for (n = 0; n < ATTEMPTS_MAX && err != DB_OK; n++) {
		arm(n);
		err = store_append_term_start(f.s, &lsn, &em);
		disarm();
		CU_ASSERT(err == DB_OK || err == DB_NOMEM);
		CU_ASSERT_EQUAL(store_tip_lsn(f.s), err == DB_OK ? tip + 1 : tip);
	}
	CU_ASSERT(n > 1 && err == DB_OK && lsn == tip + 1);
	SQL(f.w, "insert into t values (1)");
	fixture_check_all(&f, "select count(*) from t");
	fixture_close(&f);
}

static void test_a_replica_without_memory_applies_the_record_later(void)
{
	struct fixture m, r = {0};
	struct wal_record record;
	struct errmsg em = {0};
	struct store_status mine, theirs;
	const uint8_t *bytes;
	uint64_t lsn;
	size_t len;
	long n, failures = 0;
	enum db_err err;

	fixture_new(&m);
	unit_tmpdir(r.dir);
	r.options.segment_size_bytes = (size_t)64 << 10;
	UNIT_OK(fixture_open_only(&r, &em), &em);
	SQL(m.w, "create table t(a integer primary key, b)");
	for (n = 0; n < 40; n++)
		SQL(m.w, "insert into t(b) values (randomblob(9000)); update t set b = 1 where a = %ld", n / 2);
	fixture_commit(&m);
	for (lsn = 1, n = 0; lsn <= store_tip_lsn(m.s); lsn++, n = 0) {
		UNIT_OK(wal_read(store_wal(m.s), lsn, &record, &em), &em);
		bytes = wal_record_bytes(&record, &len);
		do {
			arm(n++);
			err = store_tip_lsn(r.s) < lsn ? store_append_record(r.s, bytes, len, &em) : DB_OK;
			if (err == DB_OK)
				err = store_apply(r.s, lsn, &em);
			disarm();
			failures += err != DB_OK;
			/* A record that cannot even be decoded for want of memory counts as damaged: it is asked for again. */
			CU_ASSERT(err == DB_OK || err == DB_NOMEM || err == DB_CORRUPT);
		} while (err != DB_OK && n < ATTEMPTS_MAX);
	}
	CU_ASSERT(failures > 50);
	store_get_status(m.s, &mine);
	store_get_status(r.s, &theirs);
	CU_ASSERT_EQUAL(theirs.applied_lsn, mine.applied_lsn);
	CU_ASSERT_EQUAL(theirs.db_checksum, mine.db_checksum);
	CU_ASSERT(fixture_verifies(r.s));
	store_close(r.s);
	UNIT_OK(fixture_open_only(&r, &em), &em);
	store_get_status(r.s, &theirs);
	CU_ASSERT_EQUAL(theirs.db_checksum, mine.db_checksum);
	store_close(r.s);
	fixture_close(&m);
}

static void test_a_store_that_cannot_be_opened_for_want_of_memory_is_whole(void)
{
	struct fixture f;
	struct errmsg em = {0};
	enum db_err err = DB_NOMEM;
	int64_t rows;
	long n, i;

	fixture_new(&f);
	SQL(f.w, "create table t(a integer primary key, b)");
	for (i = 0; i < 100; i++)
		SQL(f.w, "insert into t(b) values (randomblob(9000))");
	fixture_commit(&f);
	fixture_checkpoint(&f);
	for (i = 0; i < 100; i++)
		SQL(f.w, "insert into t(b) values (randomblob(9000))");
	rows = VALUE(f.w, "select count(*) from t");
	fixture_close(&f);
	for (n = 0; n < 5000 && err != DB_OK; n++) {
		arm(n);
		err = fixture_open_only(&f, &em);
		disarm();
		CU_ASSERT(err == DB_OK || err == DB_NOMEM);
		if (err != DB_OK && err != DB_NOMEM)
			fprintf(stderr, "allocation %ld: %s\n", n, em.text);
		CU_ASSERT_EQUAL(f.s != NULL, err == DB_OK);
	}
	CU_ASSERT(n > 20 && err == DB_OK);
	fixture_connect(&f);
	CU_ASSERT_EQUAL(VALUE(f.w, "select count(*) from t"), rows);
	fixture_check_all(&f, "select count(*) from t");
	fixture_close(&f);
}

static void test_a_checkpoint_without_memory_leaves_the_old_one(void)
{
	struct fixture f;
	struct errmsg em = {0};
	struct store_status status;
	enum db_err err = DB_NOMEM;
	long n, i;

	fixture_new(&f);
	SQL(f.w, "create table t(a integer primary key, b)");
	for (i = 0; i < 60; i++)
		SQL(f.w, "insert into t(b) values (randomblob(20000))");
	fixture_commit(&f);
	for (n = 0; n < ATTEMPTS_MAX && err != DB_OK; n++) {
		arm(n);
		err = store_checkpoint(f.s, UINT64_MAX, &em);
		disarm();
		CU_ASSERT(err == DB_OK || err == DB_NOMEM);
		store_get_status(f.s, &status);
		CU_ASSERT_EQUAL(status.checkpoint_lsn, err == DB_OK ? status.visible_lsn : 0);
		CU_ASSERT_EQUAL(VALUE(f.r, "select count(*) from t"), 60);
	}
	CU_ASSERT(n > 1 && err == DB_OK);
	fixture_check_all(&f, "select count(*) from t");
	fixture_close(&f);
}

static void test_times_of_records_never_go_back(void)
{
	struct fixture f;
	struct errmsg em = {0};
	struct wal_record r;
	uint64_t lsn, before_us = 0;

	fixture_new(&f);
	SQL(f.w, "create table t(a)");
	wall_offset_us = -(int64_t)86400 * 1000000;
	SQL(f.w, "insert into t values (1)");
	UNIT_OK(store_append_term_start(f.s, &lsn, &em), &em);
	wall_offset_us = (int64_t)86400 * 1000000;
	SQL(f.w, "insert into t values (2)");
	fixture_commit(&f);
	fixture_close(&f);
	wall_offset_us = 0;
	fixture_open(&f); /* and it is remembered */
	SQL(f.w, "insert into t values (3)");
	for (lsn = 1; lsn <= store_tip_lsn(f.s); lsn++) {
		UNIT_OK(wal_read(store_wal(f.s), lsn, &r, &em), &em);
		CU_ASSERT(r.time_us >= before_us);
		before_us = r.time_us;
	}
	CU_ASSERT(before_us > __real_clock_wall_us()); /* the clock was ahead once: later records say the same */
	fixture_close(&f);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"a commit without memory changes nothing", test_a_commit_without_memory_changes_nothing},
	    {"a new segment without memory leaves the log whole",
	     test_a_new_segment_without_memory_leaves_the_log_whole},
	    {"a term start without memory may be tried again", test_a_term_start_without_memory_may_be_tried_again},
	    {"a replica without memory applies the record later",
	     test_a_replica_without_memory_applies_the_record_later},
	    {"a store that cannot be opened for want of memory is whole",
	     test_a_store_that_cannot_be_opened_for_want_of_memory_is_whole},
	    {"a checkpoint without memory leaves the old one", test_a_checkpoint_without_memory_leaves_the_old_one},
	    {"times of records never go back", test_times_of_records_never_go_back},
	    {NULL, NULL},
	};
	struct errmsg em = {0};

	if (store_init_sqlite(&em) != DB_OK)
		return 1;
	return unit_run("store_memory", tests);
}

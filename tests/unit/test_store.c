/*
 * test_store.c - the store as SQLite's user sees it: SQL through both connections, snapshots, rollbacks, spills, VACUUM,
 * limits and full disks. After each kind of change fixture_check_all() compares every way to read the database.
 */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/store_fixture.h"

static void fill(sqlite3 *db, int rows, int blob_bytes)
{
	SQL(db,
	    "with recursive n(i) as (select 1 union all select i+1 from n where i<%d)"
	    "insert into t(a, b) select i, randomblob(%d) from n",
	    rows, blob_bytes);
}

static void test_a_row_written_is_read_once_committed(void)
{
	struct fixture f;
	struct store_status status;

	fixture_new(&f);
	CU_ASSERT_EQUAL(VALUE(f.r, "select count(*) from sqlite_schema"), 0);
	SQL(f.w, "create table t(a integer primary key, b text)");
	SQL(f.w, "insert into t values(1, 'one'),(2, 'two')");
	CU_ASSERT_EQUAL(VALUE(f.w, "select count(*) from t"), 2);
	CU_ASSERT_EQUAL(VALUE(f.r, "select count(*) from sqlite_schema"), 0);
	CU_ASSERT_EQUAL(store_tip_lsn(f.s), 2);
	CU_ASSERT_EQUAL(store_visible_lsn(f.s), 0);
	store_set_committed(f.s, 1);
	CU_ASSERT_EQUAL(VALUE(f.r, "select count(*) from t"), 0);
	store_set_committed(f.s, 2);
	CU_ASSERT_EQUAL(VALUE(f.r, "select count(*) from t"), 2);
	store_set_committed(f.s, 1);
	CU_ASSERT_EQUAL(store_visible_lsn(f.s), 2);
	store_get_status(f.s, &status);
	CU_ASSERT_EQUAL(status.applied_lsn, 2);
	CU_ASSERT_EQUAL(status.oldest_pinned_lsn, UINT64_MAX);
	CU_ASSERT(status.applied_time_us > 0);
	fixture_check_all(&f, "select sum(a) from t");
	fixture_close(&f);
}

static void test_a_transaction_that_changes_nothing_seals_nothing(void)
{
	struct fixture f;

	fixture_new(&f);
	SQL(f.w, "create table t(a)");
	SQL(f.w, "begin immediate; commit; begin; select * from t; commit; begin immediate; rollback");
	SQL(f.w, "delete from t");
	CU_ASSERT(store_tip_lsn(f.s) <= 2);
	fixture_close(&f);
}

static void test_a_reader_keeps_its_snapshot_over_commits_and_checkpoints(void)
{
	struct fixture f;
	struct store_status status;
	uint64_t pinned;
	int i;

	fixture_new(&f);
	SQL(f.w, "create table t(a integer primary key, b)");
	fill(f.w, 2000, 100);
	fixture_commit(&f);
	fixture_checkpoint(&f);
	SQL(f.w, "update t set b = randomblob(100) where a < 500");
	fixture_commit(&f);
	SQL(f.r, "begin");
	CU_ASSERT_EQUAL(VALUE(f.r, "select count(*) from t"), 2000);
	pinned = store_snapshot_lsn(f.r);
	CU_ASSERT_EQUAL(pinned, store_visible_lsn(f.s));
	for (i = 0; i < 20; i++) {
		SQL(f.w, "delete from t where a %% 20 = %d", i);
		SQL(f.w, "vacuum");
		fixture_commit(&f);
		fixture_checkpoint(&f);
		CU_ASSERT_EQUAL(VALUE(f.r, "select count(*) from t"), 2000);
		CU_ASSERT_EQUAL(store_snapshot_lsn(f.r), pinned);
	}
	store_get_status(f.s, &status);
	CU_ASSERT_EQUAL(status.oldest_pinned_lsn, pinned);
	CU_ASSERT_EQUAL(status.checkpoint_lsn, pinned);
	CU_ASSERT(fixture_is_intact(f.r));
	SQL(f.r, "commit");
	CU_ASSERT_EQUAL(VALUE(f.r, "select count(*) from t"), 0);
	fixture_checkpoint(&f);
	store_get_status(f.s, &status);
	CU_ASSERT_EQUAL(status.checkpoint_lsn, status.tip.lsn);
	fixture_check_all(&f, "select count(*) from t");
	fixture_close(&f);
}

static void test_rollbacks_and_savepoints_leave_the_right_rows(void)
{
	struct fixture f;
	uint64_t tip;

	fixture_new(&f);
	SQL(f.w, "create table t(a integer primary key, b, c unique)");
	SQL(f.w, "insert into t values(1, 1, 1)");
	tip = store_tip_lsn(f.s);
	SQL(f.w, "begin; insert into t values(2, 2, 2); rollback");
	CU_ASSERT_EQUAL(store_tip_lsn(f.s), tip);
	CU_ASSERT_EQUAL(fixture_try(f.w, "insert into t values(3, 3, 3),(4, 4, 1)"), SQLITE_CONSTRAINT);
	CU_ASSERT_EQUAL(store_tip_lsn(f.s), tip);
	SQL(f.w, "begin; insert into t values(5, 5, 5); savepoint a; insert into t values(6, 6, 6); rollback to a;"
		 "insert into t values(7, 7, 7); release a; savepoint b; insert into t values(8, 8, 8); release b");
	CU_ASSERT_EQUAL(fixture_try(f.w, "insert into t values(9, 9, 1)"), SQLITE_CONSTRAINT);
	SQL(f.w, "commit");
	CU_ASSERT_EQUAL(store_tip_lsn(f.s), tip + 1);
	CU_ASSERT_EQUAL(VALUE(f.w, "select sum(a) from t"), 1 + 5 + 7 + 8);
	fixture_check_all(&f, "select sum(a) from t");
	fixture_close(&f);
}

static void test_a_transaction_larger_than_the_cache_spills_and_commits(void)
{
	struct fixture f;

	fixture_new(&f);
	SQL(f.w, "create table t(a integer primary key, b); create index tb on t(b); pragma cache_size=20");
	SQL(f.w, "begin");
	fill(f.w, 5000, 300);
	SQL(f.w, "update t set b = randomblob(200) where a %% 3 = 0; delete from t where a %% 7 = 0; commit");
	CU_ASSERT_EQUAL(store_tip_lsn(f.s), 3);
	fixture_check_all(&f, "select sum(a) from t");
	fixture_close(&f);
}

static void test_a_rollback_after_a_spill_restores_everything(void)
{
	struct fixture f;
	int64_t sum;
	uint64_t tip;

	fixture_new(&f);
	SQL(f.w, "create table t(a integer primary key, b); pragma cache_size=20");
	fill(f.w, 3000, 300);
	sum = VALUE(f.w, "select sum(a) from t");
	tip = store_tip_lsn(f.s);
	SQL(f.w, "begin; update t set b = randomblob(500); savepoint x; delete from t where a > 100; rollback to x;"
		 "create table u as select * from t; rollback");
	CU_ASSERT_EQUAL(store_tip_lsn(f.s), tip);
	CU_ASSERT_EQUAL(VALUE(f.w, "select sum(a) from t"), sum);
	CU_ASSERT(fixture_is_intact(f.w));
	SQL(f.w, "begin; delete from t where a > 50; savepoint x; insert into t(b) select randomblob(300) from t;"
		 "update t set b = randomblob(4000); rollback to x; commit");
	CU_ASSERT_EQUAL(store_tip_lsn(f.s), tip + 1);
	CU_ASSERT_EQUAL(VALUE(f.w, "select count(*) from t"), 50);
	fixture_check_all(&f, "select sum(a) from t");
	fixture_close(&f);
}

static void test_vacuum_shrinks_the_database(void)
{
	struct fixture f;
	struct store_status before, after;

	fixture_new(&f);
	SQL(f.w, "create table t(a integer primary key, b)");
	fill(f.w, 5000, 500);
	fixture_commit(&f);
	fixture_checkpoint(&f);
	SQL(f.w, "delete from t where a > 100");
	store_get_status(f.s, &before);
	SQL(f.w, "vacuum");
	store_get_status(f.s, &after);
	CU_ASSERT(after.db_size_pages < before.db_size_pages / 10);
	CU_ASSERT(fixture_verifies(f.s));
	/* The pages come back with other content than the base file has there. */
	SQL(f.w, "insert into t(b) select zeroblob(500000) from t limit 5");
	fixture_check_all(&f, "select sum(a) + sum(length(b)) from t");
	fixture_close(&f);
}

static void auto_vacuum(const char *mode)
{
	struct fixture f;

	fixture_new(&f);
	SQL(f.w, "pragma auto_vacuum=%s; vacuum; create table t(a integer primary key, b); create index tb on t(b)",
	    mode);
	fill(f.w, 3000, 500);
	SQL(f.w, "delete from t where a %% 5 <> 0");
	SQL(f.w, "pragma incremental_vacuum(100)");
	SQL(f.w, "begin; delete from t where a < 2000; update t set b = zeroblob(20000) where a %% 50 = 0; commit");
	SQL(f.w, "pragma incremental_vacuum");
	fixture_check_all(&f, "select sum(a) + sum(length(b)) from t");
	fixture_close(&f);
}

static void test_auto_vacuum_in_every_mode(void)
{
	auto_vacuum("none");
	auto_vacuum("full");
	auto_vacuum("incremental");
}

static void test_full_text_search_and_triggers(void)
{
	struct fixture f;

	fixture_new(&f);
	SQL(f.w, "create virtual table d using fts5(body); create table t(a integer primary key, b);"
		 "create trigger ti after insert on t begin insert into d(rowid, body) values(new.a, hex(new.b)); end;"
		 "create trigger td after delete on t begin delete from d where rowid = old.a; end");
	fill(f.w, 500, 50);
	SQL(f.w, "delete from t where a %% 2; insert into d(d) values('optimize')");
	fixture_check_all(&f, "select count(*) from d");
	fixture_close(&f);
}

static void test_readers_cannot_write_and_nobody_can_attach(void)
{
	struct fixture f;
	char path[UNIT_PATH_MAX + 32], sql[UNIT_PATH_MAX + 64];
	struct stat st;
	sqlite3 *second = NULL;
	struct errmsg em = {0};

	fixture_new(&f);
	SQL(f.w, "create table t(a)");
	fixture_commit(&f);
	CU_ASSERT_EQUAL(fixture_try(f.r, "insert into t values(1)"), SQLITE_READONLY);
	CU_ASSERT_EQUAL(fixture_try(f.r, "create table u(a)"), SQLITE_READONLY);
	snprintf(path, sizeof(path), "%s/other.db", f.dir);
	snprintf(sql, sizeof(sql), "attach '%s' as x", path);
	CU_ASSERT_NOT_EQUAL(fixture_try(f.w, sql), SQLITE_OK);
	snprintf(sql, sizeof(sql), "attach 'file:%s?vfs=unix' as x", path);
	CU_ASSERT_NOT_EQUAL(fixture_try(f.w, sql), SQLITE_OK);
	CU_ASSERT_NOT_EQUAL(fixture_try(f.w, "attach 'main.db' as x"), SQLITE_OK);
	CU_ASSERT_NOT_EQUAL(fixture_try(f.r, "attach 'main.db' as x"), SQLITE_OK);
	snprintf(sql, sizeof(sql), "vacuum into '%s'", path);
	CU_ASSERT_NOT_EQUAL(fixture_try(f.w, sql), SQLITE_OK);
	CU_ASSERT_NOT_EQUAL(stat(path, &st), 0);
	CU_ASSERT_EQUAL(store_open_writer(f.s, &second, &em), DB_BUSY);
	CU_ASSERT_PTR_NULL(second);
	CU_ASSERT_NOT_EQUAL(fixture_try(f.w, "pragma journal_mode=wal"), SQLITE_OK);
	CU_ASSERT_NOT_EQUAL(fixture_try(f.w, "pragma page_size=8192"), SQLITE_OK);
	CU_ASSERT_NOT_EQUAL(fixture_try(f.r, "pragma mmap_size=0"), SQLITE_OK);
	SQL(f.w, "insert into t values(1); vacuum");
	fixture_check_all(&f, "select count(*) from t");
	fixture_close(&f);
}

/* 0 under a sanitizer, whose own memory is of no interest. */
static uint64_t anonymous_kib(void)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	FILE *file = fopen("/proc/self/status", "r");
	unsigned long long kib = 0;
	char line[256];

	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
		if (sscanf(line, "RssAnon: %llu", &kib) == 1)
			break;
	if (file != NULL)
		fclose(file);
	return kib;
#else
	return 0;
#endif
}

/* GRIZZLY_TEST_LARGE_MIB: how large; the bound on memory stays what it is. */
static void test_a_large_transaction_needs_little_memory(void)
{
	const char *mib = getenv("GRIZZLY_TEST_LARGE_MIB");
	int64_t rows = (mib == NULL ? 64 : atoi(mib)) * 1024LL / 4;
	struct fixture f;
	uint64_t before;

	fixture_new(&f);
	SQL(f.w, "create table t(a integer primary key, b)");
	before = anonymous_kib();
	SQL(f.w, "begin");
	fill(f.w, (int)rows, 4000);
	SQL(f.w, "commit");
	CU_ASSERT(anonymous_kib() - before < 80 * 1024);
	fixture_commit(&f);
	fixture_checkpoint(&f);
	SQL(f.w, "begin; update t set b = zeroblob(4000); update t set b = randomblob(3999); commit");
	CU_ASSERT(anonymous_kib() - before < 80 * 1024);
	SQL(f.w, "begin; update t set b = zeroblob(4000); rollback");
	CU_ASSERT(anonymous_kib() - before < 80 * 1024);
	CU_ASSERT_EQUAL(VALUE(f.w, "select sum(length(b)) from t"), 3999 * rows);
	CU_ASSERT(fixture_verifies(f.s));
	fixture_close(&f);
}

static void test_a_transaction_above_the_limit_fails_clearly(void)
{
	struct fixture f;
	struct errmsg em = {0};
	uint64_t tip;
	int i;

	fixture_new(&f);
	fixture_close(&f);
	f.options.transaction_bytes_max = 1 << 20;
	fixture_open(&f);
	SQL(f.w, "create table t(a integer primary key, b); insert into t values(1, 1)");
	tip = store_tip_lsn(f.s);
	for (i = 0; i < 3; i++) {
		/* At the commit, and earlier, by a cache spill. */
		SQL(f.w, "pragma cache_size=%d; begin", i == 0 ? -32000 : 20);
		sqlite3_exec(
		    f.w,
		    "insert into t(b) with recursive n(i) as (select 1 union all select i+1 from n where i<3000)"
		    "select randomblob(1000) from n; commit",
		    NULL, NULL, NULL);
		CU_ASSERT_EQUAL(sqlite3_errcode(f.w) & 0xff, SQLITE_FULL);
		CU_ASSERT_EQUAL(store_last_error(f.s, &em), DB_TOO_LARGE);
		if (!sqlite3_get_autocommit(f.w))
			SQL(f.w, "rollback");
		CU_ASSERT_EQUAL(store_tip_lsn(f.s), tip);
		CU_ASSERT_EQUAL(VALUE(f.w, "select count(*) from t"), 1);
	}
	SQL(f.w, "insert into t values(2, 2)");
	CU_ASSERT_EQUAL(store_last_error(f.s, &em), DB_OK);
	fixture_check_all(&f, "select sum(a) from t");
	fixture_close(&f);
}

struct disk {
	bool full; /* until an operation failed; a torn write may then be erased, for those blocks exist */
};

static int disk_before(void *ctx, enum wal_op op, const char *name, size_t *len)
{
	struct disk *disk = ctx;

	(void)name;
	if (!disk->full || (op != WAL_OP_WRITE && op != WAL_OP_CREATE))
		return 0;
	disk->full = false;
	if (len != NULL)
		*len /= 2;
	return ENOSPC;
}

static void test_a_full_disk_fails_the_commit_and_later_ones_succeed(void)
{
	struct disk disk = {.full = false};
	struct wal_faults faults = {.before = disk_before, .ctx = &disk};
	struct fixture f;
	struct errmsg em = {0};
	uint64_t tip;
	int i;

	fixture_new(&f);
	fixture_close(&f);
	f.options.faults = &faults;
	fixture_open(&f);
	SQL(f.w, "create table t(a integer primary key, b); insert into t values(1, 1)");
	for (i = 0; i < 5; i++) {
		tip = store_tip_lsn(f.s);
		disk.full = true;
		SQL(f.w, "begin; insert into t(b) values(zeroblob(300000)); create table u%d(a)", i);
		CU_ASSERT_EQUAL(fixture_try(f.w, "commit"), SQLITE_FULL);
		CU_ASSERT(sqlite3_get_autocommit(f.w));
		CU_ASSERT_EQUAL(store_last_error(f.s, &em), DB_FULL);
		disk.full = true;
		CU_ASSERT_EQUAL(fixture_try(f.w, "insert into t(b) values(2)"), SQLITE_FULL);
		CU_ASSERT_EQUAL(store_tip_lsn(f.s), tip);
		CU_ASSERT_EQUAL(VALUE(f.w, "select count(*) from t"), i + 1);
		CU_ASSERT_EQUAL(VALUE(f.w, "select count(*) from sqlite_schema"), 1);
		disk.full = false;
		SQL(f.w, "insert into t(b) values(2)");
		CU_ASSERT_EQUAL(store_tip_lsn(f.s), tip + 1);
		CU_ASSERT(fixture_is_intact(f.w));
	}
	f.options.faults = NULL;
	fixture_check_all(&f, "select sum(a) from t");
	fixture_close(&f);
}

static void test_a_failed_vacuum_and_a_failed_commit_beside_a_running_read(void)
{
	struct disk disk = {.full = false};
	struct wal_faults faults = {.before = disk_before, .ctx = &disk};
	struct fixture f;
	sqlite3_stmt *read = NULL;
	uint64_t tip;
	int rc;

	fixture_new(&f);
	fixture_close(&f);
	f.options.faults = &faults;
	fixture_open(&f);
	SQL(f.w, "create table t(a integer primary key, b)");
	fill(f.w, 2000, 200);
	SQL(f.w, "delete from t where a > 1000");
	tip = store_tip_lsn(f.s);
	disk.full = true;
	CU_ASSERT_EQUAL(fixture_try(f.w, "vacuum"), SQLITE_FULL);
	CU_ASSERT_EQUAL(store_tip_lsn(f.s), tip);
	CU_ASSERT(fixture_is_intact(f.w));
	CU_ASSERT(fixture_verifies(f.s));
	/* A read that is under way on the same connection may end in an error, but shows nothing of what failed. */
	CU_ASSERT_EQUAL(sqlite3_prepare_v2(f.w, "select a, b from t order by a", -1, &read, NULL), SQLITE_OK);
	CU_ASSERT_EQUAL(sqlite3_step(read), SQLITE_ROW);
	disk.full = true;
	CU_ASSERT_EQUAL(fixture_try(f.w, "update t set b = 'failed'"), SQLITE_FULL);
	while ((rc = sqlite3_step(read)) == SQLITE_ROW)
		CU_ASSERT_EQUAL(sqlite3_column_bytes(read, 1), 200);
	sqlite3_finalize(read);
	CU_ASSERT_EQUAL(VALUE(f.w, "select count(*) from t where b = 'failed'"), 0);
	CU_ASSERT_EQUAL(store_tip_lsn(f.s), tip);
	SQL(f.w, "vacuum; update t set b = 'done' where a < 10");
	f.options.faults = NULL;
	fixture_check_all(&f, "select sum(a) from t where b = 'done'");
	fixture_close(&f);
}

static void test_no_room_for_scratch_files_fails_the_statement_only(void)
{
	struct fixture f;
	char tmp[UNIT_PATH_MAX + 8], away[UNIT_PATH_MAX + 8];

	fixture_new(&f);
	SQL(f.w, "create table t(a integer primary key, b)");
	fill(f.w, 2000, 1000);
	snprintf(tmp, sizeof(tmp), "%s/tmp", f.dir);
	snprintf(away, sizeof(away), "%s/away", f.dir);
	CU_ASSERT_EQUAL(rename(tmp, away), 0);
	SQL(f.w, "pragma cache_size=20");
	CU_ASSERT_NOT_EQUAL(fixture_try(f.w, "update t set b = zeroblob(1000)"), SQLITE_OK);
	CU_ASSERT_EQUAL(VALUE(f.w, "select count(*) from t where b = zeroblob(1000)"), 0);
	SQL(f.w, "update t set b = zeroblob(1000) where a = 1");
	CU_ASSERT_EQUAL(rename(away, tmp), 0);
	SQL(f.w, "update t set b = zeroblob(1000) where a > 1000");
	fixture_check_all(&f, "select count(*) from t where b = zeroblob(1000)");
	fixture_close(&f);
}

static void test_two_stores_live_in_one_process(void)
{
	struct fixture f, g;
	struct store *again = NULL;
	struct errmsg em = {0};

	fixture_new(&f);
	fixture_new(&g);
	SQL(f.w, "create table t(a); insert into t values(1)");
	SQL(g.w, "create table t(a); insert into t values(2)");
	fixture_commit(&f);
	fixture_commit(&g);
	CU_ASSERT_EQUAL(VALUE(f.r, "select a from t"), 1);
	CU_ASSERT_EQUAL(VALUE(g.r, "select a from t"), 2);
	CU_ASSERT_EQUAL(store_open(&again, &f.options, &em), DB_BUSY);
	CU_ASSERT_PTR_NULL(again);
	fixture_close(&f);
	fixture_close(&g);
}

static void test_sorts_and_temporary_tables_use_scratch_files(void)
{
	struct fixture f;

	fixture_new(&f);
	SQL(f.w, "create table t(a integer primary key, b)");
	fill(f.w, 3000, 1000);
	fixture_commit(&f);
	CU_ASSERT_EQUAL(VALUE(f.r, "select count(*) from (select b from t order by b)"), 3000);
	SQL(f.w, "create temp table x as select * from t; begin; insert into t(b) select b from x; update x set b = 1; "
		 "commit");
	CU_ASSERT_EQUAL(VALUE(f.w, "select count(*) from t"), 6000);
	fixture_check_all(&f, "select count(*) from t");
	fixture_close(&f);
}

static void test_status_and_cluster_id(void)
{
	static const uint8_t id[16] = {1, 2, 3}, other[16] = {9};
	struct fixture f;
	struct store_status status;
	struct errmsg em = {0};

	fixture_new(&f);
	UNIT_OK(store_set_cluster_id(f.s, id, &em), &em);
	UNIT_OK(store_set_cluster_id(f.s, id, &em), &em);
	CU_ASSERT_EQUAL(store_set_cluster_id(f.s, other, &em), DB_INVALID);
	fixture_close(&f);
	fixture_open(&f);
	store_get_status(f.s, &status);
	CU_ASSERT_EQUAL(memcmp(status.cluster_id, id, 16), 0);
	fixture_close(&f);
	memcpy(f.options.cluster_id, other, 16);
	CU_ASSERT_EQUAL(fixture_open_only(&f, &em), DB_INVALID);
	CU_ASSERT_PTR_NULL(f.s);
	memcpy(f.options.cluster_id, id, 16);
	fixture_open(&f);
	fixture_close(&f);
}

static void count_call(void *arg)
{
	++*(int *)arg;
}

static void test_each_move_of_the_visible_lsn_is_told_once(void)
{
	struct fixture f;
	int calls = 0;

	fixture_new(&f);
	store_on_visible(f.s, count_call, &calls);
	SQL(f.w, "create table t(a)");
	CU_ASSERT_EQUAL(calls, 0);
	fixture_commit(&f);
	CU_ASSERT_EQUAL(calls, 1);
	store_set_committed(f.s, store_visible_lsn(f.s));
	CU_ASSERT_EQUAL(calls, 1);
	fixture_close(&f);
}

/* The quorum holds a record while the thread that appended it has not come to index it yet: whoever is told of the commit
 * next must find it visible. */
static void test_a_commit_that_overtakes_the_seal_is_not_forgotten(void)
{
	struct fixture f;
	int calls = 0;
	uint64_t lsn;

	fixture_new(&f);
	SQL(f.w, "create table t(a)");
	fixture_commit(&f);
	store_on_visible(f.s, count_call, &calls);
	lsn = store_visible_lsn(f.s) + 1;
	store_set_committed(f.s, lsn);
	CU_ASSERT_EQUAL(store_visible_lsn(f.s), lsn - 1);
	SQL(f.w, "insert into t values (7)");
	CU_ASSERT_EQUAL(store_visible_lsn(f.s), lsn);
	CU_ASSERT_EQUAL(calls, 1);
	SQL(f.w, "insert into t values (8)"); /* and no further than what was told */
	CU_ASSERT_EQUAL(store_visible_lsn(f.s), lsn);
	fixture_close(&f);
}

static const struct unit_test tests[] = {
    {"a row written is read once committed", test_a_row_written_is_read_once_committed},
    {"a transaction that changes nothing seals nothing", test_a_transaction_that_changes_nothing_seals_nothing},
    {"a reader keeps its snapshot over commits and checkpoints",
     test_a_reader_keeps_its_snapshot_over_commits_and_checkpoints},
    {"rollbacks and savepoints leave the right rows", test_rollbacks_and_savepoints_leave_the_right_rows},
    {"a transaction larger than the cache spills and commits",
     test_a_transaction_larger_than_the_cache_spills_and_commits},
    {"a rollback after a spill restores everything", test_a_rollback_after_a_spill_restores_everything},
    {"vacuum shrinks the database", test_vacuum_shrinks_the_database},
    {"auto_vacuum in every mode", test_auto_vacuum_in_every_mode},
    {"full text search and triggers", test_full_text_search_and_triggers},
    {"readers cannot write and nobody can attach", test_readers_cannot_write_and_nobody_can_attach},
    {"a large transaction needs little memory", test_a_large_transaction_needs_little_memory},
    {"a transaction above the limit fails clearly", test_a_transaction_above_the_limit_fails_clearly},
    {"a full disk fails the commit and later ones succeed", test_a_full_disk_fails_the_commit_and_later_ones_succeed},
    {"a failed vacuum, and a failed commit beside a running read",
     test_a_failed_vacuum_and_a_failed_commit_beside_a_running_read},
    {"no room for scratch files fails the statement only", test_no_room_for_scratch_files_fails_the_statement_only},
    {"two stores live in one process", test_two_stores_live_in_one_process},
    {"sorts and temporary tables use scratch files", test_sorts_and_temporary_tables_use_scratch_files},
    {"status and cluster id", test_status_and_cluster_id},
    {"each move of the visible LSN is told once", test_each_move_of_the_visible_lsn_is_told_once},
    {"a commit that overtakes the seal is not forgotten", test_a_commit_that_overtakes_the_seal_is_not_forgotten},
    {NULL, NULL},
};

int main(void)
{
	struct errmsg em = {0};

	if (store_init_sqlite(&em) != DB_OK) {
		fprintf(stderr, "%s\n", em.text);
		return 1;
	}
	return unit_run("store", tests);
}

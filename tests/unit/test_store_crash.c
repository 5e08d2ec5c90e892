/*
 * test_store_crash.c - processes killed at random points, torn and damaged files, moved directories.
 *
 * The child of a kill test writes rows 1, 2, 3, ... one per transaction, syncs, and reports through a pipe how far it is
 * durable; the parent kills it at some point and checks that the recovered database holds exactly the rows 1..n for
 * an n that is at least what was reported durable.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/store_fixture.h"

struct report {
	uint64_t rows;
	uint64_t lsn;
};

/* Never returns: writes, syncs, reports, checkpoints now and then. */
static void child_write(const char *dir, int report_fd, unsigned seed, uint64_t rows)
{
	struct fixture f;
	struct report report;
	char sql[160];

	memset(&f, 0, sizeof(f));
	snprintf(f.dir, sizeof(f.dir), "%s", dir);
	f.options.segment_size_bytes = (size_t)64 << 10;
	if (fixture_open_only(&f, NULL) != DB_OK || store_open_writer(f.s, &f.w, NULL) != DB_OK)
		_exit(3);
	fixture_commit(&f);
	for (rows++;; rows++) {
		/* Pages are rewritten, the file grows and shrinks, some transactions spill. */
		snprintf(sql, sizeof(sql),
			 "begin; insert into t values(%llu, randomblob(%u)); update t set b = randomblob(%u)"
			 " where a %% 13 = %llu; commit",
			 (unsigned long long)rows, rand_r(&seed) % 6000, rand_r(&seed) % 3000,
			 (unsigned long long)rows % 13);
		if (sqlite3_exec(f.w, sql, NULL, NULL, NULL) != SQLITE_OK)
			_exit(4);
		if (rand_r(&seed) % 3 == 0)
			continue;
		if (store_sync(f.s, &report.lsn, NULL) != DB_OK)
			_exit(5);
		store_set_committed(f.s, report.lsn);
		report.rows = rows;
		if (write(report_fd, &report, sizeof(report)) != (ssize_t)sizeof(report))
			_exit(6);
		if (rand_r(&seed) % 4 == 0 && store_checkpoint(f.s, UINT64_MAX, NULL) != DB_OK)
			_exit(7);
		if (rand_r(&seed) % 40 == 0 && sqlite3_exec(f.w, "vacuum", NULL, NULL, NULL) != SQLITE_OK)
			_exit(8);
	}
}

/* Runs the child, kills it after `reports` reports and some microseconds, returns the last report. */
static struct report run_and_kill(const char *dir, unsigned seed, uint64_t rows, int reports, unsigned delay_us)
{
	struct report report = {.rows = rows}, next;
	int fds[2], status;
	pid_t pid;

	if (pipe(fds) != 0)
		exit(1);
	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		child_write(dir, fds[1], seed, rows);
	}
	close(fds[1]);
	while (reports-- > 0 && read(fds[0], &next, sizeof(next)) == (ssize_t)sizeof(next))
		report = next;
	usleep(delay_us); /* not waited for: it only varies where the kill strikes */
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	CU_ASSERT(WIFSIGNALED(status));
	while (read(fds[0], &next, sizeof(next)) == (ssize_t)sizeof(next))
		report = next;
	close(fds[0]);
	return report;
}

static void test_a_killed_process_leaves_exactly_a_prefix(void)
{
	struct fixture f;
	struct report report = {0};
	struct store_status status;
	struct errmsg em = {0};
	unsigned seed = 12345;
	int round;
	uint64_t rows = 0;

	fixture_new(&f);
	SQL(f.w, "create table t(a integer primary key, b)");
	fixture_commit(&f);
	fixture_close(&f);
	for (round = 0; round < 40; round++) {
		report = run_and_kill(f.dir, seed + (unsigned)round, rows, 1 + (int)(rand_r(&seed) % 12),
				      rand_r(&seed) % 3000);
		UNIT_OK(fixture_open_only(&f, &em), &em);
		if (f.s == NULL)
			return;
		/* What may be read before anybody said what is committed is a consistent state, too. */
		store_get_status(f.s, &status);
		CU_ASSERT(status.visible_lsn >= status.checkpoint_lsn);
		CU_ASSERT(status.tip.lsn >= report.lsn);
		fixture_connect(&f);
		CU_ASSERT(fixture_is_intact(f.r));
		CU_ASSERT(fixture_verifies(f.s));
		rows = (uint64_t)VALUE(f.w, "select count(*) from t");
		CU_ASSERT(rows >= report.rows);
		CU_ASSERT_EQUAL((uint64_t)VALUE(f.w, "select ifnull(max(a), 0) from t"), rows);
		CU_ASSERT(fixture_is_intact(f.w));
		fixture_commit(&f);
		CU_ASSERT_EQUAL((uint64_t)VALUE(f.r, "select count(*) from t"), rows);
		fixture_close(&f);
	}
	fixture_open(&f);
	fixture_check_all(&f, "select sum(a) from t");
	fixture_close(&f);
}

/* A power cut in the middle of a checkpoint: base file pages half written, the log and the intent there. */
static void test_an_interrupted_checkpoint_shows_no_mixture(void)
{
	struct fixture f;
	struct store_status status;
	struct errmsg em = {0};
	struct rlimit limit, old;
	char path[UNIT_PATH_MAX + 16];
	uint64_t target;
	int64_t sum;

	fixture_new(&f);
	SQL(f.w, "create table t(a integer primary key, b)");
	SQL(f.w, "insert into t(b) with recursive n(i) as (select 1 union all select i+1 from n where i<300)"
		 "select randomblob(2000) from n");
	fixture_commit(&f);
	fixture_checkpoint(&f);
	SQL(f.w, "update t set b = randomblob(1900) where a %% 2; insert into t(b) select randomblob(2000) from t "
		 "limit 200");
	fixture_commit(&f);
	target = store_visible_lsn(f.s);
	sum = VALUE(f.r, "select sum(a) + sum(length(b)) from t");
	/* The base file cannot grow: writing it fails half way. */
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	limit = old;
	limit.rlim_cur = 700000;
	setrlimit(RLIMIT_FSIZE, &limit);
	CU_ASSERT_EQUAL(store_checkpoint(f.s, UINT64_MAX, &em), DB_IO);
	setrlimit(RLIMIT_FSIZE, &old);
	store_get_status(f.s, &status);
	CU_ASSERT(status.checkpoint_lsn < target);
	SQL(f.w, "delete from t where a > 100");
	CU_ASSERT(fixture_is_intact(f.r));
	CU_ASSERT_EQUAL(VALUE(f.r, "select sum(a) + sum(length(b)) from t"), sum);
	fixture_close(&f);
	/* As a crash would have left it: reopened, the intent is where readers start. */
	UNIT_OK(fixture_open_only(&f, &em), &em);
	CU_ASSERT_EQUAL(store_visible_lsn(f.s), target);
	CU_ASSERT_EQUAL(store_cut(f.s, target - 1, &em), DB_INVALID);
	fixture_connect(&f);
	CU_ASSERT_EQUAL(VALUE(f.r, "select sum(a) + sum(length(b)) from t"), sum);
	CU_ASSERT(fixture_is_intact(f.r));
	CU_ASSERT(fixture_verifies(f.s));
	/* Without the log that the intent needs, the base file must not be read. */
	fixture_close(&f);
	snprintf(path, sizeof(path), "%s/wal", f.dir);
	unit_rmtree(path);
	CU_ASSERT_EQUAL(fixture_open_only(&f, &em), DB_CORRUPT);
}

static void test_a_torn_tail_is_cut_and_damage_before_it_is_refused(void)
{
	struct fixture f;
	struct errmsg em = {0};
	char command[2 * UNIT_PATH_MAX + 64], path[UNIT_PATH_MAX + 64], copy[UNIT_PATH_MAX];
	uint64_t tip;
	struct wal_record r;
	size_t len;
	uint8_t bytes[64];
	long at;
	FILE *file;

	fixture_new(&f);
	fixture_close(&f);
	f.options.segment_size_bytes = (size_t)1 << 20;
	fixture_open(&f);
	SQL(f.w, "create table t(a integer primary key, b); insert into t values(1, randomblob(5000))");
	fixture_commit(&f);
	SQL(f.w, "insert into t values(2, randomblob(5000))");
	UNIT_OK(store_sync(f.s, NULL, &em), &em);
	SQL(f.w, "insert into t values(3, randomblob(5000))");
	tip = store_tip_lsn(f.s);
	UNIT_OK(wal_read(store_wal(f.s), tip - 1, &r, &em), &em);
	memcpy(bytes, wal_record_bytes(&r, &len), sizeof(bytes));
	fixture_close(&f);
	snprintf(path, sizeof(path), "%s/wal/%020d.wal", f.dir, 1);
	unit_tmpdir(copy);
	snprintf(command, sizeof(command), "cp -r %s/. %s", f.dir, copy);
	CU_ASSERT_EQUAL(system(command), 0);
	/* The last record torn: its row is gone, the rest stands. */
	file = fopen(path, "r+b");
	for (at = 0; at < 1 << 20; at++) {
		uint8_t probe[sizeof(bytes)];

		if (fseek(file, at, SEEK_SET) == 0 && fread(probe, 1, sizeof(probe), file) == sizeof(probe) &&
		    memcmp(probe, bytes, sizeof(bytes)) == 0)
			break;
	}
	CU_ASSERT(at < 1 << 20);
	fseek(file, at + (long)len + 2000, SEEK_SET);
	fwrite("torn", 1, 4, file);
	fclose(file);
	fixture_open(&f);
	CU_ASSERT_EQUAL(store_tip_lsn(f.s), tip - 1);
	CU_ASSERT_EQUAL(VALUE(f.w, "select max(a) from t"), 2);
	fixture_check_all(&f, "select sum(a) from t");
	fixture_close(&f);
	/* The same in a record that had been synced: refused, nothing changed. */
	snprintf(f.dir, sizeof(f.dir), "%s", copy);
	snprintf(path, sizeof(path), "%s/wal/%020d.wal", f.dir, 1);
	file = fopen(path, "r+b");
	fseek(file, at + 300, SEEK_SET);
	fwrite("flip", 1, 4, file);
	fclose(file);
	CU_ASSERT_EQUAL(fixture_open_only(&f, &em), DB_CORRUPT);
	CU_ASSERT_PTR_NULL(f.s);
}

static void test_strange_directories_are_refused(void)
{
	struct fixture f, g;
	struct errmsg em = {0};
	char path[UNIT_PATH_MAX + 32];
	sqlite3 *plain;

	/* A database that is not ours. */
	memset(&f, 0, sizeof(f));
	unit_tmpdir(f.dir);
	snprintf(path, sizeof(path), "%s/main.db", f.dir);
	sqlite3_open(path, &plain);
	SQL(plain, "create table precious(a)");
	sqlite3_close(plain);
	CU_ASSERT_EQUAL(fixture_open_only(&f, &em), DB_INVALID);
	sqlite3_open(path, &plain);
	CU_ASSERT_EQUAL(VALUE(plain, "select count(*) from precious"), 0);
	sqlite3_close(plain);
	/* Ours, but changed, set to WAL mode, cut short, or gone. */
	fixture_new(&g);
	SQL(g.w, "create table t(a); insert into t values(zeroblob(50000))");
	fixture_commit(&g);
	fixture_checkpoint(&g);
	fixture_close(&g);
	snprintf(path, sizeof(path), "%s/main.db", g.dir);
	sqlite3_open(path, &plain);
	SQL(plain, "pragma user_version=7");
	CU_ASSERT_EQUAL(fixture_open_only(&g, &em), DB_CORRUPT);
	SQL(plain, "pragma journal_mode=wal");
	CU_ASSERT_EQUAL(fixture_open_only(&g, &em), DB_INVALID);
	sqlite3_close(plain);
	CU_ASSERT_EQUAL(truncate(path, 8192), 0);
	CU_ASSERT_EQUAL(fixture_open_only(&g, &em), DB_CORRUPT);
	unlink(path);
	CU_ASSERT_EQUAL(fixture_open_only(&g, &em), DB_CORRUPT);
	snprintf(path, sizeof(path), "%s/store.meta", g.dir);
	unlink(path);
	CU_ASSERT_EQUAL(fixture_open_only(&g, &em), DB_INVALID);
}

static void test_damaged_meta_is_refused(void)
{
	struct fixture f;
	struct errmsg em = {0};
	char path[UNIT_PATH_MAX + 32];
	int fd, i;

	fixture_new(&f);
	SQL(f.w, "create table t(a); insert into t values(1)");
	fixture_commit(&f);
	fixture_checkpoint(&f);
	fixture_close(&f);
	snprintf(path, sizeof(path), "%s/store.meta", f.dir);
	fd = open(path, O_WRONLY);
	for (i = 0; i < 2; i++)
		CU_ASSERT_EQUAL(pwrite(fd, "damage", 6, i * 4096 + 40), 6);
	close(fd);
	CU_ASSERT_EQUAL(fixture_open_only(&f, &em), DB_CORRUPT);
	CU_ASSERT_PTR_NULL(f.s);
}

static void test_a_directory_may_be_moved(void)
{
	struct fixture f;
	char moved[UNIT_PATH_MAX + 8];

	fixture_new(&f);
	SQL(f.w, "create table t(a); insert into t values(1)");
	fixture_commit(&f);
	fixture_checkpoint(&f);
	SQL(f.w, "insert into t values(2)");
	fixture_close(&f);
	snprintf(moved, sizeof(moved), "%s.moved", f.dir);
	CU_ASSERT_EQUAL(rename(f.dir, moved), 0);
	snprintf(f.dir, sizeof(f.dir), "%.*s", (int)sizeof(f.dir) - 1, moved);
	fixture_open(&f);
	fixture_check_all(&f, "select sum(a) from t");
	fixture_close(&f);
	unit_rmtree(moved);
}

static void test_a_restart_finds_base_and_log(void)
{
	struct fixture f;

	fixture_new(&f);
	fixture_close(&f);
	f.options.segment_size_bytes = 0;
	fixture_open(&f);
	SQL(f.w, "create table t(a integer primary key, b)");
	SQL(f.w, "insert into t(b) with recursive n(i) as (select 1 union all select i+1 from n where i<16)"
		 "select zeroblob(4000000) from n");
	fixture_commit(&f);
	fixture_checkpoint(&f);
	SQL(f.w, "update t set b = 1 where a = 3");
	fixture_commit(&f);
	fixture_close(&f);
	fixture_open(&f);
	CU_ASSERT_EQUAL(VALUE(f.r, "select count(*) from t"), 16);
	CU_ASSERT(fixture_verifies(f.s));
	fixture_close(&f);
}

static const struct unit_test tests[] = {
    {"a killed process leaves exactly a prefix", test_a_killed_process_leaves_exactly_a_prefix},
    {"an interrupted checkpoint shows no mixture", test_an_interrupted_checkpoint_shows_no_mixture},
    {"a torn tail is cut and damage before it is refused", test_a_torn_tail_is_cut_and_damage_before_it_is_refused},
    {"strange directories are refused", test_strange_directories_are_refused},
    {"damaged meta is refused", test_damaged_meta_is_refused},
    {"a directory may be moved", test_a_directory_may_be_moved},
    {"a restart finds base and log", test_a_restart_finds_base_and_log},
    {NULL, NULL},
};

int main(void)
{
	struct errmsg em = {0};

	if (store_init_sqlite(&em) != DB_OK) {
		fprintf(stderr, "%s\n", em.text);
		return 1;
	}
	return unit_run("store_crash", tests);
}

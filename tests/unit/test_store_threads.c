/*
 * test_store_threads.c - the store's threads at once: writer, syncer, checkpointer, readers; made for ThreadSanitizer.
 *
 * Each transaction of the writer moves an amount between two rows; a reader must always see the same sum, the same number
 * of rows for the length of its transaction, and LSNs that never go back.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "tests/unit/store_fixture.h"

#define READERS      4
#define TRANSACTIONS 1500
#define ACCOUNTS     500

struct run {
	struct fixture f;
	_Atomic bool stop;
	_Atomic int failures;
	_Atomic uint64_t reads;
	_Atomic uint64_t checkpoints;
};

struct reader {
	struct run *run;
	pthread_t thread;
	sqlite3 *db;
};

static int64_t step_value(struct run *run, sqlite3_stmt *stmt)
{
	int64_t value = -1;

	if (sqlite3_step(stmt) == SQLITE_ROW)
		value = sqlite3_column_int64(stmt, 0);
	else
		atomic_fetch_add(&run->failures, 1);
	sqlite3_reset(stmt);
	return value;
}

static void *read_all_the_time(void *arg)
{
	struct reader *reader = arg;
	struct run *run = reader->run;
	sqlite3_stmt *sum, *count;
	uint64_t lsn = 0, now;
	int64_t rows;

	if (sqlite3_prepare_v2(reader->db, "select sum(amount) from t", -1, &sum, NULL) != SQLITE_OK ||
	    sqlite3_prepare_v2(reader->db, "select count(*) from log", -1, &count, NULL) != SQLITE_OK) {
		atomic_fetch_add(&run->failures, 1);
		return NULL;
	}
	while (!atomic_load(&run->stop)) {
		sqlite3_exec(reader->db, "begin", NULL, NULL, NULL);
		rows = step_value(run, count);
		now = store_snapshot_lsn(reader->db);
		if (step_value(run, sum) != ACCOUNTS * 100 || step_value(run, count) != rows || now < lsn)
			atomic_fetch_add(&run->failures, 1);
		if (store_snapshot_lsn(reader->db) != now)
			atomic_fetch_add(&run->failures, 1);
		sqlite3_exec(reader->db, "commit", NULL, NULL, NULL);
		lsn = now;
		atomic_fetch_add(&run->reads, 1);
	}
	sqlite3_finalize(sum);
	sqlite3_finalize(count);
	return NULL;
}

static void *sync_all_the_time(void *arg)
{
	struct run *run = arg;
	uint64_t durable;

	while (!atomic_load(&run->stop)) {
		if (store_sync(run->f.s, &durable, NULL) != DB_OK || wal_prepare(store_wal(run->f.s), NULL) != DB_OK)
			atomic_fetch_add(&run->failures, 1);
		else
			store_set_committed(run->f.s, durable);
	}
	return NULL;
}

static void *checkpoint_all_the_time(void *arg)
{
	struct run *run = arg;
	struct store_status status;
	struct errmsg em = {0};

	while (!atomic_load(&run->stop)) {
		if (store_checkpoint(run->f.s, UINT64_MAX, &em) != DB_OK)
			atomic_fetch_add(&run->failures, 1);
		store_get_status(run->f.s, &status);
		if (status.checkpoint_lsn > status.visible_lsn)
			atomic_fetch_add(&run->failures, 1);
		atomic_fetch_add(&run->checkpoints, 1);
	}
	return NULL;
}

static void write_transactions(struct run *run)
{
	sqlite3 *w = run->f.w;
	unsigned seed = 7;
	int i, from, to, amount;

	for (i = 0; i < TRANSACTIONS && atomic_load(&run->failures) == 0; i++) {
		from = (int)(rand_r(&seed) % ACCOUNTS) + 1;
		to = (int)(rand_r(&seed) % ACCOUNTS) + 1;
		amount = (int)(rand_r(&seed) % 50);
		SQL(w,
		    "begin; update t set amount = amount - %d, pad = randomblob(%d) where id = %d;"
		    "update t set amount = amount + %d where id = %d; insert into log(note) values(randomblob(%d)); "
		    "commit",
		    amount, amount * 10, from, amount, to, amount * 20);
		if (i % 100 == 99)
			SQL(w, "delete from log where id < (select max(id) - 20 from log); vacuum");
		if (i % 50 == 49)
			SQL(w, "begin; update t set amount = 0, pad = randomblob(5000); rollback");
	}
}

static void test_everything_at_once(void)
{
	struct run run;
	struct reader readers[READERS];
	pthread_t syncer, checkpointer;
	struct errmsg em = {0};
	int i;

	memset(&run, 0, sizeof(run));
	fixture_new(&run.f);
	SQL(run.f.w,
	    "create table t(id integer primary key, amount, pad);"
	    "create table log(id integer primary key, note);"
	    "with recursive n(i) as (select 1 union all select i+1 from n where i<%d)"
	    "insert into t select i, 100, randomblob(200) from n",
	    ACCOUNTS);
	fixture_commit(&run.f);
	for (i = 0; i < READERS; i++) {
		readers[i].run = &run;
		UNIT_OK(store_open_reader(run.f.s, &readers[i].db, &em), &em);
		pthread_create(&readers[i].thread, NULL, read_all_the_time, &readers[i]);
	}
	pthread_create(&syncer, NULL, sync_all_the_time, &run);
	pthread_create(&checkpointer, NULL, checkpoint_all_the_time, &run);
	write_transactions(&run);
	atomic_store(&run.stop, true);
	pthread_join(syncer, NULL);
	fixture_commit(&run.f);
	pthread_join(checkpointer, NULL);
	for (i = 0; i < READERS; i++) {
		pthread_join(readers[i].thread, NULL);
		CU_ASSERT_EQUAL(sqlite3_close(readers[i].db), SQLITE_OK);
	}
	CU_ASSERT_EQUAL(atomic_load(&run.failures), 0);
	CU_ASSERT(atomic_load(&run.reads) > 0);
	CU_ASSERT(atomic_load(&run.checkpoints) > 0);
	fixture_check_all(&run.f, "select sum(amount) from t");
	fixture_close(&run.f);
}

static const struct unit_test tests[] = {
    {"writer, syncer, checkpointer and readers at once", test_everything_at_once},
    {NULL, NULL},
};

int main(void)
{
	struct errmsg em = {0};

	if (store_init_sqlite(&em) != DB_OK) {
		fprintf(stderr, "%s\n", em.text);
		return 1;
	}
	return unit_run("store_threads", tests);
}

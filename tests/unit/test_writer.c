/*
 * test_writer.c - the writer's threads on a real store; the test plays replication and says what is committed.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "master/writer.h"
#include "tests/unit/unit.h"

#define JOBS_MAX 64

struct fixture {
	char dir[UNIT_PATH_MAX];
	struct store *store;
	struct writer *writer;
	uint64_t term_start_lsn;
	pthread_mutex_t mutex; /* guards everything below */
	pthread_cond_t changed;
	bool commit_at_once; /* our own sync is quorum enough */
	unsigned done_count;
};

/* A job and what it was asked. */
struct test_job {
	struct write_job job;
	struct fixture *f;
	struct query_request *request;
	bool done;
};

static void on_sealed(void *arg)
{
	(void)arg;
}

static void commit(struct fixture *f, uint64_t lsn)
{
	store_set_committed(f->store, lsn);
	writer_on_committed(f->writer, lsn);
}

static void on_durable(void *arg, uint64_t lsn)
{
	struct fixture *f = arg;
	bool at_once;

	pthread_mutex_lock(&f->mutex);
	at_once = f->commit_at_once;
	pthread_mutex_unlock(&f->mutex);
	if (at_once)
		commit(f, lsn);
}

static void on_failed(void *arg, const char *reason)
{
	(void)arg;
	CU_FAIL("the log failed");
	fprintf(stderr, "%s\n", reason);
}

static struct fixture *fixture_create(uint64_t commit_timeout_ms, uint64_t transaction_bytes_max, bool commit_at_once)
{
	static bool sqlite_ready;
	struct fixture *f = calloc(1, sizeof(*f));
	struct store_options store = {.segment_size_bytes = 1 << 20, .transaction_bytes_max = transaction_bytes_max};
	struct writer_options options = {.node_id = "node1",
					 .commit_timeout_ms = commit_timeout_ms,
					 .queue_max = JOBS_MAX,
					 .pipeline_depth = 2,
					 .on_sealed = on_sealed,
					 .on_durable = on_durable,
					 .on_failed = on_failed};
	struct errmsg em = {0};

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	if (!sqlite_ready)
		UNIT_OK(store_init_sqlite(&em), &em);
	sqlite_ready = true;
	pthread_mutex_init(&f->mutex, NULL);
	pthread_cond_init(&f->changed, NULL);
	f->commit_at_once = commit_at_once;
	unit_tmpdir(f->dir);
	store.dir = f->dir;
	UNIT_OK(store_open(&f->store, &store, &em), &em);
	store_set_term(f->store, 1);
	UNIT_OK(store_append_term_start(f->store, &f->term_start_lsn, &em), &em);
	options.store = f->store;
	options.first_lsn = f->term_start_lsn;
	options.arg = f;
	UNIT_OK(writer_create(&f->writer, &options, &em), &em);
	UNIT_OK(writer_start(f->writer, &em), &em);
	return f;
}

static void fixture_free(struct fixture *f)
{
	writer_stop(f->writer);
	writer_free(f->writer);
	store_close(f->store);
	pthread_cond_destroy(&f->changed);
	pthread_mutex_destroy(&f->mutex);
	free(f);
}

static void on_done(struct write_job *job)
{
	struct test_job *t = (struct test_job *)((char *)job - offsetof(struct test_job, job));
	struct fixture *f = t->f;

	pthread_mutex_lock(&f->mutex);
	t->done = true;
	f->done_count++;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->mutex);
}

static void submit_with(struct fixture *f, struct test_job *t, const char *sql, const char *id, uint64_t timeout_ms)
{
	const struct query_request_limits limits = {0};
	struct query_error error = {0};
	struct buf body = {0};

	memset(t, 0, sizeof(*t));
	t->f = f;
	buf_puts(&body, "{\"sql\":");
	json_put_string(&body, sql, strlen(sql));
	if (id != NULL)
		buf_printf(&body, ",\"request_id\":\"%s\"", id);
	buf_puts(&body, "}");
	CU_ASSERT_EQUAL_FATAL(query_request_parse(&t->request, body.data, body.len, &limits, &error), QUERY_OK);
	buf_fini(&body);
	t->request->role = AUTH_ADMIN;
	t->job.request = t->request;
	t->job.deadline_ms = clock_mono_ms() + timeout_ms;
	t->job.done = on_done;
	t->job.alone = strcmp(sql, "vacuum") == 0;
	CU_ASSERT_EQUAL(writer_submit(f->writer, &t->job), DB_OK);
}

static void submit_within(struct fixture *f, struct test_job *t, const char *sql, uint64_t timeout_ms)
{
	submit_with(f, t, sql, NULL, timeout_ms);
}

static void submit(struct fixture *f, struct test_job *t, const char *sql)
{
	submit_within(f, t, sql, 20000);
}

static void submit_id(struct fixture *f, struct test_job *t, const char *sql, const char *id)
{
	submit_with(f, t, sql, id, 20000);
}

static void await(struct test_job *t)
{
	pthread_mutex_lock(&t->f->mutex);
	while (!t->done)
		pthread_cond_wait(&t->f->changed, &t->f->mutex);
	pthread_mutex_unlock(&t->f->mutex);
}

static bool is_done(struct test_job *t)
{
	bool done;

	pthread_mutex_lock(&t->f->mutex);
	done = t->done;
	pthread_mutex_unlock(&t->f->mutex);
	return done;
}

static void drop(struct test_job *t)
{
	query_request_free(t->request);
	buf_fini(&t->job.answer);
}

/* Submits, waits and checks that it went well. */
static void run(struct fixture *f, const char *sql)
{
	struct test_job t;

	submit(f, &t, sql);
	await(&t);
	CU_ASSERT_EQUAL(t.job.outcome, WRITE_DONE);
	if (t.job.outcome != WRITE_DONE)
		fprintf(stderr, "%s: %s\n", sql, t.job.error.message);
	drop(&t);
}

static int64_t value(struct fixture *f, const char *sql)
{
	struct errmsg em = {0};
	sqlite3 *db;
	sqlite3_stmt *stmt;
	int64_t v = -1;

	UNIT_OK(store_open_reader(f->store, &db, &em), &em);
	CU_ASSERT_EQUAL(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
	if (sqlite3_step(stmt) == SQLITE_ROW)
		v = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	sqlite3_close(db);
	return v;
}

/* ---- scenarios */

static void test_jobs_that_come_together_share_records(void)
{
	struct fixture *f = fixture_create(5000, 0, true);
	struct test_job jobs[JOBS_MAX];
	struct writer_counters counters;
	unsigned i;

	run(f, "create table t(a integer primary key)");
	for (i = 0; i < JOBS_MAX; i++)
		submit(f, &jobs[i], "insert into t values(null)");
	for (i = 0; i < JOBS_MAX; i++) {
		await(&jobs[i]);
		CU_ASSERT_EQUAL(jobs[i].job.outcome, WRITE_DONE);
		CU_ASSERT(jobs[i].job.lsn > f->term_start_lsn);
		drop(&jobs[i]);
	}
	writer_get_counters(f->writer, &counters);
	CU_ASSERT_EQUAL(counters.jobs_total, JOBS_MAX + 1);
	CU_ASSERT(counters.batches_total < JOBS_MAX);
	CU_ASSERT_EQUAL(value(f, "select count(*) from t"), JOBS_MAX);
	fixture_free(f);
}

static void test_a_failing_job_fails_alone(void)
{
	struct fixture *f = fixture_create(5000, 0, true);
	struct test_job good, bad, good2;

	run(f, "create table t(a integer primary key)");
	run(f, "insert into t values(1)");
	submit(f, &good, "insert into t values(2)");
	submit(f, &bad, "insert into t values(3); insert into t values(1)");
	submit(f, &good2, "insert into t values(4)");
	await(&good);
	await(&bad);
	await(&good2);
	CU_ASSERT_EQUAL(good.job.outcome, WRITE_DONE);
	CU_ASSERT_EQUAL(bad.job.outcome, WRITE_ERROR);
	CU_ASSERT_EQUAL(bad.job.error.code, QUERY_CONSTRAINT);
	CU_ASSERT_EQUAL(good2.job.outcome, WRITE_DONE);
	CU_ASSERT_EQUAL(value(f, "select sum(a) from t"), 7);
	drop(&good);
	drop(&bad);
	drop(&good2);
	fixture_free(f);
}

static void test_a_job_that_rolls_everything_back_takes_nobody_with_it(void)
{
	struct fixture *f = fixture_create(5000, 0, true);
	struct test_job jobs[9];
	unsigned i;

	run(f, "create table t(a integer primary key)");
	run(f, "insert into t values(100)");
	for (i = 0; i < 9; i++)
		submit(f, &jobs[i], i == 4 ? "insert or rollback into t values(100)" : "insert into t values(null)");
	for (i = 0; i < 9; i++) {
		await(&jobs[i]);
		CU_ASSERT_EQUAL(jobs[i].job.outcome, i == 4 ? WRITE_ERROR : WRITE_DONE);
		drop(&jobs[i]);
	}
	CU_ASSERT_EQUAL(value(f, "select count(*) from t"), 9);
	fixture_free(f);
}

static void test_a_transaction_too_large_fails_alone(void)
{
	struct fixture *f = fixture_create(5000, 1 << 20, true);
	struct test_job small, large, small2;

	run(f, "create table t(a integer primary key, b)");
	submit(f, &small, "insert into t(b) values(1)");
	submit(f, &large, "insert into t(b) values(zeroblob(3000000))");
	submit(f, &small2, "insert into t(b) values(2)");
	await(&small);
	await(&large);
	await(&small2);
	CU_ASSERT_EQUAL(small.job.outcome, WRITE_DONE);
	CU_ASSERT_EQUAL(small2.job.outcome, WRITE_DONE);
	CU_ASSERT_EQUAL(large.job.outcome, WRITE_ERROR);
	CU_ASSERT_EQUAL(value(f, "select count(*) from t"), 2);
	run(f, "insert into t(b) values(3)");
	drop(&small);
	drop(&large);
	drop(&small2);
	fixture_free(f);
}

static void test_nothing_is_answered_or_visible_before_it_is_committed(void)
{
	struct fixture *f = fixture_create(60000, 0, true);
	struct test_job job;
	uint64_t visible_lsn;

	run(f, "create table t(a integer primary key)");
	pthread_mutex_lock(&f->mutex);
	f->commit_at_once = false;
	pthread_mutex_unlock(&f->mutex);
	visible_lsn = store_visible_lsn(f->store);
	submit(f, &job, "insert into t values(1)");
	while (store_durable_lsn(f->store) == visible_lsn)
		sched_yield(); /* sealed and synced here */
	CU_ASSERT_FALSE(is_done(&job));
	CU_ASSERT_EQUAL(value(f, "select count(*) from t"), 0);
	commit(f, store_durable_lsn(f->store));
	await(&job);
	CU_ASSERT_EQUAL(job.job.outcome, WRITE_DONE);
	CU_ASSERT_EQUAL(value(f, "select count(*) from t"), 1);
	drop(&job);
	fixture_free(f);
}

static void test_without_a_quorum_jobs_are_told_whether_they_may_still_commit(void)
{
	struct fixture *f = fixture_create(100, 0, false);
	struct test_job sealed, queued[3];
	unsigned i;

	submit(f, &sealed, "create table t(a)");
	await(&sealed);
	CU_ASSERT_EQUAL(sealed.job.error.code, QUERY_NO_QUORUM);
	CU_ASSERT_PTR_NOT_NULL(strstr(sealed.job.error.message, "may still be committed"));
	for (i = 0; i < 3; i++)
		submit(f, &queued[i], "create table if not exists u(a)");
	for (i = 0; i < 3; i++) {
		await(&queued[i]);
		CU_ASSERT_EQUAL(queued[i].job.error.code, QUERY_NO_QUORUM);
		drop(&queued[i]);
	}
	commit(f, store_durable_lsn(f->store)); /* the quorum is back */
	pthread_mutex_lock(&f->mutex);
	f->commit_at_once = true;
	pthread_mutex_unlock(&f->mutex);
	run(f, "insert into t values(1)");
	drop(&sealed);
	fixture_free(f);
}

static void test_draining_holds_new_jobs_and_finishes_old_ones(void)
{
	struct fixture *f = fixture_create(5000, 0, true);
	struct test_job held;

	run(f, "create table t(a)");
	writer_set_draining(f->writer, true);
	CU_ASSERT(writer_is_drained(f->writer));
	submit(f, &held, "insert into t values(1)");
	CU_ASSERT_FALSE(is_done(&held));
	CU_ASSERT(writer_is_drained(f->writer));
	writer_set_draining(f->writer, false);
	await(&held);
	CU_ASSERT_EQUAL(held.job.outcome, WRITE_DONE);
	drop(&held);
	fixture_free(f);
}

/* A handover that begins while a job runs must wait for its record, else the job's fate would be unknown. */
static void test_a_job_that_runs_is_not_drained(void)
{
	static const char *const jobs[] = {"insert into t select randomblob(100) from c", "vacuum"};
	struct fixture *f = fixture_create(5000, 0, true);
	struct writer_counters counters;
	struct test_job job;
	uint64_t lsn;
	size_t i;

	run(f, "create table t(a)");
	run(f, "create view c as with recursive c(n) as (select 1 union all select n + 1 from c where n < 20000) "
	       "select n from c");
	for (i = 0; i < 2; i++) {
		lsn = store_tip_lsn(f->store);
		submit(f, &job, jobs[i]);
		do
			writer_get_counters(f->writer, &counters);
		while (counters.queue_length > 0);
		writer_set_draining(f->writer, true);
		while (!writer_is_drained(f->writer))
			sched_yield();
		CU_ASSERT(store_tip_lsn(f->store) > lsn);
		writer_set_draining(f->writer, false);
		await(&job);
		CU_ASSERT_EQUAL(job.job.outcome, WRITE_DONE);
		drop(&job);
	}
	fixture_free(f);
}

static void test_stopping_gives_back_what_was_not_executed(void)
{
	struct fixture *f = fixture_create(60000, 0, true);
	struct test_job sealed, held;
	uint64_t lsn;

	run(f, "create table t(a)");
	pthread_mutex_lock(&f->mutex);
	f->commit_at_once = false;
	pthread_mutex_unlock(&f->mutex);
	lsn = store_durable_lsn(f->store);
	submit(f, &sealed, "insert into t values(1)");
	while (store_durable_lsn(f->store) == lsn)
		sched_yield();
	writer_set_draining(f->writer, true);
	submit(f, &held, "insert into t values(2)");
	writer_stop(f->writer);
	await(&sealed);
	await(&held);
	CU_ASSERT_EQUAL(sealed.job.outcome, WRITE_ERROR);
	CU_ASSERT_EQUAL(sealed.job.error.code, QUERY_NO_QUORUM);
	CU_ASSERT_EQUAL(held.job.outcome, WRITE_MOVED);
	drop(&sealed);
	drop(&held);
	fixture_free(f);
}

static void test_a_full_queue_is_refused(void)
{
	struct fixture *f = fixture_create(60000, 0, true);
	struct test_job jobs[JOBS_MAX];
	struct write_job one_more = {0};
	unsigned i;

	writer_set_draining(f->writer, true);
	for (i = 0; i < JOBS_MAX; i++)
		submit(f, &jobs[i], "create table if not exists t(a)");
	CU_ASSERT_EQUAL(writer_submit(f->writer, &one_more), DB_BUSY);
	writer_set_draining(f->writer, false);
	for (i = 0; i < JOBS_MAX; i++) {
		await(&jobs[i]);
		CU_ASSERT_EQUAL(jobs[i].job.outcome, WRITE_DONE);
		drop(&jobs[i]);
	}
	fixture_free(f);
}

static void test_a_job_that_waits_too_long_is_not_executed(void)
{
	struct fixture *f = fixture_create(60000, 0, true);
	struct test_job late;

	run(f, "create table t(a)");
	writer_set_draining(f->writer, true);
	submit_within(f, &late, "insert into t values(1)", 0);
	await(&late);
	CU_ASSERT_EQUAL(late.job.error.code, QUERY_TIMEOUT);
	writer_set_draining(f->writer, false);
	CU_ASSERT_EQUAL(value(f, "select count(*) from t"), 0);
	drop(&late);
	fixture_free(f);
}

/* ---- request_ids */

static bool says_repeated(const struct test_job *t)
{
	static const char text[] = ",\"repeated\":true";

	return t->job.answer.len >= sizeof(text) - 1 &&
	       memcmp(t->job.answer.data + t->job.answer.len - (sizeof(text) - 1), text, sizeof(text) - 1) == 0;
}

/* The LSN in the receipt of id; -1: none. */
static int64_t receipt_lsn(struct fixture *f, const char *id)
{
	char sql[128];

	snprintf(sql, sizeof(sql), "select lsn from _grizzly_receipts where request_id = '%s'", id);
	return value(f, sql);
}

static void set_commit_at_once(struct fixture *f, bool at_once)
{
	pthread_mutex_lock(&f->mutex);
	f->commit_at_once = at_once;
	pthread_mutex_unlock(&f->mutex);
}

static void await_all(struct test_job *jobs, unsigned count)
{
	unsigned i;

	for (i = 0; i < count; i++)
		await(&jobs[i]);
}

static void drop_all(struct test_job *jobs, unsigned count)
{
	unsigned i;

	for (i = 0; i < count; i++)
		drop(&jobs[i]);
}

static void test_repeats_in_one_batch_are_done_once_and_their_neighbours_too(void)
{
	struct fixture *f = fixture_create(5000, 0, true);
	struct test_job jobs[6];
	unsigned i;

	run(f, "create table t(a integer primary key)");
	writer_set_draining(f->writer, true); /* until all of them wait */
	submit_id(f, &jobs[0], "insert into t values(1)", "a");
	submit_id(f, &jobs[1], "insert into t values(1)", "b"); /* fails */
	submit_id(f, &jobs[2], "insert into t values(1)", "a");
	submit_id(f, &jobs[3], "insert into t values(2)", "a"); /* another request */
	submit_id(f, &jobs[4], "insert into t values(3)", "b"); /* the id is free: its first request failed */
	submit_id(f, &jobs[5], "insert into t values(1)", "a");
	CU_ASSERT_EQUAL(writer_find(f->writer, "b"), WRITER_PENDING);
	CU_ASSERT_EQUAL(writer_find(f->writer, "c"), WRITER_UNKNOWN);
	writer_set_draining(f->writer, false);
	await_all(jobs, 6);
	for (i = 0; i < 6; i++)
		CU_ASSERT_EQUAL(jobs[i].job.outcome, i == 1 || i == 3 ? WRITE_ERROR : WRITE_DONE);
	CU_ASSERT_EQUAL(jobs[1].job.error.code, QUERY_CONSTRAINT);
	CU_ASSERT_EQUAL(jobs[3].job.error.code, QUERY_BAD_REQUEST);
	CU_ASSERT_FALSE(says_repeated(&jobs[0]));
	CU_ASSERT(says_repeated(&jobs[2]));
	CU_ASSERT(says_repeated(&jobs[5]));
	CU_ASSERT_EQUAL(jobs[5].job.lsn, jobs[0].job.lsn);
	CU_ASSERT_EQUAL(receipt_lsn(f, "a"), (int64_t)jobs[0].job.lsn);
	CU_ASSERT_EQUAL(receipt_lsn(f, "b"), (int64_t)jobs[4].job.lsn);
	CU_ASSERT_EQUAL(value(f, "select sum(a) from t"), 4);
	CU_ASSERT_EQUAL(writer_find(f->writer, "b"), WRITER_UNKNOWN); /* committed: no matter of the writer's */
	drop_all(jobs, 6);
	fixture_free(f);
}

/* Runs a batch of which one job takes the whole transaction down; the first receipts ever go down with it, table and all. */
static void lose_a_batch(struct fixture *f, const char *guilty)
{
	struct test_job jobs[5];
	unsigned i;

	writer_set_draining(f->writer, true);
	submit_id(f, &jobs[0], "insert into t(b) values(1)", "a");
	submit_id(f, &jobs[1], "insert into t(b) values(1)", "a");
	submit_id(f, &jobs[2], guilty, "guilty");
	submit_id(f, &jobs[3], "insert into t(b) values(2)", "b");
	submit_id(f, &jobs[4], "insert into t(b) values(1)", "a");
	writer_set_draining(f->writer, false);
	await_all(jobs, 5);
	for (i = 0; i < 5; i++)
		CU_ASSERT_EQUAL(jobs[i].job.outcome, i == 2 ? WRITE_ERROR : WRITE_DONE);
	CU_ASSERT_FALSE(says_repeated(&jobs[0]));
	CU_ASSERT(says_repeated(&jobs[1]));
	CU_ASSERT(says_repeated(&jobs[4]));
	CU_ASSERT_EQUAL(jobs[4].job.lsn, jobs[0].job.lsn);
	CU_ASSERT_EQUAL(receipt_lsn(f, "a"), (int64_t)jobs[0].job.lsn);
	CU_ASSERT_EQUAL(receipt_lsn(f, "b"), (int64_t)jobs[3].job.lsn);
	CU_ASSERT_EQUAL(receipt_lsn(f, "guilty"), -1);
	CU_ASSERT_EQUAL(value(f, "select sum(b) from t where b < 100"), 3);
	CU_ASSERT_EQUAL(value(f, "select count(*) from _grizzly_receipts"), 2);
	drop_all(jobs, 5);
}

static void test_a_lost_batch_is_done_again_once_each(void)
{
	struct fixture *f = fixture_create(5000, 0, true);

	run(f, "create table t(a integer primary key, b unique)");
	run(f, "insert into t(b) values(100)");
	lose_a_batch(f, "insert or rollback into t(b) values(100)");
	fixture_free(f);
	f = fixture_create(5000, 1 << 20, true);
	run(f, "create table t(a integer primary key, b)");
	lose_a_batch(f, "insert into t(b) values(zeroblob(3000000))");
	fixture_free(f);
}

static void test_a_repeat_waits_for_the_commit_of_the_first(void)
{
	struct fixture *f = fixture_create(60000, 0, true);
	struct test_job first, again;
	uint64_t lsn;

	run(f, "create table t(a)");
	set_commit_at_once(f, false);
	lsn = store_durable_lsn(f->store);
	submit_id(f, &first, "insert into t values(1)", "a");
	while (store_durable_lsn(f->store) == lsn)
		sched_yield();
	CU_ASSERT_EQUAL(writer_find(f->writer, "a"), WRITER_PENDING);
	submit_id(f, &again, "insert into t values(1)", "a");
	CU_ASSERT_FALSE(is_done(&again));
	CU_ASSERT_EQUAL(value(f, "select count(*) from t"), 0);
	commit(f, store_durable_lsn(f->store));
	await(&first);
	await(&again);
	CU_ASSERT_EQUAL(first.job.outcome, WRITE_DONE);
	CU_ASSERT_EQUAL(again.job.outcome, WRITE_DONE);
	CU_ASSERT(says_repeated(&again));
	CU_ASSERT_EQUAL(again.job.lsn, first.job.lsn);
	CU_ASSERT_EQUAL(value(f, "select count(*) from t"), 1);
	drop(&first);
	drop(&again);
	fixture_free(f);
}

static void test_without_a_quorum_an_id_is_unsure_until_it_is_back(void)
{
	struct fixture *f = fixture_create(100, 0, false);
	struct test_job sealed, again;

	submit_id(f, &sealed, "create table t(a)", "a");
	await(&sealed);
	CU_ASSERT_EQUAL(sealed.job.error.code, QUERY_NO_QUORUM);
	CU_ASSERT_EQUAL(writer_find(f->writer, "a"), WRITER_UNSURE);
	CU_ASSERT_EQUAL(writer_find(f->writer, "b"), WRITER_UNSURE);
	set_commit_at_once(f, true);
	commit(f, store_durable_lsn(f->store));
	CU_ASSERT_EQUAL(writer_find(f->writer, "a"), WRITER_UNKNOWN);
	submit_id(f, &again, "create table t(a)", "a");
	await(&again);
	CU_ASSERT_EQUAL(again.job.outcome, WRITE_DONE);
	CU_ASSERT(says_repeated(&again));
	drop(&sealed);
	drop(&again);
	fixture_free(f);
}

static void test_stopping_gives_back_sealed_jobs_that_may_be_repeated(void)
{
	struct fixture *f = fixture_create(60000, 0, true);
	struct test_job sealed;
	uint64_t lsn;

	run(f, "create table t(a)");
	set_commit_at_once(f, false);
	lsn = store_durable_lsn(f->store);
	submit_id(f, &sealed, "insert into t values(1)", "a");
	while (store_durable_lsn(f->store) == lsn)
		sched_yield();
	writer_stop(f->writer);
	await(&sealed);
	CU_ASSERT_EQUAL(sealed.job.outcome, WRITE_MOVED);
	CU_ASSERT_EQUAL(sealed.job.error.code, QUERY_NO_QUORUM); /* in doubt */
	drop(&sealed);
	fixture_free(f);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"jobs that come together share records", test_jobs_that_come_together_share_records},
	    {"a job that runs is not drained", test_a_job_that_runs_is_not_drained},
	    {"a failing job fails alone", test_a_failing_job_fails_alone},
	    {"a job that rolls everything back takes nobody with it",
	     test_a_job_that_rolls_everything_back_takes_nobody_with_it},
	    {"a transaction too large fails alone", test_a_transaction_too_large_fails_alone},
	    {"nothing is answered or visible before it is committed",
	     test_nothing_is_answered_or_visible_before_it_is_committed},
	    {"without a quorum jobs are told whether they may still commit",
	     test_without_a_quorum_jobs_are_told_whether_they_may_still_commit},
	    {"draining holds new jobs and finishes old ones", test_draining_holds_new_jobs_and_finishes_old_ones},
	    {"stopping gives back what was not executed", test_stopping_gives_back_what_was_not_executed},
	    {"a full queue is refused", test_a_full_queue_is_refused},
	    {"a job that waits too long is not executed", test_a_job_that_waits_too_long_is_not_executed},
	    {"repeats in one batch are done once, and their neighbours too",
	     test_repeats_in_one_batch_are_done_once_and_their_neighbours_too},
	    {"a lost batch is done again, once each", test_a_lost_batch_is_done_again_once_each},
	    {"a repeat waits for the commit of the first", test_a_repeat_waits_for_the_commit_of_the_first},
	    {"without a quorum an id is unsure until it is back",
	     test_without_a_quorum_an_id_is_unsure_until_it_is_back},
	    {"stopping gives back sealed jobs that may be repeated",
	     test_stopping_gives_back_sealed_jobs_that_may_be_repeated},
	    {NULL, NULL},
	};

	return unit_run("writer", tests);
}

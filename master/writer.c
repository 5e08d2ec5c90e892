/*
 * writer.c - see writer.h.
 *
 * A job is on exactly one list at a time: queue -> running (the open transaction) -> a sealed batch -> done. The mutex guards
 * the lists and the counters; SQL, sealing, syncing and done() run without it. Only the writer thread touches the open
 * batch.
 */
#include "master/writer.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/pulse.h"
#include "common/base/timings.h"
#include "common/query/exec.h"
#include "common/remote/remote_fill.h"

#define BATCH_JOBS_MAX 512
/* A batch waits for the jobs it expects as long as they keep coming: until none came for GAP_US, at most PATIENCE_US. */
#define GAP_US      1000
#define PATIENCE_US 3000
#define SWEEP_MS    20 /* how often waiting jobs are checked against their deadlines */

struct job_list {
	struct write_job *head, *tail;
	unsigned count;
};

/* A sealed batch waiting for its commit. */
struct batch {
	struct batch *next;
	uint64_t lsn;
	uint64_t sealed_ms;
	uint64_t sealed_us;
	unsigned job_count; /* when it was sealed */
	bool unsure;        /* a job with a request_id was answered before its commit */
	struct job_list jobs;
};

struct writer {
	struct writer_options options;
	sqlite3 *db; /* belongs to conn; for sqlite3_interrupt() */
	struct query_conn *conn;
	pthread_t writer_thread;
	pthread_t sync_thread;
	bool writer_started, sync_started;
	struct work_pulse pulse; /* of the writer thread */

	pthread_mutex_t mutex; /* guards everything below */
	pthread_cond_t work;   /* the writer thread waits: queue, in_flight, draining, stopping */
	pthread_cond_t sealed; /* the sync thread waits: sealed_lsn, stopping */
	struct job_list queue;
	struct batch *first_batch, *last_batch;
	unsigned in_flight; /* batches sealed, not committed */
	uint64_t sealed_lsn;
	uint64_t committed_lsn;
	bool open; /* a transaction has been begun and not sealed */
	bool draining;
	bool stopping;
	uint64_t batches_total, jobs_total;
	/* How large the next batch is likely to become: the jobs just answered, whose clients will write again, and those
	 * that wait already. Waiting a little for them is worth it, for a batch costs far more than a job in it: a sync and
	 * a dozen wake-ups on three nodes. With one client it is 1 and nothing ever waits. */
	unsigned expected_jobs;
	uint64_t first_queued_us; /* when the queue last became non-empty */
	uint64_t last_queued_us;

	const struct write_job *current; /* on no list: taken from the queue, not in running yet; NULL: none */
	uint64_t open_lsn;               /* what the open transaction's record will have; writer thread only */

	struct job_list running; /* jobs executed in the open transaction; changed by the writer thread only */
};

/* ---- lists */

static void list_append(struct job_list *list, struct write_job *job)
{
	job->next = NULL;
	if (list->tail == NULL)
		list->head = job;
	else
		list->tail->next = job;
	list->tail = job;
	list->count++;
}

static struct write_job *list_take(struct job_list *list)
{
	struct write_job *job = list->head;

	if (job == NULL)
		return NULL;
	list->head = job->next;
	if (list->head == NULL)
		list->tail = NULL;
	list->count--;
	return job;
}

/* Puts all of front before all of list. */
static void list_prepend(struct job_list *list, struct job_list *front)
{
	if (front->head == NULL)
		return;
	front->tail->next = list->head;
	list->head = front->head;
	if (list->tail == NULL)
		list->tail = front->tail;
	list->count += front->count;
	memset(front, 0, sizeof(*front));
}

static void finish(struct write_job *job, enum write_outcome outcome, uint64_t lsn)
{
	job->outcome = outcome;
	job->lsn = outcome == WRITE_DONE && job->repeated_lsn != 0 ? job->repeated_lsn : lsn;
	job->done(job);
}

/* Ends each job of the list: as what it is, or as an error when error is given. */
static void finish_all(struct job_list *list, uint64_t lsn, const struct query_error *error)
{
	struct write_job *job;

	while ((job = list_take(list)) != NULL) {
		if (error != NULL)
			job->error = *error;
		finish(job, job->error.code == QUERY_OK ? WRITE_DONE : WRITE_ERROR, lsn);
	}
}

/* ---- what is logged of a request */

static void note_job(const char *what, const struct write_job *job, uint64_t lsn)
{
	char text[24];

	if (job->trace_id == NULL)
		return;
	snprintf(text, sizeof(text), "%" PRIu64, lsn);
	log_set_request_id(job->trace_id);
	log_event(LOG_LEVEL_DEBUG, what, (const struct log_field[]){{"lsn", text}}, 1);
	log_set_request_id(NULL);
}

/* ---- deadlines */

/* The quorum is gone when the oldest batch has waited for it too long. Mutex held. */
static bool is_stalled(const struct writer *w, uint64_t now_ms)
{
	return w->first_batch != NULL && now_ms - w->first_batch->sealed_ms >= w->options.commit_timeout_ms;
}

static void set_unknown(struct query_error *error)
{
	query_error_set(error, QUERY_NO_QUORUM,
			"not enough replicas confirmed the write in time; it may still be committed");
}

/* Moves the jobs of list that have waited long enough to expired, with their error set. True when one of them has a
 * request_id. Mutex held. */
static bool expire_list(struct job_list *list, uint64_t now_ms, uint64_t patience_ms, uint64_t lsn, bool stalled,
			struct job_list *expired)
{
	struct job_list keep = {0};
	struct write_job *job;
	bool with_id = false;

	while ((job = list_take(list)) != NULL) {
		if (now_ms < job->deadline_ms && !(stalled && now_ms - job->submitted_ms >= patience_ms)) {
			list_append(&keep, job);
			continue;
		}
		job->lsn = lsn;
		if (lsn > 0)
			set_unknown(&job->error);
		else if (stalled)
			query_error_set(&job->error, QUERY_NO_QUORUM,
					"not enough replicas answer; the write was not executed");
		else
			query_error_set(&job->error, QUERY_TIMEOUT,
					"the write waited too long for its turn and was not executed");
		with_id = with_id || job->request->request_id != NULL;
		list_append(expired, job);
	}
	*list = keep;
	return with_id;
}

/* Their record may still be committed: this is the last that is said of which one it is. */
static void note_in_doubt(const struct job_list *expired)
{
	const struct write_job *job;

	if (!log_is_wanted(LOG_LEVEL_DEBUG))
		return;
	for (job = expired->head; job != NULL; job = job->next)
		if (job->lsn > 0)
			note_job("write in doubt", job, job->lsn);
}

/* Answers every waiting job whose time is up. */
static void sweep(struct writer *w)
{
	uint64_t now_ms = clock_mono_ms();
	uint64_t timeout_ms = w->options.commit_timeout_ms;
	struct job_list expired = {0};
	struct batch *batch;
	bool stalled;

	pthread_mutex_lock(&w->mutex);
	stalled = is_stalled(w, now_ms);
	for (batch = w->first_batch; batch != NULL; batch = batch->next)
		if (expire_list(&batch->jobs, now_ms, timeout_ms, batch->lsn, now_ms - batch->sealed_ms >= timeout_ms,
				&expired))
			batch->unsure = true;
	expire_list(&w->queue, now_ms, timeout_ms, 0, stalled, &expired);
	pthread_mutex_unlock(&w->mutex);
	note_in_doubt(&expired);
	finish_all(&expired, 0, NULL);
}

/* ---- committing */

/* One that is committed. */
static void count_batch(struct writer *w, const struct batch *batch)
{
	if (w->options.timings == NULL || batch->job_count == 0)
		return;
	timings_add_many(w->options.timings, TIMING_WRITE_QUORUM, clock_mono_us() - batch->sealed_us, batch->job_count);
	histogram_add(&w->options.timings->batch_requests, &histogram_count, batch->job_count, 1);
}

/* Which requests' work a record holds: from here on, and on every replica, its LSN is what to look for. */
static void note_batch(const char *what, const struct batch *batch)
{
	const struct write_job *job;

	if (!log_is_wanted(LOG_LEVEL_DEBUG))
		return;
	for (job = batch->jobs.head; job != NULL; job = job->next)
		if (job->error.code == QUERY_OK)
			note_job(what, job, job->repeated_lsn != 0 ? job->repeated_lsn : batch->lsn);
}

void writer_on_committed(struct writer *w, uint64_t lsn)
{
	struct batch *done = NULL, **end = &done, *batch;
	unsigned answered = 0;

	pthread_mutex_lock(&w->mutex);
	if (lsn > w->committed_lsn)
		w->committed_lsn = lsn;
	while (w->first_batch != NULL && w->first_batch->lsn <= w->committed_lsn) {
		batch = w->first_batch;
		w->first_batch = batch->next;
		if (w->first_batch == NULL)
			w->last_batch = NULL;
		w->in_flight--;
		batch->next = NULL;
		*end = batch;
		end = &batch->next;
		answered += batch->job_count;
	}
	if (done != NULL)
		w->expected_jobs = answered + w->queue.count + w->running.count;
	pthread_mutex_unlock(&w->mutex);
	if (done != NULL)
		pthread_cond_signal(
		    &w->work); /* after unlocking, here and elsewhere: else it wakes only to wait for us */
	while ((batch = done) != NULL) {
		done = batch->next;
		count_batch(w, batch);
		note_batch("write committed", batch);
		finish_all(&batch->jobs, batch->lsn, NULL);
		free(batch);
	}
}

/* Hands the jobs of the open transaction over to wait for lsn. */
static void enqueue_batch(struct writer *w, struct batch *batch, uint64_t lsn)
{
	bool committed, more = false;

	batch->lsn = lsn;
	batch->sealed_us = clock_mono_us();
	batch->sealed_ms = batch->sealed_us / 1000;
	batch->job_count = w->running.count;
	pthread_mutex_lock(&w->mutex);
	batch->jobs = w->running;
	memset(&w->running, 0, sizeof(w->running));
	w->open = false;
	w->batches_total++;
	w->jobs_total += batch->jobs.count;
	committed = lsn <= w->committed_lsn;
	if (!committed) {
		batch->next = NULL;
		if (w->last_batch == NULL)
			w->first_batch = batch;
		else
			w->last_batch->next = batch;
		w->last_batch = batch;
		w->in_flight++;
	}
	if (lsn > w->sealed_lsn) {
		w->sealed_lsn = lsn;
		more = true;
	}
	pthread_mutex_unlock(&w->mutex);
	if (more)
		pthread_cond_signal(&w->sealed);
	if (committed) {
		count_batch(w, batch);
		note_batch("write committed", batch);
		finish_all(&batch->jobs, lsn, NULL);
		free(batch);
	}
}

/* ---- executing */

static void fail_running(struct writer *w, enum query_code code, const char *message)
{
	struct query_error error = {0};
	struct job_list failed;

	query_error_set(&error, code, "%s", message);
	pthread_mutex_lock(&w->mutex);
	w->open = false;
	failed = w->running;
	memset(&w->running, 0, sizeof(w->running));
	pthread_mutex_unlock(&w->mutex);
	finish_all(&failed, 0, &error);
}

static void add_running(struct writer *w, struct write_job *job)
{
	pthread_mutex_lock(&w->mutex);
	list_append(&w->running, job);
	w->current = NULL;
	pthread_mutex_unlock(&w->mutex);
}

/* The job that was taken from the queue ends without having been executed. */
static void fail_current(struct writer *w, struct write_job *job)
{
	pthread_mutex_lock(&w->mutex);
	w->current = NULL;
	pthread_mutex_unlock(&w->mutex);
	finish(job, WRITE_ERROR, 0);
}

/* The open transaction is gone with the work of several jobs: each runs again, by itself. */
static void retry_running(struct writer *w)
{
	struct write_job *job;

	for (job = w->running.head; job != NULL; job = job->next) {
		job->retried = true;
		job->repeated_lsn = 0;
		buf_clear(&job->answer);
		memset(&job->error, 0, sizeof(job->error));
	}
	pthread_mutex_lock(&w->mutex);
	w->open = false;
	list_prepend(&w->queue, &w->running);
	pthread_mutex_unlock(&w->mutex);
}

static enum query_code code_of(enum db_err err)
{
	return err == DB_TOO_LARGE ? QUERY_TOO_LARGE : QUERY_INTERNAL;
}

static bool begin(struct writer *w)
{
	struct errmsg em = {0};

	if (query_batch_begin(w->conn, &em) != DB_OK) {
		fail_running(w, QUERY_INTERNAL, em.text);
		return false;
	}
	w->open_lsn = store_tip_lsn(w->options.store) + 1; /* until it is sealed nobody else writes the log */
	pthread_mutex_lock(&w->mutex);
	w->open = true;
	pthread_mutex_unlock(&w->mutex);
	return true;
}

static void seal(struct writer *w)
{
	struct errmsg em = {0}, why = {0};
	struct batch *batch = calloc(1, sizeof(*batch));
	enum db_err err;

	if (batch == NULL) {
		query_batch_rollback(w->conn);
		fail_running(w, QUERY_INTERNAL, "out of memory");
		return;
	}
	err = query_batch_commit(w->conn, &em);
	if (err == DB_OK) {
		assert(store_tip_lsn(w->options.store) <= w->open_lsn); /* or receipts would lie */
		enqueue_batch(w, batch, store_tip_lsn(w->options.store));
		w->options.on_sealed(w->options.arg);
		return;
	}
	free(batch);
	if (store_last_error(w->options.store, &why) != DB_OK) {
		err = why.err;
		em = why;
	}
	if (w->running.count > 1) {
		retry_running(w);
		return;
	}
	log_set_request_id(w->running.count == 1 ? w->running.head->trace_id : NULL);
	log_warn("writer: a transaction was refused: %s", em.text);
	log_set_request_id(NULL);
	fail_running(w, code_of(err), em.text);
}

/* VACUUM and the like: SQLite commits by itself. */
static void run_alone(struct writer *w, struct write_job *job)
{
	struct batch *batch = calloc(1, sizeof(*batch));
	struct errmsg why = {0};
	bool batch_lost = false;

	add_running(w, job);
	if (batch == NULL) {
		fail_running(w, QUERY_INTERNAL, "out of memory");
		return;
	}
	if (query_write(w->conn, job->request, job->deadline_ms, &job->answer, &job->error, &batch_lost) != QUERY_OK &&
	    store_last_error(w->options.store, &why) != DB_OK)
		query_error_set(&job->error, code_of(why.err), "%s", why.text);
	enqueue_batch(w, batch, store_tip_lsn(w->options.store));
	w->options.on_sealed(w->options.arg);
}

/* Runs one job in the open transaction. False: the transaction was lost, the job's fate is settled already. */
static bool run_in_batch(struct writer *w, struct write_job *job)
{
	struct query_error error = {0};
	bool batch_lost = false;
	enum query_code code;

	if (job->trusted_sql != NULL)
		code = query_write_trusted(w->conn, job->trusted_sql, &job->error, &batch_lost);
	else
		code = query_write(w->conn, job->request, job->deadline_ms, &job->answer, &job->error, &batch_lost);
	if (code == QUERY_OK) {
		job->error.code = QUERY_OK;
		job->repeated_lsn = job->trusted_sql == NULL ? query_repeated_lsn(w->conn) : 0;
	}
	if (!batch_lost) {
		add_running(w, job);
		return true;
	}
	query_batch_rollback(w->conn);
	error = job->error;
	retry_running(w);
	if (error.code == QUERY_OK)
		query_error_set(&error, QUERY_INTERNAL, "the transaction was lost");
	job->error = error;
	fail_current(w, job);
	return false;
}

/* Runs one job from the queue, sealing before and after where it must be alone. */
static void run_job(struct writer *w, struct write_job *job)
{
	bool apart = job->alone || job->retried, ran;
	uint64_t began_us = clock_mono_us();

	timings_add(w->options.timings, TIMING_WRITE_WAIT, began_us - job->submitted_us);
	if (began_us / 1000 >= job->deadline_ms) {
		query_error_set(&job->error, QUERY_TIMEOUT, "the write waited too long and was not executed");
		fail_current(w, job);
		return;
	}
	if (apart && w->running.head != NULL)
		seal(w);
	if (job->alone) {
		run_alone(w, job);
		return;
	}
	if (w->running.head == NULL && !w->open && !begin(w)) {
		query_error_set(&job->error, QUERY_INTERNAL, "cannot begin a transaction");
		fail_current(w, job);
		return;
	}
	ran = run_in_batch(w, job);
	timings_add(w->options.timings, TIMING_WRITE_EXECUTE, clock_mono_us() - began_us);
	if (ran && apart)
		seal(w);
}

/* ---- the threads */

/* When what waits has waited enough. */
static uint64_t due_us(const struct writer *w)
{
	uint64_t gap_us = w->last_queued_us + GAP_US, patience_us = w->first_queued_us + PATIENCE_US;

	return gap_us < patience_us ? gap_us : patience_us;
}

/* Without a pipeline nothing is executed while a batch is under way. */
static bool must_wait(const struct writer *w)
{
	return w->options.pipeline_depth == 0 && w->in_flight > 0;
}

/* Jobs wait, and there are enough of them or they have waited enough. Mutex held, as below. */
static bool may_run(const struct writer *w, uint64_t now_us)
{
	if (w->queue.head == NULL || w->draining || w->running.count >= BATCH_JOBS_MAX || must_wait(w))
		return false;
	return w->queue.count + w->running.count >= w->expected_jobs || now_us >= due_us(w) || w->queue.head->retried ||
	       w->queue.head->alone;
}

/* A batch goes out beside another one only when it is worth a batch's costs. */
static bool may_seal(const struct writer *w)
{
	if (!w->open)
		return false;
	if (w->in_flight > 0 && w->in_flight >= w->options.pipeline_depth)
		return false;
	return w->in_flight == 0 || w->draining || w->running.count * 2 >= w->first_batch->job_count;
}

/* The open transaction waits for a quorum that is gone: undo it, so that its jobs can be told that nothing happened. */
static void abandon_open(struct writer *w)
{
	query_batch_rollback(w->conn);
	fail_running(w, QUERY_NO_QUORUM, "not enough replicas answer; the write was not executed");
}

/* Sleeps until something may be due; the mutex is released meanwhile. */
static void wait_for_work(struct writer *w, uint64_t now_us)
{
	if (w->queue.head != NULL && !w->draining && w->running.count < BATCH_JOBS_MAX && !must_wait(w))
		clock_wait(&w->work, &w->mutex, due_us(w));
	else if (w->open || w->queue.head != NULL)
		clock_wait(&w->work, &w->mutex, now_us + SWEEP_MS * 1000u);
	else
		pthread_cond_wait(&w->work, &w->mutex);
}

/* Runs everything that waits into the open transaction. Called and left with the mutex held. */
static void run_queue(struct writer *w)
{
	struct write_job *job;

	while (!w->stopping && !w->draining && w->running.count < BATCH_JOBS_MAX &&
	       (job = list_take(&w->queue)) != NULL) {
		w->current = job;
		pthread_mutex_unlock(&w->mutex);
		work_pulse_begin(&w->pulse);
		log_set_request_id(job->trace_id);
		run_job(w, job);
		log_set_request_id(NULL);
		work_pulse_end(&w->pulse);
		pthread_mutex_lock(&w->mutex);
	}
}

static void *run_writer(void *arg)
{
	struct writer *w = arg;
	uint64_t now_us;

	pthread_setname_np(pthread_self(), "writer");
	pthread_mutex_lock(&w->mutex);
	while (!w->stopping) {
		now_us = clock_mono_us();
		if (w->open && is_stalled(w, now_us / 1000)) {
			pthread_mutex_unlock(&w->mutex);
			work_pulse_begin(&w->pulse);
			abandon_open(w);
			work_pulse_end(&w->pulse);
			pthread_mutex_lock(&w->mutex);
		} else if (may_run(w, now_us)) {
			run_queue(w);
		} else if (may_seal(w)) {
			pthread_mutex_unlock(&w->mutex);
			work_pulse_begin(&w->pulse);
			seal(w);
			work_pulse_end(&w->pulse);
			pthread_mutex_lock(&w->mutex);
		} else {
			wait_for_work(w, now_us);
		}
	}
	pthread_mutex_unlock(&w->mutex);
	return NULL;
}

static void *run_sync(void *arg)
{
	struct writer *w = arg;
	struct errmsg em = {0};
	uint64_t durable_lsn = 0;
	uint64_t swept_ms = 0;

	pthread_setname_np(pthread_self(), "wal-sync");
	pthread_mutex_lock(&w->mutex);
	while (!w->stopping) {
		if (w->sealed_lsn <= durable_lsn)
			clock_wait(&w->sealed, &w->mutex, clock_mono_us() + SWEEP_MS * 1000u);
		if (w->sealed_lsn > durable_lsn) {
			pthread_mutex_unlock(&w->mutex);
			if (store_sync(w->options.store, &durable_lsn, &em) != DB_OK) {
				w->options.on_failed(w->options.arg, em.text);
				return NULL;
			}
			w->options.on_durable(w->options.arg, durable_lsn);
			pthread_mutex_lock(&w->mutex);
		}
		if (clock_mono_ms() - swept_ms >= SWEEP_MS) {
			pthread_mutex_unlock(&w->mutex);
			sweep(w);
			swept_ms = clock_mono_ms();
			pthread_mutex_lock(&w->mutex);
		}
	}
	pthread_mutex_unlock(&w->mutex);
	return NULL;
}

/* ---- life */

enum db_err writer_submit(struct writer *w, struct write_job *job)
{
	enum db_err err = DB_OK;
	uint64_t now_us = clock_mono_us();
	bool wake;

	job->submitted_ms = now_us / 1000;
	job->submitted_us = now_us;
	job->retried = false;
	job->repeated_lsn = 0;
	memset(&job->error, 0, sizeof(job->error));
	pthread_mutex_lock(&w->mutex);
	if (w->stopping)
		err = DB_CLOSED;
	else if (w->queue.count >= w->options.queue_max)
		err = DB_BUSY;
	else
		list_append(&w->queue, job);
	w->last_queued_us = now_us;
	if (w->queue.count == 1)
		w->first_queued_us = now_us;
	/* The first one sets the clock for the rest, the last one expected ends the wait. */
	wake = err == DB_OK && (w->queue.count == 1 || w->queue.count + w->running.count == w->expected_jobs);
	pthread_mutex_unlock(&w->mutex);
	if (wake)
		pthread_cond_signal(&w->work);
	return err;
}

void writer_set_draining(struct writer *w, bool draining)
{
	pthread_mutex_lock(&w->mutex);
	w->draining = draining;
	pthread_cond_signal(&w->work);
	pthread_mutex_unlock(&w->mutex);
}

bool writer_is_drained(struct writer *w)
{
	bool drained;

	pthread_mutex_lock(&w->mutex);
	/* One that was taken from the queue may not have begun its transaction yet; one that runs alone never does. */
	drained = w->draining && !w->open && w->current == NULL && w->running.head == NULL && w->first_batch == NULL;
	pthread_mutex_unlock(&w->mutex);
	return drained;
}

static bool list_has(const struct job_list *list, const char *request_id)
{
	const struct write_job *job;

	for (job = list->head; job != NULL; job = job->next)
		if (job->request->request_id != NULL && strcmp(job->request->request_id, request_id) == 0)
			return true;
	return false;
}

enum writer_knowledge writer_find(struct writer *w, const char *request_id)
{
	enum writer_knowledge found = WRITER_UNKNOWN;
	const struct batch *batch;

	pthread_mutex_lock(&w->mutex);
	for (batch = w->first_batch; batch != NULL; batch = batch->next) {
		if (list_has(&batch->jobs, request_id))
			found = WRITER_PENDING;
		else if (batch->unsure && found == WRITER_UNKNOWN)
			found = WRITER_UNSURE;
	}
	if (list_has(&w->queue, request_id) || list_has(&w->running, request_id))
		found = WRITER_PENDING;
	if (w->current != NULL && w->current->request->request_id != NULL &&
	    strcmp(w->current->request->request_id, request_id) == 0)
		found = WRITER_PENDING;
	pthread_mutex_unlock(&w->mutex);
	return found;
}

uint64_t writer_stuck_ms(struct writer *w)
{
	return work_pulse_stuck_ms(&w->pulse, clock_mono_ms());
}

void writer_get_counters(struct writer *w, struct writer_counters *out)
{
	pthread_mutex_lock(&w->mutex);
	out->batches_total = w->batches_total;
	out->jobs_total = w->jobs_total;
	out->queue_length = w->queue.count;
	pthread_mutex_unlock(&w->mutex);
}

enum db_err writer_start(struct writer *w, struct errmsg *em)
{
	if (pthread_create(&w->writer_thread, NULL, run_writer, w) != 0)
		return errmsg_set(em, DB_NOMEM, "cannot start the writer thread");
	w->writer_started = true;
	if (pthread_create(&w->sync_thread, NULL, run_sync, w) != 0)
		return errmsg_set(em, DB_NOMEM, "cannot start the sync thread");
	w->sync_started = true;
	return DB_OK;
}

static uint64_t open_lsn(void *arg)
{
	const struct writer *w = arg;

	return w->open_lsn;
}

enum db_err writer_create(struct writer **out, const struct writer_options *options, struct errmsg *em)
{
	struct writer *w = calloc(1, sizeof(*w));
	const struct query_conn_options conn_options = {
	    .node_id = options->node_id, .receipts = options->receipts, .next_lsn = open_lsn, .next_lsn_arg = w};
	enum db_err err;

	*out = NULL;
	if (w == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	w->options = *options;
	w->sealed_lsn = options->first_lsn;
	work_pulse_init(&w->pulse);
	pthread_mutex_init(&w->mutex, NULL);
	pthread_cond_init(&w->work, NULL);
	pthread_cond_init(&w->sealed, NULL);
	err = store_open_writer(options->store, &w->db, em);
	if (err == DB_OK) {
		err = query_conn_create(&w->conn, w->db, &conn_options, em);
		if (err != DB_OK)
			sqlite3_close(w->db);
		else if (remote_fill_register(w->db) != SQLITE_OK) /* a query_conn keeps none of the modules before */
			err = errmsg_set(em, DB_NOMEM, "out of memory");
	}
	if (err != DB_OK) {
		writer_stop(w);
		writer_free(w);
		return err;
	}
	*out = w;
	return DB_OK;
}

/* Whether the job will be committed is the new master's to know. One with a request_id may be put to it again, which tells;
 * one that failed here may have failed by what was never committed. */
static void finish_sealed(struct write_job *job, const struct query_error *unknown)
{
	job->error = *unknown;
	finish(job, job->request->request_id != NULL ? WRITE_MOVED : WRITE_ERROR, 0);
}

void writer_stop(struct writer *w)
{
	struct query_error unknown = {0};
	struct write_job *job;
	struct batch *batch;

	pthread_mutex_lock(&w->mutex);
	w->stopping = true;
	pthread_cond_broadcast(&w->work);
	pthread_cond_broadcast(&w->sealed);
	pthread_mutex_unlock(&w->mutex);
	if (w->writer_started) {
		sqlite3_interrupt(w->db);
		pthread_join(w->writer_thread, NULL);
	}
	if (w->sync_started)
		pthread_join(w->sync_thread, NULL);
	w->writer_started = w->sync_started = false;
	if (w->open)
		query_batch_rollback(w->conn);
	w->open = false;
	list_prepend(&w->queue, &w->running);
	while ((job = list_take(&w->queue)) != NULL)
		finish(job, WRITE_MOVED, 0);
	set_unknown(&unknown);
	while ((batch = w->first_batch) != NULL) {
		w->first_batch = batch->next;
		while ((job = list_take(&batch->jobs)) != NULL)
			finish_sealed(job, &unknown);
		free(batch);
	}
	w->last_batch = NULL;
}

void writer_free(struct writer *w)
{
	if (w == NULL)
		return;
	assert(w->queue.head == NULL && w->first_batch == NULL);
	query_conn_free(w->conn);
	pthread_cond_destroy(&w->work);
	pthread_cond_destroy(&w->sealed);
	pthread_mutex_destroy(&w->mutex);
	work_pulse_fini(&w->pulse);
	free(w);
}

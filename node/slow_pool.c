/* slow_pool.c - see slow_pool.h. */
#include "node/slow_pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/timings.h"
#include "common/query/exec.h"

#define CHUNK_BYTES  ((size_t)64 << 10)
#define STALL_MS_MAX 30000 /* a client that takes nothing for so long is cut off */
#define STALL_MS_MIN 1000  /* also when the time is up: the end that says so is to be sent */

struct slow_job {
	struct slow_job *next;
	struct query_request *request;
	struct federated_request *federated; /* NULL: names no tables of other nodes */
	struct http_stream *stream;          /* NULL: a fill */
	struct slow_fill *fill;
	uint64_t started_us;
	uint64_t deadline_ms;
};

struct slow_thread {
	struct slow_pool *pool;
	pthread_t thread;
	struct query_conn *conn;
	bool started;
};

struct slow_pool {
	struct slow_pool_options options;
	struct remote_tables_env remote;
	struct slow_thread *threads;
	unsigned thread_count;
	pthread_mutex_t mutex; /* guards everything below */
	pthread_cond_t work;
	struct slow_job *head, **tail;
	atomic_uint queued; /* read without the mutex, too */
	bool stopping;
	unsigned fills; /* submitted, not done */
	pthread_cond_t no_fills;
	atomic_bool fills_stopped; /* read without the mutex, too */
};

/* A client that stalls does not keep the thread longer than the query's own time, about. */
static enum db_err send_piece(struct slow_job *job, struct buf *out)
{
	uint64_t now_ms = clock_mono_ms(), left_ms = job->deadline_ms > now_ms ? job->deadline_ms - now_ms : 0;

	if (left_ms < STALL_MS_MIN)
		left_ms = STALL_MS_MIN;
	return http_stream_write(job->stream, out, left_ms < STALL_MS_MAX ? left_ms : STALL_MS_MAX);
}

static bool flush_to_stream(void *arg, struct buf *out)
{
	return send_piece(arg, out) == DB_OK;
}

static void free_job(struct slow_job *job)
{
	federated_request_free(job->federated);
	query_request_free(job->request);
	free(job);
}

/* Sends the end of an answer. */
static void end_stream(struct slow_job *job, struct buf *out, bool whole)
{
	if (out->failed)
		whole = false;
	else if (out->len > 0 && send_piece(job, out) != DB_OK)
		whole = false;
	http_stream_end(job->stream, whole);
}

static enum query_outcome read_job(struct slow_thread *t, struct slow_job *job, const struct query_read_limits *limits,
				   const struct query_sink *sink, struct buf *out, struct query_error *error)
{
	if (job->federated == NULL)
		return query_read(t->conn, job->request, limits, sink, job->started_us, out, error);
	return remote_tables_read(&t->pool->remote, t->conn, job->federated, limits, sink, job->started_us, out, error);
}

/* Its beginning was sent: nobody else hears of it but the client, who is told in the answer's end. */
static void note_broken(const struct query_error *error)
{
	bool ours = query_code_http_status(error->code) >= 500;

	log_event(ours ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG, "answer broken off",
		  (const struct log_field[]){{"code", query_code_name(error->code)}, {"why", error->message}},
		  ours ? 2 : 1);
}

static void run_read(struct slow_thread *t, struct slow_job *job)
{
	const struct query_read_limits limits = {.deadline_ms = job->deadline_ms,
						 .result_rows_max = t->pool->options.result_rows_max,
						 .result_bytes_max = t->pool->options.result_bytes_max,
						 .cancelled = http_stream_gone(job->stream)};
	const struct query_sink sink = {flush_to_stream, job, CHUNK_BYTES};
	struct query_error error = {.statement = -1};
	struct buf out = {0};

	switch (read_job(t, job, &limits, &sink, &out, &error)) {
	case QUERY_ANSWERED:
		end_stream(job, &out, true);
		break;
	case QUERY_BROKEN:
		note_broken(&error);
		end_stream(job, &out, false);
		break;
	case QUERY_GONE:
		http_stream_end(job->stream, false);
		break;
	case QUERY_OVER_BUDGET: /* there is no budget here */
		query_error_set(&error, QUERY_INTERNAL, "the query exceeded its budget");
		http_stream_error(job->stream, &error);
		break;
	case QUERY_FAILED:
		http_stream_error(job->stream, &error);
		break;
	}
	buf_fini(&out);
}

static void end_fill(struct slow_pool *p, struct slow_job *job)
{
	job->fill->done(job->fill);
	free(job);
	pthread_mutex_lock(&p->mutex);
	if (--p->fills == 0)
		pthread_cond_broadcast(&p->no_fills);
	pthread_mutex_unlock(&p->mutex);
}

static void run_fill(struct slow_thread *t, struct slow_job *job)
{
	struct slow_fill *f = job->fill;
	const struct query_read_limits limits = {.deadline_ms = f->deadline_ms, .cancelled = &t->pool->fills_stopped};

	f->error.statement = -1;
	remote_tables_fill(&t->pool->remote, t->conn, f->federated, &limits, &f->filled, &f->remote, &f->error);
	end_fill(t->pool, job);
}

static bool is_expired(const struct slow_job *job, uint64_t now_ms)
{
	return now_ms >= job->deadline_ms || (job->stream != NULL && atomic_load(http_stream_gone(job->stream)));
}

static void answer_expired(struct slow_pool *p, struct slow_job *job)
{
	struct query_error error = {.statement = -1};

	query_error_set(&error, QUERY_TIMEOUT, "the time ran out while the query waited for other long queries");
	if (job->fill != NULL) {
		job->fill->error = error;
		end_fill(p, job);
		return;
	}
	http_stream_error(job->stream, &error);
	free_job(job);
}

static void run_job(struct slow_thread *t, struct slow_job *job)
{
	uint64_t began_us, ended_us;

	log_set_request_id(job->fill != NULL ? job->fill->federated->request->trace_id : job->request->trace_id);
	if (is_expired(job, clock_mono_ms())) {
		answer_expired(t->pool, job);
		return;
	}
	if (job->fill != NULL) {
		run_fill(t, job);
		return;
	}
	began_us = clock_mono_us();
	timings_add(t->pool->options.timings, TIMING_SLOW_WAIT, began_us - job->started_us);
	run_read(t, job);
	ended_us = clock_mono_us();
	timings_add(t->pool->options.timings, TIMING_SLOW_EXECUTE, ended_us - began_us);
	timings_add(t->pool->options.timings, TIMING_SLOW_WHOLE, ended_us - job->started_us);
	slow_log_note(t->pool->options.slow_log, t->conn, job->request, "slow_read", ended_us - job->started_us);
	free_job(job);
}

static void *run_thread(void *arg)
{
	struct slow_thread *t = arg;
	struct slow_pool *p = t->pool;
	struct slow_job *job;

	pthread_setname_np(pthread_self(), "slow-query");
	pthread_mutex_lock(&p->mutex);
	for (;;) {
		while (p->head == NULL && !p->stopping)
			pthread_cond_wait(&p->work, &p->mutex);
		if (p->stopping)
			break;
		job = p->head;
		p->head = job->next;
		if (p->head == NULL)
			p->tail = &p->head;
		p->queued--;
		pthread_mutex_unlock(&p->mutex);
		run_job(t, job);
		log_set_request_id(NULL);
		pthread_mutex_lock(&p->mutex);
	}
	pthread_mutex_unlock(&p->mutex);
	return NULL;
}

bool slow_pool_has_waiting(struct slow_pool *p)
{
	return atomic_load_explicit(&p->queued, memory_order_relaxed) > 0;
}

void slow_pool_expire(struct slow_pool *p)
{
	struct slow_job *job, **at, *expired = NULL;
	uint64_t now_ms = clock_mono_ms();

	pthread_mutex_lock(&p->mutex);
	for (at = &p->head; (job = *at) != NULL;) {
		if (!is_expired(job, now_ms)) {
			at = &job->next;
			continue;
		}
		*at = job->next;
		p->queued--;
		job->next = expired;
		expired = job;
	}
	p->tail = at;
	pthread_mutex_unlock(&p->mutex);
	while ((job = expired) != NULL) {
		expired = job->next;
		answer_expired(p, job);
	}
}

enum db_err slow_pool_submit(struct slow_pool *p, struct query_request *request, struct federated_request *federated,
			     struct http_stream *stream, uint64_t started_us, uint64_t deadline_ms)
{
	struct slow_job *job = calloc(1, sizeof(*job));
	enum db_err err = DB_OK;

	if (job == NULL)
		return DB_NOMEM;
	job->request = request;
	job->federated = federated;
	job->stream = stream;
	job->started_us = started_us;
	job->deadline_ms = deadline_ms;
	pthread_mutex_lock(&p->mutex);
	if (p->queued >= p->options.queue_max || p->stopping) {
		err = DB_BUSY;
	} else {
		*p->tail = job;
		p->tail = &job->next;
		p->queued++;
		pthread_cond_signal(&p->work);
	}
	pthread_mutex_unlock(&p->mutex);
	if (err != DB_OK)
		free(job);
	return err;
}

enum db_err slow_pool_submit_fill(struct slow_pool *p, struct slow_fill *fill)
{
	struct slow_job *job = calloc(1, sizeof(*job));
	enum db_err err = DB_OK;

	if (job == NULL)
		return DB_NOMEM;
	job->fill = fill;
	job->deadline_ms = fill->deadline_ms;
	pthread_mutex_lock(&p->mutex);
	if (p->queued >= p->options.queue_max || p->stopping || atomic_load(&p->fills_stopped)) {
		err = DB_BUSY;
	} else {
		*p->tail = job;
		p->tail = &job->next;
		p->queued++;
		p->fills++;
		pthread_cond_signal(&p->work);
	}
	pthread_mutex_unlock(&p->mutex);
	if (err != DB_OK)
		free(job);
	return err;
}

void slow_pool_stop_fills(struct slow_pool *p)
{
	if (p == NULL)
		return;
	atomic_store(&p->fills_stopped, true);
	pthread_mutex_lock(&p->mutex);
	while (p->fills > 0)
		pthread_cond_wait(&p->no_fills, &p->mutex);
	pthread_mutex_unlock(&p->mutex);
}

static enum db_err start_thread(struct slow_thread *t, struct errmsg *em)
{
	const struct query_conn_options options = {
	    .node_id = t->pool->options.node_id, .statement_cache_max = 32, .snapshot_lsn = store_snapshot_lsn};
	sqlite3 *db;
	enum db_err err;

	err = store_open_reader(t->pool->options.store, &db, em);
	if (err != DB_OK)
		return err;
	err = query_conn_create(&t->conn, db, &options, em);
	if (err != DB_OK) {
		sqlite3_close(db);
		return err;
	}
	if (pthread_create(&t->thread, NULL, run_thread, t) != 0)
		return errmsg_set(em, DB_NOMEM, "cannot start a slow-query thread");
	t->started = true;
	return DB_OK;
}

enum db_err slow_pool_create(struct slow_pool **out, const struct slow_pool_options *options, struct errmsg *em)
{
	struct slow_pool *p = calloc(1, sizeof(*p));
	enum db_err err = DB_OK;
	unsigned i;

	*out = NULL;
	if (p == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	p->options = *options;
	p->remote = *options->remote;
	p->tail = &p->head;
	pthread_mutex_init(&p->mutex, NULL);
	pthread_cond_init(&p->work, NULL);
	pthread_cond_init(&p->no_fills, NULL);
	p->threads = calloc(options->thread_count, sizeof(*p->threads));
	if (p->threads == NULL)
		err = errmsg_set(em, DB_NOMEM, "out of memory");
	for (i = 0; i < options->thread_count && err == DB_OK; i++) {
		p->threads[i].pool = p;
		p->thread_count = i + 1;
		err = start_thread(&p->threads[i], em);
	}
	if (err != DB_OK) {
		slow_pool_free(p);
		return err;
	}
	*out = p;
	return DB_OK;
}

void slow_pool_free(struct slow_pool *p)
{
	const struct query_error error = {.code = QUERY_NO_MASTER, .statement = -1, .message = "the node is stopping"};
	struct slow_job *job;
	unsigned i;

	if (p == NULL)
		return;
	pthread_mutex_lock(&p->mutex);
	p->stopping = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->mutex);
	for (i = 0; i < p->thread_count; i++) {
		if (p->threads[i].started)
			pthread_join(p->threads[i].thread, NULL);
		query_conn_free(p->threads[i].conn);
	}
	while ((job = p->head) != NULL) {
		p->head = job->next;
		http_stream_error(job->stream, &error);
		free_job(job);
	}
	pthread_cond_destroy(&p->no_fills);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->mutex);
	free(p->threads);
	free(p);
}

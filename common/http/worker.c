/*
 * worker.c - one worker: a thread, its event loop, its inbox and its clock.
 *
 * Invariants: (1) nothing of a worker but its inbox, counters and the fields named so in internal.h is touched by
 * another thread, which is why its event_base has no locks. (2) A task posted is a task run: what waits at the end is
 * run before the thread ends.
 *
 * Deadlines are kept by one coarse sweep over all connections, not by a timer per request: adding and deleting timers
 * in the hot path costs more than the sweep, and a deadline that is met a quarter late harms nobody.
 */
#include "common/http/internal.h"

#include <assert.h>
#include <signal.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"

#define SWEEP_MS_MIN 10u
#define SWEEP_MS_MAX 250u

bool http_worker_is_self(const struct http_worker *w)
{
	return pthread_equal(pthread_self(), w->self) != 0;
}

void http_worker_post(struct http_worker *w, struct http_task *task)
{
	static const struct timeval at_once = {0, 0};

	if (!http_worker_is_self(w)) {
		http_inbox_post(&w->inbox, task);
		return;
	}
	/* A timer of zero runs in the next turn of the loop, after sockets have had theirs. */
	task->next = NULL;
	if (w->local_first == NULL)
		event_add(w->local_event, &at_once);
	*w->local_last = task;
	w->local_last = &task->next;
}

static size_t run_local(struct http_worker *w)
{
	struct http_task *task = w->local_first, *next;
	size_t count = 0;

	w->local_first = NULL;
	w->local_last = &w->local_first;
	for (; task != NULL; task = next, count++) {
		next = task->next;
		task->run(task);
		log_set_request_id(NULL); /* whoever it was about */
	}
	return count;
}

static void on_inbox(evutil_socket_t fd, short what, void *arg)
{
	struct http_worker *w = arg;

	(void)fd;
	(void)what;
	http_inbox_run(&w->inbox);
}

static void on_local(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	run_local(arg);
}

static void on_fresh(evutil_socket_t fd, short what, void *arg)
{
	struct http_worker *w = arg;

	(void)fd;
	(void)what;
	http_conn_settle_fresh(w);
	if (w->accepted) {
		w->accepted = false;
		http_accept_after(w);
	}
	http_conn_run_held(w);
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	http_conn_run_ready(arg);
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	http_conn_flush_all(arg);
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
	struct http_worker *w = arg;

	(void)fd;
	(void)what;
	w->now_ms = clock_mono_ms();
	http_conn_sweep(w);
	http_accept_make_room(w);
	http_accept_show(w); /* a listener whose accept() failed tries again */
}

static void run_drain(struct http_task *task)
{
	struct http_worker *w = (struct http_worker *)((char *)task - offsetof(struct http_worker, drain_task));

	http_conn_drain(w);
	http_delayed_answer_all(w);
}

static void run_close(struct http_task *task)
{
	struct http_worker *w = (struct http_worker *)((char *)task - offsetof(struct http_worker, close_task));

	w->draining = true;
	http_conn_close_all(w);
	http_delayed_answer_all(w); /* whose clients have just gone */
}

static void run_quit(struct http_task *task)
{
	struct http_worker *w = (struct http_worker *)((char *)task - offsetof(struct http_worker, quit_task));

	event_base_loopbreak(w->base);
}

static uint64_t sweep_interval_ms(const struct http_options *options)
{
	uint64_t shortest = options->request_timeout_ms < options->idle_timeout_ms ? options->request_timeout_ms
										   : options->idle_timeout_ms;

	if (shortest / 4 < SWEEP_MS_MIN)
		return SWEEP_MS_MIN;
	return shortest / 4 > SWEEP_MS_MAX ? SWEEP_MS_MAX : shortest / 4;
}

static enum db_err create_events(struct http_worker *w, struct errmsg *em)
{
	uint64_t interval_ms = sweep_interval_ms(&w->server->options);
	struct timeval interval = {(time_t)(interval_ms / 1000), (suseconds_t)(interval_ms % 1000 * 1000)};

	w->inbox_event = event_new(w->base, w->inbox.fd, EV_READ | EV_PERSIST, on_inbox, w);
	w->local_event = evtimer_new(w->base, on_local, w);
	w->sweep_event = event_new(w->base, -1, EV_PERSIST, on_sweep, w);
	w->fresh_event = evtimer_new(w->base, on_fresh, w);
	w->ready_event = evtimer_new(w->base, on_ready, w);
	w->flush_event = evtimer_new(w->base, on_flush, w);
	w->delayed_event = evtimer_new(w->base, http_delayed_due, w);
	if (w->inbox_event == NULL || w->local_event == NULL || w->sweep_event == NULL || w->fresh_event == NULL ||
	    w->ready_event == NULL || w->flush_event == NULL || w->delayed_event == NULL)
		return errmsg_set(em, DB_NOMEM, "events of an HTTP worker: out of memory");
	if (event_add(w->inbox_event, NULL) != 0 || event_add(w->sweep_event, &interval) != 0)
		return errmsg_set(em, DB_IO, "cannot add the events of an HTTP worker");
	return http_accept_init(w, em);
}

/* The changelist nets out what evhttp turns off and on again within one turn of the loop: most requests then need no
 * epoll_ctl at all. It asks that no descriptor of the base be a dup() of another of it, and none is. */
static enum db_err create_loop(struct http_worker *w, struct errmsg *em)
{
	struct event_config *config = event_config_new();

	if (config == NULL)
		return errmsg_set(em, DB_NOMEM, "event loop of an HTTP worker: out of memory");
	event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
	event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
	w->base = event_base_new_with_config(config);
	event_config_free(config);
	if (w->base == NULL)
		return errmsg_set(em, DB_IO, "cannot create an event loop");
	w->http = evhttp_new(w->base);
	if (w->http == NULL)
		return errmsg_set(em, DB_NOMEM, "cannot create an evhttp");
	/* Every method: a request that evhttp refuses by itself gets an HTML page, one refused by us our JSON. */
	evhttp_set_allowed_methods(w->http, UINT16_MAX);
	evhttp_set_bevcb(w->http, http_conn_create, w);
	evhttp_set_gencb(w->http, http_request_arrived, w);
	return create_events(w, em);
}

static void free_event(struct event **event)
{
	if (*event != NULL)
		event_free(*event);
	*event = NULL;
}

static void free_loop(struct http_worker *w)
{
	http_accept_fini(w);
	free_event(&w->inbox_event);
	free_event(&w->local_event);
	free_event(&w->sweep_event);
	free_event(&w->fresh_event);
	free_event(&w->ready_event);
	free_event(&w->flush_event);
	free_event(&w->delayed_event);
	if (w->http != NULL)
		evhttp_free(w->http);
	w->http = NULL;
	if (w->base != NULL)
		event_base_free(w->base);
	w->base = NULL;
}

/* Tells http_worker_start() how starting went. */
static void report_start(struct http_worker *w, enum db_err err)
{
	pthread_mutex_lock(&w->server->accept_lock);
	w->start_err = err;
	w->started = true;
	pthread_cond_broadcast(&w->server->accept_cond);
	pthread_mutex_unlock(&w->server->accept_lock);
}

static void *worker_main(void *arg)
{
	struct http_worker *w = arg;
	const struct http_options *options = &w->server->options;
	enum db_err err;

	w->self = pthread_self();
	w->now_ms = clock_mono_ms();
	err = create_loop(w, &w->start_em);
	if (err == DB_OK && options->worker_start != NULL)
		err = options->worker_start(options->arg, w, &w->data, &w->start_em);
	report_start(w, err);
	if (err != DB_OK)
		goto free_loop;
	event_base_dispatch(w->base);
	w->draining = true;
	http_conn_close_all(w);
	http_delayed_answer_all(w);
	while (http_inbox_run(&w->inbox) + run_local(w) > 0)
		; /* (2) */
	if (options->worker_stop != NULL)
		options->worker_stop(options->arg, w, w->data);
	while (http_inbox_run(&w->inbox) + run_local(w) > 0)
		;
free_loop:
	free_loop(w);
	return NULL;
}

enum db_err http_worker_start(struct http_worker *w, struct http_server *s, unsigned index, struct errmsg *em)
{
	sigset_t all, old;
	enum db_err err;
	int rc;

	w->server = s;
	w->index = index;
	w->local_last = &w->local_first;
	w->held_last = &w->held;
	w->ready_last = &w->ready;
	w->drain_task.run = run_drain;
	w->close_task.run = run_close;
	w->quit_task.run = run_quit;
	err = http_inbox_init(&w->inbox, em);
	if (err != DB_OK)
		return err;
	/* Signals are the main thread's, save the one that says that a page of a mapped file could not be read. */
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	rc = pthread_create(&w->thread, NULL, worker_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0) {
		http_inbox_fini(&w->inbox);
		return errmsg_errno(em, rc, "cannot start an HTTP worker");
	}
	pthread_mutex_lock(&s->accept_lock);
	while (!w->started)
		pthread_cond_wait(&s->accept_cond, &s->accept_lock);
	err = w->start_err;
	pthread_mutex_unlock(&s->accept_lock);
	if (err == DB_OK)
		return DB_OK;
	pthread_join(w->thread, NULL);
	http_inbox_fini(&w->inbox);
	if (em != NULL)
		*em = w->start_em;
	return err;
}

void http_worker_join(struct http_worker *w)
{
	pthread_join(w->thread, NULL);
	while (http_inbox_run(&w->inbox) > 0)
		; /* (2), for whatever came after the thread's own last look */
	http_inbox_fini(&w->inbox);
}

void http_worker_conn_closed(struct http_worker *w)
{
	http_uncount(&w->counts.connections_open);
	atomic_fetch_sub(&w->connections, 1);
	atomic_fetch_sub(&w->server->connections, 1);
	http_accept_slot_freed(w->server);
	if (!w->draining || w->conns != NULL || w->fresh != NULL)
		return;
	pthread_mutex_lock(&w->server->accept_lock);
	w->drained = true;
	pthread_cond_broadcast(&w->server->accept_cond);
	pthread_mutex_unlock(&w->server->accept_lock);
}

void *http_worker_data(const struct http_worker *w)
{
	return w->data;
}

struct event_base *http_worker_base(const struct http_worker *w)
{
	return w->base;
}

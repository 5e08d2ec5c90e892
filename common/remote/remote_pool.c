/*
 * remote_pool.c - the pool's thread: which fetch goes when, and what its end says of the address.
 *
 * Readers post to the inbox (a list under the pool's mutex, and an eventfd that wakes the loop). Everything else happens on
 * the pool's thread: each address has a queue and its own memory of failures, and a fetch is handed to the http_client only
 * when it may go, so that the client's own queue stays empty and a queue never runs against an address that has just failed.
 *
 * What came for readers is told at the end of a loop's turn rather than for each piece: one wake-up for all that one
 * look at the socket brought.
 *
 * Invariants: (1) a fetch that was started ends once, with remote_fetch_on_end(); (2) a fetch goes to the http_client only
 * while fewer than max_connections, and one more for each of its levels, of its address are there; (3) the list of addresses changes under the mutex, only on the pool's thread, and
 * one with fetches or connections stays.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/wake.h"
#include "common/remote/backoff.h"
#include "common/remote/remote_access.h"
#include "common/remote/remote_pool_priv.h"

#define LISTED_MS (10 * 60 * 1000)

TAILQ_HEAD(fetch_list, remote_fetch);

struct remote_address {
	TAILQ_ENTRY(remote_address) listed;
	char name[REMOTE_ADDRESS_MAX];
	struct remote_pool *pool;
	struct fetch_list queue;
	struct backoff backoff;
	struct event *timer; /* the queue may go on: the next look, or at once */
	/* Changed on the pool's thread, read by any. */
	atomic_uint_fast64_t connections, in_flight, queued, requests, failures;
	atomic_uint_fast64_t asked_ms, failing_since_ms; /* clock_mono_ms(); 0: it does not fail */
	char last_error[ERRMSG_TEXT_MAX];                /* under the pool's mutex */
};

struct remote_pool {
	struct remote_pool_options options;
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t mutex; /* inbox, posted of each fetch, stopping, the list of addresses, their last_error */
	STAILQ_HEAD(, remote_fetch) inbox;
	bool stopping;
	bool quit;
	int wake_fd;

	/* The pool's thread. */
	struct event_base *base;
	struct event *wake, *flush;
	struct http_client *client;
	TAILQ_HEAD(, remote_address) addresses;
	unsigned address_count;
	struct fetch_list under_way;
	STAILQ_HEAD(, remote_fetch) dirty; /* their readers are to be told */
	bool ended;                        /* it has seen stopping: nothing is started any more */

	/* Any thread. */
	atomic_uint fetches; /* that exist */
	atomic_uint_fast64_t requests, failures, refusals, waited, in_flight, queued;
};

/* ---- posting */

enum db_err remote_pool_post(struct remote_pool *p, struct remote_fetch *f, enum remote_post what)
{
	bool first = false, refused;

	pthread_mutex_lock(&p->mutex);
	refused = what == REMOTE_POST_START && p->stopping;
	if (!refused) {
		first = STAILQ_EMPTY(&p->inbox);
		if (f->posted == 0) {
			atomic_fetch_add(&f->refs, 1);
			STAILQ_INSERT_TAIL(&p->inbox, f, in_inbox);
		}
		f->posted |= what;
	}
	pthread_mutex_unlock(&p->mutex);
	if (first)
		wake_up(p->wake_fd);
	return refused ? DB_CLOSED : DB_OK;
}

void remote_pool_on_fetch(struct remote_pool *p, bool created)
{
	if (created)
		atomic_fetch_add(&p->fetches, 1);
	else
		atomic_fetch_sub(&p->fetches, 1);
}

/* ---- telling readers */

static void mark_dirty(struct remote_fetch *f)
{
	struct remote_pool *p = f->pool;

	if (f->is_dirty)
		return;
	f->is_dirty = true;
	atomic_fetch_add(&f->refs, 1);
	STAILQ_INSERT_TAIL(&p->dirty, f, in_dirty);
	event_active(p->flush, EV_TIMEOUT, 0);
}

static void flush_dirty(struct remote_pool *p)
{
	struct remote_fetch *f;

	while ((f = STAILQ_FIRST(&p->dirty)) != NULL) {
		STAILQ_REMOVE_HEAD(&p->dirty, in_dirty);
		f->is_dirty = false;
		remote_fetch_flush(f);
		remote_fetch_unref(f);
	}
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	flush_dirty(arg);
}

/* ---- addresses */

static void on_address_timer(evutil_socket_t fd, short what, void *arg);

static struct remote_address *address_find(struct remote_pool *p, const char *name)
{
	struct remote_address *a;

	TAILQ_FOREACH(a, &p->addresses, listed)
	if (strcmp(a->name, name) == 0)
		return a;
	return NULL;
}

static void address_free(struct remote_pool *p, struct remote_address *a)
{
	pthread_mutex_lock(&p->mutex);
	TAILQ_REMOVE(&p->addresses, a, listed);
	pthread_mutex_unlock(&p->mutex);
	p->address_count--;
	event_free(a->timer);
	free(a);
}

/* (3) Makes room for another: forgets the one that was not asked for longest. */
static void forget_oldest(struct remote_pool *p)
{
	struct remote_address *a, *oldest = NULL;

	TAILQ_FOREACH(a, &p->addresses, listed)
	if (a->connections == 0 && a->in_flight == 0 && a->queued == 0 &&
	    (oldest == NULL || a->asked_ms < oldest->asked_ms))
		oldest = a;
	if (oldest != NULL)
		address_free(p, oldest);
}

static struct remote_address *address_get(struct remote_pool *p, const char *name)
{
	struct remote_address *a = address_find(p, name);

	if (a != NULL)
		return a;
	if (p->address_count >= REMOTE_LISTED_MAX)
		forget_oldest(p);
	a = calloc(1, sizeof(*a));
	if (a == NULL)
		return NULL;
	a->pool = p;
	TAILQ_INIT(&a->queue);
	memcpy(a->name, name, strlen(name) + 1); /* remote_fetch_start() has checked its length */
	a->timer = evtimer_new(p->base, on_address_timer, a);
	if (a->timer == NULL) {
		free(a);
		return NULL;
	}
	pthread_mutex_lock(&p->mutex);
	TAILQ_INSERT_TAIL(&p->addresses, a, listed);
	pthread_mutex_unlock(&p->mutex);
	p->address_count++;
	return a;
}

static void on_connection(void *arg, const char *address, bool opened)
{
	struct remote_address *a = address_find(arg, address);

	assert(a != NULL); /* (3) */
	if (opened)
		a->connections++;
	else
		a->connections--;
}

/* The queue goes on in the loop's next turn. */
static void advance_soon(struct remote_address *a)
{
	event_active(a->timer, EV_TIMEOUT, 0);
}

static void note_answered(struct remote_address *a)
{
	uint64_t since_ms = a->failing_since_ms;

	if (!backoff_is_failing(&a->backoff))
		return;
	backoff_answered(&a->backoff);
	a->failing_since_ms = 0;
	log_info("remote: %s answers again after %" PRIu64 " ms", a->name, clock_mono_ms() - since_ms);
	advance_soon(a);
}

static void note_failed(struct remote_address *a, const char *why)
{
	uint64_t now_ms = clock_mono_ms();

	if (!backoff_failed(&a->backoff, now_ms))
		return;
	if (a->failing_since_ms == 0) {
		a->failing_since_ms = now_ms;
		log_warn("remote: %s fails: %s", a->name, why);
	}
	pthread_mutex_lock(&a->pool->mutex);
	snprintf(a->last_error, sizeof(a->last_error), "%s", why);
	pthread_mutex_unlock(&a->pool->mutex);
	advance_soon(a);
}

/* ---- the end of a fetch */

/* (1) Not with the client any more. The reader hears of it. */
static void fetch_end(struct remote_fetch *f, enum db_err err, const struct errmsg *em)
{
	struct remote_pool *p = f->pool;

	assert(f->place != FETCH_ENDED);
	f->place = FETCH_ENDED;
	if (err != DB_OK && err != DB_CLOSED) {
		p->failures++;
		if (f->at != NULL)
			f->at->failures++;
	}
	remote_fetch_on_end(f, err, em);
	mark_dirty(f);
	remote_fetch_unref(f); /* the dirty list has it still */
}

static void fetch_end_with(struct remote_fetch *f, enum db_err err, const char *why)
{
	struct errmsg em = {0};

	errmsg_set(&em, err, "%s: %s", f->address, why);
	fetch_end(f, err, &em);
}

static void leave_queue(struct remote_fetch *f)
{
	TAILQ_REMOVE(&f->at->queue, f, listed);
	f->at->queued--;
	f->pool->queued--;
	event_free(f->timer);
	f->timer = NULL;
}

/* ---- what the client tells */

static void on_head(void *arg, int status, const char *content_type)
{
	struct remote_fetch *f = arg;

	f->head_told = true;
	note_answered(f->at);
	if (remote_fetch_on_head(f, status, content_type) != DB_OK) {
		f->out_of_memory = true;
		http_call_cancel(f->call); /* that was on_end() */
		return;
	}
	mark_dirty(f);
}

static bool on_body(void *arg, const void *bytes, size_t len)
{
	struct remote_fetch *f = arg;
	enum db_err err = remote_fetch_on_body(f, bytes, len);

	if (err == DB_BUSY)
		return false; /* REMOTE_POST_RESUME */
	if (err == DB_OK) {
		mark_dirty(f);
	} else {
		f->out_of_memory = true;
		http_call_cancel(f->call);
	}
	return true;
}

/* What the end of a call says of its address. */
static void judge(struct remote_fetch *f, enum db_err err, const struct errmsg *em)
{
	if (f->head_told)
		return; /* it answered */
	if (err == DB_UNAVAILABLE || err == DB_IO)
		note_failed(f->at, em->text);
	else if (f->is_probe)
		backoff_undecided(&f->at->backoff);
}

static void on_end(void *arg, enum db_err err, const struct errmsg *em)
{
	struct remote_fetch *f = arg;
	struct remote_address *a = f->at;

	f->call = NULL;
	TAILQ_REMOVE(&f->pool->under_way, f, listed);
	a->in_flight--;
	f->pool->in_flight--;
	judge(f, err, em);
	if (f->out_of_memory)
		fetch_end_with(f, DB_NOMEM, "out of memory for the answer");
	else
		fetch_end(f, err, em);
	if (!TAILQ_EMPTY(&a->queue))
		advance_soon(a);
}

/* ---- going, waiting */

static enum db_err start_call(struct remote_fetch *f, struct errmsg *em)
{
	const struct http_call_request request = {.address = f->address,
						  .path = f->path,
						  .bearer_token = f->token,
						  .headers = (const char *const *)f->headers,
						  .body = f->is_get ? NULL : f->body,
						  .body_len = f->body_len,
						  .deadline_ms = f->deadline_ms,
						  .repeatable = f->is_read,
						  .member = f->member};
	const struct http_call_handler handler = {.on_head = on_head, .on_body = on_body, .on_end = on_end, .arg = f};
	enum db_err err = http_call_start(&f->call, f->pool->client, &request, &handler, em);

	remote_fetch_forget_body(f);
	return err;
}

/* It may go now; it is in no queue. */
static void fetch_go(struct remote_fetch *f)
{
	struct errmsg em = {0};
	enum db_err err = start_call(f, &em);

	if (err != DB_OK) {
		if (f->is_probe)
			backoff_undecided(&f->at->backoff);
		fetch_end(f, err, &em);
		return;
	}
	f->place = FETCH_RUNNING;
	TAILQ_INSERT_TAIL(&f->pool->under_way, f, listed);
	f->at->in_flight++;
	f->pool->in_flight++;
}

static void fetch_refuse(struct remote_fetch *f)
{
	struct remote_address *a = f->at;
	struct errmsg em = {0};

	f->pool->refusals++;
	pthread_mutex_lock(&f->pool->mutex);
	errmsg_set(&em, DB_UNAVAILABLE, "%s (it has failed for %" PRIu64 " ms and is not asked again at once)",
		   a->last_error, clock_mono_ms() - a->failing_since_ms);
	pthread_mutex_unlock(&f->pool->mutex);
	leave_queue(f);
	fetch_end(f, DB_UNAVAILABLE, &em);
}

/* The address fails: those stay that the next look comes early enough for. While somebody looks all do. */
static void refuse_impatient(struct remote_address *a, uint64_t now_ms)
{
	uint64_t next_ms = backoff_next_ms(&a->backoff);
	struct remote_fetch *f, *next;

	for (f = TAILQ_FIRST(&a->queue); f != NULL; f = next) {
		next = TAILQ_NEXT(f, listed);
		if (f->at_once)
			continue;
		if (f->patient_till_ms == 0)
			f->patient_till_ms = now_ms + REMOTE_PATIENCE_MS;
		if (!a->backoff.probing && (next_ms > f->patient_till_ms || next_ms >= f->deadline_ms))
			fetch_refuse(f);
	}
}

static void arm(struct event *timer, uint64_t now_ms, uint64_t at_ms)
{
	uint64_t left_ms = at_ms > now_ms ? at_ms - now_ms : 0;
	const struct timeval delay = {(time_t)(left_ms / 1000), (suseconds_t)(left_ms % 1000 * 1000)};

	event_add(timer, &delay); /* fails only when memory is short: then deadlines do what it would have done */
}

static bool has_room(const struct remote_address *a, const struct remote_fetch *f)
{
	return a->in_flight < a->pool->options.max_connections + f->level; /* (2) */
}

/* The address fails, and some do not mind. */
static void let_bold_go(struct remote_address *a)
{
	struct remote_fetch *f, *next;

	for (f = TAILQ_FIRST(&a->queue); f != NULL && has_room(a, f); f = next) {
		next = TAILQ_NEXT(f, listed);
		if (!f->at_once)
			continue;
		leave_queue(f);
		fetch_go(f);
	}
}

/* Lets those go that may. */
static void address_advance(struct remote_address *a)
{
	struct remote_pool *p = a->pool;
	uint64_t now_ms = clock_mono_ms();
	struct remote_fetch *f;
	bool blocked = false, probe;

	while (!p->ended && (f = TAILQ_FIRST(&a->queue)) != NULL && has_room(a, f)) {
		blocked = !backoff_may_go(&a->backoff, now_ms, &probe);
		if (blocked)
			break;
		f->is_probe = probe;
		leave_queue(f);
		fetch_go(f);
	}
	if (!blocked)
		return;
	let_bold_go(a);
	refuse_impatient(a, now_ms);
	if (!TAILQ_EMPTY(&a->queue))
		arm(a->timer, now_ms, backoff_next_ms(&a->backoff));
}

static void on_address_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	address_advance(arg);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct remote_fetch *f = arg;

	(void)fd;
	(void)what;
	if (backoff_is_failing(&f->at->backoff) && !f->at_once) {
		fetch_refuse(f);
		return;
	}
	leave_queue(f);
	fetch_end_with(f, DB_TIMEOUT, "no connection became free in time");
}

/* The deeper a request is nested the sooner it goes, for others wait for it; else in the order they came. */
static void insert_in_queue(struct remote_address *a, struct remote_fetch *f)
{
	struct remote_fetch *at = TAILQ_LAST(&a->queue, fetch_list);

	while (at != NULL && at->level < f->level)
		at = TAILQ_PREV(at, fetch_list, listed);
	if (at != NULL)
		TAILQ_INSERT_AFTER(&a->queue, at, f, listed);
	else
		TAILQ_INSERT_HEAD(&a->queue, f, listed);
}

static void enqueue(struct remote_fetch *f)
{
	struct remote_address *a = f->at;
	uint64_t now_ms = clock_mono_ms();

	f->timer = evtimer_new(f->pool->base, on_deadline, f);
	if (f->timer == NULL) {
		fetch_end_with(f, DB_NOMEM, "request: out of memory");
		return;
	}
	arm(f->timer, now_ms, f->deadline_ms);
	f->place = FETCH_QUEUED;
	insert_in_queue(a, f);
	a->queued++;
	f->pool->queued++;
	f->pool->waited++;
	if (has_room(a, f))
		address_advance(a); /* it fails: may it look, may it wait? */
}

static void fetch_begin(struct remote_fetch *f)
{
	struct remote_pool *p = f->pool;
	struct remote_address *a = address_get(p, f->address);
	const struct remote_fetch *first;

	p->requests++;
	f->at = a;
	if (a == NULL) {
		fetch_end_with(f, DB_NOMEM, "request: out of memory");
		return;
	}
	a->requests++;
	a->asked_ms = clock_mono_ms();
	first = TAILQ_FIRST(&a->queue);
	if (f->deadline_ms <= a->asked_ms)
		fetch_end_with(f, DB_TIMEOUT, "no time left for a request");
	else if (has_room(a, f) &&
		 (f->at_once || ((first == NULL || first->level < f->level) && !backoff_is_failing(&a->backoff))))
		fetch_go(f);
	else
		enqueue(f);
}

static void fetch_cancel(struct remote_fetch *f, const char *why)
{
	struct remote_address *a = f->at;

	switch (f->place) {
	case FETCH_NEW:
		fetch_end_with(f, DB_CLOSED, why);
		break;
	case FETCH_QUEUED:
		leave_queue(f);
		fetch_end_with(f, DB_CLOSED, why);
		advance_soon(a);
		break;
	case FETCH_RUNNING:
		http_call_cancel(f->call); /* on_end() */
		break;
	case FETCH_ENDED:
		break;
	}
}

/* ---- the loop */

static void serve(struct remote_fetch *f, unsigned posted)
{
	if ((posted & REMOTE_POST_CANCEL) != 0 || (f->pool->ended && f->place != FETCH_ENDED))
		fetch_cancel(f, "the request was cancelled");
	else if ((posted & REMOTE_POST_START) != 0)
		fetch_begin(f);
	else if (f->call != NULL)
		http_call_resume(f->call);
	remote_fetch_unref(f); /* the inbox's */
}

/* Serves what was posted. */
static void run_inbox(struct remote_pool *p)
{
	struct remote_fetch *f;
	unsigned posted;

	for (;;) {
		pthread_mutex_lock(&p->mutex);
		f = STAILQ_FIRST(&p->inbox);
		if (f == NULL) {
			pthread_mutex_unlock(&p->mutex);
			return;
		}
		STAILQ_REMOVE_HEAD(&p->inbox, in_inbox);
		posted = f->posted;
		f->posted = 0;
		pthread_mutex_unlock(&p->mutex);
		serve(f, posted);
	}
}

/* Nothing is started any more, and what is under way ends. */
static void end_all(struct remote_pool *p)
{
	struct remote_address *a;
	struct remote_fetch *f;

	p->ended = true;
	TAILQ_FOREACH(a, &p->addresses, listed)
	while ((f = TAILQ_FIRST(&a->queue)) != NULL)
		fetch_cancel(f, "this node is stopping");
	while ((f = TAILQ_FIRST(&p->under_way)) != NULL)
		fetch_cancel(f, "this node is stopping");
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
	struct remote_pool *p = arg;
	bool stopping, quit;

	(void)what;
	wake_clear(fd); /* before the inbox is emptied: a post in between wakes again */
	run_inbox(p);
	pthread_mutex_lock(&p->mutex);
	stopping = p->stopping;
	quit = p->quit;
	pthread_mutex_unlock(&p->mutex);
	if (stopping && !p->ended)
		end_all(p);
	if (quit)
		event_base_loopbreak(p->base);
}

static void *run(void *arg)
{
	struct remote_pool *p = arg;

	event_base_loop(p->base, EVLOOP_NO_EXIT_ON_EMPTY);
	return NULL;
}

/* ---- life */

static enum db_err create_loop(struct remote_pool *p, struct errmsg *em)
{
	const struct http_client_options client = {.max_connections = p->options.max_connections + REMOTE_LEVEL_MAX,
						   .connect_timeout_ms = p->options.connect_timeout_ms,
						   .idle_timeout_ms = p->options.idle_timeout_ms,
						   .tls_of = p->options.access != NULL ? remote_access_tls : NULL,
						   .tls_arg = p->options.access,
						   .on_connection = on_connection,
						   .arg = p};

	p->wake_fd = wake_create();
	if (p->wake_fd == -1)
		return errmsg_errno(em, errno, "eventfd");
	p->base = event_base_new();
	if (p->base == NULL)
		return errmsg_set(em, DB_NOMEM, "remote pool: out of memory");
	p->wake = event_new(p->base, p->wake_fd, EV_READ | EV_PERSIST, on_wake, p);
	p->flush = event_new(p->base, -1, 0, on_flush, p);
	if (p->wake == NULL || p->flush == NULL || event_add(p->wake, NULL) != 0)
		return errmsg_set(em, DB_NOMEM, "remote pool: out of memory");
	return http_client_create(&p->client, p->base, &client, em);
}

enum db_err remote_pool_create(struct remote_pool **out, const struct remote_pool_options *options, struct errmsg *em)
{
	struct remote_pool *p = calloc(1, sizeof(*p));
	enum db_err err;
	int rc;

	*out = NULL;
	if (p == NULL)
		return errmsg_set(em, DB_NOMEM, "remote pool: out of memory");
	p->options = *options;
	if (p->options.max_connections == 0)
		p->options.max_connections = 10;
	p->wake_fd = -1;
	pthread_mutex_init(&p->mutex, NULL);
	STAILQ_INIT(&p->inbox);
	STAILQ_INIT(&p->dirty);
	TAILQ_INIT(&p->addresses);
	TAILQ_INIT(&p->under_way);
	err = create_loop(p, em);
	if (err == DB_OK) {
		rc = pthread_create(&p->thread, NULL, run, p);
		p->has_thread = rc == 0;
		if (rc != 0)
			err = errmsg_errno(em, rc, "remote pool: thread");
	}
	if (err != DB_OK) {
		remote_pool_free(p);
		return err;
	}
	*out = p;
	return DB_OK;
}

static void tell_loop(struct remote_pool *p, bool quit)
{
	pthread_mutex_lock(&p->mutex);
	p->stopping = true;
	p->quit = p->quit || quit;
	pthread_mutex_unlock(&p->mutex);
	wake_up(p->wake_fd);
}

void remote_pool_stop(struct remote_pool *p)
{
	if (p != NULL)
		tell_loop(p, false);
}

void remote_pool_free(struct remote_pool *p)
{
	struct remote_address *a;

	if (p == NULL)
		return;
	if (p->has_thread) {
		tell_loop(p, true);
		pthread_join(p->thread, NULL);
		run_inbox(p); /* what was posted when the loop had ended */
		flush_dirty(p);
	}
	assert(atomic_load(&p->fetches) == 0);
	http_client_free(p->client); /* closes connections, which are counted in their addresses */
	while ((a = TAILQ_FIRST(&p->addresses)) != NULL)
		address_free(p, a);
	if (p->flush != NULL)
		event_free(p->flush);
	if (p->wake != NULL)
		event_free(p->wake);
	if (p->base != NULL)
		event_base_free(p->base);
	if (p->wake_fd != -1)
		close(p->wake_fd);
	pthread_mutex_destroy(&p->mutex);
	free(p);
}

/* ---- figures */

void remote_pool_get_counters(const struct remote_pool *p, struct remote_pool_counters *out)
{
	struct http_client_counters client;

	http_client_get_counters(p->client, &client);
	out->requests_total = atomic_load(&p->requests);
	out->failures_total = atomic_load(&p->failures);
	out->retries_total = client.resent_total;
	out->backoff_refusals_total = atomic_load(&p->refusals);
	out->waited_total = atomic_load(&p->waited);
	out->connections_opened_total = client.connections_opened_total;
	out->reused_total = client.reused_total;
	out->connections_open = client.connections_open;
	out->in_flight = atomic_load(&p->in_flight);
	out->queued = atomic_load(&p->queued);
}

static bool is_listed(const struct remote_address *a, uint64_t now_ms)
{
	return a->connections > 0 || a->in_flight > 0 || a->queued > 0 || now_ms < a->asked_ms + LISTED_MS;
}

/* The pool's thread may have set it a moment after we looked at the clock. */
static uint64_t ms_since(uint64_t then_ms, uint64_t now_ms)
{
	return now_ms > then_ms ? now_ms - then_ms : 0;
}

static void fill_address(struct remote_pool_address *out, const struct remote_address *a, uint64_t now_ms)
{
	uint64_t since_ms = atomic_load(&a->failing_since_ms);

	memcpy(out->address, a->name, sizeof(out->address));
	out->connections = atomic_load(&a->connections);
	out->in_flight = atomic_load(&a->in_flight);
	out->queued = atomic_load(&a->queued);
	out->requests_total = atomic_load(&a->requests);
	out->failures_total = atomic_load(&a->failures);
	out->asked_ms = ms_since(atomic_load(&a->asked_ms), now_ms);
	out->failing = since_ms != 0;
	out->failing_ms = since_ms != 0 ? ms_since(since_ms, now_ms) : 0;
	memcpy(out->last_error, a->last_error, sizeof(out->last_error));
}

size_t remote_pool_get_addresses(struct remote_pool *p, struct remote_pool_address *out, size_t max)
{
	struct remote_address *a;
	size_t count = 0;
	uint64_t now_ms;

	pthread_mutex_lock(&p->mutex);
	now_ms = clock_mono_ms();
	TAILQ_FOREACH(a, &p->addresses, listed)
	if (count < max && is_listed(a, now_ms))
		fill_address(&out[count++], a, now_ms);
	pthread_mutex_unlock(&p->mutex);
	return count;
}

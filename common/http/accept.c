/*
 * accept.c - who accepts, and when: one worker's listeners, and how all workers agree on them.
 *
 * Every worker has an evconnlistener of its own over each shared listening socket. It accepts one connection a turn of
 * its loop and then looks around: a worker with more connections than another lets that one go first for a moment. At
 * connections_max it closes a connection of its own that is of no use (conn.c says which) for each one that it takes;
 * when there is none, all stop until a connection is closed or has become of no use, and new ones wait in the backlog.
 * As workers accept independently, up to worker_count connections more than the limit may be taken.
 *
 * What is wanted of each listener is kept in the server under accept_lock with a generation; each worker applies it on
 * its own thread and notes the generation. A worker that waits for the others keeps applying itself, so that two
 * workers that change listeners at once do not wait for each other.
 */
#include "common/http/internal.h"

#include <errno.h>
#include <string.h>

#include "common/base/log.h"

#define GIVE_WAY_US 1000

void http_accept_show(struct http_worker *w)
{
	size_t i;

	for (i = 0; i < HTTP_LISTENERS_MAX; i++) {
		if (w->listeners[i] == NULL)
			continue;
		if (w->listening[i] && !w->paused)
			evconnlistener_enable(w->listeners[i]);
		else
			evconnlistener_disable(w->listeners[i]);
	}
}

void http_accept_pause(struct http_worker *w)
{
	w->paused = true;
	http_accept_show(w);
}

static void resume(struct http_worker *w)
{
	w->paused = false;
	http_accept_show(w);
}

static void run_resume(struct http_task *task)
{
	resume((struct http_worker *)((char *)task - offsetof(struct http_worker, resume_task)));
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	resume(arg);
}

static void resume_after(struct http_worker *w, suseconds_t us)
{
	struct timeval delay = {0, us};

	event_add(w->resume_event, &delay);
}

/* accept() failed, most likely for want of descriptors. The socket stays readable, so trying on would only spin: the
 * listener rests until the next sweep. */
static void on_accept_error(struct evconnlistener *listener, void *http)
{
	int saved_errno = errno;

	(void)http;
	evconnlistener_disable(listener);
	log_warn("http cannot accept: %s", strerror(saved_errno));
}

static unsigned least_connections(const struct http_server *s)
{
	unsigned i, n, least = UINT32_MAX;

	for (i = 0; i < s->worker_count; i++) {
		n = atomic_load_explicit(&s->workers[i].connections, memory_order_relaxed);
		if (n < least)
			least = n;
	}
	return least;
}

void http_accept_after(struct http_worker *w)
{
	struct http_server *s = w->server;

	if (atomic_load(&s->connections) >= s->options.connections_max && !http_conn_can_evict(w)) {
		atomic_store(&w->full, true);
		/* A connection may have been closed between the two; whoever resets the flag resumes. */
		if (atomic_load(&s->connections) >= s->options.connections_max || !atomic_exchange(&w->full, false))
			return;
	}
	if (atomic_load_explicit(&w->connections, memory_order_relaxed) > least_connections(s) + 1)
		resume_after(w, GIVE_WAY_US);
	else
		resume(w);
}

/* Time has passed: who was busy may be idle now, and make room for whoever comes. */
void http_accept_make_room(struct http_worker *w)
{
	if (atomic_load(&w->full) && http_conn_can_evict(w) && atomic_exchange(&w->full, false))
		resume(w);
}

void http_accept_slot_freed(struct http_server *s)
{
	unsigned i;

	for (i = 0; i < s->worker_count; i++)
		if (atomic_load(&s->workers[i].full) && atomic_exchange(&s->workers[i].full, false))
			http_worker_post(&s->workers[i], &s->workers[i].resume_task);
}

/* accept_lock held, w's thread. */
static void apply(struct http_worker *w)
{
	const unsigned flags = LEV_OPT_DISABLED | LEV_OPT_CLOSE_ON_EXEC;
	struct http_server *s = w->server;
	struct evconnlistener *listener;
	unsigned i;

	for (i = 0; i < s->listener_count; i++) {
		if (w->listeners[i] == NULL) {
			listener = evconnlistener_new(w->base, NULL, NULL, flags, 0, s->listeners[i].fd);
			if (listener != NULL && evhttp_bind_listener(w->http, listener) == NULL) {
				evconnlistener_free(listener);
				listener = NULL;
			}
			if (listener == NULL) {
				s->listen_err = DB_NOMEM;
				continue;
			}
			evconnlistener_set_error_cb(listener, on_accept_error);
			w->listeners[i] = listener; /* evhttp frees it */
		}
		w->listening[i] = s->listeners[i].accepting;
	}
	http_accept_show(w);
	w->applied_generation = s->generation;
	pthread_cond_broadcast(&s->accept_cond);
}

static void run_accept(struct http_task *task)
{
	struct http_worker *w = (struct http_worker *)((char *)task - offsetof(struct http_worker, accept_task));

	pthread_mutex_lock(&w->server->accept_lock);
	w->accept_posted = false;
	apply(w);
	pthread_mutex_unlock(&w->server->accept_lock);
}

void http_accept_sync(struct http_server *s)
{
	struct http_worker *w, *self = NULL;
	uint64_t generation = ++s->generation;
	unsigned i, behind;

	for (i = 0; i < s->worker_count; i++) {
		w = &s->workers[i];
		if (http_worker_is_self(w)) {
			self = w;
		} else if (!w->accept_posted) {
			w->accept_posted = true;
			http_worker_post(w, &w->accept_task);
		}
	}
	for (;;) {
		if (self != NULL && self->applied_generation != s->generation)
			apply(self);
		for (i = 0, behind = 0; i < s->worker_count; i++)
			behind += s->workers[i].applied_generation < generation;
		if (behind == 0)
			return;
		pthread_cond_wait(&s->accept_cond, &s->accept_lock);
	}
}

enum db_err http_accept_init(struct http_worker *w, struct errmsg *em)
{
	w->accept_task.run = run_accept;
	w->resume_task.run = run_resume;
	w->resume_event = evtimer_new(w->base, on_resume, w);
	if (w->resume_event == NULL)
		return errmsg_set(em, DB_NOMEM, "events of an HTTP worker: out of memory");
	return DB_OK;
}

void http_accept_fini(struct http_worker *w)
{
	if (w->resume_event != NULL)
		event_free(w->resume_event);
	w->resume_event = NULL;
	memset(w->listeners, 0, sizeof(w->listeners));
}

/*
 * server.c - the server as its owner sees it: options, workers, listeners, stopping, counters.
 *
 * Runs on the owner's thread, except http_server_set_accepting() and http_server_get_counters(), which any thread may
 * call.
 */
#include "common/http/server.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/http/internal.h"

static void fill_defaults(struct http_options *o)
{
	if (o->worker_count == 0)
		o->worker_count = 2;
	if (o->body_bytes_max == 0)
		o->body_bytes_max = 16u << 20;
	if (o->header_bytes_max == 0)
		o->header_bytes_max = 16u << 10;
	if (o->connections_max == 0)
		o->connections_max = 4096;
	if (o->requests_bytes_max == 0)
		o->requests_bytes_max = (size_t)256 << 20;
	if (o->request_timeout_ms == 0)
		o->request_timeout_ms = 10000;
	if (o->idle_timeout_ms == 0)
		o->idle_timeout_ms = 60000;
}

static void join_workers(struct http_server *s)
{
	unsigned i;

	for (i = 0; i < s->worker_count; i++)
		http_worker_post(&s->workers[i], &s->workers[i].quit_task);
	for (i = 0; i < s->worker_count; i++)
		http_worker_join(&s->workers[i]);
}

static void destroy(struct http_server *s)
{
	pthread_cond_destroy(&s->accept_cond);
	pthread_mutex_destroy(&s->accept_lock);
	pthread_mutex_destroy(&s->throttle_lock);
	pthread_mutex_destroy(&s->failures_lock);
	throttle_free(s->throttle);
	http_addresses_free(s->addresses);
	free(s->workers);
	free(s);
}

enum db_err http_server_create(struct http_server **out, const struct http_options *options, struct errmsg *em)
{
	struct http_server *s = calloc(1, sizeof(*s));
	uint64_t seed = 0;
	enum db_err err;
	unsigned i;

	*out = NULL;
	if (s == NULL)
		return errmsg_set(em, DB_NOMEM, "HTTP server: out of memory");
	s->options = *options;
	fill_defaults(&s->options);
	pthread_mutex_init(&s->throttle_lock, NULL);
	pthread_mutex_init(&s->accept_lock, NULL);
	pthread_cond_init(&s->accept_cond, NULL);
	pthread_mutex_init(&s->failures_lock, NULL);
	err = http_trace_init(s, em);
	if (err != DB_OK)
		goto destroy;
	s->workers = calloc(s->options.worker_count, sizeof(*s->workers));
	if (getentropy(&seed, sizeof(seed)) == 0)
		s->throttle = throttle_create(seed);
	s->addresses = http_addresses_create(seed);
	if (s->workers == NULL || s->throttle == NULL || s->addresses == NULL) {
		err = errmsg_set(em, DB_NOMEM, "HTTP server: out of memory");
		goto destroy;
	}
	for (i = 0; i < s->options.worker_count; i++) {
		err = http_worker_start(&s->workers[i], s, i, em);
		if (err != DB_OK)
			goto join;
		s->worker_count = i + 1;
	}
	*out = s;
	return DB_OK;
join:
	join_workers(s);
destroy:
	destroy(s);
	return err;
}

/* What evhttp_bind_listener() would trip over later is refused here. */
static enum db_err check_socket(int fd, struct errmsg *em)
{
	struct sockaddr_storage address = {0};
	socklen_t len = sizeof(address);
	int on = 1;

	if (getsockname(fd, (struct sockaddr *)&address, &len) != 0)
		return errmsg_errno(em, errno, "HTTP listener");
	if (address.ss_family != AF_INET && address.ss_family != AF_INET6)
		return errmsg_set(em, DB_INVALID, "HTTP listener: not an IPv4 or IPv6 socket");
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) /* accepted sockets inherit it */
		return errmsg_errno(em, errno, "HTTP listener: TCP_NODELAY");
	return DB_OK;
}

enum db_err http_server_listen(struct http_server *s, int fd, bool accepting, int *listener, struct errmsg *em)
{
	enum db_err err = check_socket(fd, em);

	if (err != DB_OK)
		return err;
	pthread_mutex_lock(&s->accept_lock);
	if (s->listener_count == HTTP_LISTENERS_MAX) {
		pthread_mutex_unlock(&s->accept_lock);
		return errmsg_set(em, DB_FULL, "an HTTP server has at most %d listeners", HTTP_LISTENERS_MAX);
	}
	*listener = (int)s->listener_count;
	s->listeners[s->listener_count].fd = fd;
	s->listeners[s->listener_count].accepting = accepting;
	s->listener_count++;
	http_accept_sync(s);
	err = s->listen_err;
	pthread_mutex_unlock(&s->accept_lock);
	return err == DB_OK ? DB_OK : errmsg_set(em, err, "HTTP listener: out of memory");
}

void http_server_set_accepting(struct http_server *s, int listener, bool accepting)
{
	pthread_mutex_lock(&s->accept_lock);
	assert(listener >= 0 && (unsigned)listener < s->listener_count);
	s->listeners[listener].accepting = accepting && !s->stopped;
	http_accept_sync(s);
	pthread_mutex_unlock(&s->accept_lock);
}

static bool all_drained(const struct http_server *s)
{
	unsigned i;

	for (i = 0; i < s->worker_count; i++)
		if (!s->workers[i].drained)
			return false;
	return true;
}

static void wait_drained(struct http_server *s, uint64_t deadline_ms)
{
	pthread_mutex_lock(&s->accept_lock);
	while (!all_drained(s) && clock_wait(&s->accept_cond, &s->accept_lock, deadline_ms * 1000))
		;
	pthread_mutex_unlock(&s->accept_lock);
}

void http_server_stop(struct http_server *s, uint64_t grace_ms)
{
	uint64_t deadline_ms = clock_mono_ms() + grace_ms;
	unsigned i;

	pthread_mutex_lock(&s->accept_lock);
	if (s->stopped) {
		pthread_mutex_unlock(&s->accept_lock);
		return;
	}
	s->stopped = true;
	for (i = 0; i < s->listener_count; i++)
		s->listeners[i].accepting = false;
	http_accept_sync(s);
	pthread_mutex_unlock(&s->accept_lock);

	for (i = 0; i < s->worker_count; i++)
		http_worker_post(&s->workers[i], &s->workers[i].drain_task);
	wait_drained(s, deadline_ms);
	for (i = 0; i < s->worker_count; i++)
		http_worker_post(&s->workers[i], &s->workers[i].close_task);
	pthread_mutex_lock(&s->accept_lock);
	while (!all_drained(s))
		pthread_cond_wait(&s->accept_cond, &s->accept_lock);
	pthread_mutex_unlock(&s->accept_lock);
}

void http_server_free(struct http_server *s)
{
	if (s == NULL)
		return;
	http_server_stop(s, 0);
	pthread_mutex_lock(&s->accept_lock);
	while (s->streams > 0) /* their clients are gone: producers learn it with their next write */
		pthread_cond_wait(&s->accept_cond, &s->accept_lock);
	pthread_mutex_unlock(&s->accept_lock);
	join_workers(s);
	destroy(s);
}

void http_server_get_counters(struct http_server *s, struct http_counters *out)
{
	const struct http_counts *c;
	unsigned i, class;

	memset(out, 0, sizeof(*out));
	for (i = 0; i < s->worker_count; i++) {
		c = &s->workers[i].counts;
		out->connections_open += atomic_load_explicit(&c->connections_open, memory_order_relaxed);
		out->connections_total += atomic_load_explicit(&c->connections_total, memory_order_relaxed);
		out->requests_total += atomic_load_explicit(&c->requests_total, memory_order_relaxed);
		out->requests_in_flight += atomic_load_explicit(&c->requests_in_flight, memory_order_relaxed);
		out->connections_evicted_total +=
		    atomic_load_explicit(&c->connections_evicted_total, memory_order_relaxed);
		out->connections_refused_total +=
		    atomic_load_explicit(&c->connections_refused_total, memory_order_relaxed);
		out->auth_failures_total += atomic_load_explicit(&c->auth_failures_total, memory_order_relaxed);
		out->auth_delayed_total += atomic_load_explicit(&c->auth_delayed_total, memory_order_relaxed);
		out->auth_refused_total += atomic_load_explicit(&c->auth_refused_total, memory_order_relaxed);
		for (class = 0; class < 6; class ++)
			out->replies_by_class[class] +=
			    atomic_load_explicit(&c->replies_by_class[class], memory_order_relaxed);
	}
}

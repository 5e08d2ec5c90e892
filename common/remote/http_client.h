/*
 * http_client.h - the one way out: HTTP requests to other nodes, pooled and kept alive.
 *
 * libcurl's multi interface driven by the libevent loop of the thread that created it; everything here, callbacks
 * included, runs on that thread. At most max_connections per remote address; requests beyond it queue, in order, until
 * their deadline. A node has one, behind the pool of the process: remote_pool.h.
 */
#ifndef GRIZZLY_COMMON_REMOTE_HTTP_CLIENT_H
#define GRIZZLY_COMMON_REMOTE_HTTP_CLIENT_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/remote/client_tls.h"

struct http_client;
struct http_call;

struct http_client_options {
	unsigned max_connections;    /* per remote address; 0: 10 */
	uint64_t connect_timeout_ms; /* 0: 1000 */
	uint64_t idle_timeout_ms;    /* an unused connection is closed; 0: 60000 */
	/* Told of each connection that is opened (made or not) and closed, the last ones by http_client_free(). NULL: not. */
	void (*on_connection)(void *arg, const char *address, bool opened);
	void *arg;
	/* Fills *tls, which is all zero, for a call to address; member: see struct http_call_request. NULL: never TLS. */
	void (*tls_of)(const void *arg, const char *address, bool member, struct client_tls *tls);
	const void *tls_arg;
};

struct http_client_counters {
	uint64_t requests_total, failures_total, connections_opened_total, reused_total, waited_total;
	uint64_t resent_total; /* repeatable ones whose kept connection had been closed */
	uint64_t connections_open, in_flight, queued;
};

/* Once per process, before threads. */
enum db_err http_client_init_library(struct errmsg *em);

enum db_err http_client_create(struct http_client **out, struct event_base *base,
			       const struct http_client_options *options, struct errmsg *em);
void http_client_free(struct http_client *c); /* NULL is fine; calls under way end with DB_CLOSED */
/* Any thread. */
void http_client_get_counters(const struct http_client *c, struct http_client_counters *out);

struct http_call_request {
	const char *address;        /* "host:port"; copied */
	const char *path;           /* "/query"; copied */
	const char *bearer_token;   /* NULL: none; copied, never logged */
	const char *const *headers; /* "Name: value", NULL-terminated; NULL: none; copied */
	const void *body;           /* NULL: a GET; otherwise a POST; copied */
	size_t body_len;
	uint64_t deadline_ms; /* clock_mono_ms(); covers queueing too */
	/* To do it twice does no harm: it is sent again when a kept connection turns out to have been closed before a byte
	 * of an answer came. A GET always is. */
	bool repeatable;
	bool member; /* address is one of this cluster's own */
};

struct http_call_handler {
	/* The status line and headers have come (the final ones). content_type is borrowed, "" when absent. NULL: not told. */
	void (*on_head)(void *arg, int status, const char *content_type);
	/* A piece of the body. Return false to pause: nothing more comes until http_call_resume(), and the same piece is
	 * offered again. */
	bool (*on_body)(void *arg, const void *bytes, size_t len);
	/* Exactly once, last: DB_OK (whole answer came, whatever its status), DB_UNAVAILABLE (refused, unresolved or broken
	 * before the request was sent: safe to try again), DB_IO (broken later: the outcome is unknown), DB_TIMEOUT,
	 * DB_CLOSED. The call is gone afterwards. */
	void (*on_end)(void *arg, enum db_err err, const struct errmsg *em);
	void *arg;
};

/* DB_OK: *call lives until on_end has been called. Otherwise nothing was started and on_end is not called. */
enum db_err http_call_start(struct http_call **call, struct http_client *c, const struct http_call_request *request,
			    const struct http_call_handler *handler, struct errmsg *em);
void http_call_resume(struct http_call *call);
void http_call_cancel(struct http_call *call); /* on_end is called with DB_CLOSED before this returns */

#endif

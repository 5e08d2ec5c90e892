/*
 * server.h - the HTTP front: worker threads with an event loop each, sharing the listening sockets.
 *
 * Built on libevent's evhttp. Every worker owns an event_base (epoll changelist), an evhttp and an inbox that other
 * threads post to. It knows routes, limits, tokens and how to reply; it knows no SQL and no role.
 * A handler runs on its worker's thread and either replies at once or keeps the request and replies later, on the same
 * worker (other threads get there with http_worker_post()). A request stays valid until it is replied to, even when
 * its client has gone: a reply to nobody is dropped.
 */
#ifndef GRIZZLY_COMMON_HTTP_SERVER_H
#define GRIZZLY_COMMON_HTTP_SERVER_H

#include <event2/event.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/auth/auth.h"
#include "common/auth/tls.h"
#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/query/answer.h"

struct http_server;
struct http_worker;
struct http_request;

enum http_method { HTTP_GET = 1, HTTP_POST = 2, HTTP_HEAD = 4, HTTP_OTHER = 8 };

enum http_access {
	HTTP_OPEN,          /* no token asked */
	HTTP_TOKEN,         /* Authorization: Bearer must match, checked before the handler runs */
	HTTP_TOKEN_OR_BODY, /* the header is checked when present; when absent the handler checks the body's token itself */
};

struct http_route {
	const char *path; /* exact, or what begins so when it ends with '*' */
	unsigned methods; /* enum http_method values or-ed; others get METHOD_NOT_ALLOWED */
	enum http_access access;
	enum auth_role role;                                 /* with HTTP_TOKEN: the least that the token must allow */
	void (*handle)(void *arg, struct http_request *req); /* arg: http_options.arg */
};

struct http_options {
	unsigned worker_count;            /* 0: 2 */
	size_t body_bytes_max;            /* 0: 16 MiB; more: TOO_LARGE 413 */
	size_t header_bytes_max;          /* 0: 16 KiB */
	unsigned connections_max;         /* all workers together; 0: 4096; beyond it see accept.c */
	unsigned address_connections_max; /* of one client address; 0: no limit but the one above */
	size_t requests_bytes_max;   /* of bodies larger than 64 KiB that are here; 0: 256 MiB; more: OVERLOADED 429 */
	uint64_t request_timeout_ms; /* from the first byte of a request to its last; 0: 10 s */
	uint64_t idle_timeout_ms;    /* kept-alive connection without a request; 0: 60 s */
	struct tls_server *tls;      /* borrowed, outlives the server; every listener speaks TLS. NULL: none does */
	const char *name;  /* begins the ids of requests that have none, 20 bytes of it; borrowed; NULL: "http" */
	struct auth *auth; /* borrowed, outlives the server; NULL: no token is valid */
	const struct http_route *routes; /* borrowed; ends with path NULL */
	void *arg;                       /* handed to handlers and hooks */
	/* Called on the worker's thread when it starts and ends; *data is then http_worker_data(). NULL: none. */
	enum db_err (*worker_start)(void *arg, struct http_worker *worker, void **data, struct errmsg *em);
	void (*worker_stop)(void *arg, struct http_worker *worker, void *data);
};

/* Starts the workers; nothing is accepted until http_server_listen(). On error *out is NULL. */
enum db_err http_server_create(struct http_server **out, const struct http_options *options, struct errmsg *em);
/* Adds a bound, listening, non-blocking socket, at most 4; it stays the caller's to close, after http_server_free().
 * *listener names it for http_server_set_accepting(). */
enum db_err http_server_listen(struct http_server *s, int fd, bool accepting, int *listener, struct errmsg *em);
/* Starts or stops accepting on one listener; connections made before live on. Any thread; done when it returns. */
void http_server_set_accepting(struct http_server *s, int listener, bool accepting);
/* Stops accepting, answers what is being answered (for at most grace_ms), closes idle connections. Then free. */
void http_server_stop(struct http_server *s, uint64_t grace_ms);
/* NULL is fine; stops first when that was not done. Waits until every stream was ended by its producer; other requests
 * must have been replied to before, or are lost. */
void http_server_free(struct http_server *s);

struct http_counters {
	uint64_t connections_open, connections_total, requests_total, requests_in_flight;
	uint64_t replies_by_class[6];       /* index 2: 2xx … 5: 5xx */
	uint64_t connections_evicted_total; /* idle or slow ones, closed to make room for others */
	uint64_t connections_refused_total; /* with 429, for their address had too many */
	uint64_t auth_failures_total;       /* requests without a valid token */
	uint64_t auth_delayed_total;        /* of these: answered late, for there were many from that address */
	uint64_t auth_refused_total;        /* of these: answered with 429, for too many were waiting */
};
void http_server_get_counters(struct http_server *s, struct http_counters *out);

/* Workers. */
void *http_worker_data(const struct http_worker *w);
struct event_base *http_worker_base(const struct http_worker *w);
/* One posted call. Embed it in what you post: no allocation, it must live until run() is called. */
struct http_task {
	struct http_task *next; /* private */
	void (*run)(struct http_task *task);
};
/* Runs task on w's thread soon; any thread. Tasks posted together cause one wake-up. */
void http_worker_post(struct http_worker *w, struct http_task *task);

/* Requests; on the worker's thread. */
struct http_worker *http_request_worker(const struct http_request *req);
const void *http_request_body(struct http_request *req, size_t *len); /* contiguous, borrowed until the reply */
const char *http_request_header(const struct http_request *req, const char *name); /* NULL: absent */
const char *http_request_path(const struct http_request *req);
const char *http_request_method_name(const struct http_request *req);
bool http_request_authorized(const struct http_request *req);     /* its token is valid: the header's, or see below */
enum auth_role http_request_role(const struct http_request *req); /* what it allows; AUTH_NONE: not authorized */
const char *http_request_bearer(const struct http_request *req);  /* the header's token; NULL: none */
/* Checks a token that came in the body instead; false: it is not valid, and the request is not authorized. */
bool http_request_authenticate(struct http_request *req, const char *token);
uint64_t http_request_started_us(const struct http_request *req); /* clock_mono_us() when it was complete */
#define HTTP_REQUEST_ID_HEADER "X-Request-Id"
/* What it is called in logs, here and on every node that takes part, and in the answer: 1 to QUERY_REQUEST_ID_MAX bytes as
 * query_request_id_ok() has them. Its own until the reply. */
const char *http_request_id(const struct http_request *req);
/* The name that its body gives it; one that is not as above is ignored. */
void http_request_set_id(struct http_request *req, const char *id);
/* For the audit log: 'token "shop" from 127.0.0.1', 'the first token from ::1'. Cut at size. */
void http_request_put_client(const struct http_request *req, char *out, size_t size);
/* Becomes true when the client has gone; may be read by any thread while the request lives. */
const atomic_bool *http_request_gone(const struct http_request *req);

void http_reply_add_header(struct http_request *req, const char *name, const char *value); /* before the reply */
/* Each of these ends the request: req must not be used afterwards. body's content is taken (left cleared). */
void http_reply(struct http_request *req, int status, const char *content_type, struct buf *body);
void http_reply_error(struct http_request *req, const struct query_error *error);
/* 401, counted as an authentication failure: for a handler that found a wrong token in the body. */
void http_reply_unauthorized(struct http_request *req);

/* A long answer written with back-pressure, by another thread or from the worker's own loop. */
struct http_stream;
/* On the worker's thread: turns the request into a stream; req must not be used afterwards except through it. Nothing is
 * sent until the first write. A Content-Length added before with http_reply_add_header() is kept to by the producer, and
 * replaces the chunks: so many bytes come, or the stream is broken. */
enum db_err http_stream_create(struct http_stream **out, struct http_request *req, int status,
			       const char *content_type);
/* Producer's thread: hands over a piece (b is left cleared), blocks while more than 256 KiB wait to be sent.
 * DB_CLOSED: the client has gone. DB_TIMEOUT: the client has taken nothing for stall_ms. */
enum db_err http_stream_write(struct http_stream *st, struct buf *b, uint64_t stall_ms);
/* Any thread, while the producer has not ended the stream: the client is not served on. The connection is closed, a write
 * under way returns with DB_TIMEOUT, and so does every later one. */
void http_stream_give_up(struct http_stream *st);
/* For a producer on the stream's own worker, which must never wait: takes a copy of bytes. DB_BUSY: more than 256 KiB wait,
 * nothing was taken. DB_CLOSED: the client has gone. DB_NOMEM. */
enum db_err http_stream_try_write(struct http_stream *st, const void *bytes, size_t len);
/* Such a producer is called, on the worker's thread and from its loop: after a DB_BUSY when there is room again, and once
 * when the client has gone. Not after it has ended the stream. */
void http_stream_set_wakeup(struct http_stream *st, void (*wakeup)(void *arg), void *arg);
/* For how long the client has taken nothing of what waits for it; 0: nothing waits. */
uint64_t http_stream_stalled_ms(struct http_stream *st);
/* Producer's thread: ends it and frees st. whole: false closes the connection without the final chunk, so that no client
 * takes it for complete. */
void http_stream_end(struct http_stream *st, bool whole);
/* Producer's thread: instead of any write, answers with an error in the usual shape, and frees st. */
void http_stream_error(struct http_stream *st, const struct query_error *error);
const atomic_bool *http_stream_gone(const struct http_stream *st);

#endif

/*
 * internal.h - what the files of the HTTP server share: server, worker, connection, request, stream.
 *
 * A worker and all below it belong to the worker's thread; what other threads touch is atomic, or named here with its
 * lock. For no other room.
 */
#ifndef GRIZZLY_COMMON_HTTP_INTERNAL_H
#define GRIZZLY_COMMON_HTTP_INTERNAL_H

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <pthread.h>
#include <event2/keyvalq_struct.h>
#include <stdatomic.h>

#include "common/auth/throttle.h"
#include "common/http/addresses.h"
#include "common/http/frame.h"
#include "common/http/inbox.h"
#include "common/http/server.h"
#include "common/query/request.h"

#define HTTP_LISTENERS_MAX      4
#define HTTP_HOLD               SIZE_MAX /* read watermark that keeps evhttp from its input */
#define HTTP_STREAM_PENDING_MAX (256u * 1024u)
#define HTTP_COPY_MAX           2048u       /* replies up to this are copied, longer ones referenced */
#define HTTP_LINGER_MS          2000u       /* how long a refused client's bytes are thrown away… */
#define HTTP_LINGER_BYTES_MAX   (64u << 20) /* …and how many of them */
#define HTTP_SMALL_BODY_MAX     65536u      /* smaller bodies are not counted: connections_max bounds them */
#define HTTP_EVICT_MS           1000u       /* who has been idle or sending for less is not closed to make room */
#define HTTP_TAKE_MIN           65536u      /* what a client must take of its answer in idle_timeout_ms */
#define HTTP_RETRY_AFTER_S      "1"         /* with each 429 */

enum http_conn_state {
	CONN_READING, /* waiting for a request, or in the middle of one; the frame says which */
	CONN_READY,   /* a whole request lies in the input, evhttp is to parse it in this turn of the loop */
	CONN_PENDING, /* a handler has the request */
	CONN_WRITING, /* the reply was handed to evhttp, not all of it is sent */
	CONN_REFUSED, /* taken away from evhttp: our own last words are being sent */
	CONN_LINGER,  /* they are sent, we wait for the client to close */
};

/* One connection; freed from evhttp's close callback and nowhere else. */
struct http_conn {
	struct http_worker *worker;
	struct bufferevent *bev;         /* evhttp's; ours is a reference while fresh */
	SSL *ssl;                        /* the bufferevent's; NULL: without TLS */
	struct evhttp_connection *evcon; /* NULL while fresh */
	struct evbuffer_cb_entry *input_cb;
	struct evbuffer_cb_entry *output_cb; /* while a stream is being written */
	struct http_conn *next, *prev;       /* the worker's connections, idle for the longest last */
	struct http_address *address;        /* NULL: not known */
	struct http_conn *next_fresh;
	struct http_conn *next_held;
	struct http_conn *next_ready, **at_ready; /* worker's list of whole requests; at_ready NULL: not on it */
	struct http_conn *next_flush, **at_flush; /* worker's list of replies to write; at_flush NULL: not on it */
	struct http_request *req;                 /* CONN_PENDING: the handler's; else NULL */
	struct http_frame frame;
	struct auth_memo memo; /* of the token it sent last */
	struct evbuffer *held; /* bytes of the next request, put back when evhttp is ready for it */
	enum http_conn_state state;
	bool is_held;
	bool wrote_bad;       /* our last words break off: close with a reset */
	size_t body_bytes;    /* of the request that is arriving, as counted in the server's body_bytes */
	size_t lingered;      /* bytes thrown away since it was refused */
	bool saw_eof;         /* the client has sent all it will, but may still be reading our last words */
	uint64_t since_ms;    /* of state, or of the request's first byte */
	size_t output_seen;   /* bytes of output that waited at progress_ms */
	uint64_t tls_seen;    /* what TLS had written by then */
	uint64_t progress_ms; /* when HTTP_TAKE_MIN had been taken for the last time */
};

struct http_listener {
	int fd;
	bool accepting; /* wanted; under server->accept_lock */
};

struct http_counts {
	atomic_uint_fast64_t connections_open, connections_total, requests_total, requests_in_flight;
	atomic_uint_fast64_t replies_by_class[6];
	atomic_uint_fast64_t connections_evicted_total, connections_refused_total;
	atomic_uint_fast64_t auth_failures_total, auth_delayed_total, auth_refused_total;
};

struct http_worker {
	struct http_server *server;
	unsigned index;
	pthread_t thread; /* as its creator knows it */
	pthread_t self;   /* the same, as it knows itself; set before `started` */
	bool started;     /* under server->accept_lock */
	struct event_base *base;
	struct evhttp *http;
	struct http_inbox inbox;
	struct event *inbox_event;
	struct http_task *local_first, **local_last; /* posted by this thread itself */
	struct event *local_event;                   /* timer of 0 */
	struct event *sweep_event;
	struct event *fresh_event;
	struct event *ready_event; /* made active by hand, as the next: they run after the events of this turn */
	struct event *flush_event;
	struct event *delayed_event;  /* timer: the first of delayed is due */
	struct http_request *delayed; /* auth.c; by due_ms */
	struct event *resume_event;   /* accept again after a pause */
	struct http_task accept_task, drain_task, close_task, quit_task;
	struct evconnlistener *listeners[HTTP_LISTENERS_MAX];
	bool listening[HTTP_LISTENERS_MAX]; /* wanted, as applied last */
	bool accepted;                      /* in this turn; http_accept_after() is due */
	bool paused;                        /* not accepting for now, whatever is wanted */
	atomic_bool full;                   /* paused because of connections_max; any thread */
	struct http_task resume_task;
	bool accept_posted;          /* accept_task is on its way; under server->accept_lock */
	uint64_t applied_generation; /* under server->accept_lock */
	bool drained;                /* under server->accept_lock: no connection is left after a stop */
	struct http_conn *conns;     /* all but fresh ones */
	struct http_conn *conns_last;
	struct http_conn *fresh;
	struct http_conn *held, **held_last;
	struct http_conn *ready, **ready_last; /* whose requests run after the events of this turn */
	struct http_conn *parsing;             /* whose request evhttp is parsing right now */
	struct http_conn *flush;               /* replies written at the end of this turn */
	bool draining;
	void *data;
	uint64_t now_ms;  /* of the last sweep */
	uint64_t date_ms; /* of date; a Date header is made once a second */
	char date[40];
	uint64_t trace_count; /* requests that were named here */
	enum db_err start_err;
	struct errmsg start_em;
	struct http_counts counts;
	atomic_uint connections; /* this worker's share, for balancing */
};

/* How many lines of a kind were written lately. */
struct http_failures {
	uint64_t second; /* this one */
	unsigned lines;
	uint64_t left_out; /* since the last line that was not */
};

struct http_server {
	struct http_options options; /* with defaults filled in */
	unsigned worker_count;
	struct http_worker *workers;
	atomic_uint connections;
	atomic_size_t body_bytes; /* of large bodies, arriving or being worked on */
	struct http_addresses *addresses;
	pthread_mutex_t accept_lock;
	pthread_cond_t accept_cond; /* a worker applied a generation, drained, or started */
	struct http_listener listeners[HTTP_LISTENERS_MAX];
	unsigned listener_count;
	uint64_t generation;    /* of `listeners`; under accept_lock */
	enum db_err listen_err; /* a worker could not listen; under accept_lock */
	bool stopped;
	struct throttle *throttle;
	pthread_mutex_t throttle_lock;
	unsigned streams; /* that a producer may still use; under accept_lock */
	char trace_prefix[40];
	size_t trace_prefix_len;
	pthread_mutex_t failures_lock;
	struct http_failures failures[QUERY_INTERNAL + 1]; /* by code; under failures_lock */
};

struct http_request {
	struct http_worker *worker;
	struct http_conn *conn; /* NULL when the client has gone */
	struct evhttp_request *ereq;
	const char *path;   /* borrowed from ereq, without the query part */
	const char *bearer; /* borrowed from ereq's headers */
	bool has_authorization;
	enum auth_role role;                 /* AUTH_NONE: no valid token so far */
	enum auth_verdict verdict;           /* on the token that was looked at last */
	char token_name[TOKEN_NAME_MAX + 1]; /* of one that has expired */
	struct http_request *next_delayed;   /* worker's list of those whose 401 waits */
	uint64_t due_ms;
	struct throttle_address delayed_address;
	size_t body_bytes;                 /* as counted in the server's */
	bool head;                         /* the method is HEAD: a reply without its body */
	char id[QUERY_REQUEST_ID_MAX + 1]; /* trace.c */
	uint64_t started_us;
	struct http_stream *stream;
	atomic_bool gone;
};

/* Headers that are in every reply, put among evhttp's own for as long as it writes them: evhttp would copy each. */
struct http_lent {
	struct evkeyval headers[3];
	char id[QUERY_REQUEST_ID_MAX + 1];
	unsigned count;
};

static inline void http_count(atomic_uint_fast64_t *counter)
{
	/* Only the worker's thread writes: a plain add with an atomic store, no locked instruction. */
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

static inline void http_uncount(atomic_uint_fast64_t *counter)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) - 1, memory_order_relaxed);
}

/* worker.c */
enum db_err http_worker_start(struct http_worker *w, struct http_server *s, unsigned index, struct errmsg *em);
void http_worker_join(struct http_worker *w); /* after quit_task was posted */
bool http_worker_is_self(const struct http_worker *w);
void http_worker_conn_closed(struct http_worker *w);

/* accept.c */
enum db_err http_accept_init(struct http_worker *w, struct errmsg *em);
void http_accept_fini(struct http_worker *w);
void http_accept_show(struct http_worker *w); /* turns the listeners on or off, as wanted and possible */
void http_accept_pause(struct http_worker *w);
void http_accept_after(struct http_worker *w);     /* decides whether to go on after a connection came */
void http_accept_make_room(struct http_worker *w); /* now and then, while connections_max is reached */
void http_accept_slot_freed(struct http_server *s);
void http_accept_sync(struct http_server *s); /* accept_lock held: returns when every worker does what is wanted */

/* conn.c */
struct bufferevent *http_conn_create(struct event_base *base, void *worker); /* evhttp_set_bevcb() */
void http_conn_settle_fresh(struct http_worker *w);
void http_conn_run_held(struct http_worker *w);
void http_conn_sweep(struct http_worker *w);
bool http_conn_can_evict(struct http_worker *w); /* there is a connection of no use, to be closed when one comes */
void http_conn_close(struct http_conn *c);
void http_conn_refuse(struct http_conn *c, const struct query_error *error);
void http_conn_end_output(struct http_conn *c, bool reset); /* sends what waits, then closes */
void http_conn_run_ready(struct http_worker *w);
void http_conn_flush_soon(struct http_conn *c); /* at the end of this turn of the loop */
void http_conn_flush_all(struct http_worker *w);
void http_conn_flush(struct http_conn *c); /* writes at once what the socket takes; may free c */
void http_conn_set_pending(struct http_conn *c, struct http_request *req);
void http_conn_set_writing(struct http_conn *c);
void http_conn_drain(struct http_worker *w);
void http_conn_close_all(struct http_worker *w);

/* tls.c */
struct bufferevent *http_tls_bufferevent(struct http_conn *c, struct event_base *base, struct tls_server *tls);
void http_tls_forget_socket(struct http_conn *c); /* it is evhttp's to close after all */
bool http_tls_is_open(const struct http_conn *c); /* hands were shaken */
void http_tls_read_on(struct http_conn *c);       /* after input, and after reading was turned on */
void http_tls_rest(struct http_conn *c);          /* gives back what an idle connection needs not */
void http_tls_flush(struct http_conn *c);         /* writes within this turn what the socket takes; may free c */
uint64_t http_tls_written(const struct http_conn *c);
bool http_tls_send_now(struct http_conn *c, const void *bytes, size_t len); /* while no output waits; false: not sent */
void http_tls_shut_down(struct http_conn *c); /* TLS's own last words, as far as they go */

/* request.c */
void http_request_arrived(struct evhttp_request *ereq, void *worker); /* evhttp_set_gencb() */
void http_request_client_gone(struct http_request *req);
void http_request_drop(struct http_request *req); /* frees it and evhttp's; the client has gone */
/* content_type must last until the headers are taken back, which must happen right after evhttp was told to send. */
void http_request_put_headers(struct http_request *req, int status, const char *content_type, struct http_lent *lent);
void http_request_take_headers_back(struct evhttp_request *ereq, struct http_lent *lent);
void http_request_forget(struct http_request *req); /* frees it, evhttp's stays the connection's */

/* auth.c */
void http_request_read_header(struct http_request *req); /* sets bearer, role, has_authorization */
void http_reply_forbidden(struct http_request *req, enum auth_role needed);
void http_delayed_answer(struct http_request *req);
void http_delayed_answer_all(struct http_worker *w);
void http_delayed_due(evutil_socket_t fd, short what, void *worker);

/* trace.c */
enum db_err http_trace_init(struct http_server *s, struct errmsg *em);
void http_trace_begin(struct http_request *req); /* names it */
/* Makes a name for one that is refused before it could say its own. */
void http_trace_refused(struct http_worker *w, const struct query_error *error, char id[QUERY_REQUEST_ID_MAX + 1]);
void http_trace_failed(struct http_request *req, const struct query_error *error);
void http_trace_answered(struct http_request *req, int status); /* when LOG_LEVEL_DEBUG is wanted */

/* stream.c */
void http_stream_client_gone(struct http_stream *st);
void http_stream_note_progress(struct http_stream *st); /* the client took something that does not show in the output */
void http_stream_on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *stream);

#endif

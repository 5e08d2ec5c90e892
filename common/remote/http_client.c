/*
 * http_client.c - calls, and the queue in front of each remote address.
 *
 * libcurl does HTTP and keeps the connections (curl_loop.c); this file decides which call may start, when it has had
 * its time, and what its end means to the caller.
 *
 * Invariants: (1) on_end is called exactly once for each started call, and nothing after it. (2) No more than
 * max_connections calls of one address are with libcurl. (3) A request that may have reached the other side is never
 * sent twice: libcurl by itself repeats a request when a kept connection turns out to be closed, and a write repeated
 * is a write done twice. The pre-request hook, which libcurl calls each time it is about to send, stops the second
 * time of what is not repeatable; and only a call whose hook was never called ends with DB_UNAVAILABLE.
 *
 * A call that ends while libcurl is calling us (a handler cancels) is told so at once and buried when libcurl was left.
 */
#include "common/remote/http_client.h"

#include <assert.h>
#include <curl/curl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/remote/curl_loop.h"

#define RECEIVE_BUFFER_BYTES (64L * 1024L)
#define SPARE_HANDLES_MAX    32u
#define OPENED_MAX           8u /* attempts to connect of one call; with more the figures may be wrong */

enum call_state { CALL_QUEUED, CALL_RUNNING, CALL_ENDED };

/* One remote address with calls or connections; gone when it has none. */
struct remote {
	LIST_ENTRY(remote) next;
	struct http_client *client;
	TAILQ_HEAD(, http_call) queue;
	unsigned running;
	unsigned connections;
	char address[];
};

struct http_call {
	struct http_client *client;
	struct remote *remote;
	TAILQ_ENTRY(http_call) in_queue; /* CALL_QUEUED */
	LIST_ENTRY(http_call) in_calls;  /* the client's calls, or its graves */
	CURL *easy;
	struct curl_slist *headers;
	struct event *deadline;
	struct http_call_handler handler;
	enum call_state state;
	bool head_told;
	bool paused;
	bool resume_wanted;
	bool repeatable;
	bool sent;   /* the request went out, or began to */
	bool resent; /* libcurl wanted to send it once more, (3) */
	/* Sockets that libcurl opened for it and has not closed. It closes those that never became a connection (its host has
	 * several addresses, or the call was given up) without a word: see forget_unmade(). */
	int opened[OPENED_MAX];
	unsigned opened_count;
	char error[CURL_ERROR_SIZE];
};

/* Changed on the client's thread, read by any. */
struct live_counters {
	atomic_uint_fast64_t requests_total, failures_total, connections_opened_total, reused_total, waited_total;
	atomic_uint_fast64_t resent_total;
	atomic_uint_fast64_t connections_open, in_flight, queued;
};

struct http_client {
	struct curl_loop *loop;
	struct event_base *base;
	struct event *idle_timer; /* no call is left: closes the kept connections */
	struct http_client_options options;
	LIST_HEAD(, remote) remotes;
	LIST_HEAD(, http_call) calls;
	LIST_HEAD(, http_call) graves; /* ended inside libcurl, to be freed outside */
	struct http_call *leaving;     /* in neither, and libcurl is just being told to let go of it */
	CURL *spare[SPARE_HANDLES_MAX];
	size_t spare_count;
	bool closing;
	struct live_counters counters;
};

enum db_err http_client_init_library(struct errmsg *em)
{
	CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);

	return code == CURLE_OK ? DB_OK : errmsg_set(em, DB_IO, "libcurl: %s", curl_easy_strerror(code));
}

/* --- Remotes. --- */

static struct remote *remote_get(struct http_client *c, const char *address)
{
	struct remote *r;
	size_t size = strlen(address) + 1;

	LIST_FOREACH(r, &c->remotes, next)
	if (strcmp(r->address, address) == 0)
		return r;
	r = calloc(1, sizeof(*r) + size);
	if (r == NULL)
		return NULL;
	memcpy(r->address, address, size);
	r->client = c;
	TAILQ_INIT(&r->queue);
	LIST_INSERT_HEAD(&c->remotes, r, next);
	return r;
}

static void remote_put(struct remote *r)
{
	if (r->running > 0 || r->connections > 0 || !TAILQ_EMPTY(&r->queue))
		return;
	LIST_REMOVE(r, next);
	free(r);
}

/* --- The end of a call. --- */

static void easy_release(struct http_client *c, CURL *easy)
{
	if (c->spare_count == SPARE_HANDLES_MAX) {
		curl_easy_cleanup(easy);
		return;
	}
	curl_easy_reset(easy);
	c->spare[c->spare_count++] = easy;
}

static void call_free(struct http_call *call)
{
	if (call->easy != NULL)
		easy_release(call->client, call->easy);
	curl_slist_free_all(call->headers);
	if (call->deadline != NULL)
		event_free(call->deadline);
	free(call);
}

static void start_queued(struct http_client *c, struct remote *r);

static void arm_idle_timer(struct http_client *c)
{
	struct timeval delay = {(time_t)(c->options.idle_timeout_ms / 1000),
				(suseconds_t)(c->options.idle_timeout_ms % 1000 * 1000)};

	if (LIST_EMPTY(&c->calls) && LIST_EMPTY(&c->graves) && !c->closing)
		event_add(c->idle_timer, &delay);
}

static void count_closed(struct remote *r)
{
	const struct http_client_options *o = &r->client->options;

	r->client->counters.connections_open--;
	r->connections--;
	if (o->on_connection != NULL)
		o->on_connection(o->arg, r->address, false);
}

/* local_port: of the connection that was made; -1: none was. */
static void forget_unmade(struct http_call *call, int local_port)
{
	struct sockaddr_storage local;
	socklen_t len;
	char port[8];
	unsigned i;

	for (i = 0; i < call->opened_count; i++) {
		len = sizeof(local);
		if (local_port == -1 || getsockname(call->opened[i], (struct sockaddr *)&local, &len) != 0 ||
		    getnameinfo((struct sockaddr *)&local, len, NULL, 0, port, sizeof(port), NI_NUMERICSERV) != 0 ||
		    atoi(port) != local_port)
			count_closed(call->remote);
	}
	call->opened_count = 0;
}

static void leave_libcurl(struct http_call *call)
{
	struct http_client *c = call->client;
	struct remote *r = call->remote;

	c->leaving = call;
	curl_multi_remove_handle(curl_loop_multi(c->loop), call->easy);
	c->leaving = NULL;
	forget_unmade(call, -1);
	r->running--;
	c->counters.in_flight--;
	if (!c->closing)
		start_queued(c, r);
	remote_put(r);
}

static void count_connection(struct http_call *call)
{
	long connects = 0;

	if (!call->sent || curl_easy_getinfo(call->easy, CURLINFO_NUM_CONNECTS, &connects) != CURLE_OK)
		return;
	if (connects == 0)
		call->client->counters.reused_total++;
	else
		call->client->counters.connections_opened_total += (uint64_t)connects;
}

/* (1) Frees the call, unless libcurl is on the stack: then later. */
static void call_end(struct http_call *call, enum db_err err, const struct errmsg *em)
{
	struct http_client *c = call->client;
	struct http_call_handler handler = call->handler;
	enum call_state before = call->state;

	assert(before != CALL_ENDED);
	call->state = CALL_ENDED;
	event_del(call->deadline);
	LIST_REMOVE(call, in_calls);
	if (err != DB_OK)
		c->counters.failures_total++;
	if (before == CALL_QUEUED) {
		TAILQ_REMOVE(&call->remote->queue, call, in_queue);
		c->counters.queued--;
		remote_put(call->remote);
		call_free(call);
	} else {
		count_connection(call);
		if (curl_loop_is_inside(c->loop)) {
			LIST_INSERT_HEAD(&c->graves, call, in_calls);
			curl_loop_kick(c->loop);
		} else {
			leave_libcurl(call);
			call_free(call);
		}
	}
	arm_idle_timer(c);
	handler.on_end(handler.arg, err, em);
}

static void call_end_with(struct http_call *call, enum db_err err, const char *why)
{
	struct errmsg em = {0};
	char address[300];

	snprintf(address, sizeof(address), "%s", call->remote->address); /* it dies with the call */
	errmsg_set(&em, err, "%s: %s", address, why);
	call_end(call, err, &em);
}

static void on_done(void *arg, CURL *easy, CURLcode code)
{
	struct http_call *call = NULL;
	enum db_err err;

	(void)arg;
	curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&call);
	if (call->state == CALL_ENDED)
		return; /* waits in its grave */
	if (code == CURLE_OK && call->head_told) {
		call_end(call, DB_OK, NULL);
		return;
	}
	if (code == CURLE_OK) {
		/* To libcurl, a connection closed in the middle of the headers is the end of them. */
		call_end_with(call, DB_IO, "the answer broke off in its headers");
		return;
	}
	/* curl says the same of a header line that is beyond all measure: what has an answer has a peer to blame. */
	if (code == CURLE_OUT_OF_MEMORY && !call->sent)
		err = DB_NOMEM;
	else
		err = call->sent ? DB_IO : DB_UNAVAILABLE; /* (3) */
	if (call->resent)
		call_end_with(call, err, "the connection was closed before an answer came");
	else
		call_end_with(call, err, call->error[0] != '\0' ? call->error : curl_easy_strerror(code));
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct http_call *call = arg;

	(void)fd;
	(void)what;
	call_end_with(call, DB_TIMEOUT,
		      call->state == CALL_QUEUED ? "no connection became free in time" : "no whole answer in time");
}

/* --- What libcurl tells a running call. --- */

static int on_about_to_send(void *arg, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
	struct http_call *call = arg;

	(void)remote_ip;
	(void)local_ip;
	(void)remote_port;
	forget_unmade(call, local_port);
	if (call->sent && !call->repeatable) {
		call->resent = true;
		return CURL_PREREQFUNC_ABORT;
	}
	if (call->sent)
		call->client->counters.resent_total++;
	call->sent = true;
	return CURL_PREREQFUNC_OK;
}

static size_t on_header(char *line, size_t size, size_t count, void *arg)
{
	struct http_call *call = arg;
	char *content_type = NULL;
	size_t len = size * count;
	long status = 0;

	if (call->state == CALL_ENDED)
		return 0;
	if (call->head_told || (len != 1 && !(len == 2 && line[0] == '\r')))
		return len; /* the empty line ends the head */
	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status < 200)
		return len; /* 100 Continue and the like: another head follows */
	call->head_told = true;
	curl_easy_getinfo(call->easy, CURLINFO_CONTENT_TYPE, &content_type);
	if (call->handler.on_head != NULL)
		call->handler.on_head(call->handler.arg, (int)status, content_type == NULL ? "" : content_type);
	return call->state == CALL_ENDED ? 0 : len;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg)
{
	struct http_call *call = arg;
	size_t len = size * count;
	bool taken;

	if (call->state == CALL_ENDED || len == 0)
		return 0;
	call->resume_wanted = false;
	taken = call->handler.on_body(call->handler.arg, bytes, len);
	if (call->state == CALL_ENDED)
		return 0;
	if (taken)
		return len;
	call->paused = true;
	return CURL_WRITEFUNC_PAUSE;
}

static bool drop_from(struct http_call *call, int fd)
{
	unsigned i;

	for (i = 0; i < call->opened_count && call->opened[i] != fd; i++)
		;
	if (i == call->opened_count)
		return false;
	call->opened[i] = call->opened[--call->opened_count];
	return true;
}

/* The call whose attempt fd was, which need not be forgotten any more; NULL: it is a connection. */
static struct http_call *drop_opened(struct http_client *c, int fd)
{
	struct http_call *call;

	if (c->leaving != NULL && drop_from(c->leaving, fd))
		return c->leaving;
	LIST_FOREACH(call, &c->calls, in_calls)
	if (drop_from(call, fd))
		return call;
	LIST_FOREACH(call, &c->graves, in_calls)
	if (drop_from(call, fd))
		return call;
	return NULL;
}

static curl_socket_t on_socket_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	struct http_call *call = arg;
	struct remote *r = call->remote;
	const struct http_client_options *o = &r->client->options;
	curl_socket_t fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	struct http_call *before;

	(void)purpose;
	if (fd == -1)
		return CURL_SOCKET_BAD;
	before = drop_opened(r->client, fd);
	if (before != NULL)
		count_closed(before->remote); /* it was, for its number is free */
	if (call->opened_count < OPENED_MAX)
		call->opened[call->opened_count++] = fd;
	r->client->counters.connections_open++;
	r->connections++;
	if (o->on_connection != NULL)
		o->on_connection(o->arg, r->address, true);
	return fd;
}

static int on_socket_close(void *arg, curl_socket_t fd)
{
	struct remote *r = arg;

	drop_opened(r->client, fd);
	count_closed(r);
	remote_put(r);
	return close(fd);
}

static void bury(struct http_client *c)
{
	struct http_call *call;

	while ((call = LIST_FIRST(&c->graves)) != NULL) {
		LIST_REMOVE(call, in_calls);
		leave_libcurl(call);
		call_free(call);
	}
}

/* Lets one paused call go on that wants to. libcurl may offer the piece again at once, and any call may end by that. */
static bool resume_one(struct http_client *c)
{
	struct http_call *call;

	LIST_FOREACH(call, &c->calls, in_calls)
	if (call->resume_wanted && call->paused)
		break;
	if (call == NULL)
		return false;
	call->resume_wanted = false;
	call->paused = false;
	curl_loop_resume(c->loop, call->easy);
	return true;
}

/* libcurl was left: what could not be done inside it. */
static void on_after(void *arg)
{
	struct http_client *c = arg;
	struct remote *r, *next;

	bury(c);
	for (r = LIST_FIRST(&c->remotes); r != NULL; r = next) {
		next = LIST_NEXT(r, next);
		start_queued(c, r);
	}
	while (resume_one(c))
		bury(c);
	arm_idle_timer(c);
}

/* --- The start of a call. --- */

static void set_options(struct http_call *call)
{
	const struct http_client_options *o = &call->client->options;
	CURL *easy = call->easy;

	curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->error);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER_BYTES);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)o->connect_timeout_ms);
	/* Not reused in its last quarter, lest the other side, with the same setting, closes it under our request. */
	curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, (long)((o->idle_timeout_ms * 3 / 4 + 999) / 1000));
	curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_about_to_send);
	curl_easy_setopt(easy, CURLOPT_PREREQDATA, call);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, call);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_socket_open);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_socket_close);
}

/* The connection keeps the remote, which lives as long as it. */
static void set_remote(struct http_call *call, struct remote *r)
{
	call->remote = r;
	curl_easy_setopt(call->easy, CURLOPT_OPENSOCKETDATA, call);
	curl_easy_setopt(call->easy, CURLOPT_CLOSESOCKETDATA, r);
}

static bool add_header(struct http_call *call, const char *line)
{
	struct curl_slist *longer = curl_slist_append(call->headers, line);

	if (longer != NULL)
		call->headers = longer;
	return longer != NULL;
}

static bool set_headers(struct http_call *call, const struct http_call_request *request)
{
	const char *const *header;
	bool has_type = false;
	char *line;
	size_t size;
	bool ok;

	for (header = request->headers; header != NULL && *header != NULL; header++) {
		has_type = has_type || strncasecmp(*header, "Content-Type:", 13) == 0;
		if (!add_header(call, *header))
			return false;
	}
	if (request->body != NULL && !has_type && !add_header(call, "Content-Type: application/json"))
		return false;
	if (!add_header(call, "Expect:")) /* libcurl would wait for 100 Continue before large bodies */
		return false;
	if (request->bearer_token != NULL) {
		size = strlen(request->bearer_token) + 32;
		line = malloc(size);
		if (line == NULL)
			return false;
		snprintf(line, size, "Authorization: Bearer %s", request->bearer_token);
		ok = add_header(call, line);
		free(line);
		if (!ok)
			return false;
	}
	return curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, call->headers) == CURLE_OK;
}

static bool set_request(struct http_call *call, const struct http_call_request *request)
{
	size_t size = strlen(request->address) + strlen(request->path) + sizeof("https://");
	const struct http_client_options *o = &call->client->options;
	struct client_tls tls = {0};
	char *url = malloc(size);
	bool ok;

	if (url == NULL)
		return false;
	if (o->tls_of != NULL)
		o->tls_of(o->tls_arg, request->address, request->member, &tls);
	snprintf(url, size, "%s://%s%s", client_tls_scheme(&tls), request->address, request->path);
	ok = curl_easy_setopt(call->easy, CURLOPT_URL, url) == CURLE_OK && client_tls_apply(call->easy, &tls);
	free(url);
	if (request->body == NULL)
		return ok;
	return ok && curl_easy_setopt(call->easy, CURLOPT_POST, 1L) == CURLE_OK &&
	       curl_easy_setopt(call->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_len) == CURLE_OK &&
	       curl_easy_setopt(call->easy, CURLOPT_COPYPOSTFIELDS, request->body) == CURLE_OK;
}

static bool is_clean(const char *text, bool spaces)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f || (!spaces && *text == ' '))
			return false;
	return true;
}

/* Nothing may smuggle a second header, another host or a password into the request. */
static enum db_err check_request(const struct http_call_request *request, struct errmsg *em)
{
	const char *const *header;

	if (request->address[0] == '\0' || strpbrk(request->address, "/?#@\\") != NULL ||
	    !is_clean(request->address, false) || strchr(request->address, ':') == NULL)
		return errmsg_set(em, DB_INVALID, "\"%s\" is not host:port", request->address);
	if (request->path[0] != '/' || !is_clean(request->path, false))
		return errmsg_set(em, DB_INVALID, "\"%s\" is not a request path", request->path);
	if (request->bearer_token != NULL && !is_clean(request->bearer_token, false))
		return errmsg_set(em, DB_INVALID, "a token for %s has spaces or control characters", request->address);
	for (header = request->headers; header != NULL && *header != NULL; header++)
		if (!is_clean(*header, true) || strchr(*header, ':') == NULL)
			return errmsg_set(em, DB_INVALID, "a header for %s is not \"Name: value\"", request->address);
	return DB_OK;
}

/* (2) */
static void start_queued(struct http_client *c, struct remote *r)
{
	struct http_call *call;

	if (curl_loop_is_inside(c->loop)) {
		curl_loop_kick(c->loop);
		return;
	}
	while (r->running < c->options.max_connections && (call = TAILQ_FIRST(&r->queue)) != NULL) {
		TAILQ_REMOVE(&r->queue, call, in_queue);
		c->counters.queued--;
		c->counters.in_flight++;
		r->running++;
		call->state = CALL_RUNNING;
		curl_multi_add_handle(curl_loop_multi(c->loop), call->easy); /* out of memory: the deadline ends it */
	}
}

static struct http_call *call_create(struct http_client *c, const struct http_call_request *request,
				     const struct http_call_handler *handler)
{
	struct http_call *call = calloc(1, sizeof(*call));
	struct remote *r;

	if (call == NULL)
		return NULL;
	call->client = c;
	call->handler = *handler;
	call->repeatable = request->repeatable || request->body == NULL;
	call->easy = c->spare_count > 0 ? c->spare[--c->spare_count] : curl_easy_init();
	call->deadline = evtimer_new(c->base, on_deadline, call);
	if (call->easy == NULL || call->deadline == NULL)
		goto fail;
	set_options(call);
	if (!set_request(call, request) || !set_headers(call, request))
		goto fail;
	r = remote_get(c, request->address);
	if (r == NULL)
		goto fail;
	set_remote(call, r);
	return call;
fail:
	call_free(call);
	return NULL;
}

enum db_err http_call_start(struct http_call **out, struct http_client *c, const struct http_call_request *request,
			    const struct http_call_handler *handler, struct errmsg *em)
{
	uint64_t now_ms = clock_mono_ms();
	struct timeval delay;
	struct http_call *call;
	enum db_err err;

	*out = NULL;
	if (c->closing)
		return errmsg_set(em, DB_CLOSED, "the HTTP client is closing");
	err = check_request(request, em);
	if (err != DB_OK)
		return err;
	if (request->deadline_ms <= now_ms)
		return errmsg_set(em, DB_TIMEOUT, "%s: no time left for a request", request->address);
	call = call_create(c, request, handler);
	if (call == NULL)
		return errmsg_set(em, DB_NOMEM, "%s: request: out of memory", request->address);
	delay.tv_sec = (time_t)((request->deadline_ms - now_ms) / 1000);
	delay.tv_usec = (suseconds_t)((request->deadline_ms - now_ms) % 1000 * 1000);
	event_add(call->deadline, &delay);
	event_del(c->idle_timer);
	LIST_INSERT_HEAD(&c->calls, call, in_calls);
	TAILQ_INSERT_TAIL(&call->remote->queue, call, in_queue);
	c->counters.requests_total++;
	c->counters.queued++;
	if (call->remote->running >= c->options.max_connections)
		c->counters.waited_total++;
	*out = call;
	start_queued(c, call->remote);
	return DB_OK;
}

void http_call_resume(struct http_call *call)
{
	call->resume_wanted = true;
	curl_loop_kick(call->client->loop);
}

void http_call_cancel(struct http_call *call)
{
	call_end_with(call, DB_CLOSED, "the request was cancelled");
}

/* --- The client. --- */

static enum db_err create_loop(struct http_client *c, struct errmsg *em)
{
	const struct curl_loop_hooks hooks = {on_done, on_after, c};

	return curl_loop_create(&c->loop, c->base, &hooks, (long)c->options.max_connections, em);
}

/* Nothing was asked for idle_timeout_ms. libcurl closes an old connection only when it would reuse it; closing the pool
 * as a whole is the way to be rid of all. */
static void on_idle(evutil_socket_t fd, short what, void *arg)
{
	struct http_client *c = arg;

	(void)fd;
	(void)what;
	if (LIST_EMPTY(&c->calls) && LIST_EMPTY(&c->graves))
		curl_loop_close_connections(c->loop);
}

enum db_err http_client_create(struct http_client **out, struct event_base *base,
			       const struct http_client_options *options, struct errmsg *em)
{
	struct http_client *c = calloc(1, sizeof(*c));
	enum db_err err;

	*out = NULL;
	if (c == NULL)
		return errmsg_set(em, DB_NOMEM, "HTTP client: out of memory");
	c->base = base;
	c->options = *options;
	if (c->options.max_connections == 0)
		c->options.max_connections = 10;
	if (c->options.connect_timeout_ms == 0)
		c->options.connect_timeout_ms = 1000;
	if (c->options.idle_timeout_ms == 0)
		c->options.idle_timeout_ms = 60000;
	c->idle_timer = evtimer_new(base, on_idle, c);
	if (c->idle_timer == NULL) {
		free(c);
		return errmsg_set(em, DB_NOMEM, "HTTP client: out of memory");
	}
	err = create_loop(c, em);
	if (err != DB_OK) {
		event_free(c->idle_timer);
		free(c);
		return err;
	}
	*out = c;
	return DB_OK;
}

void http_client_free(struct http_client *c)
{
	struct http_call *call;

	if (c == NULL)
		return;
	assert(!curl_loop_is_inside(c->loop));
	c->closing = true;
	while ((call = LIST_FIRST(&c->calls)) != NULL)
		call_end_with(call, DB_CLOSED, "the HTTP client is closing");
	bury(c);
	while (c->spare_count > 0)
		curl_easy_cleanup(c->spare[--c->spare_count]);
	curl_loop_free(c->loop); /* closes connections, which count themselves in c */
	event_free(c->idle_timer);
	free(c);
}

void http_client_get_counters(const struct http_client *c, struct http_client_counters *out)
{
	out->requests_total = atomic_load(&c->counters.requests_total);
	out->failures_total = atomic_load(&c->counters.failures_total);
	out->connections_opened_total = atomic_load(&c->counters.connections_opened_total);
	out->reused_total = atomic_load(&c->counters.reused_total);
	out->waited_total = atomic_load(&c->counters.waited_total);
	out->resent_total = atomic_load(&c->counters.resent_total);
	out->connections_open = atomic_load(&c->counters.connections_open);
	out->in_flight = atomic_load(&c->counters.in_flight);
	out->queued = atomic_load(&c->counters.queued);
}

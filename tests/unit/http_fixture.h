/*
 * http_fixture.h - a server with a route of every kind, and a client made of one socket, for the HTTP tests.
 *
 * Every answer a client reads is checked to be one of ours: nobody may ever see a page that libevent made up.
 */
#ifndef GRIZZLY_TESTS_UNIT_HTTP_FIXTURE_H
#define GRIZZLY_TESTS_UNIT_HTTP_FIXTURE_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/http/frame.h"
#include "common/http/server.h"
#include "tests/unit/tsan_epoll.h"
#include "tests/unit/unit.h"

#define TOKEN         "0123456789abcdef0123456789abcdef"
#define WAIT_MS       10000
#define KEPT_MAX      256
#define PRODUCERS_MAX 8

/* --- A server with routes of every kind. --- */

struct site {
	struct http_server *server;
	struct auth *auth; /* TOKEN is its first */
	int fd;
	int listener;
	uint16_t port;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct http_request *kept[KEPT_MAX]; /* requests of /later, in order of arrival */
	struct http_worker *kept_worker[KEPT_MAX];
	unsigned kept_count;
	unsigned gone_replies;
	/* How /stream behaves. */
	size_t piece_bytes;
	unsigned piece_count;
	uint64_t stall_ms;
	bool whole, stream_error;
	const char *announced;      /* its Content-Length; NULL: it comes in chunks */
	struct http_stream *stream; /* the last one begun */
	enum db_err stream_result;
	unsigned streams_ended, pieces_taken;
	pthread_t producers[PRODUCERS_MAX]; /* threads of /stream; site_close() joins them, for they use the site */
	unsigned producer_count;
	/* What /loop adds. */
	bool hold_open; /* it has nothing more to say and does not end */
	unsigned wakeups_wanted;
	unsigned workers_started, workers_stopped;
	struct http_worker *workers[8];
};

static inline void handle_echo(void *arg, struct http_request *req)
{
	struct buf body = {0};
	const void *bytes;
	size_t len;

	(void)arg;
	bytes = http_request_body(req, &len);
	buf_put(&body, bytes, len);
	http_reply(req, 200, "application/octet-stream", &body);
}

static inline void handle_get(void *arg, struct http_request *req)
{
	struct buf body = {0};

	(void)arg;
	buf_printf(&body, "%s %s", http_request_method_name(req), http_request_path(req));
	http_reply(req, 200, "text/plain", &body);
}

static inline void handle_mixed(void *arg, struct http_request *req)
{
	struct buf body = {0};

	(void)arg;
	buf_puts(&body, http_request_authorized(req) ? "by header" : "by body");
	http_reply(req, 200, "text/plain", &body);
}

static inline void handle_body_token(void *arg, struct http_request *req)
{
	(void)arg;
	http_reply_unauthorized(req);
}

static inline void handle_later(void *arg, struct http_request *req)
{
	struct site *site = arg;

	pthread_mutex_lock(&site->lock);
	site->kept_worker[site->kept_count] = http_request_worker(req);
	site->kept[site->kept_count++] = req;
	pthread_cond_broadcast(&site->changed);
	pthread_mutex_unlock(&site->lock);
}

struct producer {
	struct site *site;
	struct http_stream *stream;
};

static inline void *produce(void *arg)
{
	struct producer *p = arg;
	struct site *site = p->site;
	enum db_err err = DB_OK;
	struct buf piece = {0};
	unsigned i, taken = 0;

	for (i = 0; i < site->piece_count && err == DB_OK; i++) {
		if (buf_reserve(&piece, site->piece_bytes))
			memset(piece.data, 'a' + (int)(i % 26), site->piece_bytes);
		piece.len = site->piece_bytes;
		err = http_stream_write(p->stream, &piece, site->stall_ms);
		taken += err == DB_OK;
	}
	if (site->stream_error) {
		struct query_error error = {QUERY_CONSTRAINT, -1, "no such luck"};

		http_stream_error(p->stream, &error);
	} else {
		http_stream_end(p->stream, site->whole && err == DB_OK);
	}
	pthread_mutex_lock(&site->lock);
	site->stream_result = err;
	site->pieces_taken = taken;
	site->streams_ended++;
	pthread_cond_broadcast(&site->changed);
	pthread_mutex_unlock(&site->lock);
	free(p);
	return NULL;
}

static inline void handle_stream(void *arg, struct http_request *req)
{
	struct producer *p = calloc(1, sizeof(*p));
	struct site *site = arg;

	p->site = site;
	if (site->announced != NULL)
		http_reply_add_header(req, "Content-Length", site->announced);
	CU_ASSERT_EQUAL_FATAL(http_stream_create(&p->stream, req, 200, "application/json"), DB_OK);
	pthread_mutex_lock(&site->lock);
	site->stream = p->stream;
	CU_ASSERT_FATAL(site->producer_count < PRODUCERS_MAX);
	pthread_create(&site->producers[site->producer_count++], NULL, produce, p);
	pthread_mutex_unlock(&site->lock);
}

/* /loop: the same as /stream, from the worker's own loop. */
struct loop_producer {
	struct site *site;
	struct http_stream *stream;
	size_t piece_bytes;
	unsigned piece_count, sent;
	bool whole, hold_open;
};

/* Between requests: what the next /loop does. */
static inline void site_set_loop(struct site *site, size_t piece_bytes, unsigned piece_count, bool whole,
				 bool hold_open)
{
	pthread_mutex_lock(&site->lock);
	site->piece_bytes = piece_bytes;
	site->piece_count = piece_count;
	site->whole = whole;
	site->hold_open = hold_open;
	pthread_mutex_unlock(&site->lock);
}

static inline void loop_produce(void *arg)
{
	struct loop_producer *p = arg;
	struct site *site = p->site;
	enum db_err err = DB_OK;
	char *piece = malloc(p->piece_bytes);

	memset(piece, 'a', p->piece_bytes);
	while (p->sent < p->piece_count && err == DB_OK) {
		err = http_stream_try_write(p->stream, piece, p->piece_bytes);
		p->sent += err == DB_OK;
	}
	free(piece);
	pthread_mutex_lock(&site->lock);
	site->pieces_taken = p->sent;
	site->wakeups_wanted += err == DB_BUSY;
	pthread_cond_broadcast(&site->changed);
	pthread_mutex_unlock(&site->lock);
	if (err == DB_BUSY || (err == DB_OK && p->hold_open))
		return; /* called again when there is room, or nobody left */
	http_stream_end(p->stream, p->whole && err == DB_OK);
	pthread_mutex_lock(&site->lock);
	site->stream_result = err;
	site->streams_ended++;
	pthread_cond_broadcast(&site->changed);
	pthread_mutex_unlock(&site->lock);
	free(p);
}

static inline void loop_woken(void *arg)
{
	struct loop_producer *p = arg;

	if (atomic_load(http_stream_gone(p->stream)))
		CU_ASSERT_EQUAL(http_stream_try_write(p->stream, "x", 1), DB_CLOSED);
	p->piece_count += atomic_load(http_stream_gone(p->stream)); /* so that it meets the error */
	loop_produce(p);
}

static inline void handle_loop(void *arg, struct http_request *req)
{
	struct loop_producer *p = calloc(1, sizeof(*p));

	p->site = arg;
	pthread_mutex_lock(&p->site->lock);
	p->piece_bytes = p->site->piece_bytes;
	p->piece_count = p->site->piece_count;
	p->whole = p->site->whole;
	p->hold_open = p->site->hold_open;
	pthread_mutex_unlock(&p->site->lock);
	CU_ASSERT_EQUAL_FATAL(http_stream_create(&p->stream, req, 200, "application/json"), DB_OK);
	http_stream_set_wakeup(p->stream, loop_woken, p);
	loop_produce(p);
}

static inline enum db_err on_worker_start(void *arg, struct http_worker *worker, void **data, struct errmsg *em)
{
	struct site *site = arg;

	(void)em;
	site->workers[site->workers_started++] = worker;
	*data = &site->workers_stopped;
	return DB_OK;
}

static inline void on_worker_stop(void *arg, struct http_worker *worker, void *data)
{
	struct site *site = arg;

	CU_ASSERT_PTR_EQUAL(data, &site->workers_stopped);
	CU_ASSERT_PTR_EQUAL(http_worker_data(worker), data);
	pthread_mutex_lock(&site->lock);
	site->workers_stopped++;
	pthread_mutex_unlock(&site->lock);
}

static const struct http_route routes[] = {
    {"/echo", HTTP_POST, HTTP_OPEN, AUTH_NONE, handle_echo},
    {"/get", HTTP_GET | HTTP_HEAD, HTTP_OPEN, AUTH_NONE, handle_get},
    {"/secret", HTTP_GET | HTTP_POST, HTTP_TOKEN, AUTH_READ, handle_get},
    {"/mixed", HTTP_POST, HTTP_TOKEN_OR_BODY, AUTH_NONE, handle_mixed},
    {"/later", HTTP_GET | HTTP_POST, HTTP_OPEN, AUTH_NONE, handle_later},
    {"/stream", HTTP_GET | HTTP_HEAD, HTTP_OPEN, AUTH_NONE, handle_stream},
    {"/loop", HTTP_GET, HTTP_OPEN, AUTH_NONE, handle_loop},
    {"/body-token", HTTP_POST, HTTP_TOKEN_OR_BODY, AUTH_NONE, handle_body_token},
    {NULL, 0, HTTP_OPEN, AUTH_NONE, NULL},
};

static inline void site_open(struct site *site, struct http_options options)
{
	static const uint8_t no_cluster[16];
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);
	struct errmsg em = {0};

	memset(site, 0, sizeof(*site));
	pthread_mutex_init(&site->lock, NULL);
	pthread_cond_init(&site->changed, NULL);
	site->whole = true;
	site->stall_ms = WAIT_MS;
	options.routes = routes;
	options.arg = site;
	options.worker_start = on_worker_start;
	options.worker_stop = on_worker_stop;
	site->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	CU_ASSERT_FATAL(bind(site->fd, (struct sockaddr *)&address, len) == 0 && listen(site->fd, 512) == 0);
	getsockname(site->fd, (struct sockaddr *)&address, &len);
	site->port = ntohs(address.sin_port);
	UNIT_OK(auth_create(&site->auth, no_cluster, &em), &em);
	UNIT_OK(auth_set_first(site->auth, TOKEN, &em), &em);
	options.auth = site->auth;
	UNIT_OK(http_server_create(&site->server, &options, &em), &em);
	UNIT_OK(http_server_listen(site->server, site->fd, true, &site->listener, &em), &em);
}

static inline void site_close(struct site *site)
{
	unsigned i;

	http_server_free(site->server);
	for (i = 0; i < site->producer_count; i++)
		pthread_join(site->producers[i], NULL);
	auth_free(site->auth);
	CU_ASSERT_EQUAL(site->workers_stopped, site->workers_started);
	close(site->fd);
	pthread_cond_destroy(&site->changed);
	pthread_mutex_destroy(&site->lock);
}

/* --- A client made of one socket. --- */

struct client {
	int fd;
	struct buf in; /* read but not used */
};

struct reply {
	int status;
	char head[4096];
	struct buf body;
	bool whole; /* false: the connection ended before the reply did */
};

static inline void client_open(struct client *c, const struct site *site)
{
	struct sockaddr_in address = {
	    .sin_family = AF_INET, .sin_port = htons(site->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	memset(c, 0, sizeof(*c));
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CU_ASSERT_FATAL(connect(c->fd, (struct sockaddr *)&address, sizeof(address)) == 0);
}

static inline void client_close(struct client *c)
{
	close(c->fd);
	buf_fini(&c->in);
}

static inline bool client_send(struct client *c, const void *bytes, size_t len)
{
	const char *p = bytes;
	ssize_t n;

	for (; len > 0; p += n, len -= (size_t)n) {
		n = send(c->fd, p, len, MSG_NOSIGNAL);
		if (n <= 0)
			return false;
	}
	return true;
}

static inline bool client_say(struct client *c, const char *text)
{
	return client_send(c, text, strlen(text));
}

/* False at the end of the connection. */
static inline bool client_read(struct client *c)
{
	struct pollfd pfd = {c->fd, POLLIN, 0};
	ssize_t n;

	CU_ASSERT_EQUAL_FATAL(poll(&pfd, 1, WAIT_MS), 1);
	CU_ASSERT_FATAL(buf_reserve(&c->in, 65536));
	n = recv(c->fd, c->in.data + c->in.len, 65536, 0);
	if (n > 0)
		c->in.len += (size_t)n;
	return n > 0;
}

static inline void client_skip(struct client *c, size_t n)
{
	memmove(c->in.data, c->in.data + n, c->in.len - n);
	c->in.len -= n;
}

static inline bool client_line(struct client *c, char *line, size_t size)
{
	uint8_t *lf;
	size_t len;

	while (c->in.len == 0 || (lf = memchr(c->in.data, '\n', c->in.len)) == NULL)
		if (!client_read(c))
			return false;
	len = (size_t)(lf - c->in.data) + 1;
	CU_ASSERT_FATAL(len < size);
	memcpy(line, c->in.data, len);
	line[len] = '\0';
	client_skip(c, len);
	return true;
}

static inline bool client_take(struct client *c, struct buf *out, size_t len)
{
	while (c->in.len < len)
		if (!client_read(c))
			return false;
	buf_put(out, c->in.data, len);
	client_skip(c, len);
	return true;
}

static inline bool read_chunks(struct client *c, struct buf *out)
{
	char line[256];
	size_t len;

	for (;;) {
		if (!client_line(c, line, sizeof(line)))
			return false;
		len = strtoul(line, NULL, 16);
		if (len > 0 && !client_take(c, out, len))
			return false;
		if (!client_line(c, line, sizeof(line)))
			return false;
		CU_ASSERT_STRING_EQUAL(line, "\r\n");
		if (len == 0)
			return true;
	}
}

static const char *reply_header(const struct reply *r, const char *name)
{
	const char *at = strcasestr(r->head, name);

	return at == NULL ? NULL : at + strlen(name);
}

/* Reads one reply; false when the connection ended before its first byte. */
static inline bool client_reply(struct client *c, struct reply *r, bool head_only)
{
	char line[2048];
	const char *length;

	memset(r, 0, sizeof(*r));
	if (!client_line(c, line, sizeof(line)))
		return false;
	CU_ASSERT_EQUAL_FATAL(sscanf(line, "HTTP/1.%*d %d", &r->status), 1);
	while (client_line(c, line, sizeof(line)) && strcmp(line, "\r\n") != 0)
		strcat(r->head, line);
	length = reply_header(r, "\r\nContent-Length:");
	if (length == NULL && strncasecmp(r->head, "Content-Length:", 15) == 0)
		length = r->head + 15;
	if (head_only || r->status == 100)
		r->whole = true;
	else if (reply_header(r, "Transfer-Encoding: chunked") != NULL)
		r->whole = read_chunks(c, &r->body);
	else if (length != NULL)
		r->whole = client_take(c, &r->body, strtoul(length, NULL, 10));
	else
		while (client_take(c, &r->body, 1))
			;
	buf_put_u8(&r->body, 0);
	r->body.len--;
	/* Whatever is refused is refused in the contract's shape. */
	if (r->status >= 400) {
		CU_ASSERT_PTR_NOT_NULL(reply_header(r, "Content-Type: application/json"));
		if (!head_only)
			CU_ASSERT(strncmp((char *)r->body.data, "{\"status\":\"error\",\"code\":\"", 26) == 0);
	}
	return true;
}

static inline void expect(struct client *c, int status, const char *in_body)
{
	struct reply r;

	if (!client_reply(c, &r, false)) {
		CU_FAIL("the connection was closed without a reply");
		return;
	}
	CU_ASSERT_EQUAL(r.status, status);
	CU_ASSERT(r.whole);
	if (r.status != status || strstr((char *)r.body.data, in_body) == NULL) {
		printf("\n  got %d: %s\n", r.status, (char *)r.body.data);
		CU_FAIL("another answer was expected");
	}
	buf_fini(&r.body);
}

static inline void expect_end(struct client *c)
{
	while (client_read(c))
		;
	CU_ASSERT_EQUAL(c->in.len, 0);
}

/* One request on a connection of its own, which is expected to be closed after the answer. */
static inline void expect_refusal(const struct site *site, const char *request, int status, const char *in_body)
{
	struct client c;

	client_open(&c, site);
	client_say(&c, request);
	expect(&c, status, in_body);
	expect_end(&c);
	client_close(&c);
}

static inline struct http_counters counters_of(struct site *site)
{
	struct http_counters counters;

	http_server_get_counters(site->server, &counters);
	return counters;
}

static inline void wait_kept(struct site *site, unsigned count)
{
	pthread_mutex_lock(&site->lock);
	while (site->kept_count < count)
		pthread_cond_wait(&site->changed, &site->lock);
	pthread_mutex_unlock(&site->lock);
}

static inline void wait_streams_ended(struct site *site, unsigned count)
{
	pthread_mutex_lock(&site->lock);
	while (site->streams_ended < count)
		pthread_cond_wait(&site->changed, &site->lock);
	pthread_mutex_unlock(&site->lock);
}

/* A reply brought to the worker by another thread. */
struct answer_task {
	struct http_task task;
	struct site *site;
	struct http_request *req;
};

static inline void run_answer(struct http_task *task)
{
	struct answer_task *a = (struct answer_task *)task;
	struct buf body = {0};

	if (atomic_load(http_request_gone(a->req))) {
		pthread_mutex_lock(&a->site->lock);
		a->site->gone_replies++;
		pthread_cond_broadcast(&a->site->changed);
		pthread_mutex_unlock(&a->site->lock);
	}
	buf_puts(&body, "late");
	http_reply(a->req, 200, "text/plain", &body);
	free(a);
}

static inline void answer(struct site *site, unsigned index)
{
	struct answer_task *a = calloc(1, sizeof(*a));

	a->task.run = run_answer;
	a->site = site;
	a->req = site->kept[index];
	http_worker_post(site->kept_worker[index], &a->task);
}

#define GET_LATER  "GET /later HTTP/1.1\r\nHost: x\r\n\r\n"
#define POST_ECHO  "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
#define POST_LATER "POST /later HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"

#endif

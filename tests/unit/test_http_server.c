/*
 * test_http_server.c - the HTTP front, attacked with raw sockets.
 *
 * Every answer is checked to be one of ours: no client may ever see a page that libevent made up.
 */
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
#include "tests/unit/unit.h"

#define TOKEN    "0123456789abcdef0123456789abcdef"
#define WAIT_MS  10000
#define KEPT_MAX 256

#ifdef __SANITIZE_THREAD__
/* libevent's epoll changelist may still name a descriptor that its worker has closed and another worker was just given by
 * accept(): the EPOLL_CTL_DEL then fails with ENOENT, for it is not in that epoll set, and libevent ignores it. */
const char *__tsan_default_suppressions(void);

const char *__tsan_default_suppressions(void)
{
	return "race:evutil_accept4_\n";
}
#endif

/* --- A server with routes of every kind. --- */

struct site {
	struct http_server *server;
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
	enum db_err stream_result;
	unsigned streams_ended, pieces_taken;
	unsigned workers_started, workers_stopped;
	struct http_worker *workers[8];
};

static void handle_echo(void *arg, struct http_request *req)
{
	struct buf body = {0};
	const void *bytes;
	size_t len;

	(void)arg;
	bytes = http_request_body(req, &len);
	buf_put(&body, bytes, len);
	http_reply(req, 200, "application/octet-stream", &body);
}

static void handle_get(void *arg, struct http_request *req)
{
	struct buf body = {0};

	(void)arg;
	buf_printf(&body, "%s %s", http_request_method_name(req), http_request_path(req));
	http_reply(req, 200, "text/plain", &body);
}

static void handle_mixed(void *arg, struct http_request *req)
{
	struct buf body = {0};

	(void)arg;
	buf_puts(&body, http_request_authorized(req) ? "by header" : "by body");
	http_reply(req, 200, "text/plain", &body);
}

static void handle_later(void *arg, struct http_request *req)
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

static void *produce(void *arg)
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

static void handle_stream(void *arg, struct http_request *req)
{
	struct producer *p = calloc(1, sizeof(*p));
	pthread_t thread;

	p->site = arg;
	CU_ASSERT_EQUAL_FATAL(http_stream_create(&p->stream, req, 200, "application/json"), DB_OK);
	pthread_create(&thread, NULL, produce, p);
	pthread_detach(thread);
}

static enum db_err on_worker_start(void *arg, struct http_worker *worker, void **data, struct errmsg *em)
{
	struct site *site = arg;

	(void)em;
	site->workers[site->workers_started++] = worker;
	*data = &site->workers_stopped;
	return DB_OK;
}

static void on_worker_stop(void *arg, struct http_worker *worker, void *data)
{
	struct site *site = arg;

	CU_ASSERT_PTR_EQUAL(data, &site->workers_stopped);
	CU_ASSERT_PTR_EQUAL(http_worker_data(worker), data);
	pthread_mutex_lock(&site->lock);
	site->workers_stopped++;
	pthread_mutex_unlock(&site->lock);
}

static const struct http_route routes[] = {
    {"/echo", HTTP_POST, HTTP_OPEN, handle_echo},
    {"/get", HTTP_GET | HTTP_HEAD, HTTP_OPEN, handle_get},
    {"/secret", HTTP_GET | HTTP_POST, HTTP_TOKEN, handle_get},
    {"/mixed", HTTP_POST, HTTP_TOKEN_OR_BODY, handle_mixed},
    {"/later", HTTP_GET | HTTP_POST, HTTP_OPEN, handle_later},
    {"/stream", HTTP_GET | HTTP_HEAD, HTTP_OPEN, handle_stream},
    {NULL, 0, HTTP_OPEN, NULL},
};

static void site_open(struct site *site, struct http_options options)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);
	struct errmsg em = {0};

	memset(site, 0, sizeof(*site));
	pthread_mutex_init(&site->lock, NULL);
	pthread_cond_init(&site->changed, NULL);
	site->whole = true;
	site->stall_ms = WAIT_MS;
	options.token = TOKEN;
	options.routes = routes;
	options.arg = site;
	options.worker_start = on_worker_start;
	options.worker_stop = on_worker_stop;
	site->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	CU_ASSERT_FATAL(bind(site->fd, (struct sockaddr *)&address, len) == 0 && listen(site->fd, 512) == 0);
	getsockname(site->fd, (struct sockaddr *)&address, &len);
	site->port = ntohs(address.sin_port);
	UNIT_OK(http_server_create(&site->server, &options, &em), &em);
	UNIT_OK(http_server_listen(site->server, site->fd, true, &site->listener, &em), &em);
}

static void site_close(struct site *site)
{
	http_server_free(site->server);
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

static void client_open(struct client *c, const struct site *site)
{
	struct sockaddr_in address = {
	    .sin_family = AF_INET, .sin_port = htons(site->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	memset(c, 0, sizeof(*c));
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CU_ASSERT_FATAL(connect(c->fd, (struct sockaddr *)&address, sizeof(address)) == 0);
}

static void client_close(struct client *c)
{
	close(c->fd);
	buf_fini(&c->in);
}

static bool client_send(struct client *c, const void *bytes, size_t len)
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

static bool client_say(struct client *c, const char *text)
{
	return client_send(c, text, strlen(text));
}

/* False at the end of the connection. */
static bool client_read(struct client *c)
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

static void client_skip(struct client *c, size_t n)
{
	memmove(c->in.data, c->in.data + n, c->in.len - n);
	c->in.len -= n;
}

static bool client_line(struct client *c, char *line, size_t size)
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

static bool client_take(struct client *c, struct buf *out, size_t len)
{
	while (c->in.len < len)
		if (!client_read(c))
			return false;
	buf_put(out, c->in.data, len);
	client_skip(c, len);
	return true;
}

static bool read_chunks(struct client *c, struct buf *out)
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
static bool client_reply(struct client *c, struct reply *r, bool head_only)
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

static void expect(struct client *c, int status, const char *in_body)
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

static void expect_end(struct client *c)
{
	while (client_read(c))
		;
	CU_ASSERT_EQUAL(c->in.len, 0);
}

/* One request on a connection of its own, which is expected to be closed after the answer. */
static void expect_refusal(const struct site *site, const char *request, int status, const char *in_body)
{
	struct client c;

	client_open(&c, site);
	client_say(&c, request);
	expect(&c, status, in_body);
	expect_end(&c);
	client_close(&c);
}

static struct http_counters counters_of(struct site *site)
{
	struct http_counters counters;

	http_server_get_counters(site->server, &counters);
	return counters;
}

static void wait_kept(struct site *site, unsigned count)
{
	pthread_mutex_lock(&site->lock);
	while (site->kept_count < count)
		pthread_cond_wait(&site->changed, &site->lock);
	pthread_mutex_unlock(&site->lock);
}

static void wait_streams_ended(struct site *site, unsigned count)
{
	pthread_mutex_lock(&site->lock);
	while (site->streams_ended < count)
		pthread_cond_wait(&site->changed, &site->lock);
	pthread_mutex_unlock(&site->lock);
}

/* Waits for another thread to do what no event tells of. */
#define AWAIT(condition)                                                                                               \
	do {                                                                                                           \
		uint64_t await_until_ms = clock_mono_ms() + WAIT_MS;                                                   \
                                                                                                                       \
		while (!(condition) && clock_mono_ms() < await_until_ms)                                               \
			poll(NULL, 0, 1);                                                                              \
		CU_ASSERT(condition);                                                                                  \
	} while (0)

/* A reply brought to the worker by another thread. */
struct answer_task {
	struct http_task task;
	struct site *site;
	struct http_request *req;
};

static void run_answer(struct http_task *task)
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

static void answer(struct site *site, unsigned index)
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

/* --- Requests as they should be. --- */

static void test_connection_is_kept_and_reused(void)
{
	struct site site;
	struct client c;
	int i;

	site_open(&site, (struct http_options){0});
	client_open(&c, &site);
	for (i = 0; i < 100; i++) {
		client_say(&c, POST_ECHO);
		expect(&c, 200, "hello");
	}
	CU_ASSERT_EQUAL(counters_of(&site).connections_total, 1);
	CU_ASSERT_EQUAL(counters_of(&site).requests_total, 100);
	CU_ASSERT_EQUAL(counters_of(&site).replies_by_class[2], 100);
	AWAIT(counters_of(&site).requests_in_flight == 0);
	client_close(&c);
	AWAIT(counters_of(&site).connections_open == 0);
	site_close(&site);
}

static void test_request_may_come_byte_by_byte(void)
{
	static const char *const requests[] = {
	    POST_ECHO, "\r\n" POST_ECHO,
	    "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
	    "POST /echo HTTP/1.1\nContent-Length: 5\n\nhello"};
	struct site site;
	struct client c;
	size_t i, at;

	site_open(&site, (struct http_options){0});
	client_open(&c, &site);
	for (i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		for (at = 0; requests[i][at] != '\0'; at++)
			client_send(&c, requests[i] + at, 1);
		expect(&c, 200, "hello");
	}
	client_close(&c);
	site_close(&site);
}

static void test_pipelined_requests_are_answered_in_order(void)
{
	struct buf many = {0};
	struct site site;
	struct client c;
	int i;

	site_open(&site, (struct http_options){0});
	client_open(&c, &site);
	for (i = 0; i < 500; i++)
		buf_printf(&many, "POST /echo HTTP/1.1\r\nContent-Length: 4\r\n\r\n%04dGET /get?%d HTTP/1.1\r\n\r\n", i,
			   i);
	client_send(&c, many.data, many.len);
	for (i = 0; i < 500; i++) {
		char number[16];

		snprintf(number, sizeof(number), "%04d", i);
		expect(&c, 200, number);
		expect(&c, 200, "GET /get");
	}
	buf_fini(&many);
	client_close(&c);
	site_close(&site);
}

static void test_client_may_run_ahead_of_a_pending_reply(void)
{
	struct site site;
	struct client c;

	site_open(&site, (struct http_options){.worker_count = 1});
	client_open(&c, &site);
	client_say(&c, GET_LATER);
	wait_kept(&site, 1);
	client_say(&c, POST_ECHO); /* evhttp would exit on this */
	client_say(&c, POST_LATER);
	answer(&site, 0);
	expect(&c, 200, "late");
	expect(&c, 200, "hello");
	wait_kept(&site, 2);
	client_say(&c, "garbage behind it\r\n\r\n");
	answer(&site, 1);
	expect(&c, 200, "late");
	expect(&c, 400, "BAD_REQUEST");
	expect_end(&c);
	client_close(&c);
	site_close(&site);
}

static void test_http_1_0_closes_unless_asked_to_keep(void)
{
	struct site site;
	struct client c;

	site_open(&site, (struct http_options){0});
	client_open(&c, &site);
	client_say(&c, "GET /get HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	expect(&c, 200, "GET /get");
	client_say(&c, "GET /get HTTP/1.0\r\n\r\n");
	{
		struct reply r;

		CU_ASSERT(client_reply(&c, &r, false));
		CU_ASSERT_STRING_EQUAL((char *)r.body.data, "GET /get");
		buf_fini(&r.body);
	}
	expect_end(&c);
	client_close(&c);
	client_open(&c, &site);
	client_say(&c, "GET /get HTTP/1.1\r\nConnection: close\r\n\r\n");
	expect(&c, 200, "GET /get");
	expect_end(&c);
	client_close(&c);
	site_close(&site);
}

static void test_head_has_length_and_no_body(void)
{
	struct site site;
	struct client c;
	struct reply r;

	site_open(&site, (struct http_options){0});
	client_open(&c, &site);
	client_say(&c, "HEAD /get HTTP/1.1\r\n\r\n");
	CU_ASSERT(client_reply(&c, &r, true));
	CU_ASSERT_EQUAL(r.status, 200);
	CU_ASSERT_PTR_NOT_NULL(reply_header(&r, "Content-Length: 9"));
	buf_fini(&r.body);
	client_say(&c, "HEAD /echo HTTP/1.1\r\n\r\n");
	CU_ASSERT(client_reply(&c, &r, true));
	CU_ASSERT_EQUAL(r.status, 405);
	buf_fini(&r.body);
	site.piece_count = 3;
	site.piece_bytes = 1000;
	client_say(&c, "HEAD /stream HTTP/1.1\r\n\r\n");
	CU_ASSERT(client_reply(&c, &r, true));
	CU_ASSERT_EQUAL(r.status, 200);
	buf_fini(&r.body);
	client_say(&c, POST_ECHO);
	expect(&c, 200, "hello");
	client_close(&c);
	site_close(&site);
}

static void test_expect_continue_is_answered(void)
{
	struct site site;
	struct client c;
	struct reply r;

	site_open(&site, (struct http_options){.body_bytes_max = 100});
	client_open(&c, &site);
	client_say(&c, "POST /echo HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
	CU_ASSERT(client_reply(&c, &r, true));
	CU_ASSERT_EQUAL(r.status, 100);
	buf_fini(&r.body);
	client_say(&c, "hello");
	expect(&c, 200, "hello");
	client_say(&c, "POST /echo HTTP/1.1\r\nContent-Length: 101\r\nExpect: 100-continue\r\n\r\n");
	expect(&c, 413, "TOO_LARGE");
	expect_end(&c);
	client_close(&c);
	site_close(&site);
}

static void test_large_bodies_pass_whole(void)
{
	const size_t size = 5u << 20;
	char *bytes = malloc(size);
	struct site site;
	struct client c;
	struct reply r;
	char head[128];
	size_t i;

	for (i = 0; i < size; i++)
		bytes[i] = (char)(i * 7 + i / 251);
	site_open(&site, (struct http_options){0});
	client_open(&c, &site);
	snprintf(head, sizeof(head), "POST /echo HTTP/1.1\r\nContent-Length: %zu\r\n\r\n", size);
	client_say(&c, head);
	client_send(&c, bytes, size);
	CU_ASSERT(client_reply(&c, &r, false));
	CU_ASSERT_EQUAL_FATAL(r.body.len, size);
	CU_ASSERT(memcmp(r.body.data, bytes, size) == 0);
	buf_fini(&r.body);
	client_say(&c, POST_ECHO);
	expect(&c, 200, "hello");
	free(bytes);
	client_close(&c);
	site_close(&site);
}

/* --- Requests as they should not be. --- */

static void test_bad_requests_are_refused_in_json(void)
{
	static const char *const bad[] = {
	    "GARBAGE\r\n\r\n",
	    "GET\r\n\r\n",
	    "GET /get\r\n\r\n",
	    "GET  /get HTTP/1.1\r\n\r\n",
	    "GET /get HTTP/2.0\r\n\r\n",
	    "GET /get HTTP/1.1 \r\n\r\n",
	    "GET /get HTTP/1.10\r\n\r\n",
	    "GET http://x/get HTTP/1.1\r\n\r\n",
	    "GET //get HTTP/1.1\r\n\r\n",
	    "GET * HTTP/1.1\r\n\r\n",
	    "GET /g\001et HTTP/1.1\r\n\r\n",
	    "\r\n \r\n",
	    "GET /get HTTP/1.1\r\nno colon\r\n\r\n",
	    "GET /get HTTP/1.1\r\n: x\r\n\r\n",
	    "GET /get HTTP/1.1\r\nA b: x\r\n\r\n",
	    "GET /get HTTP/1.1\r\nA: x\r\n folded\r\n\r\n",
	    "GET /get HTTP/1.1\r\nA: x\ry\r\n\r\n",
	    "GET /get HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
	    "GET /get HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
	    "GET /get HTTP/1.1\r\nExpect: cake\r\n\r\n",
	    "POST /echo HTTP/1.1\r\nContent-Length: x\r\n\r\n",
	    "POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
	    "POST /echo HTTP/1.1\r\nContent-Length: +5\r\n\r\nhello",
	    "POST /echo HTTP/1.1\r\nContent-Length:\r\n\r\n",
	    "POST /echo HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
	    "POST /echo HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
	    "POST /echo HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
	    "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
	    "POST /echo HTTP/1.1\r\nConnection: keep-alive\r\n\r\n",
	    "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
	    "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
	    "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
	    "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;ext\r\nhello\r\n0\r\n\r\n",
	    "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
	    "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: Bearer x\r\n\r\n"};
	struct site site;
	size_t i;

	site_open(&site, (struct http_options){0});
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		expect_refusal(&site, bad[i], 400, "\"BAD_REQUEST\"");
	CU_ASSERT_EQUAL(counters_of(&site).replies_by_class[4], i);
	expect_refusal(&site, "BREW /get HTTP/1.1\r\n\r\n", 405, "METHOD_NOT_ALLOWED");
	expect_refusal(&site, "get /get HTTP/1.1\r\n\r\n", 405, "METHOD_NOT_ALLOWED");
	site_close(&site);
}

static void test_unknown_paths_and_methods_keep_the_connection(void)
{
	struct site site;
	struct client c;

	site_open(&site, (struct http_options){0});
	client_open(&c, &site);
	client_say(&c, "GET /nowhere HTTP/1.1\r\n\r\n");
	expect(&c, 404, "NOT_FOUND");
	client_say(&c, "GET / HTTP/1.1\r\n\r\n");
	expect(&c, 404, "NOT_FOUND");
	client_say(&c, "GET /get/ HTTP/1.1\r\n\r\n");
	expect(&c, 404, "NOT_FOUND");
	client_say(&c, "GET /%67et HTTP/1.1\r\n\r\n");
	expect(&c, 404, "NOT_FOUND");
	client_say(&c, "GET /echo HTTP/1.1\r\n\r\n");
	expect(&c, 405, "METHOD_NOT_ALLOWED");
	client_say(&c, "DELETE /get HTTP/1.1\r\n\r\n");
	expect(&c, 405, "METHOD_NOT_ALLOWED");
	client_say(&c, "PATCH /get HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}");
	expect(&c, 405, "METHOD_NOT_ALLOWED");
	client_say(&c, "GET /get?x=/echo HTTP/1.1\r\n\r\n");
	expect(&c, 200, "GET /get");
	CU_ASSERT_EQUAL(counters_of(&site).connections_total, 1);
	client_close(&c);
	site_close(&site);
}

static void test_body_over_the_limit_is_told_so(void)
{
	const size_t size = 8u << 20;
	char *bytes = calloc(1, size);
	struct site site;
	struct client c;

	site_open(&site, (struct http_options){.body_bytes_max = 1000, .header_bytes_max = 2000});
	/* The client sends all it has before it reads: it must still get the answer, not a reset. */
	client_open(&c, &site);
	client_say(&c, "POST /echo HTTP/1.1\r\nContent-Length: 8388608\r\n\r\n");
	client_send(&c, bytes, size);
	expect(&c, 413, "TOO_LARGE");
	expect_end(&c);
	client_close(&c);
	expect_refusal(&site, "POST /echo HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", 413, "TOO_LARGE");
	expect_refusal(&site, "POST /echo HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413,
		       "TOO_LARGE");
	expect_refusal(&site, "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", 413, "TOO_LARGE");
	memset(bytes, 'a', 4000);
	client_open(&c, &site);
	client_say(&c, "GET /get HTTP/1.1\r\nA: ");
	client_send(&c, bytes, 4000);
	expect(&c, 413, "TOO_LARGE");
	expect_end(&c);
	client_close(&c);
	free(bytes);
	site_close(&site);
}

static void test_slow_request_is_ended_by_its_deadline(void)
{
	struct site site;
	struct client c, slow;
	uint64_t started_ms = clock_mono_ms();

	site_open(&site, (struct http_options){.request_timeout_ms = 200, .idle_timeout_ms = 300});
	client_open(&c, &site);
	client_open(&slow, &site);
	client_say(&slow, "POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nhel");
	/* Bytes that keep coming do not prolong it. */
	client_say(&c, "GET /get HTTP/1.1\r\n");
	while (recv(c.fd, &(char){0}, 1, MSG_PEEK | MSG_DONTWAIT) == -1 && clock_mono_ms() - started_ms < WAIT_MS) {
		poll(NULL, 0, 20);
		client_say(&c, "a: b\r\n");
	}
	expect(&c, 504, "TIMEOUT");
	expect(&slow, 504, "TIMEOUT");
	expect_end(&slow);
	client_close(&c);
	client_close(&slow);
	CU_ASSERT(clock_mono_ms() - started_ms < 3000);
	/* Without a byte there is nothing to answer. */
	client_open(&c, &site);
	expect_end(&c);
	client_close(&c);
	site_close(&site);
}

/* Every mutation of a good request gets an answer of ours or none, and the server lives on. */
static void test_mutated_requests_never_reach_evhttps_own_answers(void)
{
	static const char *const seeds[] = {
	    POST_ECHO, "GET /get?a=b HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
	    "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n3\r\nabc\r\n0\r\n\r\n"};
	static const char spice[] = "\r\n\t :;/?#%[]@HTTP/1.0\"\\+-xF0\x7f\x80\xff";
	unsigned seed = 12345;
	struct site site;
	struct client c;
	struct reply r;
	char text[512];
	size_t len;
	int i, j;

	site_open(&site, (struct http_options){0});
	for (i = 0; i < 1500; i++) {
		strcpy(text, seeds[i % 3]);
		len = strlen(text);
		for (j = rand_r(&seed) % 3; j >= 0; j--) {
			size_t at = (size_t)rand_r(&seed) % len;

			switch (rand_r(&seed) % 3) {
			case 0:
				text[at] = spice[(size_t)rand_r(&seed) % sizeof(spice)];
				break;
			case 1:
				memmove(text + at, text + at + 1, len - at);
				len--;
				break;
			default:
				memmove(text + at + 1, text + at, len - at + 1);
				text[at] = spice[(size_t)rand_r(&seed) % sizeof(spice)];
				len++;
				break;
			}
		}
		client_open(&c, &site);
		client_send(&c, text, len);
		shutdown(c.fd, SHUT_WR);
		while (client_reply(&c, &r, false)) /* asserts the shape */
			buf_fini(&r.body);
		client_close(&c);
	}
	AWAIT(counters_of(&site).connections_open == 0);
	site_close(&site);
}

/* --- Tokens. --- */

static void test_tokens_open_only_what_they_should(void)
{
	struct site site;
	struct client c;

	site_open(&site, (struct http_options){0});
	client_open(&c, &site);
	client_say(&c, "GET /secret HTTP/1.1\r\n\r\n");
	expect(&c, 401, "UNAUTHORIZED");
	client_say(&c, "GET /secret HTTP/1.1\r\nAuthorization: Bearer " TOKEN "x\r\n\r\n");
	expect(&c, 401, "UNAUTHORIZED");
	client_say(&c, "GET /secret HTTP/1.1\r\nAuthorization: Bearer 1123456789abcdef0123456789abcdef\r\n\r\n");
	expect(&c, 401, "UNAUTHORIZED");
	client_say(&c, "GET /secret HTTP/1.1\r\nAuthorization: Bearer\r\n\r\n");
	expect(&c, 401, "UNAUTHORIZED");
	client_say(&c, "GET /secret HTTP/1.1\r\nAuthorization: Basic " TOKEN "\r\n\r\n");
	expect(&c, 401, "UNAUTHORIZED");
	client_say(&c, "GET /secret HTTP/1.1\r\nAuthorization: bearer " TOKEN "\r\n\r\n");
	expect(&c, 200, "GET /secret");
	client_say(&c, "POST /mixed HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
	expect(&c, 200, "by body");
	client_say(&c, "POST /mixed HTTP/1.1\r\nAuthorization: Bearer wrong\r\nContent-Length: 0\r\n\r\n");
	expect(&c, 401, "UNAUTHORIZED");
	client_say(&c, "POST /mixed HTTP/1.1\r\nAuthorization: Bearer " TOKEN "\r\nContent-Length: 0\r\n\r\n");
	expect(&c, 200, "by header");
	client_say(&c, "GET /nowhere HTTP/1.1\r\n\r\n");
	expect(&c, 404, "NOT_FOUND");
	CU_ASSERT_EQUAL(counters_of(&site).auth_failures_total, 6);
	CU_ASSERT(http_token_ok(site.server, TOKEN, strlen(TOKEN)));
	CU_ASSERT(!http_token_ok(site.server, TOKEN, strlen(TOKEN) - 1));
	CU_ASSERT(!http_token_ok(site.server, "", 0));
	client_close(&c);
	site_close(&site);
}

/* --- Clients that go, threads that post. --- */

static void test_reply_to_a_vanished_client_is_dropped(void)
{
	static const char *const requests[] = {GET_LATER, POST_LATER};
	struct site site;
	struct client c;
	unsigned i;

	site_open(&site, (struct http_options){0});
	for (i = 0; i < 2; i++) {
		client_open(&c, &site);
		client_say(&c, requests[i]);
		wait_kept(&site, i + 1);
		CU_ASSERT(!atomic_load(http_request_gone(site.kept[i])));
		client_close(&c);
		AWAIT(atomic_load(http_request_gone(site.kept[i])));
		CU_ASSERT_EQUAL(counters_of(&site).requests_in_flight, 1);
		answer(&site, i);
		AWAIT(counters_of(&site).requests_in_flight == 0);
	}
	CU_ASSERT_EQUAL(counters_of(&site).replies_by_class[2], 0);
	AWAIT(counters_of(&site).connections_open == 0);
	site_close(&site);
	CU_ASSERT_EQUAL(site.gone_replies, 2);
}

static void test_200_connections_at_once(void)
{
	struct client c[200];
	struct site site;
	unsigned i;

	site_open(&site, (struct http_options){0});
	for (i = 0; i < 200; i++) {
		client_open(&c[i], &site);
		client_say(&c[i], GET_LATER);
	}
	wait_kept(&site, 200);
	CU_ASSERT_EQUAL(counters_of(&site).connections_open, 200);
	for (i = 0; i < 200; i++)
		answer(&site, 199 - i);
	for (i = 0; i < 200; i++) {
		expect(&c[i], 200, "late");
		client_say(&c[i], POST_ECHO);
	}
	for (i = 0; i < 200; i++) {
		expect(&c[i], 200, "hello");
		client_close(&c[i]);
	}
	AWAIT(counters_of(&site).connections_open == 0);
	site_close(&site);
}

static void test_connections_beyond_the_limit_wait(void)
{
	struct client c[6];
	struct site site;
	unsigned i;

	site_open(&site, (struct http_options){.connections_max = 3, .worker_count = 1});
	for (i = 0; i < 6; i++) {
		client_open(&c[i], &site);
		client_say(&c[i], POST_ECHO);
	}
	for (i = 0; i < 3; i++)
		expect(&c[i], 200, "hello");
	CU_ASSERT_EQUAL(counters_of(&site).connections_total, 3);
	for (i = 0; i < 3; i++) {
		client_close(&c[i]);
		expect(&c[i + 3], 200, "hello");
	}
	for (i = 3; i < 6; i++)
		client_close(&c[i]);
	site_close(&site);
}

static void test_accepting_stops_and_starts(void)
{
	struct client kept, waiting;
	struct site site;
	struct pollfd pfd;
	int i;

	site_open(&site, (struct http_options){0});
	client_open(&kept, &site);
	client_say(&kept, POST_ECHO);
	expect(&kept, 200, "hello");
	for (i = 0; i < 20; i++) {
		http_server_set_accepting(site.server, site.listener, false);
		client_open(&waiting, &site);
		client_say(&waiting, POST_ECHO);
		client_say(&kept, POST_ECHO);
		expect(&kept, 200, "hello");
		pfd = (struct pollfd){waiting.fd, POLLIN, 0};
		CU_ASSERT_EQUAL(poll(&pfd, 1, 2), 0);
		CU_ASSERT_EQUAL(counters_of(&site).connections_total, 1 + (uint64_t)i);
		http_server_set_accepting(site.server, site.listener, true);
		expect(&waiting, 200, "hello");
		client_close(&waiting);
	}
	client_close(&kept);
	site_close(&site);
}

struct switcher {
	struct http_task task;
	struct site *site;
	atomic_uint *done;
};

static void run_switcher(struct http_task *task)
{
	struct switcher *s = (struct switcher *)task;

	http_server_set_accepting(s->site->server, s->site->listener, false);
	http_server_set_accepting(s->site->server, s->site->listener, true);
	atomic_fetch_add(s->done, 1);
	free(s);
}

static void test_workers_may_all_switch_accepting_at_once(void)
{
	atomic_uint done = 0;
	struct switcher *s;
	struct site site;
	unsigned i;

	site_open(&site, (struct http_options){.worker_count = 4});
	for (i = 0; i < 200; i++) {
		s = calloc(1, sizeof(*s));
		s->task.run = run_switcher;
		s->site = &site;
		s->done = &done;
		http_worker_post(site.workers[i % 4], &s->task);
	}
	AWAIT(atomic_load(&done) == 200);
	site_close(&site);
}

struct counted {
	struct http_task task;
	atomic_uint *count;
	struct http_worker *repost; /* post once more, from the worker itself */
};

static void run_counted(struct http_task *task)
{
	struct counted *c = (struct counted *)task;
	struct http_worker *w = c->repost;

	c->repost = NULL;
	atomic_fetch_add(c->count, 1);
	if (w != NULL)
		http_worker_post(w, task);
	else
		free(c);
}

struct poster {
	pthread_t thread;
	struct site *site;
	atomic_uint *count;
};

static void *post_many(void *arg)
{
	struct poster *p = arg;
	struct counted *c;
	unsigned i;

	for (i = 0; i < 5000; i++) {
		c = calloc(1, sizeof(*c));
		c->task.run = run_counted;
		c->count = p->count;
		c->repost = p->site->workers[i % 2];
		http_worker_post(p->site->workers[i % 2], &c->task);
	}
	return NULL;
}

static void test_every_posted_task_runs_once(void)
{
	atomic_uint count = 0;
	struct poster posters[4];
	struct site site;
	unsigned i;

	site_open(&site, (struct http_options){0});
	for (i = 0; i < 4; i++) {
		posters[i].site = &site;
		posters[i].count = &count;
		pthread_create(&posters[i].thread, NULL, post_many, &posters[i]);
	}
	for (i = 0; i < 4; i++)
		pthread_join(posters[i].thread, NULL);
	site_close(&site); /* runs what is left */
	CU_ASSERT_EQUAL(atomic_load(&count), 4 * 5000 * 2);
}

/* --- Streams. --- */

static void test_stream_passes_whole_at_the_readers_pace(void)
{
	struct site site;
	struct client c;
	struct reply r;
	size_t i;

	site_open(&site, (struct http_options){0});
	site.piece_bytes = 100000;
	site.piece_count = 200; /* 20 MB, far beyond what socket buffers and the stream may hold */
	client_open(&c, &site);
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	CU_ASSERT(client_reply(&c, &r, false));
	CU_ASSERT(r.whole);
	CU_ASSERT_EQUAL_FATAL(r.body.len, 20000000);
	for (i = 0; i < r.body.len; i += 100000)
		CU_ASSERT_EQUAL(r.body.data[i], 'a' + i / 100000 % 26);
	buf_fini(&r.body);
	client_say(&c, POST_ECHO); /* the connection lives on */
	expect(&c, 200, "hello");
	wait_streams_ended(&site, 1);
	CU_ASSERT_EQUAL(site.stream_result, DB_OK);
	client_close(&c);
	site_close(&site);
}

static void test_empty_and_failed_streams_answer_properly(void)
{
	struct site site;
	struct client c;
	struct reply r;

	site_open(&site, (struct http_options){0});
	client_open(&c, &site);
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	CU_ASSERT(client_reply(&c, &r, false));
	CU_ASSERT(r.whole && r.status == 200 && r.body.len == 0);
	buf_fini(&r.body);
	wait_streams_ended(&site, 1);
	site.stream_error = true;
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	expect(&c, 409, "no such luck");
	wait_streams_ended(&site, 2);
	client_close(&c);
	site_close(&site);
}

static void test_broken_stream_is_not_taken_for_whole(void)
{
	struct site site;
	struct client c;
	struct reply r;

	site_open(&site, (struct http_options){0});
	site.piece_bytes = 1000;
	site.piece_count = 5;
	site.whole = false;
	client_open(&c, &site);
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	CU_ASSERT(client_reply(&c, &r, false));
	CU_ASSERT(!r.whole);
	CU_ASSERT_EQUAL(r.body.len, 5000); /* what was written before the end came all the same */
	buf_fini(&r.body);
	client_close(&c);
	wait_streams_ended(&site, 1);
	site.piece_count = 0;
	client_open(&c, &site);
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	expect_end(&c); /* nothing was sent, so there is nothing to break off */
	client_close(&c);
	site_close(&site);
}

static void test_http_1_0_stream_ends_with_the_connection(void)
{
	struct site site;
	struct client c;
	struct reply r;

	site_open(&site, (struct http_options){0});
	site.piece_bytes = 1000;
	site.piece_count = 5;
	client_open(&c, &site);
	client_say(&c, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	CU_ASSERT(client_reply(&c, &r, false));
	CU_ASSERT_EQUAL(r.body.len, 5000);
	CU_ASSERT_PTR_NULL(reply_header(&r, "Content-Length"));
	buf_fini(&r.body);
	client_close(&c);
	site_close(&site);
}

static void test_slow_reader_holds_the_producer_back_and_is_cut_off(void)
{
	struct site site;
	struct client c;

	site_open(&site, (struct http_options){0});
	site.piece_bytes = 65536;
	site.piece_count = 10000;
	site.stall_ms = 300;
	client_open(&c, &site);
	setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &(int){65536}, sizeof(int));
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	wait_streams_ended(&site, 1);
	CU_ASSERT_EQUAL(site.stream_result, DB_TIMEOUT);
	CU_ASSERT(site.pieces_taken < 300); /* socket buffers, 256 KiB, and no more */
	AWAIT(counters_of(&site).connections_open == 0);
	client_close(&c);
	site_close(&site);
}

static void test_vanishing_reader_wakes_the_producer(void)
{
	struct site site;
	struct client c;

	site_open(&site, (struct http_options){0});
	site.piece_bytes = 65536;
	site.piece_count = 10000;
	client_open(&c, &site);
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	CU_ASSERT(client_read(&c));
	client_close(&c);
	wait_streams_ended(&site, 1);
	CU_ASSERT_EQUAL(site.stream_result, DB_CLOSED);
	AWAIT(counters_of(&site).requests_in_flight == 0);
	site_close(&site);
}

/* --- The end. --- */

struct stopper {
	pthread_t thread;
	struct site *site;
	uint64_t grace_ms;
	uint64_t took_ms;
	atomic_bool done;
};

static void *stop_server(void *arg)
{
	struct stopper *s = arg;
	uint64_t started_ms = clock_mono_ms();

	http_server_stop(s->site->server, s->grace_ms);
	s->took_ms = clock_mono_ms() - started_ms;
	atomic_store(&s->done, true);
	return NULL;
}

static void test_stop_answers_what_is_in_flight(void)
{
	struct stopper s = {.grace_ms = WAIT_MS};
	struct client idle, busy;
	struct reply r;
	struct site site;

	site_open(&site, (struct http_options){.worker_count = 1});
	s.site = &site;
	client_open(&idle, &site);
	client_say(&idle, POST_ECHO);
	expect(&idle, 200, "hello");
	client_open(&busy, &site);
	client_say(&busy, POST_LATER);
	wait_kept(&site, 1);
	pthread_create(&s.thread, NULL, stop_server, &s);
	expect_end(&idle); /* stopping has begun */
	CU_ASSERT(!atomic_load(&s.done));
	answer(&site, 0);
	CU_ASSERT(client_reply(&busy, &r, false));
	CU_ASSERT_EQUAL(r.status, 200);
	CU_ASSERT_PTR_NOT_NULL(reply_header(&r, "Connection: close"));
	buf_fini(&r.body);
	expect_end(&busy);
	pthread_join(s.thread, NULL);
	CU_ASSERT(s.took_ms < WAIT_MS);
	client_close(&idle);
	client_close(&busy);
	site_close(&site);
}

static void test_free_waits_for_producers(void)
{
	struct site site;
	struct client c;

	site_open(&site, (struct http_options){0});
	site.piece_bytes = 65536;
	site.piece_count = 10000;
	client_open(&c, &site);
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	CU_ASSERT(client_read(&c));
	http_server_stop(site.server, 0);
	http_server_free(site.server);
	wait_streams_ended(&site, 1);
	CU_ASSERT_EQUAL(site.stream_result, DB_CLOSED);
	CU_ASSERT_EQUAL(site.workers_stopped, 2);
	close(site.fd);
	client_close(&c);
}

static void test_stop_waits_no_longer_than_its_grace(void)
{
	struct stopper s = {.grace_ms = 100};
	struct client busy;
	struct site site;

	site_open(&site, (struct http_options){0});
	s.site = &site;
	client_open(&busy, &site);
	client_say(&busy, POST_LATER);
	wait_kept(&site, 1);
	pthread_create(&s.thread, NULL, stop_server, &s);
	pthread_join(s.thread, NULL);
	CU_ASSERT(s.took_ms >= 100 && s.took_ms < 5000);
	CU_ASSERT(atomic_load(http_request_gone(site.kept[0])));
	expect_end(&busy);
	answer(&site, 0); /* still valid, to nobody */
	client_close(&busy);
	site_close(&site);
	CU_ASSERT_EQUAL(site.gone_replies, 1);
}

static enum db_err fail_second_start(void *arg, struct http_worker *worker, void **data, struct errmsg *em)
{
	unsigned *started = arg;

	(void)worker;
	*data = NULL;
	return (*started)++ == 1 ? errmsg_set(em, DB_FULL, "no more") : DB_OK;
}

static void test_failing_worker_start_fails_the_server(void)
{
	unsigned started = 0;
	struct http_options options = {.worker_count = 3, .routes = routes, .arg = &started};
	struct http_server *server;
	struct errmsg em = {0};

	options.worker_start = fail_second_start;
	CU_ASSERT_EQUAL(http_server_create(&server, &options, &em), DB_FULL);
	CU_ASSERT_PTR_NULL(server);
	CU_ASSERT_STRING_EQUAL(em.text, "no more");
	http_server_free(NULL);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"connection is kept and reused", test_connection_is_kept_and_reused},
	    {"request may come byte by byte", test_request_may_come_byte_by_byte},
	    {"pipelined requests are answered in order", test_pipelined_requests_are_answered_in_order},
	    {"client may run ahead of a pending reply", test_client_may_run_ahead_of_a_pending_reply},
	    {"HTTP/1.0 closes unless asked to keep", test_http_1_0_closes_unless_asked_to_keep},
	    {"HEAD has length and no body", test_head_has_length_and_no_body},
	    {"Expect: 100-continue is answered", test_expect_continue_is_answered},
	    {"large bodies pass whole", test_large_bodies_pass_whole},
	    {"bad requests are refused in JSON", test_bad_requests_are_refused_in_json},
	    {"unknown paths and methods keep the connection", test_unknown_paths_and_methods_keep_the_connection},
	    {"body over the limit is told so", test_body_over_the_limit_is_told_so},
	    {"slow request is ended by its deadline", test_slow_request_is_ended_by_its_deadline},
	    {"mutated requests never reach evhttp's own answers",
	     test_mutated_requests_never_reach_evhttps_own_answers},
	    {"tokens open only what they should", test_tokens_open_only_what_they_should},
	    {"reply to a vanished client is dropped", test_reply_to_a_vanished_client_is_dropped},
	    {"200 connections at once", test_200_connections_at_once},
	    {"connections beyond the limit wait", test_connections_beyond_the_limit_wait},
	    {"accepting stops and starts", test_accepting_stops_and_starts},
	    {"workers may all switch accepting at once", test_workers_may_all_switch_accepting_at_once},
	    {"every posted task runs once", test_every_posted_task_runs_once},
	    {"stream passes whole at the reader's pace", test_stream_passes_whole_at_the_readers_pace},
	    {"empty and failed streams answer properly", test_empty_and_failed_streams_answer_properly},
	    {"broken stream is not taken for whole", test_broken_stream_is_not_taken_for_whole},
	    {"HTTP/1.0 stream ends with the connection", test_http_1_0_stream_ends_with_the_connection},
	    {"slow reader holds the producer back and is cut off",
	     test_slow_reader_holds_the_producer_back_and_is_cut_off},
	    {"vanishing reader wakes the producer", test_vanishing_reader_wakes_the_producer},
	    {"stop answers what is in flight", test_stop_answers_what_is_in_flight},
	    {"free waits for producers", test_free_waits_for_producers},
	    {"stop waits no longer than its grace", test_stop_waits_no_longer_than_its_grace},
	    {"failing worker start fails the server", test_failing_worker_start_fails_the_server},
	    {NULL, NULL},
	};

	return unit_run("http_server", tests);
}

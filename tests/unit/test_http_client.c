/*
 * test_http_client.c - the HTTP client against a real server of ours, and against sockets that misbehave.
 *
 * The client's loop runs on the test's own thread; servers are other threads.
 */
#include <arpa/inet.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/http/server.h"
#include "common/remote/http_client.h"
#include "tests/unit/tsan_epoll.h"
#include "tests/unit/unit.h"

#define TOKEN   "0123456789abcdef0123456789abcdef"
#define WAIT_MS 10000

static int listen_somewhere(char address[64])
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CU_ASSERT_FATAL(bind(fd, (struct sockaddr *)&sin, len) == 0 && listen(fd, 64) == 0);
	getsockname(fd, (struct sockaddr *)&sin, &len);
	snprintf(address, 64, "127.0.0.1:%u", ntohs(sin.sin_port));
	return fd;
}

/* --- The server. --- */

struct site {
	struct http_server *server;
	struct auth *auth; /* TOKEN is its first */
	int fd;
	char address[64];
	pthread_mutex_t lock;
	struct http_request *kept[64];
	unsigned kept_count;
	bool closing; /* nothing is kept any more */
	unsigned most_open;
};

static void handle_echo(void *arg, struct http_request *req)
{
	const char *type = http_request_header(req, "Content-Type");
	struct buf body = {0};
	const void *bytes;
	size_t len;

	(void)arg;
	bytes = http_request_body(req, &len);
	buf_put(&body, bytes, len);
	http_reply(req, 200, type == NULL ? "none/none" : type, &body);
}

static void handle_secret(void *arg, struct http_request *req)
{
	const char *hop = http_request_header(req, "X-Hop");
	struct buf body = {0};

	(void)arg;
	buf_printf(&body, "hop %s", hop == NULL ? "?" : hop);
	http_reply(req, 200, "text/plain", &body);
}

static void handle_never(void *arg, struct http_request *req)
{
	struct site *site = arg;
	struct buf body = {0};
	bool closing;

	pthread_mutex_lock(&site->lock);
	closing = site->closing;
	if (!closing)
		site->kept[site->kept_count++] = req;
	pthread_mutex_unlock(&site->lock);
	if (closing)
		http_reply(req, 200, "text/plain", &body);
}

static void *produce(void *arg)
{
	struct http_stream *st = arg;
	enum db_err err = DB_OK;
	struct buf piece = {0};
	int i;

	for (i = 0; i < 64 && err == DB_OK; i++) {
		CU_ASSERT_FATAL(buf_reserve(&piece, 65536));
		memset(piece.data, 'a' + i % 26, 65536);
		piece.len = 65536;
		err = http_stream_write(st, &piece, WAIT_MS);
	}
	http_stream_end(st, err == DB_OK);
	return NULL;
}

static void handle_stream(void *arg, struct http_request *req)
{
	struct http_stream *st;
	pthread_t thread;

	(void)arg;
	CU_ASSERT_EQUAL_FATAL(http_stream_create(&st, req, 200, "application/x-ndjson"), DB_OK);
	pthread_create(&thread, NULL, produce, st);
	pthread_detach(thread);
}

static const struct http_route routes[] = {
    {"/echo", HTTP_POST, HTTP_OPEN, AUTH_NONE, handle_echo},
    {"/secret", HTTP_GET, HTTP_TOKEN, AUTH_READ, handle_secret},
    {"/never", HTTP_POST, HTTP_OPEN, AUTH_NONE, handle_never},
    {"/stream", HTTP_GET, HTTP_OPEN, AUTH_NONE, handle_stream},
    {NULL, 0, HTTP_OPEN, AUTH_NONE, NULL},
};

static void site_open(struct site *site)
{
	static const uint8_t no_cluster[16];
	struct http_options options = {.routes = routes, .arg = site};
	struct errmsg em = {0};
	int listener;

	memset(site, 0, sizeof(*site));
	pthread_mutex_init(&site->lock, NULL);
	site->fd = listen_somewhere(site->address);
	evutil_make_socket_nonblocking(site->fd);
	UNIT_OK(auth_create(&site->auth, no_cluster, &em), &em);
	UNIT_OK(auth_set_first(site->auth, TOKEN, &em), &em);
	options.auth = site->auth;
	UNIT_OK(http_server_create(&site->server, &options, &em), &em);
	UNIT_OK(http_server_listen(site->server, site->fd, true, &listener, &em), &em);
}

struct release_task {
	struct http_task task;
	struct http_request *req;
};

static void run_release(struct http_task *task)
{
	struct buf body = {0};

	http_reply(((struct release_task *)task)->req, 200, "text/plain", &body);
	free(task);
}

/* Answers what /never has kept. */
static void site_release(struct site *site)
{
	struct release_task *t;
	unsigned i;

	pthread_mutex_lock(&site->lock);
	for (i = 0; i < site->kept_count; i++) {
		t = calloc(1, sizeof(*t));
		t->task.run = run_release;
		t->req = site->kept[i];
		http_worker_post(http_request_worker(t->req), &t->task);
	}
	site->kept_count = 0;
	pthread_mutex_unlock(&site->lock);
}

static void site_close(struct site *site)
{
	pthread_mutex_lock(&site->lock);
	site->closing = true; /* a request whose client has gone may be on its way still */
	pthread_mutex_unlock(&site->lock);
	site_release(site);
	http_server_free(site->server);
	auth_free(site->auth);
	close(site->fd);
	pthread_mutex_destroy(&site->lock);
}

/* --- Calls and what became of them. --- */

struct result {
	struct event_base *base;
	struct http_client *client;
	struct http_call *call;
	int status;
	char content_type[64];
	struct buf body;
	unsigned heads, ends;
	enum db_err err;
	char text[ERRMSG_TEXT_MAX];
	unsigned pause_at; /* refuse the pieces with these numbers, from 1; 0: none */
	unsigned pieces;
	size_t refused_len; /* of the piece that was refused */
	uint8_t refused_first;
	bool cancel_in_body, resume_in_body;
	struct result *start_at_end; /* start this one when we end */
	const char *address;
};

static void on_head(void *arg, int status, const char *content_type)
{
	struct result *r = arg;

	CU_ASSERT_EQUAL(r->ends, 0);
	r->heads++;
	r->status = status;
	snprintf(r->content_type, sizeof(r->content_type), "%s", content_type);
}

static bool on_body(void *arg, const void *bytes, size_t len)
{
	struct result *r = arg;

	CU_ASSERT_EQUAL(r->heads, 1);
	CU_ASSERT_EQUAL(r->ends, 0);
	r->pieces++;
	if (r->cancel_in_body) {
		http_call_cancel(r->call);
		CU_ASSERT_EQUAL(r->ends, 1);
		return true;
	}
	if (r->pause_at == r->pieces) {
		r->refused_len = len;
		r->refused_first = *(const uint8_t *)bytes;
		if (r->resume_in_body)
			http_call_resume(r->call);
		else
			event_base_loopbreak(r->base);
		return false;
	}
	if (r->refused_len > 0) {
		CU_ASSERT(len >= r->refused_len);
		CU_ASSERT_EQUAL(*(const uint8_t *)bytes, r->refused_first);
		r->refused_len = 0;
	}
	buf_put(&r->body, bytes, len);
	return true;
}

static void start(struct result *r, const char *path, const char *body, uint64_t timeout_ms);

static void on_end(void *arg, enum db_err err, const struct errmsg *em)
{
	struct result *r = arg;

	r->ends++;
	r->err = err;
	r->call = NULL;
	if (em != NULL)
		snprintf(r->text, sizeof(r->text), "%s", em->text);
	if (r->start_at_end != NULL)
		start(r->start_at_end, "/echo", "next", WAIT_MS);
	else
		event_base_loopbreak(r->base);
}

static const struct http_call_handler handler = {on_head, on_body, on_end, NULL};

static void start_request(struct result *r, const struct http_call_request *request)
{
	struct http_call_handler h = handler;
	struct errmsg em = {0};

	h.arg = r;
	UNIT_OK(http_call_start(&r->call, r->client, request, &h, &em), &em);
}

static void start(struct result *r, const char *path, const char *body, uint64_t timeout_ms)
{
	struct http_call_request request = {.address = r->address,
					    .path = path,
					    .body = body,
					    .body_len = body == NULL ? 0 : strlen(body),
					    .deadline_ms = clock_mono_ms() + timeout_ms};

	start_request(r, &request);
}

/* Turns the loop until r has ended, or paused. */
static void run_until_end(struct result *r)
{
	uint64_t until_ms = clock_mono_ms() + WAIT_MS;

	while (r->ends == 0 && r->refused_len == 0 && clock_mono_ms() < until_ms)
		event_base_loop(r->base, EVLOOP_ONCE);
	CU_ASSERT(r->ends == 1 || r->refused_len > 0);
}

struct rig {
	struct site site;
	struct event_base *base;
	struct http_client *client;
};

static void rig_open(struct rig *rig, struct http_client_options options)
{
	struct errmsg em = {0};

	site_open(&rig->site);
	rig->base = event_base_new();
	UNIT_OK(http_client_create(&rig->client, rig->base, &options, &em), &em);
}

static void rig_close(struct rig *rig)
{
	http_client_free(rig->client);
	event_base_free(rig->base);
	site_close(&rig->site);
}

static void result_init(struct result *r, const struct rig *rig)
{
	memset(r, 0, sizeof(*r));
	r->base = rig->base;
	r->client = rig->client;
	r->address = rig->site.address;
}

static struct http_client_counters counters_of(const struct rig *rig)
{
	struct http_client_counters counters;

	http_client_get_counters(rig->client, &counters);
	return counters;
}

static void test_calls_reuse_one_connection(void)
{
	struct http_client_counters counters;
	struct result r;
	struct rig rig;
	int i;

	rig_open(&rig, (struct http_client_options){0});
	for (i = 0; i < 50; i++) {
		result_init(&r, &rig);
		start(&r, "/echo", "hello", WAIT_MS);
		run_until_end(&r);
		CU_ASSERT(r.err == DB_OK && r.status == 200 && r.heads == 1);
		CU_ASSERT_STRING_EQUAL(r.content_type, "application/json");
		CU_ASSERT(r.body.len == 5 && memcmp(r.body.data, "hello", 5) == 0);
		buf_fini(&r.body);
	}
	counters = counters_of(&rig);
	CU_ASSERT_EQUAL(counters.requests_total, 50);
	CU_ASSERT_EQUAL(counters.connections_opened_total, 1);
	CU_ASSERT_EQUAL(counters.reused_total, 49);
	CU_ASSERT_EQUAL(counters.connections_open, 1);
	CU_ASSERT_EQUAL(counters.in_flight + counters.queued + counters.failures_total, 0);
	rig_close(&rig);
}

static void test_headers_and_token_are_sent(void)
{
	static const char *const headers[] = {"X-Hop: 3", NULL};
	struct http_call_request request = {.path = "/secret", .bearer_token = TOKEN, .headers = headers};
	struct result r;
	struct rig rig;

	rig_open(&rig, (struct http_client_options){0});
	result_init(&r, &rig);
	request.address = rig.site.address;
	request.deadline_ms = clock_mono_ms() + WAIT_MS;
	start_request(&r, &request);
	run_until_end(&r);
	CU_ASSERT(r.err == DB_OK && r.status == 200);
	CU_ASSERT(r.body.len == 5 && memcmp(r.body.data, "hop 3", 5) == 0);
	buf_fini(&r.body);
	result_init(&r, &rig);
	request.bearer_token = "wrong";
	start_request(&r, &request);
	run_until_end(&r);
	CU_ASSERT(r.err == DB_OK && r.status == 401); /* an answer is an answer */
	buf_fini(&r.body);
	rig_close(&rig);
}

static void test_calls_beyond_the_cap_queue_in_order(void)
{
	struct http_client_counters counters;
	struct result r[40];
	struct rig rig;
	int i;

	rig_open(&rig, (struct http_client_options){.max_connections = 3});
	for (i = 0; i < 40; i++) {
		result_init(&r[i], &rig);
		start(&r[i], "/echo", "x", WAIT_MS);
	}
	counters = counters_of(&rig);
	CU_ASSERT_EQUAL(counters.in_flight, 3);
	CU_ASSERT_EQUAL(counters.queued, 37);
	CU_ASSERT_EQUAL(counters.waited_total, 37);
	for (i = 0; i < 40; i++) {
		run_until_end(&r[i]);
		CU_ASSERT(r[i].err == DB_OK && r[i].status == 200);
		CU_ASSERT(counters_of(&rig).connections_open <= 3);
		buf_fini(&r[i].body);
	}
	CU_ASSERT(counters_of(&rig).connections_opened_total <= 3);
	rig_close(&rig);
}

static void test_deadline_covers_waiting_for_an_answer_and_in_the_queue(void)
{
	struct result busy, queued, next;
	struct rig rig;
	uint64_t started_ms;

	rig_open(&rig, (struct http_client_options){.max_connections = 1});
	result_init(&busy, &rig);
	result_init(&queued, &rig);
	result_init(&next, &rig);
	start(&busy, "/never", "x", 200);
	start(&queued, "/echo", "x", 50);
	start(&next, "/echo", "x", WAIT_MS);
	started_ms = clock_mono_ms();
	run_until_end(&queued);
	CU_ASSERT_EQUAL(queued.err, DB_TIMEOUT);
	CU_ASSERT_EQUAL(busy.ends, 0);
	run_until_end(&busy);
	CU_ASSERT_EQUAL(busy.err, DB_TIMEOUT);
	CU_ASSERT_PTR_NOT_NULL(strstr(busy.text, rig.site.address));
	CU_ASSERT(clock_mono_ms() - started_ms < 2000);
	run_until_end(&next); /* the place became free */
	CU_ASSERT(next.err == DB_OK && next.status == 200);
	CU_ASSERT_EQUAL(counters_of(&rig).failures_total, 2);
	buf_fini(&next.body);
	rig_close(&rig);
}

static void test_refused_and_unresolved_are_safe_to_try_again(void)
{
	char closed[64];
	struct result r;
	struct rig rig;

	rig_open(&rig, (struct http_client_options){0});
	close(listen_somewhere(closed));
	result_init(&r, &rig);
	r.address = closed;
	start(&r, "/echo", "x", WAIT_MS);
	run_until_end(&r);
	CU_ASSERT_EQUAL(r.err, DB_UNAVAILABLE);
	CU_ASSERT_PTR_NOT_NULL(strstr(r.text, closed));
	result_init(&r, &rig);
	r.address = "no-such-host.invalid:80";
	start(&r, "/echo", "x", WAIT_MS);
	run_until_end(&r);
	CU_ASSERT_EQUAL(r.err, DB_UNAVAILABLE);
	CU_ASSERT_EQUAL(counters_of(&rig).connections_open, 0);
	rig_close(&rig);
}

static void test_bad_requests_are_not_started(void)
{
	static const char *const split[] = {"X: a\r\nY: b", NULL};
	struct http_call_request request = {.address = "x:1", .path = "/"};
	struct http_call_handler h = handler;
	struct http_call *call;
	struct rig rig;

	rig_open(&rig, (struct http_client_options){0});
	CU_ASSERT_EQUAL(http_call_start(&call, rig.client, &request, &h, NULL), DB_TIMEOUT);
	request.deadline_ms = clock_mono_ms() + WAIT_MS;
	request.path = "no slash";
	CU_ASSERT_EQUAL(http_call_start(&call, rig.client, &request, &h, NULL), DB_INVALID);
	request.path = "/a b";
	CU_ASSERT_EQUAL(http_call_start(&call, rig.client, &request, &h, NULL), DB_INVALID);
	request.path = "/";
	request.address = "user@host:1";
	CU_ASSERT_EQUAL(http_call_start(&call, rig.client, &request, &h, NULL), DB_INVALID);
	request.address = "host";
	CU_ASSERT_EQUAL(http_call_start(&call, rig.client, &request, &h, NULL), DB_INVALID);
	request.address = "host:1";
	request.bearer_token = "a\r\nX: y";
	CU_ASSERT_EQUAL(http_call_start(&call, rig.client, &request, &h, NULL), DB_INVALID);
	request.bearer_token = NULL;
	request.headers = split;
	CU_ASSERT_EQUAL(http_call_start(&call, rig.client, &request, &h, NULL), DB_INVALID);
	CU_ASSERT_EQUAL(counters_of(&rig).requests_total, 0);
	rig_close(&rig);
}

/* --- Servers that break off. --- */

struct rogue {
	pthread_t thread;
	int fd;
	char address[64];
	const char *replies[4]; /* one for each request on a connection, then it is closed; NULL: closed without one */
	unsigned requests;      /* seen, all connections together */
	unsigned connections_max;
	unsigned requests_max; /* on one connection, which is closed after the last */
};

static bool read_request(int fd)
{
	char bytes[4096];
	size_t len = 0;
	ssize_t n;

	do {
		n = recv(fd, bytes + len, sizeof(bytes) - 1 - len, 0);
		if (n <= 0)
			return false;
		len += (size_t)n;
		bytes[len] = '\0';
	} while (strstr(bytes, "\r\n\r\n") == NULL);
	return true;
}

static void *run_rogue(void *arg)
{
	struct rogue *g = arg;
	unsigned i, j;
	int fd;

	for (i = 0; i < g->connections_max; i++) {
		fd = accept(g->fd, NULL, NULL);
		if (fd == -1)
			break;
		for (j = 0; j < g->requests_max && read_request(fd); j++) {
			g->requests++;
			if (g->replies[j] == NULL)
				break;
			send(fd, g->replies[j], strlen(g->replies[j]), MSG_NOSIGNAL);
		}
		close(fd);
	}
	return NULL;
}

static void rogue_open(struct rogue *g)
{
	g->fd = listen_somewhere(g->address);
	pthread_create(&g->thread, NULL, run_rogue, g);
}

static void rogue_close(struct rogue *g)
{
	shutdown(g->fd, SHUT_RDWR);
	pthread_join(g->thread, NULL);
	close(g->fd);
}

static void test_answer_that_breaks_off_is_an_error(void)
{
	static const char *const broken[] = {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
					     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
					     "HTTP/1.1 200 OK\r\nConte", "nonsense\r\n\r\n", NULL};
	struct result r;
	struct rig rig;
	size_t i;

	rig_open(&rig, (struct http_client_options){0});
	for (i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		struct rogue g = {.replies = {broken[i]}, .connections_max = 1, .requests_max = 1};

		rogue_open(&g);
		result_init(&r, &rig);
		r.address = g.address;
		start(&r, "/echo", "x", WAIT_MS);
		run_until_end(&r);
		CU_ASSERT_EQUAL(r.err, DB_IO); /* it was sent: who knows what came of it */
		rogue_close(&g);
		CU_ASSERT_EQUAL(g.requests, 1);
		buf_fini(&r.body);
	}
	rig_close(&rig);
}

static void test_write_on_a_dying_connection_is_never_sent_twice(void)
{
	/* The second request on the kept connection is read, and the connection closed without an answer: libcurl by
	 * itself would send it again on a new one. */
	struct rogue g = {.replies = {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", NULL},
			  .connections_max = 3,
			  .requests_max = 2};
	struct result r;
	struct rig rig;

	rig_open(&rig, (struct http_client_options){0});
	rogue_open(&g);
	result_init(&r, &rig);
	r.address = g.address;
	start(&r, "/echo", "x", WAIT_MS);
	run_until_end(&r);
	CU_ASSERT_EQUAL(r.err, DB_OK);
	buf_fini(&r.body);
	result_init(&r, &rig);
	r.address = g.address;
	start(&r, "/echo", "x", WAIT_MS);
	run_until_end(&r);
	CU_ASSERT_EQUAL(r.err, DB_IO);
	http_client_free(rig.client);
	rig.client = NULL;
	rogue_close(&g);
	CU_ASSERT_EQUAL(g.requests, 2);
	rig_close(&rig);
}

/* --- Pausing, cancelling, ending. --- */

static void test_paused_call_is_offered_the_same_piece_again(void)
{
	struct result r;
	struct rig rig;
	size_t i;
	int turns;

	rig_open(&rig, (struct http_client_options){0});
	result_init(&r, &rig);
	r.pause_at = 3;
	start(&r, "/stream", NULL, WAIT_MS);
	run_until_end(&r);
	CU_ASSERT(r.ends == 0 && r.pieces == 3);
	for (turns = 0; turns < 20; turns++)
		event_base_loop(rig.base, EVLOOP_NONBLOCK);
	CU_ASSERT_EQUAL(r.pieces, 3); /* nothing comes while paused */
	http_call_resume(r.call);
	r.pause_at = 0;
	while (r.ends == 0)
		event_base_loop(rig.base, EVLOOP_ONCE);
	CU_ASSERT(r.err == DB_OK && r.body.len == 64 * 65536);
	CU_ASSERT_STRING_EQUAL(r.content_type, "application/x-ndjson");
	for (i = 0; i < r.body.len; i += 4096)
		CU_ASSERT_EQUAL(r.body.data[i], 'a' + i / 65536 % 26);
	buf_fini(&r.body);
	result_init(&r, &rig);
	r.pause_at = 2;
	r.resume_in_body = true;
	start(&r, "/stream", NULL, WAIT_MS);
	while (r.ends == 0)
		event_base_loop(rig.base, EVLOOP_ONCE);
	CU_ASSERT(r.err == DB_OK && r.body.len == 64 * 65536);
	buf_fini(&r.body);
	rig_close(&rig);
}

static void test_paused_call_meets_its_deadline(void)
{
	struct result r;
	struct rig rig;

	rig_open(&rig, (struct http_client_options){0});
	result_init(&r, &rig);
	r.pause_at = 1;
	start(&r, "/stream", NULL, 100);
	while (r.ends == 0)
		event_base_loop(rig.base, EVLOOP_ONCE);
	CU_ASSERT_EQUAL(r.err, DB_TIMEOUT);
	rig_close(&rig);
}

static void test_cancel_ends_at_once_wherever_the_call_is(void)
{
	struct result running, queued, inside;
	struct rig rig;

	rig_open(&rig, (struct http_client_options){.max_connections = 1});
	result_init(&running, &rig);
	result_init(&queued, &rig);
	result_init(&inside, &rig);
	start(&running, "/never", "x", WAIT_MS);
	start(&queued, "/echo", "x", WAIT_MS);
	http_call_cancel(queued.call);
	CU_ASSERT(queued.ends == 1 && queued.err == DB_CLOSED);
	http_call_cancel(running.call);
	CU_ASSERT(running.ends == 1 && running.err == DB_CLOSED);
	inside.cancel_in_body = true;
	start(&inside, "/stream", NULL, WAIT_MS);
	run_until_end(&inside);
	CU_ASSERT(inside.ends == 1 && inside.err == DB_CLOSED);
	result_init(&running, &rig);
	start(&running, "/echo", "x", WAIT_MS);
	run_until_end(&running);
	CU_ASSERT_EQUAL(running.err, DB_OK);
	CU_ASSERT_EQUAL(counters_of(&rig).in_flight, 0);
	buf_fini(&running.body);
	rig_close(&rig);
}

static void test_call_may_be_started_when_another_ends(void)
{
	struct result first, second;
	struct rig rig;

	rig_open(&rig, (struct http_client_options){.max_connections = 1});
	result_init(&first, &rig);
	result_init(&second, &rig);
	first.start_at_end = &second;
	start(&first, "/echo", "x", WAIT_MS);
	run_until_end(&first);
	run_until_end(&second);
	CU_ASSERT(second.err == DB_OK && second.body.len == 4);
	buf_fini(&first.body);
	buf_fini(&second.body);
	rig_close(&rig);
}

static void test_free_ends_calls_under_way(void)
{
	struct result r[6];
	struct rig rig;
	int i;

	rig_open(&rig, (struct http_client_options){.max_connections = 2});
	for (i = 0; i < 6; i++) {
		result_init(&r[i], &rig);
		start(&r[i], i % 2 == 0 ? "/never" : "/stream", i % 2 == 0 ? "x" : NULL, WAIT_MS);
		r[i].pause_at = 1;
	}
	run_until_end(&r[1]);
	http_client_free(rig.client);
	rig.client = NULL;
	for (i = 0; i < 6; i++)
		CU_ASSERT(r[i].ends == 1 && r[i].err == DB_CLOSED);
	rig_close(&rig);
}

static void test_unused_connections_are_closed(void)
{
	uint64_t until_ms = clock_mono_ms() + WAIT_MS;
	struct result r;
	struct rig rig;

	rig_open(&rig, (struct http_client_options){.idle_timeout_ms = 50});
	result_init(&r, &rig);
	start(&r, "/echo", "x", WAIT_MS);
	run_until_end(&r);
	CU_ASSERT_EQUAL(counters_of(&rig).connections_open, 1);
	while (counters_of(&rig).connections_open > 0 && clock_mono_ms() < until_ms)
		event_base_loop(rig.base, EVLOOP_ONCE);
	CU_ASSERT_EQUAL(counters_of(&rig).connections_open, 0);
	buf_fini(&r.body);
	result_init(&r, &rig);
	start(&r, "/echo", "x", WAIT_MS);
	run_until_end(&r);
	CU_ASSERT_EQUAL(r.err, DB_OK);
	buf_fini(&r.body);
	rig_close(&rig);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"calls reuse one connection", test_calls_reuse_one_connection},
	    {"headers and token are sent", test_headers_and_token_are_sent},
	    {"calls beyond the cap queue in order", test_calls_beyond_the_cap_queue_in_order},
	    {"deadline covers the answer and the queue", test_deadline_covers_waiting_for_an_answer_and_in_the_queue},
	    {"refused and unresolved are safe to try again", test_refused_and_unresolved_are_safe_to_try_again},
	    {"bad requests are not started", test_bad_requests_are_not_started},
	    {"answer that breaks off is an error", test_answer_that_breaks_off_is_an_error},
	    {"write on a dying connection is never sent twice", test_write_on_a_dying_connection_is_never_sent_twice},
	    {"paused call is offered the same piece again", test_paused_call_is_offered_the_same_piece_again},
	    {"paused call meets its deadline", test_paused_call_meets_its_deadline},
	    {"cancel ends at once wherever the call is", test_cancel_ends_at_once_wherever_the_call_is},
	    {"call may be started when another ends", test_call_may_be_started_when_another_ends},
	    {"free ends calls under way", test_free_ends_calls_under_way},
	    {"unused connections are closed", test_unused_connections_are_closed},
	    {NULL, NULL},
	};
	struct errmsg em = {0};

	if (http_client_init_library(&em) != DB_OK)
		return 1;
	return unit_run("http_client", tests);
}

/*
 * test_remote_pool.c - the pool of connections to other nodes, against servers of a few lines that misbehave on purpose.
 *
 * A stub is a listening socket and a thread for each connection. What it does with a request follows from the path, so that
 * one stub serves every kind: see stub_answer().
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/remote/backoff.h"
#include "common/remote/http_client.h"
#include "common/remote/remote_pool.h"
#include "tests/unit/tsan_epoll.h"
#include "tests/unit/unit.h"

#define WAIT_MS     60000
#define PIECE_BYTES 65536u

/* --- Stubs. --- */

struct stub {
	int fd;
	char address[64];
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool held;      /* /held is not answered while it is set */
	bool slams;     /* whatever comes is read, and the connection closed */
	int conns[256]; /* open ones; they are shut at the end */
	unsigned open, most_open, accepted, requests;
	size_t sent; /* bytes of /big that the network took */
};

struct stub_conn {
	struct stub *stub;
	int fd;
};

static bool send_all(int fd, const void *bytes, size_t len)
{
	const char *p = bytes;
	ssize_t n;

	for (; len > 0; p += n, len -= (size_t)n) {
		n = send(fd, p, len, MSG_NOSIGNAL);
		if (n <= 0)
			return false;
	}
	return true;
}

static bool reply(int fd, const char *body)
{
	char text[512];

	snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Type: text/x-stub\r\nContent-Length: %zu\r\n\r\n%s",
		 strlen(body), body);
	return send_all(fd, text, strlen(text));
}

static char letter_of(size_t piece)
{
	return (char)('a' + piece % 26);
}

/* So many pieces, as fast as they are taken. */
static bool send_big(struct stub *s, int fd, size_t pieces)
{
	char *piece = malloc(PIECE_BYTES), head[128];
	bool ok;
	size_t i;

	snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", pieces * PIECE_BYTES);
	ok = send_all(fd, head, strlen(head));
	for (i = 0; i < pieces && ok; i++) {
		memset(piece, letter_of(i), PIECE_BYTES);
		ok = send_all(fd, piece, PIECE_BYTES);
		pthread_mutex_lock(&s->lock);
		s->sent += ok ? PIECE_BYTES : 0;
		pthread_mutex_unlock(&s->lock);
	}
	free(piece);
	return ok;
}

static void wait_released(struct stub *s)
{
	pthread_mutex_lock(&s->lock);
	while (s->held)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

/* False: the connection is closed. */
static bool stub_answer(struct stub *s, int fd, const char *request)
{
	const char *path = strchr(request, ' ') + 1;

	if (strncmp(path, "/ok ", 4) == 0)
		return reply(fd, "ok");
	if (strncmp(path, "/once ", 6) == 0) /* says that it keeps the connection, and closes it */
		return reply(fd, "once") && false;
	if (strncmp(path, "/big", 4) == 0)
		return send_big(s, fd, strtoul(path + 4, NULL, 10));
	if (strncmp(path, "/half ", 6) == 0)
		return send_all(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", 43) && false;
	if (strncmp(path, "/headed ", 8) == 0) { /* the head at once, the rest when released */
		send_all(fd, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", 38);
		wait_released(s);
		return send_all(fd, "late", 4);
	}
	if (strncmp(path, "/held ", 6) == 0) {
		wait_released(s);
		return reply(fd, "held");
	}
	if (strncmp(path, "/echo ", 6) == 0)
		return reply(fd, strstr(request, "\r\n\r\n") + 4);
	return false; /* "/slam": without an answer */
}

/* Reads one request with its body; "" at the end of the connection. */
static void read_request(int fd, char *request, size_t size)
{
	size_t len = 0, want = 0;
	const char *body, *length;
	ssize_t n;

	request[0] = '\0';
	do {
		n = recv(fd, request + len, size - 1 - len, 0);
		if (n <= 0) {
			request[0] = '\0';
			return;
		}
		len += (size_t)n;
		request[len] = '\0';
		body = strstr(request, "\r\n\r\n");
		length = strcasestr(request, "\r\nContent-Length:");
		want = length != NULL ? strtoul(length + 17, NULL, 10) : 0;
	} while (body == NULL || strlen(body + 4) < want);
}

static void *serve_conn(void *arg)
{
	struct stub_conn *conn = arg;
	struct stub *s = conn->stub;
	char request[8192];
	bool slams = false;
	unsigned i;

	for (;;) {
		read_request(conn->fd, request, sizeof(request));
		if (request[0] == '\0')
			break;
		pthread_mutex_lock(&s->lock);
		s->requests++;
		slams = s->slams;
		pthread_mutex_unlock(&s->lock);
		if (slams || !stub_answer(s, conn->fd, request))
			break;
	}
	pthread_mutex_lock(&s->lock);
	for (i = 0; s->conns[i] != conn->fd; i++)
		;
	s->conns[i] = -1;
	close(conn->fd);
	s->open--;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	free(conn);
	return NULL;
}

static void *accept_all(void *arg)
{
	struct stub *s = arg;
	struct stub_conn *conn;
	pthread_t thread;
	unsigned i;
	int fd;

	while ((fd = accept(s->fd, NULL, NULL)) != -1) {
		conn = malloc(sizeof(*conn));
		*conn = (struct stub_conn){s, fd};
		pthread_mutex_lock(&s->lock);
		for (i = 0; s->conns[i] != -1; i++)
			;
		s->conns[i] = fd;
		s->accepted++;
		s->open++;
		if (s->open > s->most_open)
			s->most_open = s->open;
		pthread_mutex_unlock(&s->lock);
		pthread_create(&thread, NULL, serve_conn, conn);
		pthread_detach(thread);
	}
	return NULL;
}

static void stub_listen(struct stub *s, uint16_t port)
{
	struct sockaddr_in sin = {
	    .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sin);
	const int one = 1;

	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	CU_ASSERT_FATAL(bind(s->fd, (struct sockaddr *)&sin, len) == 0);
	getsockname(s->fd, (struct sockaddr *)&sin, &len);
	snprintf(s->address, sizeof(s->address), "127.0.0.1:%u", ntohs(sin.sin_port));
}

/* Bound, so that the port is ours, but connections are refused until stub_open(). */
static void stub_init(struct stub *s)
{
	memset(s, 0, sizeof(*s));
	memset(s->conns, 0xff, sizeof(s->conns));
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	stub_listen(s, 0);
}

static void stub_open(struct stub *s)
{
	CU_ASSERT_FATAL(listen(s->fd, 128) == 0);
	pthread_create(&s->thread, NULL, accept_all, s);
}

static void stub_hold(struct stub *s, bool held)
{
	pthread_mutex_lock(&s->lock);
	s->held = held;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

static void stub_slam(struct stub *s, bool slams)
{
	pthread_mutex_lock(&s->lock);
	s->slams = slams;
	pthread_mutex_unlock(&s->lock);
}

/* Shuts what is open and waits until every connection's thread has ended. */
static void stub_cut(struct stub *s)
{
	size_t i;

	stub_hold(s, false);
	pthread_mutex_lock(&s->lock);
	for (i = 0; i < sizeof(s->conns) / sizeof(s->conns[0]); i++)
		if (s->conns[i] != -1)
			shutdown(s->conns[i], SHUT_RDWR);
	while (s->open > 0)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

static void stub_close(struct stub *s)
{
	if (s->thread != 0) {
		shutdown(s->fd, SHUT_RDWR);
		pthread_join(s->thread, NULL);
		stub_cut(s);
	}
	close(s->fd);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
}

static unsigned stub_requests(struct stub *s)
{
	unsigned n;

	pthread_mutex_lock(&s->lock);
	n = s->requests;
	pthread_mutex_unlock(&s->lock);
	return n;
}

/* --- Fetches. --- */

struct rig {
	struct stub stub;
	struct remote_pool *pool;
};

static void rig_open(struct rig *rig, struct remote_pool_options options)
{
	struct errmsg em = {0};

	stub_init(&rig->stub);
	stub_open(&rig->stub);
	UNIT_OK(remote_pool_create(&rig->pool, &options, &em), &em);
}

static void rig_close(struct rig *rig)
{
	remote_pool_free(rig->pool);
	stub_close(&rig->stub);
}

static struct remote_pool_counters counters_of(const struct rig *rig)
{
	struct remote_pool_counters counters;

	remote_pool_get_counters(rig->pool, &counters);
	return counters;
}

static struct remote_fetch *start_at(struct rig *rig, const char *address, const char *path, uint64_t within_ms)
{
	const struct remote_request request = {.address = address,
					       .path = path,
					       .body = "x",
					       .body_len = 1,
					       .deadline_ms = clock_mono_ms() + within_ms,
					       .is_read = true};
	struct remote_fetch *f;
	struct errmsg em = {0};

	UNIT_OK(remote_fetch_start(&f, rig->pool, &request, &em), &em);
	return f;
}

static struct remote_fetch *start(struct rig *rig, const char *path)
{
	return start_at(rig, rig->stub.address, path, WAIT_MS);
}

/* Reads all of it; frees the fetch. */
static enum db_err finish(struct remote_fetch *f, struct buf *body, struct errmsg *em)
{
	const char *type;
	char bytes[8192];
	size_t got = 0;
	int status = 0;
	enum db_err err = remote_fetch_head(f, NULL, &status, &type, em);

	if (err == DB_OK)
		CU_ASSERT_EQUAL(status, 200);
	while (err == DB_OK) {
		err = remote_fetch_read(f, NULL, bytes, sizeof(bytes), &got, em);
		if (err != DB_OK || got == 0)
			break;
		buf_put(body, bytes, got);
	}
	remote_fetch_free(f);
	return err;
}

/* What came of asking for path. */
static enum db_err ask_at(struct rig *rig, const char *address, const char *path, struct errmsg *em)
{
	struct buf body = {0};
	enum db_err err = finish(start_at(rig, address, path, WAIT_MS), &body, em);

	buf_fini(&body);
	return err;
}

static enum db_err ask(struct rig *rig, const char *path)
{
	struct errmsg em = {0};

	return ask_at(rig, rig->stub.address, path, &em);
}

static void expect_body(struct remote_fetch *f, const char *expected)
{
	struct errmsg em = {0};
	struct buf body = {0};

	UNIT_OK(finish(f, &body, &em), &em);
	CU_ASSERT(body.len == strlen(expected) && memcmp(body.data, expected, body.len) == 0);
	buf_fini(&body);
}

/* --- Backoff, which is pure. --- */

static void test_backoff_doubles_and_lets_one_look(void)
{
	static const uint64_t pauses_ms[] = {50, 100, 200, 400, 800, 1600, 3200, 5000, 5000};
	struct backoff b = {0};
	uint64_t now_ms = 1000;
	bool probe;
	size_t i;

	CU_ASSERT(backoff_may_go(&b, now_ms, &probe) && !probe);
	for (i = 0; i < sizeof(pauses_ms) / sizeof(pauses_ms[0]); i++) {
		CU_ASSERT(backoff_failed(&b, now_ms));
		CU_ASSERT(!backoff_failed(&b, now_ms)); /* those that were under way, too */
		CU_ASSERT_EQUAL(backoff_next_ms(&b), now_ms + pauses_ms[i]);
		CU_ASSERT(!backoff_may_go(&b, now_ms + pauses_ms[i] - 1, &probe));
		now_ms += pauses_ms[i];
		CU_ASSERT(backoff_may_go(&b, now_ms, &probe) && probe);
		CU_ASSERT(!backoff_may_go(&b, now_ms, &probe)); /* one looks */
	}
	CU_ASSERT(backoff_may_go(&b, now_ms + BACKOFF_PROBE_MS, &probe) && !probe); /* it has not failed for so long */
	backoff_undecided(&b);
	CU_ASSERT(backoff_may_go(&b, now_ms, &probe) && probe);
	backoff_answered(&b);
	CU_ASSERT(!backoff_is_failing(&b) && backoff_may_go(&b, 0, &probe) && !probe);
}

/* --- Answers. --- */

static void test_fetches_share_kept_connections(void)
{
	struct remote_pool_counters c;
	struct rig rig;
	int i;

	rig_open(&rig, (struct remote_pool_options){0});
	for (i = 0; i < 50; i++)
		expect_body(start(&rig, "/ok"), "ok");
	c = counters_of(&rig);
	CU_ASSERT_EQUAL(c.requests_total, 50);
	CU_ASSERT_EQUAL(c.connections_opened_total, 1);
	CU_ASSERT_EQUAL(c.reused_total, 49);
	CU_ASSERT_EQUAL(c.connections_open, 1);
	CU_ASSERT_EQUAL(c.failures_total + c.in_flight + c.queued + c.waited_total + c.retries_total, 0);
	rig_close(&rig);
	CU_ASSERT_EQUAL(rig.stub.most_open, 1);
}

static void test_request_is_copied_and_sent_as_it_is(void)
{
	char address[64], path[] = "/echo", body[] = "hello", token[] = "secret", header[] = "Grizzly-Hops: 2";
	const char *headers[] = {header, NULL};
	struct remote_request request = {
	    .path = path, .token = token, .headers = headers, .body = body, .body_len = 5, .is_read = true};
	const char *type;
	struct remote_fetch *f;
	struct errmsg em = {0};
	struct rig rig;
	int status;

	rig_open(&rig, (struct remote_pool_options){0});
	strcpy(address, rig.stub.address);
	request.address = address;
	request.deadline_ms = clock_mono_ms() + WAIT_MS;
	UNIT_OK(remote_fetch_start(&f, rig.pool, &request, &em), &em);
	memset(address, 0, sizeof(address));
	memset(path, 0, sizeof(path));
	memset(body, 0, sizeof(body));
	memset(token, 0, sizeof(token));
	memset(header, 0, sizeof(header));
	UNIT_OK(remote_fetch_head(f, NULL, &status, &type, &em), &em);
	CU_ASSERT_EQUAL(status, 200);
	CU_ASSERT_STRING_EQUAL(type, "text/x-stub");
	expect_body(f, "hello");
	rig_close(&rig);
}

/* Reads what /big sends and checks every byte. */
static void read_big(struct remote_fetch *f, size_t pieces)
{
	struct errmsg em = {0};
	struct buf body = {0};
	size_t i, wrong = 0;

	UNIT_OK(finish(f, &body, &em), &em);
	CU_ASSERT_EQUAL(body.len, pieces * PIECE_BYTES);
	for (i = 0; i < body.len; i++)
		wrong += body.data[i] != (uint8_t)letter_of(i / PIECE_BYTES);
	CU_ASSERT_EQUAL(wrong, 0);
	buf_fini(&body);
}

static void test_slow_reader_holds_up_its_own_connection_only(void)
{
	struct remote_fetch *slow;
	size_t sent = 0, before, others = 0;
	struct rig rig;

	rig_open(&rig, (struct remote_pool_options){0});
	slow = start(&rig, "/big512"); /* 32 MiB */
	do {                           /* what the network and we keep of it, and then no more */
		before = sent;
		read_big(start(&rig, "/big4"), 4);
		others += 4 * PIECE_BYTES;
		pthread_mutex_lock(&rig.stub.lock);
		sent = rig.stub.sent - others;
		pthread_mutex_unlock(&rig.stub.lock);
	} while (sent == 0 || sent != before);
	CU_ASSERT(sent < 384 * PIECE_BYTES);
	read_big(slow, 512);
	rig_close(&rig);
}

static void test_answer_that_breaks_off_gives_its_bytes_first(void)
{
	struct errmsg em = {0};
	struct buf body = {0};
	struct rig rig;

	rig_open(&rig, (struct remote_pool_options){0});
	CU_ASSERT_EQUAL(finish(start(&rig, "/half"), &body, &em), DB_IO);
	CU_ASSERT(body.len == 4 && memcmp(body.data, "half", 4) == 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, rig.stub.address));
	CU_ASSERT_EQUAL(counters_of(&rig).failures_total, 1);
	CU_ASSERT_EQUAL(ask(&rig, "/ok"), DB_OK); /* it had answered: no reason to leave it alone */
	CU_ASSERT_EQUAL(counters_of(&rig).waited_total, 0);
	buf_fini(&body);
	rig_close(&rig);
}

static void test_read_on_a_stale_connection_is_sent_again(void)
{
	struct remote_request request = {.path = "/ok", .body = "x", .body_len = 1};
	struct remote_fetch *f;
	struct errmsg em = {0};
	struct buf body = {0};
	struct rig rig;

	/* Each answer says that the connection is kept; the next request on it finds it closed, or being closed. */
	rig_open(&rig, (struct remote_pool_options){0});
	expect_body(start(&rig, "/ok"), "ok");
	stub_slam(&rig.stub, true);
	CU_ASSERT_EQUAL(ask(&rig, "/ok"), DB_IO); /* the fresh connection was closed, too: no third try */
	CU_ASSERT_EQUAL(counters_of(&rig).retries_total, 1);
	CU_ASSERT_EQUAL(stub_requests(&rig.stub), 3);
	stub_slam(&rig.stub, false);
	expect_body(start(&rig, "/ok"), "ok");
	stub_slam(&rig.stub, true);
	request.address = rig.stub.address;
	request.deadline_ms = clock_mono_ms() + WAIT_MS;
	UNIT_OK(remote_fetch_start(&f, rig.pool, &request, &em), &em); /* not a read */
	CU_ASSERT_EQUAL(finish(f, &body, &em), DB_IO);
	CU_ASSERT_EQUAL(counters_of(&rig).retries_total, 1);
	CU_ASSERT_EQUAL(stub_requests(&rig.stub), 5);
	rig_close(&rig);
}

static void test_malformed_requests_are_refused(void)
{
	struct remote_request request = {.address = "user@host:1", .path = "/"};
	char address[REMOTE_ADDRESS_MAX + 1];
	struct errmsg em = {0};
	struct remote_fetch *f;
	struct buf body = {0};
	struct rig rig;

	rig_open(&rig, (struct remote_pool_options){0});
	request.deadline_ms = clock_mono_ms() + WAIT_MS;
	UNIT_OK(remote_fetch_start(&f, rig.pool, &request, &em), &em);
	CU_ASSERT_EQUAL(finish(f, &body, &em), DB_INVALID);
	request.address = rig.stub.address;
	request.token = "a\r\nb: c";
	UNIT_OK(remote_fetch_start(&f, rig.pool, &request, &em), &em);
	CU_ASSERT_EQUAL(finish(f, &body, &em), DB_INVALID);
	memset(address, 'a', sizeof(address));
	address[REMOTE_ADDRESS_MAX] = '\0';
	request.address = address;
	CU_ASSERT_EQUAL(remote_fetch_start(&f, rig.pool, &request, &em), DB_INVALID);
	CU_ASSERT_PTR_NULL(f);
	remote_fetch_free(NULL);
	CU_ASSERT_EQUAL(stub_requests(&rig.stub), 0);
	rig_close(&rig);
}

/* --- The limit, and the queue behind it. --- */

static void *read_ok(void *arg)
{
	struct rig *rig = arg;
	int i;

	for (i = 0; i < 20; i++)
		expect_body(start(rig, "/ok"), "ok");
	return NULL;
}

static void test_fifty_at_a_time_never_open_more_than_ten_connections(void)
{
	struct remote_pool_counters c;
	struct remote_fetch *f[50];
	pthread_t threads[50];
	struct rig rig;
	int i;

	rig_open(&rig, (struct remote_pool_options){.max_connections = 10});
	stub_hold(&rig.stub, true);
	for (i = 0; i < 50; i++)
		f[i] = start(&rig, "/held");
	AWAIT(stub_requests(&rig.stub) == 10 && counters_of(&rig).queued == 40);
	c = counters_of(&rig);
	CU_ASSERT(c.in_flight == 10 && c.waited_total == 40 && c.connections_open == 10);
	stub_hold(&rig.stub, false);
	for (i = 0; i < 50; i++)
		expect_body(f[i], "held");
	for (i = 0; i < 50; i++)
		pthread_create(&threads[i], NULL, read_ok, &rig);
	for (i = 0; i < 50; i++)
		pthread_join(threads[i], NULL);
	c = counters_of(&rig);
	CU_ASSERT(c.in_flight + c.queued + c.failures_total == 0 && c.requests_total == 1050);
	CU_ASSERT_EQUAL(rig.stub.most_open, 10);
	CU_ASSERT_EQUAL(rig.stub.accepted, 10);
	rig_close(&rig);
}

static struct remote_fetch *start_nested(struct rig *rig, const char *path, unsigned level)
{
	const struct remote_request request = {
	    .address = rig->stub.address, .path = path, .deadline_ms = clock_mono_ms() + WAIT_MS, .level = level};
	struct remote_fetch *f;
	struct errmsg em = {0};

	UNIT_OK(remote_fetch_start(&f, rig->pool, &request, &em), &em);
	return f;
}

static void test_nested_requests_get_through_when_others_hold_all_connections(void)
{
	struct remote_fetch *f[8];
	struct rig rig;
	unsigned i;

	rig_open(&rig, (struct remote_pool_options){.max_connections = 2});
	stub_hold(&rig.stub, true);
	for (i = 0; i < 3; i++)
		f[i] = start_nested(&rig, "/held", 0);
	AWAIT(stub_requests(&rig.stub) == 2 && counters_of(&rig).queued == 1);
	for (; i < 5; i++)
		f[i] = start_nested(&rig, "/held", 1);
	AWAIT(stub_requests(&rig.stub) == 3 && counters_of(&rig).queued == 2);
	f[i++] = start_nested(&rig, "/held", 3);
	f[i++] = start_nested(&rig, "/held", 9);
	f[i++] = start_nested(&rig, "/held", 3);
	AWAIT(stub_requests(&rig.stub) == 5 && counters_of(&rig).queued == 3);
	stub_hold(&rig.stub, false);
	for (i = 0; i < 8; i++)
		expect_body(f[i], "held");
	CU_ASSERT(counters_of(&rig).in_flight + counters_of(&rig).queued == 0);
	CU_ASSERT_EQUAL(rig.stub.most_open, 5);
	rig_close(&rig);
}

static void test_deadline_covers_the_queue_and_the_answer(void)
{
	struct remote_request late = {.path = "/ok", .deadline_ms = 1};
	struct remote_fetch *busy, *queued;
	struct errmsg em = {0};
	struct buf body = {0};
	struct rig rig;

	rig_open(&rig, (struct remote_pool_options){.max_connections = 1});
	stub_hold(&rig.stub, true);
	busy = start_at(&rig, rig.stub.address, "/headed", 200);
	queued = start_at(&rig, rig.stub.address, "/ok", 50);
	CU_ASSERT_EQUAL(finish(queued, &body, &em), DB_TIMEOUT);
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, "no connection became free"));
	CU_ASSERT_EQUAL(finish(busy, &body, &em), DB_TIMEOUT);
	late.address = rig.stub.address;
	CU_ASSERT_EQUAL(remote_fetch_start(&queued, rig.pool, &late, &em), DB_TIMEOUT);
	stub_hold(&rig.stub, false);
	CU_ASSERT_EQUAL(ask(&rig, "/ok"), DB_OK);
	rig_close(&rig);
}

static void test_unused_connections_are_closed(void)
{
	struct rig rig;

	rig_open(&rig, (struct remote_pool_options){.idle_timeout_ms = 50});
	CU_ASSERT_EQUAL(ask(&rig, "/ok"), DB_OK);
	AWAIT(counters_of(&rig).connections_open == 0);
	CU_ASSERT_EQUAL(ask(&rig, "/ok"), DB_OK);
	rig_close(&rig);
}

/* --- Giving up. --- */

static void test_cancel_anywhere(void)
{
	struct remote_fetch *running, *queued, *headed, *big;
	const char *type;
	char bytes[100];
	struct errmsg em = {0};
	struct rig rig;
	size_t got;
	int status;

	rig_open(&rig, (struct remote_pool_options){.max_connections = 2});
	stub_hold(&rig.stub, true);
	headed = start(&rig, "/headed");
	UNIT_OK(remote_fetch_head(headed, NULL, &status, &type, &em), &em);
	running = start(&rig, "/held");
	AWAIT(stub_requests(&rig.stub) == 2);
	queued = start(&rig, "/ok");
	remote_fetch_free(start(&rig, "/ok")); /* perhaps before it was looked at */
	AWAIT(counters_of(&rig).queued == 1);
	remote_fetch_free(queued);
	AWAIT(counters_of(&rig).queued == 0);
	remote_fetch_free(running); /* before its head */
	remote_fetch_free(headed);  /* after it */
	AWAIT(counters_of(&rig).in_flight == 0);
	big = start(&rig, "/big1024");
	UNIT_OK(remote_fetch_read(big, NULL, bytes, sizeof(bytes), &got, &em), &em);
	CU_ASSERT(got > 0);
	remote_fetch_free(big); /* in the middle, and paused */
	AWAIT(counters_of(&rig).in_flight == 0);
	CU_ASSERT_EQUAL(counters_of(&rig).failures_total, 0); /* nothing failed */
	CU_ASSERT_EQUAL(ask(&rig, "/ok"), DB_OK);
	rig_close(&rig);
}

/* libcurl closes such sockets without telling. */
static void test_attempts_that_are_given_up_are_not_counted_for_ever(void)
{
	struct rig rig;
	int i;

	rig_open(&rig, (struct remote_pool_options){0});
	for (i = 0; i < 200; i++)
		remote_fetch_free(start(&rig, "/ok"));
	AWAIT(counters_of(&rig).in_flight + counters_of(&rig).queued == 0);
	CU_ASSERT(counters_of(&rig).connections_open <= 10);
	stub_cut(&rig.stub);
	AWAIT(ask(&rig, "/ok") == DB_OK && counters_of(&rig).connections_open == 1); /* finds the kept ones closed */
	rig_close(&rig);
}

struct blocked {
	struct rig *rig;
	atomic_bool cancelled;
	bool reads;
	enum db_err err;
};

static void *read_blocked(void *arg)
{
	struct blocked *b = arg;
	struct remote_fetch *f = start(b->rig, b->reads ? "/headed" : "/held");
	struct errmsg em = {0};
	const char *type;
	char bytes[10];
	size_t got;
	int status;

	b->err = remote_fetch_head(f, &b->cancelled, &status, &type, &em);
	if (b->err == DB_OK)
		b->err = remote_fetch_read(f, &b->cancelled, bytes, sizeof(bytes), &got, &em);
	remote_fetch_free(f);
	return NULL;
}

static void test_reader_that_blocks_looks_whether_it_is_cancelled(void)
{
	struct blocked b[2];
	pthread_t threads[2];
	struct rig rig;
	int i;

	rig_open(&rig, (struct remote_pool_options){0});
	stub_hold(&rig.stub, true);
	for (i = 0; i < 2; i++) {
		b[i] = (struct blocked){.rig = &rig, .reads = i == 1};
		pthread_create(&threads[i], NULL, read_blocked, &b[i]);
	}
	AWAIT(stub_requests(&rig.stub) == 2);
	for (i = 0; i < 2; i++)
		atomic_store(&b[i].cancelled, true);
	for (i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		CU_ASSERT_EQUAL(b[i].err, DB_CLOSED);
	}
	rig_close(&rig);
}

static void test_stopped_pool_ends_all_that_is_under_way(void)
{
	struct remote_request request = {.path = "/ok", .is_read = true};
	struct remote_fetch *f[6], *late;
	struct errmsg em = {0};
	struct buf body = {0};
	struct rig rig;
	int i;

	rig_open(&rig, (struct remote_pool_options){.max_connections = 2});
	stub_hold(&rig.stub, true);
	for (i = 0; i < 6; i++)
		f[i] = start(&rig, i % 2 == 0 ? "/held" : "/headed");
	AWAIT(stub_requests(&rig.stub) == 2);
	remote_pool_stop(rig.pool);
	for (i = 0; i < 6; i++)
		CU_ASSERT_EQUAL(finish(f[i], &body, &em), DB_CLOSED);
	request.address = rig.stub.address;
	request.deadline_ms = clock_mono_ms() + WAIT_MS;
	CU_ASSERT_EQUAL(remote_fetch_start(&late, rig.pool, &request, &em), DB_CLOSED);
	rig_close(&rig);
}

static void test_pool_is_freed_while_cancelled_fetches_are_still_with_it(void)
{
	struct remote_fetch *f[20];
	struct rig rig;
	int i, round;

	for (round = 0; round < 20; round++) {
		rig_open(&rig, (struct remote_pool_options){.max_connections = 3});
		stub_hold(&rig.stub, true);
		for (i = 0; i < 20; i++)
			f[i] = start(&rig, i % 3 == 0 ? "/held" : i % 3 == 1 ? "/big64" : "/ok");
		if (round % 2 == 0)
			AWAIT(stub_requests(&rig.stub) > 0);
		for (i = 0; i < 20; i++)
			remote_fetch_free(f[i]);
		rig_close(&rig);
	}
}

/* --- The face that does not block. --- */

struct woken {
	int fd; /* eventfd */
	atomic_uint calls;
};

static void on_notify(void *arg)
{
	struct woken *w = arg;
	const uint64_t one = 1;

	atomic_fetch_add(&w->calls, 1);
	CU_ASSERT_EQUAL(write(w->fd, &one, sizeof(one)), sizeof(one));
}

static void await_notify(struct woken *w)
{
	struct pollfd pfd = {w->fd, POLLIN, 0};
	uint64_t count;

	CU_ASSERT_EQUAL_FATAL(poll(&pfd, 1, WAIT_MS), 1);
	CU_ASSERT_EQUAL(read(w->fd, &count, sizeof(count)), sizeof(count));
}

static struct remote_fetch *start_notified(struct rig *rig, const char *path, struct woken *w)
{
	const struct remote_request request = {.address = rig->stub.address,
					       .path = path,
					       .deadline_ms = clock_mono_ms() + WAIT_MS,
					       .is_read = true,
					       .notify = on_notify,
					       .notify_arg = w};
	struct remote_fetch *f;
	struct errmsg em = {0};

	UNIT_OK(remote_fetch_start(&f, rig->pool, &request, &em), &em);
	return f;
}

static void test_reader_that_does_not_block_is_notified(void)
{
	struct woken w = {.fd = eventfd(0, EFD_CLOEXEC)};
	const char *type;
	static char bytes[1 << 20];
	struct errmsg em = {0};
	struct remote_fetch *f;
	size_t got, sum = 0;
	enum db_err err;
	struct rig rig;
	unsigned busy = 0;
	int status;

	rig_open(&rig, (struct remote_pool_options){0});
	stub_hold(&rig.stub, true);
	f = start_notified(&rig, "/held", &w);
	CU_ASSERT_EQUAL(remote_fetch_try_head(f, &status, &type, &em), DB_BUSY);
	CU_ASSERT_EQUAL(remote_fetch_try_read(f, bytes, sizeof(bytes), &got, &em), DB_BUSY);
	AWAIT(stub_requests(&rig.stub) == 1);
	CU_ASSERT_EQUAL(atomic_load(&w.calls), 0);
	stub_hold(&rig.stub, false);
	await_notify(&w);
	UNIT_OK(remote_fetch_try_head(f, &status, &type, &em), &em);
	CU_ASSERT_EQUAL(status, 200);
	remote_fetch_free(f);
	f = start_notified(&rig, "/big64", &w);
	do {
		err = remote_fetch_try_read(f, bytes, sizeof(bytes), &got, &em);
		sum += got;
		if (err == DB_BUSY) {
			busy++;
			await_notify(&w);
		}
	} while (err == DB_BUSY || got > 0);
	CU_ASSERT_EQUAL(err, DB_OK);
	CU_ASSERT_EQUAL(sum, 64 * PIECE_BYTES);
	CU_ASSERT_EQUAL(atomic_load(&w.calls), busy + 1); /* once for each DB_BUSY, or several between two calls */
	remote_fetch_free(f);
	rig_close(&rig);
	close(w.fd);
}

static void test_no_notify_after_free(void)
{
	struct woken w = {.fd = eventfd(0, EFD_CLOEXEC)};
	struct remote_fetch *f;
	struct errmsg em = {0};
	const char *type;
	unsigned calls;
	struct rig rig;
	int i, status;

	rig_open(&rig, (struct remote_pool_options){0});
	for (i = 0; i < 200; i++) {
		f = start_notified(&rig, "/ok", &w);
		if (remote_fetch_try_head(f, &status, &type, &em) == DB_BUSY && i % 2 == 0)
			sched_yield();
		remote_fetch_free(f);
		calls = atomic_load(&w.calls);
		CU_ASSERT_EQUAL(ask(&rig, "/ok"), DB_OK); /* the pool's thread has gone on */
		CU_ASSERT_EQUAL(atomic_load(&w.calls), calls);
	}
	rig_close(&rig);
	close(w.fd);
}

/* --- Addresses that fail. --- */

static struct remote_pool_address address_of(struct rig *rig, const char *name)
{
	static struct remote_pool_address list[REMOTE_LISTED_MAX];
	size_t i, count = remote_pool_get_addresses(rig->pool, list, REMOTE_LISTED_MAX);

	for (i = 0; i < count; i++)
		if (strcmp(list[i].address, name) == 0)
			return list[i];
	CU_FAIL_FATAL("the address is not listed");
	return list[0];
}

static void test_dead_node_is_looked_at_rarely_and_found_again(void)
{
	struct remote_pool_counters c;
	struct remote_pool_address a;
	struct errmsg em = {0};
	struct buf body = {0};
	struct stub dead;
	struct rig rig;
	int i;

	rig_open(&rig, (struct remote_pool_options){0});
	stub_init(&dead); /* bound, does not listen: refused */
	CU_ASSERT_EQUAL(ask_at(&rig, dead.address, "/ok", &em),
			DB_UNAVAILABLE); /* whoever finds it out hears at once */
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, dead.address));
	for (i = 0; i < 3; i++) /* each waits for the next look, after 50, 100, 200 ms */
		CU_ASSERT_EQUAL(ask_at(&rig, dead.address, "/ok", &em), DB_UNAVAILABLE);
	for (i = 0; i < 100; i++) /* it is left alone for 400 ms now, and these have less */
		CU_ASSERT_EQUAL(finish(start_at(&rig, dead.address, "/ok", 20), &body, &em), DB_UNAVAILABLE);
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, "it has failed for"));
	c = counters_of(&rig);
	CU_ASSERT(c.failures_total == 104 && c.backoff_refusals_total >= 99);
	a = address_of(&rig, dead.address);
	CU_ASSERT(a.failing && a.failing_ms >= 350 && a.failures_total == 104);
	CU_ASSERT_PTR_NOT_NULL(strstr(a.last_error, dead.address));
	/* Another node is asked as ever. */
	CU_ASSERT_EQUAL(ask(&rig, "/ok"), DB_OK);
	CU_ASSERT(!address_of(&rig, rig.stub.address).failing);
	/* It is back: the next look finds it. */
	stub_open(&dead);
	CU_ASSERT_EQUAL(ask_at(&rig, dead.address, "/ok", &em), DB_OK);
	a = address_of(&rig, dead.address);
	CU_ASSERT(!a.failing && a.failing_ms == 0 && a.connections == 1);
	rig_close(&rig);
	stub_close(&dead);
}

static void test_requests_wait_for_the_next_look_within_their_time(void)
{
	struct remote_fetch *f[30], *hasty;
	struct errmsg em = {0};
	struct buf body = {0};
	struct stub dead;
	struct rig rig;
	int i;

	rig_open(&rig, (struct remote_pool_options){0});
	stub_init(&dead);
	for (i = 0; i < 4; i++) /* then left alone for 400 ms */
		CU_ASSERT_EQUAL(ask_at(&rig, dead.address, "/ok", &em), DB_UNAVAILABLE);
	hasty = start_at(&rig, dead.address, "/ok", 30);
	for (i = 0; i < 30; i++)
		f[i] = start_at(&rig, dead.address, "/ok", WAIT_MS);
	CU_ASSERT_EQUAL(finish(hasty, &body, &em), DB_UNAVAILABLE); /* its time ends before */
	stub_open(&dead);
	for (i = 0; i < 30; i++)
		expect_body(f[i], "ok");
	CU_ASSERT_EQUAL(counters_of(&rig).backoff_refusals_total, 1);
	rig_close(&rig);
	stub_close(&dead);
}

static void test_queue_does_not_run_against_a_node_that_has_just_failed(void)
{
	struct remote_fetch *f[50];
	struct errmsg em = {0};
	struct buf body = {0};
	unsigned failed = 0, i;
	struct rig rig;

	rig_open(&rig, (struct remote_pool_options){.max_connections = 2});
	stub_hold(&rig.stub, true);
	for (i = 0; i < 50; i++)
		f[i] = start(&rig, "/held");
	AWAIT(stub_requests(&rig.stub) == 2);
	stub_slam(&rig.stub, true);
	shutdown(rig.stub.fd, SHUT_RDWR); /* refused from now on */
	stub_cut(&rig.stub);
	for (i = 0; i < 50; i++)
		failed += finish(f[i], &body, &em) != DB_OK;
	CU_ASSERT(failed >= 48); /* the two under way were answered, or cut */
	CU_ASSERT(counters_of(&rig).connections_opened_total <= 2 + 8);
	CU_ASSERT(counters_of(&rig).backoff_refusals_total >= 40);
	buf_fini(&body);
	rig_close(&rig);
}

/* Accepts, reads, closes: what a port does whose service behind it is dead. */
static void test_node_that_closes_without_an_answer_fails(void)
{
	struct errmsg em = {0};
	struct rig rig;

	rig_open(&rig, (struct remote_pool_options){0});
	CU_ASSERT_EQUAL(ask(&rig, "/slam"), DB_IO);
	CU_ASSERT(address_of(&rig, rig.stub.address).failing);
	CU_ASSERT_EQUAL(ask_at(&rig, rig.stub.address, "/ok", &em), DB_OK); /* which waits for the next look */
	CU_ASSERT(!address_of(&rig, rig.stub.address).failing);
	CU_ASSERT_EQUAL(counters_of(&rig).waited_total, 1);
	rig_close(&rig);
}

static void test_who_knows_better_does_not_wait_for_a_look(void)
{
	struct remote_request request = {.path = "/ok", .body = "x", .body_len = 1, .at_once = true};
	struct remote_fetch *waits, *bold;
	struct errmsg em = {0};
	struct buf body = {0};
	struct stub dead;
	struct rig rig;
	int i;

	rig_open(&rig, (struct remote_pool_options){.max_connections = 1});
	stub_init(&dead);
	request.address = dead.address;
	request.deadline_ms = clock_mono_ms() + WAIT_MS;
	for (i = 0; i < 4; i++)
		CU_ASSERT_EQUAL(ask_at(&rig, dead.address, "/ok", &em), DB_UNAVAILABLE);
	waits = start_at(&rig, dead.address, "/ok", WAIT_MS);
	for (i = 0; i < 20; i++) { /* each tries, and none is refused */
		UNIT_OK(remote_fetch_start(&bold, rig.pool, &request, &em), &em);
		CU_ASSERT_EQUAL(finish(bold, &body, &em), DB_UNAVAILABLE);
		CU_ASSERT_PTR_NULL(strstr(em.text, "it has failed for"));
	}
	CU_ASSERT_EQUAL(counters_of(&rig).queued, 1);
	stub_open(&dead);
	UNIT_OK(remote_fetch_start(&bold, rig.pool, &request, &em), &em);
	expect_body(bold, "ok");
	expect_body(waits, "ok"); /* at once: the other one has looked */
	CU_ASSERT_EQUAL(counters_of(&rig).backoff_refusals_total, 0);
	rig_close(&rig);
	stub_close(&dead);
}

static void test_probe_that_is_given_up_makes_room_for_the_next(void)
{
	struct remote_fetch *probe, *next;
	struct rig rig;

	rig_open(&rig, (struct remote_pool_options){0});
	CU_ASSERT_EQUAL(ask(&rig, "/slam"), DB_IO);
	stub_hold(&rig.stub, true);
	probe = start(&rig, "/held");
	AWAIT(stub_requests(&rig.stub) == 2);
	next = start(&rig, "/ok");
	AWAIT(counters_of(&rig).queued == 1);
	remote_fetch_free(probe);
	expect_body(next, "ok");
	rig_close(&rig);
}

static void test_addresses_are_forgotten_one_by_one(void)
{
	static struct remote_pool_address list[2 * REMOTE_LISTED_MAX];
	struct errmsg em = {0};
	char address[64];
	struct rig rig;
	unsigned i;

	rig_open(&rig, (struct remote_pool_options){0});
	CU_ASSERT_EQUAL(ask(&rig, "/ok"), DB_OK); /* keeps a connection: stays */
	for (i = 0; i < 2 * REMOTE_LISTED_MAX; i++) {
		snprintf(address, sizeof(address), "name%u.invalid:0x", i); /* no port: fails without a look-up */
		CU_ASSERT(ask_at(&rig, address, "/ok", &em) != DB_OK);
	}
	CU_ASSERT_EQUAL(remote_pool_get_addresses(rig.pool, list, 2 * REMOTE_LISTED_MAX), REMOTE_LISTED_MAX);
	CU_ASSERT_EQUAL(address_of(&rig, rig.stub.address).connections, 1);
	rig_close(&rig);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"backoff doubles and lets one look", test_backoff_doubles_and_lets_one_look},
	    {"fetches share kept connections", test_fetches_share_kept_connections},
	    {"request is copied and sent as it is", test_request_is_copied_and_sent_as_it_is},
	    {"slow reader holds up its own connection only", test_slow_reader_holds_up_its_own_connection_only},
	    {"answer that breaks off gives its bytes first", test_answer_that_breaks_off_gives_its_bytes_first},
	    {"read on a stale connection is sent again", test_read_on_a_stale_connection_is_sent_again},
	    {"malformed requests are refused", test_malformed_requests_are_refused},
	    {"fifty at a time never open more than ten connections",
	     test_fifty_at_a_time_never_open_more_than_ten_connections},
	    {"nested requests get through when others hold all connections",
	     test_nested_requests_get_through_when_others_hold_all_connections},
	    {"deadline covers the queue and the answer", test_deadline_covers_the_queue_and_the_answer},
	    {"unused connections are closed", test_unused_connections_are_closed},
	    {"cancel anywhere", test_cancel_anywhere},
	    {"attempts that are given up are not counted for ever",
	     test_attempts_that_are_given_up_are_not_counted_for_ever},
	    {"reader that blocks looks whether it is cancelled", test_reader_that_blocks_looks_whether_it_is_cancelled},
	    {"stopped pool ends all that is under way", test_stopped_pool_ends_all_that_is_under_way},
	    {"pool is freed while cancelled fetches are still with it",
	     test_pool_is_freed_while_cancelled_fetches_are_still_with_it},
	    {"reader that does not block is notified", test_reader_that_does_not_block_is_notified},
	    {"no notify after free", test_no_notify_after_free},
	    {"dead node is looked at rarely and found again", test_dead_node_is_looked_at_rarely_and_found_again},
	    {"requests wait for the next look within their time",
	     test_requests_wait_for_the_next_look_within_their_time},
	    {"queue does not run against a node that has just failed",
	     test_queue_does_not_run_against_a_node_that_has_just_failed},
	    {"node that closes without an answer fails", test_node_that_closes_without_an_answer_fails},
	    {"who knows better does not wait for a look", test_who_knows_better_does_not_wait_for_a_look},
	    {"probe that is given up makes room for the next", test_probe_that_is_given_up_makes_room_for_the_next},
	    {"addresses are forgotten one by one", test_addresses_are_forgotten_one_by_one},
	    {NULL, NULL},
	};
	struct errmsg em = {0};

	log_init("test", LOG_LEVEL_ERROR);
	if (http_client_init_library(&em) != DB_OK)
		return 1;
	return unit_run("remote_pool", tests);
}

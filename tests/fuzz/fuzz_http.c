/*
 * fuzz_http.c - a hostile client on a real connection to the HTTP front.
 *
 * Each input is one connection to a server that lives as long as the program: its first byte says how the rest is sent
 * (whole or in pieces; whether the client stays, says that it has sent all, or leaves without reading). Handlers of every
 * kind answer: at once, in a later turn, as a stream, with a token asked for. What must hold: every answer is one of ours
 * (never a page that libevent made up), there are no more of them than the framing check saw requests, a client that
 * stays gets exactly as many unless it had asked to be closed, nobody waits for ever, and nothing is left of a connection
 * that has ended. Every input comes from an address of its own in 127/8, for wrong tokens make an address wait.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/http/frame.h"
#include "common/http/server.h"
#include "tests/fuzz/fuzz.h"

#define HEAD_MAX     1024u
#define BODY_MAX     600u
#define REQUESTS_MAX 1024u
#define WAIT_MS      15000
#define TOKEN        "0123456789abcdef0123456789abcdef"

enum leaving { STAYS, SAYS_END, LEAVES };

/* What the framing check makes of the input. */
struct expected {
	unsigned requests;
	bool bad;       /* the one after them is refused */
	bool may_close; /* something in it may end the connection early */
	bool is_head[REQUESTS_MAX];
};

struct client {
	int fd;
	struct buf in;
	size_t at; /* of the next reply in it */
	bool ended;
};

static struct http_server *server; /* the program's only one; NULL: none yet */
static struct auth *server_auth;
static int server_fd;
static uint16_t server_port;

/* ---- the server */

static void handle_echo(void *arg, struct http_request *req)
{
	struct buf body = {0};
	const void *bytes;
	size_t len;

	(void)arg;
	bytes = http_request_body(req, &len);
	FUZZ_CHECK(len <= BODY_MAX);
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

static void handle_body_token(void *arg, struct http_request *req)
{
	const void *bytes;
	char token[64];
	size_t len;

	bytes = http_request_body(req, &len);
	snprintf(token, sizeof(token), "%.*s", (int)(len < 60 ? len : 60), (const char *)bytes);
	if (http_request_authorized(req) || http_request_authenticate(req, token))
		handle_get(arg, req);
	else
		http_reply_unauthorized(req);
}

struct later {
	struct http_task task;
	struct http_request *req;
};

static void answer_later(struct http_task *task)
{
	struct later *later = (struct later *)task;

	handle_get(NULL, later->req);
	free(later);
}

static void handle_later(void *arg, struct http_request *req)
{
	struct later *later = calloc(1, sizeof(*later));

	(void)arg;
	FUZZ_CHECK(later != NULL);
	later->task.run = answer_later;
	later->req = req;
	http_worker_post(http_request_worker(req), &later->task);
}

static void handle_stream(void *arg, struct http_request *req)
{
	char piece[500];
	struct http_stream *stream;
	unsigned i;

	(void)arg;
	memset(piece, 'x', sizeof(piece));
	FUZZ_CHECK(http_stream_create(&stream, req, 200, "text/plain") == DB_OK);
	for (i = 0; i < 3; i++)
		FUZZ_CHECK(http_stream_try_write(stream, piece, sizeof(piece)) == DB_OK);
	http_stream_end(stream, true);
}

static void close_server(void)
{
	http_server_free(server);
	auth_free(server_auth);
	close(server_fd);
}

static void open_server(void)
{
	static const struct http_route routes[] = {
	    {"/echo", HTTP_POST, HTTP_OPEN, AUTH_NONE, handle_echo},
	    {"/get", HTTP_GET | HTTP_HEAD, HTTP_OPEN, AUTH_NONE, handle_get},
	    {"/later*", HTTP_GET | HTTP_POST | HTTP_HEAD, HTTP_OPEN, AUTH_NONE, handle_later},
	    {"/stream", HTTP_GET | HTTP_HEAD, HTTP_OPEN, AUTH_NONE, handle_stream},
	    {"/secret", HTTP_GET | HTTP_POST, HTTP_TOKEN, AUTH_ADMIN, handle_get},
	    {"/mixed", HTTP_POST, HTTP_TOKEN_OR_BODY, AUTH_NONE, handle_body_token},
	    {NULL, 0, HTTP_OPEN, AUTH_NONE, NULL},
	};
	static const uint8_t no_cluster[16];
	struct http_options options = {
	    .worker_count = 1, .body_bytes_max = BODY_MAX, .header_bytes_max = HEAD_MAX, .routes = routes};
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);
	struct errmsg em = {0};
	int listener;

	FUZZ_CHECK(auth_create(&server_auth, no_cluster, &em) == DB_OK);
	FUZZ_CHECK(auth_set_first(server_auth, TOKEN, &em) == DB_OK);
	options.auth = server_auth;
	server_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	FUZZ_CHECK(server_fd >= 0 && bind(server_fd, (struct sockaddr *)&address, len) == 0);
	FUZZ_CHECK(listen(server_fd, 64) == 0);
	FUZZ_CHECK(getsockname(server_fd, (struct sockaddr *)&address, &len) == 0);
	server_port = ntohs(address.sin_port);
	FUZZ_CHECK(http_server_create(&server, &options, &em) == DB_OK);
	FUZZ_CHECK(http_server_listen(server, server_fd, true, &listener, &em) == DB_OK);
	FUZZ_CHECK(atexit(close_server) == 0);
}

static uint64_t connections_open(void)
{
	struct http_counters counters;

	http_server_get_counters(server, &counters);
	return counters.connections_open;
}

/* ---- what is to be expected */

static bool names_close(const uint8_t *data, size_t size)
{
	size_t i;

	for (i = 0; i + 5 <= size; i++)
		if (strncasecmp((const char *)data + i, "close", 5) == 0)
			return true;
	return memmem(data, size, "HTTP/1.0", 8) != NULL;
}

static void expect(struct expected *e, const uint8_t *data, size_t size)
{
	struct http_frame f;
	size_t at = 0, began = 0;

	memset(e, 0, sizeof(*e));
	e->may_close = names_close(data, size);
	http_frame_init(&f, HEAD_MAX, BODY_MAX);
	while (at < size && !e->bad) {
		at += http_frame_feed(&f, data + at, size - at);
		e->bad = f.state == FRAME_BAD;
		if (f.state != FRAME_COMPLETE)
			continue;
		FUZZ_CHECK(e->requests < REQUESTS_MAX);
		e->is_head[e->requests++] = memcmp(data + began + f.skipped, "HEAD ", 5) == 0;
		http_frame_reset(&f);
		began = at;
	}
	http_frame_fini(&f);
}

/* ---- the client */

static void connect_client(struct client *c)
{
	static uint32_t sequence;
	struct sockaddr_in from = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(0x7f000000u | (2 + sequence++ % 0xfffff0u))};
	struct sockaddr_in to = {
	    .sin_family = AF_INET, .sin_port = htons(server_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	int rc;

	memset(c, 0, sizeof(*c));
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	FUZZ_CHECK(c->fd >= 0 && bind(c->fd, (struct sockaddr *)&from, sizeof(from)) == 0);
	while ((rc = connect(c->fd, (struct sockaddr *)&to, sizeof(to))) != 0 && errno == EINTR)
		continue; /* the fuzzer's timer; the next call waits for the same connection */
	if (rc != 0)
		perror("connect");
	FUZZ_CHECK(rc == 0);
}

/* Fails when the server has closed: then there are answers to read all the same. */
static void send_all(struct client *c, const uint8_t *data, size_t size, size_t step)
{
	size_t len;
	ssize_t n;

	while (size > 0) {
		len = step > 0 && step < size ? step : size;
		n = send(c->fd, data, len, MSG_NOSIGNAL);
		if (n <= 0)
			return;
		data += n;
		size -= (size_t)n;
		if (step > 0)
			sched_yield();
	}
}

static void read_more(struct client *c)
{
	struct pollfd pfd = {c->fd, POLLIN, 0};
	ssize_t n;
	int rc;

	do /* libFuzzer's clock is a signal */
		rc = poll(&pfd, 1, WAIT_MS);
	while (rc == -1 && errno == EINTR);
	FUZZ_CHECK(rc == 1); /* else somebody waits for ever */
	FUZZ_CHECK(buf_reserve(&c->in, 65536));
	n = recv(c->fd, c->in.data + c->in.len, 65536, 0);
	if (n > 0)
		c->in.len += (size_t)n;
	else
		c->ended = true;
}

/* Gathers what lies from at up to and with the next `end`; NULL: the connection ended before. */
static const char *find_end(struct client *c, size_t at, const char *end)
{
	const char *found;

	for (;;) {
		found = c->in.len > at ? memmem(c->in.data + at, c->in.len - at, end, strlen(end)) : NULL;
		if (found != NULL || c->ended)
			return found;
		read_more(c);
	}
}

static bool gather(struct client *c, size_t len)
{
	while (c->in.len - c->at < len && !c->ended)
		read_more(c);
	return c->in.len - c->at >= len;
}

static bool take_chunks(struct client *c)
{
	const char *line_end;
	size_t len;

	for (;;) {
		line_end = find_end(c, c->at, "\r\n");
		if (line_end == NULL)
			return false;
		len = strtoul((char *)c->in.data + c->at, NULL, 16);
		c->at = (size_t)(line_end - (char *)c->in.data) + 2;
		if (!gather(c, len + 2))
			return false;
		FUZZ_CHECK(memcmp(c->in.data + c->at + len, "\r\n", 2) == 0);
		c->at += len + 2;
		if (len == 0)
			return true;
	}
}

/* The body of a reply whose head is text. False: it broke off. */
static bool take_body(struct client *c, int status, const char *text)
{
	const char *length = strcasestr(text, "\r\nContent-Length: ");

	if (strcasestr(text, "\r\nTransfer-Encoding: chunked") != NULL)
		return take_chunks(c);
	if (length == NULL) { /* the end of the connection ends it */
		while (!c->ended)
			read_more(c);
		c->at = c->in.len;
		return true;
	}
	if (!gather(c, strtoul(length + 18, NULL, 10)))
		return false;
	if (status >= 400)
		FUZZ_CHECK(memcmp(c->in.data + c->at, "{\"status\":\"error\",\"code\":\"", 26) == 0);
	c->at += strtoul(length + 18, NULL, 10);
	return true;
}

/* One reply, and what is said before it. False: the connection ended instead. *whole: it did not break off. */
static bool take_reply(struct client *c, bool to_head, bool *whole)
{
	char text[2048];
	const char *end;
	size_t len;
	int status;

	*whole = true;
	do {
		end = find_end(c, c->at, "\r\n\r\n");
		if (end == NULL) {
			*whole = c->at == c->in.len;
			return false;
		}
		len = (size_t)(end - (char *)c->in.data) - c->at;
		FUZZ_CHECK(len < sizeof(text) - 2);
		snprintf(text, sizeof(text), "%.*s\r\n", (int)len, (char *)c->in.data + c->at);
		FUZZ_CHECK(sscanf(text, "HTTP/1.%*1d %3d ", &status) == 1);
		c->at += len + 4;
	} while (status == 100);
	FUZZ_CHECK(status == 200 || (status >= 400 && status <= 504));
	if (status >= 400)
		FUZZ_CHECK(strcasestr(text, "\r\nContent-Type: application/json") != NULL);
	if (!to_head)
		*whole = take_body(c, status, text);
	return true;
}

static void take_replies(struct client *c, const struct expected *e, enum leaving leaving)
{
	unsigned most = e->requests + e->bad, replies = 0;
	bool whole = true;

	while (whole && (leaving == SAYS_END || replies < most)) {
		if (!take_reply(c, replies < e->requests && e->is_head[replies], &whole))
			break;
		replies++;
		FUZZ_CHECK(replies <= most);
	}
	if (leaving == SAYS_END)
		return; /* a client that has sent all has gone for the server: nothing is promised */
	FUZZ_CHECK(whole);
	FUZZ_CHECK(replies == most || (e->may_close && c->ended));
}

static void await_close(void)
{
	uint64_t until_ms = clock_mono_ms() + WAIT_MS, open;

	/* One that has left already may yet be accepted, beside the next. */
	while ((open = connections_open()) > 0 && clock_mono_ms() < until_ms)
		sched_yield();
	FUZZ_CHECK(open == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	uint8_t how = in_u8(&in);
	enum leaving leaving = (how & 7) == 7 ? LEAVES : (how & 4) != 0 ? SAYS_END : STAYS;
	size_t step = (how >> 3) == 0 ? 0 : (size_t)(how >> 3) * (how >> 3);
	struct expected e;
	struct client c;

	if (server == NULL)
		open_server();
	expect(&e, in.p, in.left);
	connect_client(&c);
	send_all(&c, in.p, in.left, step);
	if (leaving == SAYS_END)
		shutdown(c.fd, SHUT_WR);
	if (leaving != LEAVES)
		take_replies(&c, &e, leaving);
	/* A close that finds bytes unread is a reset; the server is to see every kind. */
	close(c.fd);
	buf_fini(&c.in);
	await_close();
	return 0;
}

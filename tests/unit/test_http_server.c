/*
 * test_http_server.c - requests and tokens as they should be and as they should not, sent through raw sockets.
 */
#include "common/auth/throttle.h"
#include "tests/unit/http_fixture.h"

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
	expect(&c, 431, "TOO_LARGE");
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

/* A client that is refused and sends on is read for a while, so that it gets to the answer, but not for ever. */
static void test_refused_client_cannot_send_for_ever(void)
{
	const size_t size = 1u << 20;
	char *bytes = calloc(1, size);
	struct site site;
	struct client c;
	size_t sent = 0;

	site_open(&site, (struct http_options){.body_bytes_max = 1000});
	client_open(&c, &site);
	client_say(&c, "POST /echo HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n");
	while (sent < (size_t)1 << 30 && client_send(&c, bytes, size))
		sent += size;
	CU_ASSERT(sent < (size_t)1 << 30); /* 64 MiB, or what passes in 2 s */
	client_close(&c);
	AWAIT(counters_of(&site).connections_open == 0);
	free(bytes);
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
	client_close(&c);
	site_close(&site);
}

/* One after the other, each on a connection of its own: the first ones are answered at once, the rest wait, and
 * whoever has a right token does not. A server that stops waits for none of them; some of their clients have gone by
 * then. */
static void test_wrong_tokens_wait(void)
{
	struct client wrong[THROTTLE_FREE + 28], right;
	struct site site;
	int i;

	site_open(&site, (struct http_options){0});
	for (i = 0; i < THROTTLE_FREE + 28; i++) {
		client_open(&wrong[i], &site);
		client_say(&wrong[i], "GET /secret HTTP/1.1\r\nAuthorization: Bearer " TOKEN "x\r\n\r\n");
		if (i < THROTTLE_FREE)
			expect(&wrong[i], 401, "UNAUTHORIZED");
	}
	AWAIT(counters_of(&site).auth_failures_total == THROTTLE_FREE + 28);
	CU_ASSERT(counters_of(&site).auth_delayed_total >= 1);
	CU_ASSERT_EQUAL(counters_of(&site).auth_refused_total, 0);
	client_open(&right, &site);
	client_say(&right, "GET /secret HTTP/1.1\r\nAuthorization: Bearer " TOKEN "\r\n\r\n");
	expect(&right, 200, "GET /secret");
	client_close(&right);
	expect(&wrong[THROTTLE_FREE], 401, "UNAUTHORIZED"); /* late, but it comes */
	client_close(&wrong[THROTTLE_FREE + 1]);
	site_close(&site);
	for (i = 0; i < THROTTLE_FREE + 28; i++)
		if (i != THROTTLE_FREE + 1)
			client_close(&wrong[i]);
}

/* --- Names. --- */

static void ask_name(struct client *c, const char *request, int status, bool head, char out[128])
{
	const char *name;
	struct reply r;

	client_say(c, request);
	CU_ASSERT_FATAL(client_reply(c, &r, head));
	CU_ASSERT_EQUAL(r.status, status);
	name = reply_header(&r, "\r\nX-Request-Id:");
	CU_ASSERT_PTR_NOT_NULL_FATAL(name);
	snprintf(out, 128, "%.*s", (int)strcspn(name + strspn(name, " "), "\r"), name + strspn(name, " "));
	buf_fini(&r.body);
}

static void test_given_names_come_back(void)
{
	static const char *const good[] = {"a", "shop/42 (again)",
					   "gr\xc3\xb6\xc3\x9f"
					   "e",
					   "0123456789012345678901234567890123456789012345678901234567890123"};
	static const char *const bad[] = {"", "01234567890123456789012345678901234567890123456789012345678901234",
					  "a\tb", "\xff", "\xc2\x85"};
	char request[256], name[128];
	struct site site;
	struct client c;
	size_t i;

	site_open(&site, (struct http_options){.name = "a-name-of-more-than-twenty-bytes"});
	client_open(&c, &site);
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		snprintf(request, sizeof(request), "GET /get HTTP/1.1\r\nx-request-id: %s\r\n\r\n", good[i]);
		ask_name(&c, request, 200, false, name);
		CU_ASSERT_STRING_EQUAL(name, good[i]);
	}
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(request, sizeof(request), "GET /get HTTP/1.1\r\nX-Request-Id: %s\r\n\r\n", bad[i]);
		ask_name(&c, request, 200, false, name);
		CU_ASSERT_EQUAL(strncmp(name, "a-name-of-more-than--", 21), 0);
	}
	client_close(&c);
	site_close(&site);
}

static void test_others_are_named_here_each_differently(void)
{
	static const struct {
		const char *request;
		int status;
		bool head;
	} asked[] = {{"GET /get HTTP/1.1\r\n\r\n", 200, false},     {"HEAD /get HTTP/1.1\r\n\r\n", 200, true},
		     {"GET /nothing HTTP/1.1\r\n\r\n", 404, false}, {"PUT /get HTTP/1.1\r\n\r\n", 405, false},
		     {"GET /secret HTTP/1.1\r\n\r\n", 401, false},  {POST_ECHO, 200, false},
		     {"GET /stream HTTP/1.1\r\n\r\n", 200, false},  {"BAD\r\n\r\n", 400, false}};
	enum { KINDS = sizeof(asked) / sizeof(asked[0]) };
	char names[2 * KINDS][128];
	struct site site;
	struct client c[2];
	size_t i, j;

	site_open(&site, (struct http_options){.worker_count = 2});
	client_open(&c[0], &site);
	client_open(&c[1], &site);
	for (i = 0; i < 2 * (size_t)KINDS; i++)
		ask_name(&c[i % 2], asked[i / 2].request, asked[i / 2].status, asked[i / 2].head, names[i]);
	for (i = 0; i < 2 * (size_t)KINDS; i++) {
		CU_ASSERT_EQUAL(strncmp(names[i], "http-", 5), 0);
		CU_ASSERT_EQUAL(strncmp(names[i], names[0], strlen("http-12345678-")), 0);
		for (j = 0; j < i; j++)
			CU_ASSERT_STRING_NOT_EQUAL(names[i], names[j]);
	}
	client_close(&c[0]);
	client_close(&c[1]);
	site_close(&site);
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
	    {"refused client cannot send for ever", test_refused_client_cannot_send_for_ever},
	    {"mutations never reach evhttp's own answers", test_mutated_requests_never_reach_evhttps_own_answers},
	    {"tokens open only what they should", test_tokens_open_only_what_they_should},
	    {"wrong tokens wait, and nobody else does", test_wrong_tokens_wait},
	    {"given names come back", test_given_names_come_back},
	    {"others are named here, each differently", test_others_are_named_here_each_differently},
	    {NULL, NULL},
	};

	return unit_run("http_server", tests);
}

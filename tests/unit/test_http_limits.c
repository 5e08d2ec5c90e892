/*
 * test_http_limits.c - the HTTP front under clients that want too much: connections, memory, time; and that others are
 * served all the while. All of 127/8 is this machine, so that clients may come from several addresses.
 */
#include "tests/unit/http_fixture.h"

#define LARGE ((size_t)200 << 10)

static void client_open_from(struct client *c, const struct site *site, uint8_t last_byte)
{
	struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000000u | last_byte)};
	struct sockaddr_in to = {
	    .sin_family = AF_INET, .sin_port = htons(site->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	memset(c, 0, sizeof(*c));
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CU_ASSERT_FATAL(bind(c->fd, (struct sockaddr *)&from, sizeof(from)) == 0);
	CU_ASSERT_FATAL(connect(c->fd, (struct sockaddr *)&to, sizeof(to)) == 0);
}

static void ask(struct client *c)
{
	client_say(c, POST_ECHO);
	expect(c, 200, "hello");
}

static void expect_overloaded(struct client *c)
{
	struct reply r;

	CU_ASSERT_FATAL(client_reply(c, &r, false));
	CU_ASSERT_EQUAL(r.status, 429);
	CU_ASSERT_PTR_NOT_NULL(strstr((char *)r.body.data, "OVERLOADED"));
	CU_ASSERT_PTR_NOT_NULL(strstr(r.head, "Retry-After: 1\r\n"));
	buf_fini(&r.body);
}

static void test_idle_connection_makes_room_at_the_limit(void)
{
	struct client c[4];
	struct site site;
	unsigned i;

	site_open(&site, (struct http_options){.connections_max = 3, .worker_count = 1});
	for (i = 0; i < 3; i++) {
		client_open(&c[i], &site);
		ask(&c[i]);
	}
	ask(&c[0]); /* now the second has been idle for the longest */
	client_open(&c[3], &site);
	ask(&c[3]);
	expect_end(&c[1]);
	ask(&c[0]);
	ask(&c[2]);
	CU_ASSERT_EQUAL(counters_of(&site).connections_evicted_total, 1);
	for (i = 0; i < 4; i++)
		client_close(&c[i]);
	site_close(&site);
}

static void test_slow_senders_do_not_keep_others_out(void)
{
	struct client slow[8], other;
	struct site site;
	unsigned i;

	site_open(&site, (struct http_options){.connections_max = 8, .worker_count = 1});
	for (i = 0; i < 8; i++) {
		client_open_from(&slow[i], &site, 1);
		client_say(&slow[i], "POST /echo HTTP/1.1\r\nContent-Le");
	}
	for (i = 0; i < 3; i++) {
		client_open_from(&other, &site, 2);
		ask(&other);
		client_close(&other);
	}
	CU_ASSERT(counters_of(&site).connections_evicted_total >= 1);
	for (i = 0; i < 8; i++)
		client_close(&slow[i]);
	site_close(&site);
}

/* The address with the most connections loses one, not the one whose connection has been idle for the longest. */
static void test_crowd_makes_room_before_a_single_client(void)
{
	struct client single, crowd[8];
	struct site site;
	unsigned i;

	site_open(&site, (struct http_options){.connections_max = 8, .worker_count = 1});
	client_open_from(&single, &site, 2);
	ask(&single);
	for (i = 0; i < 8; i++) {
		client_open_from(&crowd[i], &site, 1);
		ask(&crowd[i]);
	}
	ask(&single);
	CU_ASSERT_EQUAL(counters_of(&site).connections_total, 9);
	for (i = 0; i < 8; i++)
		client_close(&crowd[i]);
	client_close(&single);
	site_close(&site);
}

static void test_address_has_a_limit_of_its_own(void)
{
	struct client c[4], more, other;
	struct site site;
	unsigned i;

	site_open(&site, (struct http_options){.address_connections_max = 4, .worker_count = 1});
	for (i = 0; i < 4; i++) {
		client_open_from(&c[i], &site, 1);
		client_say(&c[i], POST_LATER);
	}
	wait_kept(&site, 4);
	client_open_from(&more, &site, 1);
	expect_overloaded(&more);
	expect_end(&more);
	client_close(&more);
	CU_ASSERT_EQUAL(counters_of(&site).connections_refused_total, 1);
	client_open_from(&other, &site, 2);
	ask(&other);
	for (i = 0; i < 4; i++) {
		answer(&site, i);
		expect(&c[i], 200, "late");
		client_close(&c[i]);
	}
	AWAIT(counters_of(&site).connections_open == 1);
	client_open_from(&more, &site, 1);
	ask(&more);
	client_close(&more);
	client_close(&other);
	site_close(&site);
}

static void test_flood_from_one_address_is_bounded(void)
{
	struct client c[200], other;
	struct site site;
	unsigned i;

	site_open(&site, (struct http_options){.address_connections_max = 4, .worker_count = 1});
	for (i = 0; i < 200; i++)
		client_open_from(&c[i], &site, 1);
	AWAIT(counters_of(&site).connections_total == 200);
	CU_ASSERT(counters_of(&site).connections_open <= 4 + 64 + 1);
	CU_ASSERT(counters_of(&site).connections_refused_total >= 196 - 4);
	client_open_from(&other, &site, 2);
	ask(&other);
	client_close(&other);
	for (i = 0; i < 200; i++)
		client_close(&c[i]);
	AWAIT(counters_of(&site).connections_open == 0);
	site_close(&site);
}

static void send_large(struct client *c, const char *path)
{
	char *bytes = malloc(LARGE);
	char head[128];

	memset(bytes, 'x', LARGE);
	snprintf(head, sizeof(head), "POST %s HTTP/1.1\r\nContent-Length: %zu\r\n\r\n", path, LARGE);
	client_say(c, head);
	client_send(c, bytes, LARGE);
	free(bytes);
}

static void test_bodies_together_have_a_limit(void)
{
	struct client first, second, small;
	struct site site;

	site_open(&site, (struct http_options){.requests_bytes_max = LARGE * 3 / 2});
	client_open(&first, &site);
	send_large(&first, "/later");
	wait_kept(&site, 1);
	client_open(&second, &site);
	send_large(&second, "/echo");
	expect_overloaded(&second);
	expect_end(&second);
	client_close(&second);
	client_open(&small, &site); /* small ones pass */
	ask(&small);
	client_close(&small);
	answer(&site, 0);
	expect(&first, 200, "late");
	send_large(&first, "/echo"); /* there is room again */
	expect(&first, 200, "xxx");
	client_close(&first);
	/* One whose client goes meanwhile counts until it is answered. */
	client_open(&first, &site);
	send_large(&first, "/later");
	wait_kept(&site, 2);
	client_close(&first);
	AWAIT(counters_of(&site).connections_open == 0);
	client_open(&second, &site);
	send_large(&second, "/echo");
	expect_overloaded(&second);
	client_close(&second);
	answer(&site, 1);
	AWAIT(counters_of(&site).requests_in_flight == 0);
	client_open(&second, &site);
	send_large(&second, "/echo");
	expect(&second, 200, "xxx");
	client_close(&second);
	site_close(&site);
}

/* A few bytes now and then do not keep a connection with an answer that waits to be taken. */
static void test_reader_of_a_few_bytes_is_cut_off(void)
{
	const size_t size = 8u << 20;
	char *bytes = calloc(1, size), head[128], piece[256];
	uint64_t until_ms = clock_mono_ms() + WAIT_MS;
	int small = 4096;
	struct site site;
	struct client c;
	ssize_t n = 1;

	site_open(&site, (struct http_options){.idle_timeout_ms = 300});
	client_open(&c, &site);
	setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	snprintf(head, sizeof(head), "POST /echo HTTP/1.1\r\nContent-Length: %zu\r\n\r\n", size);
	client_say(&c, head);
	client_send(&c, bytes, size);
	while (counters_of(&site).connections_open > 0 && n > 0 && clock_mono_ms() < until_ms) {
		n = recv(c.fd, piece, sizeof(piece), 0);
		poll(NULL, 0, 5);
	}
	CU_ASSERT_EQUAL(counters_of(&site).connections_open, 0);
	client_close(&c);
	free(bytes);
	site_close(&site);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"idle connection makes room at the limit", test_idle_connection_makes_room_at_the_limit},
	    {"slow senders do not keep others out", test_slow_senders_do_not_keep_others_out},
	    {"crowd makes room before a single client", test_crowd_makes_room_before_a_single_client},
	    {"address has a limit of its own", test_address_has_a_limit_of_its_own},
	    {"flood from one address is bounded", test_flood_from_one_address_is_bounded},
	    {"bodies together have a limit", test_bodies_together_have_a_limit},
	    {"reader of a few bytes is cut off", test_reader_of_a_few_bytes_is_cut_off},
	    {NULL, NULL},
	};

	return unit_run("http_limits", tests);
}

/*
 * test_link.c - NNG sockets as we use them: order, back-pressure, deadlines, lost connections, killed owners.
 *
 * Every wait is for an event, with WAIT_MS as the deadline. Run with the arguments "listen URL" or "pull URL" the
 * program is the process that gets killed or paused.
 */
#include "common/wire/link.h"

#include <arpa/inet.h>
#include <nng/nng.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "tests/unit/unit.h"

#define WAIT_MS  10000
#define NONSENSE 0xbad /* a number that the receiver calls no message */

static bool wait_for(sem_t *s, unsigned timeout_ms)
{
	struct timespec until;
	uint64_t at_us = clock_wall_us() + timeout_ms * 1000u;

	until.tv_sec = (time_t)(at_us / 1000000u);
	until.tv_nsec = (long)(at_us % 1000000u) * 1000;
	return sem_timedwait(s, &until) == 0;
}

static void ipc_path(char url[LINK_URL_MAX])
{
	char dir[UNIT_PATH_MAX];
	char path[UNIT_PATH_MAX + 8];
	struct errmsg em = {0};

	unit_tmpdir(dir);
	snprintf(path, sizeof(path), "%s/s", dir);
	UNIT_OK(link_ipc_url(url, path, &em), &em);
}

static void loopback_url(char out[LINK_URL_MAX], uint16_t port)
{
	snprintf(out, LINK_URL_MAX, "tcp://127.0.0.1:%u", port);
}

/* ---- the two ends of a pipeline */

struct sender {
	struct link_push *link;
	sem_t up, down, sent;
	atomic_int result;    /* of the last send */
	atomic_uint changes;  /* on_connected calls; their parity is checked */
	atomic_bool in_order; /* they alternate, beginning with true */
};

static void on_connected(void *arg, bool connected)
{
	struct sender *s = arg;

	if (connected != (atomic_fetch_add(&s->changes, 1) % 2 == 0))
		atomic_store(&s->in_order, false);
	sem_post(connected ? &s->up : &s->down);
}

static void on_sent(void *arg, enum db_err err)
{
	struct sender *s = arg;

	atomic_store(&s->result, (int)err);
	sem_post(&s->sent);
}

static void sender_open(struct sender *s, const char *url)
{
	struct errmsg em = {0};

	memset(s, 0, sizeof(*s));
	sem_init(&s->up, 0, 0);
	sem_init(&s->down, 0, 0);
	sem_init(&s->sent, 0, 0);
	atomic_store(&s->in_order, true);
	UNIT_OK(link_push_create(&s->link, url, NULL, on_connected, on_sent, s, &em), &em);
	CU_ASSERT_PTR_NOT_NULL_FATAL(s->link);
}

static void sender_close(struct sender *s)
{
	link_push_free(s->link);
	CU_ASSERT_TRUE(atomic_load(&s->in_order));
	sem_destroy(&s->up);
	sem_destroy(&s->down);
	sem_destroy(&s->sent);
}

static enum db_err send_number(struct sender *s, uint32_t number, size_t len)
{
	nng_msg *msg = link_msg_alloc(len);
	enum db_err err;

	CU_ASSERT_PTR_NOT_NULL_FATAL(msg);
	memset(nng_msg_body(msg), 0, len);
	store_u32le(nng_msg_body(msg), number);
	err = link_push_send(s->link, msg);
	if (err != DB_OK)
		nng_msg_free(msg);
	return err;
}

static enum db_err send_and_wait(struct sender *s, uint32_t number, size_t len)
{
	enum db_err err = send_number(s, number, len);

	if (err != DB_OK)
		return err;
	CU_ASSERT_TRUE_FATAL(wait_for(&s->sent, WAIT_MS));
	return (enum db_err)atomic_load(&s->result);
}

struct receiver {
	struct link_pull *link;
	sem_t got;
	sem_t go_on; /* awaited in the handler while blocking */
	atomic_bool blocking;
	bool reconnects;  /* what an old connection has left may come after the new one's */
	atomic_uint last; /* highest number received */
	atomic_uint count;
	atomic_bool in_order; /* numbers grew, and no two handlers ran at a time */
	atomic_int inside;    /* handlers running */
};

static bool on_message(void *arg, const void *bytes, size_t len)
{
	struct receiver *r = arg;
	uint32_t number = len >= 4 ? load_u32le(bytes) : 0;

	if (atomic_fetch_add(&r->inside, 1) != 0)
		atomic_store(&r->in_order, false);
	if (number > atomic_load(&r->last))
		atomic_store(&r->last, number);
	else if (!r->reconnects)
		atomic_store(&r->in_order, false);
	atomic_fetch_add(&r->count, 1);
	sem_post(&r->got);
	if (atomic_load(&r->blocking))
		wait_for(&r->go_on, WAIT_MS);
	atomic_fetch_sub(&r->inside, 1);
	return number != NONSENSE;
}

static enum db_err receiver_open(struct receiver *r, const char *url, struct errmsg *em)
{
	memset(r, 0, sizeof(*r));
	sem_init(&r->got, 0, 0);
	sem_init(&r->go_on, 0, 0);
	atomic_store(&r->in_order, true);
	return link_pull_create(&r->link, url, on_message, r, em);
}

static void receiver_open_any(struct receiver *r, char url[LINK_URL_MAX])
{
	struct errmsg em = {0};

	UNIT_OK(receiver_open(r, "tcp://127.0.0.1:0", &em), &em);
	CU_ASSERT_PTR_NOT_NULL_FATAL(r->link);
	loopback_url(url, link_pull_port(r->link));
}

static void receiver_close(struct receiver *r)
{
	link_pull_free(r->link);
	CU_ASSERT_TRUE(atomic_load(&r->in_order));
	sem_destroy(&r->got);
	sem_destroy(&r->go_on);
}

/* ---- addresses */

static void addresses_become_urls(void)
{
	char url[LINK_URL_MAX];
	char longest[108];
	struct errmsg em = {0};

	UNIT_OK(link_tcp_url(url, "127.0.0.1:8080", &em), &em);
	CU_ASSERT_STRING_EQUAL(url, "tcp://127.0.0.1:8080");
	UNIT_OK(link_tcp_url(url, "[::1]:80", &em), &em);
	CU_ASSERT_STRING_EQUAL(url, "tcp://[::1]:80");
	UNIT_OK(link_tcp_url(url, "db-1.example_a.org:65535", &em), &em);
	UNIT_OK(link_ipc_url(url, "run/node1.sock", &em), &em);
	CU_ASSERT_STRING_EQUAL(url, "ipc://run/node1.sock");
	memset(longest, 'x', sizeof(longest));
	longest[107] = '\0';
	UNIT_OK(link_ipc_url(url, longest, &em), &em);
	CU_ASSERT_EQUAL(strlen(url), 6 + 107);
}

static void addresses_that_are_none_are_refused(void)
{
	static const char *const bad[] = {
	    "",       "host",    ":80",         "host:", "host:x", "host:65536", "host:80/x", "ho st:80",
	    "::1:80", "[::1]80", "host:000080", "[]:80", "a/b:80", "host:-1",    "user@h:1",  "[fe80::g]:1"};
	char url[LINK_URL_MAX];
	char too_long[200];
	struct errmsg em = {0};
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CU_ASSERT_EQUAL(link_tcp_url(url, bad[i], &em), DB_INVALID);
	memset(too_long, 'x', sizeof(too_long));
	strcpy(too_long + sizeof(too_long) - 4, ":80");
	CU_ASSERT_EQUAL(link_tcp_url(url, too_long, &em), DB_INVALID);
	CU_ASSERT_EQUAL(link_ipc_url(url, too_long, &em), DB_INVALID);
	CU_ASSERT_EQUAL(link_ipc_url(url, "", &em), DB_INVALID);
}

/* ---- pipeline */

static void messages_arrive_whole_and_in_order(void)
{
	char url[LINK_URL_MAX];
	struct receiver r;
	struct sender s;
	uint32_t i;

	receiver_open_any(&r, url);
	sender_open(&s, url);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
	for (i = 1; i <= 2000; i++)
		CU_ASSERT_EQUAL(send_and_wait(&s, i, i % 500 == 0 ? WIRE_CHUNK_MAX : 4 + i), DB_OK);
	for (i = 1; i <= 2000; i++)
		CU_ASSERT_TRUE_FATAL(wait_for(&r.got, WAIT_MS));
	CU_ASSERT_EQUAL(atomic_load(&r.last), 2000);
	sender_close(&s);
	receiver_close(&r);
}

static void encoded_messages_can_be_decoded_at_the_other_end(void)
{
	static const uint8_t bytes[300] = {1, 2, 3};
	static struct wire_msg msg, got;
	struct errmsg em = {0};
	struct buf b = {0};
	nng_msg *out;

	msg.head.type = WIRE_RECORDS;
	msg.body.records = (struct wire_records){1, 2, 3, 4, 0, bytes, sizeof(bytes)};
	out = link_msg_encode(&msg);
	CU_ASSERT_PTR_NOT_NULL_FATAL(out);
	UNIT_OK(wire_decode(&got, nng_msg_body(out), nng_msg_len(out), NULL, &em), &em);
	CU_ASSERT_TRUE(got.body.records.len == 300 && memcmp(got.body.records.bytes, bytes, 300) == 0);
	nng_msg_free(out);
	wire_encode(&b, &msg);
	out = link_msg_from_buf(&b);
	CU_ASSERT_TRUE(out != NULL && nng_msg_len(out) == b.len && memcmp(nng_msg_body(out), b.data, b.len) == 0);
	nng_msg_free(out);
	b.failed = true;
	CU_ASSERT_PTR_NULL(link_msg_from_buf(&b));
	buf_fini(&b);
}

static void nothing_is_queued_while_disconnected(void)
{
	char url[LINK_URL_MAX];
	struct errmsg em = {0};
	struct receiver r;
	struct sender s;

	receiver_open_any(&r, url); /* to learn of a free port */
	receiver_close(&r);
	sender_open(&s, url);
	CU_ASSERT_EQUAL(send_number(&s, 1, 4), DB_UNAVAILABLE);
	UNIT_OK(receiver_open(&r, url, &em), &em);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
	CU_ASSERT_EQUAL(send_and_wait(&s, 2, 4), DB_OK);
	CU_ASSERT_TRUE_FATAL(wait_for(&r.got, WAIT_MS));
	CU_ASSERT_EQUAL(atomic_load(&r.last), 2);
	receiver_close(&r);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.down, WAIT_MS));
	CU_ASSERT_EQUAL(send_number(&s, 3, 4), DB_UNAVAILABLE);
	UNIT_OK(receiver_open(&r, url, &em), &em);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
	CU_ASSERT_EQUAL(send_and_wait(&s, 4, 4), DB_OK);
	CU_ASSERT_TRUE_FATAL(wait_for(&r.got, WAIT_MS));
	CU_ASSERT_EQUAL(atomic_load(&r.count), 1);
	sender_close(&s);
	receiver_close(&r);
}

/* Sends until the receiver's handler, which blocks, and all buffers between hold the next one up. */
static uint32_t send_until_stuck(struct sender *s)
{
	uint32_t number = 1;

	CU_ASSERT_EQUAL_FATAL(send_number(s, number, WIRE_CHUNK_MAX), DB_OK);
	while (number < 1000 && wait_for(&s->sent, 300))
		CU_ASSERT_EQUAL_FATAL(send_number(s, ++number, WIRE_CHUNK_MAX), DB_OK);
	CU_ASSERT_TRUE_FATAL(number < 1000);
	return number;
}

static void a_slow_receiver_holds_the_sender_up(void)
{
	char url[LINK_URL_MAX];
	struct receiver r;
	struct sender s;
	uint32_t last;

	receiver_open_any(&r, url);
	atomic_store(&r.blocking, true);
	sender_open(&s, url);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
	last = send_until_stuck(&s);
	CU_ASSERT_EQUAL(send_number(&s, last + 1, 4), DB_BUSY); /* one at a time */
	atomic_store(&r.blocking, false);
	sem_post(&r.go_on);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.sent, WAIT_MS));
	CU_ASSERT_EQUAL(atomic_load(&s.result), DB_OK);
	while (atomic_load(&r.last) != last)
		CU_ASSERT_TRUE_FATAL(wait_for(&r.got, WAIT_MS));
	sender_close(&s);
	receiver_close(&r);
}

static void a_message_does_not_outlive_its_connection(void)
{
	char url[LINK_URL_MAX];
	struct receiver r;
	struct sender s;
	uint32_t stuck;

	receiver_open_any(&r, url);
	r.reconnects = true;
	atomic_store(&r.blocking, true);
	sender_open(&s, url);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
	stuck = send_until_stuck(&s);
	link_push_reconnect(s.link);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.down, WAIT_MS));
	CU_ASSERT_TRUE_FATAL(wait_for(&s.sent, WAIT_MS));
	CU_ASSERT_EQUAL(atomic_load(&s.result), DB_UNAVAILABLE);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
	atomic_store(&r.blocking, false);
	sem_post(&r.go_on);
	CU_ASSERT_EQUAL(send_and_wait(&s, stuck + 1, 4), DB_OK);
	while (atomic_load(&r.last) != stuck + 1)
		CU_ASSERT_TRUE_FATAL(wait_for(&r.got, WAIT_MS));
	CU_ASSERT_TRUE(atomic_load(&r.count) < stuck + 1); /* the stuck one, at least, is missing */
	sender_close(&s);
	receiver_close(&r);
}

static void freeing_a_sender_completes_what_it_sends(void)
{
	char url[LINK_URL_MAX];
	struct receiver r;
	struct sender s;
	int completions;

	receiver_open_any(&r, url);
	atomic_store(&r.blocking, true);
	sender_open(&s, url);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
	send_until_stuck(&s);
	link_push_free(s.link);
	s.link = NULL;
	CU_ASSERT_TRUE(sem_getvalue(&s.sent, &completions) == 0 && completions == 1);
	CU_ASSERT_EQUAL(atomic_load(&s.result), DB_CLOSED);
	sender_close(&s);
	atomic_store(&r.blocking, false);
	sem_post(&r.go_on);
	receiver_close(&r);
}

static void an_address_in_use_is_named(void)
{
	char url[LINK_URL_MAX];
	struct errmsg em = {0};
	struct link_pull *second;
	struct receiver r;

	receiver_open_any(&r, url);
	CU_ASSERT_EQUAL(link_pull_create(&second, url, on_message, &r, &em), DB_BUSY);
	CU_ASSERT_PTR_NULL(second);
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, url));
	receiver_close(&r);
	CU_ASSERT_EQUAL(link_pull_create(&second, "tcp://nonsense", on_message, &r, &em), DB_INVALID);
	CU_ASSERT_EQUAL(link_pull_create(&second, "no-url", on_message, &r, &em), DB_INVALID);
}

/* A TCP connection that says hello as a PUSH socket does; -1 when it was closed instead of answered. */
static int raw_push(uint16_t port)
{
	static const uint8_t hello[8] = {0, 'S', 'P', 0, 0, 0x50, 0, 0};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct timeval patience = {.tv_sec = WAIT_MS / 1000};
	uint8_t answer[8];
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 && send(fd, hello, 8, MSG_NOSIGNAL) == 8 &&
	    recv(fd, answer, 8, MSG_WAITALL) == 8)
		return fd;
	close(fd);
	return -1;
}

/* The silent ones that came first. */
static void connections_beyond_the_limit_are_closed(void)
{
	char url[LINK_URL_MAX];
	struct pollfd fds[LINK_PIPES_MAX + 3];
	struct receiver r;
	int i, closed = 0;
	uint64_t until_ms = clock_mono_ms() + WAIT_MS;

	receiver_open_any(&r, url);
	for (i = 0; i < LINK_PIPES_MAX + 3; i++)
		fds[i] = (struct pollfd){.fd = raw_push(link_pull_port(r.link)), .events = POLLIN};
	for (i = 0; i < LINK_PIPES_MAX + 3; i++)
		closed += fds[i].fd < 0;
	while (closed < 3 && clock_mono_ms() < until_ms && poll(fds, LINK_PIPES_MAX + 3, WAIT_MS) > 0)
		for (i = 0; i < LINK_PIPES_MAX + 3; i++)
			if (fds[i].fd >= 0 && fds[i].revents != 0) {
				close(fds[i].fd);
				fds[i].fd = -1;
				closed++;
			}
	CU_ASSERT_EQUAL(closed, 3);
	CU_ASSERT_EQUAL(poll(fds, LINK_PIPES_MAX + 3, 0), 0); /* the others stay */
	for (i = 0; i < LINK_PIPES_MAX + 3; i++)
		if (fds[i].fd >= 0)
			close(fds[i].fd);
	receiver_close(&r);
}

/* However many come and say nothing, one who speaks keeps its place. */
static void silent_connections_give_way(void)
{
	char url[LINK_URL_MAX];
	int fds[2 * LINK_PIPES_MAX];
	struct receiver r;
	struct sender s;
	uint32_t i;

	receiver_open_any(&r, url);
	sender_open(&s, url);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
	CU_ASSERT_EQUAL(send_and_wait(&s, 1, 8), DB_OK);
	CU_ASSERT_TRUE_FATAL(wait_for(&r.got, WAIT_MS));
	for (i = 0; i < 2 * LINK_PIPES_MAX; i++)
		fds[i] = raw_push(link_pull_port(r.link));
	CU_ASSERT_EQUAL(send_and_wait(&s, 2, 8), DB_OK);
	CU_ASSERT_TRUE_FATAL(wait_for(&r.got, WAIT_MS));
	CU_ASSERT_EQUAL(sem_trywait(&s.down), -1); /* on the connection it had */
	sender_close(&s);
	sender_open(&s, url); /* and there is room for one who comes */
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
	CU_ASSERT_EQUAL(send_and_wait(&s, 3, 8), DB_OK);
	CU_ASSERT_TRUE_FATAL(wait_for(&r.got, WAIT_MS));
	for (i = 0; i < 2 * LINK_PIPES_MAX; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	sender_close(&s);
	receiver_close(&r);
}

static void nonsense_ends_its_connection(void)
{
	char url[LINK_URL_MAX];
	struct receiver r;
	struct sender s;

	receiver_open_any(&r, url);
	sender_open(&s, url);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
	CU_ASSERT_EQUAL(send_and_wait(&s, NONSENSE, 8), DB_OK);
	CU_ASSERT_TRUE_FATAL(wait_for(&r.got, WAIT_MS));
	CU_ASSERT_TRUE_FATAL(wait_for(&s.down, WAIT_MS));
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS)); /* it may come again */
	CU_ASSERT_EQUAL(send_and_wait(&s, NONSENSE + 1, 8), DB_OK);
	CU_ASSERT_TRUE_FATAL(wait_for(&r.got, WAIT_MS));
	sender_close(&s);
	receiver_close(&r);
}

/* Announces a message of len bytes on a connection of its own, sends none of it, and waits for the hang-up. */
static void announce_and_expect_hang_up(uint16_t port, uint64_t len)
{
	uint8_t header[8], byte;
	int fd = raw_push(port);
	int i;

	CU_ASSERT_TRUE_FATAL(fd >= 0);
	for (i = 0; i < 8; i++)
		header[i] = (uint8_t)(len >> (56 - 8 * i));
	CU_ASSERT_EQUAL(send(fd, header, sizeof(header), MSG_NOSIGNAL), sizeof(header));
	CU_ASSERT_EQUAL(recv(fd, &byte, 1, 0), 0);
	close(fd);
}

static void a_message_beyond_the_limit_ends_its_connection_only(void)
{
	char url[LINK_URL_MAX];
	struct receiver r;
	struct sender s;

	receiver_open_any(&r, url);
	sender_open(&s, url);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
	announce_and_expect_hang_up(link_pull_port(r.link), LINK_MESSAGE_MAX + 1);
	announce_and_expect_hang_up(link_pull_port(r.link), UINT64_MAX);
	CU_ASSERT_EQUAL(send_and_wait(&s, 1, LINK_MESSAGE_MAX), DB_OK);
	CU_ASSERT_TRUE_FATAL(wait_for(&r.got, WAIT_MS));
	CU_ASSERT_EQUAL(atomic_load(&r.count), 1);
	sender_close(&s);
	receiver_close(&r);
}

/* The protocol is that of NNG's pipelines, so that processes of both kinds may meet. */
static void sockets_of_nng_may_be_at_the_other_end(void)
{
	static const char *const schemes[] = {"tcp", "ipc"};
	char url[LINK_URL_MAX];
	struct errmsg em = {0};
	struct receiver r;
	struct sender s;
	nng_socket sock;
	nng_msg *msg;
	unsigned i;
	uint32_t number;

	for (i = 0; i < 2; i++) {
		memset(&r, 0, sizeof(r));
		ipc_path(url);
		if (strcmp(schemes[i], "tcp") == 0)
			receiver_open_any(&r, url);
		else
			UNIT_OK(receiver_open(&r, url, &em), &em);
		CU_ASSERT_EQUAL_FATAL(nng_push0_open(&sock), 0);
		CU_ASSERT_EQUAL_FATAL(nng_dial(sock, url, NULL, 0), 0);
		for (number = 1; number <= 20; number++) {
			msg = link_msg_alloc(number * 10000);
			memset(nng_msg_body(msg), 0, nng_msg_len(msg));
			store_u32le(nng_msg_body(msg), number);
			CU_ASSERT_EQUAL_FATAL(nng_sendmsg(sock, msg, 0), 0);
			CU_ASSERT_TRUE_FATAL(wait_for(&r.got, WAIT_MS));
			CU_ASSERT_EQUAL(atomic_load(&r.last), number);
		}
		nng_close(sock);
		receiver_close(&r);

		CU_ASSERT_EQUAL_FATAL(nng_pull0_open(&sock), 0);
		CU_ASSERT_EQUAL(nng_socket_set_ms(sock, NNG_OPT_RECVTIMEO, WAIT_MS), 0);
		CU_ASSERT_EQUAL_FATAL(nng_listen(sock, url, NULL, 0), 0);
		sender_open(&s, url);
		CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
		for (number = 1; number <= 20; number++) {
			CU_ASSERT_EQUAL(send_and_wait(&s, number, number * 10000), DB_OK);
			CU_ASSERT_EQUAL_FATAL(nng_recvmsg(sock, &msg, 0), 0);
			CU_ASSERT_EQUAL(nng_msg_len(msg), number * 10000);
			CU_ASSERT_EQUAL(load_u32le(nng_msg_body(msg)), number);
			nng_msg_free(msg);
		}
		sender_close(&s);
		nng_close(sock);
	}
}

/* A resolver may take its time to say so; whoever frees the link does not wait for it. */
static void a_name_that_nobody_has_is_asked_for_again(void)
{
	struct sender s;

	sender_open(&s, "tcp://there-is-no-such-host.invalid:1");
	CU_ASSERT_FALSE(wait_for(&s.up, 50));
	CU_ASSERT_EQUAL(send_number(&s, 1, 4), DB_UNAVAILABLE);
	sender_close(&s);
}

/* ---- request and reply */

struct server {
	struct link_rep *link;
	sem_t asked;
	atomic_uint count;
	atomic_uint last; /* number in the last request */
	atomic_bool mute; /* leave requests unanswered */
};

static void on_request(void *arg, const void *bytes, size_t len, struct buf *reply)
{
	struct server *s = arg;

	atomic_store(&s->last, load_u32le(bytes));
	atomic_fetch_add(&s->count, 1);
	if (!atomic_load(&s->mute)) {
		buf_puts(reply, "re:");
		buf_put(reply, bytes, len);
	}
	sem_post(&s->asked);
}

static enum db_err server_open(struct server *s, const char *url, struct errmsg *em)
{
	memset(s, 0, sizeof(*s));
	sem_init(&s->asked, 0, 0);
	return link_rep_create(&s->link, url, on_request, s, em);
}

static void server_close(struct server *s)
{
	link_rep_free(s->link);
	sem_destroy(&s->asked);
}

struct answer {
	sem_t done;
	atomic_int err;
	atomic_uint calls;
	atomic_bool right;
	uint32_t number;
};

static void on_reply(void *arg, enum db_err err, const void *bytes, size_t len)
{
	struct answer *a = arg;

	atomic_store(&a->err, (int)err);
	atomic_fetch_add(&a->calls, 1);
	atomic_store(&a->right, err != DB_OK ? bytes == NULL && len == 0
					     : len == 7 && load_u32le((const uint8_t *)bytes + 3) == a->number);
	sem_post(&a->done);
}

static void ask(struct link_req *req, struct answer *a, uint32_t number, uint64_t timeout_ms)
{
	uint8_t bytes[4];

	memset(a, 0, sizeof(*a));
	sem_init(&a->done, 0, 0);
	a->number = number;
	store_u32le(bytes, number);
	CU_ASSERT_EQUAL_FATAL(link_req_send(req, bytes, 4, timeout_ms, on_reply, a), DB_OK);
}

static enum db_err ask_and_wait(struct link_req *req, uint32_t number, uint64_t timeout_ms)
{
	struct answer a;

	ask(req, &a, number, timeout_ms);
	CU_ASSERT_TRUE_FATAL(wait_for(&a.done, WAIT_MS));
	CU_ASSERT_TRUE(atomic_load(&a.right));
	return (enum db_err)atomic_load(&a.err);
}

static void many_requests_at_a_time_get_their_own_answers(void)
{
	static struct answer answers[100];
	char url[LINK_URL_MAX];
	struct errmsg em = {0};
	struct link_req *req;
	struct server s;
	uint32_t i;

	ipc_path(url);
	UNIT_OK(link_req_create(&req, url, &em), &em); /* before anybody listens */
	for (i = 0; i < 50; i++)
		ask(req, &answers[i], i, WAIT_MS);
	UNIT_OK(server_open(&s, url, &em), &em);
	for (; i < 100; i++)
		ask(req, &answers[i], i, WAIT_MS);
	for (i = 0; i < 100; i++) {
		CU_ASSERT_TRUE_FATAL(wait_for(&answers[i].done, WAIT_MS));
		CU_ASSERT_TRUE(atomic_load(&answers[i].err) == DB_OK && atomic_load(&answers[i].right));
	}
	CU_ASSERT_EQUAL(atomic_load(&s.count), 100);
	link_req_free(req);
	server_close(&s);
}

static void a_request_given_up_is_never_sent_later(void)
{
	char url[LINK_URL_MAX];
	struct errmsg em = {0};
	struct link_req *req;
	struct server s;

	ipc_path(url);
	UNIT_OK(link_req_create(&req, url, &em), &em);
	CU_ASSERT_EQUAL(ask_and_wait(req, 1, 30), DB_UNAVAILABLE); /* nobody there */
	UNIT_OK(server_open(&s, url, &em), &em);
	CU_ASSERT_EQUAL(ask_and_wait(req, 2, WAIT_MS), DB_OK);
	CU_ASSERT_TRUE(atomic_load(&s.count) == 1 && atomic_load(&s.last) == 2);
	atomic_store(&s.mute, true);
	CU_ASSERT_EQUAL(ask_and_wait(req, 3, 30), DB_TIMEOUT); /* somebody there who does not answer */
	atomic_store(&s.mute, false);
	CU_ASSERT_EQUAL(ask_and_wait(req, 4, WAIT_MS), DB_OK);
	CU_ASSERT_TRUE(atomic_load(&s.count) == 3 && atomic_load(&s.last) == 4);
	link_req_free(req);
	server_close(&s);
}

static void a_lost_connection_fails_the_request_and_does_not_repeat_it(void)
{
	char url[LINK_URL_MAX];
	struct errmsg em = {0};
	struct link_req *req;
	struct answer a;
	struct server s;

	ipc_path(url);
	UNIT_OK(server_open(&s, url, &em), &em);
	atomic_store(&s.mute, true);
	UNIT_OK(link_req_create(&req, url, &em), &em);
	ask(req, &a, 1, WAIT_MS);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.asked, WAIT_MS));
	server_close(&s);
	UNIT_OK(server_open(&s, url, &em), &em);
	CU_ASSERT_TRUE_FATAL(wait_for(&a.done, WAIT_MS / 2)); /* well before its deadline */
	CU_ASSERT_EQUAL(atomic_load(&a.err), DB_UNAVAILABLE);
	CU_ASSERT_EQUAL(ask_and_wait(req, 2, WAIT_MS), DB_OK);
	CU_ASSERT_TRUE(atomic_load(&s.count) == 1 && atomic_load(&s.last) == 2);
	link_req_free(req);
	server_close(&s);
}

static void freeing_a_requester_ends_each_request_once(void)
{
	static struct answer answers[40];
	char url[LINK_URL_MAX];
	struct errmsg em = {0};
	struct link_req *req;
	struct server s;
	uint32_t i;

	ipc_path(url);
	UNIT_OK(server_open(&s, url, &em), &em);
	atomic_store(&s.mute, true);
	UNIT_OK(link_req_create(&req, url, &em), &em);
	for (i = 0; i < 40; i++)
		ask(req, &answers[i], i, WAIT_MS);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.asked, WAIT_MS));
	link_req_free(req);
	for (i = 0; i < 40; i++) {
		CU_ASSERT_EQUAL(atomic_load(&answers[i].calls), 1);
		CU_ASSERT_EQUAL(atomic_load(&answers[i].err), DB_CLOSED);
	}
	server_close(&s);
}

static void a_blocking_call_answers_or_says_why_not(void)
{
	char url[LINK_URL_MAX];
	char tcp[LINK_URL_MAX];
	struct errmsg em = {0};
	struct buf reply = {0};
	struct server s;
	uint64_t before_ms = clock_mono_ms();

	ipc_path(url);
	CU_ASSERT_EQUAL(link_req_call(url, "ask!", 4, WAIT_MS, &reply, &em), DB_UNAVAILABLE);
	CU_ASSERT_TRUE(clock_mono_ms() - before_ms < WAIT_MS / 2); /* known at once */
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, url));
	UNIT_OK(server_open(&s, url, &em), &em);
	UNIT_OK(link_req_call(url, "ask!", 4, WAIT_MS, &reply, &em), &em);
	CU_ASSERT_TRUE(reply.len == 7 && memcmp(reply.data, "re:ask!", 7) == 0);
	atomic_store(&s.mute, true);
	CU_ASSERT_EQUAL(link_req_call(url, "ask!", 4, 30, &reply, &em), DB_TIMEOUT);
	server_close(&s);
	UNIT_OK(server_open(&s, "tcp://127.0.0.1:0", &em), &em);
	loopback_url(tcp, link_rep_port(s.link));
	UNIT_OK(link_req_call(tcp, "ask!", 4, WAIT_MS, &reply, &em), &em);
	server_close(&s);
	CU_ASSERT_EQUAL(link_req_call(tcp, "ask!", 4, 30, &reply, &em), DB_UNAVAILABLE);
	buf_fini(&reply);
}

/* ---- a killed owner */

static int child_listen(const char *url)
{
	struct server s;
	struct errmsg em = {0};

	if (server_open(&s, url, &em) != DB_OK)
		return 1;
	pause();
	return 0;
}

/* out: where its standard output goes, -1 for ours. */
static pid_t start_child(const char *what, const char *url, int out)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test leaves it behind, holding our standard output */
		if (out < 0 || dup2(out, STDOUT_FILENO) >= 0)
			execl("/proc/self/exe", "test_link", what, url, (char *)NULL);
		_exit(127);
	}
	return pid;
}

static void kill_child(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void the_socket_file_of_a_killed_process_is_taken_over(void)
{
	char url[LINK_URL_MAX];
	struct errmsg em = {0};
	struct link_req *req;
	struct server s;
	uint64_t killed_ms;
	pid_t pid;

	ipc_path(url);
	pid = start_child("listen", url, -1);
	CU_ASSERT_TRUE_FATAL(pid > 0);
	UNIT_OK(link_req_create(&req, url, &em), &em);
	CU_ASSERT_EQUAL(ask_and_wait(req, 1, WAIT_MS / 2), DB_OK);
	CU_ASSERT_EQUAL(server_open(&s, url, &em), DB_BUSY); /* a live one is not robbed */
	CU_ASSERT_EQUAL(ask_and_wait(req, 2, WAIT_MS / 2), DB_OK);
	killed_ms = clock_mono_ms();
	kill_child(pid);
	CU_ASSERT_EQUAL(access(url + strlen("ipc://"), F_OK), 0);
	UNIT_OK(server_open(&s, url, &em), &em);
	while (ask_and_wait(req, 3, 300) != DB_OK) /* perhaps before the old connection was seen to end */
		CU_ASSERT_TRUE_FATAL(clock_mono_ms() - killed_ms < WAIT_MS);
	CU_ASSERT_EQUAL(atomic_load(&s.last), 3);
	link_req_free(req);
	server_close(&s);
}

/* ---- connections that end before they have shaken hands */

#define ROUNDS   3
#define HEAL_MS  15000 /* far more than it takes, for slow machines */
#define RETRY_MS 300

static bool child_message(void *arg, const void *bytes, size_t len)
{
	(void)arg;
	(void)bytes;
	(void)len;
	if (write(STDOUT_FILENO, "!", 1) != 1)
		_exit(1);
	return true;
}

/* Tells its port, then of each message. */
static int child_pull(const char *url)
{
	struct errmsg em = {0};
	struct link_pull *pull;
	uint16_t port;

	if (link_pull_create(&pull, url, child_message, NULL, &em) != DB_OK)
		return 1;
	port = link_pull_port(pull);
	if (write(STDOUT_FILENO, &port, sizeof(port)) != sizeof(port))
		return 1;
	pause();
	return 0;
}

/* A connection that waits for its owner to accept it, and is over by then: nothing can be written to it any more. */
static void connect_and_vanish(const void *to, socklen_t len)
{
	struct linger reset = {.l_onoff = 1};
	int fd = socket(((const struct sockaddr *)to)->sa_family, SOCK_STREAM, 0);

	CU_ASSERT_EQUAL(connect(fd, to, len), 0);
	shutdown(fd, SHUT_WR);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
}

static void vanish_while_paused(pid_t pid, const void *to, socklen_t len)
{
	int status = 0;
	int i;

	kill(pid, SIGSTOP);
	CU_ASSERT_TRUE_FATAL(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
	for (i = 0; i < 3; i++)
		connect_and_vanish(to, len);
	kill(pid, SIGCONT);
}

static struct sockaddr_un socket_file(const char *url)
{
	struct sockaddr_un file = {.sun_family = AF_UNIX};

	snprintf(file.sun_path, sizeof(file.sun_path), "%.107s", url + strlen("ipc://"));
	return file;
}

static void a_server_outlives_clients_that_vanish_while_it_is_paused(void)
{
	char url[LINK_URL_MAX];
	struct errmsg em = {0};
	struct buf reply = {0};
	struct link_req *req;
	struct sockaddr_un to;
	uint64_t until_ms;
	pid_t pid;
	int i;

	ipc_path(url);
	to = socket_file(url);
	pid = start_child("listen", url, -1);
	CU_ASSERT_TRUE_FATAL(pid > 0);
	UNIT_OK(link_req_create(&req, url, &em), &em);
	CU_ASSERT_EQUAL(ask_and_wait(req, 1, WAIT_MS / 2), DB_OK);
	for (i = 0; i < ROUNDS; i++) {
		vanish_while_paused(pid, &to, sizeof(to));
		until_ms = clock_mono_ms() + HEAL_MS;
		while (link_req_call(url, "ask!", 4, RETRY_MS, &reply, &em) != DB_OK)
			CU_ASSERT_TRUE_FATAL(clock_mono_ms() < until_ms);
		while (ask_and_wait(req, 2, RETRY_MS) != DB_OK) /* its connection may have gone with the listener */
			CU_ASSERT_TRUE_FATAL(clock_mono_ms() < until_ms);
	}
	link_req_free(req);
	buf_fini(&reply);
	kill_child(pid);
}

/* Sends until the other end tells of a message. */
static void send_until_told(struct sender *s, int told_fd)
{
	struct pollfd told = {.fd = told_fd, .events = POLLIN};
	uint64_t until_ms = clock_mono_ms() + HEAL_MS;
	char byte;

	do {
		CU_ASSERT_TRUE_FATAL(clock_mono_ms() < until_ms);
		if (send_number(s, 1, 4) == DB_OK)
			CU_ASSERT_TRUE_FATAL(wait_for(&s->sent, WAIT_MS));
	} while (poll(&told, 1, RETRY_MS) == 0);
	while (poll(&told, 1, 0) > 0)
		CU_ASSERT_EQUAL_FATAL(read(told_fd, &byte, 1), 1);
}

static void a_receiver_outlives_clients_that_vanish_while_it_is_paused(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	char url[LINK_URL_MAX];
	struct sender s;
	uint16_t port = 0;
	int out[2];
	pid_t pid;
	int i;

	CU_ASSERT_EQUAL_FATAL(pipe(out), 0);
	pid = start_child("pull", "tcp://127.0.0.1:0", out[1]);
	CU_ASSERT_TRUE_FATAL(pid > 0 && read(out[0], &port, sizeof(port)) == sizeof(port));
	loopback_url(url, port);
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	to.sin_port = htons(port);
	for (i = 0; i < ROUNDS; i++) {
		vanish_while_paused(pid, &to, sizeof(to));
		sender_open(&s, url);
		send_until_told(&s, out[0]);
		sender_close(&s);
	}
	kill_child(pid);
	close(out[0]);
	close(out[1]);
}

/* How many sockets, dialers or listeners NNG has in this process. */
static unsigned nng_things(const char *kind)
{
	nng_stat *all, *scope;
	unsigned count = 0;

	CU_ASSERT_EQUAL_FATAL(nng_stats_get(&all), 0);
	for (scope = nng_stat_child(all); scope != NULL; scope = nng_stat_next(scope))
		count += strcmp(nng_stat_name(scope), kind) == 0;
	nng_stats_free(all);
	return count;
}

/* Hangs up on whoever connects, so often, or until nobody has for a while: then NNG's dialer has given up. */
static void hang_up_on_all(const char *url, int times)
{
	struct sockaddr_un at = socket_file(url);
	struct pollfd door = {.fd = socket(AF_UNIX, SOCK_STREAM, 0), .events = POLLIN};
	int refused = 0;

	CU_ASSERT_EQUAL_FATAL(bind(door.fd, (struct sockaddr *)&at, sizeof(at)), 0);
	CU_ASSERT_EQUAL_FATAL(listen(door.fd, 8), 0);
	while (refused < times && poll(&door, 1, RETRY_MS) > 0) {
		close(accept(door.fd, NULL, NULL));
		refused++;
	}
	CU_ASSERT_TRUE(refused > 0);
	close(door.fd);
	unlink(at.sun_path);
}

static void a_requester_outlives_a_peer_that_hangs_up_at_once(void)
{
	char url[LINK_URL_MAX];
	struct errmsg em = {0};
	struct link_req *req;
	struct server s;
	uint64_t until_ms;
	unsigned before;

	before = nng_things("dialer");
	ipc_path(url);
	UNIT_OK(link_req_create(&req, url, &em), &em);
	hang_up_on_all(url, 500);
	UNIT_OK(server_open(&s, url, &em), &em);
	until_ms = clock_mono_ms() + HEAL_MS;
	while (ask_and_wait(req, 1, RETRY_MS) != DB_OK)
		CU_ASSERT_TRUE_FATAL(clock_mono_ms() < until_ms);
	AWAIT(nng_things("dialer") == before + 1); /* those that had given up are closed, in the background */
	link_req_free(req);
	server_close(&s);
}

static void a_sender_outlives_a_peer_that_hangs_up_at_once(void)
{
	char url[LINK_URL_MAX];
	struct errmsg em = {0};
	struct receiver r;
	struct sender s;

	ipc_path(url);
	sender_open(&s, url);
	hang_up_on_all(url, 20);
	UNIT_OK(receiver_open(&r, url, &em), &em);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, HEAL_MS));
	CU_ASSERT_EQUAL(send_and_wait(&s, 1, 4), DB_OK);
	CU_ASSERT_TRUE_FATAL(wait_for(&r.got, WAIT_MS));
	sender_close(&s);
	receiver_close(&r);
}

/* A connection that is merely of no use must not cost the others theirs. */
static void useless_connections_leave_the_others_alone(void)
{
	char url[LINK_URL_MAX];
	struct sockaddr_in to = {.sin_family = AF_INET};
	struct receiver r;
	struct sender s;
	int i, fd;

	receiver_open_any(&r, url);
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	to.sin_port = htons(link_pull_port(r.link));
	sender_open(&s, url);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
	for (i = 0; i < 10; i++) {
		fd = socket(AF_INET, SOCK_STREAM, 0);
		CU_ASSERT_EQUAL(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
		CU_ASSERT_EQUAL(send(fd, "GET / HTTP/1.0\r\n\r\n", 18, MSG_NOSIGNAL), 18);
		close(fd);
	}
	CU_ASSERT_FALSE(wait_for(&s.down, 1500)); /* longer than it takes to find a listener dead */
	CU_ASSERT_EQUAL(send_and_wait(&s, 1, 4), DB_OK);
	CU_ASSERT_TRUE_FATAL(wait_for(&r.got, WAIT_MS));
	sender_close(&s);
	receiver_close(&r);
}

/* After all of the above. NNG's own tables hold what is not closed, so that no leak checker says it. */
static void nothing_is_left_open(void)
{
	CU_ASSERT_EQUAL(nng_things("socket"), 0);
	CU_ASSERT_EQUAL(nng_things("dialer"), 0);
	CU_ASSERT_EQUAL(nng_things("listener"), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
	    {"addresses become urls", addresses_become_urls},
	    {"addresses that are none are refused", addresses_that_are_none_are_refused},
	    {"messages arrive whole and in order", messages_arrive_whole_and_in_order},
	    {"encoded messages can be decoded at the other end", encoded_messages_can_be_decoded_at_the_other_end},
	    {"nothing is queued while disconnected", nothing_is_queued_while_disconnected},
	    {"a slow receiver holds the sender up", a_slow_receiver_holds_the_sender_up},
	    {"a message does not outlive its connection", a_message_does_not_outlive_its_connection},
	    {"freeing a sender completes what it sends", freeing_a_sender_completes_what_it_sends},
	    {"an address in use is named", an_address_in_use_is_named},
	    {"connections beyond the limit are closed", connections_beyond_the_limit_are_closed},
	    {"silent connections give way", silent_connections_give_way},
	    {"nonsense ends its connection", nonsense_ends_its_connection},
	    {"a message beyond the limit ends its connection only",
	     a_message_beyond_the_limit_ends_its_connection_only},
	    {"sockets of nng may be at the other end", sockets_of_nng_may_be_at_the_other_end},
	    {"a name that nobody has is asked for again", a_name_that_nobody_has_is_asked_for_again},
	    {"many requests at a time get their own answers", many_requests_at_a_time_get_their_own_answers},
	    {"a request given up is never sent later", a_request_given_up_is_never_sent_later},
	    {"a lost connection fails the request", a_lost_connection_fails_the_request_and_does_not_repeat_it},
	    {"freeing a requester ends each request once", freeing_a_requester_ends_each_request_once},
	    {"a blocking call answers or says why not", a_blocking_call_answers_or_says_why_not},
	    {"the socket file of a killed process is taken over", the_socket_file_of_a_killed_process_is_taken_over},
	    {"a server outlives clients that vanish while it is paused",
	     a_server_outlives_clients_that_vanish_while_it_is_paused},
	    {"a receiver outlives clients that vanish while it is paused",
	     a_receiver_outlives_clients_that_vanish_while_it_is_paused},
	    {"a requester outlives a peer that hangs up at once", a_requester_outlives_a_peer_that_hangs_up_at_once},
	    {"a sender outlives a peer that hangs up at once", a_sender_outlives_a_peer_that_hangs_up_at_once},
	    {"useless connections leave the others alone", useless_connections_leave_the_others_alone},
	    {"nothing is left open", nothing_is_left_open},
	    {NULL, NULL},
	};

	if (argc == 3 && strcmp(argv[1], "listen") == 0)
		return child_listen(argv[2]);
	if (argc == 3 && strcmp(argv[1], "pull") == 0)
		return child_pull(argv[2]);
	return unit_run("link", tests);
}

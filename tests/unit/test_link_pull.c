/*
 * test_link_pull.c - what a receiver makes of bytes: peers here are bare sockets that speak the protocol, or do not.
 *
 * Every wait is for an event, with WAIT_MS as the deadline. test_link.c has the receiver with real senders.
 */
#include "common/wire/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "tests/unit/unit.h"

#define WAIT_MS 10000

static const uint8_t hello[8] = {0, 'S', 'P', 0, 0, 0x50, 0, 0};

/* ---- a receiver that keeps what it hears */

struct receiver {
	struct link_pull *link;
	sem_t got;
	struct buf heard; /* each message's bytes, then a '|'; read after as many sem_wait() */
};

static bool on_message(void *arg, const void *bytes, size_t len)
{
	struct receiver *r = arg;

	buf_put(&r->heard, bytes, len);
	buf_puts(&r->heard, "|");
	sem_post(&r->got);
	return true;
}

static void receiver_open(struct receiver *r, const char *url)
{
	struct errmsg em = {0};

	memset(r, 0, sizeof(*r));
	sem_init(&r->got, 0, 0);
	UNIT_OK(link_pull_create(&r->link, url, on_message, r, &em), &em);
	CU_ASSERT_PTR_NOT_NULL_FATAL(r->link);
}

static void receiver_close(struct receiver *r)
{
	link_pull_free(r->link);
	buf_fini(&r->heard);
	sem_destroy(&r->got);
}

static void expect(struct receiver *r, unsigned messages, const char *heard)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_MS / 1000;
	while (messages-- > 0)
		CU_ASSERT_EQUAL_FATAL(sem_timedwait(&r->got, &until), 0);
	CU_ASSERT_EQUAL(r->heard.len, strlen(heard));
	CU_ASSERT_EQUAL(memcmp(r->heard.data, heard, r->heard.len), 0);
}

/* ---- bare peers */

static void reach(int fd, const struct sockaddr *to, socklen_t len)
{
	struct timeval patience = {.tv_sec = WAIT_MS / 1000};

	CU_ASSERT_TRUE_FATAL(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	CU_ASSERT_EQUAL_FATAL(connect(fd, to, len), 0);
}

static void reach_with(int fd, const struct receiver *r)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(link_pull_port(r->link))};
	const int on = 1;

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	reach(fd, (struct sockaddr *)&to, sizeof(to));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static int reach_port(const struct receiver *r)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	reach_with(fd, r);
	return fd;
}

static int reach_file(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "pull.socket"};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	reach(fd, (struct sockaddr *)&to, sizeof(to));
	return fd;
}

static void say(int fd, const void *bytes, size_t len)
{
	CU_ASSERT_EQUAL(send(fd, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* What a receiver says first, and then nothing. */
static void expect_hello(int fd)
{
	static const uint8_t expected[8] = {0, 'S', 'P', 0, 0, 0x51, 0, 0};
	uint8_t answer[8];

	CU_ASSERT_EQUAL_FATAL(recv(fd, answer, sizeof(answer), MSG_WAITALL), 8);
	CU_ASSERT_EQUAL(memcmp(answer, expected, 8), 0);
}

static void expect_hang_up(int fd)
{
	uint8_t byte;
	ssize_t got = recv(fd, &byte, 1, 0);

	CU_ASSERT_TRUE(got == 0 || (got < 0 && errno == ECONNRESET));
	close(fd);
}

/* text as a message behind its length; file: as on a Unix socket. */
static void put_message(struct buf *b, const char *text, bool file)
{
	int i;

	if (file)
		buf_put_u8(b, 1);
	for (i = 7; i >= 0; i--)
		buf_put_u8(b, (uint8_t)((uint64_t)strlen(text) >> (8 * i)));
	buf_puts(b, text);
}

/* ---- tests */

static void bytes_arrive_in_any_pieces(void)
{
	struct receiver r;
	struct buf all = {0};
	size_t piece, at, n;
	int fd;

	for (piece = 1; piece < 40; piece++) {
		receiver_open(&r, "tcp://127.0.0.1:0");
		buf_clear(&all);
		buf_put(&all, hello, sizeof(hello));
		put_message(&all, "one", false);
		put_message(&all, "", false);
		put_message(&all, "the third", false);
		fd = reach_port(&r);
		for (at = 0; at < all.len; at += n) {
			n = all.len - at < piece ? all.len - at : piece;
			say(fd, all.data + at, n);
		}
		expect_hello(fd);
		expect(&r, 3, "one||the third|");
		close(fd);
		receiver_close(&r);
	}
	buf_fini(&all);
}

static void a_file_has_its_own_framing(void)
{
	char dir[UNIT_PATH_MAX];
	struct receiver r;
	struct buf all = {0};
	int fd;

	unit_tmpdir(dir);
	CU_ASSERT_EQUAL_FATAL(chdir(dir), 0);
	receiver_open(&r, "ipc://pull.socket");
	buf_put(&all, hello, sizeof(hello));
	put_message(&all, "one", true);
	put_message(&all, "two", true);
	fd = reach_file();
	say(fd, all.data, all.len);
	expect_hello(fd);
	expect(&r, 2, "one|two|");
	say(fd, "\2\0\0\0\0\0\0\0\0", 9);
	expect_hang_up(fd);
	buf_clear(&all);
	buf_put(&all, hello, sizeof(hello));
	put_message(&all, "three", true);
	fd = reach_file(); /* the others may still come */
	say(fd, all.data, all.len);
	expect(&r, 1, "one|two|three|");
	close(fd);
	receiver_close(&r);
	buf_fini(&all);
}

static void strangers_are_sent_away(void)
{
	static const uint8_t strangers[][8] = {
	    {0, 'S', 'P', 0, 0, 0x51, 0, 0}, /* a PULL socket */
	    {0, 'S', 'P', 0, 0, 0x30, 0, 0}, /* a REQ socket */
	    {0, 'S', 'P', 1, 0, 0x50, 0, 0}, /* of another version */
	    {0, 'S', 'P', 0, 0, 0x50, 0, 1}, {'G', 'E', 'T', ' ', '/', ' ', 'H', 'T'},
	};
	struct receiver r;
	size_t i;
	int fd;

	receiver_open(&r, "tcp://127.0.0.1:0");
	for (i = 0; i < sizeof(strangers) / sizeof(strangers[0]); i++) {
		fd = reach_port(&r);
		say(fd, strangers[i], 8);
		expect_hello(fd);
		expect_hang_up(fd);
	}
	CU_ASSERT_EQUAL(r.heard.len, 0);
	receiver_close(&r);
}

/* Strangers who say nothing at all are the first to go, whoever came before them. */
static void who_has_said_hello_outstays_who_has_not(void)
{
	int fds[LINK_PIPES_MAX], greeted, i;
	struct buf message = {0};
	struct receiver r;
	uint8_t byte;

	receiver_open(&r, "tcp://127.0.0.1:0");
	greeted = reach_port(&r);
	say(greeted, hello, sizeof(hello));
	expect_hello(greeted);
	for (i = 0; i < LINK_PIPES_MAX; i++) {
		fds[i] = reach_port(&r);
		expect_hello(fds[i]);
	}
	CU_ASSERT_EQUAL(recv(fds[0], &byte, 1, 0), 0); /* for the last one's sake */
	put_message(&message, "still here", false);
	say(greeted, message.data, message.len);
	expect(&r, 1, "still here|");
	for (i = 0; i < LINK_PIPES_MAX; i++)
		close(fds[i]);
	close(greeted);
	buf_fini(&message);
	receiver_close(&r);
}

/* Lowers the limit to the descriptors that are open: the next one is one too many. */
static struct rlimit allow_no_more_descriptors(void)
{
	struct rlimit before, now;
	int lowest = dup(STDIN_FILENO);

	CU_ASSERT_TRUE_FATAL(lowest >= 0);
	close(lowest);
	CU_ASSERT_EQUAL_FATAL(getrlimit(RLIMIT_NOFILE, &before), 0);
	now = before;
	now.rlim_cur = (rlim_t)lowest;
	CU_ASSERT_EQUAL_FATAL(setrlimit(RLIMIT_NOFILE, &now), 0);
	return before;
}

static void a_process_without_descriptors_lets_in_later(void)
{
	struct buf message = {0};
	struct rlimit before;
	struct receiver r;
	uint8_t byte;
	int fd;

	receiver_open(&r, "tcp://127.0.0.1:0");
	put_message(&message, "patience", false);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	before = allow_no_more_descriptors();
	reach_with(fd, &r);
	say(fd, hello, sizeof(hello));
	say(fd, message.data, message.len);
	CU_ASSERT_EQUAL(recv(fd, &byte, 1, MSG_DONTWAIT), -1); /* in the queue */
	CU_ASSERT_EQUAL(setrlimit(RLIMIT_NOFILE, &before), 0);
	expect_hello(fd);
	expect(&r, 1, "patience|");
	close(fd);
	buf_fini(&message);
	receiver_close(&r);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"bytes arrive in any pieces", bytes_arrive_in_any_pieces},
	    {"a file has its own framing", a_file_has_its_own_framing},
	    {"strangers are sent away", strangers_are_sent_away},
	    {"who has said hello outstays who has not", who_has_said_hello_outstays_who_has_not},
	    {"a process without descriptors lets in later", a_process_without_descriptors_lets_in_later},
	    {NULL, NULL},
	};

	return unit_run("link_pull", tests);
}

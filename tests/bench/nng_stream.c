/*
 * nng_stream.c - the yardstick of a snapshot: how fast bytes go through a plain NNG PUSH/PULL pair over TCP loopback.
 *
 * Two processes, as a snapshot has: the child listens and counts, the parent dials and sends messages of one size, each
 * filled from a block of noise (a copy, as a page that is sent needs one). The clock runs in the child from the first
 * message's arrival to the last one's, so that connecting does not count. One JSON line.
 *
 * Exit: 0 ran, 1 failed, 2 bad usage.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nng/nng.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>

#include "common/base/clock.h"

#define MESSAGE_BYTES_MAX ((size_t)8 << 20)
#define TIMEOUT_MS        20000 /* of one message: nobody is at the other end any more */

struct stream {
	uint64_t bytes;       /* in all, a multiple of message_bytes */
	size_t message_bytes; /* of one message */
};

static int fail(const char *what, int rv)
{
	fprintf(stderr, "nng_stream: %s: %s\n", what, nng_strerror(rv));
	return 1;
}

static int receive_all(const struct stream *s, nng_socket sock)
{
	uint64_t received = 0, first_us = 0, took_us;
	nng_msg *msg;
	int rv;

	while (received < s->bytes) {
		rv = nng_recvmsg(sock, &msg, 0);
		if (rv != 0)
			return fail("receive", rv);
		if (received == 0)
			first_us = clock_mono_us();
		received += nng_msg_len(msg);
		nng_msg_free(msg);
	}
	took_us = clock_mono_us() - first_us;
	received -= s->message_bytes; /* the first had arrived when the clock was started */
	printf("{\"bytes\":%" PRIu64 ",\"message_bytes\":%zu,\"took_us\":%" PRIu64 ",\"mb_per_s\":%.1f}\n", s->bytes,
	       s->message_bytes, took_us, took_us > 0 ? (double)received / (double)took_us : 0.0);
	return fflush(stdout) == 0 ? 0 : 1;
}

/* The child: tells the port that it listens at through port_fd. */
static int receiver(const struct stream *s, int port_fd)
{
	nng_socket sock;
	nng_listener listener;
	int port = 0, result = 1, rv;

	rv = nng_pull0_open(&sock);
	if (rv != 0)
		return fail("open", rv);
	rv = nng_socket_set_ms(sock, NNG_OPT_RECVTIMEO, TIMEOUT_MS);
	if (rv == 0)
		rv = nng_socket_set_size(sock, NNG_OPT_RECVMAXSZ, 2 * MESSAGE_BYTES_MAX);
	if (rv == 0)
		rv = nng_listen(sock, "tcp://127.0.0.1:0", &listener, 0);
	if (rv == 0)
		rv = nng_listener_get_int(listener, NNG_OPT_TCP_BOUND_PORT, &port);
	if (rv != 0)
		fail("listen", rv);
	else if (write(port_fd, &port, sizeof(port)) != (ssize_t)sizeof(port))
		fprintf(stderr, "nng_stream: pipe: %s\n", strerror(errno));
	else
		result = receive_all(s, sock);
	nng_close(sock);
	return result;
}

static int send_all(const struct stream *s, nng_socket sock, const void *block)
{
	nng_msg *msg;
	uint64_t sent;
	int rv;

	for (sent = 0; sent < s->bytes; sent += s->message_bytes) {
		rv = nng_msg_alloc(&msg, 0);
		if (rv != 0)
			return fail("message", rv);
		rv = nng_msg_append(msg, block, s->message_bytes);
		if (rv == 0)
			rv = nng_sendmsg(sock, msg, 0);
		if (rv != 0) {
			nng_msg_free(msg);
			return fail("send", rv);
		}
	}
	return 0;
}

static int sender(const struct stream *s, int port_fd)
{
	char url[64];
	char *block = malloc(s->message_bytes);
	nng_socket sock;
	int port, result = 1, rv;
	size_t i;

	if (block == NULL)
		return fail("block", NNG_ENOMEM);
	for (i = 0; i < s->message_bytes; i++)
		block[i] = (char)random();
	if (read(port_fd, &port, sizeof(port)) != (ssize_t)sizeof(port))
		goto out; /* the child has said why */
	snprintf(url, sizeof(url), "tcp://127.0.0.1:%d", port);
	rv = nng_push0_open(&sock);
	if (rv != 0) {
		fail("open", rv);
		goto out;
	}
	rv = nng_socket_set_ms(sock, NNG_OPT_SENDTIMEO, TIMEOUT_MS);
	if (rv == 0)
		rv = nng_dial(sock, url, NULL, 0);
	result = rv == 0 ? send_all(s, sock, block) : fail("dial", rv);
	if (result == 0)
		wait(&result); /* it has everything before the socket is closed */
	nng_close(sock);
out:
	free(block);
	return result == 0 ? 0 : 1;
}

static int run(const struct stream *s)
{
	int port_pipe[2];
	pid_t pid;

	if (pipe(port_pipe) != 0 || (pid = fork()) < 0) { /* before NNG has any thread */
		fprintf(stderr, "nng_stream: %s\n", strerror(errno));
		return 1;
	}
	if (pid == 0) {
		close(port_pipe[0]);
		_exit(receiver(s, port_pipe[1]));
	}
	close(port_pipe[1]);
	return sender(s, port_pipe[0]);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"bytes", required_argument, NULL, 'b'},
						{"message-bytes", required_argument, NULL, 'm'},
						{NULL, 0, NULL, 0}};
	struct stream s = {.bytes = (uint64_t)256 << 20, .message_bytes = (size_t)1 << 20};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'b')
			s.bytes = strtoull(optarg, NULL, 10);
		else if (c == 'm')
			s.message_bytes = strtoull(optarg, NULL, 10);
		else
			return 2;
	}
	if (optind < argc || s.message_bytes == 0 || s.message_bytes > MESSAGE_BYTES_MAX ||
	    s.bytes < 2 * s.message_bytes) {
		fprintf(stderr, "usage: nng_stream [--bytes N] [--message-bytes N]\n");
		return 2;
	}
	s.bytes -= s.bytes % s.message_bytes;
	return run(&s);
}

/*
 * bare_commit.c - the yardstick of one durable write at a time: the same parts with nothing of a database between them.
 *
 * Three processes, as a master and two replicas are: the parent sends a block to both over NNG PUSH/PULL, writes and
 * syncs it to a file of its own meanwhile, and begins the next round when one of the two has said that it has synced it,
 * too. The files are written before, as the log's segments are. Receiving is an aio callback, which wakes fewer threads
 * than nng_recvmsg() does. One JSON line.
 *
 * Exit: 0 ran, 1 failed, 2 bad usage.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nng/nng.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>

#include "common/base/clock.h"
#include "tests/bench/hist.h"

#define REPLICAS   2
#define FILE_BYTES ((size_t)16 << 20)
#define BLOCK_MAX  ((size_t)64 << 10)
#define TIMEOUT_MS 20000 /* of one round: somebody is gone */

struct run {
	const char *dir;
	bool ipc;
	size_t bytes; /* of one block */
	uint64_t duration_ms;
};

/* One process's end: its log, where it receives, and what of that has come. */
struct end {
	const struct run *run;
	int number; /* 0: the parent */
	int fd;
	off_t at;
	nng_socket in;
	nng_aio *aio;
	nng_socket out; /* of a replica: where its answers go */
	char block[BLOCK_MAX];
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t heard; /* the parent: the last round that a replica has synced; under lock */
};

static bool failed(const char *what, const char *why)
{
	fprintf(stderr, "bare_commit: %s: %s\n", what, why);
	return false;
}

static bool failed_nng(const char *what, int rv)
{
	return failed(what, nng_strerror(rv));
}

static bool open_log(struct end *e)
{
	char path[512];
	size_t at;

	snprintf(path, sizeof(path), "%s/bare_commit.%d", e->run->dir, e->number);
	e->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (e->fd < 0)
		return failed(path, strerror(errno));
	unlink(path);
	for (at = 0; at < FILE_BYTES; at += BLOCK_MAX)
		if (pwrite(e->fd, e->block, BLOCK_MAX, (off_t)at) != (ssize_t)BLOCK_MAX)
			return failed(path, strerror(errno));
	return fsync(e->fd) == 0 || failed(path, strerror(errno));
}

static bool write_and_sync(struct end *e, const void *bytes, size_t len)
{
	if (pwrite(e->fd, bytes, len, e->at) != (ssize_t)len || fdatasync(e->fd) != 0)
		return failed("log", strerror(errno));
	e->at += (off_t)len;
	if ((size_t)e->at + len > FILE_BYTES)
		e->at = 0;
	return true;
}

/* A replica has been sent a block, the parent an answer; both begin with the round's number. */
static void received(void *arg)
{
	struct end *e = arg;
	nng_msg *msg;
	uint64_t round;

	if (nng_aio_result(e->aio) != 0)
		return; /* the socket is being closed */
	msg = nng_aio_get_msg(e->aio);
	memcpy(&round, nng_msg_body(msg), sizeof(round));
	if (e->number == 0) {
		nng_msg_free(msg);
		pthread_mutex_lock(&e->lock);
		if (round > e->heard)
			e->heard = round;
		pthread_mutex_unlock(&e->lock);
		pthread_cond_signal(&e->changed);
	} else {
		if (!write_and_sync(e, nng_msg_body(msg), nng_msg_len(msg)))
			_exit(1);
		nng_msg_chop(msg, nng_msg_len(msg) - sizeof(round));
		if (nng_sendmsg(e->out, msg, 0) != 0)
			nng_msg_free(msg); /* the parent is gone, and so shall we be */
	}
	nng_recv_aio(e->in, e->aio);
}

static void url_of(const struct end *e, char out[256], int number, int port)
{
	if (e->run->ipc)
		snprintf(out, 256, "ipc://%s/bare_commit.%d.socket", e->run->dir, number);
	else
		snprintf(out, 256, "tcp://127.0.0.1:%d", port);
}

/* Listens; *port is the one bound. */
static bool open_in(struct end *e, int *port)
{
	nng_listener listener;
	char url[256];
	int rv;

	url_of(e, url, e->number, 0);
	rv = nng_pull0_open(&e->in);
	if (rv == 0)
		rv = nng_listen(e->in, url, &listener, 0);
	if (rv == 0 && !e->run->ipc)
		rv = nng_listener_get_int(listener, NNG_OPT_TCP_BOUND_PORT, port);
	if (rv == 0)
		rv = nng_aio_alloc(&e->aio, received, e);
	return rv == 0 || failed_nng("listen", rv);
}

static bool open_out(const struct end *e, nng_socket *out, int number, int port)
{
	char url[256];
	int rv;

	url_of(e, url, number, port);
	rv = nng_push0_open(out);
	if (rv == 0)
		rv = nng_socket_set_ms(*out, NNG_OPT_SENDTIMEO, TIMEOUT_MS);
	if (rv == 0)
		rv = nng_dial(*out, url, NULL, 0);
	return rv == 0 || failed_nng("dial", rv);
}

/* A replica's life: it ends with its parent. */
static void replicate(struct end *e, int from_parent, int to_parent)
{
	int port = 0, parent_port;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!open_log(e) || !open_in(e, &port) || write(to_parent, &port, sizeof(port)) != (ssize_t)sizeof(port) ||
	    read(from_parent, &parent_port, sizeof(parent_port)) != (ssize_t)sizeof(parent_port) ||
	    !open_out(e, &e->out, 0, parent_port))
		_exit(1);
	nng_recv_aio(e->in, e->aio);
	for (;;)
		pause();
}

/* True: one replica has synced the round. */
static bool await_answer(struct end *e, uint64_t round)
{
	uint64_t deadline_us = clock_mono_us() + TIMEOUT_MS * 1000u;
	bool heard;

	pthread_mutex_lock(&e->lock);
	while (e->heard < round && clock_wait(&e->changed, &e->lock, deadline_us))
		continue;
	heard = e->heard >= round;
	pthread_mutex_unlock(&e->lock);
	return heard || failed("round", "no replica has answered");
}

static bool one_round(struct end *e, nng_socket out[REPLICAS], uint64_t round)
{
	nng_msg *msg;
	int i, rv;

	memcpy(e->block, &round, sizeof(round));
	for (i = 0; i < REPLICAS; i++) {
		rv = nng_msg_alloc(&msg, e->run->bytes);
		if (rv != 0)
			return failed_nng("message", rv);
		memcpy(nng_msg_body(msg), e->block, e->run->bytes);
		rv = nng_sendmsg(out[i], msg, 0);
		if (rv != 0) {
			nng_msg_free(msg);
			return failed_nng("send", rv);
		}
	}
	return write_and_sync(e, e->block, e->run->bytes) && await_answer(e, round);
}

static bool measure(struct end *e, nng_socket out[REPLICAS])
{
	uint64_t start_us = clock_mono_us(), now_us = start_us, before_us, round = 0;
	struct hist h;

	hist_init(&h);
	while (now_us - start_us < e->run->duration_ms * 1000) {
		before_us = now_us;
		if (!one_round(e, out, ++round))
			return false;
		now_us = clock_mono_us();
		hist_add(&h, now_us - before_us);
	}
	printf("{\"transport\":\"%s\",\"bytes\":%zu,\"rate\":%.1f,", e->run->ipc ? "ipc" : "tcp", e->run->bytes,
	       (double)h.count * 1e6 / (double)(now_us - start_us));
	hist_print_json(&h, "", stdout);
	printf("}\n");
	return fflush(stdout) == 0;
}

static bool command(struct end *e, const int to_child[REPLICAS][2], const int from_child[REPLICAS][2])
{
	nng_socket out[REPLICAS];
	int port = 0, child_port, i;

	if (!open_log(e) || !open_in(e, &port))
		return false;
	for (i = 0; i < REPLICAS; i++)
		if (read(from_child[i][0], &child_port, sizeof(child_port)) != (ssize_t)sizeof(child_port) ||
		    write(to_child[i][1], &port, sizeof(port)) != (ssize_t)sizeof(port) ||
		    !open_out(e, &out[i], i + 1, child_port))
			return false;
	nng_recv_aio(e->in, e->aio);
	return measure(e, out);
}

static bool run(const struct run *r)
{
	int to_child[REPLICAS][2], from_child[REPLICAS][2], i;
	struct end *e = calloc(1, sizeof(*e));
	pid_t children[REPLICAS];
	char path[512];
	bool ok;

	if (e == NULL)
		return failed("memory", strerror(errno));
	e->run = r;
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->changed, NULL);
	for (i = 0; i < REPLICAS; i++) { /* before NNG has any thread */
		if (pipe(to_child[i]) != 0 || pipe(from_child[i]) != 0 || (children[i] = fork()) < 0)
			return failed("fork", strerror(errno));
		if (children[i] == 0) {
			e->number = i + 1;
			close(to_child[i][1]);
			close(from_child[i][0]);
			replicate(e, to_child[i][0], from_child[i][1]);
		}
		close(to_child[i][0]);
		close(from_child[i][1]);
	}
	ok = command(e, to_child, from_child);
	for (i = 0; i < REPLICAS; i++) {
		kill(children[i], SIGKILL);
		waitpid(children[i], NULL, 0);
	}
	for (i = 0; i <= REPLICAS && r->ipc; i++) {
		snprintf(path, sizeof(path), "%s/bare_commit.%d.socket", r->dir, i);
		unlink(path);
	}
	return ok; /* the rest ends with the process */
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"dir", required_argument, NULL, 'd'},
						{"transport", required_argument, NULL, 't'},
						{"bytes", required_argument, NULL, 'b'},
						{"duration-ms", required_argument, NULL, 'm'},
						{NULL, 0, NULL, 0}};
	struct run r = {.bytes = 8 << 10, .duration_ms = 3000};
	bool usable = true;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'd')
			r.dir = optarg;
		else if (c == 't')
			r.ipc = strcmp(optarg, "ipc") == 0;
		else if (c == 'b')
			r.bytes = strtoull(optarg, NULL, 10);
		else if (c == 'm')
			r.duration_ms = strtoull(optarg, NULL, 10);
		else
			usable = false;
	}
	if (!usable || optind < argc || r.dir == NULL || r.bytes < sizeof(uint64_t) || r.bytes > BLOCK_MAX) {
		fprintf(stderr, "usage: bare_commit --dir D [--transport tcp|ipc] [--bytes N] [--duration-ms N]\n");
		return 2;
	}
	return run(&r) ? 0 : 1;
}

/*
 * fake_node.c - see fake_node.h.
 *
 * It keeps the promises of the
 * control protocol (a durable term, stepping down, one promotion for each promise), hands its listening socket to whoever
 * asks, and while it is master answers each connection at the endpoint with "<id> <term>\n". In place of replication all
 * nodes share the file fake.log, which holds the last position of the master; a replica follows it when it is asked
 * something. A file node<i>/refuse makes it exit with the code it holds, a file node<i>/position sets its position,
 * and while there is a file node<i>/slow it answers late.
 */
#include "tests/unit/fake_node.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fdpass.h"
#include "common/base/log.h"
#include "common/base/slotfile.h"
#include "common/wire/link.h"

#define ENDPOINT_FD 3

struct fake {
	pthread_mutex_t lock;
	char id[16];
	bool master;
	bool draining;
	bool stuck_draining; /* node<i>/stuck exists: a drain never ends */
	bool promoted;       /* in promised_term */
	uint64_t promised_term;
	struct wal_pos last;
	struct slotfile state;
};

static void die(const char *what)
{
	log_error("%s: %s", what, strerror(errno));
	exit(1);
}

static bool read_numbers(const char *path, uint64_t *a, uint64_t *b)
{
	FILE *f = fopen(path, "re");
	bool ok;

	if (f == NULL)
		return false;
	ok = fscanf(f, "%" SCNu64 " %" SCNu64, a, b) >= 1;
	fclose(f);
	return ok;
}

static void store(struct fake *n)
{
	struct errmsg em = {0};
	uint64_t state[3] = {n->promised_term, n->last.term, n->last.lsn};

	if (slotfile_write(&n->state, state, sizeof(state), &em) != DB_OK) {
		log_error("%s", em.text);
		exit(1);
	}
}

static void publish(const struct fake *n)
{
	char temp[32];
	FILE *f;

	snprintf(temp, sizeof(temp), "fake.log.%s", n->id);
	f = fopen(temp, "we");
	if (f == NULL || fprintf(f, "%" PRIu64 " %" PRIu64 "\n", n->last.term, n->last.lsn) < 0 || fclose(f) != 0 ||
	    rename(temp, "fake.log") != 0)
		die("fake.log");
}

static void follow(struct fake *n)
{
	struct wal_pos pos;

	if (n->master || !read_numbers("fake.log", &pos.term, &pos.lsn) || pos.term != n->promised_term)
		return;
	n->last = pos;
}

static void begin_term(struct fake *n)
{
	n->master = true;
	n->promoted = true;
	n->draining = false;
	n->last = (struct wal_pos){n->promised_term, n->last.lsn + 1};
	store(n);
	publish(n);
	log_info("master of term %" PRIu64, n->promised_term);
}

static bool set_term(struct fake *n, uint64_t term)
{
	if (term < n->promised_term)
		return false;
	if (term > n->promised_term) {
		n->promised_term = term;
		n->master = false;
		n->draining = false;
		n->promoted = false;
		store(n);
	}
	return true;
}

static bool carry_out(struct fake *n, const struct wire_head *head)
{
	switch (head->type) {
	case WIRE_SET_TERM:
		return set_term(n, head->term);
	case WIRE_PROMOTE:
		if (head->term != n->promised_term || (n->promoted && !n->master))
			return false;
		if (!n->master)
			begin_term(n);
		return true;
	case WIRE_DRAIN:
	case WIRE_RESUME:
		n->draining = n->master && head->type == WIRE_DRAIN;
		return n->master;
	default:
		return head->type == WIRE_HEARTBEAT;
	}
}

/* While node<i>/slow exists each request costs this much processor time, as on a machine that has none to spare. */
static void waste_time(const struct fake *n)
{
	uint64_t end_ms;
	char path[64];

	snprintf(path, sizeof(path), "%s/slow", n->id);
	if (access(path, F_OK) != 0)
		return;
	end_ms = clock_mono_ms() + FAKE_NODE_SLOW_MS;
	while (clock_mono_ms() < end_ms)
		;
}

static void on_request(void *arg, const void *bytes, size_t len, struct buf *reply)
{
	struct fake *n = arg;
	struct wire_msg *msg = calloc(1, sizeof(*msg));
	struct wire_node_status s = {0};
	struct errmsg em = {0};
	struct wire_head head;

	if (msg == NULL || wire_decode(msg, bytes, len, NULL, &em) != DB_OK) {
		log_warn("%s", em.text);
		free(msg);
		return;
	}
	head = msg->head;
	waste_time(n);
	pthread_mutex_lock(&n->lock);
	follow(n);
	s.accepted = carry_out(n, &head);
	s.role = n->master ? WIRE_ROLE_MASTER : WIRE_ROLE_REPLICA;
	s.state = WIRE_STATE_UP;
	s.ready = true;
	s.draining = n->draining;
	s.pid = (uint32_t)getpid();
	s.promised_term = n->promised_term;
	s.last = n->last;
	s.durable_lsn = s.applied_lsn = n->last.lsn;
	s.committed_lsn = n->stuck_draining ? n->last.lsn - 1 : n->last.lsn;
	pthread_mutex_unlock(&n->lock);
	memset(msg, 0, sizeof(*msg));
	msg->head.type = WIRE_NODE_STATUS;
	msg->head.term = s.promised_term;
	memcpy(msg->head.cluster_id, head.cluster_id, sizeof(head.cluster_id));
	memcpy(msg->head.sender, n->id, sizeof(n->id));
	msg->body.status = s;
	wire_encode(reply, msg);
	free(msg);
}

static void load(struct fake *n)
{
	char path[64];
	uint64_t state[3] = {0};
	uint64_t code = 0, none;
	struct errmsg em = {0};
	size_t len;

	mkdir(n->id, 0700);
	snprintf(path, sizeof(path), "%s/refuse", n->id);
	if (read_numbers(path, &code, &none))
		exit((int)code);
	snprintf(path, sizeof(path), "%s/stuck", n->id);
	n->stuck_draining = access(path, F_OK) == 0;
	snprintf(path, sizeof(path), "%s/state", n->id);
	if (slotfile_open(&n->state, path, state, sizeof(state), &len, &em) != DB_OK) {
		log_error("%s", em.text);
		exit(1);
	}
	n->promised_term = state[0];
	n->promoted = state[0] != 0; /* whatever was promoted in it was another process */
	n->last = (struct wal_pos){state[1], state[2]};
	snprintf(path, sizeof(path), "%s/position", n->id);
	if (read_numbers(path, &n->last.term, &n->last.lsn))
		store(n);
}

static void answer_one(struct fake *n)
{
	char text[64];
	int len;
	int fd;

	fd = accept4(ENDPOINT_FD, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	pthread_mutex_lock(&n->lock);
	len = snprintf(text, sizeof(text), "%s %" PRIu64 "\n", n->id, n->promised_term);
	pthread_mutex_unlock(&n->lock);
	if (send(fd, text, (size_t)len, MSG_NOSIGNAL) < 0)
		log_warn("a client is gone");
	close(fd);
}

static void serve(struct fake *n, int pass_fd)
{
	for (;;) {
		struct pollfd fds[2] = {{.fd = pass_fd, .events = POLLIN}, {.fd = ENDPOINT_FD, .events = POLLIN}};
		struct errmsg em = {0};
		bool accepts;

		pthread_mutex_lock(&n->lock);
		accepts = n->master && !n->draining;
		pthread_mutex_unlock(&n->lock);
		fds[1].events = accepts ? POLLIN : 0;
		if (poll(fds, 2, 1) < 0 && errno != EINTR)
			die("poll");
		if (fds[0].revents != 0 && fdpass_accept_and_send(pass_fd, ENDPOINT_FD, &em) != DB_OK)
			log_warn("%s", em.text);
		if (accepts && fds[1].revents != 0)
			answer_one(n);
	}
}

static const char *option(int argc, char **argv, const char *name)
{
	int i;

	for (i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return argv[i + 1];
	return NULL;
}

int fake_node_main(int argc, char **argv)
{
	static struct fake node = {.lock = PTHREAD_MUTEX_INITIALIZER};
	const char *dir = option(argc, argv, "--data-dir");
	const char *id = option(argc, argv, "--id");
	const char *term = option(argc, argv, "--term");
	const char *listen_pid = getenv("LISTEN_PID");
	struct link_rep *rep = NULL;
	struct errmsg em = {0};
	char path[64];
	char url[LINK_URL_MAX];
	int pass_fd;

	if (dir == NULL || id == NULL || chdir(dir) != 0)
		return 2;
	log_init(id, LOG_LEVEL_INFO);
	if (listen_pid == NULL || atoi(listen_pid) != getpid() || getenv("GRIZZLY_TOKEN") != NULL) {
		log_error("the environment is not that of the LISTEN_FDS convention");
		return 2;
	}
	snprintf(node.id, sizeof(node.id), "%s", id);
	load(&node);
	if (term != NULL) {
		if (!set_term(&node, strtoull(term, NULL, 10)))
			return 2;
		begin_term(&node);
	}
	snprintf(path, sizeof(path), "run/%s.fd", id);
	if (fdpass_listen(path, &pass_fd, &em) != DB_OK) {
		log_error("%s", em.text);
		return 1;
	}
	snprintf(path, sizeof(path), "run/%s.ctl", id);
	if (link_ipc_url(url, path, &em) != DB_OK || link_rep_create(&rep, url, on_request, &node, &em) != DB_OK) {
		log_error("%s", em.text);
		return 1;
	}
	serve(&node, pass_fd);
	return 0;
}

/*
 * link_pull.c - PULL, the messages of all peers that push to us: see link.h.
 *
 * One thread per link reads the peers' sockets and calls on_message. The protocol is that of NNG's pipelines
 * (pipeline_in.h): a peer may be a PUSH socket of NNG's.
 *
 * Why not a PULL socket: in NNG 1.5 a message passes four threads from the kernel to its receiver, one for the length, one
 * for the body, one for the socket, one for us, and a commit waits for two messages. On loopback with two cores, 8 KiB
 * synced by three processes at a time and the first one's answer: 0.58 ms with NNG at both ends, 0.38 ms with plain
 * sockets (tests/bench/bare_commit.c is the former). Nor does a connection that ends between length and body leave an
 * operation behind that NNG waits for for ever, nor a hang-up in the hello a listener that accepts no more.
 *
 * The event's number is that of a seat, so that an event of a connection that has just been closed finds its seat free, or
 * a socket that has nothing to read.
 */
#include "common/wire/link.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/wake.h"
#include "common/wire/endpoint.h"
#include "common/wire/link_priv.h"
#include "common/wire/pipeline_in.h"

#define DOORS_MAX  2
#define DOOR_SEAT  LINK_PIPES_MAX          /* events of the doors have the numbers from here on */
#define WAKE_SEAT  (DOOR_SEAT + DOORS_MAX) /* link_pull_free() */
#define EVENTS_MAX 16
#define REST_MS    100 /* without descriptors or memory nobody is let in for so long */

struct pull_door {
	int fd;
	bool ipc;
	char url[LINK_URL_MAX];
};

struct pull_peer {
	int fd;            /* -1: the seat is free */
	bool spoke;        /* it has brought something of use */
	uint64_t since_ms; /* the last time it did; or when it came */
	struct pipeline_in in;
};

struct link_pull {
	link_message_fn on_message;
	void *arg;
	int epoll_fd, wake_fd;
	pthread_t thread;
	atomic_bool closing;
	uint64_t rest_ms;         /* the thread's: until then the doors are not looked at; 0: they are */
	bool logged;              /* the thread's: that nobody can be let in */
	atomic_size_t door_count; /* the thread looks after so many */
	struct pull_door doors[DOORS_MAX];
	struct pull_peer peers[LINK_PIPES_MAX]; /* the thread's */
};

static bool watch(struct link_pull *p, int op, int fd, uint32_t seat, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.u32 = seat};

	return epoll_ctl(p->epoll_fd, op, fd, &event) == 0;
}

/* ---- messages */

static void dismiss(struct pull_peer *peer)
{
	close(peer->fd); /* which ends its events, too */
	pipeline_in_fini(&peer->in);
	*peer = (struct pull_peer){.fd = -1};
}

/* Hands over the messages that are whole. False: the peer is none of ours. */
static bool take_messages(struct link_pull *p, struct pull_peer *peer)
{
	enum pipeline_next next = PIPELINE_MORE;
	const uint8_t *body;
	size_t len;

	while (!atomic_load(&p->closing) && (next = pipeline_in_next(&peer->in, &body, &len)) == PIPELINE_MESSAGE) {
		if (!p->on_message(p->arg, body, len))
			return false;
		peer->spoke = true;
		peer->since_ms = clock_mono_ms();
	}
	return next != PIPELINE_BROKEN;
}

/* Reads once, so that everybody gets a turn. */
static void hear(struct link_pull *p, struct pull_peer *peer)
{
	ssize_t got = -1;
	size_t size;
	uint8_t *to = pipeline_in_room(&peer->in, &size);

	if (to != NULL)
		got = recv(peer->fd, to, size, 0);
	else
		errno = ENOMEM;
	if (got > 0) {
		pipeline_in_came(&peer->in, (size_t)got);
		if (!take_messages(p, peer))
			dismiss(peer);
	} else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
		dismiss(peer);
	}
}

/* ---- who may come */

/* Who is to leave first: strangers, then those who never spoke, then the one who has been silent longest. */
static bool leaves_before(const struct pull_peer *a, const struct pull_peer *b)
{
	if (a->in.greeted != b->in.greeted)
		return b->in.greeted;
	return a->spoke != b->spoke ? b->spoke : a->since_ms < b->since_ms;
}

/* A free seat; when all are taken, one that its owner loses. Otherwise anybody who opens connections and says nothing could
 * keep a master from its replicas. */
static uint32_t find_seat(struct link_pull *p)
{
	uint32_t seat = 0, i;

	for (i = 0; i < LINK_PIPES_MAX; i++) {
		if (p->peers[i].fd < 0)
			return i;
		if (leaves_before(&p->peers[i], &p->peers[seat]))
			seat = i;
	}
	dismiss(&p->peers[seat]);
	return seat;
}

static void set_doors(struct link_pull *p, bool open)
{
	size_t i;

	for (i = 0; i < p->door_count; i++)
		if (!watch(p, EPOLL_CTL_MOD, p->doors[i].fd, DOOR_SEAT + (uint32_t)i, open ? EPOLLIN : 0))
			log_error("link: %s cannot be watched: errno %d", p->doors[i].url, errno);
	p->rest_ms = open ? 0 : clock_mono_ms() + REST_MS;
}

static void let_in(struct link_pull *p, const struct pull_door *door)
{
	const int on = 1;
	struct pull_peer *peer;
	uint32_t seat;
	int fd = accept4(door->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			if (!p->logged)
				log_warn("link: nobody can be let in at %s for now: errno %d", door->url, errno);
			p->logged = true;
			set_doors(p, false);
		}
		return; /* else: it has gone again */
	}
	p->logged = false;
	/* A peer whose host is gone without a word is not waited for for ever. */
	if ((!door->ipc && setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) != 0) ||
	    send(fd, pipeline_hello, PIPELINE_HELLO_LEN, MSG_NOSIGNAL) != PIPELINE_HELLO_LEN) {
		close(fd);
		return;
	}
	seat = find_seat(p);
	peer = &p->peers[seat];
	*peer = (struct pull_peer){.fd = fd, .since_ms = clock_mono_ms(), .in = {.on_file = door->ipc}};
	if (watch(p, EPOLL_CTL_ADD, fd, seat, EPOLLIN))
		hear(p, peer); /* its hello is there already, or it is a stranger for now */
	else
		dismiss(peer);
}

/* ---- the thread */

static void on_event(struct link_pull *p, uint32_t seat)
{
	if (seat < LINK_PIPES_MAX) {
		if (p->peers[seat].fd >= 0)
			hear(p, &p->peers[seat]);
	} else if (seat < WAKE_SEAT && p->rest_ms == 0) {
		let_in(p, &p->doors[seat - DOOR_SEAT]);
	}
}

static void *listen_to_all(void *arg)
{
	struct epoll_event events[EVENTS_MAX];
	struct link_pull *p = arg;
	int i, n;

	pthread_setname_np(pthread_self(), "link-pull");
	link_admit_faults();
	while (!atomic_load(&p->closing)) {
		n = epoll_wait(p->epoll_fd, events, EVENTS_MAX, p->rest_ms == 0 ? -1 : REST_MS);
		if (p->rest_ms != 0 && clock_mono_ms() >= p->rest_ms)
			set_doors(p, true);
		for (i = 0; i < n && !atomic_load(&p->closing); i++)
			on_event(p, events[i].data.u32);
	}
	return NULL;
}

/* ---- the link */

static enum db_err door_open(struct pull_door *door, const char *url, struct errmsg *em)
{
	struct endpoint e;
	enum db_err err;
	char *colon;

	if (strlen(url) + strlen("65535") >= LINK_URL_MAX) /* it may grow by its port */
		return errmsg_set(em, DB_INVALID, "\"%s\" is too long for an address", url);
	memcpy(door->url, url, strlen(url) + 1);
	door->ipc = link_url_is_ipc(url);
	if (door->ipc)
		err = endpoint_file(&e, url + strlen("ipc://"), em);
	else if (link_url_is_tcp(url))
		err = endpoint_resolve(&e, url + strlen("tcp://"), true, true, em);
	else
		err = errmsg_set(em, DB_INVALID, "cannot listen at %s: tcp:// or ipc:// expected", url);
	if (err == DB_OK)
		err = endpoint_listen(&door->fd, &e, door->url, em);
	if (err == DB_OK && !door->ipc) {
		colon = strrchr(door->url, ':');
		snprintf(colon + 1, LINK_URL_MAX - (size_t)(colon + 1 - door->url), "%u", endpoint_port(door->fd));
	}
	return err;
}

static void door_close(struct pull_door *door)
{
	if (door->ipc)
		unlink(door->url +
		       strlen("ipc://")); /* first, so that nobody finds a file that nobody listens behind */
	close(door->fd);
}

enum db_err link_pull_also(struct link_pull *p, const char *url, struct errmsg *em)
{
	struct pull_door *door = &p->doors[p->door_count];
	enum db_err err;

	if (p->door_count == DOORS_MAX)
		return errmsg_set(em, DB_INVALID, "cannot listen at %s: one address too many", url);
	err = door_open(door, url, em);
	if (err != DB_OK)
		return err;
	p->door_count++;
	if (watch(p, EPOLL_CTL_ADD, door->fd, DOOR_SEAT + (uint32_t)(p->door_count - 1), EPOLLIN))
		return DB_OK;
	err = errmsg_errno(em, errno, "cannot wait for connections at %s", url);
	p->door_count--;
	door_close(door);
	return err;
}

/* All but the thread and the doors. */
static enum db_err pull_open(struct link_pull *p, struct errmsg *em)
{
	size_t i;

	for (i = 0; i < LINK_PIPES_MAX; i++)
		p->peers[i].fd = -1;
	p->wake_fd = -1;
	p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (p->epoll_fd >= 0)
		p->wake_fd = wake_create();
	if (p->wake_fd < 0 || !watch(p, EPOLL_CTL_ADD, p->wake_fd, WAKE_SEAT, EPOLLIN))
		return errmsg_errno(em, errno, "cannot set up a link");
	return DB_OK;
}

/* Once the thread has ended, or never was. */
static void pull_close(struct link_pull *p)
{
	size_t i;

	for (i = 0; i < p->door_count; i++)
		door_close(&p->doors[i]);
	for (i = 0; i < LINK_PIPES_MAX; i++)
		if (p->peers[i].fd >= 0)
			dismiss(&p->peers[i]);
	if (p->wake_fd >= 0)
		close(p->wake_fd);
	if (p->epoll_fd >= 0)
		close(p->epoll_fd);
	free(p);
}

enum db_err link_pull_create(struct link_pull **out, const char *url, link_message_fn on_message, void *arg,
			     struct errmsg *em)
{
	struct link_pull *p = calloc(1, sizeof(*p));
	enum db_err err;
	int rc;

	*out = NULL;
	if (p == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	p->on_message = on_message;
	p->arg = arg;
	atomic_init(&p->closing, false);
	err = pull_open(p, em);
	if (err == DB_OK)
		err = link_pull_also(p, url, em);
	if (err != DB_OK)
		goto fail;
	*out = p;
	rc = pthread_create(&p->thread, NULL, listen_to_all, p);
	if (rc == 0)
		return DB_OK;
	*out = NULL;
	err = errmsg_errno(em, rc, "cannot start a thread for %s", url);
fail:
	pull_close(p);
	return err;
}

uint16_t link_pull_port(const struct link_pull *p)
{
	size_t i;

	for (i = 0; i < p->door_count; i++)
		if (!p->doors[i].ipc)
			return endpoint_port(p->doors[i].fd);
	return 0;
}

void link_pull_free(struct link_pull *p)
{
	if (p == NULL)
		return;
	atomic_store(&p->closing, true);
	wake_up(p->wake_fd);
	pthread_join(p->thread, NULL);
	pull_close(p);
}

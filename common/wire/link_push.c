/*
 * link_push.c - PUSH, one stream of messages to one peer: see link.h.
 *
 * A push link has a thread (tend()) that connects, says hello, and from then on waits for the end of the connection and,
 * when the kernel did not take all of a message, for room. link_push_send() writes on its caller's thread, which costs no
 * wake-up. The protocol is that of NNG's pipelines (pipeline_in.h): the peer may be a PULL socket of NNG's.
 *
 * Why not a PUSH socket of NNG 1.5: its completions wake a thread for each message, on two cores a sixth of the processor
 * time of a commit. One whose connection ends while a message is handed to the kernel uses freed memory (nanomsg/nng
 * issue 1653). And when a connection ends between two writes of one message, an operation is begun on it that is never
 * completed; then the next nng_close() of the process waits for ever, and with it a change of the node's role.
 *
 * Invariants: (1) the thread opens and closes fd; others use it under lock, and only while connected. (2) nothing is
 * queued but msg, the one under way, which ends with its connection. (3) on_connected is called by the thread only, and
 * false after every on_sent of the connection has returned.
 */
#include "common/wire/link.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/wake.h"
#include "common/wire/endpoint.h"
#include "common/wire/link_priv.h"
#include "common/wire/pipeline_in.h"

#define LINK_NEAR_MS    10   /* between two looks for a peer's file, and two attempts at it */
#define LINK_ATTEMPT_MS 5000 /* a peer that has not said hello by then is tried anew */

struct link_push {
	char url[LINK_URL_MAX];
	char near_url[LINK_URL_MAX]; /* "": there is none */
	link_connected_fn on_connected;
	link_sent_fn on_sent;
	void *arg;
	pthread_t thread;
	int wake_fd; /* an eventfd: the thread is to look at what is under lock */
	int fd;      /* -1: none; (1) */
	bool near;   /* fd goes to near_url; the thread's, as the next two are */
	bool soon;   /* the next attempt need not wait: the peer has not refused this one */
	bool logged; /* that there is no such address */
	pthread_mutex_t lock;
	pthread_cond_t told; /* telling has fallen to 0 */
	/* everything below: under lock */
	bool closing;
	bool resolving;   /* the thread may be with a resolver for long */
	bool orphaned;    /* link_push_free() has not waited for that: the thread frees the link */
	bool reset;       /* link_push_reconnect(): end this connection, or this attempt at one */
	bool connected;   /* link_push_send() may send */
	unsigned telling; /* callers of link_push_send() on their way into on_sent, or in it */
	nng_msg *msg;     /* NULL: none */
	uint8_t header[PIPELINE_HEADER_MAX];
	size_t header_len;
	size_t gone; /* bytes of header and msg that the kernel has */
};

/* ---- messages */

/* Hands the kernel what it takes. Its answer: DB_OK: all of msg is gone, DB_BUSY: not yet, DB_UNAVAILABLE: the connection
 * has ended. Lock held. */
static enum db_err push_on(struct link_push *p)
{
	uint8_t *body = nng_msg_body(p->msg);
	size_t len = nng_msg_len(p->msg), of_body;
	struct iovec iov[2];
	struct msghdr m = {.msg_iov = iov};
	ssize_t n;

	while (p->gone < p->header_len + len) {
		of_body = p->gone < p->header_len ? 0 : p->gone - p->header_len;
		m.msg_iovlen = 0;
		if (p->gone < p->header_len)
			iov[m.msg_iovlen++] = (struct iovec){p->header + p->gone, p->header_len - p->gone};
		iov[m.msg_iovlen++] = (struct iovec){body + of_body, len - of_body};
		n = sendmsg(p->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0)
			p->gone += (size_t)n;
		else if (errno == EAGAIN)
			return DB_BUSY;
		else if (errno != EINTR)
			return DB_UNAVAILABLE;
	}
	return DB_OK;
}

enum db_err link_push_send(struct link_push *p, nng_msg *msg)
{
	enum db_err err = DB_OK;

	pthread_mutex_lock(&p->lock);
	if (p->closing)
		err = DB_CLOSED;
	else if (!p->connected)
		err = DB_UNAVAILABLE;
	else if (p->msg != NULL)
		err = DB_BUSY;
	if (err != DB_OK) {
		pthread_mutex_unlock(&p->lock);
		return err;
	}
	p->msg = msg;
	p->gone = 0;
	p->header_len = pipeline_header(p->header, nng_msg_len(msg), link_url_is_ipc(p->near ? p->near_url : p->url));
	err = push_on(p);
	if (err != DB_BUSY)
		p->msg = NULL;
	p->telling += err == DB_OK;
	p->connected = err != DB_UNAVAILABLE;
	pthread_mutex_unlock(&p->lock);
	if (err != DB_OK) {
		wake_up(p->wake_fd); /* to wait for room, or to find the connection ended */
		return err == DB_BUSY ? DB_OK : err;
	}
	nng_msg_free(msg);
	p->on_sent(p->arg, DB_OK);
	pthread_mutex_lock(&p->lock);
	if (--p->telling == 0)
		pthread_cond_signal(&p->told);
	pthread_mutex_unlock(&p->lock);
	return DB_OK;
}

/* ---- connecting, on the thread */

/* Whether the peer, as far as its file tells, listens at near_url. */
static bool is_near(const struct link_push *p)
{
	return p->near_url[0] != '\0' && access(p->near_url + strlen("ipc://"), F_OK) == 0;
}

/* Whether this connection, or attempt at one, is to end. */
static bool has_to_stop(struct link_push *p)
{
	bool stop;

	pthread_mutex_lock(&p->lock);
	stop = p->closing || p->reset;
	p->soon |= p->reset;
	pthread_mutex_unlock(&p->lock);
	return stop;
}

/* Waits for events of fd, -1 for none, or a wake-up; ms: -1 for ever. True: fd has some. */
static bool await(struct link_push *p, short events, int ms)
{
	struct pollfd fds[2] = {{.fd = p->wake_fd, .events = POLLIN}, {.fd = p->fd, .events = events}};

	if (poll(fds, 2, ms) <= 0)
		return false;
	if (fds[0].revents != 0)
		wake_clear(p->wake_fd);
	return fds[1].revents != 0;
}

/* The same for an attempt, until deadline_ms: false when it has come, or is to be given up. A peer that is started again
 * is found by its file, not by the next attempt at the port. */
static bool await_attempt(struct link_push *p, short events, uint64_t deadline_ms)
{
	uint64_t now_ms;
	int slice_ms;

	while (!has_to_stop(p) && (now_ms = clock_mono_ms()) < deadline_ms) {
		if (is_near(p) != p->near) {
			p->soon = true;
			return false;
		}
		slice_ms = p->near_url[0] != '\0' ? LINK_NEAR_MS : (int)(deadline_ms - now_ms);
		if (await(p, events, slice_ms))
			return true;
	}
	return false;
}

/* False: link_push_free() was called meanwhile, and the link is the thread's to free if it has not waited. */
static bool resolve(struct link_push *p, struct endpoint *to, struct errmsg *em)
{
	const char *address = p->url + strlen("tcp://");
	bool go_on;

	if (endpoint_resolve(to, address, false, false, em) == DB_OK)
		return true;
	pthread_mutex_lock(&p->lock);
	go_on = p->resolving = !p->closing; /* who frees the link already waits for this thread */
	pthread_mutex_unlock(&p->lock);
	if (!go_on)
		return false;
	if (endpoint_resolve(to, address, true, false, em) != DB_OK)
		to->len = 0;
	pthread_mutex_lock(&p->lock);
	p->resolving = false;
	go_on = !p->closing;
	pthread_mutex_unlock(&p->lock);
	return go_on;
}

/* to->len 0: there is no such address now. False as above. */
static bool find_peer(struct link_push *p, struct endpoint *to)
{
	const char *url = p->near ? p->near_url : p->url;
	struct errmsg em = {0};

	to->len = 0;
	if (link_url_is_ipc(url)) {
		if (endpoint_file(to, url + strlen("ipc://"), &em) != DB_OK)
			to->len = 0;
	} else if (!resolve(p, to, &em)) {
		return false;
	}
	if (to->len == 0 && !p->logged)
		log_warn("link: %s; trying again", em.text);
	p->logged = to->len == 0;
	return true;
}

static bool open_socket(struct link_push *p, const struct endpoint *to)
{
	const int on = 1;

	p->fd = socket(to->at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (p->fd < 0 || to->at.ss_family == AF_UNIX)
		return p->fd >= 0;
	return setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0 &&
	       setsockopt(p->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) == 0;
}

static bool reach(struct link_push *p, const struct endpoint *to, uint64_t deadline_ms)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (connect(p->fd, (const struct sockaddr *)&to->at, to->len) == 0)
		return true;
	return errno == EINPROGRESS && await_attempt(p, POLLOUT, deadline_ms) &&
	       getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0;
}

static bool shake_hands(struct link_push *p, uint64_t deadline_ms)
{
	uint8_t answer[PIPELINE_HELLO_LEN];
	size_t have = 0;
	ssize_t got;

	if (send(p->fd, pipeline_sender_hello, PIPELINE_HELLO_LEN, MSG_NOSIGNAL) != PIPELINE_HELLO_LEN)
		return false;
	while (have < sizeof(answer)) {
		if (!await_attempt(p, POLLIN, deadline_ms))
			return false;
		got = recv(p->fd, answer + have, sizeof(answer) - have, 0);
		if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
			return false;
		have += got > 0 ? (size_t)got : 0;
	}
	return memcmp(answer, pipeline_hello, sizeof(answer)) == 0;
}

static bool attempt(struct link_push *p, const struct endpoint *to)
{
	uint64_t deadline_ms = clock_mono_ms() + LINK_ATTEMPT_MS;

	if (to->len == 0 || !open_socket(p, to) || !reach(p, to, deadline_ms) || !shake_hands(p, deadline_ms))
		return false;
	p->soon = true;
	return is_near(p) == p->near; /* else its file was not there when we began to connect */
}

/* ---- a connection's life, on the thread */

/* There may be room for the rest of a message. */
static void go_on(struct link_push *p)
{
	enum db_err err = DB_BUSY;
	nng_msg *msg = NULL;

	pthread_mutex_lock(&p->lock);
	if (p->msg != NULL) {
		err = push_on(p);
		if (err == DB_OK) {
			msg = p->msg;
			p->msg = NULL;
		}
		p->connected &= err != DB_UNAVAILABLE;
	}
	pthread_mutex_unlock(&p->lock);
	if (msg == NULL)
		return;
	nng_msg_free(msg);
	p->on_sent(p->arg, DB_OK);
}

/* Whether the peer is still there. It has nothing to say. */
static bool is_silent(const struct link_push *p)
{
	uint8_t byte;

	return recv(p->fd, &byte, 1, 0) < 0 && (errno == EAGAIN || errno == EINTR);
}

/* Until the connection ends, or is to end. */
static void serve(struct link_push *p)
{
	bool up = true, waits;

	pthread_mutex_lock(&p->lock);
	p->connected = true;
	pthread_mutex_unlock(&p->lock);
	p->on_connected(p->arg, true);
	while (up && !has_to_stop(p)) {
		pthread_mutex_lock(&p->lock);
		up = p->connected;
		waits = p->msg != NULL;
		pthread_mutex_unlock(&p->lock);
		if (!up || !await(p, (short)(POLLIN | (waits ? POLLOUT : 0)), -1))
			continue;
		up = is_silent(p);
		if (up)
			go_on(p);
	}
}

/* (2), (3) */
static void end_connection(struct link_push *p)
{
	nng_msg *msg;
	bool closing;

	pthread_mutex_lock(&p->lock);
	p->connected = false;
	msg = p->msg;
	p->msg = NULL;
	closing = p->closing;
	while (p->telling > 0)
		pthread_cond_wait(&p->told, &p->lock);
	pthread_mutex_unlock(&p->lock);
	close(p->fd);
	p->fd = -1;
	if (msg != NULL) {
		nng_msg_free(msg);
		p->on_sent(p->arg, closing ? DB_CLOSED : DB_UNAVAILABLE);
	}
	p->on_connected(p->arg, false);
}

/* One attempt, and what comes of it. False: link_push_free() was called, as in resolve(). */
static bool tend_once(struct link_push *p)
{
	struct endpoint to;

	pthread_mutex_lock(&p->lock);
	p->reset = false;
	pthread_mutex_unlock(&p->lock);
	p->soon = false;
	p->near = is_near(p);
	if (!find_peer(p, &to))
		return false;
	if (attempt(p, &to)) {
		serve(p);
		end_connection(p);
	} else if (p->fd >= 0) {
		close(p->fd);
		p->fd = -1;
	}
	return true;
}

/* Sleeps before the next attempt, or until the peer's file comes or goes. False: the link is being freed. */
static bool rest(struct link_push *p, unsigned ms)
{
	uint64_t now_ms, until_ms = clock_mono_ms() + ms;
	bool closing = false;

	while (!closing && (now_ms = clock_mono_ms()) < until_ms && is_near(p) == p->near) {
		await(p, 0,
		      p->near_url[0] != '\0' && until_ms - now_ms > LINK_NEAR_MS ? LINK_NEAR_MS
										 : (int)(until_ms - now_ms));
		pthread_mutex_lock(&p->lock);
		closing = p->closing;
		pthread_mutex_unlock(&p->lock);
	}
	return !closing;
}

static void destroy(struct link_push *p)
{
	close(p->wake_fd);
	pthread_cond_destroy(&p->told);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static void *tend(void *arg)
{
	unsigned pause_ms = LINK_RECONNECT_MIN_MS;
	struct link_push *p = arg;
	bool orphaned;

	pthread_setname_np(pthread_self(), "link-push");
	link_admit_faults();
	while (tend_once(p)) {
		if (p->soon)
			pause_ms = LINK_RECONNECT_MIN_MS;
		else if (p->near)
			pause_ms = LINK_NEAR_MS;
		if (!rest(p, pause_ms))
			break;
		pause_ms = pause_ms < LINK_RECONNECT_MAX_MS / 2 ? 2 * pause_ms : LINK_RECONNECT_MAX_MS;
	}
	pthread_mutex_lock(&p->lock);
	orphaned = p->orphaned;
	pthread_mutex_unlock(&p->lock);
	if (orphaned)
		destroy(p);
	return NULL;
}

/* ---- the link */

enum db_err link_push_create(struct link_push **out, const char *url, const char *near_url,
			     link_connected_fn on_connected, link_sent_fn on_sent, void *arg, struct errmsg *em)
{
	struct link_push *p;
	enum db_err err;
	int rc;

	*out = NULL;
	if (strlen(url) >= LINK_URL_MAX || (near_url != NULL && strlen(near_url) >= LINK_URL_MAX))
		return errmsg_set(em, DB_INVALID, "\"%s\" is too long for an address", url);
	if (!link_url_is_tcp(url) && !link_url_is_ipc(url))
		return errmsg_set(em, DB_INVALID, "cannot connect to %s: tcp:// or ipc:// expected", url);
	p = calloc(1, sizeof(*p));
	if (p == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	p->on_connected = on_connected;
	p->on_sent = on_sent;
	p->arg = arg;
	p->fd = -1;
	memcpy(p->url, url, strlen(url) + 1);
	if (near_url != NULL)
		memcpy(p->near_url, near_url, strlen(near_url) + 1);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->told, NULL);
	p->wake_fd = wake_create();
	if (p->wake_fd < 0) {
		err = errmsg_errno(em, errno, "cannot set up a link to %s", url);
		goto fail;
	}
	*out = p; /* callbacks come from the thread */
	rc = pthread_create(&p->thread, NULL, tend, p);
	if (rc == 0)
		return DB_OK;
	*out = NULL;
	err = errmsg_errno(em, rc, "cannot start a thread for %s", url);
fail:
	destroy(p);
	return err;
}

void link_push_reconnect(struct link_push *p)
{
	pthread_mutex_lock(&p->lock);
	p->reset = true;
	p->connected = false;
	pthread_mutex_unlock(&p->lock);
	wake_up(p->wake_fd);
}

void link_push_free(struct link_push *p)
{
	pthread_t thread;
	bool orphaned;

	if (p == NULL)
		return;
	thread = p->thread;
	pthread_mutex_lock(&p->lock);
	p->closing = true;
	p->connected = false;
	orphaned = p->orphaned = p->resolving;
	if (!orphaned)
		wake_up(p->wake_fd);
	pthread_mutex_unlock(&p->lock);
	if (orphaned) {
		pthread_detach(thread);
		return;
	}
	pthread_join(thread, NULL);
	destroy(p);
}

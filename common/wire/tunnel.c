/*
 * tunnel.c - the connections of tunnels: see tunnel.h; tunnel_hub.c runs them, tunnel_gate.c opens gates, tunnel_flow.c
 * moves bytes.
 *
 * On the tunnels' thread, under the hub's mutex. Invariants: (1) what died is freed by the thread alone, after the
 * events that it has taken before: one of them may name it. (2) a gate has at most TUNNEL_HANDSHAKES_MAX connections
 * whose peer has not proved who it is, each for at most HANDSHAKE_MS; those of members are bounded by the link behind
 * (LINK_PIPES_MAX).
 *
 * What goes wrong at a gate is logged once, then at most every LOG_EVERY_MS with a count: anybody may knock at a port.
 */
#include "common/wire/tunnel.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/wire/tunnel_priv.h"

#define HANDSHAKE_MS  5000u  /* connection and TLS */
#define HELLO_MS      10000u /* for a link's first bytes */
#define PART_MS       2000u  /* to deliver what is left */
#define KEEP_IDLE_S   30     /* a host that is gone without a word is noticed after this, and */
#define KEEP_PROBE_S  10
#define KEEP_PROBES   3
#define LOG_EVERY_MS  10000u
#define ACCEPTS_TURN  4 /* connections taken at a time: those that exist have their turn then */
#define FULL_PAUSE_MS 100

/* ---- the log */

/* em->text "": a peer that only hung up, or never said a word. */
static void note_failure(struct tunnel_gate *g, const struct tunnel *t, const struct errmsg *em)
{
	uint64_t now_ms = clock_mono_ms();
	const char *why = em->text[0] == '\0' ? "the connection ended" : em->text;

	g->failures++;
	if (g->logged_failures > 0 && now_ms - g->logged_ms < LOG_EVERY_MS)
		return;
	if (g->inward)
		log_warn("link: a TLS connection from %s to %s failed: %s (%" PRIu64 " since the last such line)",
			 t->peer, g->name, why, g->failures - g->logged_failures);
	else
		log_warn("link: TLS to %s failed: %s (%" PRIu64 " since the last such line)", g->name, why,
			 g->failures - g->logged_failures);
	g->logged_failures = g->failures;
	g->logged_ms = now_ms;
}

/* The peer has been heard through the tunnel. */
static void note_success(struct tunnel_gate *g, struct tunnel *t)
{
	t->born_ms = 0;
	log_debug("link: %s %s, %s", SSL_get_version(t->ssl), SSL_get_cipher_name(t->ssl), g->name);
	if (g->inward || g->failures == 0)
		return;
	log_info("link: TLS to %s works again", g->name);
	g->failures = g->logged_failures = 0;
}

/* ---- what the loop waits for */

bool tunnel_await(struct tunnels *hub, struct tunnel_end *end, uint32_t interest)
{
	struct epoll_event event = {.events = interest, .data.ptr = end};
	int op = end->interest == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

	if (end->interest == interest)
		return true;
	if (interest == 0)
		op = EPOLL_CTL_DEL; /* else an end that hangs up would be told again and again */
	if (epoll_ctl(hub->epoll_fd, op, end->fd, &event) != 0) {
		log_error("link: a tunnel cannot be waited for: errno %d", errno);
		return false;
	}
	end->interest = interest;
	return true;
}

void tunnel_close_end(struct tunnels *hub, struct tunnel_end *end)
{
	if (end->fd < 0)
		return;
	tunnel_await(hub, end, 0);
	close(end->fd);
	end->fd = -1;
}

/* ---- one connection's life */

static void set_state(struct tunnel *t, enum tunnel_state state, uint64_t within_ms)
{
	bool was_handshake = t->state == TUNNEL_HANDSHAKE || t->state == TUNNEL_CONNECTING;
	bool is_handshake = state == TUNNEL_HANDSHAKE || state == TUNNEL_CONNECTING;

	if (was_handshake && !is_handshake)
		t->gate->handshakes--;
	if (!was_handshake && is_handshake)
		t->gate->handshakes++;
	t->state = state;
	t->deadline_ms = within_ms == 0 ? 0 : clock_mono_ms() + within_ms;
}

void tunnel_bury(struct tunnel *t)
{
	struct tunnels *hub = t->gate->hub;

	set_state(t, TUNNEL_DEAD, 0);
	tunnel_close_end(hub, &t->net);
	tunnel_close_end(hub, &t->local);
	if (t->prev != NULL)
		t->prev->next = t->next;
	else
		hub->tunnels = t->next;
	if (t->next != NULL)
		t->next->prev = t->prev;
	t->gate = NULL;
	t->next = hub->dead;
	hub->dead = t;
}

/* Both ends go, the peer's with TLS's own last words. */
static void end_tunnel(struct tunnel *t)
{
	if (t->net.fd >= 0 && t->ssl != NULL && SSL_is_init_finished(t->ssl) && !t->net_ended) {
		SSL_shutdown(t->ssl); /* nobody waits for the peer's */
		ERR_clear_error();
	}
	tunnel_bury(t);
}

static void fail_tunnel(struct tunnel *t, const struct errmsg *em)
{
	note_failure(t->gate, t, em);
	end_tunnel(t);
}

void tunnel_free(struct tunnel *t)
{
	SSL_free(t->ssl);
	free(t->out.bytes);
	free(t->in.bytes);
	free(t);
}

/* In the hub's list. NULL: out of memory. */
static struct tunnel *new_tunnel(struct tunnel_gate *g, enum tunnel_state state, uint64_t within_ms)
{
	struct tunnels *hub = g->hub;
	struct tunnel *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return NULL;
	t->gate = g;
	t->state = TUNNEL_WAITING;
	t->net = (struct tunnel_end){TUNNEL_END_NET, -1, 0, t};
	t->local = (struct tunnel_end){TUNNEL_END_LOCAL, -1, 0, t};
	t->born_ms = clock_mono_ms();
	t->next = hub->tunnels;
	if (t->next != NULL)
		t->next->prev = t;
	hub->tunnels = t;
	set_state(t, state, within_ms);
	return t;
}

/* ---- getting on */

static void run_open(struct tunnel *t)
{
	struct tunnels *hub = t->gate->hub;
	struct errmsg em = {0};

	tunnel_flow_run(t);
	if (t->heard && t->born_ms != 0)
		note_success(t->gate, t);
	if (t->alert[0] != '\0') {
		errmsg_set(&em, DB_UNAVAILABLE, "%s", t->alert);
		fail_tunnel(t, &em);
		return;
	}
	if (tunnel_flow_is_over(t)) {
		end_tunnel(t);
		return;
	}
	if (t->state == TUNNEL_OPEN && (t->net_ended || t->local_ended || t->local_hung))
		set_state(t, TUNNEL_PARTING, PART_MS);
	if (!tunnel_await(hub, &t->net, tunnel_flow_net_interest(t)) ||
	    !tunnel_await(hub, &t->local, tunnel_flow_local_interest(t)))
		end_tunnel(t); /* the states before this one have a deadline */
}

/* The member that came in is passed on. */
static enum db_err connect_local(struct tunnel *t, struct errmsg *em)
{
	const struct tunnel_gate *g = t->gate;

	t->local.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (t->local.fd < 0 || connect(t->local.fd, (const struct sockaddr *)&g->peer.at, g->peer.len) != 0)
		return errmsg_errno(em, errno, "\"%s\" does not answer", g->path);
	return DB_OK;
}

static void open_tunnel(struct tunnel *t)
{
	struct errmsg em = {0};
	enum db_err err = DB_OK;

	t->out.bytes = malloc(TUNNEL_FLOW_BYTES);
	t->in.bytes = malloc(TUNNEL_FLOW_BYTES);
	if (t->out.bytes == NULL || t->in.bytes == NULL)
		err = errmsg_set(&em, DB_NOMEM, "out of memory");
	if (err == DB_OK && t->gate->inward)
		err = connect_local(t, &em);
	if (err != DB_OK) {
		fail_tunnel(t, &em);
		return;
	}
	set_state(t, TUNNEL_OPEN, 0);
	run_open(t);
}

static void run_handshake(struct tunnel *t)
{
	struct errmsg em = {0};
	enum db_err err = tunnel_flow_handshake(t, &em);

	if (err == DB_OK)
		open_tunnel(t);
	else if (err == DB_BUSY)
		tunnel_await(t->gate->hub, &t->net, t->read_wants_write ? EPOLLOUT : EPOLLIN);
	else
		fail_tunnel(t, &em);
}

static void begin_handshake(struct tunnel *t)
{
	struct tunnels *hub = t->gate->hub;
	const int one = 1, idle_s = KEEP_IDLE_S, probe_s = KEEP_PROBE_S, probes = KEEP_PROBES;
	struct errmsg em = {0};

	setsockopt(t->net.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(t->net.fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(t->net.fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(t->net.fd, IPPROTO_TCP, TCP_KEEPINTVL, &probe_s, sizeof(probe_s));
	setsockopt(t->net.fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	t->ssl = t->gate->inward ? tls_members_accept(hub->tls) : tls_members_connect(hub->tls);
	if (t->ssl == NULL || SSL_set_fd(t->ssl, t->net.fd) != 1) {
		errmsg_set(&em, DB_NOMEM, "out of memory");
		fail_tunnel(t, &em);
		return;
	}
	if (t->gate->inward)
		tunnel_await(hub, &t->net, EPOLLIN); /* no more now: a turn has room for few handshakes */
	else
		run_handshake(t);
}

/* The link has said hello: its peer is sought. A peer that is not there is nothing to speak of. */
static void connect_net(struct tunnel *t)
{
	struct tunnel_gate *g = t->gate;
	struct errmsg em = {0};

	t->net.fd = socket(g->peer.at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (t->net.fd < 0) {
		errmsg_errno(&em, errno, "no socket");
		fail_tunnel(t, &em);
		return;
	}
	set_state(t, TUNNEL_CONNECTING, HANDSHAKE_MS);
	if (connect(t->net.fd, (const struct sockaddr *)&g->peer.at, g->peer.len) == 0 || errno == EINPROGRESS)
		tunnel_await(g->hub, &t->net, EPOLLOUT);
	else
		end_tunnel(t);
}

static void net_connected(struct tunnel *t)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(t->net.fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0) {
		log_debug("link: connecting to %s: errno %d", t->gate->name, error);
		end_tunnel(t);
		return;
	}
	set_state(t, TUNNEL_HANDSHAKE, HANDSHAKE_MS);
	begin_handshake(t);
}

/* The link has something to say, or has gone. */
static void local_spoke(struct tunnel *t)
{
	char byte;

	if (recv(t->local.fd, &byte, 1, MSG_PEEK) != 1) {
		end_tunnel(t);
		return;
	}
	tunnel_await(t->gate->hub, &t->local, 0);
	connect_net(t);
}

void tunnel_on_event(struct tunnel *t, const struct tunnel_end *end, uint32_t events)
{
	switch (t->state) {
	case TUNNEL_WAITING:
		/* Not for what was told before this state: of the end that is closed, or that bytes fit in. */
		if (end->kind == TUNNEL_END_LOCAL && (events & ~(uint32_t)EPOLLOUT) != 0)
			local_spoke(t);
		break;
	case TUNNEL_CONNECTING:
		net_connected(t);
		break;
	case TUNNEL_HANDSHAKE:
		if (end->kind == TUNNEL_END_NET)
			run_handshake(t);
		break;
	case TUNNEL_OPEN:
	case TUNNEL_PARTING:
		if (end->kind == TUNNEL_END_LOCAL && (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)
			t->local_hung = true;
		run_open(t);
		break;
	case TUNNEL_DEAD:
		break; /* (1) */
	}
}

void tunnel_on_deadline(struct tunnel *t)
{
	struct errmsg em = {0};

	if (t->state == TUNNEL_CONNECTING || t->state == TUNNEL_HANDSHAKE) {
		errmsg_set(&em, DB_TIMEOUT, "no handshake within %u ms", HANDSHAKE_MS);
		fail_tunnel(t, &em);
	} else if (t->state == TUNNEL_PARTING) {
		t->net_ended = true;
		end_tunnel(t);
	} else {
		t->local_ended = true;
		end_tunnel(t);
	}
}

/* ---- taking connections */

/* Who is to make room: one who never spoke, and of those the oldest. */
static bool goes_before(const struct tunnel *a, const struct tunnel *b)
{
	return a->net_spoke != b->net_spoke ? b->net_spoke : a->born_ms < b->born_ms;
}

/* (2) */
static void make_room(struct tunnel_gate *g)
{
	struct errmsg em = {0};
	struct tunnel *t, *first = NULL;

	if (g->handshakes < TUNNEL_HANDSHAKES_MAX)
		return;
	for (t = g->hub->tunnels; t != NULL; t = t->next)
		if (t->gate == g && t->state == TUNNEL_HANDSHAKE && (first == NULL || goes_before(t, first)))
			first = t;
	assert(first != NULL);
	errmsg_set(&em, DB_BUSY, "it said nothing, and others wait");
	fail_tunnel(first, &em);
}

static void name_peer(struct tunnel *t, const struct sockaddr_storage *from, socklen_t len)
{
	if (getnameinfo((const struct sockaddr *)from, len, t->peer, sizeof(t->peer), NULL, 0, NI_NUMERICHOST) != 0)
		t->peer[0] = '\0';
}

static void take(struct tunnel_gate *g, int fd, const struct sockaddr_storage *from, socklen_t from_len)
{
	struct tunnel *t;

	if (g->inward)
		make_room(g);
	t = new_tunnel(g, g->inward ? TUNNEL_HANDSHAKE : TUNNEL_WAITING, g->inward ? HANDSHAKE_MS : HELLO_MS);
	if (t == NULL) {
		close(fd);
		return;
	}
	if (g->inward) {
		t->net.fd = fd;
		name_peer(t, from, from_len);
		begin_handshake(t);
	} else {
		t->local.fd = fd;
		tunnel_await(g->hub, &t->local, EPOLLIN);
	}
}

/* No descriptor, or no memory. The peers wait in the queue. */
static void pause_gate(struct tunnel_gate *g, int error)
{
	uint64_t now_ms = clock_mono_ms();

	if (g->logged_pause_ms == 0 || now_ms - g->logged_pause_ms >= LOG_EVERY_MS) {
		g->logged_pause_ms = now_ms;
		log_warn("link: no connection can be taken at %s: errno %d", g->name, error);
	}
	g->paused_ms = now_ms + FULL_PAUSE_MS;
	tunnel_await(g->hub, &g->end, 0);
}

void tunnel_gate_on_event(struct tunnel_gate *g)
{
	struct sockaddr_storage from;
	socklen_t from_len;
	unsigned i;
	int fd;

	for (i = 0; i < ACCEPTS_TURN && !g->dead; i++) {
		from_len = sizeof(from);
		fd = accept4(g->end.fd, (struct sockaddr *)&from, &from_len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			take(g, fd, &from, from_len);
			continue;
		}
		if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
			return;
		pause_gate(g, errno);
		return;
	}
}

/*
 * tunnel_priv.h - what tunnel_hub.c (the thread), tunnel.c (connections), tunnel_gate.c (gates) and tunnel_flow.c
 * (bytes) share; nobody else includes it.
 */
#ifndef GRIZZLY_COMMON_WIRE_TUNNEL_PRIV_H
#define GRIZZLY_COMMON_WIRE_TUNNEL_PRIV_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/wire/endpoint.h"
#include "common/wire/tunnel.h"

#define TUNNEL_FLOW_BYTES ((size_t)64 << 10)

/* Whom an event of the loop concerns. */
struct tunnel_end {
	enum { TUNNEL_END_GATE, TUNNEL_END_NET, TUNNEL_END_LOCAL, TUNNEL_END_WAKE } kind;
	int fd;            /* -1: none */
	uint32_t interest; /* as the loop knows it; 0: it does not know fd */
	void *owner;       /* struct tunnel_gate, struct tunnel */
};

/* What was read at one end and is not written at the other yet. */
struct tunnel_flow {
	uint8_t *bytes; /* TUNNEL_FLOW_BYTES, once the tunnel is open */
	size_t start, len;
};

enum tunnel_state {
	TUNNEL_WAITING,    /* dialing: for the link's first bytes */
	TUNNEL_CONNECTING, /* dialing: TCP */
	TUNNEL_HANDSHAKE,  /* TLS */
	TUNNEL_OPEN,
	TUNNEL_PARTING, /* one end is gone, the other gets what is left */
	TUNNEL_DEAD,
};

struct tunnel {
	struct tunnel *next, *prev; /* in its hub's list, or next in that of the dead */
	struct tunnel_gate *gate;   /* NULL once the gate is closed, and dead then */
	enum tunnel_state state;
	struct tunnel_end net, local;
	SSL *ssl;
	struct tunnel_flow out, in; /* local to net, and back */
	bool local_ended, net_ended;
	bool local_hung; /* the link has hung up; what it had said may not be read yet */
	bool net_spoke;
	bool read_wants_write,
	    write_wants_read; /* what SSL_read() and SSL_write() wait for, when not for the obvious */
	uint64_t deadline_ms; /* of the state; 0: none */
	uint64_t born_ms;     /* 0: it works, and the log knows */
	char peer[64];        /* the other host, for the log */
	bool heard;           /* the peer has sent something through the tunnel: it takes us for a member, too */
	char alert[96];       /* what TLS said when it ended an open tunnel; "": nothing */
};

struct tunnel_gate {
	struct tunnel_gate *next, *prev;
	struct tunnels *hub;
	bool inward; /* a TCP port; else a socket file */
	bool dead;
	struct tunnel_end end;
	char name[128];             /* of the TCP side, for the log */
	char path[TUNNEL_PATH_MAX]; /* the socket file: ours to remove, unless inward */
	struct endpoint peer;       /* whom to connect to */
	uint16_t port;
	unsigned handshakes;
	uint64_t paused_ms; /* accepting goes on then; 0: it does */
	uint64_t logged_pause_ms;
	uint64_t failures, logged_failures, logged_ms;
};

struct tunnels {
	struct tls_members *tls;
	int epoll_fd;
	struct tunnel_end wake;
	pthread_t thread;
	pthread_mutex_t turn; /* before the mutex, see tunnels_enter() */
	pthread_mutex_t mutex;
	bool stopping;
	int first_stranger; /* of a turn's events, where those of strangers begin */
	struct tunnel_gate *gates, *dead_gates;
	struct tunnel *tunnels, *dead;
};

/* ---- tunnel_hub.c */

/* Takes the hub, waiting for one turn of its thread at the most, and gives it back. What follows is under it. */
void tunnels_enter(struct tunnels *hub);
void tunnels_leave(struct tunnels *hub);
/* Within or not. */
void tunnel_wake(struct tunnels *hub);

/* ---- tunnel.c */

/* What the loop waits for at an end; 0: nothing. False: the kernel has no memory for it; the log says so. */
bool tunnel_await(struct tunnels *hub, struct tunnel_end *end, uint32_t interest);
void tunnel_close_end(struct tunnels *hub, struct tunnel_end *end);
void tunnel_bury(struct tunnel *t); /* ends it at once */
void tunnel_free(struct tunnel *t); /* a buried one */
/* events: epoll's, of one of its two ends; it may have died since. */
void tunnel_on_event(struct tunnel *t, const struct tunnel_end *end, uint32_t events);
void tunnel_on_deadline(struct tunnel *t);
/* Takes connections, few at a time. */
void tunnel_gate_on_event(struct tunnel_gate *g);

/* ---- tunnel_gate.c */

/* Ends a gate and its connections; the thread frees it, or who has ended that. Under the hub's mutex. */
void tunnel_gate_retire(struct tunnel_gate *g);

/* ---- tunnel_flow.c */

/* Gets on with the handshake. DB_OK: over. DB_BUSY: it goes on. DB_UNAVAILABLE: failed, em says why; "" when the peer
 * just hung up. */
enum db_err tunnel_flow_handshake(struct tunnel *t, struct errmsg *em);
/* Moves what can be moved now; notes ends in local_ended and net_ended. */
void tunnel_flow_run(struct tunnel *t);
/* Nothing more can be delivered: one end is gone, and the other has what there was for it. */
bool tunnel_flow_is_over(const struct tunnel *t);
/* What to wait for at each end, in epoll's words. */
uint32_t tunnel_flow_net_interest(const struct tunnel *t);
uint32_t tunnel_flow_local_interest(const struct tunnel *t);

#endif

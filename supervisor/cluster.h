/*
 * cluster.h - what the supervisor decides: who lives, who is master, when a successor is chosen, how a planned
 * handover goes.
 *
 * A pure core: no I/O, no clock, no thread, no global, no allocation after cluster_create(). cluster_step() is handed
 * one event and the monotonic time and yields the actions that follow from them; the caller (supervisor/supervisor.c,
 * or a simulator) carries those out in order. Nodes are counted from 0 here; node n is called "node<n+1>" outside.
 *
 * What the caller owes: (a) PERSIST is durable before any later action of the same list is begun; when it fails, the
 * SENDs after it are dropped and CLUSTER_PERSIST_FAILED is told. (b) A SEND supersedes the node's earlier request; each
 * is answered by at most one REPLY or NO_REPLY with its seq, late ones may be told and are ignored. (c) NODE_EXITED is
 * told once for every process, and only when it is certainly gone; its requests are given up before the next SPAWN, so
 * that none reaches another process. (d) A tick comes at cluster_wake_ms() or soon after.
 *
 * Invariants: (1) A term has at most one PROMOTE ever, the terms of earlier supervisors included: each election takes a
 * new term, durable before it is announced. (2) PROMOTE goes to a node whose position is the highest among at least
 * `need` promises of this term; promises of nodes that are ahead of it do not count. `need` makes them meet every
 * quorum that may have acknowledged a record. (3) Before PROMOTE, every other node that may still serve as a master is
 * either gone or has promised the new term and stepped down. (4) Whatever members the master counts by, an election
 * needs the promises that meet its quorums: a version of the members is durable here before the master is told, and
 * between two sets of voters lies one that asks for both; it is left only when the master's log has it committed.
 */
#ifndef GRIZZLY_SUPERVISOR_CLUSTER_H
#define GRIZZLY_SUPERVISOR_CLUSTER_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/config.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/members.h"
#include "common/wire/wire.h"
#include "supervisor/timeline.h"

#define CLUSTER_NODES_MAX   CONFIG_NODES_MAX
#define CLUSTER_NOBODY      UINT_MAX
#define CLUSTER_TEXT_MAX    256
#define CLUSTER_REASON_MAX  1024
#define CLUSTER_ACTIONS_MAX 512
/* A node that names a higher one is not believed, unless it is one that we gave out: nodes promise terms up to
 * WIRE_TERM_MAX, so that even after one that named the highest there are enough for all elections to come. */
#define CLUSTER_TERM_MAX (WIRE_TERM_MAX / 2)

/* Budgets that are not configuration; the shell's tests and the simulator want to know them. */
#define CLUSTER_POLL_MS            5u     /* heartbeats while somebody waits for a result */
#define CLUSTER_ELECTION_WINDOW_MS 50u    /* how long an election that could decide waits for the healthy rest */
#define CLUSTER_COLD_WINDOW_MS     300u   /* the same when everything has just been started */
#define CLUSTER_STARTING_GRACE_MS  30000u /* to the first answer of a new process: recovery may take a while */
#define CLUSTER_REPLICA_HUNG_MS    3000u  /* a silent replica is killed after this */
#define CLUSTER_PATIENCE           10u    /* times interval * misses: the longest silence of a process that works */
#define CLUSTER_COMMAND_GRACE_MS   1000u  /* silence allowed while a command with an fsync in it is carried out */
#define CLUSTER_SWITCHOVER_MS      5000u  /* for drain and catching up */
#define CLUSTER_CHANGE_MS                                                                                              \
	10000u                          /* a version with old and new voters that is not committed, or keeps an
					  * election from deciding, is undone then */
#define CLUSTER_STOP_MS          10000u /* SIGTERM to SIGKILL */
#define CLUSTER_BACKOFF_MIN_MS   100u
#define CLUSTER_BACKOFF_MAX_MS   5000u
#define CLUSTER_BACKOFF_RESET_MS 10000u /* a process that lived this long starts over with no backoff */

struct cluster; /* body in cluster_internal.h */

struct cluster_options {
	unsigned node_count;  /* 1..CLUSTER_NODES_MAX */
	unsigned ack_nodes;   /* config_ack_nodes() */
	bool async;           /* acknowledged records may be on one node only */
	uint64_t interval_ms; /* between heartbeats, > 0 */
	unsigned misses;      /* intervals without an answer until a node counts as hung, > 0; 1 counts as 2 */
	uint64_t stall_ms;    /* a disk or a writer that has stood still for so long: hung; 0: never */
	uint64_t term;        /* as last persisted; 0: never */
	uint64_t failovers;   /* as last persisted */
	bool all;             /* every voter must acknowledge: what ack_nodes follows when their number changes */
	const struct members *members; /* as last persisted, copied; NULL: node_count voters, never changed */
};

enum cluster_event_type {
	CLUSTER_BEGIN,          /* first and once */
	CLUSTER_NODE_EXITED,    /* the node's process is gone, or could not be started */
	CLUSTER_REPLY,          /* a node's answer */
	CLUSTER_NO_REPLY,       /* the deadline of a request passed, or the connection broke */
	CLUSTER_PROGRESS,       /* whether a silent node's process worked since the PROBE before */
	CLUSTER_PERSIST_FAILED, /* see (a) */
	CLUSTER_TICK,
	CLUSTER_SWITCHOVER,
	CLUSTER_ADD,    /* node becomes a member; or its removal, which is under way, is undone */
	CLUSTER_REMOVE, /* node ceases to be one; or its addition, which is under way, is undone */
	CLUSTER_STOP,
};

struct cluster_event {
	enum cluster_event_type type;
	unsigned
	    node; /* NODE_EXITED, REPLY, NO_REPLY, PROGRESS, ADD, REMOVE; SWITCHOVER: the target, or CLUSTER_NOBODY: the best */
	union {
		struct {
			bool first_start; /* nothing was ever started here: node 0 begins as the master of term 1 */
			bool recover;     /* an operator accepted a loss: node `heir` begins as the master of a new
			                      term without an election. Not with first_start or adopted */
			unsigned heir;
			uint32_t adopted;  /* bit n: node n runs already, started by an earlier supervisor */
			uint32_t answered; /* bit n: that process is known to have answered before */
			uint64_t restarts[CLUSTER_NODES_MAX]; /* so far; looked at when any was adopted */
		} begin;
		struct {
			int code;         /* exit code; -1: unknown, or ended by a signal */
			int signal;       /* 0: none */
			const char *why;  /* NULL, or why it could not be started; borrowed during the call */
			const char *said; /* NULL, or its own last words; borrowed during the call */
		} exited;
		struct {
			uint32_t seq;
			const struct wire_node_status *status; /* of a REPLY; borrowed during the call */
		} reply;
		bool advancing;           /* PROGRESS */
		struct members_entry add; /* ADD: its ports; state MEMBERS_VOTER or MEMBERS_READONLY */
	} u;
};

enum cluster_action_type {
	CLUSTER_SPAWN,
	CLUSTER_KILL,
	CLUSTER_SEND,
	CLUSTER_PROBE, /* take a sample of the process; compare: tell by PROGRESS what it did since the one before */
	CLUSTER_PERSIST,
	CLUSTER_LOG,
	CLUSTER_NOTE,            /* for the timeline */
	CLUSTER_SWITCHOVER_DONE, /* ok and text: the result of the last CLUSTER_SWITCHOVER event */
	CLUSTER_CHANGE_DONE,     /* ok and text: the result of a CLUSTER_ADD or CLUSTER_REMOVE event; each has one */
	CLUSTER_RETIRE,          /* no process of node runs: what lies in its directory makes way, and is kept */
	CLUSTER_STOPPED,         /* every process is gone; nothing follows */
};

struct cluster_action {
	enum cluster_action_type type;
	unsigned node; /* SPAWN, KILL, SEND, PROBE, RETIRE; NOTE: whom it is about, or CLUSTER_NOBODY */
	union {
		bool as_master; /* SPAWN: as the master of the term that was persisted just before */
		int signal;     /* KILL */
		bool compare;   /* PROBE */
		struct {
			enum wire_type type;
			uint64_t term;
			uint32_t seq;
			uint64_t timeout_ms;
			const struct members *members; /* of PROMOTE and MEMBERS; the core's, until the next step */
		} send;
		struct {
			uint64_t term;
			uint64_t failovers;
			const struct members *members; /* the core's, until the next step */
		} persist;
		enum log_level level; /* LOG */
		struct timeline_note note;
		bool ok; /* SWITCHOVER_DONE, CHANGE_DONE */
	} u;
	char text[CLUSTER_TEXT_MAX]; /* LOG, NOTE, SWITCHOVER_DONE, CHANGE_DONE; else empty */
};

struct cluster_actions {
	size_t count;
	struct cluster_action items[CLUSTER_ACTIONS_MAX];
};

/* DB_INVALID: numbers out of range. DB_NOMEM. */
enum db_err cluster_create(struct cluster **out, const struct cluster_options *options, struct errmsg *em);
void cluster_free(struct cluster *c); /* NULL is fine */

/* Replaces *out. now_ms never goes back. */
void cluster_step(struct cluster *c, const struct cluster_event *event, uint64_t now_ms, struct cluster_actions *out);

/* When the next tick is due if nothing happens before; UINT64_MAX: never. */
uint64_t cluster_wake_ms(const struct cluster *c);

/* How many promises an election of such a cluster needs, as long as its members are those of the options. */
unsigned cluster_promises_needed(const struct cluster_options *options);

/* Who belongs to it now; the core's, until the next step. */
const struct members *cluster_members(const struct cluster *c);

struct cluster_node_view {
	bool present; /* a member, or one that is being removed; else nothing below means anything */
	bool voting;
	enum members_state membership;
	struct members_entry entry;
	bool running;      /* there is a process, or one that was killed and is not gone yet */
	bool answered;     /* this process has answered; else status is all zero */
	bool keeps_up;     /* it is up, or catching up and no more than a moment behind */
	const char *state; /* "starting", "up", "catching-up", "hung", "down", "diverged"; static */
	const char *role;  /* "master", "replica"; static */
	uint64_t heard_ms; /* time of the last answer, when answered */
	uint64_t restarts;
	struct wire_node_status status; /* its last answer */
	char reason[CLUSTER_TEXT_MAX];  /* why state is what it is; may be empty */
	char ended[CLUSTER_TEXT_MAX];   /* how its last process ended; empty: none did */
};

struct cluster_view {
	uint64_t term;
	uint64_t failovers;
	unsigned node_count; /* numbers to look at; not each is present */
	unsigned master;     /* the one that serves, or CLUSTER_NOBODY */
	bool switching;      /* a switchover is under way */
	bool changing;       /* a change of the members is */
	bool ending;         /* all of it is decided and committed, a process that is no member any more still ends */
	char change[CLUSTER_TEXT_MAX]; /* which, and what it waits for; empty when there is none */
	bool stopping;
	char reason[CLUSTER_TEXT_MAX];  /* why there is no master; empty when there is one */
	char outcome[CLUSTER_TEXT_MAX]; /* when ending, and all went well: what will be told; else empty */
	unsigned ending_node;           /* when ending: whose process */
};

void cluster_view(const struct cluster *c, struct cluster_view *out);
/* Why there is no master, with what each node lacks for it as of now_ms; empty when there is one. At most size - 1 bytes. */
void cluster_reason(const struct cluster *c, uint64_t now_ms, char *out, size_t size);
void cluster_node_view(const struct cluster *c, unsigned node, uint64_t now_ms, struct cluster_node_view *out);

#endif

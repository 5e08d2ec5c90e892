/*
 * world.h - everything that a schedule consists of: simulated time, the events to come, nodes, network, supervisor,
 * clients, and the chance that drives them.
 *
 * One thread, no clock, no I/O: sim_run() takes the next event, carries it out, and has the invariants checked (check.c),
 * until the schedule is over. Equal seeds are equal schedules, whatever the machine.
 *
 * The deciding code is the product's own, linked: supervisor/cluster (with election, health, switchover, stop), master/commit,
 * walsender and join, replica/walreceiver, the record and message codecs. The shells around it are re-created here as
 * thinly as they can be: a change of decision in master/replication.c, master/master.c, master/writer.c, replica/replica.c,
 * node/roles.c, node/node.c or supervisor/supervisor.c belongs here too, or better, into a core.
 */
#ifndef GRIZZLY_TESTS_SIM_WORLD_H
#define GRIZZLY_TESTS_SIM_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/config.h"
#include "common/base/err.h"
#include "common/base/members.h"
#include "common/wire/wire.h"
#include "master/commit.h"
#include "master/member_versions.h"
#include "master/walsender.h"
#include "replica/walreceiver.h"
#include "supervisor/cluster.h"
#include "tests/sim/disk.h"
#include "tests/sim/rng.h"

#define SIM_NODES_MAX    7
#define SIM_CLIENTS_MAX  4
#define SIM_EVENTS_MAX   8192
#define SIM_QUEUE_MAX    16 /* write requests that wait for a master's writer */
#define SIM_BATCHES_MAX  4
#define SIM_VERSIONS_MAX 512           /* of the members, in one schedule */
#define SIM_SUPERVISOR   SIM_NODES_MAX /* its place in the tables of the network */
#define NOBODY           UINT32_MAX

#define MS(n) ((uint64_t)(n)*1000u) /* simulated time is counted in microseconds */

enum event_kind {
	/* of a node's process: dropped when it is gone, late when it is paused or at work */
	EV_PACKET,     /* bytes: a message from another node; a: pipe, b: its connection */
	EV_LINK_LOST,  /* a: pipe */
	EV_CONTROL,    /* bytes: the supervisor's request; a: seq */
	EV_REQUEST,    /* a client's request; a: client, b: operation */
	EV_SYNCED,     /* the master's fdatasync has returned; a: how far, b: its term */
	EV_TICK,       /* the master's ticker; b: its term */
	EV_SWEEP,      /* the master's writer looks at deadlines; b: its term */
	EV_MAIN,       /* the main thread was woken */
	EV_CHECKPOINT, /* the checkpointer */
	EV_NODE_UP,    /* the process has opened its files and begins */
	/* of the kernel, about a node */
	EV_DIAL, /* a: pipe, b: its connection */
	EV_DIES, /* the process is killed; a: how (enum death) */
	/* of the supervisor's process */
	EV_SUPERVISOR_TICK,
	EV_EXIT,      /* a node's process is gone; a: code, b: signal */
	EV_ANSWER,    /* bytes: a node's answer; a: seq */
	EV_NO_ANSWER, /* a: seq */
	EV_PROGRESS,  /* a: advancing */
	EV_ROSTER,
	EV_SWITCHOVER,
	EV_CHANGE,        /* of the members: node; a: enum change */
	EV_SUPERVISOR_UP, /* it is started again */
	/* of the world */
	EV_CLIENT,         /* a: client begins its next operation */
	EV_CLIENT_REPLY,   /* a: client, b: operation; node holds the outcome */
	EV_CLIENT_TIMEOUT, /* a: client, b: operation */
	EV_FAULT,
	EV_HEAL, /* the faults end */
	EV_LOOK, /* is everything well again? */
};

struct event {
	uint64_t at_us;
	uint64_t order; /* among those of one time */
	enum event_kind kind;
	uint32_t node;
	uint32_t process; /* the node's or supervisor's process that it is for */
	uint64_t a, b;
	uint8_t *bytes; /* owned */
	size_t len;
};

struct event_queue {
	struct event *heap; /* SIM_EVENTS_MAX */
	size_t count;
	uint64_t order;
};

/* ---- network */

enum pipe_use { PIPE_RECORDS, PIPE_ACKS };

/* One PUSH socket and the PULL socket it dials. */
struct pipe {
	bool open;
	bool connected;
	uint32_t connection; /* counts them */
	uint32_t peer;       /* the process at the other end */
	uint64_t last_us;    /* when the last message sent arrives */
	unsigned under_way;
	uint32_t sent, arrived; /* messages of this connection: they arrive in order */
	uint64_t held_us;       /* one of its messages was kept back until then */
	uint32_t lingering;     /* a connection that was lost; its messages still arrive until linger_us */
	uint32_t lingering_arrived;
	uint64_t linger_us;
};

struct network {
	struct pipe pipes[2][SIM_NODES_MAX][SIM_NODES_MAX];        /* use, from, to */
	uint64_t blocked_us[SIM_NODES_MAX + 1][SIM_NODES_MAX + 1]; /* nothing passes from, to until then */
	uint64_t delay_min_us, delay_max_us, delay_tail_us;
};

/* ---- a node */

enum death { DEATH_KILLED, DEATH_TORN, DEATH_POWER, DEATH_EXIT };

enum outcome { OUTCOME_DONE, OUTCOME_UNKNOWN, OUTCOME_NOT_EXECUTED };

enum change { CHANGE_ADD, CHANGE_ADD_READONLY, CHANGE_REMOVE };

struct job {
	uint32_t client;
	uint64_t operation;
};

/* What the writer sealed into one record. */
struct batch {
	uint64_t lsn, value;
	uint64_t sealed_us;
	unsigned job_count;
	struct job jobs[SIM_QUEUE_MAX];
	bool is_members; /* no clients' writes, a version of the members */
};

struct sender {
	struct node *node;
	uint32_t peer;
	struct walsender *walsender; /* NULL: none */
	uint64_t cursor_lsn;
	bool flush_commit;
	struct disk_state snapshot; /* being sent */
	uint8_t page[WAL_PAGE_SIZE];
};

struct master_role {
	bool running;
	uint64_t term, term_start_lsn;
	bool ready, draining;
	struct commit *commit;
	uint64_t announced_lsn;
	struct member_versions versions;
	bool members_queued;                  /* versions.written waits for the writer */
	struct sender senders[SIM_NODES_MAX]; /* by node */
	struct job queue[SIM_QUEUE_MAX];
	unsigned queue_count;
	struct batch batches[SIM_BATCHES_MAX]; /* sealed, oldest first */
	unsigned batch_count;
	bool syncing;
	bool tick_soon;
};

struct replica_role {
	bool running;
	struct walreceiver *walreceiver;
	uint32_t master; /* who its acks go to; NOBODY */
	bool position_due, want_due, ack_due, ack_known;
	struct wire_msg *position, *ack; /* what waits to be said */
	struct wire_snapshot_want want;
	bool receiving; /* a snapshot */
	struct wire_snapshot_begin incoming;
	struct disk_state incoming_state; /* what has arrived; stays for the next attempt, in files */
};

struct node {
	struct world *world;
	uint32_t index;
	struct disk disk;
	/* the process */
	bool alive;       /* there is one */
	bool up;          /* it has opened its files and listens */
	uint32_t process; /* counts them */
	uint32_t pid;
	bool as_master;
	unsigned members;            /* of the cluster, when it was started */
	struct members log_members;  /* as seen when it was last to be promoted */
	uint64_t paused_us, busy_us; /* it does nothing before */
	uint64_t work_us;            /* time that the handler under way has spent on the disk */
	unsigned dies_in;            /* operations on the disk until it is killed; 0: it is not */
	bool dying;                  /* it was, in the handler under way */
	enum death death;
	/* node/roles.c and node/node.c */
	bool rebuilding;
	bool main_woken;
	uint64_t deposed_by_term;
	bool failure; /* the log cannot be written */
	bool news_diverged, news_rebuilt, news_snapshot;
	bool accepting; /* the endpoint's connections */
	struct master_role master;
	struct replica_role replica;
	/* what check.c has seen of it */
	uint64_t seen_visible_lsn, seen_base_lsn;
};

/* ---- the supervisor */

struct sim_supervisor {
	bool alive;
	uint32_t process;
	uint64_t paused_us;
	struct cluster *cluster;
	struct cluster_actions *actions;
	bool stepping;
	struct cluster_event queue[4 * CLUSTER_NODES_MAX];
	size_t queue_count;
	uint64_t tick_us; /* the tick that is due; 0: none */
	uint32_t seq[SIM_NODES_MAX];
	uint32_t watched[SIM_NODES_MAX]; /* the process that is its node's; 0: none */
	bool answered[SIM_NODES_MAX];
	bool roster_due;
	unsigned changes_asked; /* and not answered yet */
	/* durable */
	uint64_t term, failovers;
	bool ever_started;
	struct members members;
	uint64_t roster_process[SIM_NODES_MAX]; /* written down as running; 0: none */
	bool roster_answered[SIM_NODES_MAX];
	uint64_t roster_restarts[SIM_NODES_MAX];
	unsigned store_fails; /* so many of the next attempts to store the term fail */
};

/* ---- clients */

struct client {
	uint64_t operation; /* under way; 0: none */
	bool is_write;
	uint64_t floor_lsn;     /* a linearizable read must see so much */
	uint32_t node, process; /* that has it */
	uint32_t favourite;     /* a node that it has a connection to */
};

/* ---- what has been promised */

struct truth {
	uint64_t checksum; /* of the record committed at this LSN */
	uint64_t term;
	struct disk_state state;
};

struct checker {
	struct truth *committed; /* by LSN */
	uint64_t committed_lsn;
	uint64_t acked_lsn;    /* the highest that a client was told */
	uint64_t read_lsn;     /* the highest that a linearizable read has shown */
	uint64_t *term_master; /* by term: node + 1, process */
	/* With async durability a failover has passed over committed records, as it may: from then on there is no one
	 * history any more, and what is promised of it is not checked. */
	bool lossy;
	struct members *versions; /* by version; that of one not seen yet is 0 */
	uint64_t versions_seen;   /* none beyond */
};

/* Which accidents a schedule has, and how often; drawn from its seed. */
struct fault_plan {
	uint32_t kinds; /* bit n: enum fault n happens */
	uint64_t gap_min_us, gap_max_us;
	uint64_t end_us;
};

struct sim_totals {
	uint64_t schedules, faults, elections, promotions, acked, reads, switchovers, snapshots, cuts, crashes, events,
	    changes, losses;
	uint64_t simulated_us;
};

struct world {
	uint64_t now_us;
	struct rng rng;
	bool trace;
	struct event_queue events;
	unsigned node_count;  /* numbers that are in use, or were */
	unsigned first_count; /* voters in the beginning */
	enum durability durability;
	struct network network;
	struct node nodes[SIM_NODES_MAX];
	struct sim_supervisor supervisor;
	struct client clients[SIM_CLIENTS_MAX];
	unsigned client_count;
	uint64_t think_max_us;
	uint64_t last_operation, last_value;
	uint32_t last_pid;
	struct checker checker;
	struct fault_plan faults;
	uint64_t healed_us, acked_at_heal; /* EV_HEAL */
	bool clients_stop;
	bool over;
	bool failed;
	char why[512];
	int64_t wall_us[SIM_NODES_MAX];       /* by how much each wall clock is off */
	struct wire_msg *incoming, *outgoing; /* the messages being handled and made: large */
	struct sim_totals totals;
};

/* Allocates; once for many schedules. NULL: out of memory. */
struct world *world_create(void);
void world_free(struct world *w);
/* Runs one schedule. False: w->why says which invariant was broken. */
bool world_run(struct world *w, uint64_t seed, bool trace);

/* ---- time and events (event.c) */

uint64_t now_ms(const struct world *w); /* monotonic, as the cores want it */
/* Takes bytes. */
void event_add(struct world *w, struct event ev);
bool event_take(struct world *w, struct event *out);
void event_clear(struct world *w);
/* An event for a node's present process, after delay_us. */
void node_later(struct node *n, enum event_kind kind, uint64_t delay_us, uint64_t a, uint64_t b);
void supervisor_later(struct world *w, enum event_kind kind, uint32_t node, uint64_t delay_us, uint64_t a, uint64_t b);
void world_later(struct world *w, enum event_kind kind, uint32_t node, uint64_t delay_us, uint64_t a, uint64_t b);
void trace(const struct world *w, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* An invariant was broken; the first one counts. */
void violated(struct world *w, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* ---- network (network.c) */

void network_reset(struct world *w);
uint64_t network_delay(struct world *w);
bool network_blocked(const struct world *w, uint32_t from, uint32_t to);
struct pipe *pipe_of(struct world *w, uint64_t id);
uint64_t pipe_id(enum pipe_use use, uint32_t from, uint32_t to);
void pipe_open(struct world *w, enum pipe_use use, uint32_t from, uint32_t to);
void pipe_close(struct world *w, enum pipe_use use, uint32_t from, uint32_t to);
bool pipe_may_send(struct world *w, enum pipe_use use, uint32_t from, uint32_t to);
/* Encodes and sends, extra_us from now. */
void pipe_send(struct world *w, enum pipe_use use, uint32_t from, uint32_t to, const struct wire_msg *msg,
	       uint64_t extra_us);
/* The connection breaks, messages under way are lost. */
void pipe_break(struct world *w, uint64_t id);
void network_on_dial(struct world *w, const struct event *ev);
/* True: the message in ev has arrived; false: it is lost, or kept for later. */
bool network_arrives(struct world *w, struct event *ev);
/* A message that its receiver cannot take yet is kept back. */
void network_keep(struct world *w, struct event *ev, uint64_t until_us);
void network_on_death(struct world *w, uint32_t node);

/* ---- nodes (node.c) */

extern const uint8_t sim_cluster_id[16];

void node_reset(struct world *w, uint32_t index);
void node_spawn(struct node *n, bool as_master, unsigned members);
void node_die(struct node *n, enum death death, int code, int signal);
void node_wake_main(struct node *n);
void node_kick(struct node *n, enum pipe_use use, uint32_t peer); /* the pipe takes messages again */
void node_on_connected(struct node *n, enum pipe_use use, uint32_t peer, bool connected);
void node_handle(struct node *n, struct event *ev);
uint64_t node_wall_us(const struct node *n);
/* How long an fdatasync takes. The process may be killed in it. */
uint64_t disk_latency_us(struct world *w);
/* Before an operation on the disk. False: the process is dead, and so is the operation. */
bool node_disk_op(struct node *n);

/* master_role.c */
enum db_err master_start(struct node *n, uint64_t term, const struct members *members, struct errmsg *em);
enum db_err master_set_members(struct node *n, const struct members *members, struct errmsg *em);
void master_stop(struct node *n);
void master_on_message(struct node *n, const struct wire_msg *msg);
void master_submit(struct node *n, struct job job);
void master_set_draining(struct node *n, bool draining);
bool master_is_drained(const struct node *n);
void master_on_synced(struct node *n, const struct event *ev);
void master_on_tick(struct node *n, const struct event *ev);
void master_on_sweep(struct node *n, const struct event *ev);
void master_pump(struct node *n, uint32_t peer);
void master_on_connected(struct node *n, uint32_t peer, bool connected);

/* replica_role.c */
enum db_err replica_start(struct node *n, struct errmsg *em);
void replica_stop(struct node *n);
void replica_on_message(struct node *n, const struct wire_msg *msg);
void replica_pump(struct node *n);
void replica_on_connected(struct node *n, bool connected);

/* ---- supervisor (super.c) */

void super_reset(struct world *w);
void super_start(struct world *w);
void super_die(struct world *w);
void super_handle(struct world *w, struct event *ev);
/* What each schedule begins with: voters, version 0. */
void super_first_members(struct world *w, struct members *out);
void super_exit_seen(struct world *w, uint32_t node, uint32_t process, int code, int signal);

/* ---- clients (client.c) */

void client_begin(struct world *w, uint32_t c);
void client_on_request(struct node *n, const struct event *ev);
void client_answer(struct world *w, struct job job, enum outcome outcome, uint64_t lsn, uint64_t delay_us);
void client_on_reply(struct world *w, const struct event *ev);
void client_on_timeout(struct world *w, const struct event *ev);
void client_on_death(struct world *w, uint32_t node);

/* ---- accidents (faults.c) */

void faults_plan(struct world *w);
void faults_strike(struct world *w);
void faults_end(struct world *w);

/* ---- invariants (check.c) */

bool check_init(struct checker *c);
void check_fini(struct checker *c);
void check_reset(struct world *w);
void check_promoted(struct node *n, uint64_t term);
void check_committed(struct node *n, uint64_t lsn);
/* A version of the members says the same wherever it is told. */
void check_members(struct world *w, const struct members *members);
void check_acked(struct world *w, uint32_t node, uint64_t lsn);
void check_linearizable_read(struct node *n, uint64_t floor_lsn, uint64_t visible_lsn);
void check_node(struct node *n); /* after every step of it */
void check_cut(struct node *n, uint64_t keep_lsn);
bool check_is_well(struct world *w, const char **why); /* everybody up and equal */
void check_end(struct world *w);

#endif

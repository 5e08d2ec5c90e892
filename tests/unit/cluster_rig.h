/*
 * cluster_rig.h - a cluster core with model nodes around it, on virtual time: for the tests of supervisor/cluster.
 *
 * The rig carries actions out against the models and checks the core's promises at each: a term is persisted before it
 * is announced, no term has two promotions, a promotion has enough promises and the best position, and nobody else may
 * serve then. A model node keeps the control protocol honestly: its promised term and log survive its process.
 */
#ifndef GRIZZLY_TESTS_UNIT_CLUSTER_RIG_H
#define GRIZZLY_TESTS_UNIT_CLUSTER_RIG_H

#include "supervisor/cluster.h"

struct rig_node {
	bool running;
	bool hung; /* takes requests, answers none */
	bool busy; /* its process works, though it may not answer */
	enum wire_role role;
	enum wire_node_state state;
	enum wire_node_state told_state; /* in its last answer */
	bool ready;
	uint64_t lag_ms;
	bool draining;
	bool accepts; /* false: refuses every command */
	uint64_t promised_term;
	uint64_t promoted_term; /* by this process */
	struct wal_pos last;
	uint64_t committed_lsn;
	/* what its answers say of its disk and its log's thread */
	uint64_t disk_age_ms;
	uint64_t disk_busy_ms;
	uint64_t stuck_ms;
	/* the request under way */
	enum wire_type asked;
	uint64_t asked_term;
	uint64_t asked_timeout_ms;
	uint32_t seq;      /* 0: none */
	uint32_t last_seq; /* of the request before */
	unsigned spawns;
	uint64_t restarts; /* told to a new core */
	int killed;        /* the last signal sent to the process; 0: none */
	bool probed;
	/* members, each a version of the whole */
	struct members asked_members; /* of the request under way */
	struct members in_force;      /* master: what it counts by */
	struct members in_log;        /* in its log, up to last */
	struct members committed;     /* what it says of its log */
};

#define RIG_NOTES 64

struct rig {
	struct cluster *c;
	struct cluster_options opt;
	uint64_t now_ms;
	uint64_t persisted_term;
	uint64_t failovers;
	bool persist_fails;
	uint64_t promoted_term; /* highest term with a PROMOTE so far */
	unsigned promoted;      /* to whom */
	unsigned promotes;
	bool switchover_done;
	bool switchover_ok;
	char switchover_text[CLUSTER_TEXT_MAX];
	unsigned slots; /* nodes[] in use: node_count in the beginning, more when members are to be added */
	struct members persisted;
	bool commits; /* a master commits the members it is told at once, on everybody who runs */
	bool change_done;
	bool change_ok;
	char change_text[CLUSTER_TEXT_MAX];
	unsigned retired; /* RETIRE actions */
	bool stopped;
	unsigned warnings; /* log lines of level warn and above */
	struct {           /* by timeline kind: how many, and the last one */
		unsigned count;
		unsigned node;
		struct timeline_note note;
		char text[CLUSTER_TEXT_MAX];
	} notes[RIG_NOTES];
	struct rig_node nodes[CLUSTER_NODES_MAX];
	struct cluster_actions out; /* of the last step */
};

/* Nodes with empty logs, none running; quorum is a majority. */
void rig_init(struct rig *r, unsigned node_count);
/* Another supervisor on the same nodes: the old core is dropped, a new one begins with the persisted term. */
void rig_new_core(struct rig *r);
void rig_fini(struct rig *r);
/* A cluster of node_count that serves, node 0 being its master, everybody at the same position. */
void rig_serve(struct rig *r, unsigned node_count);

void rig_begin(struct rig *r, bool first_start); /* adopts what runs, all of it known to have answered */
void rig_step(struct rig *r, const struct cluster_event *ev);
void rig_tick(struct rig *r);
/* Lets time pass tick by tick, all nodes that are not hung answering at once. */
void rig_run(struct rig *r, uint64_t ms);
/* Ticks of wake-up times only, no node answers. */
void rig_run_silent(struct rig *r, uint64_t ms);
/* Each node's request under way is carried out and answered, again and again until none is due. */
void rig_answer_all(struct rig *r);
bool rig_answer(struct rig *r, unsigned n); /* false: nothing was asked, or it cannot */
/* The node's process ends. */
void rig_exit(struct rig *r, unsigned n, int code, int signal);
void rig_switchover(struct rig *r, unsigned target);
void rig_add(struct rig *r, unsigned n, bool readonly);
void rig_remove(struct rig *r, unsigned n);
/* Do these nodes make the quorums by which the master counts? */
bool rig_acknowledges(const struct members *in_force, uint32_t holders);
void rig_stop(struct rig *r);
/* Records of the master's, committed on everybody who runs. */
void rig_write(struct rig *r, unsigned master, uint64_t records);

unsigned rig_master(const struct rig *r); /* the one that the core says serves */
const char *rig_reason(struct rig *r);    /* why there is none */

#endif

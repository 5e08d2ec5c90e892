/*
 * cluster_internal.h - the inside of the cluster core, shared by its files alone: cluster.c (processes, requests),
 * health.c (who lives), election.c (terms, promises, promotion), switchover.c (planned handover), change.c (members),
 * stop.c, cluster_view.c.
 */
#ifndef GRIZZLY_SUPERVISOR_CLUSTER_INTERNAL_H
#define GRIZZLY_SUPERVISOR_CLUSTER_INTERNAL_H

#include "supervisor/cluster.h"

enum member_phase {
	MEMBER_DOWN,     /* no process; restart_ms says when there will be */
	MEMBER_STARTING, /* a process that has not answered yet */
	MEMBER_ALIVE,    /* it has answered */
	MEMBER_ENDING,   /* it was sent SIGKILL, or is no member any more and was told to end; its exit is awaited */
	MEMBER_ABSENT,   /* no member, and no process */
};

struct member {
	enum member_phase phase;
	bool may_serve; /* it may be a master: started or promoted as one, or adopted; until gone or stepped down */
	bool wait;      /* an election that could decide still waits for it, a little */
	bool promised;  /* promised c->term, in this election */
	bool refused;   /* refused to, without naming a higher term */
	bool fresh;     /* never started in this cluster's run: its next start is no restart */
	/* in a silence, see health.c */
	bool probed;     /* the shell has a sample of its process, taken at probed_ms */
	bool stuck;      /* its process made no progress */
	bool excused;    /* it did, which was logged */
	bool distrusted; /* named an impossible term: a restart would not help */
	uint64_t probed_ms;
	/* what the timeline was last told of it */
	bool told;
	enum wire_role told_role;
	bool told_unfit; /* diverged or failed */
	char told_reason[WIRE_REASON_MAX];
	struct wal_pos promised_pos; /* its position after the promise: no older master can change it any more */
	uint64_t works_ms; /* since when each of its answers has said that its disk works; 0: the last one did not */
	uint64_t started_ms;
	uint64_t heard_ms;   /* last answer, or when waiting for one began anew */
	uint64_t good_ms;    /* last answer; started_ms before the first */
	uint64_t restart_ms; /* DOWN */
	uint64_t backoff_ms; /* delay of the next restart */
	uint64_t restarts;
	uint32_t seq;                   /* the request under way; 0: none */
	enum wire_type asked;           /* what it is */
	uint64_t next_send_ms;          /* when none is under way */
	struct wire_node_status status; /* last answer of this process; all zero before */
	char reason[CLUSTER_TEXT_MAX];  /* of phase */
	char ended[CLUSTER_TEXT_MAX];   /* how its last process ended */
};

enum cluster_phase {
	PHASE_IDLE,      /* before CLUSTER_BEGIN */
	PHASE_GATHERING, /* nodes were adopted: is one of them master? */
	PHASE_ELECTING,  /* c->term was made durable; promises are collected */
	PHASE_PROMOTING, /* c->master was told; it is not ready yet */
	PHASE_SERVING,   /* c->master is ready */
	PHASE_STOPPING,
	PHASE_ENDED,
};

enum election_cause { ELECTION_COLD, ELECTION_FAILURE, ELECTION_SWITCHOVER };

enum switchover_stage { SWITCHOVER_NONE, SWITCHOVER_DRAIN, SWITCHOVER_CATCH_UP, SWITCHOVER_ELECT };

struct cluster {
	struct cluster_options opt;
	unsigned need;               /* promises; of the new set of voters, while there are two */
	struct members roll;         /* who belongs to it */
	struct members durable_roll; /* what roll was before the PERSIST under way */
	uint64_t last_version;       /* of the members, the highest that was ever tried */
	bool roll_unsure;            /* whether that one succeeds is not known yet */
	bool roll_learnt;            /* roll, or one it came from, was a log's: newer ones may have been in force */
	unsigned count;              /* no member and no process beyond */
	enum cluster_phase phase;
	uint64_t term;
	uint64_t failovers;
	uint64_t durable_term; /* what c->term was before the PERSIST under way */
	bool term_unsure;      /* whether that one succeeds is not known yet */
	uint64_t seen_term;    /* the highest that any node named */
	unsigned master;       /* PROMOTING, SERVING: the node; else CLUSTER_NOBODY */
	unsigned last_failed;  /* the master that was lost last: no preferred successor at equal position */
	unsigned preferred;    /* the target of a switchover, in its election */
	bool promote_asked;    /* PROMOTING: PROMOTE was sent (or the node was started as a master) */
	bool held;             /* ELECTING: a new election begins at retry_ms; none is under way */
	uint64_t retry_ms;     /* GATHERING: likewise nobody is adopted before, a term could not be stored */
	uint64_t phase_ms;     /* when phase began */
	uint64_t window_ms;    /* ELECTING */
	uint64_t lost_ms;      /* when the last master was lost, for the log */
	struct {
		bool open;    /* a master was lost, or drained, and none is ready since */
		bool counted; /* in failovers */
		bool planned; /* began as a switchover */
		uint64_t detected_ms;
		uint64_t heard_ms; /* the lost master's last good heartbeat */
		char why[CLUSTER_TEXT_MAX];
	} outage;
	uint64_t burst_ms; /* elections are counted since; too many in a second are slowed down */
	unsigned burst;
	uint32_t last_seq;
	uint64_t stop_ms;   /* STOPPING: since */
	bool stop_replicas; /* STOPPING: they were told too */
	bool stop_killed;   /* STOPPING: SIGKILL was sent */
	struct {
		enum switchover_stage stage;
		unsigned target;
		bool drain_accepted;
		uint64_t begun_ms;
		bool internal;       /* a change of the members wants it: nobody is told */
		struct wal_pos goal; /* the master's last record, once drained */
		uint64_t deadline_ms;
	} switchover;
	struct {
		bool asked;           /* somebody waits for CLUSTER_CHANGE_DONE */
		unsigned node;        /* whom it is about, when asked */
		bool removing;        /* asked to remove it, and not begun: the master, which has to hand over first */
		bool ok;              /* what will be told once everything has settled */
		uint64_t since_ms;    /* of the present stage */
		uint64_t retry_ms;    /* not before, after a failed PERSIST or switchover */
		uint64_t goal_lsn;    /* the end of the master's log when the learner began to stream; 0: it has not */
		unsigned failures;    /* of the learner's process */
		bool failed_for_good; /* the learner's: another start would not help */
		char text[CLUSTER_TEXT_MAX];
	} change;
	uint64_t wake_ms;
	char reason[CLUSTER_TEXT_MAX]; /* why there is no master */
	struct cluster_actions *out;   /* during a step */
	struct member members[CLUSTER_NODES_MAX];
};

#define NODE_NAME_FMT "node%u"
#define NODE_NAME(n)  ((n) + 1)

/* cluster.c */
struct cluster_action *cluster_emit(struct cluster *c, enum cluster_action_type type, unsigned node);
void cluster_log(struct cluster *c, enum log_level level, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* For the timeline: a note about node, or CLUSTER_NOBODY, with the present term. The caller may fill in more. */
struct timeline_note *cluster_note(struct cluster *c, enum timeline_kind kind, unsigned node, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
void cluster_set_reason(struct cluster *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
void cluster_set_phase(struct cluster *c, enum cluster_phase phase, uint64_t now_ms);
bool member_runs(const struct member *m);   /* STARTING or ALIVE */
bool member_usable(const struct member *m); /* ALIVE, and its log may be relied on */
/* Of one that is usable: it has all, or follows the log and is a moment behind, as under load a replica is most of the time. */
bool member_keeps_up(const struct member *m);
void member_set_phase(struct cluster *c, unsigned n, enum member_phase phase, const char *why);
void member_ask_now(struct member *m, uint64_t now_ms); /* whatever is due next is sent at once */
void member_kill(struct cluster *c, unsigned n, const char *why);

bool member_present(const struct cluster *c, unsigned n);
bool member_votes(const struct cluster *c, unsigned n);
/* Before the first new value of a step: whether its PERSIST succeeds says nothing about those of earlier steps, which are
 * stored by now. */
void cluster_before_persist(struct cluster *c);
void cluster_persist(struct cluster *c); /* c->term, c->failovers and c->roll */
void cluster_recount(struct cluster *c); /* after a change of the members or of a phase to or from ABSENT */
/* Are these nodes enough promises by every set of voters that counts? */
bool cluster_elects(const struct cluster *c, uint32_t nodes);
unsigned cluster_need_of(const struct cluster *c, uint32_t voters); /* promises, of these */
unsigned cluster_acks_of(const struct cluster *c, unsigned voters); /* how many of so many voters must acknowledge */

/* health.c */
void member_heard(struct member *m, uint64_t now_ms);                                 /* its silence is over */
uint64_t member_hung_after_ms(const struct cluster *c, const struct member *m);       /* then an answer is missing */
bool member_silent(const struct cluster *c, const struct member *m, uint64_t now_ms); /* it counts as hung */
/* Its last answer says that its disk or its log's thread stands still; why gets it in words. */
bool member_stalled(const struct cluster *c, const struct member *m, char why[CLUSTER_TEXT_MAX]);
void health_on_status(const struct cluster *c, struct member *m, uint64_t now_ms); /* it has answered */
/* Its disk completes writes, and has been seen to for a while; its log's thread gets on. */
bool member_disk_works(const struct cluster *c, const struct member *m, uint64_t now_ms);
void health_notice_pause(struct cluster *c, uint64_t now_ms);
void health_on_progress(struct cluster *c, const struct cluster_event *ev, uint64_t now_ms);
void health_progress(struct cluster *c, uint64_t now_ms); /* asks for samples, kills what hangs or has failed */
uint64_t health_wake_ms(const struct cluster *c, unsigned n, uint64_t now_ms);

/* election.c */
void election_start(struct cluster *c, enum election_cause cause, uint64_t now_ms, const char *why);
void election_hold(struct cluster *c, uint64_t delay_ms, uint64_t now_ms);
void election_progress(struct cluster *c, uint64_t now_ms);
/* The election has gone on for so long, and could decide if these voters alone were asked. */
bool election_needs_only(const struct cluster *c, uint32_t voters, uint64_t for_ms, uint64_t now_ms);
void election_on_promise(struct cluster *c, unsigned n, uint64_t now_ms);
void election_on_promoted(struct cluster *c, unsigned n, uint64_t now_ms);
void election_on_no_promotion(struct cluster *c, uint64_t now_ms);
void election_persist_failed(struct cluster *c, uint64_t now_ms);
/* Could the others do without n? Ending it helps only if they can. */
bool election_can_replace(const struct cluster *c, unsigned n, uint64_t now_ms);
void election_observe(struct cluster *c, unsigned n, uint64_t now_ms);
void election_note_outage(struct cluster *c, bool planned, uint64_t now_ms, const char *why);
void election_master_lost(struct cluster *c, uint64_t now_ms, const char *why);
void gathering_progress(struct cluster *c, uint64_t now_ms);
uint64_t election_wake_ms(const struct cluster *c, uint64_t now_ms);

/* change.c */
void change_begin_add(struct cluster *c, const struct cluster_event *ev, uint64_t now_ms);
void change_begin_remove(struct cluster *c, unsigned n, uint64_t now_ms);
void change_progress(struct cluster *c, uint64_t now_ms);
void change_on_exit(struct cluster *c, unsigned n, const struct cluster_event *ev); /* a member's process ended */
void change_on_switchover(struct cluster *c, bool ok, const char *why);             /* of an internal one */
void change_learn(struct cluster *c, unsigned n, uint64_t now_ms); /* a node's log may know newer members */
void change_persist_failed(struct cluster *c, uint64_t now_ms);
void change_stopping(struct cluster *c);
bool change_polls(const struct cluster *c, unsigned n, uint64_t now_ms);
uint64_t change_wake_ms(const struct cluster *c, uint64_t now_ms);
bool change_is_ending(const struct cluster *c); /* somebody waits, only for a process that still ends */
void change_describe(const struct cluster *c, char *out, size_t size); /* "": none is under way */

/* stop.c */
void stop_begin(struct cluster *c, uint64_t now_ms);
void stop_progress(struct cluster *c, uint64_t now_ms);
uint64_t stop_wake_ms(const struct cluster *c);

/* switchover.c */
void switchover_begin(struct cluster *c, unsigned target, bool internal, uint64_t now_ms);
void switchover_progress(struct cluster *c, uint64_t now_ms);
void switchover_on_drain(struct cluster *c, uint64_t now_ms);
void switchover_cancel(struct cluster *c, uint64_t now_ms, const char *why);
bool switchover_polls(const struct cluster *c, unsigned n); /* its state is awaited: short heartbeats */

#endif

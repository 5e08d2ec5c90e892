/*
 * timeline.h - what has happened to the cluster, kept for the person who asks at 3 a.m.
 *
 * D/log/events.jsonl: one JSON object a line, appended with one write(2) each, never changed; at TIMELINE_BYTES_MAX the
 * file becomes events.jsonl.1, replacing the one before, so that the two never hold more than twice that. A line is in the
 * page cache when timeline_append() returns and survives any process's end; a power cut may take the last seconds and
 * leave a torn line, which readers skip and the next writer ends.
 *
 * The cluster core says what is to be noted (CLUSTER_NOTE actions hold a struct timeline_note and its text), the shell
 * adds what only it knows (pids, refused configurations) and writes. Writer: the supervisor's loop thread, or a command
 * that holds the supervisor's lock. Readers: anybody at any time (supervisor/timeline_show.c).
 */
#ifndef GRIZZLY_SUPERVISOR_TIMELINE_H
#define GRIZZLY_SUPERVISOR_TIMELINE_H

#include <stdint.h>

#include "common/base/err.h"
#include "common/wal/record.h"

#define TIMELINE_PATH      "log/events.jsonl"
#define TIMELINE_PATH_OLD  "log/events.jsonl.1"
#define TIMELINE_BYTES_MAX ((uint64_t)4 << 20)
#define TIMELINE_NONE      UINT64_MAX /* of a number that says nothing in this event */
#define TIMELINE_NO_CODE   (-1)

/* X(kind, name in the file). Names are a contract: add, do not rename. */
#define TIMELINE_KINDS(X)                                                                                              \
	X(SUPERVISOR_START, "supervisor-start")                                                                        \
	X(SUPERVISOR_STOP, "supervisor-stop")                                                                          \
	X(SUPERVISOR_PAUSED, "supervisor-paused") /* missed heartbeats do not count */                                 \
	X(CONFIG_REFUSED, "config-refused")       /* a start that came to nothing */                                   \
	X(NODE_ADOPTED, "node-adopted")                                                                                \
	X(NODE_START, "node-start")                                                                                    \
	X(NODE_ANSWERS, "node-answers") /* a new process's first answer */                                             \
	X(NODE_STATE, "node-state")     /* role, health or reason is another one */                                    \
	X(NODE_EXIT, "node-exit")                                                                                      \
	X(HEARTBEAT_MISSED, "heartbeat-missed")                                                                        \
	X(NODE_KILLED, "node-killed")                                                                                  \
	X(FENCED, "fenced") /* what might have served an older term cannot any more */                                 \
	X(MASTER_LOST, "master-lost")                                                                                  \
	X(NO_MASTER, "no-master") /* why there is none, whenever that changes */                                       \
	X(ELECTION, "election")                                                                                        \
	X(CANDIDATE, "candidate") /* where each node stood when an election was decided */                             \
	X(PROMOTION, "promotion")                                                                                      \
	X(NOT_PROMOTED, "not-promoted")                                                                                \
	X(MASTER_READY, "master-ready") /* with the measured outage */                                                 \
	X(SWITCHOVER_BEGIN, "switchover-begin")                                                                        \
	X(SWITCHOVER_END, "switchover-end")                                                                            \
	X(SWITCHOVER_FAILED, "switchover-failed")                                                                      \
	X(SALVAGE, "salvage") /* a node has set rows aside that the cluster does not have */                           \
	X(RECOVER, "recover") /* an operator accepted a loss */                                                        \
	X(STOPPING, "stopping")

enum timeline_kind {
#define X(kind, name) TIMELINE_##kind,
	TIMELINE_KINDS(X)
#undef X
	    TIMELINE_KIND_COUNT
};

struct timeline_note {
	enum timeline_kind kind;
	uint64_t term;            /* 0: says nothing */
	struct wal_pos last;      /* the node's last durable record, as far as is known; {0, 0}: says nothing */
	uint64_t pid;             /* 0: says nothing */
	int code;                 /* exit code, or TIMELINE_NO_CODE */
	int signal;               /* 0: none */
	uint64_t restart_ms;      /* until the process is started again; this and the following may be TIMELINE_NONE */
	uint64_t silent_ms;       /* since its last answer */
	uint64_t outage_ms;       /* from when the loss was noticed until the new master serves */
	uint64_t outage_heard_ms; /* the same from the lost master's last good heartbeat */
};

#define TIMELINE_NOBODY UINT32_MAX /* node of an event that is about none; nodes count from 0 */

/* A note of this kind that says nothing yet. */
struct timeline_note timeline_note_of(enum timeline_kind kind);

struct timeline; /* body in timeline.c */

/* Opens TIMELINE_PATH below the current directory for appending, ending a torn last line. DB_IO, DB_FULL, DB_NOMEM. */
enum db_err timeline_open(struct timeline **out, struct errmsg *em);
/* Never fails for the caller: what cannot be written is logged, once until it works again. t may be NULL: nothing. */
void timeline_append(struct timeline *t, const struct timeline_note *note, uint32_t node, const char *text);
/* One with a process and a term, for what the shell knows by itself. */
void timeline_append_process(struct timeline *t, enum timeline_kind kind, uint32_t node, uint64_t term, uint64_t pid,
			     const char *text);
void timeline_close(struct timeline *t); /* NULL is fine */

#endif

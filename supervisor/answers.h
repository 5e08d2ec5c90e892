/*
 * answers.h - what the supervisor answers to status, replicas, switchover, add-replica, remove-replica, reload, restart,
 * replace and stop.
 *
 * A request is a JSON object with "command"; the answers to status and replicas are supervisor/status_json.h's, to the
 * others {"status","code","message","id","pid"}. A switchover and a change of the members take time: they are answered
 * with "running" and an id, and switchover-result and change-result ask how the last one went; "running" with the code
 * "ENDING nodeN" says that all is done but for the end of that node's process. The command line asks, and so do nodes on
 * behalf of their clients (node/admin.h). Loop thread.
 */
#ifndef GRIZZLY_SUPERVISOR_ANSWERS_H
#define GRIZZLY_SUPERVISOR_ANSWERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/buf.h"
#include "common/base/config.h"
#include "supervisor/cluster.h"

/* One that takes time: the last that was asked for. */
struct pending_answer {
	uint64_t id; /* 0: none yet */
	bool done;
	bool ok;
	char text[CLUSTER_TEXT_MAX];
};

struct answers {
	const struct cluster *cluster; /* borrowed, like config */
	const struct cluster_config *config;
	void (*feed)(void *arg, const struct cluster_event *ev); /* a step of the core, and all that follows from it */
	void (*get_pids)(void *arg, pid_t *pids);                /* of each node, 0: none */
	bool (*reload)(void *arg, struct buf *said);             /* takes up the configuration; said: what came of it */
	enum db_err (*restart)(void *arg, unsigned node,
			       struct errmsg *em); /* ends its process, which is started again */
	enum db_err (*replace)(void *arg, const char *program, struct errmsg *em); /* in a moment, after the answer */
	uint64_t started_ms; /* of this program: clock_mono_ms() */
	void *arg;
	struct pending_answer switchover;
	struct pending_answer change;
	bool asking_change;              /* the core is being asked: what is done now is this request's … */
	struct pending_answer immediate; /* … and goes here; what is done later is that of change */
};

/* Fills reply; reply->failed when memory is short. arg: struct answers (it is a control_answer_fn). */
void answers_command(void *arg, const char *text, size_t len, struct buf *reply);
/* The core's CLUSTER_SWITCHOVER_DONE. */
void answers_switchover_done(struct answers *a, bool ok, const char *text);
/* The core's CLUSTER_CHANGE_DONE. */
void answers_change_done(struct answers *a, bool ok, const char *text);

#endif

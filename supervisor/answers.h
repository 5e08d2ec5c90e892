/*
 * answers.h - what the supervisor answers to status, switchover, switchover-result and stop.
 *
 * A request is a JSON object with "command"; the answer to status is supervisor/status_json.h's, to the others
 * {"status","code","message","id","pid"}. A switchover takes time: it is answered with "running" and an id, and
 * switchover-result asks how the last one went. Loop thread.
 */
#ifndef GRIZZLY_SUPERVISOR_ANSWERS_H
#define GRIZZLY_SUPERVISOR_ANSWERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/buf.h"
#include "common/base/config.h"
#include "supervisor/cluster.h"

struct answers {
	const struct cluster *cluster; /* borrowed, like config */
	const struct cluster_config *config;
	void (*feed)(void *arg, const struct cluster_event *ev); /* a step of the core, and all that follows from it */
	void (*get_pids)(void *arg, pid_t *pids);                /* of each node, 0: none */
	void *arg;
	uint64_t switchover_id; /* of the last one asked for; 0: none yet */
	bool switchover_done;
	bool switchover_ok;
	char switchover_text[CLUSTER_TEXT_MAX];
};

/* Fills reply; reply->failed when memory is short. arg: struct answers (it is a control_answer_fn). */
void answers_command(void *arg, const char *text, size_t len, struct buf *reply);
/* The core's CLUSTER_SWITCHOVER_DONE. */
void answers_switchover_done(struct answers *a, bool ok, const char *text);

#endif

/*
 * roster.h - run/supervisor.json: which processes the supervisor started, for the next supervisor and for people.
 *
 * Written with rename and without a sync: after a power cut every process in it is gone anyway. What is not in it or no
 * longer true costs a restart of the node concerned, nothing more; the term is elsewhere (supervisor/coordinator.h).
 */
#ifndef GRIZZLY_SUPERVISOR_ROSTER_H
#define GRIZZLY_SUPERVISOR_ROSTER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/config.h"
#include "common/base/err.h"

struct roster_node {
	pid_t pid; /* 0: not running */
	uint64_t start_ticks;
	uint64_t started_us; /* wall clock, for people */
	uint64_t restarts;
	bool answered; /* this process has answered a request */
	bool master;   /* for people */
};

struct roster {
	char boot_id[64];
	pid_t supervisor_pid;
	uint64_t term; /* for people */
	unsigned node_count;
	struct roster_node nodes[CONFIG_NODES_MAX];
};

enum db_err roster_store(const struct roster *r, const char *path, struct errmsg *em);
/* DB_NOTFOUND: none. DB_INVALID: not understood. *r is zero then. */
enum db_err roster_load(struct roster *r, const char *path, struct errmsg *em);

#endif

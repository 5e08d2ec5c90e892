/*
 * metrics.h - what only the supervisor knows, for /metrics: failovers and their outage, the processes.
 *
 * It has no HTTP port of its own, so it leaves the figures in run/metrics, in Prometheus' text format, and every node of the
 * host adds the file to its own /metrics (node/metrics.h). They are about the cluster: of several nodes' copies any is as
 * good as another. The file is replaced as a whole when something has happened, and every few seconds, so that
 * grizzly_supervisor_seen_timestamp_seconds tells whether a supervisor is alive. Counters begin at its start, but for the
 * number of failovers, which is the cluster's. Loop thread.
 */
#ifndef GRIZZLY_SUPERVISOR_METRICS_H
#define GRIZZLY_SUPERVISOR_METRICS_H

#include <event2/event.h>

#include "common/base/err.h"
#include "supervisor/cluster.h"
#include "supervisor/timeline.h"

#define METRICS_PATH "run/metrics"

struct metrics; /* body in metrics.c */

struct metrics_options {
	struct event_base *base;       /* borrowed, like cluster */
	const struct cluster *cluster; /* asked for its view */
};

enum db_err metrics_create(struct metrics **out, const struct metrics_options *options, struct errmsg *em);
/* Something for the timeline has happened. m may be NULL. */
void metrics_note(struct metrics *m, const struct timeline_note *note);
void metrics_free(struct metrics *m); /* removes the file; NULL is fine */

#endif

/*
 * housekeeping.h - what the supervisor does beside supervising, a few times a second, out of a failover's way:
 *
 *   - why there is no master stands in run/no-master while there is none, for the nodes to tell their clients;
 *   - a tail that a node has salvaged goes into the timeline;
 *   - how far each node is goes into the ledger;
 *   - who waits at the endpoint for longer than ENDPOINT_PATIENCE_MS without a master is told why (supervisor/refusal.h).
 *
 * Loop thread. Nothing of it can stop the supervisor: what fails is logged and tried again.
 */
#ifndef GRIZZLY_SUPERVISOR_HOUSEKEEPING_H
#define GRIZZLY_SUPERVISOR_HOUSEKEEPING_H

#include "common/base/err.h"
#include "supervisor/cluster.h"
#include "supervisor/timeline.h"

struct event_base;
struct housekeeping;

struct housekeeping_options {
	struct event_base *base; /* all borrowed, and outlive it */
	const struct cluster *cluster;
	struct timeline *timeline; /* may be NULL */
	unsigned node_count;
	int endpoint_fd;
};

enum db_err housekeeping_create(struct housekeeping **out, const struct housekeeping_options *options,
				struct errmsg *em);
void housekeeping_free(struct housekeeping *h); /* NULL is fine */

#endif

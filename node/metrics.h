/*
 * metrics.h - GET /metrics: a node's figures, and those of its supervisor, in Prometheus' text format.
 *
 * Every sample carries the labels node and role. What the supervisor knows (failovers, outages, the processes) it leaves in
 * run/metrics (supervisor/metrics.h), and every node of the host passes that on as it is: it is about the cluster, with no
 * label of the node that was asked.
 */
#ifndef GRIZZLY_NODE_METRICS_H
#define GRIZZLY_NODE_METRICS_H

#include "node/status.h"

void metrics_put(struct buf *out, const struct status_sources *sources);

#endif

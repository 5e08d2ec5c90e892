/*
 * status.h - what a node tells about itself: GET /status; where GET /metrics (node/metrics.h) finds its figures, too.
 */
#ifndef GRIZZLY_NODE_STATUS_H
#define GRIZZLY_NODE_STATUS_H

#include "common/base/buf.h"
#include "common/http/server.h"
#include "common/store/store.h"
#include "node/archiver.h"
#include "node/frontend.h"
#include "node/roles.h"
#include "node/tokens.h"

/* Where the figures come from; all borrowed. */
struct status_sources {
	const char *node_id;
	struct store *store;
	struct roles *roles;
	struct frontend *frontend;
	struct http_server *server;
	uint64_t started_ms; /* clock_mono_ms() at the start of the process */
	const struct cluster_config *config;
	struct archiver *archiver;
	struct remote_pool *pool;
	struct tokens *tokens;
	struct timings *timings; /* those that the HTTP workers do not keep themselves */
	struct slow_log *slow_log;
};

void status_put_json(struct buf *out, const struct status_sources *sources);

#endif

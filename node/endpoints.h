/*
 * endpoints.h - what this node answers at which path: the table of routes, and those that are answered from what is known
 * without asking anybody. Queries go to node/frontend.h, backups to node/backup.h.
 *
 * Called on the HTTP workers' threads.
 */
#ifndef GRIZZLY_NODE_ENDPOINTS_H
#define GRIZZLY_NODE_ENDPOINTS_H

#include "common/http/server.h"
#include "node/backup.h"
#include "node/status.h"

/* What the answers are made of; all borrowed, and there until the server is freed. */
struct endpoints {
	struct status_sources sources;
	struct backups *backups;
};

/* Makes sources.server, which does not listen yet; the caller frees it. tls NULL: plain HTTP. Errors of http_server_create(). */
enum db_err endpoints_create_server(struct endpoints *e, struct tls_server *tls, struct errmsg *em);

#endif

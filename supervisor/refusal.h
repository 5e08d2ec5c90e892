/*
 * refusal.h - tells clients at the cluster's endpoint why nobody serves them, when that has lasted.
 *
 * Connections made while there is no master wait in the endpoint's backlog for the successor, which is what a failover of
 * milliseconds wants. When there is none for seconds, waiting in silence helps nobody: the supervisor, which holds the
 * listening socket, then accepts too, reads one request of each connection, answers it with 503 NO_MASTER and the reason,
 * and closes. It stops as soon as there is a master. Nothing of a request is executed or even looked at beyond its length.
 *
 * At most REFUSAL_CONNECTIONS_MAX at a time, each for at most REFUSAL_MS; the rest waits on. Loop thread.
 */
#ifndef GRIZZLY_SUPERVISOR_REFUSAL_H
#define GRIZZLY_SUPERVISOR_REFUSAL_H

#include <stdbool.h>

#include "common/base/err.h"

#define REFUSAL_CONNECTIONS_MAX 64
#define REFUSAL_MS              2000
#define REFUSAL_BYTES_MAX       (1u << 20) /* of a request that is read; of a longer one the rest is not awaited */

struct event_base;
struct refusal;

struct refusal_options {
	struct event_base *base; /* borrowed, like listen_fd */
	int listen_fd;
	bool (*wanted)(void *arg); /* is there still no master? Asked before each connection is taken from its queue */
	void *arg;
};

/* Refuses nobody until it is told to. DB_NOMEM. */
enum db_err refusal_create(struct refusal **out, const struct refusal_options *options, struct errmsg *em);
/* reason: accept, and say this. NULL: leave the connections to a master. r may be NULL. */
void refusal_set(struct refusal *r, const char *reason);
void refusal_free(struct refusal *r); /* NULL is fine */

#endif

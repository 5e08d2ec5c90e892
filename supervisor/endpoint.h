/*
 * endpoint.h - the cluster's listening socket: bound once, inherited by every node, never accepted on by the supervisor.
 *
 * Called by the supervisor's main thread at start.
 */
#ifndef GRIZZLY_SUPERVISOR_ENDPOINT_H
#define GRIZZLY_SUPERVISOR_ENDPOINT_H

#include <stdbool.h>

#include "common/base/config.h"
#include "common/base/err.h"
#include "supervisor/launcher.h"

#define ENDPOINT_BACKLOG 1024 /* connections that wait in the kernel during a failover */

/* A non-blocking listening socket at bind:http_port. DB_BUSY: in use; DB_INVALID: no such address of ours; DB_IO. The
 * message names the address and the setting to change. */
enum db_err endpoint_bind(int *fd, const struct cluster_config *config, struct errmsg *em);

/* Gets the socket back from running nodes (supervisor/launcher.h), asking each in turn at run/node<i>.fd and, should a
 * node be hung, taking it through its pidfd. nodes[i].pidfd is -1 where none runs. DB_UNAVAILABLE: no node gave it.
 * DB_INVALID: they listen at another address than config says. */
enum db_err endpoint_fetch(int *fd, const struct cluster_config *config, const struct process *nodes, unsigned count,
			   struct errmsg *em);

/* From running nodes if there are any, else bound. Should none be able to hand it over, binding it anew is tried: that
 * works if they do not hold it after all. Errors of both. */
enum db_err endpoint_open(int *fd, const struct cluster_config *config, const struct process nodes[CONFIG_NODES_MAX],
			  struct errmsg *em);

#endif

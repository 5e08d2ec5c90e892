/*
 * supervisor.h - the shell around the cluster core: one thread, one libevent loop.
 *
 * It carries out what cluster_step() decides (processes, requests, the term file) and feeds it what happens (pidfds,
 * answers, timers, signals, commands). Everything below runs on the calling thread; NNG's threads only post to
 * mailboxes. The process must work inside the data directory.
 */
#ifndef GRIZZLY_SUPERVISOR_SUPERVISOR_H
#define GRIZZLY_SUPERVISOR_SUPERVISOR_H

#include "common/base/config.h"
#include "common/base/err.h"

struct supervisor; /* body in supervisor.c */

/* Adopts what an earlier supervisor left running, binds or takes over the endpoint, listens for commands, and takes the
 * first decisions: on DB_OK nodes have been started. data_dir is what the nodes are told (absolute). config is copied.
 * DB_BUSY: an address is in use; DB_NOTFOUND: the node programs; others as the message says. */
enum db_err supervisor_create(struct supervisor **out, const struct cluster_config *config, const char *data_dir,
			      struct errmsg *em);
/* Runs until the cluster was stopped by a command, SIGTERM or SIGINT. */
enum db_err supervisor_run(struct supervisor *s, struct errmsg *em);
void supervisor_free(struct supervisor *s); /* nodes that run go on running; NULL is fine */

#endif

/*
 * adopt.h - which nodes of this data directory run already, started by a supervisor that is gone.
 *
 * Called at the start of a supervisor and by the stop command, both with the supervisor's lock held.
 */
#ifndef GRIZZLY_SUPERVISOR_ADOPT_H
#define GRIZZLY_SUPERVISOR_ADOPT_H

#include "common/base/config.h"
#include "common/base/members.h"
#include "supervisor/launcher.h"
#include "supervisor/roster.h"

/* Fills processes[CONFIG_NODES_MAX] (PROCESS_NONE where none runs) and *roster (zero where nothing is recorded), looking
 * at run/supervisor.json first and then at who listens at run/node<i>.fd. Returns how many run. */
unsigned adopt_running(struct process *processes, struct roster *roster);
/* Is there a process, not known to us, that holds node n's socket (n from 0)? Then *out holds it. */
bool adopt_stranger(unsigned n, struct process *out);
/* DB_INVALID: a node runs that is not part of the configuration; it would serve behind everybody's back. Where the members
 * were changed since (version above 0), it is what a removal has left, and is ended by the cluster core. */
enum db_err adopt_check_surplus(const struct process *processes, const struct cluster_config *config,
				const struct members *members, struct errmsg *em);

#endif

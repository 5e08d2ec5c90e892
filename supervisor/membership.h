/*
 * membership.h - the number of nodes that a data directory was made for.
 *
 * Old and new majorities of clusters of different sizes need not overlap: with the number changed, an election could
 * pass over what was acknowledged. Until membership can be changed by a record in the log, a start with another number
 * is refused. Called at the start, with the supervisor's lock held.
 */
#ifndef GRIZZLY_SUPERVISOR_MEMBERSHIP_H
#define GRIZZLY_SUPERVISOR_MEMBERSHIP_H

#include "common/base/config.h"
#include "supervisor/coordinator.h"

/* Compares "replicas" with what the coordinator's file recorded; where it has not (files of before, or it was lost),
 * with the roster and the node directories, and then records the number. DB_INVALID names the key; DB_IO, DB_FULL. */
enum db_err membership_check(const struct cluster_config *config, struct coordinator *k,
			     struct coordinator_state *stored, struct errmsg *em);

#endif

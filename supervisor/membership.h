/*
 * membership.h - the number of nodes that a data directory was made for, and who its members are at a start.
 *
 * Old and new majorities of clusters of different sizes need not overlap: with the number changed by hand, an election
 * could pass over what was acknowledged, so a start with another number is refused. "replicas" in cluster.json stays what
 * it was in the beginning; who is a member now is in supervisor.term and in the log (supervisor/change.c). Called at the
 * start, with the supervisor's lock held.
 */
#ifndef GRIZZLY_SUPERVISOR_MEMBERSHIP_H
#define GRIZZLY_SUPERVISOR_MEMBERSHIP_H

#include "common/base/config.h"
#include "supervisor/coordinator.h"

/* Fills stored->members where they never changed. Compares "replicas" with what the coordinator's file recorded; where it has not (files of before, or it was lost),
 * with the roster and the node directories, and then records the number. DB_INVALID names the key; DB_IO, DB_FULL. */
enum db_err membership_check(const struct cluster_config *config, struct coordinator *k,
			     struct coordinator_state *stored, struct errmsg *em);

#endif

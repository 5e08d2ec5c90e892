/*
 * join.h - where a replica's log and the master's part ways.
 *
 * Records of one term all come from one master, so two logs that both hold records of a term agree on it up to the end of
 * the shorter one. The newest common term therefore gives the last common record without asking record by record (the
 * idea is Raft's log matching, with whole terms instead of single probes). Pure.
 */
#ifndef GRIZZLY_MASTER_JOIN_H
#define GRIZZLY_MASTER_JOIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wal/record.h"

/* One log as a history of terms: terms[i].lsn is the first LSN known of that term, oldest first. */
struct join_log {
	const struct wal_pos *terms;
	size_t term_count;
	uint64_t last_lsn;
};

/* The last LSN that both logs share: 0 when the replica's is empty. False: they share nothing, the replica needs a
 * snapshot. */
bool join_find(const struct join_log *master, const struct join_log *replica, uint64_t *lsn);

#endif

/*
 * commit.h - how far the log is safe.
 *
 * Owns the durable LSN of every voting node and derives committed_lsn. A pure core: no I/O, no clock, no lock.
 * master/replication.c calls it under its mutex: local syncs come from the sync thread, acks from the replicas.
 *
 * Invariants: (1) committed_lsn never goes back. (2) committed_lsn is durable on a quorum of every set of nodes that
 * counted when it moved: one set, or two while the members of the cluster change (common/base/members.h).
 * (3) Nothing commits before a record of our own term is durable on that many (Raft dissertation, 3.6.2).
 */
#ifndef GRIZZLY_MASTER_COMMIT_H
#define GRIZZLY_MASTER_COMMIT_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/members.h"

#define COMMIT_NODES_MAX 31

struct commit;

/* Starts tracking node_count nodes (1..COMMIT_NODES_MAX; node 0 is ourselves), ack_nodes (1..node_count) of which must hold
 * a record durably, in a term whose first record is term_start_lsn. DB_OK: *out is the caller's, for commit_free().
 * DB_INVALID, DB_NOMEM: *out is NULL, em says why. */
enum db_err commit_create(struct commit **out, size_t node_count, size_t ack_nodes, uint64_t term_start_lsn,
			  struct errmsg *em);
void commit_free(struct commit *c); /* NULL is fine */

/* From now on these sets count (1 or 2; each of nodes < node_count, with 1 <= acks <= its size). Returns committed_lsn,
 * which may move, for fewer nodes may have to hold a record than before. */
uint64_t commit_set_quorums(struct commit *c, const struct members_quorum *quorums, size_t count);

/* What node had told is void: another process of that number begins with nothing. */
void commit_forget(struct commit *c, size_t node);

/* Notes that node (< node_count) has every record up to durable_lsn on disk; returns committed_lsn, moved or not. */
uint64_t commit_on_durable(struct commit *c, size_t node, uint64_t durable_lsn);

uint64_t commit_lsn(const struct commit *c);
uint64_t commit_durable_lsn(const struct commit *c, size_t node);

#endif

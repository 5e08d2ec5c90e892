/*
 * retention.h - how much of the log a node keeps, and when those are cut off who hold more.
 *
 * The newest log.keep_bytes are always kept, for replicas that come back. More is kept as long as somebody needs it: a
 * replica that is behind (its walsender's cursor), a snapshot that is being sent, a backup, and the archive, which has yet
 * to copy it. That ends near log.max_bytes: before a full disk stops the writes of all, those who hold the oldest part are
 * cut off, down to log.keep_bytes or half of the cap, whichever is less. A replica then gets a snapshot, a backup is broken off,
 * and the archive has a hole, which it says.
 *
 * What a reader's snapshot or a checkpoint under way still needs cannot be given up: the former ends with its query's time.
 * Pure. Used by node/checkpointer.c.
 */
#ifndef GRIZZLY_NODE_RETENTION_H
#define GRIZZLY_NODE_RETENTION_H

#include <stdbool.h>
#include <stdint.h>

struct retention_policy {
	uint64_t keep_bytes;
	uint64_t max_bytes; /* >= keep_bytes and >= 4 segments: common/base/config.c sees to it */
	uint64_t segment_size_bytes;
};

/* Files may have so many bytes before somebody is cut off: what is written meanwhile has room below max_bytes. */
uint64_t retention_limit(const struct retention_policy *p);
/* How many bytes stay when somebody is. */
uint64_t retention_after_cut(const struct retention_policy *p);

struct retention_facts {
	uint64_t log_bytes;    /* of all files */
	uint64_t keep_lsn;     /* oldest LSN within keep_bytes */
	uint64_t cut_lsn;      /* oldest LSN within retention_after_cut() */
	bool archiving;        /* the log is archived */
	uint64_t archived_lsn; /* up to here */
};

struct retention_plan {
	uint64_t keep_lsn; /* nothing from here on is trimmed */
	bool over;         /* whoever holds a record below keep_lsn is to be cut off */
};

void retention_decide(const struct retention_policy *p, const struct retention_facts *f, struct retention_plan *out);

#endif

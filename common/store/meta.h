/*
 * meta.h - store.meta: what the base file holds, and whose database it is.
 *
 * A slotfile (common/base/slotfile.h) whose blob is, little-endian: magic u32 "GzM1", version u16, zero u16, cluster_id 16
 * bytes, checkpoint term, lsn, record checksum, database checksum, time in us (u64 each), size in pages u32, intent size
 * u32, intent lsn u64, hash of page 1 u64.
 *
 * Intent: before a checkpoint changes the base file it writes down how far it will go. Until it has finished, pages of the
 * base file may be newer than the checkpoint LSN, so after a crash no snapshot below intent_lsn may be read; every one at
 * or above it is right, for the log still has all records after the old checkpoint.
 */
#ifndef GRIZZLY_COMMON_STORE_META_H
#define GRIZZLY_COMMON_STORE_META_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slotfile.h"
#include "common/wal/record.h"

#define META_VERSION 1u /* bump when a field changes meaning; keep the old reader */

struct meta {
	uint8_t cluster_id[16];     /* all zero: not known yet */
	struct wal_pos checkpoint;  /* the base file holds everything up to here */
	uint64_t record_checksum;   /* of the record at checkpoint; 0 for a new database */
	uint64_t db_checksum;       /* at checkpoint */
	uint64_t time_us;           /* in the record at checkpoint */
	uint32_t db_size_pages;     /* at checkpoint */
	uint32_t intent_size_pages; /* at intent_lsn */
	uint64_t intent_lsn;        /* >= checkpoint.lsn; equal: no checkpoint was under way */
	uint64_t page1_hash;        /* of the base file at checkpoint: shows that another program wrote to it */
};

/* Opens or creates path. *found is false for a new file; then *m is all zero. DB_INVALID: a newer format. */
enum db_err meta_open(struct slotfile *f, const char *path, struct meta *m, bool *found, struct errmsg *em);
/* Durable on DB_OK. */
enum db_err meta_write(struct slotfile *f, const struct meta *m, struct errmsg *em);

#endif

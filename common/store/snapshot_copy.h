/*
 * snapshot_copy.h - a whole database from one node to another, at one LSN.
 *
 * The source pins the visible snapshot and hands out its pages; the target writes those that it cannot take from the old
 * store or from an earlier attempt into a new store beside the old one, checks the database checksum, and swaps the two
 * directories in one rename. After that the log of the new store begins
 * at header.pos.lsn + 1: the sender must keep its own log from there on until the receiver has joined.
 *
 * The target does not ask whether the copy is older than what it replaces: whoever puts an older one there must see to it
 * that the node does not count as a holder of records that it acknowledged before, until it has them again.
 *
 * A source belongs to one thread at a time; while it is open no checkpoint passes its LSN. A target that was given an open
 * store holds a source of it until it is complete or freed.
 */
#ifndef GRIZZLY_COMMON_STORE_SNAPSHOT_COPY_H
#define GRIZZLY_COMMON_STORE_SNAPSHOT_COPY_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/store/store.h"
#include "common/wal/record.h"

struct snapshot_header {
	struct wal_pos pos;
	uint64_t record_checksum; /* of the record at pos; 0 when pos is {0, 0} */
	uint64_t db_checksum;
	uint32_t db_size_pages;
	uint64_t time_us; /* wall clock in the record at pos; 0: not known */
};

struct snapshot_source;

/* Pins the visible snapshot. DB_NOMEM. On error *out is NULL. */
enum db_err snapshot_source_open(struct snapshot_source **out, struct store *s, struct errmsg *em);
void snapshot_source_close(struct snapshot_source *src); /* NULL is fine; before store_close() */
const struct snapshot_header *snapshot_source_header(const struct snapshot_source *src);
/* The image of pgno (1..db_size_pages), borrowed until the source is closed. */
const uint8_t *snapshot_source_page(const struct snapshot_source *src, uint32_t pgno);
/* That page's part of the database checksum. */
uint64_t snapshot_source_hash(const struct snapshot_source *src, uint32_t pgno);

struct snapshot_target;

/* Starts a store in "<dir>.incoming"; pages that an earlier attempt left there may be used again. old: the open store in
 * dir, whose pages may be used as well; NULL: none. header is input from outside: DB_CORRUPT when it makes no sense.
 * DB_INVALID: dir belongs to another cluster. */
enum db_err snapshot_target_create(struct snapshot_target **out, const char *dir, const struct snapshot_header *header,
				   const uint8_t cluster_id[16], struct store *old, struct errmsg *em);
/* Takes the pages first_pgno.. over whose hashes (count of 8 bytes, little-endian) are those of pages we have, and sets
 * bit i % 8 of want[i / 8] for each of the others. The hash is 64 bits of XXH3, which an accident does not forge and the
 * check of the whole database would not catch if it did. DB_CORRUPT: beyond the end. DB_FULL, DB_IO. */
enum db_err snapshot_target_compare(struct snapshot_target *t, uint32_t first_pgno, uint32_t count,
				    const uint8_t *hashes, uint8_t *want, struct errmsg *em);
/* Neighbouring pages that are still missing, len a multiple of WAL_PAGE_SIZE. DB_GAP: we have one of them.
 * DB_CORRUPT: beyond the end. DB_FULL, DB_IO. */
enum db_err snapshot_target_write(struct snapshot_target *t, uint32_t first_pgno, const uint8_t *bytes, size_t len,
				  struct errmsg *em);
/* How many pages are neither taken over nor written yet. */
uint32_t snapshot_target_missing(const struct snapshot_target *t);
/* Checks the copy and makes it durable: a store of its own, beside dir, which may still be open and is not looked at any
 * more. DB_CORRUPT: pages are missing or the checksum is wrong. */
enum db_err snapshot_target_complete(struct snapshot_target *t, struct errmsg *em);
/* Takes a small file of dir over into the copy, durably; DB_OK also when there is none. */
enum db_err snapshot_target_keep(struct snapshot_target *t, const char *name, struct errmsg *em);
/* Completes the copy, puts it in the place of dir, whose store must be closed (DB_BUSY otherwise), and removes what was
 * there. On any error dir is as it was, unless only the last sync of the directory's name failed (DB_IO); the target still
 * has to be freed. */
enum db_err snapshot_target_finish(struct snapshot_target *t, struct errmsg *em);
uint64_t snapshot_target_lsn(const struct snapshot_target *t); /* of the record that it stands for */
void snapshot_target_free(struct snapshot_target *t); /* NULL is fine; an unfinished copy stays for the next attempt */
/* Removes what an earlier attempt to replace dir left beside it, if anything. */
enum db_err snapshot_target_discard(const char *dir, struct errmsg *em);

#endif

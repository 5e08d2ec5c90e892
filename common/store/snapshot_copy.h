/*
 * snapshot_copy.h - a whole database from one node to another, at one LSN.
 *
 * The source pins the visible snapshot and hands out its pages; the target writes them into a new store beside the old one,
 * checks the database checksum, and swaps the two directories in one rename. After that the log of the new store begins
 * at header.pos.lsn + 1: the sender must keep its own log from there on until the receiver has joined.
 *
 * The target does not ask whether the copy is older than what it replaces: whoever puts an older one there must see to it
 * that the node does not count as a holder of records that it acknowledged before, until it has them again.
 *
 * A source belongs to one thread at a time; while it is open no checkpoint passes its LSN. A target needs no open store.
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
};

struct snapshot_source;

/* Pins the visible snapshot. DB_NOMEM. On error *out is NULL. */
enum db_err snapshot_source_open(struct snapshot_source **out, struct store *s, struct errmsg *em);
void snapshot_source_close(struct snapshot_source *src); /* NULL is fine; before store_close() */
const struct snapshot_header *snapshot_source_header(const struct snapshot_source *src);
/* The image of pgno (1..db_size_pages), borrowed until the source is closed. */
const uint8_t *snapshot_source_page(const struct snapshot_source *src, uint32_t pgno);

struct snapshot_target;

/* Starts a store in "<dir>.incoming" (what an earlier attempt left there is removed). header is input from outside: DB_CORRUPT
 * when it makes no sense. DB_INVALID: dir belongs to another cluster. */
enum db_err snapshot_target_create(struct snapshot_target **out, const char *dir, const struct snapshot_header *header,
				   const uint8_t cluster_id[16], struct errmsg *em);
/* Pages in order and without a gap, len a multiple of WAL_PAGE_SIZE. DB_GAP: first_pgno is not the next one.
 * DB_CORRUPT: more than the header said. DB_FULL, DB_IO. */
enum db_err snapshot_target_write(struct snapshot_target *t, uint32_t first_pgno, const uint8_t *bytes, size_t len,
				  struct errmsg *em);
/* The next page number wanted; db_size_pages + 1 when all are there. */
uint32_t snapshot_target_next_pgno(const struct snapshot_target *t);
/* Checks the copy and makes it durable: a store of its own, beside dir, which may still be open. DB_CORRUPT: pages are
 * missing or the checksum is wrong. */
enum db_err snapshot_target_complete(struct snapshot_target *t, struct errmsg *em);
/* Takes a small file of dir over into the copy, durably; DB_OK also when there is none. */
enum db_err snapshot_target_keep(struct snapshot_target *t, const char *name, struct errmsg *em);
/* Completes the copy and puts it in the place of dir, whose store must be closed (DB_BUSY otherwise). On any error dir is
 * as it was, unless only the last sync of the directory's name failed (DB_IO); the target still has to be freed. */
enum db_err snapshot_target_finish(struct snapshot_target *t, struct errmsg *em);
void snapshot_target_free(struct snapshot_target *t); /* NULL is fine; an unfinished copy is removed */

#endif

/*
 * store_internal.h - the body of struct store, for the files of common/store only.
 *
 * Who may touch what:
 *   owner    the thread of the writer connection or the walreceiver: overlay, seal_error, term, tip, diverged; it alone
 *            pushes to the page index.
 *   lock     the list of changes, `applied` (written by the owner under it, so the owner may read it without) and the
 *            byte counters. Held for a few instructions.
 *   checkpoint_lock  meta, base file writes, limbo; held through a checkpoint, and by store_cut().
 * Lock order: checkpoint_lock, lock.
 */
#ifndef GRIZZLY_COMMON_STORE_STORE_INTERNAL_H
#define GRIZZLY_COMMON_STORE_STORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/store/base_file.h"
#include "common/store/checksum.h"
#include "common/store/meta.h"
#include "common/store/overlay.h"
#include "common/store/page_index.h"
#include "common/store/snapshots.h"
#include "common/store/store.h"

struct vfs;
struct scratch;

/* What one record changed: the versions it put into the page index, and the state after it. */
struct change {
	struct change *next;       /* the record after; under lock while this is the last one */
	struct change *limbo_next; /* of the first change of a retired batch: the batch retired after it */
	uint64_t limbo_epoch;      /* of such a first change: may be freed once this epoch has drained */
	struct wal_pos pos;
	uint64_t checksum;      /* the record's */
	uint64_t db_checksum;   /* after it */
	uint64_t time_us;       /* wall clock of whoever wrote it */
	uint64_t log_bytes_end; /* bytes of this record and all before it since open */
	uint32_t db_size_pages; /* after it */
	uint32_t version_count;
	struct version versions[];
};

/* The database after the last record whose pages are indexed. */
struct applied {
	uint64_t lsn;
	uint64_t db_checksum;
	uint64_t time_us;
	uint32_t db_size_pages;
};

struct store {
	struct timings *timings; /* NULL: nobody counts */
	char *dir;               /* owned */
	char *tmp_dir;           /* owned; scratch files */
	uint64_t checkpoint_bytes;
	uint64_t transaction_bytes_max;
	struct wal *wal;
	struct page_index *index;
	struct base_file base;
	struct snapshots snapshots;
	struct vfs *vfs;

	pthread_mutex_t lock;
	struct change *first;     /* oldest record after the checkpoint; NULL: none */
	struct change *last;      /* record applied.lsn; NULL: that is the checkpoint's */
	struct change *committed; /* record visible_lsn; NULL: that is the checkpoint's */
	uint64_t overtaken_lsn;   /* committed before our seal had indexed it (store_publish_overtaken()); 0: none */
	struct applied applied;
	uint64_t log_bytes; /* of all records indexed since open */

	pthread_mutex_t checkpoint_lock;
	struct slotfile meta_file;
	struct meta meta;
	struct change *limbo_first; /* retired batches, oldest first, linked by limbo_next */
	struct change *limbo_last;
	_Atomic uint64_t checkpoint_lsn;
	_Atomic uint64_t visible_log_bytes;    /* log_bytes at visible_lsn */
	_Atomic uint64_t checkpoint_log_bytes; /* log_bytes at checkpoint_lsn */

	void (*on_visible)(void *arg); /* NULL: nobody wants to know */
	void *on_visible_arg;

	_Atomic uint64_t tip_lsn;
	uint64_t term;              /* owner */
	bool diverged;              /* owner: record applied.lsn + 1 contradicts our database */
	struct pin_slot *owner_pin; /* owner: for apply, cut and verify */
	struct overlay overlay;     /* owner */
	struct errmsg seal_error;   /* owner */
	struct scratch *journal;    /* owner: the writer connection's rollback journal while it is open; borrowed */
	bool writer_cache_stale;    /* owner: records came in that the writer connection did not write */
	_Atomic bool writer_open;
};

/* The image of pgno as of lsn; the caller holds a pin and knows that pgno is within the database at lsn. */
static inline const uint8_t *store_page(struct store *s, uint32_t pgno, uint64_t lsn)
{
	const struct version *v = page_index_find(s->index, pgno, lsn);

	return v != NULL ? v->data : base_file_page(&s->base, pgno);
}

/* The image at the tip and its hash. Owner thread, pinned; pgno is within the database. */
const uint8_t *store_tip_page(struct store *s, uint32_t pgno, uint64_t *hash);

/* store.c: makes *m the durable meta. Under checkpoint_lock. */
enum db_err store_write_meta(struct store *s, const struct meta *m, struct errmsg *em);

/* changes.c: the wall clock for the next record, but never before the last record's time. Owner. */
uint64_t store_record_time_us(struct store *s);

/* changes.c */
struct change *change_create(
    const struct wal_record *r); /* NULL: out of memory; a version per page, data not set yet */
void change_free_list(struct change *c, const struct change *end); /* c up to, not including, end */
/* Room in the page index for every page of c. DB_NOMEM. */
enum db_err change_reserve(struct store *s, const struct change *c);
/* Points c's versions at the images of r, which lie in the log, indexes them and moves applied on. Cannot fail after
 * change_reserve(). hashes: of the pages, or NULL to compute them when needed. Owner. */
void change_index(struct store *s, struct change *c, const struct wal_record *r, const uint64_t *hashes);
/* store.c: makes visible what store_set_committed() was told while the record was not indexed yet. */
void store_publish_overtaken(struct store *s);
/* The list of a batch that the index no longer reaches: frees it when every reader that might see it has left. Under
 * checkpoint_lock; first must not be linked elsewhere any more and ends with next == NULL. */
void limbo_add(struct store *s, struct change *first);
void limbo_reclaim(struct store *s);
uint64_t limbo_min_lsn(const struct store *s); /* oldest LSN that limbo still refers to; UINT64_MAX: none */

/* seal.c: turns the overlay into one record. Owner, pinned. On DB_OK the overlay is empty. On an error it is unchanged
 * and s->seal_error says why. */
enum db_err store_seal(struct store *s);

/* apply.c: what a record must fulfil beside its own checksum to be put on a database of size_pages. DB_CORRUPT. */
enum db_err store_check_record(const struct wal_record *r, uint32_t size_pages, struct errmsg *em);

/* vfs.c */
enum db_err vfs_create(struct vfs **out, struct store *s, struct errmsg *em);
void vfs_free(struct vfs *v); /* NULL is fine */

#endif

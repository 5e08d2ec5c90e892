/*
 * page_index.h - from a page number to the page's versions in the log, newest first.
 *
 * A two-level array of atomic chain heads; readers walk it without a lock while one owner pushes newer versions and one
 * checkpointer cuts off the old ends of chains. Versions live inside a struct change (one per log record); the index
 * never frees them: whoever unlinks a version waits until no reader can still see it (common/store/snapshots.h).
 *
 * Invariants: (1) lsn falls strictly along a chain. (2) A version's fields do not change once it is pushed, but for
 * `older`, which only ever becomes NULL, and `hash`, which is the owner's alone. (3) Leaves are never freed before the
 * index is. (4) One pusher at a time; drop_upto and drop_after exclude each other (store.checkpoint_lock).
 */
#ifndef GRIZZLY_COMMON_STORE_PAGE_INDEX_H
#define GRIZZLY_COMMON_STORE_PAGE_INDEX_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/base/err.h"

#define PAGE_INDEX_PGNO_MAX ((uint32_t)1 << 28) /* 1 TiB of 4 KiB pages */

#define PAGE_INDEX_LEAF_PAGES ((uint32_t)1 << 14) /* pages that one leaf covers */

/* One page as one record wrote it. */
struct version {
	struct version *_Atomic older; /* the next older version, NULL: the base file has what is older */
	const uint8_t *data;           /* the image, in the mmapped log segment */
	uint64_t lsn;                  /* of the record */
	uint64_t hash;                 /* checksum_page(); 0: not computed yet. Owner thread only */
	uint32_t pgno;
};

struct page_index;

struct page_index *page_index_create(void);  /* NULL: out of memory */
void page_index_free(struct page_index *ix); /* NULL is fine; does not touch versions */

/* The newest version with lsn <= max_lsn; NULL: none. 1 <= pgno <= PAGE_INDEX_PGNO_MAX. Any thread that holds a pin. */
struct version *page_index_find(struct page_index *ix, uint32_t pgno, uint64_t max_lsn);

/* Makes room for pgno, so that the push cannot fail. Owner thread. DB_NOMEM. */
enum db_err page_index_reserve(struct page_index *ix, uint32_t pgno);
/* Makes v the newest version of v->pgno (reserved before; v->lsn above every other). Owner thread. */
void page_index_push(struct page_index *ix, struct version *v);

/* Unlinks every version of pgno with lsn <= max_lsn. Checkpointer. */
void page_index_drop_upto(struct page_index *ix, uint32_t pgno, uint64_t max_lsn);
/* Unlinks every version of pgno with lsn > keep_lsn. Owner thread, with no checkpoint running. */
void page_index_drop_after(struct page_index *ix, uint32_t pgno, uint64_t keep_lsn);

#endif

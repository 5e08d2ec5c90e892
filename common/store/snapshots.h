/*
 * snapshots.h - which state of the database new readers get, who still reads an older one, and when memory that was
 * taken out of the page index may be reused.
 *
 * Pinning takes no lock: a reader stores the visible LSN in its own slot and checks that it still is the visible one. The
 * checkpointer reads the visible LSN first and the slots second, so it either sees the slot, or the reader sees a
 * visible LSN at least as high as the checkpointer did. The idea of the reader table is LMDB's.
 *
 * Reclaiming goes by epochs: a slot says in which epoch it was pinned. After unlinking something the checkpointer calls
 * snapshots_retire() and may free it once snapshots_drained() says that everybody pinned in that epoch or before is gone.
 *
 * Threads: publish: one at a time; pin/unpin: the slot's user; the rest: any.
 */
#ifndef GRIZZLY_COMMON_STORE_SNAPSHOTS_H
#define GRIZZLY_COMMON_STORE_SNAPSHOTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A state of the database: everything up to lsn. */
struct snapshot {
	uint64_t lsn;
	uint32_t db_size_pages;
};

struct pin_slot;

struct snapshots {
	_Atomic uint64_t sequence; /* odd while visible_* change */
	_Atomic uint64_t visible_lsn;
	_Atomic uint32_t visible_size_pages;
	_Atomic uint64_t epoch;         /* >= 1 */
	struct pin_slot *_Atomic slots; /* every slot ever made; freed by snapshots_fini() */
};

void snapshots_init(struct snapshots *sn);
void snapshots_fini(struct snapshots *sn); /* every slot must have been released */

struct pin_slot *snapshots_slot_acquire(struct snapshots *sn); /* NULL: out of memory */
void snapshots_slot_release(struct pin_slot *slot);            /* NULL is fine; unpins */

void snapshots_publish(struct snapshots *sn, struct snapshot visible); /* lsn >= the one before */
struct snapshot snapshots_visible(struct snapshots *sn);

/* Pins the visible snapshot and returns it. */
struct snapshot snapshots_pin(struct snapshots *sn, struct pin_slot *slot);
/* Keeps what the index holds from being freed, without holding back checkpoints: for the owner, who reads the tip. */
void snapshots_pin_memory(struct snapshots *sn, struct pin_slot *slot);
void snapshots_unpin(struct pin_slot *slot);

uint64_t snapshots_oldest_lsn(struct snapshots *sn); /* UINT64_MAX: none is pinned */

uint64_t snapshots_retire(struct snapshots *sn); /* the epoch that must drain */
bool snapshots_drained(struct snapshots *sn, uint64_t epoch);

#endif

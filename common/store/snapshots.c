/* snapshots.c - see snapshots.h. All atomics here are sequentially consistent: the proofs need a single order of pin,
 * publish, unlink and scan. */
#include "common/store/snapshots.h"

#include <assert.h>
#include <stdlib.h>

struct pin_slot {
	_Alignas(64) _Atomic uint64_t lsn; /* UINT64_MAX: no snapshot is held */
	_Atomic uint64_t epoch;            /* 0: not pinned */
	_Atomic bool in_use;
	struct pin_slot *next; /* set before the slot is published */
};

void snapshots_init(struct snapshots *sn)
{
	atomic_init(&sn->sequence, 0);
	atomic_init(&sn->visible_lsn, 0);
	atomic_init(&sn->visible_size_pages, 0);
	atomic_init(&sn->epoch, 1);
	atomic_init(&sn->slots, NULL);
}

void snapshots_fini(struct snapshots *sn)
{
	struct pin_slot *slot = atomic_load(&sn->slots), *next;

	for (; slot != NULL; slot = next) {
		assert(!atomic_load(&slot->in_use)); /* a connection outlives its store */
		next = slot->next;
		free(slot);
	}
	atomic_store(&sn->slots, NULL);
}

struct pin_slot *snapshots_slot_acquire(struct snapshots *sn)
{
	struct pin_slot *slot;
	bool free_slot;

	for (slot = atomic_load(&sn->slots); slot != NULL; slot = slot->next) {
		free_slot = false;
		if (atomic_compare_exchange_strong(&slot->in_use, &free_slot, true))
			return slot;
	}
	slot = aligned_alloc(64, sizeof(*slot));
	if (slot == NULL)
		return NULL;
	atomic_init(&slot->lsn, UINT64_MAX);
	atomic_init(&slot->epoch, 0);
	atomic_init(&slot->in_use, true);
	slot->next = atomic_load(&sn->slots);
	while (!atomic_compare_exchange_weak(&sn->slots, &slot->next, slot))
		;
	return slot;
}

void snapshots_slot_release(struct pin_slot *slot)
{
	if (slot == NULL)
		return;
	snapshots_unpin(slot);
	atomic_store(&slot->in_use, false);
}

void snapshots_publish(struct snapshots *sn, struct snapshot visible)
{
	assert(visible.lsn >= atomic_load(&sn->visible_lsn));
	atomic_fetch_add(&sn->sequence, 1);
	atomic_store(&sn->visible_lsn, visible.lsn);
	atomic_store(&sn->visible_size_pages, visible.db_size_pages);
	atomic_fetch_add(&sn->sequence, 1);
}

struct snapshot snapshots_visible(struct snapshots *sn)
{
	struct snapshot visible;
	uint64_t sequence;

	do {
		sequence = atomic_load(&sn->sequence);
		visible.lsn = atomic_load(&sn->visible_lsn);
		visible.db_size_pages = atomic_load(&sn->visible_size_pages);
	} while (sequence % 2 != 0 || sequence != atomic_load(&sn->sequence));
	return visible;
}

struct snapshot snapshots_pin(struct snapshots *sn, struct pin_slot *slot)
{
	struct snapshot visible;
	uint64_t sequence;

	/* An epoch that is already over when the slot shows it only delays a free; see snapshots_drained(). */
	atomic_store(&slot->epoch, atomic_load(&sn->epoch));
	do {
		sequence = atomic_load(&sn->sequence);
		visible.lsn = atomic_load(&sn->visible_lsn);
		visible.db_size_pages = atomic_load(&sn->visible_size_pages);
		atomic_store(&slot->lsn, visible.lsn);
	} while (sequence % 2 != 0 || sequence != atomic_load(&sn->sequence));
	return visible;
}

void snapshots_pin_memory(struct snapshots *sn, struct pin_slot *slot)
{
	atomic_store(&slot->epoch, atomic_load(&sn->epoch));
}

void snapshots_unpin(struct pin_slot *slot)
{
	atomic_store_explicit(&slot->lsn, UINT64_MAX, memory_order_release);
	atomic_store_explicit(&slot->epoch, 0, memory_order_release);
}

uint64_t snapshots_oldest_lsn(struct snapshots *sn)
{
	struct pin_slot *slot;
	uint64_t oldest = UINT64_MAX, lsn;

	for (slot = atomic_load(&sn->slots); slot != NULL; slot = slot->next) {
		lsn = atomic_load(&slot->lsn);
		if (lsn < oldest)
			oldest = lsn;
	}
	return oldest;
}

uint64_t snapshots_retire(struct snapshots *sn)
{
	return atomic_fetch_add(&sn->epoch, 1);
}

bool snapshots_drained(struct snapshots *sn, uint64_t epoch)
{
	struct pin_slot *slot;
	uint64_t pinned;

	/* A slot not seen here is published after this scan, hence after the unlinking: its user finds the new heads. */
	for (slot = atomic_load(&sn->slots); slot != NULL; slot = slot->next) {
		pinned = atomic_load(&slot->epoch);
		if (pinned != 0 && pinned <= epoch)
			return false;
	}
	return true;
}

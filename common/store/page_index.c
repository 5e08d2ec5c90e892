/*
 * page_index.c - see page_index.h.
 *
 * Heads are read and written with sequentially consistent order: a reader publishes its pin and then loads heads, the
 * checkpointer unlinks and then looks for pins, and one of the two must see the other (snapshots.c relies on it). On
 * x86 such a load costs nothing extra.
 */
#include "common/store/page_index.h"

#include <assert.h>
#include <stdlib.h>

#define LEAF_BITS 14
#define LEAF_SIZE PAGE_INDEX_LEAF_PAGES
#define ROOT_SIZE ((PAGE_INDEX_PGNO_MAX >> LEAF_BITS) + 1)

_Static_assert(LEAF_SIZE == (uint32_t)1 << LEAF_BITS, "a leaf has one head for each value of its bits");

typedef struct version *_Atomic version_head;

struct page_index {
	version_head *_Atomic root[ROOT_SIZE]; /* each NULL or LEAF_SIZE heads */
};

struct page_index *page_index_create(void)
{
	return calloc(1, sizeof(struct page_index));
}

void page_index_free(struct page_index *ix)
{
	uint32_t i;

	if (ix == NULL)
		return;
	for (i = 0; i < ROOT_SIZE; i++)
		free(atomic_load_explicit(&ix->root[i], memory_order_relaxed));
	free(ix);
}

static version_head *head_of(struct page_index *ix, uint32_t pgno)
{
	version_head *leaf = atomic_load_explicit(&ix->root[pgno >> LEAF_BITS], memory_order_acquire);

	return leaf == NULL ? NULL : &leaf[pgno & (LEAF_SIZE - 1)];
}

struct version *page_index_find(struct page_index *ix, uint32_t pgno, uint64_t max_lsn)
{
	version_head *head = head_of(ix, pgno);
	struct version *v;

	if (head == NULL)
		return NULL;
	v = atomic_load(head);
	while (v != NULL && v->lsn > max_lsn)
		v = atomic_load_explicit(&v->older, memory_order_acquire);
	return v;
}

enum db_err page_index_reserve(struct page_index *ix, uint32_t pgno)
{
	version_head *leaf;

	assert(pgno >= 1 && pgno <= PAGE_INDEX_PGNO_MAX);
	if (head_of(ix, pgno) != NULL)
		return DB_OK;
	leaf = calloc(LEAF_SIZE, sizeof(*leaf));
	if (leaf == NULL)
		return DB_NOMEM;
	atomic_store_explicit(&ix->root[pgno >> LEAF_BITS], leaf, memory_order_release);
	return DB_OK;
}

void page_index_push(struct page_index *ix, struct version *v)
{
	version_head *head = head_of(ix, v->pgno);
	struct version *newest;

	assert(head != NULL);
	newest = atomic_load(head);
	/* Fails only when the checkpointer emptied the chain in between. */
	do {
		assert(newest == NULL || newest->lsn < v->lsn); /* (1) */
		atomic_store_explicit(&v->older, newest, memory_order_relaxed);
	} while (!atomic_compare_exchange_weak(head, &newest, v));
}

void page_index_drop_upto(struct page_index *ix, uint32_t pgno, uint64_t max_lsn)
{
	version_head *head = head_of(ix, pgno);
	struct version *v, *older;

	if (head == NULL)
		return;
	v = atomic_load(head);
	while (v != NULL && v->lsn <= max_lsn)
		if (atomic_compare_exchange_weak(head, &v, NULL))
			return;
	/* A newer version stands before the ones to drop (or was pushed just now); only we change `older`. */
	while (v != NULL) {
		older = atomic_load(&v->older);
		if (older != NULL && older->lsn <= max_lsn) {
			atomic_store(&v->older, NULL);
			return;
		}
		v = older;
	}
}

void page_index_drop_after(struct page_index *ix, uint32_t pgno, uint64_t keep_lsn)
{
	version_head *head = head_of(ix, pgno);
	struct version *v;

	if (head == NULL)
		return;
	v = atomic_load(head);
	while (v != NULL && v->lsn > keep_lsn)
		v = atomic_load(&v->older);
	atomic_store(head, v);
}

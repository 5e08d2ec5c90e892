/*
 * changes.c - the records after the checkpoint, their page versions, and the way these leave memory.
 *
 * A change is made by the owner (seal, apply, recovery), stands in the list first..last while its versions are in the page
 * index, and goes to limbo when a checkpoint has copied them to the base file or store_cut() has removed the record.
 * Limbo is freed in batches, by the checkpointer, once nobody who was pinned at the time is left.
 */
#include "common/store/store_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"

uint64_t store_record_time_us(struct store *s)
{
	uint64_t now_us = clock_wall_us();

	return now_us > s->applied.time_us ? now_us : s->applied.time_us; /* somebody may have set the clock back */
}

struct change *change_create(const struct wal_record *r)
{
	struct change *c = malloc(sizeof(*c) + r->page_count * sizeof(c->versions[0]));

	if (c == NULL)
		return NULL;
	memset(c, 0, sizeof(*c));
	c->pos.term = r->term;
	c->pos.lsn = r->lsn;
	c->checksum = r->checksum;
	c->db_checksum = r->db_checksum;
	c->time_us = r->time_us;
	c->db_size_pages = r->db_size_pages;
	c->version_count = r->page_count;
	return c;
}

void change_free_list(struct change *c, const struct change *end)
{
	struct change *next;

	for (; c != end; c = next) {
		next = c->next;
		free(c);
	}
}

enum db_err change_reserve(struct store *s, const struct change *c)
{
	uint32_t pgno;

	/* Pages ascend to db_size_pages at most; a leaf covers thousands of them. */
	for (pgno = 1; pgno <= c->db_size_pages; pgno += PAGE_INDEX_LEAF_PAGES)
		if (page_index_reserve(s->index, pgno) != DB_OK)
			return DB_NOMEM;
	return page_index_reserve(s->index, c->db_size_pages == 0 ? 1 : c->db_size_pages);
}

void change_index(struct store *s, struct change *c, const struct wal_record *r, const uint64_t *hashes)
{
	struct version *v;
	uint32_t i;

	for (i = 0; i < c->version_count; i++) {
		v = &c->versions[i];
		atomic_init(&v->older, NULL);
		v->data = wal_record_page(r, i);
		v->lsn = c->pos.lsn;
		v->hash = hashes == NULL ? 0 : hashes[i];
		v->pgno = wal_record_pgno(r, i);
		page_index_push(s->index, v);
	}
	pthread_mutex_lock(&s->lock);
	assert(c->pos.lsn == s->applied.lsn + 1);
	s->log_bytes += wal_record_size(c->version_count);
	c->log_bytes_end = s->log_bytes;
	if (s->last == NULL)
		s->first = c;
	else
		s->last->next = c;
	s->last = c;
	s->applied.lsn = c->pos.lsn;
	s->applied.db_checksum = c->db_checksum;
	s->applied.time_us = c->time_us;
	s->applied.db_size_pages = c->db_size_pages;
	pthread_mutex_unlock(&s->lock);
}

const uint8_t *store_tip_page(struct store *s, uint32_t pgno, uint64_t *hash)
{
	struct version *v = page_index_find(s->index, pgno, UINT64_MAX);
	const uint8_t *page;

	if (v == NULL) {
		page = base_file_page(&s->base, pgno);
		*hash = checksum_page(pgno, page);
		return page;
	}
	if (v->hash == 0)
		v->hash = checksum_page(pgno, v->data);
	*hash = v->hash;
	return v->data;
}

void limbo_add(struct store *s, struct change *first)
{
	first->limbo_next = NULL;
	first->limbo_epoch = snapshots_retire(&s->snapshots);
	if (s->limbo_last == NULL)
		s->limbo_first = first;
	else
		s->limbo_last->limbo_next = first;
	s->limbo_last = first;
}

void limbo_reclaim(struct store *s)
{
	struct change *batch;

	while ((batch = s->limbo_first) != NULL && snapshots_drained(&s->snapshots, batch->limbo_epoch)) {
		s->limbo_first = batch->limbo_next;
		if (s->limbo_first == NULL)
			s->limbo_last = NULL;
		change_free_list(batch, NULL);
	}
}

uint64_t limbo_min_lsn(const struct store *s)
{
	const struct change *batch;
	uint64_t lsn = UINT64_MAX;

	for (batch = s->limbo_first; batch != NULL; batch = batch->limbo_next)
		if (batch->pos.lsn < lsn)
			lsn = batch->pos.lsn;
	return lsn;
}

/*
 * checkpoint.c - the log's committed pages go to the base file, and old records go away.
 *
 * Runs on the checkpointer's thread under checkpoint_lock. The target is the lowest of: the visible LSN, the oldest pinned
 * snapshot, and what this node has synced. Each page with versions up to the target gets the newest of them written to
 * the base file; then those versions leave the index.
 *
 * Why nobody sees a page change under them: a page that is written has a version v <= target. A reader at snapshot
 * S >= target finds a version at or above v in the index, not the base page; a reader at S < target does not exist, and
 * none can appear, for new ones pin visible_lsn >= target. After the versions are unlinked, readers find the base page,
 * which says the same by then. Likewise for the tail that is cut off: a page at or below S's size that has no version up
 * to S was never cut (seal.c (1)).
 *
 * Crash safety: meta says the intent before the first write and the new checkpoint after the sync; in between, the log
 * still holds every record after the old checkpoint, and recovery starts at the intent (meta.h). If anything fails here
 * the old checkpoint stands and the next attempt writes at least the same pages again.
 */
#include "common/store/store_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"

struct page_version {
	uint32_t pgno;
	uint64_t lsn;
	const uint8_t *data;
};

struct checkpoint {
	struct store *s;
	uint64_t target_lsn;
	struct change *first; /* the changes first..target become part of the base file */
	struct change *target;
	struct base_write *writes; /* one per page, ascending */
	size_t write_count;
};

static int by_pgno_newest_first(const void *a, const void *b)
{
	const struct page_version *x = a, *y = b;

	if (x->pgno != y->pgno)
		return x->pgno < y->pgno ? -1 : 1;
	return x->lsn > y->lsn ? -1 : x->lsn < y->lsn;
}

/* visible first, pins second: snapshots.h says why. */
static uint64_t target_lsn(struct store *s)
{
	uint64_t lsn = store_visible_lsn(s), durable = wal_durable_lsn(s->wal),
		 oldest = snapshots_oldest_lsn(&s->snapshots);

	if (durable < lsn)
		lsn = durable;
	return oldest < lsn ? oldest : lsn;
}

/* Walks without the lock: the links up to a visible record were set before it became visible. */
static void find_changes(struct checkpoint *cp)
{
	struct store *s = cp->s;

	pthread_mutex_lock(&s->lock);
	cp->first = s->first;
	pthread_mutex_unlock(&s->lock);
	for (cp->target = cp->first; cp->target->pos.lsn < cp->target_lsn; cp->target = cp->target->next)
		;
	assert(cp->target->pos.lsn == cp->target_lsn);
}

/* The newest version up to the target of every page that has one and still exists then. */
static enum db_err collect_writes(struct checkpoint *cp, struct errmsg *em)
{
	struct page_version *versions;
	const struct change *c;
	size_t count = 0, n = 0, i;
	uint32_t k;

	for (c = cp->first;; c = c->next) {
		count += c->version_count;
		if (c == cp->target)
			break;
	}
	versions = malloc((count + 1) * sizeof(*versions));
	cp->writes = malloc((count + 1) * sizeof(*cp->writes));
	if (versions == NULL || cp->writes == NULL) {
		free(versions);
		return errmsg_set(em, DB_NOMEM, "no memory for a checkpoint of %zu pages", count);
	}
	for (c = cp->first;; c = c->next) {
		for (k = 0; k < c->version_count; k++)
			versions[n++] = (struct page_version){
			    .pgno = c->versions[k].pgno, .lsn = c->pos.lsn, .data = c->versions[k].data};
		if (c == cp->target)
			break;
	}
	qsort(versions, n, sizeof(*versions), by_pgno_newest_first);
	for (i = 0; i < n; i++)
		if ((i == 0 || versions[i].pgno != versions[i - 1].pgno) &&
		    versions[i].pgno <= cp->target->db_size_pages)
			cp->writes[cp->write_count++] =
			    (struct base_write){.pgno = versions[i].pgno, .data = versions[i].data};
	free(versions);
	return DB_OK;
}

static enum db_err write_intent(struct checkpoint *cp, struct errmsg *em)
{
	struct store *s = cp->s;
	struct meta m = s->meta;

	assert(cp->target_lsn >= m.intent_lsn); /* no snapshot below an earlier intent can be pinned any more */
	if (cp->target_lsn == m.intent_lsn)
		return DB_OK;
	m.intent_lsn = cp->target_lsn;
	m.intent_size_pages = cp->target->db_size_pages;
	return store_write_meta(s, &m, em);
}

static enum db_err write_base(struct checkpoint *cp, struct errmsg *em)
{
	struct store *s = cp->s;
	enum db_err err;

	err = base_file_write(&s->base, cp->writes, cp->write_count, em);
	if (err == DB_OK)
		err = base_file_resize(&s->base, cp->target->db_size_pages, em);
	if (err == DB_OK)
		err = base_file_sync(&s->base, em);
	return err;
}

static enum db_err write_meta(struct checkpoint *cp, struct errmsg *em)
{
	struct store *s = cp->s;
	const struct change *c = cp->target;
	struct meta m = s->meta;

	m.checkpoint = c->pos;
	m.record_checksum = c->checksum;
	m.db_checksum = c->db_checksum;
	m.time_us = c->time_us;
	m.db_size_pages = c->db_size_pages;
	m.intent_lsn = c->pos.lsn;
	m.intent_size_pages = c->db_size_pages;
	m.page1_hash = c->db_size_pages == 0 ? 0 : checksum_page(1, base_file_page(&s->base, 1));
	return store_write_meta(s, &m, em);
}

/* The versions are in the base file: out of the index with them, and into limbo until their readers have left. */
static void retire_versions(struct checkpoint *cp)
{
	struct store *s = cp->s;
	const struct change *c;
	uint32_t i;

	atomic_store(&s->checkpoint_lsn, cp->target_lsn);
	atomic_store(&s->checkpoint_log_bytes, cp->target->log_bytes_end);
	for (c = cp->first;; c = c->next) {
		for (i = 0; i < c->version_count; i++)
			page_index_drop_upto(s->index, c->versions[i].pgno, cp->target_lsn);
		if (c == cp->target)
			break;
	}
	pthread_mutex_lock(&s->lock);
	s->first = cp->target->next;
	if (s->last == cp->target)
		s->last = NULL;
	if (s->committed == cp->target)
		s->committed = NULL;
	cp->target->next = NULL;
	pthread_mutex_unlock(&s->lock);
	limbo_add(s, cp->first);
}

/* What neither recovery, nor walsenders, nor anybody who was pinned before versions were retired can still need. */
static void trim_log(struct store *s, uint64_t keep_lsn)
{
	uint64_t limbo;

	limbo_reclaim(s);
	limbo = limbo_min_lsn(s);
	if (s->meta.checkpoint.lsn + 1 < keep_lsn)
		keep_lsn = s->meta.checkpoint.lsn + 1;
	if (limbo < keep_lsn)
		keep_lsn = limbo;
	wal_trim(s->wal, keep_lsn);
	/* Of the rest, the database no longer reads what the base file holds; it must not fill the memory for that. */
	wal_release(s->wal, s->meta.checkpoint.lsn + 1);
}

static enum db_err advance(struct checkpoint *cp, struct errmsg *em)
{
	enum db_err err;

	find_changes(cp);
	err = collect_writes(cp, em);
	if (err == DB_OK)
		err = write_intent(cp, em);
	if (err == DB_OK)
		err = write_base(cp, em);
	if (err == DB_OK)
		err = write_meta(cp, em);
	if (err == DB_OK) {
		log_debug("store checkpoint_lsn=%" PRIu64 " pages=%zu", cp->target_lsn, cp->write_count);
		retire_versions(cp);
	}
	free(cp->writes);
	return err;
}

bool store_checkpoint_due(struct store *s)
{
	return atomic_load(&s->visible_log_bytes) - atomic_load(&s->checkpoint_log_bytes) >= s->checkpoint_bytes;
}

enum db_err store_checkpoint(struct store *s, uint64_t keep_lsn, struct errmsg *em)
{
	struct checkpoint cp = {.s = s};
	enum db_err err = DB_OK;

	pthread_mutex_lock(&s->checkpoint_lock);
	cp.target_lsn = target_lsn(s);
	if (cp.target_lsn > s->meta.checkpoint.lsn)
		err = advance(&cp, em);
	if (err == DB_OK)
		trim_log(s, keep_lsn);
	pthread_mutex_unlock(&s->checkpoint_lock);
	return err;
}

/*
 * apply.c - records that another node wrote: appended, applied, or cut off again; and the checksum from scratch.
 *
 * Everything here is the owner's, the walreceiver of a replica, except store_verify(). A record is input from outside:
 * whatever is wrong with it is an error, never an assert.
 */
#include "common/store/store_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"

/* Pages of (low, high] that a record must hold when it grows the database from low to high pages. */
static uint32_t pages_added(uint32_t low, uint32_t high)
{
	if (high <= low)
		return 0;
	return high - low - (low < LOCK_BYTE_PGNO && LOCK_BYTE_PGNO <= high);
}

enum db_err store_check_record(const struct wal_record *r, uint32_t size_pages, struct errmsg *em)
{
	uint32_t i, added = 0, pgno;

	if (r->db_size_pages > PAGE_INDEX_PGNO_MAX)
		return errmsg_set(em, DB_CORRUPT, "record %" PRIu64 ": a database of %u pages", r->lsn,
				  r->db_size_pages);
	if (r->type != WAL_PAGES && (r->page_count != 0 || r->db_size_pages != size_pages))
		return errmsg_set(em, DB_CORRUPT, "record %" PRIu64 ": a term start that changes pages", r->lsn);
	for (i = r->page_count; i > 0; i--) {
		pgno = wal_record_pgno(r, i - 1);
		if (pgno == LOCK_BYTE_PGNO)
			return errmsg_set(em, DB_CORRUPT, "record %" PRIu64 ": holds the lock-byte page", r->lsn);
		added += pgno > size_pages;
	}
	if (added != pages_added(size_pages, r->db_size_pages))
		return errmsg_set(em, DB_CORRUPT,
				  "record %" PRIu64 ": grows the database from %u to %u pages with %u pages", r->lsn,
				  size_pages, r->db_size_pages, added);
	return DB_OK;
}

enum db_err store_append_record(struct store *s, const uint8_t *bytes, size_t len, struct errmsg *em)
{
	struct wal_record r, appended;
	struct iovec piece;
	struct wal_pos tip = wal_last(s->wal);
	enum db_err err;

	err = wal_record_decode(&r, bytes, len, em);
	if (err != DB_OK)
		return errmsg_set(em, DB_CORRUPT, "not a record: %s", em == NULL ? "bad bytes" : em->text);
	if (len != WAL_RECORD_HEADER_SIZE + r.payload_len)
		return errmsg_set(em, DB_CORRUPT, "record %" PRIu64 ": %zu bytes, %" PRIu64 " expected", r.lsn, len,
				  WAL_RECORD_HEADER_SIZE + r.payload_len);
	if (r.lsn != tip.lsn + 1)
		return errmsg_set(em, DB_GAP, "record %" PRIu64 " does not follow %" PRIu64, r.lsn, tip.lsn);
	if (r.prev_checksum != wal_last_checksum(s->wal))
		return errmsg_set(em, DB_GAP, "record %" PRIu64 " follows another record %" PRIu64 " than ours", r.lsn,
				  tip.lsn);
	if (r.term < tip.term)
		return errmsg_set(em, DB_STALE_TERM, "record %" PRIu64 " is of term %" PRIu64 ", ours of %" PRIu64,
				  r.lsn, r.term, tip.term);
	piece = (struct iovec){.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};
	err = wal_append(s->wal, &piece, 1, &appended, em);
	if (err == DB_OK)
		atomic_store(&s->tip_lsn, r.lsn);
	return err;
}

/* Hashes the record's pages into hashes and returns what the database checksum is after it. */
static uint64_t checksum_after(struct store *s, const struct wal_record *r, uint64_t *hashes)
{
	uint64_t checksum = s->applied.db_checksum, old_hash;
	uint32_t i, pgno;

	for (i = 0; i < r->page_count; i++) {
		pgno = wal_record_pgno(r, i);
		hashes[i] = checksum_page(pgno, wal_record_page(r, i));
		checksum ^= hashes[i];
		if (pgno <= s->applied.db_size_pages) {
			store_tip_page(s, pgno, &old_hash);
			checksum ^= old_hash;
		}
	}
	for (pgno = r->db_size_pages + 1; pgno <= s->applied.db_size_pages; pgno++) {
		store_tip_page(s, pgno, &old_hash);
		checksum ^= old_hash;
	}
	return checksum;
}

/* Pinned. */
static enum db_err apply_record(struct store *s, uint64_t lsn, struct errmsg *em)
{
	struct wal_record r;
	struct change *c = NULL;
	uint64_t *hashes = NULL, checksum;
	enum db_err err;

	err = wal_read(s->wal, lsn, &r, em);
	if (err == DB_OK)
		err = store_check_record(&r, s->applied.db_size_pages, em);
	if (err != DB_OK)
		return err;
	c = change_create(&r);
	hashes = malloc((r.page_count + 1) * sizeof(*hashes));
	if (c == NULL || hashes == NULL || change_reserve(s, c) != DB_OK) {
		err = errmsg_set(em, DB_NOMEM, "no memory to apply record %" PRIu64, lsn);
		goto out;
	}
	checksum = checksum_after(s, &r, hashes);
	if (checksum != r.db_checksum) {
		s->diverged = true;
		err = errmsg_set(em, DB_DIVERGED,
				 "record %" PRIu64 ": database checksum %016" PRIx64 " here, %016" PRIx64
				 " at its writer",
				 lsn, checksum, r.db_checksum);
		goto out;
	}
	change_index(s, c, &r, hashes);
	s->writer_cache_stale = true;
	c = NULL;
out:
	free(hashes);
	free(c);
	return err;
}

enum db_err store_apply(struct store *s, uint64_t lsn, struct errmsg *em)
{
	enum db_err err = DB_OK;

	if (lsn > store_tip_lsn(s))
		return errmsg_set(em, DB_INVALID, "record %" PRIu64 " cannot be applied, the log ends at %" PRIu64, lsn,
				  store_tip_lsn(s));
	if (s->diverged)
		return errmsg_set(em, DB_DIVERGED, "record %" PRIu64 " does not fit this database", s->applied.lsn + 1);
	snapshots_pin_memory(&s->snapshots, s->owner_pin);
	while (err == DB_OK && s->applied.lsn < lsn)
		err = apply_record(s, s->applied.lsn + 1, em);
	snapshots_unpin(s->owner_pin);
	return err;
}

/* Takes the changes after keep_lsn out of the list and the index. Under checkpoint_lock. */
static void unindex_after(struct store *s, uint64_t keep_lsn)
{
	struct change *keep = NULL, *c, *cut;
	uint32_t i;

	pthread_mutex_lock(&s->lock);
	for (c = s->first; c != NULL && c->pos.lsn <= keep_lsn; c = c->next)
		keep = c;
	cut = c;
	if (keep == NULL)
		s->first = NULL;
	else
		keep->next = NULL;
	s->last = keep;
	s->applied = keep == NULL ? (struct applied){.lsn = s->meta.checkpoint.lsn,
						     .db_checksum = s->meta.db_checksum,
						     .time_us = s->meta.time_us,
						     .db_size_pages = s->meta.db_size_pages}
				  : (struct applied){.lsn = keep->pos.lsn,
						     .db_checksum = keep->db_checksum,
						     .time_us = keep->time_us,
						     .db_size_pages = keep->db_size_pages};
	s->log_bytes = keep == NULL ? atomic_load(&s->checkpoint_log_bytes) : keep->log_bytes_end;
	pthread_mutex_unlock(&s->lock);
	for (c = cut; c != NULL; c = c->next)
		for (i = 0; i < c->version_count; i++)
			page_index_drop_after(s->index, c->versions[i].pgno, keep_lsn);
	if (cut != NULL)
		limbo_add(s, cut);
}

enum db_err store_cut(struct store *s, uint64_t keep_lsn, struct errmsg *em)
{
	enum db_err err = DB_OK;

	assert(!s->overlay.active);
	if (keep_lsn < store_visible_lsn(s))
		return errmsg_set(em, DB_INVALID,
				  "cannot cut to %" PRIu64 ": everything up to %" PRIu64 " is committed", keep_lsn,
				  store_visible_lsn(s));
	if (keep_lsn >= store_tip_lsn(s))
		return DB_OK;
	pthread_mutex_lock(&s->checkpoint_lock);
	/* Readers only step over versions that they must not see, and never look at the images: the log may be cut while
	 * these versions wait in limbo. */
	if (keep_lsn < s->applied.lsn)
		unindex_after(s, keep_lsn);
	err = wal_cut(s->wal, keep_lsn, em);
	atomic_store(&s->tip_lsn, wal_last(s->wal).lsn);
	s->diverged = false;
	s->writer_cache_stale = true;
	limbo_reclaim(s);
	pthread_mutex_unlock(&s->checkpoint_lock);
	log_info("store cut to %" PRIu64 ": %s", keep_lsn, db_err_text(err));
	return err;
}

enum db_err store_append_term_start(struct store *s, uint64_t *lsn, struct errmsg *em)
{
	struct wal_record r = {0}, appended;
	uint8_t header[WAL_RECORD_HEADER_SIZE];
	struct iovec piece = {.iov_base = header, .iov_len = sizeof(header)};
	struct wal_hash *h = wal_hash_create();
	struct change *c = NULL;
	enum db_err err = DB_NOMEM;

	assert(!s->overlay.active);
	if (h == NULL)
		goto no_memory;
	if (store_tip_lsn(s) != s->applied.lsn) {
		err = errmsg_set(em, DB_INVALID, "records after %" PRIu64 " wait to be applied", s->applied.lsn);
		goto out;
	}
	r.type = WAL_TERM_START;
	r.lsn = s->applied.lsn + 1;
	r.term = s->term;
	r.time_us = store_record_time_us(s);
	r.db_size_pages = s->applied.db_size_pages;
	r.db_checksum = s->applied.db_checksum;
	r.prev_checksum = wal_last_checksum(s->wal);
	wal_hash_begin(h, &r);
	r.checksum = wal_hash_end(h);
	wal_record_encode_header(&r, header);
	c = change_create(&r);
	if (c == NULL || change_reserve(s, c) != DB_OK)
		goto no_memory;
	pthread_mutex_lock(&s->lock);
	s->overtaken_lsn = 0; /* what a replica was told; from now on it is this term's */
	pthread_mutex_unlock(&s->lock);
	err = wal_append(s->wal, &piece, 1, &appended, em);
	if (err != DB_OK)
		goto out;
	change_index(s, c, &appended, NULL);
	c = NULL;
	atomic_store(&s->tip_lsn, r.lsn);
	*lsn = r.lsn;
	goto out;
no_memory:
	errmsg_set(em, DB_NOMEM, "no memory for a term start");
out:
	wal_hash_free(h);
	free(c);
	return err;
}

enum db_err store_verify(struct store *s, uint64_t *db_checksum, struct errmsg *em)
{
	struct pin_slot *slot = snapshots_slot_acquire(&s->snapshots);
	struct applied applied;
	uint64_t checksum = 0;
	uint32_t pgno;

	if (slot == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory to verify the database");
	snapshots_pin_memory(&s->snapshots, slot);
	pthread_mutex_lock(&s->lock);
	applied = s->applied;
	pthread_mutex_unlock(&s->lock);
	for (pgno = 1; pgno <= applied.db_size_pages; pgno++)
		checksum ^= checksum_page(pgno, store_page(s, pgno, applied.lsn));
	snapshots_slot_release(slot);
	*db_checksum = checksum;
	return DB_OK;
}

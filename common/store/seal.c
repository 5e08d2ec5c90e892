/*
 * seal.c - a transaction becomes a record.
 *
 * Called on the owner's thread at the writer's commit point (vfs_db.c). Sorts the overlay's pages, leaves out those that
 * are as they were, computes the database checksum, appends the record to the log and indexes its pages where they now
 * lie. Everything that can fail comes before the append or is the append itself, so a failed seal leaves no trace.
 *
 * Invariants: (1) A record that grows the database holds every page it adds, save the lock-byte page: pages that SQLite
 * never wrote are added as zeros. So a page that was cut off and comes back never shows an older image, and the base
 * file never has to be read past its end. (2) Pages cut off leave the database checksum.
 */
#include "common/store/store_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"

struct sealed_page {
	uint32_t pgno;
	const uint8_t *image; /* in the overlay, or the zero page */
	uint64_t hash;
};

struct seal {
	struct store *s;
	struct sealed_page *pages;
	uint32_t page_count;
	uint64_t db_checksum;
	struct wal_record record; /* what is to be appended; payload unused */
};

static int by_pgno(const void *a, const void *b)
{
	uint32_t x = ((const struct sealed_page *)a)->pgno, y = ((const struct sealed_page *)b)->pgno;

	return x < y ? -1 : x > y;
}

/* The pages of the overlay within the database's size, and zeros for those added but never written: (1). */
static enum db_err collect_pages(struct seal *seal, struct errmsg *em)
{
	const struct overlay *o = &seal->s->overlay;
	size_t most = o->page_count + (size_t)(o->size_pages - o->low_size_pages) + 1;
	uint32_t i, pgno, n = 0;

	seal->pages = malloc(most * sizeof(*seal->pages));
	if (seal->pages == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory to seal a transaction of %zu pages", most);
	for (i = 0; i < o->page_count; i++)
		if (o->pgnos[i] <= o->size_pages && o->pgnos[i] != LOCK_BYTE_PGNO)
			seal->pages[n++] = (struct sealed_page){.pgno = o->pgnos[i], .image = overlay_image(o, i)};
	for (pgno = o->low_size_pages + 1; pgno <= o->size_pages; pgno++)
		if (pgno != LOCK_BYTE_PGNO && overlay_find(o, pgno) == NULL)
			seal->pages[n++] = (struct sealed_page){.pgno = pgno, .image = checksum_zero_page()};
	qsort(seal->pages, n, sizeof(*seal->pages), by_pgno);
	seal->page_count = n;
	return DB_OK;
}

/* Hashes every page, drops those whose content is what the database has anyway, and derives the new checksum: (2). */
static void update_checksum(struct seal *seal)
{
	struct store *s = seal->s;
	uint32_t i, n = 0, pgno, old_size = s->applied.db_size_pages;
	struct sealed_page *p;
	const uint8_t *old;
	uint64_t old_hash;

	seal->db_checksum = s->applied.db_checksum;
	for (i = 0; i < seal->page_count; i++) {
		p = &seal->pages[i];
		p->hash = checksum_page(p->pgno, p->image);
		if (p->pgno <= old_size) {
			old = store_tip_page(s, p->pgno, &old_hash);
			if (old_hash == p->hash && memcmp(old, p->image, WAL_PAGE_SIZE) == 0)
				continue;
			seal->db_checksum ^= old_hash;
		}
		seal->db_checksum ^= p->hash;
		seal->pages[n++] = *p;
	}
	seal->page_count = n;
	for (pgno = s->overlay.size_pages + 1; pgno <= old_size; pgno++) {
		store_tip_page(s, pgno, &old_hash);
		seal->db_checksum ^= old_hash;
	}
}

/* The record's bytes in pieces: header, page numbers, images; neighbouring images in one piece. numbers keeps the second
 * alive, *count says how many there are. NULL: out of memory. */
static struct iovec *make_pieces(const struct seal *seal, const uint8_t *header, struct buf *numbers, int *count)
{
	struct iovec *pieces = malloc((seal->page_count + 2) * sizeof(*pieces)), *last;
	uint8_t *image;
	uint32_t i;

	for (i = 0; i < seal->page_count; i++)
		buf_put_u32le(numbers, seal->pages[i].pgno);
	if (seal->page_count % 2 != 0)
		buf_put_u32le(numbers, 0);
	if (pieces == NULL || numbers->failed) {
		free(pieces);
		return NULL;
	}
	pieces[0] = (struct iovec){.iov_base = (void *)(uintptr_t)header, .iov_len = WAL_RECORD_HEADER_SIZE};
	pieces[1] = (struct iovec){.iov_base = numbers->data, .iov_len = numbers->len};
	last = &pieces[1];
	for (i = 0; i < seal->page_count; i++) {
		image = (uint8_t *)(uintptr_t)seal->pages[i].image;
		if (last != &pieces[1] && (uint8_t *)last->iov_base + last->iov_len == image)
			last->iov_len += WAL_PAGE_SIZE;
		else
			*++last = (struct iovec){.iov_base = image, .iov_len = WAL_PAGE_SIZE};
	}
	*count = (int)(last - pieces) + 1;
	return pieces;
}

static void fill_record(struct seal *seal)
{
	struct store *s = seal->s;
	struct wal_record *r = &seal->record;

	r->type = WAL_PAGES;
	r->lsn = s->applied.lsn + 1;
	r->term = s->term;
	r->time_us = store_record_time_us(s);
	r->db_size_pages = s->overlay.size_pages;
	r->page_count = seal->page_count;
	r->payload_len = wal_payload_size(seal->page_count);
	r->db_checksum = seal->db_checksum;
	r->prev_checksum = wal_last_checksum(s->wal);
}

static enum db_err record_checksum(struct wal_record *r, const struct iovec *pieces, int count, struct errmsg *em)
{
	struct wal_hash *h = wal_hash_create();
	int i;

	if (h == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory to checksum a record");
	wal_hash_begin(h, r);
	for (i = 1; i < count; i++)
		wal_hash_add(h, pieces[i].iov_base, pieces[i].iov_len);
	r->checksum = wal_hash_end(h);
	wal_hash_free(h);
	return DB_OK;
}

/* Takes `change` over on DB_OK. */
static enum db_err append_and_index(struct seal *seal, const struct iovec *pieces, int count, struct errmsg *em)
{
	struct store *s = seal->s;
	struct change *change = change_create(&seal->record);
	uint64_t *hashes = malloc((seal->page_count + 1) * sizeof(*hashes));
	struct wal_record appended;
	enum db_err err = DB_NOMEM;
	uint32_t i;

	if (change == NULL || hashes == NULL || change_reserve(s, change) != DB_OK) {
		errmsg_set(em, DB_NOMEM, "no memory to index a transaction of %u pages", seal->page_count);
		goto out;
	}
	for (i = 0; i < seal->page_count; i++)
		hashes[i] = seal->pages[i].hash;
	err = wal_append(s->wal, pieces, count, &appended, em);
	if (err != DB_OK)
		goto out;
	change_index(s, change, &appended, hashes);
	atomic_store(&s->tip_lsn, change->pos.lsn);
	change = NULL;
	store_publish_overtaken(s); /* before anybody is told that this record is committed */
out:
	free(hashes);
	free(change);
	return err;
}

static enum db_err seal_pages(struct seal *seal, struct errmsg *em)
{
	uint8_t header[WAL_RECORD_HEADER_SIZE];
	struct buf numbers = {0};
	struct iovec *pieces;
	int count;
	enum db_err err;

	fill_record(seal);
	pieces = make_pieces(seal, header, &numbers, &count);
	if (pieces == NULL) {
		err = errmsg_set(em, DB_NOMEM, "no memory to seal a transaction of %u pages", seal->page_count);
		goto out;
	}
	err = record_checksum(&seal->record, pieces, count, em);
	if (err != DB_OK)
		goto out;
	wal_record_encode_header(&seal->record, header);
	err = append_and_index(seal, pieces, count, em);
out:
	free(pieces);
	buf_fini(&numbers);
	return err;
}

enum db_err store_seal(struct store *s)
{
	struct seal seal = {.s = s};
	enum db_err err;

	if (!s->overlay.active)
		return DB_OK; /* the transaction changed nothing */
	if (atomic_load(&s->tip_lsn) != s->applied.lsn)
		return errmsg_set(&s->seal_error, DB_INVALID,
				  "records up to %" PRIu64 " wait to be applied, %" PRIu64 " is",
				  atomic_load(&s->tip_lsn), s->applied.lsn);
	if (s->overlay.size_pages > PAGE_INDEX_PGNO_MAX)
		return errmsg_set(&s->seal_error, DB_TOO_LARGE, "the database would have %u pages, the limit is %u",
				  s->overlay.size_pages, PAGE_INDEX_PGNO_MAX);
	err = collect_pages(&seal, &s->seal_error);
	if (err == DB_OK) {
		update_checksum(&seal);
		if (seal.page_count > 0 || s->overlay.size_pages != s->applied.db_size_pages)
			err = seal_pages(&seal, &s->seal_error);
	}
	if (err == DB_OK)
		overlay_reset(&s->overlay);
	free(seal.pages);
	return err;
}

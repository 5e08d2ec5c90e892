/*
 * snapshot_copy.c - see snapshot_copy.h.
 *
 * The swap is one renameat2(RENAME_EXCHANGE): a crash leaves either the old store in place and the copy beside it, or the
 * other way round. The copy is complete before: base file synced, meta written with the copy's position as its checkpoint, an
 * empty log. Of what stands beside, the next attempt keeps main.db and nothing else: whatever it is, each of its pages
 * counts only after its hash was compared.
 */
#include "common/store/snapshot_copy.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/log.h"
#include "common/store/dirs.h"
#include "common/store/store_internal.h"

/* Pages go to the disk as they come, so that the last sync, while others wait, has little left to do: the disk writes one
 * stretch of so many pages while the next is being received, and is waited for when that is complete. */
#define STRETCH_PAGES ((uint32_t)((2u << 20) / WAL_PAGE_SIZE))
#define WRITE_PAGES   256u /* handed to the base file at a time */

struct snapshot_source {
	struct store *s;
	struct pin_slot *pin;
	struct snapshot_header header;
};

struct snapshot_target {
	char *dir;      /* owned: the place of the store */
	char *incoming; /* owned: where the copy is made */
	struct base_file base;
	struct snapshot_source *old; /* of the store to be replaced; NULL: none, or no longer needed */
	struct meta meta;
	uint8_t *have; /* bit (pgno - 1) % 8 of byte (pgno - 1) / 8: the page is in base */
	uint32_t missing;
	uint32_t written;    /* pages of this stretch */
	uint32_t first, end; /* their numbers lie in [first, end) */
	uint32_t disk_first; /* the stretch that the disk writes */
	uint32_t disk_count;
	bool fresh;        /* there was no earlier attempt: base has nothing but what we wrote */
	uint64_t checksum; /* of the pages so far */
	bool complete;     /* checked and durable */
};

/* The record at the pinned LSN: its change is in the list, unless a checkpoint has reached just it. */
static void fill_header(struct snapshot_source *src, uint64_t lsn)
{
	struct store *s = src->s;
	const struct change *c;

	pthread_mutex_lock(&s->lock);
	assert(s->meta.checkpoint.lsn <= lsn); /* our pin */
	if (s->meta.checkpoint.lsn == lsn) {
		src->header = (struct snapshot_header){.pos = s->meta.checkpoint,
						       .record_checksum = s->meta.record_checksum,
						       .db_checksum = s->meta.db_checksum,
						       .db_size_pages = s->meta.db_size_pages,
						       .time_us = s->meta.time_us};
	} else {
		for (c = s->first; c->pos.lsn != lsn; c = c->next)
			;
		src->header = (struct snapshot_header){.pos = c->pos,
						       .record_checksum = c->checksum,
						       .db_checksum = c->db_checksum,
						       .db_size_pages = c->db_size_pages,
						       .time_us = c->time_us};
	}
	pthread_mutex_unlock(&s->lock);
}

enum db_err snapshot_source_open(struct snapshot_source **out, struct store *s, struct errmsg *em)
{
	struct snapshot_source *src = calloc(1, sizeof(*src));
	struct snapshot pinned;

	*out = NULL;
	if (src != NULL)
		src->pin = snapshots_slot_acquire(&s->snapshots);
	if (src == NULL || src->pin == NULL) {
		free(src);
		return errmsg_set(em, DB_NOMEM, "no memory for a snapshot");
	}
	src->s = s;
	pinned = snapshots_pin(&s->snapshots, src->pin);
	fill_header(src, pinned.lsn);
	*out = src;
	return DB_OK;
}

void snapshot_source_close(struct snapshot_source *src)
{
	if (src == NULL)
		return;
	snapshots_slot_release(src->pin);
	free(src);
}

const struct snapshot_header *snapshot_source_header(const struct snapshot_source *src)
{
	return &src->header;
}

const uint8_t *snapshot_source_page(const struct snapshot_source *src, uint32_t pgno)
{
	assert(pgno >= 1 && pgno <= src->header.db_size_pages);
	return store_page(src->s, pgno, src->header.pos.lsn);
}

uint64_t snapshot_source_hash(const struct snapshot_source *src, uint32_t pgno)
{
	return checksum_page(pgno, snapshot_source_page(src, pgno));
}

/* What stands in dir may be replaced if it is nothing, unreadable, or a store of the same cluster. */
static enum db_err check_old(const struct snapshot_target *t, struct errmsg *em)
{
	static const uint8_t zero[16];
	struct slotfile f;
	struct meta old;
	char *path;
	bool found = false;
	enum db_err err = DB_OK;

	if (asprintf(&path, "%s/store.meta", t->dir) < 0)
		return errmsg_set(em, DB_NOMEM, "cannot look at \"%s\"", t->dir);
	if (access(path, F_OK) == 0 && meta_open(&f, path, &old, &found, NULL) == DB_OK)
		slotfile_close(&f);
	free(path);
	if (!found)
		return DB_OK;
	if (memcmp(old.cluster_id, zero, 16) != 0 && memcmp(old.cluster_id, t->meta.cluster_id, 16) != 0)
		err = errmsg_set(em, DB_INVALID, "\"%s\" belongs to another cluster", t->dir);
	return err;
}

/* Empties what an earlier attempt left, but for its pages. */
static enum db_err clear_incoming(const struct snapshot_target *t, struct errmsg *em)
{
	DIR *dir = opendir(t->incoming);
	enum db_err err = DB_OK;
	struct dirent *entry;
	char *path;

	if (dir == NULL)
		return errno == ENOENT ? DB_OK : errmsg_errno(em, errno, "cannot read \"%s\"", t->incoming);
	while (err == DB_OK && (entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
		    strcmp(entry->d_name, "main.db") == 0)
			continue;
		if (asprintf(&path, "%s/%s", t->incoming, entry->d_name) < 0) {
			err = errmsg_set(em, DB_NOMEM, "cannot clear \"%s\"", t->incoming);
			break;
		}
		err = dirs_remove(path, em);
		free(path);
	}
	closedir(dir);
	return err;
}

static enum db_err make_incoming(struct snapshot_target *t, struct errmsg *em)
{
	static const char *const names[] = {"", "/wal", "/tmp"};
	char *path;
	size_t i;
	enum db_err err;

	err = clear_incoming(t, em);
	for (i = 0; err == DB_OK && i < sizeof(names) / sizeof(names[0]); i++) {
		if (asprintf(&path, "%s%s", t->incoming, names[i]) < 0)
			return errmsg_set(em, DB_NOMEM, "cannot create \"%s\"", t->incoming);
		if (mkdir(path, 0700) != 0 && errno != EEXIST)
			err = errmsg_errno(em, errno, "cannot create \"%s\"", path);
		free(path);
	}
	if (err != DB_OK)
		return err;
	if (asprintf(&path, "%s/main.db", t->incoming) < 0)
		return errmsg_set(em, DB_NOMEM, "cannot create \"%s\"", t->incoming);
	t->fresh = access(path, F_OK) != 0;
	err = base_file_open(&t->base, path, em);
	free(path);
	return err == DB_OK ? base_file_resize(&t->base, t->meta.db_size_pages, em) : err;
}

static enum db_err prepare(struct snapshot_target *t, const char *dir, struct store *old, struct errmsg *em)
{
	enum db_err err;

	t->dir = strdup(dir);
	t->have = calloc(1, t->meta.db_size_pages / 8 + 1);
	if (t->dir == NULL || t->have == NULL || asprintf(&t->incoming, "%s.incoming", dir) < 0) {
		t->incoming = NULL;
		return errmsg_set(em, DB_NOMEM, "no memory for a snapshot");
	}
	err = check_old(t, em);
	if (err == DB_OK)
		err = make_incoming(t, em);
	if (err == DB_OK && old != NULL)
		err = snapshot_source_open(&t->old, old, em);
	return err;
}

enum db_err snapshot_target_create(struct snapshot_target **out, const char *dir, const struct snapshot_header *header,
				   const uint8_t cluster_id[16], struct store *old, struct errmsg *em)
{
	struct snapshot_target *t;
	enum db_err err;

	*out = NULL;
	if (header->db_size_pages > PAGE_INDEX_PGNO_MAX || (header->pos.lsn == 0 && header->db_size_pages != 0))
		return errmsg_set(em, DB_CORRUPT, "a snapshot of %u pages cannot be", header->db_size_pages);
	if (header->pos.lsn > WAL_LSN_MAX || header->pos.term > WAL_TERM_MAX)
		return errmsg_set(em, DB_CORRUPT, "a snapshot at (%" PRIu64 ", %" PRIu64 ") cannot be",
				  header->pos.term, header->pos.lsn);
	t = calloc(1, sizeof(*t));
	if (t == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for a snapshot");
	t->base.fd = -1;
	memcpy(t->meta.cluster_id, cluster_id, 16);
	t->meta.checkpoint = header->pos;
	t->meta.record_checksum = header->record_checksum;
	t->meta.db_checksum = header->db_checksum;
	t->meta.db_size_pages = t->meta.intent_size_pages = header->db_size_pages;
	t->meta.intent_lsn = header->pos.lsn;
	t->meta.time_us = header->time_us;
	t->missing = header->db_size_pages;
	err = prepare(t, dir, old, em);
	if (err != DB_OK) {
		snapshot_target_free(t);
		return err;
	}
	*out = t;
	return DB_OK;
}

static bool has_page(const struct snapshot_target *t, uint32_t pgno)
{
	return (t->have[(pgno - 1) / 8] >> ((pgno - 1) % 8) & 1) != 0;
}

static void note_page(struct snapshot_target *t, uint32_t pgno, uint64_t hash)
{
	t->have[(pgno - 1) / 8] |= (uint8_t)(1u << ((pgno - 1) % 8));
	t->missing--;
	t->checksum ^= hash;
	if (pgno == 1)
		t->meta.page1_hash = hash;
}

static enum db_err check_range(const struct snapshot_target *t, uint32_t first_pgno, size_t count, struct errmsg *em)
{
	if (first_pgno < 1 || first_pgno > t->meta.db_size_pages || count > t->meta.db_size_pages - (first_pgno - 1))
		return errmsg_set(em, DB_CORRUPT, "%zu pages from page %u of a snapshot of %u pages", count, first_pgno,
				  t->meta.db_size_pages);
	return DB_OK;
}

/* After count pages from first_pgno were written. */
static enum db_err note_written(struct snapshot_target *t, uint32_t first_pgno, uint32_t count, struct errmsg *em)
{
	enum db_err err;

	if (t->written == 0 || first_pgno < t->first)
		t->first = first_pgno;
	if (t->written == 0 || first_pgno + count > t->end)
		t->end = first_pgno + count;
	t->written += count;
	if (t->written < STRETCH_PAGES)
		return DB_OK;
	err = base_file_write_wait(&t->base, t->disk_first, t->disk_count, em);
	if (err != DB_OK)
		return err;
	t->disk_first = t->first;
	t->disk_count = t->end - t->first;
	t->written = 0;
	return base_file_write_begin(&t->base, t->disk_first, t->disk_count, em);
}

/* Finds a page with this hash here. False in *found: we have none. */
static enum db_err take_over(struct snapshot_target *t, uint32_t pgno, uint64_t hash, bool *found, struct errmsg *em)
{
	struct base_write page = {.pgno = pgno};
	enum db_err err = DB_OK;

	*found = !t->fresh && checksum_page(pgno, base_file_page(&t->base, pgno)) == hash;
	if (!*found && t->old != NULL && pgno <= snapshot_source_header(t->old)->db_size_pages) {
		page.data = snapshot_source_page(t->old, pgno);
		*found = checksum_page(pgno, page.data) == hash;
		if (*found)
			err = base_file_write(&t->base, &page, 1, em);
		if (err == DB_OK && *found)
			err = note_written(t, pgno, 1, em);
	}
	if (err == DB_OK && *found)
		note_page(t, pgno, hash);
	return err;
}

enum db_err snapshot_target_compare(struct snapshot_target *t, uint32_t first_pgno, uint32_t count,
				    const uint8_t *hashes, uint8_t *want, struct errmsg *em)
{
	enum db_err err = check_range(t, first_pgno, count, em);
	bool found;
	uint32_t i;

	for (i = 0; i < count && err == DB_OK; i++) {
		if (has_page(t, first_pgno + i))
			continue;
		err = take_over(t, first_pgno + i, load_u64le(hashes + (size_t)i * 8), &found, em);
		if (err == DB_OK && !found)
			want[i / 8] |= (uint8_t)(1u << (i % 8));
	}
	return err;
}

/* At most WRITE_PAGES neighbouring pages. */
static enum db_err write_pages(struct snapshot_target *t, uint32_t first_pgno, const uint8_t *bytes, uint32_t count,
			       struct errmsg *em)
{
	struct base_write pages[WRITE_PAGES] = {{0}};
	enum db_err err;
	uint32_t i;

	for (i = 0; i < count; i++) {
		pages[i] = (struct base_write){.pgno = first_pgno + i, .data = bytes + (size_t)i * WAL_PAGE_SIZE};
		if (has_page(t, pages[i].pgno))
			return errmsg_set(em, DB_GAP, "page %u of the snapshot came twice", pages[i].pgno);
	}
	err = base_file_write(&t->base, pages, count, em);
	if (err != DB_OK)
		return err;
	for (i = 0; i < count; i++)
		note_page(t, first_pgno + i, checksum_page(first_pgno + i, bytes + (size_t)i * WAL_PAGE_SIZE));
	return note_written(t, first_pgno, count, em);
}

enum db_err snapshot_target_write(struct snapshot_target *t, uint32_t first_pgno, const uint8_t *bytes, size_t len,
				  struct errmsg *em)
{
	size_t i, part, count = len / WAL_PAGE_SIZE;
	enum db_err err;

	err = len % WAL_PAGE_SIZE == 0 ? check_range(t, first_pgno, count, em)
				       : errmsg_set(em, DB_CORRUPT, "%zu bytes are not whole pages", len);
	for (i = 0; i < count && err == DB_OK; i += part) {
		part = count - i < WRITE_PAGES ? count - i : WRITE_PAGES;
		err = write_pages(t, first_pgno + (uint32_t)i, bytes + i * WAL_PAGE_SIZE, (uint32_t)part, em);
	}
	return err;
}

uint64_t snapshot_target_lsn(const struct snapshot_target *t)
{
	return t->meta.checkpoint.lsn;
}

uint32_t snapshot_target_missing(const struct snapshot_target *t)
{
	return t->missing;
}

enum db_err snapshot_target_complete(struct snapshot_target *t, struct errmsg *em)
{
	struct slotfile f;
	struct meta blank;
	char *path;
	bool found;
	enum db_err err;

	if (t->complete)
		return DB_OK;
	if (t->missing > 0)
		return errmsg_set(em, DB_CORRUPT, "the snapshot lacks %u of its %u pages", t->missing,
				  t->meta.db_size_pages);
	if (t->checksum != t->meta.db_checksum)
		return errmsg_set(em, DB_CORRUPT, "the snapshot's pages do not have the checksum it announced");
	snapshot_source_close(t->old);
	t->old = NULL;
	err = base_file_sync(&t->base, em);
	if (err != DB_OK)
		return err;
	if (asprintf(&path, "%s/store.meta", t->incoming) < 0)
		return errmsg_set(em, DB_NOMEM, "cannot complete \"%s\"", t->incoming);
	err = meta_open(&f, path, &blank, &found, em);
	free(path);
	if (err != DB_OK)
		return err;
	err = meta_write(&f, &t->meta, em);
	slotfile_close(&f);
	if (err == DB_OK)
		err = dirs_sync(t->incoming, em);
	t->complete = err == DB_OK;
	return err;
}

enum db_err snapshot_target_keep(struct snapshot_target *t, const char *name, struct errmsg *em)
{
	enum db_err err = dirs_copy_file(t->dir, t->incoming, name, em);

	return err == DB_OK ? dirs_sync(t->incoming, em) : err;
}

/* Holds the lock that an open store would hold, if there is one to replace. */
static enum db_err lock_old(struct snapshot_target *t, struct base_file *old, struct errmsg *em)
{
	char *path;
	enum db_err err = DB_OK;

	old->fd = -1;
	if (asprintf(&path, "%s/main.db", t->dir) < 0)
		return errmsg_set(em, DB_NOMEM, "cannot lock \"%s\"", t->dir);
	if (access(path, F_OK) == 0)
		err = base_file_open(old, path, em);
	free(path);
	return err;
}

enum db_err snapshot_target_finish(struct snapshot_target *t, struct errmsg *em)
{
	struct base_file old = {.fd = -1};
	struct errmsg why = {0};
	enum db_err err;

	err = snapshot_target_complete(t, em);
	if (err == DB_OK)
		err = lock_old(t, &old, em);
	if (err == DB_OK)
		err = dirs_exchange(t->incoming, t->dir, em);
	base_file_close(&old);
	if (err != DB_OK)
		return err;
	log_info("store \"%s\" replaced by a snapshot of %u pages", t->dir, t->meta.db_size_pages);
	if (dirs_remove(t->incoming, &why) != DB_OK) /* what was replaced */
		log_warn("store: %s", why.text);
	return DB_OK;
}

void snapshot_target_free(struct snapshot_target *t)
{
	if (t == NULL)
		return;
	snapshot_source_close(t->old);
	base_file_close(&t->base);
	free(t->have);
	free(t->incoming);
	free(t->dir);
	free(t);
}

enum db_err snapshot_target_discard(const char *dir, struct errmsg *em)
{
	enum db_err err;
	char *path;

	if (asprintf(&path, "%s.incoming", dir) < 0)
		return errmsg_set(em, DB_NOMEM, "cannot remove what is left of a snapshot beside \"%s\"", dir);
	err = dirs_remove(path, em);
	free(path);
	return err;
}

/*
 * snapshot_copy.c - see snapshot_copy.h.
 *
 * The swap is one renameat2(RENAME_EXCHANGE): a crash leaves either the old store in place and the copy beside it, or the
 * other way round; what stands beside is removed by the next attempt. The copy is complete before: base file synced, meta
 * written with the copy's position as its checkpoint, an empty log.
 */
#include "common/store/snapshot_copy.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/store/dirs.h"
#include "common/store/store_internal.h"

/* Pages are synced as they come, so that the last sync, while others wait, has little left to do. */
#define SYNC_EVERY_PAGES ((uint32_t)((32u << 20) / WAL_PAGE_SIZE))

struct snapshot_source {
	struct store *s;
	struct pin_slot *pin;
	struct snapshot_header header;
};

struct snapshot_target {
	char *dir;      /* owned: the place of the store */
	char *incoming; /* owned: where the copy is made */
	struct base_file base;
	struct meta meta;
	uint32_t next_pgno;
	uint32_t synced_pgno; /* the last page synced */
	uint64_t checksum;    /* of the pages so far */
	bool complete;        /* checked and durable */
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
						       .db_size_pages = s->meta.db_size_pages};
	} else {
		for (c = s->first; c->pos.lsn != lsn; c = c->next)
			;
		src->header = (struct snapshot_header){.pos = c->pos,
						       .record_checksum = c->checksum,
						       .db_checksum = c->db_checksum,
						       .db_size_pages = c->db_size_pages};
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

static enum db_err make_incoming(struct snapshot_target *t, struct errmsg *em)
{
	static const char *const names[] = {"", "/wal", "/tmp"};
	char *path;
	size_t i;
	enum db_err err;

	err = dirs_remove(t->incoming, em);
	for (i = 0; err == DB_OK && i < sizeof(names) / sizeof(names[0]); i++) {
		if (asprintf(&path, "%s%s", t->incoming, names[i]) < 0)
			return errmsg_set(em, DB_NOMEM, "cannot create \"%s\"", t->incoming);
		if (mkdir(path, 0700) != 0)
			err = errmsg_errno(em, errno, "cannot create \"%s\"", path);
		free(path);
	}
	if (err != DB_OK)
		return err;
	if (asprintf(&path, "%s/main.db", t->incoming) < 0)
		return errmsg_set(em, DB_NOMEM, "cannot create \"%s\"", t->incoming);
	err = base_file_open(&t->base, path, em);
	free(path);
	return err;
}

enum db_err snapshot_target_create(struct snapshot_target **out, const char *dir, const struct snapshot_header *header,
				   const uint8_t cluster_id[16], struct errmsg *em)
{
	struct snapshot_target *t;
	enum db_err err;

	*out = NULL;
	if (header->db_size_pages > PAGE_INDEX_PGNO_MAX || (header->pos.lsn == 0 && header->db_size_pages != 0))
		return errmsg_set(em, DB_CORRUPT, "a snapshot of %u pages cannot be", header->db_size_pages);
	t = calloc(1, sizeof(*t));
	if (t == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for a snapshot");
	t->base.fd = -1;
	t->next_pgno = 1;
	memcpy(t->meta.cluster_id, cluster_id, 16);
	t->meta.checkpoint = header->pos;
	t->meta.record_checksum = header->record_checksum;
	t->meta.db_checksum = header->db_checksum;
	t->meta.db_size_pages = t->meta.intent_size_pages = header->db_size_pages;
	t->meta.intent_lsn = header->pos.lsn;
	t->dir = strdup(dir);
	if (t->dir == NULL || asprintf(&t->incoming, "%s.incoming", dir) < 0) {
		t->incoming = NULL;
		err = errmsg_set(em, DB_NOMEM, "no memory for a snapshot");
	} else {
		err = check_old(t, em);
		if (err == DB_OK)
			err = make_incoming(t, em);
	}
	if (err != DB_OK) {
		snapshot_target_free(t);
		return err;
	}
	*out = t;
	return DB_OK;
}

enum db_err snapshot_target_write(struct snapshot_target *t, uint32_t first_pgno, const uint8_t *bytes, size_t len,
				  struct errmsg *em)
{
	struct base_write page;
	enum db_err err;
	size_t i, count = len / WAL_PAGE_SIZE;

	if (first_pgno != t->next_pgno)
		return errmsg_set(em, DB_GAP, "snapshot page %u came, %u is next", first_pgno, t->next_pgno);
	if (len % WAL_PAGE_SIZE != 0 || count > t->meta.db_size_pages - (t->next_pgno - 1))
		return errmsg_set(em, DB_CORRUPT, "%zu bytes at page %u of a snapshot of %u pages", len, first_pgno,
				  t->meta.db_size_pages);
	for (i = 0; i < count; i++) {
		page = (struct base_write){.pgno = t->next_pgno, .data = bytes + i * WAL_PAGE_SIZE};
		err = base_file_write(&t->base, &page, 1, em);
		if (err != DB_OK)
			return err;
		t->checksum ^= checksum_page(page.pgno, page.data);
		if (page.pgno == 1)
			t->meta.page1_hash = checksum_page(1, page.data);
		t->next_pgno++;
	}
	if (t->next_pgno - 1 - t->synced_pgno < SYNC_EVERY_PAGES)
		return DB_OK;
	t->synced_pgno = t->next_pgno - 1;
	return base_file_sync(&t->base, em);
}

uint32_t snapshot_target_next_pgno(const struct snapshot_target *t)
{
	return t->next_pgno;
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
	if (t->next_pgno != t->meta.db_size_pages + 1)
		return errmsg_set(em, DB_CORRUPT, "the snapshot ends before page %u of %u", t->next_pgno,
				  t->meta.db_size_pages);
	if (t->checksum != t->meta.db_checksum)
		return errmsg_set(em, DB_CORRUPT, "the snapshot's pages do not have the checksum it announced");
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
	enum db_err err;

	err = snapshot_target_complete(t, em);
	if (err == DB_OK)
		err = lock_old(t, &old, em);
	if (err == DB_OK)
		err = dirs_exchange(t->incoming, t->dir, em);
	base_file_close(&old);
	if (err == DB_OK)
		log_info("store \"%s\" replaced by a snapshot of %u pages", t->dir, t->meta.db_size_pages);
	return err;
}

void snapshot_target_free(struct snapshot_target *t)
{
	struct errmsg em = {0};

	if (t == NULL)
		return;
	base_file_close(&t->base);
	/* The unfinished copy, or after the swap the store that was replaced. */
	if (t->incoming != NULL && dirs_remove(t->incoming, &em) != DB_OK)
		log_warn("store: %s", em.text);
	free(t->incoming);
	free(t->dir);
	free(t);
}

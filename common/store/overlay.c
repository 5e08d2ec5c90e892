/* overlay.c - see overlay.h. The table maps page numbers to image numbers by open addressing; images are never removed
 * one by one, so it needs no tombstones. */
#include "common/store/overlay.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/store/scratch.h"
#include "common/wal/record.h"

#define CHUNK_PAGES   256u
#define CHUNK_BYTES   ((size_t)CHUNK_PAGES * WAL_PAGE_SIZE)
#define CHUNKS_MEMORY (OVERLAY_MEMORY_MAX / CHUNK_BYTES)
#define TABLE_MIN     1024u
#define TABLE_KEEP    65536u /* a larger table is freed at reset: clearing it would burden small transactions */

struct overlay_slot {
	uint32_t pgno; /* 0: empty */
	uint32_t image;
};

void overlay_init(struct overlay *o, const char *dir)
{
	memset(o, 0, sizeof(*o));
	o->dir = dir;
	o->fd = -1;
}

static void drop_file_chunks(struct overlay *o)
{
	while (o->chunk_count > CHUNKS_MEMORY)
		munmap(o->chunks[--o->chunk_count], CHUNK_BYTES);
	if (o->fd >= 0)
		close(o->fd);
	o->fd = -1;
}

void overlay_fini(struct overlay *o)
{
	drop_file_chunks(o);
	while (o->chunk_count > 0)
		free(o->chunks[--o->chunk_count]);
	free(o->chunks);
	free(o->table);
	free(o->pgnos);
	overlay_init(o, o->dir);
}

void overlay_begin(struct overlay *o, uint32_t size_pages)
{
	assert(!o->active && o->page_count == 0);
	o->active = true;
	o->size_pages = size_pages;
	o->low_size_pages = size_pages;
}

static size_t slot_start(const struct overlay *o, uint32_t pgno)
{
	return (pgno * 2654435761u >> 7) & (o->table_cap - 1);
}

static struct overlay_slot *slot_of(const struct overlay *o, uint32_t pgno)
{
	size_t i = slot_start(o, pgno);

	while (o->table[i].pgno != 0 && o->table[i].pgno != pgno)
		i = (i + 1) & (o->table_cap - 1);
	return &o->table[i];
}

void overlay_reset(struct overlay *o)
{
	uint32_t i;

	o->active = false;
	if (o->table_cap > TABLE_KEEP) {
		free(o->table);
		o->table = NULL;
		o->table_cap = 0;
		free(o->pgnos);
		o->pgnos = NULL;
		o->pgnos_cap = 0;
	} else if (o->page_count > o->table_cap / 16) {
		memset(o->table, 0, o->table_cap * sizeof(*o->table));
	} else {
		/* Backwards, so that each one is found before a gap opens in its probe sequence. */
		for (i = o->page_count; i > 0; i--)
			slot_of(o, o->pgnos[i - 1])->pgno = 0;
	}
	o->page_count = 0;
	drop_file_chunks(o);
}

static enum db_err grow_table(struct overlay *o)
{
	struct overlay_slot *old = o->table, *slot;
	size_t cap = o->table_cap == 0 ? TABLE_MIN : o->table_cap * 2;
	uint32_t i;

	o->table = calloc(cap, sizeof(*o->table));
	if (o->table == NULL) {
		o->table = old;
		return DB_NOMEM;
	}
	o->table_cap = cap;
	for (i = 0; i < o->page_count; i++) {
		slot = slot_of(o, o->pgnos[i]);
		slot->pgno = o->pgnos[i];
		slot->image = i;
	}
	free(old);
	return DB_OK;
}

static enum db_err map_chunk(struct overlay *o, uint8_t **chunk, struct errmsg *em)
{
	off_t at = (off_t)((o->chunk_count - CHUNKS_MEMORY) * CHUNK_BYTES);
	enum db_err err;
	int failed;
	void *addr;

	if (o->fd < 0) {
		err = scratch_open_unlinked(o->dir, &o->fd, em);
		if (err != DB_OK)
			return err;
	}
	failed = posix_fallocate(o->fd, at, (off_t)CHUNK_BYTES);
	if (failed != 0)
		return errmsg_errno(em, failed, "no room for a large transaction in \"%s\"", o->dir);
	addr = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, o->fd, at);
	if (addr == MAP_FAILED)
		return errmsg_errno(em, errno, "cannot map a scratch file in \"%s\"", o->dir);
	*chunk = addr;
	return DB_OK;
}

static enum db_err add_chunk(struct overlay *o, struct errmsg *em)
{
	uint8_t **chunks, *chunk = NULL;
	size_t cap;
	enum db_err err;

	if (o->chunk_count == o->chunks_cap) {
		cap = o->chunks_cap == 0 ? 64 : o->chunks_cap * 2;
		chunks = realloc(o->chunks, cap * sizeof(*chunks));
		if (chunks == NULL)
			return errmsg_set(em, DB_NOMEM, "no memory for a transaction's pages");
		o->chunks = chunks;
		o->chunks_cap = cap;
	}
	if (o->chunk_count < CHUNKS_MEMORY) {
		chunk = aligned_alloc(WAL_PAGE_SIZE, CHUNK_BYTES);
		if (chunk == NULL)
			return errmsg_set(em, DB_NOMEM, "no memory for a transaction's pages");
	} else {
		err = map_chunk(o, &chunk, em);
		if (err != DB_OK)
			return err;
	}
	o->chunks[o->chunk_count++] = chunk;
	return DB_OK;
}

static uint8_t *image_at(const struct overlay *o, uint32_t i)
{
	return o->chunks[i / CHUNK_PAGES] + (size_t)(i % CHUNK_PAGES) * WAL_PAGE_SIZE;
}

/* Room for one more image in table, list and chunks. */
static enum db_err reserve_image(struct overlay *o, struct errmsg *em)
{
	uint32_t *pgnos;
	size_t cap;

	if ((size_t)(o->page_count + 1) * 2 > o->table_cap && grow_table(o) != DB_OK)
		return errmsg_set(em, DB_NOMEM, "no memory for a transaction's pages");
	if (o->page_count == o->pgnos_cap) {
		cap = o->pgnos_cap == 0 ? TABLE_MIN : o->pgnos_cap * 2;
		pgnos = realloc(o->pgnos, cap * sizeof(*pgnos));
		if (pgnos == NULL)
			return errmsg_set(em, DB_NOMEM, "no memory for a transaction's pages");
		o->pgnos = pgnos;
		o->pgnos_cap = cap;
	}
	if (o->page_count == o->chunk_count * CHUNK_PAGES)
		return add_chunk(o, em);
	return DB_OK;
}

enum db_err overlay_write(struct overlay *o, uint32_t pgno, const uint8_t *page, struct errmsg *em)
{
	struct overlay_slot *slot;
	enum db_err err;

	assert(o->active && pgno > 0);
	err = reserve_image(o, em);
	if (err != DB_OK)
		return err;
	slot = slot_of(o, pgno);
	if (slot->pgno == 0) {
		slot->pgno = pgno;
		slot->image = o->page_count;
		o->pgnos[o->page_count++] = pgno;
	}
	memcpy(image_at(o, slot->image), page, WAL_PAGE_SIZE);
	if (pgno > o->size_pages)
		o->size_pages = pgno;
	return DB_OK;
}

void overlay_truncate(struct overlay *o, uint32_t size_pages)
{
	uint32_t i;

	assert(o->active);
	if (size_pages >= o->size_pages)
		return;
	/* Cut pages stay in the table as zeros, which is what (1) says of them should the database grow again. */
	for (i = 0; i < o->page_count; i++)
		if (o->pgnos[i] > size_pages)
			memset(image_at(o, i), 0, WAL_PAGE_SIZE);
	o->size_pages = size_pages;
	if (size_pages < o->low_size_pages)
		o->low_size_pages = size_pages;
}

const uint8_t *overlay_find(const struct overlay *o, uint32_t pgno)
{
	const struct overlay_slot *slot;

	if (o->page_count == 0)
		return NULL;
	slot = slot_of(o, pgno);
	return slot->pgno == 0 ? NULL : image_at(o, slot->image);
}

const uint8_t *overlay_image(const struct overlay *o, uint32_t i)
{
	assert(i < o->page_count);
	return image_at(o, i);
}

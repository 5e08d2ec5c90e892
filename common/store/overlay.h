/*
 * overlay.h - the pages that the writer's current transaction has written, until they are sealed or dropped.
 *
 * SQLite writes a page here when it commits, when its cache spills, and when a rollback puts an old image back. Images lie
 * in chunks; the first ones are plain memory, those beyond OVERLAY_MEMORY_MAX are mapped from an unlinked file whose
 * blocks are allocated beforehand, so that a full disk is an error and not a SIGBUS.
 *
 * Invariants: (1) While active, a page above low_size_pages that was not written reads as zeros: it was cut off, or has
 * never existed. (2) size_pages is the database's size as the transaction sees it. Owner thread only.
 */
#ifndef GRIZZLY_COMMON_STORE_OVERLAY_H
#define GRIZZLY_COMMON_STORE_OVERLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define OVERLAY_MEMORY_MAX ((size_t)16 << 20)

struct overlay_slot; /* of the hash table */

struct overlay {
	const char *dir;         /* borrowed: where the scratch file goes */
	bool active;             /* something was written or cut since the last reset */
	uint32_t size_pages;     /* (2) */
	uint32_t low_size_pages; /* (1): the smallest size seen since it became active */
	uint32_t page_count;     /* images held; image i is that of pgnos[i] */
	uint32_t *pgnos;
	size_t pgnos_cap;
	struct overlay_slot *table;
	size_t table_cap; /* a power of two */
	uint8_t **chunks;
	size_t chunk_count;
	size_t chunks_cap;
	int fd; /* of the chunks beyond memory; -1: none */
};

void overlay_init(struct overlay *o, const char *dir);
void overlay_fini(struct overlay *o);

/* Starts a transaction on a database of size_pages. */
void overlay_begin(struct overlay *o, uint32_t size_pages);
/* Forgets everything; keeps some memory for the next transaction. */
void overlay_reset(struct overlay *o);

/* Sets the image of pgno, growing the database when it lies beyond its end. DB_FULL, DB_IO, DB_NOMEM: nothing changed. */
enum db_err overlay_write(struct overlay *o, uint32_t pgno, const uint8_t *page, struct errmsg *em);
void overlay_truncate(struct overlay *o, uint32_t size_pages); /* <= its size; a larger one is ignored */

const uint8_t *overlay_find(const struct overlay *o, uint32_t pgno); /* NULL: not written */
const uint8_t *overlay_image(const struct overlay *o, uint32_t i);   /* i < page_count */

#endif

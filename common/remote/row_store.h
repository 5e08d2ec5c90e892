/*
 * row_store.h - rows of other nodes kept for one query: compact, counted, and on disk when they outgrow memory.
 *
 * Rows lie behind each other in chunks, each a header and its values in the fewest bytes; a chunk is memory while the query's
 * budget for that lasts, then an unlinked file that is mapped (spill.h). A row's place never changes until the store is
 * freed. Rows can be put on lists: of the rows that a key asked for, or of a hash index. Nothing is kept per row outside
 * of the chunks.
 *
 * Used by the scans of one query, on its thread. May fail on memory and on disk.
 */
#ifndef GRIZZLY_COMMON_REMOTE_ROW_STORE_H
#define GRIZZLY_COMMON_REMOTE_ROW_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/query/request.h"

/* What all stores of one query may use together. */
struct row_budget {
	size_t memory_left; /* bytes */
	size_t disk_left;   /* bytes, once memory_left is used up */
	const char *dir;    /* where the files are, NULL: none may be made; borrowed */
};

struct row_store;

/* A stored row, valid until its store is freed. */
struct stored_row {
	struct stored_row *next; /* on the list it was put on; else NULL */
	uint32_t hash;           /* the owner's */
	uint32_t size;           /* of bytes[] */
	uint8_t bytes[];
};

/* budget is borrowed and outlives the store. NULL: no memory. */
struct row_store *row_store_create(struct row_budget *budget, size_t columns);
void row_store_free(struct row_store *s); /* gives back what it used; NULL is fine */

/* Copies a row of the store's columns. DB_OK, DB_NOMEM, DB_TOO_LARGE: the budget is used up (the message says so), DB_FULL
 * or DB_IO: the disk. */
enum db_err row_store_add(struct row_store *s, const struct query_value *values, struct stored_row **row,
			  struct errmsg *em);
/* Whether two rows of it hold the same, type by type and byte by byte. */
bool row_store_same(const struct stored_row *a, const struct stored_row *b);
/* Takes back the row that was added last. */
void row_store_drop_last(struct row_store *s, struct stored_row *row);
uint64_t row_store_count(const struct row_store *s);

/* Where a walk over all rows stands; {0} is before the first. Rows that are added behind it are met, too. */
struct row_walk {
	size_t chunk;
	size_t at;
};
/* NULL: behind the last row, for now. */
struct stored_row *row_store_next(const struct row_store *s, struct row_walk *w);

/* The values of a row: texts and blobs point into it. values has room for the store's columns. */
void row_store_values(const struct row_store *s, const struct stored_row *row, struct query_value *values);

/* Rows by a hash of some of their values: equal ones have an equal hash, not the other way round. */
struct row_index;

/* Puts every row of the store, whose hash is set, on the list of its hash, in the order they were added. DB_NOMEM. */
enum db_err row_index_create(struct row_index **out, struct row_store *s);
void row_index_free(struct row_index *i); /* NULL is fine */
/* The first row with that hash, and the next after row. NULL: none. */
const struct stored_row *row_index_find(const struct row_index *i, uint32_t hash);
const struct stored_row *row_index_next(const struct stored_row *row);

#endif

/*
 * result_shape.h - the columns of a statement's result, rendered once and kept with the prepared statement.
 *
 * One per prepared statement; made anew when SQLite has prepared the statement again, for `SELECT *` may then have other
 * columns.
 */
#ifndef GRIZZLY_COMMON_QUERY_RESULT_SHAPE_H
#define GRIZZLY_COMMON_QUERY_RESULT_SHAPE_H

#include <sqlite3.h>
#include <stdbool.h>

#include "common/base/buf.h"

struct result_shape {
	bool made;
	int reprepares; /* SQLite's count when it was made */
	int columns;
	struct buf head;  /* "columns":[…],"types":[…],"rows":[ */
	struct buf keys;  /* "name": for each column; empty until result_shape_keys() */
	size_t *key_ends; /* of each column in keys; NULL until then */
};

/* Brings the shape up to date; after the statement's first step, which may have prepared it anew. False: no memory. */
bool result_shape_update(struct result_shape *shape, sqlite3_stmt *stmt);
/* Makes the keys of objects: the columns' names, a repeated one as "name:1", "name:2", … skipping what another column is
 * called. False: no memory. */
bool result_shape_keys(struct result_shape *shape, sqlite3_stmt *stmt);
void result_shape_fini(struct result_shape *shape);

/* Appends the current row of stmt as an array, or as an object (result_shape_keys() first). False: SQLite had no memory
 * for a value. */
bool result_put_row(struct buf *out, const struct result_shape *shape, sqlite3_stmt *stmt);
bool result_put_object(struct buf *out, const struct result_shape *shape, sqlite3_stmt *stmt);

#endif

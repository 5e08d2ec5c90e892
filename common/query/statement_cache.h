/*
 * statement_cache.h - prepared statements by SQL text, and the walk over the statements of one text.
 *
 * A text may hold several statements, and a later one may need what an earlier one creates, so they are prepared one by
 * one as the walk reaches them. The first SCRIPT_STATEMENTS_KEPT of a text stay prepared while the text is in the cache;
 * the rest, and texts above SCRIPT_BYTES_KEPT, are finalized behind the walk, so that a bulk load costs no memory.
 * The least recently used texts leave when more than the maximum of statements is kept. SQLite prepares a statement anew
 * by itself when the schema has changed.
 *
 * One per connection, on its thread; one walk at a time. A statement is valid until the walk's next step or end, and must
 * be reset by then.
 */
#ifndef GRIZZLY_COMMON_QUERY_STATEMENT_CACHE_H
#define GRIZZLY_COMMON_QUERY_STATEMENT_CACHE_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/auth/role.h"
#include "common/query/authorizer.h"
#include "common/query/result_shape.h"

#define SCRIPT_STATEMENTS_KEPT 8
#define SCRIPT_BYTES_KEPT      ((size_t)32 << 10)

struct statement_cache;
struct script;

struct statement {
	sqlite3_stmt *stmt;
	enum auth_role needs; /* the least that who runs it must be allowed */
	bool writes;
	bool dml;           /* INSERT, UPDATE, DELETE: counts rows */
	bool alone;         /* VACUUM: outside any transaction */
	bool pragma_writes; /* for the authorizer, while it runs */
	bool last;          /* nothing follows in the text */
	struct result_shape shape;
};

struct script_walk {
	struct statement_cache *cache;
	struct script *script;
	size_t index;             /* of the next statement */
	const char *next;         /* where it begins, when it is not among those kept */
	struct statement passing; /* the current one, when it is not kept */
};

/* NULL when memory is short. */
struct statement_cache *statement_cache_create(sqlite3 *db, struct authorizer *authorizer, size_t statements_max);
void statement_cache_free(struct statement_cache *c);          /* NULL is fine */
size_t statement_cache_count(const struct statement_cache *c); /* statements kept */

/* Starts a walk over sql, which outlives it. SQLITE_OK or SQLITE_NOMEM; on SQLITE_OK script_walk_end() must follow. */
int script_walk_begin(struct script_walk *w, struct statement_cache *c, const char *sql, size_t len);
/* *out is the next statement, NULL behind the last. SQLITE_OK, or why it cannot be prepared: the message is db's, for
 * SQLITE_AUTH the authorizer's. */
int script_walk_next(struct script_walk *w, struct statement **out);
void script_walk_end(struct script_walk *w);

#endif

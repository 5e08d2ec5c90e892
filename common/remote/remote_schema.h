/*
 * remote_schema.h - what this process knows of tables of other nodes (and of subqueries that are sent there whole): columns,
 * keys, indexes, size. Fetched once, kept for all queries, forgotten when the other node's schema has changed.
 *
 * A schema is as good as its version: whoever uses one reads PRAGMA schema_version in the same remote transaction as the
 * rows, and calls remote_schemas_forget() when it differs. How columns compare (affinity, collation) is found by letting the
 * other node compare, so it holds for views and subqueries, too. A cached schema is immutable but for its size, and counted.
 *
 * The cache: any thread. Fetching blocks, on the query's thread.
 */
#ifndef GRIZZLY_COMMON_REMOTE_REMOTE_SCHEMA_H
#define GRIZZLY_COMMON_REMOTE_REMOTE_SCHEMA_H

#include "common/remote/remote_ask.h"

enum remote_affinity {
	REMOTE_NONE, /* an expression's: what it is compared with decides */
	REMOTE_BLOB, /* a column's without a type */
	REMOTE_TEXT,
	REMOTE_NUMERIC, /* INTEGER, REAL, NUMERIC */
};

struct remote_column {
	char *name;
	char *type; /* declared, fit for a CREATE TABLE; "": none */
	enum remote_affinity affinity;
	const char *collation; /* "BINARY", "NOCASE", "RTRIM" */
	bool indexed;          /* an index over all rows begins with it, in its collation; or it is the rowid */
	bool unique;           /* no two rows have the same */
};

struct remote_schema {
	atomic_uint refs;
	struct remote_schema *next; /* cache's list, last used first */
	bool is_query;
	char *source;  /* what stands behind FROM there: main."table", or (SELECT …) */
	char *address; /* "host:port" */
	int64_t version;
	struct remote_column *columns;
	size_t column_count;
	const char *rowid_name; /* "rowid", "_rowid_", "oid"; NULL: its rows have no id that could be told */
	int rowid_column;       /* the column that is the rowid; -1: none */
	bool without_rowid;     /* then key_columns are its primary key */
	size_t *key_columns;
	size_t key_count;
	bool has_stat;                  /* it has been analysed */
	atomic_uint_fast64_t rows;      /* about how many; UINT64_MAX: unknown */
	atomic_uint_fast64_t looked_ms; /* clock_mono_ms() when rows was */
};

struct remote_schemas;

struct remote_schemas *remote_schemas_create(void); /* NULL: no memory */
void remote_schemas_free(struct remote_schemas *s); /* nobody uses one of them any more; NULL is fine */

/* The schema of source at name->address: from the cache (*cached) or fetched. table: the table's bare name, NULL when source
 * is a subquery. QUERY_OK: *out is to be released. Otherwise *error says why; *refused is what the other node said. */
enum query_code remote_schemas_get(struct remote_schemas *s, struct remote_schema **out, struct remote_asker *asker,
				   const struct remote_name *name, const char *source, const char *table, bool *cached,
				   struct query_error *error, struct query_error *refused);
void remote_schema_release(struct remote_schema *schema); /* NULL is fine */
/* It is not what the other node has (any more). */
void remote_schemas_forget(struct remote_schemas *s, const struct remote_schema *schema);

/* Appends the CREATE TABLE that SQLite is told. */
void remote_schema_put_create(struct buf *out, const struct remote_schema *schema);

/* Appends a statement's JSON, {"sql":…}, with a comma before it when out has content. */
void remote_put_statement(struct buf *out, const char *sql, size_t len);

#endif

/*
 * remote_sql.h - the SELECT that a scan of another node's table is, and the statements that ask for it.
 *
 * A remote_shape is what SQLite wants of one such scan: columns, conditions, order, limit. It is written with its values as
 * one SELECT, or, when the conditions' values come from an outer loop, as one SELECT for many keys: a key is one set of
 * values. Every request reads the schema's version first, and the table's size, in the same remote transaction.
 * Pure; out->failed: out of memory.
 */
#ifndef GRIZZLY_COMMON_REMOTE_REMOTE_SQL_H
#define GRIZZLY_COMMON_REMOTE_REMOTE_SQL_H

#include "common/remote/remote_schema.h"

#define REMOTE_ROWID (-1)

struct remote_condition {
	int column;            /* REMOTE_ROWID: the rowid */
	unsigned char op;      /* SQLITE_INDEX_CONSTRAINT_… */
	const char *collation; /* static; NULL: the column's own */
	bool is_in;            /* its value is a list */
};

struct remote_order {
	int column;
	bool descending;
};

struct remote_shape {
	const struct remote_schema *schema; /* borrowed */
	int *columns;                       /* asked for, in this order; REMOTE_ROWID among them or not */
	size_t column_count;                /* at least one; a -2 stands for a column that nobody reads */
	struct remote_condition *conditions;
	size_t condition_count; /* each has a value, in the order of SQLite's arguments */
	struct remote_order *orders;
	size_t order_count;
	bool distinct;
	int limit, offset; /* which argument; -1: none */
};

/* A value of a condition. */
struct remote_argument {
	struct query_value value;
	const struct query_value *list; /* of an IN; else NULL */
	size_t list_len;
	bool skip; /* the condition is left to SQLite alone */
};

/* An operator that takes no value. */
bool remote_condition_is_unary(const struct remote_condition *c);
/* Whether the condition can come true only for a value that is not NULL. */
bool remote_condition_needs_value(const struct remote_condition *c);
/* Whether the other node, comparing with this value, finds at least what SQLite would find here, whatever the affinity of
 * the expression that the value came from. */
bool remote_condition_may_push(const struct remote_shape *shape, const struct remote_condition *c,
			       const struct query_value *v);

/* Appends the statements of a scan. limit: rows at most; UINT64_MAX: all. */
void remote_sql_put_scan(struct buf *out, const struct remote_shape *shape, const struct remote_argument *arguments,
			 uint64_t limit);

/* One of several keys: an argument for each condition. */
struct remote_key_values {
	const struct query_value *values;
};

/* Appends the statements that ask for count keys at once: rows are those of a scan with the key's number, from 0, before
 * them, and come in the keys' order. Conditions with a list are left out. */
void remote_sql_put_keys(struct buf *out, const struct remote_shape *shape, const struct remote_key_values *keys,
			 size_t count);
/* How many keys one request may ask for. */
size_t remote_sql_keys_max(const struct remote_shape *shape);

/* Appends the SELECT with ? for values, for people. keys: as it is for many keys. */
void remote_sql_put_text(struct buf *out, const struct remote_shape *shape, bool keys);

#endif

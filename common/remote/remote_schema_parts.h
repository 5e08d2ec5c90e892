/*
 * remote_schema_parts.h - what another node is asked about a table, and what its answers mean. Private to
 * remote_schema*.c. Pure; the answers are hostile.
 */
#ifndef GRIZZLY_COMMON_REMOTE_REMOTE_SCHEMA_PARTS_H
#define GRIZZLY_COMMON_REMOTE_REMOTE_SCHEMA_PARTS_H

#include "common/remote/remote_schema.h"

/* Appends the first request's statements: columns, and of a table its kind, primary key and indexes. */
void remote_schema_put_first(struct buf *out, const struct remote_schema *schema, const char *table);
/* The columns of statement 1. False: no memory. */
bool remote_schema_take_columns(struct remote_schema *schema, const struct rows_reader *r);
/* A row of one of the others. False: it is nothing that was asked for. */
bool remote_schema_take_first(struct remote_schema *schema, size_t result, const struct query_value *v, size_t columns);
/* All has come. False: it does not fit together. */
bool remote_schema_settle_first(struct remote_schema *schema);

/* Appends the second request's statements: how the columns compare, and the size. */
void remote_schema_put_second(struct buf *out, const struct remote_schema *schema, const char *table);
/* The same without the columns. */
void remote_schema_put_size(struct buf *out, const struct remote_schema *schema, const char *table);
bool remote_schema_take_second(struct remote_schema *schema, size_t result, const struct query_value *v,
			       size_t columns);

/* The affinity that a column declared so has. */
enum remote_affinity remote_type_affinity(const char *type);

#endif

/*
 * members_table.h - the members of the cluster as rows of the database, table _grizzly_members.
 *
 * Being rows, they are in the log, in every snapshot and in every copy of the database, and are restored with it. Rows of
 * another cluster (a database that was brought here) count as none. Written by the master's writer in a transaction
 * (master/master.c), read by it at the beginning of its term.
 */
#ifndef GRIZZLY_MASTER_MEMBERS_TABLE_H
#define GRIZZLY_MASTER_MEMBERS_TABLE_H

#include "common/base/buf.h"
#include "common/base/members.h"
#include "common/store/store.h"

/* The statements that replace the table's content, NUL-terminated; out->failed when memory is short. */
void members_table_put_sql(struct buf *out, const struct members *members, const uint8_t cluster_id[16]);

/* What the log has up to its tip, committed or not; *out is all zero (version 0) when there is nothing, or nothing that
 * makes sense, which is logged. While there is no writer: it takes the writer's connection (DB_BUSY). DB_NOMEM, DB_IO, … */
enum db_err members_table_read(struct members *out, struct store *store, const uint8_t cluster_id[16],
			       struct errmsg *em);

#endif

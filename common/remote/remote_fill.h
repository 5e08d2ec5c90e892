/*
 * remote_fill.h - INSERT INTO table SELECT … of other nodes' tables: the SELECT runs first, as any read with such tables, and
 * what it yields is handed to the writer with the rest of the statement.
 *
 * The writer never waits for another node. It gets the rows as one parameter, a blob of typed rows (typed_rows.h), and reads
 * them with the table-valued function grizzly_rows(blob), which every writing connection has.
 */
#ifndef GRIZZLY_COMMON_REMOTE_REMOTE_FILL_H
#define GRIZZLY_COMMON_REMOTE_REMOTE_FILL_H

#include <sqlite3.h>

#include "common/base/buf.h"
#include "common/query/federation.h"
#include "common/query/request.h"

#define REMOTE_FILL_COLUMNS_MAX 256

/* Where the SELECT of INSERT INTO table … SELECT … stands in the text, and what follows it. */
struct remote_fill_parts {
	size_t start, select, select_end, end;
};

/* Finds the parts of the one statement. SQL_ERROR: it is something else, or has what cannot be (message). Pure. */
enum query_code remote_fill_split(const struct federation *scan, const char *sql, size_t len,
				  struct remote_fill_parts *parts, struct query_error *error);

/* The request for the writer: the statement with rows (an answer in typed rows) in place of its SELECT. *out is one block for
 * query_request_free(); it borrows from, which it is a stand-in for. INTERNAL: no memory, or rows are no answer. TOO_LARGE: too
 * many columns. */
enum query_code remote_fill_build(struct query_request **out, const struct query_request *from,
				  const struct remote_fill_parts *parts, const struct buf *rows,
				  struct query_error *error);

/* Makes grizzly_rows() known to a connection that writes. An SQLite result code. */
int remote_fill_register(sqlite3 *db);

#endif

/*
 * receipts.h - what was answered to writes that carried a request_id, so that a repeat changes nothing.
 *
 * A receipt is a row of the table _grizzly_receipts in the database itself, written in the savepoint of its request:
 * it is there exactly when the write is, and goes wherever the log goes (replicas, snapshots, backups, restarts).
 * Clients may read the table; the authorizer and statement_cache.c keep them from writing it. It is made by the first
 * request_id.
 *
 * Rows are numbered without gaps (seq) and carry the running sum of their sizes, so that the first and the last row
 * tell how many there are and how large: no look beyond them is ever needed. The oldest ones go when there are too
 * many, too large or too old, a few with each new one: as many as give back what the new one takes, at least
 * PRUNE_ROWS_MIN. Invariant: once below its bounds by count and size, the table stays below them.
 *
 * On the connection's thread, inside the transaction of its caller; nothing is remembered outside the table but
 * prepared statements, so that a rollback needs no care.
 */
#ifndef GRIZZLY_COMMON_QUERY_RECEIPTS_H
#define GRIZZLY_COMMON_QUERY_RECEIPTS_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/query/answer.h"
#include "common/query/request.h"

#define RECEIPTS_PREFIX     "_grizzly_"       /* names that begin so are not the clients' to make or change */
#define RECEIPTS_ANSWER_MAX ((size_t)1 << 20) /* bytes of an answer that are kept; larger: TOO_LARGE, nothing is done */
#define RECEIPTS_COUNT_MAX  100000
#define RECEIPTS_AGE_MAX_MS ((uint64_t)86400000)
#define RECEIPTS_BYTES_MAX  ((uint64_t)64 << 20)
#define RECEIPTS_ROW_BYTES  64 /* what a row counts for besides its request_id and its answer */

/* How long receipts stay; 0: the defaults above. */
struct receipts_bounds {
	uint64_t count_max;
	uint64_t age_max_ms;
	uint64_t bytes_max;
};

struct query_conn;

/* The statements of one connection, made when first needed; part of query_conn. */
enum receipts_statement {
	RECEIPTS_FIND,
	RECEIPTS_LAST,
	RECEIPTS_OLDEST,
	RECEIPTS_INSERT,
	RECEIPTS_DELETE,
	RECEIPTS_STATEMENT_COUNT
};
struct receipts {
	sqlite3_stmt *statements[RECEIPTS_STATEMENT_COUNT];
};
void receipts_fini(struct receipts *r);

/* Looks for the receipt of request->request_id. *found: the answer (without trailer) is appended to out and *lsn is
 * the write's. BAD_REQUEST: the id belongs to a request that asked something else. */
enum query_code receipts_find(struct query_conn *c, const struct query_request *request, struct buf *out, bool *found,
			      uint64_t *lsn, struct query_error *error);
/* Keeps the receipt of a request that was just done and has none, and removes old ones. TOO_LARGE: see
 * RECEIPTS_ANSWER_MAX. After an error the request must be undone. */
enum query_code receipts_keep(struct query_conn *c, const struct query_request *request, const void *answer, size_t len,
			      struct query_error *error);

/* Calls each(arg, id, len, lsn) for every receipt of a record after lsn that db sees, newest first. For a store that
 * is about to lose those records. DB_OK also when there are none. */
enum db_err receipts_after(sqlite3 *db, uint64_t lsn, void (*each)(void *arg, const char *id, size_t len, uint64_t lsn),
			   void *arg, struct errmsg *em);

#endif

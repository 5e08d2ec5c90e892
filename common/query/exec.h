/*
 * exec.h - runs requests on one SQLite connection and writes their answers.
 *
 * A query_conn owns a sqlite3 connection, a statement cache keyed by SQL text, and the authorizer that decides what SQL
 * may do (docs/protocol.md, "Denied SQL"). One thread at a time. It knows nothing of HTTP, roles or the log: the caller
 * hands it connections (reader or writer) and says which LSN a snapshot has.
 */
#ifndef GRIZZLY_COMMON_QUERY_EXEC_H
#define GRIZZLY_COMMON_QUERY_EXEC_H

#include <sqlite3.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/query/receipts.h"
#include "common/query/request.h"

#define QUERY_VALUE_BYTES_MAX (64 << 20) /* of one text, blob or row; larger: TOO_LARGE */

struct query_conn;

struct query_conn_options {
	const char *node_id;                   /* for the trailer; borrowed, outlives the connection */
	size_t statement_cache_max;            /* prepared statements kept; 0: 256 */
	size_t result_bytes_max;               /* bytes of a write's RETURNING rows; 0: 64 MiB */
	uint64_t (*snapshot_lsn)(sqlite3 *db); /* LSN of the current read snapshot; NULL: always 0 */
	/* Of a connection that writes: */
	struct receipts_bounds receipts;
	uint64_t (*next_lsn)(void *arg); /* what the open transaction's record will have, for its receipts; NULL: 0 */
	void *next_lsn_arg;
};

/* Takes db on DB_OK (query_conn_free() closes it); on error it stays the caller's. Foreign keys are enforced, the schema is
 * not trusted, SQLite's defensive mode is on. */
enum db_err query_conn_create(struct query_conn **out, sqlite3 *db, const struct query_conn_options *options,
			      struct errmsg *em);
void query_conn_free(struct query_conn *c); /* NULL is fine */

enum query_kind {
	QUERY_KIND_READ,        /* every statement only reads */
	QUERY_KIND_WRITE,       /* goes to the writer, in a savepoint of a shared transaction */
	QUERY_KIND_WRITE_ALONE, /* VACUUM and the like: the writer runs it outside any transaction, alone */
};

/* Decides on a reader connection where a request belongs, by preparing its statements (cached) up to the first that
 * writes. What follows that one is left to the writer to judge, for it may need what an earlier one creates.
 * QUERY_OK, or the error to answer with (SQL_ERROR, FORBIDDEN, BAD_REQUEST, …). */
enum query_code query_classify(struct query_conn *c, const struct query_request *request, enum query_kind *kind,
			       struct query_error *error);

/* The role that a request which is known to write needs at least, by its text alone: WRITE, or ADMIN for what begins
 * like DDL. For requests that cannot be prepared any more, because they were done before. */
enum auth_role query_text_role(const struct query_request *request);

/* How far a read may go. ops_max holds until a first piece is flushed. */
struct query_read_limits {
	uint64_t ops_max;             /* SQLite virtual-machine steps, about; 0: no limit */
	size_t bytes_max;             /* answer bytes without a sink; 0: no limit */
	uint64_t deadline_ms;         /* clock_mono_ms(); 0: none. Past it: TIMEOUT */
	uint64_t result_rows_max;     /* of the whole request; 0: no limit. More: TOO_LARGE */
	uint64_t result_bytes_max;    /* of the whole answer; 0: no limit. More: TOO_LARGE */
	const atomic_bool *cancelled; /* set by another thread when the client has gone; NULL: never */
};

/* Where a long answer goes piece by piece. */
struct query_sink {
	/* Takes out's content (and leaves it cleared), blocking while the client is slow. False: the client has gone. */
	bool (*flush)(void *arg, struct buf *out);
	void *arg;
	size_t chunk_bytes; /* flush() is called whenever this much waits */
};

enum query_outcome {
	QUERY_ANSWERED,    /* out holds the answer, or its last piece when a sink was used */
	QUERY_FAILED,      /* nothing of the answer was flushed; *error is the answer */
	QUERY_OVER_BUDGET, /* ops_max or bytes_max was exceeded, nothing was flushed: run it again elsewhere */
	QUERY_BROKEN, /* failed after a piece was flushed: out holds the end that says so, then close the connection */
	QUERY_GONE,   /* the client has gone; nothing more to say */
};

/* The answers: objects name a repeated column "name:1", "name:2", …; ndjson is for a single statement that reads. */

/* Runs a request of kind READ in one snapshot. Without a sink the whole answer (status first) is left in out; with one,
 * pieces are flushed and status is written last. started_us is clock_mono_us() at the request's arrival, for time_ms. */
enum query_outcome query_read(struct query_conn *c, const struct query_request *request,
			      const struct query_read_limits *limits, const struct query_sink *sink,
			      uint64_t started_us, struct buf *out, struct query_error *error);

/* The writer's shared transaction. Begin, any number of query_write(), then commit or roll back. */
enum db_err query_batch_begin(struct query_conn *c, struct errmsg *em);
enum db_err query_batch_commit(struct query_conn *c, struct errmsg *em); /* on error it has been rolled back */
void query_batch_rollback(struct query_conn *c);

/* Runs one request of kind WRITE inside the batch, in a savepoint of its own: a failure undoes this request alone and is
 * returned in *error (out untouched). On QUERY_OK out holds the answer without its trailer (answer_put_trailer() ends
 * it, once the batch is committed). Foreign keys that are deferred are checked at the end of the request. Outside a
 * batch a request is a transaction of its own, and only there requests of kind WRITE_ALONE run.
 *
 * *batch_lost is set when SQLite rolled the whole transaction back, so that nothing of the batch has happened. *error is
 * then this request's own and final. Call query_batch_rollback(); whose fault it was tells error->code:
 *  - INTERNAL: the node's (disk full, out of memory, input/output): the other requests of the batch would meet it too,
 *    answer them with the same error.
 *  - anything else (CONSTRAINT by OR ROLLBACK or RAISE(ROLLBACK), TIMEOUT: SQLite undoes everything when it interrupts a
 *    statement that writes): this request's alone. Run the others again, without it, in a new batch. */
enum query_code query_write(struct query_conn *c, const struct query_request *request, uint64_t deadline_ms,
			    struct buf *out, struct query_error *error, bool *batch_lost);
/* The same for statements of the node's own, in a batch: no rule for clients holds, nothing is answered. */
enum query_code query_write_trusted(struct query_conn *c, const char *sql, struct query_error *error, bool *batch_lost);

/* A request with a request_id that was done before, by the transaction's own or any earlier record, is not done again:
 * out has the first answer and "repeated". The LSN of that first time, after query_write() returned QUERY_OK; 0: it was
 * done now. Whatever was done is to be answered when everything the connection saw is committed. */
uint64_t query_repeated_lsn(const struct query_conn *c);

/* Whether the snapshot that c sees has the write of request_id (NUL-terminated), and at which LSN. */
enum query_code query_find_write(struct query_conn *c, const char *request_id, bool *found, uint64_t *lsn,
				 struct query_error *error);

#endif

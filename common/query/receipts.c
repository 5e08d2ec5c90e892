/*
 * receipts.c - see receipts.h. Every statement here runs trusted: the authorizer knows clients' statements only.
 *
 * The table's layout (a change needs another name, for databases live long):
 *   seq          1, 2, 3, … without gaps: rows are added behind the last and removed before the first
 *   request_id   the client's
 *   lsn          of the log record that has the write and this row
 *   time_ms      wall clock of the master that wrote it
 *   bytes        what the row counts for: RECEIPTS_ROW_BYTES and the lengths of request_id and answer
 *   bytes_end    the sum of bytes of this row and all before it, removed ones too
 *   fingerprint  query_request_fingerprint()
 *   answer       the JSON up to its trailer; last, so that its overflow pages are read for a repeat only
 */
#include "common/query/receipts.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/query/conn.h"

#define TABLE          RECEIPTS_PREFIX "receipts"
#define PRUNE_ROWS_MIN 4

static const char create_sql[] =
    "CREATE TABLE " TABLE "(seq INTEGER PRIMARY KEY, request_id TEXT NOT NULL UNIQUE, lsn INTEGER NOT NULL, "
    "time_ms INTEGER NOT NULL, bytes INTEGER NOT NULL, bytes_end INTEGER NOT NULL, fingerprint BLOB NOT NULL, "
    "answer BLOB NOT NULL)";

static const char *const statement_sql[RECEIPTS_STATEMENT_COUNT] = {
    [RECEIPTS_FIND] = "SELECT lsn, fingerprint, answer FROM " TABLE " WHERE request_id = ?1",
    [RECEIPTS_LAST] = "SELECT seq, bytes_end FROM " TABLE " ORDER BY seq DESC LIMIT 1",
    [RECEIPTS_OLDEST] = "SELECT seq, time_ms, bytes_end - bytes FROM " TABLE " ORDER BY seq LIMIT 1",
    [RECEIPTS_INSERT] = "INSERT INTO " TABLE " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    [RECEIPTS_DELETE] = "DELETE FROM " TABLE " WHERE seq = ?1",
};

/* The two ends of the table. */
struct ends {
	int64_t last_seq;
	int64_t bytes_end;
};

/* Our own statements' failures: never the client's fault. */
static enum query_code failed(struct query_conn *c, int rc, struct query_error *error)
{
	enum query_code code = conn_error(c, rc, error);

	if (code == QUERY_SQL_ERROR || code == QUERY_CONSTRAINT || code == QUERY_FORBIDDEN)
		code = query_error_set(error, QUERY_INTERNAL, "the table " TABLE " cannot be used: %s",
				       sqlite3_errmsg(c->db));
	return code;
}

/* ---- statements */

void receipts_fini(struct receipts *r)
{
	size_t i;

	for (i = 0; i < RECEIPTS_STATEMENT_COUNT; i++) {
		sqlite3_finalize(r->statements[i]); /* returns an old step's error, already dealt with */
		r->statements[i] = NULL;
	}
}

static int step(struct query_conn *c, enum receipts_statement which)
{
	authorizer_enter(&c->authorizer, AUTHORIZER_TRUSTED); /* SQLite may prepare it anew */
	return sqlite3_step(c->receipts.statements[which]);
}

/* Returns rc, or what resetting says, which is the same for a failed step. */
static int finish(struct query_conn *c, enum receipts_statement which, int rc)
{
	sqlite3_stmt *stmt = c->receipts.statements[which];

	sqlite3_reset(stmt); /* a failed step's error, which rc is */
	sqlite3_clear_bindings(stmt);
	c->authorizer.phase = AUTHORIZER_STEP;
	return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int table_exists(sqlite3 *db, bool *exists)
{
	sqlite3_stmt *stmt;
	int rc = sqlite3_prepare_v2(db, "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '" TABLE "'", -1,
				    &stmt, NULL);

	*exists = false;
	if (rc != SQLITE_OK)
		return rc;
	rc = sqlite3_step(stmt);
	*exists = rc == SQLITE_ROW;
	sqlite3_finalize(stmt); /* a failed step's error, which rc is */
	return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int prepare_all(struct query_conn *c)
{
	int rc = SQLITE_OK;
	size_t i;

	for (i = 0; i < RECEIPTS_STATEMENT_COUNT && rc == SQLITE_OK; i++)
		if (c->receipts.statements[i] == NULL)
			rc = sqlite3_prepare_v3(c->db, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT,
						&c->receipts.statements[i], NULL);
	return rc;
}

/* Prepares what is not prepared. *exists: there is a table, which is made when create is set. */
static int open_table(struct query_conn *c, bool create, bool *exists)
{
	int rc = SQLITE_OK;

	*exists = c->receipts.statements[RECEIPTS_STATEMENT_COUNT - 1] != NULL;
	if (*exists)
		return SQLITE_OK;
	authorizer_enter(&c->authorizer, AUTHORIZER_TRUSTED);
	rc = table_exists(c->db, exists);
	if (rc == SQLITE_OK && !*exists && create) {
		rc = sqlite3_exec(c->db, create_sql, NULL, NULL, NULL);
		*exists = rc == SQLITE_OK;
	}
	if (rc == SQLITE_OK && *exists)
		rc = prepare_all(c);
	c->authorizer.phase = AUTHORIZER_STEP;
	return rc;
}

/* ---- finding */

/* SQLITE_ROW: the FIND statement stands on the receipt and must be finished. SQLITE_DONE: there is none. */
static int seek(struct query_conn *c, const char *id)
{
	bool exists, again;
	int rc;

	do {
		rc = open_table(c, false, &exists);
		if (rc != SQLITE_OK || !exists)
			return rc == SQLITE_OK ? SQLITE_DONE : rc;
		rc = sqlite3_bind_text(c->receipts.statements[RECEIPTS_FIND], 1, id, -1, SQLITE_STATIC);
		if (rc == SQLITE_OK)
			rc = step(c, RECEIPTS_FIND);
		if (rc == SQLITE_ROW)
			return rc;
		finish(c, RECEIPTS_FIND, rc);
		/* The table may have gone with the transaction that made it; then the statements go, too. */
		again = rc == SQLITE_ERROR && table_exists(c->db, &exists) == SQLITE_OK && !exists;
		if (again)
			receipts_fini(&c->receipts);
	} while (again);
	return rc;
}

static enum query_code take_answer(struct query_conn *c, const struct query_request *request, struct buf *out,
				   uint64_t *lsn, struct query_error *error)
{
	sqlite3_stmt *stmt = c->receipts.statements[RECEIPTS_FIND];
	uint8_t fingerprint[QUERY_FINGERPRINT_SIZE];
	const void *kept = sqlite3_column_blob(stmt, 1), *answer;

	query_request_fingerprint(request, fingerprint);
	*lsn = (uint64_t)sqlite3_column_int64(stmt, 0);
	if (kept == NULL || sqlite3_column_bytes(stmt, 1) != QUERY_FINGERPRINT_SIZE ||
	    memcmp(kept, fingerprint, QUERY_FINGERPRINT_SIZE) != 0)
		return query_error_set(error, QUERY_BAD_REQUEST,
				       "request_id \"%s\" was used for another request, which was done at lsn %" PRIu64,
				       request->request_id, *lsn);
	answer = sqlite3_column_blob(stmt, 2);
	if (answer == NULL)
		return failed(c, SQLITE_NOMEM, error); /* no answer is empty */
	buf_put(out, answer, (size_t)sqlite3_column_bytes(stmt, 2));
	buf_puts(out, ",\"repeated\":true");
	return out->failed ? failed(c, SQLITE_NOMEM, error) : QUERY_OK;
}

enum query_code receipts_find(struct query_conn *c, const struct query_request *request, struct buf *out, bool *found,
			      uint64_t *lsn, struct query_error *error)
{
	int rc = seek(c, request->request_id);
	enum query_code code;

	*found = rc == SQLITE_ROW;
	if (rc == SQLITE_DONE)
		return QUERY_OK;
	if (rc != SQLITE_ROW)
		return failed(c, rc, error);
	code = take_answer(c, request, out, lsn, error);
	finish(c, RECEIPTS_FIND, rc);
	return code;
}

enum query_code query_find_write(struct query_conn *c, const char *request_id, bool *found, uint64_t *lsn,
				 struct query_error *error)
{
	int rc = seek(c, request_id);

	*found = rc == SQLITE_ROW;
	if (rc == SQLITE_DONE)
		return QUERY_OK;
	if (rc != SQLITE_ROW)
		return failed(c, rc, error);
	*lsn = (uint64_t)sqlite3_column_int64(c->receipts.statements[RECEIPTS_FIND], 0);
	finish(c, RECEIPTS_FIND, rc);
	return QUERY_OK;
}

/* ---- keeping */

static int read_last(struct query_conn *c, struct ends *e)
{
	sqlite3_stmt *stmt = c->receipts.statements[RECEIPTS_LAST];
	int rc = step(c, RECEIPTS_LAST);

	memset(e, 0, sizeof(*e));
	if (rc == SQLITE_ROW) {
		e->last_seq = sqlite3_column_int64(stmt, 0);
		e->bytes_end = sqlite3_column_int64(stmt, 1);
	}
	return finish(c, RECEIPTS_LAST, rc);
}

static int insert(struct query_conn *c, const struct query_request *request, const void *answer, size_t len,
		  int64_t bytes, int64_t now_ms, struct ends *e)
{
	sqlite3_stmt *stmt = c->receipts.statements[RECEIPTS_INSERT];
	uint64_t lsn = c->options.next_lsn != NULL ? c->options.next_lsn(c->options.next_lsn_arg) : 0;
	uint8_t fingerprint[QUERY_FINGERPRINT_SIZE];
	int rc;

	query_request_fingerprint(request, fingerprint);
	e->last_seq++;
	e->bytes_end += bytes;
	rc = sqlite3_bind_int64(stmt, 1, e->last_seq);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_text(stmt, 2, request->request_id, -1, SQLITE_STATIC);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_int64(stmt, 3, (int64_t)lsn);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_int64(stmt, 4, now_ms);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_int64(stmt, 5, bytes);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_int64(stmt, 6, e->bytes_end);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_blob(stmt, 7, fingerprint, sizeof(fingerprint), SQLITE_STATIC);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_blob64(stmt, 8, answer, len, SQLITE_STATIC);
	if (rc == SQLITE_OK)
		rc = step(c, RECEIPTS_INSERT);
	return finish(c, RECEIPTS_INSERT, rc);
}

/* Whether the oldest receipt, of which seq, time_ms and the bytes before it are given, has to go. */
static bool is_over(const struct receipts_bounds *bounds, const struct ends *e, int64_t seq, int64_t time_ms,
		    int64_t bytes_before, int64_t now_ms)
{
	if (seq >= e->last_seq)
		return false; /* the newest one stays in any case */
	return (uint64_t)(e->last_seq - seq) >= bounds->count_max ||
	       (uint64_t)(e->bytes_end - bytes_before) > bounds->bytes_max ||
	       (now_ms > time_ms && (uint64_t)(now_ms - time_ms) > bounds->age_max_ms);
}

/* Removes the oldest receipt if it has to go. */
static int prune_one(struct query_conn *c, const struct ends *e, int64_t now_ms, bool *pruned)
{
	sqlite3_stmt *oldest = c->receipts.statements[RECEIPTS_OLDEST];
	int64_t seq = 0;
	int rc = step(c, RECEIPTS_OLDEST);

	*pruned = false;
	if (rc == SQLITE_ROW) {
		seq = sqlite3_column_int64(oldest, 0);
		*pruned = is_over(&c->options.receipts, e, seq, sqlite3_column_int64(oldest, 1),
				  sqlite3_column_int64(oldest, 2), now_ms);
	}
	rc = finish(c, RECEIPTS_OLDEST, rc);
	if (rc != SQLITE_OK || !*pruned)
		return rc;
	rc = sqlite3_bind_int64(c->receipts.statements[RECEIPTS_DELETE], 1, seq);
	if (rc == SQLITE_OK)
		rc = step(c, RECEIPTS_DELETE);
	return finish(c, RECEIPTS_DELETE, rc);
}

static int prune(struct query_conn *c, const struct ends *e, int64_t bytes, int64_t now_ms)
{
	int64_t left = PRUNE_ROWS_MIN + bytes / RECEIPTS_ROW_BYTES; /* no row counts for less than RECEIPTS_ROW_BYTES */
	bool pruned = true;
	int rc = SQLITE_OK;

	while (rc == SQLITE_OK && pruned && left-- > 0)
		rc = prune_one(c, e, now_ms, &pruned);
	return rc;
}

enum query_code receipts_keep(struct query_conn *c, const struct query_request *request, const void *answer, size_t len,
			      struct query_error *error)
{
	int64_t bytes = (int64_t)(RECEIPTS_ROW_BYTES + strlen(request->request_id) + len);
	int64_t now_ms = (int64_t)(clock_wall_us() / 1000);
	struct ends ends;
	bool exists;
	int rc;

	if (len > RECEIPTS_ANSWER_MAX)
		return query_error_set(error, QUERY_TOO_LARGE,
				       "the answer has %zu bytes, at most %zu are kept for a request_id: ask for less "
				       "with RETURNING, or leave out the request_id",
				       len, RECEIPTS_ANSWER_MAX);
	rc = open_table(c, true, &exists);
	if (rc == SQLITE_OK)
		rc = read_last(c, &ends);
	if (rc == SQLITE_OK)
		rc = insert(c, request, answer, len, bytes, now_ms, &ends);
	if (rc == SQLITE_OK)
		rc = prune(c, &ends, bytes, now_ms);
	return rc == SQLITE_OK ? QUERY_OK : failed(c, rc, error);
}

/* ---- before a cut */

enum db_err receipts_after(sqlite3 *db, uint64_t lsn, void (*each)(void *arg, const char *id, size_t len, uint64_t lsn),
			   void *arg, struct errmsg *em)
{
	sqlite3_stmt *stmt = NULL;
	bool exists;
	int rc = table_exists(db, &exists);

	if (rc == SQLITE_OK && exists)
		rc = sqlite3_prepare_v2(db, "SELECT lsn, request_id FROM " TABLE " ORDER BY seq DESC", -1, &stmt, NULL);
	while (stmt != NULL && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
		const char *id = (const char *)sqlite3_column_text(stmt, 1);
		uint64_t at = (uint64_t)sqlite3_column_int64(stmt, 0);

		if (at <= lsn || id == NULL)
			break; /* LSNs ascend with seq */
		each(arg, id, (size_t)sqlite3_column_bytes(stmt, 1), at);
	}
	sqlite3_finalize(stmt); /* a failed step's error, which rc is */
	if (rc == SQLITE_OK || rc == SQLITE_DONE || rc == SQLITE_ROW)
		return DB_OK;
	return errmsg_set(em, DB_IO, "cannot read the receipts of the records to be cut: SQLite error %d", rc);
}

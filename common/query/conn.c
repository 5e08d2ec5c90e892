/*
 * conn.c - see conn.h: a connection made safe to hand clients' SQL to, its own statements, and what SQLite's errors mean.
 */
#include "common/query/conn.h"

#include <stdlib.h>

#include "common/base/log.h"

#define STATEMENT_CACHE_MAX_DEFAULT 256
#define RESULT_BYTES_MAX_DEFAULT    ((size_t)64 << 20)
#define VARIABLES_MAX               32766 /* SQLite's own default; distributions raise it, and its parser is quadratic in it */

static const char *const control_sql[CONN_CONTROL_COUNT] = {
    [CONN_BEGIN] = "BEGIN",
    [CONN_BEGIN_IMMEDIATE] = "BEGIN IMMEDIATE",
    [CONN_COMMIT] = "COMMIT",
    [CONN_ROLLBACK] = "ROLLBACK",
    [CONN_SAVEPOINT] = "SAVEPOINT grizzly_request",
    [CONN_RELEASE] = "RELEASE grizzly_request",
    [CONN_ROLLBACK_TO] = "ROLLBACK TO grizzly_request",
};

/* What stays of the virtual tables that SQLite has built in: some are tables without being created, and would read
 * files. The pragma_... ones come by themselves, and the authorizer is asked about them. */
static const char *modules[] = {"json_each", "json_tree", "dbstat",       "sqlite_stmt", "fts3",      "fts4",    "fts5",
				"fts4aux",   "fts5vocab", "fts3tokenize", "rtree",       "rtree_i32", "geopoly", NULL};

static int configure(sqlite3 *db)
{
	static const struct {
		int option, value;
	} settings[] = {
	    {SQLITE_DBCONFIG_DEFENSIVE, 1},      {SQLITE_DBCONFIG_WRITABLE_SCHEMA, 0},
	    {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0}, {SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0},
	    {SQLITE_DBCONFIG_ENABLE_FKEY, 1},    {SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, 0},
	};
	size_t i;
	int rc;

	for (i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		rc = sqlite3_db_config(db, settings[i].option, settings[i].value, (int *)NULL);
		if (rc != SQLITE_OK)
			return rc;
	}
	rc = sqlite3_drop_modules(db, modules);
	if (rc != SQLITE_OK)
		return rc;
	sqlite3_limit(db, SQLITE_LIMIT_LENGTH, QUERY_VALUE_BYTES_MAX);
	sqlite3_limit(db, SQLITE_LIMIT_VARIABLE_NUMBER, VARIABLES_MAX);
	return sqlite3_extended_result_codes(db, 1);
}

/* Leaves the connection as if it had never been ours, but for its settings. */
static void release(struct query_conn *c)
{
	size_t i;

	for (i = 0; i < CONN_CONTROL_COUNT; i++)
		sqlite3_finalize(c->control[i]); /* returns an old step's error, already dealt with */
	receipts_fini(&c->receipts);
	statement_cache_free(c->cache);
	sqlite3_set_authorizer(c->db, NULL, NULL);
	sqlite3_progress_handler(c->db, 0, NULL, NULL);
	free(c);
}

enum db_err query_conn_create(struct query_conn **out, sqlite3 *db, const struct query_conn_options *options,
			      struct errmsg *em)
{
	struct query_conn *c = calloc(1, sizeof(*c));
	enum db_err err;
	size_t i;
	int rc;

	*out = NULL;
	if (c == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	c->db = db;
	c->options = *options;
	if (c->options.statement_cache_max == 0)
		c->options.statement_cache_max = STATEMENT_CACHE_MAX_DEFAULT;
	if (c->options.result_bytes_max == 0)
		c->options.result_bytes_max = RESULT_BYTES_MAX_DEFAULT;
	if (c->options.receipts.count_max == 0)
		c->options.receipts.count_max = RECEIPTS_COUNT_MAX;
	if (c->options.receipts.age_max_ms == 0)
		c->options.receipts.age_max_ms = RECEIPTS_AGE_MAX_MS;
	if (c->options.receipts.bytes_max == 0)
		c->options.receipts.bytes_max = RECEIPTS_BYTES_MAX;
	rc = configure(db);
	for (i = 0; i < CONN_CONTROL_COUNT && rc == SQLITE_OK; i++)
		rc = sqlite3_prepare_v3(db, control_sql[i], -1, SQLITE_PREPARE_PERSISTENT, &c->control[i], NULL);
	if (rc == SQLITE_OK)
		c->cache = statement_cache_create(db, &c->authorizer, c->options.statement_cache_max);
	if (c->cache == NULL) {
		err = conn_db_error(c, rc == SQLITE_OK ? SQLITE_NOMEM : rc, em, "cannot set up a connection");
		release(c);
		return err;
	}
	authorizer_install(&c->authorizer, db);
	guard_install(&c->guard, db);
	*out = c;
	return DB_OK;
}

void query_conn_free(struct query_conn *c)
{
	sqlite3 *db;
	int rc;

	if (c == NULL)
		return;
	db = c->db;
	if (conn_in_transaction(c))
		conn_rollback(c);
	release(c);
	rc = sqlite3_close(db);
	if (rc != SQLITE_OK)
		log_error("query connection cannot be closed why=\"%s\"", sqlite3_errmsg(db));
}

int conn_control(struct query_conn *c, enum conn_control which)
{
	int rc;

	/* Trusted also while it runs: SQLite may prepare it anew, and asks again then. */
	authorizer_enter(&c->authorizer, AUTHORIZER_TRUSTED);
	rc = sqlite3_step(c->control[which]);
	sqlite3_reset(c->control[which]); /* returns rc again */
	c->authorizer.phase = AUTHORIZER_STEP;
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

bool conn_in_transaction(const struct query_conn *c)
{
	return sqlite3_get_autocommit(c->db) == 0;
}

void conn_rollback(struct query_conn *c)
{
	int rc = SQLITE_OK;

	if (conn_in_transaction(c))
		rc = conn_control(c, CONN_ROLLBACK);
	if (rc != SQLITE_OK)
		log_error("query rollback failed rc=%d why=\"%s\"", rc, sqlite3_errmsg(c->db));
}

static enum query_code interrupted(struct query_conn *c, struct query_error *error)
{
	switch (c->guard.stop) {
	case GUARD_TOO_LATE:
		return query_error_set(error, QUERY_TIMEOUT, "the request ran out of time and was stopped");
	case GUARD_OVER_BUDGET:
		return query_error_set(error, QUERY_TIMEOUT, "the request took too many operations and was stopped");
	case GUARD_CANCELLED:
	case GUARD_GO:
		break;
	}
	return query_error_set(error, QUERY_INTERNAL, "the request was interrupted");
}

enum query_code conn_error(struct query_conn *c, int rc, struct query_error *error)
{
	const char *text = sqlite3_errmsg(c->db);

	/* A denial comes as SQLITE_AUTH, as SQLITE_ERROR when a function is denied. */
	if (c->authorizer.reason[0] != '\0' && rc != SQLITE_NOMEM)
		return query_error_set(error, QUERY_FORBIDDEN, "%s", c->authorizer.reason);
	switch (rc & 0xFF) {
	case SQLITE_ERROR:
	case SQLITE_MISMATCH:
	case SQLITE_SCHEMA:
	case SQLITE_RANGE:
		return query_error_set(error, QUERY_SQL_ERROR, "%s", text);
	case SQLITE_CONSTRAINT:
		return query_error_set(error, QUERY_CONSTRAINT, "%s", text);
	case SQLITE_AUTH:
		return query_error_set(error, QUERY_FORBIDDEN, "%s", text);
	case SQLITE_TOOBIG:
		return query_error_set(error, QUERY_TOO_LARGE, "%s", text);
	case SQLITE_INTERRUPT:
		return interrupted(c, error);
	case SQLITE_BUSY:
		return query_error_set(error, QUERY_OVERLOADED, "the database is busy; try again");
	case SQLITE_NOMEM:
		return query_error_set(error, QUERY_INTERNAL, "out of memory");
	case SQLITE_FULL:
		return query_error_set(error, QUERY_INTERNAL, "the disk is full: the request was not done");
	case SQLITE_IOERR:
		return query_error_set(error, QUERY_INTERNAL,
				       "input/output error (SQLite %d): the request was not done", rc);
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return query_error_set(error, QUERY_INTERNAL, "the database is corrupt on this node (SQLite %d): %s",
				       rc, text);
	case SQLITE_READONLY:
		return query_error_set(error, QUERY_INTERNAL,
				       "a request that writes came to a connection that only reads");
	default:
		return query_error_set(error, QUERY_INTERNAL, "SQLite error %d: %s", rc, text);
	}
}

enum db_err conn_db_error(struct query_conn *c, int rc, struct errmsg *em, const char *what)
{
	enum db_err err;

	switch (rc & 0xFF) {
	case SQLITE_NOMEM:
		err = DB_NOMEM;
		break;
	case SQLITE_FULL:
		err = DB_FULL;
		break;
	case SQLITE_TOOBIG:
		err = DB_TOO_LARGE;
		break;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		err = DB_CORRUPT;
		break;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		err = DB_BUSY;
		break;
	case SQLITE_CONSTRAINT:
	case SQLITE_ERROR:
	case SQLITE_MISUSE:
		err = DB_INVALID;
		break;
	default:
		err = DB_IO;
	}
	return errmsg_set(em, err, "%s: %s (SQLite %d)", what,
			  rc == SQLITE_NOMEM ? "out of memory" : sqlite3_errmsg(c->db), rc);
}

/*
 * sql_work.c - see sql_work.h.
 */
#include "tests/bench/sql_work.h"

#include <stddef.h>

#include "common/base/clock.h"

bool sql_work_exec(sqlite3 *db, const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

bool sql_work_fill(sqlite3 *db)
{
	return sql_work_exec(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, amount REAL)") &&
	       sql_work_exec(db, "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100000) "
				 "INSERT INTO t SELECT n, 'name of row ' || n, n * 0.25 FROM c");
}

static bool select_one(sqlite3_stmt *stmt, sqlite3_int64 id)
{
	bool found;

	sqlite3_bind_int64(stmt, 1, id);
	found = sqlite3_step(stmt) == SQLITE_ROW && sqlite3_column_int64(stmt, 0) == id &&
		sqlite3_column_text(stmt, 1) != NULL && sqlite3_column_double(stmt, 2) > 0;
	return found && sqlite3_step(stmt) == SQLITE_DONE && sqlite3_reset(stmt) == SQLITE_OK;
}

bool sql_work_selects(sqlite3 *db, uint64_t duration_ms, double *per_s)
{
	uint64_t start_us = clock_mono_us(), now_us = start_us, count = 0, random = 88172645463325252ULL;
	sqlite3_stmt *stmt = NULL;
	bool ok;

	ok = sqlite3_prepare_v2(db, "SELECT id, name, amount FROM t WHERE id = ?", -1, &stmt, NULL) == SQLITE_OK;
	while (ok && now_us < start_us + duration_ms * 1000) {
		for (int i = 0; ok && i < 256; i++, count++) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			ok = select_one(stmt, (sqlite3_int64)(random % SQL_WORK_ROWS + 1));
		}
		now_us = clock_mono_us();
	}
	sqlite3_finalize(stmt);
	*per_s = (double)count * 1e6 / (double)(now_us - start_us + 1);
	return ok;
}

static bool insert_rows(sqlite3 *db, sqlite3_stmt *stmt, unsigned rows, const struct sql_work_commit *commit)
{
	if (!sql_work_exec(db, "BEGIN IMMEDIATE"))
		return false;
	for (unsigned i = 0; i < rows; i++) {
		sqlite3_bind_text(stmt, 1, "a name of usual length", -1, SQLITE_STATIC);
		sqlite3_bind_double(stmt, 2, 12.75);
		if (sqlite3_step(stmt) != SQLITE_DONE || sqlite3_reset(stmt) != SQLITE_OK)
			return false;
	}
	return sql_work_exec(db, "COMMIT") && (commit == NULL || commit->done(commit->arg));
}

bool sql_work_inserts(sqlite3 *db, unsigned rows_per_commit, uint64_t duration_ms, const struct sql_work_commit *commit,
		      double *rows_per_s)
{
	uint64_t start_us = clock_mono_us(), now_us = start_us, count = 0;
	sqlite3_stmt *stmt = NULL;
	bool ok;

	ok = sqlite3_prepare_v2(db, "INSERT INTO t(name, amount) VALUES(?, ?)", -1, &stmt, NULL) == SQLITE_OK;
	while (ok && now_us < start_us + duration_ms * 1000) {
		ok = insert_rows(db, stmt, rows_per_commit, commit);
		count += rows_per_commit;
		now_us = clock_mono_us();
	}
	sqlite3_finalize(stmt);
	*rows_per_s = (double)count * 1e6 / (double)(now_us - start_us + 1);
	return ok;
}

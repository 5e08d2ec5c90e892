/*
 * sql_work.h - the same SQL work for SQLite in process and for our store, so that their rates compare.
 *
 * Table t(id INTEGER PRIMARY KEY, name TEXT, amount REAL) with SQL_WORK_ROWS rows. One thread; every function answers
 * false when SQLite refused, and the connection knows why.
 */
#ifndef GRIZZLY_TESTS_BENCH_SQL_WORK_H
#define GRIZZLY_TESTS_BENCH_SQL_WORK_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#define SQL_WORK_ROWS 100000

/* Called after each COMMIT, to make it durable where SQLite does not. */
struct sql_work_commit {
	bool (*done)(void *arg);
	void *arg;
};

bool sql_work_exec(sqlite3 *db, const char *sql);
/* Creates and fills the table in one transaction. */
bool sql_work_fill(sqlite3 *db);
/* Prepared point SELECTs by random id, each a transaction of its own. */
bool sql_work_selects(sqlite3 *db, uint64_t duration_ms, double *per_s);
/* Prepared single-row INSERTs, rows_per_commit in one transaction; *rows_per_s. commit may be NULL. */
bool sql_work_inserts(sqlite3 *db, unsigned rows_per_commit, uint64_t duration_ms, const struct sql_work_commit *commit,
		      double *rows_per_s);

#endif

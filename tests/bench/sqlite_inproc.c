/*
 * sqlite_inproc.c - the yardstick of the SQL engine: SQLite called in process, its own WAL mode, synchronous=FULL.
 *
 * No server, no replication, one thread: what remains of these figures behind HTTP is what the server costs. Measures
 * prepared point SELECTs, single-row commits, commits of 64 rows, and one transaction of 1000 rows. One JSON line.
 *
 * Exit: 0 ran, 1 failed, 2 bad usage.
 */
#include <inttypes.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/sql_work.h"

static bool open_database(sqlite3 **db, const char *path)
{
	if (sqlite3_open_v2(path, db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) !=
	    SQLITE_OK)
		return false;
	return sql_work_exec(*db, "PRAGMA journal_mode=WAL") && sql_work_exec(*db, "PRAGMA synchronous=FULL");
}

static void remove_files(const char *path)
{
	static const char *const suffixes[] = {"", "-wal", "-shm"};
	char name[4096];

	for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
		snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
		unlink(name);
	}
}

int main(int argc, char **argv)
{
	double selects, single, batches, thousand;
	sqlite3 *writer = NULL, *reader = NULL;
	uint64_t duration_ms;
	int status = 1;

	if (argc < 2 || argc > 3) {
		fputs("usage: sqlite_inproc NEW_DATABASE_FILE [DURATION_MS]\n", stderr);
		return 2;
	}
	duration_ms = argc == 3 ? strtoull(argv[2], NULL, 10) : 1000;
	remove_files(argv[1]);
	if (open_database(&writer, argv[1]) && open_database(&reader, argv[1]) && sql_work_fill(writer) &&
	    sql_work_selects(reader, duration_ms, &selects) &&
	    sql_work_inserts(writer, 1, duration_ms, NULL, &single) &&
	    sql_work_inserts(writer, 64, duration_ms, NULL, &batches) &&
	    sql_work_inserts(writer, 1000, duration_ms, NULL, &thousand)) {
		printf("{\"selects_per_s\":%.0f,\"single_row_commits_per_s\":%.0f,\"rows_per_s_64\":%.0f,"
		       "\"rows_per_s_1000\":%.0f}\n",
		       selects, single, batches, thousand);
		status = 0;
	} else {
		fprintf(stderr, "sqlite_inproc: %s\n", sqlite3_errmsg(writer));
	}
	sqlite3_close(reader);
	sqlite3_close(writer);
	remove_files(argv[1]);
	return status;
}

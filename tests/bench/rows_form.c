/*
 * rows_form.c - what the two forms of rows between nodes cost: rows a second, written from SQLite and read again.
 *
 *	rows_form [ROWS [ROUNDS]]
 *
 * A table of ROWS (100000) rows (id integer primary key, name text, amount real, grp = id % 100) in memory is read with
 * query_read() into a buffer, and that buffer by a rows_reader in pieces of 16 KiB. Prints the median CPU time of ROUNDS
 * (7) for each; "step" is SQLite's own part, the same for both. Yardstick for common/query/typed_rows.c and
 * common/remote/rows_*.c.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/query/exec.h"
#include "common/remote/rows_reader.h"

#define ROUNDS_MAX 101
#define PIECE      ((size_t)16 << 10)
#define QUERY      "SELECT * FROM t"

static void die(const char *what)
{
	fprintf(stderr, "rows_form: %s\n", what);
	exit(1);
}

/* Of this thread: what else the machine does is not counted. */
static uint64_t cpu_us(void)
{
	struct timespec t;

	if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) != 0)
		die("no clock");
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static struct query_conn *open_table(unsigned rows, sqlite3 **db)
{
	const struct query_conn_options options = {.node_id = "bench"};
	struct query_conn *c;
	struct errmsg em = {0};
	char sql[512];

	snprintf(sql, sizeof(sql),
		 "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, amount REAL, grp INTEGER);"
		 "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %u)"
		 "INSERT INTO t SELECT i, 'customer '||i, i * 1.37, i %% 100 FROM n",
		 rows);
	if (sqlite3_open_v2(":memory:", db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) !=
		SQLITE_OK ||
	    sqlite3_exec(*db, sql, NULL, NULL, NULL) != SQLITE_OK)
		die("cannot make the table");
	if (query_conn_create(&c, *db, &options, &em) != DB_OK)
		die(em.text);
	return c;
}

static void write_answer(struct query_conn *c, bool typed, struct buf *out)
{
	static const char body[] = "{\"sql\":\"" QUERY "\"}";
	const struct query_request_limits parse_limits = {0};
	const struct query_read_limits limits = {0};
	struct query_error error = {.statement = -1};
	struct query_request *r;

	if (query_request_parse(&r, body, sizeof(body) - 1, &parse_limits, &error) != QUERY_OK)
		die(error.message);
	r->role = AUTH_READ;
	r->typed = typed;
	buf_clear(out);
	if (query_read(c, r, &limits, NULL, clock_mono_us(), out, &error) != QUERY_ANSWERED)
		die(error.message);
	query_request_free(r);
}

static void step_alone(sqlite3 *db)
{
	sqlite3_stmt *stmt;
	int rc;

	if (sqlite3_prepare_v2(db, QUERY, -1, &stmt, NULL) != SQLITE_OK)
		die(sqlite3_errmsg(db));
	while ((rc = sqlite3_step(stmt)) == SQLITE_ROW)
		;
	if (rc != SQLITE_DONE)
		die(sqlite3_errmsg(db));
	sqlite3_finalize(stmt);
}

static void read_answer(const struct buf *answer, bool typed, uint64_t rows)
{
	struct query_error error = {.statement = -1};
	struct errmsg em = {0};
	struct rows_reader *r;
	enum rows_event event;
	size_t at = 0, piece;

	if (rows_reader_create(&r, 200, typed ? TYPED_ROWS_TYPE : "application/json", NULL, &em) != DB_OK)
		die(em.text);
	while ((event = rows_reader_next(r, &error)) < ROWS_DONE) {
		if (event != ROWS_MORE)
			continue;
		if (at == answer->len)
			rows_reader_finish(r);
		piece = answer->len - at < PIECE ? answer->len - at : PIECE;
		if (piece > 0 && rows_reader_feed(r, answer->data + at, piece) != DB_OK)
			die("out of memory");
		at += piece;
	}
	if (event != ROWS_DONE || rows_reader_rows(r) != rows)
		die("the answer did not come back");
	rows_reader_free(r);
}

static int compare(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void report(const char *form, const char *what, uint64_t *us, unsigned rounds, unsigned rows, size_t bytes)
{
	uint64_t median;

	qsort(us, rounds, sizeof(*us), compare);
	median = us[rounds / 2] > 0 ? us[rounds / 2] : 1;
	printf("%-6s %-6s %8.2f ms %12.0f rows/s %10zu bytes\n", form, what, (double)median / 1000,
	       (double)rows * 1e6 / (double)median, bytes);
}

static void measure(struct query_conn *c, bool typed, unsigned rows, unsigned rounds)
{
	uint64_t write_us[ROUNDS_MAX], read_us[ROUNDS_MAX];
	const char *form = typed ? "typed" : "json";
	struct buf answer = {0};
	unsigned i;

	for (i = 0; i < rounds; i++) {
		uint64_t start = cpu_us(), written;

		write_answer(c, typed, &answer);
		written = cpu_us();
		read_answer(&answer, typed, rows);
		write_us[i] = written - start;
		read_us[i] = cpu_us() - written;
	}
	report(form, "write", write_us, rounds, rows, answer.len);
	report(form, "read", read_us, rounds, rows, answer.len);
	buf_fini(&answer);
}

int main(int argc, char **argv)
{
	unsigned rows = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 100000;
	unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 7;
	uint64_t step_us[ROUNDS_MAX];
	struct query_conn *c;
	sqlite3 *db;
	unsigned i;

	if (rows == 0 || rounds == 0 || rounds > ROUNDS_MAX)
		die("usage: rows_form [ROWS [ROUNDS, up to 101]]");
	c = open_table(rows, &db);
	for (i = 0; i < rounds; i++) {
		uint64_t start = cpu_us();

		step_alone(db);
		step_us[i] = cpu_us() - start;
	}
	report("sqlite", "step", step_us, rounds, rows, 0);
	measure(c, false, rows, rounds);
	measure(c, true, rows, rounds);
	query_conn_free(c);
	return 0;
}

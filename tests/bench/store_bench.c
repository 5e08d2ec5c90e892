/*
 * store_bench.c - the store alone, without HTTP and replication: the same work as sqlite_inproc.c through our VFS.
 *
 * Point SELECTs run on a reader connection (snapshot at visible_lsn), inserts on the writer connection; each COMMIT is
 * followed by store_sync() and store_set_committed(), so that a counted row is durable and visible. The SELECTs are
 * measured three times: with every page in the log, again while a writer of the same thread adds records between
 * rounds, and after a checkpoint with every page in the base file. One JSON line.
 *
 * Exit: 0 ran, 1 failed, 2 bad usage.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/store/store.h"
#include "tests/bench/sql_work.h"

struct bench {
	struct store *store;
	sqlite3 *writer, *reader;
	uint64_t duration_ms;
	struct errmsg em;
};

static bool make_durable(void *arg)
{
	struct bench *b = arg;
	uint64_t durable_lsn;

	if (store_sync(b->store, &durable_lsn, &b->em) != DB_OK)
		return false;
	store_set_committed(b->store, durable_lsn);
	return true;
}

static bool open_all(struct bench *b, const char *dir)
{
	struct store_options options = {.dir = dir};

	memset(options.cluster_id, 7, sizeof options.cluster_id);
	if (store_init_sqlite(&b->em) != DB_OK || store_open(&b->store, &options, &b->em) != DB_OK)
		return false;
	store_set_term(b->store, 1);
	return store_open_writer(b->store, &b->writer, &b->em) == DB_OK &&
	       store_open_reader(b->store, &b->reader, &b->em) == DB_OK;
}

static bool write_and_read_pairs(struct bench *b, double *per_s)
{
	struct sql_work_commit durable = {.done = make_durable, .arg = b};
	double rows_per_s, selects_per_s, sum = 0;
	const int rounds = 10;

	for (int i = 0; i < rounds; i++) {
		if (!sql_work_inserts(b->writer, 64, 20, &durable, &rows_per_s) ||
		    !sql_work_selects(b->reader, b->duration_ms / (uint64_t)rounds, &selects_per_s))
			return false;
		sum += selects_per_s;
	}
	*per_s = sum / rounds;
	return true;
}

static bool run(struct bench *b)
{
	struct sql_work_commit durable = {.done = make_durable, .arg = b};
	double log_selects, mixed_selects, base_selects, sealed, single, batches, thousand;

	if (!sql_work_fill(b->writer) || !make_durable(b) ||
	    !sql_work_selects(b->reader, b->duration_ms, &log_selects) || !write_and_read_pairs(b, &mixed_selects))
		return false;
	if (store_checkpoint(b->store, UINT64_MAX, &b->em) != DB_OK)
		return false;
	if (!sql_work_selects(b->reader, b->duration_ms, &base_selects) ||
	    !sql_work_inserts(b->writer, 64, b->duration_ms, NULL, &sealed) || !make_durable(b) ||
	    !sql_work_inserts(b->writer, 1, b->duration_ms, &durable, &single) ||
	    !sql_work_inserts(b->writer, 64, b->duration_ms, &durable, &batches) ||
	    !sql_work_inserts(b->writer, 1000, b->duration_ms, &durable, &thousand))
		return false;
	printf("{\"selects_per_s_log\":%.0f,\"selects_per_s_mixed\":%.0f,\"selects_per_s_base\":%.0f,"
	       "\"sealed_rows_per_s_64\":%.0f,\"single_row_commits_per_s\":%.0f,\"rows_per_s_64\":%.0f,"
	       "\"rows_per_s_1000\":%.0f}\n",
	       log_selects, mixed_selects, base_selects, sealed, single, batches, thousand);
	return true;
}

int main(int argc, char **argv)
{
	struct bench b = {.duration_ms = 1000};
	bool ok;

	if (argc < 2 || argc > 3) {
		fputs("usage: store_bench NEW_DIRECTORY [DURATION_MS]\n", stderr);
		return 2;
	}
	if (argc == 3)
		b.duration_ms = strtoull(argv[2], NULL, 10);
	ok = open_all(&b, argv[1]) && run(&b);
	if (!ok)
		fprintf(stderr, "store_bench: %s; writer: %s; reader: %s\n", b.em.text,
			b.writer != NULL ? sqlite3_errmsg(b.writer) : "not open",
			b.reader != NULL ? sqlite3_errmsg(b.reader) : "not open");
	sqlite3_close(b.reader);
	sqlite3_close(b.writer);
	store_close(b.store);
	return ok ? 0 : 1;
}

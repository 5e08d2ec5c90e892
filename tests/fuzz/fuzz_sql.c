/*
 * fuzz_sql.c - what a client's SQL may do to a node: executed on a real store under the authorizer.
 *
 * The input is the body of POST /query; one that is no JSON object is taken for the text of "sql" itself. It is classified,
 * read or written as a node does, with a small operation budget and a deadline, each write in a transaction that is rolled
 * back afterwards. Answers are well-formed JSON; nothing but the store's own files is ever opened, created or removed; no
 * snapshot and no transaction is left open; the database is the same at the end as at the beginning.
 */
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/query/exec.h"
#include "common/store/store.h"
#include "tests/fuzz/fuzz.h"

#define OPS_MAX     20000u
#define DEADLINE_MS 300u
#define BYTES_MAX   (256u << 10)

static struct store *store;
static struct query_conn *reader, *writer;
static sqlite3 *reader_db, *writer_db;
static int home_fd; /* where we were started; each input runs in an empty directory */
static char cwd[FUZZ_PATH_MAX];
static int (*unix_open)(sqlite3_vfs *, const char *, sqlite3_file *, int, int *);
static uint64_t tip_lsn; /* before the input */

/* SQLite's own way to the file system: nothing here has a reason to take it. */
static int no_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *file, int flags, int *out_flags)
{
	fprintf(stderr, "opens \"%s\", flags %x\n", path == NULL ? "(temporary)" : path, flags);
	FUZZ_CHECK(path != NULL && strncmp(path, fuzz_scratch(), strlen(fuzz_scratch())) == 0);
	return unix_open(vfs, path, file, flags, out_flags);
}

static struct query_conn *open_conn(sqlite3 *db)
{
	const struct query_conn_options options = {
	    .node_id = "node1", .result_bytes_max = BYTES_MAX, .snapshot_lsn = store_snapshot_lsn};
	struct query_conn *c;
	struct errmsg em = {0};

	FUZZ_CHECK(query_conn_create(&c, db, &options, &em) == DB_OK);
	/* One step of a statement may build a value of 64 MiB, which no operation budget can interrupt; under the sanitizers
	 * that takes longer than a hang should. */
	sqlite3_limit(db, SQLITE_LIMIT_LENGTH, 1 << 20);
	return c;
}

static void close_all(void)
{
	query_conn_free(reader);
	query_conn_free(writer);
	store_close(store);
}

static struct query_request *parse(const void *body, size_t len)
{
	const struct query_request_limits limits = {.sql_length_max = 4096, .statements_max = 20};
	struct query_request *r;
	struct query_error error;

	if (query_request_parse(&r, body, len, &limits, &error) != QUERY_OK)
		return NULL;
	r->role = AUTH_ADMIN;
	return r;
}

static void fill_database(void)
{
	static const char body[] =
	    "{\"sql\": \"create table t (a integer primary key, b text, c real, d blob); create index t_b on t (b);"
	    "create table u (x unique not null, y references t (a) on delete cascade) strict;"
	    "create table v (k, w, primary key (k, w)) without rowid; create view z as select * from t join v on a = k;"
	    "create trigger g after insert on t begin insert into v values (new.a, new.b); end;"
	    "create virtual table f using fts5(words);"
	    "insert into f values ('one two'), ('three');"
	    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 50)"
	    " insert into t select i, 'row ' || i, i / 3.0, zeroblob(i) from n\"}";
	static const char plain[] =
	    "{\"sql\": \"create table t (a integer primary key, b text, c real, d blob); create index t_b on t (b);"
	    "create table v (k, w, primary key (k, w)) without rowid; create view z as select * from t join v on a = k;"
	    "create trigger g after insert on t begin insert into v values (new.a, new.b); end;"
	    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 50)"
	    " insert into t select i, 'row ' || i, i / 3.0, zeroblob(i) from n\"}";
	const char *bodies[] = {body, plain};
	struct errmsg em = {0};
	struct query_error error = {0};
	struct query_request *r;
	struct buf out = {0};
	enum query_code code = QUERY_INTERNAL;
	bool lost = false;
	size_t i;

	for (i = 0; i < 2 && code != QUERY_OK; i++) { /* FTS5 may be denied, or not be compiled in */
		r = parse(bodies[i], strlen(bodies[i]));
		FUZZ_CHECK(r != NULL && query_batch_begin(writer, &em) == DB_OK);
		code = query_write(writer, r, 0, &out, &error, &lost);
		query_request_free(r);
		if (code == QUERY_OK)
			FUZZ_CHECK(query_batch_commit(writer, &em) == DB_OK);
		else
			query_batch_rollback(writer);
	}
	if (code != QUERY_OK)
		fprintf(stderr, "%s\n", error.message);
	FUZZ_CHECK(code == QUERY_OK);
	buf_fini(&out);
}

static void open_all(void)
{
	char dir[FUZZ_PATH_MAX];
	struct store_options options = {.dir = dir, .segment_size_bytes = 4u << 20};
	struct errmsg em = {0};
	sqlite3_vfs *vfs;

	fuzz_path(dir, "store");
	fuzz_path(cwd, "cwd");
	fuzz_fresh_dir(cwd);
	home_fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	FUZZ_CHECK(home_fd >= 0);
	FUZZ_CHECK(store_init_sqlite(&em) == DB_OK && store_open(&store, &options, &em) == DB_OK);
	store_set_term(store, 1);
	FUZZ_CHECK(store_open_writer(store, &writer_db, &em) == DB_OK);
	writer = open_conn(writer_db);
	fill_database();
	FUZZ_CHECK(store_sync(store, NULL, &em) == DB_OK);
	store_set_committed(store, store_tip_lsn(store));
	FUZZ_CHECK(store_open_reader(store, &reader_db, &em) == DB_OK);
	reader = open_conn(reader_db);
	for (vfs = sqlite3_vfs_find(NULL); vfs != NULL; vfs = vfs->pNext) {
		if (strncmp(vfs->zName, "unix", 4) != 0)
			continue;
		if (strcmp(vfs->zName, "unix") == 0)
			unix_open = vfs->xOpen;
		vfs->xOpen = no_open;
	}
	FUZZ_CHECK(atexit(close_all) == 0);
}

/* ---- what must hold */

static void check_json(const struct buf *out, enum query_format format)
{
	json_error_t why;
	json_t *v;

	FUZZ_CHECK(!out->failed && out->len > 0);
	if (format == QUERY_NDJSON)
		return;
	v = json_loadb((const char *)out->data, out->len, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &why);
	if (v == NULL)
		fprintf(stderr, "%s at %d: %.*s\n", why.text, why.position, (int)out->len, (const char *)out->data);
	FUZZ_CHECK(json_is_object(v));
	json_decref(v);
}

static void check_error(const struct query_error *error)
{
	struct buf out = {0};

	FUZZ_CHECK(error->code != QUERY_OK && error->code != QUERY_INTERNAL && error->message[0] != '\0');
	answer_put_error(&out, error);
	check_json(&out, QUERY_ROWS);
	buf_fini(&out);
}

static void check_clean(void)
{
	struct dirent *entry;
	DIR *d = opendir(".");

	FUZZ_CHECK(d != NULL);
	while ((entry = readdir(d)) != NULL)
		FUZZ_CHECK(strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0);
	closedir(d);
	FUZZ_CHECK(sqlite3_txn_state(reader_db, NULL) == SQLITE_TXN_NONE);
	FUZZ_CHECK(sqlite3_txn_state(writer_db, NULL) == SQLITE_TXN_NONE);
	FUZZ_CHECK(sqlite3_db_name(writer_db, 2) == NULL && sqlite3_db_name(reader_db, 2) == NULL); /* main and temp */
	FUZZ_CHECK(store_tip_lsn(store) == tip_lsn);
}

/* ---- one request */

static bool discard(void *arg, struct buf *out)
{
	size_t *flushed = arg;

	*flushed += out->len;
	buf_clear(out);
	return *flushed < BYTES_MAX;
}

static void run_read(const struct query_request *r)
{
	const struct query_read_limits limits = {
	    .ops_max = OPS_MAX, .bytes_max = BYTES_MAX, .deadline_ms = clock_mono_ms() + DEADLINE_MS};
	const struct query_read_limits slow = {.deadline_ms = clock_mono_ms() + DEADLINE_MS};
	size_t flushed = 0;
	const struct query_sink sink = {.flush = discard, .arg = &flushed, .chunk_bytes = 4096};
	struct query_error error = {0};
	struct buf out = {0};
	enum query_outcome outcome = query_read(reader, r, &limits, NULL, clock_mono_us(), &out, &error);

	FUZZ_CHECK(outcome == QUERY_ANSWERED || outcome == QUERY_FAILED || outcome == QUERY_OVER_BUDGET);
	if (outcome == QUERY_ANSWERED)
		check_json(&out, r->format);
	else if (outcome == QUERY_FAILED)
		check_error(&error);
	buf_clear(&out);
	outcome = query_read(reader, r, &slow, &sink, clock_mono_us(), &out, &error);
	FUZZ_CHECK(outcome != QUERY_OVER_BUDGET);
	if (outcome == QUERY_FAILED)
		check_error(&error);
	buf_fini(&out);
}

static void run_write(const struct query_request *r)
{
	const uint64_t deadline_ms = clock_mono_ms() + DEADLINE_MS;
	struct query_error error = {0};
	struct errmsg em = {0};
	struct buf out = {0};
	bool lost = false;
	enum query_code code;

	FUZZ_CHECK(query_batch_begin(writer, &em) == DB_OK);
	code = query_write(writer, r, deadline_ms, &out, &error, &lost);
	if (code == QUERY_OK) {
		answer_put_trailer(&out, 1, "node1", 0);
		check_json(&out, r->format);
	} else {
		FUZZ_CHECK(code == error.code && out.len == 0);
		check_error(&error);
	}
	query_batch_rollback(writer);
	buf_fini(&out);
}

static void run_request(const struct query_request *r)
{
	struct query_error error = {0};
	enum query_kind kind;
	enum query_code code = query_classify(reader, r, &kind, &error);

	if (code != QUERY_OK) {
		FUZZ_CHECK(error.code == code);
		check_error(&error);
		run_write(r); /* the writer judges for itself what follows a first statement that writes */
	} else if (kind == QUERY_KIND_READ) {
		run_read(r);
	} else if (kind == QUERY_KIND_WRITE) {
		run_write(r);
	}
}

/* {"sql": the bytes}, as far as they are text. */
static struct query_request *wrap(const uint8_t *data, size_t size)
{
	json_t *json = json_pack("{s:s%}", "sql", (const char *)data, size);
	char *text = json == NULL ? NULL : json_dumps(json, 0);
	struct query_request *r = text == NULL ? NULL : parse(text, strlen(text));

	free(text);
	json_decref(json);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct query_request *r = parse(data, size);

	if (store == NULL)
		open_all();
	if (r == NULL)
		r = wrap(data, size);
	if (r == NULL)
		return 0;
	tip_lsn = store_tip_lsn(store);
	FUZZ_CHECK(chdir(cwd) == 0);
	run_request(r);
	check_clean();
	FUZZ_CHECK(fchdir(home_fd) == 0);
	query_request_free(r);
	return 0;
}

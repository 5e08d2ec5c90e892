/*
 * test_salvage.c - what is kept of a log's tail before it is cut: every kind of change, readable and raw.
 */
#include "replica/salvage.h"

#include <dirent.h>
#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/salvage_diff.h"
#include "tests/unit/store_fixture.h"

#define REASON "a test"

struct kept {
	struct fixture f;
	struct salvage s;
	char node_dir[UNIT_PATH_MAX + 8];
	json_t *header; /* of the only change file; NULL: there is none */
	json_t *lines;
	uint64_t raw_bytes;
	unsigned files;
};

static void begin(struct kept *k)
{
	static const uint8_t cluster_id[16] = {1, 2, 3};

	memset(k, 0, sizeof(*k));
	fixture_new(&k->f);
	snprintf(k->node_dir, sizeof(k->node_dir), "%s/n", k->f.dir);
	k->s = (struct salvage){.store = k->f.s,
				.dir = k->node_dir,
				.node_id = "node1",
				.cluster_id = cluster_id,
				.certain = true,
				.reason = REASON};
}

/* From here on nothing is committed. */
static void mark(struct kept *k)
{
	fixture_commit(&k->f);
	k->s.keep_lsn = store_tip_lsn(k->f.s);
}

static void load(struct kept *k)
{
	char path[UNIT_PATH_MAX + 300], dir[UNIT_PATH_MAX + 32];
	struct dirent *entry;
	struct stat st;
	char *line = NULL;
	size_t size = 0;
	FILE *file;
	DIR *d;

	snprintf(dir, sizeof(dir), "%s" SALVAGE_SUFFIX, k->node_dir);
	d = opendir(dir);
	while (d != NULL && (entry = readdir(d)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		k->files++;
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		CU_ASSERT_EQUAL(stat(path, &st), 0);
		if (strstr(entry->d_name, ".jsonl") == NULL) {
			k->raw_bytes += (uint64_t)st.st_size;
			continue;
		}
		file = fopen(path, "r");
		CU_ASSERT_PTR_NOT_NULL_FATAL(file);
		CU_ASSERT_EQUAL(getline(&line, &size, file), SALVAGE_HEADER_BYTES);
		k->header = json_loads(line, 0, NULL);
		k->lines = json_array();
		while (getline(&line, &size, file) > 0)
			json_array_append_new(k->lines, json_loads(line, 0, NULL));
		fclose(file);
	}
	if (d != NULL)
		closedir(d);
	free(line);
}

static bool keep(struct kept *k)
{
	struct errmsg em = {0};
	bool kept = false;

	UNIT_OK(salvage_keep(&k->s, &kept, &em), &em);
	load(k);
	return kept;
}

static void end(struct kept *k)
{
	json_decref(k->header);
	json_decref(k->lines);
	fixture_close(&k->f);
}

static bool has(const struct kept *k, const char *wanted)
{
	json_t *json = json_loads(wanted, 0, NULL);
	bool found = false;
	size_t i;

	CU_ASSERT_PTR_NOT_NULL_FATAL(json);
	for (i = 0; i < json_array_size(k->lines); i++)
		found = found || json_equal(json_array_get(k->lines, i), json);
	if (!found) {
		char *all = json_dumps(k->lines, JSON_INDENT(1));

		fprintf(stderr, "no %s in %s\n", wanted, all);
		free(all);
	}
	json_decref(json);
	return found;
}

static uint64_t number(const struct kept *k, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(k->header, key));
}

static void every_kind_of_change_is_kept(void)
{
	struct kept k;

	begin(&k);
	SQL(k.f.w, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1,'a'),(2,'b'),(3,'c');"
		   "CREATE TABLE quiet(v); INSERT INTO quiet VALUES (1);"
		   "CREATE TABLE gone(v); INSERT INTO gone VALUES ('last words');"
		   "CREATE TABLE grown(v); INSERT INTO grown VALUES (1), (2)");
	mark(&k);
	SQL(k.f.w, "INSERT INTO t VALUES (4, 1.5); UPDATE t SET v = x'01' WHERE id = 1; DELETE FROM t WHERE id = 2");
	SQL(k.f.w, "DROP TABLE gone; ALTER TABLE grown ADD COLUMN w; UPDATE grown SET w = 7 WHERE v = 2");
	SQL(k.f.w, "CREATE INDEX t_v ON t(v); CREATE VIEW seen AS SELECT 1");
	CU_ASSERT(keep(&k));
	CU_ASSERT_EQUAL(k.files, 2);
	CU_ASSERT_EQUAL(number(&k, "first_lsn"), k.s.keep_lsn + 1);
	CU_ASSERT_EQUAL(number(&k, "last_lsn"), store_tip_lsn(k.f.s));
	CU_ASSERT_EQUAL(number(&k, "record_bytes"), k.raw_bytes);
	CU_ASSERT(json_is_true(json_object_get(k.header, "complete")));
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(k.header, "reason")), REASON);
	CU_ASSERT(has(&k, "{\"op\":\"insert\",\"table\":\"t\",\"rowid\":4,\"new\":{\"id\":4,\"v\":1.5}}"));
	CU_ASSERT(has(&k, "{\"op\":\"update\",\"table\":\"t\",\"rowid\":1,\"old\":{\"id\":1,\"v\":\"a\"},"
			  "\"new\":{\"id\":1,\"v\":{\"$blob\":\"AQ==\"}}}"));
	CU_ASSERT(has(&k, "{\"op\":\"delete\",\"table\":\"t\",\"rowid\":2,\"old\":{\"id\":2,\"v\":\"b\"}}"));
	CU_ASSERT(
	    has(&k, "{\"op\":\"drop\",\"type\":\"table\",\"name\":\"gone\",\"old_sql\":\"CREATE TABLE gone(v)\"}"));
	CU_ASSERT(has(&k, "{\"op\":\"delete\",\"table\":\"gone\",\"rowid\":1,\"old\":{\"v\":\"last words\"}}"));
	CU_ASSERT(has(&k,
		      "{\"op\":\"alter\",\"type\":\"table\",\"name\":\"grown\",\"sql\":\"CREATE TABLE grown(v, w)\","
		      "\"old_sql\":\"CREATE TABLE grown(v)\"}"));
	CU_ASSERT(
	    has(&k, "{\"op\":\"update\",\"table\":\"grown\",\"rowid\":2,\"old\":{\"v\":2},\"new\":{\"v\":2,\"w\":7}}"));
	CU_ASSERT(
	    has(&k, "{\"op\":\"create\",\"type\":\"index\",\"name\":\"t_v\",\"sql\":\"CREATE INDEX t_v ON t(v)\"}"));
	CU_ASSERT(has(
	    &k, "{\"op\":\"create\",\"type\":\"view\",\"name\":\"seen\",\"sql\":\"CREATE VIEW seen AS SELECT 1\"}"));
	CU_ASSERT_EQUAL(json_array_size(k.lines), 9);
	CU_ASSERT_EQUAL(number(&k, "inserts"), 1);
	CU_ASSERT_EQUAL(number(&k, "updates"), 2);
	CU_ASSERT_EQUAL(number(&k, "deletes"), 2);
	end(&k);
}

static void tables_without_a_rowid_are_compared_by_their_key(void)
{
	struct kept k;

	begin(&k);
	SQL(k.f.w, "CREATE TABLE p(v, b TEXT COLLATE NOCASE, a INT, PRIMARY KEY(a, b DESC)) WITHOUT ROWID;"
		   "INSERT INTO p VALUES (1,'x',1),(2,'y',1),(3,'z',2)");
	mark(&k);
	SQL(k.f.w, "INSERT INTO p VALUES (4,'new',9); UPDATE p SET v = 22 WHERE b = 'y'; DELETE FROM p WHERE b = 'z'");
	CU_ASSERT(keep(&k));
	CU_ASSERT(has(&k, "{\"op\":\"insert\",\"table\":\"p\",\"new\":{\"v\":4,\"b\":\"new\",\"a\":9}}"));
	CU_ASSERT(has(&k, "{\"op\":\"update\",\"table\":\"p\",\"old\":{\"v\":2,\"b\":\"y\",\"a\":1},"
			  "\"new\":{\"v\":22,\"b\":\"y\",\"a\":1}}"));
	CU_ASSERT(has(&k, "{\"op\":\"delete\",\"table\":\"p\",\"old\":{\"v\":3,\"b\":\"z\",\"a\":2}}"));
	CU_ASSERT_EQUAL(json_array_size(k.lines), 3);
	end(&k);
}

/* A value so long that it is changed on its overflow pages alone, and names that need quoting. */
static void long_values_and_strange_names(void)
{
	struct kept k;

	begin(&k);
	SQL(k.f.w, "CREATE TABLE \"od\"\"d 'name\"(rowid, \"a b\"); INSERT INTO \"od\"\"d 'name\" VALUES (5, "
		   "zeroblob(20000))");
	mark(&k);
	SQL(k.f.w, "UPDATE \"od\"\"d 'name\" SET \"a b\" = CAST(zeroblob(19999) || 'x' AS BLOB)");
	CU_ASSERT(keep(&k));
	CU_ASSERT_EQUAL(json_array_size(k.lines), 1);
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(json_array_get(k.lines, 0), "table")), "od\"d 'name");
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(json_array_get(k.lines, 0), "op")), "update");
	end(&k);
}

static void a_tail_is_kept_once_and_one_without_changes_never(void)
{
	struct kept k;
	struct errmsg em = {0};
	uint64_t lsn;
	bool kept;

	begin(&k);
	SQL(k.f.w, "CREATE TABLE t(v)");
	mark(&k);
	store_set_term(k.f.s, 5);
	UNIT_OK(store_append_term_start(k.f.s, &lsn, &em), &em);
	UNIT_OK(salvage_keep(&k.s, &kept, &em), &em);
	CU_ASSERT(!kept);
	SQL(k.f.w, "INSERT INTO t VALUES (1)");
	CU_ASSERT(keep(&k));
	CU_ASSERT_EQUAL(k.files, 2);
	UNIT_OK(salvage_keep(&k.s, &kept, &em), &em);
	CU_ASSERT(kept);
	json_decref(k.header);
	json_decref(k.lines);
	k.files = 0;
	load(&k);
	CU_ASSERT_EQUAL(k.files, 2);
	end(&k);
}

static void what_cannot_be_kept_is_an_error(void)
{
	struct kept k;
	struct errmsg em = {0};
	char path[UNIT_PATH_MAX + 32];
	FILE *f;
	bool kept;

	begin(&k);
	SQL(k.f.w, "CREATE TABLE t(v)");
	mark(&k);
	SQL(k.f.w, "INSERT INTO t VALUES (1)");
	snprintf(path, sizeof(path), "%s" SALVAGE_SUFFIX, k.node_dir);
	f = fopen(path, "w");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	fclose(f);
	CU_ASSERT_NOT_EQUAL(salvage_keep(&k.s, &kept, &em), DB_OK);
	CU_ASSERT_EQUAL(unlink(path), 0);
	CU_ASSERT(keep(&k));
	end(&k);
}

static enum db_err count_bytes(void *arg, const void *bytes, size_t len, struct errmsg *em)
{
	(void)bytes;
	(void)em;
	*(uint64_t *)arg += len;
	return DB_OK;
}

/* Past its deadline or its size the readable form ends; the caller keeps the records all the same. */
static void the_comparison_is_bounded(void)
{
	struct salvage_diff d = {.deadline_ms = 0, .bytes_max = UINT64_MAX, .write = count_bytes};
	static const uint8_t changed[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
					    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	struct errmsg em = {0};
	uint64_t written = 0;
	struct kept k;

	begin(&k);
	SQL(k.f.w, "CREATE TABLE t(v)");
	mark(&k);
	SQL(k.f.w, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO t "
		   "SELECT 'row ' || i FROM n");
	d.changed = changed;
	d.changed_max = 127;
	d.arg = &written;
	UNIT_OK(store_open_reader_at(k.f.s, k.s.keep_lsn, &d.before, &em), &em);
	UNIT_OK(store_open_reader_at(k.f.s, store_tip_lsn(k.f.s), &d.after, &em), &em);
	CU_ASSERT_EQUAL(VALUE(d.before, "SELECT count(*) FROM t"), 0);
	CU_ASSERT_EQUAL(VALUE(d.after, "SELECT count(*) FROM t"), 20000);
	CU_ASSERT_EQUAL(salvage_diff(&d, &em), DB_TIMEOUT);
	d.deadline_ms = UINT64_MAX;
	d.bytes_max = 1000;
	CU_ASSERT_EQUAL(salvage_diff(&d, &em), DB_TOO_LARGE);
	d.bytes_max = UINT64_MAX;
	d.inserts = 0;
	written = 0;
	UNIT_OK(salvage_diff(&d, &em), &em);
	CU_ASSERT_EQUAL(d.inserts, 20000);
	CU_ASSERT(written > 20000 * 40);
	CU_ASSERT_EQUAL(sqlite3_close(d.before), SQLITE_OK);
	CU_ASSERT_EQUAL(sqlite3_close(d.after), SQLITE_OK);
	end(&k);
}

static void a_state_that_is_not_there_cannot_be_read(void)
{
	struct errmsg em = {0};
	sqlite3 *db = NULL;
	struct kept k;

	begin(&k);
	SQL(k.f.w, "CREATE TABLE t(v)");
	SQL(k.f.w, "INSERT INTO t VALUES (1)");
	mark(&k);
	CU_ASSERT_EQUAL(store_open_reader_at(k.f.s, k.s.keep_lsn - 1, &db, &em),
			DB_INVALID); /* below what is visible */
	CU_ASSERT_EQUAL(store_open_reader_at(k.f.s, k.s.keep_lsn + 1, &db, &em), DB_INVALID);
	CU_ASSERT_PTR_NULL(db);
	fixture_checkpoint(&k.f);
	UNIT_OK(store_open_reader_at(k.f.s, k.s.keep_lsn, &db, &em), &em); /* the base file's own state */
	CU_ASSERT_EQUAL(VALUE(db, "SELECT v FROM t"), 1);
	CU_ASSERT_EQUAL(sqlite3_close(db), SQLITE_OK);
	end(&k);
}

static void a_request_is_found_in_what_was_salvaged(void)
{
	char path[UNIT_PATH_MAX];
	struct errmsg em = {0};
	struct kept k;

	begin(&k);
	SQL(k.f.w, "CREATE TABLE _grizzly_receipts(seq INTEGER PRIMARY KEY, request_id TEXT, answer BLOB);"
		   "INSERT INTO _grizzly_receipts VALUES (1, 'before', x'00')");
	mark(&k);
	SQL(k.f.w, "INSERT INTO _grizzly_receipts VALUES (2, 'lost \"one\"', x'00')");
	CU_ASSERT_EQUAL(salvage_find_request(k.node_dir, "before", path, sizeof(path), &em), DB_NOTFOUND);
	CU_ASSERT(keep(&k));
	UNIT_OK(salvage_find_request(k.node_dir, "lost \"one\"", path, sizeof(path), &em), &em);
	CU_ASSERT_PTR_NOT_NULL(strstr(path, ".jsonl"));
	CU_ASSERT_EQUAL(salvage_find_request(k.node_dir, "before", path, sizeof(path), &em), DB_NOTFOUND);
	end(&k);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"every_kind_of_change_is_kept", every_kind_of_change_is_kept},
	    {"tables_without_a_rowid_are_compared_by_their_key", tables_without_a_rowid_are_compared_by_their_key},
	    {"long_values_and_strange_names", long_values_and_strange_names},
	    {"a_tail_is_kept_once_and_one_without_changes_never", a_tail_is_kept_once_and_one_without_changes_never},
	    {"what_cannot_be_kept_is_an_error", what_cannot_be_kept_is_an_error},
	    {"the_comparison_is_bounded", the_comparison_is_bounded},
	    {"a_state_that_is_not_there_cannot_be_read", a_state_that_is_not_there_cannot_be_read},
	    {"a_request_is_found_in_what_was_salvaged", a_request_is_found_in_what_was_salvaged},
	    {NULL, NULL},
	};
	struct errmsg em = {0};

	if (store_init_sqlite(&em) != DB_OK) {
		fprintf(stderr, "%s\n", em.text);
		return 1;
	}
	return unit_run("salvage", tests);
}

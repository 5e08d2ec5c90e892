/*
 * fuzz_files.c - every file that a node or a supervisor reads back: configuration, token, small slot files, a whole store, and
 * the copy of a store that arrives as a snapshot.
 *
 * The first byte chooses. Configuration: what is accepted is within its bounds, and the file written from it says the same.
 * Slot file: what opens can be written and then read. Store: one built at start is changed in its base file or store.meta, with
 * right checksums where the input asks for them, then opened and read through SQLite; it is refused, or every query ends
 * with rows or an error. Snapshot: a header and pages from the input, which become a store only when they are what the
 * header says; then the same queries.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/base/buf.h"
#include "common/base/config.h"
#include "common/base/slotfile.h"
#include "common/store/checksum.h"
#include "common/store/snapshot_copy.h"
#include "common/store/store.h"
#include "tests/fuzz/fuzz.h"

static const uint8_t cluster_id[16] = "fuzz-cluster-id!";

/* ---- configuration and token */

static void fuzz_config(struct fuzz_in *in)
{
	static struct cluster_config c, again; /* static: no padding that differs */
	char path[FUZZ_PATH_MAX], address[CONFIG_ADDRESS_MAX];
	struct errmsg em = {0};
	unsigned node;

	config_init(&c);
	config_init(&again);
	if (config_parse(&c, (const char *)in->p, in->left, "cluster.json", &em) != DB_OK) {
		FUZZ_CHECK(em.err == DB_INVALID && em.text[0] != '\0');
		return;
	}
	FUZZ_CHECK(config_node_count(&c) >= 1 && config_node_count(&c) <= CONFIG_NODES_MAX);
	FUZZ_CHECK(config_ack_nodes(&c) >= 1 && config_ack_nodes(&c) <= config_node_count(&c));
	FUZZ_CHECK(c.http_port + 200 + config_node_count(&c) <= 65535 && c.http_port > 0);
	for (node = 1; node <= config_node_count(&c); node++)
		config_node_address(&c, node, CONFIG_ACKS, address);
	fuzz_path(path, "cluster.json");
	unlink(path);
	FUZZ_CHECK(config_write_new(&c, path, &em) == DB_OK);
	FUZZ_CHECK(config_load(&again, path, &em) == DB_OK);
	FUZZ_CHECK(again.http_port == c.http_port && again.replicas == c.replicas && strcmp(again.bind, c.bind) == 0);
	FUZZ_CHECK(memcmp(again.cluster_id, c.cluster_id, 16) == 0 && again.durability == c.durability);
}

static void fuzz_token(struct fuzz_in *in)
{
	char path[FUZZ_PATH_MAX], *token = NULL;
	struct errmsg em = {0};
	size_t i;

	fuzz_path(path, "token");
	fuzz_write_file(path, in->p, in->left);
	if (token_load(&token, path, &em) == DB_OK) {
		FUZZ_CHECK(strlen(token) >= 16 && strlen(token) <= 256);
		for (i = 0; token[i] != '\0'; i++)
			FUZZ_CHECK(token[i] > ' ' && token[i] < 0x7f);
	} else {
		FUZZ_CHECK(em.text[0] != '\0');
	}
	free(token);
}

/* ---- slot files */

static void fix_slot(uint8_t *slot)
{
	uint32_t len = load_u32le(slot + 4);

	memcpy(slot, "GzS1", 4);
	if (len <= SLOTFILE_DATA_MAX)
		store_u64le(slot + 16, XXH3_64bits_withSeed(slot + 24, len, XXH3_64bits(slot, 16)));
}

static void fuzz_slotfile(struct fuzz_in *in)
{
	uint8_t how = in_u8(in), slots[2 * SLOTFILE_SLOT_SIZE] = {0}, data[64];
	struct slotfile f;
	struct errmsg em = {0};
	char path[FUZZ_PATH_MAX];
	const uint8_t *p;
	size_t len, got;
	enum db_err err;

	p = in_bytes(in, in_u8(in), &got);
	memcpy(slots, p, got);
	p = in_bytes(in, in_u8(in), &got);
	memcpy(slots + SLOTFILE_SLOT_SIZE, p, got);
	if (how & 1)
		fix_slot(slots);
	if (how & 2)
		fix_slot(slots + SLOTFILE_SLOT_SIZE);
	fuzz_path(path, "slots");
	fuzz_write_file(path, slots, how & 4 ? in_u16(in) % (sizeof(slots) + 1) : sizeof(slots));
	err = slotfile_open(&f, path, data, sizeof(data), &len, &em);
	if (err != DB_OK) {
		FUZZ_CHECK(err == DB_CORRUPT && em.text[0] != '\0' && f.fd == -1);
		return;
	}
	FUZZ_CHECK(len <= sizeof(data));
	FUZZ_CHECK(slotfile_write(&f, "written", 7, &em) == DB_OK);
	slotfile_close(&f);
	FUZZ_CHECK(slotfile_open(&f, path, data, sizeof(data), &len, &em) == DB_OK);
	FUZZ_CHECK(len == 7 && memcmp(data, "written", 7) == 0);
	slotfile_close(&f);
}

/* ---- a store */

static uint8_t *base_bytes, *meta_bytes, *wal_bytes;
static size_t base_len, meta_len, wal_len;
static char wal_name[64];

static enum db_err open_store(struct store **s, const char *dir, struct errmsg *em)
{
	struct store_options options = {.dir = dir, .segment_size_bytes = 256u << 10};

	memcpy(options.cluster_id, cluster_id, sizeof(cluster_id));
	return store_open(s, &options, em);
}

static void sql(sqlite3 *db, const char *text)
{
	FUZZ_CHECK(sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK);
}

/* A base file of some pages with an index, an overflow chain and free pages, and a log with one more transaction. */
static void make_store(void)
{
	char dir[FUZZ_PATH_MAX], path[FUZZ_PATH_MAX * 2];
	struct errmsg em = {0};
	struct store *s;
	sqlite3 *db;

	fuzz_path(dir, "template");
	FUZZ_CHECK(store_init_sqlite(&em) == DB_OK && open_store(&s, dir, &em) == DB_OK);
	store_set_term(s, 1);
	FUZZ_CHECK(store_open_writer(s, &db, &em) == DB_OK);
	sql(db, "create table t (a integer primary key, b text); create index i on t (b);"
		"with recursive n(i) as (select 1 union all select i + 1 from n where i < 60)"
		" insert into t select i, printf('%.*c', i * 5, 'x') from n; insert into t values (99, "
		"hex(zeroblob(9000)));"
		"create table gone (x); insert into gone values (zeroblob(9000)); drop table gone");
	FUZZ_CHECK(store_sync(s, NULL, &em) == DB_OK);
	store_set_committed(s, store_tip_lsn(s));
	FUZZ_CHECK(store_checkpoint(s, 1, &em) == DB_OK);
	sql(db, "insert into t values (100, 'last')");
	FUZZ_CHECK(store_sync(s, NULL, &em) == DB_OK);
	store_set_committed(s, store_tip_lsn(s));
	sqlite3_close(db);
	store_close(s);
	snprintf(path, sizeof(path), "%s/main.db", dir);
	base_bytes = fuzz_read_file(path, &base_len);
	snprintf(path, sizeof(path), "%s/store.meta", dir);
	meta_bytes = fuzz_read_file(path, &meta_len);
	snprintf(wal_name, sizeof(wal_name), "00000000000000000001.wal");
	snprintf(path, sizeof(path), "%s/wal/%s", dir, wal_name);
	wal_bytes = fuzz_read_file(path, &wal_len);
}

/* Whatever the pages hold: rows, or an error. */
static void query(struct store *s)
{
	static const char *const queries[] = {
	    "select a, length(b) from t order by b desc limit 9",
	    "select count(*), sum(length(b)) from t indexed by i",
	    "select * from sqlite_schema",
	    "select b from t where a = 99 or a = 100",
	    "pragma quick_check(3)",
	};
	struct errmsg em = {0};
	sqlite3_stmt *stmt;
	sqlite3 *db;
	size_t i;
	int rows;

	if (store_open_reader(s, &db, &em) != DB_OK) {
		FUZZ_CHECK(em.text[0] != '\0'); /* it looks at the database's first page */
		return;
	}
	for (i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
		if (sqlite3_prepare_v2(db, queries[i], -1, &stmt, NULL) != SQLITE_OK)
			continue;
		for (rows = 0; rows < 200 && sqlite3_step(stmt) == SQLITE_ROW; rows++)
			;
		sqlite3_finalize(stmt);
	}
	FUZZ_CHECK(sqlite3_close(db) == SQLITE_OK);
}

static void check_open_store(const char *dir)
{
	struct store_status status;
	struct errmsg em = {0};
	struct store *s = NULL;
	uint64_t checksum;
	enum db_err err = open_store(&s, dir, &em);

	if (err != DB_OK) {
		FUZZ_CHECK(s == NULL && (err == DB_CORRUPT || err == DB_INVALID || err == DB_DIVERGED) &&
			   em.text[0] != '\0');
		return;
	}
	if (store_apply(s, store_tip_lsn(s), &em) == DB_OK)
		store_set_committed(s, store_tip_lsn(s));
	store_get_status(s, &status);
	FUZZ_CHECK(status.checkpoint_lsn <= status.visible_lsn && status.visible_lsn <= status.applied_lsn &&
		   status.applied_lsn <= status.tip.lsn);
	query(s);
	if (store_verify(s, &checksum, &em) == DB_OK && checksum == status.db_checksum)
		store_checkpoint(s, status.tip.lsn, &em);
	store_close(s);
}

static void change(uint8_t *bytes, size_t len, struct fuzz_in *in)
{
	size_t at = (in_u16(in) | (size_t)in_u8(in) << 16) % len, got, i;
	const uint8_t *p = in_bytes(in, in_u8(in) & 31, &got);

	for (i = 0; i < got && at + i < len; i++)
		bytes[at + i] ^= p[i];
}

static void fuzz_store(struct fuzz_in *in)
{
	uint8_t how = in_u8(in);
	char dir[FUZZ_PATH_MAX], path[FUZZ_PATH_MAX * 2];
	uint8_t *base = malloc(base_len), *meta = malloc(meta_len);
	unsigned i;

	FUZZ_CHECK(base != NULL && meta != NULL);
	memcpy(base, base_bytes, base_len);
	memcpy(meta, meta_bytes, meta_len);
	for (i = 0; i < 6 && in->left > 0; i++) {
		if (how >> i & 1)
			change(meta, 200 < meta_len ? 200 : meta_len, in); /* the first slot's content */
		else
			change(base, base_len, in);
	}
	if (how & 64)
		fix_slot(meta);
	fuzz_path(dir, "store");
	fuzz_fresh_dir(dir);
	snprintf(path, sizeof(path), "%s/main.db", dir);
	fuzz_write_file(path, base, how & 128 ? base_len - in_u16(in) % base_len : base_len);
	snprintf(path, sizeof(path), "%s/store.meta", dir);
	fuzz_write_file(path, meta, meta_len);
	snprintf(path, sizeof(path), "%s/wal", dir);
	FUZZ_CHECK(mkdir(path, 0700) == 0);
	snprintf(path, sizeof(path), "%s/wal/%s", dir, wal_name);
	fuzz_write_file(path, wal_bytes, wal_len);
	check_open_store(dir);
	free(base);
	free(meta);
}

/* ---- a snapshot */

static void fuzz_snapshot(struct fuzz_in *in)
{
	uint8_t how = in_u8(in), *pages = malloc(base_len);
	uint32_t count = (uint32_t)(base_len / WAL_PAGE_SIZE), pgno, first;
	struct snapshot_header header = {.db_size_pages = (uint32_t)in_number(in, count)};
	struct snapshot_target *t = NULL;
	struct errmsg em = {0};
	char dir[FUZZ_PATH_MAX];
	enum db_err err;
	size_t len;
	unsigned i;

	header.pos.lsn = in_number(in, 7);
	header.pos.term = in_number(in, 1);
	header.record_checksum = 1;
	FUZZ_CHECK(pages != NULL);
	memcpy(pages, base_bytes, base_len);
	for (i = 0; i < (how & 7u) && in->left > 0; i++)
		change(pages, base_len, in);
	for (pgno = 1; pgno <= count && (how & 8) == 0; pgno++)
		header.db_checksum ^= checksum_page(pgno, pages + (size_t)(pgno - 1) * WAL_PAGE_SIZE);
	fuzz_path(dir, "copy");
	FUZZ_CHECK(snapshot_target_discard(dir, &em) == DB_OK);
	fuzz_rmtree(dir);
	FUZZ_CHECK(mkdir(dir, 0700) == 0);
	err = snapshot_target_create(&t, dir, &header, cluster_id, NULL, &em);
	FUZZ_CHECK((err == DB_OK) == (t != NULL) && (err == DB_OK || err == DB_CORRUPT));
	for (first = 1; err == DB_OK && first <= count; first += (uint32_t)len) {
		len = 1 + in_u8(in) % 4u;
		if (len > count - first + 1)
			len = count - first + 1;
		err = snapshot_target_write(t, (uint32_t)in_number(in, first),
					    pages + (size_t)(first - 1) * WAL_PAGE_SIZE, len * WAL_PAGE_SIZE, &em);
		FUZZ_CHECK(err == DB_OK || err == DB_GAP || err == DB_CORRUPT);
	}
	if (err == DB_OK)
		err = snapshot_target_finish(t, &em);
	FUZZ_CHECK(err == DB_OK || em.text[0] != '\0');
	snapshot_target_free(t);
	if (err == DB_OK) {
		FUZZ_CHECK(header.db_size_pages == count);
		check_open_store(dir);
	}
	free(pages);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};

	if (base_bytes == NULL)
		make_store();
	switch (in_u8(&in) % 8u) {
	case 0:
	case 1:
		fuzz_config(&in);
		break;
	case 2:
		fuzz_token(&in);
		break;
	case 3:
		fuzz_slotfile(&in);
		break;
	case 4:
	case 5:
		fuzz_store(&in);
		break;
	default:
		fuzz_snapshot(&in);
	}
	return 0;
}

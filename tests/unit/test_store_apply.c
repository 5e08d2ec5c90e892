/*
 * test_store_apply.c - a replica's store: the master's records appended, applied, cut; divergence; hostile records.
 */
#include <fcntl.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/store/snapshot_copy.h"
#include "tests/unit/store_fixture.h"

/* A master with both connections and a replica with a reader only. */
struct pair {
	struct fixture master;
	struct fixture replica;
};

static void replica_open(struct fixture *f)
{
	struct errmsg em = {0};

	UNIT_OK(fixture_open_only(f, &em), &em);
	UNIT_OK(store_open_reader(f->s, &f->r, &em), &em);
}

static void replica_close(struct fixture *f)
{
	CU_ASSERT_EQUAL(sqlite3_close(f->r), SQLITE_OK);
	store_close(f->s);
	f->s = NULL;
}

static void pair_new(struct pair *p)
{
	memset(p, 0, sizeof(*p));
	fixture_new(&p->master);
	unit_tmpdir(p->replica.dir);
	p->replica.options.segment_size_bytes = (size_t)128 << 10;
	replica_open(&p->replica);
}

static void pair_close(struct pair *p)
{
	fixture_close(&p->master);
	replica_close(&p->replica);
}

/* Copies the record's bytes so that a test may change them. */
static uint8_t *record_copy(struct store *s, uint64_t lsn, size_t *len)
{
	struct wal_record r;
	struct errmsg em = {0};
	const uint8_t *bytes;
	uint8_t *copy;

	UNIT_OK(wal_read(store_wal(s), lsn, &r, &em), &em);
	bytes = wal_record_bytes(&r, len);
	copy = malloc(*len);
	memcpy(copy, bytes, *len);
	return copy;
}

static enum db_err send_record(struct pair *p, uint64_t lsn, struct errmsg *em)
{
	size_t len;
	uint8_t *bytes = record_copy(p->master.s, lsn, &len);
	enum db_err err = store_append_record(p->replica.s, bytes, len, em);

	free(bytes);
	return err;
}

/* Everything the master has goes to the replica, is synced, applied and committed on both. */
static void replicate(struct pair *p)
{
	struct errmsg em = {0};
	uint64_t lsn, tip = store_tip_lsn(p->master.s);

	for (lsn = store_tip_lsn(p->replica.s) + 1; lsn <= tip; lsn++)
		UNIT_OK(send_record(p, lsn, &em), &em);
	UNIT_OK(store_sync(p->replica.s, NULL, &em), &em);
	UNIT_OK(store_apply(p->replica.s, tip, &em), &em);
	store_set_committed(p->replica.s, tip);
	fixture_commit(&p->master);
}

static bool files_are_equal(const char *dir_a, const char *dir_b, const char *name)
{
	char path[UNIT_PATH_MAX + 16], a[65536], b[65536];
	FILE *fa, *fb;
	size_t n;
	bool equal = true;

	snprintf(path, sizeof(path), "%s/%s", dir_a, name);
	fa = fopen(path, "rb");
	snprintf(path, sizeof(path), "%s/%s", dir_b, name);
	fb = fopen(path, "rb");
	while (equal && fa != NULL && fb != NULL && (n = fread(a, 1, sizeof(a), fa)) > 0)
		equal = fread(b, 1, sizeof(b), fb) == n && memcmp(a, b, n) == 0;
	equal = equal && fa != NULL && fb != NULL && fread(b, 1, 1, fb) == 0;
	if (fa != NULL)
		fclose(fa);
	if (fb != NULL)
		fclose(fb);
	return equal;
}

static void work(sqlite3 *db, int step)
{
	SQL(db, "create table if not exists t(a integer primary key, b)");
	SQL(db,
	    "with recursive n(i) as (select 1 union all select i+1 from n where i<200)"
	    "insert into t(b) select randomblob(%d) from n",
	    100 + step * 10);
	SQL(db, "delete from t where a %% 7 = %d; update t set b = randomblob(300) where a %% 11 = %d", step % 7,
	    step % 11);
	if (step % 4 == 3)
		SQL(db, "delete from t where a > 200; vacuum");
}

static void test_a_replica_becomes_byte_identical(void)
{
	struct pair p;
	struct store_status m, r;
	struct errmsg em = {0};
	int step;

	pair_new(&p);
	for (step = 0; step < 12; step++) {
		work(p.master.w, step);
		if (step == 5) {
			store_set_term(p.master.s, 3);
			UNIT_OK(store_append_term_start(p.master.s, &m.tip.lsn, &em), &em);
			CU_ASSERT_EQUAL(m.tip.lsn, store_tip_lsn(p.master.s));
		}
		replicate(&p);
		if (step % 5 == 4)
			UNIT_OK(store_checkpoint(p.replica.s, UINT64_MAX, &em), &em);
		store_get_status(p.master.s, &m);
		store_get_status(p.replica.s, &r);
		CU_ASSERT_EQUAL(m.tip.lsn, r.tip.lsn);
		CU_ASSERT_EQUAL(m.tip.term, r.tip.term);
		CU_ASSERT_EQUAL(m.db_checksum, r.db_checksum);
		CU_ASSERT_EQUAL(m.tip_checksum, r.tip_checksum);
		CU_ASSERT_EQUAL(VALUE(p.master.w, "select sum(a) from t"), VALUE(p.replica.r, "select sum(a) from t"));
		CU_ASSERT(fixture_is_intact(p.replica.r));
		CU_ASSERT(fixture_verifies(p.replica.s));
		if (step % 3 == 0) {
			replica_close(&p.replica);
			replica_open(&p.replica);
			store_set_committed(p.replica.s, r.tip.lsn);
		}
	}
	fixture_checkpoint(&p.master);
	UNIT_OK(store_checkpoint(p.replica.s, UINT64_MAX, &em), &em);
	CU_ASSERT(files_are_equal(p.master.dir, p.replica.dir, "main.db"));
	pair_close(&p);
}

static void test_gaps_forks_old_terms_and_bad_bytes_are_refused(void)
{
	struct pair p;
	struct errmsg em = {0};
	struct store_status before, after;
	uint8_t *bytes;
	size_t len, at;

	pair_new(&p);
	work(p.master.w, 0);
	UNIT_OK(send_record(&p, 1, &em), &em);
	store_get_status(p.replica.s, &before);
	CU_ASSERT_EQUAL(send_record(&p, 1, &em), DB_GAP);
	CU_ASSERT_EQUAL(send_record(&p, 3, &em), DB_GAP);
	bytes = record_copy(p.master.s, 2, &len);
	for (at = 0; at < len; at += at < 100 ? 1 : 997) {
		bytes[at] ^= 0x40;
		CU_ASSERT_NOT_EQUAL(store_append_record(p.replica.s, bytes, len, &em), DB_OK);
		bytes[at] ^= 0x40;
	}
	for (at = 0; at < len; at += at < 100 ? 1 : 997)
		CU_ASSERT_EQUAL(store_append_record(p.replica.s, bytes, at, &em), DB_CORRUPT);
	store_get_status(p.replica.s, &after);
	CU_ASSERT_EQUAL(before.tip.lsn, after.tip.lsn);
	UNIT_OK(store_append_record(p.replica.s, bytes, len, &em), &em);
	CU_ASSERT_EQUAL(store_apply(p.replica.s, 3, &em), DB_INVALID);
	free(bytes);
	pair_close(&p);
}

/* A record with a right checksum of its own whose content makes no sense. */
static enum db_err send_forged(struct pair *p, uint32_t pgno, uint32_t db_size_pages, enum wal_type type)
{
	uint8_t header[WAL_RECORD_HEADER_SIZE], *bytes, page[WAL_PAGE_SIZE] = {1};
	struct wal_record r = {.type = type, .page_count = 1, .db_size_pages = db_size_pages};
	struct store_status status;
	struct wal_hash *h = wal_hash_create();
	struct buf b = {0};
	struct errmsg em = {0};
	enum db_err err;
	size_t len;

	store_get_status(p->replica.s, &status);
	r.lsn = status.tip.lsn + 1;
	r.term = status.tip.term;
	r.prev_checksum = status.tip_checksum;
	r.payload_len = wal_payload_size(1);
	buf_put_u32le(&b, pgno);
	buf_put_u32le(&b, 0);
	buf_put(&b, page, sizeof(page));
	wal_hash_begin(h, &r);
	wal_hash_add(h, b.data, b.len);
	r.checksum = wal_hash_end(h);
	wal_hash_free(h);
	wal_record_encode_header(&r, header);
	len = sizeof(header) + b.len;
	bytes = malloc(len);
	memcpy(bytes, header, sizeof(header));
	memcpy(bytes + sizeof(header), b.data, b.len);
	buf_fini(&b);
	err = store_append_record(p->replica.s, bytes, len, &em);
	if (err == DB_OK)
		err = store_apply(p->replica.s, r.lsn, &em);
	if (store_tip_lsn(p->replica.s) == r.lsn)
		UNIT_OK(store_cut(p->replica.s, r.lsn - 1, &em), &em);
	free(bytes);
	return err;
}

static void test_forged_records_are_errors_and_change_nothing(void)
{
	struct pair p;
	struct store_status before, after;

	pair_new(&p);
	work(p.master.w, 0);
	replicate(&p);
	store_get_status(p.replica.s, &before);
	CU_ASSERT_EQUAL(send_forged(&p, 1, before.db_size_pages, WAL_PAGES), DB_DIVERGED);
	CU_ASSERT_EQUAL(send_forged(&p, 1, before.db_size_pages + 10, WAL_PAGES), DB_CORRUPT);
	CU_ASSERT_EQUAL(send_forged(&p, before.db_size_pages + 2, before.db_size_pages + 2, WAL_PAGES), DB_CORRUPT);
	CU_ASSERT_EQUAL(send_forged(&p, 0, before.db_size_pages, WAL_PAGES), DB_CORRUPT);
	CU_ASSERT_EQUAL(send_forged(&p, UINT32_MAX, UINT32_MAX, WAL_PAGES), DB_CORRUPT);
	CU_ASSERT_EQUAL(send_forged(&p, 1, before.db_size_pages, WAL_TERM_START), DB_CORRUPT);
	store_get_status(p.replica.s, &after);
	CU_ASSERT_EQUAL(before.db_checksum, after.db_checksum);
	CU_ASSERT_EQUAL(before.tip_checksum, after.tip_checksum);
	work(p.master.w, 1);
	replicate(&p);
	CU_ASSERT(fixture_verifies(p.replica.s));
	pair_close(&p);
}

static void test_an_altered_base_page_shows_as_divergence(void)
{
	struct pair p;
	struct errmsg em = {0};
	struct store_status status;
	char path[UNIT_PATH_MAX + 16];
	uint64_t checksum, tip;
	int fd;

	pair_new(&p);
	work(p.master.w, 0);
	replicate(&p);
	UNIT_OK(store_checkpoint(p.replica.s, UINT64_MAX, &em), &em);
	snprintf(path, sizeof(path), "%s/main.db", p.replica.dir);
	fd = open(path, O_WRONLY);
	CU_ASSERT_EQUAL(pwrite(fd, "x", 1, 2 * WAL_PAGE_SIZE + 2000), 1);
	close(fd);
	UNIT_OK(store_verify(p.replica.s, &checksum, &em), &em);
	store_get_status(p.replica.s, &status);
	CU_ASSERT_NOT_EQUAL(checksum, status.db_checksum);
	SQL(p.master.w, "update t set b = randomblob(10)");
	tip = store_tip_lsn(p.master.s);
	UNIT_OK(send_record(&p, tip, &em), &em);
	CU_ASSERT_EQUAL(store_apply(p.replica.s, tip, &em), DB_DIVERGED);
	CU_ASSERT(strstr(em.text, "checksum") != NULL);
	CU_ASSERT_EQUAL(store_apply(p.replica.s, tip, &em), DB_DIVERGED);
	store_get_status(p.replica.s, &status);
	CU_ASSERT_EQUAL(status.applied_lsn, tip - 1);
	/* Page 1 altered: found at once when the store is opened. */
	replica_close(&p.replica);
	fd = open(path, O_WRONLY);
	CU_ASSERT_EQUAL(pwrite(fd, "x", 1, 27), 1);
	close(fd);
	CU_ASSERT_EQUAL(fixture_open_only(&p.replica, &em), DB_CORRUPT);
	fixture_close(&p.master);
}

static void test_a_cut_tail_is_forgotten_and_another_one_applies(void)
{
	struct fixture a, b;
	struct pair p;
	struct store_status old, now;
	struct errmsg em = {0};
	uint64_t keep;
	int64_t sum;

	/* The old master (the pair's replica) has records that its successor never saw. */
	pair_new(&p);
	work(p.master.w, 0);
	replicate(&p);
	b = p.replica;
	UNIT_OK(store_open_writer(b.s, &b.w, &em), &em);
	store_get_status(b.s, &old);
	keep = old.tip.lsn;
	sum = VALUE(b.w, "select sum(a) from t");
	SQL(b.r, "begin");
	CU_ASSERT_EQUAL(VALUE(b.r, "select sum(a) from t"), sum);
	SQL(b.w, "insert into t(b) values(randomblob(100000)); delete from t where a < 50; vacuum");
	CU_ASSERT(store_tip_lsn(b.s) > keep);
	CU_ASSERT_EQUAL(store_cut(b.s, keep - 1, &em), DB_INVALID);
	UNIT_OK(store_cut(b.s, keep, &em), &em);
	UNIT_OK(store_cut(b.s, keep, &em), &em);
	store_get_status(b.s, &now);
	CU_ASSERT_EQUAL(now.tip.lsn, keep);
	CU_ASSERT_EQUAL(now.db_checksum, old.db_checksum);
	CU_ASSERT_EQUAL(now.tip_checksum, old.tip_checksum);
	CU_ASSERT_EQUAL(now.db_size_pages, old.db_size_pages);
	CU_ASSERT(fixture_verifies(b.s));
	CU_ASSERT_EQUAL(VALUE(b.r, "select sum(a) from t"), sum);
	SQL(b.r, "commit");
	/* The successor's records have change counters that the writer connection saw in its own cut ones. */
	a = p.master;
	store_set_term(a.s, 2);
	SQL(a.w, "insert into t(a, b) values(100000, 'successor'); delete from t where a < 100; vacuum");
	replicate(&p);
	CU_ASSERT_EQUAL(VALUE(b.w, "select count(*) from t where b = 'successor'"), 1);
	CU_ASSERT(fixture_is_intact(b.w));
	CU_ASSERT_EQUAL(VALUE(b.r, "select sum(a) from t"), VALUE(a.w, "select sum(a) from t"));
	CU_ASSERT(fixture_verifies(b.s));
	sqlite3_close(b.w);
	pair_close(&p);
}

static void test_a_cut_down_to_the_checkpoint_and_of_unapplied_records(void)
{
	struct pair p;
	struct errmsg em = {0};
	struct store_status status;
	uint64_t lsn, tip;

	pair_new(&p);
	work(p.master.w, 0);
	replicate(&p);
	UNIT_OK(store_checkpoint(p.replica.s, UINT64_MAX, &em), &em);
	lsn = store_tip_lsn(p.replica.s);
	work(p.master.w, 1);
	tip = store_tip_lsn(p.master.s);
	while (store_tip_lsn(p.replica.s) < tip)
		UNIT_OK(send_record(&p, store_tip_lsn(p.replica.s) + 1, &em), &em);
	UNIT_OK(store_apply(p.replica.s, lsn + 1, &em), &em);
	UNIT_OK(store_cut(p.replica.s, lsn, &em), &em);
	store_get_status(p.replica.s, &status);
	CU_ASSERT_EQUAL(status.applied_lsn, lsn);
	CU_ASSERT(fixture_verifies(p.replica.s));
	replica_close(&p.replica);
	replica_open(&p.replica);
	CU_ASSERT_EQUAL(store_tip_lsn(p.replica.s), lsn);
	replicate(&p);
	CU_ASSERT(fixture_verifies(p.replica.s));
	CU_ASSERT(fixture_is_intact(p.replica.r));
	pair_close(&p);
}

static void test_a_replica_takes_over_as_master(void)
{
	struct pair p;
	struct errmsg em = {0};
	uint64_t lsn;

	pair_new(&p);
	work(p.master.w, 0);
	replicate(&p);
	store_set_term(p.replica.s, 5);
	UNIT_OK(store_append_term_start(p.replica.s, &lsn, &em), &em);
	UNIT_OK(store_open_writer(p.replica.s, &p.replica.w, &em), &em);
	work(p.replica.w, 1);
	fixture_commit(&p.replica);
	fixture_disconnect(&p.replica);
	fixture_connect(&p.replica);
	fixture_check_all(&p.replica, "select sum(a) from t");
	fixture_close(&p.replica);
	fixture_close(&p.master);
}

/* Copies the source's pages in runs of a few; damage > 0: that page is altered on the way. */
static enum db_err copy_pages(const struct snapshot_source *src, struct snapshot_target *t, uint32_t damage)
{
	uint8_t run[3 * WAL_PAGE_SIZE];
	uint32_t pgno, n, i, size = snapshot_source_header(src)->db_size_pages;
	struct errmsg em = {0};
	enum db_err err = DB_OK;

	for (pgno = 1; err == DB_OK && pgno <= size; pgno += n) {
		n = size - pgno + 1 < 3 ? size - pgno + 1 : 3;
		for (i = 0; i < n; i++)
			memcpy(run + i * WAL_PAGE_SIZE, snapshot_source_page(src, pgno + i), WAL_PAGE_SIZE);
		if (damage >= pgno && damage < pgno + n)
			run[(damage - pgno) * WAL_PAGE_SIZE + 77] ^= 1;
		CU_ASSERT_EQUAL(snapshot_target_missing(t), size - pgno + 1);
		err = snapshot_target_write(t, pgno, run, n * WAL_PAGE_SIZE, &em);
		CU_ASSERT_EQUAL(snapshot_target_write(t, pgno, run, WAL_PAGE_SIZE, &em), DB_GAP);
	}
	CU_ASSERT_EQUAL(snapshot_target_write(t, 0, run, WAL_PAGE_SIZE, &em), DB_CORRUPT);
	CU_ASSERT_EQUAL(snapshot_target_write(t, size + 1, run, WAL_PAGE_SIZE, &em), DB_CORRUPT);
	CU_ASSERT_EQUAL(snapshot_target_write(t, size, run, 2 * WAL_PAGE_SIZE, &em), DB_CORRUPT);
	CU_ASSERT_EQUAL(snapshot_target_write(t, 1, run, 100, &em), DB_CORRUPT);
	return err;
}

/* Offers all pages by their hashes and sends those wanted, but at most max of them; returns how many were wanted. */
static uint32_t copy_wanted(const struct snapshot_source *src, struct snapshot_target *t, uint32_t max)
{
	uint32_t pgno, wanted = 0, size = snapshot_source_header(src)->db_size_pages;
	struct errmsg em = {0};
	uint8_t hash[8], want;

	for (pgno = 1; pgno <= size; pgno++) {
		want = 0;
		store_u64le(hash, snapshot_source_hash(src, pgno));
		UNIT_OK(snapshot_target_compare(t, pgno, 1, hash, &want, &em), &em);
		if (want == 0)
			continue;
		wanted++;
		if (max-- > 0)
			UNIT_OK(snapshot_target_write(t, pgno, snapshot_source_page(src, pgno), WAL_PAGE_SIZE, &em),
				&em);
		else
			max = 0;
	}
	want = 0;
	CU_ASSERT_EQUAL(snapshot_target_compare(t, size, 2, (const uint8_t[16]){0}, &want, &em), DB_CORRUPT);
	return wanted;
}

static void test_a_snapshot_replaces_a_store_and_the_log_goes_on(void)
{
	static const uint8_t id[16] = {7}, other[16] = {8};
	struct pair p;
	struct snapshot_source *src;
	struct snapshot_target *t;
	struct snapshot_header absurd = {.pos = {1, 1}, .db_size_pages = UINT32_MAX};
	struct errmsg em = {0};

	pair_new(&p);
	UNIT_OK(store_set_cluster_id(p.replica.s, id, &em), &em);
	work(p.master.w, 0);
	fixture_commit(&p.master);
	fixture_checkpoint(&p.master);
	work(p.master.w, 1);
	fixture_commit(&p.master);
	UNIT_OK(snapshot_source_open(&src, p.master.s, &em), &em);
	work(p.master.w, 3);
	fixture_commit(&p.master);
	fixture_checkpoint(&p.master);
	CU_ASSERT(snapshot_source_header(src)->pos.lsn < store_visible_lsn(p.master.s));
	CU_ASSERT_EQUAL(snapshot_target_create(&t, p.replica.dir, &absurd, id, NULL, &em), DB_CORRUPT);
	CU_ASSERT_EQUAL(snapshot_target_create(&t, p.replica.dir, snapshot_source_header(src), other, NULL, &em),
			DB_INVALID);
	/* Damaged, incomplete, or into an open store: the replica's store stays. */
	UNIT_OK(snapshot_target_create(&t, p.replica.dir, snapshot_source_header(src), id, NULL, &em), &em);
	CU_ASSERT_EQUAL(snapshot_target_finish(t, &em), DB_CORRUPT);
	UNIT_OK(copy_pages(src, t, 2), &em);
	CU_ASSERT_EQUAL(snapshot_target_finish(t, &em), DB_CORRUPT);
	snapshot_target_free(t);
	UNIT_OK(snapshot_target_create(&t, p.replica.dir, snapshot_source_header(src), id, NULL, &em), &em);
	UNIT_OK(copy_pages(src, t, 0), &em);
	CU_ASSERT_EQUAL(snapshot_target_finish(t, &em), DB_BUSY);
	replica_close(&p.replica);
	UNIT_OK(snapshot_target_finish(t, &em), &em);
	snapshot_target_free(t);
	replica_open(&p.replica);
	CU_ASSERT_EQUAL(store_tip_lsn(p.replica.s), snapshot_source_header(src)->pos.lsn);
	snapshot_source_close(src);
	CU_ASSERT(fixture_verifies(p.replica.s));
	replicate(&p);
	CU_ASSERT(fixture_is_intact(p.replica.r));
	CU_ASSERT(fixture_verifies(p.replica.s));
	CU_ASSERT_EQUAL(VALUE(p.replica.r, "select sum(a) from t"), VALUE(p.master.w, "select sum(a) from t"));
	pair_close(&p);
}

static void test_a_snapshot_takes_what_is_there_already(void)
{
	static const uint8_t id[16] = {7};
	struct pair p;
	struct snapshot_source *src;
	struct snapshot_target *t;
	struct errmsg em = {0};
	uint32_t wanted, again;

	pair_new(&p);
	work(p.master.w, 0);
	SQL(p.master.w,
	    "create table pad(v); insert into pad with recursive n(i) as (select 1 union all select i + 1 from n "
	    "where i < 500) select randomblob(1000) from n");
	fixture_commit(&p.master);
	replicate(&p);
	SQL(p.master.w, "update pad set v = randomblob(1000) where rowid %% 50 = 0");
	fixture_commit(&p.master);
	UNIT_OK(snapshot_source_open(&src, p.master.s, &em), &em);

	/* Cut short after three pages: the next attempt wants the others only. */
	UNIT_OK(snapshot_target_create(&t, p.replica.dir, snapshot_source_header(src), id, p.replica.s, &em), &em);
	wanted = copy_wanted(src, t, 3);
	CU_ASSERT(wanted > 5 && wanted < snapshot_source_header(src)->db_size_pages / 2);
	snapshot_target_free(t);
	UNIT_OK(snapshot_target_create(&t, p.replica.dir, snapshot_source_header(src), id, p.replica.s, &em), &em);
	again = copy_wanted(src, t, UINT32_MAX);
	CU_ASSERT_EQUAL(again, wanted - 3);
	CU_ASSERT_EQUAL(snapshot_target_missing(t), 0);
	UNIT_OK(snapshot_target_complete(t, &em), &em);
	replica_close(&p.replica);
	UNIT_OK(snapshot_target_finish(t, &em), &em);
	snapshot_target_free(t);
	snapshot_source_close(src);
	replica_open(&p.replica);
	CU_ASSERT(fixture_verifies(p.replica.s));
	CU_ASSERT(fixture_is_intact(p.replica.r));
	CU_ASSERT_EQUAL(VALUE(p.replica.r, "select count(*) from pad"), 500);
	pair_close(&p);
}

static void test_what_a_snapshot_left_can_be_discarded(void)
{
	struct pair p;
	struct snapshot_source *src;
	struct snapshot_target *t;
	struct errmsg em = {0};
	uint32_t size;

	pair_new(&p);
	work(p.master.w, 0);
	fixture_commit(&p.master);
	UNIT_OK(snapshot_source_open(&src, p.master.s, &em), &em);
	size = snapshot_source_header(src)->db_size_pages;
	UNIT_OK(
	    snapshot_target_create(&t, p.replica.dir, snapshot_source_header(src), (const uint8_t[16]){7}, NULL, &em),
	    &em);
	CU_ASSERT_EQUAL(copy_wanted(src, t, UINT32_MAX), size);
	snapshot_target_free(t);
	UNIT_OK(snapshot_target_discard(p.replica.dir, &em), &em);
	UNIT_OK(snapshot_target_discard(p.replica.dir, &em), &em);
	UNIT_OK(
	    snapshot_target_create(&t, p.replica.dir, snapshot_source_header(src), (const uint8_t[16]){7}, NULL, &em),
	    &em);
	CU_ASSERT_EQUAL(copy_wanted(src, t, 0), size);
	snapshot_target_free(t);
	UNIT_OK(snapshot_target_discard(p.replica.dir, &em), &em);
	snapshot_source_close(src);
	pair_close(&p);
}

static const struct unit_test tests[] = {
    {"a snapshot takes what is there already", test_a_snapshot_takes_what_is_there_already},
    {"what a snapshot left can be discarded", test_what_a_snapshot_left_can_be_discarded},
    {"a replica becomes byte-identical", test_a_replica_becomes_byte_identical},
    {"gaps, forks, old terms and bad bytes are refused", test_gaps_forks_old_terms_and_bad_bytes_are_refused},
    {"forged records are errors and change nothing", test_forged_records_are_errors_and_change_nothing},
    {"an altered base page shows as divergence", test_an_altered_base_page_shows_as_divergence},
    {"a cut tail is forgotten and another one applies", test_a_cut_tail_is_forgotten_and_another_one_applies},
    {"a cut down to the checkpoint, and of unapplied records",
     test_a_cut_down_to_the_checkpoint_and_of_unapplied_records},
    {"a snapshot replaces a store and the log goes on", test_a_snapshot_replaces_a_store_and_the_log_goes_on},
    {"a replica takes over as master", test_a_replica_takes_over_as_master},
    {NULL, NULL},
};

int main(void)
{
	struct errmsg em = {0};

	if (store_init_sqlite(&em) != DB_OK) {
		fprintf(stderr, "%s\n", em.text);
		return 1;
	}
	return unit_run("store_apply", tests);
}

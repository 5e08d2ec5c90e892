/*
 * test_archive.c - archived log: names, headers, files, what damage to them does, and a database moved forward by them.
 */
#include "common/archive/archive.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/archive/replay.h"
#include "common/store/checksum.h"
#include "common/store/snapshot_copy.h"
#include "tests/unit/store_fixture.h"

static const uint8_t cluster_id[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

/* ---- headers and names */

static void test_header_has_its_layout_and_shows_any_damage(void)
{
	const struct archive_header h = {.first_lsn = 0x0102,
					 .last_lsn = 0x0304,
					 .prev_checksum = 0x0506,
					 .last_checksum = 0x0708,
					 .bytes = 0x090a,
					 .last_term = 0x0b0c};
	struct archive_header back;
	uint8_t bytes[ARCHIVE_HEADER_SIZE];
	struct errmsg em = {0};
	size_t i;

	archive_header_encode(&h, bytes);
	CU_ASSERT_EQUAL(memcmp(bytes, "GzA1\x01\0\0\0", 8), 0);
	CU_ASSERT(bytes[24] == 2 && bytes[25] == 1 && bytes[32] == 4 && bytes[40] == 6 && bytes[48] == 8 &&
		  bytes[56] == 10 && bytes[64] == 12);
	UNIT_OK(archive_header_decode(&back, bytes, &em), &em);
	CU_ASSERT(back.first_lsn == h.first_lsn && back.last_lsn == h.last_lsn && back.bytes == h.bytes &&
		  back.prev_checksum == h.prev_checksum && back.last_checksum == h.last_checksum &&
		  back.last_term == h.last_term);
	for (i = 0; i < sizeof(bytes); i++) {
		bytes[i] ^= 0x40;
		CU_ASSERT_NOT_EQUAL(archive_header_decode(&back, bytes, &em), DB_OK);
		bytes[i] ^= 0x40;
	}
}

static void test_only_archive_files_have_names_that_are_understood(void)
{
	static const char *const strange[] = {"",
					      ".gza",
					      "00000000000000000001-00000000000000000002.gza.superseded",
					      "00000000000000000001-00000000000000000002.wal",
					      "0000000000000000001-000000000000000000002.gza",
					      "00000000000000000002-00000000000000000001.gza",
					      "00000000000000000000-00000000000000000001.gza",
					      "99999999999999999999-99999999999999999999.gza",
					      "0000000000000000000x-00000000000000000002.gza",
					      "node1.partial"};
	char name[ARCHIVE_NAME_MAX];
	uint64_t first = 0, last = 0;
	size_t i;

	archive_name(7, UINT64_MAX, name);
	CU_ASSERT_STRING_EQUAL(name, "00000000000000000007-18446744073709551615.gza");
	CU_ASSERT(archive_name_parse(name, &first, &last) && first == 7 && last == UINT64_MAX);
	for (i = 0; i < sizeof(strange) / sizeof(strange[0]); i++)
		CU_ASSERT_FALSE(archive_name_parse(strange[i], &first, &last));
}

static void touch(const char *dir, const char *name)
{
	char path[UNIT_PATH_MAX + 80];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	CU_ASSERT_FATAL(fd >= 0);
	close(fd);
}

static void test_list_finds_what_reaches_furthest_and_what_comes_next(void)
{
	static const uint64_t ranges[][2] = {{50, 60}, {1, 10}, {11, 20}, {15, 30}, {15, 16}};
	char dir[UNIT_PATH_MAX], name[ARCHIVE_NAME_MAX];
	struct archive_list list;
	struct errmsg em = {0};
	size_t i;

	unit_tmpdir(dir);
	for (i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		archive_name(ranges[i][0], ranges[i][1], name);
		touch(dir, name);
	}
	touch(dir, "node1.partial");
	UNIT_OK(archive_list_read(&list, dir, &em), &em);
	CU_ASSERT_EQUAL(list.count, 5);
	CU_ASSERT_EQUAL(archive_list_find(&list, 1)->last_lsn, 10);
	CU_ASSERT_EQUAL(archive_list_find(&list, 15)->last_lsn, 30);
	CU_ASSERT_PTR_NULL(archive_list_find(&list, 31));
	CU_ASSERT_PTR_NULL(archive_list_find(&list, 61));
	CU_ASSERT_EQUAL(archive_list_after(&list, 31)->first_lsn, 50);
	CU_ASSERT_PTR_NULL(archive_list_after(&list, 50));
	archive_list_fini(&list);
	CU_ASSERT_EQUAL(archive_list_read(&list, "/nonexistent/archive", &em), DB_NOTFOUND);
}

/* ---- a store with a history, and its archive */

#define STEPS 24u

struct history {
	struct fixture f;
	char archive[UNIT_PATH_MAX];
	char copy[UNIT_PATH_MAX + 16];
	struct snapshot_header at[STEPS + 2]; /* by LSN: the database then */
	uint64_t last_lsn;
};

static struct snapshot_header look(struct history *h)
{
	struct snapshot_source *source = NULL;
	struct snapshot_header header;
	struct errmsg em = {0};

	UNIT_OK(snapshot_source_open(&source, h->f.s, &em), &em);
	header = *snapshot_source_header(source);
	snapshot_source_close(source);
	return header;
}

/* Writes the snapshot of now to h->copy. */
static void take_copy(struct history *h)
{
	struct snapshot_source *source = NULL;
	struct errmsg em = {0};
	uint32_t pgno;
	int fd = open(h->copy, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	CU_ASSERT_FATAL(fd >= 0);
	UNIT_OK(snapshot_source_open(&source, h->f.s, &em), &em);
	for (pgno = 1; pgno <= snapshot_source_header(source)->db_size_pages; pgno++)
		CU_ASSERT_EQUAL(write(fd, snapshot_source_page(source, pgno), WAL_PAGE_SIZE), WAL_PAGE_SIZE);
	snapshot_source_close(source);
	close(fd);
}

static void step(struct history *h, unsigned i)
{
	if (i % 6 == 5)
		SQL(h->f.w, "delete from t where id %% 3 = %u; vacuum", i % 3); /* two records, the second shrinks it */
	else
		SQL(h->f.w, "insert into t(v) values (randomblob(%u))", 500 + i * 1500);
	fixture_commit(&h->f);
	h->last_lsn = store_tip_lsn(h->f.s);
}

/* The copy is taken at LSN 3; then come LSN 4 to last_lsn. */
static void history_make(struct history *h)
{
	unsigned i;

	memset(h, 0, sizeof(*h));
	fixture_new(&h->f);
	unit_tmpdir(h->archive);
	snprintf(h->copy, sizeof(h->copy), "%s/copy.db", h->f.dir);
	SQL(h->f.w, "create table t(id integer primary key, v)");
	SQL(h->f.w, "insert into t(v) values (1)");
	SQL(h->f.w, "insert into t(v) values (2)");
	fixture_commit(&h->f);
	h->at[3] = look(h);
	take_copy(h);
	for (i = 0; h->last_lsn < STEPS; i++) {
		step(h, i);
		CU_ASSERT_FATAL(h->last_lsn <= STEPS + 1);
		h->at[h->last_lsn] = look(h);
	}
}

static void history_free(struct history *h)
{
	fixture_close(&h->f);
}

static struct archive_entry must_write(struct history *h, uint64_t first, uint64_t last, uint64_t bytes_max)
{
	struct archive_entry entry = {0, 0};
	struct wal_cursor *cursor = NULL;
	struct errmsg em = {0};

	UNIT_OK(wal_cursor_create(&cursor, store_wal(h->f.s), first, &em), &em);
	UNIT_OK(archive_write(h->archive, "node1", cluster_id, cursor, last, bytes_max, &entry, &em), &em);
	wal_cursor_free(cursor);
	return entry;
}

static struct replay_state begin(struct history *h)
{
	struct replay_state s = {.fd = open(h->copy, O_RDWR),
				 .pos = h->at[3].pos,
				 .record_checksum = h->at[3].record_checksum,
				 .db_checksum = h->at[3].db_checksum,
				 .db_size_pages = h->at[3].db_size_pages,
				 .time_us = h->at[3].time_us};

	CU_ASSERT_FATAL(s.fd >= 0);
	return s;
}

static void copy_file(const char *from, const char *to)
{
	static uint8_t bytes[1 << 20];
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ssize_t n;

	CU_ASSERT_FATAL(in >= 0 && out >= 0);
	while ((n = read(in, bytes, sizeof(bytes))) > 0)
		CU_ASSERT_EQUAL(write(out, bytes, (size_t)n), n);
	close(in);
	close(out);
}

/* A replay on a fresh copy; what it came to. */
static enum db_err replay_to(struct history *h, enum replay_until until, uint64_t lsn, uint64_t time_us,
			     struct replay_state *out, struct errmsg *em)
{
	const struct replay_goal goal = {.until = until, .lsn = lsn, .time_us = time_us};
	char saved[UNIT_PATH_MAX + 32];
	enum db_err err;

	snprintf(saved, sizeof(saved), "%s.saved", h->copy);
	copy_file(h->copy, saved);
	*out = begin(h);
	err = archive_replay(out, h->archive, cluster_id, &goal, NULL, NULL, em);
	close(out->fd);
	return err;
}

static void restore_copy(struct history *h)
{
	char saved[UNIT_PATH_MAX + 32];

	snprintf(saved, sizeof(saved), "%s.saved", h->copy);
	CU_ASSERT_EQUAL(rename(saved, h->copy), 0);
}

/* The file is the database as of that LSN: its size and the checksum over its pages. */
static void check_file(struct history *h, uint64_t lsn)
{
	uint8_t page[WAL_PAGE_SIZE];
	uint64_t checksum = 0;
	struct stat st;
	uint32_t pgno;
	int fd = open(h->copy, O_RDONLY);

	CU_ASSERT_FATAL(fd >= 0 && fstat(fd, &st) == 0);
	CU_ASSERT_EQUAL((uint64_t)st.st_size, (uint64_t)h->at[lsn].db_size_pages * WAL_PAGE_SIZE);
	for (pgno = 1; pread(fd, page, sizeof(page), (off_t)(pgno - 1) * WAL_PAGE_SIZE) == WAL_PAGE_SIZE; pgno++)
		checksum ^= checksum_page(pgno, page);
	CU_ASSERT_EQUAL(checksum, h->at[lsn].db_checksum);
	close(fd);
}

static void test_every_lsn_is_reached_exactly(void)
{
	struct history h;
	struct replay_state s;
	struct errmsg em = {0};
	uint64_t lsn, next = 4;
	unsigned files = 0;

	history_make(&h);
	for (; next <= h.last_lsn; files++)
		next = must_write(&h, next, h.last_lsn, 40000).last_lsn + 1;
	CU_ASSERT(files > 3);
	for (lsn = 3; lsn <= h.last_lsn; lsn++) {
		if (h.at[lsn].pos.lsn == 0) /* the first of the two records of a step */
			continue;
		UNIT_OK(replay_to(&h, REPLAY_TO_LSN, lsn, 0, &s, &em), &em);
		CU_ASSERT_EQUAL(s.pos.lsn, lsn);
		CU_ASSERT_EQUAL(s.record_checksum, h.at[lsn].record_checksum);
		check_file(&h, lsn);
		restore_copy(&h);
	}
	UNIT_OK(replay_to(&h, REPLAY_TO_END, 0, 0, &s, &em), &em);
	check_file(&h, h.last_lsn);
	restore_copy(&h);
	CU_ASSERT_EQUAL(replay_to(&h, REPLAY_TO_LSN, h.last_lsn + 1, 0, &s, &em), DB_GAP);
	restore_copy(&h);
	CU_ASSERT_EQUAL(replay_to(&h, REPLAY_TO_LSN, 2, 0, &s, &em), DB_INVALID);
	restore_copy(&h);
	history_free(&h);
}

static void test_time_stops_before_the_first_later_record(void)
{
	struct history h;
	struct replay_state s;
	struct errmsg em = {0};
	uint64_t middle;

	history_make(&h);
	must_write(&h, 4, h.last_lsn, UINT64_MAX);
	for (middle = 10; h.at[middle].pos.lsn == 0 || h.at[middle + 1].pos.lsn == 0; middle++)
		;
	if (h.at[middle].time_us < h.at[middle + 1].time_us) {
		UNIT_OK(replay_to(&h, REPLAY_TO_TIME, 0, h.at[middle + 1].time_us - 1, &s, &em), &em);
		CU_ASSERT_EQUAL(s.pos.lsn, middle);
		check_file(&h, middle);
		restore_copy(&h);
	}
	CU_ASSERT_EQUAL(replay_to(&h, REPLAY_TO_TIME, 0, h.at[h.last_lsn].time_us, &s, &em), DB_GAP);
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, "nothing says"));
	restore_copy(&h);
	CU_ASSERT_EQUAL(replay_to(&h, REPLAY_TO_TIME, 0, h.at[3].time_us - 1, &s, &em), DB_INVALID);
	restore_copy(&h);
	h.at[3].time_us = 0;
	CU_ASSERT_EQUAL(replay_to(&h, REPLAY_TO_TIME, 0, UINT64_MAX, &s, &em), DB_INVALID);
	restore_copy(&h);
	history_free(&h);
}

static void test_overlapping_files_are_one_history(void)
{
	struct history h;
	struct replay_state s;
	struct errmsg em = {0};

	history_make(&h);
	must_write(&h, 2, 9, UINT64_MAX); /* begins before the copy */
	must_write(&h, 5, 12, UINT64_MAX);
	must_write(&h, 7, 8, UINT64_MAX);
	must_write(&h, 11, h.last_lsn, UINT64_MAX);
	UNIT_OK(replay_to(&h, REPLAY_TO_LSN, h.last_lsn, 0, &s, &em), &em);
	check_file(&h, h.last_lsn);
	restore_copy(&h);
	history_free(&h);
}

static void test_holes_and_other_histories_are_errors(void)
{
	struct history h;
	struct replay_state s;
	struct errmsg em = {0};
	struct archive_entry entry;

	history_make(&h);
	must_write(&h, 4, 8, UINT64_MAX);
	entry = must_write(&h, 9, 14, UINT64_MAX);
	must_write(&h, 15, h.last_lsn, UINT64_MAX);
	UNIT_OK(archive_supersede(h.archive, &entry, &em), &em);
	CU_ASSERT_EQUAL(replay_to(&h, REPLAY_TO_END, 0, 0, &s, &em), DB_GAP);
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, "lacks the records 9 to 14"));
	restore_copy(&h);
	h.at[3].record_checksum ^= 1;
	CU_ASSERT_EQUAL(replay_to(&h, REPLAY_TO_END, 0, 0, &s, &em), DB_INVALID);
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, "another history"));
	restore_copy(&h);
	h.at[3].record_checksum ^= 1;
	h.at[3].db_checksum ^= 1; /* the right history, another database */
	CU_ASSERT_EQUAL(replay_to(&h, REPLAY_TO_END, 0, 0, &s, &em), DB_CORRUPT);
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, "record 4"));
	restore_copy(&h);
	history_free(&h);
}

/* Every bit matters: no damage to a file lets it pass. */
static void test_no_damaged_byte_is_replayed(void)
{
	struct history h;
	struct replay_state s;
	struct archive_entry entry;
	struct errmsg em = {0};
	char path[UNIT_PATH_MAX + ARCHIVE_NAME_MAX], name[ARCHIVE_NAME_MAX];
	struct stat st;
	uint8_t byte;
	off_t at;
	int fd;

	history_make(&h);
	entry = must_write(&h, 4, 7, UINT64_MAX);
	archive_name(entry.first_lsn, entry.last_lsn, name);
	snprintf(path, sizeof(path), "%s/%s", h.archive, name);
	fd = open(path, O_RDWR);
	CU_ASSERT_FATAL(fd >= 0 && fstat(fd, &st) == 0);
	for (at = 0; at < st.st_size; at += at < 300 ? 1 : 997) {
		CU_ASSERT_EQUAL(pread(fd, &byte, 1, at), 1);
		byte ^= 4;
		CU_ASSERT_EQUAL(pwrite(fd, &byte, 1, at), 1);
		em.text[0] = '\0';
		CU_ASSERT_NOT_EQUAL(replay_to(&h, REPLAY_TO_END, 0, 0, &s, &em), DB_OK);
		CU_ASSERT_PTR_NOT_NULL(strstr(em.text, name));
		restore_copy(&h);
		byte ^= 4;
		CU_ASSERT_EQUAL(pwrite(fd, &byte, 1, at), 1);
	}
	for (at = 0; at < st.st_size; at += 1009) {
		CU_ASSERT_EQUAL(ftruncate(fd, st.st_size - 1 - at), 0);
		CU_ASSERT_EQUAL(replay_to(&h, REPLAY_TO_END, 0, 0, &s, &em), DB_CORRUPT);
		restore_copy(&h);
	}
	close(fd);
	history_free(&h);
}

static void test_writing_leaves_the_log_free_and_no_half_file(void)
{
	struct history h;
	struct archive_entry entry;
	struct wal_cursor *cursor = NULL;
	struct errmsg em = {0};
	struct archive_list list;

	history_make(&h);
	UNIT_OK(wal_cursor_create(&cursor, store_wal(h.f.s), h.last_lsn + 1, &em), &em);
	CU_ASSERT_EQUAL(wal_cursor_held_lsn(cursor), UINT64_MAX);
	CU_ASSERT_EQUAL(archive_write(h.archive, "node1", cluster_id, cursor, h.last_lsn + 1, UINT64_MAX, &entry, &em),
			DB_NOTFOUND);
	wal_cursor_free(cursor);
	UNIT_OK(wal_cursor_create(&cursor, store_wal(h.f.s), 4, &em), &em);
	CU_ASSERT_EQUAL(archive_write("/nonexistent", "node1", cluster_id, cursor, 9, UINT64_MAX, &entry, &em),
			DB_NOTFOUND);
	wal_cursor_free(cursor);
	UNIT_OK(archive_list_read(&list, h.archive, &em), &em);
	CU_ASSERT_EQUAL(list.count, 0);
	archive_list_fini(&list);
	history_free(&h);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"header has its layout and shows any damage", test_header_has_its_layout_and_shows_any_damage},
	    {"only archive files have names that are understood",
	     test_only_archive_files_have_names_that_are_understood},
	    {"list finds what reaches furthest and what comes next",
	     test_list_finds_what_reaches_furthest_and_what_comes_next},
	    {"every LSN is reached exactly", test_every_lsn_is_reached_exactly},
	    {"time stops before the first later record", test_time_stops_before_the_first_later_record},
	    {"overlapping files are one history", test_overlapping_files_are_one_history},
	    {"holes and other histories are errors", test_holes_and_other_histories_are_errors},
	    {"no damaged byte is replayed", test_no_damaged_byte_is_replayed},
	    {"writing leaves the log free and no half file", test_writing_leaves_the_log_free_and_no_half_file},
	    {NULL, NULL},
	};
	struct errmsg em = {0};

	if (store_init_sqlite(&em) != DB_OK)
		return 1;
	return unit_run("archive", tests);
}

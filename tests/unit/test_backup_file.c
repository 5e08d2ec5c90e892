/*
 * test_backup_file.c - backups on disk, points in time as people write them, and how much log is kept.
 */
#include "supervisor/backup_file.h"

#include "common/store/checksum.h"
#include "node/retention.h"
#include "supervisor/time_text.h"
#include "tests/unit/wal_fixture.h"

/* ---- time_text */

static void test_times_are_read_as_they_are_meant(void)
{
	static const struct {
		const char *text;
		uint64_t us;
	} good[] = {{"1970-01-01T00:00:01Z", 1000000},
		    {"2026-11-23T08:00:00Z", 1795420800000000u},
		    {"2026-11-23 08:00:00.5z", 1795420800500000u},
		    {"2026-11-23t09:30:00.000001+01:30", 1795420800000001u},
		    {"2026-11-22T23:00:00-09:00", 1795420800000000u},
		    {"2024-02-29T00:00:00.1234567Z", 1709164800123456u},
		    {"1795420800", 1795420800000000u},
		    {"1795420800.25", 1795420800250000u},
		    {"0", 0}};
	static const char *const bad[] = {"",
					  "yesterday",
					  "2026-11-23",
					  "2026-11-23T08:00:00",
					  "2026-11-23T08:00Z",
					  "2026-02-30T08:00:00Z",
					  "2026-13-01T08:00:00Z",
					  "2026-11-23T24:00:00Z",
					  "2026-11-23T08:00:00.Z",
					  "2026-11-23T08:00:00Z ",
					  "2026-11-23T08:00:00+1:00",
					  "-1",
					  "1e9",
					  "1.",
					  "99999999999999",
					  "1969-12-31T23:59:59Z",
					  "1970-01-01T00:00:00+01:00"};
	char text[TIME_TEXT_MAX];
	uint64_t us;
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		us = 42;
		CU_ASSERT(time_text_parse(good[i].text, &us));
		CU_ASSERT_EQUAL(us, good[i].us);
	}
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CU_ASSERT_FALSE(time_text_parse(bad[i], &us));
	time_text_put(1795420800000001u, text);
	CU_ASSERT_STRING_EQUAL(text, "2026-11-23T08:00:00.000001Z");
	CU_ASSERT(time_text_parse(text, &us) && us == 1795420800000001u);
	time_text_put(0, text);
	CU_ASSERT_STRING_EQUAL(text, "unknown");
}

/* ---- backup files */

struct place {
	char dir[UNIT_PATH_MAX];
	char path[UNIT_PATH_MAX + 16];
};

static void place_make(struct place *p)
{
	unit_tmpdir(p->dir);
	snprintf(p->path, sizeof(p->path), "%s/copy", p->dir);
}

static uint8_t pages[3 * WAL_PAGE_SIZE];

static struct backup_info info_of_pages(void)
{
	struct backup_info info = {.pos = {.term = 3, .lsn = 12},
				   .node = "node2",
				   .time_us = 1795420800000001u,
				   .record_checksum = 0xfedcba9876543210u,
				   .size_bytes = sizeof(pages)};
	uint32_t pgno;
	size_t i;

	for (i = 0; i < sizeof(pages); i++)
		pages[i] = (uint8_t)(i * 31 + i / 256);
	for (i = 0; i < 16; i++)
		info.cluster_id[i] = (uint8_t)(i * 16 + 1);
	for (pgno = 1; pgno <= 3; pgno++)
		info.db_checksum ^= checksum_page(pgno, pages + (size_t)(pgno - 1) * WAL_PAGE_SIZE);
	return info;
}

/* The pages in pieces of any length. */
static void put_all(struct backup_writer *w)
{
	struct errmsg em = {0};
	size_t at, n;

	for (at = 0; at < sizeof(pages); at += n) {
		n = sizeof(pages) - at < 1000 ? sizeof(pages) - at : 1000;
		UNIT_OK(backup_writer_put(w, pages + at, n, &em), &em);
	}
}

static void test_what_was_written_is_described(void)
{
	const struct backup_info info = info_of_pages();
	struct backup_writer *w = NULL, *second = NULL;
	struct backup_info back;
	struct errmsg em = {0};
	struct place p;

	place_make(&p);
	UNIT_OK(backup_writer_create(&w, p.path, false, &em), &em);
	CU_ASSERT_EQUAL(backup_writer_create(&second, p.path, false, &em), DB_BUSY);
	put_all(w);
	UNIT_OK(backup_writer_restart(w, &em), &em);
	put_all(w);
	CU_ASSERT_EQUAL(backup_writer_size(w), sizeof(pages));
	CU_ASSERT_EQUAL(access(p.path, F_OK), -1);
	UNIT_OK(backup_writer_finish(w, &info, &em), &em);
	backup_writer_free(w);
	CU_ASSERT_EQUAL(access(p.path, F_OK), 0);
	UNIT_OK(backup_info_load(&back, p.path, &em), &em);
	CU_ASSERT_EQUAL(memcmp(back.cluster_id, info.cluster_id, 16), 0);
	CU_ASSERT(back.pos.lsn == 12 && back.pos.term == 3 && back.time_us == info.time_us &&
		  back.record_checksum == info.record_checksum && back.db_checksum == info.db_checksum &&
		  back.size_bytes == info.size_bytes && strcmp(back.node, "node2") == 0);
	CU_ASSERT_EQUAL(backup_writer_create(&w, p.path, false, &em), DB_EXISTS);
	CU_ASSERT_EQUAL(count_files(p.dir, "partial"), 0);
}

static void test_what_is_not_as_announced_never_gets_its_name(void)
{
	struct backup_info info = info_of_pages();
	struct backup_writer *w = NULL;
	struct errmsg em = {0};
	struct place p;

	place_make(&p);
	UNIT_OK(backup_writer_create(&w, p.path, true, &em), &em);
	put_all(w);
	info.db_checksum ^= 1;
	CU_ASSERT_EQUAL(backup_writer_finish(w, &info, &em), DB_CORRUPT);
	info.db_checksum ^= 1;
	info.size_bytes += WAL_PAGE_SIZE;
	CU_ASSERT_EQUAL(backup_writer_finish(w, &info, &em), DB_CORRUPT);
	backup_writer_free(w);
	CU_ASSERT_EQUAL(count_files(p.dir, ""), 2); /* . and .. */
}

static void test_descriptions_that_make_no_sense_are_refused(void)
{
	static const char *const texts[] = {
	    "",
	    "[]",
	    "{}",
	    "{\"format\": 2}",
	    "{\"format\": 1}",
	    "{\"format\":1,\"cluster\":\"00\",\"node\":\"node1\",\"lsn\":1,\"term\":1,\"time_us\":1,"
	    "\"record_checksum\":\"0000000000000000\",\"db_checksum\":\"0000000000000000\",\"size_bytes\":1}",
	    "{\"format\":1,\"cluster\":\"00000000000000000000000000000000\",\"node\":\"node1\",\"lsn\":-1,\"term\":1,"
	    "\"time_us\":1,\"record_checksum\":\"0000000000000000\",\"db_checksum\":\"0000000000000000\","
	    "\"size_bytes\":1}",
	};
	struct backup_info info;
	struct errmsg em = {0};
	struct place p;
	char path[UNIT_PATH_MAX + 32];
	FILE *f;
	size_t i;

	place_make(&p);
	CU_ASSERT_EQUAL(backup_info_load(&info, p.path, &em), DB_NOTFOUND);
	snprintf(path, sizeof(path), "%s.json", p.path);
	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		enum db_err err;

		f = fopen(path, "w");
		CU_ASSERT_PTR_NOT_NULL_FATAL(f);
		fputs(texts[i], f);
		fclose(f);
		err = backup_info_load(&info, p.path, &em);
		CU_ASSERT(err == DB_CORRUPT || err == DB_INVALID);
	}
}

/* ---- retention */

#define MIB ((uint64_t)1 << 20)

static void test_log_is_kept_for_who_needs_it_up_to_the_cap(void)
{
	const struct retention_policy p = {.keep_bytes = 8 * MIB, .max_bytes = 64 * MIB, .segment_size_bytes = MIB};
	struct retention_facts f = {.log_bytes = 20 * MIB, .keep_lsn = 500, .cut_lsn = 400};
	struct retention_plan plan;

	retention_decide(&p, &f, &plan);
	CU_ASSERT(!plan.over && plan.keep_lsn == 500);
	f.archiving = true;
	f.archived_lsn = 300;
	retention_decide(&p, &f, &plan);
	CU_ASSERT(!plan.over && plan.keep_lsn == 301);
	f.archived_lsn = 700;
	retention_decide(&p, &f, &plan);
	CU_ASSERT(!plan.over && plan.keep_lsn == 500);
	f.archived_lsn = 300;
	f.log_bytes = retention_limit(&p);
	retention_decide(&p, &f, &plan);
	CU_ASSERT(!plan.over);
	f.log_bytes++;
	retention_decide(&p, &f, &plan);
	CU_ASSERT(plan.over && plan.keep_lsn == 400); /* the archive is not waited for any more */
}

static void test_limits_leave_room_to_work(void)
{
	struct retention_policy p = {.keep_bytes = 64 * MIB, .max_bytes = 64 * MIB, .segment_size_bytes = 16 * MIB};

	CU_ASSERT(retention_limit(&p) > p.segment_size_bytes &&
		  retention_limit(&p) + 2 * p.segment_size_bytes < p.max_bytes);
	CU_ASSERT(retention_after_cut(&p) < retention_limit(&p));
	p.keep_bytes = MIB;
	CU_ASSERT_EQUAL(retention_after_cut(&p), MIB);
}

static void test_bytes_are_turned_into_whole_segments(void)
{
	char dir[UNIT_PATH_MAX];
	struct wal_record r;
	struct wal_cursor *c = NULL;
	struct errmsg em = {0};
	struct wal *w;
	uint64_t one, two, first;

	unit_tmpdir(dir);
	w = must_open(dir);
	CU_ASSERT_EQUAL(wal_lsn_within(w, 0), 1);
	while (count_files(dir, ".wal") < 5)
		append(w, 1, 3);
	sync_log(w);
	one = wal_lsn_within(w, 0);
	two = wal_lsn_within(w, 2 * WAL_SEGMENT_SIZE_MIN);
	CU_ASSERT(one <= wal_last(w).lsn && one > two && two > 1);
	CU_ASSERT_EQUAL(wal_lsn_within(w, WAL_SEGMENT_SIZE_MIN), one);
	CU_ASSERT_EQUAL(wal_lsn_within(w, 3 * WAL_SEGMENT_SIZE_MIN - 1), two);
	CU_ASSERT_EQUAL(wal_lsn_within(w, UINT64_MAX), 1);
	UNIT_OK(wal_cursor_create(&c, w, 1, &em), &em);
	UNIT_OK(wal_cursor_next(c, &r, &em), &em);
	CU_ASSERT_EQUAL(wal_cursor_held_lsn(c), 1);
	wal_trim(w, two);
	CU_ASSERT_EQUAL(wal_first_lsn(w), 1);
	wal_cursor_free(c);
	wal_trim(w, two);
	first = wal_first_lsn(w);
	CU_ASSERT_EQUAL(first, two);
	wal_close(w);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"times are read as they are meant", test_times_are_read_as_they_are_meant},
	    {"what was written is described", test_what_was_written_is_described},
	    {"what is not as announced never gets its name", test_what_is_not_as_announced_never_gets_its_name},
	    {"descriptions that make no sense are refused", test_descriptions_that_make_no_sense_are_refused},
	    {"log is kept for who needs it, up to the cap", test_log_is_kept_for_who_needs_it_up_to_the_cap},
	    {"limits leave room to work", test_limits_leave_room_to_work},
	    {"bytes are turned into whole segments", test_bytes_are_turned_into_whole_segments},
	    {NULL, NULL},
	};

	return unit_run("backup_file", tests);
}

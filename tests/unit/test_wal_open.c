/*
 * test_wal_open.c - opening a log most of which lies below the base: old segments are looked at when somebody reads them.
 *
 * The measure is nearly always the same log opened with no base, when all of it is verified.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/wal/segment.h"
#include "common/wal/wal.h"
#include "tests/unit/unit.h"
#include "tests/unit/wal_fixture.h"

#define PER_SEGMENT 15u /* records of one page in the smallest segment */
#define RECORDS     100u
#define BASE        80u /* in the segment of 76 to 90 */
#define OLD_COUNT   5u  /* segments before that one */

/* A log of one-page records, all synced, one term in every term_length records (0: one term). */
static void make_log(char dir[UNIT_PATH_MAX], uint64_t count, uint64_t term_length)
{
	struct wal *w;
	uint64_t i;

	unit_tmpdir(dir);
	w = must_open(dir);
	for (i = 0; i < count; i++) {
		append(w, term_length == 0 ? 1 : 1 + i / term_length, 1);
		sync_log(w);
	}
	wal_close(w);
}

static void checksums_of(const char *dir, uint64_t *checksums, struct wal_pos *positions)
{
	struct wal *w = must_open(dir);
	uint64_t lsn, last = wal_last(w).lsn;
	struct wal_record r;

	checksums[0] = 0;
	positions[0] = (struct wal_pos){0, 0};
	for (lsn = 1; lsn <= last; lsn++) {
		CU_ASSERT_EQUAL_FATAL(wal_read(w, lsn, &r, NULL), DB_OK);
		checksums[lsn] = r.checksum;
		positions[lsn] = (struct wal_pos){.term = r.term, .lsn = lsn};
	}
	wal_close(w);
}

/* Opens the log with the record at lsn as its base, which it takes from the log itself. */
static struct wal *open_with_base(const char *dir, uint64_t lsn, const struct wal_faults *faults)
{
	struct wal_record r;
	struct wal *w = must_open(dir);

	CU_ASSERT_EQUAL_FATAL(wal_read(w, lsn, &r, NULL), DB_OK);
	wal_close(w);
	CU_ASSERT_EQUAL_FATAL(open_log_at(&w, dir, (struct wal_pos){r.term, r.lsn}, r.checksum, faults), DB_OK);
	return w;
}

/* A log with damage in an old segment cannot be asked: its base is that of the whole log. */
struct based_log {
	char dir[UNIT_PATH_MAX];
	struct wal_pos base;
	uint64_t base_checksum;
};

static void make_based_log(struct based_log *b, uint64_t term_length)
{
	uint64_t checksums[RECORDS + 1];
	struct wal_pos positions[RECORDS + 1];

	make_log(b->dir, RECORDS, term_length);
	checksums_of(b->dir, checksums, positions);
	b->base = positions[BASE];
	b->base_checksum = checksums[BASE];
}

static struct wal *open_based(const struct based_log *b)
{
	struct wal *w = NULL;

	CU_ASSERT_EQUAL_FATAL(open_log_at(&w, b->dir, b->base, b->base_checksum, NULL), DB_OK);
	return w;
}

static void test_old_records_are_read_like_others(void)
{
	struct wal_record r, again;
	char dir[UNIT_PATH_MAX];
	struct wal *whole, *w;
	const uint8_t *bytes, *bytes_again;
	uint64_t lsn, i;
	size_t len, len_again;

	unit_tmpdir(dir);
	whole = must_open(dir);
	for (i = 0; i < 120; i++)
		append(whole, 1 + i / 50, (uint32_t)(i * 7 % 11));
	sync_log(whole);
	w = open_with_base(dir, 110, NULL);
	CU_ASSERT_EQUAL(wal_first_lsn(w), 1);
	for (i = 0; i < 120; i++) { /* here and there, so that segments are first read in the middle */
		lsn = i * 37 % 120 + 1;
		CU_ASSERT_EQUAL_FATAL(wal_read(w, lsn, &r, NULL), DB_OK);
		CU_ASSERT_EQUAL_FATAL(wal_read(whole, lsn, &again, NULL), DB_OK);
		bytes = wal_record_bytes(&r, &len);
		bytes_again = wal_record_bytes(&again, &len_again);
		CU_ASSERT_FATAL(len == len_again);
		CU_ASSERT(memcmp(bytes, bytes_again, len) == 0);
		CU_ASSERT_EQUAL(r.term, again.term);
	}
	check_log(w, 120);
	append(w, 3, 1);
	check_log(w, 121);
	wal_close(w);
	wal_close(whole);
}

static void test_any_record_may_be_the_base(void)
{
	uint64_t checksums[RECORDS + 1], lsn;
	struct wal_pos positions[RECORDS + 1];
	char dir[UNIT_PATH_MAX];
	struct wal *w;

	make_log(dir, RECORDS, 30);
	checksums_of(dir, checksums, positions);
	for (lsn = 0; lsn <= RECORDS; lsn++) {
		CU_ASSERT_EQUAL_FATAL(open_log_at(&w, dir, positions[lsn], checksums[lsn], NULL), DB_OK);
		check_log(w, RECORDS);
		CU_ASSERT_EQUAL(wal_durable_lsn(w), RECORDS);
		CU_ASSERT_EQUAL(wal_last(w).term, 4);
		CU_ASSERT_EQUAL(wal_last_checksum(w), checksums[RECORDS]);
		wal_close(w);
		if (lsn > 0 && lsn < RECORDS) /* at the end it would begin anew */
			CU_ASSERT_EQUAL(open_log_at(&w, dir, positions[lsn], checksums[lsn] + 1, NULL), DB_CORRUPT);
	}
}

/* Opens the log and reads all of it twice, its log lines going to a file; how many of those say text. */
static size_t lines_saying(const struct based_log *b, const char *text)
{
	char path[UNIT_PATH_MAX + 16], line[1024];
	int saved = dup(STDERR_FILENO), fd;
	struct wal_record r;
	size_t count = 0;
	struct wal *w;
	FILE *file;
	uint64_t i;

	snprintf(path, sizeof(path), "%s/stderr.txt", b->dir);
	fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
	dup2(fd, STDERR_FILENO);
	close(fd);
	w = open_based(b);
	for (i = 0; i < 2 * RECORDS; i++)
		CU_ASSERT(wal_read(w, i % RECORDS + 1, &r, NULL) != DB_OK || r.lsn == i % RECORDS + 1);
	wal_close(w);
	dup2(saved, STDERR_FILENO);
	close(saved);
	file = fopen(path, "r");
	while (fgets(line, sizeof(line), file) != NULL)
		if (strstr(line, text) != NULL)
			count++;
	fclose(file);
	unlink(path);
	return count;
}

/* Records from..to cannot be read, all others can. */
static void check_unreadable(struct wal *w, uint64_t from, uint64_t to)
{
	struct wal_record r;
	struct errmsg em;
	uint64_t lsn;
	enum db_err err;

	for (lsn = 1; lsn <= RECORDS; lsn++) {
		em = (struct errmsg){0};
		err = wal_read(w, lsn, &r, &em);
		CU_ASSERT_EQUAL(err, lsn >= from && lsn <= to ? DB_CORRUPT : DB_OK);
		CU_ASSERT_EQUAL(em.err, err);
		CU_ASSERT(err == DB_OK || strstr(em.text, ".wal") != NULL);
	}
	CU_ASSERT_EQUAL(wal_last(w).lsn, RECORDS);
}

static void test_damage_in_an_old_segment_concerns_its_readers_alone(void)
{
	static const off_t within[] = {0, 9, 16, 24, 33, 57, 73, 88, 96, 2000}; /* of a frame: everywhere in it */
	char line[128];
	struct based_log b;
	struct wal *w;
	uint64_t lsn, nth;
	size_t i;
	off_t at;

	make_based_log(&b, 0);
	for (nth = 0; nth < PER_SEGMENT; nth += 7) {
		for (i = 0; i < sizeof(within) / sizeof(within[0]); i++) {
			at = record_place(nth + 1, 1) + within[i];
			lsn = 2 * PER_SEGMENT + 1; /* the third segment */
			flip(b.dir, lsn, at, 0x10);
			snprintf(line, sizeof(line), "%020" PRIu64 ".wal\" is damaged at record %" PRIu64 " (byte ",
				 lsn, lsn + nth);
			CU_ASSERT_EQUAL(lines_saying(&b, line), 1);
			w = open_based(&b);
			check_unreadable(w, lsn + nth, 3 * PER_SEGMENT);
			append(w, 2, 1);
			CU_ASSERT_EQUAL(wal_cut(w, RECORDS, NULL), DB_OK);
			wal_close(w);
			flip(b.dir, lsn, at, 0x10);
		}
	}
	w = open_based(&b);
	check_log(w, RECORDS);
	wal_close(w);
}

static void test_old_segment_with_a_damaged_header_is_not_read(void)
{
	struct based_log b;
	struct wal *w;
	off_t at;

	make_based_log(&b, 0);
	for (at = 0; at < (off_t)SEGMENT_HEADER; at += 5) {
		flip(b.dir, 31, at, 0x04);
		w = open_based(&b);
		check_unreadable(w, 31, 45);
		wal_close(w);
		flip(b.dir, 31, at, 0x04);
		flip(b.dir, 76, at, 0x04); /* the base's own */
		CU_ASSERT_EQUAL(open_log_at(&w, b.dir, b.base, b.base_checksum, NULL), DB_CORRUPT);
		flip(b.dir, 76, at, 0x04);
	}
	w = open_based(&b);
	check_log(w, RECORDS);
	wal_close(w);
}

static void test_missing_short_or_foreign_old_segment_is_noticed(void)
{
	char path[UNIT_PATH_MAX + 64], other_path[UNIT_PATH_MAX + 64], command[3 * UNIT_PATH_MAX];
	struct based_log b, other;
	struct wal *w;

	make_based_log(&b, 0);
	snprintf(path, sizeof(path), "%s/%020d.wal", b.dir, 31);
	CU_ASSERT_EQUAL(truncate(path, 4096), 0);
	w = open_based(&b);
	check_unreadable(w, 31, 45);
	wal_close(w);
	make_based_log(&other, 20); /* other terms, so another history */
	snprintf(other_path, sizeof(other_path), "%s/%020d.wal", other.dir, 31);
	snprintf(command, sizeof(command), "cp %s %s", other_path, path);
	CU_ASSERT_EQUAL(system(command), 0);
	w = open_based(&b);
	check_unreadable(w, 16, 45); /* neither it nor the one before joins its neighbour */
	wal_close(w);
	CU_ASSERT_EQUAL(unlink(path), 0);
	w = open_based(&b);
	check_unreadable(w, 31, 45); /* whole as it is, the one before ends too early */
	wal_close(w);
}

/* Any damage from the base's segment on has the same outcome as in a log that is wholly verified. */
static void test_damage_after_the_base_is_judged_as_ever(void)
{
	char dir[UNIT_PATH_MAX], work[UNIT_PATH_MAX], full[UNIT_PATH_MAX];
	uint64_t checksums[91], first, last;
	struct wal_pos positions[91];
	struct wal *w;
	enum db_err err, err_full;
	unsigned refused = 0, cut = 0;
	off_t at;
	int i;

	unit_tmpdir(dir);
	w = must_open(dir);
	for (i = 1; i <= 90; i++) {
		append(w, 1 + (uint64_t)i / 40, 1);
		if (i == 65)
			sync_log(w); /* nothing after is known to be durable but what frames behind 70 say */
		if (i == 70)
			sync_log(w);
	}
	wal_close(w);
	checksums_of(dir, checksums, positions);
	unit_tmpdir(work);
	unit_tmpdir(full);
	unit_rmtree(work);
	unit_rmtree(full);
	for (first = 46; first <= 76; first += PER_SEGMENT) {
		for (at = 8; at < record_place(16, 1); at += 1499) {
			CU_ASSERT(mkdir(work, 0700) == 0 && mkdir(full, 0700) == 0);
			copy_dir(dir, work);
			copy_dir(dir, full);
			flip(work, first, at, 0x20);
			flip(full, first, at, 0x20);
			err = open_log_at(&w, work, positions[50], checksums[50], NULL);
			last = err == DB_OK ? wal_last(w).lsn : 0;
			wal_close(w);
			err_full = open_log_at(&w, full, (struct wal_pos){0, 0}, 0, NULL);
			CU_ASSERT_EQUAL(err, err_full);
			CU_ASSERT(err_full != DB_OK || last == wal_last(w).lsn);
			wal_close(w);
			refused += err == DB_CORRUPT;
			cut += err == DB_OK && last < 90;
			unit_rmtree(work);
			unit_rmtree(full);
		}
	}
	CU_ASSERT(refused > 20 && cut > 20);
}

static void test_log_below_its_base_begins_anew_whatever_it_holds(void)
{
	const struct wal_pos base = {.term = 7, .lsn = 500};
	struct based_log b;
	struct wal_pos terms[2];
	struct wal *w;

	make_based_log(&b, 10);
	flip(b.dir, 31, 1000, 1);
	CU_ASSERT_EQUAL_FATAL(open_log_at(&w, b.dir, base, 5, NULL), DB_OK);
	CU_ASSERT_EQUAL(wal_first_lsn(w), 501);
	CU_ASSERT_EQUAL(count_files(b.dir, ".wal"), 0);
	CU_ASSERT_EQUAL(wal_terms(w, terms, 2), 1);
	CU_ASSERT_EQUAL(wal_pos_cmp(terms[0], base), 0);
	append(w, 8, 1);
	wal_close(w);
}

static void test_terms_are_those_of_a_wholly_verified_log(void)
{
	uint64_t checksums[RECORDS + 1], length, lsn;
	struct wal_pos positions[RECORDS + 1], terms[RECORDS], expected[RECORDS];
	size_t count, expected_count, i;
	char dir[UNIT_PATH_MAX];
	struct wal *w;

	for (length = 1; length <= 121; length += length < 20 ? 3 : 15) { /* 15 is as long as a segment: 16 drifts */
		make_log(dir, RECORDS, length == 16 ? 15 : length);
		w = must_open(dir);
		expected_count = wal_terms(w, expected, RECORDS);
		wal_close(w);
		checksums_of(dir, checksums, positions);
		for (lsn = 1; lsn <= RECORDS; lsn += 9) {
			CU_ASSERT_EQUAL_FATAL(open_log_at(&w, dir, positions[lsn], checksums[lsn], NULL), DB_OK);
			count = wal_terms(w, terms, RECORDS);
			CU_ASSERT_EQUAL_FATAL(count, expected_count);
			for (i = 0; i < count; i++)
				CU_ASSERT_EQUAL(wal_pos_cmp(terms[i], expected[i]), 0);
			wal_close(w);
		}
		unit_rmtree(dir);
	}
}

/* Whatever one bit does to the first record of an old segment, no term is said to begin where it did not. */
static void test_damage_hides_terms_but_never_forges_them(void)
{
	struct wal_pos positions[RECORDS + 1], terms[RECORDS];
	uint64_t checksums[RECORDS + 1], first;
	struct based_log b;
	struct wal *w;
	size_t count, i;
	unsigned bit;
	off_t at;

	make_based_log(&b, 22);
	checksums_of(b.dir, checksums, positions);
	for (first = 1; first <= 61; first += PER_SEGMENT) {
		for (at = 8; at < 24; at++) { /* LSN and term of the first record */
			for (bit = 0; bit < 8; bit += at == 16 ? 1 : 5) {
				flip(b.dir, first, record_place(1, 1) + (off_t)FRAME_SIZE + at, (uint8_t)(1u << bit));
				w = open_based(&b);
				count = wal_terms(w, terms, RECORDS);
				CU_ASSERT_FATAL(count >= 1);
				for (i = 0; i < count; i++) /* the first one may be known from later on than it began */
					CU_ASSERT(terms[i].term == positions[terms[i].lsn].term &&
						  (i == 0 || terms[i].term == terms[i - 1].term + 1) &&
						  (i == 0 || positions[terms[i].lsn - 1].term < terms[i].term));
				CU_ASSERT_EQUAL(terms[count - 1].term, positions[RECORDS].term);
				check_unreadable(w, first, first + PER_SEGMENT - 1);
				wal_close(w);
				flip(b.dir, first, record_place(1, 1) + (off_t)FRAME_SIZE + at, (uint8_t)(1u << bit));
			}
		}
	}
}

static void test_trim_and_cut_with_old_segments_unread(void)
{
	struct based_log b;
	struct wal_record r;
	struct wal *w;
	uint64_t i;

	make_based_log(&b, 0);
	w = open_based(&b);
	wal_trim(w, 40); /* nobody looked at what goes */
	CU_ASSERT_EQUAL(wal_first_lsn(w), 31);
	CU_ASSERT_EQUAL(wal_cut(w, BASE - 1, NULL), DB_INVALID);
	CU_ASSERT_EQUAL(wal_cut(w, 35, NULL), DB_INVALID);
	CU_ASSERT_EQUAL(wal_cut(w, BASE + 2, NULL), DB_OK);
	CU_ASSERT_EQUAL(wal_read(w, 35, &r, NULL), DB_OK);
	wal_trim(w, 61);
	CU_ASSERT_EQUAL(wal_first_lsn(w), 61);
	for (i = 0; i < 60; i++) /* into the spares that they became */
		append(w, 2, 1);
	sync_log(w);
	check_log(w, BASE + 62);
	wal_close(w);
	w = open_based(&b);
	check_log(w, BASE + 62);
	CU_ASSERT_EQUAL(wal_cut(w, BASE, NULL), DB_OK);
	check_log(w, BASE);
	wal_close(w);
	w = open_based(&b);
	check_log(w, BASE);
	wal_close(w);
}

/* Fails everything from the nth operation on; counts the syncs. */
struct hook {
	int left;
	size_t syncs;
};

static int on_operation(void *ctx, enum wal_op op, const char *name, size_t *len)
{
	struct hook *h = (struct hook *)ctx;

	(void)name;
	(void)len;
	h->syncs += op == WAL_OP_SYNC;
	return h->left > 0 && --h->left == 0 ? (h->left = 1, EIO) : 0;
}

static void test_interrupted_cut_is_finished_beside_old_segments(void)
{
	struct hook h = {0};
	struct wal_faults faults = {.before = on_operation, .ctx = &h};
	struct based_log b;
	struct wal *w;
	unsigned finished = 0;
	int nth;
	enum db_err err = DB_IO;

	for (nth = 1; err != DB_OK && nth < 50; nth++) {
		make_based_log(&b, 10);
		h.left = 0;
		CU_ASSERT_EQUAL_FATAL(open_log_at(&w, b.dir, b.base, b.base_checksum, &faults), DB_OK);
		h.left = nth;
		err = wal_cut(w, BASE, NULL);
		h.left = 0;
		wal_close(w);
		finished += count_files(b.dir, "cut") > 0;
		w = open_based(&b);
		CU_ASSERT(wal_last(w).lsn == BASE || (err != DB_OK && wal_last(w).lsn == RECORDS));
		CU_ASSERT_EQUAL(count_files(b.dir, "cut"), 0);
		check_log(w, wal_last(w).lsn);
		wal_close(w);
		unit_rmtree(b.dir);
	}
	CU_ASSERT_EQUAL(err, DB_OK);
	CU_ASSERT(finished > 1);
}

static void test_opening_syncs_only_what_may_not_be_durable(void)
{
	struct hook h = {0};
	struct wal_faults faults = {.before = on_operation, .ctx = &h};
	struct based_log b;
	struct wal *w;

	make_based_log(&b, 0);
	CU_ASSERT_EQUAL_FATAL(open_log_at(&w, b.dir, b.base, b.base_checksum, &faults), DB_OK);
	CU_ASSERT_EQUAL(h.syncs, count_files(b.dir, ".wal") - OLD_COUNT);
	wal_close(w);
	h.syncs = 0;
	CU_ASSERT_EQUAL_FATAL(open_log(&w, b.dir, &faults), DB_OK);
	CU_ASSERT_EQUAL(h.syncs, count_files(b.dir, ".wal"));
	wal_close(w);
}

/* What the files are told while a log is opened: bytes written to them, and a sync that fails or not. */
struct watch {
	size_t written;
	bool sync_fails;
	bool synced_before_written; /* a sync came first: of pages that the kernel may have dropped */
	bool synced;
};

static int watch_operation(void *ctx, enum wal_op op, const char *name, size_t *len)
{
	struct watch *x = (struct watch *)ctx;

	(void)name;
	if (op == WAL_OP_WRITE) {
		x->written += *len;
		x->synced_before_written = x->synced_before_written || x->synced;
	}
	x->synced = x->synced || op == WAL_OP_SYNC;
	return op == WAL_OP_SYNC && x->sync_fails ? EIO : 0;
}

/* The kernel counts pages as written whose sync has failed, and a later sync of them succeeds without doing anything. */
static void test_what_no_sync_has_confirmed_is_written_again(void)
{
	const size_t one = (size_t)wal_record_size(1) + FRAME_SIZE;
	struct watch x = {0};
	struct wal_faults faults = {.before = watch_operation, .ctx = &x};
	char dir[UNIT_PATH_MAX];
	struct errmsg em = {0};
	struct wal *w;
	int i;

	unit_tmpdir(dir);
	CU_ASSERT_EQUAL_FATAL(open_log(&w, dir, &faults), DB_OK);
	for (i = 0; i < 4; i++)
		append(w, 1, 1);
	sync_log(w);
	append(w, 1, 1); /* its frame says that four are durable */
	append(w, 1, 1);
	x.sync_fails = true;
	CU_ASSERT_EQUAL(wal_sync(w, NULL, &em), DB_IO);
	CU_ASSERT_EQUAL(wal_durable_lsn(w), 4);
	x.sync_fails = false;
	CU_ASSERT_EQUAL(wal_sync(w, NULL, &em), DB_IO); /* final: the kernel would say yes now */
	CU_ASSERT_EQUAL(try_append(w, 1, 1), DB_IO);
	wal_close(w);
	x = (struct watch){.sync_fails = true};
	CU_ASSERT_NOT_EQUAL(open_log(&w, dir, &faults), DB_OK); /* nor is it opened while syncs fail */
	CU_ASSERT_PTR_NULL(w);
	x = (struct watch){0};
	CU_ASSERT_EQUAL_FATAL(open_log(&w, dir, &faults), DB_OK);
	CU_ASSERT_EQUAL(x.written, 2 * one);
	CU_ASSERT_FALSE(x.synced_before_written);
	CU_ASSERT_EQUAL(wal_durable_lsn(w), 6);
	check_log(w, 6);
	append(w, 1, 1);
	wal_close(w);
	x = (struct watch){0};
	CU_ASSERT_EQUAL_FATAL(open_log(&w, dir, &faults), DB_OK);
	CU_ASSERT_EQUAL(x.written, one); /* the last record alone, for its frame says that six are durable */
	check_log(w, 7);
	wal_close(w);
}

static void test_what_lies_in_several_segments_is_written_again(void)
{
	struct watch x = {0};
	struct wal_faults faults = {.before = watch_operation, .ctx = &x};
	char dir[UNIT_PATH_MAX];
	struct wal *w;
	int i;

	unit_tmpdir(dir);
	w = must_open(dir);
	append(w, 1, 0);
	sync_log(w);
	for (i = 0; i < 40; i++) /* none of them synced, over several segments */
		append(w, 1, 2);
	wal_close(w);
	CU_ASSERT_EQUAL_FATAL(open_log(&w, dir, &faults), DB_OK);
	CU_ASSERT(x.written >= 40 * ((size_t)wal_record_size(2) + FRAME_SIZE));
	CU_ASSERT_FALSE(x.synced_before_written);
	check_log(w, 41);
	wal_close(w);
}

static void test_cursor_passes_old_segments_and_stops_at_damage(void)
{
	struct based_log b;
	struct wal_cursor *c;
	struct wal_record r, decoded;
	struct errmsg em = {0};
	const uint8_t *bytes;
	struct wal *w;
	uint64_t lsn;
	size_t len;

	make_based_log(&b, 40);
	w = open_based(&b);
	UNIT_OK(wal_cursor_create(&c, w, 1, &em), &em);
	for (lsn = 1; lsn <= RECORDS; lsn++) {
		UNIT_OK(wal_cursor_next(c, &r, &em), &em);
		bytes = wal_record_bytes(&r, &len);
		UNIT_OK(wal_record_decode(&decoded, bytes, len, &em), &em);
		CU_ASSERT_EQUAL(decoded.lsn, lsn);
		wal_trim(w, BASE); /* at its heels */
		CU_ASSERT(wal_first_lsn(w) <= lsn);
	}
	CU_ASSERT_EQUAL(wal_cursor_next(c, &r, &em), DB_NOTFOUND);
	CU_ASSERT_EQUAL(wal_first_lsn(w), 76);
	wal_cursor_free(c);
	wal_close(w);

	make_based_log(&b, 0);
	flip(b.dir, 31, record_place(5, 1) + 500, 1);
	w = open_based(&b);
	UNIT_OK(wal_cursor_create(&c, w, 20, &em), &em);
	for (lsn = 20; lsn < 35; lsn++)
		UNIT_OK(wal_cursor_next(c, &r, &em), &em);
	CU_ASSERT_EQUAL(wal_cursor_next(c, &r, &em), DB_CORRUPT);
	CU_ASSERT_EQUAL(wal_cursor_next(c, &r, &em), DB_CORRUPT); /* it stays there */
	UNIT_OK(wal_cursor_seek(c, 46, &em), &em);
	for (lsn = 46; lsn <= RECORDS; lsn++)
		UNIT_OK(wal_cursor_next(c, &r, &em), &em);
	wal_cursor_free(c);
	wal_close(w);
}

struct crowd {
	struct wal *w;
	pthread_barrier_t start;
	atomic_uint failures;
};

static void *read_by_cursor(void *arg)
{
	struct crowd *crowd = (struct crowd *)arg;
	struct wal_record r, decoded;
	struct wal_cursor *c;
	const uint8_t *bytes;
	uint64_t lsn;
	size_t len;

	pthread_barrier_wait(&crowd->start);
	if (wal_cursor_create(&c, crowd->w, 16, NULL) != DB_OK)
		return NULL;
	for (lsn = 16; lsn <= RECORDS; lsn++) {
		if (wal_cursor_next(c, &r, NULL) != DB_OK || r.lsn != lsn) {
			atomic_fetch_add(&crowd->failures, 1);
			break;
		}
		bytes = wal_record_bytes(&r, &len);
		if (wal_record_decode(&decoded, bytes, len, NULL) != DB_OK)
			atomic_fetch_add(&crowd->failures, 1);
	}
	wal_cursor_free(c);
	return NULL;
}

static void *read_backwards(void *arg)
{
	struct crowd *crowd = (struct crowd *)arg;
	struct wal_record r;
	uint64_t lsn;

	pthread_barrier_wait(&crowd->start);
	for (lsn = RECORDS; lsn >= 16; lsn--)
		if (wal_read(crowd->w, lsn, &r, NULL) != DB_OK || r.lsn != lsn)
			atomic_fetch_add(&crowd->failures, 1);
	return NULL;
}

static void *trim_and_release(void *arg)
{
	struct crowd *crowd = (struct crowd *)arg;
	int i;

	pthread_barrier_wait(&crowd->start);
	for (i = 0; i < 20; i++) {
		wal_release(crowd->w, BASE);
		wal_trim(crowd->w, 16);
	}
	return NULL;
}

static void test_first_use_by_many_threads_at_once(void)
{
	void *(*const jobs[])(void *) = {read_by_cursor, read_by_cursor, read_backwards, trim_and_release};
	struct based_log b;
	struct crowd crowd = {0};
	pthread_t threads[4];
	uint64_t round, i;

	make_based_log(&b, 0);
	pthread_barrier_init(&crowd.start, NULL, 5);
	for (round = 0; round < 20; round++) {
		crowd.w = open_based(&b);
		for (i = 0; i < 4; i++)
			CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, jobs[i], &crowd), 0);
		pthread_barrier_wait(&crowd.start);
		for (i = 0; i < 5; i++) /* and the appender beside them */
			if (try_append(crowd.w, 2, 1) != DB_OK)
				atomic_fetch_add(&crowd.failures, 1);
		for (i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
		CU_ASSERT_EQUAL(wal_cut(crowd.w, RECORDS, NULL), DB_OK);
		check_log(crowd.w, RECORDS);
		wal_close(crowd.w);
	}
	CU_ASSERT_EQUAL(atomic_load(&crowd.failures), 0);
	pthread_barrier_destroy(&crowd.start);
}

/* KiB of the log's files that this process has in memory. */
static size_t resident_kib(const char *dir)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	char line[2048];
	size_t total = 0, kib;
	unsigned long from, to;
	bool ours = false;

	while (fgets(line, sizeof(line), file) != NULL) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			ours = strstr(line, dir) != NULL;
		else if (ours && sscanf(line, "Rss: %zu kB", &kib) == 1)
			total += kib;
	}
	fclose(file);
	return total;
}

static void test_opening_and_catching_up_leave_no_log_in_memory(void)
{
	struct based_log b;
	struct wal_cursor *c;
	struct wal_record r, decoded;
	const uint8_t *bytes;
	struct wal *w;
	size_t len;

	make_based_log(&b, 0);
	w = open_based(&b);
	CU_ASSERT_EQUAL(resident_kib(b.dir), 0);
	check_log(w, RECORDS);
	CU_ASSERT(resident_kib(b.dir) >= 64);
	CU_ASSERT_EQUAL(wal_read(w, 3, &r, NULL), DB_OK);
	bytes = wal_record_bytes(&r, &len);
	wal_release(w, UINT64_MAX);
	CU_ASSERT_EQUAL(resident_kib(b.dir), 0);
	CU_ASSERT_EQUAL(wal_record_decode(&decoded, bytes, len, NULL), DB_OK); /* still there */
	wal_release(w, UINT64_MAX);
	CU_ASSERT_EQUAL(wal_cursor_create(&c, w, 1, NULL), DB_OK);
	while (wal_cursor_next(c, &r, NULL) == DB_OK)
		CU_ASSERT(resident_kib(b.dir) <= 64);
	CU_ASSERT_EQUAL(r.lsn, RECORDS);
	wal_cursor_free(c);
	wal_close(w);
}

static void test_a_segment_of_record_0_is_refused(void)
{
	char dir[UNIT_PATH_MAX], from[UNIT_PATH_MAX + 64], to[UNIT_PATH_MAX + 64];
	struct wal *w;

	unit_tmpdir(dir);
	w = must_open(dir);
	append(w, 1, 0);
	sync_log(w);
	wal_close(w);
	snprintf(from, sizeof(from), "%s/%020d.wal", dir, 1);
	snprintf(to, sizeof(to), "%s/%020d.wal", dir, 0);
	CU_ASSERT_EQUAL(rename(from, to), 0);
	CU_ASSERT_EQUAL(open_log(&w, dir, NULL), DB_CORRUPT);
	CU_ASSERT_EQUAL(rename(to, from), 0);
	w = must_open(dir);
	check_log(w, 1);
	wal_close(w);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"old records are read like others", test_old_records_are_read_like_others},
	    {"any record may be the base", test_any_record_may_be_the_base},
	    {"damage in an old segment concerns its readers alone",
	     test_damage_in_an_old_segment_concerns_its_readers_alone},
	    {"old segment with a damaged header is not read", test_old_segment_with_a_damaged_header_is_not_read},
	    {"missing, short or foreign old segment is noticed", test_missing_short_or_foreign_old_segment_is_noticed},
	    {"damage after the base is judged as ever", test_damage_after_the_base_is_judged_as_ever},
	    {"log below its base begins anew, whatever it holds",
	     test_log_below_its_base_begins_anew_whatever_it_holds},
	    {"terms are those of a wholly verified log", test_terms_are_those_of_a_wholly_verified_log},
	    {"damage hides terms but never forges them", test_damage_hides_terms_but_never_forges_them},
	    {"trim and cut with old segments unread", test_trim_and_cut_with_old_segments_unread},
	    {"interrupted cut is finished beside old segments", test_interrupted_cut_is_finished_beside_old_segments},
	    {"opening syncs only what may not be durable", test_opening_syncs_only_what_may_not_be_durable},
	    {"what no sync has confirmed is written again", test_what_no_sync_has_confirmed_is_written_again},
	    {"what lies in several segments is written again", test_what_lies_in_several_segments_is_written_again},
	    {"cursor passes old segments and stops at damage", test_cursor_passes_old_segments_and_stops_at_damage},
	    {"first use by many threads at once", test_first_use_by_many_threads_at_once},
	    {"opening and catching up leave no log in memory", test_opening_and_catching_up_leave_no_log_in_memory},
	    {"a segment of record 0 is refused", test_a_segment_of_record_0_is_refused},
	    {NULL, NULL},
	};

	return unit_run("wal_open", tests);
}

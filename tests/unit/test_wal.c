/* test_wal.c - the log: appending, recovery from every kind of torn or damaged file, cuts, trims, failures, threads. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/log.h"
#include "common/wal/wal.h"
#include "tests/unit/unit.h"
#include "tests/unit/wal_fixture.h"

#define PAGES_MAX 64u

static void test_records_come_back_after_reopening(void)
{
	char dir[UNIT_PATH_MAX];
	struct wal_record r;
	struct wal *w;
	uint64_t i;

	unit_tmpdir(dir);
	w = must_open(dir);
	CU_ASSERT_EQUAL(wal_first_lsn(w), 1);
	CU_ASSERT_EQUAL(wal_read(w, 0, &r, NULL), DB_NOTFOUND);
	for (i = 0; i < 50; i++)
		append(w, 1, (uint32_t)(i % 4));
	CU_ASSERT_EQUAL(wal_durable_lsn(w), 0);
	sync_log(w);
	CU_ASSERT(count_files(dir, ".wal") > 3);
	check_log(w, 50);
	wal_close(w);
	w = must_open(dir);
	check_log(w, 50);
	CU_ASSERT_EQUAL(wal_durable_lsn(w), 50);
	CU_ASSERT_EQUAL(wal_size_bytes(w),
			(count_files(dir, ".wal") + count_files(dir, ".spare")) * WAL_SEGMENT_SIZE_MIN);
	append(w, 1, 1);
	wal_close(w);
	w = must_open(dir);
	check_log(w, 51);
	wal_close(w);
}

static void test_record_that_does_not_continue_is_refused(void)
{
	uint8_t bytes[WAL_RECORD_HEADER_SIZE + 8 + WAL_PAGE_SIZE];
	struct iovec piece = {.iov_base = bytes, .iov_len = sizeof(bytes)};
	char dir[UNIT_PATH_MAX];
	struct wal_record r;
	struct wal *w;

	unit_tmpdir(dir);
	w = must_open(dir);
	append(w, 3, 1);
	seal(w, 2, 1, bytes); /* the term goes back */
	CU_ASSERT_EQUAL(wal_append(w, &piece, 1, &r, NULL), DB_INVALID);
	seal(w, 3, 1, bytes);
	store_u64le(bytes + 8, 3); /* a hole */
	CU_ASSERT_EQUAL(wal_append(w, &piece, 1, &r, NULL), DB_INVALID);
	seal(w, 3, 1, bytes);
	bytes[56] ^= 1; /* another history */
	CU_ASSERT_EQUAL(wal_append(w, &piece, 1, &r, NULL), DB_INVALID);
	seal(w, 3, 1, bytes);
	piece.iov_len--; /* too short */
	CU_ASSERT_EQUAL(wal_append(w, &piece, 1, &r, NULL), DB_INVALID);
	piece.iov_len = 10;
	CU_ASSERT_EQUAL(wal_append(w, &piece, 1, &r, NULL), DB_INVALID);
	CU_ASSERT_EQUAL(wal_append(w, &piece, 0, &r, NULL), DB_INVALID);
	piece.iov_len = sizeof(bytes);
	CU_ASSERT_EQUAL(wal_append(w, &piece, 1, &r, NULL), DB_OK);
	check_log(w, 2);
	wal_close(w);
}

static void test_file_cut_at_any_byte_yields_the_whole_records(void)
{
	char dir[UNIT_PATH_MAX], broken[UNIT_PATH_MAX], path[UNIT_PATH_MAX + 64];
	off_t end, at;
	struct wal *w;
	uint64_t i, whole;

	unit_tmpdir(dir);
	unit_tmpdir(broken);
	w = must_open(dir);
	for (i = 0; i < 6; i++) {
		append(w, 1, 1);
		sync_log(w);
	}
	wal_close(w);
	end = record_place(7, 1);
	snprintf(path, sizeof(path), "%s/%020d.wal", broken, 1);
	copy_dir(dir, broken);
	for (at = end; at >= record_place(4, 1); at -= end - at < 200 || at % 4200 < 200 ? 1 : 37) {
		CU_ASSERT_EQUAL(truncate(path, at), 0);
		w = must_open(broken);
		for (whole = 6; record_place(whole + 1, 1) > at; whole--)
			;
		check_log(w, whole);
		append(w, 2, 1); /* and the log can be used */
		check_log(w, whole + 1);
		wal_close(w);
		unit_rmtree(broken);
		CU_ASSERT_EQUAL(mkdir(broken, 0700), 0);
		copy_dir(dir, broken);
	}
}

static void test_damage_to_a_durable_record_is_corruption(void)
{
	char dir[UNIT_PATH_MAX];
	off_t at;
	struct wal *w;
	int i;

	unit_tmpdir(dir);
	w = must_open(dir);
	for (i = 0; i < 5; i++) {
		append(w, 1, 1);
		sync_log(w);
	}
	wal_close(w);
	/* Records 1 to 4 are known to be durable by the frames behind them. */
	for (at = record_place(1, 1); at < record_place(5, 1); at += at % 4200 < 120 ? 1 : 211) {
		flip(dir, 1, at, (uint8_t)(1 << at % 8));
		CU_ASSERT_EQUAL(open_log(&w, dir, NULL), DB_CORRUPT);
		CU_ASSERT_PTR_NULL(w);
		flip(dir, 1, at, (uint8_t)(1 << at % 8));
	}
	for (at = 0; at < (off_t)SEGMENT_HEADER; at++) {
		flip(dir, 1, at, 0x10);
		CU_ASSERT_EQUAL(open_log(&w, dir, NULL), DB_CORRUPT);
		flip(dir, 1, at, 0x10);
	}
	w = must_open(dir); /* what refused it left it alone */
	check_log(w, 5);
	wal_close(w);
	flip(dir, 1, record_place(5, 1) + 1000, 1); /* the last one cannot be told from a torn tail */
	w = must_open(dir);
	check_log(w, 4);
	wal_close(w);
}

static void test_torn_record_before_intact_unsynced_ones_is_cut(void)
{
	char dir[UNIT_PATH_MAX];
	struct wal *w;
	int i, round;

	for (round = 0; round < 3; round++) {
		unit_tmpdir(dir);
		w = must_open(dir);
		append(w, 1, 1);
		append(w, 1, 1);
		sync_log(w);
		for (i = 0; i < 6 + round * 20; i++) /* with round, into further segments */
			append(w, 1, 1);
		wal_close(w);
		flip(dir, 1, record_place(4, 1) + (round == 1 ? 0 : 2000), 1);
		if (round == 0) {
			w = must_open(dir);
			check_log(w, 3);
			CU_ASSERT_EQUAL(wal_durable_lsn(w), 3);
			append(w, 1, 1); /* byte for byte the lost one: record 5 of before must not rise again */
			wal_close(w);
			w = must_open(dir);
			check_log(w, 4);
			wal_close(w);
			continue;
		}
		w = must_open(dir);
		check_log(w, 3);
		CU_ASSERT_EQUAL(count_files(dir, ".wal"), 1);
		wal_close(w);
	}
}

static void test_missing_segment_is_corruption(void)
{
	char dir[UNIT_PATH_MAX], path[UNIT_PATH_MAX + 64];
	uint64_t second = 0, lsn;
	struct wal *w;
	struct stat st;

	unit_tmpdir(dir);
	w = must_open(dir);
	for (lsn = 1; lsn <= 60; lsn++) {
		append(w, 1, 1);
		sync_log(w);
	}
	wal_close(w);
	for (lsn = 2; second == 0; lsn++) {
		snprintf(path, sizeof(path), "%s/%020" PRIu64 ".wal", dir, lsn);
		if (stat(path, &st) == 0)
			second = lsn;
	}
	CU_ASSERT_EQUAL(unlink(path), 0);
	CU_ASSERT_EQUAL(open_log(&w, dir, NULL), DB_CORRUPT); /* a hole */
	snprintf(path, sizeof(path), "%s/%020d.wal", dir, 1);
	CU_ASSERT_EQUAL(unlink(path), 0);
	CU_ASSERT_EQUAL(open_log(&w, dir, NULL), DB_CORRUPT); /* does not reach the base */
}

static void test_log_joins_its_base(void)
{
	char dir[UNIT_PATH_MAX];
	struct wal_pos base = {.term = 1, .lsn = 20}, beyond = {.term = 2, .lsn = 99}, terms[4];
	struct wal_record r;
	struct wal *w;
	uint64_t checksum;
	int i;

	unit_tmpdir(dir);
	w = must_open(dir);
	for (i = 0; i < 30; i++)
		append(w, 1, 1);
	CU_ASSERT_EQUAL(wal_read(w, 20, &r, NULL), DB_OK);
	checksum = r.checksum;
	sync_log(w);
	wal_close(w);
	CU_ASSERT_EQUAL(open_log_at(&w, dir, base, checksum + 1, NULL), DB_CORRUPT);
	base.term = 2;
	CU_ASSERT_EQUAL(open_log_at(&w, dir, base, checksum, NULL), DB_CORRUPT);
	base.term = 1;
	CU_ASSERT_EQUAL_FATAL(open_log_at(&w, dir, base, checksum, NULL), DB_OK);
	check_log(w, 30);
	CU_ASSERT_EQUAL(wal_cut(w, 19, NULL), DB_INVALID);
	CU_ASSERT_EQUAL(wal_cut(w, 20, NULL), DB_OK);
	CU_ASSERT_EQUAL(wal_last_checksum(w), checksum);
	wal_close(w);
	CU_ASSERT_EQUAL_FATAL(open_log_at(&w, dir, base, checksum, NULL), DB_OK);
	check_log(w, 20);
	wal_close(w);
	CU_ASSERT_EQUAL_FATAL(open_log_at(&w, dir, beyond, 77, NULL), DB_OK); /* wholly below: anew */
	CU_ASSERT_EQUAL(wal_first_lsn(w), 100);
	CU_ASSERT_EQUAL(wal_pos_cmp(wal_last(w), beyond), 0);
	CU_ASSERT_EQUAL(wal_last_checksum(w), 77);
	CU_ASSERT_EQUAL(count_files(dir, ".wal"), 0);
	append(w, 3, 1);
	CU_ASSERT_EQUAL(wal_terms(w, terms, 4), 2);
	CU_ASSERT_EQUAL(wal_pos_cmp(terms[0], beyond), 0);
	wal_close(w);
	CU_ASSERT_EQUAL(open_log_at(&w, dir, beyond, 78, NULL), DB_CORRUPT);
	CU_ASSERT_EQUAL(open_log_at(&w, dir, (struct wal_pos){2, 98}, 77, NULL), DB_CORRUPT);
	CU_ASSERT_EQUAL_FATAL(open_log_at(&w, dir, beyond, 77, NULL), DB_OK);
	check_log(w, 100);
	CU_ASSERT_EQUAL(wal_terms(w, terms, 4), 2);
	CU_ASSERT_EQUAL(wal_cut(w, 99, NULL), DB_OK);
	CU_ASSERT_EQUAL(wal_pos_cmp(wal_last(w), beyond), 0);
	wal_close(w);
}

static void test_large_record_gets_its_own_segment(void)
{
	char dir[UNIT_PATH_MAX];
	struct wal *w;

	unit_tmpdir(dir);
	w = must_open(dir);
	append(w, 1, PAGES_MAX); /* 256 KiB as the very first: nothing to replace yet */
	append(w, 1, 1);
	append(w, 1, PAGES_MAX);
	append(w, 1, PAGES_MAX);
	append(w, 1, 2);
	sync_log(w);
	check_log(w, 5);
	CU_ASSERT_EQUAL(wal_cut(w, 3, NULL), DB_OK);
	append(w, 2, 300); /* the last segment may be empty now: it is replaced under the same name */
	CU_ASSERT_EQUAL(wal_cut(w, 3, NULL), DB_OK);
	append(w, 2, 400);
	sync_log(w);
	wal_close(w);
	w = must_open(dir);
	check_log(w, 4);
	wal_trim(w, 4);
	CU_ASSERT_EQUAL(wal_first_lsn(w), 4);
	CU_ASSERT(count_files(dir, ".spare") <= 1); /* the odd sizes are not kept */
	wal_close(w);
}

static void test_cut_removes_for_good(void)
{
	char dir[UNIT_PATH_MAX];
	struct wal_pos terms[2];
	struct wal *w;
	uint8_t byte = 1;
	int i, fd;

	unit_tmpdir(dir);
	w = must_open(dir);
	for (i = 0; i < 60; i++) {
		append(w, i < 40 ? 1 : 2, 1);
		sync_log(w);
	}
	CU_ASSERT_EQUAL(wal_cut(w, 61, NULL), DB_INVALID);
	CU_ASSERT_EQUAL(wal_cut(w, 60, NULL), DB_OK);
	CU_ASSERT_EQUAL(wal_cut(w, 45, NULL), DB_OK);
	CU_ASSERT_EQUAL(wal_cut(w, 5, NULL), DB_OK);
	CU_ASSERT_EQUAL(wal_last(w).term, 1);
	CU_ASSERT_EQUAL(wal_durable_lsn(w), 5);
	CU_ASSERT_EQUAL(wal_terms(w, terms, 2), 1);
	CU_ASSERT_EQUAL(count_files(dir, ".wal"), 1);
	CU_ASSERT_EQUAL(count_files(dir, "cut"), 0);
	fd = open_file(dir, 1, O_RDONLY);
	CU_ASSERT_EQUAL(pread(fd, &byte, 1, record_place(7, 1) + 1000), 1);
	CU_ASSERT_EQUAL(byte, 0);
	close(fd);
	append(w, 3, 2);
	wal_close(w);
	w = must_open(dir);
	check_log(w, 6);
	CU_ASSERT_EQUAL(wal_cut(w, 0, NULL), DB_OK);
	CU_ASSERT_EQUAL(wal_first_lsn(w), 1);
	CU_ASSERT_EQUAL(wal_last_checksum(w), 0);
	wal_close(w);
	w = must_open(dir);
	check_log(w, 0);
	append(w, 1, 1);
	check_log(w, 1);
	wal_close(w);
}

/* Dies, or fails, at the nth operation of a kind (or of any). */
struct injector {
	atomic_int left; /* operations until it happens */
	int op;          /* -1: any */
	int error;       /* 0: the process ends there */
	size_t torn;     /* bytes of a write that still happen */
	bool forever;
};

static int inject(void *ctx, enum wal_op op, const char *name, size_t *len)
{
	struct injector *in = (struct injector *)ctx;
	int left;

	(void)name;
	if (in->op >= 0 && in->op != (int)op)
		return 0;
	left = atomic_fetch_sub(&in->left, 1);
	if (left > 1 || (left < 1 && !in->forever))
		return 0;
	if (in->error == 0)
		_exit(33);
	if (len != NULL && *len > in->torn)
		*len = in->torn;
	return in->error;
}

/* In a child: works on the log in dir until the nth operation ends the process. True when it came that far. */
static bool dies_at(const char *dir, int nth, void (*work)(struct wal *w))
{
	struct injector in = {.left = nth, .op = -1};
	struct wal_faults faults = {.before = inject, .ctx = &in};
	struct wal *w;
	int status = 0;
	pid_t pid = fork();

	CU_ASSERT_FATAL(pid >= 0);
	if (pid == 0) {
		if (open_log(&w, dir, &faults) != DB_OK)
			_exit(1);
		work(w);
		_exit(0);
	}
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT(WIFEXITED(status) && (WEXITSTATUS(status) == 33 || WEXITSTATUS(status) == 0));
	return WIFEXITED(status) && WEXITSTATUS(status) == 33;
}

static void cross_segments(struct wal *w)
{
	int i;

	for (i = 0; i < 40; i++) {
		if (try_append(w, 2, 1) != DB_OK)
			_exit(1);
		if (i % 3 == 0 && wal_sync(w, NULL, NULL) != DB_OK)
			_exit(1);
		if (i == 25)
			wal_trim(w, 20);
	}
}

static void test_crash_at_any_step_of_switching_segments(void)
{
	const struct wal_pos base = {.term = 2, .lsn = 20};
	char dir[UNIT_PATH_MAX];
	struct wal_record r;
	struct wal *w;
	uint64_t checksum;
	uint64_t last;
	int nth;
	bool died = true;

	unit_tmpdir(dir); /* the same records, to learn the checksum of number 20 */
	w = must_open(dir);
	append(w, 1, 1);
	for (nth = 0; nth < 40; nth++)
		append(w, 2, 1);
	CU_ASSERT_EQUAL_FATAL(wal_read(w, base.lsn, &r, NULL), DB_OK);
	checksum = r.checksum;
	wal_close(w);
	for (nth = 1; died && nth < 200; nth++) {
		unit_tmpdir(dir);
		w = must_open(dir);
		append(w, 1, 1);
		wal_close(w);
		died = dies_at(dir, nth, cross_segments);
		if (open_log(&w, dir, NULL) != DB_OK) /* it came to trim: the beginning is in the base */
			CU_ASSERT_EQUAL_FATAL(open_log_at(&w, dir, base, checksum, NULL), DB_OK);
		last = wal_last(w).lsn;
		CU_ASSERT(last >= 1 && last <= 41);
		CU_ASSERT(died || last == 41);
		check_log(w, last);
		CU_ASSERT_EQUAL(count_files(dir, ".tmp"), 0);
		append(w, 2, 1);
		check_log(w, last + 1);
		wal_close(w);
		unit_rmtree(dir);
	}
	CU_ASSERT_FALSE(died);
}

static void cut_to_seven(struct wal *w)
{
	if (wal_cut(w, 7, NULL) != DB_OK)
		_exit(1);
}

static void test_crash_at_any_step_of_a_cut(void)
{
	char dir[UNIT_PATH_MAX], work[UNIT_PATH_MAX];
	struct wal *w;
	uint64_t last, seen_cut = 0, seen_whole = 0;
	int nth, i;
	bool died = true;

	unit_tmpdir(dir);
	w = must_open(dir);
	for (i = 0; i < 50; i++) {
		append(w, 1, 1);
		sync_log(w);
	}
	wal_close(w);
	for (nth = 1; died && nth < 200; nth++) {
		unit_tmpdir(work);
		copy_dir(dir, work);
		died = dies_at(work, nth, cut_to_seven);
		w = must_open(work); /* never corrupt, never something between */
		last = wal_last(w).lsn;
		CU_ASSERT(last == 50 || last == 7);
		*(last == 7 ? &seen_cut : &seen_whole) += 1;
		check_log(w, last);
		CU_ASSERT_EQUAL(count_files(work, "cut"), 0);
		append(w, 1, 1);
		wal_close(w);
		w = must_open(work);
		check_log(w, last + 1);
		wal_close(w);
		unit_rmtree(work);
	}
	CU_ASSERT_FALSE(died);
	CU_ASSERT(seen_cut > 2 && seen_whole > 2);
}

static void test_failed_cut_changes_nothing_or_is_finished_later(void)
{
	struct injector in = {.op = -1, .error = EIO};
	struct wal_faults faults = {.before = inject, .ctx = &in};
	char dir[UNIT_PATH_MAX];
	struct wal *w;
	int nth, i;
	enum db_err err = DB_IO;

	for (nth = 1; err != DB_OK && nth < 100; nth++) {
		unit_tmpdir(dir);
		in.left = 0;
		CU_ASSERT_EQUAL_FATAL(open_log(&w, dir, &faults), DB_OK);
		for (i = 0; i < 20; i++)
			append(w, 1, 1);
		sync_log(w);
		in.left = nth;
		err = wal_cut(w, 7, NULL);
		in.left = 0;
		if (err != DB_OK && wal_last(w).lsn == 20) {
			if (try_append(w, 1, 1) == DB_OK)
				check_log(w, 21);
			wal_close(w);
			w = must_open(dir);
			CU_ASSERT(wal_last(w).lsn >= 20);
		} else if (err != DB_OK) {
			CU_ASSERT_EQUAL(try_append(w, 1, 1), DB_IO);
			CU_ASSERT_EQUAL(wal_sync(w, NULL, NULL), DB_IO);
			wal_close(w);
			w = must_open(dir);
			check_log(w, 7);
		}
		wal_close(w);
		unit_rmtree(dir);
	}
	CU_ASSERT_EQUAL(err, DB_OK);
}

static void test_full_disk_at_a_segment_switch_leaves_the_log_usable(void)
{
	struct injector in = {.op = WAL_OP_WRITE, .error = ENOSPC, .torn = 1000, .forever = true};
	struct wal_faults faults = {.before = inject, .ctx = &in};
	char dir[UNIT_PATH_MAX];
	struct wal *w;
	int i, nth, op;

	for (op = WAL_OP_CREATE; op <= WAL_OP_RENAME; op++) {
		for (nth = 1; nth <= 2; nth++) {
			unit_tmpdir(dir);
			in.op = op;
			in.error = op == WAL_OP_SYNC ? EIO : ENOSPC;
			in.left = 0;
			in.forever = false;
			CU_ASSERT_EQUAL_FATAL(open_log(&w, dir, &faults), DB_OK);
			for (i = 0; i < 15; i++) /* as many as fit one segment */
				append(w, 1, 1);
			in.forever = true;
			in.left = nth;
			if (op != WAL_OP_CREATE || nth == 1)
				CU_ASSERT_EQUAL(try_append(w, 1, 1), op == WAL_OP_SYNC ? DB_IO : DB_FULL);
			CU_ASSERT(op == WAL_OP_CREATE || wal_last(w).lsn == 15);
			in.forever = false;
			in.left = 0;
			CU_ASSERT_EQUAL(count_files(dir, ".tmp"), 0);
			while (wal_last(w).lsn < 20)
				append(w, 1, 1);
			sync_log(w);
			check_log(w, 20);
			wal_close(w);
			w = must_open(dir);
			check_log(w, 20);
			wal_close(w);
		}
	}
}

static void test_torn_write_that_failed_does_not_come_back(void)
{
	struct injector in = {.op = WAL_OP_WRITE, .error = EIO};
	struct wal_faults faults = {.before = inject, .ctx = &in};
	static const size_t torn[] = {0, 8, 16, 50, 96, 2000, 4199, 100000};
	char dir[UNIT_PATH_MAX];
	struct wal *w;
	size_t i;

	for (i = 0; i < sizeof(torn) / sizeof(torn[0]); i++) {
		unit_tmpdir(dir);
		in.left = 0;
		CU_ASSERT_EQUAL_FATAL(open_log(&w, dir, &faults), DB_OK);
		append(w, 1, 1);
		in.torn = torn[i];
		in.left = 1;
		CU_ASSERT_EQUAL(try_append(w, 1, 1), DB_IO);
		check_log(w, 1);
		wal_close(w); /* here the process could have died */
		w = must_open(dir);
		check_log(w, 1);
		append(w, 1, 1);
		check_log(w, 2);
		wal_close(w);
	}
}

static void test_failed_sync_is_final(void)
{
	struct injector in = {.op = WAL_OP_SYNC, .error = EIO};
	struct wal_faults faults = {.before = inject, .ctx = &in};
	char dir[UNIT_PATH_MAX];
	struct errmsg em = {0};
	struct wal *w;
	int kind;

	for (kind = 0; kind < 2; kind++) {
		unit_tmpdir(dir);
		in.op = kind == 0 ? WAL_OP_SYNC : WAL_OP_SYNC_DIR;
		in.left = 0;
		CU_ASSERT_EQUAL_FATAL(open_log(&w, dir, &faults), DB_OK);
		append(w, 1, 1);
		in.left = 1;
		CU_ASSERT_EQUAL(wal_sync(w, NULL, &em), DB_IO);
		CU_ASSERT_EQUAL(wal_sync(w, NULL, NULL), DB_IO); /* the kernel would say all is well now */
		CU_ASSERT_EQUAL(try_append(w, 1, 1), DB_IO);
		CU_ASSERT_EQUAL(wal_cut(w, 0, NULL), DB_IO);
		CU_ASSERT_EQUAL(wal_prepare(w, NULL), DB_IO);
		CU_ASSERT_EQUAL(wal_durable_lsn(w), 0);
		check_log(w, 1); /* what was appended can still be read */
		wal_close(w);
	}
}

static void test_recycled_segments_do_not_fool_recovery(void)
{
	char dir[UNIT_PATH_MAX];
	struct wal *w;
	int round, i;

	unit_tmpdir(dir);
	w = must_open(dir);
	for (round = 0; round < 4; round++) {
		for (i = 0; i < 17; i++) {
			append(w, 1, (uint32_t)(i % 3));
			sync_log(w);
		}
		wal_trim(w, wal_last(w).lsn - 3);
		CU_ASSERT(wal_first_lsn(w) <= wal_last(w).lsn - 3);
		CU_ASSERT(count_files(dir, ".spare") <= 3);
		CU_ASSERT_EQUAL(wal_prepare(w, NULL), DB_OK);
		CU_ASSERT(count_files(dir, ".spare") >= 1);
		check_log(w, (uint64_t)(round + 1) * 17);
	}
	wal_close(w);
	CU_ASSERT_EQUAL(open_log(&w, dir, NULL), DB_CORRUPT); /* trimmed: it no longer reaches a base of nothing */
}

static void test_recycled_segment_with_stale_bytes_recovers(void)
{
	char dir[UNIT_PATH_MAX];
	struct wal_record r;
	struct wal_pos base;
	struct wal *w;
	uint64_t checksum, last;
	int i;

	unit_tmpdir(dir);
	w = must_open(dir);
	for (i = 0; i < 200; i++) {
		append(w, 1, 1);
		if (i % 2 == 0)
			sync_log(w);
		if (i % 10 == 0)
			wal_trim(w, wal_last(w).lsn);
	}
	last = wal_first_lsn(w);
	CU_ASSERT(last > 150);
	CU_ASSERT_EQUAL_FATAL(wal_read(w, last, &r, NULL), DB_OK);
	base = (struct wal_pos){.term = 1, .lsn = last};
	checksum = r.checksum;
	for (i = 0; i < 16; i++) { /* ends at every place of a recycled segment */
		append(w, 1, 1);
		wal_close(w);
		CU_ASSERT_EQUAL_FATAL(open_log_at(&w, dir, base, checksum, NULL), DB_OK);
		check_log(w, 201 + (uint64_t)i);
	}
	wal_close(w);
}

static void test_moved_directory_keeps_its_log(void)
{
	char dir[UNIT_PATH_MAX], from[UNIT_PATH_MAX + 8], to[UNIT_PATH_MAX + 8];
	struct wal *w;
	int i;

	unit_tmpdir(dir);
	snprintf(from, sizeof(from), "%s/a", dir);
	snprintf(to, sizeof(to), "%s/b", dir);
	CU_ASSERT_EQUAL(mkdir(from, 0700), 0);
	w = must_open(from);
	append(w, 1, 1);
	CU_ASSERT_EQUAL(rename(from, to), 0);
	for (i = 0; i < 20; i++)
		append(w, 1, 1);
	sync_log(w);
	wal_close(w);
	w = must_open(to);
	check_log(w, 21);
	wal_close(w);
	CU_ASSERT_EQUAL(open_log(&w, from, NULL), DB_NOTFOUND);
}

static void test_cursor_holds_its_segment_against_trimming(void)
{
	char dir[UNIT_PATH_MAX];
	struct wal_cursor *c, *late;
	struct wal_record r, again;
	struct errmsg em = {0};
	struct wal *w;
	uint64_t lsn;

	unit_tmpdir(dir);
	w = must_open(dir);
	UNIT_OK(wal_cursor_create(&c, w, 1, &em), &em);
	CU_ASSERT_EQUAL(wal_cursor_next(c, &r, &em), DB_NOTFOUND);
	for (lsn = 1; lsn <= 60; lsn++)
		append(w, 1, 1);
	sync_log(w);
	for (lsn = 1; lsn <= 20; lsn++) {
		UNIT_OK(wal_cursor_next(c, &r, &em), &em);
		CU_ASSERT_EQUAL(r.lsn, lsn);
	}
	wal_trim(w, 60);
	CU_ASSERT_EQUAL(wal_first_lsn(w), 16);
	CU_ASSERT_EQUAL(wal_record_decode(&again, r.payload - WAL_RECORD_HEADER_SIZE, 1 << 14, NULL), DB_OK);
	UNIT_OK(wal_cursor_create(&late, w, 3, &em), &em);
	CU_ASSERT_EQUAL(wal_cursor_next(late, &r, &em), DB_GAP);
	UNIT_OK(wal_cursor_seek(late, 61, &em), &em);
	CU_ASSERT_EQUAL(wal_cursor_next(late, &r, &em), DB_NOTFOUND);
	for (lsn = 21; lsn <= 60; lsn++)
		UNIT_OK(wal_cursor_next(c, &r, &em), &em);
	wal_trim(w, 60);
	CU_ASSERT(wal_first_lsn(w) > 40);
	append(w, 1, 1);
	UNIT_OK(wal_cursor_next(late, &r, &em), &em);
	/* A cursor in a segment that is cut away lives on. */
	CU_ASSERT_EQUAL(wal_cut(w, wal_first_lsn(w) - 1, NULL), DB_OK);
	CU_ASSERT_EQUAL(wal_cursor_next(late, &r, &em), DB_NOTFOUND);
	wal_cursor_free(late);
	wal_cursor_free(c);
	wal_close(w);
}

static void test_history_of_terms(void)
{
	static const uint64_t written[] = {1, 1, 2, 2, 2, 5, 6, 6};
	char dir[UNIT_PATH_MAX];
	struct wal_pos terms[8];
	struct wal *w;
	size_t i;

	unit_tmpdir(dir);
	w = must_open(dir);
	CU_ASSERT_EQUAL(wal_terms(w, terms, 8), 0);
	for (i = 0; i < sizeof(written) / sizeof(written[0]); i++)
		append(w, written[i], 1);
	wal_close(w);
	w = must_open(dir);
	CU_ASSERT_EQUAL_FATAL(wal_terms(w, terms, 8), 4);
	CU_ASSERT(terms[0].term == 1 && terms[0].lsn == 1);
	CU_ASSERT(terms[2].term == 5 && terms[2].lsn == 6);
	CU_ASSERT(terms[3].term == 6 && terms[3].lsn == 7);
	CU_ASSERT_EQUAL(wal_terms(w, terms, 1), 1);
	CU_ASSERT(terms[0].term == 6 && terms[0].lsn == 7);
	CU_ASSERT_EQUAL(wal_cut(w, 5, NULL), DB_OK);
	CU_ASSERT_EQUAL(wal_last(w).term, 2);
	CU_ASSERT_EQUAL(wal_terms(w, terms, 8), 2);
	wal_close(w);
}

struct crowd {
	struct wal *w;
	uint64_t goal;
	atomic_bool failed;
	atomic_uint_fast64_t read_lsn;
};

static void *sync_thread(void *arg)
{
	struct crowd *crowd = (struct crowd *)arg;
	uint64_t lsn = 0;

	while (lsn < crowd->goal && !atomic_load(&crowd->failed))
		if (wal_sync(crowd->w, &lsn, NULL) != DB_OK || lsn > wal_last(crowd->w).lsn)
			atomic_store(&crowd->failed, true);
	return NULL;
}

static void *read_thread(void *arg)
{
	struct crowd *crowd = (struct crowd *)arg;
	struct wal_record r, decoded;
	struct wal_cursor *c;
	const uint8_t *bytes;
	uint64_t lsn = 1;
	size_t len;
	enum db_err err = wal_cursor_create(&c, crowd->w, 1, NULL);

	while (err == DB_OK && lsn <= crowd->goal && !atomic_load(&crowd->failed)) {
		err = wal_cursor_next(c, &r, NULL);
		if (err == DB_NOTFOUND) {
			err = DB_OK;
			sched_yield();
			continue;
		}
		if (err != DB_OK || r.lsn != lsn)
			break;
		bytes = wal_record_bytes(&r, &len);
		err = wal_record_decode(&decoded, bytes, len, NULL);
		atomic_store(&crowd->read_lsn, lsn++);
	}
	if (lsn <= crowd->goal)
		atomic_store(&crowd->failed, true);
	wal_cursor_free(c);
	return NULL;
}

static void *trim_thread(void *arg)
{
	struct crowd *crowd = (struct crowd *)arg;

	while (atomic_load(&crowd->read_lsn) < crowd->goal && !atomic_load(&crowd->failed)) {
		wal_trim(crowd->w, atomic_load(&crowd->read_lsn));
		if (wal_prepare(crowd->w, NULL) != DB_OK)
			atomic_store(&crowd->failed, true);
		sched_yield();
	}
	return NULL;
}

static void test_append_sync_read_and_trim_at_once(void)
{
	void *(*const jobs[])(void *) = {sync_thread, read_thread, trim_thread};
	struct crowd crowd = {.goal = 1500};
	char dir[UNIT_PATH_MAX];
	pthread_t threads[3];
	uint64_t i;

	unit_tmpdir(dir);
	crowd.w = must_open(dir);
	for (i = 0; i < 3; i++)
		CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, jobs[i], &crowd), 0);
	for (i = 0; i < crowd.goal && !atomic_load(&crowd.failed); i++)
		if (try_append(crowd.w, 1, (uint32_t)(i % 4)) != DB_OK)
			atomic_store(&crowd.failed, true);
	for (i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	CU_ASSERT_FALSE(atomic_load(&crowd.failed));
	CU_ASSERT_EQUAL(wal_durable_lsn(crowd.w), crowd.goal);
	check_log(crowd.w, crowd.goal);
	CU_ASSERT(wal_first_lsn(crowd.w) > 1);
	wal_close(crowd.w);
}

static void test_damaged_or_foreign_files_in_the_directory(void)
{
	char dir[UNIT_PATH_MAX], path[UNIT_PATH_MAX + 64];
	static const char *const names[] = {"7.tmp", "9.spare", "cut.tmp", "notes.txt"};
	struct wal *w;
	size_t i;
	int fd;

	unit_tmpdir(dir);
	w = must_open(dir);
	append(w, 1, 1);
	wal_close(w);
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		fd = open(path, O_CREAT | O_WRONLY, 0600);
		CU_ASSERT_EQUAL(write(fd, "rubbish", 7), 7);
		close(fd);
	}
	w = must_open(dir);
	check_log(w, 1);
	wal_close(w);
	CU_ASSERT_EQUAL(count_files(dir, ".tmp") + count_files(dir, ".spare"), 0);
	CU_ASSERT_EQUAL(count_files(dir, ".txt"), 1);
	snprintf(path, sizeof(path), "%s/cut", dir);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	CU_ASSERT_EQUAL(open_log(&w, dir, NULL), DB_CORRUPT);
	unlink(path);
	snprintf(path, sizeof(path), "%s/%020d.wal", dir, 2);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	CU_ASSERT_EQUAL(open_log(&w, dir, NULL), DB_CORRUPT);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"records come back after reopening", test_records_come_back_after_reopening},
	    {"record that does not continue is refused", test_record_that_does_not_continue_is_refused},
	    {"file cut at any byte yields the whole records", test_file_cut_at_any_byte_yields_the_whole_records},
	    {"damage to a durable record is corruption", test_damage_to_a_durable_record_is_corruption},
	    {"torn record before intact unsynced ones is cut", test_torn_record_before_intact_unsynced_ones_is_cut},
	    {"missing segment is corruption", test_missing_segment_is_corruption},
	    {"log joins its base", test_log_joins_its_base},
	    {"large record gets its own segment", test_large_record_gets_its_own_segment},
	    {"cut removes for good", test_cut_removes_for_good},
	    {"crash at any step of switching segments", test_crash_at_any_step_of_switching_segments},
	    {"crash at any step of a cut", test_crash_at_any_step_of_a_cut},
	    {"failed cut changes nothing or is finished later", test_failed_cut_changes_nothing_or_is_finished_later},
	    {"full disk at a segment switch leaves the log usable",
	     test_full_disk_at_a_segment_switch_leaves_the_log_usable},
	    {"torn write that failed does not come back", test_torn_write_that_failed_does_not_come_back},
	    {"failed sync is final", test_failed_sync_is_final},
	    {"recycled segments do not fool recovery", test_recycled_segments_do_not_fool_recovery},
	    {"recycled segment with stale bytes recovers", test_recycled_segment_with_stale_bytes_recovers},
	    {"moved directory keeps its log", test_moved_directory_keeps_its_log},
	    {"cursor holds its segment against trimming", test_cursor_holds_its_segment_against_trimming},
	    {"history of terms", test_history_of_terms},
	    {"append, sync, read and trim at once", test_append_sync_read_and_trim_at_once},
	    {"damaged or foreign files in the directory", test_damaged_or_foreign_files_in_the_directory},
	    {NULL, NULL},
	};

	return unit_run("wal", tests);
}

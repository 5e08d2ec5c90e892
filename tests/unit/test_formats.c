/*
 * test_formats.c - files of a newer version: each kind is refused in plain words, as DB_INVALID and never as damage (what is
 * damaged is made anew), and no byte of it is changed.
 */
#include <sys/stat.h>
#include <xxhash.h>

#include "common/archive/archive.h"
#include "common/base/slotfile.h"
#include "common/store/meta.h"
#include "node/lost_writes.h"
#include "supervisor/ledger.h"
#include "tests/unit/unit.h"
#include "tests/unit/wal_fixture.h"

#define FILE_MAX ((size_t)1 << 20)

static void file_in(char path[UNIT_PATH_MAX + 64], const char *dir, const char *name)
{
	snprintf(path, UNIT_PATH_MAX + 64, "%s/%s", dir, name);
}

/* The caller frees it. */
static uint8_t *read_whole(const char *path, size_t *len)
{
	uint8_t *bytes = malloc(FILE_MAX);
	FILE *f = fopen(path, "r");

	CU_ASSERT_FATAL(f != NULL && bytes != NULL);
	*len = fread(bytes, 1, FILE_MAX, f);
	fclose(f);
	return bytes;
}

static void write_whole(const char *path, const uint8_t *bytes, size_t len)
{
	FILE *f = fopen(path, "w");

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	CU_ASSERT_EQUAL(fwrite(bytes, 1, len, f), len);
	fclose(f);
}

static void expect_newer(enum db_err err, const struct errmsg *em, const char *path, const uint8_t *bytes, size_t len)
{
	uint8_t *now;
	size_t now_len;

	CU_ASSERT_EQUAL(err, DB_INVALID);
	if (strstr(em->text, "newer version") == NULL || strstr(em->text, "format 2, this program knows 1") == NULL)
		fprintf(stderr, "it says: %s\n", em->text);
	CU_ASSERT_PTR_NOT_NULL(strstr(em->text, "newer version"));
	CU_ASSERT_PTR_NOT_NULL(strstr(em->text, "format 2, this program knows 1"));
	if (path == NULL)
		return;
	now = read_whole(path, &now_len);
	CU_ASSERT_EQUAL(now_len, len);
	CU_ASSERT_EQUAL(memcmp(now, bytes, len), 0);
	free(now);
}

/* ---- the log */

static void make_log(char dir[UNIT_PATH_MAX], char segment[UNIT_PATH_MAX + 64])
{
	struct wal *w;
	int i;

	unit_tmpdir(dir);
	w = must_open(dir);
	for (i = 0; i < 4; i++)
		append(w, 1, 1);
	sync_log(w);
	wal_close(w);
	file_in(segment, dir, "00000000000000000001.wal");
}

static enum db_err try_log(const char *dir, struct errmsg *em)
{
	const struct wal_options options = {.dir = dir, .segment_size_bytes = WAL_SEGMENT_SIZE_MIN};
	struct wal *w = NULL;
	enum db_err err = wal_open(&w, &options, em);

	CU_ASSERT(err == DB_OK || w == NULL);
	wal_close(w);
	return err;
}

static void test_a_newer_segment_is_neither_read_nor_cut(void)
{
	char dir[UNIT_PATH_MAX], path[UNIT_PATH_MAX + 64];
	struct errmsg em = {0};
	uint8_t *bytes;
	size_t len;

	make_log(dir, path);
	bytes = read_whole(path, &len);
	store_u16le(bytes + 4, 2);
	write_whole(path, bytes, len);
	CU_ASSERT_EQUAL(try_log(dir, &em), DB_CORRUPT); /* a flipped bit is not a version */
	store_u64le(bytes + 56, XXH3_64bits(bytes, 56));
	write_whole(path, bytes, len);
	expect_newer(try_log(dir, &em), &em, path, bytes, len);
	free(bytes);
}

static void test_a_newer_intent_to_cut_is_not_obeyed(void)
{
	char dir[UNIT_PATH_MAX], segment[UNIT_PATH_MAX + 64], path[UNIT_PATH_MAX + 64];
	uint8_t bytes[32] = "GzC1";
	struct errmsg em = {0};

	make_log(dir, segment);
	file_in(path, dir, "cut");
	store_u32le(bytes + 4, 2);
	store_u64le(bytes + 8, 1);
	write_whole(path, bytes, sizeof(bytes));
	CU_ASSERT_EQUAL(try_log(dir, &em), DB_CORRUPT);
	store_u64le(bytes + 24, XXH3_64bits(bytes, 24));
	write_whole(path, bytes, sizeof(bytes));
	expect_newer(try_log(dir, &em), &em, path, bytes, sizeof(bytes));
}

/* ---- small files */

static void test_a_newer_slot_file_is_left_alone(void)
{
	char dir[UNIT_PATH_MAX], path[UNIT_PATH_MAX + 64];
	struct errmsg em = {0};
	struct slotfile f;
	uint8_t data[16];
	uint8_t *bytes, *at;
	size_t len, slot;

	for (slot = 0; slot < 2; slot++) {
		unit_tmpdir(dir);
		file_in(path, dir, "term");
		UNIT_OK(slotfile_open(&f, path, data, sizeof(data), &len, &em), &em);
		UNIT_OK(slotfile_write(&f, "one", 3, &em), &em);
		UNIT_OK(slotfile_write(&f, "two", 3, &em), &em);
		slotfile_close(&f);
		bytes = read_whole(path, &len);
		at = bytes + slot * SLOTFILE_SLOT_SIZE;
		at[3] = '2';
		store_u64le(at + 16, XXH3_64bits_withSeed(at + 24, 3, XXH3_64bits(at, 16)));
		write_whole(path, bytes, len);
		expect_newer(slotfile_open(&f, path, data, sizeof(data), &len, &em), &em, path, bytes,
			     2 * SLOTFILE_SLOT_SIZE);
		free(bytes);
	}
}

/* Writes a blob that begins with these bytes and the rest zero into a slot file. */
static void make_blob(const char *path, const uint8_t *begin, size_t begin_len, size_t len)
{
	uint8_t blob[512] = {0}, data[512];
	struct errmsg em = {0};
	struct slotfile f;
	size_t before;

	CU_ASSERT_FATAL(len <= sizeof(blob) && begin_len <= len);
	memcpy(blob, begin, begin_len);
	UNIT_OK(slotfile_open(&f, path, data, sizeof(data), &before, &em), &em);
	UNIT_OK(slotfile_write(&f, blob, len, &em), &em);
	slotfile_close(&f);
}

static void test_a_newer_meta_and_ledger_are_refused(void)
{
	static const uint8_t meta[] = {'G', 'z', 'M', '1', 2, 0, 0, 0}, ledger[] = {2, 0, 0, 0};
	char dir[UNIT_PATH_MAX], path[UNIT_PATH_MAX + 64];
	struct ledger_book book;
	struct errmsg em = {0};
	struct slotfile f;
	struct meta m;
	bool found;

	unit_tmpdir(dir);
	file_in(path, dir, "store.meta");
	make_blob(path, meta, sizeof(meta), 200);
	expect_newer(meta_open(&f, path, &m, &found, &em), &em, NULL, NULL, 0);
	CU_ASSERT_EQUAL_FATAL(chdir(dir), 0);
	make_blob(LEDGER_PATH, ledger, sizeof(ledger), 40);
	expect_newer(ledger_read(&book, &em), &em, NULL, NULL, 0);
}

static void test_a_newer_archive_file_is_refused(void)
{
	const struct archive_header h = {.first_lsn = 1, .last_lsn = 2};
	uint8_t bytes[ARCHIVE_HEADER_SIZE];
	struct archive_header read;
	struct errmsg em = {0};

	archive_header_encode(&h, bytes);
	UNIT_OK(archive_header_decode(&read, bytes, &em), &em);
	store_u16le(bytes + 4, 2);
	expect_newer(archive_header_decode(&read, bytes, &em), &em, NULL, NULL, 0);
}

static void test_a_newer_list_of_lost_writes_is_kept(void)
{
	char dir[UNIT_PATH_MAX], node[UNIT_PATH_MAX + 64], path[UNIT_PATH_MAX + 80];
	struct lost_writes *l = NULL;
	struct errmsg em = {0};
	uint8_t bytes[24] = "GZLOST02";

	unit_tmpdir(dir);
	file_in(node, dir, "node1");
	snprintf(path, sizeof(path), "%s.lost", node);
	store_u64le(bytes + 16, XXH3_64bits(bytes, 16));
	write_whole(path, bytes, sizeof(bytes));
	expect_newer(lost_writes_create(&l, node, &em), &em, path, bytes, sizeof(bytes));
	CU_ASSERT_PTR_NULL(l);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"a newer segment is neither read nor cut", test_a_newer_segment_is_neither_read_nor_cut},
	    {"a newer intent to cut is not obeyed", test_a_newer_intent_to_cut_is_not_obeyed},
	    {"a newer slot file is left alone", test_a_newer_slot_file_is_left_alone},
	    {"a newer meta and ledger are refused", test_a_newer_meta_and_ledger_are_refused},
	    {"a newer archive file is refused", test_a_newer_archive_file_is_refused},
	    {"a newer list of lost writes is kept", test_a_newer_list_of_lost_writes_is_kept},
	    {NULL, NULL},
	};

	return unit_run("formats", tests);
}

/*
 * wal_fixture.h - what the tests of the log share: opening one with the smallest segments, appending records whose content
 * follows from their number, checking what is read back, and damaging the files below.
 */
#ifndef GRIZZLY_TESTS_UNIT_WAL_FIXTURE_H
#define GRIZZLY_TESTS_UNIT_WAL_FIXTURE_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/wal/wal.h"
#include "tests/unit/unit.h"

#define FRAME_SIZE     16u
#define SEGMENT_HEADER 64u

static inline enum db_err open_log_at(struct wal **w, const char *dir, struct wal_pos base, uint64_t base_checksum,
				      const struct wal_faults *faults)
{
	struct wal_options options = {.dir = dir,
				      .segment_size_bytes = WAL_SEGMENT_SIZE_MIN,
				      .base = base,
				      .base_checksum = base_checksum,
				      .faults = faults};
	struct errmsg em = {0};
	enum db_err err = wal_open(w, &options, &em);

	CU_ASSERT(err == DB_OK || em.err == err);
	return err;
}

static inline enum db_err open_log(struct wal **w, const char *dir, const struct wal_faults *faults)
{
	return open_log_at(w, dir, (struct wal_pos){0, 0}, 0, faults);
}

static inline struct wal *must_open(const char *dir)
{
	struct wal *w = NULL;
	enum db_err err = open_log(&w, dir, NULL);

	CU_ASSERT_EQUAL_FATAL(err, DB_OK);
	return w;
}

/* Seals a record that continues w into out (of wal_record_size(pages) bytes); its content depends on lsn and term. */
static inline void seal(struct wal *w, uint64_t term, uint32_t pages, uint8_t *out)
{
	struct wal_record r = {.type = pages == 0 ? WAL_TERM_START : WAL_PAGES,
			       .lsn = wal_last(w).lsn + 1,
			       .term = term,
			       .time_us = 1000,
			       .db_size_pages = 1000,
			       .page_count = pages,
			       .payload_len = wal_payload_size(pages),
			       .prev_checksum = wal_last_checksum(w)};
	struct wal_hash *h = wal_hash_create();
	uint8_t *payload = out + WAL_RECORD_HEADER_SIZE;
	uint32_t i;

	memset(payload, (int)(r.lsn * 7 + term), (size_t)r.payload_len);
	memset(payload, 0, (size_t)(r.payload_len - (uint64_t)pages * WAL_PAGE_SIZE));
	for (i = 0; i < pages; i++)
		store_u32le(payload + (size_t)i * 4, i + 1);
	wal_hash_begin(h, &r);
	wal_hash_add(h, payload, (size_t)r.payload_len);
	r.checksum = wal_hash_end(h);
	wal_hash_free(h);
	wal_record_encode_header(&r, out);
}

static inline enum db_err try_append(struct wal *w, uint64_t term, uint32_t pages)
{
	uint8_t *bytes = (uint8_t *)malloc((size_t)wal_record_size(pages));
	struct iovec pieces[3];
	struct wal_record r;
	struct errmsg em = {0};
	size_t size = (size_t)wal_record_size(pages), len;
	enum db_err err;

	seal(w, term, pages, bytes);
	pieces[0] = (struct iovec){.iov_base = bytes, .iov_len = 33};
	pieces[1] = (struct iovec){.iov_base = bytes + 33, .iov_len = 0};
	pieces[2] = (struct iovec){.iov_base = bytes + 33, .iov_len = size - 33};
	err = wal_append(w, pieces, 3, &r, &em);
	if (err == DB_OK && (memcmp(wal_record_bytes(&r, &len), bytes, size) != 0 || len != size))
		CU_FAIL("the log does not hold what was appended");
	free(bytes);
	return err;
}

static inline void append(struct wal *w, uint64_t term, uint32_t pages)
{
	CU_ASSERT_EQUAL_FATAL(try_append(w, term, pages), DB_OK);
}

static inline void sync_log(struct wal *w)
{
	struct errmsg em = {0};
	uint64_t lsn;

	UNIT_OK(wal_sync(w, &lsn, &em), &em);
	CU_ASSERT_EQUAL(lsn, wal_last(w).lsn);
}

/* Every record can be read, is whole, and joins the one before. */
static inline void check_log(struct wal *w, uint64_t last_lsn)
{
	struct wal_record r, decoded;
	struct errmsg em = {0};
	const uint8_t *bytes;
	uint64_t lsn, checksum = 0;
	size_t len;

	CU_ASSERT_EQUAL(wal_last(w).lsn, last_lsn);
	for (lsn = wal_first_lsn(w); lsn <= last_lsn; lsn++) {
		UNIT_OK(wal_read(w, lsn, &r, &em), &em);
		bytes = wal_record_bytes(&r, &len);
		UNIT_OK(wal_record_decode(&decoded, bytes, len, &em), &em);
		CU_ASSERT_EQUAL(decoded.lsn, lsn);
		CU_ASSERT(lsn == wal_first_lsn(w) || decoded.prev_checksum == checksum);
		checksum = decoded.checksum;
	}
	CU_ASSERT_EQUAL(wal_read(w, last_lsn + 1, &r, NULL), DB_NOTFOUND);
}

static inline int open_file(const char *dir, uint64_t first_lsn, int flags)
{
	char path[UNIT_PATH_MAX + 64];
	int fd;

	snprintf(path, sizeof(path), "%s/%020" PRIu64 ".wal", dir, first_lsn);
	fd = open(path, flags);
	CU_ASSERT_FATAL(fd >= 0);
	return fd;
}

static inline void flip(const char *dir, uint64_t first_lsn, off_t at, uint8_t mask)
{
	int fd = open_file(dir, first_lsn, O_RDWR);
	uint8_t byte = 0;

	CU_ASSERT_EQUAL(pread(fd, &byte, 1, at), 1);
	byte ^= mask;
	CU_ASSERT_EQUAL(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

static inline size_t count_files(const char *dir, const char *suffix)
{
	DIR *d = opendir(dir);
	struct dirent *entry;
	size_t count = 0, len;

	while ((entry = readdir(d)) != NULL) {
		len = strlen(entry->d_name);
		if (len >= strlen(suffix) && strcmp(entry->d_name + len - strlen(suffix), suffix) == 0)
			count++;
	}
	closedir(d);
	return count;
}

static inline void copy_dir(const char *from, const char *to)
{
	char source[UNIT_PATH_MAX * 2], target[UNIT_PATH_MAX * 2];
	static uint8_t bytes[1 << 16];
	struct dirent *entry;
	DIR *d = opendir(from);
	ssize_t n;
	int in, out;

	while ((entry = readdir(d)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(source, sizeof(source), "%s/%s", from, entry->d_name);
		snprintf(target, sizeof(target), "%s/%s", to, entry->d_name);
		in = open(source, O_RDONLY);
		out = open(target, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		while ((n = read(in, bytes, sizeof(bytes))) > 0)
			CU_ASSERT_EQUAL(write(out, bytes, (size_t)n), n);
		close(in);
		close(out);
	}
	closedir(d);
}

static inline off_t record_place(uint64_t lsn, uint32_t pages)
{
	return (off_t)(SEGMENT_HEADER + (lsn - 1) * (FRAME_SIZE + wal_record_size(pages)));
}

#endif

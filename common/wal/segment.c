/* segment.c - see segment.h. */
#include "common/wal/segment.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/base/buf.h"
#include "common/base/log.h"

#define SEGMENT_MAGIC         0x31577a47u /* "GzW1" read little-endian */
#define HEADER_CHECKSUM_AT    56u
#define RECORD_CHECKSUM_AT    64u /* within a record */
#define MIN_FRAME_AND_HEADER  (FRAME_SIZE + WAL_RECORD_HEADER_SIZE)
#define FILE_SIZE_GRANULARITY 4096u

static uint64_t frame_guard(uint64_t salt, uint64_t synced_lsn, uint64_t record_checksum)
{
	uint8_t bytes[16];

	store_u64le(bytes, synced_lsn);
	store_u64le(bytes + 8, record_checksum);
	return XXH3_64bits_withSeed(bytes, sizeof(bytes), salt);
}

/* Never populated: what is mapped counts as this process's memory, and nearly all of a log is never looked at again. A
 * fault maps 16 pages at once; walking a whole log that way takes no longer. */
static enum db_err map_file(struct segment *s, struct errmsg *em)
{
	struct stat st;
	void *map;

	if (fstat(s->fd, &st) != 0)
		return errmsg_errno(em, errno, "cannot stat \"%s\"", s->name);
	if (st.st_size < (off_t)SEGMENT_HEADER_SIZE)
		return errmsg_set(em, DB_CORRUPT, "\"%s\": a file of %lld bytes is no log segment", s->name,
				  (long long)st.st_size);
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, s->fd, 0);
	if (map == MAP_FAILED)
		return errmsg_errno(em, errno, "cannot map \"%s\"", s->name);
	s->map = (const uint8_t *)map;
	s->size = (size_t)st.st_size;
	return DB_OK;
}

static struct segment *segment_alloc(const char *name)
{
	struct segment *s = (struct segment *)calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->fd = -1;
	s->used = SEGMENT_HEADER_SIZE;
	s->walked = true; /* it is empty so far */
	snprintf(s->name, sizeof(s->name), "%s", name);
	return s;
}

void segment_free(struct segment *s)
{
	if (s == NULL)
		return;
	if (s->map != NULL)
		munmap((void *)(uintptr_t)s->map, s->size);
	if (s->fd >= 0)
		close(s->fd);
	free(s->offsets);
	free(s);
}

enum db_err segment_create(struct segment **out, const struct wal_dir *d, uint64_t number, size_t size,
			   struct errmsg *em)
{
	char name[SEGMENT_NAME_MAX];
	struct segment *s;
	struct errmsg ignored = {0};
	enum db_err err;

	*out = NULL;
	snprintf(name, sizeof(name), "%" PRIu64 ".tmp", number);
	s = segment_alloc(name);
	if (s == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for a log segment");
	err = wal_file_create(d, name, &s->fd, em);
	if (err != DB_OK)
		goto free_segment;
	/* Written, not fallocated: fdatasync into blocks that were written once need not touch the file's metadata. */
	err = wal_file_zero(d, s->fd, name, 0, size, em);
	if (err == DB_OK)
		err = wal_file_sync(d, s->fd, name, em);
	if (err == DB_OK)
		err = map_file(s, em);
	if (err != DB_OK)
		goto remove_file;
	snprintf(s->name, sizeof(s->name), "%" PRIu64 ".spare", number);
	err = wal_file_rename(d, name, s->name, em);
	if (err != DB_OK)
		goto remove_file;
	*out = s;
	return DB_OK;

remove_file:
	if (wal_file_unlink(d, name, &ignored) != DB_OK)
		log_warn("log: a half-made segment stays until the next start: %s", ignored.text);
free_segment:
	segment_free(s);
	return err;
}

enum db_err segment_open(struct segment **out, const struct wal_dir *d, const char *name, struct errmsg *em)
{
	struct segment *s = segment_alloc(name);
	enum db_err err;

	*out = NULL;
	if (s == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for a log segment");
	s->fd = openat(d->fd, name, O_RDWR | O_CLOEXEC);
	if (s->fd < 0)
		err = errmsg_errno(em, errno, "cannot open \"%s\"", name);
	else
		err = map_file(s, em);
	if (err != DB_OK) {
		segment_free(s);
		return err;
	}
	/* Until segment_read_ahead(): who looks at a header must not make the disk read megabytes after it. */
	(void)madvise((void *)(uintptr_t)s->map, s->size, MADV_RANDOM);
	*out = s;
	return DB_OK;
}

/* Advice may be refused: then reading is merely slower. */
void segment_read_ahead(const struct segment *s)
{
	(void)madvise((void *)(uintptr_t)s->map, s->size, MADV_NORMAL);
	(void)madvise((void *)(uintptr_t)s->map, s->size, MADV_WILLNEED);
}

void segment_release(const struct segment *s)
{
	/* Cannot fail on a mapping of a file; if it did, the memory would merely stay. */
	(void)madvise((void *)(uintptr_t)s->map, s->size, MADV_DONTNEED);
}

enum db_err segment_read_header(struct segment *s, struct errmsg *em)
{
	static const uint8_t zeros[16];
	const uint8_t *h = s->map;
	char name[SEGMENT_NAME_MAX], what[SEGMENT_NAME_MAX + 16];

	if (load_u32le(h) != SEGMENT_MAGIC)
		return errmsg_set(em, DB_CORRUPT, "\"%s\" is not a log segment", s->name);
	if (load_u64le(h + HEADER_CHECKSUM_AT) != XXH3_64bits(h, HEADER_CHECKSUM_AT))
		return errmsg_set(em, DB_CORRUPT, "\"%s\": its header is damaged", s->name);
	if (load_u16le(h + 4) > SEGMENT_VERSION) {
		snprintf(what, sizeof(what), "log segment \"%s\"", s->name);
		return errmsg_newer(em, what, load_u16le(h + 4), SEGMENT_VERSION);
	}
	if (load_u16le(h + 4) < 1 || load_u16le(h + 6) != 0 || memcmp(h + 40, zeros, 16) != 0)
		return errmsg_set(em, DB_CORRUPT, "\"%s\": format version %u is not known", s->name, load_u16le(h + 4));
	s->first_lsn = load_u64le(h + 8);
	s->prev_checksum = load_u64le(h + 16);
	s->salt = load_u64le(h + 24);
	s->synced_lsn = load_u64le(h + 32);
	snprintf(name, sizeof(name), "%020" PRIu64 ".wal", s->first_lsn);
	if (strcmp(name, s->name) != 0)
		return errmsg_set(em, DB_CORRUPT, "\"%s\": its header says it begins with record %" PRIu64, s->name,
				  s->first_lsn);
	return DB_OK;
}

enum db_err segment_begin(struct segment *s, const struct wal_dir *d, uint64_t first_lsn, uint64_t prev_checksum,
			  uint64_t synced_lsn, struct errmsg *em)
{
	uint8_t h[SEGMENT_HEADER_SIZE] = {0};
	char name[SEGMENT_NAME_MAX];
	uint64_t salt;
	enum db_err err;

	if (getrandom(&salt, sizeof(salt), 0) != (ssize_t)sizeof(salt))
		return errmsg_errno(em, errno, "no random bytes for the salt of a log segment");
	store_u32le(h, SEGMENT_MAGIC);
	store_u16le(h + 4, SEGMENT_VERSION);
	store_u64le(h + 8, first_lsn);
	store_u64le(h + 16, prev_checksum);
	store_u64le(h + 24, salt);
	store_u64le(h + 32, synced_lsn);
	store_u64le(h + HEADER_CHECKSUM_AT, XXH3_64bits(h, HEADER_CHECKSUM_AT));
	err = wal_file_write(d, s->fd, s->name, 0, h, sizeof(h), em);
	if (err == DB_OK)
		err = wal_file_sync(d, s->fd, s->name, em);
	snprintf(name, sizeof(name), "%020" PRIu64 ".wal", first_lsn);
	if (err == DB_OK)
		err = wal_file_rename(d, s->name, name, em);
	if (err != DB_OK)
		return err;
	memcpy(s->name, name, sizeof(name));
	s->first_lsn = first_lsn;
	s->prev_checksum = prev_checksum;
	s->salt = salt;
	s->synced_lsn = synced_lsn;
	segment_reset(s);
	(void)madvise((void *)(uintptr_t)s->map, s->size, MADV_NORMAL); /* a spare was opened with other advice */
	return DB_OK;
}

void segment_reset(struct segment *s)
{
	s->count = 0;
	s->indexed = 0;
	s->walked = true;
	s->header_bad = false;
	s->used = SEGMENT_HEADER_SIZE;
}

size_t segment_count_max(size_t size)
{
	return (size - SEGMENT_HEADER_SIZE) / MIN_FRAME_AND_HEADER;
}

uint64_t segment_size_for(uint64_t record_size)
{
	uint64_t size = SEGMENT_HEADER_SIZE + FRAME_SIZE + record_size;

	return (size + FILE_SIZE_GRANULARITY - 1) / FILE_SIZE_GRANULARITY * FILE_SIZE_GRANULARITY;
}

bool segment_fits(const struct segment *s, uint64_t record_size)
{
	return s->size - s->used >= FRAME_SIZE && s->size - s->used - FRAME_SIZE >= record_size;
}

bool segment_reserve(struct segment *s)
{
	size_t cap = s->offsets_cap == 0 ? 256 : s->offsets_cap * 2;
	uint64_t *offsets;

	if (s->count < s->offsets_cap)
		return true;
	offsets = (uint64_t *)realloc(s->offsets, cap * sizeof(*offsets));
	if (offsets == NULL)
		return false;
	s->offsets = offsets;
	s->offsets_cap = cap;
	return true;
}

enum db_err segment_write(const struct segment *s, const struct wal_dir *d, uint64_t synced_lsn, uint64_t checksum,
			  const struct iovec *pieces, size_t piece_count, struct errmsg *em)
{
	struct iovec few[16];
	struct iovec *all = few;
	uint8_t frame[FRAME_SIZE];
	enum db_err err;

	if (piece_count + 1 > sizeof(few) / sizeof(few[0]))
		all = (struct iovec *)malloc((piece_count + 1) * sizeof(*all));
	if (all == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory to append a record of %zu pieces", piece_count);
	store_u64le(frame, synced_lsn);
	store_u64le(frame + 8, frame_guard(s->salt, synced_lsn, checksum));
	all[0] = (struct iovec){.iov_base = frame, .iov_len = sizeof(frame)};
	memcpy(all + 1, pieces, piece_count * sizeof(*pieces));
	err = wal_file_writev(d, s->fd, s->name, s->used, all, piece_count + 1, em);
	if (all != few)
		free(all);
	return err;
}

void segment_publish(struct segment *s, uint64_t record_size)
{
	assert(s->walked && s->indexed == s->count);
	assert(s->count < s->offsets_cap && segment_fits(s, record_size));
	s->offsets[s->count++] = s->used + FRAME_SIZE;
	s->indexed = s->count;
	s->used += FRAME_SIZE + record_size;
}

uint64_t segment_last_lsn(const struct segment *s)
{
	return s->first_lsn + s->count - 1;
}

enum db_err segment_locate(const struct segment *s, uint64_t lsn, uint64_t *offset, struct errmsg *em)
{
	assert(s->walked && lsn >= s->first_lsn && lsn - s->first_lsn < s->count);
	if (lsn - s->first_lsn >= s->indexed)
		return errmsg_set(em, DB_CORRUPT,
				  "record %" PRIu64 " cannot be read: \"%s\" is damaged from record %" PRIu64 " on",
				  lsn, s->name, s->first_lsn + s->indexed);
	*offset = s->offsets[lsn - s->first_lsn];
	return DB_OK;
}

enum db_err segment_peek_first(const struct segment *s, struct wal_record *out, struct errmsg *em)
{
	if (s->size < SEGMENT_HEADER_SIZE + MIN_FRAME_AND_HEADER)
		return errmsg_set(em, DB_CORRUPT, "\"%s\" is too short for a record", s->name);
	return segment_record(s, s->first_lsn, SEGMENT_HEADER_SIZE + FRAME_SIZE, out, em);
}

enum db_err segment_record(const struct segment *s, uint64_t lsn, uint64_t offset, struct wal_record *out,
			   struct errmsg *em)
{
	const uint8_t *bytes = s->map + offset;
	enum db_err err = wal_record_decode_header(out, bytes, em);

	if (err == DB_OK && out->lsn != lsn)
		err = errmsg_set(em, DB_CORRUPT, "record %" PRIu64 " stands in the place of %" PRIu64, out->lsn, lsn);
	if (err != DB_OK) {
		errmsg_context(em, "\"%s\" changed after it was written", s->name);
		return err;
	}
	out->payload = bytes + WAL_RECORD_HEADER_SIZE;
	return DB_OK;
}

enum db_err segment_check(const struct segment *s, size_t offset, struct wal_record *out, struct errmsg *em)
{
	const uint8_t *frame = s->map + offset;
	enum db_err err;

	if (offset > s->size || s->size - offset < MIN_FRAME_AND_HEADER)
		return errmsg_set(em, DB_GAP, "\"%s\" is full", s->name);
	err = wal_record_decode(out, frame + FRAME_SIZE, s->size - offset - FRAME_SIZE, em);
	if (err != DB_OK)
		return err;
	if (load_u64le(frame + 8) != frame_guard(s->salt, load_u64le(frame), out->checksum))
		return errmsg_set(em, DB_CORRUPT, "record %" PRIu64 ": its frame is damaged or of another time",
				  out->lsn);
	return DB_OK;
}

uint64_t segment_synced_lsn(const struct segment *s, uint64_t lsn)
{
	assert(lsn >= s->first_lsn && lsn - s->first_lsn < s->indexed);
	return load_u64le(s->map + s->offsets[lsn - s->first_lsn] - FRAME_SIZE);
}

uint64_t segment_end_of(const struct segment *s, uint64_t lsn)
{
	uint64_t next = lsn + 1 - s->first_lsn;

	assert(lsn >= s->first_lsn && next <= s->indexed);
	return next < s->indexed ? s->offsets[next] - FRAME_SIZE : s->used;
}

bool segment_has_frame(const struct segment *s, size_t offset)
{
	const uint8_t *frame = s->map + offset;

	if (offset > s->size || s->size - offset < MIN_FRAME_AND_HEADER)
		return false;
	if (load_u32le(frame + FRAME_SIZE) != WAL_RECORD_MAGIC)
		return false;
	return load_u64le(frame + 8) ==
	       frame_guard(s->salt, load_u64le(frame), load_u64le(frame + FRAME_SIZE + RECORD_CHECKSUM_AT));
}

bool segment_scan(const struct segment *s, size_t offset, uint64_t *synced_lsn)
{
	uint64_t synced;
	bool found = false;

	for (; offset < s->size; offset += 8) {
		if (!segment_has_frame(s, offset))
			continue;
		found = true;
		synced = load_u64le(s->map + offset);
		if (synced > *synced_lsn)
			*synced_lsn = synced;
	}
	return found;
}

/*
 * slotfile.c - see slotfile.h.
 *
 * Slot: magic u32, length u32, sequence u64, checksum u64 (XXH3 over the 16 bytes before it and the data), data.
 */
#include "common/base/slotfile.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/base/buf.h"

#define SLOT_MAGIC       0x31537a47u /* "GzS1"; another format has another digit, and the same header */
#define SLOT_VERSION     1u
#define SLOT_HEADER_SIZE 24u

static uint64_t slot_checksum(const uint8_t *slot, size_t len)
{
	return XXH3_64bits_withSeed(slot + SLOT_HEADER_SIZE, len, XXH3_64bits(slot, 16));
}

/* Slot 0 takes the odd sequence numbers. One that stands in the wrong slot, or that no other can follow, is not ours: the
 * next write would go over the newest blob, or be taken for an older one. */
static bool slot_is_intact(const uint8_t *slot, int index)
{
	uint32_t len = load_u32le(slot + 4);
	uint64_t sequence = load_u64le(slot + 8);

	return load_u32le(slot) == SLOT_MAGIC && sequence % 2 == (uint64_t)(1 - index) && sequence != UINT64_MAX &&
	       len <= SLOTFILE_DATA_MAX && load_u64le(slot + 16) == slot_checksum(slot, len);
}

/* 0: it is none, or damaged: the checksum covers the magic. */
static unsigned newer_version(const uint8_t *slot)
{
	uint32_t len = load_u32le(slot + 4);

	if (memcmp(slot, "GzS", 3) != 0 || slot[3] <= '0' + SLOT_VERSION || slot[3] > '9' || len > SLOTFILE_DATA_MAX ||
	    load_u64le(slot + 16) != slot_checksum(slot, len))
		return 0;
	return slot[3] - '0';
}

static bool slot_is_blank(const uint8_t *slot)
{
	size_t i;

	for (i = 0; i < SLOTFILE_SLOT_SIZE; i++)
		if (slot[i] != 0)
			return false;
	return true;
}

static enum db_err sync_directory_of(const char *path, struct errmsg *em)
{
	char copy[4096];
	enum db_err err = DB_OK;
	int fd;

	snprintf(copy, sizeof(copy), "%s", path);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errmsg_errno(em, errno, "cannot open the directory of \"%s\"", path);
	if (fsync(fd) != 0)
		err = errmsg_errno(em, errno, "cannot sync the directory of \"%s\"", path);
	close(fd);
	return err;
}

static enum db_err write_slot(const struct slotfile *f, const uint8_t *slot, off_t at, struct errmsg *em)
{
	ssize_t n = pwrite(f->fd, slot, SLOTFILE_SLOT_SIZE, at);

	if (n != (ssize_t)SLOTFILE_SLOT_SIZE)
		return errmsg_errno(em, n < 0 ? errno : ENOSPC, "cannot write \"%s\"", f->path);
	if (fdatasync(f->fd) != 0)
		return errmsg_errno(em, errno, "cannot sync \"%s\"", f->path);
	return DB_OK;
}

static enum db_err read_newest(struct slotfile *f, void *data, size_t size, size_t *len, struct errmsg *em)
{
	uint8_t slots[2][SLOTFILE_SLOT_SIZE];
	const uint8_t *best = NULL;
	ssize_t n;
	off_t at;
	int i;

	memset(slots, 0, sizeof(slots));
	n = pread(f->fd, slots, sizeof(slots), 0);
	if (n < 0)
		return errmsg_errno(em, errno, "cannot read \"%s\"", f->path);
	for (i = 0; i < 2; i++)
		if (newer_version(slots[i]) > 0)
			return errmsg_newer(em, f->path, newer_version(slots[i]), SLOT_VERSION);
	for (i = 0; i < 2; i++)
		if (slot_is_intact(slots[i], i) && (best == NULL || load_u64le(slots[i] + 8) > load_u64le(best + 8)))
			best = slots[i];
	*len = 0;
	if (best == NULL) {
		/* The very first write goes to slot 0 and may have been torn; later ones always leave an intact twin. */
		if (!slot_is_blank(slots[1]))
			return errmsg_set(em, DB_CORRUPT, "\"%s\": no intact slot", f->path);
		return DB_OK;
	}
	f->sequence = load_u64le(best + 8);
	*len = load_u32le(best + 4);
	if (*len > size)
		return errmsg_set(em, DB_CORRUPT,
				  "\"%s\": holds %zu bytes, at most %zu expected: is it of a newer version?", f->path,
				  *len, size);
	memcpy(data, best + SLOT_HEADER_SIZE, *len);
	/* What was read may stand in the page cache alone: the sync after it failed, and its writer has ended for it. The same
	 * bytes again, in their place: that needs no room, and a torn write of them changes nothing. */
	at = best == slots[0] ? 0 : (off_t)SLOTFILE_SLOT_SIZE;
	return write_slot(f, best, at, em);
}

/* Both slots get their place at once: on a disk that has filled up meanwhile a term must still be promised. On one that
 * is full already the slots that are there have to do. */
static enum db_err reserve_slots(struct slotfile *f, off_t size, struct errmsg *em)
{
	static const uint8_t zeros[2 * SLOTFILE_SLOT_SIZE];
	size_t missing = size < (off_t)sizeof(zeros) ? sizeof(zeros) - (size_t)size : 0;
	ssize_t n = missing == 0 ? 0 : pwrite(f->fd, zeros, missing, size);

	if (n < 0 && errno != ENOSPC && errno != EDQUOT)
		return errmsg_errno(em, errno, "cannot write \"%s\"", f->path);
	return DB_OK;
}

enum db_err slotfile_open(struct slotfile *f, const char *path, void *data, size_t size, size_t *len, struct errmsg *em)
{
	struct stat st;
	bool created;
	enum db_err err;

	memset(f, 0, sizeof(*f));
	snprintf(f->path, sizeof(f->path), "%s", path);
	created = stat(path, &st) != 0;
	f->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (f->fd < 0)
		return errmsg_errno(em, errno, "cannot open \"%s\"", path);
	err = created ? sync_directory_of(path, em) : DB_OK;
	if (err == DB_OK)
		err = reserve_slots(f, created ? 0 : st.st_size, em);
	if (err == DB_OK)
		err = read_newest(f, data, size, len, em);
	if (err != DB_OK)
		slotfile_close(f);
	return err;
}

enum db_err slotfile_write(struct slotfile *f, const void *data, size_t len, struct errmsg *em)
{
	uint8_t slot[SLOTFILE_SLOT_SIZE];
	uint64_t sequence = f->sequence + 1;
	off_t at = sequence % 2 == 1 ? 0 : (off_t)SLOTFILE_SLOT_SIZE;
	enum db_err err;

	if (len > SLOTFILE_DATA_MAX)
		return errmsg_set(em, DB_TOO_LARGE, "\"%s\": %zu bytes do not fit a slot", f->path, len);
	memset(slot, 0, sizeof(slot));
	store_u32le(slot, SLOT_MAGIC);
	store_u32le(slot + 4, (uint32_t)len);
	store_u64le(slot + 8, sequence);
	memcpy(slot + SLOT_HEADER_SIZE, data, len);
	store_u64le(slot + 16, slot_checksum(slot, len));
	err = write_slot(f, slot, at, em);
	if (err != DB_OK)
		return err;
	f->sequence = sequence;
	return DB_OK;
}

void slotfile_close(struct slotfile *f)
{
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
}

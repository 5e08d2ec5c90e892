/* file.c - see file.h. */
#include "common/wal/file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BATCH_PIECES 256u /* iovecs of one pwritev(); well below IOV_MAX */
#define ZERO_CHUNK   ((size_t)256 << 10)

/* Asks the tests' hook; 0 outside of tests. */
static int fault(const struct wal_dir *d, enum wal_op op, const char *name, size_t *len)
{
	return d->faults.before == NULL ? 0 : d->faults.before(d->faults.ctx, op, name, len);
}

enum db_err wal_dir_open(struct wal_dir *d, const char *path, const struct wal_faults *faults, struct errmsg *em)
{
	memset(d, 0, sizeof(*d));
	if (faults != NULL)
		d->faults = *faults;
	d->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->fd < 0)
		return errmsg_errno(em, errno, "cannot open directory \"%s\"", path);
	return DB_OK;
}

void wal_dir_close(struct wal_dir *d)
{
	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
}

enum db_err wal_file_create(const struct wal_dir *d, const char *name, int *fd, struct errmsg *em)
{
	int injected = fault(d, WAL_OP_CREATE, name, NULL);

	*fd = -1;
	if (injected != 0)
		return errmsg_errno(em, injected, "cannot create \"%s\"", name);
	*fd = openat(d->fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (*fd < 0)
		return errmsg_errno(em, errno, "cannot create \"%s\"", name);
	return DB_OK;
}

/* Cuts a batch down to its first len bytes. */
static void shorten(struct iovec *batch, size_t *count, size_t len)
{
	size_t i, kept = 0;

	for (i = 0; i < *count && len > 0; i++, kept++) {
		if (batch[i].iov_len > len)
			batch[i].iov_len = len;
		len -= batch[i].iov_len;
	}
	*count = kept;
}

/* Writes one batch, in as many calls as the kernel wants. Consumes batch. */
static int write_batch(const struct wal_dir *d, int fd, const char *name, uint64_t *offset, struct iovec *batch,
		       size_t count)
{
	size_t len = 0, i, allowed;
	ssize_t n;
	int injected, slot;

	for (i = 0; i < count; i++)
		len += batch[i].iov_len;
	allowed = len;
	injected = fault(d, WAL_OP_WRITE, name, &allowed);
	if (injected != 0) { /* a torn write: so many bytes, then the error */
		shorten(batch, &count, allowed < len ? allowed : len);
		if (count > 0 && pwritev(fd, batch, (int)count, (off_t)*offset) < 0)
			return errno;
		return injected;
	}
	for (i = 0; i < count;) {
		slot = disk_pulse_begin(d->pulse);
		n = pwritev(fd, batch + i, (int)(count - i), (off_t)*offset);
		disk_pulse_end(d->pulse, slot, false);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		if (n == 0 && len > 0)
			return EIO; /* POSIX leaves it open; it must not become an endless loop */
		*offset += (uint64_t)n;
		len -= (size_t)n;
		for (; i < count && (size_t)n >= batch[i].iov_len; i++)
			n -= (ssize_t)batch[i].iov_len;
		if (i < count) {
			batch[i].iov_base = (uint8_t *)batch[i].iov_base + n;
			batch[i].iov_len -= (size_t)n;
		}
	}
	return 0;
}

enum db_err wal_file_writev(const struct wal_dir *d, int fd, const char *name, uint64_t offset,
			    const struct iovec *pieces, size_t piece_count, struct errmsg *em)
{
	struct iovec batch[BATCH_PIECES];
	size_t i, count;
	int error;

	for (i = 0; i < piece_count; i += count) {
		count = piece_count - i < BATCH_PIECES ? piece_count - i : BATCH_PIECES;
		memcpy(batch, pieces + i, count * sizeof(*batch));
		error = write_batch(d, fd, name, &offset, batch, count);
		if (error != 0)
			return errmsg_errno(em, error, "cannot write \"%s\"", name);
	}
	return DB_OK;
}

enum db_err wal_file_write(const struct wal_dir *d, int fd, const char *name, uint64_t offset, const void *bytes,
			   size_t len, struct errmsg *em)
{
	struct iovec piece = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len}; /* iovec knows no const */

	return wal_file_writev(d, fd, name, offset, &piece, 1, em);
}

enum db_err wal_file_zero(const struct wal_dir *d, int fd, const char *name, uint64_t offset, uint64_t len,
			  struct errmsg *em)
{
	static const uint8_t zeros[ZERO_CHUNK];
	enum db_err err = DB_OK;
	size_t n;

	for (; len > 0 && err == DB_OK; offset += n, len -= n) {
		n = len < sizeof(zeros) ? (size_t)len : sizeof(zeros);
		err = wal_file_write(d, fd, name, offset, zeros, n, em);
	}
	return err;
}

enum db_err wal_file_sync(const struct wal_dir *d, int fd, const char *name, struct errmsg *em)
{
	int failed = fault(d, WAL_OP_SYNC, name, NULL);
	int slot = disk_pulse_begin(d->pulse);

	if (failed == 0 && fdatasync(fd) != 0)
		failed = errno;
	disk_pulse_end(d->pulse, slot, failed == 0);
	return failed == 0 ? DB_OK : errmsg_errno(em, failed, "cannot sync \"%s\"", name);
}

enum db_err wal_file_rename(const struct wal_dir *d, const char *from, const char *to, struct errmsg *em)
{
	int injected = fault(d, WAL_OP_RENAME, to, NULL);

	if (injected != 0)
		return errmsg_errno(em, injected, "cannot rename \"%s\" to \"%s\"", from, to);
	if (renameat(d->fd, from, d->fd, to) != 0)
		return errmsg_errno(em, errno, "cannot rename \"%s\" to \"%s\"", from, to);
	return DB_OK;
}

enum db_err wal_file_unlink(const struct wal_dir *d, const char *name, struct errmsg *em)
{
	int injected = fault(d, WAL_OP_UNLINK, name, NULL);

	if (injected != 0)
		return errmsg_errno(em, injected, "cannot remove \"%s\"", name);
	if (unlinkat(d->fd, name, 0) != 0 && errno != ENOENT)
		return errmsg_errno(em, errno, "cannot remove \"%s\"", name);
	return DB_OK;
}

enum db_err wal_dir_sync(const struct wal_dir *d, struct errmsg *em)
{
	int failed = fault(d, WAL_OP_SYNC_DIR, ".", NULL);
	int slot = disk_pulse_begin(d->pulse);

	if (failed == 0 && fsync(d->fd) != 0)
		failed = errno;
	disk_pulse_end(d->pulse, slot, failed == 0);
	return failed == 0 ? DB_OK : errmsg_errno(em, failed, "cannot sync the log's directory");
}

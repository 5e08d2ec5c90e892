/*
 * base_file.c - see base_file.h.
 *
 * A page read through the mapping that the disk fails to deliver kills the process with SIGBUS: a node with an unreadable
 * base file is of no use, and the supervisor takes it from there.
 */
#include "common/store/base_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/store/checksum.h"

#define MAP_BYTES_MIN ((size_t)1 << 30)
#define WRITE_BATCH   256 /* pages of one pwritev() */

struct base_map {
	const uint8_t *addr;
	size_t len;
	struct base_map *older; /* kept for readers until close */
};

static enum db_err map_more(struct base_file *b, uint64_t bytes, struct errmsg *em)
{
	struct base_map *current = atomic_load_explicit(&b->map, memory_order_relaxed), *map;
	size_t len = MAP_BYTES_MIN;
	void *addr;

	if (current != NULL && current->len >= bytes)
		return DB_OK;
	while (len < 2 * bytes)
		len *= 2;
	map = malloc(sizeof(*map));
	if (map == NULL)
		return errmsg_set(em, DB_NOMEM, "cannot map \"%s\"", b->path);
	addr = mmap(NULL, len, PROT_READ, MAP_SHARED | MAP_NORESERVE, b->fd, 0);
	if (addr == MAP_FAILED) {
		free(map);
		return errmsg_errno(em, errno, "cannot map %zu bytes of \"%s\"", len, b->path);
	}
	map->addr = addr;
	map->len = len;
	map->older = current;
	atomic_store_explicit(&b->map, map, memory_order_release);
	return DB_OK;
}

enum db_err base_file_open(struct base_file *b, const char *path, struct errmsg *em)
{
	enum db_err err;

	memset(b, 0, sizeof(*b));
	b->fd = -1;
	b->path = strdup(path);
	if (b->path == NULL)
		return errmsg_set(em, DB_NOMEM, "cannot open \"%s\"", path);
	b->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (b->fd < 0) {
		err = errmsg_errno(em, errno, "cannot open \"%s\"", path);
		goto fail;
	}
	if (flock(b->fd, LOCK_EX | LOCK_NB) != 0) {
		err = errno == EWOULDBLOCK ? errmsg_set(em, DB_BUSY, "\"%s\" is in use by another process", path)
					   : errmsg_errno(em, errno, "cannot lock \"%s\"", path);
		goto fail;
	}
	return DB_OK;
fail:
	base_file_close(b);
	return err;
}

void base_file_close(struct base_file *b)
{
	struct base_map *map = atomic_load(&b->map), *older;

	for (; map != NULL; map = older) {
		older = map->older;
		munmap((void *)(uintptr_t)map->addr, map->len);
		free(map);
	}
	atomic_store(&b->map, NULL);
	if (b->fd >= 0)
		close(b->fd);
	b->fd = -1;
	free(b->path);
	b->path = NULL;
}

enum db_err base_file_check(struct base_file *b, uint32_t size_pages, struct errmsg *em)
{
	uint8_t header[100];
	struct stat st;
	ssize_t n;

	if (fstat(b->fd, &st) != 0)
		return errmsg_errno(em, errno, "cannot stat \"%s\"", b->path);
	if ((uint64_t)st.st_size < (uint64_t)size_pages * WAL_PAGE_SIZE)
		return errmsg_set(em, DB_CORRUPT, "\"%s\" has %lld bytes, %u pages were checkpointed to it", b->path,
				  (long long)st.st_size, size_pages);
	if (size_pages == 0)
		return DB_OK;
	n = pread(b->fd, header, sizeof(header), 0);
	if (n != (ssize_t)sizeof(header))
		return errmsg_errno(em, n < 0 ? errno : EIO, "cannot read \"%s\"", b->path);
	if (memcmp(header, "SQLite format 3", 16) != 0)
		return errmsg_set(em, DB_CORRUPT, "\"%s\" is not a SQLite database", b->path);
	if ((header[16] << 8 | header[17]) != WAL_PAGE_SIZE)
		return errmsg_set(em, DB_INVALID, "\"%s\" has pages of %d bytes, only %u are supported", b->path,
				  header[16] << 8 | header[17], WAL_PAGE_SIZE);
	if (header[18] != 1 || header[19] != 1)
		return errmsg_set(em, DB_INVALID, "\"%s\" was set to WAL mode by another program", b->path);
	return DB_OK;
}

enum db_err base_file_attach(struct base_file *b, uint32_t size_pages, struct errmsg *em)
{
	enum db_err err = map_more(b, (uint64_t)size_pages * WAL_PAGE_SIZE, em);

	if (err == DB_OK)
		atomic_store(&b->size_pages, size_pages);
	return err;
}

enum db_err base_file_resize(struct base_file *b, uint32_t size_pages, struct errmsg *em)
{
	uint64_t bytes = (uint64_t)size_pages * WAL_PAGE_SIZE;
	struct stat st;
	enum db_err err;

	err = map_more(b, bytes, em);
	if (err != DB_OK)
		return err;
	if (fstat(b->fd, &st) != 0)
		return errmsg_errno(em, errno, "cannot stat \"%s\"", b->path);
	if (size_pages < atomic_load(&b->size_pages))
		atomic_store(&b->size_pages, size_pages); /* before the pages go */
	if ((uint64_t)st.st_size != bytes && ftruncate(b->fd, (off_t)bytes) != 0)
		return errmsg_errno(em, errno, "cannot resize \"%s\" to %u pages", b->path, size_pages);
	atomic_store(&b->size_pages, size_pages);
	return DB_OK;
}

const uint8_t *base_file_page(struct base_file *b, uint32_t pgno)
{
	struct base_map *map;

	if (pgno > atomic_load(&b->size_pages))
		return checksum_zero_page();
	map = atomic_load_explicit(&b->map, memory_order_acquire);
	return map->addr + (uint64_t)(pgno - 1) * WAL_PAGE_SIZE;
}

static enum db_err write_run(struct base_file *b, struct iovec *iov, int count, uint32_t pgno, struct errmsg *em)
{
	off_t at = (off_t)(pgno - 1) * WAL_PAGE_SIZE;
	ssize_t n;

	while (count > 0) {
		n = pwritev(b->fd, iov, count, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return errmsg_errno(em, n < 0 ? errno : EIO, "cannot write page %u of \"%s\"", pgno, b->path);
		at += n;
		for (; count > 0 && (size_t)n >= iov->iov_len; iov++, count--)
			n -= (ssize_t)iov->iov_len;
		if (count > 0 && n > 0) {
			iov->iov_base = (uint8_t *)iov->iov_base + n;
			iov->iov_len -= (size_t)n;
		}
	}
	return DB_OK;
}

enum db_err base_file_write(struct base_file *b, const struct base_write *pages, size_t count, struct errmsg *em)
{
	struct iovec iov[WRITE_BATCH];
	size_t i, run;
	enum db_err err;

	for (i = 0; i < count; i += run) {
		for (run = 0; run < WRITE_BATCH && i + run < count && pages[i + run].pgno == pages[i].pgno + run;
		     run++) {
			iov[run].iov_base = (void *)(uintptr_t)pages[i + run].data;
			iov[run].iov_len = WAL_PAGE_SIZE;
		}
		err = write_run(b, iov, (int)run, pages[i].pgno, em);
		if (err != DB_OK)
			return err;
	}
	return DB_OK;
}

enum db_err base_file_sync(struct base_file *b, struct errmsg *em)
{
	if (fdatasync(b->fd) != 0)
		return errmsg_errno(em, errno, "cannot sync \"%s\"", b->path);
	return DB_OK;
}

static enum db_err sync_range(struct base_file *b, uint32_t first_pgno, uint32_t count, unsigned how, struct errmsg *em)
{
	off_t from = (off_t)(first_pgno - 1) * WAL_PAGE_SIZE, len = (off_t)count * WAL_PAGE_SIZE;

	if (count > 0 && sync_file_range(b->fd, from, len, how) != 0)
		return errmsg_errno(em, errno, "cannot write %u pages of \"%s\" to the disk", count, b->path);
	return DB_OK;
}

enum db_err base_file_write_begin(struct base_file *b, uint32_t first_pgno, uint32_t count, struct errmsg *em)
{
	return sync_range(b, first_pgno, count, SYNC_FILE_RANGE_WRITE, em);
}

enum db_err base_file_write_wait(struct base_file *b, uint32_t first_pgno, uint32_t count, struct errmsg *em)
{
	return sync_range(b, first_pgno, count, SYNC_FILE_RANGE_WAIT_BEFORE, em);
}

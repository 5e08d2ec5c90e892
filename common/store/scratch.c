/* scratch.c - see scratch.h. */
#include "common/store/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEMORY_MIN ((size_t)16 << 10)

void scratch_init(struct scratch *s, const char *dir)
{
	memset(s, 0, sizeof(*s));
	s->dir = dir;
	s->fd = -1;
}

void scratch_fini(struct scratch *s)
{
	if (s->fd >= 0)
		close(s->fd);
	free(s->memory);
	memset(s, 0, sizeof(*s));
	s->fd = -1;
}

enum db_err scratch_open_unlinked(const char *dir, int *fd, struct errmsg *em)
{
	char path[4096];

	*fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (*fd >= 0)
		return DB_OK;
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
		return errmsg_errno(em, errno, "cannot create a scratch file in \"%s\"", dir);
	/* The file system knows no O_TMPFILE. */
	snprintf(path, sizeof(path), "%s/scratch-XXXXXX", dir);
	*fd = mkostemp(path, O_CLOEXEC);
	if (*fd < 0)
		return errmsg_errno(em, errno, "cannot create \"%s\"", path);
	if (unlink(path) != 0) {
		enum db_err err = errmsg_errno(em, errno, "cannot unlink \"%s\"", path);

		close(*fd);
		*fd = -1;
		return err;
	}
	return DB_OK;
}

static enum db_err write_all(struct scratch *s, const uint8_t *bytes, size_t len, uint64_t at, struct errmsg *em)
{
	ssize_t n;

	while (len > 0) {
		n = pwrite(s->fd, bytes, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return errmsg_errno(em, n < 0 ? errno : ENOSPC, "cannot write a scratch file in \"%s\"",
					    s->dir);
		bytes += n;
		at += (uint64_t)n;
		len -= (size_t)n;
	}
	return DB_OK;
}

static enum db_err flush_window(struct scratch *s, struct errmsg *em)
{
	enum db_err err = write_all(s, s->memory, (size_t)(s->size - s->window_start), s->window_start, em);

	if (err == DB_OK)
		s->window_start = s->size;
	return err;
}

static enum db_err grow_memory(struct scratch *s, size_t need, struct errmsg *em)
{
	size_t cap = s->memory_cap == 0 ? MEMORY_MIN : s->memory_cap;
	uint8_t *memory;

	while (cap < need)
		cap *= 2;
	if (cap == s->memory_cap)
		return DB_OK;
	memory = realloc(s->memory, cap);
	if (memory == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for a scratch file");
	s->memory = memory;
	s->memory_cap = cap;
	return DB_OK;
}

enum db_err scratch_read(struct scratch *s, void *out, size_t len, uint64_t at, size_t *got, struct errmsg *em)
{
	uint8_t *p = out;
	size_t left;
	ssize_t n;
	enum db_err err;

	*got = at >= s->size ? 0 : (size_t)(s->size - at < len ? s->size - at : len);
	memset(p + *got, 0, len - *got);
	if (*got == 0)
		return DB_OK;
	if (at >= s->window_start) {
		memcpy(p, s->memory + (at - s->window_start), *got);
		return DB_OK;
	}
	if (at + *got > s->window_start) {
		err = flush_window(s, em);
		if (err != DB_OK)
			return err;
	}
	for (left = *got; left > 0; left -= (size_t)n, p += n, at += (uint64_t)n) {
		n = pread(s->fd, p, left, (off_t)at);
		if (n < 0 && errno == EINTR) {
			n = 0;
			continue;
		}
		if (n <= 0)
			return errmsg_errno(em, n < 0 ? errno : EIO, "cannot read a scratch file in \"%s\"", s->dir);
	}
	return DB_OK;
}

/* Memory is no longer enough: everything held so far goes to a new file. */
static enum db_err move_to_file(struct scratch *s, struct errmsg *em)
{
	enum db_err err;
	int fd;

	err = scratch_open_unlinked(s->dir, &fd, em);
	if (err != DB_OK)
		return err;
	s->fd = fd;
	err = flush_window(s, em);
	if (err == DB_OK)
		err = grow_memory(s, SCRATCH_MEMORY_MAX, em);
	if (err != DB_OK && s->window_start == 0) {
		close(s->fd);
		s->fd = -1;
	}
	return err;
}

static bool fits_window(const struct scratch *s, size_t len, uint64_t at)
{
	return at >= s->window_start && at <= s->size && at + len - s->window_start <= s->memory_cap;
}

/* Into the window when the bytes lie in it or continue it, else past it into the file. */
static enum db_err write_file(struct scratch *s, const void *bytes, size_t len, uint64_t at, struct errmsg *em)
{
	enum db_err err;

	if (!fits_window(s, len, at)) {
		err = flush_window(s, em); /* the window is now empty and at the end of the file */
		if (err != DB_OK)
			return err;
	}
	if (!fits_window(s, len, at)) {
		err = write_all(s, bytes, len, at, em);
		if (err != DB_OK)
			return err;
		if (at + len > s->size)
			s->window_start = s->size = at + len;
		return DB_OK;
	}
	memcpy(s->memory + (at - s->window_start), bytes, len);
	if (at + len > s->size)
		s->size = at + len;
	return DB_OK;
}

enum db_err scratch_write(struct scratch *s, const void *bytes, size_t len, uint64_t at, struct errmsg *em)
{
	enum db_err err;

	if (s->fd < 0 && at + len > SCRATCH_MEMORY_MAX) {
		err = move_to_file(s, em);
		if (err != DB_OK)
			return err;
	}
	if (s->fd >= 0)
		return write_file(s, bytes, len, at, em);
	err = grow_memory(s, (size_t)(at + len), em);
	if (err != DB_OK)
		return err;
	if (at > s->size)
		memset(s->memory + s->size, 0, (size_t)(at - s->size));
	memcpy(s->memory + at, bytes, len);
	if (at + len > s->size)
		s->size = at + len;
	return DB_OK;
}

enum db_err scratch_truncate(struct scratch *s, uint64_t size, struct errmsg *em)
{
	if (size >= s->size)
		return DB_OK;
	if (size == 0 && s->fd >= 0) {
		close(s->fd);
		s->fd = -1;
		s->window_start = 0;
	}
	if (s->fd >= 0 && size < s->window_start) {
		if (ftruncate(s->fd, (off_t)size) != 0)
			return errmsg_errno(em, errno, "cannot cut a scratch file in \"%s\"", s->dir);
		s->window_start = size;
	}
	s->size = size;
	return DB_OK;
}

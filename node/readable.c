/* readable.c - see readable.h. */
#include "node/readable.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/store/dirs.h"

#define PATH_SIZE   512
#define CHUNK_BYTES ((size_t)256 << 10)

static void mark_path(char out[PATH_SIZE], const char *dir)
{
	snprintf(out, PATH_SIZE, "%.480s.unreadable", dir);
}

bool readable_is_doubted(const char *dir, char *why)
{
	char path[PATH_SIZE];
	ssize_t n;
	int fd;

	mark_path(path, dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, why, ERRMSG_TEXT_MAX - 1);
	why[n > 0 ? n : 0] = '\0';
	close(fd);
	return true;
}

/* What a disk or a file system says of bytes that it has lost. */
static bool is_damage(int error)
{
	return error == EIO || error == EBADMSG || error == EUCLEAN;
}

static enum db_err read_whole(const char *path, uint8_t *chunk, struct errmsg *em)
{
	enum db_err err = DB_OK;
	off_t at = 0;
	ssize_t n = 1;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return DB_OK; /* that says nothing about its content; whoever opens it for use will say why it cannot */
	while (n > 0 && err == DB_OK) {
		n = pread(fd, chunk, CHUNK_BYTES, at);
		if (n < 0 && errno == EINTR)
			n = 1;
		else if (n < 0 && is_damage(errno))
			err = errmsg_errno(em, errno, "cannot read \"%s\" from byte %lld on", path, (long long)at);
		else
			at += n;
	}
	close(fd);
	return err;
}

enum db_err readable_check(const char *dir, struct errmsg *em)
{
	char path[PATH_SIZE];
	uint8_t *chunk = malloc(CHUNK_BYTES);
	struct dirent *entry;
	enum db_err err;
	DIR *log;

	if (chunk == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	snprintf(path, sizeof(path), "%.480s/main.db", dir);
	err = read_whole(path, chunk, em);
	snprintf(path, sizeof(path), "%.480s/wal", dir);
	log = opendir(path);
	while (log != NULL && err == DB_OK && (entry = readdir(log)) != NULL) {
		snprintf(path, sizeof(path), "%.240s/wal/%.240s", dir, entry->d_name);
		if (entry->d_name[0] != '.')
			err = read_whole(path, chunk, em);
	}
	if (log != NULL)
		closedir(log);
	free(chunk);
	return err;
}

enum db_err readable_settle(const char *dir, struct errmsg *em)
{
	char path[PATH_SIZE];

	mark_path(path, dir);
	if (unlink(path) != 0)
		return errno == ENOENT ? DB_OK : errmsg_errno(em, errno, "cannot remove \"%s\"", path);
	return dirs_sync_parent(path, em);
}

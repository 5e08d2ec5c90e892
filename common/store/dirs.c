/* dirs.c - see dirs.h. */
#include "common/store/dirs.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OPEN_DIRS_MAX 16

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

enum db_err dirs_remove(const char *path, struct errmsg *em)
{
	if (nftw(path, remove_entry, OPEN_DIRS_MAX, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
		return errmsg_errno(em, errno, "cannot remove \"%s\"", path);
	return DB_OK;
}

enum db_err dirs_sync(const char *path, struct errmsg *em)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	enum db_err err = DB_OK;

	if (fd < 0)
		return errmsg_errno(em, errno, "cannot open \"%s\"", path);
	if (fsync(fd) != 0)
		err = errmsg_errno(em, errno, "cannot sync \"%s\"", path);
	close(fd);
	return err;
}

enum db_err dirs_sync_parent(const char *path, struct errmsg *em)
{
	char *copy = strdup(path);
	enum db_err err;

	if (copy == NULL)
		return errmsg_set(em, DB_NOMEM, "cannot sync the directory of \"%s\"", path);
	err = dirs_sync(dirname(copy), em);
	free(copy);
	return err;
}

static enum db_err copy_bytes(int in, int out, const char *name, struct errmsg *em)
{
	char bytes[16384];
	ssize_t got, put, done;

	while ((got = read(in, bytes, sizeof(bytes))) > 0) {
		for (done = 0; done < got; done += put) {
			put = write(out, bytes + done, (size_t)(got - done));
			if (put < 0)
				return errmsg_errno(em, errno, "cannot copy \"%s\"", name);
		}
	}
	if (got < 0)
		return errmsg_errno(em, errno, "cannot read \"%s\"", name);
	if (fsync(out) != 0)
		return errmsg_errno(em, errno, "cannot sync the copy of \"%s\"", name);
	return DB_OK;
}

enum db_err dirs_copy_file(const char *from, const char *to, const char *name, struct errmsg *em)
{
	int in = -1, out = -1;
	char *source = NULL, *target = NULL;
	enum db_err err = DB_OK;

	if (asprintf(&source, "%s/%s", from, name) < 0 || asprintf(&target, "%s/%s", to, name) < 0) {
		free(source);
		return errmsg_set(em, DB_NOMEM, "cannot copy \"%s\"", name);
	}
	in = open(source, O_RDONLY | O_CLOEXEC);
	if (in < 0 && errno == ENOENT)
		goto out;
	if (in < 0) {
		err = errmsg_errno(em, errno, "cannot open \"%s\"", source);
		goto out;
	}
	out = open(target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	err = out < 0 ? errmsg_errno(em, errno, "cannot create \"%s\"", target) : copy_bytes(in, out, source, em);
out:
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	free(source);
	free(target);
	return err;
}

enum db_err dirs_exchange(const char *fresh, const char *dir, struct errmsg *em)
{
	if (renameat2(AT_FDCWD, fresh, AT_FDCWD, dir, RENAME_EXCHANGE) != 0 &&
	    (errno != ENOENT || rename(fresh, dir) != 0))
		return errmsg_errno(em, errno, "cannot put \"%s\" in the place of \"%s\"", fresh, dir);
	return dirs_sync_parent(dir, em);
}

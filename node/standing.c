/* standing.c - see standing.h. */
#include "node/standing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/store/dirs.h"

#define PATH_SIZE 512
#define TEXT_MAX  16

static const char *const texts[] = {"", "whole\n", "rebuild\n", "wrong\n"};

static void path_of(char out[PATH_SIZE], const char *dir, const char *suffix)
{
	snprintf(out, PATH_SIZE, "%.480s%s", dir, suffix);
}

enum db_err standing_read(const char *dir, enum standing *out, struct errmsg *em)
{
	char path[PATH_SIZE], text[TEXT_MAX + 1] = "";
	ssize_t len;
	int fd;

	path_of(path, dir, ".state");
	*out = STANDING_NEW;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? DB_OK : errmsg_errno(em, errno, "cannot open \"%s\"", path);
	len = read(fd, text, TEXT_MAX);
	close(fd);
	if (len < 0)
		return errmsg_errno(em, errno, "cannot read \"%s\"", path);
	*out = STANDING_REBUILD;
	if (strcmp(text, texts[STANDING_WHOLE]) == 0)
		*out = STANDING_WHOLE;
	else if (strcmp(text, texts[STANDING_WRONG]) == 0)
		*out = STANDING_WRONG;
	return DB_OK;
}

static enum db_err write_new(const char *path, const char *text, struct errmsg *em)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ssize_t put;
	enum db_err err = DB_OK;

	if (fd < 0)
		return errmsg_errno(em, errno, "cannot create \"%s\"", path);
	put = write(fd, text, strlen(text));
	if (put < 0)
		err = errmsg_errno(em, errno, "cannot write \"%s\"", path);
	else if ((size_t)put != strlen(text))
		err = errmsg_errno(em, ENOSPC, "cannot write \"%s\"", path);
	else if (fsync(fd) != 0)
		err = errmsg_errno(em, errno, "cannot sync \"%s\"", path);
	close(fd);
	return err;
}

enum db_err standing_write(const char *dir, enum standing standing, struct errmsg *em)
{
	char path[PATH_SIZE], fresh[PATH_SIZE];
	enum db_err err;

	path_of(path, dir, ".state");
	path_of(fresh, dir, ".state.new");
	err = write_new(fresh, texts[standing], em);
	if (err == DB_OK && rename(fresh, path) != 0)
		err = errmsg_errno(em, errno, "cannot rename \"%s\"", fresh);
	return err == DB_OK ? dirs_sync_parent(path, em) : err;
}

static bool has_files(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	bool found = false;

	if (dir == NULL)
		return false;
	while (!found && (entry = readdir(dir)) != NULL)
		found = entry->d_name[0] != '.';
	closedir(dir);
	return found;
}

enum standing_store standing_look(const char *dir)
{
	char path[PATH_SIZE];
	struct stat st;

	path_of(path, dir, "/store.meta");
	if (stat(path, &st) == 0 && st.st_size > 0)
		return STANDING_STORE_THERE;
	path_of(path, dir, "/main.db");
	if (stat(path, &st) == 0 && st.st_size > 0)
		return STANDING_STORE_NO_META;
	path_of(path, dir, "/wal");
	return has_files(path) ? STANDING_STORE_NO_META : STANDING_STORE_NONE;
}

/* The fresh directory is made under the name that the old one will have: the exchange is the only step that counts. A store
 * that is not kept shall not push out the one kept before it either. */
enum db_err standing_set_aside(const char *dir, bool keep, struct errmsg *em)
{
	char aside[PATH_SIZE];
	enum db_err err;

	path_of(aside, dir, keep ? ".damaged" : ".incoming");
	err = dirs_remove(aside, em);
	if (err == DB_OK && mkdir(aside, 0700) != 0)
		err = errmsg_errno(em, errno, "cannot create \"%s\"", aside);
	if (err == DB_OK)
		err = dirs_copy_file(dir, aside, "term", em);
	if (err == DB_OK)
		err = dirs_sync(aside, em);
	if (err == DB_OK)
		err = dirs_exchange(aside, dir, em);
	if (err == DB_OK && !keep)
		err = dirs_remove(aside, em);
	if (err == DB_OK && keep)
		log_warn("the damaged store \"%s\" is now \"%s\"; an empty one takes its place", dir, aside);
	return err;
}

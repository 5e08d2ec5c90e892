/* recovery_mark.c - see recovery_mark.h. */
#include "supervisor/recovery_mark.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/store/dirs.h"

#define TEMP_PATH RECOVERY_MARK_PATH ".new"

enum db_err recovery_mark_write(unsigned node, struct errmsg *em)
{
	char text[64];
	int len = snprintf(text, sizeof(text), "{\"node\": \"node%u\"}\n", node + 1);
	enum db_err err = DB_OK;
	int fd;

	fd = open(TEMP_PATH, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return errmsg_errno(em, errno, "cannot create \"%s\"", TEMP_PATH);
	if (write(fd, text, (size_t)len) != len || fsync(fd) != 0)
		err = errmsg_errno(em, errno, "cannot write \"%s\"", TEMP_PATH);
	close(fd);
	if (err == DB_OK && rename(TEMP_PATH, RECOVERY_MARK_PATH) != 0)
		err = errmsg_errno(em, errno, "cannot rename \"%s\"", TEMP_PATH);
	return err == DB_OK ? dirs_sync(".", em) : err;
}

enum db_err recovery_mark_read(unsigned *node, unsigned node_count, struct errmsg *em)
{
	json_error_t reason;
	json_t *json;
	const char *id;
	char name[16];
	enum db_err err;

	if (access(RECOVERY_MARK_PATH, F_OK) != 0)
		return errno == ENOENT ? errmsg_set(em, DB_NOTFOUND, "no recovery was ordered")
				       : errmsg_errno(em, errno, "cannot read \"%s\"", RECOVERY_MARK_PATH);
	json = json_load_file(RECOVERY_MARK_PATH, 0, &reason);
	id = json_string_value(json_object_get(json, "node"));
	err = errmsg_set(em, DB_CORRUPT, "\"%s\" is not understood: remove it, or order the recovery again",
			 RECOVERY_MARK_PATH);
	for (*node = 0; id != NULL && err != DB_OK && *node < node_count; (*node)++) {
		snprintf(name, sizeof(name), "node%u", *node + 1);
		if (strcmp(id, name) == 0) {
			err = DB_OK;
			break;
		}
	}
	json_decref(json);
	return err;
}

enum db_err recovery_mark_remove(struct errmsg *em)
{
	if (unlink(RECOVERY_MARK_PATH) != 0)
		return errno == ENOENT ? DB_OK : errmsg_errno(em, errno, "cannot remove \"%s\"", RECOVERY_MARK_PATH);
	return dirs_sync(".", em);
}

enum db_err recovery_mark_begin(struct recovery_mark *m, unsigned node_count, bool adopted, bool *obey, unsigned *heir,
				struct errmsg *em)
{
	enum db_err err = recovery_mark_read(heir, node_count, em);

	*obey = false;
	m->stands = err == DB_OK;
	if (err == DB_OK && adopted)
		err = recovery_mark_end(m) ? DB_OK : errmsg_set(em, DB_IO, "\"%s\" stands", RECOVERY_MARK_PATH);
	else if (err == DB_OK)
		*obey = true;
	return err == DB_NOTFOUND ? DB_OK : err;
}

bool recovery_mark_end(struct recovery_mark *m)
{
	struct errmsg em = {0};

	if (m->stands && recovery_mark_remove(&em) != DB_OK)
		log_error("%s", em.text);
	else
		m->stands = false;
	return !m->stands;
}

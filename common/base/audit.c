/* audit.c - see audit.h. */
#include "common/base/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"

/* A command of root's would else leave a file that the cluster's own processes cannot write to. */
static bool give_to_owner(int fd)
{
	struct stat file, dir;

	if (geteuid() != 0)
		return true;
	if (fstat(fd, &file) != 0 || stat(".", &dir) != 0)
		return false;
	return file.st_uid == dir.st_uid || fchown(fd, dir.st_uid, dir.st_gid) == 0;
}

static bool append(const char *line)
{
	size_t len = strlen(line);
	int fd = open(AUDIT_PATH, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	bool good = fd >= 0 && give_to_owner(fd) && write(fd, line, len) == (ssize_t)len;
	int saved_errno = errno;

	if (fd >= 0)
		close(fd);
	errno = saved_errno;
	return good;
}

void audit_write(const char *process, const char *action, const char *detail, const char *by, const char *outcome)
{
	uint64_t now_us = clock_wall_us();
	char stamp[32], time_text[48];
	json_t *json;
	char *text, *line = NULL;

	clock_format(stamp, sizeof(stamp), now_us, "%Y-%m-%dT%H:%M:%S");
	snprintf(time_text, sizeof(time_text), "%s.%03uZ", stamp, (unsigned)(now_us / 1000 % 1000));
	json = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "time", time_text, "process", process, "action", action,
			 "detail", detail, "by", by, "outcome", outcome);
	if (json != NULL && log_request_id()[0] != '\0' &&
	    json_object_set_new(json, "request_id", json_string(log_request_id())) != 0) {
		json_decref(json);
		json = NULL;
	}
	text = json == NULL ? NULL : json_dumps(json, JSON_COMPACT | JSON_PRESERVE_ORDER);
	if (text == NULL || asprintf(&line, "%s\n", text) < 0 || !append(line))
		log_error("not in \"" AUDIT_PATH "\" (%s): %s %s by %s: %s", strerror(errno), action, detail, by,
			  outcome);
	free(line);
	free(text);
	json_decref(json);
}

void audit_user(char *out, size_t size)
{
	const char *sudo = getenv("SUDO_USER"), *user = getenv("USER");

	if (sudo != NULL && geteuid() == 0)
		snprintf(out, size, "%.60s by sudo (uid 0, pid %d)", sudo, (int)getpid());
	else
		snprintf(out, size, "%.60s (uid %u, pid %d)", user != NULL ? user : "user", (unsigned)getuid(),
			 (int)getpid());
}

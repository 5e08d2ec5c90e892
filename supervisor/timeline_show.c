/*
 * timeline_show.c - `grizzly-supervisor events`: reads the timeline's two files, whether or not a supervisor runs.
 *
 * Lines that are no JSON object (torn by a power cut) are skipped, and how many is said on stderr. With follow the file is
 * looked at again a few times a second, and when another file has taken its name that one is read from its beginning.
 */
#include "supervisor/timeline_show.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "supervisor/timeline.h"

#define READ_BYTES     65536u
#define FOLLOW_POLL_MS 200

struct shown {
	bool json;
	size_t damaged;
};

/* ---- a line */

static const char *string_of(json_t *event, const char *key)
{
	const char *s = json_string_value(json_object_get(event, key));

	return s == NULL ? "-" : s;
}

static void put_cell(json_t *event, const char *key, int width)
{
	json_t *v = json_object_get(event, key);

	if (json_is_integer(v))
		printf("  %*" JSON_INTEGER_FORMAT, width, json_integer_value(v));
	else
		printf("  %*s", width, "-");
}

static void put_row(json_t *event)
{
	printf("%-24s  %-17s  %-6s", string_of(event, "time"), string_of(event, "event"), string_of(event, "node"));
	put_cell(event, "term", 5);
	put_cell(event, "lsn", 9);
	printf("  %s\n", string_of(event, "text"));
}

static void show_line(struct shown *s, const char *line, size_t len)
{
	json_error_t reason;
	json_t *event = json_loadb(line, len, 0, &reason);

	if (!json_is_object(event))
		s->damaged += len > 0;
	else if (s->json)
		printf("%.*s\n", (int)len, line);
	else
		put_row(event);
	json_decref(event);
}

static void put_titles(void)
{
	printf("%-24s  %-17s  %-6s  %5s  %9s  %s\n", "TIME (UTC)", "EVENT", "NODE", "TERM", "LSN", "WHAT HAPPENED");
}

/* ---- files */

static enum db_err read_more(struct buf *b, int fd, struct errmsg *em)
{
	ssize_t n;

	do {
		if (!buf_reserve(b, READ_BYTES))
			return errmsg_set(em, DB_NOMEM, "no memory for the timeline");
		n = read(fd, b->data + b->len, READ_BYTES);
		if (n < 0)
			return errmsg_errno(em, errno, "cannot read \"%s\"", TIMELINE_PATH);
		b->len += (size_t)n;
	} while (n > 0);
	return DB_OK;
}

static bool same_inode(int a, int b)
{
	struct stat sa, sb;

	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* The older file, if there is one; not if it is the one that was the current a moment ago. */
static enum db_err read_old(struct buf *b, int current, struct errmsg *em)
{
	int fd = open(TIMELINE_PATH_OLD, O_RDONLY | O_CLOEXEC);
	enum db_err err;

	if (fd < 0)
		return errno == ENOENT ? DB_OK : errmsg_errno(em, errno, "cannot open \"%s\"", TIMELINE_PATH_OLD);
	err = same_inode(fd, current) ? DB_OK : read_more(b, fd, em);
	close(fd);
	if (err == DB_OK && b->len > 0 && b->data[b->len - 1] != '\n')
		buf_puts(b, "\n");
	return err;
}

/* Where the last lines of b begin; last 0: all of it. A line without its end does not count yet. */
static size_t start_of_last(const struct buf *b, size_t last)
{
	size_t at = b->len;
	size_t lines = 0;

	if (last == 0)
		return 0;
	while (at > 0) {
		if (b->data[at - 1] == '\n' && lines++ == last)
			return at;
		at--;
	}
	return 0;
}

/* Shows the whole lines of b from at on, and leaves the rest in it. */
static void show_lines(struct shown *s, struct buf *b, size_t at)
{
	const uint8_t *end;

	while (at < b->len && (end = memchr(b->data + at, '\n', b->len - at)) != NULL) {
		show_line(s, (const char *)b->data + at, (size_t)(end - b->data) - at);
		at = (size_t)(end - b->data) + 1;
	}
	if (at > 0) {
		memmove(b->data, b->data + at, b->len - at);
		b->len -= at;
	}
	fflush(stdout);
}

static bool same_file(int fd)
{
	struct stat ours, named;

	if (stat(TIMELINE_PATH, &named) != 0 || fstat(fd, &ours) != 0)
		return true; /* between two names: look again later */
	return ours.st_dev == named.st_dev && ours.st_ino == named.st_ino;
}

/* Until it is interrupted, or nobody reads any more. */
static enum db_err follow(struct shown *s, struct buf *b, int *fd, struct errmsg *em)
{
	enum db_err err = DB_OK;
	bool same;

	while (err == DB_OK && !ferror(stdout)) {
		poll(NULL, 0, FOLLOW_POLL_MS);
		same = same_file(*fd); /* before reading: what came before the exchange is not missed */
		err = read_more(b, *fd, em);
		show_lines(s, b, 0);
		if (err != DB_OK || same)
			continue;
		close(*fd);
		buf_clear(b);
		*fd = open(TIMELINE_PATH, O_RDONLY | O_CLOEXEC);
		if (*fd < 0)
			err = errmsg_errno(em, errno, "cannot open \"%s\"", TIMELINE_PATH);
	}
	return err;
}

enum db_err timeline_show(const struct timeline_view *view, struct errmsg *em)
{
	struct shown s = {.json = view->json};
	struct buf b = {0};
	enum db_err err;
	int fd;

	fd = open(TIMELINE_PATH, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? errmsg_set(em, DB_NOTFOUND, "nothing was ever recorded in this directory")
				       : errmsg_errno(em, errno, "cannot open \"%s\"", TIMELINE_PATH);
	err = read_old(&b, fd, em);
	if (err == DB_OK)
		err = read_more(&b, fd, em);
	if (err == DB_OK && b.failed)
		err = errmsg_set(em, DB_NOMEM, "no memory for the timeline");
	if (err == DB_OK && !view->json)
		put_titles();
	if (err == DB_OK)
		show_lines(&s, &b, start_of_last(&b, view->last));
	if (err == DB_OK && view->follow)
		err = follow(&s, &b, &fd, em);
	if (s.damaged > 0)
		fprintf(stderr, "grizzly-supervisor: %zu damaged line%s skipped\n", s.damaged,
			s.damaged == 1 ? "" : "s");
	if (err == DB_OK && ferror(stdout))
		err = errmsg_set(em, DB_IO, "cannot write the events");
	if (fd >= 0)
		close(fd);
	buf_fini(&b);
	return err;
}

/* timeline.c - see timeline.h. Jansson is used here and in timeline_show.c, and appears in no header. */
#include "supervisor/timeline.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/log.h"

struct timeline {
	int fd;
	uint64_t size_bytes;
	bool failing; /* the last append failed, which was logged */
};

static const char *const kind_names[] = {
#define X(kind, name) name,
    TIMELINE_KINDS(X)
#undef X
};

struct timeline_note timeline_note_of(enum timeline_kind kind)
{
	return (struct timeline_note){.kind = kind,
				      .code = TIMELINE_NO_CODE,
				      .restart_ms = TIMELINE_NONE,
				      .silent_ms = TIMELINE_NONE,
				      .outage_ms = TIMELINE_NONE,
				      .outage_heard_ms = TIMELINE_NONE};
}

/* ---- one line */

static void format_time(char out[40], uint64_t wall_us)
{
	char date[24];

	clock_format(date, sizeof(date), wall_us, "%Y-%m-%dT%H:%M:%S");
	snprintf(out, 40, "%s.%03uZ", date, (unsigned)(wall_us / 1000 % 1000));
}

static bool put_number(json_t *json, const char *key, uint64_t v, uint64_t nothing)
{
	return v == nothing || json_object_set_new(json, key, json_integer((json_int_t)(v & INT64_MAX))) == 0;
}

static json_t *to_json(const struct timeline_note *note, uint32_t node, const char *text)
{
	json_t *json = json_object();
	char time[40];
	char id[16];
	bool ok;

	format_time(time, clock_wall_us());
	snprintf(id, sizeof(id), "node%u", node + 1);
	ok = json != NULL && json_object_set_new(json, "time", json_string(time)) == 0 &&
	     put_number(json, "mono_ms", clock_mono_ms(), TIMELINE_NONE) &&
	     json_object_set_new(json, "event", json_string(kind_names[note->kind])) == 0 &&
	     (node == TIMELINE_NOBODY || json_object_set_new(json, "node", json_string(id)) == 0) &&
	     put_number(json, "term", note->term, 0) && put_number(json, "last_term", note->last.term, 0) &&
	     put_number(json, "lsn", note->last.lsn, 0) && put_number(json, "pid", note->pid, 0) &&
	     (note->code == TIMELINE_NO_CODE || put_number(json, "code", (uint64_t)note->code, TIMELINE_NONE)) &&
	     put_number(json, "signal", (uint64_t)note->signal, 0) &&
	     put_number(json, "restart_ms", note->restart_ms, TIMELINE_NONE) &&
	     put_number(json, "silent_ms", note->silent_ms, TIMELINE_NONE) &&
	     put_number(json, "outage_ms", note->outage_ms, TIMELINE_NONE) &&
	     put_number(json, "outage_heard_ms", note->outage_heard_ms, TIMELINE_NONE) &&
	     json_object_set_new(json, "text", json_string(text)) == 0;
	if (ok)
		return json;
	json_decref(json);
	return NULL;
}

/* ---- the file */

static enum db_err open_file(struct timeline *t, struct errmsg *em)
{
	struct stat st;
	char last = '\n';

	t->fd = open(TIMELINE_PATH, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (t->fd < 0)
		return errmsg_errno(em, errno, "cannot open \"%s\"", TIMELINE_PATH);
	if (fstat(t->fd, &st) != 0 || (st.st_size > 0 && pread(t->fd, &last, 1, st.st_size - 1) != 1)) {
		errmsg_errno(em, errno, "cannot read \"%s\"", TIMELINE_PATH);
		goto close_file;
	}
	t->size_bytes = (uint64_t)st.st_size;
	/* Torn by a power cut or a full disk: what follows shall not be lost with it. */
	if (last != '\n' && write(t->fd, "\n", 1) != 1) {
		errmsg_errno(em, errno, "cannot write \"%s\"", TIMELINE_PATH);
		goto close_file;
	}
	return DB_OK;
close_file:
	close(t->fd);
	t->fd = -1;
	return em->err;
}

enum db_err timeline_open(struct timeline **out, struct errmsg *em)
{
	struct timeline *t = calloc(1, sizeof(*t));
	enum db_err err;

	*out = NULL;
	if (t == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for the timeline");
	t->fd = -1;
	err = open_file(t, em);
	if (err != DB_OK) {
		timeline_close(t);
		return err;
	}
	*out = t;
	return DB_OK;
}

void timeline_close(struct timeline *t)
{
	if (t == NULL)
		return;
	if (t->fd >= 0)
		close(t->fd);
	free(t);
}

/* A rename that fails leaves the file growing, and is tried again with the next event. */
static enum db_err rotate(struct timeline *t, struct errmsg *em)
{
	if (rename(TIMELINE_PATH, TIMELINE_PATH_OLD) != 0)
		return errmsg_errno(em, errno, "cannot rename \"%s\"", TIMELINE_PATH);
	close(t->fd);
	return open_file(t, em);
}

static enum db_err put_line(struct timeline *t, const char *line, size_t len, struct errmsg *em)
{
	ssize_t n;

	n = write(t->fd, line, len);
	if (n < 0)
		return errmsg_errno(em, errno, "cannot write \"%s\"", TIMELINE_PATH);
	t->size_bytes += (uint64_t)n;
	if ((size_t)n == len)
		return DB_OK;
	close(t->fd); /* opening it again ends the torn line */
	t->fd = -1;
	return errmsg_set(em, DB_FULL, "no space for \"%s\"", TIMELINE_PATH);
}

static enum db_err append(struct timeline *t, const char *line, size_t len, struct errmsg *em)
{
	enum db_err err = DB_OK;

	if (t->fd < 0)
		err = open_file(t, em);
	if (err == DB_OK && t->size_bytes + len > TIMELINE_BYTES_MAX)
		err = rotate(t, em);
	return err == DB_OK ? put_line(t, line, len, em) : err;
}

void timeline_append(struct timeline *t, const struct timeline_note *note, uint32_t node, const char *text)
{
	json_t *json;
	char *dump;
	struct buf line = {0};
	struct errmsg em = {0};
	enum db_err err;

	if (t == NULL)
		return;
	json = to_json(note, node, text);
	dump = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);
	json_decref(json);
	if (dump != NULL)
		buf_printf(&line, "%s\n", dump);
	free(dump);
	if (line.len == 0 || line.failed)
		err = errmsg_set(&em, DB_NOMEM, "no memory for an event");
	else
		err = append(t, (const char *)line.data, line.len, &em);
	buf_fini(&line);
	if (err != DB_OK && !t->failing)
		log_error("the timeline lacks events from now on: %s", em.text);
	t->failing = err != DB_OK;
}

void timeline_append_process(struct timeline *t, enum timeline_kind kind, uint32_t node, uint64_t term, uint64_t pid,
			     const char *text)
{
	struct timeline_note note = timeline_note_of(kind);

	note.term = term;
	note.pid = pid;
	timeline_append(t, &note, node, text);
}

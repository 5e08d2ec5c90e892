/* salvage.c - see salvage.h. */
#include "replica/salvage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/store/dirs.h"
#include "common/wal/wal.h"
#include "replica/salvage_diff.h"

#define PATH_SIZE       640
#define REQUEST_TABLE   "_grizzly_receipts"
#define REQUEST_COLUMN  "request_id"
#define LINE_BYTES_MAX  ((size_t)64 << 20) /* of a change; longer ones are no request's */
#define WRITE_BYTES_MAX ((size_t)1 << 20)

/* The records to be kept, at a glance. */
struct tail {
	struct wal_record first, last;
	uint64_t bytes;
	uint64_t records;
	uint64_t changing; /* records that hold pages */
	uint32_t pgno_max;
	uint8_t *changed; /* a bit for each page; owned */
};

/* ---- the tail */

static enum db_err read_tail(const struct salvage *s, uint64_t last_lsn, struct tail *t, struct errmsg *em)
{
	struct wal *wal = store_wal(s->store);
	struct wal_record r;
	enum db_err err = DB_OK;
	uint64_t lsn;
	size_t len;

	memset(t, 0, sizeof(*t));
	for (lsn = s->keep_lsn + 1; lsn <= last_lsn; lsn++) {
		err = wal_read(wal, lsn, &r, em);
		if (err != DB_OK)
			return err;
		wal_record_bytes(&r, &len);
		t->first = t->records == 0 ? r : t->first;
		t->last = r;
		t->bytes += len;
		t->records++;
		t->changing += r.page_count > 0;
		if (r.page_count > 0 && wal_record_pgno(&r, r.page_count - 1) > t->pgno_max)
			t->pgno_max = wal_record_pgno(&r, r.page_count - 1);
	}
	return DB_OK;
}

static enum db_err mark_changed(const struct salvage *s, struct tail *t, struct errmsg *em)
{
	struct wal_record r;
	enum db_err err = DB_OK;
	uint64_t lsn;
	uint32_t i, pgno;

	t->changed = calloc((size_t)t->pgno_max / 8 + 1, 1);
	if (t->changed == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for a page map");
	for (lsn = t->first.lsn; lsn <= t->last.lsn && err == DB_OK; lsn++) {
		err = wal_read(store_wal(s->store), lsn, &r, em);
		for (i = 0; err == DB_OK && i < r.page_count; i++) {
			pgno = wal_record_pgno(&r, i);
			t->changed[pgno / 8] |= (uint8_t)(1u << pgno % 8);
		}
	}
	return err;
}

/* ---- files */

static enum db_err put(void *arg, const void *bytes, size_t len, struct errmsg *em)
{
	const int *fd = arg;
	const uint8_t *at = bytes;
	ssize_t n;

	for (; len > 0; at += n, len -= (size_t)n) {
		n = write(*fd, at, len < WRITE_BYTES_MAX ? len : WRITE_BYTES_MAX);
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n < 0)
			return errmsg_errno(em, errno, "cannot write a salvage file");
	}
	return DB_OK;
}

static enum db_err create(const char *path, int *fd, struct errmsg *em)
{
	*fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	return *fd < 0 ? errmsg_errno(em, errno, "cannot create \"%s\"", path) : DB_OK;
}

/* Closes fd, and gives the file its name if all is well; removes it otherwise. */
static enum db_err finish(int fd, const char *temp, const char *path, enum db_err err, struct errmsg *em)
{
	if (fd < 0)
		return err;
	if (err == DB_OK && fsync(fd) != 0)
		err = errmsg_errno(em, errno, "cannot sync \"%s\"", temp);
	close(fd);
	if (err == DB_OK && rename(temp, path) != 0)
		err = errmsg_errno(em, errno, "cannot rename \"%s\"", temp);
	if (err != DB_OK && unlink(temp) != 0 && errno != ENOENT)
		log_warn("\"%s\" stays behind: %s", temp, strerror(errno));
	return err;
}

static enum db_err write_raw(const struct salvage *s, const struct tail *t, const char *stem, struct errmsg *em)
{
	char path[PATH_SIZE], temp[PATH_SIZE];
	struct wal_record r;
	const uint8_t *bytes;
	uint64_t lsn;
	size_t len;
	int fd;
	enum db_err err;

	snprintf(path, sizeof(path), "%.600s.wal", stem);
	snprintf(temp, sizeof(temp), "%.600s.wal.new", stem);
	err = create(temp, &fd, em);
	for (lsn = t->first.lsn; err == DB_OK && lsn <= t->last.lsn; lsn++) {
		err = wal_read(store_wal(s->store), lsn, &r, em);
		if (err != DB_OK)
			break;
		bytes = wal_record_bytes(&r, &len);
		err = put(&fd, bytes, len, em);
	}
	return finish(fd, temp, path, err, em);
}

/* ---- the readable form */

static enum db_err write_header(int fd, const struct salvage *s, const struct tail *t, const struct salvage_diff *d,
				const char *why_incomplete, struct errmsg *em)
{
	char line[SALVAGE_HEADER_BYTES];
	char cluster[33], checksum[17], now[32], from[32], to[32];
	json_t *json;
	char *text;
	size_t len, i;
	enum db_err err = DB_OK;

	for (i = 0; i < 16; i++)
		snprintf(cluster + 2 * i, 3, "%02x", s->cluster_id[i]);
	snprintf(checksum, sizeof(checksum), "%016" PRIx64, t->last.checksum);
	clock_format(now, sizeof(now), clock_wall_us(), "%Y-%m-%dT%H:%M:%SZ");
	clock_format(from, sizeof(from), t->first.time_us, "%Y-%m-%dT%H:%M:%SZ");
	clock_format(to, sizeof(to), t->last.time_us, "%Y-%m-%dT%H:%M:%SZ");
	json =
	    json_pack("{s:i, s:s, s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:s, s:b, s:s, s:I, s:I, "
		      "s:I, s:I}",
		      "salvage", 1, "cluster", cluster, "node", s->node_id, "time", now, "reason", s->reason, "certain",
		      (int)s->certain, "kept_lsn", (json_int_t)s->keep_lsn, "first_lsn", (json_int_t)t->first.lsn,
		      "last_lsn", (json_int_t)t->last.lsn, "first_term", (json_int_t)t->first.term, "last_term",
		      (json_int_t)t->last.term, "record_bytes", (json_int_t)t->bytes, "last_checksum", checksum,
		      "written_from", from, "written_to", to, "complete", why_incomplete[0] == '\0', "incomplete_why",
		      why_incomplete, "schema_changes", (json_int_t)d->schema_changes, "inserts",
		      (json_int_t)d->inserts, "updates", (json_int_t)d->updates, "deletes", (json_int_t)d->deletes);
	text = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);
	json_decref(json);
	len = text == NULL ? 0 : strlen(text);
	if (len == 0 || len >= sizeof(line)) {
		err = errmsg_set(em, DB_NOMEM, "no memory for a salvage header");
	} else {
		memset(line, ' ', sizeof(line));
		memcpy(line, text, len);
		line[sizeof(line) - 1] = '\n';
		if (pwrite(fd, line, sizeof(line), 0) != (ssize_t)sizeof(line))
			err = errmsg_errno(em, errno, "cannot write a salvage header");
	}
	free(text);
	return err;
}

static enum db_err compare(const struct salvage *s, struct tail *t, struct salvage_diff *d, struct errmsg *em)
{
	enum db_err err;

	if (t->bytes > SALVAGE_TAIL_BYTES_MAX)
		return errmsg_set(em, DB_TOO_LARGE, "%" PRIu64 " bytes of records are too many to be made readable",
				  t->bytes);
	err = mark_changed(s, t, em);
	d->changed = t->changed;
	d->changed_max = t->pgno_max;
	if (err == DB_OK)
		err = store_open_reader_at(s->store, s->keep_lsn, &d->before, em);
	if (err == DB_OK)
		err = store_open_reader_at(s->store, t->last.lsn, &d->after, em);
	if (err == DB_OK)
		err = salvage_diff(d, em);
	sqlite3_close(d->after);
	sqlite3_close(d->before);
	return err;
}

/* What cannot be made readable is no error: the records are kept already. What cannot be written is. */
static enum db_err write_readable(const struct salvage *s, struct tail *t, const char *stem, struct errmsg *em)
{
	struct salvage_diff d = {
	    .deadline_ms = clock_mono_ms() + SALVAGE_MS_MAX, .bytes_max = SALVAGE_TEXT_BYTES_MAX, .write = put};
	char path[PATH_SIZE], temp[PATH_SIZE];
	struct errmsg why = {0};
	enum db_err err;
	int fd;

	snprintf(path, sizeof(path), "%.600s.jsonl", stem);
	snprintf(temp, sizeof(temp), "%.600s.jsonl.new", stem);
	err = create(temp, &fd, em);
	d.arg = &fd;
	if (err == DB_OK)
		err = write_header(fd, s, t, &d, "broken off", em);
	if (err == DB_OK && lseek(fd, SALVAGE_HEADER_BYTES, SEEK_SET) < 0)
		err = errmsg_errno(em, errno, "cannot write a salvage file");
	if (err == DB_OK && compare(s, t, &d, &why) != DB_OK)
		log_warn("salvage: records %" PRIu64 "..%" PRIu64 " are kept, but not all of them readable: %s",
			 t->first.lsn, t->last.lsn, why.text);
	if (err == DB_OK)
		err = write_header(fd, s, t, &d, why.text, em);
	return finish(fd, temp, path, err, em);
}

/* ---- what is there */

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), end_len = strlen(end);

	return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

static bool holds_checksum(const char *dir, const char *name, uint64_t checksum)
{
	char path[PATH_SIZE], wanted[64], header[SALVAGE_HEADER_BYTES + 1];
	int fd;
	ssize_t n;

	snprintf(path, sizeof(path), "%.300s/%.255s", dir, name);
	snprintf(wanted, sizeof(wanted), "\"last_checksum\":\"%016" PRIx64 "\"", checksum);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, header, SALVAGE_HEADER_BYTES);
	close(fd);
	header[n > 0 ? n : 0] = '\0';
	return strstr(header, wanted) != NULL;
}

/* Was this very tail kept before a crash, or before a cut that failed? */
static bool is_kept(const char *dir, const struct tail *t)
{
	struct dirent *entry;
	char end[64];
	bool found = false;
	DIR *d = opendir(dir);

	snprintf(end, sizeof(end), "-%" PRIu64 "-%" PRIu64 ".jsonl", t->first.lsn, t->last.lsn);
	while (d != NULL && !found && (entry = readdir(d)) != NULL)
		found = ends_with(entry->d_name, end) && holds_checksum(dir, entry->d_name, t->last.checksum);
	if (d != NULL)
		closedir(d);
	return found;
}

static enum db_err keep_tail(const struct salvage *s, struct tail *t, const char *dir, struct errmsg *em)
{
	char stem[PATH_SIZE], now[32];
	enum db_err err;

	if (mkdir(dir, 0700) != 0 && errno != EEXIST)
		return errmsg_errno(em, errno, "cannot create \"%s\"", dir);
	clock_format(now, sizeof(now), clock_wall_us(), "%Y%m%dT%H%M%SZ");
	snprintf(stem, sizeof(stem), "%.500s/%s-%" PRIu64 "-%" PRIu64, dir, now, t->first.lsn, t->last.lsn);
	err = write_raw(s, t, stem, em);
	if (err == DB_OK)
		err = write_readable(s, t, stem, em);
	if (err == DB_OK)
		err = dirs_sync(dir, em);
	if (err == DB_OK)
		err = dirs_sync_parent(dir, em);
	if (err == DB_OK)
		log_warn("salvage: records %" PRIu64 "..%" PRIu64 ", which only this node has, are kept as %s.jsonl",
			 t->first.lsn, t->last.lsn, stem);
	return err;
}

enum db_err salvage_keep(const struct salvage *s, bool *kept, struct errmsg *em)
{
	uint64_t last_lsn = store_tip_lsn(s->store);
	char dir[PATH_SIZE];
	struct tail t;
	enum db_err err;

	*kept = false;
	err = read_tail(s, last_lsn, &t, em);
	if (err != DB_OK || t.changing == 0)
		return err;
	snprintf(dir, sizeof(dir), "%.500s" SALVAGE_SUFFIX, s->dir);
	*kept = true;
	if (!is_kept(dir, &t))
		err = keep_tail(s, &t, dir, em);
	free(t.changed);
	return err;
}

/* ---- request ids */

static bool is_request(const char *line, size_t len, const char *request_id)
{
	json_error_t reason;
	json_t *json = json_loadb(line, len, 0, &reason);
	const char *table = json_string_value(json_object_get(json, "table"));
	const char *id = json_string_value(json_object_get(json_object_get(json, "new"), REQUEST_COLUMN));
	bool is = table != NULL && id != NULL && strcmp(table, REQUEST_TABLE) == 0 && strcmp(id, request_id) == 0;

	json_decref(json);
	return is;
}

static enum db_err search_file(const char *path, const char *request_id, bool *found, struct errmsg *em)
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;
	ssize_t len;
	enum db_err err = DB_OK;

	if (f == NULL)
		return errmsg_errno(em, errno, "cannot open \"%s\"", path);
	while (!*found && (len = getline(&line, &size, f)) >= 0)
		if ((size_t)len <= LINE_BYTES_MAX && strstr(line, "\"" REQUEST_TABLE "\"") != NULL)
			*found = is_request(line, (size_t)len, request_id);
	if (ferror(f))
		err = errmsg_errno(em, errno, "cannot read \"%s\"", path);
	free(line);
	fclose(f);
	return err;
}

enum db_err salvage_find_request(const char *node_dir, const char *request_id, char *path, size_t path_size,
				 struct errmsg *em)
{
	char dir[PATH_SIZE];
	struct dirent *entry;
	enum db_err err = DB_OK;
	bool found = false;
	DIR *d;

	snprintf(dir, sizeof(dir), "%.500s" SALVAGE_SUFFIX, node_dir);
	d = opendir(dir);
	if (d == NULL && errno != ENOENT)
		return errmsg_errno(em, errno, "cannot read \"%s\"", dir);
	while (d != NULL && err == DB_OK && !found && (entry = readdir(d)) != NULL) {
		if (!ends_with(entry->d_name, ".jsonl"))
			continue;
		snprintf(path, path_size, "%s/%s", dir, entry->d_name);
		err = search_file(path, request_id, &found, em);
	}
	if (d != NULL)
		closedir(d);
	return err != DB_OK || found ? err : errmsg_set(em, DB_NOTFOUND, "no salvaged tail holds that request");
}

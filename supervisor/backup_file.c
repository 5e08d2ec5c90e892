/* backup_file.c - see backup_file.h. */
#include "supervisor/backup_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/store/checksum.h"
#include "common/store/dirs.h"
#include "supervisor/time_text.h"

#define SYNC_EVERY_BYTES ((uint64_t)64 << 20) /* so that the last sync has little left to do */
#define INFO_BYTES_MAX   ((size_t)64 << 10)

struct backup_writer {
	char path[PATH_MAX];
	char partial[PATH_MAX + 16];
	bool force;
	int fd;
	bool finished;
	uint64_t size;
	uint64_t synced;
	uint64_t checksum;           /* of the whole pages so far */
	uint8_t page[WAL_PAGE_SIZE]; /* the first bytes of the page after them */
};

/* ---- FILE.json */

static bool parse_hex(const char *text, size_t digits, uint64_t *out)
{
	if (text == NULL || strlen(text) != digits || strspn(text, "0123456789abcdef") != digits)
		return false;
	*out = strtoull(text, NULL, 16);
	return true;
}

static bool parse_cluster(const char *text, uint8_t id[16])
{
	unsigned byte;
	size_t i;

	if (text == NULL || strlen(text) != 32 || strspn(text, "0123456789abcdef") != 32)
		return false;
	for (i = 0; i < 16; i++) {
		sscanf(text + 2 * i, "%2x", &byte);
		id[i] = (uint8_t)byte;
	}
	return true;
}

static bool parse_number(json_t *object, const char *key, uint64_t *out)
{
	json_t *v = json_object_get(object, key);

	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return false;
	*out = (uint64_t)json_integer_value(v);
	return true;
}

static const char *text_of(json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static enum db_err decode_info(struct backup_info *info, json_t *json, const char *path, struct errmsg *em)
{
	uint64_t format;
	const char *node = text_of(json, "node");

	if (!parse_number(json, "format", &format))
		return errmsg_set(em, DB_INVALID, "\"%s\" does not describe a backup", path);
	if (format != BACKUP_FORMAT)
		return errmsg_set(em, DB_INVALID, "\"%s\" has format %" PRIu64 ", this program knows %d", path, format,
				  BACKUP_FORMAT);
	if (!parse_cluster(text_of(json, "cluster"), info->cluster_id) || !parse_number(json, "lsn", &info->pos.lsn) ||
	    !parse_number(json, "term", &info->pos.term) || !parse_number(json, "time_us", &info->time_us) ||
	    !parse_number(json, "size_bytes", &info->size_bytes) ||
	    !parse_hex(text_of(json, "record_checksum"), 16, &info->record_checksum) ||
	    !parse_hex(text_of(json, "db_checksum"), 16, &info->db_checksum) || node == NULL)
		return errmsg_set(em, DB_CORRUPT, "\"%s\" is damaged", path);
	snprintf(info->node, sizeof(info->node), "%s", node);
	return DB_OK;
}

enum db_err backup_info_load(struct backup_info *info, const char *path, struct errmsg *em)
{
	char name[PATH_MAX + 16];
	char *text;
	json_error_t reason;
	json_t *json;
	enum db_err err;
	size_t len;
	FILE *f;

	memset(info, 0, sizeof(*info));
	snprintf(name, sizeof(name), "%s.json", path);
	f = fopen(name, "re");
	if (f == NULL)
		return errmsg_errno(em, errno, "cannot open \"%s\"", name);
	text = malloc(INFO_BYTES_MAX);
	len = text == NULL ? 0 : fread(text, 1, INFO_BYTES_MAX, f);
	fclose(f);
	if (text == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory to read \"%s\"", name);
	json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &reason);
	free(text);
	if (json == NULL)
		return errmsg_set(em, DB_CORRUPT, "\"%s\" is damaged: %.200s", name, reason.text);
	err = decode_info(info, json, name, em);
	json_decref(json);
	return err;
}

static char *encode_info(const struct backup_info *info)
{
	char cluster[33], time[TIME_TEXT_MAX], record_checksum[17], db_checksum[17];
	json_t *json;
	char *text;
	unsigned i;

	for (i = 0; i < 16; i++)
		snprintf(cluster + 2 * i, 3, "%02x", info->cluster_id[i]);
	time_text_put(info->time_us, time);
	snprintf(record_checksum, sizeof(record_checksum), "%016" PRIx64, info->record_checksum);
	snprintf(db_checksum, sizeof(db_checksum), "%016" PRIx64, info->db_checksum);
	json =
	    json_pack("{s:i, s:s, s:s, s:I, s:I, s:s, s:I, s:s, s:s, s:I}", "format", BACKUP_FORMAT, "cluster", cluster,
		      "node", info->node, "lsn", (json_int_t)info->pos.lsn, "term", (json_int_t)info->pos.term, "time",
		      time, "time_us", (json_int_t)info->time_us, "record_checksum", record_checksum, "db_checksum",
		      db_checksum, "size_bytes", (json_int_t)info->size_bytes);
	text = json == NULL ? NULL : json_dumps(json, JSON_INDENT(2));
	json_decref(json);
	return text;
}

/* Puts `from` in the place of `to`, which only force lets be there. */
static enum db_err put_in_place(const char *from, const char *to, bool force, struct errmsg *em)
{
	if (renameat2(AT_FDCWD, from, AT_FDCWD, to, force ? 0 : RENAME_NOREPLACE) == 0)
		return DB_OK;
	if (!force && errno == EINVAL && link(from, to) == 0) { /* a file system without RENAME_NOREPLACE */
		unlink(from);
		return DB_OK;
	}
	return errmsg_errno(em, errno, "cannot rename \"%s\" to \"%s\"", from, to);
}

/* A FILE.json without its FILE is what an attempt that was cut short has left: it may always be replaced. */
static enum db_err write_info(const struct backup_writer *w, const struct backup_info *info, struct errmsg *em)
{
	char name[PATH_MAX + 32], fresh[PATH_MAX + 48];
	char *text = encode_info(info);
	enum db_err err = DB_OK;
	FILE *f;

	if (text == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for \"%s.json\"", w->path);
	snprintf(name, sizeof(name), "%s.json", w->path);
	snprintf(fresh, sizeof(fresh), "%s.partial", name);
	f = fopen(fresh, "we");
	if (f == NULL) {
		err = errmsg_errno(em, errno, "cannot create \"%s\"", fresh);
		goto free_text;
	}
	if (fprintf(f, "%s\n", text) < 0 || fflush(f) != 0 || fsync(fileno(f)) != 0)
		err = errmsg_errno(em, errno, "cannot write \"%s\"", fresh);
	if (fclose(f) != 0 && err == DB_OK)
		err = errmsg_errno(em, errno, "cannot write \"%s\"", fresh);
	if (err == DB_OK)
		err = put_in_place(fresh, name, true, em);
	if (err != DB_OK)
		unlink(fresh);
free_text:
	free(text);
	return err;
}

/* ---- FILE */

static enum db_err open_partial(struct backup_writer *w, struct errmsg *em)
{
	w->fd = open(w->partial, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (w->fd < 0)
		return errmsg_errno(em, errno, "cannot create \"%s\"", w->partial);
	if (flock(w->fd, LOCK_EX | LOCK_NB) != 0) {
		close(w->fd);
		w->fd = -1; /* it is not ours to remove */
		return errmsg_set(em, DB_BUSY, "\"%s\" is being written by another process", w->partial);
	}
	return backup_writer_restart(w, em);
}

enum db_err backup_writer_create(struct backup_writer **out, const char *path, bool force, struct errmsg *em)
{
	struct backup_writer *w;
	enum db_err err;
	struct stat st;
	int n;

	*out = NULL;
	if (!force && lstat(path, &st) == 0)
		return errmsg_set(em, DB_EXISTS, "\"%s\" is there already; --force replaces it", path);
	w = calloc(1, sizeof(*w));
	if (w == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory to write a backup");
	w->fd = -1;
	w->force = force;
	n = snprintf(w->path, sizeof(w->path), "%s", path);
	snprintf(w->partial, sizeof(w->partial), "%s.partial", path);
	err = n <= 0 || (size_t)n >= sizeof(w->path) ? errmsg_set(em, DB_INVALID, "\"%s\" is no possible file", path)
						     : open_partial(w, em);
	if (err != DB_OK) {
		backup_writer_free(w);
		return err;
	}
	*out = w;
	return DB_OK;
}

enum db_err backup_writer_restart(struct backup_writer *w, struct errmsg *em)
{
	w->size = w->synced = w->checksum = 0;
	if (ftruncate(w->fd, 0) != 0 || lseek(w->fd, 0, SEEK_SET) != 0)
		return errmsg_errno(em, errno, "cannot empty \"%s\"", w->partial);
	return DB_OK;
}

/* Adds bytes to the checksum, a page at a time. */
static void add_pages(struct backup_writer *w, const uint8_t *bytes, size_t len)
{
	size_t used = w->size % WAL_PAGE_SIZE, n;
	uint64_t pages = w->size / WAL_PAGE_SIZE;

	for (; len > 0; bytes += n, len -= n) {
		n = WAL_PAGE_SIZE - used < len ? WAL_PAGE_SIZE - used : len;
		memcpy(w->page + used, bytes, n);
		used += n;
		if (used < WAL_PAGE_SIZE)
			continue;
		used = 0;
		w->checksum ^= checksum_page((uint32_t)++pages, w->page);
	}
}

enum db_err backup_writer_put(struct backup_writer *w, const void *bytes, size_t len, struct errmsg *em)
{
	const uint8_t *at = bytes;
	size_t left = len;
	ssize_t n;

	while (left > 0) {
		n = write(w->fd, at, left);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errmsg_errno(em, errno, "cannot write \"%s\"", w->partial);
		at += n;
		left -= (size_t)n;
	}
	add_pages(w, bytes, len);
	w->size += len;
	if (w->size - w->synced < SYNC_EVERY_BYTES)
		return DB_OK;
	w->synced = w->size;
	if (fdatasync(w->fd) != 0)
		return errmsg_errno(em, errno, "cannot sync \"%s\"", w->partial);
	return DB_OK;
}

uint64_t backup_writer_size(const struct backup_writer *w)
{
	return w->size;
}

enum db_err backup_writer_finish(struct backup_writer *w, const struct backup_info *info, struct errmsg *em)
{
	enum db_err err;

	if (w->size != info->size_bytes)
		return errmsg_set(em, DB_CORRUPT, "%" PRIu64 " bytes came, %" PRIu64 " were announced", w->size,
				  info->size_bytes);
	if (w->checksum != info->db_checksum)
		return errmsg_set(em, DB_CORRUPT,
				  "the copy's database checksum is %016" PRIx64 ", %016" PRIx64 " was announced",
				  w->checksum, info->db_checksum);
	if (fsync(w->fd) != 0)
		return errmsg_errno(em, errno, "cannot sync \"%s\"", w->partial);
	err = write_info(w, info, em);
	if (err == DB_OK)
		err = put_in_place(w->partial, w->path, w->force, em);
	if (err != DB_OK)
		return err;
	w->finished = true;
	return dirs_sync_parent(w->path, em);
}

void backup_writer_free(struct backup_writer *w)
{
	if (w == NULL)
		return;
	if (w->fd >= 0 && !w->finished)
		unlink(w->partial);
	if (w->fd >= 0)
		close(w->fd);
	free(w);
}

/* salvage_list.c - see salvage_list.h. */
#include "supervisor/salvage_list.h"

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

#define HEADER_BYTES 4096u /* replica/salvage.h */
#define SUFFIX       ".jsonl"

static void directory_of(char out[32], unsigned node)
{
	snprintf(out, 32, "node%u.salvage", node + 1);
}

uint64_t salvage_stamp(unsigned node)
{
	char dir[32];
	struct stat st;

	directory_of(dir, node);
	return stat(dir, &st) == 0 ? (uint64_t)st.st_mtim.tv_sec * 1000000000 + (uint64_t)st.st_mtim.tv_nsec : 0;
}

static uint64_t number_of(json_t *json, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(json, key));

	return v > 0 ? (uint64_t)v : 0;
}

static void copy_text(char *out, size_t size, json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	snprintf(out, size, "%s", text == NULL ? "" : text);
}

static void read_header(struct salvage_file *f)
{
	char header[HEADER_BYTES];
	json_error_t reason;
	json_t *json;
	ssize_t n;
	int fd = open(f->path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	n = read(fd, header, sizeof(header));
	close(fd);
	json = n <= 0 ? NULL : json_loadb(header, (size_t)n, JSON_DISABLE_EOF_CHECK, &reason);
	if (json_is_object(json) && number_of(json, "salvage") == 1) {
		f->readable = true;
		f->complete = json_is_true(json_object_get(json, "complete"));
		f->certain = json_is_true(json_object_get(json, "certain"));
		copy_text(f->time, sizeof(f->time), json, "time");
		copy_text(f->reason, sizeof(f->reason), json, "reason");
		f->first_lsn = number_of(json, "first_lsn");
		f->last_lsn = number_of(json, "last_lsn");
		f->schema_changes = number_of(json, "schema_changes");
		f->inserts = number_of(json, "inserts");
		f->updates = number_of(json, "updates");
		f->deletes = number_of(json, "deletes");
	}
	json_decref(json);
}

static bool is_change_file(const char *name)
{
	size_t len = strlen(name);

	return len > strlen(SUFFIX) && len < 100 && strcmp(name + len - strlen(SUFFIX), SUFFIX) == 0;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct salvage_file *)a)->path, ((const struct salvage_file *)b)->path);
}

enum db_err salvage_list(struct salvage_files *out, unsigned node, struct errmsg *em)
{
	struct dirent *entry;
	char dir[32];
	DIR *d;

	out->count = 0;
	directory_of(dir, node);
	d = opendir(dir);
	if (d == NULL)
		return errno == ENOENT ? DB_OK : errmsg_errno(em, errno, "cannot read \"%s\"", dir);
	while (out->count < SALVAGE_LIST_MAX && (entry = readdir(d)) != NULL) {
		struct salvage_file *f = &out->items[out->count];

		if (!is_change_file(entry->d_name))
			continue;
		memset(f, 0, sizeof(*f));
		snprintf(f->path, sizeof(f->path), "%s/%.100s", dir, entry->d_name);
		snprintf(f->raw, sizeof(f->raw), "%s/%.*s.wal", dir, (int)(strlen(entry->d_name) - strlen(SUFFIX)),
			 entry->d_name);
		read_header(f);
		out->count++;
	}
	closedir(d);
	qsort(out->items, out->count, sizeof(out->items[0]), by_path);
	return DB_OK;
}

void salvage_describe(const struct salvage_file *f, char *out, size_t size)
{
	if (!f->readable)
		snprintf(out, size, "its header cannot be read");
	else
		snprintf(out, size,
			 "records %" PRIu64 " to %" PRIu64 "%s: %" PRIu64 " inserted, %" PRIu64 " updated, %" PRIu64
			 " deleted rows, %" PRIu64 " schema changes%s",
			 f->first_lsn, f->last_lsn, f->certain ? "" : ", some of which the cluster may have",
			 f->inserts, f->updates, f->deletes, f->schema_changes,
			 f->complete ? "" : " (not all readable, see the records)");
}

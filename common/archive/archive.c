/* archive.c - see archive.h: names, lists and reading. write.c writes. */
#include "common/archive/archive.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/base/buf.h"

#define MAGIC      0x31417a47u /* "GzA1" read little-endian */
#define LSN_DIGITS 20
#define SUFFIX     ".gza"

/* ---- headers and names */

void archive_header_encode(const struct archive_header *h, uint8_t out[ARCHIVE_HEADER_SIZE])
{
	store_u32le(out, MAGIC);
	store_u16le(out + 4, ARCHIVE_VERSION);
	store_u16le(out + 6, 0);
	memcpy(out + 8, h->cluster_id, 16);
	store_u64le(out + 24, h->first_lsn);
	store_u64le(out + 32, h->last_lsn);
	store_u64le(out + 40, h->prev_checksum);
	store_u64le(out + 48, h->last_checksum);
	store_u64le(out + 56, h->bytes);
	store_u64le(out + 64, h->last_term);
	store_u64le(out + 72, XXH3_64bits(out, 72));
}

enum db_err archive_header_decode(struct archive_header *h, const uint8_t bytes[ARCHIVE_HEADER_SIZE], struct errmsg *em)
{
	if (load_u32le(bytes) != MAGIC)
		return errmsg_set(em, DB_CORRUPT, "it is no archive file");
	if (load_u16le(bytes + 4) > ARCHIVE_VERSION)
		return errmsg_newer(em, "it", load_u16le(bytes + 4), ARCHIVE_VERSION);
	if (load_u16le(bytes + 4) != ARCHIVE_VERSION || load_u64le(bytes + 72) != XXH3_64bits(bytes, 72) ||
	    load_u16le(bytes + 6) != 0)
		return errmsg_set(em, DB_CORRUPT, "its header is damaged");
	memcpy(h->cluster_id, bytes + 8, 16);
	h->first_lsn = load_u64le(bytes + 24);
	h->last_lsn = load_u64le(bytes + 32);
	h->prev_checksum = load_u64le(bytes + 40);
	h->last_checksum = load_u64le(bytes + 48);
	h->bytes = load_u64le(bytes + 56);
	h->last_term = load_u64le(bytes + 64);
	if (h->first_lsn == 0 || h->last_lsn < h->first_lsn)
		return errmsg_set(em, DB_CORRUPT, "its header makes no sense");
	return DB_OK;
}

void archive_name(uint64_t first_lsn, uint64_t last_lsn, char out[ARCHIVE_NAME_MAX])
{
	snprintf(out, ARCHIVE_NAME_MAX, "%020" PRIu64 "-%020" PRIu64 SUFFIX, first_lsn, last_lsn);
}

bool archive_name_parse(const char *name, uint64_t *first_lsn, uint64_t *last_lsn)
{
	size_t i;

	if (strlen(name) != 2 * LSN_DIGITS + 1 + sizeof(SUFFIX) - 1 || name[LSN_DIGITS] != '-' ||
	    strcmp(name + 2 * LSN_DIGITS + 1, SUFFIX) != 0)
		return false;
	for (i = 0; i < 2 * LSN_DIGITS + 1; i++)
		if (i != LSN_DIGITS && !isdigit((unsigned char)name[i]))
			return false;
	errno = 0;
	*first_lsn = strtoull(name, NULL, 10);
	*last_lsn = strtoull(name + LSN_DIGITS + 1, NULL, 10);
	return errno == 0 && *first_lsn > 0 && *first_lsn <= *last_lsn;
}

char *archive_path(const char *dir, const uint8_t cluster_id[16])
{
	char id[33], *path;
	unsigned i;

	for (i = 0; i < 16; i++)
		snprintf(id + 2 * i, 3, "%02x", cluster_id[i]);
	return asprintf(&path, "%s/%s", dir, id) < 0 ? NULL : path;
}

/* ---- lists */

static int by_lsn(const void *a, const void *b)
{
	const struct archive_entry *x = a, *y = b;

	if (x->first_lsn != y->first_lsn)
		return x->first_lsn < y->first_lsn ? -1 : 1;
	return x->last_lsn < y->last_lsn ? -1 : x->last_lsn > y->last_lsn;
}

static enum db_err add_entry(struct archive_list *list, size_t *cap, const char *name, struct errmsg *em)
{
	struct archive_entry entry, *entries;

	if (!archive_name_parse(name, &entry.first_lsn, &entry.last_lsn))
		return DB_OK; /* not ours */
	if (list->count == *cap) {
		*cap = *cap == 0 ? 64 : *cap * 2;
		entries = realloc(list->entries, *cap * sizeof(*entries));
		if (entries == NULL)
			return errmsg_set(em, DB_NOMEM, "no memory to list the archive");
		list->entries = entries;
	}
	list->entries[list->count++] = entry;
	return DB_OK;
}

enum db_err archive_list_read(struct archive_list *list, const char *path, struct errmsg *em)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	enum db_err err = DB_OK;
	size_t cap = 0;

	memset(list, 0, sizeof(*list));
	if (dir == NULL)
		return errmsg_errno(em, errno, "cannot read the archive \"%s\"", path);
	for (errno = 0; err == DB_OK && (entry = readdir(dir)) != NULL; errno = 0)
		err = add_entry(list, &cap, entry->d_name, em);
	if (err == DB_OK && errno != 0)
		err = errmsg_errno(em, errno, "cannot read the archive \"%s\"", path);
	closedir(dir);
	if (err != DB_OK)
		archive_list_fini(list);
	else if (list->count > 0)
		qsort(list->entries, list->count, sizeof(*list->entries), by_lsn);
	return err;
}

void archive_list_fini(struct archive_list *list)
{
	free(list->entries);
	list->entries = NULL;
	list->count = 0;
}

const struct archive_entry *archive_list_find(const struct archive_list *list, uint64_t lsn)
{
	const struct archive_entry *best = NULL;
	size_t i;

	for (i = 0; i < list->count && list->entries[i].first_lsn <= lsn; i++)
		if (list->entries[i].last_lsn >= lsn && (best == NULL || list->entries[i].last_lsn > best->last_lsn))
			best = &list->entries[i];
	return best;
}

const struct archive_entry *archive_list_after(const struct archive_list *list, uint64_t lsn)
{
	size_t i;

	for (i = 0; i < list->count; i++)
		if (list->entries[i].first_lsn > lsn)
			return &list->entries[i];
	return NULL;
}

/* ---- files */

static enum db_err open_entry(int *fd, char name[ARCHIVE_NAME_MAX], const char *path, const struct archive_entry *entry,
			      struct errmsg *em)
{
	char *file;

	archive_name(entry->first_lsn, entry->last_lsn, name);
	if (asprintf(&file, "%s/%s", path, name) < 0)
		return errmsg_set(em, DB_NOMEM, "no memory to open \"%s\"", name);
	*fd = open(file, O_RDONLY | O_CLOEXEC);
	free(file);
	return *fd >= 0 ? DB_OK : errmsg_errno(em, errno, "cannot open the archive file \"%s\"", name);
}

static enum db_err read_header(struct archive_header *h, int fd, const struct archive_entry *entry, struct errmsg *em)
{
	uint8_t bytes[ARCHIVE_HEADER_SIZE];
	ssize_t n = pread(fd, bytes, sizeof(bytes), 0);
	enum db_err err;

	if (n < 0)
		return errmsg_errno(em, errno, "cannot be read");
	if (n != (ssize_t)sizeof(bytes))
		return errmsg_set(em, DB_CORRUPT, "it is cut short");
	err = archive_header_decode(h, bytes, em);
	if (err == DB_OK && (h->first_lsn != entry->first_lsn || h->last_lsn != entry->last_lsn))
		err = errmsg_set(em, DB_CORRUPT,
				 "it holds the records %" PRIu64 " to %" PRIu64 ", its name says otherwise",
				 h->first_lsn, h->last_lsn);
	return err;
}

enum db_err archive_read_header(struct archive_header *h, const char *path, const struct archive_entry *entry,
				struct errmsg *em)
{
	char name[ARCHIVE_NAME_MAX];
	enum db_err err;
	int fd;

	err = open_entry(&fd, name, path, entry, em);
	if (err != DB_OK)
		return err;
	err = read_header(h, fd, entry, em);
	close(fd);
	return err == DB_OK ? DB_OK
			    : errmsg_context(em, "archive file \"%s\" (LSN %" PRIu64 " to %" PRIu64 ")", name,
					     entry->first_lsn, entry->last_lsn);
}

static enum db_err map_file(struct archive_file *f, int fd, struct errmsg *em)
{
	struct stat st;
	void *map;

	if (fstat(fd, &st) != 0)
		return errmsg_errno(em, errno, "cannot be read");
	if (f->header.bytes > (uint64_t)st.st_size || (uint64_t)st.st_size != ARCHIVE_HEADER_SIZE + f->header.bytes)
		return errmsg_set(em, DB_CORRUPT, "it has %lld bytes, its header says %" PRIu64, (long long)st.st_size,
				  ARCHIVE_HEADER_SIZE + f->header.bytes);
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		return errmsg_errno(em, errno, "cannot be mapped");
	madvise(map, (size_t)st.st_size, MADV_SEQUENTIAL);
	f->mapped = (size_t)st.st_size;
	f->bytes = (const uint8_t *)map + ARCHIVE_HEADER_SIZE;
	return DB_OK;
}

enum db_err archive_file_open(struct archive_file *f, const char *path, const struct archive_entry *entry,
			      const uint8_t cluster_id[16], struct errmsg *em)
{
	enum db_err err;
	int fd;

	memset(f, 0, sizeof(*f));
	err = open_entry(&fd, f->name, path, entry, em);
	if (err != DB_OK)
		return err;
	err = read_header(&f->header, fd, entry, em);
	if (err == DB_OK && memcmp(f->header.cluster_id, cluster_id, 16) != 0)
		err = errmsg_set(em, DB_INVALID, "it belongs to another cluster");
	if (err == DB_OK)
		err = map_file(f, fd, em);
	close(fd);
	f->next_lsn = f->header.first_lsn;
	f->next_prev = f->header.prev_checksum;
	return err == DB_OK ? DB_OK
			    : errmsg_context(em, "archive file \"%s\" (LSN %" PRIu64 " to %" PRIu64 ")", f->name,
					     entry->first_lsn, entry->last_lsn);
}

void archive_file_close(struct archive_file *f)
{
	if (f->bytes != NULL)
		munmap((void *)(uintptr_t)(f->bytes - ARCHIVE_HEADER_SIZE), f->mapped);
	f->bytes = NULL;
}

enum db_err archive_file_next(struct archive_file *f, struct wal_record *out, struct errmsg *em)
{
	struct errmsg why = {0};
	enum db_err err;

	if (f->next_lsn > f->header.last_lsn) {
		if (f->offset == f->header.bytes && f->next_prev == f->header.last_checksum)
			return DB_NOTFOUND;
		return errmsg_set(em, DB_CORRUPT, "archive file \"%s\" is damaged behind LSN %" PRIu64, f->name,
				  f->header.last_lsn);
	}
	err = wal_record_decode(out, f->bytes + f->offset, f->header.bytes - f->offset, &why);
	if (err == DB_OK && (out->lsn != f->next_lsn || out->prev_checksum != f->next_prev))
		err = errmsg_set(&why, DB_CORRUPT, "record %" PRIu64 " does not continue the one before", out->lsn);
	if (err != DB_OK)
		return errmsg_set(em, DB_CORRUPT, "archive file \"%s\" is damaged at LSN %" PRIu64 ": %s", f->name,
				  f->next_lsn, why.text);
	f->offset += WAL_RECORD_HEADER_SIZE + (size_t)out->payload_len;
	f->next_lsn++;
	f->next_prev = out->checksum;
	return DB_OK;
}

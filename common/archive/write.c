/* write.c - see archive.h: new files, and files that leave the archive. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/archive/archive.h"
#include "common/base/buf.h"
#include "common/store/dirs.h"

static enum db_err write_all(int fd, const uint8_t *bytes, size_t len, const char *name, struct errmsg *em)
{
	ssize_t n;

	while (len > 0) {
		n = write(fd, bytes, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errmsg_errno(em, errno, "cannot write \"%s\"", name);
		bytes += n;
		len -= (size_t)n;
	}
	return DB_OK;
}

/* One record of the log, verified first: what is archived is what will be relied on. */
static enum db_err check_record(struct archive_header *h, const uint8_t *bytes, size_t len, struct errmsg *em)
{
	struct wal_record r;
	enum db_err err = wal_record_decode(&r, bytes, len, em);

	if (err != DB_OK)
		return errmsg_set(em, DB_CORRUPT, "record %" PRIu64 " of the log is damaged", h->last_lsn + 1);
	if (h->first_lsn == 0) {
		h->first_lsn = r.lsn;
		h->prev_checksum = r.prev_checksum;
	} else if (r.prev_checksum != h->last_checksum) {
		return errmsg_set(em, DB_CORRUPT, "record %" PRIu64 " of the log does not continue the one before",
				  r.lsn);
	}
	h->last_lsn = r.lsn;
	h->last_term = r.term;
	h->last_checksum = r.checksum;
	h->bytes += len;
	return DB_OK;
}

/* copy is where the record lies while it is written and the cursor holds nothing. */
static enum db_err write_next(int fd, struct archive_header *h, struct wal_cursor *cursor, struct buf *copy,
			      const char *name, struct errmsg *em)
{
	struct wal_record r;
	const uint8_t *bytes;
	enum db_err err;
	size_t len;

	err = wal_cursor_next(cursor, &r, em);
	if (err != DB_OK)
		return err;
	bytes = wal_record_bytes(&r, &len);
	if (len > ARCHIVE_COPY_MAX) {
		err = check_record(h, bytes, len, em);
		return err == DB_OK ? write_all(fd, bytes, len, name, em) : err;
	}
	buf_clear(copy);
	buf_put(copy, bytes, len);
	if (copy->failed)
		return errmsg_set(em, DB_NOMEM, "no memory to archive a record of %zu bytes", len);
	err = wal_cursor_seek(cursor, UINT64_MAX, em);
	if (err == DB_OK)
		err = check_record(h, copy->data, len, em);
	if (err == DB_OK)
		err = write_all(fd, copy->data, len, name, em);
	return err == DB_OK ? wal_cursor_seek(cursor, h->last_lsn + 1, em) : err;
}

static enum db_err write_records(int fd, struct archive_header *h, struct wal_cursor *cursor, uint64_t last_lsn,
				 uint64_t bytes_max, const char *name, struct errmsg *em)
{
	uint8_t header[ARCHIVE_HEADER_SIZE] = {0};
	struct buf copy = {0};
	enum db_err err = write_all(fd, header, sizeof(header), name, em);

	while (err == DB_OK && h->last_lsn < last_lsn && h->bytes < bytes_max)
		err = write_next(fd, h, cursor, &copy, name, em);
	buf_fini(&copy);
	if (err != DB_OK)
		return err;
	archive_header_encode(h, header);
	if (pwrite(fd, header, sizeof(header), 0) != (ssize_t)sizeof(header))
		return errmsg_errno(em, errno, "cannot write \"%s\"", name);
	return fsync(fd) == 0 ? DB_OK : errmsg_errno(em, errno, "cannot sync \"%s\"", name);
}

enum db_err archive_write(const char *path, const char *writer, const uint8_t cluster_id[16], struct wal_cursor *cursor,
			  uint64_t last_lsn, uint64_t bytes_max, struct archive_entry *entry, struct errmsg *em)
{
	struct archive_header h = {.first_lsn = 0};
	char name[ARCHIVE_NAME_MAX], *partial = NULL, *whole = NULL;
	enum db_err err;
	int fd;

	memcpy(h.cluster_id, cluster_id, sizeof(h.cluster_id));
	if (asprintf(&partial, "%s/%s.partial", path, writer) < 0)
		return errmsg_set(em, DB_NOMEM, "no memory to archive");
	fd = open(partial, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) {
		err = errmsg_errno(em, errno, "cannot create \"%s\"", partial);
		goto free_partial;
	}
	err = write_records(fd, &h, cursor, last_lsn, bytes_max, partial, em);
	close(fd);
	archive_name(h.first_lsn, h.last_lsn, name);
	if (err == DB_OK && asprintf(&whole, "%s/%s", path, name) < 0) {
		whole = NULL;
		err = errmsg_set(em, DB_NOMEM, "no memory to archive");
	}
	if (err == DB_OK && rename(partial, whole) != 0)
		err = errmsg_errno(em, errno, "cannot rename \"%s\"", partial);
	if (err == DB_OK)
		err = dirs_sync(path, em);
	else
		unlink(partial);
	*entry = (struct archive_entry){.first_lsn = h.first_lsn, .last_lsn = h.last_lsn};
	free(whole);
free_partial:
	free(partial);
	return err;
}

enum db_err archive_supersede(const char *path, const struct archive_entry *entry, struct errmsg *em)
{
	char name[ARCHIVE_NAME_MAX], *from = NULL, *to = NULL;
	enum db_err err = DB_OK;

	archive_name(entry->first_lsn, entry->last_lsn, name);
	if (asprintf(&from, "%s/%s", path, name) < 0)
		return errmsg_set(em, DB_NOMEM, "no memory to rename \"%s\"", name);
	if (asprintf(&to, "%s.superseded", from) < 0) {
		free(from);
		return errmsg_set(em, DB_NOMEM, "no memory to rename \"%s\"", name);
	}
	if (rename(from, to) != 0 && errno != ENOENT)
		err = errmsg_errno(em, errno, "cannot rename \"%s\"", from);
	if (err == DB_OK)
		err = dirs_sync(path, em);
	free(from);
	free(to);
	return err;
}

/*
 * backup_file.h - a backup on disk: an ordinary SQLite file, and beside it FILE.json, which says what it holds.
 *
 * FILE is written as FILE.partial, checked (length and database checksum), synced, and renamed, after FILE.json was: where
 * FILE is whole its FILE.json is there. FILE.json names the database checksum, so one that belongs to another FILE is
 * noticed. FILE itself holds nothing but the database.
 *
 * FILE.json: {"format": 1, "cluster": 32 hex digits, "node", "lsn", "term", "time": RFC 3339, "time_us", "record_checksum",
 * "db_checksum": 16 hex digits each, "size_bytes"}.
 *
 * Used by the backup and restore commands; one thread.
 */
#ifndef GRIZZLY_SUPERVISOR_BACKUP_FILE_H
#define GRIZZLY_SUPERVISOR_BACKUP_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/wal/record.h"

#define BACKUP_FORMAT   1 /* of FILE.json; bump when a field changes meaning */
#define BACKUP_NODE_MAX 16

struct backup_info {
	uint8_t cluster_id[16];
	char node[BACKUP_NODE_MAX];
	struct wal_pos pos; /* the last record that is in it */
	uint64_t time_us;   /* wall clock in that record; 0: not known */
	uint64_t record_checksum;
	uint64_t db_checksum;
	uint64_t size_bytes;
};

/* Reads path.json. DB_NOTFOUND: there is none. DB_INVALID, DB_CORRUPT: it is not one, or of a later format. */
enum db_err backup_info_load(struct backup_info *info, const char *path, struct errmsg *em);

struct backup_writer;

/* DB_EXISTS: path is there and force is not given. DB_BUSY: another process writes it. */
enum db_err backup_writer_create(struct backup_writer **out, const char *path, bool force, struct errmsg *em);
/* The next bytes of the database. DB_FULL, DB_IO: the message says what for; the writer is of no use afterwards. */
enum db_err backup_writer_put(struct backup_writer *w, const void *bytes, size_t len, struct errmsg *em);
uint64_t backup_writer_size(const struct backup_writer *w); /* bytes so far */
/* Back to the beginning: another source is asked for the whole. */
enum db_err backup_writer_restart(struct backup_writer *w, struct errmsg *em);
/* Checks what was written against info and puts it in place, durably. DB_CORRUPT: it is not what info says. */
enum db_err backup_writer_finish(struct backup_writer *w, const struct backup_info *info, struct errmsg *em);
void backup_writer_free(struct backup_writer *w); /* NULL is fine; what is unfinished is removed */

#endif

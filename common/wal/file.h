/*
 * file.h - the file operations of the log, each with the seam where a test makes it fail.
 *
 * All names are relative to the log's directory, held by descriptor: a directory that is renamed takes its log along.
 * Nothing else in this room calls the kernel to change a file. Any thread; no state of its own.
 */
#ifndef GRIZZLY_COMMON_WAL_FILE_H
#define GRIZZLY_COMMON_WAL_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/base/err.h"
#include "common/base/pulse.h"
#include "common/wal/wal.h"

struct wal_dir {
	int fd;
	struct wal_faults faults; /* a copy; .before is NULL outside of tests */
	struct disk_pulse *pulse; /* told of whatever waits for the disk; NULL: nobody watches */
};

/* DB_NOTFOUND: there is no such directory. On error d->fd is -1. */
enum db_err wal_dir_open(struct wal_dir *d, const char *path, const struct wal_faults *faults, struct errmsg *em);
void wal_dir_close(struct wal_dir *d);

/* Creates a file that must not exist, for reading and writing. */
enum db_err wal_file_create(const struct wal_dir *d, const char *name, int *fd, struct errmsg *em);
/* Writes all of the pieces at offset; name is for the message. Any number of pieces. */
enum db_err wal_file_writev(const struct wal_dir *d, int fd, const char *name, uint64_t offset,
			    const struct iovec *pieces, size_t piece_count, struct errmsg *em);
enum db_err wal_file_write(const struct wal_dir *d, int fd, const char *name, uint64_t offset, const void *bytes,
			   size_t len, struct errmsg *em);
enum db_err wal_file_zero(const struct wal_dir *d, int fd, const char *name, uint64_t offset, uint64_t len,
			  struct errmsg *em);
/* fdatasync(): the content, and the size when it changed. */
enum db_err wal_file_sync(const struct wal_dir *d, int fd, const char *name, struct errmsg *em);
enum db_err wal_file_rename(const struct wal_dir *d, const char *from, const char *to, struct errmsg *em);
/* A file that is gone already is fine. */
enum db_err wal_file_unlink(const struct wal_dir *d, const char *name, struct errmsg *em);
/* Makes created, renamed and unlinked names durable. */
enum db_err wal_dir_sync(const struct wal_dir *d, struct errmsg *em);

#endif

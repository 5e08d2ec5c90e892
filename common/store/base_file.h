/*
 * base_file.h - main.db: every page as of the checkpoint, an ordinary SQLite file, read through one mapping.
 *
 * The mapping reaches far beyond the end of the file, so that the file can grow under it; when it outgrows even that, a
 * larger one is made and the old one stays until close, for readers hold pointers into it. A page is only written while
 * nobody can reach it (store/checkpoint.c says why). The file is locked against a second process (flock).
 *
 * Threads: page: any; everything else: the checkpointer, or open and close.
 */
#ifndef GRIZZLY_COMMON_STORE_BASE_FILE_H
#define GRIZZLY_COMMON_STORE_BASE_FILE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

struct base_map;

struct base_file {
	int fd;                       /* -1: closed */
	char *path;                   /* owned, for messages */
	struct base_map *_Atomic map; /* the newest mapping */
	_Atomic uint32_t size_pages;  /* pages that may be read */
};

struct base_write {
	uint32_t pgno;
	const uint8_t *data;
};

/* Opens or creates path. DB_BUSY: another process (or store) has it open. On error nothing is held. */
enum db_err base_file_open(struct base_file *b, const char *path, struct errmsg *em);
void base_file_close(struct base_file *b); /* fine on a closed one */

/* Checks that an existing file is what the checkpoint says: at least size_pages long and a SQLite database of our page
 * size. DB_INVALID: another page size or in WAL mode; DB_CORRUPT: anything else. */
enum db_err base_file_check(struct base_file *b, uint32_t size_pages, struct errmsg *em);

/* Makes the first size_pages of a file that is long enough readable, without changing it. */
enum db_err base_file_attach(struct base_file *b, uint32_t size_pages, struct errmsg *em);
/* Makes the first size_pages readable, growing or cutting the file to them, and mapping more when that is needed. */
enum db_err base_file_resize(struct base_file *b, uint32_t size_pages, struct errmsg *em);

/* The page, zeros beyond the end of the file. Borrowed until base_file_close(); its content is stable while the caller's
 * pin lasts. */
const uint8_t *base_file_page(struct base_file *b, uint32_t pgno);

/* Writes count pages given in ascending order; neighbours go in one system call. Not durable before base_file_sync(). */
enum db_err base_file_write(struct base_file *b, const struct base_write *pages, size_t count, struct errmsg *em);
enum db_err base_file_sync(struct base_file *b, struct errmsg *em);
/* Has the disk begin to write count pages from first_pgno, or waits until it has written what it had begun of them. Neither
 * makes anything durable (no metadata, no flush of the disk's cache): it leaves less to base_file_sync(). DB_IO, DB_FULL. */
enum db_err base_file_write_begin(struct base_file *b, uint32_t first_pgno, uint32_t count, struct errmsg *em);
enum db_err base_file_write_wait(struct base_file *b, uint32_t first_pgno, uint32_t count, struct errmsg *em);

#endif

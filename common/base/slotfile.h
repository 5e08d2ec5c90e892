/*
 * slotfile.h - a small blob that survives a crash at any instant, rewritten in place with one fdatasync.
 *
 * The file holds two slots of SLOTFILE_SLOT_SIZE bytes; writes alternate, each with a growing sequence number and an
 * XXH3 checksum, so a torn write leaves the other slot. Much cheaper than write-rename-fsync, which is why terms and
 * checkpoint positions live in one. Not thread-safe. The idea is the pair of meta pages of LMDB.
 */
#ifndef GRIZZLY_COMMON_BASE_SLOTFILE_H
#define GRIZZLY_COMMON_BASE_SLOTFILE_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define SLOTFILE_SLOT_SIZE 4096u
#define SLOTFILE_DATA_MAX  (SLOTFILE_SLOT_SIZE - 24u)

struct slotfile {
	int fd; /* -1: closed */
	uint64_t sequence;
	char path[256]; /* for messages, cut when longer */
};

/* Opens path, creating an empty file (mode 0600, directory synced) when there is none. Copies the newest intact blob to
 * data and its length to *len; *len is 0 when nothing was ever written. DB_CORRUPT: both slots were written and neither
 * is intact, or the blob is longer than size. DB_INVALID: a newer format. What is read is durable when this returns, whatever became of the sync of
 * whoever wrote it. */
enum db_err slotfile_open(struct slotfile *f, const char *path, void *data, size_t size, size_t *len,
			  struct errmsg *em);
/* Durable when it returns DB_OK; on an error the blob written before still stands. len <= SLOTFILE_DATA_MAX. */
enum db_err slotfile_write(struct slotfile *f, const void *data, size_t len, struct errmsg *em);
void slotfile_close(struct slotfile *f);

#endif

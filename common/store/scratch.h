/*
 * scratch.h - a temporary file that stays in memory while it is small.
 *
 * What SQLite would put beside the database or into /tmp: rollback and statement journals, temporary tables, sorts. None of
 * it outlives the process, so nothing is ever synced. Up to SCRATCH_MEMORY_MAX bytes are held in memory; beyond that the
 * content moves to an unlinked file, and the memory becomes the window through which the file's end is written.
 * Used by one thread at a time: that of the SQLite connection it belongs to.
 */
#ifndef GRIZZLY_COMMON_STORE_SCRATCH_H
#define GRIZZLY_COMMON_STORE_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define SCRATCH_MEMORY_MAX ((size_t)1 << 20)

struct scratch {
	const char *dir; /* borrowed: where the file goes */
	int fd;          /* -1: all of it is in memory */
	uint8_t *memory; /* bytes window_start..size of the content; window_start is 0 while fd is -1 */
	size_t memory_cap;
	uint64_t window_start;
	uint64_t size; /* bytes */
};

void scratch_init(struct scratch *s, const char *dir);
void scratch_fini(struct scratch *s);

/* Copies what there is of [at, at + len) and returns how much in *got; the rest of out is zeroed. DB_IO. */
enum db_err scratch_read(struct scratch *s, void *out, size_t len, uint64_t at, size_t *got, struct errmsg *em);
/* Grows the file as needed; a gap reads as zeros. DB_FULL, DB_IO, DB_NOMEM. */
enum db_err scratch_write(struct scratch *s, const void *bytes, size_t len, uint64_t at, struct errmsg *em);
/* Cuts to size (<= the current one, else nothing happens). To 0: back in memory; cannot fail. */
enum db_err scratch_truncate(struct scratch *s, uint64_t size, struct errmsg *em);

/* An open unlinked file in dir. */
enum db_err scratch_open_unlinked(const char *dir, int *fd, struct errmsg *em);

#endif

/*
 * spill.h - bytes put together in an unlinked file, so that a large thing costs disk and not memory.
 *
 * The file is mapped shared: its pages are the kernel's to write back and drop. It vanishes with the process, whatever
 * happens. Not thread-safe.
 */
#ifndef GRIZZLY_COMMON_BASE_SPILL_H
#define GRIZZLY_COMMON_BASE_SPILL_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

struct spill {
	uint8_t *data; /* size bytes, readable and writable; NULL: closed */
	size_t size;
};

/* Allocates size bytes of disk below dir. DB_FULL when they are not to be had, DB_IO, DB_NOMEM. */
enum db_err spill_open(struct spill *s, const char *dir, size_t size, struct errmsg *em);
void spill_close(struct spill *s); /* closed already is fine */

#endif

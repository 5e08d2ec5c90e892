/*
 * checksum.h - the database checksum: XOR over all pages of a hash of (page number, page bytes).
 *
 * XOR makes it incremental: a record that replaces a page takes the old page's hash out and puts the new one's in. A page
 * of zeros counts as 0, so the lock-byte page (which SQLite never writes) and a page not yet written count for nothing.
 * Pure; any thread.
 */
#ifndef GRIZZLY_COMMON_STORE_CHECKSUM_H
#define GRIZZLY_COMMON_STORE_CHECKSUM_H

#include <stdint.h>

#include "common/wal/record.h"

/* SQLite keeps the page that holds byte 2^30 free for file locks: it is never written and never read. */
#define LOCK_BYTE_PGNO ((uint32_t)(((uint64_t)1 << 30) / WAL_PAGE_SIZE) + 1)

/* page: WAL_PAGE_SIZE bytes. XXH3_64 seeded with the page number; 0 for a page of zeros. */
uint64_t checksum_page(uint32_t pgno, const uint8_t *page);

/* A page of zeros that lives as long as the process. */
const uint8_t *checksum_zero_page(void);

#endif

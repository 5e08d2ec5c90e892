/*
 * record.h - the write-ahead-log record: what is sealed at commit, synced, streamed, replayed.
 *
 * A record is canonical: its bytes are the same on the master, on the wire and on every replica. Layout, little-endian:
 *
 *   off size field
 *     0    4 magic "GzR1"
 *     4    2 format version (WAL_FORMAT_VERSION)
 *     6    2 type (enum wal_type)
 *     8    8 lsn               dense: 1, 2, 3, ...
 *    16    8 term              term in which the record was written
 *    24    8 time_us           wall clock of the master, microseconds since 1970
 *    32    4 db_size_pages     size of the database after this record
 *    36    4 page_count        pages in this record
 *    40    8 payload_len       bytes that follow the header; a multiple of 8
 *    48    8 db_checksum       checksum of the whole database after this record (common/store/checksum.h)
 *    56    8 prev_checksum     checksum of the record before: the chain
 *    64    8 checksum          XXH3_64 over bytes 0..63 and the payload
 *    72    8 reserved, zero
 *    80      payload: page_count u32 page numbers ascending, zero padding to 8, page_count images of WAL_PAGE_SIZE
 *
 * Because prev_checksum lies inside what checksum covers, equal checksums at one LSN mean equal history up to it.
 * Pure: no I/O, no clock, no allocation. The idea of (position, checksum) pairs is LTX's.
 */
#ifndef GRIZZLY_COMMON_WAL_RECORD_H
#define GRIZZLY_COMMON_WAL_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define WAL_PAGE_SIZE          4096u
#define WAL_RECORD_HEADER_SIZE 80u
#define WAL_RECORD_MAGIC       0x31527a47u         /* "GzR1" read little-endian */
#define WAL_FORMAT_VERSION     1u                  /* bump with SEGMENT_VERSION, by which it is refused */
#define WAL_LSN_MAX            ((uint64_t)1 << 62) /* no honest log gets there; so that lsn + 1 never wraps around */
#define WAL_TERM_MAX           ((uint64_t)1 << 62) /* likewise */
#define WAL_RECORD_BYTES_MAX   ((uint64_t)8 << 30) /* refuses absurd lengths before anything is allocated or read */

enum wal_type {
	WAL_PAGES = 1,      /* one committed transaction (a batch of requests) */
	WAL_TERM_START = 2, /* first record of a term: no pages, database unchanged */
};

/* A position travels whole: LSNs of different terms must not be compared alone. */
struct wal_pos {
	uint64_t term;
	uint64_t lsn;
};

/* <0, 0, >0: by term, then by LSN. */
int wal_pos_cmp(struct wal_pos a, struct wal_pos b);

/* A decoded header plus borrowed pointers to the payload. */
struct wal_record {
	enum wal_type type;
	uint64_t lsn;
	uint64_t term;
	uint64_t time_us;
	uint32_t db_size_pages;
	uint32_t page_count;
	uint64_t payload_len; /* bytes */
	uint64_t db_checksum;
	uint64_t prev_checksum;
	uint64_t checksum;
	const uint8_t *payload; /* payload_len bytes, or NULL after wal_record_decode_header() */
};

/* Bytes of a whole record with page_count pages. */
uint64_t wal_record_size(uint32_t page_count);
uint64_t wal_payload_size(uint32_t page_count);

/* Decodes and checks magic, version, type and the consistency of lengths, not the checksum. header: 80 bytes.
 * DB_CORRUPT with a reason otherwise; r->payload is NULL. */
enum db_err wal_record_decode_header(struct wal_record *r, const uint8_t *header, struct errmsg *em);

/* Decodes a whole record of exactly or at least its own size at bytes and verifies its checksum, that page numbers
 * ascend, are >= 1 and <= db_size_pages. On DB_OK r->payload points into bytes. DB_GAP: len is shorter than the record.
 * DB_CORRUPT: anything else wrong. */
enum db_err wal_record_decode(struct wal_record *r, const uint8_t *bytes, size_t len, struct errmsg *em);

/* Encodes the header of r (r->checksum included, as is) into 80 bytes. */
void wal_record_encode_header(const struct wal_record *r, uint8_t header[WAL_RECORD_HEADER_SIZE]);

/* Incremental checksum, for payloads that lie in pieces: begin with the record's header fields (checksum is ignored),
 * add the payload's pieces in order, end. The state is XXH3_state_t, heap allocated by XXH3_createState(). */
struct wal_hash;
struct wal_hash *wal_hash_create(void); /* NULL: out of memory */
void wal_hash_free(struct wal_hash *h); /* NULL is fine */
void wal_hash_begin(struct wal_hash *h, const struct wal_record *r);
void wal_hash_add(struct wal_hash *h, const void *bytes, size_t len);
uint64_t wal_hash_end(struct wal_hash *h);

/* The i-th page number and image of a decoded record; i < r->page_count. */
uint32_t wal_record_pgno(const struct wal_record *r, uint32_t i);
const uint8_t *wal_record_page(const struct wal_record *r, uint32_t i);

#endif

/*
 * record.c - see record.h.
 *
 * Pure functions, any thread. Decoding is strict: whatever the encoder would not have written (padding that is not
 * zero, pages out of order, a reserved field in use) is refused, so that equal records are always equal bytes.
 */
#define XXH_STATIC_LINKING_ONLY /* a hash state on the stack: decoding must not allocate */
#include "common/wal/record.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <xxhash.h>

#include "common/base/buf.h"

#define HASHED_HEADER_SIZE 64u /* the header up to its own checksum */

int wal_pos_cmp(struct wal_pos a, struct wal_pos b)
{
	if (a.term != b.term)
		return a.term < b.term ? -1 : 1;
	if (a.lsn != b.lsn)
		return a.lsn < b.lsn ? -1 : 1;
	return 0;
}

/* Where the images begin: after the page numbers and their padding. */
static uint64_t page_numbers_size(uint32_t page_count)
{
	return ((uint64_t)page_count * 4 + 7) & ~(uint64_t)7;
}

uint64_t wal_payload_size(uint32_t page_count)
{
	return page_numbers_size(page_count) + (uint64_t)page_count * WAL_PAGE_SIZE;
}

uint64_t wal_record_size(uint32_t page_count)
{
	return WAL_RECORD_HEADER_SIZE + wal_payload_size(page_count);
}

void wal_record_encode_header(const struct wal_record *r, uint8_t header[WAL_RECORD_HEADER_SIZE])
{
	store_u32le(header, WAL_RECORD_MAGIC);
	store_u16le(header + 4, WAL_FORMAT_VERSION);
	store_u16le(header + 6, (uint16_t)r->type);
	store_u64le(header + 8, r->lsn);
	store_u64le(header + 16, r->term);
	store_u64le(header + 24, r->time_us);
	store_u32le(header + 32, r->db_size_pages);
	store_u32le(header + 36, r->page_count);
	store_u64le(header + 40, r->payload_len);
	store_u64le(header + 48, r->db_checksum);
	store_u64le(header + 56, r->prev_checksum);
	store_u64le(header + 64, r->checksum);
	store_u64le(header + 72, 0);
}

static enum db_err check_lengths(const struct wal_record *r, struct errmsg *em)
{
	if (r->payload_len != wal_payload_size(r->page_count))
		return errmsg_set(em, DB_CORRUPT,
				  "record %" PRIu64 ": payload of %" PRIu64 " bytes does not fit %" PRIu32 " pages",
				  r->lsn, r->payload_len, r->page_count);
	if (wal_record_size(r->page_count) > WAL_RECORD_BYTES_MAX)
		return errmsg_set(em, DB_CORRUPT, "record %" PRIu64 ": %" PRIu32 " pages are too many", r->lsn,
				  r->page_count);
	if (r->page_count > r->db_size_pages)
		return errmsg_set(em, DB_CORRUPT,
				  "record %" PRIu64 ": %" PRIu32 " pages for a database of %" PRIu32 " pages", r->lsn,
				  r->page_count, r->db_size_pages);
	if (r->type == WAL_TERM_START && r->page_count != 0)
		return errmsg_set(em, DB_CORRUPT, "record %" PRIu64 ": the start of a term must not hold pages",
				  r->lsn);
	return DB_OK;
}

enum db_err wal_record_decode_header(struct wal_record *r, const uint8_t *header, struct errmsg *em)
{
	uint16_t version = load_u16le(header + 4), type = load_u16le(header + 6);

	memset(r, 0, sizeof(*r));
	if (load_u32le(header) != WAL_RECORD_MAGIC)
		return errmsg_set(em, DB_CORRUPT, "not a log record (magic %08" PRIx32 ")", load_u32le(header));
	if (version != WAL_FORMAT_VERSION)
		return errmsg_set(em, DB_CORRUPT, "log record of unknown format version %u", version);
	if (type != WAL_PAGES && type != WAL_TERM_START)
		return errmsg_set(em, DB_CORRUPT, "log record of unknown type %u", type);
	r->type = (enum wal_type)type;
	r->lsn = load_u64le(header + 8);
	r->term = load_u64le(header + 16);
	r->time_us = load_u64le(header + 24);
	r->db_size_pages = load_u32le(header + 32);
	r->page_count = load_u32le(header + 36);
	r->payload_len = load_u64le(header + 40);
	r->db_checksum = load_u64le(header + 48);
	r->prev_checksum = load_u64le(header + 56);
	r->checksum = load_u64le(header + 64);
	if (load_u64le(header + 72) != 0)
		return errmsg_set(em, DB_CORRUPT, "record %" PRIu64 ": its reserved field is not zero", r->lsn);
	if (r->lsn == 0)
		return errmsg_set(em, DB_CORRUPT, "log record with LSN 0");
	if (r->lsn > WAL_LSN_MAX || r->term > WAL_TERM_MAX)
		return errmsg_set(em, DB_CORRUPT, "log record at (%" PRIu64 ", %" PRIu64 "), which cannot be", r->term,
				  r->lsn);
	return check_lengths(r, em);
}

/* The page numbers of a payload: ascending, within the database, zero padding. */
static enum db_err check_page_numbers(const struct wal_record *r, struct errmsg *em)
{
	uint32_t previous = 0, pgno, i;

	for (i = 0; i < r->page_count; i++) {
		pgno = load_u32le(r->payload + (size_t)i * 4);
		if (pgno <= previous || pgno > r->db_size_pages)
			return errmsg_set(em, DB_CORRUPT,
					  "record %" PRIu64 ": page number %" PRIu32 " out of order or range", r->lsn,
					  pgno);
		previous = pgno;
	}
	if (r->page_count % 2 == 1 && load_u32le(r->payload + (size_t)r->page_count * 4) != 0)
		return errmsg_set(em, DB_CORRUPT, "record %" PRIu64 ": padding is not zero", r->lsn);
	return DB_OK;
}

enum db_err wal_record_decode(struct wal_record *r, const uint8_t *bytes, size_t len, struct errmsg *em)
{
	XXH3_state_t state;
	enum db_err err;

	memset(r, 0, sizeof(*r));
	if (len < WAL_RECORD_HEADER_SIZE)
		return errmsg_set(em, DB_GAP, "log record cut short: %zu bytes", len);
	err = wal_record_decode_header(r, bytes, em);
	if (err != DB_OK)
		return err;
	if (len - WAL_RECORD_HEADER_SIZE < r->payload_len)
		return errmsg_set(em, DB_GAP, "record %" PRIu64 " cut short: %zu bytes of %" PRIu64, r->lsn, len,
				  WAL_RECORD_HEADER_SIZE + r->payload_len);
	XXH3_64bits_reset(&state);
	XXH3_64bits_update(&state, bytes, HASHED_HEADER_SIZE);
	XXH3_64bits_update(&state, bytes + WAL_RECORD_HEADER_SIZE, (size_t)r->payload_len);
	if (XXH3_64bits_digest(&state) != r->checksum)
		return errmsg_set(em, DB_CORRUPT, "record %" PRIu64 ": checksum mismatch", r->lsn);
	r->payload = bytes + WAL_RECORD_HEADER_SIZE;
	err = check_page_numbers(r, em);
	if (err != DB_OK)
		r->payload = NULL;
	return err;
}

/* struct wal_hash is never defined: it is XXH3_state_t under a name that keeps xxhash.h out of our header. */
static XXH3_state_t *state_of(struct wal_hash *h)
{
	return (XXH3_state_t *)(void *)h;
}

struct wal_hash *wal_hash_create(void)
{
	return (struct wal_hash *)(void *)XXH3_createState();
}

void wal_hash_free(struct wal_hash *h)
{
	XXH3_freeState(state_of(h));
}

/* The updates below cannot fail: XXH3 reports an error only for a NULL state. */
void wal_hash_begin(struct wal_hash *h, const struct wal_record *r)
{
	uint8_t header[WAL_RECORD_HEADER_SIZE];

	wal_record_encode_header(r, header);
	XXH3_64bits_reset(state_of(h));
	XXH3_64bits_update(state_of(h), header, HASHED_HEADER_SIZE);
}

void wal_hash_add(struct wal_hash *h, const void *bytes, size_t len)
{
	if (len > 0)
		XXH3_64bits_update(state_of(h), bytes, len);
}

uint64_t wal_hash_end(struct wal_hash *h)
{
	return XXH3_64bits_digest(state_of(h));
}

uint32_t wal_record_pgno(const struct wal_record *r, uint32_t i)
{
	assert(i < r->page_count);
	return load_u32le(r->payload + (size_t)i * 4);
}

const uint8_t *wal_record_page(const struct wal_record *r, uint32_t i)
{
	assert(i < r->page_count);
	return r->payload + page_numbers_size(r->page_count) + (size_t)i * WAL_PAGE_SIZE;
}

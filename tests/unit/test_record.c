/* test_record.c - the canonical bytes of a record, and that nothing else is taken for one. */
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/wal/record.h"
#include "tests/unit/unit.h"

/* A sealed record with pages 2, 4, 6, ... filled with fill; the caller frees it. */
static uint8_t *make_record(uint64_t lsn, uint32_t pages, uint8_t fill, size_t *len)
{
	struct wal_record r = {.type = pages == 0 ? WAL_TERM_START : WAL_PAGES,
			       .lsn = lsn,
			       .term = 7,
			       .time_us = 0x0102030405060708u,
			       .db_size_pages = 100,
			       .page_count = pages,
			       .payload_len = wal_payload_size(pages),
			       .db_checksum = 0x1112131415161718u,
			       .prev_checksum = 0x2122232425262728u};
	struct wal_hash *h = wal_hash_create();
	uint8_t *bytes;
	uint32_t i;

	*len = (size_t)wal_record_size(pages);
	bytes = (uint8_t *)calloc(1, *len);
	CU_ASSERT_PTR_NOT_NULL_FATAL(h);
	CU_ASSERT_PTR_NOT_NULL_FATAL(bytes);
	for (i = 0; i < pages; i++)
		store_u32le(bytes + WAL_RECORD_HEADER_SIZE + i * 4, 2 * (i + 1));
	memset(bytes + *len - (size_t)pages * WAL_PAGE_SIZE, fill, (size_t)pages * WAL_PAGE_SIZE);
	wal_hash_begin(h, &r);
	wal_hash_add(h, bytes + WAL_RECORD_HEADER_SIZE, (size_t)r.payload_len / 3); /* pieces of any size */
	wal_hash_add(h, bytes + WAL_RECORD_HEADER_SIZE + (size_t)r.payload_len / 3,
		     (size_t)(r.payload_len - r.payload_len / 3));
	r.checksum = wal_hash_end(h);
	wal_hash_free(h);
	wal_record_encode_header(&r, bytes);
	return bytes;
}

/* Seals bytes again after a test bent them, so that only the bent field is wrong. */
static void reseal(uint8_t *bytes, size_t len)
{
	struct wal_hash *h = wal_hash_create();
	struct wal_record r = {.type = (enum wal_type)load_u16le(bytes + 6),
			       .lsn = load_u64le(bytes + 8),
			       .term = load_u64le(bytes + 16),
			       .time_us = load_u64le(bytes + 24),
			       .db_size_pages = load_u32le(bytes + 32),
			       .page_count = load_u32le(bytes + 36),
			       .payload_len = load_u64le(bytes + 40),
			       .db_checksum = load_u64le(bytes + 48),
			       .prev_checksum = load_u64le(bytes + 56)};

	wal_hash_begin(h, &r);
	wal_hash_add(h, bytes + WAL_RECORD_HEADER_SIZE, len - WAL_RECORD_HEADER_SIZE);
	store_u64le(bytes + 64, wal_hash_end(h));
	wal_hash_free(h);
}

static void test_header_has_the_documented_bytes(void)
{
	static const uint8_t golden[WAL_RECORD_HEADER_SIZE] = {
	    'G',  'z',  'R',  '1',  1,    0,    1,    0,    /* magic, version, type */
	    0x2a, 0,    0,    0,    0,    0,    0,    0,    /* lsn */
	    7,    0,    0,    0,    0,    0,    0,    0,    /* term */
	    8,    7,    6,    5,    4,    3,    2,    1,    /* time_us */
	    100,  0,    0,    0,    3,    0,    0,    0,    /* db_size_pages, page_count */
	    0x10, 0x30, 0,    0,    0,    0,    0,    0,    /* payload_len 12304 */
	    0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, /* db_checksum */
	    0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21, /* prev_checksum */
	    0x84, 0x43, 0x32, 0x02, 0x48, 0x18, 0xd4, 0x75, /* checksum */
	    0,    0,    0,    0,    0,    0,    0,    0,
	};
	struct wal_record r;
	struct errmsg em = {0};
	size_t len;
	uint8_t *bytes = make_record(42, 3, 0x5a, &len);

	CU_ASSERT_EQUAL(memcmp(bytes, golden, sizeof(golden)), 0);
	UNIT_OK(wal_record_decode(&r, bytes, len, &em), &em);
	CU_ASSERT_EQUAL(r.lsn, 42);
	CU_ASSERT_EQUAL(r.page_count, 3);
	CU_ASSERT_EQUAL(wal_record_pgno(&r, 2), 6);
	CU_ASSERT_EQUAL(wal_record_page(&r, 0) - bytes, WAL_RECORD_HEADER_SIZE + 16);
	CU_ASSERT_EQUAL(wal_record_page(&r, 2)[WAL_PAGE_SIZE - 1], 0x5a);
	CU_ASSERT_EQUAL(wal_record_page(&r, 2) + WAL_PAGE_SIZE, bytes + len);
	free(bytes);
}

static void test_every_single_bit_flip_is_refused(void)
{
	struct wal_record r;
	size_t len, bit;
	uint8_t *bytes = make_record(42, 1, 0xa5, &len);
	enum db_err err;

	for (bit = 0; bit < len * 8; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		err = wal_record_decode(&r, bytes, len, NULL);
		if (err != DB_CORRUPT && err != DB_GAP)
			CU_FAIL("a flipped bit went unnoticed");
		if (r.payload != NULL)
			CU_FAIL("a refused record gives its payload");
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	CU_ASSERT_EQUAL(wal_record_decode(&r, bytes, len, NULL), DB_OK);
	free(bytes);
}

static void test_short_record_is_a_gap_and_longer_input_is_fine(void)
{
	struct wal_record r;
	size_t len, cut;
	uint8_t *copy, *bytes = make_record(42, 2, 1, &len);

	for (cut = 0; cut < len; cut += cut < 100 ? 1 : 97) {
		copy = (uint8_t *)malloc(cut + 1); /* of the exact size, so that a sanitizer sees a read behind it */
		memcpy(copy, bytes, cut);
		CU_ASSERT_EQUAL(wal_record_decode(&r, copy, cut, NULL), DB_GAP);
		free(copy);
	}
	copy = (uint8_t *)calloc(1, len + 100);
	memcpy(copy, bytes, len);
	CU_ASSERT_EQUAL(wal_record_decode(&r, copy, len + 100, NULL), DB_OK);
	free(copy);
	free(bytes);
}

static void test_well_sealed_nonsense_is_refused(void)
{
	static const struct {
		size_t at;
		uint32_t value;
	} bends[] = {
	    {8, 0},           /* LSN 0 */
	    {32, 5},          /* page 6 lies behind the end of the database */
	    {32, 2},          /* fewer pages than the record has */
	    {36, 2},          /* page count and length disagree */
	    {36, 0xffffffff}, /* an absurd count */
	    {40, 0},          /* no payload */
	    {40, 0xfffffff8}, /* an absurd length */
	    {44, 0xffffffff}, /* an even more absurd one */
	    {72, 1},          /* the reserved field in use */
	    {80, 0},          /* page 0 */
	    {84, 2},          /* a page twice */
	    {88, 3},          /* not ascending */
	    {92, 1},          /* padding in use */
	};
	struct wal_record r;
	size_t len, i;
	uint8_t *bytes;

	for (i = 0; i < sizeof(bends) / sizeof(bends[0]); i++) {
		bytes = make_record(42, 3, 9, &len);
		store_u32le(bytes + bends[i].at, bends[i].value);
		reseal(bytes, len);
		CU_ASSERT_EQUAL(wal_record_decode(&r, bytes, len, NULL), DB_CORRUPT);
		free(bytes);
	}
	bytes = make_record(42, 3, 9, &len);
	store_u16le(bytes + 6, WAL_TERM_START); /* must not hold pages */
	reseal(bytes, len);
	CU_ASSERT_EQUAL(wal_record_decode(&r, bytes, len, NULL), DB_CORRUPT);
	store_u16le(bytes + 6, 3);
	CU_ASSERT_EQUAL(wal_record_decode(&r, bytes, len, NULL), DB_CORRUPT);
	store_u16le(bytes + 6, WAL_PAGES);
	store_u16le(bytes + 4, WAL_FORMAT_VERSION + 1);
	CU_ASSERT_EQUAL(wal_record_decode(&r, bytes, len, NULL), DB_CORRUPT);
	free(bytes);
}

static void test_term_start_has_no_payload(void)
{
	struct wal_record r;
	size_t len;
	uint8_t *bytes = make_record(1, 0, 0, &len);

	CU_ASSERT_EQUAL(len, WAL_RECORD_HEADER_SIZE);
	CU_ASSERT_EQUAL(wal_record_decode(&r, bytes, len, NULL), DB_OK);
	CU_ASSERT_EQUAL(r.type, WAL_TERM_START);
	CU_ASSERT_PTR_EQUAL(r.payload, bytes + len);
	free(bytes);
}

static void test_positions_compare_by_term_first(void)
{
	struct wal_pos a = {.term = 1, .lsn = 100}, b = {.term = 2, .lsn = 3}, c = {.term = 2, .lsn = 4};

	CU_ASSERT(wal_pos_cmp(a, b) < 0 && wal_pos_cmp(b, a) > 0);
	CU_ASSERT(wal_pos_cmp(b, c) < 0 && wal_pos_cmp(c, b) > 0);
	CU_ASSERT_EQUAL(wal_pos_cmp(c, c), 0);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"header has the documented bytes", test_header_has_the_documented_bytes},
	    {"every single bit flip is refused", test_every_single_bit_flip_is_refused},
	    {"short record is a gap, longer input is fine", test_short_record_is_a_gap_and_longer_input_is_fine},
	    {"well sealed nonsense is refused", test_well_sealed_nonsense_is_refused},
	    {"term start has no payload", test_term_start_has_no_payload},
	    {"positions compare by term first", test_positions_compare_by_term_first},
	    {NULL, NULL},
	};

	return unit_run("record", tests);
}

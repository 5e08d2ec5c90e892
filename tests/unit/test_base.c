/*
 * test_base.c - errors, buffers, and the slot file under torn and damaged writes.
 */
#include "common/base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/slotfile.h"
#include "tests/unit/unit.h"

/* ---- errors */

static void every_error_has_its_own_text(void)
{
	enum db_err a, b;

	for (a = DB_OK; a <= DB_CLOSED; a++)
		for (b = DB_OK; b < a; b++)
			CU_ASSERT_STRING_NOT_EQUAL(db_err_text(a), db_err_text(b));
	CU_ASSERT_STRING_EQUAL(db_err_text((enum db_err)9999), "unknown error");
}

static void messages_gain_context_as_they_rise(void)
{
	struct errmsg em = {0};

	CU_ASSERT_EQUAL(errmsg_set(&em, DB_CORRUPT, "record %d: checksum mismatch", 7), DB_CORRUPT);
	CU_ASSERT_EQUAL(errmsg_context(&em, "segment \"%s\"", "1.wal"), DB_CORRUPT);
	CU_ASSERT_STRING_EQUAL(em.text, "segment \"1.wal\": record 7: checksum mismatch");
	CU_ASSERT_EQUAL(errmsg_set(NULL, DB_BUSY, "dropped"), DB_BUSY);
}

static void system_errors_become_ours(void)
{
	static const struct {
		int saved_errno;
		enum db_err err;
	} cases[] = {{ENOSPC, DB_FULL},   {EDQUOT, DB_FULL},     {ENOMEM, DB_NOMEM}, {ENOENT, DB_NOTFOUND},
		     {EEXIST, DB_EXISTS}, {EADDRINUSE, DB_BUSY}, {EIO, DB_IO},       {EACCES, DB_IO}};
	struct errmsg em = {0};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CU_ASSERT_EQUAL(errmsg_errno(&em, cases[i].saved_errno, "cannot open"), cases[i].err);
		CU_ASSERT_EQUAL(em.err, cases[i].err);
	}
	CU_ASSERT_STRING_EQUAL(em.text, "cannot open: Permission denied");
	CU_ASSERT_EQUAL(errmsg_errno(NULL, ENOSPC, "dropped"), DB_FULL);
}

static void long_messages_are_cut_not_overrun(void)
{
	struct errmsg em = {0};
	char *text = malloc(2000);
	int i;

	CU_ASSERT_PTR_NOT_NULL_FATAL(text);
	memset(text, 'x', 1999);
	text[1999] = '\0';
	errmsg_set(&em, DB_IO, "%s", text);
	CU_ASSERT_EQUAL(strlen(em.text), ERRMSG_TEXT_MAX - 1);
	for (i = 0; i < 3; i++)
		errmsg_context(&em, "%s", text);
	CU_ASSERT_EQUAL(strlen(em.text), ERRMSG_TEXT_MAX - 1);
	errmsg_errno(&em, EIO, "%s", text);
	CU_ASSERT_EQUAL(strlen(em.text), ERRMSG_TEXT_MAX - 1);
	free(text);
}

/* ---- buffers */

static void integers_are_little_endian_and_come_back(void)
{
	static const uint8_t bytes[] = {0x01, 0x03, 0x02, 0x07, 0x06, 0x05, 0x04, 0x0f, 0x0e, 0x0d, 0x0c,
					0x0b, 0x0a, 0x09, 0x08, 3,    0,    0,    0,    'a',  'b',  'c'};
	struct buf b = {0};
	struct rd r;
	char s[4];

	buf_put_u8(&b, 0x01);
	buf_put_u16le(&b, 0x0203);
	buf_put_u32le(&b, 0x04050607);
	buf_put_u64le(&b, 0x08090a0b0c0d0e0fu);
	buf_put_blob(&b, "abc", 3);
	CU_ASSERT_EQUAL_FATAL(b.len, sizeof(bytes));
	CU_ASSERT_EQUAL(memcmp(b.data, bytes, sizeof(bytes)), 0);
	rd_init(&r, b.data, b.len);
	CU_ASSERT_TRUE(rd_u8(&r) == 0x01 && rd_u16le(&r) == 0x0203 && rd_u32le(&r) == 0x04050607);
	CU_ASSERT_EQUAL(rd_u64le(&r), 0x08090a0b0c0d0e0fu);
	rd_str(&r, s, sizeof(s));
	CU_ASSERT_STRING_EQUAL(s, "abc");
	CU_ASSERT_TRUE(!r.bad && r.left == 0);
	buf_fini(&b);
}

static void a_reader_past_the_end_stays_bad_and_yields_zeroes(void)
{
	static const uint8_t bytes[] = {0xff, 0xff, 0xff};
	struct rd r;
	size_t len;

	rd_init(&r, bytes, sizeof(bytes));
	CU_ASSERT_EQUAL(rd_u32le(&r), 0);
	CU_ASSERT_TRUE(r.bad);
	CU_ASSERT_TRUE(rd_u8(&r) == 0 && rd_u16le(&r) == 0 && rd_u64le(&r) == 0); /* although 3 bytes are there */
	CU_ASSERT_PTR_NULL(rd_bytes(&r, 0));
	CU_ASSERT_PTR_NULL(rd_blob(&r, 10, &len));
	CU_ASSERT_EQUAL(len, 0);
}

/* A blob that claims len bytes of which have bytes are there. */
static bool string_is_accepted(uint32_t claimed, const char *bytes, size_t have, size_t out_size)
{
	struct buf b = {0};
	struct rd r;
	char out[8] = "before";

	buf_put_u32le(&b, claimed);
	buf_put(&b, bytes, have);
	rd_init(&r, b.data, b.len);
	rd_str(&r, out, out_size);
	if (r.bad)
		CU_ASSERT_STRING_EQUAL(out, "");
	buf_fini(&b);
	return !r.bad;
}

static void strings_that_do_not_fit_or_hide_a_nul_are_bad(void)
{
	CU_ASSERT_TRUE(string_is_accepted(3, "abc", 3, 4));
	CU_ASSERT_TRUE(string_is_accepted(0, "", 0, 1));
	CU_ASSERT_FALSE(string_is_accepted(4, "abcd", 4, 4));
	CU_ASSERT_FALSE(string_is_accepted(4, "abc", 3, 8));
	CU_ASSERT_FALSE(string_is_accepted(3, "a\0c", 3, 8));
	CU_ASSERT_FALSE(string_is_accepted(0xffffffffu, "abc", 3, 8));
}

static void a_buffer_grows_is_taken_and_can_be_used_again(void)
{
	struct buf b = {0};
	uint8_t *bytes;
	size_t i, len = 0;

	CU_ASSERT_PTR_NULL(buf_take(&b, &len));
	for (i = 0; i < 100000; i++)
		buf_put_u8(&b, (uint8_t)i);
	bytes = buf_take(&b, &len);
	CU_ASSERT_TRUE_FATAL(bytes != NULL && len == 100000);
	CU_ASSERT_TRUE(bytes[99999] == (uint8_t)99999 && b.data == NULL && b.len == 0);
	free(bytes);
	buf_printf(&b, "%s %d", "again", 1);
	buf_puts(&b, "!");
	CU_ASSERT_TRUE(b.len == 8 && memcmp(b.data, "again 1!", 8) == 0);
	buf_clear(&b);
	CU_ASSERT_TRUE(b.len == 0 && b.cap > 0);
	buf_fini(&b);
}

static void an_impossible_size_fails_the_buffer_for_good(void)
{
	struct buf b = {0};
	size_t len;

	buf_puts(&b, "content");
	CU_ASSERT_FALSE(buf_reserve(&b, SIZE_MAX));
	CU_ASSERT_TRUE(b.failed);
	buf_puts(&b, "more");
	CU_ASSERT_EQUAL(b.len, 7);
	CU_ASSERT_PTR_NULL(buf_take(&b, &len));
	buf_clear(&b);
	CU_ASSERT_FALSE(b.failed);
	buf_put_blob(&b, "", (size_t)UINT32_MAX + 1); /* a length that its field cannot hold */
	CU_ASSERT_TRUE(b.failed);
	buf_fini(&b);
}

static void the_monotonic_clock_never_goes_back(void)
{
	uint64_t before = clock_mono_us(), now;
	int i;

	for (i = 0; i < 1000; i++) {
		now = clock_mono_us();
		CU_ASSERT_TRUE(now >= before);
		before = now;
	}
	CU_ASSERT_TRUE(clock_wall_us() > (uint64_t)1700000000 * 1000000);
}

/* ---- slot file */

struct slot_fixture {
	char path[UNIT_PATH_MAX + 8];
	struct slotfile f;
	struct errmsg em;
	char data[SLOTFILE_DATA_MAX];
	size_t len;
};

static void slot_begin(struct slot_fixture *x)
{
	char dir[UNIT_PATH_MAX];

	memset(x, 0, sizeof(*x));
	unit_tmpdir(dir);
	snprintf(x->path, sizeof(x->path), "%s/slots", dir);
}

static enum db_err slot_reopen(struct slot_fixture *x)
{
	memset(x->data, 0, sizeof(x->data));
	return slotfile_open(&x->f, x->path, x->data, sizeof(x->data), &x->len, &x->em);
}

/* Opens, writes text, closes. */
static void slot_put(struct slot_fixture *x, const char *text)
{
	UNIT_OK(slot_reopen(x), &x->em);
	UNIT_OK(slotfile_write(&x->f, text, strlen(text), &x->em), &x->em);
	slotfile_close(&x->f);
}

static void slot_expect(struct slot_fixture *x, const char *text)
{
	UNIT_OK(slot_reopen(x), &x->em);
	CU_ASSERT_EQUAL(x->len, strlen(text));
	CU_ASSERT_STRING_EQUAL(x->data, text);
	slotfile_close(&x->f);
}

static void read_image(const char *path, uint8_t image[2 * SLOTFILE_SLOT_SIZE])
{
	int fd = open(path, O_RDONLY);

	memset(image, 0, 2 * SLOTFILE_SLOT_SIZE);
	CU_ASSERT_TRUE_FATAL(fd >= 0 && read(fd, image, 2 * SLOTFILE_SLOT_SIZE) >= 0);
	close(fd);
}

static void write_image(const char *path, const uint8_t *image, size_t len)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CREAT, 0600);

	CU_ASSERT_TRUE_FATAL(fd >= 0 && write(fd, image, len) == (ssize_t)len);
	close(fd);
}

/* A blob whose number leaves none for the next, or that stands where it was never written, is not believed. */
static void a_slot_that_cannot_be_is_no_slot(void)
{
	struct slot_fixture x;
	uint8_t slots[2 * SLOTFILE_SLOT_SIZE];
	int fd;

	slot_begin(&x);
	slot_put(&x, "first");
	slot_put(&x, "second");
	fd = open(x.path, O_RDWR);
	CU_ASSERT_EQUAL(pread(fd, slots, sizeof(slots), 0), (ssize_t)sizeof(slots));
	memcpy(slots, slots + SLOTFILE_SLOT_SIZE, SLOTFILE_SLOT_SIZE);
	CU_ASSERT_EQUAL(pwrite(fd, slots, sizeof(slots), 0), (ssize_t)sizeof(slots));
	close(fd);
	slot_expect(&x, "second");
	slot_put(&x, "third"); /* and it does not go over the only good slot */
	slot_expect(&x, "third");
}

static void a_new_slot_file_is_empty_and_private(void)
{
	struct slot_fixture x;
	struct stat st;

	slot_begin(&x);
	slot_expect(&x, "");
	slot_expect(&x, ""); /* it exists now, still empty */
	CU_ASSERT_TRUE(stat(x.path, &st) == 0 && (st.st_mode & 0777) == 0600);
}

static void the_newest_write_is_read_back(void)
{
	struct slot_fixture x;
	char text[32];
	int i;

	slot_begin(&x);
	for (i = 0; i < 9; i++) {
		snprintf(text, sizeof(text), "term %d", i);
		slot_put(&x, text);
		slot_expect(&x, text);
	}
	UNIT_OK(slot_reopen(&x), &x.em);
	for (i = 0; i < 5; i++) { /* several without reopening */
		snprintf(text, sizeof(text), "more %d", i);
		UNIT_OK(slotfile_write(&x.f, text, strlen(text), &x.em), &x.em);
	}
	slotfile_close(&x.f);
	slot_expect(&x, "more 4");
}

/* Every prefix of a write, over what its slot held before: either the old blob or the new one, never a mixture. */
static void tear_every_prefix(struct slot_fixture *x, const char *old_text, const char *new_text)
{
	static uint8_t before[2 * SLOTFILE_SLOT_SIZE], after[2 * SLOTFILE_SLOT_SIZE], torn[2 * SLOTFILE_SLOT_SIZE];
	size_t at, cut;

	read_image(x->path, before);
	slot_put(x, new_text);
	read_image(x->path, after);
	at = memcmp(before, after, SLOTFILE_SLOT_SIZE) != 0 ? 0 : SLOTFILE_SLOT_SIZE;
	CU_ASSERT_EQUAL(memcmp(before + SLOTFILE_SLOT_SIZE - at, after + SLOTFILE_SLOT_SIZE - at, SLOTFILE_SLOT_SIZE),
			0);
	for (cut = 0; cut <= 80; cut++) {
		memcpy(torn, before, sizeof(torn));
		memcpy(torn + at, after + at, cut);
		write_image(x->path, torn, sizeof(torn));
		UNIT_OK(slot_reopen(x), &x->em);
		slotfile_close(&x->f);
		CU_ASSERT_TRUE(strcmp(x->data, old_text) == 0 || strcmp(x->data, new_text) == 0);
		if (memcmp(torn + at, after + at, 24 + strlen(new_text)) != 0) /* not by chance what was there */
			CU_ASSERT_STRING_EQUAL(x->data, old_text);
		slot_put(x, "repaired"); /* the torn slot is the one that is rewritten */
		slot_expect(x, "repaired");
	}
	write_image(x->path, after, sizeof(after));
}

static void a_torn_write_of_either_slot_leaves_the_one_before(void)
{
	struct slot_fixture x;

	slot_begin(&x);
	slot_expect(&x, "");
	tear_every_prefix(&x, "", "the first one");
	tear_every_prefix(&x, "the first one", "the second one");
	tear_every_prefix(&x, "the second one", "the third one");
	tear_every_prefix(&x, "the third one", "number four");
}

static void any_flipped_bit_of_the_newest_falls_back_to_the_one_before(void)
{
	static uint8_t image[2 * SLOTFILE_SLOT_SIZE];
	struct slot_fixture x;
	size_t bit;

	slot_begin(&x);
	slot_put(&x, "older");
	slot_put(&x, "newer");
	read_image(x.path, image);
	for (bit = 0; bit < (24 + 5) * 8; bit++) {
		image[SLOTFILE_SLOT_SIZE + bit / 8] ^= (uint8_t)(1u << bit % 8);
		write_image(x.path, image, sizeof(image));
		slot_expect(&x, "older");
		image[SLOTFILE_SLOT_SIZE + bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

static void two_damaged_slots_are_corruption(void)
{
	static uint8_t image[2 * SLOTFILE_SLOT_SIZE];
	struct slot_fixture x;

	slot_begin(&x);
	slot_put(&x, "one");
	slot_put(&x, "two");
	read_image(x.path, image);
	image[24] ^= 1;
	image[SLOTFILE_SLOT_SIZE + 25] ^= 1;
	write_image(x.path, image, sizeof(image));
	CU_ASSERT_EQUAL(slot_reopen(&x), DB_CORRUPT);
	CU_ASSERT_EQUAL(x.f.fd, -1);
	CU_ASSERT_PTR_NOT_NULL(strstr(x.em.text, x.path));
}

static void a_truncated_file_keeps_what_is_whole(void)
{
	static uint8_t image[2 * SLOTFILE_SLOT_SIZE];
	struct slot_fixture x;

	slot_begin(&x);
	slot_put(&x, "one");
	slot_put(&x, "two");
	read_image(x.path, image);
	write_image(x.path, image, SLOTFILE_SLOT_SIZE + 10);
	slot_expect(&x, "one");
}

static void sizes_are_checked_both_ways(void)
{
	struct slot_fixture x;
	char big[SLOTFILE_DATA_MAX + 1];

	slot_begin(&x);
	memset(big, 'b', sizeof(big));
	UNIT_OK(slot_reopen(&x), &x.em);
	CU_ASSERT_EQUAL(slotfile_write(&x.f, big, sizeof(big), &x.em), DB_TOO_LARGE);
	UNIT_OK(slotfile_write(&x.f, big, SLOTFILE_DATA_MAX, &x.em), &x.em);
	slotfile_close(&x.f);
	UNIT_OK(slot_reopen(&x), &x.em);
	CU_ASSERT_TRUE(x.len == SLOTFILE_DATA_MAX && memcmp(x.data, big, SLOTFILE_DATA_MAX) == 0);
	slotfile_close(&x.f);
	CU_ASSERT_EQUAL(slotfile_open(&x.f, x.path, x.data, 10, &x.len, &x.em), DB_CORRUPT);
	CU_ASSERT_NOT_EQUAL(slotfile_open(&x.f, "/nonexistent/dir/slots", x.data, 10, &x.len, &x.em), DB_OK);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"every error has its own text", every_error_has_its_own_text},
	    {"messages gain context as they rise", messages_gain_context_as_they_rise},
	    {"system errors become ours", system_errors_become_ours},
	    {"long messages are cut, not overrun", long_messages_are_cut_not_overrun},
	    {"integers are little-endian and come back", integers_are_little_endian_and_come_back},
	    {"a reader past the end stays bad", a_reader_past_the_end_stays_bad_and_yields_zeroes},
	    {"strings that do not fit or hide a NUL are bad", strings_that_do_not_fit_or_hide_a_nul_are_bad},
	    {"a buffer grows, is taken, can be used again", a_buffer_grows_is_taken_and_can_be_used_again},
	    {"an impossible size fails the buffer for good", an_impossible_size_fails_the_buffer_for_good},
	    {"the monotonic clock never goes back", the_monotonic_clock_never_goes_back},
	    {"a slot that cannot be is no slot", a_slot_that_cannot_be_is_no_slot},
	    {"a new slot file is empty and private", a_new_slot_file_is_empty_and_private},
	    {"the newest write is read back", the_newest_write_is_read_back},
	    {"a torn write of either slot leaves the one before", a_torn_write_of_either_slot_leaves_the_one_before},
	    {"any flipped bit falls back to the one before",
	     any_flipped_bit_of_the_newest_falls_back_to_the_one_before},
	    {"two damaged slots are corruption", two_damaged_slots_are_corruption},
	    {"a truncated file keeps what is whole", a_truncated_file_keeps_what_is_whole},
	    {"sizes are checked both ways", sizes_are_checked_both_ways},
	    {NULL, NULL},
	};

	return unit_run("base", tests);
}

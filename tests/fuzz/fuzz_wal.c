/*
 * fuzz_wal.c - the record decoder, and recovery of a log directory.
 *
 * The first byte chooses. Records: a header and payload from the input, with the checksum put right where the input asks for
 * it (no search finds a hash); what decodes is readable in full and encodes to the same header. Recovery: one of a few log
 * directories, built by the log itself at start, is changed as the input says (bytes, lengths, whole files, with or without
 * right checksums) and opened. Either it is refused with a reason and no file is touched, or every record is whole and
 * joins the one before, a record that was written before is the same as then, and the log can be appended to and opened
 * again with the same end.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/base/buf.h"
#include "common/wal/segment.h"
#include "common/wal/wal.h"
#include "tests/fuzz/fuzz.h"

#define TEMPLATES_MAX 4
#define FILES_MAX     8
#define RECORDS_MAX   64
#define CHANGES_MAX   8

/* ---- records */

static void put_checksum(uint8_t *record, uint64_t payload_len)
{
	struct wal_hash *h = wal_hash_create();
	struct wal_record r = {.type = (enum wal_type)load_u16le(record + 6),
			       .lsn = load_u64le(record + 8),
			       .term = load_u64le(record + 16),
			       .time_us = load_u64le(record + 24),
			       .db_size_pages = load_u32le(record + 32),
			       .page_count = load_u32le(record + 36),
			       .payload_len = payload_len,
			       .db_checksum = load_u64le(record + 48),
			       .prev_checksum = load_u64le(record + 56)};

	FUZZ_CHECK(h != NULL);
	wal_hash_begin(h, &r);
	wal_hash_add(h, record + WAL_RECORD_HEADER_SIZE, (size_t)payload_len);
	store_u64le(record + 64, wal_hash_end(h));
	wal_hash_free(h);
}

static void check_record(const struct wal_record *r, const uint8_t *bytes)
{
	uint8_t header[WAL_RECORD_HEADER_SIZE];
	uint32_t i, before = 0;

	wal_record_encode_header(r, header);
	FUZZ_CHECK(memcmp(header, bytes, sizeof(header)) == 0);
	FUZZ_CHECK(WAL_RECORD_HEADER_SIZE + r->payload_len == wal_record_size(r->page_count));
	for (i = 0; i < r->page_count; i++) {
		FUZZ_CHECK(wal_record_pgno(r, i) > before && wal_record_pgno(r, i) <= r->db_size_pages);
		before = wal_record_pgno(r, i);
		FUZZ_CHECK(wal_record_page(r, i) >= r->payload);
		FUZZ_CHECK(wal_record_page(r, i) + WAL_PAGE_SIZE <= r->payload + r->payload_len);
	}
}

/* The input: a choice, then the record; pages that it does not hold are zeros. */
static void fuzz_record(struct fuzz_in *in)
{
	uint8_t how = in_u8(in);
	uint32_t pages = how >> 5;
	size_t size = how & 1 ? in->left : (size_t)wal_record_size(pages);
	uint8_t *bytes = calloc(1, size > 0 ? size : 1);
	struct wal_record r;
	struct errmsg em = {0};
	enum db_err err;
	size_t got;

	FUZZ_CHECK(bytes != NULL);
	if (in->left > 0)
		memcpy(bytes, in->p, in->left < size ? in->left : size);
	if ((how & 1) == 0) {
		store_u32le(bytes, WAL_RECORD_MAGIC);
		store_u16le(bytes + 4, WAL_FORMAT_VERSION);
		if (how & 2) {
			store_u32le(bytes + 36, pages);
			store_u64le(bytes + 40, wal_payload_size(pages));
			store_u64le(bytes + 72, 0);
		}
		if (how & 4)
			put_checksum(bytes, size - WAL_RECORD_HEADER_SIZE);
	}
	in_bytes(in, in->left, &got);
	err = wal_record_decode(&r, bytes, size, &em);
	if (err == DB_OK) {
		check_record(&r, bytes);
		FUZZ_CHECK(wal_record_decode(&r, bytes, (size_t)wal_record_size(r.page_count) - 1, &em) == DB_GAP);
	} else {
		FUZZ_CHECK((err == DB_GAP || err == DB_CORRUPT) && em.text[0] != '\0');
	}
	if (size >= WAL_RECORD_HEADER_SIZE && wal_record_decode_header(&r, bytes, &em) == DB_OK)
		FUZZ_CHECK(r.payload == NULL && r.payload_len == wal_payload_size(r.page_count));
	free(bytes);
}

/* ---- log directories to begin with */

struct image {
	char name[SEGMENT_NAME_MAX];
	uint8_t *bytes;
	size_t len;
};

struct template
{
	struct image files[FILES_MAX];
	size_t file_count;
	uint8_t *records[RECORDS_MAX]; /* records[lsn - 1] */
	size_t lens[RECORDS_MAX];
	uint64_t last_lsn;
};

static struct template templates[TEMPLATES_MAX];
static size_t template_count;

static enum db_err open_log(struct wal **w, const char *dir, struct wal_pos base, uint64_t base_checksum,
			    struct errmsg *em)
{
	const struct wal_options options = {
	    .dir = dir, .segment_size_bytes = WAL_SEGMENT_SIZE_MIN, .base = base, .base_checksum = base_checksum};

	return wal_open(w, &options, em);
}

static uint8_t *make_record(struct wal *w, uint64_t term, uint32_t pages, size_t *len)
{
	uint8_t *bytes;
	uint32_t i;

	*len = (size_t)wal_record_size(pages);
	bytes = calloc(1, *len);
	FUZZ_CHECK(bytes != NULL);
	store_u32le(bytes, WAL_RECORD_MAGIC);
	store_u16le(bytes + 4, WAL_FORMAT_VERSION);
	store_u16le(bytes + 6, pages == 0 ? WAL_TERM_START : WAL_PAGES);
	store_u64le(bytes + 8, wal_last(w).lsn + 1);
	store_u64le(bytes + 16, term);
	store_u32le(bytes + 32, 100);
	store_u32le(bytes + 36, pages);
	store_u64le(bytes + 40, wal_payload_size(pages));
	store_u64le(bytes + 56, wal_last_checksum(w));
	for (i = 0; i < pages; i++)
		store_u32le(bytes + WAL_RECORD_HEADER_SIZE + 4 * i, 3 * i + 1);
	put_checksum(bytes, wal_payload_size(pages));
	return bytes;
}

static enum db_err append(struct wal *w, uint8_t *bytes, size_t len, struct errmsg *em)
{
	struct iovec piece = {.iov_base = bytes, .iov_len = len};
	struct wal_record r;

	return wal_append(w, &piece, 1, &r, em);
}

static void load_images(struct template *t, const char *dir)
{
	struct dirent *entry;
	DIR *d = opendir(dir);
	char path[FUZZ_PATH_MAX * 2];
	size_t i, j;

	FUZZ_CHECK(d != NULL);
	while ((entry = readdir(d)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		FUZZ_CHECK(t->file_count < FILES_MAX);
		for (i = 0; i < t->file_count && strcmp(t->files[i].name, entry->d_name) < 0; i++)
			;
		for (j = t->file_count++; j > i; j--) /* by name: the order must not depend on the file system */
			t->files[j] = t->files[j - 1];
		snprintf(t->files[i].name, sizeof(t->files[i].name), "%.39s", entry->d_name);
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		t->files[i].bytes = fuzz_read_file(path, &t->files[i].len);
	}
	closedir(d);
}

/* records: pages of each, in terms that begin where there are none; a digit of 9 syncs. */
static void make_template(const char *records)
{
	struct template *t = &templates[template_count++];
	char dir[FUZZ_PATH_MAX];
	struct wal *w;
	uint64_t term = 0;

	fuzz_path(dir, "template");
	fuzz_fresh_dir(dir);
	FUZZ_CHECK(open_log(&w, dir, (struct wal_pos){0, 0}, 0, NULL) == DB_OK);
	for (; *records != '\0'; records++) {
		uint32_t pages = (uint32_t)(*records - '0');

		if (pages == 9) {
			FUZZ_CHECK(wal_sync(w, NULL, NULL) == DB_OK);
			continue;
		}
		term += pages == 0;
		t->records[t->last_lsn] = make_record(w, term, pages, &t->lens[t->last_lsn]);
		FUZZ_CHECK(append(w, t->records[t->last_lsn], t->lens[t->last_lsn], NULL) == DB_OK);
		t->last_lsn++;
	}
	wal_close(w);
	load_images(t, dir);
}

static void make_templates(void)
{
	if (template_count > 0)
		return;
	make_template("091");
	make_template("09121190110");
	make_template("09888888911");      /* several segments */
	make_template("0988808880911911"); /* and terms that begin in the middle of them */
}

/* ---- the random part, which would make one input mean different things: salts */

/* The salt of each segment is random. For an input to mean the same in every process the images get a fixed one, with the
 * guards that follow from it. */
static void fix_header(uint8_t *bytes)
{
	store_u64le(bytes + 56, XXH3_64bits(bytes, 56));
}

static void fix_guard(const uint8_t *segment, uint8_t *frame)
{
	uint8_t guarded[16];

	memcpy(guarded, frame, 8);
	memcpy(guarded + 8, frame + FRAME_SIZE + 64, 8);
	store_u64le(frame + 8, XXH3_64bits_withSeed(guarded, sizeof(guarded), load_u64le(segment + 24)));
}

static void set_salt(struct image *f, uint64_t salt)
{
	uint64_t lsn = load_u64le(f->bytes + 8);
	size_t at = SEGMENT_HEADER_SIZE;

	if (strstr(f->name, ".wal") == NULL)
		return;
	store_u64le(f->bytes + 24, salt);
	fix_header(f->bytes);
	while (at + FRAME_SIZE + WAL_RECORD_HEADER_SIZE <= f->len &&
	       load_u32le(f->bytes + at + FRAME_SIZE) == WAL_RECORD_MAGIC &&
	       load_u64le(f->bytes + at + FRAME_SIZE + 8) == lsn) {
		fix_guard(f->bytes, f->bytes + at);
		at += FRAME_SIZE + WAL_RECORD_HEADER_SIZE + (size_t)load_u64le(f->bytes + at + FRAME_SIZE + 40);
		lsn++;
	}
}

/* ---- changes */

/* A directory while it is being changed; bytes are copies. */
struct world {
	struct image files[FILES_MAX];
	size_t file_count;
	bool forged; /* a record may be one that the log never wrote, with a right checksum */
};

static void resize(struct image *f, size_t len)
{
	uint8_t *bytes = realloc(f->bytes, len > 0 ? len : 1);

	FUZZ_CHECK(bytes != NULL);
	if (len > f->len)
		memset(bytes + f->len, 0, len - f->len);
	f->bytes = bytes;
	f->len = len;
}

/* Where the n-th frame of a segment begins; SEGMENT_HEADER_SIZE when it has none. */
static size_t frame_at(const struct image *f, unsigned n)
{
	size_t at = SEGMENT_HEADER_SIZE, size;

	while (n-- > 0) {
		if (at + FRAME_SIZE + WAL_RECORD_HEADER_SIZE > f->len)
			return SEGMENT_HEADER_SIZE;
		size = FRAME_SIZE + WAL_RECORD_HEADER_SIZE + (size_t)load_u64le(f->bytes + at + FRAME_SIZE + 40);
		if (size > f->len - at)
			return SEGMENT_HEADER_SIZE;
		at += size;
	}
	return at;
}

static void change_bytes(struct image *f, size_t at, struct fuzz_in *in)
{
	size_t len = in_u8(in) & 31, got, i;
	const uint8_t *p = in_bytes(in, len, &got);

	for (i = 0; i < got && at + i < f->len; i++)
		f->bytes[at + i] ^= p[i];
}

/* Puts guard and checksum of the n-th frame right again, so that what was changed in it looks meant. */
static void repair_frame(struct world *world, struct image *f, unsigned n)
{
	size_t at = frame_at(f, n), left = f->len - at;
	uint64_t payload_len;

	if (f->len < at + FRAME_SIZE + WAL_RECORD_HEADER_SIZE)
		return;
	left -= FRAME_SIZE + WAL_RECORD_HEADER_SIZE;
	payload_len = load_u64le(f->bytes + at + FRAME_SIZE + 40);
	if (payload_len <= left)
		put_checksum(f->bytes + at + FRAME_SIZE, payload_len);
	fix_guard(f->bytes, f->bytes + at);
	world->forged = true;
}

static void change_names(struct world *world, struct image *f, struct fuzz_in *in)
{
	static const char *const suffixes[] = {".wal", ".spare", ".tmp", ".wal", "", ".wa"};

	switch (in_u8(in) % 4) {
	case 0:
		snprintf(f->name, sizeof(f->name), "%020" PRIu64 "%s", in_number(in, 1),
			 suffixes[in_u8(in) % (sizeof(suffixes) / sizeof(suffixes[0]))]);
		break;
	case 1:
		snprintf(f->name, sizeof(f->name), "%" PRIu64 ".spare", in_number(in, 1));
		break;
	case 2:
		snprintf(f->name, sizeof(f->name), "cut");
		break;
	default:
		world->file_count--;
		free(f->bytes);
		*f = world->files[world->file_count];
	}
}

static void copy_file(struct world *world, const struct image *f, struct fuzz_in *in)
{
	struct image *copy = &world->files[world->file_count];
	const uint64_t lsn = in_number(in, load_u64le(f->bytes + 8) + 1);

	if (world->file_count == FILES_MAX)
		return;
	world->file_count++;
	*copy = (struct image){.bytes = malloc(f->len > 0 ? f->len : 1), .len = f->len};
	FUZZ_CHECK(copy->bytes != NULL);
	memcpy(copy->bytes, f->bytes, f->len);
	snprintf(copy->name, sizeof(copy->name), "%020" PRIu64 ".wal", lsn);
	store_u64le(copy->bytes + 8, lsn);
	fix_header(copy->bytes);
}

static void change(struct world *world, struct fuzz_in *in)
{
	uint8_t how = in_u8(in);
	struct image *f = &world->files[(how >> 5) % world->file_count];
	size_t at;

	if (f->len < SEGMENT_HEADER_SIZE)
		return;
	switch (how & 15) {
	case 0:
	case 1: /* in the segment's header */
		change_bytes(f, in_u8(in) % SEGMENT_HEADER_SIZE, in);
		if (how & 16)
			fix_header(f->bytes);
		break;
	case 2:
	case 3:
	case 4: /* in a frame, or the head of its record */
		at = frame_at(f, in_u8(in) & 15);
		change_bytes(f, at + in_u8(in) % (FRAME_SIZE + WAL_RECORD_HEADER_SIZE + 32), in);
		break;
	case 5:
	case 6:
		repair_frame(world, f, in_u8(in) & 15);
		break;
	case 7: /* anywhere */
		change_bytes(f, (in_u16(in) | (size_t)in_u8(in) << 16) % f->len, in);
		break;
	case 8: /* nothing from a frame on, or in a part of it: what a power cut leaves */
		at = frame_at(f, in_u8(in) & 15) + in_u16(in);
		if (at < f->len)
			memset(f->bytes + at, 0, how & 16 ? f->len - at : (f->len - at) % 5000);
		break;
	case 9:
		resize(f, how & 16 ? in_u16(in) & ~(size_t)7 : in_u16(in));
		break;
	case 10:
		copy_file(world, f, in);
		break;
	default:
		change_names(world, f, in);
	}
}

static void load_world(struct world *world, const struct template *t)
{
	size_t i;

	memset(world, 0, sizeof(*world));
	for (i = 0; i < t->file_count; i++) {
		world->files[i] = t->files[i];
		world->files[i].bytes = malloc(t->files[i].len);
		FUZZ_CHECK(world->files[i].bytes != NULL);
		memcpy(world->files[i].bytes, t->files[i].bytes, t->files[i].len);
	}
	world->file_count = t->file_count;
}

static void write_world(const struct world *world, const char *dir)
{
	char path[FUZZ_PATH_MAX * 2];
	size_t i;

	fuzz_fresh_dir(dir);
	for (i = 0; i < world->file_count; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, world->files[i].name);
		fuzz_write_file(path, world->files[i].bytes, world->files[i].len);
	}
}

static void free_world(struct world *world)
{
	while (world->file_count > 0)
		free(world->files[--world->file_count].bytes);
}

/* ---- what must hold of what was opened */

static void check_history(struct wal *w, const struct world *world, const struct template *t, struct wal_pos base)
{
	const uint64_t first = wal_first_lsn(w), last = wal_last(w).lsn;
	struct wal_record r, whole;
	struct errmsg em = {0};
	const uint8_t *bytes;
	uint64_t lsn, checksum = 0, term = 0;
	enum db_err err;
	bool joined = false;
	size_t len;

	FUZZ_CHECK(first <= last + 1 && last >= base.lsn && wal_durable_lsn(w) == last);
	for (lsn = first; lsn <= last; lsn++) {
		err = wal_read(w, lsn, &r, &em);
		if (err == DB_CORRUPT && lsn <= base.lsn) { /* below the base damage shows when it is read */
			joined = false;
			continue;
		}
		FUZZ_CHECK(err == DB_OK);
		bytes = wal_record_bytes(&r, &len);
		FUZZ_CHECK(wal_record_decode(&whole, bytes, len, &em) == DB_OK && whole.lsn == lsn);
		FUZZ_CHECK(!joined || (whole.prev_checksum == checksum && whole.term >= term));
		joined = true;
		checksum = whole.checksum;
		term = whole.term;
		if (!world->forged)
			FUZZ_CHECK(lsn <= t->last_lsn && len == t->lens[lsn - 1] &&
				   memcmp(bytes, t->records[lsn - 1], len) == 0);
	}
	FUZZ_CHECK(!joined || checksum == wal_last_checksum(w));
	FUZZ_CHECK(wal_read(w, last + 1, &r, &em) == DB_NOTFOUND);
}

static void check_terms(struct wal *w)
{
	struct wal_pos terms[RECORDS_MAX];
	size_t count = wal_terms(w, terms, RECORDS_MAX), i;

	for (i = 1; i < count; i++)
		FUZZ_CHECK(terms[i].term > terms[i - 1].term && terms[i].lsn > terms[i - 1].lsn);
	FUZZ_CHECK(count == 0 || terms[count - 1].term <= wal_last(w).term);
}

/* The log goes on from where it was found to end. */
static void check_goes_on(struct wal *w, const char *dir, struct wal_pos base, uint64_t base_checksum)
{
	struct errmsg em = {0};
	const struct wal_pos last = wal_last(w);
	uint64_t checksum;
	uint8_t *bytes;
	size_t len;

	if (last.lsn > UINT64_MAX - 2 || last.term == UINT64_MAX) {
		wal_close(w);
		return;
	}
	bytes = make_record(w, last.term + 1, 0, &len);
	FUZZ_CHECK(append(w, bytes, len, &em) == DB_OK && wal_sync(w, NULL, &em) == DB_OK);
	free(bytes);
	checksum = wal_last_checksum(w);
	wal_close(w);
	FUZZ_CHECK(open_log(&w, dir, base, base_checksum, &em) == DB_OK);
	FUZZ_CHECK(wal_last(w).lsn == last.lsn + 1 && wal_last_checksum(w) == checksum);
	if (base.lsn <= last.lsn) {
		FUZZ_CHECK(wal_cut(w, last.lsn, &em) == DB_OK || base.lsn + 1 < wal_first_lsn(w));
		FUZZ_CHECK(wal_last(w).lsn == last.lsn);
	}
	wal_close(w);
}

/* A refused log is as it was. */
static void check_untouched(const struct world *world, const char *dir)
{
	char path[FUZZ_PATH_MAX * 2];
	uint8_t *bytes;
	size_t i, len;

	for (i = 0; i < world->file_count; i++) {
		if (strstr(world->files[i].name, ".wal") == NULL)
			continue; /* unfinished and spare files may be tidied away */
		snprintf(path, sizeof(path), "%s/%s", dir, world->files[i].name);
		bytes = fuzz_read_file(path, &len);
		FUZZ_CHECK(len == world->files[i].len && memcmp(bytes, world->files[i].bytes, len) == 0);
		free(bytes);
	}
}

static bool unique_names(const struct world *world)
{
	size_t i, j;

	for (i = 0; i < world->file_count; i++)
		for (j = 0; j < i; j++)
			if (strcmp(world->files[i].name, world->files[j].name) == 0)
				return false;
	return true;
}

static void fuzz_recovery(struct fuzz_in *in)
{
	uint8_t which = in_u8(in);
	const struct template *t;
	struct world world;
	struct wal_pos base = {0, 0};
	uint64_t base_checksum = 0;
	struct errmsg em = {0};
	char dir[FUZZ_PATH_MAX];
	struct wal *w = NULL;
	enum db_err err;
	unsigned i;

	make_templates();
	t = &templates[which % template_count];
	load_world(&world, t);
	for (i = 0; i < world.file_count; i++)
		set_salt(&world.files[i], 0x5a175a17 + i);
	base.lsn = which & 0x80 ? which >> 2 & 15 : 0;
	if (base.lsn > 0 && base.lsn <= t->last_lsn) {
		base.term = load_u64le(t->records[base.lsn - 1] + 16);
		base_checksum = load_u64le(t->records[base.lsn - 1] + 64);
	}
	for (i = 0; i < CHANGES_MAX && in->left > 0 && world.file_count > 0; i++)
		change(&world, in);
	fuzz_path(dir, "log");
	write_world(&world, dir);
	err = open_log(&w, dir, base, base_checksum, &em);
	if (err == DB_OK) {
		check_history(w, &world, t, base);
		check_terms(w);
		check_goes_on(w, dir, base, base_checksum);
	} else {
		FUZZ_CHECK(w == NULL && em.err == err && em.text[0] != '\0');
		FUZZ_CHECK(err == DB_CORRUPT || err == DB_INVALID);
		if (unique_names(&world))
			check_untouched(&world, dir);
	}
	free_world(&world);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};

	if (in_u8(&in) % 4u == 0)
		fuzz_record(&in);
	else
		fuzz_recovery(&in);
	return 0;
}

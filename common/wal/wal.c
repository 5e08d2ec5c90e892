/*
 * wal.c - see wal.h: opening, appending, syncing and reading. recover.c, cut.c, trim.c and cursor.c hold the rest.
 */
#include "common/wal/wal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/wal/log.h"
#include "common/wal/segment.h"

struct segment *log_find(const struct wal *w, uint64_t lsn)
{
	size_t low = 0, high = w->segment_count, middle;

	while (low < high) { /* the first segment that begins after lsn */
		middle = low + (high - low) / 2;
		if (w->segments[middle]->first_lsn <= lsn)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || lsn - w->segments[low - 1]->first_lsn >= w->segments[low - 1]->count)
		return NULL;
	return w->segments[low - 1];
}

uint64_t log_first_lsn(const struct wal *w)
{
	return w->segment_count == 0 ? w->last.lsn + 1 : w->segments[0]->first_lsn;
}

bool log_reserve_segment(struct wal *w)
{
	size_t cap = w->segment_cap == 0 ? 16 : w->segment_cap * 2;
	struct segment **segments;

	if (w->segment_count < w->segment_cap)
		return true;
	segments = (struct segment **)realloc(w->segments, cap * sizeof(*segments));
	if (segments == NULL)
		return false;
	w->segments = segments;
	w->segment_cap = cap;
	return true;
}

bool log_reserve_term(struct wal *w)
{
	size_t cap = w->term_cap == 0 ? 16 : w->term_cap * 2;
	struct wal_pos *terms;

	if (w->term_count < w->term_cap)
		return true;
	terms = (struct wal_pos *)realloc(w->terms, cap * sizeof(*terms));
	if (terms == NULL)
		return false;
	w->terms = terms;
	w->term_cap = cap;
	return true;
}

void log_note_term(struct wal *w, struct wal_pos pos)
{
	if (w->term_count > 0 && w->terms[w->term_count - 1].term == pos.term)
		return;
	assert(w->term_count < w->term_cap);
	w->terms[w->term_count++] = pos;
}

uint64_t log_term_at(const struct wal *w, uint64_t lsn)
{
	size_t i = w->term_count;

	while (i > 0 && w->terms[i - 1].lsn > lsn)
		i--;
	return i == 0 ? 0 : w->terms[i - 1].term;
}

struct segment *log_unpin(struct segment *s)
{
	assert(s->pins > 0);
	s->pins--;
	return s->detached && s->pins == 0 ? s : NULL;
}

struct segment *log_detach(struct segment *s)
{
	s->detached = true;
	return s->pins == 0 ? s : NULL;
}

void log_fail(struct wal *w, const struct errmsg *em)
{
	log_error("log: refuses further writes until it is reopened: %s", em == NULL ? "?" : em->text);
	pthread_mutex_lock(&w->lock);
	w->failed = true;
	pthread_mutex_unlock(&w->lock);
}

enum db_err log_failed_error(struct errmsg *em)
{
	return errmsg_set(em, DB_IO, "the log failed earlier and must be reopened");
}

enum db_err wal_open(struct wal **out, const struct wal_options *options, struct errmsg *em)
{
	struct wal *w;
	enum db_err err;

	*out = NULL;
	if (options->segment_size_bytes < WAL_SEGMENT_SIZE_MIN)
		return errmsg_set(em, DB_INVALID, "a log segment of %zu bytes is too small",
				  options->segment_size_bytes);
	w = (struct wal *)calloc(1, sizeof(*w));
	if (w == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for the log");
	w->segment_size_bytes = options->segment_size_bytes & ~(size_t)7;
	w->low_space_bytes = options->low_space_bytes;
	w->base = options->base;
	w->base_checksum = options->base_checksum;
	pthread_mutex_init(&w->sync_lock, NULL); /* cannot fail with default attributes */
	pthread_mutex_init(&w->index_lock, NULL);
	pthread_mutex_init(&w->lock, NULL);
	err = wal_dir_open(&w->dir, options->dir, options->faults, em);
	w->dir.pulse = options->pulse;
	if (err == DB_OK)
		err = log_recover(w, em);
	if (err != DB_OK) {
		wal_close(w);
		errmsg_context(em, "log \"%s\"", options->dir);
		return err;
	}
	*out = w;
	return DB_OK;
}

void wal_close(struct wal *w)
{
	size_t i;

	if (w == NULL)
		return;
	for (i = 0; i < w->segment_count; i++) {
		assert(w->segments[i]->pins == 0); /* every cursor must have been freed */
		segment_free(w->segments[i]);
	}
	for (i = 0; i < w->spare_count; i++)
		segment_free(w->spares[i]);
	free(w->segments);
	free(w->terms);
	wal_dir_close(&w->dir);
	pthread_mutex_destroy(&w->lock);
	pthread_mutex_destroy(&w->index_lock);
	pthread_mutex_destroy(&w->sync_lock);
	free(w);
}

struct wal_pos wal_last(struct wal *w)
{
	struct wal_pos last;

	pthread_mutex_lock(&w->lock);
	last = w->last;
	pthread_mutex_unlock(&w->lock);
	return last;
}

uint64_t wal_last_checksum(struct wal *w)
{
	uint64_t checksum;

	pthread_mutex_lock(&w->lock);
	checksum = w->last_checksum;
	pthread_mutex_unlock(&w->lock);
	return checksum;
}

uint64_t wal_durable_lsn(struct wal *w)
{
	uint64_t lsn;

	pthread_mutex_lock(&w->lock);
	lsn = w->durable_lsn;
	pthread_mutex_unlock(&w->lock);
	return lsn;
}

uint64_t wal_first_lsn(struct wal *w)
{
	uint64_t lsn;

	pthread_mutex_lock(&w->lock);
	lsn = log_first_lsn(w);
	pthread_mutex_unlock(&w->lock);
	return lsn;
}

uint64_t wal_size_bytes(struct wal *w)
{
	uint64_t bytes = 0;
	size_t i;

	pthread_mutex_lock(&w->lock);
	for (i = 0; i < w->segment_count; i++)
		bytes += w->segments[i]->size;
	for (i = 0; i < w->spare_count; i++)
		bytes += w->spares[i]->size;
	pthread_mutex_unlock(&w->lock);
	return bytes;
}

size_t wal_terms(struct wal *w, struct wal_pos *out, size_t max)
{
	size_t n;

	pthread_mutex_lock(&w->lock);
	n = w->term_count < max ? w->term_count : max;
	if (n > 0)
		memcpy(out, w->terms + (w->term_count - n), n * sizeof(*out));
	pthread_mutex_unlock(&w->lock);
	return n;
}

/* The header of a record that comes in pieces, and whether the pieces are as long as it says. */
static enum db_err decode_pieces(struct wal_record *r, const struct iovec *pieces, size_t count, struct errmsg *em)
{
	uint8_t header[WAL_RECORD_HEADER_SIZE];
	uint64_t total = 0;
	size_t have = 0, n, i;
	enum db_err err;

	for (i = 0; i < count; i++) {
		n = sizeof(header) - have < pieces[i].iov_len ? sizeof(header) - have : pieces[i].iov_len;
		if (n > 0)
			memcpy(header + have, pieces[i].iov_base, n);
		have += n;
		total += pieces[i].iov_len;
	}
	if (have < sizeof(header))
		return errmsg_set(em, DB_INVALID, "a record of %zu bytes cannot be appended", have);
	err = wal_record_decode_header(r, header, em);
	if (err != DB_OK) {
		errmsg_context(em, "a bad record cannot be appended");
		if (em != NULL)
			em->err = DB_INVALID; /* DB_CORRUPT would say that the log is damaged */
		return DB_INVALID;
	}
	if (total != WAL_RECORD_HEADER_SIZE + r->payload_len)
		return errmsg_set(em, DB_INVALID,
				  "record %" PRIu64 ": %" PRIu64 " bytes given, its header says %" PRIu64, r->lsn,
				  total, WAL_RECORD_HEADER_SIZE + r->payload_len);
	return DB_OK;
}

/* Invariants (1) and (2): the record continues the log. */
static enum db_err check_continues(const struct wal *w, const struct wal_record *r, struct errmsg *em)
{
	if (r->lsn != w->last.lsn + 1)
		return errmsg_set(em, DB_INVALID, "record %" PRIu64 " cannot follow record %" PRIu64, r->lsn,
				  w->last.lsn);
	if (r->prev_checksum != w->last_checksum)
		return errmsg_set(em, DB_INVALID, "record %" PRIu64 " belongs to another history", r->lsn);
	if (r->term < w->last.term)
		return errmsg_set(em, DB_INVALID,
				  "record %" PRIu64 " is of term %" PRIu64 ", the log is in term %" PRIu64, r->lsn,
				  r->term, w->last.term);
	return DB_OK;
}

/* Makes a new last segment for a record of that many bytes. Nothing changes in w unless it is DB_OK. */
static enum db_err begin_segment(struct wal *w, uint64_t record_size, struct errmsg *em)
{
	uint64_t number, size = segment_size_for(record_size);
	struct segment *s = NULL, *old = NULL;
	struct wal_pos last;
	enum db_err err = DB_OK;
	uint64_t checksum, durable_lsn;

	pthread_mutex_lock(&w->lock);
	if (!log_reserve_segment(w))
		err = errmsg_set(em, DB_NOMEM, "no memory for another log segment");
	else if (w->spare_count > 0 && size <= w->segment_size_bytes)
		s = w->spares[--w->spare_count];
	number = ++w->file_number;
	last = w->last;
	checksum = w->last_checksum;
	durable_lsn = w->durable_lsn;
	pthread_mutex_unlock(&w->lock);
	if (err != DB_OK)
		return err;
	if (size < w->segment_size_bytes)
		size = w->segment_size_bytes;
	if (s == NULL && record_size > WAL_RECORD_HEADER_SIZE)
		err = log_check_space(w, size, em);
	if (s == NULL && err == DB_OK)
		err = segment_create(&s, &w->dir, number, (size_t)size, em);
	if (err != DB_OK)
		return err;
	err = segment_begin(s, &w->dir, last.lsn + 1, checksum, durable_lsn, em);
	if (err != DB_OK) {
		if (wal_file_unlink(&w->dir, s->name, NULL) != DB_OK)
			log_warn("log: unused file \"%s\" stays until the next start", s->name);
		segment_free(s);
		return err;
	}
	pthread_mutex_lock(&w->lock);
	/* A last segment that is still empty has the same name: the new file has just replaced it. */
	if (w->segment_count > 0 && w->segments[w->segment_count - 1]->count == 0)
		old = log_detach(w->segments[--w->segment_count]);
	w->segments[w->segment_count++] = s;
	w->dir_dirty = true;
	pthread_mutex_unlock(&w->lock);
	segment_free(old);
	return DB_OK;
}

/* After a failed write: the record may have reached the file whole but for bytes that were there before. As long as its
 * frame stands in the file a crash could bring it back, so the frame goes. */
static void undo_write(struct wal *w, const struct segment *s)
{
	struct errmsg em = {0};
	enum db_err err;

	if (!segment_has_frame(s, s->used))
		return;
	err = wal_file_zero(&w->dir, s->fd, s->name, s->used, FRAME_SIZE + WAL_RECORD_HEADER_SIZE, &em);
	if (err == DB_OK)
		err = wal_file_sync(&w->dir, s->fd, s->name, &em);
	if (err != DB_OK)
		log_fail(w, &em);
}

static enum db_err prepare_append(struct wal *w, const struct wal_record *r, struct segment **out, uint64_t *synced_lsn,
				  struct errmsg *em)
{
	struct segment *s;
	enum db_err err;

	pthread_mutex_lock(&w->lock);
	err = w->failed ? log_failed_error(em) : check_continues(w, r, em);
	s = w->segment_count == 0 ? NULL : w->segments[w->segment_count - 1];
	pthread_mutex_unlock(&w->lock);
	if (err != DB_OK)
		return err;
	if (s == NULL || !segment_fits(s, WAL_RECORD_HEADER_SIZE + r->payload_len))
		err = begin_segment(w, WAL_RECORD_HEADER_SIZE + r->payload_len, em);
	if (err != DB_OK)
		return err;
	pthread_mutex_lock(&w->lock);
	*out = w->segments[w->segment_count - 1];
	*synced_lsn = w->durable_lsn;
	if (!segment_reserve(*out) || !log_reserve_term(w))
		err = errmsg_set(em, DB_NOMEM, "no memory to append record %" PRIu64, r->lsn);
	pthread_mutex_unlock(&w->lock);
	return err;
}

enum db_err wal_append(struct wal *w, const struct iovec *pieces, int piece_count, struct wal_record *out,
		       struct errmsg *em)
{
	struct wal_record r;
	struct segment *s;
	uint64_t size, synced_lsn;
	enum db_err err;

	if (piece_count <= 0)
		return errmsg_set(em, DB_INVALID, "an empty record cannot be appended");
	err = decode_pieces(&r, pieces, (size_t)piece_count, em);
	if (err == DB_OK)
		err = prepare_append(w, &r, &s, &synced_lsn, em);
	if (err != DB_OK)
		return err;
	size = WAL_RECORD_HEADER_SIZE + r.payload_len;
	err = segment_write(s, &w->dir, synced_lsn, r.checksum, pieces, (size_t)piece_count, em);
	if (err != DB_OK) {
		undo_write(w, s);
		return err;
	}
	r.payload = s->map + s->used + FRAME_SIZE + WAL_RECORD_HEADER_SIZE;
	pthread_mutex_lock(&w->lock);
	segment_publish(s, size);
	log_note_term(w, (struct wal_pos){.term = r.term, .lsn = r.lsn});
	w->last = (struct wal_pos){.term = r.term, .lsn = r.lsn};
	w->last_checksum = r.checksum;
	pthread_mutex_unlock(&w->lock);
	*out = r;
	return DB_OK;
}

/* Syncs the segments that hold durable_lsn + 1 to target one after another; lock is held on entry and on return. */
static enum db_err sync_segments(struct wal *w, uint64_t target, struct errmsg *em)
{
	uint64_t done = w->durable_lsn;
	struct segment *s, *gone;
	enum db_err err = DB_OK;

	while (done < target && err == DB_OK) {
		s = log_find(w, done + 1);
		if (s == NULL) { /* trimmed meanwhile: nobody needs it any more */
			done = log_first_lsn(w) - 1;
			continue;
		}
		done = segment_last_lsn(s);
		s->pins++;
		pthread_mutex_unlock(&w->lock);
		err = wal_file_sync(&w->dir, s->fd, s->name, em);
		pthread_mutex_lock(&w->lock);
		gone = log_unpin(s);
		assert(gone == NULL); /* a pinned segment is not trimmed, and a cut waits for sync_lock */
		(void)gone;
	}
	return err;
}

enum db_err log_sync_locked(struct wal *w, uint64_t *durable_lsn, struct errmsg *em)
{
	struct errmsg own = {0};
	uint64_t target;
	enum db_err err = DB_OK;
	bool dir_dirty;

	pthread_mutex_lock(&w->lock);
	if (w->failed) {
		pthread_mutex_unlock(&w->lock);
		return log_failed_error(em);
	}
	target = w->last.lsn;
	dir_dirty = w->dir_dirty;
	w->dir_dirty = false; /* a rename from here on belongs to records behind target */
	if (dir_dirty) {
		pthread_mutex_unlock(&w->lock);
		err = wal_dir_sync(&w->dir, &own);
		pthread_mutex_lock(&w->lock);
	}
	if (err == DB_OK)
		err = sync_segments(w, target, &own);
	if (err == DB_OK && w->failed)
		err = log_failed_error(&own); /* an append failed meanwhile, for good */
	if (err == DB_OK && target > w->durable_lsn)
		w->durable_lsn = target;
	if (err == DB_OK && durable_lsn != NULL)
		*durable_lsn = w->durable_lsn;
	pthread_mutex_unlock(&w->lock);
	if (err == DB_OK)
		return DB_OK;
	log_fail(w, &own);
	return errmsg_set(em, DB_IO, "%s", own.text);
}

enum db_err wal_sync(struct wal *w, uint64_t *durable_lsn, struct errmsg *em)
{
	enum db_err err;

	pthread_mutex_lock(&w->sync_lock);
	err = log_sync_locked(w, durable_lsn, em);
	pthread_mutex_unlock(&w->sync_lock);
	return err;
}

enum db_err wal_read(struct wal *w, uint64_t lsn, struct wal_record *out, struct errmsg *em)
{
	struct segment *s, *gone = NULL;
	uint64_t offset;
	enum db_err err;

	pthread_mutex_lock(&w->lock);
	err = log_locate(w, lsn, &s, &offset, em);
	if (s == NULL)
		err = errmsg_set(em, DB_NOTFOUND, "record %" PRIu64 " is not in the log (%" PRIu64 " to %" PRIu64 ")",
				 lsn, log_first_lsn(w), w->last.lsn);
	pthread_mutex_unlock(&w->lock);
	if (s == NULL)
		return err;
	if (err == DB_OK)
		err = segment_record(s, lsn, offset, out, em);
	pthread_mutex_lock(&w->lock);
	gone = log_unpin(s);
	pthread_mutex_unlock(&w->lock);
	segment_free(gone);
	return err;
}

/* Pins the first segment from *lsn on when it ends below below_lsn, and moves *lsn behind it; NULL: none is left. */
static struct segment *pin_next_below(struct wal *w, uint64_t *lsn, uint64_t below_lsn)
{
	struct segment *s;

	pthread_mutex_lock(&w->lock);
	if (*lsn < log_first_lsn(w))
		*lsn = log_first_lsn(w);
	s = log_find(w, *lsn);
	if (s != NULL && segment_last_lsn(s) < below_lsn) {
		s->pins++;
		*lsn = segment_last_lsn(s) + 1;
	} else {
		s = NULL;
	}
	pthread_mutex_unlock(&w->lock);
	return s;
}

void wal_release(struct wal *w, uint64_t below_lsn)
{
	struct segment *s, *gone;
	uint64_t lsn = 0;

	while ((s = pin_next_below(w, &lsn, below_lsn)) != NULL) {
		segment_release(s);
		pthread_mutex_lock(&w->lock);
		gone = log_unpin(s);
		pthread_mutex_unlock(&w->lock);
		segment_free(gone);
	}
}

const uint8_t *wal_record_bytes(const struct wal_record *r, size_t *len)
{
	*len = (size_t)(WAL_RECORD_HEADER_SIZE + r->payload_len);
	return r->payload - WAL_RECORD_HEADER_SIZE;
}

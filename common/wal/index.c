/*
 * index.c - records of old segments: found when somebody first asks for one.
 *
 * What lies below the base was durable before the base file took it in, so opening the log need not look at it: only at
 * each segment's header and the header of its first record. That says which records a segment holds (LSNs are dense),
 * and nearly always in which terms (they ascend: where two segments begin with the same term, none begins between).
 * The first reader of such a segment walks it: every frame, every checksum, and that it joins its neighbours. Damage
 * found then concerns the records from there to the end of that segment and nothing else: whoever asks for one gets
 * DB_CORRUPT, and the log says so once.
 *
 * The history of terms is made of verified records alone. Where damage hides a part of it, it begins behind the damage,
 * like the history of a log that was trimmed so far.
 *
 * log_locate(): any reader's thread; the rest: wal_open(), before another thread knows the log.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "common/base/log.h"
#include "common/wal/log.h"
#include "common/wal/segment.h"

/* A walk through a segment that others can see: what it found, published when it is done. */
struct found {
	uint64_t *offsets; /* room for all records of the segment */
	size_t count;
	size_t used;
};

/* Every record that the segment must hold, up to the first that is not intact: DB_CORRUPT. */
static enum db_err walk_records(const struct segment *s, struct found *f, struct errmsg *em)
{
	uint64_t lsn = s->first_lsn, checksum = s->prev_checksum, term = 0;
	struct wal_record r;
	enum db_err err;

	for (; f->count < s->count; lsn++) {
		err = segment_check(s, f->used, &r, em);
		if (err != DB_OK)
			return DB_CORRUPT;
		if (r.lsn != lsn || r.prev_checksum != checksum || r.term < term)
			return errmsg_set(em, DB_CORRUPT, "record %" PRIu64 " does not follow the one before", r.lsn);
		f->offsets[f->count++] = f->used + FRAME_SIZE;
		f->used += FRAME_SIZE + WAL_RECORD_HEADER_SIZE + (size_t)r.payload_len;
		checksum = r.checksum;
		term = r.term;
	}
	if (s->next_known && checksum != s->next_checksum) {
		f->count = 0; /* one of the two is of another history, and the next one leads to the base */
		return errmsg_set(em, DB_CORRUPT, "the next segment does not continue it");
	}
	return DB_OK;
}

static void publish(struct wal *w, struct segment *s, const struct found *f)
{
	pthread_mutex_lock(&w->lock);
	s->offsets = f->offsets;
	s->offsets_cap = f->offsets == NULL ? 0 : s->count;
	s->indexed = f->count;
	s->used = f->used;
	s->walked = true;
	pthread_mutex_unlock(&w->lock);
}

static void complain(const struct segment *s, size_t intact, size_t at, const char *why)
{
	log_error("log: \"%s\" is damaged at record %" PRIu64 " (byte %zu), records up to %" PRIu64
		  " cannot be read: %s",
		  s->name, s->first_lsn + intact, at, segment_last_lsn(s), why);
}

/* With index_lock: nobody else walks, and while s is not walked nobody changes it. */
static enum db_err walk_segment(struct wal *w, struct segment *s, struct errmsg *em)
{
	struct found f = {.used = SEGMENT_HEADER_SIZE};
	struct errmsg own = {0};

	if (s->count > segment_count_max(s->size)) { /* where a file is missing behind it, or it is cut short */
		complain(s, 0, f.used, "it cannot hold so many records");
		publish(w, s, &f);
		return DB_OK;
	}
	f.offsets = (uint64_t *)malloc(s->count * sizeof(*f.offsets));
	if (f.offsets == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory to index the log");
	segment_read_ahead(s);
	if (walk_records(s, &f, &own) != DB_OK)
		complain(s, f.count, f.used, own.text);
	publish(w, s, &f);
	return DB_OK;
}

/* Without lock; s is pinned, or no other thread knows the log. DB_OK: s is walked, but may be damaged. */
static enum db_err index_segment(struct wal *w, struct segment *s, struct errmsg *em)
{
	enum db_err err = DB_OK;

	pthread_mutex_lock(&w->index_lock);
	if (!s->walked) /* set under both locks */
		err = walk_segment(w, s, em);
	pthread_mutex_unlock(&w->index_lock);
	return err;
}

enum db_err log_locate(struct wal *w, uint64_t lsn, struct segment **out, uint64_t *offset, struct errmsg *em)
{
	struct segment *s = log_find(w, lsn);
	enum db_err err = DB_OK;

	*out = s;
	if (s == NULL)
		return DB_NOTFOUND;
	s->pins++;
	if (!s->walked) {
		pthread_mutex_unlock(&w->lock);
		err = index_segment(w, s, em);
		segment_release(s); /* who reads on finds the pages in the page cache */
		pthread_mutex_lock(&w->lock);
	}
	/* Still s holds it: nobody trims what is pinned, or cuts what is below the base. */
	return err == DB_OK ? segment_locate(s, lsn, offset, em) : err;
}

void log_mark_old(struct wal *w, size_t old_count)
{
	struct segment *s;
	const struct segment *next;
	size_t i;

	for (i = 0; i < old_count; i++) {
		s = w->segments[i];
		next = w->segments[i + 1];
		assert(s->first_lsn < next->first_lsn);
		s->count = (size_t)(next->first_lsn - s->first_lsn);
		s->walked = s->header_bad; /* without a header nothing in it can be trusted */
		s->next_known = !next->header_bad;
		s->next_checksum = next->prev_checksum;
		if (s->header_bad)
			complain(s, 0, 0, "its header is damaged");
	}
}

/* What is not verified, or after damage: the history begins anew. */
static void forget_terms(struct wal *w, const struct segment *s)
{
	if (w->term_count > 0)
		log_warn("log: the history of terms before \"%s\" is not used", s->name);
	w->term_count = 0;
}

static enum db_err note_old_term(struct wal *w, const struct segment *s, struct wal_pos pos, struct errmsg *em)
{
	if (w->term_count > 0 && w->terms[w->term_count - 1].term > pos.term)
		forget_terms(w, s); /* terms ascend: something before is of another history */
	if (!log_reserve_term(w))
		return errmsg_set(em, DB_NOMEM, "no memory for the history of terms");
	log_note_term(w, pos);
	return DB_OK;
}

/* Walks s and notes the terms of its records. */
static enum db_err note_terms_within(struct wal *w, struct segment *s, struct errmsg *em)
{
	struct wal_record r;
	enum db_err err = index_segment(w, s, em);
	size_t i;

	for (i = 0; i < s->indexed && err == DB_OK; i++) {
		err = segment_record(s, s->first_lsn + i, s->offsets[i], &r, em);
		if (err == DB_OK)
			err = note_old_term(w, s, (struct wal_pos){.term = r.term, .lsn = r.lsn}, em);
	}
	if (err == DB_OK && s->indexed < s->count)
		forget_terms(w, s);
	return err;
}

/* Notes the terms of old segment s, whose successor begins with next_term. */
static enum db_err note_terms_of(struct wal *w, struct segment *s, bool next_term_known, uint64_t next_term,
				 struct errmsg *em)
{
	struct wal_record first;

	if (s->walked || !next_term_known || segment_peek_first(s, &first, NULL) != DB_OK || first.term != next_term)
		return note_terms_within(w, s, em);
	if (w->term_count > 0 && w->terms[w->term_count - 1].term == first.term)
		return DB_OK;
	/* A term begins with its first record: that one must be intact to be believed. */
	if (segment_check(s, SEGMENT_HEADER_SIZE, &first, NULL) != DB_OK || first.lsn != s->first_lsn ||
	    first.term != next_term)
		return note_terms_within(w, s, em);
	return note_old_term(w, s, (struct wal_pos){.term = first.term, .lsn = first.lsn}, em);
}

enum db_err log_add_old_terms(struct wal *w, size_t old_count, struct errmsg *em)
{
	const size_t newer_count = w->term_count;
	struct wal_pos *newer = w->terms;
	struct wal_record next;
	enum db_err err = DB_OK;
	bool known;
	size_t i;

	if (old_count == 0)
		return DB_OK;
	assert(newer_count > 0); /* the first segment walked holds the base, or what a cut left of the log */
	w->terms = NULL;
	w->term_count = w->term_cap = 0;
	for (i = 0; i < old_count && err == DB_OK; i++) {
		next.term = newer[0].term; /* the first walked record's */
		known = i + 1 == old_count || (!w->segments[i + 1]->header_bad &&
					       segment_peek_first(w->segments[i + 1], &next, NULL) == DB_OK);
		err = note_terms_of(w, w->segments[i], known, next.term, em);
	}
	for (i = 0; i < newer_count && err == DB_OK; i++)
		err = note_old_term(w, w->segments[old_count], newer[i], em);
	free(newer);
	return err;
}

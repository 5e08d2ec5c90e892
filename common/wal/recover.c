/*
 * recover.c - what wal_open() finds on disk, and what it makes of it.
 *
 * In order: load the files; walk the records from the segment of the base on, each fully checked, to the first that is
 * not intact; judge whether that one is the torn end of the log or damage; check that the log joins the base; learn the
 * terms of the older segments (index.c); only then change anything: remove what lies behind the end, erase a torn tail,
 * finish a cut, write again what may not be durable, sync. Whatever refuses the log leaves its files as they were. Every step may be interrupted and done
 * again: what is removed or erased lies behind the end that was judged, so the same end is found again.
 *
 * Segments wholly below the base are not walked: what they hold is in the base file, recovery does not need it, and the
 * time to open does not grow with the log that is kept for replicas. They were durable before the base could name a
 * record behind them, so they cannot hold the end, and damage in them is left to whoever reads it.
 *
 * Runs before any other thread knows the log.
 */
#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/wal/log.h"
#include "common/wal/segment.h"

#define LSN_DIGITS    20u
#define REWRITE_BYTES 16384u

/* Where the walk ended. */
struct end {
	size_t old;        /* so many segments lie below the base and are not walked */
	size_t kept;       /* so many segments stay, the old ones included; the last of them holds the end */
	bool torn;         /* remains of records stand behind the end in the last segment that stays */
	bool anew;         /* nothing stays: the log begins after the base */
	struct wal_pos at; /* the last intact record */
	uint64_t checksum; /* its checksum */
};

static bool has_suffix(const char *name, const char *suffix, size_t digits_min, size_t digits_max)
{
	size_t digits = 0;

	while (isdigit((unsigned char)name[digits]))
		digits++;
	return digits >= digits_min && digits <= digits_max && strcmp(name + digits, suffix) == 0;
}

/* A spare of the right size is kept, whatever is in it; any other goes. */
static enum db_err load_spare(struct wal *w, const char *name, struct errmsg *em)
{
	uint64_t number = strtoull(name, NULL, 10);
	struct segment *s = NULL;
	enum db_err err = segment_open(&s, &w->dir, name, em);

	if (number > w->file_number && number < UINT64_MAX / 2)
		w->file_number = number;
	if (err == DB_OK && s->size == w->segment_size_bytes && w->spare_count < LOG_SPARES_MAX) {
		w->spares[w->spare_count++] = s;
		return DB_OK;
	}
	segment_free(s);
	if (err != DB_OK && err != DB_CORRUPT)
		return err;
	return wal_file_unlink(&w->dir, name, em);
}

static enum db_err load_segment(struct wal *w, const char *name, struct errmsg *em)
{
	struct segment *s;
	enum db_err err;

	if (!log_reserve_segment(w))
		return errmsg_set(em, DB_NOMEM, "no memory for the list of log segments");
	err = segment_open(&s, &w->dir, name, em);
	if (err != DB_OK)
		return err;
	w->segments[w->segment_count++] = s;
	err = segment_read_header(s, em);
	if (err == DB_INVALID)
		return err; /* a newer version's: nothing here is ours to judge */
	if (err != DB_OK) { /* it depends on its place what that means: find_old() */
		s->first_lsn = strtoull(name, NULL, 10);
		s->header_bad = true;
	}
	if (s->first_lsn == 0) /* the record before its first would have the highest number there is */
		return errmsg_set(em, DB_CORRUPT, "\"%s\" says that it begins with record 0", name);
	return DB_OK;
}

static enum db_err load_file(struct wal *w, const char *name, struct errmsg *em)
{
	if (has_suffix(name, ".wal", LSN_DIGITS, LSN_DIGITS))
		return load_segment(w, name, em);
	if (has_suffix(name, ".spare", 1, LSN_DIGITS))
		return load_spare(w, name, em);
	if (has_suffix(name, ".tmp", 1, LSN_DIGITS) || strcmp(name, LOG_CUT_NAME ".tmp") == 0)
		return wal_file_unlink(&w->dir, name, em);
	return DB_OK; /* not ours */
}

static int compare_segments(const void *a, const void *b)
{
	const struct segment *const *x = (const struct segment *const *)a, *const *y = (const struct segment *const *)b;

	return (*x)->first_lsn < (*y)->first_lsn ? -1 : (*x)->first_lsn > (*y)->first_lsn;
}

static enum db_err load_files(struct wal *w, struct errmsg *em)
{
	enum db_err err = DB_OK;
	struct dirent *entry;
	DIR *dir;
	int fd = openat(w->dir.fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return errmsg_errno(em, errno, "cannot list the log's directory");
	dir = fdopendir(fd);
	if (dir == NULL) {
		err = errmsg_errno(em, errno, "cannot list the log's directory");
		close(fd);
		return err;
	}
	for (errno = 0; err == DB_OK && (entry = readdir(dir)) != NULL; errno = 0)
		err = load_file(w, entry->d_name, em);
	if (err == DB_OK && errno != 0)
		err = errmsg_errno(em, errno, "cannot list the log's directory");
	closedir(dir);
	if (err == DB_OK && w->segment_count > 0)
		qsort(w->segments, w->segment_count, sizeof(*w->segments), compare_segments);
	return err;
}

/* Indexes the intact records of s that continue the log, up to limit. */
static enum db_err walk_segment(struct wal *w, struct segment *s, uint64_t limit, struct end *end, struct errmsg *em)
{
	struct wal_record r;

	while (end->at.lsn < limit && segment_check(s, s->used, &r, NULL) == DB_OK) {
		if (r.lsn != end->at.lsn + 1 || r.prev_checksum != end->checksum || r.term < end->at.term)
			break;
		if (!segment_reserve(s) || !log_reserve_term(w))
			return errmsg_set(em, DB_NOMEM, "no memory to index the log");
		segment_publish(s, WAL_RECORD_HEADER_SIZE + r.payload_len);
		end->at = (struct wal_pos){.term = r.term, .lsn = r.lsn};
		end->checksum = r.checksum;
		log_note_term(w, end->at);
	}
	return DB_OK;
}

static bool continues(const struct segment *s, const struct end *end)
{
	return s->first_lsn == end->at.lsn + 1 && s->prev_checksum == end->checksum;
}

/* Sets the old segments apart: those before the one that holds the base's record (or the end that a cut wants, when that
 * is before it; or the log's end, when all of it is). DB_CORRUPT: the header of one that is not old is damaged. */
static enum db_err find_old(struct wal *w, uint64_t limit, struct end *end, struct errmsg *em)
{
	const uint64_t lsn = w->base.lsn < limit ? w->base.lsn : limit;
	enum db_err err = DB_OK;
	size_t i;

	for (end->old = w->segment_count - 1; end->old > 0 && w->segments[end->old]->first_lsn > lsn;)
		end->old--;
	for (i = end->old; i < w->segment_count && err == DB_OK; i++) {
		if (w->segments[i]->header_bad)
			err = segment_read_header(w->segments[i], em);
		else
			segment_read_ahead(w->segments[i]);
	}
	if (err == DB_OK)
		log_mark_old(w, end->old);
	return err;
}

/* Walks all segments but the old ones; w holds at least one. Only records up to limit are taken. */
static enum db_err walk(struct wal *w, uint64_t limit, struct end *end, struct errmsg *em)
{
	const struct segment *first = w->segments[end->old];
	enum db_err err = DB_OK;

	end->at.lsn = first->first_lsn - 1;
	end->checksum = first->prev_checksum;
	if (end->at.lsn == w->base.lsn && w->base.lsn > 0) { /* the record before is the base's: its term is known */
		if (!log_reserve_term(w))
			return errmsg_set(em, DB_NOMEM, "no memory to index the log");
		end->at.term = w->base.term;
		log_note_term(w, w->base);
	}
	for (end->kept = end->old; end->kept < w->segment_count && err == DB_OK; end->kept++) {
		if (!continues(w->segments[end->kept], end) || (end->kept > end->old && end->at.lsn == limit))
			break;
		err = walk_segment(w, w->segments[end->kept], limit, end, em);
	}
	return err;
}

/* Decides whether the record after the end is a torn one or damage: DB_CORRUPT when anything behind says that it had
 * been durable. Nothing before the end can say so, in old segments or others: what a frame or a header says to be synced
 * is always below its own records. */
static enum db_err judge(const struct wal *w, struct end *end, struct errmsg *em)
{
	const struct segment *last = w->segments[end->kept - 1]; /* the first segment always continues itself */
	uint64_t synced_lsn = 0;
	size_t i;

	end->torn = segment_scan(last, last->used, &synced_lsn);
	for (i = end->kept; i < w->segment_count; i++) {
		if (w->segments[i]->synced_lsn > synced_lsn)
			synced_lsn = w->segments[i]->synced_lsn;
		segment_scan(w->segments[i], SEGMENT_HEADER_SIZE, &synced_lsn);
	}
	if (synced_lsn <= end->at.lsn)
		return DB_OK;
	return errmsg_set(em, DB_CORRUPT,
			  "record %" PRIu64
			  " is damaged or missing (\"%s\", byte %zu) though everything up to record %" PRIu64
			  " had been durable",
			  end->at.lsn + 1, last->name, last->used, synced_lsn);
}

/* The end is where an interrupted cut wanted it. */
static enum db_err check_cut(const struct wal *w, const struct cut_intent *intent, struct end *end, struct errmsg *em)
{
	if (end->at.lsn != intent->keep_lsn || end->checksum != intent->keep_checksum)
		return errmsg_set(em, DB_CORRUPT,
				  "an interrupted cut kept record %" PRIu64 ", but the log from record %" PRIu64
				  " is intact only up to record %" PRIu64,
				  intent->keep_lsn, w->segments[0]->first_lsn, end->at.lsn);
	end->torn = true;
	return DB_OK;
}

/* Whether the log continues the base; also finds that it holds nothing beyond it and begins anew. */
static enum db_err join_base(const struct wal *w, struct end *end, struct errmsg *em)
{
	const uint64_t first_lsn = w->segments[0]->first_lsn;
	const struct segment *s;
	struct wal_record r;
	uint64_t offset;
	enum db_err err;
	bool joins;

	if (first_lsn > w->base.lsn + 1)
		return errmsg_set(em, DB_CORRUPT,
				  "it begins with record %" PRIu64 ", but the base file ends with record %" PRIu64,
				  first_lsn, w->base.lsn);
	if (end->at.lsn < w->base.lsn) {
		end->anew = true;
		return DB_OK;
	}
	s = log_find(w, w->base.lsn);
	if (s == NULL) { /* the base is the record before the first */
		joins = w->segments[0]->prev_checksum == w->base_checksum;
	} else {
		err = segment_locate(s, w->base.lsn, &offset, em);
		if (err == DB_OK)
			err = segment_record(s, w->base.lsn, offset, &r, em);
		if (err != DB_OK)
			return err;
		joins = r.checksum == w->base_checksum && r.term == w->base.term;
	}
	end->anew = !joins && end->at.lsn == w->base.lsn;
	if (!joins && !end->anew)
		return errmsg_set(em, DB_CORRUPT,
				  "record %" PRIu64 " of the log is not the one that the base file ends with",
				  w->base.lsn);
	return DB_OK;
}

static enum db_err remove_segments(struct wal *w, size_t kept, struct errmsg *em)
{
	struct segment *s;
	enum db_err err;

	while (w->segment_count > kept) {
		s = w->segments[w->segment_count - 1];
		log_warn("log: removes \"%s\", it holds nothing that was acknowledged and is not in the base file",
			 s->name);
		err = wal_file_unlink(&w->dir, s->name, em);
		if (err != DB_OK)
			return err;
		w->segment_count--;
		segment_free(s);
	}
	return DB_OK;
}

/* Spares go too: what their frames hold may have higher LSNs than the log will. */
static enum db_err start_anew(struct wal *w, struct errmsg *em)
{
	enum db_err err = remove_segments(w, 0, em);

	while (err == DB_OK && w->spare_count > 0) {
		err = wal_file_unlink(&w->dir, w->spares[w->spare_count - 1]->name, em);
		if (err == DB_OK)
			segment_free(w->spares[--w->spare_count]);
	}
	w->term_count = 0;
	if (err == DB_OK && !log_reserve_term(w))
		err = errmsg_set(em, DB_NOMEM, "no memory for the history of terms");
	if (err == DB_OK && w->base.lsn > 0)
		log_note_term(w, w->base);
	w->last = w->base;
	w->last_checksum = w->base_checksum;
	return err;
}

/* The highest LSN that the files themselves show to have been durable. Frames never claim less than the ones before. */
static uint64_t proven_lsn(const struct wal *w, const struct end *end)
{
	const struct segment *s;
	size_t i;

	for (i = end->kept; i > end->old; i--) {
		s = w->segments[i - 1];
		if (s->count > 0 && s->indexed == s->count)
			return segment_synced_lsn(s, segment_last_lsn(s));
	}
	return 0;
}

static enum db_err write_again(struct wal *w, const struct segment *s, uint64_t from, struct errmsg *em)
{
	uint8_t bytes[REWRITE_BYTES];
	enum db_err err = DB_OK;
	uint64_t at;
	size_t n;

	for (at = from; at < s->used && err == DB_OK; at += n) {
		n = s->used - at < sizeof(bytes) ? (size_t)(s->used - at) : sizeof(bytes);
		memcpy(bytes, s->map + at, n); /* not from the map: it is the very page that is written to */
		err = wal_file_write(&w->dir, s->fd, s->name, at, bytes, n, em);
	}
	return err;
}

/* Writes the records again that nothing shows to be durable. When a sync has failed the kernel counts their pages as
 * written and drops them when it likes: they are read back whole today, a sync of them succeeds without doing anything,
 * and they are gone after the next power cut. Written again they must reach the disk for the sync to succeed. The bytes
 * are those that stand there, so that a torn write of them changes nothing. Usually that is the last record or two. */
static enum db_err rewrite_unproven(struct wal *w, const struct end *end, struct errmsg *em)
{
	const uint64_t proven = proven_lsn(w, end);
	const struct segment *s;
	enum db_err err = DB_OK;
	size_t i;

	for (i = end->kept; i > end->old && err == DB_OK; i--) {
		s = w->segments[i - 1];
		if (s->count == 0 || segment_last_lsn(s) <= proven)
			continue;
		err = write_again(w, s, proven < s->first_lsn ? SEGMENT_HEADER_SIZE : segment_end_of(s, proven), em);
	}
	return err;
}

/* Makes the files say what was judged, and durable. Old segments need no sync: a record may become part of the base only
 * when it is durable, by a sync of the process that wrote it or by the one here at an earlier opening. */
static enum db_err settle(struct wal *w, const struct end *end, struct errmsg *em)
{
	struct segment *last;
	enum db_err err;
	size_t i;

	if (end->anew) {
		err = start_anew(w, em);
	} else {
		w->last = end->at;
		w->last_checksum = end->checksum;
		err = remove_segments(w, end->kept, em);
		last = w->segments[end->kept - 1];
		if (err == DB_OK && end->torn) {
			log_warn("log: erases a torn tail after record %" PRIu64, end->at.lsn);
			err = wal_file_zero(&w->dir, last->fd, last->name, last->used, last->size - last->used, em);
		}
	}
	if (err == DB_OK && !end->anew)
		err = rewrite_unproven(w, end, em);
	for (i = end->old; i < w->segment_count && err == DB_OK; i++)
		err = wal_file_sync(&w->dir, w->segments[i]->fd, w->segments[i]->name, em);
	if (err == DB_OK)
		err = wal_dir_sync(&w->dir, em);
	w->durable_lsn = w->last.lsn;
	return err;
}

/* The last record that an interrupted cut lets stay. */
static uint64_t limit_of(const struct cut_intent *intent)
{
	return intent->present ? intent->keep_lsn : UINT64_MAX;
}

enum db_err log_recover(struct wal *w, struct errmsg *em)
{
	struct cut_intent intent;
	struct end end = {.anew = true};
	enum db_err err;
	size_t i;

	err = load_files(w, em);
	if (err == DB_OK)
		err = cut_intent_read(&w->dir, &intent, em);
	if (err == DB_OK && w->segment_count > 0) {
		end.anew = false;
		err = find_old(w, limit_of(&intent), &end, em);
		if (err == DB_OK)
			err = walk(w, limit_of(&intent), &end, em);
		if (err == DB_OK)
			err = intent.present ? check_cut(w, &intent, &end, em) : judge(w, &end, em);
		if (err == DB_OK)
			err = join_base(w, &end, em);
		if (err == DB_OK && !end.anew)
			err = log_add_old_terms(w, end.old, em);
	}
	if (err == DB_OK)
		err = settle(w, &end, em);
	if (err == DB_OK && intent.present)
		err = cut_intent_remove(&w->dir, em);
	for (i = 0; i < w->segment_count; i++)
		segment_release(w->segments[i]);
	return err;
}

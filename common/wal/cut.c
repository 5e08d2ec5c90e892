/*
 * cut.c - see wal.h: removing the end of the log, wholly or not at all.
 *
 * Frames say that records before them were durable, so a half-erased tail would look like damage, not like a cut. An
 * intent file is made durable first; from then on the cut is done, and whoever opens the log next finishes it. It is
 * durably gone before wal_cut() returns, so it never meets records of a later time.
 *
 * Intent "cut", little-endian, 32 bytes: u32 magic "GzC1", u32 version, u64 keep_lsn, u64 checksum of that record,
 * u64 XXH3_64 over bytes 0..23. Runs on the appender's thread.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/base/buf.h"
#include "common/base/log.h"
#include "common/wal/log.h"
#include "common/wal/segment.h"
#include "common/wal/wal.h"

#define CUT_TMP_NAME "cut.tmp"
#define CUT_MAGIC    0x31437a47u /* "GzC1" read little-endian */
#define CUT_VERSION  1u          /* bump when a field changes meaning */
#define CUT_SIZE     32u

enum db_err cut_intent_write(const struct wal_dir *d, const struct cut_intent *intent, struct errmsg *em)
{
	uint8_t bytes[CUT_SIZE];
	enum db_err err;
	int fd;

	store_u32le(bytes, CUT_MAGIC);
	store_u32le(bytes + 4, CUT_VERSION);
	store_u64le(bytes + 8, intent->keep_lsn);
	store_u64le(bytes + 16, intent->keep_checksum);
	store_u64le(bytes + 24, XXH3_64bits(bytes, 24));
	err = wal_file_unlink(d, CUT_TMP_NAME, em); /* of a cut that failed early */
	if (err == DB_OK)
		err = wal_file_create(d, CUT_TMP_NAME, &fd, em);
	if (err != DB_OK)
		return err;
	err = wal_file_write(d, fd, CUT_TMP_NAME, 0, bytes, sizeof(bytes), em);
	if (err == DB_OK)
		err = wal_file_sync(d, fd, CUT_TMP_NAME, em);
	close(fd);
	if (err == DB_OK)
		err = wal_file_rename(d, CUT_TMP_NAME, LOG_CUT_NAME, em);
	if (err == DB_OK)
		err = wal_dir_sync(d, em);
	return err;
}

enum db_err cut_intent_read(const struct wal_dir *d, struct cut_intent *out, struct errmsg *em)
{
	uint8_t bytes[CUT_SIZE + 1];
	ssize_t n;
	int fd, saved_errno;

	memset(out, 0, sizeof(*out));
	fd = openat(d->fd, LOG_CUT_NAME, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return DB_OK;
	if (fd < 0)
		return errmsg_errno(em, errno, "cannot open \"" LOG_CUT_NAME "\"");
	n = pread(fd, bytes, sizeof(bytes), 0);
	saved_errno = errno;
	close(fd);
	if (n < 0)
		return errmsg_errno(em, saved_errno, "cannot read \"" LOG_CUT_NAME "\"");
	if (n == (ssize_t)CUT_SIZE && load_u32le(bytes) == CUT_MAGIC && load_u32le(bytes + 4) > CUT_VERSION &&
	    load_u64le(bytes + 24) == XXH3_64bits(bytes, 24))
		return errmsg_newer(em, "\"" LOG_CUT_NAME "\"", load_u32le(bytes + 4), CUT_VERSION);
	if (n != (ssize_t)CUT_SIZE || load_u32le(bytes) != CUT_MAGIC || load_u32le(bytes + 4) != CUT_VERSION ||
	    load_u64le(bytes + 24) != XXH3_64bits(bytes, 24))
		return errmsg_set(em, DB_CORRUPT, "\"" LOG_CUT_NAME "\" is damaged");
	out->present = true;
	out->keep_lsn = load_u64le(bytes + 8);
	out->keep_checksum = load_u64le(bytes + 16);
	return DB_OK;
}

enum db_err cut_intent_remove(const struct wal_dir *d, struct errmsg *em)
{
	enum db_err err = wal_file_unlink(d, LOG_CUT_NAME, em);

	return err == DB_OK ? wal_dir_sync(d, em) : err;
}

/* What the cut changes in memory, and what is left to do on disk. */
struct cut {
	uint64_t keep_lsn;
	uint64_t keep_checksum;
	struct segment *kept; /* holds the first record that goes; becomes the last segment */
	size_t erase_from;    /* the bytes of kept that held records */
	size_t erase_to;
	struct segment **removed; /* whole segments behind it; the array is ours */
	size_t removed_count;
};

/* Checks the arguments and finds the checksum of the record that becomes the last one. */
static enum db_err cut_plan(struct wal *w, struct cut *c, struct errmsg *em)
{
	struct wal_record r;
	struct segment *s;
	uint64_t offset;
	enum db_err err = DB_OK;

	pthread_mutex_lock(&w->lock);
	c->kept = log_find(w, c->keep_lsn + 1);
	if (w->failed) {
		err = log_failed_error(em);
	} else if (c->keep_lsn > w->last.lsn || c->keep_lsn + 1 < log_first_lsn(w) || c->keep_lsn < w->base.lsn) {
		err = errmsg_set(em, DB_INVALID,
				 "the log (%" PRIu64 " to %" PRIu64 ", base %" PRIu64
				 ") cannot be cut after record %" PRIu64,
				 log_first_lsn(w), w->last.lsn, w->base.lsn, c->keep_lsn);
	} else if (c->kept != NULL && c->kept->first_lsn == c->keep_lsn + 1) {
		c->keep_checksum = c->kept->prev_checksum;
	} else if (c->kept != NULL) {
		s = log_find(w, c->keep_lsn);
		assert(s != NULL);                                 /* (1) LSNs are dense, and keep_lsn >= first */
		err = segment_locate(s, c->keep_lsn, &offset, em); /* it was walked at open: keep_lsn >= base */
		if (err == DB_OK)
			err = segment_record(s, c->keep_lsn, offset, &r, em);
		if (err == DB_OK)
			c->keep_checksum = r.checksum;
	}
	if (err == DB_OK && c->kept != NULL) {
		c->removed = (struct segment **)malloc(w->segment_count * sizeof(struct segment *));
		if (c->removed == NULL)
			err = errmsg_set(em, DB_NOMEM, "no memory to cut the log");
	}
	pthread_mutex_unlock(&w->lock);
	return err;
}

/* The log in memory ends at keep_lsn from here on. */
static void cut_memory(struct wal *w, struct cut *c)
{
	pthread_mutex_lock(&w->lock);
	while (w->segments[w->segment_count - 1] != c->kept)
		c->removed[c->removed_count++] = w->segments[--w->segment_count];
	assert(c->kept->walked && c->kept->indexed == c->kept->count); /* like all that may be cut: not below base */
	c->erase_to = c->kept->used;
	c->erase_from = (size_t)c->kept->offsets[c->keep_lsn + 1 - c->kept->first_lsn] - FRAME_SIZE;
	c->kept->used = c->erase_from;
	c->kept->count = (size_t)(c->keep_lsn + 1 - c->kept->first_lsn);
	c->kept->indexed = c->kept->count;
	while (w->term_count > 0 && w->terms[w->term_count - 1].lsn > c->keep_lsn)
		w->term_count--;
	w->last = (struct wal_pos){.term = log_term_at(w, c->keep_lsn), .lsn = c->keep_lsn};
	w->last_checksum = c->keep_checksum;
	w->durable_lsn = c->keep_lsn; /* everything was synced just before */
	pthread_mutex_unlock(&w->lock);
}

/* The files follow, the newest first. */
static enum db_err cut_disk(struct wal *w, struct cut *c, struct errmsg *em)
{
	enum db_err err = DB_OK;
	size_t i;

	for (i = 0; i < c->removed_count && err == DB_OK; i++)
		err = wal_file_unlink(&w->dir, c->removed[i]->name, em);
	if (err == DB_OK)
		err =
		    wal_file_zero(&w->dir, c->kept->fd, c->kept->name, c->erase_from, c->erase_to - c->erase_from, em);
	if (err == DB_OK)
		err = wal_file_sync(&w->dir, c->kept->fd, c->kept->name, em);
	if (err == DB_OK)
		err = wal_dir_sync(&w->dir, em);
	if (err == DB_OK)
		err = cut_intent_remove(&w->dir, em);
	return err;
}

static void cut_fini(struct wal *w, struct cut *c)
{
	struct segment *gone;
	size_t i;

	for (i = 0; i < c->removed_count; i++) {
		pthread_mutex_lock(&w->lock);
		gone = log_detach(c->removed[i]);
		pthread_mutex_unlock(&w->lock);
		segment_free(gone);
	}
	free(c->removed);
}

static enum db_err cut_locked(struct wal *w, uint64_t keep_lsn, struct errmsg *em)
{
	struct cut c = {.keep_lsn = keep_lsn};
	struct cut_intent intent;
	struct errmsg own = {0};
	enum db_err err;

	err = log_sync_locked(w, NULL, em);
	if (err == DB_OK)
		err = cut_plan(w, &c, em);
	if (err != DB_OK || c.kept == NULL) /* or nothing stands behind keep_lsn */
		return err;
	intent = (struct cut_intent){.present = true, .keep_lsn = keep_lsn, .keep_checksum = c.keep_checksum};
	err = cut_intent_write(&w->dir, &intent, em);
	if (err != DB_OK) {
		/* Nothing has changed yet, provided that no intent is left to do it later. */
		if (cut_intent_remove(&w->dir, &own) != DB_OK)
			log_fail(w, &own);
		goto done;
	}
	cut_memory(w, &c);
	err = cut_disk(w, &c, &own);
	if (err != DB_OK) {
		log_fail(w, &own); /* the next wal_open() finishes the cut */
		errmsg_set(em, err, "%s", own.text);
	}
done:
	cut_fini(w, &c);
	return err;
}

enum db_err wal_cut(struct wal *w, uint64_t keep_lsn, struct errmsg *em)
{
	enum db_err err;

	pthread_mutex_lock(&w->sync_lock);
	err = cut_locked(w, keep_lsn, em);
	pthread_mutex_unlock(&w->sync_lock);
	if (err == DB_OK)
		log_info("log: cut after record %" PRIu64, keep_lsn);
	return err;
}

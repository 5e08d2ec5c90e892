/*
 * trim.c - see wal.h: dropping old segments, and the spares that they become.
 *
 * Runs on the trimmer's thread (and wal_prepare() on any slow thread), beside the appender and the readers.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "common/base/log.h"
#include "common/wal/log.h"
#include "common/wal/segment.h"
#include "common/wal/wal.h"

void log_discard_spare(struct wal *w, struct segment *s)
{
	struct errmsg em = {0};
	bool kept = false;

	pthread_mutex_lock(&w->lock);
	if (w->spare_count < LOG_SPARES_MAX) {
		w->spares[w->spare_count++] = s;
		kept = true;
	}
	pthread_mutex_unlock(&w->lock);
	if (kept)
		return;
	if (wal_file_unlink(&w->dir, s->name, &em) != DB_OK)
		log_warn("log: an unneeded file stays: %s", em.text);
	segment_free(s);
}

/* Takes the first segment out of the log when all of its records are below keep_lsn; NULL: there is none, or a cursor
 * holds it. The last segment always stays: it is being appended to. */
static struct segment *take_first(struct wal *w, uint64_t keep_lsn)
{
	struct segment *s = NULL;

	pthread_mutex_lock(&w->lock);
	if (!w->failed && w->segment_count > 1 && w->segments[0]->pins == 0 &&
	    segment_last_lsn(w->segments[0]) < keep_lsn) {
		s = w->segments[0];
		w->segment_count--;
		memmove(w->segments, w->segments + 1, w->segment_count * sizeof(*w->segments));
	}
	pthread_mutex_unlock(&w->lock);
	return s;
}

/* Renames s to become a spare; false when it is of no use as one. */
static bool rename_to_spare(struct wal *w, struct segment *s)
{
	char name[SEGMENT_NAME_MAX];
	uint64_t number;
	bool wanted;

	pthread_mutex_lock(&w->lock);
	wanted = s->size == w->segment_size_bytes && w->spare_count < LOG_SPARES_MAX;
	number = ++w->file_number;
	pthread_mutex_unlock(&w->lock);
	if (!wanted)
		return false;
	snprintf(name, sizeof(name), "%" PRIu64 ".spare", number);
	if (wal_file_rename(&w->dir, s->name, name, NULL) != DB_OK)
		return false;
	memcpy(s->name, name, sizeof(name));
	segment_reset(s);
	return true;
}

/* Puts a segment back whose file could not be removed; else the log on disk would begin before the log in memory. */
static void put_back(struct wal *w, struct segment *s)
{
	bool room;

	pthread_mutex_lock(&w->lock);
	room = log_reserve_segment(w);
	if (room) {
		memmove(w->segments + 1, w->segments, w->segment_count * sizeof(*w->segments));
		w->segments[0] = s;
		w->segment_count++;
	}
	pthread_mutex_unlock(&w->lock);
	if (!room)
		segment_free(s); /* the file stays, a part of the log again after the next start */
}

void wal_trim(struct wal *w, uint64_t keep_lsn)
{
	struct errmsg em = {0};
	struct segment *s;
	bool spare;

	while ((s = take_first(w, keep_lsn)) != NULL) {
		spare = rename_to_spare(w, s);
		if (!spare && wal_file_unlink(&w->dir, s->name, &em) != DB_OK) {
			log_warn("log: cannot trim: %s", em.text);
			put_back(w, s);
			return;
		}
		/* One by one, and before the file is used again: after a power cut the names that are left must have no
		 * hole between them, and none may stand for another content. */
		if (wal_dir_sync(&w->dir, &em) != DB_OK) {
			log_warn("log: trimming stops: %s", em.text);
			segment_free(s);
			return;
		}
		if (spare)
			log_discard_spare(w, s);
		else
			segment_free(s);
	}
}

uint64_t wal_lsn_within(struct wal *w, uint64_t bytes)
{
	uint64_t lsn, sum = 0;
	size_t i;

	pthread_mutex_lock(&w->lock);
	lsn = w->last.lsn + 1;
	for (i = w->segment_count; i > 0; i--) {
		sum += w->segments[i - 1]->size;
		if (sum > bytes && i < w->segment_count)
			break;
		lsn = w->segments[i - 1]->first_lsn;
	}
	pthread_mutex_unlock(&w->lock);
	return lsn;
}

enum db_err log_check_space(const struct wal *w, uint64_t bytes, struct errmsg *em)
{
	struct statvfs fs;
	uint64_t free_bytes;

	if (w->low_space_bytes == 0)
		return DB_OK;
	if (fstatvfs(w->dir.fd, &fs) != 0)
		return errmsg_errno(em, errno, "cannot tell how much space is left for the log");
	free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (free_bytes >= bytes && free_bytes - bytes >= w->low_space_bytes)
		return DB_OK;
	return errmsg_set(em, DB_FULL,
			  "no space left for the log to grow by %" PRIu64 " bytes: %" PRIu64
			  " are free on its disk, and the low-space mark is %" PRIu64,
			  bytes, free_bytes, w->low_space_bytes);
}

enum db_err wal_prepare(struct wal *w, struct errmsg *em)
{
	struct segment *s;
	uint64_t number = 0;
	enum db_err err = DB_OK;

	pthread_mutex_lock(&w->lock);
	if (w->failed)
		err = log_failed_error(em);
	else if (w->spare_count == 0)
		number = ++w->file_number;
	pthread_mutex_unlock(&w->lock);
	if (err != DB_OK || number == 0)
		return err;
	err = log_check_space(w, w->segment_size_bytes, em);
	if (err != DB_OK)
		return err;
	err = segment_create(&s, &w->dir, number, w->segment_size_bytes, em);
	if (err == DB_OK)
		log_discard_spare(w, s);
	return err;
}

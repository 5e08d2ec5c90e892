/*
 * log.h - struct wal, shared by the files of common/wal and by nobody else.
 *
 * Locks: sync_lock (held by a sync or a cut for its whole length, file I/O included: a sync must not report as durable
 * what a cut removes meanwhile) is taken before lock (held for a few instructions, never over I/O). index_lock (held
 * while a segment is walked on demand, so that two readers do not both walk it) is taken before lock too, and never
 * together with sync_lock. The appender alone grows the last segment, the trimmer alone takes segments from the front;
 * both publish under lock.
 */
#ifndef GRIZZLY_COMMON_WAL_LOG_H
#define GRIZZLY_COMMON_WAL_LOG_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wal/file.h"
#include "common/wal/segment.h"
#include "common/wal/wal.h"

#define LOG_SPARES_MAX 3
#define LOG_CUT_NAME   "cut"

struct wal {
	struct wal_dir dir;        /* constant after open */
	size_t segment_size_bytes; /* constant */
	uint64_t low_space_bytes;  /* constant */
	struct wal_pos base;       /* constant: as of open */
	uint64_t base_checksum;    /* constant */
	pthread_mutex_t sync_lock;
	pthread_mutex_t index_lock;
	pthread_mutex_t lock;      /* guards everything below, and what segment.h says of each segment */
	struct segment **segments; /* ascending and dense; the last one is appended to */
	size_t segment_count;
	size_t segment_cap;
	struct segment *spares[LOG_SPARES_MAX];
	size_t spare_count;
	uint64_t file_number; /* the last one given to a spare or temporary file */
	struct wal_pos last;
	uint64_t last_checksum;
	uint64_t durable_lsn;
	struct wal_pos *terms; /* the first LSN known of each term, ascending */
	size_t term_count;
	size_t term_cap;
	bool dir_dirty; /* a segment was renamed into place and the directory not synced since */
	bool failed;    /* final: what the files hold can no longer be trusted to be what we think */
};

/* The functions below expect lock to be held, unless they say otherwise. */

struct segment *log_find(const struct wal *w, uint64_t lsn); /* the segment that holds lsn, or NULL */
uint64_t log_first_lsn(const struct wal *w);
bool log_reserve_segment(struct wal *w); /* room for one more; false: out of memory */
bool log_reserve_term(struct wal *w);
void log_note_term(struct wal *w, struct wal_pos pos); /* room was reserved; nothing when the term is known */
uint64_t log_term_at(const struct wal *w, uint64_t lsn);
/* Returns the segment when the caller must segment_free() it, after releasing lock; else NULL. */
struct segment *log_unpin(struct segment *s);
struct segment *log_detach(struct segment *s); /* likewise; s has left w->segments */

/* index.c. With lock, which is given up for as long as a segment is walked. Finds the record with this LSN; *out is its
 * segment, pinned whatever comes back, or NULL (DB_NOTFOUND, without a message: the log does not hold it). DB_CORRUPT,
 * DB_NOMEM: it cannot be read. */
enum db_err log_locate(struct wal *w, uint64_t lsn, struct segment **out, uint64_t *offset, struct errmsg *em);

/* index.c. Without lock. What is known of the first old_count segments of a log just opened, which are not walked: marks
 * them, and then, when the rest was walked, puts their terms before those in w->terms. Segments in which a term begins
 * are walked for that. */
void log_mark_old(struct wal *w, size_t old_count);
enum db_err log_add_old_terms(struct wal *w, size_t old_count, struct errmsg *em);

/* Without lock. Keeps a segment file that nobody needs as a spare; removes and frees it when there are enough. */
void log_discard_spare(struct wal *w, struct segment *s);
/* trim.c. Without lock. DB_FULL: a new file of that many bytes would leave less than the low-space mark free. */
enum db_err log_check_space(const struct wal *w, uint64_t bytes, struct errmsg *em);
/* Without lock, with sync_lock. */
enum db_err log_sync_locked(struct wal *w, uint64_t *durable_lsn, struct errmsg *em);
/* Without lock. Marks the log as failed. */
void log_fail(struct wal *w, const struct errmsg *em);
enum db_err log_failed_error(struct errmsg *em);

/* recover.c. Fills a fresh w from its directory; no other thread knows w yet. */
enum db_err log_recover(struct wal *w, struct errmsg *em);

/* cut.c: the intent to cut, a file that makes a cut happen wholly or not at all. */
struct cut_intent {
	bool present;
	uint64_t keep_lsn;
	uint64_t keep_checksum;
};
enum db_err cut_intent_write(const struct wal_dir *d, const struct cut_intent *intent, struct errmsg *em);
enum db_err cut_intent_read(const struct wal_dir *d, struct cut_intent *out, struct errmsg *em);
enum db_err cut_intent_remove(const struct wal_dir *d, struct errmsg *em); /* durably */

#endif

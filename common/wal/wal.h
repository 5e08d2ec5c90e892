/*
 * wal.h - the write-ahead log: segments of records on disk, appended by one thread, read by many.
 *
 * Files: <dir>/<first lsn, 20 digits>.wal, each options.segment_size_bytes long (longer when one record needs it),
 * zero-filled or recycled before use so that fdatasync never has to grow a file, and mmapped for reading.
 * A segment starts with a 64-byte header (common/wal/segment.h: among others its first LSN, the prev_checksum of its
 * first record, a random salt); then frames, each 16 bytes + record, 8-aligned:
 *
 *   frame: synced_lsn u64   highest LSN this node had fdatasynced when the frame was written
 *          guard u64        XXH3_64, seeded with the segment's salt, over synced_lsn and the record's checksum
 *          record           common/wal/record.h, the canonical bytes
 *
 * synced_lsn is what tells a torn tail from corruption. Several records may be written before one fdatasync, and a
 * power cut may keep the later one and lose the earlier. So at recovery, when the record at LSN n is bad: if any intact
 * frame with lsn > n says synced_lsn >= n, record n had been durable and is now damaged: DB_CORRUPT. Otherwise n was
 * never acknowledged: the log is cut before n. A right guard is evidence enough, whatever became of the record behind
 * it, and a segment's header tells likewise what was durable when it was begun. The frame is local; only the record is
 * streamed.
 *
 * Invariants: (1) LSNs are dense. (2) A record's prev_checksum is the checksum of the record before. (3) durable_lsn
 * never exceeds last_lsn and only grows, except by wal_cut(). (4) Nothing is written below durable_lsn.
 * Threads: one appender (append, cut), one syncer (sync), any number of readers, one trimmer; the log locks inside.
 */
#ifndef GRIZZLY_COMMON_WAL_WAL_H
#define GRIZZLY_COMMON_WAL_WAL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/base/err.h"
#include "common/base/pulse.h"
#include "common/wal/record.h"

#define WAL_SEGMENT_SIZE_DEFAULT ((size_t)16 << 20)
#define WAL_SEGMENT_SIZE_MIN     ((size_t)64 << 10)

struct wal;

/* The seam for tests: asked before each operation that changes a file or syncs one. 0: go ahead; an errno value: the
 * operation fails with it instead. For WAL_OP_WRITE *len is the number of bytes to write and may be lowered, together
 * with an error: so many bytes reach the file first (a torn write). len is NULL for the others. name is the file's,
 * within the directory ("." for WAL_OP_SYNC_DIR). Called on whichever thread does the operation. */
enum wal_op { WAL_OP_CREATE, WAL_OP_WRITE, WAL_OP_SYNC, WAL_OP_RENAME, WAL_OP_UNLINK, WAL_OP_SYNC_DIR };
struct wal_faults {
	int (*before)(void *ctx, enum wal_op op, const char *name, size_t *len);
	void *ctx;
};

struct wal_options {
	const char *dir;           /* exists; borrowed during wal_open() only */
	size_t segment_size_bytes; /* >= WAL_SEGMENT_SIZE_MIN */
	struct wal_pos base;       /* the last record already in the base file; {0, 0} for a new database */
	uint64_t base_checksum;    /* that record's checksum; 0 for a new database */
	uint64_t low_space_bytes;  /* no new file when less than that would be left free on the disk; 0: no mark */
	const struct wal_faults *faults; /* NULL outside of tests; copied */
	struct disk_pulse *pulse;        /* told of what waits for the disk; outlives the log; NULL: nobody watches */
};

/* Opens and recovers: finds the last intact record, cuts a torn tail (erased on disk), and holds every record from the
 * oldest segment kept. A log that ends below base, or at base.lsn with another record, starts anew at base.lsn + 1; one
 * that ends with the base's record continues there, its records still readable.
 * Only what lies from base's segment on is verified, and takes time; a record may become the base only when it is
 * durable. Older segments are verified, each as a whole, when somebody first reads from them: damage there is an error
 * of that read, and of no other.
 * DB_CORRUPT: from base's segment on a damaged record that had been durable, or a hole; or a log that does not join base.
 * DB_FULL, DB_IO, DB_NOMEM: as they say. On error *out is NULL. All records found count as durable (they are synced
 * before this returns). */
enum db_err wal_open(struct wal **out, const struct wal_options *options, struct errmsg *em);
void wal_close(struct wal *w); /* NULL is fine; unmaps and closes; readers must have ended */

/* The last record appended, {base} when there is none after it; the same for its checksum. */
struct wal_pos wal_last(struct wal *w);
uint64_t wal_last_checksum(struct wal *w);
uint64_t wal_durable_lsn(struct wal *w);
/* Oldest LSN that can still be read; last + 1 when the log holds nothing. */
uint64_t wal_first_lsn(struct wal *w);
/* Bytes of the files, spare ones included. */
uint64_t wal_size_bytes(struct wal *w);

/* Appends one record given in pieces whose concatenation is its canonical bytes (header first), and checks that lsn and
 * prev_checksum continue the log and term does not go back (DB_INVALID otherwise). The record's own checksum must be
 * right already: it is not computed again. DB_FULL also when the log would have to grow below the low-space mark; a
 * record without payload may, for without it a new master could not begin its term. On DB_OK *out is the decoded record whose payload lies in the mmapped
 * segment (see wal_trim() for how long). DB_FULL, DB_IO, DB_NOMEM: nothing changed, the log is as before and may be
 * appended to later. */
enum db_err wal_append(struct wal *w, const struct iovec *pieces, int piece_count, struct wal_record *out,
		       struct errmsg *em);

/* fdatasyncs everything appended before the call; *durable_lsn says how far that is (NULL is allowed). A failure is
 * final: the log refuses every later append and sync with DB_IO, for what the kernel holds can no longer be trusted. */
enum db_err wal_sync(struct wal *w, uint64_t *durable_lsn, struct errmsg *em);

/* Removes every record after keep_lsn (>= wal_first_lsn() - 1), durably, and erases its bytes. The appender calls it;
 * the caller makes sure that nobody reads those records. A cut happens wholly or, when it is interrupted before its
 * intent is on disk, not at all. DB_INVALID: keep_lsn is outside the log or below base. DB_FULL, DB_IO, DB_NOMEM:
 * nothing was cut, or the log refuses all later writes and the next wal_open() finishes the cut. */
enum db_err wal_cut(struct wal *w, uint64_t keep_lsn, struct errmsg *em);

/* Term, checksum and place of one record. DB_NOTFOUND: outside first..last. DB_CORRUPT: the record, or one before it in
 * its segment, is damaged: only below the base that the log was opened with. DB_NOMEM: a segment read for the first time
 * could not be indexed. The payload pointer stays valid until wal_trim() passes lsn and no cursor holds its segment, or
 * wal_cut() removes it. */
enum db_err wal_read(struct wal *w, uint64_t lsn, struct wal_record *out, struct errmsg *em);

/* The canonical bytes of a record that wal_read(), wal_cursor_next() or wal_append() gave: header and payload are
 * contiguous in the segment. Returns the start, *len the length. */
const uint8_t *wal_record_bytes(const struct wal_record *r, size_t *len);

/* Drops whole segments whose every record is < keep_lsn; they become spares (at most a few, the rest is unlinked). A
 * segment that a cursor holds stays until the cursor leaves it. */
void wal_trim(struct wal *w, uint64_t keep_lsn);

/* The oldest LSN such that the segments from its own on have at most so many bytes; that of the last segment when even that
 * one is larger. For a limit in bytes to be told to wal_trim(). */
uint64_t wal_lsn_within(struct wal *w, uint64_t bytes);

/* Gives back the memory that reading took in segments whose every record is < below_lsn. They stay mapped, every pointer
 * stays valid, and the next look takes them from the page cache. Any thread. */
void wal_release(struct wal *w, uint64_t below_lsn);

/* Prepares the next segment ahead of need (zero-fills one spare when there is none). Slow: not on the appender's
 * thread. DB_OK also when there was nothing to do. */
enum db_err wal_prepare(struct wal *w, struct errmsg *em);

/* A reader of consecutive records that keeps its current segment from being trimmed. One thread each. */
struct wal_cursor;
enum db_err wal_cursor_create(struct wal_cursor **out, struct wal *w, uint64_t next_lsn, struct errmsg *em);
void wal_cursor_free(struct wal_cursor *c); /* NULL is fine; before wal_close() */
/* The record at the cursor, which then moves on. DB_NOTFOUND: not appended yet. DB_GAP: trimmed away already. DB_CORRUPT,
 * DB_NOMEM: as wal_read(); the cursor stays. The record is valid until the next call on this cursor. */
enum db_err wal_cursor_next(struct wal_cursor *c, struct wal_record *out, struct errmsg *em);
enum db_err wal_cursor_seek(struct wal_cursor *c, uint64_t next_lsn, struct errmsg *em);

/* The oldest LSN that the cursor keeps from being trimmed; UINT64_MAX: none. On the cursor's thread. */
uint64_t wal_cursor_held_lsn(struct wal_cursor *c);

/* History of terms, oldest first: each entry is the first LSN known of a term. Fills at most max entries with the
 * newest ones and returns how many. Entry 0 may start at base.lsn when the term's true start was trimmed, or behind damage
 * in an old segment that hides the terms before. */
size_t wal_terms(struct wal *w, struct wal_pos *out, size_t max);

#endif

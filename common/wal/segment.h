/*
 * segment.h - one file of the log: its header, its frames, the map it is read through, and where each record lies.
 *
 * Internal to common/wal. A segment does no locking: struct wal's lock guards count, used, the index (readers look at
 * them), pins and detached; the appender alone writes the file.
 *
 * A segment is walked: each of its frames was checked and its index says where the records lie. One that lies below the
 * base is not walked when the log is opened, but when somebody first reads from it (common/wal/index.c): until then its
 * count is what the next segment's first LSN makes it. If damage is found then, indexed stays below count for good.
 *
 * Names: <first lsn, 20 digits>.wal holds records; <number>.spare waits, filled, to become one; <number>.tmp is being
 * filled and means nothing after a crash. A name .wal appears only when the header inside is durable, so a .wal file
 * with a bad header is damage, never a crash.
 *
 * Header, little-endian, 64 bytes:
 *    0 u32 magic "GzW1"    4 u16 format version    6 u16 zero
 *    8 u64 first LSN      16 u64 prev_checksum of its first record
 *   24 u64 salt           32 u64 synced_lsn when it was begun: the same evidence that each frame gives
 *   40 16 bytes of zero   56 u64 XXH3_64 over bytes 0..55
 * The salt is random and seeds every guard of the segment: the frames of a recycled file's former life, and frames
 * that somebody stored as data, never pass for frames of this one. (SQLite's WAL changes salts for the same reason.)
 */
#ifndef GRIZZLY_COMMON_WAL_SEGMENT_H
#define GRIZZLY_COMMON_WAL_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/base/err.h"
#include "common/wal/file.h"
#include "common/wal/record.h"

#define SEGMENT_HEADER_SIZE 64u
#ifndef SEGMENT_VERSION    /* a test builds a successor, whose segments are like ours */
#define SEGMENT_VERSION 1u /* bump when header, frame or record change; keep the old reader */
#endif
#define FRAME_SIZE       16u
#define SEGMENT_NAME_MAX 40

struct segment {
	char name[SEGMENT_NAME_MAX];
	int fd;
	const uint8_t *map; /* the whole file, shared, read-only */
	size_t size;        /* bytes of the file */
	uint64_t first_lsn;
	uint64_t prev_checksum; /* of its first record */
	uint64_t salt;
	uint64_t synced_lsn; /* as the header says */
	size_t count;        /* records */
	uint64_t *offsets;   /* the index: of each record (not its frame) in the file; indexed of them are in use */
	size_t indexed;      /* == count but in a segment that is not walked (0) or damaged */
	size_t offsets_cap;
	bool walked;     /* false: one below the base that nobody has read from yet */
	bool header_bad; /* damaged; then first_lsn is what the name says */
	bool next_known; /* not walked: next_checksum is what the next segment says of our last record */
	uint64_t next_checksum;
	size_t used;   /* bytes from the start that hold header and intact frames; meaningless until walked */
	unsigned pins; /* cursors, and a sync under way */
	bool detached; /* no longer the log's: freed when the last pin goes */
};

/* Creates <number>.spare, filled with zeros and durable. size is a multiple of 8. On error no file is left behind
 * (unless removing it fails too: a .tmp, which the next wal_open() removes). */
enum db_err segment_create(struct segment **out, const struct wal_dir *d, uint64_t number, size_t size,
			   struct errmsg *em);
/* Opens and maps a file that exists; nothing in it is looked at. */
enum db_err segment_open(struct segment **out, const struct wal_dir *d, const char *name, struct errmsg *em);
void segment_free(struct segment *s); /* NULL is fine; unmaps and closes, the file stays */

/* Has the disk read ahead: all of the file will be looked at in order. */
void segment_read_ahead(const struct segment *s);
/* Gives back the memory that reading the map took: the page cache keeps the pages, and the next look finds them there.
 * Costs nobody a pointer. */
void segment_release(const struct segment *s);

/* Reads the header. DB_CORRUPT: it is damaged or not what the file's name says. DB_INVALID: a newer version wrote it. */
enum db_err segment_read_header(struct segment *s, struct errmsg *em);
/* Turns a spare into the segment that begins with first_lsn: header, sync, rename. Its name is durable only after
 * wal_dir_sync(). On error the spare is of no further use. */
enum db_err segment_begin(struct segment *s, const struct wal_dir *d, uint64_t first_lsn, uint64_t prev_checksum,
			  uint64_t synced_lsn, struct errmsg *em);

void segment_reset(struct segment *s); /* holds no record from here on; the file is not touched */

/* The parts of an append. segment_write() changes the file behind used and nothing in s. */
bool segment_fits(const struct segment *s, uint64_t record_size);
bool segment_reserve(struct segment *s); /* room in offsets for one more; false: out of memory */
enum db_err segment_write(const struct segment *s, const struct wal_dir *d, uint64_t synced_lsn, uint64_t checksum,
			  const struct iovec *pieces, size_t piece_count, struct errmsg *em);
void segment_publish(struct segment *s, uint64_t record_size);

uint64_t segment_last_lsn(const struct segment *s); /* first_lsn - 1 when it is empty */
/* Where the record with this LSN lies, which a walked segment holds. DB_CORRUPT: behind the damage in it. */
enum db_err segment_locate(const struct segment *s, uint64_t lsn, uint64_t *offset, struct errmsg *em);
/* That record, from the map; only the header is decoded. No lock needed, but a pin: this may wait for the disk.
 * DB_CORRUPT: the file was changed behind our back. */
enum db_err segment_record(const struct segment *s, uint64_t lsn, uint64_t offset, struct wal_record *out,
			   struct errmsg *em);
/* Its first record, which must be the one that the header says. Not verified: only the record's header is decoded. */
enum db_err segment_peek_first(const struct segment *s, struct wal_record *out, struct errmsg *em);

/* The frame and record at offset, fully checked. DB_CORRUPT or DB_GAP: not intact (the end of the log, or damage). */
enum db_err segment_check(const struct segment *s, size_t offset, struct wal_record *out, struct errmsg *em);
/* Whether the beginning of a frame of this segment stands at offset, its record intact or not. */
bool segment_has_frame(const struct segment *s, size_t offset);
/* Looks for frames whose guard is right from offset (8-aligned) on, whatever lies between them. Raises *synced_lsn to
 * the highest they claim and returns whether there was one. */
bool segment_scan(const struct segment *s, size_t offset, uint64_t *synced_lsn);

/* What the frame of this record, which is indexed, says to have been durable when it was written. */
uint64_t segment_synced_lsn(const struct segment *s, uint64_t lsn);
/* The byte behind this record, which is indexed. */
uint64_t segment_end_of(const struct segment *s, uint64_t lsn);

/* How large a file must be to hold one record of that many bytes. */
uint64_t segment_size_for(uint64_t record_size);
/* How many records a file of that size can hold at most. */
size_t segment_count_max(size_t size);

#endif

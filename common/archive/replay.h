/*
 * replay.h - archived records put onto a copy of the database: a backup moved forward to a chosen point.
 *
 * Nothing is believed: each record's checksum, the chain from record to record and from the backup to the first of them,
 * and after each record the checksum of the whole database. A gap, damage, or an archive that ends too early is an error
 * that names the file and the LSN; the file is then of no use.
 *
 * Used by the restore command. One thread; memory for one mapped archive file.
 */
#ifndef GRIZZLY_COMMON_ARCHIVE_REPLAY_H
#define GRIZZLY_COMMON_ARCHIVE_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/archive/archive.h"

/* The database in fd (read and write), and where it stands. */
struct replay_state {
	int fd;
	struct wal_pos pos;
	uint64_t record_checksum; /* of the record at pos */
	uint64_t db_checksum;
	uint64_t time_us; /* in that record; 0: not known */
	uint32_t db_size_pages;
};

enum replay_until {
	REPLAY_TO_LSN,  /* exactly this LSN */
	REPLAY_TO_TIME, /* up to, not including, the first record that is later; there must be one */
	REPLAY_TO_END,  /* all there is */
};

struct replay_goal {
	enum replay_until until;
	uint64_t lsn;
	uint64_t time_us;
};

/* path: of the cluster's files (archive_path()). DB_NOTFOUND: no such directory. DB_GAP: records are missing, or the archive
 * ends before the goal. DB_INVALID: the backup is later than the goal, or of another history. DB_CORRUPT: a file is damaged,
 * or the database is not the one that the records belong to. DB_FULL, DB_IO: of our own file. */
enum db_err archive_replay(struct replay_state *s, const char *path, const uint8_t cluster_id[16],
			   const struct replay_goal *goal, void (*on_record)(void *arg, const struct wal_record *r),
			   void *arg, struct errmsg *em);

#endif

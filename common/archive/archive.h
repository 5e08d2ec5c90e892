/*
 * archive.h - committed log, copied out of the reach of a node: files of consecutive records in a directory.
 *
 * <dir>/<cluster id>/<first lsn>-<last lsn>.gza, 20 digits each. A file appears whole (temporary name, fsync, rename) and
 * is never changed. Only committed records are archived, so two files that cover the same LSNs agree on them; that happens
 * when a new master goes on before the old one has ended. A name with another ending means nothing: in particular
 * ".superseded", which is what a file is called when the cluster has gone on without its records (durability "async" only).
 *
 * Layout, little-endian, a header of 80 bytes and then the records' canonical bytes (common/wal/record.h) end to end:
 *    0 u32 magic "GzA1"    4 u16 format version    6 u16 zero
 *    8 16 bytes cluster id
 *   24 u64 first LSN      32 u64 last LSN
 *   40 u64 prev_checksum of the first record      48 u64 checksum of the last one
 *   56 u64 bytes of records                       64 u64 term of the last record
 *   72 u64 XXH3_64 over bytes 0..71
 * The chain of record checksums goes on from file to file: none can be left out or exchanged unnoticed.
 *
 * Written by node/archiver.c, read by it and by the restore command. No state of its own; any thread.
 */
#ifndef GRIZZLY_COMMON_ARCHIVE_ARCHIVE_H
#define GRIZZLY_COMMON_ARCHIVE_ARCHIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/wal/wal.h"

#define ARCHIVE_VERSION     1u /* bump when a field changes meaning; keep the old reader */
#define ARCHIVE_HEADER_SIZE 80u
#define ARCHIVE_NAME_MAX    64
#define ARCHIVE_COPY_MAX    ((size_t)16 << 20)

struct archive_header {
	uint8_t cluster_id[16];
	uint64_t first_lsn;
	uint64_t last_lsn;
	uint64_t prev_checksum; /* of the first record */
	uint64_t last_checksum; /* of the last record */
	uint64_t bytes;         /* of the records */
	uint64_t last_term;     /* of the last record */
};

void archive_header_encode(const struct archive_header *h, uint8_t out[ARCHIVE_HEADER_SIZE]);
/* DB_CORRUPT: not one, or damaged. DB_INVALID: of a later format. */
enum db_err archive_header_decode(struct archive_header *h, const uint8_t bytes[ARCHIVE_HEADER_SIZE],
				  struct errmsg *em);

/* A file's name, and back; false: it is no archive file's. */
void archive_name(uint64_t first_lsn, uint64_t last_lsn, char out[ARCHIVE_NAME_MAX]);
bool archive_name_parse(const char *name, uint64_t *first_lsn, uint64_t *last_lsn);

/* <dir>/<cluster id>; the caller frees it. NULL: out of memory. */
char *archive_path(const char *dir, const uint8_t cluster_id[16]);

struct archive_entry {
	uint64_t first_lsn;
	uint64_t last_lsn;
};

struct archive_list {
	struct archive_entry *entries; /* by first_lsn, then last_lsn */
	size_t count;
};

/* What the names in path say. DB_NOTFOUND: there is no such directory. */
enum db_err archive_list_read(struct archive_list *list, const char *path, struct errmsg *em);
void archive_list_fini(struct archive_list *list);
/* The entry that holds lsn and reaches furthest; NULL: none does. */
const struct archive_entry *archive_list_find(const struct archive_list *list, uint64_t lsn);
/* The first entry that begins after lsn; NULL: none does. */
const struct archive_entry *archive_list_after(const struct archive_list *list, uint64_t lsn);

/* Only the header of an entry's file. The message names the file. DB_CORRUPT: it is not what its name says. */
enum db_err archive_read_header(struct archive_header *h, const char *path, const struct archive_entry *entry,
				struct errmsg *em);

/* A whole file, mapped. */
struct archive_file {
	char name[ARCHIVE_NAME_MAX];
	struct archive_header header;
	const uint8_t *bytes; /* the records */
	size_t mapped;        /* bytes of the map, header included */
	size_t offset;        /* of the next record in bytes */
	uint64_t next_lsn;
	uint64_t next_prev; /* what the next record's prev_checksum must be */
};

/* DB_CORRUPT: the header is bad, or the file is not as long as it says. cluster_id: whose it must be. */
enum db_err archive_file_open(struct archive_file *f, const char *path, const struct archive_entry *entry,
			      const uint8_t cluster_id[16], struct errmsg *em);
void archive_file_close(struct archive_file *f);
/* The next record, verified: its checksum, and that it continues the one before. DB_NOTFOUND: that was the last.
 * DB_CORRUPT: the message names file and LSN. Borrowed until the file is closed. */
enum db_err archive_file_next(struct archive_file *f, struct wal_record *out, struct errmsg *em);

/* Writes the records from the cursor on, up to last_lsn or until the file has bytes_max, durably; *entry says which. The
 * cursor then stands behind them; while bytes are written it holds no segment (but for a record larger than ARCHIVE_COPY_MAX), so
 * a directory that hangs does not keep the log from being trimmed. writer names the temporary file: one writer at a time may use it. DB_CORRUPT: a record
 * in the log is damaged. DB_GAP: the log was trimmed meanwhile. DB_FULL, DB_IO: nothing appears, and the cursor must be set again. */
enum db_err archive_write(const char *path, const char *writer, const uint8_t cluster_id[16], struct wal_cursor *cursor,
			  uint64_t last_lsn, uint64_t bytes_max, struct archive_entry *entry, struct errmsg *em);

/* Takes an entry's file out of the archive, durably; it stays under another name. */
enum db_err archive_supersede(const char *path, const struct archive_entry *entry, struct errmsg *em);

#endif

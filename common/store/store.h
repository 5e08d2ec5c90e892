/*
 * store.h - the database of one node: a base file, the log after it, and SQLite connections that see both.
 *
 * A SQLite VFS serves pages from the log's mmapped records (or the base file when the log has no newer version) and
 * captures each transaction's dirty pages as one log record. SQLite never writes a journal or WAL of its own.
 *
 * Files below options.dir: main.db (base: every page as of checkpoint_lsn, an ordinary SQLite file), store.meta (two
 * alternating checksummed slots: cluster id, checkpoint position, record checksum, database checksum and size),
 * wal/ (common/wal), tmp/ (unlinked scratch files of large transactions and sorts; emptied at open).
 *
 * LSNs: tip_lsn is the last record sealed or appended; applied_lsn the last whose pages are indexed (== tip on a
 * master); visible_lsn the snapshot new readers get; checkpoint_lsn what the base file holds.
 * checkpoint_lsn <= committed = visible_lsn <= applied_lsn <= tip_lsn, and durable_lsn <= tip_lsn.
 *
 * Threads: one owner of the tip (the writer connection of a master, or the walreceiver of a replica), one syncer, one
 * checkpointer, any number of reader connections (one thread each at a time). Readers take no lock on the page path.
 */
#ifndef GRIZZLY_COMMON_STORE_STORE_H
#define GRIZZLY_COMMON_STORE_STORE_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/wal/record.h"
#include "common/wal/wal.h"

#define STORE_CHECKPOINT_BYTES_DEFAULT      ((uint64_t)64 << 20)
#define STORE_TRANSACTION_BYTES_MAX_DEFAULT ((uint64_t)1 << 30)
#define STORE_KEEP_BYTES_DEFAULT            ((uint64_t)256 << 20)

struct store;
struct timings;

struct store_options {
	const char *dir;                /* created when missing; borrowed during the call */
	size_t segment_size_bytes;      /* 0: WAL_SEGMENT_SIZE_DEFAULT */
	uint64_t checkpoint_bytes;      /* log bytes after which a checkpoint is due; 0: default */
	uint64_t transaction_bytes_max; /* page bytes of one transaction; 0: default */
	uint8_t cluster_id[16];         /* all zero: take what the directory says; else it must match (DB_INVALID) */
	uint64_t low_space_bytes;       /* the log does not grow when less would be left free on the disk; 0: no mark */
	const struct wal_faults *faults; /* handed to wal_open(); NULL outside of tests */
	struct disk_pulse *pulse;        /* told of what waits for the disk; outlives the store; NULL: nobody watches */
	struct timings *timings;         /* counts how long syncs take; outlives the store; NULL: nobody does */
};

/* Once per process before any store_open(): configures SQLite (multi-thread mode, no memory statistics). */
enum db_err store_init_sqlite(struct errmsg *em);

/* Opens, recovers the log, and indexes the records after the checkpoint. visible_lsn starts at checkpoint_lsn (or at the
 * target of a checkpoint that a crash interrupted): the caller learns what is committed from its role. DB_BUSY: another
 * process has the directory open. DB_CORRUPT: base, meta or log damaged. DB_INVALID: another cluster's directory, a base
 * file of another page size, or a newer format. Never creates a database over existing files it does not understand. On
 * error *out is NULL. */
enum db_err store_open(struct store **out, const struct store_options *options, struct errmsg *em);
void store_close(struct store *s); /* NULL is fine; every connection must have been closed before */

/* Sets the cluster id of a new store, durably. DB_INVALID when it already has another. */
enum db_err store_set_cluster_id(struct store *s, const uint8_t cluster_id[16], struct errmsg *em);

struct store_status {
	uint8_t cluster_id[16];
	struct wal_pos tip; /* term and LSN of the last record */
	uint64_t tip_checksum;
	uint64_t durable_lsn;
	uint64_t applied_lsn;
	uint64_t visible_lsn;
	uint64_t checkpoint_lsn;
	uint64_t first_lsn;   /* oldest record still in the log */
	uint64_t db_checksum; /* at applied_lsn */
	uint32_t db_size_pages;
	uint64_t wal_bytes;         /* size of the log's files */
	uint64_t oldest_pinned_lsn; /* oldest snapshot a reader holds; UINT64_MAX: none */
	uint64_t applied_time_us;   /* wall time inside the record at applied_lsn; 0: none */
	uint64_t visible_log_bytes; /* of the records up to visible_lsn, counted from an arbitrary point on */
};
void store_get_status(struct store *s, struct store_status *out); /* any thread; consistent enough to show */
uint64_t store_visible_lsn(struct store *s);                      /* any thread, one atomic load */
uint64_t store_durable_lsn(struct store *s);

/* A read-only connection; every transaction on it sees the snapshot at visible_lsn of its start. No create, no write:
 * SQLite answers SQLITE_READONLY. The caller closes it with sqlite3_close(). */
enum db_err store_open_reader(struct store *s, sqlite3 **out, struct errmsg *em);
/* A read-only connection that sees the database as of lsn, visible_lsn <= lsn <= applied_lsn, whatever is committed: for
 * comparing states before a cut. Owner thread, which neither applies, cuts nor commits while the connection is open.
 * DB_INVALID: lsn is outside. DB_NOTFOUND: the checkpoint has passed it. */
enum db_err store_open_reader_at(struct store *s, uint64_t lsn, sqlite3 **out, struct errmsg *em);
/* The LSN of the snapshot that db's current read transaction holds; visible_lsn when it holds none. */
uint64_t store_snapshot_lsn(sqlite3 *db);

/* The only connection that writes; sees the tip, uncommitted records included. DB_BUSY: there is one already. Its
 * COMMIT seals the transaction into one record of the term last given to store_set_term() and appends it to the log
 * (not yet durable, not yet visible to readers). When the log has no space COMMIT fails with SQLITE_FULL and the
 * transaction is rolled back; a transaction above transaction_bytes_max fails with SQLITE_TOOBIG or SQLITE_FULL and
 * store_last_error() says which. */
enum db_err store_open_writer(struct store *s, sqlite3 **out, struct errmsg *em);
/* Why the writer connection's last seal failed (DB_OK: it did not). Owner thread only. */
enum db_err store_last_error(struct store *s, struct errmsg *em);
void store_set_term(struct store *s, uint64_t term); /* owner thread; >= the tip's term */
uint64_t store_tip_lsn(struct store *s);             /* any thread, one atomic load */
/* Appends a WAL_TERM_START record in the term set before; not inside a transaction. */
enum db_err store_append_term_start(struct store *s, uint64_t *lsn, struct errmsg *em);

/* fdatasyncs the log; see wal_sync(). */
enum db_err store_sync(struct store *s, uint64_t *durable_lsn, struct errmsg *em);

/* Makes everything up to lsn (a smaller one than before is ignored) visible to new readers and free to be checkpointed. Of
 * what is not applied yet a replica must tell again; a record that this store is just sealing becomes visible before its
 * COMMIT returns. Any thread. */
void store_set_committed(struct store *s, uint64_t lsn);
/* Has on_visible called whenever visible_lsn has moved: on the thread of store_set_committed() or of a COMMIT, holding no
 * lock a reader takes; calls may overlap. Set once, before there is more than one thread. */
void store_on_visible(struct store *s, void (*on_visible)(void *arg), void *arg);

/* Replica side, owner thread only. Appends one canonical record received from the master: checks the chain, writes it
 * to the log; no sync, no apply. DB_GAP: lsn is not tip + 1 or the chain does not join. DB_CORRUPT: the bytes are bad. */
enum db_err store_append_record(struct store *s, const uint8_t *bytes, size_t len, struct errmsg *em);
/* Indexes the pages of every record after applied_lsn up to lsn (<= tip) and checks each record's db_checksum against our
 * own. DB_DIVERGED: our database differs at that record; applied_lsn stays before it and the store refuses to apply
 * further. */
enum db_err store_apply(struct store *s, uint64_t lsn, struct errmsg *em);
/* Removes the records after keep_lsn (>= visible_lsn, else DB_INVALID) from index and log, durably. */
enum db_err store_cut(struct store *s, uint64_t keep_lsn, struct errmsg *em);

/* The log, for walsenders: cursors, terms, positions. Never append to or cut it past the store. */
struct wal *store_wal(struct store *s);

/* True when the log has grown by checkpoint_bytes since the last checkpoint. */
bool store_checkpoint_due(struct store *s);
/* Copies pages newer than the base file's into it up to min(visible_lsn, oldest pinned snapshot), syncs, advances
 * checkpoint_lsn, then trims log segments that end before keep_lsn and that nobody needs. One thread at a time; never
 * blocks readers or the writer for longer than a few instructions. DB_FULL, DB_IO: the old checkpoint stands and a later
 * call may succeed. */
enum db_err store_checkpoint(struct store *s, uint64_t keep_lsn, struct errmsg *em);

/* Computes the checksum of the whole database at the current applied_lsn from scratch, to be compared with
 * store_status.db_checksum. Slow; owner thread or while nothing is applied. */
enum db_err store_verify(struct store *s, uint64_t *db_checksum, struct errmsg *em);

#endif

/*
 * disk.h - the disk of a simulated node, and the store on it: what common/wal and common/store promise, without files.
 *
 * Records have their real encoding (common/wal/record.h) with no pages; which register a record changes, and to what, is
 * said by its time field. A database is SIM_REGISTERS registers, its checksum the XOR of a hash of each. As in the real
 * log every record's frame remembers what was synced when it was written; a power cut keeps any subset of what was not,
 * and recovery tells a torn tail from damage by those frames.
 *
 * What is named durable outlives the process, what is named volatile does not. Everything on disk can be read back whole
 * until disk_power_cut() or disk_rot() says otherwise.
 */
#ifndef GRIZZLY_TESTS_SIM_DISK_H
#define GRIZZLY_TESTS_SIM_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/wal/record.h"
#include "common/wire/wire.h"
#include "node/standing.h"
#include "tests/sim/rng.h"

#define SIM_LSN_MAX   4000u /* a schedule ends well before */
#define SIM_REGISTERS 5u    /* the last one holds the version of the members, in place of their table */

/* The value of a record that writes a version of the members. */
#define SIM_MEMBERS_VALUE ((uint64_t)1 << 63)

/* The database after a record. */
struct disk_state {
	uint64_t lsn;
	uint64_t db_checksum;
	uint64_t registers[SIM_REGISTERS];
};

struct disk_record {
	uint8_t bytes[WAL_RECORD_HEADER_SIZE];
	struct wal_record r;
	uint64_t synced_lsn; /* of its frame */
	bool intact;
};

struct disk {
	/* durable, or at least written */
	struct disk_record *log; /* by LSN */
	uint64_t first_lsn;      /* the oldest that can be read; last.lsn + 1: none */
	struct wal_pos last;
	uint64_t last_checksum;
	struct wal_pos base;
	uint64_t base_checksum; /* of the record at base */
	struct disk_state base_state;
	uint64_t promised_term;
	enum standing standing;
	bool has_store;
	bool rotten; /* a record was damaged; until the node has been rebuilt */
	/* volatile */
	uint64_t durable_lsn;
	struct disk_state applied;
	uint64_t visible_lsn;
	bool diverged;
	bool failed; /* a sync failed: no more writes by this process */
	/* faults, until they are taken back */
	bool full;
	bool sync_fails;
};

/* Allocates the log. False: out of memory. */
bool disk_init(struct disk *d);
void disk_fini(struct disk *d);
/* As new: nothing was ever stored. */
void disk_clear(struct disk *d);

/* The version of the members that a database knows; 0: none. */
uint64_t disk_members_version(const struct disk_state *s);

/* Which register a value belongs to, and what a register with a value adds to the database's checksum. */
unsigned disk_register_of(uint64_t value);
uint64_t disk_hash(unsigned reg, uint64_t value);

/* ---- as store_*() and wal_*() of the same names do */

/* Recovers the log and opens the database. DB_CORRUPT: damage that is no torn tail. */
enum db_err disk_open(struct disk *d, struct errmsg *em);
enum db_err disk_append_record(struct disk *d, const uint8_t *bytes, size_t len, struct errmsg *em);
/* Seals value, or (WAL_TERM_START) the start of term, into the next record; it is applied too. */
enum db_err disk_seal(struct disk *d, enum wal_type type, uint64_t term, uint64_t value, struct errmsg *em);
enum db_err disk_sync(struct disk *d, uint64_t upto_lsn, struct errmsg *em);
enum db_err disk_apply(struct disk *d, uint64_t lsn, struct errmsg *em);
enum db_err disk_cut(struct disk *d, uint64_t keep_lsn, struct errmsg *em);
void disk_set_committed(struct disk *d, uint64_t lsn);
/* A checkpoint up to what is visible and durable; then the log before keep_lsn goes. */
void disk_checkpoint(struct disk *d, uint64_t keep_lsn);
/* NULL: not in the log. */
const struct disk_record *disk_read(const struct disk *d, uint64_t lsn);
/* Term and checksum of a record, or of the last one before the first. */
enum db_err disk_describe(const struct disk *d, uint64_t lsn, uint64_t *term, uint64_t *checksum, struct errmsg *em);
size_t disk_terms(const struct disk *d, struct wal_pos *out, size_t max);
/* The database at lsn (the base's..applied); false: it cannot be told. */
bool disk_state_at(const struct disk *d, uint64_t lsn, struct disk_state *out);

/* The store as a snapshot says, in place of what there was; the promise stays. */
void disk_install(struct disk *d, struct wal_pos pos, uint64_t record_checksum, const struct disk_state *state);
/* Nothing but the promise stays. */
void disk_set_aside(struct disk *d);

/* ---- accidents, while no process has it open */

/* Any subset of what was written but not synced is lost. */
void disk_power_cut(struct disk *d, struct rng *rng);
/* The process was killed while it wrote: its last record, when not synced, may be cut short. */
void disk_torn_write(struct disk *d);
/* A durable record is damaged, one that a later frame knows to have been durable. False: there is none. */
bool disk_rot(struct disk *d, struct rng *rng);

#endif

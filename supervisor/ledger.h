/*
 * ledger.h - how far each node was when it was last heard of, kept where a lost node directory cannot take it along.
 *
 * D/supervisor.positions (common/base/slotfile.h): version u32, node count u32, then for each node term u64, lsn u64 of
 * its highest durable record, committed_lsn u64 as it knew it, wall time of that in microseconds u64. A node that comes
 * back with less (an empty directory) does not lower its entry: what it once acknowledged is what an operator who gives
 * it up wants to know. A higher term does replace it, for then its old tail has been cut in order.
 *
 * The loop thread notes, a thread of the ledger's own writes, at most every LEDGER_WRITE_MS: a disk that stalls must not
 * stall the supervision. What the last second brought may therefore be missing after a crash.
 */
#ifndef GRIZZLY_SUPERVISOR_LEDGER_H
#define GRIZZLY_SUPERVISOR_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/config.h"
#include "common/base/err.h"
#include "common/wal/record.h"

#define LEDGER_PATH     "supervisor.positions"
#define LEDGER_WRITE_MS 1000u

struct ledger_entry {
	struct wal_pos last;    /* {0, 0}: never heard of */
	uint64_t committed_lsn; /* as the node knew it then */
	uint64_t seen_us;       /* wall clock */
};

struct ledger_book {
	unsigned node_count;
	struct ledger_entry nodes[CONFIG_NODES_MAX];
};

/* What is recorded; all zero when nothing ever was. DB_CORRUPT, DB_IO. */
enum db_err ledger_read(struct ledger_book *out, struct errmsg *em);
/* Replaces it, durably, whatever is there. Only while no ledger is open. */
enum db_err ledger_write(const struct ledger_book *book, struct errmsg *em);

struct ledger; /* body in ledger.c */

enum db_err ledger_create(struct ledger **out, unsigned node_count, struct errmsg *em);
void ledger_note(struct ledger *l, unsigned node, const struct ledger_entry *now);
void ledger_free(struct ledger *l); /* writes what was noted; NULL is fine */

#endif

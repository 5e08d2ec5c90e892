/*
 * lost_writes.h - which request_ids this node had written as a master and had to cut when it was deposed.
 *
 * A cut record was never acknowledged, and no master has it: its writes are lost, unless they were sent again since
 * (then they have a receipt, which says more). The list is what GET /writes/ID answers `lost` from. It is kept beside
 * the node's directory (nodeN.lost), for that one is exchanged as a whole when a snapshot comes.
 *
 * File: "GZLOST01", u32 count, per entry oldest first u64 lsn, u32 length and the id, at last the u64 XXH3 of all
 * before. Written anew as a whole beside the old one and renamed. Bounded: the newest LOST_WRITES_MAX stay. Any
 * thread.
 */
#ifndef GRIZZLY_NODE_LOST_WRITES_H
#define GRIZZLY_NODE_LOST_WRITES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/store/store.h"

#define LOST_WRITES_MAX 10000

struct lost_writes;

/* Reads the list of the node whose directory is dir (copied). A damaged file is logged and begun anew. DB_NOMEM,
 * DB_IO. */
enum db_err lost_writes_create(struct lost_writes **out, const char *dir, struct errmsg *em);
void lost_writes_free(struct lost_writes *l); /* NULL is fine */

/* Adds one; durable after lost_writes_save(). Of equal ids the newest counts. DB_NOMEM. */
enum db_err lost_writes_add(struct lost_writes *l, const char *id, size_t len, uint64_t lsn, struct errmsg *em);
enum db_err lost_writes_save(struct lost_writes *l, struct errmsg *em);

/* Before the store's owner cuts the records after keep_lsn, on its thread: adds their request_ids, durably. What
 * fails is logged: a node that cannot write this down shall rejoin all the same, and those writes are then
 * `unknown`. */
void lost_writes_note_tail(struct lost_writes *l, struct store *store, uint64_t keep_lsn);

/* Whether id (NUL-terminated) was cut here, and at which LSN it had been. */
bool lost_writes_find(struct lost_writes *l, const char *id, uint64_t *lsn);

#endif

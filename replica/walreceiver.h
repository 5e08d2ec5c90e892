/*
 * walreceiver.h - what a replica does with each message of its master: the deciding half, without threads or sockets.
 *
 * Everything it needs from the world comes through struct walreceiver_io (the idea is canonical/raft's raft_io), so that
 * the same code runs in a node (replica/replica.c), in unit tests and in a simulator. The owner serialises all calls.
 *
 *   WAITING --HELLO--> POSITIONED --START--> STREAMING --gap or damage--> POSITIONED
 *   any --newer term--> WAITING; any --our database or log is not the master's--> DIVERGED
 *   POSITIONED or DIVERGED --SNAPSHOT_BEGIN--> SNAPSHOT --SNAPSHOT_END, all of it is there--> REPLACED
 *   SNAPSHOT --cut short, or no space for it--> what it was before
 *
 * DIVERGED is left only by a snapshot. REPLACED is final: the owner ends, puts the snapshot in the place of its store and
 * starts anew with it; nothing is listened to meanwhile.
 *
 * Invariants: (1) nothing of a term below the promised one is accepted; (2) a record is acknowledged only after it was
 * synced; (3) readers see only what the master called committed; (4) nothing visible is ever cut, or
 * replaced by an older snapshot, unless our own database is known to be wrong.
 */
#ifndef GRIZZLY_REPLICA_WALRECEIVER_H
#define GRIZZLY_REPLICA_WALRECEIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/wal/record.h"
#include "common/wire/wire.h"

/* The replica's log and database. Each function may block on disk. */
struct walreceiver_io {
	void *arg;
	struct wal_pos (*tip)(void *arg, uint64_t *checksum);
	size_t (*terms)(void *arg, struct wal_pos *out, size_t max);
	enum db_err (*checksum_at)(void *arg, uint64_t lsn, uint64_t *checksum, struct errmsg *em);
	uint64_t (*visible_lsn)(void *arg);
	uint64_t (*applied_lsn)(void *arg, uint64_t *db_checksum);
	enum db_err (*append)(void *arg, const uint8_t *record, size_t len, struct errmsg *em);
	/* One piece of a record too large for one message, in order. With the last piece the record is appended. */
	enum db_err (*append_piece)(void *arg, uint64_t offset, const uint8_t *piece, size_t len, uint64_t record_len,
				    struct errmsg *em);
	enum db_err (*sync)(void *arg, struct errmsg *em);
	enum db_err (*apply)(void *arg, uint64_t lsn, struct errmsg *em);
	enum db_err (*cut)(void *arg, uint64_t keep_lsn, struct errmsg *em);
	void (*set_committed)(void *arg, uint64_t lsn);
	/* A whole database, received beside our own; one at a time. compare() fills want->bits: the pages offered that we have
	 * not got. end() checks it and makes it durable; on DB_OK it is the owner's to put it in our place. drop() ends one
	 * early, and keeps what has arrived for the next one; discard() removes what was kept, if anything. */
	enum db_err (*snapshot_begin)(void *arg, const struct wire_snapshot_begin *begin, struct errmsg *em);
	enum db_err (*snapshot_compare)(void *arg, const struct wire_snapshot_hashes *hashes,
					struct wire_snapshot_want *want, struct errmsg *em);
	enum db_err (*snapshot_pages)(void *arg, const struct wire_snapshot_pages *pages, struct errmsg *em);
	enum db_err (*snapshot_end)(void *arg, struct errmsg *em);
	void (*snapshot_drop)(void *arg);
	void (*snapshot_discard)(void *arg);
	enum db_err (*promise)(void *arg, uint64_t term, struct errmsg *em); /* durable when it returns */
	/* Who the master is; called on every HELLO accepted, before anything is sent to it. */
	void (*set_master)(void *arg, const char *id, const struct wire_hello *hello);
	void (*send)(void *arg, const struct wire_msg *msg); /* to that master's ack address; the newest ACK may replace
	                                                        one that was not sent yet */
};

enum walreceiver_state {
	WALRECEIVER_WAITING,
	WALRECEIVER_POSITIONED,
	WALRECEIVER_STREAMING,
	WALRECEIVER_DIVERGED,
	WALRECEIVER_SNAPSHOT,
	WALRECEIVER_REPLACED,
	WALRECEIVER_FAILED, /* the log cannot be written: no more acknowledgements until the process is restarted */
};

struct walreceiver;

/* promised_term: the one made durable before. DB_NOMEM. */
enum db_err walreceiver_create(struct walreceiver **out, const struct walreceiver_io *io, const uint8_t cluster_id[16],
			       const char *node_id, uint64_t promised_term, uint64_t now_ms, struct errmsg *em);
void walreceiver_free(struct walreceiver *w); /* NULL is fine */

/* One decoded message from the replication socket. Anything unexpected is dropped, with a log line where it matters. False:
 * its sender, a master of the promised term, speaks in a stream that was never begun here while ours has died: its connection
 * should be closed, so that it begins anew. */
bool walreceiver_on_message(struct walreceiver *w, const struct wire_msg *msg, uint64_t now_ms);

/* Promises term durably (smaller than before: DB_STALE_TERM, equal: DB_OK, beyond WIRE_TERM_MAX: DB_INVALID) and leaves the
 * stream of an older master. The log is synced, so that the position answered afterwards is durable. */
enum db_err walreceiver_set_term(struct walreceiver *w, uint64_t term, struct errmsg *em);

struct walreceiver_status {
	enum walreceiver_state state;
	uint64_t promised_term;
	bool caught_up;        /* it has had everything its master had at least once */
	uint64_t caught_up_ms; /* when it last had; before: when it was created */
	uint64_t heard_ms;     /* when its master last spoke */
	bool behind;           /* the master has said that there is more */
	uint64_t hello_lsn;    /* the end of the master's log when it last said HELLO; 0: it did not */
	bool diverged;         /* our database or log is wrong, whatever state says: a snapshot may be on its way */
	char reason[WIRE_REASON_MAX]; /* why diverged or FAILED, or what else is to be said */
};
void walreceiver_get_status(const struct walreceiver *w, struct walreceiver_status *out);
/* How long ago, at now_ms, the replica last had everything its master had; 0: it has. Before it ever had: a lower bound. */
uint64_t walreceiver_lag_ms(const struct walreceiver_status *status, uint64_t now_ms);

const char *walreceiver_state_name(enum walreceiver_state state);

#endif

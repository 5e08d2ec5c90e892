/*
 * replica.h - the replica role of a node: the walreceiver on a real store, and the link back to the master.
 *
 * The shell around replica/walreceiver.c. Messages are handed in by the node's replication socket, one at a time, on its
 * receiver's thread; that thread also appends, syncs and applies, for a hand-over would only add to every commit's round trip.
 * One mutex serialises it with replica_set_term().
 */
#ifndef GRIZZLY_REPLICA_REPLICA_H
#define GRIZZLY_REPLICA_REPLICA_H

#include <stdbool.h>
#include <stdint.h>

#include "common/store/snapshot_copy.h"
#include "common/store/store.h"
#include "common/wire/mesh.h"
#include "common/wire/wire.h"
#include "replica/walreceiver.h"

struct replica;

struct replica_options {
	struct store *store;
	struct mesh *mesh;         /* borrowed, outlives it */
	const uint8_t *cluster_id; /* 16 bytes; copied */
	const char *node_id;       /* copied */
	const char *dir;           /* the node's own; a snapshot is received beside it. Copied */
	uint64_t promised_term;
	enum db_err (*promise)(void *arg, uint64_t term, struct errmsg *em); /* makes a term durable */
	/* A snapshot has been received whole and is the callee's now: to put it in the store's place, which must be closed
	 * for that. Until then the replica stands still. */
	void (*on_snapshot)(void *arg, struct snapshot_target *snapshot);
	/* The records after keep_lsn, which no master acknowledged, are about to be cut from the store. NULL: not told. */
	void (*on_cut)(void *arg, uint64_t keep_lsn);
	void (*on_master)(void *arg, const char *id, const char *http_address, uint64_t term); /* who to forward to */
	void *arg;
};

enum db_err replica_create(struct replica **out, const struct replica_options *options, struct errmsg *em);
void replica_free(struct replica *r); /* no message may be under way; NULL is fine */

bool replica_on_message(struct replica *r, const struct wire_msg *msg);
enum db_err replica_set_term(struct replica *r, uint64_t term, struct errmsg *em);
/* How long a message has been processed without getting on; 0: none is. Any thread; asked again and again. */
uint64_t replica_stuck_ms(struct replica *r);
/* As of the last message; never waits for one being applied. Any thread. */
void replica_get_status(struct replica *r, struct walreceiver_status *out);

#endif

/*
 * own_store.h - this node's store, and whether its log may be counted on: opening it, making way for another one when it
 * cannot be relied on, and putting a snapshot in its place.
 *
 * A store that is damaged, unreadable, gone, or different from the master's or from what was written is set aside and begun
 * anew, empty, to be filled by the master; node/standing.h remembers what that means for elections. Alone, a node has nobody
 * to be filled by and uses what can be read. Called by the main thread alone.
 */
#ifndef GRIZZLY_NODE_OWN_STORE_H
#define GRIZZLY_NODE_OWN_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/config.h"
#include "common/base/err.h"
#include "common/store/snapshot_copy.h"
#include "common/store/store.h"
#include "node/disk_watch.h"
#include "node/standing.h"

/* All borrowed. */
struct own_store_options {
	const char *dir;
	const struct cluster_config *config;
	struct disk_watch *disk;
	struct timings *timings;
	bool alone; /* no other node */
};

struct own_store {
	struct own_store_options options;
	struct store *store;    /* the owner closes it */
	enum standing standing; /* of several nodes' cluster only */
};

/* DB_OK: store is open. Errors of store_open(); DB_IO also when the standing cannot be read or written. */
enum db_err own_store_open(struct own_store *o, const struct own_store_options *options, struct errmsg *em);
/* Durable when it returns DB_OK; else it stands as before. */
enum db_err own_store_set_standing(struct own_store *o, enum standing standing, struct errmsg *em);

/* Puts the snapshot in the place of the store, which is closed. The promise goes with it. What was acknowledged before and is
 * not in the snapshot comes back from the master; until then this node does not count. last_lsn: where its log ended. */
enum db_err own_store_replace(struct own_store *o, struct snapshot_target *snapshot, uint64_t last_lsn,
			      struct errmsg *em);

#endif

/*
 * salvage.h - what only this node had is kept before it is cut.
 *
 * A deposed master's log may end with records that nobody acknowledged and its successor does not have. Following the
 * successor means to cut them; before that they are put into <node's directory>.salvage/, which nothing ever removes but
 * the operator:
 *   <time>-<first lsn>-<last lsn>.jsonl  the changes to read: a header line, padded to SALVAGE_HEADER_BYTES, then a line
 *                                        for each change (replica/salvage_diff.h)
 *   <time>-<first lsn>-<last lsn>.wal    the records as they were, one behind the other (common/wal/record.h)
 * Both are synced, and so are their names, when salvage_keep() returns DB_OK. The readable form may be left out or break
 * off (too large, too slow, a table that cannot be compared): the header says so, and the records are all there.
 * A tail without any change to the database (term starts alone) leaves nothing. The same tail is kept once, however often
 * its cut is tried.
 *
 * Blocks on disk, for SALVAGE_MS_MAX beside the writing; called by the replica's message thread, the owner of the tip.
 */
#ifndef GRIZZLY_REPLICA_SALVAGE_H
#define GRIZZLY_REPLICA_SALVAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/store/store.h"

#define SALVAGE_SUFFIX         ".salvage"
#define SALVAGE_HEADER_BYTES   4096u
#define SALVAGE_MS_MAX         2000u                /* for comparing; heartbeats are answered meanwhile */
#define SALVAGE_TAIL_BYTES_MAX ((uint64_t)64 << 20) /* of records that are made readable */
#define SALVAGE_TEXT_BYTES_MAX ((uint64_t)256 << 20)

struct salvage {
	struct store *store;
	const char *dir; /* the node's */
	const char *node_id;
	const uint8_t *cluster_id; /* 16 bytes */
	uint64_t keep_lsn;         /* the last record that stays; >= visible_lsn */
	/* The records are known not to be in the cluster. Else they may be: the master's log does not reach back far enough
	 * to tell, and its whole database takes the place of ours. */
	bool certain;
	const char *reason;
};

/* DB_FULL, DB_IO, DB_NOMEM, DB_CORRUPT: nothing was kept, and nothing may be cut. *kept: whether there was anything. */
enum db_err salvage_keep(const struct salvage *s, bool *kept, struct errmsg *em);

/* Does a salvaged tail below node_dir hold the write that carried request_id? Looks for the row that such a write leaves in
 * the table of request ids. DB_OK: path is the change file's. DB_NOTFOUND: none does. DB_IO, DB_NOMEM. */
enum db_err salvage_find_request(const char *node_dir, const char *request_id, char *path, size_t path_size,
				 struct errmsg *em);

#endif

/*
 * standing.h - whether the log of this node may be counted on: a small file beside its directory.
 *
 * An election relies on each voter's log: among enough voters one has every acknowledged write, because those who
 * acknowledged it still hold it. A node whose log is lost or was replaced by an older snapshot breaks that, if its empty
 * word counts. So it remembers, in D/nodeN.state, that it must not be counted, until it again holds all that its master
 * had when it came back. The file lies beside the directory, for a directory that was emptied shows no trace of it.
 *
 * Called by the main thread alone. Everything is durable when a call returns DB_OK.
 */
#ifndef GRIZZLY_NODE_STANDING_H
#define GRIZZLY_NODE_STANDING_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

enum standing {
	STANDING_NEW,     /* there is no file: nothing was ever here, or a version without this file wrote it */
	STANDING_WHOLE,   /* the log holds whatever was acknowledged */
	STANDING_REBUILD, /* it may lack some of it */
	STANDING_WRONG,   /* and the store is of no use either: it differs from the master's */
};

/* What the file beside dir says; one that makes no sense says STANDING_REBUILD. DB_IO. */
enum db_err standing_read(const char *dir, enum standing *out, struct errmsg *em);
enum db_err standing_write(const char *dir, enum standing standing, struct errmsg *em);

/* Whether a node's promise and its candidacy count in an election. Pure, as is the next. */
bool standing_counts(enum standing standing);
/* What becomes of a store whose log ended at last_lsn when a snapshot of the master's committed database at snapshot_lsn
 * takes its place. One that reaches as far as the old log did holds whatever this node acknowledged: what was committed of
 * that is in every later master's history, and this master's own records up to there are in the snapshot. */
enum standing standing_after_snapshot(enum standing standing, uint64_t last_lsn, uint64_t snapshot_lsn);

/* What lies in dir, without opening it. */
enum standing_store {
	STANDING_STORE_NONE,    /* nothing */
	STANDING_STORE_THERE,   /* store.meta is there, whatever it is worth */
	STANDING_STORE_NO_META, /* a database or a log, but store.meta is gone */
};
enum standing_store standing_look(const char *dir);

/* Moves the store in dir to "<dir>.damaged", replacing what is there, or (keep false) removes it; dir then holds nothing
 * but the promise file. In one step: a crash leaves the one or the other. */
enum db_err standing_set_aside(const char *dir, bool keep, struct errmsg *em);

#endif

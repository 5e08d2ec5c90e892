/*
 * vfs.h - what SQLite sees of a store: one sqlite3_vfs per store, its main database file and its scratch files.
 *
 * Private to common/store: vfs.c has the vfs itself and scratch files, vfs_db.c the methods of the main database file.
 */
#ifndef GRIZZLY_COMMON_STORE_VFS_H
#define GRIZZLY_COMMON_STORE_VFS_H

#include <sqlite3.h>
#include <stdbool.h>

#include "common/base/err.h"
#include "common/store/snapshots.h"

struct store;
struct vfs;

#define VFS_DB_NAME "main.db" /* the only database name that a store's vfs opens */

/* One connection's main database file; SQLite allocates it. */
struct db_file {
	sqlite3_file base; /* first, as SQLite demands */
	struct store *store;
	struct pin_slot *pin;
	struct snapshot snapshot; /* valid while lock >= SQLITE_LOCK_SHARED; a writer sees the tip instead */
	int lock;                 /* SQLITE_LOCK_... */
	bool writer;
	bool is_fixed;         /* sees `fixed` always, whatever is visible: see store_open_reader_at() */
	struct snapshot fixed; /* valid when is_fixed */
	bool configured;       /* the connection is set up: pragmas that would undo that are refused */
};

/* Opens a connection through v; a reader that sees only *fixed, unless that is NULL. Called under no lock; any thread. */
enum db_err vfs_connect(struct vfs *v, bool writer, const struct snapshot *fixed, sqlite3 **out, struct errmsg *em);

/* SQLite's xOpen for the main database. pMethods is NULL when it fails. */
int db_file_open(struct db_file *f, struct store *s, bool writer);
/* The file of a connection made by vfs_connect(); NULL for any other. */
struct db_file *db_file_of(sqlite3 *db);

/* SQLite's result code for an error of ours in a write path; always of the FULL or IOERR family, which is what makes the
 * pager distrust its cache. */
int sqlite_write_error(enum db_err err);

#endif

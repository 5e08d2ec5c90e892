/*
 * dirs.h - directories as a whole: removing, syncing and exchanging them, for whoever replaces a store by another one.
 *
 * Used by common/store/store.c and snapshot_copy.c, and by the node that sets a damaged store aside. Names are relative to the working
 * directory or absolute; each function blocks on the disk, and any thread may call it.
 */
#ifndef GRIZZLY_COMMON_STORE_DIRS_H
#define GRIZZLY_COMMON_STORE_DIRS_H

#include "common/base/err.h"

/* Removes path with everything below it; DB_OK also when there is none. */
enum db_err dirs_remove(const char *path, struct errmsg *em);
/* Makes the names in path durable; dirs_sync_parent(): those beside it. */
enum db_err dirs_sync(const char *path, struct errmsg *em);
enum db_err dirs_sync_parent(const char *path, struct errmsg *em);
/* Copies the file `name` from one directory to another, durably but for its name; DB_OK also when from has none. Meant for
 * small files. DB_EXISTS: to has one. */
enum db_err dirs_copy_file(const char *from, const char *to, const char *name, struct errmsg *em);
/* Puts the directory `fresh` in the place of dir in one step, durably; what was dir is called fresh afterwards, if it was
 * there at all. A crash leaves either both as before or both exchanged. */
enum db_err dirs_exchange(const char *fresh, const char *dir, struct errmsg *em);

#endif

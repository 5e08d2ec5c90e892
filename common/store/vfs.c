/*
 * vfs.c - see vfs.h: opening connections, and the files that are not the database.
 *
 * SQLite never touches the file system itself. The main database can only be opened by vfs_connect(), not by ATTACH: a
 * connection under way is known by its thread. Journals, statement journals, temporary databases and sorts become scratch
 * files. Everything else (write-ahead logs, other databases) is refused.
 *
 * The writer runs with journal_mode=TRUNCATE: its rollback journal is a scratch file that stays open
 * (SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN), so that a small transaction journals into memory that is there already and a
 * large one does not have to fit into memory, as it would with journal_mode=MEMORY. synchronous=OFF keeps the
 * pager from syncing the journal and from making super-journals. A journal is never hot: it does not outlive the process,
 * and when a transaction is dropped without a rollback the overlay and the journal go together (db_unlock()).
 */
#include "common/store/vfs.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/store/scratch.h"
#include "common/store/store_internal.h"

struct vfs {
	sqlite3_vfs methods;
	char name[48];
	sqlite3_vfs *os; /* the system's own, for clock and randomness */
	struct store *store;
	pthread_mutex_t connect_lock; /* one vfs_connect() at a time */
	_Atomic bool connecting;
	_Atomic pthread_t connecting_thread; /* valid while connecting */
	bool connecting_writer;              /* written under connect_lock, read by the same thread */
};

struct scratch_file {
	sqlite3_file base; /* first, as SQLite demands */
	struct store *store;
	bool journal; /* the writer's rollback journal */
	struct scratch scratch;
};

int sqlite_write_error(enum db_err err)
{
	switch (err) {
	case DB_OK:
		return SQLITE_OK;
	case DB_FULL:
	case DB_TOO_LARGE:
		return SQLITE_FULL;
	case DB_NOMEM:
		return SQLITE_IOERR_NOMEM;
	default:
		return SQLITE_IOERR_WRITE;
	}
}

static int scratch_file_close(sqlite3_file *file)
{
	struct scratch_file *f = (struct scratch_file *)file;

	if (f->journal)
		f->store->journal = NULL;
	scratch_fini(&f->scratch);
	return SQLITE_OK;
}

static int scratch_file_read(sqlite3_file *file, void *out, int len, sqlite3_int64 at)
{
	struct scratch_file *f = (struct scratch_file *)file;
	struct errmsg em = {0};
	size_t got;

	if (scratch_read(&f->scratch, out, (size_t)len, (uint64_t)at, &got, &em) != DB_OK) {
		log_error("scratch file: %s", em.text);
		return SQLITE_IOERR_READ;
	}
	return got < (size_t)len ? SQLITE_IOERR_SHORT_READ : SQLITE_OK;
}

static int scratch_file_write(sqlite3_file *file, const void *bytes, int len, sqlite3_int64 at)
{
	struct scratch_file *f = (struct scratch_file *)file;
	struct errmsg em = {0};
	enum db_err err;

	err = scratch_write(&f->scratch, bytes, (size_t)len, (uint64_t)at, &em);
	if (err != DB_OK) {
		log_error("scratch file: %s", em.text);
		if (f->journal)
			f->store->seal_error = em;
	}
	return sqlite_write_error(err);
}

static int scratch_file_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	struct scratch_file *f = (struct scratch_file *)file;
	struct errmsg em = {0};

	if (scratch_truncate(&f->scratch, (uint64_t)size, &em) != DB_OK) {
		log_error("scratch file: %s", em.text);
		return SQLITE_IOERR_TRUNCATE;
	}
	return SQLITE_OK;
}

static int scratch_file_sync(sqlite3_file *file, int flags)
{
	(void)file;
	(void)flags;
	return SQLITE_OK; /* nothing in it is needed after a crash */
}

static int scratch_file_size(sqlite3_file *file, sqlite3_int64 *size)
{
	*size = (sqlite3_int64)((struct scratch_file *)file)->scratch.size;
	return SQLITE_OK;
}

static int scratch_file_lock(sqlite3_file *file, int level)
{
	(void)file;
	(void)level;
	return SQLITE_OK; /* each has one user */
}

static int scratch_file_check_lock(sqlite3_file *file, int *locked)
{
	(void)file;
	*locked = 0;
	return SQLITE_OK;
}

static int scratch_file_control(sqlite3_file *file, int op, void *arg)
{
	(void)file;
	(void)op;
	(void)arg;
	return SQLITE_NOTFOUND;
}

static int scratch_file_sector_size(sqlite3_file *file)
{
	(void)file;
	return WAL_PAGE_SIZE;
}

static int scratch_file_characteristics(sqlite3_file *file)
{
	(void)file;
	return SQLITE_IOCAP_SAFE_APPEND | SQLITE_IOCAP_POWERSAFE_OVERWRITE | SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN;
}

static const sqlite3_io_methods scratch_methods = {
    .iVersion = 1,
    .xClose = scratch_file_close,
    .xRead = scratch_file_read,
    .xWrite = scratch_file_write,
    .xTruncate = scratch_file_truncate,
    .xSync = scratch_file_sync,
    .xFileSize = scratch_file_size,
    .xLock = scratch_file_lock,
    .xUnlock = scratch_file_lock,
    .xCheckReservedLock = scratch_file_check_lock,
    .xFileControl = scratch_file_control,
    .xSectorSize = scratch_file_sector_size,
    .xDeviceCharacteristics = scratch_file_characteristics,
};

static int open_scratch(struct vfs *v, sqlite3_file *file, bool journal)
{
	struct scratch_file *f = (struct scratch_file *)file;

	memset(f, 0, sizeof(*f));
	f->base.pMethods = &scratch_methods;
	f->store = v->store;
	f->journal = journal;
	scratch_init(&f->scratch, v->store->tmp_dir);
	if (journal)
		v->store->journal = &f->scratch; /* only the writer, on the owner's thread, ever opens one */
	return SQLITE_OK;
}

static int vfs_open(sqlite3_vfs *methods, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
	struct vfs *v = methods->pAppData;

	file->pMethods = NULL;
	if (out_flags != NULL)
		*out_flags = flags;
	if (flags &
	    (SQLITE_OPEN_TEMP_DB | SQLITE_OPEN_TEMP_JOURNAL | SQLITE_OPEN_TRANSIENT_DB | SQLITE_OPEN_SUBJOURNAL))
		return open_scratch(v, file, false);
	if (name == NULL)
		return SQLITE_CANTOPEN;
	if ((flags & SQLITE_OPEN_MAIN_JOURNAL) && strcmp(name, VFS_DB_NAME "-journal") == 0)
		return open_scratch(v, file, true);
	if ((flags & SQLITE_OPEN_MAIN_DB) && strcmp(name, VFS_DB_NAME) == 0 && atomic_load(&v->connecting) &&
	    pthread_equal(atomic_load(&v->connecting_thread), pthread_self()))
		return db_file_open((struct db_file *)file, v->store, v->connecting_writer);
	log_warn("store: SQLite asked for file \"%s\", refused", name);
	return SQLITE_CANTOPEN;
}

static int vfs_delete(sqlite3_vfs *methods, const char *name, int sync_dir)
{
	(void)methods;
	(void)name;
	(void)sync_dir;
	return SQLITE_OK; /* nothing that SQLite believes to have created exists */
}

static int vfs_access(sqlite3_vfs *methods, const char *name, int flags, int *result)
{
	(void)methods;
	(void)name;
	(void)flags;
	*result = 0; /* no journal and no write-ahead log on disk, ever */
	return SQLITE_OK;
}

static int vfs_full_pathname(sqlite3_vfs *methods, const char *name, int size, char *out)
{
	(void)methods;
	return snprintf(out, (size_t)size, "%s", name) < size ? SQLITE_OK : SQLITE_CANTOPEN;
}

static void *vfs_dl_open(sqlite3_vfs *methods, const char *name)
{
	(void)methods;
	(void)name;
	return NULL; /* no extensions */
}

static void vfs_dl_error(sqlite3_vfs *methods, int size, char *message)
{
	(void)methods;
	snprintf(message, (size_t)size, "extensions cannot be loaded");
}

static void (*vfs_dl_sym(sqlite3_vfs *methods, void *handle, const char *symbol))(void)
{
	(void)methods;
	(void)handle;
	(void)symbol;
	return NULL;
}

static void vfs_dl_close(sqlite3_vfs *methods, void *handle)
{
	(void)methods;
	(void)handle;
}

static int vfs_randomness(sqlite3_vfs *methods, int size, char *out)
{
	struct vfs *v = methods->pAppData;

	return v->os->xRandomness(v->os, size, out);
}

static int vfs_sleep(sqlite3_vfs *methods, int microseconds)
{
	struct vfs *v = methods->pAppData;

	return v->os->xSleep(v->os, microseconds);
}

static int vfs_current_time(sqlite3_vfs *methods, double *julian_day)
{
	struct vfs *v = methods->pAppData;

	return v->os->xCurrentTime(v->os, julian_day);
}

static int vfs_current_time_ms(sqlite3_vfs *methods, sqlite3_int64 *julian_ms)
{
	struct vfs *v = methods->pAppData;

	return v->os->xCurrentTimeInt64(v->os, julian_ms);
}

static int vfs_last_error(sqlite3_vfs *methods, int size, char *out)
{
	(void)methods;
	(void)size;
	(void)out;
	return 0;
}

enum db_err vfs_create(struct vfs **out, struct store *s, struct errmsg *em)
{
	struct vfs *v = calloc(1, sizeof(*v));
	size_t size = sizeof(struct db_file);

	*out = NULL;
	if (v == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for a vfs");
	v->os = sqlite3_vfs_find(NULL);
	if (v->os == NULL || v->os->iVersion < 2) {
		free(v);
		return errmsg_set(em, DB_INVALID, "SQLite has no default vfs: store_init_sqlite() was not called");
	}
	v->store = s;
	snprintf(v->name, sizeof(v->name), "grizzly-%p", (void *)s);
	if (size < sizeof(struct scratch_file))
		size = sizeof(struct scratch_file);
	v->methods = (sqlite3_vfs){
	    .iVersion = 2,
	    .szOsFile = (int)size,
	    .mxPathname = 512,
	    .zName = v->name,
	    .pAppData = v,
	    .xOpen = vfs_open,
	    .xDelete = vfs_delete,
	    .xAccess = vfs_access,
	    .xFullPathname = vfs_full_pathname,
	    .xDlOpen = vfs_dl_open,
	    .xDlError = vfs_dl_error,
	    .xDlSym = vfs_dl_sym,
	    .xDlClose = vfs_dl_close,
	    .xRandomness = vfs_randomness,
	    .xSleep = vfs_sleep,
	    .xCurrentTime = vfs_current_time,
	    .xGetLastError = vfs_last_error,
	    .xCurrentTimeInt64 = vfs_current_time_ms,
	};
	pthread_mutex_init(&v->connect_lock, NULL);
	if (sqlite3_vfs_register(&v->methods, 0) != SQLITE_OK) {
		pthread_mutex_destroy(&v->connect_lock);
		free(v);
		return errmsg_set(em, DB_NOMEM, "cannot register a vfs");
	}
	*out = v;
	return DB_OK;
}

void vfs_free(struct vfs *v)
{
	if (v == NULL)
		return;
	sqlite3_vfs_unregister(&v->methods);
	pthread_mutex_destroy(&v->connect_lock);
	free(v);
}

static enum db_err sqlite_failed(sqlite3 *db, int rc, const char *what, struct errmsg *em)
{
	enum db_err err = DB_IO;

	if (rc == SQLITE_BUSY)
		return errmsg_set(em, DB_BUSY, "there is a writer connection already");
	if (rc == SQLITE_NOMEM)
		err = DB_NOMEM;
	else if (rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB)
		err = DB_CORRUPT;
	return errmsg_set(em, err, "cannot %s a connection: %s", what,
			  db == NULL ? sqlite3_errstr(rc) : sqlite3_errmsg(db));
}

/* secure_delete would write pages only to zero what was deleted (Debian builds SQLite with it on). Readers ask for
 * mapped pages, which is what makes SQLite call xFetch; the limit itself means nothing to us. */
static enum db_err configure(sqlite3 *db, bool writer, struct errmsg *em)
{
	const char *pragmas = writer
				  ? "pragma page_size=4096; pragma journal_mode=truncate; pragma synchronous=off;"
				    "pragma secure_delete=off; pragma mmap_size=0; pragma cache_size=-32000;"
				  : "pragma mmap_size=1073741824; pragma cache_size=-1000; pragma secure_delete=off;";
	int rc = sqlite3_exec(db, pragmas, NULL, NULL, NULL);

	if (rc != SQLITE_OK)
		return sqlite_failed(db, rc, "configure", em);
	/* VACUUM attaches a temporary database. */
	sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, writer ? 1 : 0);
	return DB_OK;
}

enum db_err vfs_connect(struct vfs *v, bool writer, const struct snapshot *fixed, sqlite3 **out, struct errmsg *em)
{
	int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_EXRESCODE;
	struct db_file *f;
	enum db_err err;
	int rc;

	*out = NULL;
	flags |= writer ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY;
	pthread_mutex_lock(&v->connect_lock);
	v->connecting_writer = writer;
	atomic_store(&v->connecting_thread, pthread_self());
	atomic_store(&v->connecting, true);
	rc = sqlite3_open_v2(VFS_DB_NAME, out, flags, v->name);
	atomic_store(&v->connecting, false);
	pthread_mutex_unlock(&v->connect_lock);
	f = rc == SQLITE_OK ? db_file_of(*out) : NULL;
	if (f != NULL && fixed != NULL) { /* before anything is read */
		f->is_fixed = true;
		f->fixed = *fixed;
	}
	err = rc == SQLITE_OK ? configure(*out, writer, em) : sqlite_failed(*out, rc, "open", em);
	f = err == DB_OK ? db_file_of(*out) : NULL;
	if (f == NULL) {
		sqlite3_close(*out);
		*out = NULL;
		return err != DB_OK ? err : errmsg_set(em, DB_INVALID, "SQLite did not open the store's own file");
	}
	f->configured = true;
	return DB_OK;
}

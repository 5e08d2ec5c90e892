/*
 * vfs_db.c - see vfs.h: the main database file as SQLite reads and writes it.
 *
 * Readers: SQLITE_LOCK_SHARED pins the visible snapshot, SQLITE_LOCK_NONE releases it; between the two every page is the
 * newest version at or below the snapshot's LSN, and xFetch hands out pointers right into the log or the base file.
 * SQLite notices a new snapshot by the change counter in page 1, which every commit raises.
 *
 * The writer: sees its own overlay over the tip. Its commit point is SQLITE_FCNTL_COMMIT_PHASETWO, not SQLITE_FCNTL_SYNC:
 * in SQLite's pager.c (3.40) a rollback that has to play back its journal ends in SQLITE_FCNTL_SYNC as well; a shrinking
 * transaction truncates the file after SQLITE_FCNTL_SYNC; and a temporary database's first phase can still fail
 * after the main one's. PHASETWO comes once, only for a commit, when all of that is behind. If the seal fails there, the
 * pager enters its error state (hence only codes of the FULL and IOERR family), which discards its cache, and the unlock
 * that follows drops the overlay.
 *
 * Invariants: (1) SQLite writes whole pages of WAL_PAGE_SIZE only, and only under a reserved lock. (2) Whenever the writer
 * falls back to SHARED or below, the overlay is empty and the journal is.
 */
#include "common/store/vfs.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "common/base/log.h"
#include "common/store/scratch.h"
#include "common/store/store_internal.h"

#define CHANGE_COUNTER_OFFSET 24 /* in page 1; what SQLite compares to learn whether its cache is current */

static uint32_t size_seen(const struct db_file *f)
{
	if (!f->writer)
		return f->snapshot.db_size_pages;
	return f->store->overlay.active ? f->store->overlay.size_pages : f->store->applied.db_size_pages;
}

/* The image that f sees of a page within its database. */
static const uint8_t *page_seen(const struct db_file *f, uint32_t pgno)
{
	struct store *s = f->store;
	const uint8_t *page;

	if (!f->writer)
		return store_page(s, pgno, f->snapshot.lsn);
	if (s->overlay.active) {
		page = overlay_find(&s->overlay, pgno);
		if (page != NULL)
			return page;
		if (pgno > s->overlay.low_size_pages)
			return checksum_zero_page();
	}
	return store_page(s, pgno, UINT64_MAX);
}

static void pin(struct db_file *f)
{
	if (f->writer)
		snapshots_pin_memory(&f->store->snapshots, f->pin);
	else
		f->snapshot = snapshots_pin(&f->store->snapshots, f->pin);
	if (f->is_fixed)
		f->snapshot = f->fixed; /* not older than what is pinned: every version it needs is kept */
}

static int db_close(sqlite3_file *file)
{
	struct db_file *f = (struct db_file *)file;

	snapshots_slot_release(f->pin);
	if (f->writer) {
		overlay_reset(&f->store->overlay);
		atomic_store(&f->store->writer_open, false);
	}
	return SQLITE_OK;
}

static int read_pages(struct db_file *f, uint8_t *out, size_t len, uint64_t at)
{
	uint64_t end = (uint64_t)size_seen(f) * WAL_PAGE_SIZE;
	size_t offset, part;

	for (; len > 0 && at < end; out += part, at += part, len -= part) {
		offset = (size_t)(at % WAL_PAGE_SIZE);
		part = WAL_PAGE_SIZE - offset < len ? WAL_PAGE_SIZE - offset : len;
		memcpy(out, page_seen(f, (uint32_t)(at / WAL_PAGE_SIZE) + 1) + offset, part);
	}
	if (len == 0)
		return SQLITE_OK;
	memset(out, 0, len);
	return SQLITE_IOERR_SHORT_READ;
}

static int db_read(sqlite3_file *file, void *out, int len, sqlite3_int64 at)
{
	struct db_file *f = (struct db_file *)file;
	uint8_t *bytes = out;
	int rc, i;

	if (f->lock == SQLITE_LOCK_NONE) { /* the header, when a connection is opened */
		pin(f);
		rc = read_pages(f, out, (size_t)len, (uint64_t)at);
		snapshots_unpin(f->pin);
		return rc;
	}
	rc = read_pages(f, out, (size_t)len, (uint64_t)at);
	/* Records that the writer did not write may repeat a change counter it has seen before (a log tail that was cut and
	 * written anew): show it a different one, so that it gives up its cache. */
	if (f->writer && f->store->writer_cache_stale && at == CHANGE_COUNTER_OFFSET && len < (int)WAL_PAGE_SIZE) {
		for (i = 0; i < len; i++)
			bytes[i] = (uint8_t)~bytes[i];
		f->store->writer_cache_stale = false;
	}
	return rc;
}

/* A write for which there is no room or which is too large; the reason is kept for store_last_error(). */
static int write_failed(struct db_file *f)
{
	log_warn("store: transaction fails: %s", f->store->seal_error.text);
	return sqlite_write_error(f->store->seal_error.err);
}

static void begin_overlay(struct store *s)
{
	if (s->overlay.active)
		return;
	overlay_begin(&s->overlay, s->applied.db_size_pages);
	memset(&s->seal_error, 0, sizeof(s->seal_error));
}

static int db_write(sqlite3_file *file, const void *bytes, int len, sqlite3_int64 at)
{
	struct db_file *f = (struct db_file *)file;
	struct store *s = f->store;
	uint32_t pgno = (uint32_t)(at / WAL_PAGE_SIZE) + 1;

	if (!f->writer)
		return SQLITE_READONLY;
	if (len != (int)WAL_PAGE_SIZE || at % WAL_PAGE_SIZE != 0 || pgno > PAGE_INDEX_PGNO_MAX) { /* (1) */
		errmsg_set(&s->seal_error, DB_INVALID, "a write of %d bytes at %lld: the page size is fixed to %u", len,
			   (long long)at, WAL_PAGE_SIZE);
		return write_failed(f);
	}
	assert(f->lock >= SQLITE_LOCK_RESERVED);
	begin_overlay(s);
	if ((uint64_t)s->overlay.page_count * WAL_PAGE_SIZE >= s->transaction_bytes_max &&
	    overlay_find(&s->overlay, pgno) == NULL) {
		errmsg_set(&s->seal_error, DB_TOO_LARGE,
			   "the transaction changes more than %" PRIu64 " bytes, the limit for one transaction",
			   s->transaction_bytes_max);
		return write_failed(f);
	}
	if (overlay_write(&s->overlay, pgno, bytes, &s->seal_error) != DB_OK)
		return write_failed(f);
	return SQLITE_OK;
}

static int db_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	struct db_file *f = (struct db_file *)file;

	if (!f->writer)
		return SQLITE_READONLY;
	begin_overlay(f->store);
	overlay_truncate(&f->store->overlay, (uint32_t)((size + WAL_PAGE_SIZE - 1) / WAL_PAGE_SIZE));
	return SQLITE_OK;
}

static int db_sync(sqlite3_file *file, int flags)
{
	(void)file;
	(void)flags;
	return SQLITE_OK; /* the log's syncer makes commits durable */
}

static int db_size(sqlite3_file *file, sqlite3_int64 *size)
{
	struct db_file *f = (struct db_file *)file;

	if (f->is_fixed)
		*size = (sqlite3_int64)f->fixed.db_size_pages * WAL_PAGE_SIZE;
	else if (f->lock == SQLITE_LOCK_NONE && !f->writer)
		*size = (sqlite3_int64)snapshots_visible(&f->store->snapshots).db_size_pages * WAL_PAGE_SIZE;
	else
		*size = (sqlite3_int64)size_seen(f) * WAL_PAGE_SIZE;
	return SQLITE_OK;
}

static int db_lock(sqlite3_file *file, int level)
{
	struct db_file *f = (struct db_file *)file;

	if (level > SQLITE_LOCK_SHARED && !f->writer)
		return SQLITE_READONLY;
	if (f->lock == SQLITE_LOCK_NONE && level >= SQLITE_LOCK_SHARED)
		pin(f);
	if (level > f->lock)
		f->lock = level;
	return SQLITE_OK;
}

/* (2): what was written and not sealed is dropped. After a rollback it only repeats the tip; after an error the pager has
 * left its journal as it was, and with the overlay gone there is nothing to play back. */
static void drop_unsealed(struct db_file *f)
{
	struct store *s = f->store;

	if (!s->overlay.active)
		return;
	overlay_reset(&s->overlay);
	if (s->journal != NULL)
		scratch_truncate(s->journal, 0, NULL); /* to 0 cannot fail */
}

static int db_unlock(sqlite3_file *file, int level)
{
	struct db_file *f = (struct db_file *)file;

	if (f->writer && level <= SQLITE_LOCK_SHARED && f->lock > SQLITE_LOCK_SHARED)
		drop_unsealed(f);
	if (level == SQLITE_LOCK_NONE && f->lock > SQLITE_LOCK_NONE)
		snapshots_unpin(f->pin);
	if (level < f->lock)
		f->lock = level;
	return SQLITE_OK;
}

static int db_check_reserved_lock(sqlite3_file *file, int *locked)
{
	(void)file;
	*locked = 0; /* there is one writer, and it is not asking about itself */
	return SQLITE_OK;
}

/* PRAGMAs with a value that would undo what the store relies on. */
static int refuse_pragma(const struct db_file *f, char **arg)
{
	static const char *const refused[] = {"journal_mode",        "locking_mode", "page_size",
					      "mmap_size",           "synchronous",  "temp_store_directory",
					      "data_store_directory"};
	size_t i;

	if (!f->configured || arg[2] == NULL)
		return SQLITE_NOTFOUND;
	for (i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		if (sqlite3_stricmp(arg[1], refused[i]) == 0) {
			arg[0] = sqlite3_mprintf("pragma %s cannot be changed here", refused[i]);
			return SQLITE_ERROR;
		}
	return SQLITE_NOTFOUND;
}

static int db_file_control(sqlite3_file *file, int op, void *arg)
{
	struct db_file *f = (struct db_file *)file;

	switch (op) {
	case SQLITE_FCNTL_COMMIT_PHASETWO:
		if (f->writer && store_seal(f->store) != DB_OK)
			return write_failed(f);
		return SQLITE_OK;
	case SQLITE_FCNTL_PRAGMA:
		return refuse_pragma(f, arg);
	default:
		return SQLITE_NOTFOUND;
	}
}

static int db_sector_size(sqlite3_file *file)
{
	(void)file;
	return WAL_PAGE_SIZE;
}

static int db_characteristics(sqlite3_file *file)
{
	(void)file;
	return SQLITE_IOCAP_ATOMIC | SQLITE_IOCAP_SAFE_APPEND | SQLITE_IOCAP_SEQUENTIAL |
	       SQLITE_IOCAP_POWERSAFE_OVERWRITE | SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN;
}

/* The image stays where it is as long as f holds its lock, which outlives every use SQLite makes of the pointer. */
static int db_fetch(sqlite3_file *file, sqlite3_int64 at, int len, void **page)
{
	struct db_file *f = (struct db_file *)file;
	uint32_t pgno = (uint32_t)(at / WAL_PAGE_SIZE) + 1;

	*page = NULL;
	if (!f->writer && len == (int)WAL_PAGE_SIZE && at % WAL_PAGE_SIZE == 0 && pgno <= f->snapshot.db_size_pages &&
	    f->lock >= SQLITE_LOCK_SHARED)
		*page = (void *)(uintptr_t)store_page(f->store, pgno, f->snapshot.lsn);
	return SQLITE_OK;
}

static int db_unfetch(sqlite3_file *file, sqlite3_int64 at, void *page)
{
	(void)file;
	(void)at;
	(void)page;
	return SQLITE_OK;
}

static const sqlite3_io_methods db_methods = {
    .iVersion = 3,
    .xClose = db_close,
    .xRead = db_read,
    .xWrite = db_write,
    .xTruncate = db_truncate,
    .xSync = db_sync,
    .xFileSize = db_size,
    .xLock = db_lock,
    .xUnlock = db_unlock,
    .xCheckReservedLock = db_check_reserved_lock,
    .xFileControl = db_file_control,
    .xSectorSize = db_sector_size,
    .xDeviceCharacteristics = db_characteristics,
    .xFetch = db_fetch,
    .xUnfetch = db_unfetch,
};

int db_file_open(struct db_file *f, struct store *s, bool writer)
{
	memset(f, 0, sizeof(*f));
	if (writer && atomic_exchange(&s->writer_open, true))
		return SQLITE_BUSY;
	f->pin = snapshots_slot_acquire(&s->snapshots);
	if (f->pin == NULL) {
		if (writer)
			atomic_store(&s->writer_open, false);
		return SQLITE_NOMEM;
	}
	f->store = s;
	f->writer = writer;
	f->base.pMethods = &db_methods;
	return SQLITE_OK;
}

struct db_file *db_file_of(sqlite3 *db)
{
	sqlite3_file *file = NULL;

	if (sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file) != SQLITE_OK || file == NULL ||
	    file->pMethods != &db_methods)
		return NULL;
	return (struct db_file *)file;
}

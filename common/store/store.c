/*
 * store.c - see store.h: opening and closing, connections, positions, and what is visible.
 *
 * Opening reads store.meta, lets the log recover, and indexes the records after the checkpoint by their page numbers alone:
 * no page is read, so the time depends on the length of that log and not on the size of the database. Checksums of these
 * records' pages are computed when a later record replaces them; the database checksum is taken from the last record,
 * which was compared when it was applied, or will be contradicted by the first record that touches a differing page.
 */
#include "common/store/store.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/timings.h"
#include "common/store/dirs.h"
#include "common/store/store_internal.h"
#include "common/store/vfs.h"

enum db_err store_init_sqlite(struct errmsg *em)
{
	/* URI names off: ATTACH could choose another vfs with one. */
	if (sqlite3_config(SQLITE_CONFIG_MULTITHREAD) != SQLITE_OK ||
	    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0) != SQLITE_OK ||
	    sqlite3_config(SQLITE_CONFIG_URI, 0) != SQLITE_OK)
		return errmsg_set(em, DB_INVALID, "SQLite is in use already");
	if (sqlite3_initialize() != SQLITE_OK)
		return errmsg_set(em, DB_NOMEM, "SQLite cannot be initialized");
	return DB_OK;
}

static char *path_join(const char *dir, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

static enum db_err make_dir(const char *dir, struct errmsg *em)
{
	if (mkdir(dir, 0700) != 0)
		return errno == EEXIST ? DB_OK : errmsg_errno(em, errno, "cannot create \"%s\"", dir);
	return dirs_sync_parent(dir, em);
}

/* Removes what a crash left in the directory of scratch files. */
static enum db_err empty_dir(const char *dir, struct errmsg *em)
{
	DIR *d = opendir(dir);
	struct dirent *entry;
	enum db_err err = DB_OK;

	if (d == NULL)
		return errmsg_errno(em, errno, "cannot read \"%s\"", dir);
	while (err == DB_OK && (entry = readdir(d)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (unlinkat(dirfd(d), entry->d_name, 0) != 0)
			err = errmsg_errno(em, errno, "cannot remove \"%s/%s\"", dir, entry->d_name);
	}
	closedir(d);
	return err;
}

static bool dir_is_empty(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *entry;
	bool empty = true;

	if (d == NULL)
		return true;
	while ((entry = readdir(d)) != NULL)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			empty = false;
	closedir(d);
	return empty;
}

static bool id_is_zero(const uint8_t id[16])
{
	static const uint8_t zero[16];

	return memcmp(id, zero, sizeof(zero)) == 0;
}

/* A directory without meta is new only if it has neither a database nor a log. */
static enum db_err start_new(struct store *s, const char *wal_dir, struct errmsg *em)
{
	struct stat st;

	if (fstat(s->base.fd, &st) != 0)
		return errmsg_errno(em, errno, "cannot stat \"%s\"", s->base.path);
	if (st.st_size != 0 || !dir_is_empty(wal_dir))
		return errmsg_set(em, DB_INVALID, "\"%s\" holds a database or a log, but no store.meta says which",
				  s->dir);
	return meta_write(&s->meta_file, &s->meta, em);
}

static enum db_err check_base(struct store *s, struct errmsg *em)
{
	const struct meta *m = &s->meta;
	bool interrupted = m->intent_lsn > m->checkpoint.lsn;
	uint32_t size = m->db_size_pages;
	enum db_err err;

	/* An interrupted checkpoint may have cut the file already. */
	if (interrupted && m->intent_size_pages < size)
		size = m->intent_size_pages;
	err = base_file_check(&s->base, size, em);
	if (err == DB_OK)
		err = base_file_attach(&s->base, size, em);
	if (err != DB_OK || interrupted || size == 0)
		return err;
	if (checksum_page(1, base_file_page(&s->base, 1)) != m->page1_hash)
		return errmsg_set(em, DB_CORRUPT, "\"%s\" was changed by another program", s->base.path);
	return DB_OK;
}

static enum db_err take_cluster_id(struct store *s, const uint8_t id[16], struct errmsg *em)
{
	if (id_is_zero(id) || memcmp(id, s->meta.cluster_id, 16) == 0)
		return DB_OK;
	if (!id_is_zero(s->meta.cluster_id))
		return errmsg_set(em, DB_INVALID, "\"%s\" belongs to another cluster", s->dir);
	return store_set_cluster_id(s, id, em);
}

static enum db_err open_files(struct store *s, const struct store_options *options, struct errmsg *em)
{
	char *base = path_join(s->dir, "main.db"), *meta = path_join(s->dir, "store.meta"),
	     *wal = path_join(s->dir, "wal");
	struct wal_options wal_options = {0};
	bool found;
	enum db_err err = DB_NOMEM;

	if (base == NULL || meta == NULL || wal == NULL)
		goto out;
	err = make_dir(s->dir, em);
	if (err == DB_OK)
		err = make_dir(wal, em);
	if (err == DB_OK)
		err = make_dir(s->tmp_dir, em);
	if (err == DB_OK)
		err = base_file_open(&s->base, base, em); /* and its lock: from here on the directory is ours */
	if (err == DB_OK)
		err = dirs_sync(s->dir, em);
	if (err == DB_OK)
		err = empty_dir(s->tmp_dir, em);
	if (err == DB_OK)
		err = meta_open(&s->meta_file, meta, &s->meta, &found, em);
	if (err == DB_OK && !found)
		err = start_new(s, wal, em);
	if (err == DB_OK)
		err = check_base(s, em);
	if (err == DB_OK)
		err = take_cluster_id(s, options->cluster_id, em);
	if (err != DB_OK)
		goto out;
	wal_options.dir = wal;
	wal_options.segment_size_bytes =
	    options->segment_size_bytes == 0 ? WAL_SEGMENT_SIZE_DEFAULT : options->segment_size_bytes;
	wal_options.base = s->meta.checkpoint;
	wal_options.base_checksum = s->meta.record_checksum;
	wal_options.faults = options->faults;
	wal_options.pulse = options->pulse;
	wal_options.low_space_bytes = options->low_space_bytes;
	err = wal_open(&s->wal, &wal_options, em);
out:
	free(base);
	free(meta);
	free(wal);
	return err;
}

/* Indexes the record at lsn, which the log found intact. */
static enum db_err recover_record(struct store *s, uint64_t lsn, struct errmsg *em)
{
	struct wal_record r;
	struct change *c;
	enum db_err err;

	err = wal_read(s->wal, lsn, &r, em);
	if (err == DB_OK)
		err = store_check_record(&r, s->applied.db_size_pages, em);
	if (err != DB_OK)
		return errmsg_context(em, "cannot recover \"%s\"", s->dir);
	c = change_create(&r);
	if (c == NULL || change_reserve(s, c) != DB_OK) {
		free(c);
		return errmsg_set(em, DB_NOMEM, "no memory to index the log of \"%s\"", s->dir);
	}
	change_index(s, c, &r, NULL);
	return DB_OK;
}

static enum db_err recover(struct store *s, struct errmsg *em)
{
	const struct meta *m = &s->meta;
	uint64_t lsn, last = wal_last(s->wal).lsn;
	enum db_err err;

	s->applied = (struct applied){.lsn = m->checkpoint.lsn,
				      .db_checksum = m->db_checksum,
				      .time_us = m->time_us,
				      .db_size_pages = m->db_size_pages};
	atomic_store(&s->checkpoint_lsn, m->checkpoint.lsn);
	snapshots_publish(&s->snapshots,
			  (struct snapshot){.lsn = m->checkpoint.lsn, .db_size_pages = m->db_size_pages});
	if (last < m->intent_lsn)
		return errmsg_set(em, DB_CORRUPT,
				  "the log of \"%s\" ends at %" PRIu64 ", but the base file may hold pages of %" PRIu64,
				  s->dir, last, m->intent_lsn);
	for (lsn = m->checkpoint.lsn + 1; lsn <= last; lsn++) {
		err = recover_record(s, lsn, em);
		if (err != DB_OK)
			return err;
	}
	wal_release(s->wal, UINT64_MAX); /* reading the page numbers has mapped the images too */
	s->term = wal_last(s->wal).term;
	atomic_store(&s->tip_lsn, last);
	store_set_committed(s, m->intent_lsn); /* what a checkpoint had begun to write was committed */
	log_info("store \"%s\" open checkpoint_lsn=%" PRIu64 " tip_lsn=%" PRIu64 " pages=%u", s->dir, m->checkpoint.lsn,
		 last, s->applied.db_size_pages);
	return DB_OK;
}

static struct store *store_alloc(const struct store_options *options)
{
	struct store *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->base.fd = -1;
	s->meta_file.fd = -1;
	s->checkpoint_bytes =
	    options->checkpoint_bytes == 0 ? STORE_CHECKPOINT_BYTES_DEFAULT : options->checkpoint_bytes;
	s->transaction_bytes_max =
	    options->transaction_bytes_max == 0 ? STORE_TRANSACTION_BYTES_MAX_DEFAULT : options->transaction_bytes_max;
	s->timings = options->timings;
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->checkpoint_lock, NULL);
	snapshots_init(&s->snapshots);
	s->dir = strdup(options->dir);
	s->tmp_dir = path_join(options->dir, "tmp");
	overlay_init(&s->overlay, s->tmp_dir);
	s->index = page_index_create();
	s->owner_pin = snapshots_slot_acquire(&s->snapshots);
	if (s->dir == NULL || s->tmp_dir == NULL || s->index == NULL || s->owner_pin == NULL) {
		store_close(s);
		return NULL;
	}
	return s;
}

enum db_err store_open(struct store **out, const struct store_options *options, struct errmsg *em)
{
	struct store *s;
	enum db_err err;

	*out = NULL;
	s = store_alloc(options);
	if (s == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory to open \"%s\"", options->dir);
	err = open_files(s, options, em);
	if (err == DB_OK)
		err = recover(s, em);
	if (err == DB_OK)
		err = vfs_create(&s->vfs, s, em);
	if (err != DB_OK) {
		store_close(s);
		return err;
	}
	*out = s;
	return DB_OK;
}

void store_close(struct store *s)
{
	if (s == NULL)
		return;
	vfs_free(s->vfs);
	snapshots_slot_release(s->owner_pin);
	limbo_reclaim(s);
	assert(s->limbo_first == NULL); /* else a connection is still open */
	change_free_list(s->first, NULL);
	page_index_free(s->index);
	wal_close(s->wal);
	slotfile_close(&s->meta_file);
	base_file_close(&s->base);
	overlay_fini(&s->overlay);
	snapshots_fini(&s->snapshots);
	pthread_mutex_destroy(&s->checkpoint_lock);
	pthread_mutex_destroy(&s->lock);
	free(s->tmp_dir);
	free(s->dir);
	free(s);
}

enum db_err store_write_meta(struct store *s, const struct meta *m, struct errmsg *em)
{
	enum db_err err = meta_write(&s->meta_file, m, em);

	if (err != DB_OK)
		return err;
	pthread_mutex_lock(&s->lock); /* for store_get_status() */
	s->meta = *m;
	pthread_mutex_unlock(&s->lock);
	return DB_OK;
}

enum db_err store_set_cluster_id(struct store *s, const uint8_t cluster_id[16], struct errmsg *em)
{
	struct meta m;
	enum db_err err = DB_OK;

	pthread_mutex_lock(&s->checkpoint_lock);
	if (memcmp(s->meta.cluster_id, cluster_id, 16) == 0)
		goto out;
	if (!id_is_zero(s->meta.cluster_id)) {
		err = errmsg_set(em, DB_INVALID, "\"%s\" belongs to another cluster", s->dir);
		goto out;
	}
	m = s->meta;
	memcpy(m.cluster_id, cluster_id, 16);
	err = store_write_meta(s, &m, em);
out:
	pthread_mutex_unlock(&s->checkpoint_lock);
	return err;
}

void store_get_status(struct store *s, struct store_status *out)
{
	struct applied applied;

	memset(out, 0, sizeof(*out));
	pthread_mutex_lock(&s->lock);
	applied = s->applied;
	memcpy(out->cluster_id, s->meta.cluster_id, sizeof(out->cluster_id));
	pthread_mutex_unlock(&s->lock);
	out->tip = wal_last(s->wal);
	out->tip_checksum = wal_last_checksum(s->wal);
	out->durable_lsn = wal_durable_lsn(s->wal);
	out->first_lsn = wal_first_lsn(s->wal);
	out->wal_bytes = wal_size_bytes(s->wal);
	out->applied_lsn = applied.lsn;
	out->db_checksum = applied.db_checksum;
	out->db_size_pages = applied.db_size_pages;
	out->applied_time_us = applied.time_us;
	out->visible_lsn = store_visible_lsn(s);
	out->checkpoint_lsn = atomic_load(&s->checkpoint_lsn);
	out->visible_log_bytes = atomic_load(&s->visible_log_bytes);
	out->oldest_pinned_lsn = snapshots_oldest_lsn(&s->snapshots);
}

uint64_t store_visible_lsn(struct store *s)
{
	return atomic_load_explicit(&s->snapshots.visible_lsn, memory_order_acquire);
}

uint64_t store_durable_lsn(struct store *s)
{
	return wal_durable_lsn(s->wal);
}

uint64_t store_tip_lsn(struct store *s)
{
	return atomic_load_explicit(&s->tip_lsn, memory_order_acquire);
}

struct wal *store_wal(struct store *s)
{
	return s->wal;
}

enum db_err store_open_reader(struct store *s, sqlite3 **out, struct errmsg *em)
{
	return vfs_connect(s->vfs, false, NULL, out, em);
}

enum db_err store_open_reader_at(struct store *s, uint64_t lsn, sqlite3 **out, struct errmsg *em)
{
	struct snapshot fixed = {.lsn = lsn};
	const struct change *c;
	bool found;

	*out = NULL;
	if (lsn < store_visible_lsn(s) || lsn > s->applied.lsn)
		return errmsg_set(em, DB_INVALID, "lsn=%" PRIu64 " cannot be looked at, only %" PRIu64 " to %" PRIu64,
				  lsn, store_visible_lsn(s), s->applied.lsn);
	pthread_mutex_lock(&s->lock);
	for (c = s->first; c != NULL && c->pos.lsn != lsn; c = c->next)
		;
	found = c != NULL || lsn == s->meta.checkpoint.lsn;
	fixed.db_size_pages = c != NULL ? c->db_size_pages : s->meta.db_size_pages;
	pthread_mutex_unlock(&s->lock);
	if (!found)
		return errmsg_set(em, DB_NOTFOUND, "record %" PRIu64 " is not in the index any more", lsn);
	return vfs_connect(s->vfs, false, &fixed, out, em);
}

enum db_err store_open_writer(struct store *s, sqlite3 **out, struct errmsg *em)
{
	*out = NULL;
	if (store_tip_lsn(s) != s->applied.lsn)
		return errmsg_set(em, DB_INVALID, "records up to %" PRIu64 " wait to be applied, %" PRIu64 " is",
				  store_tip_lsn(s), s->applied.lsn);
	return vfs_connect(s->vfs, true, NULL, out, em);
}

uint64_t store_snapshot_lsn(sqlite3 *db)
{
	const struct db_file *f = db_file_of(db);

	assert(f != NULL); /* not a connection of a store */
	if (f->writer)
		return store_tip_lsn(f->store);
	return f->lock >= SQLITE_LOCK_SHARED ? f->snapshot.lsn : store_visible_lsn(f->store);
}

enum db_err store_last_error(struct store *s, struct errmsg *em)
{
	if (em != NULL)
		*em = s->seal_error;
	return s->seal_error.err;
}

void store_set_term(struct store *s, uint64_t term)
{
	assert(term >= wal_last(s->wal).term);
	s->term = term;
}

enum db_err store_sync(struct store *s, uint64_t *durable_lsn, struct errmsg *em)
{
	uint64_t began_us = clock_mono_us(), before_lsn = store_durable_lsn(s);
	enum db_err err = wal_sync(s->wal, durable_lsn, em);

	if (err == DB_OK && store_durable_lsn(s) != before_lsn) /* else there was nothing to sync */
		timings_add(s->timings, TIMING_WRITE_SYNC, clock_mono_us() - began_us);
	return err;
}

void store_set_committed(struct store *s, uint64_t lsn)
{
	struct change *c;

	pthread_mutex_lock(&s->lock);
	/* A replica may hear that more is committed than it has applied. A master, too: the quorum may hold a record before
	 * the thread that appended it has come to index it. */
	if (lsn > s->applied.lsn) {
		s->overtaken_lsn = lsn;
		lsn = s->applied.lsn;
	}
	c = s->committed;
	if (lsn <= store_visible_lsn(s)) {
		pthread_mutex_unlock(&s->lock);
		return;
	}
	for (c = c == NULL ? s->first : c->next; c->pos.lsn != lsn; c = c->next)
		;
	s->committed = c;
	atomic_store(&s->visible_log_bytes, c->log_bytes_end);
	snapshots_publish(&s->snapshots, (struct snapshot){.lsn = lsn, .db_size_pages = c->db_size_pages});
	pthread_mutex_unlock(&s->lock);
	if (s->on_visible != NULL)
		s->on_visible(s->on_visible_arg);
}

void store_publish_overtaken(struct store *s)
{
	uint64_t lsn;

	pthread_mutex_lock(&s->lock);
	lsn = s->overtaken_lsn;
	s->overtaken_lsn = 0;
	pthread_mutex_unlock(&s->lock);
	if (lsn > 0)
		store_set_committed(s, lsn);
}

void store_on_visible(struct store *s, void (*on_visible)(void *arg), void *arg)
{
	s->on_visible = on_visible;
	s->on_visible_arg = arg;
}

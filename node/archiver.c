/* archiver.c - see archiver.h. */
#include "node/archiver.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/archive/archive.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/store/dirs.h"

#define LOOK_MS_MIN    5u
#define LOOK_MS_MAX    200u
#define LIST_EVERY_MS  1000u /* a replica looks how far the archive is */
#define RETRY_AFTER_MS 1000u

struct archiver {
	struct archiver_options options;
	char *path; /* <dir>/<cluster id>; NULL: nothing is archived */
	bool started;
	pthread_t thread;
	/* The thread's own. */
	struct wal_cursor *cursor; /* at archived_lsn + 1; NULL: not the master, or it is to be found anew */
	uint64_t term;             /* in which the cursor was set */
	uint64_t waiting_since_ms; /* 0: everything is archived */
	uint64_t bytes_archived;   /* as store_status.visible_log_bytes counts */
	uint64_t not_before_ms;    /* after a failure; of the next look at the directory */
	/* Everybody's. */
	pthread_mutex_t mutex;
	pthread_cond_t wake;
	bool stopping;
	struct archiver_status status; /* lag_ms is made when asked for */
	uint64_t status_since_ms;
};

/* ---- what is told */

static void note_archived(struct archiver *a, uint64_t lsn)
{
	pthread_mutex_lock(&a->mutex);
	a->status.archived_lsn = lsn;
	a->status.error[0] = '\0';
	a->status_since_ms = a->waiting_since_ms;
	pthread_mutex_unlock(&a->mutex);
}

/* Said once, not at every attempt. */
static void note_error(struct archiver *a, const struct errmsg *em)
{
	bool fresh;

	pthread_mutex_lock(&a->mutex);
	fresh = strcmp(a->status.error, em->text) != 0;
	memcpy(a->status.error, em->text, sizeof(a->status.error));
	a->status_since_ms = a->waiting_since_ms;
	pthread_mutex_unlock(&a->mutex);
	if (fresh)
		log_error("archive: %s", em->text);
}

static void note_hole(struct archiver *a, uint64_t archived_lsn, uint64_t first_lsn)
{
	log_error("archive: the records %" PRIu64 " to %" PRIu64
		  " are missing for ever, the log no longer has them: take a new backup",
		  archived_lsn + 1, first_lsn - 1);
	pthread_mutex_lock(&a->mutex);
	a->status.hole_lsn = first_lsn;
	pthread_mutex_unlock(&a->mutex);
}

/* ---- where to go on */

static enum db_err make_directory(const char *path, struct errmsg *em)
{
	if (mkdir(path, 0700) == 0)
		return dirs_sync_parent(path, em);
	return errno == EEXIST ? DB_OK : errmsg_errno(em, errno, "cannot create \"%s\"", path);
}

enum agreement { AGREES, DIFFERS, BEFORE_OUR_LOG };

/* Whether our log has the record that a file ends with. */
static enum db_err compare(struct archiver *a, const struct archive_header *h, enum agreement *out, struct errmsg *em)
{
	struct wal *wal = store_wal(a->options.store);
	struct wal_record r;
	enum db_err err;

	*out = DIFFERS;
	if (h->last_lsn > store_visible_lsn(a->options.store))
		return DB_OK;
	if (h->last_lsn == wal_last(wal).lsn) {
		*out = h->last_checksum == wal_last_checksum(wal) ? AGREES : DIFFERS;
		return DB_OK;
	}
	/* What comes next says what it follows; so the record itself need not be there any more. */
	err = wal_read(wal, h->last_lsn + 1, &r, em);
	if (err == DB_NOTFOUND && h->last_lsn + 1 < wal_first_lsn(wal)) {
		*out = BEFORE_OUR_LOG;
		return DB_OK;
	}
	if (err == DB_OK && r.prev_checksum == h->last_checksum)
		*out = AGREES;
	return err;
}

/* Looks at the files from the last one on. A file that contradicts our log and is of an older term, or is damaged, leaves
 * the archive; one of a newer term means that we are deposed, and not the ones to decide. */
static enum db_err find_end(struct archiver *a, uint64_t *archived_lsn, bool *hole, struct errmsg *em)
{
	struct archive_list list;
	struct archive_header h;
	enum agreement agreement = DIFFERS;
	enum db_err err;

	*archived_lsn = 0;
	*hole = false;
	err = archive_list_read(&list, a->path, em);
	while (err == DB_OK && list.count > 0 && agreement == DIFFERS) {
		const struct archive_entry *last = &list.entries[list.count - 1];

		err = archive_read_header(&h, a->path, last, em);
		if (err == DB_OK)
			err = compare(a, &h, &agreement, em);
		if (err != DB_OK && err != DB_CORRUPT)
			break;
		if (err == DB_OK && agreement != DIFFERS) {
			*archived_lsn = h.last_lsn;
			*hole = agreement == BEFORE_OUR_LOG;
			break;
		}
		if (err == DB_OK && h.last_term >= a->term) {
			err = errmsg_set(em, DB_STALE_TERM,
					 "records of term %" PRIu64 " are there that this master lacks", h.last_term);
			break;
		}
		log_error("archive: the file of LSN %" PRIu64 " to %" PRIu64 " is set aside: %s", last->first_lsn,
			  last->last_lsn, err == DB_OK ? "the cluster has gone on without its records" : em->text);
		err = archive_supersede(a->path, last, em);
		list.count--;
	}
	archive_list_fini(&list);
	return err;
}

/* Sets the cursor behind what is archived. */
static enum db_err begin(struct archiver *a, uint64_t term, struct errmsg *em)
{
	struct wal *wal = store_wal(a->options.store);
	uint64_t archived_lsn, first_lsn;
	struct store_status status;
	enum db_err err;
	bool hole;

	a->term = term;
	err = make_directory(a->options.config->archive.dir, em);
	if (err == DB_OK)
		err = make_directory(a->path, em);
	if (err == DB_OK)
		err = find_end(a, &archived_lsn, &hole, em);
	if (err != DB_OK)
		return err;
	first_lsn = wal_first_lsn(wal);
	if (hole)
		note_hole(a, archived_lsn, first_lsn);
	if (archived_lsn + 1 < first_lsn)
		archived_lsn = first_lsn - 1;
	store_get_status(a->options.store, &status);
	a->bytes_archived = archived_lsn >= status.visible_lsn ? status.visible_log_bytes : 0;
	log_info("archive: goes on behind lsn=%" PRIu64 " in term %" PRIu64, archived_lsn, term);
	note_archived(a, archived_lsn);
	return wal_cursor_create(&a->cursor, wal, archived_lsn + 1, em);
}

static void forget_place(struct archiver *a)
{
	wal_cursor_free(a->cursor);
	a->cursor = NULL;
}

/* ---- archiving */

static uint64_t archived_lsn_of(struct archiver *a)
{
	struct archiver_status status;

	archiver_get_status(a, &status);
	return status.archived_lsn;
}

static enum db_err write_files(struct archiver *a, uint64_t last_lsn, struct errmsg *em)
{
	const struct cluster_config *config = a->options.config;
	struct archive_entry entry;
	enum db_err err = DB_OK;

	while (err == DB_OK && archived_lsn_of(a) < last_lsn) {
		err = archive_write(a->path, a->options.node_id, config->cluster_id, a->cursor, last_lsn,
				    config->store.segment_size_bytes, &entry, em);
		if (err != DB_OK)
			break;
		if (entry.last_lsn == last_lsn)
			a->waiting_since_ms = 0;
		note_archived(a, entry.last_lsn);
		pthread_mutex_lock(&a->mutex);
		a->status.files_total++;
		pthread_mutex_unlock(&a->mutex);
		log_debug("archive: lsn=%" PRIu64 " to %" PRIu64, entry.first_lsn, entry.last_lsn);
	}
	return err;
}

/* Archives when it is time to. at_once: whatever is committed. */
static enum db_err look(struct archiver *a, bool at_once, struct errmsg *em)
{
	const struct cluster_config *config = a->options.config;
	uint64_t now_ms = clock_mono_ms();
	struct store_status store;
	enum db_err err;

	store_get_status(a->options.store, &store);
	if (store.visible_lsn <= archived_lsn_of(a))
		return DB_OK;
	if (a->waiting_since_ms == 0) {
		a->waiting_since_ms = now_ms;
		note_archived(a, archived_lsn_of(a));
	}
	if (!at_once && now_ms - a->waiting_since_ms < config->archive.interval_ms &&
	    store.visible_log_bytes - a->bytes_archived < config->store.segment_size_bytes)
		return DB_OK;
	err = write_files(a, store.visible_lsn, em);
	if (err == DB_OK)
		a->bytes_archived = store.visible_log_bytes;
	return err;
}

static void work_as_master(struct archiver *a, uint64_t term, bool at_once)
{
	struct errmsg em = {0};
	enum db_err err = DB_OK;

	if (a->cursor != NULL && a->term != term)
		forget_place(a);
	if (!at_once && clock_mono_ms() < a->not_before_ms)
		return;
	if (a->cursor == NULL)
		err = begin(a, term, &em);
	if (err == DB_OK)
		err = look(a, at_once, &em);
	if (err == DB_OK)
		return;
	forget_place(a);
	note_error(a, &em);
	a->not_before_ms = clock_mono_ms() + RETRY_AFTER_MS;
}

/* How far the archive is, for our log to be kept from there on. */
static void work_as_replica(struct archiver *a)
{
	struct archive_list list;
	struct errmsg em = {0};
	uint64_t lsn = 0;
	enum db_err err;
	size_t i;

	forget_place(a);
	a->waiting_since_ms = 0;
	if (clock_mono_ms() < a->not_before_ms)
		return;
	a->not_before_ms = clock_mono_ms() + LIST_EVERY_MS;
	err = archive_list_read(&list, a->path, &em);
	if (err == DB_NOTFOUND) /* nothing was archived yet */
		return;
	if (err != DB_OK) {
		note_error(a, &em);
		return;
	}
	for (i = 0; i < list.count; i++)
		lsn = list.entries[i].last_lsn > lsn ? list.entries[i].last_lsn : lsn;
	archive_list_fini(&list);
	note_archived(a, lsn);
}

static void work(struct archiver *a, bool at_once)
{
	struct roles_view view;

	roles_get_view(a->options.roles, &view);
	if (view.role == WIRE_ROLE_MASTER && view.ready)
		work_as_master(a, view.term, at_once);
	else
		work_as_replica(a);
}

/* ---- the thread */

static uint64_t look_ms(const struct archiver *a)
{
	uint64_t ms = a->options.config->archive.interval_ms / 4;

	return ms < LOOK_MS_MIN ? LOOK_MS_MIN : ms > LOOK_MS_MAX ? LOOK_MS_MAX : ms;
}

static void *run(void *arg)
{
	struct archiver *a = arg;
	uint64_t until_us;

	pthread_setname_np(pthread_self(), "archiver");
	pthread_mutex_lock(&a->mutex);
	while (!a->stopping) {
		pthread_mutex_unlock(&a->mutex);
		work(a, false);
		until_us = clock_mono_us() + look_ms(a) * 1000;
		pthread_mutex_lock(&a->mutex);
		if (!a->stopping)
			clock_wait(&a->wake, &a->mutex, until_us);
	}
	pthread_mutex_unlock(&a->mutex);
	work(a, true);
	forget_place(a);
	return NULL;
}

/* ---- life */

void archiver_get_status(struct archiver *a, struct archiver_status *out)
{
	pthread_mutex_lock(&a->mutex);
	*out = a->status;
	out->lag_ms = a->status_since_ms == 0 ? 0 : clock_mono_ms() - a->status_since_ms;
	pthread_mutex_unlock(&a->mutex);
}

enum db_err archiver_create(struct archiver **out, const struct archiver_options *options, struct errmsg *em)
{
	const char *dir = options->config->archive.dir;
	struct archiver *a = calloc(1, sizeof(*a));

	*out = a;
	if (a == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	a->options = *options;
	pthread_mutex_init(&a->mutex, NULL);
	pthread_cond_init(&a->wake, NULL);
	if (dir[0] == '\0')
		return DB_OK;
	a->status.on = true;
	a->path = archive_path(dir, options->config->cluster_id);
	if (a->path == NULL || pthread_create(&a->thread, NULL, run, a) != 0)
		return errmsg_set(em, DB_NOMEM, "cannot start the archiver");
	a->started = true;
	return DB_OK;
}

void archiver_stop(struct archiver *a)
{
	if (a == NULL || !a->started)
		return;
	pthread_mutex_lock(&a->mutex);
	a->stopping = true;
	pthread_cond_signal(&a->wake);
	pthread_mutex_unlock(&a->mutex);
	pthread_join(a->thread, NULL);
	a->started = false;
}

void archiver_free(struct archiver *a)
{
	if (a == NULL)
		return;
	archiver_stop(a);
	pthread_cond_destroy(&a->wake);
	pthread_mutex_destroy(&a->mutex);
	free(a->path);
	free(a);
}

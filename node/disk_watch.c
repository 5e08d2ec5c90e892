/* disk_watch.c - see disk_watch.h. */
#include "node/disk_watch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"

#define LOOK_MS     200u
#define STOP_MS     1000u /* how long the end of the thread is waited for */
#define PROBE_BYTES 512u  /* one sector: overwritten in place it needs no space and no metadata */

struct disk_watch {
	char dir[512];
	uint64_t probe_ms;
	uint64_t low_space_bytes;
	struct disk_pulse pulse;
	int probe_fd; /* the thread's; -1: not open */
	uint64_t probes;
	atomic_bool low;
	_Atomic uint64_t free_bytes;
	bool started;
	pthread_t thread;
	pthread_mutex_t mutex; /* guards what follows; never held over I/O */
	pthread_cond_t wake;
	bool stopping;
	bool ended;         /* the thread is past everything that may hang */
	uint64_t looked_ms; /* when a report was last asked for */
	char failure[ERRMSG_TEXT_MAX];
};

enum db_err disk_watch_create(struct disk_watch **out, const struct disk_watch_options *options, struct errmsg *em)
{
	struct disk_watch *w = calloc(1, sizeof(*w));

	*out = w;
	if (w == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	snprintf(w->dir, sizeof(w->dir), "%s", options->dir);
	w->probe_ms = options->probe_ms;
	w->low_space_bytes = options->low_space_bytes;
	w->probe_fd = -1;
	disk_pulse_init(&w->pulse, clock_mono_ms());
	atomic_init(&w->free_bytes, UINT64_MAX);
	pthread_mutex_init(&w->mutex, NULL);
	pthread_cond_init(&w->wake, NULL);
	return DB_OK;
}

/* ---- space */

/* Below the mark it is low; it is so until there is an eighth of the mark more, or writes would come and go with every
 * log file. */
static void note_space(struct disk_watch *w, uint64_t free_bytes)
{
	bool was_low = atomic_load(&w->low);
	uint64_t enough = w->low_space_bytes + (was_low ? w->low_space_bytes / 8 : 0);
	bool low = free_bytes < enough;

	atomic_store(&w->free_bytes, free_bytes);
	atomic_store(&w->low, low);
	if (low && !was_low)
		log_warn("the disk is low on space: %" PRIu64 " bytes are free, the low-space mark is %" PRIu64
			 ": no more writes are taken",
			 free_bytes, w->low_space_bytes);
	else if (was_low && !low)
		log_info("the disk has room again, %" PRIu64 " bytes are free: writes are taken", free_bytes);
}

static enum db_err look_at_space(struct disk_watch *w, struct errmsg *em)
{
	struct statvfs fs;
	int slot = disk_pulse_begin(&w->pulse); /* a dead file server does not answer this either */
	int failed = statvfs(w->dir, &fs) != 0 ? errno : 0;

	disk_pulse_end(&w->pulse, slot, false);
	if (failed != 0)
		return errmsg_errno(em, failed, "cannot tell how much space is left in \"%s\"", w->dir);
	note_space(w, (uint64_t)fs.f_bavail * fs.f_frsize);
	return DB_OK;
}

/* ---- probing */

static enum db_err open_probe(struct disk_watch *w, struct errmsg *em)
{
	char path[sizeof(w->dir) + 8];

	if (w->probe_fd >= 0)
		return DB_OK;
	snprintf(path, sizeof(path), "%s/probe", w->dir);
	w->probe_fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	return w->probe_fd >= 0 ? DB_OK : errmsg_errno(em, errno, "cannot open \"%s\"", path);
}

static enum db_err write_probe(struct disk_watch *w, struct errmsg *em)
{
	char sector[PROBE_BYTES];
	ssize_t n;

	memset(sector, '\n', sizeof(sector));
	snprintf(sector, sizeof(sector), "probe %" PRIu64,
		 ++w->probes); /* other bytes each time, or nothing is written */
	n = pwrite(w->probe_fd, sector, sizeof(sector), 0);
	if (n != (ssize_t)sizeof(sector))
		return errmsg_errno(em, n < 0 ? errno : ENOSPC, "cannot write \"%s/probe\"", w->dir);
	if (fdatasync(w->probe_fd) != 0)
		return errmsg_errno(em, errno, "cannot sync \"%s/probe\"", w->dir);
	return DB_OK;
}

static void probe(struct disk_watch *w)
{
	struct errmsg em = {0};
	int slot = disk_pulse_begin(&w->pulse);
	enum db_err err = open_probe(w, &em);
	bool said;

	if (err == DB_OK)
		err = write_probe(w, &em);
	disk_pulse_end(&w->pulse, slot, err == DB_OK);
	if (err != DB_OK && w->probe_fd >= 0) {
		close(w->probe_fd);
		w->probe_fd = -1;
	}
	pthread_mutex_lock(&w->mutex);
	said = strcmp(w->failure, em.text) == 0;
	memcpy(w->failure, err == DB_FULL ? "" : em.text, err == DB_FULL ? 1 : sizeof(em.text));
	pthread_mutex_unlock(&w->mutex);
	if (err != DB_OK && !said)
		log_error("the disk fails: %s", em.text);
}

static void *run(void *arg)
{
	struct disk_watch *w = arg;
	struct errmsg em = {0};
	uint64_t until_us;

	pthread_setname_np(pthread_self(), "disk-watch");
	pthread_mutex_lock(&w->mutex);
	while (!w->stopping) {
		pthread_mutex_unlock(&w->mutex);
		if (look_at_space(w, &em) != DB_OK)
			log_debug("%s", em.text); /* the probe will say what is wrong */
		if (disk_pulse_age_ms(&w->pulse, clock_mono_ms()) >= w->probe_ms)
			probe(w);
		until_us = clock_mono_us() + LOOK_MS * 1000u;
		pthread_mutex_lock(&w->mutex);
		if (!w->stopping)
			clock_wait(&w->wake, &w->mutex, until_us);
	}
	w->ended = true;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->mutex);
	return NULL;
}

enum db_err disk_watch_start(struct disk_watch *w, struct errmsg *em)
{
	enum db_err err = look_at_space(w, em);

	if (err != DB_OK)
		return err;
	if (pthread_create(&w->thread, NULL, run, w) != 0)
		return errmsg_set(em, DB_NOMEM, "cannot start the thread that watches the disk");
	w->started = true;
	return DB_OK;
}

/* False: it hangs, and is left alone. */
static bool join(struct disk_watch *w)
{
	uint64_t until_us = clock_mono_us() + STOP_MS * 1000u;
	bool ended;

	pthread_mutex_lock(&w->mutex);
	w->stopping = true;
	pthread_cond_signal(&w->wake);
	while (!w->ended && clock_wait(&w->wake, &w->mutex, until_us))
		;
	ended = w->ended;
	pthread_mutex_unlock(&w->mutex);
	return ended && pthread_join(w->thread, NULL) == 0;
}

void disk_watch_free(struct disk_watch *w)
{
	if (w == NULL)
		return;
	if (w->started && !join(w)) {
		log_error("the disk hangs: the thread that watches it is left behind");
		pthread_detach(w->thread);
		return;
	}
	if (w->probe_fd >= 0)
		close(w->probe_fd);
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->mutex);
	free(w);
}

/* ---- looking */

struct disk_pulse *disk_watch_pulse(struct disk_watch *w)
{
	return &w->pulse;
}

bool disk_watch_is_low(struct disk_watch *w)
{
	return atomic_load_explicit(&w->low, memory_order_relaxed);
}

void disk_watch_get_report(struct disk_watch *w, struct disk_report *out)
{
	uint64_t now_ms = clock_mono_ms();

	pthread_mutex_lock(&w->mutex);
	if (w->looked_ms != 0 && now_ms > w->looked_ms + PULSE_UNSEEN_MS)
		disk_pulse_forgive(&w->pulse, now_ms - w->looked_ms - PULSE_UNSEEN_MS);
	w->looked_ms = now_ms;
	memcpy(out->failure, w->failure, sizeof(out->failure));
	pthread_mutex_unlock(&w->mutex);
	out->age_ms = disk_pulse_age_ms(&w->pulse, now_ms);
	out->busy_ms = disk_pulse_busy_ms(&w->pulse, now_ms);
	out->free_bytes = atomic_load(&w->free_bytes);
	out->low_space_bytes = w->low_space_bytes;
	out->low_space = atomic_load(&w->low);
}

void disk_watch_say_low(const struct disk_report *report, char *text, size_t size)
{
	snprintf(text, size,
		 "no space left for writes: %" PRIu64 " bytes are free on the disk, and the low-space mark is %" PRIu64
		 "; reads go on, writes are taken again once there is room",
		 report->free_bytes, report->low_space_bytes);
}

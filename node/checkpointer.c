/* checkpointer.c - see checkpointer.h. A failed checkpoint is logged and tried again: the old one still stands. */
#include "node/checkpointer.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/log.h"

#define LOOK_MS        50   /* how often to look whether something is due */
#define RETRY_AFTER_MS 2000 /* after a failure */

struct checkpointer {
	struct store *store;
	uint64_t keep_bytes;
	pthread_t thread;
	pthread_mutex_t mutex; /* guards stopping */
	pthread_cond_t wake;
	bool stopping;
};

/* The oldest LSN to keep: about keep_bytes of log, taking records for equally long. */
static uint64_t keep_lsn(const struct checkpointer *c)
{
	struct store_status status;
	uint64_t count;

	store_get_status(c->store, &status);
	if (status.wal_bytes <= c->keep_bytes || status.tip.lsn < status.first_lsn)
		return status.first_lsn;
	count = status.tip.lsn - status.first_lsn + 1;
	return status.tip.lsn - (uint64_t)((double)count * (double)c->keep_bytes / (double)status.wal_bytes);
}

static bool do_what_is_due(struct checkpointer *c)
{
	struct errmsg em = {0};
	uint64_t started_ms = clock_mono_ms();
	bool ok = true;

	if (wal_prepare(store_wal(c->store), &em) != DB_OK) {
		log_warn("cannot prepare a log segment: %s", em.text);
		ok = false;
	}
	if (!store_checkpoint_due(c->store))
		return ok;
	if (store_checkpoint(c->store, keep_lsn(c), &em) != DB_OK) {
		log_warn("checkpoint failed, the old one stands: %s", em.text);
		return false;
	}
	log_info("checkpoint took %" PRIu64 " ms", clock_mono_ms() - started_ms);
	return ok;
}

static void *run(void *arg)
{
	struct checkpointer *c = arg;
	struct timespec until;
	long wait_ms;

	pthread_setname_np(pthread_self(), "checkpointer");
	pthread_mutex_lock(&c->mutex);
	while (!c->stopping) {
		pthread_mutex_unlock(&c->mutex);
		wait_ms = do_what_is_due(c) ? LOOK_MS : RETRY_AFTER_MS;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += wait_ms % 1000 * 1000000L;
		until.tv_sec += wait_ms / 1000 + until.tv_nsec / 1000000000L;
		until.tv_nsec %= 1000000000L;
		pthread_mutex_lock(&c->mutex);
		if (!c->stopping)
			pthread_cond_timedwait(&c->wake, &c->mutex, &until);
	}
	pthread_mutex_unlock(&c->mutex);
	return NULL;
}

enum db_err checkpointer_create(struct checkpointer **out, struct store *store, uint64_t keep_bytes, struct errmsg *em)
{
	struct checkpointer *c = calloc(1, sizeof(*c));
	pthread_condattr_t attr;

	*out = NULL;
	if (c == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	c->store = store;
	c->keep_bytes = keep_bytes;
	pthread_mutex_init(&c->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->wake, &attr);
	pthread_condattr_destroy(&attr);
	if (pthread_create(&c->thread, NULL, run, c) != 0) {
		free(c);
		return errmsg_set(em, DB_NOMEM, "cannot start the checkpointer");
	}
	*out = c;
	return DB_OK;
}

void checkpointer_free(struct checkpointer *c)
{
	if (c == NULL)
		return;
	pthread_mutex_lock(&c->mutex);
	c->stopping = true;
	pthread_cond_signal(&c->wake);
	pthread_mutex_unlock(&c->mutex);
	pthread_join(c->thread, NULL);
	pthread_cond_destroy(&c->wake);
	pthread_mutex_destroy(&c->mutex);
	free(c);
}

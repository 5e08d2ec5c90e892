/* checkpointer.c - see checkpointer.h. A failed checkpoint is logged and tried again: the old one still stands. */
#include "node/checkpointer.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/log.h"

#define LOOK_MS        50   /* how often to look whether something is due */
#define RETRY_AFTER_MS 2000 /* after a failure */

struct checkpointer {
	struct checkpointer_options options;
	uint64_t over_ms; /* not before this the log is looked at that could not be brought back to its bounds */
	pthread_t thread;
	pthread_mutex_t mutex; /* guards stopping */
	pthread_cond_t wake;
	bool stopping;
};

/* False: the log is within its bounds, or was not brought back to them a moment ago. */
static bool decide(struct checkpointer *c, struct retention_plan *plan)
{
	const struct retention_policy *policy = &c->options.policy;
	struct wal *wal = store_wal(c->options.store);
	struct retention_facts facts = {.log_bytes = wal_size_bytes(wal),
					.keep_lsn = wal_lsn_within(wal, policy->keep_bytes),
					.cut_lsn = wal_lsn_within(wal, retention_after_cut(policy))};

	facts.archiving = c->options.archived(c->options.arg, &facts.archived_lsn);
	retention_decide(policy, &facts, plan);
	return plan->over && clock_mono_ms() >= c->over_ms;
}

static bool do_what_is_due(struct checkpointer *c)
{
	struct retention_plan plan;
	struct errmsg em = {0};
	uint64_t started_ms = clock_mono_ms();
	bool ok = true, over;

	if (wal_prepare(store_wal(c->options.store), &em) != DB_OK) {
		log_warn("cannot prepare a log segment: %s", em.text);
		ok = false;
	}
	over = decide(c, &plan);
	if (!over && !store_checkpoint_due(c->options.store))
		return ok;
	if (over)
		c->options.cut(c->options.arg, plan.keep_lsn);
	if (store_checkpoint(c->options.store, plan.keep_lsn, &em) != DB_OK) {
		log_warn("checkpoint failed, the old one stands: %s", em.text);
		return false;
	}
	if (over && decide(c, &plan)) {
		log_warn("the log has %" PRIu64 " bytes, and what lies before its bounds is still being read",
			 wal_size_bytes(store_wal(c->options.store)));
		c->over_ms = clock_mono_ms() + RETRY_AFTER_MS;
	}
	log_info("checkpoint took %" PRIu64 " ms", clock_mono_ms() - started_ms);
	return ok;
}

static void *run(void *arg)
{
	struct checkpointer *c = arg;
	uint64_t pause_ms, until_us;

	pthread_setname_np(pthread_self(), "checkpointer");
	pthread_mutex_lock(&c->mutex);
	while (!c->stopping) {
		pthread_mutex_unlock(&c->mutex);
		pause_ms = do_what_is_due(c) ? LOOK_MS : RETRY_AFTER_MS;
		until_us = clock_mono_us() + pause_ms * 1000;
		pthread_mutex_lock(&c->mutex);
		if (!c->stopping)
			clock_wait(&c->wake, &c->mutex, until_us);
	}
	pthread_mutex_unlock(&c->mutex);
	return NULL;
}

enum db_err checkpointer_create(struct checkpointer **out, const struct checkpointer_options *options,
				struct errmsg *em)
{
	struct checkpointer *c = calloc(1, sizeof(*c));

	*out = NULL;
	if (c == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	c->options = *options;
	pthread_mutex_init(&c->mutex, NULL);
	pthread_cond_init(&c->wake, NULL);
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

/* end_watch.c - see end_watch.h. One thread, which waits for the other end or for the time to be up. */
#include "node/end_watch.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"

struct end_watch {
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool over; /* under mutex */
	uint64_t until_us;
	unsigned limit_ms;
	int exit_code;
};

static void *watch(void *arg)
{
	struct end_watch *e = arg;
	bool over;

	pthread_setname_np(pthread_self(), "end-watch");
	pthread_mutex_lock(&e->mutex);
	while (!e->over && clock_wait(&e->changed, &e->mutex, e->until_us))
		;
	over = e->over;
	pthread_mutex_unlock(&e->mutex);
	if (!over) {
		log_error("the end hangs for %u ms: it is not waited for", e->limit_ms);
		_exit(e->exit_code);
	}
	return NULL;
}

enum db_err end_watch_create(struct end_watch **out, unsigned limit_ms, int exit_code, struct errmsg *em)
{
	struct end_watch *e = calloc(1, sizeof(*e));

	*out = NULL;
	if (e == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory to watch the end");
	e->limit_ms = limit_ms;
	e->until_us = clock_mono_us() + limit_ms * (uint64_t)1000;
	e->exit_code = exit_code;
	pthread_mutex_init(&e->mutex, NULL);
	pthread_cond_init(&e->changed, NULL);
	if (pthread_create(&e->thread, NULL, watch, e) != 0) {
		pthread_cond_destroy(&e->changed);
		pthread_mutex_destroy(&e->mutex);
		free(e);
		return errmsg_set(em, DB_NOMEM, "no thread to watch the end");
	}
	*out = e;
	return DB_OK;
}

void end_watch_free(struct end_watch *e)
{
	if (e == NULL)
		return;
	pthread_mutex_lock(&e->mutex);
	e->over = true;
	pthread_cond_signal(&e->changed);
	pthread_mutex_unlock(&e->mutex);
	pthread_join(e->thread, NULL);
	pthread_cond_destroy(&e->changed);
	pthread_mutex_destroy(&e->mutex);
	free(e);
}

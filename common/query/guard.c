/* guard.c - see guard.h. Cannot fail. */
#include "common/query/guard.h"

#include <stddef.h>

#include "common/base/clock.h"

enum guard_stop guard_check(struct guard *g)
{
	if (g->cancelled != NULL && atomic_load_explicit(g->cancelled, memory_order_relaxed))
		g->stop = GUARD_CANCELLED;
	else if (g->deadline_ms != 0 && clock_mono_ms() >= g->deadline_ms)
		g->stop = GUARD_TOO_LATE;
	return g->stop;
}

static int on_progress(void *arg)
{
	struct guard *g = arg;

	if (!g->armed)
		return 0;
	g->ops += GUARD_PERIOD_OPS;
	if (g->ops_max != 0 && g->ops > g->ops_max)
		g->stop = GUARD_OVER_BUDGET;
	return guard_check(g) != GUARD_GO;
}

void guard_install(struct guard *g, sqlite3 *db)
{
	guard_disarm(g);
	sqlite3_progress_handler(db, GUARD_PERIOD_OPS, on_progress, g);
}

void guard_arm(struct guard *g, uint64_t ops_max, uint64_t deadline_ms, const atomic_bool *cancelled)
{
	*g = (struct guard){.armed = true, .ops_max = ops_max, .deadline_ms = deadline_ms, .cancelled = cancelled};
}

void guard_disarm(struct guard *g)
{
	*g = (struct guard){0};
}

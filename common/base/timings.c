/* timings.c - see timings.h. */
#include "common/base/timings.h"

const struct histogram_scale histogram_us = {.count = 19,
					     .bounds = {10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000,
							50000, 100000, 200000, 500000, 1000000, 2000000, 5000000,
							10000000}};
const struct histogram_scale histogram_count = {.count = 10, .bounds = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512}};

void histogram_add(struct histogram *h, const struct histogram_scale *scale, uint64_t value, uint64_t times)
{
	size_t i = 0;

	/* Most values are small: a short walk, and well predicted. */
	while (i < scale->count && value > scale->bounds[i])
		i++;
	atomic_fetch_add_explicit(&h->counts[i], times, memory_order_relaxed);
	atomic_fetch_add_explicit(&h->sum, value * times, memory_order_relaxed);
}

void histogram_collect(struct histogram *sum, const struct histogram *h)
{
	size_t i;

	for (i = 0; i <= HISTOGRAM_BOUNDS_MAX; i++)
		atomic_fetch_add_explicit(&sum->counts[i], atomic_load_explicit(&h->counts[i], memory_order_relaxed),
					  memory_order_relaxed);
	atomic_fetch_add_explicit(&sum->sum, atomic_load_explicit(&h->sum, memory_order_relaxed), memory_order_relaxed);
}

const char *timing_kind(enum timing which)
{
	static const char *const kinds[] = {
#define X(name, kind, stage) kind,
	    TIMINGS(X)
#undef X
	};

	return kinds[which];
}

const char *timing_stage(enum timing which)
{
	static const char *const stages[] = {
#define X(name, kind, stage) stage,
	    TIMINGS(X)
#undef X
	};

	return stages[which];
}

void timings_collect(struct timings *sum, const struct timings *t)
{
	size_t i;

	for (i = 0; i < TIMING_COUNT; i++)
		histogram_collect(&sum->stages[i], &t->stages[i]);
	histogram_collect(&sum->batch_requests, &t->batch_requests);
}

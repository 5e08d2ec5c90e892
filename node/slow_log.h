/*
 * slow_log.h - requests that took longer than logging.slow_query_ms are logged, with their plan.
 *
 * The line is "slow query" with kind, ms, sql (without values, see common/query/explain.h) and plan. Off by default; asking
 * whether a request was slow is one relaxed load then. Any thread; the connection is the calling thread's own.
 */
#ifndef GRIZZLY_NODE_SLOW_LOG_H
#define GRIZZLY_NODE_SLOW_LOG_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/query/exec.h"

struct slow_log {
	atomic_uint_fast64_t threshold_us; /* 0: nothing is slow */
	atomic_uint_fast64_t slow_total;
};

void slow_log_set(struct slow_log *l, uint64_t threshold_ms);
void slow_log_write(struct slow_log *l, struct query_conn *c, const struct query_request *request, const char *kind,
		    uint64_t elapsed_us);

/* request NULL: not one that could be slow. */
static inline void slow_log_note(struct slow_log *l, struct query_conn *c, const struct query_request *request,
				 const char *kind, uint64_t elapsed_us)
{
	uint64_t threshold_us = atomic_load_explicit(&l->threshold_us, memory_order_relaxed);

	if (threshold_us > 0 && elapsed_us > threshold_us && request != NULL)
		slow_log_write(l, c, request, kind, elapsed_us);
}

#endif

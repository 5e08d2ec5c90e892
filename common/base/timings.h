/*
 * timings.h - how long requests take, by kind and stage: histograms with fixed buckets, for /metrics.
 *
 * Counting is two relaxed additions and takes no lock, from any thread. Threads on the hot path have a struct timings of
 * their own, so that they share no cache line; whoever shows the figures adds them up. Histograms are not consistent with
 * each other to the last request, each is with itself but for what is counted while it is read.
 */
#ifndef GRIZZLY_COMMON_BASE_TIMINGS_H
#define GRIZZLY_COMMON_BASE_TIMINGS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define HISTOGRAM_BOUNDS_MAX 20

/* What a histogram counts: values up to bounds[0], up to bounds[1], …, and any. */
struct histogram_scale {
	size_t count; /* of bounds, at most HISTOGRAM_BOUNDS_MAX */
	uint64_t bounds[HISTOGRAM_BOUNDS_MAX];
};

extern const struct histogram_scale histogram_us;    /* durations: 10 us to 10 s */
extern const struct histogram_scale histogram_count; /* how many at a time: 1 to 512 */

struct histogram {
	atomic_uint_fast64_t
	    counts[HISTOGRAM_BOUNDS_MAX + 1]; /* of each bucket alone; the last one: above all bounds */
	atomic_uint_fast64_t sum;             /* of the values */
};

/* Counts value, times times. Any thread. */
void histogram_add(struct histogram *h, const struct histogram_scale *scale, uint64_t value, uint64_t times);
/* sum += h; sum is the caller's alone. */
void histogram_collect(struct histogram *sum, const struct histogram *h);

/* kind and stage of each, as they are shown. */
#define TIMINGS(X)                                                                                                     \
	X(READ_PARSE, "read", "parse")          /* from the last byte of a request until it is understood */           \
	X(READ_EXECUTE, "read", "execute")      /* on an HTTP worker, the answer written into memory */                \
	X(READ_WHOLE, "read", "whole")          /* until the answer is handed to the socket */                         \
	X(SLOW_WAIT, "slow_read", "wait")       /* for a slow-query thread, the try on the worker included */          \
	X(SLOW_EXECUTE, "slow_read", "execute") /* there, with what the client took to take the answer */              \
	X(SLOW_WHOLE, "slow_read", "whole")                                                                            \
	X(WRITE_PARSE, "write", "parse")                                                                               \
	X(WRITE_WAIT, "write", "wait")       /* for the writer thread */                                               \
	X(WRITE_EXECUTE, "write", "execute") /* in the open transaction */                                             \
	X(WRITE_SYNC, "write", "sync")       /* one fdatasync of the log; on replicas too */                           \
	X(WRITE_QUORUM, "write", "quorum")   /* from sealing the batch until enough nodes have it */                   \
	X(WRITE_WHOLE, "write", "whole")                                                                               \
	X(FORWARD_WHOLE, "forwarded", "whole")   /* asked of the master for a client of this node */                   \
	X(FEDERATED_WHOLE, "federated", "whole") /* shipped whole to another cluster's node */

enum timing {
#define X(name, kind, stage) TIMING_##name,
	TIMINGS(X)
#undef X
	    TIMING_COUNT
};

struct timings {
	struct histogram stages[TIMING_COUNT]; /* microseconds */
	struct histogram batch_requests;       /* requests of a group commit */
};

const char *timing_kind(enum timing which);
const char *timing_stage(enum timing which);

/* t may be NULL: nobody counts. */
static inline void timings_add(struct timings *t, enum timing which, uint64_t us)
{
	if (t != NULL)
		histogram_add(&t->stages[which], &histogram_us, us, 1);
}

static inline void timings_add_many(struct timings *t, enum timing which, uint64_t us, uint64_t times)
{
	if (t != NULL)
		histogram_add(&t->stages[which], &histogram_us, us, times);
}

/* sum += t. */
void timings_collect(struct timings *sum, const struct timings *t);

#endif

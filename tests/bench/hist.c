/*
 * hist.c - see hist.h. A value's bucket is its highest HIST_SUB_BITS + 1 bits and their place.
 */
#include "tests/bench/hist.h"

#include <inttypes.h>
#include <string.h>

static size_t bucket_of(uint64_t us)
{
	unsigned shift;

	if (us < (1U << (HIST_SUB_BITS + 1)))
		return us;
	shift = 63 - (unsigned)__builtin_clzll(us) - HIST_SUB_BITS;
	return ((size_t)shift << HIST_SUB_BITS) + (us >> shift);
}

static uint64_t bucket_floor(size_t bucket)
{
	unsigned shift;

	if (bucket < (1U << (HIST_SUB_BITS + 1)))
		return bucket;
	shift = (unsigned)(bucket >> HIST_SUB_BITS) - 1;
	return (uint64_t)(bucket - ((size_t)shift << HIST_SUB_BITS)) << shift;
}

void hist_init(struct hist *h)
{
	memset(h, 0, sizeof *h);
}

void hist_add(struct hist *h, uint64_t us)
{
	h->buckets[bucket_of(us)]++;
	h->count++;
	h->sum_us += us;
	if (us > h->max_us)
		h->max_us = us;
}

uint64_t hist_quantile_us(const struct hist *h, double q)
{
	uint64_t wanted = (uint64_t)((double)h->count * q), seen = 0;

	for (size_t i = 0; i < HIST_BUCKETS; i++) {
		seen += h->buckets[i];
		if (seen > wanted)
			return bucket_floor(i);
	}
	return h->max_us;
}

void hist_print_json(const struct hist *h, const char *prefix, FILE *out)
{
	fprintf(out,
		"\"%scount\":%" PRIu64 ",\"%smean_us\":%.1f,\"%sp50_us\":%" PRIu64 ",\"%sp90_us\":%" PRIu64
		",\"%sp99_us\":%" PRIu64 ",\"%sp999_us\":%" PRIu64 ",\"%smax_us\":%" PRIu64,
		prefix, h->count, prefix, h->count > 0 ? (double)h->sum_us / (double)h->count : 0.0, prefix,
		hist_quantile_us(h, 0.50), prefix, hist_quantile_us(h, 0.90), prefix, hist_quantile_us(h, 0.99), prefix,
		hist_quantile_us(h, 0.999), prefix, h->max_us);
}

/*
 * hist.h - latencies in microseconds, counted in log-linear buckets (64 per power of two: within 1.6 %).
 *
 * Embedded, no allocation, one thread. Exact below 128 us; the maximum and the sum are exact everywhere.
 */
#ifndef GRIZZLY_TESTS_BENCH_HIST_H
#define GRIZZLY_TESTS_BENCH_HIST_H

#include <stdint.h>
#include <stdio.h>

#define HIST_SUB_BITS 6
#define HIST_BUCKETS  ((64 - HIST_SUB_BITS) << HIST_SUB_BITS)

struct hist {
	uint64_t count;
	uint64_t sum_us;
	uint64_t max_us;
	uint64_t buckets[HIST_BUCKETS];
};

void hist_init(struct hist *h);
void hist_add(struct hist *h, uint64_t us);
uint64_t hist_quantile_us(const struct hist *h, double q); /* q in 0..1; 0 when nothing was counted */
/* Prints "<prefix>count":n,"<prefix>p50_us":n,… without braces, for a JSON object that the caller writes. */
void hist_print_json(const struct hist *h, const char *prefix, FILE *out);

#endif

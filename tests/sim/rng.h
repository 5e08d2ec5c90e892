/*
 * rng.h - the one source of chance in a schedule: splitmix64, so that a seed says everything.
 */
#ifndef GRIZZLY_TESTS_SIM_RNG_H
#define GRIZZLY_TESTS_SIM_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
	uint64_t state;
};

static inline uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* 0..below-1; below > 0. */
static inline uint64_t rng_below(struct rng *r, uint64_t below)
{
	return rng_next(r) % below;
}

/* low..high, both included. */
static inline uint64_t rng_between(struct rng *r, uint64_t low, uint64_t high)
{
	return low + rng_below(r, high - low + 1);
}

/* True once in n times. */
static inline bool rng_once_in(struct rng *r, uint64_t n)
{
	return rng_below(r, n) == 0;
}

#endif

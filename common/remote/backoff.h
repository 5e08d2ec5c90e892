/*
 * backoff.h - when an address that fails may be asked again.
 *
 * Pure: the time is handed in. After a failure nobody goes for 50 ms, after each further one for twice as long, up to
 * 5 s. Then one goes and looks (the probe); the others follow when it is answered, or when it has been out for
 * BACKOFF_PROBE_MS without failing (a long query answers late, but what cannot be reached fails sooner), or wait for the
 * next look when it failed. Failures of those that were under way already count as the one that came first.
 */
#ifndef GRIZZLY_COMMON_REMOTE_BACKOFF_H
#define GRIZZLY_COMMON_REMOTE_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS   5000
#define BACKOFF_PROBE_MS 1000

/* Zeroed: an address that never failed. */
struct backoff {
	unsigned failures; /* looks in a row that failed; 0: all is well */
	bool probing;      /* somebody looks */
	uint64_t until_ms; /* nobody goes before: the end of the pause, or the time the probe is given */
};

bool backoff_is_failing(const struct backoff *b);
/* Whether a request may go at now_ms. While the address is failing, *probe says that it is the one that looks: how that
 * ends must be told. */
bool backoff_may_go(struct backoff *b, uint64_t now_ms, bool *probe);
/* When backoff_may_go() is worth asking again, after it said no. */
uint64_t backoff_next_ms(const struct backoff *b);
/* It answered, whatever it said, to whomever. */
void backoff_answered(struct backoff *b);
/* It could not be reached, or broke off before it answered. True: the failure counts, a pause begins. */
bool backoff_failed(struct backoff *b, uint64_t now_ms);
/* The probe ended and showed nothing (it was given up): the next one looks. */
void backoff_undecided(struct backoff *b);

#endif

/*
 * clock.h - the only place that asks what time it is. Deciding code is handed `now`, it never calls these.
 *
 * Monotonic time measures durations and deadlines; wall time only labels records and log lines.
 */
#ifndef GRIZZLY_COMMON_BASE_CLOCK_H
#define GRIZZLY_COMMON_BASE_CLOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint64_t clock_mono_us(void); /* CLOCK_MONOTONIC in microseconds */
uint64_t clock_mono_ms(void); /* CLOCK_MONOTONIC in milliseconds */
uint64_t clock_wall_us(void); /* microseconds since 1970-01-01 UTC */

/* Puts wall_us as strftime() would, in UTC. Microseconds since 1970 always have a date. */
void clock_format(char *out, size_t size, uint64_t wall_us, const char *format);

/* Waits for cond, mutex held, until clock_mono_us() is until_us; cond needs no attributes. False: that time has come. True:
 * woken, perhaps for nothing. */
bool clock_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t until_us);

#endif

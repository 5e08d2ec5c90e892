/* clock.c - see clock.h. clock_gettime() cannot fail with these clocks on Linux. */
#include "common/base/clock.h"

#include <time.h>

static uint64_t clock_us(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

uint64_t clock_mono_us(void)
{
	return clock_us(CLOCK_MONOTONIC);
}

uint64_t clock_mono_ms(void)
{
	return clock_us(CLOCK_MONOTONIC) / 1000u;
}

uint64_t clock_wall_us(void)
{
	return clock_us(CLOCK_REALTIME);
}

void clock_format(char *out, size_t size, uint64_t wall_us, const char *format)
{
	time_t seconds = (time_t)(wall_us / 1000000u);
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(out, size, format, &tm);
}

bool clock_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t until_us)
{
	const struct timespec until = {(time_t)(until_us / 1000000u), (long)(until_us % 1000000u) * 1000};

	return pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, &until) == 0;
}

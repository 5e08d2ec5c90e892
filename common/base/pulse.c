/* pulse.c - see pulse.h. */
#include "common/base/pulse.h"

#include <string.h>
#include <time.h>

#include "common/base/clock.h"

void disk_pulse_init(struct disk_pulse *p, uint64_t now_ms)
{
	size_t i;

	for (i = 0; i < DISK_PULSE_SLOTS; i++)
		atomic_init(&p->since_ms[i], 0);
	atomic_init(&p->durable_ms, now_ms);
}

int disk_pulse_begin(struct disk_pulse *p)
{
	uint64_t now_ms, none;
	int i;

	if (p == NULL)
		return -1;
	now_ms = clock_mono_ms();
	for (i = 0; i < DISK_PULSE_SLOTS; i++) {
		none = 0;
		if (atomic_compare_exchange_strong(&p->since_ms[i], &none, now_ms))
			return i;
	}
	return -1;
}

void disk_pulse_end(struct disk_pulse *p, int slot, bool durable)
{
	if (p == NULL)
		return;
	if (durable)
		atomic_store(&p->durable_ms, clock_mono_ms());
	if (slot >= 0)
		atomic_store(&p->since_ms[slot], 0);
}

static void move(_Atomic uint64_t *at_ms, uint64_t ms)
{
	uint64_t was_ms = atomic_load(at_ms);

	/* When it changes meanwhile it is young anyway. */
	if (was_ms != 0)
		atomic_compare_exchange_strong(at_ms, &was_ms, was_ms + ms);
}

void disk_pulse_forgive(struct disk_pulse *p, uint64_t ms)
{
	size_t i;

	for (i = 0; i < DISK_PULSE_SLOTS; i++)
		move(&p->since_ms[i], ms);
	move(&p->durable_ms, ms);
}

uint64_t disk_pulse_busy_ms(struct disk_pulse *p, uint64_t now_ms)
{
	uint64_t since_ms, oldest_ms = now_ms;
	size_t i;

	for (i = 0; i < DISK_PULSE_SLOTS; i++) {
		since_ms = atomic_load(&p->since_ms[i]);
		if (since_ms != 0 && since_ms < oldest_ms)
			oldest_ms = since_ms;
	}
	return now_ms - oldest_ms;
}

uint64_t disk_pulse_age_ms(struct disk_pulse *p, uint64_t now_ms)
{
	uint64_t durable_ms = atomic_load(&p->durable_ms);

	return now_ms > durable_ms ? now_ms - durable_ms : 0;
}

/* ---- work */

void work_pulse_init(struct work_pulse *w)
{
	memset(w, 0, sizeof(*w));
	pthread_mutex_init(&w->mutex, NULL);
}

void work_pulse_fini(struct work_pulse *w)
{
	pthread_mutex_destroy(&w->mutex);
}

void work_pulse_begin(struct work_pulse *w)
{
	clockid_t clock;

	if (pthread_getcpuclockid(pthread_self(), &clock) == 0)
		atomic_store(&w->clock, clock);
	atomic_fetch_add(&w->step, 1);
	atomic_store(&w->since_ms, clock_mono_ms());
}

void work_pulse_end(struct work_pulse *w)
{
	atomic_store(&w->since_ms, 0);
}

static uint64_t run_ns(clockid_t clock)
{
	struct timespec used;

	if (clock_gettime(clock, &used) != 0)
		return 0; /* the thread has ended */
	return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

uint64_t work_pulse_stuck_ms(struct work_pulse *w, uint64_t now_ms)
{
	uint64_t since_ms = atomic_load(&w->since_ms), step, used_ns, stuck_ms = 0;

	pthread_mutex_lock(&w->mutex);
	if (now_ms > w->looked_ms + PULSE_UNSEEN_MS)
		w->advanced_ms += now_ms - w->looked_ms - PULSE_UNSEEN_MS;
	w->looked_ms = now_ms;
	if (since_ms == 0) {
		pthread_mutex_unlock(&w->mutex);
		return 0;
	}
	step = atomic_load(&w->step);
	used_ns = run_ns(atomic_load(&w->clock));
	if (step != w->seen_step || used_ns != w->seen_run_ns) {
		w->seen_step = step;
		w->seen_run_ns = used_ns;
		w->advanced_ms = now_ms;
	} else if (now_ms > w->advanced_ms) {
		stuck_ms = now_ms - w->advanced_ms;
	}
	pthread_mutex_unlock(&w->mutex);
	return stuck_ms;
}

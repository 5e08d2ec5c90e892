/*
 * pulse.h - how long ago something last moved: the disk below a node, and the thread that feeds its log.
 *
 * A heartbeat answer that merely proves that a thread can answer says nothing about a disk that takes requests and
 * completes none (a dead NFS server, a controller that resets). So every operation that waits for the disk says when it
 * begins and when it ends, and whoever answers a heartbeat reads off how long the oldest one has been under way and how
 * long ago the disk last made something durable. Likewise the thread that appends to the log says when it works; whether
 * it gets on is told by the processor time it uses, so that a long statement is not taken for a stuck thread.
 *
 * Time in which nobody looked is not held against anybody beyond PULSE_UNSEEN_MS: when the whole process (or the machine)
 * was paused, an operation that had been under way is no older for it than what was seen of it.
 *
 * Any thread, no lock: the marks are atomics, for the one who reads must never wait for the one who hangs. Times are
 * clock_mono_ms(), never 0.
 */
#ifndef GRIZZLY_COMMON_BASE_PULSE_H
#define GRIZZLY_COMMON_BASE_PULSE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define PULSE_UNSEEN_MS  1000u
#define DISK_PULSE_SLOTS 32 /* operations under way at once that are seen; further ones are not watched */

struct disk_pulse {
	_Atomic uint64_t since_ms[DISK_PULSE_SLOTS]; /* of each operation under way; 0: the slot is free */
	_Atomic uint64_t durable_ms;                 /* when one last ended that made something durable */
};

void disk_pulse_init(struct disk_pulse *p, uint64_t now_ms); /* as if something had just become durable */
/* An operation that may wait for the disk begins; the result is for disk_pulse_end(). p NULL: nobody watches. */
int disk_pulse_begin(struct disk_pulse *p);
/* It ended. durable: it was a sync, and it succeeded. */
void disk_pulse_end(struct disk_pulse *p, int slot, bool durable);
/* How long the oldest operation has been under way; 0: none is. */
uint64_t disk_pulse_busy_ms(struct disk_pulse *p, uint64_t now_ms);
/* So much of the time passed while nobody looked: everything becomes younger by it. */
void disk_pulse_forgive(struct disk_pulse *p, uint64_t ms);
/* How long ago something was last made durable. */
uint64_t disk_pulse_age_ms(struct disk_pulse *p, uint64_t now_ms);

/* One thread that works at times, or several that do so one at a time. */
struct work_pulse {
	_Atomic uint64_t since_ms; /* it works since; 0: it waits for work */
	_Atomic uint64_t step;     /* changes with every begin: a new piece of work is progress */
	_Atomic clockid_t clock;   /* of the processor time of the thread that works */
	pthread_mutex_t mutex;     /* guards the rest: what the looks before have seen */
	uint64_t seen_step;
	uint64_t seen_run_ns;
	uint64_t advanced_ms;
	uint64_t looked_ms;
};

void work_pulse_init(struct work_pulse *w);
void work_pulse_fini(struct work_pulse *w);
void work_pulse_begin(struct work_pulse *w); /* by the thread that works */
void work_pulse_end(struct work_pulse *w);
/* How long its present piece of work has got no further: not ended, and the thread has used no processor time since an
 * earlier look. 0: it waits for work, or gets on. Made for being asked again and again. */
uint64_t work_pulse_stuck_ms(struct work_pulse *w, uint64_t now_ms);

#endif

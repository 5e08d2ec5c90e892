/*
 * progress.h - does a process that does not answer hang, or was it merely not scheduled?
 *
 * Two samples of /proc/<pid>, a fraction of a second apart, tell. A process works if it used the processor in between
 * (measured in nanoseconds from schedstat where the kernel has it, else in clock ticks) or waits for one: a thread that
 * is runnable and does not run is starved, not hung. It does not work if it is stopped or traced, or its first thread is
 * in an uninterruptible wait both times without having run, or nothing of it ran. When our own threads had to wait for
 * the processor nothing can be said, for an answer may lie unread: that counts as working too.
 *
 * Reads two small files a thread; called by the loop thread, for a node whose answer is overdue.
 */
#ifndef GRIZZLY_SUPERVISOR_PROGRESS_H
#define GRIZZLY_SUPERVISOR_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct progress_sample {
	bool taken;            /* else the process is gone, or /proc cannot be read: no progress */
	char first_state;      /* of the first thread, as in /proc/<pid>/stat */
	bool runnable;         /* a thread runs or waits for a processor */
	uint64_t run_ns;       /* of all threads */
	uint64_t first_run_ns; /* of the first thread */
	uint64_t own_wait_ns;  /* that our own threads waited for a processor, so far */
	bool own_waits;        /* another thread of ours is runnable */
	uint64_t taken_ns;     /* monotonic */
};

void progress_take(struct progress_sample *out, pid_t pid);
/* Both of the same process. */
bool progress_made(const struct progress_sample *before, const struct progress_sample *after);

#endif

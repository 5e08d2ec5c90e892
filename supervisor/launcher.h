/*
 * launcher.h - starting node processes, watching them, adopting those of an earlier supervisor.
 *
 * A process is known by its pid and its start time, which together are never used twice while the host is up, and held
 * by a pidfd: signals through it cannot hit a stranger, and it becomes readable when the process is certainly gone
 * (every thread ended, every socket closed). Called by the supervisor's loop thread and by the stop command.
 */
#ifndef GRIZZLY_SUPERVISOR_LAUNCHER_H
#define GRIZZLY_SUPERVISOR_LAUNCHER_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/err.h"

#define LAUNCHER_ARGS_MAX 16

struct process {
	pid_t pid;
	uint64_t start_ticks; /* field 22 of /proc/<pid>/stat */
	int pidfd;            /* -1: no process */
};

#define PROCESS_NONE ((struct process){.pid = 0, .start_ticks = 0, .pidfd = -1})

struct launch {
	const char *program;                 /* path */
	const char *args[LAUNCHER_ARGS_MAX]; /* args[0] is its name; NULL ends the list */
	const char *log_path;                /* stdout and stderr are appended to it */
	int listen_fd;                       /* becomes descriptor 3 (LISTEN_FDS=1); -1: none */
};

/* Looks for a program beside our own binary, then in PATH. DB_NOTFOUND names the places. */
enum db_err launcher_find(char out[PATH_MAX], const char *name, struct errmsg *em);

/* Starts a process in a session of its own, so that neither our end nor a Ctrl-C at our terminal reaches it, with no
 * descriptors but 0 to 3, default signal handlers (SIGHUP is ignored) and an empty signal mask. If the program cannot be executed after all,
 * the process writes so to its log and ends with code 127. DB_NOTFOUND, DB_IO, DB_NOMEM, DB_TOO_LARGE. */
enum db_err launcher_spawn(const struct launch *l, struct process *out, struct errmsg *em);

/* Takes hold of a running process. start_ticks 0: whatever it is. DB_NOTFOUND: there is none, it is a zombie, or it is
 * another one that got the same pid. */
enum db_err process_adopt(struct process *out, pid_t pid, uint64_t start_ticks, struct errmsg *em);

/* DB_OK also when it is gone already. */
enum db_err process_signal(const struct process *p, int signal, struct errmsg *em);
bool process_gone(const struct process *p);
/* After process_gone(): collects a child's end. *code is its exit code, or -1 when a signal ended it or nobody knows (it
 * was not our child); *signal is 0 or the signal. */
void process_collect(const struct process *p, int *code, int *signal);
void process_close(struct process *p); /* lets go of it; it runs on */

/* Identifies this boot of the host: pids and start times of another one mean nothing. DB_IO. */
enum db_err launcher_boot_id(char out[64], struct errmsg *em);

#endif

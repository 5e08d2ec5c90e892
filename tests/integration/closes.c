/*
 * closes.c - preloaded into the processes under test: says of each close() of a descriptor that is not open.
 *
 * Such a close hits nothing today. It is the second of two, and the day another thread opens something between them it
 * takes that away. Said on stderr, which is in the process's log, where harness.py looks for MARK; only of our own programs.
 * Without the C library's close(), which a sanitizer would want for itself: run.py preloads this where there is none.
 */
#include <errno.h>
#include <execinfo.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MARK       "closed what is not open: descriptor"
#define FRAMES_MAX 24

int close(int fd)
{
	void *frames[FRAMES_MAX];
	int result = (int)syscall(SYS_close, fd);

	if (result == -1 && errno == EBADF && strncmp(program_invocation_short_name, "grizzly-", 8) == 0) {
		dprintf(STDERR_FILENO, "%s " MARK " %d\n", program_invocation_short_name, fd);
		backtrace_symbols_fd(frames, backtrace(frames, FRAMES_MAX), STDERR_FILENO);
		errno = EBADF;
	}
	return result;
}

/* progress.c - see progress.h. */
#include "supervisor/progress.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"

#define NS_PER_S          1000000000u
#define OWN_WAIT_FRACTION 4u /* our threads waited for more than this part of the time between the samples */

struct thread_sample {
	char state;
	uint64_t run_ns;
	uint64_t wait_ns;
};

static bool read_text(int dir, const char *name, char *text, size_t size)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, text, size - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n > 0;
}

/* Fields 3, 14 and 15 of a stat file. The name in field 2 may hold anything, even ')'. */
static bool parse_stat(const char *text, struct thread_sample *out)
{
	const long ticks_per_s = sysconf(_SC_CLK_TCK);
	const char *p = strrchr(text, ')');
	uint64_t user, system;

	if (p == NULL || ticks_per_s <= 0 ||
	    sscanf(p + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64, &out->state, &user,
		   &system) != 3)
		return false;
	out->run_ns = (user + system) * (NS_PER_S / (uint64_t)ticks_per_s);
	return true;
}

/* False: the thread has ended. */
static bool take_thread(int tasks, const char *tid, struct thread_sample *out)
{
	char name[64];
	char text[1024];
	uint64_t run_ns, wait_ns;

	memset(out, 0, sizeof(*out));
	snprintf(name, sizeof(name), "%.20s/stat", tid);
	if (!read_text(tasks, name, text, sizeof(text)) || !parse_stat(text, out))
		return false;
	snprintf(name, sizeof(name), "%.20s/schedstat", tid);
	/* Without scheduler statistics all its numbers are 0. */
	if (read_text(tasks, name, text, sizeof(text)) &&
	    sscanf(text, "%" SCNu64 " %" SCNu64, &run_ns, &wait_ns) == 2 && run_ns > 0) {
		out->run_ns = run_ns;
		out->wait_ns = wait_ns;
	}
	return true;
}

static DIR *open_tasks(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	return opendir(path);
}

static void take_process(struct progress_sample *out, pid_t pid)
{
	struct thread_sample t;
	struct dirent *entry;
	DIR *tasks = open_tasks(pid);

	if (tasks == NULL)
		return;
	while ((entry = readdir(tasks)) != NULL) {
		if (entry->d_name[0] == '.' || !take_thread(dirfd(tasks), entry->d_name, &t))
			continue;
		out->run_ns += t.run_ns;
		out->runnable = out->runnable || t.state == 'R';
		if (atoi(entry->d_name) != (int)pid)
			continue;
		out->taken = true;
		out->first_state = t.state;
		out->first_run_ns = t.run_ns;
	}
	closedir(tasks);
}

static void take_own(struct progress_sample *out)
{
	struct thread_sample t;
	struct dirent *entry;
	DIR *tasks = open_tasks(getpid());

	if (tasks == NULL)
		return;
	while ((entry = readdir(tasks)) != NULL) {
		if (entry->d_name[0] == '.' || !take_thread(dirfd(tasks), entry->d_name, &t))
			continue;
		out->own_wait_ns += t.wait_ns;
		if (t.state == 'R' && atoi(entry->d_name) != (int)gettid())
			out->own_waits = true;
	}
	closedir(tasks);
}

void progress_take(struct progress_sample *out, pid_t pid)
{
	memset(out, 0, sizeof(*out));
	take_process(out, pid);
	take_own(out);
	out->taken_ns = clock_mono_us() * 1000;
}

static bool kept_waiting_ourselves(const struct progress_sample *before, const struct progress_sample *after)
{
	uint64_t span_ns = after->taken_ns - before->taken_ns;
	uint64_t wait_ns = after->own_wait_ns > before->own_wait_ns ? after->own_wait_ns - before->own_wait_ns : 0;

	return after->own_waits || wait_ns > span_ns / OWN_WAIT_FRACTION;
}

bool progress_made(const struct progress_sample *before, const struct progress_sample *after)
{
	if (!after->taken || after->first_state == 'T' || after->first_state == 't')
		return false;
	if (before->taken && before->first_state == 'D' && after->first_state == 'D' &&
	    before->first_run_ns == after->first_run_ns)
		return false;
	if (before->taken && after->run_ns != before->run_ns)
		return true; /* less is also other: a thread has ended */
	return after->runnable || kept_waiting_ourselves(before, after);
}

/*
 * replace.c - see replace.h.
 *
 * Other threads (NNG's) end with execve(). Every descriptor but the standard ones is closed by it, whoever opened it and
 * however: a listening socket of ours that stayed open would keep its successor from its own.
 */
#include "supervisor/replace.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

enum db_err replace_check(const char *program, struct errmsg *em)
{
	struct stat st;

	if (program[0] != '/')
		return errmsg_set(em, DB_INVALID, "\"%.200s\" is no absolute path", program);
	if (stat(program, &st) != 0 || !S_ISREG(st.st_mode) || access(program, X_OK) != 0)
		return errmsg_set(em, DB_NOTFOUND, "\"%.200s\" is not an executable file", program);
	return DB_OK;
}

enum db_err replace_run(const char *program, const char *data_dir, struct errmsg *em)
{
	const char *const args[] = {"grizzly-supervisor", "run", "--data-dir", data_dir, NULL};
	sigset_t none, before;

	if (close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC) != 0)
		return errmsg_errno(em, errno, "cannot give up the descriptors");
	sigemptyset(&none); /* a successor would inherit what is blocked */
	pthread_sigmask(SIG_SETMASK, &none, &before);
	execve(program, (char *const *)(uintptr_t)args, environ);
	errmsg_errno(em, errno, "cannot run \"%.200s\"", program);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return DB_IO;
}

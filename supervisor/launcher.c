/*
 * launcher.c - see launcher.h.
 *
 * The supervisor has threads (NNG's), so between fork() and exec only async-signal-safe calls are allowed: everything
 * that needs memory (arguments, environment, opened log) is prepared before, and the child fills its pid into a place
 * kept free in the environment.
 */
#include "supervisor/launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/buf.h"

#define LISTEN_FD         3  /* first descriptor of the LISTEN_FDS convention */
#define FIRST_SAFE_FD     10 /* descriptors below are rearranged in the child */
#define LISTEN_PID_DIGITS 20
#define EXEC_FAILED_CODE  127

extern char **environ;

/* ---- finding programs */

static bool is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

static bool find_in(char out[PATH_MAX], const char *dir, size_t dir_len, const char *name)
{
	int n = snprintf(out, PATH_MAX, "%.*s/%s", (int)dir_len, dir, name);

	return n > 0 && n < PATH_MAX && is_program(out);
}

enum db_err launcher_find(char out[PATH_MAX], const char *name, struct errmsg *em)
{
	char self[PATH_MAX];
	const char *path = getenv("PATH");
	const char *slash;
	ssize_t len;

	len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	self[len > 0 ? len : 0] = '\0';
	slash = strrchr(self, '/');
	if (slash != NULL && find_in(out, self, (size_t)(slash - self), name))
		return DB_OK;
	while (path != NULL && *path != '\0') {
		size_t dir_len = strcspn(path, ":");

		if (dir_len > 0 && find_in(out, path, dir_len, name))
			return DB_OK;
		path += dir_len + (path[dir_len] == ':');
	}
	out[0] = '\0';
	return errmsg_set(em, DB_NOTFOUND, "program \"%s\" is neither beside \"%s\" nor in PATH", name, self);
}

/* ---- starting */

struct child_plan {
	const struct launch *launch;
	char **envp;      /* owned */
	char *listen_pid; /* the digits inside envp's LISTEN_PID, zero-filled; NULL: none */
	int null_fd;
	int log_fd;
	int listen_fd; /* duplicate at a safe number; -1: none */
};

static bool is_replaced_variable(const char *entry)
{
	/* LISTEN_* would lie, the nodes read the token from its file, and the service manager is the supervisor's. */
	return strncmp(entry, "LISTEN_PID=", 11) == 0 || strncmp(entry, "LISTEN_FDS=", 11) == 0 ||
	       strncmp(entry, "LISTEN_FDNAMES=", 15) == 0 || strncmp(entry, "GRIZZLY_TOKEN=", 14) == 0 ||
	       strncmp(entry, "NOTIFY_SOCKET=", 14) == 0 || strncmp(entry, "WATCHDOG_", 9) == 0;
}

/* One allocation holds the pointers and, behind them, the text of LISTEN_PID. */
static enum db_err plan_environment(struct child_plan *plan, struct errmsg *em)
{
	static char listen_fds[] = "LISTEN_FDS=1";
	size_t count = 0;
	size_t used = 0;
	char *listen_pid;
	size_t i;

	while (environ[count] != NULL)
		count++;
	plan->envp = calloc(1, (count + 3) * sizeof(char *) + sizeof("LISTEN_PID=") + LISTEN_PID_DIGITS);
	if (plan->envp == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for an environment");
	for (i = 0; i < count; i++)
		if (!is_replaced_variable(environ[i]))
			plan->envp[used++] = environ[i];
	if (plan->listen_fd < 0)
		return DB_OK;
	listen_pid = (char *)(plan->envp + count + 3);
	memcpy(listen_pid, "LISTEN_PID=", 11);
	plan->listen_pid = listen_pid + 11;
	plan->envp[used++] = listen_pid;
	plan->envp[used++] = listen_fds;
	return DB_OK;
}

static void plan_fini(struct child_plan *plan)
{
	free(plan->envp);
	if (plan->null_fd >= 0)
		close(plan->null_fd);
	if (plan->log_fd >= 0)
		close(plan->log_fd);
	if (plan->listen_fd >= 0)
		close(plan->listen_fd);
}

/* Opens path at a number that the child's rearranging cannot overwrite. */
static int open_safely(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0600);
	int safe;

	if (fd < 0)
		return -1;
	safe = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_SAFE_FD);
	close(fd);
	return safe;
}

static enum db_err plan_init(struct child_plan *plan, const struct launch *l, struct errmsg *em)
{
	enum db_err err;

	*plan = (struct child_plan){.launch = l, .null_fd = -1, .log_fd = -1, .listen_fd = -1};
	if (!is_program(l->program))
		return errmsg_set(em, DB_NOTFOUND, "\"%s\" is not an executable file", l->program);
	plan->null_fd = open_safely("/dev/null", O_RDONLY);
	if (plan->null_fd < 0)
		return errmsg_errno(em, errno, "cannot open /dev/null");
	plan->log_fd = open_safely(l->log_path, O_WRONLY | O_APPEND | O_CREAT);
	if (plan->log_fd < 0) {
		err = errmsg_errno(em, errno, "cannot open \"%s\"", l->log_path);
		goto fini;
	}
	if (l->listen_fd >= 0) {
		plan->listen_fd = fcntl(l->listen_fd, F_DUPFD_CLOEXEC, FIRST_SAFE_FD);
		if (plan->listen_fd < 0) {
			err = errmsg_errno(em, errno, "cannot duplicate the listening socket");
			goto fini;
		}
	}
	err = plan_environment(plan, em);
	if (err == DB_OK)
		return DB_OK;
fini:
	plan_fini(plan);
	return err;
}

/* ---- the child: async-signal-safe calls only */

static void child_put_pid(char *digits)
{
	char reversed[LISTEN_PID_DIGITS];
	unsigned long pid = (unsigned long)getpid();
	size_t n = 0;

	do {
		reversed[n++] = (char)('0' + pid % 10);
		pid /= 10;
	} while (pid > 0);
	while (n > 0)
		*digits++ = reversed[--n];
}

static void child_reset_signals(void)
{
	struct sigaction dfl;
	sigset_t none;
	int sig;

	memset(&dfl, 0, sizeof(dfl));
	dfl.sa_handler = SIG_DFL;
	for (sig = 1; sig < NSIG; sig++)
		sigaction(sig, &dfl, NULL); /* fails for SIGKILL, SIGSTOP and libc's own: as it should */
	/* A node that is told to reload before it can has read the new file anyway. */
	dfl.sa_handler = SIG_IGN;
	sigaction(SIGHUP, &dfl, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void child_fail(const char *what)
{
	static const char prefix[] = "grizzly-supervisor: in the new process: ";
	static const char suffix[] = " failed\n";

	if (write(STDERR_FILENO, prefix, sizeof(prefix) - 1) >= 0 && write(STDERR_FILENO, what, strlen(what)) >= 0 &&
	    write(STDERR_FILENO, suffix, sizeof(suffix) - 1) >= 0)
		_exit(EXEC_FAILED_CODE);
	_exit(EXEC_FAILED_CODE);
}

static _Noreturn void child_run(const struct child_plan *plan)
{
	int first_closed = plan->listen_fd >= 0 ? LISTEN_FD + 1 : LISTEN_FD;

	if (dup2(plan->log_fd, STDERR_FILENO) < 0 || dup2(plan->log_fd, STDOUT_FILENO) < 0 ||
	    dup2(plan->null_fd, STDIN_FILENO) < 0)
		child_fail("dup2");
	if (plan->listen_fd >= 0 && dup2(plan->listen_fd, LISTEN_FD) < 0)
		child_fail("dup2 of the listening socket");
	if (close_range((unsigned)first_closed, ~0u, 0) != 0)
		child_fail("close_range");
	child_reset_signals();
	if (setsid() < 0)
		child_fail("setsid");
	if (plan->listen_pid != NULL)
		child_put_pid(plan->listen_pid);
	execve(plan->launch->program, (char *const *)plan->launch->args, plan->envp);
	child_fail(plan->launch->program);
}

/* ---- the parent */

/* Field 22 of /proc/<pid>/stat. The name in field 2 may hold anything, even ')'. */
static enum db_err read_start_ticks(pid_t pid, uint64_t *ticks, struct errmsg *em)
{
	char path[64];
	char text[1024];
	const char *p;
	ssize_t n;
	int field;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errmsg_errno(em, errno, "cannot open \"%s\"", path);
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return errmsg_set(em, DB_NOTFOUND, "process %d is gone", (int)pid);
	text[n] = '\0';
	p = strrchr(text, ')');
	if (p == NULL || p[1] != ' ')
		return errmsg_set(em, DB_IO, "\"%s\" is not understood", path);
	p += 2;
	for (field = 3; field < 22 && p != NULL; field++) {
		p = strchr(p, ' ');
		p = p == NULL ? NULL : p + 1;
	}
	if (p == NULL)
		return errmsg_set(em, DB_IO, "\"%s\" is not understood", path);
	*ticks = strtoull(p, NULL, 10);
	return DB_OK;
}

static enum db_err fork_child(const struct child_plan *plan, pid_t *out, struct errmsg *em)
{
	sigset_t all;
	sigset_t before;
	pid_t pid;

	/* No handler of ours may run in the child. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid == 0)
		child_run(plan);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (pid < 0)
		return errmsg_errno(em, errno, "cannot fork");
	*out = pid;
	return DB_OK;
}

enum db_err launcher_spawn(const struct launch *l, struct process *out, struct errmsg *em)
{
	struct child_plan plan;
	enum db_err err;

	*out = PROCESS_NONE;
	err = plan_init(&plan, l, em);
	if (err != DB_OK)
		return err;
	err = fork_child(&plan, &out->pid, em);
	plan_fini(&plan);
	if (err != DB_OK)
		return err;
	/* Our child stays at least a zombie until we collect it, so its pid cannot mean another process. */
	out->pidfd = pidfd_open(out->pid, 0);
	if (out->pidfd < 0) {
		err = errmsg_errno(em, errno, "cannot watch process %d", (int)out->pid);
		goto kill_child;
	}
	err = read_start_ticks(out->pid, &out->start_ticks, em);
	if (err == DB_OK)
		return DB_OK;
	process_close(out);
kill_child:
	kill(out->pid, SIGKILL);
	while (waitpid(out->pid, NULL, 0) < 0 && errno == EINTR)
		;
	*out = PROCESS_NONE;
	return err;
}

enum db_err process_adopt(struct process *out, pid_t pid, uint64_t start_ticks, struct errmsg *em)
{
	struct process p = PROCESS_NONE;
	enum db_err err;

	*out = PROCESS_NONE;
	if (pid <= 0)
		return errmsg_set(em, DB_NOTFOUND, "there is no process %d", (int)pid);
	p.pid = pid;
	p.pidfd = pidfd_open(pid, 0);
	if (p.pidfd < 0 && (errno == ESRCH || errno == EINVAL))
		return errmsg_set(em, DB_NOTFOUND, "process %d is gone", (int)pid);
	if (p.pidfd < 0)
		return errmsg_errno(em, errno, "cannot watch process %d", (int)pid);
	/* The start time is read after the pidfd was opened: if it matches, the pidfd is of that very process. */
	err = read_start_ticks(pid, &p.start_ticks, em);
	/* A zombie by /proc may be its first thread alone: until the last one has ended it keeps its files and ports. */
	if (err == DB_OK && process_gone(&p))
		err = errmsg_set(em, DB_NOTFOUND, "process %d has ended", (int)pid);
	if (err == DB_OK && start_ticks != 0 && p.start_ticks != start_ticks)
		err = errmsg_set(em, DB_NOTFOUND, "process %d is another one", (int)pid);
	if (err != DB_OK) {
		close(p.pidfd);
		return err;
	}
	*out = p;
	return DB_OK;
}

enum db_err process_signal(const struct process *p, int signal, struct errmsg *em)
{
	if (p->pidfd < 0 || pidfd_send_signal(p->pidfd, signal, NULL, 0) == 0 || errno == ESRCH)
		return DB_OK;
	return errmsg_errno(em, errno, "cannot send signal %d to process %d", signal, (int)p->pid);
}

bool process_gone(const struct process *p)
{
	struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};

	return p->pidfd < 0 || poll(&pfd, 1, 0) > 0;
}

void process_collect(const struct process *p, int *code, int *signal)
{
	siginfo_t info;

	*code = -1;
	*signal = 0;
	memset(&info, 0, sizeof(info));
	if (p->pidfd < 0 || waitid(P_PIDFD, (id_t)p->pidfd, &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0)
		return;
	if (info.si_code == CLD_EXITED)
		*code = info.si_status;
	else
		*signal = info.si_status;
}

void process_close(struct process *p)
{
	if (p->pidfd >= 0)
		close(p->pidfd);
	p->pidfd = -1;
}

enum db_err launcher_boot_id(char out[64], struct errmsg *em)
{
	static const char path[] = "/proc/sys/kernel/random/boot_id";
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errmsg_errno(em, errno, "cannot open \"%s\"", path);
	n = read(fd, out, 63);
	close(fd);
	if (n <= 0)
		return errmsg_set(em, DB_IO, "cannot read \"%s\"", path);
	out[n] = '\0';
	out[strcspn(out, "\n")] = '\0';
	return DB_OK;
}

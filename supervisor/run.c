/*
 * run.c - `grizzly-supervisor run`: the data directory, the lock, the background, then the loop.
 *
 * With --daemon the work is done in a forked child from the beginning (NNG and libevent start threads and cannot be
 * forked later); it tells the waiting parent through a pipe how the start went: one byte, the exit code as a digit, then
 * the text to print. The parent therefore returns 0 only when the supervisor is up.
 */
#include "supervisor/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/auth/tls_members.h"
#include "common/base/audit.h"
#include "common/base/log.h"
#include "supervisor/supervisor.h"
#include "supervisor/timeline.h"

#define REPORT_MAX 2048

static void print_outcome(enum exit_code code, const char *text)
{
	if (code == EXIT_OK)
		printf("%s\n", text);
	else
		fprintf(stderr, "grizzly-supervisor: %s\n", text);
	fflush(stdout);
}

/* Tells whoever waits how the start went. report_fd -1: the terminal. */
static enum exit_code report(int report_fd, enum exit_code code, const char *text)
{
	char message[REPORT_MAX];
	int n;

	if (report_fd < 0) {
		print_outcome(code, text);
		return code;
	}
	n = snprintf(message, sizeof(message), "%d%s", (int)code, text);
	if (write(report_fd, message, (size_t)n < sizeof(message) ? (size_t)n : sizeof(message) - 1) < 0)
		log_error("nobody waits for: %s", text);
	close(report_fd);
	return code;
}

static enum exit_code report_error(int report_fd, enum db_err err, const struct errmsg *em)
{
	return report(report_fd, err == DB_INVALID || err == DB_CORRUPT ? EXIT_USAGE : EXIT_FAILED, em->text);
}

static enum exit_code serve(struct supervisor *s)
{
	struct errmsg em = {0};

	if (supervisor_run(s, &em) == DB_OK)
		return EXIT_OK;
	log_error("%s", em.text);
	return EXIT_FAILED;
}

static enum exit_code report_running(int report_fd, pid_t holder)
{
	char text[128];

	snprintf(text, sizeof(text), "already running, pid %d", (int)holder);
	return report(report_fd, EXIT_OK, text);
}

/* A start that the configuration forbids is part of the story too. */
static void note_refusal(const char *text)
{
	struct timeline_note note = timeline_note_of(TIMELINE_CONFIG_REFUSED);
	struct timeline *t = NULL;
	struct errmsg em = {0};

	if (timeline_open(&t, &em) != DB_OK)
		log_error("%s", em.text);
	timeline_append(t, &note, TIMELINE_NOBODY, text);
	timeline_close(t);
}

/* In the data directory; original_dir is where the command was given. */
static enum exit_code run_here(const struct run_options *o, int original_dir, int report_fd)
{
	char text[CONFIG_ADDRESS_MAX + PATH_MAX + 64];
	char endpoint[CONFIG_ADDRESS_MAX];
	char data_dir[PATH_MAX], by[AUDIT_BY_MAX];
	struct cluster_config config;
	struct supervisor *s = NULL;
	struct errmsg em = {0};
	enum exit_code code;
	enum db_err err;
	pid_t holder;
	int lock_fd;

	if (getcwd(data_dir, sizeof(data_dir)) == NULL)
		return report(report_fd, EXIT_FAILED, "the data directory has no usable path");
	err = datadir_prepare(&em);
	if (err != DB_OK)
		return report_error(report_fd, err, &em);
	err = datadir_lock(&lock_fd, &holder, &em);
	if (err == DB_BUSY)
		return report_running(report_fd, holder);
	if (err == DB_OK)
		err = datadir_config(&config, &o->config, original_dir, &em);
	if (err == DB_OK && config_has_tls(&config)) /* rather than nodes that end one after the other */
		err = tls_check(&config, &em);
	if (err == DB_OK)
		log_set(config.logging.level, config.logging.format);
	if (err == DB_OK)
		err = datadir_token(&config, &em);
	if (err != DB_OK && lock_fd >= 0)
		note_refusal(em.text);
	if (err == DB_OK)
		err = supervisor_create(&s, &config, data_dir, &em);
	if (err != DB_OK) {
		code = report_error(report_fd, err, &em);
		goto close_lock;
	}
	config_endpoint_address(&config, endpoint);
	snprintf(text, sizeof(text), "supervisor started, pid %d, endpoint %s, data directory %s", (int)getpid(),
		 endpoint, data_dir);
	log_info("%s", text);
	audit_user(by, sizeof(by));
	audit_write("supervisor", "run", data_dir, by, "ok");
	report(report_fd, EXIT_OK, text);
	code = serve(s);
	supervisor_free(s);
close_lock:
	if (lock_fd >= 0)
		close(lock_fd);
	return code;
}

/* stdin and stdout away from the terminal, stderr to the log file. */
static enum db_err detach(struct errmsg *em)
{
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	int log_fd = open(DATADIR_LOG, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	enum db_err err = DB_OK;

	if (null_fd < 0 || log_fd < 0 || setsid() < 0 || dup2(null_fd, STDIN_FILENO) < 0 ||
	    dup2(null_fd, STDOUT_FILENO) < 0 || dup2(log_fd, STDERR_FILENO) < 0)
		err = errmsg_errno(em, errno, "cannot go to the background with \"%s\"", DATADIR_LOG);
	if (null_fd > STDERR_FILENO)
		close(null_fd);
	if (log_fd > STDERR_FILENO)
		close(log_fd);
	return err;
}

static enum exit_code run_as_daemon(const struct run_options *o, int original_dir, int report_fd)
{
	struct errmsg em = {0};
	enum db_err err = datadir_prepare(&em);

	if (err == DB_OK)
		err = detach(&em);
	if (err != DB_OK)
		return report_error(report_fd, err, &em);
	return run_here(o, original_dir, report_fd);
}

/* The parent's part: passes on what the child reports. */
static enum exit_code await_report(int fd)
{
	char message[REPORT_MAX];
	size_t used = 0;
	ssize_t n;

	do {
		n = read(fd, message + used, sizeof(message) - 1 - used);
		used += n > 0 ? (size_t)n : 0;
	} while ((n > 0 && used < sizeof(message) - 1) || (n < 0 && errno == EINTR));
	message[used] = '\0';
	if (used == 0 || message[0] < '0' || message[0] > '3') {
		fprintf(stderr, "grizzly-supervisor: the supervisor ended before it was up, see %s\n", DATADIR_LOG);
		return EXIT_FAILED;
	}
	print_outcome((enum exit_code)(message[0] - '0'), message + 1);
	return (enum exit_code)(message[0] - '0');
}

static enum exit_code run_in_background(const struct run_options *o, int original_dir)
{
	enum exit_code code;
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) != 0) {
		fprintf(stderr, "grizzly-supervisor: cannot create a pipe: %s\n", strerror(errno));
		return EXIT_FAILED;
	}
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		close(ends[0]);
		code = run_as_daemon(o, original_dir, ends[1]);
		fflush(NULL);
		_exit((int)code);
	}
	close(ends[1]);
	if (pid < 0) {
		fprintf(stderr, "grizzly-supervisor: cannot fork: %s\n", strerror(errno));
		code = EXIT_FAILED;
	} else {
		code = await_report(ends[0]);
	}
	close(ends[0]);
	return code;
}

enum exit_code command_run(const struct run_options *o)
{
	struct errmsg em = {0};
	enum exit_code code;
	enum db_err err;
	int original_dir;

	log_init("supervisor", LOG_LEVEL_INFO);
	/* A peer that goes away is an error of write(), and a terminal that does must not take the cluster along. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN); /* until the loop takes it as a wish to reload; never an end */
	original_dir = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (original_dir < 0) {
		fprintf(stderr, "grizzly-supervisor: cannot open the current directory: %s\n", strerror(errno));
		return EXIT_FAILED;
	}
	err = datadir_enter(o->data_dir, true, &em);
	if (err != DB_OK)
		code = report_error(-1, err, &em);
	else
		code = o->daemon ? run_in_background(o, original_dir) : run_here(o, original_dir, -1);
	close(original_dir);
	return code;
}

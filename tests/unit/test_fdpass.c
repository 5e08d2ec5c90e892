/* test_fdpass.c - handing descriptors over (common/base/fdpass.h): the good way, and everything a peer may do instead. */
#include "common/base/fdpass.h"

#include <fcntl.h>
#include <pthread.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/unit.h"

struct server {
	int listen_fd;
	int fd; /* handed over; -1: the peer gets raw bytes instead */
	const char *raw;
	enum db_err result;
};

static void socket_path(char out[UNIT_PATH_MAX + 16])
{
	char dir[UNIT_PATH_MAX];

	unit_tmpdir(dir);
	snprintf(out, UNIT_PATH_MAX + 16, "%s/n.fd", dir);
}

static void *serve_one(void *arg)
{
	struct server *s = arg;
	struct pollfd pfd = {.fd = s->listen_fd, .events = POLLIN};
	struct errmsg em = {0};
	int fd;

	poll(&pfd, 1, 5000);
	if (s->fd >= 0) {
		s->result = fdpass_accept_and_send(s->listen_fd, s->fd, &em);
		return NULL;
	}
	fd = accept(s->listen_fd, NULL, NULL);
	if (fd >= 0 && s->raw[0] != '\0' && write(fd, s->raw, strlen(s->raw)) < 0)
		s->result = DB_IO;
	if (fd >= 0)
		close(fd);
	return NULL;
}

static void a_descriptor_arrives_and_is_the_same_file(void)
{
	char path[UNIT_PATH_MAX + 16];
	struct server s = {0};
	struct errmsg em = {0};
	pthread_t thread;
	char byte = 0;
	int ends[2];
	int got;
	int i;

	socket_path(path);
	CU_ASSERT_FATAL(pipe(ends) == 0);
	UNIT_OK(fdpass_listen(path, &s.listen_fd, &em), &em);
	s.fd = ends[0];
	for (i = 0; i < 3; i++) { /* the same socket serves again and again */
		CU_ASSERT_FATAL(pthread_create(&thread, NULL, serve_one, &s) == 0);
		UNIT_OK(fdpass_fetch(path, &got, 5000, &em), &em);
		pthread_join(thread, NULL);
		CU_ASSERT_EQUAL(s.result, DB_OK);
		CU_ASSERT(got >= 0 && got != ends[0]);
		CU_ASSERT(fcntl(got, F_GETFD) & FD_CLOEXEC);
		CU_ASSERT(write(ends[1], "x", 1) == 1 && read(got, &byte, 1) == 1 && byte == 'x');
		close(got);
	}
	close(ends[0]);
	close(ends[1]);
	close(s.listen_fd);
}

static void a_stale_socket_is_replaced(void)
{
	char path[UNIT_PATH_MAX + 16];
	struct errmsg em = {0};
	int first, second;
	int fd;

	socket_path(path);
	UNIT_OK(fdpass_listen(path, &first, &em), &em);
	close(first); /* as a killed process does: the file stays */
	CU_ASSERT_EQUAL(fdpass_fetch(path, &fd, 100, &em), DB_UNAVAILABLE);
	CU_ASSERT_EQUAL(fd, -1);
	UNIT_OK(fdpass_listen(path, &second, &em), &em);
	close(second);
}

static void nobody_there_is_told_apart(void)
{
	char path[UNIT_PATH_MAX + 16];
	char long_path[200];
	struct errmsg em = {0};
	pid_t pid;
	int fd;

	socket_path(path);
	CU_ASSERT_EQUAL(fdpass_fetch(path, &fd, 100, &em), DB_NOTFOUND);
	CU_ASSERT_EQUAL(fdpass_owner(path, &pid, &em), DB_NOTFOUND);
	memset(long_path, 'x', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = '\0';
	CU_ASSERT_EQUAL(fdpass_listen(long_path, &fd, &em), DB_INVALID);
	CU_ASSERT_EQUAL(fdpass_fetch(long_path, &fd, 100, &em), DB_INVALID);
}

static void a_silent_owner_times_out_but_is_known(void)
{
	char path[UNIT_PATH_MAX + 16];
	struct errmsg em = {0};
	pid_t pid = 0;
	int listen_fd;
	int fd;

	socket_path(path);
	UNIT_OK(fdpass_listen(path, &listen_fd, &em), &em);
	CU_ASSERT_EQUAL(fdpass_accept_and_send(listen_fd, 0, &em), DB_NOTFOUND);
	CU_ASSERT_EQUAL(fdpass_fetch(path, &fd, 30, &em), DB_TIMEOUT);
	UNIT_OK(fdpass_owner(path, &pid, &em), &em);
	CU_ASSERT_EQUAL(pid, getpid());
	close(listen_fd);
}

static void answers_without_a_descriptor_are_refused(void)
{
	static const char *const raws[] = {"", "F", "XXXXXXXXXXXX"};
	char path[UNIT_PATH_MAX + 16];
	struct server s = {.fd = -1};
	struct errmsg em = {0};
	pthread_t thread;
	size_t i;
	int fd;

	socket_path(path);
	UNIT_OK(fdpass_listen(path, &s.listen_fd, &em), &em);
	for (i = 0; i < sizeof(raws) / sizeof(raws[0]); i++) {
		s.raw = raws[i];
		CU_ASSERT_FATAL(pthread_create(&thread, NULL, serve_one, &s) == 0);
		CU_ASSERT_EQUAL(fdpass_fetch(path, &fd, 5000, &em), DB_INVALID);
		CU_ASSERT_EQUAL(fd, -1);
		pthread_join(thread, NULL);
	}
	close(s.listen_fd);
}

static void a_peer_that_left_does_no_harm(void)
{
	char path[UNIT_PATH_MAX + 16];
	struct errmsg em = {0};
	enum db_err err;
	int listen_fd;
	pid_t pid;

	socket_path(path);
	UNIT_OK(fdpass_listen(path, &listen_fd, &em), &em);
	UNIT_OK(fdpass_owner(path, &pid, &em), &em); /* connects and leaves */
	err = fdpass_accept_and_send(listen_fd, listen_fd, &em);
	CU_ASSERT(err == DB_OK || err == DB_IO);
	CU_ASSERT_EQUAL(fdpass_accept_and_send(listen_fd, listen_fd, &em), DB_NOTFOUND);
	close(listen_fd);
}

static const struct unit_test tests[] = {
    {"a_descriptor_arrives_and_is_the_same_file", a_descriptor_arrives_and_is_the_same_file},
    {"a_stale_socket_is_replaced", a_stale_socket_is_replaced},
    {"nobody_there_is_told_apart", nobody_there_is_told_apart},
    {"a_silent_owner_times_out_but_is_known", a_silent_owner_times_out_but_is_known},
    {"answers_without_a_descriptor_are_refused", answers_without_a_descriptor_are_refused},
    {"a_peer_that_left_does_no_harm", a_peer_that_left_does_no_harm},
    {NULL, NULL},
};

int main(void)
{
	return unit_run("fdpass", tests);
}

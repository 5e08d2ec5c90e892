/*
 * test_supervisor.c - grizzly-supervisor as a program, with real processes around it (tests/unit/fake_node.h).
 *
 * This program is everything by turns: the tests, and, copied to the names grizzly-supervisor, grizzly-master and
 * grizzly-replica in a directory of its own, the supervisor and its nodes. Each test has a data directory and a port.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "supervisor/commands.h"
#include "supervisor/coordinator.h"
#include "supervisor/datadir.h"
#include "supervisor/launcher.h"
#include "supervisor/progress.h"
#include "supervisor/roster.h"
#include "tests/unit/fake_node.h"
#include "tests/unit/unit.h"

#define PATIENCE_MS 20000u
#define OUTPUT_MAX  16384

struct site {
	char bin[UNIT_PATH_MAX];
	char data[UNIT_PATH_MAX + 8];
	char port[8];
	char out[OUTPUT_MAX]; /* of the last command: stdout and stderr */
};

static void copy_self(const char *dir, const char *name)
{
	char command[UNIT_PATH_MAX + 128];

	snprintf(command, sizeof(command), "cp /proc/%d/exe '%s/%s'", (int)getpid(), dir, name);
	CU_ASSERT_FATAL(system(command) == 0);
}

static unsigned free_port(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	CU_ASSERT_FATAL(fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0);
	CU_ASSERT_FATAL(getsockname(fd, (struct sockaddr *)&addr, &len) == 0);
	close(fd);
	return ntohs(addr.sin_port);
}

static void site_init(struct site *s)
{
	char dir[UNIT_PATH_MAX];

	memset(s, 0, sizeof(*s));
	unit_tmpdir(s->bin);
	unit_tmpdir(dir);
	snprintf(s->data, sizeof(s->data), "%s/d", dir);
	snprintf(s->port, sizeof(s->port), "%u", free_port() % 20000 + 20000);
	copy_self(s->bin, "grizzly-supervisor");
	copy_self(s->bin, "grizzly-master");
	copy_self(s->bin, "grizzly-replica");
}

/* Runs grizzly-supervisor with these arguments (up to NULL) and returns its exit code; s->out is what it said. */
static int run(struct site *s, ...)
{
	char program[UNIT_PATH_MAX + 32];
	char *args[16] = {program};
	size_t used = 0;
	size_t count = 1;
	int ends[2];
	int status;
	va_list ap;
	ssize_t n;
	pid_t pid;

	snprintf(program, sizeof(program), "%s/grizzly-supervisor", s->bin);
	va_start(ap, s);
	while (count < 15 && (args[count] = va_arg(ap, char *)) != NULL)
		count++;
	va_end(ap);
	CU_ASSERT_FATAL(pipe2(ends, O_CLOEXEC) == 0);
	pid = fork();
	if (pid == 0) {
		dup2(ends[1], STDOUT_FILENO);
		dup2(ends[1], STDERR_FILENO);
		execv(program, args);
		_exit(127);
	}
	close(ends[1]);
	while ((n = read(ends[0], s->out + used, sizeof(s->out) - 1 - used)) > 0)
		used += (size_t)n;
	s->out[used] = '\0';
	close(ends[0]);
	CU_ASSERT_FATAL(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int start(struct site *s)
{
	return run(s, "run", "--data-dir", s->data, "--http-port", s->port, "--daemon", NULL);
}

static json_t *status(struct site *s)
{
	json_error_t reason;

	return run(s, "status", "--data-dir", s->data, "--json", NULL) == 0 ? json_loads(s->out, 0, &reason) : NULL;
}

static json_int_t number_of(json_t *json, const char *key)
{
	return json_integer_value(json_object_get(json, key));
}

static void master_of(json_t *json, char out[16])
{
	const char *id = json_string_value(json_object_get(json, "master"));

	snprintf(out, 16, "%s", id == NULL ? "" : id);
}

/* Waits until there is a master other than `not` and every node is up; its id in out. */
static void await_master(struct site *s, const char * not, char out[16])
{
	uint64_t deadline_ms = clock_mono_ms() + PATIENCE_MS;
	json_t *json;
	size_t up;
	size_t i;

	do {
		out[0] = '\0';
		up = 0;
		json = status(s);
		if (json != NULL) {
			json_t *nodes = json_object_get(json, "nodes");

			master_of(json, out);
			for (i = 0; i < json_array_size(nodes); i++)
				up += strcmp(json_string_value(json_object_get(json_array_get(nodes, i), "state")),
					     "up") == 0;
			json_decref(json);
		}
		if (out[0] != '\0' && strcmp(out, not ) != 0 && up == 3)
			return;
		poll(NULL, 0, 10);
	} while (clock_mono_ms() < deadline_ms);
	printf("%s\n", s->out);
	CU_FAIL_FATAL("no master in time");
}

static json_int_t node_number(struct site *s, const char *id, const char *key)
{
	json_t *json = status(s);
	json_int_t v = 0;
	size_t i;

	for (i = 0; i < json_array_size(json_object_get(json, "nodes")); i++) {
		json_t *node = json_array_get(json_object_get(json, "nodes"), i);

		if (strcmp(json_string_value(json_object_get(node, "id")), id) == 0)
			v = number_of(node, key);
	}
	json_decref(json);
	return v;
}

static pid_t pid_of(struct site *s, const char *id)
{
	return (pid_t)node_number(s, id, "pid");
}

static json_int_t restarts_of(struct site *s, const char *id)
{
	return node_number(s, id, "restarts");
}

static void await_restart(struct site *s, const char *id, pid_t old)
{
	uint64_t deadline_ms = clock_mono_ms() + PATIENCE_MS;

	while (clock_mono_ms() < deadline_ms && (pid_of(s, id) == old || pid_of(s, id) == 0))
		poll(NULL, 0, 10);
	CU_ASSERT(pid_of(s, id) != old);
}

/* What the endpoint says: "<id> <term>\n". */
static void ask_endpoint(const struct site *s, char out[64])
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct timeval patience = {PATIENCE_MS / 1000, 0};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	ssize_t n = -1;

	addr.sin_port = htons((uint16_t)atoi(s->port));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		n = recv(fd, out, 63, 0);
	close(fd);
	out[n > 0 ? n : 0] = '\0';
	CU_ASSERT(n > 0);
}

static pid_t supervisor_pid(struct site *s)
{
	json_t *json = status(s);
	pid_t pid = (pid_t)number_of(json, "supervisor_pid");

	json_decref(json);
	return pid;
}

static void kill_and_wait(pid_t pid)
{
	struct process p;
	struct errmsg em = {0};
	struct pollfd pfd = {.events = POLLIN};

	CU_ASSERT_FATAL(pid > 0);
	UNIT_OK(process_adopt(&p, pid, 0, &em), &em);
	pfd.fd = p.pidfd;
	UNIT_OK(process_signal(&p, SIGKILL, &em), &em);
	CU_ASSERT(poll(&pfd, 1, (int)PATIENCE_MS) == 1);
	process_close(&p);
}

/* A sanitizer's report in a log file is a failure too. */
static void check_logs(const struct site *s)
{
	static const char *const names[] = {"supervisor", "node1", "node2", "node3"};
	char path[UNIT_PATH_MAX + 64];
	char line[1024];
	size_t i;
	FILE *f;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/log/%s.log", s->data, names[i]);
		f = fopen(path, "re");
		CU_ASSERT_FATAL(f != NULL);
		while (fgets(line, sizeof(line), f) != NULL) {
			if (strstr(line, "Sanitizer") == NULL && strstr(line, "runtime error") == NULL &&
			    strstr(line, "Assertion") == NULL)
				continue;
			printf("%s: %s", names[i], line);
			CU_FAIL("a process complained in its log");
		}
		fclose(f);
	}
}

static void stop(struct site *s)
{
	CU_ASSERT_EQUAL(run(s, "stop", "--data-dir", s->data, NULL), 0);
	CU_ASSERT_EQUAL(run(s, "status", "--data-dir", s->data, NULL), 3);
	CU_ASSERT(strstr(s->out, "grizzly-supervisor run") != NULL);
	check_logs(s);
}

/* ---- the tests */

static void a_cluster_starts_serves_and_stops(void)
{
	struct site s;
	char master[16];
	char answer[64];
	char path[UNIT_PATH_MAX + 32];
	struct stat st;

	site_init(&s);
	CU_ASSERT_EQUAL(start(&s), 0);
	await_master(&s, "", master);
	CU_ASSERT_STRING_EQUAL(master, "node1");
	ask_endpoint(&s, answer);
	CU_ASSERT_STRING_EQUAL(answer, "node1 1\n");
	CU_ASSERT_EQUAL(start(&s), 0);
	CU_ASSERT(strstr(s.out, "already running, pid ") != NULL);
	snprintf(path, sizeof(path), "%s/token", s.data);
	CU_ASSERT(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
	snprintf(path, sizeof(path), "%s/run", s.data);
	CU_ASSERT(stat(path, &st) == 0 && (st.st_mode & 0777) == 0700);
	CU_ASSERT_EQUAL(run(&s, "status", "--data-dir", s.data, NULL), 0);
	CU_ASSERT(strstr(s.out, "ID ") != NULL && strstr(s.out, "RESTARTS") != NULL);
	stop(&s);
	CU_ASSERT_EQUAL(run(&s, "stop", "--data-dir", s.data, NULL), 0);
	CU_ASSERT_EQUAL(start(&s), 0); /* everything is started as replicas and elects */
	await_master(&s, "", master);
	ask_endpoint(&s, answer);
	CU_ASSERT(strstr(answer, " 2\n") != NULL);
	stop(&s);
}

static void a_killed_master_is_succeeded_and_comes_back(void)
{
	struct site s;
	char first[16];
	char second[16];
	char answer[64];
	uint64_t began_us;
	json_t *json;

	site_init(&s);
	CU_ASSERT_EQUAL(start(&s), 0);
	await_master(&s, "", first);
	kill(pid_of(&s, first), SIGKILL);
	began_us = clock_mono_us();
	ask_endpoint(&s, answer); /* waits in the backlog, is not refused */
	printf("(%.1f ms) ", (double)(clock_mono_us() - began_us) / 1000.0);
	CU_ASSERT(strncmp(answer, first, strlen(first)) != 0);
	await_master(&s, first, second);
	json = status(&s);
	CU_ASSERT_EQUAL(number_of(json, "failovers"), 1);
	CU_ASSERT_EQUAL(number_of(json, "term"), 2);
	json_decref(json);
	stop(&s);
}

static void a_stopped_master_is_fenced_and_succeeded(void)
{
	struct site s;
	char first[16];
	char second[16];
	pid_t pid;

	site_init(&s);
	CU_ASSERT_EQUAL(start(&s), 0);
	await_master(&s, "", first);
	pid = pid_of(&s, first);
	kill(pid, SIGSTOP);
	await_master(&s, first, second);
	CU_ASSERT(kill(pid, 0) != 0 || pid_of(&s, first) != pid);
	stop(&s);
}

static void a_killed_supervisor_is_succeeded_without_a_restart(void)
{
	struct site s;
	char first[16];
	char again[16];
	char answer[64];
	pid_t pids[3];
	pid_t old;

	site_init(&s);
	CU_ASSERT_EQUAL(start(&s), 0);
	await_master(&s, "", first);
	pids[0] = pid_of(&s, "node1");
	pids[1] = pid_of(&s, "node2");
	pids[2] = pid_of(&s, "node3");
	old = supervisor_pid(&s);
	kill(pids[1], SIGKILL);
	await_restart(&s, "node2", pids[1]);
	await_master(&s, "", first);
	pids[1] = pid_of(&s, "node2");
	poll(NULL, 0, 100);
	kill_and_wait(old);
	ask_endpoint(&s, answer); /* still served */
	CU_ASSERT_EQUAL(run(&s, "status", "--data-dir", s.data, NULL), 3);
	kill(pids[2], SIGKILL); /* nobody is there to see it */
	CU_ASSERT_EQUAL(start(&s), 0);
	await_master(&s, "", again);
	CU_ASSERT_STRING_EQUAL(first, again);
	CU_ASSERT_EQUAL(pid_of(&s, "node1"), pids[0]);
	CU_ASSERT_EQUAL(pid_of(&s, "node2"), pids[1]);
	CU_ASSERT(pid_of(&s, "node3") != pids[2]);
	CU_ASSERT(restarts_of(&s, "node1") == 0 && restarts_of(&s, "node2") == 1 && restarts_of(&s, "node3") == 1);
	kill(pids[0], SIGKILL); /* adopted nodes are watched too, and the endpoint was taken over */
	ask_endpoint(&s, answer);
	CU_ASSERT(strncmp(answer, "node1", 5) != 0);
	await_master(&s, first, again);
	stop(&s);
}

static void stop_ends_nodes_that_lost_their_supervisor(void)
{
	struct site s;
	char master[16];
	pid_t pid;

	site_init(&s);
	CU_ASSERT_EQUAL(start(&s), 0);
	await_master(&s, "", master);
	pid = pid_of(&s, "node2");
	poll(NULL, 0, 100);
	kill_and_wait(supervisor_pid(&s));
	CU_ASSERT_EQUAL(run(&s, "stop", "--data-dir", s.data, NULL), 0);
	CU_ASSERT(strstr(s.out, "stopped 3 nodes") != NULL);
	CU_ASSERT(process_adopt(&(struct process){0}, pid, 0, NULL) == DB_NOTFOUND);
}

static void stop_ends_everything_when_the_supervisor_does_not_answer(void)
{
	struct site s;
	char master[16];
	pid_t supervisor, node;

	site_init(&s);
	CU_ASSERT_EQUAL(start(&s), 0);
	await_master(&s, "", master);
	supervisor = supervisor_pid(&s);
	node = pid_of(&s, "node2");
	poll(NULL, 0, 100);
	kill(supervisor, SIGSTOP);
	CU_ASSERT_EQUAL(run(&s, "stop", "--data-dir", s.data, NULL), 0);
	CU_ASSERT(strstr(s.out, "does not answer: it is killed") != NULL);
	CU_ASSERT(process_adopt(&(struct process){0}, supervisor, 0, NULL) == DB_NOTFOUND);
	CU_ASSERT(process_adopt(&(struct process){0}, node, 0, NULL) == DB_NOTFOUND);
	CU_ASSERT_EQUAL(run(&s, "stop", "--data-dir", s.data, NULL), 0);
	CU_ASSERT(strstr(s.out, "nothing runs") != NULL);
}

static void write_text(const char *dir, const char *name, const char *text)
{
	char path[2 * UNIT_PATH_MAX];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "we");
	CU_ASSERT_FATAL(f != NULL);
	fputs(text, f);
	fclose(f);
}

static bool log_says(const struct site *s, const char *what)
{
	char command[3 * UNIT_PATH_MAX];

	snprintf(command, sizeof(command), "grep -q '%s' '%s/log/supervisor.log'", what, s->data);
	return system(command) == 0;
}

static void a_master_that_is_slow_but_works_is_kept(void)
{
	uint64_t deadline_ms = clock_mono_ms() + PATIENCE_MS;
	char path[UNIT_PATH_MAX + 32];
	char master[16];
	struct site s;
	json_t *json;

	site_init(&s);
	CU_ASSERT_EQUAL(start(&s), 0);
	await_master(&s, "", master);
	write_text(s.data, "node1/slow", "");
	while (clock_mono_ms() < deadline_ms && !log_says(&s, "but its process works"))
		poll(NULL, 0, 20);
	snprintf(path, sizeof(path), "%s/node1/slow", s.data);
	CU_ASSERT(unlink(path) == 0);
	while (clock_mono_ms() < deadline_ms && node_number(&s, "node1", "heartbeat_age_ms") > 150)
		poll(NULL, 0, 20);
	CU_ASSERT(log_says(&s, "but its process works"));
	json = status(&s);
	CU_ASSERT(number_of(json, "term") == 1 && number_of(json, "failovers") == 0);
	json_decref(json);
	CU_ASSERT_EQUAL(restarts_of(&s, "node1"), 0);
	stop(&s);
}

static void another_number_of_replicas_is_refused(void)
{
	char text[256];
	char command[3 * UNIT_PATH_MAX];
	char master[16];
	struct site s;

	site_init(&s);
	CU_ASSERT_EQUAL(start(&s), 0);
	await_master(&s, "", master);
	stop(&s);
	snprintf(text, sizeof(text),
		 "{\"cluster\": \"00112233445566778899aabbccddeeff\", \"replicas\": 4, \"http_port\": %s}", s.port);
	write_text(s.data, "cluster.json", text);
	CU_ASSERT_EQUAL(run(&s, "run", "--data-dir", s.data, "--daemon", NULL), 2);
	CU_ASSERT(strstr(s.out, "\"replicas\"") != NULL && strstr(s.out, "3 nodes") != NULL);
	snprintf(command, sizeof(command), "rm -r '%s/run'", s.data);
	CU_ASSERT_FATAL(system(command) == 0);
	CU_ASSERT_EQUAL(run(&s, "run", "--data-dir", s.data, "--daemon", NULL), 2);
	snprintf(command, sizeof(command), "rm -r '%s/run' '%s/supervisor.term'", s.data, s.data);
	CU_ASSERT_FATAL(system(command) == 0);
	snprintf(text, sizeof(text),
		 "{\"cluster\": \"00112233445566778899aabbccddeeff\", \"replicas\": 1, \"http_port\": %s}", s.port);
	write_text(s.data, "cluster.json", text);
	CU_ASSERT_EQUAL(run(&s, "run", "--data-dir", s.data, "--daemon", NULL), 2); /* by the directories */
	CU_ASSERT(strstr(s.out, "set \"replicas\" to 2") != NULL);
}

static void a_switchover_moves_the_master(void)
{
	struct site s;
	char master[16];

	site_init(&s);
	CU_ASSERT_EQUAL(start(&s), 0);
	await_master(&s, "", master);
	CU_ASSERT_EQUAL(run(&s, "switchover", "--data-dir", s.data, "--to", "node3", NULL), 0);
	await_master(&s, "node1", master);
	CU_ASSERT_STRING_EQUAL(master, "node3");
	CU_ASSERT_EQUAL(run(&s, "switchover", "--data-dir", s.data, "--to", "node3", NULL), 0);
	CU_ASSERT(strstr(s.out, "already the master") != NULL);
	CU_ASSERT_EQUAL(run(&s, "switchover", "--data-dir", s.data, "--to", "node9", NULL), 2);
	CU_ASSERT_EQUAL(run(&s, "switchover", "--data-dir", s.data, NULL), 0);
	await_master(&s, "node3", master);
	stop(&s);
	CU_ASSERT_EQUAL(run(&s, "switchover", "--data-dir", s.data, NULL), 3);
}

static void wrong_starts_say_what_is_wrong(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct site s;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	site_init(&s);
	addr.sin_port = htons((uint16_t)atoi(s.port));
	CU_ASSERT_FATAL(bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 && listen(fd, 1) == 0);
	CU_ASSERT_EQUAL(start(&s), 1);
	CU_ASSERT(strstr(s.out, "http_port") != NULL && strstr(s.out, s.port) != NULL);
	close(fd);
	CU_ASSERT_EQUAL(run(&s, "run", "--data-dir", s.data, "--http-port", "1234", "--daemon", NULL), 2);
	CU_ASSERT(strstr(s.out, "http_port") != NULL);
	CU_ASSERT_EQUAL(run(&s, "run", "--data-dir", s.data, "--replicas", "4", "--daemon", NULL), 2);
	CU_ASSERT(strstr(s.out, "replicas") != NULL);
	CU_ASSERT_EQUAL(run(&s, "run", "--data-dir", s.data, "--replicas", "99", NULL), 2);
	CU_ASSERT_EQUAL(run(&s, "run", "--data-dir", s.data, "--nonsense", NULL), 2);
	CU_ASSERT_EQUAL(run(&s, "run", NULL), 2);
	CU_ASSERT_EQUAL(run(&s, "dance", NULL), 2);
	CU_ASSERT_EQUAL(run(&s, NULL), 2);
	CU_ASSERT_EQUAL(run(&s, "--help", NULL), 0);
	CU_ASSERT_EQUAL(run(&s, "run", "--help", NULL), 0);
	CU_ASSERT_EQUAL(run(&s, "--version", NULL), 0);
	CU_ASSERT_EQUAL(run(&s, "status", "--data-dir", "/nonexistent/x", NULL), 3);
}

static void the_term_file_keeps_what_was_stored(void)
{
	char dir[UNIT_PATH_MAX];
	char path[UNIT_PATH_MAX + 16];
	struct coordinator k;
	struct errmsg em = {0};
	struct coordinator_state state = {.term = 7, .failovers = 3, .nodes = 3};
	uint8_t old[16] = {[0] = 9, [8] = 5}; /* of before nodes were recorded */

	unit_tmpdir(dir);
	snprintf(path, sizeof(path), "%s/t", dir);
	UNIT_OK(coordinator_open(&k, path, &state, &em), &em);
	CU_ASSERT(state.term == 0 && state.failovers == 0 && state.nodes == 0);
	state = (struct coordinator_state){.term = 7, .failovers = 3, .nodes = 3};
	UNIT_OK(coordinator_store(&k, &state, &em), &em);
	state = (struct coordinator_state){.term = 8, .failovers = 4, .nodes = 5};
	UNIT_OK(coordinator_store(&k, &state, &em), &em);
	coordinator_close(&k);
	UNIT_OK(coordinator_open(&k, path, &state, &em), &em);
	CU_ASSERT(state.term == 8 && state.failovers == 4 && state.nodes == 5);
	UNIT_OK(slotfile_write(&k.file, old, sizeof(old), &em), &em);
	coordinator_close(&k);
	UNIT_OK(coordinator_open(&k, path, &state, &em), &em);
	CU_ASSERT(state.term == 9 && state.failovers == 5 && state.nodes == 0);
	UNIT_OK(slotfile_write(&k.file, old, 15, &em), &em);
	coordinator_close(&k);
	CU_ASSERT_EQUAL(coordinator_open(&k, path, &state, &em), DB_CORRUPT);
}

static bool works(pid_t pid, int wait_ms)
{
	struct progress_sample before, after;

	progress_take(&before, pid);
	poll(NULL, 0, wait_ms);
	progress_take(&after, pid);
	after.own_waits = false; /* this machine's load is not the question */
	after.own_wait_ns = before.own_wait_ns;
	return progress_made(&before, &after);
}

static void a_process_that_works_is_told_from_one_that_stands_still(void)
{
	struct progress_sample a = {
	    .taken = true, .first_state = 'D', .run_ns = 5, .first_run_ns = 2, .taken_ns = 1000};
	struct progress_sample b = a;
	pid_t idle = fork();
	pid_t busy;

	if (idle == 0)
		for (;;)
			pause();
	busy = fork();
	if (busy == 0)
		for (;;)
			;
	poll(NULL, 0, 20);
	CU_ASSERT(!works(idle, 30));
	CU_ASSERT(works(busy, 30));
	kill(busy, SIGSTOP);
	CU_ASSERT(waitpid(busy, NULL, WUNTRACED) == busy);
	CU_ASSERT(!works(busy, 5));
	kill(busy, SIGCONT);
	CU_ASSERT(works(busy, 30));
	kill(busy, SIGKILL);
	kill(idle, SIGKILL);
	CU_ASSERT(waitpid(busy, NULL, 0) == busy && waitpid(idle, NULL, 0) == idle);
	CU_ASSERT(!works(busy, 1)); /* gone */
	b.run_ns = 6;
	CU_ASSERT(!progress_made(&a, &b)); /* its first thread waits for a disk all the time */
	b.first_run_ns = 3;
	CU_ASSERT(progress_made(&a, &b));
	a.first_state = b.first_state = 'S';
	b.run_ns = a.run_ns;
	CU_ASSERT(!progress_made(&a, &b));
	b.runnable = true;
	CU_ASSERT(progress_made(&a, &b)); /* starved */
	b.runnable = false;
	b.taken_ns = 2000;
	b.own_wait_ns = 300;
	CU_ASSERT(progress_made(&a, &b)); /* we were */
	b.first_state = 'T';
	b.runnable = true;
	CU_ASSERT(!progress_made(&a, &b));
}

static void a_roster_survives_the_file_and_damage_is_refused(void)
{
	static const char *const damaged[] = {"",
					      "{",
					      "{}",
					      "[]",
					      "{\"boot_id\":1,\"nodes\":[]}",
					      "{\"boot_id\":\"b\",\"supervisor_pid\":1,\"term\":1,\"nodes\":[{}]}"};
	char dir[UNIT_PATH_MAX];
	char path[UNIT_PATH_MAX + 16];
	struct roster r = {.boot_id = "b", .supervisor_pid = 5, .term = 2, .node_count = 2};
	struct roster got;
	struct errmsg em = {0};
	size_t i;
	FILE *f;

	unit_tmpdir(dir);
	snprintf(path, sizeof(path), "%s/r", dir);
	CU_ASSERT_EQUAL(roster_load(&got, path, &em), DB_NOTFOUND);
	r.nodes[1] = (struct roster_node){.pid = 77, .start_ticks = 123456789, .answered = true};
	UNIT_OK(roster_store(&r, path, &em), &em);
	UNIT_OK(roster_load(&got, path, &em), &em);
	CU_ASSERT(got.node_count == 2 && got.nodes[1].pid == 77 && got.nodes[1].start_ticks == 123456789);
	CU_ASSERT(got.nodes[1].answered && !got.nodes[0].answered && strcmp(got.boot_id, "b") == 0);
	for (i = 0; i < sizeof(damaged) / sizeof(damaged[0]); i++) {
		f = fopen(path, "we");
		CU_ASSERT_FATAL(f != NULL);
		fputs(damaged[i], f);
		fclose(f);
		CU_ASSERT_EQUAL(roster_load(&got, path, &em), DB_INVALID);
		CU_ASSERT_EQUAL(got.node_count, 0);
	}
}

static void processes_are_told_from_strangers(void)
{
	char dir[UNIT_PATH_MAX];
	char log[UNIT_PATH_MAX + 8];
	struct launch l = {.program = "/bin/sleep", .args = {"sleep", "60"}, .log_path = log, .listen_fd = -1};
	struct process p, other;
	struct errmsg em = {0};
	struct pollfd pfd = {.events = POLLIN};
	char found[PATH_MAX];
	int code, signal_number;

	unit_tmpdir(dir);
	snprintf(log, sizeof(log), "%s/log", dir);
	UNIT_OK(launcher_spawn(&l, &p, &em), &em);
	CU_ASSERT(!process_gone(&p));
	CU_ASSERT_EQUAL(process_adopt(&other, p.pid, p.start_ticks + 1, &em), DB_NOTFOUND);
	UNIT_OK(process_adopt(&other, p.pid, p.start_ticks, &em), &em);
	UNIT_OK(process_signal(&other, SIGKILL, &em), &em);
	pfd.fd = p.pidfd;
	CU_ASSERT_EQUAL(poll(&pfd, 1, (int)PATIENCE_MS), 1);
	process_close(&other);
	CU_ASSERT_EQUAL(process_adopt(&other, p.pid, p.start_ticks, &em), DB_NOTFOUND); /* a zombie */
	process_collect(&p, &code, &signal_number);
	CU_ASSERT(code == -1 && signal_number == SIGKILL);
	UNIT_OK(process_signal(&p, SIGKILL, &em), &em); /* gone: nothing to do, and no stranger is hit */
	process_close(&p);
	l.program = "/nonexistent/program";
	CU_ASSERT_EQUAL(launcher_spawn(&l, &p, &em), DB_NOTFOUND);
	CU_ASSERT_EQUAL(p.pidfd, -1);
	CU_ASSERT_EQUAL(launcher_find(found, "grizzly-no-such-program", &em), DB_NOTFOUND);
}

/* Ends the process when the other end of the pipe is closed. */
static void *outlive(void *arg)
{
	char byte;

	_exit(read(*(const int *)arg, &byte, 1) == 0 ? 7 : 8);
}

/* Two threads, of which the first ends at once. */
static pid_t fork_headless(int ends[2])
{
	pid_t pid;

	CU_ASSERT_FATAL(pipe2(ends, O_CLOEXEC) == 0);
	pid = fork();
	if (pid == 0) {
		pthread_t thread;

		close(ends[1]);
		if (pthread_create(&thread, NULL, outlive, &ends[0]) != 0)
			_exit(9);
		pthread_exit(NULL);
	}
	CU_ASSERT_FATAL(pid > 0);
	close(ends[0]);
	return pid;
}

/* It is a zombie by /proc, and keeps its files and ports: killed processes with many threads look so for a moment. */
static void a_process_is_there_until_its_last_thread_has_ended(void)
{
	uint64_t give_up_ms = clock_mono_ms() + PATIENCE_MS;
	struct progress_sample sample;
	struct process p;
	struct errmsg em = {0};
	struct pollfd pfd = {.events = POLLIN};
	int ends[2], code, signal_number;
	pid_t pid = fork_headless(ends);

	do
		progress_take(&sample, pid);
	while (sample.first_state != 'Z' && clock_mono_ms() < give_up_ms);
	CU_ASSERT_EQUAL(sample.first_state, 'Z');
	UNIT_OK(process_adopt(&p, pid, 0, &em), &em);
	CU_ASSERT(!process_gone(&p));
	close(ends[1]);
	pfd.fd = p.pidfd;
	CU_ASSERT_EQUAL(poll(&pfd, 1, (int)PATIENCE_MS), 1);
	process_collect(&p, &code, &signal_number);
	CU_ASSERT(code == 7 && signal_number == 0);
	process_close(&p);
}

/* Takes the lock, starts a process that has it too until a moment after the pipe's other end was closed, and ends. */
static void leave_the_lock_to_an_heir(int pipe_fd)
{
	pid_t holder;
	char byte;
	int lock_fd;

	if (datadir_lock(&lock_fd, &holder, NULL) != DB_OK)
		_exit(1);
	if (fork() == 0 && read(pipe_fd, &byte, 1) == 0)
		poll(NULL, 0, 100);
	_exit(0);
}

static void the_lock_of_a_dead_supervisor_is_waited_for(void)
{
	int ends[2], lock_fd, second_fd, back = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), status = 1;
	char dir[UNIT_PATH_MAX];
	struct errmsg em = {0};
	pid_t holder, child;

	unit_tmpdir(dir);
	CU_ASSERT_FATAL(back >= 0 && chdir(dir) == 0 && pipe2(ends, O_CLOEXEC) == 0);
	UNIT_OK(datadir_prepare(&em), &em);
	child = fork();
	if (child == 0) {
		close(ends[1]);
		leave_the_lock_to_an_heir(ends[0]);
	}
	CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
	CU_ASSERT_EQUAL(status, 0);
	close(ends[0]);
	close(ends[1]);
	UNIT_OK(datadir_lock(&lock_fd, &holder, &em), &em);
	CU_ASSERT_EQUAL(datadir_lock(&second_fd, &holder, &em), DB_BUSY); /* of a living one: at once */
	CU_ASSERT_EQUAL(holder, getpid());
	close(lock_fd);
	CU_ASSERT_FATAL(fchdir(back) == 0);
	close(back);
}

static const struct unit_test tests[] = {
    {"the_term_file_keeps_what_was_stored", the_term_file_keeps_what_was_stored},
    {"a_roster_survives_the_file_and_damage_is_refused", a_roster_survives_the_file_and_damage_is_refused},
    {"processes_are_told_from_strangers", processes_are_told_from_strangers},
    {"the_lock_of_a_dead_supervisor_is_waited_for", the_lock_of_a_dead_supervisor_is_waited_for},
    {"a_process_is_there_until_its_last_thread_has_ended", a_process_is_there_until_its_last_thread_has_ended},
    {"a_cluster_starts_serves_and_stops", a_cluster_starts_serves_and_stops},
    {"a_killed_master_is_succeeded_and_comes_back", a_killed_master_is_succeeded_and_comes_back},
    {"a_stopped_master_is_fenced_and_succeeded", a_stopped_master_is_fenced_and_succeeded},
    {"a_killed_supervisor_is_succeeded_without_a_restart", a_killed_supervisor_is_succeeded_without_a_restart},
    {"stop_ends_nodes_that_lost_their_supervisor", stop_ends_nodes_that_lost_their_supervisor},
    {"stop_ends_everything_when_the_supervisor_does_not_answer",
     stop_ends_everything_when_the_supervisor_does_not_answer},
    {"a_master_that_is_slow_but_works_is_kept", a_master_that_is_slow_but_works_is_kept},
    {"another_number_of_replicas_is_refused", another_number_of_replicas_is_refused},
    {"a_process_that_works_is_told_from_one_that_stands_still",
     a_process_that_works_is_told_from_one_that_stands_still},
    {"a_switchover_moves_the_master", a_switchover_moves_the_master},
    {"wrong_starts_say_what_is_wrong", wrong_starts_say_what_is_wrong},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
	const char *name = basename(argv[0]);

	if (strcmp(name, "grizzly-supervisor") == 0)
		return command_line(argc, argv);
	if (strcmp(name, "grizzly-master") == 0 || strcmp(name, "grizzly-replica") == 0)
		return fake_node_main(argc, argv);
	/* Daemons whose parent is gone become ours, so that none stays behind as a zombie in a container without an init. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return unit_run("supervisor", tests);
}

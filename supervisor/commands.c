/*
 * commands.c - status, switchover, the members, and stop: requests over the supervisor's control socket, and what to do
 * without one; events, which needs none.
 */
#include "supervisor/commands.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/audit.h"
#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/wire/link.h"
#include "supervisor/adopt.h"
#include "supervisor/cluster.h"
#include "supervisor/launcher.h"
#include "supervisor/status_json.h"

#define CALL_TIMEOUT_MS       5000u
#define SWITCHOVER_POLL_MS    10
#define SWITCHOVER_TIMEOUT_MS 60000u
#define STOP_TIMEOUT_MS       (CLUSTER_STOP_MS + 10000u)
#define STOP_RETRY_MS         100u
#define KILL_TIMEOUT_MS       5000u
#define WATCH_SECONDS         1

/* Says why nobody could be asked. */
enum exit_code command_unreachable(const char *data_dir, enum db_err err, const struct errmsg *em)
{
	pid_t holder = datadir_lock_holder();

	if (err == DB_TIMEOUT || (err == DB_UNAVAILABLE && holder > 0))
		fprintf(stderr,
			"grizzly-supervisor: the supervisor of data directory \"%s\" (pid %d) does not answer: %s\n"
			"the nodes do without it; kill -9 %d and run it again, or stop the whole: grizzly-supervisor "
			"stop\n",
			data_dir, (int)holder, em->text, (int)holder);
	else
		fprintf(stderr,
			"grizzly-supervisor: no supervisor runs for data directory \"%s\" (%s)\n"
			"start it with: grizzly-supervisor run --data-dir %s --daemon\n",
			data_dir, em->text, data_dir);
	return EXIT_UNREACHABLE;
}

/* The request with who asks, for log/audit.jsonl; the caller frees it. NULL: out of memory. */
static char *signed_request(const char *request)
{
	char by[AUDIT_BY_MAX];
	json_t *json = json_loads(request, 0, NULL);
	char *text = NULL;

	audit_user(by, sizeof(by));
	if (json != NULL && json_object_set_new(json, "by", json_string(by)) == 0)
		text = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	return text;
}

/* Sends one request; *answer is the text of the reply, in memory owned by reply. */
enum db_err command_ask(const char *request, struct buf *reply, struct wire_text *answer, struct errmsg *em)
{
	char url[LINK_URL_MAX];
	char *text = signed_request(request);
	enum db_err err = link_ipc_url(url, DATADIR_CONTROL, em);

	if (err == DB_OK)
		err = link_cli_call(url, "command", text != NULL ? text : request, CALL_TIMEOUT_MS, reply, answer, em);
	free(text);
	return err;
}

enum exit_code command_enter(const char *data_dir)
{
	struct errmsg em = {0};
	enum db_err err = datadir_enter(data_dir, false, &em);

	return err == DB_OK ? EXIT_OK : command_unreachable(data_dir, err, &em);
}

/* ---- status */

typedef enum db_err (*text_put_fn)(struct buf *b, const char *json, size_t len, struct errmsg *em);

/* Asks for JSON and prints it, as put makes lines for people of it; put NULL: as it is. */
static enum exit_code print_answer(const char *data_dir, const char *request, text_put_fn put)
{
	struct buf reply = {0};
	struct buf text = {0};
	struct wire_text answer = {0};
	struct errmsg em = {0};
	enum exit_code code = EXIT_OK;
	enum db_err err;

	err = command_ask(request, &reply, &answer, &em);
	if (err != DB_OK) {
		code = command_unreachable(data_dir, err, &em);
		goto fini;
	}
	if (put == NULL) {
		buf_put(&text, answer.text, answer.len);
		buf_puts(&text, "\n");
	} else {
		err = put(&text, answer.text, answer.len, &em);
	}
	if (err == DB_OK && text.failed)
		err = errmsg_set(&em, DB_NOMEM, "no memory for the status");
	if (err != DB_OK) {
		fprintf(stderr, "grizzly-supervisor: %s\n", em.text);
		code = EXIT_FAILED;
		goto fini;
	}
	if (fwrite(text.data, 1, text.len, stdout) != text.len || fflush(stdout) != 0)
		code = EXIT_FAILED;
fini:
	buf_fini(&reply);
	buf_fini(&text);
	return code;
}

static enum exit_code print_status(const char *data_dir, bool json, bool clear)
{
	if (clear)
		fputs("\033[H\033[J", stdout);
	return print_answer(data_dir, "{\"command\":\"status\"}", json ? NULL : status_text_put);
}

enum exit_code command_status(const char *data_dir, bool json, bool watch)
{
	enum exit_code code = command_enter(data_dir);

	if (code != EXIT_OK)
		return code;
	code = print_status(data_dir, json, watch && isatty(STDOUT_FILENO));
	/* Until it is interrupted; a supervisor that is away meanwhile may come back. */
	while (watch && code != EXIT_FAILED && sleep(WATCH_SECONDS) == 0)
		code = print_status(data_dir, json, isatty(STDOUT_FILENO));
	return code;
}

/* ---- switchover */

enum db_err command_ask_for_result(const char *request, struct command_result *out, struct errmsg *em)
{
	struct buf reply = {0};
	struct wire_text answer = {0};
	const char *status, *code, *message;
	json_error_t reason;
	json_int_t id;
	json_t *json = NULL;
	enum db_err err;
	int pid;

	err = command_ask(request, &reply, &answer, em);
	if (err != DB_OK)
		goto fini;
	json = json_loadb(answer.text, answer.len, 0, &reason);
	if (json_unpack(json, "{s:s, s:s, s:s, s:I, s:i}", "status", &status, "code", &code, "message", &message, "id",
			&id, "pid", &pid) != 0) {
		err = errmsg_set(em, DB_INVALID, "the supervisor's answer is not understood");
		goto fini;
	}
	snprintf(out->status, sizeof(out->status), "%s", status);
	snprintf(out->code, sizeof(out->code), "%s", code);
	snprintf(out->message, sizeof(out->message), "%s", message);
	out->id = (uint64_t)id;
	out->pid = pid;
fini:
	json_decref(json);
	buf_fini(&reply);
	return err;
}

static enum exit_code tell_result(const struct command_result *r)
{
	if (strcmp(r->status, "ok") == 0) {
		printf("%s\n", r->message);
		return EXIT_OK;
	}
	fprintf(stderr, "grizzly-supervisor: %s\n", r->message);
	return strcmp(r->code, "UNKNOWN_NODE") == 0 || strcmp(r->code, "BAD_REQUEST") == 0 ? EXIT_USAGE : EXIT_FAILED;
}

static char *switchover_request(const char *to)
{
	json_t *json = to == NULL ? json_pack("{s:s}", "command", "switchover")
				  : json_pack("{s:s, s:s}", "command", "switchover", "to", to);
	char *text = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);

	json_decref(json);
	return text;
}

/* what: "switchover" or "change". timeout_ms 0: as long as it takes. */
static enum db_err await_result(struct command_result *r, const char *what, uint64_t timeout_ms, struct errmsg *em)
{
	uint64_t deadline_ms = clock_mono_ms() + timeout_ms;
	enum db_err err = DB_OK;
	char request[96];

	while (err == DB_OK && strcmp(r->status, "running") == 0) {
		if (timeout_ms > 0 && clock_mono_ms() >= deadline_ms)
			return errmsg_set(em, DB_TIMEOUT, "the %s takes longer than %llu s", what,
					  (unsigned long long)timeout_ms / 1000);
		poll(NULL, 0, SWITCHOVER_POLL_MS);
		snprintf(request, sizeof(request), "{\"command\":\"%s-result\",\"id\":%llu}", what,
			 (unsigned long long)r->id);
		err = command_ask_for_result(request, r, em);
	}
	return err;
}

/* Has it done by the supervisor, whose word it prints. Takes request; what and timeout_ms as above. */
static enum exit_code have_done(const char *data_dir, char *request, const char *what, uint64_t timeout_ms)
{
	struct errmsg em = {0};
	struct command_result r = {0};
	enum db_err err = command_ask_for_result(request, &r, &em);

	free(request);
	if (err == DB_OK)
		err = await_result(&r, what, timeout_ms, &em);
	return err == DB_OK ? tell_result(&r) : command_unreachable(data_dir, err, &em);
}

enum exit_code command_hand_over(const char *data_dir, const char *to)
{
	char *request = switchover_request(to);

	if (request == NULL) {
		fprintf(stderr, "grizzly-supervisor: \"%s\" is no possible node id\n", to == NULL ? "" : to);
		return EXIT_USAGE;
	}
	return have_done(data_dir, request, "switchover", SWITCHOVER_TIMEOUT_MS);
}

enum exit_code command_switchover(const char *data_dir, const char *to)
{
	enum exit_code code = command_enter(data_dir);

	return code == EXIT_OK ? command_hand_over(data_dir, to) : code;
}

/* ---- members */

static char *members_request(const char *command, const char *address, bool readonly)
{
	json_t *json = json_pack("{s:s, s:s, s:b}", "command", command, "address", address, "readonly", (int)readonly);
	char *text = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);

	json_decref(json);
	return text;
}

/* Catching up may take as long as the database is large; the change goes on when nobody waits for it any more. */
static enum exit_code change_members(const char *data_dir, const char *command, const char *address, bool readonly)
{
	enum exit_code code = command_enter(data_dir);
	char *request;

	if (code != EXIT_OK)
		return code;
	request = members_request(command, address, readonly);
	if (request == NULL) {
		fprintf(stderr, "grizzly-supervisor: that is no possible address\n");
		return EXIT_USAGE;
	}
	return have_done(data_dir, request, "change", 0);
}

enum exit_code command_add_replica(const char *data_dir, const char *address, bool readonly)
{
	return change_members(data_dir, "add-replica", address, readonly);
}

enum exit_code command_remove_replica(const char *data_dir, const char *address)
{
	return change_members(data_dir, "remove-replica", address, false);
}

enum exit_code command_replicas(const char *data_dir, bool json)
{
	enum exit_code code = command_enter(data_dir);

	return code == EXIT_OK ? print_answer(data_dir, "{\"command\":\"replicas\"}", json ? NULL : replicas_text_put)
			       : code;
}

/* ---- reload */

enum exit_code command_reload(const char *data_dir)
{
	enum exit_code code = command_enter(data_dir);
	struct errmsg em = {0};
	struct command_result r = {0};
	enum db_err err;

	if (code != EXIT_OK)
		return code;
	err = command_ask_for_result("{\"command\":\"reload\"}", &r, &em);
	return err == DB_OK ? tell_result(&r) : command_unreachable(data_dir, err, &em);
}

/* ---- stop */

static bool await_end(const struct process *p, uint64_t deadline_ms)
{
	struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};

	while (!process_gone(p)) {
		uint64_t now_ms = clock_mono_ms();

		if (now_ms >= deadline_ms)
			return false;
		poll(&pfd, 1, (int)(deadline_ms - now_ms));
	}
	return true;
}

/* Asks until it is heard or the time is over. DB_OK: it is stopping, or gone. */
static enum db_err ask_to_stop(const struct process *supervisor, struct errmsg *em)
{
	uint64_t deadline_ms = clock_mono_ms() + CALL_TIMEOUT_MS;
	struct command_result r = {0};
	enum db_err err;

	do {
		err = command_ask_for_result("{\"command\":\"stop\"}", &r, em);
		/* One that ends quickly may be gone before its answer has left; one that has just begun does not listen
		 * yet. */
		if (err != DB_OK && await_end(supervisor, clock_mono_ms() + STOP_RETRY_MS))
			err = DB_OK;
	} while (err == DB_UNAVAILABLE && clock_mono_ms() < deadline_ms);
	return err;
}

/* Ends the supervisor, by force if it does not react: that harms nobody, as nodes do without it and its term file
 * outlives it, and what was asked for is that nothing runs. EXIT_OK: it is gone, but its nodes may not be. */
static enum exit_code stop_supervisor(pid_t pid)
{
	struct process supervisor;
	struct errmsg em = {0};
	enum exit_code code = EXIT_OK;
	bool heard;

	if (process_adopt(&supervisor, pid, 0, &em) != DB_OK)
		return EXIT_OK; /* it has just ended */
	heard = ask_to_stop(&supervisor, &em) == DB_OK;
	if (heard && await_end(&supervisor, clock_mono_ms() + STOP_TIMEOUT_MS))
		goto close_process;
	fprintf(stderr,
		"grizzly-supervisor: the supervisor (pid %d) does not %s: it is killed, its nodes are stopped\n",
		(int)pid, heard ? "come to an end" : "answer");
	/* Only the holder of the lock: the pid may have become somebody else's since. */
	if (datadir_lock_holder() == pid && process_signal(&supervisor, SIGKILL, &em) != DB_OK) {
		fprintf(stderr, "grizzly-supervisor: %s\n", em.text);
		code = EXIT_FAILED;
	} else if (!await_end(&supervisor, clock_mono_ms() + KILL_TIMEOUT_MS)) {
		fprintf(stderr,
			"grizzly-supervisor: the supervisor (pid %d) was killed and is not gone yet: try again\n",
			(int)pid);
		code = EXIT_FAILED;
	}
close_process:
	process_close(&supervisor);
	return code;
}

static void signal_node(const struct process *p, int signal)
{
	struct errmsg em = {0};

	if (p->pidfd >= 0 && process_signal(p, signal, &em) != DB_OK)
		fprintf(stderr, "grizzly-supervisor: %s\n", em.text);
}

static void signal_all(const struct process *processes, int signal)
{
	unsigned n;

	for (n = 0; n < CONFIG_NODES_MAX; n++)
		signal_node(&processes[n], signal);
}

static bool await_all(const struct process *processes, uint64_t timeout_ms)
{
	uint64_t deadline_ms = clock_mono_ms() + timeout_ms;
	bool all = true;
	unsigned n;

	for (n = 0; n < CONFIG_NODES_MAX; n++)
		all = await_end(&processes[n], deadline_ms) && all;
	return all;
}

/* The master first, as far as is known who it was: while its replicas live it can acknowledge what it has begun. */
static void end_master(const struct process *processes, const struct roster *roster)
{
	unsigned n;

	for (n = 0; n < roster->node_count; n++) {
		if (!roster->nodes[n].master || processes[n].pidfd < 0)
			continue;
		signal_node(&processes[n], SIGTERM);
		if (!await_end(&processes[n], clock_mono_ms() + CLUSTER_STOP_MS / 4))
			return;
	}
}

/* No supervisor: the nodes that an earlier one left running are ended from here, under its lock. */
static enum exit_code stop_left_nodes(unsigned *count)
{
	struct process processes[CONFIG_NODES_MAX];
	struct roster *roster = calloc(1, sizeof(*roster));
	bool ended = true;
	unsigned n;

	*count = 0;
	if (roster == NULL)
		return EXIT_FAILED;
	for (n = 0; n < CONFIG_NODES_MAX; n++)
		processes[n] = PROCESS_NONE;
	*count = adopt_running(processes, roster);
	end_master(processes, roster);
	free(roster);
	signal_all(processes, SIGTERM);
	if (!await_all(processes, CLUSTER_STOP_MS)) {
		signal_all(processes, SIGKILL);
		ended = await_all(processes, KILL_TIMEOUT_MS);
	}
	for (n = 0; n < CONFIG_NODES_MAX; n++)
		process_close(&processes[n]);
	if (!ended)
		fprintf(stderr, "grizzly-supervisor: not every node has ended\n");
	return ended ? EXIT_OK : EXIT_FAILED;
}

enum exit_code command_stop(const char *data_dir)
{
	struct errmsg em = {0};
	enum exit_code code = command_enter(data_dir);
	bool had_supervisor = false;
	unsigned count;
	enum db_err err;
	pid_t holder;
	int lock_fd;

	if (code != EXIT_OK)
		return code;
	if (access(DATADIR_RUN, F_OK) != 0 && errno == ENOENT) {
		printf("nothing runs\n");
		return EXIT_OK;
	}
	err = datadir_lock(&lock_fd, &holder, &em);
	if (err == DB_BUSY && holder > 0) {
		had_supervisor = true;
		code = stop_supervisor(holder);
		if (code != EXIT_OK)
			return code;
		err = datadir_lock(&lock_fd, &holder, &em);
	}
	if (err != DB_OK) {
		fprintf(stderr, "grizzly-supervisor: %s\n", em.text);
		return EXIT_FAILED;
	}
	code = stop_left_nodes(&count); /* none, after a supervisor that ended in order */
	close(lock_fd);
	if (code == EXIT_OK && had_supervisor)
		printf("stopped\n");
	else if (code == EXIT_OK && count == 0)
		printf("nothing runs\n");
	else if (code == EXIT_OK)
		printf("stopped %u node%s that ran without a supervisor\n", count, count == 1 ? "" : "s");
	return code;
}

/* ---- events */

enum exit_code command_events(const char *data_dir, const struct timeline_view *view)
{
	struct errmsg em = {0};
	enum db_err err = datadir_enter(data_dir, false, &em);

	if (err == DB_OK)
		err = timeline_show(view, &em);
	if (err == DB_OK)
		return EXIT_OK;
	fprintf(stderr, "grizzly-supervisor: %s\n", em.text);
	return EXIT_FAILED;
}

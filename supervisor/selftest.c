/*
 * selftest.c - `grizzly-supervisor selftest`: does this cluster software keep its promises on this machine and this disk?
 *
 * Makes a cluster of its own in a directory below --data-dir, lets clients write, move money and read
 * (supervisor/selftest_load.h) while it kills the master, replicas and the supervisor and stops processes dead, then compares
 * everything that was acknowledged with what is there, and the nodes with each other. Besides it measures how long the disk
 * takes to sync. The directory is removed unless something was wrong, or --keep.
 *
 * One thread, and the clients'. It works inside the scratch directory.
 */
#include "supervisor/commands.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "common/store/dirs.h"
#include "common/wire/link.h"
#include "supervisor/launcher.h"
#include "supervisor/selftest_load.h"
#include "supervisor/timeline.h"

#define SYNC_COUNT      500u
#define SYNC_BYTES      4096u
#define SYNC_FILE_BYTES (256 * SYNC_BYTES)
#define SYNC_MS_MAX     5000u
#define UP_TIMEOUT_MS   60000u
#define CALL_TIMEOUT_MS 2000u
#define POLL_MS         20
#define PAUSE_MS        1000u /* between the cluster being whole and the next blow */
#define OUTAGES_MAX     4096u
#define PORT_FIRST      20000u
#define PORT_STEP       310u
#define PORT_TRIES      100u

enum blow { BLOW_KILL_MASTER, BLOW_KILL_REPLICA, BLOW_KILL_SUPERVISOR, BLOW_STOP_MASTER, BLOW_COUNT };

static const char *const blow_names[BLOW_COUNT] = {"master killed", "replica killed", "supervisor killed",
						   "master stopped dead"};

enum verdict { VERDICT_GOOD, VERDICT_BAD, VERDICT_NONE };

struct node_seen {
	pid_t pid;
	bool up;
	char place[64]; /* applied LSN and checksum */
};

struct seen {
	unsigned count;
	int master; /* index; -1: none */
	struct node_seen nodes[CONFIG_NODES_MAX];
};

struct selftest {
	const struct selftest_options *options;
	char scratch[PATH_MAX];
	char program[PATH_MAX];
	unsigned port;
	struct process supervisor;
	struct load *load;
	unsigned blows[BLOW_COUNT];
	uint64_t sync_us[SYNC_COUNT];
	size_t sync_count;
	uint64_t outage_ms[OUTAGES_MAX];
	size_t outage_count;
	struct load_result result;
	bool agree; /* the nodes, at the end */
	char place[64];
};

static volatile sig_atomic_t interrupted; /* by SIGINT or SIGTERM: it ends early, in order */

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

/* ---- the disk */

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t percentile(const uint64_t *sorted, size_t count, unsigned percent)
{
	return count == 0 ? 0 : sorted[(count - 1) * percent / 100];
}

/* As the log is written: a block into a part of the file that was written before, then fdatasync. */
static enum db_err measure_syncs(struct selftest *t, struct errmsg *em)
{
	static const char name[] = "sync-test";
	uint64_t until_ms = clock_mono_ms() + SYNC_MS_MAX, began_us;
	char *block = calloc(1, SYNC_FILE_BYTES);
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	enum db_err err = DB_OK;

	if (block == NULL || fd < 0 || pwrite(fd, block, SYNC_FILE_BYTES, 0) != (ssize_t)SYNC_FILE_BYTES ||
	    fsync(fd) != 0)
		err = errmsg_errno(em, block == NULL ? ENOMEM : errno, "cannot write below \"%s\"", t->scratch);
	while (err == DB_OK && t->sync_count < SYNC_COUNT && clock_mono_ms() < until_ms && !interrupted) {
		off_t at = (off_t)(t->sync_count * SYNC_BYTES % SYNC_FILE_BYTES);

		memset(block, (int)t->sync_count, SYNC_BYTES);
		began_us = clock_mono_us();
		if (pwrite(fd, block, SYNC_BYTES, at) != (ssize_t)SYNC_BYTES || fdatasync(fd) != 0)
			err = errmsg_errno(em, errno, "cannot sync below \"%s\"", t->scratch);
		else
			t->sync_us[t->sync_count++] = clock_mono_us() - began_us;
	}
	qsort(t->sync_us, t->sync_count, sizeof(t->sync_us[0]), compare_u64);
	if (fd >= 0)
		close(fd);
	unlink(name);
	free(block);
	return err;
}

/* ---- the cluster */

static bool port_is_free(unsigned port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	const int one = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool good;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	good = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
	       bind(fd, (const struct sockaddr *)&a, sizeof(a)) == 0;
	if (fd >= 0)
		close(fd);
	return good;
}

static enum db_err find_ports(struct selftest *t, struct errmsg *em)
{
	unsigned nodes = t->options->replicas + 1, i, n, offset;
	bool good;

	for (i = 0; i < PORT_TRIES; i++) {
		t->port = PORT_FIRST + ((unsigned)getpid() + i) % PORT_TRIES * PORT_STEP / 3;
		good = port_is_free(t->port);
		for (offset = 0; offset <= 200; offset += 100)
			for (n = 1; n <= nodes && good; n++)
				good = port_is_free(t->port + offset + n);
		if (good)
			return DB_OK;
	}
	return errmsg_set(em, DB_BUSY, "no free ports were found from %u on", PORT_FIRST);
}

static enum db_err start_supervisor(struct selftest *t, struct errmsg *em)
{
	char port[16], replicas[16];
	const struct launch launch = {.program = t->program,
				      .args = {"grizzly-supervisor", "run", "--data-dir", t->scratch, "--http-port",
					       port, "--replicas", replicas, NULL},
				      .log_path = "selftest.log",
				      .listen_fd = -1};

	snprintf(port, sizeof(port), "%u", t->port);
	snprintf(replicas, sizeof(replicas), "%u", t->options->replicas);
	return launcher_spawn(&launch, &t->supervisor, em);
}

static void take_node(struct seen *seen, json_t *node, const char *master)
{
	struct node_seen *n = &seen->nodes[seen->count];
	const char *id = json_string_value(json_object_get(node, "id"));
	const char *state = json_string_value(json_object_get(node, "state"));
	const char *checksum = json_string_value(json_object_get(node, "db_checksum"));

	n->pid = (pid_t)json_integer_value(json_object_get(node, "pid"));
	n->up = state != NULL && strcmp(state, "up") == 0;
	snprintf(n->place, sizeof(n->place), "%lld %s",
		 (long long)json_integer_value(json_object_get(node, "applied_lsn")), checksum == NULL ? "" : checksum);
	if (id != NULL && master != NULL && strcmp(id, master) == 0)
		seen->master = (int)seen->count;
	seen->count++;
}

/* What the supervisor says; false: it does not answer. */
static bool look(struct seen *seen)
{
	struct buf reply = {0};
	struct wire_text answer = {0};
	struct errmsg em = {0};
	char url[LINK_URL_MAX];
	json_t *json = NULL, *nodes;
	const char *master;
	size_t i;

	*seen = (struct seen){.master = -1};
	if (link_ipc_url(url, "run/supervisor.ctl", &em) == DB_OK &&
	    link_cli_call(url, "selftest", "{\"command\":\"status\"}", CALL_TIMEOUT_MS, &reply, &answer, &em) == DB_OK)
		json = json_loadb(answer.text, answer.len, 0, NULL);
	nodes = json_object_get(json, "nodes");
	master = json_string_value(json_object_get(json, "master"));
	for (i = 0; i < json_array_size(nodes) && seen->count < CONFIG_NODES_MAX; i++)
		take_node(seen, json_array_get(nodes, i), master);
	json_decref(json);
	buf_fini(&reply);
	return seen->count > 0;
}

static bool is_whole(const struct selftest *t, const struct seen *seen)
{
	unsigned i, up = 0;

	for (i = 0; i < seen->count; i++)
		up += seen->nodes[i].up;
	return seen->master >= 0 && up == t->options->replicas + 1;
}

static bool nodes_agree(const struct seen *seen)
{
	unsigned i;

	for (i = 1; i < seen->count; i++)
		if (strcmp(seen->nodes[i].place, seen->nodes[0].place) != 0)
			return false;
	return true;
}

/* Until every node is up and one of them is master; with agree: until all have the same database, too. */
static enum db_err await_whole(struct selftest *t, bool agree, struct seen *seen, struct errmsg *em)
{
	uint64_t until_ms = clock_mono_ms() + UP_TIMEOUT_MS;

	while (clock_mono_ms() < until_ms) {
		if (process_gone(&t->supervisor))
			return errmsg_set(em, DB_CLOSED, "the supervisor has ended, see %s/selftest.log", t->scratch);
		if (look(seen) && is_whole(t, seen) && (!agree || nodes_agree(seen)))
			return DB_OK;
		if (interrupted && !agree)
			return errmsg_set(em, DB_CLOSED, "interrupted");
		poll(NULL, 0, POLL_MS);
	}
	return errmsg_set(em, DB_TIMEOUT, "the nodes are not all up%s after %u s",
			  agree ? " with the same database" : "", UP_TIMEOUT_MS / 1000);
}

static enum db_err await_gone(const struct process *p, struct errmsg *em)
{
	struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};

	if (poll(&pfd, 1, (int)UP_TIMEOUT_MS) > 0)
		return DB_OK;
	return errmsg_set(em, DB_TIMEOUT, "process %d does not end", (int)p->pid);
}

static enum db_err end_supervisor(struct selftest *t, int sig, struct errmsg *em)
{
	enum db_err err = process_signal(&t->supervisor, sig, em);
	int code, by;

	if (err == DB_OK)
		err = await_gone(&t->supervisor, em);
	if (err == DB_OK)
		process_collect(&t->supervisor, &code, &by);
	if (err == DB_OK)
		process_close(&t->supervisor);
	return err;
}

/* ---- blows */

static enum db_err hit_node(const struct seen *seen, unsigned node, int sig, struct errmsg *em)
{
	struct process p;
	enum db_err err = process_adopt(&p, seen->nodes[node].pid, 0, em);

	if (err == DB_NOTFOUND)
		return DB_OK; /* it has just ended by itself, which the supervisor tells */
	if (err == DB_OK)
		err = process_signal(&p, sig, em);
	process_close(&p);
	return err;
}

static enum db_err strike(struct selftest *t, enum blow blow, const struct seen *seen, struct errmsg *em)
{
	unsigned master = (unsigned)seen->master;
	enum db_err err;

	t->blows[blow]++;
	switch (blow) {
	case BLOW_KILL_MASTER:
		return hit_node(seen, master, SIGKILL, em);
	case BLOW_STOP_MASTER:
		return hit_node(seen, master, SIGSTOP, em);
	case BLOW_KILL_REPLICA:
		return hit_node(seen, (master + 1 + t->blows[blow] % (seen->count - 1)) % seen->count, SIGKILL, em);
	default:
		err = end_supervisor(t, SIGKILL, em);
		return err == DB_OK ? start_supervisor(t, em) : err;
	}
}

static void say(const struct selftest *t, const char *what)
{
	if (!t->options->json && isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[K%s", what);
}

/* Blow upon blow, each when the cluster has got over the one before. */
static enum db_err torment(struct selftest *t, struct errmsg *em)
{
	uint64_t until_ms = clock_mono_ms() + t->options->seconds * 1000u;
	unsigned next = 0;
	struct seen seen;
	enum db_err err = await_whole(t, false, &seen, em);

	while (err == DB_OK && !interrupted && clock_mono_ms() + PAUSE_MS < until_ms) {
		poll(NULL, 0, (int)PAUSE_MS);
		/* Without replicas nobody takes over: what is left is to come back. */
		if (t->options->replicas == 0 && next % BLOW_COUNT == BLOW_KILL_REPLICA)
			next++;
		err = await_whole(t, false, &seen, em);
		if (err != DB_OK)
			break;
		say(t, blow_names[next % BLOW_COUNT]);
		err = strike(t, (enum blow)(next++ % BLOW_COUNT), &seen, em);
		if (err == DB_OK)
			err = await_whole(t, false, &seen, em);
	}
	if (interrupted)
		return DB_OK;
	while (err == DB_OK && clock_mono_ms() < until_ms && !interrupted)
		poll(NULL, 0, POLL_MS);
	return err;
}

/* ---- the verdict */

/* From the lost master's last sign of life until the next one served. */
static void read_outages(struct selftest *t)
{
	FILE *f = fopen(TIMELINE_PATH, "re");
	char line[4096];
	json_t *event, *outage;

	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		event = json_loads(line, 0, NULL);
		outage = json_object_get(event, "outage_heard_ms"); /* as clients feel it */
		if (outage == NULL)
			outage = json_object_get(event, "outage_ms");
		if (json_is_integer(outage) && t->outage_count < OUTAGES_MAX)
			t->outage_ms[t->outage_count++] = (uint64_t)json_integer_value(outage);
		json_decref(event);
	}
	if (f != NULL)
		fclose(f);
	qsort(t->outage_ms, t->outage_count, sizeof(t->outage_ms[0]), compare_u64);
}

/* Of one that was interrupted early nothing bad can be said, and nothing good. */
static enum verdict judge(const struct selftest *t)
{
	const struct load_result *r = &t->result;

	if (r->lost > 0 || r->doubled > 0 || r->stale_reads > 0 || r->torn_reads > 0 || r->balance_off != 0 ||
	    r->complaint[0] != '\0' || !t->agree)
		return VERDICT_BAD;
	if (r->appends > 0 && r->transfers > 0 && r->reads > 0)
		return VERDICT_GOOD;
	return interrupted ? VERDICT_NONE : VERDICT_BAD;
}

static void print_text(const struct selftest *t, enum verdict verdict)
{
	static const char *const words[] = {"good", "BAD", "none: interrupted before it had written and read"};
	const struct load_result *r = &t->result;
	size_t n = t->outage_count;
	unsigned i;

	printf("sync of %u bytes     median %.2f ms, 99 of 100 within %.2f ms, longest %.2f ms\n", SYNC_BYTES,
	       (double)percentile(t->sync_us, t->sync_count, 50) / 1000,
	       (double)percentile(t->sync_us, t->sync_count, 99) / 1000,
	       (double)percentile(t->sync_us, t->sync_count, 100) / 1000);
	printf("writes              %" PRIu64 " rows appended, %" PRIu64 " transfers, %" PRIu64 " refused\n",
	       r->appends, r->transfers, r->refused);
	printf("reads               %" PRIu64 ", %" PRIu64 " stale, %" PRIu64 " torn\n", r->reads, r->stale_reads,
	       r->torn_reads);
	printf("blows              ");
	for (i = 0; i < BLOW_COUNT; i++)
		printf("%s %s %u times", i > 0 ? "," : "", blow_names[i], t->blows[i]);
	printf("\nfailovers           %zu, median %" PRIu64 " ms, longest %" PRIu64
	       " ms; the longest write took %" PRIu64 " ms\n",
	       n, percentile(t->outage_ms, n, 50), percentile(t->outage_ms, n, 100), r->longest_wait_ms);
	printf("lost writes         %" PRIu64 "\ndoubled writes      %" PRIu64 "\nmoney made or lost  %" PRId64 "\n",
	       r->lost, r->doubled, r->balance_off);
	printf("nodes agree         %s (applied LSN and checksum %s)\n", t->agree ? "yes" : "no", t->place);
	if (r->complaint[0] != '\0')
		printf("unexplained answer  %s\n", r->complaint);
	printf("verdict             %s\n", words[verdict]);
}

static bool print_json(const struct selftest *t, enum verdict verdict)
{
	static const char *const words[] = {"good", "bad", "none"};
	const struct load_result *r = &t->result;
	json_t *json = json_pack(
	    "{s:s, s:{s:I, s:I, s:I, s:I}, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:s}", "verdict",
	    words[verdict], "sync_us", "count", (json_int_t)t->sync_count, "p50",
	    (json_int_t)percentile(t->sync_us, t->sync_count, 50), "p99",
	    (json_int_t)percentile(t->sync_us, t->sync_count, 99), "max",
	    (json_int_t)percentile(t->sync_us, t->sync_count, 100), "appends", (json_int_t)r->appends, "transfers",
	    (json_int_t)r->transfers, "refused", (json_int_t)r->refused, "reads", (json_int_t)r->reads, "lost_writes",
	    (json_int_t)r->lost, "doubled_writes", (json_int_t)r->doubled, "stale_reads", (json_int_t)r->stale_reads,
	    "torn_reads", (json_int_t)r->torn_reads, "longest_write_ms", (json_int_t)r->longest_wait_ms, "nodes_agree",
	    (int)t->agree, "unexplained", r->complaint);
	json_t *blows = json_object(), *outages = json_array();
	bool good = json != NULL && blows != NULL && outages != NULL;
	char *text = NULL;
	size_t i;

	for (i = 0; i < BLOW_COUNT; i++)
		good = good && json_object_set_new(blows, blow_names[i], json_integer(t->blows[i])) == 0;
	for (i = 0; i < t->outage_count; i++)
		good = good && json_array_append_new(outages, json_integer((json_int_t)t->outage_ms[i])) == 0;
	good =
	    good && json_object_set(json, "blows", blows) == 0 && json_object_set(json, "failovers_ms", outages) == 0;
	text = good ? json_dumps(json, JSON_INDENT(2)) : NULL;
	if (text != NULL)
		printf("%s\n", text);
	free(text);
	json_decref(json);
	json_decref(blows);
	json_decref(outages);
	return text != NULL;
}

/* ---- the whole */

static enum db_err run_load(struct selftest *t, struct errmsg *em)
{
	struct seen seen;
	char *token = NULL;
	enum db_err err = await_whole(t, false, &seen, em);

	if (err == DB_OK)
		err = token_load(&token, DATADIR_TOKEN, em);
	if (err == DB_OK)
		err = load_create(&t->load, t->port, token, em);
	free(token);
	if (err == DB_OK)
		err = load_start(t->load, em);
	if (err == DB_OK)
		err = torment(t, em);
	if (t->load != NULL)
		load_stop(t->load);
	if (err == DB_OK)
		err = load_check(t->load, &t->result, em);
	if (err != DB_OK)
		return err;
	t->agree = await_whole(t, true, &seen, em) == DB_OK;
	snprintf(t->place, sizeof(t->place), "%s", seen.nodes[0].place);
	read_outages(t);
	return DB_OK;
}

static enum db_err make_scratch(struct selftest *t, struct errmsg *em)
{
	enum db_err err = datadir_enter(t->options->data_dir, true, em);
	char name[] = "selftest-XXXXXX";

	if (err == DB_OK && mkdtemp(name) == NULL)
		err = errmsg_errno(em, errno, "cannot make a directory below \"%s\"", t->options->data_dir);
	if (err == DB_OK)
		err = datadir_absolute(t->scratch, name, em);
	if (err == DB_OK && chdir(name) != 0)
		err = errmsg_errno(em, errno, "cannot enter \"%s\"", t->scratch);
	return err;
}

static enum db_err run_in_scratch(struct selftest *t, struct errmsg *em)
{
	struct errmsg end_em = {0};
	enum db_err err = measure_syncs(t, em), end_err = DB_OK;

	if (err == DB_OK)
		err = find_ports(t, em);
	if (err == DB_OK)
		err = launcher_find(t->program, "grizzly-supervisor", em);
	if (err == DB_OK)
		err = start_supervisor(t, em);
	if (err != DB_OK)
		return err;
	err = run_load(t, em);
	load_free(t->load);
	if (!process_gone(&t->supervisor))
		end_err = end_supervisor(t, SIGTERM, &end_em);
	if (err == DB_OK && end_err != DB_OK)
		*em = end_em;
	return err == DB_OK ? end_err : err;
}

/* Only when nothing runs in it any more. */
static void remove_scratch(const struct selftest *t, enum verdict verdict)
{
	struct errmsg em = {0};

	if (verdict == VERDICT_BAD || t->options->keep) {
		fprintf(stderr, "grizzly-supervisor: kept: %s\n", t->scratch);
		return;
	}
	if (chdir("/") != 0 || dirs_remove(t->scratch, &em) != DB_OK)
		fprintf(stderr, "grizzly-supervisor: cannot remove \"%s\": %s\n", t->scratch, em.text);
}

enum exit_code command_selftest(const struct selftest_options *options)
{
	struct selftest *t = calloc(1, sizeof(*t));
	struct sigaction action = {.sa_handler = on_interrupt};
	struct errmsg em = {0};
	enum verdict verdict;
	enum db_err err;

	if (t == NULL) {
		fputs("grizzly-supervisor: out of memory\n", stderr);
		return EXIT_FAILED;
	}
	log_init("selftest", LOG_LEVEL_ERROR);
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	t->options = options;
	t->supervisor = PROCESS_NONE;
	err = make_scratch(t, &em);
	if (err == DB_OK) {
		if (!options->json)
			printf("selftest in %s, %u nodes, %u s\n", t->scratch, options->replicas + 1, options->seconds);
		fflush(stdout);
		err = run_in_scratch(t, &em);
		say(t, "");
	}
	verdict = err == DB_OK ? judge(t) : VERDICT_BAD;
	if (err != DB_OK)
		fprintf(stderr, "grizzly-supervisor: the selftest could not be made: %s\n", em.text);
	else if (!options->json)
		print_text(t, verdict);
	else if (!print_json(t, verdict))
		verdict = VERDICT_BAD;
	if (t->scratch[0] != '\0')
		remove_scratch(t, verdict);
	free(t);
	return verdict == VERDICT_GOOD ? EXIT_OK : EXIT_FAILED;
}

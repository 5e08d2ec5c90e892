/*
 * restart.c - `grizzly-supervisor restart nodeN|all|supervisor`: one process after the other anew, while the cluster serves.
 *
 * How an upgrade takes effect: the programs are replaced on disk first. A replica is told to end, is started again by the
 * supervisor, and awaited until it holds everything; a master hands over first. The supervisor becomes the program that
 * this command is of (replace.h). Each step is awaited and must have come out well before the next: whatever goes wrong,
 * the rest is left as it was. Main thread.
 */
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "supervisor/commands.h"

#define POLL_MS      50
#define PATIENCE_MS  10000u /* for what is in the way to pass */
#define UP_MS        60000u /* for a node to be up again */
#define FAILURES     3      /* starts that failed, until it is given up */
#define SUCCESSOR_MS 15000u /* for the supervisor to answer again */

struct node_state {
	char id[16];
	char role[16];
	char state[16];
	char version[64];
	char reason[256];
	pid_t pid; /* 0: none */
	uint64_t restarts;
	bool keeps_up; /* up, or a moment behind */
	bool answers;  /* this supervisor has heard of it */
	bool voting;
};

struct cluster_state {
	struct node_state nodes[CONFIG_NODES_MAX];
	size_t count;
	char master[16]; /* "": none */
	char version[64];
	uint64_t uptime_ms;
};

/* ---- how things stand */

static const char *text_in(json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text == NULL ? "" : text;
}

static void take_node(struct node_state *n, json_t *json)
{
	snprintf(n->id, sizeof(n->id), "%s", text_in(json, "id"));
	snprintf(n->role, sizeof(n->role), "%s", text_in(json, "role"));
	snprintf(n->state, sizeof(n->state), "%s", text_in(json, "state"));
	snprintf(n->version, sizeof(n->version), "%s", text_in(json, "version"));
	snprintf(n->reason, sizeof(n->reason), "%s", text_in(json, "reason"));
	n->pid = (pid_t)json_integer_value(json_object_get(json, "pid"));
	n->restarts = (uint64_t)json_integer_value(json_object_get(json, "restarts"));
	n->answers = json_is_integer(json_object_get(json, "term"));
	n->voting = json_is_true(json_object_get(json, "voting"));
	n->keeps_up = json_is_true(json_object_get(json, "keeps_up")) ||
		      strcmp(n->state, "up") == 0; /* an older supervisor says no more */
}

static enum db_err look(struct cluster_state *c, struct errmsg *em)
{
	struct buf reply = {0};
	struct wire_text answer = {0};
	json_t *json = NULL, *nodes;
	enum db_err err = command_ask("{\"command\":\"status\"}", &reply, &answer, em);
	size_t i;

	memset(c, 0, sizeof(*c));
	if (err != DB_OK)
		goto fini;
	json = json_loadb(answer.text, answer.len, 0, NULL);
	nodes = json_object_get(json, "nodes");
	if (!json_is_array(nodes) || json_array_size(nodes) > CONFIG_NODES_MAX) {
		err = errmsg_set(em, DB_INVALID, "the supervisor's answer is not understood");
		goto fini;
	}
	c->count = json_array_size(nodes);
	for (i = 0; i < c->count; i++)
		take_node(&c->nodes[i], json_array_get(nodes, i));
	snprintf(c->master, sizeof(c->master), "%s", text_in(json, "master"));
	snprintf(c->version, sizeof(c->version), "%s", text_in(json, "version"));
	c->uptime_ms = (uint64_t)json_integer_value(json_object_get(json, "uptime_ms"));
fini:
	json_decref(json);
	buf_fini(&reply);
	return err;
}

static const struct node_state *find(const struct cluster_state *c, const char *id)
{
	size_t i;

	for (i = 0; i < c->count; i++)
		if (strcmp(c->nodes[i].id, id) == 0)
			return &c->nodes[i];
	return NULL;
}

static const char *named(const char *version)
{
	return version[0] == '\0' ? "a version that it does not say" : version;
}

/* ---- one node */

static enum exit_code fail(const char *what, const char *why)
{
	fprintf(stderr, "grizzly-supervisor: %s%s%s\n", what, why[0] == '\0' ? "" : ": ", why);
	return EXIT_FAILED;
}

/* It ran as before->pid: until another process of it is up. */
static enum exit_code await_up(const char *data_dir, const struct node_state *before, struct cluster_state *c)
{
	uint64_t begun_ms = clock_mono_ms(), now_ms = begun_ms;
	const struct node_state *n = NULL;
	struct errmsg em = {0};
	char what[128];
	enum db_err err;

	for (; now_ms < begun_ms + UP_MS; now_ms = clock_mono_ms()) {
		poll(NULL, 0, POLL_MS);
		err = look(c, &em);
		if (err != DB_OK)
			return command_unreachable(data_dir, err, &em);
		n = find(c, before->id);
		if (n == NULL)
			return fail(before->id, "is no member any more");
		if (n->pid != 0 && n->pid != before->pid && n->keeps_up) {
			printf("%s runs %s, up after %.1f s\n", n->id, named(n->version),
			       (double)(now_ms - begun_ms) / 1000);
			fflush(stdout);
			return EXIT_OK;
		}
		if (n->restarts >= before->restarts + FAILURES && strcmp(n->state, "down") == 0)
			break;
	}
	snprintf(what, sizeof(what), "%s does not come up, it is %s; nothing else was restarted", before->id,
		 n == NULL ? "down" : n->state);
	return fail(what, n == NULL ? "" : n->reason);
}

static enum exit_code hand_over(const char *data_dir, const char *id, struct cluster_state *c)
{
	enum exit_code code = command_hand_over(data_dir, NULL);
	struct errmsg em = {0};
	enum db_err err;

	fflush(stdout);
	if (code != EXIT_OK)
		return code;
	err = look(c, &em);
	if (err != DB_OK)
		return command_unreachable(data_dir, err, &em);
	return strcmp(c->master, id) == 0 ? fail(id, "is still the master") : EXIT_OK;
}

static bool is_alone(const struct cluster_state *c)
{
	size_t i, voters = 0;

	for (i = 0; i < c->count; i++)
		voters += c->nodes[i].voting;
	return voters <= 1;
}

/* What the supervisor objects to may pass: the moment after a handover, or after another node's restart, not all are there. */
static enum exit_code order(const char *data_dir, const char *request, uint64_t patience_ms)
{
	uint64_t deadline_ms = clock_mono_ms() + patience_ms;
	struct command_result r = {0};
	struct errmsg em = {0};
	enum db_err err;

	do {
		err = command_ask_for_result(request, &r, &em);
		if (err != DB_OK)
			return command_unreachable(data_dir, err, &em);
		if (strcmp(r.code, "NOT_NOW") != 0)
			break;
		poll(NULL, 0, POLL_MS);
	} while (clock_mono_ms() < deadline_ms);
	if (strcmp(r.status, "ok") == 0)
		return EXIT_OK;
	fprintf(stderr, "grizzly-supervisor: %s\n", r.message);
	return strcmp(r.code, "UNKNOWN_NODE") == 0 ? EXIT_USAGE : EXIT_FAILED;
}

static enum exit_code restart_node(const char *data_dir, const char *id, uint64_t patience_ms, struct cluster_state *c)
{
	const struct node_state *n = find(c, id);
	struct node_state before;
	enum exit_code code = EXIT_OK;
	char request[96];

	if (n == NULL) {
		fprintf(stderr, "grizzly-supervisor: there is no node \"%.60s\" in this cluster\n", id);
		return EXIT_USAGE;
	}
	before = *n;
	if (strcmp(c->master, before.id) == 0 && !is_alone(c)) {
		code = hand_over(data_dir, before.id, c);
		patience_ms = PATIENCE_MS;
	}
	snprintf(request, sizeof(request), "{\"command\":\"restart\",\"address\":\"%s\"}", before.id);
	if (code == EXIT_OK)
		code = order(data_dir, request, patience_ms);
	return code == EXIT_OK ? await_up(data_dir, &before, c) : code;
}

/* ---- the supervisor */

/* A node that answered the supervisor before and does not answer this one yet; NULL when there is none. */
static const struct node_state *not_heard_of(const struct cluster_state *before, const struct cluster_state *c)
{
	const struct node_state *n;
	size_t i;

	for (i = 0; i < before->count; i++) {
		n = find(c, before->nodes[i].id);
		if (before->nodes[i].answers && n != NULL && !n->answers)
			return n;
	}
	return NULL;
}

static enum exit_code await_successor(const char *data_dir, uint64_t begun_ms, struct cluster_state *c)
{
	const struct cluster_state before = *c;
	const struct node_state *silent = NULL;
	uint64_t now_ms = clock_mono_ms();
	struct errmsg em = {0};
	enum db_err err = DB_TIMEOUT;
	char what[80];

	for (; now_ms < begun_ms + SUCCESSOR_MS; now_ms = clock_mono_ms()) {
		poll(NULL, 0, POLL_MS);
		err = look(c, &em);
		if (err != DB_OK || c->uptime_ms > clock_mono_ms() - begun_ms)
			continue;
		silent = not_heard_of(&before, c);
		if (silent == NULL) {
			printf("the supervisor runs %s, and has taken over the nodes\n", named(c->version));
			return EXIT_OK;
		}
	}
	if (err != DB_OK)
		return command_unreachable(data_dir, err, &em);
	if (silent == NULL)
		return fail("the supervisor was not replaced", "its log says why");
	snprintf(what, sizeof(what), "the supervisor was replaced, but %s does not answer it", silent->id);
	return fail(what, silent->reason);
}

static enum exit_code replace_supervisor(const char *data_dir, const char *self, struct cluster_state *c)
{
	uint64_t begun_ms = clock_mono_ms();
	json_t *json = json_pack("{s:s, s:s}", "command", "replace", "program", self);
	char *request = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);
	struct cluster_config config;
	struct errmsg em = {0};
	enum exit_code code;

	json_decref(json);
	config_init(&config); /* what we would not start with is not asked for */
	if (request == NULL) {
		code = fail("out of memory", "");
	} else if (config_load(&config, DATADIR_CONFIG, &em) != DB_OK) {
		fail("the supervisor stays what it is", em.text);
		code = EXIT_USAGE;
	} else {
		code = order(data_dir, request, 0);
		if (code == EXIT_OK)
			code = await_successor(data_dir, begun_ms, c);
	}
	free(request);
	return code;
}

/* ---- the command */

/* Replicas first: a program that does not work shows where it does no harm. */
static enum exit_code restart_all(const char *data_dir, const char *self, struct cluster_state *c)
{
	struct cluster_state before = *c;
	enum exit_code code = EXIT_OK;
	size_t i;

	for (i = 0; i < before.count && code == EXIT_OK; i++)
		if (strcmp(before.nodes[i].id, before.master) != 0)
			code = restart_node(data_dir, before.nodes[i].id, PATIENCE_MS, c);
	if (code == EXIT_OK && before.master[0] != '\0')
		code = restart_node(data_dir, before.master, PATIENCE_MS, c);
	return code == EXIT_OK ? replace_supervisor(data_dir, self, c) : code;
}

enum exit_code command_restart(const char *data_dir, const char *what)
{
	struct cluster_state *c = calloc(1, sizeof(*c));
	enum exit_code code = command_enter(data_dir);
	struct errmsg em = {0};
	char self[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	enum db_err err;

	if (code != EXIT_OK)
		goto free_state;
	if (c == NULL || len <= 0) {
		code = fail(c == NULL ? "out of memory" : "/proc/self/exe cannot be read", "");
		goto free_state;
	}
	self[len] = '\0';
	err = look(c, &em);
	if (err != DB_OK)
		code = command_unreachable(data_dir, err, &em);
	else if (strcmp(what, "all") == 0)
		code = restart_all(data_dir, self, c);
	else if (strcmp(what, "supervisor") == 0)
		code = replace_supervisor(data_dir, self, c);
	else
		code = restart_node(data_dir, what, 0, c);
free_state:
	free(c);
	return code;
}

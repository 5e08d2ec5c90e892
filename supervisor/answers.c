/* answers.c - see answers.h. */
#include "supervisor/answers.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "supervisor/status_json.h"

static void put_result(struct buf *reply, const char *status, const char *code, const char *message, uint64_t id)
{
	json_t *json = json_pack("{s:s, s:s, s:o, s:I, s:i}", "status", status, "code", code, "message",
				 status_json_text(message), "id", (json_int_t)id, "pid", (int)getpid());
	char *text = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);

	json_decref(json);
	if (text == NULL)
		reply->failed = true;
	else
		buf_puts(reply, text);
	free(text);
}

static bool parse_node_id(const struct answers *a, const char *id, unsigned *out)
{
	unsigned count = config_node_count(a->config);
	char name[16];
	unsigned n;

	for (n = 0; n < count; n++) {
		snprintf(name, sizeof(name), "node%u", n + 1);
		if (strcmp(name, id) == 0) {
			*out = n;
			return true;
		}
	}
	return false;
}

static void put_switchover_result(const struct answers *a, uint64_t id, struct buf *reply)
{
	if (id != a->switchover_id)
		put_result(reply, "error", "FAILED", "another switchover was asked for since", id);
	else if (!a->switchover_done)
		put_result(reply, "running", "", "", id);
	else if (a->switchover_ok)
		put_result(reply, "ok", "", a->switchover_text, id);
	else
		put_result(reply, "error", "FAILED", a->switchover_text, id);
}

static void answer_switchover(struct answers *a, const char *to, struct buf *reply)
{
	struct cluster_event ev = {.type = CLUSTER_SWITCHOVER, .node = CLUSTER_NOBODY};
	char text[CLUSTER_TEXT_MAX];

	if (to != NULL && !parse_node_id(a, to, &ev.node)) {
		snprintf(text, sizeof(text), "there is no node \"%.60s\" in this cluster", to);
		put_result(reply, "error", "UNKNOWN_NODE", text, 0);
		return;
	}
	if (a->switchover_id != 0 && !a->switchover_done) {
		put_result(reply, "error", "FAILED", "another switchover is under way", 0);
		return;
	}
	a->switchover_id++;
	a->switchover_done = false;
	a->feed(a->arg, &ev);
	put_switchover_result(a, a->switchover_id, reply);
}

static void answer_status(struct answers *a, struct buf *reply)
{
	pid_t pids[CLUSTER_NODES_MAX] = {0};

	a->get_pids(a->arg, pids);
	status_json_put(reply, a->cluster, a->config, pids, clock_mono_ms());
}

void answers_command(void *arg, const char *text, size_t len, struct buf *reply)
{
	const struct cluster_event stop = {.type = CLUSTER_STOP};
	struct answers *a = arg;
	json_error_t reason;
	json_t *json = json_loadb(text, len, 0, &reason);
	const char *command = json_string_value(json_object_get(json, "command"));

	if (command == NULL) {
		put_result(reply, "error", "BAD_REQUEST", "the request is not understood", 0);
	} else if (strcmp(command, "status") == 0) {
		answer_status(a, reply);
	} else if (strcmp(command, "switchover") == 0) {
		answer_switchover(a, json_string_value(json_object_get(json, "to")), reply);
	} else if (strcmp(command, "switchover-result") == 0) {
		put_switchover_result(a, (uint64_t)json_integer_value(json_object_get(json, "id")), reply);
	} else if (strcmp(command, "stop") == 0) {
		put_result(reply, "ok", "", "stopping", 0);
		a->feed(a->arg, &stop);
	} else {
		put_result(reply, "error", "BAD_REQUEST", "there is no such command", 0);
	}
	json_decref(json);
}

void answers_switchover_done(struct answers *a, bool ok, const char *text)
{
	a->switchover_done = true;
	a->switchover_ok = ok;
	snprintf(a->switchover_text, sizeof(a->switchover_text), "%s", text);
}

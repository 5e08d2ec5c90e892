/* answers.c - see answers.h. */
#include "supervisor/answers.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/audit.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "supervisor/addresses.h"
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

/* A node cannot wait for its own end: it is told when nothing else is left. */
static bool put_ending(const struct answers *a, uint64_t id, struct buf *reply)
{
	struct cluster_view v;
	char code[32];

	cluster_view(a->cluster, &v);
	snprintf(code, sizeof(code), "ENDING node%u", v.ending_node + 1);
	if (id != a->change.id || a->change.done || v.outcome[0] == '\0')
		return false;
	put_result(reply, "running", code, v.outcome, id);
	return true;
}

static void put_pending(const struct pending_answer *p, const char *what, uint64_t id, struct buf *reply)
{
	char text[64];

	snprintf(text, sizeof(text), "another %s was asked for since", what);
	if (id != p->id)
		put_result(reply, "error", "FAILED", text, id);
	else if (!p->done)
		put_result(reply, "running", "", "", id);
	else if (p->ok)
		put_result(reply, "ok", "", p->text, id);
	else
		put_result(reply, "error", "FAILED", p->text, id);
}

static void set_done(struct pending_answer *p, bool ok, const char *text)
{
	p->done = true;
	p->ok = ok;
	snprintf(p->text, sizeof(p->text), "%s", text);
}

static void answer_switchover(struct answers *a, const char *to, struct buf *reply)
{
	struct cluster_event ev = {.type = CLUSTER_SWITCHOVER, .node = CLUSTER_NOBODY};
	struct errmsg em = {0};

	if (to != NULL && (strncmp(to, "node", 4) != 0 ||
			   addresses_find(&ev.node, to, cluster_members(a->cluster), a->config, &em) != DB_OK)) {
		errmsg_set(&em, DB_NOTFOUND, "there is no node \"%.60s\" in this cluster", to);
		put_result(reply, "error", "UNKNOWN_NODE", em.text, 0);
		return;
	}
	if (a->switchover.id != 0 && !a->switchover.done) {
		put_result(reply, "error", "FAILED", "another switchover is under way", 0);
		return;
	}
	a->switchover.id++;
	a->switchover.done = false;
	a->feed(a->arg, &ev);
	put_pending(&a->switchover, "switchover", a->switchover.id, reply);
}

/* ---- members */

/* The core answers what it refuses, and what undoes another request, during the step; anything else it accepts. */
static void ask_for_change(struct answers *a, const struct cluster_event *ev, struct buf *reply)
{
	a->asking_change = true;
	a->immediate = (struct pending_answer){0};
	a->feed(a->arg, ev);
	a->asking_change = false;
	if (a->immediate.done) {
		put_pending(&a->immediate, "change", 0, reply);
		return;
	}
	a->change.id++;
	a->change.done = false;
	put_pending(&a->change, "change", a->change.id, reply);
}

static void answer_add(struct answers *a, const char *address, bool readonly, struct buf *reply)
{
	const struct members *members = cluster_members(a->cluster);
	struct cluster_event ev = {.type = CLUSTER_ADD};
	struct errmsg em = {0};
	enum db_err err;

	err = addresses_new(&ev.node, &ev.u.add, address, members, a->config, &em);
	if (err == DB_OK && !members_present(members->entries[ev.node].state))
		err = addresses_check_free(&ev.u.add, a->config, &em);
	if (err != DB_OK) {
		put_result(reply, "error", err == DB_BUSY || err == DB_FULL ? "FAILED" : "BAD_REQUEST", em.text, 0);
		return;
	}
	ev.u.add.state = readonly ? MEMBERS_READONLY : MEMBERS_VOTER;
	ask_for_change(a, &ev, reply);
}

static void answer_remove(struct answers *a, const char *address, struct buf *reply)
{
	struct cluster_event ev = {.type = CLUSTER_REMOVE};
	struct errmsg em = {0};
	enum db_err err = addresses_find(&ev.node, address, cluster_members(a->cluster), a->config, &em);

	if (err == DB_OK)
		ask_for_change(a, &ev, reply);
	else
		put_result(reply, "error", err == DB_NOTFOUND ? "UNKNOWN_NODE" : "BAD_REQUEST", em.text, 0);
}

static void answer_replicas(struct answers *a, struct buf *reply)
{
	replicas_json_put(reply, a->cluster, a->config, clock_mono_ms());
}

static void answer_status(struct answers *a, struct buf *reply)
{
	pid_t pids[CLUSTER_NODES_MAX] = {0};

	a->get_pids(a->arg, pids);
	status_json_put(reply, a->cluster, a->config, pids, a->started_ms, clock_mono_ms());
}

/* Why a process may not be away for a moment; NULL: it may. */
static const char *objection(const struct answers *a, unsigned node)
{
	struct cluster_node_view v;
	struct cluster_view c;
	unsigned n, voters = 0, others_up = 0;

	cluster_view(a->cluster, &c);
	for (n = 0; n < c.node_count; n++) {
		cluster_node_view(a->cluster, n, clock_mono_ms(), &v);
		if (!v.present || !v.voting)
			continue;
		voters++;
		others_up += n != node && v.keeps_up;
	}
	cluster_node_view(a->cluster, node, clock_mono_ms(), &v);
	if (c.stopping || c.switching || c.changing)
		return "the cluster is stopping, or a switchover or a change of the members is under way";
	if (!v.running)
		return "it does not run: it is started anyway";
	if (voters > 1 && c.master == node)
		return "it is the master: hand over first (switchover)";
	if (v.voting && others_up + 1 < voters)
		return "not every other voter is up: with this one away too, writes might not find their quorum";
	return NULL;
}

static void answer_restart(struct answers *a, const char *address, struct buf *reply)
{
	struct errmsg em = {0};
	char text[CLUSTER_TEXT_MAX];
	const char *why;
	unsigned node;

	if (addresses_find(&node, address, cluster_members(a->cluster), a->config, &em) != DB_OK) {
		put_result(reply, "error", "UNKNOWN_NODE", em.text, 0);
		return;
	}
	why = objection(a, node);
	snprintf(text, sizeof(text), "node%u is not restarted: %s", node + 1, why != NULL ? why : "");
	if (why != NULL)
		put_result(reply, "error", "NOT_NOW", text, 0);
	else if (a->restart(a->arg, node, &em) != DB_OK)
		put_result(reply, "error", "FAILED", em.text, 0);
	else
		put_result(reply, "ok", "", "it is being restarted", 0);
}

static void answer_replace(struct answers *a, const char *program, struct buf *reply)
{
	struct errmsg em = {0};

	if (a->replace(a->arg, program, &em) != DB_OK)
		put_result(reply, "error", "FAILED", em.text, 0);
	else
		put_result(reply, "ok", "", "the supervisor is being replaced", 0);
}

static void answer_reload(struct answers *a, struct buf *reply)
{
	struct buf said = {0};
	bool ok = a->reload(a->arg, &said);

	buf_put(&said, "", 1);
	if (said.failed)
		reply->failed = true;
	else
		put_result(reply, ok ? "ok" : "error", ok ? "" : "FAILED", (const char *)said.data, 0);
	buf_fini(&said);
}

/* What changes something leaves a line, whatever came of it; what only looks, and asks how it goes on, does not. */
static void audit(const char *command, json_t *json, const struct buf *reply)
{
	static const char *const audited[] = {"switchover", "add-replica", "remove-replica", "reload", "restart",
					      "replace",    "stop"};
	const char *by = json_string_value(json_object_get(json, "by"));
	const char *detail = json_string_value(json_object_get(json, "address"));
	json_t *answer = json_loadb((const char *)reply->data, reply->len, 0, NULL);
	const char *status = json_string_value(json_object_get(answer, "status"));
	const char *message = json_string_value(json_object_get(answer, "message"));
	char outcome[CLUSTER_TEXT_MAX + 32];
	size_t i;

	if (detail == NULL)
		detail = json_string_value(json_object_get(json, "to"));
	if (detail == NULL)
		detail = json_string_value(json_object_get(json, "program"));
	if (json_is_string(json_object_get(answer, "code")) &&
	    strcmp(json_string_value(json_object_get(answer, "code")), "NOT_NOW") == 0)
		goto done; /* it is asked again, many times */
	snprintf(outcome, sizeof(outcome), "%s%s%s", status == NULL ? "no answer" : status,
		 message != NULL && message[0] != '\0' ? ": " : "", message == NULL ? "" : message);
	log_set_request_id(json_string_value(json_object_get(json, "request_id")));
	for (i = 0; i < sizeof(audited) / sizeof(audited[0]); i++)
		if (strcmp(command, audited[i]) == 0)
			audit_write("supervisor", command, detail == NULL ? "" : detail, by == NULL ? "unknown" : by,
				    outcome);
	log_set_request_id(NULL);
done:
	json_decref(answer);
}

void answers_command(void *arg, const char *text, size_t len, struct buf *reply)
{
	const struct cluster_event stop = {.type = CLUSTER_STOP};
	struct answers *a = arg;
	json_error_t reason;
	json_t *json = json_loadb(text, len, 0, &reason);
	const char *command = json_string_value(json_object_get(json, "command"));
	const char *address = json_string_value(json_object_get(json, "address"));
	uint64_t id = (uint64_t)json_integer_value(json_object_get(json, "id"));

	if (command == NULL) {
		put_result(reply, "error", "BAD_REQUEST", "the request is not understood", 0);
	} else if (strcmp(command, "status") == 0) {
		answer_status(a, reply);
	} else if (strcmp(command, "switchover") == 0) {
		answer_switchover(a, json_string_value(json_object_get(json, "to")), reply);
	} else if (strcmp(command, "switchover-result") == 0) {
		put_pending(&a->switchover, "switchover", id, reply);
	} else if (strcmp(command, "replicas") == 0) {
		answer_replicas(a, reply);
	} else if (strcmp(command, "add-replica") == 0 && address != NULL) {
		answer_add(a, address, json_is_true(json_object_get(json, "readonly")), reply);
	} else if (strcmp(command, "remove-replica") == 0 && address != NULL) {
		answer_remove(a, address, reply);
	} else if (strcmp(command, "change-result") == 0) {
		if (!put_ending(a, id, reply))
			put_pending(&a->change, "change of the members", id, reply);
	} else if (strcmp(command, "reload") == 0) {
		answer_reload(a, reply);
	} else if (strcmp(command, "restart") == 0 && address != NULL) {
		answer_restart(a, address, reply);
	} else if (strcmp(command, "replace") == 0 && json_is_string(json_object_get(json, "program"))) {
		answer_replace(a, json_string_value(json_object_get(json, "program")), reply);
	} else if (strcmp(command, "stop") == 0) {
		put_result(reply, "ok", "", "stopping", 0);
		a->feed(a->arg, &stop);
	} else {
		put_result(reply, "error", "BAD_REQUEST", "there is no such command", 0);
	}
	if (command != NULL)
		audit(command, json, reply);
	json_decref(json);
}

void answers_switchover_done(struct answers *a, bool ok, const char *text)
{
	set_done(&a->switchover, ok, text);
}

void answers_change_done(struct answers *a, bool ok, const char *text)
{
	set_done(a->asking_change && !a->immediate.done ? &a->immediate : &a->change, ok, text);
}

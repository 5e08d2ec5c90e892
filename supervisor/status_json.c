/* status_json.c - see status_json.h. */
#include "supervisor/status_json.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"

#include "supervisor/salvage_list.h"

static json_t *number(uint64_t v)
{
	return json_integer(v > INT64_MAX ? INT64_MAX : (json_int_t)v); /* a peer's number: it may be anything */
}

static json_t *number_or_null(bool known, uint64_t v)
{
	return known ? number(v) : json_null();
}

json_t *status_json_text(const char *text)
{
	json_t *json = json_string(text);
	char ascii[CLUSTER_REASON_MAX];
	size_t i;

	if (json != NULL)
		return json;
	for (i = 0; i + 1 < sizeof(ascii) && text[i] != '\0'; i++)
		ascii[i] = (char)((text[i] & 0x80) != 0 ? '?' : text[i]);
	ascii[i] = '\0';
	return json_string(ascii);
}

static json_t *text_or_null(const char *text)
{
	return text[0] == '\0' ? json_null() : status_json_text(text);
}

/* The change files that a node left; null when they cannot be listed. */
static json_t *salvage_to_json(unsigned n)
{
	struct salvage_files *files = malloc(sizeof(*files));
	struct errmsg em = {0};
	json_t *list = NULL;
	size_t i;

	if (files != NULL && salvage_list(files, n, &em) == DB_OK)
		list = json_array();
	for (i = 0; list != NULL && i < files->count; i++)
		if (json_array_append_new(list, json_string(files->items[i].path)) != 0)
			break;
	free(files);
	return list == NULL ? json_null() : list;
}

/* What the node's heartbeat says of its disk and its log's thread; and how the process before ended. */
static json_t *disk_to_json(const struct cluster_node_view *v)
{
	const struct wire_node_status *s = &v->status;

	return json_pack("{s:o, s:o, s:o, s:o, s:b, s:o, s:o}", "disk_age_ms",
			 number_or_null(v->answered, s->disk_age_ms), "disk_busy_ms",
			 number_or_null(v->answered, s->disk_busy_ms), "stuck_ms",
			 number_or_null(v->answered, s->stuck_ms), "disk_free_bytes",
			 number_or_null(v->answered && s->disk_free_bytes != UINT64_MAX, s->disk_free_bytes),
			 "low_space", (int)s->low_space, "last_end", text_or_null(v->ended), "version",
			 text_or_null(v->answered ? s->version : ""));
}

/* Adds the members of more, whose reference it takes, to those of object. NULL when either is: out of memory. */
static json_t *joined(json_t *object, json_t *more)
{
	if (object != NULL && (more == NULL || json_object_update(object, more) != 0)) {
		json_decref(object);
		object = NULL;
	}
	json_decref(more);
	return object;
}

static json_t *node_to_json(const struct cluster *c, const struct cluster_config *config, unsigned n, pid_t pid,
			    uint64_t now_ms)
{
	struct cluster_node_view v;
	char http[CONFIG_ADDRESS_MAX];
	char replication[CONFIG_ADDRESS_MAX];
	char checksum[17];
	char id[16];
	json_t *node;

	cluster_node_view(c, n, now_ms, &v);
	members_address(&v.entry, config, CONFIG_HTTP, http);
	members_address(&v.entry, config, CONFIG_REPLICATION, replication);
	snprintf(id, sizeof(id), "node%u", n + 1);
	snprintf(checksum, sizeof(checksum), "%016" PRIx64, v.status.db_checksum);
	node = json_pack(
	    "{s:s, s:s, s:s, s:o, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:b, s:b, s:s, s:o, s:o}",
	    "id", id, "role", v.role, "state", v.state, "pid", number_or_null(pid > 0, (uint64_t)pid), "http", http,
	    "replication", replication, "term", number_or_null(v.answered, v.status.promised_term), "durable_lsn",
	    number_or_null(v.answered, v.status.durable_lsn), "applied_lsn",
	    number_or_null(v.answered, v.status.applied_lsn), "committed_lsn",
	    number_or_null(v.answered, v.status.committed_lsn), "lag_ms", number_or_null(v.answered, v.status.lag_ms),
	    "heartbeat_age_ms", number_or_null(v.answered, now_ms - v.heard_ms), "restarts", number(v.restarts),
	    "db_checksum", v.answered ? json_string(checksum) : json_null(), "draining", (int)v.status.draining,
	    "keeps_up", (int)v.keeps_up, "voting", (int)v.voting, "member", members_state_name(v.membership), "reason",
	    text_or_null(v.reason), "salvage", salvage_to_json(n));
	return joined(node, disk_to_json(&v));
}

static json_t *cluster_to_json(const struct cluster *c, const struct cluster_config *config, const pid_t *pids,
			       uint64_t now_ms)
{
	struct cluster_view v;
	char endpoint[CONFIG_ADDRESS_MAX];
	char cluster_id[33];
	char reason[CLUSTER_REASON_MAX];
	char master[16];
	json_t *nodes = json_array();
	unsigned i;

	cluster_view(c, &v);
	cluster_reason(c, now_ms, reason, sizeof(reason));
	config_endpoint_address(config, endpoint);
	for (i = 0; i < 16; i++)
		snprintf(cluster_id + 2 * i, 3, "%02x", config->cluster_id[i]);
	snprintf(master, sizeof(master), "node%u", v.master + 1);
	for (i = 0; i < v.node_count && nodes != NULL; i++) {
		struct cluster_node_view node;

		cluster_node_view(c, i, now_ms, &node);
		if (!node.present)
			continue;
		if (json_array_append_new(nodes, node_to_json(c, config, i, pids[i], now_ms)) != 0) {
			json_decref(nodes);
			return NULL;
		}
	}
	return json_pack("{s:s, s:o, s:o, s:s, s:o, s:i, s:b, s:b, s:o, s:o, s:{s:o, s:o}, s:o, s:o}", "cluster",
			 cluster_id, "term", number(v.term), "master",
			 v.master == CLUSTER_NOBODY ? json_null() : json_string(master), "endpoint", endpoint,
			 "failovers", number(v.failovers), "supervisor_pid", (int)getpid(), "switchover",
			 (int)v.switching, "stopping", (int)v.stopping, "reason", text_or_null(reason), "change",
			 text_or_null(v.change), "log", "keep_bytes", number(config->log.keep_bytes), "max_bytes",
			 number(config->log.max_bytes), "archive", text_or_null(config->archive.dir), "nodes", nodes);
}

static json_t *supervisor_to_json(uint64_t started_ms, uint64_t now_ms)
{
	return json_pack("{s:s, s:o}", "version", PACKAGE_VERSION, "uptime_ms", number(now_ms - started_ms));
}

void status_json_put(struct buf *b, const struct cluster *c, const struct cluster_config *config, const pid_t *pids,
		     uint64_t started_ms, uint64_t now_ms)
{
	json_t *json = joined(cluster_to_json(c, config, pids, now_ms), supervisor_to_json(started_ms, now_ms));
	char *text = json == NULL ? NULL : json_dumps(json, JSON_INDENT(2));

	json_decref(json);
	if (text == NULL) {
		b->failed = true;
		return;
	}
	buf_puts(b, text);
	free(text);
}

/* ---- the members */

static json_t *replica_to_json(const struct cluster_node_view *v, const struct cluster_config *config, unsigned n)
{
	char http[CONFIG_ADDRESS_MAX];
	char replication[CONFIG_ADDRESS_MAX];
	char id[16];

	members_address(&v->entry, config, CONFIG_HTTP, http);
	members_address(&v->entry, config, CONFIG_REPLICATION, replication);
	snprintf(id, sizeof(id), "node%u", n + 1);
	return json_pack("{s:s, s:s, s:s, s:s, s:b, s:s, s:s, s:o, s:o, s:o}", "id", id, "address", http, "replication",
			 replication, "role", v->role, "voting", (int)v->voting, "member",
			 members_state_name(v->membership), "state", v->state, "durable_lsn",
			 number_or_null(v->answered, v->status.durable_lsn), "applied_lsn",
			 number_or_null(v->answered, v->status.applied_lsn), "lag_ms",
			 number_or_null(v->answered, v->status.lag_ms));
}

void replicas_json_put(struct buf *b, const struct cluster *c, const struct cluster_config *config, uint64_t now_ms)
{
	json_t *list = json_array();
	json_t *json = NULL;
	char *text = NULL;
	struct cluster_node_view node;
	struct cluster_view v;
	bool ok = list != NULL;
	unsigned i;

	cluster_view(c, &v);
	for (i = 0; i < v.node_count && ok; i++) {
		cluster_node_view(c, i, now_ms, &node);
		if (members_present(node.membership))
			ok = json_array_append_new(list, replica_to_json(&node, config, i)) == 0;
	}
	if (ok)
		json = json_pack("{s:s, s:o, s:I, s:O}", "status", "ok", "change", text_or_null(v.change), "version",
				 (json_int_t)cluster_members(c)->version, "replicas", list);
	if (json != NULL)
		text = json_dumps(json, JSON_INDENT(2));
	if (text == NULL)
		b->failed = true;
	else
		buf_puts(b, text);
	free(text);
	json_decref(json);
	json_decref(list);
}

/* ---- the table */

#define COLUMNS  12
#define CELL_MAX 80

struct table {
	size_t columns;
	size_t rows;
	char cells[CONFIG_NODES_MAX + 1][COLUMNS][CELL_MAX];
};

static const char *string_of(json_t *object, const char *key, const char *otherwise)
{
	const char *s = json_string_value(json_object_get(object, key));

	return s == NULL ? otherwise : s;
}

static void number_cell(char cell[CELL_MAX], json_t *object, const char *key, const char *unit)
{
	json_t *v = json_object_get(object, key);

	if (json_is_integer(v))
		snprintf(cell, CELL_MAX, "%" JSON_INTEGER_FORMAT "%s", json_integer_value(v), unit);
	else
		snprintf(cell, CELL_MAX, "-");
}

static void fill_row(char row[COLUMNS][CELL_MAX], json_t *node)
{
	static const char *const strings[] = {"id", "role", "state"};
	static const char *const numbers[] = {"term", "durable_lsn", "applied_lsn", "committed_lsn"};
	size_t i;

	for (i = 0; i < 3; i++)
		snprintf(row[i], CELL_MAX, "%s", string_of(node, strings[i], "-"));
	number_cell(row[3], node, "pid", "");
	snprintf(row[4], CELL_MAX, "%s", string_of(node, "http", "-"));
	for (i = 0; i < 4; i++)
		number_cell(row[5 + i], node, numbers[i], "");
	number_cell(row[9], node, "lag_ms", " ms");
	number_cell(row[10], node, "restarts", "");
	snprintf(row[11], CELL_MAX, "%s", json_is_true(json_object_get(node, "voting")) ? "yes" : "no");
}

static void put_table(struct buf *b, const struct table *t, const bool right[COLUMNS])
{
	size_t row, column;

	for (row = 0; row < t->rows; row++) {
		for (column = 0; column < t->columns; column++) {
			size_t width = 0;
			size_t i;

			for (i = 0; i < t->rows; i++)
				if (strlen(t->cells[i][column]) > width)
					width = strlen(t->cells[i][column]);
			if (column + 1 == t->columns && !right[column])
				width = 0; /* no blanks at the end of a line */
			buf_printf(b, right[column] ? "%*s" : "%-*s", (int)width, t->cells[row][column]);
			buf_puts(b, column + 1 < t->columns ? "  " : "\n");
		}
	}
}

static void put_headline(struct buf *b, json_t *json)
{
	const char *master = string_of(json, "master", NULL);
	char term[CELL_MAX];
	char failovers[CELL_MAX];

	number_cell(term, json, "term", "");
	number_cell(failovers, json, "failovers", "");
	buf_printf(b, "cluster %s  term %s  master %s  endpoint %s  failovers %s\n", string_of(json, "cluster", "-"),
		   term, master == NULL ? "none" : master, string_of(json, "endpoint", "-"), failovers);
	if (master == NULL)
		buf_printf(b, "no master: %s\n", string_of(json, "reason", "no reason given"));
}

static void put_salvage(struct buf *b, json_t *node)
{
	json_t *list = json_object_get(node, "salvage");
	size_t i;

	for (i = 0; i < json_array_size(list); i++)
		buf_printf(b, "%s: had changes that the cluster lacks, kept in %s\n", string_of(node, "id", "-"),
			   json_string_value(json_array_get(list, i)));
}

static void put_change(struct buf *b, json_t *json)
{
	const char *change = string_of(json, "change", NULL);

	if (change != NULL)
		buf_printf(b, "members: %s\n", change);
}

/* Only when they are not all the same: in the middle of an upgrade. */
static void put_versions(struct buf *b, json_t *json)
{
	const char *ours = string_of(json, "version", "-");
	json_t *nodes = json_object_get(json, "nodes");
	bool differ = false;
	size_t i;

	for (i = 0; i < json_array_size(nodes); i++)
		differ = differ || strcmp(string_of(json_array_get(nodes, i), "version", ours), ours) != 0;
	if (!differ)
		return;
	buf_printf(b, "versions differ: supervisor %s", ours);
	for (i = 0; i < json_array_size(nodes); i++)
		buf_printf(b, ", %s %s", string_of(json_array_get(nodes, i), "id", "-"),
			   string_of(json_array_get(nodes, i), "version", "-"));
	buf_puts(b, "\n");
}

static void fill_replica(char row[COLUMNS][CELL_MAX], json_t *replica)
{
	static const char *const strings[] = {"id", "address", "replication", "role"};
	size_t i;

	for (i = 0; i < 4; i++)
		snprintf(row[i], CELL_MAX, "%s", string_of(replica, strings[i], "-"));
	snprintf(row[4], CELL_MAX, "%s", json_is_true(json_object_get(replica, "voting")) ? "yes" : "no");
	snprintf(row[5], CELL_MAX, "%s", string_of(replica, "state", "-"));
	number_cell(row[6], replica, "durable_lsn", "");
	number_cell(row[7], replica, "applied_lsn", "");
	number_cell(row[8], replica, "lag_ms", " ms");
}

enum db_err replicas_text_put(struct buf *b, const char *text, size_t len, struct errmsg *em)
{
	static const char *const titles[] = {"ID",    "ADDRESS", "REPLICATION", "ROLE", "VOTING",
					     "STATE", "DURABLE", "APPLIED",     "LAG"};
	static const bool right[COLUMNS] = {[6] = true, [7] = true, [8] = true};
	struct table *t = calloc(1, sizeof(*t));
	json_error_t reason;
	json_t *json = json_loadb(text, len, 0, &reason);
	json_t *list = json_object_get(json, "replicas");
	enum db_err err = DB_OK;
	size_t i;

	if (t == NULL) {
		err = errmsg_set(em, DB_NOMEM, "no memory for a table");
		goto free_all;
	}
	if (!json_is_array(list) || json_array_size(list) > CONFIG_NODES_MAX) {
		err = errmsg_set(em, DB_INVALID, "the supervisor's answer is not understood");
		goto free_all;
	}
	t->columns = sizeof(titles) / sizeof(titles[0]);
	t->rows = json_array_size(list) + 1;
	for (i = 0; i < t->columns; i++)
		snprintf(t->cells[0][i], CELL_MAX, "%s", titles[i]);
	for (i = 0; i + 1 < t->rows; i++)
		fill_replica(t->cells[i + 1], json_array_get(list, i));
	put_table(b, t, right);
	put_change(b, json);
free_all:
	json_decref(json);
	free(t);
	return err;
}

enum db_err status_text_put(struct buf *b, const char *text, size_t len, struct errmsg *em)
{
	static const char *const titles[COLUMNS] = {"ID",      "ROLE",    "STATE",     "PID", "HTTP",     "TERM",
						    "DURABLE", "APPLIED", "COMMITTED", "LAG", "RESTARTS", "VOTING"};
	static const bool right[COLUMNS] = {
	    [3] = true, [5] = true, [6] = true, [7] = true, [8] = true, [9] = true, [10] = true};
	struct table *t = calloc(1, sizeof(*t));
	json_error_t reason;
	json_t *json = json_loadb(text, len, 0, &reason);
	json_t *nodes = json_object_get(json, "nodes");
	enum db_err err = DB_OK;
	size_t i;

	if (t == NULL) {
		err = errmsg_set(em, DB_NOMEM, "no memory for a table");
		goto free_all;
	}
	if (!json_is_array(nodes) || json_array_size(nodes) > CONFIG_NODES_MAX) {
		err = errmsg_set(em, DB_INVALID, "the supervisor's answer is not understood");
		goto free_all;
	}
	put_headline(b, json);
	t->columns = COLUMNS;
	for (i = 0; i < COLUMNS; i++)
		snprintf(t->cells[0][i], CELL_MAX, "%s", titles[i]);
	t->rows = json_array_size(nodes) + 1;
	for (i = 0; i + 1 < t->rows; i++)
		fill_row(t->cells[i + 1], json_array_get(nodes, i));
	put_table(b, t, right);
	put_change(b, json);
	put_versions(b, json);
	for (i = 0; i + 1 < t->rows; i++) {
		json_t *node = json_array_get(nodes, i);
		const char *why = string_of(node, "reason", NULL);

		if (why != NULL)
			buf_printf(b, "%s: %s\n", string_of(node, "id", "-"), why);
		put_salvage(b, node);
	}
free_all:
	json_decref(json);
	free(t);
	return err;
}

/* roster.c - see roster.h. Jansson is used here and in the status files, and appears in no header. */
#include "supervisor/roster.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static json_t *node_to_json(const struct roster_node *n, unsigned index)
{
	char id[16];

	snprintf(id, sizeof(id), "node%u", index + 1);
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:b, s:b}", "id", id, "pid", (json_int_t)n->pid, "start_ticks",
			 (json_int_t)n->start_ticks, "started_us", (json_int_t)n->started_us, "restarts",
			 (json_int_t)n->restarts, "answered", (int)n->answered, "master", (int)n->master);
}

static json_t *roster_to_json(const struct roster *r)
{
	json_t *nodes = json_array();
	unsigned i;

	if (nodes == NULL)
		return NULL;
	for (i = 0; i < r->node_count; i++) {
		if (json_array_append_new(nodes, node_to_json(&r->nodes[i], i)) != 0) {
			json_decref(nodes);
			return NULL;
		}
	}
	return json_pack("{s:s, s:I, s:I, s:o}", "boot_id", r->boot_id, "supervisor_pid", (json_int_t)r->supervisor_pid,
			 "term", (json_int_t)r->term, "nodes", nodes);
}

static enum db_err write_file(const char *path, const char *text, struct errmsg *em)
{
	size_t len = strlen(text);
	enum db_err err = DB_OK;
	ssize_t n;
	int fd;

	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return errmsg_errno(em, errno, "cannot create \"%s\"", path);
	n = write(fd, text, len);
	if (n < 0)
		err = errmsg_errno(em, errno, "cannot write \"%s\"", path);
	else if ((size_t)n != len)
		err = errmsg_set(em, DB_FULL, "cannot write the whole of \"%s\"", path);
	close(fd);
	return err;
}

enum db_err roster_store(const struct roster *r, const char *path, struct errmsg *em)
{
	char temp[PATH_MAX];
	json_t *json = roster_to_json(r);
	char *text = json == NULL ? NULL : json_dumps(json, JSON_INDENT(2));
	enum db_err err;
	int n;

	json_decref(json);
	if (text == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory to write \"%s\"", path);
	n = snprintf(temp, sizeof(temp), "%s.new", path);
	if (n < 0 || (size_t)n >= sizeof(temp))
		err = errmsg_set(em, DB_INVALID, "path \"%s\" is too long", path);
	else
		err = write_file(temp, text, em);
	if (err == DB_OK && rename(temp, path) != 0)
		err = errmsg_errno(em, errno, "cannot rename \"%s\"", temp);
	free(text);
	return err;
}

static bool node_from_json(struct roster_node *n, json_t *json)
{
	json_int_t pid, start_ticks, started_us, restarts;
	int answered, master;

	if (json_unpack(json, "{s:I, s:I, s:I, s:I, s:b, s:b}", "pid", &pid, "start_ticks", &start_ticks, "started_us",
			&started_us, "restarts", &restarts, "answered", &answered, "master", &master) != 0)
		return false;
	if (pid < 0 || pid > INT32_MAX || start_ticks < 0 || started_us < 0 || restarts < 0)
		return false;
	*n = (struct roster_node){.pid = (pid_t)pid,
				  .start_ticks = (uint64_t)start_ticks,
				  .started_us = (uint64_t)started_us,
				  .restarts = (uint64_t)restarts,
				  .answered = answered != 0,
				  .master = master != 0};
	return true;
}

static bool roster_from_json(struct roster *r, json_t *json)
{
	json_int_t pid, term;
	const char *boot_id;
	json_t *nodes;
	unsigned i;

	if (json_unpack(json, "{s:s, s:I, s:I, s:o}", "boot_id", &boot_id, "supervisor_pid", &pid, "term", &term,
			"nodes", &nodes) != 0)
		return false;
	if (!json_is_array(nodes) || json_array_size(nodes) > CONFIG_NODES_MAX || strlen(boot_id) >= sizeof(r->boot_id))
		return false;
	memcpy(r->boot_id, boot_id, strlen(boot_id) + 1);
	r->supervisor_pid = (pid_t)pid;
	r->term = (uint64_t)term;
	r->node_count = (unsigned)json_array_size(nodes);
	for (i = 0; i < r->node_count; i++)
		if (!node_from_json(&r->nodes[i], json_array_get(nodes, i)))
			return false;
	return true;
}

enum db_err roster_load(struct roster *r, const char *path, struct errmsg *em)
{
	json_error_t reason;
	enum db_err err = DB_OK;
	json_t *json;

	memset(r, 0, sizeof(*r));
	if (access(path, F_OK) != 0)
		return errmsg_errno(em, errno, "\"%s\"", path);
	json = json_load_file(path, 0, &reason);
	if (json == NULL)
		return errmsg_set(em, DB_INVALID, "\"%s\": %s", path, reason.text);
	if (!roster_from_json(r, json)) {
		memset(r, 0, sizeof(*r));
		err = errmsg_set(em, DB_INVALID, "\"%s\" is not understood", path);
	}
	json_decref(json);
	return err;
}

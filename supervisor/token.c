/*
 * token.c - `grizzly-supervisor token add|list|revoke`: changes the tokens file and tells the nodes that run.
 *
 * Works with and without a supervisor, for the file is the authority and each node has a control socket of its own.
 * The lock on the data directory is held until every node has answered, so that each says which version it has of
 * this change and not of the next one. The token goes to stdout, once; everything else to stderr. Main thread.
 */
#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/auth/token_file.h"
#include "common/base/audit.h"
#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/wire/link.h"
#include "supervisor/adopt.h"
#include "supervisor/commands.h"
#include "supervisor/launcher.h"
#include "supervisor/time_text.h"

#define NODE_TIMEOUT_MS 2000u

static const char reload_request[] = "{\"command\":\"reload-tokens\"}";

static enum exit_code fail(enum db_err err, const struct errmsg *em)
{
	fprintf(stderr, "grizzly-supervisor: %s\n", em->text);
	return err == DB_INVALID ? EXIT_USAGE : EXIT_FAILED;
}

/* Enters the data directory and loads what it has of tokens. lock NULL: only to look. */
static enum db_err open_tokens(const char *data_dir, struct cluster_config *config, struct token_file *f, int *lock,
			       struct errmsg *em)
{
	enum db_err err = datadir_enter(data_dir, false, em);

	*f = (struct token_file){0};
	if (err == DB_OK) {
		config_init(config);
		err = config_load(config, DATADIR_CONFIG, em);
	}
	if (err == DB_OK && lock != NULL)
		err = token_file_lock(lock, em);
	if (err != DB_OK)
		return err;
	err = token_file_load(f, DATADIR_TOKENS, config->cluster_id, em);
	return err == DB_NOTFOUND ? DB_OK : err;
}

/* ---- telling the nodes */

/* One node, being told. */
struct told {
	struct telling *telling;
	struct process process; /* pidfd -1: none runs */
	struct link_req *link;
	struct buf reply;
	enum db_err err;
	struct errmsg em;
};

/* All of them at once: one that stands still holds up nobody. */
struct telling {
	pthread_mutex_t lock; /* guards what follows, and the outcome in nodes */
	pthread_cond_t answered;
	unsigned open;
	struct told nodes[CONFIG_NODES_MAX];
};

/* A thread of NNG. */
static void on_reply(void *arg, enum db_err err, const void *bytes, size_t len)
{
	struct told *n = arg;
	struct telling *t = n->telling;

	pthread_mutex_lock(&t->lock);
	n->err = err;
	if (err == DB_OK)
		buf_put(&n->reply, bytes, len);
	t->open--;
	pthread_cond_signal(&t->answered);
	pthread_mutex_unlock(&t->lock);
}

static enum db_err begin(struct told *n, unsigned number)
{
	struct wire_msg *msg = calloc(1, sizeof(*msg));
	char path[64], url[LINK_URL_MAX];
	struct buf bytes = {0};
	enum db_err err = DB_NOMEM;

	if (msg == NULL)
		return errmsg_set(&n->em, DB_NOMEM, "out of memory");
	msg->head.type = WIRE_CLI_REQUEST;
	snprintf(msg->head.sender, sizeof(msg->head.sender), "command");
	msg->body.text.text = reload_request;
	msg->body.text.len = sizeof(reload_request) - 1;
	wire_encode(&bytes, msg);
	snprintf(path, sizeof(path), DATADIR_RUN "/node%u.ctl", number);
	if (!bytes.failed)
		err = link_ipc_url(url, path, &n->em);
	if (err == DB_OK)
		err = link_req_create(&n->link, url, &n->em);
	if (err == DB_OK) /* one that is just starting is connected to when it listens */
		err = link_req_send(n->link, bytes.data, bytes.len, NODE_TIMEOUT_MS, on_reply, n);
	buf_fini(&bytes);
	free(msg);
	return err;
}

static enum db_err read_answer(const char *text, size_t len, uint64_t wanted, struct errmsg *em)
{
	json_t *json = json_loadb(text, len, 0, NULL);
	const char *checksum = json_string_value(json_object_get(json, "checksum"));
	const char *message = json_string_value(json_object_get(json, "message"));
	enum db_err err = DB_OK;

	if (checksum == NULL)
		err = errmsg_set(em, DB_INVALID, "%s", message != NULL ? message : "its answer is not understood");
	else if (strtoull(checksum, NULL, 16) != wanted)
		err = errmsg_set(em, DB_INVALID, "it has another version of the tokens file");
	json_decref(json);
	return err;
}

/* What came of it; DB_OK also when it has ended meanwhile: its successor reads the file. */
static enum db_err judge(struct told *n, uint64_t checksum)
{
	struct wire_msg *msg = calloc(1, sizeof(*msg));
	enum db_err err = n->err;

	if (err == DB_TIMEOUT || err == DB_UNAVAILABLE)
		errmsg_set(&n->em, err, "it does not answer");
	else if (err == DB_OK && (msg == NULL || n->reply.failed))
		err = errmsg_set(&n->em, DB_NOMEM, "out of memory");
	if (err == DB_OK)
		err = wire_decode(msg, n->reply.data, n->reply.len, NULL, &n->em);
	if (err == DB_OK && msg->head.type != WIRE_CLI_REPLY)
		err = errmsg_set(&n->em, DB_INVALID, "its answer is not understood");
	if (err == DB_OK)
		err = read_answer(msg->body.text.text, msg->body.text.len, checksum, &n->em);
	free(msg);
	return err != DB_OK && process_gone(&n->process) ? DB_OK : err;
}

static void tell_all(struct telling *t)
{
	enum db_err err;
	unsigned i;

	for (i = 0; i < CONFIG_NODES_MAX; i++) {
		struct told *n = &t->nodes[i];

		if (n->process.pidfd < 0)
			continue;
		n->telling = t;
		pthread_mutex_lock(&t->lock);
		t->open++;
		pthread_mutex_unlock(&t->lock);
		err = begin(n, i + 1);
		if (err != DB_OK)
			on_reply(n, err, NULL, 0);
	}
	pthread_mutex_lock(&t->lock);
	while (t->open > 0)
		pthread_cond_wait(&t->answered, &t->lock);
	pthread_mutex_unlock(&t->lock);
}

static void find_nodes(struct telling *t)
{
	struct process processes[CONFIG_NODES_MAX];
	struct roster roster;
	unsigned i;

	for (i = 0; i < CONFIG_NODES_MAX; i++)
		processes[i] = PROCESS_NONE;
	adopt_running(processes, &roster);
	for (i = 0; i < CONFIG_NODES_MAX; i++)
		t->nodes[i].process = processes[i];
}

/* False: some node that runs has not got it; which, and why, is printed. */
static bool tell_nodes(uint64_t checksum)
{
	struct telling *t = calloc(1, sizeof(*t));
	unsigned i, running = 0;
	bool all = true;

	if (t == NULL) {
		fprintf(stderr, "grizzly-supervisor: out of memory: the nodes are not told\n");
		return false;
	}
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->answered, NULL);
	find_nodes(t);
	tell_all(t);
	for (i = 0; i < CONFIG_NODES_MAX; i++) {
		struct told *n = &t->nodes[i];

		if (n->process.pidfd < 0)
			continue;
		running++;
		if (judge(n, checksum) != DB_OK) {
			fprintf(stderr, "grizzly-supervisor: node%u has not got it: %s\n", i + 1, n->em.text);
			all = false;
		}
		link_req_free(n->link);
		buf_fini(&n->reply);
		process_close(&n->process);
	}
	if (!all)
		fprintf(stderr, "a node that goes on looks at the file within a second\n");
	else if (running > 0)
		fprintf(stderr, "it is in force on all %u nodes that run\n", running);
	else
		fprintf(stderr, "no node runs: it is in force when they start\n");
	pthread_cond_destroy(&t->answered);
	pthread_mutex_destroy(&t->lock);
	free(t);
	return all;
}

/* ---- add, revoke */

static enum db_err store(struct token_file *f, const struct cluster_config *config, struct errmsg *em)
{
	return token_file_store(f, DATADIR_TOKENS, config->cluster_id, em);
}

/* The nodes have it before it is printed: whoever reads it can use it. */
static void close_tokens(struct token_file *f, int lock)
{
	token_file_fini(f);
	if (lock >= 0)
		close(lock);
}

static enum exit_code print_token(const char *token, bool all)
{
	if (puts(token) >= 0 && fflush(stdout) == 0)
		return all ? EXIT_OK : EXIT_FAILED;
	fprintf(stderr, "grizzly-supervisor: the token could not be written: revoke it and make another\n");
	return EXIT_FAILED;
}

/* Who changed what of the tokens, by name. em NULL: it was done. Inside the data directory, so not when that is not there. What
 * is too long for a name may be a token that somebody took for one: it is not repeated. */
static void audit(const char *action, const char *name, const char *detail, const struct errmsg *em)
{
	const struct errmsg no_name = {DB_INVALID, "error: that is too long for a name"};
	char by[AUDIT_BY_MAX], what[256];

	snprintf(what, sizeof(what), "%s%s", strlen(name) > TOKEN_NAME_MAX ? "(no name)" : name, detail);
	if (strlen(name) > TOKEN_NAME_MAX)
		em = &no_name;

	audit_user(by, sizeof(by));
	audit_write("token", action, what, by, em == NULL ? "ok" : em->text);
}

enum exit_code command_token_add(const char *data_dir, const char *name, enum auth_role role, uint64_t expires_us)
{
	struct token_entry entry = {.role = role, .created_us = clock_wall_us(), .expires_us = expires_us};
	char token[TOKEN_TEXT_LEN + 1], until[TIME_TEXT_MAX] = "never", detail[128];
	struct cluster_config config;
	struct errmsg em = {0};
	struct token_file f;
	enum exit_code code;
	enum db_err err;
	bool inside;
	int lock = -1;

	if (expires_us != 0)
		time_text_put(expires_us, until);
	err = open_tokens(data_dir, &config, &f, &lock, &em);
	inside = err == DB_OK;
	if (err == DB_OK && expires_us != 0 && expires_us <= entry.created_us)
		err = errmsg_set(&em, DB_INVALID, "--expires is a time that has passed");
	if (err == DB_OK && strlen(name) >= sizeof(entry.name))
		err = errmsg_set(&em, DB_INVALID, "a token's name has at most %d characters", TOKEN_NAME_MAX);
	if (err == DB_OK) {
		snprintf(entry.name, sizeof(entry.name), "%s", name);
		err = token_file_add(&f, &entry, config.cluster_id, token, &em);
	}
	if (err == DB_OK)
		err = store(&f, &config, &em);
	snprintf(detail, sizeof(detail), ", role %s, expires %s", auth_role_name(role), until);
	if (inside)
		audit("token-add", name, detail, err == DB_OK ? NULL : &em);
	if (err == DB_OK) {
		fprintf(stderr, "token \"%s\", role %s, expires %s; it is shown this once\n", name,
			auth_role_name(role), until);
		code = print_token(token, tell_nodes(f.checksum));
	} else {
		code = fail(err, &em);
	}
	explicit_bzero(token, sizeof(token));
	close_tokens(&f, lock);
	return code;
}

enum exit_code command_token_revoke(const char *data_dir, const char *name)
{
	struct cluster_config config;
	struct errmsg em = {0};
	struct token_file f;
	enum exit_code code;
	enum db_err err;
	bool inside;
	int lock = -1;

	err = open_tokens(data_dir, &config, &f, &lock, &em);
	inside = err == DB_OK;
	if (err == DB_OK)
		err = token_file_remove(&f, name, &em);
	if (err == DB_OK)
		err = store(&f, &config, &em);
	if (inside)
		audit("token-revoke", name, "", err == DB_OK ? NULL : &em);
	if (err == DB_OK) {
		fprintf(stderr, "token \"%s\" is revoked\n", name);
		code = tell_nodes(f.checksum) ? EXIT_OK : EXIT_FAILED;
	} else {
		code = fail(err, &em);
	}
	close_tokens(&f, lock);
	return code;
}

/* ---- list */

static void print_line(const struct token_entry *e, uint64_t now_us)
{
	char created[TIME_TEXT_MAX], expires[TIME_TEXT_MAX];

	time_text_put(e->created_us, created);
	time_text_put(e->expires_us, expires);
	printf("%-24s  %-5s  %s  %-27s  %s%s\n", e->name, auth_role_name(e->role), e->id, created,
	       e->expires_us == 0 ? "never" : expires,
	       e->expires_us != 0 && e->expires_us <= now_us ? "  expired" : "");
}

static json_t *entry_json(const struct token_entry *e, uint64_t now_us)
{
	char created[TIME_TEXT_MAX], expires[TIME_TEXT_MAX];

	time_text_put(e->created_us, created);
	time_text_put(e->expires_us, expires);
	return json_pack("{s:s, s:s, s:s, s:s, s:o, s:b}", "name", e->name, "role", auth_role_name(e->role), "id",
			 e->id, "created", created, "expires", e->expires_us == 0 ? json_null() : json_string(expires),
			 "expired", (int)(e->expires_us != 0 && e->expires_us <= now_us));
}

static enum db_err print_json(const struct token_file *f, uint64_t now_us, struct errmsg *em)
{
	json_t *list = json_array();
	char *text;
	size_t i;
	int rc = list == NULL ? -1 : 0;

	for (i = 0; i < f->count && rc == 0; i++)
		rc = json_array_append_new(list, entry_json(&f->entries[i], now_us));
	text = rc == 0 ? json_dumps(list, JSON_INDENT(2)) : NULL;
	json_decref(list);
	if (text == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	puts(text);
	free(text);
	return DB_OK;
}

enum exit_code command_token_list(const char *data_dir, bool json)
{
	uint64_t now_us = clock_wall_us();
	struct cluster_config config;
	struct errmsg em = {0};
	struct token_file f;
	enum db_err err = open_tokens(data_dir, &config, &f, NULL, &em);
	size_t i;

	if (err == DB_OK && json)
		err = print_json(&f, now_us, &em);
	else if (err == DB_OK && f.count == 0)
		printf("there are no tokens besides the first, in the file \"token\"\n");
	else if (err == DB_OK)
		printf("%-24s  %-5s  %-12s  %-27s  %s\n", "NAME", "ROLE", "ID", "CREATED", "EXPIRES");
	for (i = 0; err == DB_OK && !json && i < f.count; i++)
		print_line(&f.entries[i], now_us);
	token_file_fini(&f);
	if (err == DB_OK && fflush(stdout) != 0)
		err = errmsg_set(&em, DB_IO, "cannot write the list");
	return err == DB_OK ? EXIT_OK : fail(err, &em);
}

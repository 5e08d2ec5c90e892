/* control.c - see control.h. */
#include "node/control.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"

#include "common/base/log.h"
#include "common/query/answer.h"
#include "common/wire/link.h"

struct control {
	struct control_options options;
	struct link_rep *link;
	struct wire_msg request, reply; /* large; the handler runs one at a time */
	struct errmsg refused;          /* what was last refused, and logged: an election asks again and again */
};

static enum db_err carry_out(struct control *c, const struct wire_msg *request, struct errmsg *em)
{
	struct roles *roles = c->options.roles;

	switch (request->head.type) {
	case WIRE_HEARTBEAT:
		return DB_OK;
	case WIRE_SET_TERM:
		return roles_set_term(roles, request->head.term, em);
	case WIRE_PROMOTE:
		return roles_promote(roles, request->head.term, &request->body.members, em);
	case WIRE_MEMBERS:
		return roles_set_members(roles, request->head.term, &request->body.members, em);
	case WIRE_DRAIN:
		return roles_drain(roles, true, em);
	case WIRE_RESUME:
		return roles_drain(roles, false, em);
	default:
		return errmsg_set(em, DB_INVALID, "%s is no command to a node", wire_type_name(request->head.type));
	}
}

static void fill_reply(struct control *c, enum db_err err, const struct errmsg *em)
{
	struct wire_node_status *status = &c->reply.body.status;
	struct wire_head *head = &c->reply.head;

	memset(head, 0, sizeof(*head));
	roles_get_status(c->options.roles, status);
	head->type = WIRE_NODE_STATUS;
	head->term = status->promised_term;
	memcpy(head->cluster_id, c->options.config->cluster_id, sizeof(head->cluster_id));
	snprintf(head->sender, sizeof(head->sender), "%s", c->options.node_id);
	status->accepted = err == DB_OK;
	status->pid = (uint32_t)getpid();
	snprintf(status->version, sizeof(status->version), "%s", PACKAGE_VERSION);
	members_address(c->options.entry, c->options.config, CONFIG_HTTP, status->http_address);
	members_address(c->options.entry, c->options.config, CONFIG_REPLICATION, status->replication_address);
	if (err != DB_OK)
		snprintf(status->reason, sizeof(status->reason), "%.*s", (int)sizeof(status->reason) - 1, em->text);
}

static void put_tokens_answer(struct control *c, const char *text, size_t len, struct buf *out)
{
	json_t *json = json_loadb(text, len, 0, NULL);
	const char *command = json_string_value(json_object_get(json, "command"));
	struct errmsg em = {0};
	uint64_t checksum = 0;

	if (command == NULL || strcmp(command, "reload-tokens") != 0)
		errmsg_set(&em, DB_INVALID, "a node has no such command");
	else if (tokens_reload(c->options.tokens, &checksum, &em) == DB_OK)
		buf_printf(out, "{\"status\":\"ok\",\"checksum\":\"%016" PRIx64 "\"}", checksum);
	json_decref(json);
	if (out->len > 0)
		return;
	buf_puts(out, "{\"status\":\"error\",\"message\":");
	json_put_string(out, em.text, strlen(em.text));
	buf_puts(out, "}");
}

static void answer_command_line(struct control *c, struct buf *reply)
{
	struct wire_head *head = &c->reply.head;
	struct buf text = {0};

	put_tokens_answer(c, c->request.body.text.text, c->request.body.text.len, &text);
	memset(head, 0, sizeof(*head));
	head->type = WIRE_CLI_REPLY;
	memcpy(head->cluster_id, c->options.config->cluster_id, sizeof(head->cluster_id));
	snprintf(head->sender, sizeof(head->sender), "%s", c->options.node_id);
	c->reply.body.text.text = (const char *)text.data;
	c->reply.body.text.len = text.len;
	if (!text.failed)
		wire_encode(reply, &c->reply);
	buf_fini(&text);
}

static void on_request(void *arg, const void *bytes, size_t len, struct buf *reply)
{
	struct control *c = arg;
	struct errmsg em = {0};
	enum db_err err;

	if (wire_decode(&c->request, bytes, len, NULL, &em) == DB_OK && c->request.head.type == WIRE_CLI_REQUEST) {
		answer_command_line(c, reply); /* it knows no cluster id, but could enter run/ */
		return;
	}
	err = wire_decode(&c->request, bytes, len, c->options.config->cluster_id, &em);
	if (err != DB_OK) {
		log_warn("control: dropped a message: %s", em.text);
		return;
	}
	err = carry_out(c, &c->request, &em);
	if (err != DB_OK && strcmp(em.text, c->refused.text) != 0)
		log_warn("control: refused %s of term %llu: %s", wire_type_name(c->request.head.type),
			 (unsigned long long)c->request.head.term, em.text);
	if (err != DB_OK || c->request.head.type != WIRE_HEARTBEAT)
		c->refused = em;
	fill_reply(c, err, &em);
	wire_encode(reply, &c->reply);
}

enum db_err control_create(struct control **out, const struct control_options *options, struct errmsg *em)
{
	struct control *c = calloc(1, sizeof(*c));
	char path[64], url[LINK_URL_MAX];
	enum db_err err;

	*out = NULL;
	if (c == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	c->options = *options;
	snprintf(path, sizeof(path), "run/%.32s.ctl", options->node_id);
	err = link_ipc_url(url, path, em);
	if (err == DB_OK)
		err = link_rep_create(&c->link, url, on_request, c, em);
	if (err != DB_OK) {
		free(c);
		return err;
	}
	*out = c;
	return DB_OK;
}

void control_free(struct control *c)
{
	if (c == NULL)
		return;
	link_rep_free(c->link);
	free(c);
}

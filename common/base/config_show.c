/* config_show.c - see config_show.h. */
#include "common/base/config_show.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* ---- as JSON */

static json_t *section_of(json_t *root, const char *section)
{
	json_t *object = section[0] == '\0' ? root : json_object_get(root, section);

	if (object == NULL && json_object_set_new(root, section, json_object()) == 0)
		object = json_object_get(root, section);
	return object;
}

static bool set(json_t *root, const char *section, const char *name, json_t *value)
{
	json_t *object = section_of(root, section);

	if (object != NULL)
		return json_object_set_new(object, name, value) == 0;
	json_decref(value);
	return false;
}

static bool put_top(json_t *root, const struct cluster_config *c)
{
	char id[33];
	size_t i;

	for (i = 0; i < sizeof(c->cluster_id); i++)
		snprintf(id + 2 * i, 3, "%02x", c->cluster_id[i]);
	return set(root, "", "cluster", json_string(id)) && set(root, "", "bind", json_string(c->bind)) &&
	       set(root, "", "durability", json_string(config_durability_name(c->durability))) &&
	       set(root, "", "insecure", json_boolean(c->insecure));
}

static bool put_numbers(json_t *root, const struct cluster_config *c)
{
	const char *section, *name;
	uint64_t value;
	bool hidden;
	size_t i;

	for (i = 0; config_number(c, i, &section, &name, &value, &hidden); i++)
		if (!hidden && !set(root, section, name, json_integer((json_int_t)value)))
			return false;
	return true;
}

static json_t *node_json(const struct config_remote_node *node)
{
	if (!node->tls)
		return json_pack("{s:s}", "token_file", node->token_file);
	if (node->ca_file[0] == '\0')
		return json_pack("{s:s, s:{}}", "token_file", node->token_file, "tls");
	return json_pack("{s:s, s:{s:s}}", "token_file", node->token_file, "tls", "ca_file", node->ca_file);
}

static bool put_remote(json_t *root, const struct cluster_config *c)
{
	json_t *nodes = json_object();
	json_t *allow = json_array();
	bool good = true;
	size_t i;

	for (i = 0; i < c->remote.node_count; i++)
		good =
		    good && json_object_set_new(nodes, c->remote.nodes[i].address, node_json(&c->remote.nodes[i])) == 0;
	for (i = 0; i < c->remote.allow_count; i++)
		good = good && json_array_append_new(allow, json_string(c->remote.allow[i])) == 0;
	good = set(root, "remote", "nodes", nodes) && good;
	return set(root, "remote", "allow", allow) && good;
}

static bool put_tls(json_t *root, const struct cluster_config *c)
{
	const char *clients = config_client_certificates_name(c->tls.client_certificates);

	return set(root, "tls", "cert_file", json_string(c->tls.cert_file)) &&
	       set(root, "tls", "key_file", json_string(c->tls.key_file)) &&
	       set(root, "tls", "ca_file", json_string(c->tls.ca_file)) &&
	       set(root, "tls", "client_ca_file", json_string(c->tls.client_ca_file)) &&
	       set(root, "tls", "client_certificates", json_string(clients));
}

static bool put_names(json_t *root, const struct cluster_config *c)
{
	const char *format = c->logging.format == LOG_FORMAT_JSON ? "json" : "text";

	const char *local = config_replication_local_name(c->replication.local);

	return set(root, "replication", "local", json_string(local)) &&
	       set(root, "archive", "dir", json_string(c->archive.dir)) &&
	       set(root, "logging", "level", json_string(log_level_name(c->logging.level))) &&
	       set(root, "logging", "format", json_string(format));
}

/* The caller's, for json_decref(); NULL: memory is short. */
static json_t *to_json(const struct cluster_config *c)
{
	json_t *root = json_object();

	if (root != NULL && put_top(root, c) && put_numbers(root, c) && put_tls(root, c) && put_remote(root, c) &&
	    put_names(root, c))
		return root;
	json_decref(root);
	return NULL;
}

void config_put_json(struct buf *out, const struct cluster_config *c)
{
	json_t *root = to_json(c);
	char *text = root == NULL ? NULL : json_dumps(root, JSON_INDENT(2));

	json_decref(root);
	if (text == NULL)
		out->failed = true;
	else
		buf_printf(out, "%s\n", text);
	free(text);
}

/* ---- differences */

static void put_name(struct buf *out, const char *section, const char *name)
{
	buf_printf(out, "%s%s%s%s", out->len > 0 ? ", " : "", section, section[0] != '\0' ? "." : "", name);
}

static void put_differing(struct buf *out, const char *section, json_t *a, json_t *b)
{
	const char *name;
	json_t *value;

	json_object_foreach(a, name, value)
	{
		json_t *other = json_object_get(b, name);

		if (json_equal(value, other))
			continue;
		if (section[0] == '\0' && json_is_object(value))
			put_differing(out, name, value, other);
		else
			put_name(out, section, name);
	}
}

void config_put_differences(struct buf *out, const struct cluster_config *a, const struct cluster_config *b)
{
	json_t *left = to_json(a);
	json_t *right = to_json(b);

	if (left == NULL || right == NULL)
		out->failed = true;
	else
		put_differing(out, "", left, right);
	json_decref(left);
	json_decref(right);
}

/* ---- reloading */

enum db_err config_reload(struct cluster_config *running, const char *path, struct buf *waiting, struct errmsg *em)
{
	struct cluster_config *fresh = malloc(sizeof(*fresh));
	enum db_err err;

	if (fresh == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	config_init(fresh);
	err = config_load(fresh, path, em);
	if (err != DB_OK)
		goto free_fresh;
	running->logging = fresh->logging;
	config_put_differences(waiting, running, fresh);
	log_set(running->logging.level, running->logging.format);
free_fresh:
	free(fresh);
	return err;
}

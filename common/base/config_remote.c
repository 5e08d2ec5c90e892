/* config_remote.c - see config_remote.h. Pure. */
#include "common/base/config_remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* host:port, either of them with stars; an IPv6 address stands in []. */
static bool is_address(const char *text)
{
	const char *colon = strrchr(text, ':');
	char *end;

	if (colon == NULL || colon == text || strlen(text) >= CONFIG_REMOTE_ADDRESS_MAX)
		return false;
	if (strcspn(text, " \t\"\\/@?#") != strlen(text))
		return false;
	if (text[0] == '[' ? colon[-1] != ']' : memchr(text, ':', (size_t)(colon - text)) != NULL)
		return false;
	if (strcmp(colon, ":*") == 0)
		return true;
	return strspn(colon + 1, "0123456789") == strlen(colon + 1) && strtoul(colon + 1, &end, 10) > 0 &&
	       strtoul(colon + 1, &end, 10) <= 65535;
}

/* Addresses are compared in lower case. */
static void put_address(char out[CONFIG_REMOTE_ADDRESS_MAX], const char *text)
{
	size_t i;

	for (i = 0; text[i] != '\0'; i++)
		out[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i];
	out[i] = '\0';
}

/* {} or {"ca_file": "path"}. */
static enum db_err read_node_tls(struct config_remote_node *out, const char *address, const json_t *tls,
				 const char *path, struct errmsg *em)
{
	const json_t *file = json_object_get(tls, "ca_file");
	size_t len = json_string_length(file);

	out->tls = tls != NULL;
	out->ca_file[0] = '\0';
	if (tls == NULL)
		return DB_OK;
	if (!json_is_object(tls) || json_object_size(tls) != (file != NULL) || (file != NULL && !json_is_string(file)))
		return errmsg_set(em, DB_INVALID,
				  "%s: remote.nodes.%s.tls: expected {\"ca_file\": \"path\"}, or {} to trust whom the "
				  "system trusts",
				  path, address);
	if (file == NULL)
		return DB_OK;
	if (len == 0 || len >= sizeof(out->ca_file))
		return errmsg_set(em, DB_INVALID, "%s: remote.nodes.%s.tls.ca_file: expected a path of 1 to %zu bytes",
				  path, address, sizeof(out->ca_file) - 1);
	memcpy(out->ca_file, json_string_value(file), len + 1);
	return DB_OK;
}

static enum db_err read_node(struct cluster_config *c, const char *address, const json_t *node, const char *path,
			     struct errmsg *em)
{
	struct config_remote_node *out = &c->remote.nodes[c->remote.node_count];
	const json_t *file = json_object_get(node, "token_file");
	const json_t *tls = json_object_get(node, "tls");

	if (!is_address(address))
		return errmsg_set(em, DB_INVALID, "%s: remote.nodes: expected host:port, found \"%s\"", path, address);
	if (!json_is_object(node) || json_object_size(node) != 1 + (tls != NULL) || !json_is_string(file))
		return errmsg_set(em, DB_INVALID,
				  "%s: remote.nodes.%s: expected {\"token_file\": \"path\"}, and perhaps \"tls\"", path,
				  address);
	if (json_string_length(file) == 0 || json_string_length(file) >= sizeof(out->token_file))
		return errmsg_set(em, DB_INVALID, "%s: remote.nodes.%s.token_file: expected a path of 1 to %zu bytes",
				  path, address, sizeof(out->token_file) - 1);
	put_address(out->address, address);
	memcpy(out->token_file, json_string_value(file), json_string_length(file) + 1);
	c->remote.node_count++;
	return read_node_tls(out, address, tls, path, em);
}

enum db_err config_read_remote_nodes(struct cluster_config *c, const json_t *nodes, const char *path, struct errmsg *em)
{
	enum db_err err = DB_OK;
	const char *address;
	json_t *node;

	if (!json_is_object(nodes) || json_object_size(nodes) > CONFIG_REMOTE_NODES_MAX)
		return errmsg_set(em, DB_INVALID, "%s: remote.nodes: expected an object of at most %d addresses", path,
				  CONFIG_REMOTE_NODES_MAX);
	c->remote.node_count = 0;
	json_object_foreach((json_t *)(uintptr_t)nodes, address, node)
	{
		err = read_node(c, address, node, path, em);
		if (err != DB_OK)
			return err;
	}
	return DB_OK;
}

enum db_err config_read_remote_allow(struct cluster_config *c, const json_t *allow, const char *path, struct errmsg *em)
{
	json_t *address;
	size_t i;

	if (!json_is_array(allow) || json_array_size(allow) > CONFIG_REMOTE_NODES_MAX)
		return errmsg_set(em, DB_INVALID, "%s: remote.allow: expected a list of at most %d addresses", path,
				  CONFIG_REMOTE_NODES_MAX);
	c->remote.allow_count = 0;
	json_array_foreach(allow, i, address)
	{
		if (!json_is_string(address) || !is_address(json_string_value(address)))
			return errmsg_set(em, DB_INVALID, "%s: remote.allow: expected host:port as item %zu", path,
					  i + 1);
		put_address(c->remote.allow[c->remote.allow_count++], json_string_value(address));
	}
	return DB_OK;
}

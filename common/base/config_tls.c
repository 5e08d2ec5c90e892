/* config_tls.c - see config_tls.h. */
#include "common/base/config_tls.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static const char *const client_names[] = {"none", "optional", "required"};

#define FILE_KEY(field, help)                                                                                          \
	{                                                                                                              \
#field, offsetof(struct cluster_config, tls.field), help                                               \
	}

static const struct {
	const char *name;
	size_t offset;
	const char *help;
} file_keys[] = {
    FILE_KEY(cert_file, "the nodes' certificate in PEM form, followed by those between it and its CA"),
    FILE_KEY(key_file, "its private key"),
    FILE_KEY(ca_file, "who may have signed a member's certificate; none: cert_file itself is what members accept"),
    FILE_KEY(client_ca_file, "who may have signed a client's certificate"),
};

#define FILE_KEY_COUNT (sizeof(file_keys) / sizeof(file_keys[0]))

static size_t file_key(const char *name)
{
	size_t i;

	for (i = 0; i < FILE_KEY_COUNT && strcmp(name, file_keys[i].name) != 0; i++)
		;
	return i;
}

bool config_is_tls_key(const char *name)
{
	return strcmp(name, "client_certificates") == 0 || file_key(name) < FILE_KEY_COUNT;
}

static enum db_err read_clients(struct cluster_config *c, const json_t *value, const char *path, struct errmsg *em)
{
	const char *name = json_string_value(value);
	size_t i;

	for (i = 0; name != NULL && i < sizeof(client_names) / sizeof(client_names[0]); i++) {
		if (strcmp(name, client_names[i]) == 0) {
			c->tls.client_certificates = (enum client_certificates)i;
			return DB_OK;
		}
	}
	return errmsg_set(em, DB_INVALID,
			  "%s: tls.client_certificates: expected \"none\", \"optional\" or \"required\"", path);
}

enum db_err config_read_tls(struct cluster_config *c, const char *name, const json_t *value, const char *path,
			    struct errmsg *em)
{
	size_t key = file_key(name);

	if (key == FILE_KEY_COUNT)
		return read_clients(c, value, path, em);
	if (!json_is_string(value) || json_string_length(value) >= CONFIG_PATH_MAX ||
	    strlen(json_string_value(value)) != json_string_length(value))
		return errmsg_set(em, DB_INVALID, "%s: tls.%s: expected a path of at most %d bytes", path, name,
				  CONFIG_PATH_MAX - 1);
	memcpy((char *)c + file_keys[key].offset, json_string_value(value), json_string_length(value) + 1);
	return DB_OK;
}

enum db_err config_read_insecure(struct cluster_config *c, const json_t *value, const char *path, struct errmsg *em)
{
	if (!json_is_boolean(value))
		return errmsg_set(em, DB_INVALID, "%s: insecure: expected true or false", path);
	c->insecure = json_is_true(value);
	return DB_OK;
}

bool config_has_tls(const struct cluster_config *c)
{
	return c->tls.cert_file[0] != '\0';
}

const char *config_client_certificates_name(enum client_certificates which)
{
	return client_names[which];
}

bool config_is_loopback(const char *bind)
{
	struct in6_addr six;
	struct in_addr four;

	if (inet_pton(AF_INET, bind, &four) == 1)
		return (ntohl(four.s_addr) >> 24) == 127;
	if (inet_pton(AF_INET6, bind, &six) == 1)
		return IN6_IS_ADDR_LOOPBACK(&six);
	return strcmp(bind, "localhost") == 0;
}

enum db_err config_check_exposure(const struct cluster_config *c, const char *path, struct errmsg *em)
{
	if (config_is_loopback(c->bind) || config_has_tls(c) || c->insecure)
		return DB_OK;
	return errmsg_set(
	    em, DB_INVALID,
	    "%s: bind: \"%s\" can be reached from other machines, and without TLS whoever listens on the "
	    "way reads tokens and data and may change them. Set up \"tls\" (scripts/make-certs.sh makes "
	    "certificates for a trial), or bind to \"127.0.0.1\", or say \"insecure\": true if every machine "
	    "on that network is trusted",
	    path, c->bind);
}

enum db_err config_check_tls(const struct cluster_config *c, const char *path, struct errmsg *em)
{
	if ((c->tls.cert_file[0] == '\0') != (c->tls.key_file[0] == '\0'))
		return errmsg_set(em, DB_INVALID, "%s: tls: cert_file and key_file go together: give both or none",
				  path);
	if (!config_has_tls(c) && (c->tls.ca_file[0] != '\0' || c->tls.client_ca_file[0] != '\0' ||
				   c->tls.client_certificates != CLIENT_CERTIFICATES_NONE))
		return errmsg_set(em, DB_INVALID, "%s: tls: without cert_file and key_file there is no TLS to set up",
				  path);
	if (c->tls.client_certificates != CLIENT_CERTIFICATES_NONE && c->tls.client_ca_file[0] == '\0')
		return errmsg_set(em, DB_INVALID,
				  "%s: tls.client_certificates \"%s\" needs tls.client_ca_file, which says whose "
				  "certificates are good",
				  path, client_names[c->tls.client_certificates]);
	return DB_OK;
}

void config_put_tls_help(struct buf *out)
{
	size_t i;

	for (i = 0; i < FILE_KEY_COUNT; i++)
		buf_printf(out, "\t//\t\"%s\": \"\", // %s\n", file_keys[i].name, file_keys[i].help);
	buf_puts(out, "\t//\t\"client_certificates\": \"none\", // none, optional, required\n");
}

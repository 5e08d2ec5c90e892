/*
 * config_tls.h - the "tls" section of cluster.json, and what may be bound without it.
 *
 * Private to config.c. Here the shape of the settings is checked; the files are read by common/auth/tls.h. Pure.
 */
#ifndef GRIZZLY_COMMON_BASE_CONFIG_TLS_H
#define GRIZZLY_COMMON_BASE_CONFIG_TLS_H

#include <jansson.h>

#include "common/base/buf.h"
#include "common/base/config.h"

bool config_is_tls_key(const char *name);
/* DB_INVALID: the message names path and key. */
enum db_err config_read_tls(struct cluster_config *c, const char *name, const json_t *value, const char *path,
			    struct errmsg *em);
enum db_err config_read_insecure(struct cluster_config *c, const json_t *value, const char *path, struct errmsg *em);
/* Whether the settings go together, of the whole configuration. */
enum db_err config_check_tls(const struct cluster_config *c, const char *path, struct errmsg *em);
void config_put_tls_help(struct buf *out); /* as comments of a new file */

#endif

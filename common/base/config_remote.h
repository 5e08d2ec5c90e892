/*
 * config_remote.h - the "remote" section of cluster.json beside its numbers: who may be asked, with which token.
 *
 * Private to config.c. What the entries mean is common/remote/remote_access.h's; here their shape is checked, so that a
 * mistake shows when a process starts.
 */
#ifndef GRIZZLY_COMMON_BASE_CONFIG_REMOTE_H
#define GRIZZLY_COMMON_BASE_CONFIG_REMOTE_H

#include <jansson.h>

#include "common/base/config.h"

/* Each replaces what c has. DB_INVALID: the message names path and key. */
enum db_err config_read_remote_nodes(struct cluster_config *c, const json_t *nodes, const char *path,
				     struct errmsg *em);
enum db_err config_read_remote_allow(struct cluster_config *c, const json_t *allow, const char *path,
				     struct errmsg *em);

#endif

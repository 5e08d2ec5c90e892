/*
 * config_show.h - the configuration as it takes effect: as JSON, compared with another one, and taken up while running.
 *
 * For check-config and for reloading. No state; any thread that may read the configurations it hands in.
 */
#ifndef GRIZZLY_COMMON_BASE_CONFIG_SHOW_H
#define GRIZZLY_COMMON_BASE_CONFIG_SHOW_H

#include "common/base/buf.h"
#include "common/base/config.h"

/* Every key with its value; reading it gives the same configuration. out->failed when memory is short. */
void config_put_json(struct buf *out, const struct cluster_config *c);

/* Puts the names of the keys that differ, ", " in between; nothing: they are the same. */
void config_put_differences(struct buf *out, const struct cluster_config *a, const struct cluster_config *b);

/* Reads path and takes up in *running what a running process can take up: the section "logging", which is put into effect
 * with log_set(). Names of other keys that differ go to *waiting: they take effect when the cluster is started next.
 * On an error (DB_NOTFOUND, DB_INVALID, DB_NOMEM, DB_IO) nothing is changed. */
enum db_err config_reload(struct cluster_config *running, const char *path, struct buf *waiting, struct errmsg *em);

#endif

/*
 * status_json.h - the supervisor's view of the cluster as the JSON text of `status --json`, and that text as a table.
 *
 * The keys are a contract (docs/): they may be added to, never renamed. What is not known is null.
 */
#ifndef GRIZZLY_SUPERVISOR_STATUS_JSON_H
#define GRIZZLY_SUPERVISOR_STATUS_JSON_H

#include <stdint.h>
#include <sys/types.h>

#include "common/base/buf.h"
#include "common/base/config.h"
#include "supervisor/cluster.h"

/* pids[n]: 0 where no process runs. b->failed when memory is short. Loop thread. */
void status_json_put(struct buf *b, const struct cluster *c, const struct cluster_config *config, const pid_t *pids,
		     uint64_t started_ms, uint64_t now_ms);

/* A new JSON string. Texts of a peer's, or cut in the middle of a character, need not be UTF-8, which JSON must be: then all
 * that is not ASCII in them becomes '?'. NULL: no memory. */
struct json_t *status_json_text(const char *text);
/* The members alone, for SHOW REPLICAS: {"status","change","version","replicas":[…]}. */
void replicas_json_put(struct buf *b, const struct cluster *c, const struct cluster_config *config, uint64_t now_ms);

/* The text of status_json_put(), as it came over the wire, as lines for people. DB_INVALID: it is no such text. */
enum db_err status_text_put(struct buf *b, const char *json, size_t len, struct errmsg *em);
/* The same of replicas_json_put(). */
enum db_err replicas_text_put(struct buf *b, const char *json, size_t len, struct errmsg *em);

#endif

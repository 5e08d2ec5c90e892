/*
 * tokens.h - the tokens that this node accepts, as its two files say: D/token and D/tokens.
 *
 * The command that changes the tokens file tells each running node at once and waits for it (node/control.h);
 * besides, the main thread looks every TOKENS_LOOK_MS whether a file has changed, so that a node that could not be
 * told (stopped, just starting) and files that were put there by hand are not missed for long. A file that cannot be
 * used is logged, counted, and changes nothing: what was accepted before still is, and at a start nothing of it is.
 * Never does a damaged file let anybody in.
 */
#ifndef GRIZZLY_NODE_TOKENS_H
#define GRIZZLY_NODE_TOKENS_H

#include <stddef.h>
#include <stdint.h>

#include "common/auth/auth.h"

#define TOKENS_LOOK_MS 500

struct tokens;

/* token_path: the first token's file, which must be good; the tokens file is "tokens". Paths are borrowed. */
enum db_err tokens_create(struct tokens **out, const uint8_t cluster_id[16], const char *token_path, struct errmsg *em);
void tokens_free(struct tokens *t); /* NULL is fine */

struct auth *tokens_auth(struct tokens *t);
/* Loads what has changed since the last time. Any thread. */
void tokens_look(struct tokens *t);
/* Loads the tokens file now; *checksum names the version that is in force. Any thread. */
enum db_err tokens_reload(struct tokens *t, uint64_t *checksum, struct errmsg *em);

struct tokens_counters {
	size_t tokens;           /* of the tokens file, in force */
	uint64_t failures_total; /* a file could not be used */
};
void tokens_get_counters(struct tokens *t, struct tokens_counters *out);

#endif

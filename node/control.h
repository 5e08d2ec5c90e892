/*
 * control.h - the supervisor's line to this node: REQ/REP on run/<id>.ctl.
 *
 * Every command is idempotent and names the supervisor's term; the answer is always the node's full status. Commands run
 * on the link's thread, one at a time: role switches take milliseconds, so heartbeats need no other path.
 *
 * The command line speaks to a node directly for one thing alone, {"command":"reload-tokens"}: whoever has changed
 * the tokens file learns which version of it is in force here when the answer comes, {"status":"ok","checksum":"…"}.
 */
#ifndef GRIZZLY_NODE_CONTROL_H
#define GRIZZLY_NODE_CONTROL_H

#include "common/base/config.h"
#include "node/roles.h"
#include "node/tokens.h"

struct control;

struct control_options {
	struct roles *roles;
	const struct cluster_config *config; /* these are borrowed */
	const char *node_id;
	const struct members_entry *entry; /* our ports */
	struct tokens *tokens;
};

/* DB_BUSY: another process serves this node already. */
enum db_err control_create(struct control **out, const struct control_options *options, struct errmsg *em);
void control_free(struct control *c); /* NULL is fine */

#endif

/* membership.c - see membership.h. */
#include "supervisor/membership.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/datadir.h"
#include "supervisor/roster.h"

static enum db_err refuse(const struct cluster_config *config, uint64_t nodes, const char *witness, struct errmsg *em)
{
	return errmsg_set(em, DB_INVALID,
			  "\"replicas\" in \"%s\" is %u, but by \"%s\" this cluster has %" PRIu64
			  " nodes%s: set \"replicas\" to %" PRIu64
			  " and change the members with grizzly-supervisor add-replica and remove-replica",
			  DATADIR_CONFIG, config->replicas, witness, nodes,
			  strcmp(witness, DATADIR_TERM) == 0 ? " in the beginning" : "", nodes - 1);
}

/* The roster's number, 0 when there is none. One that cannot be read is no reason not to start: adopting says so. */
static unsigned roster_nodes(void)
{
	struct roster *r = calloc(1, sizeof(*r));
	struct errmsg em = {0};
	unsigned nodes = 0;

	if (r != NULL && roster_load(r, DATADIR_ROSTER, &em) == DB_OK)
		nodes = r->node_count;
	free(r);
	return nodes;
}

enum db_err membership_check(const struct cluster_config *config, struct coordinator *k,
			     struct coordinator_state *stored, struct errmsg *em)
{
	unsigned count = config_node_count(config);
	unsigned seen;
	enum db_err err;

	if (stored->members.version == 0)
		members_init(&stored->members, config);
	if (stored->nodes != 0)
		return stored->nodes == count ? DB_OK : refuse(config, stored->nodes, DATADIR_TERM, em);
	seen = roster_nodes();
	if (seen != 0 && seen != count)
		return refuse(config, seen, DATADIR_ROSTER, em);
	seen = datadir_last_node();
	if (seen > count)
		return refuse(config, seen, "node<i>", em);
	if (stored->term == 0)
		return DB_OK; /* recorded with the first term */
	stored->nodes = count;
	err = coordinator_store(k, stored, em);
	if (err != DB_OK)
		stored->nodes = 0;
	return err;
}

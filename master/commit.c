/* commit.c - see commit.h. */
#include "master/commit.h"

#include <assert.h>
#include <stdlib.h>

#include "common/base/planted.h"

struct commit {
	size_t node_count;
	size_t quorum_count; /* 1 or 2 */
	struct members_quorum quorums[2];
	uint64_t term_start_lsn;
	uint64_t committed_lsn; /* 0 until something of our term is committed */
	uint64_t durable_lsn[COMMIT_NODES_MAX];
};

enum db_err commit_create(struct commit **out, size_t node_count, size_t ack_nodes, uint64_t term_start_lsn,
			  struct errmsg *em)
{
	struct commit *c;

	*out = NULL;
	if (node_count < 1 || node_count > COMMIT_NODES_MAX || ack_nodes < 1 || ack_nodes > node_count)
		return errmsg_set(em, DB_INVALID, "cannot commit with %zu of %zu nodes", ack_nodes, node_count);
	c = calloc(1, sizeof(*c));
	if (c == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	c->node_count = node_count;
	c->quorum_count = 1;
	c->quorums[0].nodes = (uint32_t)(((uint64_t)1 << node_count) - 1);
	c->quorums[0].acks = (unsigned)ack_nodes;
	c->term_start_lsn = term_start_lsn;
	*out = c;
	return DB_OK;
}

void commit_free(struct commit *c)
{
	free(c);
}

/* The highest LSN that enough nodes of the set hold. */
static uint64_t quorum_lsn(const struct commit *c, const struct members_quorum *q)
{
	uint64_t best = 0;
	size_t i, j, holders;

	for (i = 0; i < c->node_count; i++) {
		if ((q->nodes >> i & 1) == 0 || c->durable_lsn[i] <= best)
			continue;
		holders = 0;
		for (j = 0; j < c->node_count; j++)
			holders += (q->nodes >> j & 1) != 0 && c->durable_lsn[j] >= c->durable_lsn[i];
		if (holders >= q->acks)
			best = c->durable_lsn[i];
	}
	return best;
}

static uint64_t move(struct commit *c)
{
	uint64_t lsn = quorum_lsn(c, &c->quorums[0]);
	uint64_t other = c->quorum_count > 1 ? quorum_lsn(c, &c->quorums[1]) : lsn;

	if (other < lsn || PLANTED(BUG_COUNT_NEW_MEMBERS))
		lsn = other; /* (2) */
	/* A successor with a newer last term could still cut an older term's record, even one that a majority holds, until
	 * a record of our own term stands behind it (Raft dissertation, 3.6.2). */
	if ((lsn >= c->term_start_lsn || PLANTED(BUG_COMMIT_OLD_TERM)) && lsn > c->committed_lsn)
		c->committed_lsn = lsn;
	return c->committed_lsn;
}

uint64_t commit_set_quorums(struct commit *c, const struct members_quorum *quorums, size_t count)
{
	size_t i;

	assert(count == 1 || count == 2);
	for (i = 0; i < count; i++) {
		assert(quorums[i].acks >= 1 && quorums[i].acks <= (unsigned)__builtin_popcount(quorums[i].nodes));
		assert((uint64_t)quorums[i].nodes >> c->node_count == 0);
		c->quorums[i] = quorums[i];
	}
	c->quorum_count = count;
	return move(c);
}

void commit_forget(struct commit *c, size_t node)
{
	assert(node < c->node_count);
	c->durable_lsn[node] = 0;
}

uint64_t commit_on_durable(struct commit *c, size_t node, uint64_t durable_lsn)
{
	assert(node < c->node_count); /* an index of our own table, never a number off the wire */
	if (durable_lsn <= c->durable_lsn[node])
		return c->committed_lsn; /* late or repeated: (1) */
	c->durable_lsn[node] = durable_lsn;
	return move(c);
}

uint64_t commit_lsn(const struct commit *c)
{
	return c->committed_lsn;
}

uint64_t commit_durable_lsn(const struct commit *c, size_t node)
{
	assert(node < c->node_count);
	return c->durable_lsn[node];
}

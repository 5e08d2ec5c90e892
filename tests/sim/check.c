/*
 * check.c - what must hold after every step.
 *
 * The checker sees everything at once, as no part of the cluster can. It keeps the one history that has been committed:
 * the first master whose commit tracking calls a record committed writes it there, and from then on
 *  (1) no other record is ever committed at that LSN, on any node, in any term;
 *  (2) enough nodes hold it on their disks at that moment;
 *  (3) no master of a later term begins without it, and no node cuts it away;
 *  (4) a term has one master that commits;
 *  (5) readers, base files and snapshots everywhere show only what is in it, with the database it says;
 *  (6) a linearizable read shows all that any client had been told before it was asked;
 *  (7) when the faults are over, there is a master that commits, and every node comes to have all of the history.
 */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TERMS_MAX 4096u

bool check_init(struct checker *c)
{
	c->committed = calloc(SIM_LSN_MAX, sizeof(*c->committed));
	c->term_master = calloc(TERMS_MAX, sizeof(*c->term_master));
	return c->committed != NULL && c->term_master != NULL;
}

void check_fini(struct checker *c)
{
	free(c->committed);
	free(c->term_master);
}

void check_reset(struct world *w)
{
	struct checker *c = &w->checker;

	c->committed_lsn = c->acked_lsn = c->read_lsn = 0;
	memset(c->term_master, 0, TERMS_MAX * sizeof(*c->term_master));
	memset(&c->committed[0], 0, sizeof(c->committed[0]));
}

/* The checksum of what a node holds at lsn; false: it has trimmed it away, or does not hold it. */
static bool record_of(const struct node *n, uint64_t lsn, uint64_t *checksum)
{
	uint64_t term;
	struct errmsg ignored = {0};

	if (lsn > n->disk.last.lsn || lsn == 0)
		return false;
	if (lsn == n->disk.base.lsn) {
		*checksum = n->disk.base_checksum;
		return true;
	}
	return disk_describe(&n->disk, lsn, &term, checksum, &ignored) == DB_OK;
}

static bool same_registers(const struct disk_state *a, const struct disk_state *b)
{
	return memcmp(a->registers, b->registers, sizeof(a->registers)) == 0;
}

/* (4) */
static void note_master(struct node *n, uint64_t term)
{
	uint64_t who = (uint64_t)n->process << 8 | (n->index + 1);
	uint64_t *seat = &n->world->checker.term_master[term < TERMS_MAX ? term : 0];

	if (*seat != 0 && *seat != who)
		violated(n->world, "two masters in term %" PRIu64 ": node%u and node%u", term, (unsigned)(*seat & 0xff),
			 n->index + 1);
	*seat = who;
}

/* (3) A master of an older term than what is committed may begin, for all it knows; it will commit nothing. */
void check_promoted(struct node *n, uint64_t term)
{
	struct checker *c = &n->world->checker;
	uint64_t lsn = c->committed_lsn, checksum;

	note_master(n, term);
	if (lsn == 0 || term <= c->committed[lsn].term)
		return;
	if (lsn > n->disk.last.lsn)
		violated(n->world,
			 "lost writes: node%u becomes master of term %" PRIu64 " with a log that ends at %" PRIu64
			 ", records up to %" PRIu64 " are committed",
			 n->index + 1, term, n->disk.last.lsn, lsn);
	else if (record_of(n, lsn, &checksum) && checksum != c->committed[lsn].checksum)
		violated(n->world,
			 "lost writes: node%u becomes master of term %" PRIu64 " with another record at %" PRIu64
			 " than the committed one",
			 n->index + 1, term, lsn);
}

/* (2) A node whose disk was damaged had it, and does not count in elections until it has it again. */
static unsigned holders(const struct world *w, uint64_t lsn, uint64_t checksum)
{
	unsigned count = 0, i;
	uint64_t theirs;

	for (i = 0; i < w->node_count; i++) {
		const struct node *n = &w->nodes[i];

		if (n->disk.rotten || n->disk.base.lsn >= lsn ||
		    (n->disk.durable_lsn >= lsn && record_of(n, lsn, &theirs) && theirs == checksum))
			count++;
	}
	return count;
}

static void extend(struct node *n, uint64_t lsn)
{
	struct checker *c = &n->world->checker;
	uint64_t i;

	for (i = c->committed_lsn + 1; i <= lsn; i++) {
		struct truth *t = &c->committed[i];

		t->checksum = n->disk.log[i].r.checksum;
		t->term = n->disk.log[i].r.term;
		t->state = c->committed[i - 1].state;
		t->state.lsn = i;
		t->state.db_checksum = n->disk.log[i].r.db_checksum;
		if (n->disk.log[i].r.type == WAL_PAGES)
			t->state.registers[disk_register_of(n->disk.log[i].r.time_us)] = n->disk.log[i].r.time_us;
	}
	c->committed_lsn = lsn;
}

void check_committed(struct node *n, uint64_t lsn)
{
	struct world *w = n->world;
	struct checker *c = &w->checker;
	uint64_t known = lsn < c->committed_lsn ? lsn : c->committed_lsn, checksum;

	note_master(n, n->master.term);
	if (known > 0 && record_of(n, known, &checksum) && checksum != c->committed[known].checksum) {
		violated(w,
			 "the committed history forks: node%u, master of term %" PRIu64
			 ", has another record at %" PRIu64 " than was committed there",
			 n->index + 1, n->master.term, known);
		return;
	}
	if (lsn <= c->committed_lsn)
		return;
	extend(n, lsn);
	if (holders(w, lsn, c->committed[lsn].checksum) < w->ack_nodes)
		violated(w,
			 "node%u, master of term %" PRIu64 ", calls record %" PRIu64
			 " committed, but only %u of %u nodes hold it durably, not %u",
			 n->index + 1, n->master.term, lsn, holders(w, lsn, c->committed[lsn].checksum), w->node_count,
			 w->ack_nodes);
}

void check_acked(struct world *w, uint32_t node, uint64_t lsn)
{
	if (lsn > w->checker.committed_lsn)
		violated(w, "node%u acknowledges record %" PRIu64 ", committed is %" PRIu64, node + 1, lsn,
			 w->checker.committed_lsn);
}

/* (5) */
static bool shows(struct node *n, const char *what, uint64_t lsn, uint64_t checksum, const struct disk_state *state)
{
	const struct checker *c = &n->world->checker;

	if (lsn > c->committed_lsn)
		violated(n->world,
			 "%s of node%u holds uncommitted records: it is at %" PRIu64 ", committed is %" PRIu64, what,
			 n->index + 1, lsn, c->committed_lsn);
	else if (lsn > 0 && checksum != c->committed[lsn].checksum)
		violated(n->world, "%s of node%u shows another record at %" PRIu64 " than the committed one", what,
			 n->index + 1, lsn);
	else if (state != NULL && !same_registers(state, &c->committed[lsn].state))
		violated(n->world, "%s of node%u shows another database at %" PRIu64 " than the committed one", what,
			 n->index + 1, lsn);
	else
		return true;
	return false;
}

void check_node(struct node *n)
{
	const struct disk *d = &n->disk;
	uint64_t checksum;

	if (!n->alive)
		return;
	if (d->visible_lsn != n->seen_visible_lsn && record_of(n, d->visible_lsn, &checksum))
		shows(n, "the snapshot for readers", d->visible_lsn, checksum,
		      d->applied.lsn == d->visible_lsn ? &d->applied : NULL);
	if (d->base.lsn != n->seen_base_lsn)
		shows(n, "the base file", d->base.lsn, d->base_checksum, &d->base_state);
	n->seen_visible_lsn = d->visible_lsn;
	n->seen_base_lsn = d->base.lsn;
}

void check_cut(struct node *n, uint64_t keep_lsn)
{
	const struct checker *c = &n->world->checker;
	uint64_t lsn = keep_lsn + 1, checksum;

	if (lsn <= c->committed_lsn && lsn <= n->disk.last.lsn && record_of(n, lsn, &checksum) &&
	    checksum == c->committed[lsn].checksum)
		violated(n->world, "node%u cuts away record %" PRIu64 ", which is committed", n->index + 1, lsn);
}

/* (6) */
void check_linearizable_read(struct node *n, uint64_t floor_lsn, uint64_t visible_lsn)
{
	struct disk_state state;

	if (visible_lsn < floor_lsn)
		violated(n->world,
			 "a stale read: node%u, master of term %" PRIu64 ", answers with lsn %" PRIu64
			 ", a client had been told of %" PRIu64 " before",
			 n->index + 1, n->master.term, visible_lsn, floor_lsn);
	else if (disk_state_at(&n->disk, visible_lsn, &state) &&
		 !same_registers(&state, &n->world->checker.committed[visible_lsn].state))
		violated(n->world, "a read on node%u shows another database at %" PRIu64 " than the committed one",
			 n->index + 1, visible_lsn);
}

/* ---- the end */

static bool replica_is_well(const struct node *n, const struct node *master, const char **why)
{
	*why = "a replica does not have all that its master has";
	return n->disk.last.lsn == master->disk.last.lsn && n->disk.last_checksum == master->disk.last_checksum &&
	       n->disk.visible_lsn == n->disk.last.lsn;
}

bool check_is_well(struct world *w, const char **why)
{
	struct cluster_view view;
	const struct node *master;
	uint32_t i;

	*why = "there is no supervisor";
	if (!w->supervisor.alive)
		return false;
	cluster_view(w->supervisor.cluster, &view);
	snprintf(w->why, sizeof(w->why), "there is no master: %s", view.reason);
	*why = w->why;
	if (view.master == CLUSTER_NOBODY)
		return false;
	master = &w->nodes[view.master];
	*why = "the master does not serve";
	if (!master->up || !master->master.running || !master->master.ready || !master->accepting ||
	    master->master.draining)
		return false;
	for (i = 0; i < w->node_count; i++) {
		const struct node *n = &w->nodes[i];

		*why = "a node is down, or does not count yet";
		if (!n->up || n->rebuilding)
			return false;
		if (n != master && (!n->replica.running || !replica_is_well(n, master, why)))
			return false;
	}
	*why = "what the master has is not committed";
	return master->disk.visible_lsn == master->disk.last.lsn;
}

void check_end(struct world *w)
{
	struct disk_state state;
	uint64_t checksum;
	uint32_t i;

	for (i = 0; i < w->node_count; i++) {
		struct node *n = &w->nodes[i];

		if (n->disk.last.lsn != w->checker.committed_lsn || !record_of(n, n->disk.last.lsn, &checksum) ||
		    checksum != w->checker.committed[n->disk.last.lsn].checksum)
			violated(w, "in the end node%u does not hold the committed history", n->index + 1);
		else if (!disk_state_at(&n->disk, n->disk.last.lsn, &state) ||
			 !same_registers(&state, &w->checker.committed[n->disk.last.lsn].state) ||
			 !same_registers(&n->disk.applied, &state) || n->disk.applied.db_checksum != state.db_checksum)
			violated(w, "in the end node%u's database is not what was committed", n->index + 1);
	}
}

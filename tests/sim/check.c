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
 *  (7) when the faults are over, there is a master that commits, no change of the members is left undone, and every
 *      member comes to have all of the history, also of the members;
 *  (8) only voters become masters, and a version of the members says one thing, once and for ever.
 *
 * With async durability a failover may lose what only the master had. All of this holds until one does (c->lossy), and
 * (2), (4), (7) and (8) afterwards; and (3a) a majority of the voters has nothing that a new master lacks.
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
	c->versions = calloc(SIM_VERSIONS_MAX, sizeof(*c->versions));
	return c->committed != NULL && c->term_master != NULL && c->versions != NULL;
}

void check_fini(struct checker *c)
{
	free(c->committed);
	free(c->term_master);
	free(c->versions);
}

void check_reset(struct world *w)
{
	struct checker *c = &w->checker;

	c->committed_lsn = c->acked_lsn = c->read_lsn = 0;
	memset(c->term_master, 0, TERMS_MAX * sizeof(*c->term_master));
	memset(&c->committed[0], 0, sizeof(c->committed[0]));
	memset(c->versions, 0, (c->versions_seen + 1) * sizeof(*c->versions));
	c->versions_seen = 0;
	c->lossy = false;
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

/* (8) */
void check_members(struct world *w, const struct members *members)
{
	struct checker *c = &w->checker;
	struct members *known;

	if (members->version == 0)
		return;
	if (members->version >= SIM_VERSIONS_MAX) {
		violated(w, "the simulator has no room for version %" PRIu64 " of the members", members->version);
		return;
	}
	known = &c->versions[members->version];
	if (known->version == 0)
		*known = *members;
	else if (memcmp(known, members, sizeof(*known)) != 0)
		violated(w, "version %" PRIu64 " of the members says two things", members->version);
	if (members->version > c->versions_seen)
		c->versions_seen = members->version;
}

/* (3a) */
static unsigned not_ahead(const struct node *master, uint32_t set)
{
	unsigned count = 0, i;

	for (i = 0; i < SIM_NODES_MAX; i++)
		count += (set >> i & 1) && wal_pos_cmp(master->world->nodes[i].disk.last, master->disk.last) <= 0;
	return count;
}

static void check_most_advanced(struct node *n, uint64_t term)
{
	struct members_quorum quorums[2];
	unsigned count = members_quorums(&n->master.versions.force, DURABILITY_QUORUM, quorums);

	while (count-- > 0)
		if (not_ahead(n, quorums[count].nodes) < quorums[count].acks)
			violated(n->world,
				 "node%u becomes master of term %" PRIu64
				 " though it is behind more voters than it may",
				 n->index + 1, term);
}

/* Does it lack anything that is committed? */
static bool lacks(const struct node *n, uint64_t lsn)
{
	uint64_t checksum;

	return lsn > n->disk.last.lsn ||
	       (record_of(n, lsn, &checksum) && checksum != n->world->checker.committed[lsn].checksum);
}

/* (3) A master of an older term than what is committed may begin, for all it knows; it will commit nothing. */
void check_promoted(struct node *n, uint64_t term)
{
	struct checker *c = &n->world->checker;
	uint64_t lsn = c->committed_lsn;

	note_master(n, term);
	if (!members_votes(n->master.versions.force.entries[n->index].state))
		violated(n->world, "node%u becomes master of term %" PRIu64 ", which does not vote", n->index + 1,
			 term);
	if (n->world->durability == DURABILITY_ASYNC)
		check_most_advanced(n, term);
	if (c->lossy || lsn == 0 || term <= c->committed[lsn].term || !lacks(n, lsn))
		return;
	c->lossy = n->world->durability == DURABILITY_ASYNC;
	n->world->totals.losses += c->lossy;
	if (!c->lossy)
		violated(n->world,
			 "lost writes: node%u becomes master of term %" PRIu64 " with a log that ends at %" PRIu64
			 " and lacks record %" PRIu64 ", which is committed",
			 n->index + 1, term, n->disk.last.lsn, lsn);
}

/* (2) A node whose disk was damaged had it, and does not count in elections until it has it again. */
static unsigned holders(const struct world *w, uint32_t set, uint64_t lsn, uint64_t checksum)
{
	unsigned count = 0, i;
	uint64_t theirs;

	for (i = 0; i < SIM_NODES_MAX; i++) {
		const struct node *n = &w->nodes[i];

		if ((set >> i & 1) &&
		    (n->disk.rotten || n->disk.base.lsn >= lsn ||
		     (n->disk.durable_lsn >= lsn && record_of(n, lsn, &theirs) && theirs == checksum)))
			count++;
	}
	return count;
}

/* By every set of voters that the master has been told of. */
static void check_held(struct node *n, uint64_t lsn, uint64_t checksum)
{
	struct members_quorum quorums[2];
	unsigned count = members_quorums(&n->master.versions.force, n->world->durability, quorums), held;

	while (count-- > 0) {
		held = holders(n->world, quorums[count].nodes, lsn, checksum);
		if (held < quorums[count].acks)
			violated(n->world,
				 "node%u, master of term %" PRIu64 ", calls record %" PRIu64
				 " committed, but only %u of voters %x hold it durably, not %u",
				 n->index + 1, n->master.term, lsn, held, quorums[count].nodes, quorums[count].acks);
	}
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
	if (c->lossy) {
		if (record_of(n, lsn, &checksum))
			check_held(n, lsn, checksum);
		return;
	}
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
	check_held(n, lsn, c->committed[lsn].checksum);
}

void check_acked(struct world *w, uint32_t node, uint64_t lsn)
{
	if (lsn > w->checker.committed_lsn && !w->checker.lossy)
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

	if (!n->alive || n->world->checker.lossy)
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

	if (!c->lossy && lsn <= c->committed_lsn && lsn <= n->disk.last.lsn && record_of(n, lsn, &checksum) &&
	    checksum == c->committed[lsn].checksum)
		violated(n->world, "node%u cuts away record %" PRIu64 ", which is committed", n->index + 1, lsn);
}

/* (6) */
void check_linearizable_read(struct node *n, uint64_t floor_lsn, uint64_t visible_lsn)
{
	struct disk_state state;

	if (n->world->checker.lossy)
		return;
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

/* With async durability a replica may hold committed records that a failover has passed over: people have to look. */
static bool is_refused(const struct node *n, const struct node *master)
{
	const struct sender *s = &master->master.senders[n->index];
	struct walsender_status status;

	if (!n->world->checker.lossy || s->walsender == NULL)
		return false;
	walsender_get_status(s->walsender, &status);
	return status.state == WALSENDER_REFUSED;
}

static bool replica_is_well(const struct node *n, const struct node *master, const char **why)
{
	*why = "a replica does not have all that its master has";
	return is_refused(n, master) ||
	       (n->disk.last.lsn == master->disk.last.lsn && n->disk.last_checksum == master->disk.last_checksum &&
		n->disk.visible_lsn == n->disk.last.lsn);
}

/* A learner that is refused waits to be removed. */
static bool members_are_well(struct world *w, const struct cluster_view *view, const char **why)
{
	uint32_t pending = members_pending(cluster_members(w->supervisor.cluster));

	if (pending != MEMBERS_NOBODY && is_refused(&w->nodes[pending], &w->nodes[view->master]))
		return true;
	*why = "a change of the members is not completed";
	if (view->changing || view->ending)
		return false;
	*why = "a change of the members is not answered";
	return w->supervisor.changes_asked == 0;
}

static bool node_is_well(const struct node *n, const struct node *master, const char **why)
{
	*why = "the process of a former member lives";
	if (!members_present(cluster_members(n->world->supervisor.cluster)->entries[n->index].state))
		return !n->alive;
	*why = "a node is down, or does not count yet";
	if (!n->up || n->rebuilding)
		return false;
	return n == master || (n->replica.running && replica_is_well(n, master, why));
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
	for (i = 0; i < SIM_NODES_MAX; i++)
		if (!node_is_well(&w->nodes[i], master, why))
			return false;
	if (!members_are_well(w, &view, why))
		return false;
	*why = "what the master has is not committed";
	return master->disk.visible_lsn == master->disk.last.lsn;
}

/* What it holds is the history, and its database what that makes. */
static void check_whole(struct node *n, const struct node *master)
{
	const struct checker *c = &n->world->checker;
	struct disk_state state;
	uint64_t lsn = n->disk.last.lsn, checksum;

	if (c->lossy
		? is_refused(n, master)
		: lsn != c->committed_lsn || !record_of(n, lsn, &checksum) || checksum != c->committed[lsn].checksum) {
		if (!c->lossy)
			violated(n->world, "in the end node%u does not hold the committed history", n->index + 1);
		return;
	}
	if (!disk_state_at(&n->disk, lsn, &state) || !same_registers(&n->disk.applied, &state) ||
	    n->disk.applied.db_checksum != state.db_checksum ||
	    !same_registers(&state, c->lossy ? &master->disk.applied : &c->committed[lsn].state))
		violated(n->world, "in the end node%u's database is not what was committed", n->index + 1);
}

void check_end(struct world *w)
{
	const struct members *members = cluster_members(w->supervisor.cluster);
	struct cluster_view view;
	uint32_t i;

	cluster_view(w->supervisor.cluster, &view);
	for (i = 0; i < SIM_NODES_MAX; i++)
		if (members_present(members->entries[i].state))
			check_whole(&w->nodes[i], &w->nodes[view.master]);
	if (disk_members_version(&w->nodes[view.master].disk.applied) != members->version)
		violated(w, "in the end the log has version %" PRIu64 " of the members, the supervisor %" PRIu64,
			 disk_members_version(&w->nodes[view.master].disk.applied), members->version);
}

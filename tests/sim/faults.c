/*
 * faults.c - the accidents of a schedule.
 *
 * Each schedule draws which kinds happen at all and how densely: schedules that have few kinds meet combinations that
 * mixing everything would hide.
 */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <signal.h>

enum fault {
	FAULT_KILL,
	FAULT_KILL_MASTER,
	FAULT_KILL_IN_WRITE, /* at one of the next operations on the disk */
	FAULT_POWER,
	FAULT_POWER_ALL,
	FAULT_PAUSE,
	FAULT_PAUSE_MASTER,
	FAULT_PAUSE_HOST,
	FAULT_KILL_SUPERVISOR,
	FAULT_PAUSE_SUPERVISOR,
	FAULT_TERM_FILE,
	FAULT_PARTITION,
	FAULT_ONE_WAY,
	FAULT_CUT_CONTROL, /* between supervisor and a node */
	FAULT_BREAK_LINK,
	FAULT_SLOW_NETWORK,
	FAULT_DISK_FULL,
	FAULT_SYNC_FAILS,
	FAULT_ROT,
	FAULT_CLOCK,
	FAULT_SWITCHOVER,
	FAULT_MEMBERS, /* not an accident, but it does not wait for a quiet hour */
	FAULT_COUNT
};

void faults_plan(struct world *w)
{
	struct fault_plan *f = &w->faults;
	unsigned kinds = (unsigned)rng_between(&w->rng, 2, 7);

	f->kinds = 0;
	while (kinds-- > 0)
		f->kinds |= 1u << rng_below(&w->rng, FAULT_COUNT);
	if (rng_once_in(&w->rng, 3))
		f->kinds |= 1u << FAULT_MEMBERS;
	f->gap_min_us = MS(rng_between(&w->rng, 5, 150));
	f->gap_max_us = f->gap_min_us + MS(rng_between(&w->rng, 50, 700));
	f->end_us = MS(rng_between(&w->rng, 1200, 4000));
}

static struct node *any_node(struct world *w)
{
	return &w->nodes[rng_below(&w->rng, w->node_count)];
}

static struct node *some_master(struct world *w)
{
	uint32_t i;

	for (i = 0; i < w->node_count; i++)
		if (w->nodes[i].alive && w->nodes[i].master.running)
			return &w->nodes[i];
	return any_node(w);
}

static void kill_node(struct world *w, struct node *n, enum death death)
{
	(void)w;
	node_die(n, death, -1, SIGKILL);
}

static void power_all(struct world *w)
{
	uint32_t i;

	trace(w, "power cut");
	super_die(w);
	for (i = 0; i < w->node_count; i++)
		node_die(&w->nodes[i], DEATH_POWER, -1, SIGKILL);
	world_later(w, EV_SUPERVISOR_UP, 0, rng_between(&w->rng, MS(10), MS(300)), 0, 0);
}

static void pause_node(struct world *w, struct node *n)
{
	uint64_t us = rng_between(&w->rng, MS(5), rng_once_in(&w->rng, 2) ? MS(300) : MS(2500));

	trace(w, "node%u is paused for %" PRIu64 " ms", n->index + 1, us / 1000);
	n->paused_us = w->now_us + us;
}

static void pause_supervisor(struct world *w, uint64_t us)
{
	trace(w, "supervisor is paused for %" PRIu64 " ms", us / 1000);
	w->supervisor.paused_us = w->now_us + us;
}

static void pause_host(struct world *w)
{
	uint64_t us = rng_between(&w->rng, MS(50), MS(2000));
	uint32_t i;

	for (i = 0; i < w->node_count; i++)
		w->nodes[i].paused_us = w->now_us + us;
	pause_supervisor(w, us);
}

static void block(struct world *w, uint32_t from, uint32_t to, uint64_t until_us)
{
	if (from != to && w->network.blocked_us[from][to] < until_us)
		w->network.blocked_us[from][to] = until_us;
}

static void partition(struct world *w)
{
	uint64_t until_us = w->now_us + rng_between(&w->rng, MS(20), MS(1500));
	uint32_t side = (uint32_t)rng_below(&w->rng, 1u << w->node_count), i, j;

	trace(w, "partition: nodes %x against the rest", side);
	for (i = 0; i < w->node_count; i++)
		for (j = 0; j < w->node_count; j++)
			if ((side >> i & 1) != (side >> j & 1))
				block(w, i, j, until_us);
}

static void cut_control(struct world *w)
{
	uint64_t until_us = w->now_us + rng_between(&w->rng, MS(20), MS(1200));
	uint32_t n = (uint32_t)rng_below(&w->rng, w->node_count), how = (uint32_t)rng_below(&w->rng, 3);

	trace(w, "node%u is cut off from the supervisor", n + 1);
	if (how != 1)
		block(w, SIM_SUPERVISOR, n, until_us);
	if (how != 2)
		block(w, n, SIM_SUPERVISOR, until_us);
}

static void break_links(struct world *w)
{
	uint32_t count = (uint32_t)rng_between(&w->rng, 1, 4), master = some_master(w)->index, node;

	while (count-- > 0) {
		node = (uint32_t)rng_below(&w->rng, w->node_count);
		if (rng_once_in(&w->rng, 2)) {
			trace(w, "link node%u-node%u breaks", node + 1, master + 1);
			pipe_break(w, pipe_id(PIPE_ACKS, node, master));
		} else {
			trace(w, "link node%u-node%u breaks", master + 1, node + 1);
			pipe_break(w, pipe_id(PIPE_RECORDS, master, node));
		}
	}
}

static void slow_network(struct world *w)
{
	w->network.delay_max_us = rng_once_in(&w->rng, 2) ? 120 : rng_between(&w->rng, 200, MS(20));
	w->network.delay_tail_us = w->network.delay_max_us * rng_between(&w->rng, 1, 10);
	trace(w, "network delays up to %" PRIu64 " us", w->network.delay_tail_us);
}

/* Whether enough others hold a damaged record, where these are the members: one node at a time. */
static bool survives_rot(const struct world *w, const struct members *members)
{
	struct members_quorum quorums[2];
	unsigned count = members_quorums(members, w->durability, quorums);
	uint32_t i;

	while (count > 0)
		if (quorums[--count].acks < 2)
			return false;
	for (i = 0; i < w->node_count; i++)
		if (members_present(members->entries[i].state) &&
		    (w->nodes[i].disk.standing != STANDING_WHOLE || w->nodes[i].disk.rotten))
			return false;
	return true;
}

/* The members that the supervisor goes by are not those in its file when it could not be told that they were stored. */
static void rot(struct world *w)
{
	struct node *n = any_node(w);
	const struct sim_supervisor *s = &w->supervisor;

	if (!survives_rot(w, &s->members) || (s->alive && !survives_rot(w, cluster_members(s->cluster))))
		return;
	kill_node(w, n, DEATH_KILLED);
	if (disk_rot(&n->disk, &w->rng))
		trace(w, "node%u: a record rots", n->index + 1);
}

/* Whatever an operator may ask, also what makes no sense: adding members, and removing present ones, more often. */
static void change_members(struct world *w)
{
	enum change what = rng_once_in(&w->rng, 2)   ? CHANGE_REMOVE
			   : rng_once_in(&w->rng, 4) ? CHANGE_ADD_READONLY
						     : CHANGE_ADD;
	enum members_state wanted = what == CHANGE_REMOVE ? MEMBERS_VOTER : MEMBERS_NONE;
	uint32_t node = (uint32_t)rng_below(&w->rng, SIM_NODES_MAX), tries = 8;

	if (!w->supervisor.alive)
		return;
	while (tries-- > 0 && cluster_members(w->supervisor.cluster)->entries[node].state != wanted)
		node = (uint32_t)rng_below(&w->rng, SIM_NODES_MAX);
	supervisor_later(w, EV_CHANGE, node, 0, what, 0);
}

static void strike(struct world *w, enum fault fault)
{
	struct node *n = any_node(w);

	switch (fault) {
	case FAULT_KILL:
		kill_node(w, n, rng_once_in(&w->rng, 3) ? DEATH_TORN : DEATH_KILLED);
		return;
	case FAULT_KILL_MASTER:
		kill_node(w, some_master(w), rng_once_in(&w->rng, 3) ? DEATH_TORN : DEATH_KILLED);
		return;
	case FAULT_KILL_IN_WRITE:
		n->dies_in = (unsigned)rng_between(&w->rng, 1, 4);
		n->death = rng_once_in(&w->rng, 2) ? DEATH_POWER : DEATH_TORN;
		return;
	case FAULT_POWER:
		kill_node(w, n, DEATH_POWER);
		return;
	case FAULT_POWER_ALL:
		power_all(w);
		return;
	case FAULT_PAUSE:
		pause_node(w, n);
		return;
	case FAULT_PAUSE_MASTER:
		pause_node(w, some_master(w));
		return;
	case FAULT_PAUSE_HOST:
		pause_host(w);
		return;
	case FAULT_KILL_SUPERVISOR:
		if (w->supervisor.alive)
			world_later(w, EV_SUPERVISOR_UP, 0, rng_between(&w->rng, MS(1), MS(500)), 0, 0);
		super_die(w);
		return;
	case FAULT_PAUSE_SUPERVISOR:
		pause_supervisor(w, rng_between(&w->rng, MS(10), MS(1500)));
		return;
	case FAULT_TERM_FILE:
		w->supervisor.store_fails = (unsigned)rng_between(&w->rng, 1, 3);
		return;
	case FAULT_PARTITION:
		partition(w);
		return;
	case FAULT_ONE_WAY:
		block(w, n->index, (uint32_t)rng_below(&w->rng, w->node_count),
		      w->now_us + rng_between(&w->rng, MS(20), MS(1500)));
		return;
	case FAULT_CUT_CONTROL:
		cut_control(w);
		return;
	case FAULT_BREAK_LINK:
		break_links(w);
		return;
	case FAULT_SLOW_NETWORK:
		slow_network(w);
		return;
	case FAULT_DISK_FULL:
		trace(w, "node%u: disk %s", n->index + 1, n->disk.full ? "has space again" : "is full");
		n->disk.full = !n->disk.full;
		return;
	case FAULT_SYNC_FAILS:
		trace(w, "node%u: syncs %s", n->index + 1, n->disk.sync_fails ? "work again" : "fail");
		n->disk.sync_fails = !n->disk.sync_fails;
		return;
	case FAULT_ROT:
		rot(w);
		return;
	case FAULT_CLOCK:
		w->wall_us[n->index] += (int64_t)rng_below(&w->rng, MS(20000)) - (int64_t)MS(10000);
		return;
	case FAULT_SWITCHOVER:
		if (w->supervisor.alive)
			supervisor_later(w, EV_SWITCHOVER, 0, 0,
					 rng_once_in(&w->rng, 2) ? NOBODY : rng_below(&w->rng, w->node_count), 0);
		return;
	case FAULT_MEMBERS:
		change_members(w);
		return;
	case FAULT_COUNT:
		return;
	}
}

void faults_strike(struct world *w)
{
	struct fault_plan *f = &w->faults;
	uint64_t gap_us = rng_between(&w->rng, f->gap_min_us, f->gap_max_us);
	unsigned kind;

	do
		kind = (unsigned)rng_below(&w->rng, FAULT_COUNT);
	while ((f->kinds >> kind & 1) == 0);
	if ((f->kinds >> FAULT_MEMBERS & 1) && rng_once_in(&w->rng, 4))
		kind = FAULT_MEMBERS;
	w->totals.faults++;
	strike(w, (enum fault)kind);
	if (kind == FAULT_MEMBERS && rng_once_in(&w->rng, 2)) /* in the midst of it */
		gap_us = rng_between(&w->rng, MS(1), MS(80));
	if (w->now_us + f->gap_min_us < f->end_us)
		world_later(w, EV_FAULT, 0, gap_us, 0, 0);
}

/* Everything works from now on; what is down is started by whoever has to, what is paused goes on in its time. */
void faults_end(struct world *w)
{
	uint32_t i, j;

	trace(w, "the faults end");
	for (i = 0; i <= SIM_NODES_MAX; i++)
		for (j = 0; j <= SIM_NODES_MAX; j++)
			if (w->network.blocked_us[i][j] > w->now_us)
				w->network.blocked_us[i][j] = w->now_us;
	for (i = 0; i < w->node_count; i++) {
		struct node *n = &w->nodes[i];

		n->disk.full = n->disk.sync_fails = false;
		n->dies_in = 0;
	}
	w->supervisor.store_fails = 0;
	w->network.delay_max_us = w->network.delay_tail_us = 120;
}

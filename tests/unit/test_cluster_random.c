/*
 * test_cluster_random.c - thousands of seeded schedules against the supervisor's decisions.
 *
 * Nodes die, hang, wake up, diverge, refuse; answers come late, twice or never; the term file cannot be written; the
 * supervisor pauses, or dies and is succeeded by another one while its last requests are still on their way. The rig
 * (tests/unit/cluster_rig.h) checks every action; here two more promises are checked: what a quorum holds is never cut
 * by a promotion, and when the trouble ends there is a master again. A failing seed is printed and can be given as the
 * program's argument.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/cluster_rig.h"
#include "tests/unit/unit.h"

#define SEEDS 2000
#define STEPS 400
#define SLOTS 8 /* numbers that members may have */

static uint64_t only_seed; /* from the command line; 0: all */

static uint64_t next_random(uint64_t *state) /* splitmix64 */
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static unsigned pick(uint64_t *state, unsigned below)
{
	return (unsigned)(next_random(state) % below);
}

static unsigned model_master(const struct rig *r)
{
	unsigned best = CLUSTER_NOBODY;
	unsigned n;

	for (n = 0; n < r->slots; n++)
		if (r->nodes[n].running && r->nodes[n].role == WIRE_ROLE_MASTER &&
		    (best == CLUSTER_NOBODY || r->nodes[n].promised_term > r->nodes[best].promised_term))
			best = n;
	return best;
}

/* The master writes; each replica of its term that has not promised a newer one may get a part. Returns the highest
 * position that a quorum holds, of old voters and new while there are two sets, which a client may have been told
 * about. */
static void write_some(struct rig *r, uint64_t *rnd, struct wal_pos *acked)
{
	unsigned m = model_master(r);
	uint32_t holders = 0;
	unsigned n;

	if (m == CLUSTER_NOBODY || r->nodes[m].draining || r->nodes[m].hung)
		return;
	r->nodes[m].last.lsn += 1 + pick(rnd, 3);
	for (n = 0; n < r->slots; n++) {
		struct rig_node *node = &r->nodes[n];

		if (n != m && node->running && !node->hung && node->promised_term == r->nodes[m].promised_term &&
		    node->state != WIRE_STATE_DIVERGED && pick(rnd, 3) > 0) {
			node->last = r->nodes[m].last;
			node->in_log = r->nodes[m].in_log;
		}
		if (wal_pos_cmp(node->last, r->nodes[m].last) == 0)
			holders |= 1u << n;
	}
	if (rig_acknowledges(&r->nodes[m].in_force, holders)) {
		r->nodes[m].committed_lsn = r->nodes[m].last.lsn;
		r->nodes[m].committed = r->nodes[m].in_log;
		if (wal_pos_cmp(r->nodes[m].last, *acked) > 0)
			*acked = r->nodes[m].last;
	}
}

static void bother_node(struct rig *r, uint64_t *rnd)
{
	unsigned n = pick(rnd, r->slots);
	struct rig_node *node = &r->nodes[n];
	struct cluster_event ev = {.type = CLUSTER_NO_REPLY, .node = n};
	bool was_diverged = node->state == WIRE_STATE_DIVERGED;

	switch (pick(rnd, 9)) {
	case 0:
		if (node->running)
			rig_exit(r, n, pick(rnd, 3) == 0 ? 2 : -1, SIGKILL);
		return;
	case 1:
		node->hung = true;
		return;
	case 2:
		node->hung = false;
		return;
	case 3:
		node->accepts = pick(rnd, 3) > 0;
		return;
	case 4:
		if (was_diverged || node->state == WIRE_STATE_FAILED || node->role == WIRE_ROLE_MASTER)
			node->state = WIRE_STATE_UP;
		else
			node->state = pick(rnd, 2) ? WIRE_STATE_DIVERGED : WIRE_STATE_FAILED;
		return;
	case 5:
		ev.u.reply.seq = node->seq;
		node->seq = 0;
		rig_step(r, &ev); /* the request or its answer was lost, or there was none */
		return;
	case 6:
		ev.u.reply.seq = node->last_seq;
		rig_step(r, &ev); /* late */
		return;
	case 7:
		node->busy = !node->busy;
		return;
	default:
		node->ready = pick(rnd, 4) > 0;
		return;
	}
}

/* PROMOTE or SET_TERM of the old supervisor may still reach a node after the new one has begun. */
static void replace_supervisor(struct rig *r, uint64_t *rnd)
{
	struct rig_node before[CLUSTER_NODES_MAX];
	unsigned n;

	memcpy(before, r->nodes, sizeof(before));
	rig_new_core(r);
	r->switchover_done = true;
	for (n = 0; n < r->slots; n++) {
		struct rig_node *node = &r->nodes[n];

		if (before[n].seq == 0 || !node->running || pick(rnd, 2) == 0)
			continue;
		if (before[n].asked == WIRE_SET_TERM && before[n].asked_term > node->promised_term && node->accepts) {
			node->promised_term = before[n].asked_term;
			node->role = WIRE_ROLE_REPLICA;
		} else if (before[n].asked == WIRE_PROMOTE && before[n].asked_term == node->promised_term &&
			   node->accepts) {
			node->role = WIRE_ROLE_MASTER;
			node->promoted_term = node->promised_term;
			node->last = (struct wal_pos){node->promised_term, node->last.lsn + 1};
			node->in_force = before[n].asked_members;
		} else if (before[n].asked == WIRE_MEMBERS && before[n].asked_term == node->promised_term &&
			   node->role == WIRE_ROLE_MASTER && node->accepts &&
			   before[n].asked_members.version > node->in_force.version) {
			node->in_force = node->in_log = before[n].asked_members;
			node->last.lsn++;
		}
	}
	r->change_done = true;
	rig_begin(r, false);
}

static void deliver_kills(struct rig *r, uint64_t *rnd, bool all)
{
	unsigned n;

	for (n = 0; n < r->slots; n++)
		if (r->nodes[n].running && r->nodes[n].killed != 0 && (all || pick(rnd, 3) == 0))
			rig_exit(r, n, -1, r->nodes[n].killed);
}

static void bother_supervisor(struct rig *r, uint64_t *rnd)
{
	switch (pick(rnd, 14)) {
	case 12:
		rig_add(r, pick(rnd, r->slots), pick(rnd, 4) == 0);
		return;
	case 13:
		rig_remove(r, pick(rnd, r->slots));
		return;
	case 0:
		replace_supervisor(r, rnd);
		return;
	case 1:
		r->now_ms += pick(rnd, 5000); /* paused */
		return;
	case 2:
		r->persist_fails = pick(rnd, 3) == 0;
		return;
	case 3:
		if (!r->switchover_done)
			return;
		rig_switchover(r, pick(rnd, 2) ? CLUSTER_NOBODY : pick(rnd, r->slots));
		return;
	default:
		r->now_ms += pick(rnd, 30);
		rig_tick(r);
		return;
	}
}

static void check_acked(const struct rig *r, struct wal_pos acked, unsigned promotes_before)
{
	unsigned holders = 0;
	unsigned n;

	if (r->promotes != promotes_before) /* what may have been acknowledged is in the new master's log */
		CU_ASSERT(wal_pos_cmp(r->nodes[r->promoted].last, acked) >= 0 || acked.term > r->promoted_term);
	for (n = 0; n < r->slots; n++)
		holders += wal_pos_cmp(r->nodes[n].last, acked) >= 0;
	CU_ASSERT(holders >= 1);
}

static void heal(struct rig *r, uint64_t *rnd)
{
	unsigned n;
	int round;

	r->persist_fails = false;
	for (n = 0; n < r->slots; n++) {
		r->nodes[n].accepts = r->nodes[n].ready = true;
		r->nodes[n].hung = false;
		r->nodes[n].state = WIRE_STATE_UP;
		r->nodes[n].committed_lsn = r->nodes[n].last.lsn;
	}
	r->commits = true;
	for (round = 0; round < 80; round++) {
		deliver_kills(r, rnd, true);
		for (n = 0; n < r->slots; n++)
			r->nodes[n].hung = false;
		if (rig_master(r) != CLUSTER_NOBODY)
			rig_write(r, rig_master(r), 1); /* which learners get too */
		rig_run(r, 500);
	}
}

static void run_seed(uint64_t seed)
{
	static struct rig r;
	struct wal_pos acked = {0, 0};
	uint64_t rnd = seed;
	unsigned promotes;
	unsigned n;
	int i;

	rig_init(&r, 1 + pick(&rnd, 5));
	r.slots = SLOTS;
	r.commits = false;
	r.switchover_done = r.change_done = true;
	rig_begin(&r, true);
	for (i = 0; i < STEPS; i++) {
		promotes = r.promotes;
		switch (pick(&rnd, 8)) {
		case 0:
			bother_node(&r, &rnd);
			break;
		case 1:
			bother_supervisor(&r, &rnd);
			break;
		case 2:
			write_some(&r, &rnd, &acked);
			break;
		case 3:
			deliver_kills(&r, &rnd, false);
			break;
		case 4:
			r.now_ms += pick(&rnd, 20);
			rig_tick(&r);
			break;
		default:
			rig_answer(&r, pick(&rnd, r.slots));
			break;
		}
		check_acked(&r, acked, promotes);
	}
	heal(&r, &rnd);
	n = rig_master(&r);
	if (n == CLUSTER_NOBODY)
		printf("no master in the end: %s\n", rig_reason(&r));
	CU_ASSERT_FATAL(n != CLUSTER_NOBODY);
	CU_ASSERT(r.nodes[n].running && r.nodes[n].role == WIRE_ROLE_MASTER && !r.nodes[n].draining);
	CU_ASSERT(model_master(&r) == n);
	CU_ASSERT(r.switchover_done && r.change_done);
	CU_ASSERT(members_pending(&r.persisted) == MEMBERS_NOBODY); /* completed or undone, never half */
	for (i = 0; i < SLOTS; i++)
		CU_ASSERT(r.nodes[i].running == members_present(r.persisted.entries[i].state));
	rig_fini(&r);
}

static void random_schedules_keep_every_promise(void)
{
	uint64_t seed;

	for (seed = only_seed == 0 ? 1 : only_seed; seed <= (only_seed == 0 ? SEEDS : only_seed); seed++) {
		unsigned before = CU_get_number_of_failure_records();

		run_seed(seed);
		if (CU_get_number_of_failure_records() != before) {
			printf("\nseed %" PRIu64 " failed\n", seed);
			return;
		}
	}
}

static const struct unit_test tests[] = {
    {"random_schedules_keep_every_promise", random_schedules_keep_every_promise},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
	only_seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
	return unit_run("cluster_random", tests);
}

/* cluster_rig.c - see cluster_rig.h. */
#include "tests/unit/cluster_rig.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/unit.h"

void rig_init(struct rig *r, unsigned node_count)
{
	unsigned n;

	memset(r, 0, sizeof(*r));
	r->opt = (struct cluster_options){.node_count = node_count,
					  .ack_nodes = node_count / 2 + 1,
					  .interval_ms = 100,
					  .misses = 3,
					  .stall_ms = 3000};
	r->now_ms = 1000000;
	r->slots = node_count;
	r->commits = true;
	for (n = 0; n < CLUSTER_NODES_MAX; n++)
		r->nodes[n] = (struct rig_node){.accepts = true, .state = WIRE_STATE_UP, .ready = true};
	rig_new_core(r);
}

void rig_new_core(struct rig *r)
{
	struct errmsg em = {0};
	unsigned n;

	cluster_free(r->c);
	r->opt.term = r->persisted_term;
	r->opt.failovers = r->failovers;
	r->opt.members = members_count(&r->persisted) > 0 ? &r->persisted : NULL;
	for (n = 0; n < r->slots; n++) {
		r->nodes[n].seq = 0;
		r->nodes[n].probed = false;
	}
	UNIT_OK(cluster_create(&r->c, &r->opt, &em), &em);
}

void rig_fini(struct rig *r)
{
	cluster_free(r->c);
}

/* ---- what the core wants done, and what it must never want */

/* Is some promise in every majority of the set? */
static bool meets_quorums(uint32_t set, uint32_t promises)
{
	unsigned voters = (unsigned)__builtin_popcount(set);

	return (unsigned)__builtin_popcount(promises & set) >= voters - (voters / 2 + 1) + 1;
}

bool rig_acknowledges(const struct members *in_force, uint32_t holders)
{
	struct members_quorum q[2];
	unsigned count = members_quorums(in_force, DURABILITY_QUORUM, q);
	unsigned i;

	for (i = 0; i < count; i++)
		if ((unsigned)__builtin_popcount(holders & q[i].nodes) < q[i].acks)
			return false;
	return true;
}

static void check_promotion(struct rig *r, const struct cluster_action *a)
{
	const struct rig_node *winner = &r->nodes[a->node];
	const struct members *m = a->u.send.members;
	uint32_t promises = 0;
	unsigned n;

	CU_ASSERT(a->u.send.term > r->promoted_term); /* (1) */
	CU_ASSERT(a->u.send.term == r->persisted_term);
	for (n = 0; n < r->slots; n++) {
		const struct rig_node *node = &r->nodes[n];

		if (node->promised_term >= a->u.send.term && wal_pos_cmp(node->last, winner->last) <= 0)
			promises |= 1u << n; /* (2) */
		if (n != a->node && node->running && node->role == WIRE_ROLE_MASTER)
			CU_FAIL("a node was promoted while another process may serve"); /* (3) */
	}
	CU_ASSERT(memcmp(m, &r->persisted, sizeof(*m)) == 0);
	CU_ASSERT(members_votes(m->entries[a->node].state));
	if (m->version == 0)
		CU_ASSERT((unsigned)__builtin_popcount(promises) >= cluster_promises_needed(&r->opt));
	if (m->version > 0) /* (4) */
		CU_ASSERT(meets_quorums(members_old_set(m), promises) && meets_quorums(members_new_set(m), promises));
	CU_ASSERT(winner->running && winner->promised_term == a->u.send.term);
	CU_ASSERT(winner->told_state != WIRE_STATE_DIVERGED && winner->told_state != WIRE_STATE_FAILED);
	r->promoted_term = a->u.send.term;
	r->promoted = a->node;
	r->promotes++;
}

static void do_send(struct rig *r, const struct cluster_action *a)
{
	struct rig_node *n = &r->nodes[a->node];

	CU_ASSERT(n->running);
	CU_ASSERT(a->u.send.timeout_ms > 0 && a->u.send.seq != 0);
	if (a->u.send.type == WIRE_SET_TERM || a->u.send.type == WIRE_PROMOTE)
		CU_ASSERT(a->u.send.term <= r->persisted_term);
	if (a->u.send.type == WIRE_PROMOTE)
		check_promotion(r, a);
	CU_ASSERT((a->u.send.members != NULL) == (a->u.send.type == WIRE_PROMOTE || a->u.send.type == WIRE_MEMBERS));
	if (a->u.send.members != NULL) {
		CU_ASSERT(a->u.send.members->version <= r->persisted.version);
		n->asked_members = *a->u.send.members;
	}
	n->last_seq = n->seq;
	n->seq = a->u.send.seq;
	n->asked = a->u.send.type;
	n->asked_term = a->u.send.term;
	n->asked_timeout_ms = a->u.send.timeout_ms;
}

static void do_spawn(struct rig *r, const struct cluster_action *a)
{
	struct rig_node *n = &r->nodes[a->node];

	CU_ASSERT(!n->running);
	n->running = true;
	n->hung = false;
	n->busy = false;
	n->probed = false;
	n->killed = 0;
	n->draining = false;
	n->seq = 0;
	n->spawns++;
	n->promoted_term = 0;
	n->role = WIRE_ROLE_REPLICA;
	if (!a->u.as_master)
		return;
	CU_ASSERT(r->persisted_term == 1 && r->promoted_term == 0);
	r->promoted_term = 1;
	n->promised_term = n->promoted_term = 1;
	n->role = WIRE_ROLE_MASTER;
	n->last = (struct wal_pos){1, 1};
	n->committed_lsn = 1;
	n->in_force = r->persisted;
}

/* From one version to the next: one member is on its way at most, and the old voters or the new are those of before. */
static void check_version(const struct members *from, const struct members *to)
{
	CU_ASSERT(members_valid(to));
	CU_ASSERT(from->version == 0 || members_new_set(to) == members_new_set(from) ||
		  members_old_set(to) == members_new_set(from) || members_new_set(to) == members_old_set(from));
}

static void do_persist(struct rig *r, const struct cluster_action *a)
{
	const struct members *m = a->u.persist.members;

	CU_ASSERT(a->u.persist.term >= r->persisted_term && m->version >= r->persisted.version);
	CU_ASSERT(a->u.persist.term > r->persisted_term || m->version > r->persisted.version);
	if (m->version > r->persisted.version)
		check_version(&r->persisted, m);
	r->persisted_term = a->u.persist.term;
	r->failovers = a->u.persist.failovers;
	r->persisted = *m;
}

static void do_retire(struct rig *r, const struct cluster_action *a)
{
	struct rig_node *n = &r->nodes[a->node];

	CU_ASSERT(!n->running);
	n->last = (struct wal_pos){0, 0};
	n->promised_term = n->committed_lsn = 0;
	memset(&n->in_log, 0, sizeof(n->in_log));
	memset(&n->committed, 0, sizeof(n->committed));
	r->retired++;
}

/* Samples that the core wants compared are: their outcomes are events of their own. */
static void tell_progress(struct rig *r, uint32_t compared)
{
	unsigned n;

	for (n = 0; n < r->slots; n++) {
		struct cluster_event ev = {.type = CLUSTER_PROGRESS, .node = n};

		if ((compared >> n & 1) == 0)
			continue;
		ev.u.advancing = r->nodes[n].busy || !r->nodes[n].hung;
		rig_step(r, &ev);
	}
}

void rig_step(struct rig *r, const struct cluster_event *ev)
{
	const struct cluster_event failed = {.type = CLUSTER_PERSIST_FAILED};
	bool persist_failed = false;
	uint32_t compared = 0;
	size_t i;

	cluster_step(r->c, ev, r->now_ms, &r->out);
	CU_ASSERT(!r->stopped || r->out.count == 0);
	for (i = 0; i < r->out.count; i++) {
		const struct cluster_action *a = &r->out.items[i];

		switch (a->type) {
		case CLUSTER_SPAWN:
			do_spawn(r, a);
			break;
		case CLUSTER_KILL:
			r->nodes[a->node].killed = a->u.signal;
			break;
		case CLUSTER_SEND:
			if (!persist_failed)
				do_send(r, a);
			break;
		case CLUSTER_PROBE:
			CU_ASSERT(r->nodes[a->node].running);
			CU_ASSERT(r->nodes[a->node].probed || !a->u.compare); /* nothing to compare with */
			r->nodes[a->node].probed = true;
			compared |= a->u.compare ? 1u << a->node : 0;
			break;
		case CLUSTER_PERSIST:
			persist_failed = r->persist_fails;
			if (!persist_failed)
				do_persist(r, a);
			break;
		case CLUSTER_LOG:
			r->warnings += a->u.level >= LOG_LEVEL_WARN;
			break;
		case CLUSTER_NOTE:
			CU_ASSERT_FATAL(a->u.note.kind < RIG_NOTES);
			r->notes[a->u.note.kind].count++;
			r->notes[a->u.note.kind].node = a->node;
			r->notes[a->u.note.kind].note = a->u.note;
			memcpy(r->notes[a->u.note.kind].text, a->text, sizeof(a->text));
			break;
		case CLUSTER_SWITCHOVER_DONE:
			CU_ASSERT(!r->switchover_done);
			r->switchover_done = true;
			r->switchover_ok = a->u.ok;
			memcpy(r->switchover_text, a->text, sizeof(a->text));
			break;
		case CLUSTER_CHANGE_DONE:
			r->change_done = true;
			r->change_ok = a->u.ok;
			memcpy(r->change_text, a->text, sizeof(a->text));
			break;
		case CLUSTER_RETIRE:
			if (!persist_failed)
				do_retire(r, a);
			break;
		case CLUSTER_STOPPED:
			r->stopped = true;
			break;
		}
	}
	CU_ASSERT(cluster_wake_ms(r->c) > r->now_ms);
	if (persist_failed)
		rig_step(r, &failed);
	tell_progress(r, compared);
}

/* ---- model nodes */

static void commit_everywhere(struct rig *r, struct rig_node *master)
{
	unsigned n;

	master->committed_lsn = master->last.lsn;
	master->committed = master->in_log;
	for (n = 0; n < r->slots; n++) {
		struct rig_node *node = &r->nodes[n];

		if (node->running && !node->hung && node->promised_term == master->promised_term) {
			node->last = master->last;
			node->in_log = master->in_log;
		}
	}
}

static bool carry_out(struct rig *r, struct rig_node *n)
{
	switch (n->asked) {
	case WIRE_SET_TERM:
		if (!n->accepts || n->asked_term < n->promised_term)
			return false;
		if (n->asked_term > n->promised_term) {
			n->role = WIRE_ROLE_REPLICA;
			n->draining = false;
		}
		n->promised_term = n->asked_term;
		return true;
	case WIRE_PROMOTE:
		if (!n->accepts || n->asked_term != n->promised_term)
			return false;
		if (n->promoted_term == n->asked_term)
			return true;
		n->promoted_term = n->asked_term;
		n->role = WIRE_ROLE_MASTER;
		n->last = (struct wal_pos){n->asked_term, n->last.lsn + 1};
		n->committed_lsn = n->last.lsn;
		n->in_force = n->asked_members;
		if (r->commits)
			n->committed = n->in_log;
		return true;
	case WIRE_MEMBERS:
		if (!n->accepts || n->role != WIRE_ROLE_MASTER || n->asked_term != n->promised_term ||
		    n->asked_members.version < n->in_force.version)
			return false;
		n->in_force = n->asked_members;
		if (n->in_log.version < n->in_force.version) {
			n->in_log = n->in_force;
			n->last.lsn++;
		}
		if (r->commits)
			commit_everywhere(r, n);
		return true;
	case WIRE_DRAIN:
	case WIRE_RESUME:
		if (!n->accepts || n->role != WIRE_ROLE_MASTER)
			return false;
		n->draining = n->asked == WIRE_DRAIN;
		return true;
	default:
		return true;
	}
}

bool rig_answer(struct rig *r, unsigned index)
{
	struct rig_node *n = &r->nodes[index];
	struct wire_node_status s = {0};
	struct cluster_event ev = {.type = CLUSTER_REPLY, .node = index};

	if (!n->running || n->hung || n->seq == 0)
		return false;
	ev.u.reply.seq = n->seq;
	ev.u.reply.status = &s;
	n->seq = 0;
	s.accepted = carry_out(r, n);
	s.role = n->role;
	s.state = n->told_state = n->state;
	s.ready = n->ready;
	s.lag_ms = n->lag_ms;
	s.draining = n->draining;
	s.promised_term = n->promised_term;
	s.last = n->last;
	s.durable_lsn = s.applied_lsn = n->last.lsn;
	s.committed_lsn = n->committed_lsn;
	s.disk_age_ms = n->disk_age_ms;
	s.disk_busy_ms = n->disk_busy_ms;
	s.stuck_ms = n->stuck_ms;
	s.members = n->committed;
	rig_step(r, &ev);
	return true;
}

void rig_answer_all(struct rig *r)
{
	bool any = true;
	unsigned n;
	int round;

	for (round = 0; any && round < 100; round++) {
		any = false;
		for (n = 0; n < r->slots; n++)
			any = rig_answer(r, n) || any;
	}
	CU_ASSERT(round < 100);
}

void rig_tick(struct rig *r)
{
	const struct cluster_event ev = {.type = CLUSTER_TICK};

	rig_step(r, &ev);
}

static void run_until(struct rig *r, uint64_t end_ms, bool answering)
{
	while (cluster_wake_ms(r->c) <= end_ms) {
		r->now_ms = cluster_wake_ms(r->c);
		rig_tick(r);
		if (answering)
			rig_answer_all(r);
	}
	r->now_ms = end_ms;
}

void rig_run(struct rig *r, uint64_t ms)
{
	rig_answer_all(r);
	run_until(r, r->now_ms + ms, true);
}

void rig_run_silent(struct rig *r, uint64_t ms)
{
	run_until(r, r->now_ms + ms, false);
}

/* ---- events */

void rig_begin(struct rig *r, bool first_start)
{
	struct cluster_event ev = {.type = CLUSTER_BEGIN, .node = CLUSTER_NOBODY};
	unsigned n;

	ev.u.begin.first_start = first_start;
	for (n = 0; n < r->slots; n++)
		if (r->nodes[n].running)
			ev.u.begin.adopted |= 1u << n;
	ev.u.begin.answered = ev.u.begin.adopted;
	for (n = 0; n < r->slots; n++)
		ev.u.begin.restarts[n] = r->nodes[n].restarts;
	rig_step(r, &ev);
}

void rig_exit(struct rig *r, unsigned n, int code, int signal)
{
	struct cluster_event ev = {.type = CLUSTER_NODE_EXITED, .node = n};

	ev.u.exited.code = code;
	ev.u.exited.signal = signal;
	r->nodes[n].running = false;
	r->nodes[n].seq = 0;
	rig_step(r, &ev);
}

void rig_switchover(struct rig *r, unsigned target)
{
	const struct cluster_event ev = {.type = CLUSTER_SWITCHOVER, .node = target};

	r->switchover_done = false;
	rig_step(r, &ev);
}

void rig_add(struct rig *r, unsigned n, bool readonly)
{
	struct cluster_event ev = {.type = CLUSTER_ADD, .node = n};

	ev.u.add = (struct members_entry){readonly ? MEMBERS_READONLY : MEMBERS_VOTER, 1, 1, 1};
	r->change_done = false;
	rig_step(r, &ev);
}

void rig_remove(struct rig *r, unsigned n)
{
	const struct cluster_event ev = {.type = CLUSTER_REMOVE, .node = n};

	r->change_done = false;
	rig_step(r, &ev);
}

void rig_stop(struct rig *r)
{
	const struct cluster_event ev = {.type = CLUSTER_STOP};

	rig_step(r, &ev);
}

void rig_write(struct rig *r, unsigned master, uint64_t records)
{
	r->nodes[master].last.lsn += records;
	commit_everywhere(r, &r->nodes[master]);
}

unsigned rig_master(const struct rig *r)
{
	struct cluster_view v;

	cluster_view(r->c, &v);
	return v.master;
}

const char *rig_reason(struct rig *r)
{
	static struct cluster_view v;

	cluster_view(r->c, &v);
	return v.reason;
}

void rig_serve(struct rig *r, unsigned node_count)
{
	unsigned n;

	rig_init(r, node_count);
	rig_begin(r, true);
	rig_run(r, 250);
	CU_ASSERT_EQUAL_FATAL(rig_master(r), 0);
	for (n = 0; n < node_count; n++)
		r->nodes[n].promised_term = 1;
	rig_write(r, 0, 9);
	rig_run(r, 20000);
	CU_ASSERT_EQUAL_FATAL(rig_master(r), 0);
}

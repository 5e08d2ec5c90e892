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
	for (n = 0; n < node_count; n++)
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
	for (n = 0; n < r->opt.node_count; n++) {
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

static void check_promotion(struct rig *r, const struct cluster_action *a)
{
	const struct rig_node *winner = &r->nodes[a->node];
	unsigned promises = 0;
	unsigned n;

	CU_ASSERT(a->u.send.term > r->promoted_term); /* (1) */
	CU_ASSERT(a->u.send.term == r->persisted_term);
	for (n = 0; n < r->opt.node_count; n++) {
		const struct rig_node *node = &r->nodes[n];

		if (node->promised_term >= a->u.send.term && wal_pos_cmp(node->last, winner->last) <= 0)
			promises++; /* (2) */
		if (n != a->node && node->running && node->role == WIRE_ROLE_MASTER)
			CU_FAIL("a node was promoted while another process may serve"); /* (3) */
	}
	CU_ASSERT(promises >= cluster_promises_needed(&r->opt));
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
}

static void do_persist(struct rig *r, const struct cluster_action *a)
{
	CU_ASSERT(a->u.persist.term > r->persisted_term);
	r->persisted_term = a->u.persist.term;
	r->failovers = a->u.persist.failovers;
}

/* Samples that the core wants compared are: their outcomes are events of their own. */
static void tell_progress(struct rig *r, uint32_t compared)
{
	unsigned n;

	for (n = 0; n < r->opt.node_count; n++) {
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
		return true;
	case WIRE_DRAIN:
	case WIRE_RESUME:
		if (!n->accepts || n->role != WIRE_ROLE_MASTER)
			return false;
		n->draining = n->asked == WIRE_DRAIN;
		return true;
	default:
		(void)r;
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
	s.draining = n->draining;
	s.promised_term = n->promised_term;
	s.last = n->last;
	s.durable_lsn = s.applied_lsn = n->last.lsn;
	s.committed_lsn = n->committed_lsn;
	s.disk_age_ms = n->disk_age_ms;
	s.disk_busy_ms = n->disk_busy_ms;
	s.stuck_ms = n->stuck_ms;
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
		for (n = 0; n < r->opt.node_count; n++)
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
	for (n = 0; n < r->opt.node_count; n++)
		if (r->nodes[n].running)
			ev.u.begin.adopted |= 1u << n;
	ev.u.begin.answered = ev.u.begin.adopted;
	for (n = 0; n < r->opt.node_count; n++)
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

void rig_stop(struct rig *r)
{
	const struct cluster_event ev = {.type = CLUSTER_STOP};

	rig_step(r, &ev);
}

void rig_write(struct rig *r, unsigned master, uint64_t records)
{
	struct rig_node *m = &r->nodes[master];
	unsigned n;

	m->last.lsn += records;
	m->committed_lsn = m->last.lsn;
	for (n = 0; n < r->opt.node_count; n++)
		if (r->nodes[n].running && !r->nodes[n].hung && r->nodes[n].promised_term == m->promised_term)
			r->nodes[n].last = m->last;
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

/*
 * super.c - the supervisor's process: supervisor/supervisor.c, re-created around the real cluster core.
 *
 * It can die at any instant and be started again: then it has the term file, the roster (written a little after what it
 * says has happened), and what listens on the nodes' control sockets.
 */
#include "tests/sim/world.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/bugs.h"

#define ROSTER_DELAY_US MS(20)

static void feed(struct world *w, const struct cluster_event *ev);

static void enqueue(struct sim_supervisor *s, const struct cluster_event *ev)
{
	assert(s->queue_count < sizeof(s->queue) / sizeof(s->queue[0]));
	s->queue[s->queue_count++] = *ev;
}

static void enqueue_not_started(struct sim_supervisor *s, uint32_t node, const char *why)
{
	struct cluster_event ev = {.type = CLUSTER_NODE_EXITED, .node = node};

	ev.u.exited.code = -1;
	ev.u.exited.why = why;
	enqueue(s, &ev);
}

static void roster_changed(struct world *w)
{
	if (w->supervisor.roster_due)
		return;
	w->supervisor.roster_due = true;
	supervisor_later(w, EV_ROSTER, 0, ROSTER_DELAY_US, 0, 0);
}

static void write_roster(struct world *w)
{
	struct sim_supervisor *s = &w->supervisor;
	struct cluster_node_view view;
	uint32_t n;

	s->roster_due = false;
	for (n = 0; n < SIM_NODES_MAX; n++) {
		cluster_node_view(s->cluster, n, now_ms(w), &view);
		s->roster_restarts[n] = view.restarts;
		s->roster_process[n] = s->watched[n];
		s->roster_answered[n] = s->answered[n];
	}
}

/* ---- actions */

/* A process that the supervisor does not know may have the node's directory: one with a socket is found and killed, one
 * without keeps the new one from opening its files. */
static void do_spawn(struct world *w, const struct cluster_action *a)
{
	struct sim_supervisor *s = &w->supervisor;
	struct node *n = &w->nodes[a->node];

	assert(s->watched[a->node] == 0);
	if (n->alive && n->up) {
		node_die(n, DEATH_KILLED, -1, SIGKILL);
		enqueue_not_started(s, a->node, "a process that was not ours had its socket and was killed");
		return;
	}
	if (n->alive) {
		s->watched[a->node] = UINT32_MAX; /* the new process, which will not get far */
		supervisor_later(w, EV_EXIT, a->node, rng_between(&w->rng, MS(2), MS(8)), 1, UINT32_MAX);
		return;
	}
	node_spawn(n, a->u.as_master, members_count(cluster_members(s->cluster)));
	s->watched[a->node] = n->process;
	s->answered[a->node] = false;
	roster_changed(w);
}

static void do_kill(struct world *w, const struct cluster_action *a)
{
	struct node *n = &w->nodes[a->node];
	uint64_t delay_us = rng_between(&w->rng, 100, rng_once_in(&w->rng, 10) ? MS(120) : MS(3));
	struct event ev = {.at_us = w->now_us + delay_us,
			   .kind = EV_DIES,
			   .node = a->node,
			   .process = n->process,
			   .a = rng_once_in(&w->rng, 4) ? DEATH_TORN : DEATH_KILLED,
			   .b = (uint64_t)a->u.signal};

	if (a->u.signal == SIGTERM && n->paused_us > w->now_us)
		ev.at_us = n->paused_us + delay_us;
	if (n->alive && w->supervisor.watched[a->node] == n->process)
		event_add(w, ev);
}

static void do_probe(struct world *w, const struct cluster_action *a)
{
	const struct node *n = &w->nodes[a->node];
	bool advancing = n->alive && n->paused_us <= w->now_us && (n->busy_us <= w->now_us || rng_once_in(&w->rng, 2));
	struct cluster_event ev = {.type = CLUSTER_PROGRESS, .node = a->node};

	ev.u.advancing = advancing;
	if (a->u.compare)
		enqueue(&w->supervisor, &ev);
}

static void do_send(struct world *w, const struct cluster_action *a)
{
	struct sim_supervisor *s = &w->supervisor;
	struct node *n = &w->nodes[a->node];
	struct wire_msg *msg = w->outgoing;
	struct event ev = {.kind = EV_CONTROL, .node = a->node, .process = n->process, .a = a->u.send.seq};
	struct buf bytes = {0};

	supervisor_later(w, EV_NO_ANSWER, a->node, a->u.send.timeout_ms * 1000, a->u.send.seq, 0);
	s->seq[a->node] = a->u.send.seq;
	if (s->watched[a->node] != n->process || network_blocked(w, SIM_SUPERVISOR, a->node))
		return;
	memset(&msg->head, 0, sizeof(msg->head));
	msg->head.type = a->u.send.type;
	msg->head.term = a->u.send.term;
	memcpy(msg->head.cluster_id, sim_cluster_id, sizeof(sim_cluster_id));
	memcpy(msg->head.sender, "supervisor", sizeof("supervisor"));
	if (a->u.send.members != NULL)
		msg->body.members = *a->u.send.members;
	wire_encode(&bytes, msg);
	ev.bytes = buf_take(&bytes, &ev.len);
	ev.b = s->process;
	ev.at_us = w->now_us + network_delay(w);
	event_add(w, ev);
}

static bool do_persist(struct world *w, const struct cluster_action *a)
{
	struct sim_supervisor *s = &w->supervisor;
	const struct cluster_event failed = {.type = CLUSTER_PERSIST_FAILED};

	if (bug_planted(BUG_TERM_NOT_STORED)) {
		s->ever_started = true;
		return true;
	}
	if (s->store_fails > 0) {
		s->store_fails--;
		if (rng_once_in(&w->rng, 2)) { /* stored after all */
			s->term = a->u.persist.term;
			s->members = *a->u.persist.members;
		}
		enqueue(s, &failed);
		return false;
	}
	s->ever_started = true;
	s->term = a->u.persist.term;
	s->failovers = a->u.persist.failovers;
	s->members = *a->u.persist.members;
	check_members(w, &s->members);
	w->totals.elections++;
	return true;
}

/* What lies in its directory makes way. A process that is there all the same was left by a supervisor that died: it has
 * lost its files, and is killed as a stranger at the next start. */
static void do_retire(struct world *w, const struct cluster_action *a)
{
	struct node *n = &w->nodes[a->node];

	assert(w->supervisor.watched[a->node] == 0);
	trace(w, "node%u: its directory is put aside", a->node + 1);
	node_die(n, DEATH_KILLED, -1, SIGKILL);
	disk_clear(&n->disk);
	memset(&n->replica.incoming_state, 0, sizeof(n->replica.incoming_state));
}

static void change_done(struct world *w, const struct cluster_action *a)
{
	trace(w, "supervisor: change of the members %s: %s", a->u.ok ? "done" : "not done", a->text);
	if (w->supervisor.changes_asked == 0)
		violated(w, "a change of the members is answered twice: %s", a->text);
	else
		w->supervisor.changes_asked--;
	w->totals.changes += a->u.ok;
}

static void carry_out(struct world *w)
{
	struct sim_supervisor *s = &w->supervisor;
	bool stored = true;
	size_t i;

	for (i = 0; i < s->actions->count && s->alive; i++) {
		const struct cluster_action *a = &s->actions->items[i];

		switch (a->type) {
		case CLUSTER_SPAWN:
			if (stored || !a->u.as_master)
				do_spawn(w, a);
			else
				enqueue_not_started(s, a->node, "its term could not be stored");
			break;
		case CLUSTER_KILL:
			do_kill(w, a);
			break;
		case CLUSTER_SEND:
			if (stored)
				do_send(w, a);
			break;
		case CLUSTER_PROBE:
			do_probe(w, a);
			break;
		case CLUSTER_PERSIST:
			stored = do_persist(w, a);
			break;
		case CLUSTER_LOG:
			trace(w, "supervisor: %s", a->text);
			break;
		case CLUSTER_SWITCHOVER_DONE:
			w->totals.switchovers += a->u.ok;
			roster_changed(w);
			break;
		case CLUSTER_CHANGE_DONE:
			change_done(w, a);
			break;
		case CLUSTER_RETIRE:
			if (stored)
				do_retire(w, a);
			break;
		case CLUSTER_NOTE: /* for people; the log lines say the same */
		case CLUSTER_STOPPED:
			break;
		}
	}
}

static void arm_tick(struct world *w)
{
	struct sim_supervisor *s = &w->supervisor;
	uint64_t wake_ms = cluster_wake_ms(s->cluster);
	uint64_t at_us = wake_ms == UINT64_MAX ? 0 : wake_ms * 1000;

	if (at_us == 0 || (s->tick_us != 0 && s->tick_us <= at_us && s->tick_us >= w->now_us))
		return; /* a tick that comes too early does no harm */
	s->tick_us = at_us;
	supervisor_later(w, EV_SUPERVISOR_TICK, 0, at_us > w->now_us ? at_us - w->now_us : 0, at_us, 0);
}

static void step(struct world *w, const struct cluster_event *ev)
{
	cluster_step(w->supervisor.cluster, ev, now_ms(w), w->supervisor.actions);
	carry_out(w);
}

static void feed(struct world *w, const struct cluster_event *ev)
{
	struct sim_supervisor *s = &w->supervisor;

	assert(!s->stepping);
	s->stepping = true;
	step(w, ev);
	while (s->queue_count > 0 && s->alive) {
		struct cluster_event next = s->queue[0];

		s->queue_count--;
		memmove(&s->queue[0], &s->queue[1], s->queue_count * sizeof(s->queue[0]));
		step(w, &next);
	}
	s->stepping = false;
	if (s->alive)
		arm_tick(w);
}

/* ---- events */

static void on_node_exit(struct world *w, const struct event *ev)
{
	struct cluster_event exited = {.type = CLUSTER_NODE_EXITED, .node = ev->node};

	if (w->supervisor.watched[ev->node] == 0)
		return;
	w->supervisor.watched[ev->node] = 0;
	w->supervisor.answered[ev->node] = false;
	exited.u.exited.code = ev->b == 0 || ev->b == UINT32_MAX ? (int)(int64_t)ev->a : -1;
	exited.u.exited.signal = ev->b == UINT32_MAX ? 0 : (int)ev->b;
	feed(w, &exited);
	roster_changed(w);
}

static void on_answer(struct world *w, const struct event *ev)
{
	struct sim_supervisor *s = &w->supervisor;
	struct cluster_event reply = {.type = CLUSTER_REPLY, .node = ev->node};
	struct errmsg em = {0};

	if (ev->b != s->watched[ev->node])
		return; /* its process is gone */
	reply.u.reply.seq = (uint32_t)ev->a;
	if (wire_decode(w->incoming, ev->bytes, ev->len, sim_cluster_id, &em) != DB_OK)
		reply.type = CLUSTER_NO_REPLY; /* of a node that is about to end and has no role any more */
	reply.u.reply.status = &w->incoming->body.status;
	feed(w, &reply);
	if (s->alive && reply.type == CLUSTER_REPLY && !s->answered[ev->node] && s->watched[ev->node] != 0) {
		s->answered[ev->node] = true;
		roster_changed(w);
	}
}

static void on_change(struct world *w, const struct event *ev)
{
	struct cluster_event event = {.type = ev->a == CHANGE_REMOVE ? CLUSTER_REMOVE : CLUSTER_ADD, .node = ev->node};

	if (event.type == CLUSTER_ADD) {
		event.u.add = (struct members_entry){MEMBERS_VOTER, 1, 1, 1};
		if (ev->a == CHANGE_ADD_READONLY)
			event.u.add.state = MEMBERS_READONLY;
		if (w->node_count <= ev->node)
			w->node_count = ev->node + 1;
	}
	trace(w, "supervisor is asked to %s node%u%s", event.type == CLUSTER_ADD ? "add" : "remove", ev->node + 1,
	      ev->a == CHANGE_ADD_READONLY ? ", not to vote" : "");
	w->supervisor.changes_asked++;
	feed(w, &event);
}

void super_handle(struct world *w, struct event *ev)
{
	struct sim_supervisor *s = &w->supervisor;
	struct cluster_event event = {.type = CLUSTER_TICK, .node = ev->node};

	switch (ev->kind) {
	case EV_SUPERVISOR_TICK:
		if (ev->a != s->tick_us)
			return;
		s->tick_us = 0;
		feed(w, &event);
		return;
	case EV_EXIT:
		on_node_exit(w, ev);
		return;
	case EV_ANSWER:
		on_answer(w, ev);
		return;
	case EV_NO_ANSWER:
		if (ev->a != s->seq[ev->node])
			return;
		event.type = CLUSTER_NO_REPLY;
		event.u.reply.seq = (uint32_t)ev->a;
		feed(w, &event);
		return;
	case EV_ROSTER:
		write_roster(w);
		return;
	case EV_SWITCHOVER:
		event.type = CLUSTER_SWITCHOVER;
		event.node = ev->a == NOBODY ? CLUSTER_NOBODY : (unsigned)ev->a;
		feed(w, &event);
		return;
	case EV_CHANGE:
		on_change(w, ev);
		return;
	default:
		assert(!"an event that is not the supervisor's");
	}
}

void super_exit_seen(struct world *w, uint32_t node, uint32_t process, int code, int signal)
{
	if (w->supervisor.alive && w->supervisor.watched[node] == process)
		supervisor_later(w, EV_EXIT, node, rng_between(&w->rng, 20, 500), (uint64_t)(int64_t)code,
				 (uint64_t)signal);
}

/* ---- life */

/* What it finds running: by the roster, or by a control socket that somebody listens on. */
static void adopt(struct world *w, struct cluster_event *begin)
{
	struct sim_supervisor *s = &w->supervisor;
	uint32_t n;

	for (n = 0; n < SIM_NODES_MAX; n++) {
		const struct node *node = &w->nodes[n];
		bool written = s->roster_process[n] == node->process;

		begin->u.begin.restarts[n] = s->roster_restarts[n];
		if (!node->alive || (!written && !node->up))
			continue;
		s->watched[n] = node->process;
		s->answered[n] = written && s->roster_answered[n];
		begin->u.begin.adopted |= 1u << n;
		begin->u.begin.answered |= s->answered[n] ? 1u << n : 0;
	}
}

void super_first_members(struct world *w, struct members *out)
{
	uint32_t n;

	memset(out, 0, sizeof(*out));
	for (n = 0; n < w->first_count; n++)
		out->entries[n] = (struct members_entry){MEMBERS_VOTER, 1, 1, 1};
}

void super_start(struct world *w)
{
	struct sim_supervisor *s = &w->supervisor;
	struct cluster_event begin = {.type = CLUSTER_BEGIN, .node = CLUSTER_NOBODY};
	struct cluster_options o = {.node_count = w->first_count,
				    .ack_nodes = config_acks_of(w->durability, w->first_count),
				    .all = w->durability == DURABILITY_ALL,
				    .async = w->durability == DURABILITY_ASYNC,
				    .members = &s->members,
				    .interval_ms = 100,
				    .misses = 3,
				    .term = s->term,
				    .failovers = s->failovers};
	struct errmsg em = {0};

	s->alive = true;
	s->process++;
	s->paused_us = s->tick_us = 0;
	s->stepping = s->roster_due = false;
	s->queue_count = 0;
	s->changes_asked = 0;
	if (members_count(&s->members) == 0)
		super_first_members(w, &s->members);
	memset(s->watched, 0, sizeof(s->watched));
	memset(s->seq, 0, sizeof(s->seq));
	if (cluster_create(&s->cluster, &o, &em) != DB_OK) {
		violated(w, "the supervisor's core cannot be created: %s", em.text);
		s->alive = false;
		return;
	}
	adopt(w, &begin);
	begin.u.begin.first_start = s->term == 0 && begin.u.begin.adopted == 0 && !s->ever_started;
	trace(w, "supervisor starts, adopts %x", begin.u.begin.adopted);
	feed(w, &begin);
	if (s->alive)
		write_roster(w);
}

void super_die(struct world *w)
{
	struct sim_supervisor *s = &w->supervisor;

	if (!s->alive)
		return;
	trace(w, "supervisor is killed");
	s->alive = false;
	s->process++;
	cluster_free(s->cluster);
	s->cluster = NULL;
}

void super_reset(struct world *w)
{
	struct sim_supervisor *s = &w->supervisor;
	struct cluster_actions *actions = s->actions;

	cluster_free(s->cluster);
	memset(s, 0, sizeof(*s));
	s->actions = actions;
}

/*
 * network.c - links between nodes: PUSH sockets on TCP connections.
 *
 * Within a connection messages arrive in order and none is missing; what is under way when it breaks is lost, or (some of
 * it, for a while) still read by the other side, even after the first messages of the next connection: common/wire/link.h
 * says so. Between links there is no order at all. What a partition stops is not lost but late, as TCP has it, unless the
 * connection breaks too; no connection is made while either direction is blocked.
 */
#include "tests/sim/world.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW 16u /* messages that a connection takes before the sender has to wait */

void network_reset(struct world *w)
{
	memset(&w->network, 0, sizeof(w->network));
	w->network.delay_min_us = 20;
	w->network.delay_max_us = 120;
	w->network.delay_tail_us = 120;
}

/* Most messages are quick, one in sixteen is as slow as this schedule's network gets. */
uint64_t network_delay(struct world *w)
{
	struct network *net = &w->network;
	uint64_t max_us = rng_once_in(&w->rng, 16) ? net->delay_tail_us : net->delay_max_us;

	return rng_between(&w->rng, net->delay_min_us, max_us);
}

bool network_blocked(const struct world *w, uint32_t from, uint32_t to)
{
	return w->network.blocked_us[from][to] > w->now_us;
}

uint64_t pipe_id(enum pipe_use use, uint32_t from, uint32_t to)
{
	return ((uint64_t)use * SIM_NODES_MAX + from) * SIM_NODES_MAX + to;
}

struct pipe *pipe_of(struct world *w, uint64_t id)
{
	return &w->network.pipes[0][0][0] + id;
}

static uint32_t from_of(uint64_t id)
{
	return (uint32_t)(id / SIM_NODES_MAX % SIM_NODES_MAX);
}

static uint32_t to_of(uint64_t id)
{
	return (uint32_t)(id % SIM_NODES_MAX);
}

static enum pipe_use use_of(uint64_t id)
{
	return id < (uint64_t)SIM_NODES_MAX * SIM_NODES_MAX ? PIPE_RECORDS : PIPE_ACKS;
}

static void dial(struct world *w, uint64_t id, uint64_t delay_us)
{
	struct event ev = {.at_us = w->now_us + delay_us,
			   .kind = EV_DIAL,
			   .node = from_of(id),
			   .process = w->nodes[from_of(id)].process,
			   .a = id,
			   .b = pipe_of(w, id)->connection};

	event_add(w, ev);
}

void pipe_open(struct world *w, enum pipe_use use, uint32_t from, uint32_t to)
{
	struct pipe *p = pipe_of(w, pipe_id(use, from, to));

	assert(!p->open);
	p->open = true;
	p->connected = false;
	p->connection++;
	dial(w, pipe_id(use, from, to), rng_between(&w->rng, 100, 2000));
}

/* What was under way may still arrive for a while. */
static void let_linger(struct world *w, struct pipe *p, uint32_t to)
{
	const struct node *n = &w->nodes[to];

	p->lingering = p->connection;
	p->lingering_arrived = p->arrived;
	p->linger_us = rng_once_in(&w->rng, 2) ? w->now_us : w->now_us + rng_below(&w->rng, MS(15));
	if (p->linger_us > w->now_us && n->paused_us > w->now_us) /* its socket keeps what it has received */
		p->linger_us = n->paused_us + MS(5);
	p->connected = false;
	p->connection++;
	p->under_way = 0;
}

void pipe_close(struct world *w, enum pipe_use use, uint32_t from, uint32_t to)
{
	struct pipe *p = pipe_of(w, pipe_id(use, from, to));

	if (!p->open)
		return;
	let_linger(w, p, to);
	p->open = false;
}

void pipe_break(struct world *w, uint64_t id)
{
	struct pipe *p = pipe_of(w, id);

	if (!p->open || !p->connected)
		return;
	let_linger(w, p, to_of(id));
	node_later(&w->nodes[from_of(id)], EV_LINK_LOST, rng_between(&w->rng, 50, 2000), id, p->connection);
}

void network_on_dial(struct world *w, const struct event *ev)
{
	struct pipe *p = pipe_of(w, ev->a);
	uint32_t from = from_of(ev->a), to = to_of(ev->a);

	if (!p->open || p->connected || ev->b != p->connection || ev->process != w->nodes[from].process)
		return;
	if (!w->nodes[to].up || network_blocked(w, from, to) || network_blocked(w, to, from)) {
		dial(w, ev->a, rng_between(&w->rng, MS(5), MS(60)));
		return;
	}
	p->connected = true;
	p->peer = w->nodes[to].process;
	p->last_us = w->now_us;
	p->under_way = 0;
	p->sent = p->arrived = 0;
	node_on_connected(&w->nodes[from], use_of(ev->a), to, true);
}

bool pipe_may_send(struct world *w, enum pipe_use use, uint32_t from, uint32_t to)
{
	const struct pipe *p = pipe_of(w, pipe_id(use, from, to));

	return p->open && p->connected && p->under_way < WINDOW;
}

void pipe_send(struct world *w, enum pipe_use use, uint32_t from, uint32_t to, const struct wire_msg *msg,
	       uint64_t extra_us)
{
	struct pipe *p = pipe_of(w, pipe_id(use, from, to));
	struct event ev = {.kind = EV_PACKET, .node = to, .process = p->peer, .a = pipe_id(use, from, to)};
	struct buf bytes = {0};

	assert(p->connected);
	wire_encode(&bytes, msg);
	if (bytes.failed) {
		buf_fini(&bytes);
		violated(w, "the simulator is out of memory");
		return;
	}
	ev.bytes = buf_take(&bytes, &ev.len);
	ev.b = p->connection | (uint64_t)++p->sent << 32;
	ev.at_us = w->now_us + extra_us + network_delay(w);
	if (ev.at_us < p->last_us)
		ev.at_us = p->last_us;
	p->last_us = ev.at_us;
	p->under_way++;
	event_add(w, ev);
}

void network_keep(struct world *w, struct event *ev, uint64_t until_us)
{
	struct pipe *p = pipe_of(w, ev->a);

	if (until_us > p->held_us)
		p->held_us = until_us;
	ev->at_us = until_us;
	event_add(w, *ev);
	ev->bytes = NULL;
}

bool network_arrives(struct world *w, struct event *ev)
{
	struct pipe *p = pipe_of(w, ev->a);
	uint32_t connection = (uint32_t)ev->b, number = (uint32_t)(ev->b >> 32), *arrived = &p->arrived;
	uint64_t until_us = w->network.blocked_us[from_of(ev->a)][to_of(ev->a)];

	if (connection != p->connection) {
		if (connection != p->lingering || w->now_us > p->linger_us)
			return false;
		arrived = &p->lingering_arrived;
	}
	if (until_us > w->now_us) { /* TCP sends again, until it gets through */
		network_keep(w, ev, until_us);
		return false;
	}
	if (number != *arrived + 1) { /* one before it is kept back */
		network_keep(w, ev, p->held_us > w->now_us ? p->held_us : w->now_us + 1);
		return false;
	}
	*arrived = number;
	if (arrived == &p->arrived)
		p->under_way--;
	return true;
}

void network_on_death(struct world *w, uint32_t node)
{
	uint32_t other, use;

	for (use = 0; use < 2; use++) {
		for (other = 0; other < SIM_NODES_MAX; other++) {
			pipe_close(w, use, node, other);
			pipe_break(w, pipe_id(use, other, node));
		}
	}
}

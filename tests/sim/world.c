/* world.c - see world.h: one schedule from its seed to its end. */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PROGRESS_US                                                                                                    \
	MS(60000) /* so long after the faults everything must be well; the longest grace of the product is 30 s */

static bool alloc_node(struct node *n)
{
	n->replica.position = calloc(1, sizeof(*n->replica.position));
	n->replica.ack = calloc(1, sizeof(*n->replica.ack));
	return n->replica.position != NULL && n->replica.ack != NULL && disk_init(&n->disk);
}

struct world *world_create(void)
{
	struct world *w = calloc(1, sizeof(*w));
	bool ok = w != NULL;
	uint32_t i;

	if (!ok)
		return NULL;
	w->events.heap = calloc(SIM_EVENTS_MAX, sizeof(*w->events.heap));
	w->incoming = calloc(1, sizeof(*w->incoming));
	w->outgoing = calloc(1, sizeof(*w->outgoing));
	w->supervisor.actions = calloc(1, sizeof(*w->supervisor.actions));
	ok = w->events.heap != NULL && w->incoming != NULL && w->outgoing != NULL && w->supervisor.actions != NULL &&
	     check_init(&w->checker);
	for (i = 0; i < SIM_NODES_MAX; i++)
		ok = alloc_node(&w->nodes[i]) && ok;
	if (!ok) {
		world_free(w);
		return NULL;
	}
	return w;
}

void world_free(struct world *w)
{
	uint32_t i;

	if (w == NULL)
		return;
	event_clear(w);
	super_reset(w);
	for (i = 0; i < SIM_NODES_MAX; i++) {
		node_reset(w, i);
		disk_fini(&w->nodes[i].disk);
		free(w->nodes[i].replica.position);
		free(w->nodes[i].replica.ack);
	}
	check_fini(&w->checker);
	free(w->supervisor.actions);
	free(w->incoming);
	free(w->outgoing);
	free(w->events.heap);
	free(w);
}

/* ---- events and whom they are for */

/* Puts an event off, in order among those put off to the same time. */
static void put_off(struct world *w, struct event *ev, uint64_t until_us)
{
	ev->at_us = until_us;
	event_add(w, *ev);
	ev->bytes = NULL;
}

static void to_node(struct world *w, struct event *ev)
{
	struct node *n = &w->nodes[ev->node];
	uint64_t free_us = n->paused_us > n->busy_us ? n->paused_us : n->busy_us;
	bool was_full;

	if (!n->alive || ev->process != n->process)
		return;
	if (free_us > w->now_us) {
		if (ev->kind == EV_PACKET)
			network_keep(w, ev, free_us + rng_below(&w->rng, 300));
		else
			put_off(w, ev, free_us);
		return;
	}
	if (ev->kind == EV_CONTROL && !n->up) { /* nobody listens yet: the dialer tries again */
		put_off(w, ev, w->now_us + rng_between(&w->rng, MS(5), MS(30)));
		return;
	}
	if (ev->kind == EV_PACKET) {
		struct pipe *p = pipe_of(w, ev->a);

		was_full =
		    p->connected && !pipe_may_send(w, ev->a < SIM_NODES_MAX * SIM_NODES_MAX ? PIPE_RECORDS : PIPE_ACKS,
						   (uint32_t)(ev->a / SIM_NODES_MAX % SIM_NODES_MAX), ev->node);
		if (!network_arrives(w, ev))
			return;
		node_handle(n, ev);
		if (was_full)
			node_kick(&w->nodes[ev->a / SIM_NODES_MAX % SIM_NODES_MAX],
				  ev->a < SIM_NODES_MAX * SIM_NODES_MAX ? PIPE_RECORDS : PIPE_ACKS, ev->node);
		return;
	}
	node_handle(n, ev);
}

static void to_supervisor(struct world *w, struct event *ev)
{
	struct sim_supervisor *s = &w->supervisor;

	if (!s->alive || ev->process != s->process)
		return;
	if (s->paused_us > w->now_us)
		put_off(w, ev, s->paused_us);
	else
		super_handle(w, ev);
}

static void look(struct world *w)
{
	const char *why;

	if (check_is_well(w, &why)) {
		if (w->totals.acked == w->acked_at_heal && !w->clients_stop) {
			world_later(w, EV_LOOK, 0, MS(20), 0, 0); /* it is to commit something yet */
			return;
		}
		w->over = true;
		check_end(w);
		return;
	}
	if (w->totals.acked > w->acked_at_heal && w->now_us > w->healed_us + MS(200))
		w->clients_stop = true;
	if (w->now_us > w->healed_us + PROGRESS_US) {
		char text[sizeof(w->why)];

		memcpy(text, why, strlen(why) + 1);
		violated(w, "no progress within %u s of the last fault: %s", (unsigned)(PROGRESS_US / MS(1000)), text);
		return;
	}
	world_later(w, EV_LOOK, 0, MS(20), 0, 0);
}

static void to_world(struct world *w, struct event *ev)
{
	switch (ev->kind) {
	case EV_DIAL:
		if (w->nodes[ev->node].paused_us > w->now_us)
			put_off(w, ev, w->nodes[ev->node].paused_us);
		else
			network_on_dial(w, ev);
		return;
	case EV_DIES:
		if (w->nodes[ev->node].alive && w->nodes[ev->node].process == ev->process)
			node_die(&w->nodes[ev->node], (enum death)ev->a, -1, (int)ev->b);
		return;
	case EV_SUPERVISOR_UP:
		if (!w->supervisor.alive)
			super_start(w);
		return;
	case EV_CLIENT:
		if (!w->clients_stop)
			client_begin(w, (uint32_t)ev->a);
		return;
	case EV_CLIENT_REPLY:
		client_on_reply(w, ev);
		return;
	case EV_CLIENT_TIMEOUT:
		client_on_timeout(w, ev);
		return;
	case EV_FAULT:
		if (w->healed_us == 0)
			faults_strike(w);
		return;
	case EV_HEAL:
		faults_end(w);
		w->healed_us = w->now_us;
		w->acked_at_heal = w->totals.acked;
		if (!w->supervisor.alive)
			super_start(w);
		world_later(w, EV_LOOK, 0, MS(20), 0, 0);
		return;
	case EV_LOOK:
		look(w);
		return;
	default:
		violated(w, "an event of kind %d is nobody's", (int)ev->kind);
	}
}

static void handle(struct world *w, struct event *ev)
{
	if (ev->kind <= EV_NODE_UP)
		to_node(w, ev);
	else if (ev->kind >= EV_SUPERVISOR_TICK && ev->kind <= EV_CHANGE)
		to_supervisor(w, ev);
	else
		to_world(w, ev);
}

/* ---- one schedule */

static void draw(struct world *w)
{
	static const unsigned counts[] = {1, 2, 3, 3, 3, 3, 4, 5, 5, 3};
	static const enum durability modes[] = {
	    DURABILITY_QUORUM, DURABILITY_QUORUM, DURABILITY_QUORUM, DURABILITY_QUORUM, DURABILITY_QUORUM,
	    DURABILITY_QUORUM, DURABILITY_QUORUM, DURABILITY_ALL,    DURABILITY_ALL,    DURABILITY_ASYNC};

	w->first_count = w->node_count = counts[rng_below(&w->rng, sizeof(counts) / sizeof(counts[0]))];
	w->durability = modes[rng_below(&w->rng, sizeof(modes) / sizeof(modes[0]))];
	w->client_count = (unsigned)rng_between(&w->rng, 1, SIM_CLIENTS_MAX);
	w->think_max_us = MS(rng_between(&w->rng, 5, 60));
	faults_plan(w);
}

static void reset(struct world *w, uint64_t seed, bool tracing)
{
	uint32_t i;

	super_reset(w);
	for (i = 0; i < SIM_NODES_MAX; i++)
		node_reset(w, i);
	event_clear(w);
	w->now_us = MS(1000);
	w->rng.state = seed;
	w->trace = tracing;
	w->failed = w->over = w->clients_stop = false;
	w->why[0] = '\0';
	w->last_operation = w->last_value = 0;
	w->last_pid = 0;
	w->healed_us = 0;
	memset(w->clients, 0, sizeof(w->clients));
	memset(w->wall_us, 0, sizeof(w->wall_us));
	network_reset(w);
	check_reset(w);
}

bool world_run(struct world *w, uint64_t seed, bool tracing)
{
	struct event ev;
	uint32_t c;

	reset(w, seed, tracing);
	draw(w);
	w->faults.end_us += w->now_us;
	trace(w, "seed %" PRIu64 ": %u nodes, %u acknowledge, %u clients, faults %x", seed, w->node_count,
	      config_acks_of(w->durability, w->node_count), w->client_count, w->faults.kinds);
	super_start(w);
	for (c = 0; c < w->client_count; c++) {
		w->clients[c].favourite = NOBODY;
		world_later(w, EV_CLIENT, 0, MS(10), c, 0);
	}
	world_later(w, EV_FAULT, 0, rng_between(&w->rng, MS(20), MS(600)), 0, 0);
	world_later(w, EV_HEAL, 0, w->faults.end_us - w->now_us, 0, 0);
	while (!w->over && !w->failed && event_take(w, &ev)) {
		w->now_us = ev.at_us;
		w->totals.events++;
		handle(w, &ev);
		free(ev.bytes);
	}
	w->totals.schedules++;
	w->totals.simulated_us += w->now_us - MS(1000);
	return !w->failed;
}

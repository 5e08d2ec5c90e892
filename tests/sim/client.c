/*
 * client.c - clients: each writes or reads, one operation at a time, and remembers what it was told.
 *
 * A request goes to whoever accepts on the cluster's endpoint, or down a connection that the client still has to some node,
 * master or not: frontend.c's dispatch() decides there. A write is told done, unknown (it may still be committed) or not
 * executed; each of the three is a promise that check.c holds the cluster to.
 */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <string.h>

#include "tests/sim/bugs.h"

#define RETRY_US   MS(10)
#define TIMEOUT_US MS(3000)
#define HOPS_MAX   3

static uint32_t pick_endpoint(struct world *w)
{
	uint32_t found = NOBODY, count = 0, n;

	for (n = 0; n < w->node_count; n++)
		if (w->nodes[n].up && w->nodes[n].accepting && rng_once_in(&w->rng, ++count))
			found = n;
	return found;
}

static void next_operation(struct world *w, uint32_t c)
{
	w->clients[c].operation = 0;
	world_later(w, EV_CLIENT, 0, rng_between(&w->rng, 200, w->think_max_us), c, 0);
}

void client_begin(struct world *w, uint32_t c)
{
	struct client *client = &w->clients[c];
	uint32_t target = client->favourite;

	if (client->operation != 0)
		return;
	if (target == NOBODY || !w->nodes[target].up || rng_once_in(&w->rng, 10)) {
		target = rng_once_in(&w->rng, 6) ? (uint32_t)rng_below(&w->rng, w->node_count) : pick_endpoint(w);
		client->favourite = target;
	}
	if (target == NOBODY || !w->nodes[target].up) {
		client->favourite = NOBODY;
		world_later(w, EV_CLIENT, 0, rng_between(&w->rng, MS(2), MS(20)), c, 0);
		return;
	}
	client->operation = ++w->last_operation;
	client->is_write = rng_below(&w->rng, 10) < 6;
	client->floor_lsn = w->checker.acked_lsn > w->checker.read_lsn ? w->checker.acked_lsn : w->checker.read_lsn;
	client->node = target;
	client->process = w->nodes[target].process;
	node_later(&w->nodes[target], EV_REQUEST, network_delay(w), c, client->operation);
	world_later(w, EV_CLIENT_TIMEOUT, 0, TIMEOUT_US, c, client->operation);
}

static void forward(struct node *n, const struct event *ev, struct client *client)
{
	uint32_t master = n->replica.running ? n->replica.master : NOBODY;

	if (master == NOBODY || !n->world->nodes[master].up || rng_once_in(&n->world->rng, 4)) {
		node_later(n, EV_REQUEST, RETRY_US, ev->a, ev->b);
		return;
	}
	client->node = master;
	client->process = n->world->nodes[master].process;
	node_later(&n->world->nodes[master], EV_REQUEST, network_delay(n->world), ev->a, ev->b);
}

void client_on_request(struct node *n, const struct event *ev)
{
	struct world *w = n->world;
	struct client *client = &w->clients[ev->a];

	if (client->operation != ev->b)
		return; /* the client has gone */
	if (!n->master.running) {
		forward(n, ev, client);
	} else if (!n->master.ready) {
		node_later(n, EV_REQUEST, RETRY_US, ev->a, ev->b);
	} else if (client->is_write) {
		master_submit(n, (struct job){(uint32_t)ev->a, ev->b});
	} else {
		check_linearizable_read(n, client->floor_lsn, n->disk.visible_lsn);
		client_answer(w, (struct job){(uint32_t)ev->a, ev->b}, OUTCOME_DONE, n->disk.visible_lsn, 0);
	}
}

/* The outcome travels in node, the LSN in process. */
void client_answer(struct world *w, struct job job, enum outcome outcome, uint64_t lsn, uint64_t delay_us)
{
	struct event ev = {.at_us = w->now_us + delay_us + network_delay(w),
			   .kind = EV_CLIENT_REPLY,
			   .node = outcome,
			   .process = (uint32_t)lsn,
			   .a = job.client,
			   .b = job.operation};

	if (w->clients[job.client].operation == job.operation)
		event_add(w, ev);
}

void client_on_reply(struct world *w, const struct event *ev)
{
	struct client *client = &w->clients[ev->a];

	if (client->operation != ev->b)
		return;
	if (ev->node == OUTCOME_DONE && client->is_write) {
		w->totals.acked++;
		if (ev->process > w->checker.acked_lsn)
			w->checker.acked_lsn = ev->process;
	} else if (ev->node == OUTCOME_DONE) {
		w->totals.reads++;
		if (ev->process > w->checker.read_lsn)
			w->checker.read_lsn = ev->process;
	}
	next_operation(w, (uint32_t)ev->a);
}

void client_on_timeout(struct world *w, const struct event *ev)
{
	struct client *client = &w->clients[ev->a];

	if (client->operation != ev->b)
		return;
	client->favourite = NOBODY;
	next_operation(w, (uint32_t)ev->a);
}

/* Connections to the node's process are reset. */
void client_on_death(struct world *w, uint32_t node)
{
	uint32_t c;

	for (c = 0; c < w->client_count; c++) {
		struct client *client = &w->clients[c];

		if (client->favourite == node)
			client->favourite = NOBODY;
		if (client->operation == 0 || client->node != node)
			continue;
		client->favourite = NOBODY;
		next_operation(w, c);
	}
}

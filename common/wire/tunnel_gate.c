/*
 * tunnel_gate.c - opening and closing gates: see tunnel.h. On the caller's thread; what the loop knows is under the
 * hub's mutex.
 */
#include "common/wire/tunnel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/wire/tunnel_priv.h"

void tunnel_gate_retire(struct tunnel_gate *g)
{
	struct tunnels *hub = g->hub;
	struct tunnel *t, *next;

	for (t = hub->tunnels; t != NULL; t = next) {
		next = t->next;
		if (t->gate == g)
			tunnel_bury(t);
	}
	if (!g->inward)
		unlink(g->path);
	tunnel_close_end(hub, &g->end);
	if (g->prev != NULL)
		g->prev->next = g->next;
	else
		hub->gates = g->next;
	if (g->next != NULL)
		g->next->prev = g->prev;
	g->dead = true;
	g->next = hub->dead_gates;
	hub->dead_gates = g;
}

static enum db_err open_gate(struct tunnels *hub, struct tunnel_gate *g, struct errmsg *em)
{
	enum db_err err = DB_OK;

	tunnels_enter(hub);
	g->next = hub->gates;
	if (g->next != NULL)
		g->next->prev = g;
	hub->gates = g;
	if (!tunnel_await(hub, &g->end, EPOLLIN)) {
		err = errmsg_set(em, DB_NOMEM, "cannot wait for connections at %s", g->inward ? g->name : g->path);
		tunnel_gate_retire(g);
	}
	tunnels_leave(hub);
	return err;
}

/* address: the TCP side, path: the local one; inward: the first is listened at. */
static enum db_err make_gate(struct tunnel_gate **out, struct tunnels *hub, bool inward, const char *address,
			     const char *path, struct errmsg *em)
{
	struct tunnel_gate *g = calloc(1, sizeof(*g));
	struct endpoint net, local;
	enum db_err err;

	*out = NULL;
	if (g == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	err = endpoint_resolve(&net, address, false, inward, em);
	if (err == DB_OK)
		err = endpoint_file(&local, path, em);
	if (err == DB_OK) {
		g->hub = hub;
		g->inward = inward;
		g->end = (struct tunnel_end){TUNNEL_END_GATE, -1, 0, g};
		snprintf(g->name, sizeof(g->name), "%s", address);
		memcpy(g->path, path, strlen(path) + 1);
		g->peer = inward ? local : net;
		err = endpoint_listen(&g->end.fd, inward ? &net : &local, inward ? g->name : g->path, em);
	}
	if (err != DB_OK) {
		free(g);
		return err;
	}
	g->port = inward ? endpoint_port(g->end.fd) : 0;
	err = open_gate(hub, g, em);
	if (err == DB_OK)
		*out = g;
	return err;
}

enum db_err tunnel_listen(struct tunnel_gate **out, struct tunnels *t, const char *address, const char *path,
			  struct errmsg *em)
{
	return make_gate(out, t, true, address, path, em);
}

enum db_err tunnel_dial(struct tunnel_gate **out, struct tunnels *t, const char *path, const char *address,
			struct errmsg *em)
{
	return make_gate(out, t, false, address, path, em);
}

void tunnel_close(struct tunnel_gate *g)
{
	struct tunnels *hub;

	if (g == NULL)
		return;
	hub = g->hub;
	tunnels_enter(hub);
	tunnel_gate_retire(g);
	tunnels_leave(hub);
	tunnel_wake(hub); /* to free it */
}

uint16_t tunnel_port(const struct tunnel_gate *g)
{
	return g->port;
}

/*
 * cluster_view.c - what the cluster core tells about itself: copies for the status command. Pure, reads only.
 */
#include "supervisor/cluster.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/cluster_internal.h"

void cluster_view(const struct cluster *c, struct cluster_view *out)
{
	memset(out, 0, sizeof(*out));
	out->term = c->term;
	out->failovers = c->failovers;
	out->node_count = c->opt.node_count;
	out->master = c->phase == PHASE_SERVING ? c->master : CLUSTER_NOBODY;
	out->switching = c->switchover.stage != SWITCHOVER_NONE;
	out->stopping = c->phase == PHASE_STOPPING || c->phase == PHASE_ENDED;
	if (out->master == CLUSTER_NOBODY)
		memcpy(out->reason, c->reason, sizeof(out->reason));
}

static const char *state_of(const struct cluster *c, const struct member *m, uint64_t now_ms)
{
	if (m->phase == MEMBER_DOWN)
		return "down";
	if (m->phase == MEMBER_STARTING)
		return "starting";
	if (m->phase == MEMBER_ENDING || member_silent(c, m, now_ms))
		return "hung";
	if (m->status.state == WIRE_STATE_FAILED)
		return "down";
	return m->status.role == 0 ? "starting" : wire_state_name(m->status.state);
}

void cluster_node_view(const struct cluster *c, unsigned n, uint64_t now_ms, struct cluster_node_view *out)
{
	const struct member *m;
	bool is_master;

	assert(n < c->opt.node_count);
	m = &c->members[n];
	memset(out, 0, sizeof(*out));
	out->running = m->phase != MEMBER_DOWN;
	out->answered = m->status.role != 0;
	out->state = state_of(c, m, now_ms);
	is_master = out->answered ? m->status.role == WIRE_ROLE_MASTER : out->running && n == c->master;
	out->role = is_master ? "master" : "replica";
	out->heard_ms = m->heard_ms;
	out->restarts = m->restarts;
	out->status = m->status;
	snprintf(out->reason, sizeof(out->reason), "%s",
		 m->phase == MEMBER_ALIVE && m->status.role != 0 ? m->status.reason : m->reason);
}

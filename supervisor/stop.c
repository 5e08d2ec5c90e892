/*
 * stop.c - the orderly end of every node, as the cluster core sees to it.
 *
 * The master ends first: while its replicas live it can still acknowledge what it has begun. Once it is gone, or has had
 * a quarter of the time, the others are told; whoever is left when the time is over is killed.
 */
#include "supervisor/cluster.h"

#include <signal.h>

#include "supervisor/cluster_internal.h"

void stop_begin(struct cluster *c, uint64_t now_ms)
{
	unsigned n;

	if (c->phase == PHASE_STOPPING)
		return;
	switchover_cancel(c, now_ms, "the cluster is being stopped");
	change_stopping(c);
	cluster_log(c, LOG_LEVEL_INFO, "stopping every node");
	cluster_note(c, TIMELINE_STOPPING, CLUSTER_NOBODY, "every node is stopped");
	cluster_set_phase(c, PHASE_STOPPING, now_ms);
	c->stop_ms = now_ms;
	cluster_set_reason(c, "the cluster is being stopped");
	if (c->master != CLUSTER_NOBODY && c->members[c->master].phase != MEMBER_DOWN)
		cluster_emit(c, CLUSTER_KILL, c->master)->u.signal = SIGTERM;
	for (n = 0; n < c->count; n++)
		c->members[n].seq = 0;
}

static bool all_down(const struct cluster *c)
{
	unsigned n;

	for (n = 0; n < c->count; n++)
		if (c->members[n].phase != MEMBER_DOWN && c->members[n].phase != MEMBER_ABSENT)
			return false;
	return true;
}

static void signal_members(struct cluster *c, int signal, unsigned except)
{
	unsigned n;

	for (n = 0; n < c->count; n++)
		if (n != except && c->members[n].phase != MEMBER_DOWN && c->members[n].phase != MEMBER_ABSENT)
			cluster_emit(c, CLUSTER_KILL, n)->u.signal = signal;
}

static uint64_t stop_replicas_ms(const struct cluster *c)
{
	return c->stop_ms + CLUSTER_STOP_MS / 4;
}

void stop_progress(struct cluster *c, uint64_t now_ms)
{
	bool master_gone = c->master == CLUSTER_NOBODY || c->members[c->master].phase == MEMBER_DOWN;

	if (!c->stop_replicas && (master_gone || now_ms >= stop_replicas_ms(c))) {
		signal_members(c, SIGTERM, c->master);
		c->stop_replicas = true;
	}
	if (!c->stop_killed && now_ms >= c->stop_ms + CLUSTER_STOP_MS) {
		cluster_log(c, LOG_LEVEL_WARN, "nodes that did not end within %u ms are killed", CLUSTER_STOP_MS);
		signal_members(c, SIGKILL, CLUSTER_NOBODY);
		c->stop_killed = true;
	}
	if (all_down(c)) {
		cluster_set_phase(c, PHASE_ENDED, now_ms);
		cluster_emit(c, CLUSTER_STOPPED, CLUSTER_NOBODY);
	}
}

uint64_t stop_wake_ms(const struct cluster *c)
{
	if (!c->stop_replicas)
		return stop_replicas_ms(c);
	return c->stop_killed ? UINT64_MAX : c->stop_ms + CLUSTER_STOP_MS;
}

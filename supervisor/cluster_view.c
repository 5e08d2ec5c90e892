/*
 * cluster_view.c - what the cluster core tells about itself: copies for the status command. Pure, reads only.
 */
#include "supervisor/cluster.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/cluster_internal.h"

void cluster_view(const struct cluster *c, struct cluster_view *out)
{
	memset(out, 0, sizeof(*out));
	out->term = c->term;
	out->failovers = c->failovers;
	out->node_count = c->count;
	out->master = c->phase == PHASE_SERVING ? c->master : CLUSTER_NOBODY;
	out->switching = c->switchover.stage != SWITCHOVER_NONE;
	change_describe(c, out->change, sizeof(out->change));
	out->ending = change_is_ending(c);
	out->ending_node = c->change.node;
	if (out->ending && c->change.ok)
		memcpy(out->outcome, c->change.text, sizeof(out->outcome));
	out->changing = out->change[0] != '\0';
	out->stopping = c->phase == PHASE_STOPPING || c->phase == PHASE_ENDED;
	if (out->master == CLUSTER_NOBODY)
		memcpy(out->reason, c->reason, sizeof(out->reason));
}

static const char *state_of(const struct cluster *c, const struct member *m, uint64_t now_ms)
{
	char why[CLUSTER_TEXT_MAX];

	if (m->phase == MEMBER_DOWN || m->phase == MEMBER_ABSENT)
		return "down";
	if (m->phase == MEMBER_STARTING)
		return "starting";
	if (m->phase == MEMBER_ENDING || member_silent(c, m, now_ms) || member_stalled(c, m, why))
		return "hung";
	if (m->status.state == WIRE_STATE_FAILED)
		return "down";
	return m->status.role == 0 ? "starting" : wire_state_name(m->status.state);
}

void cluster_node_view(const struct cluster *c, unsigned n, uint64_t now_ms, struct cluster_node_view *out)
{
	const struct member *m;
	bool is_master;

	assert(n < CLUSTER_NODES_MAX);
	m = &c->members[n];
	memset(out, 0, sizeof(*out));
	out->entry = c->roll.entries[n];
	out->membership = out->entry.state;
	out->present = member_present(c, n) || m->phase != MEMBER_ABSENT;
	out->voting = member_votes(c, n);
	out->running = m->phase != MEMBER_DOWN && m->phase != MEMBER_ABSENT;
	out->answered = m->status.role != 0;
	out->state = state_of(c, m, now_ms);
	is_master = out->answered ? m->status.role == WIRE_ROLE_MASTER : out->running && n == c->master;
	out->role = is_master ? "master" : "replica";
	out->heard_ms = m->heard_ms;
	out->restarts = m->restarts;
	out->status = m->status;
	out->keeps_up = member_usable(m) && strcmp(out->state, "hung") != 0 && member_keeps_up(m);
	memcpy(out->ended, m->ended, sizeof(out->ended));
	if (member_stalled(c, m, out->reason))
		return;
	snprintf(out->reason, sizeof(out->reason), "%s",
		 m->phase == MEMBER_ALIVE && m->status.role != 0 ? m->status.reason : m->reason);
}

/* ---- why there is no master */

struct text {
	char *at;
	size_t left; /* with the terminating NUL; what does not fit is cut */
};

static void PRINTF_LIKE(2, 3) put(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(t->at, t->left, fmt, ap);
	va_end(ap);
	if (len < 0)
		return;
	if ((size_t)len >= t->left)
		len = (int)t->left - 1;
	t->at += len;
	t->left -= (size_t)len;
}

static const char *unusable_word(const struct member *m)
{
	return m->status.state == WIRE_STATE_DIVERGED ? "cannot be used" : "has failed";
}

/* What keeps n from helping, or how it helps. */
static void put_member(struct text *t, const struct cluster *c, unsigned n, uint64_t now_ms)
{
	const struct member *m = &c->members[n];
	bool electing = c->phase == PHASE_ELECTING && !c->held;

	put(t, NODE_NAME_FMT " ", NODE_NAME(n));
	if (m->phase == MEMBER_DOWN) {
		put(t, "is down (%.160s", m->reason);
		if (m->restart_ms > now_ms)
			put(t, "; restarts in %.1f s", (double)(m->restart_ms - now_ms) / 1000);
		put(t, ")");
	} else if (m->phase == MEMBER_ENDING) {
		put(t, "is being killed (%.160s)", m->reason);
	} else if (m->phase == MEMBER_STARTING) {
		put(t, "has been starting for %.1f s", (double)(now_ms - m->started_ms) / 1000);
	} else if (member_silent(c, m, now_ms)) {
		put(t, "hangs (no answer for %.1f s)", (double)(now_ms - m->heard_ms) / 1000);
	} else if (m->status.role != 0 && !member_usable(m)) {
		put(t, "%s (%.160s)", unusable_word(m), m->status.reason);
	} else if (electing && m->promised) {
		put(t, "promised");
	} else if (electing && m->refused) {
		put(t, "refused (%.160s)", m->status.reason);
	} else if (electing) {
		put(t, "was asked");
	} else {
		put(t, "%s", m->status.role == 0 ? "was asked" : wire_state_name(m->status.state));
	}
}

static void put_members(struct text *t, const struct cluster *c, uint64_t now_ms)
{
	const char *separator = ": ";
	unsigned n;

	for (n = 0; n < c->count; n++) {
		if (!member_votes(c, n))
			continue;
		put(t, "%s", separator);
		put_member(t, c, n, now_ms);
		separator = ", ";
	}
}

static void put_stopping(struct text *t, const struct cluster *c)
{
	const char *separator = ", waiting for ";
	unsigned n;

	put(t, "the cluster is being stopped");
	for (n = 0; n < c->count; n++) {
		if (c->members[n].phase == MEMBER_DOWN || c->members[n].phase == MEMBER_ABSENT)
			continue;
		put(t, "%s" NODE_NAME_FMT, separator, NODE_NAME(n));
		separator = ", ";
	}
}

/* c->reason names each node in an election that lacks promises; said here with more, and up to date. */
static void put_electing(struct text *t, const struct cluster *c)
{
	unsigned promised = 0;
	unsigned n;

	for (n = 0; n < c->count; n++)
		promised += member_votes(c, n) && c->members[n].promised && member_usable(&c->members[n]);
	if (promised < c->need)
		put(t, "election for term %" PRIu64 " waits for enough nodes, %u of the %u needed promised", c->term,
		    promised, c->need);
	else
		put(t, "%s", c->reason);
	if (c->outage.open)
		put(t, " (%.120s)", c->outage.why);
}

void cluster_reason(const struct cluster *c, uint64_t now_ms, char *out, size_t size)
{
	struct text t = {out, size};

	out[0] = '\0';
	switch (c->phase) {
	case PHASE_SERVING:
		return;
	case PHASE_IDLE:
		put(&t, "the supervisor is starting");
		return;
	case PHASE_STOPPING:
		put_stopping(&t, c);
		return;
	case PHASE_ENDED:
		put(&t, "the cluster has been stopped");
		return;
	case PHASE_ELECTING:
		if (!c->held) {
			put_electing(&t, c);
			break;
		}
		put(&t, "%s", c->reason);
		if (c->retry_ms > now_ms)
			put(&t, "; the next election is in %" PRIu64 " ms", c->retry_ms - now_ms);
		break;
	case PHASE_GATHERING:
	case PHASE_PROMOTING:
		put(&t, "%s", c->reason);
		break;
	}
	put_members(&t, c, now_ms);
}

/*
 * switchover.c - the planned handover of the cluster core: drain the master, wait until the target has everything, then
 * an election that the target wins by being complete.
 *
 * Nothing acknowledged can be lost on the way: until the new term begins the old master is master and RESUME brings it
 * back, afterwards the rules of every election hold, and the drained master, if it is better, simply wins it. RESUME is
 * not tracked: a serving master that says it is draining while no switchover runs is told RESUME until it stops saying
 * so (next_request() in cluster.c), which also mends what a supervisor that died in the middle left behind.
 */
#include "supervisor/cluster.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "supervisor/cluster_internal.h"

/* The result, to whoever wanted the switchover. */
static void tell(struct cluster *c, bool ok, const char *text)
{
	struct cluster_action *a;

	if (c->switchover.internal) {
		change_on_switchover(c, ok, text);
		return;
	}
	a = cluster_emit(c, CLUSTER_SWITCHOVER_DONE, CLUSTER_NOBODY);
	snprintf(a->text, sizeof(a->text), "%s", text);
	a->u.ok = ok;
}

static void PRINTF_LIKE(3, 4) finish(struct cluster *c, bool ok, const char *fmt, ...)
{
	char text[CLUSTER_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->switchover.stage = SWITCHOVER_NONE;
	c->preferred = CLUSTER_NOBODY;
	tell(c, ok, text);
	cluster_note(c, ok ? TIMELINE_SWITCHOVER_END : TIMELINE_SWITCHOVER_FAILED, CLUSTER_NOBODY, "%s", text);
	cluster_log(c, ok ? LOG_LEVEL_INFO : LOG_LEVEL_WARN, "switchover %s: %.200s", ok ? "done" : "failed", text);
}

/* Gives a running switchover up; the election that may follow is somebody else's business. */
void switchover_cancel(struct cluster *c, uint64_t now_ms, const char *why)
{
	if (c->switchover.stage == SWITCHOVER_NONE)
		return;
	if (c->master != CLUSTER_NOBODY)
		member_ask_now(&c->members[c->master], now_ms); /* RESUME should not wait for the next heartbeat */
	finish(c, false, "given up: %.200s", why);
}

static bool can_take_over(const struct cluster *c, unsigned n, uint64_t now_ms)
{
	const struct member *m = &c->members[n];

	return n != c->master && c->roll.entries[n].state == MEMBERS_VOTER && member_usable(m) && member_keeps_up(m) &&
	       !member_silent(c, m, now_ms);
}

static unsigned default_target(const struct cluster *c, uint64_t now_ms)
{
	unsigned best = CLUSTER_NOBODY;
	unsigned n;

	for (n = 0; n < c->count; n++)
		if (can_take_over(c, n, now_ms) &&
		    (best == CLUSTER_NOBODY ||
		     wal_pos_cmp(c->members[n].status.last, c->members[best].status.last) > 0))
			best = n;
	return best;
}

static void refuse(struct cluster *c, const char *why)
{
	tell(c, false, why);
}

void switchover_begin(struct cluster *c, unsigned target, bool internal, uint64_t now_ms)
{
	char why[CLUSTER_TEXT_MAX];

	if (c->switchover.stage != SWITCHOVER_NONE) {
		struct cluster_action *a = cluster_emit(c, CLUSTER_SWITCHOVER_DONE, CLUSTER_NOBODY);

		assert(!internal); /* change.c looks first */
		a->u.ok = false;
		snprintf(a->text, sizeof(a->text), "another switchover is under way");
		return;
	}
	c->switchover.internal = internal;
	if (c->phase != PHASE_SERVING) {
		snprintf(why, sizeof(why), "there is no master to hand over from: %.180s", c->reason);
		refuse(c, why);
		return;
	}
	if (target == c->master) {
		finish(c, true, NODE_NAME_FMT " is already the master", NODE_NAME(target));
		return;
	}
	if (target == CLUSTER_NOBODY)
		target = default_target(c, now_ms);
	if (target == CLUSTER_NOBODY || target >= c->count) {
		refuse(c, "there is no replica that is up");
		return;
	}
	if (!can_take_over(c, target, now_ms)) {
		snprintf(why, sizeof(why), NODE_NAME_FMT " is %s", NODE_NAME(target),
			 c->roll.entries[target].state == MEMBERS_VOTER ? "not up" : "no voting member");
		refuse(c, why);
		return;
	}
	cluster_log(c, LOG_LEVEL_INFO, "switchover " NODE_NAME_FMT "->" NODE_NAME_FMT " begins", NODE_NAME(c->master),
		    NODE_NAME(target));
	cluster_note(c, TIMELINE_SWITCHOVER_BEGIN, target, "from " NODE_NAME_FMT " to " NODE_NAME_FMT,
		     NODE_NAME(c->master), NODE_NAME(target));
	c->switchover.stage = SWITCHOVER_DRAIN;
	c->switchover.begun_ms = now_ms;
	c->switchover.target = target;
	c->switchover.drain_accepted = false;
	c->switchover.deadline_ms = now_ms + CLUSTER_SWITCHOVER_MS;
	member_ask_now(&c->members[c->master], now_ms);
	member_ask_now(&c->members[target], now_ms);
}

void switchover_on_drain(struct cluster *c, uint64_t now_ms)
{
	const struct wire_node_status *s;

	if (c->switchover.stage != SWITCHOVER_DRAIN || c->master == CLUSTER_NOBODY)
		return;
	s = &c->members[c->master].status;
	if (s->accepted)
		c->switchover.drain_accepted = true;
	else
		switchover_cancel(c, now_ms, s->reason[0] == '\0' ? "the master refused to drain" : s->reason);
}

bool switchover_polls(const struct cluster *c, unsigned n)
{
	return (c->switchover.stage == SWITCHOVER_DRAIN || c->switchover.stage == SWITCHOVER_CATCH_UP) &&
	       (n == c->master || n == c->switchover.target);
}

static void drain_progress(struct cluster *c)
{
	const struct wire_node_status *s = &c->members[c->master].status;

	if (!c->switchover.drain_accepted || !s->draining || s->committed_lsn != s->last.lsn)
		return;
	c->switchover.goal = s->last;
	c->switchover.stage = SWITCHOVER_CATCH_UP;
}

static void catch_up_progress(struct cluster *c, uint64_t now_ms)
{
	const struct member *target = &c->members[c->switchover.target];
	char why[64];

	if (wal_pos_cmp(target->status.last, c->switchover.goal) != 0)
		return;
	c->switchover.stage = SWITCHOVER_ELECT;
	c->switchover.deadline_ms = now_ms + CLUSTER_SWITCHOVER_MS;
	c->preferred = c->switchover.target;
	c->last_failed = CLUSTER_NOBODY;
	c->lost_ms = now_ms;
	snprintf(why, sizeof(why), "switchover to " NODE_NAME_FMT, NODE_NAME(c->switchover.target));
	election_note_outage(c, true, c->switchover.begun_ms, why);
	election_start(c, ELECTION_SWITCHOVER, now_ms, why);
}

static void elect_progress(struct cluster *c, uint64_t now_ms)
{
	unsigned target = c->switchover.target;

	if (c->phase == PHASE_SERVING && c->master == target)
		finish(c, true, NODE_NAME_FMT " is the master of term %" PRIu64, NODE_NAME(target), c->term);
	else if (c->phase == PHASE_SERVING)
		finish(c, false, NODE_NAME_FMT " took over instead of " NODE_NAME_FMT, NODE_NAME(c->master),
		       NODE_NAME(target));
	else if (now_ms >= c->switchover.deadline_ms)
		finish(c, false, "no new master within %u ms: %.180s", CLUSTER_SWITCHOVER_MS, c->reason);
}

void switchover_progress(struct cluster *c, uint64_t now_ms)
{
	char why[CLUSTER_TEXT_MAX];

	if (c->switchover.stage == SWITCHOVER_NONE)
		return;
	if (c->switchover.stage == SWITCHOVER_ELECT) {
		elect_progress(c, now_ms);
		return;
	}
	if (!can_take_over(c, c->switchover.target, now_ms)) {
		snprintf(why, sizeof(why), NODE_NAME_FMT " is not up any more", NODE_NAME(c->switchover.target));
		switchover_cancel(c, now_ms, why);
		return;
	}
	if (now_ms >= c->switchover.deadline_ms) {
		snprintf(why, sizeof(why), "%s within %u ms",
			 c->switchover.stage == SWITCHOVER_DRAIN ? "the master did not finish its writes"
								 : "the target did not catch up",
			 CLUSTER_SWITCHOVER_MS);
		switchover_cancel(c, now_ms, why);
		return;
	}
	if (c->switchover.stage == SWITCHOVER_DRAIN)
		drain_progress(c);
	if (c->switchover.stage == SWITCHOVER_CATCH_UP)
		catch_up_progress(c, now_ms);
}

/*
 * health.c - who of the cluster core's members lives.
 *
 * A member that does not answer for interval * misses hangs - or its process, or NNG's thread in it, was merely not
 * scheduled: on a machine that is short of processor time the two look alike from outside, and killing a healthy master
 * makes the shortage worse. So the shell is asked to look at the silent process (CLUSTER_PROBE), once before the time is
 * over and once when it is. A process that did nothing in between, or is stopped, hangs and counts as such at once; one
 * that works is looked at again and again, and has CLUSTER_PATIENCE times as long to answer. A silence ends with an
 * answer, and nothing noted in it outlives it.
 *
 * An answer is not enough: it also says how long the node's disk, and the thread that writes its log, have stood still
 * (common/base/pulse.h). A member that stood still for stall_ms hangs like one that is silent. A master is killed and
 * replaced if the others can do without it; if they cannot (it is alone, or their disks hang too: it is the same one) it
 * is left, for reads go on and the disk may come back. A replica whose disk hangs is left likewise: it goes on when the
 * disk does, and a new process would hang as well. One whose thread alone hangs is killed.
 */
#include "supervisor/cluster.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "supervisor/cluster_internal.h"

void member_heard(struct member *m, uint64_t now_ms)
{
	m->heard_ms = now_ms;
	m->probed = false;
	m->stuck = false;
	m->excused = false;
}

/* A heartbeat is sent one interval after the answer before, so less than two intervals would blame everybody. */
static uint64_t budget_ms(const struct cluster *c)
{
	return c->opt.interval_ms * (c->opt.misses < 2 ? 2 : c->opt.misses);
}

uint64_t member_hung_after_ms(const struct cluster *c, const struct member *m)
{
	bool slow = (m->seq != 0 && m->asked != WIRE_HEARTBEAT) || c->phase == PHASE_GATHERING;

	return slow && budget_ms(c) < CLUSTER_COMMAND_GRACE_MS ? CLUSTER_COMMAND_GRACE_MS : budget_ms(c);
}

/* The silence after which it counts as hung, by what is known of its process now. */
static uint64_t silent_after_ms(const struct cluster *c, const struct member *m)
{
	uint64_t hung_ms = member_hung_after_ms(c, m);
	uint64_t patience_ms = budget_ms(c) * CLUSTER_PATIENCE;

	return m->stuck || hung_ms > patience_ms ? hung_ms : patience_ms;
}

bool member_silent(const struct cluster *c, const struct member *m, uint64_t now_ms)
{
	return m->phase == MEMBER_ALIVE && now_ms - m->heard_ms >= silent_after_ms(c, m);
}

/* Silence after which a running member is killed. A hung replica hurts nobody until a quorum misses it; a master, or
 * what may be one while a master is looked for, keeps everybody waiting. */
static uint64_t kill_after_ms(const struct cluster *c, unsigned n)
{
	const struct member *m = &c->members[n];
	uint64_t silent_ms = silent_after_ms(c, m);
	bool urgent = n == c->master || (m->may_serve && (c->phase == PHASE_GATHERING || c->phase == PHASE_ELECTING));

	if (m->phase == MEMBER_STARTING)
		return CLUSTER_STARTING_GRACE_MS;
	return urgent || silent_ms > CLUSTER_REPLICA_HUNG_MS ? silent_ms : CLUSTER_REPLICA_HUNG_MS;
}

/* ---- probes */

/* The first sample is taken when an answer is overdue but not missing yet, the second when it is missing. */
static uint64_t probe_due_ms(const struct cluster *c, const struct member *m)
{
	uint64_t interval_ms = c->opt.interval_ms;
	uint64_t hung_ms = member_hung_after_ms(c, m);
	uint64_t first_ms = hung_ms - interval_ms;
	uint64_t again_ms = m->probed_ms + interval_ms / 2;

	if (m->phase != MEMBER_ALIVE || m->stuck)
		return UINT64_MAX;
	if (!m->probed)
		return m->heard_ms + (first_ms > interval_ms ? first_ms : interval_ms + interval_ms / 2);
	return again_ms > m->heard_ms + hung_ms ? again_ms : m->heard_ms + hung_ms;
}

static void probe_due(struct cluster *c, uint64_t now_ms)
{
	unsigned n;

	for (n = 0; n < c->count; n++) {
		struct member *m = &c->members[n];

		if (now_ms < probe_due_ms(c, m))
			continue;
		cluster_emit(c, CLUSTER_PROBE, n)->u.compare = m->probed;
		m->probed = true;
		m->probed_ms = now_ms;
	}
}

void health_on_progress(struct cluster *c, const struct cluster_event *ev, uint64_t now_ms)
{
	struct member *m = &c->members[ev->node];

	if (m->phase != MEMBER_ALIVE || !m->probed)
		return; /* it answered meanwhile, or is another process */
	m->stuck = !ev->u.advancing;
	if (m->stuck || !m->excused)
		cluster_note(c, TIMELINE_HEARTBEAT_MISSED, ev->node, "no answer for %" PRIu64 " ms; %s",
			     now_ms - m->heard_ms,
			     m->stuck ? "its process stands still: it counts as hung"
				      : "but its process works: it gets more time")
		    ->silent_ms = now_ms - m->heard_ms;
	if (m->stuck || m->excused)
		return;
	m->excused = true;
	cluster_log(c, LOG_LEVEL_WARN,
		    NODE_NAME_FMT " has not answered for %" PRIu64 " ms, but its process works: it has %" PRIu64 " ms",
		    NODE_NAME(ev->node), now_ms - m->heard_ms, silent_after_ms(c, m));
}

/* ---- disks and writers that stand still */

/* The oldest operation has been under way so long, and none after it was of use either. */
static uint64_t disk_hung_ms(const struct wire_node_status *s)
{
	return s->disk_busy_ms < s->disk_age_ms ? s->disk_busy_ms : s->disk_age_ms;
}

bool member_stalled(const struct cluster *c, const struct member *m, char why[CLUSTER_TEXT_MAX])
{
	const struct wire_node_status *s = &m->status;
	uint64_t hung_ms = disk_hung_ms(s);

	if (m->phase != MEMBER_ALIVE || s->role == 0 || c->opt.stall_ms == 0)
		return false;
	if (hung_ms >= c->opt.stall_ms) {
		snprintf(why, CLUSTER_TEXT_MAX, "its disk has not completed a write for %" PRIu64 ".%" PRIu64 " s",
			 hung_ms / 1000, hung_ms % 1000 / 100);
		return true;
	}
	if (s->stuck_ms < c->opt.stall_ms)
		return false;
	snprintf(why, CLUSTER_TEXT_MAX, "the thread that writes its log has stood still for %" PRIu64 ".%" PRIu64 " s",
		 s->stuck_ms / 1000, s->stuck_ms % 1000 / 100);
	return true;
}

/* More than not being stalled: a disk that hangs below all nodes is noticed on one of them first, and that must not be
 * killed for it. An idle node writes at least every probe_ms, so one with a disk of its own passes soon. */
static bool disk_is_fresh(const struct cluster *c, const struct member *m, uint64_t now_ms)
{
	char why[CLUSTER_TEXT_MAX];

	return !member_stalled(c, m, why) && m->status.disk_age_ms + (now_ms - m->heard_ms) < c->opt.stall_ms / 2;
}

void health_on_status(const struct cluster *c, struct member *m, uint64_t now_ms)
{
	if (!disk_is_fresh(c, m, now_ms))
		m->works_ms = 0;
	else if (m->works_ms == 0)
		m->works_ms = now_ms;
}

/* When such a disk comes back, it is noticed on one of them first as well: the others are given time to say so. */
bool member_disk_works(const struct cluster *c, const struct member *m, uint64_t now_ms)
{
	if (c->opt.stall_ms == 0)
		return true;
	return disk_is_fresh(c, m, now_ms) && m->works_ms != 0 && now_ms - m->works_ms >= 3 * c->opt.interval_ms;
}

/* True: it was killed for it. */
static bool end_stalled(struct cluster *c, unsigned n, uint64_t now_ms)
{
	const struct member *m = &c->members[n];
	char why[CLUSTER_TEXT_MAX];
	bool thread_alone;

	if (!member_stalled(c, m, why))
		return false;
	thread_alone = disk_hung_ms(&m->status) < c->opt.stall_ms;
	if (n == c->master && election_can_replace(c, n, now_ms)) {
		member_kill(c, n, why);
		election_master_lost(c, now_ms, why);
		return true;
	}
	if (n == c->master || !thread_alone || m->status.stuck_ms < c->opt.stall_ms + CLUSTER_REPLICA_HUNG_MS)
		return false;
	member_kill(c, n, why);
	return true;
}

/* ---- judgement */

/* A loop that was late (the supervisor or the whole host was paused) says nothing about the nodes: their answers may be
 * waiting to be read. Counting begins anew (the idea is Redis Sentinel's TILT mode). */
void health_notice_pause(struct cluster *c, uint64_t now_ms)
{
	uint64_t late_ms;
	unsigned n;

	if (c->wake_ms == UINT64_MAX || now_ms <= c->wake_ms + c->opt.interval_ms)
		return;
	late_ms = now_ms - c->wake_ms;
	cluster_log(c, LOG_LEVEL_WARN, "supervisor was paused for %" PRIu64 " ms: missed heartbeats do not count",
		    late_ms);
	cluster_note(c, TIMELINE_SUPERVISOR_PAUSED, CLUSTER_NOBODY,
		     "it was not scheduled for %" PRIu64 " ms: missed heartbeats do not count", late_ms);
	for (n = 0; n < c->count; n++) {
		struct member *m = &c->members[n];

		member_heard(m, m->phase == MEMBER_STARTING ? m->heard_ms + late_ms : now_ms);
	}
	c->switchover.deadline_ms += late_ms;
}

static void kill_silent(struct cluster *c, unsigned n, uint64_t now_ms)
{
	const struct member *m = &c->members[n];
	char why[CLUSTER_TEXT_MAX];

	snprintf(why, sizeof(why), "no answer for %" PRIu64 " ms%s", now_ms - m->heard_ms,
		 m->stuck ? ", its process stands still" : "");
	member_kill(c, n, why);
	if (n == c->master)
		election_master_lost(c, now_ms, why);
}

/* A replica that says it cannot go on (its log cannot be written) needs a new process, whose recovery decides; the delays
 * of restarts keep a lasting cause from becoming a loop. An election that may still decide has its promise first. */
static bool failed(const struct cluster *c, unsigned n, uint64_t now_ms)
{
	const struct member *m = &c->members[n];
	bool deciding = c->phase == PHASE_ELECTING && !c->held && now_ms - c->phase_ms < c->window_ms;

	return m->phase == MEMBER_ALIVE && n != c->master && !m->distrusted && m->status.role == WIRE_ROLE_REPLICA &&
	       m->status.state == WIRE_STATE_FAILED && !deciding;
}

void health_progress(struct cluster *c, uint64_t now_ms)
{
	char why[CLUSTER_TEXT_MAX];
	unsigned n;

	probe_due(c, now_ms);
	for (n = 0; n < c->count; n++) {
		const struct member *m = &c->members[n];

		if (failed(c, n, now_ms)) {
			snprintf(why, sizeof(why), "it failed: %.200s", m->status.reason);
			member_kill(c, n, why);
		} else if (end_stalled(c, n, now_ms)) {
			continue;
		} else if (member_runs(m) && now_ms - m->heard_ms >= kill_after_ms(c, n)) {
			kill_silent(c, n, now_ms);
		}
	}
}

uint64_t health_wake_ms(const struct cluster *c, unsigned n, uint64_t now_ms)
{
	const struct member *m = &c->members[n];
	uint64_t wake_ms = m->heard_ms + kill_after_ms(c, n);
	uint64_t probe_ms = probe_due_ms(c, m);
	uint64_t silent_ms = m->heard_ms + silent_after_ms(c, m);

	if (probe_ms < wake_ms)
		wake_ms = probe_ms;
	if (m->phase == MEMBER_ALIVE && !member_silent(c, m, now_ms) && silent_ms < wake_ms)
		wake_ms = silent_ms; /* elections look at it */
	return wake_ms;
}

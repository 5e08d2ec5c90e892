/*
 * change.c - adding and removing members, as the cluster core sees to it: one at a time, through versions of c->roll.
 *
 * Each version is made durable here, then sent to the master (WIRE_MEMBERS, until its answers say that its log has it
 * committed), and only then the next one may follow: common/base/members.h shows the way of a state. The version in
 * the middle (JOINING, LEAVING) counts by the old voters and the new, for elections (4) as for acknowledgements; so it
 * does not matter where on this way supervisor, master or the node concerned die: whoever comes next finds a version
 * under which nothing can be lost, and goes on from there. c->change holds only what may be forgotten: who waits for an
 * answer, and a removal that has not begun because the master has to hand over first.
 *
 * A learner that cannot be started, and a joint version that its quorums do not commit, are undone: going back to the
 * old voters is safe, for whatever was acknowledged meanwhile has their quorum too. So is an election that the old voters
 * alone could decide, when it waits in vain for the new ones: they were asked for nothing but this change.
 *
 * Processes of nodes that are no members any more are ended when the master's log has the version without them; their
 * directories are kept aside (CLUSTER_RETIRE).
 */
#include "supervisor/cluster.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/planted.h"
#include "supervisor/cluster_internal.h"

#define LEARNER_FAILURES_MAX 5u    /* ends of its process other than by a snapshot, before it is given up */
#define LEARNER_LAG_MS       1000u /* it has caught up */
#define EXIT_CODE_CONFIG     2
#define FAST_POLLS_MS        2000u
#define RETRY_MS             200u /* after a PERSIST that failed */
#define HANDOVER_RETRY_MS    1000u

/* ---- telling */

static void PRINTF_LIKE(3, 4) emit_done(struct cluster *c, bool ok, const char *fmt, ...)
{
	struct cluster_action *a = cluster_emit(c, CLUSTER_CHANGE_DONE, CLUSTER_NOBODY);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(a->text, sizeof(a->text), fmt, ap);
	va_end(ap);
	a->u.ok = ok;
}

/* What will be told when all is settled. */
static void PRINTF_LIKE(3, 4) set_outcome(struct cluster *c, bool ok, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->change.text, sizeof(c->change.text), fmt, ap);
	va_end(ap);
	c->change.ok = ok;
}

/* Nothing of the change is left to be done. */
static void finish(struct cluster *c)
{
	if (c->change.text[0] != '\0')
		cluster_log(c, c->change.ok ? LOG_LEVEL_INFO : LOG_LEVEL_WARN, "members: %.200s", c->change.text);
	if (c->change.asked)
		emit_done(c, c->change.ok, "%s",
			  c->change.text[0] == '\0' ? "the members are as they were" : c->change.text);
	c->change.asked = false;
	c->change.removing = false;
	c->change.text[0] = '\0';
}

/* ---- versions */

static void set_version(struct cluster *c, unsigned n, struct members_entry entry, uint64_t now_ms)
{
	cluster_log(c, LOG_LEVEL_INFO, "members version %" PRIu64 ": " NODE_NAME_FMT " %s->%s", c->last_version + 1,
		    NODE_NAME(n), members_state_name(c->roll.entries[n].state), members_state_name(entry.state));
	cluster_before_persist(c);
	c->durable_roll = c->roll;
	c->roll.entries[n] = entry;
	c->roll.version = ++c->last_version;
	c->roll_unsure = true;
	c->change.since_ms = now_ms;
	cluster_recount(c);
	cluster_persist(c); /* (4) before the master hears of it */
	if (c->master != CLUSTER_NOBODY)
		member_ask_now(&c->members[c->master], now_ms);
}

static void advance(struct cluster *c, unsigned n, enum members_state state, uint64_t now_ms)
{
	struct members_entry entry = c->roll.entries[n];

	entry.state = state;
	if (state == MEMBERS_NONE)
		memset(&entry, 0, sizeof(entry));
	set_version(c, n, entry, now_ms);
}

/* What the master's log has committed; it cannot be newer than what we have (change_learn()). */
static bool committed(const struct cluster *c)
{
	if (PLANTED(BUG_CHANGE_NOT_AWAITED))
		return true;
	return c->master != CLUSTER_NOBODY && c->members[c->master].status.members.version >= c->roll.version;
}

void change_learn(struct cluster *c, unsigned n, uint64_t now_ms)
{
	const struct members *told = &c->members[n].status.members;

	if (told->version <= c->roll.version || c->members[n].distrusted || !members_valid(told) ||
	    members_count(told) == 0)
		return;
	cluster_log(c, LOG_LEVEL_WARN,
		    "the log of " NODE_NAME_FMT " knows members of version %" PRIu64 ", we had %" PRIu64
		    ": the log is right",
		    NODE_NAME(n), told->version, c->roll.version);
	cluster_before_persist(c);
	c->durable_roll = c->roll;
	c->roll = *told;
	c->roll_unsure = true;
	c->roll_learnt = true;
	if (c->roll.version > c->last_version)
		c->last_version = c->roll.version;
	c->change.since_ms = now_ms;
	cluster_recount(c);
	cluster_persist(c);
}

/* The caller could not store a version: nobody was told of it. It may be in the file all the same, so its number is not
 * used for anything else; a supervisor that finds it there is as safe as with the one before. */
void change_persist_failed(struct cluster *c, uint64_t now_ms)
{
	if (!c->roll_unsure)
		return;
	c->roll_unsure = false;
	c->roll = c->durable_roll;
	c->change.retry_ms = now_ms + RETRY_MS;
	cluster_recount(c);
	if (members_pending(&c->roll) != MEMBERS_NOBODY)
		return; /* tried again */
	set_outcome(c, false, "the change cannot be stored in the data directory; see the supervisor's log");
	finish(c);
}

/* ---- asked to */

/* Why nothing can be begun now. False: it can. */
static bool blocked(struct cluster *c)
{
	char text[CLUSTER_TEXT_MAX];

	change_describe(c, text, sizeof(text));
	if (text[0] != '\0')
		emit_done(c, false, "another change of the members is under way: %.200s", text);
	else if (c->phase != PHASE_SERVING)
		emit_done(c, false, "there is no master at the moment: %.200s", c->reason);
	else
		return false;
	return true;
}

static void begin(struct cluster *c, unsigned n, uint64_t now_ms)
{
	c->change.asked = true;
	c->change.node = n;
	c->change.removing = false;
	c->change.ok = false;
	c->change.goal_lsn = 0;
	c->change.failures = 0;
	c->change.failed_for_good = false;
	c->change.since_ms = now_ms;
	c->change.text[0] = '\0';
}

static void undo(struct cluster *c, unsigned n, const char *why, uint64_t now_ms)
{
	bool leaving = c->roll.entries[n].state == MEMBERS_LEAVING;

	set_outcome(c, false, NODE_NAME_FMT " was not %s: %.200s", NODE_NAME(n), leaving ? "removed" : "added", why);
	advance(c, n, leaving ? MEMBERS_VOTER : MEMBERS_NONE, now_ms);
}

void change_begin_add(struct cluster *c, const struct cluster_event *ev, uint64_t now_ms)
{
	unsigned n = ev->node;
	struct members_entry entry = ev->u.add;

	if (c->roll.entries[n].state == MEMBERS_LEAVING && c->phase == PHASE_SERVING) {
		emit_done(c, true, "the removal of " NODE_NAME_FMT " is undone", NODE_NAME(n));
		undo(c, n, "it was added again meanwhile", now_ms);
		return;
	}
	if (blocked(c))
		return;
	if (member_present(c, n)) {
		emit_done(c, false, NODE_NAME_FMT " is a member already", NODE_NAME(n));
		return;
	}
	if (c->roll.entries[n].state == MEMBERS_REMOVED || c->members[n].phase != MEMBER_ABSENT) {
		emit_done(c, false, NODE_NAME_FMT " was a member before; numbers are not used again", NODE_NAME(n));
		return;
	}
	begin(c, n, now_ms);
	entry.state = entry.state == MEMBERS_READONLY ? MEMBERS_LEARNING_READONLY : MEMBERS_LEARNING;
	set_version(c, n, entry, now_ms);
	cluster_emit(c, CLUSTER_RETIRE, n); /* whatever lies there is not of this member */
	c->members[n].restart_ms = now_ms;
}

/* Can the voters that remain acknowledge, as far as they live? */
static bool may_leave(struct cluster *c, unsigned n, uint64_t now_ms)
{
	uint32_t rest = members_new_set(&c->roll) & ~(1u << n);
	unsigned voters = (unsigned)__builtin_popcount(rest);
	unsigned live = 0;
	unsigned i;

	if (voters == 0) {
		emit_done(c, false, NODE_NAME_FMT " is the only voting member", NODE_NAME(n));
		return false;
	}
	for (i = 0; i < c->count; i++)
		live += (rest >> i & 1) && member_usable(&c->members[i]) && !member_silent(c, &c->members[i], now_ms);
	if (live >= cluster_acks_of(c, voters))
		return true;
	emit_done(c, false,
		  "without " NODE_NAME_FMT " writes would have no quorum: %u of the %u other voting members %s up, %u "
		  "must acknowledge",
		  NODE_NAME(n), live, voters, live == 1 ? "is" : "are", cluster_acks_of(c, voters));
	return false;
}

void change_begin_remove(struct cluster *c, unsigned n, uint64_t now_ms)
{
	enum members_state state = c->roll.entries[n].state;
	bool adding = members_passing(state) && state != MEMBERS_LEAVING;

	if (adding && c->phase == PHASE_SERVING && n != c->master) {
		emit_done(c, true, "the addition of " NODE_NAME_FMT " is undone", NODE_NAME(n));
		undo(c, n, "it was removed meanwhile", now_ms);
		return;
	}
	if (blocked(c))
		return;
	if (!member_present(c, n)) {
		emit_done(c, false, NODE_NAME_FMT " is not a member", NODE_NAME(n));
		return;
	}
	if (state == MEMBERS_VOTER && !may_leave(c, n, now_ms))
		return;
	begin(c, n, now_ms);
	if (n == c->master) {
		c->change.removing = true; /* change_progress() has it hand over */
		return;
	}
	set_outcome(c, true, NODE_NAME_FMT " is removed", NODE_NAME(n));
	advance(c, n, state == MEMBERS_READONLY ? MEMBERS_REMOVED : MEMBERS_LEAVING, now_ms);
}

/* ---- the way of a change */

void change_on_exit(struct cluster *c, unsigned n, const struct cluster_event *ev)
{
	enum members_state state = c->roll.entries[n].state;

	if (state != MEMBERS_LEARNING && state != MEMBERS_LEARNING_READONLY)
		return;
	/* 0: it ends to be started with a snapshot. One that could not be started counts like others: a process that a
	 * supervisor left which died just after starting it may have been in its way, and is gone the next time. */
	if (ev->u.exited.code != 0)
		c->change.failures++;
	if (ev->u.exited.code == EXIT_CODE_CONFIG || c->change.failures >= LEARNER_FAILURES_MAX)
		c->change.failed_for_good = true;
}

/* It streams, has what the master had when it began to, and was not far behind since. The end of the log as it is now
 * would not do: the two answers are of different times. */
static bool caught_up(struct cluster *c, unsigned n, uint64_t now_ms)
{
	const struct member *m = &c->members[n];

	if (!member_usable(m) || !m->status.ready || m->status.lag_ms >= LEARNER_LAG_MS || member_silent(c, m, now_ms))
		return false;
	if (c->change.goal_lsn == 0)
		c->change.goal_lsn = c->members[c->master].status.last.lsn;
	return m->status.durable_lsn >= c->change.goal_lsn;
}

/* The master is to be removed: somebody else has to be it first. */
static void hand_over(struct cluster *c, uint64_t now_ms)
{
	if (c->switchover.stage == SWITCHOVER_NONE)
		switchover_begin(c, CLUSTER_NOBODY, true, now_ms);
}

void change_on_switchover(struct cluster *c, bool ok, const char *why)
{
	if (ok)
		return; /* change_progress() sees who is master */
	if (c->change.removing) {
		set_outcome(c, false,
			    NODE_NAME_FMT " is the master and could not hand over (%.150s): try again, or switch over "
					  "to another node first",
			    NODE_NAME(c->change.node), why);
		finish(c);
	}
}

static void remove_master(struct cluster *c, uint64_t now_ms)
{
	unsigned n = c->change.node;

	if (c->master == n) {
		hand_over(c, now_ms);
		return;
	}
	c->change.removing = false;
	if (c->roll.entries[n].state != MEMBERS_VOTER || !may_leave(c, n, now_ms)) {
		c->change.asked = false; /* may_leave() has told why */
		return;
	}
	set_outcome(c, true, NODE_NAME_FMT " is removed", NODE_NAME(n));
	advance(c, n, MEMBERS_LEAVING, now_ms);
}

/* The version before is committed. */
static void pass_on(struct cluster *c, unsigned n, uint64_t now_ms)
{
	char why[CLUSTER_TEXT_MAX];

	switch (c->roll.entries[n].state) {
	case MEMBERS_LEARNING:
	case MEMBERS_LEARNING_READONLY:
		if (c->change.failed_for_good) {
			snprintf(why, sizeof(why), "%s", c->members[n].reason);
			undo(c, n, why, now_ms);
		} else if (caught_up(c, n, now_ms) && c->roll.entries[n].state == MEMBERS_LEARNING) {
			advance(c, n, MEMBERS_JOINING, now_ms);
		} else if (caught_up(c, n, now_ms)) {
			set_outcome(c, true, NODE_NAME_FMT " is a member that does not vote", NODE_NAME(n));
			advance(c, n, MEMBERS_READONLY, now_ms);
		}
		return;
	case MEMBERS_JOINING:
		set_outcome(c, true, NODE_NAME_FMT " is a voting member", NODE_NAME(n));
		advance(c, n, MEMBERS_VOTER, now_ms);
		return;
	case MEMBERS_LEAVING:
		if (c->master == n) { /* a failover during the removal has chosen it */
			if (now_ms >= c->change.retry_ms)
				hand_over(c, now_ms);
			c->change.retry_ms = now_ms + HANDOVER_RETRY_MS;
			return;
		}
		set_outcome(c, true, NODE_NAME_FMT " is removed", NODE_NAME(n));
		advance(c, n, MEMBERS_REMOVED, now_ms);
		return;
	default:
		return;
	}
}

/* Ends who is no member any more. True: somebody still has to end. */
static bool retire(struct cluster *c, uint64_t now_ms)
{
	bool any = false;
	unsigned n;

	for (n = 0; n < c->count; n++) {
		struct member *m = &c->members[n];

		if (member_present(c, n) || m->phase == MEMBER_ABSENT)
			continue;
		if (member_runs(m)) {
			member_set_phase(c, n, MEMBER_ENDING, "it is no member any more");
			m->seq = 0;
			m->restart_ms = now_ms + CLUSTER_STOP_MS; /* patience until SIGKILL */
			cluster_emit(c, CLUSTER_KILL, n)->u.signal = SIGTERM;
		} else if (m->phase == MEMBER_ENDING && now_ms >= m->restart_ms) {
			m->restart_ms = UINT64_MAX;
			cluster_emit(c, CLUSTER_KILL, n)->u.signal = SIGKILL;
		} else if (m->phase == MEMBER_DOWN) {
			member_set_phase(c, n, MEMBER_ABSENT, "");
			cluster_emit(c, CLUSTER_RETIRE, n);
			continue;
		}
		any = true;
	}
	cluster_recount(c);
	return any;
}

/* Since when the present version could have been committed. */
static uint64_t waiting_since_ms(const struct cluster *c)
{
	return c->change.since_ms > c->phase_ms ? c->change.since_ms : c->phase_ms;
}

static bool is_stuck(const struct cluster *c, unsigned n, uint64_t now_ms)
{
	return n != MEMBERS_NOBODY && n != c->master && members_votes(c->roll.entries[n].state) &&
	       now_ms - waiting_since_ms(c) >= CLUSTER_CHANGE_MS;
}

/* There is no master, and by the version in the middle there will be none, but there was one by the old voters. With what
 * was learnt from a log that is not sure: a version without them may have been in force after it. */
static bool blocks_the_election(const struct cluster *c, unsigned n, uint64_t now_ms)
{
	return n != MEMBERS_NOBODY && members_votes(c->roll.entries[n].state) && !c->roll_learnt &&
	       now_ms >= c->change.retry_ms &&
	       election_needs_only(c, members_old_set(&c->roll), CLUSTER_CHANGE_MS, now_ms);
}

void change_progress(struct cluster *c, uint64_t now_ms)
{
	unsigned n = members_pending(&c->roll);

	if (blocks_the_election(c, n, now_ms))
		undo(c, n, "an election found no quorum of the new voters", now_ms);
	if (c->phase != PHASE_SERVING || (now_ms < c->change.retry_ms && n != MEMBERS_NOBODY))
		return;
	if (c->change.removing) {
		remove_master(c, now_ms);
	} else if (!committed(c)) {
		if (is_stuck(c, n, now_ms))
			undo(c, n, "the version with old and new voters found no quorum of both", now_ms);
	} else if (n != MEMBERS_NOBODY) {
		pass_on(c, n, now_ms);
	} else if (!retire(c, now_ms) && (c->change.asked || c->change.text[0] != '\0')) {
		finish(c);
	}
}

void change_stopping(struct cluster *c)
{
	if (!c->change.asked)
		return;
	set_outcome(c, false, "the cluster is being stopped; what was begun is completed at its next start");
	finish(c);
}

bool change_polls(const struct cluster *c, unsigned n, uint64_t now_ms)
{
	return c->phase == PHASE_SERVING && n == c->master && !committed(c) &&
	       now_ms - waiting_since_ms(c) < FAST_POLLS_MS;
}

uint64_t change_wake_ms(const struct cluster *c, uint64_t now_ms)
{
	unsigned pending = members_pending(&c->roll);
	uint64_t wake_ms = UINT64_MAX;
	unsigned n;

	if (c->phase == PHASE_ELECTING && pending != MEMBERS_NOBODY && now_ms - c->phase_ms < CLUSTER_CHANGE_MS)
		return c->phase_ms + CLUSTER_CHANGE_MS;
	if (c->phase != PHASE_SERVING)
		return UINT64_MAX;
	if (pending != MEMBERS_NOBODY && !committed(c) && members_votes(c->roll.entries[pending].state))
		wake_ms = waiting_since_ms(c) + CLUSTER_CHANGE_MS;
	if (pending != MEMBERS_NOBODY && c->change.retry_ms > now_ms && c->change.retry_ms < wake_ms)
		wake_ms = c->change.retry_ms;
	for (n = 0; n < c->count; n++)
		if (!member_present(c, n) && c->members[n].phase == MEMBER_ENDING && c->members[n].restart_ms < wake_ms)
			wake_ms = c->members[n].restart_ms;
	return wake_ms;
}

bool change_is_ending(const struct cluster *c)
{
	return c->phase == PHASE_SERVING && c->change.asked && !c->change.removing && committed(c) &&
	       members_pending(&c->roll) == MEMBERS_NOBODY;
}

void change_describe(const struct cluster *c, char *out, size_t size)
{
	unsigned n = members_pending(&c->roll);

	out[0] = '\0';
	if (c->change.removing) {
		snprintf(out, size, NODE_NAME_FMT " is to be removed once it has handed over",
			 NODE_NAME(c->change.node));
	} else if (n != MEMBERS_NOBODY) {
		switch (c->roll.entries[n].state) {
		case MEMBERS_LEAVING:
			snprintf(out, size, NODE_NAME_FMT " is being removed", NODE_NAME(n));
			return;
		case MEMBERS_JOINING:
			snprintf(out, size, NODE_NAME_FMT " is being added, it begins to vote", NODE_NAME(n));
			return;
		default:
			snprintf(out, size, NODE_NAME_FMT " is being added, it catches up", NODE_NAME(n));
			return;
		}
	} else if (c->master != CLUSTER_NOBODY && c->phase == PHASE_SERVING && !committed(c)) {
		snprintf(out, size, "version %" PRIu64 " of the members is being committed", c->roll.version);
	} else if (c->change.asked) {
		snprintf(out, size, NODE_NAME_FMT " is being removed, its process ends", NODE_NAME(c->change.node));
	}
}

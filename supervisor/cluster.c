/*
 * cluster.c - the processes of a cluster core: their starts and ends, and what each is asked next.
 *
 * See cluster.h for the contract and the invariants. Called by whoever owns the struct cluster, on one thread. Nothing
 * here fails: what cannot be done now is tried again at cluster_wake_ms(). After every event settle() looks at the
 * whole state and does what is due, so an event handler only has to record what happened; that is also why a lost or
 * repeated message does no harm.
 */
#include "supervisor/cluster.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/exit_code.h"
#include "common/base/planted.h"
#include "supervisor/cluster_internal.h"

#define CONNECT_TIMEOUT_MS     1000u /* of a request to a process that has not answered yet */
#define RETRY_MS               50u   /* after a request without an answer */
#define FAST_POLLS_MS          2000u /* a promotion that takes longer is asked after at leisure */
#define SPARE_RESTART_DELAY_MS 30u   /* see restart_delay_ms() */
#define KEEPS_UP_LAG_MS        1000u /* a replica that is less behind gets the rest in no time */

unsigned cluster_promises_needed(const struct cluster_options *o)
{
	unsigned majority = o->node_count / 2 + 1;
	unsigned acks = o->ack_nodes < majority ? o->ack_nodes : majority;

	if (PLANTED(BUG_NO_QUORUM_INTERSECTION))
		return 1;
	/* Every set of ack_nodes nodes meets every set of this size. Where all nodes must acknowledge one promise would do,
	 * but records may be older than that setting: a majority is all that can be relied on. When acknowledged records
	 * are on one node only no set short of all would do; a majority then at least keeps two halves from electing on
	 * their own. */
	return o->async ? majority : o->node_count - acks + 1;
}

/* ---- who counts */

unsigned cluster_acks_of(const struct cluster *c, unsigned voters)
{
	if (voters == c->opt.node_count)
		return c->opt.ack_nodes;
	if (c->opt.async)
		return 1;
	return c->opt.all ? voters : voters / 2 + 1;
}

unsigned cluster_need_of(const struct cluster *c, uint32_t set)
{
	unsigned voters = (unsigned)__builtin_popcount(set);
	const struct cluster_options o = {
	    .node_count = voters, .ack_nodes = cluster_acks_of(c, voters), .async = c->opt.async};

	return cluster_promises_needed(&o);
}

bool cluster_elects(const struct cluster *c, uint32_t nodes)
{
	uint32_t old_set = members_old_set(&c->roll);
	uint32_t new_set = members_new_set(&c->roll);

	if (PLANTED(BUG_ELECT_NEW_MEMBERS))
		old_set = new_set;
	return (unsigned)__builtin_popcount(nodes & old_set) >= cluster_need_of(c, old_set) &&
	       (unsigned)__builtin_popcount(nodes & new_set) >= cluster_need_of(c, new_set); /* (4) */
}

/* Are these nodes able to acknowledge, by every set of voters that counts? */
static bool can_acknowledge(const struct cluster *c, uint32_t nodes)
{
	uint32_t old_set = members_old_set(&c->roll);
	uint32_t new_set = members_new_set(&c->roll);

	return (unsigned)__builtin_popcount(nodes & old_set) >=
		   cluster_acks_of(c, (unsigned)__builtin_popcount(old_set)) &&
	       (unsigned)__builtin_popcount(nodes & new_set) >=
		   cluster_acks_of(c, (unsigned)__builtin_popcount(new_set));
}

bool member_present(const struct cluster *c, unsigned n)
{
	return members_present(c->roll.entries[n].state);
}

bool member_votes(const struct cluster *c, unsigned n)
{
	return members_votes(c->roll.entries[n].state);
}

const struct members *cluster_members(const struct cluster *c)
{
	return &c->roll;
}

void cluster_recount(struct cluster *c)
{
	unsigned n;

	c->need = cluster_need_of(c, members_new_set(&c->roll));
	c->count = 0;
	for (n = 0; n < CLUSTER_NODES_MAX; n++) {
		if (c->members[n].phase == MEMBER_ABSENT && member_present(c, n)) {
			memset(&c->members[n], 0, sizeof(c->members[n]));
			c->members[n].fresh = true;
		}
		if (c->members[n].phase != MEMBER_ABSENT)
			c->count = n + 1;
	}
}

static enum db_err take_members(struct cluster *c, const struct cluster_options *o, struct errmsg *em)
{
	unsigned n;

	if (o->members != NULL) {
		if (!members_valid(o->members) || members_count(o->members) == 0)
			return errmsg_set(em, DB_INVALID, "the recorded members of the cluster make no sense");
		c->roll = *o->members;
	} else {
		for (n = 0; n < o->node_count; n++)
			c->roll.entries[n] = (struct members_entry){MEMBERS_VOTER, 1, 1, 1};
	}
	c->durable_roll = c->roll;
	c->last_version = c->roll.version;
	return DB_OK;
}

enum db_err cluster_create(struct cluster **out, const struct cluster_options *o, struct errmsg *em)
{
	struct cluster *c;
	enum db_err err;
	unsigned n;

	*out = NULL;
	if (o->node_count < 1 || o->node_count > CLUSTER_NODES_MAX || o->ack_nodes < 1 || o->ack_nodes > o->node_count)
		return errmsg_set(em, DB_INVALID, "%u nodes, %u of which must acknowledge", o->node_count,
				  o->ack_nodes);
	if (o->interval_ms == 0 || o->misses == 0)
		return errmsg_set(em, DB_INVALID, "the heartbeat's interval and misses must not be 0");
	if (o->term > WIRE_TERM_MAX)
		return errmsg_set(em, DB_INVALID, "term %" PRIu64 " is out of range", o->term);
	c = calloc(1, sizeof(*c));
	if (c == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for the cluster's state");
	c->opt = *o;
	c->opt.members = NULL; /* it was the caller's */
	err = take_members(c, o, em);
	if (err != DB_OK) {
		free(c);
		return err;
	}
	c->term = o->term;
	c->failovers = o->failovers;
	c->master = CLUSTER_NOBODY;
	c->last_failed = CLUSTER_NOBODY;
	c->preferred = CLUSTER_NOBODY;
	c->wake_ms = UINT64_MAX;
	for (n = 0; n < CLUSTER_NODES_MAX; n++)
		c->members[n].phase = MEMBER_ABSENT;
	cluster_recount(c);
	*out = c;
	return DB_OK;
}

void cluster_free(struct cluster *c)
{
	free(c);
}

uint64_t cluster_wake_ms(const struct cluster *c)
{
	return c->wake_ms;
}

/* ---- actions */

struct cluster_action *cluster_emit(struct cluster *c, enum cluster_action_type type, unsigned node)
{
	struct cluster_action *a;

	assert(c->out != NULL && c->out->count < CLUSTER_ACTIONS_MAX);
	a = &c->out->items[c->out->count++];
	a->type = type;
	a->node = node;
	memset(&a->u, 0, sizeof(a->u));
	a->text[0] = '\0';
	return a;
}

void cluster_log(struct cluster *c, enum log_level level, const char *fmt, ...)
{
	struct cluster_action *a;
	va_list ap;

	/* The list has room for each node's share of everything else; only lines may be dropped for want of it. */
	if (c->out->count >= CLUSTER_ACTIONS_MAX / 2)
		return;
	a = cluster_emit(c, CLUSTER_LOG, CLUSTER_NOBODY);
	a->u.level = level;
	va_start(ap, fmt);
	vsnprintf(a->text, sizeof(a->text), fmt, ap);
	va_end(ap);
}

struct timeline_note *cluster_note(struct cluster *c, enum timeline_kind kind, unsigned node, const char *fmt, ...)
{
	struct cluster_action *a = cluster_emit(c, CLUSTER_NOTE, node);
	va_list ap;

	a->u.note = timeline_note_of(kind);
	a->u.note.term = c->term;
	if (node != CLUSTER_NOBODY)
		a->u.note.last = c->members[node].status.last;
	va_start(ap, fmt);
	vsnprintf(a->text, sizeof(a->text), fmt, ap);
	va_end(ap);
	return &a->u.note;
}

/* Why there is no master; logged when it changes. */
void cluster_set_reason(struct cluster *c, const char *fmt, ...)
{
	char text[CLUSTER_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (strcmp(text, c->reason) == 0)
		return;
	memcpy(c->reason, text, sizeof(text));
	if (text[0] == '\0')
		return;
	cluster_log(c, LOG_LEVEL_INFO, "no master: %.200s", text);
	cluster_note(c, TIMELINE_NO_MASTER, CLUSTER_NOBODY, "%s", text);
}

void cluster_set_phase(struct cluster *c, enum cluster_phase phase, uint64_t now_ms)
{
	static const char *const names[] = {"idle",    "gathering", "electing", "promoting",
					    "serving", "stopping",  "ended"};

	if (c->phase != phase)
		cluster_log(c, LOG_LEVEL_DEBUG, "cluster %s->%s term=%" PRIu64, names[c->phase], names[phase], c->term);
	c->phase = phase;
	c->phase_ms = now_ms;
}

/* ---- members */

void cluster_before_persist(struct cluster *c)
{
	size_t i;

	for (i = 0; i < c->out->count && c->out->items[i].type != CLUSTER_PERSIST; i++)
		;
	if (i == c->out->count)
		c->roll_unsure = c->term_unsure = false;
}

void cluster_persist(struct cluster *c)
{
	struct cluster_action *a = cluster_emit(c, CLUSTER_PERSIST, CLUSTER_NOBODY);

	a->u.persist.term = c->term;
	a->u.persist.failovers = c->failovers;
	a->u.persist.members = &c->roll;
}

void member_set_phase(struct cluster *c, unsigned n, enum member_phase phase, const char *why)
{
	static const char *const names[] = {"down", "starting", "alive", "ending", "absent"};
	struct member *m = &c->members[n];

	cluster_log(c, LOG_LEVEL_INFO, NODE_NAME_FMT " %s->%s%s%.180s%s", NODE_NAME(n), names[m->phase], names[phase],
		    why[0] == '\0' ? "" : " why=\"", why, why[0] == '\0' ? "" : "\"");
	m->phase = phase;
	snprintf(m->reason, sizeof(m->reason), "%s", why);
}

bool member_runs(const struct member *m)
{
	return m->phase == MEMBER_STARTING || m->phase == MEMBER_ALIVE;
}

bool member_usable(const struct member *m)
{
	return m->phase == MEMBER_ALIVE && m->status.role != 0 && m->status.state != WIRE_STATE_DIVERGED &&
	       m->status.state != WIRE_STATE_FAILED;
}

bool member_keeps_up(const struct member *m)
{
	const struct wire_node_status *s = &m->status;

	return s->state == WIRE_STATE_UP ||
	       (s->state == WIRE_STATE_CATCHING_UP && s->ready && s->lag_ms < KEEPS_UP_LAG_MS);
}

void member_ask_now(struct member *m, uint64_t now_ms)
{
	m->seq = 0; /* what was under way is superseded */
	m->next_send_ms = now_ms;
}

void member_kill(struct cluster *c, unsigned n, const char *why)
{
	struct member *m = &c->members[n];

	cluster_note(c, TIMELINE_NODE_KILLED, n, "%s", why);
	member_set_phase(c, n, MEMBER_ENDING, why);
	m->seq = 0;
	m->promised = false;
	cluster_emit(c, CLUSTER_KILL, n)->u.signal = SIGKILL;
}

static void member_forget_process(struct member *m)
{
	m->may_serve = false;
	m->wait = false;
	m->promised = false;
	m->refused = false;
	m->seq = 0;
	m->works_ms = 0;
	m->distrusted = false;
	m->told = false;
	memset(&m->status, 0, sizeof(m->status));
}

static void member_spawn(struct cluster *c, unsigned n, bool as_master, uint64_t now_ms)
{
	struct member *m = &c->members[n];

	member_forget_process(m);
	m->may_serve = as_master;
	m->restarts += m->fresh ? 0 : 1;
	m->fresh = false;
	m->started_ms = now_ms;
	m->good_ms = now_ms;
	member_heard(m, now_ms);
	m->next_send_ms = now_ms;
	member_set_phase(c, n, MEMBER_STARTING, "");
	cluster_emit(c, CLUSTER_SPAWN, n)->u.as_master = as_master;
}

static void member_adopt(struct cluster *c, unsigned n, bool answered, uint64_t now_ms)
{
	struct member *m = &c->members[n];

	member_forget_process(m);
	m->may_serve = true; /* until it says what it is, it may be the master */
	m->fresh = false;
	m->started_ms = now_ms;
	m->good_ms = now_ms;
	member_heard(m, now_ms);
	m->next_send_ms = now_ms;
	cluster_note(c, TIMELINE_NODE_ADOPTED, n, "taken over from the supervisor before");
	member_set_phase(c, n, answered ? MEMBER_ALIVE : MEMBER_STARTING, "adopted");
}

/* ---- events */

static void on_begin(struct cluster *c, const struct cluster_event *ev, uint64_t now_ms)
{
	bool first = ev->u.begin.first_start;
	unsigned heir = first ? 0 : ev->u.begin.heir;
	/* the master is known without an election */
	bool chosen = first || (ev->u.begin.recover && heir < CLUSTER_NODES_MAX && member_present(c, heir));
	unsigned n;

	assert(c->phase == PHASE_IDLE && !(chosen && ev->u.begin.adopted != 0));
	assert(!(first && ev->u.begin.recover));
	if (chosen) {
		c->term++;
		cluster_persist(c);
	}
	for (n = 0; n < CLUSTER_NODES_MAX; n++) {
		if (!member_present(c, n) && (ev->u.begin.adopted >> n & 1) == 0) {
			if (c->roll.entries[n].state == MEMBERS_REMOVED)
				cluster_emit(c, CLUSTER_RETIRE, n); /* the supervisor before may not have come to it */
			continue;
		}
		if (ev->u.begin.adopted != 0) { /* it is still the cluster of the supervisor before */
			c->members[n].restarts = ev->u.begin.restarts[n];
			c->members[n].fresh = false;
		}
		if (ev->u.begin.adopted >> n & 1)
			member_adopt(c, n, ev->u.begin.answered >> n & 1, now_ms);
		else
			member_spawn(c, n, chosen && n == heir, now_ms);
	}
	cluster_recount(c);
	c->change.since_ms = now_ms;
	if (chosen) {
		c->master = heir;
		c->promote_asked = true; /* its command line says so */
		c->lost_ms = now_ms;
		cluster_set_phase(c, PHASE_PROMOTING, now_ms);
		if (first)
			cluster_set_reason(c, "the cluster is being started for the first time");
		else
			cluster_set_reason(c,
					   NODE_NAME_FMT " was ordered to be master of term %" PRIu64
							 " by a recovery, and waits for its quorum",
					   NODE_NAME(heir), c->term);
	} else if (ev->u.begin.adopted != 0) {
		cluster_set_phase(c, PHASE_GATHERING, now_ms);
		cluster_set_reason(c, "the running nodes are asked which of them is master");
	} else {
		c->lost_ms = now_ms;
		election_start(c, ELECTION_COLD, now_ms, "cluster start");
	}
}

/* The first restart is immediate, later ones wait twice as long each. While enough others live to elect a successor and
 * to acknowledge its writes, a lost master's restart lets them have the processor first. */
static uint64_t restart_delay_ms(struct cluster *c, unsigned n, int code, bool was_master, uint64_t now_ms)
{
	struct member *m = &c->members[n];
	uint32_t usable = 0;
	uint64_t delay_ms;
	unsigned i;

	if (now_ms - m->started_ms >= CLUSTER_BACKOFF_RESET_MS)
		m->backoff_ms = 0;
	delay_ms = m->backoff_ms;
	m->backoff_ms = delay_ms == 0 ? CLUSTER_BACKOFF_MIN_MS : delay_ms * 2;
	if (m->backoff_ms > CLUSTER_BACKOFF_MAX_MS)
		m->backoff_ms = CLUSTER_BACKOFF_MAX_MS;
	if (code == EXIT_CODE_CONFIG)
		return CLUSTER_BACKOFF_MAX_MS;
	for (i = 0; i < c->count; i++)
		if (i != n && member_usable(&c->members[i]) && !member_silent(c, &c->members[i], now_ms))
			usable |= 1u << i;
	if (delay_ms == 0 && was_master && cluster_elects(c, usable) && can_acknowledge(c, usable))
		delay_ms = SPARE_RESTART_DELAY_MS;
	return delay_ms;
}

static void describe_exit(const struct cluster *c, unsigned n, const struct cluster_event *ev, char *out, size_t size)
{
	const struct member *m = &c->members[n];

	if (ev->u.exited.why != NULL)
		snprintf(out, size, "cannot be started: %.200s", ev->u.exited.why);
	else if (m->phase == MEMBER_ENDING)
		snprintf(out, size, "killed: %.200s", m->reason);
	else if (ev->u.exited.signal != 0)
		snprintf(out, size, "ended by signal %d", ev->u.exited.signal);
	else if (ev->u.exited.code == EXIT_CODE_CONFIG && ev->u.exited.said == NULL)
		snprintf(out, size, "configuration error (exit code 2), see log/" NODE_NAME_FMT ".log", NODE_NAME(n));
	else if (ev->u.exited.code > 0 && ev->u.exited.said != NULL)
		snprintf(out, size, "exit code %d: %.200s", ev->u.exited.code, ev->u.exited.said);
	else if (ev->u.exited.code >= 0)
		snprintf(out, size, "exit code %d", ev->u.exited.code);
	else
		snprintf(out, size, "process is gone");
}

static void note_exit(struct cluster *c, unsigned n, const struct cluster_event *ev, const char *why, uint64_t now_ms)
{
	const struct member *m = &c->members[n];
	uint64_t restart_ms = m->restart_ms - now_ms;
	struct timeline_note *note;

	if (c->phase == PHASE_STOPPING || restart_ms == 0)
		note = cluster_note(c, TIMELINE_NODE_EXIT, n, "%s", why);
	else
		note = cluster_note(c, TIMELINE_NODE_EXIT, n, "%.200s; restarts in %" PRIu64 " ms", why, restart_ms);
	note->code = ev->u.exited.code;
	note->signal = ev->u.exited.signal;
	if (c->phase != PHASE_STOPPING)
		note->restart_ms = restart_ms;
	if (m->phase == MEMBER_ENDING && m->may_serve)
		cluster_note(c, TIMELINE_FENCED, n, "it may have been master of an older term: its end is confirmed");
}

static void on_exited(struct cluster *c, const struct cluster_event *ev, uint64_t now_ms)
{
	unsigned n = ev->node;
	struct member *m = &c->members[n];
	bool was_master = n == c->master;
	char why[CLUSTER_TEXT_MAX];

	if (m->phase == MEMBER_DOWN || m->phase == MEMBER_ABSENT)
		return;
	describe_exit(c, n, ev, why, sizeof(why));
	memcpy(m->ended, why, sizeof(m->ended));
	m->restart_ms = now_ms + restart_delay_ms(c, n, ev->u.exited.code, was_master || n == c->last_failed, now_ms);
	note_exit(c, n, ev, why, now_ms);
	member_set_phase(c, n, MEMBER_DOWN, why);
	member_forget_process(m);
	change_on_exit(c, n, ev);
	if (was_master && c->phase != PHASE_STOPPING)
		election_master_lost(c, now_ms, why);
}

/* A peer's word is input: a term beyond reason is not taken up, and makes the node useless rather than the cluster. */
static void distrust(struct cluster *c, unsigned n)
{
	struct member *m = &c->members[n];
	uint64_t seen = m->status.promised_term > m->status.last.term ? m->status.promised_term : m->status.last.term;

	if (seen <= CLUSTER_TERM_MAX || seen <= c->term)
		return;
	if (!m->distrusted)
		cluster_log(c, LOG_LEVEL_ERROR, NODE_NAME_FMT " names an impossible term", NODE_NAME(n));
	m->distrusted = true;
	m->status.state = WIRE_STATE_FAILED;
	m->status.accepted = false;
	m->status.promised_term = 0;
	m->status.last = (struct wal_pos){0, 0};
	snprintf(m->status.reason, sizeof(m->status.reason), "names an impossible term");
}

/* Notes the highest term around. True: a higher one than ours made a new election necessary. */
static bool learn_term(struct cluster *c, unsigned n, uint64_t now_ms)
{
	const struct wire_node_status *s = &c->members[n].status;
	uint64_t seen = s->promised_term > s->last.term ? s->promised_term : s->last.term;
	char why[64];

	if (seen > c->seen_term)
		c->seen_term = seen;
	if (seen <= c->term || c->held ||
	    (c->phase != PHASE_ELECTING && c->phase != PHASE_PROMOTING && c->phase != PHASE_SERVING))
		return false;
	snprintf(why, sizeof(why), NODE_NAME_FMT " knows of term %" PRIu64, NODE_NAME(n), seen);
	switchover_cancel(c, now_ms, why);
	if (c->phase == PHASE_SERVING)
		election_note_outage(c, false, now_ms, why);
	election_start(c, ELECTION_FAILURE, now_ms, why);
	return true;
}

static uint64_t poll_ms(const struct cluster *c, unsigned n, uint64_t now_ms)
{
	bool promoting = c->phase == PHASE_PROMOTING && n == c->master && now_ms - c->phase_ms < FAST_POLLS_MS;

	if ((promoting || switchover_polls(c, n) || change_polls(c, n, now_ms)) && CLUSTER_POLL_MS < c->opt.interval_ms)
		return CLUSTER_POLL_MS;
	return c->opt.interval_ms;
}

/* What is worth a line of history: another role, or that it can or cannot be relied on, and why. Catching up is not. */
static void note_state(struct cluster *c, unsigned n)
{
	struct member *m = &c->members[n];
	const struct wire_node_status *s = &m->status;
	bool unfit = s->state == WIRE_STATE_DIVERGED || s->state == WIRE_STATE_FAILED;
	bool changed = s->role != m->told_role || unfit != m->told_unfit || strcmp(s->reason, m->told_reason) != 0;

	if (s->role == 0 || !s->accepted || (m->told && !changed))
		return; /* what is refused is noted where it was asked for */
	cluster_note(c, TIMELINE_NODE_STATE, n, "%s %s%s%.180s", s->role == WIRE_ROLE_MASTER ? "master" : "replica",
		     wire_state_name(s->state), s->reason[0] == '\0' ? "" : ": ", s->reason);
	m->told = true;
	m->told_role = s->role;
	m->told_unfit = unfit;
	memcpy(m->told_reason, s->reason, sizeof(m->told_reason));
}

static void on_reply(struct cluster *c, const struct cluster_event *ev, uint64_t now_ms)
{
	unsigned n = ev->node;
	struct member *m = &c->members[n];
	char took[48];

	if (m->seq == 0 || ev->u.reply.seq != m->seq || !member_runs(m))
		return; /* late: superseded, or of a process that is gone */
	m->seq = 0;
	m->status = *ev->u.reply.status;
	m->good_ms = now_ms;
	member_heard(m, now_ms);
	health_on_status(c, m, now_ms);
	m->next_send_ms = now_ms + poll_ms(c, n, now_ms);
	if (m->phase == MEMBER_STARTING) {
		snprintf(took, sizeof(took), "answers after %" PRIu64 " ms", now_ms - m->started_ms);
		member_set_phase(c, n, MEMBER_ALIVE, took);
		cluster_note(c, TIMELINE_NODE_ANSWERS, n, "%s", took);
	}
	distrust(c, n);
	note_state(c, n);
	change_learn(c, n, now_ms);
	if (learn_term(c, n, now_ms))
		return;
	if (m->asked == WIRE_SET_TERM)
		election_on_promise(c, n, now_ms);
	else if (m->asked == WIRE_PROMOTE)
		election_on_promoted(c, n, now_ms);
	else if (m->asked == WIRE_DRAIN)
		switchover_on_drain(c, now_ms);
	if (m->phase == MEMBER_ALIVE)
		election_observe(c, n, now_ms);
}

static void on_no_reply(struct cluster *c, const struct cluster_event *ev, uint64_t now_ms)
{
	struct member *m = &c->members[ev->node];

	if (m->seq == 0 || ev->u.reply.seq != m->seq)
		return;
	m->seq = 0;
	m->next_send_ms = now_ms + (c->opt.interval_ms < RETRY_MS ? c->opt.interval_ms : RETRY_MS);
	if (m->asked == WIRE_PROMOTE && c->phase == PHASE_PROMOTING && ev->node == c->master)
		election_on_no_promotion(c, now_ms);
}

/* ---- what is due, whatever the event was */

static enum wire_type next_request(const struct cluster *c, unsigned n)
{
	const struct member *m = &c->members[n];
	bool settled = c->phase == PHASE_PROMOTING || c->phase == PHASE_SERVING;

	if (c->phase == PHASE_ELECTING && !c->held && !m->promised)
		return WIRE_SET_TERM;
	if (settled && n == c->master) {
		if (!c->promote_asked)
			return WIRE_PROMOTE;
		if (c->switchover.stage == SWITCHOVER_DRAIN && !c->switchover.drain_accepted)
			return WIRE_DRAIN;
		if (c->switchover.stage == SWITCHOVER_NONE && m->status.draining)
			return WIRE_RESUME; /* until it says that it is not draining any more */
		if (m->status.members.version < c->roll.version)
			return WIRE_MEMBERS; /* until its log has them committed */
	} else if (settled && m->phase == MEMBER_ALIVE && m->status.role != 0 && m->status.promised_term < c->term) {
		return WIRE_SET_TERM; /* it was away when the term began */
	}
	return WIRE_HEARTBEAT;
}

/* One that answers late is given as long as it has been silent already, so that a slow answer arrives in the end. */
static uint64_t answer_timeout_ms(const struct cluster *c, const struct member *m, uint64_t now_ms)
{
	uint64_t hung_ms = member_hung_after_ms(c, m);
	uint64_t silent_ms = now_ms - m->heard_ms;

	if (m->phase == MEMBER_STARTING)
		return CONNECT_TIMEOUT_MS;
	return silent_ms > hung_ms ? silent_ms : hung_ms;
}

static void send_request(struct cluster *c, unsigned n, uint64_t now_ms)
{
	struct member *m = &c->members[n];
	struct cluster_action *a = cluster_emit(c, CLUSTER_SEND, n);

	m->asked = next_request(c, n);
	if (++c->last_seq == 0)
		c->last_seq = 1;
	m->seq = c->last_seq;
	a->u.send.type = m->asked;
	a->u.send.term = c->term;
	a->u.send.seq = m->seq;
	a->u.send.timeout_ms = answer_timeout_ms(c, m, now_ms);
	if (m->asked == WIRE_PROMOTE || m->asked == WIRE_MEMBERS)
		a->u.send.members = &c->roll;
	if (m->asked == WIRE_PROMOTE)
		c->promote_asked = true; /* (1) never again in this term */
}

static void send_due(struct cluster *c, uint64_t now_ms)
{
	unsigned n;

	for (n = 0; n < c->count; n++)
		if (member_runs(&c->members[n]) && c->members[n].seq == 0 && now_ms >= c->members[n].next_send_ms)
			send_request(c, n, now_ms);
}

static void restart_due(struct cluster *c, uint64_t now_ms)
{
	unsigned n;

	for (n = 0; n < c->count; n++)
		if (c->members[n].phase == MEMBER_DOWN && member_present(c, n) && now_ms >= c->members[n].restart_ms)
			member_spawn(c, n, false, now_ms);
}

static void settle(struct cluster *c, uint64_t now_ms)
{
	if (c->phase == PHASE_STOPPING) {
		stop_progress(c, now_ms);
		return;
	}
	health_progress(c, now_ms);
	gathering_progress(c, now_ms);
	election_progress(c, now_ms);
	switchover_progress(c, now_ms);
	change_progress(c, now_ms);
	send_due(c, now_ms);
	restart_due(c, now_ms);
	send_due(c, now_ms); /* to those just started; the living were asked before a fork was paid for */
}

static void earlier(uint64_t *wake_ms, uint64_t at_ms)
{
	if (at_ms < *wake_ms)
		*wake_ms = at_ms;
}

static uint64_t member_wake_ms(const struct cluster *c, unsigned n, uint64_t now_ms)
{
	const struct member *m = &c->members[n];
	uint64_t wake_ms = UINT64_MAX;

	if (m->phase == MEMBER_DOWN)
		return member_present(c, n) ? m->restart_ms : UINT64_MAX;
	if (!member_runs(m))
		return UINT64_MAX; /* its exit is an event */
	if (m->seq == 0)
		wake_ms = m->next_send_ms;
	earlier(&wake_ms, health_wake_ms(c, n, now_ms));
	return wake_ms;
}

static uint64_t next_wake_ms(const struct cluster *c, uint64_t now_ms)
{
	uint64_t wake_ms = UINT64_MAX;
	unsigned n;

	if (c->phase == PHASE_IDLE || c->phase == PHASE_ENDED)
		return UINT64_MAX;
	if (c->phase == PHASE_STOPPING)
		return stop_wake_ms(c);
	for (n = 0; n < c->count; n++)
		earlier(&wake_ms, member_wake_ms(c, n, now_ms));
	earlier(&wake_ms, election_wake_ms(c, now_ms));
	earlier(&wake_ms, change_wake_ms(c, now_ms));
	if (c->switchover.stage != SWITCHOVER_NONE)
		earlier(&wake_ms, c->switchover.deadline_ms);
	return wake_ms > now_ms ? wake_ms : now_ms + 1;
}

static void handle(struct cluster *c, const struct cluster_event *ev, uint64_t now_ms)
{
	assert(ev->type == CLUSTER_BEGIN || c->phase != PHASE_IDLE);
	switch (ev->type) {
	case CLUSTER_BEGIN:
		on_begin(c, ev, now_ms);
		return;
	case CLUSTER_NODE_EXITED:
		on_exited(c, ev, now_ms);
		return;
	case CLUSTER_REPLY:
		on_reply(c, ev, now_ms);
		return;
	case CLUSTER_NO_REPLY:
		on_no_reply(c, ev, now_ms);
		return;
	case CLUSTER_PROGRESS:
		health_on_progress(c, ev, now_ms);
		return;
	case CLUSTER_PERSIST_FAILED:
		election_persist_failed(c, now_ms);
		change_persist_failed(c, now_ms);
		return;
	case CLUSTER_SWITCHOVER:
		switchover_begin(c, ev->node, false, now_ms);
		return;
	case CLUSTER_ADD:
		change_begin_add(c, ev, now_ms);
		return;
	case CLUSTER_REMOVE:
		change_begin_remove(c, ev->node, now_ms);
		return;
	case CLUSTER_STOP:
		stop_begin(c, now_ms);
		return;
	case CLUSTER_TICK:
		return;
	}
}

void cluster_step(struct cluster *c, const struct cluster_event *ev, uint64_t now_ms, struct cluster_actions *out)
{
	assert(ev->type != CLUSTER_NODE_EXITED || ev->node < CLUSTER_NODES_MAX);
	assert((ev->type != CLUSTER_REPLY && ev->type != CLUSTER_NO_REPLY) || ev->node < CLUSTER_NODES_MAX);
	assert(ev->type != CLUSTER_PROGRESS || ev->node < CLUSTER_NODES_MAX);
	assert((ev->type != CLUSTER_ADD && ev->type != CLUSTER_REMOVE) || ev->node < CLUSTER_NODES_MAX);
	out->count = 0;
	if (c->phase == PHASE_ENDED)
		return;
	c->out = out;
	if (ev->type == CLUSTER_REPLY || ev->type == CLUSTER_TICK)
		c->roll_unsure = c->term_unsure = false; /* from outside, so the step before has been carried out */
	health_notice_pause(c, now_ms);
	handle(c, ev, now_ms);
	settle(c, now_ms);
	c->wake_ms = next_wake_ms(c, now_ms);
	c->out = NULL;
}

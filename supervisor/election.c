/*
 * election.c - terms, promises and promotion: how the cluster core comes to a master.
 *
 * An election takes a new term, makes it durable, and asks every running node to promise it. A promise does two things
 * at once: it deposes whoever was master before, and it fixes the node's position, for records of older terms are
 * refused from then on. The decision is election_progress(); it is taken anew after each event until it succeeds, so a
 * cluster that lacks promises simply waits, and says for whom. The rules are Raft's (Ongaro's dissertation, 3.4 to
 * 3.6), with the supervisor as the one who counts the votes.
 */
#include "supervisor/cluster.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/cluster_internal.h"

#define PREFERRED_WINDOW_MS 1000u /* how long an election waits for the target of a switchover */
#define REFUSED_RETRY_MS    200u  /* after a promotion that was refused or never answered */
#define PERSIST_RETRY_MS    200u
#define BURST_MS            1000u
#define BURST_MAX           8u /* elections within BURST_MS */

static bool too_many_elections(struct cluster *c, uint64_t now_ms)
{
	if (now_ms - c->burst_ms >= BURST_MS) {
		c->burst_ms = now_ms;
		c->burst = 0;
	}
	return ++c->burst > BURST_MAX;
}

/* Waits before the next election; meanwhile there is no master and no promise counts. */
void election_hold(struct cluster *c, uint64_t delay_ms, uint64_t now_ms)
{
	cluster_set_phase(c, PHASE_ELECTING, now_ms);
	c->master = CLUSTER_NOBODY;
	c->held = true;
	c->retry_ms = now_ms + delay_ms;
}

static void persist_term(struct cluster *c, uint64_t term)
{
	cluster_before_persist(c);
	c->durable_term = c->term;
	c->term = term;
	c->term_unsure = true;
	cluster_persist(c);
}

void election_start(struct cluster *c, enum election_cause cause, uint64_t now_ms, const char *why)
{
	uint64_t term = (c->term > c->seen_term ? c->term : c->seen_term) + 1;
	unsigned n;

	if (too_many_elections(c, now_ms)) {
		cluster_set_reason(c, "too many elections within a second, the last because of: %.180s", why);
		election_hold(c, BURST_MS, now_ms);
		return;
	}
	persist_term(c, term); /* (1) before any SET_TERM */
	cluster_set_phase(c, PHASE_ELECTING, now_ms);
	cluster_log(c, LOG_LEVEL_INFO, "election for term %" PRIu64 " why=\"%.200s\"", term, why);
	cluster_note(c, TIMELINE_ELECTION, CLUSTER_NOBODY, "%s", why);
	snprintf(c->reason, sizeof(c->reason), "election for term %" PRIu64 ": %.180s", term, why);
	c->master = CLUSTER_NOBODY;
	c->held = false;
	c->window_ms = cause == ELECTION_COLD ? CLUSTER_COLD_WINDOW_MS : CLUSTER_ELECTION_WINDOW_MS;
	if (cause != ELECTION_SWITCHOVER)
		c->preferred = CLUSTER_NOBODY;
	for (n = 0; n < c->count; n++) {
		struct member *m = &c->members[n];

		m->wait = member_votes(c, n) &&
			  (cause == ELECTION_COLD ? member_runs(m)
						  : m->phase == MEMBER_ALIVE && !member_silent(c, m, now_ms));
		m->promised = false;
		m->refused = false;
		if (member_runs(m))
			member_ask_now(m, now_ms);
	}
}

/* The caller could not store the term: what would have followed from it was not sent, and must not be. */
void election_persist_failed(struct cluster *c, uint64_t now_ms)
{
	unsigned n;

	if (!c->term_unsure)
		return;
	c->term_unsure = false;
	if (c->term > c->seen_term)
		c->seen_term = c->term; /* perhaps it was stored after all: never use it again */
	if (c->phase != PHASE_ELECTING && c->phase != PHASE_PROMOTING && c->phase != PHASE_SERVING)
		return;
	c->term = c->durable_term;
	for (n = 0; n < c->count; n++)
		c->members[n].seq = 0;
	if (c->phase == PHASE_ELECTING) {
		election_hold(c, PERSIST_RETRY_MS, now_ms);
	} else { /* it was the term of a master to be adopted, which serves meanwhile */
		c->master = CLUSTER_NOBODY;
		c->promote_asked = false;
		c->retry_ms = now_ms + PERSIST_RETRY_MS;
		cluster_set_phase(c, PHASE_GATHERING, now_ms);
	}
	cluster_set_reason(c, "the new term cannot be stored in the data directory; see the supervisor's log");
}

/* From here on nobody serves. One that ends the outage is measured against its beginning, whatever goes wrong between. */
void election_note_outage(struct cluster *c, bool planned, uint64_t now_ms, const char *why)
{
	if (c->outage.open)
		return;
	c->outage.open = true;
	c->outage.counted = false;
	c->outage.planned = planned;
	c->outage.detected_ms = now_ms;
	c->outage.heard_ms = planned || c->master == CLUSTER_NOBODY ? now_ms : c->members[c->master].good_ms;
	snprintf(c->outage.why, sizeof(c->outage.why), "%s", why);
}

void election_master_lost(struct cluster *c, uint64_t now_ms, const char *why)
{
	char text[CLUSTER_TEXT_MAX];

	snprintf(text, sizeof(text), "master " NODE_NAME_FMT ": %.200s", NODE_NAME(c->master), why);
	c->last_failed = c->master;
	if (c->phase == PHASE_SERVING)
		c->lost_ms = now_ms;
	/* One that was promoted may have served before its answer said so. What is lost before anybody serves again is the
	 * same failover. */
	if (c->promote_asked) {
		election_note_outage(c, false, now_ms, text);
		c->failovers += !c->outage.counted;
		c->outage.counted = true;
	}
	cluster_note(c, TIMELINE_MASTER_LOST, c->master, "%s", why);
	switchover_cancel(c, now_ms, text);
	election_start(c, ELECTION_FAILURE, now_ms, text);
}

/* ---- answers */

void election_on_promise(struct cluster *c, unsigned n, uint64_t now_ms)
{
	struct member *m = &c->members[n];
	const struct wire_node_status *s = &m->status;
	char why[CLUSTER_TEXT_MAX];

	(void)now_ms;
	if (s->accepted && s->promised_term == c->term && s->role == WIRE_ROLE_REPLICA) {
		m->promised = c->phase == PHASE_ELECTING;
		m->refused = false;
		m->promised_pos = s->last;
		if (m->may_serve)
			cluster_note(c, TIMELINE_FENCED, n, "it promised term %" PRIu64 " as a replica", c->term);
		m->may_serve = false;
		return;
	}
	if (c->phase != PHASE_ELECTING)
		return;
	if (!m->refused)
		cluster_log(c, LOG_LEVEL_WARN, NODE_NAME_FMT " did not promise term %" PRIu64 ": %.180s", NODE_NAME(n),
			    c->term, s->accepted ? "its answer contradicts itself" : s->reason);
	m->refused = true;
	if (m->may_serve) { /* (3) it would not step down, so it has to go */
		snprintf(why, sizeof(why), "it did not step down for term %" PRIu64, c->term);
		member_kill(c, n, why);
	}
}

void election_on_promoted(struct cluster *c, unsigned n, uint64_t now_ms)
{
	const struct wire_node_status *s = &c->members[n].status;

	if (c->phase != PHASE_PROMOTING || n != c->master)
		return;
	if (s->accepted && s->role == WIRE_ROLE_MASTER)
		return;
	cluster_log(c, LOG_LEVEL_WARN, NODE_NAME_FMT " refused its promotion in term %" PRIu64 ": %.180s", NODE_NAME(n),
		    c->term, s->reason);
	election_on_no_promotion(c, now_ms);
}

/* Whether the node got PROMOTE is unknown or denied; asking twice in one term is out of the question (1). */
void election_on_no_promotion(struct cluster *c, uint64_t now_ms)
{
	c->last_failed = c->master;
	cluster_note(c, TIMELINE_NOT_PROMOTED, c->master, "%s",
		     c->members[c->master].status.accepted ? "no answer to its promotion"
							   : c->members[c->master].status.reason);
	cluster_set_reason(c, NODE_NAME_FMT " did not accept its promotion in term %" PRIu64, NODE_NAME(c->master),
			   c->term);
	election_hold(c, REFUSED_RETRY_MS, now_ms);
}

bool election_can_replace(const struct cluster *c, unsigned n, uint64_t now_ms)
{
	uint32_t usable = 0;
	unsigned i;

	for (i = 0; i < c->count; i++)
		if (i != n && member_usable(&c->members[i]) && !member_silent(c, &c->members[i], now_ms) &&
		    member_disk_works(c, &c->members[i], now_ms))
			usable |= 1u << i;
	return cluster_elects(c, usable);
}

static void note_ready(struct cluster *c, uint64_t now_ms)
{
	struct timeline_note *note;

	if (!c->outage.open) {
		cluster_note(c, TIMELINE_MASTER_READY, c->master, "serves, %" PRIu64 " ms after the start",
			     now_ms - c->lost_ms);
		return;
	}
	note =
	    cluster_note(c, TIMELINE_MASTER_READY, c->master,
			 "serves; outage %" PRIu64 " ms since %s, %" PRIu64 " ms since the last good heartbeat: %.120s",
			 now_ms - c->outage.detected_ms, c->outage.planned ? "writes were held" : "it was noticed",
			 now_ms - c->outage.heard_ms, c->outage.why);
	note->outage_ms = now_ms - c->outage.detected_ms;
	note->outage_heard_ms = now_ms - c->outage.heard_ms;
	c->outage.open = false;
}

static void master_is_ready(struct cluster *c, uint64_t now_ms)
{
	cluster_log(c, LOG_LEVEL_INFO, NODE_NAME_FMT " is master of term %" PRIu64 ", ready after %" PRIu64 " ms",
		    NODE_NAME(c->master), c->term, now_ms - c->lost_ms);
	note_ready(c, now_ms);
	cluster_set_phase(c, PHASE_SERVING, now_ms);
	cluster_set_reason(c, "%s", "");
}

/* Compares what a node says with what it should be. */
void election_observe(struct cluster *c, unsigned n, uint64_t now_ms)
{
	const struct wire_node_status *s = &c->members[n].status;
	char why[CLUSTER_TEXT_MAX];

	if (c->phase != PHASE_PROMOTING && c->phase != PHASE_SERVING)
		return;
	if (n != c->master) {
		/* An adopted node: PROMOTE of c->term went to another one, and older terms it refuses. */
		if (s->role == WIRE_ROLE_REPLICA && s->promised_term == c->term)
			c->members[n].may_serve = false;
		return;
	}
	if (!c->promote_asked)
		return;
	if (s->role != WIRE_ROLE_MASTER) {
		snprintf(why, sizeof(why), "it stepped down: %.200s", s->reason);
		election_master_lost(c, now_ms, why);
	} else if (s->state == WIRE_STATE_STARTING) {
		return;
	} else if (s->promised_term != c->term) {
		snprintf(why, sizeof(why), "it serves term %" PRIu64 ", not %" PRIu64, s->promised_term, c->term);
		election_master_lost(c, now_ms, why);
	} else if (!member_usable(&c->members[n])) {
		if (!election_can_replace(c, n, now_ms))
			return;
		snprintf(why, sizeof(why), "it failed: %.200s", s->reason);
		member_kill(c, n, why);
		election_master_lost(c, now_ms, why);
	} else if (s->ready && c->phase == PHASE_PROMOTING) {
		master_is_ready(c, now_ms);
	}
}

/* ---- adoption */

static void adopt_master(struct cluster *c, unsigned n, uint64_t now_ms)
{
	const struct wire_node_status *s = &c->members[n].status;

	if (s->promised_term != c->term)
		persist_term(c, s->promised_term);
	c->master = n;
	c->promote_asked = true;
	cluster_log(c, LOG_LEVEL_INFO, "adopted master " NODE_NAME_FMT " of term %" PRIu64, NODE_NAME(n), c->term);
	c->lost_ms = now_ms;
	cluster_set_phase(c, PHASE_PROMOTING, now_ms);
	cluster_set_reason(c, NODE_NAME_FMT " is master of term %" PRIu64 " and waits for its quorum", NODE_NAME(n),
			   c->term);
	election_observe(c, n, now_ms);
}

/* A master of our term, or of the highest term that anybody knows, goes on serving undisturbed. */
void gathering_progress(struct cluster *c, uint64_t now_ms)
{
	uint64_t highest = c->term > c->seen_term ? c->term : c->seen_term;
	unsigned found = CLUSTER_NOBODY;
	bool pending = false;
	unsigned n;

	if (c->phase != PHASE_GATHERING || now_ms < c->retry_ms)
		return;
	for (n = 0; n < c->count; n++) {
		const struct member *m = &c->members[n];

		if (m->may_serve && member_runs(m) && m->status.role == 0)
			pending = true;
		if (m->phase == MEMBER_ALIVE && m->status.role == WIRE_ROLE_MASTER &&
		    m->status.promised_term == highest)
			found = n;
	}
	if (found != CLUSTER_NOBODY && (!pending || highest == c->term)) {
		adopt_master(c, found, now_ms);
	} else if (!pending) {
		c->lost_ms = c->phase_ms;
		election_start(c, ELECTION_COLD, now_ms, "none of the running nodes is master");
	}
}

/* ---- the decision */

/* Is a the better successor? Equal positions: a switchover's target, then one that did not just fail, then the lower. */
static bool better(const struct cluster *c, unsigned a, unsigned b)
{
	int cmp = wal_pos_cmp(c->members[a].promised_pos, c->members[b].promised_pos);

	if (cmp != 0)
		return cmp > 0;
	if (a == c->preferred || b == c->preferred)
		return a == c->preferred;
	if (a == c->last_failed || b == c->last_failed)
		return b == c->last_failed;
	return a < b;
}

static unsigned best_candidate(const struct cluster *c)
{
	unsigned best = CLUSTER_NOBODY;
	unsigned n;

	for (n = 0; n < c->count; n++) {
		const struct member *m = &c->members[n];

		if (m->promised && member_votes(c, n) && member_usable(m) &&
		    (best == CLUSTER_NOBODY || better(c, n, best)))
			best = n;
	}
	return best;
}

/* Promises that count for a candidate. One of a node that is ahead but of no use (diverged) does not: what it has and
 * the candidate lacks may have been acknowledged (2). */
static uint32_t promises_for(const struct cluster *c, unsigned candidate)
{
	uint32_t promises = 0;
	unsigned n;

	if (candidate == CLUSTER_NOBODY)
		return 0;
	for (n = 0; n < c->count; n++)
		if (c->members[n].promised && member_votes(c, n) &&
		    wal_pos_cmp(c->members[n].promised_pos, c->members[candidate].promised_pos) <= 0)
			promises |= 1u << n;
	return promises;
}

bool election_needs_only(const struct cluster *c, uint32_t voters, uint64_t for_ms, uint64_t now_ms)
{
	unsigned best = CLUSTER_NOBODY;
	unsigned promises = 0;
	unsigned n;

	if (c->phase != PHASE_ELECTING || c->held || now_ms - c->phase_ms < for_ms)
		return false;
	for (n = 0; n < c->count; n++)
		if ((voters >> n & 1) && c->members[n].promised && member_usable(&c->members[n]) &&
		    (best == CLUSTER_NOBODY || better(c, n, best)))
			best = n;
	for (n = 0; n < c->count && best != CLUSTER_NOBODY; n++)
		promises += (voters >> n & 1) && c->members[n].promised &&
			    wal_pos_cmp(c->members[n].promised_pos, c->members[best].promised_pos) <= 0;
	return promises >= cluster_need_of(c, voters);
}

static const char *member_word(const struct cluster *c, unsigned n, uint64_t now_ms)
{
	const struct member *m = &c->members[n];

	if (m->phase == MEMBER_DOWN)
		return "is down";
	if (m->phase == MEMBER_ENDING)
		return "is being killed";
	if (m->promised)
		return member_usable(m) ? "promised" : "promised but cannot be used";
	if (m->phase == MEMBER_STARTING)
		return "is starting";
	if (m->refused)
		return "refused";
	return member_silent(c, m, now_ms) ? "is hung" : "was asked";
}

/* Of two sets of voters the one that keeps it from deciding. */
static void say_what_is_missing(struct cluster *c, uint32_t promises, uint64_t now_ms)
{
	uint32_t set = members_new_set(&c->roll);
	char text[CLUSTER_TEXT_MAX];
	bool first = true;
	size_t used;
	unsigned n;
	int len;

	if ((unsigned)__builtin_popcount(promises & set) >= cluster_need_of(c, set))
		set = members_old_set(&c->roll);
	len = snprintf(text, sizeof(text), "election for term %" PRIu64 " has %u of %u promises%s:", c->term,
		       (unsigned)__builtin_popcount(promises & set), cluster_need_of(c, set),
		       members_old_set(&c->roll) == members_new_set(&c->roll) ? ""
		       : set == members_new_set(&c->roll)                     ? " of the new voters"
									      : " of the old voters");
	used = (size_t)len;
	for (n = 0; n < c->count && used < sizeof(text); n++) {
		if (!member_votes(c, n))
			continue;
		len = snprintf(text + used, sizeof(text) - used, "%s " NODE_NAME_FMT " %s", first ? "" : ",",
			       NODE_NAME(n), member_word(c, n, now_ms));
		used += (size_t)len;
		first = false;
	}
	cluster_set_reason(c, "%s", text);
}

/* Does the election, which could decide, still wait for n? */
static bool waits_for(const struct cluster *c, unsigned n, uint64_t now_ms)
{
	const struct member *m = &c->members[n];
	uint64_t window_ms = n == c->preferred ? PREFERRED_WINDOW_MS : c->window_ms;

	return m->wait && member_runs(m) && !m->promised && !m->refused && !member_silent(c, m, now_ms) &&
	       now_ms - c->phase_ms < window_ms;
}

/* Who stood where when the election was decided. */
static void note_candidates(struct cluster *c, unsigned winner, uint64_t now_ms)
{
	unsigned n;

	for (n = 0; n < c->count; n++) {
		const struct member *m = &c->members[n];
		struct timeline_note *note;

		if (!member_votes(c, n))
			continue;
		note = cluster_note(c, TIMELINE_CANDIDATE, n, "%s%s", member_word(c, n, now_ms),
				    n == winner ? ", wins" : "");
		note->last = m->promised ? m->promised_pos : (struct wal_pos){0, 0};
	}
}

static const char *why_it_wins(const struct cluster *c, unsigned winner)
{
	unsigned n;

	for (n = 0; n < c->count; n++)
		if (n != winner && member_votes(c, n) && c->members[n].promised && member_usable(&c->members[n]) &&
		    wal_pos_cmp(c->members[n].promised_pos, c->members[winner].promised_pos) == 0)
			return winner == c->preferred ? "being the switchover's target, at an equal position"
						      : "being the first at an equal position";
	return "its position, the highest";
}

static void promote(struct cluster *c, unsigned n, unsigned count, uint64_t now_ms)
{
	struct member *m = &c->members[n];

	note_candidates(c, n, now_ms);
	cluster_note(c, TIMELINE_PROMOTION, n, "chosen for %s; %u promises, %u needed", why_it_wins(c, n), count,
		     c->need)
	    ->last = m->promised_pos;
	cluster_log(c, LOG_LEVEL_INFO,
		    NODE_NAME_FMT " is promoted in term %" PRIu64 " at (%" PRIu64 ", %" PRIu64
				  "), promises %u of %u needed",
		    NODE_NAME(n), c->term, m->promised_pos.term, m->promised_pos.lsn, count, c->need);
	c->master = n;
	c->promote_asked = false;
	m->may_serve = true;
	member_ask_now(m, now_ms);
	cluster_set_phase(c, PHASE_PROMOTING, now_ms);
	snprintf(c->reason, sizeof(c->reason),
		 NODE_NAME_FMT " is promoted in term %" PRIu64 " and waits for its quorum", NODE_NAME(n), c->term);
}

void election_progress(struct cluster *c, uint64_t now_ms)
{
	unsigned candidate;
	uint32_t promises;
	unsigned count;
	unsigned n;

	if (c->phase != PHASE_ELECTING)
		return;
	if (c->held) {
		if (now_ms >= c->retry_ms)
			election_start(c, ELECTION_FAILURE, now_ms, "another attempt");
		return;
	}
	candidate = best_candidate(c);
	promises = promises_for(c, candidate);
	count = (unsigned)__builtin_popcount(promises);
	if (!cluster_elects(c, promises)) {
		if (now_ms - c->phase_ms >= c->window_ms)
			say_what_is_missing(c, promises, now_ms);
		return;
	}
	for (n = 0; n < c->count; n++) {
		const struct member *m = &c->members[n];

		if (m->may_serve && m->phase != MEMBER_DOWN && m->phase != MEMBER_ABSENT && !m->promised) { /* (3) */
			cluster_set_reason(
			    c, NODE_NAME_FMT " may still serve an older term: waiting until it is gone%s", NODE_NAME(n),
			    m->phase == MEMBER_ENDING
				? " (it was killed; a process that waits for its disk ends when that answers)"
				: "");
			return;
		}
	}
	for (n = 0; n < c->count; n++)
		if (waits_for(c, n, now_ms))
			return;
	promote(c, candidate, count, now_ms);
}

uint64_t election_wake_ms(const struct cluster *c, uint64_t now_ms)
{
	uint64_t window_end_ms = c->phase_ms + c->window_ms;

	if (c->phase == PHASE_GATHERING && now_ms < c->retry_ms)
		return c->retry_ms;
	if (c->phase != PHASE_ELECTING)
		return UINT64_MAX;
	if (c->held)
		return c->retry_ms;
	if (now_ms < window_end_ms)
		return window_end_ms;
	window_end_ms = c->phase_ms + PREFERRED_WINDOW_MS;
	return c->preferred != CLUSTER_NOBODY && now_ms < window_end_ms ? window_end_ms : UINT64_MAX;
}

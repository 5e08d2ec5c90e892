/*
 * test_cluster.c - the supervisor's decisions (supervisor/cluster.h), step by step.
 *
 * In the manner of the tests of canonical/raft: put the cluster into a state, let one thing happen, look at what the
 * core wants. The rig (tests/unit/cluster_rig.h) checks the safety rules at each action of every test.
 */
#include "supervisor/cluster.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/cluster_rig.h"
#include "tests/unit/unit.h"

static const struct cluster_action *find(const struct rig *r, enum cluster_action_type type, unsigned node)
{
	size_t i;

	for (i = 0; i < r->out.count; i++)
		if (r->out.items[i].type == type && (node == CLUSTER_NOBODY || r->out.items[i].node == node))
			return &r->out.items[i];
	return NULL;
}

static const char *state_of(struct rig *r, unsigned n)
{
	static struct cluster_node_view v;

	cluster_node_view(r->c, n, r->now_ms, &v);
	return v.state;
}

static const char *node_reason(struct rig *r, unsigned n)
{
	static struct cluster_node_view v;

	cluster_node_view(r->c, n, r->now_ms, &v);
	return v.reason;
}

/* ---- start */

static void first_start_makes_node1_master_of_term_1(void)
{
	struct rig r;

	rig_init(&r, 3);
	rig_begin(&r, true);
	CU_ASSERT_EQUAL(r.persisted_term, 1);
	CU_ASSERT(find(&r, CLUSTER_SPAWN, 0)->u.as_master);
	CU_ASSERT(!find(&r, CLUSTER_SPAWN, 1)->u.as_master && !find(&r, CLUSTER_SPAWN, 2)->u.as_master);
	CU_ASSERT_EQUAL(rig_master(&r), CLUSTER_NOBODY);
	CU_ASSERT(rig_reason(&r)[0] != '\0');
	rig_answer_all(&r);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	CU_ASSERT_EQUAL(r.failovers, 0);
	rig_fini(&r);
}

static void first_master_that_dies_at_once_comes_back_as_replica(void)
{
	struct rig r;

	rig_init(&r, 3);
	rig_begin(&r, true);
	rig_exit(&r, 0, 1, 0);
	rig_run(&r, 1000);
	CU_ASSERT_EQUAL(r.persisted_term, 2);
	CU_ASSERT(rig_master(&r) != CLUSTER_NOBODY);
	rig_fini(&r);
}

static void cold_start_elects_the_highest_position(void)
{
	struct rig r;

	rig_init(&r, 3);
	r.persisted_term = 7;
	rig_new_core(&r);
	r.nodes[0].last = (struct wal_pos){6, 100};
	r.nodes[1].last = (struct wal_pos){7, 90};
	r.nodes[2].last = (struct wal_pos){7, 91};
	rig_begin(&r, false);
	rig_answer_all(&r);
	CU_ASSERT_EQUAL(rig_master(&r), 2);
	CU_ASSERT_EQUAL(r.persisted_term, 8);
	CU_ASSERT_EQUAL(r.failovers, 0);
	rig_fini(&r);
}

static void cold_start_waits_a_little_for_the_last_node_only(void)
{
	struct rig r;

	rig_init(&r, 3);
	r.persisted_term = 3;
	rig_new_core(&r);
	rig_begin(&r, false);
	rig_answer(&r, 0);
	rig_answer(&r, 1);
	CU_ASSERT_EQUAL(r.promotes, 0);
	r.nodes[2].hung = true;
	rig_run(&r, CLUSTER_COLD_WINDOW_MS - 50);
	CU_ASSERT_EQUAL(r.promotes, 0);
	rig_run(&r, 100);
	CU_ASSERT_EQUAL(r.promotes, 1);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	rig_fini(&r);
}

static void a_lost_term_file_is_made_up_for_by_the_nodes(void)
{
	struct rig r;

	rig_init(&r, 3);
	r.nodes[0].promised_term = r.nodes[1].promised_term = r.nodes[2].promised_term = 40;
	r.nodes[1].last = (struct wal_pos){40, 5};
	rig_begin(&r, false);
	rig_run(&r, 500);
	CU_ASSERT_EQUAL(r.persisted_term, 41);
	CU_ASSERT_EQUAL(rig_master(&r), 1);
	rig_fini(&r);
}

static void a_single_node_cluster_serves_and_recovers(void)
{
	struct rig r;

	rig_serve(&r, 1);
	rig_exit(&r, 0, -1, SIGKILL);
	CU_ASSERT(r.nodes[0].running); /* restarted at once: nobody else could serve */
	rig_run(&r, 100);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	CU_ASSERT_EQUAL(r.failovers, 1);
	rig_fini(&r);
}

/* ---- failover */

static void a_killed_master_is_succeeded_in_one_round(void)
{
	struct rig r;

	rig_serve(&r, 3);
	rig_exit(&r, 0, -1, SIGKILL);
	CU_ASSERT_EQUAL(r.persisted_term, 2);
	CU_ASSERT_EQUAL(r.nodes[1].asked, WIRE_SET_TERM);
	CU_ASSERT_EQUAL(r.nodes[2].asked, WIRE_SET_TERM);
	CU_ASSERT(!r.nodes[0].running); /* its restart does not compete with its successor */
	rig_answer(&r, 1);
	CU_ASSERT_EQUAL(r.promotes, 0); /* the other one is healthy and may know more */
	rig_answer(&r, 2);
	CU_ASSERT_EQUAL(r.promotes, 1);
	CU_ASSERT_EQUAL(r.promoted, 1);
	rig_answer(&r, 1);
	CU_ASSERT_EQUAL(rig_master(&r), 1);
	CU_ASSERT_EQUAL(r.failovers, 1);
	rig_run(&r, 200);
	CU_ASSERT(r.nodes[0].running);
	CU_ASSERT_EQUAL(r.nodes[0].role, WIRE_ROLE_REPLICA);
	CU_ASSERT_EQUAL(r.nodes[0].promised_term, 2); /* told, as it was away when the term began */
	rig_fini(&r);
}

static void the_persist_comes_before_every_set_term(void)
{
	struct rig r;
	size_t i;
	bool persisted = false;

	rig_serve(&r, 3);
	rig_exit(&r, 0, -1, SIGKILL);
	for (i = 0; i < r.out.count; i++) {
		persisted = persisted || r.out.items[i].type == CLUSTER_PERSIST;
		if (r.out.items[i].type == CLUSTER_SEND)
			CU_ASSERT(persisted);
	}
	CU_ASSERT(persisted);
	rig_fini(&r);
}

static void the_replica_with_the_higher_position_wins(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[2].last.lsn += 5;
	rig_exit(&r, 0, -1, SIGKILL);
	rig_answer(&r, 1);
	rig_answer(&r, 2);
	CU_ASSERT_EQUAL(r.promoted, 2);
	rig_fini(&r);
}

static void a_newer_term_beats_a_longer_log(void)
{
	struct rig r;

	rig_serve(&r, 5);
	r.nodes[2].last = (struct wal_pos){0, 9999};
	rig_exit(&r, 0, -1, SIGKILL);
	rig_run(&r, 10);
	CU_ASSERT_EQUAL(r.promoted, 1);
	rig_fini(&r);
}

static void a_silent_replica_delays_the_election_by_the_window_at_most(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[2].hung = true;
	rig_exit(&r, 0, -1, SIGKILL);
	rig_answer(&r, 1);
	CU_ASSERT_EQUAL(r.promotes, 0);
	rig_run(&r, CLUSTER_ELECTION_WINDOW_MS - 1);
	/* Its promise is needed, and the old master's restart gives one in time or not: never without two. */
	rig_run(&r, 200);
	CU_ASSERT_EQUAL(r.promotes, 1);
	CU_ASSERT_EQUAL(r.promoted, 1);
	rig_fini(&r);
}

static void without_enough_promises_it_waits_and_says_for_whom(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[2].hung = true;
	rig_run(&r, 500); /* a hung replica */
	CU_ASSERT_STRING_EQUAL(state_of(&r, 2), "hung");
	rig_exit(&r, 0, -1, SIGKILL);
	CU_ASSERT(r.nodes[0].running); /* it is needed, so it is restarted at once */
	r.nodes[0].hung = true;
	rig_run(&r, 1000);
	CU_ASSERT_EQUAL(r.promotes, 0);
	CU_ASSERT_EQUAL(rig_master(&r), CLUSTER_NOBODY);
	CU_ASSERT(strstr(rig_reason(&r), "1 of 2 promises") != NULL);
	CU_ASSERT(strstr(rig_reason(&r), "node2 promised") != NULL);
	r.nodes[0].hung = false;
	rig_run(&r, 100);
	CU_ASSERT_EQUAL(rig_master(&r), 1); /* not the one that failed, at equal position */
	rig_fini(&r);
}

static void async_needs_a_majority_of_promises(void)
{
	struct rig r;

	rig_init(&r, 3);
	r.opt.async = true;
	r.opt.ack_nodes = 1;
	CU_ASSERT_EQUAL(cluster_promises_needed(&r.opt), 2);
	r.opt.async = false;
	r.opt.ack_nodes = 3; /* all: records may be older than the setting, a majority must do */
	CU_ASSERT_EQUAL(cluster_promises_needed(&r.opt), 2);
	r.opt.ack_nodes = 2;
	CU_ASSERT_EQUAL(cluster_promises_needed(&r.opt), 2);
	rig_fini(&r);
}

static void a_diverged_replica_is_never_promoted(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[1].state = WIRE_STATE_DIVERGED;
	rig_run(&r, 200);
	CU_ASSERT_STRING_EQUAL(state_of(&r, 1), "diverged");
	rig_exit(&r, 0, -1, SIGKILL);
	rig_run(&r, 10);
	CU_ASSERT_EQUAL(r.promoted, 2); /* its promise counts all the same */
	CU_ASSERT_EQUAL(r.promotes, 1);
	rig_fini(&r);
}

static void a_diverged_replica_that_is_ahead_does_not_count(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[1].state = WIRE_STATE_DIVERGED;
	r.nodes[1].last.lsn += 10; /* it may hold the only other copy of something acknowledged */
	rig_exit(&r, 0, -1, SIGKILL);
	rig_answer_all(&r);
	CU_ASSERT_EQUAL(r.promotes, 0);
	rig_run(&r, 300); /* the old master returns: now two with usable logs are seen */
	CU_ASSERT_EQUAL(r.promotes, 1);
	CU_ASSERT(rig_master(&r) == 0 || rig_master(&r) == 2);
	rig_fini(&r);
}

static void a_higher_promised_term_is_adopted(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[2].promised_term = 20;
	rig_exit(&r, 0, -1, SIGKILL);
	CU_ASSERT_EQUAL(r.persisted_term, 2);
	rig_answer(&r, 2); /* refuses term 2, names 20 */
	CU_ASSERT_EQUAL(r.persisted_term, 21);
	rig_answer_all(&r);
	CU_ASSERT_EQUAL(r.promoted_term, 21);
	CU_ASSERT(rig_master(&r) != CLUSTER_NOBODY);
	rig_fini(&r);
}

static void an_absurd_term_is_not_believed(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[2].promised_term = UINT64_MAX;
	rig_run(&r, 1000);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	CU_ASSERT_EQUAL(r.persisted_term, 1);
	CU_ASSERT_STRING_EQUAL(state_of(&r, 2), "down");
	rig_fini(&r);
}

static void late_and_repeated_replies_change_nothing(void)
{
	struct wire_node_status s = {
	    .role = WIRE_ROLE_REPLICA, .state = WIRE_STATE_UP, .accepted = true, .promised_term = 2, .last = {1, 500}};
	struct cluster_event ev = {.type = CLUSTER_REPLY, .node = 1};
	struct rig r;
	uint32_t seq;

	rig_serve(&r, 3);
	rig_exit(&r, 0, -1, SIGKILL);
	ev.u.reply.status = &s;
	ev.u.reply.seq = r.nodes[1].seq - 1;
	rig_step(&r, &ev); /* of an earlier request */
	seq = r.nodes[1].seq;
	rig_answer(&r, 1);
	ev.u.reply.seq = seq;
	rig_step(&r, &ev); /* the same answer twice */
	CU_ASSERT_EQUAL(r.promotes, 0);
	rig_answer(&r, 2);
	CU_ASSERT_EQUAL(r.promotes, 1);
	seq = r.nodes[2].seq;
	ev.node = 2;
	ev.u.reply.seq = seq + 1000;
	rig_step(&r, &ev);
	CU_ASSERT_EQUAL(r.promotes, 1);
	rig_fini(&r);
}

static void a_candidate_that_dies_is_replaced_in_a_new_term(void)
{
	struct rig r;

	rig_serve(&r, 3);
	rig_exit(&r, 0, -1, SIGKILL);
	rig_answer(&r, 1);
	rig_answer(&r, 2);
	CU_ASSERT_EQUAL(r.promoted, 1);
	rig_exit(&r, 1, -1, SIGKILL); /* before or after it took the promotion: nobody knows */
	CU_ASSERT_EQUAL(r.persisted_term, 3);
	rig_run(&r, 300);
	CU_ASSERT_EQUAL(r.promoted_term, 3);
	CU_ASSERT(rig_master(&r) != CLUSTER_NOBODY);
	CU_ASSERT_EQUAL(r.failovers, 1); /* one master was lost, not two */
	rig_fini(&r);
}

static void a_promised_replica_that_dies_does_not_count_any_more(void)
{
	struct rig r;

	rig_serve(&r, 3);
	rig_exit(&r, 0, -1, SIGKILL);
	rig_answer(&r, 1);
	rig_exit(&r, 1, -1, SIGKILL);
	rig_answer(&r, 2);
	CU_ASSERT_EQUAL(r.promotes, 0);
	rig_run(&r, 200);
	CU_ASSERT_EQUAL(r.promotes, 1);
	rig_fini(&r);
}

static void a_refused_promotion_leads_to_another_term(void)
{
	struct rig r;

	rig_serve(&r, 3);
	rig_exit(&r, 0, -1, SIGKILL);
	rig_answer(&r, 1);
	rig_answer(&r, 2);
	r.nodes[1].accepts = false;
	rig_answer(&r, 1);
	CU_ASSERT_EQUAL(r.promotes, 1);
	rig_run(&r, 300);
	CU_ASSERT_EQUAL(r.nodes[1].killed, SIGKILL); /* it was sent a PROMOTE and will not promise to forget it */
	rig_exit(&r, 1, -1, SIGKILL);
	rig_run(&r, 1000);
	CU_ASSERT(rig_master(&r) == 0 || rig_master(&r) == 2);
	CU_ASSERT(r.promoted_term > 2);
	rig_fini(&r);
}

static void an_unanswered_promotion_is_never_repeated_in_its_term(void)
{
	struct cluster_event ev = {.type = CLUSTER_NO_REPLY, .node = 1};
	struct rig r;

	rig_serve(&r, 3);
	rig_exit(&r, 0, -1, SIGKILL);
	rig_answer(&r, 1);
	rig_answer(&r, 2);
	CU_ASSERT_EQUAL(r.nodes[1].asked, WIRE_PROMOTE);
	ev.u.reply.seq = r.nodes[1].seq;
	r.nodes[1].seq = 0;
	rig_step(&r, &ev);
	rig_run(&r, 1000); /* the rig fails on a second PROMOTE in a term */
	CU_ASSERT(r.promoted_term > 2);
	CU_ASSERT(rig_master(&r) != CLUSTER_NOBODY);
	rig_fini(&r);
}

static void a_master_that_is_not_ready_is_no_master_yet(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[1].ready = false;
	rig_exit(&r, 0, -1, SIGKILL);
	rig_run(&r, 50);
	CU_ASSERT_EQUAL(r.promotes, 1);
	CU_ASSERT_EQUAL(rig_master(&r), CLUSTER_NOBODY);
	CU_ASSERT(strstr(rig_reason(&r), "quorum") != NULL);
	CU_ASSERT(cluster_wake_ms(r.c) - r.now_ms <= CLUSTER_POLL_MS); /* asked again soon */
	r.nodes[1].ready = true;
	rig_run(&r, 10);
	CU_ASSERT_EQUAL(rig_master(&r), 1);
	rig_fini(&r);
}

static void a_master_that_steps_down_is_succeeded(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[0].role = WIRE_ROLE_REPLICA;
	rig_run(&r, 300);
	CU_ASSERT_EQUAL(r.persisted_term, 2);
	CU_ASSERT_EQUAL(rig_master(&r), 1);
	rig_fini(&r);
}

static void a_master_that_failed_is_killed_when_others_can_serve(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[0].state = WIRE_STATE_FAILED;
	rig_run(&r, 110);
	CU_ASSERT_EQUAL(r.nodes[0].killed, SIGKILL);
	CU_ASSERT_EQUAL(r.promotes, 0); /* (3) not before it is gone */
	rig_exit(&r, 0, -1, SIGKILL);
	rig_run(&r, 50);
	CU_ASSERT_EQUAL(rig_master(&r), 1);
	rig_fini(&r);
}

static void a_failed_master_that_nobody_can_replace_is_left_alone(void)
{
	struct rig r;

	rig_serve(&r, 1);
	r.nodes[0].state = WIRE_STATE_FAILED;
	rig_run(&r, 1000);
	CU_ASSERT_EQUAL(r.nodes[0].killed, 0);
	rig_fini(&r);
}

static void an_unstorable_term_is_not_announced(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.persist_fails = true;
	rig_exit(&r, 0, -1, SIGKILL);
	rig_run(&r, 2000); /* the rig fails on a SET_TERM above what is persisted */
	CU_ASSERT_EQUAL(r.persisted_term, 1);
	CU_ASSERT_EQUAL(r.promotes, 0);
	CU_ASSERT(strstr(rig_reason(&r), "cannot be stored") != NULL || strstr(rig_reason(&r), "too many") != NULL);
	r.persist_fails = false;
	rig_run(&r, 2000);
	CU_ASSERT(rig_master(&r) != CLUSTER_NOBODY);
	rig_fini(&r);
}

/* ---- hanging */

static void a_hung_master_is_killed_and_succeeded_when_it_is_gone(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[0].hung = true;
	rig_run(&r, 199); /* its last answer was up to an interval ago */
	CU_ASSERT_EQUAL(r.nodes[0].killed, 0);
	rig_run(&r, 110);
	CU_ASSERT_EQUAL(r.nodes[0].killed, SIGKILL);
	CU_ASSERT_STRING_EQUAL(state_of(&r, 0), "hung");
	rig_run(&r, 500);
	CU_ASSERT_EQUAL(r.promotes, 0); /* it may wake up and serve until it is certainly gone */
	CU_ASSERT(strstr(rig_reason(&r), "node1") != NULL);
	rig_exit(&r, 0, -1, SIGKILL);
	CU_ASSERT_EQUAL(r.promotes, 1);
	rig_run(&r, 50);
	CU_ASSERT_EQUAL(rig_master(&r), 1);
	CU_ASSERT(r.nodes[0].running);
	rig_fini(&r);
}

static void a_silent_master_that_works_has_ten_times_as_long(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[0].hung = true;
	r.nodes[0].busy = true;
	rig_run(&r, CLUSTER_PATIENCE * 300 - 110);
	CU_ASSERT_EQUAL(r.nodes[0].killed, 0);
	CU_ASSERT_STRING_EQUAL(state_of(&r, 0), "up");
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	rig_run(&r, 120);
	CU_ASSERT_EQUAL(r.nodes[0].killed, SIGKILL);
	rig_exit(&r, 0, -1, SIGKILL);
	rig_run(&r, 50);
	CU_ASSERT_EQUAL(rig_master(&r), 1);
	rig_fini(&r);
}

static void a_master_that_works_and_answers_late_stays_master(void)
{
	struct rig r;
	unsigned i;

	rig_serve(&r, 3);
	r.nodes[0].busy = true;
	for (i = 0; i < 5; i++) {
		r.nodes[0].hung = true;
		rig_run(&r, 2500);
		CU_ASSERT(r.nodes[0].seq != 0 && find(&r, CLUSTER_KILL, 0) == NULL);
		r.nodes[0].hung = false;
		rig_run(&r, 1);
	}
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	CU_ASSERT_EQUAL(r.persisted_term, 1);
	CU_ASSERT_EQUAL(r.warnings, 5); /* each silence is worth one line */
	rig_fini(&r);
}

static void a_late_node_is_given_longer_to_answer_each_time(void)
{
	static const uint64_t at_least_ms[] = {300, 400, 800, 1600};
	struct cluster_event ev = {.type = CLUSTER_NO_REPLY, .node = 0};
	struct rig r;
	size_t i;

	rig_serve(&r, 3);
	r.nodes[0].hung = r.nodes[0].busy = true;
	for (i = 0; i < sizeof(at_least_ms) / sizeof(at_least_ms[0]); i++) {
		rig_run(&r, 100);
		CU_ASSERT(r.nodes[0].seq != 0 && r.nodes[0].asked_timeout_ms >= at_least_ms[i]);
		rig_run(&r, r.nodes[0].asked_timeout_ms);
		CU_ASSERT_EQUAL(r.nodes[0].killed, i < 3 ? 0 : SIGKILL);
		ev.u.reply.seq = r.nodes[0].seq;
		r.nodes[0].seq = 0;
		rig_step(&r, &ev);
	}
	rig_fini(&r);
}

static void a_working_master_that_is_stopped_in_its_grace_is_killed_soon(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[0].hung = r.nodes[0].busy = true;
	rig_run(&r, 1000);
	CU_ASSERT_EQUAL(r.nodes[0].killed, 0);
	r.nodes[0].busy = false;
	rig_run(&r, 60); /* half an interval */
	CU_ASSERT_EQUAL(r.nodes[0].killed, SIGKILL);
	rig_fini(&r);
}

static void a_replica_that_works_is_not_hung_yet(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[1].hung = r.nodes[1].busy = true;
	rig_run(&r, 2000);
	CU_ASSERT_STRING_EQUAL(state_of(&r, 1), "up");
	CU_ASSERT_EQUAL(r.nodes[1].killed, 0);
	rig_run(&r, 1010);
	CU_ASSERT_EQUAL(r.nodes[1].killed, SIGKILL);
	rig_fini(&r);
}

static void progress_is_asked_for_only_when_an_answer_is_overdue(void)
{
	struct cluster_event ev = {.type = CLUSTER_PROGRESS, .node = 0};
	struct rig r;
	unsigned n;

	rig_serve(&r, 3);
	for (n = 0; n < 3; n++)
		CU_ASSERT(!r.nodes[n].probed);
	rig_step(&r, &ev); /* not asked for: means nothing */
	rig_run(&r, 1000);
	CU_ASSERT_EQUAL(r.nodes[0].killed, 0);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	rig_fini(&r);
}

static void one_miss_is_as_good_as_two(void)
{
	struct rig r;

	rig_init(&r, 3);
	r.opt.misses = 1;
	rig_new_core(&r);
	rig_begin(&r, true);
	rig_run(&r, 5000);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	CU_ASSERT_EQUAL(r.nodes[0].spawns, 1);
	r.nodes[0].hung = true;
	rig_run(&r, 210);
	CU_ASSERT_EQUAL(r.nodes[0].killed, SIGKILL);
	rig_fini(&r);
}

static void a_short_silence_is_forgiven(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[0].hung = true;
	rig_run(&r, 250);
	r.nodes[0].hung = false;
	rig_run(&r, 1000);
	CU_ASSERT_EQUAL(r.nodes[0].killed, 0);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	CU_ASSERT_EQUAL(r.persisted_term, 1);
	rig_fini(&r);
}

static void a_hung_replica_is_shown_at_once_and_killed_later(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[1].hung = true;
	rig_run(&r, 450);
	CU_ASSERT_STRING_EQUAL(state_of(&r, 1), "hung");
	CU_ASSERT_EQUAL(r.nodes[1].killed, 0);
	rig_run(&r, CLUSTER_REPLICA_HUNG_MS);
	CU_ASSERT_EQUAL(r.nodes[1].killed, SIGKILL);
	rig_exit(&r, 1, -1, SIGKILL);
	CU_ASSERT(r.nodes[1].running);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	rig_fini(&r);
}

static void a_paused_supervisor_does_not_blame_the_nodes(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.now_ms += 5000; /* SIGSTOP ... SIGCONT */
	rig_tick(&r);
	CU_ASSERT_EQUAL(r.nodes[0].killed, 0);
	CU_ASSERT_EQUAL(r.nodes[1].killed, 0);
	CU_ASSERT(r.warnings > 0);
	rig_run(&r, 1000);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	CU_ASSERT_EQUAL(r.persisted_term, 1);
	r.nodes[0].hung = true; /* but a node that really hangs is still found out */
	rig_run(&r, 450);
	CU_ASSERT_EQUAL(r.nodes[0].killed, SIGKILL);
	rig_fini(&r);
}

static void a_starting_node_has_a_long_grace(void)
{
	struct rig r;

	rig_serve(&r, 3);
	rig_exit(&r, 1, 1, 0);
	CU_ASSERT(r.nodes[1].running);
	r.nodes[1].hung = true; /* recovery */
	rig_run(&r, CLUSTER_STARTING_GRACE_MS - 1000);
	CU_ASSERT_EQUAL(r.nodes[1].killed, 0);
	CU_ASSERT_STRING_EQUAL(state_of(&r, 1), "starting");
	rig_run(&r, 2000);
	CU_ASSERT_EQUAL(r.nodes[1].killed, SIGKILL);
	rig_fini(&r);
}

/* ---- restarts */

static void restarts_back_off_and_recover(void)
{
	struct rig r;
	uint64_t expected_ms[] = {0, 100, 200, 400, 800, 1600, 3200, 5000, 5000};
	size_t i;

	rig_serve(&r, 3);
	for (i = 0; i < sizeof(expected_ms) / sizeof(expected_ms[0]); i++) {
		rig_exit(&r, 2, 1, 0);
		if (expected_ms[i] > 0) {
			CU_ASSERT(!r.nodes[2].running);
			rig_run(&r, expected_ms[i] - 1);
			CU_ASSERT(!r.nodes[2].running);
			rig_run(&r, 1);
		}
		CU_ASSERT(r.nodes[2].running);
	}
	rig_run(&r, CLUSTER_BACKOFF_RESET_MS);
	rig_exit(&r, 2, 1, 0);
	CU_ASSERT(r.nodes[2].running); /* it had lived long enough */
	rig_fini(&r);
}

static void a_configuration_error_is_not_retried_in_a_loop(void)
{
	struct rig r;

	rig_serve(&r, 3);
	rig_exit(&r, 2, 2, 0);
	rig_run(&r, CLUSTER_BACKOFF_MAX_MS - 1);
	CU_ASSERT(!r.nodes[2].running);
	CU_ASSERT_STRING_EQUAL(state_of(&r, 2), "down");
	CU_ASSERT(strstr(node_reason(&r, 2), "configuration error") != NULL);
	rig_run(&r, 1);
	CU_ASSERT(r.nodes[2].running);
	rig_fini(&r);
}

static void a_node_that_cannot_be_started_is_tried_again(void)
{
	struct cluster_event ev = {.type = CLUSTER_NODE_EXITED, .node = 2};
	struct rig r;

	rig_serve(&r, 3);
	rig_exit(&r, 2, 1, 0);
	ev.u.exited.code = -1;
	ev.u.exited.why = "no such program";
	r.nodes[2].running = false;
	r.nodes[2].seq = 0;
	rig_step(&r, &ev);
	CU_ASSERT(!r.nodes[2].running);
	CU_ASSERT(strstr(node_reason(&r, 2), "no such program") != NULL);
	rig_run(&r, 100);
	CU_ASSERT(r.nodes[2].running);
	rig_fini(&r);
}

static void a_replica_that_failed_gets_new_processes_with_delays(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[2].state = WIRE_STATE_FAILED;
	rig_run(&r, 110);
	CU_ASSERT_EQUAL(r.nodes[2].killed, SIGKILL);
	rig_exit(&r, 2, -1, SIGKILL);
	CU_ASSERT(r.nodes[2].running); /* the first time at once */
	rig_run(&r, 10);
	CU_ASSERT_EQUAL(r.nodes[2].killed, SIGKILL); /* it has failed again */
	rig_exit(&r, 2, -1, SIGKILL);
	CU_ASSERT(!r.nodes[2].running);
	CU_ASSERT_STRING_EQUAL(state_of(&r, 2), "down");
	CU_ASSERT(strstr(node_reason(&r, 2), "it failed") != NULL);
	r.nodes[2].state = WIRE_STATE_UP;
	rig_run(&r, 110);
	CU_ASSERT(r.nodes[2].running);
	CU_ASSERT_STRING_EQUAL(state_of(&r, 2), "up");
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	CU_ASSERT_EQUAL(r.persisted_term, 1);
	rig_fini(&r);
}

static void a_failed_replica_gives_its_promise_before_it_is_restarted(void)
{
	struct rig r;

	rig_serve(&r, 3);
	rig_exit(&r, 0, -1, SIGKILL);
	r.nodes[1].state = WIRE_STATE_FAILED;
	rig_answer(&r, 1);
	CU_ASSERT_EQUAL(r.nodes[1].killed, 0);
	rig_answer(&r, 2);
	CU_ASSERT_EQUAL(r.promotes, 1);
	CU_ASSERT_EQUAL(r.promoted, 2);
	CU_ASSERT_EQUAL(r.nodes[1].killed, 0); /* until the next look */
	rig_run(&r, 110);
	CU_ASSERT_EQUAL(r.nodes[1].killed, SIGKILL);
	rig_fini(&r);
}

/* ---- adoption */

static void a_new_supervisor_carries_on_with_the_serving_master(void)
{
	struct rig r;
	unsigned n;

	rig_serve(&r, 3);
	rig_new_core(&r);
	rig_begin(&r, false);
	CU_ASSERT_PTR_NULL(find(&r, CLUSTER_SPAWN, CLUSTER_NOBODY));
	rig_answer_all(&r);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	rig_run(&r, 2000);
	CU_ASSERT_EQUAL(r.persisted_term, 1);
	for (n = 0; n < 3; n++)
		CU_ASSERT(r.nodes[n].spawns == 1 && r.nodes[n].killed == 0);
	rig_fini(&r);
}

/* The state file was lost and cannot be written: the master serves, but its term is told to nobody before it is stored. */
static void a_term_adopted_but_not_stored_is_not_announced(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[0].promised_term = r.nodes[0].last.term = 5;
	r.persist_fails = true;
	rig_new_core(&r);
	rig_begin(&r, false);
	rig_run(&r, 2000); /* the rig fails on a SET_TERM above what is persisted */
	CU_ASSERT_EQUAL(r.persisted_term, 1);
	CU_ASSERT_EQUAL(rig_master(&r), CLUSTER_NOBODY);
	CU_ASSERT(strstr(rig_reason(&r), "cannot be stored") != NULL);
	r.persist_fails = false;
	rig_run(&r, 1000);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	CU_ASSERT_EQUAL(r.persisted_term, 5);
	CU_ASSERT_EQUAL(r.promotes, 0);
	rig_fini(&r);
}

static void a_new_supervisor_starts_what_is_missing(void)
{
	struct rig r;

	rig_serve(&r, 3);
	rig_new_core(&r);
	r.nodes[2].running = false;
	rig_begin(&r, false);
	CU_ASSERT(find(&r, CLUSTER_SPAWN, 2) != NULL);
	rig_run(&r, 100);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	CU_ASSERT_EQUAL(r.persisted_term, 1);
	rig_fini(&r);
}

static uint64_t restarts_of(struct rig *r, unsigned n)
{
	static struct cluster_node_view v;

	cluster_node_view(r->c, n, r->now_ms, &v);
	return v.restarts;
}

static void a_new_supervisor_goes_on_counting_restarts(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[1].restarts = 4;
	r.nodes[2].restarts = 1;
	rig_new_core(&r);
	r.nodes[2].running = false;
	rig_begin(&r, false);
	CU_ASSERT(restarts_of(&r, 0) == 0 && restarts_of(&r, 1) == 4);
	CU_ASSERT_EQUAL(restarts_of(&r, 2), 2); /* it died meanwhile */
	rig_exit(&r, 1, 1, 0);
	CU_ASSERT_EQUAL(restarts_of(&r, 1), 5);
	rig_fini(&r);
	rig_init(&r, 3);
	r.persisted_term = 1;
	r.nodes[1].restarts = 4;
	rig_new_core(&r);
	rig_begin(&r, false);
	CU_ASSERT_EQUAL(restarts_of(&r, 1), 0); /* a cluster that was stopped begins anew */
	rig_fini(&r);
}

static void a_new_supervisor_without_a_term_file_keeps_the_master(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.persisted_term = 0;
	rig_new_core(&r);
	rig_begin(&r, false);
	rig_run(&r, 500);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	CU_ASSERT_EQUAL(r.persisted_term, 1);
	rig_fini(&r);
}

static void a_new_supervisor_finishes_an_election_that_was_cut_short(void)
{
	struct rig r;

	rig_serve(&r, 3);
	rig_exit(&r, 0, -1, SIGKILL);
	rig_answer(&r, 1);
	rig_answer(&r, 2); /* PROMOTE in term 2 is on its way, and the supervisor dies */
	rig_new_core(&r);
	r.nodes[0].running = false;
	rig_begin(&r, false);
	rig_run(&r, 500);
	CU_ASSERT_EQUAL(r.promoted_term, 3);
	CU_ASSERT(rig_master(&r) != CLUSTER_NOBODY);
	rig_fini(&r);
}

static void a_new_supervisor_finds_a_hung_master_out(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[0].hung = true;
	rig_new_core(&r);
	rig_begin(&r, false);
	rig_run(&r, 1200);
	CU_ASSERT_EQUAL(r.nodes[0].killed, SIGKILL);
	CU_ASSERT_EQUAL(r.promotes, 0);
	rig_exit(&r, 0, -1, 0);
	rig_run(&r, 100);
	CU_ASSERT_EQUAL(rig_master(&r), 1);
	rig_fini(&r);
}

static void a_new_supervisor_ends_a_drain_left_behind(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[0].draining = true;
	rig_new_core(&r);
	rig_begin(&r, false);
	rig_run(&r, 300);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	CU_ASSERT(!r.nodes[0].draining);
	rig_fini(&r);
}

/* ---- switchover */

static void a_switchover_drains_catches_up_and_hands_over(void)
{
	struct rig r;

	rig_serve(&r, 3);
	rig_write(&r, 0, 4);
	r.nodes[2].last.lsn -= 2; /* it has to catch up */
	rig_switchover(&r, 2);
	CU_ASSERT_EQUAL(r.nodes[0].asked, WIRE_DRAIN);
	r.nodes[0].committed_lsn--; /* one write is in flight */
	rig_run(&r, 30);
	CU_ASSERT(r.nodes[0].draining);
	CU_ASSERT_EQUAL(r.persisted_term, 1);
	r.nodes[0].committed_lsn++;
	rig_run(&r, 30);
	CU_ASSERT_EQUAL(r.persisted_term, 1);
	r.nodes[2].last = r.nodes[0].last;
	rig_run(&r, 30);
	CU_ASSERT(r.switchover_done && r.switchover_ok);
	CU_ASSERT_EQUAL(rig_master(&r), 2);
	CU_ASSERT_EQUAL(r.persisted_term, 2);
	CU_ASSERT_EQUAL(r.nodes[0].role, WIRE_ROLE_REPLICA);
	CU_ASSERT_EQUAL(r.nodes[0].killed, 0);
	CU_ASSERT_EQUAL(r.failovers, 0);
	rig_fini(&r);
}

static void a_switchover_without_a_target_takes_the_most_advanced(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[1].last.lsn--;
	rig_run(&r, 200);
	rig_switchover(&r, CLUSTER_NOBODY);
	rig_run(&r, 100);
	CU_ASSERT(r.switchover_done && r.switchover_ok);
	CU_ASSERT_EQUAL(rig_master(&r), 2);
	rig_fini(&r);
}

static void a_switchover_to_the_master_is_done_already(void)
{
	struct rig r;

	rig_serve(&r, 3);
	rig_switchover(&r, 0);
	CU_ASSERT(r.switchover_done && r.switchover_ok);
	CU_ASSERT(strstr(r.switchover_text, "already the master") != NULL);
	rig_run(&r, 300);
	CU_ASSERT(!r.nodes[0].draining);
	rig_fini(&r);
}

static void a_switchover_to_a_node_that_is_not_up_is_refused(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[1].state = WIRE_STATE_CATCHING_UP;
	r.nodes[1].lag_ms = 5000;
	rig_run(&r, 200);
	rig_switchover(&r, 1);
	CU_ASSERT(r.switchover_done && !r.switchover_ok);
	r.nodes[1].lag_ms = 20; /* since it was started */
	r.nodes[1].ready = false;
	rig_run(&r, 200);
	rig_switchover(&r, 1);
	CU_ASSERT(r.switchover_done && !r.switchover_ok);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	rig_fini(&r);
	rig_serve(&r, 1);
	rig_switchover(&r, CLUSTER_NOBODY);
	CU_ASSERT(r.switchover_done && !r.switchover_ok);
	rig_fini(&r);
}

/* Under load no replica has everything at any moment. */
static void a_switchover_goes_to_a_node_that_is_a_little_behind(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[1].state = r.nodes[2].state = WIRE_STATE_CATCHING_UP;
	r.nodes[1].lag_ms = 20;
	r.nodes[2].lag_ms = 5000;
	rig_run(&r, 200);
	rig_switchover(&r, CLUSTER_NOBODY);
	rig_run(&r, 300);
	CU_ASSERT(r.switchover_done && r.switchover_ok);
	CU_ASSERT_EQUAL(rig_master(&r), 1);
	rig_fini(&r);
}

static void a_drain_that_does_not_end_is_undone(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[0].committed_lsn--;
	rig_switchover(&r, 1);
	rig_run(&r, CLUSTER_SWITCHOVER_MS - 100);
	CU_ASSERT(!r.switchover_done && r.nodes[0].draining);
	rig_run(&r, 300);
	CU_ASSERT(r.switchover_done && !r.switchover_ok);
	CU_ASSERT(!r.nodes[0].draining);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	CU_ASSERT_EQUAL(r.persisted_term, 1);
	rig_fini(&r);
}

static void a_target_that_dies_ends_the_switchover(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[1].last.lsn--;
	rig_run(&r, 200);
	rig_switchover(&r, 1);
	rig_run(&r, 50);
	CU_ASSERT(r.nodes[0].draining && !r.switchover_done);
	rig_exit(&r, 1, -1, SIGKILL);
	CU_ASSERT(r.switchover_done && !r.switchover_ok);
	rig_run(&r, 200);
	CU_ASSERT(!r.nodes[0].draining);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	rig_fini(&r);
}

static void a_master_that_dies_while_draining_is_an_ordinary_failover(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[0].committed_lsn--;
	rig_switchover(&r, 1);
	rig_run(&r, 50);
	rig_exit(&r, 0, -1, SIGKILL);
	CU_ASSERT(r.switchover_done && !r.switchover_ok);
	rig_run(&r, 100);
	CU_ASSERT_EQUAL(rig_master(&r), 1);
	CU_ASSERT_EQUAL(r.failovers, 1);
	rig_fini(&r);
}

static void a_second_switchover_is_refused_meanwhile(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[0].committed_lsn--;
	rig_switchover(&r, 1);
	rig_run(&r, 20);
	rig_switchover(&r, 2);
	CU_ASSERT(r.switchover_done && !r.switchover_ok);
	r.switchover_done = false;
	r.nodes[0].committed_lsn++;
	rig_run(&r, 100);
	CU_ASSERT(r.switchover_done && r.switchover_ok);
	CU_ASSERT_EQUAL(rig_master(&r), 1);
	rig_fini(&r);
}

static void a_target_that_fails_after_the_drain_leaves_a_master(void)
{
	struct rig r;

	rig_serve(&r, 3);
	rig_switchover(&r, 1);
	r.nodes[1].accepts = false;
	rig_run(&r, 3000);
	CU_ASSERT(r.switchover_done);
	CU_ASSERT(rig_master(&r) == 0 || rig_master(&r) == 2);
	CU_ASSERT(!r.nodes[rig_master(&r)].draining);
	rig_fini(&r);
}

/* ---- stop */

static void stop_ends_the_master_first_and_then_the_rest(void)
{
	struct rig r;

	rig_serve(&r, 3);
	rig_stop(&r);
	CU_ASSERT_EQUAL(r.nodes[0].killed, SIGTERM);
	CU_ASSERT_EQUAL(r.nodes[1].killed, 0);
	rig_exit(&r, 0, 0, 0);
	CU_ASSERT_EQUAL(r.nodes[1].killed, SIGTERM);
	CU_ASSERT_EQUAL(r.nodes[2].killed, SIGTERM);
	rig_exit(&r, 1, 0, 0);
	CU_ASSERT(!r.stopped);
	rig_exit(&r, 2, 0, 0);
	CU_ASSERT(r.stopped);
	CU_ASSERT_EQUAL(r.nodes[0].spawns, 1);
	CU_ASSERT_EQUAL(r.persisted_term, 1);
	rig_fini(&r);
}

static void stop_kills_what_does_not_end(void)
{
	struct rig r;

	rig_serve(&r, 3);
	rig_stop(&r);
	rig_run(&r, CLUSTER_STOP_MS - 1);
	CU_ASSERT_EQUAL(r.nodes[1].killed, SIGTERM);
	rig_run(&r, 1);
	CU_ASSERT_EQUAL(r.nodes[0].killed, SIGKILL);
	CU_ASSERT_EQUAL(r.nodes[1].killed, SIGKILL);
	rig_exit(&r, 0, -1, SIGKILL);
	rig_exit(&r, 1, -1, SIGKILL);
	rig_exit(&r, 2, -1, SIGKILL);
	CU_ASSERT(r.stopped);
	rig_fini(&r);
}

static void stop_in_the_middle_of_an_election_ends_everything(void)
{
	struct rig r;

	rig_serve(&r, 3);
	rig_exit(&r, 0, -1, SIGKILL);
	rig_stop(&r);
	CU_ASSERT_EQUAL(r.nodes[1].killed, SIGTERM);
	rig_answer(&r, 1);
	rig_exit(&r, 1, 0, 0);
	rig_exit(&r, 2, 0, 0);
	CU_ASSERT(r.stopped);
	CU_ASSERT_EQUAL(r.promotes, 0);
	rig_fini(&r);
}

static void options_out_of_range_are_refused(void)
{
	struct cluster_options o = {.node_count = 0, .ack_nodes = 1, .interval_ms = 100, .misses = 3};
	struct errmsg em = {0};
	struct cluster *c;

	CU_ASSERT_EQUAL(cluster_create(&c, &o, &em), DB_INVALID);
	o.node_count = CLUSTER_NODES_MAX + 1;
	CU_ASSERT_EQUAL(cluster_create(&c, &o, &em), DB_INVALID);
	o.node_count = 3;
	o.ack_nodes = 4;
	CU_ASSERT_EQUAL(cluster_create(&c, &o, &em), DB_INVALID);
	o.ack_nodes = 2;
	o.misses = 0;
	CU_ASSERT_EQUAL(cluster_create(&c, &o, &em), DB_INVALID);
	o.misses = 3;
	o.term = UINT64_MAX;
	CU_ASSERT_EQUAL(cluster_create(&c, &o, &em), DB_INVALID);
	cluster_free(NULL);
}

static void the_largest_cluster_fits_its_action_list(void)
{
	struct rig r;

	rig_serve(&r, CLUSTER_NODES_MAX);
	rig_exit(&r, 0, -1, SIGKILL);
	rig_run(&r, 1000);
	CU_ASSERT(rig_master(&r) != CLUSTER_NOBODY);
	rig_stop(&r);
	rig_run(&r, CLUSTER_STOP_MS);
	rig_fini(&r);
}

#define TEST(name)                                                                                                     \
	{                                                                                                              \
#name, name                                                                                            \
	}

static const struct unit_test tests[] = {
    TEST(first_start_makes_node1_master_of_term_1),
    TEST(first_master_that_dies_at_once_comes_back_as_replica),
    TEST(cold_start_elects_the_highest_position),
    TEST(cold_start_waits_a_little_for_the_last_node_only),
    TEST(a_lost_term_file_is_made_up_for_by_the_nodes),
    TEST(a_single_node_cluster_serves_and_recovers),
    TEST(a_killed_master_is_succeeded_in_one_round),
    TEST(the_persist_comes_before_every_set_term),
    TEST(the_replica_with_the_higher_position_wins),
    TEST(a_newer_term_beats_a_longer_log),
    TEST(a_silent_replica_delays_the_election_by_the_window_at_most),
    TEST(without_enough_promises_it_waits_and_says_for_whom),
    TEST(async_needs_a_majority_of_promises),
    TEST(a_diverged_replica_is_never_promoted),
    TEST(a_diverged_replica_that_is_ahead_does_not_count),
    TEST(a_higher_promised_term_is_adopted),
    TEST(an_absurd_term_is_not_believed),
    TEST(late_and_repeated_replies_change_nothing),
    TEST(a_candidate_that_dies_is_replaced_in_a_new_term),
    TEST(a_promised_replica_that_dies_does_not_count_any_more),
    TEST(a_refused_promotion_leads_to_another_term),
    TEST(an_unanswered_promotion_is_never_repeated_in_its_term),
    TEST(a_master_that_is_not_ready_is_no_master_yet),
    TEST(a_master_that_steps_down_is_succeeded),
    TEST(a_master_that_failed_is_killed_when_others_can_serve),
    TEST(a_failed_master_that_nobody_can_replace_is_left_alone),
    TEST(an_unstorable_term_is_not_announced),
    TEST(a_hung_master_is_killed_and_succeeded_when_it_is_gone),
    TEST(a_silent_master_that_works_has_ten_times_as_long),
    TEST(a_master_that_works_and_answers_late_stays_master),
    TEST(a_late_node_is_given_longer_to_answer_each_time),
    TEST(a_working_master_that_is_stopped_in_its_grace_is_killed_soon),
    TEST(a_replica_that_works_is_not_hung_yet),
    TEST(progress_is_asked_for_only_when_an_answer_is_overdue),
    TEST(one_miss_is_as_good_as_two),
    TEST(a_short_silence_is_forgiven),
    TEST(a_hung_replica_is_shown_at_once_and_killed_later),
    TEST(a_paused_supervisor_does_not_blame_the_nodes),
    TEST(a_starting_node_has_a_long_grace),
    TEST(restarts_back_off_and_recover),
    TEST(a_configuration_error_is_not_retried_in_a_loop),
    TEST(a_node_that_cannot_be_started_is_tried_again),
    TEST(a_replica_that_failed_gets_new_processes_with_delays),
    TEST(a_failed_replica_gives_its_promise_before_it_is_restarted),
    TEST(a_new_supervisor_goes_on_counting_restarts),
    TEST(a_new_supervisor_carries_on_with_the_serving_master),
    TEST(a_term_adopted_but_not_stored_is_not_announced),
    TEST(a_new_supervisor_starts_what_is_missing),
    TEST(a_new_supervisor_without_a_term_file_keeps_the_master),
    TEST(a_new_supervisor_finishes_an_election_that_was_cut_short),
    TEST(a_new_supervisor_finds_a_hung_master_out),
    TEST(a_new_supervisor_ends_a_drain_left_behind),
    TEST(a_switchover_drains_catches_up_and_hands_over),
    TEST(a_switchover_without_a_target_takes_the_most_advanced),
    TEST(a_switchover_to_the_master_is_done_already),
    TEST(a_switchover_to_a_node_that_is_not_up_is_refused),
    TEST(a_switchover_goes_to_a_node_that_is_a_little_behind),
    TEST(a_drain_that_does_not_end_is_undone),
    TEST(a_target_that_dies_ends_the_switchover),
    TEST(a_master_that_dies_while_draining_is_an_ordinary_failover),
    TEST(a_second_switchover_is_refused_meanwhile),
    TEST(a_target_that_fails_after_the_drain_leaves_a_master),
    TEST(stop_ends_the_master_first_and_then_the_rest),
    TEST(stop_kills_what_does_not_end),
    TEST(stop_in_the_middle_of_an_election_ends_everything),
    TEST(options_out_of_range_are_refused),
    TEST(the_largest_cluster_fits_its_action_list),
    {NULL, NULL},
};

int main(void)
{
	return unit_run("cluster", tests);
}

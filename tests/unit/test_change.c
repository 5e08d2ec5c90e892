/*
 * test_change.c - adding and removing members, as the supervisor's core decides it: each stage, and what comes between.
 */
#include <signal.h>
#include <string.h>

#include "tests/unit/cluster_rig.h"
#include "tests/unit/unit.h"

/* A cluster of node_count that serves, node 0 being its master; numbers up to slots may be used. */
static void serving(struct rig *r, unsigned node_count, unsigned slots)
{
	rig_init(r, node_count);
	r->slots = slots;
	rig_begin(r, true);
	rig_run(r, 250);
	CU_ASSERT_EQUAL_FATAL(rig_master(r), 0);
	rig_write(r, 0, 9);
	rig_run(r, 1000);
}

static enum members_state state_of(const struct rig *r, unsigned n)
{
	return r->persisted.entries[n].state;
}

/* The learner promises the term, and gets what the master has. */
static void catch_up(struct rig *r)
{
	rig_run(r, 200);
	rig_write(r, rig_master(r), 1);
	rig_run(r, 300);
}

static void drop(struct rig *r)
{
	rig_fini(r);
}

static void a_learner_catches_up_before_it_votes(void)
{
	struct rig r;

	serving(&r, 3, 4);
	rig_add(&r, 3, false);
	CU_ASSERT_EQUAL(state_of(&r, 3), MEMBERS_LEARNING);
	CU_ASSERT(r.nodes[3].running && !r.change_done);
	r.nodes[3].ready = false;
	rig_run(&r, 2000);
	CU_ASSERT_EQUAL(state_of(&r, 3), MEMBERS_LEARNING);
	r.nodes[3].ready = true;
	r.nodes[3].last = (struct wal_pos){0, 0};
	rig_run(&r, 2000);
	CU_ASSERT_EQUAL(state_of(&r, 3), MEMBERS_LEARNING); /* it streams, and has nothing yet */
	catch_up(&r);
	CU_ASSERT_EQUAL(state_of(&r, 3), MEMBERS_VOTER);
	CU_ASSERT(r.change_done && r.change_ok && strstr(r.change_text, "node4") != NULL);
	CU_ASSERT_EQUAL(r.persisted.version, 3);
	CU_ASSERT_EQUAL(r.nodes[0].committed.version, 3);
	drop(&r);
}

static void nothing_follows_before_the_log_has_the_version_before(void)
{
	struct rig r;

	serving(&r, 3, 4);
	r.commits = false;
	rig_add(&r, 3, false);
	rig_write(&r, 0, 1);
	r.nodes[0].committed.version = 0; /* what the rig has just committed is not the master's log's yet */
	rig_run(&r, 3000);
	CU_ASSERT_EQUAL(state_of(&r, 3), MEMBERS_LEARNING);
	r.commits = true;
	catch_up(&r);
	rig_run(&r, 500);
	CU_ASSERT_EQUAL(state_of(&r, 3), MEMBERS_VOTER);
	drop(&r);
}

static void a_joint_version_without_its_quorums_is_undone(void)
{
	struct rig r;

	serving(&r, 3, 4);
	rig_add(&r, 3, false);
	rig_run(&r, 50);
	r.nodes[3].promised_term = 1;
	r.commits = false; /* the learner's version is in the log, the joint one will not be */
	rig_write(&r, 0, 1);
	rig_run(&r, 400);
	CU_ASSERT_EQUAL_FATAL(state_of(&r, 3), MEMBERS_JOINING);
	CU_ASSERT_FALSE(r.change_done);
	rig_run(&r, CLUSTER_CHANGE_MS + 100);
	CU_ASSERT_EQUAL(state_of(&r, 3), MEMBERS_NONE);
	r.commits = true;
	rig_run(&r, 500);
	CU_ASSERT_EQUAL(r.nodes[3].killed, SIGTERM);
	rig_exit(&r, 3, 0, 0);
	CU_ASSERT(r.change_done && !r.change_ok && strstr(r.change_text, "not added") != NULL);
	drop(&r);
}

static void a_member_is_removed_and_its_directory_retired(void)
{
	struct rig r;

	serving(&r, 3, 3);
	rig_remove(&r, 2);
	CU_ASSERT_EQUAL(state_of(&r, 2), MEMBERS_LEAVING);
	rig_run(&r, 300);
	CU_ASSERT_EQUAL(state_of(&r, 2), MEMBERS_REMOVED);
	CU_ASSERT(r.nodes[2].killed == SIGTERM && !r.change_done && r.retired == 0);
	rig_run(&r, CLUSTER_STOP_MS);
	CU_ASSERT_EQUAL(r.nodes[2].killed, SIGKILL);
	rig_exit(&r, 2, -1, SIGKILL);
	CU_ASSERT(r.change_done && r.change_ok && r.retired == 1);
	rig_run(&r, 20000);
	CU_ASSERT_FALSE(r.nodes[2].running);
	rig_add(&r, 2, false); /* numbers are not used twice */
	CU_ASSERT(r.change_done && !r.change_ok);
	drop(&r);
}

static void one_change_at_a_time(void)
{
	struct rig r;

	serving(&r, 3, 5);
	rig_add(&r, 3, false);
	rig_add(&r, 4, false);
	CU_ASSERT(r.change_done && !r.change_ok && strstr(r.change_text, "node4 is being added") != NULL);
	CU_ASSERT_EQUAL(state_of(&r, 4), MEMBERS_NONE);
	rig_remove(&r, 1);
	CU_ASSERT(r.change_done && !r.change_ok);
	CU_ASSERT_EQUAL(state_of(&r, 1), MEMBERS_VOTER);
	catch_up(&r);
	CU_ASSERT_EQUAL(state_of(&r, 3), MEMBERS_VOTER);
	drop(&r);
}

static void removing_a_learner_undoes_its_addition(void)
{
	struct rig r;

	serving(&r, 3, 4);
	rig_add(&r, 3, false);
	rig_remove(&r, 3);
	CU_ASSERT(r.change_done && r.change_ok);
	r.change_done = false;
	CU_ASSERT_EQUAL(state_of(&r, 3), MEMBERS_NONE);
	rig_run(&r, 200);
	rig_exit(&r, 3, 0, 0);
	CU_ASSERT(r.change_done && !r.change_ok); /* the addition's own answer */
	rig_add(&r, 3, false);                    /* it never counted: its number is free */
	catch_up(&r);
	CU_ASSERT_EQUAL(state_of(&r, 3), MEMBERS_VOTER);
	drop(&r);
}

static void adding_what_is_being_removed_undoes_the_removal(void)
{
	struct rig r;

	serving(&r, 3, 3);
	r.commits = false;
	rig_remove(&r, 2);
	CU_ASSERT_EQUAL(state_of(&r, 2), MEMBERS_LEAVING);
	rig_add(&r, 2, false);
	CU_ASSERT(r.change_done && r.change_ok);
	CU_ASSERT_EQUAL(state_of(&r, 2), MEMBERS_VOTER);
	r.commits = true;
	rig_run(&r, 500);
	CU_ASSERT(r.nodes[2].running && r.nodes[2].killed == 0);
	drop(&r);
}

static void a_learner_that_cannot_start_is_given_up(void)
{
	struct rig r;
	int i;

	serving(&r, 3, 4);
	rig_add(&r, 3, false);
	for (i = 0; i < 20 && r.nodes[3].running; i++) {
		rig_exit(&r, 3, 1, 0);
		rig_run(&r, 4000);
	}
	CU_ASSERT_EQUAL(state_of(&r, 3), MEMBERS_NONE);
	CU_ASSERT(r.change_done && !r.change_ok && strstr(r.change_text, "exit code 1") != NULL);
	CU_ASSERT_FALSE(r.nodes[3].running);
	drop(&r);
}

/* As when the supervisor before had started it, and died before it could write that down. */
static void a_learner_whose_start_fails_once_is_started_again(void)
{
	struct cluster_event ev = {.type = CLUSTER_NODE_EXITED, .node = 3};
	struct rig r;

	ev.u.exited.code = -1;
	ev.u.exited.why = "a process that was not ours had its socket and was killed";
	serving(&r, 3, 4);
	rig_add(&r, 3, false);
	r.nodes[3].running = false;
	rig_step(&r, &ev);
	CU_ASSERT_EQUAL(state_of(&r, 3), MEMBERS_LEARNING);
	rig_run(&r, 1000);
	CU_ASSERT(r.nodes[3].running);
	catch_up(&r);
	CU_ASSERT_EQUAL(state_of(&r, 3), MEMBERS_VOTER);
	drop(&r);
}

static void a_learner_may_end_for_its_snapshot(void)
{
	struct rig r;
	int i;

	serving(&r, 3, 4);
	rig_add(&r, 3, false);
	for (i = 0; i < 8; i++) {
		rig_exit(&r, 3, 0, 0);
		rig_run(&r, 10000);
		CU_ASSERT(r.nodes[3].running);
	}
	catch_up(&r);
	CU_ASSERT_EQUAL(state_of(&r, 3), MEMBERS_VOTER);
	drop(&r);
}

static void the_master_hands_over_before_it_is_removed(void)
{
	struct rig r;

	serving(&r, 3, 3);
	rig_remove(&r, 0);
	CU_ASSERT_EQUAL(state_of(&r, 0), MEMBERS_VOTER);
	r.switchover_done = false;
	rig_run(&r, 1000);
	CU_ASSERT_FALSE(r.switchover_done); /* nobody asked for one */
	CU_ASSERT(rig_master(&r) == 1 || rig_master(&r) == 2);
	CU_ASSERT_EQUAL(state_of(&r, 0), MEMBERS_REMOVED);
	rig_exit(&r, 0, 0, 0);
	CU_ASSERT(r.change_done && r.change_ok);
	drop(&r);
}

static void a_master_that_cannot_hand_over_stays(void)
{
	struct rig r;

	serving(&r, 3, 3);
	r.nodes[1].state = r.nodes[2].state = WIRE_STATE_CATCHING_UP;
	r.nodes[1].lag_ms = r.nodes[2].lag_ms = 5000;
	rig_run(&r, 300);
	rig_remove(&r, 0);
	rig_run(&r, 300);
	CU_ASSERT(r.change_done && !r.change_ok && strstr(r.change_text, "switch over") != NULL);
	CU_ASSERT(rig_master(&r) == 0 && state_of(&r, 0) == MEMBERS_VOTER);
	drop(&r);
}

static void removals_that_leave_no_quorum_are_refused(void)
{
	struct rig r;

	serving(&r, 1, 1);
	rig_remove(&r, 0);
	CU_ASSERT(r.change_done && !r.change_ok && strstr(r.change_text, "only voting") != NULL);
	drop(&r);
	serving(&r, 3, 3);
	r.nodes[1].hung = true;
	rig_run(&r, 1000);
	rig_remove(&r, 2);
	CU_ASSERT(r.change_done && !r.change_ok && strstr(r.change_text, "quorum") != NULL);
	rig_remove(&r, 1); /* the one that is away may go */
	CU_ASSERT_EQUAL(state_of(&r, 1), MEMBERS_LEAVING);
	drop(&r);
}

static void a_readonly_member_is_never_elected_nor_waited_for(void)
{
	struct rig r;

	serving(&r, 2, 4);
	rig_add(&r, 2, true);
	catch_up(&r);
	CU_ASSERT_EQUAL(state_of(&r, 2), MEMBERS_READONLY);
	rig_add(&r, 3, true);
	catch_up(&r);
	rig_write(&r, 0, 1);
	r.nodes[2].last.lsn += 5; /* as good as it may look */
	rig_switchover(&r, 2);
	CU_ASSERT(r.switchover_done && !r.switchover_ok);
	r.nodes[1].hung = true;
	rig_exit(&r, 0, -1, SIGKILL);
	r.nodes[0].hung = true;
	rig_run(&r, 5000);
	CU_ASSERT_EQUAL(rig_master(&r), CLUSTER_NOBODY); /* two promises of readers are none */
	drop(&r);
}

static void a_new_supervisor_goes_on_with_the_change(void)
{
	struct rig r;

	serving(&r, 3, 4);
	rig_add(&r, 3, false);
	rig_run(&r, 200);
	rig_new_core(&r);
	rig_begin(&r, false);
	rig_run(&r, 500);
	CU_ASSERT_EQUAL(state_of(&r, 3), MEMBERS_LEARNING);
	r.commits = false;
	rig_write(&r, 0, 1);
	rig_run(&r, 400);
	CU_ASSERT_EQUAL_FATAL(state_of(&r, 3), MEMBERS_JOINING);
	rig_new_core(&r);
	rig_begin(&r, false);
	r.commits = true;
	rig_run(&r, 1000);
	CU_ASSERT_EQUAL(state_of(&r, 3), MEMBERS_VOTER);
	rig_remove(&r, 1);
	rig_run(&r, 200);
	CU_ASSERT_EQUAL(state_of(&r, 1), MEMBERS_REMOVED);
	r.nodes[1].killed = 0;
	rig_new_core(&r);
	rig_begin(&r, false); /* which finds its process */
	rig_run(&r, 200);
	CU_ASSERT_EQUAL(r.nodes[1].killed, SIGTERM);
	rig_exit(&r, 1, 0, 0);
	CU_ASSERT(r.retired > 0);
	drop(&r);
}

static void a_version_that_cannot_be_stored_is_not_followed(void)
{
	struct rig r;

	serving(&r, 3, 4);
	r.persist_fails = true;
	rig_add(&r, 3, false);
	CU_ASSERT(r.change_done && !r.change_ok && strstr(r.change_text, "stored") != NULL);
	r.persist_fails = false;
	rig_run(&r, 1000);
	if (r.nodes[3].running)
		rig_exit(&r, 3, 0, 0);
	rig_run(&r, 1000);
	CU_ASSERT_FALSE(r.nodes[3].running);
	CU_ASSERT_EQUAL(r.persisted.version, 0);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	rig_add(&r, 3, false);
	catch_up(&r);
	CU_ASSERT_EQUAL(state_of(&r, 3), MEMBERS_VOTER);
	drop(&r);
}

static void the_log_corrects_a_supervisor_with_an_old_file(void)
{
	struct members old;
	struct rig r;
	unsigned n;

	serving(&r, 3, 5);
	old = r.persisted;
	rig_add(&r, 3, false);
	catch_up(&r);
	rig_add(&r, 4, false);
	catch_up(&r);
	CU_ASSERT_EQUAL(members_voters(&r.persisted), 5);
	for (n = 0; n < 5; n++)
		r.nodes[n].committed = r.nodes[n].in_log;
	r.persisted = old;
	rig_new_core(&r);
	rig_begin(&r, false);
	rig_run(&r, 500);
	CU_ASSERT_EQUAL(members_voters(&r.persisted), 5);
	CU_ASSERT(r.nodes[4].running && rig_master(&r) == 0);
	drop(&r);
}

static void an_election_in_between_needs_both_sets(void)
{
	struct rig r;

	serving(&r, 2, 4);
	r.commits = false;
	rig_add(&r, 2, false);
	rig_run(&r, 50);
	r.nodes[2].promised_term = 1;
	r.nodes[0].committed = r.nodes[0].in_log;
	rig_write(&r, 0, 1);
	rig_run(&r, 400);
	CU_ASSERT_EQUAL_FATAL(state_of(&r, 2), MEMBERS_JOINING);
	r.nodes[0].accepts = false;
	r.nodes[2].hung = true;
	rig_exit(&r, 0, -1, SIGKILL);
	rig_run(&r, 2000);
	/* node2's promise is enough of the two old voters, not of the three new ones */
	CU_ASSERT_EQUAL(rig_master(&r), CLUSTER_NOBODY);
	r.nodes[2].hung = false;
	r.nodes[0].accepts = r.commits = true;
	rig_run(&r, 3000);
	CU_ASSERT(rig_master(&r) != CLUSTER_NOBODY);
	drop(&r);
}

/* node2 is to leave node1 alone, whose disk is found damaged: it cannot be elected, and is no master to be rebuilt from. */
static void a_removal_that_keeps_an_election_from_deciding_is_undone(void)
{
	struct rig r;

	serving(&r, 2, 2);
	r.commits = false;
	rig_remove(&r, 1);
	CU_ASSERT_EQUAL_FATAL(state_of(&r, 1), MEMBERS_LEAVING);
	r.nodes[0].state = WIRE_STATE_DIVERGED;
	r.nodes[0].last = (struct wal_pos){0, 0};
	r.nodes[0].accepts = false;
	rig_exit(&r, 0, -1, SIGKILL);
	rig_run(&r, CLUSTER_CHANGE_MS - 2000);
	CU_ASSERT_EQUAL(rig_master(&r), CLUSTER_NOBODY);
	CU_ASSERT_EQUAL(state_of(&r, 1), MEMBERS_LEAVING);
	CU_ASSERT_PTR_NOT_NULL(strstr(rig_reason(&r), "0 of 1 promises of the new voters"));
	r.commits = true;
	rig_run(&r, 4000);
	CU_ASSERT_EQUAL(rig_master(&r), 1);
	CU_ASSERT_EQUAL(state_of(&r, 1), MEMBERS_VOTER);
	CU_ASSERT(r.change_done && !r.change_ok);
	CU_ASSERT_PTR_NOT_NULL(strstr(r.change_text, "node2 was not removed"));
	drop(&r);
}

/* Nothing is undone for an election that the old voters could not decide either. */
static void an_election_without_old_voters_undoes_nothing(void)
{
	struct rig r;

	serving(&r, 3, 3);
	r.commits = false;
	rig_remove(&r, 2);
	CU_ASSERT_EQUAL_FATAL(state_of(&r, 2), MEMBERS_LEAVING);
	r.nodes[1].accepts = r.nodes[2].accepts = false;
	rig_exit(&r, 0, -1, SIGKILL);
	rig_run(&r, CLUSTER_CHANGE_MS + 4000);
	CU_ASSERT_EQUAL(rig_master(&r), CLUSTER_NOBODY);
	CU_ASSERT_EQUAL(state_of(&r, 2), MEMBERS_LEAVING);
	r.nodes[1].accepts = r.nodes[2].accepts = r.commits = true;
	rig_run(&r, 4000);
	CU_ASSERT(rig_master(&r) != CLUSTER_NOBODY);
	CU_ASSERT_EQUAL(state_of(&r, 2), MEMBERS_REMOVED);
	drop(&r);
}

static const struct unit_test tests[] = {
    {"a_learner_catches_up_before_it_votes", a_learner_catches_up_before_it_votes},
    {"nothing_follows_before_the_log_has_the_version_before", nothing_follows_before_the_log_has_the_version_before},
    {"a_joint_version_without_its_quorums_is_undone", a_joint_version_without_its_quorums_is_undone},
    {"a_member_is_removed_and_its_directory_retired", a_member_is_removed_and_its_directory_retired},
    {"one_change_at_a_time", one_change_at_a_time},
    {"removing_a_learner_undoes_its_addition", removing_a_learner_undoes_its_addition},
    {"adding_what_is_being_removed_undoes_the_removal", adding_what_is_being_removed_undoes_the_removal},
    {"a_learner_that_cannot_start_is_given_up", a_learner_that_cannot_start_is_given_up},
    {"a_learner_whose_start_fails_once_is_started_again", a_learner_whose_start_fails_once_is_started_again},
    {"a_learner_may_end_for_its_snapshot", a_learner_may_end_for_its_snapshot},
    {"the_master_hands_over_before_it_is_removed", the_master_hands_over_before_it_is_removed},
    {"a_master_that_cannot_hand_over_stays", a_master_that_cannot_hand_over_stays},
    {"removals_that_leave_no_quorum_are_refused", removals_that_leave_no_quorum_are_refused},
    {"a_readonly_member_is_never_elected_nor_waited_for", a_readonly_member_is_never_elected_nor_waited_for},
    {"a_new_supervisor_goes_on_with_the_change", a_new_supervisor_goes_on_with_the_change},
    {"a_version_that_cannot_be_stored_is_not_followed", a_version_that_cannot_be_stored_is_not_followed},
    {"the_log_corrects_a_supervisor_with_an_old_file", the_log_corrects_a_supervisor_with_an_old_file},
    {"an_election_in_between_needs_both_sets", an_election_in_between_needs_both_sets},
    {"a_removal_that_keeps_an_election_from_deciding_is_undone",
     a_removal_that_keeps_an_election_from_deciding_is_undone},
    {"an_election_without_old_voters_undoes_nothing", an_election_without_old_voters_undoes_nothing},
    {NULL, NULL},
};

int main(void)
{
	return unit_run("change", tests);
}

/* test_commit.c - commit tracking, and where two logs join: the pure deciding code of the master. */
#include "master/commit.h"
#include "master/join.h"
#include "master/member_versions.h"
#include "tests/unit/unit.h"

static struct commit *tracking(size_t nodes, size_t acks, uint64_t start)
{
	struct errmsg em = {0};
	struct commit *c = NULL;

	UNIT_OK(commit_create(&c, nodes, acks, start, &em), &em);
	return c;
}

static void test_commits_when_a_quorum_holds_it(void)
{
	struct commit *c = tracking(3, 2, 1);

	CU_ASSERT_EQUAL(commit_on_durable(c, 0, 5), 0);
	CU_ASSERT_EQUAL(commit_on_durable(c, 1, 3), 3);
	CU_ASSERT_EQUAL(commit_on_durable(c, 2, 4), 4);
	CU_ASSERT_EQUAL(commit_on_durable(c, 1, 9), 5);
	commit_free(c);
}

static void test_replicas_alone_may_commit_before_our_own_sync(void)
{
	struct commit *c = tracking(3, 2, 1);

	CU_ASSERT_EQUAL(commit_on_durable(c, 1, 7), 0);
	CU_ASSERT_EQUAL(commit_on_durable(c, 2, 7), 7);
	commit_free(c);
}

static void test_all_waits_for_the_slowest(void)
{
	struct commit *c = tracking(3, 3, 1);

	commit_on_durable(c, 0, 9);
	CU_ASSERT_EQUAL(commit_on_durable(c, 1, 9), 0);
	CU_ASSERT_EQUAL(commit_on_durable(c, 2, 2), 2);
	commit_free(c);
}

static void test_a_single_node_commits_by_itself(void)
{
	struct commit *c = tracking(1, 1, 1);

	CU_ASSERT_EQUAL(commit_on_durable(c, 0, 4), 4);
	commit_free(c);
}

static void test_two_sets_must_both_hold_it(void)
{
	static const struct members_quorum joint[2] = {{0x7, 2}, {0xf, 3}};
	static const struct members_quorum new_set = {0xf, 3}, old_set = {0x7, 2};
	struct commit *c = tracking(4, 4, 1);

	CU_ASSERT_EQUAL(commit_set_quorums(c, &old_set, 1), 0);
	commit_on_durable(c, 0, 9);
	CU_ASSERT_EQUAL(commit_on_durable(c, 1, 5), 5);
	CU_ASSERT_EQUAL(commit_set_quorums(c, joint, 2), 5); /* never back */
	CU_ASSERT_EQUAL(commit_on_durable(c, 1, 7), 5);      /* enough of the old, not of the new */
	CU_ASSERT_EQUAL(commit_on_durable(c, 3, 8), 7);
	CU_ASSERT_EQUAL(commit_on_durable(c, 3, 9), 7);
	CU_ASSERT_EQUAL(commit_on_durable(c, 2, 8), 8);
	CU_ASSERT_EQUAL(commit_set_quorums(c, &new_set, 1), 8);
	CU_ASSERT_EQUAL(commit_on_durable(c, 1, 9), 9);
	commit_free(c);
}

static void test_fewer_voters_may_commit_more(void)
{
	static const struct members_quorum after = {0x3, 2};
	struct commit *c = tracking(3, 3, 1);

	commit_on_durable(c, 0, 9);
	CU_ASSERT_EQUAL(commit_on_durable(c, 1, 8), 0);
	CU_ASSERT_EQUAL(commit_set_quorums(c, &after, 1), 8);
	commit_free(c);
}

static void test_those_who_do_not_vote_do_not_count(void)
{
	static const struct members_quorum voters = {0x5, 2};
	struct commit *c = tracking(4, 2, 1);

	commit_set_quorums(c, &voters, 1);
	commit_on_durable(c, 0, 9);
	commit_on_durable(c, 1, 9);
	CU_ASSERT_EQUAL(commit_on_durable(c, 3, 9), 0);
	CU_ASSERT_EQUAL(commit_on_durable(c, 2, 4), 4);
	commit_free(c);
}

static void test_a_node_that_was_replaced_begins_with_nothing(void)
{
	struct commit *c = tracking(3, 2, 1);

	commit_on_durable(c, 1, 9);
	commit_forget(c, 1);
	CU_ASSERT_EQUAL(commit_durable_lsn(c, 1), 0);
	CU_ASSERT_EQUAL(commit_on_durable(c, 0, 9), 0);
	CU_ASSERT_EQUAL(commit_on_durable(c, 1, 3), 3);
	commit_free(c);
}

static void test_commit_waits_for_a_record_of_its_own_term(void)
{
	struct commit *c = tracking(3, 2, 10);

	commit_on_durable(c, 0, 10);
	CU_ASSERT_EQUAL(commit_on_durable(c, 1, 9), 0); /* a majority holds 9, but 10 begins our term */
	CU_ASSERT_EQUAL(commit_on_durable(c, 1, 10), 10);
	commit_free(c);
}

static void test_late_and_repeated_acks_change_nothing(void)
{
	struct commit *c = tracking(3, 2, 1);

	commit_on_durable(c, 0, 5);
	CU_ASSERT_EQUAL(commit_on_durable(c, 1, 5), 5);
	CU_ASSERT_EQUAL(commit_on_durable(c, 1, 2), 5);
	CU_ASSERT_EQUAL(commit_on_durable(c, 1, 5), 5);
	CU_ASSERT_EQUAL(commit_durable_lsn(c, 1), 5);
	commit_free(c);
}

static void test_impossible_quorums_are_refused(void)
{
	struct errmsg em = {0};
	struct commit *c;

	CU_ASSERT_EQUAL(commit_create(&c, 3, 4, 1, &em), DB_INVALID);
	CU_ASSERT_EQUAL(commit_create(&c, 0, 0, 1, &em), DB_INVALID);
	CU_ASSERT_EQUAL(commit_create(&c, COMMIT_NODES_MAX + 1, 2, 1, &em), DB_INVALID);
	CU_ASSERT_PTR_NULL(c);
}

static void check_join(const struct join_log *master, const struct join_log *replica, bool joins, uint64_t expected)
{
	uint64_t lsn = 0;

	CU_ASSERT_EQUAL(join_find(master, replica, &lsn), joins);
	if (joins)
		CU_ASSERT_EQUAL(lsn, expected);
}

static void test_logs_join_at_the_end_of_the_shorter_common_term(void)
{
	const struct wal_pos one_two[] = {{1, 1}, {2, 6}}, one_three[] = {{1, 1}, {3, 9}}, one[] = {{1, 1}};
	const struct join_log master = {one_two, 2, 8};
	const struct join_log behind = {one, 1, 3}, equal = {one_two, 2, 8}, deposed = {one, 1, 9};
	const struct join_log ahead = {one_two, 2, 12}, other = {one_three, 2, 11};

	check_join(&master, &behind, true, 3);
	check_join(&master, &equal, true, 8);
	check_join(&master, &deposed, true, 5); /* records 6..9 of term 1 were never ours */
	check_join(&master, &ahead, true, 8);
	check_join(&master, &other, true, 5);
}

static void test_an_empty_log_joins_at_the_start(void)
{
	const struct wal_pos one[] = {{1, 1}};
	const struct join_log master = {one, 1, 8}, empty = {NULL, 0, 0};

	check_join(&master, &empty, true, 0);
	check_join(&empty, &empty, true, 0);
}

static void test_logs_without_a_common_term_do_not_join(void)
{
	const struct wal_pos four[] = {{4, 90}}, one[] = {{1, 1}};
	const struct join_log master = {four, 1, 99}, old = {one, 1, 50};

	check_join(&master, &old, false, 0);
}

static struct members version_of(uint64_t version)
{
	struct members m = {.version = version};

	m.entries[0] = (struct members_entry){MEMBERS_VOTER, 1, 2, 3};
	m.entries[1].state = version % 2 == 0 ? MEMBERS_NONE : MEMBERS_READONLY;
	return m;
}

static void test_members_are_written_once_and_until_committed(void)
{
	const struct members two = version_of(2), three = version_of(3);
	struct member_versions v;
	struct errmsg em = {0};
	bool newer = true;

	member_versions_init(&v, &two);
	CU_ASSERT_EQUAL(member_versions_told(&v, &two, &newer, &em), DB_OK);
	CU_ASSERT_FALSE(newer);
	CU_ASSERT_TRUE(member_versions_begin_write(&v));
	CU_ASSERT_FALSE(member_versions_begin_write(&v)); /* it is under way */
	member_versions_end_write(&v, false);
	CU_ASSERT_EQUAL(v.committed.version, 0);
	CU_ASSERT_TRUE(member_versions_begin_write(&v)); /* again */
	CU_ASSERT_EQUAL(member_versions_told(&v, &three, &newer, &em), DB_OK);
	CU_ASSERT_TRUE(newer);
	member_versions_set(&v, &three);
	CU_ASSERT_FALSE(member_versions_begin_write(&v)); /* the one before is */
	member_versions_end_write(&v, true);
	CU_ASSERT_EQUAL(v.committed.version, 2); /* what was written, not what is in force by now */
	CU_ASSERT_TRUE(member_versions_begin_write(&v));
	member_versions_end_write(&v, true);
	CU_ASSERT_EQUAL(v.committed.version, 3);
	CU_ASSERT_FALSE(member_versions_begin_write(&v));
	CU_ASSERT_EQUAL(member_versions_told(&v, &two, &newer, &em), DB_STALE_TERM);
	CU_ASSERT_FALSE(newer);
}

static void test_members_of_the_log_are_committed_with_the_term(void)
{
	const struct members none = {.version = 0}, two = version_of(2), three = version_of(3);
	struct member_versions v;
	struct errmsg em = {0};

	member_versions_init(&v, &two);
	CU_ASSERT_EQUAL(member_versions_found(&v, &none, &em), DB_OK);
	CU_ASSERT_EQUAL(member_versions_found(&v, &three, &em), DB_INVALID); /* the supervisor's file is older */
	member_versions_init(&v, &three);
	CU_ASSERT_EQUAL(member_versions_found(&v, &three, &em), DB_OK);
	CU_ASSERT_FALSE(member_versions_begin_write(&v)); /* it is there */
	CU_ASSERT_EQUAL(v.committed.version, 0);          /* but only that */
	member_versions_on_ready(&v);
	CU_ASSERT_EQUAL(v.committed.version, 3);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"commits when a quorum holds it", test_commits_when_a_quorum_holds_it},
	    {"replicas alone may commit before our own sync", test_replicas_alone_may_commit_before_our_own_sync},
	    {"all waits for the slowest", test_all_waits_for_the_slowest},
	    {"a single node commits by itself", test_a_single_node_commits_by_itself},
	    {"two sets must both hold it", test_two_sets_must_both_hold_it},
	    {"fewer voters may commit more", test_fewer_voters_may_commit_more},
	    {"those who do not vote do not count", test_those_who_do_not_vote_do_not_count},
	    {"a node that was replaced begins with nothing", test_a_node_that_was_replaced_begins_with_nothing},
	    {"commit waits for a record of its own term", test_commit_waits_for_a_record_of_its_own_term},
	    {"late and repeated acks change nothing", test_late_and_repeated_acks_change_nothing},
	    {"impossible quorums are refused", test_impossible_quorums_are_refused},
	    {"logs join at the end of the shorter common term", test_logs_join_at_the_end_of_the_shorter_common_term},
	    {"an empty log joins at the start", test_an_empty_log_joins_at_the_start},
	    {"logs without a common term do not join", test_logs_without_a_common_term_do_not_join},
	    {"members are written once, and until committed", test_members_are_written_once_and_until_committed},
	    {"members of the log are committed with the term", test_members_of_the_log_are_committed_with_the_term},
	    {NULL, NULL},
	};

	return unit_run("commit", tests);
}

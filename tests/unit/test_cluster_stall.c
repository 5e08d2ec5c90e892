/*
 * test_cluster_stall.c - members that answer though their disk, or the thread that writes their log, stands still.
 *
 * The rig (tests/unit/cluster_rig.h) checks the safety rules at each action of every test.
 */
#include "supervisor/cluster.h"

#include <signal.h>
#include <string.h>

#include "tests/unit/cluster_rig.h"
#include "tests/unit/unit.h"

static struct cluster_node_view look(struct rig *r, unsigned n)
{
	struct cluster_node_view v;

	cluster_node_view(r->c, n, r->now_ms, &v);
	return v;
}

static void disk_hangs(struct rig *r, unsigned n, uint64_t ms)
{
	r->nodes[n].disk_busy_ms = ms;
	r->nodes[n].disk_age_ms = ms + 10;
}

static void a_master_whose_disk_hangs_is_killed_and_succeeded(void)
{
	struct rig r;
	uint64_t failovers;

	rig_serve(&r, 3);
	failovers = r.failovers;
	disk_hangs(&r, 0, 2999);
	rig_run(&r, 300);
	CU_ASSERT_EQUAL(r.nodes[0].killed, 0);
	disk_hangs(&r, 0, 3000);
	rig_run(&r, 150);
	CU_ASSERT_EQUAL(r.nodes[0].killed, SIGKILL);
	CU_ASSERT_STRING_EQUAL(look(&r, 0).state, "hung");
	CU_ASSERT_PTR_NOT_NULL(strstr(look(&r, 0).reason, "its disk has not completed a write for 3.0 s"));
	rig_run(&r, 500); /* it is in an uninterruptible wait: nobody is promoted before it is gone */
	CU_ASSERT_EQUAL(rig_master(&r), CLUSTER_NOBODY);
	CU_ASSERT_PTR_NOT_NULL(strstr(rig_reason(&r), "ends when that answers"));
	rig_exit(&r, 0, -1, SIGKILL);
	rig_run(&r, 500);
	CU_ASSERT(rig_master(&r) == 1 || rig_master(&r) == 2);
	CU_ASSERT_EQUAL(r.failovers, failovers + 1);
	rig_fini(&r);
}

static void an_old_operation_beside_fresh_syncs_is_no_hang(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[0].disk_busy_ms = 60000; /* a long one: a checkpoint's, say */
	r.nodes[0].disk_age_ms = 5;
	rig_run(&r, 1000);
	CU_ASSERT_EQUAL(r.nodes[0].killed, 0);
	r.nodes[0].disk_busy_ms =
	    0; /* and nothing under way is none either, however old the last sync: nobody was scheduled */
	r.nodes[0].disk_age_ms = 60000;
	rig_run(&r, 1000);
	CU_ASSERT_EQUAL(r.nodes[0].killed, 0);
	CU_ASSERT_STRING_EQUAL(look(&r, 0).state, "up");
	rig_fini(&r);
}

static void a_disk_that_hangs_below_all_of_them_ends_nobody(void)
{
	struct rig r;

	rig_serve(&r, 3);
	disk_hangs(&r, 0, 3500);
	disk_hangs(&r, 1, 2500); /* not found out yet, but no better */
	disk_hangs(&r, 2, 2500);
	rig_run(&r, 300);
	CU_ASSERT_EQUAL(r.nodes[0].killed, 0);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	CU_ASSERT_STRING_EQUAL(look(&r, 0).state, "hung");
	r.nodes[1].disk_busy_ms = r.nodes[1].disk_age_ms = 0; /* two nodes are enough for a successor and its quorum */
	r.nodes[2].disk_busy_ms = r.nodes[2].disk_age_ms = 0;
	rig_run(&r, 250);
	CU_ASSERT_EQUAL(r.nodes[0].killed, 0); /* its own may come back as well, and its answer be on its way */
	rig_run(&r, 400);
	CU_ASSERT_EQUAL(r.nodes[0].killed, SIGKILL);
	rig_fini(&r);
}

static void a_single_node_is_left_alone_and_told_of(void)
{
	struct rig r;

	rig_serve(&r, 1);
	disk_hangs(&r, 0, 12345);
	rig_run(&r, 30000);
	CU_ASSERT_EQUAL(r.nodes[0].killed, 0);
	CU_ASSERT_STRING_EQUAL(look(&r, 0).state, "hung");
	CU_ASSERT_PTR_NOT_NULL(strstr(look(&r, 0).reason, "12.3 s"));
	disk_hangs(&r, 0, 0);
	rig_run(&r, 300);
	CU_ASSERT_STRING_EQUAL(look(&r, 0).state, "up");
	CU_ASSERT_STRING_EQUAL(look(&r, 0).reason, "");
	rig_fini(&r);
}

static void a_replica_whose_disk_hangs_is_left_alone(void)
{
	struct rig r;

	rig_serve(&r, 3);
	disk_hangs(&r, 1, 60000);
	r.nodes[1].stuck_ms = 60000; /* its thread waits for that disk */
	rig_run(&r, 60000);
	CU_ASSERT_EQUAL(r.nodes[1].killed, 0);
	CU_ASSERT_STRING_EQUAL(look(&r, 1).state, "hung");
	rig_fini(&r);
}

static void a_thread_that_stands_still_is_a_masters_end(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[0].stuck_ms = 2900;
	rig_run(&r, 300);
	CU_ASSERT_EQUAL(r.nodes[0].killed, 0);
	r.nodes[0].stuck_ms = 3100;
	rig_run(&r, 150);
	CU_ASSERT_EQUAL(r.nodes[0].killed, SIGKILL);
	CU_ASSERT_PTR_NOT_NULL(strstr(look(&r, 0).reason, "has stood still for 3.1 s"));
	rig_fini(&r);
}

static void a_replicas_thread_that_stands_still_is_killed_later(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[2].stuck_ms = 3100;
	rig_run(&r, 1000);
	CU_ASSERT_EQUAL(r.nodes[2].killed, 0);
	CU_ASSERT_STRING_EQUAL(look(&r, 2).state, "hung");
	r.nodes[2].stuck_ms = 3000 + CLUSTER_REPLICA_HUNG_MS;
	rig_run(&r, 150);
	CU_ASSERT_EQUAL(r.nodes[2].killed, SIGKILL);
	rig_fini(&r);
}

static void without_a_budget_nobody_is_stalled(void)
{
	struct rig r;

	rig_init(&r, 3);
	r.opt.stall_ms = 0;
	rig_new_core(&r);
	rig_begin(&r, true);
	rig_run(&r, 500);
	disk_hangs(&r, 0, 60000);
	rig_run(&r, 5000);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	CU_ASSERT_STRING_EQUAL(look(&r, 0).state, "up");
	rig_fini(&r);
}

#define TEST(name)                                                                                                     \
	{                                                                                                              \
#name, name                                                                                            \
	}

static const struct unit_test tests[] = {
    TEST(a_master_whose_disk_hangs_is_killed_and_succeeded),
    TEST(an_old_operation_beside_fresh_syncs_is_no_hang),
    TEST(a_disk_that_hangs_below_all_of_them_ends_nobody),
    TEST(a_single_node_is_left_alone_and_told_of),
    TEST(a_replica_whose_disk_hangs_is_left_alone),
    TEST(a_thread_that_stands_still_is_a_masters_end),
    TEST(a_replicas_thread_that_stands_still_is_killed_later),
    TEST(without_a_budget_nobody_is_stalled),
    {NULL, NULL},
};

int main(void)
{
	return unit_run("cluster_stall", tests);
}

/*
 * test_cluster_notes.c - what the cluster core tells: the timeline's notes, measured outages, why there is no master.
 */
#include "supervisor/cluster.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/cluster_rig.h"
#include "tests/unit/unit.h"

static bool reason_has(struct rig *r, const char *text)
{
	char reason[CLUSTER_REASON_MAX];

	cluster_reason(r->c, r->now_ms, reason, sizeof(reason));
	if (strstr(reason, text) != NULL)
		return true;
	fprintf(stderr, "no \"%s\" in \"%s\"\n", text, reason);
	return false;
}

static void an_outage_is_measured_from_its_detection_and_from_the_last_heartbeat(void)
{
	struct rig r;

	rig_serve(&r, 3);
	CU_ASSERT_EQUAL(r.notes[TIMELINE_MASTER_READY].count, 1);
	CU_ASSERT_EQUAL(r.notes[TIMELINE_MASTER_READY].note.outage_ms, TIMELINE_NONE); /* a start is no outage */
	r.now_ms += 40;                                                                /* since the last answers */
	rig_exit(&r, 0, -1, SIGKILL);
	CU_ASSERT_EQUAL(r.notes[TIMELINE_NODE_EXIT].note.signal, SIGKILL);
	CU_ASSERT_EQUAL(r.notes[TIMELINE_MASTER_LOST].node, 0);
	CU_ASSERT_EQUAL(r.notes[TIMELINE_ELECTION].note.term, 2);
	r.now_ms += 7;
	rig_answer(&r, 1);
	rig_answer(&r, 2);
	CU_ASSERT_EQUAL(r.notes[TIMELINE_CANDIDATE].count, 3);
	CU_ASSERT_EQUAL(r.notes[TIMELINE_PROMOTION].node, 1);
	r.now_ms += 4;
	rig_answer(&r, 1);
	CU_ASSERT_EQUAL_FATAL(rig_master(&r), 1);
	CU_ASSERT_EQUAL(r.notes[TIMELINE_MASTER_READY].node, 1);
	CU_ASSERT_EQUAL(r.notes[TIMELINE_MASTER_READY].note.outage_ms, 11);
	CU_ASSERT(r.notes[TIMELINE_MASTER_READY].note.outage_heard_ms >= 51);
	CU_ASSERT_PTR_NOT_NULL(strstr(r.notes[TIMELINE_MASTER_READY].text, "signal 9"));
	rig_fini(&r);
}

/* The promoted successor dies as well: clients have waited since the first loss. */
static void an_outage_lasts_until_somebody_serves(void)
{
	struct rig r;

	rig_serve(&r, 5);
	rig_exit(&r, 0, -1, SIGKILL);
	r.now_ms += 5;
	rig_answer(&r, 1);
	rig_answer(&r, 2);
	rig_answer(&r, 3);
	rig_answer(&r, 4);
	CU_ASSERT_EQUAL_FATAL(r.promoted, 1);
	r.now_ms += 5;
	rig_exit(&r, 1, -1, SIGKILL);
	r.now_ms += 5;
	rig_run(&r, 2000);
	CU_ASSERT(rig_master(&r) != CLUSTER_NOBODY);
	CU_ASSERT_EQUAL(r.failovers, 1); /* one outage */
	CU_ASSERT_EQUAL(r.notes[TIMELINE_MASTER_LOST].count, 2);
	CU_ASSERT(r.notes[TIMELINE_MASTER_READY].note.outage_ms >= 15);
	rig_fini(&r);
}

static void a_first_master_that_dies_before_it_was_seen_ready_is_a_failover(void)
{
	struct rig r;

	rig_init(&r, 3);
	rig_begin(&r, true);
	rig_exit(&r, 0, -1, SIGKILL); /* it may have served meanwhile */
	rig_run(&r, 1000);
	CU_ASSERT(rig_master(&r) != CLUSTER_NOBODY);
	CU_ASSERT_EQUAL(r.failovers, 1);
	rig_fini(&r);
}

static void a_hung_master_is_suspected_killed_and_its_end_confirmed(void)
{
	struct rig r;

	rig_serve(&r, 3);
	r.nodes[0].hung = true;
	rig_run(&r, 500);
	CU_ASSERT_EQUAL(r.notes[TIMELINE_HEARTBEAT_MISSED].node, 0);
	CU_ASSERT(r.notes[TIMELINE_HEARTBEAT_MISSED].note.silent_ms >= 200);
	CU_ASSERT_EQUAL(r.notes[TIMELINE_NODE_KILLED].node, 0);
	if (r.nodes[0].running) {
		CU_ASSERT(reason_has(&r, "node1 is being killed"));
		rig_exit(&r, 0, -1, SIGKILL);
	}
	CU_ASSERT(r.notes[TIMELINE_FENCED].count >= 1);
	rig_run(&r, 500);
	CU_ASSERT(rig_master(&r) != CLUSTER_NOBODY);
	rig_fini(&r);
}

static void a_switchover_is_told_with_the_time_writes_were_held(void)
{
	struct rig r;

	rig_serve(&r, 3);
	rig_switchover(&r, 2);
	rig_run(&r, 1000);
	CU_ASSERT_EQUAL_FATAL(rig_master(&r), 2);
	CU_ASSERT_EQUAL(r.notes[TIMELINE_SWITCHOVER_BEGIN].count, 1);
	CU_ASSERT_EQUAL(r.notes[TIMELINE_SWITCHOVER_END].count, 1);
	CU_ASSERT_NOT_EQUAL(r.notes[TIMELINE_MASTER_READY].note.outage_ms, TIMELINE_NONE);
	CU_ASSERT_PTR_NOT_NULL(strstr(r.notes[TIMELINE_MASTER_READY].text, "writes were held"));
	rig_fini(&r);
}

static void the_reason_names_every_node_that_is_missing(void)
{
	struct rig r;

	rig_serve(&r, 3);
	CU_ASSERT(reason_has(&r, ""));
	r.nodes[2].hung = true;
	rig_exit(&r, 0, 2, 0);
	rig_exit(&r, 1, 2, 0); /* configuration errors: restarted slowly */
	rig_run_silent(&r, 400);
	CU_ASSERT_EQUAL(rig_master(&r), CLUSTER_NOBODY);
	CU_ASSERT(reason_has(&r, "waits for enough nodes, 0 of the 2 needed promised"));
	CU_ASSERT(reason_has(&r, "node1 is down (configuration error"));
	CU_ASSERT(reason_has(&r, "restarts in"));
	CU_ASSERT(reason_has(&r, "node3 "));
	CU_ASSERT(r.notes[TIMELINE_NO_MASTER].count > 0);
	rig_stop(&r);
	CU_ASSERT(reason_has(&r, "the cluster is being stopped"));
	rig_fini(&r);
}

static void the_reason_of_a_start_says_so(void)
{
	struct rig r;

	rig_init(&r, 3);
	CU_ASSERT(reason_has(&r, "the supervisor is starting"));
	rig_begin(&r, true);
	CU_ASSERT(reason_has(&r, "started for the first time"));
	CU_ASSERT(reason_has(&r, "node1 has been starting"));
	rig_answer_all(&r);
	CU_ASSERT_EQUAL(rig_master(&r), 0);
	rig_fini(&r);
}

/* A short buffer cuts the text and nothing else. */
static void a_reason_is_cut_where_there_is_no_room(void)
{
	struct rig r;
	char small[20];

	rig_init(&r, CLUSTER_NODES_MAX);
	rig_begin(&r, true);
	memset(small, 'x', sizeof(small));
	cluster_reason(r.c, r.now_ms, small, 10);
	CU_ASSERT_EQUAL(strlen(small), 9);
	CU_ASSERT_EQUAL(small[10], 'x');
	rig_fini(&r);
}

/* An operator's recovery: the heir is started as the master of a new term, whatever the others are. */
static void a_recovery_begins_without_an_election(void)
{
	struct cluster_event ev = {.type = CLUSTER_BEGIN, .node = CLUSTER_NOBODY};
	struct cluster_options o = {.node_count = 3, .ack_nodes = 2, .interval_ms = 100, .misses = 3, .term = 7};
	struct cluster_actions *out = malloc(sizeof(*out));
	struct cluster *c;
	struct errmsg em = {0};
	bool persisted = false;
	unsigned masters = 0;
	size_t i;

	CU_ASSERT_PTR_NOT_NULL_FATAL(out);
	UNIT_OK(cluster_create(&c, &o, &em), &em);
	ev.u.begin.recover = true;
	ev.u.begin.heir = 2;
	cluster_step(c, &ev, 1000, out);
	for (i = 0; i < out->count; i++) {
		const struct cluster_action *a = &out->items[i];

		if (a->type == CLUSTER_PERSIST) {
			CU_ASSERT_EQUAL(a->u.persist.term, 8);
			persisted = true;
		} else if (a->type == CLUSTER_SPAWN && a->u.as_master) {
			CU_ASSERT(persisted && a->node == 2);
			masters++;
		}
	}
	CU_ASSERT_EQUAL(masters, 1);
	cluster_free(c);
	free(out);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"an_outage_is_measured_from_its_detection_and_from_the_last_heartbeat",
	     an_outage_is_measured_from_its_detection_and_from_the_last_heartbeat},
	    {"an_outage_lasts_until_somebody_serves", an_outage_lasts_until_somebody_serves},
	    {"a_first_master_that_dies_before_it_was_seen_ready_is_a_failover",
	     a_first_master_that_dies_before_it_was_seen_ready_is_a_failover},
	    {"a_hung_master_is_suspected_killed_and_its_end_confirmed",
	     a_hung_master_is_suspected_killed_and_its_end_confirmed},
	    {"a_switchover_is_told_with_the_time_writes_were_held",
	     a_switchover_is_told_with_the_time_writes_were_held},
	    {"the_reason_names_every_node_that_is_missing", the_reason_names_every_node_that_is_missing},
	    {"the_reason_of_a_start_says_so", the_reason_of_a_start_says_so},
	    {"a_reason_is_cut_where_there_is_no_room", a_reason_is_cut_where_there_is_no_room},
	    {"a_recovery_begins_without_an_election", a_recovery_begins_without_an_election},
	    {NULL, NULL},
	};

	return unit_run("cluster_notes", tests);
}

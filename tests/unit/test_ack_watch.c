/* test_ack_watch.c - a replica notices that its answers do not reach the master: the pure deciding code. */
#include "replica/ack_watch.h"

#include <stdbool.h>

#include "tests/unit/unit.h"

#define HELLO_MS 500u

/* HELLOs for ms, each answered when answers is set; the time of the first verdict other than FINE, or 0. */
static uint64_t hellos(struct ack_watch *w, uint64_t *now_ms, uint64_t ms, bool answers,
		       enum ack_watch_verdict *verdict)
{
	uint64_t end_ms = *now_ms + ms;

	for (; *now_ms < end_ms; *now_ms += HELLO_MS) {
		*verdict = ack_watch_on_hello(w, *now_ms);
		if (*verdict != ACK_WATCH_FINE)
			return *now_ms;
		if (answers)
			ack_watch_on_answer(w);
	}
	return 0;
}

static void unheard_answers_call_for_another_connection(void)
{
	enum ack_watch_verdict verdict;
	uint64_t now_ms = 1000, at_ms;
	struct ack_watch w;

	ack_watch_init(&w);
	at_ms = hellos(&w, &now_ms, 60000, true, &verdict);
	CU_ASSERT_EQUAL(verdict, ACK_WATCH_RECONNECT);
	CU_ASSERT_EQUAL(at_ms, 1000 + ACK_WATCH_PATIENCE_MS);
	at_ms = now_ms;
	now_ms = hellos(&w, &now_ms, 60000, true, &verdict);
	CU_ASSERT_EQUAL(verdict, ACK_WATCH_RECONNECT); /* that did not help: later again */
	CU_ASSERT_EQUAL(now_ms - at_ms, 2 * ACK_WATCH_PATIENCE_MS);
}

static void the_pauses_grow_to_a_limit(void)
{
	enum ack_watch_verdict verdict;
	uint64_t now_ms = 1000, before_ms = 0, at_ms = 0;
	struct ack_watch w;
	unsigned i;

	ack_watch_init(&w);
	for (i = 0; i < 12; i++) {
		before_ms = at_ms;
		at_ms = hellos(&w, &now_ms, 2 * ACK_WATCH_PATIENCE_MS_MAX, true, &verdict);
		CU_ASSERT_EQUAL_FATAL(verdict, ACK_WATCH_RECONNECT);
	}
	CU_ASSERT_EQUAL(at_ms - before_ms, ACK_WATCH_PATIENCE_MS_MAX);
}

static void whoever_is_heard_keeps_its_connection(void)
{
	enum ack_watch_verdict verdict;
	uint64_t now_ms = 1000;
	struct ack_watch w;
	unsigned i;

	ack_watch_init(&w);
	for (i = 0; i < 20; i++) {
		CU_ASSERT_EQUAL(hellos(&w, &now_ms, ACK_WATCH_PATIENCE_MS - HELLO_MS, true, &verdict), 0);
		ack_watch_on_heard(&w);
	}
	CU_ASSERT(hellos(&w, &now_ms, 60000, true, &verdict) != 0);
	ack_watch_on_heard(&w); /* it helped: the next time is a first time */
	CU_ASSERT_EQUAL(hellos(&w, &now_ms, ACK_WATCH_PATIENCE_MS, true, &verdict), 0);
	CU_ASSERT(hellos(&w, &now_ms, HELLO_MS, true, &verdict) != 0);
}

static void without_answers_nothing_can_be_unheard(void)
{
	enum ack_watch_verdict verdict;
	uint64_t now_ms = 1000;
	struct ack_watch w;

	ack_watch_init(&w);
	CU_ASSERT_EQUAL(hellos(&w, &now_ms, 60000, false, &verdict), 0);
}

static void hellos_far_apart_are_in_no_row(void)
{
	uint64_t now_ms = 1000;
	struct ack_watch w;
	unsigned i;

	ack_watch_init(&w);
	for (i = 0; i < 100; i++, now_ms += ACK_WATCH_GAP_MS + 1) {
		CU_ASSERT_EQUAL(ack_watch_on_hello(&w, now_ms), ACK_WATCH_FINE);
		ack_watch_on_answer(&w);
	}
}

static const struct unit_test tests[] = {
    {"unheard_answers_call_for_another_connection", unheard_answers_call_for_another_connection},
    {"the_pauses_grow_to_a_limit", the_pauses_grow_to_a_limit},
    {"whoever_is_heard_keeps_its_connection", whoever_is_heard_keeps_its_connection},
    {"without_answers_nothing_can_be_unheard", without_answers_nothing_can_be_unheard},
    {"hellos_far_apart_are_in_no_row", hellos_far_apart_are_in_no_row},
    {NULL, NULL},
};

int main(void)
{
	return unit_run("ack_watch", tests);
}

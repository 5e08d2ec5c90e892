/*
 * test_http_streams.c - the HTTP front under clients that vanish, threads that post, slow readers and a stop.
 */
#include "tests/unit/http_fixture.h"

#include <sched.h>
#include <stddef.h>
#include <sys/eventfd.h>

#include "common/http/inbox.h"

/* --- Clients that go, threads that post. --- */

static void test_reply_to_a_vanished_client_is_dropped(void)
{
	static const char *const requests[] = {GET_LATER, POST_LATER};
	struct site site;
	struct client c;
	unsigned i;

	site_open(&site, (struct http_options){0});
	for (i = 0; i < 2; i++) {
		client_open(&c, &site);
		client_say(&c, requests[i]);
		wait_kept(&site, i + 1);
		CU_ASSERT(!atomic_load(http_request_gone(site.kept[i])));
		client_close(&c);
		AWAIT(atomic_load(http_request_gone(site.kept[i])));
		CU_ASSERT_EQUAL(counters_of(&site).requests_in_flight, 1);
		answer(&site, i);
		AWAIT(counters_of(&site).requests_in_flight == 0);
	}
	CU_ASSERT_EQUAL(counters_of(&site).replies_by_class[2], 0);
	AWAIT(counters_of(&site).connections_open == 0);
	site_close(&site);
	CU_ASSERT_EQUAL(site.gone_replies, 2);
}

static void test_200_connections_at_once(void)
{
	struct client c[200];
	struct site site;
	unsigned i;

	site_open(&site, (struct http_options){0});
	for (i = 0; i < 200; i++) {
		client_open(&c[i], &site);
		client_say(&c[i], GET_LATER);
	}
	wait_kept(&site, 200);
	CU_ASSERT_EQUAL(counters_of(&site).connections_open, 200);
	for (i = 0; i < 200; i++)
		answer(&site, 199 - i);
	for (i = 0; i < 200; i++) {
		expect(&c[i], 200, "late");
		client_say(&c[i], POST_ECHO);
	}
	for (i = 0; i < 200; i++) {
		expect(&c[i], 200, "hello");
		client_close(&c[i]);
	}
	AWAIT(counters_of(&site).connections_open == 0);
	site_close(&site);
}

static void test_connections_beyond_the_limit_wait(void)
{
	struct client c[6];
	struct site site;
	unsigned i;

	site_open(&site, (struct http_options){.connections_max = 3, .worker_count = 1});
	for (i = 0; i < 6; i++) {
		client_open(&c[i], &site);
		client_say(&c[i], POST_ECHO);
	}
	for (i = 0; i < 3; i++)
		expect(&c[i], 200, "hello");
	CU_ASSERT_EQUAL(counters_of(&site).connections_total, 3);
	for (i = 0; i < 3; i++) {
		client_close(&c[i]);
		expect(&c[i + 3], 200, "hello");
	}
	for (i = 3; i < 6; i++)
		client_close(&c[i]);
	site_close(&site);
}

static void test_accepting_stops_and_starts(void)
{
	struct client kept, waiting;
	struct site site;
	struct pollfd pfd;
	int i;

	site_open(&site, (struct http_options){0});
	client_open(&kept, &site);
	client_say(&kept, POST_ECHO);
	expect(&kept, 200, "hello");
	for (i = 0; i < 20; i++) {
		http_server_set_accepting(site.server, site.listener, false);
		client_open(&waiting, &site);
		client_say(&waiting, POST_ECHO);
		client_say(&kept, POST_ECHO);
		expect(&kept, 200, "hello");
		pfd = (struct pollfd){waiting.fd, POLLIN, 0};
		CU_ASSERT_EQUAL(poll(&pfd, 1, 2), 0);
		CU_ASSERT_EQUAL(counters_of(&site).connections_total, 1 + (uint64_t)i);
		http_server_set_accepting(site.server, site.listener, true);
		expect(&waiting, 200, "hello");
		client_close(&waiting);
	}
	client_close(&kept);
	site_close(&site);
}

struct switcher {
	struct http_task task;
	struct site *site;
	atomic_uint *done;
};

static void run_switcher(struct http_task *task)
{
	struct switcher *s = (struct switcher *)task;

	http_server_set_accepting(s->site->server, s->site->listener, false);
	http_server_set_accepting(s->site->server, s->site->listener, true);
	atomic_fetch_add(s->done, 1);
	free(s);
}

static void test_workers_may_all_switch_accepting_at_once(void)
{
	atomic_uint done = 0;
	struct switcher *s;
	struct site site;
	unsigned i;

	site_open(&site, (struct http_options){.worker_count = 4});
	for (i = 0; i < 200; i++) {
		s = calloc(1, sizeof(*s));
		s->task.run = run_switcher;
		s->site = &site;
		s->done = &done;
		http_worker_post(site.workers[i % 4], &s->task);
	}
	AWAIT(atomic_load(&done) == 200);
	site_close(&site);
}

struct counted {
	struct http_task task;
	atomic_uint *count;
	struct http_worker *repost; /* post once more, from the worker itself */
};

static void run_counted(struct http_task *task)
{
	struct counted *c = (struct counted *)task;
	struct http_worker *w = c->repost;

	c->repost = NULL;
	atomic_fetch_add(c->count, 1);
	if (w != NULL)
		http_worker_post(w, task);
	else
		free(c);
}

struct poster {
	pthread_t thread;
	struct site *site;
	atomic_uint *count;
};

static void *post_many(void *arg)
{
	struct poster *p = arg;
	struct counted *c;
	unsigned i;

	for (i = 0; i < 5000; i++) {
		c = calloc(1, sizeof(*c));
		c->task.run = run_counted;
		c->count = p->count;
		c->repost = p->site->workers[i % 2];
		http_worker_post(p->site->workers[i % 2], &c->task);
	}
	return NULL;
}

static void test_every_posted_task_runs_once(void)
{
	atomic_uint count = 0;
	struct poster posters[4];
	struct site site;
	unsigned i;

	site_open(&site, (struct http_options){0});
	for (i = 0; i < 4; i++) {
		posters[i].site = &site;
		posters[i].count = &count;
		pthread_create(&posters[i].thread, NULL, post_many, &posters[i]);
	}
	for (i = 0; i < 4; i++)
		pthread_join(posters[i].thread, NULL);
	site_close(&site); /* runs what is left */
	CU_ASSERT_EQUAL(atomic_load(&count), 4 * 5000 * 2);
}

struct relay {
	_Atomic(struct http_inbox *) inbox; /* the next to post to; NULL: done */
	struct http_task task;
	atomic_uint runs;
	atomic_bool over;
};

static void run_relay(struct http_task *task)
{
	atomic_fetch_add(&((struct relay *)((char *)task - offsetof(struct relay, task)))->runs, 1);
}

static void *relay_tasks(void *arg)
{
	struct relay *r = arg;
	struct http_inbox *inbox;

	while (!atomic_load(&r->over)) {
		inbox = atomic_load(&r->inbox);
		if (inbox != NULL) {
			http_inbox_post(inbox, &r->task);
			atomic_store(&r->inbox, NULL);
		}
	}
	return NULL;
}

/* The owner may run a task, and end, before the thread that posted it has come back from the wake-up: that must not go
 * into a descriptor which was opened since. */
static void test_an_inbox_ends_after_the_last_wakeup(void)
{
	struct relay r = {.task.run = run_relay};
	struct http_inbox inbox;
	struct errmsg em = {0};
	unsigned i, stray = 0;
	uint64_t wakeups;
	pthread_t thread;
	int canary;

	pthread_create(&thread, NULL, relay_tasks, &r);
	for (i = 0; i < 3000; i++) {
		UNIT_OK(http_inbox_init(&inbox, &em), &em);
		atomic_store(&r.inbox, &inbox);
		while (http_inbox_run(&inbox) == 0)
			;
		http_inbox_fini(&inbox);
		canary = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); /* likely of the number that was just closed */
		while (atomic_load(&r.inbox) != NULL)
			sched_yield();
		stray += read(canary, &wakeups, sizeof(wakeups)) != -1;
		close(canary);
	}
	CU_ASSERT_EQUAL(stray, 0);
	CU_ASSERT_EQUAL(atomic_load(&r.runs), 3000);
	atomic_store(&r.over, true);
	pthread_join(thread, NULL);
}

/* --- Streams. --- */

static void test_stream_passes_whole_at_the_readers_pace(void)
{
	struct site site;
	struct client c;
	struct reply r;
	size_t i;

	site_open(&site, (struct http_options){0});
	site.piece_bytes = 100000;
	site.piece_count = 200; /* 20 MB, far beyond what socket buffers and the stream may hold */
	client_open(&c, &site);
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	CU_ASSERT(client_reply(&c, &r, false));
	CU_ASSERT(r.whole);
	CU_ASSERT_EQUAL_FATAL(r.body.len, 20000000);
	for (i = 0; i < r.body.len; i += 100000)
		CU_ASSERT_EQUAL(r.body.data[i], 'a' + i / 100000 % 26);
	buf_fini(&r.body);
	client_say(&c, POST_ECHO); /* the connection lives on */
	expect(&c, 200, "hello");
	wait_streams_ended(&site, 1);
	CU_ASSERT_EQUAL(site.stream_result, DB_OK);
	client_close(&c);
	site_close(&site);
}

static void test_empty_and_failed_streams_answer_properly(void)
{
	struct site site;
	struct client c;
	struct reply r;

	site_open(&site, (struct http_options){0});
	client_open(&c, &site);
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	CU_ASSERT(client_reply(&c, &r, false));
	CU_ASSERT(r.whole && r.status == 200 && r.body.len == 0);
	buf_fini(&r.body);
	wait_streams_ended(&site, 1);
	site.stream_error = true;
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	expect(&c, 409, "no such luck");
	wait_streams_ended(&site, 2);
	client_close(&c);
	site_close(&site);
}

static void test_broken_stream_is_not_taken_for_whole(void)
{
	struct site site;
	struct client c;
	struct reply r;

	site_open(&site, (struct http_options){0});
	site.piece_bytes = 1000;
	site.piece_count = 5;
	site.whole = false;
	client_open(&c, &site);
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	CU_ASSERT(client_reply(&c, &r, false));
	CU_ASSERT(!r.whole);
	CU_ASSERT_EQUAL(r.body.len, 5000); /* what was written before the end came all the same */
	buf_fini(&r.body);
	client_close(&c);
	wait_streams_ended(&site, 1);
	site.piece_count = 0;
	client_open(&c, &site);
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	expect_end(&c); /* nothing was sent, so there is nothing to break off */
	client_close(&c);
	site_close(&site);
}

static void test_stream_of_announced_length_needs_no_chunks(void)
{
	struct site site;
	struct client c;
	struct reply r;

	site_open(&site, (struct http_options){0});
	site.piece_bytes = 100000;
	site.piece_count = 30;
	site.announced = "3000000";
	client_open(&c, &site);
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	CU_ASSERT(client_reply(&c, &r, false));
	CU_ASSERT(r.whole && r.body.len == 3000000);
	CU_ASSERT_PTR_NULL(reply_header(&r, "Transfer-Encoding"));
	buf_fini(&r.body);
	wait_streams_ended(&site, 1);
	client_say(&c, POST_ECHO);
	expect(&c, 200, "hello");
	site.whole = false; /* fewer than announced: the connection ends */
	site.piece_count = 10;
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	CU_ASSERT(client_reply(&c, &r, false));
	CU_ASSERT(!r.whole && c.in.len == 1000000); /* what was written before the end came all the same */
	buf_fini(&r.body);
	client_close(&c);
	wait_streams_ended(&site, 2);
	site.piece_count = 0; /* nothing came before the error: it is told, with its own length */
	site.stream_error = true;
	client_open(&c, &site);
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	expect(&c, 409, "no such luck");
	client_close(&c);
	wait_streams_ended(&site, 3);
	site_close(&site);
}

static void test_stream_that_is_given_up_wakes_its_producer(void)
{
	struct site site;
	struct client c;

	site_open(&site, (struct http_options){0});
	site.piece_bytes = 65536;
	site.piece_count = 10000;
	site.stall_ms = 600000;
	client_open(&c, &site);
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	CU_ASSERT(client_read(&c));
	AWAIT(http_stream_stalled_ms(site.stream) > 50); /* the producer waits for room */
	http_stream_give_up(site.stream);
	wait_streams_ended(&site, 1);
	CU_ASSERT_EQUAL(site.stream_result, DB_TIMEOUT);
	AWAIT(counters_of(&site).connections_open == 0);
	client_close(&c);
	site_close(&site);
}

static void test_http_1_0_stream_ends_with_the_connection(void)
{
	struct site site;
	struct client c;
	struct reply r;

	site_open(&site, (struct http_options){0});
	site.piece_bytes = 1000;
	site.piece_count = 5;
	client_open(&c, &site);
	client_say(&c, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	CU_ASSERT(client_reply(&c, &r, false));
	CU_ASSERT_EQUAL(r.body.len, 5000);
	CU_ASSERT_PTR_NULL(reply_header(&r, "Content-Length"));
	buf_fini(&r.body);
	client_close(&c);
	site_close(&site);
}

static void test_slow_reader_holds_the_producer_back_and_is_cut_off(void)
{
	struct site site;
	struct client c;

	site_open(&site, (struct http_options){0});
	site.piece_bytes = 65536;
	site.piece_count = 10000;
	site.stall_ms = 300;
	client_open(&c, &site);
	setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &(int){65536}, sizeof(int));
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	wait_streams_ended(&site, 1);
	CU_ASSERT_EQUAL(site.stream_result, DB_TIMEOUT);
	CU_ASSERT(site.pieces_taken < 300); /* socket buffers, 256 KiB, and no more */
	AWAIT(counters_of(&site).connections_open == 0);
	client_close(&c);
	site_close(&site);
}

static void test_vanishing_reader_wakes_the_producer(void)
{
	struct site site;
	struct client c;

	site_open(&site, (struct http_options){0});
	site.piece_bytes = 65536;
	site.piece_count = 10000;
	client_open(&c, &site);
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	CU_ASSERT(client_read(&c));
	client_close(&c);
	wait_streams_ended(&site, 1);
	CU_ASSERT_EQUAL(site.stream_result, DB_CLOSED);
	AWAIT(counters_of(&site).requests_in_flight == 0);
	site_close(&site);
}

/* --- A producer on the worker's own loop. --- */

static void test_loop_producer_passes_whole_at_the_readers_pace(void)
{
	static const size_t sizes[] = {1, 1000, 65536, 400000};
	struct reply r;
	struct site site;
	struct client c;
	unsigned i, count;

	site_open(&site, (struct http_options){.worker_count = 1});
	client_open(&c, &site);
	for (i = 0; i < 4; i++) {
		count = sizes[i] > 1000 ? 100 : 20;
		site_set_loop(&site, sizes[i], count, true, false);
		client_say(&c, "GET /loop HTTP/1.1\r\n\r\n");
		CU_ASSERT(client_reply(&c, &r, false));
		CU_ASSERT(r.whole);
		CU_ASSERT_EQUAL(r.body.len, sizes[i] * count);
		buf_fini(&r.body);
		wait_streams_ended(&site, i + 1);
		CU_ASSERT_EQUAL(site.stream_result, DB_OK);
	}
	CU_ASSERT(site.wakeups_wanted > 0);
	site_set_loop(&site, 65536, 10, false, false);
	client_say(&c, "GET /loop HTTP/1.1\r\n\r\n");
	CU_ASSERT(!client_reply(&c, &r, false) || !r.whole);
	buf_fini(&r.body);
	client_close(&c);
	site_close(&site);
}

static void test_loop_producer_never_waits(void)
{
	struct client slow, other;
	struct reply r;
	struct site site;

	site_open(&site, (struct http_options){.worker_count = 1});
	site_set_loop(&site, 65536, 1000, true, false);
	client_open(&slow, &site);
	client_say(&slow, "GET /loop HTTP/1.1\r\n\r\n");
	pthread_mutex_lock(&site.lock);
	while (site.wakeups_wanted == 0)
		pthread_cond_wait(&site.changed, &site.lock);
	CU_ASSERT(site.pieces_taken < 1000);
	pthread_mutex_unlock(&site.lock);
	client_open(&other, &site);
	client_say(&other, POST_ECHO);
	expect(&other, 200, "hello");
	CU_ASSERT(client_reply(&slow, &r, false));
	CU_ASSERT(r.whole);
	CU_ASSERT_EQUAL(r.body.len, (size_t)65536 * 1000);
	buf_fini(&r.body);
	client_close(&slow);
	client_close(&other);
	site_close(&site);
}

static void test_loop_producer_hears_that_its_client_has_gone(void)
{
	struct site site;
	struct client c;
	unsigned i;

	site_open(&site, (struct http_options){.worker_count = 1});
	for (i = 0; i < 2; i++) { /* while it waits for room, while it has nothing to say */
		site_set_loop(&site, 65536, i == 0 ? 1000 : 1, true, i == 1);
		client_open(&c, &site);
		client_say(&c, "GET /loop HTTP/1.1\r\n\r\n");
		CU_ASSERT(client_read(&c));
		client_close(&c);
		wait_streams_ended(&site, i + 1);
		CU_ASSERT_EQUAL(site.stream_result, DB_CLOSED);
		AWAIT(counters_of(&site).requests_in_flight == 0);
	}
	site_close(&site);
}

static void test_free_ends_loop_producers(void)
{
	struct site site;
	struct client c[2];
	unsigned i;

	site_open(&site, (struct http_options){.worker_count = 1});
	site_set_loop(&site, 65536, 1, true, true);
	for (i = 0; i < 2; i++) {
		client_open(&c[i], &site);
		client_say(&c[i], "GET /loop HTTP/1.1\r\n\r\n");
		CU_ASSERT(client_read(&c[i]));
	}
	http_server_stop(site.server, 0);
	site_close(&site);
	CU_ASSERT_EQUAL(site.streams_ended, 2);
	for (i = 0; i < 2; i++)
		client_close(&c[i]);
}

static void test_wrong_token_found_by_a_handler_counts(void)
{
	struct site site;
	struct client c;
	struct reply r;

	site_open(&site, (struct http_options){0});
	client_open(&c, &site);
	client_say(&c, "POST /body-token HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
	CU_ASSERT(client_reply(&c, &r, false));
	CU_ASSERT_EQUAL(r.status, 401);
	CU_ASSERT_PTR_NOT_NULL(reply_header(&r, "WWW-Authenticate: Bearer"));
	CU_ASSERT_EQUAL(counters_of(&site).auth_failures_total, 1);
	buf_fini(&r.body);
	client_close(&c);
	site_close(&site);
}

/* --- The end. --- */

struct stopper {
	pthread_t thread;
	struct site *site;
	uint64_t grace_ms;
	uint64_t took_ms;
	atomic_bool done;
};

static void *stop_server(void *arg)
{
	struct stopper *s = arg;
	uint64_t started_ms = clock_mono_ms();

	http_server_stop(s->site->server, s->grace_ms);
	s->took_ms = clock_mono_ms() - started_ms;
	atomic_store(&s->done, true);
	return NULL;
}

static void test_stop_answers_what_is_in_flight(void)
{
	struct stopper s = {.grace_ms = WAIT_MS};
	struct client idle, busy;
	struct reply r;
	struct site site;

	site_open(&site, (struct http_options){.worker_count = 1});
	s.site = &site;
	client_open(&idle, &site);
	client_say(&idle, POST_ECHO);
	expect(&idle, 200, "hello");
	client_open(&busy, &site);
	client_say(&busy, POST_LATER);
	wait_kept(&site, 1);
	pthread_create(&s.thread, NULL, stop_server, &s);
	expect_end(&idle); /* stopping has begun */
	CU_ASSERT(!atomic_load(&s.done));
	answer(&site, 0);
	CU_ASSERT(client_reply(&busy, &r, false));
	CU_ASSERT_EQUAL(r.status, 200);
	CU_ASSERT_PTR_NOT_NULL(reply_header(&r, "Connection: close"));
	buf_fini(&r.body);
	expect_end(&busy);
	pthread_join(s.thread, NULL);
	CU_ASSERT(s.took_ms < WAIT_MS);
	client_close(&idle);
	client_close(&busy);
	site_close(&site);
}

static void test_free_waits_for_producers(void)
{
	struct site site;
	struct client c;

	site_open(&site, (struct http_options){0});
	site.piece_bytes = 65536;
	site.piece_count = 10000;
	client_open(&c, &site);
	client_say(&c, "GET /stream HTTP/1.1\r\n\r\n");
	CU_ASSERT(client_read(&c));
	http_server_stop(site.server, 0);
	site_close(&site);
	CU_ASSERT_EQUAL(site.streams_ended, 1);
	CU_ASSERT_EQUAL(site.stream_result, DB_CLOSED);
	CU_ASSERT_EQUAL(site.workers_stopped, 2);
	client_close(&c);
}

static void test_stop_waits_no_longer_than_its_grace(void)
{
	struct stopper s = {.grace_ms = 100};
	struct client busy;
	struct site site;

	site_open(&site, (struct http_options){0});
	s.site = &site;
	client_open(&busy, &site);
	client_say(&busy, POST_LATER);
	wait_kept(&site, 1);
	pthread_create(&s.thread, NULL, stop_server, &s);
	pthread_join(s.thread, NULL);
	CU_ASSERT(s.took_ms >= 100 && s.took_ms < 5000);
	CU_ASSERT(atomic_load(http_request_gone(site.kept[0])));
	expect_end(&busy);
	answer(&site, 0); /* still valid, to nobody */
	client_close(&busy);
	site_close(&site);
	CU_ASSERT_EQUAL(site.gone_replies, 1);
}

static enum db_err fail_second_start(void *arg, struct http_worker *worker, void **data, struct errmsg *em)
{
	unsigned *started = arg;

	(void)worker;
	*data = NULL;
	return (*started)++ == 1 ? errmsg_set(em, DB_FULL, "no more") : DB_OK;
}

static void test_failing_worker_start_fails_the_server(void)
{
	unsigned started = 0;
	struct http_options options = {.worker_count = 3, .routes = routes, .arg = &started};
	struct http_server *server;
	struct errmsg em = {0};

	options.worker_start = fail_second_start;
	CU_ASSERT_EQUAL(http_server_create(&server, &options, &em), DB_FULL);
	CU_ASSERT_PTR_NULL(server);
	CU_ASSERT_STRING_EQUAL(em.text, "no more");
	http_server_free(NULL);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"reply to a vanished client is dropped", test_reply_to_a_vanished_client_is_dropped},
	    {"200 connections at once", test_200_connections_at_once},
	    {"connections beyond the limit wait", test_connections_beyond_the_limit_wait},
	    {"accepting stops and starts", test_accepting_stops_and_starts},
	    {"workers may all switch accepting at once", test_workers_may_all_switch_accepting_at_once},
	    {"every posted task runs once", test_every_posted_task_runs_once},
	    {"an inbox ends after the last wake-up", test_an_inbox_ends_after_the_last_wakeup},
	    {"stream passes whole at the reader's pace", test_stream_passes_whole_at_the_readers_pace},
	    {"empty and failed streams answer properly", test_empty_and_failed_streams_answer_properly},
	    {"broken stream is not taken for whole", test_broken_stream_is_not_taken_for_whole},
	    {"stream of announced length needs no chunks", test_stream_of_announced_length_needs_no_chunks},
	    {"stream that is given up wakes its producer", test_stream_that_is_given_up_wakes_its_producer},
	    {"HTTP/1.0 stream ends with the connection", test_http_1_0_stream_ends_with_the_connection},
	    {"slow reader holds the producer back", test_slow_reader_holds_the_producer_back_and_is_cut_off},
	    {"vanishing reader wakes the producer", test_vanishing_reader_wakes_the_producer},
	    {"loop producer passes whole at the reader's pace", test_loop_producer_passes_whole_at_the_readers_pace},
	    {"loop producer never waits", test_loop_producer_never_waits},
	    {"loop producer hears that its client has gone", test_loop_producer_hears_that_its_client_has_gone},
	    {"free ends loop producers", test_free_ends_loop_producers},
	    {"wrong token found by a handler counts", test_wrong_token_found_by_a_handler_counts},
	    {"stop answers what is in flight", test_stop_answers_what_is_in_flight},
	    {"free waits for producers", test_free_waits_for_producers},
	    {"stop waits no longer than its grace", test_stop_waits_no_longer_than_its_grace},
	    {"failing worker start fails the server", test_failing_worker_start_fails_the_server},
	    {NULL, NULL},
	};

	return unit_run("http_streams", tests);
}

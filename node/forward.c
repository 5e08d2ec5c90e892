/*
 * forward.c - asking the master on behalf of a client of this node.
 *
 * The request goes on as it came, with the client's own token, the time it has left, and a header against loops; the
 * master's answer comes back as it is: a small one in one piece, a longer one as a stream, no faster than the client
 * reads (the fetch is paused meanwhile), so that memory stays flat.
 *
 * A request that the master certainly did not execute is parked and tried again, for a new master may be there in a
 * moment. A read whose connection broke before anything of its answer came is asked again a few times. A write whose
 * answer was lost is sent again if it has a request_id, and ends as REMOTE_ERROR if it has none: its outcome is unknown.
 * An answer that breaks off reaches the client as one that breaks off.
 * What may be repeated and waits for a master that has been replaced is given up and asked again at once. Another write is
 * not: a master that handed over answers it still (a dead one's connection breaks), and its answer is the only way to know
 * its outcome.
 *
 * The pool of the process, whose connections it takes, makes no pauses for it after failures (at_once): who is master we
 * hear from the cluster, and a new one is asked without delay.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/query/typed_rows.h"
#include "node/front_fetch.h"
#include "node/federate.h"
#include "node/front_request.h"

#define WHOLE_BYTES_MAX ((size_t)64 << 10) /* an answer up to this goes back in one piece */
#define BREAKS_MAX      3                  /* so often a read is asked again after its connection broke */
#define STALL_MS        30000              /* a client that takes nothing of a stream for so long is cut off */
#define MARGIN_MS_MAX   50                 /* the master gets so much less time: its own TIMEOUT says more than ours */

struct forward {
	struct forward *next; /* worker's list */
	struct front_request *req;
	struct front_fetch *fetch;
	int status;
	char content_type[64];
	struct buf body;            /* the answer's beginning, until there is a stream */
	struct http_stream *stream; /* has req's HTTP request */
};

/* ---- the answer comes */

static void on_head(void *arg, int status, const char *content_type)
{
	struct forward *f = arg;
	size_t len = strlen(content_type);

	f->status = status;
	if (len > 0 && len < sizeof(f->content_type))
		memcpy(f->content_type, content_type, len + 1);
}

/* The client takes again, or has gone. */
static void on_wakeup(void *arg)
{
	struct forward *f = arg;

	if (atomic_load(http_stream_gone(f->stream)))
		front_fetch_cancel(f->fetch);
	else
		front_fetch_resume(f->fetch);
}

/* After an error f->stream tells whether the stream exists. */
static enum db_err start_stream(struct forward *f)
{
	enum db_err err = f->body.failed ? DB_NOMEM : DB_OK;

	if (err == DB_OK)
		err = http_stream_create(&f->stream, f->req->http, f->status, f->content_type);
	if (err != DB_OK)
		return err;
	http_stream_set_wakeup(f->stream, on_wakeup, f);
	err = http_stream_try_write(f->stream, f->body.data, f->body.len);
	buf_fini(&f->body);
	return err;
}

static bool on_body(void *arg, const void *bytes, size_t len)
{
	struct forward *f = arg;
	enum db_err err = DB_OK;

	if (f->stream == NULL && f->body.len + len <= WHOLE_BYTES_MAX) {
		buf_put(&f->body, bytes, len);
		return true;
	}
	if (f->stream == NULL)
		err = start_stream(f);
	if (err == DB_OK)
		err = http_stream_try_write(f->stream, bytes, len);
	if (err == DB_BUSY)
		return false; /* on_wakeup() goes on */
	if (err != DB_OK)
		front_fetch_cancel(f->fetch); /* that was on_end() */
	return true;
}

/* ---- it has come, or not */

static void unlink_forward(struct forward *f)
{
	struct forward **at = &f->req->worker->forwards;

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
}

/* The node we asked is no master (any more): it has executed nothing. */
static bool says_no_master(const struct forward *f)
{
	static const char code[] = "\"code\":\"NO_MASTER\"";

	return f->status == 503 && f->body.len > 0 && memmem(f->body.data, f->body.len, code, sizeof(code) - 1) != NULL;
}

static bool is_read(struct front_request *req)
{
	struct query_error error;
	enum federated_plan plan;
	enum query_kind kind;

	if (req->admin.kind != ADMIN_NONE)
		return req->admin.kind == ADMIN_SHOW_REPLICAS;
	if (req->federated != NULL)
		return federated_request_plan(req->federated, &plan, &error) == QUERY_OK && plan == FEDERATED_RUN_HERE;
	return req->query == NULL ||
	       (query_classify(req->worker->conn, req->query, &kind, &error) == QUERY_OK && kind == QUERY_KIND_READ);
}

/* Whether it may be sent anywhere again though it may have been executed. */
static bool is_repeatable(struct front_request *req)
{
	return is_read(req) || req->query->request_id != NULL;
}

static void end_stream(struct forward *f, enum db_err err, const struct errmsg *em)
{
	if (err == DB_IO || err == DB_TIMEOUT)
		log_warn("forward: an answer breaks off: %s", em->text);
	http_stream_end(f->stream, err == DB_OK);
	if (err == DB_OK && f->status == 200)
		front_request_note(f->req, TIMING_FORWARD_WHOLE);
	front_request_free(f->req);
}

/* The answer broke off while it was small. What the master said so far may tell why. */
static void relay_broken(struct forward *f, enum db_err err, const struct errmsg *em)
{
	if (start_stream(f) == DB_OK || f->stream != NULL)
		end_stream(f, err, em);
	else
		front_request_fail(f->req, QUERY_INTERNAL, "out of memory for the answer");
}

static void relay(struct forward *f)
{
	if (f->req->in_doubt && !front_status_settles(f->status)) {
		front_request_fail(f->req, QUERY_NO_QUORUM, "");
		return;
	}
	http_reply(f->req->http, f->status, f->content_type, &f->body);
	if (f->status == 200)
		front_request_note(f->req, TIMING_FORWARD_WHOLE);
	front_request_free(f->req);
}

/* No whole answer came, and the master may have executed the request. */
static void end_unanswered(struct forward *f, enum db_err err, const struct errmsg *em)
{
	struct front_request *req = f->req;
	bool reads = is_read(req);

	if (!reads && err != DB_TIMEOUT && is_repeatable(req)) {
		req->in_doubt = true;
		front_request_park(req);
		return;
	}
	if (err == DB_TIMEOUT && reads)
		front_request_fail(req, QUERY_TIMEOUT, "the master did not answer in time");
	else if (err == DB_TIMEOUT)
		front_request_fail(req, QUERY_TIMEOUT,
				   "the master did not answer in time; a write may have been committed");
	else if (!reads)
		front_request_fail(req, QUERY_REMOTE_ERROR,
				   "the connection to the master broke; the write may have been committed");
	else if (f->body.len > 0)
		relay_broken(f, err, em);
	else if (err == DB_CLOSED || req->forward_breaks++ < BREAKS_MAX)
		front_request_park(req);
	else
		front_request_fail(req, QUERY_REMOTE_ERROR,
				   "the connection to the master broke again and again before it answered the read");
}

static void on_end(void *arg, enum db_err err, const struct errmsg *em)
{
	struct forward *f = arg;

	front_request_speaks(f->req);
	unlink_forward(f);
	if (f->stream != NULL)
		end_stream(f, err, em);
	else if (err == DB_OK && !says_no_master(f))
		relay(f);
	else if (err == DB_OK || err == DB_UNAVAILABLE)
		front_request_park(f->req);
	else
		end_unanswered(f, err, em);
	buf_fini(&f->body);
	free(f);
}

/* ---- asking */

/* Nothing was sent. */
static void end_unasked(struct front_request *req, enum db_err err, const struct errmsg *em)
{
	if (err == DB_TIMEOUT || err == DB_CLOSED)
		front_request_park(req); /* which says what became of it */
	else
		front_request_fail(req, QUERY_INTERNAL, em->text);
}

static enum db_err start_fetch(struct forward *f, struct errmsg *em)
{
	struct front_request *req = f->req;
	uint64_t now_ms = clock_mono_ms(), left_ms = req->deadline_ms > now_ms ? req->deadline_ms - now_ms : 0;
	bool typed = req->query != NULL && req->query->typed;
	char timeout[64], hops[64], role_max[64], trace[128];
	const char *const headers[] = {"Content-Type: application/json",
				       FORWARDED_HEADER ": 1",
				       timeout,
				       hops,
				       role_max,
				       trace,
				       typed ? "Accept: " TYPED_ROWS_TYPE : NULL,
				       NULL};
	struct remote_request request = {.address = req->master_http,
					 .path = req->query != NULL ? "/query" : http_request_path(req->http),
					 .token = http_request_bearer(req->http),
					 .headers = headers,
					 .deadline_ms = req->deadline_ms,
					 .is_read = req->query != NULL && req->query->request_id != NULL,
					 .member = true,
					 .at_once = true};
	const struct http_call_handler handler = {.on_head = on_head, .on_body = on_body, .on_end = on_end, .arg = f};

	left_ms -= left_ms / 10 < MARGIN_MS_MAX ? left_ms / 10 : MARGIN_MS_MAX;
	snprintf(timeout, sizeof(timeout), FORWARDED_TIMEOUT_HEADER ": %" PRIu64, left_ms > 0 ? left_ms : 1);
	snprintf(trace, sizeof(trace), REQUEST_ID_HEADER ": %s", http_request_id(req->http));
	snprintf(hops, sizeof(hops), HOPS_HEADER ": %u", req->federated != NULL ? req->federated->hops : 0);
	snprintf(role_max, sizeof(role_max), ROLE_MAX_HEADER ": %s",
		 auth_role_name(req->query != NULL ? req->query->role : http_request_role(req->http)));
	if (req->query != NULL)
		request.body = http_request_body(req->http, &request.body_len);
	return front_fetch_start(&f->fetch, req->worker, &request, &handler, em);
}

void forward_start(struct front_request *req)
{
	struct front_worker *w = req->worker;
	struct forward *f;
	struct errmsg em = {0};
	enum db_err err;

	if (req->master_http[0] == '\0' || w->stopping) {
		front_request_park(req);
		return;
	}
	f = calloc(1, sizeof(*f));
	if (f == NULL) {
		front_request_fail(req, QUERY_INTERNAL, "out of memory");
		return;
	}
	f->req = req;
	f->next = w->forwards;
	w->forwards = f;
	snprintf(f->content_type, sizeof(f->content_type), "application/json");
	err = start_fetch(f, &em);
	if (err != DB_OK) {
		unlink_forward(f);
		free(f);
		end_unasked(req, err, &em);
		return;
	}
	log_debug("forwards to the master, %s", req->master_http);
	frontend_count_forward(w->frontend);
	front_worker_arm_tick(w);
}

/* ---- looking after those under way */

void forward_on_master_change(struct front_worker *w, const char *address)
{
	struct forward *f, *next;

	for (f = w->forwards; f != NULL; f = next) {
		next = f->next;
		if (f->stream == NULL && f->body.len == 0 && strcmp(f->req->master_http, address) != 0 &&
		    is_repeatable(f->req))
			front_fetch_cancel(f->fetch);
	}
}

void forward_look_after(struct front_worker *w)
{
	struct forward *f, *next;
	bool useless;

	for (f = w->forwards; f != NULL; f = next) {
		next = f->next;
		if (f->stream != NULL)
			useless = http_stream_stalled_ms(f->stream) >= STALL_MS;
		else
			useless = atomic_load(http_request_gone(f->req->http)) && is_read(f->req);
		if (useless)
			front_fetch_cancel(f->fetch);
	}
}

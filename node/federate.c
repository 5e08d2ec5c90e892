/*
 * federate.c - see federate.h.
 *
 * One struct ship for each request under way, on its worker's list. The other node's answer goes through a
 * shipped_answer, which checks it and cuts it at whole rows. A short one goes back in one piece; a longer one becomes a
 * stream, and its fetch is paused while the client does not read. A read whose connection breaks before a first row was
 * passed on is asked again a few times (the other side may be changing its master); a write only with a request_id.
 *
 * Invariant: once a stream exists, what was sent ends at a whole row, and the stream ends with "status":"ok" only when the
 * other node's answer came whole and said so.
 */
#include "node/federate.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/query/ship_request.h"
#include "common/remote/shipped_answer.h"
#include "node/front_fetch.h"

#define WHOLE_BYTES_MAX ((size_t)64 << 10) /* an answer up to this goes back in one piece */
#define ERROR_BYTES_MAX ((size_t)64 << 10)
#define TRIES_MAX       4u
#define STALL_MS        30000 /* a client that takes nothing of a stream for so long is cut off */
#define MARGIN_MS_MAX   50    /* the other node gets so much less time: its own TIMEOUT says more than ours */

struct ship {
	struct ship *next; /* worker's list */
	struct front_request *req;
	struct front_fetch *fetch; /* NULL: it has ended */
	struct shipped_answer *answer;
	struct http_stream *stream; /* has req's HTTP request; NULL: nothing was sent yet */
	bool writes;
	bool has_token;
	struct buf end;  /* of the stream: our own end of the answer, or the error that it breaks off with */
	bool has_end;    /* end is what remains to be sent */
	bool whole;      /* all of the answer has come, and it is good; what is left waits for the client */
	bool is_ndjson;  /* the answer that came */
	bool type_wrong; /* it came as neither JSON nor lines */
	int status;
	enum db_err broken; /* what came is no answer: why; DB_OK: it is one so far */
	struct errmsg broken_why;
	unsigned tries;
	uint64_t bytes;
	const struct federated_ref *ref; /* the first one: its node, and a name for messages */
};

/* ---- the end of a ship */

static void unlink_ship(struct ship *s)
{
	struct ship **at = &s->req->worker->ships;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
}

/* Its stream and its HTTP request have been answered. */
static void ship_free(struct ship *s)
{
	unlink_ship(s);
	shipped_answer_free(s->answer);
	front_request_free(s->req);
	buf_fini(&s->end);
	free(s);
}

static void put_remote(struct buf *out, const struct ship *s)
{
	uint64_t us = clock_mono_us() - s->req->started_us;

	buf_puts(out, ",\"remote\":[{\"node\":");
	json_put_string(out, s->ref->address, strlen(s->ref->address));
	buf_printf(out,
		   ",\"requests\":%u,\"rows\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"ms\":%" PRIu64 ".%03" PRIu64 "}]",
		   s->tries, shipped_answer_rows(s->answer), s->bytes, us / 1000, us % 1000);
}

/* Our end of an answer that is ok, without status and brace. */
static void put_trailer(struct buf *out, const struct ship *s)
{
	uint64_t lsn = 0;

	shipped_answer_lsn(s->answer, &lsn);
	answer_put_trailer_fields(out, lsn, frontend_get_options(s->req->worker->frontend)->node_id,
				  clock_mono_us() - s->req->started_us);
	put_remote(out, s);
}

static const char *content_type(const struct ship *s)
{
	return s->is_ndjson ? "application/x-ndjson" : "application/json";
}

/* Sends s->end, now or when the client takes it, and ends the stream. */
static void finish_stream(struct ship *s)
{
	enum db_err err = s->end.failed ? DB_NOMEM : http_stream_try_write(s->stream, s->end.data, s->end.len);

	s->has_end = true;
	if (err == DB_BUSY)
		return; /* on_wakeup() comes back */
	http_stream_end(s->stream, err == DB_OK && s->whole);
	if (err == DB_OK && s->whole)
		front_request_note(s->req, TIMING_FEDERATED_WHOLE);
	ship_free(s);
}

/* Ends what the client has of the answer with an error. */
static void break_stream(struct ship *s, const struct query_error *error)
{
	const void *ready;
	size_t len;

	shipped_answer_break_off(s->answer);
	ready = shipped_answer_ready(s->answer, &len);
	buf_put(&s->end, ready, len);
	if (s->is_ndjson) {
		answer_put_error(&s->end, error);
	} else {
		if (shipped_answer_has_members(s->answer))
			buf_put_u8(&s->end, ',');
		answer_put_error_fields(&s->end, error);
		buf_puts(&s->end, "}\n");
	}
	finish_stream(s);
}

static void fail_with(struct ship *s, const struct query_error *error)
{
	if (s->stream != NULL) {
		break_stream(s, error);
		return;
	}
	http_reply_error(s->req->http, error);
	ship_free(s);
}

/* "host:port@table: …" */
static void fail(struct ship *s, enum query_code code, const char *what, const char *why)
{
	struct query_error error = {.statement = -1};
	char name[FEDERATION_NAME_MAX];
	size_t skip = strlen(s->ref->address);

	federation_name(name, sizeof(name), s->ref);
	if (strncmp(why, s->ref->address, skip) == 0 && strncmp(why + skip, ": ", 2) == 0)
		why += skip + 2; /* it is in the name */
	query_error_set(&error, code, "%s: %s%s%s", name, what, why[0] != '\0' ? ": " : "", why);
	fail_with(s, &error);
}

/* ---- sending on */

static void on_wakeup(void *arg);

/* After an error s->stream tells whether the stream exists. */
static enum db_err start_stream(struct ship *s)
{
	enum db_err err = http_stream_create(&s->stream, s->req->http, 200, content_type(s));

	if (err != DB_OK)
		return err;
	http_stream_set_wakeup(s->stream, on_wakeup, s);
	return s->is_ndjson ? DB_OK : http_stream_try_write(s->stream, "{", 1);
}

/* Passes on what is ready. DB_BUSY: the client has enough for now. */
static enum db_err send_ready(struct ship *s)
{
	const void *ready;
	size_t len;
	enum db_err err;

	ready = shipped_answer_ready(s->answer, &len);
	if (s->stream == NULL && len <= WHOLE_BYTES_MAX)
		return DB_OK;
	err = s->stream == NULL ? start_stream(s) : DB_OK;
	if (err == DB_OK && len > 0)
		err = http_stream_try_write(s->stream, ready, len);
	if (err == DB_OK)
		shipped_answer_sent(s->answer, len);
	return err;
}

/* The answer is whole and nothing of it was sent. */
static void reply_whole(struct ship *s)
{
	struct buf body = {0};
	const void *ready;
	size_t len;

	ready = shipped_answer_ready(s->answer, &len);
	if (s->is_ndjson) {
		buf_put(&body, ready, len);
	} else {
		buf_puts(&body, "{\"status\":\"ok\",");
		buf_put(&body, ready, len);
		put_trailer(&body, s);
		buf_puts(&body, "}\n");
	}
	if (body.failed) {
		buf_fini(&body);
		fail(s, QUERY_INTERNAL, "out of memory for its answer", "");
		return;
	}
	http_reply(s->req->http, 200, content_type(s), &body);
	front_request_note(s->req, TIMING_FEDERATED_WHOLE);
	ship_free(s);
}

/* The answer is whole and a part of it was sent. */
static void end_stream(struct ship *s)
{
	enum db_err err = send_ready(s);

	if (err == DB_BUSY)
		return; /* on_wakeup() comes back */
	if (err != DB_OK) {
		http_stream_end(s->stream, false);
		ship_free(s);
		return;
	}
	if (!s->is_ndjson) {
		put_trailer(&s->end, s);
		buf_puts(&s->end, ",\"status\":\"ok\"}\n");
	}
	finish_stream(s);
}

/* The client takes again, or has gone. */
static void on_wakeup(void *arg)
{
	struct ship *s = arg;

	if (atomic_load(http_stream_gone(s->stream))) {
		if (s->fetch != NULL) {
			front_fetch_cancel(s->fetch);
			return;
		}
		http_stream_end(s->stream, false);
		ship_free(s);
	} else if (s->has_end) {
		finish_stream(s);
	} else if (s->whole) {
		end_stream(s);
	} else {
		front_fetch_resume(s->fetch);
	}
}

/* ---- the answer comes */

static void on_head(void *arg, int status, const char *content_type)
{
	struct ship *s = arg;

	s->status = status;
	s->is_ndjson = status == 200 && strncmp(content_type, "application/x-ndjson", 20) == 0;
	s->type_wrong = (!s->is_ndjson && strncmp(content_type, "application/json", 16) != 0) ||
			(s->is_ndjson && s->req->query->format != QUERY_NDJSON);
}

/* Takes all of a piece or, when the client has enough, none. */
static bool on_body(void *arg, const void *bytes, size_t len)
{
	struct ship *s = arg;
	enum db_err err;

	if (s->type_wrong || s->broken != DB_OK)
		return true; /* on_end() says so */
	if (s->answer == NULL)
		s->broken = shipped_answer_create(&s->answer, s->is_ndjson, !s->writes);
	if (s->broken != DB_OK)
		return true;
	err = s->status == 200 ? send_ready(s) : DB_OK;
	if (err == DB_BUSY)
		return false; /* on_wakeup() goes on */
	s->bytes += len;
	if (s->status != 200 && s->bytes > ERROR_BYTES_MAX)
		s->broken =
		    errmsg_set(&s->broken_why, DB_TOO_LARGE, "an error of more than %zu bytes", ERROR_BYTES_MAX);
	else if (err == DB_OK)
		s->broken = shipped_answer_feed(s->answer, bytes, len, &s->broken_why);
	if (err == DB_OK && s->broken == DB_OK && s->status == 200)
		err = send_ready(s);
	if ((err != DB_OK && err != DB_BUSY) || s->broken != DB_OK)
		front_fetch_cancel(s->fetch); /* that was on_end() */
	return true;
}

/* ---- it has come, or not */

/* The table in SQLite's "no such table: main.x" is the one to name. */
static const struct federated_ref *find_unknown(const struct ship *s, const char *message)
{
	static const char prefix[] = "no such table: main.";
	const struct federated_request *fr = s->req->federated;
	size_t i, j;

	if (strncmp(message, prefix, sizeof(prefix) - 1) != 0)
		return NULL;
	for (i = 0; i < fr->request->statement_count; i++)
		for (j = 0; fr->scans[i] != NULL && j < fr->scans[i]->ref_count; j++)
			if (strcmp(fr->scans[i]->refs[j].table, message + sizeof(prefix) - 1) == 0)
				return &fr->scans[i]->refs[j];
	return NULL;
}

/* The statement itself is at fault: the other node says it as we would. */
static bool is_statements_fault(enum query_code code)
{
	return code == QUERY_SQL_ERROR || code == QUERY_CONSTRAINT || code == QUERY_TOO_LARGE ||
	       code == QUERY_FORBIDDEN || code == QUERY_BAD_REQUEST;
}

/* The other node answered with an error. */
static void relay_error(struct ship *s)
{
	const struct federated_ref *unknown;
	struct query_error theirs, error;
	char name[FEDERATION_NAME_MAX], what[64];

	shipped_answer_error(s->answer, &theirs);
	unknown = find_unknown(s, theirs.message);
	if (unknown != NULL) {
		s->ref = unknown;
		fail(s, QUERY_REMOTE_ERROR, "that node has no such table", "");
	} else if (theirs.code == QUERY_UNAUTHORIZED) {
		fail(s, QUERY_REMOTE_ERROR,
		     s->has_token ? "that node refused the token"
				  : "that node asks for a token, and cluster.json has none for it in remote.nodes",
		     "");
	} else if (is_statements_fault(theirs.code) || (s->writes && theirs.code == QUERY_NO_QUORUM)) {
		federation_name(name, sizeof(name), s->ref);
		query_error_set(&error, theirs.code, "%s: %s", name, theirs.message);
		error.statement = theirs.statement;
		fail_with(s, &error);
	} else {
		snprintf(what, sizeof(what), "that node answered %s", query_code_name(theirs.code));
		fail(s, QUERY_REMOTE_ERROR, what, theirs.message);
	}
}

/* The call has ended with an answer of some kind. */
static void take_answer(struct ship *s)
{
	struct errmsg em = {0};
	char what[80];

	if (s->answer == NULL && s->is_ndjson && shipped_answer_create(&s->answer, true, !s->writes) != DB_OK) {
		fail(s, QUERY_INTERNAL, "out of memory for its answer", "");
	} else if (s->type_wrong || s->answer == NULL) {
		snprintf(what, sizeof(what), "what answered there (HTTP %d) is no Grizzly node", s->status);
		fail(s, QUERY_REMOTE_ERROR, what, "");
	} else if (shipped_answer_end(s->answer, &em) != DB_OK) {
		fail(s, QUERY_REMOTE_ERROR, "its answer is damaged", em.text);
	} else if (shipped_answer_is_error(s->answer) && !(s->is_ndjson && s->status == 200)) {
		relay_error(s);
	} else if (s->status != 200) {
		snprintf(what, sizeof(what), "its answer is damaged: HTTP %d that says ok", s->status);
		fail(s, QUERY_REMOTE_ERROR, what, "");
	} else {
		s->whole = true;
		if (s->stream != NULL)
			end_stream(s);
		else
			reply_whole(s);
	}
}

static void start(struct ship *s);

static bool may_try_again(const struct ship *s)
{
	return s->stream == NULL && s->tries < TRIES_MAX && (!s->writes || s->req->query->request_id != NULL) &&
	       !s->req->worker->stopping && clock_mono_ms() < s->req->deadline_ms;
}

static void try_again(struct ship *s)
{
	shipped_answer_free(s->answer);
	s->answer = NULL;
	s->status = 0;
	start(s);
}

/* No whole answer came. */
static void end_unanswered(struct ship *s, enum db_err err, const struct errmsg *em)
{
	const char *maybe = s->writes ? "; the write may have been committed" : "";
	char what[128];

	if (s->req->worker->stopping) {
		fail(s, QUERY_NO_MASTER, "the node is stopping", "");
	} else if (s->broken == DB_NOMEM || err == DB_NOMEM) {
		fail(s, QUERY_INTERNAL, "out of memory for its answer", "");
	} else if (s->broken != DB_OK) {
		snprintf(what, sizeof(what), "its answer is damaged%s", maybe);
		fail(s, QUERY_REMOTE_ERROR, what, s->broken_why.text);
	} else if (err == DB_IO && s->answer != NULL && shipped_answer_is_error(s->answer)) {
		relay_error(s); /* it broke off by itself, and said why */
	} else if ((err == DB_IO || (err == DB_UNAVAILABLE && s->tries > 1)) && may_try_again(s)) {
		try_again(s); /* after a pause, which is the pool's to make */
	} else if (err == DB_UNAVAILABLE) {
		fail(s, QUERY_REMOTE_ERROR, "that node cannot be reached", em->text);
	} else if (err == DB_TIMEOUT) {
		snprintf(what, sizeof(what), "that node did not answer in time%s", maybe);
		fail(s, QUERY_REMOTE_ERROR, what, em->text);
	} else if (err == DB_INVALID) {
		fail(s, QUERY_REMOTE_ERROR, "that node cannot be asked", em->text);
	} else if (err == DB_CLOSED) {
		fail(s, QUERY_TIMEOUT, "the client has gone", ""); /* nobody reads it */
	} else {
		snprintf(what, sizeof(what), "the connection to that node broke%s", maybe);
		fail(s, QUERY_REMOTE_ERROR, what, em->text);
	}
}

static void on_end(void *arg, enum db_err err, const struct errmsg *em)
{
	struct ship *s = arg;

	s->fetch = NULL;
	log_set_request_id(s->req->query->trace_id);
	if (err == DB_OK && s->broken == DB_OK)
		take_answer(s);
	else
		end_unanswered(s, err, em);
}

/* ---- asking */

static enum db_err start_fetch(struct ship *s, const char *token, struct errmsg *em)
{
	struct front_request *req = s->req;
	uint64_t now_ms = clock_mono_ms(), left_ms = req->deadline_ms > now_ms ? req->deadline_ms - now_ms : 0;
	char hops[sizeof(HOPS_HEADER) + 16], role_max[sizeof(ROLE_MAX_HEADER) + 16], trace[128];
	const char *const headers[] = {"Content-Type: application/json", hops, role_max, trace, NULL};
	const struct http_call_handler handler = {.on_head = on_head, .on_body = on_body, .on_end = on_end, .arg = s};
	struct remote_request request = {.address = s->ref->address,
					 .path = "/query",
					 .token = token,
					 .headers = headers,
					 .deadline_ms = req->deadline_ms,
					 .is_read = !s->writes || req->query->request_id != NULL,
					 .level = req->federated->hops};
	struct buf body = {0};
	enum db_err err;

	left_ms -= left_ms / 10 < MARGIN_MS_MAX ? left_ms / 10 : MARGIN_MS_MAX;
	ship_request_put(&body, req->federated, left_ms > 0 ? left_ms : 1);
	snprintf(hops, sizeof(hops), HOPS_HEADER ": %u", req->federated->hops + 1);
	snprintf(role_max, sizeof(role_max), ROLE_MAX_HEADER ": %s", auth_role_name(req->query->role));
	snprintf(trace, sizeof(trace), REQUEST_ID_HEADER ": %s", req->query->trace_id);
	request.body = body.data;
	request.body_len = body.len;
	s->tries++;
	if (body.failed)
		err = errmsg_set(em, DB_NOMEM, "out of memory");
	else
		err = front_fetch_start(&s->fetch, req->worker, &request, &handler, em);
	buf_fini(&body);
	return err;
}

static void start(struct ship *s)
{
	struct remote_access *access = frontend_get_options(s->req->worker->frontend)->access;
	char token[REMOTE_TOKEN_MAX];
	struct errmsg em = {0};
	enum db_err err;

	err = remote_access_token(access, s->ref->address, token, &em);
	if (err == DB_INVALID) {
		fail(s, QUERY_FORBIDDEN, "that node may not be asked", em.text);
		return;
	}
	if (err != DB_OK) {
		fail(s, QUERY_REMOTE_ERROR, "its token cannot be used", em.text);
		return;
	}
	s->has_token = token[0] != '\0';
	err = start_fetch(s, token, &em);
	explicit_bzero(token, sizeof(token));
	if (err == DB_TIMEOUT)
		fail(s, QUERY_REMOTE_ERROR, "the time ran out before that node was asked", "");
	else if (err != DB_OK)
		fail(s, err == DB_NOMEM ? QUERY_INTERNAL : QUERY_REMOTE_ERROR, "that node cannot be asked", em.text);
}

static void ship(struct front_request *req, bool writes)
{
	struct front_worker *w = req->worker;
	struct ship *s = calloc(1, sizeof(*s));

	if (s == NULL) {
		front_request_fail(req, QUERY_INTERNAL, "out of memory");
		return;
	}
	s->req = req;
	s->writes = writes;
	s->ref = federated_request_first_ref(req->federated);
	s->next = w->ships;
	w->ships = s;
	front_worker_arm_tick(w);
	start(s);
}

static unsigned hops_of(const struct http_request *http)
{
	const char *hops = http_request_header(http, HOPS_HEADER);
	unsigned long count = hops != NULL ? strtoul(hops, NULL, 10) : 0;

	return count > HOPS_MAX ? HOPS_MAX : (unsigned)count;
}

static void fail_request(struct front_request *req, const struct query_error *error)
{
	http_reply_error(req->http, error);
	front_request_free(req);
}

void federate_start(struct front_request *req)
{
	struct query_error error = {.statement = -1};
	char name[FEDERATION_NAME_MAX];
	enum federated_plan plan;

	req->federated->hops = hops_of(req->http);
	if (req->federated->hops >= HOPS_MAX) {
		federation_name(name, sizeof(name), federated_request_first_ref(req->federated));
		query_error_set(&error, QUERY_REMOTE_ERROR,
				"%s: the request has been passed on %u times already, which is the limit: do nodes "
				"refer to each other in a circle?",
				name, HOPS_MAX);
		fail_request(req, &error);
		return;
	}
	if (federated_request_plan(req->federated, &plan, &error) != QUERY_OK)
		fail_request(req, &error);
	else if (req->query->role < federated_plan_needs(plan))
		front_request_fail(req, QUERY_FORBIDDEN, "this statement needs a token with the role write");
	else if (plan == FEDERATED_SHIP_READ || plan == FEDERATED_SHIP_WRITE)
		ship(req, plan == FEDERATED_SHIP_WRITE);
	else
		front_request_dispatch(req);
}

/* ---- looking after those under way */

void federate_look_after(struct front_worker *w)
{
	struct ship *s, *next;
	bool useless;

	for (s = w->ships; s != NULL; s = next) {
		next = s->next;
		if (s->stream != NULL)
			useless = http_stream_stalled_ms(s->stream) >= STALL_MS;
		else
			useless = atomic_load(http_request_gone(s->req->http));
		if (!useless)
			continue;
		if (s->fetch != NULL) {
			front_fetch_cancel(s->fetch);
		} else {
			http_stream_end(s->stream, false); /* the rest waits for nobody */
			ship_free(s);
		}
	}
}

void federate_stop(struct front_worker *w)
{
	struct ship *s;

	while ((s = w->ships) != NULL) {
		assert(s->fetch == NULL && s->stream != NULL);
		http_stream_end(s->stream, false);
		ship_free(s);
	}
}

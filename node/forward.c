/*
 * forward.c - asking the master on behalf of a client of this node.
 *
 * The request goes on as it came, with the cluster's token and a header against loops; the master's answer comes back as
 * it is. A request that the master certainly did not execute is parked and tried again, for a new master may be there in
 * a moment. A read may always be asked again. A write whose answer was lost ends as REMOTE_ERROR: its outcome is unknown.
 * A read that waits for a master that has been replaced is given up and asked again at once. A write is not: a master
 * that handed over answers it still (a dead one's connection breaks), and its answer is the only way to know its outcome.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "node/front_request.h"

#define FORWARD_BODY_MAX ((size_t)256 << 20)

struct forward {
	struct forward *next; /* worker's list */
	struct front_request *req;
	struct http_call *call;
	int status;
	char content_type[64];
	struct buf body;
	bool too_large;
};

static void on_head(void *arg, int status, const char *content_type)
{
	struct forward *f = arg;
	size_t len = strlen(content_type);

	f->status = status;
	if (len < sizeof(f->content_type))
		memcpy(f->content_type, content_type, len + 1);
}

static bool on_body(void *arg, const void *bytes, size_t len)
{
	struct forward *f = arg;

	if (f->body.len + len > FORWARD_BODY_MAX)
		f->too_large = true;
	else
		buf_put(&f->body, bytes, len);
	return true;
}

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

	return f->status == 503 && f->body.len > 0 &&
	       memmem(f->body.data, f->body.len, code, sizeof(code) - 1) != NULL;
}

static bool is_read(struct front_request *req)
{
	struct query_error error;
	enum query_kind kind;

	return query_classify(req->worker->conn, req->query, &kind, &error) == QUERY_OK && kind == QUERY_KIND_READ;
}

static void relay(struct forward *f)
{
	struct front_request *req = f->req;

	if (f->too_large || f->body.failed) {
		front_request_fail(req, QUERY_TOO_LARGE, "the answer is too large to be forwarded; ask the master");
		return;
	}
	http_reply(req->http, f->status, f->content_type[0] != '\0' ? f->content_type : "application/json", &f->body);
	front_request_free(req);
}

static void on_end(void *arg, enum db_err err, const struct errmsg *em)
{
	struct forward *f = arg;
	struct front_request *req = f->req;

	(void)em;
	unlink_forward(f);
	if (err == DB_OK && !says_no_master(f))
		relay(f);
	else if (req->worker->stopping)
		front_request_fail(req, QUERY_NO_MASTER, "the node is stopping");
	else if (err == DB_OK || err == DB_UNAVAILABLE)
		front_request_park(req);
	else if (err == DB_TIMEOUT)
		front_request_fail(req, QUERY_TIMEOUT, "the master did not answer in time; a write may have been committed");
	else if (is_read(req))
		front_request_park(req);
	else
		front_request_fail(req, QUERY_REMOTE_ERROR,
		                   "the connection to the master broke; the write may have been committed");
	buf_fini(&f->body);
	free(f);
}

void forward_start(struct front_request *req)
{
	static const char *const headers[] = {"Content-Type: application/json", FORWARDED_HEADER ": 1", NULL};
	struct front_worker *w = req->worker;
	struct http_call_request call = {.address = req->master_http,
					 .path = "/query",
					 .bearer_token = w->token,
					 .headers = headers,
					 .deadline_ms = req->deadline_ms};
	struct http_call_handler handler = {.on_head = on_head, .on_body = on_body, .on_end = on_end};
	struct errmsg em = {0};
	struct forward *f;

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
	handler.arg = f;
	call.body = http_request_body(req->http, &call.body_len);
	frontend_count_forward(w->frontend);
	if (http_call_start(&f->call, w->client, &call, &handler, &em) != DB_OK)
		on_end(f, DB_UNAVAILABLE, &em);
}

void forward_on_master_change(struct front_worker *w, const char *address)
{
	struct forward *f, *next;

	for (f = w->forwards; f != NULL; f = next) {
		next = f->next;
		if (strcmp(f->req->master_http, address) != 0 && is_read(f->req))
			http_call_cancel(f->call);
	}
}

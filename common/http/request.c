/*
 * request.c - one request on its way through a handler: what it asks, whether it may, and the reply.
 *
 * A request is ours from http_request_arrived() to the call that ends it. When the client goes meanwhile, conn becomes
 * NULL and evhttp's request is left to us alone (conn.c, rule (1)): the reply then frees both and sends nothing.
 */
#include "common/http/internal.h"

#include <assert.h>
#include <event2/keyvalq_struct.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/base/clock.h"
#include "common/base/log.h"

static const char json_type[] = "application/json";

/* --- Replying. --- */

void http_request_client_gone(struct http_request *req)
{
	req->conn = NULL;
	atomic_store(&req->gone, true);
	if (req->stream != NULL)
		http_stream_client_gone(req->stream);
}

void http_request_forget(struct http_request *req)
{
	http_uncount(&req->worker->counts.requests_in_flight);
	if (req->body_bytes > 0)
		atomic_fetch_sub(&req->worker->server->body_bytes, req->body_bytes);
	free(req);
}

void http_request_drop(struct http_request *req)
{
	assert(req->conn == NULL);
	evhttp_request_free(req->ereq);
	http_request_forget(req);
}

/* evhttp would format the time for every reply. */
static const char *date_header(struct http_worker *w)
{
	if (w->date_ms == 0 || w->now_ms - w->date_ms >= 1000) {
		evutil_date_rfc1123(w->date, sizeof(w->date), NULL);
		w->date_ms = w->now_ms;
	}
	return w->date;
}

static void lend(struct http_lent *lent, struct evkeyvalq *headers, const char *key, const char *value)
{
	struct evkeyval *header = &lent->headers[lent->count++];

	header->key = (char *)(uintptr_t)key;
	header->value = (char *)(uintptr_t)value;
	TAILQ_INSERT_TAIL(headers, header, next);
}

void http_request_take_headers_back(struct evhttp_request *ereq, struct http_lent *lent)
{
	while (lent->count > 0) {
		lent->count--;
		TAILQ_REMOVE(evhttp_request_get_output_headers(ereq), &lent->headers[lent->count], next);
	}
}

void http_request_put_headers(struct http_request *req, int status, const char *content_type, struct http_lent *lent)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(req->ereq);
	struct http_worker *w = req->worker;

	assert(status >= 200 && status <= 599);
	http_count(&w->counts.replies_by_class[status / 100]);
	if (log_is_wanted(LOG_LEVEL_DEBUG))
		http_trace_answered(req, status);
	lent->count = 0;
	memcpy(lent->id, req->id, sizeof(lent->id)); /* req may go before they are taken back */
	lend(lent, headers, "Content-Type", content_type);
	lend(lent, headers, HTTP_REQUEST_ID_HEADER, lent->id);
	if (!req->conn->frame.version_1_0)
		lend(lent, headers, "Date", date_header(w));
	if (status == 429 && evhttp_find_header(headers, "Retry-After") == NULL)
		evhttp_add_header(headers, "Retry-After", HTTP_RETRY_AFTER_S);
	if (w->draining)
		evhttp_add_header(headers, "Connection", "close");
}

static void free_reference(const void *bytes, size_t len, void *arg)
{
	(void)len;
	(void)arg;
	free((void *)(uintptr_t)bytes);
}

/* Moves body's content into out; false when memory is short. */
static bool put_body(struct evbuffer *out, struct buf *body)
{
	uint8_t *bytes;
	size_t len;
	int rc;

	if (body->len == 0)
		return true;
	if (body->len <= HTTP_COPY_MAX)
		return evbuffer_add(out, body->data, body->len) == 0;
	bytes = buf_take(body, &len);
	rc = evbuffer_add_reference(out, bytes, len, free_reference, NULL);
	if (rc != 0)
		free(bytes);
	return rc == 0;
}

static void put_content_length(struct http_request *req, size_t len)
{
	char text[24];

	snprintf(text, sizeof(text), "%zu", len);
	evhttp_add_header(evhttp_request_get_output_headers(req->ereq), "Content-Length", text);
}

void http_reply(struct http_request *req, int status, const char *content_type, struct buf *body)
{
	static const char no_memory[] =
	    "{\"status\":\"error\",\"code\":\"INTERNAL\",\"message\":\"out of memory for the answer\"}\n";
	struct evhttp_request *ereq = req->ereq;
	struct http_conn *c = req->conn;
	struct evbuffer *out = evhttp_request_get_output_buffer(ereq);
	struct http_lent lent;

	if (c == NULL) {
		http_request_drop(req);
		goto done;
	}
	if (body->failed || (!req->head && !put_body(out, body))) {
		buf_fini(body);
		status = 500;
		content_type = json_type;
		evbuffer_drain(out, evbuffer_get_length(out));
		evbuffer_add(out, no_memory, req->head ? 0 : sizeof(no_memory) - 1);
	}
	http_request_put_headers(req, status, content_type, &lent);
	if (req->head) /* the length that a GET would have had */
		put_content_length(req, body->len);
	/* A client that is slow to read its answer keeps no body in memory. */
	evbuffer_drain(evhttp_request_get_input_buffer(ereq), SIZE_MAX);
	http_request_forget(req);
	http_conn_set_writing(c);
	evhttp_send_reply(ereq, status, NULL, NULL);
	http_request_take_headers_back(ereq, &lent);
	http_conn_flush_soon(c);
done:
	buf_fini(body);
}

void http_reply_error(struct http_request *req, const struct query_error *error)
{
	struct buf body = {0};

	http_trace_failed(req, error);
	answer_put_error(&body, error);
	http_reply(req, query_code_http_status(error->code), json_type, &body);
}

void http_reply_add_header(struct http_request *req, const char *name, const char *value)
{
	evhttp_add_header(evhttp_request_get_output_headers(req->ereq), name, value);
}

/* --- What it asks. --- */

static enum http_method method_of(const struct http_request *req)
{
	switch (evhttp_request_get_command(req->ereq)) {
	case EVHTTP_REQ_GET:
		return HTTP_GET;
	case EVHTTP_REQ_POST:
		return HTTP_POST;
	case EVHTTP_REQ_HEAD:
		return HTTP_HEAD;
	default:
		return HTTP_OTHER;
	}
}

const char *http_request_method_name(const struct http_request *req)
{
	switch (evhttp_request_get_command(req->ereq)) {
	case EVHTTP_REQ_GET:
		return "GET";
	case EVHTTP_REQ_POST:
		return "POST";
	case EVHTTP_REQ_HEAD:
		return "HEAD";
	case EVHTTP_REQ_PUT:
		return "PUT";
	case EVHTTP_REQ_DELETE:
		return "DELETE";
	case EVHTTP_REQ_OPTIONS:
		return "OPTIONS";
	case EVHTTP_REQ_TRACE:
		return "TRACE";
	case EVHTTP_REQ_CONNECT:
		return "CONNECT";
	case EVHTTP_REQ_PATCH:
		return "PATCH";
	default:
		return "?";
	}
}

struct http_worker *http_request_worker(const struct http_request *req)
{
	return req->worker;
}

const void *http_request_body(struct http_request *req, size_t *len)
{
	struct evbuffer *in = evhttp_request_get_input_buffer(req->ereq);
	const void *bytes;

	*len = evbuffer_get_length(in);
	if (*len == 0)
		return "";
	bytes = evbuffer_pullup(in, -1);
	if (bytes == NULL)
		*len = 0; /* out of memory: an empty body, which no handler takes for a request */
	return bytes == NULL ? "" : bytes;
}

const char *http_request_header(const struct http_request *req, const char *name)
{
	return evhttp_find_header(evhttp_request_get_input_headers(req->ereq), name);
}

const char *http_request_path(const struct http_request *req)
{
	return req->path;
}

uint64_t http_request_started_us(const struct http_request *req)
{
	return req->started_us;
}

const atomic_bool *http_request_gone(const struct http_request *req)
{
	return &req->gone;
}

/* --- Whether it may. --- */

static bool is_at(const struct http_route *route, const char *path)
{
	size_t len = strlen(route->path);

	return route->path[len - 1] == '*' ? strncmp(route->path, path, len - 1) == 0 : strcmp(route->path, path) == 0;
}

static const struct http_route *find_route(const struct http_server *s, const char *path)
{
	const struct http_route *route;

	for (route = s->options.routes; route->path != NULL; route++)
		if (is_at(route, path))
			return route;
	return NULL;
}

static void reply_not_found(struct http_request *req)
{
	struct query_error error = {.statement = -1};

	query_error_set(&error, QUERY_NOT_FOUND, "there is nothing at \"%s\"", req->path);
	error.statement = -1;
	http_reply_error(req, &error);
}

static void reply_wrong_method(struct http_request *req, const struct http_route *route)
{
	struct query_error error = {.statement = -1};
	char allow[32];

	snprintf(allow, sizeof(allow), "%s%s%s", (route->methods & HTTP_GET) != 0 ? "GET, " : "",
		 (route->methods & HTTP_HEAD) != 0 ? "HEAD, " : "", (route->methods & HTTP_POST) != 0 ? "POST, " : "");
	if (allow[0] != '\0')
		allow[strlen(allow) - 2] = '\0';
	http_reply_add_header(req, "Allow", allow);
	query_error_set(&error, QUERY_METHOD_NOT_ALLOWED, "%s is not a method of \"%s\"; use %s",
			http_request_method_name(req), req->path, allow);
	error.statement = -1;
	http_reply_error(req, &error);
}

static void dispatch(struct http_request *req)
{
	const struct http_server *s = req->worker->server;
	const struct http_route *route = find_route(s, req->path);

	if (route == NULL) {
		reply_not_found(req);
		return;
	}
	if ((route->methods & method_of(req)) == 0) {
		reply_wrong_method(req, route);
		return;
	}
	http_request_read_header(req);
	if (req->role == AUTH_NONE &&
	    (route->access == HTTP_TOKEN || (route->access == HTTP_TOKEN_OR_BODY && req->has_authorization))) {
		http_reply_unauthorized(req);
		return;
	}
	if (route->access == HTTP_TOKEN && req->role < route->role) {
		http_reply_forbidden(req, route->role);
		return;
	}
	route->handle(s->options.arg, req);
}

/* evhttp has parsed a whole request; it is the one that conn.c let through a moment ago, on this stack. */
void http_request_arrived(struct evhttp_request *ereq, void *worker)
{
	struct http_worker *w = worker;
	struct http_conn *c = w->parsing;
	struct evhttp_connection *evcon = evhttp_request_get_connection(ereq);
	struct http_request *req;

	if (c == NULL || c->evcon != evcon) {
		evhttp_connection_free(evcon); /* conn.c had no memory to watch over it */
		return;
	}
	req = calloc(1, sizeof(*req));
	if (req == NULL) {
		evhttp_connection_free(evcon);
		return;
	}
	req->worker = w;
	req->conn = c;
	req->ereq = ereq;
	req->path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(ereq));
	req->head = evhttp_request_get_command(ereq) == EVHTTP_REQ_HEAD;
	req->started_us = clock_mono_us();
	atomic_init(&req->gone, false);
	http_count(&w->counts.requests_total);
	http_count(&w->counts.requests_in_flight);
	http_trace_begin(req);
	http_conn_set_pending(c, req);
	dispatch(req);
	log_set_request_id(NULL);
}

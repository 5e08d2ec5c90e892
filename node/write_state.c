/*
 * write_state.c - GET /writes/REQUEST_ID: what became of a write, for a client whose connection broke.
 *
 * Asked of any node and answered by the master, as of a linearizable read. What is under way there is looked at before
 * what is committed, so that a write which is committed in between is not missed. Only when the master has nothing
 * does `lost` matter: its own list of cut writes first, then each other node's, one after the other (LOCAL_HEADER:
 * such a node answers from its list alone). A node that does not answer within ASK_MS cannot contribute: the answer
 * is `unknown` then.
 *
 * On a worker's thread. An ask holds its front_request until its last fetch has ended.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "node/front_fetch.h"
#include "node/front_request.h"

#define ASK_MS       1000
#define ASK_BODY_MAX 4096

/* Going round the other nodes. */
struct ask {
	struct front_request *req;
	struct members members;
	unsigned node; /* being asked, from 1 */
	int status;
	struct buf body;
};

/* ---- answers */

static void reply_state(struct front_request *req, const char *state, uint64_t lsn)
{
	struct buf body = {0};

	buf_puts(&body, "{\"status\":\"ok\",\"request_id\":");
	json_put_string(&body, req->write_id, strlen(req->write_id));
	buf_printf(&body, ",\"state\":\"%s\"", state);
	if (lsn > 0)
		buf_printf(&body, ",\"lsn\":%" PRIu64, lsn);
	buf_puts(&body, "}\n");
	http_reply(req->http, 200, "application/json", &body);
	front_request_free(req);
}

static bool lost_here(struct front_request *req, uint64_t *lsn)
{
	return lost_writes_find(frontend_get_options(req->worker->frontend)->lost_writes, req->write_id, lsn);
}

/* ---- asking the other nodes */

static void ask_next(struct ask *a);

static void ask_end(struct ask *a, const char *state, uint64_t lsn)
{
	reply_state(a->req, state, lsn);
	buf_fini(&a->body);
	free(a);
}

static void on_head(void *arg, int status, const char *content_type)
{
	struct ask *a = arg;

	(void)content_type;
	a->status = status;
}

static bool on_body(void *arg, const void *bytes, size_t len)
{
	struct ask *a = arg;

	if (a->body.len + len <= ASK_BODY_MAX)
		buf_put(&a->body, bytes, len);
	else
		a->body.failed = true;
	return true;
}

/* Whether the node says `lost`, and of which LSN. Whatever else it says counts for nothing. */
static bool says_lost(const struct ask *a, uint64_t *lsn)
{
	json_t *answer;
	const char *state;
	bool lost;

	if (a->status != 200 || a->body.failed || a->body.len == 0)
		return false;
	answer = json_loadb((const char *)a->body.data, a->body.len, 0, NULL);
	state = json_string_value(json_object_get(answer, "state"));
	lost = state != NULL && strcmp(state, "lost") == 0;
	*lsn = (uint64_t)json_integer_value(json_object_get(answer, "lsn"));
	json_decref(answer);
	return lost;
}

static void on_end(void *arg, enum db_err err, const struct errmsg *em)
{
	struct ask *a = arg;
	uint64_t lsn = 0;

	(void)em; /* a node that is gone cannot say; that is no error of the question */
	if (err == DB_OK && says_lost(a, &lsn))
		ask_end(a, "lost", lsn);
	else
		ask_next(a);
}

static enum db_err start_fetch(struct ask *a, struct errmsg *em)
{
	const struct frontend_options *options = frontend_get_options(a->req->worker->frontend);
	char trace[128];
	const char *const headers[] = {LOCAL_HEADER ": 1", trace, NULL};
	const struct http_call_handler handler = {.on_head = on_head, .on_body = on_body, .on_end = on_end, .arg = a};
	char address[CONFIG_ADDRESS_MAX];
	struct remote_request request = {.address = address,
					 .path = http_request_path(a->req->http),
					 .token = http_request_bearer(a->req->http),
					 .headers = headers,
					 .deadline_ms = clock_mono_ms() + ASK_MS,
					 .is_read = true,
					 .member = true,
					 .at_once = true};
	struct front_fetch *started;

	if (request.deadline_ms > a->req->deadline_ms)
		request.deadline_ms = a->req->deadline_ms;
	members_address(&a->members.entries[a->node - 1], options->config, CONFIG_HTTP, address);
	snprintf(trace, sizeof(trace), REQUEST_ID_HEADER ": %s", http_request_id(a->req->http));
	buf_clear(&a->body);
	a->status = 0;
	return front_fetch_start(&started, a->req->worker, &request, &handler, em);
}

static void ask_next(struct ask *a)
{
	const struct frontend_options *options = frontend_get_options(a->req->worker->frontend);
	struct errmsg em = {0};

	while (++a->node <= MEMBERS_MAX) {
		if (a->node == options->node || a->req->worker->stopping ||
		    !members_present(a->members.entries[a->node - 1].state))
			continue;
		if (start_fetch(a, &em) == DB_OK)
			return;
	}
	ask_end(a, "unknown", 0);
}

static void ask_others(struct front_request *req)
{
	struct ask *a = calloc(1, sizeof(*a));

	if (a == NULL) {
		front_request_fail(req, QUERY_INTERNAL, "out of memory");
		return;
	}
	a->req = req;
	roles_get_members(frontend_get_options(req->worker->frontend)->roles, &a->members);
	ask_next(a);
}

/* ---- the master's answer */

void write_state_answer(struct front_request *req)
{
	const struct frontend_options *options = frontend_get_options(req->worker->frontend);
	enum writer_knowledge under_way = roles_find_write(options->roles, req->write_id);
	struct query_error error = {.statement = -1};
	uint64_t lsn = 0;
	bool found;

	if (query_find_write(req->worker->conn, req->write_id, &found, &lsn, &error) != QUERY_OK)
		front_request_fail(req, error.code, error.message);
	else if (found)
		reply_state(req, "committed", lsn);
	else if (under_way == WRITER_PENDING)
		reply_state(req, "pending", 0);
	else if (under_way == WRITER_UNSURE)
		front_request_fail(req, QUERY_NO_QUORUM,
				   "writes are not confirmed by enough replicas; this one may be among them and may "
				   "still be committed: ask again");
	else if (lost_here(req, &lsn))
		reply_state(req, "lost", lsn);
	else
		ask_others(req);
}

/* ---- entry */

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Undoes %XX; false when that is malformed or what it says is no request_id. */
static bool decode_id(char out[QUERY_REQUEST_ID_MAX + 1], const char *text)
{
	size_t len = 0;

	for (; *text != '\0' && len < QUERY_REQUEST_ID_MAX; text++) {
		if (*text != '%') {
			out[len++] = *text;
			continue;
		}
		if (hex_value(text[1]) < 0 || hex_value(text[2]) < 0)
			return false;
		out[len++] = (char)(hex_value(text[1]) << 4 | hex_value(text[2]));
		text += 2;
	}
	out[len] = '\0';
	return *text == '\0' && query_request_id_ok(out, len);
}

void frontend_on_writes(struct http_request *http)
{
	struct front_worker *w = http_worker_data(http_request_worker(http));
	const struct cluster_config *config = frontend_get_options(w->frontend)->config;
	struct query_error error = {.statement = -1};
	struct front_request *req = calloc(1, sizeof(*req));
	uint64_t lsn = 0;
	bool lost;

	if (req == NULL || !decode_id(req->write_id, http_request_path(http) + strlen("/writes/"))) {
		query_error_set(&error, req == NULL ? QUERY_INTERNAL : QUERY_BAD_REQUEST, "%s",
				req == NULL ? "out of memory"
					    : "/writes/ must be followed by a request_id, percent-encoded: 1 to 64 "
					      "bytes of UTF-8 without control characters");
		free(req);
		http_reply_error(http, &error);
		return;
	}
	req->http = http;
	req->worker = w;
	req->started_us = http_request_started_us(http);
	req->deadline_ms = front_deadline_ms(config, 0, http);
	if (http_request_header(http, LOCAL_HEADER) == NULL) {
		front_request_dispatch(req);
		return;
	}
	lost = lost_here(req, &lsn);
	reply_state(req, lost ? "lost" : "unknown", lsn);
}

/*
 * admin_front.c - ADD REPLICA, REMOVE REPLICA and SHOW REPLICAS of a client of the master: asked of the supervisor by
 * node/admin.h, answered on the HTTP worker like a write or a read.
 */
#include <jansson.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "node/front_request.h"

static void reply_done(struct front_request *req)
{
	const struct frontend_options *options = frontend_get_options(req->worker->frontend);
	struct buf answer = {0};

	buf_puts(&answer, "{\"status\":\"ok\",\"rows_affected\":0,\"last_insert_id\":0,\"message\":");
	json_put_string(&answer, req->admin_job.message, strlen(req->admin_job.message));
	answer_put_trailer(&answer, store_visible_lsn(options->store), options->node_id,
			   clock_mono_us() - req->started_us);
	http_reply(req->http, 200, "application/json", &answer);
	front_request_free(req);
}

/* The rows come out of the supervisor's JSON by a SELECT, so that they have the shape of any read, in every format. */
static char *rows_request(const struct front_request *req)
{
	static const char sql[] =
	    "SELECT value->>'id' AS id, value->>'address' AS address, value->>'replication' AS replication, "
	    "value->>'role' AS role, value->>'voting' AS voting, value->>'state' AS state, "
	    "value->>'durable_lsn' AS durable_lsn, value->>'applied_lsn' AS applied_lsn, value->>'lag_ms' AS lag_ms, "
	    "value->>'member' AS member FROM json_each(?1, '$.replicas')";
	static const char *const formats[] = {
	    [QUERY_ROWS] = "rows", [QUERY_OBJECTS] = "objects", [QUERY_NDJSON] = "ndjson"};
	const struct buf *rows = &req->admin_job.text;
	json_t *json = json_pack("{s:s, s:[s%], s:s}", "sql", sql, "params", (const char *)rows->data, rows->len,
				 "format", formats[req->query->format]);
	char *text = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);

	json_decref(json);
	return text;
}

static void reply_rows(struct front_request *req)
{
	const struct query_request_limits limits = {0, 0};
	struct query_error error = {.statement = -1};
	struct query_request *query = NULL;
	char *text = rows_request(req);

	if (text == NULL || query_request_parse(&query, text, strlen(text), &limits, &error) != QUERY_OK) {
		free(text);
		front_request_fail(req, QUERY_INTERNAL, "the supervisor's answer cannot be shown");
		return;
	}
	free(text);
	query->from_statements = req->query->from_statements;
	query->role = req->query->role;
	memcpy(query->trace_id, req->query->trace_id, sizeof(query->trace_id));
	query_request_free(req->query);
	req->query = query;
	front_request_read(req);
}

/* Back on the worker's thread with the supervisor's verdict. */
static void on_answered(struct http_task *task)
{
	struct front_request *req = (struct front_request *)((char *)task - offsetof(struct front_request, task));

	front_request_speaks(req);
	if (req->admin_job.error.code != QUERY_OK)
		front_request_fail(req, req->admin_job.error.code, req->admin_job.error.message);
	else if (req->admin.kind == ADMIN_SHOW_REPLICAS)
		reply_rows(req);
	else
		reply_done(req);
}

static void on_job_done(struct admin_job *job)
{
	struct front_request *req = (struct front_request *)((char *)job - offsetof(struct front_request, admin_job));

	req->task.run = on_answered;
	http_worker_post(req->worker->worker, &req->task);
}

void admin_start(struct front_request *req)
{
	req->admin_job.statement = &req->admin;
	req->admin_job.deadline_ms = req->deadline_ms;
	req->admin_job.done = on_job_done;
	req->admin_job.request_id = req->query->trace_id;
	http_request_put_client(req->http, req->admin_job.by, sizeof(req->admin_job.by));
	admin_submit(frontend_get_options(req->worker->frontend)->admin, &req->admin_job);
}

/* endpoints.c - see endpoints.h. */
#include "node/endpoints.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/audit.h"
#include "node/metrics.h"
#include "node/no_master.h"

static void on_query(void *arg, struct http_request *req)
{
	(void)arg;
	frontend_on_query(req);
}

static void on_writes(void *arg, struct http_request *req)
{
	(void)arg;
	frontend_on_writes(req);
}

static void on_health(void *arg, struct http_request *req)
{
	struct buf body = {0};

	(void)arg;
	buf_puts(&body, "{\"status\":\"ok\"}\n");
	http_reply(req, 200, "application/json", &body);
}

static void on_ready(void *arg, struct http_request *req)
{
	const struct endpoints *e = arg;
	struct buf body = {0};
	struct roles_view view;
	char reason[1024];
	bool is_master;

	roles_get_view(e->sources.roles, &view);
	is_master = view.role == WIRE_ROLE_MASTER;
	buf_printf(&body, "{\"status\":\"%s\"", view.ready ? "ok" : "error");
	if (!view.ready) {
		no_master_reason(reason, sizeof(reason),
				 is_master ? "this master does not have a quorum for its term yet"
					   : "this replica is not being streamed to by a master");
		buf_printf(&body, ",\"code\":\"%s\",\"message\":", query_code_name(QUERY_NO_MASTER));
		json_put_string(&body, reason, strlen(reason));
	}
	buf_printf(&body, ",\"role\":\"%s\",\"term\":%" PRIu64 "}\n", is_master ? "master" : "replica", view.term);
	http_reply(req, view.ready ? 200 : 503, "application/json", &body);
}

static void on_status(void *arg, struct http_request *req)
{
	const struct endpoints *e = arg;
	struct buf body = {0};

	status_put_json(&body, &e->sources);
	http_reply(req, 200, "application/json", &body);
}

/* A database that differs from the master's, or lacks what was committed, is nobody's backup. Nor is that of a replica which
 * has just started: it shows its last checkpoint, perhaps nothing, until it has heard of a master. */
static void on_backup(void *arg, struct http_request *req)
{
	const struct endpoints *e = arg;
	struct query_error error = {.statement = -1};
	struct wire_node_status status;
	struct roles_view view;
	char by[AUDIT_BY_MAX];

	roles_get_status(e->sources.roles, &status);
	roles_get_view(e->sources.roles, &view);
	if (status.state == WIRE_STATE_DIVERGED || status.state == WIRE_STATE_FAILED)
		query_error_set(&error, QUERY_NO_MASTER, "this node's database is not to be relied on: %.300s",
				status.reason);
	else if (view.role == WIRE_ROLE_REPLICA && !view.lag_known)
		query_error_set(&error, QUERY_NO_MASTER,
				"this replica has not had all that its master has since it started");
	http_request_put_client(req, by, sizeof(by));
	audit_write(e->sources.node_id, "backup", "", by, error.code == QUERY_OK ? "begun" : error.message);
	if (error.code == QUERY_OK)
		backups_on_request(e->backups, req);
	else
		http_reply_error(req, &error);
}

static void on_metrics(void *arg, struct http_request *req)
{
	const struct endpoints *e = arg;
	struct buf body = {0};

	metrics_put(&body, &e->sources);
	http_reply(req, 200, "text/plain; version=0.0.4", &body);
}

static enum db_err worker_start(void *arg, struct http_worker *worker, void **data, struct errmsg *em)
{
	const struct endpoints *e = arg;
	struct front_worker *w = NULL;
	enum db_err err = front_worker_create(&w, e->sources.frontend, worker, em);

	*data = w;
	return err;
}

static void worker_stop(void *arg, struct http_worker *worker, void *data)
{
	(void)arg;
	(void)worker;
	front_worker_free(data);
}

enum db_err endpoints_create_server(struct endpoints *e, struct tls_server *tls, struct errmsg *em)
{
	static const struct http_route routes[] = {
	    {"/query", HTTP_POST, HTTP_TOKEN_OR_BODY, AUTH_NONE, on_query}, /* by statement */
	    {"/writes/*", HTTP_GET | HTTP_HEAD, HTTP_TOKEN, AUTH_READ, on_writes},
	    {"/health", HTTP_GET | HTTP_HEAD, HTTP_OPEN, AUTH_NONE, on_health},
	    {"/ready", HTTP_GET | HTTP_HEAD, HTTP_OPEN, AUTH_NONE, on_ready},
	    {"/status", HTTP_GET | HTTP_HEAD, HTTP_TOKEN, AUTH_READ, on_status},
	    {"/backup", HTTP_GET, HTTP_TOKEN, AUTH_ADMIN, on_backup},
	    {"/metrics", HTTP_GET | HTTP_HEAD, HTTP_TOKEN, AUTH_READ, on_metrics},
	    {NULL, 0, HTTP_OPEN, AUTH_NONE, NULL},
	};
	const struct http_options options = {.worker_count = e->sources.config->http.workers,
					     .body_bytes_max = e->sources.config->http.body_bytes_max,
					     .connections_max = e->sources.config->http.connections_max,
					     .address_connections_max = e->sources.config->http.address_connections_max,
					     .requests_bytes_max = e->sources.config->http.requests_bytes_max,
					     .request_timeout_ms = e->sources.config->http.request_timeout_ms,
					     .idle_timeout_ms = e->sources.config->http.idle_timeout_ms,
					     .tls = tls,
					     .name = e->sources.node_id,
					     .auth = tokens_auth(e->sources.tokens),
					     .routes = routes,
					     .arg = e,
					     .worker_start = worker_start,
					     .worker_stop = worker_stop};

	return http_server_create(&e->sources.server, &options, em);
}

/*
 * frontend.c - see frontend.h.
 *
 * A request that is answered at once never leaves on_query(). Any other becomes a struct front_request, which is in one
 * place at a time: submitted to the writer, forwarded (node/forward.c holds the fetch), parked, or waiting for an LSN. Each
 * of these ends on the worker's thread with a reply or back in front_request_dispatch().
 *
 * A write with a request_id whose outcome is open (this node stepped down with it, or the node it was forwarded to was
 * lost) is in doubt: it goes on to the new master, who does it or knows that it is done. Until that is settled no answer
 * says that it was not executed.
 */
#include "node/frontend.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/query/exec.h"
#include "common/query/typed_rows.h"
#include "node/federate.h"
#include "node/front_fetch.h"
#include "node/front_request.h"
#include "node/no_master.h"

#define RETRY_MS         10 /* parked requests are tried again this often, besides every change of role */
#define INLINE_BYTES_MAX ((size_t)256 << 10)

struct frontend {
	struct frontend_options options;
	pthread_mutex_t mutex; /* guards workers */
	struct front_worker *workers;
	atomic_bool stopping;
	atomic_uint_fast64_t reads_inline, reads_slow, writes, forwarded, parked;
};

void front_request_speaks(const struct front_request *req)
{
	log_set_request_id(http_request_id(req->http));
}

/* ---- replies */

static const char *content_type_of(const struct query_request *query)
{
	if (query->typed)
		return TYPED_ROWS_TYPE;
	return query->format == QUERY_NDJSON ? "application/x-ndjson" : "application/json";
}

void front_request_free(struct front_request *req)
{
	federated_request_free(req->federated);
	query_request_free(req->fill.filled);
	buf_fini(&req->fill.remote);
	query_request_free(req->query);
	buf_fini(&req->job.answer);
	buf_fini(&req->admin_job.text);
	free(req);
}

void front_request_fail(struct front_request *req, enum query_code code, const char *message)
{
	struct query_error error = {.statement = -1};

	if (req->in_doubt)
		query_error_set(&error, QUERY_NO_QUORUM,
				"the master that had the write was lost; it may have been committed: send it again "
				"with the same request_id");
	else
		query_error_set(&error, code, "%s", message);
	http_reply_error(req->http, &error);
	front_request_free(req);
}

/* Codes that say nothing of an earlier try: too busy, out of time, no quorum, a fault of the node. */
bool front_status_settles(int status)
{
	return status < 500 && status != 429;
}

static void reply_failure(struct front_request *req, const struct query_error *error)
{
	if (req->in_doubt && !front_status_settles(query_code_http_status(error->code))) {
		front_request_fail(req, error->code, error->message);
		return;
	}
	http_reply_error(req->http, error);
	front_request_free(req);
}

/* ---- what took how long */

void front_request_note(struct front_request *req, enum timing which)
{
	struct front_worker *w = req->worker;
	uint64_t elapsed_us = clock_mono_us() - req->started_us;

	timings_add(&w->timings, which, elapsed_us);
	slow_log_note(w->frontend->options.slow_log, w->conn, req->query, timing_kind(which), elapsed_us);
}

void frontend_collect_timings(struct frontend *f, struct timings *sum)
{
	struct front_worker *w;

	pthread_mutex_lock(&f->mutex);
	for (w = f->workers; w != NULL; w = w->next)
		timings_collect(sum, &w->timings);
	pthread_mutex_unlock(&f->mutex);
}

/* ---- waiting: for a master (parked), for an LSN (waiting) */

/* One timer looks after all that waits. */
void front_worker_arm_tick(struct front_worker *w)
{
	const struct timeval after = {0, RETRY_MS * 1000};

	if (w->parked == NULL && w->waiting == NULL && w->forwards == NULL && w->ships == NULL &&
	    !slow_pool_has_waiting(w->frontend->options.slow_pool) &&
	    !slow_pool_has_waiting(w->frontend->options.federated_pool))
		return;
	if (w->ticking)
		return;
	if (event_add(w->tick, &after) == 0)
		w->ticking = true;
	else
		log_error("cannot add a timer: requests that wait may wait too long");
}

/* True when nobody waits for the answer or nothing will come of it any more: the request has been answered. timeout_message
 * NULL: why there is no master. */
static bool ended_waiting(struct front_request *req, enum query_code code, const char *timeout_message)
{
	struct front_worker *w = req->worker;
	char reason[ERRMSG_TEXT_MAX];

	if (w->stopping || atomic_load(&w->frontend->stopping))
		front_request_fail(req, QUERY_NO_MASTER, "the node is stopping; the request was not executed");
	else if (atomic_load(http_request_gone(req->http)))
		front_request_fail(req, QUERY_TIMEOUT, "the client has gone");
	else if (clock_mono_ms() < req->deadline_ms)
		return false;
	else if (timeout_message == NULL) {
		no_master_message(reason, sizeof(reason));
		front_request_fail(req, code, reason);
	} else {
		front_request_fail(req, code, timeout_message);
	}
	return true;
}

void front_request_park(struct front_request *req)
{
	struct front_worker *w = req->worker;

	if (ended_waiting(req, QUERY_NO_MASTER, NULL))
		return;
	if (!req->was_parked)
		atomic_fetch_add(&w->frontend->parked, 1);
	req->was_parked = true;
	req->next = w->parked;
	w->parked = req;
	front_worker_arm_tick(w);
}

static void post_visible(struct front_worker *w)
{
	if (!atomic_exchange(&w->visible_task_posted, true))
		http_worker_post(w->worker, &w->visible_task);
}

static void wait_for_lsn(struct front_request *req)
{
	struct front_worker *w = req->worker;

	if (ended_waiting(req, QUERY_TIMEOUT, "this node did not reach the requested min_lsn in time"))
		return;
	req->next = w->waiting;
	w->waiting = req;
	/* Whoever moves the visible LSN sees the flag, or we see where it moved to. */
	atomic_store(&w->waits, true);
	if (store_visible_lsn(w->frontend->options.store) >= req->query->min_lsn)
		post_visible(w);
	front_worker_arm_tick(w);
}

/* Dispatches a whole list, oldest first; those that still cannot go enlist themselves anew. */
static void dispatch_all(struct front_request **newest_first)
{
	struct front_request *list = NULL, *req;

	while ((req = *newest_first) != NULL) {
		*newest_first = req->next;
		req->next = list;
		list = req;
	}
	while ((req = list) != NULL) {
		list = req->next;
		front_request_dispatch(req);
	}
}

/* Takes those out whose LSN has come or who have waited enough. */
static void dispatch_reached(struct front_worker *w)
{
	uint64_t visible_lsn = store_visible_lsn(w->frontend->options.store), now_ms = clock_mono_ms();
	struct front_request **at = &w->waiting, *due = NULL, *req;

	while ((req = *at) != NULL) {
		if (req->query->min_lsn > visible_lsn && now_ms < req->deadline_ms &&
		    !atomic_load(http_request_gone(req->http))) {
			at = &req->next;
			continue;
		}
		*at = req->next;
		req->next = due;
		due = req;
	}
	while ((req = due) != NULL) { /* reversed above: oldest first */
		due = req->next;
		front_request_dispatch(req);
	}
	atomic_store(&w->waits, w->waiting != NULL);
}

static void on_visible_task(struct http_task *task)
{
	struct front_worker *w = (struct front_worker *)((char *)task - offsetof(struct front_worker, visible_task));

	atomic_store(&w->visible_task_posted, false);
	dispatch_reached(w);
}

void frontend_on_visible(struct frontend *f)
{
	struct front_worker *w;

	pthread_mutex_lock(&f->mutex);
	for (w = f->workers; w != NULL; w = w->next)
		if (atomic_load(&w->waits))
			post_visible(w);
	pthread_mutex_unlock(&f->mutex);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct front_worker *w = arg;

	(void)fd;
	(void)what;
	w->ticking = false;
	dispatch_reached(w); /* for deadlines and clients that have gone */
	dispatch_all(&w->parked);
	forward_look_after(w);
	federate_look_after(w);
	if (slow_pool_has_waiting(w->frontend->options.slow_pool))
		slow_pool_expire(w->frontend->options.slow_pool);
	if (slow_pool_has_waiting(w->frontend->options.federated_pool))
		slow_pool_expire(w->frontend->options.federated_pool);
	front_worker_arm_tick(w);
	log_set_request_id(NULL);
}

static void on_role_task(struct http_task *task)
{
	struct front_worker *w = (struct front_worker *)((char *)task - offsetof(struct front_worker, role_task));
	struct roles_view view;

	atomic_store(&w->role_task_posted, false);
	roles_get_view(w->frontend->options.roles, &view);
	forward_on_master_change(w, view.role == WIRE_ROLE_MASTER ? "" : view.master_http);
	dispatch_all(&w->waiting);
	dispatch_all(&w->parked);
}

void frontend_on_role_change(struct frontend *f)
{
	struct front_worker *w;

	pthread_mutex_lock(&f->mutex);
	for (w = f->workers; w != NULL; w = w->next)
		if (!atomic_exchange(&w->role_task_posted, true))
			http_worker_post(w->worker, &w->role_task);
	pthread_mutex_unlock(&f->mutex);
}

void frontend_stop(struct frontend *f)
{
	if (f == NULL)
		return;
	atomic_store(&f->stopping, true);
	frontend_on_role_change(f);
}

/* ---- writes */

/* Back on the worker's thread with the writer's verdict. */
static void on_written(struct http_task *task)
{
	struct front_request *req = (struct front_request *)((char *)task - offsetof(struct front_request, task));
	struct write_job *job = &req->job;
	uint64_t elapsed_us = clock_mono_us() - req->started_us;

	front_request_speaks(req);
	switch (job->outcome) {
	case WRITE_DONE:
		answer_put_trailer_fields(&job->answer, job->lsn, req->worker->frontend->options.node_id, elapsed_us);
		buf_put(&job->answer, req->fill.remote.data, req->fill.remote.len);
		buf_puts(&job->answer, "}\n");
		http_reply(req->http, 200, "application/json", &job->answer);
		timings_add(&req->worker->timings, TIMING_WRITE_PARSE, req->parsed_us - req->started_us);
		front_request_note(req, TIMING_WRITE_WHOLE);
		front_request_free(req);
		break;
	case WRITE_ERROR:
		reply_failure(req, &job->error);
		break;
	case WRITE_MOVED:
		req->in_doubt = req->in_doubt || job->error.code != QUERY_OK;
		buf_clear(&job->answer);
		front_request_dispatch(req);
		break;
	}
}

static void on_job_done(struct write_job *job)
{
	struct front_request *req = (struct front_request *)((char *)job - offsetof(struct front_request, job));

	req->task.run = on_written;
	http_worker_post(req->worker->worker, &req->task);
}

static void submit_write(struct front_request *req)
{
	struct errmsg em = {0};

	req->job.request = req->fill.filled != NULL ? req->fill.filled : req->query;
	req->job.trace_id = req->query->trace_id;
	req->job.alone = req->kind == QUERY_KIND_WRITE_ALONE;
	req->job.deadline_ms = req->deadline_ms;
	req->job.done = on_job_done;
	switch (roles_submit(req->worker->frontend->options.roles, &req->job, &em)) {
	case DB_OK:
		atomic_fetch_add(&req->worker->frontend->writes, 1);
		break;
	case DB_BUSY:
		front_request_fail(req, QUERY_OVERLOADED, "too many writes are waiting; try again later");
		break;
	case DB_FULL:
		front_request_fail(req, QUERY_INTERNAL, em.text);
		break;
	default:
		front_request_park(req);
	}
}

/* ---- reads */

static void read_slowly(struct front_request *req)
{
	struct front_worker *w = req->worker;
	const struct frontend_options *options = &w->frontend->options;
	struct slow_pool *pool = req->federated != NULL ? options->federated_pool : options->slow_pool;
	struct query_error error = {.statement = -1};
	struct http_stream *stream;

	if (http_stream_create(&stream, req->http, 200, content_type_of(req->query)) != DB_OK) {
		front_request_fail(req, QUERY_INTERNAL, "out of memory");
		return;
	}
	atomic_fetch_add(&w->frontend->reads_slow, 1);
	if (slow_pool_submit(pool, req->query, req->federated, stream, req->started_us, req->deadline_ms) != DB_OK) {
		query_error_set(&error, QUERY_OVERLOADED, "too many long queries are running; try again later");
		http_stream_error(stream, &error);
	} else {
		req->query = NULL; /* the pool's now */
		req->federated = NULL;
		front_worker_arm_tick(w);
	}
	front_request_free(req);
}

void front_request_read(struct front_request *req)
{
	struct front_worker *w = req->worker;
	const struct query_read_limits limits = {.ops_max = w->frontend->options.config->query.inline_ops,
						 .bytes_max = INLINE_BYTES_MAX,
						 .deadline_ms = req->deadline_ms,
						 .result_rows_max = w->frontend->options.config->query.result_rows_max,
						 .result_bytes_max =
						     w->frontend->options.config->query.result_bytes_max};
	struct query_error error = {.statement = -1};
	uint64_t began_us = clock_mono_us();

	buf_clear(&w->answer);
	switch (query_read(w->conn, req->query, &limits, NULL, req->started_us, &w->answer, &error)) {
	case QUERY_ANSWERED:
		atomic_fetch_add_explicit(&w->frontend->reads_inline, 1, memory_order_relaxed);
		timings_add(&w->timings, TIMING_READ_EXECUTE, clock_mono_us() - began_us);
		http_reply(req->http, 200, content_type_of(req->query), &w->answer);
		timings_add(&w->timings, TIMING_READ_PARSE, req->parsed_us - req->started_us);
		front_request_note(req, TIMING_READ_WHOLE);
		front_request_free(req);
		break;
	case QUERY_OVER_BUDGET:
		read_slowly(req);
		break;
	default:
		reply_failure(req, &error);
	}
}

static bool is_forwarded(const struct http_request *http)
{
	return http_request_header(http, FORWARDED_HEADER) != NULL;
}

/* To the master, unless another node took us for it: that one looks again rather than wait here. */
static void forward_once(struct front_request *req)
{
	if (is_forwarded(req->http))
		front_request_fail(req, QUERY_NO_MASTER, "this node is not the master; the request was not executed");
	else
		forward_start(req);
}

/*
 * What our snapshot does not know (a table made a moment ago, or all that came after the last checkpoint when this node has
 * just restarted) the master may: it has the last word, and is waited for while there is none.
 */
static bool master_may_know(const struct front_request *req, const struct query_error *error)
{
	return error->code == QUERY_SQL_ERROR && !is_forwarded(req->http);
}

/* Who may not do it is not told what came of it when somebody else did. */
static bool may_have_written(const struct front_request *req, const struct query_error *error)
{
	return error->code != QUERY_FORBIDDEN && req->query->role >= query_text_role(req->query);
}

/* What cannot even be prepared may have been done before (and has dropped its table): the writer looks for its receipt. */
static void submit_or_forward(struct front_request *req, bool is_master)
{
	req->kind = QUERY_KIND_WRITE;
	if (is_master)
		submit_write(req);
	else
		forward_once(req);
}

/* Back on the worker's thread: the rows are there, or not. */
static void on_filled(struct http_task *task)
{
	struct front_request *req = (struct front_request *)((char *)task - offsetof(struct front_request, task));

	front_request_speaks(req);
	if (req->fill.filled != NULL)
		submit_write(req);
	else
		reply_failure(req, &req->fill.error);
}

static void on_fill_done(struct slow_fill *fill)
{
	struct front_request *req = (struct front_request *)((char *)fill - offsetof(struct front_request, fill));

	req->task.run = on_filled;
	http_worker_post(req->worker->worker, &req->task);
}

/* On a master: the SELECT of an INSERT first, on a thread that may wait for other nodes. */
static void fill(struct front_request *req)
{
	query_request_free(req->fill.filled); /* of a try before the master changed */
	buf_fini(&req->fill.remote);
	req->fill =
	    (struct slow_fill){.federated = req->federated, .deadline_ms = req->deadline_ms, .done = on_fill_done};
	req->kind = QUERY_KIND_WRITE;
	switch (slow_pool_submit_fill(req->worker->frontend->options.federated_pool, &req->fill)) {
	case DB_OK:
		front_worker_arm_tick(req->worker);
		break;
	case DB_BUSY:
		front_request_fail(req, QUERY_OVERLOADED, "too many long queries are running; try again later");
		break;
	default:
		front_request_fail(req, QUERY_INTERNAL, "out of memory");
	}
}

/* Reads that name tables of other nodes are no matter of our snapshot alone, and block: never on a worker. */
static void run_federated(struct front_request *req, bool is_master)
{
	struct query_error error = {.statement = -1};
	enum federated_plan plan;

	if (federated_request_plan(req->federated, &plan, &error) != QUERY_OK)
		reply_failure(req, &error);
	else if (plan == FEDERATED_FILL_HERE && is_master)
		fill(req);
	else if (plan == FEDERATED_FILL_HERE)
		forward_once(req);
	else if (req->query->min_lsn > store_visible_lsn(req->worker->frontend->options.store))
		wait_for_lsn(req);
	else
		read_slowly(req);
}

/* Classifies on our own snapshot, then reads here or hands the write on. */
static void run_locally(struct front_request *req, bool is_master)
{
	uint64_t visible_lsn = store_visible_lsn(req->worker->frontend->options.store);
	struct query_error error = {.statement = -1};
	bool classified;

	if (req->federated != NULL) {
		run_federated(req, is_master);
		return;
	}
	classified = query_classify(req->worker->conn, req->query, &req->kind, &error) == QUERY_OK;
	if (req->query->min_lsn > visible_lsn && (!classified || req->kind == QUERY_KIND_READ))
		wait_for_lsn(req); /* the table it names may come with that LSN, too */
	else if (!classified && req->query->request_id != NULL && may_have_written(req, &error))
		submit_or_forward(req, is_master);
	else if (!classified && !is_master && master_may_know(req, &error))
		forward_start(req);
	else if (!classified)
		reply_failure(req, &error);
	else if (req->kind == QUERY_KIND_READ)
		front_request_read(req);
	else if (is_master)
		submit_write(req);
	else
		forward_once(req);
}

static bool may_read_on_replica(const struct query_request *query, const struct roles_view *view)
{
	if (view->lag_ms == UINT64_MAX)
		return false; /* being rebuilt: what is here is not the database */
	if (query->consistency == QUERY_SESSION)
		return true;
	if (query->consistency != QUERY_STALE)
		return false;
	return query->max_lag_ms == UINT64_MAX || (view->lag_known && view->lag_ms <= query->max_lag_ms);
}

void front_request_dispatch(struct front_request *req)
{
	struct roles_view view;

	front_request_speaks(req);
	roles_get_view(req->worker->frontend->options.roles, &view);
	memcpy(req->master_http, view.master_http, sizeof(req->master_http));
	if (req->admin.kind != ADMIN_NONE && view.role == WIRE_ROLE_MASTER) {
		admin_start(req);
	} else if (req->admin.kind != ADMIN_NONE) {
		forward_once(req);
	} else if (view.role == WIRE_ROLE_MASTER) {
		if (!view.ready)
			front_request_park(req);
		else if (req->query == NULL)
			write_state_answer(req);
		else
			run_locally(req, true);
	} else if (req->query != NULL && may_read_on_replica(req->query, &view)) {
		run_locally(req, false);
	} else {
		forward_once(req);
	}
}

/* ---- entry */

uint64_t front_deadline_ms(const struct cluster_config *config, uint64_t timeout_ms, const struct http_request *http)
{
	const char *left = is_forwarded(http) ? http_request_header(http, FORWARDED_TIMEOUT_HEADER) : NULL;
	uint64_t left_ms = left != NULL ? strtoull(left, NULL, 10) : 0;

	if (timeout_ms == 0)
		timeout_ms = config->query.timeout_ms;
	if (timeout_ms > config->query.timeout_max_ms)
		timeout_ms = config->query.timeout_max_ms;
	if (left_ms > 0 && left_ms < timeout_ms)
		timeout_ms = left_ms;
	return http_request_started_us(http) / 1000 + timeout_ms;
}

/* The token may come in the header, in the body, or in both and then equal. */
static bool is_authorized(struct http_request *http, const struct query_request *query)
{
	const char *bearer = http_request_bearer(http);

	if (query->token == NULL)
		return http_request_authorized(http);
	return bearer != NULL ? auth_same_token(bearer, query->token) : http_request_authenticate(http, query->token);
}

/* What the request may do: what its token allows and, when another node sends it for a client of its own, no more than
 * that node says. A client that sends the header itself can only take from what it may do. */
static enum auth_role role_of(const struct http_request *http)
{
	const char *text = http_request_header(http, ROLE_MAX_HEADER);
	enum auth_role role = http_request_role(http), role_max = AUTH_READ;

	if (text == NULL)
		return role;
	auth_role_parse(text, &role_max); /* what it does not know takes all but reading */
	return role < role_max ? role : role_max;
}

/* What the statements of the cluster need; SQL's own are looked at when they have been prepared. */
static bool may_ask(const struct query_request *query, const struct admin_statement *admin, struct query_error *error)
{
	bool changes = admin->kind == ADMIN_ADD_REPLICA || admin->kind == ADMIN_REMOVE_REPLICA;

	if (!changes || query->role >= AUTH_ADMIN)
		return true;
	query_error_set(error, QUERY_FORBIDDEN, "this statement needs a token with the role admin; this one's is %s",
			auth_role_name(query->role));
	return false;
}

static void start_query(struct front_request *req)
{
	req->query->typed =
	    req->query->format == QUERY_ROWS && typed_rows_accepted(http_request_header(req->http, "Accept"));
	front_request_dispatch(req);
}

void frontend_on_query(struct http_request *http)
{
	struct front_worker *w = http_worker_data(http_request_worker(http));
	const struct cluster_config *config = w->frontend->options.config;
	const struct query_request_limits limits = {config->query.sql_length_max, config->query.statements_max};
	struct query_error error = {.statement = -1};
	struct query_request *query;
	struct admin_statement admin;
	struct front_request *req;
	const void *body;
	size_t len;

	body = http_request_body(http, &len);
	if (query_request_parse(&query, body, len, &limits, &error) != QUERY_OK) {
		http_reply_error(http, &error);
		return;
	}
	if (query->request_id != NULL)
		http_request_set_id(http, query->request_id);
	snprintf(query->trace_id, sizeof(query->trace_id), "%s", http_request_id(http));
	if (!is_authorized(http, query)) {
		query_request_free(query);
		http_reply_unauthorized(http);
		return;
	}
	query->role = role_of(http);
	if (admin_sql_parse(query, &admin, &error) != QUERY_OK || !may_ask(query, &admin, &error)) {
		query_request_free(query);
		http_reply_error(http, &error);
		return;
	}
	req = calloc(1, sizeof(*req));
	if (req == NULL) {
		query_request_free(query);
		query_error_set(&error, QUERY_INTERNAL, "out of memory");
		http_reply_error(http, &error);
		return;
	}
	req->http = http;
	req->query = query;
	req->worker = w;
	req->admin = admin;
	req->started_us = http_request_started_us(http);
	req->parsed_us = clock_mono_us();
	req->deadline_ms = front_deadline_ms(config, query->timeout_ms, http);
	if (federated_request_possible(query) && federated_request_scan(&req->federated, query, &error) != QUERY_OK)
		reply_failure(req, &error);
	else if (req->federated != NULL)
		federate_start(req);
	else
		start_query(req);
}

/* ---- life */

enum db_err front_worker_create(struct front_worker **out, struct frontend *f, struct http_worker *worker,
				struct errmsg *em)
{
	const struct query_conn_options conn_options = {.node_id = f->options.node_id,
							.snapshot_lsn = store_snapshot_lsn};
	struct front_worker *w = calloc(1, sizeof(*w));
	sqlite3 *db = NULL;
	enum db_err err;

	*out = NULL;
	if (w == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	w->frontend = f;
	w->worker = worker;
	w->role_task.run = on_role_task;
	w->visible_task.run = on_visible_task;
	err = store_open_reader(f->options.store, &db, em);
	if (err == DB_OK) {
		err = query_conn_create(&w->conn, db, &conn_options, em);
		if (err != DB_OK)
			sqlite3_close(db);
	}
	if (err == DB_OK && (w->tick = evtimer_new(http_worker_base(worker), on_tick, w)) == NULL)
		err = errmsg_set(em, DB_NOMEM, "out of memory");
	if (err != DB_OK) {
		front_worker_free(w);
		return err;
	}
	pthread_mutex_lock(&f->mutex);
	w->next = f->workers;
	f->workers = w;
	pthread_mutex_unlock(&f->mutex);
	*out = w;
	return DB_OK;
}

static void unlink_worker(struct frontend *f, struct front_worker *w)
{
	struct front_worker **at;

	pthread_mutex_lock(&f->mutex);
	for (at = &f->workers; *at != NULL; at = &(*at)->next) {
		if (*at == w) {
			*at = w->next;
			break;
		}
	}
	pthread_mutex_unlock(&f->mutex);
}

static void fail_all(struct front_request **list)
{
	struct front_request *req;

	while ((req = *list) != NULL) {
		*list = req->next;
		front_request_fail(req, QUERY_NO_MASTER, "the node is stopping; the request was not executed");
	}
}

void front_worker_free(struct front_worker *w)
{
	if (w == NULL)
		return;
	unlink_worker(w->frontend, w);
	w->stopping = true;
	front_fetch_stop(w); /* their requests end with them */
	federate_stop(w);
	fail_all(&w->parked);
	fail_all(&w->waiting);
	if (w->tick != NULL)
		event_free(w->tick);
	query_conn_free(w->conn);
	buf_fini(&w->answer);
	free(w);
}

enum db_err frontend_create(struct frontend **out, const struct frontend_options *options, struct errmsg *em)
{
	struct frontend *f = calloc(1, sizeof(*f));

	*out = f;
	if (f == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	f->options = *options;
	pthread_mutex_init(&f->mutex, NULL);
	return DB_OK;
}

void frontend_free(struct frontend *f)
{
	if (f == NULL)
		return;
	pthread_mutex_destroy(&f->mutex);
	free(f);
}

void frontend_get_counters(struct frontend *f, struct frontend_counters *out)
{
	out->reads_inline = atomic_load(&f->reads_inline);
	out->reads_slow = atomic_load(&f->reads_slow);
	out->writes = atomic_load(&f->writes);
	out->forwarded = atomic_load(&f->forwarded);
	out->parked = atomic_load(&f->parked);
}

const struct frontend_options *frontend_get_options(const struct frontend *f)
{
	return &f->options;
}

void frontend_count_forward(struct frontend *f)
{
	atomic_fetch_add(&f->forwarded, 1);
}

/* admin.c - see admin.h. */
#include "node/admin.h"

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/wire/link.h"

#define CALL_TIMEOUT_MS 3000u
#define POLL_MS         20u

struct admin {
	char url[LINK_URL_MAX];
	char ending[48]; /* the code that says that only our own end is left */
	pthread_t thread;
	bool started;
	pthread_mutex_t mutex; /* guards what follows */
	pthread_cond_t news;
	struct admin_job *jobs; /* waiting or being asked after */
	bool stopping;
};

/* ---- one exchange */

static enum db_err exchange(struct admin *a, const char *request, json_t **out, struct buf *text, struct errmsg *em)
{
	struct buf reply = {0};
	struct wire_text answer = {0};
	json_error_t reason;
	enum db_err err;

	*out = NULL;
	err = link_cli_call(a->url, "node", request, CALL_TIMEOUT_MS, &reply, &answer, em);
	if (err == DB_OK) {
		*out = json_loadb(answer.text, answer.len, 0, &reason);
		if (*out == NULL)
			err = errmsg_set(em, DB_INVALID, "its answer is not understood");
	}
	if (err == DB_OK && text != NULL)
		buf_put(text, answer.text, answer.len);
	buf_fini(&reply);
	return err;
}

static char *first_request(const struct admin_job *job)
{
	const struct admin_statement *s = job->statement;
	json_t *json;
	char *text;

	if (s->kind == ADMIN_SHOW_REPLICAS)
		json = json_pack("{s:s}", "command", "replicas");
	else
		json = json_pack("{s:s, s:s, s:b, s:s, s:s}", "command",
				 s->kind == ADMIN_ADD_REPLICA ? "add-replica" : "remove-replica", "address", s->address,
				 "readonly", (int)s->readonly, "by", job->by, "request_id", job->request_id);
	text = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);
	json_decref(json);
	return text;
}

/* ---- a job; true: it is decided */

static bool fail(struct admin_job *job, enum query_code code, const char *message)
{
	query_error_set(&job->error, code, "%s", message);
	return true;
}

static enum query_code code_of(const char *code)
{
	if (strcmp(code, "BAD_REQUEST") == 0)
		return QUERY_BAD_REQUEST;
	return strcmp(code, "UNKNOWN_NODE") == 0 ? QUERY_NOT_FOUND : QUERY_CONFLICT;
}

static bool take_answer(struct admin *a, struct admin_job *job, json_t *json)
{
	const char *status, *code, *message;
	json_int_t id;
	int pid;

	if (json_unpack(json, "{s:s, s:s, s:s, s:I, s:i}", "status", &status, "code", &code, "message", &message, "id",
			&id, "pid", &pid) != 0)
		return fail(job, QUERY_REMOTE_ERROR, "the supervisor's answer is not understood");
	if (job->asked && pid != job->pid)
		return fail(
		    job, QUERY_REMOTE_ERROR,
		    "the supervisor was restarted meanwhile: the change is completed or undone, see SHOW REPLICAS");
	if (strcmp(status, "ok") == 0 || strcmp(code, a->ending) == 0) {
		snprintf(job->message, sizeof(job->message), "%s", message);
		return true;
	}
	if (strcmp(status, "running") != 0)
		return fail(job, code_of(code), message);
	job->asked = true;
	job->id = (uint64_t)id;
	job->pid = pid;
	return false;
}

static bool ask(struct admin *a, struct admin_job *job)
{
	bool show = job->statement->kind == ADMIN_SHOW_REPLICAS;
	char result[96];
	char *first = job->asked ? NULL : first_request(job);
	struct errmsg em = {0};
	json_t *json = NULL;
	enum db_err err;
	bool decided;

	if (!job->asked && first == NULL)
		return fail(job, QUERY_BAD_REQUEST, "that is no possible address");
	snprintf(result, sizeof(result), "{\"command\":\"change-result\",\"id\":%llu}", (unsigned long long)job->id);
	err = exchange(a, job->asked ? result : first, &json, show ? &job->text : NULL, &em);
	free(first);
	if (err != DB_OK && job->asked)
		decided = false; /* it may be restarted: its successor tells */
	else if (err == DB_TIMEOUT)
		decided =
		    fail(job, QUERY_REMOTE_ERROR,
			 "the supervisor does not answer; what was asked for may still be done, see SHOW REPLICAS");
	else if (err != DB_OK)
		decided =
		    query_error_set(&job->error, QUERY_REMOTE_ERROR,
				    "the supervisor, which keeps the members, cannot be reached: %.200s", em.text);
	else
		decided = show || take_answer(a, job, json);
	json_decref(json);
	return decided;
}

static bool advance(struct admin *a, struct admin_job *job)
{
	uint64_t now_ms = clock_mono_ms();

	if (now_ms >= job->deadline_ms && job->asked)
		return fail(job, QUERY_TIMEOUT, "the change takes longer; it goes on, see SHOW REPLICAS");
	if (now_ms >= job->deadline_ms)
		return fail(job, QUERY_TIMEOUT, "the request waited too long and was not executed");
	job->next_ms = now_ms + POLL_MS;
	return ask(a, job);
}

/* ---- the thread */

/* The job that is due first, taken out of the list; NULL: none is due, *wait_ms says for how long. */
static struct admin_job *take_due(struct admin *a, uint64_t *wait_ms)
{
	uint64_t now_ms = clock_mono_ms();
	struct admin_job **at, **first = NULL;
	struct admin_job *job;

	for (at = &a->jobs; *at != NULL; at = &(*at)->next)
		if (first == NULL || (*at)->next_ms < (*first)->next_ms)
			first = at;
	*wait_ms = 1000;
	if (first == NULL)
		return NULL;
	job = *first;
	if (job->next_ms > now_ms) {
		*wait_ms = job->next_ms - now_ms;
		return NULL;
	}
	*first = job->next;
	return job;
}

static void *run(void *arg)
{
	struct admin *a = arg;
	struct admin_job *job;
	uint64_t ms;

	pthread_setname_np(pthread_self(), "admin");
	pthread_mutex_lock(&a->mutex);
	while (!a->stopping) {
		job = take_due(a, &ms);
		if (job == NULL) {
			clock_wait(&a->news, &a->mutex, clock_mono_us() + ms * 1000);
			continue;
		}
		pthread_mutex_unlock(&a->mutex);
		if (advance(a, job)) {
			job->done(job);
			job = NULL;
		}
		pthread_mutex_lock(&a->mutex);
		if (job != NULL) {
			job->next = a->jobs;
			a->jobs = job;
		}
	}
	pthread_mutex_unlock(&a->mutex);
	return NULL;
}

void admin_submit(struct admin *a, struct admin_job *job)
{
	job->error.code = QUERY_OK;
	job->asked = false;
	job->next_ms = 0;
	pthread_mutex_lock(&a->mutex);
	job->next = a->jobs;
	a->jobs = job;
	pthread_cond_signal(&a->news);
	pthread_mutex_unlock(&a->mutex);
}

enum db_err admin_create(struct admin **out, const char *path, const char *node_id, struct errmsg *em)
{
	struct admin *a = calloc(1, sizeof(*a));
	enum db_err err;

	*out = NULL;
	if (a == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	snprintf(a->ending, sizeof(a->ending), "ENDING %.32s", node_id);
	pthread_mutex_init(&a->mutex, NULL);
	pthread_cond_init(&a->news, NULL);
	err = link_ipc_url(a->url, path, em);
	if (err == DB_OK && pthread_create(&a->thread, NULL, run, a) != 0)
		err = errmsg_set(em, DB_NOMEM, "cannot start the admin thread");
	a->started = err == DB_OK;
	if (err != DB_OK) {
		admin_free(a);
		return err;
	}
	*out = a;
	return DB_OK;
}

void admin_free(struct admin *a)
{
	struct admin_job *job;

	if (a == NULL)
		return;
	pthread_mutex_lock(&a->mutex);
	a->stopping = true;
	pthread_cond_signal(&a->news);
	pthread_mutex_unlock(&a->mutex);
	if (a->started)
		pthread_join(a->thread, NULL);
	while ((job = a->jobs) != NULL) {
		a->jobs = job->next;
		fail(job, QUERY_NO_MASTER,
		     job->asked ? "the node is stopping; the change goes on, see SHOW REPLICAS"
				: "the node is stopping; the request was not executed");
		job->done(job);
	}
	pthread_cond_destroy(&a->news);
	pthread_mutex_destroy(&a->mutex);
	free(a);
}

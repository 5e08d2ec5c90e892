/*
 * trace.c - what a request is called, from the client to the replica's log, and the lines about those that failed.
 *
 * The name is the body's request_id if there is one, else the X-Request-Id that came with the request, else one made here:
 * PREFIX-N, the prefix the server's own since it was created (node and 40 random bits), N counted by the workers without a
 * lock: worker i of n takes i, i + n, i + 2n, … It lies in the request itself; nothing is allocated for it.
 *
 * The names of what fails in numbers would fill the disk: of each code LINES_MAX lines are written a second, and the next
 * second's first one says how many were left out.
 */
#include "common/http/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/query/request.h"

#define LINES_MAX 10u /* a second, of a code */

static char *put_decimal(char *at, uint64_t n)
{
	char digits[20];
	size_t count = 0;

	do
		digits[count++] = (char)('0' + n % 10);
	while ((n /= 10) > 0);
	while (count > 0)
		*at++ = digits[--count];
	return at;
}

enum db_err http_trace_init(struct http_server *s, struct errmsg *em)
{
	static const char letters[] = "abcdefghijkmnpqrstuvwxyz23456789";
	unsigned char drawn[8];
	char boot[sizeof(drawn) + 1] = "";
	size_t i;

	if (getentropy(drawn, sizeof(drawn)) != 0)
		return errmsg_set(em, DB_IO, "HTTP server: cannot get random bytes");
	for (i = 0; i < sizeof(drawn); i++)
		boot[i] = letters[drawn[i] % (sizeof(letters) - 1)];
	snprintf(s->trace_prefix, sizeof(s->trace_prefix), "%.20s-%s-",
		 s->options.name != NULL ? s->options.name : "http", boot);
	s->trace_prefix_len = strlen(s->trace_prefix);
	return DB_OK;
}

static void make_id(struct http_worker *w, char out[QUERY_REQUEST_ID_MAX + 1])
{
	const struct http_server *s = w->server;

	memcpy(out, s->trace_prefix, s->trace_prefix_len);
	*put_decimal(out + s->trace_prefix_len, w->trace_count++ * s->options.worker_count + w->index) = '\0';
}

void http_trace_begin(struct http_request *req)
{
	const char *given = http_request_header(req, HTTP_REQUEST_ID_HEADER);
	size_t len = given != NULL ? strnlen(given, QUERY_REQUEST_ID_MAX + 1) : 0;

	if (given != NULL && query_request_id_ok(given, len))
		memcpy(req->id, given, len + 1);
	else
		make_id(req->worker, req->id);
	log_set_request_id(req->id);
}

void http_trace_refused(struct http_worker *w, const struct query_error *error, char id[QUERY_REQUEST_ID_MAX + 1])
{
	make_id(w, id);
	if (!log_is_wanted(LOG_LEVEL_DEBUG))
		return;
	log_set_request_id(id);
	log_event(LOG_LEVEL_DEBUG, "request refused",
		  (const struct log_field[]){{"code", query_code_name(error->code)}, {"why", error->message}}, 2);
	log_set_request_id(NULL);
}

const char *http_request_id(const struct http_request *req)
{
	return req->id;
}

void http_request_set_id(struct http_request *req, const char *id)
{
	size_t len = strlen(id);

	if (!query_request_id_ok(id, len))
		return;
	memcpy(req->id, id, len + 1);
	log_set_request_id(req->id);
}

/* ---- lines */

static enum log_level level_of(const struct http_request *req, enum query_code code)
{
	if (req->conn == NULL)
		return LOG_LEVEL_DEBUG; /* nobody is there to miss it */
	switch (code) {
	case QUERY_INTERNAL:
		return LOG_LEVEL_ERROR;
	case QUERY_TIMEOUT:
	case QUERY_NO_QUORUM:
	case QUERY_NO_MASTER:
	case QUERY_REMOTE_ERROR:
	case QUERY_OVERLOADED:
		return LOG_LEVEL_WARN;
	default:
		return LOG_LEVEL_DEBUG; /* the client's own affair */
	}
}

/* Whether one more line of that code may be written in this second; how many may not have been before it. */
static bool take_line(struct http_server *s, enum query_code code, uint64_t *left_out)
{
	struct http_failures *f = &s->failures[code];
	uint64_t second = clock_mono_ms() / 1000;
	bool may;

	pthread_mutex_lock(&s->failures_lock);
	if (f->second != second) {
		f->second = second;
		f->lines = 0;
	}
	may = f->lines < LINES_MAX;
	*left_out = may ? f->left_out : 0;
	f->left_out = may ? 0 : f->left_out + 1;
	if (may)
		f->lines++;
	pthread_mutex_unlock(&s->failures_lock);
	return may;
}

void http_trace_failed(struct http_request *req, const struct query_error *error)
{
	enum log_level level = level_of(req, error->code);
	char skipped[24];
	struct log_field fields[5] = {
	    {"method", http_request_method_name(req)}, {"path", req->path}, {"code", query_code_name(error->code)}};
	uint64_t left_out = 0;
	size_t count = 3;

	if (!log_is_wanted(level) ||
	    (level != LOG_LEVEL_DEBUG && !take_line(req->worker->server, error->code, &left_out)))
		return;
	/* What is at fault in SQL may quote it, values and all: the client alone is told. */
	if (query_code_http_status(error->code) >= 500)
		fields[count++] = (struct log_field){"why", error->message};
	if (left_out > 0) {
		snprintf(skipped, sizeof(skipped), "%" PRIu64, left_out);
		fields[count++] = (struct log_field){"left_out", skipped};
	}
	log_set_request_id(req->id);
	log_event(level, "request failed", fields, count);
}

void http_trace_answered(struct http_request *req, int status)
{
	uint64_t us = clock_mono_us() - req->started_us;
	char code[16], ms[32];

	snprintf(code, sizeof(code), "%d", status);
	snprintf(ms, sizeof(ms), "%" PRIu64 ".%03u", us / 1000, (unsigned)(us % 1000));
	log_set_request_id(req->id);
	log_event(LOG_LEVEL_DEBUG, "request answered",
		  (const struct log_field[]){
		      {"method", http_request_method_name(req)}, {"path", req->path}, {"status", code}, {"ms", ms}},
		  4);
}

/*
 * remote_ask.c - see remote_ask.h.
 *
 * Invariant: an ask is tried again only while nothing of its answer was handed out.
 */
#include "common/remote/remote_ask.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/remote/between_nodes.h"

#define TRIES_MAX      4u
#define CANCEL_LOOK_US 20000
#define PIECE_BYTES    ((size_t)64 << 10)
#define MARGIN_MS_MAX  50 /* the other node gets so much less time: its own TIMEOUT says more than ours */

struct remote_ask {
	struct remote_asker *asker;
	struct remote_tally *tally;
	struct remote_fetch *fetch;
	struct rows_reader *reader;
	struct buf statements;
	bool has_token;
	bool handed_out; /* an event was */
	bool ended;
	unsigned tries;
	char address[FEDERATION_ADDRESS_MAX];
	char name[FEDERATION_NAME_MAX];
	uint8_t piece[PIECE_BYTES];
};

/* ---- the tally */

static struct remote_tally *find_tally(struct remote_asker *a, const char *address)
{
	struct remote_tally **at = &a->tallies;

	while (*at != NULL && strcmp((*at)->address, address) != 0)
		at = &(*at)->next;
	if (*at != NULL)
		return *at;
	*at = calloc(1, sizeof(**at));
	if (*at != NULL)
		snprintf((*at)->address, sizeof((*at)->address), "%s", address);
	return *at;
}

bool remote_asker_mention(struct remote_asker *a, const char *address)
{
	return find_tally(a, address) != NULL;
}

void remote_asker_init(struct remote_asker *a)
{
	pthread_mutex_init(&a->mutex, NULL);
	pthread_cond_init(&a->changed, NULL);
}

void remote_asker_fini(struct remote_asker *a)
{
	struct remote_tally *t;

	pthread_cond_destroy(&a->changed);
	pthread_mutex_destroy(&a->mutex);
	while ((t = a->tallies) != NULL) {
		a->tallies = t->next;
		free(t);
	}
}

void remote_asker_put(const struct remote_asker *a, struct buf *out)
{
	const struct remote_tally *t;

	buf_puts(out, ",\"remote\":[");
	for (t = a->tallies; t != NULL; t = t->next) {
		buf_puts(out, t == a->tallies ? "{\"node\":" : ",{\"node\":");
		json_put_string(out, t->address, strlen(t->address));
		buf_printf(out,
			   ",\"requests\":%" PRIu64 ",\"rows\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"ms\":%" PRIu64
			   ".%03" PRIu64 "}",
			   t->requests, t->rows, t->bytes, t->us / 1000, t->us % 1000);
	}
	buf_puts(out, "]");
}

static void tally_begin(struct remote_tally *t)
{
	if (t->under_way++ == 0)
		t->since_us = clock_mono_us();
}

static void tally_end(struct remote_tally *t)
{
	if (--t->under_way == 0)
		t->us += clock_mono_us() - t->since_us;
}

/* ---- errors */

static enum query_code fail(struct remote_ask *ask, struct query_error *error, enum query_code code, const char *what,
			    const char *why)
{
	size_t skip = strlen(ask->address);

	if (strncmp(why, ask->address, skip) == 0 && strncmp(why + skip, ": ", 2) == 0)
		why += skip + 2; /* it is in the name */
	return query_error_set(error, code, "%s: %s%s%s", ask->name, what, why[0] != '\0' ? ": " : "", why);
}

/* The request could not be sent, or its answer did not come whole. */
static enum query_code fail_transport(struct remote_ask *ask, struct query_error *error, enum db_err err,
				      const struct errmsg *em)
{
	switch (err) {
	case DB_NOMEM:
		return fail(ask, error, QUERY_INTERNAL, "out of memory for its answer", "");
	case DB_UNAVAILABLE:
	case DB_INVALID:
		return fail(ask, error, QUERY_REMOTE_ERROR, "that node cannot be reached", em->text);
	case DB_TIMEOUT:
		return fail(ask, error, QUERY_REMOTE_ERROR, "that node did not answer in time", em->text);
	case DB_CLOSED:
		if (ask->asker->cancelled != NULL && atomic_load(ask->asker->cancelled))
			return fail(ask, error, QUERY_TIMEOUT, "the client has gone", "");
		return fail(ask, error, QUERY_NO_MASTER, "the node is stopping", "");
	default:
		return fail(ask, error, QUERY_REMOTE_ERROR, "the connection to that node broke", em->text);
	}
}

static void fail_refused(struct remote_ask *ask, struct query_error *error, const struct query_error *theirs)
{
	char what[64];

	if (theirs->code == QUERY_UNAUTHORIZED) {
		fail(ask, error, QUERY_REMOTE_ERROR,
		     ask->has_token ? "that node refused the token"
				    : "that node asks for a token, and cluster.json has none for it in remote.nodes",
		     "");
		return;
	}
	if (strncmp(theirs->message, "no such table: main.", 20) == 0) {
		fail(ask, error, QUERY_REMOTE_ERROR, "that node has no such table", "");
		return;
	}
	snprintf(what, sizeof(what), "that node answered %s", query_code_name(theirs->code));
	fail(ask, error, QUERY_REMOTE_ERROR, what, theirs->message);
}

/* ---- asking */

static void put_body(struct buf *body, const struct remote_ask *ask, uint64_t timeout_ms)
{
	const struct query_request *r = ask->asker->request;
	bool stale = r->consistency == QUERY_STALE;

	buf_puts(body, "{\"statements\":[");
	buf_put(body, ask->statements.data, ask->statements.len);
	buf_printf(body, "],\"consistency\":\"%s\",\"timeout_ms\":%" PRIu64, stale ? "stale" : "linearizable",
		   timeout_ms);
	if (stale && r->max_lag_ms != UINT64_MAX)
		buf_printf(body, ",\"max_lag_ms\":%" PRIu64, r->max_lag_ms);
	buf_puts(body, "}");
}

/* The pool's thread. */
static void on_change(void *arg)
{
	struct remote_asker *a = arg;

	pthread_mutex_lock(&a->mutex);
	a->woken = true;
	pthread_cond_signal(&a->changed);
	pthread_mutex_unlock(&a->mutex);
}

static enum db_err start_fetch(struct remote_ask *ask, const char *token, struct errmsg *em)
{
	struct remote_asker *a = ask->asker;
	uint64_t now_ms = clock_mono_ms(), left_ms = a->deadline_ms > now_ms ? a->deadline_ms - now_ms : 0;
	const char *trace_id = a->request != NULL ? a->request->trace_id : "";
	char hops[64], trace[128];
	const char *const headers[] = {"Content-Type: application/json",
				       ROWS_ACCEPT_HEADER,
				       hops,
				       ROLE_MAX_HEADER ": read",
				       trace_id[0] != '\0' ? trace : NULL,
				       NULL};
	struct remote_request request = {.address = ask->address,
					 .path = "/query",
					 .token = token,
					 .headers = headers,
					 .deadline_ms = a->deadline_ms,
					 .is_read = true,
					 .level = a->hops,
					 .notify = on_change,
					 .notify_arg = a};
	struct buf body = {0};
	enum db_err err;

	left_ms -= left_ms / 10 < MARGIN_MS_MAX ? left_ms / 10 : MARGIN_MS_MAX;
	put_body(&body, ask, left_ms > 0 ? left_ms : 1);
	snprintf(hops, sizeof(hops), HOPS_HEADER ": %u", a->hops + 1);
	snprintf(trace, sizeof(trace), REQUEST_ID_HEADER ": %s", trace_id);
	request.body = body.data;
	request.body_len = body.len;
	if (body.failed)
		err = errmsg_set(em, DB_NOMEM, "out of memory");
	else
		err = remote_fetch_start(&ask->fetch, a->pool, &request, em);
	buf_fini(&body);
	return err;
}

static enum query_code start(struct remote_ask *ask, struct query_error *error)
{
	char token[REMOTE_TOKEN_MAX];
	struct errmsg em = {0};
	enum db_err err;

	err = remote_access_token(ask->asker->access, ask->address, token, &em);
	if (err == DB_INVALID)
		return fail(ask, error, QUERY_FORBIDDEN, "that node may not be asked", em.text);
	if (err != DB_OK)
		return fail(ask, error, QUERY_REMOTE_ERROR, "its token cannot be used", em.text);
	ask->has_token = token[0] != '\0';
	ask->tries++;
	ask->tally->requests++;
	err = start_fetch(ask, token, &em);
	explicit_bzero(token, sizeof(token));
	return err == DB_OK ? QUERY_OK : fail_transport(ask, error, err, &em);
}

enum query_code remote_ask_start(struct remote_ask **out, struct remote_asker *a, const struct remote_name *name,
				 const char *statements, size_t len, struct query_error *error)
{
	struct remote_ask *ask = calloc(1, sizeof(*ask));
	enum query_code code;

	*out = NULL;
	if (ask == NULL || (ask->tally = find_tally(a, name->address)) == NULL) {
		free(ask);
		return query_error_set(error, QUERY_INTERNAL, "out of memory");
	}
	ask->asker = a;
	snprintf(ask->address, sizeof(ask->address), "%s", name->address);
	snprintf(ask->name, sizeof(ask->name), "%s", name->name);
	buf_put(&ask->statements, statements, len);
	tally_begin(ask->tally);
	code = ask->statements.failed ? query_error_set(error, QUERY_INTERNAL, "out of memory") : start(ask, error);
	if (code == QUERY_OK)
		*out = ask;
	else
		remote_ask_free(ask);
	return code;
}

static void end(struct remote_ask *ask)
{
	if (ask->ended)
		return;
	ask->ended = true;
	remote_fetch_free(ask->fetch);
	ask->fetch = NULL;
	tally_end(ask->tally);
}

void remote_ask_free(struct remote_ask *ask)
{
	if (ask == NULL)
		return;
	end(ask);
	rows_reader_free(ask->reader);
	buf_fini(&ask->statements);
	free(ask);
}

void remote_ask_count_row(struct remote_ask *ask)
{
	ask->tally->rows++;
}

const struct rows_reader *remote_ask_reader(const struct remote_ask *ask)
{
	return ask->reader;
}

/* ---- the answer */

static bool may_try_again(const struct remote_ask *ask, enum db_err err)
{
	return err == DB_IO && !ask->handed_out && ask->tries < TRIES_MAX && clock_mono_ms() < ask->asker->deadline_ms;
}

/* The fetch broke. QUERY_OK: it is asked again. */
static enum query_code broken(struct remote_ask *ask, enum db_err err, const struct errmsg *em,
			      struct query_error *error)
{
	if (!may_try_again(ask, err))
		return fail_transport(ask, error, err, em);
	remote_fetch_free(ask->fetch);
	ask->fetch = NULL;
	rows_reader_free(ask->reader);
	ask->reader = NULL;
	return start(ask, error);
}

/* The answer's head. DB_BUSY: it is not there. */
static enum db_err take_head(struct remote_ask *ask, enum query_code *code, struct query_error *error)
{
	const char *content_type;
	struct errmsg em = {0};
	char what[80];
	enum db_err err;
	int status;

	err = remote_fetch_try_head(ask->fetch, &status, &content_type, &em);
	if (err == DB_BUSY)
		return err;
	if (err != DB_OK) {
		*code = broken(ask, err, &em, error);
		return DB_OK;
	}
	err = rows_reader_create(&ask->reader, status, content_type, NULL, &em);
	if (err == DB_NOMEM) {
		*code = fail(ask, error, QUERY_INTERNAL, "out of memory for its answer", "");
	} else if (err != DB_OK) {
		snprintf(what, sizeof(what), "what answered there (HTTP %d) is no Grizzly node", status);
		*code = fail(ask, error, QUERY_REMOTE_ERROR, what, "");
	}
	return DB_OK;
}

/* Feeds the reader. DB_BUSY: nothing has come. */
static enum db_err take_piece(struct remote_ask *ask, enum query_code *code, struct query_error *error)
{
	struct errmsg em = {0};
	size_t got;
	enum db_err err;

	err = remote_fetch_try_read(ask->fetch, ask->piece, sizeof(ask->piece), &got, &em);
	if (err == DB_BUSY)
		return err;
	if (err != DB_OK) {
		*code = broken(ask, err, &em, error);
	} else if (got == 0) {
		rows_reader_finish(ask->reader);
	} else {
		ask->tally->bytes += got;
		if (rows_reader_feed(ask->reader, ask->piece, got) != DB_OK)
			*code = fail(ask, error, QUERY_INTERNAL, "out of memory for its answer", "");
	}
	return DB_OK;
}

static bool is_cancelled(const struct remote_ask *ask)
{
	return ask->asker->cancelled != NULL && atomic_load(ask->asker->cancelled);
}

/* Until something comes for any request, or a moment has passed. */
static void wait_a_moment(struct remote_asker *a)
{
	uint64_t until_us = clock_mono_us() + CANCEL_LOOK_US;

	pthread_mutex_lock(&a->mutex);
	while (!a->woken && clock_wait(&a->changed, &a->mutex, until_us))
		;
	a->woken = false;
	pthread_mutex_unlock(&a->mutex);
}

/* More of the answer: its head, or bytes. *busy: there is nothing, and wait was false. */
static enum query_code get_more(struct remote_ask *ask, bool wait, bool *busy, struct query_error *error)
{
	struct remote_asker *a = ask->asker;
	enum query_code code = QUERY_OK;
	enum db_err err;
	int read;

	*busy = false;
	for (;;) {
		err = ask->reader == NULL ? take_head(ask, &code, error) : take_piece(ask, &code, error);
		if (err != DB_BUSY)
			return code;
		if (!wait) {
			*busy = true;
			return QUERY_OK;
		}
		read = a->meanwhile != NULL ? a->meanwhile(a->meanwhile_arg, ask) : 0;
		if (read < 0) /* why is known elsewhere */
			return fail(ask, error, QUERY_REMOTE_ERROR, "another request failed", "");
		if (is_cancelled(ask))
			return fail(ask, error, QUERY_TIMEOUT, "the client has gone", "");
		if (read == 0)
			wait_a_moment(a);
	}
}

static enum remote_event failed(struct remote_ask *ask)
{
	end(ask);
	return REMOTE_FAILED;
}

enum remote_event remote_ask_next(struct remote_ask *ask, bool wait, struct query_error *error,
				  struct query_error *refused)
{
	struct query_error theirs = {.statement = -1};
	bool busy;

	if (refused != NULL)
		refused->code = QUERY_OK;
	for (;;) {
		enum rows_event event = ask->reader != NULL ? rows_reader_next(ask->reader, &theirs) : ROWS_MORE;

		switch (event) {
		case ROWS_MORE:
			if (get_more(ask, wait, &busy, error) != QUERY_OK)
				return failed(ask);
			if (busy)
				return REMOTE_BUSY;
			break;
		case ROWS_RESULT:
			ask->handed_out = true;
			return REMOTE_RESULT;
		case ROWS_ROW:
			return REMOTE_ROW;
		case ROWS_DONE:
			end(ask);
			return REMOTE_DONE;
		case ROWS_REFUSED:
			fail_refused(ask, error, &theirs);
			if (refused != NULL)
				*refused = theirs;
			return failed(ask);
		case ROWS_BROKEN:
			fail(ask, error, theirs.code, "its answer is damaged", theirs.message);
			return failed(ask);
		}
	}
}

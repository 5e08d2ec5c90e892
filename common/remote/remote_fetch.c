/*
 * remote_fetch.c - a fetch: the copy of its request, and the answer on its way from the pool's thread to the reader.
 *
 * Two buffers: the pool's thread fills `in` under the mutex, the reader takes it as a whole in exchange for its empty one
 * and copies from that without a lock. So the mutex is taken once for up to half of REMOTE_FETCH_BUFFER, and the network
 * fills one while the reader empties the other.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/remote/remote_pool_priv.h"

#define CANCEL_LOOK_US 20000
#define HALF_BYTES     (REMOTE_FETCH_BUFFER / 2)

/* ---- life */

static char **copy_headers(const char *const *headers)
{
	char **copy;
	size_t count = 0, i;

	while (headers != NULL && headers[count] != NULL)
		count++;
	copy = calloc(count + 1, sizeof(*copy));
	for (i = 0; copy != NULL && i < count; i++) {
		copy[i] = strdup(headers[i]);
		if (copy[i] == NULL) {
			while (i > 0)
				free(copy[--i]);
			free(copy);
			return NULL;
		}
	}
	return copy;
}

static void free_headers(char **headers)
{
	size_t i;

	for (i = 0; headers != NULL && headers[i] != NULL; i++)
		free(headers[i]);
	free(headers);
}

static void fetch_destroy(struct remote_fetch *f)
{
	if (f->token != NULL)
		explicit_bzero(f->token, strlen(f->token));
	free(f->address);
	free(f->path);
	free(f->token);
	free_headers(f->headers);
	free(f->body);
	free(f->content_type);
	buf_fini(&f->in);
	buf_fini(&f->out);
	pthread_cond_destroy(&f->changed);
	pthread_mutex_destroy(&f->mutex);
	free(f);
}

void remote_fetch_unref(struct remote_fetch *f)
{
	struct remote_pool *p = f->pool;

	if (atomic_fetch_sub(&f->refs, 1) > 1)
		return;
	fetch_destroy(f);
	remote_pool_on_fetch(p, false);
}

void remote_fetch_forget_body(struct remote_fetch *f)
{
	free(f->body);
	f->body = NULL;
}

static bool copy_request(struct remote_fetch *f, const struct remote_request *r)
{
	f->address = strdup(r->address);
	f->path = strdup(r->path);
	f->headers = copy_headers(r->headers);
	if (f->address == NULL || f->path == NULL || f->headers == NULL)
		return false;
	if (r->token != NULL && r->token[0] != '\0') {
		f->token = strdup(r->token);
		if (f->token == NULL)
			return false;
	}
	f->is_get = r->body == NULL;
	if (!f->is_get) {
		f->body = malloc(r->body_len + 1); /* of no bytes is still a POST */
		if (f->body == NULL)
			return false;
		memcpy(f->body, r->body, r->body_len);
		f->body_len = r->body_len;
	}
	f->is_read = r->is_read;
	f->member = r->member;
	f->at_once = r->at_once;
	f->level = r->level < REMOTE_LEVEL_MAX ? r->level : REMOTE_LEVEL_MAX;
	f->deadline_ms = r->deadline_ms;
	f->notify = r->notify;
	f->notify_arg = r->notify_arg;
	return true;
}

enum db_err remote_fetch_start(struct remote_fetch **out, struct remote_pool *p, const struct remote_request *r,
			       struct errmsg *em)
{
	struct remote_fetch *f;
	enum db_err err;

	*out = NULL;
	if (strlen(r->address) >= REMOTE_ADDRESS_MAX)
		return errmsg_set(em, DB_INVALID, "an address of %zu characters", strlen(r->address));
	if (r->deadline_ms <= clock_mono_ms())
		return errmsg_set(em, DB_TIMEOUT, "%s: no time left for a request", r->address);
	f = calloc(1, sizeof(*f));
	if (f == NULL)
		return errmsg_set(em, DB_NOMEM, "%s: request: out of memory", r->address);
	f->pool = p;
	atomic_init(&f->refs, 2); /* the reader's and the pool's */
	pthread_mutex_init(&f->mutex, NULL);
	pthread_cond_init(&f->changed, NULL);
	if (!copy_request(f, r)) {
		fetch_destroy(f);
		return errmsg_set(em, DB_NOMEM, "%s: request: out of memory", r->address);
	}
	remote_pool_on_fetch(p, true);
	err = remote_pool_post(p, f, REMOTE_POST_START);
	if (err != DB_OK) {
		fetch_destroy(f);
		remote_pool_on_fetch(p, false);
		return errmsg_set(em, err, "%s: this node is stopping", r->address);
	}
	*out = f;
	return DB_OK;
}

void remote_fetch_free(struct remote_fetch *f)
{
	bool under_way;

	if (f == NULL)
		return;
	pthread_mutex_lock(&f->mutex);
	f->wants = false;
	while (f->notifying)
		pthread_cond_wait(&f->changed, &f->mutex);
	under_way = !f->ended;
	pthread_mutex_unlock(&f->mutex);
	if (under_way)
		remote_pool_post(f->pool, f, REMOTE_POST_CANCEL);
	remote_fetch_unref(f);
}

/* ---- the pool's thread */

enum db_err remote_fetch_on_head(struct remote_fetch *f, int status, const char *content_type)
{
	char *copy = strdup(content_type);

	if (copy == NULL)
		return DB_NOMEM;
	pthread_mutex_lock(&f->mutex);
	f->status = status;
	f->content_type = copy;
	f->head_known = true;
	pthread_mutex_unlock(&f->mutex);
	return DB_OK;
}

enum db_err remote_fetch_on_body(struct remote_fetch *f, const void *bytes, size_t len)
{
	enum db_err err = DB_OK;

	pthread_mutex_lock(&f->mutex);
	if (f->in.len > 0 && f->in.len + len > HALF_BYTES) {
		f->paused = true;
		err = DB_BUSY;
	} else {
		buf_put(&f->in, bytes, len);
		err = f->in.failed ? DB_NOMEM : DB_OK;
	}
	pthread_mutex_unlock(&f->mutex);
	return err;
}

void remote_fetch_on_end(struct remote_fetch *f, enum db_err err, const struct errmsg *em)
{
	pthread_mutex_lock(&f->mutex);
	assert(!f->ended);
	f->ended = true;
	f->err = err;
	if (err != DB_OK && em != NULL)
		f->why = *em;
	pthread_mutex_unlock(&f->mutex);
}

void remote_fetch_flush(struct remote_fetch *f)
{
	pthread_mutex_lock(&f->mutex);
	if (f->blocks)
		pthread_cond_broadcast(&f->changed);
	if (f->wants && f->notify != NULL) {
		f->wants = false;
		f->notifying = true;
		pthread_mutex_unlock(&f->mutex);
		f->notify(f->notify_arg);
		pthread_mutex_lock(&f->mutex);
		f->notifying = false;
		pthread_cond_broadcast(&f->changed);
	}
	pthread_mutex_unlock(&f->mutex);
}

/* ---- the reader */

static bool has_head(const struct remote_fetch *f)
{
	return f->head_known || f->ended;
}

static bool has_bytes(const struct remote_fetch *f)
{
	return f->in.len > 0 || f->ended;
}

/* mutex held. DB_CLOSED: *cancelled. */
static enum db_err wait_until(struct remote_fetch *f, bool (*there)(const struct remote_fetch *),
			      const atomic_bool *cancelled, struct errmsg *em)
{
	bool gone = false;

	f->blocks = true;
	while (!there(f) && !gone) {
		if (cancelled == NULL)
			pthread_cond_wait(&f->changed, &f->mutex);
		else if (atomic_load(cancelled))
			gone = true;
		else
			clock_wait(&f->changed, &f->mutex, clock_mono_us() + CANCEL_LOOK_US);
	}
	f->blocks = false;
	return gone ? errmsg_set(em, DB_CLOSED, "%s: the request was cancelled", f->address) : DB_OK;
}

/* mutex held. There is something, or DB_BUSY and the reader will be notified. */
static enum db_err ask(struct remote_fetch *f, bool (*there)(const struct remote_fetch *))
{
	if (there(f))
		return DB_OK;
	f->wants = true;
	return DB_BUSY;
}

/* mutex held; it has ended. */
static enum db_err say_end(const struct remote_fetch *f, struct errmsg *em)
{
	return f->err == DB_OK ? DB_OK : errmsg_set(em, f->err, "%s", f->why.text);
}

static enum db_err take_head(struct remote_fetch *f, int *status, const char **content_type, struct errmsg *em)
{
	if (!f->head_known)
		return say_end(f, em);
	*status = f->status;
	*content_type = f->content_type;
	return DB_OK;
}

enum db_err remote_fetch_head(struct remote_fetch *f, const atomic_bool *cancelled, int *status,
			      const char **content_type, struct errmsg *em)
{
	enum db_err err;

	pthread_mutex_lock(&f->mutex);
	err = wait_until(f, has_head, cancelled, em);
	if (err == DB_OK)
		err = take_head(f, status, content_type, em);
	pthread_mutex_unlock(&f->mutex);
	return err;
}

enum db_err remote_fetch_try_head(struct remote_fetch *f, int *status, const char **content_type, struct errmsg *em)
{
	enum db_err err;

	pthread_mutex_lock(&f->mutex);
	err = ask(f, has_head);
	if (err == DB_OK)
		err = take_head(f, status, content_type, em);
	pthread_mutex_unlock(&f->mutex);
	return err;
}

/* mutex held, out is empty: exchanges it for what came. True: the connection may go on. */
static bool exchange(struct remote_fetch *f)
{
	struct buf taken = f->in;
	bool resume = f->paused && !f->ended;

	f->in = f->out;
	f->in.len = 0;
	f->out = taken;
	f->out_at = 0;
	f->paused = false;
	return resume;
}

static size_t copy_out(struct remote_fetch *f, void *bytes, size_t max)
{
	size_t left = f->out.len - f->out_at, n = left < max ? left : max;

	memcpy(bytes, f->out.data + f->out_at, n);
	f->out_at += n;
	return n;
}

/* mutex held; bytes have come, or the end. */
static enum db_err refill(struct remote_fetch *f, bool *resume, struct errmsg *em)
{
	if (f->in.len == 0)
		return say_end(f, em);
	*resume = exchange(f);
	return DB_OK;
}

static enum db_err read_some(struct remote_fetch *f, bool may_block, const atomic_bool *cancelled, void *bytes,
			     size_t max, size_t *got, struct errmsg *em)
{
	enum db_err err = DB_OK;
	bool resume = false;

	*got = 0;
	if (f->out_at == f->out.len) {
		pthread_mutex_lock(&f->mutex);
		err = may_block ? wait_until(f, has_bytes, cancelled, em) : ask(f, has_bytes);
		if (err == DB_OK)
			err = refill(f, &resume, em);
		pthread_mutex_unlock(&f->mutex);
	}
	if (resume)
		remote_pool_post(f->pool, f, REMOTE_POST_RESUME);
	if (err == DB_OK && f->out_at < f->out.len)
		*got = copy_out(f, bytes, max);
	return err;
}

enum db_err remote_fetch_read(struct remote_fetch *f, const atomic_bool *cancelled, void *bytes, size_t max,
			      size_t *got, struct errmsg *em)
{
	return read_some(f, true, cancelled, bytes, max, got, em);
}

enum db_err remote_fetch_try_read(struct remote_fetch *f, void *bytes, size_t max, size_t *got, struct errmsg *em)
{
	return read_some(f, false, NULL, bytes, max, got, em);
}

/*
 * stream.c - a long answer: pieces cross from the producer's thread to the worker's, and no faster than the client
 * reads.
 *
 * The producer appends pieces under the lock and posts the stream's one task; the worker hands them to evhttp as chunks
 * and tells the producer what still waits in the socket's output buffer. The stream is freed by the worker, in the
 * task's last run after the producer called http_stream_end() or http_stream_error(); the producer never touches it
 * after that.
 *
 * A producer that lives on the worker's own loop does not block but is called back, by the same task; for it alone the
 * worker posts the task itself. Once the producer has ended the stream nobody posts any more: the task that is then on
 * its way is the one that frees.
 *
 * A stream to an HTTP/1.0 client has no chunks: the closing of the connection ends it, and so one that breaks off is
 * ended with a reset.
 */
#include "common/http/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"

#define ROOM_BYTES (HTTP_STREAM_PENDING_MAX / 2) /* a producer is called back when no more than this waits */
#define TAKE_MIN   4096u /* less than this taken is nothing taken, unless it is all that waits */

struct piece {
	struct piece *next;
	uint8_t *bytes;
	size_t len;
};

enum stream_end { STREAM_OPEN, STREAM_WHOLE, STREAM_BROKEN, STREAM_ERROR };

struct http_stream {
	struct http_task task;
	struct http_worker *worker;
	struct http_request *req; /* the worker's; its `gone` is anybody's */
	struct evbuffer *chunk;   /* the worker's */
	int status;
	char *content_type;
	bool started;         /* the worker's: the head was sent */
	bool chunked;         /* the worker's: its end shows by a last chunk */
	bool has_length;      /* Content-Length was announced: it shows by that */
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t room;
	struct piece *first, **last;
	size_t queued;        /* bytes in pieces */
	size_t in_output;     /* bytes that wait for the socket */
	size_t taken;         /* bytes taken since progress_ms */
	uint64_t progress_ms; /* when the client took something, or there was nothing to take */
	bool posted;          /* task is on its way */
	bool stalled;         /* the producer gave up on the client */
	bool client_gone;
	bool wants_room; /* the producer on the worker's loop was told DB_BUSY */
	bool wants_gone; /* it was not told yet that the client has gone */
	void (*wakeup)(void *arg);
	void *wakeup_arg;
	enum stream_end end;
	struct query_error error; /* STREAM_ERROR */
};

static void free_pieces(struct piece *piece)
{
	struct piece *next;

	for (; piece != NULL; piece = next) {
		next = piece->next;
		free(piece->bytes);
		free(piece);
	}
}

/* The server is not freed while a producer may still call (http_server_free()). */
static void count_stream(struct http_server *s, bool one_more)
{
	pthread_mutex_lock(&s->accept_lock);
	if (one_more)
		s->streams++;
	else
		s->streams--;
	pthread_cond_broadcast(&s->accept_cond);
	pthread_mutex_unlock(&s->accept_lock);
}

static void stream_free(struct http_stream *st)
{
	count_stream(st->worker->server, false);
	free_pieces(st->first);
	pthread_cond_destroy(&st->room);
	pthread_mutex_destroy(&st->lock);
	evbuffer_free(st->chunk);
	free(st->content_type);
	free(st);
}

/* Lock held. Whether the producer on the worker's loop is to be called. */
static bool wakeup_is_due(const struct http_stream *st)
{
	if (st->wakeup == NULL || st->end != STREAM_OPEN)
		return false;
	if (st->client_gone)
		return st->wants_gone;
	return st->wants_room && st->queued + st->in_output <= ROOM_BYTES;
}

/* Lock held, on the worker's thread. The call comes from the loop, not from inside whoever told us. */
static void post_wakeup(struct http_stream *st)
{
	if (st->posted || !wakeup_is_due(st))
		return;
	st->posted = true;
	http_worker_post(st->worker, &st->task);
}

/* --- The worker's side. --- */

void http_stream_client_gone(struct http_stream *st)
{
	pthread_mutex_lock(&st->lock);
	st->client_gone = true;
	st->in_output = 0;
	pthread_cond_signal(&st->room);
	post_wakeup(st);
	pthread_mutex_unlock(&st->lock);
}

void http_stream_note_progress(struct http_stream *st)
{
	pthread_mutex_lock(&st->lock);
	st->progress_ms = clock_mono_ms();
	pthread_mutex_unlock(&st->lock);
}

/* Callback on the connection's output buffer: it grew or the socket took something. */
void http_stream_on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *stream)
{
	struct http_stream *st = stream;

	pthread_mutex_lock(&st->lock);
	st->in_output = evbuffer_get_length(output);
	st->taken += info->n_deleted;
	if (st->taken >= TAKE_MIN || st->in_output == 0 || info->orig_size == 0) {
		st->progress_ms = clock_mono_ms();
		st->taken = 0;
	}
	if (info->n_deleted > 0 && st->queued + st->in_output <= HTTP_STREAM_PENDING_MAX)
		pthread_cond_signal(&st->room);
	post_wakeup(st);
	pthread_mutex_unlock(&st->lock);
}

static void start(struct http_stream *st)
{
	struct http_request *req = st->req;
	struct http_conn *c = req->conn;
	struct http_lent lent;

	st->started = true;
	st->chunked = !c->frame.version_1_0 && !req->head && !st->has_length;
	if (c->frame.version_1_0) /* or evhttp would promise to keep the connection, and a Content-Length of 0 */
		evhttp_remove_header(evhttp_request_get_input_headers(req->ereq), "Connection");
	http_request_put_headers(req, st->status, st->content_type, &lent);
	c->output_cb = evbuffer_add_cb(bufferevent_get_output(c->bev), http_stream_on_output, st);
	evhttp_send_reply_start(req->ereq, st->status, NULL);
	http_request_take_headers_back(req->ereq, &lent);
}

static void free_reference(const void *bytes, size_t len, void *arg)
{
	(void)len;
	(void)arg;
	free((void *)(uintptr_t)bytes);
}

/* Takes the pieces. False when memory is short: the stream cannot go on. */
static bool send_pieces(struct http_stream *st, struct piece *piece)
{
	struct piece *next;

	for (; piece != NULL; piece = next) {
		next = piece->next;
		if (!st->started)
			start(st);
		if (evbuffer_add_reference(st->chunk, piece->bytes, piece->len, free_reference, NULL) != 0) {
			free_pieces(piece);
			return false;
		}
		free(piece);
		evhttp_send_reply_chunk(st->req->ereq, st->chunk);
		evbuffer_drain(st->chunk, evbuffer_get_length(st->chunk)); /* evhttp leaves it there after a HEAD */
	}
	if (st->started)
		http_conn_flush(st->req->conn);
	return true;
}

static void detach(struct http_stream *st)
{
	struct http_conn *c = st->req->conn;

	if (c->output_cb != NULL)
		evbuffer_remove_cb_entry(bufferevent_get_output(c->bev), c->output_cb);
	c->output_cb = NULL;
	st->req->stream = NULL;
}

static void finish_whole(struct http_stream *st)
{
	struct evhttp_request *ereq = st->req->ereq;
	struct http_conn *c = st->req->conn;
	bool ends_now;

	if (!st->started)
		start(st);
	detach(st);
	http_request_forget(st->req);
	http_conn_set_writing(c);
	/* Without a last chunk to send evhttp may end the connection right there. */
	ends_now = evbuffer_get_length(bufferevent_get_output(c->bev)) == 0;
	evhttp_send_reply_end(ereq);
	if (!ends_now || st->chunked)
		http_conn_flush(c);
}

static void finish_broken(struct http_stream *st)
{
	struct http_conn *c = st->req->conn;

	if (!st->started) {
		http_conn_close(c);
		http_request_drop(st->req);
		return;
	}
	detach(st);
	http_request_forget(st->req);
	http_conn_end_output(c, c->frame.version_1_0);
}

static void finish(struct http_stream *st, enum stream_end end)
{
	struct http_request *req = st->req;

	if (req->conn == NULL) {
		http_request_drop(req);
	} else if (end == STREAM_ERROR && !st->started) {
		evhttp_remove_header(evhttp_request_get_output_headers(req->ereq), "Content-Length");
		req->stream = NULL;
		http_reply_error(req, &st->error);
	} else if (end == STREAM_WHOLE) {
		finish_whole(st);
	} else {
		if (end == STREAM_ERROR)
			http_trace_failed(req, &st->error);
		finish_broken(st);
	}
	stream_free(st);
}

static void note_stalled(struct http_stream *st)
{
	struct query_error error = {0};

	query_error_set(&error, QUERY_TIMEOUT, "the client takes nothing of its answer: the connection is closed");
	http_trace_failed(st->req, &error);
}

static void run_stream(struct http_task *task)
{
	struct http_stream *st = (struct http_stream *)((char *)task - offsetof(struct http_stream, task));
	struct piece *pieces;
	enum stream_end end;
	bool stalled, wake;

	pthread_mutex_lock(&st->lock);
	st->posted = false;
	pieces = st->first;
	st->first = NULL;
	st->last = &st->first;
	end = st->end;
	stalled = st->stalled;
	pthread_mutex_unlock(&st->lock);

	if (st->req->conn == NULL)
		free_pieces(pieces);
	else if (!send_pieces(st, pieces))
		http_conn_close(st->req->conn); /* no memory */
	if (stalled && st->req->conn != NULL) {
		note_stalled(st);
		http_conn_close(st->req->conn);
	}

	/* Only now are the pieces out of the count: until here they were counted twice rather than not at all. */
	pthread_mutex_lock(&st->lock);
	for (pieces = st->first, st->queued = 0; pieces != NULL; pieces = pieces->next)
		st->queued += pieces->len;
	if (st->queued + st->in_output <= HTTP_STREAM_PENDING_MAX)
		pthread_cond_signal(&st->room);
	wake = wakeup_is_due(st);
	if (wake) {
		st->wants_room = false;
		st->wants_gone = !st->client_gone;
	}
	pthread_mutex_unlock(&st->lock);
	if (end != STREAM_OPEN)
		finish(st, end);
	else if (wake)
		st->wakeup(st->wakeup_arg); /* may end the stream: that posts the task again */
}

enum db_err http_stream_create(struct http_stream **out, struct http_request *req, int status, const char *content_type)
{
	struct http_stream *st = calloc(1, sizeof(*st));

	*out = NULL;
	if (st == NULL)
		return DB_NOMEM;
	st->content_type = strdup(content_type);
	st->chunk = evbuffer_new();
	if (st->content_type == NULL || st->chunk == NULL) {
		if (st->chunk != NULL)
			evbuffer_free(st->chunk);
		free(st->content_type);
		free(st);
		return DB_NOMEM;
	}
	pthread_mutex_init(&st->lock, NULL);
	pthread_cond_init(&st->room, NULL);
	st->task.run = run_stream;
	st->worker = req->worker;
	st->req = req;
	st->status = status;
	st->has_length = evhttp_find_header(evhttp_request_get_output_headers(req->ereq), "Content-Length") != NULL;
	st->last = &st->first;
	st->client_gone = req->conn == NULL;
	st->progress_ms = clock_mono_ms();
	req->stream = st;
	count_stream(st->worker->server, true);
	*out = st;
	return DB_OK;
}

/* --- The producer's side. --- */

/* Lock held on entry, released on return: st may be freed by the worker as soon as it is. */
static void post_and_unlock(struct http_stream *st)
{
	struct http_worker *w = st->worker;
	bool post = !st->posted;

	st->posted = true;
	pthread_mutex_unlock(&st->lock);
	if (post)
		http_worker_post(w, &st->task);
}

/* Takes bytes, also on an error. *out is NULL when there are none, for an empty chunk would end the answer. */
static enum db_err make_piece(struct piece **out, uint8_t *bytes, size_t len)
{
	struct piece *piece;

	*out = NULL;
	if (len == 0) {
		free(bytes);
		return DB_OK;
	}
	piece = calloc(1, sizeof(*piece));
	if (piece == NULL || bytes == NULL) {
		free(piece);
		free(bytes);
		return DB_NOMEM;
	}
	piece->bytes = bytes;
	piece->len = len;
	*out = piece;
	return DB_OK;
}

/* Lock held. */
static void enqueue(struct http_stream *st, struct piece *piece)
{
	if (st->queued + st->in_output == 0)
		st->progress_ms = clock_mono_ms();
	*st->last = piece;
	st->last = &piece->next;
	st->queued += piece->len;
}

/* Lock held. Why no more is taken, if so. Giving up ends the connection, so the client's going does not hide it. */
static enum db_err refusal(const struct http_stream *st)
{
	if (st->stalled)
		return DB_TIMEOUT;
	return st->client_gone ? DB_CLOSED : DB_OK;
}

/* Lock held. Waits until there is room; false when the client took nothing for stall_ms. */
static bool wait_for_room(struct http_stream *st, uint64_t stall_ms)
{
	uint64_t deadline_ms;

	while (st->queued + st->in_output > HTTP_STREAM_PENDING_MAX && refusal(st) == DB_OK) {
		deadline_ms = st->progress_ms + stall_ms;
		if (clock_mono_ms() >= deadline_ms)
			return false;
		clock_wait(&st->room, &st->lock, deadline_ms * 1000);
	}
	return true;
}

enum db_err http_stream_write(struct http_stream *st, struct buf *b, uint64_t stall_ms)
{
	bool failed = b->failed;
	struct piece *piece;
	enum db_err err;
	uint8_t *bytes;
	size_t len = 0;

	assert(!http_worker_is_self(st->worker)); /* it would wait for itself */
	bytes = buf_take(b, &len);
	buf_fini(b);
	if (failed)
		return DB_NOMEM;
	err = make_piece(&piece, bytes, len);
	if (piece == NULL)
		return err;
	pthread_mutex_lock(&st->lock);
	err = refusal(st);
	if (err != DB_OK) {
		pthread_mutex_unlock(&st->lock);
		free_pieces(piece);
		return err;
	}
	enqueue(st, piece);
	post_and_unlock(st);

	pthread_mutex_lock(&st->lock);
	if (!wait_for_room(st, stall_ms)) {
		st->stalled = true;
		post_and_unlock(st);
		return DB_TIMEOUT;
	}
	err = refusal(st);
	pthread_mutex_unlock(&st->lock);
	return err;
}

void http_stream_give_up(struct http_stream *st)
{
	pthread_mutex_lock(&st->lock);
	st->stalled = true;
	pthread_cond_signal(&st->room);
	post_and_unlock(st);
}

enum db_err http_stream_try_write(struct http_stream *st, const void *bytes, size_t len)
{
	struct piece *piece;
	enum db_err err = DB_OK;
	uint8_t *copy;

	assert(http_worker_is_self(st->worker));
	pthread_mutex_lock(&st->lock);
	if (st->client_gone) {
		err = DB_CLOSED;
	} else if (st->queued + st->in_output > HTTP_STREAM_PENDING_MAX) {
		st->wants_room = true;
		err = DB_BUSY;
	}
	pthread_mutex_unlock(&st->lock);
	if (err != DB_OK || len == 0)
		return err;
	copy = malloc(len);
	if (copy != NULL)
		memcpy(copy, bytes, len);
	err = make_piece(&piece, copy, len);
	if (piece == NULL)
		return err;
	pthread_mutex_lock(&st->lock);
	enqueue(st, piece);
	post_and_unlock(st);
	return DB_OK;
}

void http_stream_set_wakeup(struct http_stream *st, void (*wakeup)(void *arg), void *arg)
{
	assert(http_worker_is_self(st->worker));
	pthread_mutex_lock(&st->lock);
	st->wakeup = wakeup;
	st->wakeup_arg = arg;
	st->wants_gone = true;
	post_wakeup(st);
	pthread_mutex_unlock(&st->lock);
}

uint64_t http_stream_stalled_ms(struct http_stream *st)
{
	uint64_t stalled_ms = 0;

	pthread_mutex_lock(&st->lock);
	if (st->queued + st->in_output > 0 && !st->client_gone)
		stalled_ms = clock_mono_ms() - st->progress_ms;
	pthread_mutex_unlock(&st->lock);
	return stalled_ms;
}

static void end_with(struct http_stream *st, enum stream_end end)
{
	pthread_mutex_lock(&st->lock);
	st->end = end;
	post_and_unlock(st);
}

void http_stream_end(struct http_stream *st, bool whole)
{
	end_with(st, whole ? STREAM_WHOLE : STREAM_BROKEN);
}

void http_stream_error(struct http_stream *st, const struct query_error *error)
{
	st->error = *error;
	end_with(st, STREAM_ERROR);
}

const atomic_bool *http_stream_gone(const struct http_stream *st)
{
	return &st->req->gone;
}

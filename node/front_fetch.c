/*
 * front_fetch.c - see front_fetch.h.
 *
 * Freed when it has ended, pump() is not on the stack and its task is not on its way to the worker.
 */
#include "node/front_fetch.h"

#include <stdlib.h>

#include "node/front_request.h"

#define PIECE_BYTES ((size_t)32 << 10)
#define PIECES_MAX  16 /* in one turn of the worker's loop */

struct front_fetch {
	struct front_fetch *next; /* worker's list */
	struct front_worker *worker;
	struct remote_fetch *fetch; /* NULL: ended */
	struct http_call_handler handler;
	struct http_task task;
	atomic_bool posted; /* task is on its way */
	bool pumping;
	bool has_head;
	bool paused;      /* on_body did not take piece */
	struct buf piece; /* to be offered again; empty: none */
};

static void release(struct front_fetch *f)
{
	if (f->pumping || atomic_load(&f->posted))
		return;
	buf_fini(&f->piece);
	free(f);
}

static void end(struct front_fetch *f, enum db_err err, const struct errmsg *em)
{
	struct front_fetch **at = &f->worker->fetches;

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	remote_fetch_free(f->fetch); /* posts no more */
	f->fetch = NULL;
	f->handler.on_end(f->handler.arg, err, em);
	release(f);
}

/* True: taken, or the fetch has ended. */
static bool offer(struct front_fetch *f, const void *bytes, size_t len)
{
	return f->handler.on_body(f->handler.arg, bytes, len) || f->fetch == NULL;
}

static enum db_err take_head(struct front_fetch *f, struct errmsg *em)
{
	const char *content_type;
	int status;
	enum db_err err = remote_fetch_try_head(f->fetch, &status, &content_type, em);

	if (err != DB_OK)
		return err;
	f->has_head = true;
	if (f->handler.on_head != NULL)
		f->handler.on_head(f->handler.arg, status, content_type);
	return DB_OK;
}

/* DB_BUSY: paused, or nothing is there. *whole: all of it has come. */
static enum db_err take_body(struct front_fetch *f, bool *whole, struct errmsg *em)
{
	char bytes[PIECE_BYTES];
	size_t got;
	enum db_err err;

	if (f->piece.len > 0) {
		f->paused = !offer(f, f->piece.data, f->piece.len);
		if (f->paused)
			return DB_BUSY;
		buf_clear(&f->piece);
		return DB_OK;
	}
	err = remote_fetch_try_read(f->fetch, bytes, sizeof(bytes), &got, em);
	*whole = err == DB_OK && got == 0;
	if (err != DB_OK || *whole || offer(f, bytes, got))
		return err;
	f->paused = true;
	buf_put(&f->piece, bytes, got);
	return f->piece.failed ? errmsg_set(em, DB_NOMEM, "out of memory") : DB_BUSY;
}

static void post(struct front_fetch *f)
{
	if (!atomic_exchange(&f->posted, true))
		http_worker_post(f->worker->worker, &f->task);
}

static void pump(struct front_fetch *f)
{
	struct errmsg em = {0};
	enum db_err err = DB_OK;
	bool whole = false;
	int i;

	f->pumping = true;
	for (i = 0; i < PIECES_MAX && err == DB_OK && !whole && f->fetch != NULL; i++)
		err = f->has_head ? take_body(f, &whole, &em) : take_head(f, &em);
	f->pumping = false;
	if (f->fetch == NULL)
		release(f);
	else if (whole || (err != DB_OK && err != DB_BUSY))
		end(f, err, &em);
	else if (err == DB_OK)
		post(f);
}

static void on_task(struct http_task *task)
{
	struct front_fetch *f = (struct front_fetch *)((char *)task - offsetof(struct front_fetch, task));

	atomic_store(&f->posted, false);
	if (f->fetch == NULL)
		release(f);
	else if (!f->paused)
		pump(f);
}

/* The pool's thread. */
static void on_notify(void *arg)
{
	post(arg);
}

enum db_err front_fetch_start(struct front_fetch **out, struct front_worker *w, const struct remote_request *request,
			      const struct http_call_handler *handler, struct errmsg *em)
{
	struct front_fetch *f = calloc(1, sizeof(*f));
	struct remote_request notified = *request;
	const char *content_type;
	int status;
	enum db_err err;

	*out = NULL;
	if (f == NULL)
		return errmsg_set(em, DB_NOMEM, "%s: request: out of memory", request->address);
	f->worker = w;
	f->handler = *handler;
	f->task.run = on_task;
	notified.notify = on_notify;
	notified.notify_arg = f;
	err = remote_fetch_start(&f->fetch, frontend_get_options(w->frontend)->pool, &notified, em);
	if (err != DB_OK) {
		free(f);
		return err;
	}
	f->next = w->fetches;
	w->fetches = f;
	*out = f;
	if (remote_fetch_try_head(f->fetch, &status, &content_type, NULL) != DB_BUSY)
		post(f); /* so soon: nobody notifies */
	return DB_OK;
}

void front_fetch_resume(struct front_fetch *f)
{
	f->paused = false;
	post(f);
}

void front_fetch_cancel(struct front_fetch *f)
{
	const struct errmsg em = {DB_CLOSED, "the request was cancelled"};

	end(f, DB_CLOSED, &em);
}

void front_fetch_stop(struct front_worker *w)
{
	while (w->fetches != NULL)
		front_fetch_cancel(w->fetches);
}

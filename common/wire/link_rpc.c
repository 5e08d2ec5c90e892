/*
 * link_rpc.c - REQ and REP: see link.h.
 *
 * link_req_send() also looks after the dialer, once a second at most: without requests nobody needs the connection.
 *
 * Each request is a context of the REQ socket with its own aio, which lives from link_req_send() to the end of its
 * callback. Resending is off, and the context is closed with the request: what was given up never gets sent.
 * lock guards the list of calls and is held while an operation of NNG is started, so that link_req_free() either
 * prevents it or cancels it; it is never held during a user's callback.
 */
#include "common/wire/link.h"

#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/wire/link_priv.h"

#define LINK_RETRY_MS       10        /* pause after a receive that failed for want of memory */
#define LINK_TIMEOUT_MAX_MS 86400000u /* NNG counts in int32 */

/* ---- REQ */

struct link_call {
	struct link_call *prev;
	struct link_call *next;
	struct link_req *owner;
	nng_ctx ctx;
	nng_aio *aio;
	bool sent; /* handed to a connection; now the reply is awaited */
	uint64_t deadline_ms;
	link_reply_fn on_reply;
	void *arg;
};

struct link_req {
	nng_socket sock;
	char url[LINK_URL_MAX];
	pthread_mutex_t lock;
	pthread_cond_t idle; /* calls became NULL */
	bool closing;
	struct link_call *calls;
	nng_dialer dialer;
	bool dialing; /* dialer is one */
	struct link_tally tally;
	uint64_t looked_ms; /* when tally was taken */
};

static void call_unlink(struct link_req *r, struct link_call *call)
{
	if (call->prev != NULL)
		call->prev->next = call->next;
	else
		r->calls = call->next;
	if (call->next != NULL)
		call->next->prev = call->prev;
}

static void call_link(struct link_req *r, struct link_call *call)
{
	call->next = r->calls;
	if (call->next != NULL)
		call->next->prev = call;
	r->calls = call;
}

/* The end of a call: tells the user, then forgets it. */
static void call_finish(struct link_call *call, enum db_err err, nng_msg *reply)
{
	struct link_req *r = call->owner;

	if (err == DB_TIMEOUT && !call->sent)
		err = DB_UNAVAILABLE;
	nng_ctx_close(call->ctx); /* before the callback: from here on nothing can be sent */
	call->on_reply(call->arg, err, reply == NULL ? NULL : nng_msg_body(reply),
		       reply == NULL ? 0 : nng_msg_len(reply));
	nng_msg_free(reply);
	nng_aio_reap(call->aio); /* frees it after the callback we are in */
	pthread_mutex_lock(&r->lock);
	call_unlink(r, call);
	if (r->calls == NULL)
		pthread_cond_broadcast(&r->idle);
	pthread_mutex_unlock(&r->lock);
	free(call);
}

/* False: the link is being freed, or the deadline has passed. */
static bool call_receive(struct link_call *call, enum db_err *err)
{
	struct link_req *r = call->owner;
	uint64_t now_ms = clock_mono_ms();
	bool started = false;

	pthread_mutex_lock(&r->lock);
	call->sent = true;
	if (r->closing) {
		*err = DB_CLOSED;
	} else if (now_ms >= call->deadline_ms) {
		*err = DB_TIMEOUT;
	} else {
		nng_aio_set_timeout(call->aio, (nng_duration)(call->deadline_ms - now_ms));
		nng_ctx_recv(call->ctx, call->aio); /* the call may end on another thread once lock is released */
		started = true;
	}
	pthread_mutex_unlock(&r->lock);
	return started;
}

static void call_step(void *arg)
{
	struct link_call *call = arg;
	int rv = nng_aio_result(call->aio);
	enum db_err err = link_err(rv);
	nng_msg *msg = nng_aio_get_msg(call->aio);

	nng_aio_set_msg(call->aio, NULL);
	if (rv != 0) {
		nng_msg_free(msg); /* a failed send gives the request back */
		call_finish(call, err, NULL);
	} else if (call->sent) {
		call_finish(call, DB_OK, msg);
	} else if (!call_receive(call, &err)) {
		call_finish(call, err, NULL);
	}
}

static enum db_err call_create(struct link_call **out, struct link_req *r, const void *bytes, size_t len)
{
	struct link_call *call = calloc(1, sizeof(*call));
	nng_msg *msg = link_msg_alloc(len);
	int rv = NNG_ENOMEM;

	if (call == NULL || msg == NULL)
		goto free_both;
	memcpy(nng_msg_body(msg), bytes, len);
	call->owner = r;
	rv = nng_aio_alloc(&call->aio, call_step, call);
	if (rv != 0)
		goto free_both;
	rv = nng_ctx_open(&call->ctx, r->sock);
	if (rv != 0)
		goto free_aio;
	rv = nng_ctx_set_ms(call->ctx, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
	if (rv != 0)
		goto close_ctx;
	nng_aio_set_msg(call->aio, msg);
	*out = call;
	return DB_OK;
close_ctx:
	nng_ctx_close(call->ctx);
free_aio:
	nng_aio_free(call->aio);
free_both:
	nng_msg_free(msg);
	free(call);
	return link_err(rv);
}

/* Replaces a dialer that has given up: see link.c. Lock held. */
static void tend_dialer(struct link_req *r)
{
	struct errmsg em = {0};
	uint64_t now_ms = clock_mono_ms();
	bool was_dialing = r->dialing;

	if (now_ms - r->looked_ms < LINK_STALL_MS)
		return;
	r->looked_ms = now_ms;
	if (r->dialing) {
		if (!link_dialer_stalled(r->dialer, &r->tally))
			return;
		log_info("link: connecting to %s had come to a halt; beginning afresh", r->url);
		nng_dialer_close(r->dialer);
	}
	r->tally = (struct link_tally){0};
	r->dialing = link_dial(&r->dialer, r->sock, r->url, false, &em) == DB_OK;
	if (!r->dialing && was_dialing)
		log_warn("link: %s; trying again", em.text);
}

enum db_err link_req_send(struct link_req *r, const void *bytes, size_t len, uint64_t timeout_ms,
			  link_reply_fn on_reply, void *arg)
{
	struct link_call *call = NULL;
	enum db_err err;

	if (timeout_ms > LINK_TIMEOUT_MAX_MS)
		timeout_ms = LINK_TIMEOUT_MAX_MS;
	pthread_mutex_lock(&r->lock);
	err = r->closing ? DB_CLOSED : call_create(&call, r, bytes, len);
	if (err == DB_OK) {
		tend_dialer(r);
		call->on_reply = on_reply;
		call->arg = arg;
		call->deadline_ms = clock_mono_ms() + timeout_ms;
		call_link(r, call);
		nng_aio_set_timeout(call->aio, (nng_duration)timeout_ms);
		nng_ctx_send(call->ctx, call->aio);
	}
	pthread_mutex_unlock(&r->lock);
	return err;
}

/* For a caller that gives up when its connection ends: a dialer that reconnects just as it is freed would leave the
 * listener a connection that is over before it has shaken hands, the very thing that NNG takes badly (link.c). */
static enum db_err dial_once_only(nng_socket sock, const char *url, struct errmsg *em)
{
	int rv = nng_socket_set_ms(sock, NNG_OPT_RECONNMAXT, LINK_TIMEOUT_MAX_MS);

	if (rv == 0)
		rv = nng_socket_set_ms(sock, NNG_OPT_RECONNMINT, LINK_TIMEOUT_MAX_MS); /* waits a random part of it */
	return rv == 0 ? DB_OK : link_error(em, rv, "cannot set up a socket for", url);
}

static enum db_err req_open(struct link_req **out, const char *url, bool wait, struct errmsg *em)
{
	struct link_req *r = calloc(1, sizeof(*r));
	enum db_err err;
	int rv;

	*out = NULL;
	if (r == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	if (strlen(url) >= LINK_URL_MAX) {
		err = errmsg_set(em, DB_INVALID, "\"%s\" is too long for an address", url);
		goto free_link;
	}
	memcpy(r->url, url, strlen(url) + 1);
	rv = nng_req0_open(&r->sock);
	if (rv != 0) {
		err = link_error(em, rv, "cannot open a socket for", url);
		goto free_link;
	}
	err = link_socket_options(r->sock, url, em);
	if (err == DB_OK && wait)
		err = dial_once_only(r->sock, url, em);
	if (err == DB_OK)
		err = link_dial(&r->dialer, r->sock, url, wait, em);
	if (err != DB_OK)
		goto close_socket;
	r->dialing = true;
	r->looked_ms = clock_mono_ms();
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->idle, NULL);
	*out = r;
	return DB_OK;
close_socket:
	nng_close(r->sock);
free_link:
	free(r);
	return err;
}

enum db_err link_req_create(struct link_req **out, const char *url, struct errmsg *em)
{
	return req_open(out, url, false, em);
}

void link_req_free(struct link_req *r)
{
	struct link_call *call;

	if (r == NULL)
		return;
	pthread_mutex_lock(&r->lock);
	r->closing = true;
	for (call = r->calls; call != NULL; call = call->next)
		nng_aio_cancel(call->aio); /* completes on another thread */
	while (r->calls != NULL)
		pthread_cond_wait(&r->idle, &r->lock);
	pthread_mutex_unlock(&r->lock);
	nng_close(r->sock);
	pthread_cond_destroy(&r->idle);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

/* ---- one blocking request */

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t answered;
	bool done;
	enum db_err err;
	struct buf *reply;
};

static void wake_waiter(void *arg, enum db_err err, const void *bytes, size_t len)
{
	struct waiter *w = arg;

	pthread_mutex_lock(&w->lock);
	w->err = err;
	if (err == DB_OK)
		buf_put(w->reply, bytes, len);
	w->done = true;
	pthread_cond_signal(&w->answered);
	pthread_mutex_unlock(&w->lock);
}

enum db_err link_req_call(const char *url, const void *bytes, size_t len, uint64_t timeout_ms, struct buf *reply,
			  struct errmsg *em)
{
	struct waiter w = {.lock = PTHREAD_MUTEX_INITIALIZER, .answered = PTHREAD_COND_INITIALIZER, .reply = reply};
	struct link_req *r;
	enum db_err err;

	buf_clear(reply);
	/* A Unix socket says at once whether anybody listens; a TCP connect may take minutes, so it is not waited for. */
	err = req_open(&r, url, strncmp(url, "ipc://", 6) == 0, em);
	if (err != DB_OK)
		return err;
	err = link_req_send(r, bytes, len, timeout_ms, wake_waiter, &w);
	if (err == DB_OK) {
		pthread_mutex_lock(&w.lock);
		while (!w.done)
			pthread_cond_wait(&w.answered, &w.lock);
		pthread_mutex_unlock(&w.lock);
		err = w.err;
	}
	link_req_free(r);
	if (err == DB_OK && reply->failed)
		err = DB_NOMEM;
	return err == DB_OK ? DB_OK : errmsg_set(em, err, "no answer from %s: %s", url, db_err_text(err));
}

enum db_err link_cli_call(const char *url, const char *sender, const char *request, uint64_t timeout_ms,
			  struct buf *reply, struct wire_text *answer, struct errmsg *em)
{
	struct wire_msg *msg = calloc(1, sizeof(*msg));
	struct buf bytes = {0};
	enum db_err err;

	if (msg == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for a request");
	msg->head.type = WIRE_CLI_REQUEST;
	snprintf(msg->head.sender, sizeof(msg->head.sender), "%s", sender);
	msg->body.text.text = request;
	msg->body.text.len = strlen(request);
	wire_encode(&bytes, msg);
	err = bytes.failed ? errmsg_set(em, DB_NOMEM, "no memory for a request") : DB_OK;
	if (err == DB_OK)
		err = link_req_call(url, bytes.data, bytes.len, timeout_ms, reply, em);
	if (err == DB_OK)
		err = wire_decode(msg, reply->data, reply->len, NULL, em);
	if (err == DB_OK && msg->head.type != WIRE_CLI_REPLY)
		err = errmsg_set(em, DB_INVALID, "the answer is not one of a supervisor");
	if (err == DB_OK)
		*answer = msg->body.text;
	buf_fini(&bytes);
	free(msg);
	return err;
}

/* ---- REP */

struct link_rep {
	nng_socket sock;
	nng_ctx ctx;
	nng_aio *aio;
	link_request_fn on_request;
	void *arg;
	struct buf reply;
	bool replying; /* the aio sends; else it receives */
	struct link_door door;
	uint16_t port;
};

/* Answers the request in msg and frees it; false when there is nothing to send. */
static bool answer(struct link_rep *r, nng_msg *msg)
{
	nng_msg *reply;

	buf_clear(&r->reply);
	r->on_request(r->arg, nng_msg_body(msg), nng_msg_len(msg), &r->reply);
	if (r->reply.len > 0)
		link_door_heard(&r->door, nng_msg_get_pipe(msg));
	nng_msg_free(msg);
	reply = r->reply.len == 0 ? NULL : link_msg_from_buf(&r->reply);
	if (reply == NULL)
		return false; /* receiving again discards the request */
	r->replying = true;
	nng_aio_set_msg(r->aio, reply);
	nng_ctx_send(r->ctx, r->aio);
	return true;
}

static void rep_step(void *arg)
{
	struct link_rep *r = arg;
	int rv = nng_aio_result(r->aio);
	nng_msg *msg = nng_aio_get_msg(r->aio);
	bool was_reply = r->replying;

	link_admit_faults();
	r->replying = false;
	nng_aio_set_msg(r->aio, NULL);
	if (rv == NNG_ECLOSED || rv == NNG_ECANCELED) {
		nng_msg_free(msg);
		return; /* link_rep_free() */
	}
	if (was_reply) {
		nng_msg_free(msg); /* non-NULL when it could not be sent; the peer runs into its deadline */
	} else if (rv != 0) {
		nng_sleep_aio(LINK_RETRY_MS, r->aio); /* comes back here with 0 and no message */
		return;
	} else if (msg != NULL && answer(r, msg)) {
		return;
	}
	nng_ctx_recv(r->ctx, r->aio);
}

static enum db_err rep_open(struct link_rep *r, const char *url, struct errmsg *em)
{
	enum db_err err;
	int rv = nng_rep0_open(&r->sock);

	if (rv != 0)
		return link_error(em, rv, "cannot open a socket for", url);
	rv = nng_ctx_open(&r->ctx, r->sock);
	if (rv == 0)
		rv = nng_aio_alloc(&r->aio, rep_step, r);
	err = rv == 0 ? link_socket_options(r->sock, url, em) : link_error(em, rv, "cannot listen at", url);
	if (err == DB_OK)
		err = link_listen(&r->door, r->sock, url, &r->port, em);
	if (err == DB_OK)
		return DB_OK;
	nng_close(r->sock);
	nng_aio_free(r->aio); /* NULL is fine */
	return err;
}

enum db_err link_rep_create(struct link_rep **out, const char *url, link_request_fn on_request, void *arg,
			    struct errmsg *em)
{
	struct link_rep *r = calloc(1, sizeof(*r));
	enum db_err err;

	*out = NULL;
	if (r == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	r->on_request = on_request;
	r->arg = arg;
	err = rep_open(r, url, em);
	if (err != DB_OK) {
		free(r);
		return err;
	}
	*out = r;
	nng_ctx_recv(r->ctx, r->aio);
	return DB_OK;
}

uint16_t link_rep_port(const struct link_rep *r)
{
	return r->port;
}

void link_rep_free(struct link_rep *r)
{
	if (r == NULL)
		return;
	link_unlisten(&r->door);
	nng_aio_stop(r->aio); /* waits for rep_step() */
	nng_close(r->sock);
	link_door_fini(&r->door);
	nng_aio_free(r->aio);
	buf_fini(&r->reply);
	free(r);
}

/*
 * conn.c - one client's connection: what evhttp may see of it, its deadlines, its end.
 *
 * evhttp owns the socket, the bufferevent and the evhttp_connection; this file stands in front of its input. A callback
 * on the input buffer feeds every byte to the framing check (frame.c) while the read watermark (HTTP_HOLD) keeps evhttp
 * waiting; once a whole request lies in the buffer the watermark falls and evhttp parses it in one go, at the end of the
 * same turn of the loop. What evhttp would answer with a page of its own, or wait for without end, is refused here
 * instead: the connection is taken away from evhttp (its callbacks are replaced), told our reason in JSON, and closed.
 *
 * Rules of libevent 2.1.12 this relies on (http.c, bufferevent_sock.c):
 * (1) evhttp_connection_free() calls the close callback first, then frees the requests still queued on the connection
 *     unless they are owned by the user. A request that a handler has is taken off the queue before that when the
 *     client went away (userdone is 0), so it stays ours to free; when we close the connection ourselves we own it
 *     first.
 * (2) While a request is being answered evhttp is in a state in which its read callback exits the process. The
 *     watermark keeps that callback away, so reading may go on, and it must: it is how a vanished client is noticed.
 *     (evhttp stops reading after a body; we start again.) A client that shuts down its sending side has gone, too, for
 *     this.
 * (3) evhttp_send_done(), which ends a reply, runs the request's on-complete callback before it frees the request, and
 *     only then reads on.
 * (4) Bytes read ahead (pipelining) that lie in the input when evhttp reads on would be parsed unchecked. So the
 *     on-complete callback takes them out of the buffer and they are put back in the next turn, as if they came then.
 */
#include "common/http/internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"

#define PEEK_VECS           16
#define IO_BYTES_MAX        (256u * 1024u) /* of one connection in one turn of the loop */
#define TLS_REST_MS         1000u          /* idle for longer, a connection keeps no buffers of TLS */
#define EVICT_LOOKS         64             /* connections looked at to find one to close */
#define ADDRESS_REFUSED_MAX 64             /* of one address, beyond its limit, that are told so */

static void set_state(struct http_conn *c, enum http_conn_state state)
{
	c->state = state;
	c->since_ms = c->worker->now_ms;
	c->progress_ms = c->since_ms;
	c->output_seen = 0;
}

static void hold(struct http_conn *c, bool on)
{
	bufferevent_setwatermark(c->bev, EV_READ, on ? HTTP_HOLD : 0, 0);
}

/* Under TLS what was read ahead while reading was off brings no event. evhttp turns reading on again without this, after
 * an answer; but if it was off, there is input that waited, and on_input() hears of it when it is put back. */
static void enable(struct http_conn *c, short what)
{
	bufferevent_enable(c->bev, what);
	if (c->ssl != NULL)
		http_tls_read_on(c);
}

static void wake_soon(struct http_worker *w)
{
	event_active(w->fresh_event, EV_TIMEOUT, 0);
}

/* In the loop's next turn, after the other connections. While fresh ones wait for the event in this turn it is coming
 * anyway, and must not be put off: their own events would be first. */
static void wake_later(struct http_worker *w)
{
	static const struct timeval at_once = {0, 0};

	if (!w->accepted)
		event_add(w->fresh_event, &at_once);
}

/* The list is in the order of the last answer, or of birth: who has been idle for the longest is last. */
static void list_first(struct http_conn *c)
{
	struct http_worker *w = c->worker;

	c->prev = NULL;
	c->next = w->conns;
	if (c->next != NULL)
		c->next->prev = c;
	else
		w->conns_last = c;
	w->conns = c;
}

static void unlist(struct http_conn *c)
{
	struct http_worker *w = c->worker;

	if (c->prev != NULL)
		c->prev->next = c->next;
	else
		w->conns = c->next;
	if (c->next != NULL)
		c->next->prev = c->prev;
	else
		w->conns_last = c->prev;
}

static void remove_held(struct http_conn *c)
{
	struct http_conn **at = &c->worker->held;

	if (!c->is_held)
		return;
	while (*at != c)
		at = &(*at)->next_held;
	*at = c->next_held;
	if (*at == NULL)
		c->worker->held_last = at;
	c->is_held = false;
}

static void remove_ready(struct http_conn *c)
{
	if (c->at_ready == NULL)
		return;
	*c->at_ready = c->next_ready;
	if (c->next_ready != NULL)
		c->next_ready->at_ready = c->at_ready;
	else
		c->worker->ready_last = c->at_ready;
	c->at_ready = NULL;
}

static void remove_flush(struct http_conn *c)
{
	if (c->at_flush == NULL)
		return;
	*c->at_flush = c->next_flush;
	if (c->next_flush != NULL)
		c->next_flush->at_flush = c->at_flush;
	c->at_flush = NULL;
}

static void conn_free(struct http_conn *c)
{
	struct http_server *s = c->worker->server;

	remove_ready(c);
	remove_flush(c);
	remove_held(c);
	atomic_fetch_sub(&s->body_bytes, c->body_bytes);
	http_addresses_leave(s->addresses, c->address);
	http_frame_fini(&c->frame);
	if (c->held != NULL)
		evbuffer_free(c->held);
	free(c);
}

/* evhttp's close callback, (1): the connection's end, whoever brought it about. */
static void on_close(struct evhttp_connection *evcon, void *arg)
{
	struct http_conn *c = arg;
	struct http_worker *w = c->worker;

	(void)evcon;
	if (c->ssl != NULL)
		http_tls_shut_down(c);
	evbuffer_remove_cb_entry(bufferevent_get_input(c->bev), c->input_cb);
	if (c->output_cb != NULL)
		evbuffer_remove_cb_entry(bufferevent_get_output(c->bev), c->output_cb);
	unlist(c);
	if (w->parsing == c)
		w->parsing = NULL;
	if (c->req != NULL)
		http_request_client_gone(c->req);
	conn_free(c);
	http_worker_conn_closed(w);
}

void http_conn_close(struct http_conn *c)
{
	const struct linger reset = {1, 0};

	if (c->wrote_bad) /* a failure here leaves an ordinary close */
		setsockopt(bufferevent_getfd(c->bev), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (c->req != NULL)
		evhttp_request_own(c->req->ereq); /* (1) */
	evhttp_connection_free(c->evcon);
}

/* --- Taken away from evhttp: last words, then the end. --- */

/* Somebody who goes on sending is let read the answer, not let send for ever. */
static void on_last_read(struct bufferevent *bev, void *arg)
{
	struct evbuffer *input = bufferevent_get_input(bev);
	struct http_conn *c = arg;

	c->lingered += evbuffer_get_length(input);
	evbuffer_drain(input, evbuffer_get_length(input));
	if (c->lingered > HTTP_LINGER_BYTES_MAX)
		http_conn_close(c);
}

/* The last words are with the kernel. Closing now, with bytes of the client unread, would send a reset that can
 * overtake them; so we say that we are done and read on until the client is, too. */
static void on_last_written(struct bufferevent *bev, void *arg)
{
	struct http_conn *c = arg;

	if (c->state != CONN_REFUSED)
		return;
	if (c->ssl != NULL)
		http_tls_shut_down(c);
	if (c->wrote_bad || c->saw_eof || shutdown(bufferevent_getfd(bev), SHUT_WR) != 0) {
		http_conn_close(c);
		return;
	}
	set_state(c, CONN_LINGER);
}

static void on_last_event(struct bufferevent *bev, short what, void *arg)
{
	struct http_conn *c = arg;

	if ((what & BEV_EVENT_CONNECTED) != 0)
		return;
	/* Under TLS libevent writes no more after a client's last word. */
	if ((what & BEV_EVENT_EOF) != 0 && c->state == CONN_REFUSED && c->ssl == NULL &&
	    evbuffer_get_length(bufferevent_get_output(bev)) > 0)
		c->saw_eof = true;
	else
		http_conn_close(c);
}

void http_conn_end_output(struct http_conn *c, bool reset)
{
	c->wrote_bad = reset;
	c->req = NULL;
	set_state(c, CONN_REFUSED);
	bufferevent_setcb(c->bev, on_last_read, on_last_written, on_last_event, c);
	hold(c, false);
	enable(c, EV_READ | EV_WRITE);
	if (evbuffer_get_length(bufferevent_get_output(c->bev)) == 0)
		bufferevent_trigger(c->bev, EV_WRITE, BEV_OPT_DEFER_CALLBACKS);
}

void http_conn_refuse(struct http_conn *c, const struct query_error *error)
{
	int status = c->frame.head_too_large ? 431 : query_code_http_status(error->code);
	struct evbuffer *input = bufferevent_get_input(c->bev);
	struct buf body = {0};
	char id[QUERY_REQUEST_ID_MAX + 1];

	http_trace_refused(c->worker, error, id);
	evbuffer_drain(input, evbuffer_get_length(input));
	atomic_fetch_sub(&c->worker->server->body_bytes, c->body_bytes);
	c->body_bytes = 0;
	http_count(&c->worker->counts.requests_total);
	http_count(&c->worker->counts.replies_by_class[status / 100]);
	answer_put_error(&body, error);
	evbuffer_add_printf(
	    bufferevent_get_output(c->bev),
	    "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n" HTTP_REQUEST_ID_HEADER
	    ": %s\r\n%sConnection: close\r\n\r\n",
	    status, query_code_name(error->code), body.len, id,
	    status == 429 ? "Retry-After: " HTTP_RETRY_AFTER_S "\r\n" : "");
	evbuffer_add(bufferevent_get_output(c->bev), body.data, body.len);
	buf_fini(&body);
	http_conn_end_output(c, false);
}

/* --- Input. --- */

/* evhttp would say this only when no byte of the body has come, and through a callback that may be a stale one. */
static void send_continue(struct http_conn *c)
{
	static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
	ssize_t n;

	c->frame.expect_continue = false;
	if (c->ssl != NULL) {
		if (!http_tls_send_now(c, line, sizeof(line) - 1))
			http_conn_end_output(c, true);
		return;
	}
	n = send(bufferevent_getfd(c->bev), line, sizeof(line) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n == (ssize_t)sizeof(line) - 1 || n == -1)
		return; /* not sent: clients go on without it after a moment; a broken socket is reported elsewhere */
	query_error_set(&c->frame.error, QUERY_INTERNAL, "the connection is stuck");
	c->frame.error.statement = -1;
	c->frame.state = FRAME_BAD;
}

static bool wants_more(const struct http_conn *c)
{
	return c->frame.state != FRAME_COMPLETE && c->frame.state != FRAME_BAD;
}

/* Feeds one piece of input; true when it was all taken and more is wanted. */
static bool feed(struct http_conn *c, const uint8_t *bytes, size_t len)
{
	size_t used = 0;

	while (used < len && wants_more(c))
		used += http_frame_feed(&c->frame, bytes + used, len - used);
	return wants_more(c);
}

/* What follows a large body is far to walk to, so what need not be seen is not looked for. */
static void feed_added(struct http_conn *c, struct evbuffer *input, size_t added)
{
	struct evbuffer_iovec vecs[PEEK_VECS];
	struct evbuffer_ptr at;
	size_t done = http_frame_skip(&c->frame, added), offset = evbuffer_get_length(input) - added;
	int i, count;

	while (done < added && wants_more(c)) {
		evbuffer_ptr_set(input, &at, offset + done, EVBUFFER_PTR_SET);
		count = evbuffer_peek(input, (ev_ssize_t)(added - done), &at, vecs, PEEK_VECS);
		if (count > PEEK_VECS)
			count = PEEK_VECS;
		for (i = 0; i < count; i++) {
			if (!feed(c, vecs[i].iov_base, vecs[i].iov_len))
				return;
			done += vecs[i].iov_len;
		}
	}
}

/* Bodies are kept in memory until they are answered. Large ones together have a limit, small ones are bounded by the number
 * of connections, so that a crowd of large ones shuts out nobody else. False: there is no room for this one. */
static bool count_body(struct http_conn *c, size_t len)
{
	struct http_server *s = c->worker->server;
	size_t more, before;

	if (len <= HTTP_SMALL_BODY_MAX || len <= c->body_bytes)
		return true;
	more = len - c->body_bytes;
	before = atomic_fetch_add(&s->body_bytes, more);
	c->body_bytes = len;
	return before + more <= s->options.requests_bytes_max;
}

static void refuse_overload(struct http_conn *c, const char *why)
{
	struct query_error error = {.statement = -1};

	query_error_set(&error, QUERY_OVERLOADED, "%s; try again later", why);
	error.statement = -1;
	http_conn_refuse(c, &error);
}

/* One after the other in each step, the connections of a turn share what the step needs of the processor's caches: all
 * are read (and decrypted), then all requests run, then all replies are written. */
static void run_soon(struct http_conn *c)
{
	struct http_worker *w = c->worker;

	if (w->ready == NULL)
		event_active(w->ready_event, EV_TIMEOUT, 0);
	c->next_ready = NULL;
	c->at_ready = w->ready_last;
	*w->ready_last = c;
	w->ready_last = &c->next_ready;
}

void http_conn_run_ready(struct http_worker *w)
{
	struct http_conn *c;

	while ((c = w->ready) != NULL) {
		remove_ready(c);
		w->parsing = c;
		hold(c, false);
		bufferevent_trigger(c->bev, EV_READ, 0);
	}
}

static void take_input(struct http_conn *c, struct evbuffer *input, size_t added)
{
	struct http_frame *f = &c->frame;

	if (c->is_held) { /* in order, behind what waits for its turn */
		evbuffer_remove_buffer(input, c->held, evbuffer_get_length(input));
		return;
	}
	if (f->state == FRAME_START && f->skipped == 0 && f->line.len == 0)
		c->since_ms = clock_mono_ms();
	feed_added(c, input, added);
	if (f->expect_continue && f->state != FRAME_COMPLETE && f->state != FRAME_BAD && f->state > FRAME_HEAD)
		send_continue(c);
	if (c->state != CONN_READING)
		return;
	if (f->state == FRAME_BAD) {
		http_conn_refuse(c, &f->error);
	} else if (!count_body(c, evbuffer_get_length(input))) {
		refuse_overload(c, "the bodies of other requests fill the memory that is set aside for them");
	} else if (f->state == FRAME_COMPLETE) {
		if (f->skipped > 0)
			evbuffer_drain(input, f->skipped);
		c->state = CONN_READY;
		run_soon(c);
	}
}

/* Bytes came in: before evhttp hears of them. */
static void on_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg)
{
	struct http_conn *c = arg;

	if (info->n_added == 0)
		return;
	if (c->state == CONN_READY || c->state == CONN_PENDING || c->state == CONN_WRITING) {
		/* The client is a request ahead. Let it wait: what is here already is enough. */
		bufferevent_disable(c->bev, EV_READ);
		return;
	}
	if (c->state == CONN_READING)
		take_input(c, input, info->n_added);
	if (c->ssl != NULL && c->state != CONN_READY) /* the request comes before a last word right behind it */
		http_tls_read_on(c);
}

/* A request has been answered, (3) and (4): get ready for the next before evhttp reads on. */
static void on_reply_sent(struct evhttp_request *ereq, void *arg)
{
	struct http_conn *c = arg;
	struct evbuffer *input = bufferevent_get_input(c->bev);

	(void)ereq;
	set_state(c, CONN_READING);
	unlist(c);
	list_first(c);
	http_frame_reset(&c->frame);
	if (evbuffer_get_length(input) == 0)
		return;
	if (c->held == NULL)
		c->held = evbuffer_new();
	if (c->held == NULL || evbuffer_remove_buffer(input, c->held, evbuffer_get_length(input)) < 0) {
		evbuffer_drain(input, evbuffer_get_length(input)); /* the client's next request will never be whole */
		return;
	}
	c->is_held = true;
	c->next_held = NULL;
	*c->worker->held_last = c;
	c->worker->held_last = &c->next_held;
	wake_later(c->worker);
}

/* One request of each that waits now: a reply given at once puts its connection at the end of the queue again. */
void http_conn_run_held(struct http_worker *w)
{
	struct http_conn *c;
	struct evbuffer *input;
	size_t count = 0;

	for (c = w->held; c != NULL; c = c->next_held)
		count++;
	while (count-- > 0 && w->held != NULL) {
		c = w->held;
		remove_held(c);
		input = bufferevent_get_input(c->bev);
		if (c->ssl == NULL)
			evbuffer_unfreeze(input, 0);
		evbuffer_add_buffer(input, c->held);
		if (c->ssl == NULL)
			evbuffer_freeze(input, 0);
	}
	if (w->held != NULL)
		wake_later(w);
}

/* --- Called by request.c and stream.c. --- */

void http_conn_set_pending(struct http_conn *c, struct http_request *req)
{
	assert(c->state == CONN_READY);
	c->worker->parsing = NULL;
	c->req = req;
	req->body_bytes = c->body_bytes;
	c->body_bytes = 0;
	set_state(c, CONN_PENDING);
	hold(c, true);
	evhttp_request_set_on_complete_cb(req->ereq, on_reply_sent, c);
	if (evbuffer_get_length(bufferevent_get_input(c->bev)) == 0)
		enable(c, EV_READ); /* (2) */
	else
		bufferevent_disable(c->bev, EV_READ);
}

void http_conn_set_writing(struct http_conn *c)
{
	c->req = NULL;
	set_state(c, CONN_WRITING);
}

/* Most replies fit the socket's buffer: written here they cost neither a turn of the loop nor the two epoll_ctl calls
 * that waiting for writability takes. What does not fit waits for EV_WRITE, which evhttp has turned on. */
void http_conn_flush(struct http_conn *c)
{
	struct evbuffer *output = bufferevent_get_output(c->bev);

	if (c->ssl != NULL) {
		http_tls_flush(c);
		return;
	}
	evbuffer_unfreeze(output, 1);
	if (evbuffer_get_length(output) > 0)
		evbuffer_write(output, bufferevent_getfd(c->bev)); /* an error comes again through the bufferevent */
	evbuffer_freeze(output, 1);
	if (evbuffer_get_length(output) == 0)
		bufferevent_trigger(c->bev, EV_WRITE, 0);
}

/* A reply wakes its client, and where clients share our processors each wake-up pushes somebody aside. So the requests
 * that arrived together are all worked on first and their replies written in one go: half as many context switches under
 * load, nothing lost with a single client. */
void http_conn_flush_soon(struct http_conn *c)
{
	struct http_worker *w = c->worker;

	if (c->at_flush != NULL)
		return;
	if (w->flush == NULL)
		event_active(w->flush_event, EV_TIMEOUT, 0);
	c->next_flush = w->flush;
	if (w->flush != NULL)
		w->flush->at_flush = &c->next_flush;
	w->flush = c;
	c->at_flush = &w->flush;
}

void http_conn_flush_all(struct http_worker *w)
{
	struct http_conn *c;

	while ((c = w->flush) != NULL) {
		remove_flush(c);
		http_conn_flush(c);
	}
}

/* --- Making room. --- */

static bool is_idle(const struct http_conn *c)
{
	return c->state == CONN_READING && !c->is_held && c->frame.state == FRAME_START && c->frame.line.len == 0;
}

/* Whoever asks for nothing, is not done asking, or has had its refusal; and not only just now: a client may be about to
 * use a connection again that it has used a moment ago. */
static bool is_of_no_use(const struct http_conn *c)
{
	if (c->state != CONN_LINGER && (c->state != CONN_READING || c->is_held))
		return false;
	return c->worker->now_ms >= c->since_ms + HTTP_EVICT_MS;
}

static void evict(struct http_conn *c)
{
	http_count(&c->worker->counts.connections_evicted_total);
	http_conn_close(c);
}

/* Among those that have been of no use for the longest: of the address with the most connections, an idle one before one
 * that is sending. NULL: there is none. */
static struct http_conn *find_useless(struct http_worker *w)
{
	struct http_conn *c, *best = NULL;
	unsigned looked = 0, count, best_count = 0;

	for (c = w->conns_last; c != NULL && (looked < EVICT_LOOKS || best == NULL); c = c->prev, looked++) {
		if (!is_of_no_use(c))
			continue;
		count = http_address_connections(c->address);
		if (best == NULL || count > best_count || (count == best_count && is_idle(c) && !is_idle(best))) {
			best = c;
			best_count = count;
		}
	}
	return best;
}

bool http_conn_can_evict(struct http_worker *w)
{
	return find_useless(w) != NULL;
}

/* A connection has come that is one too many. */
static void make_room(struct http_worker *w)
{
	struct http_conn *c;

	if (atomic_load(&w->server->connections) <= w->server->options.connections_max)
		return;
	c = find_useless(w);
	if (c != NULL)
		evict(c);
}

/* The same, but only of one address. */
static bool evict_of(struct http_worker *w, const struct http_address *address)
{
	struct http_conn *c, *best = NULL;

	for (c = w->conns_last; c != NULL && (best == NULL || !is_idle(best)); c = c->prev)
		if (c->address == address && is_of_no_use(c) && (best == NULL || is_idle(c)))
			best = c;
	if (best != NULL)
		evict(best);
	return best != NULL;
}

/* --- Birth. --- */

/* evhttp's bufferevent callback: a connection was accepted; evhttp has not made its own object yet. */
struct bufferevent *http_conn_create(struct event_base *base, void *worker)
{
	struct http_worker *w = worker;
	const struct http_options *options = &w->server->options;
	struct http_conn *c = calloc(1, sizeof(*c));

	http_accept_pause(w);
	w->accepted = true;
	if (c != NULL) {
		if (options->tls != NULL)
			c->bev = http_tls_bufferevent(c, base, options->tls);
		else
			c->bev = bufferevent_socket_new(base, -1, 0);
		if (c->bev != NULL)
			c->input_cb = evbuffer_add_cb(bufferevent_get_input(c->bev), on_input, c);
	}
	wake_soon(w);
	if (c == NULL || c->bev == NULL || c->input_cb == NULL) {
		if (c != NULL && c->bev != NULL)
			bufferevent_free(c->bev);
		free(c);
		return NULL; /* evhttp makes one itself; http_request_arrived() turns its requests away */
	}
	c->worker = w;
	http_frame_init(&c->frame, options->header_bytes_max, options->body_bytes_max);
	set_state(c, CONN_READING);
	c->since_ms = clock_mono_ms();
	hold(c, true);
	if (c->ssl == NULL)
		bufferevent_set_max_single_read(c->bev, IO_BYTES_MAX);
	bufferevent_set_max_single_write(c->bev, IO_BYTES_MAX);
	bufferevent_incref(c->bev);
	c->next_fresh = w->fresh;
	w->fresh = c;
	http_count(&w->counts.connections_open);
	http_count(&w->counts.connections_total);
	atomic_fetch_add(&w->connections, 1);
	atomic_fetch_add(&w->server->connections, 1);
	return c->bev;
}

/* A flood from one address makes room for itself, or is told so; one that goes on all the same is told nothing. */
static void check_address(struct http_conn *c)
{
	struct http_worker *w = c->worker;
	unsigned max = w->server->options.address_connections_max;
	struct sockaddr_storage address = {0};
	socklen_t len = sizeof(address);
	unsigned count;

	if (getpeername(bufferevent_getfd(c->bev), (struct sockaddr *)&address, &len) == 0)
		c->address = http_addresses_enter(w->server->addresses, (struct sockaddr *)&address);
	count = http_address_connections(c->address);
	if (max == 0 || count <= max || evict_of(w, c->address))
		return;
	http_count(&w->counts.connections_refused_total);
	if (count > max + ADDRESS_REFUSED_MAX)
		http_conn_close(c);
	else
		refuse_overload(c, "your address has as many connections as it may have");
}

/* The accept callback has returned and no event of the new connections has run yet: find their evhttp_connection, which
 * is what evhttp set as its callbacks' argument; NULL when it gave up and freed the bufferevent. */
void http_conn_settle_fresh(struct http_worker *w)
{
	struct bufferevent *bev;
	struct http_conn *c;
	void *evcon;

	while ((c = w->fresh) != NULL) {
		w->fresh = c->next_fresh;
		bev = c->bev;
		bufferevent_getcb(bev, NULL, NULL, NULL, &evcon);
		if (evcon == NULL) {
			evbuffer_remove_cb_entry(bufferevent_get_input(bev), c->input_cb);
			if (c->ssl != NULL)
				http_tls_forget_socket(c);
			bufferevent_decref(bev);
			conn_free(c);
			http_worker_conn_closed(w);
			continue;
		}
		bufferevent_decref(bev);
		c->evcon = evcon;
		evhttp_connection_set_closecb(c->evcon, on_close, c);
		list_first(c);
		check_address(c);
		make_room(w);
	}
}

/* --- Deadlines and the end. --- */

static void sweep_reading(struct http_conn *c, uint64_t now_ms)
{
	const struct http_options *options = &c->worker->server->options;
	struct query_error error = {.statement = -1};

	if (c->ssl != NULL && !http_tls_is_open(c)) {
		if (now_ms > c->since_ms && now_ms - c->since_ms >= options->request_timeout_ms)
			http_conn_close(c);
	} else if (is_idle(c)) {
		if (now_ms - c->since_ms >= options->idle_timeout_ms)
			http_conn_close(c);
		else if (c->ssl != NULL && now_ms > c->since_ms + TLS_REST_MS)
			http_tls_rest(c);
	} else if (now_ms > c->since_ms && now_ms - c->since_ms >= options->request_timeout_ms) {
		query_error_set(&error, QUERY_TIMEOUT, "the request did not arrive within %llu ms",
				(unsigned long long)options->request_timeout_ms);
		http_conn_refuse(c, &error);
	}
}

/* Whether TLS has written HTTP_TAKE_MIN since this was last so: what waits for it need not have become less. */
static bool tls_progressed(struct http_conn *c)
{
	uint64_t written = c->ssl != NULL ? http_tls_written(c) : 0;

	if (written - c->tls_seen < HTTP_TAKE_MIN)
		return false;
	c->tls_seen = written;
	return true;
}

/* A client that takes nothing of its answer is given as long as one that asks nothing; and a few bytes are nothing. */
static void sweep_writing(struct http_conn *c, uint64_t now_ms)
{
	size_t waiting = evbuffer_get_length(bufferevent_get_output(c->bev));

	if (waiting > c->output_seen || waiting + HTTP_TAKE_MIN <= c->output_seen || tls_progressed(c)) {
		c->output_seen = waiting;
		c->progress_ms = now_ms;
	} else if (now_ms - c->progress_ms >= c->worker->server->options.idle_timeout_ms) {
		http_conn_close(c);
	}
}

void http_conn_sweep(struct http_worker *w)
{
	struct http_conn *c, *next;

	for (c = w->conns; c != NULL; c = next) {
		next = c->next;
		switch (c->state) {
		case CONN_READING:
			sweep_reading(c, w->now_ms);
			break;
		case CONN_WRITING:
		case CONN_REFUSED:
			sweep_writing(c, w->now_ms);
			break;
		case CONN_PENDING: /* a handler's time is its own affair */
			if (tls_progressed(c) && c->req != NULL && c->req->stream != NULL)
				http_stream_note_progress(c->req->stream);
			break;
		case CONN_LINGER:
			if (w->now_ms - c->since_ms >= HTTP_LINGER_MS)
				http_conn_close(c);
			break;
		default:
			break;
		}
	}
}

void http_conn_drain(struct http_worker *w)
{
	struct http_conn *c, *next;

	w->draining = true;
	http_conn_settle_fresh(w);
	for (c = w->conns; c != NULL; c = next) {
		next = c->next;
		if (is_idle(c) || c->state == CONN_LINGER)
			http_conn_close(c);
	}
	if (w->conns != NULL || w->fresh != NULL)
		return;
	pthread_mutex_lock(&w->server->accept_lock);
	w->drained = true;
	pthread_cond_broadcast(&w->server->accept_cond);
	pthread_mutex_unlock(&w->server->accept_lock);
}

void http_conn_close_all(struct http_worker *w)
{
	http_conn_settle_fresh(w);
	while (w->conns != NULL)
		http_conn_close(w->conns);
}

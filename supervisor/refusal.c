/* refusal.c - see refusal.h. */
#include "supervisor/refusal.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/log.h"
#include "supervisor/cluster.h"

struct client {
	struct refusal *owner;
	struct bufferevent *bev;
	bool answered;
	struct client *prev, *next;
};

struct refusal {
	struct refusal_options options;
	struct event *accept_event;
	struct client *clients;
	unsigned count;
	bool accepting;
	char reason[CLUSTER_REASON_MAX];
};

static void client_free(struct client *c)
{
	struct refusal *r = c->owner;

	if (c->prev != NULL)
		c->prev->next = c->next;
	else
		r->clients = c->next;
	if (c->next != NULL)
		c->next->prev = c->prev;
	r->count--;
	bufferevent_free(c->bev);
	free(c);
}

static void answer(struct client *c)
{
	json_t *json;
	char *body;
	char message[CLUSTER_REASON_MAX + 64];

	snprintf(message, sizeof(message), "there is no master at the moment; the request was not executed: %s",
		 c->owner->reason);
	json = json_pack("{s:s, s:s, s:s}", "status", "error", "code", "NO_MASTER", "message", message);
	body = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);
	json_decref(json);
	c->answered = true;
	if (body == NULL ||
	    evbuffer_add_printf(
		bufferevent_get_output(c->bev),
		"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
		"Connection: close\r\nContent-Length: %zu\r\n\r\n%s\n",
		strlen(body) + 1, body) < 0)
		log_error("no memory to refuse a client");
	free(body);
}

/* The length that the headers announce; 0 when they do not. */
static size_t body_length(struct evbuffer *in, size_t header_len)
{
	static const char name[] = "content-length:";
	const char *at = (const char *)evbuffer_pullup(in, (ev_ssize_t)header_len);
	const char *end = at + header_len;
	unsigned long long v = 0;

	while (at != NULL && (at = memchr(at, '\n', (size_t)(end - at))) != NULL) {
		at++;
		if ((size_t)(end - at) < sizeof(name) || strncasecmp(at, name, sizeof(name) - 1) != 0)
			continue;
		for (at += sizeof(name) - 1; at < end && *at == ' '; at++)
			;
		for (; at < end && *at >= '0' && *at <= '9' && v <= REFUSAL_BYTES_MAX; at++)
			v = v * 10 + (unsigned long long)(*at - '0');
		break;
	}
	return v < REFUSAL_BYTES_MAX ? (size_t)v : REFUSAL_BYTES_MAX;
}

/* Answers once the request is there: closing while it still comes would reset the connection under the answer. */
static void on_read(struct bufferevent *bev, void *arg)
{
	struct client *c = arg;
	struct evbuffer *in = bufferevent_get_input(bev);
	struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
	size_t have = evbuffer_get_length(in);

	if (c->answered)
		evbuffer_drain(in, have);
	else if (end.pos >= 0 ? have >= (size_t)end.pos + 4 + body_length(in, (size_t)end.pos + 2)
			      : have >= REFUSAL_BYTES_MAX)
		answer(c);
	else if (have >= 2 * REFUSAL_BYTES_MAX)
		client_free(c);
}

/* The answer has left: our end is closed, and the client's is awaited for a moment. */
static void on_written(struct bufferevent *bev, void *arg)
{
	struct client *c = arg;

	if (!c->answered)
		return;
	if (shutdown(bufferevent_getfd(bev), SHUT_WR) != 0)
		client_free(c);
}

static void on_end(struct bufferevent *bev, short what, void *arg)
{
	(void)bev;
	(void)what;
	client_free(arg);
}

static void admit(struct refusal *r, int fd)
{
	const struct timeval limit = {REFUSAL_MS / 1000, REFUSAL_MS % 1000 * 1000};
	struct client *c = calloc(1, sizeof(*c));

	if (c != NULL)
		c->bev = bufferevent_socket_new(r->options.base, fd, BEV_OPT_CLOSE_ON_FREE);
	if (c == NULL || c->bev == NULL) {
		log_error("no memory to refuse a client");
		close(fd);
		free(c);
		return;
	}
	c->owner = r;
	c->next = r->clients;
	if (r->clients != NULL)
		r->clients->prev = c;
	r->clients = c;
	r->count++;
	bufferevent_setcb(c->bev, on_read, on_written, on_end, c);
	bufferevent_set_timeouts(c->bev, &limit, &limit);
	if (bufferevent_enable(c->bev, EV_READ | EV_WRITE) != 0)
		client_free(c);
}

static void on_connection(evutil_socket_t listen_fd, short what, void *arg)
{
	struct refusal *r = arg;
	int fd;

	(void)what;
	while (r->count < REFUSAL_CONNECTIONS_MAX && r->options.wanted(r->options.arg)) {
		fd = accept4((int)listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR))
			return;
		if (fd < 0) {
			log_warn("cannot accept at the endpoint: %s", strerror(errno));
			break;
		}
		admit(r, fd);
	}
	event_del(r->accept_event); /* or it would be called at once again: refusal_set() takes it up later */
	r->accepting = false;
}

void refusal_set(struct refusal *r, const char *reason)
{
	if (r == NULL)
		return;
	if (reason == NULL) {
		if (r->accepting)
			event_del(r->accept_event);
		r->accepting = false;
		return;
	}
	snprintf(r->reason, sizeof(r->reason), "%s", reason);
	if (!r->accepting && r->count < REFUSAL_CONNECTIONS_MAX)
		r->accepting = event_add(r->accept_event, NULL) == 0;
}

enum db_err refusal_create(struct refusal **out, const struct refusal_options *options, struct errmsg *em)
{
	struct refusal *r = calloc(1, sizeof(*r));

	*out = NULL;
	if (r == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for the endpoint");
	r->options = *options;
	r->accept_event = event_new(options->base, options->listen_fd, EV_READ | EV_PERSIST, on_connection, r);
	if (r->accept_event == NULL) {
		free(r);
		return errmsg_set(em, DB_NOMEM, "cannot set up the event loop");
	}
	*out = r;
	return DB_OK;
}

void refusal_free(struct refusal *r)
{
	if (r == NULL)
		return;
	while (r->clients != NULL)
		client_free(r->clients);
	event_free(r->accept_event);
	free(r);
}

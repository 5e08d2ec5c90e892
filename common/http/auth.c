/*
 * auth.c - who a request is from, and what becomes of one that nobody vouches for.
 *
 * A right token costs a connection an HMAC once (auth.h). A wrong or missing one is counted, logged with the peer's
 * address (throttle.h says how often) and answered with 401, late when that address has failed too often: the request
 * then waits on its worker's list, which a timer goes through. Nobody else waits for it. When too many wait already
 * it is 429 at once, and the connection is closed. A worker that drains answers all that wait.
 *
 * Tokens are in no message and in no line of the log.
 */
#include "common/http/internal.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "common/base/clock.h"
#include "common/base/log.h"

#define RETRY_AFTER_S "2"

struct peer {
	struct sockaddr_storage address;
	bool known;
};

static struct peer peer_of(const struct http_request *req)
{
	struct peer p = {0};
	socklen_t len = sizeof(p.address);

	p.known = req->conn != NULL &&
		  getpeername(bufferevent_getfd(req->conn->bev), (struct sockaddr *)&p.address, &len) == 0;
	return p;
}

static void peer_text(char out[INET6_ADDRSTRLEN], const struct peer *p)
{
	const void *bytes = p->address.ss_family == AF_INET
				? (const void *)&((const struct sockaddr_in *)&p->address)->sin_addr
				: (const void *)&((const struct sockaddr_in6 *)&p->address)->sin6_addr;

	if (!p->known || inet_ntop(p->address.ss_family, bytes, out, INET6_ADDRSTRLEN) == NULL)
		snprintf(out, INET6_ADDRSTRLEN, "an unknown address");
}

static bool is_loopback(const struct peer *p)
{
	const struct in6_addr *six = &((const struct sockaddr_in6 *)&p->address)->sin6_addr;

	if (!p->known)
		return false;
	if (p->address.ss_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)&p->address)->sin_addr.s_addr) >> 24 == 127;
	return p->address.ss_family == AF_INET6 &&
	       (IN6_IS_ADDR_LOOPBACK(six) || (IN6_IS_ADDR_V4MAPPED(six) && six->s6_addr[12] == 127));
}

/* ---- checking */

bool http_request_authenticate(struct http_request *req, const char *token)
{
	struct auth *auth = req->worker->server->options.auth;
	size_t len = strlen(token);
	struct peer peer;

	req->role = AUTH_NONE;
	if (auth == NULL || req->conn == NULL)
		return false; /* the client has gone: nobody reads what this is answered */
	req->role = auth_remembered(auth, &req->conn->memo, token, len);
	if (req->role != AUTH_NONE)
		return true;
	peer = peer_of(req);
	req->verdict = auth_check(auth, &req->conn->memo, token, len, is_loopback(&peer), req->token_name);
	if (req->verdict == AUTH_OK)
		req->role = req->conn->memo.role;
	return req->role != AUTH_NONE;
}

void http_request_read_header(struct http_request *req)
{
	static const char scheme[] = "Bearer ";
	const char *authorization = http_request_header(req, "Authorization");

	req->has_authorization = authorization != NULL;
	if (authorization == NULL || strncasecmp(authorization, scheme, sizeof(scheme) - 1) != 0)
		return;
	req->bearer = authorization + sizeof(scheme) - 1;
	req->bearer += strspn(req->bearer, " ");
	http_request_authenticate(req, req->bearer);
}

enum auth_role http_request_role(const struct http_request *req)
{
	return req->role;
}

bool http_request_authorized(const struct http_request *req)
{
	return req->role != AUTH_NONE;
}

const char *http_request_bearer(const struct http_request *req)
{
	return req->bearer;
}

/* ---- refusing */

static void reply_unauthorized(struct http_request *req)
{
	struct query_error error = {.statement = -1};

	http_reply_add_header(req, "WWW-Authenticate", "Bearer");
	if (req->verdict == AUTH_EXPIRED)
		query_error_set(&error, QUERY_UNAUTHORIZED, "the token has expired");
	else
		query_error_set(&error, QUERY_UNAUTHORIZED, "a valid token is needed: Authorization: Bearer <token>");
	http_reply_error(req, &error);
}

static void reply_too_many(struct http_request *req)
{
	struct query_error error = {.statement = -1};

	http_count(&req->worker->counts.auth_refused_total);
	http_reply_add_header(req, "Retry-After", RETRY_AFTER_S);
	http_reply_add_header(req, "Connection", "close");
	query_error_set(&error, QUERY_OVERLOADED, "too many requests without a valid token from this address");
	http_reply_error(req, &error);
}

void http_reply_forbidden(struct http_request *req, enum auth_role needed)
{
	struct query_error error = {.statement = -1};

	query_error_set(&error, QUERY_FORBIDDEN, "this needs a token with the role %s; this one's is %s",
			auth_role_name(needed), auth_role_name(req->role));
	http_reply_error(req, &error);
}

void http_request_put_client(const struct http_request *req, char *out, size_t size)
{
	struct peer peer = peer_of(req);
	char from[INET6_ADDRSTRLEN];
	const char *name = req->conn != NULL ? req->conn->memo.name : "";

	peer_text(from, &peer);
	if (req->role == AUTH_NONE || req->conn == NULL)
		snprintf(out, size, "a client from %s", from);
	else if (name[0] == '\0')
		snprintf(out, size, "the first token from %s", from);
	else
		snprintf(out, size, "token \"%s\" from %s", name, from);
}

static void log_failure(const struct http_request *req, const struct peer *peer, const struct throttle_verdict *v)
{
	char from[INET6_ADDRSTRLEN], what[TOKEN_NAME_MAX + 64], left_out[64] = "";

	peer_text(from, peer);
	if (req->verdict == AUTH_EXPIRED)
		snprintf(what, sizeof(what), "with the token \"%s\", which has expired,", req->token_name);
	else if (req->verdict == AUTH_NOT_HERE)
		snprintf(what, sizeof(what), "with the well-known token, which is for loopback addresses only,");
	else
		snprintf(what, sizeof(what), "without a valid token");
	if (v->not_shown > 0)
		snprintf(left_out, sizeof(left_out), "; %" PRIu64 " such lines were left out", v->not_shown);
	log_warn("http: a request %s from %s was refused, %" PRIu64 " of that address by now%s", what, from,
		 v->failures, left_out);
}

static struct throttle_verdict ask_throttle(struct http_request *req, const struct peer *peer)
{
	struct http_server *s = req->worker->server;
	struct throttle_verdict v = {0};

	if (!peer->known || !throttle_address_of(&req->delayed_address, (const struct sockaddr *)&peer->address))
		return v; /* the client has gone */
	pthread_mutex_lock(&s->throttle_lock);
	v = throttle_failed(s->throttle, &req->delayed_address, clock_mono_ms());
	pthread_mutex_unlock(&s->throttle_lock);
	return v;
}

static void arm(struct http_worker *w, uint64_t now_ms)
{
	uint64_t left_ms;
	struct timeval after;

	if (w->delayed == NULL)
		return;
	left_ms = w->delayed->due_ms > now_ms ? w->delayed->due_ms - now_ms : 0;
	after = (struct timeval){(time_t)(left_ms / 1000), (suseconds_t)(left_ms % 1000 * 1000)};
	if (event_add(w->delayed_event, &after) != 0)
		log_error("http: cannot add a timer: requests without a valid token wait too long");
}

/* In the order of their time. */
static void delay(struct http_request *req, uint64_t delay_ms)
{
	struct http_worker *w = req->worker;
	struct http_request **at = &w->delayed;
	uint64_t now_ms = clock_mono_ms();

	req->due_ms = now_ms + delay_ms;
	while (*at != NULL && (*at)->due_ms <= req->due_ms)
		at = &(*at)->next_delayed;
	req->next_delayed = *at;
	*at = req;
	http_count(&w->counts.auth_delayed_total);
	if (w->delayed == req)
		arm(w, now_ms);
}

void http_reply_unauthorized(struct http_request *req)
{
	struct peer peer = peer_of(req);
	struct throttle_verdict v = ask_throttle(req, &peer);

	http_count(&req->worker->counts.auth_failures_total);
	if (v.log)
		log_failure(req, &peer, &v);
	if (v.refuse)
		reply_too_many(req);
	else if (v.delay_ms > 0 && !req->worker->draining)
		delay(req, v.delay_ms);
	else if (v.delay_ms > 0)
		http_delayed_answer(req);
	else
		reply_unauthorized(req);
}

void http_delayed_answer(struct http_request *req)
{
	struct http_server *s = req->worker->server;

	pthread_mutex_lock(&s->throttle_lock);
	throttle_answered(s->throttle, &req->delayed_address);
	pthread_mutex_unlock(&s->throttle_lock);
	reply_unauthorized(req);
}

static void answer_until(struct http_worker *w, uint64_t until_ms)
{
	struct http_request *req;

	while ((req = w->delayed) != NULL && req->due_ms <= until_ms) {
		w->delayed = req->next_delayed;
		http_delayed_answer(req);
		log_set_request_id(NULL);
	}
}

void http_delayed_due(evutil_socket_t fd, short what, void *worker)
{
	struct http_worker *w = worker;
	uint64_t now_ms = clock_mono_ms();

	(void)fd;
	(void)what;
	answer_until(w, now_ms);
	arm(w, now_ms);
}

void http_delayed_answer_all(struct http_worker *w)
{
	answer_until(w, UINT64_MAX);
	event_del(w->delayed_event);
}

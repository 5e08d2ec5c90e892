/*
 * link.c - addresses, messages and dialers of all links; link_rpc.c, link_push.c and link_pull.c hold the patterns,
 * link_door.c listens.
 *
 * Any thread; nothing here blocks except a dial that is asked to wait.
 *
 * A dialer may have died without a word, as a listener may: link_door.c tells the story. Whoever owns a dialer asks
 * link_dialer_stalled() now and then while there is no connection.
 */
#include "common/wire/link.h"

#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/wire/link_priv.h"

#define LINK_IPC_PATH_MAX 107 /* sun_path of a struct sockaddr_un, without its NUL */

enum db_err link_err(int rv)
{
	switch (rv) {
	case 0:
		return DB_OK;
	case NNG_ENOMEM:
		return DB_NOMEM;
	case NNG_ETIMEDOUT:
		return DB_TIMEOUT;
	case NNG_ECLOSED:
	case NNG_ECANCELED:
		return DB_CLOSED;
	case NNG_EADDRINUSE:
		return DB_BUSY;
	case NNG_EADDRINVAL:
	case NNG_EINVAL:
		return DB_INVALID;
	case NNG_EMSGSIZE:
		return DB_TOO_LARGE;
	case NNG_ECONNREFUSED:
	case NNG_ECONNRESET:
	case NNG_ECONNABORTED:
	case NNG_ECONNSHUT:
	case NNG_EUNREACHABLE:
	case NNG_ENOENT: /* no such ipc:// file */
	case NNG_EPROTO: /* the peer is no such socket */
	case NNG_EPEERAUTH:
		return DB_UNAVAILABLE;
	default:
		return DB_IO;
	}
}

enum db_err link_error(struct errmsg *em, int rv, const char *doing, const char *url)
{
	return errmsg_set(em, link_err(rv), "%s %s: %s", doing, url, nng_strerror(rv));
}

/* ---- addresses */

static bool port_is_valid(const char *port)
{
	size_t len = strlen(port);

	return len >= 1 && len <= 5 && strspn(port, "0123456789") == len && strtoul(port, NULL, 10) <= 65535;
}

/* A host name, an IPv4 address, or an IPv6 address in brackets; who it is decides the resolver. */
static bool host_is_valid(const char *host, size_t len)
{
	bool bracketed = len > 2 && host[0] == '[' && host[len - 1] == ']';
	size_t i;

	if (len == 0)
		return false;
	if (bracketed) {
		host++;
		len -= 2;
	}
	for (i = 0; i < len; i++)
		if (bracketed ? !isxdigit((unsigned char)host[i]) && host[i] != ':' && host[i] != '.'
			      : !isalnum((unsigned char)host[i]) && strchr("-._", host[i]) == NULL)
			return false;
	return true;
}

enum db_err link_tcp_url(char out[LINK_URL_MAX], const char *address, struct errmsg *em)
{
	const char *colon = strrchr(address, ':');
	int n;

	if (colon == NULL || !host_is_valid(address, (size_t)(colon - address)) || !port_is_valid(colon + 1))
		return errmsg_set(em, DB_INVALID, "\"%s\" is not an address: host:port expected", address);
	n = snprintf(out, LINK_URL_MAX, "tcp://%s", address);
	if (n < 0 || n >= LINK_URL_MAX)
		return errmsg_set(em, DB_INVALID, "\"%s\" is too long for an address", address);
	return DB_OK;
}

enum db_err link_ipc_url(char out[LINK_URL_MAX], const char *path, struct errmsg *em)
{
	size_t len = strlen(path);

	if (len == 0 || len > LINK_IPC_PATH_MAX)
		return errmsg_set(em, DB_INVALID, "\"%s\" cannot name a Unix socket: 1 to %d bytes expected", path,
				  LINK_IPC_PATH_MAX);
	snprintf(out, LINK_URL_MAX, "ipc://%s", path);
	return DB_OK;
}

bool link_url_is_tcp(const char *url)
{
	return strncmp(url, "tcp://", 6) == 0;
}

bool link_url_is_ipc(const char *url)
{
	return strncmp(url, "ipc://", 6) == 0;
}

/* ---- messages */

nng_msg *link_msg_alloc(size_t len)
{
	nng_msg *msg;

	return nng_msg_alloc(&msg, len) == 0 ? msg : NULL;
}

nng_msg *link_msg_from_buf(const struct buf *b)
{
	nng_msg *msg = b->failed ? NULL : link_msg_alloc(b->len);

	if (msg != NULL && b->len > 0)
		memcpy(nng_msg_body(msg), b->data, b->len);
	return msg;
}

nng_msg *link_msg_encode(const struct wire_msg *msg)
{
	struct buf head = {0};
	nng_msg *out = NULL;
	const void *tail;
	size_t tail_len;

	wire_encode_split(&head, msg, &tail, &tail_len);
	if (!head.failed)
		out = link_msg_alloc(head.len + tail_len);
	if (out != NULL) {
		memcpy(nng_msg_body(out), head.data, head.len);
		if (tail_len > 0)
			memcpy((uint8_t *)nng_msg_body(out) + head.len, tail, tail_len);
	}
	buf_fini(&head);
	return out;
}

/* ---- sockets */

enum db_err link_socket_options(nng_socket sock, const char *url, struct errmsg *em)
{
	int rv = nng_socket_set_size(sock, NNG_OPT_RECVMAXSZ, LINK_MESSAGE_MAX);

	if (rv == 0)
		rv = nng_socket_set_ms(sock, NNG_OPT_RECONNMINT, LINK_RECONNECT_MIN_MS);
	if (rv == 0)
		rv = nng_socket_set_ms(sock, NNG_OPT_RECONNMAXT, LINK_RECONNECT_MAX_MS);
	return rv == 0 ? DB_OK : link_error(em, rv, "cannot set up a socket for", url);
}

enum db_err link_dial(nng_dialer *dialer, nng_socket sock, const char *url, bool wait, struct errmsg *em)
{
	int rv = nng_dialer_create(dialer, sock, url);

	if (rv != 0)
		return link_error(em, rv, "cannot connect to", url);
	if (link_url_is_tcp(url)) {
		rv = nng_dialer_set_bool(*dialer, NNG_OPT_TCP_NODELAY, true);
		if (rv == 0)
			rv = nng_dialer_set_bool(*dialer, NNG_OPT_TCP_KEEPALIVE, true);
	}
	if (rv == 0)
		rv = nng_dialer_start(*dialer, wait ? 0 : NNG_FLAG_NONBLOCK);
	if (rv == 0)
		return DB_OK;
	nng_dialer_close(*dialer);
	if (rv == NNG_ECLOSED)
		rv = NNG_ECONNRESET; /* it was the peer who closed */
	return link_error(em, rv, "cannot connect to", url);
}

void link_admit_faults(void)
{
	static _Thread_local bool admitted;
	sigset_t set;

	if (admitted)
		return;
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	admitted = true;
}

/* ---- counters */

static uint64_t stat_value(nng_stat *scope, const char *name)
{
	nng_stat *stat;

	for (stat = nng_stat_child(scope); stat != NULL; stat = nng_stat_next(stat))
		if (strcmp(nng_stat_name(stat), name) == 0)
			return nng_stat_value(stat);
	return 0;
}

static void add_up(struct link_tally *out, nng_stat *scope)
{
	nng_stat *stat;

	memset(out, 0, sizeof(*out));
	out->pipes = stat_value(scope, "pipes");
	out->failures = stat_value(scope, "other");
	for (stat = nng_stat_child(scope); stat != NULL; stat = nng_stat_next(stat))
		if (nng_stat_type(stat) == NNG_STAT_COUNTER)
			out->events += nng_stat_value(stat);
}

/* kind: "listener" or "dialer". False: no memory, no such thing, or an NNG built without statistics. NNG 1.5's own
 * nng_stat_find_listener() returns the first one of the process, whichever is asked for. */
bool link_tally_read(struct link_tally *out, const char *kind, int id)
{
	nng_stat *scope;
	nng_stat *all;
	bool found = false;

	if (nng_stats_get(&all) != 0)
		return false;
	for (scope = nng_stat_child(all); scope != NULL && !found; scope = nng_stat_next(scope)) {
		found = strcmp(nng_stat_name(scope), kind) == 0 && stat_value(scope, "id") == (uint64_t)id;
		if (found)
			add_up(out, scope);
	}
	nng_stats_free(all);
	return found;
}

bool link_dialer_stalled(nng_dialer dialer, struct link_tally *before)
{
	struct link_tally now;
	bool same;

	if (!link_tally_read(&now, "dialer", nng_dialer_id(dialer)))
		return false;
	same = now.events == before->events;
	*before = now;
	return same && now.pipes == 0 && now.failures > 0;
}

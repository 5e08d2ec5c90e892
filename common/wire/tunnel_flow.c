/*
 * tunnel_flow.c - the bytes of one tunnel: see tunnel_priv.h.
 *
 * On the tunnels' thread. Each direction has one buffer, filled only when it is empty: what the far end does not take
 * is not read at the near one, so that back-pressure reaches the link; that a link hangs up is seen all the same. A
 * turn moves at most TURN_READS buffers each way, then others have theirs.
 */
#include "common/wire/tunnel_priv.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define TURN_READS 8

/* ---- the handshake */

static void explain(const struct tunnel *t, int error, struct errmsg *em)
{
	long verdict = SSL_get_verify_result(t->ssl);
	unsigned long code = ERR_peek_last_error();
	const char *reason = ERR_reason_error_string(code);

	if (verdict != X509_V_OK)
		reason = X509_verify_cert_error_string(verdict);
	else if (error == SSL_ERROR_SYSCALL && code == 0)
		reason = NULL;
	errmsg_set(em, DB_UNAVAILABLE, "%s", reason == NULL ? "" : reason);
}

enum db_err tunnel_flow_handshake(struct tunnel *t, struct errmsg *em)
{
	int rc, error;

	ERR_clear_error();
	rc = SSL_do_handshake(t->ssl);
	t->net_spoke = t->net_spoke || BIO_number_read(SSL_get_rbio(t->ssl)) > 0;
	if (rc == 1)
		return DB_OK;
	error = SSL_get_error(t->ssl, rc);
	t->write_wants_read = false;
	t->read_wants_write = error == SSL_ERROR_WANT_WRITE;
	if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
		return DB_BUSY;
	explain(t, error, em);
	ERR_clear_error();
	return DB_UNAVAILABLE;
}

/* A peer that does not take our certificate says so in an alert once the handshake is over for us. */
static void note_net_end(struct tunnel *t, int error)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	t->net_ended = true;
	if (error == SSL_ERROR_SSL && reason != NULL)
		snprintf(t->alert, sizeof(t->alert), "%s", reason);
}

/* ---- local to net */

/* False: there is nothing to be had now. */
static bool read_local(struct tunnel *t)
{
	ssize_t n;

	if (t->local_ended)
		return false;
	do
		n = read(t->local.fd, t->out.bytes, TUNNEL_FLOW_BYTES);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		t->out.start = 0;
		t->out.len = (size_t)n;
		return true;
	}
	if (n == 0 || errno != EAGAIN)
		t->local_ended = true;
	return false;
}

/* False: the peer takes no more now. */
static bool write_net(struct tunnel *t)
{
	size_t written;
	int error;

	t->write_wants_read = false;
	while (t->out.len > 0) {
		ERR_clear_error();
		if (SSL_write_ex(t->ssl, t->out.bytes + t->out.start, t->out.len, &written) == 1) {
			t->out.start += written;
			t->out.len -= written;
			continue;
		}
		error = SSL_get_error(t->ssl, 0);
		t->write_wants_read = error == SSL_ERROR_WANT_READ;
		if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
			note_net_end(t, error);
		return false;
	}
	return true;
}

/* ---- net to local */

static bool read_net(struct tunnel *t)
{
	size_t n;
	int error;

	t->read_wants_write = false;
	t->in.start = t->in.len = 0;
	while (t->in.len < TUNNEL_FLOW_BYTES && !t->net_ended) {
		ERR_clear_error();
		if (SSL_read_ex(t->ssl, t->in.bytes + t->in.len, TUNNEL_FLOW_BYTES - t->in.len, &n) == 1) {
			t->in.len += n;
			t->heard = true;
			continue;
		}
		error = SSL_get_error(t->ssl, 0);
		t->read_wants_write = error == SSL_ERROR_WANT_WRITE;
		if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
			note_net_end(t, error);
		break;
	}
	return t->in.len > 0;
}

static bool write_local(struct tunnel *t)
{
	ssize_t n;

	while (t->in.len > 0) {
		n = send(t->local.fd, t->in.bytes + t->in.start, t->in.len, MSG_NOSIGNAL);
		if (n >= 0) {
			t->in.start += (size_t)n;
			t->in.len -= (size_t)n;
		} else if (errno == EAGAIN) {
			return false;
		} else if (errno != EINTR) {
			t->local_ended = true;
			t->in.len = 0; /* nobody is left to read it */
			return false;
		}
	}
	return true;
}

/* ---- both */

void tunnel_flow_run(struct tunnel *t)
{
	unsigned i;

	for (i = 0; i < TURN_READS && !t->net_ended; i++)
		if (!write_net(t) || !read_local(t))
			break;
	for (i = 0; i < TURN_READS && !t->local_ended; i++)
		if (!write_local(t) || !read_net(t))
			break;
	ERR_clear_error();
}

bool tunnel_flow_is_over(const struct tunnel *t)
{
	return (t->net_ended && (t->in.len == 0 || t->local_ended)) || (t->local_ended && t->out.len == 0);
}

uint32_t tunnel_flow_net_interest(const struct tunnel *t)
{
	uint32_t interest = 0;

	if (t->net_ended)
		return 0;
	if (t->in.len == 0 && !t->local_ended)
		interest |= t->read_wants_write ? EPOLLOUT : EPOLLIN;
	if (t->out.len > 0)
		interest |= t->write_wants_read ? EPOLLIN : EPOLLOUT;
	return interest;
}

uint32_t tunnel_flow_local_interest(const struct tunnel *t)
{
	uint32_t interest = 0;

	if (t->local_ended)
		return 0;
	if (t->out.len == 0 && !t->net_ended)
		interest |= EPOLLIN;
	if (t->out.len > 0 && !t->local_hung)
		interest |= EPOLLRDHUP;
	if (t->in.len > 0)
		interest |= EPOLLOUT;
	return interest;
}

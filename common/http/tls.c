/*
 * tls.c - what is different about a connection under TLS: its birth, writing at once, its progress, its last words.
 *
 * The bufferevent is libevent's for OpenSSL over a socket; evhttp and conn.c see plain bytes in its buffers, and the
 * framing check, the read watermark and back-pressure are those of any connection. Runs on the worker's thread.
 *
 * Rules of libevent 2.1.12 this relies on (bufferevent_openssl.c):
 * (1) Its input is never frozen, and must not be: SSL_read() goes right into it.
 * (2) It writes a stretch of the output whole before it drains any of it, as large as it is, so that the length of the
 *     output does not tell whether the client takes anything; what the socket's BIO has written does.
 * (3) Its write event, made active by hand, writes what it can, and deletes itself when nothing is left.
 * (4) With BEV_OPT_CLOSE_ON_FREE it closes the socket and frees the SSL when its last reference goes; evhttp then leaves
 *     the socket alone.
 */
#include "common/http/internal.h"

#include <event2/bufferevent_ssl.h>
#include <event2/bufferevent_struct.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define RECORD_BYTES      (16u * 1024u)
#define DISCARD_BYTES_MAX (64u * 1024u)

struct bufferevent *http_tls_bufferevent(struct http_conn *c, struct event_base *base, struct tls_server *tls)
{
	SSL *ssl = tls_server_accept(tls);
	struct bufferevent *bev;

	if (ssl == NULL)
		return NULL;
	bev = bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
	if (bev == NULL)
		SSL_free(ssl);
	else
		c->ssl = ssl;
	return bev;
}

void http_tls_forget_socket(struct http_conn *c)
{
	SSL_set_bio(c->ssl, NULL, NULL);
}

bool http_tls_is_open(const struct http_conn *c)
{
	return SSL_is_init_finished(c->ssl);
}

void http_tls_flush(struct http_conn *c)
{
	struct evbuffer *output = bufferevent_get_output(c->bev);

	/* Head and body lie apart: in one piece they are one record and one call. A failure leaves two. */
	if (evbuffer_get_length(output) <= RECORD_BYTES)
		evbuffer_pullup(output, -1);
	event_active(&c->bev->ev_write, EV_WRITE, 0); /* (3) */
}

uint64_t http_tls_written(const struct http_conn *c)
{
	return BIO_number_written(SSL_get_wbio(c->ssl)); /* (2) */
}

bool http_tls_send_now(struct http_conn *c, const void *bytes, size_t len)
{
	bool sent = SSL_write(c->ssl, bytes, (int)len) == (int)len;

	ERR_clear_error();
	return sent;
}

/* Who speaks plain HTTP here is told so in plain HTTP. Its request is thrown away first, lest the answer is lost by a
 * reset. */
static void answer_in_plain(struct http_conn *c)
{
	static const char body[] =
	    "{\"status\":\"error\",\"code\":\"BAD_REQUEST\",\"message\":\"this port speaks HTTPS; "
	    "the request came in plain HTTP\"}\n";
	evutil_socket_t fd = bufferevent_getfd(c->bev);
	size_t discarded = 0;
	char bytes[4096], answer[512];
	ssize_t n;

	while (discarded < DISCARD_BYTES_MAX && (n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
		discarded += (size_t)n;
	snprintf(answer, sizeof(answer),
		 "HTTP/1.1 400 BAD_REQUEST\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
		 "Connection: close\r\n\r\n%s",
		 sizeof(body) - 1, body);
	n = send(fd, answer, strlen(answer), MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)n; /* who does not take it finds the connection closed */
}

void http_tls_shut_down(struct http_conn *c)
{
	unsigned long error = bufferevent_get_openssl_error(c->bev);

	if (http_tls_is_open(c)) {
		if (!c->wrote_bad && (SSL_get_shutdown(c->ssl) & SSL_SENT_SHUTDOWN) == 0)
			SSL_shutdown(c->ssl); /* once: nobody waits for the client's */
	} else if (ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) == SSL_R_HTTP_REQUEST) {
		answer_in_plain(c);
	}
	ERR_clear_error();
}

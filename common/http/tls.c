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
 * (5) It waits for the socket before it reads, and reads no more than a record each time. So of what lies in memory
 *     already, read ahead of it, it knows nothing: its read event is made active by hand for that.
 * (6) It makes room for as much as it may read at once. What is left of a record then it reads in one piece of its own.
 *
 * OpenSSL reads the head of a record and its body apart. Behind a buffer that is one call for both; SSL_set_read_ahead()
 * would do the same, but not tell what it has.
 */
#include "common/http/internal.h"

#include <event2/bufferevent_ssl.h>
#include <event2/bufferevent_struct.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define RECORD_BYTES      (16u * 1024u)
#define RECORD_HEAD_BYTES 5u   /* the last two of them are the length of what follows */
#define FIRST_READ_BYTES  976u /* (6); with what libevent adds to it 1 KiB, which malloc() has at hand */
#define DISCARD_BYTES_MAX (64u * 1024u)

struct bufferevent *http_tls_bufferevent(struct http_conn *c, struct event_base *base, struct tls_server *tls)
{
	SSL *ssl = tls_server_accept(tls);
	struct bufferevent *bev;

	if (ssl == NULL)
		return NULL;
	bev = bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
	if (bev == NULL) {
		SSL_free(ssl);
		return NULL;
	}
	bufferevent_set_max_single_read(bev, FIRST_READ_BYTES);
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

/* A failure leaves the connection as it was, and reading as dear. */
static void read_ahead(struct http_conn *c)
{
	BIO *socket = SSL_get_wbio(c->ssl), *ahead = BIO_new(BIO_f_buffer());

	if (ahead == NULL) {
		ERR_clear_error();
		return;
	}
	BIO_up_ref(socket); /* one for either way */
	SSL_set0_rbio(c->ssl, BIO_push(ahead, socket));
}

/* Part of a record is left alone: when the rest comes, the socket tells. So a client's records are read without end in
 * one turn of the loop as little as without a buffer. */
static bool has_whole_record(BIO *ahead)
{
	size_t len = BIO_ctrl_pending(ahead);
	unsigned char head[RECORD_HEAD_BYTES];

	return len >= sizeof(head) && BIO_buffer_peek(ahead, head, sizeof(head)) == (long)sizeof(head) &&
	       len - sizeof(head) >= ((size_t)head[3] << 8 | head[4]);
}

void http_tls_read_on(struct http_conn *c)
{
	BIO *in = SSL_get_rbio(c->ssl);

	if (!http_tls_is_open(c))
		return; /* what came right behind a handshake would be overlooked, (5) */
	if (in == SSL_get_wbio(c->ssl))
		read_ahead(c);
	else if (has_whole_record(in))
		event_active(&c->bev->ev_read, EV_READ, 0); /* (5) */
}

/* Not after each record, which SSL_MODE_RELEASE_BUFFERS would do: large blocks are what malloc() is slowest with. Part of a
 * record stays where it is. */
void http_tls_rest(struct http_conn *c)
{
	BIO *in = SSL_get_rbio(c->ssl), *socket = SSL_get_wbio(c->ssl);

	SSL_free_buffers(c->ssl);
	if (in != socket && BIO_ctrl_pending(in) == 0) {
		BIO_up_ref(socket);
		SSL_set0_rbio(c->ssl, socket);
	}
}

/* Written right here it costs no event. Head and body of an answer lie apart: in one piece they are one record. */
static bool write_record(struct http_conn *c, struct evbuffer *output, size_t len)
{
	char bytes[RECORD_BYTES];

	if (evbuffer_copyout(output, bytes, len) != (ev_ssize_t)len || !http_tls_send_now(c, bytes, len))
		return false;
	evbuffer_drain(output, len);
	return true;
}

void http_tls_flush(struct http_conn *c)
{
	struct evbuffer *output = bufferevent_get_output(c->bev);
	size_t len = evbuffer_get_length(output);

	if (len > 0 && len <= RECORD_BYTES && !SSL_want_write(c->ssl)) {
		if (write_record(c, output, len)) {
			event_del(&c->bev->ev_write);
			bufferevent_trigger(c->bev, EV_WRITE, 0);
			return;
		}
		/* OpenSSL must be given again in one piece what it could not write. A failure ends the connection. */
		evbuffer_pullup(output, -1);
	}
	event_active(&c->bev->ev_write, EV_WRITE, 0); /* (3) */
}

uint64_t http_tls_written(const struct http_conn *c)
{
	return BIO_number_written(SSL_get_wbio(c->ssl)); /* (2) */
}

bool http_tls_send_now(struct http_conn *c, const void *bytes, size_t len)
{
	if (SSL_write(c->ssl, bytes, (int)len) == (int)len)
		return true;
	ERR_clear_error();
	return false;
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

/*
 * tls.h - who this cluster is to its clients, and who its clients may be: certificate, key and the rules of TLS.
 *
 * One per process. Worker threads ask it for the state of each new connection; another thread may give it new files
 * meanwhile. A connection keeps what it began with, so that a change drops none. What cannot be used is refused as a
 * whole and nothing changes. A session ticket opens a session again only with what it was made with: a client that may
 * no longer come in cannot resume.
 *
 * TLS 1.2 and 1.3, with forward secrecy and authenticated encryption only; no renegotiation, no compression.
 * A key is read from its file and kept in OpenSSL's memory; no message names more than the file.
 */
#ifndef GRIZZLY_COMMON_AUTH_TLS_H
#define GRIZZLY_COMMON_AUTH_TLS_H

#include <openssl/ssl.h>
#include <stddef.h>

#include "common/base/config.h"
#include "common/base/err.h"

struct tls_server;

/* Reads the files of config's "tls". Paths are relative to the working directory. Errors: DB_NOTFOUND, DB_IO (a file cannot
 * be read), DB_INVALID (it is no certificate or no key, they do not belong together, the certificate is not valid now, or
 * the nodes could not ask each other with it), DB_NOMEM. */
enum db_err tls_server_create(struct tls_server **out, const struct cluster_config *config, struct errmsg *em);
void tls_server_free(struct tls_server *t); /* NULL is fine; connections may outlive it */
/* Reads the files again, for connections to come. On an error (as above) those get what they got before. Any thread. */
enum db_err tls_server_reload(struct tls_server *t, const struct cluster_config *config, struct errmsg *em);
/* The state of a new connection, the caller's for SSL_free(). NULL: out of memory. Any thread. */
SSL *tls_server_accept(struct tls_server *t);

#define TLS_TEXT_MAX 256
/* "CN=db.example.org, valid until 2027-01-01 00:00:00 UTC", of the certificate in use. Any thread. */
void tls_server_describe(struct tls_server *t, char out[TLS_TEXT_MAX]);

#endif

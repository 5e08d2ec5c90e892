/*
 * tls_priv.h - what tls.c and tls_members.c have in common: the rules, and our own certificate; nobody else includes
 * it.
 */
#ifndef GRIZZLY_COMMON_AUTH_TLS_PRIV_H
#define GRIZZLY_COMMON_AUTH_TLS_PRIV_H

#include <openssl/ssl.h>

#include "common/base/config.h"
#include "common/base/err.h"

#define TLS_CHAIN_MAX 4 /* certificates between a peer's and the CA */

/* Versions, ciphers, key sizes, no renegotiation. False: OpenSSL refuses. */
bool tls_set_rules(SSL_CTX *ctx);
/* tls.cert_file and tls.key_file. DB_NOTFOUND, DB_IO, DB_INVALID: also when the certificate is not valid now. */
enum db_err tls_load_own(SSL_CTX *ctx, const struct cluster_config *config, struct errmsg *em);
/* DB_OK: path can be read. key: the setting that names it, as in a sentence. */
enum db_err tls_check_readable(const char *key, const char *path, struct errmsg *em);
/* DB_INVALID, with what OpenSSL said last; its queue is left empty. */
enum db_err tls_refuse(struct errmsg *em, const char *key, const char *path);

#endif

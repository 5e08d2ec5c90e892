/*
 * tls_members.h - who members are to each other on the links between hosts: both ends show a certificate.
 *
 * One per process, from the same files as common/auth/tls.h and under the same rules of TLS. A member is who has a
 * certificate that tls.ca_file's CA has signed and that is good for a server, as the nodes' are: what the same CA has
 * signed for clients only (extendedKeyUsage=clientAuth) does not open these ports; a certificate without that extension
 * is good for anything, and a member's. Names are not compared. Without ca_file it is who has the very certificate in
 * cert_file. There is no resumption: each connection shows its certificate.
 *
 * Any thread. A change of the files counts for connections to come; what cannot be used is refused and nothing changes.
 */
#ifndef GRIZZLY_COMMON_AUTH_TLS_MEMBERS_H
#define GRIZZLY_COMMON_AUTH_TLS_MEMBERS_H

#include <openssl/ssl.h>

#include "common/base/config.h"
#include "common/base/err.h"

struct tls_members;

/* Reads the files of config's "tls". Errors: as tls_server_create(); DB_INVALID also when members would not take our
 * own certificate for a member's. */
enum db_err tls_members_create(struct tls_members **out, const struct cluster_config *config, struct errmsg *em);
void tls_members_free(struct tls_members *t); /* NULL is fine; connections may outlive it */
/* Reads the files again. On an error connections to come get what they got before. */
enum db_err tls_members_reload(struct tls_members *t, const struct cluster_config *config, struct errmsg *em);
/* The state of a connection that we accepted, or made; the caller's for SSL_free(). NULL: out of memory. Partial writes
 * are told, and need not be repeated from the same place. */
SSL *tls_members_accept(struct tls_members *t);
SSL *tls_members_connect(struct tls_members *t);

/* Whether a node could work with the "tls" of config: as tls_server_create() and tls_members_create() together. */
enum db_err tls_check(const struct cluster_config *config, struct errmsg *em);

#endif

/*
 * remote_access.h - which other nodes may be asked, and with which token.
 *
 * Made once per node process from the configuration and used by every thread that is about to send a request on a client's
 * behalf. Allowed are the addresses and patterns of remote.nodes and remote.allow, this cluster's own addresses (its
 * endpoint and its members) and loopback addresses. A token is sent only to an address that remote.nodes names (that
 * one's token file, read again when it has changed) and to this cluster's own (its own token); any other is asked
 * without. Addresses are "host:port" as common/query/federation.h writes them, and are compared as text: no name is resolved here.
 *
 * Patterns: '*' stands for any run of characters, in the host or as the whole port. A pattern of digits, dots and stars
 * covers IPv4 addresses only: "10.0.0.*:8080" is not the name 10.0.0.example.org. An exact address goes before patterns,
 * patterns go in the order of the configuration.
 */
#ifndef GRIZZLY_COMMON_REMOTE_REMOTE_ACCESS_H
#define GRIZZLY_COMMON_REMOTE_REMOTE_ACCESS_H

#include <stdbool.h>

#include "common/base/config.h"
#include "common/remote/client_tls.h"

#define REMOTE_TOKEN_MAX 257 /* with its NUL */

struct remote_access;

/* config and own_token_path are borrowed and outlive it. The cluster's own token is read from its file when it is
 * needed. */
enum db_err remote_access_create(struct remote_access **out, const struct cluster_config *config,
				 const char *own_token_path, struct errmsg *em);
void remote_access_free(struct remote_access *a); /* NULL is fine */

/* Any thread. DB_OK: the address may be asked; token is "" when there is none for it. DB_INVALID: it is not allowed. Other
 * errors: its token file cannot be used. The message names the address. Wipe or drop the token after use. */
enum db_err remote_access_token(struct remote_access *a, const char *address, char token[REMOTE_TOKEN_MAX],
				struct errmsg *em);

/* Fills *tls, how to ask address: member, or an address that is known as this cluster's own, as its members ask each other;
 * one that remote.nodes names as that says; any other without TLS. For http_client_options.tls_of. Any thread. */
void remote_access_tls(const void *access, const char *address, bool member, struct client_tls *tls);

/* Whether address fits pattern as described above. Pure. */
bool remote_access_matches(const char *pattern, const char *address);

#endif

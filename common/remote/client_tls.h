/*
 * client_tls.h - how this cluster's processes, as clients, make sure whom they talk to over TLS.
 *
 * Members of the cluster are addressed by the address that they are bound to, which a certificate need not name: they are
 * known by tls.ca_file, which must therefore be a private CA, or, without it, by showing the very certificate of
 * tls.cert_file. Any other node must show a certificate for its name, of the CA in its entry of remote.nodes or else of
 * one that the system trusts. Files are read with every new connection. Pure but for what libcurl does.
 */
#ifndef GRIZZLY_COMMON_REMOTE_CLIENT_TLS_H
#define GRIZZLY_COMMON_REMOTE_CLIENT_TLS_H

#include <curl/curl.h>
#include <stdbool.h>

#include "common/base/config.h"

struct client_tls {
	bool on;                          /* https; else the rest means nothing */
	bool any_name;                    /* whom the CA vouches for is right, whatever its name */
	const char *ca_file;              /* all borrowed from the configuration; NULL: what the system trusts */
	const char *cert_file, *key_file; /* to show; NULL: none */
};

/* Towards members of the cluster. */
void client_tls_own(struct client_tls *out, const struct cluster_config *config);
/* "https" or "http". */
const char *client_tls_scheme(const struct client_tls *tls);
/* Sets up a handle whose URL has that scheme. False: out of memory. */
bool client_tls_apply(CURL *easy, const struct client_tls *tls);

#endif

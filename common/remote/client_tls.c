/* client_tls.c - see client_tls.h. */
#include "common/remote/client_tls.h"

#include <string.h>

void client_tls_own(struct client_tls *out, const struct cluster_config *config)
{
	memset(out, 0, sizeof(*out));
	if (!config_has_tls(config))
		return;
	out->on = true;
	out->any_name = true;
	out->ca_file = config->tls.ca_file[0] != '\0' ? config->tls.ca_file : config->tls.cert_file;
	if (config->tls.client_certificates == CLIENT_CERTIFICATES_NONE)
		return;
	out->cert_file = config->tls.cert_file;
	out->key_file = config->tls.key_file;
}

const char *client_tls_scheme(const struct client_tls *tls)
{
	return tls->on ? "https" : "http";
}

bool client_tls_apply(CURL *easy, const struct client_tls *tls)
{
	bool ok = true;

	if (!tls->on)
		return true;
	ok = ok && curl_easy_setopt(easy, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2) == CURLE_OK;
	ok = ok && curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK;
	ok = ok && curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, tls->any_name ? 0L : 2L) == CURLE_OK;
	if (tls->ca_file != NULL) {
		ok = ok && curl_easy_setopt(easy, CURLOPT_CAINFO, tls->ca_file) == CURLE_OK;
		ok = ok && curl_easy_setopt(easy, CURLOPT_CAPATH, NULL) == CURLE_OK;
	}
#if LIBCURL_VERSION_NUM >= 0x075700
	ok = ok &&
	     curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L) == CURLE_OK; /* the file may have been replaced */
#endif
	if (tls->cert_file != NULL) {
		ok = ok && curl_easy_setopt(easy, CURLOPT_SSLCERT, tls->cert_file) == CURLE_OK;
		ok = ok && curl_easy_setopt(easy, CURLOPT_SSLKEY, tls->key_file) == CURLE_OK;
	}
	return ok;
}

/* tls.c - see tls.h. A context is made anew from the files, looked at, and only then takes the old one's place. */
#include "common/auth/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/auth/tls_priv.h"

/* Of TLS 1.2; those of 1.3 are all of this kind. */
#define CIPHERS                                                                                                        \
	"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"                     \
	"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define SECURITY_LEVEL 2 /* 112 bits: RSA and DH from 2048, no SHA-1 signatures */
#define SESSION_S      3600
#define TICKETS        1 /* of a full handshake; a client that opens several connections gets one with each */

struct tls_server {
	pthread_mutex_t mutex; /* guards what follows */
	SSL_CTX *ctx;
	char text[TLS_TEXT_MAX];
};

/* What OpenSSL says last says most. */
enum db_err tls_refuse(struct errmsg *em, const char *key, const char *path)
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = ERR_reason_error_string(code);

	ERR_clear_error();
	return errmsg_set(em, DB_INVALID, "%s: \"%s\" cannot be used: %s", key, path,
			  reason == NULL ? "it is not what was expected" : reason);
}

/* A file that cannot be read is told in the system's words, which OpenSSL has not. */
enum db_err tls_check_readable(const char *key, const char *path, struct errmsg *em)
{
	if (access(path, R_OK) == 0)
		return DB_OK;
	return errmsg_errno(em, errno, "%s: cannot read \"%s\"", key, path);
}

/* A key with a passphrase would have OpenSSL ask at a terminal that nobody looks at. */
static int no_passphrase(char *out, int size, int writing, void *arg)
{
	(void)out;
	(void)size;
	(void)writing;
	(void)arg;
	return -1;
}

static enum db_err check_dates(const SSL_CTX *ctx, const struct cluster_config *config, struct errmsg *em)
{
	const X509 *cert = SSL_CTX_get0_certificate(ctx);

	if (X509_cmp_current_time(X509_get0_notAfter(cert)) <= 0)
		return errmsg_set(em, DB_INVALID, "tls.cert_file: \"%s\" cannot be used: the certificate has expired",
				  config->tls.cert_file);
	if (X509_cmp_current_time(X509_get0_notBefore(cert)) > 0)
		return errmsg_set(em, DB_INVALID,
				  "tls.cert_file: \"%s\" cannot be used: the certificate is not valid yet",
				  config->tls.cert_file);
	return DB_OK;
}

enum db_err tls_load_own(SSL_CTX *ctx, const struct cluster_config *config, struct errmsg *em)
{
	enum db_err err = tls_check_readable("tls.cert_file", config->tls.cert_file, em);

	if (err == DB_OK)
		err = tls_check_readable("tls.key_file", config->tls.key_file, em);
	if (err != DB_OK)
		return err;
	SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
	if (SSL_CTX_use_certificate_chain_file(ctx, config->tls.cert_file) != 1)
		return tls_refuse(em, "tls.cert_file", config->tls.cert_file);
	if (SSL_CTX_use_PrivateKey_file(ctx, config->tls.key_file, SSL_FILETYPE_PEM) != 1)
		return tls_refuse(em, "tls.key_file", config->tls.key_file);
	if (SSL_CTX_check_private_key(ctx) != 1)
		return tls_refuse(em, "tls.key_file", config->tls.key_file);
	return check_dates(ctx, config, em);
}

/* Nodes show this certificate to each other as clients do. */
static enum db_err check_own_as_client(SSL_CTX *ctx, struct errmsg *em)
{
	X509_STORE_CTX *check = X509_STORE_CTX_new();
	STACK_OF(X509) *chain = NULL;
	enum db_err err = DB_OK;

	SSL_CTX_get0_chain_certs(ctx, &chain);
	if (check == NULL ||
	    X509_STORE_CTX_init(check, SSL_CTX_get_cert_store(ctx), SSL_CTX_get0_certificate(ctx), chain) != 1) {
		err = errmsg_set(em, DB_NOMEM, "TLS: out of memory");
	} else {
		X509_STORE_CTX_set_purpose(check, X509_PURPOSE_SSL_CLIENT);
		if (X509_verify_cert(check) != 1)
			err = errmsg_set(
			    em, DB_INVALID,
			    "tls.client_certificates \"required\": the nodes ask each other with tls.cert_file, which "
			    "tls.client_ca_file does not accept as a client's: %s",
			    X509_verify_cert_error_string(X509_STORE_CTX_get_error(check)));
	}
	X509_STORE_CTX_free(check);
	ERR_clear_error();
	return err;
}

static enum db_err load_clients(SSL_CTX *ctx, const struct cluster_config *config, struct errmsg *em)
{
	const char *path = config->tls.client_ca_file;
	int mode = SSL_VERIFY_PEER;
	STACK_OF(X509_NAME) * names;
	enum db_err err;

	if (config->tls.client_certificates == CLIENT_CERTIFICATES_NONE)
		return DB_OK;
	err = tls_check_readable("tls.client_ca_file", path, em);
	if (err != DB_OK)
		return err;
	names = SSL_load_client_CA_file(path);
	if (names == NULL || SSL_CTX_load_verify_file(ctx, path) != 1) {
		sk_X509_NAME_pop_free(names, X509_NAME_free);
		return tls_refuse(em, "tls.client_ca_file", path);
	}
	SSL_CTX_set_client_CA_list(ctx, names);
	SSL_CTX_set_verify_depth(ctx, TLS_CHAIN_MAX);
	if (config->tls.client_certificates == CLIENT_CERTIFICATES_REQUIRED)
		mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	SSL_CTX_set_verify(ctx, mode, NULL);
	return mode == SSL_VERIFY_PEER ? DB_OK : check_own_as_client(ctx, em);
}

bool tls_set_rules(SSL_CTX *ctx)
{
	static const unsigned char sessions[] = "grizzly";

	SSL_CTX_set_security_level(ctx, SECURITY_LEVEL);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
	/* Partial writes stay off: libevent takes a write for whole. */
	SSL_CTX_set_mode(ctx, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	/* Tickets alone: a session costs a client's memory, not ours. */
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_timeout(ctx, SESSION_S);
	return SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1 && SSL_CTX_set_cipher_list(ctx, CIPHERS) == 1 &&
	       SSL_CTX_set_num_tickets(ctx, TICKETS) == 1 &&
	       SSL_CTX_set_session_id_context(ctx, sessions, sizeof(sessions) - 1) == 1;
}

static enum db_err make_context(SSL_CTX **out, const struct cluster_config *config, struct errmsg *em)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	enum db_err err;

	*out = NULL;
	if (ctx == NULL || !tls_set_rules(ctx))
		err = errmsg_set(em, DB_NOMEM, "TLS: OpenSSL cannot be set up");
	else
		err = tls_load_own(ctx, config, em);
	if (err == DB_OK)
		err = load_clients(ctx, config, em);
	if (err != DB_OK) {
		SSL_CTX_free(ctx);
		ERR_clear_error();
		return err;
	}
	*out = ctx;
	return DB_OK;
}

/* What is not printable in a name stays out: the text goes to logs. */
static void describe(const SSL_CTX *ctx, char out[TLS_TEXT_MAX])
{
	const X509 *cert = SSL_CTX_get0_certificate(ctx);
	char name[128] = "";
	struct tm until = {0};
	char date[32] = "";
	size_t i;

	if (X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, name, sizeof(name)) < 0)
		name[0] = '\0';
	for (i = 0; name[i] != '\0'; i++)
		if (name[i] < ' ' || name[i] > '~')
			name[i] = '?';
	if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &until) == 1)
		strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S UTC", &until);
	snprintf(out, TLS_TEXT_MAX, "CN=%s, valid until %s", name, date);
}

enum db_err tls_server_create(struct tls_server **out, const struct cluster_config *config, struct errmsg *em)
{
	struct tls_server *t = calloc(1, sizeof(*t));
	enum db_err err;

	*out = NULL;
	if (t == NULL)
		return errmsg_set(em, DB_NOMEM, "TLS: out of memory");
	err = make_context(&t->ctx, config, em);
	if (err != DB_OK) {
		free(t);
		return err;
	}
	describe(t->ctx, t->text);
	pthread_mutex_init(&t->mutex, NULL);
	*out = t;
	return DB_OK;
}

void tls_server_free(struct tls_server *t)
{
	if (t == NULL)
		return;
	pthread_mutex_destroy(&t->mutex);
	SSL_CTX_free(t->ctx);
	free(t);
}

enum db_err tls_server_reload(struct tls_server *t, const struct cluster_config *config, struct errmsg *em)
{
	SSL_CTX *fresh, *old;
	enum db_err err = make_context(&fresh, config, em);

	if (err != DB_OK)
		return err;
	pthread_mutex_lock(&t->mutex);
	old = t->ctx;
	t->ctx = fresh;
	describe(fresh, t->text);
	pthread_mutex_unlock(&t->mutex);
	SSL_CTX_free(old); /* its connections hold on to it */
	return DB_OK;
}

SSL *tls_server_accept(struct tls_server *t)
{
	SSL *ssl;

	pthread_mutex_lock(&t->mutex);
	ssl = SSL_new(t->ctx);
	pthread_mutex_unlock(&t->mutex);
	if (ssl == NULL)
		ERR_clear_error();
	return ssl;
}

void tls_server_describe(struct tls_server *t, char out[TLS_TEXT_MAX])
{
	pthread_mutex_lock(&t->mutex);
	memcpy(out, t->text, TLS_TEXT_MAX);
	pthread_mutex_unlock(&t->mutex);
}

/* tls_members.c - see tls_members.h. Contexts are made anew from the files, looked at, and only then take the old ones'
 * place. */
#include "common/auth/tls_members.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/auth/tls.h"
#include "common/auth/tls_priv.h"

struct pair {
	SSL_CTX *accept;
	SSL_CTX *connect;
};

struct tls_members {
	pthread_mutex_t mutex; /* guards what follows */
	struct pair pair;
};

static void pair_free(struct pair *pair)
{
	SSL_CTX_free(pair->accept);
	SSL_CTX_free(pair->connect);
}

/* Without ca_file: our own certificate, but not those that follow it in the file, whose other signatures mean nothing
 * here. */
static enum db_err trust_own(SSL_CTX *ctx, const struct cluster_config *config, struct errmsg *em)
{
	if (X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), SSL_CTX_get0_certificate(ctx)) != 1)
		return tls_refuse(em, "tls.cert_file", config->tls.cert_file);
	return DB_OK;
}

static enum db_err trust_ca(SSL_CTX *ctx, const struct cluster_config *config, struct errmsg *em)
{
	enum db_err err = tls_check_readable("tls.ca_file", config->tls.ca_file, em);

	if (err == DB_OK && SSL_CTX_load_verify_file(ctx, config->tls.ca_file) != 1)
		err = tls_refuse(em, "tls.ca_file", config->tls.ca_file);
	return err;
}

/* What the other members will find when they look at our certificate as we look at theirs. */
static enum db_err check_own(SSL_CTX *ctx, const struct cluster_config *config, struct errmsg *em)
{
	X509_STORE_CTX *check = X509_STORE_CTX_new();
	STACK_OF(X509) *chain = NULL;
	enum db_err err = DB_OK;

	SSL_CTX_get0_chain_certs(ctx, &chain);
	if (check == NULL ||
	    X509_STORE_CTX_init(check, SSL_CTX_get_cert_store(ctx), SSL_CTX_get0_certificate(ctx), chain) != 1 ||
	    X509_STORE_CTX_set_purpose(check, X509_PURPOSE_SSL_SERVER) != 1) {
		err = errmsg_set(em, DB_NOMEM, "TLS: out of memory");
	} else {
		X509_STORE_CTX_set_flags(check, X509_V_FLAG_PARTIAL_CHAIN);
		if (X509_verify_cert(check) != 1)
			err = errmsg_set(em, DB_INVALID,
					 "tls.cert_file: \"%s\" cannot be used: the members of the cluster would not "
					 "take it for a member's (tls.ca_file): %s",
					 config->tls.cert_file,
					 X509_verify_cert_error_string(X509_STORE_CTX_get_error(check)));
	}
	X509_STORE_CTX_free(check);
	ERR_clear_error();
	return err;
}

static enum db_err make_context(SSL_CTX **out, const SSL_METHOD *method, const struct cluster_config *config,
				struct errmsg *em)
{
	SSL_CTX *ctx = SSL_CTX_new(method);
	enum db_err err;

	*out = ctx;
	if (ctx == NULL || !tls_set_rules(ctx) || SSL_CTX_set_num_tickets(ctx, 0) != 1 ||
	    SSL_CTX_set_purpose(ctx, X509_PURPOSE_SSL_SERVER) != 1)
		return errmsg_set(em, DB_NOMEM, "TLS: OpenSSL cannot be set up");
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_verify_depth(ctx, TLS_CHAIN_MAX);
	X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_PARTIAL_CHAIN);
	err = tls_load_own(ctx, config, em);
	if (err == DB_OK)
		err = config->tls.ca_file[0] == '\0' ? trust_own(ctx, config, em) : trust_ca(ctx, config, em);
	return err == DB_OK ? check_own(ctx, config, em) : err;
}

static enum db_err make_pair(struct pair *out, const struct cluster_config *config, struct errmsg *em)
{
	enum db_err err;

	*out = (struct pair){0};
	err = make_context(&out->accept, TLS_server_method(), config, em);
	if (err == DB_OK)
		err = make_context(&out->connect, TLS_client_method(), config, em);
	if (err != DB_OK) {
		pair_free(out);
		*out = (struct pair){0};
	}
	ERR_clear_error();
	return err;
}

enum db_err tls_members_create(struct tls_members **out, const struct cluster_config *config, struct errmsg *em)
{
	struct tls_members *t = calloc(1, sizeof(*t));
	enum db_err err;

	*out = NULL;
	if (t == NULL)
		return errmsg_set(em, DB_NOMEM, "TLS: out of memory");
	err = make_pair(&t->pair, config, em);
	if (err != DB_OK) {
		free(t);
		return err;
	}
	pthread_mutex_init(&t->mutex, NULL);
	*out = t;
	return DB_OK;
}

void tls_members_free(struct tls_members *t)
{
	if (t == NULL)
		return;
	pthread_mutex_destroy(&t->mutex);
	pair_free(&t->pair);
	free(t);
}

enum db_err tls_members_reload(struct tls_members *t, const struct cluster_config *config, struct errmsg *em)
{
	struct pair fresh, old;
	enum db_err err = make_pair(&fresh, config, em);

	if (err != DB_OK)
		return err;
	pthread_mutex_lock(&t->mutex);
	old = t->pair;
	t->pair = fresh;
	pthread_mutex_unlock(&t->mutex);
	pair_free(&old); /* its connections hold on to it */
	return DB_OK;
}

static SSL *new_connection(struct tls_members *t, bool accepted)
{
	SSL *ssl;

	pthread_mutex_lock(&t->mutex);
	ssl = SSL_new(accepted ? t->pair.accept : t->pair.connect);
	pthread_mutex_unlock(&t->mutex);
	if (ssl == NULL)
		ERR_clear_error();
	else if (accepted)
		SSL_set_accept_state(ssl);
	else
		SSL_set_connect_state(ssl);
	return ssl;
}

SSL *tls_members_accept(struct tls_members *t)
{
	return new_connection(t, true);
}

SSL *tls_members_connect(struct tls_members *t)
{
	return new_connection(t, false);
}

enum db_err tls_check(const struct cluster_config *config, struct errmsg *em)
{
	struct tls_members *members = NULL;
	struct tls_server *server = NULL;
	enum db_err err = tls_server_create(&server, config, em);

	if (err == DB_OK)
		err = tls_members_create(&members, config, em);
	tls_members_free(members);
	tls_server_free(server);
	return err;
}

/*
 * test_tls.c - common/auth/tls.h: which files are taken, what a handshake comes to, and new files while others shake hands.
 *
 * Certificates are made here, handshakes run in memory.
 */
#include "common/auth/tls.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/unit.h"

#define DAY 86400L

/* ---- certificates */

struct identity {
	EVP_PKEY *key;
	X509 *cert;
};

static char dir[UNIT_PATH_MAX];

static const char *path_of(const char *name)
{
	static _Thread_local char paths[4][UNIT_PATH_MAX + 32];
	static _Thread_local unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
	return path;
}

static void extend(X509 *cert, const struct identity *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *extension;

	X509V3_set_ctx(&ctx, issuer != NULL ? issuer->cert : cert, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	CU_ASSERT_PTR_NOT_NULL_FATAL(extension);
	X509_add_ext(cert, extension, -1);
	X509_EXTENSION_free(extension);
}

/* issuer NULL: a CA. use: of the extended key usage; NULL: any. */
static struct identity make(EVP_PKEY *key, const char *name, const struct identity *issuer, const char *use,
			    long from_s, long until_s)
{
	static long serial = 1;
	struct identity id = {key, X509_new()};
	X509_NAME *subject;

	CU_ASSERT_FATAL(key != NULL && id.cert != NULL);
	X509_set_version(id.cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(id.cert), serial++);
	X509_gmtime_adj(X509_getm_notBefore(id.cert), from_s);
	X509_gmtime_adj(X509_getm_notAfter(id.cert), until_s);
	X509_set_pubkey(id.cert, key);
	subject = X509_get_subject_name(id.cert);
	X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(id.cert, issuer != NULL ? X509_get_subject_name(issuer->cert) : subject);
	extend(id.cert, issuer, NID_basic_constraints, issuer == NULL ? "critical,CA:TRUE" : "CA:FALSE");
	if (use != NULL)
		extend(id.cert, issuer, NID_ext_key_usage, use);
	CU_ASSERT_FATAL(X509_sign(id.cert, issuer != NULL ? issuer->key : key, EVP_sha256()) > 0);
	return id;
}

static struct identity make_usual(const char *name, const struct identity *issuer)
{
	return make(EVP_EC_gen("P-256"), name, issuer, NULL, -DAY, DAY);
}

static void forget(struct identity *id)
{
	EVP_PKEY_free(id->key);
	X509_free(id->cert);
}

static void store(const struct identity *id, const char *cert_name, const char *key_name, const char *passphrase)
{
	FILE *f = fopen(path_of(cert_name), "w");

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	PEM_write_X509(f, id->cert);
	fclose(f);
	if (key_name == NULL)
		return;
	f = fopen(path_of(key_name), "w");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	PEM_write_PrivateKey(f, id->key, passphrase != NULL ? EVP_aes_128_cbc() : NULL, NULL, 0, NULL,
			     (void *)(uintptr_t)passphrase);
	fclose(f);
}

static void configure(struct cluster_config *c, const char *cert_name, const char *key_name)
{
	config_init(c);
	snprintf(c->tls.cert_file, sizeof(c->tls.cert_file), "%s", path_of(cert_name));
	snprintf(c->tls.key_file, sizeof(c->tls.key_file), "%s", path_of(key_name));
}

static struct identity ca, node;

/* Each test begins with it: a directory of its own with the files of a CA and of a node. */
static void set_up(void)
{
	unit_tmpdir(dir);
	ca = make_usual("a private CA", NULL);
	node = make_usual("db.example.org", &ca);
	store(&ca, "ca.pem", "ca.key", NULL);
	store(&node, "node.pem", "node.key", NULL);
}

static void tear_down(void)
{
	forget(&ca);
	forget(&node);
}

/* ---- handshakes */

struct client {
	SSL_CTX *ctx;
	SSL_SESSION *session; /* to be resumed; the last ticket of the server's */
};

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
	struct client *c = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

	SSL_SESSION_free(c->session);
	c->session = session;
	return 1;
}

static void client_open(struct client *c)
{
	c->session = NULL;
	c->ctx = SSL_CTX_new(TLS_client_method());
	CU_ASSERT_PTR_NOT_NULL_FATAL(c->ctx);
	SSL_CTX_set_app_data(c->ctx, c);
	SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER, NULL);
	CU_ASSERT_EQUAL(SSL_CTX_load_verify_file(c->ctx, path_of("ca.pem")), 1);
	SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(c->ctx, keep_session);
}

static void client_close(struct client *c)
{
	SSL_SESSION_free(c->session);
	SSL_CTX_free(c->ctx);
}

/* Whether both are content; then they say a byte each, which brings the tickets along. */
static bool shake(SSL *server, SSL *client)
{
	int i, theirs = 0, ours = 0;
	char byte;

	for (i = 0; i < 20 && (theirs != 1 || ours != 1); i++) {
		theirs = SSL_do_handshake(client);
		ours = SSL_do_handshake(server);
		if ((theirs != 1 && SSL_get_error(client, theirs) != SSL_ERROR_WANT_READ) ||
		    (ours != 1 && SSL_get_error(server, ours) != SSL_ERROR_WANT_READ))
			break;
	}
	ERR_clear_error();
	return theirs == 1 && ours == 1 && SSL_write(client, "?", 1) == 1 && SSL_read(server, &byte, 1) == 1 &&
	       SSL_write(server, "!", 1) == 1 && SSL_read(client, &byte, 1) == 1;
}

struct outcome {
	bool open, resumed;
	int version;
	char name[64]; /* of the server's certificate */
};

static void connect_both(SSL *server, SSL *client)
{
	BIO *at_server, *at_client;

	CU_ASSERT_EQUAL_FATAL(BIO_new_bio_pair(&at_server, 0, &at_client, 0), 1);
	SSL_set_bio(server, at_server, at_server);
	SSL_set_bio(client, at_client, at_client);
	SSL_set_accept_state(server);
	SSL_set_connect_state(client);
}

static struct outcome try_out(SSL *server, struct client *c)
{
	SSL *client = SSL_new(c->ctx);
	struct outcome o = {0};
	X509 *shown;

	CU_ASSERT_FATAL(server != NULL && client != NULL);
	connect_both(server, client);
	if (c->session != NULL)
		SSL_set_session(client, c->session);
	o.open = shake(server, client);
	o.resumed = SSL_session_reused(client) == 1;
	o.version = SSL_version(client);
	shown = SSL_get0_peer_certificate(client);
	if (shown != NULL)
		X509_NAME_get_text_by_NID(X509_get_subject_name(shown), NID_commonName, o.name, sizeof(o.name));
	ERR_clear_error();
	if (o.open) /* else the session counts as one that went wrong */
		SSL_set_shutdown(client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(client);
	SSL_free(server);
	return o;
}

/* ---- files */

static void expect_refused(const struct cluster_config *c, enum db_err expected, const char *key, const char *why)
{
	struct tls_server *t = (struct tls_server *)&t;
	struct errmsg em = {0};

	CU_ASSERT_EQUAL(tls_server_create(&t, c, &em), expected);
	CU_ASSERT_PTR_NULL(t);
	if (strstr(em.text, key) == NULL || strstr(em.text, why) == NULL)
		fprintf(stderr, "it says: %s\n", em.text);
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, key));
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, why));
	CU_ASSERT_PTR_NULL(strstr(em.text, "PRIVATE"));
	CU_ASSERT_EQUAL(ERR_peek_error(), 0); /* nothing is left for the next one to stumble over */
}

static void test_files_that_cannot_be_used_are_refused_in_words(void)
{
	struct identity other, late, early, weak;
	struct cluster_config c;
	FILE *f;

	set_up();
	other = make_usual("other", &ca);
	late = make(EVP_EC_gen("P-256"), "late", &ca, NULL, -9 * DAY, -DAY);
	early = make(EVP_EC_gen("P-256"), "early", &ca, NULL, DAY, 9 * DAY);
	weak = make(EVP_RSA_gen(1024), "weak", &ca, NULL, -DAY, DAY);
	f = fopen(path_of("junk"), "w");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	fputs("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n", f);
	fclose(f);
	store(&other, "other.pem", "other.key", NULL);
	store(&late, "late.pem", "late.key", NULL);
	store(&early, "early.pem", "early.key", NULL);
	store(&weak, "weak.pem", "weak.key", NULL);
	store(&node, "node.pem", "locked.key", "a passphrase");
	configure(&c, "gone.pem", "node.key");
	expect_refused(&c, DB_NOTFOUND, "tls.cert_file", "gone.pem");
	configure(&c, "node.pem", "gone.key");
	expect_refused(&c, DB_NOTFOUND, "tls.key_file", "gone.key");
	configure(&c, "junk", "node.key");
	expect_refused(&c, DB_INVALID, "tls.cert_file", "junk");
	configure(&c, "node.pem", "junk");
	expect_refused(&c, DB_INVALID, "tls.key_file", "junk");
	configure(&c, "node.pem", "other.key");
	expect_refused(&c, DB_INVALID, "tls.key_file", "other.key");
	configure(&c, "node.pem", "locked.key");
	expect_refused(&c, DB_INVALID, "tls.key_file", "locked.key");
	configure(&c, "late.pem", "late.key");
	expect_refused(&c, DB_INVALID, "tls.cert_file", "has expired");
	configure(&c, "early.pem", "early.key");
	expect_refused(&c, DB_INVALID, "tls.cert_file", "not valid yet");
	configure(&c, "weak.pem", "weak.key");
	expect_refused(&c, DB_INVALID, "tls.cert_file", "too small");
	forget(&other);
	forget(&late);
	forget(&early);
	forget(&weak);
	tear_down();
}

static void test_hostile_names_do_not_reach_a_log(void)
{
	struct identity id;
	struct cluster_config c;
	struct tls_server *t;
	struct errmsg em = {0};
	char text[TLS_TEXT_MAX];

	set_up();
	id = make_usual("line\nend\x1b[31m \xc3\xa9", &ca);
	store(&id, "odd.pem", "odd.key", NULL);
	configure(&c, "odd.pem", "odd.key");
	UNIT_OK(tls_server_create(&t, &c, &em), &em);
	tls_server_describe(t, text);
	CU_ASSERT_EQUAL(strncmp(text, "CN=line?end?[31m ??, valid until 20", 35), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, " UTC"));
	tls_server_free(t);
	tls_server_free(NULL);
	forget(&id);
	tear_down();
}

/* ---- rules */

static void test_versions_and_ciphers(void)
{
	static const struct {
		int version;
		const char *ciphers;
		bool open;
	} cases[] = {{TLS1_3_VERSION, NULL, true},
		     {TLS1_2_VERSION, NULL, true},
		     {TLS1_2_VERSION, "ECDHE-ECDSA-CHACHA20-POLY1305", true},
		     {TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA", false}, /* no authenticated encryption */
		     {TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA256", false},
		     {TLS1_1_VERSION, "ALL:@SECLEVEL=0", false},
		     {TLS1_VERSION, "ALL:@SECLEVEL=0", false}};
	struct cluster_config c;
	struct tls_server *t;
	struct errmsg em = {0};
	struct client client;
	struct outcome o;
	size_t i;

	set_up();
	configure(&c, "node.pem", "node.key");
	UNIT_OK(tls_server_create(&t, &c, &em), &em);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		client_open(&client);
		SSL_CTX_set_min_proto_version(client.ctx, cases[i].version);
		SSL_CTX_set_max_proto_version(client.ctx, cases[i].version);
		if (cases[i].ciphers != NULL)
			CU_ASSERT_EQUAL(SSL_CTX_set_cipher_list(client.ctx, cases[i].ciphers), 1);
		o = try_out(tls_server_accept(t), &client);
		CU_ASSERT_EQUAL(o.open, cases[i].open);
		if (o.open) {
			CU_ASSERT_EQUAL(o.version, cases[i].version);
			CU_ASSERT_STRING_EQUAL(o.name, "db.example.org");
		}
		client_close(&client);
	}
	tls_server_free(t);
	tear_down();
}

/* ---- new files */

static void test_new_files_are_for_new_connections_or_not_at_all(void)
{
	struct identity second;
	struct cluster_config c, broken;
	struct tls_server *t;
	struct errmsg em = {0};
	struct client client;
	char text[TLS_TEXT_MAX];
	SSL *begun;

	set_up();
	second = make_usual("second", &ca);
	configure(&c, "node.pem", "node.key");
	UNIT_OK(tls_server_create(&t, &c, &em), &em);
	client_open(&client);
	CU_ASSERT_STRING_EQUAL(try_out(tls_server_accept(t), &client).name, "db.example.org");
	CU_ASSERT_PTR_NOT_NULL(client.session);
	CU_ASSERT_TRUE(try_out(tls_server_accept(t), &client).resumed);
	begun = tls_server_accept(t);
	store(&second, "second.pem", "second.key", NULL);
	configure(&broken, "second.pem", "node.key");
	CU_ASSERT_EQUAL(tls_server_reload(t, &broken, &em), DB_INVALID);
	CU_ASSERT_TRUE(try_out(tls_server_accept(t), &client).resumed); /* nothing has changed */
	configure(&c, "second.pem", "second.key");
	UNIT_OK(tls_server_reload(t, &c, &em), &em);
	tls_server_describe(t, text);
	CU_ASSERT_EQUAL(strncmp(text, "CN=second, ", 11), 0);
	CU_ASSERT_FALSE(try_out(tls_server_accept(t), &client).resumed); /* a ticket of before opens nothing */
	SSL_SESSION_free(client.session);
	client.session = NULL;
	CU_ASSERT_STRING_EQUAL(try_out(tls_server_accept(t), &client).name, "second");
	SSL_SESSION_free(client.session);
	client.session = NULL;
	tls_server_free(t);
	CU_ASSERT_STRING_EQUAL(try_out(begun, &client).name, "db.example.org"); /* it outlives even the server */
	client_close(&client);
	forget(&second);
	tear_down();
}

/* ---- clients' certificates */

static bool comes_in(struct tls_server *t, const struct identity *shown)
{
	struct client client;
	struct outcome o;

	client_open(&client);
	if (shown != NULL) {
		SSL_CTX_use_certificate(client.ctx, shown->cert);
		SSL_CTX_use_PrivateKey(client.ctx, shown->key);
	}
	o = try_out(tls_server_accept(t), &client);
	client_close(&client);
	return o.open;
}

static void test_clients_certificates(void)
{
	struct identity others_ca, good, bad, late, server_only;
	const struct {
		enum client_certificates wanted;
		bool none, good, bad, late, server_only;
	} cases[] = {{CLIENT_CERTIFICATES_NONE, true, true, true, true, true},
		     {CLIENT_CERTIFICATES_OPTIONAL, true, true, false, false, false},
		     {CLIENT_CERTIFICATES_REQUIRED, false, true, false, false, false}};
	struct cluster_config c;
	struct tls_server *t;
	struct errmsg em = {0};
	size_t i;

	set_up();
	others_ca = make_usual("another CA", NULL);
	good = make_usual("client", &ca);
	bad = make_usual("client", &others_ca);
	late = make(EVP_EC_gen("P-256"), "client", &ca, NULL, -9 * DAY, -DAY);
	server_only = make(EVP_EC_gen("P-256"), "client", &ca, "serverAuth", -DAY, DAY);
	configure(&c, "node.pem", "node.key");
	snprintf(c.tls.client_ca_file, sizeof(c.tls.client_ca_file), "%s", path_of("ca.pem"));
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		c.tls.client_certificates = cases[i].wanted;
		UNIT_OK(tls_server_create(&t, &c, &em), &em);
		CU_ASSERT_EQUAL(comes_in(t, NULL), cases[i].none);
		CU_ASSERT_EQUAL(comes_in(t, &good), cases[i].good);
		CU_ASSERT_EQUAL(comes_in(t, &bad), cases[i].bad);
		CU_ASSERT_EQUAL(comes_in(t, &late), cases[i].late);
		CU_ASSERT_EQUAL(comes_in(t, &server_only), cases[i].server_only);
		tls_server_free(t);
	}
	/* Nodes show their own to each other. */
	store(&others_ca, "others-ca.pem", NULL, NULL);
	snprintf(c.tls.client_ca_file, sizeof(c.tls.client_ca_file), "%s", path_of("others-ca.pem"));
	expect_refused(&c, DB_INVALID, "tls.client_certificates", "tls.client_ca_file");
	snprintf(c.tls.client_ca_file, sizeof(c.tls.client_ca_file), "%s", path_of("gone.pem"));
	expect_refused(&c, DB_NOTFOUND, "tls.client_ca_file", "gone.pem");
	snprintf(c.tls.client_ca_file, sizeof(c.tls.client_ca_file), "%s", path_of("node.key"));
	expect_refused(&c, DB_INVALID, "tls.client_ca_file", "node.key");
	forget(&others_ca);
	forget(&good);
	forget(&bad);
	forget(&late);
	forget(&server_only);
	tear_down();
}

/* ---- many threads */

struct crowd {
	struct tls_server *t;
	atomic_bool done;
	atomic_uint opened, failed;
};

static void *open_connections(void *arg)
{
	struct crowd *crowd = arg;
	char text[TLS_TEXT_MAX];
	struct client client;

	client_open(&client);
	while (!atomic_load(&crowd->done)) {
		if (!try_out(tls_server_accept(crowd->t), &client).open)
			atomic_fetch_add(&crowd->failed, 1);
		tls_server_describe(crowd->t, text);
		atomic_fetch_add(&crowd->opened, 1);
	}
	client_close(&client);
	return NULL;
}

static void test_files_change_while_others_shake_hands(void)
{
	struct crowd crowd = {0};
	struct cluster_config c;
	struct errmsg em = {0};
	pthread_t threads[3];
	unsigned i, before;

	set_up();
	configure(&c, "node.pem", "node.key");
	UNIT_OK(tls_server_create(&crowd.t, &c, &em), &em);
	for (i = 0; i < 3; i++)
		CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, open_connections, &crowd), 0);
	for (i = 0; i < 20; i++) {
		before = atomic_load(&crowd.opened);
		UNIT_OK(tls_server_reload(crowd.t, &c, &em), &em);
		while (atomic_load(&crowd.opened) == before)
			usleep(100);
	}
	atomic_store(&crowd.done, true);
	for (i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	CU_ASSERT_EQUAL(atomic_load(&crowd.failed), 0);
	tls_server_free(crowd.t);
	tear_down();
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"files that cannot be used are refused in words", test_files_that_cannot_be_used_are_refused_in_words},
	    {"hostile names do not reach a log", test_hostile_names_do_not_reach_a_log},
	    {"versions and ciphers", test_versions_and_ciphers},
	    {"new files are for new connections, or not at all", test_new_files_are_for_new_connections_or_not_at_all},
	    {"clients' certificates", test_clients_certificates},
	    {"files change while others shake hands", test_files_change_while_others_shake_hands},
	    {NULL, NULL},
	};

	return unit_run("tls", tests);
}

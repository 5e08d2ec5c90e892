/*
 * test_mesh.c - links to several addresses at a time, in TLS tunnels, and by the way that a mesh chooses.
 *
 * Certificates are made here. Every wait is for an event, with WAIT_MS as the deadline. The working directory is a
 * scratch one, for socket files' names are short.
 */
#include "common/wire/mesh.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/wire/tunnel.h"
#include "tests/unit/unit.h"

#define WAIT_MS 10000
#define LARGE   ((size_t)1 << 20)

static void in_scratch(void)
{
	char dir[UNIT_PATH_MAX];

	unit_tmpdir(dir);
	CU_ASSERT_EQUAL_FATAL(chdir(dir), 0);
	CU_ASSERT_EQUAL_FATAL(mkdir("run", 0700), 0);
}

static bool wait_for(sem_t *s, unsigned timeout_ms)
{
	struct timespec until;
	uint64_t at_us = clock_wall_us() + timeout_ms * 1000u;

	until.tv_sec = (time_t)(at_us / 1000000u);
	until.tv_nsec = (long)(at_us % 1000000u) * 1000;
	return sem_timedwait(s, &until) == 0;
}

/* ---- certificates */

struct identity {
	X509 *cert;
	EVP_PKEY *key;
};

static void identity_free(struct identity *id)
{
	X509_free(id->cert);
	EVP_PKEY_free(id->key);
}

static void extend(X509 *cert, int nid, const char *value)
{
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

	CU_ASSERT_PTR_NOT_NULL_FATAL(extension);
	X509_add_ext(cert, extension, -1);
	X509_EXTENSION_free(extension);
}

/* Signed by ca, or by itself (NULL), which makes it a CA. usage: what it is good for; NULL: anything. */
static struct identity make_identity(const struct identity *ca, const char *name, const char *usage, bool rsa,
				     long valid_s)
{
	struct identity id = {X509_new(), rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256")};
	static atomic_long serial = 1;
	X509_NAME *subject;

	CU_ASSERT_PTR_NOT_NULL_FATAL(id.cert);
	CU_ASSERT_PTR_NOT_NULL_FATAL(id.key);
	X509_set_version(id.cert, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(id.cert), atomic_fetch_add(&serial, 1));
	X509_gmtime_adj(X509_getm_notBefore(id.cert), -86400);
	X509_gmtime_adj(X509_getm_notAfter(id.cert), valid_s);
	subject = X509_get_subject_name(id.cert);
	X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(id.cert, ca == NULL ? subject : X509_get_subject_name(ca->cert));
	X509_set_pubkey(id.cert, id.key);
	extend(id.cert, NID_basic_constraints, ca == NULL ? "critical,CA:TRUE" : "critical,CA:FALSE");
	if (usage != NULL)
		extend(id.cert, NID_ext_key_usage, usage);
	CU_ASSERT_TRUE_FATAL(X509_sign(id.cert, ca == NULL ? id.key : ca->key, EVP_sha256()) > 0);
	return id;
}

static void write_cert(const struct identity *id, const char *path)
{
	FILE *f = fopen(path, "w");

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	CU_ASSERT_EQUAL(PEM_write_X509(f, id->cert), 1);
	fclose(f);
}

static void write_key(const struct identity *id, const char *path)
{
	FILE *f = fopen(path, "w");

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	CU_ASSERT_EQUAL(PEM_write_PrivateKey(f, id->key, NULL, NULL, 0, NULL, NULL), 1);
	fclose(f);
}

/* A configuration whose files are NAME.pem and NAME.key, made by ca and trusting it. */
static void configure(struct cluster_config *config, const struct identity *ca, const char *name, const char *usage,
		      bool rsa, long valid_s)
{
	struct identity id = make_identity(ca, name, usage, rsa, valid_s);
	char path[64];

	config_init(config);
	snprintf(config->tls.cert_file, sizeof(config->tls.cert_file), "%s.pem", name);
	snprintf(config->tls.key_file, sizeof(config->tls.key_file), "%s.key", name);
	snprintf(config->tls.ca_file, sizeof(config->tls.ca_file), "%s.ca", name);
	write_cert(&id, config->tls.cert_file);
	write_key(&id, config->tls.key_file);
	snprintf(path, sizeof(path), "%s.ca", name);
	write_cert(ca, path);
	identity_free(&id);
}

/* ---- the two ends of a pipeline */

struct sender {
	struct link_push *link;
	sem_t up, down, sent;
	atomic_int result; /* of the last send */
};

static void on_connected(void *arg, bool connected)
{
	struct sender *s = arg;

	sem_post(connected ? &s->up : &s->down);
}

static void on_sent(void *arg, enum db_err err)
{
	struct sender *s = arg;

	atomic_store(&s->result, (int)err);
	sem_post(&s->sent);
}

static void sender_open(struct sender *s, const char *url, const char *near_url)
{
	struct errmsg em = {0};

	memset(s, 0, sizeof(*s));
	sem_init(&s->up, 0, 0);
	sem_init(&s->down, 0, 0);
	sem_init(&s->sent, 0, 0);
	UNIT_OK(link_push_create(&s->link, url, near_url, on_connected, on_sent, s, &em), &em);
	CU_ASSERT_PTR_NOT_NULL_FATAL(s->link);
}

static void sender_close(struct sender *s)
{
	link_push_free(s->link);
	sem_destroy(&s->up);
	sem_destroy(&s->down);
	sem_destroy(&s->sent);
}

/* The body is its number, again and again. */
static nng_msg *numbered(uint32_t number, size_t len)
{
	nng_msg *msg = link_msg_alloc(len);
	uint8_t *body;
	size_t i;

	CU_ASSERT_PTR_NOT_NULL_FATAL(msg);
	body = nng_msg_body(msg);
	for (i = 0; i < len; i += 4)
		memcpy(body + i, &number, len - i < 4 ? len - i : 4);
	return msg;
}

static enum db_err send_and_wait(struct sender *s, uint32_t number, size_t len)
{
	nng_msg *msg = numbered(number, len);
	enum db_err err = link_push_send(s->link, msg);

	if (err != DB_OK) {
		nng_msg_free(msg);
		return err;
	}
	CU_ASSERT_TRUE_FATAL(wait_for(&s->sent, WAIT_MS));
	return (enum db_err)atomic_load(&s->result);
}

struct receiver {
	struct link_pull *link;
	sem_t got;
	atomic_uint last, count;
	atomic_bool whole; /* every message was made of its number, and no two handlers ran at a time */
	atomic_int inside;
};

static bool on_message(void *arg, const void *bytes, size_t len)
{
	struct receiver *r = arg;
	uint32_t number = 0, again;
	size_t i;

	if (atomic_fetch_add(&r->inside, 1) != 0)
		atomic_store(&r->whole, false);
	memcpy(&number, bytes, len < 4 ? len : 4);
	for (i = 0; i + 4 <= len; i += 4) {
		memcpy(&again, (const uint8_t *)bytes + i, 4);
		if (again != number)
			atomic_store(&r->whole, false);
	}
	atomic_store(&r->last, number);
	atomic_fetch_add(&r->count, 1);
	sem_post(&r->got);
	atomic_fetch_sub(&r->inside, 1);
	return true;
}

static void receiver_open(struct receiver *r, const char *url)
{
	struct errmsg em = {0};

	memset(r, 0, sizeof(*r));
	sem_init(&r->got, 0, 0);
	atomic_store(&r->whole, true);
	UNIT_OK(link_pull_create(&r->link, url, on_message, r, &em), &em);
	CU_ASSERT_PTR_NOT_NULL_FATAL(r->link);
}

static void receiver_close(struct receiver *r)
{
	link_pull_free(r->link);
	CU_ASSERT_TRUE(atomic_load(&r->whole));
	sem_destroy(&r->got);
}

static void expect(struct receiver *r, uint32_t number)
{
	CU_ASSERT_TRUE_FATAL(wait_for(&r->got, WAIT_MS));
	CU_ASSERT_EQUAL(atomic_load(&r->last), number);
}

/* ---- several addresses */

static void a_receiver_hears_a_file_and_a_port(void)
{
	char tcp[LINK_URL_MAX];
	struct sender near, far;
	struct receiver r;
	struct errmsg em = {0};
	unsigned i;

	in_scratch();
	receiver_open(&r, "ipc://run/r");
	UNIT_OK(link_pull_also(r.link, "tcp://127.0.0.1:0", &em), &em);
	snprintf(tcp, sizeof(tcp), "tcp://127.0.0.1:%u", link_pull_port(r.link));
	CU_ASSERT_EQUAL(link_pull_also(r.link, "ipc://run/third", &em), DB_INVALID);
	sender_open(&near, "ipc://run/r", NULL);
	sender_open(&far, tcp, NULL);
	CU_ASSERT_TRUE_FATAL(wait_for(&near.up, WAIT_MS));
	CU_ASSERT_TRUE_FATAL(wait_for(&far.up, WAIT_MS));
	for (i = 1; i <= 200; i++) { /* both at the same time: handlers must not overlap */
		nng_msg *msg = numbered(i, 64);

		if (link_push_send(near.link, msg) != DB_OK)
			nng_msg_free(msg);
		CU_ASSERT_EQUAL(send_and_wait(&far, i, LARGE / 8), DB_OK);
		CU_ASSERT_TRUE_FATAL(wait_for(&near.sent, WAIT_MS));
	}
	AWAIT(atomic_load(&r.count) == 400);
	sender_close(&near);
	sender_close(&far);
	receiver_close(&r);
	CU_ASSERT_NOT_EQUAL(access("run/r", F_OK), 0); /* nothing is left for others to find */
}

static void an_address_in_use_leaves_the_other_one(void)
{
	struct receiver first, second;
	struct sender s;
	struct errmsg em = {0};

	in_scratch();
	receiver_open(&first, "ipc://run/r");
	receiver_open(&second, "tcp://127.0.0.1:0");
	CU_ASSERT_EQUAL(link_pull_also(second.link, "ipc://run/r", &em), DB_BUSY);
	sender_open(&s, "ipc://run/r", NULL);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
	CU_ASSERT_EQUAL(send_and_wait(&s, 7, 4), DB_OK);
	expect(&first, 7);
	CU_ASSERT_EQUAL(atomic_load(&second.count), 0);
	UNIT_OK(link_pull_also(second.link, "ipc://run/other", &em), &em);
	sender_close(&s);
	receiver_close(&second);
	receiver_close(&first);
}

/* Two receivers stand for the two addresses of one peer, to tell which way was taken. */
static void the_file_is_taken_while_it_is_there(void)
{
	char tcp[LINK_URL_MAX];
	struct receiver near, far;
	struct sender s;

	in_scratch();
	receiver_open(&far, "tcp://127.0.0.1:0");
	snprintf(tcp, sizeof(tcp), "tcp://127.0.0.1:%u", link_pull_port(far.link));
	receiver_open(&near, "ipc://run/r");
	sender_open(&s, tcp, "ipc://run/r");
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
	CU_ASSERT_EQUAL(send_and_wait(&s, 1, 4), DB_OK);
	expect(&near, 1);
	receiver_close(&near); /* the file goes */
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
	CU_ASSERT_EQUAL(send_and_wait(&s, 2, 4), DB_OK);
	expect(&far, 2);
	receiver_open(&near, "ipc://run/r"); /* comes back: a connection that works is not given up for it */
	CU_ASSERT_EQUAL(send_and_wait(&s, 3, 4), DB_OK);
	expect(&far, 3);
	link_push_reconnect(s.link); /* but the next one is made there */
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
	CU_ASSERT_EQUAL(send_and_wait(&s, 4, 4), DB_OK);
	expect(&near, 4);
	sender_close(&s);
	receiver_close(&near);
	receiver_close(&far);
}

static void a_file_that_appears_while_connecting_is_preferred(void)
{
	char tcp[LINK_URL_MAX];
	struct receiver near, far;
	struct sender s;

	in_scratch();
	receiver_open(&far, "tcp://127.0.0.1:0");
	snprintf(tcp, sizeof(tcp), "tcp://127.0.0.1:%u", link_pull_port(far.link));
	receiver_close(&far);
	sender_open(&s, tcp, "ipc://run/r"); /* neither is there */
	CU_ASSERT_FALSE(wait_for(&s.up, 100));
	receiver_open(&near, "ipc://run/r");
	receiver_open(&far, tcp);
	CU_ASSERT_TRUE_FATAL(wait_for(&s.up, WAIT_MS));
	CU_ASSERT_EQUAL(send_and_wait(&s, 1, 4), DB_OK);
	expect(&near, 1);
	CU_ASSERT_EQUAL(atomic_load(&far.count), 0);
	sender_close(&s);
	receiver_close(&near);
	receiver_close(&far);
}

/* ---- tunnels */

/* What one process has: its certificate and its tunnels. */
struct host {
	struct cluster_config config;
	struct tls_members *tls;
	struct tunnels *tunnels;
};

static void host_open(struct host *h)
{
	struct errmsg em = {0};

	UNIT_OK(tls_members_create(&h->tls, &h->config, &em), &em);
	CU_ASSERT_PTR_NOT_NULL_FATAL(h->tls);
	UNIT_OK(tunnels_create(&h->tunnels, h->tls, &em), &em);
	CU_ASSERT_PTR_NOT_NULL_FATAL(h->tunnels);
}

static void host_close(struct host *h)
{
	tunnels_free(h->tunnels);
	tls_members_free(h->tls);
}

/* A receiver that listens behind a gate. */
struct far_end {
	struct host host;
	struct receiver receiver;
	struct tunnel_gate *gate;
	char address[64];
};

static void far_end_listen(struct far_end *f)
{
	struct errmsg em = {0};

	host_open(&f->host);
	receiver_open(&f->receiver, "ipc://run/r");
	UNIT_OK(tunnel_listen(&f->gate, f->host.tunnels, "127.0.0.1:0", "run/r", &em), &em);
	CU_ASSERT_PTR_NOT_NULL_FATAL(f->gate);
	snprintf(f->address, sizeof(f->address), "127.0.0.1:%u", tunnel_port(f->gate));
}

static void far_end_close(struct far_end *f)
{
	receiver_close(&f->receiver);
	host_close(&f->host);
}

/* A sender that reaches an address through a gate of its own. */
struct near_end {
	struct host host;
	struct sender sender;
	struct tunnel_gate *gate;
};

static void near_end_dial(struct near_end *n, const char *address, const char *path)
{
	char url[LINK_URL_MAX];
	struct errmsg em = {0};

	host_open(&n->host);
	UNIT_OK(tunnel_dial(&n->gate, n->host.tunnels, path, address, &em), &em);
	CU_ASSERT_PTR_NOT_NULL_FATAL(n->gate);
	UNIT_OK(link_ipc_url(url, path, &em), &em);
	sender_open(&n->sender, url, NULL);
}

static void near_end_close(struct near_end *n)
{
	sender_close(&n->sender);
	tunnel_close(n->gate);
	host_close(&n->host);
}

/* usage: what the certificate of the end that dials is good for. */
static void members_pass_messages(bool rsa, const char *usage)
{
	static const size_t sizes[] = {4, 1, 100, 16384, 65535, 65536, 65537, LARGE};
	struct identity ca = make_identity(NULL, "ca", NULL, rsa, 86400);
	struct far_end *f = calloc(1, sizeof(*f));
	struct near_end *n = calloc(1, sizeof(*n));
	struct stat st;
	uint32_t i;

	configure(&f->host.config, &ca, "far", "serverAuth", rsa, 86400);
	configure(&n->host.config, &ca, "near", usage, false, 86400);
	far_end_listen(f);
	near_end_dial(n, f->address, "run/out");
	CU_ASSERT_EQUAL(stat("run/out", &st), 0);
	CU_ASSERT_EQUAL(st.st_mode & 0777, 0600);
	CU_ASSERT_TRUE_FATAL(wait_for(&n->sender.up, WAIT_MS));
	for (i = 0; i < 64; i++) {
		CU_ASSERT_EQUAL(send_and_wait(&n->sender, i % 251, sizes[i % 8]), DB_OK);
		expect(&f->receiver, i % 251);
	}
	near_end_close(n);
	CU_ASSERT_NOT_EQUAL(access("run/out", F_OK), 0);
	far_end_close(f);
	identity_free(&ca);
	free(f);
	free(n);
}

static void messages_pass_whole_and_in_order(void)
{
	in_scratch();
	members_pass_messages(false, NULL);
}

static void messages_pass_under_rsa_keys(void)
{
	in_scratch();
	members_pass_messages(true, NULL);
}

/* Who dials is TLS's client, but a member like any other. */
static void a_servers_certificate_is_enough_to_dial_with(void)
{
	in_scratch();
	members_pass_messages(false, "serverAuth");
}

static void a_stream_passes_and_back_pressure_holds_it(void)
{
	struct identity ca = make_identity(NULL, "ca", NULL, false, 86400);
	struct far_end *f = calloc(1, sizeof(*f));
	struct near_end *n = calloc(1, sizeof(*n));
	uint32_t i;

	in_scratch();
	configure(&f->host.config, &ca, "far", NULL, false, 86400);
	configure(&n->host.config, &ca, "near", NULL, false, 86400);
	far_end_listen(f);
	near_end_dial(n, f->address, "run/out");
	CU_ASSERT_TRUE_FATAL(wait_for(&n->sender.up, WAIT_MS));
	for (i = 1; i <= 100; i++)
		CU_ASSERT_EQUAL(send_and_wait(&n->sender, i, LARGE), DB_OK);
	AWAIT(atomic_load(&f->receiver.count) == 100);
	near_end_close(n);
	far_end_close(f);
	identity_free(&ca);
	free(f);
	free(n);
}

struct stream {
	struct sender *sender;
	atomic_bool ends;
	unsigned sent;
};

static void *send_on(void *arg)
{
	struct stream *s = arg;
	nng_msg *msg;

	while (!atomic_load(&s->ends) && (msg = link_msg_alloc(LARGE)) != NULL) {
		memset(nng_msg_body(msg), 0, LARGE);
		if (link_push_send(s->sender->link, msg) != DB_OK) {
			nng_msg_free(msg);
			break;
		}
		sem_wait(&s->sender->sent);
		s->sent++;
	}
	return NULL;
}

/* The thread that moves bytes never rests then, but lets others have their turn. */
static void gates_open_and_close_while_bytes_flow(void)
{
	struct identity ca = make_identity(NULL, "ca", NULL, false, 86400);
	struct far_end *f = calloc(1, sizeof(*f));
	struct near_end *n = calloc(1, sizeof(*n));
	struct stream stream = {.sender = &n->sender};
	uint64_t until_ms = clock_mono_ms() + WAIT_MS;
	struct tunnel_gate *gate;
	struct errmsg em = {0};
	unsigned rounds = 0;
	pthread_t thread;

	in_scratch();
	configure(&f->host.config, &ca, "far", NULL, false, 86400);
	configure(&n->host.config, &ca, "near", NULL, false, 86400);
	far_end_listen(f);
	near_end_dial(n, f->address, "run/out");
	CU_ASSERT_TRUE_FATAL(wait_for(&n->sender.up, WAIT_MS));
	CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, send_on, &stream), 0);
	for (; rounds < 500 && clock_mono_ms() < until_ms; rounds++) {
		UNIT_OK(tunnel_dial(&gate, n->host.tunnels, "run/more", f->address, &em), &em);
		tunnel_close(gate);
	}
	CU_ASSERT_EQUAL(rounds, 500);
	atomic_store(&stream.ends, true);
	pthread_join(thread, NULL);
	CU_ASSERT_FALSE(wait_for(&n->sender.down, 0));
	CU_ASSERT_TRUE(stream.sent > 0);
	AWAIT(atomic_load(&f->receiver.count) == stream.sent);
	near_end_close(n);
	far_end_close(f);
	identity_free(&ca);
	free(f);
	free(n);
}

/* Whenever it ends, also between two writes of one message. */
static void a_receiver_that_ends_in_mid_stream_is_let_go_of(void)
{
	struct identity ca = make_identity(NULL, "ca", NULL, false, 86400);
	struct far_end *f = calloc(1, sizeof(*f));
	struct near_end *n = calloc(1, sizeof(*n));
	struct errmsg em = {0};
	nng_msg *msg;
	unsigned round;

	in_scratch();
	configure(&f->host.config, &ca, "far", NULL, false, 86400);
	configure(&n->host.config, &ca, "near", NULL, false, 86400);
	far_end_listen(f);
	near_end_dial(n, f->address, "run/out");
	for (round = 0; round < 20; round++) {
		CU_ASSERT_TRUE_FATAL(wait_for(&n->sender.up, WAIT_MS));
		tunnel_close(f->gate); /* at any moment of what follows */
		while ((msg = numbered(round, LARGE)) != NULL && link_push_send(n->sender.link, msg) == DB_OK)
			CU_ASSERT_TRUE_FATAL(wait_for(&n->sender.sent, WAIT_MS));
		nng_msg_free(msg);
		CU_ASSERT_TRUE_FATAL(wait_for(&n->sender.down, WAIT_MS));
		UNIT_OK(tunnel_listen(&f->gate, f->host.tunnels, f->address, "run/r", &em), &em);
	}
	near_end_close(n);
	far_end_close(f);
	identity_free(&ca);
	free(f);
	free(n);
}

/* ---- who is no member */

static int connect_to(const char *address)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(strchr(address, ':') + 1))};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CU_ASSERT_EQUAL_FATAL(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

/* Whoever dials as config says is not let in, or does not let himself in. */
static void stays_out(const struct far_end *f, const struct cluster_config *config)
{
	struct near_end *n = calloc(1, sizeof(*n));
	struct errmsg em = {0};

	n->host.config = *config;
	/* What its own side would refuse is not what is tested. */
	if (tls_members_create(&n->host.tls, &n->host.config, &em) == DB_OK) {
		tls_members_free(n->host.tls);
		near_end_dial(n, f->address, "run/stranger");
		CU_ASSERT_FALSE(wait_for(&n->sender.up, 300));
		near_end_close(n);
	} else {
		CU_FAIL("the stranger cannot even try");
	}
	free(n);
}

static void strangers_stay_out(void)
{
	struct identity ca = make_identity(NULL, "ca", NULL, false, 86400);
	struct identity other = make_identity(NULL, "ca", NULL, false, 86400); /* of the same name */
	struct far_end *f = calloc(1, sizeof(*f));
	struct near_end *n = calloc(1, sizeof(*n));
	struct cluster_config stranger;

	in_scratch();
	configure(&f->host.config, &ca, "far", NULL, false, 86400);
	configure(&n->host.config, &ca, "near", NULL, false, 86400);
	far_end_listen(f);
	near_end_dial(n, f->address, "run/out");
	CU_ASSERT_TRUE_FATAL(wait_for(&n->sender.up, WAIT_MS));
	configure(&stranger, &other, "stranger", NULL, false, 86400);
	stays_out(f, &stranger); /* believes in another CA */
	CU_ASSERT_EQUAL(send_and_wait(&n->sender, 9, LARGE), DB_OK);
	expect(&f->receiver, 9);
	CU_ASSERT_FALSE(wait_for(&n->sender.down, 0)); /* nobody cut the member's connection */
	near_end_close(n);
	far_end_close(f);
	identity_free(&ca);
	identity_free(&other);
	free(f);
	free(n);
}

/* What a handshake with context ends with at the far end: whether it then talks. */
static bool is_spoken_to(const struct far_end *f, const struct identity *id, int version)
{
	static const uint8_t hello[8] = {0, 'S', 'P', 0, 0, 0x50, 0, 0};
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	int fd = connect_to(f->address);
	uint8_t answer[8];
	bool spoken_to;
	SSL *ssl;

	SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
	SSL_CTX_set_max_proto_version(ctx, version);
	if (id != NULL) {
		CU_ASSERT_EQUAL(SSL_CTX_use_certificate(ctx, id->cert), 1);
		CU_ASSERT_EQUAL(SSL_CTX_use_PrivateKey(ctx, id->key), 1);
	}
	ssl = SSL_new(ctx);
	SSL_set_fd(ssl, fd);
	spoken_to = SSL_connect(ssl) == 1 && SSL_write(ssl, hello, 8) == 8 && SSL_read(ssl, answer, 8) == 8;
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	close(fd);
	return spoken_to;
}

static void only_a_members_certificate_opens_a_gate(void)
{
	struct identity ca = make_identity(NULL, "ca", NULL, false, 86400);
	struct identity other = make_identity(NULL, "ca", NULL, false, 86400);
	struct identity member = make_identity(&ca, "member", "serverAuth,clientAuth", false, 86400);
	struct identity server = make_identity(&ca, "server", "serverAuth", false, 86400);
	struct identity any = make_identity(&ca, "any", NULL, false, 86400);
	struct identity client = make_identity(&ca, "client", "clientAuth", false, 86400);
	struct identity old = make_identity(&ca, "old", NULL, false, -60);
	struct identity false_one = make_identity(&other, "member", NULL, false, 86400);
	struct far_end *f = calloc(1, sizeof(*f));
	int version;

	in_scratch();
	configure(&f->host.config, &ca, "far", NULL, false, 86400);
	far_end_listen(f);
	for (version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
		CU_ASSERT_TRUE(is_spoken_to(f, &member, version));
		CU_ASSERT_TRUE(is_spoken_to(f, &server, version));
		CU_ASSERT_TRUE(is_spoken_to(f, &any, version)); /* it says nothing of what it is for */
		CU_ASSERT_FALSE(is_spoken_to(f, NULL, version));
		CU_ASSERT_FALSE(is_spoken_to(f, &client, version));
		CU_ASSERT_FALSE(is_spoken_to(f, &old, version));
		CU_ASSERT_FALSE(is_spoken_to(f, &false_one, version));
		CU_ASSERT_FALSE(is_spoken_to(f, &other, version));
	}
	CU_ASSERT_FALSE(is_spoken_to(f, &member, TLS1_1_VERSION));
	far_end_close(f);
	identity_free(&ca);
	identity_free(&other);
	identity_free(&member);
	identity_free(&server);
	identity_free(&any);
	identity_free(&client);
	identity_free(&old);
	identity_free(&false_one);
	free(f);
}

/* ---- a peer that takes nothing */

static unsigned open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	CU_ASSERT_PTR_NOT_NULL_FATAL(dir);
	while (readdir(dir) != NULL)
		count++;
	closedir(dir);
	return count;
}

/* A port where nothing is read but what TLS needs. */
static int deaf_port(char address[64])
{
	struct sockaddr_in at = {.sin_family = AF_INET};
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM, 0), small = 4096;

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	CU_ASSERT_EQUAL_FATAL(listen(fd, 1), 0);
	CU_ASSERT_EQUAL(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	snprintf(address, 64, "127.0.0.1:%u", ntohs(at.sin_port));
	return fd;
}

static int connect_file(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
	CU_ASSERT_EQUAL_FATAL(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

/* Writes until nothing has been taken for a while: then the tunnel is full, too. */
static void fill(int fd)
{
	static const uint8_t bytes[4096];
	struct pollfd p = {.fd = fd, .events = POLLOUT};

	while (poll(&p, 1, 200) == 1)
		if (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			CU_ASSERT_EQUAL_FATAL(errno, EAGAIN);
}

/* The peer neither takes what was sent nor hangs up, for as long as it likes; the link is dropped. */
static void a_link_dropped_while_the_peer_takes_nothing_leaves_nothing(void)
{
	struct identity ca = make_identity(NULL, "ca", NULL, false, 86400);
	struct host *far = calloc(1, sizeof(*far)), *near = calloc(1, sizeof(*near));
	struct tunnel_gate *gate;
	struct errmsg em = {0};
	unsigned before;
	char address[64];
	int port, local, net;
	SSL *ssl;

	in_scratch();
	configure(&far->config, &ca, "far", NULL, false, 86400);
	configure(&near->config, &ca, "near", NULL, false, 86400);
	host_open(far); /* for its certificate */
	host_open(near);
	port = deaf_port(address);
	UNIT_OK(tunnel_dial(&gate, near->tunnels, "run/out", address, &em), &em);
	before = open_descriptors();
	local = connect_file("run/out");
	CU_ASSERT_EQUAL(send(local, "hello", 5, 0), 5);
	net = accept(port, NULL, NULL);
	CU_ASSERT_TRUE_FATAL(net >= 0);
	ssl = tls_members_accept(far->tls);
	CU_ASSERT_EQUAL(SSL_set_fd(ssl, net), 1);
	CU_ASSERT_EQUAL_FATAL(SSL_accept(ssl), 1);
	fill(local);
	CU_ASSERT_EQUAL(open_descriptors(), before + 4); /* both ends of both connections */
	close(local);
	AWAIT(open_descriptors() == before + 1); /* ours */
	SSL_free(ssl);
	close(net);
	close(port);
	tunnel_close(gate);
	host_close(near);
	host_close(far);
	identity_free(&ca);
	free(far);
	free(near);
}

/* ---- who does harm */

/* Says a few bytes, or none, and waits to be hung up on. */
static void is_hung_up_on(const char *address, const void *bytes, size_t len)
{
	struct timeval patience = {.tv_sec = WAIT_MS / 1000};
	int fd = connect_to(address);
	uint8_t answer[512];

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	CU_ASSERT_EQUAL(send(fd, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
	errno = 0;
	while (recv(fd, answer, sizeof(answer), 0) > 0)
		CU_ASSERT_NOT_EQUAL(answer[0], 0); /* an alert, perhaps; never NNG's hello */
	CU_ASSERT_NOT_EQUAL(errno, EAGAIN);
	close(fd);
}

/* A first flight, then a reset: the answer cannot be written. That ends a listener of NNG's. */
static void hello_and_gone(const char *address)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl = SSL_new(ctx);
	struct linger reset = {.l_onoff = 1};
	BIO *out = BIO_new(BIO_s_mem());
	int fd = connect_to(address);
	char *bytes;
	long len;

	SSL_set_bio(ssl, BIO_new(BIO_s_mem()), out);
	SSL_connect(ssl);
	len = BIO_get_mem_data(out, &bytes);
	CU_ASSERT_TRUE(len > 0);
	send(fd, bytes, (size_t)len, MSG_NOSIGNAL);
	shutdown(fd, SHUT_WR);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
}

static void attacks_cost_the_members_nothing(void)
{
	static const uint8_t plain[8] = {0, 'S', 'P', 0, 0, 0x50, 0, 0};
	static const uint8_t noise[64] = {22, 3, 1, 255, 255, 1};
	struct identity ca = make_identity(NULL, "ca", NULL, false, 86400);
	struct far_end *f = calloc(1, sizeof(*f));
	struct near_end *first = calloc(1, sizeof(*first)), *second = calloc(1, sizeof(*second));
	int silent[200];
	size_t i;

	in_scratch();
	configure(&f->host.config, &ca, "far", NULL, false, 86400);
	configure(&first->host.config, &ca, "near", NULL, false, 86400);
	second->host.config = first->host.config;
	far_end_listen(f);
	near_end_dial(first, f->address, "run/out");
	CU_ASSERT_TRUE_FATAL(wait_for(&first->sender.up, WAIT_MS));
	for (i = 0; i < 200; i++)
		silent[i] = connect_to(f->address);
	for (i = 0; i < 20; i++) {
		is_hung_up_on(f->address, plain, sizeof(plain));
		is_hung_up_on(f->address, "GET / HTTP/1.1\r\n\r\n", 18);
		is_hung_up_on(f->address, noise, sizeof(noise));
		hello_and_gone(f->address);
		CU_ASSERT_FALSE(is_spoken_to(f, NULL, TLS1_3_VERSION));
	}
	near_end_dial(second, f->address, "run/second"); /* finds room */
	CU_ASSERT_TRUE_FATAL(wait_for(&second->sender.up, WAIT_MS));
	CU_ASSERT_EQUAL(send_and_wait(&second->sender, 5, LARGE), DB_OK);
	expect(&f->receiver, 5);
	CU_ASSERT_FALSE(wait_for(&first->sender.down, 1000)); /* longer than it takes to replace a dead listener */
	CU_ASSERT_EQUAL(send_and_wait(&first->sender, 6, LARGE), DB_OK);
	expect(&f->receiver, 6);
	for (i = 0; i < 200; i++)
		close(silent[i]);
	near_end_close(first);
	near_end_close(second);
	far_end_close(f);
	identity_free(&ca);
	free(f);
	free(first);
	free(second);
}

/* ---- without a CA, and new files */

static void without_a_ca_the_one_certificate_is_what_counts(void)
{
	struct identity ca = make_identity(NULL, "ca", NULL, false, 86400);
	struct identity sibling = make_identity(&ca, "far", NULL, false, 86400); /* of the same CA and name */
	struct far_end *f = calloc(1, sizeof(*f));
	struct near_end *n = calloc(1, sizeof(*n));
	struct cluster_config *config = &f->host.config;

	in_scratch();
	configure(config, &ca, "far", NULL, false, 86400);
	config->tls.ca_file[0] = '\0';
	n->host.config = *config;
	far_end_listen(f);
	near_end_dial(n, f->address, "run/out");
	CU_ASSERT_TRUE_FATAL(wait_for(&n->sender.up, WAIT_MS));
	CU_ASSERT_FALSE(is_spoken_to(f, &sibling, TLS1_3_VERSION));
	near_end_close(n);
	far_end_close(f);
	identity_free(&ca);
	identity_free(&sibling);
	free(f);
	free(n);
}

static void new_files_count_for_new_connections(void)
{
	struct identity ca = make_identity(NULL, "ca", NULL, false, 86400);
	struct identity next = make_identity(NULL, "next", NULL, false, 86400);
	struct identity member = make_identity(&ca, "member", NULL, false, 86400);
	struct identity later = make_identity(&next, "member", NULL, false, 86400);
	struct far_end *f = calloc(1, sizeof(*f));
	struct near_end *n = calloc(1, sizeof(*n));
	struct errmsg em = {0};

	in_scratch();
	configure(&f->host.config, &ca, "far", NULL, false, 86400);
	configure(&n->host.config, &ca, "near", NULL, false, 86400);
	far_end_listen(f);
	near_end_dial(n, f->address, "run/out");
	CU_ASSERT_TRUE_FATAL(wait_for(&n->sender.up, WAIT_MS));
	write_key(&member, "far.key"); /* does not fit the certificate */
	CU_ASSERT_EQUAL(tls_members_reload(f->host.tls, &f->host.config, &em), DB_INVALID);
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, "tls.key_file"));
	CU_ASSERT_EQUAL(unlink("far.key"), 0);
	CU_ASSERT_EQUAL(tls_members_reload(f->host.tls, &f->host.config, &em), DB_NOTFOUND);
	CU_ASSERT_TRUE(is_spoken_to(f, &member, TLS1_3_VERSION)); /* as before */
	configure(&f->host.config, &next, "far", NULL, false, 86400);
	UNIT_OK(tls_members_reload(f->host.tls, &f->host.config, &em), &em);
	CU_ASSERT_FALSE(is_spoken_to(f, &member, TLS1_3_VERSION));
	CU_ASSERT_TRUE(is_spoken_to(f, &later, TLS1_3_VERSION));
	CU_ASSERT_EQUAL(send_and_wait(&n->sender, 3, 4), DB_OK); /* what was there goes on */
	expect(&f->receiver, 3);
	near_end_close(n);
	far_end_close(f);
	identity_free(&ca);
	identity_free(&next);
	identity_free(&member);
	identity_free(&later);
	free(f);
	free(n);
}

static void a_certificate_that_members_would_not_take_is_refused(void)
{
	struct identity ca = make_identity(NULL, "ca", NULL, false, 86400);
	struct identity other = make_identity(NULL, "other", NULL, false, 86400);
	struct cluster_config *config = calloc(1, sizeof(*config));
	struct tls_members *t = NULL;
	struct errmsg em = {0};

	in_scratch();
	configure(config, &ca, "far", "clientAuth", false, 86400);
	CU_ASSERT_EQUAL(tls_members_create(&t, config, &em), DB_INVALID);
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, "member"));
	configure(config, &ca, "far", NULL, false, 86400);
	write_cert(&other, "far.ca");
	CU_ASSERT_EQUAL(tls_members_create(&t, config, &em), DB_INVALID);
	CU_ASSERT_EQUAL(unlink("far.ca"), 0);
	CU_ASSERT_EQUAL(tls_members_create(&t, config, &em), DB_NOTFOUND);
	CU_ASSERT_PTR_NULL(t);
	identity_free(&ca);
	identity_free(&other);
	free(config);
}

/* ---- gates */

static void gates_that_cannot_be_are_refused_in_words(void)
{
	static const char *const bad[] = {"",       "x", "127.0.0.1", "db.example.org:80", ":80", "127.0.0.1:http",
					  "[::1:80"};
	struct identity ca = make_identity(NULL, "ca", NULL, false, 86400);
	struct far_end *f = calloc(1, sizeof(*f));
	struct tunnel_gate *gate;
	struct errmsg em = {0};
	char path[200];
	size_t i;

	in_scratch();
	configure(&f->host.config, &ca, "far", NULL, false, 86400);
	far_end_listen(f);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CU_ASSERT_EQUAL(tunnel_dial(&gate, f->host.tunnels, "run/out", bad[i], &em), DB_INVALID);
		CU_ASSERT_PTR_NULL(gate);
		CU_ASSERT_NOT_EQUAL(access("run/out", F_OK), 0);
	}
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	CU_ASSERT_EQUAL(tunnel_dial(&gate, f->host.tunnels, path, f->address, &em), DB_INVALID);
	CU_ASSERT_EQUAL(tunnel_listen(&gate, f->host.tunnels, f->address, "run/r", &em), DB_BUSY);
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, f->address));
	CU_ASSERT_EQUAL(tunnel_dial(&gate, f->host.tunnels, "run/r", f->address, &em), DB_BUSY); /* NNG has it */
	CU_ASSERT_EQUAL(tunnel_dial(&gate, f->host.tunnels, "nowhere/x", f->address, &em), DB_NOTFOUND);
	far_end_close(f);
	identity_free(&ca);
	free(f);
}

/* ---- the mesh */

static uint16_t free_port(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET};
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	CU_ASSERT_EQUAL(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	close(fd);
	return ntohs(at.sin_port);
}

struct talker {
	sem_t up;
	atomic_uint left; /* messages to send */
};

static nng_msg *talk(void *arg)
{
	struct talker *t = arg;
	unsigned left = atomic_load(&t->left);

	return left > 0 && atomic_compare_exchange_strong(&t->left, &left, left - 1) ? numbered(left, 64) : NULL;
}

static void talker_connected(void *arg, bool connected)
{
	struct talker *t = arg;

	if (connected)
		sem_post(&t->up);
}

/* node1 talks to node2, both of this process, as config says. */
static void members_talk(const struct cluster_config *config)
{
	struct talker talker = {.left = 50};
	const struct pump_owner owner = {talk, talker_connected, &talker};
	struct mesh *one, *two;
	struct mesh_way *way;
	struct pump *pump;
	struct receiver r;
	struct errmsg em = {0};
	char address[64];

	memset(&r, 0, sizeof(r));
	sem_init(&r.got, 0, 0);
	sem_init(&talker.up, 0, 0);
	atomic_store(&r.whole, true);
	UNIT_OK(mesh_create(&one, config, 1, &em), &em);
	UNIT_OK(mesh_create(&two, config, 2, &em), &em);
	CU_ASSERT_PTR_NOT_NULL_FATAL(one);
	CU_ASSERT_PTR_NOT_NULL_FATAL(two);
	snprintf(address, sizeof(address), "127.0.0.1:%u", free_port());
	UNIT_OK(mesh_listen(&r.link, two, CONFIG_REPLICATION, address, on_message, &r, &em), &em);
	CU_ASSERT_PTR_NOT_NULL_FATAL(r.link);
	UNIT_OK(mesh_way_open(&way, &pump, one, "node2", CONFIG_REPLICATION, address, &owner, &em), &em);
	CU_ASSERT_PTR_NOT_NULL_FATAL(way);
	CU_ASSERT_TRUE_FATAL(wait_for(&talker.up, WAIT_MS));
	AWAIT(atomic_load(&r.count) == 50);
	CU_ASSERT_EQUAL(atomic_load(&r.last), 1);
	mesh_way_close(way);
	receiver_close(&r);
	mesh_free(one);
	mesh_free(two);
	sem_destroy(&talker.up);
}

static void a_mesh_works_in_each_form(void)
{
	struct identity ca = make_identity(NULL, "ca", NULL, false, 86400);
	struct cluster_config *config = calloc(1, sizeof(*config));

	in_scratch();
	config_init(config);
	members_talk(config);
	config->replication.local = REPLICATION_TCP;
	members_talk(config);
	configure(config, &ca, "node", NULL, false, 86400);
	members_talk(config);
	config->replication.local = REPLICATION_TCP;
	members_talk(config);
	identity_free(&ca);
	free(config);
}

static void a_mesh_knows_nodes_only(void)
{
	static const char *const bad[] = {"",       "node",   "node0", "node32",   "node01",
					  "node1x", "node 1", "../x",  "node99999"};
	const struct pump_owner owner = {talk, talker_connected, NULL};
	struct cluster_config *config = calloc(1, sizeof(*config));
	struct mesh_way *way;
	struct mesh *mesh;
	struct pump *pump;
	struct errmsg em = {0};
	size_t i;

	in_scratch();
	config_init(config);
	UNIT_OK(mesh_create(&mesh, config, 1, &em), &em);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CU_ASSERT_EQUAL(mesh_way_open(&way, &pump, mesh, bad[i], CONFIG_ACKS, "127.0.0.1:1", &owner, &em),
				DB_INVALID);
		CU_ASSERT_PTR_NULL(way);
	}
	CU_ASSERT_EQUAL(mesh_way_open(&way, &pump, mesh, "node2", CONFIG_ACKS, "127.0.0.1", &owner, &em), DB_INVALID);
	mesh_free(mesh);
	free(config);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"a receiver hears a file and a port", a_receiver_hears_a_file_and_a_port},
	    {"an address in use leaves the other one", an_address_in_use_leaves_the_other_one},
	    {"the file is taken while it is there", the_file_is_taken_while_it_is_there},
	    {"a file that appears while connecting is preferred", a_file_that_appears_while_connecting_is_preferred},
	    {"messages pass whole and in order", messages_pass_whole_and_in_order},
	    {"messages pass under RSA keys", messages_pass_under_rsa_keys},
	    {"a stream passes and back-pressure holds it", a_stream_passes_and_back_pressure_holds_it},
	    {"a server's certificate is enough to dial with", a_servers_certificate_is_enough_to_dial_with},
	    {"gates open and close while bytes flow", gates_open_and_close_while_bytes_flow},
	    {"a receiver that ends in mid-stream is let go of", a_receiver_that_ends_in_mid_stream_is_let_go_of},
	    {"a link dropped while the peer takes nothing leaves nothing",
	     a_link_dropped_while_the_peer_takes_nothing_leaves_nothing},
	    {"strangers stay out", strangers_stay_out},
	    {"only a member's certificate opens a gate", only_a_members_certificate_opens_a_gate},
	    {"attacks cost the members nothing", attacks_cost_the_members_nothing},
	    {"without a CA the one certificate is what counts", without_a_ca_the_one_certificate_is_what_counts},
	    {"new files count for new connections", new_files_count_for_new_connections},
	    {"a certificate that members would not take is refused",
	     a_certificate_that_members_would_not_take_is_refused},
	    {"gates that cannot be are refused in words", gates_that_cannot_be_are_refused_in_words},
	    {"a mesh works in each form", a_mesh_works_in_each_form},
	    {"a mesh knows nodes only", a_mesh_knows_nodes_only},
	    {NULL, NULL},
	};

	return unit_run("mesh", tests);
}

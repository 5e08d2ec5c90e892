/*
 * tls_cost.c - what OpenSSL alone takes for a request and its answer, on both ends together: two connections' states in
 * this process, nothing between them but memory, nothing else to do. HTTPS cannot cost less. One JSON line.
 *
 * Usage: tls_cost --cert-file F --key-file F --request-bytes N --answer-bytes N. The server's end is made as the server
 * makes it. Exit: 0 ran, 1 failed, 2 usage.
 */
#include <getopt.h>
#include <inttypes.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/auth/tls.h"
#include "common/base/clock.h"

#define EXCHANGES     100000
#define BYTES_MAX     16384 /* a record */
#define PAIR_BYTES    32768
#define HANDSHAKE_MAX 10 /* turns, of two or three */

struct ends {
	SSL *server, *client;
	char bytes[BYTES_MAX], got[BYTES_MAX];
};

static bool failed(const char *doing)
{
	fprintf(stderr, "tls_cost: %s: %s\n", doing, ERR_error_string(ERR_get_error(), NULL));
	return false;
}

static bool open_ends(struct ends *e, struct tls_server *server, SSL_CTX *client)
{
	BIO *near = NULL, *far = NULL;

	e->server = tls_server_accept(server);
	e->client = SSL_new(client);
	if (e->server == NULL || e->client == NULL || BIO_new_bio_pair(&near, PAIR_BYTES, &far, PAIR_BYTES) != 1)
		return failed("making the ends");
	SSL_set_bio(e->server, near, near);
	SSL_set_bio(e->client, far, far);
	SSL_set_accept_state(e->server);
	SSL_set_connect_state(e->client);
	for (int i = 0; i < HANDSHAKE_MAX && !(SSL_is_init_finished(e->server) && SSL_is_init_finished(e->client));
	     i++) {
		SSL_do_handshake(e->client);
		SSL_do_handshake(e->server);
	}
	ERR_clear_error(); /* of the turns that waited for the other end */
	return (SSL_is_init_finished(e->server) && SSL_is_init_finished(e->client)) || failed("handshake");
}

static bool pass(struct ends *e, SSL *from, SSL *to, int len)
{
	return SSL_write(from, e->bytes, len) == len && SSL_read(to, e->got, BYTES_MAX) == len;
}

static bool measure(struct ends *e, int request_bytes, int answer_bytes)
{
	uint64_t begun_us = clock_mono_us();

	for (int i = 0; i < EXCHANGES; i++)
		if (!pass(e, e->client, e->server, request_bytes) || !pass(e, e->server, e->client, answer_bytes))
			return failed("a record");
	printf("{\"cipher\":\"%s\",\"request_bytes\":%d,\"answer_bytes\":%d,\"exchange_us\":%.2f}\n",
	       SSL_get_cipher(e->client), request_bytes, answer_bytes,
	       (double)(clock_mono_us() - begun_us) / EXCHANGES);
	return true;
}

static bool run(const struct cluster_config *config, int request_bytes, int answer_bytes)
{
	SSL_CTX *client = SSL_CTX_new(TLS_client_method());
	struct ends *e = calloc(1, sizeof(*e));
	struct tls_server *server = NULL;
	struct errmsg em = {0};
	bool ok = false;

	if (client == NULL || e == NULL)
		failed("memory");
	else if (tls_server_create(&server, config, &em) != DB_OK)
		fprintf(stderr, "tls_cost: %s\n", em.text);
	else
		ok = open_ends(e, server, client) && measure(e, request_bytes, answer_bytes);
	if (e != NULL) {
		SSL_free(e->client);
		SSL_free(e->server);
	}
	free(e);
	tls_server_free(server);
	SSL_CTX_free(client);
	return ok;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"cert-file", required_argument, NULL, 'c'},
						{"key-file", required_argument, NULL, 'k'},
						{"request-bytes", required_argument, NULL, 'r'},
						{"answer-bytes", required_argument, NULL, 'a'},
						{NULL, 0, NULL, 0}};
	struct cluster_config config;
	int request_bytes = 0, answer_bytes = 0, c;

	config_init(&config);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'c')
			snprintf(config.tls.cert_file, sizeof(config.tls.cert_file), "%s", optarg);
		else if (c == 'k')
			snprintf(config.tls.key_file, sizeof(config.tls.key_file), "%s", optarg);
		else if (c == 'r')
			request_bytes = atoi(optarg);
		else if (c == 'a')
			answer_bytes = atoi(optarg);
		else
			return 2;
	}
	if (config.tls.cert_file[0] == '\0' || config.tls.key_file[0] == '\0' || request_bytes < 1 ||
	    request_bytes > BYTES_MAX || answer_bytes < 1 || answer_bytes > BYTES_MAX) {
		fputs("usage: tls_cost --cert-file F --key-file F --request-bytes N --answer-bytes N\n", stderr);
		return 2;
	}
	return run(&config, request_bytes, answer_bytes) ? 0 : 1;
}

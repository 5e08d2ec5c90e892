/*
 * load.c - a lean HTTP/1.1 load generator: N keep-alive connections on one thread, each with one request in flight.
 *
 * It shares the machine with the server it measures, so what it burns is stolen from the figure: prebuilt request bytes
 * with numbers patched in, one send and one receive a request, no allocation once it runs. Prints one JSON line.
 *
 * With --ca-file it speaks TLS, and takes no server that this CA has not signed for that address.
 *
 * A connection that breaks is made again at once and counted; a refused one is counted apart, because a client of the
 * cluster must never see one. Requests that break off are counted, not repeated.
 *
 * Exit: 0 when it ran, whatever was answered (the counts tell); 1 when it could not run; 2 bad usage.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "common/base/clock.h"
#include "tests/bench/hist.h"
#include "tests/bench/http1.h"
#include "tests/bench/template.h"

#define RECEIVE_BYTES_FIRST ((size_t)4096)
#define RECEIVE_BYTES_MAX   ((size_t)256 << 20)
#define CONNECTIONS_MAX     4096
#define EVENTS_MAX          256

struct options {
	const char *address;
	const char *path;
	const char *body;
	const char *expect;  /* must be in every answer's body; NULL: not looked at */
	const char *ca_file; /* NULL: no TLS */
	char *token;         /* NULL: none */
	char *body_loaded;   /* owns body when it came from a file */
	unsigned connections;
	uint64_t duration_ms;
	uint64_t warmup_ms;
	uint64_t ids;
	uint64_t first_sequence;
	uint64_t requests_max; /* 0: until the time is over */
};

struct connection {
	int fd;
	SSL *tls;         /* NULL: none */
	bool dry;         /* the socket had nothing more when it was asked last */
	bool is_answered; /* the next request is due */
	uint64_t sent_us;
	char *in; /* what was received of the answer */
	size_t in_len, in_size;
	char *rest; /* what did not fit into the socket; NULL: all was sent */
	size_t rest_len, rest_pos;
};

struct load {
	const struct options *options;
	struct template *template;
	struct connection *connections;
	SSL_CTX *tls; /* NULL: none */
	int epoll_fd;
	bool measuring;
	struct hist latency;
	uint64_t requests; /* answered as expected while measuring */
	uint64_t sent;
	uint64_t bad_status, unexpected, broken, refused;
	int last_bad_status;
	size_t answer_len; /* of the last good answer */
	char first_bad[256];
};

/* ---- TLS */

static bool tls_failed(const char *doing)
{
	fprintf(stderr, "load: %s: %s\n", doing, ERR_error_string(ERR_get_error(), NULL));
	return false;
}

static bool tls_prepare(struct load *l)
{
	if (l->options->ca_file == NULL)
		return true;
	l->tls = SSL_CTX_new(TLS_client_method());
	if (l->tls == NULL || SSL_CTX_load_verify_locations(l->tls, l->options->ca_file, NULL) != 1)
		return tls_failed(l->options->ca_file);
	SSL_CTX_set_verify(l->tls, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_read_ahead(l->tls, 1); /* one receive a record, as without TLS one an answer */
	SSL_CTX_set_mode(l->tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	return true;
}

/* Shakes hands on the socket, which blocks still. */
static bool tls_open(struct load *l, struct connection *c)
{
	char host[64];

	if (l->tls == NULL)
		return true;
	snprintf(host, sizeof host, "%.*s", (int)(strrchr(l->options->address, ':') - l->options->address),
		 l->options->address);
	c->tls = SSL_new(l->tls);
	if (c->tls == NULL || X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(c->tls), host) != 1 ||
	    SSL_set_fd(c->tls, c->fd) != 1 || SSL_connect(c->tls) != 1)
		return tls_failed("TLS handshake");
	return true;
}

/* As send() and recv() say it: -1 with errno, EAGAIN for later. */
static ssize_t tls_result(const struct connection *c, int n)
{
	int why = n > 0 ? SSL_ERROR_NONE : SSL_get_error(c->tls, n);

	if (why == SSL_ERROR_NONE)
		return n;
	ERR_clear_error();
	if (why == SSL_ERROR_ZERO_RETURN)
		return 0;
	errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
	return -1;
}

static ssize_t bytes_send(const struct connection *c, const char *bytes, size_t len)
{
	if (c->tls == NULL)
		return send(c->fd, bytes, len, MSG_NOSIGNAL);
	return tls_result(c, SSL_write(c->tls, bytes, (int)len));
}

static ssize_t bytes_receive(const struct connection *c, char *bytes, size_t size)
{
	if (c->tls == NULL)
		return recv(c->fd, bytes, size, 0);
	return tls_result(c, SSL_read(c->tls, bytes, (int)size));
}

/* ---- connections */

static bool connection_open(struct load *l, struct connection *c)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
	int flags;

	for (;;) {
		c->fd = http1_connect(l->options->address);
		if (c->fd >= 0)
			break;
		if (errno != ECONNREFUSED) {
			fprintf(stderr, "load: cannot connect to %s: %s\n", l->options->address, strerror(errno));
			return false;
		}
		if (++l->refused > 1000) {
			fprintf(stderr, "load: %s keeps refusing connections\n", l->options->address);
			return false;
		}
		usleep(1000);
	}
	if (!tls_open(l, c))
		return false;
	flags = fcntl(c->fd, F_GETFL);
	if (flags < 0 || fcntl(c->fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
	    epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) != 0) {
		fprintf(stderr, "load: %s\n", strerror(errno));
		return false;
	}
	c->in_len = 0;
	return true;
}

static bool connection_watch(struct load *l, struct connection *c, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = c};

	return epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, c->fd, &ev) == 0;
}

/* Keeps what the socket did not take; only requests larger than its buffer come here. */
static bool keep_rest(struct load *l, struct connection *c, const char *bytes, size_t len)
{
	c->rest = malloc(len);
	if (c->rest == NULL)
		return false;
	memcpy(c->rest, bytes, len);
	c->rest_len = len;
	c->rest_pos = 0;
	return connection_watch(l, c, EPOLLIN | EPOLLOUT);
}

static bool connection_send_next(struct load *l, struct connection *c)
{
	size_t len;
	const char *bytes = template_next(l->template, &len);
	ssize_t n;

	c->is_answered = false;
	l->sent++;
	c->sent_us = clock_mono_us();
	n = bytes_send(c, bytes, len);
	if (n == (ssize_t)len)
		return true;
	if (n < 0 && errno != EAGAIN)
		return true; /* the break shows at the next receive */
	return keep_rest(l, c, bytes + (n > 0 ? n : 0), len - (size_t)(n > 0 ? n : 0));
}

static bool connection_send_rest(struct load *l, struct connection *c)
{
	ssize_t n = bytes_send(c, c->rest + c->rest_pos, c->rest_len - c->rest_pos);

	if (n < 0)
		return true; /* EAGAIN: later; a break shows at the next receive */
	c->rest_pos += (size_t)n;
	if (c->rest_pos < c->rest_len)
		return true;
	free(c->rest);
	c->rest = NULL;
	return connection_watch(l, c, EPOLLIN);
}

static void connection_close(struct connection *c)
{
	SSL_free(c->tls);
	c->tls = NULL;
	close(c->fd);
	c->fd = -1;
	c->in_len = 0;
	free(c->rest);
	c->rest = NULL;
}

static bool connection_again(struct load *l, struct connection *c)
{
	connection_close(c);
	return connection_open(l, c) && connection_send_next(l, c);
}

static void note_bad(struct load *l, const char *body, size_t len)
{
	if (l->first_bad[0] == '\0')
		snprintf(l->first_bad, sizeof l->first_bad, "%.*s", (int)(len < 250 ? len : 250), body);
}

static void count_answer(struct load *l, const struct connection *c, const struct http1_answer *a)
{
	const char *body = c->in + a->head_len;
	size_t body_len = a->len - a->head_len;
	const char *expect = l->options->expect;

	if (!l->measuring)
		return;
	if (a->status != 200) {
		l->bad_status++;
		l->last_bad_status = a->status;
		note_bad(l, body, body_len);
	} else if (expect != NULL && memmem(body, body_len, expect, strlen(expect)) == NULL) {
		l->unexpected++;
		note_bad(l, body, body_len);
	} else {
		l->requests++;
		l->answer_len = a->len;
		hist_add(&l->latency, clock_mono_us() - c->sent_us);
	}
}

static bool grow(struct connection *c)
{
	size_t size = c->in_size > 0 ? c->in_size * 2 : RECEIVE_BYTES_FIRST;
	char *in = size <= RECEIVE_BYTES_MAX ? realloc(c->in, size) : NULL;

	if (in == NULL) {
		fprintf(stderr, "load: an answer does not fit into memory\n");
		return false;
	}
	c->in = in;
	c->in_size = size;
	return true;
}

static bool connection_receive(struct load *l, struct connection *c)
{
	struct http1_answer answer;
	ssize_t n;

	if (c->in_len == c->in_size && !grow(c))
		return false;
	n = bytes_receive(c, c->in + c->in_len, c->in_size - c->in_len);
	c->dry = n < 0 && errno == EAGAIN;
	if (c->dry)
		return true;
	if (n <= 0) {
		l->broken++;
		return connection_again(l, c);
	}
	c->in_len += (size_t)n;
	switch (http1_parse(c->in, c->in_len, &answer)) {
	case HTTP1_MORE:
		return true;
	case HTTP1_BAD:
		fprintf(stderr, "load: the server does not speak HTTP/1.1\n");
		return false;
	case HTTP1_WHOLE:
		break;
	}
	count_answer(l, c, &answer);
	c->in_len = 0;
	if (answer.close)
		return connection_again(l, c);
	c->is_answered = true;
	return true;
}

/* The answers that came together are all read before the next requests are sent. */
static bool turn(struct load *l)
{
	struct epoll_event events[EVENTS_MAX];
	int n = epoll_wait(l->epoll_fd, events, EVENTS_MAX, 100);

	for (int i = 0; i < n; i++) {
		struct connection *c = events[i].data.ptr;

		if ((events[i].events & EPOLLOUT) != 0 && c->rest != NULL && !connection_send_rest(l, c))
			return false;
		if ((events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0)
			continue;
		do { /* what TLS has taken from the socket already wakes nobody */
			if (!connection_receive(l, c))
				return false;
		} while (c->tls != NULL && !c->dry && SSL_has_pending(c->tls) == 1);
	}
	for (int i = 0; i < n; i++) {
		struct connection *c = events[i].data.ptr;

		if (c->is_answered && (l->options->requests_max == 0 || l->sent < l->options->requests_max) &&
		    !connection_send_next(l, c))
			return false;
	}
	return n >= 0 || errno == EINTR;
}

static bool finished(const struct load *l)
{
	uint64_t answered = l->requests + l->bad_status + l->unexpected + l->broken;

	return l->options->requests_max > 0 && answered >= l->options->requests_max;
}

static bool run_until(struct load *l, uint64_t end_us)
{
	while (clock_mono_us() < end_us && !finished(l)) {
		if (!turn(l))
			return false;
	}
	return true;
}

static uint64_t cpu_us(void)
{
	struct rusage u;

	if (getrusage(RUSAGE_SELF, &u) != 0)
		return 0;
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
	       (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void print_json_text(const char *s)
{
	putchar('"');
	for (; *s != '\0'; s++) {
		if (*s == '"' || *s == '\\')
			printf("\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			printf("\\u%04x", *s);
		else
			putchar(*s);
	}
	putchar('"');
}

static void report(const struct load *l, uint64_t elapsed_us, uint64_t cpu)
{
	double seconds = (double)elapsed_us / 1e6;

	printf("{\"connections\":%u,\"seconds\":%.3f,\"requests\":%" PRIu64 ",\"rate\":%.1f,", l->options->connections,
	       seconds, l->requests, (double)l->requests / seconds);
	hist_print_json(&l->latency, "", stdout);
	printf(",\"bad_status\":%" PRIu64 ",\"last_bad_status\":%d,\"unexpected\":%" PRIu64 ",\"broken\":%" PRIu64
	       ",\"refused\":%" PRIu64 ",\"sent\":%" PRIu64 ",\"answer_bytes\":%zu,\"next_sequence\":%" PRIu64
	       ",\"client_cpu_us_per_request\":%.2f,\"first_bad\":",
	       l->bad_status, l->last_bad_status, l->unexpected, l->broken, l->refused, l->sent, l->answer_len,
	       template_sequence(l->template), l->requests > 0 ? (double)cpu / (double)l->requests : 0.0);
	print_json_text(l->first_bad);
	puts("}");
}

static bool load_run(struct load *l)
{
	uint64_t start_us, cpu_before;

	for (unsigned i = 0; i < l->options->connections; i++) {
		if (!connection_open(l, &l->connections[i]) || !connection_send_next(l, &l->connections[i]))
			return false;
	}
	l->measuring = l->options->warmup_ms == 0;
	if (!l->measuring && !run_until(l, clock_mono_us() + l->options->warmup_ms * 1000))
		return false;
	l->measuring = true;
	cpu_before = cpu_us();
	start_us = clock_mono_us();
	if (!run_until(l, start_us + l->options->duration_ms * 1000))
		return false;
	report(l, clock_mono_us() - start_us, cpu_us() - cpu_before);
	return true;
}

static char *read_file(const char *path)
{
	FILE *f = fopen(path, "re");
	char *text = NULL;
	size_t size = 0;
	ssize_t n;

	if (f == NULL)
		return NULL;
	n = getdelim(&text, &size, '\0', f);
	fclose(f);
	if (n < 0) {
		free(text);
		return NULL;
	}
	return text;
}

static int usage(void)
{
	fputs("usage: load --address HOST:PORT --body JSON|--body-file F [--token-file F] [--connections N]\n"
	      "            [--duration-ms N] [--warmup-ms N] [--requests N] [--ids N] [--sequence N] [--expect TEXT]\n"
	      "            [--path P] [--ca-file F]\n"
	      "In the body %r is a random number in 1..ids, %s the next of a sequence.\n",
	      stderr);
	return 2;
}

static bool parse(struct options *o, int argc, char **argv)
{
	static const struct option table[] = {
	    {"address", required_argument, NULL, 'a'},     {"path", required_argument, NULL, 'p'},
	    {"body", required_argument, NULL, 'b'},        {"body-file", required_argument, NULL, 'B'},
	    {"expect", required_argument, NULL, 'e'},      {"token-file", required_argument, NULL, 't'},
	    {"connections", required_argument, NULL, 'c'}, {"duration-ms", required_argument, NULL, 'd'},
	    {"warmup-ms", required_argument, NULL, 'w'},   {"ids", required_argument, NULL, 'i'},
	    {"sequence", required_argument, NULL, 's'},    {"requests", required_argument, NULL, 'n'},
	    {"ca-file", required_argument, NULL, 'C'},     {NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
		switch (c) {
		case 'a':
			o->address = optarg;
			break;
		case 'p':
			o->path = optarg;
			break;
		case 'b':
			o->body = optarg;
			break;
		case 'B':
			free(o->body_loaded);
			o->body = o->body_loaded = read_file(optarg);
			break;
		case 'e':
			o->expect = optarg;
			break;
		case 't':
			free(o->token);
			o->token = http1_read_token(optarg);
			if (o->token == NULL) {
				fprintf(stderr, "load: cannot read \"%s\": %s\n", optarg, strerror(errno));
				return false;
			}
			break;
		case 'c':
			o->connections = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'd':
			o->duration_ms = strtoull(optarg, NULL, 10);
			break;
		case 'w':
			o->warmup_ms = strtoull(optarg, NULL, 10);
			break;
		case 'i':
			o->ids = strtoull(optarg, NULL, 10);
			break;
		case 's':
			o->first_sequence = strtoull(optarg, NULL, 10);
			break;
		case 'C':
			o->ca_file = optarg;
			break;
		case 'n':
			o->requests_max = strtoull(optarg, NULL, 10);
			break;
		default:
			return false;
		}
	}
	return o->address != NULL && o->body != NULL && o->connections >= 1 && o->connections <= CONNECTIONS_MAX &&
	       optind == argc;
}

int main(int argc, char **argv)
{
	struct options options = {
	    .path = "/query", .connections = 1, .duration_ms = 3000, .warmup_ms = 300, .ids = 1, .first_sequence = 1};
	struct load l = {.options = &options, .epoll_fd = -1};
	int status = 1;

	if (!parse(&options, argc, argv)) {
		status = usage();
		goto free_options;
	}
	if (options.requests_max > 0)
		options.warmup_ms = 0; /* every request counts */
	hist_init(&l.latency);
	l.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	l.connections = calloc(options.connections, sizeof *l.connections);
	l.template = template_create(options.address, options.path, options.token, options.body, options.ids,
				     options.first_sequence);
	if (l.epoll_fd < 0 || l.connections == NULL || l.template == NULL) {
		fprintf(stderr, "load: %s\n", strerror(errno));
		goto free_load;
	}
	for (unsigned i = 0; i < options.connections; i++)
		l.connections[i].fd = -1;
	status = tls_prepare(&l) && load_run(&l) ? 0 : 1;
	for (unsigned i = 0; i < options.connections; i++) {
		if (l.connections[i].fd >= 0)
			connection_close(&l.connections[i]);
		free(l.connections[i].in);
	}
free_load:
	SSL_CTX_free(l.tls);
	template_free(l.template);
	free(l.connections);
	if (l.epoll_fd >= 0)
		close(l.epoll_fd);
free_options:
	free(options.token);
	free(options.body_loaded);
	return status;
}

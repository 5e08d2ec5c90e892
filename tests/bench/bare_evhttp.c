/*
 * bare_evhttp.c - the yardstick: what libevent's evhttp does when the answer costs nothing.
 *
 * T threads, each with an event_base and an evhttp of its own on one shared listening socket, answer every request with
 * the same JSON of a given size. --changelist gives the bases EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST; the default is what
 * a plain program gets. Prints its port on one line and serves until it is killed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/thread.h>
#include <getopt.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_BYTES_MIN 24
#define ANSWER_BYTES_MAX ((size_t)1 << 20)
#define THREADS_MAX      64

struct server {
	char *answer; /* outlives every request: sent by reference */
	size_t answer_len;
	int fd;
	bool changelist;
};

static void on_request(struct evhttp_request *req, void *arg)
{
	const struct server *s = arg;
	struct evbuffer *out = evhttp_request_get_output_buffer(req);

	if (evhttp_add_header(evhttp_request_get_output_headers(req), "Content-Type", "application/json") != 0 ||
	    evbuffer_add_reference(out, s->answer, s->answer_len, NULL, NULL) != 0) {
		evhttp_send_error(req, HTTP_INTERNAL, NULL);
		return;
	}
	evhttp_send_reply(req, HTTP_OK, "OK", NULL);
}

static void *serve(void *arg)
{
	struct server *s = arg;
	struct event_config *config = event_config_new();
	struct event_base *base;
	struct evhttp *http;

	if (config == NULL)
		return NULL;
	if (s->changelist && event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST) != 0)
		return NULL;
	base = event_base_new_with_config(config);
	event_config_free(config);
	http = base != NULL ? evhttp_new(base) : NULL;
	if (http == NULL || evhttp_accept_socket(http, s->fd) != 0) {
		fprintf(stderr, "bare_evhttp: cannot start a worker\n");
		exit(1);
	}
	evhttp_set_gencb(http, on_request, s);
	event_base_dispatch(base);
	evhttp_free(http);
	event_base_free(base);
	return NULL;
}

static int listen_on(unsigned port, unsigned *bound)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	socklen_t len = sizeof sin;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
	    bind(fd, (struct sockaddr *)&sin, sizeof sin) != 0 || listen(fd, 512) != 0 ||
	    getsockname(fd, (struct sockaddr *)&sin, &len) != 0) {
		close(fd);
		return -1;
	}
	*bound = ntohs(sin.sin_port);
	return fd;
}

/* {"status":"ok","x":"aaaa…"} of exactly len bytes. */
static char *make_answer(size_t len)
{
	static const char head[] = "{\"status\":\"ok\",\"x\":\"";
	char *a = malloc(len + 1);

	if (a == NULL)
		return NULL;
	memset(a, 'a', len);
	memcpy(a, head, sizeof head - 1);
	memcpy(a + len - 3, "\"}\n", 3);
	a[len] = '\0';
	return a;
}

int main(int argc, char **argv)
{
	static const struct option table[] = {
	    {"port", required_argument, NULL, 'p'},
	    {"threads", required_argument, NULL, 't'},
	    {"size", required_argument, NULL, 's'},
	    {"changelist", no_argument, NULL, 'c'},
	    {NULL, 0, NULL, 0},
	};
	struct server s = {.answer_len = 128};
	unsigned port = 0, threads = 2;
	pthread_t thread;
	int c;

	while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
		if (c == 'p')
			port = (unsigned)strtoul(optarg, NULL, 10);
		else if (c == 't')
			threads = (unsigned)strtoul(optarg, NULL, 10);
		else if (c == 's')
			s.answer_len = strtoul(optarg, NULL, 10);
		else if (c == 'c')
			s.changelist = true;
		else
			threads = 0;
	}
	if (threads == 0 || threads > THREADS_MAX || s.answer_len < ANSWER_BYTES_MIN ||
	    s.answer_len > ANSWER_BYTES_MAX) {
		fputs("usage: bare_evhttp [--port P] [--threads T] [--size BYTES] [--changelist]\n", stderr);
		return 2;
	}
	s.answer = make_answer(s.answer_len);
	s.fd = listen_on(port, &port);
	if (s.answer == NULL || s.fd < 0 || evthread_use_pthreads() != 0) {
		fprintf(stderr, "bare_evhttp: %s\n", strerror(errno));
		return 1;
	}
	for (unsigned i = 1; i < threads; i++) {
		if (pthread_create(&thread, NULL, serve, &s) != 0 || pthread_detach(thread) != 0) {
			fprintf(stderr, "bare_evhttp: cannot start a thread\n");
			return 1;
		}
	}
	printf("%u\n", port);
	fflush(stdout);
	serve(&s);
	return 0;
}

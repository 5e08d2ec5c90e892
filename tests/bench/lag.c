/*
 * lag.c - how far a replica is behind, as a client sees it.
 *
 * One row at a time: write it on the endpoint, wait for the answer, then ask the replica for that row with a session
 * read (min_lsn = the write's lsn). Lag is the time from the master's answer to the replica's. The same read repeated
 * at once gives the round trip alone, so that both can be told apart. Blocking sockets, one thread; one JSON line.
 *
 * Exit: 0 ran, 1 failed (a row that the replica did not show is a failure), 2 bad usage.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "tests/bench/hist.h"
#include "tests/bench/http1.h"

#define ANSWER_BYTES_MAX 65536

struct peer {
	const char *address;
	int fd;
	char answer[ANSWER_BYTES_MAX]; /* NUL-terminated */
	const char *body;              /* in answer */
};

struct probe {
	const char *token;
	const char *table;
	uint64_t duration_ms, pause_ms, id;
	struct peer master, replica;
	struct hist lag, round_trip, write;
};

/* Sends one request and waits for its answer; status 200 or it is an error. */
static bool ask(struct peer *p, const char *token, const char *body)
{
	struct http1_answer a;
	enum http1_state state;
	size_t head_len, len, got = 0;
	char *request = http1_build_post(p->address, "/query", token, body, strlen(body), &head_len, &len);
	ssize_t n;

	if (request == NULL)
		return false;
	n = send(p->fd, request, len, MSG_NOSIGNAL);
	free(request);
	if (n != (ssize_t)len)
		return false;
	do {
		n = recv(p->fd, p->answer + got, sizeof p->answer - 1 - got, 0);
		if (n <= 0)
			return false;
		got += (size_t)n;
		p->answer[got] = '\0';
		state = http1_parse(p->answer, got, &a);
	} while (state == HTTP1_MORE);
	p->body = p->answer + a.head_len;
	if (state == HTTP1_BAD || a.status != 200 || a.close) {
		fprintf(stderr, "lag: %s answered: %s\n", p->address, p->answer);
		return false;
	}
	return true;
}

static bool answer_lsn(const struct peer *p, uint64_t *lsn)
{
	const char *at = strstr(p->body, "\"lsn\":");

	if (at == NULL)
		return false;
	*lsn = strtoull(at + 6, NULL, 10);
	return *lsn > 0;
}

static bool probe_once(struct probe *p)
{
	char body[512];
	uint64_t lsn, before_us, answered_us, shown_us;

	snprintf(body, sizeof body,
		 "{\"sql\":\"INSERT INTO %s(id,name,amount) VALUES(?,'lag',1.5)\",\"params\":[%" PRIu64 "]}", p->table,
		 p->id);
	before_us = clock_mono_us();
	if (!ask(&p->master, p->token, body))
		return false;
	answered_us = clock_mono_us();
	hist_add(&p->write, answered_us - before_us);
	if (!answer_lsn(&p->master, &lsn)) {
		fprintf(stderr, "lag: no lsn in the answer to a write: %s\n", p->master.body);
		return false;
	}
	snprintf(body, sizeof body,
		 "{\"sql\":\"SELECT id FROM %s WHERE id=?\",\"params\":[%" PRIu64
		 "],\"consistency\":\"session\",\"min_lsn\":%" PRIu64 "}",
		 p->table, p->id, lsn);
	if (!ask(&p->replica, p->token, body))
		return false;
	shown_us = clock_mono_us();
	hist_add(&p->lag, shown_us - answered_us);
	if (strstr(p->replica.body, "\"row_count\":1") == NULL) {
		fprintf(stderr, "lag: the replica does not show row %" PRIu64 ": %s\n", p->id, p->replica.body);
		return false;
	}
	if (!ask(&p->replica, p->token, body))
		return false;
	hist_add(&p->round_trip, clock_mono_us() - shown_us);
	p->id++;
	return true;
}

static bool probe_run(struct probe *p)
{
	uint64_t end_us = clock_mono_us() + p->duration_ms * 1000;

	p->master.fd = http1_connect(p->master.address);
	p->replica.fd = http1_connect(p->replica.address);
	if (p->master.fd < 0 || p->replica.fd < 0) {
		fprintf(stderr, "lag: cannot connect: %s\n", strerror(errno));
		return false;
	}
	while (clock_mono_us() < end_us) {
		if (!probe_once(p))
			return false;
		usleep((useconds_t)(p->pause_ms * 1000));
	}
	putchar('{');
	hist_print_json(&p->lag, "lag_", stdout);
	putchar(',');
	hist_print_json(&p->round_trip, "round_trip_", stdout);
	putchar(',');
	hist_print_json(&p->write, "write_", stdout);
	printf(",\"next_id\":%" PRIu64 "}\n", p->id);
	return true;
}

static int usage(void)
{
	fputs("usage: lag --master HOST:PORT --replica HOST:PORT --token-file F --id FIRST [--table T] [--duration-ms "
	      "N]\n"
	      "           [--pause-ms N]\n",
	      stderr);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option table[] = {
	    {"master", required_argument, NULL, 'm'},     {"replica", required_argument, NULL, 'r'},
	    {"token-file", required_argument, NULL, 't'}, {"id", required_argument, NULL, 'i'},
	    {"table", required_argument, NULL, 'T'},      {"duration-ms", required_argument, NULL, 'd'},
	    {"pause-ms", required_argument, NULL, 'p'},   {NULL, 0, NULL, 0},
	};
	static struct probe p = {.table = "t", .duration_ms = 3000, .pause_ms = 2};
	char *token = NULL;
	int c, status;

	p.master.fd = p.replica.fd = -1;
	while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
		if (c == 'm')
			p.master.address = optarg;
		else if (c == 'r')
			p.replica.address = optarg;
		else if (c == 't' && token == NULL)
			token = http1_read_token(optarg);
		else if (c == 'i')
			p.id = strtoull(optarg, NULL, 10);
		else if (c == 'T')
			p.table = optarg;
		else if (c == 'd')
			p.duration_ms = strtoull(optarg, NULL, 10);
		else if (c == 'p')
			p.pause_ms = strtoull(optarg, NULL, 10);
		else
			return usage();
	}
	if (p.master.address == NULL || p.replica.address == NULL || token == NULL || p.id == 0)
		return usage();
	p.token = token;
	status = probe_run(&p) ? 0 : 1;
	if (p.master.fd >= 0)
		close(p.master.fd);
	if (p.replica.fd >= 0)
		close(p.replica.fd);
	free(token);
	return status;
}

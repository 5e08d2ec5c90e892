/* selftest_load.c - see selftest_load.h. */
#include "supervisor/selftest_load.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"

#define APPENDERS       2
#define BANKS           2
#define READERS         1
#define CLIENTS         (APPENDERS + BANKS + READERS)
#define ACCOUNTS        16
#define BALANCE         100 /* of an account in the beginning: little enough that some transfers are refused */
#define CALL_TIMEOUT_MS 10000L
#define RETRY_MS        5
#define SETTLE_MS       30000 /* how long a write that was begun is tried after the end */

struct client {
	struct load *load;
	unsigned index; /* appenders, then banks, then readers */
	pthread_t thread;
	bool started;
	CURL *curl;
	struct curl_slist *headers;
	struct buf answer;
	unsigned random;
	atomic_uint_fast64_t acked; /* an appender's or a bank's last acknowledged number */
	uint64_t refused, reads, stale_reads, torn_reads;
	uint64_t longest_wait_ms;
	char complaint[256];
	struct histogram write_us;
};

struct load {
	char url[64];
	char token[300];
	atomic_bool stopping;
	atomic_uint_fast64_t give_up_ms; /* clock_mono_ms(); 0: not yet */
	struct client clients[CLIENTS];
};

/* ---- HTTP */

static size_t on_body(char *bytes, size_t size, size_t count, void *arg)
{
	struct buf *b = arg;

	buf_put(b, bytes, size * count);
	return b->failed ? 0 : size * count;
}

static enum db_err client_open(struct client *c, struct errmsg *em)
{
	char header[340];

	snprintf(header, sizeof(header), "Authorization: Bearer %s", c->load->token);
	c->curl = curl_easy_init();
	c->headers = curl_slist_append(NULL, header);
	if (c->curl == NULL || c->headers == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for a client");
	curl_easy_setopt(c->curl, CURLOPT_URL, c->load->url);
	curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, c->headers);
	curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c->curl, CURLOPT_PROXY, "");
	curl_easy_setopt(c->curl, CURLOPT_TIMEOUT_MS, CALL_TIMEOUT_MS);
	curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, &c->answer);
	return DB_OK;
}

/* The HTTP status, the answer in c->answer; 0: there was none. */
static long post(struct client *c, const char *body)
{
	long status = 0;

	buf_clear(&c->answer);
	curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, body);
	if (curl_easy_perform(c->curl) != CURLE_OK ||
	    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status) != CURLE_OK)
		return 0;
	return status;
}

static void complain(struct client *c, long status)
{
	if (c->complaint[0] == '\0')
		snprintf(c->complaint, sizeof(c->complaint), "HTTP %ld: %.*s", status,
			 (int)(c->answer.len < 200 ? c->answer.len : 200),
			 c->answer.data == NULL ? "" : (const char *)c->answer.data);
}

/* No answer, too busy, no master or quorum, out of time: asked again with the same request_id. */
static bool is_open(long status)
{
	return status == 0 || status == 429 || status == 502 || status == 503 || status == 504;
}

static bool has_time(const struct load *l)
{
	uint64_t give_up_ms = atomic_load(&l->give_up_ms);

	return give_up_ms == 0 || clock_mono_ms() < give_up_ms;
}

enum settled { SETTLED_DONE, SETTLED_REFUSED, SETTLED_NEVER };

/* Sends a write until it is settled. */
static enum settled settle(struct client *c, const char *body)
{
	uint64_t began_us = clock_mono_us(), took_ms;
	long status = post(c, body);

	while (is_open(status) && has_time(c->load)) {
		poll(NULL, 0, RETRY_MS);
		status = post(c, body);
	}
	if (status == 200) {
		histogram_add(&c->write_us, &histogram_us, clock_mono_us() - began_us, 1);
		took_ms = (clock_mono_us() - began_us) / 1000;
		c->longest_wait_ms = took_ms > c->longest_wait_ms ? took_ms : c->longest_wait_ms;
		return SETTLED_DONE;
	}
	if (status == 409)
		return SETTLED_REFUSED;
	if (!is_open(status))
		complain(c, status);
	return SETTLED_NEVER;
}

/* ---- the clients */

static void run_appender(struct client *c)
{
	uint64_t n = 1;
	char body[256];

	while (!atomic_load(&c->load->stopping)) {
		snprintf(body, sizeof(body),
			 "{\"sql\":\"INSERT INTO appended VALUES(?,?)\",\"params\":[%u,%" PRIu64
			 "],\"request_id\":\"append-%u-%" PRIu64 "\"}",
			 c->index, n, c->index, n);
		if (settle(c, body) != SETTLED_DONE)
			return;
		atomic_store(&c->acked, n++);
	}
}

/* The third statement proves that the first two were done once; a balance below zero refuses all three. */
static void run_bank(struct client *c)
{
	uint64_t n = 1, tries = 0;
	unsigned from, to, amount;
	enum settled settled;
	char body[640];

	while (!atomic_load(&c->load->stopping)) {
		from = (unsigned)rand_r(&c->random) % ACCOUNTS;
		to = (from + 1 + (unsigned)rand_r(&c->random) % (ACCOUNTS - 1)) % ACCOUNTS;
		amount = 1 + (unsigned)rand_r(&c->random) % (BALANCE / 2);
		snprintf(
		    body, sizeof(body),
		    "{\"statements\":[{\"sql\":\"UPDATE account SET balance=balance-? WHERE id=?\",\"params\":[%u,%u]},"
		    "{\"sql\":\"UPDATE account SET balance=balance+? WHERE id=?\",\"params\":[%u,%u]},"
		    "{\"sql\":\"INSERT INTO transferred VALUES(?,?)\",\"params\":[%u,%" PRIu64
		    "]}],\"request_id\":\"transfer-%u-%" PRIu64 "\"}",
		    amount, from, amount, to, c->index, n, c->index, ++tries);
		settled = settle(c, body);
		if (settled == SETTLED_NEVER)
			return;
		if (settled == SETTLED_DONE)
			atomic_store(&c->acked, n++);
		else
			c->refused++;
	}
}

/* The first row of the answer in c->answer, count integers. */
static bool take_row(struct client *c, int64_t *values, size_t count)
{
	json_t *json = json_loadb((const char *)c->answer.data, c->answer.len, 0, NULL);
	json_t *row = json_array_get(json_object_get(json, "rows"), 0);
	bool good = json_array_size(row) == count;
	size_t i;

	for (i = 0; i < count && good; i++) {
		good = json_is_integer(json_array_get(row, i));
		values[i] = json_integer_value(json_array_get(row, i));
	}
	json_decref(json);
	return good;
}

/* A read through the endpoint is linearizable: what was acknowledged before it was asked is in it. */
static void run_reader(struct client *c)
{
	static const char body[] = "{\"sql\":\"SELECT (SELECT sum(balance) FROM account), "
				   "(SELECT coalesce(max(n),0) FROM appended WHERE client=0)\"}";
	uint64_t before;
	int64_t row[2];
	long status;

	while (!atomic_load(&c->load->stopping)) {
		before = atomic_load(&c->load->clients[0].acked);
		status = post(c, body);
		if (is_open(status)) {
			poll(NULL, 0, RETRY_MS);
			continue;
		}
		if (status != 200 || !take_row(c, row, 2)) {
			complain(c, status);
			return;
		}
		c->reads++;
		c->torn_reads += row[0] != ACCOUNTS * BALANCE;
		c->stale_reads += row[1] < 0 || (uint64_t)row[1] < before;
		poll(NULL, 0, 1); /* the disks are what is tested */
	}
}

static void *run_client(void *arg)
{
	struct client *c = arg;

	if (c->index < APPENDERS)
		run_appender(c);
	else if (c->index < APPENDERS + BANKS)
		run_bank(c);
	else
		run_reader(c);
	return NULL;
}

/* ---- the tables, and what is in them */

static enum db_err make_tables(struct load *l, struct errmsg *em)
{
	struct client *c = &l->clients[0];
	char body[640];
	long status;

	snprintf(body, sizeof(body),
		 "{\"sql\":\"CREATE TABLE appended(client INTEGER, n INTEGER);"
		 "CREATE TABLE transferred(client INTEGER, n INTEGER);"
		 "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER CHECK(balance>=0));"
		 "WITH RECURSIVE i(x) AS (SELECT 0 UNION ALL SELECT x+1 FROM i WHERE x<%d)"
		 "INSERT INTO account SELECT x,%d FROM i\",\"request_id\":\"tables\"}",
		 ACCOUNTS - 1, BALANCE);
	status = post(c, body);
	if (status == 200)
		return DB_OK;
	complain(c, status);
	return errmsg_set(em, DB_IO, "the tables cannot be made: %s", c->complaint);
}

/* How much of what client c had acknowledged is missing in table, and how much is there more often than once. */
static enum db_err compare(struct load *l, struct client *c, const char *table, struct load_result *out,
			   struct errmsg *em)
{
	struct client *asks = &l->clients[0];
	uint64_t acked = atomic_load(&c->acked);
	char body[320];
	int64_t row[2];
	long status;

	snprintf(body, sizeof(body),
		 "{\"sql\":\"SELECT count(DISTINCT n) FILTER (WHERE n BETWEEN 1 AND %" PRIu64
		 "), count(*)-count(DISTINCT n) "
		 "FROM %s WHERE client=%u\"}",
		 acked, table, c->index);
	status = post(asks, body);
	if (status != 200 || !take_row(asks, row, 2)) {
		complain(asks, status);
		return errmsg_set(em, DB_IO, "what is there cannot be read: %s", asks->complaint);
	}
	out->lost += acked - (uint64_t)row[0];
	out->doubled += (uint64_t)row[1];
	return DB_OK;
}

static enum db_err read_balance(struct load *l, struct load_result *out, struct errmsg *em)
{
	struct client *asks = &l->clients[0];
	long status = post(asks, "{\"sql\":\"SELECT sum(balance) FROM account\"}");
	int64_t sum;

	if (status != 200 || !take_row(asks, &sum, 1)) {
		complain(asks, status);
		return errmsg_set(em, DB_IO, "the accounts cannot be read: %s", asks->complaint);
	}
	out->balance_off = sum - ACCOUNTS * BALANCE;
	return DB_OK;
}

enum db_err load_check(struct load *l, struct load_result *out, struct errmsg *em)
{
	enum db_err err = DB_OK;
	unsigned i;

	memset(out, 0, sizeof(*out));
	for (i = 0; i < CLIENTS && err == DB_OK; i++) {
		struct client *c = &l->clients[i];

		out->refused += c->refused;
		out->reads += c->reads;
		out->stale_reads += c->stale_reads;
		out->torn_reads += c->torn_reads;
		if (c->longest_wait_ms > out->longest_wait_ms)
			out->longest_wait_ms = c->longest_wait_ms;
		if (out->complaint[0] == '\0')
			memcpy(out->complaint, c->complaint, sizeof(out->complaint));
		histogram_collect(&out->write_us, &c->write_us);
		if (i < APPENDERS) {
			out->appends += atomic_load(&c->acked);
			err = compare(l, c, "appended", out, em);
		} else if (i < APPENDERS + BANKS) {
			out->transfers += atomic_load(&c->acked);
			err = compare(l, c, "transferred", out, em);
		}
	}
	return err == DB_OK ? read_balance(l, out, em) : err;
}

/* ---- life */

enum db_err load_create(struct load **out, unsigned port, const char *token, struct errmsg *em)
{
	struct load *l = calloc(1, sizeof(*l));
	enum db_err err = DB_OK;
	unsigned i;

	*out = NULL;
	if (l == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for the clients");
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		free(l);
		return errmsg_set(em, DB_NOMEM, "the HTTP library cannot be used");
	}
	snprintf(l->url, sizeof(l->url), "http://127.0.0.1:%u/query", port);
	snprintf(l->token, sizeof(l->token), "%s", token);
	for (i = 0; i < CLIENTS; i++) {
		l->clients[i].load = l;
		l->clients[i].index = i;
		l->clients[i].random = i + 1;
		if (err == DB_OK)
			err = client_open(&l->clients[i], em);
	}
	if (err == DB_OK)
		err = make_tables(l, em);
	if (err != DB_OK) {
		load_free(l);
		return err;
	}
	*out = l;
	return DB_OK;
}

enum db_err load_start(struct load *l, struct errmsg *em)
{
	unsigned i;

	for (i = 0; i < CLIENTS; i++) {
		if (pthread_create(&l->clients[i].thread, NULL, run_client, &l->clients[i]) != 0)
			return errmsg_set(em, DB_NOMEM, "cannot start a client");
		l->clients[i].started = true;
	}
	return DB_OK;
}

void load_stop(struct load *l)
{
	unsigned i;

	atomic_store(&l->give_up_ms, clock_mono_ms() + SETTLE_MS);
	atomic_store(&l->stopping, true);
	for (i = 0; i < CLIENTS; i++)
		if (l->clients[i].started)
			pthread_join(l->clients[i].thread, NULL);
	for (i = 0; i < CLIENTS; i++)
		l->clients[i].started = false;
}

void load_free(struct load *l)
{
	unsigned i;

	if (l == NULL)
		return;
	load_stop(l);
	for (i = 0; i < CLIENTS; i++) {
		curl_easy_cleanup(l->clients[i].curl);
		curl_slist_free_all(l->clients[i].headers);
		buf_fini(&l->clients[i].answer);
	}
	curl_global_cleanup();
	free(l);
}

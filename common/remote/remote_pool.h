/*
 * remote_pool.h - requests to other nodes, for the whole process: one limit of connections, one memory of who fails.
 *
 * A thread with an event loop and one http_client (http_client.h). Any other thread starts fetches; those that may block
 * read the answer with remote_fetch_head() and remote_fetch_read(), those that may not use their try_ twins and are
 * notified. A fetch has one reader at a time. Several run concurrently, at most max_connections of one address; further
 * ones queue, in order, within their deadline.
 *
 * An answer is read no faster than its reader takes it: a fetch keeps at most REMOTE_FETCH_BUFFER bytes (and a piece as
 * the network brought it), then its connection waits.
 *
 * An address that cannot be reached, or whose connection breaks before an answer's head, is left alone for 50 ms, doubling
 * to 5 s with each further failure (backoff.h); then one request goes and looks, and the others follow when it is answered.
 * The request that found the failure out ends with it. Those that come meanwhile wait for the next look, if it is near
 * enough: at most REMOTE_PATIENCE_MS away, and before their deadline. So requests ride out another cluster's change of
 * master, while those to a node that has long been dead fail at once, with the last look's reason: DB_UNAVAILABLE.
 */
#ifndef GRIZZLY_COMMON_REMOTE_REMOTE_POOL_H
#define GRIZZLY_COMMON_REMOTE_REMOTE_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

struct remote_access;

#define REMOTE_FETCH_BUFFER ((size_t)256 << 10)
#define REMOTE_PATIENCE_MS  2000
#define REMOTE_ADDRESS_MAX  272 /* "host:port" and the NUL; a longer one is DB_INVALID */
#define REMOTE_LISTED_MAX   64  /* addresses that remote_pool_get_addresses() tells of */

struct remote_pool;
struct remote_fetch;

struct remote_pool_options {
	unsigned max_connections;           /* per address; 0: 10 */
	uint64_t connect_timeout_ms;        /* 0: 1000 */
	uint64_t idle_timeout_ms;           /* an unused connection is closed; 0: 60000 */
	const struct remote_access *access; /* borrowed, outlives the pool: who is asked with TLS; NULL: nobody */
};

/* http_client_init_library() was called before. Errors: DB_NOMEM, DB_IO. */
enum db_err remote_pool_create(struct remote_pool **out, const struct remote_pool_options *options, struct errmsg *em);
/* Every fetch ends with DB_CLOSED, new ones are refused. Readers that block return. Any thread; NULL is fine. */
void remote_pool_stop(struct remote_pool *p);
/* Stops first. Every fetch has been freed before. NULL is fine. */
void remote_pool_free(struct remote_pool *p);

struct remote_pool_counters {
	uint64_t requests_total; /* fetches started */
	uint64_t failures_total; /* those that ended without a whole answer, and were not given up by their reader */
	uint64_t retries_total;  /* reads sent again because a kept connection had been closed */
	uint64_t backoff_refusals_total; /* failures without a try: the address failed just before */
	uint64_t waited_total;           /* had to wait for a connection, or for an address that fails */
	uint64_t connections_opened_total;
	uint64_t reused_total; /* sent on a connection that was open already */
	uint64_t connections_open, in_flight, queued;
};
/* Any thread. */
void remote_pool_get_counters(const struct remote_pool *p, struct remote_pool_counters *out);

/* An address asked in the last ten minutes, or being asked. */
struct remote_pool_address {
	char address[REMOTE_ADDRESS_MAX];
	uint64_t connections, in_flight, queued;
	uint64_t requests_total, failures_total; /* since it is listed */
	uint64_t asked_ms;                       /* so long ago */
	bool failing;
	uint64_t failing_ms;              /* for how long; 0 unless failing */
	char last_error[ERRMSG_TEXT_MAX]; /* of the last look that failed; "": none has */
};
/* Any thread. Returns how many, at most max. */
size_t remote_pool_get_addresses(struct remote_pool *p, struct remote_pool_address *out, size_t max);

#define REMOTE_LEVEL_MAX 3u /* higher ones count as this */

struct remote_request {
	const char *address;        /* "host:port"; all of it is copied */
	const char *path;           /* "/query" */
	const char *token;          /* NULL or "": none; never logged */
	const char *const *headers; /* "Name: value", NULL-terminated (Accept, Grizzly-Hops); NULL: none */
	const void *body;           /* NULL: a GET; otherwise a POST */
	size_t body_len;
	uint64_t deadline_ms; /* clock_mono_ms(); covers waiting, too */
	bool member;          /* address is one of this cluster's own, whatever remote.nodes says */
	bool is_read;         /* may be sent again when a kept connection turns out to have been closed */
	/* Goes whatever became of others before: the caller knows from elsewhere that the address is the one to ask, and makes
	 * its own pauses. */
	bool at_once;
	/* How many nodes have passed on the client's request to this one; 0: it is the client's own. Each level may have one
	 * connection more than the one before: nodes that ask each other in a circle would otherwise hold all of them
	 * while they wait for one. */
	unsigned level;
	/* NULL for readers that block. Called on the pool's thread with nothing locked, must not block nor call the fetch:
	 * a head, bytes or the end came after a try_ call had said DB_BUSY; once for that. No call is under way or follows
	 * when remote_fetch_free() has returned. */
	void (*notify)(void *arg);
	void *notify_arg;
};

/* Returns at once; what goes wrong later is the reader's to hear. Errors: DB_TIMEOUT (no time is left), DB_NOMEM,
 * DB_INVALID, DB_CLOSED (the pool stops). */
enum db_err remote_fetch_start(struct remote_fetch **out, struct remote_pool *p, const struct remote_request *r,
			       struct errmsg *em);
/*
 * Blocks for the answer's head. *cancelled is looked at every 20 ms, by other threads set when nobody wants the answer any
 * more; NULL: never. content_type is "" when absent and lives as long as the fetch. Errors:
 * DB_UNAVAILABLE (not sent: refused, unresolved, or left alone after failures), DB_IO (broke later: the outcome is unknown),
 * DB_TIMEOUT, DB_CLOSED (*cancelled, or the pool stops), DB_NOMEM, DB_INVALID (address, token or header malformed).
 */
enum db_err remote_fetch_head(struct remote_fetch *f, const atomic_bool *cancelled, int *status,
			      const char **content_type, struct errmsg *em);
/* Blocks for at least a byte. *got 0: the answer has come whole. The same errors, after all the bytes that came before. */
enum db_err remote_fetch_read(struct remote_fetch *f, const atomic_bool *cancelled, void *bytes, size_t max,
			      size_t *got, struct errmsg *em);
/* The same without blocking: DB_BUSY, and notify will be called. */
enum db_err remote_fetch_try_head(struct remote_fetch *f, int *status, const char **content_type, struct errmsg *em);
enum db_err remote_fetch_try_read(struct remote_fetch *f, void *bytes, size_t max, size_t *got, struct errmsg *em);
/* Gives up what is under way, without waiting for it. Not from notify. NULL is fine. */
void remote_fetch_free(struct remote_fetch *f);

#endif

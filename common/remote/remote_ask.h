/*
 * remote_ask.h - one request of several reads to another node, and the rows it answers with.
 *
 * A remote_asker is what all requests of one federated query share: where they go through, how long, on whose behalf, and
 * the tally of what each node was asked. On the query's thread, which blocks for the answers; several requests may be under
 * way meanwhile. A read whose connection breaks before a first row came is asked again a few times.
 *
 * Errors are query errors that begin with "host:port@table: ": REMOTE_ERROR for all that is wrong with the other node,
 * FORBIDDEN for an address that may not be asked, TIMEOUT when the client has gone, INTERNAL for memory.
 */
#ifndef GRIZZLY_COMMON_REMOTE_REMOTE_ASK_H
#define GRIZZLY_COMMON_REMOTE_REMOTE_ASK_H

#include <pthread.h>

#include "common/query/federation.h"
#include "common/query/request.h"
#include "common/remote/remote_access.h"
#include "common/remote/remote_pool.h"
#include "common/remote/rows_reader.h"

/* What one node was asked in the course of a query. */
struct remote_tally {
	struct remote_tally *next;
	uint64_t requests, rows, bytes,
	    us; /* us: from the first request's start to the last one's end, pauses left out */
	uint64_t under_way, since_us;
	char address[FEDERATION_ADDRESS_MAX];
};

struct remote_ask;

struct remote_asker {
	struct remote_pool *pool;
	struct remote_access *access;        /* both borrowed */
	const struct query_request *request; /* the client's: its consistency; borrowed */
	uint64_t deadline_ms;                /* clock_mono_ms() */
	const atomic_bool *cancelled;        /* NULL: never */
	unsigned hops;                       /* nodes that have passed the client's request on, before this one */
	struct remote_tally *tallies;        /* in the order of first request */
	/* Called when an answer is waited for that has nothing new: reads what else has come, for an answer that nobody reads
	 * may keep the other node from making this one. 1: it has read something; 0: nothing has come; -1: it failed. */
	int (*meanwhile)(void *arg, const struct remote_ask *waited_for);
	void *meanwhile_arg;
	pthread_mutex_t mutex; /* guards: */
	pthread_cond_t changed;
	bool woken; /* something came for one of the requests */
};

/* The rest of *a is set by the caller. */
void remote_asker_init(struct remote_asker *a);
/* Frees the tallies; no request is under way any more. */
void remote_asker_fini(struct remote_asker *a);
/* Appends ,"remote":[…]. */
void remote_asker_put(const struct remote_asker *a, struct buf *out);
/* Makes room for the address, so that it is listed in this place. False: no memory. */
bool remote_asker_mention(struct remote_asker *a, const char *address);

/* Who is asked, and what errors name. */
struct remote_name {
	const char *address; /* "host:port" */
	const char *name;    /* "host:port@table" */
};

/* Sends statements, the content of a JSON array [{"sql":…},…] without its brackets. name is copied. QUERY_OK: *out is the
 * caller's; nothing has come yet. */
enum query_code remote_ask_start(struct remote_ask **out, struct remote_asker *a, const struct remote_name *name,
				 const char *statements, size_t len, struct query_error *error);
/* Gives up what has not come. NULL is fine. */
void remote_ask_free(struct remote_ask *ask);

enum remote_event {
	REMOTE_RESULT, /* of the next statement: remote_ask_reader() knows its columns */
	REMOTE_ROW,    /* of that result */
	REMOTE_DONE,   /* all has come, and is good */
	REMOTE_BUSY,   /* nothing yet, and it was not to be waited for */
	REMOTE_FAILED, /* *error says why; *refused, when not NULL, what the other node itself said (code OK: nothing) */
};

/* The next; wait: blocks for it. */
enum remote_event remote_ask_next(struct remote_ask *ask, bool wait, struct query_error *error,
				  struct query_error *refused);
/* The row that came last is one of the data: the tally has it. */
void remote_ask_count_row(struct remote_ask *ask);
/* For columns and values. NULL before the first event. */
const struct rows_reader *remote_ask_reader(const struct remote_ask *ask);

#endif

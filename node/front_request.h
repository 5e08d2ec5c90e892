/*
 * front_request.h - a request that is not answered yet: a /query, or a /writes/ID, which has no query but a write_id.
 * Private to node/frontend.c, node/front_fetch.c, node/forward.c, node/federate.c, node/write_state.c and
 * node/admin_front.c.
 */
#ifndef GRIZZLY_NODE_FRONT_REQUEST_H
#define GRIZZLY_NODE_FRONT_REQUEST_H

#include <stdatomic.h>
#include <stdbool.h>

#include "common/query/admin_sql.h"
#include "common/query/exec.h"
#include "common/query/federated_request.h"
#include "common/remote/between_nodes.h"
#include "node/frontend.h"

/* Says that a node has forwarded the request already: it is not forwarded twice. */
#define FORWARDED_HEADER "Grizzly-Forwarded"
/* With it: how much of the request's time is left. */
#define FORWARDED_TIMEOUT_HEADER "Grizzly-Timeout-Ms"

/* Asks a node for what it knows of a write by itself, whatever its role. */
#define LOCAL_HEADER "Grizzly-Local"

struct forward;
struct front_fetch;
struct ship;

struct front_worker {
	struct front_worker *next; /* frontend's list */
	struct frontend *frontend;
	struct http_worker *worker;
	struct query_conn *conn;
	struct event *tick; /* runs while something below waits */
	bool ticking;
	bool stopping;                 /* nothing is parked or sent any more */
	struct front_request *parked;  /* for a master; newest first */
	struct front_request *waiting; /* for their min_lsn; newest first */
	struct front_fetch *fetches;   /* under way */
	struct forward *forwards;      /* under way */
	struct ship *ships;            /* node/federate.c; under way */
	struct buf answer;             /* reused by every inline read */
	struct timings timings;        /* of this thread */
	struct http_task role_task;
	atomic_bool role_task_posted;
	atomic_bool waits; /* somebody may be on the waiting list */
	struct http_task visible_task;
	atomic_bool visible_task_posted;
};

struct front_request {
	struct front_request *next; /* parked or waiting list */
	struct http_request *http;
	struct query_request *query;         /* NULL: write_id is asked for */
	struct federated_request *federated; /* NULL: names no tables of other nodes */
	char write_id[QUERY_REQUEST_ID_MAX + 1];
	struct front_worker *worker;
	enum query_kind kind;
	uint64_t started_us;
	uint64_t parsed_us; /* since when it is understood */
	uint64_t deadline_ms;
	char master_http[WIRE_NAME_MAX];
	unsigned forward_breaks; /* how often the connection broke while the master had it */
	bool was_parked;         /* is counted */
	bool
	    in_doubt; /* a master that had it was lost: it may be done already. It has a request_id, so is sent again */
	struct slow_fill fill; /* plan FEDERATED_FILL_HERE: what becomes of it before it is the job's */
	struct write_job job;
	struct admin_statement admin;
	struct admin_job admin_job;
	struct http_task task;
};

/* Lines that this thread writes are about it from now on. It is not answered yet. */
void front_request_speaks(const struct front_request *req);

/* Each of these takes the request. */
void front_request_free(struct front_request *req);
/* Nothing came of it. One that is in doubt is answered as such, whatever the code. */
void front_request_fail(struct front_request *req, enum query_code code, const char *message);
void front_request_park(struct front_request *req); /* until the role changes, a moment passes, or its deadline */
void admin_start(struct front_request *req);        /* to the supervisor; on a master */
void forward_start(struct front_request *req);      /* to req->master_http; "" parks it */

/* Whether an answer with that HTTP status settles what became of a request that is in doubt. */
bool front_status_settles(int status);

/* On a master that serves: answers what became of the write req->write_id. Takes the request. */
void write_state_answer(struct front_request *req);
/* Answers with what query_read() makes of the request: content type, body, or the error. Takes the request. */
void front_request_read(struct front_request *req);

/* Gives up reads that wait for any other master than address, so that they are asked again. */
void forward_on_master_change(struct front_worker *w, const char *address);
/* Now and then: gives up what no client is there for any more. */
void forward_look_after(struct front_worker *w);
void front_worker_arm_tick(struct front_worker *w); /* there is something to look after */
void frontend_count_forward(struct frontend *f);
/* It is answered now: counts how long it took as the kind which, and logs it if that was long. Not for what is answered with
 * an error. */
void front_request_note(struct front_request *req, enum timing which);
const struct frontend_options *frontend_get_options(const struct frontend *f);
void front_request_dispatch(struct front_request *req); /* takes it: decides where it goes now */
uint64_t front_deadline_ms(const struct cluster_config *config, uint64_t timeout_ms, const struct http_request *http);

#endif

/*
 * front_request.h - a /query request that is not answered yet; private to node/frontend.c and node/forward.c.
 */
#ifndef GRIZZLY_NODE_FRONT_REQUEST_H
#define GRIZZLY_NODE_FRONT_REQUEST_H

#include <stdatomic.h>
#include <stdbool.h>

#include "common/query/exec.h"
#include "node/frontend.h"

/* Says that a node has forwarded the request already: it is not forwarded twice. */
#define FORWARDED_HEADER "Grizzly-Forwarded"
/* With it: how much of the request's time is left. */
#define FORWARDED_TIMEOUT_HEADER "Grizzly-Timeout-Ms"

struct forward;

struct front_worker {
	struct front_worker *next; /* frontend's list */
	struct frontend *frontend;
	struct http_worker *worker;
	const char *token; /* borrowed */
	struct query_conn *conn;
	struct http_client *client;
	struct event *tick; /* runs while something below waits */
	bool ticking;
	bool stopping;                 /* nothing is parked or sent any more */
	struct front_request *parked;  /* for a master; newest first */
	struct front_request *waiting; /* for their min_lsn; newest first */
	struct forward *forwards;      /* under way */
	struct buf answer;             /* reused by every inline read */
	struct http_task role_task;
	atomic_bool role_task_posted;
	atomic_bool waits; /* somebody may be on the waiting list */
	struct http_task visible_task;
	atomic_bool visible_task_posted;
};

struct front_request {
	struct front_request *next; /* parked or waiting list */
	struct http_request *http;
	struct query_request *query;
	struct front_worker *worker;
	enum query_kind kind;
	uint64_t started_us;
	uint64_t deadline_ms;
	char master_http[WIRE_NAME_MAX];
	unsigned forward_breaks; /* how often the connection broke while the master had it */
	bool was_parked;         /* is counted */
	struct write_job job;
	struct http_task task;
};

/* Each of these takes the request. */
void front_request_free(struct front_request *req);
void front_request_fail(struct front_request *req, enum query_code code, const char *message);
void front_request_park(struct front_request *req); /* until the role changes, a moment passes, or its deadline */
void forward_start(struct front_request *req);      /* to req->master_http; "" parks it */

/* Gives up reads that wait for any other master than address, so that they are asked again. */
void forward_on_master_change(struct front_worker *w, const char *address);
/* Now and then: gives up what no client is there for any more. */
void forward_look_after(struct front_worker *w);
void front_worker_arm_tick(struct front_worker *w); /* there is something to look after */
void frontend_count_forward(struct frontend *f);

#endif

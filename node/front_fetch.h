/*
 * front_fetch.h - a request to another node on behalf of one that came to an HTTP worker: what remote_pool.h offers, with the
 * handlers of http_client.h called on the worker's own thread and from its loop.
 *
 * The pool's thread only posts a task when something has come; the worker then takes what there is, a bounded amount at a
 * turn. Everything here is used on the worker's thread.
 */
#ifndef GRIZZLY_NODE_FRONT_FETCH_H
#define GRIZZLY_NODE_FRONT_FETCH_H

#include "common/remote/http_client.h"
#include "common/remote/remote_pool.h"

struct front_worker;
struct front_fetch;

/* DB_OK: *out lives until handler's on_end has been called, which is not before this has returned. request's notify is ours
 * to set. Otherwise nothing was started. Errors of remote_fetch_start(). */
enum db_err front_fetch_start(struct front_fetch **out, struct front_worker *w, const struct remote_request *request,
			      const struct http_call_handler *handler, struct errmsg *em);
/* After on_body has returned false: it is called with the same piece, soon. */
void front_fetch_resume(struct front_fetch *f);
/* on_end is called with DB_CLOSED before this returns; also from on_head and on_body. */
void front_fetch_cancel(struct front_fetch *f);
/* Cancels all of the worker's. */
void front_fetch_stop(struct front_worker *w);

#endif

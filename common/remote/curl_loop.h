/*
 * curl_loop.h - libcurl's multi interface turned by a libevent loop; knows nothing of requests.
 *
 * Everything runs on the loop's thread. libcurl must not be entered from one of its own callbacks, so what calls back
 * into it asks curl_loop_is_inside() first and puts off until `after`, which is called when libcurl has been left.
 */
#ifndef GRIZZLY_COMMON_REMOTE_CURL_LOOP_H
#define GRIZZLY_COMMON_REMOTE_CURL_LOOP_H

#include <curl/curl.h>
#include <event2/event.h>
#include <stdbool.h>

#include "common/base/err.h"

struct curl_loop;

struct curl_loop_hooks {
	void (*done)(void *arg, CURL *easy, CURLcode code); /* a transfer ended; outside of libcurl */
	void (*after)(void *arg);                           /* libcurl was left */
	void *arg;
};

enum db_err curl_loop_create(struct curl_loop **out, struct event_base *base, const struct curl_loop_hooks *hooks,
			     long host_connections_max, struct errmsg *em);
void curl_loop_free(struct curl_loop *l); /* NULL is fine; no transfer may be left; closes the pooled connections */
CURLM *curl_loop_multi(struct curl_loop *l);
bool curl_loop_is_inside(const struct curl_loop *l);
void curl_loop_kick(struct curl_loop *l); /* calls `after` in the loop's next turn */
/* Lets a paused transfer go on; it may call back before this returns, and `done` may be called for any transfer. */
void curl_loop_resume(struct curl_loop *l, CURL *easy);
/* Closes all pooled connections; no transfer may be left. Out of memory: they stay. */
void curl_loop_close_connections(struct curl_loop *l);

#endif

/*
 * inbox.h - tasks for one worker: any thread posts, the worker runs them in order of arrival.
 *
 * A lock-free stack and an eventfd. Only the post that finds the stack empty writes the eventfd, so tasks posted
 * together cost one wake-up.
 */
#ifndef GRIZZLY_COMMON_HTTP_INBOX_H
#define GRIZZLY_COMMON_HTTP_INBOX_H

#include <stdatomic.h>

#include "common/http/server.h"

struct http_inbox {
	_Atomic(struct http_task *) top; /* newest first */
	atomic_uint posting;             /* threads inside http_inbox_post() */
	int fd;                          /* eventfd; readable when top is set */
};

enum db_err http_inbox_init(struct http_inbox *inbox, struct errmsg *em);
/* Must be empty, and nobody may begin to post; who has posted all but the wake-up is waited for. */
void http_inbox_fini(struct http_inbox *inbox);
void http_inbox_post(struct http_inbox *inbox, struct http_task *task);
/* Owner's thread: runs what was there when it was called. Returns how many. */
size_t http_inbox_run(struct http_inbox *inbox);

#endif

/*
 * service_manager.h - tells the service manager (systemd) how it goes: ready, reloading, stopping, alive.
 *
 * The protocol of sd_notify(3): datagrams to the socket that $NOTIFY_SOCKET names. Without that variable nothing happens.
 * The watchdog is answered by a timer of the supervisor's loop, and only while alive() says that the loop gets on: a
 * supervisor that is stuck is killed and started again, and its nodes serve on meanwhile. Loop thread.
 */
#ifndef GRIZZLY_SUPERVISOR_SERVICE_MANAGER_H
#define GRIZZLY_SUPERVISOR_SERVICE_MANAGER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"

struct service_manager; /* body in service_manager.c */

struct service_manager_options {
	struct event_base *base;                             /* borrowed */
	bool (*alive)(void *arg);                            /* does the supervisor get on with its work? */
	void (*describe)(void *arg, char *out, size_t size); /* one line for `systemctl status` */
	void *arg;
};

/* DB_OK with *out NULL: nobody wants to know. DB_INVALID: $NOTIFY_SOCKET names no usable socket; DB_IO, DB_NOMEM. */
enum db_err service_manager_create(struct service_manager **out, const struct service_manager_options *options,
				   struct errmsg *em);
/* m may be NULL in all of these. What cannot be sent is logged. */
void service_manager_ready(struct service_manager *m);
void service_manager_reloading(struct service_manager *m); /* then service_manager_ready() */
void service_manager_stopping(struct service_manager *m);
void service_manager_free(struct service_manager *m);

#endif

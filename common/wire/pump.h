/*
 * pump.h - keeps one message under way on a PUSH link for as long as its owner has something to say.
 *
 * The owner is a state machine that is asked for the next message whenever the link is free, and kicks the pump when it
 * has news. Nothing is queued here, so a slow peer holds no memory. next() runs on whichever thread kicked, or on the link's
 * when a send completed, never on two at a time, and without any lock of the pump's.
 */
#ifndef GRIZZLY_COMMON_WIRE_PUMP_H
#define GRIZZLY_COMMON_WIRE_PUMP_H

#include "common/wire/link.h"

struct pump;

struct pump_owner {
	nng_msg *(*next)(void *arg); /* the message to send now, handed over; NULL: nothing */
	void (*on_connected)(void *arg,
			     bool connected); /* alternates, beginning with true; next() is asked after true */
	void *arg;
};

/* *out is set before the first callback. Addresses and errors as link_push_create(). */
enum db_err pump_create(struct pump **out, const char *url, const char *near_url, const struct pump_owner *owner,
			struct errmsg *em);
/* Asks next() unless a message is under way or another thread is at it (which will ask once more). Any thread, not from
 * within next(), holding no lock that the owner's callbacks take. */
void pump_kick(struct pump *p);
void pump_reconnect(struct pump *p); /* as link_push_reconnect() */
/* Waits for callbacks under way. NULL is fine. */
void pump_free(struct pump *p);

#endif

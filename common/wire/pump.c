/*
 * pump.c - see pump.h.
 *
 * link_push_send() may complete before it returns, on our own stack; `running` makes that completion leave the work to
 * the loop below it instead of recursing once per message.
 */
#include "common/wire/pump.h"

#include <pthread.h>
#include <stdlib.h>

struct pump {
	struct pump_owner owner;
	struct link_push *link; /* set before its first callback */
	pthread_mutex_t mutex;  /* guards the flags */
	bool connected;
	bool sending; /* a message is under way */
	bool running; /* a thread is in pump_kick()'s loop */
	bool again;   /* it shall ask once more before it leaves */
};

/* Sends messages while there are any and the link takes them. Mutex held on entry and exit. */
static void send_what_waits(struct pump *p)
{
	nng_msg *message;
	enum db_err err;

	while (p->connected && !p->sending) {
		p->sending = true;
		pthread_mutex_unlock(&p->mutex);
		message = p->owner.next(p->owner.arg);
		err = message == NULL ? DB_NOTFOUND : link_push_send(p->link, message);
		if (err != DB_OK && message != NULL)
			nng_msg_free(message); /* the connection has just ended: its owner will be told */
		pthread_mutex_lock(&p->mutex);
		if (err != DB_OK) {
			p->sending = false;
			return;
		}
	}
}

void pump_kick(struct pump *p)
{
	pthread_mutex_lock(&p->mutex);
	p->again = true;
	if (!p->running) {
		p->running = true;
		while (p->again) {
			p->again = false;
			send_what_waits(p);
		}
		p->running = false;
	}
	pthread_mutex_unlock(&p->mutex);
}

static void on_sent(void *arg, enum db_err err)
{
	struct pump *p = arg;

	pthread_mutex_lock(&p->mutex);
	p->sending = false;
	pthread_mutex_unlock(&p->mutex);
	if (err == DB_OK)
		pump_kick(p);
}

static void on_connected(void *arg, bool connected)
{
	struct pump *p = arg;

	pthread_mutex_lock(&p->mutex);
	p->connected = connected;
	pthread_mutex_unlock(&p->mutex);
	p->owner.on_connected(p->owner.arg, connected);
	if (connected)
		pump_kick(p);
}

enum db_err pump_create(struct pump **out, const char *url, const char *near_url, const struct pump_owner *owner,
			struct errmsg *em)
{
	struct pump *p = calloc(1, sizeof(*p));
	enum db_err err;

	*out = p;
	if (p == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	p->owner = *owner;
	pthread_mutex_init(&p->mutex, NULL);
	err = link_push_create(&p->link, url, near_url, on_connected, on_sent, p, em);
	if (err != DB_OK) {
		pump_free(p);
		*out = NULL;
	}
	return err;
}

void pump_reconnect(struct pump *p)
{
	link_push_reconnect(p->link);
}

void pump_free(struct pump *p)
{
	if (p == NULL)
		return;
	link_push_free(p->link);
	pthread_mutex_destroy(&p->mutex);
	free(p);
}

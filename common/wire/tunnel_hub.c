/*
 * tunnel_hub.c - the thread of tunnels, and their beginning and end: see tunnel.h.
 *
 * Everything of a hub is under its mutex, which the thread holds but for its sleep in epoll_wait(). That is none while
 * bytes flow, so that whoever else wants the mutex might never find it free. Therefore all go through a turnstile, the
 * thread too: `turn` first, then `mutex`, never the other way round. The thread gives `turn` back as soon as it has the
 * mutex; who took it meanwhile comes next. See tunnels_enter().
 *
 * Strangers' handshakes cost the thread far more than members' bytes, a signature each. So of each turn's events those
 * of members come first, then at most STRANGERS_TURN of the others; epoll tells the rest again, see take_turn().
 */
#include "common/wire/tunnel.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/wake.h"
#include "common/wire/tunnel_priv.h"

#define TICK_MS        100 /* between two looks at deadlines, while there are any */
#define EVENTS_MAX     256 /* a turn sees all: two full gates, and members */
#define STRANGERS_TURN 4   /* gates' and handshakes' events of a turn */

/* ---- the thread */

/* Ends what is overdue. Returns how long the loop may sleep. */
static int look_at_deadlines(struct tunnels *hub)
{
	uint64_t now_ms = clock_mono_ms();
	struct tunnel_gate *g;
	struct tunnel *t, *next;
	int sleep_ms = -1;

	for (t = hub->tunnels; t != NULL; t = next) {
		next = t->next;
		if (t->deadline_ms != 0 && t->deadline_ms <= now_ms)
			tunnel_on_deadline(t);
	}
	for (t = hub->tunnels; t != NULL; t = t->next)
		if (t->deadline_ms != 0)
			sleep_ms = TICK_MS;
	for (g = hub->gates; g != NULL; g = g->next) {
		if (g->paused_ms != 0 && g->paused_ms <= now_ms)
			g->paused_ms = tunnel_await(hub, &g->end, EPOLLIN) ? 0 : now_ms + TICK_MS;
		if (g->paused_ms != 0)
			sleep_ms = TICK_MS;
	}
	return sleep_ms;
}

/* After a turn: its events may name what died. */
static void free_dead(struct tunnels *hub)
{
	struct tunnel_gate *g;
	struct tunnel *t;

	while ((t = hub->dead) != NULL) {
		hub->dead = t->next;
		tunnel_free(t);
	}
	while ((g = hub->dead_gates) != NULL) {
		hub->dead_gates = g->next;
		free(g);
	}
}

/* Whether an event is that of somebody who has not proved to be a member. */
static bool is_strangers(const struct tunnel_end *end)
{
	if (end->kind == TUNNEL_END_GATE)
		return true;
	return end->kind != TUNNEL_END_WAKE && ((const struct tunnel *)end->owner)->state == TUNNEL_HANDSHAKE;
}

static void on_event(struct tunnels *hub, const struct epoll_event *event)
{
	struct tunnel_end *end = event->data.ptr;
	struct tunnel_gate *g = end->owner;

	switch (end->kind) {
	case TUNNEL_END_GATE:
		if (!g->dead)
			tunnel_gate_on_event(g);
		break;
	case TUNNEL_END_WAKE:
		wake_clear(hub->wake.fd);
		break;
	default:
		tunnel_on_event(end->owner, end, event->events);
	}
}

/* Who is a stranger is asked before anything is done: a handshake that begins meanwhile has had its turn. Nor do the
 * same strangers come first in each turn: epoll tells those who never fall silent in one order again and again. */
static void take_turn(struct tunnels *hub, const struct epoll_event *events, int count)
{
	bool strangers[EVENTS_MAX];
	int i, at, first, taken = 0;

	for (i = 0; i < count; i++)
		strangers[i] = is_strangers(events[i].data.ptr);
	for (i = 0; i < count && !hub->stopping; i++)
		if (!strangers[i])
			on_event(hub, &events[i]);
	first = hub->first_stranger;
	for (i = 0; i < count && taken < STRANGERS_TURN && !hub->stopping; i++) {
		at = (first + i) % count;
		if (!strangers[at])
			continue;
		on_event(hub, &events[at]);
		hub->first_stranger = at + 1;
		taken++;
	}
}

static void *run(void *arg)
{
	struct tunnels *hub = arg;
	struct epoll_event events[EVENTS_MAX];
	int count, sleep_ms = -1;

	pthread_setname_np(pthread_self(), "tunnels");
	for (;;) {
		count = epoll_wait(hub->epoll_fd, events, EVENTS_MAX, sleep_ms);
		tunnels_enter(hub);
		pthread_mutex_unlock(&hub->turn);
		take_turn(hub, events, count);
		free_dead(hub);
		sleep_ms = look_at_deadlines(hub);
		if (hub->stopping)
			break;
		pthread_mutex_unlock(&hub->mutex);
	}
	pthread_mutex_unlock(&hub->mutex);
	return NULL;
}

void tunnels_enter(struct tunnels *hub)
{
	pthread_mutex_lock(&hub->turn);
	pthread_mutex_lock(&hub->mutex);
}

void tunnels_leave(struct tunnels *hub)
{
	pthread_mutex_unlock(&hub->mutex);
	pthread_mutex_unlock(&hub->turn);
}

void tunnel_wake(struct tunnels *hub)
{
	wake_up(hub->wake.fd);
}

/* ---- life */

static enum db_err start_thread(struct tunnels *hub, struct errmsg *em)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	sigdelset(&all, SIGBUS); /* node/last_words.h */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&hub->thread, NULL, run, hub);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc == 0 ? DB_OK : errmsg_errno(em, rc, "cannot start the thread of the links' tunnels");
}

enum db_err tunnels_create(struct tunnels **out, struct tls_members *tls, struct errmsg *em)
{
	struct tunnels *hub = calloc(1, sizeof(*hub));
	enum db_err err = DB_OK;

	*out = NULL;
	if (hub == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	hub->tls = tls;
	hub->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	hub->wake = (struct tunnel_end){TUNNEL_END_WAKE, wake_create(), 0, NULL};
	pthread_mutex_init(&hub->turn, NULL);
	pthread_mutex_init(&hub->mutex, NULL);
	if (hub->epoll_fd < 0 || hub->wake.fd < 0)
		err = errmsg_errno(em, errno, "cannot set up the links' tunnels");
	if (err == DB_OK && !tunnel_await(hub, &hub->wake, EPOLLIN))
		err = errmsg_set(em, DB_NOMEM, "cannot set up the links' tunnels: out of memory");
	if (err == DB_OK)
		err = start_thread(hub, em);
	if (err == DB_OK) {
		*out = hub;
		return DB_OK;
	}
	if (hub->epoll_fd >= 0)
		close(hub->epoll_fd);
	if (hub->wake.fd >= 0)
		close(hub->wake.fd);
	pthread_mutex_destroy(&hub->mutex);
	pthread_mutex_destroy(&hub->turn);
	free(hub);
	return err;
}

void tunnels_free(struct tunnels *hub)
{
	if (hub == NULL)
		return;
	tunnels_enter(hub);
	hub->stopping = true;
	tunnels_leave(hub);
	tunnel_wake(hub);
	pthread_join(hub->thread, NULL);
	while (hub->gates != NULL)
		tunnel_gate_retire(hub->gates);
	free_dead(hub);
	close(hub->epoll_fd);
	close(hub->wake.fd);
	pthread_mutex_destroy(&hub->mutex);
	pthread_mutex_destroy(&hub->turn);
	free(hub);
}

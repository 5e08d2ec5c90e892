/*
 * curl_loop.c - see curl_loop.h. libcurl says which sockets it wants watched and when it wants to be called next; each
 * socket gets one persistent event, kept by curl_multi_assign().
 */
#include "common/remote/curl_loop.h"

#include <stdlib.h>

struct curl_loop {
	struct event_base *base;
	CURLM *multi;
	struct event *timer;
	struct event *kick;
	struct curl_loop_hooks hooks;
	long host_connections_max;
	bool inside;
};

static void read_messages(struct curl_loop *l)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(l->multi, &left)) != NULL)
		if (message->msg == CURLMSG_DONE)
			l->hooks.done(l->hooks.arg, message->easy_handle, message->data.result);
}

static void act(struct curl_loop *l, curl_socket_t fd, int what)
{
	int running;

	l->inside = true;
	curl_multi_socket_action(l->multi, fd, what, &running); /* transfers' errors come as messages */
	l->inside = false;
	read_messages(l);
	l->hooks.after(l->hooks.arg);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	int action = ((what & EV_READ) != 0 ? CURL_CSELECT_IN : 0) | ((what & EV_WRITE) != 0 ? CURL_CSELECT_OUT : 0);

	act(arg, fd, action);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	act(arg, CURL_SOCKET_TIMEOUT, 0);
}

static void on_kick(evutil_socket_t fd, short what, void *arg)
{
	struct curl_loop *l = arg;

	(void)fd;
	(void)what;
	l->hooks.after(l->hooks.arg);
}

/* libcurl: watch this socket so, or no longer. */
static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *assigned)
{
	struct curl_loop *l = arg;
	struct event *event = assigned;
	short wanted = EV_PERSIST;

	(void)easy;
	if (event != NULL)
		event_free(event);
	if (what == CURL_POLL_REMOVE) {
		curl_multi_assign(l->multi, fd, NULL);
		return 0;
	}
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		wanted |= EV_READ;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		wanted |= EV_WRITE;
	event = event_new(l->base, fd, wanted, on_event, l);
	curl_multi_assign(l->multi, fd, event);
	if (event == NULL || event_add(event, NULL) != 0)
		return -1; /* the transfer fails */
	return 0;
}

static int on_timeout_wanted(CURLM *multi, long timeout_ms, void *arg)
{
	struct curl_loop *l = arg;
	struct timeval delay = {timeout_ms / 1000, timeout_ms % 1000 * 1000};

	(void)multi;
	if (timeout_ms < 0)
		return event_del(l->timer);
	return event_add(l->timer, &delay);
}

static CURLM *create_multi(struct curl_loop *l)
{
	CURLM *multi = curl_multi_init();

	if (multi == NULL)
		return NULL;
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, l);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timeout_wanted);
	curl_multi_setopt(multi, CURLMOPT_TIMERDATA, l);
	curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS, l->host_connections_max);
	/* libcurl's own cap on kept connections follows the transfers under way: an idle moment would close the
	 * pool. */
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, 64 * l->host_connections_max);
	return multi;
}

enum db_err curl_loop_create(struct curl_loop **out, struct event_base *base, const struct curl_loop_hooks *hooks,
			     long host_connections_max, struct errmsg *em)
{
	struct curl_loop *l = calloc(1, sizeof(*l));

	*out = NULL;
	if (l == NULL)
		return errmsg_set(em, DB_NOMEM, "HTTP client: out of memory");
	l->base = base;
	l->hooks = *hooks;
	l->host_connections_max = host_connections_max;
	l->timer = evtimer_new(base, on_timer, l);
	l->kick = evtimer_new(base, on_kick, l);
	l->multi = create_multi(l);
	if (l->multi == NULL || l->timer == NULL || l->kick == NULL) {
		curl_loop_free(l);
		return errmsg_set(em, DB_NOMEM, "HTTP client: out of memory");
	}
	*out = l;
	return DB_OK;
}

void curl_loop_free(struct curl_loop *l)
{
	if (l == NULL)
		return;
	if (l->multi != NULL)
		curl_multi_cleanup(l->multi); /* may still call on_socket() and on_timeout_wanted() */
	if (l->timer != NULL)
		event_free(l->timer);
	if (l->kick != NULL)
		event_free(l->kick);
	free(l);
}

void curl_loop_resume(struct curl_loop *l, CURL *easy)
{
	l->inside = true;
	curl_easy_pause(easy, CURLPAUSE_CONT); /* an error ends the transfer, which is told as such */
	l->inside = false;
	read_messages(l);
}

void curl_loop_close_connections(struct curl_loop *l)
{
	CURLM *fresh = create_multi(l);

	if (fresh == NULL)
		return;
	curl_multi_cleanup(l->multi);
	l->multi = fresh;
}

CURLM *curl_loop_multi(struct curl_loop *l)
{
	return l->multi;
}

bool curl_loop_is_inside(const struct curl_loop *l)
{
	return l->inside;
}

void curl_loop_kick(struct curl_loop *l)
{
	static const struct timeval at_once = {0, 0};

	event_add(l->kick, &at_once);
}

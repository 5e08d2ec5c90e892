/*
 * link_door.c - REP sockets listen, and go on listening: see link_priv.h.
 *
 * Threads: one for each listening socket, and NNG's, which call admit(). Nothing blocks but a name lookup before
 * listening.
 *
 * Much of it heals a fault of NNG 1.5 (nanomsg/nng issue 1518, mended in 1.6): when a peer ends its connection
 * before the handshake has been sent to it (EPIPE, which NNG words NNG_ECLOSED), the listener or dialer believes that
 * it was itself closed, and never accepts or connects again. That happens whenever a process is paused while a client
 * gives up on it. A dead listener goes on shaking hands, then leaves the connection lying, so no peer can tell. What
 * can be seen from within is the counter "other" of NNG's statistics, which grows at that moment, but also at failures
 * that do no harm.
 *
 * So each listening socket has a thread that looks at the counter every LINK_TEND_MS. When it has grown, it connects to
 * its own address like a peer would, and if neither this nor any other connection gets through within LINK_KNOCKS times
 * LINK_KNOCK_LOOKS looks, it opens a new listener in the old one's place. Looks are counted, not the time: a pause of
 * the whole process counts as one. The old listener's connections end with it, which is one reason why strangers are
 * kept from it when there is TLS (tunnel.h).
 */
#include "common/wire/link_priv.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"

#define LINK_TEND_MS     200 /* between two looks at a listener's counters: some 20 us each */
#define LINK_KNOCKS      2   /* connections to ourselves that must go unheard; each is given up after */
#define LINK_KNOCK_LOOKS 10  /* looks, which are */
#define LINK_LOOK_MS     20  /* apart; NNG rests 100 ms after a failure that does no harm */
#define LINK_HELLO_LEN   8   /* what either end of a connection says first */

static struct link_seat *find_seat(struct link_door *door, uint32_t pipe_id)
{
	size_t i;

	for (i = 0; i < LINK_PIPES_MAX; i++)
		if (door->seats[i].pipe_id == pipe_id)
			return &door->seats[i];
	return NULL;
}

/* Who is to leave first: one who never spoke, then the one who has been silent longest. */
static bool leaves_before(const struct link_seat *a, const struct link_seat *b)
{
	return a->spoke != b->spoke ? b->spoke : a->since_ms < b->since_ms;
}

/* Gives the connection a seat; when all are taken, one whose connection is returned, to be closed. Otherwise anybody
 * who opens connections and says nothing could keep a master from its replicas. */
static nng_pipe take_seat(struct link_door *door, uint32_t pipe_id)
{
	nng_pipe evicted = NNG_PIPE_INITIALIZER;
	struct link_seat *seat;
	size_t i;

	pthread_mutex_lock(&door->seat_lock);
	seat = find_seat(door, 0);
	if (seat == NULL) {
		seat = &door->seats[0];
		for (i = 1; i < LINK_PIPES_MAX; i++)
			if (leaves_before(&door->seats[i], seat))
				seat = &door->seats[i];
		evicted.id = seat->pipe_id;
	}
	*seat = (struct link_seat){.pipe_id = pipe_id, .since_ms = clock_mono_ms()};
	pthread_mutex_unlock(&door->seat_lock);
	return evicted;
}

/* Runs before a connection can carry anything, and after it has ended; on an NNG thread. */
static void admit(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
	struct link_door *door = arg;
	struct link_seat *seat;
	nng_pipe evicted;

	if (event == NNG_PIPE_EV_REM_POST) {
		pthread_mutex_lock(&door->seat_lock);
		seat = find_seat(door, (uint32_t)nng_pipe_id(pipe));
		if (seat != NULL) /* else another connection has it */
			*seat = (struct link_seat){0};
		pthread_mutex_unlock(&door->seat_lock);
		return;
	}
	if (atomic_load(&door->listener_id) == nng_listener_id(nng_pipe_listener(pipe)))
		atomic_fetch_add(&door->arrivals, 1);
	evicted = take_seat(door, (uint32_t)nng_pipe_id(pipe));
	if (evicted.id != 0)
		nng_pipe_close(evicted);
}

void link_door_heard(struct link_door *door, nng_pipe pipe)
{
	struct link_seat *seat;

	pthread_mutex_lock(&door->seat_lock);
	seat = find_seat(door, (uint32_t)nng_pipe_id(pipe));
	if (seat != NULL) {
		seat->spoke = true;
		seat->since_ms = clock_mono_ms();
	}
	pthread_mutex_unlock(&door->seat_lock);
}

/* Says hello on fd once it is connected, as the protocol's other side would, and takes what comes back. */
static void shake_hands(const struct link_door *door, int fd, bool *said_hello)
{
	uint8_t hello[LINK_HELLO_LEN] = {0, 'S', 'P', 0};
	uint8_t answer[LINK_HELLO_LEN];
	ssize_t got;
	int peer = 0;

	if (!*said_hello && nng_socket_get_int(door->sock, NNG_OPT_PEER, &peer) == 0) {
		hello[4] = (uint8_t)(peer >> 8);
		hello[5] = (uint8_t)peer;
		*said_hello = send(fd, hello, sizeof(hello), MSG_NOSIGNAL) == sizeof(hello);
	}
	do
		got = recv(fd, answer, sizeof(answer), 0);
	while (got > 0);
}

/* Whether somebody listens behind an ipc:// file; one that nobody does is removed. NNG looks, too, but hangs up at
 * once, which may be the end of the listener that it looks for. */
static bool file_is_taken(const struct link_door *door, const char *url)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct pollfd answer = {.fd = -1, .events = POLLIN};
	bool said_hello = false;
	bool taken;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", url + strlen("ipc://"));
	answer.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (answer.fd < 0)
		return false; /* NNG will say what it makes of that */
	taken = connect(answer.fd, (struct sockaddr *)&address, sizeof(address)) == 0;
	if (taken) {
		shake_hands(door, answer.fd, &said_hello);
		poll(&answer, 1, LINK_TEND_MS);
		shake_hands(door, answer.fd, &said_hello);
	} else if (errno == ECONNREFUSED) {
		unlink(address.sun_path);
	}
	close(answer.fd);
	return taken;
}

static int door_open(struct link_door *door)
{
	int rv;

	if (link_url_is_ipc(door->url) && file_is_taken(door, door->url))
		return NNG_EADDRINUSE;
	rv = nng_listener_create(&door->listener, door->sock, door->url);
	if (rv != 0)
		return rv;
	atomic_store(&door->listener_id, nng_listener_id(door->listener));
	if (link_url_is_tcp(door->url)) {
		rv = nng_listener_set_bool(door->listener, NNG_OPT_TCP_NODELAY, true);
		if (rv == 0)
			rv = nng_listener_set_bool(door->listener, NNG_OPT_TCP_KEEPALIVE, true);
	}
	if (rv == 0)
		rv = nng_listener_start(door->listener, 0);
	if (rv != 0)
		nng_listener_close(door->listener);
	door->listening = rv == 0;
	door->failures = 0;
	return rv;
}

/* False: the link is being freed. */
static bool door_pause(struct link_door *door, unsigned ms)
{
	bool go_on;

	pthread_mutex_lock(&door->lock);
	while (!door->closing && clock_wait(&door->wake, &door->lock, clock_mono_us() + ms * 1000u))
		continue;
	go_on = !door->closing;
	pthread_mutex_unlock(&door->lock);
	return go_on;
}

/* The address we listen at, for connect(2); 0 when there is none. A wildcard address means ourselves to connect(2). */
static socklen_t own_address(const struct link_door *door, struct sockaddr_storage *out)
{
	struct sockaddr_un *un = (struct sockaddr_un *)out;
	struct sockaddr_in *in = (struct sockaddr_in *)out;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
	nng_sockaddr from;

	memset(out, 0, sizeof(*out));
	if (nng_listener_get_addr(door->listener, NNG_OPT_LOCADDR, &from) != 0)
		return 0;
	switch (from.s_family) {
	case NNG_AF_IPC:
		un->sun_family = AF_UNIX;
		memcpy(un->sun_path, from.s_ipc.sa_path, strnlen(from.s_ipc.sa_path, sizeof(un->sun_path) - 1));
		return sizeof(*un);
	case NNG_AF_INET:
		*in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = from.s_in.sa_port};
		in->sin_addr.s_addr = from.s_in.sa_addr;
		return sizeof(*in);
	case NNG_AF_INET6:
		*in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = from.s_in6.sa_port};
		in6->sin6_scope_id = from.s_in6.sa_scope;
		memcpy(&in6->sin6_addr, from.s_in6.sa_addr, sizeof(in6->sin6_addr));
		return sizeof(*in6);
	default:
		return 0;
	}
}

/* Begins to connect to ourselves; -1: impossible now, which says nothing about the listener. */
static int knock(const struct link_door *door)
{
	struct sockaddr_storage address;
	socklen_t len = own_address(door, &address);
	int fd;

	if (len == 0)
		return -1;
	fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	/* Whatever connect() says, the looks that follow are for any connection to get through. */
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, len) != 0 && errno != EINPROGRESS)
		log_debug("link: connecting to ourselves at %s failed: errno %d", door->url, errno);
	return fd;
}

enum knock_result { KNOCK_HEARD, KNOCK_UNHEARD, KNOCK_GIVEN_UP };

static enum knock_result knock_and_listen(struct link_door *door)
{
	unsigned before = atomic_load(&door->arrivals);
	enum knock_result result = KNOCK_UNHEARD;
	bool said_hello = false;
	int fd = knock(door);
	unsigned i;

	if (fd < 0)
		return KNOCK_GIVEN_UP;
	for (i = 0; i < LINK_KNOCK_LOOKS && result == KNOCK_UNHEARD; i++) {
		shake_hands(door, fd, &said_hello);
		if (!door_pause(door, LINK_LOOK_MS))
			result = KNOCK_GIVEN_UP;
		else if (atomic_load(&door->arrivals) != before)
			result = KNOCK_HEARD;
	}
	shake_hands(door, fd, &said_hello); /* bytes left unread would make the close a reset */
	close(fd);
	return result;
}

/* Whether the listener has to be replaced. */
static bool is_dead(struct link_door *door)
{
	enum knock_result result = KNOCK_UNHEARD;
	struct link_tally now;
	unsigned i;

	if (!link_tally_read(&now, "listener", nng_listener_id(door->listener)) || now.failures == door->failures)
		return false;
	for (i = 0; i < LINK_KNOCKS && result == KNOCK_UNHEARD; i++)
		result = knock_and_listen(door);
	if (result == KNOCK_HEARD)
		door->failures = now.failures; /* as counted before: a later failure is looked into by itself */
	return result == KNOCK_UNHEARD;
}

/* Closes a dead listener; false: the link is being freed. A client that connects to a socket file while NNG closes the
 * listener behind it may hang until its own deadline, so first nobody finds the file, and who did is let in. */
static bool retire(struct link_door *door)
{
	if (link_url_is_ipc(door->url)) {
		unlink(door->url + strlen("ipc://")); /* NNG would do it a little later */
		if (!door_pause(door, LINK_LOOK_MS))
			return false;
	}
	nng_listener_close(door->listener);
	door->listening = false;
	return true;
}

/* False: the link is being freed. */
static bool look_after(struct link_door *door)
{
	int rv;

	if (door->listening) {
		if (!is_dead(door))
			return true;
		log_warn("link: %s had stopped accepting connections; listening afresh", door->url);
		if (!retire(door))
			return false;
	}
	rv = door_open(door);
	if (rv != 0 && !door->logged)
		log_warn("link: cannot listen at %s: %s; trying again", door->url, nng_strerror(rv));
	if (rv == 0 && door->logged)
		log_info("link: listening at %s again", door->url);
	door->logged = rv != 0;
	return true;
}

/* The thread of a listening socket. */
static void *door_tend(void *arg)
{
	struct link_door *door = arg;

	while (door_pause(door, LINK_TEND_MS))
		if (!look_after(door))
			break;
	return NULL;
}

/* Notes the TCP port that was bound, also in the url, which may have asked for any. */
static int note_port(struct link_door *door, uint16_t *port)
{
	char *colon = strrchr(door->url, ':');
	int bound = 0;
	int rv = 0;

	if (link_url_is_tcp(door->url)) {
		rv = nng_listener_get_int(door->listener, NNG_OPT_TCP_BOUND_PORT, &bound);
		snprintf(colon + 1, LINK_URL_MAX - (size_t)(colon + 1 - door->url), "%d", bound);
	}
	*port = (uint16_t)bound;
	return rv;
}

enum db_err link_listen(struct link_door *door, nng_socket sock, const char *url, uint16_t *port, struct errmsg *em)
{
	int rv;

	memset(door, 0, sizeof(*door));
	if (strlen(url) + strlen("65535") >= LINK_URL_MAX) /* it may grow by its port */
		return errmsg_set(em, DB_INVALID, "\"%s\" is too long for an address", url);
	memcpy(door->url, url, strlen(url) + 1);
	door->sock = sock;
	pthread_mutex_init(&door->seat_lock, NULL);
	rv = nng_pipe_notify(sock, NNG_PIPE_EV_ADD_PRE, admit, door);
	if (rv == 0)
		rv = nng_pipe_notify(sock, NNG_PIPE_EV_REM_POST, admit, door);
	if (rv == 0)
		rv = door_open(door);
	if (rv == 0) {
		rv = note_port(door, port);
		if (rv != 0)
			nng_listener_close(door->listener);
	}
	if (rv != 0)
		return link_error(em, rv, "cannot listen at", url);
	pthread_mutex_init(&door->lock, NULL);
	pthread_cond_init(&door->wake, NULL);
	rv = pthread_create(&door->thread, NULL, door_tend, door);
	if (rv == 0)
		return DB_OK;
	pthread_cond_destroy(&door->wake);
	pthread_mutex_destroy(&door->lock);
	return errmsg_errno(em, rv, "cannot start a thread for %s", url);
}

void link_unlisten(struct link_door *door)
{
	pthread_mutex_lock(&door->lock);
	door->closing = true;
	pthread_cond_signal(&door->wake);
	pthread_mutex_unlock(&door->lock);
	pthread_join(door->thread, NULL);
	pthread_cond_destroy(&door->wake);
	pthread_mutex_destroy(&door->lock);
}

void link_door_fini(struct link_door *door)
{
	pthread_mutex_destroy(&door->seat_lock);
}

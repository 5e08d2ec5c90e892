/* service_manager.c - see service_manager.h. */
#include "supervisor/service_manager.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"

#define STATUS_EVERY_US  2000000u /* how often the line of status is looked at */
#define PINGS_PER_PERIOD 4u       /* a ping may be late without harm */
#define STATUS_MAX       512

struct service_manager {
	struct service_manager_options options;
	int fd;
	struct sockaddr_un address;
	socklen_t address_len;
	bool watchdog;
	bool stuck;            /* the watchdog was not answered last time, which was logged */
	bool failing;          /* the last datagram was not sent, which was logged */
	bool ready_untold;     /* READY=1 has to be said again: the manager waits for it */
	uint64_t status_us;    /* when the line was last looked at */
	char told[STATUS_MAX]; /* the last line told */
	struct event *timer;
};

/* False: not sent. The manager has not read what was told before, for example. */
static bool tell(struct service_manager *m, const char *text)
{
	bool failed = sendto(m->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT,
			     (const struct sockaddr *)&m->address, m->address_len) < 0;

	if (failed && !m->failing)
		log_warn("the service manager cannot be told \"%.40s\": %s", text, strerror(errno));
	m->failing = failed;
	return !failed;
}

static void tell_status(struct service_manager *m)
{
	char line[STATUS_MAX + 16];
	char status[STATUS_MAX] = "";

	m->options.describe(m->options.arg, status, sizeof(status));
	if (strcmp(status, m->told) == 0)
		return;
	snprintf(line, sizeof(line), "STATUS=%s", status);
	if (tell(m, line))
		memcpy(m->told, status, sizeof(m->told));
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct service_manager *m = arg;
	uint64_t now_us = clock_mono_us();
	bool alive = m->options.alive(m->options.arg);

	(void)fd;
	(void)what;
	if (m->ready_untold)
		service_manager_ready(m);
	if (m->watchdog && alive)
		tell(m, "WATCHDOG=1");
	if (m->watchdog && !alive && !m->stuck)
		log_error("the watchdog is not answered, for the cluster core does not get on");
	m->stuck = !alive;
	if (now_us - m->status_us >= STATUS_EVERY_US) {
		m->status_us = now_us;
		tell_status(m);
	}
}

/* $WATCHDOG_USEC, if it is meant for this process; 0: there is no watchdog. */
static uint64_t watchdog_us(void)
{
	const char *period = getenv("WATCHDOG_USEC");
	const char *pid = getenv("WATCHDOG_PID");

	if (period == NULL || (pid != NULL && strtol(pid, NULL, 10) != (long)getpid()))
		return 0;
	return strtoull(period, NULL, 10);
}

/* "@name" is a socket without a file. */
static enum db_err set_address(struct service_manager *m, const char *path, struct errmsg *em)
{
	size_t len = strlen(path);

	if ((path[0] != '/' && path[0] != '@') || len < 2 || len >= sizeof(m->address.sun_path))
		return errmsg_set(em, DB_INVALID, "NOTIFY_SOCKET: \"%s\" is no usable socket", path);
	m->address.sun_family = AF_UNIX;
	memcpy(m->address.sun_path, path, len);
	if (path[0] == '@')
		m->address.sun_path[0] = '\0';
	m->address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (path[0] == '/'));
	return DB_OK;
}

static enum db_err start(struct service_manager *m, const char *path, struct errmsg *em)
{
	uint64_t period_us = watchdog_us();
	uint64_t every_us = period_us > 0 ? period_us / PINGS_PER_PERIOD : STATUS_EVERY_US;
	struct timeval every;
	enum db_err err = set_address(m, path, em);

	if (every_us > STATUS_EVERY_US)
		every_us = STATUS_EVERY_US;
	every = (struct timeval){(time_t)(every_us / 1000000), (suseconds_t)(every_us % 1000000)};
	if (err != DB_OK)
		return err;
	m->watchdog = period_us > 0;
	m->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (m->fd < 0)
		return errmsg_errno(em, errno, "cannot create a socket for the service manager");
	m->timer = event_new(m->options.base, -1, EV_PERSIST, on_timer, m);
	if (m->timer == NULL || event_add(m->timer, &every) != 0)
		return errmsg_set(em, DB_NOMEM, "cannot set up the watchdog's timer");
	return DB_OK;
}

enum db_err service_manager_create(struct service_manager **out, const struct service_manager_options *options,
				   struct errmsg *em)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct service_manager *m;
	enum db_err err;

	*out = NULL;
	if (path == NULL || path[0] == '\0')
		return DB_OK;
	m = calloc(1, sizeof(*m));
	if (m == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for the service manager's socket");
	m->fd = -1;
	m->options = *options;
	err = start(m, path, em);
	if (err != DB_OK) {
		service_manager_free(m);
		return err;
	}
	*out = m;
	return DB_OK;
}

void service_manager_ready(struct service_manager *m)
{
	char text[64];

	if (m == NULL)
		return;
	snprintf(text, sizeof(text), "READY=1\nMAINPID=%d", (int)getpid());
	m->ready_untold = !tell(m, text);
}

void service_manager_reloading(struct service_manager *m)
{
	char text[96];

	if (m == NULL)
		return;
	snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_mono_us());
	tell(m, text);
}

void service_manager_stopping(struct service_manager *m)
{
	if (m != NULL)
		tell(m, "STOPPING=1\nSTATUS=stopping");
}

void service_manager_free(struct service_manager *m)
{
	if (m == NULL)
		return;
	if (m->timer != NULL)
		event_free(m->timer);
	if (m->fd >= 0)
		close(m->fd);
	free(m);
}

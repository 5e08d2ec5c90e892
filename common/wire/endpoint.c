/*
 * endpoint.c - addresses and listening sockets: see endpoint.h.
 */
#include "common/wire/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTEN_QUEUE 128

enum db_err endpoint_resolve(struct endpoint *out, const char *address, bool names, bool passive, struct errmsg *em)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0)};
	const char *colon = strrchr(address, ':');
	struct addrinfo *found = NULL;
	char host[256];
	int rc;

	if (colon == NULL || colon == address || (size_t)(colon - address) >= sizeof(host))
		return errmsg_set(em, DB_INVALID, "\"%s\" is not an address: host:port expected", address);
	snprintf(host, sizeof(host), "%.*s", (int)(colon - address), address);
	if (host[0] == '[' && host[strlen(host) - 1] == ']') {
		host[strlen(host) - 1] = '\0';
		memmove(host, host + 1, strlen(host));
	}
	if (!names && strcmp(host, "localhost") != 0)
		hints.ai_flags |= AI_NUMERICHOST;
	rc = getaddrinfo(host, colon + 1, &hints, &found);
	if (rc != 0)
		return errmsg_set(em, DB_INVALID, "\"%s\" is no address of a member: %s", address, gai_strerror(rc));
	memset(out, 0, sizeof(*out));
	memcpy(&out->at, found->ai_addr, found->ai_addrlen);
	out->len = found->ai_addrlen;
	freeaddrinfo(found);
	return DB_OK;
}

enum db_err endpoint_file(struct endpoint *out, const char *path, struct errmsg *em)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&out->at;

	if (strlen(path) >= sizeof(un->sun_path))
		return errmsg_set(em, DB_INVALID, "\"%s\" is too long for a Unix socket", path);
	memset(out, 0, sizeof(*out));
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, strlen(path) + 1);
	out->len = sizeof(*un);
	return DB_OK;
}

/* A file that nobody listens behind any more is in the way of a new one. */
static void remove_stale(const struct endpoint *e)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return;
	if (connect(fd, (const struct sockaddr *)&e->at, e->len) != 0 && errno == ECONNREFUSED)
		unlink(((const struct sockaddr_un *)&e->at)->sun_path);
	close(fd);
}

enum db_err endpoint_listen(int *fd, const struct endpoint *e, const char *name, struct errmsg *em)
{
	const int one = 1;
	int rc;

	if (e->at.ss_family == AF_UNIX)
		remove_stale(e);
	*fd = socket(e->at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (*fd < 0)
		return errmsg_errno(em, errno, "no socket for %s", name);
	if (e->at.ss_family == AF_UNIX)
		rc = fchmod(*fd, 0600); /* the file gets the mode of the socket */
	else
		rc = setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (rc == 0)
		rc = bind(*fd, (const struct sockaddr *)&e->at, e->len);
	if (rc == 0)
		rc = listen(*fd, LISTEN_QUEUE);
	if (rc == 0)
		return DB_OK;
	rc = errno;
	close(*fd);
	*fd = -1;
	if (rc == EADDRINUSE)
		return errmsg_set(em, DB_BUSY, "cannot listen at %s: the address is in use", name);
	return errmsg_errno(em, rc, "cannot listen at %s", name);
}

uint16_t endpoint_port(int fd)
{
	struct sockaddr_storage bound;
	socklen_t len = sizeof(bound);

	if (getsockname(fd, (struct sockaddr *)&bound, &len) != 0)
		return 0;
	if (bound.ss_family == AF_INET6)
		return ntohs(((struct sockaddr_in6 *)&bound)->sin6_port);
	return bound.ss_family == AF_INET ? ntohs(((struct sockaddr_in *)&bound)->sin_port) : 0;
}

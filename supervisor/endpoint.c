/* endpoint.c - see endpoint.h. */
#include "supervisor/endpoint.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/base/fdpass.h"
#include "common/base/log.h"

#define FETCH_TIMEOUT_MS 500u
#define INHERITED_FD     3 /* where a node has it: see launcher.c */

#define BIND_TRIES_MAX 75 /* 1.5 s in all */

static enum db_err resolve(struct addrinfo **out, const struct cluster_config *config, struct errmsg *em)
{
	struct addrinfo hints;
	char port[16];
	int code;

	memset(&hints, 0, sizeof(hints));
	hints.ai_socktype = SOCK_STREAM;
	hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
	snprintf(port, sizeof(port), "%u", config->http_port);
	code = getaddrinfo(config->bind, port, &hints, out);
	if (code != 0)
		return errmsg_set(em, DB_INVALID, "cannot find the address \"%s\" (setting \"bind\"): %s", config->bind,
				  gai_strerror(code));
	return DB_OK;
}

enum db_err endpoint_bind(int *fd, const struct cluster_config *config, struct errmsg *em)
{
	char address[CONFIG_ADDRESS_MAX];
	struct addrinfo *ai = NULL;
	const int on = 1;
	enum db_err err;
	int sock;

	*fd = -1;
	config_endpoint_address(config, address);
	err = resolve(&ai, config, em);
	if (err != DB_OK)
		return err;
	sock = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (sock < 0) {
		err = errmsg_errno(em, errno, "cannot create the socket of the endpoint");
		goto free_addresses;
	}
	if (setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
	    bind(sock, ai->ai_addr, ai->ai_addrlen) != 0 || listen(sock, ENDPOINT_BACKLOG) != 0) {
		if (errno == EADDRNOTAVAIL)
			err = errmsg_set(em, DB_INVALID, "%s is no address of this host (setting \"bind\")",
					 config->bind);
		else
			err = errmsg_errno(em, errno, "cannot listen at %s (settings \"bind\" and \"http_port\")",
					   address);
		close(sock);
		goto free_addresses;
	}
	*fd = sock;
free_addresses:
	freeaddrinfo(ai);
	return err;
}

static bool same_address(const struct sockaddr_storage *have, const struct sockaddr *want)
{
	if (have->ss_family != want->sa_family)
		return false;
	if (want->sa_family == AF_INET) {
		const struct sockaddr_in *a = (const struct sockaddr_in *)have;
		const struct sockaddr_in *b = (const struct sockaddr_in *)want;

		return a->sin_port == b->sin_port && a->sin_addr.s_addr == b->sin_addr.s_addr;
	}
	if (want->sa_family == AF_INET6) {
		const struct sockaddr_in6 *a = (const struct sockaddr_in6 *)have;
		const struct sockaddr_in6 *b = (const struct sockaddr_in6 *)want;

		return a->sin6_port == b->sin6_port && memcmp(&a->sin6_addr, &b->sin6_addr, sizeof(a->sin6_addr)) == 0;
	}
	return false;
}

/* Is it what endpoint_bind() would have made? */
static enum db_err check_socket(int fd, const struct cluster_config *config, struct errmsg *em)
{
	char address[CONFIG_ADDRESS_MAX];
	struct sockaddr_storage have;
	socklen_t len = sizeof(have);
	struct addrinfo *list = NULL;
	struct addrinfo *ai;
	int accepting = 0;
	socklen_t accepting_len = sizeof(accepting);
	enum db_err err;

	memset(&have, 0, sizeof(have));
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepting, &accepting_len) != 0 || accepting == 0 ||
	    getsockname(fd, (struct sockaddr *)&have, &len) != 0)
		return errmsg_set(em, DB_INVALID, "what was handed over is no listening socket");
	err = resolve(&list, config, em);
	if (err != DB_OK)
		return err;
	for (ai = list; ai != NULL; ai = ai->ai_next)
		if (same_address(&have, ai->ai_addr))
			break;
	freeaddrinfo(list);
	config_endpoint_address(config, address);
	return ai != NULL ? DB_OK
			  : errmsg_set(em, DB_INVALID,
				       "the running nodes listen at another address than %s (settings \"bind\" and "
				       "\"http_port\"): stop them first",
				       address);
}

static enum db_err fetch_from(int *fd, const struct process *node, unsigned index, struct errmsg *em)
{
	char path[64];
	enum db_err err;

	snprintf(path, sizeof(path), "run/node%u.fd", index + 1);
	err = fdpass_fetch(path, fd, FETCH_TIMEOUT_MS, em);
	if (err == DB_OK)
		return DB_OK;
	/* Hung, or not yet that far. The kernel can give us its descriptor where tracing is allowed. */
	*fd = pidfd_getfd(node->pidfd, INHERITED_FD, 0);
	return *fd >= 0 ? DB_OK : err;
}

enum db_err endpoint_fetch(int *fd, const struct cluster_config *config, const struct process *nodes, unsigned count,
			   struct errmsg *em)
{
	enum db_err err = errmsg_set(em, DB_UNAVAILABLE, "no node runs that could hand over the endpoint's socket");
	unsigned i;

	for (i = 0; i < count; i++) {
		if (nodes[i].pidfd < 0)
			continue;
		err = fetch_from(fd, &nodes[i], i, em);
		if (err == DB_OK)
			err = check_socket(*fd, config, em);
		if (err == DB_OK)
			return DB_OK;
		if (*fd >= 0)
			close(*fd);
		*fd = -1;
	}
	return err;
}

/* After a crash of everything the old processes may take a moment to be gone, and their sockets with them. */
static enum db_err bind_patiently(int *fd, const struct cluster_config *config, struct errmsg *em)
{
	const struct timespec rest = {.tv_nsec = 20 * 1000000L};
	enum db_err err = endpoint_bind(fd, config, em);
	unsigned tries;

	for (tries = 0; err == DB_BUSY && tries < BIND_TRIES_MAX; tries++) {
		nanosleep(&rest, NULL);
		err = endpoint_bind(fd, config, em);
	}
	return err;
}

enum db_err endpoint_open(int *fd, const struct cluster_config *config, const struct process nodes[CONFIG_NODES_MAX],
			  struct errmsg *em)
{
	struct errmsg fetch_em = {0};
	bool any = false;
	enum db_err err;
	unsigned n;

	for (n = 0; n < CONFIG_NODES_MAX; n++)
		any = any || nodes[n].pidfd >= 0;
	if (!any)
		return bind_patiently(fd, config, em);
	err = endpoint_fetch(fd, config, nodes, CONFIG_NODES_MAX, &fetch_em);
	if (err == DB_OK)
		return DB_OK;
	log_warn("no running node hands over the endpoint: %s", fetch_em.text);
	if (err != DB_INVALID && endpoint_bind(fd, config, em) == DB_OK)
		return DB_OK;
	return errmsg_set(em, err, "cannot take over the endpoint from the running nodes: %s", fetch_em.text);
}

/* addresses.c - see addresses.h. */
#include "supervisor/addresses.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define HOST_MAX        256
#define REPLICATION_OFF 100u
#define ACKS_OFF        200u

/* ---- reading an address */

static enum db_err split(const char *text, char host[HOST_MAX], unsigned *port, struct errmsg *em)
{
	const char *colon = strrchr(text, ':');
	size_t len = colon == NULL ? 0 : (size_t)(colon - text);
	unsigned long v = 0;
	char *end = NULL;

	if (colon != NULL && colon[1] >= '0' && colon[1] <= '9' && strlen(colon + 1) <= 5)
		v = strtoul(colon + 1, &end, 10);
	if (end == NULL || *end != '\0' || v < 1 || v > 65535 || len == 0 || len >= HOST_MAX)
		return errmsg_set(em, DB_INVALID, "\"%.100s\" is no address like host:port", text);
	if (text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	} else if (memchr(text, ':', len) != NULL) {
		return errmsg_set(em, DB_INVALID, "\"%.100s\": an IPv6 address needs brackets, like [::1]:8080", text);
	}
	memcpy(host, text, len);
	host[len] = '\0';
	*port = (unsigned)v;
	return DB_OK;
}

struct address {
	int family;
	union {
		struct in_addr v4;
		struct in6_addr v6;
	} u;
};

static bool parse_numeric(const char *host, struct address *out)
{
	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, host, &out->u.v4) == 1)
		out->family = AF_INET;
	else if (inet_pton(AF_INET6, host, &out->u.v6) == 1)
		out->family = AF_INET6;
	return out->family != 0;
}

static bool is_loopback(const struct address *a)
{
	if (a->family == AF_INET)
		return ntohl(a->u.v4.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&a->u.v6);
}

static bool is_wildcard(const struct address *a)
{
	return a->family == AF_INET ? a->u.v4.s_addr == htonl(INADDR_ANY) : IN6_IS_ADDR_UNSPECIFIED(&a->u.v6);
}

static bool is_of_interface(const struct address *a)
{
	struct ifaddrs *list = NULL;
	struct ifaddrs *i;
	bool found = false;

	if (getifaddrs(&list) != 0)
		return false;
	for (i = list; i != NULL && !found; i = i->ifa_next) {
		if (i->ifa_addr == NULL || i->ifa_addr->sa_family != a->family)
			continue;
		if (a->family == AF_INET)
			found = ((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr.s_addr == a->u.v4.s_addr;
		else
			found = memcmp(&((struct sockaddr_in6 *)(void *)i->ifa_addr)->sin6_addr, &a->u.v6,
				       sizeof(a->u.v6)) == 0;
	}
	freeifaddrs(list);
	return found;
}

static bool is_own_name(const char *host)
{
	char own[HOST_MAX] = "";

	if (strcasecmp(host, "localhost") == 0)
		return true;
	return gethostname(own, sizeof(own) - 1) == 0 && strcasecmp(host, own) == 0;
}

/* Every node listens at "bind": the address has to be that one, or lead to it. */
static enum db_err check_host(const char *host, const struct cluster_config *config, struct errmsg *em)
{
	struct address given, bound;
	bool known = parse_numeric(host, &given);

	if (strcasecmp(host, config->bind) == 0 || is_own_name(host) || (known && is_loopback(&given)))
		return DB_OK;
	if (!known || !is_of_interface(&given))
		return errmsg_set(em, DB_INVALID,
				  "\"%.100s\" is no address of this host; nodes on other hosts need a coordinator that "
				  "spans hosts, which is not available",
				  host);
	if (parse_numeric(config->bind, &bound) && !is_wildcard(&bound) && memcmp(&given, &bound, sizeof(given)) != 0)
		return errmsg_set(em, DB_INVALID,
				  "every node of this cluster listens at %s (setting \"bind\"), not at %s",
				  config->bind, host);
	return DB_OK;
}

static enum db_err read_address(const char *text, const struct cluster_config *config, unsigned *port,
				struct errmsg *em)
{
	char host[HOST_MAX];
	enum db_err err = split(text, host, port, em);

	return err == DB_OK ? check_host(host, config, em) : err;
}

/* ---- members */

static bool uses(const struct members_entry *e, unsigned port)
{
	return members_present(e->state) &&
	       (e->http_port == port || e->replication_port == port || e->ack_port == port);
}

static unsigned member_at(const struct members *m, unsigned port)
{
	unsigned n;

	for (n = 0; n < MEMBERS_MAX; n++)
		if (uses(&m->entries[n], port))
			return n;
	return MEMBERS_NOBODY;
}

static bool parse_node_id(const char *text, unsigned *out)
{
	char *end;
	unsigned long v;

	if (strncasecmp(text, "node", 4) != 0 || text[4] < '1' || text[4] > '9')
		return false;
	v = strtoul(text + 4, &end, 10);
	if (*end != '\0')
		return false;
	*out = v <= MEMBERS_MAX ? (unsigned)v - 1 : MEMBERS_NOBODY;
	return true;
}

enum db_err addresses_find(unsigned *out, const char *text, const struct members *m,
			   const struct cluster_config *config, struct errmsg *em)
{
	unsigned port;
	enum db_err err;

	if (parse_node_id(text, out)) {
		if (*out != MEMBERS_NOBODY && members_present(m->entries[*out].state))
			return DB_OK;
		return errmsg_set(em, DB_NOTFOUND, "there is no node \"%.60s\" in this cluster", text);
	}
	err = read_address(text, config, &port, em);
	if (err != DB_OK)
		return err;
	*out = member_at(m, port);
	if (*out == MEMBERS_NOBODY)
		return errmsg_set(em, DB_NOTFOUND, "no node of this cluster has the address \"%.100s\"", text);
	return DB_OK;
}

/* The node that the port belongs to by the configuration; 0: none. */
static unsigned standard_node(const struct cluster_config *config, unsigned port)
{
	unsigned k = port - config->http_port;

	if (port > config->http_port && k <= MEMBERS_MAX)
		return k;
	k -= REPLICATION_OFF;
	return port > config->http_port + REPLICATION_OFF && k <= MEMBERS_MAX ? k : 0;
}

static unsigned next_number(const struct members *m)
{
	unsigned n = MEMBERS_MAX;

	while (n > 0 && m->entries[n - 1].state == MEMBERS_NONE)
		n--;
	return n;
}

static enum db_err check_ports(const struct members_entry *e, const struct members *m,
			       const struct cluster_config *config, struct errmsg *em)
{
	const unsigned ports[] = {e->http_port, e->replication_port, e->ack_port};
	unsigned n;
	size_t i;

	for (i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
		if (ports[i] == config->http_port)
			return errmsg_set(em, DB_INVALID, "port %u is the endpoint's", ports[i]);
		n = member_at(m, ports[i]);
		if (n != MEMBERS_NOBODY)
			return errmsg_set(
			    em, DB_INVALID,
			    "the new node would listen at port %u (ports port, +100 and +200), which node%u has",
			    ports[i], n + 1);
	}
	return DB_OK;
}

enum db_err addresses_new(unsigned *out, struct members_entry *entry, const char *text, const struct members *m,
			  const struct cluster_config *config, struct errmsg *em)
{
	unsigned port, k;
	enum db_err err = read_address(text, config, &port, em);

	if (err != DB_OK)
		return err;
	*out = member_at(m, port);
	if (*out != MEMBERS_NOBODY) {
		*entry = m->entries[*out];
		return DB_OK;
	}
	k = standard_node(config, port);
	if (k > 0 && m->entries[k - 1].state == MEMBERS_NONE) {
		*out = k - 1;
		members_standard_ports(entry, config, k);
	} else {
		*out = next_number(m);
		if (*out >= MEMBERS_MAX)
			return errmsg_set(em, DB_FULL, "every number from node1 to node%u was used already",
					  MEMBERS_MAX);
		if (port + ACKS_OFF > 65535)
			return errmsg_set(em, DB_INVALID, "port %u leaves no room for port + 100 and port + 200", port);
		entry->http_port = (uint16_t)port;
		entry->replication_port = (uint16_t)(port + REPLICATION_OFF);
		entry->ack_port = (uint16_t)(port + ACKS_OFF);
	}
	entry->state = MEMBERS_VOTER;
	return check_ports(entry, m, config, em);
}

/* ---- free ports */

static enum db_err try_port(unsigned port, const struct cluster_config *config, struct errmsg *em)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *address = NULL;
	const int one = 1;
	char text[8];
	int rc = 0;
	int fd;

	snprintf(text, sizeof(text), "%u", port & 0xffffu);
	if (getaddrinfo(config->bind, text, &hints, &address) != 0)
		return errmsg_set(em, DB_INVALID, "cannot find the address \"%s\" (setting \"bind\")", config->bind);
	fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
	    bind(fd, address->ai_addr, address->ai_addrlen) != 0 || listen(fd, 1) != 0)
		rc = errno;
	if (fd >= 0)
		close(fd);
	freeaddrinfo(address);
	if (rc == EADDRINUSE)
		return errmsg_set(em, DB_BUSY, "port %u is in use; a node needs its port, port + 100 and port + 200",
				  port);
	return rc == 0 ? DB_OK : errmsg_errno(em, rc, "cannot listen at port %u", port);
}

enum db_err addresses_check_free(const struct members_entry *entry, const struct cluster_config *config,
				 struct errmsg *em)
{
	enum db_err err = try_port(entry->http_port, config, em);

	if (err == DB_OK)
		err = try_port(entry->replication_port, config, em);
	return err == DB_OK ? try_port(entry->ack_port, config, em) : err;
}

/*
 * addresses.h - which node a client means by an address, and what a new one at an address would be.
 *
 * Node k of a cluster at http_port P has HTTP port P + k, replication P + 100 + k, acks P + 200 + k, all on the "bind"
 * address. An address at one of the first two names node k as long as that number was never used; at any other free port
 * a new node takes the next number never used and listens at port, port + 100 and port + 200. Members keep their ports for
 * life (common/base/members.h). Loop thread; looks at the host's interfaces and tries ports, never at name servers.
 */
#ifndef GRIZZLY_SUPERVISOR_ADDRESSES_H
#define GRIZZLY_SUPERVISOR_ADDRESSES_H

#include "common/base/members.h"

/* The member that "nodeN" or "host:port" (any of its three ports) names; *out counts from 0. DB_NOTFOUND: there is none;
 * DB_INVALID: no address, or of another host. */
enum db_err addresses_find(unsigned *out, const char *text, const struct members *m,
			   const struct cluster_config *config, struct errmsg *em);

/* The number (from 0) and ports of a new member at "host:port", state MEMBERS_VOTER; where a member has the address
 * already: that member as it is. DB_INVALID: no address, another host, a port in use by another member or out of range;
 * DB_FULL: every number was used. */
enum db_err addresses_new(unsigned *out, struct members_entry *entry, const char *text, const struct members *m,
			  const struct cluster_config *config, struct errmsg *em);

/* Can a process listen at each of the entry's ports? DB_BUSY names one that is taken. */
enum db_err addresses_check_free(const struct members_entry *entry, const struct cluster_config *config,
				 struct errmsg *em);

#endif

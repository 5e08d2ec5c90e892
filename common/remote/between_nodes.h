/*
 * between_nodes.h - what a node says to another one, beside the request, when it asks for a client of its own.
 *
 * Used by node/ (requests sent on whole) and common/remote (requests for rows).
 */
#ifndef GRIZZLY_COMMON_REMOTE_BETWEEN_NODES_H
#define GRIZZLY_COMMON_REMOTE_BETWEEN_NODES_H

/* How often a request has been passed on between nodes because of the tables it names; beyond the limit it is refused. */
#define HOPS_HEADER "Grizzly-Hops"
#define HOPS_MAX    4u

/*
 * The most that a request may do, for a node that sends it on: "read", "write", "admin". It is obeyed from anybody,
 * for it only ever takes from what the token allows. A request is forwarded within the cluster with the client's own
 * token, so that the master checks it as the first node did; to a node named in SQL it goes with a token of this
 * node's, and this header is what keeps the client's role.
 */
#define ROLE_MAX_HEADER "Grizzly-Role-Max"

/* The request's name in logs (common/http/trace.c), so that the other node uses it, too. */
#define REQUEST_ID_HEADER "X-Request-Id"

#endif

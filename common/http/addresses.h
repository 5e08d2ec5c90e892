/*
 * addresses.h - how many connections each client address has, over all workers of a server.
 *
 * Any thread; a lock of its own, held for a look-up. An address is kept while it has a connection, so the table is never
 * larger than the number of connections. An IPv6 client has its /64 for an address. A connection whose address is not
 * known (memory, no IP socket) belongs to none: NULL, which every function takes and counts as 0.
 */
#ifndef GRIZZLY_COMMON_HTTP_ADDRESSES_H
#define GRIZZLY_COMMON_HTTP_ADDRESSES_H

#include <stdint.h>
#include <sys/socket.h>

struct http_addresses;
struct http_address;

struct http_addresses *http_addresses_create(uint64_t seed); /* of the table's hash; NULL: no memory */
void http_addresses_free(struct http_addresses *t);          /* NULL is fine; every connection has left */

/* One connection more or less of that address. */
struct http_address *http_addresses_enter(struct http_addresses *t, const struct sockaddr *address);
void http_addresses_leave(struct http_addresses *t, struct http_address *a);
unsigned http_address_connections(const struct http_address *a);

#endif

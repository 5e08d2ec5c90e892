/*
 * tunnel.h - carries links between hosts in TLS, with a certificate on both ends.
 *
 * Links see sockets in the data directory only. A tunnel's one end is a gate at a TCP port: whoever connects there and
 * shows a member's certificate (common/auth/tls_members.h) is passed on to the socket file on which a link listens.
 * Its other end is a gate at a socket file of the dialing process: each connection of a link to that file is carried to
 * the TCP port of a peer. What has not proved to be a member never reaches a link.
 *
 * Why not NNG's own tls+tcp://: in NNG 1.5 a connection that ends while a message is being sent may never be let go of,
 * and with it no other one of the process. Of 50 receivers killed in mid-stream 4 left the sender so. And a client that
 * hangs up in its handshake ends the listener, which can only be replaced together with the connections of all others.
 *
 * One thread moves the bytes of all tunnels of a process. Functions: any thread; none waits for a peer.
 */
#ifndef GRIZZLY_COMMON_WIRE_TUNNEL_H
#define GRIZZLY_COMMON_WIRE_TUNNEL_H

#include <stdint.h>

#include "common/auth/tls_members.h"
#include "common/base/err.h"

#define TUNNEL_HANDSHAKES_MAX 64 /* of one gate; for one more, a silent one is closed */
#define TUNNEL_PATH_MAX       108

struct tunnels;
struct tunnel_gate;

/* tls: borrowed, outlives it. DB_NOMEM, DB_IO. */
enum db_err tunnels_create(struct tunnels **out, struct tls_members *tls, struct errmsg *em);
/* Closes all gates and connections. NULL is fine. */
void tunnels_free(struct tunnels *t);

/* Listens at address, "host:port" with an IP address or localhost for its host, and passes members on to the socket
 * file path. *out until tunnel_close(), or tunnels_free(). DB_BUSY: the port is in use. DB_INVALID, DB_NOMEM, DB_IO. */
enum db_err tunnel_listen(struct tunnel_gate **out, struct tunnels *t, const char *address, const char *path,
			  struct errmsg *em);
/* Listens at the socket file path (mode 0600) and carries to address. A file that a killed process left behind is taken
 * over; DB_BUSY: somebody listens there. */
enum db_err tunnel_dial(struct tunnel_gate **out, struct tunnels *t, const char *path, const char *address,
			struct errmsg *em);
/* Ends the gate and its connections, and removes its file. NULL is fine. */
void tunnel_close(struct tunnel_gate *g);
/* The TCP port of tunnel_listen(): of interest after asking for port 0. */
uint16_t tunnel_port(const struct tunnel_gate *g);

#endif

/*
 * mesh.h - how the members of a cluster reach each other's replication and ack sockets.
 *
 * A member listens at its TCP port, which speaks TLS when the configuration has it (tunnel.h), and at a socket file in
 * the data directory, run/nodeN.replication or run/nodeN.acks. Members of one host, those with one bind address, use
 * the file for as long as it is there, unless replication.local is "tcp"; a version that does not know the file does
 * not make it. Paths are relative to the working directory, which is the data directory.
 *
 * Any thread.
 */
#ifndef GRIZZLY_COMMON_WIRE_MESH_H
#define GRIZZLY_COMMON_WIRE_MESH_H

#include "common/base/config.h"
#include "common/wire/link.h"
#include "common/wire/pump.h"

struct mesh;
struct mesh_way;

/* node: our own number, from 1. config: borrowed, outlives it; tls_members_create() says what its "tls" may lack. */
enum db_err mesh_create(struct mesh **out, const struct cluster_config *config, unsigned node, struct errmsg *em);
/* After the links and ways. NULL is fine. */
void mesh_free(struct mesh *m);
/* Reads certificate and key again, for connections to come. On an error those get what they got before. */
enum db_err mesh_reload(struct mesh *m, struct errmsg *em);

/* Listens for which, at address ("host:port") and at our socket file. Once for each of the two; the links end first.
 * DB_BUSY: one of them is in use. DB_INVALID, DB_NOMEM, DB_IO. */
enum db_err mesh_listen(struct link_pull **out, struct mesh *m, enum config_port which, const char *address,
			link_message_fn on_message, void *arg, struct errmsg *em);

/* Closes the ports that speak TLS and what came in there: before the links end behind which they lead. */
void mesh_unlisten(struct mesh *m);

/* A pump to what the peer "nodeN" listens at: which, at address. *pump is set before the first callback. DB_INVALID:
 * that is no name of a node, or no address. DB_BUSY, DB_NOMEM, DB_IO. */
enum db_err mesh_way_open(struct mesh_way **out, struct pump **pump, struct mesh *m, const char *peer,
			  enum config_port which, const char *address, const struct pump_owner *owner,
			  struct errmsg *em);
/* Frees the pump as well. NULL is fine. */
void mesh_way_close(struct mesh_way *w);

#endif

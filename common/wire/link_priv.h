/*
 * link_priv.h - what the files of the link module share; nobody else includes it.
 */
#ifndef GRIZZLY_COMMON_WIRE_LINK_PRIV_H
#define GRIZZLY_COMMON_WIRE_LINK_PRIV_H

#include <stdatomic.h>

#include "common/wire/link.h"

#define LINK_RECONNECT_MIN_MS 5
#define LINK_RECONNECT_MAX_MS 50

/* The receiving half of a listening socket: how many connections it has. Embedded. */
struct link_door {
	atomic_uint pipes;
};

/* An error of NNG in our words; 0 is DB_OK. */
enum db_err link_err(int rv);
/* Fills em with "<doing> <url>: <NNG's text>" and returns link_err(rv). */
enum db_err link_error(struct errmsg *em, int rv, const char *doing, const char *url);

/* Options that every socket of ours has: message limit, reconnect times. */
enum db_err link_socket_options(nng_socket sock, const char *url, struct errmsg *em);

/* Connects sock to url; wait: DB_UNAVAILABLE when the first attempt fails, else it goes on in the background. */
enum db_err link_dial(nng_dialer *dialer, nng_socket sock, const char *url, bool wait, struct errmsg *em);

/* Listens, admitting LINK_PIPES_MAX connections. *port is the TCP port bound, 0 for other transports. door lives until
 * the socket is closed. DB_BUSY: the address is in use. */
enum db_err link_listen(nng_socket sock, const char *url, struct link_door *door, uint16_t *port, struct errmsg *em);

#endif

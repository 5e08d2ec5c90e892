/*
 * endpoint.h - where a socket of ours listens, or whom it connects to: a TCP address or a Unix socket's file.
 *
 * Used by link_pull.c and the tunnels' gates. Any thread; nothing blocks but the look-up of a name.
 */
#ifndef GRIZZLY_COMMON_WIRE_ENDPOINT_H
#define GRIZZLY_COMMON_WIRE_ENDPOINT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/base/err.h"

struct endpoint {
	struct sockaddr_storage at;
	socklen_t len;
};

/* "host:port", an IPv6 host in brackets. names: a host name is looked up; else DB_INVALID, except for localhost, so that
 * the caller never waits for a resolver. passive: it is to be listened at. */
enum db_err endpoint_resolve(struct endpoint *out, const char *address, bool names, bool passive,
			     struct errmsg *em) MUST_CHECK;
/* DB_INVALID: the path is longer than a Unix socket's name may be. */
enum db_err endpoint_file(struct endpoint *out, const char *path, struct errmsg *em) MUST_CHECK;

/* *fd: a listening socket that does not block, the caller's to close (and its file, made with mode 0600, the caller's to
 * remove). A file that a killed process has left behind is taken over. name is what errors call it. DB_BUSY: in use. */
enum db_err endpoint_listen(int *fd, const struct endpoint *e, const char *name, struct errmsg *em) MUST_CHECK;
uint16_t endpoint_port(int fd); /* the TCP port that is bound; 0: none */

#endif

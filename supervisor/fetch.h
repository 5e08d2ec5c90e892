/*
 * fetch.h - one blocking HTTP GET to a node, for commands: small answers whole, large ones piece by piece.
 *
 * Built on libcurl's easy interface. One thread; curl_global_init() is done by the first call.
 */
#ifndef GRIZZLY_SUPERVISOR_FETCH_H
#define GRIZZLY_SUPERVISOR_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/remote/client_tls.h"

#define FETCH_CONNECT_TIMEOUT_MS 2000L
#define FETCH_STALL_S            30L /* without a byte: the node hangs */

struct fetch {
	const char *address; /* "host:port" */
	const char *path;
	const char *token;
	const struct client_tls *tls; /* how to ask it */
	long timeout_ms;              /* of the whole; 0: none but FETCH_STALL_S */
	/* A header of the answer; name and value are NUL-terminated, without line end. NULL: not wanted. */
	void (*on_header)(void *arg, const char *name, const char *value);
	/* A piece of the body of an answer 200. An error ends the transfer and is what fetch_get() returns. */
	enum db_err (*on_body)(void *arg, const void *bytes, size_t len, struct errmsg *em);
	void *arg;
};

/* DB_OK: an answer 200 came whole. DB_UNAVAILABLE: no connection. DB_CLOSED: the connection broke, or stalled, before the
 * end. DB_INVALID: another answer; the message has its text. What on_body returned, if that was an error. */
enum db_err fetch_get(const struct fetch *f, struct errmsg *em);
/* The same into a buffer, of at most max bytes; f's on_header, on_body and arg are not looked at. */
enum db_err fetch_text(const struct fetch *f, size_t max, struct buf *out, struct errmsg *em);

#endif

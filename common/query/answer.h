/*
 * answer.h - what a client is told: error codes with their HTTP status, and the fixed parts of a JSON answer.
 *
 * The codes and shapes are the public contract (docs/protocol.md): add, never rename. Pure.
 */
#ifndef GRIZZLY_COMMON_QUERY_ANSWER_H
#define GRIZZLY_COMMON_QUERY_ANSWER_H

#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"

/* X(name, HTTP status) */
#define QUERY_CODE_LIST(X)                                                                                             \
	X(BAD_REQUEST, 400)                                                                                            \
	X(SQL_ERROR, 400)                                                                                              \
	X(CONSTRAINT, 409)                                                                                             \
	X(CONFLICT, 409)                                                                                               \
	X(UNAUTHORIZED, 401)                                                                                           \
	X(FORBIDDEN, 403)                                                                                              \
	X(NOT_FOUND, 404)                                                                                              \
	X(METHOD_NOT_ALLOWED, 405)                                                                                     \
	X(TOO_LARGE, 413)                                                                                              \
	X(OVERLOADED, 429)                                                                                             \
	X(REMOTE_ERROR, 502)                                                                                           \
	X(NO_MASTER, 503)                                                                                              \
	X(NO_QUORUM, 503)                                                                                              \
	X(TIMEOUT, 504)                                                                                                \
	X(INTERNAL, 500)

enum query_code {
	QUERY_OK = 0,
#define X(name, status) QUERY_##name,
	QUERY_CODE_LIST(X)
#undef X
};

const char *query_code_name(enum query_code code); /* "BAD_REQUEST", …; "OK" */
int query_code_http_status(enum query_code code);  /* 200 for QUERY_OK */

/* A client's error; caller-owned, nothing to free. */
struct query_error {
	enum query_code code;
	int statement; /* index from 0 of the failing one of several statements; -1: none */
	char message[ERRMSG_TEXT_MAX];
};

/* Fills *error, statement with -1, and returns code. The message is cut when too long; invalid UTF-8 in it is replaced at writing. */
enum query_code query_error_set(struct query_error *error, enum query_code code, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

/* Appends {"status":"error","code":…,"message":…[,"statement":n]} and a newline. */
void answer_put_error(struct buf *out, const struct query_error *error);
/* The same without braces and newline, for an answer that breaks off after its first piece. */
void answer_put_error_fields(struct buf *out, const struct query_error *error);

/* Appends ,"lsn":n,"node":"…","time_ms":x} and a newline: the end of an answer that is ok. */
void answer_put_trailer(struct buf *out, uint64_t lsn, const char *node, uint64_t elapsed_us);
/* The same without the closing brace and the newline, for an answer whose status comes last. */
void answer_put_trailer_fields(struct buf *out, uint64_t lsn, const char *node, uint64_t elapsed_us);

/* Appends s as a JSON string, quotes included; len bytes, which need not be valid UTF-8: each bad byte becomes U+FFFD. */
void json_put_string(struct buf *out, const char *s, size_t len);
void json_put_int(struct buf *out, int64_t v);
/* Shortest decimal that reads back as the same double, always with a point or exponent; {"$real":"inf"}, {"$real":"-inf"};
 * NaN is null. */
void json_put_real(struct buf *out, double v);
void json_put_blob(struct buf *out, const void *bytes, size_t len); /* {"$blob":"base64"} */

#endif

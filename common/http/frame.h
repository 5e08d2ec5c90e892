/*
 * frame.h - where a request ends, and whether it is one: a pure, incremental check of HTTP/1.x request framing.
 *
 * Bytes go in as they arrive; out comes "more", "complete" or an error in the client's words. It keeps no body and no
 * headers: evhttp parses those. It exists because evhttp answers what it does not like with HTML pages of its own, has
 * no deadline for a whole request and counts bodies too late, so evhttp is shown only requests that are whole and that
 * this check has passed. It is therefore never laxer than evhttp's parser (libevent 2.1 http.c): what evhttp would
 * refuse is refused here first. No I/O, no clock, no allocation but a partial line.
 */
#ifndef GRIZZLY_COMMON_HTTP_FRAME_H
#define GRIZZLY_COMMON_HTTP_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/query/answer.h"

enum http_frame_state {
	FRAME_START,      /* nothing yet but empty lines, which are skipped */
	FRAME_HEAD,       /* request line and headers */
	FRAME_BODY,       /* Content-Length: `left` bytes to come */
	FRAME_CHUNK_SIZE, /* chunked: the line with the size */
	FRAME_CHUNK_DATA,
	FRAME_CHUNK_END, /* the line end after a chunk's data */
	FRAME_TRAILER,   /* the empty line after the last chunk */
	FRAME_COMPLETE,
	FRAME_BAD, /* error says why */
};

struct http_frame {
	size_t head_bytes_max;
	size_t body_bytes_max;
	enum http_frame_state state;
	struct buf line; /* a line of which only a part has come */
	size_t skipped;  /* bytes of empty lines before the request line */
	size_t head_bytes;
	uint64_t left; /* of the body or chunk */
	uint64_t body_bytes;
	unsigned lines;     /* of the head */
	bool may_have_body; /* POST, PUT, PATCH: the methods whose body evhttp reads */
	bool version_1_0;
	bool has_length;
	bool chunked;
	bool expect_continue;
	bool has_connection; /* a Connection header other than "close" */
	bool has_authorization;
	bool has_host;
	bool head_too_large; /* why it is bad: 431, not 413 */
	uint64_t content_length;
	struct query_error error;
};

void http_frame_init(struct http_frame *f, size_t head_bytes_max, size_t body_bytes_max);
void http_frame_fini(struct http_frame *f);
void http_frame_reset(struct http_frame *f); /* for the next request; keeps the limits */
/* Looks at len more bytes and returns how many belong to the request (all, unless it is complete or bad now). Stops
 * also where the head ends, so that the caller can see expect_continue before the body. */
size_t http_frame_feed(struct http_frame *f, const void *bytes, size_t len);
/* The same for len bytes that are at hand without being looked at: returns how many are plain data of a body, 0 where the
 * next one must be seen. */
size_t http_frame_skip(struct http_frame *f, size_t len);

#endif

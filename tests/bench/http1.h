/*
 * http1.h - the least of HTTP/1.1 that a load generator needs: how long is the answer in this buffer, and is it whole.
 *
 * Pure; used by load.c and lag.c, each from its only thread. Understands Content-Length and chunked bodies, nothing
 * else. It measures servers that we trust to speak HTTP, so anything odd is an error rather than guessed at.
 */
#ifndef GRIZZLY_TESTS_BENCH_HTTP1_H
#define GRIZZLY_TESTS_BENCH_HTTP1_H

#include <stdbool.h>
#include <stddef.h>

enum http1_state { HTTP1_MORE, HTTP1_WHOLE, HTTP1_BAD };

struct http1_answer {
	int status;
	bool close;      /* the server will close the connection after this answer */
	size_t head_len; /* bytes before the body */
	size_t len;      /* bytes of the whole answer; HTTP1_WHOLE only */
};

/* Looks at one answer at the start of the buffer. HTTP1_MORE: read on and ask again. */
enum http1_state http1_parse(const char *bytes, size_t len, struct http1_answer *out);

/* Connects to "host:port" (numeric IPv4), TCP_NODELAY set; blocking. Returns the fd, or -1 with errno. */
int http1_connect(const char *address);

/* Builds a POST of body_len bytes to path; the caller frees. NULL: out of memory. *head_len: where the body starts.
 * token may be NULL. */
char *http1_build_post(const char *address, const char *path, const char *token, const char *body, size_t body_len,
		       size_t *head_len, size_t *len);

/* Reads the one line of a token file; the caller frees. NULL with errno. */
char *http1_read_token(const char *path);

#endif

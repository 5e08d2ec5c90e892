/*
 * http1.c - see http1.h. Speed matters in http1_parse() only: it runs once an answer, on the machine that is measured.
 */
#include "tests/bench/http1.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define BODY_LEN_MAX ((size_t)1 << 30)

/* Walks the chunks from the body's start. Small answers are one chunk, so starting over at each read costs nothing. */
static enum http1_state chunked_end(const char *bytes, size_t len, size_t pos, size_t *end)
{
	const char *line_end;
	char *digits_end;
	size_t size;

	for (;;) {
		line_end = memchr(bytes + pos, '\n', len - pos);
		if (line_end == NULL)
			return HTTP1_MORE;
		errno = 0;
		size = strtoul(bytes + pos, &digits_end, 16);
		if (errno != 0 || digits_end == bytes + pos || size > BODY_LEN_MAX)
			return HTTP1_BAD;
		pos = (size_t)(line_end + 1 - bytes);
		if (len - pos < size + 2)
			return HTTP1_MORE;
		pos += size + 2;
		if (size == 0) {
			*end = pos;
			return HTTP1_WHOLE;
		}
	}
}

enum http1_state http1_parse(const char *bytes, size_t len, struct http1_answer *out)
{
	const char *head_end = memmem(bytes, len, "\r\n\r\n", 4);
	const char *line, *next;
	size_t body_len = 0;
	bool chunked = false, sized = false;

	if (head_end == NULL)
		return HTTP1_MORE;
	if (head_end - bytes < 12 || memcmp(bytes, "HTTP/1.", 7) != 0)
		return HTTP1_BAD;
	out->status = (bytes[9] - '0') * 100 + (bytes[10] - '0') * 10 + (bytes[11] - '0');
	out->close = false;
	out->head_len = (size_t)(head_end + 4 - bytes);
	for (line = (const char *)memchr(bytes, '\n', out->head_len) + 1; line < head_end; line = next) {
		next = (const char *)memchr(line, '\n', (size_t)(head_end + 4 - line)) + 1;
		if (strncasecmp(line, "content-length:", 15) == 0) {
			body_len = strtoul(line + 15, NULL, 10);
			sized = true;
		} else if (strncasecmp(line, "transfer-encoding: chunked", 26) == 0) {
			chunked = true;
		} else if (strncasecmp(line, "connection: close", 17) == 0) {
			out->close = true;
		}
	}
	if (chunked)
		return chunked_end(bytes, len, out->head_len, &out->len);
	if (!sized || body_len > BODY_LEN_MAX)
		return HTTP1_BAD;
	out->len = out->head_len + body_len;
	return len >= out->len ? HTTP1_WHOLE : HTTP1_MORE;
}

int http1_connect(const char *address)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	const char *colon = strrchr(address, ':');
	char host[INET_ADDRSTRLEN];
	int fd, one = 1, saved_errno;

	if (colon == NULL || (size_t)(colon - address) >= sizeof host) {
		errno = EINVAL;
		return -1;
	}
	memcpy(host, address, (size_t)(colon - address));
	host[colon - address] = '\0';
	sin.sin_port = htons((uint16_t)atoi(colon + 1));
	if (inet_pton(AF_INET, host, &sin.sin_addr) != 1) {
		errno = EINVAL;
		return -1;
	}
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
	    connect(fd, (struct sockaddr *)&sin, sizeof sin) != 0) {
		saved_errno = errno;
		close(fd);
		errno = saved_errno;
		return -1;
	}
	return fd;
}

char *http1_build_post(const char *address, const char *path, const char *token, const char *body, size_t body_len,
		       size_t *head_len, size_t *len)
{
	char *request, *whole;
	int n;

	n = asprintf(
	    &request,
	    "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%s%s%sContent-Length: %zu\r\n\r\n", path,
	    address, token != NULL ? "Authorization: Bearer " : "", token != NULL ? token : "",
	    token != NULL ? "\r\n" : "", body_len);
	if (n < 0)
		return NULL;
	*head_len = (size_t)n;
	*len = (size_t)n + body_len;
	whole = realloc(request, *len + 1);
	if (whole == NULL) {
		free(request);
		return NULL;
	}
	memcpy(whole + n, body, body_len);
	whole[*len] = '\0';
	return whole;
}

char *http1_read_token(const char *path)
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;
	ssize_t n;

	if (f == NULL)
		return NULL;
	n = getline(&line, &size, f);
	fclose(f);
	if (n <= 0) {
		free(line);
		errno = EINVAL;
		return NULL;
	}
	line[strcspn(line, "\r\n")] = '\0';
	return line;
}

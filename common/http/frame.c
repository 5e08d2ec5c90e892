/*
 * frame.c - see frame.h. One function per state; lines are looked at in place when they arrive whole, which they nearly
 * always do, and gathered in f->line otherwise.
 *
 * Deliberately narrower than RFC 9112: no folded headers, no chunk extensions, no trailers, no absolute request target,
 * no body with methods that have none here. Each of these has been used to smuggle a request past one parser of two.
 */
#include "common/http/frame.h"

#include <string.h>
#include <strings.h>

#define FRAME_SKIPPED_MAX      64u
#define TLS_HANDSHAKE          0x16 /* the first byte of a TLS connection: its next line end might never come */
#define FRAME_CHUNK_DIGITS_MAX 15u  /* fits 60 bits: evhttp keeps the size in an int64_t */

void http_frame_init(struct http_frame *f, size_t head_bytes_max, size_t body_bytes_max)
{
	memset(f, 0, sizeof(*f));
	f->head_bytes_max = head_bytes_max;
	f->body_bytes_max = body_bytes_max;
}

void http_frame_fini(struct http_frame *f)
{
	buf_fini(&f->line);
}

void http_frame_reset(struct http_frame *f)
{
	struct buf line = f->line;
	size_t head_bytes_max = f->head_bytes_max;
	size_t body_bytes_max = f->body_bytes_max;

	/* The error's text, the bulk of the struct, is only ever read in FRAME_BAD, which nothing follows. */
	memset(f, 0, offsetof(struct http_frame, error));
	buf_clear(&line);
	f->line = line;
	f->head_bytes_max = head_bytes_max;
	f->body_bytes_max = body_bytes_max;
}

static bool refuse(struct http_frame *f, enum query_code code, const char *why)
{
	f->state = FRAME_BAD;
	query_error_set(&f->error, code, "%s", why);
	f->error.statement = -1;
	return false;
}

static bool is_token_char(uint8_t c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
	       (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool equals(const uint8_t *bytes, size_t len, const char *word)
{
	return strlen(word) == len && memcmp(bytes, word, len) == 0;
}

static bool equals_nocase(const uint8_t *bytes, size_t len, const char *word)
{
	return strlen(word) == len && strncasecmp((const char *)bytes, word, len) == 0;
}

static bool check_method(struct http_frame *f, const uint8_t *method, size_t len)
{
	static const char *const bodiless[] = {"GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "CONNECT"};
	size_t i;

	if (equals(method, len, "POST") || equals(method, len, "PUT") || equals(method, len, "PATCH")) {
		f->may_have_body = true;
		return true;
	}
	for (i = 0; i < sizeof(bodiless) / sizeof(bodiless[0]); i++)
		if (equals(method, len, bodiless[i]))
			return true;
	for (i = 0; i < len; i++)
		if (!is_token_char(method[i]))
			return refuse(f, QUERY_BAD_REQUEST, "the request line is not one of HTTP");
	return refuse(f, QUERY_METHOD_NOT_ALLOWED, "unknown request method");
}

/* "METHOD /target HTTP/1.x", single spaces, no control characters. */
static bool check_request_line(struct http_frame *f, const uint8_t *line, size_t len)
{
	const uint8_t *space = memchr(line, ' ', len);
	const uint8_t *target, *version;
	size_t i, version_len;

	if (space == NULL || space == line)
		return refuse(f, QUERY_BAD_REQUEST, "the request line is not one of HTTP");
	target = space + 1;
	version = memchr(target, ' ', len - (size_t)(target - line));
	if (version == NULL)
		return refuse(f, QUERY_BAD_REQUEST, "the request line is not one of HTTP");
	for (i = 0; i < len; i++)
		if (line[i] < 0x20 || line[i] == 0x7f)
			return refuse(f, QUERY_BAD_REQUEST, "the request line has a control character");
	version++;
	version_len = len - (size_t)(version - line);
	f->version_1_0 = equals(version, version_len, "HTTP/1.0");
	if (!f->version_1_0 && !equals(version, version_len, "HTTP/1.1"))
		return refuse(f, QUERY_BAD_REQUEST, "only HTTP/1.0 and HTTP/1.1 are spoken here");
	if (!check_method(f, line, (size_t)(space - line)))
		return false;
	if (target[0] != '/' || target[1] == '/')
		return refuse(f, QUERY_BAD_REQUEST, "the request target must be a path");
	return true;
}

static bool check_content_length(struct http_frame *f, const uint8_t *value, size_t len)
{
	uint64_t n = 0;
	size_t i;

	if (f->has_length)
		return refuse(f, QUERY_BAD_REQUEST, "more than one Content-Length");
	if (len == 0)
		return refuse(f, QUERY_BAD_REQUEST, "Content-Length is not a number");
	for (i = 0; i < len; i++) {
		if (value[i] < '0' || value[i] > '9')
			return refuse(f, QUERY_BAD_REQUEST, "Content-Length is not a number");
		if (n > UINT64_MAX / 10 - 10)
			return refuse(f, QUERY_TOO_LARGE, "the request's body is too large");
		n = n * 10 + (value[i] - '0');
	}
	f->has_length = true;
	f->content_length = n;
	return true;
}

/* The few headers that decide where the request ends, or that evhttp acts on. */
static bool check_known_header(struct http_frame *f, const uint8_t *name, size_t name_len, const uint8_t *value,
			       size_t len)
{
	if (equals_nocase(name, name_len, "Content-Length"))
		return check_content_length(f, value, len);
	if (equals_nocase(name, name_len, "Transfer-Encoding")) {
		if (f->chunked || !equals_nocase(value, len, "chunked"))
			return refuse(f, QUERY_BAD_REQUEST, "the only Transfer-Encoding understood is chunked");
		f->chunked = true;
	} else if (equals_nocase(name, name_len, "Expect")) {
		if (!equals_nocase(value, len, "100-continue"))
			return refuse(f, QUERY_BAD_REQUEST, "the only Expect understood is 100-continue");
		f->expect_continue = true;
	} else if (equals_nocase(name, name_len, "Connection")) {
		f->has_connection = f->has_connection || !equals_nocase(value, len, "close");
	} else if (equals_nocase(name, name_len, "Authorization")) {
		if (f->has_authorization)
			return refuse(f, QUERY_BAD_REQUEST, "more than one Authorization");
		f->has_authorization = true;
	} else if (equals_nocase(name, name_len, "Host")) {
		if (f->has_host)
			return refuse(f, QUERY_BAD_REQUEST, "more than one Host");
		f->has_host = true;
	}
	return true;
}

static bool check_header(struct http_frame *f, const uint8_t *line, size_t len)
{
	const uint8_t *colon = memchr(line, ':', len);
	const uint8_t *value, *end = line + len;
	const uint8_t *p;

	if (colon == NULL || colon == line)
		return refuse(f, QUERY_BAD_REQUEST, "a header line is not \"Name: value\"");
	for (p = line; p < colon; p++)
		if (!is_token_char(*p))
			return refuse(f, QUERY_BAD_REQUEST, "a header's name has a character that names cannot have");
	for (value = colon + 1; value < end && (*value == ' ' || *value == '\t'); value++)
		;
	while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	for (p = value; p < end; p++)
		if ((*p < 0x20 && *p != '\t') || *p == 0x7f)
			return refuse(f, QUERY_BAD_REQUEST, "a header's value has a control character");
	/* evhttp skips spaces but no tabs before a value, so a value that begins with one would differ between us. */
	if (memchr(colon + 1, '\t', (size_t)(value - colon - 1)) != NULL)
		return refuse(f, QUERY_BAD_REQUEST, "a header's value begins with a tab");
	return check_known_header(f, line, (size_t)(colon - line), value, (size_t)(end - value));
}

/* The head is whole: what follows it? */
static void end_head(struct http_frame *f)
{
	bool body = f->chunked || f->content_length > 0;

	if (f->chunked && (f->has_length || f->version_1_0)) {
		refuse(f, QUERY_BAD_REQUEST, "Transfer-Encoding with Content-Length or HTTP/1.0");
	} else if (body && !f->may_have_body) {
		refuse(f, QUERY_BAD_REQUEST, "this method takes no body");
	} else if (f->content_length > f->body_bytes_max) {
		refuse(f, QUERY_TOO_LARGE, "the request's body is too large");
	} else if (f->may_have_body && !f->chunked && !f->has_length && f->has_connection) {
		refuse(f, QUERY_BAD_REQUEST, "Content-Length is missing"); /* evhttp would not know where it ends */
	} else if (f->chunked) {
		f->state = FRAME_CHUNK_SIZE;
	} else if (f->content_length > 0) {
		f->left = f->content_length;
		f->state = FRAME_BODY;
	} else {
		f->state = FRAME_COMPLETE;
	}
}

static void chunk_size_line(struct http_frame *f, const uint8_t *line, size_t len)
{
	uint64_t size = 0;
	size_t i;

	if (len == 0 || len > FRAME_CHUNK_DIGITS_MAX) {
		refuse(f, QUERY_BAD_REQUEST, "a chunk's size is not a hexadecimal number");
		return;
	}
	for (i = 0; i < len; i++) {
		uint8_t c = line[i] | 0x20;

		if (line[i] >= '0' && line[i] <= '9') {
			size = size << 4 | (uint64_t)(line[i] - '0');
		} else if (c >= 'a' && c <= 'f') {
			size = size << 4 | (uint64_t)(c - 'a' + 10);
		} else {
			refuse(f, QUERY_BAD_REQUEST, "a chunk's size is not a hexadecimal number");
			return;
		}
	}
	f->body_bytes += size;
	if (f->body_bytes > f->body_bytes_max) {
		refuse(f, QUERY_TOO_LARGE, "the request's body is too large");
		return;
	}
	f->left = size;
	f->state = size == 0 ? FRAME_TRAILER : FRAME_CHUNK_DATA;
}

/* A whole line without its end. */
static void take_line(struct http_frame *f, const uint8_t *line, size_t len)
{
	switch (f->state) {
	case FRAME_START:
		if (len == 0)
			break; /* clients of old sent one after a body; f->skipped counts it */
		f->state = FRAME_HEAD;
		/* fall through */
	case FRAME_HEAD:
		if (len == 0)
			end_head(f);
		else if (f->lines++ == 0)
			check_request_line(f, line, len);
		else
			check_header(f, line, len);
		break;
	case FRAME_CHUNK_SIZE:
		chunk_size_line(f, line, len);
		break;
	case FRAME_CHUNK_END:
		if (len == 0)
			f->state = FRAME_CHUNK_SIZE;
		else
			refuse(f, QUERY_BAD_REQUEST, "a chunk is longer than its size says");
		break;
	default:
		if (len == 0)
			f->state = FRAME_COMPLETE;
		else
			refuse(f, QUERY_BAD_REQUEST, "headers after a chunked body are not accepted");
		break;
	}
}

static size_t line_bytes_max(const struct http_frame *f)
{
	switch (f->state) {
	case FRAME_START:
	case FRAME_HEAD:
		return f->head_bytes_max - f->head_bytes;
	default:
		return f->head_bytes_max < 256 ? f->head_bytes_max : 256;
	}
}

/* Takes bytes up to the next line end, or all; the line ends with LF or CR LF, as for evhttp. */
static size_t feed_line(struct http_frame *f, const uint8_t *bytes, size_t len)
{
	const uint8_t *lf = memchr(bytes, '\n', len);
	size_t used = lf == NULL ? len : (size_t)(lf - bytes) + 1;
	const uint8_t *line = bytes;
	size_t line_len = used;

	if (used > line_bytes_max(f) - f->line.len) {
		f->head_too_large = f->state == FRAME_START || f->state == FRAME_HEAD;
		if (f->head_too_large)
			refuse(f, QUERY_TOO_LARGE, "the request's headers are too large");
		else
			refuse(f, QUERY_BAD_REQUEST, "a line of the chunked body is too long");
		return 0;
	}
	if (lf == NULL || f->line.len > 0) {
		buf_put(&f->line, bytes, used);
		if (f->line.failed) {
			refuse(f, QUERY_INTERNAL, "out of memory");
			return 0;
		}
		if (lf == NULL)
			return used;
		line = f->line.data;
		line_len = f->line.len;
	}
	if (f->state == FRAME_HEAD || f->state == FRAME_START)
		f->head_bytes += line_len;
	line_len--;
	if (line_len > 0 && line[line_len - 1] == '\r')
		line_len--;
	if (f->state == FRAME_START && line_len == 0) {
		f->skipped += f->head_bytes;
		f->head_bytes = 0;
		if (f->skipped > FRAME_SKIPPED_MAX)
			refuse(f, QUERY_BAD_REQUEST, "only empty lines where a request was expected");
	} else {
		take_line(f, line, line_len);
	}
	buf_clear(&f->line);
	return used;
}

size_t http_frame_skip(struct http_frame *f, size_t len)
{
	size_t n = len < f->left ? len : (size_t)f->left;

	if (f->state != FRAME_BODY && f->state != FRAME_CHUNK_DATA)
		return 0;
	f->left -= n;
	if (f->left == 0)
		f->state = f->state == FRAME_BODY ? FRAME_COMPLETE : FRAME_CHUNK_END;
	return n;
}

size_t http_frame_feed(struct http_frame *f, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;
	size_t used = 0;
	bool in_head = f->state == FRAME_START || f->state == FRAME_HEAD;

	if (f->state == FRAME_START && f->skipped == 0 && f->line.len == 0 && len > 0 && p[0] == TLS_HANDSHAKE) {
		refuse(f, QUERY_BAD_REQUEST, "this port speaks plain HTTP; the client began with TLS (https)");
		return 0;
	}
	while (used < len && f->state != FRAME_COMPLETE && f->state != FRAME_BAD) {
		if (f->state == FRAME_BODY || f->state == FRAME_CHUNK_DATA) {
			if (in_head)
				break;
			used += http_frame_skip(f, len - used);
		} else if (in_head && f->state == FRAME_CHUNK_SIZE) {
			break;
		} else {
			used += feed_line(f, p + used, len - used);
		}
	}
	return used;
}

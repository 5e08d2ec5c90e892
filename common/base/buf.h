/*
 * buf.h - a growable byte buffer to write into, and a bounds-checked reader; the integers of all our formats.
 *
 * Both are forgiving inside and strict at the end: after a failed allocation (buf.failed) or a read past the end
 * (rd.bad) every further call is a harmless no-op, so that a codec reads straight down and checks once.
 * Integers are little-endian, written byte by byte. Not thread-safe.
 */
#ifndef GRIZZLY_COMMON_BASE_BUF_H
#define GRIZZLY_COMMON_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/base/err.h"

struct buf {
	uint8_t *data; /* owned; NULL while cap is 0 */
	size_t len;
	size_t cap;
	bool failed; /* an allocation failed: the content is incomplete */
};

void buf_init(struct buf *b);  /* an empty buffer, nothing allocated; `struct buf b = {0}` is the same */
void buf_fini(struct buf *b);  /* frees and empties; may be used again */
void buf_clear(struct buf *b); /* len = 0, failed = false, the memory is kept */

bool buf_grow(struct buf *b, size_t extra); /* for buf_reserve() alone: the room is not there */

/* Makes room for extra more bytes. False and b->failed when memory is short. Inline, as buf_put() and buf_put_u8() are:
 * every value of every row passes here several times. */
static inline bool buf_reserve(struct buf *b, size_t extra)
{
	return !b->failed && b->cap - b->len >= extra ? true : buf_grow(b, extra);
}

/* Moves the content out; the caller owns and free()s it. NULL when the buffer is empty or failed. */
uint8_t *buf_take(struct buf *b, size_t *len);

static inline void buf_put(struct buf *b, const void *bytes, size_t len)
{
	if (len == 0 || !buf_reserve(b, len))
		return;
	memcpy(b->data + b->len, bytes, len);
	b->len += len;
}

void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
static inline void buf_put_u8(struct buf *b, uint8_t v)
{
	if (buf_reserve(b, 1))
		b->data[b->len++] = v;
}

void buf_put_u16le(struct buf *b, uint16_t v);
void buf_put_u32le(struct buf *b, uint32_t v);
void buf_put_u64le(struct buf *b, uint64_t v);
/* u32 length, then the bytes: how strings travel. */
void buf_put_blob(struct buf *b, const void *bytes, size_t len);

static inline void buf_puts(struct buf *b, const char *s)
{
	buf_put(b, s, strlen(s));
}

/* Raw access for codecs that fill fixed headers in place. */
static inline void store_u16le(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static inline void store_u32le(uint8_t *p, uint32_t v)
{
	store_u16le(p, (uint16_t)v);
	store_u16le(p + 2, (uint16_t)(v >> 16));
}

static inline void store_u64le(uint8_t *p, uint64_t v)
{
	store_u32le(p, (uint32_t)v);
	store_u32le(p + 4, (uint32_t)(v >> 32));
}

static inline uint16_t load_u16le(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t load_u32le(const uint8_t *p)
{
	return (uint32_t)load_u16le(p) | (uint32_t)load_u16le(p + 2) << 16;
}

static inline uint64_t load_u64le(const uint8_t *p)
{
	return (uint64_t)load_u32le(p) | (uint64_t)load_u32le(p + 4) << 32;
}

/* A reader over borrowed bytes. */
struct rd {
	const uint8_t *p;
	size_t left;
	bool bad; /* something was missing or out of bounds */
};

void rd_init(struct rd *r, const void *bytes, size_t len);
uint8_t rd_u8(struct rd *r); /* these return 0 once r->bad */
uint16_t rd_u16le(struct rd *r);
uint32_t rd_u32le(struct rd *r);
uint64_t rd_u64le(struct rd *r);
/* len bytes in place, borrowed from the reader's bytes; NULL (and bad) when fewer are left. */
const uint8_t *rd_bytes(struct rd *r, size_t len);
/* The counterpart of buf_put_blob(): borrowed bytes and *len; NULL and bad when cut short or longer than max. */
const uint8_t *rd_blob(struct rd *r, size_t max, size_t *len);
/* Copies a blob into out as a NUL-terminated string; bad when it does not fit or has a NUL inside. */
void rd_str(struct rd *r, char *out, size_t out_size);

#endif

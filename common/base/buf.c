/* buf.c - see buf.h. Only buf_grow() can fail, and it says so in b->failed. */
#include "common/base/buf.h"

#include <stdio.h>
#include <stdlib.h>

#define BUF_CAP_MIN 256

void buf_init(struct buf *b)
{
	memset(b, 0, sizeof(*b));
}

void buf_fini(struct buf *b)
{
	free(b->data);
	buf_init(b);
}

void buf_clear(struct buf *b)
{
	b->len = 0;
	b->failed = false;
}

bool buf_grow(struct buf *b, size_t extra)
{
	size_t cap = b->cap ? b->cap : BUF_CAP_MIN;
	uint8_t *data;

	if (b->failed || extra > SIZE_MAX / 4 - b->len)
		goto fail;
	if (b->cap - b->len >= extra)
		return true;
	while (cap - b->len < extra)
		cap *= 2;
	data = realloc(b->data, cap);
	if (data == NULL)
		goto fail;
	b->data = data;
	b->cap = cap;
	return true;
fail:
	b->failed = true;
	return false;
}

uint8_t *buf_take(struct buf *b, size_t *len)
{
	uint8_t *data = b->data;

	if (b->failed || b->len == 0)
		return NULL;
	*len = b->len;
	buf_init(b);
	return data;
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || !buf_reserve(b, (size_t)n + 1))
		return;
	va_start(ap, fmt);
	vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
}

void buf_put_u16le(struct buf *b, uint16_t v)
{
	uint8_t bytes[2];

	store_u16le(bytes, v);
	buf_put(b, bytes, sizeof(bytes));
}

void buf_put_u32le(struct buf *b, uint32_t v)
{
	uint8_t bytes[4];

	store_u32le(bytes, v);
	buf_put(b, bytes, sizeof(bytes));
}

void buf_put_u64le(struct buf *b, uint64_t v)
{
	uint8_t bytes[8];

	store_u64le(bytes, v);
	buf_put(b, bytes, sizeof(bytes));
}

void buf_put_blob(struct buf *b, const void *bytes, size_t len)
{
	if (len > UINT32_MAX) {
		b->failed = true;
		return;
	}
	buf_put_u32le(b, (uint32_t)len);
	buf_put(b, bytes, len);
}

void rd_init(struct rd *r, const void *bytes, size_t len)
{
	r->p = bytes;
	r->left = len;
	r->bad = false;
}

const uint8_t *rd_bytes(struct rd *r, size_t len)
{
	const uint8_t *at = r->p;

	if (r->bad || len > r->left) {
		r->bad = true;
		return NULL;
	}
	r->p += len;
	r->left -= len;
	return at;
}

uint8_t rd_u8(struct rd *r)
{
	const uint8_t *at = rd_bytes(r, 1);

	return at == NULL ? 0 : at[0];
}

uint16_t rd_u16le(struct rd *r)
{
	const uint8_t *at = rd_bytes(r, 2);

	return at == NULL ? 0 : load_u16le(at);
}

uint32_t rd_u32le(struct rd *r)
{
	const uint8_t *at = rd_bytes(r, 4);

	return at == NULL ? 0 : load_u32le(at);
}

uint64_t rd_u64le(struct rd *r)
{
	const uint8_t *at = rd_bytes(r, 8);

	return at == NULL ? 0 : load_u64le(at);
}

const uint8_t *rd_blob(struct rd *r, size_t max, size_t *len)
{
	*len = rd_u32le(r);
	if (*len > max)
		r->bad = true;
	return rd_bytes(r, *len);
}

void rd_str(struct rd *r, char *out, size_t out_size)
{
	size_t len;
	const uint8_t *at = rd_blob(r, out_size - 1, &len);

	if (at == NULL || memchr(at, 0, len) != NULL) {
		r->bad = true;
		out[0] = '\0';
		return;
	}
	memcpy(out, at, len);
	out[len] = '\0';
}

/*
 * pipeline_in.c - see pipeline_in.h.
 */
#include "common/wire/pipeline_in.h"

#include <endian.h>
#include <string.h>

#include "common/wire/link.h"

#define ROOM_MIN ((size_t)16 << 10)
#define ROOM_MAX ((size_t)256 << 10)
#define KEPT_MAX ((size_t)1 << 20) /* a buffer that has grown beyond this is given back when it is empty */

const uint8_t pipeline_hello[PIPELINE_HELLO_LEN] = {0, 'S', 'P', 0, 0, 0x51, 0, 0};
const uint8_t pipeline_sender_hello[PIPELINE_HELLO_LEN] = {0, 'S', 'P', 0, 0, 0x50, 0, 0};

size_t pipeline_header(uint8_t out[PIPELINE_HEADER_MAX], size_t len, bool on_file)
{
	uint64_t size = htobe64((uint64_t)len);

	if (on_file)
		*out++ = 1;
	memcpy(out, &size, sizeof(size));
	return sizeof(size) + (on_file ? 1 : 0);
}

static size_t header_len(const struct pipeline_in *p)
{
	return p->on_file ? 9 : 8;
}

/* The length of the message whose header is next; more than LINK_MESSAGE_MAX: it is not to be. */
static uint64_t announced(const struct pipeline_in *p)
{
	const uint8_t *header = p->in.data + p->taken;
	uint64_t len;

	if (p->on_file && *header++ != 1)
		return UINT64_MAX;
	memcpy(&len, header, sizeof(len));
	return be64toh(len);
}

/* What has been handed over makes room. */
static void drop_taken(struct pipeline_in *p)
{
	if (p->taken == 0)
		return;
	p->in.len -= p->taken;
	memmove(p->in.data, p->in.data + p->taken, p->in.len);
	p->taken = 0;
	if (p->in.len == 0 && p->in.cap > KEPT_MAX)
		buf_fini(&p->in);
}

/* The rest of a message that has begun, for what comes behind it would have to be moved. */
static size_t bytes_wanted(const struct pipeline_in *p)
{
	size_t missing;

	if (!p->greeted || p->in.len < header_len(p))
		return ROOM_MIN;
	missing = header_len(p) + (size_t)announced(p) - p->in.len;
	if (missing < ROOM_MIN)
		return ROOM_MIN;
	return missing < ROOM_MAX ? missing : ROOM_MAX;
}

uint8_t *pipeline_in_room(struct pipeline_in *p, size_t *size)
{
	drop_taken(p);
	*size = bytes_wanted(p);
	return buf_reserve(&p->in, *size) ? p->in.data + p->in.len : NULL;
}

void pipeline_in_came(struct pipeline_in *p, size_t size)
{
	p->in.len += size;
}

static enum pipeline_next take_hello(struct pipeline_in *p)
{
	if (p->in.len < PIPELINE_HELLO_LEN)
		return PIPELINE_MORE;
	p->greeted = memcmp(p->in.data, pipeline_sender_hello, PIPELINE_HELLO_LEN) == 0;
	p->taken = PIPELINE_HELLO_LEN;
	return p->greeted ? PIPELINE_MESSAGE : PIPELINE_BROKEN;
}

enum pipeline_next pipeline_in_next(struct pipeline_in *p, const uint8_t **body, size_t *len)
{
	const size_t header = header_len(p);
	enum pipeline_next hello;
	uint64_t size;

	if (!p->greeted) {
		hello = take_hello(p);
		if (hello != PIPELINE_MESSAGE)
			return hello;
	}
	if (p->in.len - p->taken < header)
		return PIPELINE_MORE;
	size = announced(p);
	if (size > LINK_MESSAGE_MAX)
		return PIPELINE_BROKEN;
	if (p->in.len - p->taken - header < size)
		return PIPELINE_MORE;
	*body = p->in.data + p->taken + header;
	*len = (size_t)size;
	p->taken += header + *len;
	return PIPELINE_MESSAGE;
}

void pipeline_in_fini(struct pipeline_in *p)
{
	buf_fini(&p->in);
}

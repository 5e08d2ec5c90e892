/*
 * fuzz_pipeline.c - the framing on the replication and ack ports.
 *
 * The first byte of the input: its lowest bit chooses a Unix socket's framing or TCP's, the others how many bytes come at a
 * time. The rest is what the peer says. However it comes, the same messages come out of it, one behind the other and of the
 * lengths announced, and the verdict is the same; the buffer stays within twice what is there and what is asked for.
 */
#include <stdlib.h>
#include <string.h>

#include "common/wire/link.h"
#include "common/wire/pipeline_in.h"
#include "tests/fuzz/fuzz.h"

/* All that was heard: each message's length and bytes. */
static enum pipeline_next hear(struct buf *heard, bool on_file, const uint8_t *data, size_t size, size_t piece)
{
	struct pipeline_in p = {.on_file = on_file};
	enum pipeline_next next = PIPELINE_MORE;
	const uint8_t *body;
	size_t len, room, n;
	uint8_t *to;

	while (size > 0 && next == PIPELINE_MORE) {
		to = pipeline_in_room(&p, &room);
		FUZZ_CHECK(to != NULL && room > 0 && p.in.cap <= 2 * (p.in.len + room));
		n = piece < room ? piece : room;
		n = n < size ? n : size;
		memcpy(to, data, n);
		pipeline_in_came(&p, n);
		data += n;
		size -= n;
		while ((next = pipeline_in_next(&p, &body, &len)) == PIPELINE_MESSAGE) {
			FUZZ_CHECK(p.greeted && len <= LINK_MESSAGE_MAX);
			buf_put_u64le(heard, len);
			buf_put(heard, body, len);
		}
	}
	pipeline_in_fini(&p);
	return next;
}

/* What a reader that has everything before it makes of it. */
static enum pipeline_next read_all(struct buf *heard, bool on_file, const uint8_t *data, size_t size)
{
	static const uint8_t hello[] = {0, 'S', 'P', 0, 0, 0x50, 0, 0};
	const size_t mark = on_file ? 1 : 0;
	uint64_t len;
	size_t i;

	if (size < sizeof(hello))
		return PIPELINE_MORE;
	if (memcmp(data, hello, sizeof(hello)) != 0)
		return PIPELINE_BROKEN;
	data += sizeof(hello);
	size -= sizeof(hello);
	while (size >= mark + 8) {
		if (on_file && data[0] != 1)
			return PIPELINE_BROKEN;
		for (i = 0, len = 0; i < 8; i++)
			len = len << 8 | data[mark + i];
		if (len > LINK_MESSAGE_MAX)
			return PIPELINE_BROKEN;
		if (size - mark - 8 < len)
			break;
		buf_put_u64le(heard, len);
		buf_put(heard, data + mark + 8, (size_t)len);
		data += mark + 8 + len;
		size -= mark + 8 + (size_t)len;
	}
	return PIPELINE_MORE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf whole = {0}, pieces = {0};
	bool on_file;
	size_t piece;

	if (size == 0)
		return 0;
	on_file = (data[0] & 1) != 0;
	piece = (size_t)(data[0] >> 1) + 1;
	data++;
	size--;
	FUZZ_CHECK(read_all(&whole, on_file, data, size) == hear(&pieces, on_file, data, size, piece));
	FUZZ_CHECK(whole.len == pieces.len && (whole.len == 0 || memcmp(whole.data, pieces.data, whole.len) == 0));
	buf_fini(&whole);
	buf_fini(&pieces);
	return 0;
}

/*
 * pipeline_in.h - a pipeline's protocol, and the receiving end of one connection: bytes in, messages out. No I/O.
 *
 * The protocol is that of NNG's PUSH and PULL sockets (nanomsg's RFCs sp-tcp-mapping-01 and sp-ipc-mapping-01): eight bytes of
 * hello each way, "\0SP\0", the kind of socket, two zeros; then messages, each behind its length in eight bytes, most
 * significant first, which on a Unix socket follow a byte that is 1.
 *
 * The buffer grows as bytes come, not as the peer announces them. Used by link_pull.c, and by the
 * fuzzer; link_push.c has the other end.
 */
#ifndef GRIZZLY_COMMON_WIRE_PIPELINE_IN_H
#define GRIZZLY_COMMON_WIRE_PIPELINE_IN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"

#define PIPELINE_HELLO_LEN  8
#define PIPELINE_HEADER_MAX 9

extern const uint8_t pipeline_hello[PIPELINE_HELLO_LEN]; /* what the receiver says */
extern const uint8_t pipeline_sender_hello[PIPELINE_HELLO_LEN];

/* What goes before a message of len bytes; returns its own length. */
size_t pipeline_header(uint8_t out[PIPELINE_HEADER_MAX], size_t len, bool on_file);

struct pipeline_in {
	bool on_file; /* a Unix socket's framing; {.on_file = …} is one that has heard nothing yet */
	bool greeted; /* the hello was right */
	size_t taken; /* of in: handed over */
	struct buf in;
};

enum pipeline_next {
	PIPELINE_MESSAGE,
	PIPELINE_MORE,   /* nothing is whole until more bytes come */
	PIPELINE_BROKEN, /* no sender of ours, or a message beyond LINK_MESSAGE_MAX */
};

/* Room for more bytes, *size of them. NULL: out of memory. */
uint8_t *pipeline_in_room(struct pipeline_in *p, size_t *size);
/* So many have been put there. */
void pipeline_in_came(struct pipeline_in *p, size_t size);
/* PIPELINE_MESSAGE: *body has *len bytes, valid until the next call of any of these. To be called until it is another. */
enum pipeline_next pipeline_in_next(struct pipeline_in *p, const uint8_t **body, size_t *len);
void pipeline_in_fini(struct pipeline_in *p);

#endif

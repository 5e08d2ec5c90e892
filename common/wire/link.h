/*
 * link.h - the sockets between processes: NNG's request/reply for control, its pipelines for the record stream.
 *
 * A link moves opaque bytes (common/wire/wire.h gives them meaning), owns its socket. Every callback runs on a thread of
 * NNG or of the link: post to your own loop or take your own lock, and return soon. A callback may send on a link; it must never
 * free one. Each *_free() waits until the callbacks of its link have ended: hold no lock that a callback takes.
 * Nothing here retries or re-sends by itself, except that a dialer reconnects for ever (after 5 ms, growing to 250 ms).
 */
#ifndef GRIZZLY_COMMON_WIRE_LINK_H
#define GRIZZLY_COMMON_WIRE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <nng/nng.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/wire/wire.h"

#define LINK_URL_MAX     128                                   /* NUL included */
#define LINK_MESSAGE_MAX (WIRE_CHUNK_MAX + ((size_t)64 << 10)) /* a peer that sends more is disconnected */
#define LINK_PIPES_MAX   64 /* connections that a listening link keeps; for one more, a silent one is closed */

/* "host:port" (an IPv6 host in brackets) to "tcp://host:port". DB_INVALID names the address. */
enum db_err link_tcp_url(char out[LINK_URL_MAX], const char *address, struct errmsg *em);
/* A path, relative ones too, to "ipc://path". DB_INVALID: longer than a Unix socket's name may be (107 bytes). */
enum db_err link_ipc_url(char out[LINK_URL_MAX], const char *path, struct errmsg *em);

/* Encodes msg, copying the bytes of a RECORDS or SNAPSHOT_PAGES message once only. NULL: out of memory. */
nng_msg *link_msg_encode(const struct wire_msg *msg);
/* A message with a copy of b's content, or of len uninitialised bytes to fill (nng_msg_body()). NULL: out of memory, or
 * b->failed. */
nng_msg *link_msg_from_buf(const struct buf *b);
nng_msg *link_msg_alloc(size_t len);

/* ---- REQ: the supervisor asks a node; any number of requests may be under way at a time */

struct link_req;

/* DB_OK: bytes are the reply, valid during the call; else NULL. DB_TIMEOUT: no answer before the deadline.
 * DB_UNAVAILABLE: no connection before the deadline, or it ended while the answer was awaited (when it ends just as the
 * request leaves, NNG does not tell: DB_TIMEOUT). DB_CLOSED: link_req_free(). Whatever the
 * error: the peer may or may not have carried it out, but will not get it again later. */
typedef void (*link_reply_fn)(void *arg, enum db_err err, const void *bytes, size_t len);

/* Opens and begins to connect in the background; the peer need not be there yet. DB_INVALID, DB_NOMEM, DB_IO. */
enum db_err link_req_create(struct link_req **out, const char *url, struct errmsg *em);
/* Sends a copy of bytes; a request made while disconnected waits for the connection until its deadline. DB_OK: on_reply
 * is called exactly once, perhaps before this returns. Otherwise (DB_NOMEM, DB_CLOSED) never. Any thread. */
enum db_err link_req_send(struct link_req *r, const void *bytes, size_t len, uint64_t timeout_ms,
			  link_reply_fn on_reply, void *arg);
/* Gives up what is under way (DB_CLOSED). NULL is fine. */
void link_req_free(struct link_req *r);

/* One request, blocking, for command lines. *reply is replaced. DB_UNAVAILABLE: nobody listens there (known at once on
 * ipc://, after timeout_ms on tcp://); DB_TIMEOUT: no answer. */
enum db_err link_req_call(const char *url, const void *bytes, size_t len, uint64_t timeout_ms, struct buf *reply,
			  struct errmsg *em);
/* The same for a command to a supervisor: request is its JSON text, *answer the text of the reply, in memory of reply's.
 * DB_INVALID: no supervisor has answered. */
enum db_err link_cli_call(const char *url, const char *sender, const char *request, uint64_t timeout_ms,
			  struct buf *reply, struct wire_text *answer, struct errmsg *em);

/* ---- REP: a node or the supervisor answers, one request at a time */

struct link_rep;

/* Fills reply; left empty (or failed), the request is dropped and the peer runs into its deadline. */
typedef void (*link_request_fn)(void *arg, const void *bytes, size_t len, struct buf *reply);

/* Listens at url. An ipc:// file that a killed process left behind is taken over. DB_BUSY: somebody listens there;
 * DB_INVALID, DB_NOMEM, DB_IO. */
enum db_err link_rep_create(struct link_rep **out, const char *url, link_request_fn on_request, void *arg,
			    struct errmsg *em);
uint16_t link_rep_port(const struct link_rep *r); /* the TCP port bound: of interest after asking for port 0 */
void link_rep_free(struct link_rep *r);           /* NULL is fine */

/* ---- PUSH: one stream of messages to one peer */

struct link_push;

/* connected: messages can be sent now. Calls of one link come from a thread of its own, never overlap, and alternate,
 * beginning with true. on_sent of the old connection has returned before false is told. */
typedef void (*link_connected_fn)(void *arg, bool connected);
/* May overlap with the end of the call before, once that has sent the next message.
 * DB_OK: handed to the connection, the next message may be sent; it is lost when the connection ends before the peer
 * has read it, which on_connected(false) tells. DB_UNAVAILABLE: the connection ended first, the message is dropped.
 * DB_CLOSED: link_push_free(). */
typedef void (*link_sent_fn)(void *arg, enum db_err err);

/* Opens and begins to connect in the background. *out is set before the first callback. DB_INVALID, DB_NOMEM, DB_IO.
 * near_url: NULL, or an ipc:// address of the same peer, which is taken in url's place for as long as its file is there;
 * whoever listens at both opens that one first. */
enum db_err link_push_create(struct link_push **out, const char *url, const char *near_url,
			     link_connected_fn on_connected, link_sent_fn on_sent, void *arg, struct errmsg *em);
/* Sends one message; there must be no other one under way (DB_BUSY). On DB_OK takes msg, and on_sent is called exactly
 * once, perhaps before this returns. On DB_UNAVAILABLE (not connected), DB_BUSY, DB_CLOSED msg stays the caller's and
 * on_sent is not called. Nothing is queued: a message never outlives the connection it was meant for. Any thread. */
enum db_err link_push_send(struct link_push *p, nng_msg *msg);
/* Drops the connection, or an attempt at one, and connects afresh: for a peer that has gone silent, whose packets may
 * have been lost for so long that TCP would sleep for minutes before it tries again. Returns at once; any thread. */
void link_push_reconnect(struct link_push *p);
/* A send under way completes with DB_CLOSED, then on_connected(false) comes if it was connected. NULL is fine. */
void link_push_free(struct link_push *p);

/* ---- PULL: the messages of all peers that push to us */

struct link_pull;

/* Called for one message at a time, those of one connection in order; while it runs nothing is read: back-pressure.
 * Returns false for what is no message of ours: the connection that brought it is closed.
 * When a peer reconnects, what its old connection has left may still arrive, even after the first messages of the new
 * one: a stream id in the message (wire.h) tells them apart. */
typedef bool (*link_message_fn)(void *arg, const void *bytes, size_t len);

/* Listens at url, with a thread of its own. An ipc:// file that a killed process left behind is taken over. DB_BUSY: the
 * address is in use, or somebody listens there; DB_INVALID, DB_NOMEM, DB_IO. */
enum db_err link_pull_create(struct link_pull **out, const char *url, link_message_fn on_message, void *arg,
			     struct errmsg *em);
/* Listens at another address, too: messages that come there are the same to on_message. Errors as above; then nothing has
 * changed. Before another thread knows of the link. */
enum db_err link_pull_also(struct link_pull *p, const char *url, struct errmsg *em);
uint16_t link_pull_port(const struct link_pull *p); /* the TCP port bound: of interest after asking for port 0 */
void link_pull_free(struct link_pull *p);           /* NULL is fine */

#endif

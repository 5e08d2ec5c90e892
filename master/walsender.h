/*
 * walsender.h - what the master sends to one replica next: the deciding half, without threads or sockets.
 *
 * Exactly one message is under way at a time; walsender_next() is asked for the next one whenever the link is free. It
 * reads the log through struct walsender_io at a cursor of its own, so a slow replica costs no memory and slows nobody.
 * Used by master/replication.c under the sender's mutex, by unit tests and by a simulator.
 *
 *   DISCONNECTED --connected--> HELLO --POSITION--> STREAMING --POSITION (gap)--> STREAMING
 *   any --POSITION that cannot be joined--> SNAPSHOT --all sent--> HELLO (the replica restarts with it and joins)
 *   any --POSITION of a replica that holds committed records which we lack--> REFUSED, until it says something else
 *   STREAMING --the log cannot be read on--> HELLO
 *
 * Of a snapshot only those pages travel that the replica says it lacks (master/snapshot_windows.h). One that a lost
 * connection cuts short is begun anew at a newer LSN, and so goes on where it was: what has arrived is not wanted again.
 */
#ifndef GRIZZLY_MASTER_WALSENDER_H
#define GRIZZLY_MASTER_WALSENDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/wal/record.h"
#include "common/wire/wire.h"

/* How often a silent link carries a COMMIT, and how long a HELLO may stay unanswered. */
#define WALSENDER_KEEPALIVE_MS 50u
/* Nothing was sent for so long: a commit is worth a message of its own, for no record will carry it. */
#define WALSENDER_NOTICE_MS      1u
#define WALSENDER_HELLO_RETRY_MS 500u
/* How long the replica may think about which pages of a snapshot it wants: it reads its disk for that. */
#define WALSENDER_WANT_MS 10000u
/* While commits go on a snapshot leaves them most of the time: after a message that took t it waits for WALSENDER_PACE * t,
 * at most WALSENDER_PACE_MS_MAX. They go on when the last one is less than WALSENDER_BUSY_MS old. What a message costs the
 * disk comes on top of t; a pace of 3 left commits half of their rate, see "bench.py --only add-replica". */
#define WALSENDER_PACE        40u
#define WALSENDER_PACE_MS_MAX 500u
#define WALSENDER_BUSY_MS     100u

struct walsender_io {
	void *arg;
	/* The master's log; next() is the cursor. DB_NOTFOUND: nothing more yet. DB_GAP: trimmed away. */
	enum db_err (*seek)(void *arg, uint64_t next_lsn, struct errmsg *em);
	enum db_err (*next)(void *arg, struct wal_record *out, struct errmsg *em);
	size_t (*terms)(void *arg, struct wal_pos *out, size_t max);
	uint64_t (*first_lsn)(void *arg);
	uint64_t (*last_lsn)(void *arg);
	/* Term and checksum of one record; also of the last one before first_lsn. */
	enum db_err (*describe)(void *arg, uint64_t lsn, uint64_t *term, uint64_t *checksum, struct errmsg *em);
	/* Pins what is committed, fills all of *out but the stream id, and moves the cursor behind it: until the next seek()
	 * the log from there on is kept, also after snapshot_close(). Never called while one is open. */
	enum db_err (*snapshot_open)(void *arg, struct wire_snapshot_begin *out, struct errmsg *em);
	const uint8_t *(*snapshot_page)(void *arg, uint32_t pgno);
	uint64_t (*snapshot_hash)(void *arg, uint32_t pgno); /* the page's part of the database checksum */
	void (*snapshot_close)(void *arg);
};

enum walsender_state {
	WALSENDER_DISCONNECTED,
	WALSENDER_HELLO,
	WALSENDER_STREAMING,
	WALSENDER_SNAPSHOT,
	WALSENDER_REFUSED,
};

struct walsender_identity {
	uint8_t cluster_id[16];
	uint64_t term;
	char node_id[WIRE_NAME_MAX];
	char ack_address[WIRE_NAME_MAX];
	char http_address[WIRE_NAME_MAX];
};

struct walsender;

/* identity and io are copied; peer names the replica in the log. first_stream_id: any number that no earlier sender to
 * this replica used. DB_NOMEM. */
enum db_err walsender_create(struct walsender **out, const struct walsender_identity *identity, const char *peer,
			     uint64_t first_stream_id, const struct walsender_io *io, struct errmsg *em);
void walsender_free(struct walsender *w); /* closes an open snapshot; NULL is fine */

void walsender_on_connected(struct walsender *w, bool connected, uint64_t now_ms);
/* A POSITION of the current stream decides from where to send; of another stream: ignored. */
void walsender_on_position(struct walsender *w, const struct wire_position *position);
/* Which pages the replica wants of those offered last; of another stream: ignored. */
void walsender_on_want(struct walsender *w, const struct wire_snapshot_want *want);
/* For the owner's timer: gives up a snapshot whose replica does not say what it wants. */
void walsender_on_tick(struct walsender *w, uint64_t now_ms);
/* True when the ack belongs to the current stream and to our log: only then it counts. */
bool walsender_on_ack(struct walsender *w, const struct wire_ack *ack);

/* The log, or the snapshot, that it reads from is taken away: it begins again with a HELLO, and will find out by the
 * replica's POSITION what can be done. Nothing of the log is referred to any more when this returns. */
void walsender_cut(struct walsender *w, const char *why);

/* What to send now. False: nothing. True: *msg is filled; bytes it points to are valid until the next call. flush_commit:
 * send the committed LSN even before the keep-alive is due, once nothing was sent for WALSENDER_NOTICE_MS. */
bool walsender_next(struct walsender *w, uint64_t committed_lsn, bool flush_commit, uint64_t now_ms,
		    struct wire_msg *msg);

struct walsender_status {
	enum walsender_state state;
	bool paced; /* in SNAPSHOT: the next message waits for its time, somebody has to ask again */
	uint64_t acked_lsn;
	uint64_t applied_lsn;
	uint64_t db_checksum;
};
void walsender_get_status(const struct walsender *w, struct walsender_status *out);
const char *walsender_state_name(enum walsender_state state);

#endif

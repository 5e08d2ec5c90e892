/*
 * replication.h - the master's hub: one walsender per replica, their acknowledgements, and the committed LSN.
 *
 * The shell around master/commit.c and master/walsender.c. Owns a PUSH link and a log cursor per replica and a ticker
 * thread for keep-alives and for telling idle replicas what has been committed. Entered from the writer thread (a
 * record was sealed), the sync thread (it is durable here) and the links' threads (connections, completed sends, acks). It
 * sends on the thread that has the news: a hand-over to a thread of its own would cost a wake-up on the path of every
 * write.
 *
 * Locks: the list of senders (shared by whoever goes through it, exclusive for a change of the members) before one per
 * sender (its walsender and cursor); one for commit tracking, held together with no other. None but the list is held
 * while sending, and none while on_committed runs.
 */
#ifndef GRIZZLY_MASTER_REPLICATION_H
#define GRIZZLY_MASTER_REPLICATION_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/config.h"
#include "common/store/store.h"
#include "common/wire/mesh.h"
#include "common/wire/wire.h"
#include "master/walsender.h"

struct replication;

struct replication_options {
	struct store *store;
	const struct cluster_config *config; /* borrowed, outlives it */
	struct mesh *mesh;                   /* likewise */
	const struct members *members;       /* who is sent to, and whose acknowledgements count; copied */
	unsigned node;                       /* our own number, from 1 */
	uint64_t term;
	uint64_t term_start_lsn;
	/* The committed LSN moved. Called in order of LSN, never by two threads at once. */
	void (*on_committed)(void *arg, uint64_t committed_lsn);
	/* A replica has promised a newer term: we are deposed. Called from the acks' receiver. */
	void (*on_deposed)(void *arg, uint64_t term);
	void *arg;
};

enum db_err replication_create(struct replication **out, const struct replication_options *options, struct errmsg *em);
/* Waits for callbacks under way. NULL is fine. */
void replication_free(struct replication *r);

/* Begins to send to new members, stops sending to those that are none any more, and counts by their quorums: everything
 * acknowledged from here on satisfies them. One call at a time, holding no lock that a callback of replication takes.
 * On an error (DB_NOMEM, DB_INVALID, …) the quorums are those of before. */
enum db_err replication_set_members(struct replication *r, const struct members *members, struct errmsg *em);

void replication_on_sealed(struct replication *r);                      /* new records lie in the log */
void replication_on_local_durable(struct replication *r, uint64_t lsn); /* our own fdatasync returned */
void replication_on_message(struct replication *r,
			    const struct wire_msg *msg); /* POSITION or ACK of our term or newer */
uint64_t replication_committed_lsn(struct replication *r);

/* The log has reached its cap: senders that hold records below keep_lsn let go of them, and their replicas are sent
 * snapshots when they are heard of again. Any thread. */
void replication_cut_slow(struct replication *r, uint64_t keep_lsn);

struct replication_peer {
	char id[WIRE_NAME_MAX];
	char address[WIRE_NAME_MAX];
	struct walsender_status walsender;
	uint64_t held_lsn; /* the oldest record kept for it; UINT64_MAX: none */
	uint64_t cut_offs; /* how often it was cut off, since we are master */
};
/* Fills at most max entries, returns how many. */
size_t replication_get_peers(struct replication *r, struct replication_peer *out, size_t max);

#endif

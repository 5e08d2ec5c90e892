/*
 * roles.h - what this node is at the moment: replica or master, of which term, and the switch between the two.
 *
 * Owns the durable promise (the term below which nothing is accepted), the role objects of master/ and replica/, and the
 * store's handing over between them: the store stays open, nothing is replayed. A node starts as a replica; it becomes
 * master when the supervisor says so for the term it promised, and steps down in place when it learns of a newer one.
 *
 * Locks: a reader-writer lock; every use of a role object holds it shared, a switch holds it exclusively. A switch waits
 * for the role's threads, so whatever they call back must not take it: callbacks only set the view and wake the node's
 * main thread.
 */
#ifndef GRIZZLY_NODE_ROLES_H
#define GRIZZLY_NODE_ROLES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/config.h"
#include "common/store/snapshot_copy.h"
#include "common/store/store.h"
#include "common/wire/wire.h"
#include "master/master.h"
#include "node/disk_watch.h"

struct roles;

struct roles_options {
	struct store *store;
	struct disk_watch *disk;             /* borrowed */
	const struct cluster_config *config; /* borrowed */
	struct mesh *mesh;                   /* borrowed */
	const char *node_id;                 /* borrowed */
	unsigned node;                       /* from 1 */
	const char *dir;                     /* the node's directory; borrowed */
	bool rebuilding;                     /* its log may lack what it acknowledged: see roles_take_news() */
	void (*on_cut)(void *arg,
		       uint64_t keep_lsn); /* the records after keep_lsn are about to be cut; the receiver's thread */
	struct timings *timings;           /* as writer_options.timings; borrowed */
	void (*on_change)(void *arg);      /* the view changed or work for roles_settle() waits; any thread */
	void *arg;
};

/* What HTTP workers need to know. */
struct roles_view {
	enum wire_role role;
	bool ready;                      /* master: serves; replica: streams from its master */
	bool draining;                   /* master: writes wait, a switchover is under way */
	uint64_t term;                   /* promised */
	uint64_t lag_ms;                 /* replica; UINT64_MAX: it is being rebuilt, nothing shall be read here */
	bool lag_known;                  /* replica: it has had all that its master had; else it may lag any time */
	char master_http[WIRE_NAME_MAX]; /* replica: where to forward to; "" unknown */
};

/* Starts as a replica. */
enum db_err roles_create(struct roles **out, const struct roles_options *options, struct errmsg *em);
/* Ends the role for good: waiting writes are answered, the view says replica without a master. NULL is fine. */
void roles_stop(struct roles *r);
void roles_free(struct roles *r); /* stops first; NULL is fine */

void roles_get_view(struct roles *r, struct roles_view *out);
/* DB_CLOSED: not the master. DB_FULL: the disk is low on space, em says so. Otherwise as writer_submit(). */
enum db_err roles_submit(struct roles *r, struct write_job *job, struct errmsg *em);

/* As writer_find(); WRITER_UNSURE: not the master. */
enum writer_knowledge roles_find_write(struct roles *r, const char *request_id);

/* Messages of the replication socket and of the ack socket, decoded. False: the connection should be closed, see
 * walreceiver_on_message(). */
bool roles_on_replication_message(struct roles *r, const struct wire_msg *msg);
void roles_on_ack_message(struct roles *r, const struct wire_msg *msg);

/* The supervisor's commands; each is idempotent. DB_STALE_TERM: a newer term is promised. DB_INVALID: not possible in the
 * present role, em says why. */
enum db_err roles_set_term(struct roles *r, uint64_t term, struct errmsg *em);
/* members NULL: those that the log knows, or else the configuration's. */
enum db_err roles_promote(struct roles *r, uint64_t term, const struct members *members, struct errmsg *em);
enum db_err roles_set_members(struct roles *r, uint64_t term, const struct members *members, struct errmsg *em);
enum db_err roles_drain(struct roles *r, bool draining, struct errmsg *em);
/* As the master counts them; on a replica, or before the first change, those of the configuration. */
void roles_get_members(struct roles *r, struct members *out);

/* On the main thread after on_change(): steps down when a newer term was seen. DB_IO: the log cannot be written any more,
 * the process must end. */
enum db_err roles_settle(struct roles *r, struct errmsg *em);

/* What the owner has to do for the roles. */
struct roles_news {
	bool diverged; /* the store is not what the master has: remember it */
	bool rebuilt; /* was rebuilding, and holds all that its master had: write that down, then roles_set_rebuilt() */
	struct snapshot_target *snapshot; /* to be put in the store's place once that is closed; the caller's to free */
};

/* On the main thread after on_change(). A node that is rebuilding streams and acknowledges like any other, but promises no
 * term to the supervisor and is not promoted: an election must not count on a log that may lack acknowledged records. */
void roles_take_news(struct roles *r, struct roles_news *out);
void roles_set_rebuilt(struct roles *r);

/* As replication_cut_slow(); nothing on a replica. Any thread. */
void roles_cut_slow(struct roles *r, uint64_t keep_lsn);

/* Everything but addresses and pid; any thread. */
void roles_get_status(struct roles *r, struct wire_node_status *out);
/* As master_get_peers() and master_get_counters(); 0 and zeroes on a replica. */
size_t roles_get_peers(struct roles *r, struct replication_peer *out, size_t max);
void roles_get_write_counters(struct roles *r, struct writer_counters *out);

#endif

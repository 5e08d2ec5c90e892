/*
 * master.h - the master role of a node: writer and replication of one term, from promotion to stepping down.
 *
 * Created on a store that holds everything the term may build on; the caller (node/) has made the term durable. It writes
 * the term's first record, and is ready once that is committed. Callbacks come from the writer, sync and links' threads;
 * none of them may call master_stop() or master_free().
 */
#ifndef GRIZZLY_MASTER_MASTER_H
#define GRIZZLY_MASTER_MASTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/config.h"
#include "common/store/store.h"
#include "common/wire/wire.h"
#include "master/replication.h"
#include "master/writer.h"

struct master;

struct master_options {
	struct store *store;
	const struct cluster_config *config; /* borrowed, outlives it */
	struct mesh *mesh;                   /* likewise */
	const char *node_id;                 /* borrowed */
	unsigned node;                       /* our number, from 1 */
	const struct members
	    *members; /* as the supervisor told with the promotion; copied. NULL: nobody did, see master_create() */
	struct members *log_members; /* out, also when it fails: the newest that the log has, committed or not */
	uint64_t term;
	void (*on_ready)(void *arg);                      /* once: the term's first record is committed */
	void (*on_deposed)(void *arg, uint64_t term);     /* a replica answers to a newer term */
	void (*on_failed)(void *arg, const char *reason); /* the log cannot be written any more */
	void *arg;
	struct timings *timings; /* as writer_options.timings */
};

/* Members that nobody told, as for the first master of all and for one that is recovered, are those that the log knows, or
 * else the configuration's. DB_INVALID also when the log has newer members than the supervisor told: then that one would
 * count wrongly; and when we are no voter among them. */
enum db_err master_create(struct master **out, const struct master_options *options, struct errmsg *em);
/* No new writes, threads end, waiting jobs are answered (see writer_stop()). */
void master_stop(struct master *m);
void master_free(struct master *m); /* stops first; NULL is fine */

/* Counts by these members from now on, and writes them into the log unless it has them committed. Returns at once; when
 * that has failed, the same call tries again. DB_STALE_TERM: newer ones are in force. DB_NOMEM, DB_INVALID. */
enum db_err master_set_members(struct master *m, const struct members *members, struct errmsg *em);
/* The newest members that our log has committed; version 0: none. */
void master_get_members(struct master *m, struct members *out);

enum db_err master_submit(struct master *m, struct write_job *job);          /* as writer_submit() */
enum writer_knowledge master_find(struct master *m, const char *request_id); /* as writer_find() */
void master_on_message(struct master *m, const struct wire_msg *msg);
void master_set_draining(struct master *m, bool draining);
bool master_is_drained(struct master *m);
bool master_is_ready(struct master *m);     /* one atomic load */
uint64_t master_stuck_ms(struct master *m); /* as writer_stuck_ms() */
uint64_t master_committed_lsn(struct master *m);
void master_cut_slow(struct master *m, uint64_t keep_lsn); /* as replication_cut_slow() */
size_t master_get_peers(struct master *m, struct replication_peer *out, size_t max);
void master_get_counters(struct master *m, struct writer_counters *out);

#endif

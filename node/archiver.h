/*
 * archiver.h - copies committed log to the archive directory, with bounded delay.
 *
 * The master archives; every node knows how far the archive is and keeps its log from there on (within log.max_bytes), so
 * that whoever becomes master next can go on. What is archived is decided by the directory itself: a new master looks for
 * the last file that agrees with its own log and goes on behind it. Only committed records are archived, so a deposed
 * master that has not noticed yet may write a file that overlaps, never one that differs. Files of an older term that do
 * differ (possible with durability "async" alone, where a failover drops committed records) are set aside.
 *
 * If the log does not reach back to the archive's end any more there is a hole: it is said loudly, and archiving goes on
 * behind it. A backup taken after the hole makes it harmless.
 *
 * A thread of its own, for the directory may be slow. The oldest commit waits archive.interval_ms at most, less when enough
 * for a file has come.
 */
#ifndef GRIZZLY_NODE_ARCHIVER_H
#define GRIZZLY_NODE_ARCHIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/config.h"
#include "common/base/err.h"
#include "common/store/store.h"
#include "node/roles.h"

struct archiver;

struct archiver_options {
	struct store *store;
	struct roles *roles;
	const struct cluster_config *config; /* these four are borrowed */
	const char *node_id;
};

/* Also where nothing is to be archived: then it has no thread and says so. */
enum db_err archiver_create(struct archiver **out, const struct archiver_options *options, struct errmsg *em);
/* Archives what is committed, if this is the master, and ends its thread. Before the role ends. NULL is fine. */
void archiver_stop(struct archiver *a);
void archiver_free(struct archiver *a); /* stops first; NULL is fine */

struct archiver_status {
	bool on; /* the log is archived */
	uint64_t archived_lsn;
	uint64_t lag_ms;      /* how long the oldest commit has waited that is not archived; 0 on a replica */
	uint64_t hole_lsn;    /* the last record before which records are missing; 0: none since the process began */
	uint64_t files_total; /* written by this process */
	char error[ERRMSG_TEXT_MAX]; /* why it does not get on; "": it does */
};
void archiver_get_status(struct archiver *a, struct archiver_status *out); /* any thread */

#endif

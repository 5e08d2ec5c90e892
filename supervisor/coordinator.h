/*
 * coordinator.h - the authority on the cluster's term and members: a small file that outlives every crash.
 *
 * D/supervisor.term (common/base/slotfile.h): term u64, failovers u64, nodes u64 (as cluster.json had it in the
 * beginning), the members as members_put() writes them; files of earlier versions end after nodes or failovers. A term,
 * or a version of the members, is used only after coordinator_store() returned DB_OK, hence no supervisor, not even one
 * that is restarted in the middle of an election, uses a term twice. Called by the supervisor's loop thread.
 */
#ifndef GRIZZLY_SUPERVISOR_COORDINATOR_H
#define GRIZZLY_SUPERVISOR_COORDINATOR_H

#include <stdint.h>

#include "common/base/err.h"
#include "common/base/members.h"
#include "common/base/slotfile.h"

struct coordinator {
	struct slotfile file;
};

struct coordinator_state {
	uint64_t term;
	uint64_t failovers;
	uint64_t nodes;         /* of the cluster in the beginning; 0: not recorded */
	struct members members; /* version 0: never changed */
};

/* Opens or creates; *state is zero when nothing was ever stored. DB_CORRUPT, DB_IO, DB_FULL. */
enum db_err coordinator_open(struct coordinator *k, const char *path, struct coordinator_state *state,
			     struct errmsg *em);
/* Durable when DB_OK; otherwise it may be or not. */
enum db_err coordinator_store(struct coordinator *k, const struct coordinator_state *state, struct errmsg *em);
void coordinator_close(struct coordinator *k);

#endif

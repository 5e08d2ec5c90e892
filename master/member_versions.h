/*
 * member_versions.h - which version of the members a master counts by, which one its log has committed, and when the
 * next one is written.
 *
 * A version is in force from the moment it is taken, long before its record is committed: the supervisor has it stored
 * and asks by its quorums in elections, so must we (Raft dissertation, 4.1). The supervisor goes on to the next one when
 * our answers say that the log has this one committed. A pure core: no I/O, no lock; master/master.c calls it under a
 * mutex of its own, the simulator from its one thread.
 *
 * Invariants: (1) the version in force never goes back, and is not older than what the log knew at the beginning.
 * (2) At most one write is under way. (3) What is called committed was: the write was answered so, or a record of our
 * own term stands behind it.
 */
#ifndef GRIZZLY_MASTER_MEMBER_VERSIONS_H
#define GRIZZLY_MASTER_MEMBER_VERSIONS_H

#include <stdbool.h>

#include "common/base/err.h"
#include "common/base/members.h"

struct member_versions {
	struct members force;     /* counts now */
	struct members in_log;    /* when the term began; committed with the term's first record. Version 0: none */
	struct members committed; /* in the log. Version 0: none */
	struct members written;   /* by the write under way, or the last one */
	bool writing;
};

/* A term begins with members, as the supervisor told. */
void member_versions_init(struct member_versions *v, const struct members *members);

/* What the whole log, committed or not, says about the members; version 0: nothing. DB_INVALID: the supervisor told an
 * older version, by which too few would be counted, and the term must not begin. */
enum db_err member_versions_found(struct member_versions *v, const struct members *in_log, struct errmsg *em);

/* The first record of our term is committed. */
void member_versions_on_ready(struct member_versions *v);

/* The supervisor tells members. *newer: they are, and come into force with member_versions_set() once the caller can
 * count by them. DB_STALE_TERM: they are older than those in force. */
enum db_err member_versions_told(const struct member_versions *v, const struct members *members, bool *newer,
				 struct errmsg *em);
void member_versions_set(struct member_versions *v, const struct members *members);

/* True: the caller has to write v->written into the log now, and to say member_versions_end_write() when it knows what
 * came of it. */
bool member_versions_begin_write(struct member_versions *v);
void member_versions_end_write(struct member_versions *v, bool committed);

#endif

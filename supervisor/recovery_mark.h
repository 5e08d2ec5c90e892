/*
 * recovery_mark.h - an operator's order to start a node as the master without an election.
 *
 * D/supervisor.recover, JSON {"node": "node<i>"}: written by the recover command when the quorum is gone for good, obeyed
 * by the next start of a supervisor that finds no node running. Ignoring everybody else's log is only right before
 * anybody else can have been a master since: so it is removed, durably, before any node is promoted, and when the
 * recovered master serves.
 */
#ifndef GRIZZLY_SUPERVISOR_RECOVERY_MARK_H
#define GRIZZLY_SUPERVISOR_RECOVERY_MARK_H

#include <stdbool.h>

#include "common/base/err.h"

#define RECOVERY_MARK_PATH "supervisor.recover"

/* Durable when DB_OK. node: from 0. */
enum db_err recovery_mark_write(unsigned node, struct errmsg *em);
/* DB_NOTFOUND: there is no such order. DB_CORRUPT: one that is not understood. DB_IO. */
enum db_err recovery_mark_read(unsigned *node, unsigned node_count, struct errmsg *em);
/* DB_OK also when there is none. */
enum db_err recovery_mark_remove(struct errmsg *em);

/* The supervisor's side of it. */
struct recovery_mark {
	bool stands; /* it was found, and is not removed yet */
};

/* At a start: *obey says whether *heir is to begin as the master. An order given before nodes were started that run now
 * (adopted) has been carried out, and is removed. Errors as above. */
enum db_err recovery_mark_begin(struct recovery_mark *m, unsigned node_count, bool adopted, bool *obey, unsigned *heir,
				struct errmsg *em);
/* The order has been carried out, or is about to be overtaken by a promotion. False, and logged: it still stands. */
bool recovery_mark_end(struct recovery_mark *m);

#endif

/*
 * remote_study.h - which scans the statements of a query make, and which of them stand in loops.
 *
 * SQLite tells by EXPLAIN: the program of a statement has a VFilter for each scan, and jumps back where there is a loop. What
 * is found here decides what is kept and what is collected, never what the answer is: in doubt a scan is in a loop.
 */
#ifndef GRIZZLY_COMMON_REMOTE_REMOTE_STUDY_H
#define GRIZZLY_COMMON_REMOTE_REMOTE_STUDY_H

#include "common/query/run.h"
#include "common/remote/remote_query.h"

/* Prepares the statements of request on c and sets plan->chosen, in_loop and q->has_keyed. What cannot be prepared is left
 * for the run to complain of. SQL_ERROR: a statement writes. */
enum query_code remote_study(struct remote_query *q, struct query_conn *c, const struct query_request *request,
			     struct query_error *error);

/* Forgets what the statements were, for they are to be prepared anew. */
void remote_study_forget(struct remote_query *q);

/* Whether q->prefer_keys is worth a try: a scan would bring a whole table over, though a table of this node that it is joined
 * with is a small part of it. SQLite takes tables without statistics for large ones. */
bool remote_study_small_tables(struct remote_query *q, struct query_conn *c);

#endif

/*
 * remote_rewrite.h - the SQL that runs here in place of the client's, and the units it names.
 *
 * Each reference becomes the virtual table of its unit. A subquery that concerns one other node alone, and is more than a
 * plain selection, becomes a unit as a whole, so that joins and aggregates are done there; when that node does not
 * understand it (it refers to an outer query's columns), its references are units each.
 */
#ifndef GRIZZLY_COMMON_REMOTE_REMOTE_REWRITE_H
#define GRIZZLY_COMMON_REMOTE_REMOTE_REWRITE_H

#include "common/query/federated_request.h"
#include "common/remote/remote_query.h"

/* Adds the units of fr to q, with their schemas, and fills *out with statements that name them: their SQL is the caller's,
 * for remote_rewrite_fini(); all else is fr's. skip: bytes to leave out at the start of each text (EXPLAIN FEDERATED), or 0. */
enum query_code remote_rewrite(struct remote_query *q, const struct federated_request *fr, struct query_request *out,
			       struct query_error *error);
void remote_rewrite_fini(struct query_request *out);

#endif

/*
 * remote_explain.h - the answer to EXPLAIN FEDERATED: each scan of another node's table, what is sent for it, and how often.
 */
#ifndef GRIZZLY_COMMON_REMOTE_REMOTE_EXPLAIN_H
#define GRIZZLY_COMMON_REMOTE_REMOTE_EXPLAIN_H

#include "common/query/run.h"
#include "common/remote/remote_query.h"

/* Writes the result of q's statement, which remote_study() has seen: a row for each chosen scan, then SQLite's own plan. */
enum query_outcome remote_explain(struct remote_query *q, struct run *r);

#endif

/*
 * explain.h - a request for people who look for what makes it slow: its SQL without values, and SQLite's plan.
 */
#ifndef GRIZZLY_COMMON_QUERY_EXPLAIN_H
#define GRIZZLY_COMMON_QUERY_EXPLAIN_H

#include "common/base/buf.h"
#include "common/query/exec.h"
#include "common/query/request.h"

/* Puts the SQL of the request, statements separated by "; ": every literal as "?", comments and needless space left out, so
 * that no value is shown and equal queries look alike. At most bytes_max, then "…". Pure. */
void query_put_shape(struct buf *out, const struct query_request *request, size_t bytes_max);

/* Puts what EXPLAIN QUERY PLAN says of each statement that has a plan, steps separated by "; ", or why it cannot be said.
 * Nothing is executed. c's thread, between requests; a connection that only reads will do for statements that write. */
void query_put_plan(struct buf *out, struct query_conn *c, const struct query_request *request);

#endif

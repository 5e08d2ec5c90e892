/*
 * ship_request.h - the body of the POST /query that sends a federated request whole to the node that has its tables.
 *
 * The references in the SQL become plain tables; parameters, format, consistency, min_lsn, max_lag_ms and request_id go
 * along as they are, for the request is that node's now. No token: it belongs in a header. Pure.
 */
#ifndef GRIZZLY_COMMON_QUERY_SHIP_REQUEST_H
#define GRIZZLY_COMMON_QUERY_SHIP_REQUEST_H

#include "common/query/federated_request.h"

/* timeout_ms: what is left of the request's time. out->failed: out of memory. */
void ship_request_put(struct buf *out, const struct federated_request *fr, uint64_t timeout_ms);

/* Appends a parameter's value as the JSON of a request. */
void ship_request_put_value(struct buf *out, const struct query_value *value);

#endif

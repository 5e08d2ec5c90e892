/*
 * federated_request.h - a client's request and the references to other nodes' tables found in it.
 *
 * Made by node/federate.c; run by it (shipped whole) or by common/remote/remote_tables.c on a slow-query thread.
 */
#ifndef GRIZZLY_COMMON_QUERY_FEDERATED_REQUEST_H
#define GRIZZLY_COMMON_QUERY_FEDERATED_REQUEST_H

#include "common/query/federation.h"
#include "common/query/request.h"

struct federated_request {
	struct query_request *request; /* as the client wrote it; borrowed or owned as the holder says */
	struct federation **scans;     /* of each of request->statements; an entry is NULL when it has no reference */
	unsigned hops;                 /* nodes that have passed the request on before this one */
};

/* Looks through all texts of request. QUERY_OK with *out NULL: no reference anywhere. *out borrows request. */
enum query_code federated_request_scan(struct federated_request **out, struct query_request *request,
				       struct query_error *error);
/* Frees what the scan made, not the request. NULL is fine. */
void federated_request_free(struct federated_request *fr);

#endif

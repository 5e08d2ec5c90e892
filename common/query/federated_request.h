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

/* What becomes of a request with references. */
enum federated_plan {
	FEDERATED_SHIP_READ,  /* all its tables are one node's: sent there whole */
	FEDERATED_SHIP_WRITE, /* the same, and it changes them */
	FEDERATED_RUN_HERE,   /* reads tables of several nodes, or of this one too; EXPLAIN FEDERATED */
	FEDERATED_FILL_HERE,  /* changes tables of this node by what it reads of others */
};

/* Looks through all texts of request. QUERY_OK with *out NULL: no reference anywhere. *out borrows request. */
enum query_code federated_request_scan(struct federated_request **out, struct query_request *request,
				       struct query_error *error);
/* QUERY_OK, or SQL_ERROR: it is something that no plan is for. */
enum query_code federated_request_plan(const struct federated_request *fr, enum federated_plan *plan,
				       struct query_error *error);
/* The role that a plan needs here. The other node asks for it as well, of the token it gets. */
enum auth_role federated_plan_needs(enum federated_plan plan);
/* The first reference: there is one. */
const struct federated_ref *federated_request_first_ref(const struct federated_request *fr);
/* Whether any text is worth a scan. */
bool federated_request_possible(const struct query_request *request);
/* Frees what the scan made, not the request. NULL is fine. */
void federated_request_free(struct federated_request *fr);

#endif

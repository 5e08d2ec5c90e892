/* federated_request.c - see federated_request.h. */
#include "common/query/federated_request.h"

#include <stdlib.h>
#include <string.h>

static enum query_code scan_each(struct federated_request *fr, bool *found, struct query_error *error)
{
	const struct query_request *request = fr->request;
	enum query_code code = QUERY_OK;
	size_t i;

	for (i = 0; i < request->statement_count && code == QUERY_OK; i++) {
		const struct query_statement *s = &request->statements[i];

		if (!federation_possible(s->sql, s->sql_len))
			continue;
		code = federation_scan(&fr->scans[i], s->sql, s->sql_len, error);
		if (code != QUERY_OK && request->statement_count > 1)
			error->statement = (int)i;
		*found = *found || fr->scans[i] != NULL;
	}
	return code;
}

enum query_code federated_request_scan(struct federated_request **out, struct query_request *request,
				       struct query_error *error)
{
	struct federated_request *fr = calloc(1, sizeof(*fr));
	enum query_code code = QUERY_OK;
	bool found = false;

	*out = NULL;
	if (fr != NULL) {
		fr->request = request;
		fr->scans = calloc(request->statement_count, sizeof(struct federation *));
	}
	if (fr == NULL || fr->scans == NULL)
		code = query_error_set(error, QUERY_INTERNAL, "out of memory");
	if (code == QUERY_OK)
		code = scan_each(fr, &found, error);
	if (code == QUERY_OK && found)
		*out = fr;
	else
		federated_request_free(fr);
	return code;
}

bool federated_request_possible(const struct query_request *request)
{
	size_t i;

	for (i = 0; i < request->statement_count; i++)
		if (federation_possible(request->statements[i].sql, request->statements[i].sql_len))
			return true;
	return false;
}

enum auth_role federated_plan_needs(enum federated_plan plan)
{
	return plan == FEDERATED_SHIP_WRITE || plan == FEDERATED_FILL_HERE ? AUTH_WRITE : AUTH_READ;
}

const struct federated_ref *federated_request_first_ref(const struct federated_request *fr)
{
	size_t i = 0;

	while (fr->scans[i] == NULL)
		i++;
	return &fr->scans[i]->refs[0];
}

/* What all statements of a request have in common, or one of them has. */
struct traits {
	const struct federated_ref *written; /* a reference that is changed; NULL: none */
	bool fills;                          /* a table of this node is changed */
	bool local;                          /* a table of this node is named, or may be */
	bool several;                        /* tables of several nodes are named */
	bool plan;                           /* EXPLAIN FEDERATED */
	const struct federated_ref *explain; /* is named in another EXPLAIN */
	size_t statements;
};

static void note_statement(struct traits *t, const struct federated_request *fr, const struct federation *scan,
			   const struct federated_statement *s)
{
	const struct federated_ref *first = federated_request_first_ref(fr);
	size_t i;

	t->statements++;
	t->local = t->local || s->names_local || s->verb == FEDERATED_OTHER;
	t->fills = t->fills || (s->verb == FEDERATED_WRITE && s->writes_local);
	t->plan = t->plan || s->verb == FEDERATED_PLAN;
	for (i = s->first_ref; i < s->first_ref + s->ref_count; i++) {
		const struct federated_ref *ref = &scan->refs[i];

		t->several = t->several || strcmp(ref->address, first->address) != 0;
		if (s->verb == FEDERATED_EXPLAIN)
			t->explain = ref;
		if (s->verb == FEDERATED_WRITE && ref->written && t->written == NULL)
			t->written = ref;
	}
}

static enum query_code refuse(struct query_error *error, const struct federated_ref *ref, const char *why)
{
	char name[FEDERATION_NAME_MAX];

	federation_name(name, sizeof(name), ref);
	return query_error_set(error, QUERY_SQL_ERROR, "%s: %s", name, why);
}

enum query_code federated_request_plan(const struct federated_request *fr, enum federated_plan *plan,
				       struct query_error *error)
{
	struct traits t = {0};
	bool whole;
	size_t i, j;

	for (i = 0; i < fr->request->statement_count; i++) {
		t.local = t.local || fr->scans[i] == NULL;
		t.statements += fr->scans[i] == NULL;
		for (j = 0; fr->scans[i] != NULL && j < fr->scans[i]->statement_count; j++)
			note_statement(&t, fr, fr->scans[i], &fr->scans[i]->statements[j]);
	}
	whole = !t.local && !t.several && !t.plan;
	if (t.written != NULL && !whole)
		return refuse(error, t.written,
			      "a request that changes a table of another node may name tables of that node only: "
			      "there are no transactions over several nodes");
	if (t.explain != NULL && !whole)
		return refuse(error, t.explain,
			      "EXPLAIN tells of statements that run on one node as a whole; ask EXPLAIN FEDERATED");
	if (t.plan && t.statements > 1)
		return refuse(error, federated_request_first_ref(fr),
			      "EXPLAIN FEDERATED must be the only statement of its request");
	if (whole)
		*plan = t.written != NULL ? FEDERATED_SHIP_WRITE : FEDERATED_SHIP_READ;
	else
		*plan = t.fills ? FEDERATED_FILL_HERE : FEDERATED_RUN_HERE;
	return QUERY_OK;
}

void federated_request_free(struct federated_request *fr)
{
	size_t i;

	if (fr == NULL)
		return;
	for (i = 0; fr->scans != NULL && i < fr->request->statement_count; i++)
		federation_free(fr->scans[i]);
	free(fr->scans);
	free(fr);
}

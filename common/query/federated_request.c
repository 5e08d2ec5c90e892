/* federated_request.c - see federated_request.h. */
#include "common/query/federated_request.h"

#include <stdlib.h>

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

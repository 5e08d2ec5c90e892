/* classify.c - query_classify() of exec.h: what a request does, without running it. On a reader connection's thread. */
#include "common/query/run.h"

/* One pass over a request's statements. */
struct classifier {
	struct query_conn *c;
	const struct query_request *request;
	struct query_error *error;
	enum query_kind kind;
	size_t index;
	bool several;
};

static enum query_code blame(struct classifier *k, enum query_code code)
{
	if (k->several)
		k->error->statement = (int)k->index;
	return code;
}

static enum query_code prepare_failed(struct classifier *k, int rc)
{
	if (k->index == 0)
		k->several = run_holds_several(k->request, NULL);
	return blame(k, conn_error(k->c, rc, k->error));
}

static enum query_code judge(struct classifier *k, const struct statement *s)
{
	if (k->index == 0) {
		k->several = run_holds_several(k->request, s);
		if (run_check_format(k->request, s, k->error) != QUERY_OK)
			return k->error->code;
	}
	if (k->request->from_statements && !s->last)
		return blame(k, query_error_set(k->error, QUERY_BAD_REQUEST,
						"each of \"statements\" holds one SQL statement, this one holds "
						"several"));
	if (s->alone && k->several)
		return blame(k, query_error_set(k->error, QUERY_BAD_REQUEST,
						"VACUUM must be the only statement of its request"));
	if (s->alone && k->request->request_id != NULL)
		return query_error_set(k->error, QUERY_BAD_REQUEST, "%s", CONN_ALONE_WITH_ID);
	if (s->writes)
		k->kind = s->alone ? QUERY_KIND_WRITE_ALONE : QUERY_KIND_WRITE;
	return QUERY_OK;
}

static enum query_code classify_script(struct classifier *k, const struct query_statement *script)
{
	enum query_code code = QUERY_OK;
	struct script_walk walk;
	struct statement *s;
	int rc;

	authorizer_enter(&k->c->authorizer, AUTHORIZER_STEP);
	rc = script_walk_begin(&walk, k->c->cache, script->sql, script->sql_len);
	if (rc != SQLITE_OK)
		return prepare_failed(k, rc);
	while (code == QUERY_OK && k->kind == QUERY_KIND_READ) {
		rc = script_walk_next(&walk, &s);
		if (rc != SQLITE_OK)
			code = prepare_failed(k, rc);
		else if (s == NULL)
			break;
		else
			code = judge(k, s);
		k->index++;
	}
	script_walk_end(&walk);
	return code;
}

enum query_code query_classify(struct query_conn *c, const struct query_request *request, enum query_kind *kind,
			       struct query_error *error)
{
	struct classifier k = {.c = c, .request = request, .error = error, .kind = QUERY_KIND_READ};
	enum query_code code = QUERY_OK;
	size_t i;

	for (i = 0; i < request->statement_count && code == QUERY_OK && k.kind == QUERY_KIND_READ; i++)
		code = classify_script(&k, &request->statements[i]);
	*kind = k.kind;
	return code;
}

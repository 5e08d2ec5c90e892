/* classify.c - query_classify() of exec.h: what a request does, without running it. On a reader connection's thread. */
#include "common/query/run.h"
#include "common/query/sql_text.h"

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
	if (run_check_role(k->request, s, k->error) != QUERY_OK)
		return blame(k, QUERY_FORBIDDEN);
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

enum auth_role query_text_role(const struct query_request *request)
{
	const struct query_statement *s;

	for (s = request->statements; s < request->statements + request->statement_count; s++)
		if (sql_has_schema_verb(s->sql, s->sql + s->sql_len))
			return AUTH_ADMIN;
	return AUTH_WRITE;
}

/* The writer answers with what is recorded under a request_id before it looks at any statement. What comes behind the
 * first one that writes was not looked at here, so the text must do. */
static enum query_code check_repeat(const struct query_request *request, enum query_kind kind,
				    struct query_error *error)
{
	if (request->role >= AUTH_ADMIN || request->request_id == NULL || kind == QUERY_KIND_READ ||
	    query_text_role(request) <= request->role)
		return QUERY_OK;
	return query_error_set(error, QUERY_FORBIDDEN,
			       "this request needs a token with the role admin; this one's is %s",
			       auth_role_name(request->role));
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
	return code == QUERY_OK ? check_repeat(request, k.kind, error) : code;
}

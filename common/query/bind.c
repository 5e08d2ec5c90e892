/* bind.c - see bind.h. Values are bound in place (SQLITE_STATIC): the request outlives the statement's run. */
#include "common/query/bind.h"

#include <assert.h>
#include <string.h>

void binder_init(struct binder *b, const struct query_statement *from)
{
	b->params = from->params;
	b->count = from->param_count;
	b->taken = 0;
	if (b->count > 0)
		memset(b->used, 0, sizeof(b->used));
}

static int bind_value(sqlite3_stmt *stmt, int index, const struct query_value *v)
{
	switch (v->type) {
	case QUERY_INTEGER:
		return sqlite3_bind_int64(stmt, index, v->integer);
	case QUERY_REAL:
		return sqlite3_bind_double(stmt, index, v->real);
	case QUERY_TEXT:
		return sqlite3_bind_text64(stmt, index, v->data.bytes, v->data.len, SQLITE_STATIC, SQLITE_UTF8);
	case QUERY_BLOB:
		return sqlite3_bind_blob64(stmt, index, v->data.bytes, v->data.len, SQLITE_STATIC);
	case QUERY_NULL:
		break;
	}
	return sqlite3_bind_null(stmt, index);
}

static enum query_code bind_at(struct query_conn *c, sqlite3_stmt *stmt, int index, const struct query_value *v,
			       struct query_error *error)
{
	int rc = bind_value(stmt, index, v);

	return rc == SQLITE_OK ? QUERY_OK : conn_error(c, rc, error);
}

static enum query_code bind_positional(struct binder *b, struct query_conn *c, const struct statement *to,
				       size_t variables, struct query_error *error)
{
	size_t left = b->count - b->taken;
	enum query_code code = QUERY_OK;
	size_t i;

	if (left < variables || (to->last && left > variables)) {
		size_t expected = b->taken + variables;

		return query_error_set(error, QUERY_BAD_REQUEST, "%s%zu parameter%s expected, %zu given",
				       to->last ? "" : "at least ", expected, expected == 1 ? "" : "s", b->count);
	}
	for (i = 0; i < variables && code == QUERY_OK; i++)
		code = bind_at(c, to->stmt, (int)i + 1, &b->params[b->taken++].value, error);
	return code;
}

static bool name_matches(const char *variable, const char *name)
{
	return strcmp(variable, name) == 0 || strcmp(variable + 1, name) == 0;
}

static enum query_code bind_variable(struct binder *b, struct query_conn *c, sqlite3_stmt *stmt, int index,
				     struct query_error *error)
{
	const char *variable = sqlite3_bind_parameter_name(stmt, index);
	size_t i;

	if (variable == NULL || variable[0] == '?')
		return query_error_set(error, QUERY_BAD_REQUEST,
				       "the statement has a parameter without a name (?): give \"params\" as an array");
	for (i = 0; i < b->count; i++) {
		if (name_matches(variable, b->params[i].name)) {
			b->used[i / 64] |= (uint64_t)1 << i % 64;
			return bind_at(c, stmt, index, &b->params[i].value, error);
		}
	}
	return query_error_set(error, QUERY_BAD_REQUEST, "no value given for parameter %.100s", variable);
}

static enum query_code check_all_used(const struct binder *b, struct query_error *error)
{
	size_t i;

	for (i = 0; i < b->count; i++)
		if ((b->used[i / 64] >> i % 64 & 1) == 0)
			return query_error_set(error, QUERY_BAD_REQUEST,
					       "parameter \"%.100s\" is given but not used by the statement",
					       b->params[i].name);
	return QUERY_OK;
}

static enum query_code bind_named(struct binder *b, struct query_conn *c, const struct statement *to, size_t variables,
				  struct query_error *error)
{
	enum query_code code = QUERY_OK;
	size_t i;

	assert(b->count <= QUERY_NAMED_PARAMS_MAX); /* request.c sees to it */
	/* Three prefixes for each name at most; more variables cannot all have a value. */
	if (variables > 3 * b->count)
		return query_error_set(error, QUERY_BAD_REQUEST, "%zu parameters expected, %zu named ones given",
				       variables, b->count);
	for (i = 1; i <= variables && code == QUERY_OK; i++)
		code = bind_variable(b, c, to->stmt, (int)i, error);
	if (code == QUERY_OK && to->last)
		code = check_all_used(b, error);
	return code;
}

enum query_code binder_bind(struct binder *b, struct query_conn *c, const struct statement *to,
			    struct query_error *error)
{
	size_t variables = (size_t)sqlite3_bind_parameter_count(to->stmt);

	if (b->count > 0 && b->params[0].name != NULL)
		return bind_named(b, c, to, variables, error);
	return bind_positional(b, c, to, variables, error);
}

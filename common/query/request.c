/*
 * request.c - see request.h. Called on HTTP workers for every query; a request belongs to one thread at a time.
 *
 * The JSON document is kept, and texts point into it. Everything else (statements, parameters, decoded blobs) is one block
 * behind the query_request, measured in a first walk over the document and filled in a second.
 * (1) measure() and fill() see the same document, so what was measured is never exceeded.
 */
#include "common/query/request.h"

#include <assert.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "common/query/base64.h"
#include "common/query/sql_text.h"

/* The top-level values by key; NULL: not given. Borrowed from the document. */
struct body {
	const json_t *sql, *token, *params, *statements, *consistency, *min_lsn, *max_lag_ms, *timeout_ms, *format;
	const json_t *request_id;
};

/* Parsing state: where the next parameter and the next decoded byte go. */
struct parser {
	const struct query_request_limits *limits;
	struct query_error *error;
	struct query_request *request;
	struct query_param *next_param;
	uint8_t *next_byte;
	size_t param_total;
	size_t blob_bytes_total;
};

static const char *type_name(const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
		return "an integer";
	case JSON_REAL:
		return "a real number";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	case JSON_NULL:
		break;
	}
	return "null";
}

static enum query_code bad_type(struct query_error *error, const char *key, const char *expected, const json_t *got)
{
	return query_error_set(error, QUERY_BAD_REQUEST, "\"%s\" must be %s, not %s", key, expected, type_name(got));
}

static enum query_code collect_body(struct body *body, json_t *root, struct query_error *error)
{
	const struct {
		const char *key;
		const json_t **value;
	} known[] = {
	    {"sql", &body->sql},
	    {"params", &body->params},
	    {"token", &body->token},
	    {"statements", &body->statements},
	    {"consistency", &body->consistency},
	    {"min_lsn", &body->min_lsn},
	    {"max_lag_ms", &body->max_lag_ms},
	    {"timeout_ms", &body->timeout_ms},
	    {"format", &body->format},
	    {"request_id", &body->request_id},
	};
	const size_t known_count = sizeof(known) / sizeof(known[0]);
	const char *key;
	json_t *value;
	size_t i;

	json_object_foreach(root, key, value)
	{
		for (i = 0; i < known_count && strcmp(key, known[i].key) != 0; i++)
			;
		if (i == known_count)
			return query_error_set(error, QUERY_BAD_REQUEST, "unknown key \"%.100s\"", key);
		*known[i].value = value;
	}
	return QUERY_OK;
}

/* The only key of {"$blob": "…"} or {"$real": "…"}, and its text; NULL when v is something else. */
static const char *wrapped_value(const json_t *v, const json_t **text)
{
	void *iter = json_object_iter((json_t *)v); /* jansson's iterators take no const, and change nothing */

	if (json_object_size(v) != 1 || iter == NULL)
		return NULL;
	*text = json_object_iter_value(iter);
	return json_is_string(*text) ? json_object_iter_key(iter) : NULL;
}

static void measure_value(struct parser *p, const json_t *v)
{
	const json_t *text;
	const char *key = json_is_object(v) ? wrapped_value(v, &text) : NULL;

	p->param_total++;
	if (key != NULL)
		p->blob_bytes_total += BASE64_DECODED_MAX(json_string_length(text));
}

static enum query_code measure_params(struct parser *p, const json_t *params)
{
	const char *name;
	json_t *value;
	size_t i;

	if (params == NULL)
		return QUERY_OK;
	if (!json_is_array(params) && !json_is_object(params))
		return bad_type(p->error, "params", "an array or an object", params);
	if (json_is_object(params) && json_object_size(params) > QUERY_NAMED_PARAMS_MAX)
		return query_error_set(p->error, QUERY_BAD_REQUEST,
				       "\"params\" names %zu values, at most %d are allowed; use an array",
				       json_object_size(params), QUERY_NAMED_PARAMS_MAX);
	json_array_foreach(params, i, value) measure_value(p, value);
	json_object_foreach((json_t *)params, name, value) measure_value(p, value);
	return QUERY_OK;
}

static enum query_code measure_statement(struct parser *p, const json_t *statement)
{
	const char *key;
	json_t *value;

	if (!json_is_object(statement))
		return bad_type(p->error, "statements", "an array of objects like {\"sql\": \"...\"}", statement);
	json_object_foreach((json_t *)statement, key, value)
	{
		if (strcmp(key, "sql") != 0 && strcmp(key, "params") != 0)
			return query_error_set(p->error, QUERY_BAD_REQUEST, "unknown key \"%.100s\" in \"statements\"",
					       key);
	}
	return measure_params(p, json_object_get(statement, "params"));
}

static enum query_code measure_statements(struct parser *p, const json_t *statements)
{
	size_t count, i;
	json_t *statement;
	enum query_code code;

	if (!json_is_array(statements))
		return bad_type(p->error, "statements", "an array", statements);
	count = json_array_size(statements);
	if (count == 0)
		return query_error_set(p->error, QUERY_BAD_REQUEST, "\"statements\" is empty");
	if (p->limits->statements_max != 0 && count > p->limits->statements_max)
		return query_error_set(p->error, QUERY_TOO_LARGE,
				       "\"statements\" has %zu entries, at most %zu are allowed", count,
				       p->limits->statements_max);
	json_array_foreach(statements, i, statement)
	{
		code = measure_statement(p, statement);
		if (code != QUERY_OK) {
			p->error->statement = count > 1 ? (int)i : -1;
			return code;
		}
	}
	return QUERY_OK;
}

/* Checks what holds between keys and counts what fill() will need. */
static enum query_code measure(struct parser *p, const struct body *body)
{
	if (body->sql == NULL && body->statements == NULL)
		return query_error_set(p->error, QUERY_BAD_REQUEST, "\"sql\" or \"statements\" is required");
	if (body->sql != NULL && body->statements != NULL)
		return query_error_set(
		    p->error, QUERY_BAD_REQUEST,
		    "\"sql\" and \"statements\" exclude each other; put every statement in \"statements\"");
	if (body->statements == NULL)
		return measure_params(p, body->params);
	if (body->params != NULL)
		return query_error_set(p->error, QUERY_BAD_REQUEST,
				       "\"params\" goes with \"sql\"; give each of \"statements\" its own");
	return measure_statements(p, body->statements);
}

static enum query_code fill_blob(struct parser *p, struct query_value *out, const json_t *text)
{
	size_t len;

	if (!base64_decode(p->next_byte, &len, json_string_value(text), json_string_length(text)))
		return query_error_set(p->error, QUERY_BAD_REQUEST, "\"$blob\" is not valid base64");
	out->type = QUERY_BLOB;
	out->data.bytes = (const char *)p->next_byte;
	out->data.len = len;
	p->next_byte += len;
	return QUERY_OK;
}

static enum query_code fill_wrapped(struct parser *p, struct query_value *out, const json_t *v)
{
	const json_t *text;
	const char *key = wrapped_value(v, &text);
	bool minus;

	if (key != NULL && strcmp(key, "$blob") == 0)
		return fill_blob(p, out, text);
	if (key == NULL || strcmp(key, "$real") != 0)
		return query_error_set(
		    p->error, QUERY_BAD_REQUEST,
		    "a parameter that is an object must be {\"$blob\": \"base64\"} or {\"$real\": \"inf\"}");
	minus = strcmp(json_string_value(text), "-inf") == 0;
	if (!minus && strcmp(json_string_value(text), "inf") != 0)
		return query_error_set(p->error, QUERY_BAD_REQUEST, "\"$real\" must be \"inf\" or \"-inf\"");
	out->type = QUERY_REAL;
	out->real = minus ? -INFINITY : INFINITY;
	return QUERY_OK;
}

static enum query_code fill_value(struct parser *p, struct query_value *out, const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_NULL:
		out->type = QUERY_NULL;
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		out->type = QUERY_INTEGER;
		out->integer = json_is_true(v);
		break;
	case JSON_INTEGER:
		out->type = QUERY_INTEGER;
		out->integer = json_integer_value(v);
		break;
	case JSON_REAL:
		out->type = QUERY_REAL;
		out->real = json_real_value(v);
		break;
	case JSON_STRING:
		out->type = QUERY_TEXT;
		out->data.bytes = json_string_value(v);
		out->data.len = json_string_length(v);
		break;
	case JSON_OBJECT:
		return fill_wrapped(p, out, v);
	case JSON_ARRAY:
		return query_error_set(p->error, QUERY_BAD_REQUEST, "a parameter must be one value, not an array");
	}
	return QUERY_OK;
}

static enum query_code fill_params(struct parser *p, struct query_statement *out, const json_t *params)
{
	struct query_param *first = p->next_param;
	enum query_code code;
	const char *name;
	json_t *value;
	size_t i;

	out->params = first;
	json_array_foreach(params, i, value)
	{
		code = fill_value(p, &(p->next_param++)->value, value);
		if (code != QUERY_OK)
			return code;
	}
	json_object_foreach((json_t *)params, name, value)
	{
		if (name[0] == '\0')
			return query_error_set(p->error, QUERY_BAD_REQUEST, "\"params\" has an empty name");
		p->next_param->name = name;
		code = fill_value(p, &(p->next_param++)->value, value);
		if (code != QUERY_OK)
			return code;
	}
	out->param_count = (size_t)(p->next_param - first);
	return QUERY_OK;
}

static enum query_code fill_sql(struct parser *p, struct query_statement *out, const json_t *sql)
{
	if (sql == NULL)
		return query_error_set(p->error, QUERY_BAD_REQUEST, "\"sql\" is missing");
	if (!json_is_string(sql))
		return bad_type(p->error, "sql", "a string", sql);
	out->sql = json_string_value(sql);
	out->sql_len = json_string_length(sql);
	if (p->limits->sql_length_max != 0 && out->sql_len > p->limits->sql_length_max)
		return query_error_set(p->error, QUERY_TOO_LARGE, "\"sql\" has %zu bytes, at most %zu are allowed",
				       out->sql_len, p->limits->sql_length_max);
	if (memchr(out->sql, '\0', out->sql_len) != NULL)
		return query_error_set(p->error, QUERY_BAD_REQUEST, "\"sql\" contains a NUL character");
	if (sql_skip_blank(out->sql, out->sql + out->sql_len) == out->sql + out->sql_len)
		return query_error_set(p->error, QUERY_BAD_REQUEST, "\"sql\" holds no statement");
	return QUERY_OK;
}

static enum query_code fill_statement(struct parser *p, size_t index, const json_t *sql, const json_t *params)
{
	struct query_statement *out = &p->request->statements[index];
	enum query_code code = fill_sql(p, out, sql);

	if (code == QUERY_OK)
		code = fill_params(p, out, params);
	if (code != QUERY_OK && p->request->statement_count > 1)
		p->error->statement = (int)index;
	return code;
}

static enum query_code fill_statements(struct parser *p, const struct body *body)
{
	enum query_code code;
	json_t *statement;
	size_t i;

	if (body->statements == NULL)
		return fill_statement(p, 0, body->sql, body->params);
	json_array_foreach(body->statements, i, statement)
	{
		code = fill_statement(p, i, json_object_get(statement, "sql"), json_object_get(statement, "params"));
		if (code != QUERY_OK)
			return code;
	}
	return QUERY_OK;
}

/* Leaves *out alone when v is NULL. */
static enum query_code read_uint(struct parser *p, uint64_t *out, const json_t *v, const char *key, json_int_t min)
{
	if (v == NULL)
		return QUERY_OK;
	if (!json_is_integer(v))
		return bad_type(p->error, key, "an integer", v);
	if (json_integer_value(v) < min)
		return query_error_set(p->error, QUERY_BAD_REQUEST, "\"%s\" must be %s", key,
				       min > 0 ? "greater than zero" : "zero or more");
	*out = (uint64_t)json_integer_value(v);
	return QUERY_OK;
}

/* Finds v among names (ending with NULL) and sets *out to its index; leaves *out alone when v is NULL. */
static enum query_code read_word(struct parser *p, unsigned *out, const json_t *v, const char *key,
				 const char *const *names, const char *expected)
{
	unsigned i;

	if (v == NULL)
		return QUERY_OK;
	if (!json_is_string(v))
		return bad_type(p->error, key, expected, v);
	for (i = 0; names[i] != NULL; i++) {
		if (strcmp(names[i], json_string_value(v)) == 0) {
			*out = i;
			return QUERY_OK;
		}
	}
	return query_error_set(p->error, QUERY_BAD_REQUEST, "\"%s\" must be %s, not \"%.40s\"", key, expected,
			       json_string_value(v));
}

/* "linearizable" said aloud or by default keeps either promise; the other two would drop one silently. */
static enum query_code check_contradictions(struct parser *p, const struct body *body)
{
	if (body->min_lsn != NULL && p->request->consistency == QUERY_STALE)
		return query_error_set(p->error, QUERY_BAD_REQUEST,
				       "\"min_lsn\" goes with \"consistency\": \"session\", not \"stale\"");
	if (body->max_lag_ms != NULL && p->request->consistency == QUERY_SESSION)
		return query_error_set(p->error, QUERY_BAD_REQUEST,
				       "\"max_lag_ms\" goes with \"consistency\": \"stale\", not \"session\"");
	return QUERY_OK;
}

static enum query_code fill_options(struct parser *p, const struct body *body)
{
	static const char *const consistencies[] = {"linearizable", "session", "stale", NULL};
	static const char *const formats[] = {"rows", "objects", "ndjson", NULL};
	struct query_request *r = p->request;
	unsigned consistency = QUERY_LINEARIZABLE, format = QUERY_ROWS;
	enum query_code code;

	code = read_word(p, &consistency, body->consistency, "consistency", consistencies,
			 "\"linearizable\", \"session\" or \"stale\"");
	if (code == QUERY_OK)
		code = read_word(p, &format, body->format, "format", formats, "\"rows\", \"objects\" or \"ndjson\"");
	if (code == QUERY_OK)
		code = read_uint(p, &r->min_lsn, body->min_lsn, "min_lsn", 0);
	if (code == QUERY_OK)
		code = read_uint(p, &r->max_lag_ms, body->max_lag_ms, "max_lag_ms", 0);
	if (code == QUERY_OK)
		code = read_uint(p, &r->timeout_ms, body->timeout_ms, "timeout_ms", 1);
	if (code != QUERY_OK)
		return code;
	r->consistency = (enum query_consistency)consistency;
	r->format = (enum query_format)format;
	return check_contradictions(p, body);
}

static enum query_code fill_token(struct parser *p, const json_t *token)
{
	if (token == NULL)
		return QUERY_OK;
	if (!json_is_string(token))
		return bad_type(p->error, "token", "a string", token);
	p->request->token = json_string_value(token);
	if (strlen(p->request->token) != json_string_length(token))
		return query_error_set(p->error, QUERY_BAD_REQUEST, "\"token\" contains a NUL character");
	return QUERY_OK;
}

static enum query_code fill_request_id(struct parser *p, const json_t *id)
{
	if (id == NULL)
		return QUERY_OK;
	if (!json_is_string(id))
		return bad_type(p->error, "request_id", "a string", id);
	if (!query_request_id_ok(json_string_value(id), json_string_length(id)))
		return query_error_set(p->error, QUERY_BAD_REQUEST,
				       "\"request_id\" must have 1 to %d bytes and no control characters",
				       QUERY_REQUEST_ID_MAX);
	p->request->request_id = json_string_value(id);
	return QUERY_OK;
}

/* One block: the request, its statements, its parameters, the bytes of its blobs. */
static enum query_code allocate(struct parser *p, const struct body *body)
{
	size_t count = body->statements != NULL ? json_array_size(body->statements) : 1;
	size_t statements_at = sizeof(struct query_request);
	size_t params_at = statements_at + count * sizeof(struct query_statement);
	size_t bytes_at = params_at + p->param_total * sizeof(struct query_param);
	uint8_t *block = calloc(1, bytes_at + p->blob_bytes_total);

	if (block == NULL)
		return query_error_set(p->error, QUERY_INTERNAL, "out of memory");
	p->request = (struct query_request *)block;
	p->request->statements = (struct query_statement *)(block + statements_at);
	p->request->statement_count = count;
	p->request->from_statements = body->statements != NULL;
	p->request->max_lag_ms = UINT64_MAX;
	p->next_param = (struct query_param *)(block + params_at);
	p->next_byte = block + bytes_at;
	return QUERY_OK;
}

static enum query_code load(json_t **root, const void *bytes, size_t len, struct query_error *error)
{
	json_error_t why;

	if (len == 0)
		return query_error_set(error, QUERY_BAD_REQUEST, "the body is empty; expected a JSON object");
	*root = json_loadb(bytes, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &why);
	if (*root == NULL && json_error_code(&why) == json_error_out_of_memory)
		return query_error_set(error, QUERY_INTERNAL, "out of memory");
	if (*root == NULL && json_error_code(&why) == json_error_invalid_utf8)
		return query_error_set(error, QUERY_BAD_REQUEST, "invalid UTF-8 at line %d, column %d: %s", why.line,
				       why.column, why.text);
	if (*root == NULL)
		return query_error_set(error, QUERY_BAD_REQUEST, "invalid JSON at line %d, column %d: %s", why.line,
				       why.column, why.text);
	if (!json_is_object(*root))
		return query_error_set(error, QUERY_BAD_REQUEST, "the body must be a JSON object, not %s",
				       type_name(*root));
	return QUERY_OK;
}

enum query_code query_request_parse(struct query_request **out, const void *body_bytes, size_t len,
				    const struct query_request_limits *limits, struct query_error *error)
{
	struct parser p = {.limits = limits, .error = error};
	struct body body = {0};
	json_t *root = NULL;
	enum query_code code;

	*out = NULL;
	code = load(&root, body_bytes, len, error);
	if (code == QUERY_OK)
		code = collect_body(&body, root, error);
	if (code == QUERY_OK)
		code = measure(&p, &body);
	if (code == QUERY_OK)
		code = allocate(&p, &body);
	if (code == QUERY_OK)
		code = fill_token(&p, body.token);
	if (code == QUERY_OK)
		code = fill_request_id(&p, body.request_id);
	if (code == QUERY_OK)
		code = fill_options(&p, &body);
	if (code == QUERY_OK)
		code = fill_statements(&p, &body);
	if (code != QUERY_OK) {
		free(p.request);
		json_decref(root);
		return code;
	}
	p.request->document = root;
	*out = p.request;
	return QUERY_OK;
}

void query_request_free(struct query_request *r)
{
	if (r == NULL)
		return;
	json_decref(r->document);
	free(r);
}

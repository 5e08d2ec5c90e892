/* remote_rewrite.c - see remote_rewrite.h. */
#include "common/remote/remote_rewrite.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

/* Rewriting one text. */
struct rewrite {
	struct remote_query *q;
	const struct federation *scan;
	const char *sql;
	struct query_error *error;
	struct buf out;
	enum query_code code;
};

/* ---- units */

static bool has_word(const char *text, size_t len, const char *word)
{
	size_t n = strlen(word), i;

	for (i = 0; i + n <= len; i++)
		if (strncasecmp(text + i, word, n) == 0 && (i == 0 || !isalnum((unsigned char)text[i - 1])) &&
		    (i + n == len || !isalnum((unsigned char)text[i + n])))
			return true;
	return false;
}

static enum query_code find_schema(struct remote_query *q, struct remote_unit *unit, const char *source, bool *refused,
				   struct query_error *error)
{
	const struct remote_name name = {unit->address, unit->name};
	struct query_error theirs = {.statement = -1};
	enum query_code code;

	*refused = false;
	if (unit->schema != NULL)
		return QUERY_OK;
	code = remote_schemas_get(q->schemas, &unit->schema, &q->asker, &name, source, unit->table, &unit->cached,
				  error, &theirs);
	*refused = code != QUERY_OK && theirs.code == QUERY_SQL_ERROR;
	return code;
}

/* RIGHT and FULL JOIN remember by their rowids which rows have found another. */
static void settle_numbered(const struct rewrite *w, struct remote_unit *unit)
{
	unit->numbered = unit->numbered || ((w->q->outer_joins || w->q->number_rows) &&
					    unit->schema->rowid_name == NULL && !unit->schema->without_rowid);
}

static void put_module_name(struct buf *out, const struct federated_ref *ref)
{
	buf_puts(out, ref->address);
	buf_put_u8(out, '@');
	buf_put(out, ref->table, ref->table_len);
	buf_put_u8(out, '\0');
}

static void add_table(struct rewrite *w, const struct federated_ref *ref)
{
	char name[FEDERATION_NAME_MAX];
	struct buf module = {0}, source = {0};
	struct remote_unit *unit = NULL;
	bool refused;

	federation_name(name, sizeof(name), ref);
	put_module_name(&module, ref);
	federation_put_shipped(NULL, &source, ref);
	buf_put_u8(&source, '\0');
	if (!module.failed && !source.failed)
		unit = remote_query_add_unit(w->q, (const char *)module.data, ref->address, name, ref->table);
	if (unit == NULL)
		w->code = query_error_set(w->error, QUERY_INTERNAL, "out of memory");
	else
		w->code = find_schema(w->q, unit, (const char *)source.data, &refused, w->error);
	if (w->code == QUERY_OK)
		settle_numbered(w, unit);
	buf_fini(&module);
	buf_fini(&source);
}

/* Columns that are expressions are so here, too: a plus takes the affinity that a column would have. */
static void put_select(struct buf *out, const struct remote_unit *unit)
{
	size_t i;

	buf_puts(out, "SELECT ");
	for (i = 0; i < unit->schema->column_count; i++) {
		const struct remote_column *c = &unit->schema->columns[i];

		buf_puts(out, i > 0 ? ", " : "");
		if (c->affinity == REMOTE_NONE)
			buf_puts(out, "+");
		federation_put_identifier(out, c->name, strlen(c->name));
		if (c->affinity == REMOTE_NONE) {
			buf_puts(out, " AS ");
			federation_put_identifier(out, c->name, strlen(c->name));
		}
	}
	buf_puts(out, " FROM ");
	federation_put_identifier(out, unit->module, strlen(unit->module));
}

static bool has_expression(const struct remote_unit *unit)
{
	size_t i;

	for (i = 0; i < unit->schema->column_count; i++)
		if (unit->schema->columns[i].affinity == REMOTE_NONE)
			return true;
	return false;
}

/* A reference becomes its unit's table; a view's, some of whose columns are expressions, a subquery that keeps them so. */
static void put_table(void *arg, struct buf *out, const struct federated_ref *ref)
{
	struct remote_query *q = arg;
	struct buf name = {0};
	struct remote_unit *unit;

	put_module_name(&name, ref);
	unit = !name.failed ? remote_query_find_unit(q, (const char *)name.data) : NULL;
	out->failed = out->failed || name.failed;
	buf_fini(&name);
	if (unit == NULL || !has_expression(unit)) {
		federation_put_local(NULL, out, ref);
		return;
	}
	buf_puts(out, "(");
	put_select(out, unit);
	buf_puts(out, ")");
	if (ref->has_alias || ref->is_operand)
		return;
	buf_puts(out, " AS ");
	federation_put_identifier(out, ref->table, ref->table_len);
}

/* ---- subqueries */

/*
 * Whether a subquery had better be sent as a whole. Not with parameters, whose numbers would change here; nor with names in
 * double quotes, which the other node would take for texts when it does not know them. A plain selection is left to SQLite,
 * which pushes the outer query's conditions into it.
 */
static bool is_worth_sending(const struct federation *scan, const struct federated_query *query, const char *sql)
{
	static const char *const words[] = {"GROUP", "DISTINCT", "LIMIT", "UNION", "EXCEPT", "INTERSECT", "HAVING"};
	const char *text = sql + query->start;
	size_t len = query->end - query->start, i, at = query->start;

	if (query->has_params)
		return false;
	for (i = query->first_ref; i < query->first_ref + query->ref_count; i++) {
		if (memchr(sql + at, '"', scan->refs[i].start - at) != NULL)
			return false;
		at = scan->refs[i].end;
	}
	if (memchr(sql + at, '"', query->end - at) != NULL)
		return false;
	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (has_word(text, len, words[i]))
			return true;
	return query->ref_count > 1 || memchr(text, '(', len) != NULL;
}

/* False: it is to be taken apart (or w->code is an error). */
static bool add_query(struct rewrite *w, const struct federated_query *query)
{
	const struct federated_ref *ref = &w->scan->refs[query->first_ref];
	char name[FEDERATION_NAME_MAX], module[FEDERATION_ADDRESS_MAX + 64];
	struct query_error error = {.statement = -1};
	struct remote_unit *unit = NULL;
	struct buf source = {0};
	enum query_code code;
	bool refused = false;

	federation_name(name, sizeof(name), ref);
	snprintf(module, sizeof(module), "%s@(subquery %zu)", ref->address, w->q->unit_count + 1);
	buf_put_u8(&source, '(');
	federation_rewrite(&source, w->scan, w->sql, query->start, query->end, federation_put_shipped, NULL);
	buf_puts(&source, "\n)"); /* it may end in a comment */
	buf_put_u8(&source, '\0');
	if (!source.failed)
		unit = remote_query_add_unit(w->q, module, ref->address, name, NULL);
	if (unit == NULL) {
		buf_fini(&source);
		w->code = query_error_set(w->error, QUERY_INTERNAL, "out of memory");
		return false;
	}
	code = find_schema(w->q, unit, (const char *)source.data, &refused, &error);
	buf_fini(&source);
	if (code == QUERY_OK) {
		settle_numbered(w, unit);
		put_select(&w->out, unit);
		return true;
	}
	remote_query_drop_unit(w->q, unit);
	if (!refused) {
		*w->error = error;
		w->code = code;
	}
	return false;
}

/* ---- the text */

static void put_text(struct rewrite *w, size_t start, size_t end)
{
	size_t i;

	for (i = 0; i < w->scan->ref_count && w->code == QUERY_OK; i++)
		if (w->scan->refs[i].start >= start && w->scan->refs[i].end <= end)
			add_table(w, &w->scan->refs[i]);
	if (w->code == QUERY_OK)
		federation_rewrite(&w->out, w->scan, w->sql, start, end, put_table, w->q);
}

static enum query_code rewrite_text(struct rewrite *w, size_t len)
{
	const struct federation *scan = w->scan;
	size_t i;
	size_t at = scan->statements[0].verb == FEDERATED_PLAN ? scan->statements[0].body : 0;

	w->q->left_joins = w->q->left_joins || has_word(w->sql, len, "LEFT");
	w->q->has_where = w->q->has_where || has_word(w->sql, len, "WHERE");
	w->q->outer_joins = w->q->outer_joins || has_word(w->sql, len, "RIGHT") || has_word(w->sql, len, "FULL");

	for (i = 0; i < scan->query_count && w->code == QUERY_OK; i++) {
		const struct federated_query *query = &scan->queries[i];

		if (!is_worth_sending(scan, query, w->sql))
			continue;
		put_text(w, at, query->start);
		at = query->start;
		if (w->code == QUERY_OK && add_query(w, query))
			at = query->end;
	}
	if (w->code == QUERY_OK)
		put_text(w, at, len);
	buf_put_u8(&w->out, '\0');
	if (w->code == QUERY_OK && w->out.failed)
		w->code = query_error_set(w->error, QUERY_INTERNAL, "out of memory");
	return w->code;
}

enum query_code remote_rewrite(struct remote_query *q, const struct federated_request *fr, struct query_request *out,
			       struct query_error *error)
{
	const struct query_request *from = fr->request;
	enum query_code code = QUERY_OK;
	size_t i;

	*out = *from;
	out->document = NULL;
	out->statements = calloc(from->statement_count, sizeof(*out->statements));
	if (out->statements == NULL)
		return query_error_set(error, QUERY_INTERNAL, "out of memory");
	for (i = 0; i < from->statement_count && code == QUERY_OK; i++) {
		struct rewrite w = {.q = q, .scan = fr->scans[i], .sql = from->statements[i].sql, .error = error};

		out->statements[i] = from->statements[i];
		out->statements[i].sql = NULL;
		if (w.scan != NULL)
			code = rewrite_text(&w, from->statements[i].sql_len);
		else
			buf_put(&w.out, w.sql, from->statements[i].sql_len + 1);
		if (code == QUERY_OK && w.out.failed)
			code = query_error_set(error, QUERY_INTERNAL, "out of memory");
		if (code == QUERY_OK) {
			out->statements[i].sql_len = w.out.len - 1;
			out->statements[i].sql = (const char *)buf_take(&w.out, &(size_t){0});
		}
		buf_fini(&w.out);
		if (code != QUERY_OK && from->statement_count > 1)
			error->statement = (int)i;
	}
	return code;
}

void remote_rewrite_fini(struct query_request *out)
{
	size_t i;

	for (i = 0; out->statements != NULL && i < out->statement_count; i++)
		free((char *)out->statements[i].sql);
	free(out->statements);
	out->statements = NULL;
}

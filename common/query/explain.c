/* explain.c - see explain.h. */
#include "common/query/explain.h"

#include <string.h>

#include "common/query/conn.h"
#include "common/query/federation_lex.h"

#define EXPLAINED_MAX 8 /* statements of one request: enough to see which is the slow one */
#define PREFIX        "EXPLAIN QUERY PLAN "

/* ---- the text */

static bool is_literal(const struct fed_token *t)
{
	return t->kind == FED_NUMBER || (t->kind == FED_QUOTED && *t->start == '\'');
}

/* False: there is no room for more. */
static bool put_script(struct buf *out, const struct query_statement *script, size_t end)
{
	struct fed_lexer l = {script->sql, script->sql + script->sql_len};
	struct query_error error = {.statement = -1};
	const char *behind = NULL; /* of the last token */
	struct fed_token t;

	for (;;) {
		if (fed_lex(&l, &t, &error) != QUERY_OK)
			return true; /* the rest is not SQL that could be shown without its values */
		if (t.kind == FED_END)
			return true;
		if (out->len + (size_t)(t.end - t.start) + 2 > end)
			return false;
		if (behind != NULL && t.start > behind)
			buf_puts(out, " ");
		if (is_literal(&t))
			buf_puts(out, "?");
		else
			buf_put(out, t.start, (size_t)(t.end - t.start));
		behind = t.end;
	}
}

void query_put_shape(struct buf *out, const struct query_request *request, size_t bytes_max)
{
	size_t end = out->len + bytes_max;
	size_t i;

	for (i = 0; i < request->statement_count; i++) {
		if (i > 0)
			buf_puts(out, "; ");
		if (!put_script(out, &request->statements[i], end)) {
			buf_puts(out, "…");
			return;
		}
	}
}

/* ---- the plan */

static void put_step(struct buf *out, sqlite3_stmt *stmt, bool *first)
{
	const unsigned char *detail = sqlite3_column_text(stmt, 3);

	if (detail == NULL)
		return;
	buf_printf(out, "%s%s", *first ? "" : "; ", (const char *)detail);
	*first = false;
}

/* One statement; *tail is set behind it. False: it cannot be explained, which has been put. */
static bool put_plan_of(struct buf *out, struct query_conn *c, const char *sql, const char **tail, bool *first)
{
	struct buf text = {0};
	sqlite3_stmt *stmt = NULL;
	const char *behind = NULL;
	int rc = SQLITE_NOMEM;

	buf_puts(&text, PREFIX);
	buf_put(&text, sql, strlen(sql) + 1);
	authorizer_enter(&c->authorizer, AUTHORIZER_PREPARE);
	if (!text.failed)
		rc = sqlite3_prepare_v2(c->db, (const char *)text.data, -1, &stmt, &behind);
	authorizer_enter(&c->authorizer, AUTHORIZER_STEP);
	while (rc == SQLITE_OK && stmt != NULL && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
		put_step(out, stmt, first);
		rc = SQLITE_OK;
	}
	if (rc != SQLITE_OK && rc != SQLITE_DONE)
		buf_printf(out, "%sno plan: %s", *first ? "" : "; ", sqlite3_errstr(rc));
	*tail = behind == NULL ? "" : sql + (behind - (const char *)text.data) - strlen(PREFIX);
	sqlite3_finalize(stmt);
	buf_fini(&text);
	return rc == SQLITE_OK || rc == SQLITE_DONE;
}

void query_put_plan(struct buf *out, struct query_conn *c, const struct query_request *request)
{
	const char *sql;
	unsigned count = 0;
	bool first = true, good = true;
	size_t i;

	for (i = 0; i < request->statement_count; i++) {
		sql = request->statements[i].sql;
		while (good && sql[strspn(sql, " \t\r\n;")] != '\0' && count++ < EXPLAINED_MAX)
			good = put_plan_of(out, c, sql, &sql, &first);
	}
}

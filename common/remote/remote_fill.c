/* remote_fill.c - see remote_fill.h. */
#include "common/remote/remote_fill.h"

#include <stdlib.h>

#include "common/query/federation_lex.h"
#include "common/query/typed_rows.h"
#include "common/remote/rows_reader.h"

/* ---- the parts of the statement */

static enum query_code refuse(struct query_error *error, const struct federation *scan, const char *why)
{
	char name[FEDERATION_NAME_MAX];

	federation_name(name, sizeof(name), &scan->refs[0]);
	return query_error_set(error, QUERY_SQL_ERROR, "%s: %s", name, why);
}

/* A walk over the tokens of the statement. */
struct split {
	const char *sql;
	struct remote_fill_parts *parts;
	size_t depth;
	bool seen_insert, seen_select, in_tail, params_in_tail;
	struct fed_token before;
	size_t before_start;
};

static bool begins_select(const struct fed_token *t)
{
	return fed_is_word(t, "SELECT") || fed_is_word(t, "WITH") || fed_is_word(t, "VALUES");
}

static void step(struct split *s, const struct fed_token *t)
{
	size_t at = (size_t)(t->start - s->sql);

	if (fed_is_mark(t, '('))
		s->depth++;
	else if (fed_is_mark(t, ')') && s->depth > 0)
		s->depth--;
	if (s->in_tail && t->kind == FED_VARIABLE)
		s->params_in_tail = true;
	if (s->depth > 0 || s->in_tail)
		return;
	if (!s->seen_insert) {
		s->seen_insert = fed_is_word(t, "INSERT") || fed_is_word(t, "REPLACE");
	} else if (!s->seen_select && begins_select(t)) {
		s->seen_select = true;
		s->parts->select = at;
	} else if (s->seen_select && fed_is_word(t, "CONFLICT") && fed_is_word(&s->before, "ON")) {
		s->in_tail = true;
		s->parts->select_end = s->before_start;
	} else if (s->seen_select && fed_is_word(t, "RETURNING")) {
		s->in_tail = true;
		s->parts->select_end = at;
	}
}

enum query_code remote_fill_split(const struct federation *scan, const char *sql, size_t len,
				  struct remote_fill_parts *parts, struct query_error *error)
{
	const struct federated_statement *statement = &scan->statements[0];
	struct fed_lexer lexer = {sql + statement->start, sql + statement->end};
	struct split s = {.sql = sql, .parts = parts};
	struct fed_token t;
	size_t i;

	(void)len;
	*parts = (struct remote_fill_parts){statement->start, 0, statement->end, statement->end};
	for (;;) {
		if (fed_lex(&lexer, &t, error) != QUERY_OK)
			return error->code;
		if (t.kind == FED_END)
			break;
		if (!s.seen_insert && !fed_is_word(&t, "INSERT") && !fed_is_word(&t, "REPLACE"))
			return refuse(error, scan,
				      "a table of this node can be changed by what is read of other nodes only as "
				      "INSERT INTO table "
				      "SELECT …, with a WITH behind INSERT INTO table, not before it");
		step(&s, &t);
		s.before = t;
		s.before_start = (size_t)(t.start - sql);
	}
	if (!s.seen_select)
		return refuse(error, scan, "INSERT INTO table SELECT … has no SELECT");
	for (i = 0; i < scan->ref_count; i++)
		if (scan->refs[i].start < parts->select || scan->refs[i].end > parts->select_end)
			return refuse(error, scan,
				      "tables of other nodes may stand in the SELECT of an INSERT, not behind it");
	if (s.params_in_tail)
		return refuse(error, scan,
			      "an INSERT from other nodes' tables may have parameters in its SELECT, not behind it");
	return QUERY_OK;
}

/* ---- the statement for the writer */

/* How many columns rows have; 0: they are no answer. */
static size_t count_columns(const struct buf *rows)
{
	struct query_error error = {.statement = -1};
	struct rows_reader *r;
	struct errmsg em = {0};
	size_t columns = 0;

	if (rows_reader_create(&r, 200, TYPED_ROWS_TYPE, NULL, &em) != DB_OK)
		return 0;
	if (rows_reader_feed(r, rows->data, rows->len) == DB_OK && rows_reader_next(r, &error) == ROWS_RESULT)
		columns = rows_reader_column_count(r);
	rows_reader_free(r);
	return columns;
}

enum query_code remote_fill_build(struct query_request **out, const struct query_request *from,
				  const struct remote_fill_parts *parts, const struct buf *rows,
				  struct query_error *error)
{
	struct block {
		struct query_request request;
		struct query_statement statement;
		struct query_param param;
	} * b;
	const char *sql = from->statements[0].sql;
	size_t columns = count_columns(rows), i;
	struct buf text = {0};
	char *bytes;

	*out = NULL;
	if (columns > REMOTE_FILL_COLUMNS_MAX)
		return query_error_set(error, QUERY_TOO_LARGE,
				       "an INSERT from other nodes' tables may have %d columns, this one has %zu",
				       REMOTE_FILL_COLUMNS_MAX, columns);
	buf_put(&text, sql + parts->start, parts->select - parts->start);
	buf_puts(&text, "SELECT ");
	for (i = 0; i < columns; i++)
		buf_printf(&text, "%sc%zu", i > 0 ? "," : "", i);
	buf_puts(&text, " FROM grizzly_rows(?) WHERE true "); /* an ON CONFLICT needs a WHERE before it */
	buf_put(&text, sql + parts->select_end, parts->end - parts->select_end);
	b = columns > 0 && !text.failed ? malloc(sizeof(*b) + text.len + 1 + rows->len) : NULL;
	if (b != NULL) {
		bytes = (char *)(b + 1);
		memcpy(bytes, text.data, text.len);
		bytes[text.len] = '\0';
		memcpy(bytes + text.len + 1, rows->data, rows->len);
		b->request = *from;
		b->request.document = NULL;
		b->request.asked = from;
		b->request.statements = &b->statement;
		b->param =
		    (struct query_param){.value = {.type = QUERY_BLOB, .data = {bytes + text.len + 1, rows->len}}};
		b->statement = (struct query_statement){bytes, text.len, &b->param, 1};
		*out = &b->request;
	}
	buf_fini(&text);
	return b != NULL ? QUERY_OK : query_error_set(error, QUERY_INTERNAL, "out of memory");
}

/* ---- grizzly_rows(blob) */

struct rows_cursor {
	sqlite3_vtab_cursor base;
	struct rows_reader *reader;
	sqlite3_int64 row;
	bool eof;
};

static int rows_connect(sqlite3 *db, void *aux, int argc, const char *const *argv, sqlite3_vtab **out, char **error)
{
	struct buf create = {0};
	int rc = SQLITE_NOMEM, i;

	(void)aux;
	(void)argc;
	(void)argv;
	(void)error;
	buf_puts(&create, "CREATE TABLE x(");
	for (i = 0; i < REMOTE_FILL_COLUMNS_MAX; i++)
		buf_printf(&create, "c%d,", i);
	buf_puts(&create, "typed_rows HIDDEN)");
	buf_put_u8(&create, '\0');
	if (!create.failed)
		rc = sqlite3_declare_vtab(db, (const char *)create.data);
	buf_fini(&create);
	if (rc == SQLITE_OK)
		rc = sqlite3_vtab_config(db, SQLITE_VTAB_DIRECTONLY);
	if (rc != SQLITE_OK)
		return rc;
	*out = calloc(1, sizeof(**out));
	return *out != NULL ? SQLITE_OK : SQLITE_NOMEM;
}

static int rows_disconnect(sqlite3_vtab *base)
{
	free(base);
	return SQLITE_OK;
}

static int rows_best_index(sqlite3_vtab *base, sqlite3_index_info *info)
{
	int i;

	(void)base;
	for (i = 0; i < info->nConstraint; i++)
		if (info->aConstraint[i].iColumn == REMOTE_FILL_COLUMNS_MAX && info->aConstraint[i].usable &&
		    info->aConstraint[i].op == SQLITE_INDEX_CONSTRAINT_EQ) {
			info->aConstraintUsage[i].argvIndex = 1;
			info->aConstraintUsage[i].omit = 1;
			info->estimatedCost = 1000;
			return SQLITE_OK;
		}
	return SQLITE_CONSTRAINT;
}

static int rows_open(sqlite3_vtab *base, sqlite3_vtab_cursor **out)
{
	struct rows_cursor *c = calloc(1, sizeof(*c));

	(void)base;
	if (c == NULL)
		return SQLITE_NOMEM;
	*out = &c->base;
	return SQLITE_OK;
}

static int rows_close(sqlite3_vtab_cursor *base)
{
	struct rows_cursor *c = (struct rows_cursor *)base;

	rows_reader_free(c->reader);
	free(c);
	return SQLITE_OK;
}

static int rows_next(sqlite3_vtab_cursor *base)
{
	struct rows_cursor *c = (struct rows_cursor *)base;
	struct query_error error = {.statement = -1};

	for (;;) {
		switch (rows_reader_next(c->reader, &error)) {
		case ROWS_RESULT:
			continue;
		case ROWS_ROW:
			c->row++;
			return SQLITE_OK;
		case ROWS_DONE:
			c->eof = true;
			return SQLITE_OK;
		default:
			sqlite3_free(base->pVtab->zErrMsg);
			base->pVtab->zErrMsg = sqlite3_mprintf("grizzly_rows: %s", error.message);
			return SQLITE_ERROR;
		}
	}
}

static int rows_filter(sqlite3_vtab_cursor *base, int index, const char *name, int argc, sqlite3_value **argv)
{
	struct rows_cursor *c = (struct rows_cursor *)base;
	struct errmsg em = {0};
	const void *bytes;
	size_t len;

	(void)index;
	(void)name;
	(void)argc;
	rows_reader_free(c->reader);
	c->reader = NULL;
	c->row = 0;
	c->eof = false;
	bytes = sqlite3_value_blob(argv[0]);
	len = (size_t)sqlite3_value_bytes(argv[0]);
	if (rows_reader_create(&c->reader, 200, TYPED_ROWS_TYPE, NULL, &em) != DB_OK)
		return SQLITE_NOMEM;
	if (len > 0 && rows_reader_feed(c->reader, bytes, len) != DB_OK)
		return SQLITE_NOMEM;
	rows_reader_finish(c->reader);
	return rows_next(base);
}

static int rows_eof(sqlite3_vtab_cursor *base)
{
	return ((struct rows_cursor *)base)->eof;
}

static int rows_column(sqlite3_vtab_cursor *base, sqlite3_context *context, int column)
{
	struct rows_cursor *c = (struct rows_cursor *)base;
	const struct query_value *v;

	if (column < 0 || (size_t)column >= rows_reader_column_count(c->reader)) {
		sqlite3_result_null(context);
		return SQLITE_OK;
	}
	v = &rows_reader_values(c->reader)[column];
	if (v->type == QUERY_INTEGER)
		sqlite3_result_int64(context, v->integer);
	else if (v->type == QUERY_REAL)
		sqlite3_result_double(context, v->real);
	else if (v->type == QUERY_TEXT)
		sqlite3_result_text64(context, v->data.len > 0 ? v->data.bytes : "", v->data.len, SQLITE_TRANSIENT,
				      SQLITE_UTF8);
	else if (v->type == QUERY_BLOB)
		sqlite3_result_blob64(context, v->data.len > 0 ? v->data.bytes : "", v->data.len, SQLITE_TRANSIENT);
	else
		sqlite3_result_null(context);
	return SQLITE_OK;
}

static int rows_rowid(sqlite3_vtab_cursor *base, sqlite3_int64 *rowid)
{
	*rowid = ((struct rows_cursor *)base)->row;
	return SQLITE_OK;
}

static const sqlite3_module rows_module = {
    .iVersion = 1,
    .xConnect = rows_connect,
    .xBestIndex = rows_best_index,
    .xDisconnect = rows_disconnect,
    .xDestroy = rows_disconnect,
    .xOpen = rows_open,
    .xClose = rows_close,
    .xFilter = rows_filter,
    .xNext = rows_next,
    .xEof = rows_eof,
    .xColumn = rows_column,
    .xRowid = rows_rowid,
};

int remote_fill_register(sqlite3 *db)
{
	return sqlite3_create_module_v2(db, "grizzly_rows", &rows_module, NULL, NULL);
}

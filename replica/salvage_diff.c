/* salvage_diff.c - see salvage_diff.h. */
#include "replica/salvage_diff.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/query/answer.h"

#define OPS_BETWEEN_LOOKS 2000 /* at the clock */
#define FLUSH_BYTES       ((size_t)256 << 10)
#define COLUMNS_MAX       2000 /* SQLite's own limit */

struct names {
	char **items;
	size_t count;
};

struct run {
	struct salvage_diff *d;
	struct buf out;
	uint64_t written;
	struct names touched;
	struct errmsg *em;
};

/* A SELECT over one table, one row at a time. Columns from `first` on are the table's. */
struct rows {
	sqlite3_stmt *stmt;
	int first;
	bool at_row;
};

/* ---- errors and output */

static enum db_err failed(struct run *r, sqlite3 *db)
{
	int rc = sqlite3_errcode(db) & 0xff;

	if (rc == SQLITE_INTERRUPT)
		return errmsg_set(r->em, DB_TIMEOUT, "comparing the two states takes too long");
	return errmsg_set(r->em,
			  rc == SQLITE_NOMEM                            ? DB_NOMEM
			  : rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB ? DB_CORRUPT
									: DB_IO,
			  "comparing the two states: %s", sqlite3_errmsg(db));
}

static enum db_err flush(struct run *r, size_t above)
{
	enum db_err err = DB_OK;

	if (r->out.failed)
		return errmsg_set(r->em, DB_NOMEM, "no memory for a row");
	if (r->out.len <= above)
		return DB_OK;
	r->written += r->out.len;
	if (r->written > r->d->bytes_max)
		return errmsg_set(r->em, DB_TOO_LARGE, "the changes take more than %llu bytes",
				  (unsigned long long)r->d->bytes_max);
	err = r->d->write(r->d->arg, r->out.data, r->out.len, r->em);
	buf_clear(&r->out);
	return err;
}

static void put_text(struct buf *b, const char *key, const char *text)
{
	if (text == NULL)
		return;
	buf_printf(b, ",\"%s\":", key);
	json_put_string(b, text, strlen(text));
}

static void put_value(struct buf *b, sqlite3_stmt *stmt, int column)
{
	switch (sqlite3_column_type(stmt, column)) {
	case SQLITE_INTEGER:
		json_put_int(b, sqlite3_column_int64(stmt, column));
		return;
	case SQLITE_FLOAT:
		json_put_real(b, sqlite3_column_double(stmt, column));
		return;
	case SQLITE_TEXT:
		json_put_string(b, (const char *)sqlite3_column_text(stmt, column),
				(size_t)sqlite3_column_bytes(stmt, column));
		return;
	case SQLITE_BLOB:
		json_put_blob(b, sqlite3_column_blob(stmt, column), (size_t)sqlite3_column_bytes(stmt, column));
		return;
	default:
		buf_puts(b, "null");
	}
}

static void put_row(struct buf *b, const char *key, const struct rows *rows)
{
	int count = sqlite3_column_count(rows->stmt);
	const char *name;
	int i;

	buf_printf(b, ",\"%s\":{", key);
	for (i = rows->first; i < count; i++) {
		name = sqlite3_column_name(rows->stmt, i);
		buf_puts(b, i == rows->first ? "" : ",");
		json_put_string(b, name == NULL ? "" : name, name == NULL ? 0 : strlen(name));
		buf_puts(b, ":");
		put_value(b, rows->stmt, i);
	}
	buf_puts(b, "}");
}

/* old and new may be NULL. key_count 0: column 0 is the rowid. */
static enum db_err put_change(struct run *r, const char *table, const struct rows *old, const struct rows *new)
{
	const struct rows *any = new != NULL ? new : old;
	const char *op = old == NULL ? "insert" : new == NULL ? "delete" : "update";

	buf_printf(&r->out, "{\"op\":\"%s\"", op);
	put_text(&r->out, "table", table);
	if (any->first > 0)
		buf_printf(&r->out, ",\"rowid\":%lld", (long long)sqlite3_column_int64(any->stmt, 0));
	if (old != NULL)
		put_row(&r->out, "old", old);
	if (new != NULL)
		put_row(&r->out, "new", new);
	buf_puts(&r->out, "}\n");
	r->d->inserts += old == NULL;
	r->d->deletes += new == NULL;
	r->d->updates += old != NULL && new != NULL;
	return flush(r, FLUSH_BYTES);
}

/* ---- rows */

/* sql: made by sqlite3_mprintf(), freed here. */
static enum db_err prepare(struct run *r, sqlite3 *db, char *sql, sqlite3_stmt **out)
{
	int rc = sql == NULL ? SQLITE_NOMEM : sqlite3_prepare_v2(db, sql, -1, out, NULL);

	sqlite3_free(sql);
	if (rc == SQLITE_NOMEM)
		return errmsg_set(r->em, DB_NOMEM, "no memory for a statement");
	return rc == SQLITE_OK ? DB_OK : failed(r, db);
}

static enum db_err next(struct run *r, struct rows *rows)
{
	int rc = sqlite3_step(rows->stmt);

	rows->at_row = rc == SQLITE_ROW;
	return rc == SQLITE_ROW || rc == SQLITE_DONE ? DB_OK : failed(r, sqlite3_db_handle(rows->stmt));
}

static bool values_equal(sqlite3_stmt *a, int i, sqlite3_stmt *b, int k)
{
	int type = sqlite3_column_type(a, i);
	const void *left, *right;
	double x, y;
	int len;

	if (type != sqlite3_column_type(b, k))
		return false;
	if (type == SQLITE_INTEGER)
		return sqlite3_column_int64(a, i) == sqlite3_column_int64(b, k);
	if (type == SQLITE_FLOAT) {
		x = sqlite3_column_double(a, i);
		y = sqlite3_column_double(b, k);
		return memcmp(&x, &y, sizeof(x)) == 0;
	}
	if (type == SQLITE_NULL)
		return true;
	left = sqlite3_column_blob(a, i);
	right = sqlite3_column_blob(b, k);
	len = sqlite3_column_bytes(a, i);
	return len == sqlite3_column_bytes(b, k) && (len == 0 || memcmp(left, right, (size_t)len) == 0);
}

/* Columns are matched by name, for an ALTER TABLE may lie between; one that is new counts as NULL before. */
static bool rows_equal(const struct rows *old, const struct rows *new)
{
	int old_count = sqlite3_column_count(old->stmt);
	int new_count = sqlite3_column_count(new->stmt);
	const char *name;
	int i, k;

	for (i = new->first; i < new_count; i++) {
		k = i - new->first + old->first;
		name = sqlite3_column_name(new->stmt, i);
		if (k >= old_count || sqlite3_stricmp(sqlite3_column_name(old->stmt, k), name) != 0)
			for (k = old->first; k < old_count; k++)
				if (sqlite3_stricmp(sqlite3_column_name(old->stmt, k), name) == 0)
					break;
		if (k == old_count) {
			if (sqlite3_column_type(new->stmt, i) != SQLITE_NULL)
				return false;
		} else if (!values_equal(old->stmt, k, new->stmt, i)) {
			return false;
		}
	}
	return true;
}

/* ---- tables with a rowid: two scans side by side */

static enum db_err has_column(struct run *r, sqlite3 *db, const char *table, const char *column, bool *out)
{
	sqlite3_stmt *stmt = NULL;
	enum db_err err;
	int rc;

	err = prepare(r, db,
		      sqlite3_mprintf("SELECT 1 FROM pragma_table_xinfo(%Q) WHERE lower(name) = %Q", table, column),
		      &stmt);
	if (err != DB_OK)
		return err;
	rc = sqlite3_step(stmt);
	*out = rc == SQLITE_ROW;
	if (rc != SQLITE_ROW && rc != SQLITE_DONE)
		err = failed(r, db);
	sqlite3_finalize(stmt);
	return err;
}

/* A name for the rowid that no column has taken. */
static enum db_err rowid_name(struct run *r, sqlite3 *db, const char *table, const char **out)
{
	static const char *const candidates[] = {"rowid", "_rowid_", "oid"};
	bool taken = true;
	enum db_err err = DB_OK;
	size_t i;

	for (i = 0; i < 3 && taken && err == DB_OK; i++) {
		*out = candidates[i];
		err = has_column(r, db, table, candidates[i], &taken);
	}
	if (err == DB_OK && taken)
		err = errmsg_set(r->em, DB_INVALID, "table \"%s\" has columns by all names of the rowid", table);
	return err;
}

static enum db_err scan(struct run *r, sqlite3 *db, const char *table, struct rows *out)
{
	const char *rowid;
	enum db_err err = rowid_name(r, db, table, &rowid);

	if (err == DB_OK)
		err = prepare(r, db, sqlite3_mprintf("SELECT %s, * FROM \"%w\" ORDER BY 1", rowid, table), &out->stmt);
	out->first = 1;
	return err == DB_OK ? next(r, out) : err;
}

/* Either side may be absent. */
static enum db_err diff_by_rowid(struct run *r, const char *table, bool in_before, bool in_after)
{
	struct rows old = {0}, new = {0};
	sqlite3_int64 a, b;
	enum db_err err = DB_OK;

	if (in_before)
		err = scan(r, r->d->before, table, &old);
	if (err == DB_OK && in_after)
		err = scan(r, r->d->after, table, &new);
	while (err == DB_OK && (old.at_row || new.at_row)) {
		a = old.at_row ? sqlite3_column_int64(old.stmt, 0) : 0;
		b = new.at_row ? sqlite3_column_int64(new.stmt, 0) : 0;
		if (!new.at_row || (old.at_row && a < b)) {
			err = put_change(r, table, &old, NULL);
			err = err == DB_OK ? next(r, &old) : err;
		} else if (!old.at_row || b < a) {
			err = put_change(r, table, NULL, &new);
			err = err == DB_OK ? next(r, &new) : err;
		} else {
			if (!rows_equal(&old, &new))
				err = put_change(r, table, &old, &new);
			err = err == DB_OK ? next(r, &old) : err;
			err = err == DB_OK ? next(r, &new) : err;
		}
	}
	sqlite3_finalize(old.stmt);
	sqlite3_finalize(new.stmt);
	return err;
}

/* ---- tables without: each row is looked up on the other side by its primary key */

/* Prepares SELECT * … WHERE key columns = ?1, ?2, … on other, the key's columns being those in db; which of the table's
 * columns they are goes to key. */
static enum db_err prepare_lookup(struct run *r, sqlite3 *db, sqlite3 *other, const char *table, int *key,
				  int *key_count, sqlite3_stmt **out)
{
	char *sql = sqlite3_mprintf("SELECT * FROM \"%w\" WHERE ", table), *longer;
	sqlite3_stmt *info = NULL;
	enum db_err err;
	int rc = SQLITE_DONE;

	*key_count = 0;
	err = prepare(r, db,
		      sqlite3_mprintf("SELECT name, row_number() OVER (ORDER BY cid) - 1 AS place, pk FROM "
				      "pragma_table_info(%Q) ORDER BY pk",
				      table),
		      &info);
	while (err == DB_OK && sql != NULL && (rc = sqlite3_step(info)) == SQLITE_ROW) {
		if (sqlite3_column_int(info, 2) == 0)
			continue;
		longer = sqlite3_mprintf("%s%s\"%w\" = ?", sql, *key_count > 0 ? " AND " : "",
					 (const char *)sqlite3_column_text(info, 0));
		sqlite3_free(sql);
		sql = longer;
		key[(*key_count)++] = sqlite3_column_int(info, 1);
	}
	if (err == DB_OK && sql != NULL && rc != SQLITE_DONE)
		err = failed(r, db);
	sqlite3_finalize(info);
	if (err == DB_OK)
		return prepare(r, other, sql, out);
	sqlite3_free(sql);
	return err;
}

static enum db_err look_up(struct run *r, const struct rows *row, const int *key, int key_count, struct rows *found)
{
	int i;

	sqlite3_reset(found->stmt);
	for (i = 0; i < key_count; i++)
		if (sqlite3_bind_value(found->stmt, i + 1, sqlite3_column_value(row->stmt, key[i])) != SQLITE_OK)
			return errmsg_set(r->em, DB_NOMEM, "no memory for a key");
	return next(r, found);
}

/* One direction: the rows of one side; those of the new side give inserts and updates, those of the old deletes. */
static enum db_err diff_one_way(struct run *r, const char *table, bool forward, bool other_has_it)
{
	sqlite3 *db = forward ? r->d->after : r->d->before;
	sqlite3 *other = forward ? r->d->before : r->d->after;
	struct rows row = {0}, found = {0};
	int *key = calloc(COLUMNS_MAX + 1, sizeof(*key));
	int key_count = 0;
	enum db_err err;

	if (key == NULL)
		return errmsg_set(r->em, DB_NOMEM, "no memory for a key");
	err = prepare(r, db, sqlite3_mprintf("SELECT * FROM \"%w\"", table), &row.stmt);
	if (err == DB_OK && other_has_it)
		err = prepare_lookup(r, db, other, table, key, &key_count, &found.stmt);
	if (err == DB_OK)
		err = next(r, &row);
	while (err == DB_OK && row.at_row) {
		if (other_has_it)
			err = look_up(r, &row, key, key_count, &found);
		if (err == DB_OK && !found.at_row)
			err = put_change(r, table, forward ? NULL : &row, forward ? &row : NULL);
		else if (err == DB_OK && forward && !rows_equal(&found, &row))
			err = put_change(r, table, &found, &row);
		err = err == DB_OK ? next(r, &row) : err;
	}
	sqlite3_finalize(row.stmt);
	sqlite3_finalize(found.stmt);
	free(key);
	return err;
}

static enum db_err diff_by_key(struct run *r, const char *table, bool in_before, bool in_after)
{
	enum db_err err = DB_OK;

	if (in_before)
		err = diff_one_way(r, table, false, in_after);
	if (err == DB_OK && in_after)
		err = diff_one_way(r, table, true, in_before);
	return err;
}

/* ---- which tables */

static bool names_have(const struct names *names, const char *name)
{
	size_t i;

	for (i = 0; i < names->count; i++)
		if (strcmp(names->items[i], name) == 0)
			return true;
	return false;
}

static bool names_add(struct names *names, const char *name)
{
	char **items;

	if (names_have(names, name))
		return true;
	items = realloc(names->items, (names->count + 1) * sizeof(*items));
	if (items == NULL)
		return false;
	names->items = items;
	items[names->count] = strdup(name);
	if (items[names->count] == NULL)
		return false;
	names->count++;
	return true;
}

static void names_fini(struct names *names)
{
	size_t i;

	for (i = 0; i < names->count; i++)
		free(names->items[i]);
	free(names->items);
}

static void page_changed(sqlite3_context *context, int argc, sqlite3_value **argv)
{
	const struct salvage_diff *d = sqlite3_user_data(context);
	sqlite3_int64 pgno = sqlite3_value_int64(argv[0]);

	(void)argc;
	sqlite3_result_int(context, pgno > 0 && pgno <= d->changed_max && (d->changed[pgno / 8] >> pgno % 8 & 1) != 0);
}

static enum db_err find_touched(struct run *r, sqlite3 *db)
{
	sqlite3_stmt *stmt = NULL;
	enum db_err err;
	int rc = SQLITE_DONE;

	if (sqlite3_create_function(db, "salvage_page_changed", 1, SQLITE_UTF8, r->d, page_changed, NULL, NULL) !=
	    SQLITE_OK)
		return failed(r, db);
	err = prepare(r, db, sqlite3_mprintf("SELECT DISTINCT name FROM dbstat WHERE salvage_page_changed(pageno)"),
		      &stmt);
	while (err == DB_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW)
		if (!names_add(&r->touched, (const char *)sqlite3_column_text(stmt, 0)))
			err = errmsg_set(r->em, DB_NOMEM, "no memory for names");
	if (err == DB_OK && rc != SQLITE_DONE)
		err = failed(r, db);
	sqlite3_finalize(stmt);
	return err;
}

/* ---- the schema */

#define SCHEMA_SQL "SELECT type, name, sql, rootpage FROM sqlite_schema WHERE type = %Q AND name = %Q"

/* The same object on the other side; *has false: there is none. */
static enum db_err find_object(struct run *r, sqlite3 *db, sqlite3_stmt *object, sqlite3_stmt **out, bool *has)
{
	enum db_err err = prepare(r, db,
				  sqlite3_mprintf(SCHEMA_SQL, (const char *)sqlite3_column_text(object, 0),
						  (const char *)sqlite3_column_text(object, 1)),
				  out);
	int rc;

	if (err != DB_OK)
		return err;
	rc = sqlite3_step(*out);
	*has = rc == SQLITE_ROW;
	return rc == SQLITE_ROW || rc == SQLITE_DONE ? DB_OK : failed(r, db);
}

static enum db_err put_schema_change(struct run *r, const char *op, sqlite3_stmt *object, const char *sql,
				     const char *old_sql)
{
	buf_printf(&r->out, "{\"op\":\"%s\"", op);
	put_text(&r->out, "type", (const char *)sqlite3_column_text(object, 0));
	put_text(&r->out, "name", (const char *)sqlite3_column_text(object, 1));
	put_text(&r->out, "sql", sql);
	put_text(&r->out, "old_sql", old_sql);
	buf_puts(&r->out, "}\n");
	r->d->schema_changes++;
	return flush(r, FLUSH_BYTES);
}

static enum db_err has_rowid(struct run *r, sqlite3 *db, const char *table, bool *out)
{
	sqlite3_stmt *stmt = NULL;
	enum db_err err =
	    prepare(r, db, sqlite3_mprintf("SELECT wr FROM pragma_table_list(%Q) WHERE schema = 'main'", table), &stmt);

	if (err != DB_OK)
		return err;
	if (sqlite3_step(stmt) == SQLITE_ROW)
		*out = sqlite3_column_int(stmt, 0) == 0;
	else
		err = failed(r, db);
	sqlite3_finalize(stmt);
	return err;
}

static enum db_err diff_rows(struct run *r, const char *table, bool in_before, bool in_after)
{
	bool rowid_before = true, rowid_after = true;
	enum db_err err = DB_OK;

	if (in_before)
		err = has_rowid(r, r->d->before, table, &rowid_before);
	if (err == DB_OK && in_after)
		err = has_rowid(r, r->d->after, table, &rowid_after);
	if (err == DB_OK && in_before && in_after && rowid_before != rowid_after) { /* made anew as another kind */
		err = diff_rows(r, table, true, false);
		return err == DB_OK ? diff_rows(r, table, false, true) : err;
	}
	if (err != DB_OK)
		return err;
	return (in_before ? rowid_before : rowid_after) ? diff_by_rowid(r, table, in_before, in_after)
							: diff_by_key(r, table, in_before, in_after);
}

static bool same_text(const char *a, const char *b)
{
	return (a == NULL || b == NULL) ? a == b : strcmp(a, b) == 0;
}

/* One object of `db`. forward: db is the newer state, so what the other lacks was created; backward only drops matter. */
static enum db_err diff_object(struct run *r, sqlite3_stmt *object, bool forward)
{
	const char *name = (const char *)sqlite3_column_text(object, 1);
	const char *sql = (const char *)sqlite3_column_text(object, 2);
	bool is_table =
	    strcmp((const char *)sqlite3_column_text(object, 0), "table") == 0 && sqlite3_column_int64(object, 3) > 0;
	sqlite3_stmt *other = NULL;
	const char *other_sql;
	bool has = false;
	enum db_err err = find_object(r, forward ? r->d->before : r->d->after, object, &other, &has);

	if (err == DB_OK && !has && sql != NULL)
		err = put_schema_change(r, forward ? "create" : "drop", object, forward ? sql : NULL,
					forward ? NULL : sql);
	if (err == DB_OK && !has && is_table)
		err = diff_rows(r, name, !forward, forward);
	if (err == DB_OK && has && forward) {
		other_sql = (const char *)sqlite3_column_text(other, 2);
		if (!same_text(sql, other_sql))
			err = put_schema_change(r, "alter", object, sql, other_sql);
		if (err == DB_OK && is_table && names_have(&r->touched, name))
			err = diff_rows(r, name, true, true);
	}
	sqlite3_finalize(other);
	return err;
}

static enum db_err diff_objects(struct run *r, bool forward)
{
	sqlite3 *db = forward ? r->d->after : r->d->before;
	sqlite3_stmt *stmt = NULL;
	enum db_err err;
	int rc = SQLITE_DONE;

	err = prepare(r, db,
		      sqlite3_mprintf("SELECT type, name, sql, rootpage FROM sqlite_schema WHERE name NOT LIKE "
				      "'sqlite_stat%%' ORDER BY type = 'table' DESC, rowid"),
		      &stmt);
	while (err == DB_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW)
		err = diff_object(r, stmt, forward);
	if (err == DB_OK && rc != SQLITE_DONE)
		err = failed(r, db);
	sqlite3_finalize(stmt);
	return err;
}

/* ---- the whole */

static int look_at_clock(void *arg)
{
	const struct salvage_diff *d = arg;

	return clock_mono_ms() >= d->deadline_ms;
}

enum db_err salvage_diff(struct salvage_diff *d, struct errmsg *em)
{
	struct errmsg own = {0};
	struct run r = {.d = d, .em = em != NULL ? em : &own};
	enum db_err err;

	sqlite3_progress_handler(d->before, OPS_BETWEEN_LOOKS, look_at_clock, d);
	sqlite3_progress_handler(d->after, OPS_BETWEEN_LOOKS, look_at_clock, d);
	err = find_touched(&r, d->before);
	if (err == DB_OK)
		err = find_touched(&r, d->after);
	if (err == DB_OK)
		err = diff_objects(&r, false);
	if (err == DB_OK)
		err = diff_objects(&r, true);
	if (err == DB_OK)
		err = flush(&r, 0);
	sqlite3_progress_handler(d->before, 0, NULL, NULL);
	sqlite3_progress_handler(d->after, 0, NULL, NULL);
	names_fini(&r.touched);
	buf_fini(&r.out);
	return err;
}

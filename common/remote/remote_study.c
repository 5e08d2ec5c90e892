/* remote_study.c - see remote_study.h. */
#include "common/remote/remote_study.h"

#include <stdlib.h>

#define SMALL_SHARE 5 /* a table is small beside one that has so many times its rows */

#define SMALL_MAX 20000 /* and has fewer rows than this */

/* A program: one entry for each instruction. */
struct program {
	struct step {
		enum { STEP_OTHER, STEP_SCAN, STEP_LOOP, STEP_CALL, STEP_RETURN, STEP_OPEN } kind;
		int target;  /* of LOOP and CALL; the root page of OPEN */
		size_t plan; /* of SCAN */
	} * steps;
	size_t count, room;
};

static bool is_one_of(const char *word, const char *const *words)
{
	for (; *words != NULL; words++)
		if (strcmp(word, *words) == 0)
			return true;
	return false;
}

static bool add_step(struct program *p, sqlite3_stmt *explain)
{
	static const char *const loops[] = {"Next", "Prev", "VNext", "SorterNext", "Goto", NULL};
	const char *opcode = (const char *)sqlite3_column_text(explain, 1);
	const char *p4 = (const char *)sqlite3_column_text(explain, 5);
	struct step *s, *grown;

	if (p->count == p->room) {
		p->room = p->room > 0 ? 2 * p->room : 64;
		grown = realloc(p->steps, p->room * sizeof(*grown));
		if (grown == NULL)
			return false;
		p->steps = grown;
	}
	s = &p->steps[p->count++];
	memset(s, 0, sizeof(*s));
	s->target = sqlite3_column_int(explain, 3);
	if (opcode == NULL)
		return true;
	if (strcmp(opcode, "VFilter") == 0 && p4 != NULL && p4[0] == '#') {
		s->kind = STEP_SCAN;
		s->plan = strtoul(p4 + 1, NULL, 10);
	} else if (is_one_of(opcode, loops) && s->target > 1 && s->target < (int)p->count) {
		s->kind = STEP_LOOP; /* a Goto to 1 is the end of what is done once, before all else */
	} else if (strcmp(opcode, "OpenRead") == 0 && sqlite3_column_int(explain, 4) == 0) {
		s->kind = STEP_OPEN;
	} else if (strcmp(opcode, "Gosub") == 0) {
		s->kind = STEP_CALL;
	} else if (strcmp(opcode, "Return") == 0) {
		s->kind = STEP_RETURN;
	}
	return true;
}

/* Whether a subroutine that begins at target goes as far as scan. */
static bool is_called(const struct program *p, int target, size_t scan)
{
	size_t i;

	if (target < 0 || (size_t)target > scan)
		return false;
	for (i = (size_t)target; i < scan; i++)
		if (p->steps[i].kind == STEP_RETURN)
			return false;
	return true;
}

static bool is_in_loop(const struct program *p, size_t scan)
{
	size_t i;

	for (i = 0; i < p->count; i++) {
		const struct step *s = &p->steps[i];

		if (s->kind == STEP_LOOP && i > scan && (size_t)s->target <= scan)
			return true;
		if (s->kind == STEP_CALL && is_called(p, s->target, scan))
			return true;
	}
	return false;
}

static void note_root(struct remote_query *q, int root)
{
	size_t i;

	for (i = 0; i < q->root_count; i++)
		if (q->roots[i] == root)
			return;
	if (q->root_count < REMOTE_ROOTS_MAX)
		q->roots[q->root_count++] = root;
}

static void judge(struct remote_query *q, const struct program *p)
{
	size_t i;

	for (i = 0; i < p->count; i++) {
		struct remote_plan *plan;
		bool in_loop;

		if (p->steps[i].kind == STEP_OPEN)
			note_root(q, p->steps[i].target);
		if (p->steps[i].kind != STEP_SCAN || p->steps[i].plan >= q->plan_count)
			continue;
		plan = q->plans[p->steps[i].plan];
		in_loop = is_in_loop(p, i);
		plan->in_loop = plan->chosen ? plan->in_loop || in_loop : in_loop;
		plan->chosen = true;
		q->has_keyed = q->has_keyed || (plan->in_loop && plan->keyed);
	}
}

static enum query_code study_statement(struct remote_query *q, struct query_conn *c, const struct statement *s,
				       struct query_error *error)
{
	const char *sql = sqlite3_sql(s->stmt);
	struct program program = {0};
	sqlite3_stmt *explain = NULL;
	struct buf text = {0};
	bool ok = true;

	if (s->writes)
		return query_error_set(
		    error, QUERY_SQL_ERROR,
		    "a request that reads tables of other nodes may not change this one's in statements of "
		    "their own: send them as another request");
	if (sql == NULL || sqlite3_stmt_isexplain(s->stmt) != 0)
		return QUERY_OK;
	buf_puts(&text, "EXPLAIN ");
	buf_puts(&text, sql);
	buf_put_u8(&text, '\0');
	authorizer_enter(&c->authorizer, AUTHORIZER_PREPARE);
	if (!text.failed && sqlite3_prepare_v2(c->db, (const char *)text.data, -1, &explain, NULL) == SQLITE_OK)
		while (ok && sqlite3_step(explain) == SQLITE_ROW)
			ok = add_step(&program, explain);
	c->authorizer.phase = AUTHORIZER_STEP;
	if (ok)
		judge(q, &program);
	sqlite3_finalize(explain); /* what is wrong with it the statement itself will say */
	free(program.steps);
	buf_fini(&text);
	return ok ? QUERY_OK : query_error_set(error, QUERY_INTERNAL, "out of memory");
}

void remote_study_forget(struct remote_query *q)
{
	size_t i;

	for (i = 0; i < q->plan_count; i++) {
		q->plans[i]->chosen = false;
		q->plans[i]->in_loop = true;
	}
	q->has_keyed = false;
	q->root_count = 0;
}

/* One value of one of our own statements; -1: none. */
static int64_t ask_int(struct query_conn *c, const char *sql, int64_t bound)
{
	sqlite3_stmt *stmt = NULL;
	int64_t value = -1;

	if (sqlite3_prepare_v2(c->db, sql, -1, &stmt, NULL) == SQLITE_OK) {
		sqlite3_bind_int64(stmt, 1, bound);
		if (sqlite3_step(stmt) == SQLITE_ROW && sqlite3_column_type(stmt, 0) == SQLITE_INTEGER)
			value = sqlite3_column_int64(stmt, 0);
	}
	sqlite3_finalize(stmt); /* what is not known does not matter */
	return value;
}

/* How many rows the table with that root page has, at most; -1: it is no table. */
static int64_t count_rows(struct query_conn *c, int root, int64_t at_most)
{
	sqlite3_stmt *stmt = NULL;
	struct buf sql = {0};
	int64_t rows = -1;

	if (sqlite3_prepare_v2(c->db, "SELECT name FROM sqlite_schema WHERE rootpage = ? AND type = 'table'", -1, &stmt,
			       NULL) == SQLITE_OK) {
		sqlite3_bind_int(stmt, 1, root);
		if (sqlite3_step(stmt) == SQLITE_ROW) {
			const char *name = (const char *)sqlite3_column_text(stmt, 0);

			buf_puts(&sql, "SELECT count(*) FROM (SELECT 1 FROM main.");
			if (name != NULL)
				federation_put_identifier(&sql, name, strlen(name));
			buf_puts(&sql, " LIMIT ?)");
			buf_put_u8(&sql, '\0');
		}
	}
	sqlite3_finalize(stmt);
	if (sql.len > 0 && !sql.failed)
		rows = ask_int(c, (const char *)sql.data, at_most);
	buf_fini(&sql);
	return rows;
}

/* The largest table that comes over whole; 0: none. */
static uint64_t largest_whole(const struct remote_query *q)
{
	uint64_t largest = 0;
	size_t i;

	for (i = 0; i < q->plan_count; i++) {
		const struct remote_plan *plan = q->plans[i];
		uint64_t rows = atomic_load(&plan->shape.schema->rows);

		if (plan->chosen && !(plan->in_loop && plan->keyed) && plan->shape.limit < 0 && rows != UINT64_MAX &&
		    rows > largest)
			largest = rows;
	}
	return largest;
}

bool remote_study_small_tables(struct remote_query *q, struct query_conn *c)
{
	uint64_t largest = largest_whole(q);
	bool small = false;
	size_t i;

	if (largest < SMALL_SHARE * 400 || q->root_count == 0)
		return false;
	authorizer_enter(&c->authorizer, AUTHORIZER_TRUSTED);
	for (i = 0; i < q->root_count && !small; i++) {
		int64_t most = (int64_t)(largest / SMALL_SHARE < SMALL_MAX ? largest / SMALL_SHARE : SMALL_MAX);
		int64_t rows = count_rows(c, q->roots[i], most);

		small = rows >= 0 && rows < most;
	}
	c->authorizer.phase = AUTHORIZER_STEP;
	return small;
}

enum query_code remote_study(struct remote_query *q, struct query_conn *c, const struct query_request *request,
			     struct query_error *error)
{
	enum query_code code = QUERY_OK;
	struct script_walk walk;
	struct statement *s;
	size_t i, index = 0;

	for (i = 0; i < request->statement_count && code == QUERY_OK; i++) {
		if (script_walk_begin(&walk, c->cache, request->statements[i].sql, request->statements[i].sql_len) !=
		    SQLITE_OK)
			return query_error_set(error, QUERY_INTERNAL, "out of memory");
		while (code == QUERY_OK && script_walk_next(&walk, &s) == SQLITE_OK && s != NULL) {
			code = study_statement(q, c, s, error);
			if (code != QUERY_OK && (request->from_statements || !s->last || index > 0))
				error->statement = (int)index;
			index++;
		}
		script_walk_end(&walk);
	}
	return code;
}

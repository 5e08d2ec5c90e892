/*
 * federation.c - see federation.h: which statements, subqueries and tables a text with references has.
 *
 * One pass over the tokens. A frame stands for a pair of parentheses (the first one for the statement itself) and knows
 * whether a table may come next: after FROM, JOIN, INTO, UPDATE, IN, after commas in a FROM clause, and in parentheses
 * that stand there. Any name found in such a place that is no reference and no common table expression in scope counts as
 * a local table; so does a table-valued function unless it is known to look at nothing but its arguments. Wherever this
 * is unsure it errs to the side of local, which costs speed and never changes an answer.
 */
#include "common/query/federation.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/query/federation_lex.h"

#define CTES_MAX 200 /* that are remembered; more count as local tables */

/* Where in a WITH clause a frame is. */
enum with_state {
	WITH_NONE,
	WITH_NAME,       /* a common table expression's name comes next */
	WITH_AFTER_NAME, /* its columns or AS */
	WITH_BODY,       /* its body */
	WITH_AFTER_BODY, /* a comma, or the statement proper */
};

struct frame {
	size_t start; /* behind its parenthesis */
	size_t first_ref;
	size_t cte_base;   /* scan.cte_count when it opened */
	size_t outer_most; /* the outermost frame whose common table expressions it uses */
	enum federated_place place;
	enum with_state with;
	bool in_from;   /* in a FROM clause: a comma brings a table */
	bool expect;    /* a table comes next */
	bool is_select; /* it holds a SELECT or VALUES */
	bool local;     /* it names a local table, in itself or deeper */
	bool params;
};

struct cte {
	struct fed_token name;
	size_t frame;
};

struct scan {
	const char *sql;
	struct fed_lexer lexer;
	struct fed_token token;           /* the present one */
	struct fed_token before, before2; /* the last one and the one before that */
	struct query_error *error;
	struct federation *f;
	size_t ref_room, query_room, statement_room;
	struct frame *frames;
	size_t depth, frame_room; /* frames[depth] is the present one */
	struct cte ctes[CTES_MAX];
	size_t cte_count;
	struct federated_statement *statement; /* the present one; NULL between statements */
	struct fed_token verb;                 /* of the present statement, when it is a WITH: of what follows */
	bool verb_seen;                        /* the statement proper has begun */
	bool target;                           /* the table that comes next is what the statement changes */
	bool target_seen;
	bool operand; /* the table that comes next is that of x IN table */
	bool trigger; /* CREATE TRIGGER: semicolons are its own until its END */
};

static enum query_code out_of_memory(struct scan *s)
{
	return query_error_set(s->error, QUERY_INTERNAL, "out of memory");
}

/* Makes room for one more in an array; false: out of memory. */
static bool grow(void **array, size_t *room, size_t count, size_t item_size)
{
	size_t more = *room == 0 ? 8 : *room * 2;
	void *larger;

	if (count < *room)
		return true;
	larger = reallocarray(*array, more, item_size);
	if (larger == NULL)
		return false;
	*array = larger;
	*room = more;
	return true;
}

static struct frame *frame_of(struct scan *s)
{
	return &s->frames[s->depth];
}

static bool is_word(const struct scan *s, const char *keyword)
{
	return fed_is_word(&s->token, keyword);
}

/* The next token, and the one after that. A malformed reference is reported when it is reached. */
static void look_ahead(struct fed_lexer ahead, struct fed_token *next, struct fed_token *after)
{
	struct query_error ignored;

	if (fed_lex(&ahead, next, &ignored) != QUERY_OK)
		next->kind = FED_REF;
	if (after != NULL && fed_lex(&ahead, after, &ignored) != QUERY_OK)
		after->kind = FED_REF;
}

/* ---- frames */

static enum query_code push_frame(struct scan *s, enum federated_place place)
{
	if (s->depth + 1 >= FEDERATION_DEPTH_MAX)
		return query_error_set(s->error, QUERY_SQL_ERROR, "parentheses are nested too deeply (at most %d)",
				       FEDERATION_DEPTH_MAX);
	if (!grow((void **)&s->frames, &s->frame_room, s->depth + 1, sizeof(*s->frames)))
		return out_of_memory(s);
	s->depth++;
	*frame_of(s) = (struct frame){.start = (size_t)(s->token.end - s->sql),
				      .first_ref = s->f->ref_count,
				      .cte_base = s->cte_count,
				      .outer_most = SIZE_MAX,
				      .place = place,
				      .in_from = place == FEDERATED_FROM,
				      .expect = place == FEDERATED_FROM};
	return QUERY_OK;
}

static enum query_code open_parenthesis(struct scan *s)
{
	struct frame *f = frame_of(s);

	if (f->with == WITH_BODY) {
		f->with = WITH_AFTER_BODY;
		return push_frame(s, FEDERATED_CTE);
	}
	if (!f->expect)
		return push_frame(s, FEDERATED_EXPR);
	f->expect = false;
	return push_frame(s, FEDERATED_FROM);
}

static bool same_address(const struct federation *f, size_t first, size_t count)
{
	size_t i;

	for (i = 1; i < count; i++)
		if (strcmp(f->refs[first].address, f->refs[first + i].address) != 0)
			return false;
	return count > 0;
}

/* The frame that closes may be a query to ship. It takes the place of those within it. */
static enum query_code note_query(struct scan *s, size_t end)
{
	const struct frame *frame = frame_of(s);
	struct federation *f = s->f;
	size_t count = f->ref_count - frame->first_ref;

	if (!frame->is_select || frame->local || frame->outer_most < s->depth ||
	    !same_address(f, frame->first_ref, count))
		return QUERY_OK;
	while (f->query_count > 0 && f->queries[f->query_count - 1].start >= frame->start)
		f->query_count--;
	if (!grow((void **)&f->queries, &s->query_room, f->query_count, sizeof(*f->queries)))
		return out_of_memory(s);
	f->queries[f->query_count++] = (struct federated_query){.start = frame->start,
								.end = end,
								.first_ref = frame->first_ref,
								.ref_count = count,
								.statement = f->statement_count - 1,
								.has_params = frame->params,
								.place = frame->place};
	return QUERY_OK;
}

/* What a frame knows, its parent knows. */
static enum query_code close_parenthesis(struct scan *s)
{
	struct frame *frame = frame_of(s), *parent;
	enum query_code code;

	if (s->depth == 0)
		return QUERY_OK; /* one too many: SQLite will say so */
	code = note_query(s, (size_t)(s->token.start - s->sql));
	parent = frame - 1;
	parent->local = parent->local || frame->local;
	parent->params = parent->params || frame->params;
	if (frame->outer_most < parent->outer_most)
		parent->outer_most = frame->outer_most;
	s->cte_count = frame->cte_base;
	s->depth--;
	return code;
}

/* ---- WITH */

/* WITH [RECURSIVE] name (… or WITH [RECURSIVE] name AS: it begins a clause, and is no name. */
static bool begins_with_clause(const struct scan *s)
{
	struct fed_lexer ahead = s->lexer;
	struct fed_token name, after;

	if (!is_word(s, "WITH"))
		return false;
	look_ahead(ahead, &name, &after);
	if (fed_is_word(&name, "RECURSIVE") && fed_is_name(&after)) {
		ahead.p = name.end;
		look_ahead(ahead, &name, &after);
	}
	return fed_is_name(&name) && (fed_is_word(&after, "AS") || fed_is_mark(&after, '('));
}

/* True: the token was the clause's own. */
static bool step_with(struct scan *s)
{
	struct frame *f = frame_of(s);
	struct fed_token next;

	switch (f->with) {
	case WITH_NAME:
		look_ahead(s->lexer, &next, NULL);
		if (is_word(s, "RECURSIVE") && fed_is_name(&next) && !fed_is_word(&next, "AS"))
			return true;
		if (fed_is_name(&s->token) && s->cte_count < CTES_MAX)
			s->ctes[s->cte_count++] = (struct cte){s->token, s->depth};
		f->with = WITH_AFTER_NAME;
		return fed_is_name(&s->token);
	case WITH_AFTER_NAME:
		if (!is_word(s, "AS"))
			return false; /* the list of columns, in parentheses */
		f->with = WITH_BODY;
		return true;
	case WITH_BODY:
		return s->token.kind == FED_WORD; /* NOT MATERIALIZED */
	case WITH_AFTER_BODY:
		f->with = fed_is_mark(&s->token, ',') ? WITH_NAME : WITH_NONE;
		return f->with == WITH_NAME;
	case WITH_NONE:
		break;
	}
	return false;
}

/* ---- tables */

static void name_local(struct scan *s)
{
	frame_of(s)->local = true;
	s->statement->names_local = true;
	if (s->target)
		s->statement->writes_local = true;
}

static const struct cte *find_cte(const struct scan *s, const struct fed_token *name)
{
	size_t i;

	for (i = s->cte_count; i > 0; i--)
		if (fed_same_name(&s->ctes[i - 1].name, name))
			return &s->ctes[i - 1];
	return NULL;
}

/* They see their arguments alone. Others (full-text tables, pragma functions) read the database. */
static bool is_pure_function(const struct fed_token *name)
{
	return fed_is_word(name, "json_each") || fed_is_word(name, "json_tree");
}

/* A name where a table is expected. */
static void take_name(struct scan *s)
{
	struct frame *f = frame_of(s);
	const struct cte *cte;
	struct fed_token next;

	look_ahead(s->lexer, &next, NULL);
	cte = fed_is_mark(&next, '.') || s->target ? NULL : find_cte(s, &s->token);
	if (cte != NULL && !fed_is_mark(&next, '('))
		f->outer_most = cte->frame < f->outer_most ? cte->frame : f->outer_most;
	else if (!(fed_is_mark(&next, '(') && is_pure_function(&s->token)) || s->target)
		name_local(s);
}

/* Words that go on after a table; any other one is its alias. */
static bool follows_table(const struct fed_token *t)
{
	static const char *const words[] = {
	    "ON",        "USING",  "WHERE", "GROUP", "HAVING",    "ORDER",   "LIMIT",  "UNION",   "EXCEPT",
	    "INTERSECT", "JOIN",   "LEFT",  "RIGHT", "FULL",      "OUTER",   "INNER",  "CROSS",   "NATURAL",
	    "SET",       "VALUES", "WITH",  "NOT",   "RETURNING", "INDEXED", "WINDOW", "DEFAULT", "SELECT",
	};
	size_t i;

	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (fed_is_word(t, words[i]))
			return true;
	return false;
}

static bool alias_follows(const struct scan *s)
{
	struct fed_token next;

	look_ahead(s->lexer, &next, NULL);
	return fed_is_word(&next, "AS") || (fed_is_name(&next) && !follows_table(&next));
}

/* ---- references */

/* "CREATE VIEW": what the statement is, for messages. */
static void put_statement_name(const struct scan *s, char *out, size_t size)
{
	struct fed_lexer ahead = s->lexer;
	struct fed_token first, second;
	size_t i;

	ahead.p = s->sql + s->statement->start;
	look_ahead(ahead, &first, &second);
	if (fed_is_word(&second, "TEMP") || fed_is_word(&second, "TEMPORARY") || fed_is_word(&second, "UNIQUE")) {
		ahead.p = second.end;
		look_ahead(ahead, &second, NULL);
	}
	snprintf(out, size, "%.*s%s%.*s", (int)(first.end - first.start > 20 ? 20 : first.end - first.start),
		 first.start, second.kind == FED_WORD ? " " : "",
		 second.kind == FED_WORD ? (int)(second.end - second.start > 20 ? 20 : second.end - second.start) : 0,
		 second.start);
	for (i = 0; out[i] != '\0'; i++)
		if (out[i] >= 'a' && out[i] <= 'z')
			out[i] = (char)(out[i] - 32);
}

static enum query_code check_place(struct scan *s, const struct federated_ref *ref)
{
	char what[48], name[FEDERATION_NAME_MAX];

	federation_name(name, sizeof(name), ref);
	if (s->statement->verb == FEDERATED_OTHER || s->trigger) {
		put_statement_name(s, what, sizeof(what));
		return query_error_set(s->error, QUERY_SQL_ERROR,
				       "%s: tables of other nodes may be named in SELECT, INSERT, UPDATE and DELETE, "
				       "not in %s",
				       name, what);
	}
	if (fed_is_mark(&s->before, '.'))
		return query_error_set(s->error, QUERY_SQL_ERROR,
				       "%s: no schema may stand before a table of another node", name);
	if (!frame_of(s)->expect)
		return query_error_set(s->error, QUERY_SQL_ERROR,
				       "%s: a table of another node may stand only where a table's name may; name its "
				       "columns by its alias or the bare table name",
				       name);
	return QUERY_OK;
}

static enum query_code take_ref(struct scan *s)
{
	struct federation *f = s->f;
	struct federated_ref ref;
	enum query_code code = fed_ref_from_token(&ref, &s->token, s->sql, s->error);

	if (code != QUERY_OK)
		return code;
	code = check_place(s, &ref);
	if (code == QUERY_OK && f->ref_count == FEDERATION_REFS_MAX)
		code = query_error_set(s->error, QUERY_SQL_ERROR,
				       "more than %d tables of other nodes are named in one text", FEDERATION_REFS_MAX);
	if (code == QUERY_OK && !grow((void **)&f->refs, &s->ref_room, f->ref_count, sizeof(*f->refs)))
		code = out_of_memory(s);
	if (code != QUERY_OK) {
		free(ref.table);
		return code;
	}
	ref.statement = f->statement_count - 1;
	ref.written = s->target;
	ref.is_operand = s->operand;
	ref.has_alias = !s->operand && alias_follows(s);
	f->refs[f->ref_count++] = ref;
	s->statement->ref_count++;
	frame_of(s)->expect = false;
	s->target = false;
	return QUERY_OK;
}

/* ---- words */

static bool ends_from_clause(const struct scan *s)
{
	static const char *const words[] = {"WHERE",  "GROUP",     "HAVING", "ORDER",     "LIMIT", "UNION",
					    "EXCEPT", "INTERSECT", "SET",    "RETURNING", "VALUES"};
	struct fed_token next, after;
	size_t i;

	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (is_word(s, words[i]))
			return true;
	if (!is_word(s, "WINDOW"))
		return false;
	look_ahead(s->lexer, &next, &after);
	return fed_is_name(&next) && fed_is_word(&after, "AS");
}

/* IS [NOT] DISTINCT FROM compares. */
static bool is_comparing_from(const struct scan *s)
{
	return fed_is_word(&s->before, "DISTINCT") &&
	       (fed_is_word(&s->before2, "IS") || fed_is_word(&s->before2, "NOT"));
}

static void expect_table(struct scan *s, bool target)
{
	frame_of(s)->expect = true;
	s->operand = false;
	s->target = target && s->depth == 0 && !s->target_seen;
	s->target_seen = s->target_seen || s->target;
}

/* A word where no table is expected. */
static void step_word(struct scan *s)
{
	struct frame *f = frame_of(s);
	struct fed_token next;

	if (is_word(s, "SELECT") || is_word(s, "VALUES")) {
		f->is_select = true;
		f->in_from = false;
	} else if (is_word(s, "FROM") && !is_comparing_from(s)) {
		f->in_from = true;
		expect_table(s, fed_is_word(&s->verb, "DELETE"));
	} else if (is_word(s, "JOIN")) {
		f->in_from = true;
		expect_table(s, false);
	} else if (is_word(s, "INTO")) {
		expect_table(s, true);
	} else if (is_word(s, "IN")) {
		look_ahead(s->lexer, &next, NULL);
		if (!fed_is_mark(&next, '(')) {
			expect_table(s, false);
			s->operand = true;
		}
	} else if (ends_from_clause(s)) {
		f->in_from = false;
	} else if (begins_with_clause(s)) {
		f->with = WITH_NAME;
	}
}

/* The word a statement is known by. */
static void take_verb(struct scan *s)
{
	struct federated_statement *st = s->statement;

	s->verb_seen = true;
	s->verb = s->token;
	if (is_word(s, "UPDATE"))
		expect_table(s, true);
	if (st->verb == FEDERATED_EXPLAIN || st->verb == FEDERATED_PLAN)
		return;
	if (is_word(s, "SELECT") || is_word(s, "VALUES"))
		st->verb = FEDERATED_READ;
	else if (is_word(s, "INSERT") || is_word(s, "REPLACE") || is_word(s, "UPDATE") || is_word(s, "DELETE"))
		st->verb = FEDERATED_WRITE;
}

/* In a statement before its verb: EXPLAIN and its words, WITH, the verb. */
static void step_before_verb(struct scan *s)
{
	struct federated_statement *st = s->statement;

	if (is_word(s, "EXPLAIN")) {
		st->verb = FEDERATED_EXPLAIN;
	} else if (st->verb == FEDERATED_EXPLAIN && (is_word(s, "QUERY") || is_word(s, "PLAN"))) {
		return;
	} else if (fed_is_word(&s->before, "EXPLAIN") && is_word(s, "FEDERATED")) {
		st->verb = FEDERATED_PLAN;
		st->body = (size_t)(s->token.end - s->sql);
	} else if (begins_with_clause(s)) {
		frame_of(s)->with = WITH_NAME;
		if (st->verb == FEDERATED_OTHER)
			st->verb = FEDERATED_READ; /* unless it turns out to write */
	} else {
		take_verb(s);
		step_word(s);
	}
}

/* A table is expected and this is what came. */
static void step_expecting(struct scan *s)
{
	struct frame *f = frame_of(s);

	if (is_word(s, "SELECT") || is_word(s, "VALUES") || begins_with_clause(s)) {
		f->expect = false;
		f->in_from = false;
		step_word(s);
	} else if (s->target && is_word(s, "OR")) {
		return; /* UPDATE OR IGNORE t */
	} else if (s->target && fed_is_word(&s->before, "OR") && s->token.kind == FED_WORD) {
		return;
	} else {
		if (fed_is_name(&s->token))
			take_name(s);
		f->expect = false;
		s->target = false;
	}
}

/* ---- statements */

static enum query_code begin_statement(struct scan *s)
{
	struct federation *f = s->f;
	size_t at = (size_t)(s->token.start - s->sql);

	if (!grow((void **)&f->statements, &s->statement_room, f->statement_count, sizeof(*f->statements)))
		return out_of_memory(s);
	s->statement = &f->statements[f->statement_count++];
	*s->statement =
	    (struct federated_statement){.start = at, .body = at, .verb = FEDERATED_OTHER, .first_ref = f->ref_count};
	s->depth = 0;
	s->cte_count = 0;
	s->frames[0] = (struct frame){.start = at, .first_ref = f->ref_count, .outer_most = SIZE_MAX};
	s->verb = (struct fed_token){.kind = FED_END};
	s->verb_seen = s->target = s->target_seen = s->trigger = false;
	return QUERY_OK;
}

static void end_statement(struct scan *s)
{
	struct federated_statement *st = s->statement;

	st->end = (size_t)(s->token.start - s->sql);
	st->one_address = same_address(s->f, st->first_ref, st->ref_count);
	s->statement = NULL;
}

/* A semicolon, or the end of the text. */
static void step_semicolon(struct scan *s)
{
	if (s->statement == NULL)
		return;
	if (s->trigger && s->token.kind != FED_END &&
	    !(fed_is_word(&s->before, "END") && fed_is_mark(&s->before2, ';')))
		return;
	end_statement(s);
}

static enum query_code step(struct scan *s)
{
	struct frame *f = frame_of(s);

	if (s->token.kind == FED_REF)
		return take_ref(s);
	if (step_with(s))
		return QUERY_OK;
	if (fed_is_mark(&s->token, '(')) {
		s->target = false;
		return open_parenthesis(s);
	}
	if (fed_is_mark(&s->token, ')'))
		return close_parenthesis(s);
	if (s->token.kind == FED_VARIABLE)
		f->params = true;
	if (f->expect)
		step_expecting(s);
	else if (fed_is_mark(&s->token, ',') && f->in_from)
		expect_table(s, false);
	else if (s->token.kind == FED_WORD && s->depth == 0 && !s->verb_seen)
		step_before_verb(s);
	else if (s->token.kind == FED_WORD)
		step_word(s);
	if (is_word(s, "TRIGGER") && fed_is_word(&s->verb, "CREATE") &&
	    (fed_is_word(&s->before, "CREATE") || fed_is_word(&s->before, "TEMP") ||
	     fed_is_word(&s->before, "TEMPORARY")))
		s->trigger = true;
	return QUERY_OK;
}

static enum query_code scan_all(struct scan *s)
{
	enum query_code code;

	for (;;) {
		code = fed_lex(&s->lexer, &s->token, s->error);
		if (code == QUERY_OK && s->token.kind != FED_END && !fed_is_mark(&s->token, ';') &&
		    s->statement == NULL)
			code = begin_statement(s);
		if (code != QUERY_OK)
			return code;
		if (s->token.kind == FED_END || fed_is_mark(&s->token, ';'))
			step_semicolon(s);
		else
			code = step(s);
		if (code != QUERY_OK || s->token.kind == FED_END)
			return code;
		s->before2 = s->before;
		s->before = s->token;
	}
}

enum query_code federation_scan(struct federation **out, const char *sql, size_t len, struct query_error *error)
{
	struct scan *s = calloc(1, sizeof(*s));
	enum query_code code = QUERY_OK;

	*out = NULL;
	if (s != NULL) {
		s->f = calloc(1, sizeof(*s->f));
		s->frames = calloc(8, sizeof(*s->frames));
		s->frame_room = 8;
	}
	if (s == NULL || s->f == NULL || s->frames == NULL)
		code = query_error_set(error, QUERY_INTERNAL, "out of memory");
	if (code == QUERY_OK) {
		s->sql = sql;
		s->lexer = (struct fed_lexer){sql, sql + len};
		s->error = error;
		code = scan_all(s);
	}
	if (code == QUERY_OK && s->f->ref_count > 0) {
		*out = s->f;
		s->f = NULL;
	}
	if (s != NULL) {
		federation_free(s->f);
		free(s->frames);
	}
	free(s);
	return code;
}

void federation_free(struct federation *f)
{
	size_t i;

	if (f == NULL)
		return;
	for (i = 0; i < f->ref_count; i++)
		free(f->refs[i].table);
	free(f->refs);
	free(f->queries);
	free(f->statements);
	free(f);
}

/* ---- rewriting */

void federation_rewrite(struct buf *out, const struct federation *f, const char *sql, size_t start, size_t end,
			federation_put_fn put, void *arg)
{
	size_t at = start, i;

	for (i = 0; i < f->ref_count; i++) {
		const struct federated_ref *ref = &f->refs[i];

		if (ref->start < start || ref->end > end)
			continue;
		buf_put(out, sql + at, ref->start - at);
		put(arg, out, ref);
		at = ref->end;
	}
	buf_put(out, sql + at, end - at);
}

void federation_put_identifier(struct buf *out, const char *name, size_t len)
{
	const char *quote, *end = name + len;

	buf_put_u8(out, '"');
	while ((quote = memchr(name, '"', (size_t)(end - name))) != NULL) {
		buf_put(out, name, (size_t)(quote + 1 - name));
		buf_put_u8(out, '"');
		name = quote + 1;
	}
	buf_put(out, name, (size_t)(end - name));
	buf_put_u8(out, '"');
}

void federation_put_shipped(void *arg, struct buf *out, const struct federated_ref *ref)
{
	(void)arg;
	buf_puts(out, "main.");
	federation_put_identifier(out, ref->table, ref->table_len);
}

void federation_put_local(void *arg, struct buf *out, const struct federated_ref *ref)
{
	struct buf name = {0};

	(void)arg;
	buf_puts(&name, ref->address);
	buf_put_u8(&name, '@');
	buf_put(&name, ref->table, ref->table_len);
	federation_put_identifier(out, (const char *)name.data, name.len);
	out->failed = out->failed || name.failed;
	buf_fini(&name);
	if (ref->has_alias || ref->is_operand)
		return;
	buf_puts(out, " AS ");
	federation_put_identifier(out, ref->table, ref->table_len);
}

void federation_name(char *out, size_t size, const struct federated_ref *ref)
{
	if (snprintf(out, size, "%s@%.*s", ref->address, ref->table_len > 100 ? 100 : (int)ref->table_len,
		     ref->table) >= (int)size)
		out[size - 1] = '\0';
}

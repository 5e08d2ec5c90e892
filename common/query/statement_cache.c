/*
 * statement_cache.c - see statement_cache.h. A hash table of scripts (one per SQL text) with a list by last use.
 *
 * Invariants: (1) the script of the current walk is pinned: it is never dropped before script_walk_end(); (2) statements
 * counts those of all scripts in the table; (3) a script that is not in the table is owned by its walk; (4) an EXPLAIN is
 * not kept beyond its walk: SQLite lists it without looking whether the schema has changed, and names in the list
 * point into the old one.
 */
#include "common/query/statement_cache.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/query/receipts.h"
#include "common/query/sql_text.h"

struct script {
	struct script *newer, *older; /* by last use */
	struct script *chain;         /* next in the same bucket */
	uint64_t hash;
	bool cached;      /* in the table */
	bool explains;    /* one of statements[] is an EXPLAIN */
	size_t kept;      /* of statements[] */
	const char *rest; /* text behind the kept statements */
	struct statement statements[SCRIPT_STATEMENTS_KEPT];
	size_t len;
	char sql[]; /* len bytes and a NUL */
};

struct statement_cache {
	sqlite3 *db;                   /* borrowed */
	struct authorizer *authorizer; /* borrowed */
	size_t statements_max;
	size_t statements;
	struct script *newest, *oldest;
	size_t bucket_mask;
	struct script *buckets[];
};

struct statement_cache *statement_cache_create(sqlite3 *db, struct authorizer *authorizer, size_t statements_max)
{
	struct statement_cache *c;
	size_t buckets = 16;

	while (buckets < statements_max && buckets < (size_t)1 << 20)
		buckets *= 2;
	c = calloc(1, sizeof(*c) + buckets * sizeof(c->buckets[0]));
	if (c == NULL)
		return NULL;
	c->db = db;
	c->authorizer = authorizer;
	c->statements_max = statements_max;
	c->bucket_mask = buckets - 1;
	return c;
}

static void statement_fini(struct statement *s)
{
	/* Returns the error of the last step again, which its caller has seen. */
	sqlite3_finalize(s->stmt);
	result_shape_fini(&s->shape);
	memset(s, 0, sizeof(*s));
}

static void script_free(struct script *script)
{
	size_t i;

	for (i = 0; i < script->kept; i++)
		statement_fini(&script->statements[i]);
	free(script);
}

static void unlink_by_use(struct statement_cache *c, struct script *s)
{
	*(s->newer != NULL ? &s->newer->older : &c->newest) = s->older;
	*(s->older != NULL ? &s->older->newer : &c->oldest) = s->newer;
}

static void link_newest(struct statement_cache *c, struct script *s)
{
	s->newer = NULL;
	s->older = c->newest;
	*(c->newest != NULL ? &c->newest->newer : &c->oldest) = s;
	c->newest = s;
}

static void insert(struct statement_cache *c, struct script *s)
{
	struct script **bucket = &c->buckets[s->hash & c->bucket_mask];

	s->chain = *bucket;
	*bucket = s;
	s->cached = true;
	link_newest(c, s);
}

static void drop(struct statement_cache *c, struct script *s)
{
	struct script **at = &c->buckets[s->hash & c->bucket_mask];

	while (*at != s)
		at = &(*at)->chain;
	*at = s->chain;
	unlink_by_use(c, s);
	assert(c->statements >= s->kept); /* (2) */
	c->statements -= s->kept;
	script_free(s);
}

static struct script *find(struct statement_cache *c, uint64_t hash, const char *sql, size_t len)
{
	struct script *s = c->buckets[hash & c->bucket_mask];

	while (s != NULL && (s->hash != hash || s->len != len || memcmp(s->sql, sql, len) != 0))
		s = s->chain;
	return s;
}

void statement_cache_free(struct statement_cache *c)
{
	if (c == NULL)
		return;
	while (c->newest != NULL)
		drop(c, c->newest);
	free(c);
}

size_t statement_cache_count(const struct statement_cache *c)
{
	return c->statements;
}

static struct script *script_create(const char *sql, size_t len, uint64_t hash)
{
	struct script *s = calloc(1, sizeof(*s) + len + 1);

	if (s == NULL)
		return NULL;
	memcpy(s->sql, sql, len);
	s->len = len;
	s->hash = hash;
	s->rest = sql_skip_blank(s->sql, s->sql + len);
	return s;
}

int script_walk_begin(struct script_walk *w, struct statement_cache *c, const char *sql, size_t len)
{
	uint64_t hash = XXH3_64bits(sql, len);
	struct script *s = find(c, hash, sql, len);

	memset(w, 0, sizeof(*w));
	w->cache = c;
	if (s == NULL) {
		s = script_create(sql, len, hash);
		if (s == NULL)
			return SQLITE_NOMEM;
		if (len <= SCRIPT_BYTES_KEPT)
			insert(c, s);
	} else if (s != c->newest) {
		unlink_by_use(c, s);
		link_newest(c, s);
	}
	w->script = s;
	w->next = s->rest;
	return SQLITE_OK;
}

/*
 * SQLite says what only reads (sqlite3_stmt_readonly()), the verb what is more than rows: no INSERT, UPDATE, DELETE
 * or WITH changes the schema. The actions that the authorizer is asked about would not do: virtual tables prepare
 * statements of their own that write (an R-tree when it is first named, in a SELECT), and nothing tells those from
 * the client's.
 */
static enum auth_role needed_role(const struct statement *s, enum sql_verb verb)
{
	if (verb == SQL_VERB_OTHER || verb == SQL_VERB_VACUUM || s->pragma_writes)
		return AUTH_ADMIN;
	return s->writes ? AUTH_WRITE : AUTH_READ;
}

/* What the prepared statement at sql does; SQLITE_AUTH for what only its text gives away. */
static int examine(struct statement_cache *c, struct statement *s, const char *sql, const char *end)
{
	enum sql_verb verb = sql_verb(sql, end);
	bool readonly = sqlite3_stmt_readonly(s->stmt) != 0;

	s->needs = AUTH_READ;
	if (sqlite3_stmt_isexplain(s->stmt) != 0)
		return SQLITE_OK; /* only lists what it would do */
	if (verb == SQL_VERB_VACUUM_INTO) {
		sqlite3_snprintf(sizeof(c->authorizer->reason), c->authorizer->reason,
				 "VACUUM INTO is not allowed: it writes a file on the server");
		return SQLITE_AUTH;
	}
	/* What a foreign key refers to, and what a table is renamed to, no authorizer is told. */
	if (verb == SQL_VERB_OTHER && sql_has_word(sql, end, RECEIPTS_PREFIX)) {
		sqlite3_snprintf(sizeof(c->authorizer->reason), c->authorizer->reason, "%s", AUTHORIZER_OURS);
		return SQLITE_AUTH;
	}
	s->pragma_writes = c->authorizer->pragma_writes;
	/* DDL counts as writing even when SQLite finds nothing to do (DROP TABLE IF EXISTS): its answer has one shape. */
	s->writes =
	    !readonly || s->pragma_writes || verb == SQL_VERB_DML || verb == SQL_VERB_OTHER || verb == SQL_VERB_VACUUM;
	s->dml = verb == SQL_VERB_DML || (verb == SQL_VERB_WITH && !readonly);
	s->alone = verb == SQL_VERB_VACUUM;
	s->needs = needed_role(s, verb);
	return SQLITE_OK;
}

/* Some errors of sqlite3_prepare(), and any EXPLAIN, may come from a schema that is out of date, and SQLite looks for that
 * itself only where a name was not found ("table t has 2 columns but 1 values were supplied" it takes for granted). Running any statement
 * makes it compare the schema cookie and forget an old schema. */
static void forget_old_schema(struct statement_cache *c)
{
	enum authorizer_phase phase = c->authorizer->phase;
	sqlite3_stmt *stmt;

	c->authorizer->phase = AUTHORIZER_TRUSTED;
	if (sqlite3_prepare_v2(c->db, "SELECT 1 FROM sqlite_schema LIMIT 1", -1, &stmt, NULL) == SQLITE_OK)
		sqlite3_step(stmt); /* if it fails so will the statement that is prepared again */
	sqlite3_finalize(stmt);
	c->authorizer->phase = phase;
}

/* Prepares the statement at *next and moves *next behind it. */
static int prepare(struct script_walk *w, struct statement *s, const char **next, bool keep)
{
	struct statement_cache *c = w->cache;
	const char *sql = *next;
	const char *end = w->script->sql + w->script->len;
	const char *tail = NULL;
	unsigned flags = keep ? SQLITE_PREPARE_PERSISTENT : 0;
	int rc;

	memset(s, 0, sizeof(*s));
	if (end - sql >= INT_MAX)
		return SQLITE_TOOBIG;
	authorizer_enter(c->authorizer, AUTHORIZER_PREPARE);
	/* The length includes the NUL, which spares SQLite a copy. */
	rc = sqlite3_prepare_v3(c->db, sql, (int)(end - sql) + 1, flags, &s->stmt, &tail);
	if (rc == SQLITE_ERROR || (rc == SQLITE_OK && sqlite3_stmt_isexplain(s->stmt) != 0)) {
		sqlite3_finalize(s->stmt);
		forget_old_schema(c);
		rc = sqlite3_prepare_v3(c->db, sql, (int)(end - sql) + 1, flags, &s->stmt, &tail);
	}
	if (rc == SQLITE_OK && s->stmt == NULL)
		rc = SQLITE_MISUSE; /* sql_skip_blank() says there is a statement and SQLite says there is none */
	if (rc == SQLITE_OK)
		rc = examine(c, s, sql, tail);
	c->authorizer->phase = AUTHORIZER_STEP;
	if (rc != SQLITE_OK) {
		statement_fini(s);
		return rc;
	}
	*next = sql_skip_blank(tail, end);
	s->last = *next == end;
	return SQLITE_OK;
}

static int prepare_kept(struct script_walk *w)
{
	struct script *script = w->script;
	int rc = prepare(w, &script->statements[script->kept], &script->rest, true);

	w->next = script->rest;
	if (rc != SQLITE_OK)
		return rc;
	script->explains = script->explains || sqlite3_stmt_isexplain(script->statements[script->kept].stmt) != 0;
	script->kept++;
	w->cache->statements++;
	return SQLITE_OK;
}

static int prepare_passing(struct script_walk *w, struct statement **out)
{
	int rc = prepare(w, &w->passing, &w->next, false);

	*out = rc == SQLITE_OK ? &w->passing : NULL;
	return rc;
}

int script_walk_next(struct script_walk *w, struct statement **out)
{
	struct script *script = w->script;
	int rc;

	*out = NULL;
	if (w->passing.stmt != NULL)
		statement_fini(&w->passing);
	if (w->index == script->kept) {
		if (w->next == script->sql + script->len)
			return SQLITE_OK;
		if (!script->cached || script->kept == SCRIPT_STATEMENTS_KEPT)
			return prepare_passing(w, out);
		rc = prepare_kept(w);
		if (rc != SQLITE_OK)
			return rc;
	}
	*out = &script->statements[w->index++];
	return SQLITE_OK;
}

void script_walk_end(struct script_walk *w)
{
	struct statement_cache *c = w->cache;

	statement_fini(&w->passing);
	if (!w->script->cached)
		script_free(w->script); /* (3) */
	else if (w->script->kept == 0 || w->script->explains)
		drop(c, w->script); /* nothing of it could be prepared, or (4) */
	w->script = NULL;
	while (c->statements > c->statements_max)
		drop(c, c->oldest);
}

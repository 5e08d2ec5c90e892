/* test_roles.c - which role each kind of statement needs, wherever it is looked at, and what nobody may do at all. */
#include "common/query/sql_functions.h"

#include "tests/unit/query_fixture.h"

static const struct {
	const char *sql;
	enum auth_role needs;
} statements[] = {
    {"SELECT 1", AUTH_READ},
    {"VALUES (1), (2)", AUTH_READ},
    {"SELECT a FROM t WHERE b = 1", AUTH_READ},
    {"WITH c AS (SELECT 1) SELECT * FROM c", AUTH_READ},
    {"SELECT * FROM f WHERE f MATCH 'x'", AUTH_READ},
    {"SELECT * FROM r WHERE x0 > 1", AUTH_READ},
    {"SELECT * FROM v", AUTH_READ},
    {"SELECT * FROM json_each('[1]')", AUTH_READ},
    {"PRAGMA table_info(t)", AUTH_READ},
    {"SELECT * FROM pragma_table_info('t')", AUTH_READ},
    {"PRAGMA user_version", AUTH_READ},
    {"PRAGMA integrity_check", AUTH_READ},
    {"EXPLAIN SELECT 1", AUTH_READ},
    {"EXPLAIN QUERY PLAN DELETE FROM t", AUTH_READ},
    {"EXPLAIN DROP TABLE t", AUTH_READ},
    {"INSERT INTO t VALUES (1, 2)", AUTH_WRITE},
    {"INSERT INTO t SELECT 3, 4", AUTH_WRITE},
    {"INSERT INTO t VALUES (5, 2) RETURNING a", AUTH_WRITE},
    {"REPLACE INTO t VALUES (1, 2)", AUTH_WRITE},
    {"UPDATE t SET b = 3", AUTH_WRITE},
    {"DELETE FROM t WHERE a = 77", AUTH_WRITE},
    {"WITH c AS (SELECT 1) DELETE FROM t WHERE a = 77", AUTH_WRITE},
    {"WITH c AS (SELECT 1) INSERT INTO t SELECT 9, 9", AUTH_WRITE},
    {"/* SELECT */ UPDATE t SET b = 4", AUTH_WRITE},
    {"INSERT INTO f VALUES ('some words')", AUTH_WRITE},
    {"INSERT INTO f(f) VALUES ('optimize')", AUTH_WRITE},
    {"INSERT INTO r VALUES (1, 0, 1)", AUTH_WRITE},
    {"INSERT INTO v VALUES (8)", AUTH_WRITE}, /* through a trigger */
    {"CREATE TABLE n(a)", AUTH_ADMIN},
    {"CREATE TABLE IF NOT EXISTS t(a)", AUTH_ADMIN},
    {"CREATE TABLE n2 AS SELECT * FROM t", AUTH_ADMIN},
    {"CREATE INDEX i ON t(b)", AUTH_ADMIN},
    {"CREATE VIEW v2 AS SELECT 1", AUTH_ADMIN},
    {"CREATE TRIGGER g2 AFTER INSERT ON t BEGIN SELECT 1; END", AUTH_ADMIN},
    {"CREATE VIRTUAL TABLE f2 USING fts5(x)", AUTH_ADMIN},
    {"ALTER TABLE t ADD COLUMN c", AUTH_ADMIN},
    {"ALTER TABLE t RENAME COLUMN c TO d", AUTH_ADMIN},
    {"ALTER TABLE t DROP COLUMN d", AUTH_ADMIN},
    {"DROP INDEX i", AUTH_ADMIN},
    {"DROP VIEW v2", AUTH_ADMIN},
    {"DROP TABLE f2", AUTH_ADMIN},
    {"DROP TABLE IF EXISTS nothing_here", AUTH_ADMIN},
    {"ANALYZE", AUTH_ADMIN},
    {"REINDEX", AUTH_ADMIN},
    {"PRAGMA user_version = 4", AUTH_ADMIN},
    {"PRAGMA optimize", AUTH_ADMIN},
    {"PRAGMA incremental_vacuum", AUTH_ADMIN},
};

#define STATEMENT_COUNT (sizeof(statements) / sizeof(statements[0]))

static void make_things(struct query_fixture *b)
{
	fixture_init(b);
	fixture_write_ok(b, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE VIRTUAL TABLE f USING fts5(x); "
			    "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1); CREATE VIEW v AS SELECT a FROM t; "
			    "CREATE TRIGGER g INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES (new.a, 0); END");
}

static struct query_request *request_of(const char *sql, enum auth_role role)
{
	char *body = fixture_body(sql, "rows");
	struct query_request *r = fixture_parse(body);

	r->role = role;
	free(body);
	return r;
}

static void assert_says(const struct query_error *error, const char *sql, enum auth_role needs, enum auth_role role)
{
	CU_ASSERT_EQUAL(error->code, QUERY_FORBIDDEN);
	CU_ASSERT_PTR_NOT_NULL(strstr(error->message, auth_role_name(needs)));
	CU_ASSERT_PTR_NOT_NULL(strstr(error->message, auth_role_name(role)));
	if (error->code != QUERY_FORBIDDEN)
		fprintf(stderr, "%s as %s: %s\n", sql, auth_role_name(role), error->message);
}

/* Where a request belongs, as the worker asks: with cold and with warm statements, whoever came first. */
static void test_classifying_asks_for_the_role(void)
{
	struct query_fixture b;
	struct query_request *r;
	enum query_kind kind;
	size_t i;
	int role;

	make_things(&b);
	for (i = 0; i < STATEMENT_COUNT; i++) {
		for (role = AUTH_ADMIN; role >= AUTH_NONE; role--) {
			r = request_of(statements[i].sql, (enum auth_role)role);
			memset(&b.error, 0, sizeof(b.error));
			/* Some need what an earlier one makes; none of them is run here. */
			if (query_classify(b.reader, r, &kind, &b.error) == QUERY_SQL_ERROR) {
				CU_ASSERT_EQUAL(statements[i].needs, AUTH_ADMIN);
			} else if ((enum auth_role)role < statements[i].needs) {
				assert_says(&b.error, statements[i].sql, statements[i].needs, (enum auth_role)role);
			} else {
				CU_ASSERT_EQUAL(b.error.code, QUERY_OK);
				CU_ASSERT_EQUAL(kind == QUERY_KIND_READ, statements[i].needs == AUTH_READ);
			}
			query_request_free(r);
		}
	}
	fixture_fini(&b);
}

/* The writer asks again: a request may come to it unclassified, or with more behind the first statement that writes. */
static void test_writing_asks_for_the_role(void)
{
	char both[256];
	struct query_fixture b;
	struct query_request *r;
	struct errmsg em = {0};
	uint64_t changes;
	size_t i;
	int role;

	make_things(&b);
	UNIT_OK(query_batch_begin(b.writer, &em), &em);
	for (i = 0; i < STATEMENT_COUNT; i++) {
		for (role = AUTH_NONE; role <= AUTH_ADMIN; role++) {
			r = request_of(statements[i].sql, (enum auth_role)role);
			changes = (uint64_t)sqlite3_total_changes64(b.writer_db);
			buf_clear(&b.out);
			memset(&b.error, 0, sizeof(b.error));
			if ((enum auth_role)role < statements[i].needs) {
				CU_ASSERT_EQUAL(query_write(b.writer, r, 0, &b.out, &b.error, &b.batch_lost),
						QUERY_FORBIDDEN);
				assert_says(&b.error, statements[i].sql, statements[i].needs, (enum auth_role)role);
				CU_ASSERT(!b.batch_lost && b.out.len == 0);
				CU_ASSERT_EQUAL((uint64_t)sqlite3_total_changes64(b.writer_db), changes);
			} else {
				query_write(b.writer, r, 0, &b.out, &b.error, &b.batch_lost);
				CU_ASSERT_NOT_EQUAL(b.error.code, QUERY_FORBIDDEN);
			}
			query_request_free(r);
		}
		if (statements[i].needs != AUTH_ADMIN)
			continue;
		snprintf(both, sizeof(both), "INSERT INTO t(a, b) VALUES (1000, 1); %s", statements[i].sql);
		r = request_of(both, AUTH_WRITE);
		memset(&b.error, 0, sizeof(b.error));
		query_write(b.writer, r, 0, &b.out, &b.error, &b.batch_lost);
		CU_ASSERT(b.error.code == QUERY_FORBIDDEN || b.error.code == QUERY_SQL_ERROR);
		CU_ASSERT_EQUAL(b.error.statement, 1);
		query_request_free(r);
	}
	UNIT_OK(query_batch_commit(b.writer, &em), &em);
	fixture_read_is(&b, "{\"sql\":\"SELECT count(*) AS n FROM t WHERE a = 1000\"}",
			"{\"status\":\"ok\",\"columns\":[\"n\"],\"types\":[\"\"],\"rows\":[[0]]");
	fixture_fini(&b);
}

static void test_vacuum_is_the_admins(void)
{
	struct query_fixture b;
	struct query_request *r;
	int role;

	make_things(&b);
	for (role = AUTH_NONE; role <= AUTH_ADMIN; role++) {
		r = request_of("VACUUM", (enum auth_role)role);
		buf_clear(&b.out);
		memset(&b.error, 0, sizeof(b.error));
		CU_ASSERT_EQUAL(query_write(b.writer, r, 0, &b.out, &b.error, &b.batch_lost),
				role == AUTH_ADMIN ? QUERY_OK : QUERY_FORBIDDEN);
		query_request_free(r);
	}
	fixture_fini(&b);
}

/* What a text needs that cannot be prepared any more. */
static void test_roles_by_the_text_alone(void)
{
	static const struct {
		const char *sql;
		enum auth_role needs;
	} texts[] = {
	    {"INSERT INTO t VALUES (1)", AUTH_WRITE},
	    {"INSERT INTO t VALUES ('; DROP TABLE t')", AUTH_WRITE},
	    {"INSERT INTO \"a;create\" VALUES (1) -- ; DROP TABLE t", AUTH_WRITE},
	    {"SELECT 1; WITH c AS (SELECT 1) DELETE FROM t; ; ", AUTH_WRITE},
	    {"DELETE FROM t; PRAGMA table_info(t)", AUTH_WRITE},
	    {"DROP TABLE t", AUTH_ADMIN},
	    {"INSERT INTO t VALUES (1);/* */ ;\n create table x(a)", AUTH_ADMIN},
	    {"SELECT ';'; VACUUM", AUTH_ADMIN},
	    {"DELETE FROM t; whatever this is", AUTH_ADMIN},
	    {"CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM t; END", AUTH_ADMIN},
	};
	struct query_request *r;
	size_t i;

	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		r = request_of(texts[i].sql, AUTH_READ);
		CU_ASSERT_EQUAL(query_text_role(r), texts[i].needs);
		if (query_text_role(r) != texts[i].needs)
			fprintf(stderr, "%s\n", texts[i].sql);
		query_request_free(r);
	}
}

static void test_request_without_a_role_may_nothing(void)
{
	const struct query_request_limits request_limits = {0, 0};
	const struct query_read_limits limits = {0};
	static const char body[] = "{\"sql\":\"SELECT 1\"}";
	struct query_request *r;
	struct query_fixture b;

	fixture_init(&b);
	CU_ASSERT_EQUAL_FATAL(query_request_parse(&r, body, strlen(body), &request_limits, &b.error), QUERY_OK);
	CU_ASSERT_EQUAL(query_read(b.reader, r, &limits, NULL, 0, &b.out, &b.error), QUERY_FAILED);
	CU_ASSERT_EQUAL(b.error.code, QUERY_FORBIDDEN);
	query_request_free(r);
	fixture_fini(&b);
}

/* What reaches out of the database, or into SQLite's own tables in it. An admin's role does not help. */
static void test_what_nobody_may_do(void)
{
	static const struct {
		const char *sql;
		enum query_code code;
	} denied[] = {
	    {"ATTACH 'x.db' AS x", QUERY_FORBIDDEN},
	    {"ATTACH ':memory:' AS x", QUERY_FORBIDDEN},
	    {"DETACH main", QUERY_FORBIDDEN},
	    {"VACUUM INTO 'x.db'", QUERY_FORBIDDEN},
	    {"SELECT load_extension('x')", QUERY_FORBIDDEN},
	    {"SELECT load_extension('x', 'y')", QUERY_FORBIDDEN},
	    {"SELECT fts3_tokenizer('simple')", QUERY_FORBIDDEN},
	    {"SELECT sqlite_log(1, 'a line of somebody else''s')", QUERY_FORBIDDEN},
	    {"SELECT readfile('/etc/passwd')", QUERY_SQL_ERROR}, /* where SQLite has it: FORBIDDEN */
	    {"SELECT writefile('x', 'y')", QUERY_SQL_ERROR},
	    {"SELECT edit('x')", QUERY_SQL_ERROR},
	    {"SELECT * FROM zipfile('x.zip')", QUERY_SQL_ERROR},
	    {"SELECT * FROM fsdir('/')", QUERY_SQL_ERROR},
	    {"SELECT * FROM sqlite_dbpage", QUERY_SQL_ERROR},
	    {"SELECT * FROM sqlite_stmt", QUERY_FORBIDDEN},
	    {"CREATE VIRTUAL TABLE x USING csv(filename='/etc/passwd')", QUERY_FORBIDDEN},
	    {"CREATE VIRTUAL TABLE x USING zipfile('x.zip')", QUERY_FORBIDDEN},
	    {"CREATE VIRTUAL TABLE temp.x USING fts5(a)", QUERY_FORBIDDEN},
	    {"PRAGMA writable_schema = 1", QUERY_FORBIDDEN},
	    {"PRAGMA trusted_schema = 1", QUERY_FORBIDDEN},
	    {"PRAGMA journal_mode = DELETE", QUERY_FORBIDDEN},
	    {"PRAGMA temp_store_directory = '/tmp'", QUERY_FORBIDDEN},
	    {"PRAGMA data_store_directory = '/tmp'", QUERY_FORBIDDEN},
	    {"PRAGMA database_list", QUERY_FORBIDDEN},
	    {"PRAGMA query_only = 0", QUERY_FORBIDDEN},
	    {"PRAGMA ignore_check_constraints = 1", QUERY_FORBIDDEN},
	    {"PRAGMA foreign_keys = 0", QUERY_FORBIDDEN},
	    {"PRAGMA hard_heap_limit = 1", QUERY_FORBIDDEN},
	    {"PRAGMA key = 'x'", QUERY_FORBIDDEN},
	    {"SELECT * FROM pragma_database_list", QUERY_FORBIDDEN},
	    {"UPDATE sqlite_schema SET sql = ''", QUERY_SQL_ERROR},
	    {"DELETE FROM sqlite_sequence", QUERY_SQL_ERROR}, /* there is none here */
	    {"INSERT INTO sqlite_schema VALUES (1, 2, 3, 4, 5)", QUERY_SQL_ERROR},
	    {"INSERT INTO f_data VALUES (1, 'x')", QUERY_SQL_ERROR},
	    {"DELETE FROM f_config", QUERY_SQL_ERROR},
	    {"DROP TABLE f_content", QUERY_SQL_ERROR},
	    {"UPDATE r_node SET data = x'00'", QUERY_SQL_ERROR},
	    {"DELETE FROM r_rowid", QUERY_SQL_ERROR},
	    {"DROP TABLE r_parent", QUERY_SQL_ERROR},
	    {"ALTER TABLE f_data RENAME TO mine", QUERY_SQL_ERROR},
	};
	struct query_fixture b;
	struct query_request *r;
	struct errmsg em = {0};
	enum query_code code;
	size_t i;

	make_things(&b);
	UNIT_OK(query_batch_begin(b.writer, &em), &em);
	for (i = 0; i < sizeof(denied) / sizeof(denied[0]); i++) {
		r = request_of(denied[i].sql, AUTH_ADMIN);
		buf_clear(&b.out);
		code = query_write(b.writer, r, 0, &b.out, &b.error, &b.batch_lost);
		CU_ASSERT(code == denied[i].code || code == QUERY_FORBIDDEN);
		if (code != denied[i].code)
			fprintf(stderr, "%s: %s %s\n", denied[i].sql, query_code_name(code), b.error.message);
		query_request_free(r);
	}
	UNIT_OK(query_batch_commit(b.writer, &em), &em);
	fixture_fini(&b);
}

/* Each function of the installed SQLite is on the list, or one of those that are refused on purpose. */
static void test_every_function_was_looked_at(void)
{
	static const char *const refused[] = {
	    "load_extension", "fts3_tokenizer", "sqlite_log", "readfile", "writefile",
	    "edit",           "lsmode",         "zipfile",    "fsdir",    "shell_add_schema"};
	sqlite3_stmt *stmt;
	sqlite3 *db;
	size_t i;
	int known = 0;

	CU_ASSERT_EQUAL_FATAL(sqlite3_open(":memory:", &db), SQLITE_OK);
	CU_ASSERT_EQUAL_FATAL(sqlite3_prepare_v2(db, "SELECT DISTINCT name FROM pragma_function_list", -1, &stmt, NULL),
			      SQLITE_OK);
	while (sqlite3_step(stmt) == SQLITE_ROW) {
		const char *name = (const char *)sqlite3_column_text(stmt, 0);
		bool on_purpose = false;

		for (i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
			on_purpose = on_purpose || strcmp(name, refused[i]) == 0;
		known++;
		CU_ASSERT_EQUAL(sql_function_allowed(name), !on_purpose);
		if (sql_function_allowed(name) == on_purpose)
			fprintf(stderr, "function %s()\n", name);
	}
	sqlite3_finalize(stmt);
	sqlite3_close(db);
	CU_ASSERT(known > 50);
	CU_ASSERT(sql_function_allowed("UPPER") && !sql_function_allowed("ReadFile") && !sql_function_allowed(""));
	CU_ASSERT(!sql_function_allowed("SQLITE_LOG"));
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"classifying asks for the role", test_classifying_asks_for_the_role},
	    {"writing asks for the role", test_writing_asks_for_the_role},
	    {"VACUUM is the admin's", test_vacuum_is_the_admins},
	    {"roles by the text alone", test_roles_by_the_text_alone},
	    {"a request without a role may nothing", test_request_without_a_role_may_nothing},
	    {"what nobody may do", test_what_nobody_may_do},
	    {"every function was looked at", test_every_function_was_looked_at},
	    {NULL, NULL},
	};

	return unit_run("roles", tests);
}

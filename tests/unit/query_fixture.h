/*
 * query_fixture.h - what the tests of common/query/exec.h share: connections on one WAL-mode file, and one-line requests.
 *
 * Included once by each test program; everything is static, and dies with the program.
 */
#ifndef GRIZZLY_TESTS_UNIT_QUERY_FIXTURE_H
#define GRIZZLY_TESTS_UNIT_QUERY_FIXTURE_H

#include <jansson.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/query/exec.h"
#include "tests/unit/unit.h"

#define QUERY_FIXTURE_LSN 42

/* A reader and a writer on the same database, and the last answer. */
struct query_fixture {
	struct query_conn *reader;
	struct query_conn *writer;
	sqlite3 *reader_db; /* the reader's, to look inside */
	sqlite3 *writer_db;
	struct buf out;
	struct query_error error;
	bool batch_lost;
};

static inline uint64_t fixture_lsn(sqlite3 *db)
{
	(void)db;
	return QUERY_FIXTURE_LSN;
}

static inline struct query_conn *fixture_open(const char *path, size_t cache_max, sqlite3 **db)
{
	const struct query_conn_options options = {.node_id = "node1",
						   .statement_cache_max = cache_max,
						   .result_bytes_max = 100000,
						   .snapshot_lsn = fixture_lsn};
	struct query_conn *c;
	struct errmsg em = {0};

	CU_ASSERT_EQUAL_FATAL(sqlite3_open(path, db), SQLITE_OK);
	CU_ASSERT_EQUAL_FATAL(sqlite3_exec(*db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF", NULL, NULL, NULL),
			      SQLITE_OK);
	UNIT_OK(query_conn_create(&c, *db, &options, &em), &em);
	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	return c;
}

static inline void fixture_init(struct query_fixture *b)
{
	char dir[UNIT_PATH_MAX];
	char path[UNIT_PATH_MAX + 8];

	memset(b, 0, sizeof(*b));
	unit_tmpdir(dir);
	snprintf(path, sizeof(path), "%s/t.db", dir);
	b->writer = fixture_open(path, 0, &b->writer_db);
	b->reader = fixture_open(path, 4, &b->reader_db);
}

static inline void fixture_fini(struct query_fixture *b)
{
	/* No snapshot may be left open by any test. */
	CU_ASSERT_EQUAL(sqlite3_txn_state(b->reader_db, NULL), SQLITE_TXN_NONE);
	CU_ASSERT_EQUAL(sqlite3_txn_state(b->writer_db, NULL), SQLITE_TXN_NONE);
	query_conn_free(b->reader);
	query_conn_free(b->writer);
	buf_fini(&b->out);
}

static inline struct query_request *fixture_parse(const char *body)
{
	const struct query_request_limits limits = {.sql_length_max = 4 << 20, .statements_max = 10000};
	struct query_request *r;
	struct query_error error = {0};

	if (query_request_parse(&r, body, strlen(body), &limits, &error) != QUERY_OK)
		fprintf(stderr, "%.200s: %s\n", body, error.message);
	CU_ASSERT_PTR_NOT_NULL_FATAL(r);
	r->role = AUTH_ADMIN;
	return r;
}

/* {"sql": sql} as a body; the caller frees it. */
static inline char *fixture_body(const char *sql, const char *format)
{
	json_t *o = json_pack("{s:s, s:s}", "sql", sql, "format", format);
	char *body;

	CU_ASSERT_PTR_NOT_NULL_FATAL(o);
	body = json_dumps(o, 0);
	json_decref(o);
	return body;
}

static inline enum query_outcome fixture_read_with(struct query_fixture *b, const char *body,
						   const struct query_read_limits *limits,
						   const struct query_sink *sink)
{
	struct query_request *r = fixture_parse(body);
	enum query_outcome outcome;

	buf_clear(&b->out);
	memset(&b->error, 0, sizeof(b->error));
	outcome = query_read(b->reader, r, limits, sink, clock_mono_us(), &b->out, &b->error);
	CU_ASSERT_EQUAL(sqlite3_txn_state(b->reader_db, NULL), SQLITE_TXN_NONE);
	query_request_free(r);
	return outcome;
}

static inline enum query_outcome fixture_read(struct query_fixture *b, const char *body)
{
	const struct query_read_limits limits = {0};

	return fixture_read_with(b, body, &limits, NULL);
}

/* The answer in b->out as JSON; the caller releases it. */
static inline json_t *fixture_json(struct query_fixture *b)
{
	json_error_t why;
	json_t *v = json_loadb((char *)b->out.data, b->out.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);

	if (v == NULL)
		fprintf(stderr, "%.*s: %s\n", (int)b->out.len, (char *)b->out.data, why.text);
	CU_ASSERT_PTR_NOT_NULL_FATAL(v);
	return v;
}

/* Reads body and asserts that the answer begins with expected. */
static inline void fixture_read_is(struct query_fixture *b, const char *body, const char *expected)
{
	bool same;

	if (fixture_read(b, body) != QUERY_ANSWERED)
		fprintf(stderr, "%.200s: %s\n", body, b->error.message);
	same = b->out.len >= strlen(expected) && memcmp(b->out.data, expected, strlen(expected)) == 0;
	CU_ASSERT(same);
	if (!same)
		fprintf(stderr, "%s\n got %.*s\nwant %s\n", body, (int)b->out.len, (char *)b->out.data, expected);
}

/* Runs a request inside the open batch (or alone), classification included; the answer, trailer added, is in b->out. */
static inline enum query_code fixture_write_in(struct query_fixture *b, const char *body, uint64_t deadline_ms)
{
	struct query_request *r = fixture_parse(body);
	enum query_code code;

	buf_clear(&b->out);
	memset(&b->error, 0, sizeof(b->error));
	code = query_write(b->writer, r, deadline_ms, &b->out, &b->error, &b->batch_lost);
	if (code == QUERY_OK)
		answer_put_trailer(&b->out, 1, "node1", 0);
	else
		CU_ASSERT_EQUAL(b->out.len, 0);
	query_request_free(r);
	return code;
}

/* The same in a batch of its own, committed when it went well. */
static inline enum query_code fixture_write(struct query_fixture *b, const char *body)
{
	struct errmsg em = {0};
	enum query_code code;

	UNIT_OK(query_batch_begin(b->writer, &em), &em);
	code = fixture_write_in(b, body, 0);
	if (b->batch_lost)
		query_batch_rollback(b->writer);
	else
		UNIT_OK(query_batch_commit(b->writer, &em), &em);
	return code;
}

static inline void fixture_write_ok(struct query_fixture *b, const char *sql)
{
	char *body = fixture_body(sql, "rows");

	if (fixture_write(b, body) != QUERY_OK)
		fprintf(stderr, "%.200s: %s\n", sql, b->error.message);
	CU_ASSERT_EQUAL(b->error.code, QUERY_OK);
	free(body);
}

static inline enum query_code fixture_classify(struct query_fixture *b, const char *body, enum query_kind *kind)
{
	struct query_request *r = fixture_parse(body);
	enum query_code code;

	memset(&b->error, 0, sizeof(b->error));
	code = query_classify(b->reader, r, kind, &b->error);
	query_request_free(r);
	return code;
}

static inline enum query_code fixture_classify_sql(struct query_fixture *b, const char *sql, enum query_kind *kind)
{
	char *body = fixture_body(sql, "rows");
	enum query_code code = fixture_classify(b, body, kind);

	free(body);
	return code;
}

#endif

/*
 * store_fixture.h - what the tests of common/store share: a store with its connections, and SQL one-liners.
 *
 * A failed step prints where it was and fails the running test.
 */
#ifndef GRIZZLY_TESTS_UNIT_STORE_FIXTURE_H
#define GRIZZLY_TESTS_UNIT_STORE_FIXTURE_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/store/store.h"
#include "tests/unit/unit.h"

struct fixture {
	char dir[UNIT_PATH_MAX];
	struct store_options options;
	struct store *s;
	sqlite3 *w; /* the writer connection */
	sqlite3 *r; /* a reader connection */
};

#define SQL(db, ...)   fixture_sql(__LINE__, db, __VA_ARGS__)
#define VALUE(db, ...) fixture_value(__LINE__, db, __VA_ARGS__)

__attribute__((format(printf, 3, 4))) static inline int fixture_sql(int line, sqlite3 *db, const char *format, ...)
{
	char *message = NULL, *sql;
	va_list args;
	int rc;

	va_start(args, format);
	sql = sqlite3_vmprintf(format, args);
	va_end(args);
	rc = sqlite3_exec(db, sql, NULL, NULL, &message);
	if (rc != SQLITE_OK)
		fprintf(stderr, "line %d: %.100s: %s\n", line, sql, message);
	CU_assertImplementation(rc == SQLITE_OK, (unsigned)line, "SQL", "store_fixture", "", CU_FALSE);
	sqlite3_free(message);
	sqlite3_free(sql);
	return rc;
}

/* The result code of one statement that is expected to fail. */
static inline int fixture_try(sqlite3 *db, const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL) & 0xff;
}

/* The first column of the first row as an integer; -1 when there is no row. */
__attribute__((format(printf, 3, 4))) static inline int64_t fixture_value(int line, sqlite3 *db, const char *format,
									  ...)
{
	sqlite3_stmt *stmt = NULL;
	int64_t value = -1;
	va_list args;
	char *sql;
	int rc;

	va_start(args, format);
	sql = sqlite3_vmprintf(format, args);
	va_end(args);
	rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
	if (rc == SQLITE_OK) {
		rc = sqlite3_step(stmt);
		if (rc == SQLITE_ROW)
			value = sqlite3_column_int64(stmt, 0);
	}
	if (rc != SQLITE_ROW && rc != SQLITE_DONE)
		fprintf(stderr, "line %d: %.100s: %s\n", line, sql, sqlite3_errmsg(db));
	CU_assertImplementation(rc == SQLITE_ROW || rc == SQLITE_DONE, (unsigned)line, "VALUE", "store_fixture", "",
				CU_FALSE);
	sqlite3_finalize(stmt);
	sqlite3_free(sql);
	return value;
}

static inline bool fixture_is_intact(sqlite3 *db)
{
	sqlite3_stmt *stmt = NULL;
	bool ok;

	ok = sqlite3_prepare_v2(db, "pragma integrity_check", -1, &stmt, NULL) == SQLITE_OK &&
	     sqlite3_step(stmt) == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(stmt, 0), "ok") == 0;
	if (!ok)
		fprintf(stderr, "integrity_check: %s\n",
			stmt == NULL ? sqlite3_errmsg(db) : (const char *)sqlite3_column_text(stmt, 0));
	sqlite3_finalize(stmt);
	return ok;
}

/* Whether the incremental checksum is that of the pages. */
static inline bool fixture_verifies(struct store *s)
{
	struct store_status status;
	struct errmsg em = {0};
	uint64_t checksum;

	if (store_verify(s, &checksum, &em) != DB_OK)
		return false;
	store_get_status(s, &status);
	return checksum == status.db_checksum;
}

static inline enum db_err fixture_open_only(struct fixture *f, struct errmsg *em)
{
	f->options.dir = f->dir;
	return store_open(&f->s, &f->options, em);
}

/* Makes everything sealed durable and visible. */
static inline void fixture_commit(struct fixture *f)
{
	struct errmsg em = {0};
	struct store_status status;

	UNIT_OK(store_sync(f->s, NULL, &em), &em);
	store_get_status(f->s, &status);
	store_set_committed(f->s, status.applied_lsn);
}

static inline void fixture_connect(struct fixture *f)
{
	struct errmsg em = {0};

	UNIT_OK(store_open_writer(f->s, &f->w, &em), &em);
	UNIT_OK(store_open_reader(f->s, &f->r, &em), &em);
	if (f->w == NULL || f->r == NULL)
		exit(1);
}

static inline void fixture_open(struct fixture *f)
{
	struct errmsg em = {0};

	UNIT_OK(fixture_open_only(f, &em), &em);
	if (f->s == NULL)
		exit(1);
	fixture_commit(f);
	fixture_connect(f);
}

static inline void fixture_new(struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	unit_tmpdir(f->dir);
	f->options.segment_size_bytes = (size_t)256 << 10;
	fixture_open(f);
}

static inline void fixture_disconnect(struct fixture *f)
{
	CU_ASSERT_EQUAL(sqlite3_close(f->w), SQLITE_OK);
	CU_ASSERT_EQUAL(sqlite3_close(f->r), SQLITE_OK);
	f->w = f->r = NULL;
}

static inline void fixture_close(struct fixture *f)
{
	fixture_disconnect(f);
	store_close(f->s);
	f->s = NULL;
}

static inline void fixture_checkpoint(struct fixture *f)
{
	struct errmsg em = {0};

	UNIT_OK(store_checkpoint(f->s, UINT64_MAX, &em), &em);
}

/* After every kind of change: both views sound, the checksum right, the same after reopening, the same after a checkpoint
 * and reopening once more; and main.db is then an ordinary SQLite file with the same content. */
static inline void fixture_check_all(struct fixture *f, const char *query)
{
	char path[UNIT_PATH_MAX + 16];
	int64_t expected = VALUE(f->w, "%s", query);
	sqlite3 *plain = NULL;
	int round;

	for (round = 0; round < 3; round++) {
		CU_ASSERT(fixture_is_intact(f->w));
		CU_ASSERT(fixture_verifies(f->s));
		fixture_commit(f);
		CU_ASSERT(fixture_is_intact(f->r));
		CU_ASSERT_EQUAL(VALUE(f->r, "%s", query), expected);
		if (round == 1)
			fixture_checkpoint(f);
		if (round < 2) {
			fixture_close(f);
			fixture_open(f);
		}
	}
	snprintf(path, sizeof(path), "%s/main.db", f->dir);
	CU_ASSERT_EQUAL(sqlite3_open_v2(path, &plain, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	CU_ASSERT_EQUAL(VALUE(plain, "%s", query), expected);
	CU_ASSERT(fixture_is_intact(plain));
	sqlite3_close(plain);
}

#endif

/*
 * authorizer.c - see authorizer.h. The rules, as tables. The callback allocates nothing and cannot fail.
 *
 * Actions, PRAGMAs, functions and the modules of virtual tables go by allow-lists: a new SQLite may bring one that
 * changes storage or the shared connection's state, or reaches out of the database. VACUUM INTO is not seen by an
 * authorizer at all; statement_cache.c refuses it by its text, and DDL that names our tables.
 */
#include "common/query/authorizer.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/query/receipts.h"
#include "common/query/sql_functions.h"

enum pragma_rule {
	PRAGMA_DENIED,
	PRAGMA_READS,    /* with or without an argument */
	PRAGMA_GET_ONLY, /* reads without an argument, denied with one */
	PRAGMA_GET_SET,  /* writes the database when it has an argument */
	PRAGMA_WRITES,   /* writes the database */
};

static const struct {
	const char *name;
	enum pragma_rule rule;
} pragmas[] = {
    {"application_id", PRAGMA_GET_SET},  {"collation_list", PRAGMA_GET_ONLY},   {"compile_options", PRAGMA_GET_ONLY},
    {"data_version", PRAGMA_GET_ONLY},   {"encoding", PRAGMA_GET_ONLY},         {"foreign_key_check", PRAGMA_READS},
    {"foreign_key_list", PRAGMA_READS},  {"foreign_keys", PRAGMA_GET_ONLY},     {"freelist_count", PRAGMA_GET_ONLY},
    {"function_list", PRAGMA_GET_ONLY},  {"incremental_vacuum", PRAGMA_WRITES}, {"index_info", PRAGMA_READS},
    {"index_list", PRAGMA_READS},        {"index_xinfo", PRAGMA_READS},         {"integrity_check", PRAGMA_READS},
    {"module_list", PRAGMA_GET_ONLY},    {"optimize", PRAGMA_WRITES},           {"page_count", PRAGMA_GET_ONLY},
    {"page_size", PRAGMA_GET_ONLY},      {"pragma_list", PRAGMA_GET_ONLY},      {"quick_check", PRAGMA_READS},
    {"schema_version", PRAGMA_GET_ONLY}, {"table_info", PRAGMA_READS},          {"table_list", PRAGMA_READS},
    {"table_xinfo", PRAGMA_READS},       {"user_version", PRAGMA_GET_SET},
};

static enum pragma_rule find_pragma_rule(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(pragmas) / sizeof(pragmas[0]); i++)
		if (strcasecmp(name, pragmas[i].name) == 0)
			return pragmas[i].rule;
	return PRAGMA_DENIED;
}

static int deny(struct authorizer *a, const char *reason)
{
	snprintf(a->reason, sizeof(a->reason), "%s", reason);
	return SQLITE_DENY;
}

static int deny_pragma(struct authorizer *a, const char *name, const char *why)
{
	snprintf(a->reason, sizeof(a->reason), "PRAGMA %.40s %s", name, why);
	return SQLITE_DENY;
}

/* A PRAGMA that writes may come as a statement, and in a step only as that statement prepared anew: never from a
 * table-valued function, for a SELECT must not write. */
static int writing_pragma(struct authorizer *a, const char *name)
{
	if (a->phase == AUTHORIZER_PREPARE)
		a->pragma_writes = true;
	else if (!a->pragma_writes_allowed)
		return deny_pragma(a, name, "is allowed as a statement of its own only");
	return SQLITE_OK;
}

static int check_pragma(struct authorizer *a, const char *name, const char *argument)
{
	switch (find_pragma_rule(name)) {
	case PRAGMA_READS:
		return SQLITE_OK;
	case PRAGMA_GET_ONLY:
		return argument == NULL ? SQLITE_OK : deny_pragma(a, name, "may be read, not set");
	case PRAGMA_GET_SET:
		return argument == NULL ? SQLITE_OK : writing_pragma(a, name);
	case PRAGMA_WRITES:
		return writing_pragma(a, name);
	case PRAGMA_DENIED:
		break;
	}
	return deny_pragma(a, name, "is not allowed: storage and connections belong to the cluster");
}

static int check_function(struct authorizer *a, const char *name)
{
	if (sql_function_allowed(name))
		return SQLITE_OK;
	snprintf(a->reason, sizeof(a->reason), "%.60s() is not allowed", name);
	return SQLITE_DENY;
}

/* Modules that keep their rows in this database. Others read files, or open other databases. */
static int check_module(struct authorizer *a, const char *module)
{
	static const char *const allowed[] = {"fts3",      "fts4",  "fts5",      "fts4aux", "fts3tokenize",
					      "fts5vocab", "rtree", "rtree_i32", "geopoly"};
	size_t i;

	for (i = 0; module != NULL && i < sizeof(allowed) / sizeof(allowed[0]); i++)
		if (strcasecmp(module, allowed[i]) == 0)
			return SQLITE_OK;
	snprintf(a->reason, sizeof(a->reason), "virtual tables of \"%.60s\" are not allowed",
		 module != NULL ? module : "");
	return SQLITE_DENY;
}

static int check_savepoint(struct authorizer *a)
{
	if (a->phase == AUTHORIZER_STEP)
		return SQLITE_OK; /* full-text tables open savepoints of their own */
	return deny(a, "SAVEPOINT and RELEASE are not allowed; use \"statements\": they run as one transaction");
}

/* Where something is created. Temporary things live in a connection, which others use next. */
static int check_schema(struct authorizer *a, const char *schema)
{
	if (schema != NULL && strcasecmp(schema, "temp") == 0)
		return deny(a, "temporary tables, indexes, views and triggers are not allowed: connections are shared");
	return SQLITE_OK;
}

/* Whose rows or whose shape a statement changes. */
static int check_table(struct authorizer *a, const char *table)
{
	if (table != NULL && strncasecmp(table, RECEIPTS_PREFIX, sizeof(RECEIPTS_PREFIX) - 1) == 0)
		return deny(a, AUTHORIZER_OURS);
	return SQLITE_OK;
}

static int authorize(void *arg, int action, const char *name, const char *detail, const char *schema,
		     const char *trigger)
{
	struct authorizer *a = arg;

	(void)trigger;
	if (a->phase == AUTHORIZER_TRUSTED)
		return SQLITE_OK;
	switch (action) {
	case SQLITE_ATTACH:
		return deny(a, "ATTACH is not allowed; name tables of other nodes as host:port@table");
	case SQLITE_DETACH:
		return deny(a, "DETACH is not allowed");
	case SQLITE_TRANSACTION:
		return deny(a, "BEGIN, COMMIT, END and ROLLBACK are not allowed; use \"statements\": they run as one "
			       "transaction");
	case SQLITE_SAVEPOINT:
		return check_savepoint(a);
	case SQLITE_PRAGMA:
		return check_pragma(a, name, detail);
	case SQLITE_FUNCTION:
		return check_function(a, detail);
	case SQLITE_CREATE_TEMP_INDEX:
	case SQLITE_CREATE_TEMP_TABLE:
	case SQLITE_CREATE_TEMP_TRIGGER:
	case SQLITE_CREATE_TEMP_VIEW:
		return check_schema(a, "temp");
	case SQLITE_CREATE_INDEX:
	case SQLITE_CREATE_TABLE:
	case SQLITE_CREATE_TRIGGER:
	case SQLITE_CREATE_VIEW:
		return check_schema(a, schema);
	case SQLITE_CREATE_VTABLE:
		return check_schema(a, schema) == SQLITE_OK ? check_module(a, detail) : SQLITE_DENY;
	case SQLITE_INSERT: /* CREATE TRIGGER temp.x shows only in what it puts into the temporary schema */
		return check_schema(a, schema) == SQLITE_OK ? check_table(a, name) : SQLITE_DENY;
	case SQLITE_UPDATE:
	case SQLITE_DELETE:
	case SQLITE_DROP_TABLE:
		return check_table(a, name);
	case SQLITE_READ:
		if (name != NULL && strcasecmp(name, "sqlite_stmt") == 0)
			return deny(a, "sqlite_stmt is not readable: it shows what others run");
		return SQLITE_OK;
	case SQLITE_SELECT:
	case SQLITE_RECURSIVE:
	case SQLITE_ALTER_TABLE:
	case SQLITE_ANALYZE:
	case SQLITE_REINDEX:
	case SQLITE_DROP_INDEX:
	case SQLITE_DROP_TEMP_INDEX:
	case SQLITE_DROP_TEMP_TABLE:
	case SQLITE_DROP_TEMP_TRIGGER:
	case SQLITE_DROP_TEMP_VIEW:
	case SQLITE_DROP_TRIGGER:
	case SQLITE_DROP_VIEW:
	case SQLITE_DROP_VTABLE:
		return SQLITE_OK;
	default: /* what a newer SQLite may ask about */
		snprintf(a->reason, sizeof(a->reason), "this statement is not allowed (SQLite's action %d)", action);
		return SQLITE_DENY;
	}
}

void authorizer_install(struct authorizer *a, sqlite3 *db)
{
	authorizer_enter(a, AUTHORIZER_STEP);
	sqlite3_set_authorizer(db, authorize, a);
}

void authorizer_enter(struct authorizer *a, enum authorizer_phase phase)
{
	a->phase = phase;
	a->pragma_writes = false;
	a->pragma_writes_allowed = false;
	a->reason[0] = '\0';
}

/*
 * federation.h - tables of other nodes in SQL text: host:port@table.
 *
 * Finds the references in a text, tells what each statement does with them, and rewrites them. Host is a name, an IPv4
 * address or [IPv6]; the table may be quoted in any of SQLite's ways; nothing may stand between the parts. Outside of
 * strings and comments no valid SQL holds such a thing (it reads as parameters side by side), so texts without references
 * never change their meaning. Tokens are told apart as SQLite does it; statements are not parsed further than is needed to
 * know which names stand where a table may: in doubt a name counts as a local table. Pure; may fail on memory.
 *
 * Used by node/federate.c (what goes where) and common/remote (tables of other nodes inside a local statement).
 */
#ifndef GRIZZLY_COMMON_QUERY_FEDERATION_H
#define GRIZZLY_COMMON_QUERY_FEDERATION_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/query/answer.h"

#define FEDERATION_ADDRESS_MAX 272  /* 253 of a name, its port, and the NUL */
#define FEDERATION_NAME_MAX    384  /* of federation_name() */
#define FEDERATION_REFS_MAX    4096 /* of one text; more: SQL_ERROR */
#define FEDERATION_DEPTH_MAX   1000 /* parentheses in each other; more: SQL_ERROR */

struct federated_ref {
	size_t start, end;                    /* host:port@table in the text, without an alias */
	char address[FEDERATION_ADDRESS_MAX]; /* "host:port", lower case, an IPv6 address in its shortest form */
	char *table;                          /* without quotes; never empty; owned by the federation */
	size_t table_len;
	size_t statement; /* which of federation.statements it stands in */
	bool has_alias;   /* one follows: AS x or x */
	bool is_operand;  /* it stands in x IN host:port@table, where no alias may follow */
	bool written;     /* it is what an INSERT, UPDATE or DELETE changes */
};

/* A parenthesised SELECT (subquery or body of a common table expression) that names tables of one other node only, and
 * no common table expression from outside of it. The largest such ones: none lies within another. It may still be
 * correlated: tokens do not tell where a column comes from. */
struct federated_query {
	size_t start, end; /* what stands between the parentheses */
	size_t first_ref, ref_count;
	size_t statement;
	bool has_params; /* it has bind parameters */
	enum federated_place {
		FEDERATED_FROM, /* stands as a table */
		FEDERATED_CTE,  /* the body of a common table expression */
		FEDERATED_EXPR, /* a value, an IN (…), an EXISTS (…) */
	} place;
};

enum federated_verb {
	FEDERATED_READ,    /* SELECT, VALUES, WITH … SELECT */
	FEDERATED_WRITE,   /* INSERT, REPLACE, UPDATE, DELETE */
	FEDERATED_EXPLAIN, /* EXPLAIN and EXPLAIN QUERY PLAN of whatever */
	FEDERATED_PLAN,    /* EXPLAIN FEDERATED of a read */
	FEDERATED_OTHER,   /* anything else; it has no references, or the scan failed */
};

struct federated_statement {
	size_t start, end; /* from its first token to its semicolon or the end */
	enum federated_verb verb;
	size_t body; /* FEDERATED_PLAN: where the statement that is explained begins; else start */
	size_t first_ref, ref_count;
	bool names_local;  /* a table that is no reference, as far as tokens tell */
	bool writes_local; /* of a FEDERATED_WRITE: its target is no reference */
	bool one_address;  /* its references, at least one, are all of the same node */
};

struct federation {
	struct federated_ref *refs; /* at least one; in the order of the text */
	size_t ref_count;
	struct federated_query *queries; /* in the order of the text */
	size_t query_count;
	struct federated_statement *statements; /* blank ones are left out */
	size_t statement_count;
};

/* Whether the text is worth a scan. */
static inline bool federation_possible(const char *sql, size_t len)
{
	return memchr(sql, '@', len) != NULL;
}

/* QUERY_OK: *out is the caller's, NULL when there is no reference. SQL_ERROR: a reference that is malformed or stands where
 * none may; *error says where. INTERNAL: out of memory. */
enum query_code federation_scan(struct federation **out, const char *sql, size_t len, struct query_error *error);
void federation_free(struct federation *f); /* NULL is fine */

/* Writes what stands for a reference, without the alias. */
typedef void (*federation_put_fn)(void *arg, struct buf *out, const struct federated_ref *ref);

/* Appends bytes start to end of the text, each reference within replaced by what put() writes for it. */
void federation_rewrite(struct buf *out, const struct federation *f, const char *sql, size_t start, size_t end,
			federation_put_fn put, void *arg);
/* For the node that has the table: main."table". Qualified, for a common table expression may have the same name. */
void federation_put_shipped(void *arg, struct buf *out, const struct federated_ref *ref);
/* For a statement that runs here: "host:port@table", with AS "table" unless an alias follows. */
void federation_put_local(void *arg, struct buf *out, const struct federated_ref *ref);
/* Appends a quoted identifier: "a""b". */
void federation_put_identifier(struct buf *out, const char *name, size_t len);
/* "host:port@table" as a person wrote it, for messages; cut when too long. */
void federation_name(char *out, size_t size, const struct federated_ref *ref);

#endif

/*
 * federation_lex.h - SQL text as tokens, host:port@table being one of them. Private to federation.c and its tests' rooms.
 *
 * Follows SQLite's tokenizer in where strings, quoted names, comments and parameters begin and end; what it does not need
 * to tell apart (operators, kinds of numbers) it does not. A lexer is a cursor over borrowed text: copy it to look ahead.
 */
#ifndef GRIZZLY_COMMON_QUERY_FEDERATION_LEX_H
#define GRIZZLY_COMMON_QUERY_FEDERATION_LEX_H

#include <stdbool.h>
#include <stddef.h>

#include "common/query/federation.h"

enum fed_kind {
	FED_END,
	FED_WORD,   /* a name or keyword without quotes */
	FED_QUOTED, /* "…", `…`, […] or '…' */
	FED_NUMBER,
	FED_VARIABLE, /* a bind parameter */
	FED_REF,      /* host:port@table */
	FED_MARK,     /* one byte of anything else: ( ) , ; . and operators */
};

struct fed_token {
	enum fed_kind kind;
	const char *start, *end;
	const char *host_end;    /* FED_REF: behind the host, at its colon */
	const char *table_start; /* FED_REF: behind the @; ends with the token */
};

struct fed_lexer {
	const char *p, *end;
};

/* QUERY_OK, or SQL_ERROR for a reference that is malformed. At the end FED_END, again and again. */
enum query_code fed_lex(struct fed_lexer *l, struct fed_token *t, struct query_error *error);

/* Fills ref's address, table and span from a FED_REF token; sql is the text's beginning. SQL_ERROR: no such host or port
 * can be. INTERNAL: out of memory. On error nothing is left to free. */
enum query_code fed_ref_from_token(struct federated_ref *ref, const struct fed_token *t, const char *sql,
				   struct query_error *error);

bool fed_is_word(const struct fed_token *t, const char *keyword); /* in any case of letters */
bool fed_is_mark(const struct fed_token *t, char mark);
bool fed_is_name(const struct fed_token *t); /* FED_WORD or FED_QUOTED */
/* Whether two names are the same to SQL, whatever their quotes and case. */
bool fed_same_name(const struct fed_token *a, const struct fed_token *b);

#endif

/*
 * sql_text.h - the little that must be known of an SQL text without preparing it.
 *
 * Follows SQLite's tokenizer exactly in what separates tokens (white space, comments, a byte order mark), so that what
 * is blank here is what sqlite3_prepare_v3() makes no statement of. Pure, cannot fail.
 */
#ifndef GRIZZLY_COMMON_QUERY_SQL_TEXT_H
#define GRIZZLY_COMMON_QUERY_SQL_TEXT_H

#include <stdbool.h>
#include <stddef.h>

enum sql_verb {
	SQL_VERB_READING, /* SELECT, VALUES, EXPLAIN: what SQLite says of the prepared statement holds */
	SQL_VERB_WITH,    /* a SELECT or a DML statement, by what it writes */
	SQL_VERB_PRAGMA,
	SQL_VERB_DML, /* INSERT, REPLACE, UPDATE, DELETE */
	SQL_VERB_VACUUM,
	SQL_VERB_VACUUM_INTO,
	SQL_VERB_OTHER, /* DDL and the like */
};

/* The first byte at or after p that is neither white space nor inside a comment; end when there is none. */
const char *sql_skip_space(const char *p, const char *end);

/* Like sql_skip_space(), and over semicolons: where the next statement begins, end when there is none. */
const char *sql_skip_blank(const char *p, const char *end);

/* Whether something follows the first semicolon outside quotes and comments: several statements, or one CREATE TRIGGER.
 * For texts that SQLite could not parse; else ask what it left over. */
bool sql_looks_several(const char *sql, const char *end);

/* Whether a word that begins with prefix (ASCII, in any case of letters) stands anywhere in the text, quoted or not: as SQL
 * has no escapes in names, no name that begins so can be written without. Comments and texts count, too. */
bool sql_has_word(const char *sql, const char *end, const char *prefix);

/* Whether some statement of the text begins as one that changes more than rows: DDL, VACUUM, anything unknown. By the text
 * alone, for what cannot be prepared any more. */
bool sql_has_schema_verb(const char *sql, const char *end);

/* What kind of statement begins at sql. */
enum sql_verb sql_verb(const char *sql, const char *end);

#endif

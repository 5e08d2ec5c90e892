/* sql_text.c - see sql_text.h. Works on borrowed bytes between two pointers, never past end. */
#include "common/query/sql_text.h"

#include <string.h>
#include <strings.h>

static const char *skip_line(const char *p, const char *end)
{
	const char *newline = memchr(p, '\n', (size_t)(end - p));

	return newline == NULL ? end : newline;
}

/* p is behind the opening. An unfinished comment reaches to the end, as it does for SQLite. */
static const char *skip_block(const char *p, const char *end)
{
	for (; p + 1 < end; p++)
		if (p[0] == '*' && p[1] == '/')
			return p + 2;
	return end;
}

const char *sql_skip_space(const char *p, const char *end)
{
	while (p < end) {
		size_t left = (size_t)(end - p);

		if (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\f' || *p == '\r')
			p++;
		else if (left >= 2 && p[0] == '-' && p[1] == '-')
			p = skip_line(p + 2, end);
		else if (left >= 3 && p[0] == '/' && p[1] == '*')
			p = skip_block(p + 2, end);
		else if (left >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0)
			p += 3;
		else
			break;
	}
	return p;
}

const char *sql_skip_blank(const char *p, const char *end)
{
	for (;;) {
		p = sql_skip_space(p, end);
		if (p == end || *p != ';')
			return p;
		p++;
	}
}

/* Identifiers hold letters, digits, _, $ and every byte of a multi-byte character. */
static const char *skip_word(const char *p, const char *end)
{
	while (p < end && ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
			   *p == '_' || *p == '$' || (unsigned char)*p >= 0x80))
		p++;
	return p;
}

static bool word_is(const char *word, const char *word_end, const char *keyword)
{
	size_t len = strlen(keyword);

	return (size_t)(word_end - word) == len && strncasecmp(word, keyword, len) == 0;
}

/* Over one schema name, bare or quoted in one of SQLite's four ways. A doubled quote reads as two names side by side,
 * which is no matter here: whatever follows a name is judged by its presence. */
static const char *skip_name(const char *p, const char *end)
{
	const char *closing;

	if (*p != '"' && *p != '\'' && *p != '`' && *p != '[')
		return skip_word(p, end);
	closing = memchr(p + 1, *p == '[' ? ']' : *p, (size_t)(end - p - 1));
	return closing == NULL ? end : closing + 1;
}

/* Where the statement at p ends: at its semicolon, or at end. One in the body of a trigger ends it, too. */
static const char *skip_statement(const char *p, const char *end)
{
	while (p < end && *p != ';') {
		const char *next = skip_name(p, end);

		p = sql_skip_space(next > p ? next : p + 1, end);
	}
	return p;
}

bool sql_looks_several(const char *sql, const char *end)
{
	return sql_skip_blank(skip_statement(sql_skip_blank(sql, end), end), end) < end;
}

/* VACUUM [schema] [INTO file]: p is behind VACUUM. Anything after the name must be an INTO, or SQLite refused it. */
static enum sql_verb vacuum_verb(const char *p, const char *end)
{
	const char *word = sql_skip_space(p, end);
	const char *word_end;

	if (word == end || *word == ';')
		return SQL_VERB_VACUUM;
	word_end = skip_name(word, end);
	if (word_is(word, word_end, "INTO"))
		return SQL_VERB_VACUUM_INTO;
	p = sql_skip_space(word_end, end);
	return p == end || *p == ';' ? SQL_VERB_VACUUM : SQL_VERB_VACUUM_INTO;
}

enum sql_verb sql_verb(const char *sql, const char *end)
{
	static const struct {
		const char *word;
		enum sql_verb verb;
	} verbs[] = {
	    {"SELECT", SQL_VERB_READING}, {"VALUES", SQL_VERB_READING}, {"EXPLAIN", SQL_VERB_READING},
	    {"WITH", SQL_VERB_WITH},      {"PRAGMA", SQL_VERB_PRAGMA},  {"INSERT", SQL_VERB_DML},
	    {"REPLACE", SQL_VERB_DML},    {"UPDATE", SQL_VERB_DML},     {"DELETE", SQL_VERB_DML},
	};
	const char *word = sql_skip_blank(sql, end);
	const char *word_end = skip_word(word, end);
	size_t i;

	if (word_is(word, word_end, "VACUUM"))
		return vacuum_verb(word_end, end);
	for (i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (word_is(word, word_end, verbs[i].word))
			return verbs[i].verb;
	return SQL_VERB_OTHER;
}

static bool is_name_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' ||
	       (unsigned char)c >= 0x80;
}

bool sql_has_word(const char *sql, const char *end, const char *prefix)
{
	size_t len = strlen(prefix);
	const char *p;

	for (p = sql; (size_t)(end - p) >= len; p++)
		if ((p == sql || !is_name_byte(p[-1])) && strncasecmp(p, prefix, len) == 0)
			return true;
	return false;
}

bool sql_has_schema_verb(const char *sql, const char *end)
{
	const char *p;

	for (p = sql_skip_blank(sql, end); p < end; p = sql_skip_blank(skip_statement(p, end), end)) {
		enum sql_verb verb = sql_verb(p, end);

		if (verb == SQL_VERB_OTHER || verb == SQL_VERB_VACUUM || verb == SQL_VERB_VACUUM_INTO)
			return true;
	}
	return false;
}

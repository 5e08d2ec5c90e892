/*
 * federation_lex.c - see federation_lex.h. Pure; time linear in the text (a host is looked for over a bounded stretch).
 */
#include "common/query/federation_lex.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/query/sql_text.h"

#define HOST_MAX ((size_t)253) /* of a DNS name */
#define PORT_MAX 65535u

static bool is_alpha(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_name_byte(char c)
{
	return is_alpha(c) || is_digit(c) || c == '$';
}

/* ---- quotes and parameters */

/* Behind the closing quote; a doubled one is content, except in […]. NULL when it is not closed. */
static const char *find_closed(const char *p, const char *end)
{
	char closing = *p == '[' ? ']' : *p;
	bool bracket = *p == '[';

	for (p++; p < end; p++) {
		if (*p != closing)
			continue;
		if (bracket || p + 1 == end || p[1] != closing)
			return p + 1;
		p++;
	}
	return NULL;
}

static const char *skip_quoted(const char *p, const char *end)
{
	const char *closed = find_closed(p, end);

	return closed != NULL ? closed : end;
}

/* As SQLite has it: $name, :name, @name and #name may hold :: and end with (anything). */
static const char *skip_variable(const char *p, const char *end)
{
	bool named = false;

	for (p++; p < end; p++) {
		if (is_name_byte(*p)) {
			named = true;
		} else if (*p == '(' && named) {
			while (p < end && *p != ')' && *p != ' ' && !(*p >= '\t' && *p <= '\r'))
				p++;
			return p < end && *p == ')' ? p + 1 : p;
		} else if (*p == ':' && p + 1 < end && p[1] == ':') {
			p++;
		} else {
			break;
		}
	}
	return p;
}

/* ---- references */

/* Behind "digits@" after the colon at p; NULL: something else stands there. */
static const char *skip_port(const char *p, const char *end)
{
	const char *digits = ++p;

	while (p < end && is_digit(*p))
		p++;
	return p > digits && p < end && *p == '@' ? p + 1 : NULL;
}

/* The colon behind a host that begins at p; NULL: none. A name may not hold --, which begins a comment. */
static const char *find_host_end(const char *p, const char *end)
{
	const char *start = p;

	if (*p == '[') {
		p = find_closed(p, (size_t)(end - p) > HOST_MAX + 2 ? p + HOST_MAX + 2 : end);
		return p != NULL && p < end && *p == ':' ? p : NULL;
	}
	while (p < end && (size_t)(p - start) <= HOST_MAX &&
	       (((unsigned char)*p < 0x80 && is_alpha(*p)) || is_digit(*p) || *p == '.' || *p == '-')) {
		if (p[0] == '-' && p + 1 < end && p[1] == '-')
			return NULL;
		p++;
	}
	return p < end && p > start && *p == ':' ? p : NULL;
}

static int shown_len(const char *start, const char *end)
{
	return end - start > 100 ? 100 : (int)(end - start);
}

/* The token's start, host_end and table_start are set. */
static enum query_code lex_table(struct fed_token *t, const char *end, struct query_error *error)
{
	const char *p = t->table_start;

	if (p < end && (*p == '"' || *p == '`' || *p == '[' || *p == '\'')) {
		t->end = find_closed(p, end);
		if (t->end == NULL)
			return query_error_set(error, QUERY_SQL_ERROR, "the table's name after \"%.*s\" is not closed",
					       shown_len(t->start, p), t->start);
		if (t->end - p == 2)
			return query_error_set(error, QUERY_SQL_ERROR, "the table's name after \"%.*s\" is empty",
					       shown_len(t->start, p), t->start);
	} else if (p < end && is_alpha(*p)) {
		while (p < end && is_name_byte(*p))
			p++;
		t->end = p;
	} else {
		return query_error_set(error, QUERY_SQL_ERROR,
				       "after \"%.*s\" a table's name is expected (in quotes if it is not a plain one)",
				       shown_len(t->start, p), t->start);
	}
	if (t->end < end && *t->end == '.')
		return query_error_set(error, QUERY_SQL_ERROR,
				       "no \".\" may follow \"%.*s\": a table of another node is named without its "
				       "schema, and its columns by its alias or the bare table name",
				       shown_len(t->start, t->end), t->start);
	return QUERY_OK;
}

/* True when the token at t->start is a reference, good or bad. */
static bool looks_like_ref(struct fed_token *t, const char *end)
{
	t->host_end = find_host_end(t->start, end);
	t->table_start = t->host_end != NULL ? skip_port(t->host_end, end) : NULL;
	return t->table_start != NULL;
}

/* A parameter of digits with an @ behind it is no SQL: somebody meant a reference. */
static enum query_code lex_variable(struct fed_token *t, const char *end, struct query_error *error)
{
	const char *table;

	t->kind = FED_VARIABLE;
	t->end = skip_variable(t->start, end);
	if (*t->start != ':')
		return QUERY_OK;
	table = skip_port(t->start, end);
	if (table == NULL)
		return QUERY_OK;
	return query_error_set(error, QUERY_SQL_ERROR,
			       "before \"%.*s\" a host is expected: a name, an IPv4 address, or an IPv6 address in []",
			       shown_len(t->start, table), t->start);
}

/* ---- tokens */

enum query_code fed_lex(struct fed_lexer *l, struct fed_token *t, struct query_error *error)
{
	enum query_code code = QUERY_OK;
	const char *p = sql_skip_space(l->p, l->end);

	*t = (struct fed_token){.kind = FED_END, .start = p, .end = p};
	if (p == l->end) {
		l->p = p;
		return QUERY_OK;
	}
	if ((*p == '[' || is_alpha(*p) || is_digit(*p)) && looks_like_ref(t, l->end)) {
		t->kind = FED_REF;
		code = lex_table(t, l->end, error);
	} else if (*p == '"' || *p == '`' || *p == '[' || *p == '\'') {
		t->kind = FED_QUOTED;
		t->end = skip_quoted(p, l->end);
	} else if (is_alpha(*p)) {
		t->kind = FED_WORD;
		while (t->end < l->end && is_name_byte(*t->end))
			t->end++;
	} else if (is_digit(*p) || (*p == '.' && p + 1 < l->end && is_digit(p[1]))) {
		t->kind = FED_NUMBER;
		while (t->end < l->end && (is_name_byte(*t->end) || *t->end == '.'))
			t->end++;
	} else if (*p == '?') {
		t->kind = FED_VARIABLE;
		for (t->end++; t->end < l->end && is_digit(*t->end);)
			t->end++;
	} else if (*p == ':' || *p == '@' || *p == '$' || *p == '#') {
		code = lex_variable(t, l->end, error);
	} else {
		t->kind = FED_MARK;
		t->end = p + 1;
	}
	if (code != QUERY_OK)
		t->end = l->end; /* nothing more comes */
	l->p = t->end;
	return code;
}

/* ---- what a reference says */

static enum query_code bad_host(const struct fed_token *t, struct query_error *error)
{
	return query_error_set(error, QUERY_SQL_ERROR,
			       "\"%.*s\" is no host: expected a name, an IPv4 address, or an IPv6 address in []",
			       shown_len(t->start, t->host_end), t->start);
}

/* One text for each address, so that texts can be compared: lower case, IPv6 as inet_ntop() writes it. */
static enum query_code put_host(char out[FEDERATION_ADDRESS_MAX], const struct fed_token *t, struct query_error *error)
{
	size_t len = (size_t)(t->host_end - t->start), i;
	char text[INET6_ADDRSTRLEN] = "";
	struct in6_addr address;

	if (*t->start == '[') {
		if (len - 2 < sizeof(text))
			memcpy(text, t->start + 1, len - 2);
		if (inet_pton(AF_INET6, text, &address) != 1)
			return bad_host(t, error);
		inet_ntop(AF_INET6, &address, text, sizeof(text));
		snprintf(out, FEDERATION_ADDRESS_MAX, "[%s]", text);
		return QUERY_OK;
	}
	if (len > HOST_MAX || *t->start == '-' || t->host_end[-1] == '-' || t->host_end[-1] == '.')
		return bad_host(t, error);
	for (i = 0; i < len; i++) {
		if (t->start[i] == '.' && t->start[i + 1] == '.')
			return bad_host(t, error);
		out[i] = t->start[i] >= 'A' && t->start[i] <= 'Z' ? (char)(t->start[i] + 32) : t->start[i];
	}
	out[len] = '\0';
	return QUERY_OK;
}

static enum query_code put_port(char out[FEDERATION_ADDRESS_MAX], const struct fed_token *t, struct query_error *error)
{
	size_t len = strlen(out);
	unsigned port = 0;
	const char *p;

	for (p = t->host_end + 1; *p != '@' && port <= PORT_MAX; p++)
		port = port * 10 + (unsigned)(*p - '0');
	if (port == 0 || port > PORT_MAX)
		return query_error_set(error, QUERY_SQL_ERROR, "the port in \"%.*s\" must be from 1 to %u",
				       shown_len(t->start, t->table_start), t->start, PORT_MAX);
	snprintf(out + len, FEDERATION_ADDRESS_MAX - len, ":%u", port);
	return QUERY_OK;
}

/* Takes the quotes off. len bytes at most are written, and a NUL. */
static size_t unquote(char *out, const char *start, const char *end)
{
	char closing = *start == '[' ? ']' : *start;
	bool quoted = *start == '[' || *start == '"' || *start == '`' || *start == '\'';
	char *at = out;

	if (quoted) {
		start++;
		end--;
	}
	for (; start < end; start++) {
		*at++ = *start;
		if (quoted && closing != ']' && *start == closing)
			start++;
	}
	*at = '\0';
	return (size_t)(at - out);
}

enum query_code fed_ref_from_token(struct federated_ref *ref, const struct fed_token *t, const char *sql,
				   struct query_error *error)
{
	enum query_code code;

	*ref = (struct federated_ref){.start = (size_t)(t->start - sql), .end = (size_t)(t->end - sql)};
	code = put_host(ref->address, t, error);
	if (code == QUERY_OK)
		code = put_port(ref->address, t, error);
	if (code != QUERY_OK)
		return code;
	ref->table = malloc((size_t)(t->end - t->table_start) + 1);
	if (ref->table == NULL)
		return query_error_set(error, QUERY_INTERNAL, "out of memory");
	ref->table_len = unquote(ref->table, t->table_start, t->end);
	return QUERY_OK;
}

/* ---- comparing */

bool fed_is_word(const struct fed_token *t, const char *keyword)
{
	size_t len = (size_t)(t->end - t->start);

	return t->kind == FED_WORD && strlen(keyword) == len && strncasecmp(t->start, keyword, len) == 0;
}

bool fed_is_mark(const struct fed_token *t, char mark)
{
	return t->kind == FED_MARK && *t->start == mark;
}

bool fed_is_name(const struct fed_token *t)
{
	return t->kind == FED_WORD || t->kind == FED_QUOTED;
}

/* The next byte of a name without its quotes, lower case; -1 at its end. */
static int next_byte(const char **p, const char *end, char quote)
{
	unsigned char c;

	if (*p == end)
		return -1;
	c = (unsigned char)*(*p)++;
	if (quote != '\0' && quote != ']' && c == (unsigned char)quote && *p < end)
		(*p)++;
	return c >= 'A' && c <= 'Z' ? c + 32 : c;
}

/* p and end are moved inside the quotes. */
static char quote_of(const struct fed_token *t, const char **p, const char **end)
{
	*p = t->start;
	*end = t->end;
	if (t->kind != FED_QUOTED)
		return '\0';
	(*p)++;
	if (*end > *p)
		(*end)--;
	return *t->start == '[' ? ']' : *t->start;
}

bool fed_same_name(const struct fed_token *a, const struct fed_token *b)
{
	const char *pa, *pb, *ea, *eb;
	char qa = quote_of(a, &pa, &ea), qb = quote_of(b, &pb, &eb);
	int ca, cb;

	do {
		ca = next_byte(&pa, ea, qa);
		cb = next_byte(&pb, eb, qb);
	} while (ca == cb && ca != -1);
	return ca == cb;
}

/* admin_sql.c - see admin_sql.h. Asked for every request: what SQLite understands is told apart by its first word. */
#include "common/query/admin_sql.h"

#include <string.h>
#include <strings.h>

#include "common/query/sql_text.h"

struct words {
	const char *p, *end;
};

/* The next word, up to white space or a semicolon; quotes around it are taken off. False: there is none, or its quote has
 * no end. */
static bool next_word(struct words *w, const char **word, size_t *len)
{
	const char *p = sql_skip_space(w->p, w->end);
	char quote;

	if (p == w->end || *p == ';')
		return false;
	if (*p == '\'' || *p == '"') {
		quote = *p++;
		*word = p;
		while (p < w->end && *p != quote)
			p++;
		*len = (size_t)(p - *word);
		w->p = p < w->end ? p + 1 : p;
		return p < w->end;
	}
	*word = p;
	while (p < w->end && *p != ';' && strchr(" \t\r\n\f", *p) == NULL)
		p++;
	*len = (size_t)(p - *word);
	w->p = p;
	return *len > 0;
}

static bool is_word(const char *word, size_t len, const char *expected)
{
	return len == strlen(expected) && strncasecmp(word, expected, len) == 0;
}

/* By its first two words. */
static enum admin_kind kind_of(struct words *w)
{
	const char *first, *second;
	size_t first_len, second_len;

	if (!next_word(w, &first, &first_len) || !next_word(w, &second, &second_len))
		return ADMIN_NONE;
	if (is_word(first, first_len, "ADD") && is_word(second, second_len, "REPLICA"))
		return ADMIN_ADD_REPLICA;
	if (is_word(first, first_len, "REMOVE") && is_word(second, second_len, "REPLICA"))
		return ADMIN_REMOVE_REPLICA;
	if (is_word(first, first_len, "SHOW") && is_word(second, second_len, "REPLICAS"))
		return ADMIN_SHOW_REPLICAS;
	return ADMIN_NONE;
}

static struct words words_of(const struct query_statement *s)
{
	const char *end = s->sql + s->sql_len;

	return (struct words){sql_skip_blank(s->sql, end), end};
}

static bool any_among_several(const struct query_request *request)
{
	size_t i;

	for (i = 0; request->statement_count > 1 && i < request->statement_count; i++) {
		struct words w = words_of(&request->statements[i]);

		if (kind_of(&w) != ADMIN_NONE)
			return true;
	}
	return false;
}

static bool take_address(struct words *w, struct admin_statement *out)
{
	const char *word;
	size_t len;

	if (!next_word(w, &word, &len) || len == 0 || len >= sizeof(out->address) || memchr(word, '\0', len) != NULL)
		return false;
	memcpy(out->address, word, len);
	out->address[len] = '\0';
	return true;
}

static bool take_mode(struct words *w, struct admin_statement *out)
{
	struct words before = *w;
	const char *word;
	size_t len;

	if (!next_word(w, &word, &len)) {
		*w = before;
		return true;
	}
	out->readonly = is_word(word, len, "READONLY") || is_word(word, len, "NONVOTING");
	return out->readonly;
}

enum query_code admin_sql_parse(const struct query_request *request, struct admin_statement *out,
				struct query_error *error)
{
	static const char *const usages[] = {[ADMIN_ADD_REPLICA] = "ADD REPLICA host:port [READONLY]",
					     [ADMIN_REMOVE_REPLICA] = "REMOVE REPLICA host:port, or nodeN",
					     [ADMIN_SHOW_REPLICAS] = "SHOW REPLICAS"};
	struct words w;
	bool ok;

	memset(out, 0, sizeof(*out));
	if (any_among_several(request))
		return query_error_set(error, QUERY_BAD_REQUEST,
				       "ADD REPLICA, REMOVE REPLICA and SHOW REPLICAS must be alone in their request");
	if (request->statement_count != 1)
		return QUERY_OK;
	w = words_of(&request->statements[0]);
	out->kind = kind_of(&w);
	if (out->kind == ADMIN_NONE)
		return QUERY_OK;
	ok = out->kind == ADMIN_SHOW_REPLICAS || take_address(&w, out);
	if (ok && out->kind == ADMIN_ADD_REPLICA)
		ok = take_mode(&w, out);
	if (!ok || sql_skip_blank(w.p, w.end) != w.end || request->statements[0].param_count != 0)
		return query_error_set(error, QUERY_BAD_REQUEST,
				       "expected %s, alone in its request and without parameters", usages[out->kind]);
	return QUERY_OK;
}

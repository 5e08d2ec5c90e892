/*
 * shipped_answer.c - see shipped_answer.h.
 *
 * A JSON scanner that builds nothing: it follows strings and brackets byte by byte and copies what it passes. Keys of the
 * answer's own object are looked at; the values of those in withheld[] are kept aside instead of copied. out holds what was
 * copied and not sent; its first `ready` bytes end where the answer could be broken off, and there `open` brackets are open.
 * Bytes are copied in spans as long as possible, which begin and end within one piece.
 */
#include "common/remote/shipped_answer.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/remote/answer_shape.h"
#include "common/remote/json_text.h"

#define DEPTH_MAX       16u            /* an answer needs 7: {results:[{rows:[[{"$blob":""}]]}]} */
#define KEY_MAX         64             /* of a key of the answer itself or of a result */
#define VALUE_BYTES_MAX (16 << 10)     /* of a value kept aside: an error's message is the longest */
#define ROW_BYTES_MAX   ((256u << 20)) /* a row of QUERY_VALUE_BYTES_MAX as JSON is shorter */

enum state {
	ST_BEGIN,       /* before the answer's { */
	ST_FIRST_KEY,   /* a key or } */
	ST_KEY,         /* a key */
	ST_COLON,       /* : */
	ST_VALUE,       /* a value */
	ST_FIRST_VALUE, /* a value or ] */
	ST_AFTER_VALUE, /* , or what closes */
	ST_STRING,      /* in a text */
	ST_SCALAR,      /* in a number or word */
	ST_END,         /* behind the answer's } */
};

enum kept {
	KEPT_STATUS,
	KEPT_NODE,
	KEPT_TIME_MS,
	KEPT_LSN,
	KEPT_CODE,
	KEPT_MESSAGE,
	KEPT_STATEMENT,
	KEPT_REMOTE,
	KEPT_COUNT
};

static const char *const withheld[KEPT_COUNT] = {"status", "node",    "time_ms",   "lsn",
						 "code",   "message", "statement", "remote"};

struct level {
	char closes;                                                          /* ']' or '}' */
	enum { ITEMS_PLAIN, ITEMS_COLUMNS, ITEMS_ROWS, ITEMS_RESULTS } items; /* the last two are whole by themselves */
	bool is_result;  /* the object of one statement's result: the answer itself, or one of its results */
	uint64_t values; /* that have ended in it */
};

struct shipped_answer {
	bool ndjson;
	bool reads;
	bool scan_only; /* nothing is copied or kept, nothing but JSON demanded: of a line */
	enum state state;
	bool string_is_key;
	struct json_text text;
	enum answer_member member;       /* what the value that began last is */
	struct answer_shape top, result; /* of the answer itself, and of the last one of its results */
	bool has_results;
	const char *fault; /* what an answer that says ok must not have; NULL: nothing so far */
	struct level levels[DEPTH_MAX];
	unsigned depth;
	char key[KEY_MAX + 1]; /* the last one, at any depth */
	size_t key_len;
	int kept_now; /* index of the value that is being kept; -1: it is copied */
	char scalar[32];
	size_t scalar_len;
	struct buf kept[KEPT_COUNT];
	struct buf out;
	const char *span, *span_end; /* of the piece being fed: what belongs behind out and is not copied yet */
	size_t ready;                /* bytes of out that may go */
	unsigned open;               /* depth where ready ends */
	char open_levels[DEPTH_MAX]; /* what closes them */
	bool has_members;            /* of out and what was sent from it */
	bool ready_members;          /* the same up to ready */
	uint64_t rows;
	size_t line_end;             /* ndjson: of the last complete line in out; it begins at `ready` */
	struct shipped_answer *line; /* ndjson: checks each line; scan_only */
};

enum db_err shipped_answer_create(struct shipped_answer **out, bool ndjson, bool reads)
{
	struct shipped_answer *a = calloc(1, sizeof(*a));

	*out = a;
	if (a == NULL)
		return DB_NOMEM;
	a->ndjson = ndjson;
	a->reads = reads;
	a->kept_now = -1;
	if (!ndjson)
		return DB_OK;
	a->line = calloc(1, sizeof(*a->line));
	if (a->line == NULL) {
		free(a);
		*out = NULL;
		return DB_NOMEM;
	}
	a->line->scan_only = true;
	a->line->kept_now = -1;
	return DB_OK;
}

void shipped_answer_free(struct shipped_answer *a)
{
	size_t i;

	if (a == NULL)
		return;
	for (i = 0; i < KEPT_COUNT; i++)
		buf_fini(&a->kept[i]);
	buf_fini(&a->out);
	free(a->line);
	free(a);
}

static enum db_err no_answer(struct errmsg *em, const char *why)
{
	return errmsg_set(em, DB_CORRUPT, "what came is no answer to a query: %s", why);
}

/* The JSON of a value kept aside; "" when it has not come. */
static const char *kept_text(const struct shipped_answer *a, enum kept which)
{
	return a->kept[which].len > 0 && a->kept[which].data[a->kept[which].len - 1] == '\0'
		   ? (const char *)a->kept[which].data
		   : "";
}

/* ---- what is passed on */

static void copy_span(struct shipped_answer *a)
{
	buf_put(&a->out, a->span, (size_t)(a->span_end - a->span));
	a->span = a->span_end = NULL;
}

static void mark_ready(struct shipped_answer *a)
{
	unsigned i;

	a->ready = a->out.len + (size_t)(a->span_end - a->span);
	a->ready_members = a->has_members;
	a->open = a->depth;
	for (i = 0; i < a->depth; i++)
		a->open_levels[i] = a->levels[i].closes;
}

/* Copies or keeps bytes of the value, as its key demands. Those of the answer's object itself are neither. */
static inline void pass(struct shipped_answer *a, const char *bytes, size_t len)
{
	if (a->kept_now >= 0) {
		buf_put(&a->kept[a->kept_now], bytes, len);
		return;
	}
	if (a->scan_only)
		return;
	if (bytes != a->span_end) {
		copy_span(a);
		a->span = bytes;
	}
	a->span_end = bytes + len;
}

/* A key of the answer's object is complete. */
static enum db_err take_member(struct shipped_answer *a, struct errmsg *em)
{
	int i;

	if (a->scan_only)
		return DB_OK;
	for (i = 0; i < KEPT_COUNT; i++) {
		if (strcmp(a->key, withheld[i]) != 0)
			continue;
		if (a->kept[i].len > 0)
			return no_answer(em, "a key comes twice");
		a->kept_now = i;
		return DB_OK;
	}
	copy_span(a);
	if (a->has_members)
		buf_put_u8(&a->out, ',');
	a->has_members = true;
	buf_put_u8(&a->out, '"');
	buf_put(&a->out, a->key, a->key_len);
	buf_puts(&a->out, "\":");
	return DB_OK;
}

/* ---- structure */

/* The shape of the result whose object is at this depth. */
static struct answer_shape *shape_at(struct shipped_answer *a, unsigned depth)
{
	return depth <= 1 ? &a->top : &a->result;
}

static enum db_err open_level(struct shipped_answer *a, char c, struct errmsg *em)
{
	struct level *level = &a->levels[a->depth], *parent = a->depth > 0 ? level - 1 : NULL;

	if (a->depth == DEPTH_MAX)
		return no_answer(em, "it is nested too deeply");
	memset(level, 0, sizeof(*level));
	level->closes = c == '[' ? ']' : '}';
	level->is_result = !a->scan_only && c == '{' && (parent == NULL || parent->items == ITEMS_RESULTS);
	if (level->is_result && parent != NULL)
		memset(&a->result, 0, sizeof(a->result));
	if (a->member == ANSWER_MEMBER_COLUMNS) {
		level->items = ITEMS_COLUMNS;
	} else if (a->member == ANSWER_MEMBER_ROWS) {
		level->items = ITEMS_ROWS;
	} else if (c == '[' && a->depth == 1 && parent->is_result && a->kept_now < 0 &&
		   strcmp(a->key, "results") == 0) {
		if (a->has_results)
			return no_answer(em, "results come twice");
		a->has_results = true;
		level->items = ITEMS_RESULTS;
	}
	a->depth++;
	a->state = c == '[' ? ST_FIRST_VALUE : ST_FIRST_KEY;
	return DB_OK;
}

/* A value has ended; depth is that of what it stands in. ended: what it was, NULL unless a list or object. */
static enum db_err value_ended(struct shipped_answer *a, const struct level *ended, struct errmsg *em)
{
	struct level *in = &a->levels[a->depth - 1];
	const char *wrong = NULL;

	a->state = ST_AFTER_VALUE;
	in->values++;
	if (a->out.failed || (a->kept_now >= 0 && a->kept[a->kept_now].failed))
		return errmsg_set(em, DB_NOMEM, "out of memory");
	if (in->items == ITEMS_ROWS) {
		wrong = answer_shape_row(shape_at(a, a->depth - 1), ended != NULL, ended != NULL ? ended->values : 0);
		a->rows++;
	} else if (in->items == ITEMS_RESULTS && (ended == NULL || !ended->is_result)) {
		wrong = "a result is no object";
	}
	if (wrong != NULL)
		return no_answer(em, wrong);
	if (a->depth == 1 && a->kept_now >= 0)
		buf_put_u8(&a->kept[a->kept_now], '\0');
	if (a->depth == 1)
		a->kept_now = -1;
	if (a->depth == 1 || in->items == ITEMS_ROWS || in->items == ITEMS_RESULTS)
		mark_ready(a);
	return DB_OK;
}

static enum db_err close_level(struct shipped_answer *a, char c, struct errmsg *em)
{
	const struct level *ended = &a->levels[a->depth - 1];
	const char *wrong = NULL;

	if (ended->closes != c)
		return no_answer(em, "its brackets do not match");
	a->depth--;
	if (ended->items == ITEMS_COLUMNS)
		shape_at(a, a->depth)->columns = ended->values;
	if (ended->is_result && a->depth > 0)
		wrong = answer_shape_end(&a->result, a->reads);
	if (a->fault == NULL)
		a->fault = wrong;
	if (a->depth > 0)
		return value_ended(a, ended, em);
	a->state = ST_END;
	return DB_OK;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static bool begins_scalar(char c)
{
	return (c >= '0' && c <= '9') || c == '-' || c == 't' || c == 'f' || c == 'n';
}

static void begin_text(struct shipped_answer *a, bool is_key)
{
	a->state = ST_STRING;
	a->string_is_key = is_key;
	memset(&a->text, 0, sizeof(a->text));
}

/* The byte begins a value: whatever it is, its place may demand something of it. */
static enum db_err begin_member(struct shipped_answer *a, char c, struct errmsg *em)
{
	const char *wrong;

	a->member = ANSWER_MEMBER_OTHER;
	if (!a->levels[a->depth - 1].is_result || a->kept_now >= 0)
		return DB_OK;
	wrong = answer_shape_begin(shape_at(a, a->depth), a->key, c, &a->member);
	return wrong == NULL ? DB_OK : no_answer(em, wrong);
}

/* The byte begins a value that is no scalar. */
static enum db_err begin_value(struct shipped_answer *a, char c, struct errmsg *em)
{
	enum db_err err = begin_member(a, c, em);

	if (err != DB_OK)
		return err;
	if (c == '"') {
		begin_text(a, false);
	} else if (c == '[' || c == '{') {
		return open_level(a, c, em);
	} else {
		return no_answer(em, "a value is expected");
	}
	return DB_OK;
}

/* One byte outside of texts and numbers. Bytes of the answer's own object are not passed on but made anew. */
static enum db_err step(struct shipped_answer *a, char c, struct errmsg *em)
{
	switch (a->state) {
	case ST_BEGIN:
		return c == '{' ? open_level(a, c, em) : no_answer(em, "it does not begin with {");
	case ST_FIRST_KEY:
	case ST_KEY:
		if (c == '}' && a->state == ST_FIRST_KEY)
			return close_level(a, c, em);
		if (c != '"')
			return no_answer(em, "a key is expected");
		begin_text(a, true);
		a->key_len = 0;
		return DB_OK;
	case ST_COLON:
		if (c != ':')
			return no_answer(em, "a colon is expected");
		a->state = ST_VALUE;
		return DB_OK;
	case ST_FIRST_VALUE:
		if (c == ']')
			return close_level(a, c, em);
		return begin_value(a, c, em);
	case ST_VALUE:
		return begin_value(a, c, em);
	case ST_AFTER_VALUE:
		if (c == ',') {
			a->state = a->levels[a->depth - 1].closes == '}' ? ST_KEY : ST_VALUE;
			return DB_OK;
		}
		return close_level(a, c, em);
	default:
		return no_answer(em, "something follows its end");
	}
}

/* ---- texts and numbers */

static enum db_err key_ended(struct shipped_answer *a, struct errmsg *em)
{
	a->state = ST_COLON;
	if (a->key_len > KEY_MAX) {
		if (a->depth == 1 && !a->scan_only)
			return no_answer(em, "a key is too long");
		a->key_len = 0;
	}
	a->key[a->key_len] = '\0';
	return a->depth == 1 ? take_member(a, em) : DB_OK;
}

static void gather_key(struct shipped_answer *a, const char *bytes, size_t len)
{
	if (a->key_len + len > KEY_MAX) {
		a->key_len = KEY_MAX + 1;
		return;
	}
	memcpy(a->key + a->key_len, bytes, len);
	a->key_len += len;
}

/* Goes on in a text from p, to its end or the bytes'. *next is behind what was taken. */
static enum db_err take_text(struct shipped_answer *a, const char *p, const char *end, const char **next,
			     struct errmsg *em)
{
	const char *wrong = NULL;
	bool done;

	*next = json_text_take(&a->text, p, end, &done, &wrong);
	if (*next == NULL)
		return no_answer(em, wrong);
	if (a->string_is_key)
		gather_key(a, p, (size_t)(*next - p) - done);
	if (a->depth > 1 || !a->string_is_key)
		pass(a, p, (size_t)(*next - p));
	if (!done)
		return DB_OK;
	return a->string_is_key ? key_ended(a, em) : value_ended(a, NULL, em);
}

static bool is_scalar_byte(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-' || c == '+' || c == '.' || c == 'E';
}

/* Goes on in a number or word; scalar has what earlier pieces held of it. Behind it stands a byte that is none of it. */
static enum db_err take_scalar(struct shipped_answer *a, const char *p, const char *end, const char **next,
			       struct errmsg *em)
{
	const char *start = p;
	bool whole;

	while (p < end && is_scalar_byte(*p))
		p++;
	*next = p;
	pass(a, start, (size_t)(p - start));
	if (a->scalar_len + (size_t)(p - start) > sizeof(a->scalar) - 1)
		return no_answer(em, "a number is too long");
	if (a->scalar_len == 0 && p < end) {
		whole = json_text_is_scalar(start, p);
	} else {
		memcpy(a->scalar + a->scalar_len, start, (size_t)(p - start));
		a->scalar_len += (size_t)(p - start);
		if (p == end)
			return DB_OK;
		a->scalar[a->scalar_len] = '\0';
		start = a->scalar;
		whole = json_text_is_scalar(start, start + a->scalar_len);
	}
	if (whole && a->member == ANSWER_MEMBER_COUNT)
		shape_at(a, a->depth)->count = strtoull(start, NULL, 10);
	return whole ? value_ended(a, NULL, em) : no_answer(em, "a value is none");
}

static enum db_err check_sizes(const struct shipped_answer *a, struct errmsg *em)
{
	if (a->kept_now >= 0 && a->kept[a->kept_now].len > VALUE_BYTES_MAX)
		return no_answer(em, "one of its fields is too long");
	if (a->out.len - a->ready > ROW_BYTES_MAX)
		return errmsg_set(em, DB_TOO_LARGE, "a row is larger than %u bytes", ROW_BYTES_MAX);
	return a->out.failed ? errmsg_set(em, DB_NOMEM, "out of memory") : DB_OK;
}

static enum db_err feed_json(struct shipped_answer *a, const char *p, const char *end, struct errmsg *em)
{
	enum db_err err = DB_OK;

	while (p < end && err == DB_OK) {
		if (a->state == ST_AFTER_VALUE && *p == ',' && a->depth > 1) {
			pass(a, p++, 1); /* what comes most often, first */
			a->state = a->levels[a->depth - 1].closes == '}' ? ST_KEY : ST_VALUE;
		} else if (a->state == ST_STRING) {
			err = take_text(a, p, end, &p, em);
		} else if (a->state == ST_SCALAR) {
			err = take_scalar(a, p, end, &p, em);
		} else if ((a->state == ST_VALUE || a->state == ST_FIRST_VALUE) && begins_scalar(*p)) {
			err = begin_member(a, *p, em);
			a->state = ST_SCALAR; /* with this byte */
			a->scalar_len = 0;
		} else if (is_space(*p)) {
			p++;
		} else {
			/* Of the answer's object itself only what begins a value; its keys are made anew. */
			if (a->depth > 1 || (a->depth == 1 && a->state == ST_VALUE))
				pass(a, p, 1);
			err = step(a, *p++, em);
		}
	}
	copy_span(a);
	return err == DB_OK ? check_sizes(a, em) : err;
}

/* ---- lines */

/* Goes on with the line that is not complete yet. ends: it is now. */
static enum db_err check_line(struct shipped_answer *line, const char *p, size_t len, bool ends, struct errmsg *em)
{
	enum db_err err = feed_json(line, p, p + len, em);

	if (err != DB_OK || !ends)
		return err;
	if (line->state != ST_END)
		return no_answer(em, "a line is no object");
	line->state = ST_BEGIN;
	return DB_OK;
}

/* The last complete line is held back: it may turn out to be the error that an answer ends with. */
static enum db_err feed_lines(struct shipped_answer *a, const char *p, const char *end, struct errmsg *em)
{
	const char *newline;

	while (p < end && (newline = memchr(p, '\n', (size_t)(end - p))) != NULL) {
		size_t line = a->line_end;
		enum db_err err = check_line(a->line, p, (size_t)(newline - p), true, em);

		if (err != DB_OK)
			return err;
		buf_put(&a->out, p, (size_t)(newline + 1 - p));
		if (a->out.failed)
			break;
		a->ready = line;
		a->line_end = a->out.len;
		a->rows++;
		p = newline + 1;
	}
	buf_put(&a->out, p, (size_t)(end - p));
	if (check_line(a->line, p, (size_t)(end - p), false, em) != DB_OK)
		return DB_CORRUPT;
	return check_sizes(a, em);
}

/* The line held back, parsed, if it is an error. The caller decrefs it. */
static json_t *last_error(const struct shipped_answer *a)
{
	json_t *line = NULL;

	if (a->line_end > a->ready)
		line = json_loadb((const char *)a->out.data + a->ready, a->line_end - a->ready, 0, NULL);
	if (json_is_string(json_object_get(line, "code")) && json_is_string(json_object_get(line, "message")) &&
	    json_is_string(json_object_get(line, "status")) &&
	    strcmp(json_string_value(json_object_get(line, "status")), "error") == 0)
		return line;
	json_decref(line);
	return NULL;
}

/* ---- what callers see */

enum db_err shipped_answer_feed(struct shipped_answer *a, const void *bytes, size_t len, struct errmsg *em)
{
	const char *p = bytes;

	if (!buf_reserve(&a->out, len + KEY_MAX + 4))
		return errmsg_set(em, DB_NOMEM, "out of memory");
	return a->ndjson ? feed_lines(a, p, p + len, em) : feed_json(a, p, p + len, em);
}

/* What an answer that says ok lacks; NULL: nothing. */
static const char *find_fault(const struct shipped_answer *a)
{
	if (!a->has_results)
		return answer_shape_end(&a->top, a->reads);
	return a->top.has_rows ? "it has rows beside its results" : a->fault;
}

enum db_err shipped_answer_end(struct shipped_answer *a, struct errmsg *em)
{
	const char *fault;

	if (a->ndjson) {
		if (a->line_end != a->out.len)
			return no_answer(em, "its last line is not complete");
		a->ready = a->out.len;
		return DB_OK;
	}
	if (a->state != ST_END)
		return no_answer(em, "its end is missing");
	if (strcmp(kept_text(a, KEPT_STATUS), "\"ok\"") != 0 && strcmp(kept_text(a, KEPT_STATUS), "\"error\"") != 0)
		return no_answer(em, "it says neither ok nor error");
	fault = shipped_answer_is_error(a) ? NULL : find_fault(a);
	return fault == NULL ? DB_OK : no_answer(em, fault);
}

const void *shipped_answer_ready(const struct shipped_answer *a, size_t *len)
{
	*len = a->ready;
	return a->out.data;
}

void shipped_answer_sent(struct shipped_answer *a, size_t len)
{
	if (len == 0)
		return;
	memmove(a->out.data, a->out.data + len, a->out.len - len);
	a->out.len -= len;
	a->ready -= len;
	a->line_end -= a->ndjson ? len : 0;
}

void shipped_answer_break_off(struct shipped_answer *a)
{
	unsigned depth;

	a->out.failed = false;
	if (a->ndjson) {
		json_t *error = last_error(a);

		if (error == NULL && a->line_end > a->ready)
			a->ready = a->line_end;
		json_decref(error);
		a->out.len = a->ready;
		a->line_end = a->ready;
		return;
	}
	a->out.len = a->ready;
	a->has_members = a->ready_members;
	for (depth = a->open; depth > 1; depth--)
		buf_put_u8(&a->out, (uint8_t)a->open_levels[depth - 1]);
	a->ready = a->out.len;
	a->open = 1;
}

bool shipped_answer_has_members(const struct shipped_answer *a)
{
	return a->has_members;
}

uint64_t shipped_answer_rows(const struct shipped_answer *a)
{
	return a->rows;
}

bool shipped_answer_is_error(const struct shipped_answer *a)
{
	json_t *error;

	if (!a->ndjson)
		return strcmp(kept_text(a, KEPT_STATUS), "\"error\"") == 0;
	error = last_error(a);
	json_decref(error);
	return error != NULL;
}

bool shipped_answer_lsn(const struct shipped_answer *a, uint64_t *lsn)
{
	const char *text = kept_text(a, KEPT_LSN);

	if (text[0] < '0' || text[0] > '9')
		return false;
	*lsn = strtoull(text, NULL, 10);
	return true;
}

static enum query_code find_code(const char *name)
{
#define X(code, status)                                                                                                \
	if (strcmp(name, #code) == 0)                                                                                  \
		return QUERY_##code;
	QUERY_CODE_LIST(X)
#undef X
	return QUERY_INTERNAL;
}

static void error_from(struct query_error *error, const json_t *code, const json_t *message, const json_t *statement)
{
	query_error_set(error, find_code(json_is_string(code) ? json_string_value(code) : ""), "%s",
			json_is_string(message) ? json_string_value(message) : "an error without a message");
	if (json_is_integer(statement) && json_integer_value(statement) >= 0 &&
	    json_integer_value(statement) <= INT32_MAX)
		error->statement = (int)json_integer_value(statement);
}

static json_t *kept_value(const struct shipped_answer *a, enum kept which)
{
	return json_loadb(kept_text(a, which), strlen(kept_text(a, which)), JSON_DECODE_ANY, NULL);
}

void shipped_answer_error(const struct shipped_answer *a, struct query_error *error)
{
	json_t *code, *message, *statement, *line;

	if (a->ndjson) {
		line = last_error(a);
		error_from(error, json_object_get(line, "code"), json_object_get(line, "message"), NULL);
		json_decref(line);
		return;
	}
	code = kept_value(a, KEPT_CODE);
	message = kept_value(a, KEPT_MESSAGE);
	statement = kept_value(a, KEPT_STATEMENT);
	error_from(error, code, message, statement);
	json_decref(code);
	json_decref(message);
	json_decref(statement);
}

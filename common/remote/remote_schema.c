/*
 * remote_schema.c - see remote_schema.h: the cache, and the requests that fill it.
 *
 * Two requests: the first asks for columns, keys and indexes; the second, which needs to know how many columns there are,
 * how they compare, and how many rows there are. Both read the version; when it changed between them all begins anew.
 */
#include "common/remote/remote_schema.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "common/base/clock.h"
#include "common/remote/remote_schema_parts.h"

#define CACHED_MAX  256
#define TRIES_MAX   4
#define LOOK_AGE_MS 5000 /* a size older than this is looked up again */

struct remote_schemas {
	pthread_mutex_t mutex; /* guards the list */
	struct remote_schema *first;
};

/* ---- life */

struct remote_schemas *remote_schemas_create(void)
{
	struct remote_schemas *s = calloc(1, sizeof(*s));

	if (s != NULL)
		pthread_mutex_init(&s->mutex, NULL);
	return s;
}

void remote_schemas_free(struct remote_schemas *s)
{
	struct remote_schema *schema;

	if (s == NULL)
		return;
	while ((schema = s->first) != NULL) {
		s->first = schema->next;
		remote_schema_release(schema);
	}
	pthread_mutex_destroy(&s->mutex);
	free(s);
}

static struct remote_schema *schema_create(const char *address, const char *source)
{
	struct remote_schema *schema = calloc(1, sizeof(*schema));

	if (schema == NULL)
		return NULL;
	atomic_init(&schema->refs, 1);
	schema->rowid_column = -1;
	atomic_init(&schema->rows, UINT64_MAX);
	schema->address = strdup(address);
	schema->source = strdup(source);
	if (schema->address != NULL && schema->source != NULL)
		return schema;
	remote_schema_release(schema);
	return NULL;
}

void remote_schema_release(struct remote_schema *schema)
{
	size_t i;

	if (schema == NULL || atomic_fetch_sub(&schema->refs, 1) > 1)
		return;
	for (i = 0; i < schema->column_count; i++) {
		free(schema->columns[i].name);
		free(schema->columns[i].type);
	}
	free(schema->columns);
	free(schema->key_columns);
	free(schema->source);
	free(schema->address);
	free(schema);
}

/* ---- the cache */

static struct remote_schema *cache_find(struct remote_schemas *s, const char *address, const char *source)
{
	struct remote_schema **at, *schema;

	pthread_mutex_lock(&s->mutex);
	for (at = &s->first; (schema = *at) != NULL; at = &schema->next)
		if (strcmp(schema->source, source) == 0 && strcmp(schema->address, address) == 0)
			break;
	if (schema != NULL) {
		*at = schema->next;
		schema->next = s->first;
		s->first = schema;
		atomic_fetch_add(&schema->refs, 1);
	}
	pthread_mutex_unlock(&s->mutex);
	return schema;
}

static void cache_add(struct remote_schemas *s, struct remote_schema *schema)
{
	struct remote_schema **at, *dropped = NULL;
	size_t count = 0;

	atomic_fetch_add(&schema->refs, 1);
	pthread_mutex_lock(&s->mutex);
	schema->next = s->first;
	s->first = schema;
	for (at = &s->first; *at != NULL && count < CACHED_MAX; at = &(*at)->next)
		count++;
	if (*at != NULL) {
		dropped = *at;
		*at = dropped->next;
		assert(dropped->next == NULL);
	}
	pthread_mutex_unlock(&s->mutex);
	remote_schema_release(dropped);
}

void remote_schemas_forget(struct remote_schemas *s, const struct remote_schema *schema)
{
	struct remote_schema **at;

	pthread_mutex_lock(&s->mutex);
	for (at = &s->first; *at != NULL && *at != schema; at = &(*at)->next)
		;
	if (*at == schema)
		*at = schema->next;
	else
		schema = NULL;
	pthread_mutex_unlock(&s->mutex);
	remote_schema_release((struct remote_schema *)schema);
}

/* ---- fetching */

/* One request: its statements, and what takes its rows. */
struct look {
	struct remote_schema *schema;
	bool second;
	int64_t version;
	enum query_code code; /* an error of ours; QUERY_OK: none */
	const char *wrong;    /* what is wrong with the answer; NULL: nothing so far */
};

static void take_row(struct look *l, const struct rows_reader *r)
{
	size_t result = rows_reader_result_count(r) - 1, columns = rows_reader_column_count(r);
	const struct query_value *v = rows_reader_values(r);
	bool ok;

	if (result == 0) {
		ok = columns == 1 && v[0].type == QUERY_INTEGER;
		l->version = ok ? v[0].integer : 0;
	} else if (l->second) {
		ok = remote_schema_take_second(l->schema, result, v, columns);
	} else {
		ok = remote_schema_take_first(l->schema, result, v, columns);
	}
	if (!ok)
		l->wrong = "its answer about the table is none";
}

static void take_result(struct look *l, const struct rows_reader *r)
{
	if (l->second || rows_reader_result_count(r) != 2)
		return;
	if (rows_reader_column_count(r) == 0)
		l->wrong = "its answer about the table is none";
	else if (!remote_schema_take_columns(l->schema, r))
		l->code = QUERY_INTERNAL;
}

static enum query_code ask(struct look *l, struct remote_asker *asker, const struct remote_name *name,
			   const struct buf *statements, struct query_error *error, struct query_error *refused)
{
	struct remote_ask *ask;
	enum query_code code;

	if (statements->failed)
		return query_error_set(error, QUERY_INTERNAL, "out of memory");
	code = remote_ask_start(&ask, asker, name, (const char *)statements->data, statements->len, error);
	while (code == QUERY_OK) {
		enum remote_event event = remote_ask_next(ask, true, error, refused);

		if (event == REMOTE_FAILED)
			code = error->code;
		else if (event == REMOTE_ROW)
			take_row(l, remote_ask_reader(ask));
		else if (event == REMOTE_RESULT)
			take_result(l, remote_ask_reader(ask));
		if (event == REMOTE_DONE)
			break;
		if (code == QUERY_OK && l->wrong != NULL)
			code = query_error_set(error, QUERY_REMOTE_ERROR, "%s: its answer is damaged: %s", name->name,
					       l->wrong);
		else if (code == QUERY_OK && l->code != QUERY_OK)
			code = query_error_set(error, QUERY_INTERNAL, "out of memory");
	}
	remote_ask_free(ask);
	return code;
}

/* *again: the schema changed meanwhile. */
static enum query_code fetch(struct remote_schema *schema, struct remote_asker *asker, const struct remote_name *name,
			     const char *table, bool *again, struct query_error *error, struct query_error *refused)
{
	struct look first = {.schema = schema}, second = {.schema = schema, .second = true};
	struct buf statements = {0};
	enum query_code code;

	remote_schema_put_first(&statements, schema, table);
	code = ask(&first, asker, name, &statements, error, refused);
	buf_clear(&statements);
	if (code == QUERY_OK && !remote_schema_settle_first(schema))
		code = query_error_set(error, QUERY_REMOTE_ERROR,
				       "%s: its answer is damaged: it contradicts itself about the table", name->name);
	if (code == QUERY_OK) {
		remote_schema_put_second(&statements, schema, table);
		code = ask(&second, asker, name, &statements, error, refused);
	}
	buf_fini(&statements);
	*again = first.version != second.version;
	schema->version = second.version;
	atomic_store(&schema->looked_ms, clock_mono_ms());
	return code;
}

/* The size again, and whether it is still the same schema. */
static enum query_code look_again(struct remote_schemas *s, struct remote_schema *schema, struct remote_asker *asker,
				  const struct remote_name *name, const char *table, bool *changed,
				  struct query_error *error, struct query_error *refused)
{
	struct look l = {.schema = schema, .second = true};
	struct buf statements = {0};
	enum query_code code;

	remote_schema_put_size(&statements, schema, table);
	code = ask(&l, asker, name, &statements, error, refused);
	buf_fini(&statements);
	*changed = refused->code == QUERY_SQL_ERROR || (code == QUERY_OK && l.version != schema->version);
	if (code == QUERY_OK)
		atomic_store(&schema->looked_ms, clock_mono_ms());
	if (*changed)
		remote_schemas_forget(s, schema);
	return *changed ? QUERY_OK : code;
}

enum query_code remote_schemas_get(struct remote_schemas *s, struct remote_schema **out, struct remote_asker *asker,
				   const struct remote_name *name, const char *source, const char *table, bool *cached,
				   struct query_error *error, struct query_error *refused)
{
	struct remote_schema *schema = cache_find(s, name->address, source);
	enum query_code code = QUERY_OK;
	bool again = false;
	int i;

	refused->code = QUERY_OK;
	*cached = schema != NULL;
	if (schema != NULL && table != NULL && clock_mono_ms() - atomic_load(&schema->looked_ms) > LOOK_AGE_MS)
		code = look_again(s, schema, asker, name, table, &again, error, refused);
	if (schema != NULL && !again) {
		if (code == QUERY_OK)
			*out = schema;
		else
			remote_schema_release(schema);
		return code;
	}
	remote_schema_release(schema);
	*cached = false;
	for (i = 0; i < TRIES_MAX; i++) {
		schema = schema_create(name->address, source);
		if (schema == NULL)
			return query_error_set(error, QUERY_INTERNAL, "out of memory");
		schema->is_query = table == NULL;
		code = fetch(schema, asker, name, table, &again, error, refused);
		if (code == QUERY_OK && !again)
			break;
		remote_schema_release(schema);
		if (code != QUERY_OK)
			return code;
	}
	if (i == TRIES_MAX)
		return query_error_set(error, QUERY_REMOTE_ERROR, "%s: its schema changes again and again", name->name);
	cache_add(s, schema);
	*out = schema;
	return QUERY_OK;
}

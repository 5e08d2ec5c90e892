/*
 * remote_whole.c - see remote_query.h: the table that is fetched once instead of many keys, and found by hash.
 *
 * It is fetched with the conditions whose value is the same in all keys so far; a key that differs there ends that, and it is
 * fetched again without. Its rows are found by the hash of what the conditions with = compare; SQLite then compares exactly.
 * Equal values have an equal hash whatever their type (1 = 1.0) and collation; a value for which that cannot be promised is
 * looked for in all rows.
 */
#include "common/remote/remote_query.h"

#include <stdlib.h>
#include <xxhash.h>

/* ---- hashing */

/* So that an integer and a real that are equal have the same. */
static uint64_t hash_real(double v)
{
	int64_t i;

	if (v >= -9223372036854775808.0 && v < 9223372036854775808.0) {
		i = (int64_t)v;
		if ((double)i == v)
			return XXH3_64bits_withSeed(&i, sizeof(i), QUERY_INTEGER);
	}
	return XXH3_64bits_withSeed(&v, sizeof(v), QUERY_REAL);
}

/* NOCASE compares up to a NUL, then lengths. */
static uint64_t hash_nocase(const char *bytes, size_t len)
{
	uint64_t hash = len;
	char folded[64];
	size_t i = 0, n;

	do {
		for (n = 0; n < sizeof(folded) && i < len && bytes[i] != '\0'; n++, i++)
			folded[n] = bytes[i] >= 'A' && bytes[i] <= 'Z' ? (char)(bytes[i] + 32) : bytes[i];
		hash = XXH3_64bits_withSeed(folded, n, hash);
	} while (n == sizeof(folded));
	return hash;
}

static uint64_t hash_value(const struct query_value *v, const char *collation)
{
	size_t len;

	switch (v->type) {
	case QUERY_INTEGER:
		return XXH3_64bits_withSeed(&v->integer, sizeof(v->integer), QUERY_INTEGER);
	case QUERY_REAL:
		return hash_real(v->real);
	case QUERY_TEXT:
		len = v->data.len;
		if (collation[0] == 'N')
			return hash_nocase(v->data.bytes, len);
		while (collation[0] == 'R' && len > 0 && v->data.bytes[len - 1] == ' ')
			len--;
		return XXH3_64bits_withSeed(v->data.bytes, len, QUERY_TEXT);
	case QUERY_BLOB:
		return XXH3_64bits_withSeed(v->data.bytes, v->data.len, QUERY_BLOB);
	case QUERY_NULL:
		break;
	}
	return 0;
}

bool remote_condition_is_hashed(const struct remote_condition *c)
{
	return c->op == SQLITE_INDEX_CONSTRAINT_EQ && !c->is_in;
}

static const char *collation_of(const struct remote_plan *plan, const struct remote_condition *c)
{
	if (c->collation != NULL)
		return c->collation;
	return c->column >= 0 ? plan->shape.schema->columns[c->column].collation : "BINARY";
}

static uint32_t mix(uint64_t hash, uint64_t with)
{
	hash = (hash ^ with) * 0x9E3779B97F4A7C15u;
	return (uint32_t)(hash >> 32);
}

/* Of a key. False: its rows cannot be found by hash. */
static bool hash_key(const struct remote_plan *plan, const struct remote_argument *arguments, uint32_t *hash)
{
	size_t i;

	*hash = 0;
	for (i = 0; i < plan->shape.condition_count; i++) {
		const struct remote_condition *c = &plan->shape.conditions[i];

		if (!remote_condition_is_hashed(c))
			continue;
		if (arguments[i].skip)
			return false;
		*hash = mix(*hash, hash_value(&arguments[i].value, collation_of(plan, c)));
	}
	return true;
}

static bool looks_numeric(const struct query_value *v)
{
	size_t i = 0;

	while (i < v->data.len && strchr(" \t\n\v\f\r+-.", v->data.bytes[i]) != NULL && v->data.bytes[i] != '\0')
		i++;
	return i < v->data.len && v->data.bytes[i] >= '0' && v->data.bytes[i] <= '9';
}

/* Of a row. False: a text that would be compared as a number stands where texts are none. */
static bool hash_row(const struct remote_plan *plan, const struct query_value *values, uint32_t *hash)
{
	size_t i;

	*hash = 0;
	for (i = 0; i < plan->shape.condition_count; i++) {
		const struct remote_condition *c = &plan->shape.conditions[i];
		size_t column = c->column >= 0 ? (size_t)c->column : plan->shape.schema->column_count;
		const struct query_value *v;

		if (!remote_condition_is_hashed(c))
			continue;
		v = &values[plan->position[column]];
		if (v->type == QUERY_TEXT && c->column >= 0 &&
		    plan->shape.schema->columns[c->column].affinity == REMOTE_NUMERIC && looks_numeric(v))
			return false;
		*hash = mix(*hash, hash_value(v, collation_of(plan, c)));
	}
	return true;
}

bool remote_plan_has_hashed(const struct remote_plan *plan)
{
	size_t i;

	for (i = 0; i < plan->shape.condition_count; i++)
		if (remote_condition_is_hashed(&plan->shape.conditions[i]))
			return true;
	return false;
}

/* ---- the whole table */

static enum query_code build_index(struct remote_plan *plan)
{
	struct row_store *store = plan->whole->store;
	struct row_walk walk = {0};
	struct query_value *values;
	struct stored_row *row;
	bool ok = remote_plan_has_hashed(plan);

	values = calloc(plan->shape.column_count, sizeof(*values));
	if (values == NULL)
		return remote_query_no_memory(plan->query);
	while (ok && (row = row_store_next(store, &walk)) != NULL) {
		row_store_values(store, row, values);
		ok = hash_row(plan, values, &row->hash);
	}
	free(values);
	if (ok && row_index_create(&plan->index, store) != DB_OK)
		return remote_query_no_memory(plan->query);
	return QUERY_OK;
}

void remote_key_get(const struct remote_plan *plan, const struct remote_key *key, struct query_value *values)
{
	row_store_values(plan->key_values, key->values, values);
}

/* The conditions that all keys so far have in common: *fixed. The others are skipped. */
static enum query_code find_fixed(struct remote_plan *plan)
{
	size_t count = plan->shape.condition_count, i, k;
	struct query_value *first = calloc(count, sizeof(*first)), *other = calloc(count, sizeof(*other));
	struct buf a = {0}, b = {0};

	free(plan->fixed);
	plan->fixed = calloc(count, sizeof(*plan->fixed));
	if (first == NULL || other == NULL || plan->fixed == NULL) {
		free(first);
		free(other);
		return remote_query_no_memory(plan->query);
	}
	for (i = 0; i < count; i++)
		plan->fixed[i].skip = !remote_condition_is_unary(&plan->shape.conditions[i]) &&
				      (plan->shape.conditions[i].is_in || plan->whole != NULL || plan->key_count < 2);
	if (plan->key_count > 0)
		remote_key_get(plan, &plan->keys[0], first);
	for (k = 1; k < plan->key_count; k++) {
		remote_key_get(plan, &plan->keys[k], other);
		for (i = 0; i < count; i++) {
			struct remote_argument x = {.value = first[i]}, y = {.value = other[i]};

			if (plan->fixed[i].skip)
				continue;
			buf_clear(&a);
			buf_clear(&b);
			remote_arguments_put(&a, &x, 1);
			remote_arguments_put(&b, &y, 1);
			plan->fixed[i].skip = a.failed || a.len != b.len || memcmp(a.data, b.data, a.len) != 0;
		}
	}
	for (i = 0; i < count; i++)
		if (!plan->fixed[i].skip)
			plan->fixed[i].value = first[i]; /* its bytes are in key_values */
	for (i = 0; i < count; i++)
		if (!plan->fixed[i].skip && !remote_condition_is_unary(&plan->shape.conditions[i]) &&
		    !remote_condition_may_push(&plan->shape, &plan->shape.conditions[i], &plan->fixed[i].value))
			plan->fixed[i].skip = true;
	free(first);
	free(other);
	buf_fini(&a);
	buf_fini(&b);
	return QUERY_OK;
}

/* Whether whole has the rows of this key. */
bool remote_whole_has(const struct remote_plan *plan, const struct remote_argument *arguments)
{
	struct buf a = {0}, b = {0};
	bool same = true;
	size_t i;

	for (i = 0; i < plan->shape.condition_count && same; i++) {
		if (plan->fixed[i].skip || remote_condition_is_unary(&plan->shape.conditions[i]))
			continue;
		buf_clear(&a);
		buf_clear(&b);
		remote_arguments_put(&a, &plan->fixed[i], 1);
		remote_arguments_put(&b, &arguments[i], 1);
		same = !a.failed && !b.failed && a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
	}
	buf_fini(&a);
	buf_fini(&b);
	return same;
}

enum query_code remote_whole_start(struct remote_plan *plan)
{
	struct remote_result *before = plan->whole;
	enum query_code code = find_fixed(plan);

	if (code != QUERY_OK)
		return code;
	plan->whole = remote_result_start(plan, plan->fixed, UINT64_MAX, true);
	if (plan->whole == NULL) {
		plan->whole = before;
		return plan->query->error.code;
	}
	if (before != NULL) { /* rows of it may still be looked at */
		before->next = plan->results;
		plan->results = before;
	}
	row_index_free(plan->index);
	plan->index = NULL;
	return QUERY_OK;
}

enum query_code remote_whole_finish(struct remote_plan *plan)
{
	enum query_code code = remote_result_load(plan->whole);

	if (code == QUERY_OK)
		code = build_index(plan);
	plan->want_whole = false;
	return code;
}

enum query_code remote_whole_find(struct remote_cursor *c, struct remote_plan *plan,
				  const struct remote_argument *arguments)
{
	uint32_t hash;

	c->store = plan->whole->store;
	if (plan->index != NULL && hash_key(plan, arguments, &hash)) {
		c->source = SOURCE_INDEX;
		c->row = row_index_find(plan->index, hash);
		c->eof = c->row == NULL;
		return QUERY_OK;
	}
	c->source = SOURCE_STORE;
	c->result = plan->whole;
	memset(&c->walk, 0, sizeof(c->walk));
	return remote_cursor_next(c);
}

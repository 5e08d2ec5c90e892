/*
 * remote_keys.c - see remote_query.h: scans in a loop, and the keys they look for.
 *
 * Keys are told apart by the bytes of their values. A key's rows are a list in the order the other node gave them. When the
 * keys are too many, the table is fetched instead (remote_whole.c).
 */
#include "common/remote/remote_query.h"

#include <assert.h>
#include <stdlib.h>
#include <xxhash.h>

#define KEYS_PER_REQUEST 500 /* at least, when there are that many */
#define REQUESTS_AT_ONCE 3
#define KEYS_FEW         2000 /* up to so many are always asked for by key */
#define KEYS_FEW_SLOW    100  /* the same when each request makes the other node read the whole table */
#define KEYS_FEW_QUERY   500  /* the same of a subquery or view */
#define ROUNDS_MAX       8    /* of collecting: a recursive query finds its keys one level at a time */
#define STRANGE_MAX      1000 /* keys that no collecting pass has seen */

/* ---- keys */

static bool grow_slots(struct remote_plan *plan)
{
	size_t size = plan->key_slots != NULL ? (plan->slot_mask + 1) * 2 : 256, i, at;
	uint32_t *slots;

	if (plan->key_slots != NULL && (plan->key_count + 1) * 2 <= plan->slot_mask + 1)
		return true;
	slots = calloc(size, sizeof(*slots));
	if (slots == NULL)
		return false;
	for (i = 0; i < plan->key_count; i++) {
		at = plan->keys[i].hash & (size - 1);
		while (slots[at] != 0)
			at = (at + 1) & (size - 1);
		slots[at] = (uint32_t)i + 1;
	}
	free(plan->key_slots);
	plan->key_slots = slots;
	plan->slot_mask = size - 1;
	return true;
}

static bool make_key_room(struct remote_plan *plan)
{
	struct remote_key *grown;

	if (plan->key_values == NULL)
		plan->key_values = row_store_create(&plan->query->budget, plan->shape.condition_count);
	if (plan->key_rows == NULL)
		plan->key_rows = row_store_create(&plan->query->budget, plan->shape.column_count);
	if (plan->key_values == NULL || plan->key_rows == NULL || !grow_slots(plan))
		return false;
	if (plan->key_count < plan->key_room)
		return true;
	grown = realloc(plan->keys, (plan->key_room + 256) * 2 * sizeof(*grown));
	if (grown == NULL)
		return false;
	plan->keys = grown;
	plan->key_room = (plan->key_room + 256) * 2;
	return true;
}

/* The key with these values, added when it is new. NULL: q->error. */
static struct remote_key *find_key(struct remote_plan *plan, const struct remote_argument *arguments,
				   struct query_value *values)
{
	struct query_error error = {.statement = -1};
	struct errmsg em = {0};
	struct stored_row *row;
	size_t i, at;
	uint32_t hash;
	enum db_err err;

	if (!make_key_room(plan)) {
		remote_query_no_memory(plan->query);
		return NULL;
	}
	for (i = 0; i < plan->shape.condition_count; i++) {
		values[i] = arguments[i].value;
		if (arguments[i].list != NULL)
			values[i].type = QUERY_NULL;
	}
	err = row_store_add(plan->key_values, values, &row, &em);
	if (err != DB_OK) {
		query_error_set(&error, err == DB_TOO_LARGE ? QUERY_TOO_LARGE : QUERY_INTERNAL, "%s: %s",
				plan->unit->name, em.text);
		remote_query_fail(plan->query, &error);
		return NULL;
	}
	hash = (uint32_t)XXH3_64bits(row->bytes, row->size);
	for (at = hash & plan->slot_mask; plan->key_slots[at] != 0; at = (at + 1) & plan->slot_mask) {
		struct remote_key *key = &plan->keys[plan->key_slots[at] - 1];

		if (key->hash == hash && row_store_same(key->values, row)) {
			row_store_drop_last(plan->key_values, row);
			return key;
		}
	}
	plan->keys[plan->key_count] = (struct remote_key){.hash = hash, .values = row};
	plan->key_slots[at] = (uint32_t)++plan->key_count;
	return &plan->keys[plan->key_count - 1];
}

bool remote_plan_is_indexed(const struct remote_plan *plan)
{
	const struct remote_shape *shape = &plan->shape;
	size_t i;

	for (i = 0; i < shape->condition_count; i++) {
		const struct remote_condition *c = &shape->conditions[i];

		if (remote_condition_is_hashed(c) && c->collation == NULL &&
		    (c->column < 0 || shape->schema->columns[c->column].indexed))
			return true;
	}
	return false;
}

/* Whether the table had better be fetched once. */
static bool are_too_many(const struct remote_plan *plan)
{
	const struct remote_schema *schema = plan->shape.schema;
	uint64_t rows = atomic_load(&schema->rows), few = KEYS_FEW, share = rows == UINT64_MAX ? 0 : rows / 5;

	if (!remote_plan_has_hashed(plan))
		return false; /* every key would have to look at every row */
	if (schema->rowid_name == NULL && !schema->without_rowid)
		return plan->key_count > KEYS_FEW_QUERY;
	if (!remote_plan_is_indexed(plan)) {
		few = KEYS_FEW_SLOW;
		share /= 4;
	}
	if (plan->rounds >= ROUNDS_MAX)
		return true;
	return plan->key_count > (few > share ? few : share);
}

/* ---- asking for keys */

/* One request under way: keys from first on. */
struct key_request {
	size_t first, count;
	struct remote_ask *ask;
};

static enum query_code start_request(struct remote_plan *plan, struct key_request *r)
{
	struct remote_query *q = plan->query;
	const struct remote_name name = {plan->unit->address, plan->unit->name};
	size_t conditions = plan->shape.condition_count, i;
	struct remote_key_values *keys = calloc(r->count, sizeof(*keys));
	struct query_value *values = calloc(r->count * conditions, sizeof(*values));
	struct query_error error = {.statement = -1};
	struct buf statements = {0};
	enum query_code code = QUERY_OK;

	for (i = 0; keys != NULL && values != NULL && i < r->count; i++) {
		remote_key_get(plan, &plan->keys[r->first + i], values + i * conditions);
		keys[i].values = values + i * conditions;
	}
	if (keys != NULL && values != NULL)
		remote_sql_put_keys(&statements, &plan->shape, keys, r->count);
	if (keys == NULL || values == NULL || statements.failed) {
		code = remote_query_no_memory(q);
	} else if (remote_ask_start(&r->ask, &q->asker, &name, (const char *)statements.data, statements.len, &error) !=
		   QUERY_OK) {
		code = remote_query_fail(q, &error);
	}
	free(keys);
	free(values);
	buf_fini(&statements);
	return code;
}

static enum query_code take_row(struct remote_plan *plan, const struct key_request *r, const struct query_value *values)
{
	struct query_error error = {.statement = -1};
	struct errmsg em = {0};
	struct stored_row *row;
	struct remote_key *key;
	enum db_err err;

	if (values[0].type != QUERY_INTEGER || values[0].integer < 0 || (uint64_t)values[0].integer >= r->count) {
		query_error_set(&error, QUERY_REMOTE_ERROR, "%s: its answer is damaged: a key that was not asked for",
				plan->unit->name);
		return remote_query_fail(plan->query, &error);
	}
	key = &plan->keys[r->first + (size_t)values[0].integer];
	err = row_store_add(plan->key_rows, values + 1, &row, &em);
	if (err != DB_OK) {
		query_error_set(&error, err == DB_TOO_LARGE ? QUERY_TOO_LARGE : QUERY_INTERNAL, "%s: %s",
				plan->unit->name, em.text);
		return remote_query_fail(plan->query, &error);
	}
	if (key->last != NULL)
		key->last->next = row;
	else
		key->first = row;
	key->last = row;
	return QUERY_OK;
}

/* Reads the request's rows to the end or, unless wait, as far as they have come. *read: some have. */
static enum query_code read_request(struct remote_plan *plan, struct key_request *r, bool wait, bool *read)
{
	const struct query_value *values;
	enum query_code code = QUERY_OK;
	bool busy = false;
	size_t i;

	*read = false;
	while (code == QUERY_OK && r->ask != NULL && !busy) {
		code = remote_next_row(plan, r->ask, plan->shape.column_count + 1, wait, &values, &busy);
		*read = *read || !busy;
		if (code == QUERY_OK && values != NULL) {
			code = take_row(plan, r, values);
		} else if (code == QUERY_OK && !busy) {
			remote_ask_free(r->ask);
			r->ask = NULL;
			for (i = 0; i < r->count; i++)
				plan->keys[r->first + i].known = true;
		}
	}
	return code;
}

int remote_keys_read_meanwhile(struct remote_plan *plan, const struct remote_ask *waited_for)
{
	bool read, any = false;
	size_t i;

	for (i = 0; plan->requests != NULL && i < REQUESTS_AT_ONCE; i++) {
		struct key_request *r = &plan->requests[i];

		if (r->ask == NULL || r->ask == waited_for)
			continue;
		if (read_request(plan, r, false, &read) != QUERY_OK)
			return -1;
		any = any || read;
	}
	return any;
}

/* All keys from plan->asked on, a few requests at once. */
static enum query_code fetch_keys(struct remote_plan *plan)
{
	size_t pending = plan->key_count - plan->asked, share = (pending + REQUESTS_AT_ONCE - 1) / REQUESTS_AT_ONCE;
	size_t per_request = share > KEYS_PER_REQUEST ? share : KEYS_PER_REQUEST, max, i, begun = 0, ended = 0;
	struct key_request requests[REQUESTS_AT_ONCE] = {{0}};
	enum query_code code = QUERY_OK;
	bool read;

	max = remote_sql_keys_max(&plan->shape);
	if (per_request > max)
		per_request = max;
	plan->rounds++;
	plan->requests = requests;
	while (code == QUERY_OK && (plan->asked < plan->key_count || ended < begun)) {
		if (plan->asked < plan->key_count && begun - ended < REQUESTS_AT_ONCE) {
			struct key_request *r = &requests[begun % REQUESTS_AT_ONCE];
			size_t left = plan->key_count - plan->asked;

			*r = (struct key_request){.first = plan->asked,
						  .count = left < per_request ? left : per_request};
			code = start_request(plan, r);
			plan->asked += r->count;
			begun++;
		} else {
			code = read_request(plan, &requests[ended++ % REQUESTS_AT_ONCE], true, &read);
		}
	}
	plan->requests = NULL;
	for (i = 0; i < REQUESTS_AT_ONCE; i++)
		remote_ask_free(requests[i].ask);
	return code;
}

enum query_code remote_query_fetch_keys(struct remote_query *q)
{
	enum query_code code = QUERY_OK;
	size_t i;

	for (i = 0; i < q->plan_count && q->prefer_keys; i++)
		if (q->plans[i]->want_whole ||
		    (q->plans[i]->asked < q->plans[i]->key_count && are_too_many(q->plans[i]))) {
			q->replan = true; /* it may be better to begin with the other node's table */
			return QUERY_OK;
		}
	for (i = 0; i < q->plan_count && code == QUERY_OK; i++)
		if (q->plans[i]->want_whole ||
		    (q->plans[i]->asked < q->plans[i]->key_count && are_too_many(q->plans[i]))) {
			q->plans[i]->want_whole = true;
			q->plans[i]->asked = q->plans[i]->key_count;
			code = remote_whole_start(q->plans[i]);
		}
	for (i = 0; i < q->plan_count && code == QUERY_OK; i++)
		if (q->plans[i]->asked < q->plans[i]->key_count)
			code = fetch_keys(q->plans[i]);
	for (i = 0; i < q->plan_count && code == QUERY_OK; i++)
		if (q->plans[i]->want_whole)
			code = remote_whole_finish(q->plans[i]);
	return code;
}

/* ---- the scan */

static enum query_code set_list(struct remote_cursor *c, const struct remote_plan *plan, const struct remote_key *key)
{
	c->source = SOURCE_LIST;
	c->store = plan->key_rows;
	c->row = key->first;
	c->eof = c->row == NULL;
	return QUERY_OK;
}

/* A pass that ought to have known all keys meets another, when rows have gone to the client already: its value differs
 * from pass to pass (random(), say). */
static enum query_code fetch_strange(struct remote_plan *plan)
{
	struct query_error error = {.statement = -1};

	if (++plan->strange <= STRANGE_MAX)
		return fetch_keys(plan);
	query_error_set(&error, QUERY_SQL_ERROR,
			"%s: what it is joined with changes while the query runs: random values, or the time?",
			plan->unit->name);
	return remote_query_fail(plan->query, &error);
}

/* Nothing can be known of a key that has a value the other node must not compare: only all rows will do. */
static bool is_pushable(const struct remote_plan *plan, const struct remote_argument *arguments)
{
	size_t i;

	for (i = 0; i < plan->shape.condition_count; i++)
		if (arguments[i].skip && !plan->shape.conditions[i].is_in)
			return false;
	return true;
}

enum query_code remote_keys_filter(struct remote_cursor *c, struct remote_plan *plan, struct remote_argument *arguments)
{
	struct remote_query *q = plan->query;
	struct remote_key *key;
	enum query_code code;

	c->source = SOURCE_NONE;
	c->eof = true;
	if (plan->whole != NULL && plan->whole->ask == NULL && !plan->want_whole) {
		if (remote_whole_has(plan, arguments))
			return remote_whole_find(c, plan, arguments);
		plan->want_whole = true; /* without what was fixed */
	}
	if (!plan->want_whole && is_pushable(plan, arguments)) {
		key = find_key(plan, arguments, c->room);
		if (key == NULL)
			return q->error.code;
		if (key->known)
			return set_list(c, plan, key);
		if (q->sent) {
			code = fetch_strange(plan);
			return code == QUERY_OK ? set_list(c, plan, key) : code;
		}
		plan->want_whole = are_too_many(plan);
	} else {
		plan->want_whole = true;
	}
	if (q->sent) {
		code = remote_whole_start(plan);
		if (code == QUERY_OK)
			code = remote_whole_finish(plan);
		return code == QUERY_OK ? remote_whole_find(c, plan, arguments) : code;
	}
	q->missed = true;
	q->abort = plan->want_whole;
	return QUERY_OK;
}

void remote_keys_fini(struct remote_plan *plan)
{
	remote_result_free(plan->whole);
	row_index_free(plan->index);
	row_store_free(plan->key_rows);
	row_store_free(plan->key_values);
	free(plan->keys);
	free(plan->key_slots);
	free(plan->fixed);
}

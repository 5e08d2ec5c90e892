/* remote_query.c - see remote_query.h: what a query consists of. */
#include "common/remote/remote_query.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

static void free_shape(struct remote_shape *shape)
{
	free(shape->columns);
	free(shape->conditions);
	free(shape->orders);
}

static void free_plan(struct remote_plan *plan)
{
	struct remote_result *r;

	if (plan == NULL)
		return;
	remote_keys_fini(plan);
	while ((r = plan->results) != NULL) {
		plan->results = r->next;
		remote_result_free(r);
	}
	free_shape(&plan->shape);
	free(plan->position);
	free(plan->shape_text);
	free(plan);
}

static void free_unit(struct remote_unit *u)
{
	remote_schema_release(u->schema);
	free(u->module);
	free(u->table);
	free(u);
}

void remote_query_fini(struct remote_query *q)
{
	size_t i;

	for (i = 0; i < q->plan_count; i++)
		free_plan(q->plans[i]);
	for (i = 0; i < q->unit_count; i++)
		free_unit(q->units[i]);
	free(q->plans);
	free(q->units);
	q->plans = NULL;
	q->units = NULL;
	q->plan_count = q->plan_room = q->unit_count = 0;
}

struct remote_unit *remote_query_find_unit(struct remote_query *q, const char *module)
{
	size_t i;

	for (i = 0; i < q->unit_count; i++)
		if (strcasecmp(q->units[i]->module, module) == 0)
			return q->units[i];
	return NULL;
}

struct remote_unit *remote_query_add_unit(struct remote_query *q, const char *module, const char *address,
					  const char *name, const char *table)
{
	struct remote_unit **grown, *u;

	u = remote_query_find_unit(q, module);
	if (u != NULL)
		return u;
	grown = realloc(q->units, (q->unit_count + 1) * sizeof(struct remote_unit *));
	if (grown == NULL)
		return NULL;
	q->units = grown;
	u = calloc(1, sizeof(*u));
	if (u == NULL)
		return NULL;
	u->query = q;
	u->module = strdup(module);
	u->table = table != NULL ? strdup(table) : NULL;
	snprintf(u->address, sizeof(u->address), "%s", address);
	snprintf(u->name, sizeof(u->name), "%s", name);
	if (u->module == NULL || (table != NULL && u->table == NULL)) {
		free_unit(u);
		return NULL;
	}
	q->units[q->unit_count++] = u;
	return u;
}

void remote_query_drop_unit(struct remote_query *q, struct remote_unit *unit)
{
	assert(q->unit_count > 0 && q->units[q->unit_count - 1] == unit);
	q->unit_count--;
	free_unit(unit);
}

/* ---- plans */

static void put_shape(struct buf *out, const struct remote_unit *unit, const struct remote_shape *shape)
{
	size_t i;

	buf_printf(out, "%p", (const void *)unit);
	for (i = 0; i < shape->column_count; i++)
		buf_printf(out, ",%d", shape->columns[i]);
	for (i = 0; i < shape->condition_count; i++)
		buf_printf(out, ";%d:%d:%s:%d", shape->conditions[i].column, shape->conditions[i].op,
			   shape->conditions[i].collation != NULL ? shape->conditions[i].collation : "",
			   shape->conditions[i].is_in);
	for (i = 0; i < shape->order_count; i++)
		buf_printf(out, "/%d:%d", shape->orders[i].column, shape->orders[i].descending);
	buf_printf(out, "|%d|%d|%d", shape->distinct, shape->limit, shape->offset);
	buf_put_u8(out, '\0');
}

static bool fill_positions(struct remote_plan *plan)
{
	size_t columns = plan->unit->schema->column_count, i;
	const struct remote_shape *shape = &plan->shape;

	plan->position = malloc((columns + 1) * sizeof(*plan->position));
	if (plan->position == NULL)
		return false;
	for (i = 0; i <= columns; i++)
		plan->position[i] = -1;
	for (i = 0; i < shape->column_count; i++) {
		if (shape->columns[i] >= 0)
			plan->position[shape->columns[i]] = (int)i;
		if (shape->columns[i] == REMOTE_ROWID ||
		    (shape->columns[i] >= 0 && shape->columns[i] == shape->schema->rowid_column))
			plan->position[columns] = (int)i;
	}
	return true;
}

static bool is_keyed(const struct remote_shape *shape)
{
	size_t i;

	for (i = 0; i < shape->condition_count; i++)
		if (!shape->conditions[i].is_in && !remote_condition_is_unary(&shape->conditions[i]))
			return true;
	return false;
}

static struct remote_plan *create_plan(struct remote_query *q, struct remote_unit *unit, struct remote_shape *shape)
{
	struct remote_plan *plan = calloc(1, sizeof(*plan)), **grown;

	if (plan == NULL)
		return NULL;
	plan->query = q;
	plan->unit = unit;
	plan->id = q->plan_count;
	plan->shape = *shape;
	plan->in_loop = true; /* until it is known better */
	plan->keyed = is_keyed(shape);
	snprintf(plan->label, sizeof(plan->label), "#%zu", plan->id);
	if (q->plan_count == q->plan_room) {
		q->plan_room = q->plan_room > 0 ? 2 * q->plan_room : 16;
		grown = realloc(q->plans, q->plan_room * sizeof(struct remote_plan *));
		if (grown != NULL)
			q->plans = grown;
		else
			q->plan_room = q->plan_count;
	}
	if (q->plan_count < q->plan_room && fill_positions(plan)) {
		q->plans[q->plan_count++] = plan;
		return plan;
	}
	memset(&plan->shape, 0, sizeof(plan->shape)); /* the caller's still */
	free_plan(plan);
	return NULL;
}

struct remote_plan *remote_query_add_plan(struct remote_query *q, struct remote_unit *unit, struct remote_shape *shape)
{
	struct remote_plan *plan = NULL;
	struct buf text = {0};
	size_t i, len;

	put_shape(&text, unit, shape);
	for (i = 0; !text.failed && i < q->plan_count; i++)
		if (strcmp(q->plans[i]->shape_text, (const char *)text.data) == 0)
			break;
	if (text.failed) {
		free_shape(shape);
	} else if (i < q->plan_count) {
		free_shape(shape);
		plan = q->plans[i];
	} else if ((plan = create_plan(q, unit, shape)) != NULL) {
		plan->shape_text = (char *)buf_take(&text, &len);
	} else {
		free_shape(shape);
	}
	buf_fini(&text);
	return plan;
}

/* ---- errors, values */

enum query_code remote_query_fail(struct remote_query *q, const struct query_error *error)
{
	if (q->error.code == QUERY_OK) {
		q->error = *error;
		q->error.statement = -1;
	}
	return q->error.code;
}

enum query_code remote_query_no_memory(struct remote_query *q)
{
	struct query_error error = {.statement = -1};

	query_error_set(&error, QUERY_INTERNAL, "out of memory");
	return remote_query_fail(q, &error);
}

static void put_value(struct buf *out, const struct query_value *v)
{
	uint64_t n = 0;

	buf_put_u8(out, (uint8_t)v->type);
	if (v->type == QUERY_INTEGER) {
		buf_put_u64le(out, (uint64_t)v->integer);
	} else if (v->type == QUERY_REAL) {
		memcpy(&n, &v->real, sizeof(n));
		buf_put_u64le(out, n);
	} else if (v->type != QUERY_NULL) {
		buf_put_u64le(out, v->data.len);
		buf_put(out, v->data.bytes, v->data.len);
	}
}

void remote_arguments_put(struct buf *out, const struct remote_argument *arguments, size_t count)
{
	size_t i, j;

	for (i = 0; i < count; i++) {
		const struct remote_argument *a = &arguments[i];

		buf_put_u8(out, (uint8_t)(a->skip ? 2 : a->list != NULL));
		if (a->list == NULL) {
			put_value(out, &a->value);
			continue;
		}
		buf_put_u64le(out, a->list_len);
		for (j = 0; j < a->list_len; j++)
			put_value(out, &a->list[j]);
	}
}

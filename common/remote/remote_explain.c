/* remote_explain.c - see remote_explain.h. */
#include "common/remote/remote_explain.h"

#include <inttypes.h>

static const char *strategy_of(const struct remote_plan *plan)
{
	if (plan->in_loop && plan->keyed && remote_plan_is_indexed(plan))
		return "keys, many in a request; the table once and found by hash when there are too many";
	if (plan->in_loop && plan->keyed)
		return "keys, many in a request; the table once and found by hash when there are more than a few";
	if (plan->in_loop)
		return "fetched once, kept and read again";
	return plan->query->has_keyed ? "fetched once and kept" : "fetched once, read as it comes";
}

static void put_row(struct buf *out, const struct remote_plan *plan, bool first)
{
	uint64_t rows = atomic_load(&plan->shape.schema->rows);
	const char *strategy = strategy_of(plan);
	struct buf sql = {0};

	remote_sql_put_text(&sql, &plan->shape, plan->in_loop && plan->keyed);
	buf_puts(out, first ? "[" : ",[");
	json_put_string(out, plan->unit->name, strlen(plan->unit->name));
	buf_put_u8(out, ',');
	json_put_string(out, plan->unit->address, strlen(plan->unit->address));
	buf_put_u8(out, ',');
	json_put_string(out, (const char *)sql.data, sql.len);
	buf_put_u8(out, ',');
	json_put_string(out, strategy, strlen(strategy));
	if (plan->shape.schema->is_query || rows == UINT64_MAX)
		buf_puts(out, ",null]");
	else
		buf_printf(out, ",%" PRIu64 "]", rows);
	out->failed = out->failed || sql.failed;
	buf_fini(&sql);
}

enum query_outcome remote_explain(struct remote_query *q, struct run *r)
{
	size_t i, count = 0;

	if (r->request->format != QUERY_ROWS) {
		query_error_set(r->error, QUERY_BAD_REQUEST, "EXPLAIN FEDERATED answers in format \"rows\" only");
		return QUERY_FAILED;
	}
	buf_puts(r->out, r->sink != NULL ? "{" : "{\"status\":\"ok\",");
	if (r->request->from_statements)
		buf_puts(r->out, "\"results\":[{");
	buf_puts(r->out, "\"columns\":[\"table\",\"node\",\"sql\",\"strategy\",\"rows\"],"
			 "\"types\":[\"\",\"\",\"\",\"\",\"\"],\"rows\":[");
	for (i = 0; i < q->plan_count; i++)
		if (q->plans[i]->chosen)
			put_row(r->out, q->plans[i], count++ == 0);
	buf_printf(r->out, "],\"row_count\":%zu", count);
	if (r->request->from_statements)
		buf_puts(r->out, "}]");
	return r->out->failed ? run_out_of_memory(r) : QUERY_ANSWERED;
}

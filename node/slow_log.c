/* slow_log.c - see slow_log.h. */
#include "node/slow_log.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/base/buf.h"
#include "common/base/log.h"
#include "common/query/explain.h"

#define SQL_BYTES_MAX 1500

void slow_log_set(struct slow_log *l, uint64_t threshold_ms)
{
	atomic_store_explicit(&l->threshold_us, threshold_ms * 1000, memory_order_relaxed);
}

static const char *text_of(struct buf *b)
{
	buf_put(b, "", 1);
	return b->failed ? "(out of memory)" : (const char *)b->data;
}

void slow_log_write(struct slow_log *l, struct query_conn *c, const struct query_request *request, const char *kind,
		    uint64_t elapsed_us)
{
	struct buf sql = {0};
	struct buf plan = {0};
	char ms[32];

	atomic_fetch_add_explicit(&l->slow_total, 1, memory_order_relaxed);
	snprintf(ms, sizeof(ms), "%" PRIu64 ".%03u", elapsed_us / 1000, (unsigned)(elapsed_us % 1000));
	query_put_shape(&sql, request, SQL_BYTES_MAX);
	query_put_plan(&plan, c, request);
	log_event(
	    LOG_LEVEL_WARN, "slow query",
	    (const struct log_field[]){{"kind", kind}, {"ms", ms}, {"sql", text_of(&sql)}, {"plan", text_of(&plan)}},
	    4);
	buf_fini(&sql);
	buf_fini(&plan);
}

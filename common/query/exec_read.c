/*
 * exec_read.c - query_read() of exec.h: one request in one snapshot.
 *
 * Called on HTTP workers (with a budget) and slow-query threads (with a sink). An explicit transaction holds the snapshot
 * until its LSN has been asked for, so that the LSN in the answer is exactly the one that was read.
 */
#include "common/query/run.h"

#include "common/base/clock.h"
#include "common/query/typed_rows.h"

/* started_us may have come from another thread's clock reading; never negative. */
static uint64_t elapsed_since(uint64_t started_us)
{
	uint64_t now = clock_mono_us();

	return now > started_us ? now - started_us : 0;
}

static void put_end(struct run *r, uint64_t lsn, uint64_t started_us)
{
	const char *node = r->c->options.node_id;

	if (r->request->format == QUERY_NDJSON)
		return;
	if (r->typed) {
		typed_rows_put_end(r->out, r->index, lsn);
		return;
	}
	if (r->sink == NULL) {
		answer_put_trailer(r->out, lsn, node, elapsed_since(started_us));
		return;
	}
	answer_put_trailer_fields(r->out, lsn, node, elapsed_since(started_us));
	buf_puts(r->out, ",\"status\":\"ok\"}\n");
}

/* Runs the request and learns its LSN while the snapshot is held. */
static enum query_outcome run_in_snapshot(struct run *r, const struct query_read_limits *limits, uint64_t *lsn)
{
	struct query_conn *c = r->c;
	enum query_outcome outcome;
	int rc = conn_control(c, CONN_BEGIN);

	if (rc != SQLITE_OK)
		goto fail;
	guard_arm(&c->guard, limits->ops_max, limits->deadline_ms, limits->cancelled);
	outcome = run_request(r);
	*lsn = c->options.snapshot_lsn != NULL ? c->options.snapshot_lsn(c->db) : 0;
	guard_disarm(&c->guard);
	if (outcome != QUERY_ANSWERED) {
		conn_rollback(c);
		return outcome;
	}
	rc = conn_control(c, CONN_COMMIT);
	if (rc == SQLITE_OK)
		return QUERY_ANSWERED;
fail:
	conn_error(c, rc, r->error);
	conn_rollback(c);
	return QUERY_FAILED;
}

enum query_outcome query_read(struct query_conn *c, const struct query_request *request,
			      const struct query_read_limits *limits, const struct query_sink *sink,
			      uint64_t started_us, struct buf *out, struct query_error *error)
{
	struct run r = {
	    .c = c,
	    .request = request,
	    .error = error,
	    .out = out,
	    .sink = sink,
	    .bytes_max = limits->bytes_max,
	    .result_rows_max = limits->result_rows_max,
	    .result_bytes_max = limits->result_bytes_max,
	    .reading = true,
	    .typed = request->typed && request->format == QUERY_ROWS,
	    .start = out->len,
	    .whole = out->len,
	};
	enum query_outcome outcome;
	uint64_t lsn = 0;

	outcome = run_in_snapshot(&r, limits, &lsn);
	if (outcome == QUERY_ANSWERED) {
		put_end(&r, lsn, started_us);
		if (out->failed)
			outcome = run_out_of_memory(&r);
	}
	return outcome == QUERY_ANSWERED ? outcome : run_break_off(&r, outcome);
}

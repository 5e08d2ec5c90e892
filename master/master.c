/* master.c - see master.h. */
#include "master/master.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/base/log.h"

struct master {
	struct master_options options;
	uint64_t term_start_lsn;
	atomic_bool ready;
	bool stopped;
	struct writer *writer;
	struct replication *replication;
};

static void on_sealed(void *arg)
{
	struct master *m = arg;

	replication_on_sealed(m->replication);
}

static void on_durable(void *arg, uint64_t lsn)
{
	struct master *m = arg;

	replication_on_local_durable(m->replication, lsn);
}

static void on_failed(void *arg, const char *reason)
{
	struct master *m = arg;

	m->options.on_failed(m->options.arg, reason);
}

static void on_deposed(void *arg, uint64_t term)
{
	struct master *m = arg;

	m->options.on_deposed(m->options.arg, term);
}

/* Readers first: whoever is told that its write is done must be able to read it. */
static void on_committed(void *arg, uint64_t lsn)
{
	struct master *m = arg;

	store_set_committed(m->options.store, lsn);
	if (!atomic_exchange(&m->ready, true)) {
		log_info("master of term %" PRIu64 " is ready at lsn=%" PRIu64, m->options.term, lsn);
		m->options.on_ready(m->options.arg);
	}
	writer_on_committed(m->writer, lsn);
}

static enum db_err start_term(struct master *m, struct errmsg *em)
{
	struct store *store = m->options.store;
	enum db_err err;

	err = store_apply(store, store_tip_lsn(store), em);
	if (err != DB_OK)
		return err;
	store_set_term(store, m->options.term);
	return store_append_term_start(store, &m->term_start_lsn, em);
}

static enum db_err start_parts(struct master *m, struct errmsg *em)
{
	const struct writer_options writer = {.store = m->options.store,
					      .node_id = m->options.node_id,
					      .commit_timeout_ms = m->options.config->commit_timeout_ms,
					      .queue_max = m->options.config->query.write_queue_max,
					      .pipeline_depth = m->options.config->commit_pipeline_depth,
					      .receipts = {.count_max = m->options.config->retries.count_max,
							   .age_max_ms = m->options.config->retries.age_max_ms,
							   .bytes_max = m->options.config->retries.bytes_max},
					      .first_lsn = m->term_start_lsn,
					      .on_sealed = on_sealed,
					      .on_durable = on_durable,
					      .on_failed = on_failed,
					      .arg = m};
	const struct replication_options replication = {.store = m->options.store,
							.config = m->options.config,
							.node = m->options.node,
							.term = m->options.term,
							.term_start_lsn = m->term_start_lsn,
							.on_committed = on_committed,
							.on_deposed = on_deposed,
							.arg = m};
	enum db_err err;

	err = writer_create(&m->writer, &writer, em);
	if (err == DB_OK)
		err = replication_create(&m->replication, &replication, em);
	if (err == DB_OK)
		err = writer_start(m->writer, em);
	return err;
}

enum db_err master_create(struct master **out, const struct master_options *options, struct errmsg *em)
{
	struct master *m = calloc(1, sizeof(*m));
	enum db_err err;

	*out = NULL;
	if (m == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	m->options = *options;
	err = start_term(m, em);
	if (err == DB_OK)
		err = start_parts(m, em);
	if (err != DB_OK) {
		master_free(m);
		return err;
	}
	*out = m;
	return DB_OK;
}

void master_stop(struct master *m)
{
	if (m->stopped)
		return;
	m->stopped = true;
	if (m->writer != NULL)
		writer_stop(m->writer);
	replication_free(m->replication);
	m->replication = NULL;
}

void master_free(struct master *m)
{
	if (m == NULL)
		return;
	master_stop(m);
	writer_free(m->writer);
	free(m);
}

enum db_err master_submit(struct master *m, struct write_job *job)
{
	return writer_submit(m->writer, job);
}

enum writer_knowledge master_find(struct master *m, const char *request_id)
{
	return writer_find(m->writer, request_id);
}

void master_on_message(struct master *m, const struct wire_msg *msg)
{
	replication_on_message(m->replication, msg);
}

void master_set_draining(struct master *m, bool draining)
{
	writer_set_draining(m->writer, draining);
}

bool master_is_drained(struct master *m)
{
	return writer_is_drained(m->writer);
}

bool master_is_ready(struct master *m)
{
	return atomic_load(&m->ready);
}

uint64_t master_stuck_ms(struct master *m)
{
	return writer_stuck_ms(m->writer);
}

uint64_t master_committed_lsn(struct master *m)
{
	return replication_committed_lsn(m->replication);
}

size_t master_get_peers(struct master *m, struct replication_peer *out, size_t max)
{
	return replication_get_peers(m->replication, out, max);
}

void master_cut_slow(struct master *m, uint64_t keep_lsn)
{
	replication_cut_slow(m->replication, keep_lsn);
}

void master_get_counters(struct master *m, struct writer_counters *out)
{
	writer_get_counters(m->writer, out);
}

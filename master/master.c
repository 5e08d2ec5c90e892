/* master.c - see master.h. */
#include "master/master.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "master/member_versions.h"
#include "master/members_table.h"

struct master {
	struct master_options options;
	uint64_t term_start_lsn;
	atomic_bool ready;
	bool stopped;
	struct writer *writer;
	struct replication *replication;

	pthread_mutex_t members_call;  /* one master_set_members() at a time; before members_mutex */
	pthread_mutex_t members_mutex; /* guards what follows */
	struct member_versions versions;
	struct write_job job; /* the writer's while versions.writing */
	struct buf job_sql;
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
		pthread_mutex_lock(&m->members_mutex);
		member_versions_on_ready(&m->versions);
		pthread_mutex_unlock(&m->members_mutex);
		log_info("master of term %" PRIu64 " is ready at lsn=%" PRIu64, m->options.term, lsn);
		m->options.on_ready(m->options.arg);
	}
	writer_on_committed(m->writer, lsn);
}

/* Whom to count by: those told, or else those of the log. A supervisor with an old file would count by too few: it is told
 * what the log knows (Raft dissertation, 4.1: the newest configuration in the log holds, committed or not). */
static enum db_err find_members(struct master *m, const struct members *told, struct members *in_log, struct errmsg *em)
{
	struct store *store = m->options.store;
	struct members members;
	enum db_err err;

	memset(in_log, 0, sizeof(*in_log));
	err = store_apply(store, store_tip_lsn(store), em);
	if (err == DB_OK)
		err = members_table_read(in_log, store, m->options.config->cluster_id, em);
	if (err != DB_OK)
		return err;
	if (told != NULL)
		members = *told;
	else if (in_log->version > 0)
		members = *in_log;
	else
		members_init(&members, m->options.config);
	member_versions_init(&m->versions, &members);
	if (!members_votes(members.entries[m->options.node - 1].state))
		return errmsg_set(em, DB_INVALID, "cannot be promoted: it is no voting member");
	return member_versions_found(&m->versions, in_log, em);
}

static enum db_err start_term(struct master *m, struct errmsg *em)
{
	struct store *store = m->options.store;

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
					      .timings = m->options.timings,
					      .arg = m};
	const struct replication_options replication = {.store = m->options.store,
							.config = m->options.config,
							.mesh = m->options.mesh,
							.node = m->options.node,
							.members = &m->versions.force,
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
	m->options.members = NULL; /* it was the caller's */
	pthread_mutex_init(&m->members_call, NULL);
	pthread_mutex_init(&m->members_mutex, NULL);
	m->options.log_members = NULL;
	err = find_members(m, options->members, options->log_members, em);
	if (err == DB_OK)
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
	buf_fini(&m->job_sql);
	pthread_mutex_destroy(&m->members_call);
	pthread_mutex_destroy(&m->members_mutex);
	free(m);
}

/* ---- members */

static void on_members_written(struct write_job *job)
{
	struct master *m = (struct master *)((char *)job - offsetof(struct master, job));

	pthread_mutex_lock(&m->members_mutex);
	if (job->outcome == WRITE_DONE)
		log_info("members version %" PRIu64 " is committed at lsn=%" PRIu64, m->versions.written.version,
			 job->lsn);
	else if (job->outcome == WRITE_ERROR)
		log_warn("members version %" PRIu64 " is not written: %s", m->versions.written.version,
			 job->error.message);
	member_versions_end_write(&m->versions, job->outcome == WRITE_DONE);
	pthread_mutex_unlock(&m->members_mutex);
}

static const struct query_request nobodys;

/* Hands the version in force to the writer, unless that is at it or has done it. members_mutex held. */
static enum db_err write_members(struct master *m, struct errmsg *em)
{
	enum db_err err;

	if (!member_versions_begin_write(&m->versions))
		return DB_OK;
	buf_clear(&m->job_sql);
	members_table_put_sql(&m->job_sql, &m->versions.written, m->options.config->cluster_id);
	if (m->job_sql.failed) {
		member_versions_end_write(&m->versions, false);
		return errmsg_set(em, DB_NOMEM, "out of memory");
	}
	buf_fini(&m->job.answer);
	memset(&m->job, 0, sizeof(m->job));
	m->job.request = &nobodys; /* the writer asks each for its request_id */
	m->job.trusted_sql = (const char *)m->job_sql.data;
	m->job.deadline_ms = clock_mono_ms() + m->options.config->commit_timeout_ms;
	m->job.done = on_members_written;
	pthread_mutex_unlock(&m->members_mutex); /* done() may come before the call returns */
	err = writer_submit(m->writer, &m->job);
	pthread_mutex_lock(&m->members_mutex);
	if (err == DB_OK)
		return DB_OK;
	member_versions_end_write(&m->versions, false);
	return errmsg_set(em, err, "the members cannot be written now");
}

enum db_err master_set_members(struct master *m, const struct members *members, struct errmsg *em)
{
	enum db_err err;
	bool newer;

	pthread_mutex_lock(&m->members_call);
	pthread_mutex_lock(&m->members_mutex);
	err = member_versions_told(&m->versions, members, &newer, em);
	pthread_mutex_unlock(&m->members_mutex);
	if (newer) {
		err = replication_set_members(m->replication, members, em);
		if (err == DB_OK)
			log_info("members version %" PRIu64 ": %u members, %u of them vote", members->version,
				 members_count(members), members_voters(members));
	}
	pthread_mutex_lock(&m->members_mutex);
	if (err == DB_OK) {
		member_versions_set(&m->versions, members);
		err = write_members(m, em);
	}
	pthread_mutex_unlock(&m->members_mutex);
	pthread_mutex_unlock(&m->members_call);
	return err;
}

void master_get_members(struct master *m, struct members *out)
{
	pthread_mutex_lock(&m->members_mutex);
	*out = m->versions.committed;
	pthread_mutex_unlock(&m->members_mutex);
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

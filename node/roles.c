/* roles.c - see roles.h. */
#include "node/roles.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/slotfile.h"
#include "replica/replica.h"

struct roles {
	struct roles_options options;
	struct slotfile promise_file;
	atomic_uint_fast64_t promised_term; /* durable; written under the lock or by the replica's message thread */

	atomic_bool rebuilding;

	pthread_rwlock_t lock; /* guards the two pointers: exactly one is set, none after roles_stop() */
	struct replica *replica;
	struct master *master;
	uint64_t master_term;
	bool draining;
	struct members log_members; /* as seen when it was last to be promoted */

	pthread_mutex_t news_mutex; /* guards everything below; taken last */
	char master_http[WIRE_NAME_MAX];
	uint64_t deposed_by_term;
	char failure[ERRMSG_TEXT_MAX];
	struct snapshot_target *snapshot; /* received whole, not taken yet */
	bool diverged, rebuilt;           /* for roles_take_news() */
	uint64_t told_ms;                 /* when on_change() was last called for them */
};

#define TELL_AGAIN_MS   1000u
#define REBUILDING_TEXT "its log was lost or replaced, and is being rebuilt from the master's"

/* ---- callbacks of the roles: they leave news and wake the main thread */

static enum db_err keep_promise(void *arg, uint64_t term, struct errmsg *em)
{
	struct roles *r = arg;
	uint8_t bytes[8];
	enum db_err err;

	store_u64le(bytes, term);
	err = slotfile_write(&r->promise_file, bytes, sizeof(bytes), em);
	if (err == DB_OK)
		atomic_store(&r->promised_term, term);
	return err;
}

static void set_master_http(struct roles *r, const char *address)
{
	pthread_mutex_lock(&r->news_mutex);
	snprintf(r->master_http, sizeof(r->master_http), "%s", address);
	pthread_mutex_unlock(&r->news_mutex);
}

static void on_master(void *arg, const char *id, const char *http_address, uint64_t term)
{
	struct roles *r = arg;

	log_info("master is %s at %s, term %" PRIu64, id, http_address, term);
	set_master_http(r, http_address);
	r->options.on_change(r->options.arg);
}

static void on_snapshot(void *arg, struct snapshot_target *snapshot)
{
	struct roles *r = arg;

	pthread_mutex_lock(&r->news_mutex);
	snapshot_target_free(r->snapshot);
	r->snapshot = snapshot;
	pthread_mutex_unlock(&r->news_mutex);
	r->options.on_change(r->options.arg);
}

static void on_cut(void *arg, uint64_t keep_lsn)
{
	struct roles *r = arg;

	r->options.on_cut(r->options.arg, keep_lsn);
}

static void on_ready(void *arg)
{
	struct roles *r = arg;

	r->options.on_change(r->options.arg);
}

static void on_deposed(void *arg, uint64_t term)
{
	struct roles *r = arg;

	pthread_mutex_lock(&r->news_mutex);
	if (term > r->deposed_by_term)
		r->deposed_by_term = term;
	pthread_mutex_unlock(&r->news_mutex);
	r->options.on_change(r->options.arg);
}

static void on_failed(void *arg, const char *reason)
{
	struct roles *r = arg;

	pthread_mutex_lock(&r->news_mutex);
	snprintf(r->failure, sizeof(r->failure), "%s", reason);
	pthread_mutex_unlock(&r->news_mutex);
	r->options.on_change(r->options.arg);
}

/* ---- switching; the lock is held exclusively */

static enum db_err start_replica(struct roles *r, struct errmsg *em)
{
	const struct replica_options options = {.store = r->options.store,
						.mesh = r->options.mesh,
						.cluster_id = r->options.config->cluster_id,
						.node_id = r->options.node_id,
						.dir = r->options.dir,
						.promised_term = atomic_load(&r->promised_term),
						.promise = keep_promise,
						.on_snapshot = on_snapshot,
						.on_master = on_master,
						.on_cut = on_cut,
						.arg = r};

	set_master_http(r, "");
	return replica_create(&r->replica, &options, em);
}

static enum db_err start_master(struct roles *r, uint64_t term, const struct members *members, struct errmsg *em)
{
	const struct master_options options = {.store = r->options.store,
					       .config = r->options.config,
					       .mesh = r->options.mesh,
					       .node_id = r->options.node_id,
					       .node = r->options.node,
					       .members = members,
					       .log_members = &r->log_members,
					       .term = term,
					       .on_ready = on_ready,
					       .on_deposed = on_deposed,
					       .on_failed = on_failed,
					       .timings = r->options.timings,
					       .arg = r};

	/* What was heard while we were master of an older term, or were told by somebody who made it up, does not concern
	 * this one: whoever has a newer term says so again. */
	pthread_mutex_lock(&r->news_mutex);
	r->deposed_by_term = 0;
	pthread_mutex_unlock(&r->news_mutex);
	r->draining = false;
	r->master_term = term;
	return master_create(&r->master, &options, em);
}

/* Stops acknowledging at once, then turns replica. When that fails the node has no role left and must end. */
static enum db_err step_down(struct roles *r, uint64_t newer_term, struct errmsg *em)
{
	enum db_err err;

	log_info("steps down: term %" PRIu64 " is superseded by %" PRIu64, r->master_term, newer_term);
	master_free(r->master);
	r->master = NULL;
	r->draining = false;
	err = start_replica(r, em);
	if (err != DB_OK)
		on_failed(r, em->text);
	return err;
}

static enum db_err check_has_role(const struct roles *r, struct errmsg *em)
{
	if (r->master == NULL && r->replica == NULL)
		return errmsg_set(em, DB_CLOSED, "the node is about to end");
	return DB_OK;
}

static enum db_err set_term_locked(struct roles *r, uint64_t term, struct errmsg *em)
{
	uint64_t promised_term = atomic_load(&r->promised_term);
	enum db_err err = check_has_role(r, em);

	if (err != DB_OK)
		return err;
	if (term < promised_term)
		return errmsg_set(em, DB_STALE_TERM, "promised term %" PRIu64 " already", promised_term);
	if (r->master != NULL && r->master_term == term)
		return DB_OK;
	if (r->master != NULL)
		err = step_down(r, term, em);
	if (err == DB_OK)
		err = replica_set_term(r->replica, term, em);
	/* The promise stands, it only does not count. */
	if (err == DB_OK && atomic_load(&r->rebuilding))
		err = errmsg_set(em, DB_INVALID, "cannot be counted on: %s", REBUILDING_TEXT);
	return err;
}

static enum db_err promote_locked(struct roles *r, uint64_t term, const struct members *members, struct errmsg *em)
{
	struct walreceiver_status status;
	struct errmsg again = {0};
	enum db_err err = check_has_role(r, em);

	if (err != DB_OK || (r->master != NULL && r->master_term == term))
		return err;
	if (term != atomic_load(&r->promised_term))
		return errmsg_set(em, DB_STALE_TERM, "term %" PRIu64 " is promised, not %" PRIu64,
				  (uint64_t)atomic_load(&r->promised_term), term);
	if (r->master != NULL)
		return errmsg_set(em, DB_INVALID, "already master of term %" PRIu64, r->master_term);
	if (atomic_load(&r->rebuilding))
		return errmsg_set(em, DB_INVALID, "cannot be promoted: %s", REBUILDING_TEXT);
	replica_get_status(r->replica, &status);
	if (status.diverged || status.state == WALRECEIVER_FAILED)
		return errmsg_set(em, DB_INVALID, "cannot be promoted: %s", status.reason);
	if (status.state == WALRECEIVER_REPLACED)
		return errmsg_set(em, DB_INVALID, "cannot be promoted: a snapshot takes its store's place");
	replica_free(r->replica);
	r->replica = NULL;
	err = start_master(r, term, members, em);
	if (err == DB_OK) {
		log_info("promoted to master of term %" PRIu64, term);
		return DB_OK;
	}
	log_error("cannot become master of term %" PRIu64 ": %s", term, em->text);
	if (start_replica(r, &again) != DB_OK)
		on_failed(r, again.text);
	return err;
}

enum db_err roles_set_term(struct roles *r, uint64_t term, struct errmsg *em)
{
	enum db_err err;

	pthread_rwlock_wrlock(&r->lock);
	err = set_term_locked(r, term, em);
	pthread_rwlock_unlock(&r->lock);
	r->options.on_change(r->options.arg);
	return err;
}

enum db_err roles_promote(struct roles *r, uint64_t term, const struct members *members, struct errmsg *em)
{
	enum db_err err;

	pthread_rwlock_wrlock(&r->lock);
	err = promote_locked(r, term, members, em);
	pthread_rwlock_unlock(&r->lock);
	r->options.on_change(r->options.arg);
	return err;
}

enum db_err roles_set_members(struct roles *r, uint64_t term, const struct members *members, struct errmsg *em)
{
	enum db_err err;

	pthread_rwlock_rdlock(&r->lock);
	if (r->master == NULL)
		err = errmsg_set(em, DB_INVALID, "not the master");
	else if (r->master_term != term)
		err = errmsg_set(em, DB_STALE_TERM, "master of term %" PRIu64 ", not %" PRIu64, r->master_term, term);
	else if (!members_present(members->entries[r->options.node - 1].state))
		err = errmsg_set(em, DB_INVALID, "the master cannot be left out of the members");
	else
		err = master_set_members(r->master, members, em);
	pthread_rwlock_unlock(&r->lock);
	return err;
}

enum db_err roles_drain(struct roles *r, bool draining, struct errmsg *em)
{
	enum db_err err = DB_OK;

	pthread_rwlock_wrlock(&r->lock);
	if (r->master == NULL) {
		err = errmsg_set(em, DB_INVALID, "not the master");
	} else {
		if (draining != r->draining)
			log_info("%s", draining ? "drains: writes wait, a switchover is under way"
						: "resumes: the switchover was given up");
		r->draining = draining;
		master_set_draining(r->master, draining);
	}
	pthread_rwlock_unlock(&r->lock);
	return err;
}

enum db_err roles_settle(struct roles *r, struct errmsg *em)
{
	uint64_t newer_term;
	char failure[ERRMSG_TEXT_MAX];
	enum db_err err = DB_OK;

	pthread_mutex_lock(&r->news_mutex);
	newer_term = r->deposed_by_term;
	memcpy(failure, r->failure, sizeof(failure));
	pthread_mutex_unlock(&r->news_mutex);
	if (failure[0] != '\0')
		return errmsg_set(em, DB_IO, "%s", failure);
	if (newer_term == 0) /* not asking for the lock: who holds it shared may be waiting for the disk */
		return DB_OK;
	pthread_rwlock_wrlock(&r->lock);
	if (r->master != NULL && newer_term > r->master_term)
		err = step_down(r, newer_term, em);
	pthread_rwlock_unlock(&r->lock);
	return err;
}

/* ---- use of the present role; the lock is held shared */

enum db_err roles_submit(struct roles *r, struct write_job *job, struct errmsg *em)
{
	struct disk_report disk;
	char text[ERRMSG_TEXT_MAX];
	enum db_err err = DB_CLOSED;

	pthread_rwlock_rdlock(&r->lock);
	if (r->master != NULL)
		err = disk_watch_is_low(r->options.disk) ? DB_FULL : master_submit(r->master, job);
	pthread_rwlock_unlock(&r->lock);
	if (err == DB_FULL) {
		disk_watch_get_report(r->options.disk, &disk);
		disk_watch_say_low(&disk, text, sizeof(text));
		return errmsg_set(em, DB_FULL, "%s; nothing was changed", text);
	}
	return err == DB_OK ? DB_OK : errmsg_set(em, err, "%s", db_err_text(err));
}

enum writer_knowledge roles_find_write(struct roles *r, const char *request_id)
{
	enum writer_knowledge found = WRITER_UNSURE;

	pthread_rwlock_rdlock(&r->lock);
	if (r->master != NULL)
		found = master_find(r->master, request_id);
	pthread_rwlock_unlock(&r->lock);
	return found;
}

/* Tells the main thread what the replica's message has brought about; again after a while, for it may have failed to
 * write that down. */
static void look_for_news(struct roles *r)
{
	struct walreceiver_status status;
	uint64_t now_ms = clock_mono_ms();
	bool rebuilt = false, tell;

	replica_get_status(r->replica, &status);
	if (atomic_load(&r->rebuilding) && status.state == WALRECEIVER_STREAMING && status.hello_lsn > 0)
		rebuilt = store_durable_lsn(r->options.store) >= status.hello_lsn;
	if (!status.diverged && !rebuilt)
		return;
	pthread_mutex_lock(&r->news_mutex);
	tell = (status.diverged && !r->diverged) || (rebuilt && !r->rebuilt) || now_ms - r->told_ms >= TELL_AGAIN_MS;
	r->diverged = status.diverged;
	r->rebuilt = rebuilt;
	if (tell)
		r->told_ms = now_ms;
	pthread_mutex_unlock(&r->news_mutex);
	if (tell)
		r->options.on_change(r->options.arg);
}

void roles_take_news(struct roles *r, struct roles_news *out)
{
	pthread_mutex_lock(&r->news_mutex);
	out->diverged = r->diverged;
	out->rebuilt = r->rebuilt && atomic_load(&r->rebuilding);
	out->snapshot = r->snapshot;
	r->snapshot = NULL;
	pthread_mutex_unlock(&r->news_mutex);
}

void roles_set_rebuilt(struct roles *r)
{
	atomic_store(&r->rebuilding, false);
}

bool roles_on_replication_message(struct roles *r, const struct wire_msg *msg)
{
	bool welcome = true;

	pthread_rwlock_rdlock(&r->lock);
	if (r->replica != NULL) {
		welcome = replica_on_message(r->replica, msg);
		look_for_news(r);
	} else if (msg->head.type == WIRE_HELLO && msg->head.term > r->master_term &&
		   wire_term_is_credible(msg->head.term, r->master_term)) {
		on_deposed(r, msg->head.term);
	}
	pthread_rwlock_unlock(&r->lock);
	return welcome;
}

void roles_on_ack_message(struct roles *r, const struct wire_msg *msg)
{
	pthread_rwlock_rdlock(&r->lock);
	if (r->master != NULL)
		master_on_message(r->master, msg);
	pthread_rwlock_unlock(&r->lock);
}

void roles_get_view(struct roles *r, struct roles_view *out)
{
	struct walreceiver_status status;

	memset(out, 0, sizeof(*out));
	pthread_rwlock_rdlock(&r->lock);
	out->term = atomic_load(&r->promised_term);
	if (r->master != NULL) {
		out->role = WIRE_ROLE_MASTER;
		out->ready = master_is_ready(r->master);
		out->draining = r->draining;
	} else if (r->replica != NULL) {
		out->role = WIRE_ROLE_REPLICA;
		replica_get_status(r->replica, &status);
		out->ready = status.state == WALRECEIVER_STREAMING;
		out->lag_known = status.caught_up;
		out->lag_ms = walreceiver_lag_ms(&status, clock_mono_ms());
		if (atomic_load(&r->rebuilding))
			out->lag_ms = UINT64_MAX;
		pthread_mutex_lock(&r->news_mutex);
		memcpy(out->master_http, r->master_http, sizeof(out->master_http));
		pthread_mutex_unlock(&r->news_mutex);
	}
	pthread_rwlock_unlock(&r->lock);
}

static void put_master_status(struct roles *r, struct wire_node_status *out)
{
	out->role = WIRE_ROLE_MASTER;
	out->ready = master_is_ready(r->master);
	out->draining = r->draining;
	master_get_members(r->master, &out->members);
	out->committed_lsn = master_committed_lsn(r->master);
	out->state = out->ready ? WIRE_STATE_UP : WIRE_STATE_STARTING;
	/* Not drained while a batch is open, even when everything sealed is committed. */
	if (r->draining && !master_is_drained(r->master))
		out->committed_lsn = out->last.lsn > 0 ? out->last.lsn - 1 : 0;
}

void roles_get_members(struct roles *r, struct members *out)
{
	memset(out, 0, sizeof(*out));
	pthread_rwlock_rdlock(&r->lock);
	if (r->master != NULL)
		master_get_members(r->master, out);
	pthread_rwlock_unlock(&r->lock);
	if (out->version == 0)
		members_init(out, r->options.config);
}

static void put_replica_status(struct roles *r, struct wire_node_status *out)
{
	struct walreceiver_status status;

	replica_get_status(r->replica, &status);
	out->role = WIRE_ROLE_REPLICA;
	out->members = r->log_members;
	out->ready = status.state == WALRECEIVER_STREAMING;
	out->lag_ms = walreceiver_lag_ms(&status, clock_mono_ms());
	memcpy(out->reason, status.reason, sizeof(out->reason));
	if (status.state == WALRECEIVER_FAILED)
		out->state = WIRE_STATE_FAILED;
	else if (status.diverged || atomic_load(&r->rebuilding))
		out->state = WIRE_STATE_DIVERGED;
	else
		out->state = out->ready && out->lag_ms == 0 ? WIRE_STATE_UP : WIRE_STATE_CATCHING_UP;
	if (out->reason[0] == '\0' && atomic_load(&r->rebuilding))
		snprintf(out->reason, sizeof(out->reason), "%s", REBUILDING_TEXT);
	else if (out->reason[0] == '\0' && status.state == WALRECEIVER_SNAPSHOT)
		snprintf(out->reason, sizeof(out->reason), "it receives a snapshot of the database");
}

/* What the disk and the log's thread say; what keeps the node from its promises goes before what its role said. */
static void put_health(struct roles *r, struct wire_node_status *out)
{
	struct disk_report disk;

	disk_watch_get_report(r->options.disk, &disk);
	out->disk_age_ms = disk.age_ms;
	out->disk_busy_ms = disk.busy_ms;
	out->disk_free_bytes = disk.free_bytes;
	out->low_space = disk.low_space;
	out->stuck_ms = r->master != NULL    ? master_stuck_ms(r->master)
			: r->replica != NULL ? replica_stuck_ms(r->replica)
					     : 0;
	pthread_mutex_lock(&r->news_mutex);
	if (r->failure[0] != '\0') {
		out->state = WIRE_STATE_FAILED;
		snprintf(out->reason, sizeof(out->reason), "%.250s", r->failure);
	}
	pthread_mutex_unlock(&r->news_mutex);
	if (out->state == WIRE_STATE_FAILED)
		return;
	if (disk.failure[0] != '\0') {
		out->state = WIRE_STATE_FAILED;
		snprintf(out->reason, sizeof(out->reason), "its disk fails: %.200s", disk.failure);
	} else if (disk.low_space && out->reason[0] == '\0') {
		disk_watch_say_low(&disk, out->reason, sizeof(out->reason));
	}
}

void roles_get_status(struct roles *r, struct wire_node_status *out)
{
	struct store_status store;

	memset(out, 0, sizeof(*out));
	pthread_rwlock_rdlock(&r->lock);
	store_get_status(r->options.store, &store);
	out->promised_term = atomic_load(&r->promised_term);
	out->last = store.tip;
	out->durable_lsn = store.durable_lsn;
	out->applied_lsn = store.applied_lsn;
	out->committed_lsn = store.visible_lsn;
	out->db_checksum = store.db_checksum;
	if (r->master != NULL)
		put_master_status(r, out);
	else if (r->replica != NULL)
		put_replica_status(r, out);
	put_health(r, out);
	pthread_rwlock_unlock(&r->lock);
}

void roles_cut_slow(struct roles *r, uint64_t keep_lsn)
{
	pthread_rwlock_rdlock(&r->lock);
	if (r->master != NULL)
		master_cut_slow(r->master, keep_lsn);
	pthread_rwlock_unlock(&r->lock);
}

size_t roles_get_peers(struct roles *r, struct replication_peer *out, size_t max)
{
	size_t count = 0;

	pthread_rwlock_rdlock(&r->lock);
	if (r->master != NULL)
		count = master_get_peers(r->master, out, max);
	pthread_rwlock_unlock(&r->lock);
	return count;
}

void roles_get_write_counters(struct roles *r, struct writer_counters *out)
{
	memset(out, 0, sizeof(*out));
	pthread_rwlock_rdlock(&r->lock);
	if (r->master != NULL)
		master_get_counters(r->master, out);
	pthread_rwlock_unlock(&r->lock);
}

/* ---- life */

static enum db_err open_promise(struct roles *r, struct errmsg *em)
{
	char path[512];
	uint8_t bytes[8] = {0};
	size_t len;
	enum db_err err;

	snprintf(path, sizeof(path), "%s/term", r->options.dir);
	err = slotfile_open(&r->promise_file, path, bytes, sizeof(bytes), &len, em);
	if (err == DB_OK)
		atomic_store(&r->promised_term, load_u64le(bytes));
	return err;
}

static void init_locks(struct roles *r)
{
	pthread_rwlockattr_t attr;

	/* Messages hold the lock shared nearly all the time; a switch must not starve behind them. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&r->lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	pthread_mutex_init(&r->news_mutex, NULL);
}

enum db_err roles_create(struct roles **out, const struct roles_options *options, struct errmsg *em)
{
	struct roles *r = calloc(1, sizeof(*r));
	enum db_err err;

	*out = NULL;
	if (r == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	r->options = *options;
	r->promise_file.fd = -1;
	atomic_init(&r->rebuilding, options->rebuilding);
	init_locks(r);
	err = open_promise(r, em);
	if (err == DB_OK)
		err = start_replica(r, em);
	if (err != DB_OK) {
		roles_free(r);
		return err;
	}
	*out = r;
	return DB_OK;
}

void roles_stop(struct roles *r)
{
	if (r == NULL)
		return;
	pthread_rwlock_wrlock(&r->lock);
	master_free(r->master);
	replica_free(r->replica);
	r->master = NULL;
	r->replica = NULL;
	pthread_rwlock_unlock(&r->lock);
}

void roles_free(struct roles *r)
{
	if (r == NULL)
		return;
	roles_stop(r);
	snapshot_target_free(r->snapshot);
	slotfile_close(&r->promise_file);
	pthread_rwlock_destroy(&r->lock);
	pthread_mutex_destroy(&r->news_mutex);
	free(r);
}

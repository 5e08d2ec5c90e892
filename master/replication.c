/* replication.c - see replication.h. */
#include "master/replication.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/store/snapshot_copy.h"
#include "common/wire/pump.h"
#include "master/commit.h"

/* How long a replica that went away, or cannot be helped, keeps the log it needs next from being trimmed. */
#define HOLD_MS 60000u

#define TICKS_QUIET 3

struct sender {
	struct replication *hub;
	size_t index; /* in commit tracking and among the members */
	char id[WIRE_NAME_MAX];
	char address[WIRE_NAME_MAX];
	struct pump *pump;    /* set before its first callback, constant afterwards */
	struct mesh_way *way; /* the pump's */
	/* It is being sent a snapshot, message after message: nobody with better things to do shall kick the pump and so
	 * perhaps have to send the rest of it. */
	atomic_bool in_snapshot;
	atomic_bool paced; /* in a snapshot, but waiting so that commits get on: the ticker kicks it when it is time */
	pthread_mutex_t mutex; /* guards everything below */
	struct walsender *walsender;
	struct wal_cursor *cursor;
	struct snapshot_source *snapshot; /* NULL: none is being sent */
	uint64_t held_ms;                 /* when the cursor was last of use */
	uint64_t cut_offs;
	bool flush_commit;   /* tell the committed LSN even when there is nothing else to say */
	struct wire_msg msg; /* the message being built: large, hence not on the stack */
};

struct replication {
	struct store *store;
	void (*on_committed)(void *arg, uint64_t committed_lsn);
	void (*on_deposed)(void *arg, uint64_t term);
	void *arg;
	uint64_t term;
	const struct cluster_config *config; /* borrowed */
	struct mesh *mesh;                   /* borrowed */
	unsigned node;                       /* our own number, from 1 */
	struct members_entry self;
	pthread_rwlock_t senders_lock;
	struct sender *senders[MEMBERS_MAX]; /* NULL: no member, or ourselves */
	pthread_mutex_t mutex;               /* guards commit and the fields below */
	struct commit *commit;
	uint64_t announced_lsn; /* what on_committed was told */
	bool announcing;        /* a thread is telling it */
	pthread_cond_t tick;    /* wakes the ticker: commits begin again, or stopping */
	bool ticker_idle;
	bool stopping;
	bool ticker_started;
	pthread_t ticker;
};

/* ---- the log as the walsender sees it */

static enum db_err log_seek(void *arg, uint64_t next_lsn, struct errmsg *em)
{
	struct sender *s = arg;

	if (s->cursor == NULL)
		return wal_cursor_create(&s->cursor, store_wal(s->hub->store), next_lsn, em);
	return wal_cursor_seek(s->cursor, next_lsn, em);
}

static enum db_err log_next(void *arg, struct wal_record *out, struct errmsg *em)
{
	struct sender *s = arg;

	if (s->cursor == NULL)
		return errmsg_set(em, DB_GAP, "the log is no longer kept for it");
	return wal_cursor_next(s->cursor, out, em);
}

static size_t log_terms(void *arg, struct wal_pos *out, size_t max)
{
	struct sender *s = arg;

	return wal_terms(store_wal(s->hub->store), out, max);
}

static uint64_t log_first_lsn(void *arg)
{
	struct sender *s = arg;

	return wal_first_lsn(store_wal(s->hub->store));
}

static uint64_t log_last_lsn(void *arg)
{
	struct sender *s = arg;

	return wal_last(store_wal(s->hub->store)).lsn;
}

static enum db_err log_describe(void *arg, uint64_t lsn, uint64_t *term, uint64_t *checksum, struct errmsg *em)
{
	struct sender *s = arg;
	struct wal *wal = store_wal(s->hub->store);
	struct wal_record record;
	enum db_err err;

	err = wal_read(wal, lsn, &record, em);
	if (err == DB_OK) {
		*term = record.term;
		*checksum = record.checksum;
		return DB_OK;
	}
	/* The record before the oldest one kept: its successor knows its checksum. */
	err = wal_read(wal, lsn + 1, &record, em);
	if (err == DB_OK) {
		*term = record.term;
		*checksum = record.prev_checksum;
		return DB_OK;
	}
	if (wal_last(wal).lsn != lsn)
		return err;
	*term = wal_last(wal).term;
	*checksum = wal_last_checksum(wal);
	return DB_OK;
}

static enum db_err snapshot_open(void *arg, struct wire_snapshot_begin *out, struct errmsg *em)
{
	struct sender *s = arg;
	const struct snapshot_header *header;
	enum db_err err = snapshot_source_open(&s->snapshot, s->hub->store, em);

	if (err != DB_OK)
		return err;
	header = snapshot_source_header(s->snapshot);
	out->pos = header->pos;
	out->record_checksum = header->record_checksum;
	out->db_checksum = header->db_checksum;
	out->db_size_pages = header->db_size_pages;
	err = log_seek(s, header->pos.lsn + 1, em);
	if (err != DB_OK) {
		snapshot_source_close(s->snapshot);
		s->snapshot = NULL;
	}
	return err;
}

static const uint8_t *snapshot_page(void *arg, uint32_t pgno)
{
	struct sender *s = arg;

	return snapshot_source_page(s->snapshot, pgno);
}

static uint64_t snapshot_hash(void *arg, uint32_t pgno)
{
	struct sender *s = arg;

	return snapshot_source_hash(s->snapshot, pgno);
}

/* The pin has kept the log so far; from here on the cursor does. A cursor holds the segment of a record that exists: when
 * none came after the snapshot yet, that of the snapshot's own record, behind which the next ones will lie. */
static void snapshot_close(void *arg)
{
	struct sender *s = arg;
	uint64_t lsn = snapshot_source_header(s->snapshot)->pos.lsn;
	struct errmsg em = {0};

	if (log_seek(s, log_last_lsn(s) > lsn ? lsn + 1 : lsn, &em) != DB_OK)
		log_warn("walsender %s: %s", s->id, em.text);
	snapshot_source_close(s->snapshot);
	s->snapshot = NULL;
}

/* ---- sending */

/* After whatever may have changed the walsender's state; mutex held. */
static void note_state(struct sender *s)
{
	struct walsender_status status;

	walsender_get_status(s->walsender, &status);
	atomic_store(&s->in_snapshot, status.state == WALSENDER_SNAPSHOT);
	atomic_store(&s->paced, status.paced);
	if (status.state == WALSENDER_STREAMING || status.state == WALSENDER_SNAPSHOT)
		s->held_ms = clock_mono_ms();
}

/* The pump's next message. */
static nng_msg *next_message(void *arg)
{
	struct sender *s = arg;
	uint64_t committed_lsn = replication_committed_lsn(s->hub);
	nng_msg *message = NULL;

	pthread_mutex_lock(&s->mutex);
	if (walsender_next(s->walsender, committed_lsn, s->flush_commit, clock_mono_ms(), &s->msg)) {
		message = link_msg_encode(&s->msg);
		if (message == NULL) {
			log_error("walsender %s: out of memory", s->id);
			walsender_on_connected(s->walsender, true, clock_mono_ms()); /* begin a new stream */
		}
	}
	s->flush_commit = false;
	note_state(s);
	pthread_mutex_unlock(&s->mutex);
	return message;
}

static void on_connected(void *arg, bool connected)
{
	struct sender *s = arg;

	pthread_mutex_lock(&s->mutex);
	walsender_on_connected(s->walsender, connected, clock_mono_ms());
	note_state(s);
	pthread_mutex_unlock(&s->mutex);
}

/* ---- committing */

/* Tells the owner how far the log is committed, in order; whoever finds another thread at it leaves it to that one. */
static void announce(struct replication *r)
{
	bool wake = false;
	uint64_t lsn;

	pthread_mutex_lock(&r->mutex);
	if (!r->announcing) {
		r->announcing = true;
		while ((lsn = commit_lsn(r->commit)) > r->announced_lsn) {
			r->announced_lsn = lsn;
			pthread_mutex_unlock(&r->mutex);
			r->on_committed(r->arg, lsn);
			pthread_mutex_lock(&r->mutex);
		}
		r->announcing = false;
		wake = r->ticker_idle;
		r->ticker_idle = false;
	}
	pthread_mutex_unlock(&r->mutex);
	if (wake)
		pthread_cond_signal(&r->tick);
}

static void note_durable(struct replication *r, size_t index, uint64_t lsn)
{
	bool moved;

	pthread_mutex_lock(&r->mutex);
	moved = commit_on_durable(r->commit, index, lsn) > r->announced_lsn;
	pthread_mutex_unlock(&r->mutex);
	if (moved)
		announce(r);
}

void replication_on_local_durable(struct replication *r, uint64_t lsn)
{
	note_durable(r, r->node - 1, lsn);
}

void replication_on_sealed(struct replication *r)
{
	size_t i;

	pthread_rwlock_rdlock(&r->senders_lock);
	for (i = 0; i < MEMBERS_MAX; i++)
		if (r->senders[i] != NULL && !atomic_load_explicit(&r->senders[i]->in_snapshot, memory_order_relaxed))
			pump_kick(r->senders[i]->pump);
	pthread_rwlock_unlock(&r->senders_lock);
}

uint64_t replication_committed_lsn(struct replication *r)
{
	uint64_t lsn;

	pthread_mutex_lock(&r->mutex);
	lsn = commit_lsn(r->commit);
	pthread_mutex_unlock(&r->mutex);
	return lsn;
}

/* senders_lock held. */
static struct sender *find_sender(struct replication *r, const char *id)
{
	size_t i;

	for (i = 0; i < MEMBERS_MAX; i++)
		if (r->senders[i] != NULL && strcmp(r->senders[i]->id, id) == 0)
			return r->senders[i];
	return NULL;
}

void replication_on_message(struct replication *r, const struct wire_msg *msg)
{
	struct sender *s;
	bool counts = false;
	size_t index;

	pthread_rwlock_rdlock(&r->senders_lock);
	s = find_sender(r, msg->head.sender);
	if (s == NULL || msg->head.term < r->term || !wire_term_is_credible(msg->head.term, r->term)) {
		pthread_rwlock_unlock(&r->senders_lock);
		return;
	}
	if (msg->head.term > r->term) {
		pthread_rwlock_unlock(&r->senders_lock);
		r->on_deposed(r->arg, msg->head.term);
		return;
	}
	index = s->index;
	pthread_mutex_lock(&s->mutex);
	if (msg->head.type == WIRE_POSITION)
		walsender_on_position(s->walsender, &msg->body.position);
	else if (msg->head.type == WIRE_SNAPSHOT_WANT)
		walsender_on_want(s->walsender, &msg->body.snapshot_want);
	else if (msg->head.type == WIRE_ACK)
		counts = walsender_on_ack(s->walsender, &msg->body.ack);
	note_state(s);
	pthread_mutex_unlock(&s->mutex);
	if (!counts)
		pump_kick(s->pump);
	pthread_rwlock_unlock(&r->senders_lock);
	if (counts)
		note_durable(r, index, msg->body.ack.durable_lsn);
}

/* ---- the ticker: commit notices soon after a commit, keep-alives always */

/* A replica that stays away must not fill the master's disk: it will need a snapshot in the end. Mutex held. */
static void release_log(struct sender *s)
{
	if (s->cursor == NULL || s->snapshot != NULL || clock_mono_ms() < s->held_ms + HOLD_MS)
		return;
	log_info("walsender %s: no longer keeps the log for it", s->id);
	wal_cursor_free(s->cursor);
	s->cursor = NULL;
}

/* Mutex held. A snapshot holds what comes after it, for the replica will need it. */
static uint64_t held_lsn(struct sender *s)
{
	uint64_t lsn = s->cursor == NULL ? UINT64_MAX : wal_cursor_held_lsn(s->cursor);
	uint64_t snapshot_lsn = s->snapshot == NULL ? UINT64_MAX : snapshot_source_header(s->snapshot)->pos.lsn;

	return snapshot_lsn < lsn ? snapshot_lsn : lsn;
}

/* Takes the log from a replica that holds it from before keep_lsn on. */
static void cut_sender(struct sender *s, uint64_t keep_lsn)
{
	uint64_t lsn;

	pthread_mutex_lock(&s->mutex);
	lsn = held_lsn(s);
	if (lsn < keep_lsn) {
		log_warn("walsender %s is cut off: it holds the log from lsn=%" PRIu64 " on, which has reached its cap",
			 s->id, lsn);
		walsender_cut(s->walsender, "the log has reached its cap");
		wal_cursor_free(s->cursor);
		s->cursor = NULL;
		s->cut_offs++;
		note_state(s);
	}
	pthread_mutex_unlock(&s->mutex);
	if (lsn < keep_lsn)
		pump_kick(s->pump);
}

void replication_cut_slow(struct replication *r, uint64_t keep_lsn)
{
	size_t i;

	pthread_rwlock_rdlock(&r->senders_lock);
	for (i = 0; i < MEMBERS_MAX; i++)
		if (r->senders[i] != NULL)
			cut_sender(r->senders[i], keep_lsn);
	pthread_rwlock_unlock(&r->senders_lock);
}

static void flush_commit(struct sender *s)
{
	pthread_mutex_lock(&s->mutex);
	s->flush_commit = true;
	walsender_on_tick(s->walsender, clock_mono_ms());
	note_state(s);
	release_log(s);
	pthread_mutex_unlock(&s->mutex);
	if (!atomic_load_explicit(&s->in_snapshot, memory_order_relaxed) || atomic_load(&s->paced))
		pump_kick(s->pump);
}

/* While commits go on it wakes by itself every WALSENDER_NOTICE_MS, so that they need not wake it; after TICKS_QUIET turns
 * without one it falls back to the pace of the keep-alives. */
static void *run_ticker(void *arg)
{
	struct replication *r = arg;
	uint64_t seen_lsn = 0;
	unsigned quiet = 0;
	size_t i;

	pthread_setname_np(pthread_self(), "repl-ticker");
	pthread_mutex_lock(&r->mutex);
	while (!r->stopping) {
		quiet = r->announced_lsn == seen_lsn ? quiet + 1 : 0;
		seen_lsn = r->announced_lsn;
		r->ticker_idle = quiet > TICKS_QUIET;
		clock_wait(&r->tick, &r->mutex,
			   clock_mono_us() + (r->ticker_idle ? WALSENDER_KEEPALIVE_MS : WALSENDER_NOTICE_MS) * 1000u);
		r->ticker_idle = false;
		pthread_mutex_unlock(&r->mutex);
		pthread_rwlock_rdlock(&r->senders_lock);
		for (i = 0; i < MEMBERS_MAX; i++)
			if (r->senders[i] != NULL)
				flush_commit(r->senders[i]);
		pthread_rwlock_unlock(&r->senders_lock);
		pthread_mutex_lock(&r->mutex);
	}
	pthread_mutex_unlock(&r->mutex);
	return NULL;
}

/* ---- life */

static enum db_err start_sender(struct sender *s, const struct members_entry *entry, struct errmsg *em)
{
	const struct walsender_io io = {.arg = s,
					.seek = log_seek,
					.next = log_next,
					.terms = log_terms,
					.first_lsn = log_first_lsn,
					.last_lsn = log_last_lsn,
					.describe = log_describe,
					.snapshot_open = snapshot_open,
					.snapshot_page = snapshot_page,
					.snapshot_hash = snapshot_hash,
					.snapshot_close = snapshot_close};
	const struct pump_owner owner = {next_message, on_connected, s};
	struct replication *r = s->hub;
	struct walsender_identity identity = {.term = r->term};
	uint64_t first_stream_id;
	enum db_err err = DB_OK;

	snprintf(s->id, sizeof(s->id), "node%zu", s->index + 1);
	members_address(entry, r->config, CONFIG_REPLICATION, s->address);
	memcpy(identity.cluster_id, r->config->cluster_id, sizeof(identity.cluster_id));
	snprintf(identity.node_id, sizeof(identity.node_id), "node%u", r->node);
	members_address(&r->self, r->config, CONFIG_ACKS, identity.ack_address);
	members_address(&r->self, r->config, CONFIG_HTTP, identity.http_address);
	/* Stream ids of one term never repeat between processes, whatever becomes of the clock: they begin anywhere. */
	if (getrandom(&first_stream_id, sizeof(first_stream_id), 0) != (ssize_t)sizeof(first_stream_id))
		err = errmsg_errno(em, errno, "no random bytes for a stream");
	if (err == DB_OK) /* never 0, not even after as many streams as there can be */
		err = walsender_create(&s->walsender, &identity, s->id, first_stream_id >> 1 | 1, &io, em);
	if (err == DB_OK)
		err = mesh_way_open(&s->way, &s->pump, r->mesh, s->id, CONFIG_REPLICATION, s->address, &owner, em);
	return err;
}

/* Nobody else knows of it any more, but for its own callbacks, which are waited for. */
static void free_sender(struct sender *s)
{
	if (s == NULL)
		return;
	mesh_way_close(s->way);
	walsender_free(s->walsender);
	wal_cursor_free(s->cursor);
	pthread_mutex_destroy(&s->mutex);
	free(s);
}

static enum db_err add_sender(struct replication *r, size_t index, const struct members_entry *entry, struct errmsg *em)
{
	struct sender *s = calloc(1, sizeof(*s));
	enum db_err err;

	if (s == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	s->hub = r;
	s->index = index;
	pthread_mutex_init(&s->mutex, NULL);
	err = start_sender(s, entry, em);
	if (err != DB_OK) {
		free_sender(s);
		return err;
	}
	pthread_mutex_lock(&r->mutex);
	commit_forget(r->commit, index); /* an earlier node of that number may have acknowledged what this one lacks */
	pthread_mutex_unlock(&r->mutex);
	pthread_rwlock_wrlock(&r->senders_lock);
	r->senders[index] = s;
	pthread_rwlock_unlock(&r->senders_lock);
	pump_kick(s->pump); /* an answer may have come before it could be found */
	return DB_OK;
}

static void remove_sender(struct replication *r, size_t index)
{
	struct sender *s;

	pthread_rwlock_wrlock(&r->senders_lock);
	s = r->senders[index];
	r->senders[index] = NULL;
	pthread_rwlock_unlock(&r->senders_lock);
	free_sender(s);
}

static void set_quorums(struct replication *r, const struct members *members)
{
	struct members_quorum quorums[2];
	unsigned count = members_quorums(members, r->config->durability, quorums);
	bool moved;

	pthread_mutex_lock(&r->mutex);
	moved = commit_set_quorums(r->commit, quorums, count) > r->announced_lsn;
	pthread_mutex_unlock(&r->mutex);
	if (moved)
		announce(r);
}

enum db_err replication_set_members(struct replication *r, const struct members *members, struct errmsg *em)
{
	enum db_err err = DB_OK;
	size_t i;

	for (i = 0; i < MEMBERS_MAX && err == DB_OK; i++)
		if (members_present(members->entries[i].state) && i + 1 != r->node && r->senders[i] == NULL)
			err = add_sender(r, i, &members->entries[i], em);
	if (err != DB_OK)
		return err;
	set_quorums(r, members);
	for (i = 0; i < MEMBERS_MAX; i++)
		if (!members_present(members->entries[i].state) && r->senders[i] != NULL)
			remove_sender(r, i);
	return DB_OK;
}

static void init_locks(struct replication *r)
{
	pthread_rwlockattr_t rwattr;

	/* It is held shared nearly all the time, and never twice by one thread; a change of the members must not starve. */
	pthread_rwlockattr_init(&rwattr);
	pthread_rwlockattr_setkind_np(&rwattr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&r->senders_lock, &rwattr);
	pthread_rwlockattr_destroy(&rwattr);
	pthread_mutex_init(&r->mutex, NULL);
	pthread_cond_init(&r->tick, NULL);
}

static enum db_err start(struct replication *r, const struct replication_options *options, struct errmsg *em)
{
	enum db_err err = replication_set_members(r, options->members, em);

	if (err != DB_OK)
		return err;
	if (pthread_create(&r->ticker, NULL, run_ticker, r) != 0)
		return errmsg_set(em, DB_NOMEM, "cannot start the replication ticker");
	r->ticker_started = true;
	return DB_OK;
}

enum db_err replication_create(struct replication **out, const struct replication_options *options, struct errmsg *em)
{
	struct replication *r = calloc(1, sizeof(*r));
	enum db_err err;

	*out = NULL;
	if (r == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	r->store = options->store;
	r->on_committed = options->on_committed;
	r->on_deposed = options->on_deposed;
	r->arg = options->arg;
	r->term = options->term;
	r->config = options->config;
	r->mesh = options->mesh;
	r->node = options->node;
	r->self = options->members->entries[options->node - 1];
	init_locks(r);
	/* The quorums of the members replace what it begins with before anything is durable. */
	err = commit_create(&r->commit, COMMIT_NODES_MAX, COMMIT_NODES_MAX, options->term_start_lsn, em);
	*out = r; /* callbacks may come from here on */
	if (err == DB_OK)
		err = start(r, options, em);
	if (err != DB_OK) {
		replication_free(r);
		*out = NULL;
	}
	return err;
}

void replication_free(struct replication *r)
{
	size_t i;

	if (r == NULL)
		return;
	pthread_mutex_lock(&r->mutex);
	r->stopping = true;
	pthread_cond_signal(&r->tick);
	pthread_mutex_unlock(&r->mutex);
	if (r->ticker_started)
		pthread_join(r->ticker, NULL);
	for (i = 0; i < MEMBERS_MAX; i++)
		remove_sender(r, i);
	commit_free(r->commit);
	pthread_cond_destroy(&r->tick);
	pthread_mutex_destroy(&r->mutex);
	pthread_rwlock_destroy(&r->senders_lock);
	free(r);
}

size_t replication_get_peers(struct replication *r, struct replication_peer *out, size_t max)
{
	size_t count = 0;
	size_t i;

	pthread_rwlock_rdlock(&r->senders_lock);
	for (i = 0; i < MEMBERS_MAX && count < max; i++) {
		struct sender *s = r->senders[i];

		if (s == NULL)
			continue;
		memcpy(out[count].id, s->id, sizeof(out[count].id));
		memcpy(out[count].address, s->address, sizeof(out[count].address));
		pthread_mutex_lock(&s->mutex);
		walsender_get_status(s->walsender, &out[count].walsender);
		out[count].held_lsn = held_lsn(s);
		out[count].cut_offs = s->cut_offs;
		pthread_mutex_unlock(&s->mutex);
		count++;
	}
	pthread_rwlock_unlock(&r->senders_lock);
	return count;
}

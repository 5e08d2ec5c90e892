/* replica.c - see replica.h. */
#include "replica/replica.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/pulse.h"
#include "common/base/spill.h"
#include "common/wire/pump.h"
#include "replica/ack_watch.h"
#include "replica/salvage.h"

/* A disk without space for what is to be salvaged shall not keep the node out for ever. */
#define SALVAGE_PATIENCE_MS 30000u

/* More windows of a snapshot than this are never offered at a time; the master asks again when an answer is lost. */
#define WANTS_MAX 4

/* What waits to be said to the master. Its own mutex, because the pump's callbacks take it and must never wait for a
 * message being applied. */
struct outbox {
	pthread_mutex_t mutex;
	struct pump *pump;    /* NULL: no master known; changed under replica.mutex only, like the two that follow */
	struct mesh_way *way; /* the pump's */
	char master[WIRE_NAME_MAX];
	char address[WIRE_NAME_MAX];
	bool position_due, ack_due, ack_known;
	size_t want_count; /* of wants, the first of them being sent next */
	struct wire_msg position;
	struct wire_msg wants[WANTS_MAX];
	struct wire_msg ack; /* the newest; said again after a reconnect, for the old one may be lost */
};

struct replica {
	struct replica_options options;
	char node_id[WIRE_NAME_MAX];
	uint8_t cluster_id[16];
	char dir[512];
	char scratch_dir[520]; /* for records that arrive in pieces */
	pthread_mutex_t mutex; /* guards walreceiver, ack_watch, piece, snapshot and the pump's exchange */
	struct walreceiver *walreceiver;
	struct ack_watch ack_watch;
	struct spill piece;
	char salvage_note[WIRE_REASON_MAX]; /* what status says of a tail that could not be kept; may be empty */
	uint64_t salvage_failed_ms;         /* when keeping the tail failed first; 0: it did not */
	struct wal_pos snapshot_pos;        /* of the one being received */
	struct snapshot_target *snapshot;   /* being received; NULL: none */
	struct outbox outbox;
	struct work_pulse pulse;      /* of whoever holds mutex to process a message */
	pthread_mutex_t status_mutex; /* guards status, the published one; taken last */
	struct walreceiver_status status;
};

/* ---- the way back to the master */

static nng_msg *next_message(void *arg)
{
	struct outbox *o = arg;
	nng_msg *message = NULL;

	pthread_mutex_lock(&o->mutex);
	if (o->position_due) {
		message = link_msg_encode(&o->position);
		o->position_due = message == NULL;
	} else if (o->want_count > 0) {
		message = link_msg_encode(&o->wants[0]);
		if (message != NULL)
			memmove(o->wants, o->wants + 1, --o->want_count * sizeof(o->wants[0]));
	} else if (o->ack_due) {
		message = link_msg_encode(&o->ack);
		o->ack_due = message == NULL;
	}
	pthread_mutex_unlock(&o->mutex);
	return message;
}

static void on_connected(void *arg, bool connected)
{
	struct outbox *o = arg;

	if (!connected)
		return;
	pthread_mutex_lock(&o->mutex);
	o->ack_due = o->ack_known;
	pthread_mutex_unlock(&o->mutex);
}

static void outbox_reset(struct outbox *o, const char *address)
{
	pthread_mutex_lock(&o->mutex);
	o->position_due = o->ack_due = o->ack_known = false;
	o->want_count = 0;
	snprintf(o->address, sizeof(o->address), "%s", address);
	pthread_mutex_unlock(&o->mutex);
}

/* The master's HELLO has come down its own connection; does ours still carry an answer? */
static void look_after_acks(struct replica *r)
{
	struct outbox *o = &r->outbox;

	if (ack_watch_on_hello(&r->ack_watch, clock_mono_ms()) != ACK_WATCH_RECONNECT)
		return;
	log_warn("the master says HELLO again and again as if it heard no answer: another connection to %s",
		 o->address);
	pump_reconnect(o->pump);
}

static void io_set_master(void *arg, const char *id, const struct wire_hello *hello)
{
	struct replica *r = arg;
	struct outbox *o = &r->outbox;
	const struct pump_owner owner = {next_message, on_connected, o};
	struct walreceiver_status status;
	struct errmsg em = {0};

	walreceiver_get_status(r->walreceiver, &status);
	r->options.on_master(r->options.arg, id, hello->http_address, status.promised_term);
	if (o->pump != NULL)
		look_after_acks(r);
	if (o->pump == NULL || strcmp(o->address, hello->ack_address) != 0 || strcmp(o->master, id) != 0) {
		ack_watch_init(&r->ack_watch);
		mesh_way_close(o->way);
		o->way = NULL;
		o->pump = NULL;
		snprintf(o->master, sizeof(o->master), "%s", id);
		outbox_reset(o, hello->ack_address);
		if (mesh_way_open(&o->way, &o->pump, r->options.mesh, id, CONFIG_ACKS, hello->ack_address, &owner,
				  &em) != DB_OK)
			log_error("cannot reach the master's ack address: %s", em.text);
	} else {
		outbox_reset(o, hello->ack_address);
	}
}

static void io_send(void *arg, const struct wire_msg *msg)
{
	struct replica *r = arg;
	struct outbox *o = &r->outbox;

	if (o->pump == NULL)
		return; /* the master's next HELLO tries again */
	pthread_mutex_lock(&o->mutex);
	if (msg->head.type == WIRE_POSITION) {
		ack_watch_on_answer(&r->ack_watch);
		o->position = *msg;
		o->position_due = true;
		o->ack_due = o->ack_known = false;
		o->want_count = 0;
	} else if (msg->head.type == WIRE_SNAPSHOT_WANT) {
		if (o->want_count < WANTS_MAX)
			o->wants[o->want_count++] = *msg;
	} else {
		o->ack = *msg;
		o->ack_due = o->ack_known = true;
	}
	pthread_mutex_unlock(&o->mutex);
	pump_kick(o->pump);
}

/* ---- the store as the walreceiver sees it */

static struct wal_pos io_tip(void *arg, uint64_t *checksum)
{
	struct replica *r = arg;
	struct wal *wal = store_wal(r->options.store);

	if (checksum != NULL)
		*checksum = wal_last_checksum(wal);
	return wal_last(wal);
}

static size_t io_terms(void *arg, struct wal_pos *out, size_t max)
{
	struct replica *r = arg;

	return wal_terms(store_wal(r->options.store), out, max);
}

static enum db_err io_checksum_at(void *arg, uint64_t lsn, uint64_t *checksum, struct errmsg *em)
{
	struct replica *r = arg;
	struct wal *wal = store_wal(r->options.store);
	struct wal_record record;
	enum db_err err;

	if (wal_last(wal).lsn == lsn) {
		*checksum = wal_last_checksum(wal);
		return DB_OK;
	}
	err = wal_read(wal, lsn, &record, em);
	if (err == DB_OK) {
		*checksum = record.checksum;
		return DB_OK;
	}
	err = wal_read(wal, lsn + 1, &record, em);
	if (err == DB_OK)
		*checksum = record.prev_checksum;
	return err;
}

static uint64_t io_visible_lsn(void *arg)
{
	struct replica *r = arg;

	return store_visible_lsn(r->options.store);
}

static uint64_t io_applied_lsn(void *arg, uint64_t *db_checksum)
{
	struct replica *r = arg;
	struct store_status status;

	store_get_status(r->options.store, &status);
	if (db_checksum != NULL)
		*db_checksum = status.db_checksum;
	return status.applied_lsn;
}

static enum db_err io_append(void *arg, const uint8_t *record, size_t len, struct errmsg *em)
{
	struct replica *r = arg;

	return store_append_record(r->options.store, record, len, em);
}

static enum db_err io_append_piece(void *arg, uint64_t offset, const uint8_t *piece, size_t len, uint64_t record_len,
				   struct errmsg *em)
{
	struct replica *r = arg;
	enum db_err err = DB_OK;

	if (offset == 0) {
		spill_close(&r->piece);
		if (record_len > WAL_RECORD_BYTES_MAX)
			return errmsg_set(em, DB_TOO_LARGE, "a record of %zu bytes", (size_t)record_len);
		err = spill_open(&r->piece, r->scratch_dir, (size_t)record_len, em);
	}
	if (err != DB_OK)
		return err;
	if (r->piece.data == NULL || offset + len > r->piece.size)
		return errmsg_set(em, DB_GAP, "a piece without its beginning");
	memcpy(r->piece.data + offset, piece, len);
	if (offset + len < record_len)
		return DB_OK;
	err = store_append_record(r->options.store, r->piece.data, r->piece.size, em);
	spill_close(&r->piece);
	return err;
}

static enum db_err io_sync(void *arg, struct errmsg *em)
{
	struct replica *r = arg;

	return store_sync(r->options.store, NULL, em);
}

static enum db_err io_apply(void *arg, uint64_t lsn, struct errmsg *em)
{
	struct replica *r = arg;

	return store_apply(r->options.store, lsn, em);
}

/* Keeps the records after keep_lsn, which are about to go. While that fails the caller waits and tries again, but not for
 * ever: then they go, and the log says so. DB_FULL: not yet. */
static enum db_err salvage_tail(struct replica *r, uint64_t keep_lsn, bool certain, const char *reason,
				struct errmsg *em)
{
	const struct salvage salvage = {.store = r->options.store,
					.dir = r->dir,
					.node_id = r->node_id,
					.cluster_id = r->cluster_id,
					.keep_lsn = keep_lsn,
					.certain = certain,
					.reason = reason};
	uint64_t tip_lsn = store_tip_lsn(r->options.store);
	uint64_t now_ms;
	struct errmsg why = {0};
	bool kept;

	if (salvage_keep(&salvage, &kept, &why) == DB_OK) {
		r->salvage_failed_ms = 0;
		r->salvage_note[0] = '\0';
		return DB_OK;
	}
	now_ms = clock_mono_ms();
	if (r->salvage_failed_ms == 0)
		r->salvage_failed_ms = now_ms;
	if (now_ms - r->salvage_failed_ms < SALVAGE_PATIENCE_MS) {
		log_error("records %llu..%llu, which only this node has, cannot be kept yet: %s",
			  (unsigned long long)keep_lsn + 1, (unsigned long long)tip_lsn, why.text);
		snprintf(r->salvage_note, sizeof(r->salvage_note),
			 "it waits: its log's tail, to be cut, cannot be kept: %.180s", why.text);
		return errmsg_set(em, DB_FULL, "the log's tail cannot be kept: %.400s", why.text);
	}
	log_error("records %llu..%llu, which only this node has, are given up WITHOUT having been kept: %s",
		  (unsigned long long)keep_lsn + 1, (unsigned long long)tip_lsn, why.text);
	snprintf(r->salvage_note, sizeof(r->salvage_note), "it gave up records %llu..%llu without keeping them: %.160s",
		 (unsigned long long)keep_lsn + 1, (unsigned long long)tip_lsn, why.text);
	r->salvage_failed_ms = 0;
	return DB_OK;
}

static enum db_err io_cut(void *arg, uint64_t keep_lsn, struct errmsg *em)
{
	struct replica *r = arg;
	enum db_err err = salvage_tail(r, keep_lsn, true, "the master of a newer term does not have these records", em);

	if (err != DB_OK)
		return err;
	if (r->options.on_cut != NULL)
		r->options.on_cut(r->options.arg, keep_lsn);
	return store_cut(r->options.store, keep_lsn, em);
}

static void io_set_committed(void *arg, uint64_t lsn)
{
	struct replica *r = arg;

	store_set_committed(r->options.store, lsn);
}

static void io_snapshot_drop(void *arg)
{
	struct replica *r = arg;

	snapshot_target_free(r->snapshot);
	r->snapshot = NULL;
}

static void io_snapshot_discard(void *arg)
{
	struct replica *r = arg;
	struct errmsg em = {0};

	if (snapshot_target_discard(r->dir, &em) != DB_OK)
		log_warn("replica: %s", em.text);
}

static enum db_err io_snapshot_begin(void *arg, const struct wire_snapshot_begin *begin, struct errmsg *em)
{
	struct replica *r = arg;
	const struct snapshot_header header = {.pos = begin->pos,
					       .record_checksum = begin->record_checksum,
					       .db_checksum = begin->db_checksum,
					       .db_size_pages = begin->db_size_pages};

	io_snapshot_drop(r);
	r->snapshot_pos = begin->pos;
	return snapshot_target_create(&r->snapshot, r->dir, &header, r->cluster_id, r->options.store, em);
}

static enum db_err io_snapshot_compare(void *arg, const struct wire_snapshot_hashes *hashes,
				       struct wire_snapshot_want *want, struct errmsg *em)
{
	struct replica *r = arg;

	return snapshot_target_compare(r->snapshot, hashes->first_pgno, hashes->count, hashes->bytes, want->bits, em);
}

static enum db_err io_snapshot_pages(void *arg, const struct wire_snapshot_pages *pages, struct errmsg *em)
{
	struct replica *r = arg;

	return snapshot_target_write(r->snapshot, pages->first_pgno, pages->bytes, pages->len, em);
}

static enum db_err io_snapshot_end(void *arg, struct errmsg *em)
{
	struct replica *r = arg;
	enum db_err err = snapshot_target_complete(r->snapshot, em);

	/* Within a term there is one log, and a snapshot is never older than what it replaces. */
	if (err == DB_OK && r->snapshot_pos.term != io_tip(r, NULL).term)
		err = salvage_tail(
		    r, store_visible_lsn(r->options.store), false,
		    "the master's log does not reach back to these records, its database replaces this one", em);
	if (err != DB_OK)
		return err;
	r->options.on_snapshot(r->options.arg, r->snapshot);
	r->snapshot = NULL;
	return DB_OK;
}

static enum db_err io_promise(void *arg, uint64_t term, struct errmsg *em)
{
	struct replica *r = arg;

	return r->options.promise(r->options.arg, term, em);
}

/* ---- life */

enum db_err replica_create(struct replica **out, const struct replica_options *options, struct errmsg *em)
{
	struct replica *r = calloc(1, sizeof(*r));
	const struct walreceiver_io io = {.arg = r,
					  .tip = io_tip,
					  .terms = io_terms,
					  .checksum_at = io_checksum_at,
					  .visible_lsn = io_visible_lsn,
					  .applied_lsn = io_applied_lsn,
					  .append = io_append,
					  .append_piece = io_append_piece,
					  .sync = io_sync,
					  .apply = io_apply,
					  .cut = io_cut,
					  .set_committed = io_set_committed,
					  .snapshot_begin = io_snapshot_begin,
					  .snapshot_compare = io_snapshot_compare,
					  .snapshot_pages = io_snapshot_pages,
					  .snapshot_end = io_snapshot_end,
					  .snapshot_drop = io_snapshot_drop,
					  .snapshot_discard = io_snapshot_discard,
					  .promise = io_promise,
					  .set_master = io_set_master,
					  .send = io_send};
	enum db_err err;

	*out = NULL;
	if (r == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	r->options = *options;
	snprintf(r->node_id, sizeof(r->node_id), "%s", options->node_id);
	memcpy(r->cluster_id, options->cluster_id, sizeof(r->cluster_id));
	snprintf(r->dir, sizeof(r->dir), "%s", options->dir);
	snprintf(r->scratch_dir, sizeof(r->scratch_dir), "%s/tmp", r->dir);
	work_pulse_init(&r->pulse);
	ack_watch_init(&r->ack_watch);
	pthread_mutex_init(&r->mutex, NULL);
	pthread_mutex_init(&r->outbox.mutex, NULL);
	pthread_mutex_init(&r->status_mutex, NULL);
	err = store_apply(options->store, store_tip_lsn(options->store), em);
	if (err == DB_OK)
		err = walreceiver_create(&r->walreceiver, &io, options->cluster_id, r->node_id, options->promised_term,
					 clock_mono_ms(), em);
	if (err != DB_OK) {
		replica_free(r);
		return err;
	}
	walreceiver_get_status(r->walreceiver, &r->status);
	*out = r;
	return DB_OK;
}

void replica_free(struct replica *r)
{
	if (r == NULL)
		return;
	mesh_way_close(r->outbox.way);
	walreceiver_free(r->walreceiver);
	spill_close(&r->piece);
	snapshot_target_free(r->snapshot);
	pthread_mutex_destroy(&r->outbox.mutex);
	pthread_mutex_destroy(&r->status_mutex);
	pthread_mutex_destroy(&r->mutex);
	work_pulse_fini(&r->pulse);
	free(r);
}

/* Mutex held. */
static void publish_status(struct replica *r)
{
	pthread_mutex_lock(&r->status_mutex);
	walreceiver_get_status(r->walreceiver, &r->status);
	if (r->status.reason[0] == '\0')
		memcpy(r->status.reason, r->salvage_note, sizeof(r->status.reason));
	pthread_mutex_unlock(&r->status_mutex);
}

bool replica_on_message(struct replica *r, const struct wire_msg *msg)
{
	bool welcome;

	pthread_mutex_lock(&r->mutex);
	work_pulse_begin(&r->pulse);
	welcome = walreceiver_on_message(r->walreceiver, msg, clock_mono_ms());
	work_pulse_end(&r->pulse);
	publish_status(r);
	if (r->status.state == WALRECEIVER_STREAMING || r->status.state == WALRECEIVER_SNAPSHOT)
		ack_watch_on_heard(&r->ack_watch); /* the master got our position */
	pthread_mutex_unlock(&r->mutex);
	return welcome;
}

enum db_err replica_set_term(struct replica *r, uint64_t term, struct errmsg *em)
{
	enum db_err err;

	pthread_mutex_lock(&r->mutex);
	err = walreceiver_set_term(r->walreceiver, term, em);
	publish_status(r);
	pthread_mutex_unlock(&r->mutex);
	return err;
}

uint64_t replica_stuck_ms(struct replica *r)
{
	return work_pulse_stuck_ms(&r->pulse, clock_mono_ms());
}

void replica_get_status(struct replica *r, struct walreceiver_status *out)
{
	pthread_mutex_lock(&r->status_mutex);
	*out = r->status;
	pthread_mutex_unlock(&r->status_mutex);
}

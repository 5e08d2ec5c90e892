/* walreceiver.c - see walreceiver.h. */
#include "replica/walreceiver.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/planted.h"

/* A master speaks at least this often (its keep-alive is faster); silence for longer counts as lag. */
#define WALRECEIVER_SILENCE_MS 250u
/* The same for a stream that is to be given up for another one: far beyond what a keep-alive may be late. */
#define WALRECEIVER_STREAM_DEAD_MS 1000u
/* How often to ask the master again: after a full disk, or when what it was told of our position got lost. */
#define WALRECEIVER_RETRY_MS 1000u
/* After a snapshot that came to nothing: how long its successor is not asked for. It moves the whole database. */
#define WALRECEIVER_SNAPSHOT_RETRY_MS 5000u

struct walreceiver {
	struct walreceiver_io io;
	uint8_t cluster_id[16];
	char node_id[WIRE_NAME_MAX];
	enum walreceiver_state state;
	uint64_t promised_term;
	uint64_t stream_id;           /* of the last HELLO accepted */
	uint64_t piece_offset;        /* bytes received of a record that comes in pieces; 0: none under way */
	uint64_t piece_lsn;           /* its LSN */
	uint64_t piece_len;           /* its whole length */
	bool caught_up;               /* we have had all that the master had */
	uint64_t caught_up_ms;        /* when we last had */
	uint64_t heard_ms;            /* when the master last spoke */
	uint64_t stream_ms;           /* when something of stream_id last came */
	uint64_t now_ms;              /* of the message being handled */
	uint64_t retry_ms;            /* the next time to say our position again, when nothing has come of it */
	bool behind;                  /* the last message said that there is more */
	bool diverged;                /* our database or log is wrong: only a snapshot helps */
	uint64_t hello_lsn;           /* end of the master's log at its last HELLO */
	uint64_t quiet_ms;            /* no HELLO is answered before: the last snapshot came to nothing */
	char reason[WIRE_REASON_MAX]; /* why diverged or FAILED */
};

static const char *const state_names[] = {"waiting",  "positioned", "streaming", "diverged",
					  "snapshot", "replaced",   "failed"};

const char *walreceiver_state_name(enum walreceiver_state state)
{
	return state_names[state];
}

enum db_err walreceiver_create(struct walreceiver **out, const struct walreceiver_io *io, const uint8_t cluster_id[16],
			       const char *node_id, uint64_t promised_term, uint64_t now_ms, struct errmsg *em)
{
	struct walreceiver *w = calloc(1, sizeof(*w));

	*out = w;
	if (w == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	w->io = *io;
	memcpy(w->cluster_id, cluster_id, sizeof(w->cluster_id));
	snprintf(w->node_id, sizeof(w->node_id), "%s", node_id);
	w->promised_term = promised_term;
	w->caught_up_ms = now_ms;
	w->behind = true;
	return DB_OK;
}

void walreceiver_free(struct walreceiver *w)
{
	free(w);
}

static void set_state(struct walreceiver *w, enum walreceiver_state state, const char *why)
{
	uint64_t lsn = w->io.tip(w->io.arg, NULL).lsn;

	if (w->state == state)
		return;
	log_info("walreceiver %s->%s term=%" PRIu64 " lsn=%" PRIu64 " why=\"%s\"", state_names[w->state],
		 state_names[state], w->promised_term, lsn, why);
	if (w->state == WALRECEIVER_SNAPSHOT && state != WALRECEIVER_REPLACED)
		w->io.snapshot_drop(w->io.arg);
	w->state = state;
	w->piece_offset = 0;
	if (state == WALRECEIVER_DIVERGED && !w->diverged)
		snprintf(w->reason, sizeof(w->reason), "%s", why);
	w->diverged = w->diverged || state == WALRECEIVER_DIVERGED;
	if (state == WALRECEIVER_STREAMING && !w->diverged)
		w->reason[0] = '\0';
	if (state == WALRECEIVER_FAILED)
		snprintf(w->reason, sizeof(w->reason), "%s", why);
}

/* The state of one who waits for a HELLO. */
static void set_waiting(struct walreceiver *w, const char *why)
{
	set_state(w, w->diverged ? WALRECEIVER_DIVERGED : WALRECEIVER_WAITING, why);
}

static void init_reply(const struct walreceiver *w, struct wire_msg *msg, enum wire_type type)
{
	memset(&msg->head, 0, sizeof(msg->head));
	msg->head.type = type;
	msg->head.term = w->promised_term;
	memcpy(msg->head.cluster_id, w->cluster_id, sizeof(msg->head.cluster_id));
	memcpy(msg->head.sender, w->node_id, sizeof(msg->head.sender));
}

static void send_position(struct walreceiver *w, const char *why)
{
	struct wire_msg msg;
	struct wire_position *position = &msg.body.position;

	init_reply(w, &msg, WIRE_POSITION);
	position->stream_id = w->stream_id;
	position->last = w->io.tip(w->io.arg, &position->last_checksum);
	position->visible_lsn = w->io.visible_lsn(w->io.arg);
	position->needs_snapshot = w->diverged;
	position->term_count = w->io.terms(w->io.arg, position->terms, WIRE_TERMS_MAX);
	set_state(w, w->diverged ? WALRECEIVER_DIVERGED : WALRECEIVER_POSITIONED, why);
	w->retry_ms = w->now_ms + WALRECEIVER_RETRY_MS;
	w->io.send(w->io.arg, &msg);
}

static void send_ack(struct walreceiver *w)
{
	struct wire_msg msg;
	struct wire_ack *ack = &msg.body.ack;

	init_reply(w, &msg, WIRE_ACK);
	ack->stream_id = w->stream_id;
	ack->durable_lsn = w->io.tip(w->io.arg, NULL).lsn; /* (2): only called after a sync */
	ack->applied_lsn = w->io.applied_lsn(w->io.arg, &ack->db_checksum);
	w->io.send(w->io.arg, &msg);
}

/* Our database or log is not what the master has: it is asked for a snapshot at once. */
static void diverge(struct walreceiver *w, const char *why)
{
	set_state(w, WALRECEIVER_DIVERGED, why);
	send_position(w, why);
}

/* The log is whole, only space is missing: the master is asked again, and status says so until records come again. */
static void wait_for_space(struct walreceiver *w, const char *why)
{
	set_state(w, WALRECEIVER_WAITING, why);
	if (!w->diverged)
		snprintf(w->reason, sizeof(w->reason), "%.250s", why);
}

/* What an error of our own disk or database means for the stream. */
static void fail(struct walreceiver *w, enum db_err err, const struct errmsg *em)
{
	if (err == DB_DIVERGED)
		diverge(w, em->text);
	else if (err == DB_FULL)
		wait_for_space(w, em->text);
	else if (err == DB_GAP || err == DB_CORRUPT || err == DB_INVALID)
		send_position(w, em->text); /* what arrived does not continue our log: say again what we have */
	else
		set_state(w, WALRECEIVER_FAILED, em->text);
}

/* Raises the promise when a master of a newer term speaks first. False: the sender is superseded, drop its message. */
static bool accept_term(struct walreceiver *w, const struct wire_head *head)
{
	struct errmsg em = {0};
	enum db_err err;

	if (head->term < w->promised_term && !PLANTED(BUG_NO_TERM_CHECK)) {
		log_debug("walreceiver dropped %s of term %" PRIu64 " from %s: promised %" PRIu64,
			  wire_type_name(head->type), head->term, head->sender, w->promised_term);
		return false; /* (1) */
	}
	if (head->term == w->promised_term || PLANTED(BUG_NO_TERM_CHECK))
		return true;
	if (head->type != WIRE_HELLO)
		return false; /* a stream of a newer term begins with its HELLO */
	if (!wire_term_is_credible(head->term, w->promised_term)) {
		log_warn("walreceiver dropped hello of term %" PRIu64 " from %s: promised %" PRIu64
			 ", there cannot have been so many elections since",
			 head->term, head->sender, w->promised_term);
		return false;
	}
	err = walreceiver_set_term(w, head->term, &em);
	if (err != DB_OK)
		fail(w, err, &em);
	return err == DB_OK;
}

enum db_err walreceiver_set_term(struct walreceiver *w, uint64_t term, struct errmsg *em)
{
	enum db_err err;

	if (term < w->promised_term)
		return errmsg_set(em, DB_STALE_TERM, "promised term %" PRIu64 " already", w->promised_term);
	if (term > WIRE_TERM_MAX)
		return errmsg_set(em, DB_INVALID, "term %" PRIu64 " is beyond all that can be", term);
	err = w->io.sync(w->io.arg, em);
	if (err != DB_OK) {
		if (w->state != WALRECEIVER_REPLACED) /* which is final */
			fail(w, err, em);
		return err;
	}
	if (term == w->promised_term)
		return DB_OK;
	err = w->io.promise(w->io.arg, term, em);
	if (err != DB_OK)
		return err;
	w->promised_term = term;
	if (PLANTED(BUG_NO_TERM_CHECK))
		return DB_OK;
	w->stream_id = 0;
	w->quiet_ms = 0;
	if (w->state != WALRECEIVER_REPLACED && w->state != WALRECEIVER_FAILED)
		set_waiting(w, "newer term");
	return DB_OK;
}

static bool stream_is_dead(const struct walreceiver *w, uint64_t now_ms)
{
	return now_ms >= w->stream_ms + WALRECEIVER_STREAM_DEAD_MS;
}

static void on_hello(struct walreceiver *w, const struct wire_msg *msg, uint64_t now_ms)
{
	/* A master counts its streams up and says HELLO once in each. Anything else is an old message that somebody says
	 * again: it must neither take us off the stream that is under way nor open the door to a START of it, which would
	 * cut records that were acknowledged since. But a stream that nobody continues was never the master's. */
	if (msg->body.hello.stream_id <= w->stream_id && !stream_is_dead(w, now_ms) && !PLANTED(BUG_NO_TERM_CHECK)) {
		log_debug("walreceiver dropped hello of stream %" PRIu64 " from %s: stream %" PRIu64 " was begun",
			  msg->body.hello.stream_id, msg->head.sender, w->stream_id);
		return;
	}
	w->stream_id = msg->body.hello.stream_id;
	w->stream_ms = now_ms;
	w->hello_lsn = msg->body.hello.last_lsn;
	w->io.set_master(w->io.arg, msg->head.sender, &msg->body.hello);
	if (w->state != WALRECEIVER_FAILED && now_ms >= w->quiet_ms)
		send_position(w, "hello");
}

/* ---- a snapshot */

static void give_up_snapshot(struct walreceiver *w, const struct errmsg *em, uint64_t now_ms)
{
	log_warn("walreceiver: the snapshot is given up: %s", em->text);
	set_waiting(w, em->text);
	w->io.snapshot_discard(w->io.arg); /* it may be wrong, or fill the disk */
	w->quiet_ms = now_ms + WALRECEIVER_SNAPSHOT_RETRY_MS;
}

static void on_snapshot_begin(struct walreceiver *w, const struct wire_snapshot_begin *begin, uint64_t now_ms)
{
	struct errmsg em = {0};
	uint64_t visible_lsn = w->io.visible_lsn(w->io.arg);

	if (w->state != WALRECEIVER_POSITIONED && w->state != WALRECEIVER_DIVERGED)
		return;
	if (!w->diverged && begin->pos.lsn < visible_lsn) { /* (4) */
		errmsg_set(&em, DB_INVALID, "it is of lsn=%" PRIu64 ", readers here see %" PRIu64, begin->pos.lsn,
			   visible_lsn);
		give_up_snapshot(w, &em, now_ms);
		return;
	}
	if (w->io.snapshot_begin(w->io.arg, begin, &em) != DB_OK) {
		give_up_snapshot(w, &em, now_ms);
		return;
	}
	log_info("walreceiver receives a snapshot of %" PRIu32 " pages at lsn=%" PRIu64, begin->db_size_pages,
		 begin->pos.lsn);
	set_state(w, WALRECEIVER_SNAPSHOT, "the log cannot be joined to the master's");
}

static void on_snapshot_hashes(struct walreceiver *w, const struct wire_snapshot_hashes *hashes, uint64_t now_ms)
{
	struct wire_msg msg;
	struct wire_snapshot_want *want = &msg.body.snapshot_want;
	struct errmsg em = {0};

	init_reply(w, &msg, WIRE_SNAPSHOT_WANT);
	memset(want, 0, sizeof(*want));
	want->stream_id = w->stream_id;
	want->first_pgno = hashes->first_pgno;
	want->count = hashes->count;
	if (w->io.snapshot_compare(w->io.arg, hashes, want, &em) != DB_OK)
		give_up_snapshot(w, &em, now_ms);
	else
		w->io.send(w->io.arg, &msg);
}

static void on_snapshot_pages(struct walreceiver *w, const struct wire_snapshot_pages *pages, uint64_t now_ms)
{
	struct errmsg em = {0};

	if (w->io.snapshot_pages(w->io.arg, pages, &em) != DB_OK)
		give_up_snapshot(w, &em, now_ms);
}

static void on_snapshot_end(struct walreceiver *w, uint64_t now_ms)
{
	struct errmsg em = {0};

	if (w->io.snapshot_end(w->io.arg, &em) != DB_OK)
		give_up_snapshot(w, &em, now_ms);
	else
		set_state(w, WALRECEIVER_REPLACED, "the snapshot is complete");
}

/* ---- records */

static void on_start(struct walreceiver *w, const struct wire_start *start)
{
	struct errmsg em = {0};
	uint64_t checksum = 0;
	enum db_err err;

	if (w->state != WALRECEIVER_POSITIONED)
		return;
	if (start->prev.lsn < w->io.visible_lsn(w->io.arg)) { /* (4) */
		set_waiting(w, "the master's log lacks records that were committed here");
		return;
	}
	if (start->prev.lsn > 0) {
		err = w->io.checksum_at(w->io.arg, start->prev.lsn, &checksum, &em);
		if (err != DB_OK || checksum != start->prev_checksum) {
			diverge(w, "the log differs from the master's at the joining record");
			return;
		}
	}
	if (w->io.tip(w->io.arg, NULL).lsn > start->prev.lsn) {
		log_info("walreceiver cuts its log after lsn=%" PRIu64 ": the master of term %" PRIu64
			 " has no more of it",
			 start->prev.lsn, w->promised_term);
		err = w->io.cut(w->io.arg, start->prev.lsn - (PLANTED(BUG_CUT_WRONG_LSN) ? 1 : 0), &em);
		if (err != DB_OK) {
			fail(w, err, &em);
			return;
		}
	}
	w->io.snapshot_discard(w->io.arg);
	set_state(w, WALRECEIVER_STREAMING, "start");
	send_ack(w);
}

/* Appends every whole record of the message; records we have already are skipped. */
static enum db_err append_whole(struct walreceiver *w, const struct wire_records *records, struct errmsg *em)
{
	const uint8_t *at = records->bytes;
	size_t left = records->len;
	uint64_t tip = w->io.tip(w->io.arg, NULL).lsn;
	struct wal_record header;
	size_t size;
	enum db_err err;

	while (left > 0) {
		if (left < WAL_RECORD_HEADER_SIZE)
			return errmsg_set(em, DB_CORRUPT, "a record is cut short");
		err = wal_record_decode_header(&header, at, em);
		if (err != DB_OK)
			return err;
		size = WAL_RECORD_HEADER_SIZE + (size_t)header.payload_len;
		if (size > left)
			return errmsg_set(em, DB_CORRUPT, "record %" PRIu64 " is cut short", header.lsn);
		if (header.lsn > tip) {
			err = w->io.append(w->io.arg, at, size, em);
			if (err != DB_OK)
				return err;
			tip = header.lsn;
		}
		at += size;
		left -= size;
	}
	return DB_OK;
}

static enum db_err append_piece(struct walreceiver *w, const struct wire_records *records, struct errmsg *em)
{
	struct wal_record header;
	enum db_err err;

	if (records->offset == 0) {
		err = wal_record_decode_header(&header, records->bytes, em);
		if (err != DB_OK)
			return err;
		w->piece_lsn = header.lsn;
		w->piece_len = WAL_RECORD_HEADER_SIZE + header.payload_len;
		w->piece_offset = 0;
	}
	if (records->first_lsn != w->piece_lsn || records->offset != w->piece_offset ||
	    records->len > w->piece_len - w->piece_offset)
		return errmsg_set(em, DB_GAP, "a piece of record %" PRIu64 " is missing", records->first_lsn);
	err = w->io.append_piece(w->io.arg, records->offset, records->bytes, records->len, w->piece_len, em);
	w->piece_offset += records->len;
	if (w->piece_offset == w->piece_len)
		w->piece_offset = 0;
	return err;
}

/* True when the message is one piece of a record larger than a message. */
static bool is_piece(const struct wire_records *records)
{
	struct wal_record header;

	if (records->offset > 0)
		return true;
	return records->len >= WAL_RECORD_HEADER_SIZE &&
	       wal_record_decode_header(&header, records->bytes, NULL) == DB_OK &&
	       WAL_RECORD_HEADER_SIZE + header.payload_len > records->len;
}

static void note_progress(struct walreceiver *w, uint64_t committed_lsn, uint64_t master_last_lsn, uint64_t now_ms)
{
	uint64_t applied = w->io.applied_lsn(w->io.arg, NULL);

	w->io.set_committed(w->io.arg, committed_lsn < applied ? committed_lsn : applied); /* (3) */
	w->behind = applied < master_last_lsn;
	w->heard_ms = now_ms;
	if (w->behind)
		return;
	w->caught_up = true;
	w->caught_up_ms = now_ms;
}

static void on_records(struct walreceiver *w, const struct wire_records *records, uint64_t now_ms)
{
	struct errmsg em = {0};
	uint64_t tip = w->io.tip(w->io.arg, NULL).lsn;
	uint64_t before = tip;
	enum db_err err;

	if (records->first_lsn > tip + 1)
		err = errmsg_set(&em, DB_GAP, "records %" PRIu64 "..%" PRIu64 " are missing", tip + 1,
				 records->first_lsn - 1);
	else if (is_piece(records))
		err = append_piece(w, records, &em);
	else
		err = append_whole(w, records, &em);
	tip = w->io.tip(w->io.arg, NULL).lsn;
	if (tip > before) {
		struct errmsg sync_em = {0};
		enum db_err sync_err = PLANTED(BUG_ACK_BEFORE_SYNC) ? DB_OK : w->io.sync(w->io.arg, &sync_em);

		if (sync_err != DB_OK) {
			set_state(w, WALRECEIVER_FAILED, sync_em.text);
			return;
		}
		log_debug("walreceiver: durable first_lsn=%" PRIu64 " last_lsn=%" PRIu64, before + 1, tip);
		send_ack(w); /* (2) */
		sync_err = w->io.apply(w->io.arg, tip, &sync_em);
		if (sync_err != DB_OK) {
			fail(w, sync_err, &sync_em);
			return;
		}
		log_debug("walreceiver: applied first_lsn=%" PRIu64 " last_lsn=%" PRIu64, before + 1, tip);
	}
	if (err != DB_OK) {
		fail(w, err, &em);
		return;
	}
	note_progress(w, records->committed_lsn, records->last_lsn, now_ms);
}

static void on_commit(struct walreceiver *w, const struct wire_commit *commit, uint64_t now_ms)
{
	note_progress(w, commit->committed_lsn, commit->last_lsn, now_ms);
	/* The master does not count what we have: our last acknowledgement got lost with its connection. */
	if (commit->committed_lsn < w->io.tip(w->io.arg, NULL).lsn)
		send_ack(w);
}

/* The stream that a message of the master belongs to; 0: none, it is no such message. */
static uint64_t stream_of(const struct wire_msg *msg)
{
	switch (msg->head.type) {
	case WIRE_START:
		return msg->body.start.stream_id;
	case WIRE_RECORDS:
		return msg->body.records.stream_id;
	case WIRE_COMMIT:
		return msg->body.commit.stream_id;
	case WIRE_SNAPSHOT_BEGIN:
		return msg->body.snapshot_begin.stream_id;
	case WIRE_SNAPSHOT_PAGES:
		return msg->body.snapshot_pages.stream_id;
	case WIRE_SNAPSHOT_HASHES:
		return msg->body.snapshot_hashes.stream_id;
	case WIRE_SNAPSHOT_END:
		return msg->body.snapshot_end.stream_id;
	default:
		return 0;
	}
}

bool walreceiver_on_message(struct walreceiver *w, const struct wire_msg *msg, uint64_t now_ms)
{
	w->now_ms = now_ms;
	if (w->state == WALRECEIVER_REPLACED || !accept_term(w, &msg->head))
		return true;
	if (msg->head.type == WIRE_HELLO) {
		on_hello(w, msg, now_ms);
		return true;
	}
	/* Where a master goes on with a stream that we know nothing of, somebody else has taken us off it, or its HELLO
	 * got lost: it must begin anew. */
	if (w->stream_id == 0 || stream_of(msg) != w->stream_id)
		return stream_of(msg) == 0 || !stream_is_dead(w, now_ms);
	w->stream_ms = now_ms;
	if (msg->head.type == WIRE_START) {
		on_start(w, &msg->body.start);
	} else if (msg->head.type == WIRE_SNAPSHOT_BEGIN) {
		on_snapshot_begin(w, &msg->body.snapshot_begin, now_ms);
	} else if (w->state == WALRECEIVER_SNAPSHOT) {
		if (msg->head.type == WIRE_SNAPSHOT_HASHES)
			on_snapshot_hashes(w, &msg->body.snapshot_hashes, now_ms);
		else if (msg->head.type == WIRE_SNAPSHOT_PAGES)
			on_snapshot_pages(w, &msg->body.snapshot_pages, now_ms);
		else if (msg->head.type == WIRE_SNAPSHOT_END)
			on_snapshot_end(w, now_ms);
	} else if (w->state == WALRECEIVER_STREAMING) {
		if (msg->head.type == WIRE_RECORDS)
			on_records(w, &msg->body.records, now_ms);
		else if (msg->head.type == WIRE_COMMIT)
			on_commit(w, &msg->body.commit, now_ms);
	} else if (w->state != WALRECEIVER_FAILED && now_ms >= w->retry_ms && now_ms >= w->quiet_ms) {
		send_position(w, "trying again"); /* the stream goes on as if nothing had been said */
	}
	return true;
}

void walreceiver_get_status(const struct walreceiver *w, struct walreceiver_status *out)
{
	out->state = w->state;
	out->promised_term = w->promised_term;
	out->caught_up = w->caught_up;
	out->caught_up_ms = w->caught_up_ms;
	out->heard_ms = w->heard_ms;
	out->behind = w->behind;
	out->hello_lsn = w->hello_lsn;
	out->diverged = w->diverged;
	memcpy(out->reason, w->reason, sizeof(out->reason));
}

uint64_t walreceiver_lag_ms(const struct walreceiver_status *status, uint64_t now_ms)
{
	bool current = status->state == WALRECEIVER_STREAMING && !status->behind &&
		       now_ms <= status->heard_ms + WALRECEIVER_SILENCE_MS;

	return current || now_ms < status->caught_up_ms ? 0 : now_ms - status->caught_up_ms;
}

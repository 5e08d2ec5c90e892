/* walsender.c - see walsender.h. */
#include "master/walsender.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "master/join.h"

/* Records that wait are coalesced into one message up to this size; the largest single ones travel in pieces. */
#define WALSENDER_COALESCE_MAX ((size_t)256 << 10)

struct walsender {
	struct walsender_identity identity;
	struct walsender_io io;
	char peer[WIRE_NAME_MAX];
	enum walsender_state state;
	uint64_t stream_id;
	uint64_t spoken_ms;      /* when the last message was sent */
	uint64_t committed_sent; /* the committed LSN that the replica was told last */
	bool hello_due;
	bool start_due;
	struct wire_start start;  /* the START to send */
	struct wal_record record; /* taken from the cursor, not sent yet; payload NULL: none */
	size_t record_offset;     /* bytes of it sent already: it travels in pieces */
	struct buf coalesced;
	uint64_t acked_lsn;
	uint64_t applied_lsn;
	uint64_t db_checksum;
};

static const char *const state_names[] = {"disconnected", "hello", "streaming", "behind"};

const char *walsender_state_name(enum walsender_state state)
{
	return state_names[state];
}

enum db_err walsender_create(struct walsender **out, const struct walsender_identity *identity, const char *peer,
			     uint64_t first_stream_id, const struct walsender_io *io, struct errmsg *em)
{
	struct walsender *w = calloc(1, sizeof(*w));

	*out = w;
	if (w == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	w->identity = *identity;
	w->io = *io;
	w->stream_id = first_stream_id;
	snprintf(w->peer, sizeof(w->peer), "%s", peer);
	return DB_OK;
}

void walsender_free(struct walsender *w)
{
	if (w == NULL)
		return;
	buf_fini(&w->coalesced);
	free(w);
}

static void set_state(struct walsender *w, enum walsender_state state, const char *why)
{
	if (w->state == state)
		return;
	log_info("walsender %s %s->%s term=%" PRIu64 " why=\"%s\"", w->peer, state_names[w->state], state_names[state],
		 w->identity.term, why);
	w->state = state;
}

static void forget_record(struct walsender *w)
{
	memset(&w->record, 0, sizeof(w->record));
	w->record_offset = 0;
}

static void say_hello(struct walsender *w)
{
	w->stream_id++;
	w->hello_due = true;
	w->start_due = false;
	forget_record(w);
}

void walsender_on_connected(struct walsender *w, bool connected, uint64_t now_ms)
{
	w->spoken_ms = now_ms;
	if (connected) {
		set_state(w, WALSENDER_HELLO, "connected");
		say_hello(w);
	} else {
		set_state(w, WALSENDER_DISCONNECTED, "connection lost");
	}
}

/* Finds the last record that the replica shares with us; false with a reason when there is none we can go on from. */
static bool find_join(struct walsender *w, const struct wire_position *position, uint64_t *join_lsn, const char **why)
{
	struct wal_pos *terms = calloc(WIRE_TERMS_MAX, sizeof(*terms));
	struct join_log ours, theirs;
	bool found;

	*why = "out of memory";
	if (terms == NULL)
		return false;
	ours.terms = terms;
	ours.term_count = w->io.terms(w->io.arg, terms, WIRE_TERMS_MAX);
	ours.last_lsn = w->io.last_lsn(w->io.arg);
	theirs.terms = position->terms;
	theirs.term_count = position->term_count;
	theirs.last_lsn = position->last.lsn;
	found = join_find(&ours, &theirs, join_lsn);
	free(terms);
	*why = "its log shares no term with ours";
	if (!found)
		return false;
	*why = "its log ends before ours begins";
	if (*join_lsn + 1 < w->io.first_lsn(w->io.arg))
		return false;
	*why = "it holds committed records that we lack";
	return *join_lsn >= position->visible_lsn;
}

void walsender_on_position(struct walsender *w, const struct wire_position *position)
{
	struct errmsg em = {0};
	uint64_t join_lsn = 0;
	const char *why = "it needs a snapshot";

	if (w->state == WALSENDER_DISCONNECTED || position->stream_id != w->stream_id)
		return;
	forget_record(w);
	memset(&w->start, 0, sizeof(w->start));
	if (position->needs_snapshot || !find_join(w, position, &join_lsn, &why)) {
		set_state(w, WALSENDER_BEHIND, why);
		return;
	}
	if (join_lsn > 0 &&
	    w->io.describe(w->io.arg, join_lsn, &w->start.prev.term, &w->start.prev_checksum, &em) != DB_OK) {
		set_state(w, WALSENDER_BEHIND, em.text);
		return;
	}
	if (w->io.seek(w->io.arg, join_lsn + 1, &em) != DB_OK) {
		set_state(w, WALSENDER_BEHIND, em.text);
		return;
	}
	w->start.stream_id = w->stream_id;
	w->start.prev.lsn = join_lsn;
	w->start_due = true;
	set_state(w, WALSENDER_STREAMING, position->last.lsn > join_lsn ? "its tail is cut" : "position known");
}

bool walsender_on_ack(struct walsender *w, const struct wire_ack *ack)
{
	if (w->state != WALSENDER_STREAMING || ack->stream_id != w->stream_id)
		return false;
	if (ack->durable_lsn > w->acked_lsn)
		w->acked_lsn = ack->durable_lsn;
	w->applied_lsn = ack->applied_lsn;
	w->db_checksum = ack->db_checksum;
	return true;
}

static void init_message(const struct walsender *w, struct wire_msg *msg, enum wire_type type)
{
	memset(msg, 0, offsetof(struct wire_msg, body) + sizeof(struct wire_hello));
	msg->head.type = type;
	msg->head.term = w->identity.term;
	memcpy(msg->head.cluster_id, w->identity.cluster_id, sizeof(msg->head.cluster_id));
	memcpy(msg->head.sender, w->identity.node_id, sizeof(msg->head.sender));
}

static void fill_hello(struct walsender *w, struct wire_msg *msg)
{
	struct wire_hello *hello = &msg->body.hello;

	init_message(w, msg, WIRE_HELLO);
	hello->stream_id = w->stream_id;
	hello->last_lsn = w->io.last_lsn(w->io.arg);
	memcpy(hello->ack_address, w->identity.ack_address, sizeof(hello->ack_address));
	memcpy(hello->http_address, w->identity.http_address, sizeof(hello->http_address));
}

/* Makes sure that w->record is the next one to send. False: there is none. */
static bool take_record(struct walsender *w)
{
	struct errmsg em = {0};
	enum db_err err;

	if (w->record.payload != NULL)
		return true;
	err = w->io.next(w->io.arg, &w->record, &em);
	if (err == DB_OK)
		return true;
	forget_record(w);
	if (err != DB_NOTFOUND)
		set_state(w, WALSENDER_BEHIND, em.text);
	return false;
}

static void fill_piece(struct walsender *w, const uint8_t *bytes, size_t size, struct wire_records *records)
{
	records->offset = w->record_offset;
	records->bytes = bytes + w->record_offset;
	records->len = size - w->record_offset;
	if (records->len > WIRE_CHUNK_MAX)
		records->len = WIRE_CHUNK_MAX;
	w->record_offset += records->len;
	if (w->record_offset == size)
		forget_record(w);
}

/* One record alone goes out from where it lies in the log; several are put together first. */
static void fill_whole(struct walsender *w, const uint8_t *bytes, size_t size, struct wire_records *records)
{
	records->bytes = bytes;
	records->len = size;
	buf_clear(&w->coalesced);
	buf_put(&w->coalesced, bytes, size);
	forget_record(w);
	while (take_record(w)) {
		size = WAL_RECORD_HEADER_SIZE + (size_t)w->record.payload_len;
		if (w->coalesced.len + size > WALSENDER_COALESCE_MAX)
			break; /* stays in w->record for the next message */
		buf_put(&w->coalesced, w->record.payload - WAL_RECORD_HEADER_SIZE, size);
		forget_record(w);
	}
	records->bytes = w->coalesced.data;
	records->len = w->coalesced.len;
}

/* False: nothing to send, or memory is short (the record is then read again after a new HELLO). */
static bool fill_records(struct walsender *w, uint64_t committed_lsn, struct wire_msg *msg)
{
	struct wire_records *records = &msg->body.records;
	const uint8_t *bytes;
	size_t size;

	if (!take_record(w))
		return false;
	init_message(w, msg, WIRE_RECORDS);
	memset(records, 0, sizeof(*records));
	records->stream_id = w->stream_id;
	records->committed_lsn = committed_lsn;
	records->last_lsn = w->io.last_lsn(w->io.arg);
	records->first_lsn = w->record.lsn;
	bytes = w->record.payload - WAL_RECORD_HEADER_SIZE;
	size = WAL_RECORD_HEADER_SIZE + (size_t)w->record.payload_len;
	if (size > WIRE_CHUNK_MAX)
		fill_piece(w, bytes, size, records);
	else
		fill_whole(w, bytes, size, records);
	if (w->coalesced.failed) {
		log_warn("walsender %s: out of memory", w->peer);
		set_state(w, WALSENDER_HELLO, "out of memory");
		say_hello(w);
		return false;
	}
	w->committed_sent = committed_lsn;
	return true;
}

static void fill_commit(struct walsender *w, uint64_t committed_lsn, struct wire_msg *msg)
{
	init_message(w, msg, WIRE_COMMIT);
	msg->body.commit.stream_id = w->stream_id;
	msg->body.commit.committed_lsn = committed_lsn;
	msg->body.commit.last_lsn = w->io.last_lsn(w->io.arg);
	w->committed_sent = committed_lsn;
}

static bool next_while_streaming(struct walsender *w, uint64_t committed_lsn, bool flush_commit, uint64_t now_ms,
				 struct wire_msg *msg)
{
	if (w->start_due) {
		init_message(w, msg, WIRE_START);
		msg->body.start = w->start;
		w->start_due = false;
		w->committed_sent = 0;
		return true;
	}
	if (fill_records(w, committed_lsn, msg))
		return true;
	if (w->state != WALSENDER_STREAMING)
		return false;
	if ((flush_commit && committed_lsn > w->committed_sent && now_ms - w->spoken_ms >= WALSENDER_NOTICE_MS) ||
	    now_ms - w->spoken_ms >= WALSENDER_KEEPALIVE_MS) {
		fill_commit(w, committed_lsn, msg);
		return true;
	}
	return false;
}

bool walsender_next(struct walsender *w, uint64_t committed_lsn, bool flush_commit, uint64_t now_ms,
		    struct wire_msg *msg)
{
	bool send = false;

	if (w->state == WALSENDER_DISCONNECTED)
		return false;
	if (w->state == WALSENDER_STREAMING)
		send = next_while_streaming(w, committed_lsn, flush_commit, now_ms, msg);
	if (w->state != WALSENDER_STREAMING && !send) {
		if (!w->hello_due && now_ms - w->spoken_ms >= WALSENDER_HELLO_RETRY_MS)
			say_hello(w);
		if (w->hello_due) {
			w->hello_due = false;
			fill_hello(w, msg);
			send = true;
		}
	}
	if (send)
		w->spoken_ms = now_ms;
	return send;
}

void walsender_get_status(const struct walsender *w, struct walsender_status *out)
{
	out->state = w->state;
	out->acked_lsn = w->acked_lsn;
	out->applied_lsn = w->applied_lsn;
	out->db_checksum = w->db_checksum;
}

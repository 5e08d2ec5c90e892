/* walsender.c - see walsender.h. */
#include "master/walsender.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "master/join.h"
#include "master/snapshot_windows.h"

/* Records that wait are coalesced into one message up to this size; the largest single ones travel in pieces. */
#define WALSENDER_COALESCE_MAX ((size_t)256 << 10)
/* Nothing else is sent while a snapshot is, so its messages may be large: each costs two threads a wake-up. */
#define WALSENDER_PAGES_MAX ((uint32_t)(WIRE_CHUNK_MAX / WAL_PAGE_SIZE))

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
	bool log_damaged;         /* a record that this replica needs cannot be read: it gets a snapshot */
	bool snapshot_open;
	bool begin_due;                      /* SNAPSHOT: nothing of it was sent yet */
	struct wire_snapshot_begin snapshot; /* SNAPSHOT: what is sent */
	struct snapshot_windows windows;     /* SNAPSHOT: how far */
	struct {
		uint64_t committed_lsn; /* as last seen */
		uint64_t moved_ms;      /* when it was seen to move; 0: it was not */
		uint64_t due_ms;        /* when the next message may go while commits go on; 0: to be found out */
		bool waiting;
	} pace; /* SNAPSHOT: see WALSENDER_PACE */
	struct buf coalesced;
	uint64_t acked_lsn;
	uint64_t applied_lsn;
	uint64_t db_checksum;
};

static const char *const state_names[] = {"disconnected", "hello", "streaming", "snapshot", "refused"};

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

static void close_snapshot(struct walsender *w)
{
	if (w->snapshot_open)
		w->io.snapshot_close(w->io.arg);
	w->snapshot_open = false;
}

void walsender_free(struct walsender *w)
{
	if (w == NULL)
		return;
	close_snapshot(w);
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
	close_snapshot(w);
	if (connected) {
		set_state(w, WALSENDER_HELLO, "connected");
		say_hello(w);
	} else {
		set_state(w, WALSENDER_DISCONNECTED, "connection lost");
	}
}

enum verdict { VERDICT_JOIN, VERDICT_SNAPSHOT, VERDICT_REFUSE };

/* What can be done for a replica whose log shares no term with ours. A history of ours that is whole and disjoint from its
 * own is another database's, whatever we call it: nothing that was committed there may be replaced. */
static enum verdict judge_stranger(const struct join_log *ours, const struct wire_position *position, const char **why)
{
	bool whole = ours->term_count == 0 || ours->terms[0].lsn <= 1;

	if (position->visible_lsn > ours->last_lsn || (whole && position->visible_lsn > 0)) {
		*why = "it holds committed records that we lack";
		return VERDICT_REFUSE;
	}
	*why = "its log shares no term with ours";
	return VERDICT_SNAPSHOT;
}

/* Finds the last record that the replica shares with us, and whether we can go on from there. */
static enum verdict judge(struct walsender *w, const struct join_log *ours, const struct wire_position *position,
			  uint64_t *join_lsn, const char **why)
{
	const struct join_log theirs = {position->terms, position->term_count, position->last.lsn};

	if (!join_find(ours, &theirs, join_lsn))
		return judge_stranger(ours, position, why);
	if (*join_lsn < position->visible_lsn) {
		*why = "it holds committed records that we lack";
		return VERDICT_REFUSE;
	}
	*why = "it asks for a snapshot";
	if (position->needs_snapshot)
		return VERDICT_SNAPSHOT;
	*why = "its log ends before ours begins";
	if (*join_lsn + 1 < w->io.first_lsn(w->io.arg))
		return VERDICT_SNAPSHOT;
	*why = "our log is damaged where it would go on";
	return w->log_damaged ? VERDICT_SNAPSHOT : VERDICT_JOIN;
}

static void begin_streaming(struct walsender *w, const struct wire_position *position, uint64_t join_lsn)
{
	struct errmsg em = {0};
	enum db_err err = DB_OK;

	memset(&w->start, 0, sizeof(w->start));
	if (join_lsn > 0)
		err = w->io.describe(w->io.arg, join_lsn, &w->start.prev.term, &w->start.prev_checksum, &em);
	if (err == DB_OK)
		err = w->io.seek(w->io.arg, join_lsn + 1, &em);
	if (err != DB_OK) {
		w->log_damaged = err == DB_CORRUPT;
		set_state(w, WALSENDER_HELLO, em.text); /* asked again soon */
		return;
	}
	w->start.stream_id = w->stream_id;
	w->start.prev.lsn = join_lsn;
	w->start_due = true;
	set_state(w, WALSENDER_STREAMING, position->last.lsn > join_lsn ? "its tail is cut" : "position known");
}

static void begin_snapshot(struct walsender *w, const char *why)
{
	struct errmsg em = {0};

	if (w->io.snapshot_open(w->io.arg, &w->snapshot, &em) != DB_OK) {
		log_warn("walsender %s: no snapshot can be sent: %s", w->peer, em.text);
		set_state(w, WALSENDER_HELLO, em.text);
		return;
	}
	w->snapshot_open = true;
	w->log_damaged = false;
	w->begin_due = true;
	memset(&w->pace, 0, sizeof(w->pace));
	snapshot_windows_init(&w->windows, w->snapshot.db_size_pages);
	w->snapshot.stream_id = w->stream_id;
	set_state(w, WALSENDER_SNAPSHOT, why);
	log_info("walsender %s is sent a snapshot of %" PRIu32 " pages at lsn=%" PRIu64, w->peer,
		 w->snapshot.db_size_pages, w->snapshot.pos.lsn);
}

void walsender_on_position(struct walsender *w, const struct wire_position *position)
{
	struct wal_pos *terms;
	struct join_log ours;
	const char *why = "out of memory";
	uint64_t join_lsn = 0;

	/* Nobody can answer a HELLO that was not said yet; who does so all the same would keep it from being said. */
	if (w->state == WALSENDER_DISCONNECTED || w->hello_due || position->stream_id != w->stream_id)
		return;
	forget_record(w);
	close_snapshot(w);
	terms = calloc(WIRE_TERMS_MAX, sizeof(*terms));
	if (terms == NULL) {
		set_state(w, WALSENDER_HELLO, why);
		return;
	}
	ours.terms = terms;
	ours.term_count = w->io.terms(w->io.arg, terms, WIRE_TERMS_MAX);
	ours.last_lsn = w->io.last_lsn(w->io.arg);
	switch (judge(w, &ours, position, &join_lsn, &why)) {
	case VERDICT_JOIN:
		begin_streaming(w, position, join_lsn);
		break;
	case VERDICT_SNAPSHOT:
		begin_snapshot(w, why);
		break;
	case VERDICT_REFUSE:
		set_state(w, WALSENDER_REFUSED, why);
		break;
	}
	free(terms);
}

void walsender_on_want(struct walsender *w, const struct wire_snapshot_want *want)
{
	if (w->state != WALSENDER_SNAPSHOT || want->stream_id != w->stream_id)
		return;
	if (!snapshot_windows_answer(&w->windows, want))
		log_debug("walsender %s wants pages it was not offered", w->peer);
}

bool walsender_on_ack(struct walsender *w, const struct wire_ack *ack)
{
	if (w->state != WALSENDER_STREAMING || ack->stream_id != w->stream_id)
		return false;
	if (ack->durable_lsn > w->io.last_lsn(w->io.arg)) {
		log_warn("walsender %s: acknowledges lsn=%" PRIu64 ", which was never written", w->peer,
			 ack->durable_lsn);
		return false;
	}
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
	if (err != DB_NOTFOUND) {
		w->log_damaged = err == DB_CORRUPT;
		set_state(w, WALSENDER_HELLO, em.text); /* where the replica is now decides what becomes of it */
	}
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

static void start_over(struct walsender *w, const char *why)
{
	log_warn("walsender %s: %s", w->peer, why);
	close_snapshot(w);
	set_state(w, WALSENDER_HELLO, why);
	say_hello(w);
}

void walsender_cut(struct walsender *w, const char *why)
{
	forget_record(w);
	if (w->state == WALSENDER_STREAMING || w->state == WALSENDER_SNAPSHOT)
		start_over(w, why);
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
		buf_fini(&w->coalesced);
		start_over(w, "out of memory");
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

static bool fill_hashes(struct walsender *w, uint32_t first_pgno, uint32_t count, struct wire_msg *msg)
{
	struct wire_snapshot_hashes *hashes = &msg->body.snapshot_hashes;
	uint32_t i;

	init_message(w, msg, WIRE_SNAPSHOT_HASHES);
	buf_clear(&w->coalesced);
	for (i = 0; i < count; i++)
		buf_put_u64le(&w->coalesced, w->io.snapshot_hash(w->io.arg, first_pgno + i));
	hashes->stream_id = w->stream_id;
	hashes->first_pgno = first_pgno;
	hashes->count = count;
	hashes->bytes = w->coalesced.data;
	return !w->coalesced.failed;
}

/* Neighbouring pages of the base file are neighbours in memory, too, and need not be put together. */
static uint32_t count_adjacent(struct walsender *w, uint32_t first_pgno, uint32_t count, const uint8_t *first)
{
	uint32_t i = 1;

	while (i < count && w->io.snapshot_page(w->io.arg, first_pgno + i) == first + (size_t)i * WAL_PAGE_SIZE)
		i++;
	return i;
}

static bool fill_pages(struct walsender *w, uint32_t first_pgno, uint32_t count, struct wire_msg *msg)
{
	struct wire_snapshot_pages *pages = &msg->body.snapshot_pages;
	const uint8_t *first = w->io.snapshot_page(w->io.arg, first_pgno);
	uint32_t i;

	init_message(w, msg, WIRE_SNAPSHOT_PAGES);
	pages->stream_id = w->stream_id;
	pages->first_pgno = first_pgno;
	pages->bytes = first;
	pages->len = (size_t)count * WAL_PAGE_SIZE;
	if (count_adjacent(w, first_pgno, count, first) == count)
		return true;
	buf_clear(&w->coalesced);
	for (i = 0; i < count; i++)
		buf_put(&w->coalesced, w->io.snapshot_page(w->io.arg, first_pgno + i), WAL_PAGE_SIZE);
	pages->bytes = w->coalesced.data;
	return !w->coalesced.failed;
}

static void fill_end(struct walsender *w, struct wire_msg *msg)
{
	init_message(w, msg, WIRE_SNAPSHOT_END);
	msg->body.snapshot_end.stream_id = w->stream_id;
	log_info("walsender %s was sent %" PRIu32 " of the snapshot's %" PRIu32 " pages, it had the others", w->peer,
		 w->windows.taken, w->windows.size_pages);
	close_snapshot(w);
	set_state(w, WALSENDER_HELLO, "snapshot sent"); /* the next HELLO meets the replica with it, or without */
}

/* False: the replica has to say first what it wants. */
static bool next_of_snapshot(struct walsender *w, struct wire_msg *msg)
{
	uint32_t first_pgno, count;
	bool filled;

	if (w->begin_due) {
		init_message(w, msg, WIRE_SNAPSHOT_BEGIN);
		msg->body.snapshot_begin = w->snapshot;
		w->begin_due = false;
		return true;
	}
	if (snapshot_windows_offer(&w->windows, &first_pgno, &count)) {
		filled = fill_hashes(w, first_pgno, count, msg);
	} else if (snapshot_windows_take(&w->windows, WALSENDER_PAGES_MAX, &first_pgno, &count)) {
		filled = fill_pages(w, first_pgno, count, msg);
	} else if (snapshot_windows_offer(&w->windows, &first_pgno, &count)) { /* taking may have closed a window */
		filled = fill_hashes(w, first_pgno, count, msg);
	} else {
		if (snapshot_windows_done(&w->windows))
			fill_end(w, msg);
		return w->state != WALSENDER_SNAPSHOT;
	}
	if (filled)
		return true;
	buf_fini(&w->coalesced);
	start_over(w, "out of memory");
	return false;
}

void walsender_on_tick(struct walsender *w, uint64_t now_ms)
{
	if (w->state == WALSENDER_SNAPSHOT && now_ms - w->spoken_ms >= WALSENDER_WANT_MS)
		start_over(w, "the replica does not say which pages of the snapshot it wants");
}

/* Asked first when the message before has gone: how long that took is what it took from others. */
static bool must_wait(struct walsender *w, uint64_t committed_lsn, uint64_t now_ms)
{
	uint64_t took_ms, wait_ms;

	if (committed_lsn != w->pace.committed_lsn) {
		w->pace.moved_ms = w->pace.committed_lsn == 0 ? 0 : now_ms;
		w->pace.committed_lsn = committed_lsn;
	}
	if (w->pace.due_ms == 0) {
		took_ms = now_ms > w->spoken_ms ? now_ms - w->spoken_ms : 1;
		wait_ms =
		    took_ms * WALSENDER_PACE < WALSENDER_PACE_MS_MAX ? took_ms * WALSENDER_PACE : WALSENDER_PACE_MS_MAX;
		w->pace.due_ms = now_ms + wait_ms;
	}
	w->pace.waiting =
	    w->pace.moved_ms > 0 && now_ms - w->pace.moved_ms < WALSENDER_BUSY_MS && now_ms < w->pace.due_ms;
	return w->pace.waiting;
}

bool walsender_next(struct walsender *w, uint64_t committed_lsn, bool flush_commit, uint64_t now_ms,
		    struct wire_msg *msg)
{
	bool send = false;

	if (w->state == WALSENDER_DISCONNECTED)
		return false;
	if (w->state == WALSENDER_STREAMING)
		send = next_while_streaming(w, committed_lsn, flush_commit, now_ms, msg);
	else if (w->state == WALSENDER_SNAPSHOT && !must_wait(w, committed_lsn, now_ms))
		send = next_of_snapshot(w, msg);
	if (w->state != WALSENDER_STREAMING && w->state != WALSENDER_SNAPSHOT && !send) {
		if (!w->hello_due && now_ms - w->spoken_ms >= WALSENDER_HELLO_RETRY_MS)
			say_hello(w);
		if (w->hello_due) {
			w->hello_due = false;
			fill_hello(w, msg);
			send = true;
		}
	}
	if (send) {
		w->spoken_ms = now_ms;
		w->pace.due_ms = 0;
	}
	return send;
}

void walsender_get_status(const struct walsender *w, struct walsender_status *out)
{
	out->state = w->state;
	out->paced = w->state == WALSENDER_SNAPSHOT && w->pace.waiting;
	out->acked_lsn = w->acked_lsn;
	out->applied_lsn = w->applied_lsn;
	out->db_checksum = w->db_checksum;
}

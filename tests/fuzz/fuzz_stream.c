/*
 * fuzz_stream.c - both ends of the record stream against a hostile but well-formed peer.
 *
 * The first byte chooses the end. The rest of the input is a list of choices: messages with fields near what is right, small,
 * huge or any, faults of the disk below, time that passes, commands of the supervisor. Every message is encoded and decoded
 * on its way, as in a node. The model below each end checks what it is asked to do: the walreceiver never cuts or shows
 * what it must not, promises only ever grow, and by a bounded step where a peer names the term; the walsender sends only
 * what its log holds, believes no acknowledgement beyond that, and opens and closes snapshots in turn.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/wire/wire.h"
#include "master/walsender.h"
#include "replica/walreceiver.h"
#include "tests/fuzz/fuzz.h"

#define LOG_MAX   64u
#define PIECES_AT 3u /* pages of the record that travels in pieces */

static const uint8_t cluster_id[16] = "fuzz-cluster-id!";
static struct wire_msg sent, received; /* large */

/* ---- a log in memory */

struct memory_log {
	uint8_t *records[LOG_MAX]; /* records[lsn - 1] */
	size_t lens[LOG_MAX];
	uint64_t first_lsn, last_lsn, durable_lsn;
};

static uint64_t checksum_of(const struct memory_log *log, uint64_t lsn)
{
	return lsn == 0 || lsn > log->last_lsn ? 0 : load_u64le(log->records[lsn - 1] + 64);
}

static uint64_t term_of(const struct memory_log *log, uint64_t lsn)
{
	return lsn == 0 || lsn > log->last_lsn ? 0 : load_u64le(log->records[lsn - 1] + 16);
}

static uint8_t *seal(const struct memory_log *log, uint64_t lsn, uint64_t term, uint32_t pages, size_t *len)
{
	struct wal_record r = {.type = pages > 0 ? WAL_PAGES : WAL_TERM_START,
			       .lsn = lsn,
			       .term = term,
			       .db_size_pages = pages,
			       .page_count = pages,
			       .payload_len = wal_payload_size(pages),
			       .prev_checksum = checksum_of(log, lsn - 1)};
	struct wal_hash *hash = wal_hash_create();
	uint8_t *bytes;
	uint32_t i;

	*len = (size_t)wal_record_size(pages);
	bytes = calloc(1, *len);
	FUZZ_CHECK(bytes != NULL && hash != NULL);
	for (i = 0; i < pages; i++)
		store_u32le(bytes + WAL_RECORD_HEADER_SIZE + 4 * i, i + 1);
	wal_hash_begin(hash, &r);
	wal_hash_add(hash, bytes + WAL_RECORD_HEADER_SIZE, (size_t)r.payload_len);
	r.checksum = wal_hash_end(hash);
	wal_hash_free(hash);
	wal_record_encode_header(&r, bytes);
	return bytes;
}

static void log_push(struct memory_log *log, uint8_t *bytes, size_t len)
{
	log->lens[log->last_lsn] = len;
	log->records[log->last_lsn++] = bytes;
}

static void log_cut(struct memory_log *log, uint64_t keep_lsn)
{
	while (log->last_lsn > keep_lsn)
		free(log->records[--log->last_lsn]);
	if (log->durable_lsn > keep_lsn)
		log->durable_lsn = keep_lsn;
}

static size_t log_terms(const struct memory_log *log, struct wal_pos *out, size_t max)
{
	size_t count = 0;
	uint64_t lsn;

	for (lsn = log->first_lsn; lsn <= log->last_lsn && count < max; lsn++)
		if (count == 0 || out[count - 1].term != term_of(log, lsn))
			out[count++] = (struct wal_pos){term_of(log, lsn), lsn};
	return count;
}

/* From sent to received, over the wire. */
static bool travel(void)
{
	struct errmsg em = {0};
	struct buf b = {0};
	static struct buf kept; /* received borrows from it */
	bool ok;

	wire_encode(&b, &sent);
	FUZZ_CHECK(!b.failed);
	buf_fini(&kept);
	kept = b;
	ok = wire_decode(&received, kept.data, kept.len, cluster_id, &em) == DB_OK;
	FUZZ_CHECK(ok || em.text[0] != '\0');
	return ok;
}

static void begin_message(enum wire_type type, uint64_t term, const char *sender)
{
	memset(&sent, 0, sizeof(sent.head) + sizeof(struct wire_node_status));
	sent.head.type = type;
	sent.head.term = term;
	memcpy(sent.head.cluster_id, cluster_id, sizeof(cluster_id));
	snprintf(sent.head.sender, sizeof(sent.head.sender), "%s", sender);
}

/* ---- the replica's end */

struct receiving {
	struct memory_log log;
	struct walreceiver *walreceiver;
	uint64_t promised_term, visible_lsn, applied_lsn, now_ms;
	uint64_t stream_id;                  /* of the last HELLO sent */
	uint64_t piece_offset, piece_length; /* of the record in pieces: what came so far, and its whole length */
	enum db_err fails;                   /* what the disk answers to everything */
	bool commanded;                      /* the supervisor names the term, not a peer */
	bool snapshot_open, replaced;
	uint32_t snapshot_next;
};

static enum db_err fault(struct receiving *r, struct errmsg *em)
{
	return r->fails == DB_OK ? DB_OK : errmsg_set(em, r->fails, "told to fail");
}

static struct wal_pos rx_tip(void *arg, uint64_t *checksum)
{
	struct receiving *r = arg;

	if (checksum != NULL)
		*checksum = checksum_of(&r->log, r->log.last_lsn);
	return (struct wal_pos){term_of(&r->log, r->log.last_lsn), r->log.last_lsn};
}

static size_t rx_terms(void *arg, struct wal_pos *out, size_t max)
{
	return log_terms(&((struct receiving *)arg)->log, out, max);
}

static enum db_err rx_checksum_at(void *arg, uint64_t lsn, uint64_t *checksum, struct errmsg *em)
{
	struct receiving *r = arg;

	if (lsn == 0 || lsn > r->log.last_lsn)
		return errmsg_set(em, DB_NOTFOUND, "no such record");
	*checksum = checksum_of(&r->log, lsn);
	return DB_OK;
}

static uint64_t rx_visible(void *arg)
{
	return ((struct receiving *)arg)->visible_lsn;
}

static uint64_t rx_applied(void *arg, uint64_t *db_checksum)
{
	if (db_checksum != NULL)
		*db_checksum = 0;
	return ((struct receiving *)arg)->applied_lsn;
}

/* What store_append_record() does with it. */
static enum db_err rx_append(void *arg, const uint8_t *bytes, size_t len, struct errmsg *em)
{
	struct receiving *r = arg;
	struct wal_record record;
	uint8_t *copy;
	enum db_err err = fault(r, em);

	if (err == DB_OK)
		err = wal_record_decode(&record, bytes, len, em);
	if (err != DB_OK)
		return err;
	if (r->log.last_lsn == LOG_MAX)
		return errmsg_set(em, DB_FULL, "the log is full");
	if (record.lsn != r->log.last_lsn + 1 || record.prev_checksum != checksum_of(&r->log, r->log.last_lsn) ||
	    record.term < term_of(&r->log, r->log.last_lsn))
		return errmsg_set(em, DB_GAP, "does not continue the log");
	copy = malloc(len);
	FUZZ_CHECK(copy != NULL);
	memcpy(copy, bytes, len);
	log_push(&r->log, copy, len);
	return DB_OK;
}

static enum db_err rx_append_piece(void *arg, uint64_t offset, const uint8_t *piece, size_t len, uint64_t record_len,
				   struct errmsg *em)
{
	struct receiving *r = arg;
	size_t i, sum = 0;

	FUZZ_CHECK(len > 0 && record_len >= WAL_RECORD_HEADER_SIZE && record_len <= WAL_RECORD_BYTES_MAX);
	FUZZ_CHECK(offset <= record_len && len <= record_len - offset);
	FUZZ_CHECK(offset == 0 || (offset == r->piece_offset && record_len == r->piece_length));
	for (i = 0; i < len; i++)
		sum += piece[i]; /* all of it may be read */
	FUZZ_CHECK(sum <= len * 255);
	r->piece_offset = offset + len;
	r->piece_length = record_len;
	return offset + len < record_len ? fault(r, em) : errmsg_set(em, DB_CORRUPT, "the record is damaged");
}

static enum db_err rx_sync(void *arg, struct errmsg *em)
{
	struct receiving *r = arg;
	enum db_err err = fault(r, em);

	if (err == DB_OK)
		r->log.durable_lsn = r->log.last_lsn;
	return err;
}

static enum db_err rx_apply(void *arg, uint64_t lsn, struct errmsg *em)
{
	struct receiving *r = arg;
	enum db_err err = fault(r, em);

	FUZZ_CHECK(lsn <= r->log.last_lsn);
	if (err == DB_OK)
		r->applied_lsn = lsn;
	return err;
}

static enum db_err rx_cut(void *arg, uint64_t keep_lsn, struct errmsg *em)
{
	struct receiving *r = arg;
	enum db_err err = fault(r, em);

	FUZZ_CHECK(keep_lsn >= r->visible_lsn && keep_lsn <= r->log.last_lsn);
	if (err != DB_OK)
		return err;
	log_cut(&r->log, keep_lsn);
	if (r->applied_lsn > keep_lsn)
		r->applied_lsn = keep_lsn;
	return DB_OK;
}

static void rx_set_committed(void *arg, uint64_t lsn)
{
	struct receiving *r = arg;

	FUZZ_CHECK(lsn <= r->applied_lsn && lsn <= r->log.durable_lsn);
	if (lsn > r->visible_lsn)
		r->visible_lsn = lsn;
}

static enum db_err rx_snapshot_begin(void *arg, const struct wire_snapshot_begin *begin, struct errmsg *em)
{
	struct receiving *r = arg;
	enum db_err err = fault(r, em);

	(void)begin;
	FUZZ_CHECK(!r->snapshot_open);
	r->snapshot_open = err == DB_OK;
	r->snapshot_next = 1;
	return err;
}

static enum db_err rx_snapshot_pages(void *arg, const struct wire_snapshot_pages *pages, struct errmsg *em)
{
	struct receiving *r = arg;

	FUZZ_CHECK(r->snapshot_open && pages->first_pgno > 0 && pages->len % WAL_PAGE_SIZE == 0);
	if (pages->first_pgno != r->snapshot_next)
		return errmsg_set(em, DB_GAP, "a page is missing");
	r->snapshot_next += (uint32_t)(pages->len / WAL_PAGE_SIZE);
	return fault(r, em);
}

static enum db_err rx_snapshot_end(void *arg, struct errmsg *em)
{
	struct receiving *r = arg;
	enum db_err err = fault(r, em);

	FUZZ_CHECK(r->snapshot_open);
	if (r->snapshot_next % 2 == 1 && err == DB_OK)
		err = errmsg_set(em, DB_CORRUPT, "the checksum is wrong");
	r->replaced = err == DB_OK;
	r->snapshot_open = err != DB_OK;
	return err;
}

static enum db_err rx_snapshot_compare(void *arg, const struct wire_snapshot_hashes *hashes,
				       struct wire_snapshot_want *want, struct errmsg *em)
{
	struct receiving *r = arg;
	size_t i, sum = 0;

	FUZZ_CHECK(r->snapshot_open && hashes->count >= 1 && hashes->count <= WIRE_WINDOW_PAGES);
	for (i = 0; i < (size_t)hashes->count * 8; i++)
		sum += hashes->bytes[i]; /* all of it may be read */
	FUZZ_CHECK(sum <= (size_t)hashes->count * 8 * 255);
	want->bits[0] = 1;
	return fault(r, em);
}

static void rx_snapshot_discard(void *arg)
{
	FUZZ_CHECK(!((struct receiving *)arg)->snapshot_open);
}

static void rx_snapshot_drop(void *arg)
{
	struct receiving *r = arg;

	FUZZ_CHECK(r->snapshot_open && !r->replaced);
	r->snapshot_open = false;
}

static enum db_err rx_promise(void *arg, uint64_t term, struct errmsg *em)
{
	struct receiving *r = arg;
	enum db_err err = fault(r, em);

	FUZZ_CHECK(term > r->promised_term && term <= WIRE_TERM_MAX);
	FUZZ_CHECK(r->commanded || term - r->promised_term <= WIRE_TERM_STEP_MAX);
	if (err == DB_OK)
		r->promised_term = term;
	return err;
}

static void rx_set_master(void *arg, const char *id, const struct wire_hello *hello)
{
	FUZZ_CHECK(arg != NULL && id[0] != '\0' && strnlen(hello->ack_address, WIRE_NAME_MAX) < WIRE_NAME_MAX);
}

static void rx_send(void *arg, const struct wire_msg *msg)
{
	struct receiving *r = arg;

	FUZZ_CHECK(msg->head.term == r->promised_term && !r->replaced);
	if (msg->head.type == WIRE_ACK) {
		FUZZ_CHECK(msg->body.ack.durable_lsn <= r->log.durable_lsn);
		FUZZ_CHECK(msg->body.ack.applied_lsn <= r->log.last_lsn);
	} else if (msg->head.type == WIRE_SNAPSHOT_WANT) {
		FUZZ_CHECK(r->snapshot_open);
	} else {
		FUZZ_CHECK(msg->head.type == WIRE_POSITION && msg->body.position.last.lsn == r->log.last_lsn);
		FUZZ_CHECK(msg->body.position.visible_lsn == r->visible_lsn);
	}
	sent = *msg;
	FUZZ_CHECK(travel());
}

static void fill_hello(struct receiving *r, struct fuzz_in *in)
{
	struct wire_hello *hello = &sent.body.hello;
	static const char *const addresses[] = {"127.0.0.1:8281", "", "nowhere", "[::1]:1", ":0"};

	hello->stream_id = in_number(in, r->stream_id + 1);
	hello->last_lsn = in_number(in, r->log.last_lsn);
	snprintf(hello->ack_address, sizeof(hello->ack_address), "%s", addresses[in_u8(in) % 5]);
	r->stream_id = hello->stream_id;
}

static void fill_start(struct receiving *r, struct fuzz_in *in)
{
	struct wire_start *start = &sent.body.start;
	bool right = in_u8(in) % 4 != 0;

	start->stream_id = in_number(in, r->stream_id);
	start->prev.lsn = in_number(in, r->log.last_lsn);
	start->prev.term = in_number(in, term_of(&r->log, start->prev.lsn));
	start->prev_checksum = right ? checksum_of(&r->log, start->prev.lsn) : in_u64(in);
}

/* One record or a few that continue the log, or nearly do; a piece of a large one; or noise. */
static void fill_records(struct receiving *r, struct fuzz_in *in, struct buf *b)
{
	struct wire_records *records = &sent.body.records;
	uint8_t how = in_u8(in);
	uint64_t lsn = in_number(in, r->log.last_lsn + 1);
	struct memory_log ahead = r->log; /* its records are borrowed; ours are freed below */
	uint8_t *bytes;
	size_t len, got, at = 0;
	unsigned i;

	records->stream_id = in_number(in, r->stream_id);
	records->committed_lsn = in_number(in, r->log.last_lsn);
	records->last_lsn = in_number(in, r->log.last_lsn);
	records->first_lsn = in_number(in, lsn);
	if ((how & 3) == 3) {
		records->offset = in_number(in, 0);
		bytes = (uint8_t *)(uintptr_t)in_bytes(in, in_u8(in), &got);
		buf_put(b, bytes, got);
	} else if ((how & 3) == 2) {
		bytes = seal(&r->log, lsn, in_number(in, r->promised_term), PIECES_AT, &len);
		records->offset = in_number(in, r->piece_offset);
		at = records->offset < len ? (size_t)records->offset : 0;
		buf_put(b, bytes + at, (how & 4 ? len - at : (len - at) / 2));
		free(bytes);
	} else {
		for (i = 0; i <= (unsigned)(how >> 6) && lsn + i <= LOG_MAX && lsn > 0; i++) {
			bytes = seal(&ahead, lsn + i, in_number(in, r->promised_term), how & 8 ? 1 : 0, &len);
			buf_put(b, bytes, len);
			if (lsn + i == ahead.last_lsn + 1)
				log_push(&ahead, bytes, len);
			else
				free(bytes);
		}
		log_cut(&ahead, r->log.last_lsn);
		if (how & 16 && b->len > 0)
			b->data[in_u8(in) % b->len] ^= in_u8(in);
		records->offset = in_number(in, 0);
	}
	if (b->len == 0)
		buf_put_u8(b, 0);
	records->bytes = b->data;
	records->len = b->len;
}

static void fill_snapshot(struct receiving *r, struct fuzz_in *in, struct buf *b)
{
	switch (sent.head.type) {
	case WIRE_SNAPSHOT_BEGIN:
		sent.body.snapshot_begin.stream_id = in_number(in, r->stream_id);
		sent.body.snapshot_begin.pos.lsn = in_number(in, r->log.last_lsn);
		sent.body.snapshot_begin.pos.term = in_number(in, r->promised_term);
		sent.body.snapshot_begin.db_size_pages = (uint32_t)in_number(in, 3);
		break;
	case WIRE_SNAPSHOT_HASHES:
		sent.body.snapshot_hashes.stream_id = in_number(in, r->stream_id);
		sent.body.snapshot_hashes.first_pgno = (uint32_t)in_number(in, r->snapshot_next);
		sent.body.snapshot_hashes.count = 1 + in_u8(in) % 64u;
		FUZZ_CHECK(buf_reserve(b, 64 * 8));
		memset(b->data, 0, 64 * 8);
		sent.body.snapshot_hashes.bytes = b->data;
		break;
	case WIRE_SNAPSHOT_PAGES:
		sent.body.snapshot_pages.stream_id = in_number(in, r->stream_id);
		sent.body.snapshot_pages.first_pgno = (uint32_t)in_number(in, r->snapshot_next);
		FUZZ_CHECK(buf_reserve(b, WAL_PAGE_SIZE));
		memset(b->data, 0, WAL_PAGE_SIZE);
		sent.body.snapshot_pages.bytes = b->data;
		sent.body.snapshot_pages.len = WAL_PAGE_SIZE;
		break;
	default:
		sent.body.snapshot_end.stream_id = in_number(in, r->stream_id);
	}
}

static void send_message(struct receiving *r, enum wire_type type, struct fuzz_in *in)
{
	struct buf b = {0};

	begin_message(type, in_number(in, r->promised_term), "node1");
	if (type == WIRE_HELLO)
		fill_hello(r, in);
	else if (type == WIRE_START)
		fill_start(r, in);
	else if (type == WIRE_RECORDS)
		fill_records(r, in, &b);
	else if (type == WIRE_COMMIT)
		sent.body.commit = (struct wire_commit){in_number(in, r->stream_id), in_number(in, r->log.last_lsn),
							in_number(in, r->log.last_lsn)};
	else
		fill_snapshot(r, in, &b);
	if (travel())
		walreceiver_on_message(r->walreceiver, &received, r->now_ms);
	buf_fini(&b);
}

/* Bytes of the input as they are, behind a right head. */
static void send_raw(struct receiving *r, struct fuzz_in *in)
{
	struct errmsg em = {0};
	struct buf b = {0};
	const uint8_t *bytes;
	size_t got;

	begin_message(WIRE_HEARTBEAT, r->promised_term, "node1");
	wire_encode(&b, &sent);
	FUZZ_CHECK(!b.failed);
	store_u16le(b.data + 6, in_u8(in));
	bytes = in_bytes(in, in_u8(in), &got);
	buf_put(&b, bytes, got);
	if (wire_decode(&received, b.data, b.len, cluster_id, &em) == DB_OK)
		walreceiver_on_message(r->walreceiver, &received, r->now_ms);
	buf_fini(&b);
}

static void command_term(struct receiving *r, struct fuzz_in *in)
{
	uint64_t before = r->promised_term, term = in_number(in, before + 1);
	struct errmsg em = {0};
	enum db_err err;

	r->commanded = true;
	err = walreceiver_set_term(r->walreceiver, term, &em);
	r->commanded = false;
	if (err == DB_OK)
		FUZZ_CHECK(r->promised_term == (term > before ? term : before) &&
			   r->log.durable_lsn == r->log.last_lsn);
	else
		FUZZ_CHECK(r->promised_term == before && em.text[0] != '\0');
	FUZZ_CHECK(term >= before || err == DB_STALE_TERM);
}

static void check_status(const struct receiving *r)
{
	struct walreceiver_status status;

	walreceiver_get_status(r->walreceiver, &status);
	FUZZ_CHECK(status.promised_term == r->promised_term);
	FUZZ_CHECK((status.state == WALRECEIVER_SNAPSHOT) == r->snapshot_open);
	FUZZ_CHECK((status.state == WALRECEIVER_REPLACED) == r->replaced);
	FUZZ_CHECK(r->visible_lsn <= r->applied_lsn && r->visible_lsn <= r->log.durable_lsn);
	walreceiver_lag_ms(&status, r->now_ms);
}

static void fuzz_receiver(struct fuzz_in *in)
{
	static const enum wire_type types[] = {
	    WIRE_HELLO,          WIRE_START,          WIRE_RECORDS, WIRE_RECORDS,      WIRE_RECORDS,        WIRE_COMMIT,
	    WIRE_SNAPSHOT_BEGIN, WIRE_SNAPSHOT_PAGES, WIRE_HELLO,   WIRE_SNAPSHOT_END, WIRE_SNAPSHOT_HASHES};
	static const enum db_err faults[] = {DB_OK, DB_OK, DB_FULL, DB_IO, DB_DIVERGED, DB_CORRUPT, DB_GAP, DB_NOMEM};
	struct receiving r = {.log.first_lsn = 1, .promised_term = 1, .now_ms = 1000};
	const struct walreceiver_io io = {.arg = &r,
					  .tip = rx_tip,
					  .terms = rx_terms,
					  .checksum_at = rx_checksum_at,
					  .visible_lsn = rx_visible,
					  .applied_lsn = rx_applied,
					  .append = rx_append,
					  .append_piece = rx_append_piece,
					  .sync = rx_sync,
					  .apply = rx_apply,
					  .cut = rx_cut,
					  .set_committed = rx_set_committed,
					  .snapshot_begin = rx_snapshot_begin,
					  .snapshot_pages = rx_snapshot_pages,
					  .snapshot_end = rx_snapshot_end,
					  .snapshot_compare = rx_snapshot_compare,
					  .snapshot_discard = rx_snapshot_discard,
					  .snapshot_drop = rx_snapshot_drop,
					  .promise = rx_promise,
					  .set_master = rx_set_master,
					  .send = rx_send};
	struct errmsg em = {0};
	uint8_t op;

	FUZZ_CHECK(walreceiver_create(&r.walreceiver, &io, cluster_id, "node2", 1, r.now_ms, &em) == DB_OK);
	while (in->left > 0) {
		op = in_u8(in) & 15;
		if (op < sizeof(types) / sizeof(types[0]))
			send_message(&r, types[op], in);
		else if (op == 12)
			command_term(&r, in);
		else if (op == 13)
			r.fails = faults[in_u8(in) % 8];
		else if (op == 14)
			r.now_ms += in_u16(in);
		else
			send_raw(&r, in);
		check_status(&r);
	}
	walreceiver_free(r.walreceiver);
	log_cut(&r.log, 0);
}

/* ---- the master's end */

struct sending {
	struct memory_log log;
	struct walsender *walsender;
	uint64_t next_lsn, committed_lsn, now_ms, term;
	uint64_t stream_id; /* of the newest HELLO */
	uint64_t snapshot_lsn;
	bool snapshot_open;
	enum db_err fails;
};

static enum db_err tx_seek(void *arg, uint64_t next_lsn, struct errmsg *em)
{
	struct sending *s = arg;

	FUZZ_CHECK(next_lsn >= 1);
	if (s->fails != DB_OK)
		return errmsg_set(em, s->fails, "told to fail");
	if (next_lsn < s->log.first_lsn)
		return errmsg_set(em, DB_GAP, "trimmed");
	s->next_lsn = next_lsn;
	return DB_OK;
}

static enum db_err tx_next(void *arg, struct wal_record *out, struct errmsg *em)
{
	struct sending *s = arg;

	if (s->fails != DB_OK)
		return errmsg_set(em, s->fails, "told to fail");
	if (s->next_lsn < s->log.first_lsn)
		return errmsg_set(em, DB_GAP, "trimmed");
	if (s->next_lsn > s->log.last_lsn)
		return DB_NOTFOUND;
	s->next_lsn++;
	return wal_record_decode(out, s->log.records[s->next_lsn - 2], s->log.lens[s->next_lsn - 2], em);
}

static size_t tx_terms(void *arg, struct wal_pos *out, size_t max)
{
	return log_terms(&((struct sending *)arg)->log, out, max);
}

static uint64_t tx_first(void *arg)
{
	return ((struct sending *)arg)->log.first_lsn;
}

static uint64_t tx_last(void *arg)
{
	return ((struct sending *)arg)->log.last_lsn;
}

static enum db_err tx_describe(void *arg, uint64_t lsn, uint64_t *term, uint64_t *checksum, struct errmsg *em)
{
	struct sending *s = arg;

	if (lsn + 1 < s->log.first_lsn || lsn > s->log.last_lsn)
		return errmsg_set(em, DB_NOTFOUND, "no such record");
	*term = term_of(&s->log, lsn);
	*checksum = checksum_of(&s->log, lsn);
	return DB_OK;
}

static enum db_err tx_snapshot_open(void *arg, struct wire_snapshot_begin *out, struct errmsg *em)
{
	struct sending *s = arg;

	FUZZ_CHECK(!s->snapshot_open);
	if (s->fails != DB_OK)
		return errmsg_set(em, s->fails, "told to fail");
	memset(out, 0, sizeof(*out));
	s->snapshot_open = true;
	s->snapshot_lsn = s->committed_lsn;
	out->pos = (struct wal_pos){term_of(&s->log, s->snapshot_lsn), s->snapshot_lsn};
	out->db_size_pages = 3;
	s->next_lsn = s->snapshot_lsn + 1;
	return DB_OK;
}

static uint64_t tx_snapshot_hash(void *arg, uint32_t pgno)
{
	FUZZ_CHECK(((struct sending *)arg)->snapshot_open && pgno >= 1 && pgno <= 3);
	return pgno;
}

static const uint8_t *tx_snapshot_page(void *arg, uint32_t pgno)
{
	static const uint8_t page[WAL_PAGE_SIZE];

	FUZZ_CHECK(((struct sending *)arg)->snapshot_open && pgno >= 1 && pgno <= 3);
	return page;
}

static void tx_snapshot_close(void *arg)
{
	struct sending *s = arg;

	FUZZ_CHECK(s->snapshot_open);
	s->snapshot_open = false;
}

static void push_records(struct sending *s, uint64_t term, unsigned count)
{
	uint8_t *bytes;
	size_t len;

	while (count-- > 0 && s->log.last_lsn < LOG_MAX) {
		bytes = seal(&s->log, s->log.last_lsn + 1, term, count % 2, &len);
		log_push(&s->log, bytes, len);
	}
}

static void hear_position(struct sending *s, struct fuzz_in *in)
{
	struct wire_position *p = &sent.body.position;
	size_t i;

	begin_message(WIRE_POSITION, s->term, "node2");
	p->stream_id = in_number(in, s->stream_id);
	p->last.lsn = in_number(in, s->log.last_lsn);
	p->last.term = in_number(in, term_of(&s->log, p->last.lsn));
	p->last_checksum = in_number(in, checksum_of(&s->log, p->last.lsn));
	p->visible_lsn = in_number(in, s->committed_lsn);
	p->needs_snapshot = in_u8(in) % 8 == 7;
	p->term_count = in_u8(in) % 6;
	for (i = 0; i < p->term_count; i++)
		p->terms[i] = (struct wal_pos){in_number(in, i + 1), in_number(in, 1 + 4 * i)};
	if (travel())
		walsender_on_position(s->walsender, &received.body.position);
}

static void hear_want(struct sending *s, struct fuzz_in *in)
{
	struct wire_snapshot_want *want = &sent.body.snapshot_want;

	begin_message(WIRE_SNAPSHOT_WANT, s->term, "node2");
	memset(want, 0, sizeof(*want));
	want->stream_id = in_number(in, s->stream_id);
	want->first_pgno = (uint32_t)in_number(in, 1);
	want->count = (uint32_t)in_number(in, 3) % (WIRE_WINDOW_PAGES + 2);
	want->bits[0] = in_u8(in);
	want->bits[1] = in_u8(in) % 4 == 3;
	if (want->count <= WIRE_WINDOW_PAGES && travel())
		walsender_on_want(s->walsender, &received.body.snapshot_want);
	walsender_on_tick(s->walsender, s->now_ms);
}

static void hear_ack(struct sending *s, struct fuzz_in *in)
{
	struct walsender_status status;

	begin_message(WIRE_ACK, s->term, "node2");
	sent.body.ack = (struct wire_ack){in_number(in, s->stream_id), in_number(in, s->log.last_lsn),
					  in_number(in, s->log.last_lsn), in_u8(in)};
	FUZZ_CHECK(travel());
	if (walsender_on_ack(s->walsender, &received.body.ack)) {
		FUZZ_CHECK(received.body.ack.stream_id == s->stream_id);
		FUZZ_CHECK(received.body.ack.durable_lsn <= s->log.last_lsn);
	}
	walsender_get_status(s->walsender, &status);
	FUZZ_CHECK(status.acked_lsn <= s->log.last_lsn);
}

static void check_sent(struct sending *s, const struct wire_msg *msg)
{
	struct errmsg em = {0};
	struct wal_record r;

	FUZZ_CHECK(msg->head.term == s->term);
	switch (msg->head.type) {
	case WIRE_HELLO:
		FUZZ_CHECK(msg->body.hello.stream_id > s->stream_id);
		s->stream_id = msg->body.hello.stream_id;
		break;
	case WIRE_START:
		FUZZ_CHECK(msg->body.start.prev.lsn <= s->log.last_lsn);
		FUZZ_CHECK(msg->body.start.prev_checksum == checksum_of(&s->log, msg->body.start.prev.lsn));
		break;
	case WIRE_RECORDS:
		FUZZ_CHECK(msg->body.records.last_lsn == s->log.last_lsn && msg->body.records.offset == 0);
		FUZZ_CHECK(wal_record_decode(&r, msg->body.records.bytes, msg->body.records.len, &em) == DB_OK);
		FUZZ_CHECK(r.lsn == msg->body.records.first_lsn && r.checksum == checksum_of(&s->log, r.lsn));
		break;
	case WIRE_COMMIT:
		FUZZ_CHECK(msg->body.commit.committed_lsn == s->committed_lsn);
		break;
	case WIRE_SNAPSHOT_BEGIN:
		FUZZ_CHECK(msg->body.snapshot_begin.pos.lsn == s->snapshot_lsn && s->snapshot_open);
		break;
	default:
		FUZZ_CHECK(msg->head.type == WIRE_SNAPSHOT_PAGES || msg->head.type == WIRE_SNAPSHOT_HASHES ||
			   msg->head.type == WIRE_SNAPSHOT_END);
	}
}

static void speak(struct sending *s, struct fuzz_in *in)
{
	bool flush = in_u8(in) % 2 == 0;

	if (!walsender_next(s->walsender, s->committed_lsn, flush, s->now_ms, &sent))
		return;
	FUZZ_CHECK(travel()); /* what we send ourselves is always well-formed */
	check_sent(s, &received);
}

static void live(struct sending *s, struct fuzz_in *in)
{
	static const enum db_err faults[] = {DB_OK, DB_OK, DB_OK, DB_CORRUPT, DB_GAP, DB_NOMEM};
	uint8_t how = in_u8(in);

	switch (how & 3) {
	case 0:
		push_records(s, s->term, how >> 5);
		break;
	case 1:
		if (s->log.first_lsn + (how >> 5) <= s->log.last_lsn)
			s->log.first_lsn += how >> 5;
		break;
	case 2:
		s->fails = faults[(how >> 2) % 6];
		break;
	default:
		if (s->committed_lsn + (how >> 5) <= s->log.last_lsn)
			s->committed_lsn += how >> 5;
	}
	if (s->committed_lsn + 1 < s->log.first_lsn)
		s->committed_lsn = s->log.first_lsn - 1; /* only what is committed is ever trimmed */
}

static void fuzz_sender(struct fuzz_in *in)
{
	struct sending s = {.log.first_lsn = 1, .term = 3, .now_ms = 1000};
	const struct walsender_io io = {.arg = &s,
					.seek = tx_seek,
					.next = tx_next,
					.terms = tx_terms,
					.first_lsn = tx_first,
					.last_lsn = tx_last,
					.describe = tx_describe,
					.snapshot_open = tx_snapshot_open,
					.snapshot_hash = tx_snapshot_hash,
					.snapshot_page = tx_snapshot_page,
					.snapshot_close = tx_snapshot_close};
	struct walsender_identity identity = {.term = 3, .node_id = "node1", .ack_address = "127.0.0.1:1"};
	struct errmsg em = {0};
	uint8_t op;

	memcpy(identity.cluster_id, cluster_id, sizeof(cluster_id));
	push_records(&s, 1, 4);
	push_records(&s, 2, 4);
	push_records(&s, 3, 4);
	s.committed_lsn = 6;
	FUZZ_CHECK(walsender_create(&s.walsender, &identity, "node2", 1000, &io, &em) == DB_OK);
	s.stream_id = 1000;
	walsender_on_connected(s.walsender, true, s.now_ms);
	while (in->left > 0) {
		op = in_u8(in) % 9;
		if (op <= 2)
			speak(&s, in);
		else if (op == 3)
			hear_position(&s, in);
		else if (op == 4)
			hear_ack(&s, in);
		else if (op == 5)
			walsender_on_connected(s.walsender, in_u8(in) % 4 != 0, s.now_ms);
		else if (op == 6)
			s.now_ms += in_u16(in) % 1024;
		else if (op == 8)
			hear_want(&s, in);
		else
			live(&s, in);
	}
	walsender_free(s.walsender);
	FUZZ_CHECK(!s.snapshot_open);
	log_cut(&s.log, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};

	if (in_u8(&in) % 2u == 0)
		fuzz_receiver(&in);
	else
		fuzz_sender(&in);
	return 0;
}

/*
 * test_stream.c - a walsender wired to a walreceiver, both pure, over logs in memory and a line that the test controls.
 *
 * What the replica ends up with is compared with the master's log after every scenario, a random one included that loses
 * connections, drops what was under way, changes masters and crashes the replica.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "master/walsender.h"
#include "replica/walreceiver.h"
#include "tests/unit/unit.h"

#define LOG_MAX  4096
#define LINE_MAX 8

static const uint8_t cluster_id[16] = "stream-test-id.";

/* ---- a log in memory: records without pages, padded by an arbitrary payload where a test wants a large one */

struct memory_log {
	uint8_t *records[LOG_MAX]; /* records[lsn - 1] */
	size_t lens[LOG_MAX];
	uint64_t last_lsn, durable_lsn, first_lsn;
};

static uint64_t checksum_of(const struct memory_log *log, uint64_t lsn)
{
	return lsn == 0 ? 0 : load_u64le(log->records[lsn - 1] + 64);
}

static uint64_t term_of(const struct memory_log *log, uint64_t lsn)
{
	return lsn == 0 ? 0 : load_u64le(log->records[lsn - 1] + 16);
}

static void log_cut(struct memory_log *log, uint64_t keep_lsn)
{
	while (log->last_lsn > keep_lsn)
		free(log->records[--log->last_lsn]);
	if (log->durable_lsn > keep_lsn)
		log->durable_lsn = keep_lsn;
}

static void log_push(struct memory_log *log, const uint8_t *bytes, size_t len)
{
	uint8_t *copy = malloc(len);

	CU_ASSERT_PTR_NOT_NULL_FATAL(copy);
	CU_ASSERT_FATAL(log->last_lsn < LOG_MAX);
	memcpy(copy, bytes, len);
	log->lens[log->last_lsn] = len;
	log->records[log->last_lsn++] = copy;
}

/* Seals a record of page_count pages, all of them filled with `fill`. */
static void log_seal(struct memory_log *log, uint64_t term, uint32_t page_count, int fill)
{
	struct wal_record r = {.type = page_count > 0 ? WAL_PAGES : WAL_TERM_START,
			       .lsn = log->last_lsn + 1,
			       .term = term,
			       .db_size_pages = page_count,
			       .page_count = page_count,
			       .payload_len = wal_payload_size(page_count),
			       .prev_checksum = checksum_of(log, log->last_lsn)};
	size_t len = WAL_RECORD_HEADER_SIZE + (size_t)r.payload_len;
	uint8_t *bytes = calloc(1, len);
	struct wal_hash *hash = wal_hash_create();
	uint32_t i;

	CU_ASSERT_PTR_NOT_NULL_FATAL(bytes);
	for (i = 0; i < page_count; i++)
		store_u32le(bytes + WAL_RECORD_HEADER_SIZE + 4 * i, i + 1);
	memset(bytes + len - (size_t)page_count * WAL_PAGE_SIZE, fill, (size_t)page_count * WAL_PAGE_SIZE);
	wal_hash_begin(hash, &r);
	wal_hash_add(hash, bytes + WAL_RECORD_HEADER_SIZE, (size_t)r.payload_len);
	r.checksum = wal_hash_end(hash);
	wal_hash_free(hash);
	wal_record_encode_header(&r, bytes);
	log_push(log, bytes, len);
	free(bytes);
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

/* ---- the master's side */

struct sending {
	struct memory_log log;
	uint64_t next_lsn;
	uint64_t snapshot_lsn; /* of the open snapshot */
	bool snapshot_open;
	unsigned snapshots; /* opened so far */
	struct walsender *walsender;
	uint64_t committed_lsn;
};

static enum db_err sending_seek(void *arg, uint64_t next_lsn, struct errmsg *em)
{
	struct sending *s = arg;

	if (next_lsn < s->log.first_lsn)
		return errmsg_set(em, DB_GAP, "trimmed");
	s->next_lsn = next_lsn;
	return DB_OK;
}

static enum db_err sending_next(void *arg, struct wal_record *out, struct errmsg *em)
{
	struct sending *s = arg;

	if (s->next_lsn > s->log.last_lsn)
		return DB_NOTFOUND;
	s->next_lsn++;
	return wal_record_decode(out, s->log.records[s->next_lsn - 2], s->log.lens[s->next_lsn - 2], em);
}

static size_t sending_terms(void *arg, struct wal_pos *out, size_t max)
{
	return log_terms(&((struct sending *)arg)->log, out, max);
}

static uint64_t sending_first(void *arg)
{
	return ((struct sending *)arg)->log.first_lsn;
}

static uint64_t sending_last(void *arg)
{
	return ((struct sending *)arg)->log.last_lsn;
}

static enum db_err sending_describe(void *arg, uint64_t lsn, uint64_t *term, uint64_t *checksum, struct errmsg *em)
{
	struct sending *s = arg;

	if (lsn > s->log.last_lsn)
		return errmsg_set(em, DB_NOTFOUND, "no such record");
	*term = term_of(&s->log, lsn);
	*checksum = checksum_of(&s->log, lsn);
	return DB_OK;
}

/* The "database" at an LSN: three windows of pages, the last one short. One page in CHANGING says the LSN, the others are the
 * same at every LSN. */
#define SNAPSHOT_PAGES (2 * WIRE_WINDOW_PAGES + 99)
#define CHANGING       10u

static uint64_t page_value(uint64_t lsn, uint32_t pgno)
{
	return (pgno % CHANGING == 0 ? lsn + 1 : 1) << 32 | pgno;
}

static void fill_page(uint8_t *page, uint64_t lsn, uint32_t pgno)
{
	memset(page, 0, WAL_PAGE_SIZE);
	store_u64le(page, page_value(lsn, pgno));
}

static enum db_err sending_snapshot_open(void *arg, struct wire_snapshot_begin *out, struct errmsg *em)
{
	struct sending *s = arg;

	CU_ASSERT_FALSE(s->snapshot_open);
	s->snapshot_open = true;
	s->snapshots++;
	s->snapshot_lsn = s->committed_lsn > s->log.first_lsn - 1 ? s->committed_lsn : s->log.first_lsn - 1;
	out->pos = (struct wal_pos){term_of(&s->log, s->snapshot_lsn), s->snapshot_lsn};
	out->record_checksum = checksum_of(&s->log, s->snapshot_lsn);
	out->db_checksum = s->snapshot_lsn;
	out->db_size_pages = SNAPSHOT_PAGES;
	return sending_seek(s, s->snapshot_lsn + 1, em);
}

static const uint8_t *sending_snapshot_page(void *arg, uint32_t pgno)
{
	struct sending *s = arg;
	static uint8_t page[WAL_PAGE_SIZE];

	CU_ASSERT(s->snapshot_open);
	fill_page(page, s->snapshot_lsn, pgno);
	return page;
}

static uint64_t sending_snapshot_hash(void *arg, uint32_t pgno)
{
	return page_value(((struct sending *)arg)->snapshot_lsn, pgno);
}

static void sending_snapshot_close(void *arg)
{
	struct sending *s = arg;

	CU_ASSERT(s->snapshot_open);
	s->snapshot_open = false;
}

static void sending_start(struct sending *s, uint64_t term)
{
	const struct walsender_io io = {s,
					sending_seek,
					sending_next,
					sending_terms,
					sending_first,
					sending_last,
					sending_describe,
					sending_snapshot_open,
					sending_snapshot_page,
					sending_snapshot_hash,
					sending_snapshot_close};
	struct walsender_identity identity = {.term = term, .node_id = "node1"};
	struct errmsg em = {0};

	memcpy(identity.cluster_id, cluster_id, sizeof(cluster_id));
	if (s->log.first_lsn == 0)
		s->log.first_lsn = 1;
	walsender_free(s->walsender);
	UNIT_OK(walsender_create(&s->walsender, &identity, "node2", term * 1000, &io, &em), &em);
}

/* ---- the replica's side */

struct receiving {
	struct memory_log log;
	uint64_t promised_term, visible_lsn;
	struct buf piece;
	struct walreceiver *walreceiver;
	struct wire_msg replies[LINE_MAX];
	size_t reply_count;
	enum db_err append_fails, sync_fails, apply_fails, snapshot_fails;
	struct wire_snapshot_begin snapshot; /* being received */
	bool in_snapshot;
	uint32_t missing, received; /* pages of it */
	uint64_t pages[SNAPSHOT_PAGES +
		       1]; /* what each page holds that has ever arrived and was not discarded; 0: none did */
	bool replaced;     /* it is complete: the owner is to start anew with it */
};

static struct wal_pos receiving_tip(void *arg, uint64_t *checksum)
{
	struct receiving *r = arg;

	if (checksum != NULL)
		*checksum = checksum_of(&r->log, r->log.last_lsn);
	return (struct wal_pos){term_of(&r->log, r->log.last_lsn), r->log.last_lsn};
}

static size_t receiving_terms(void *arg, struct wal_pos *out, size_t max)
{
	return log_terms(&((struct receiving *)arg)->log, out, max);
}

static enum db_err receiving_checksum_at(void *arg, uint64_t lsn, uint64_t *checksum, struct errmsg *em)
{
	struct receiving *r = arg;

	if (lsn > r->log.last_lsn)
		return errmsg_set(em, DB_NOTFOUND, "no such record");
	*checksum = checksum_of(&r->log, lsn);
	return DB_OK;
}

static uint64_t receiving_visible(void *arg)
{
	return ((struct receiving *)arg)->visible_lsn;
}

static uint64_t receiving_applied(void *arg, uint64_t *db_checksum)
{
	if (db_checksum != NULL)
		*db_checksum = 0;
	return ((struct receiving *)arg)->log.last_lsn;
}

static enum db_err receiving_append(void *arg, const uint8_t *bytes, size_t len, struct errmsg *em)
{
	struct receiving *r = arg;
	struct wal_record record;
	enum db_err err;

	if (r->append_fails != DB_OK)
		return errmsg_set(em, r->append_fails, "told to fail");
	err = wal_record_decode(&record, bytes, len, em);
	if (err != DB_OK)
		return err;
	if (record.lsn != r->log.last_lsn + 1 || record.prev_checksum != checksum_of(&r->log, r->log.last_lsn))
		return errmsg_set(em, DB_GAP, "does not continue the log");
	log_push(&r->log, bytes, len);
	return DB_OK;
}

static enum db_err receiving_append_piece(void *arg, uint64_t offset, const uint8_t *piece, size_t len,
					  uint64_t record_len, struct errmsg *em)
{
	struct receiving *r = arg;

	if (offset == 0)
		buf_clear(&r->piece);
	CU_ASSERT_EQUAL(r->piece.len, offset);
	buf_put(&r->piece, piece, len);
	return r->piece.len < record_len ? DB_OK : receiving_append(arg, r->piece.data, r->piece.len, em);
}

static enum db_err receiving_sync(void *arg, struct errmsg *em)
{
	struct receiving *r = arg;

	if (r->sync_fails != DB_OK)
		return errmsg_set(em, r->sync_fails, "told to fail");
	r->log.durable_lsn = r->log.last_lsn;
	return DB_OK;
}

static enum db_err receiving_apply(void *arg, uint64_t lsn, struct errmsg *em)
{
	struct receiving *r = arg;

	(void)lsn;
	return r->apply_fails == DB_OK ? DB_OK : errmsg_set(em, r->apply_fails, "told to fail");
}

static enum db_err receiving_cut(void *arg, uint64_t keep_lsn, struct errmsg *em)
{
	struct receiving *r = arg;

	(void)em;
	CU_ASSERT(keep_lsn >= r->visible_lsn);
	log_cut(&r->log, keep_lsn);
	return DB_OK;
}

static void receiving_set_committed(void *arg, uint64_t lsn)
{
	struct receiving *r = arg;

	CU_ASSERT(lsn <= r->log.durable_lsn);
	if (lsn > r->visible_lsn)
		r->visible_lsn = lsn;
}

static enum db_err receiving_promise(void *arg, uint64_t term, struct errmsg *em)
{
	struct receiving *r = arg;

	(void)em;
	CU_ASSERT(term > r->promised_term);
	r->promised_term = term;
	return DB_OK;
}

static enum db_err receiving_snapshot_begin(void *arg, const struct wire_snapshot_begin *begin, struct errmsg *em)
{
	struct receiving *r = arg;

	if (r->snapshot_fails != DB_OK)
		return errmsg_set(em, r->snapshot_fails, "told to fail");
	CU_ASSERT_FALSE(r->in_snapshot);
	r->snapshot = *begin;
	r->in_snapshot = true;
	r->missing = SNAPSHOT_PAGES;
	r->received = 0;
	return DB_OK;
}

static enum db_err receiving_snapshot_compare(void *arg, const struct wire_snapshot_hashes *hashes,
					      struct wire_snapshot_want *want, struct errmsg *em)
{
	struct receiving *r = arg;
	uint32_t i, pgno;

	CU_ASSERT(r->in_snapshot);
	if (hashes->first_pgno + hashes->count > SNAPSHOT_PAGES + 1)
		return errmsg_set(em, DB_CORRUPT, "beyond the end");
	for (i = 0; i < hashes->count; i++) {
		pgno = hashes->first_pgno + i;
		if (r->pages[pgno] == load_u64le(hashes->bytes + (size_t)i * 8))
			r->missing--;
		else
			want->bits[i / 8] |= (uint8_t)(1u << (i % 8));
	}
	return DB_OK;
}

static enum db_err receiving_snapshot_pages(void *arg, const struct wire_snapshot_pages *pages, struct errmsg *em)
{
	struct receiving *r = arg;
	uint8_t expected[WAL_PAGE_SIZE];
	uint32_t pgno = pages->first_pgno;
	size_t at;

	CU_ASSERT(r->in_snapshot);
	for (at = 0; at < pages->len; at += WAL_PAGE_SIZE, pgno++) {
		fill_page(expected, r->snapshot.pos.lsn, pgno);
		if (memcmp(expected, pages->bytes + at, WAL_PAGE_SIZE) != 0)
			return errmsg_set(em, DB_CORRUPT, "another page");
		CU_ASSERT_NOT_EQUAL(r->pages[pgno], page_value(r->snapshot.pos.lsn, pgno)); /* else it was not wanted */
		r->pages[pgno] = page_value(r->snapshot.pos.lsn, pgno);
		r->missing--;
		r->received++;
	}
	return DB_OK;
}

static enum db_err receiving_snapshot_end(void *arg, struct errmsg *em)
{
	struct receiving *r = arg;

	if (r->missing != 0)
		return errmsg_set(em, DB_CORRUPT, "pages are missing");
	r->replaced = true;
	return DB_OK;
}

static void receiving_snapshot_drop(void *arg)
{
	struct receiving *r = arg;

	CU_ASSERT(r->in_snapshot);
	r->in_snapshot = false;
}

static void receiving_snapshot_discard(void *arg)
{
	struct receiving *r = arg;

	CU_ASSERT_FALSE(r->in_snapshot);
	memset(r->pages, 0, sizeof(r->pages));
}

static void receiving_set_master(void *arg, const char *id, const struct wire_hello *hello)
{
	(void)arg;
	(void)hello;
	CU_ASSERT_STRING_EQUAL(id, "node1");
}

static void receiving_send(void *arg, const struct wire_msg *msg)
{
	struct receiving *r = arg;

	if (msg->head.type == WIRE_ACK)
		CU_ASSERT(msg->body.ack.durable_lsn <= r->log.durable_lsn); /* synced before acknowledged */
	if (r->reply_count < LINE_MAX)
		r->replies[r->reply_count++] = *msg;
}

static void receiving_start(struct receiving *r)
{
	const struct walreceiver_io io = {r,
					  receiving_tip,
					  receiving_terms,
					  receiving_checksum_at,
					  receiving_visible,
					  receiving_applied,
					  receiving_append,
					  receiving_append_piece,
					  receiving_sync,
					  receiving_apply,
					  receiving_cut,
					  receiving_set_committed,
					  receiving_snapshot_begin,
					  receiving_snapshot_compare,
					  receiving_snapshot_pages,
					  receiving_snapshot_end,
					  receiving_snapshot_drop,
					  receiving_snapshot_discard,
					  receiving_promise,
					  receiving_set_master,
					  receiving_send};
	struct errmsg em = {0};

	if (r->log.first_lsn == 0)
		r->log.first_lsn = 1;
	r->reply_count = 0;
	r->in_snapshot = false;
	walreceiver_free(r->walreceiver);
	UNIT_OK(walreceiver_create(&r->walreceiver, &io, cluster_id, "node2", r->promised_term, 0, &em), &em);
}

static enum walreceiver_state state_of(const struct receiving *r)
{
	struct walreceiver_status status;

	walreceiver_get_status(r->walreceiver, &status);
	return status.state;
}

/* ---- the line between them */

struct fixture {
	struct sending s;
	struct receiving r;
	uint64_t now_ms;
	struct wire_msg msg;
};

static void deliver_replies(struct fixture *f)
{
	size_t i;

	for (i = 0; i < f->r.reply_count; i++) {
		if (f->r.replies[i].head.type == WIRE_POSITION)
			walsender_on_position(f->s.walsender, &f->r.replies[i].body.position);
		else if (f->r.replies[i].head.type == WIRE_SNAPSHOT_WANT)
			walsender_on_want(f->s.walsender, &f->r.replies[i].body.snapshot_want);
		else if (walsender_on_ack(f->s.walsender, &f->r.replies[i].body.ack) &&
			 f->r.replies[i].body.ack.durable_lsn > f->s.committed_lsn)
			f->s.committed_lsn = f->r.replies[i].body.ack.durable_lsn;
	}
	f->r.reply_count = 0;
}

/* What a node does with a complete snapshot: it starts anew, and its log is as long as the snapshot says. The records
 * that the snapshot stands for are copied in, so that logs can be compared; they are not in the stream. */
static void install_snapshot(struct fixture *f)
{
	uint64_t lsn;

	log_cut(&f->r.log, 0);
	for (lsn = 1; lsn <= f->r.snapshot.pos.lsn; lsn++)
		log_push(&f->r.log, f->s.log.records[lsn - 1], f->s.log.lens[lsn - 1]);
	f->r.log.first_lsn = lsn - 1 > 0 ? lsn - 1 : 1;
	f->r.log.durable_lsn = f->r.visible_lsn = f->r.snapshot.pos.lsn;
	f->r.replaced = false;
	receiving_start(&f->r);
	walsender_on_connected(f->s.walsender, false, f->now_ms);
	walsender_on_connected(f->s.walsender, true, f->now_ms);
}

/* Moves one message over; false: the sender had nothing to say. */
static bool step(struct fixture *f)
{
	f->now_ms++;
	walsender_on_tick(f->s.walsender, f->now_ms);
	if (!walsender_next(f->s.walsender, f->s.committed_lsn, true, f->now_ms, &f->msg))
		return false;
	walreceiver_on_message(f->r.walreceiver, &f->msg, f->now_ms);
	deliver_replies(f);
	if (f->r.replaced)
		install_snapshot(f);
	return true;
}

/* Until nothing more is said; a pair that never agrees repeats itself for ever and is stopped. */
static void run(struct fixture *f)
{
	int quiet = 0, steps = 0;

	while (quiet < 3 && steps++ < 2000) {
		quiet = step(f) ? 0 : quiet + 1;
		if (state_of(&f->r) != WALRECEIVER_STREAMING && quiet > 0)
			f->now_ms += WALSENDER_HELLO_RETRY_MS / 2;
	}
}

static void connect_line(struct fixture *f)
{
	walsender_on_connected(f->s.walsender, true, f->now_ms);
}

static void check_equal(const struct fixture *f)
{
	uint64_t lsn;

	CU_ASSERT_EQUAL(f->r.log.last_lsn, f->s.log.last_lsn);
	for (lsn = 1; lsn <= f->s.log.last_lsn && lsn <= f->r.log.last_lsn; lsn++)
		CU_ASSERT_EQUAL(checksum_of(&f->r.log, lsn), checksum_of(&f->s.log, lsn));
	CU_ASSERT_EQUAL(f->r.visible_lsn, f->s.log.last_lsn);
}

static struct fixture *fixture_create(uint64_t term)
{
	struct fixture *f = calloc(1, sizeof(*f));

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	sending_start(&f->s, term);
	receiving_start(&f->r);
	return f;
}

static void fixture_free(struct fixture *f)
{
	log_cut(&f->s.log, 0);
	log_cut(&f->r.log, 0);
	walsender_free(f->s.walsender);
	CU_ASSERT_FALSE(f->s.snapshot_open);
	walreceiver_free(f->r.walreceiver);
	buf_fini(&f->r.piece);
	free(f);
}

/* ---- scenarios */

static void test_an_empty_replica_gets_everything(void)
{
	struct fixture *f = fixture_create(1);
	int i;

	log_seal(&f->s.log, 1, 0, 0);
	for (i = 0; i < 100; i++)
		log_seal(&f->s.log, 1, 2, i);
	connect_line(f);
	run(f);
	check_equal(f);
	fixture_free(f);
}

static void test_a_record_larger_than_a_message_travels_in_pieces(void)
{
	struct fixture *f = fixture_create(1);

	log_seal(&f->s.log, 1, 1, 1);
	log_seal(&f->s.log, 1, 700, 2); /* 2.8 MB */
	log_seal(&f->s.log, 1, 1, 3);
	connect_line(f);
	run(f);
	check_equal(f);
	fixture_free(f);
}

static void test_a_connection_lost_inside_a_large_record_starts_it_again(void)
{
	struct fixture *f = fixture_create(1);
	int i;

	log_seal(&f->s.log, 1, 700, 2);
	connect_line(f);
	for (i = 0; i < 3; i++)
		step(f); /* hello, start, first piece */
	walsender_on_connected(f->s.walsender, false, f->now_ms);
	connect_line(f);
	run(f);
	check_equal(f);
	fixture_free(f);
}

static void test_a_lost_message_is_asked_for_again(void)
{
	struct fixture *f = fixture_create(1);

	connect_line(f);
	log_seal(&f->s.log, 1, 0, 0);
	run(f);
	log_seal(&f->s.log, 1, 1, 1);
	CU_ASSERT(walsender_next(f->s.walsender, 0, false, ++f->now_ms, &f->msg)); /* dropped */
	log_seal(&f->s.log, 1, 1, 2);
	run(f);
	check_equal(f);
	fixture_free(f);
}

static void test_repeated_records_are_skipped(void)
{
	struct fixture *f = fixture_create(1);

	log_seal(&f->s.log, 1, 1, 1);
	connect_line(f);
	step(f);
	step(f);
	CU_ASSERT(walsender_next(f->s.walsender, 0, false, ++f->now_ms, &f->msg));
	walreceiver_on_message(f->r.walreceiver, &f->msg, f->now_ms);
	walreceiver_on_message(f->r.walreceiver, &f->msg, f->now_ms);
	deliver_replies(f);
	run(f);
	check_equal(f);
	fixture_free(f);
}

static void test_the_tail_of_a_deposed_master_is_cut(void)
{
	struct fixture *f = fixture_create(1);
	int i;

	log_seal(&f->s.log, 1, 0, 0);
	log_seal(&f->s.log, 1, 1, 1);
	connect_line(f);
	run(f);
	for (i = 0; i < 3; i++)
		log_seal(&f->r.log, 1, 1, 77 + i); /* what it wrote alone */
	log_seal(&f->s.log, 2, 0, 0);
	log_seal(&f->s.log, 2, 1, 5);
	sending_start(&f->s, 2);
	receiving_start(&f->r);
	connect_line(f);
	run(f);
	CU_ASSERT_EQUAL(f->r.promised_term, 2);
	check_equal(f);
	fixture_free(f);
}

static void test_a_superseded_master_is_not_listened_to(void)
{
	struct fixture *f = fixture_create(1);
	struct errmsg em = {0};

	log_seal(&f->s.log, 1, 0, 0);
	connect_line(f);
	run(f);
	UNIT_OK(walreceiver_set_term(f->r.walreceiver, 5, &em), &em);
	log_seal(&f->s.log, 1, 1, 1);
	run(f);
	CU_ASSERT_EQUAL(f->r.log.last_lsn, 1);
	walsender_on_connected(f->s.walsender, false, f->now_ms);
	connect_line(f);
	run(f);
	CU_ASSERT_EQUAL(f->r.log.last_lsn, 1);
	CU_ASSERT_EQUAL(walreceiver_set_term(f->r.walreceiver, 4, &em), DB_STALE_TERM);
	fixture_free(f);
}

static void test_committed_records_are_never_cut(void)
{
	struct fixture *f = fixture_create(1);

	log_seal(&f->s.log, 1, 0, 0);
	log_seal(&f->s.log, 1, 1, 1);
	log_seal(&f->s.log, 1, 1, 2);
	connect_line(f);
	run(f);
	CU_ASSERT_EQUAL(f->r.visible_lsn, 3);
	log_cut(&f->s.log, 1); /* a master that lost what was committed */
	log_seal(&f->s.log, 2, 0, 0);
	sending_start(&f->s, 2);
	connect_line(f);
	run(f);
	CU_ASSERT_EQUAL(f->r.log.last_lsn, 3);
	CU_ASSERT_EQUAL(f->s.snapshots, 0);
	CU_ASSERT_NOT_EQUAL(state_of(&f->r), WALRECEIVER_STREAMING);
	fixture_free(f);
}

static enum walsender_state sender_state(const struct fixture *f)
{
	struct walsender_status status;

	walsender_get_status(f->s.walsender, &status);
	return status.state;
}

/* A master whose log begins at first_lsn, beside a replica without any. */
static struct fixture *far_behind(uint64_t first_lsn)
{
	struct fixture *f = fixture_create(1);
	int i;

	for (i = 0; i < 10; i++)
		log_seal(&f->s.log, 1, 1, i);
	f->s.log.first_lsn = first_lsn;
	connect_line(f);
	return f;
}

static void step_into_snapshot(struct fixture *f)
{
	int i;

	for (i = 0; i < 20 && (state_of(&f->r) != WALRECEIVER_SNAPSHOT || f->r.received == 0); i++)
		step(f);
	CU_ASSERT_EQUAL(state_of(&f->r), WALRECEIVER_SNAPSHOT);
	CU_ASSERT_EQUAL(sender_state(f), WALSENDER_SNAPSHOT);
	CU_ASSERT(f->r.received > 0);
}

static void test_a_replica_too_far_behind_gets_a_snapshot_and_streams_on(void)
{
	struct fixture *f = far_behind(5);

	step_into_snapshot(f);
	log_seal(&f->s.log, 1, 1, 99); /* written meanwhile */
	run(f);
	CU_ASSERT_EQUAL(f->s.snapshots, 1);
	CU_ASSERT_FALSE(f->s.snapshot_open);
	CU_ASSERT_EQUAL(state_of(&f->r), WALRECEIVER_STREAMING);
	check_equal(f);
	fixture_free(f);
}

/* The log has reached its cap: what the replica still needs is taken from it, in the middle of a record. */
static void test_a_sender_that_is_cut_off_finds_out_that_a_snapshot_is_needed(void)
{
	struct fixture *f = fixture_create(1);
	int i;

	log_seal(&f->s.log, 1, 0, 0);
	log_seal(&f->s.log, 1, 700, 2);
	connect_line(f);
	for (i = 0; i < 4; i++)
		step(f); /* hello, start, the first record, a piece of the second */
	for (i = 0; i < 5; i++)
		log_seal(&f->s.log, 1, 1, i);
	f->s.committed_lsn = f->s.log.last_lsn;
	walsender_cut(f->s.walsender, "test");
	f->s.log.first_lsn = 5;
	CU_ASSERT_EQUAL(sender_state(f), WALSENDER_HELLO);
	run(f);
	CU_ASSERT_EQUAL(f->s.snapshots, 1);
	CU_ASSERT_EQUAL(sender_state(f), WALSENDER_STREAMING);
	check_equal(f);
	walsender_on_connected(f->s.walsender, false, f->now_ms);
	walsender_cut(f->s.walsender, "nobody there");
	CU_ASSERT_EQUAL(sender_state(f), WALSENDER_DISCONNECTED);
	fixture_free(f);
}

static void test_a_snapshot_that_is_cut_off_begins_again(void)
{
	struct fixture *f = far_behind(5);

	step_into_snapshot(f);
	walsender_cut(f->s.walsender, "test");
	CU_ASSERT_FALSE(f->s.snapshot_open);
	log_seal(&f->s.log, 1, 1, 99);
	run(f);
	CU_ASSERT_EQUAL(f->s.snapshots, 2);
	CU_ASSERT_EQUAL(sender_state(f), WALSENDER_STREAMING);
	check_equal(f);
	fixture_free(f);
}

static uint32_t pages_in_steps(struct fixture *f, int steps, bool commits)
{
	uint32_t before = f->r.received;
	struct walsender_status status;
	bool paced = false;
	int i;

	for (i = 0; i < steps; i++) {
		f->s.committed_lsn += commits ? 1 : 0;
		step(f);
		walsender_get_status(f->s.walsender, &status);
		paced = paced || status.paced;
	}
	CU_ASSERT_EQUAL(paced, commits);
	return f->r.received - before;
}

static void test_a_snapshot_leaves_most_of_the_time_to_commits(void)
{
	struct fixture *f = far_behind(5);
	uint32_t idle, busy;

	step_into_snapshot(f);
	idle = pages_in_steps(f, 8, false);
	log_seal(&f->s.log, 1, 1, 99);
	busy = pages_in_steps(f, 8, true);
	CU_ASSERT(busy > 0 && busy <= idle / 2);
	f->now_ms += WALSENDER_BUSY_MS; /* the commits are over */
	step(f);
	CU_ASSERT(pages_in_steps(f, 8, false) > busy);
	f->s.committed_lsn = f->s.log.last_lsn;
	run(f);
	CU_ASSERT_EQUAL(state_of(&f->r), WALRECEIVER_STREAMING);
	fixture_free(f);
}

static void test_a_snapshot_goes_on_where_a_lost_connection_cut_it_short(void)
{
	struct fixture *f = far_behind(5);
	uint32_t before;
	int i;

	step_into_snapshot(f);
	for (i = 0; i < 40 && f->r.received <= 1000; i++)
		step(f);
	before = f->r.received;
	CU_ASSERT(before > 1000 && before < SNAPSHOT_PAGES);
	walsender_on_connected(f->s.walsender, false, f->now_ms);
	CU_ASSERT_FALSE(f->s.snapshot_open);
	connect_line(f);
	run(f);
	CU_ASSERT_EQUAL(f->s.snapshots, 2);
	CU_ASSERT_EQUAL(before + f->r.received, SNAPSHOT_PAGES);
	check_equal(f);
	fixture_free(f);
}

static void test_only_pages_that_differ_are_sent(void)
{
	struct fixture *f = far_behind(5);
	uint32_t pgno;

	for (pgno = 1; pgno <= SNAPSHOT_PAGES; pgno++)
		f->r.pages[pgno] = page_value(3, pgno);
	run(f);
	CU_ASSERT_EQUAL(f->s.snapshots, 1);
	CU_ASSERT_EQUAL(f->r.received, SNAPSHOT_PAGES / CHANGING);
	check_equal(f);
	fixture_free(f);
}

/* The replica's answer is lost: after a while the sender begins again. */
static void test_an_answer_lost_inside_a_snapshot_starts_it_again(void)
{
	struct fixture *f = far_behind(5);
	int i;

	for (i = 0; i < 20 && state_of(&f->r) != WALRECEIVER_SNAPSHOT; i++)
		step(f);
	CU_ASSERT(walsender_next(f->s.walsender, 0, false, ++f->now_ms, &f->msg));
	CU_ASSERT_EQUAL(f->msg.head.type, WIRE_SNAPSHOT_HASHES);
	for (i = 0; i < 20; i++)
		step(f);
	CU_ASSERT_EQUAL(state_of(&f->r), WALRECEIVER_SNAPSHOT);
	f->now_ms += WALSENDER_WANT_MS;
	run(f);
	CU_ASSERT_EQUAL(f->s.snapshots, 2);
	check_equal(f);
	fixture_free(f);
}

static void test_answers_about_pages_never_offered_are_ignored(void)
{
	struct fixture *f = far_behind(5);
	struct wire_snapshot_want want = {.first_pgno = 1, .count = 1, .bits = {1}};

	step_into_snapshot(f);
	want.stream_id = f->s.walsender == NULL ? 0 : f->msg.body.snapshot_pages.stream_id;
	walsender_on_want(f->s.walsender, &want); /* that window has another size */
	want.first_pgno = SNAPSHOT_PAGES + 1;
	walsender_on_want(f->s.walsender, &want);
	run(f);
	CU_ASSERT_EQUAL(f->s.snapshots, 1);
	CU_ASSERT_EQUAL(f->r.received, SNAPSHOT_PAGES);
	check_equal(f);
	fixture_free(f);
}

static void test_a_page_lost_inside_a_snapshot_starts_it_again(void)
{
	struct fixture *f = far_behind(5);
	int i;

	step_into_snapshot(f);
	CU_ASSERT(walsender_next(f->s.walsender, 0, false, ++f->now_ms, &f->msg)); /* dropped */
	for (i = 0; i < 400 && state_of(&f->r) == WALRECEIVER_SNAPSHOT; i++)
		step(f);
	CU_ASSERT_NOT_EQUAL(state_of(&f->r), WALRECEIVER_SNAPSHOT);
	CU_ASSERT_EQUAL(f->s.snapshots, 1);
	f->now_ms += 10000;
	run(f);
	CU_ASSERT_EQUAL(f->s.snapshots, 2);
	check_equal(f);
	fixture_free(f);
}

static void test_a_master_lost_inside_a_snapshot_is_followed_by_the_next(void)
{
	struct fixture *f = far_behind(5);

	step_into_snapshot(f);
	log_seal(&f->s.log, 2, 0, 0);
	sending_start(&f->s, 2);
	CU_ASSERT_FALSE(f->s.snapshot_open);
	connect_line(f);
	run(f);
	CU_ASSERT_EQUAL(f->r.promised_term, 2);
	check_equal(f);
	fixture_free(f);
}

static void test_a_newer_term_ends_a_snapshot(void)
{
	struct fixture *f = far_behind(5);
	struct errmsg em = {0};

	step_into_snapshot(f);
	UNIT_OK(walreceiver_set_term(f->r.walreceiver, 2, &em), &em);
	CU_ASSERT_EQUAL(state_of(&f->r), WALRECEIVER_WAITING);
	CU_ASSERT_FALSE(f->r.in_snapshot);
	run(f);
	CU_ASSERT_EQUAL(f->r.log.last_lsn, 0);
	fixture_free(f);
}

static void test_a_snapshot_without_space_is_tried_again_later(void)
{
	struct fixture *f = far_behind(5);

	f->r.snapshot_fails = DB_FULL;
	run(f);
	CU_ASSERT(f->s.snapshots >= 1);
	CU_ASSERT(f->s.snapshots * 4000 < f->now_ms + 4000);
	f->r.snapshot_fails = DB_OK;
	f->now_ms += 10000;
	run(f);
	check_equal(f);
	fixture_free(f);
}

static void test_a_replica_knows_its_lag_only_once_it_has_caught_up(void)
{
	struct fixture *f = fixture_create(1);
	struct walreceiver_status status;

	log_seal(&f->s.log, 1, 0, 0);
	connect_line(f);
	walreceiver_get_status(f->r.walreceiver, &status);
	CU_ASSERT_FALSE(status.caught_up);
	run(f);
	walreceiver_get_status(f->r.walreceiver, &status);
	CU_ASSERT(status.caught_up);
	CU_ASSERT_EQUAL(walreceiver_lag_ms(&status, f->now_ms), 0);
	CU_ASSERT(walreceiver_lag_ms(&status, f->now_ms + 5000) >= 5000);
	receiving_start(&f->r); /* the process starts anew, and its master is silent */
	walreceiver_get_status(f->r.walreceiver, &status);
	CU_ASSERT_FALSE(status.caught_up);
	fixture_free(f);
}

static void test_divergence_stops_the_replica_until_a_snapshot_heals_it(void)
{
	struct fixture *f = fixture_create(1);

	log_seal(&f->s.log, 1, 0, 0);
	connect_line(f);
	run(f);
	f->r.apply_fails = DB_DIVERGED;
	log_seal(&f->s.log, 1, 1, 1);
	step(f);
	CU_ASSERT_EQUAL(state_of(&f->r), WALRECEIVER_DIVERGED);
	CU_ASSERT_EQUAL(f->r.visible_lsn, 1);
	f->r.apply_fails = DB_OK;
	run(f);
	CU_ASSERT_EQUAL(f->s.snapshots, 1);
	check_equal(f);
	fixture_free(f);
}

static void test_a_diverged_replica_takes_an_older_snapshot_of_a_log_that_has_all_of_its_own(void)
{
	struct fixture *f = fixture_create(1);

	log_seal(&f->s.log, 1, 0, 0);
	log_seal(&f->s.log, 1, 1, 1);
	connect_line(f);
	run(f);
	f->r.apply_fails = DB_DIVERGED;
	log_seal(&f->s.log, 1, 1, 2);
	step(f);
	log_seal(&f->s.log, 2, 0, 0);
	sending_start(&f->s, 2);
	f->s.committed_lsn = 1; /* as far as the new master knows, until it has a quorum: with this replica */
	connect_line(f);
	f->r.apply_fails = DB_OK;
	run(f);
	check_equal(f);
	fixture_free(f);
}

static void test_an_intact_replica_never_goes_back_behind_what_its_readers_saw(void)
{
	struct fixture *f = far_behind(5);
	struct wire_msg *msg = &f->msg;

	run(f);
	CU_ASSERT_EQUAL(f->r.visible_lsn, 10);
	walsender_on_connected(f->s.walsender, false, f->now_ms);
	connect_line(f);
	step(f); /* HELLO */
	memset(msg, 0, sizeof(*msg));
	memcpy(msg->head.cluster_id, cluster_id, sizeof(cluster_id));
	msg->head.type = WIRE_SNAPSHOT_BEGIN;
	msg->head.term = 1;
	msg->body.snapshot_begin.stream_id = 1002;
	for (; msg->body.snapshot_begin.stream_id < 1010; msg->body.snapshot_begin.stream_id++) {
		msg->body.snapshot_begin.pos = (struct wal_pos){1, 9};
		walreceiver_on_message(f->r.walreceiver, msg, f->now_ms);
		CU_ASSERT_NOT_EQUAL(state_of(&f->r), WALRECEIVER_SNAPSHOT);
	}
	fixture_free(f);
}

static void test_an_emptied_master_replaces_nobody(void)
{
	struct fixture *f = fixture_create(1);
	int i;

	log_seal(&f->s.log, 1, 0, 0);
	log_seal(&f->s.log, 1, 1, 1);
	connect_line(f);
	run(f);
	log_cut(&f->s.log, 0);
	for (i = 0; i < 5; i++)
		log_seal(&f->s.log, 2, i > 0, 50 + i); /* a history of its own, longer by now */
	f->s.committed_lsn = 5;
	sending_start(&f->s, 2);
	connect_line(f);
	run(f);
	CU_ASSERT_EQUAL(sender_state(f), WALSENDER_REFUSED);
	CU_ASSERT_EQUAL(f->s.snapshots, 0);
	CU_ASSERT_EQUAL(f->r.log.last_lsn, 2);
	fixture_free(f);
}

static void test_a_position_that_got_lost_is_said_again(void)
{
	struct fixture *f = fixture_create(1);

	log_seal(&f->s.log, 1, 0, 0);
	connect_line(f);
	run(f);
	f->r.append_fails = DB_FULL;
	log_seal(&f->s.log, 1, 1, 1);
	CU_ASSERT(step(f));
	CU_ASSERT_EQUAL(state_of(&f->r), WALRECEIVER_WAITING);
	f->r.append_fails = DB_OK;
	while (state_of(&f->r) == WALRECEIVER_WAITING) { /* until it tries again, on a line that loses what it says */
		f->now_ms += WALSENDER_KEEPALIVE_MS;
		CU_ASSERT_FATAL(walsender_next(f->s.walsender, f->s.committed_lsn, true, f->now_ms, &f->msg));
		walreceiver_on_message(f->r.walreceiver, &f->msg, f->now_ms);
	}
	CU_ASSERT_EQUAL(state_of(&f->r), WALRECEIVER_POSITIONED);
	f->r.reply_count = 0;
	f->now_ms += 2000;
	run(f);
	CU_ASSERT_EQUAL(state_of(&f->r), WALRECEIVER_STREAMING);
	check_equal(f);
	fixture_free(f);
}

static void test_a_hello_of_an_earlier_connection_is_ignored(void)
{
	struct fixture *f = fixture_create(1);
	struct wire_msg late;

	log_seal(&f->s.log, 1, 0, 0);
	connect_line(f);
	CU_ASSERT_FATAL(walsender_next(f->s.walsender, 0, true, f->now_ms, &late));
	CU_ASSERT_EQUAL(late.head.type, WIRE_HELLO);
	walsender_on_connected(f->s.walsender, false, f->now_ms);
	connect_line(f);
	run(f);
	CU_ASSERT_EQUAL(state_of(&f->r), WALRECEIVER_STREAMING);
	walreceiver_on_message(f->r.walreceiver, &late, f->now_ms);
	CU_ASSERT_EQUAL(state_of(&f->r), WALRECEIVER_STREAMING);
	log_seal(&f->s.log, 1, 1, 1);
	run(f);
	check_equal(f);
	fixture_free(f);
}

static void test_a_full_disk_is_survived(void)
{
	struct fixture *f = fixture_create(1);
	int i;

	log_seal(&f->s.log, 1, 0, 0);
	connect_line(f);
	run(f);
	f->r.append_fails = DB_FULL;
	log_seal(&f->s.log, 1, 1, 1);
	run(f);
	CU_ASSERT_EQUAL(f->r.log.last_lsn, 1);
	f->r.append_fails = DB_OK;
	for (i = 0; i < 60; i++) {
		f->now_ms += WALSENDER_KEEPALIVE_MS;
		step(f);
	}
	run(f);
	check_equal(f);
	fixture_free(f);
}

static void test_a_failed_sync_ends_acknowledging(void)
{
	struct fixture *f = fixture_create(1);

	connect_line(f);
	run(f);
	f->r.sync_fails = DB_IO;
	log_seal(&f->s.log, 1, 0, 0);
	run(f);
	CU_ASSERT_EQUAL(state_of(&f->r), WALRECEIVER_FAILED);
	CU_ASSERT_EQUAL(f->s.committed_lsn, 0);
	f->r.sync_fails = DB_OK;
	log_seal(&f->s.log, 1, 1, 1);
	walsender_on_connected(f->s.walsender, false, f->now_ms);
	connect_line(f);
	run(f);
	CU_ASSERT_EQUAL(f->s.committed_lsn, 0);
	fixture_free(f);
}

static void crash_replica(struct fixture *f)
{
	log_cut(&f->r.log, f->r.log.durable_lsn);
	receiving_start(&f->r);
	walsender_on_connected(f->s.walsender, false, f->now_ms);
	connect_line(f);
}

/* A new master of the next term that has everything committed, perhaps not all the rest. */
static void change_master(struct fixture *f, uint64_t *term)
{
	uint64_t keep = f->s.committed_lsn;

	if (f->s.log.last_lsn > keep)
		keep += (uint64_t)rand() % (f->s.log.last_lsn - keep + 1);
	log_cut(&f->s.log, keep);
	log_seal(&f->s.log, ++*term, 0, 0);
	sending_start(&f->s, *term);
	connect_line(f);
}

static void random_event(struct fixture *f, uint64_t *term)
{
	switch (rand() % 40) {
	case 0:
		walsender_on_connected(f->s.walsender, false, f->now_ms);
		connect_line(f);
		break;
	case 1:
		walsender_next(f->s.walsender, f->s.committed_lsn, true, ++f->now_ms, &f->msg); /* lost */
		break;
	case 2:
		crash_replica(f);
		break;
	case 3:
		change_master(f, term);
		break;
	case 4:
		f->r.reply_count = 0;
		break;
	case 5: /* the log is trimmed: never beyond what is committed */
		if (f->s.committed_lsn > f->s.log.first_lsn && rand() % 4 == 0)
			f->s.log.first_lsn += (uint64_t)rand() % (f->s.committed_lsn - f->s.log.first_lsn);
		break;
	case 6: /* the replica's database turns out to be wrong */
		f->r.apply_fails = rand() % 8 == 0 ? DB_DIVERGED : DB_OK;
		break;
	default:
		if (f->s.log.last_lsn < LOG_MAX - 64 && rand() % 3 == 0)
			log_seal(&f->s.log, *term, 1 + (uint32_t)rand() % 3, rand());
		step(f);
	}
}

static void test_random_accidents_never_lose_or_fork_what_was_committed(void)
{
	unsigned seed;
	int i;

	for (seed = 1; seed <= 200; seed++) {
		struct fixture *f = fixture_create(1);
		uint64_t term = 1;

		srand(seed);
		log_seal(&f->s.log, 1, 0, 0);
		connect_line(f);
		for (i = 0; i < 300; i++)
			random_event(f, &term);
		f->r.apply_fails = DB_OK;
		f->now_ms += 10000;
		walsender_on_connected(f->s.walsender, false, f->now_ms);
		connect_line(f);
		run(f);
		check_equal(f);
		fixture_free(f);
	}
}

/* ---- peers that keep to no rule */

static void begin_receiving(struct receiving *r)
{
	memset(r, 0, sizeof(*r));
	r->promised_term = 1;
	receiving_start(r);
}

static bool hear(struct receiving *r, enum wire_type type, uint64_t term, uint64_t stream_id, uint64_t now_ms)
{
	static struct wire_msg msg; /* large */

	memset(&msg, 0, sizeof(msg));
	msg.head.type = type;
	msg.head.term = term;
	memcpy(msg.head.cluster_id, cluster_id, sizeof(cluster_id));
	snprintf(msg.head.sender, sizeof(msg.head.sender), "node1");
	if (type == WIRE_HELLO)
		msg.body.hello.stream_id = stream_id;
	else
		msg.body.commit.stream_id = stream_id;
	return walreceiver_on_message(r->walreceiver, &msg, now_ms);
}

static void test_a_term_that_cannot_be_is_not_promised(void)
{
	struct receiving r;
	struct errmsg em = {0};

	begin_receiving(&r);
	CU_ASSERT(hear(&r, WIRE_HELLO, UINT64_MAX, 1, 0));
	CU_ASSERT(hear(&r, WIRE_HELLO, WIRE_TERM_MAX, 1, 0));
	CU_ASSERT(hear(&r, WIRE_HELLO, 2 + WIRE_TERM_STEP_MAX, 1, 0));
	CU_ASSERT_EQUAL(r.promised_term, 1);
	CU_ASSERT(hear(&r, WIRE_HELLO, 1 + WIRE_TERM_STEP_MAX, 1, 0));
	CU_ASSERT_EQUAL(r.promised_term, 1 + WIRE_TERM_STEP_MAX);
	CU_ASSERT_EQUAL(walreceiver_set_term(r.walreceiver, WIRE_TERM_MAX + 1, &em), DB_INVALID);
	CU_ASSERT_EQUAL(r.promised_term, 1 + WIRE_TERM_STEP_MAX);
	UNIT_OK(walreceiver_set_term(r.walreceiver, WIRE_TERM_MAX, &em), &em); /* the supervisor may */
	walreceiver_free(r.walreceiver);
}

static void test_a_hello_said_again_leaves_the_stream_as_it_is(void)
{
	struct receiving r;

	begin_receiving(&r);
	CU_ASSERT(hear(&r, WIRE_HELLO, 1, 7, 0));
	CU_ASSERT_EQUAL(r.reply_count, 1);
	CU_ASSERT(hear(&r, WIRE_HELLO, 1, 7, 1));
	CU_ASSERT(hear(&r, WIRE_HELLO, 1, 6, 2));
	CU_ASSERT_EQUAL(r.reply_count, 1); /* no POSITION: no START can cut anything */
	CU_ASSERT(hear(&r, WIRE_HELLO, 1, 8, 3));
	CU_ASSERT_EQUAL(r.reply_count, 2);
	walreceiver_free(r.walreceiver);
}

/* Somebody made up a stream and left: the master, which knows nothing of that, is made to begin anew. */
static void test_a_stream_taken_over_goes_back_to_its_master(void)
{
	struct receiving r;

	begin_receiving(&r);
	CU_ASSERT(hear(&r, WIRE_HELLO, 1, 7, 0));
	CU_ASSERT(hear(&r, WIRE_HELLO, 1, UINT64_MAX, 10));
	CU_ASSERT(hear(&r, WIRE_COMMIT, 1, 7, 20));         /* may be left from before */
	CU_ASSERT_FALSE(hear(&r, WIRE_COMMIT, 1, 7, 1100)); /* hang up */
	CU_ASSERT(hear(&r, WIRE_HELLO, 1, 8, 1200));
	CU_ASSERT_EQUAL(r.replies[r.reply_count - 1].body.position.stream_id, 8);
	walreceiver_free(r.walreceiver);
}

static void test_a_sender_believes_only_what_can_be(void)
{
	struct fixture *f = fixture_create(1);
	struct wire_position position = {0};
	struct wire_ack ack = {0};

	walsender_on_connected(f->s.walsender, true, 1);
	position.stream_id = 1001; /* of the HELLO to come */
	walsender_on_position(f->s.walsender, &position);
	CU_ASSERT_EQUAL(sender_state(f), WALSENDER_HELLO);
	CU_ASSERT(walsender_next(f->s.walsender, 0, false, 2, &f->msg));
	CU_ASSERT_EQUAL(f->msg.head.type, WIRE_HELLO);
	position.stream_id = ack.stream_id = f->msg.body.hello.stream_id;
	walsender_on_position(f->s.walsender, &position);
	CU_ASSERT_EQUAL(sender_state(f), WALSENDER_STREAMING);
	ack.durable_lsn = f->s.log.last_lsn + 1;
	CU_ASSERT_FALSE(walsender_on_ack(f->s.walsender, &ack)); /* never written */
	ack.durable_lsn = f->s.log.last_lsn;
	CU_ASSERT(walsender_on_ack(f->s.walsender, &ack));
	fixture_free(f);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"a term that cannot be is not promised", test_a_term_that_cannot_be_is_not_promised},
	    {"a hello said again leaves the stream as it is", test_a_hello_said_again_leaves_the_stream_as_it_is},
	    {"a stream taken over goes back to its master", test_a_stream_taken_over_goes_back_to_its_master},
	    {"a sender believes only what can be", test_a_sender_believes_only_what_can_be},
	    {"an empty replica gets everything", test_an_empty_replica_gets_everything},
	    {"a record larger than a message travels in pieces", test_a_record_larger_than_a_message_travels_in_pieces},
	    {"a connection lost inside a large record starts it again",
	     test_a_connection_lost_inside_a_large_record_starts_it_again},
	    {"a lost message is asked for again", test_a_lost_message_is_asked_for_again},
	    {"repeated records are skipped", test_repeated_records_are_skipped},
	    {"the tail of a deposed master is cut", test_the_tail_of_a_deposed_master_is_cut},
	    {"a superseded master is not listened to", test_a_superseded_master_is_not_listened_to},
	    {"committed records are never cut", test_committed_records_are_never_cut},
	    {"a replica too far behind gets a snapshot and streams on",
	     test_a_replica_too_far_behind_gets_a_snapshot_and_streams_on},
	    {"a sender that is cut off finds out that a snapshot is needed",
	     test_a_sender_that_is_cut_off_finds_out_that_a_snapshot_is_needed},
	    {"a snapshot that is cut off begins again", test_a_snapshot_that_is_cut_off_begins_again},
	    {"a snapshot leaves most of the time to commits", test_a_snapshot_leaves_most_of_the_time_to_commits},
	    {"a snapshot goes on where a lost connection cut it short",
	     test_a_snapshot_goes_on_where_a_lost_connection_cut_it_short},
	    {"a replica knows its lag only once it has caught up",
	     test_a_replica_knows_its_lag_only_once_it_has_caught_up},
	    {"only pages that differ are sent", test_only_pages_that_differ_are_sent},
	    {"an answer lost inside a snapshot starts it again", test_an_answer_lost_inside_a_snapshot_starts_it_again},
	    {"answers about pages never offered are ignored", test_answers_about_pages_never_offered_are_ignored},
	    {"a page lost inside a snapshot starts it again", test_a_page_lost_inside_a_snapshot_starts_it_again},
	    {"a master lost inside a snapshot is followed by the next",
	     test_a_master_lost_inside_a_snapshot_is_followed_by_the_next},
	    {"a newer term ends a snapshot", test_a_newer_term_ends_a_snapshot},
	    {"a snapshot without space is tried again later", test_a_snapshot_without_space_is_tried_again_later},
	    {"divergence stops the replica until a snapshot heals it",
	     test_divergence_stops_the_replica_until_a_snapshot_heals_it},
	    {"a diverged replica takes an older snapshot of a log that has all of its own",
	     test_a_diverged_replica_takes_an_older_snapshot_of_a_log_that_has_all_of_its_own},
	    {"an intact replica never goes back behind what its readers saw",
	     test_an_intact_replica_never_goes_back_behind_what_its_readers_saw},
	    {"an emptied master replaces nobody", test_an_emptied_master_replaces_nobody},
	    {"a position that got lost is said again", test_a_position_that_got_lost_is_said_again},
	    {"a hello of an earlier connection is ignored", test_a_hello_of_an_earlier_connection_is_ignored},
	    {"a full disk is survived", test_a_full_disk_is_survived},
	    {"a failed sync ends acknowledging", test_a_failed_sync_ends_acknowledging},
	    {"random accidents never lose or fork what was committed",
	     test_random_accidents_never_lose_or_fork_what_was_committed},
	    {NULL, NULL},
	};

	return unit_run("stream", tests);
}

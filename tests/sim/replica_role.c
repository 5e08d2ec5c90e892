/*
 * replica_role.c - replica/replica.c, re-created: the real walreceiver on a simulated disk, and its way back to the master.
 */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"

static enum db_err dead(struct errmsg *em)
{
	return errmsg_set(em, DB_IO, "the process was killed");
}

static struct wal_pos io_tip(void *arg, uint64_t *checksum)
{
	struct node *n = arg;

	if (checksum != NULL)
		*checksum = n->disk.last_checksum;
	return n->disk.last;
}

static size_t io_terms(void *arg, struct wal_pos *out, size_t max)
{
	struct node *n = arg;

	return disk_terms(&n->disk, out, max);
}

static enum db_err io_checksum_at(void *arg, uint64_t lsn, uint64_t *checksum, struct errmsg *em)
{
	struct node *n = arg;
	uint64_t term;

	return disk_describe(&n->disk, lsn, &term, checksum, em);
}

static uint64_t io_visible_lsn(void *arg)
{
	struct node *n = arg;

	return n->disk.visible_lsn;
}

static uint64_t io_applied_lsn(void *arg, uint64_t *db_checksum)
{
	struct node *n = arg;

	if (db_checksum != NULL)
		*db_checksum = n->disk.applied.db_checksum;
	return n->disk.applied.lsn;
}

static enum db_err io_append(void *arg, const uint8_t *record, size_t len, struct errmsg *em)
{
	struct node *n = arg;

	return node_disk_op(n) ? disk_append_record(&n->disk, record, len, em) : dead(em);
}

/* Records here are never larger than a message. */
static enum db_err io_append_piece(void *arg, uint64_t offset, const uint8_t *piece, size_t len, uint64_t record_len,
				   struct errmsg *em)
{
	struct node *n = arg;

	(void)offset;
	(void)piece;
	(void)len;
	(void)record_len;
	violated(n->world, "a record came in pieces, which the simulator does not know");
	return errmsg_set(em, DB_INVALID, "no pieces here");
}

static enum db_err io_sync(void *arg, struct errmsg *em)
{
	struct node *n = arg;

	if (n->disk.durable_lsn < n->disk.last.lsn)
		n->work_us += disk_latency_us(n->world);
	return node_disk_op(n) ? disk_sync(&n->disk, UINT64_MAX, em) : dead(em);
}

static enum db_err io_apply(void *arg, uint64_t lsn, struct errmsg *em)
{
	struct node *n = arg;

	return disk_apply(&n->disk, lsn, em);
}

static enum db_err io_cut(void *arg, uint64_t keep_lsn, struct errmsg *em)
{
	struct node *n = arg;

	if (!node_disk_op(n))
		return dead(em);
	trace(n->world, "node%u cuts its log after %" PRIu64 " (last %" PRIu64 ")", n->index + 1, keep_lsn,
	      n->disk.last.lsn);
	check_cut(n, keep_lsn);
	n->world->totals.cuts++;
	return disk_cut(&n->disk, keep_lsn, em);
}

static void io_set_committed(void *arg, uint64_t lsn)
{
	struct node *n = arg;

	if (!n->dying)
		disk_set_committed(&n->disk, lsn);
}

static void io_snapshot_drop(void *arg)
{
	struct node *n = arg;

	n->replica.receiving = false;
}

static void io_snapshot_discard(void *arg)
{
	struct node *n = arg;

	memset(&n->replica.incoming_state, 0, sizeof(n->replica.incoming_state));
}

static enum db_err io_snapshot_begin(void *arg, const struct wire_snapshot_begin *begin, struct errmsg *em)
{
	struct node *n = arg;

	if (n->disk.full)
		return errmsg_set(em, DB_FULL, "no space left on device");
	if (begin->db_size_pages != SIM_REGISTERS)
		return errmsg_set(em, DB_INVALID, "a snapshot of %u pages", begin->db_size_pages);
	n->replica.receiving = true;
	n->replica.incoming = *begin;
	return DB_OK;
}

/* A page is there already when an earlier attempt, or our own store, has it. */
static enum db_err io_snapshot_compare(void *arg, const struct wire_snapshot_hashes *hashes,
				       struct wire_snapshot_want *want, struct errmsg *em)
{
	struct node *n = arg;
	uint64_t *have = n->replica.incoming_state.registers;
	uint32_t i;

	if (hashes->first_pgno + hashes->count - 1 > SIM_REGISTERS)
		return errmsg_set(em, DB_INVALID, "page %u was not expected", hashes->first_pgno + hashes->count - 1);
	for (i = 0; i < hashes->count; i++) {
		unsigned reg = hashes->first_pgno - 1 + i;
		uint64_t hash = load_u64le(hashes->bytes + (size_t)i * 8);

		if (disk_hash(reg, have[reg]) != hash && disk_hash(reg, n->disk.applied.registers[reg]) == hash)
			have[reg] = n->disk.applied.registers[reg];
		if (disk_hash(reg, have[reg]) != hash)
			want->bits[i / 8] |= (uint8_t)(1u << i % 8);
	}
	return DB_OK;
}

static enum db_err io_snapshot_pages(void *arg, const struct wire_snapshot_pages *pages, struct errmsg *em)
{
	struct node *n = arg;
	size_t at;

	for (at = 0; at < pages->len; at += WAL_PAGE_SIZE) {
		uint32_t pgno = pages->first_pgno + (uint32_t)(at / WAL_PAGE_SIZE);

		if (pgno < 1 || pgno > SIM_REGISTERS)
			return errmsg_set(em, DB_INVALID, "page %u was not expected", pgno);
		n->replica.incoming_state.registers[pgno - 1] = load_u64le(pages->bytes + at);
	}
	return DB_OK;
}

static enum db_err io_snapshot_end(void *arg, struct errmsg *em)
{
	struct node *n = arg;
	struct replica_role *r = &n->replica;
	uint64_t checksum = 0;
	unsigned i;

	for (i = 0; i < SIM_REGISTERS; i++)
		checksum ^= disk_hash(i, r->incoming_state.registers[i]);
	if (checksum != r->incoming.db_checksum)
		return errmsg_set(em, DB_CORRUPT, "the snapshot is not whole");
	n->work_us += disk_latency_us(n->world);
	if (!node_disk_op(n))
		return dead(em);
	r->incoming_state.lsn = r->incoming.pos.lsn;
	r->incoming_state.db_checksum = checksum;
	n->news_snapshot = true;
	node_wake_main(n);
	return DB_OK;
}

static enum db_err io_promise(void *arg, uint64_t term, struct errmsg *em)
{
	struct node *n = arg;

	n->work_us += disk_latency_us(n->world);
	if (!node_disk_op(n))
		return dead(em);
	n->disk.promised_term = term;
	return DB_OK;
}

/* "n3": the address that a simulated master gives in its HELLO. */
static void io_set_master(void *arg, const char *id, const struct wire_hello *hello)
{
	struct node *n = arg;
	struct replica_role *r = &n->replica;
	uint32_t master = (uint32_t)(hello->ack_address[1] - '1');

	(void)id;
	r->position_due = r->want_due = r->ack_due = r->ack_known = false;
	if (r->master == master)
		return;
	if (r->master != NOBODY)
		pipe_close(n->world, PIPE_ACKS, n->index, r->master);
	r->master = master;
	pipe_open(n->world, PIPE_ACKS, n->index, master);
}

static void copy_message(struct wire_msg *out, const struct wire_msg *msg)
{
	out->head = msg->head;
	if (msg->head.type == WIRE_ACK) {
		out->body.ack = msg->body.ack;
		return;
	}
	memcpy(&out->body.position, &msg->body.position,
	       offsetof(struct wire_position, terms) +
		   msg->body.position.term_count * sizeof(msg->body.position.terms[0]));
}

static void io_send(void *arg, const struct wire_msg *msg)
{
	struct node *n = arg;
	struct replica_role *r = &n->replica;

	if (n->dying || r->master == NOBODY)
		return;
	if (msg->head.type == WIRE_POSITION) {
		copy_message(r->position, msg);
		r->position_due = true;
		r->want_due = r->ack_due = r->ack_known = false;
	} else if (msg->head.type == WIRE_SNAPSHOT_WANT) {
		r->want = msg->body.snapshot_want;
		r->want_due = true;
	} else {
		copy_message(r->ack, msg);
		r->ack_due = r->ack_known = true;
	}
	replica_pump(n);
}

/* The one window of a database as small as this. */
static const struct wire_msg *want_message(struct node *n)
{
	struct wire_msg *msg = n->world->outgoing;

	memset(&msg->head, 0, sizeof(msg->head));
	msg->head.type = WIRE_SNAPSHOT_WANT;
	msg->head.term = n->disk.promised_term;
	memcpy(msg->head.cluster_id, sim_cluster_id, sizeof(sim_cluster_id));
	snprintf(msg->head.sender, sizeof(msg->head.sender), "node%u", n->index + 1);
	msg->body.snapshot_want = n->replica.want;
	return msg;
}

void replica_pump(struct node *n)
{
	struct replica_role *r = &n->replica;
	const struct wire_msg *msg;
	bool *due;

	while (r->running && r->master != NOBODY && (r->position_due || r->want_due || r->ack_due) &&
	       pipe_may_send(n->world, PIPE_ACKS, n->index, r->master)) {
		due = r->position_due ? &r->position_due : r->want_due ? &r->want_due : &r->ack_due;
		msg = r->position_due ? r->position : r->want_due ? want_message(n) : r->ack;
		pipe_send(n->world, PIPE_ACKS, n->index, r->master, msg, n->work_us);
		*due = false;
	}
}

void replica_on_connected(struct node *n, bool connected)
{
	if (!n->replica.running || !connected)
		return;
	n->replica.ack_due = n->replica.ack_known;
	replica_pump(n);
}

void replica_on_message(struct node *n, const struct wire_msg *msg)
{
	walreceiver_on_message(n->replica.walreceiver, msg, now_ms(n->world));
}

enum db_err replica_start(struct node *n, struct errmsg *em)
{
	const struct walreceiver_io io = {.arg = n,
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
	struct replica_role *r = &n->replica;
	char id[16];
	enum db_err err = disk_apply(&n->disk, n->disk.last.lsn, em);

	if (err != DB_OK)
		return err;
	snprintf(id, sizeof(id), "node%u", n->index + 1);
	r->master = NOBODY;
	r->position_due = r->want_due = r->ack_due = r->ack_known = r->receiving = false;
	err = walreceiver_create(&r->walreceiver, &io, sim_cluster_id, id, n->disk.promised_term, now_ms(n->world), em);
	r->running = err == DB_OK;
	return err;
}

void replica_stop(struct node *n)
{
	struct replica_role *r = &n->replica;

	if (!r->running)
		return;
	r->running = false;
	if (r->master != NOBODY)
		pipe_close(n->world, PIPE_ACKS, n->index, r->master);
	r->master = NOBODY;
	walreceiver_free(r->walreceiver);
	r->walreceiver = NULL;
}

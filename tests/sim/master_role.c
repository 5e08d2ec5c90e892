/*
 * master_role.c - master/master.c, replication.c and writer.c, re-created: the real commit tracking and walsenders, a
 * writer that seals what waits into one record, an fdatasync that takes its time.
 */
#include "tests/sim/world.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "tests/sim/bugs.h"

#define PIPELINE_DEPTH    2
#define COMMIT_TIMEOUT_US MS(1000)
#define SWEEP_US          MS(100)

/* ---- the log as a walsender sees it */

static enum db_err io_seek(void *arg, uint64_t next_lsn, struct errmsg *em)
{
	struct sender *s = arg;

	(void)em;
	s->cursor_lsn = next_lsn;
	return DB_OK;
}

static enum db_err io_next(void *arg, struct wal_record *out, struct errmsg *em)
{
	struct sender *s = arg;
	const struct disk *d = &s->node->disk;

	if (s->cursor_lsn > d->last.lsn)
		return DB_NOTFOUND;
	if (s->cursor_lsn < d->first_lsn)
		return errmsg_set(em, DB_GAP, "record %" PRIu64 " was trimmed away", s->cursor_lsn);
	*out = d->log[s->cursor_lsn++].r;
	return DB_OK;
}

static size_t io_terms(void *arg, struct wal_pos *out, size_t max)
{
	struct sender *s = arg;

	return disk_terms(&s->node->disk, out, max);
}

static uint64_t io_first_lsn(void *arg)
{
	struct sender *s = arg;

	return s->node->disk.first_lsn;
}

static uint64_t io_last_lsn(void *arg)
{
	struct sender *s = arg;

	return s->node->disk.last.lsn;
}

static enum db_err io_describe(void *arg, uint64_t lsn, uint64_t *term, uint64_t *checksum, struct errmsg *em)
{
	struct sender *s = arg;

	return disk_describe(&s->node->disk, lsn, term, checksum, em);
}

static enum db_err io_snapshot_open(void *arg, struct wire_snapshot_begin *out, struct errmsg *em)
{
	struct sender *s = arg;
	const struct disk *d = &s->node->disk;

	out->pos.lsn = d->visible_lsn;
	if (!disk_state_at(d, d->visible_lsn, &s->snapshot) ||
	    disk_describe(d, d->visible_lsn, &out->pos.term, &out->record_checksum, em) != DB_OK)
		return errmsg_set(em, DB_NOTFOUND, "nothing to take a snapshot of");
	out->db_checksum = s->snapshot.db_checksum;
	out->db_size_pages = SIM_REGISTERS;
	s->cursor_lsn = out->pos.lsn + 1;
	s->node->world->totals.snapshots++;
	return DB_OK;
}

static const uint8_t *io_snapshot_page(void *arg, uint32_t pgno)
{
	struct sender *s = arg;

	store_u64le(s->page, s->snapshot.registers[pgno - 1]);
	return s->page;
}

static uint64_t io_snapshot_hash(void *arg, uint32_t pgno)
{
	struct sender *s = arg;

	return disk_hash(pgno - 1, s->snapshot.registers[pgno - 1]);
}

static void io_snapshot_close(void *arg)
{
	(void)arg; /* the cursor stays where it is: behind the snapshot */
}

/* ---- sending */

static struct sender *sender_to(struct node *n, uint32_t peer)
{
	return peer < SIM_NODES_MAX && n->master.senders[peer].walsender != NULL ? &n->master.senders[peer] : NULL;
}

static void pump(struct sender *s)
{
	struct node *n = s->node;
	struct world *w = n->world;

	while (!n->dying && pipe_may_send(w, PIPE_RECORDS, n->index, s->peer) &&
	       walsender_next(s->walsender, commit_lsn(n->master.commit), s->flush_commit, now_ms(w), w->outgoing))
		pipe_send(w, PIPE_RECORDS, n->index, s->peer, w->outgoing, n->work_us);
	s->flush_commit = false;
}

void master_pump(struct node *n, uint32_t peer)
{
	struct sender *s = n->master.running ? sender_to(n, peer) : NULL;

	if (s != NULL)
		pump(s);
}

void master_on_connected(struct node *n, uint32_t peer, bool connected)
{
	struct sender *s = n->master.running ? sender_to(n, peer) : NULL;

	if (s == NULL)
		return;
	walsender_on_connected(s->walsender, connected, now_ms(n->world));
	if (connected)
		pump(s);
}

/* ---- committing */

static void run_writer(struct node *n);

static void answer_batch(struct node *n, const struct batch *b, enum outcome outcome)
{
	unsigned i;

	if (b->is_members)
		member_versions_end_write(&n->master.versions, outcome == OUTCOME_DONE);
	for (i = 0; i < b->job_count; i++)
		client_answer(n->world, b->jobs[i], outcome, b->lsn, n->work_us);
}

static void tick_soon(struct node *n)
{
	struct master_role *m = &n->master;

	if (m->tick_soon)
		return;
	m->tick_soon = true;
	node_later(n, EV_TICK, MS(WALSENDER_NOTICE_MS) + rng_below(&n->world->rng, 1000), 1, m->term);
}

/* on_committed() of master/master.c: readers first, then whoever waits. */
static void announce(struct node *n)
{
	struct master_role *m = &n->master;
	uint64_t lsn = commit_lsn(m->commit);

	if (lsn <= m->announced_lsn)
		return;
	m->announced_lsn = lsn;
	check_committed(n, lsn);
	disk_set_committed(&n->disk, lsn);
	member_versions_on_ready(&m->versions); /* each time: a planted bug is ready without it */
	if (!m->ready) {
		trace(n->world, "node%u is ready as master of term %" PRIu64 ", lsn %" PRIu64, n->index + 1, m->term,
		      lsn);
		m->ready = true;
		node_wake_main(n);
	}
	while (m->batch_count > 0 && m->batches[0].lsn <= lsn) {
		check_acked(n->world, n->index, m->batches[0].lsn);
		answer_batch(n, &m->batches[0], OUTCOME_DONE);
		m->batch_count--;
		memmove(&m->batches[0], &m->batches[1], m->batch_count * sizeof(m->batches[0]));
	}
	tick_soon(n);
	run_writer(n);
}

static void note_durable(struct node *n, size_t index, uint64_t lsn)
{
	commit_on_durable(n->master.commit, index, lsn);
	announce(n);
}

void master_on_message(struct node *n, const struct wire_msg *msg)
{
	struct master_role *m = &n->master;
	struct sender *s = sender_to(n, (uint32_t)(msg->head.sender[4] - '1'));

	if (s == NULL)
		return;
	if (msg->head.term > m->term && !bug_planted(BUG_NO_TERM_CHECK)) {
		if (msg->head.term > n->deposed_by_term)
			n->deposed_by_term = msg->head.term;
		node_wake_main(n);
		return;
	}
	if (msg->head.term < m->term)
		return;
	if (msg->head.type == WIRE_POSITION) {
		walsender_on_position(s->walsender, &msg->body.position);
	} else if (msg->head.type == WIRE_SNAPSHOT_WANT) {
		walsender_on_want(s->walsender, &msg->body.snapshot_want);
	} else if (msg->head.type == WIRE_ACK && walsender_on_ack(s->walsender, &msg->body.ack)) {
		note_durable(n, s->peer, msg->body.ack.durable_lsn);
		return;
	}
	pump(s);
}

/* ---- the writer */

static void start_sync(struct node *n)
{
	struct master_role *m = &n->master;

	if (m->syncing || n->disk.durable_lsn >= n->disk.last.lsn)
		return;
	m->syncing = true;
	node_later(n, EV_SYNCED, n->work_us + disk_latency_us(n->world), n->disk.last.lsn, m->term);
}

static void fail_queue(struct node *n)
{
	struct master_role *m = &n->master;
	unsigned i;

	for (i = 0; i < m->queue_count; i++)
		client_answer(n->world, m->queue[i], OUTCOME_NOT_EXECUTED, 0, n->work_us);
	m->queue_count = 0;
	if (m->members_queued)
		member_versions_end_write(&m->versions, false);
	m->members_queued = false;
}

/* The members first, in a record of their own: a record changes one register. */
static void seal(struct node *n)
{
	struct master_role *m = &n->master;
	struct batch *b = &m->batches[m->batch_count];
	uint64_t value = m->members_queued ? SIM_MEMBERS_VALUE | m->versions.written.version : ++n->world->last_value;
	struct errmsg em = {0};

	if (!node_disk_op(n))
		return;
	if (disk_seal(&n->disk, WAL_PAGES, m->term, value, &em) != DB_OK) {
		fail_queue(n); /* rolled back */
		return;
	}
	*b = (struct batch){.lsn = n->disk.last.lsn, .value = value, .sealed_us = n->world->now_us};
	m->batch_count++;
	if (m->members_queued) {
		b->is_members = true;
		m->members_queued = false;
		return;
	}
	memcpy(b->jobs, m->queue, m->queue_count * sizeof(m->queue[0]));
	b->job_count = m->queue_count;
	m->queue_count = 0;
}

static void send_all(struct node *n)
{
	size_t i;

	for (i = 0; i < SIM_NODES_MAX; i++)
		if (n->master.senders[i].walsender != NULL)
			pump(&n->master.senders[i]);
}

static void run_writer(struct node *n)
{
	struct master_role *m = &n->master;

	if (n->dying || m->draining || (m->queue_count == 0 && !m->members_queued) ||
	    m->batch_count >= PIPELINE_DEPTH || n->disk.last.lsn + 1 >= SIM_LSN_MAX)
		return;
	seal(n);
	start_sync(n);
	send_all(n);
}

void master_submit(struct node *n, struct job job)
{
	struct master_role *m = &n->master;

	if (m->queue_count == SIM_QUEUE_MAX) {
		client_answer(n->world, job, OUTCOME_NOT_EXECUTED, 0, n->work_us);
		return;
	}
	m->queue[m->queue_count++] = job;
	run_writer(n);
}

void master_set_draining(struct node *n, bool draining)
{
	n->master.draining = draining;
	run_writer(n);
}

bool master_is_drained(const struct node *n)
{
	return n->master.draining && n->master.batch_count == 0;
}

void master_on_synced(struct node *n, const struct event *ev)
{
	struct master_role *m = &n->master;
	struct errmsg em = {0};

	if (!m->running || ev->b != m->term)
		return;
	m->syncing = false;
	if (!node_disk_op(n))
		return;
	if (disk_sync(&n->disk, ev->a, &em) != DB_OK) {
		n->failure = true;
		node_wake_main(n);
		return;
	}
	note_durable(n, n->index, n->disk.durable_lsn);
	start_sync(n);
}

/* Jobs whose quorum does not come are answered; what was sealed may still be committed. */
void master_on_sweep(struct node *n, const struct event *ev)
{
	struct master_role *m = &n->master;
	unsigned i;

	if (!m->running || ev->b != m->term)
		return;
	node_later(n, EV_SWEEP, SWEEP_US, 0, m->term);
	if (m->batch_count == 0 || n->world->now_us - m->batches[0].sealed_us < COMMIT_TIMEOUT_US)
		return;
	for (i = 0; i < m->batch_count; i++) {
		answer_batch(n, &m->batches[i], OUTCOME_UNKNOWN);
		m->batches[i].job_count = 0;
		m->batches[i].is_members = false;
	}
	fail_queue(n);
}

void master_on_tick(struct node *n, const struct event *ev)
{
	struct master_role *m = &n->master;
	size_t i;

	if (!m->running || ev->b != m->term)
		return;
	if (ev->a == 1)
		m->tick_soon = false;
	else
		node_later(n, EV_TICK, MS(WALSENDER_KEEPALIVE_MS), 0, m->term);
	for (i = 0; i < SIM_NODES_MAX; i++) {
		if (m->senders[i].walsender == NULL)
			continue;
		m->senders[i].flush_commit = true;
		walsender_on_tick(m->senders[i].walsender, now_ms(n->world));
		pump(&m->senders[i]);
	}
}

/* ---- life */

static enum db_err add_sender(struct node *n, uint32_t peer, struct errmsg *em)
{
	struct sender *s = &n->master.senders[peer];
	struct walsender_identity identity = {.term = n->master.term};
	const struct walsender_io io = {.arg = s,
					.seek = io_seek,
					.next = io_next,
					.terms = io_terms,
					.first_lsn = io_first_lsn,
					.last_lsn = io_last_lsn,
					.describe = io_describe,
					.snapshot_open = io_snapshot_open,
					.snapshot_page = io_snapshot_page,
					.snapshot_hash = io_snapshot_hash,
					.snapshot_close = io_snapshot_close};
	char name[16];
	enum db_err err;

	memcpy(identity.cluster_id, sim_cluster_id, sizeof(identity.cluster_id));
	snprintf(identity.node_id, sizeof(identity.node_id), "node%u", n->index + 1);
	snprintf(identity.ack_address, sizeof(identity.ack_address), "n%u", n->index + 1);
	snprintf(identity.http_address, sizeof(identity.http_address), "n%u", n->index + 1);
	snprintf(name, sizeof(name), "node%u", peer + 1);
	s->node = n;
	s->peer = peer;
	s->flush_commit = false;
	err = walsender_create(&s->walsender, &identity, name, node_wall_us(n), &io, em);
	if (err != DB_OK)
		return err;
	commit_forget(n->master.commit, peer);
	pipe_open(n->world, PIPE_RECORDS, n->index, peer);
	return DB_OK;
}

static void remove_sender(struct node *n, uint32_t peer)
{
	struct sender *s = &n->master.senders[peer];

	if (s->walsender == NULL)
		return;
	pipe_close(n->world, PIPE_RECORDS, n->index, peer);
	walsender_free(s->walsender);
	s->walsender = NULL;
}

/* replication_set_members() of master/replication.c. */
static enum db_err count_by(struct node *n, const struct members *members, struct errmsg *em)
{
	struct members_quorum quorums[2];
	unsigned count = members_quorums(members, n->world->durability, quorums);
	enum db_err err = DB_OK;
	uint32_t peer;

	for (peer = 0; peer < SIM_NODES_MAX && err == DB_OK; peer++)
		if (members_present(members->entries[peer].state) && peer != n->index && sender_to(n, peer) == NULL)
			err = add_sender(n, peer, em);
	if (err != DB_OK)
		return err;
	commit_set_quorums(n->master.commit, quorums, count);
	for (peer = 0; peer < SIM_NODES_MAX; peer++)
		if (!members_present(members->entries[peer].state))
			remove_sender(n, peer);
	return DB_OK;
}

/* master_set_members() of master/master.c. */
enum db_err master_set_members(struct node *n, const struct members *members, struct errmsg *em)
{
	struct master_role *m = &n->master;
	bool newer;
	enum db_err err = member_versions_told(&m->versions, members, &newer, em);

	check_members(n->world, members);
	if (newer)
		err = count_by(n, members, em);
	if (err != DB_OK)
		return err;
	if (newer)
		trace(n->world, "node%u, master, counts by version %" PRIu64 " of the members", n->index + 1,
		      members->version);
	member_versions_set(&m->versions, members);
	announce(n); /* after the members are in force, by which the invariants are looked at */
	if (!member_versions_begin_write(&m->versions))
		return DB_OK;
	m->members_queued = true;
	run_writer(n);
	return DB_OK;
}

/* Version 0: the database knows none. */
static void members_of_log(const struct node *n, struct members *out)
{
	*out = n->world->checker.versions[disk_members_version(&n->disk.applied)];
}

enum db_err master_start(struct node *n, uint64_t term, const struct members *members, struct errmsg *em)
{
	struct world *w = n->world;
	struct master_role *m = &n->master;
	enum db_err err;

	memset(m, 0, offsetof(struct master_role, senders));
	m->queue_count = m->batch_count = 0;
	m->syncing = m->tick_soon = m->members_queued = false;
	m->term = term;
	check_members(w, members);
	member_versions_init(&m->versions, members);
	err = disk_apply(&n->disk, n->disk.last.lsn, em);
	if (err == DB_OK && !node_disk_op(n))
		err = errmsg_set(em, DB_IO, "the process was killed");
	if (err == DB_OK) {
		members_of_log(n, &n->log_members);
		err = member_versions_found(&m->versions, &n->log_members, em);
	}
	if (err == DB_OK)
		check_promoted(n, term);
	if (err == DB_OK)
		err = disk_seal(&n->disk, WAL_TERM_START, term, 0, em);
	if (err != DB_OK)
		return err;
	m->running = true;
	m->term_start_lsn = n->disk.last.lsn;
	m->ready = bug_planted(BUG_READY_AT_ONCE);
	if (m->ready)
		node_wake_main(n);
	err = commit_create(&m->commit, SIM_NODES_MAX, SIM_NODES_MAX, m->term_start_lsn, em);
	if (err == DB_OK)
		err = count_by(n, members, em);
	if (err != DB_OK) {
		master_stop(n);
		return err;
	}
	w->totals.promotions++;
	node_later(n, EV_TICK, MS(WALSENDER_KEEPALIVE_MS), 0, term);
	node_later(n, EV_SWEEP, SWEEP_US, 0, term);
	start_sync(n);
	return DB_OK;
}

void master_stop(struct node *n)
{
	struct master_role *m = &n->master;
	uint32_t i;

	if (!m->running)
		return;
	m->running = false;
	fail_queue(n); /* WRITE_MOVED: not executed */
	for (i = 0; i < m->batch_count; i++)
		answer_batch(n, &m->batches[i], OUTCOME_UNKNOWN);
	m->batch_count = 0;
	for (i = 0; i < SIM_NODES_MAX; i++)
		remove_sender(n, i);
	commit_free(m->commit);
	m->commit = NULL;
	m->ready = m->draining = false;
}

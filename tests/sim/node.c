/*
 * node.c - a node's process: node/node.c, node/roles.c and node/control.c, re-created.
 *
 * A handler runs as one step. Time that it spends on the disk (work_us) delays what it sends and keeps the process busy
 * until then; it may be killed in the middle of it (dies_in), after which nothing it does leaves a trace.
 */
#include "tests/sim/world.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const uint8_t sim_cluster_id[16] = "simulated-------";

uint64_t node_wall_us(const struct node *n)
{
	return (uint64_t)((int64_t)(n->world->now_us + 1000000000u) + n->world->wall_us[n->index]);
}

uint64_t disk_latency_us(struct world *w)
{
	if (rng_once_in(&w->rng, 200))
		return rng_between(&w->rng, MS(5), MS(60));
	return rng_between(&w->rng, 60, 400);
}

bool node_disk_op(struct node *n)
{
	if (n->dying)
		return false;
	if (n->dies_in == 0 || --n->dies_in > 0)
		return true;
	n->dying = true; /* before or after: the next handler that asks decides */
	return rng_once_in(&n->world->rng, 2);
}

void node_wake_main(struct node *n)
{
	if (n->main_woken)
		return;
	n->main_woken = true;
	node_later(n, EV_MAIN,
		   n->work_us + rng_between(&n->world->rng, 10, rng_once_in(&n->world->rng, 8) ? 3000 : 200), 0, 0);
}

/* ---- roles */

static enum db_err start_replica(struct node *n, struct errmsg *em)
{
	enum db_err err = replica_start(n, em);

	if (err != DB_OK) {
		n->failure = true;
		node_wake_main(n);
	}
	return err;
}

static enum db_err step_down(struct node *n, uint64_t newer_term, struct errmsg *em)
{
	trace(n->world, "node%u steps down: term %" PRIu64 " is superseded by %" PRIu64, n->index + 1, n->master.term,
	      newer_term);
	master_stop(n);
	return start_replica(n, em);
}

static enum db_err set_term(struct node *n, uint64_t term, struct errmsg *em)
{
	enum db_err err = DB_OK;

	if (!n->master.running && !n->replica.running)
		return errmsg_set(em, DB_CLOSED, "the node is about to end");
	if (term < n->disk.promised_term)
		return errmsg_set(em, DB_STALE_TERM, "promised term %" PRIu64 " already", n->disk.promised_term);
	if (n->master.running && n->master.term == term)
		return DB_OK;
	if (n->master.running)
		err = step_down(n, term, em);
	if (err == DB_OK)
		err = walreceiver_set_term(n->replica.walreceiver, term, em);
	if (err == DB_OK && n->rebuilding)
		err = errmsg_set(em, DB_INVALID, "cannot be counted on: its log is being rebuilt");
	return err;
}

static enum db_err promote(struct node *n, uint64_t term, const struct members *members, struct errmsg *em)
{
	struct walreceiver_status status;
	struct errmsg again = {0};
	enum db_err err;

	if (!n->master.running && !n->replica.running)
		return errmsg_set(em, DB_CLOSED, "the node is about to end");
	if (n->master.running && n->master.term == term)
		return DB_OK;
	if (term != n->disk.promised_term)
		return errmsg_set(em, DB_STALE_TERM, "another term is promised");
	if (n->master.running)
		return errmsg_set(em, DB_INVALID, "already master of term %" PRIu64, n->master.term);
	if (n->rebuilding)
		return errmsg_set(em, DB_INVALID, "cannot be promoted: its log is being rebuilt");
	if (!members_votes(members->entries[n->index].state))
		return errmsg_set(em, DB_INVALID, "cannot be promoted: it is no voting member");
	walreceiver_get_status(n->replica.walreceiver, &status);
	if (status.diverged || status.state == WALRECEIVER_FAILED)
		return errmsg_set(em, DB_INVALID, "cannot be promoted: %s", status.reason);
	if (status.state == WALRECEIVER_REPLACED)
		return errmsg_set(em, DB_INVALID, "cannot be promoted: a snapshot takes its store's place");
	replica_stop(n);
	err = master_start(n, term, members, em);
	if (err == DB_OK) {
		trace(n->world, "node%u is promoted in term %" PRIu64 ", its log ends at %" PRIu64, n->index + 1, term,
		      n->disk.last.lsn);
		return DB_OK;
	}
	start_replica(n, &again);
	return err;
}

static enum db_err set_members(struct node *n, uint64_t term, const struct members *members, struct errmsg *em)
{
	if (!n->master.running)
		return errmsg_set(em, DB_INVALID, "not the master");
	if (n->master.term != term)
		return errmsg_set(em, DB_STALE_TERM, "master of another term");
	if (!members_present(members->entries[n->index].state))
		return errmsg_set(em, DB_INVALID, "the master cannot be left out of the members");
	return master_set_members(n, members, em);
}

static enum db_err drain(struct node *n, bool draining, struct errmsg *em)
{
	if (!n->master.running)
		return errmsg_set(em, DB_INVALID, "not the master");
	master_set_draining(n, draining);
	return DB_OK;
}

static void look_for_news(struct node *n)
{
	struct walreceiver_status status;

	walreceiver_get_status(n->replica.walreceiver, &status);
	n->news_rebuilt = n->rebuilding && status.state == WALRECEIVER_STREAMING && status.hello_lsn > 0 &&
			  n->disk.durable_lsn >= status.hello_lsn;
	n->news_diverged = status.diverged;
	if (n->news_diverged || n->news_rebuilt)
		node_wake_main(n);
}

/* ---- status */

static void put_master_status(struct node *n, struct wire_node_status *out)
{
	out->role = WIRE_ROLE_MASTER;
	out->ready = n->master.ready;
	out->draining = n->master.draining;
	out->members = n->master.versions.committed;
	out->committed_lsn = commit_lsn(n->master.commit);
	out->state = out->ready ? WIRE_STATE_UP : WIRE_STATE_STARTING;
	if (out->draining && !master_is_drained(n))
		out->committed_lsn = out->last.lsn > 0 ? out->last.lsn - 1 : 0;
}

static void put_replica_status(struct node *n, struct wire_node_status *out)
{
	struct walreceiver_status status;

	walreceiver_get_status(n->replica.walreceiver, &status);
	out->role = WIRE_ROLE_REPLICA;
	out->members = n->log_members;
	out->ready = status.state == WALRECEIVER_STREAMING;
	out->lag_ms = walreceiver_lag_ms(&status, now_ms(n->world));
	memcpy(out->reason, status.reason, sizeof(out->reason));
	if (status.state == WALRECEIVER_FAILED)
		out->state = WIRE_STATE_FAILED;
	else if (status.diverged || (n->rebuilding))
		out->state = WIRE_STATE_DIVERGED;
	else
		out->state = out->ready && out->lag_ms == 0 ? WIRE_STATE_UP : WIRE_STATE_CATCHING_UP;
}

static void fill_status(struct node *n, struct wire_node_status *out)
{
	memset(out, 0, sizeof(*out));
	out->promised_term = n->disk.promised_term;
	out->last = n->disk.last;
	out->durable_lsn = n->disk.durable_lsn;
	out->applied_lsn = n->disk.applied.lsn;
	out->committed_lsn = n->disk.visible_lsn;
	out->db_checksum = n->disk.applied.db_checksum;
	out->pid = n->pid;
	if (n->master.running)
		put_master_status(n, out);
	else if (n->replica.running)
		put_replica_status(n, out);
}

static enum db_err carry_out(struct node *n, const struct wire_msg *msg, struct errmsg *em)
{
	const struct wire_head *head = &msg->head;

	switch (head->type) {
	case WIRE_HEARTBEAT:
		return DB_OK;
	case WIRE_SET_TERM:
		return set_term(n, head->term, em);
	case WIRE_PROMOTE:
		return promote(n, head->term, &msg->body.members, em);
	case WIRE_MEMBERS:
		return set_members(n, head->term, &msg->body.members, em);
	case WIRE_DRAIN:
		return drain(n, true, em);
	case WIRE_RESUME:
		return drain(n, false, em);
	default:
		return errmsg_set(em, DB_INVALID, "no command to a node");
	}
}

static void on_control(struct node *n, const struct event *ev)
{
	struct world *w = n->world;
	struct wire_msg *reply = w->outgoing;
	struct event answer = {.kind = EV_ANSWER, .node = n->index, .process = w->supervisor.process, .a = ev->a};
	struct errmsg em = {0};
	struct buf bytes = {0};
	enum db_err err;

	if (wire_decode(w->incoming, ev->bytes, ev->len, sim_cluster_id, &em) != DB_OK) {
		violated(w, "a control message cannot be decoded: %s", em.text);
		return;
	}
	err = carry_out(n, w->incoming, &em);
	if (n->dying)
		return;
	memset(&reply->head, 0, sizeof(reply->head));
	fill_status(n, &reply->body.status);
	reply->head.type = WIRE_NODE_STATUS;
	reply->head.term = n->disk.promised_term;
	memcpy(reply->head.cluster_id, sim_cluster_id, sizeof(sim_cluster_id));
	snprintf(reply->head.sender, sizeof(reply->head.sender), "node%u", n->index + 1);
	reply->body.status.accepted = err == DB_OK;
	if (err != DB_OK)
		snprintf(reply->body.status.reason, sizeof(reply->body.status.reason), "%.*s",
			 (int)sizeof(reply->body.status.reason) - 1, em.text);
	if (network_blocked(w, n->index, SIM_SUPERVISOR))
		return; /* the supervisor's deadline will pass */
	wire_encode(&bytes, reply);
	answer.bytes = buf_take(&bytes, &answer.len);
	answer.b = n->process;
	answer.at_us = w->now_us + n->work_us + network_delay(w);
	event_add(w, answer);
}

/* ---- the main thread */

static void replace_store(struct node *n)
{
	const struct wire_snapshot_begin *begin = &n->replica.incoming;
	const struct disk_state state = n->replica.incoming_state;
	enum standing after = standing_after_snapshot(n->disk.standing, n->disk.last.lsn, begin->pos.lsn);

	trace(n->world, "node%u puts the snapshot of lsn %" PRIu64 " in place", n->index + 1, begin->pos.lsn);
	if (n->disk.standing != STANDING_WRONG)
		n->disk.standing = after;
	if (!node_disk_op(n))
		return;
	disk_install(&n->disk, begin->pos, begin->record_checksum, &state);
	if (node_disk_op(n))
		n->disk.standing = after;
}

static void on_main(struct node *n)
{
	struct errmsg em = {0};

	n->main_woken = false;
	if (n->failure) {
		trace(n->world, "node%u ends: its log cannot be written", n->index + 1);
		node_die(n, DEATH_EXIT, 1, 0);
		return;
	}
	if (n->master.running && n->deposed_by_term > n->master.term)
		step_down(n, n->deposed_by_term, &em);
	if (n->news_diverged) {
		if (node_disk_op(n))
			n->disk.standing = STANDING_WRONG;
	} else if (!n->news_snapshot && n->news_rebuilt && n->rebuilding) {
		if (node_disk_op(n)) {
			trace(n->world, "node%u is rebuilt and counts again", n->index + 1);
			n->disk.standing = STANDING_WHOLE;
			n->rebuilding = n->disk.rotten = false;
		}
	}
	n->news_rebuilt = false;
	if (n->news_snapshot) {
		replace_store(n);
		node_die(n, n->dying ? DEATH_KILLED : DEATH_EXIT, 0, n->dying ? SIGKILL : 0);
		return;
	}
	n->accepting = n->master.running && n->master.ready;
}

/* ---- starting */

static void rebuild(struct node *n, bool set_aside)
{
	bool keep = n->disk.standing != STANDING_REBUILD;

	if (keep && set_aside)
		n->disk.standing = STANDING_WRONG;
	if (set_aside)
		disk_set_aside(&n->disk);
	n->disk.standing = STANDING_REBUILD;
}

/* open_replicated_store() of node/node.c. */
static enum db_err open_store(struct node *n, struct errmsg *em)
{
	struct disk *d = &n->disk;
	bool several = n->members > 1;
	enum db_err err;

	if (several && !d->has_store && d->standing != STANDING_NEW)
		rebuild(n, false);
	else if (several && d->standing == STANDING_WRONG)
		rebuild(n, true);
	err = disk_open(d, em);
	if (err == DB_CORRUPT && several) {
		trace(n->world, "node%u: %s: rebuilt from the master's", n->index + 1, em->text);
		rebuild(n, true);
		err = disk_open(d, em);
	}
	if (err == DB_OK && several && d->standing == STANDING_NEW)
		d->standing = STANDING_WHOLE;
	n->rebuilding = !standing_counts(d->standing);
	return err;
}

static void on_up(struct node *n)
{
	struct members first;
	struct errmsg em = {0};
	enum db_err err = open_store(n, &em);

	n->seen_visible_lsn = n->seen_base_lsn = 0;
	if (err == DB_OK)
		err = replica_start(n, &em);
	if (err == DB_OK && n->as_master) {
		super_first_members(n->world, &first);
		err = set_term(n, 1, &em);
		if (err == DB_OK)
			err = promote(n, 1, &first, &em);
	}
	if (err != DB_OK) {
		trace(n->world, "node%u cannot start: %s", n->index + 1, em.text);
		node_die(n, DEATH_EXIT, 1, 0);
		return;
	}
	n->up = true;
	node_later(n, EV_CHECKPOINT, rng_between(&n->world->rng, MS(50), MS(1500)), 0, 0);
	trace(n->world, "node%u is up: last (%" PRIu64 ", %" PRIu64 ") base %" PRIu64 " promised %" PRIu64 "%s",
	      n->index + 1, n->disk.last.term, n->disk.last.lsn, n->disk.base.lsn, n->disk.promised_term,
	      n->rebuilding ? " rebuilding" : "");
	node_wake_main(n);
}

void node_spawn(struct node *n, bool as_master, unsigned members)
{
	struct world *w = n->world;
	uint64_t opening_us = rng_between(&w->rng, MS(4), MS(20));

	assert(!n->alive);
	if (rng_once_in(&w->rng, 20))
		opening_us += rng_below(&w->rng, MS(400));
	n->alive = true;
	n->up = n->dying = n->failure = n->main_woken = n->accepting = false;
	n->news_diverged = n->news_rebuilt = n->news_snapshot = false;
	n->deposed_by_term = 0;
	n->process++;
	n->pid = ++w->last_pid;
	n->as_master = as_master;
	n->members = members;
	memset(&n->log_members, 0, sizeof(n->log_members));
	n->paused_us = n->busy_us = n->work_us = 0;
	n->dies_in = 0;
	node_later(n, EV_NODE_UP, opening_us, 0, 0);
}

/* ---- ending */

void node_die(struct node *n, enum death death, int code, int signal)
{
	struct world *w = n->world;
	uint32_t process = n->process;

	if (!n->alive)
		return;
	trace(w, "node%u %s", n->index + 1,
	      death == DEATH_POWER  ? "loses power"
	      : death == DEATH_EXIT ? "ends"
	      : death == DEATH_TORN ? "is killed while it writes"
				    : "is killed");
	n->alive = n->up = n->accepting = n->dying = false;
	n->dies_in = 0;
	client_on_death(w, n->index);
	network_on_death(w, n->index);
	master_stop(n);
	replica_stop(n);
	if (death == DEATH_POWER)
		disk_power_cut(&n->disk, &w->rng);
	else if (death == DEATH_TORN)
		disk_torn_write(&n->disk);
	super_exit_seen(w, n->index, process, code, signal);
}

/* ---- messages */

void node_kick(struct node *n, enum pipe_use use, uint32_t peer)
{
	if (!n->alive || n->paused_us > n->world->now_us)
		return;
	if (use == PIPE_RECORDS)
		master_pump(n, peer);
	else if (n->replica.running && n->replica.master == peer)
		replica_pump(n);
}

void node_on_connected(struct node *n, enum pipe_use use, uint32_t peer, bool connected)
{
	if (use == PIPE_RECORDS)
		master_on_connected(n, peer, connected);
	else if (n->replica.running && n->replica.master == peer)
		replica_on_connected(n, connected);
}

static void on_link_lost(struct node *n, const struct event *ev)
{
	struct world *w = n->world;
	struct pipe *p = pipe_of(w, ev->a);
	struct event dial = {.at_us = w->now_us + rng_between(&w->rng, MS(1), MS(30)),
			     .kind = EV_DIAL,
			     .node = n->index,
			     .process = n->process,
			     .a = ev->a,
			     .b = p->connection};
	uint32_t peer = (uint32_t)(ev->a % SIM_NODES_MAX);

	if (!p->open || ev->b != p->connection)
		return;
	node_on_connected(n, ev->a < SIM_NODES_MAX * SIM_NODES_MAX ? PIPE_RECORDS : PIPE_ACKS, peer, false);
	event_add(w, dial);
}

static void on_replication_message(struct node *n, const struct wire_msg *msg)
{
	if (n->replica.running) {
		replica_on_message(n, msg);
		look_for_news(n);
	} else if (n->master.running && msg->head.type == WIRE_HELLO && msg->head.term > n->master.term) {
		if (msg->head.term > n->deposed_by_term)
			n->deposed_by_term = msg->head.term;
		node_wake_main(n);
	}
}

static void on_packet(struct node *n, const struct event *ev)
{
	struct world *w = n->world;
	struct errmsg em = {0};

	if (wire_decode(w->incoming, ev->bytes, ev->len, sim_cluster_id, &em) != DB_OK) {
		violated(w, "a message between nodes cannot be decoded: %s", em.text);
		return;
	}
	if (ev->a < SIM_NODES_MAX * SIM_NODES_MAX)
		on_replication_message(n, w->incoming);
	else if (n->master.running)
		master_on_message(n, w->incoming);
}

static void on_checkpoint(struct node *n)
{
	struct rng *rng = &n->world->rng;
	uint64_t keep_lsn = n->disk.last.lsn > 20 ? n->disk.last.lsn - 20 : 0;

	node_later(n, EV_CHECKPOINT, rng_between(rng, MS(50), MS(1500)), 0, 0);
	if (n->disk.failed || n->disk.full || !node_disk_op(n))
		return;
	if (rng_once_in(rng, 4))
		keep_lsn = UINT64_MAX; /* a log that keeps next to nothing */
	disk_checkpoint(&n->disk, keep_lsn);
}

static void handle(struct node *n, struct event *ev)
{
	switch (ev->kind) {
	case EV_PACKET:
		on_packet(n, ev);
		return;
	case EV_LINK_LOST:
		on_link_lost(n, ev);
		return;
	case EV_CONTROL:
		on_control(n, ev);
		return;
	case EV_REQUEST:
		client_on_request(n, ev);
		return;
	case EV_SYNCED:
		master_on_synced(n, ev);
		return;
	case EV_TICK:
		master_on_tick(n, ev);
		return;
	case EV_SWEEP:
		master_on_sweep(n, ev);
		return;
	case EV_MAIN:
		on_main(n);
		return;
	case EV_CHECKPOINT:
		on_checkpoint(n);
		return;
	case EV_NODE_UP:
		on_up(n);
		return;
	default:
		assert(!"an event that is no node's");
	}
}

void node_handle(struct node *n, struct event *ev)
{
	n->work_us = 0;
	handle(n, ev);
	if (!n->alive)
		return;
	if (n->dying) {
		node_die(n, n->death, -1, SIGKILL);
		return;
	}
	n->busy_us = n->world->now_us + n->work_us;
	n->work_us = 0;
	check_node(n);
}

void node_reset(struct world *w, uint32_t index)
{
	struct node *n = &w->nodes[index];
	struct disk disk = n->disk;
	struct wire_msg *position = n->replica.position, *ack = n->replica.ack;

	master_stop(n);
	replica_stop(n);
	memset(n, 0, sizeof(*n));
	n->world = w;
	n->index = index;
	n->disk = disk;
	n->replica.position = position;
	n->replica.ack = ack;
	n->replica.master = NOBODY;
	disk_clear(&n->disk);
}

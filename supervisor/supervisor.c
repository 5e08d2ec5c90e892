/*
 * supervisor.c - see supervisor.h.
 *
 * Everything that happens becomes a cluster_event handed to feed(), which carries out the actions of the step in order.
 * An action that fails is itself an event (the process could not be started, the term could not be stored); such events
 * wait in a short queue until the actions of the step before are done, so steps never nest.
 */
#include "supervisor/supervisor.h"

#include <assert.h>
#include <event2/event.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/auth/tls_members.h"
#include "common/base/audit.h"
#include "common/base/clock.h"
#include "common/base/config_show.h"
#include "common/base/log.h"
#include "supervisor/adopt.h"
#include "supervisor/answers.h"
#include "supervisor/cluster.h"
#include "supervisor/control.h"
#include "supervisor/coordinator.h"
#include "supervisor/datadir.h"
#include "supervisor/endpoint.h"
#include "supervisor/housekeeping.h"
#include "supervisor/launcher.h"
#include "supervisor/mailbox.h"
#include "supervisor/managed.h"
#include "supervisor/membership.h"
#include "supervisor/metrics.h"
#include "supervisor/recovery_mark.h"
#include "supervisor/replace.h"
#include "supervisor/roster.h"
#include "supervisor/service_manager.h"
#include "supervisor/timeline.h"

#define QUEUE_MAX        (4 * CLUSTER_NODES_MAX)
#define OVERDUE_MS       2000 /* a timer of the core that is so late: the loop does not get on */
#define REPLACE_DELAY_MS 100  /* the answer is on its way by then */
#define ROSTER_DELAY_MS  20   /* run/supervisor.json follows a change after this, out of a failover's way */

struct supervisor {
	struct cluster_config config;
	char data_dir[PATH_MAX];
	char master_program[PATH_MAX];
	char replica_program[PATH_MAX];
	char boot_id[64];
	struct coordinator coordinator;
	bool coordinator_is_open;
	struct coordinator_state stored;
	int endpoint_fd;
	struct cluster *cluster;
	struct event_base *base;
	struct mailbox *mailbox;
	struct control *control;
	struct event *tick_event;
	struct event *mail_event;
	struct event *control_event;
	struct event *term_event;
	struct event *int_event;
	struct event *hup_event;
	struct event *roster_event;
	struct event *replace_event;
	char successor[PATH_MAX]; /* the program that this process is about to become */
	uint64_t started_ms;
	struct service_manager *service_manager; /* NULL: there is none */
	struct recovery_mark recovery;
	bool stepping;
	size_t queue_count;
	struct cluster_event queue[QUEUE_MAX];
	struct housekeeping *housekeeping;
	struct metrics *metrics;
	struct timeline *timeline; /* NULL: it cannot be written */
	struct answers answers;
	struct cluster_actions actions; /* of the step under way */
	struct managed nodes[CLUSTER_NODES_MAX];
};

static void feed(struct supervisor *s, const struct cluster_event *ev);

/* ---- the roster */

static void roster_changed(struct supervisor *s)
{
	const struct timeval delay = {0, ROSTER_DELAY_MS * 1000};

	if (!event_pending(s->roster_event, EV_TIMEOUT, NULL) && event_add(s->roster_event, &delay) != 0)
		log_error("cannot arm the timer of \"%s\"", DATADIR_ROSTER);
}

static void write_roster(struct supervisor *s)
{
	struct roster *r = calloc(1, sizeof(*r));
	struct cluster_node_view view;
	struct errmsg em = {0};
	unsigned n;

	if (r == NULL) {
		log_error("no memory to write \"%s\"", DATADIR_ROSTER);
		return;
	}
	memcpy(r->boot_id, s->boot_id, sizeof(r->boot_id));
	r->supervisor_pid = getpid();
	r->term = s->stored.term;
	r->node_count = CLUSTER_NODES_MAX;
	while (r->node_count > 0 && s->nodes[r->node_count - 1].process.pidfd < 0 &&
	       !members_present(cluster_members(s->cluster)->entries[r->node_count - 1].state))
		r->node_count--;
	for (n = 0; n < r->node_count; n++) {
		const struct managed *m = &s->nodes[n];

		cluster_node_view(s->cluster, n, clock_mono_ms(), &view);
		r->nodes[n].restarts = view.restarts;
		if (m->process.pidfd < 0)
			continue;
		r->nodes[n] = (struct roster_node){.pid = m->process.pid,
						   .start_ticks = m->process.start_ticks,
						   .started_us = m->started_us,
						   .restarts = view.restarts,
						   .answered = m->answered,
						   .master = strcmp(view.role, "master") == 0};
	}
	if (roster_store(r, DATADIR_ROSTER, &em) != DB_OK)
		log_error("%s", em.text); /* a later supervisor still finds the nodes by their sockets */
	free(r);
}

static void on_roster_due(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	write_roster(arg);
}

/* ---- events that actions cause */

static void enqueue(struct supervisor *s, const struct cluster_event *ev)
{
	assert(s->queue_count < QUEUE_MAX); /* a step has at most three failing actions per node, and a few PERSISTs */
	s->queue[s->queue_count++] = *ev;
}

static void enqueue_no_reply(struct supervisor *s, unsigned n, uint32_t seq)
{
	struct cluster_event ev = {.type = CLUSTER_NO_REPLY, .node = n};

	ev.u.reply.seq = seq;
	enqueue(s, &ev);
}

/* why is borrowed until the event is done. */
static void enqueue_not_started(struct supervisor *s, unsigned n, const char *why)
{
	struct cluster_event ev = {.type = CLUSTER_NODE_EXITED, .node = n};

	ev.u.exited.code = -1;
	ev.u.exited.why = why;
	enqueue(s, &ev);
}

/* ---- processes */

static void on_node_exit(evutil_socket_t fd, short what, void *arg)
{
	struct managed *m = arg;
	struct cluster_event ev = {.type = CLUSTER_NODE_EXITED, .node = m->index};

	(void)fd;
	(void)what;
	if (!process_gone(&m->process))
		return;
	process_collect(&m->process, &ev.u.exited.code, &ev.u.exited.signal);
	ev.u.exited.said = managed_last_words(m);
	managed_release(m);
	feed(m->owner, &ev);
	roster_changed(m->owner);
}

static void do_spawn(struct supervisor *s, const struct cluster_action *a)
{
	const struct members *members = cluster_members(s->cluster);
	const struct managed_start start = {.program = a->u.as_master ? s->master_program : s->replica_program,
					    .as_master = a->u.as_master,
					    .term = s->stored.term,
					    .data_dir = s->data_dir,
					    .entry = &members->entries[a->node],
					    .members = members_count(members),
					    .listen_fd = s->endpoint_fd};
	struct managed *m = &s->nodes[a->node];
	struct errmsg em = {0};

	assert(m->process.pidfd < 0);
	if (managed_start(m, &start, &em) == DB_OK) {
		log_info("node%u started pid=%d as=%s", a->node + 1, (int)m->process.pid,
			 a->u.as_master ? "master" : "replica");
		timeline_append_process(s->timeline, TIMELINE_NODE_START, a->node, 0, (uint64_t)m->process.pid,
					a->u.as_master ? "started as the master" : "started");
		roster_changed(s);
		return;
	}
	log_error("node%u cannot be started: %s", a->node + 1, em.text);
	memcpy(m->why, em.text, sizeof(m->why));
	enqueue_not_started(s, a->node, m->why);
}

static void do_kill(struct supervisor *s, const struct cluster_action *a)
{
	struct errmsg em = {0};

	if (process_signal(&s->nodes[a->node].process, a->u.signal, &em) != DB_OK)
		log_error("%s", em.text); /* its exit is what the core waits for; status says so */
}

static void do_probe(struct supervisor *s, const struct cluster_action *a)
{
	struct cluster_event ev = {.type = CLUSTER_PROGRESS, .node = a->node};

	ev.u.advancing = managed_probe(&s->nodes[a->node]);
	if (a->u.compare)
		enqueue(s, &ev);
}

/* ---- requests */

static void do_send(struct supervisor *s, const struct cluster_action *a)
{
	struct managed *m = &s->nodes[a->node];
	struct wire_head head = {.type = a->u.send.type, .term = a->u.send.term};

	memcpy(head.cluster_id, s->config.cluster_id, sizeof(head.cluster_id));
	memcpy(head.sender, "supervisor", sizeof("supervisor"));
	if ((a->u.send.type == WIRE_PROMOTE && !recovery_mark_end(&s->recovery)) || m->process.pidfd < 0 ||
	    m->link == NULL ||
	    mailbox_ask(s->mailbox, m->link, &head, a->node, a->u.send.seq, a->u.send.members, a->u.send.timeout_ms) !=
		DB_OK)
		enqueue_no_reply(s, a->node, a->u.send.seq);
}

static void on_mail(evutil_socket_t fd, short what, void *arg)
{
	struct supervisor *s = arg;
	struct mail *mail = mailbox_take(s->mailbox);

	(void)fd;
	(void)what;
	while (mail != NULL) {
		struct mail *next = mail->next;
		struct managed *m = &s->nodes[mail->node];
		struct cluster_event ev = {.type = CLUSTER_REPLY, .node = mail->node};

		if (mail->err == DB_OK && mail->status.pid != (uint32_t)m->process.pid) {
			log_warn("node%u is answered for by process %u instead of %d", mail->node + 1, mail->status.pid,
				 (int)m->process.pid);
			mail->err = DB_INVALID;
		}
		if (mail->err == DB_INVALID)
			log_debug("node%u sent an answer that is not understood", mail->node + 1);
		if (mail->err != DB_OK)
			ev.type = CLUSTER_NO_REPLY;
		ev.u.reply.seq = mail->seq;
		ev.u.reply.status = &mail->status;
		feed(s, &ev);
		if (mail->err == DB_OK && !m->answered && m->process.pidfd >= 0) {
			m->answered = true;
			roster_changed(s);
		}
		free(mail);
		mail = next;
	}
}

/* ---- carrying out */

static void do_log(const struct cluster_action *a)
{
	switch (a->u.level) {
	case LOG_LEVEL_DEBUG:
		log_debug("%s", a->text);
		return;
	case LOG_LEVEL_INFO:
		log_info("%s", a->text);
		return;
	case LOG_LEVEL_WARN:
		log_warn("%s", a->text);
		return;
	case LOG_LEVEL_ERROR:
		log_error("%s", a->text);
		return;
	}
}

static bool do_persist(struct supervisor *s, const struct cluster_action *a)
{
	const struct coordinator_state state = {.term = a->u.persist.term,
						.failovers = a->u.persist.failovers,
						.nodes = config_node_count(&s->config),
						.members = *a->u.persist.members};
	const struct cluster_event ev = {.type = CLUSTER_PERSIST_FAILED};
	struct errmsg em = {0};

	if (coordinator_store(&s->coordinator, &state, &em) == DB_OK) {
		s->stored = state;
		return true;
	}
	log_error("term %" PRIu64 " (members version %" PRIu64 ") cannot be stored: %s", a->u.persist.term,
		  a->u.persist.members->version, em.text);
	enqueue(s, &ev);
	return false;
}

static void do_retire(const struct cluster_action *a)
{
	struct errmsg em = {0};

	if (datadir_retire(a->node + 1, &em) != DB_OK)
		log_error("%s", em.text); /* a later node of that number finds it, and takes it for its own */
}

static void carry_out(struct supervisor *s)
{
	bool stored = true; /* see (a) in cluster.h */
	size_t i;

	for (i = 0; i < s->actions.count; i++) {
		const struct cluster_action *a = &s->actions.items[i];

		switch (a->type) {
		case CLUSTER_SPAWN:
			if (stored || !a->u.as_master)
				do_spawn(s, a);
			else
				enqueue_not_started(s, a->node, "its term could not be stored");
			break;
		case CLUSTER_KILL:
			do_kill(s, a);
			break;
		case CLUSTER_SEND:
			if (stored)
				do_send(s, a);
			break;
		case CLUSTER_PERSIST:
			stored = do_persist(s, a);
			break;
		case CLUSTER_LOG:
			do_log(a);
			break;
		case CLUSTER_NOTE:
			timeline_append(s->timeline, &a->u.note, a->node, a->text);
			metrics_note(s->metrics, &a->u.note);
			if (a->u.note.kind == TIMELINE_MASTER_READY)
				recovery_mark_end(&s->recovery);
			break;
		case CLUSTER_PROBE:
			do_probe(s, a);
			break;
		case CLUSTER_SWITCHOVER_DONE:
			answers_switchover_done(&s->answers, a->u.ok, a->text);
			roster_changed(s);
			break;
		case CLUSTER_CHANGE_DONE:
			answers_change_done(&s->answers, a->u.ok, a->text);
			roster_changed(s);
			break;
		case CLUSTER_RETIRE:
			if (stored)
				do_retire(a);
			break;
		case CLUSTER_STOPPED:
			log_info("every node has ended");
			event_base_loopbreak(s->base);
			break;
		}
	}
}

static void arm_tick(struct supervisor *s)
{
	uint64_t wake_ms = cluster_wake_ms(s->cluster);
	uint64_t now_us = clock_mono_us();
	uint64_t wait_us = wake_ms * 1000 > now_us ? wake_ms * 1000 - now_us : 0;
	struct timeval tv = {(time_t)(wait_us / 1000000), (suseconds_t)(wait_us % 1000000)};

	if (wake_ms == UINT64_MAX)
		event_del(s->tick_event);
	else if (event_add(s->tick_event, &tv) != 0)
		log_error("cannot arm the timer of the cluster core");
}

static void step(struct supervisor *s, const struct cluster_event *ev)
{
	cluster_step(s->cluster, ev, clock_mono_ms(), &s->actions);
	carry_out(s);
}

static void feed(struct supervisor *s, const struct cluster_event *ev)
{
	assert(!s->stepping);
	s->stepping = true;
	step(s, ev);
	/* This ends: what failed is tried again after a delay, by the timer. */
	while (s->queue_count > 0) {
		struct cluster_event next = s->queue[0];

		s->queue_count--;
		memmove(&s->queue[0], &s->queue[1], s->queue_count * sizeof(s->queue[0]));
		step(s, &next);
	}
	s->stepping = false;
	arm_tick(s);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	const struct cluster_event ev = {.type = CLUSTER_TICK};

	(void)fd;
	(void)what;
	feed(arg, &ev);
}

static void on_stop_signal(evutil_socket_t sig, short what, void *arg)
{
	const struct cluster_event ev = {.type = CLUSTER_STOP};

	(void)what;
	log_info("signal %d: stopping", (int)sig);
	audit_write("supervisor", "stop", "", sig == SIGTERM ? "SIGTERM" : "SIGINT", "ok: stopping");
	service_manager_stopping(((struct supervisor *)arg)->service_manager);
	feed(arg, &ev);
}

/* ---- reloading and the service manager */

/* Takes up cluster.json as far as it can be while running, and has the nodes do so; said: what came of it. */
static bool reload(void *arg, struct buf *said)
{
	struct supervisor *s = arg;
	struct buf waiting = {0};
	struct errmsg em = {0};
	enum db_err err, tried = DB_OK;
	unsigned n;

	service_manager_reloading(s->service_manager);
	err = config_reload(&s->config, DATADIR_CONFIG, &waiting, &em);
	if (err == DB_OK && !waiting.failed) {
		buf_printf(said, "reloaded \"logging\" (level %s)", log_level_name(s->config.logging.level));
		if (waiting.len > 0)
			buf_printf(said, "; takes effect when the cluster is stopped and started: %.*s",
				   (int)waiting.len, (const char *)waiting.data);
	} else {
		buf_printf(said, "nothing is reloaded: %s", err == DB_OK ? "out of memory" : em.text);
	}
	if (err == DB_OK && config_has_tls(&s->config)) {
		tried = tls_check(&s->config, &em);
		buf_printf(said,
			   tried == DB_OK ? "; certificate and key are read again%s"
					  : "; the certificate stays what it is: %s",
			   tried == DB_OK ? "" : em.text);
	}
	for (n = 0; err == DB_OK && n < CLUSTER_NODES_MAX; n++)
		if (process_signal(&s->nodes[n].process, SIGHUP, &em) != DB_OK)
			log_error("node%u is not told to reload: %s", n + 1, em.text);
	if (err == DB_OK)
		log_info("%.*s", (int)said->len, (const char *)said->data);
	else
		log_error("%.*s", (int)said->len, (const char *)said->data);
	buf_fini(&waiting);
	service_manager_ready(s->service_manager);
	return err == DB_OK && tried == DB_OK;
}

static void on_reload_signal(evutil_socket_t sig, short what, void *arg)
{
	struct buf said = {0};

	(void)sig;
	(void)what;
	audit_write("supervisor", "reload", "", "SIGHUP", reload(arg, &said) ? "ok" : "error");
	buf_fini(&said);
}

static bool gets_on(void *arg)
{
	const struct supervisor *s = arg;
	uint64_t wake_ms = cluster_wake_ms(s->cluster);

	return wake_ms == UINT64_MAX || clock_mono_ms() < wake_ms + OVERDUE_MS;
}

static void describe(void *arg, char *out, size_t size)
{
	const struct supervisor *s = arg;
	struct cluster_view view;
	unsigned n, running = 0;

	cluster_view(s->cluster, &view);
	for (n = 0; n < CLUSTER_NODES_MAX; n++)
		running += s->nodes[n].process.pidfd >= 0;
	if (view.stopping)
		snprintf(out, size, "stopping");
	else if (view.master == CLUSTER_NOBODY)
		snprintf(out, size, "no master: %s", view.reason);
	else
		snprintf(out, size, "node%u is master of term %" PRIu64 ", %u nodes run", view.master + 1, view.term,
			 running);
}

static enum db_err create_service_manager(struct supervisor *s, struct errmsg *em)
{
	const struct service_manager_options o = {.base = s->base, .alive = gets_on, .describe = describe, .arg = s};

	return service_manager_create(&s->service_manager, &o, em);
}

/* ---- commands */

static void feed_for_answers(void *arg, const struct cluster_event *ev)
{
	feed(arg, ev);
}

static void get_pids(void *arg, pid_t *pids)
{
	const struct supervisor *s = arg;
	unsigned n;

	for (n = 0; n < CLUSTER_NODES_MAX; n++)
		pids[n] = s->nodes[n].process.pidfd >= 0 ? s->nodes[n].process.pid : 0;
}

static enum db_err restart_node(void *arg, unsigned node, struct errmsg *em)
{
	struct supervisor *s = arg;

	log_info("node%u is restarted on demand", node + 1);
	return process_signal(&s->nodes[node].process, SIGTERM, em);
}

static void on_replace_due(evutil_socket_t fd, short what, void *arg)
{
	struct supervisor *s = arg;
	struct errmsg em = {0};

	(void)fd;
	(void)what;
	write_roster(s);
	log_info("is replaced by \"%s\"", s->successor);
	replace_run(s->successor, s->data_dir, &em);
	log_error("the supervisor stays what it is: %s", em.text);
}

static enum db_err replace(void *arg, const char *program, struct errmsg *em)
{
	const struct timeval delay = {0, REPLACE_DELAY_MS * 1000};
	struct supervisor *s = arg;
	enum db_err err = replace_check(program, em);

	if (err != DB_OK)
		return err;
	snprintf(s->successor, sizeof(s->successor), "%s", program);
	return event_add(s->replace_event, &delay) == 0 ? DB_OK : errmsg_set(em, DB_NOMEM, "cannot arm a timer");
}

static void on_control(evutil_socket_t fd, short what, void *arg)
{
	struct supervisor *s = arg;

	(void)fd;
	(void)what;
	control_serve(s->control);
}

/* ---- start and end */

static enum db_err add_event(struct event **out, struct event_base *base, int fd, short what, event_callback_fn fn,
			     void *arg, bool active, struct errmsg *em)
{
	*out = event_new(base, fd, what, fn, arg);
	if (*out == NULL || (active && event_add(*out, NULL) != 0))
		return errmsg_set(em, DB_NOMEM, "cannot set up the event loop");
	return DB_OK;
}

static enum db_err create_loop(struct supervisor *s, struct errmsg *em)
{
	struct event_config *options = event_config_new();
	enum db_err err;
	unsigned n;

	if (options == NULL)
		return errmsg_set(em, DB_NOMEM, "cannot set up the event loop");
	event_config_set_flag(options, EVENT_BASE_FLAG_PRECISE_TIMER); /* 5 ms polls are not to last 6 */
	s->base = event_base_new_with_config(options);
	event_config_free(options);
	if (s->base == NULL)
		return errmsg_set(em, DB_NOMEM, "cannot set up the event loop");
	for (n = 0; n < CLUSTER_NODES_MAX; n++)
		s->nodes[n].base = s->base;
	err = mailbox_create(&s->mailbox, s->config.cluster_id, em);
	if (err == DB_OK)
		err = add_event(&s->tick_event, s->base, -1, 0, on_tick, s, false, em);
	if (err == DB_OK)
		err = add_event(&s->roster_event, s->base, -1, 0, on_roster_due, s, false, em);
	if (err == DB_OK)
		err = add_event(&s->replace_event, s->base, -1, 0, on_replace_due, s, false, em);
	if (err == DB_OK)
		err = add_event(&s->mail_event, s->base, mailbox_fd(s->mailbox), EV_READ | EV_PERSIST, on_mail, s, true,
				em);
	if (err == DB_OK)
		err = add_event(&s->term_event, s->base, SIGTERM, EV_SIGNAL | EV_PERSIST, on_stop_signal, s, true, em);
	if (err == DB_OK)
		err = add_event(&s->int_event, s->base, SIGINT, EV_SIGNAL | EV_PERSIST, on_stop_signal, s, true, em);
	if (err == DB_OK)
		err = add_event(&s->hup_event, s->base, SIGHUP, EV_SIGNAL | EV_PERSIST, on_reload_signal, s, true, em);
	return err;
}

static enum db_err create_control(struct supervisor *s, struct errmsg *em)
{
	enum db_err err;

	s->answers = (struct answers){.cluster = s->cluster,
				      .config = &s->config,
				      .feed = feed_for_answers,
				      .get_pids = get_pids,
				      .reload = reload,
				      .restart = restart_node,
				      .replace = replace,
				      .started_ms = s->started_ms,
				      .arg = s};
	err = control_create(&s->control, DATADIR_CONTROL, s->config.cluster_id, answers_command, &s->answers, em);
	if (err != DB_OK)
		return err;
	return add_event(&s->control_event, s->base, control_fd(s->control), EV_READ | EV_PERSIST, on_control, s, true,
			 em);
}

static enum db_err create_housekeeping(struct supervisor *s, struct errmsg *em)
{
	const struct housekeeping_options o = {.base = s->base,
					       .cluster = s->cluster,
					       .timeline = s->timeline,
					       .node_count = CLUSTER_NODES_MAX,
					       .endpoint_fd = s->endpoint_fd};

	const struct metrics_options metrics = {.base = s->base, .cluster = s->cluster};
	enum db_err err = housekeeping_create(&s->housekeeping, &o, em);

	return err == DB_OK ? metrics_create(&s->metrics, &metrics, em) : err;
}

static enum db_err create_cluster(struct supervisor *s, struct errmsg *em)
{
	struct cluster_options o = {.node_count = config_node_count(&s->config),
				    .all = s->config.durability == DURABILITY_ALL,
				    .members = &s->stored.members,
				    .ack_nodes = config_ack_nodes(&s->config),
				    .async = s->config.durability == DURABILITY_ASYNC,
				    .interval_ms = s->config.heartbeat.interval_ms,
				    .misses = s->config.heartbeat.misses,
				    .stall_ms = s->config.heartbeat.stall_ms};
	enum db_err err;

	err = coordinator_open(&s->coordinator, DATADIR_TERM, &s->stored, em);
	if (err != DB_OK)
		return err;
	s->coordinator_is_open = true;
	err = membership_check(&s->config, &s->coordinator, &s->stored, em);
	if (err != DB_OK)
		return err;
	o.term = s->stored.term;
	o.failovers = s->stored.failovers;
	return cluster_create(&s->cluster, &o, em);
}

/* Takes over running nodes and fills ev; the endpoint comes from them or is bound anew. */
static enum db_err adopt_nodes(struct supervisor *s, struct cluster_event *ev, struct errmsg *em)
{
	struct process processes[CONFIG_NODES_MAX];
	struct roster *roster = calloc(1, sizeof(*roster));
	enum db_err err = DB_OK;
	unsigned n;

	if (roster == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for the roster");
	for (n = 0; n < CONFIG_NODES_MAX; n++)
		processes[n] = PROCESS_NONE;
	adopt_running(processes, roster);
	err = adopt_check_surplus(processes, &s->config, &s->stored.members, em);
	if (err == DB_OK)
		err = endpoint_open(&s->endpoint_fd, &s->config, processes, em);
	for (n = 0; n < CONFIG_NODES_MAX; n++) {
		struct managed *m = &s->nodes[n];

		ev->u.begin.restarts[n] = roster->nodes[n].restarts;
		if (err != DB_OK || processes[n].pidfd < 0) {
			process_close(&processes[n]);
			continue;
		}
		m->process = processes[n];
		m->answered = roster->nodes[n].answered;
		m->started_us = roster->nodes[n].started_us;
		ev->u.begin.adopted |= 1u << n;
		ev->u.begin.answered |= m->answered ? 1u << n : 0;
		log_info("node%u adopted pid=%d", n + 1, (int)m->process.pid);
		err = managed_attach(m, em);
	}
	free(roster);
	return err;
}

static void note_supervisor(struct supervisor *s, enum timeline_kind kind, const char *text)
{
	timeline_append_process(s->timeline, kind, TIMELINE_NOBODY, s->stored.term, (uint64_t)getpid(), text);
}

enum db_err supervisor_create(struct supervisor **out, const struct cluster_config *config, const char *data_dir,
			      struct errmsg *em)
{
	struct cluster_event ev = {.type = CLUSTER_BEGIN, .node = CLUSTER_NOBODY};
	struct supervisor *s = calloc(1, sizeof(*s));
	enum db_err err;
	unsigned n;

	*out = NULL;
	if (s == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for the supervisor");
	s->config = *config;
	s->endpoint_fd = -1;
	s->started_ms = clock_mono_ms();
	snprintf(s->data_dir, sizeof(s->data_dir), "%s", data_dir);
	for (n = 0; n < CLUSTER_NODES_MAX; n++)
		s->nodes[n] =
		    (struct managed){.owner = s, .index = n, .process = PROCESS_NONE, .on_exit = on_node_exit};
	/* A cluster goes on without its history. */
	if (timeline_open(&s->timeline, em) != DB_OK)
		log_error("no event will be recorded: %s", em->text);
	err = launcher_find(s->master_program, "grizzly-master", em);
	if (err == DB_OK)
		err = launcher_find(s->replica_program, "grizzly-replica", em);
	if (err == DB_OK)
		err = launcher_boot_id(s->boot_id, em);
	if (err == DB_OK)
		err = create_cluster(s, em);
	if (err == DB_OK)
		err = create_loop(s, em);
	if (err == DB_OK)
		err = adopt_nodes(s, &ev, em);
	if (err == DB_OK)
		err = recovery_mark_begin(&s->recovery, CLUSTER_NODES_MAX, ev.u.begin.adopted != 0, &ev.u.begin.recover,
					  &ev.u.begin.heir, em);
	if (err == DB_OK)
		err = create_control(s, em);
	if (err == DB_OK)
		err = create_housekeeping(s, em);
	if (err == DB_OK)
		err = create_service_manager(s, em);
	if (err != DB_OK) {
		note_supervisor(s, TIMELINE_CONFIG_REFUSED, em->text);
		supervisor_free(s);
		return err;
	}
	note_supervisor(s, TIMELINE_SUPERVISOR_START, ev.u.begin.adopted != 0 ? "took over running nodes" : "started");
	ev.u.begin.first_start =
	    !ev.u.begin.recover && s->stored.term == 0 && ev.u.begin.adopted == 0 && !datadir_has_nodes();
	feed(s, &ev);
	write_roster(s);
	service_manager_ready(s->service_manager);
	*out = s;
	return DB_OK;
}

enum db_err supervisor_run(struct supervisor *s, struct errmsg *em)
{
	if (event_base_dispatch(s->base) < 0)
		return errmsg_set(em, DB_IO, "the event loop failed");
	note_supervisor(s, TIMELINE_SUPERVISOR_STOP, "every node has ended");
	write_roster(s);
	return DB_OK;
}

static void free_event(struct event *ev)
{
	if (ev != NULL)
		event_free(ev);
}

void supervisor_free(struct supervisor *s)
{
	unsigned n;

	if (s == NULL)
		return;
	control_free(s->control);
	service_manager_free(s->service_manager);
	metrics_free(s->metrics);
	housekeeping_free(s->housekeeping);
	for (n = 0; n < CLUSTER_NODES_MAX; n++)
		managed_fini(&s->nodes[n]);
	free_event(s->control_event);
	free_event(s->tick_event);
	free_event(s->roster_event);
	free_event(s->replace_event);
	free_event(s->mail_event);
	free_event(s->term_event);
	free_event(s->int_event);
	free_event(s->hup_event);
	mailbox_free(s->mailbox);
	if (s->base != NULL)
		event_base_free(s->base);
	cluster_free(s->cluster);
	timeline_close(s->timeline);
	if (s->coordinator_is_open)
		coordinator_close(&s->coordinator);
	if (s->endpoint_fd >= 0)
		close(s->endpoint_fd);
	free(s);
}

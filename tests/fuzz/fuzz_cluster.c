/*
 * fuzz_cluster.c - the supervisor's core, and its answers on the control port, against nodes and clients that say anything.
 *
 * The first byte chooses. Core: a list of events, the nodes' answers among them as well-formed messages with any content;
 * what the core wants done must keep its promises all the same: terms are stored before they are announced, only ever grow
 * and never run out, no term has two promotions, nobody but a process that runs is spoken to or killed, and the view can
 * always be shown as JSON and as text. Answers: any text as a client's request, whose answer is JSON; any text as the
 * supervisor's answer, which a command line shows or refuses.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/wire.h"
#include "supervisor/answers.h"
#include "supervisor/cluster.h"
#include "supervisor/status_json.h"
#include "tests/fuzz/fuzz.h"

struct world {
	struct cluster *c;
	struct cluster_config config;
	unsigned node_count;
	uint64_t now_ms;
	uint64_t persisted_term, promoted_term;
	bool persist_fails, stopped;
	unsigned depth; /* steps within steps */
	struct {
		bool running;
		uint32_t seq;
		uint64_t term; /* of the last request */
	} nodes[CLUSTER_NODES_MAX];
	struct answers answers;
};

static struct wire_msg msg, decoded; /* large */

static void step(struct world *w, const struct cluster_event *ev);

/* ---- what the core wants done */

static void do_send(struct world *w, const struct cluster_action *a)
{
	FUZZ_CHECK(w->nodes[a->node].running && a->u.send.seq != 0 && a->u.send.timeout_ms > 0);
	if (a->u.send.type == WIRE_SET_TERM || a->u.send.type == WIRE_PROMOTE)
		FUZZ_CHECK(a->u.send.term <= w->persisted_term && a->u.send.term <= WIRE_TERM_MAX);
	if (a->u.send.type == WIRE_PROMOTE) {
		FUZZ_CHECK(a->u.send.term > w->promoted_term);
		w->promoted_term = a->u.send.term;
	}
	w->nodes[a->node].seq = a->u.send.seq;
	w->nodes[a->node].term = a->u.send.term;
}

/* True: it could not be stored. */
static bool do_persist(struct world *w, const struct cluster_action *a)
{
	if (w->persist_fails)
		return true;
	FUZZ_CHECK(a->u.persist.term >= w->persisted_term && a->u.persist.term <= WIRE_TERM_MAX);
	w->persisted_term = a->u.persist.term;
	return false;
}

static void do_spawn(struct world *w, const struct cluster_action *a)
{
	FUZZ_CHECK(!w->nodes[a->node].running && !w->stopped);
	w->nodes[a->node].running = true;
	w->nodes[a->node].seq = 0;
	if (a->u.as_master) {
		FUZZ_CHECK(w->promoted_term == 0 && w->persisted_term == 1);
		w->promoted_term = 1;
	}
}

static void carry_out(struct world *w, const struct cluster_actions *actions)
{
	const struct cluster_event failed = {.type = CLUSTER_PERSIST_FAILED};
	bool lost = false;
	size_t i;

	FUZZ_CHECK(actions->count <= CLUSTER_ACTIONS_MAX);
	for (i = 0; i < actions->count; i++) {
		const struct cluster_action *a = &actions->items[i];

		FUZZ_CHECK(strnlen(a->text, sizeof(a->text)) < sizeof(a->text));
		if (a->type <= CLUSTER_PROBE)
			FUZZ_CHECK(a->node < w->node_count);
		if (a->type == CLUSTER_SPAWN)
			do_spawn(w, a);
		else if (a->type == CLUSTER_SEND && !lost)
			do_send(w, a);
		else if (a->type == CLUSTER_KILL || a->type == CLUSTER_PROBE)
			FUZZ_CHECK(w->nodes[a->node].running);
		else if (a->type == CLUSTER_PERSIST)
			lost = do_persist(w, a);
		else if (a->type == CLUSTER_STOPPED)
			w->stopped = true;
		else if (a->type == CLUSTER_SWITCHOVER_DONE)
			answers_switchover_done(&w->answers, a->u.ok, a->text);
	}
	if (lost)
		step(w, &failed);
}

static void step(struct world *w, const struct cluster_event *ev)
{
	static struct cluster_actions actions[4]; /* large */

	FUZZ_CHECK(w->depth < sizeof(actions) / sizeof(actions[0]));
	cluster_step(w->c, ev, w->now_ms, &actions[w->depth]);
	w->depth++;
	carry_out(w, &actions[w->depth - 1]);
	w->depth--;
}

/* ---- events */

static void fill_status(struct world *w, unsigned n, struct fuzz_in *in, struct wire_node_status *s)
{
	uint8_t flags = in_u8(in);

	memset(s, 0, sizeof(*s));
	s->role = flags & 1 ? WIRE_ROLE_MASTER : WIRE_ROLE_REPLICA;
	s->state = (enum wire_node_state)(1 + (flags >> 1 & 7) % 5);
	s->accepted = (flags & 16) == 0;
	s->ready = (flags & 32) == 0;
	s->draining = (flags & 64) != 0;
	s->promised_term = in_number(in, w->nodes[n].term);
	s->last.term = in_number(in, s->promised_term);
	s->last.lsn = in_number(in, 5);
	s->durable_lsn = in_number(in, s->last.lsn);
	s->committed_lsn = in_number(in, s->last.lsn);
	s->applied_lsn = s->committed_lsn;
	s->lag_ms = in_number(in, 0);
	snprintf(s->reason, sizeof(s->reason), "%s", flags & 128 ? "\xff\"\\ told so" : "");
}

static void reply(struct world *w, unsigned n, struct fuzz_in *in)
{
	struct cluster_event ev = {.type = CLUSTER_REPLY, .node = n};
	struct errmsg em = {0};
	struct buf b = {0};

	memset(&msg.head, 0, sizeof(msg.head));
	msg.head.type = WIRE_NODE_STATUS;
	fill_status(w, n, in, &msg.body.status);
	wire_encode(&b, &msg);
	FUZZ_CHECK(wire_decode(&decoded, b.data, b.len, NULL, &em) == DB_OK);
	buf_fini(&b);
	ev.u.reply.seq = (uint32_t)in_number(in, w->nodes[n].seq);
	ev.u.reply.status = &decoded.body.status;
	if (w->nodes[n].running)
		step(w, &ev);
}

static void node_event(struct world *w, enum cluster_event_type type, unsigned n, struct fuzz_in *in)
{
	struct cluster_event ev = {.type = type, .node = n};

	if (!w->nodes[n].running)
		return;
	if (type == CLUSTER_NODE_EXITED) {
		ev.u.exited.code = (int8_t)in_u8(in);
		ev.u.exited.signal = ev.u.exited.code < 0 ? 9 : 0;
		ev.u.exited.why = in_u8(in) % 4 == 3 ? "no such file" : NULL;
		w->nodes[n].running = false;
	} else if (type == CLUSTER_NO_REPLY) {
		ev.u.reply.seq = (uint32_t)in_number(in, w->nodes[n].seq);
	} else {
		ev.u.advancing = in_u8(in) % 2 == 0;
	}
	step(w, &ev);
}

static void pass_time(struct world *w, struct fuzz_in *in)
{
	const struct cluster_event tick = {.type = CLUSTER_TICK};
	uint64_t wake_ms = cluster_wake_ms(w->c);
	uint8_t how = in_u8(in);

	if (how < 128 && wake_ms != UINT64_MAX && wake_ms > w->now_ms)
		w->now_ms = wake_ms;
	else
		w->now_ms += (uint64_t)(how & 127) * 8;
	step(w, &tick);
}

/* ---- what is shown */

static void feed(void *arg, const struct cluster_event *ev)
{
	step(arg, ev);
}

static void get_pids(void *arg, pid_t *pids)
{
	struct world *w = arg;
	unsigned n;

	for (n = 0; n < w->node_count; n++)
		pids[n] = w->nodes[n].running ? 1000 + (pid_t)n : 0;
}

static void check_json(const struct buf *b)
{
	json_error_t why;
	json_t *json = json_loadb((const char *)b->data, b->len, 0, &why);

	FUZZ_CHECK(!b->failed && json_is_object(json));
	json_decref(json);
}

static void ask(struct world *w, const char *text, size_t len, struct buf *out)
{
	answers_command(&w->answers, text, len, out);
	check_json(out);
}

static void check_view(struct world *w)
{
	static const char request[] = "{\"command\":\"status\"}";
	struct buf out = {0}, lines = {0};
	struct cluster_view view;
	struct errmsg em = {0};

	cluster_view(w->c, &view);
	FUZZ_CHECK(view.term <= WIRE_TERM_MAX && view.node_count == w->node_count);
	FUZZ_CHECK(view.master == CLUSTER_NOBODY || (view.master < w->node_count && view.reason[0] == '\0'));
	ask(w, request, strlen(request), &out);
	FUZZ_CHECK(status_text_put(&lines, (const char *)out.data, out.len, &em) == DB_OK && lines.len > 0);
	buf_fini(&out);
	buf_fini(&lines);
}

/* ---- the two kinds of input */

static void begin(struct world *w, struct fuzz_in *in)
{
	struct cluster_event ev = {.type = CLUSTER_BEGIN};
	struct cluster_options options = {.interval_ms = 100, .misses = 3};
	struct errmsg em = {0};
	uint8_t how = in_u8(in);
	unsigned n;

	memset(w, 0, sizeof(*w));
	w->node_count = options.node_count = 1 + (how & 7) % 5;
	config_init(&w->config);
	w->config.replicas = w->node_count - 1;
	options.ack_nodes = config_ack_nodes(&w->config);
	options.async = (how & 8) != 0;
	options.term = how & 16 ? in_number(in, 7) % (CLUSTER_TERM_MAX + 2) : 0;
	w->persisted_term = w->promoted_term = options.term;
	w->now_ms = 1000;
	if (cluster_create(&w->c, &options, &em) != DB_OK) {
		FUZZ_CHECK(w->c == NULL && em.text[0] != '\0');
		return;
	}
	w->answers =
	    (struct answers){.cluster = w->c, .config = &w->config, .feed = feed, .get_pids = get_pids, .arg = w};
	ev.u.begin.first_start = options.term == 0 && (how & 32) != 0;
	for (n = 0; n < w->node_count && !ev.u.begin.first_start; n++) {
		if (in_u8(in) % 2 == 0)
			continue;
		w->nodes[n].running = true;
		ev.u.begin.adopted |= 1u << n;
		ev.u.begin.answered |= (how & 64 ? 1u : 0u) << n;
	}
	step(w, &ev);
}

static void fuzz_core(struct fuzz_in *in)
{
	const struct cluster_event stop = {.type = CLUSTER_STOP};
	struct cluster_event ev = {.type = CLUSTER_SWITCHOVER};
	struct world w;
	uint8_t op;
	unsigned n;

	begin(&w, in);
	while (in->left > 0 && w.c != NULL && !w.stopped) {
		op = in_u8(in);
		n = (op >> 4) % w.node_count;
		switch (op & 15) {
		case 8:
			node_event(&w, CLUSTER_NODE_EXITED, n, in);
			break;
		case 9:
			node_event(&w, CLUSTER_NO_REPLY, n, in);
			break;
		case 10:
			node_event(&w, CLUSTER_PROGRESS, n, in);
			break;
		case 11:
			w.persist_fails = in_u8(in) % 2 == 1;
			break;
		case 12:
			ev.node = op >> 7 ? CLUSTER_NOBODY : n;
			step(&w, &ev);
			break;
		case 13:
			if (in_u8(in) == 0)
				step(&w, &stop);
			break;
		case 14:
		case 15:
			pass_time(&w, in);
			break;
		default:
			reply(&w, n, in);
		}
	}
	if (w.c != NULL)
		check_view(&w);
	cluster_free(w.c);
}

static void fuzz_texts(struct fuzz_in *in)
{
	static const uint8_t three[] = {0x22, 0xe, 0};
	struct fuzz_in how = {three, sizeof(three)};
	struct errmsg em = {0};
	struct buf lines = {0};
	struct world w;

	begin(&w, &how);
	if (status_text_put(&lines, (const char *)in->p, in->left, &em) != DB_OK)
		FUZZ_CHECK(em.text[0] != '\0');
	buf_fini(&lines);
	ask(&w, (const char *)in->p, in->left, &lines);
	buf_fini(&lines);
	cluster_free(w.c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};

	if (in_u8(&in) % 4u == 0)
		fuzz_texts(&in);
	else
		fuzz_core(&in);
	return 0;
}

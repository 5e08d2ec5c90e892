/* metrics.c - see metrics.h. */
#include "supervisor/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/metrics_text.h"

#define LOOK_MS  200  /* how soon the file follows what happens */
#define WRITE_MS 5000 /* how often it is written at least */

/* Outages: a failover takes tens of milliseconds, one that somebody should look at takes seconds. */
static const struct histogram_scale outage_us = {.count = 14,
						 .bounds = {5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000,
							    2000000, 5000000, 10000000, 30000000, 60000000, 300000000}};

struct metrics {
	struct metrics_options options;
	struct event *timer;
	bool changed; /* since the file was written */
	bool failing; /* it could not be written, which was logged */
	bool switching;
	uint64_t written_ms;
	struct histogram failover_outages, switchover_outages;
	uint64_t kinds[TIMELINE_KIND_COUNT]; /* how often each event was noted */
};

void metrics_note(struct metrics *m, const struct timeline_note *note)
{
	if (m == NULL)
		return;
	m->kinds[note->kind]++;
	m->changed = true;
	if (note->kind == TIMELINE_SWITCHOVER_BEGIN)
		m->switching = true;
	else if (note->kind == TIMELINE_SWITCHOVER_FAILED || note->kind == TIMELINE_MASTER_LOST)
		m->switching = false;
	if (note->kind != TIMELINE_MASTER_READY || note->outage_ms == TIMELINE_NONE)
		return;
	histogram_add(m->switching ? &m->switchover_outages : &m->failover_outages, &outage_us, note->outage_ms * 1000,
		      1);
	m->switching = false;
}

/* ---- the text */

static void put_nodes(struct metrics_text *t, const struct cluster *c, unsigned count, uint64_t now_ms)
{
	struct cluster_node_view view;
	char label[32];
	unsigned n, pass;

	for (pass = 0; pass < 3; pass++) {
		if (pass == 0)
			metrics_family(t, "supervisor_node_up", "gauge", "1 when the member is up, by its heartbeats.");
		else if (pass == 1)
			metrics_family(t, "supervisor_node_restarts_total", "counter",
				       "Restarts of the member's process.");
		else
			metrics_family(t, "supervisor_node_voting", "gauge",
				       "1 when the member counts for quorums and elections.");
		for (n = 0; n < count; n++) {
			if (!members_present(cluster_members(c)->entries[n].state))
				continue;
			cluster_node_view(c, n, now_ms, &view);
			snprintf(label, sizeof(label), "member=\"node%u\"", n + 1);
			metrics_sample(t, label,
				       pass == 0   ? strcmp(view.state, "up") == 0
				       : pass == 1 ? view.restarts
						   : view.voting);
		}
	}
}

static void put_events(struct metrics_text *t, const struct metrics *m)
{
	static const char *const names[] = {
#define X(kind, name) name,
	    TIMELINE_KINDS(X)
#undef X
	};
	char label[64];
	size_t i;

	metrics_family(t, "supervisor_events_total", "counter",
		       "Events of the timeline since the supervisor was started, by kind.");
	for (i = 0; i < TIMELINE_KIND_COUNT; i++) {
		snprintf(label, sizeof(label), "event=\"%s\"", names[i]);
		metrics_sample(t, label, m->kinds[i]);
	}
}

static void put_text(struct buf *out, const struct metrics *m, uint64_t now_ms)
{
	struct metrics_text t = {.out = out, .labels = ""};
	struct cluster_view view;

	cluster_view(m->options.cluster, &view);
	metrics_one(&t, "supervisor_seen_timestamp_seconds", "gauge",
		    "When the supervisor last wrote these figures, in seconds since 1970.", clock_wall_us() / 1000000);
	metrics_one(&t, "supervisor_has_master", "gauge", "1 while a master serves.", view.master != CLUSTER_NOBODY);
	metrics_one(&t, "supervisor_term", "gauge", "The newest term that the supervisor has stored.", view.term);
	metrics_one(&t, "supervisor_failovers_total", "counter", "Outages by the loss of a master, ever.",
		    view.failovers);
	metrics_family(&t, "supervisor_outage_seconds", "histogram",
		       "How long nobody served, from the loss being noticed (a switchover: from writes being held).");
	metrics_histogram(&t, "cause=\"failover\"", &m->failover_outages, &outage_us, true);
	metrics_histogram(&t, "cause=\"switchover\"", &m->switchover_outages, &outage_us, true);
	put_nodes(&t, m->options.cluster, view.node_count, now_ms);
	put_events(&t, m);
}

/* ---- the file */

static enum db_err write_file(const struct buf *text, struct errmsg *em)
{
	static const char temp[] = METRICS_PATH ".new";
	enum db_err err = DB_OK;
	int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		return errmsg_errno(em, errno, "cannot create \"%s\"", temp);
	if (write(fd, text->data, text->len) != (ssize_t)text->len)
		err = errmsg_errno(em, errno, "cannot write \"%s\"", temp);
	close(fd);
	if (err == DB_OK && rename(temp, METRICS_PATH) != 0)
		err = errmsg_errno(em, errno, "cannot rename \"%s\"", temp);
	return err;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct metrics *m = arg;
	uint64_t now_ms = clock_mono_ms();
	struct errmsg em = {0};
	struct buf text = {0};
	enum db_err err;

	(void)fd;
	(void)what;
	if (!m->changed && m->written_ms != 0 && now_ms - m->written_ms < WRITE_MS)
		return;
	put_text(&text, m, now_ms);
	err = text.failed ? errmsg_set(&em, DB_NOMEM, "no memory for the metrics") : write_file(&text, &em);
	if (err != DB_OK && !m->failing)
		log_error("the nodes do not show the supervisor's metrics: %s", em.text);
	m->failing = err != DB_OK;
	m->changed = false;
	m->written_ms = now_ms;
	buf_fini(&text);
}

enum db_err metrics_create(struct metrics **out, const struct metrics_options *options, struct errmsg *em)
{
	const struct timeval every = {0, LOOK_MS * 1000};
	struct metrics *m = calloc(1, sizeof(*m));

	*out = NULL;
	if (m == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for the metrics");
	m->options = *options;
	m->timer = event_new(options->base, -1, EV_PERSIST, on_timer, m);
	if (m->timer == NULL || event_add(m->timer, &every) != 0) {
		metrics_free(m);
		return errmsg_set(em, DB_NOMEM, "cannot set up the event loop");
	}
	*out = m;
	return DB_OK;
}

void metrics_free(struct metrics *m)
{
	if (m == NULL)
		return;
	if (m->timer != NULL)
		event_free(m->timer);
	if (unlink(METRICS_PATH) != 0 && errno != ENOENT)
		log_warn("\"%s\" cannot be removed: %s", METRICS_PATH, strerror(errno));
	free(m);
}

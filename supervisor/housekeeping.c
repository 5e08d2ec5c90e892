/* housekeeping.c - see housekeeping.h. */
#include "supervisor/housekeeping.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "supervisor/datadir.h"
#include "supervisor/ledger.h"
#include "supervisor/refusal.h"
#include "supervisor/salvage_list.h"

#define ROUND_MS             250
#define ENDPOINT_PATIENCE_MS 5000u

struct housekeeping {
	struct housekeeping_options options;
	struct event *timer;
	struct ledger *ledger;              /* NULL: it cannot be written */
	struct refusal *refusal;            /* NULL: there is no endpoint */
	uint64_t absent_ms;                 /* since when there has been no master; 0: there is one */
	bool failing;                       /* run/no-master could not be written, which was logged */
	char told[CLUSTER_REASON_MAX];      /* what it says; empty: it is not there */
	uint64_t stamps[CLUSTER_NODES_MAX]; /* of the salvage directories */
	char noted[CLUSTER_NODES_MAX][160]; /* the newest salvage file that the timeline knows */
};

/* ---- run/no-master */

static enum db_err write_reason(const char *reason, struct errmsg *em)
{
	static const char temp[] = DATADIR_NO_MASTER ".new";
	size_t len = strlen(reason);
	enum db_err err = DB_OK;
	int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		return errmsg_errno(em, errno, "cannot create \"%s\"", temp);
	if (write(fd, reason, len) != (ssize_t)len)
		err = errmsg_errno(em, errno, "cannot write \"%s\"", temp);
	close(fd);
	if (err == DB_OK && rename(temp, DATADIR_NO_MASTER) != 0)
		err = errmsg_errno(em, errno, "cannot rename \"%s\"", temp);
	return err;
}

static void tell_reason(struct housekeeping *h, const char *reason)
{
	struct errmsg em = {0};
	enum db_err err = DB_OK;

	if (strcmp(reason, h->told) == 0)
		return;
	if (reason[0] != '\0')
		err = write_reason(reason, &em);
	else if (unlink(DATADIR_NO_MASTER) != 0 && errno != ENOENT)
		err = errmsg_errno(&em, errno, "cannot remove \"%s\"", DATADIR_NO_MASTER);
	if (err != DB_OK && !h->failing)
		log_error("the nodes are not told why there is no master: %s", em.text);
	h->failing = err != DB_OK;
	if (err == DB_OK)
		snprintf(h->told, sizeof(h->told), "%s", reason);
}

/* ---- salvaged tails */

static void note_file(struct housekeeping *h, unsigned n, const struct salvage_file *f)
{
	struct timeline_note note = timeline_note_of(TIMELINE_SALVAGE);
	char what[200];
	char text[CLUSTER_TEXT_MAX + 200];

	salvage_describe(f, what, sizeof(what));
	snprintf(text, sizeof(text), "%s: %s", f->path, what);
	note.last.lsn = f->last_lsn;
	timeline_append(h->options.timeline, &note, n, text);
	log_warn("node%u had what the cluster lacks: %s", n + 1, text);
}

/* Names begin with the time: what sorts behind the last one noted is new. */
static void look_at_salvage(struct housekeeping *h, unsigned n, bool tell)
{
	struct salvage_files *files = malloc(sizeof(*files));
	struct errmsg em = {0};
	size_t i;

	if (files == NULL || salvage_list(files, n, &em) != DB_OK) {
		log_error("salvaged tails of node%u: %s", n + 1, files == NULL ? "no memory" : em.text);
		free(files);
		return;
	}
	for (i = 0; i < files->count; i++) {
		if (strcmp(files->items[i].path, h->noted[n]) <= 0)
			continue;
		snprintf(h->noted[n], sizeof(h->noted[n]), "%s", files->items[i].path);
		if (tell)
			note_file(h, n, &files->items[i]);
	}
	free(files);
}

static void watch_salvage(struct housekeeping *h)
{
	uint64_t stamp;
	unsigned n;

	for (n = 0; n < h->options.node_count; n++) {
		stamp = salvage_stamp(n);
		if (stamp == h->stamps[n])
			continue;
		h->stamps[n] = stamp;
		look_at_salvage(h, n, true);
	}
}

/* ---- the round */

static void note_positions(struct housekeeping *h, uint64_t now_ms)
{
	struct cluster_node_view view;
	unsigned n;

	for (n = 0; n < h->options.node_count && h->ledger != NULL; n++) {
		cluster_node_view(h->options.cluster, n, now_ms, &view);
		if (view.answered)
			ledger_note(
			    h->ledger, n,
			    &(struct ledger_entry){.last = view.status.last,
						   .committed_lsn = view.status.committed_lsn,
						   .seen_us = clock_wall_us() - (now_ms - view.heard_ms) * 1000});
	}
}

static bool has_no_master(void *arg)
{
	const struct housekeeping *h = arg;
	struct cluster_view view;

	cluster_view(h->options.cluster, &view);
	return view.master == CLUSTER_NOBODY;
}

static void on_round(evutil_socket_t fd, short what, void *arg)
{
	struct housekeeping *h = arg;
	uint64_t now_ms = clock_mono_ms();
	char reason[CLUSTER_REASON_MAX];

	(void)fd;
	(void)what;
	cluster_reason(h->options.cluster, now_ms, reason, sizeof(reason));
	if (reason[0] == '\0')
		h->absent_ms = 0;
	else if (h->absent_ms == 0)
		h->absent_ms = now_ms;
	tell_reason(h, reason);
	refusal_set(h->refusal, h->absent_ms > 0 && now_ms - h->absent_ms >= ENDPOINT_PATIENCE_MS ? reason : NULL);
	watch_salvage(h);
	note_positions(h, now_ms);
}

/* ---- life */

enum db_err housekeeping_create(struct housekeeping **out, const struct housekeeping_options *options,
				struct errmsg *em)
{
	const struct timeval every = {0, ROUND_MS * 1000};
	struct housekeeping *h = calloc(1, sizeof(*h));
	const struct refusal_options refusal = {
	    .base = options->base, .listen_fd = options->endpoint_fd, .wanted = has_no_master, .arg = h};
	struct errmsg ledger_em = {0};
	enum db_err err = DB_OK;
	unsigned n;

	*out = NULL;
	if (h == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for housekeeping");
	h->options = *options;
	if (unlink(DATADIR_NO_MASTER) != 0 && errno != ENOENT)
		log_error("\"%s\" of an earlier supervisor cannot be removed: %s", DATADIR_NO_MASTER, strerror(errno));
	if (ledger_create(&h->ledger, options->node_count, &ledger_em) != DB_OK)
		log_error("%s", ledger_em.text); /* only an estimate is lost */
	for (n = 0; n < options->node_count; n++)
		look_at_salvage(h, n, false);
	if (options->endpoint_fd >= 0)
		err = refusal_create(&h->refusal, &refusal, em);
	h->timer = event_new(options->base, -1, EV_PERSIST, on_round, h);
	if (err == DB_OK && (h->timer == NULL || event_add(h->timer, &every) != 0))
		err = errmsg_set(em, DB_NOMEM, "cannot set up the event loop");
	if (err != DB_OK) {
		housekeeping_free(h);
		return err;
	}
	*out = h;
	return DB_OK;
}

void housekeeping_free(struct housekeeping *h)
{
	if (h == NULL)
		return;
	if (h->timer != NULL)
		event_free(h->timer);
	if (h->ledger != NULL)
		note_positions(h, clock_mono_ms());
	refusal_free(h->refusal);
	ledger_free(h->ledger);
	free(h);
}

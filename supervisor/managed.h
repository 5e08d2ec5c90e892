/*
 * managed.h - one node's process as the supervisor's loop holds it: the process, the link to it, the watch on its end.
 *
 * Everything on the loop thread.
 */
#ifndef GRIZZLY_SUPERVISOR_MANAGED_H
#define GRIZZLY_SUPERVISOR_MANAGED_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/members.h"
#include "common/wire/link.h"
#include "supervisor/launcher.h"
#include "supervisor/progress.h"

struct managed {
	unsigned index;            /* from 0 */
	struct event_base *base;   /* borrowed */
	event_callback_fn on_exit; /* of the pidfd; its argument is this */
	void *owner;               /* for on_exit */
	struct process process;    /* pidfd -1: none runs */
	struct link_req *link;     /* to this very process: made new for each, so that no request outlives it */
	struct event *exit_event;
	uint64_t started_us;
	bool answered;
	struct progress_sample sample; /* of the last managed_probe() */
	char said[256];                /* its last words, for the event of its end */
	char why[ERRMSG_TEXT_MAX];     /* why it could not be started, for the queued event */
};

struct managed_start {
	const char *program;
	bool as_master;
	uint64_t term; /* as_master: of which term */
	const char *data_dir;
	const struct members_entry *entry; /* its ports */
	unsigned members;                  /* of the cluster */
	int listen_fd;
};

/* Begins to watch m->process and to talk to it. */
enum db_err managed_attach(struct managed *m, struct errmsg *em);
/* Starts a process; whatever else has the node's socket is killed first, and the start fails with DB_BUSY. */
enum db_err managed_start(struct managed *m, const struct managed_start *start, struct errmsg *em);
/* Reads and removes what the process that has just ended left as its reason (node/last_words.h); NULL: nothing. */
const char *managed_last_words(struct managed *m);
void managed_release(struct managed *m); /* lets go of the process; the link stays until the next one */
void managed_fini(struct managed *m);
/* Takes a sample of the process. Did it work since the one before? */
bool managed_probe(struct managed *m);

#endif

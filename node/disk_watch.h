/*
 * disk_watch.h - what a node knows about its disk: does it complete writes, and is there room left.
 *
 * Owns the disk's pulse (common/base/pulse.h), which the log is told to feed, and a thread that looks around a few times
 * a second. When nothing was synced for probe_ms it overwrites and syncs a small file of its own, <dir>/probe: an idle
 * node proves as well as a busy one that its disk works, and neither the log's content nor its syncs are touched. The
 * thread may hang with the disk; nobody waits for it, the marks are read without it.
 *
 * Errors: a probe that fails is told in the report and tried again; a full disk is no failure of a probe.
 */
#ifndef GRIZZLY_NODE_DISK_WATCH_H
#define GRIZZLY_NODE_DISK_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/pulse.h"

struct disk_watch;

struct disk_watch_options {
	const char *dir;          /* the node's; borrowed */
	uint64_t probe_ms;        /* without a sync for so long the disk is tried */
	uint64_t low_space_bytes; /* the mark; 0: none */
};

struct disk_report {
	uint64_t age_ms;               /* since something was last made durable */
	uint64_t busy_ms;              /* how long the oldest operation has been under way; 0: none */
	uint64_t free_bytes;           /* as of the last look; UINT64_MAX: not known yet */
	uint64_t low_space_bytes;      /* the mark */
	bool low_space;                /* below it, and not well above it since */
	char failure[ERRMSG_TEXT_MAX]; /* of the last probe; empty: it succeeded */
};

/* Nothing runs yet, so that the pulse can be handed to the store before its directory exists. DB_NOMEM. */
enum db_err disk_watch_create(struct disk_watch **out, const struct disk_watch_options *options, struct errmsg *em);
/* Looks once, and starts the thread. DB_IO, DB_NOMEM. */
enum db_err disk_watch_start(struct disk_watch *w, struct errmsg *em);
/* Ends the thread; one that hangs with the disk is left behind, with what it uses. NULL is fine. */
void disk_watch_free(struct disk_watch *w);

struct disk_pulse *disk_watch_pulse(struct disk_watch *w);
bool disk_watch_is_low(struct disk_watch *w);                              /* any thread, one atomic load */
void disk_watch_get_report(struct disk_watch *w, struct disk_report *out); /* any thread; never waits for the disk */
/* What a client whose write is refused for want of space is told, and status. */
void disk_watch_say_low(const struct disk_report *report, char *text, size_t size);

#endif

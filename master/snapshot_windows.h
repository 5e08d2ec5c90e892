/*
 * snapshot_windows.h - which pages of a snapshot a replica lacks, asked for some thousand pages at a time.
 *
 * The sender offers a window of pages by their hashes, the replica answers which of them it wants: it may have most of
 * them, from its old store or from an attempt that a lost connection cut short. Two windows are under way, so that the
 * next answer comes while the pages of the last one are being sent. (rsync compares in this way, by block sums.)
 *
 * A pure core, part of master/walsender.c. Invariant: windows are offered, and their pages taken, in order of pages.
 */
#ifndef GRIZZLY_MASTER_SNAPSHOT_WINDOWS_H
#define GRIZZLY_MASTER_SNAPSHOT_WINDOWS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/wire/wire.h"

#define SNAPSHOT_WINDOWS_OPEN 2u

struct snapshot_window {
	uint32_t first_pgno;
	uint32_t count;
	uint32_t next; /* offset of the first page not looked at yet */
	bool answered;
	uint8_t want[WIRE_WINDOW_PAGES / 8];
};

struct snapshot_windows {
	uint32_t size_pages;
	uint32_t offered; /* pages offered so far */
	uint32_t taken;   /* pages handed out to be sent */
	unsigned first, open;
	struct snapshot_window ring[SNAPSHOT_WINDOWS_OPEN];
};

void snapshot_windows_init(struct snapshot_windows *s, uint32_t size_pages);
/* The next window to offer. False: enough are under way, or all were offered. */
bool snapshot_windows_offer(struct snapshot_windows *s, uint32_t *first_pgno, uint32_t *count);
/* False: it answers no window that is under way and unanswered. */
bool snapshot_windows_answer(struct snapshot_windows *s, const struct wire_snapshot_want *want);
/* The next run of at most max neighbouring pages to send. False: none before another answer, or at all. */
bool snapshot_windows_take(struct snapshot_windows *s, uint32_t max, uint32_t *first_pgno, uint32_t *count);
/* Every page was offered, and those wanted were taken. */
bool snapshot_windows_done(const struct snapshot_windows *s);

#endif

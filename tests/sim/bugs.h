/*
 * bugs.h - faults planted on purpose, to show that the simulator would find them.
 *
 * The simulator compiles the product's cores itself, with GRIZZLY_SIM_BUGS defined (common/base/planted.h); no program
 * that is installed knows any of this. `sim --plant NAME` switches one on. bugs.c describes each.
 */
#ifndef GRIZZLY_TESTS_SIM_BUGS_H
#define GRIZZLY_TESTS_SIM_BUGS_H

#include <stdbool.h>
#include <stddef.h>

enum bug {
	BUG_NONE,
	BUG_ACK_BEFORE_SYNC,
	BUG_NO_TERM_CHECK,
	BUG_NO_QUORUM_INTERSECTION,
	BUG_CHECKPOINT_UNCOMMITTED,
	BUG_CUT_WRONG_LSN,
	BUG_TERM_NOT_STORED,
	BUG_COMMIT_OLD_TERM,
	BUG_REBUILDING_VOTES,
	BUG_READY_AT_ONCE,
	BUG_COUNT_NEW_MEMBERS,
	BUG_ELECT_NEW_MEMBERS,
	BUG_CHANGE_NOT_AWAITED,
	BUG_COUNT,
};

/* True when that one is switched on. */
bool bug_planted(enum bug bug);
void bug_plant(enum bug bug); /* BUG_NONE: none */

/* The name that --plant takes, and what it does, in words. */
const char *bug_name(enum bug bug);
const char *bug_text(enum bug bug);
/* BUG_NONE: there is no such name. */
enum bug bug_find(const char *name);

#endif

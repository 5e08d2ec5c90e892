/* bugs.c - see bugs.h. */
#include "tests/sim/bugs.h"

#include <string.h>

static enum bug planted; /* the one piece of state that the product's code can see, hence not in the world */

static const struct {
	const char *name, *text;
} bugs[BUG_COUNT] = {
    [BUG_NONE] = {"none", "no bug"},
    [BUG_ACK_BEFORE_SYNC] = {"ack-before-sync", "a replica acknowledges records before it has synced them"},
    [BUG_NO_TERM_CHECK] = {"no-term-check", "replicas and masters do not look at the term of a message"},
    [BUG_NO_QUORUM_INTERSECTION] = {"no-quorum-intersection", "an election decides with too few promises"},
    [BUG_CHECKPOINT_UNCOMMITTED] = {"checkpoint-uncommitted", "a checkpoint copies pages that are not committed"},
    [BUG_CUT_WRONG_LSN] = {"cut-wrong-lsn", "a replica cuts its log one record too early"},
    [BUG_TERM_NOT_STORED] = {"term-not-stored", "the supervisor announces a term before it is durable"},
    [BUG_COMMIT_OLD_TERM] = {"commit-old-term", "records of older terms commit before one of the own term"},
    [BUG_REBUILDING_VOTES] = {"rebuilding-votes", "a node that lost its log is counted in elections"},
    [BUG_READY_AT_ONCE] = {"ready-at-once", "a master answers reads before its term has committed anything"},
    [BUG_COUNT_NEW_MEMBERS] = {"count-new-members", "a master counts by the new voters only during a change"},
    [BUG_ELECT_NEW_MEMBERS] = {"elect-new-members", "an election asks the new voters only during a change"},
    [BUG_CHANGE_NOT_AWAITED] = {"change-not-awaited", "a change goes on before its versions are committed"},
};

bool bug_planted(enum bug bug)
{
	return planted == bug;
}

void bug_plant(enum bug bug)
{
	planted = bug;
}

const char *bug_name(enum bug bug)
{
	return bugs[bug].name;
}

const char *bug_text(enum bug bug)
{
	return bugs[bug].text;
}

enum bug bug_find(const char *name)
{
	int i;

	for (i = 1; i < BUG_COUNT; i++)
		if (strcmp(bugs[i].name, name) == 0)
			return (enum bug)i;
	return BUG_NONE;
}

/*
 * survey.h - what is left of each node, by its directory, while nothing runs; and what that means for a recovery.
 *
 * Opens every store as the node would at its start (a torn log tail is cut), one after the other, and compares with what
 * the ledger recorded while all was well. For the recover command, with the supervisor's lock held.
 */
#ifndef GRIZZLY_SUPERVISOR_SURVEY_H
#define GRIZZLY_SUPERVISOR_SURVEY_H

#include <stdbool.h>

#include "common/base/config.h"
#include "common/base/err.h"
#include "common/wal/record.h"
#include "supervisor/ledger.h"

enum survey_state {
	SURVEY_WHOLE,      /* its log can be counted on */
	SURVEY_REBUILDING, /* readable, but it may lack what was acknowledged: its rebuilding was not finished */
	SURVEY_WRONG,      /* it differed from its master's database */
	SURVEY_LOST,       /* there is nothing */
	SURVEY_DAMAGED,    /* it cannot be opened */
};

struct survey_node {
	enum survey_state state;
	struct wal_pos last; /* of what can be opened */
	uint64_t promised_term;
	char why[ERRMSG_TEXT_MAX]; /* LOST, DAMAGED */
};

struct survey {
	unsigned node_count;
	unsigned whole; /* how many can be counted on */
	unsigned best;  /* who would be the master; node_count: nobody can be */
	uint64_t term;  /* the highest that any trace names */
	struct survey_node nodes[CONFIG_NODES_MAX];
	struct ledger_book seen; /* when all was well */
	unsigned seen_best;      /* whose entry of it is the highest; node_count: there is none */
};

/* DB_BUSY: a node still has its store open. DB_IO, DB_NOMEM, DB_CORRUPT (of the supervisor's own files). */
enum db_err survey_take(struct survey *out, const struct cluster_config *config, struct errmsg *em);
/* For people, to stdout: the nodes, what survives, what may be missing. */
void survey_print(const struct survey *s);

#endif

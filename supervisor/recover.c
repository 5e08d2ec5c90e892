/*
 * recover.c - `grizzly-supervisor recover`: the way out when the quorum is gone for good.
 *
 * An election needs enough nodes that one of them certainly holds every acknowledged write. When those are lost there is
 * no safe way on, and waiting does not make one: a person has to say that what may be missing is to be given up. The
 * command shows what survives and what may be missing; with --accept-loss it sets the other nodes' directories aside
 * (never deletes them), marks their successors as not to be counted until they are rebuilt, and orders the next start to
 * make the best surviving node the master of a new term without an election (supervisor/recovery_mark.h).
 *
 * Nothing may run meanwhile. The order of the steps makes an interruption harmless: until the mark is there a start finds
 * a cluster that lacks its quorum as before, and the command can be given again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/audit.h"
#include "common/base/clock.h"
#include "common/store/dirs.h"
#include "node/standing.h"
#include "supervisor/adopt.h"
#include "supervisor/cluster.h"
#include "supervisor/commands.h"
#include "supervisor/coordinator.h"
#include "supervisor/recovery_mark.h"
#include "supervisor/survey.h"
#include "supervisor/timeline.h"

static enum exit_code fail(const struct errmsg *em)
{
	fprintf(stderr, "grizzly-supervisor: %s\n", em->text);
	return EXIT_FAILED;
}

/* ---- nothing may run */

static enum db_err check_nothing_runs(struct errmsg *em)
{
	struct process processes[CONFIG_NODES_MAX];
	struct roster *roster = calloc(1, sizeof(*roster));
	unsigned count;
	unsigned n;

	if (roster == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	for (n = 0; n < CONFIG_NODES_MAX; n++)
		processes[n] = PROCESS_NONE;
	count = adopt_running(processes, roster);
	for (n = 0; n < CONFIG_NODES_MAX; n++)
		process_close(&processes[n]);
	free(roster);
	if (count > 0)
		return errmsg_set(em, DB_BUSY,
				  "%u nodes run without a supervisor: stop them first, with grizzly-supervisor stop",
				  count);
	return DB_OK;
}

static enum db_err lock(int *lock_fd, const char *data_dir, struct errmsg *em)
{
	pid_t holder;
	enum db_err err = datadir_prepare(em);

	if (err == DB_OK)
		err = datadir_lock(lock_fd, &holder, em);
	if (err == DB_BUSY)
		errmsg_set(em, DB_BUSY,
			   "the supervisor runs (pid %d): nodes that are only slow may still come back. When they will "
			   "not, stop it first: grizzly-supervisor stop --data-dir %s",
			   (int)holder, data_dir);
	return err == DB_OK ? check_nothing_runs(em) : err;
}

/* ---- carrying it out */

static enum db_err rename_aside(unsigned n, const char *stamp, struct errmsg *em)
{
	char dir[16];
	char aside[64];

	snprintf(dir, sizeof(dir), "node%u", n + 1);
	snprintf(aside, sizeof(aside), "node%u.lost-%s", n + 1, stamp);
	if (rename(dir, aside) == 0) {
		printf("\"%s\" is now \"%s\"\n", dir, aside);
		return dirs_sync(".", em);
	}
	return errno == ENOENT ? DB_OK : errmsg_errno(em, errno, "cannot rename \"%s\"", dir);
}

/* Whoever is made anew does not count before it holds all that its master had. */
static enum db_err set_others_aside(const struct survey *s, struct errmsg *em)
{
	enum db_err err = DB_OK;
	char dir[16];
	char stamp[32];
	unsigned n;

	clock_format(stamp, sizeof(stamp), clock_wall_us(), "%Y%m%dT%H%M%SZ");
	for (n = 0; n < s->node_count && err == DB_OK; n++) {
		if (n == s->best)
			continue;
		snprintf(dir, sizeof(dir), "node%u", n + 1);
		err = standing_write(dir, STANDING_REBUILD, em);
		if (err == DB_OK)
			err = rename_aside(n, stamp, em);
	}
	return err;
}

/* No term that anybody has ever heard of is used again. */
static enum db_err raise_term(const struct survey *s, uint64_t *term, struct errmsg *em)
{
	struct coordinator_state state;
	struct coordinator k;
	enum db_err err = coordinator_open(&k, DATADIR_TERM, &state, em);

	if (err != DB_OK)
		return err;
	if (state.term < s->term)
		state.term = s->term;
	*term = state.term + 1;
	if (*term > CLUSTER_TERM_MAX)
		err = errmsg_set(em, DB_INVALID, "term %" PRIu64 " is out of range", *term);
	if (err == DB_OK)
		err = coordinator_store(&k, &state, em);
	coordinator_close(&k);
	return err;
}

static void note(const struct survey *s, uint64_t term)
{
	struct timeline_note note = timeline_note_of(TIMELINE_RECOVER);
	struct timeline *t = NULL;
	struct errmsg em = {0};
	uint64_t seen_lsn = s->seen_best < s->node_count ? s->seen.nodes[s->seen_best].last.lsn : 0;
	char text[200];

	note.term = term;
	note.last = s->nodes[s->best].last;
	snprintf(
	    text, sizeof(text),
	    "an operator accepted a loss: this node goes on alone, the others are made anew; the highest LSN known "
	    "was %" PRIu64,
	    seen_lsn);
	if (timeline_open(&t, &em) != DB_OK)
		fprintf(stderr, "grizzly-supervisor: %s\n", em.text);
	timeline_append(t, &note, s->best, text);
	timeline_close(t);
}

static enum db_err accept_loss(const struct survey *s, struct errmsg *em)
{
	const struct ledger_book nothing = {.node_count = s->node_count};
	uint64_t term = 0;
	enum db_err err;
	char dir[16];

	snprintf(dir, sizeof(dir), "node%u", s->best + 1);
	err = raise_term(s, &term, em);
	if (err == DB_OK)
		err = set_others_aside(s, em);
	if (err == DB_OK)
		err = standing_write(dir, STANDING_WHOLE, em);
	if (err == DB_OK)
		err = recovery_mark_write(s->best, em);
	if (err != DB_OK)
		return err;
	note(s, term);
	/* What is given up is no measure any more. The recovery does not depend on it. */
	if (ledger_write(&nothing, em) != DB_OK)
		fprintf(stderr, "grizzly-supervisor: %s\n", em->text);
	return DB_OK;
}

/* ---- the command */

static bool has_quorum(const struct survey *s, const struct cluster_config *config)
{
	const struct cluster_options o = {.node_count = s->node_count,
					  .ack_nodes = config_ack_nodes(config),
					  .async = config->durability == DURABILITY_ASYNC};

	return s->whole >= cluster_promises_needed(&o);
}

static enum db_err decide(const struct survey *s, const struct cluster_config *config, bool accept, bool *accepted,
			  struct errmsg *em)
{
	char by[AUDIT_BY_MAX];
	enum db_err err;

	*accepted = false;
	if (s->best == s->node_count)
		return errmsg_set(em, DB_NOTFOUND, "there is nothing to go on with");
	if (has_quorum(s, config))
		return errmsg_set(em, DB_INVALID,
				  "enough nodes survive for an election that loses nothing: start the cluster with "
				  "grizzly-supervisor run");
	if (!accept)
		return errmsg_set(
		    em, DB_INVALID,
		    "too few nodes survive to know that nothing is lost. If the others will never come back, "
		    "and what may be missing is to be given up: grizzly-supervisor recover --accept-loss");
	*accepted = true;
	err = accept_loss(s, em);
	audit_user(by, sizeof(by));
	audit_write("recover", "recover", "--accept-loss", by, err == DB_OK ? "ok" : em->text);
	return err;
}

enum exit_code command_recover(const char *data_dir, bool accept)
{
	struct survey *s = calloc(1, sizeof(*s));
	struct run_options run = {.data_dir = ".", .daemon = true};
	struct cluster_config config;
	struct errmsg em = {0};
	bool accepted = false;
	int lock_fd = -1;
	enum db_err err;

	err = s == NULL ? errmsg_set(&em, DB_NOMEM, "out of memory") : datadir_enter(data_dir, false, &em);
	if (err == DB_OK) {
		config_init(&config);
		err = config_load(&config, DATADIR_CONFIG, &em);
	}
	if (err == DB_OK)
		err = lock(&lock_fd, data_dir, &em);
	if (err == DB_OK)
		err = survey_take(s, &config, &em);
	if (err == DB_OK) {
		survey_print(s);
		fflush(stdout);
		err = decide(s, &config, accept, &accepted, &em);
	}
	if (lock_fd >= 0)
		close(lock_fd);
	free(s);
	if (err != DB_OK)
		return fail(&em);
	fflush(stdout);
	return accepted ? command_run(&run) : EXIT_OK;
}

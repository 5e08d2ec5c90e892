/* survey.c - see survey.h. */
#include "supervisor/survey.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/slotfile.h"
#include "common/store/store.h"
#include "node/standing.h"
#include "supervisor/datadir.h"

static const char *const state_names[] = {"whole", "rebuilding", "wrong", "lost", "damaged"};

/* ---- one node */

static enum db_err read_promise(struct survey_node *n, const char *dir, struct errmsg *em)
{
	struct slotfile f;
	char path[64];
	uint8_t bytes[8] = {0};
	size_t len;
	enum db_err err;

	snprintf(path, sizeof(path), "%s/term", dir);
	if (access(path, F_OK) != 0)
		return DB_OK; /* opening would make one */
	err = slotfile_open(&f, path, bytes, sizeof(bytes), &len, em);
	if (err != DB_OK)
		return err;
	n->promised_term = load_u64le(bytes);
	slotfile_close(&f);
	return DB_OK;
}

static enum db_err open_store(struct survey_node *n, const char *dir, const struct cluster_config *config,
			      struct errmsg *em)
{
	struct store_options options = {.dir = dir, .segment_size_bytes = config->store.segment_size_bytes};
	struct store_status status;
	struct store *store;
	enum db_err err;

	memcpy(options.cluster_id, config->cluster_id, sizeof(options.cluster_id));
	err = store_open(&store, &options, em);
	if (err != DB_OK)
		return err;
	store_get_status(store, &status);
	n->last = status.tip;
	store_close(store);
	return DB_OK;
}

/* DB_BUSY ends the survey; whatever else is wrong with a node is a finding. */
static enum db_err look_at(struct survey_node *n, const char *dir, const struct cluster_config *config,
			   struct errmsg *em)
{
	enum standing standing = STANDING_WHOLE;
	enum db_err err;

	if (standing_look(dir) == STANDING_STORE_NONE) {
		n->state = SURVEY_LOST;
		snprintf(n->why, sizeof(n->why), "\"%s\" is %s", dir, access(dir, F_OK) == 0 ? "empty" : "not there");
		return DB_OK;
	}
	err = standing_read(dir, &standing, em);
	if (err == DB_OK)
		err = read_promise(n, dir, em);
	if (err == DB_OK)
		err = standing_look(dir) == STANDING_STORE_NO_META
			  ? errmsg_set(em, DB_CORRUPT, "\"%s/store.meta\" is gone", dir)
			  : open_store(n, dir, config, em);
	if (err == DB_OK) {
		n->state = standing == STANDING_WRONG     ? SURVEY_WRONG
			   : standing == STANDING_REBUILD ? SURVEY_REBUILDING
							  : SURVEY_WHOLE;
	} else if (err != DB_BUSY) {
		n->state = SURVEY_DAMAGED;
		snprintf(n->why, sizeof(n->why), "%.480s", em->text);
		err = DB_OK;
	}
	return err;
}

/* ---- all of them */

/* A log that can be counted on before one that cannot, then the higher position, then the lower number. */
static bool better(const struct survey *s, unsigned n)
{
	const struct survey_node *a = &s->nodes[n];
	const struct survey_node *b = &s->nodes[s->best];

	if (a->state > SURVEY_REBUILDING)
		return false;
	if (s->best == s->node_count || a->state != b->state)
		return s->best == s->node_count || a->state < b->state;
	return wal_pos_cmp(a->last, b->last) > 0;
}

static void note_term(struct survey *s, uint64_t term)
{
	if (term > s->term)
		s->term = term;
}

enum db_err survey_take(struct survey *s, const struct cluster_config *config, struct errmsg *em)
{
	enum db_err err;
	char dir[16];
	unsigned n;

	memset(s, 0, sizeof(*s));
	/* Members may have been added since the configuration was written. */
	s->node_count =
	    datadir_last_node() > config_node_count(config) ? datadir_last_node() : config_node_count(config);
	s->best = s->seen_best = s->node_count;
	err = store_init_sqlite(em);
	if (err == DB_OK)
		err = ledger_read(&s->seen, em);
	if (err == DB_CORRUPT) {
		fprintf(stderr, "grizzly-supervisor: %s: how far the nodes were is not known\n", em->text);
		memset(&s->seen, 0, sizeof(s->seen));
		err = DB_OK;
	}
	for (n = 0; n < s->node_count && err == DB_OK; n++) {
		snprintf(dir, sizeof(dir), "node%u", n + 1);
		err = look_at(&s->nodes[n], dir, config, em);
		if (better(s, n))
			s->best = n;
		s->whole += s->nodes[n].state == SURVEY_WHOLE;
		note_term(s, s->nodes[n].promised_term);
		note_term(s, s->nodes[n].last.term);
		note_term(s, s->seen.nodes[n].last.term);
		if (s->seen.nodes[n].last.lsn > 0 &&
		    (s->seen_best == s->node_count ||
		     wal_pos_cmp(s->seen.nodes[n].last, s->seen.nodes[s->seen_best].last) > 0))
			s->seen_best = n;
	}
	return err;
}

/* ---- telling */

static void print_node(const struct survey *s, unsigned n)
{
	const struct survey_node *node = &s->nodes[n];
	const struct ledger_entry *seen = &s->seen.nodes[n];
	char time[40];

	printf("node%-3u  %-10s", n + 1, state_names[node->state]);
	if (node->state <= SURVEY_WRONG)
		printf("  at LSN %" PRIu64 " of term %" PRIu64, node->last.lsn, node->last.term);
	if (seen->last.lsn > 0) {
		clock_format(time, sizeof(time), seen->seen_us, "%Y-%m-%d %H:%M:%S UTC");
		printf("  had acknowledged up to LSN %" PRIu64 " of term %" PRIu64 " when last seen at %s",
		       seen->last.lsn, seen->last.term, time);
	}
	printf("%s%s\n", node->why[0] == '\0' ? "" : "  ", node->why);
}

static void print_missing(const struct survey *s)
{
	const struct wal_pos best = s->nodes[s->best].last;
	const struct ledger_entry *seen = s->seen_best < s->node_count ? &s->seen.nodes[s->seen_best] : NULL;
	char time[40];

	printf("\nThe best that survives is node%u, at LSN %" PRIu64 " of term %" PRIu64 ".\n", s->best + 1, best.lsn,
	       best.term);
	if (s->nodes[s->best].state == SURVEY_REBUILDING)
		printf("It was being rebuilt and may lack any number of acknowledged records.\n");
	if (seen == NULL) {
		printf("Nothing is recorded of where the others were: how much is missing cannot be said.\n");
		return;
	}
	clock_format(time, sizeof(time), seen->seen_us, "%Y-%m-%d %H:%M:%S UTC");
	if (wal_pos_cmp(seen->last, best) <= 0)
		printf("No node was known to be further. What was acknowledged after %s without it may be missing.\n",
		       time);
	else if (seen->last.lsn > best.lsn)
		printf("node%u was at LSN %" PRIu64 " of term %" PRIu64 " at %s: up to %" PRIu64
		       " records may be missing, and what was acknowledged after that.\n",
		       s->seen_best + 1, seen->last.lsn, seen->last.term, time, seen->last.lsn - best.lsn);
	else
		printf("node%u was in term %" PRIu64 " at %s: an unknown number of records may be missing.\n",
		       s->seen_best + 1, seen->last.term, time);
}

void survey_print(const struct survey *s)
{
	unsigned n;

	for (n = 0; n < s->node_count; n++)
		print_node(s, n);
	if (s->best < s->node_count)
		print_missing(s);
	else
		printf("\nNo node survives: restore a backup.\n");
}

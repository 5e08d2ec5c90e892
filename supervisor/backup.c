/*
 * backup.c - `grizzly-supervisor backup`: a consistent copy of the database in a file, from a node that runs, or with
 * --offline from the files of one that does not.
 *
 * Online it asks the nodes themselves: each for its status, then the best of them for GET /backup. A replica that has all
 * comes first, to spare the master; a transfer that breaks is begun again with the next one. What came is checked against
 * the checksum that the head announced. The supervisor is not needed, only the files below the data directory.
 *
 * Offline it takes the supervisor's lock, opens the most advanced store as the node would, and copies the same snapshot.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/store/snapshot_copy.h"
#include "common/store/store.h"
#include "node/standing.h"
#include "supervisor/backup_file.h"
#include "supervisor/commands.h"
#include "supervisor/datadir.h"
#include "supervisor/fetch.h"
#include "supervisor/time_text.h"

#define STATUS_TIMEOUT_MS 2000L
#define STATUS_BYTES_MAX  ((size_t)1 << 20)
#define TERMINAL_EVERY_MS 100u
#define LINES_EVERY_MS    1000u

/* Exit codes of what went wrong here. */
static enum exit_code report(enum db_err err, const struct errmsg *em)
{
	fprintf(stderr, "grizzly-supervisor: %s\n", em->text);
	if (err == DB_INVALID)
		return EXIT_USAGE;
	return err == DB_UNAVAILABLE ? EXIT_UNREACHABLE : EXIT_FAILED;
}

/* ---- progress */

struct progress {
	bool terminal, lines;
	bool shown; /* something stands in the terminal's line */
	uint64_t told_ms;
};

static void progress_show(struct progress *p, uint64_t done, uint64_t total, bool last)
{
	uint64_t now_ms = clock_mono_ms();
	unsigned percent = total == 0 ? 100 : (unsigned)(done * 100 / total);

	if ((!p->terminal && !p->lines) ||
	    (!last && now_ms - p->told_ms < (p->terminal ? TERMINAL_EVERY_MS : LINES_EVERY_MS)))
		return;
	p->told_ms = now_ms;
	p->shown = p->terminal;
	fprintf(stderr,
		p->terminal ? "\rbackup %u%% %" PRIu64 " of %" PRIu64 " bytes"
			    : "backup %u%% %" PRIu64 " of %" PRIu64 " bytes\n",
		percent, done, total);
}

static void progress_end(struct progress *p)
{
	if (p->shown)
		fputc('\n', stderr);
	p->shown = false;
}

/* ---- online */

struct source {
	char id[BACKUP_NODE_MAX];
	char address[CONFIG_ADDRESS_MAX];
	bool replica;
	bool whole;             /* has all that its master has */
	uint64_t committed_lsn; /* as far as it knows */
};

struct online {
	struct backup_writer *writer;
	struct backup_info info; /* as the answer's head says */
	unsigned heads;          /* how many of its headers have come */
	struct progress *progress;
};

#define HEADS_NEEDED 7u

static void note_header(void *arg, const char *name, const char *value)
{
	struct online *o = arg;
	struct backup_info *info = &o->info;
	unsigned byte, i;

	o->heads++;
	if (strcasecmp(name, "Grizzly-Lsn") == 0) {
		info->pos.lsn = strtoull(value, NULL, 10);
	} else if (strcasecmp(name, "Grizzly-Term") == 0) {
		info->pos.term = strtoull(value, NULL, 10);
	} else if (strcasecmp(name, "Grizzly-Time-Us") == 0) {
		info->time_us = strtoull(value, NULL, 10);
	} else if (strcasecmp(name, "Grizzly-Record-Checksum") == 0) {
		info->record_checksum = strtoull(value, NULL, 16);
	} else if (strcasecmp(name, "Grizzly-Db-Checksum") == 0) {
		info->db_checksum = strtoull(value, NULL, 16);
	} else if (strcasecmp(name, "Content-Length") == 0) {
		info->size_bytes = strtoull(value, NULL, 10);
	} else if (strcasecmp(name, "Grizzly-Cluster") == 0 && strspn(value, "0123456789abcdef") == 32) {
		for (i = 0; i < 16 && sscanf(value + 2 * i, "%2x", &byte) == 1; i++)
			info->cluster_id[i] = (uint8_t)byte;
	} else {
		o->heads--;
	}
}

static enum db_err take_piece(void *arg, const void *bytes, size_t len, struct errmsg *em)
{
	struct online *o = arg;
	enum db_err err;

	if (o->heads < HEADS_NEEDED)
		return errmsg_set(em, DB_CLOSED, "its answer is not one of a node of this version");
	err = backup_writer_put(o->writer, bytes, len, em);
	if (err == DB_OK)
		progress_show(o->progress, backup_writer_size(o->writer), o->info.size_bytes, false);
	return err;
}

/* Asks a node how it stands. False: it cannot be asked, em says why. */
static bool look_at(struct source *s, const struct client_tls *tls, const char *token, struct errmsg *em)
{
	const struct fetch f = {
	    .address = s->address, .path = "/status", .token = token, .tls = tls, .timeout_ms = STATUS_TIMEOUT_MS};
	struct buf text = {0};
	json_t *json = NULL;
	const char *role = NULL, *state = NULL;
	json_int_t committed = 0, lag = 0;
	json_error_t reason;

	if (fetch_text(&f, STATUS_BYTES_MAX, &text, em) == DB_OK)
		json = json_loadb((const char *)text.data, text.len, 0, &reason);
	else
		goto fini;
	if (json_unpack(json, "{s:s, s:s, s:I, s:I}", "role", &role, "state", &state, "committed_lsn", &committed,
			"lag_ms", &lag) != 0) {
		errmsg_set(em, DB_INVALID, "the status of %s is not understood", s->id);
		json_decref(json);
		json = NULL;
		goto fini;
	}
	s->replica = strcmp(role, "replica") == 0;
	s->whole = strcmp(state, "up") == 0 && lag == 0;
	s->committed_lsn = (uint64_t)committed;
fini:
	buf_fini(&text);
	if (json == NULL)
		return false;
	json_decref(json);
	return true;
}

/* Whole replicas, then the master, then what lags; among equals the one that knows more. */
static int by_merit(const void *a, const void *b)
{
	const struct source *x = a, *y = b;
	int rank_x = !x->whole ? 2 : !x->replica, rank_y = !y->whole ? 2 : !y->replica;

	if (rank_x != rank_y)
		return rank_x - rank_y;
	return x->committed_lsn > y->committed_lsn ? -1 : x->committed_lsn < y->committed_lsn;
}

static enum db_err find_sources(struct source *out, unsigned *count, const struct cluster_config *config,
				const char *only, const char *token, struct errmsg *em)
{
	unsigned n, total = config_node_count(config), last = datadir_last_node();
	struct client_tls tls;
	struct source s;
	bool known = false;

	client_tls_own(&tls, config);
	if (last > total)
		total = last; /* members were added */
	*count = 0;
	for (n = 1; n <= total && n <= CONFIG_NODES_MAX; n++) {
		memset(&s, 0, sizeof(s));
		snprintf(s.id, sizeof(s.id), "node%u", n);
		config_node_address(config, n, CONFIG_HTTP, s.address);
		if (only != NULL && strcmp(only, s.id) != 0)
			continue;
		known = true;
		if (look_at(&s, &tls, token, em))
			out[(*count)++] = s;
	}
	if (!known)
		return errmsg_set(em, DB_INVALID, "there is no %s; the nodes are node1 to node%u", only, total);
	qsort(out, *count, sizeof(*out), by_merit);
	if (*count > 0)
		return DB_OK;
	errmsg_context(em, "no node can be asked");
	em->err = DB_UNAVAILABLE;
	return DB_UNAVAILABLE;
}

/* One attempt. DB_FULL and DB_IO are of our own disk: no other node helps. */
static enum db_err fetch_from(struct online *o, const struct source *s, const struct client_tls *tls, const char *token,
			      struct errmsg *em)
{
	const struct fetch f = {.address = s->address,
				.path = "/backup",
				.token = token,
				.tls = tls,
				.on_header = note_header,
				.on_body = take_piece,
				.arg = o};
	enum db_err err = backup_writer_restart(o->writer, em);

	memset(&o->info, 0, sizeof(o->info));
	o->heads = 0;
	memcpy(o->info.node, s->id, sizeof(o->info.node));
	if (err == DB_OK)
		err = fetch_get(&f, em);
	if (err == DB_OK && o->heads < HEADS_NEEDED)
		err = errmsg_set(em, DB_CLOSED, "its answer is not one of a node of this version");
	if (err == DB_OK)
		progress_show(o->progress, o->info.size_bytes, o->info.size_bytes, true);
	progress_end(o->progress);
	return err;
}

static enum db_err back_up_online(struct online *o, const struct backup_options *options, struct errmsg *em)
{
	struct source sources[CONFIG_NODES_MAX];
	struct cluster_config config;
	struct client_tls tls;
	char *token = NULL;
	unsigned count = 0, i;
	enum db_err err;

	config_init(&config);
	err = config_load(&config, DATADIR_CONFIG, em);
	if (err == DB_OK)
		err = token_load(&token, DATADIR_TOKEN, em);
	if (err == DB_OK)
		err = find_sources(sources, &count, &config, options->node, token, em);
	client_tls_own(&tls, &config);
	for (i = 0; i < count; i++) {
		if (i > 0)
			fprintf(stderr, "grizzly-supervisor: %s; begins again with %s\n", em->text, sources[i].id);
		err = fetch_from(o, &sources[i], &tls, token, em);
		if (err == DB_OK || err == DB_FULL || err == DB_IO || err == DB_NOMEM)
			break;
		errmsg_context(em, "the backup from %s came to nothing", sources[i].id);
	}
	if (token != NULL)
		explicit_bzero(token, strlen(token));
	free(token);
	return err == DB_INVALID && count > 0 ? DB_CLOSED : err;
}

/* ---- offline */

static enum db_err open_store(struct store **out, const char *dir, struct errmsg *em)
{
	const struct store_options options = {.dir = dir};
	struct store_status status;
	enum db_err err = store_open(out, &options, em);

	if (err != DB_OK)
		return err;
	store_get_status(*out, &status);
	/* Nobody can say any more what was committed: all that it has is what an election would go by. */
	store_set_committed(*out, status.tip.lsn);
	return DB_OK;
}

/* The store that an election would choose: the highest position among the nodes that count. */
static enum db_err choose_store(char dir[BACKUP_NODE_MAX], struct errmsg *em)
{
	struct wal_pos best = {0, 0};
	struct store_status status;
	enum standing standing;
	struct store *s;
	char name[BACKUP_NODE_MAX];
	unsigned n, last = datadir_last_node();
	enum db_err err = DB_OK;

	dir[0] = '\0';
	for (n = 1; n <= last && err == DB_OK; n++) {
		snprintf(name, sizeof(name), "node%u", n);
		if (standing_look(name) != STANDING_STORE_THERE)
			continue;
		err = standing_read(name, &standing, em);
		if (err != DB_OK || standing == STANDING_REBUILD || standing == STANDING_WRONG)
			continue;
		err = open_store(&s, name, em);
		if (err == DB_CORRUPT) {
			fprintf(stderr, "grizzly-supervisor: %s is passed over: %s\n", name, em->text);
			err = DB_OK;
			continue;
		}
		if (err != DB_OK)
			break;
		store_get_status(s, &status);
		store_close(s);
		if (dir[0] == '\0' || wal_pos_cmp(status.tip, best) > 0) {
			best = status.tip;
			memcpy(dir, name, sizeof(name));
		}
	}
	if (err == DB_OK && dir[0] == '\0')
		err = errmsg_set(em, DB_NOTFOUND, "no node has a store that can be relied on");
	return err;
}

static enum db_err copy_pages(struct online *o, const struct snapshot_source *source, struct errmsg *em)
{
	const struct snapshot_header *header = snapshot_source_header(source);
	uint64_t total = (uint64_t)header->db_size_pages * WAL_PAGE_SIZE;
	enum db_err err = DB_OK;
	uint32_t pgno;

	o->info.pos = header->pos;
	o->info.time_us = header->time_us;
	o->info.record_checksum = header->record_checksum;
	o->info.db_checksum = header->db_checksum;
	o->info.size_bytes = total;
	for (pgno = 1; pgno <= header->db_size_pages && err == DB_OK; pgno++) {
		err = backup_writer_put(o->writer, snapshot_source_page(source, pgno), WAL_PAGE_SIZE, em);
		progress_show(o->progress, (uint64_t)pgno * WAL_PAGE_SIZE, total, pgno == header->db_size_pages);
	}
	progress_end(o->progress);
	return err;
}

static enum db_err copy_store(struct online *o, const char *dir, struct errmsg *em)
{
	struct snapshot_source *source;
	struct store_status status;
	struct store *s;
	enum db_err err = open_store(&s, dir, em);

	if (err != DB_OK)
		return err;
	store_get_status(s, &status);
	memcpy(o->info.cluster_id, status.cluster_id, sizeof(o->info.cluster_id));
	snprintf(o->info.node, sizeof(o->info.node), "%s", dir);
	err = snapshot_source_open(&source, s, em);
	if (err == DB_OK) {
		err = copy_pages(o, source, em);
		snapshot_source_close(source);
	}
	store_close(s);
	return err;
}

static enum db_err back_up_offline(struct online *o, const struct backup_options *options, struct errmsg *em)
{
	char dir[BACKUP_NODE_MAX] = "";
	pid_t holder;
	int lock_fd;
	enum db_err err = datadir_prepare(em);

	if (err == DB_OK)
		err = datadir_lock(&lock_fd, &holder, em);
	if (err == DB_BUSY)
		return errmsg_set(em, DB_BUSY, "a supervisor runs (pid %d): leave --offline out, or stop the cluster",
				  (int)holder);
	if (err != DB_OK)
		return err;
	err = store_init_sqlite(em);
	if (err == DB_OK && options->node == NULL)
		err = choose_store(dir, em);
	else if (err == DB_OK && (snprintf(dir, sizeof(dir), "%s", options->node) >= (int)sizeof(dir) ||
				  standing_look(dir) != STANDING_STORE_THERE))
		err = errmsg_set(em, DB_INVALID, "there is no store of \"%s\"", options->node);
	if (err == DB_OK)
		err = copy_store(o, dir, em);
	close(lock_fd);
	return err;
}

/* ---- the command */

static void print_result(const struct backup_info *info, const char *path)
{
	char time[TIME_TEXT_MAX];

	time_text_put(info->time_us, time);
	printf("backup of %s at lsn=%" PRIu64 " term=%" PRIu64 " time=%s: %" PRIu64 " bytes in %s\n", info->node,
	       info->pos.lsn, info->pos.term, time, info->size_bytes, path);
}

enum exit_code command_backup(const struct backup_options *options)
{
	struct progress progress = {.terminal = isatty(STDERR_FILENO) && !options->progress,
				    .lines = options->progress};
	struct online o = {.progress = &progress};
	struct errmsg em = {0};
	char path[PATH_MAX];
	enum db_err err;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is an error of write() */
	log_init("backup", LOG_LEVEL_WARN);
	err = datadir_absolute(path, options->to, &em);
	if (err == DB_OK)
		err = datadir_enter(options->data_dir, false, &em);
	if (err == DB_OK)
		err = backup_writer_create(&o.writer, path, options->force, &em);
	if (err == DB_OK)
		err = options->offline ? back_up_offline(&o, options, &em) : back_up_online(&o, options, &em);
	if (err == DB_OK)
		err = backup_writer_finish(o.writer, &o.info, &em);
	backup_writer_free(o.writer);
	if (err != DB_OK)
		return report(err, &em);
	print_result(&o.info, path);
	return EXIT_OK;
}

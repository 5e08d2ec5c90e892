/* backup.c - see backup.h. */
#include "node/backup.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/store/snapshot_copy.h"

#define PIECE_PAGES 64u /* pages handed to the stream at a time */

struct transfer {
	struct backups *owner;
	struct transfer *next; /* owner's list */
	struct snapshot_source *source;
	struct http_stream *stream;
	char request_id[LOG_REQUEST_ID_MAX + 1];
};

struct backups {
	struct backups_options options;
	pthread_mutex_t mutex; /* guards what follows */
	pthread_cond_t ended;
	unsigned running;
	struct transfer *transfers; /* whose stream is not ended */
};

/* ---- the transfer's thread */

static enum db_err send_piece(struct transfer *t, uint32_t first_pgno, uint32_t count)
{
	struct buf piece = {0};
	uint32_t i;

	if (!buf_reserve(&piece, (size_t)count * WAL_PAGE_SIZE))
		return DB_NOMEM;
	for (i = 0; i < count; i++)
		buf_put(&piece, snapshot_source_page(t->source, first_pgno + i), WAL_PAGE_SIZE);
	return http_stream_write(t->stream, &piece, BACKUP_STALL_MS);
}

static enum db_err send_pages(struct transfer *t)
{
	uint32_t size_pages = snapshot_source_header(t->source)->db_size_pages, pgno, count;
	enum db_err err = DB_OK;

	for (pgno = 1; pgno <= size_pages && err == DB_OK; pgno += count) {
		count = size_pages - pgno + 1 < PIECE_PAGES ? size_pages - pgno + 1 : PIECE_PAGES;
		err = send_piece(t, pgno, count);
	}
	return err;
}

static const char *reason_of(enum db_err err)
{
	switch (err) {
	case DB_CLOSED:
		return "the client has gone";
	case DB_TIMEOUT:
		return "the client takes nothing";
	default:
		return db_err_text(err);
	}
}

static void enlist(struct transfer *t)
{
	pthread_mutex_lock(&t->owner->mutex);
	t->next = t->owner->transfers;
	t->owner->transfers = t;
	pthread_mutex_unlock(&t->owner->mutex);
}

static void delist(struct transfer *t)
{
	struct transfer **at;

	pthread_mutex_lock(&t->owner->mutex);
	for (at = &t->owner->transfers; *at != t; at = &(*at)->next)
		;
	*at = t->next;
	pthread_mutex_unlock(&t->owner->mutex);
}

static void *run_transfer(void *arg)
{
	struct transfer *t = arg;
	struct backups *b = t->owner;
	uint64_t lsn = snapshot_source_header(t->source)->pos.lsn, started_ms = clock_mono_ms();
	enum db_err err;

	pthread_setname_np(pthread_self(), "backup");
	log_set_request_id(t->request_id);
	err = send_pages(t);
	delist(t);
	snapshot_source_close(t->source);
	http_stream_end(t->stream, err == DB_OK);
	if (err == DB_OK)
		log_info("backup at lsn=%" PRIu64 " sent in %" PRIu64 " ms", lsn, clock_mono_ms() - started_ms);
	else
		log_warn("backup at lsn=%" PRIu64 " broken off: %s", lsn, reason_of(err));
	free(t);
	pthread_mutex_lock(&b->mutex);
	b->running--;
	pthread_cond_broadcast(&b->ended);
	pthread_mutex_unlock(&b->mutex);
	return NULL;
}

/* ---- the worker's thread */

static void add_number(struct http_request *req, const char *name, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	http_reply_add_header(req, name, text);
}

static void add_hex(struct http_request *req, const char *name, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%016" PRIx64, value);
	http_reply_add_header(req, name, text);
}

static void add_headers(struct backups *b, struct http_request *req, const struct snapshot_header *header)
{
	char cluster[33];
	unsigned i;

	for (i = 0; i < 16; i++)
		snprintf(cluster + 2 * i, 3, "%02x", b->options.cluster_id[i]);
	add_number(req, "Content-Length", (uint64_t)header->db_size_pages * WAL_PAGE_SIZE);
	http_reply_add_header(req, "Grizzly-Cluster", cluster);
	http_reply_add_header(req, "Grizzly-Node", b->options.node_id);
	add_number(req, "Grizzly-Lsn", header->pos.lsn);
	add_number(req, "Grizzly-Term", header->pos.term);
	add_number(req, "Grizzly-Time-Us", header->time_us);
	add_hex(req, "Grizzly-Record-Checksum", header->record_checksum);
	add_hex(req, "Grizzly-Db-Checksum", header->db_checksum);
}

static void refuse(struct http_request *req, enum query_code code, const char *why)
{
	struct query_error error = {.statement = -1};

	query_error_set(&error, code, "%s", why);
	http_reply_error(req, &error);
}

static bool take_place(struct backups *b)
{
	bool taken;

	pthread_mutex_lock(&b->mutex);
	taken = b->running < BACKUPS_MAX;
	b->running += taken;
	pthread_mutex_unlock(&b->mutex);
	return taken;
}

static void give_place_back(struct backups *b)
{
	pthread_mutex_lock(&b->mutex);
	b->running--;
	pthread_cond_broadcast(&b->ended);
	pthread_mutex_unlock(&b->mutex);
}

/* Takes t on success. */
static enum db_err start_thread(struct transfer *t)
{
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED); /* backups_free() waits for its last words */
	rc = pthread_create(&thread, &attr, run_transfer, t);
	pthread_attr_destroy(&attr);
	return rc == 0 ? DB_OK : DB_NOMEM;
}

void backups_on_request(struct backups *b, struct http_request *req)
{
	const struct query_error no_thread = {
	    .code = QUERY_INTERNAL, .statement = -1, .message = "out of memory for another thread"};
	struct errmsg em = {0};
	struct transfer *t;

	if (!take_place(b)) {
		refuse(req, QUERY_OVERLOADED, "enough backups are being taken from this node; try again later");
		return;
	}
	t = calloc(1, sizeof(*t));
	if (t == NULL || snapshot_source_open(&t->source, b->options.store, &em) != DB_OK)
		goto no_memory;
	t->owner = b;
	snprintf(t->request_id, sizeof(t->request_id), "%s", http_request_id(req));
	add_headers(b, req, snapshot_source_header(t->source));
	if (http_stream_create(&t->stream, req, 200, "application/vnd.sqlite3") != DB_OK)
		goto close_source;
	enlist(t);
	if (start_thread(t) == DB_OK)
		return;
	delist(t);
	http_stream_error(t->stream, &no_thread);
	snapshot_source_close(t->source);
	free(t);
	give_place_back(b);
	return;
close_source:
	snapshot_source_close(t->source);
no_memory:
	free(t);
	give_place_back(b);
	refuse(req, QUERY_INTERNAL, "out of memory for a backup");
}

void backups_cut(struct backups *b, uint64_t keep_lsn)
{
	struct transfer *t;
	uint64_t lsn;

	pthread_mutex_lock(&b->mutex);
	for (t = b->transfers; t != NULL; t = t->next) {
		lsn = snapshot_source_header(t->source)->pos.lsn;
		if (lsn >= keep_lsn)
			continue;
		log_warn("backup at lsn=%" PRIu64 " is cut off: it holds the log, which has reached its cap", lsn);
		http_stream_give_up(t->stream);
	}
	pthread_mutex_unlock(&b->mutex);
}

/* ---- life */

enum db_err backups_create(struct backups **out, const struct backups_options *options, struct errmsg *em)
{
	struct backups *b = calloc(1, sizeof(*b));

	*out = b;
	if (b == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	b->options = *options;
	pthread_mutex_init(&b->mutex, NULL);
	pthread_cond_init(&b->ended, NULL);
	return DB_OK;
}

void backups_free(struct backups *b)
{
	if (b == NULL)
		return;
	pthread_mutex_lock(&b->mutex);
	while (b->running > 0)
		pthread_cond_wait(&b->ended, &b->mutex);
	pthread_mutex_unlock(&b->mutex);
	pthread_cond_destroy(&b->ended);
	pthread_mutex_destroy(&b->mutex);
	free(b);
}

/* ledger.c - see ledger.h. */
#include "supervisor/ledger.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/slotfile.h"

#define LEDGER_VERSION 1u
#define ENTRY_SIZE     32u
#define BOOK_SIZE_MAX  (8u + CONFIG_NODES_MAX * ENTRY_SIZE)

struct ledger {
	struct slotfile file;
	pthread_t thread;
	pthread_mutex_t mutex; /* guards everything below */
	pthread_cond_t wake;
	struct ledger_book book;
	bool changed;
	bool ending;
};

/* ---- the blob */

static size_t encode(const struct ledger_book *book, uint8_t bytes[BOOK_SIZE_MAX])
{
	uint8_t *p = bytes + 8;
	unsigned n;

	store_u32le(bytes, LEDGER_VERSION);
	store_u32le(bytes + 4, book->node_count);
	for (n = 0; n < book->node_count; n++, p += ENTRY_SIZE) {
		store_u64le(p, book->nodes[n].last.term);
		store_u64le(p + 8, book->nodes[n].last.lsn);
		store_u64le(p + 16, book->nodes[n].committed_lsn);
		store_u64le(p + 24, book->nodes[n].seen_us);
	}
	return (size_t)(p - bytes);
}

static enum db_err decode(struct ledger_book *book, const uint8_t *bytes, size_t len, struct errmsg *em)
{
	const uint8_t *p = bytes + 8;
	unsigned n;

	memset(book, 0, sizeof(*book));
	if (len == 0)
		return DB_OK;
	if (len >= 4 && load_u32le(bytes) > LEDGER_VERSION)
		return errmsg_newer(em, LEDGER_PATH, load_u32le(bytes), LEDGER_VERSION);
	if (len < 8 || load_u32le(bytes) != LEDGER_VERSION || load_u32le(bytes + 4) > CONFIG_NODES_MAX ||
	    len != 8 + load_u32le(bytes + 4) * ENTRY_SIZE)
		return errmsg_set(em, DB_CORRUPT, "\"%s\" is not understood", LEDGER_PATH);
	book->node_count = load_u32le(bytes + 4);
	for (n = 0; n < book->node_count; n++, p += ENTRY_SIZE)
		book->nodes[n] = (struct ledger_entry){.last = {load_u64le(p), load_u64le(p + 8)},
						       .committed_lsn = load_u64le(p + 16),
						       .seen_us = load_u64le(p + 24)};
	return DB_OK;
}

static enum db_err open_book(struct slotfile *f, struct ledger_book *book, struct errmsg *em)
{
	uint8_t bytes[BOOK_SIZE_MAX];
	size_t len = 0;
	enum db_err err = slotfile_open(f, LEDGER_PATH, bytes, sizeof(bytes), &len, em);

	if (err != DB_OK)
		return err;
	err = decode(book, bytes, len, em);
	if (err != DB_OK)
		slotfile_close(f);
	return err;
}

static enum db_err write_book(struct slotfile *f, const struct ledger_book *book, struct errmsg *em)
{
	uint8_t bytes[BOOK_SIZE_MAX];

	return slotfile_write(f, bytes, encode(book, bytes), em);
}

enum db_err ledger_read(struct ledger_book *out, struct errmsg *em)
{
	struct slotfile f;
	enum db_err err;

	memset(out, 0, sizeof(*out));
	if (access(LEDGER_PATH, F_OK) != 0 && errno == ENOENT)
		return DB_OK;
	err = open_book(&f, out, em);
	if (err == DB_OK)
		slotfile_close(&f);
	return err;
}

enum db_err ledger_write(const struct ledger_book *book, struct errmsg *em)
{
	struct ledger_book old;
	struct slotfile f;
	enum db_err err = open_book(&f, &old, em);

	if (err == DB_CORRUPT) {
		if (unlink(LEDGER_PATH) != 0)
			return errmsg_errno(em, errno, "cannot remove \"%s\"", LEDGER_PATH);
		err = open_book(&f, &old, em);
	}
	if (err != DB_OK)
		return err;
	err = write_book(&f, book, em);
	slotfile_close(&f);
	return err;
}

/* ---- the thread */

static void await_change(struct ledger *l)
{
	while (!l->changed && !l->ending)
		pthread_cond_wait(&l->wake, &l->mutex);
}

/* Mutex held; given back and taken again. Ends early when the ledger does. */
static void rest(struct ledger *l)
{
	uint64_t until_us = clock_mono_us() + LEDGER_WRITE_MS * 1000u;

	while (!l->ending && clock_wait(&l->wake, &l->mutex, until_us))
		;
}

static void *write_changes(void *arg)
{
	struct ledger *l = arg;
	struct ledger_book book;
	struct errmsg em = {0};
	bool failing = false;
	enum db_err err;

	pthread_mutex_lock(&l->mutex);
	for (await_change(l); l->changed; await_change(l)) {
		book = l->book;
		l->changed = false;
		pthread_mutex_unlock(&l->mutex);
		err = write_book(&l->file, &book, &em);
		if (err != DB_OK && !failing)
			log_error("the nodes' positions are not recorded: %s", em.text);
		failing = err != DB_OK;
		pthread_mutex_lock(&l->mutex);
		rest(l);
	}
	pthread_mutex_unlock(&l->mutex);
	return NULL;
}

static void init_sync(struct ledger *l)
{
	pthread_mutex_init(&l->mutex, NULL);
	pthread_cond_init(&l->wake, NULL);
}

static void fini_sync(struct ledger *l)
{
	pthread_cond_destroy(&l->wake);
	pthread_mutex_destroy(&l->mutex);
}

enum db_err ledger_create(struct ledger **out, unsigned node_count, struct errmsg *em)
{
	struct ledger *l = calloc(1, sizeof(*l));
	enum db_err err;

	*out = NULL;
	if (l == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for the ledger");
	err = open_book(&l->file, &l->book, em);
	if (err != DB_OK)
		goto free_ledger;
	l->book.node_count = node_count;
	init_sync(l);
	if (pthread_create(&l->thread, NULL, write_changes, l) != 0) {
		err = errmsg_set(em, DB_NOMEM, "cannot start the ledger's thread");
		goto close_file;
	}
	*out = l;
	return DB_OK;
close_file:
	fini_sync(l);
	slotfile_close(&l->file);
free_ledger:
	free(l);
	return err;
}

void ledger_note(struct ledger *l, unsigned node, const struct ledger_entry *now)
{
	struct ledger_entry *known = &l->book.nodes[node];

	pthread_mutex_lock(&l->mutex);
	if (now->last.lsn > 0 && wal_pos_cmp(now->last, known->last) >= 0 &&
	    (wal_pos_cmp(now->last, known->last) > 0 || now->committed_lsn > known->committed_lsn)) {
		*known = *now;
		l->changed = true;
		pthread_cond_signal(&l->wake);
	}
	pthread_mutex_unlock(&l->mutex);
}

void ledger_free(struct ledger *l)
{
	if (l == NULL)
		return;
	pthread_mutex_lock(&l->mutex);
	l->ending = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->mutex);
	pthread_join(l->thread, NULL);
	fini_sync(l);
	slotfile_close(&l->file);
	free(l);
}

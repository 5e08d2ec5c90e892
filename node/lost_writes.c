/* lost_writes.c - see lost_writes.h. One mutex guards the list; the file is written under it, which is rare. */
#include "node/lost_writes.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/base/buf.h"
#include "common/base/log.h"
#include "common/query/receipts.h"
#include "common/store/dirs.h"

#define PATH_SIZE      512
#define MAGIC          "GZLOST01"
#define MAGIC_SIZE     8
#define FILE_BYTES_MAX (MAGIC_SIZE + 4 + (size_t)LOST_WRITES_MAX * (8 + 4 + QUERY_REQUEST_ID_MAX) + 8)

struct entry {
	uint64_t lsn;
	char id[QUERY_REQUEST_ID_MAX + 1];
};

struct lost_writes {
	char path[PATH_SIZE];
	pthread_mutex_t mutex; /* guards everything below */
	struct entry *entries; /* a ring of LOST_WRITES_MAX once there is one; the oldest at `first` */
	size_t first, count;
};

static struct entry *entry_at(const struct lost_writes *l, size_t i)
{
	return &l->entries[(l->first + i) % LOST_WRITES_MAX];
}

/* ---- the list; mutex held */

static enum db_err add(struct lost_writes *l, const char *id, size_t len, uint64_t lsn, struct errmsg *em)
{
	struct entry *e;

	if (l->entries == NULL)
		l->entries = calloc(LOST_WRITES_MAX, sizeof(*l->entries));
	if (l->entries == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	if (l->count == LOST_WRITES_MAX) {
		l->first = (l->first + 1) % LOST_WRITES_MAX;
		l->count--;
	}
	e = entry_at(l, l->count++);
	e->lsn = lsn;
	memcpy(e->id, id, len);
	e->id[len] = '\0';
	return DB_OK;
}

/* ---- the file */

static enum db_err decode(struct lost_writes *l, const uint8_t *bytes, size_t len, struct errmsg *em)
{
	enum db_err err = DB_OK;
	const uint8_t *id;
	uint32_t count;
	struct rd r;
	size_t id_len;
	uint64_t lsn;

	if (len >= MAGIC_SIZE + 8 && memcmp(bytes, MAGIC, MAGIC_SIZE - 1) == 0 && bytes[MAGIC_SIZE - 1] > '1' &&
	    bytes[MAGIC_SIZE - 1] <= '9' && load_u64le(bytes + len - 8) == XXH3_64bits(bytes, len - 8))
		return errmsg_newer(em, l->path, (unsigned long)(bytes[MAGIC_SIZE - 1] - '0'), 1);
	if (len < MAGIC_SIZE + 4 + 8 || memcmp(bytes, MAGIC, MAGIC_SIZE) != 0 ||
	    load_u64le(bytes + len - 8) != XXH3_64bits(bytes, len - 8))
		return errmsg_set(em, DB_CORRUPT, "\"%s\" is damaged", l->path);
	rd_init(&r, bytes + MAGIC_SIZE, len - MAGIC_SIZE - 8);
	count = rd_u32le(&r);
	while (err == DB_OK && count-- > 0 && !r.bad) {
		lsn = rd_u64le(&r);
		id = rd_blob(&r, QUERY_REQUEST_ID_MAX, &id_len);
		if (id != NULL && !query_request_id_ok((const char *)id, id_len))
			r.bad = true;
		if (!r.bad)
			err = add(l, (const char *)id, id_len, lsn, em);
	}
	if (r.bad || r.left > 0)
		err = errmsg_set(em, DB_CORRUPT, "\"%s\" is damaged", l->path);
	return err;
}

static enum db_err read_file(struct lost_writes *l, struct errmsg *em)
{
	int fd = open(l->path, O_RDONLY | O_CLOEXEC);
	enum db_err err = DB_OK;
	struct buf bytes = {0};
	ssize_t got = 1;

	if (fd < 0)
		return errno == ENOENT ? DB_OK : errmsg_errno(em, errno, "cannot open \"%s\"", l->path);
	while (got > 0 && bytes.len <= FILE_BYTES_MAX && buf_reserve(&bytes, 65536)) {
		got = read(fd, bytes.data + bytes.len, 65536);
		if (got > 0)
			bytes.len += (size_t)got;
	}
	if (got < 0)
		err = errmsg_errno(em, errno, "cannot read \"%s\"", l->path);
	else if (bytes.failed)
		err = errmsg_set(em, DB_NOMEM, "out of memory");
	else
		err = decode(l, bytes.data, bytes.len, em);
	close(fd);
	buf_fini(&bytes);
	return err;
}

static void encode(const struct lost_writes *l, struct buf *out)
{
	size_t i;

	buf_put(out, MAGIC, MAGIC_SIZE);
	buf_put_u32le(out, (uint32_t)l->count);
	for (i = 0; i < l->count; i++) {
		buf_put_u64le(out, entry_at(l, i)->lsn);
		buf_put_blob(out, entry_at(l, i)->id, strlen(entry_at(l, i)->id));
	}
	if (!out->failed)
		buf_put_u64le(out, XXH3_64bits(out->data, out->len));
}

static enum db_err write_bytes(const char *path, const struct buf *bytes, struct errmsg *em)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	enum db_err err = DB_OK;
	size_t put = 0;
	ssize_t n;

	if (fd < 0)
		return errmsg_errno(em, errno, "cannot create \"%s\"", path);
	while (err == DB_OK && put < bytes->len) {
		n = write(fd, bytes->data + put, bytes->len - put);
		if (n < 0 && errno != EINTR)
			err = errmsg_errno(em, errno, "cannot write \"%s\"", path);
		put += n > 0 ? (size_t)n : 0;
	}
	if (err == DB_OK && fsync(fd) != 0)
		err = errmsg_errno(em, errno, "cannot sync \"%s\"", path);
	close(fd);
	return err;
}

static enum db_err save(struct lost_writes *l, struct errmsg *em)
{
	char fresh[PATH_SIZE + 8];
	struct buf bytes = {0};
	enum db_err err = DB_OK;

	snprintf(fresh, sizeof(fresh), "%s.new", l->path);
	encode(l, &bytes);
	if (bytes.failed)
		err = errmsg_set(em, DB_NOMEM, "out of memory");
	if (err == DB_OK)
		err = write_bytes(fresh, &bytes, em);
	if (err == DB_OK && rename(fresh, l->path) != 0)
		err = errmsg_errno(em, errno, "cannot rename \"%s\"", fresh);
	if (err == DB_OK)
		err = dirs_sync_parent(l->path, em);
	buf_fini(&bytes);
	return err;
}

/* ---- the door */

enum db_err lost_writes_create(struct lost_writes **out, const char *dir, struct errmsg *em)
{
	struct lost_writes *l = calloc(1, sizeof(*l));
	enum db_err err;

	*out = l;
	if (l == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	pthread_mutex_init(&l->mutex, NULL);
	snprintf(l->path, sizeof(l->path), "%.480s.lost", dir);
	err = read_file(l, em);
	if (err == DB_CORRUPT) {
		log_error("%s: what it said of lost writes is not known any more", em->text);
		l->first = l->count = 0;
		err = DB_OK;
	}
	if (err != DB_OK) {
		lost_writes_free(l);
		*out = NULL;
	}
	return err;
}

void lost_writes_free(struct lost_writes *l)
{
	if (l == NULL)
		return;
	pthread_mutex_destroy(&l->mutex);
	free(l->entries);
	free(l);
}

enum db_err lost_writes_add(struct lost_writes *l, const char *id, size_t len, uint64_t lsn, struct errmsg *em)
{
	enum db_err err;

	if (!query_request_id_ok(id, len))
		return errmsg_set(em, DB_INVALID, "not a request_id");
	pthread_mutex_lock(&l->mutex);
	err = add(l, id, len, lsn, em);
	pthread_mutex_unlock(&l->mutex);
	return err;
}

enum db_err lost_writes_save(struct lost_writes *l, struct errmsg *em)
{
	enum db_err err;

	pthread_mutex_lock(&l->mutex);
	err = save(l, em);
	pthread_mutex_unlock(&l->mutex);
	return err;
}

bool lost_writes_find(struct lost_writes *l, const char *id, uint64_t *lsn)
{
	bool found = false;
	size_t i;

	pthread_mutex_lock(&l->mutex);
	for (i = l->count; i > 0 && !found; i--) {
		found = strcmp(entry_at(l, i - 1)->id, id) == 0;
		if (found)
			*lsn = entry_at(l, i - 1)->lsn;
	}
	pthread_mutex_unlock(&l->mutex);
	return found;
}

/* ---- a tail about to be cut */

struct tail {
	struct lost_writes *list;
	enum db_err err;
	struct errmsg em;
	size_t count;
};

static void each_lost(void *arg, const char *id, size_t len, uint64_t lsn)
{
	struct tail *t = arg;

	if (t->err == DB_OK && t->count < LOST_WRITES_MAX)
		t->err = lost_writes_add(t->list, id, len, lsn, &t->em);
	if (t->err == DB_OK)
		t->count++;
}

void lost_writes_note_tail(struct lost_writes *l, struct store *store, uint64_t keep_lsn)
{
	struct tail t = {.list = l, .err = DB_OK};
	sqlite3 *db = NULL;

	/* The one connection that sees what is not committed. The replica's role has none of its own. */
	t.err = store_open_writer(store, &db, &t.em);
	if (t.err == DB_OK) {
		enum db_err err = receipts_after(db, keep_lsn, each_lost, &t, &t.em);

		if (t.err == DB_OK)
			t.err = err;
		sqlite3_close(db);
	}
	if (t.err == DB_OK && t.count > 0)
		t.err = lost_writes_save(l, &t.em);
	if (t.err != DB_OK)
		log_error("lost writes after lsn=%" PRIu64 " cannot be told by their request_id: %s", keep_lsn,
			  t.em.text);
	else if (t.count > 0)
		log_warn("%zu writes with a request_id are lost after lsn=%" PRIu64 ": they were never acknowledged",
			 t.count, keep_lsn);
}

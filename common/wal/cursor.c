/*
 * cursor.c - see wal.h: readers of consecutive records.
 *
 * A cursor pins the segment of the record it gave last (or, after a seek, of the one it will give next), so that the
 * record stays mapped and the segments behind it stay too: trimming goes from the front and stops at a pin.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/wal/log.h"
#include "common/wal/segment.h"
#include "common/wal/wal.h"

struct wal_cursor {
	struct wal *w;
	struct segment *segment; /* pinned; NULL: none */
	uint64_t next_lsn;
};

/* Moves the pin to s (NULL is fine). With lock; the caller frees what comes back, after releasing it. */
static struct segment *move_pin(struct wal_cursor *c, struct segment *s)
{
	struct segment *gone;

	if (s == c->segment)
		return NULL;
	if (s != NULL)
		s->pins++;
	gone = c->segment == NULL ? NULL : log_unpin(c->segment);
	c->segment = s;
	return gone;
}

enum db_err wal_cursor_create(struct wal_cursor **out, struct wal *w, uint64_t next_lsn, struct errmsg *em)
{
	struct wal_cursor *c = (struct wal_cursor *)calloc(1, sizeof(*c));

	*out = NULL;
	if (c == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for a log cursor");
	c->w = w;
	*out = c;
	return wal_cursor_seek(c, next_lsn, em);
}

void wal_cursor_free(struct wal_cursor *c)
{
	struct segment *gone;

	if (c == NULL)
		return;
	pthread_mutex_lock(&c->w->lock);
	gone = move_pin(c, NULL);
	pthread_mutex_unlock(&c->w->lock);
	segment_free(gone);
	free(c);
}

enum db_err wal_cursor_seek(struct wal_cursor *c, uint64_t next_lsn, struct errmsg *em)
{
	struct segment *gone;

	(void)em; /* a place outside the log is no error yet: wal_cursor_next() will say so */
	pthread_mutex_lock(&c->w->lock);
	c->next_lsn = next_lsn;
	gone = move_pin(c, log_find(c->w, next_lsn));
	pthread_mutex_unlock(&c->w->lock);
	segment_free(gone);
	return DB_OK;
}

enum db_err wal_cursor_next(struct wal_cursor *c, struct wal_record *out, struct errmsg *em)
{
	struct segment *s, *gone = NULL;
	enum db_err err;

	pthread_mutex_lock(&c->w->lock);
	s = log_find(c->w, c->next_lsn);
	if (s != NULL) {
		err = segment_record(s, c->next_lsn, out, em);
		gone = move_pin(c, s);
	} else if (c->next_lsn < log_first_lsn(c->w)) {
		err = errmsg_set(em, DB_GAP, "record %" PRIu64 " was trimmed, the log begins at %" PRIu64, c->next_lsn,
				 log_first_lsn(c->w));
	} else {
		err = DB_NOTFOUND; /* the normal end: no message is made, the caller asks often */
		if (em != NULL)
			em->err = DB_NOTFOUND;
	}
	if (err == DB_OK)
		c->next_lsn++;
	pthread_mutex_unlock(&c->w->lock);
	segment_free(gone);
	return err;
}

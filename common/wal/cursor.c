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

/* Takes the pin of s (NULL: none) for the cursor and gives back the one that it had. Without lock. What the cursor has
 * read of the segment that it leaves does not stay in memory: catching up reads a whole log once. */
static void take_pin(struct wal_cursor *c, struct segment *s)
{
	struct segment *old = c->segment, *gone;

	c->segment = s;
	if (old == NULL)
		return;
	if (old != s)
		segment_release(old);
	pthread_mutex_lock(&c->w->lock);
	gone = log_unpin(old);
	pthread_mutex_unlock(&c->w->lock);
	segment_free(gone);
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
	if (c == NULL)
		return;
	take_pin(c, NULL);
	free(c);
}

enum db_err wal_cursor_seek(struct wal_cursor *c, uint64_t next_lsn, struct errmsg *em)
{
	struct segment *s;

	(void)em; /* a place outside the log is no error yet: wal_cursor_next() will say so */
	pthread_mutex_lock(&c->w->lock);
	c->next_lsn = next_lsn;
	s = log_find(c->w, next_lsn);
	if (s != NULL)
		s->pins++;
	pthread_mutex_unlock(&c->w->lock);
	take_pin(c, s);
	return DB_OK;
}

uint64_t wal_cursor_held_lsn(struct wal_cursor *c)
{
	return c->segment == NULL ? UINT64_MAX : c->segment->first_lsn; /* constant while it is pinned */
}

enum db_err wal_cursor_next(struct wal_cursor *c, struct wal_record *out, struct errmsg *em)
{
	struct segment *s;
	uint64_t offset;
	enum db_err err;

	pthread_mutex_lock(&c->w->lock);
	err = log_locate(c->w, c->next_lsn, &s, &offset, em);
	if (s == NULL && c->next_lsn < log_first_lsn(c->w)) {
		err = errmsg_set(em, DB_GAP, "record %" PRIu64 " was trimmed, the log begins at %" PRIu64, c->next_lsn,
				 log_first_lsn(c->w));
	} else if (s == NULL && em != NULL) {
		em->err = DB_NOTFOUND; /* the normal end: no message is made, the caller asks often */
	} else if (s != NULL && s == c->segment) {
		s->pins--; /* it has a pin already, and nearly always: spares taking the lock once more */
		s = NULL;
	}
	pthread_mutex_unlock(&c->w->lock);
	if (s != NULL)
		take_pin(c, s);
	if (err == DB_OK)
		err = segment_record(c->segment, c->next_lsn, offset, out, em);
	if (err == DB_OK)
		c->next_lsn++;
	return err;
}

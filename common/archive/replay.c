/* replay.c - see replay.h. */
#include "common/archive/replay.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/store/checksum.h"

/* ---- one record onto the file */

/* The hash of a page as the file has it. */
static enum db_err old_hash(const struct replay_state *s, uint32_t pgno, uint64_t *hash, struct errmsg *em)
{
	uint8_t page[WAL_PAGE_SIZE];
	ssize_t n = pread(s->fd, page, sizeof(page), (off_t)(pgno - 1) * WAL_PAGE_SIZE);

	if (n < 0)
		return errmsg_errno(em, errno, "cannot read page %" PRIu32 " of the copy", pgno);
	if (n != (ssize_t)sizeof(page))
		memset(page + n, 0, sizeof(page) - (size_t)n); /* a hole at the end: zeros */
	*hash = checksum_page(pgno, page);
	return DB_OK;
}

static enum db_err put_page(const struct replay_state *s, uint32_t pgno, const uint8_t *page, struct errmsg *em)
{
	size_t done = 0;
	ssize_t n;

	while (done < WAL_PAGE_SIZE) {
		n = pwrite(s->fd, page + done, WAL_PAGE_SIZE - done, (off_t)(pgno - 1) * WAL_PAGE_SIZE + (off_t)done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errmsg_errno(em, errno, "cannot write page %" PRIu32 " of the copy", pgno);
		done += (size_t)n;
	}
	return DB_OK;
}

static enum db_err apply(struct replay_state *s, const struct wal_record *r, struct errmsg *em)
{
	uint64_t checksum = s->db_checksum, hash;
	enum db_err err = DB_OK;
	uint32_t i, pgno;

	for (pgno = r->db_size_pages + 1; pgno <= s->db_size_pages && err == DB_OK; pgno++) {
		err = old_hash(s, pgno, &hash, em);
		checksum ^= hash;
	}
	for (i = 0; i < r->page_count && err == DB_OK; i++) {
		pgno = wal_record_pgno(r, i);
		hash = 0;
		if (pgno <= s->db_size_pages)
			err = old_hash(s, pgno, &hash, em);
		checksum ^= hash ^ checksum_page(pgno, wal_record_page(r, i));
		if (err == DB_OK)
			err = put_page(s, pgno, wal_record_page(r, i), em);
	}
	if (err == DB_OK && r->db_size_pages != s->db_size_pages &&
	    ftruncate(s->fd, (off_t)r->db_size_pages * WAL_PAGE_SIZE) != 0)
		err = errmsg_errno(em, errno, "cannot resize the copy");
	if (err != DB_OK)
		return err;
	if (checksum != r->db_checksum)
		return errmsg_set(em, DB_CORRUPT,
				  "record %" PRIu64 ": the database's checksum is %016" PRIx64 " after it, %016" PRIx64
				  " at its writer",
				  r->lsn, checksum, r->db_checksum);
	s->pos = (struct wal_pos){.term = r->term, .lsn = r->lsn};
	s->record_checksum = r->checksum;
	s->db_checksum = checksum;
	s->db_size_pages = r->db_size_pages;
	s->time_us = r->time_us;
	return DB_OK;
}

/* ---- which records */

static bool reached(const struct replay_state *s, const struct replay_goal *goal, const struct wal_record *next)
{
	if (goal->until == REPLAY_TO_LSN)
		return s->pos.lsn >= goal->lsn;
	return goal->until == REPLAY_TO_TIME && next != NULL && next->time_us > goal->time_us;
}

/* Skips what the database has already; what it has last must be the same record here. */
static enum db_err skip_to(struct archive_file *f, const struct replay_state *s, struct errmsg *em)
{
	uint64_t checksum = f->header.prev_checksum;
	struct wal_record r;
	enum db_err err = DB_OK;

	while (err == DB_OK && f->next_lsn <= s->pos.lsn) {
		err = archive_file_next(f, &r, em);
		if (err == DB_OK)
			checksum = r.checksum;
	}
	if (err == DB_OK && checksum != s->record_checksum)
		err = errmsg_set(em, DB_INVALID,
				 "archive file \"%s\" belongs to another history: its record %" PRIu64
				 " is not the one that the database holds",
				 f->name, s->pos.lsn);
	return err;
}

struct replay {
	struct replay_state *s;
	const struct replay_goal *goal;
	void (*on_record)(void *arg, const struct wal_record *r);
	void *arg;
	bool done;
};

static enum db_err replay_file(struct replay *p, struct archive_file *f, struct errmsg *em)
{
	struct wal_record r;
	enum db_err err = skip_to(f, p->s, em);

	while (err == DB_OK) {
		err = archive_file_next(f, &r, em);
		if (err == DB_NOTFOUND)
			return DB_OK;
		if (err == DB_OK && reached(p->s, p->goal, &r)) {
			p->done = true;
			return DB_OK;
		}
		if (err == DB_OK)
			err = apply(p->s, &r, em);
		if (err == DB_OK && p->on_record != NULL)
			p->on_record(p->arg, &r);
		p->done = err == DB_OK && reached(p->s, p->goal, NULL);
		if (p->done)
			return DB_OK;
	}
	return err;
}

/* No file holds the next record. */
static enum db_err missing(struct replay *p, const struct archive_list *list, const char *path, struct errmsg *em)
{
	const struct archive_entry *after = archive_list_after(list, p->s->pos.lsn + 1);
	char name[ARCHIVE_NAME_MAX];

	if (after != NULL) {
		archive_name(after->first_lsn, after->last_lsn, name);
		return errmsg_set(em, DB_GAP,
				  "the archive \"%s\" lacks the records %" PRIu64 " to %" PRIu64
				  ": \"%s\" is the next file",
				  path, p->s->pos.lsn + 1, after->first_lsn - 1, name);
	}
	if (p->goal->until == REPLAY_TO_END) {
		p->done = true;
		return DB_OK;
	}
	if (p->goal->until == REPLAY_TO_LSN)
		return errmsg_set(em, DB_GAP, "the archive \"%s\" ends at LSN %" PRIu64 ", before LSN %" PRIu64, path,
				  p->s->pos.lsn, p->goal->lsn);
	return errmsg_set(em, DB_GAP,
			  "the archive \"%s\" ends at LSN %" PRIu64
			  ", and nothing says whether there were later records "
			  "up to that time; ask for that LSN, or for the end",
			  path, p->s->pos.lsn);
}

static enum db_err check_goal(const struct replay_state *s, const struct replay_goal *goal, struct errmsg *em)
{
	if (goal->until == REPLAY_TO_LSN && goal->lsn < s->pos.lsn)
		return errmsg_set(em, DB_INVALID, "the backup is of LSN %" PRIu64 ", later than LSN %" PRIu64,
				  s->pos.lsn, goal->lsn);
	if (goal->until == REPLAY_TO_TIME && s->time_us == 0)
		return errmsg_set(em, DB_INVALID, "the backup does not say of what time it is; ask for an LSN");
	if (goal->until == REPLAY_TO_TIME && goal->time_us < s->time_us)
		return errmsg_set(em, DB_INVALID, "the backup is of a later time than that");
	return DB_OK;
}

enum db_err archive_replay(struct replay_state *s, const char *path, const uint8_t cluster_id[16],
			   const struct replay_goal *goal, void (*on_record)(void *arg, const struct wal_record *r),
			   void *arg, struct errmsg *em)
{
	struct replay p = {.s = s, .goal = goal, .on_record = on_record, .arg = arg};
	const struct archive_entry *entry;
	struct archive_list list;
	struct archive_file f;
	enum db_err err;

	err = check_goal(s, goal, em);
	if (err == DB_OK)
		err = archive_list_read(&list, path, em);
	if (err != DB_OK)
		return err;
	p.done = reached(s, goal, NULL);
	while (err == DB_OK && !p.done) {
		entry = archive_list_find(&list, s->pos.lsn + 1);
		if (entry == NULL) {
			err = missing(&p, &list, path, em);
			continue;
		}
		err = archive_file_open(&f, path, entry, cluster_id, em);
		if (err == DB_OK)
			err = replay_file(&p, &f, em);
		archive_file_close(&f);
	}
	archive_list_fini(&list);
	return err;
}

/*
 * restore.c - `grizzly-supervisor restore`: a data directory for a new cluster, from a backup or any SQLite file, moved
 * forward to a chosen point by archived log if that is wanted.
 *
 * Everything is made in "<D>.restoring" and renamed to D as the last step: D is a whole data directory or not there. The
 * cluster gets an identity of its own, so no node of the old one can join it or be joined; its database begins as the
 * record of term 1 at the LSN that the backup had reached. Every node gets the whole database: whichever of them an
 * election chooses, nothing can be missing.
 *
 * A file that is not a backup of ours (no FILE.json) is checked by SQLite first, and rewritten by it when its form is not
 * the one that the store wants: another page size, WAL mode, a journal beside it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/archive/replay.h"
#include "common/base/buf.h"
#include "common/base/log.h"
#include "common/store/checksum.h"
#include "common/store/dirs.h"
#include "common/store/snapshot_copy.h"
#include "common/store/store.h"
#include "node/standing.h"
#include "supervisor/backup_file.h"
#include "supervisor/commands.h"
#include "supervisor/coordinator.h"
#include "supervisor/time_text.h"

#define WORK_FILE      "restoring.db" /* a copy that is converted or moved forward */
#define FIRST_TERM     1u
#define PIECE_PAGES    256u
#define DB_HEADER_SIZE 100

struct restore {
	const struct restore_options *options;
	char from[PATH_MAX];
	char archive[PATH_MAX];
	char dir[PATH_MAX];     /* D */
	char working[PATH_MAX]; /* <D>.restoring */
	int dir_fd;             /* of working, locked */
	int original_dir;
	bool is_backup; /* FILE.json says what it is */
	struct backup_info info;
	struct cluster_config config;
	struct snapshot_header header; /* of what the nodes get */
	int fd;                        /* where their pages are read */
};

/* ---- the directory */

static enum db_err check_empty(const char *path, struct errmsg *em)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	enum db_err err = DB_OK;

	if (dir == NULL)
		return errno == ENOENT ? DB_OK : errmsg_errno(em, errno, "cannot look into \"%s\"", path);
	while (err == DB_OK && (entry = readdir(dir)) != NULL)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			err = errmsg_set(em, DB_EXISTS, "\"%s\" is not empty: a restore makes a new data directory",
					 path);
	closedir(dir);
	return err;
}

/* The last step renames a directory beside D to D, which a mounted file system does not let happen. */
static enum db_err check_no_mount(const char *path, struct errmsg *em)
{
	char parent[PATH_MAX];
	struct stat here, above;

	snprintf(parent, sizeof(parent), "%.*s/..", PATH_MAX - 8, path);
	if (lstat(path, &here) != 0)
		return errno == ENOENT ? DB_OK : errmsg_errno(em, errno, "cannot look at \"%s\"", path);
	if (S_ISDIR(here.st_mode) && stat(parent, &above) == 0 && here.st_dev == above.st_dev)
		return DB_OK;
	return errmsg_set(em, DB_INVALID, "\"%s\" is a mount point or a link: name a directory below it", path);
}

static enum db_err lock_working(struct restore *r, struct errmsg *em)
{
	r->dir_fd = open(r->working, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->dir_fd < 0)
		return errmsg_errno(em, errno, "cannot open \"%s\"", r->working);
	if (flock(r->dir_fd, LOCK_EX | LOCK_NB) == 0)
		return DB_OK;
	close(r->dir_fd);
	r->dir_fd = -1;
	return errmsg_set(em, DB_BUSY, "another restore works in \"%s\"", r->working);
}

/* What an attempt that was cut short has left goes first. */
static enum db_err make_working(struct restore *r, struct errmsg *em)
{
	enum db_err err = DB_OK;

	if (access(r->working, F_OK) == 0) {
		err = lock_working(r, em);
		if (err == DB_OK)
			err = dirs_remove(r->working, em);
		if (r->dir_fd >= 0)
			close(r->dir_fd);
		r->dir_fd = -1;
	}
	if (err == DB_OK)
		err = datadir_enter(r->working, true, em);
	if (err == DB_OK)
		err = lock_working(r, em);
	return err;
}

static enum db_err resolve(struct restore *r, struct errmsg *em)
{
	size_t len;
	enum db_err err = datadir_absolute(r->from, r->options->from, em);

	if (err == DB_OK && r->options->archive != NULL)
		err = datadir_absolute(r->archive, r->options->archive, em);
	if (err == DB_OK)
		err = datadir_absolute(r->dir, r->options->data_dir, em);
	if (err != DB_OK)
		return err;
	for (len = strlen(r->dir); len > 1 && r->dir[len - 1] == '/'; len--)
		r->dir[len - 1] = '\0';
	if (snprintf(r->working, sizeof(r->working), "%.*s.restoring", PATH_MAX - 16, r->dir) >= PATH_MAX - 1)
		return errmsg_set(em, DB_INVALID, "\"%s\" is too long", r->dir);
	return DB_OK;
}

/* ---- the source */

static enum db_err read_pages(int fd, uint8_t *pages, uint32_t first_pgno, uint32_t count, struct errmsg *em)
{
	size_t want = (size_t)count * WAL_PAGE_SIZE, done = 0;
	ssize_t n;

	while (done < want) {
		n = pread(fd, pages + done, want - done, (off_t)(first_pgno - 1) * WAL_PAGE_SIZE + (off_t)done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return errmsg_errno(em, n < 0 ? errno : EIO, "cannot read page %" PRIu32 " of the database",
					    first_pgno);
		done += (size_t)n;
	}
	return DB_OK;
}

/* Calls use() for every piece of the pages in fd. */
static enum db_err for_pages(int fd, uint32_t size_pages,
			     enum db_err (*use)(void *arg, uint32_t first_pgno, const uint8_t *pages, uint32_t count,
						struct errmsg *em),
			     void *arg, struct errmsg *em)
{
	uint8_t *pages = malloc((size_t)PIECE_PAGES * WAL_PAGE_SIZE);
	enum db_err err = pages == NULL ? errmsg_set(em, DB_NOMEM, "out of memory") : DB_OK;
	uint32_t pgno, count;

	for (pgno = 1; pgno <= size_pages && err == DB_OK; pgno += count) {
		count = size_pages - pgno + 1 < PIECE_PAGES ? size_pages - pgno + 1 : PIECE_PAGES;
		err = read_pages(fd, pages, pgno, count, em);
		if (err == DB_OK)
			err = use(arg, pgno, pages, count, em);
	}
	free(pages);
	return err;
}

static enum db_err add_checksum(void *arg, uint32_t first_pgno, const uint8_t *pages, uint32_t count, struct errmsg *em)
{
	uint64_t *checksum = arg;
	uint32_t i;

	(void)em;
	for (i = 0; i < count; i++)
		*checksum ^= checksum_page(first_pgno + i, pages + (size_t)i * WAL_PAGE_SIZE);
	return DB_OK;
}

static bool has_companion(const char *path, const char *suffix)
{
	char name[PATH_MAX + 16];
	struct stat st;

	snprintf(name, sizeof(name), "%s%s", path, suffix);
	return stat(name, &st) == 0 && st.st_size > 0;
}

/* Whether the store can take the file as it is. */
static enum db_err look_at_form(const struct restore *r, bool *fits, struct errmsg *em)
{
	uint8_t header[DB_HEADER_SIZE];
	struct stat st;
	ssize_t n;

	if (fstat(r->fd, &st) != 0)
		return errmsg_errno(em, errno, "cannot stat \"%s\"", r->from);
	n = pread(r->fd, header, sizeof(header), 0);
	if (n < 0)
		return errmsg_errno(em, errno, "cannot read \"%s\"", r->from);
	if (n != (ssize_t)sizeof(header) || memcmp(header, "SQLite format 3", 16) != 0)
		return errmsg_set(em, DB_INVALID, "\"%s\" is not a SQLite database", r->from);
	*fits = (header[16] << 8 | header[17]) == WAL_PAGE_SIZE && header[18] == 1 && header[19] == 1 &&
		header[20] == 0 && st.st_size % WAL_PAGE_SIZE == 0 && !has_companion(r->from, "-wal") &&
		!has_companion(r->from, "-journal");
	return DB_OK;
}

static enum db_err run_sql(sqlite3 *db, const char *sql, struct errmsg *em)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK
		   ? DB_OK
		   : errmsg_set(em, DB_CORRUPT, "SQLite: %s", sqlite3_errmsg(db));
}

static enum db_err check_with_sqlite(sqlite3 *db, struct errmsg *em)
{
	sqlite3_stmt *statement = NULL;
	enum db_err err = DB_OK;
	const char *text;

	if (sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &statement, NULL) != SQLITE_OK ||
	    sqlite3_step(statement) != SQLITE_ROW) {
		err = errmsg_set(em, DB_CORRUPT, "SQLite: %s", sqlite3_errmsg(db));
	} else {
		text = (const char *)sqlite3_column_text(statement, 0);
		if (text == NULL || strcmp(text, "ok") != 0)
			err = errmsg_set(em, DB_CORRUPT, "it is damaged: %.300s", text == NULL ? "?" : text);
	}
	sqlite3_finalize(statement);
	return err;
}

/* Has SQLite check the file, and rewrite it where its form does not fit: r->fd is then of the new one. */
static enum db_err take_foreign(struct restore *r, bool fits, struct errmsg *em)
{
	sqlite3 *db = NULL;
	enum db_err err;

	if (sqlite3_open_v2(r->from, &db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK)
		err = errmsg_set(em, DB_INVALID, "SQLite: %s", db == NULL ? "out of memory" : sqlite3_errmsg(db));
	else
		err = check_with_sqlite(db, em);
	if (err == DB_OK && !fits)
		err = run_sql(db, "PRAGMA page_size=4096; VACUUM INTO '" WORK_FILE "'", em);
	sqlite3_close(db);
	if (err != DB_OK)
		return errmsg_context(em, "cannot restore \"%s\"", r->from);
	if (fits)
		return DB_OK;
	fprintf(stderr, "grizzly-supervisor: \"%s\" is rewritten with pages of %u bytes\n", r->from, WAL_PAGE_SIZE);
	close(r->fd);
	r->fd = open(WORK_FILE, O_RDWR | O_CLOEXEC);
	return r->fd >= 0 ? DB_OK : errmsg_errno(em, errno, "cannot open \"%s\"", WORK_FILE);
}

/* What fd holds, by its size and pages. */
static enum db_err measure(struct restore *r, struct errmsg *em)
{
	struct stat st;

	if (fstat(r->fd, &st) != 0)
		return errmsg_errno(em, errno, "cannot stat \"%s\"", r->from);
	if (st.st_size % WAL_PAGE_SIZE != 0 || (uint64_t)st.st_size / WAL_PAGE_SIZE > UINT32_MAX)
		return errmsg_set(em, DB_CORRUPT, "\"%s\" has %lld bytes, which is no number of pages", r->from,
				  (long long)st.st_size);
	r->header.db_size_pages = (uint32_t)((uint64_t)st.st_size / WAL_PAGE_SIZE);
	r->header.db_checksum = 0;
	return for_pages(r->fd, r->header.db_size_pages, add_checksum, &r->header.db_checksum, em);
}

static enum db_err check_backup(const struct restore *r, struct errmsg *em)
{
	if ((uint64_t)r->header.db_size_pages * WAL_PAGE_SIZE == r->info.size_bytes &&
	    r->header.db_checksum == r->info.db_checksum)
		return DB_OK;
	return errmsg_set(
	    em, DB_CORRUPT,
	    "\"%s\" is not the database that \"%s.json\" describes: it is damaged, or was changed. To restore "
	    "it nevertheless, as an ordinary file, move the .json away",
	    r->from, r->from);
}

static enum db_err open_source(struct restore *r, struct errmsg *em)
{
	bool fits = true;
	enum db_err err = backup_info_load(&r->info, r->from, em);

	if (err != DB_OK && err != DB_NOTFOUND)
		return err;
	r->is_backup = err == DB_OK;
	r->fd = open(r->from, O_RDONLY | O_CLOEXEC);
	if (r->fd < 0)
		return errmsg_errno(em, errno, "cannot open \"%s\"", r->from);
	err = r->is_backup ? DB_OK : look_at_form(r, &fits, em);
	if (err == DB_OK && !r->is_backup)
		err = take_foreign(r, fits, em);
	if (err == DB_OK)
		err = measure(r, em);
	if (err == DB_OK && r->is_backup)
		err = check_backup(r, em);
	return err;
}

/* ---- archived log */

static enum db_err copy_piece(void *arg, uint32_t first_pgno, const uint8_t *pages, uint32_t count, struct errmsg *em)
{
	const int *fd = arg;
	size_t len = (size_t)count * WAL_PAGE_SIZE;
	off_t at = (off_t)(first_pgno - 1) * WAL_PAGE_SIZE;
	ssize_t n;

	while (len > 0) {
		n = pwrite(*fd, pages, len, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errmsg_errno(em, errno, "cannot write the copy");
		pages += n;
		at += n;
		len -= (size_t)n;
	}
	return DB_OK;
}

static enum db_err copy_to_work(struct restore *r, struct errmsg *em)
{
	int fd = open(WORK_FILE, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	enum db_err err;

	if (fd < 0)
		return errmsg_errno(em, errno, "cannot create a copy of \"%s\"", r->from);
	err = for_pages(r->fd, r->header.db_size_pages, copy_piece, &fd, em);
	close(r->fd);
	r->fd = fd;
	return err;
}

static enum db_err replay(struct restore *r, struct errmsg *em)
{
	struct replay_state s = {.pos = r->info.pos,
				 .record_checksum = r->info.record_checksum,
				 .db_checksum = r->info.db_checksum,
				 .time_us = r->info.time_us,
				 .db_size_pages = r->header.db_size_pages};
	char *path;
	enum db_err err;

	if (!r->is_backup)
		return errmsg_set(em, DB_INVALID,
				  "\"%s.json\" is missing: without it nobody knows which archived records come next",
				  r->from);
	err = copy_to_work(r, em);
	if (err != DB_OK)
		return err;
	s.fd = r->fd;
	path = archive_path(r->archive, r->info.cluster_id);
	if (path == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	err = archive_replay(&s, path, r->info.cluster_id, &r->options->goal, NULL, NULL, em);
	free(path);
	r->header.db_checksum = s.db_checksum;
	r->header.db_size_pages = s.db_size_pages;
	r->info.pos = s.pos;
	r->info.time_us = s.time_us;
	return err;
}

/* ---- the nodes */

static enum db_err put_piece(void *arg, uint32_t first_pgno, const uint8_t *pages, uint32_t count, struct errmsg *em)
{
	return snapshot_target_write(arg, first_pgno, pages, (size_t)count * WAL_PAGE_SIZE, em);
}

static enum db_err make_node(struct restore *r, unsigned node, struct errmsg *em)
{
	struct snapshot_target *target;
	char name[16];
	enum db_err err;

	snprintf(name, sizeof(name), "node%u", node);
	err = snapshot_target_create(&target, name, &r->header, r->config.cluster_id, NULL, em);
	if (err != DB_OK)
		return err;
	err = for_pages(r->fd, r->header.db_size_pages, put_piece, target, em);
	if (err == DB_OK)
		err = snapshot_target_finish(target, em);
	snapshot_target_free(target);
	return err == DB_OK ? standing_write(name, STANDING_WHOLE, em) : err;
}

/* The term is used up, so that the first election takes the next one. */
static enum db_err write_term(const struct restore *r, struct errmsg *em)
{
	const struct coordinator_state state = {.term = FIRST_TERM, .nodes = config_node_count(&r->config)};
	struct coordinator_state found;
	struct coordinator k;
	enum db_err err = coordinator_open(&k, DATADIR_TERM, &found, em);

	if (err != DB_OK)
		return err;
	err = coordinator_store(&k, &state, em);
	coordinator_close(&k);
	return err;
}

static enum db_err make_nodes(struct restore *r, struct errmsg *em)
{
	unsigned node;
	enum db_err err = DB_OK;

	r->header.pos = (struct wal_pos){.term = FIRST_TERM, .lsn = r->info.pos.lsn > 0 ? r->info.pos.lsn : 1};
	r->header.time_us = r->info.time_us;
	/* The chain of the new cluster's log begins with a number that no other one has. */
	r->header.record_checksum = load_u64le(r->config.cluster_id);
	for (node = 1; node <= config_node_count(&r->config) && err == DB_OK; node++)
		err = make_node(r, node, em);
	return err == DB_OK ? write_term(r, em) : err;
}

/* ---- the command */

static enum db_err put_in_place(struct restore *r, struct errmsg *em)
{
	if (unlink(WORK_FILE) != 0 && errno != ENOENT)
		return errmsg_errno(em, errno, "cannot remove \"%s\"", WORK_FILE);
	if (fsync(r->dir_fd) != 0)
		return errmsg_errno(em, errno, "cannot sync \"%s\"", r->working);
	if (rename(r->working, r->dir) != 0) /* over an empty directory, or to where nothing is */
		return errmsg_errno(em, errno, "cannot rename \"%s\" to \"%s\"", r->working, r->dir);
	return dirs_sync_parent(r->dir, em);
}

static enum db_err make_datadir(struct restore *r, struct errmsg *em)
{
	struct datadir_options options = r->options->config;
	enum db_err err;

	options.new_cluster = true;
	err = check_empty(r->dir, em);
	if (err == DB_OK)
		err = check_no_mount(r->dir, em);
	if (err == DB_OK)
		err = make_working(r, em);
	if (err == DB_OK)
		err = datadir_config(&r->config, &options, r->original_dir, em);
	if (err == DB_OK)
		err = open_source(r, em);
	if (err == DB_OK && r->options->archive != NULL)
		err = replay(r, em);
	if (err == DB_OK)
		err = make_nodes(r, em);
	return err == DB_OK ? put_in_place(r, em) : err;
}

static void clean_up(struct restore *r, bool made)
{
	struct errmsg em = {0};

	if (r->fd >= 0)
		close(r->fd);
	if (r->dir_fd >= 0 && !made && dirs_remove(r->working, &em) != DB_OK)
		fprintf(stderr, "grizzly-supervisor: %s\n", em.text);
	if (r->dir_fd >= 0)
		close(r->dir_fd);
	if (r->original_dir >= 0)
		close(r->original_dir);
}

static void print_result(const struct restore *r)
{
	char time[TIME_TEXT_MAX];

	time_text_put(r->header.time_us, time);
	printf("restored lsn=%" PRIu64 " time=%s (%" PRIu64 " bytes) for %u node%s in %s\n", r->header.pos.lsn, time,
	       (uint64_t)r->header.db_size_pages * WAL_PAGE_SIZE, config_node_count(&r->config),
	       config_node_count(&r->config) == 1 ? "" : "s", r->dir);
}

enum exit_code command_restore(const struct restore_options *options)
{
	struct restore *r = calloc(1, sizeof(*r));
	struct errmsg em = {0};
	enum exit_code code = EXIT_OK;
	enum db_err err;

	log_init("restore", LOG_LEVEL_WARN);
	if (r == NULL) {
		fprintf(stderr, "grizzly-supervisor: out of memory\n");
		return EXIT_FAILED;
	}
	r->options = options;
	r->fd = r->dir_fd = -1;
	r->original_dir = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	err = r->original_dir < 0 ? errmsg_errno(&em, errno, "cannot open the current directory") : resolve(r, &em);
	if (err == DB_OK)
		err = make_datadir(r, &em);
	clean_up(r, err == DB_OK);
	if (err == DB_OK) {
		print_result(r);
	} else {
		fprintf(stderr, "grizzly-supervisor: %s\n", em.text);
		code = err == DB_INVALID ? EXIT_USAGE : EXIT_FAILED;
	}
	free(r);
	return code;
}

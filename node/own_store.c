/* own_store.c - see own_store.h. */
#include "node/own_store.h"

#include <string.h>

#include "common/base/log.h"
#include "node/readable.h"

static enum db_err try_open(struct own_store *o, struct errmsg *em)
{
	struct store_options options = {.dir = o->options.dir,
					.segment_size_bytes = o->options.config->store.segment_size_bytes,
					.checkpoint_bytes = o->options.config->store.checkpoint_bytes,
					.transaction_bytes_max = o->options.config->store.transaction_bytes_max,
					.low_space_bytes = o->options.config->store.low_space_bytes,
					.pulse = disk_watch_pulse(o->options.disk),
					.timings = o->options.timings};
	enum db_err err;

	memcpy(options.cluster_id, o->options.config->cluster_id, sizeof(options.cluster_id));
	err = store_open(&o->store, &options, em);
	if (err == DB_OK)
		err = store_set_cluster_id(o->store, o->options.config->cluster_id, em);
	return err == DB_OK ? DB_OK : errmsg_context(em, "cannot open %s", o->options.dir);
}

enum db_err own_store_set_standing(struct own_store *o, enum standing standing, struct errmsg *em)
{
	enum db_err err = o->standing == standing ? DB_OK : standing_write(o->options.dir, standing, em);

	if (err == DB_OK)
		o->standing = standing;
	return err;
}

/* A store that cannot be relied on makes way for an empty one, which the master will fill; until then this node does not
 * count. Each step is safe to be the last: what is WRONG is set aside at the next start. */
static enum db_err start_rebuilding(struct own_store *o, bool set_aside, struct errmsg *em)
{
	bool keep = o->standing != STANDING_REBUILD;
	enum db_err err = DB_OK;

	if (keep && set_aside)
		err = own_store_set_standing(o, STANDING_WRONG, em);
	if (err == DB_OK && set_aside)
		err = standing_set_aside(o->options.dir, keep, em);
	if (err == DB_OK)
		err = own_store_set_standing(o, STANDING_REBUILD, em);
	return err;
}

/* What the end of the process before, by a page that the disk did not deliver, means for the store. */
enum doubt { DOUBT_NONE, DOUBT_READABLE, DOUBT_UNREADABLE };

/* A process before this one ended because a page of its files could not be read, or opening them just failed: are they
 * really unreadable? True: the store is to be rebuilt. Without others to rebuild it from it is used as it is. */
static bool is_unreadable(struct own_store *o)
{
	struct errmsg em = {0};
	enum db_err err = readable_check(o->options.dir, &em);

	if (err == DB_IO) {
		log_error("%s", em.text);
		return true;
	}
	log_info("%s: %s", o->options.dir, err == DB_OK ? "every byte of it can be read" : em.text);
	return false;
}

/* The mark that it left. */
static enum doubt look_at_mark(struct own_store *o)
{
	char why[ERRMSG_TEXT_MAX];

	if (!readable_is_doubted(o->options.dir, why))
		return DOUBT_NONE;
	log_warn("reads %s whole, for the process before ended so: %s", o->options.dir, why);
	return is_unreadable(o) ? DOUBT_UNREADABLE : DOUBT_READABLE;
}

/* Pages that come without an error may still be others than were written: a file that had lost its end and was made longer
 * again by a checkpoint has zeros there. DB_CORRUPT. */
static enum db_err check_content(struct own_store *o, struct errmsg *em)
{
	struct store_status status;
	uint64_t checksum;
	enum db_err err = store_verify(o->store, &checksum, em);

	if (err != DB_OK)
		return err;
	store_get_status(o->store, &status);
	if (checksum != status.db_checksum)
		return errmsg_set(em, DB_CORRUPT, "%s can be read, but holds other pages than were written",
				  o->options.dir);
	log_info("%s holds what was written", o->options.dir);
	return DB_OK;
}

/* An error of the disk when the store was opened: of one that cannot be read another can be made. */
static bool calls_for_rebuilding(struct own_store *o, enum db_err err)
{
	return err == DB_CORRUPT || (err == DB_IO && is_unreadable(o));
}

static enum db_err open_replicated_store(struct own_store *o, struct errmsg *em)
{
	enum standing_store there;
	enum doubt doubt;
	enum db_err err = standing_read(o->options.dir, &o->standing, em);

	if (err != DB_OK)
		return err;
	doubt = look_at_mark(o);
	there = standing_look(o->options.dir);
	if (doubt == DOUBT_UNREADABLE) {
		log_error("%s cannot be read: it is rebuilt from the master's", o->options.dir);
		err = start_rebuilding(o, true, em);
	} else if (there == STANDING_STORE_NONE && o->standing != STANDING_NEW) {
		log_error("%s is empty, though this node had a database: it is rebuilt from the master's",
			  o->options.dir);
		err = start_rebuilding(o, false, em);
	} else if (there == STANDING_STORE_NO_META) {
		log_error("%s/store.meta is gone: the store is rebuilt from the master's", o->options.dir);
		err = start_rebuilding(o, true, em);
	} else if (o->standing == STANDING_WRONG) {
		log_error("%s differed from the master's database: it is rebuilt", o->options.dir);
		err = start_rebuilding(o, true, em);
	}
	if (err == DB_OK)
		err = try_open(o, em);
	if (err == DB_OK && doubt == DOUBT_READABLE)
		err = check_content(o, em);
	if (calls_for_rebuilding(o, err)) {
		log_error("%s: the store is rebuilt from the master's", em->text);
		store_close(o->store);
		o->store = NULL;
		err = start_rebuilding(o, true, em);
		if (err == DB_OK)
			err = try_open(o, em);
	}
	if (err == DB_OK && doubt != DOUBT_NONE)
		err = readable_settle(o->options.dir, em);
	if (err == DB_OK && o->standing == STANDING_NEW)
		err = own_store_set_standing(o, STANDING_WHOLE, em);
	return err;
}

/* There is nobody to rebuild it from: what can be read is used, and who reads the rest ends the process again. */
static enum db_err open_single_store(struct own_store *o, struct errmsg *em)
{
	enum doubt doubt = look_at_mark(o);
	enum db_err err = try_open(o, em);

	if (err != DB_OK || doubt != DOUBT_READABLE)
		return err;
	if (check_content(o, em) != DB_OK)
		log_error("%s", em->text);
	return readable_settle(o->options.dir, em);
}

enum db_err own_store_open(struct own_store *o, const struct own_store_options *options, struct errmsg *em)
{
	o->options = *options;
	return options->alone ? open_single_store(o, em) : open_replicated_store(o, em);
}

enum db_err own_store_replace(struct own_store *o, struct snapshot_target *snapshot, uint64_t last_lsn,
			      struct errmsg *em)
{
	enum standing after = standing_after_snapshot(o->standing, last_lsn, snapshot_target_lsn(snapshot));
	enum db_err err = DB_OK;

	if (o->standing != STANDING_WRONG) /* a wrong store is called so until it is gone */
		err = own_store_set_standing(o, after, em);
	if (err == DB_OK)
		err = snapshot_target_keep(snapshot, "term", em);
	if (err == DB_OK)
		err = snapshot_target_finish(snapshot, em);
	if (err == DB_OK)
		err = own_store_set_standing(o, after, em);
	if (err == DB_OK)
		log_info("ends, to be started again with the snapshot");
	return err;
}

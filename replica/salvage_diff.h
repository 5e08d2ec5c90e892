/*
 * salvage_diff.h - what one state of a database has that another has not, as lines of JSON a person can read.
 *
 * The two states are two connections of one store (store_open_reader_at()). Tables none of whose pages changed are left
 * out, by SQLite's dbstat; of the others every row is compared by its rowid or primary key. A line is one of
 *   {"op":"create"|"drop"|"alter","type":"table"|"index"|…,"name":"…","sql":"…","old_sql":"…"}
 *   {"op":"insert"|"update"|"delete","table":"…","rowid":n or "key":{…},"old":{…},"new":{…}}
 * with values as in the answers of docs/protocol.md. Contents of virtual tables show as those of their shadow tables.
 *
 * Takes time in proportion to the tables that changed, hence the deadline; memory for a row of each side. Any thread.
 */
#ifndef GRIZZLY_REPLICA_SALVAGE_DIFF_H
#define GRIZZLY_REPLICA_SALVAGE_DIFF_H

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

struct salvage_diff {
	sqlite3 *before;
	sqlite3 *after;
	const uint8_t *changed; /* a bit for each page number that differs, page 1 being bit 1; borrowed */
	uint32_t changed_max;   /* the highest page number it has a bit for */
	uint64_t deadline_ms;   /* clock_mono_ms() */
	uint64_t bytes_max;     /* of all lines */
	enum db_err (*write)(void *arg, const void *bytes, size_t len, struct errmsg *em);
	void *arg;
	/* results, valid as far as it came */
	uint64_t schema_changes, inserts, updates, deletes;
};

/* DB_TIMEOUT: past the deadline. DB_TOO_LARGE: more than bytes_max. Whatever write() returns. DB_CORRUPT, DB_IO, DB_NOMEM. */
enum db_err salvage_diff(struct salvage_diff *d, struct errmsg *em);

#endif

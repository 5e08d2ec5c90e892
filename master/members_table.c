/* members_table.c - see members_table.h. */
#include "master/members_table.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "common/base/log.h"

#define TABLE "_grizzly_members"

static void put_cluster(char out[33], const uint8_t cluster_id[16])
{
	size_t i;

	for (i = 0; i < 16; i++)
		snprintf(out + 2 * i, 3, "%02x", cluster_id[i]);
}

void members_table_put_sql(struct buf *out, const struct members *members, const uint8_t cluster_id[16])
{
	const char *separator = "";
	char cluster[33];
	unsigned n;

	put_cluster(cluster, cluster_id);
	buf_puts(out, "CREATE TABLE IF NOT EXISTS " TABLE "(node INTEGER PRIMARY KEY, state TEXT NOT NULL, "
		      "http_port INTEGER NOT NULL, replication_port INTEGER NOT NULL, ack_port INTEGER NOT NULL, "
		      "version INTEGER NOT NULL, cluster TEXT NOT NULL); DELETE FROM " TABLE "; INSERT INTO " TABLE
		      "(node, state, http_port, replication_port, ack_port, version, cluster) VALUES ");
	for (n = 0; n < MEMBERS_MAX; n++) {
		const struct members_entry *e = &members->entries[n];

		if (e->state == MEMBERS_NONE)
			continue;
		buf_printf(out, "%s(%u, '%s', %u, %u, %u, %" PRIu64 ", '%s')", separator, n + 1,
			   members_state_name(e->state), e->http_port, e->replication_port, e->ack_port,
			   members->version, cluster);
		separator = ", ";
	}
	buf_put(out, "", 1);
}

static bool take_port(sqlite3_stmt *stmt, int column, uint16_t *out)
{
	sqlite3_int64 v = sqlite3_column_int64(stmt, column);

	*out = (uint16_t)v;
	return v > 0 && v <= UINT16_MAX;
}

/* One row. False: it makes no sense. */
static bool take_row(struct members *m, sqlite3_stmt *stmt)
{
	sqlite3_int64 node = sqlite3_column_int64(stmt, 0);
	const char *state = (const char *)sqlite3_column_text(stmt, 1);
	sqlite3_int64 version = sqlite3_column_int64(stmt, 5);
	struct members_entry *e;

	if (node < 1 || node > MEMBERS_MAX || version < 1 || state == NULL ||
	    (m->version != 0 && m->version != (uint64_t)version))
		return false;
	m->version = (uint64_t)version;
	e = &m->entries[node - 1];
	return members_state_parse(state, &e->state) && take_port(stmt, 2, &e->http_port) &&
	       take_port(stmt, 3, &e->replication_port) && take_port(stmt, 4, &e->ack_port);
}

static enum db_err take_rows(struct members *out, sqlite3 *db, sqlite3_stmt *stmt, struct errmsg *em)
{
	bool sane = true;
	int rc;

	while ((rc = sqlite3_step(stmt)) == SQLITE_ROW)
		sane = sane && take_row(out, stmt);
	if (rc != SQLITE_DONE)
		return errmsg_set(em, DB_IO, "cannot read " TABLE ": %s", sqlite3_errmsg(db));
	if (sane && members_valid(out))
		return DB_OK;
	log_error("the rows of " TABLE " make no sense: they are ignored");
	memset(out, 0, sizeof(*out));
	return DB_OK;
}

static bool has_table(sqlite3 *db)
{
	return sqlite3_table_column_metadata(db, "main", TABLE, "cluster", NULL, NULL, NULL, NULL, NULL) == SQLITE_OK;
}

enum db_err members_table_read(struct members *out, struct store *store, const uint8_t cluster_id[16],
			       struct errmsg *em)
{
	static const char sql[] =
	    "SELECT node, state, http_port, replication_port, ack_port, version FROM " TABLE " WHERE cluster = ?1";
	sqlite3_stmt *stmt = NULL;
	sqlite3 *db = NULL;
	char cluster[33];
	enum db_err err;

	memset(out, 0, sizeof(*out));
	err = store_open_writer(store, &db, em); /* readers do not see what is not committed */
	if (err != DB_OK)
		return err;
	if (!has_table(db))
		goto close_db; /* the members never changed */
	put_cluster(cluster, cluster_id);
	if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK ||
	    sqlite3_bind_text(stmt, 1, cluster, -1, SQLITE_STATIC) != SQLITE_OK)
		err = errmsg_set(em, DB_IO, "cannot read " TABLE ": %s", sqlite3_errmsg(db));
	else
		err = take_rows(out, db, stmt, em);
	sqlite3_finalize(stmt); /* says again what was said before */
close_db:
	sqlite3_close(db);
	return err;
}

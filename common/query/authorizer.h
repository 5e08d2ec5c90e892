/*
 * authorizer.h - what SQL may not do here, and why.
 *
 * SQLite asks it about every action of a statement while the statement is prepared, and again when something is prepared
 * in the middle of a step (a changed schema, a virtual table's own statements). What it denies fails with SQLITE_AUTH,
 * and the reason is kept for the message. One per connection, on the connection's thread.
 */
#ifndef GRIZZLY_COMMON_QUERY_AUTHORIZER_H
#define GRIZZLY_COMMON_QUERY_AUTHORIZER_H

#include <sqlite3.h>
#include <stdbool.h>

enum authorizer_phase {
	AUTHORIZER_PREPARE, /* a client's statement is being prepared: every rule holds */
	AUTHORIZER_STEP,    /* one is running: what SQLite prepares now is mostly its own; SAVEPOINT is allowed */
	AUTHORIZER_TRUSTED, /* our own statements, and VACUUM's inner ones: everything is allowed */
};

/* Said of tables whose names begin with RECEIPTS_PREFIX. */
#define AUTHORIZER_OURS                                                                                                \
	"tables named _grizzly_... are the cluster's own: they may be read, not written, and no CREATE, ALTER or "     \
	"DROP "                                                                                                        \
	"may name them"

struct authorizer {
	enum authorizer_phase phase;
	bool pragma_writes;         /* seen while preparing: the statement is a PRAGMA that changes the database */
	bool pragma_writes_allowed; /* in phase STEP: the running statement is such a PRAGMA itself */
	char reason[192];           /* of the last denial, for the client */
};

void authorizer_install(struct authorizer *a, sqlite3 *db); /* a outlives db's use of it */

/* Forgets the last statement and enters a phase. */
void authorizer_enter(struct authorizer *a, enum authorizer_phase phase);

#endif

/*
 * remote_vtab.h - units of a remote_query as SQLite's virtual tables: what they can be asked, and their rows.
 *
 * Each unit is a module of its own, whose one table has the module's name ("host:port@table") and is there without being
 * created. Modules are registered before the statements are prepared and removed after they are finalised.
 */
#ifndef GRIZZLY_COMMON_REMOTE_REMOTE_VTAB_H
#define GRIZZLY_COMMON_REMOTE_REMOTE_VTAB_H

#include "common/remote/remote_query.h"

/* Makes all units known to q->db. An SQLite result code. */
int remote_vtab_register(struct remote_query *q);
/* No statement that names one of them is prepared any more. */
void remote_vtab_unregister(struct remote_query *q);

/* xBestIndex of a unit's table: makes SQLite's offer a remote_plan. In remote_choose.c. */
int remote_choose(struct remote_unit *unit, sqlite3_index_info *info);

#endif

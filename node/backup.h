/*
 * backup.h - GET /backup: the whole database as of one LSN, streamed as an ordinary SQLite file while everything goes on.
 *
 * The visible snapshot is pinned when the request comes, so the answer's head can say beforehand what the body will be:
 * its length, the LSN, and the checksum over all pages. A client that got fewer bytes, or others, knows it. Each transfer
 * has a thread of its own, which waits for the client and for nothing else; there are at most BACKUPS_MAX at a time.
 *
 * While one runs, no checkpoint passes its LSN and the log grows. A client that takes nothing for BACKUP_STALL_MS is cut
 * off, and so is a transfer that holds the log when that has reached its cap.
 */
#ifndef GRIZZLY_NODE_BACKUP_H
#define GRIZZLY_NODE_BACKUP_H

#include <stdint.h>

#include "common/base/err.h"
#include "common/http/server.h"
#include "common/store/store.h"

#define BACKUPS_MAX     2u
#define BACKUP_STALL_MS 30000u

struct backups;

struct backups_options {
	struct store *store;
	const char *node_id;       /* these two are borrowed */
	const uint8_t *cluster_id; /* 16 bytes */
};

enum db_err backups_create(struct backups **out, const struct backups_options *options, struct errmsg *em);
/* After the HTTP server has closed its connections (which ends the transfers), before store_close(). NULL is fine. */
void backups_free(struct backups *b);
/* The log has reached its cap: transfers that hold records below keep_lsn are broken off. Any thread. */
void backups_cut(struct backups *b, uint64_t keep_lsn);
/* Answers, at once or in time: OVERLOADED when enough run already. On the worker's thread. */
void backups_on_request(struct backups *b, struct http_request *req);

#endif

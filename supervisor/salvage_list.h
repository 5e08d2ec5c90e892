/*
 * salvage_list.h - the salvaged tails that lie in the data directory, for status, the salvage command and the timeline.
 *
 * What a node keeps before it cuts its log (replica/salvage.h) stays until the operator removes the files; that is also
 * how it is acknowledged. Reads directories and the files' header lines, nothing else. Any thread.
 */
#ifndef GRIZZLY_SUPERVISOR_SALVAGE_LIST_H
#define GRIZZLY_SUPERVISOR_SALVAGE_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define SALVAGE_LIST_MAX 64 /* files of one node that are told of; there is hardly ever more than one */

struct salvage_file {
	char path[160]; /* of the change file, relative to the data directory */
	char raw[160];  /* of the records beside it */
	bool readable;  /* its header is; else all below says nothing */
	bool complete;  /* every change is in it */
	bool certain;   /* the cluster certainly lacks these records */
	char time[40];
	char reason[160];
	uint64_t first_lsn, last_lsn, schema_changes, inserts, updates, deletes;
};

struct salvage_files {
	size_t count;
	struct salvage_file items[SALVAGE_LIST_MAX]; /* oldest first */
};

/* Those of node n, from 0. None: DB_OK and count 0. DB_IO: the directory cannot be read. */
enum db_err salvage_list(struct salvage_files *out, unsigned node, struct errmsg *em);
/* Changes whenever a file comes or goes; 0: there is no directory. */
uint64_t salvage_stamp(unsigned node);
/* "2 inserted, 1 updated, 0 deleted rows" and the like, for a person. */
void salvage_describe(const struct salvage_file *f, char *out, size_t size);

#endif

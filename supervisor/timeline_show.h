/*
 * timeline_show.h - prints the timeline of the data directory that the process works in.
 */
#ifndef GRIZZLY_SUPERVISOR_TIMELINE_SHOW_H
#define GRIZZLY_SUPERVISOR_TIMELINE_SHOW_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"

struct timeline_view {
	bool json;   /* the lines as they are instead of a table */
	bool follow; /* go on with what comes */
	size_t last; /* only so many lines; 0: all */
};

/* To stdout, oldest first. DB_NOTFOUND: there is no timeline. DB_IO, DB_NOMEM. */
enum db_err timeline_show(const struct timeline_view *view, struct errmsg *em);

#endif

/*
 * replace.h - the supervisor becomes another program: an upgrade that nobody else notices.
 *
 * The nodes run on, as they do when a supervisor dies, and the program that takes its place adopts them. It has the same
 * process id, so that a service manager sees nothing, and the nodes are still its children. Loop thread.
 */
#ifndef GRIZZLY_SUPERVISOR_REPLACE_H
#define GRIZZLY_SUPERVISOR_REPLACE_H

#include "common/base/err.h"

/* Whether that could be run. DB_INVALID: no absolute path; DB_NOTFOUND: no program there that we may run. */
enum db_err replace_check(const char *program, struct errmsg *em);
/* Runs `program run --data-dir data_dir` in this process: returns only when that failed, and everything is as it was. */
enum db_err replace_run(const char *program, const char *data_dir, struct errmsg *em);

#endif

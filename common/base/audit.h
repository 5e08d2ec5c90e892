/*
 * audit.h - who had what done: one JSON object a line, appended to log/audit.jsonl in the data directory.
 *
 *   {"time","process","action","detail","by","outcome"[,"request_id"]}
 *
 * For what an administrator does: starts, stops, switchovers, changes of the members, reloads, backups, recoveries, tokens.
 * by is a user of this host, a signal, or the holder of a token, by the token's name; request_id that of the HTTP request
 * which the thread works for (log.h). The file is opened for each line, so that it may be rotated at any time, and a line is
 * one write. One that root makes belongs to the owner of the data directory, whose processes go on with it. The process must
 * work inside the data directory. Any thread.
 */
#ifndef GRIZZLY_COMMON_BASE_AUDIT_H
#define GRIZZLY_COMMON_BASE_AUDIT_H

#include <stddef.h>

#define AUDIT_PATH   "log/audit.jsonl"
#define AUDIT_BY_MAX 192

/* detail and outcome may be empty. A line that cannot be written is logged in its place: what was asked for goes on. */
void audit_write(const char *process, const char *action, const char *detail, const char *by, const char *outcome);

/* Who runs this process, for by: "alice (uid 1000, pid 4711)", of sudo the user behind it. */
void audit_user(char *out, size_t size);

#endif

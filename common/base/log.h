/*
 * log.h - log lines on stderr: "2026-01-31T12:00:00.123Z node1 info walsender node2 streaming why="gap"".
 *
 * One line per decision, no line per frame except at debug, never a token or row data. The supervisor points each
 * process's stderr at its file below log/. A line is one write(2), so lines of several threads never mix. As JSON a line
 * is an object with "time", "process", "level" and "text", the request's id, and the fields of log_event(). The name, the
 * level and the form are the one piece of process state outside main(): the name is set once, before the first thread
 * starts; level and form may be changed at any time, by any thread.
 *
 * A thread that works for a client's request says so with log_set_request_id(), and its lines, however deep below they are
 * written, have a field request_id until it says otherwise. Whoever sets it clears it before the thread turns to something
 * else; nothing is formatted or allocated for it unless a line is written.
 */
#ifndef GRIZZLY_COMMON_BASE_LOG_H
#define GRIZZLY_COMMON_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h" /* PRINTF_LIKE */

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

/* name: which process speaks ("node1", "supervisor"); copied, cut at 31 bytes. */
void log_init(const char *name, enum log_level level);
/* Of what is logged from now on. */
void log_set(enum log_level level, enum log_format format);
/* Whether a line of that level would be written: for callers whose lines are dear to put together. */
bool log_is_wanted(enum log_level level);

#define LOG_REQUEST_ID_MAX 64 /* bytes; what is longer is cut */

/* Lines of this thread are on behalf of that request from now on; copied. NULL: of none. */
void log_set_request_id(const char *id);
/* What was set last; "": none. The thread's own, changes with the next call above. */
const char *log_request_id(void);
/* "debug", "info", "warn", "error". */
const char *log_level_name(enum log_level level);

/* Each writes one line; a failed write is ignored, for there is nobody left to tell. Any thread. */
void log_debug(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_info(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_warn(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_error(const char *fmt, ...) PRINTF_LIKE(1, 2);

struct log_field {
	const char *key;   /* a word */
	const char *value; /* any text */
};

/* A line whose parts programs want: text "event key=value key="two words"", as JSON a member for each field. What is
 * beyond the length of a line is cut. */
void log_event(enum log_level level, const char *event, const struct log_field *fields, size_t count);

#endif

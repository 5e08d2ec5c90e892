/*
 * log.h - log lines on stderr: "2026-01-31T12:00:00.123Z node1 info walsender node2 streaming why="gap"".
 *
 * One line per decision, no line per frame except at debug, never a token or row data. The supervisor points each
 * process's stderr at its file below log/. A line is one write(2), so lines of several threads never mix. The name and
 * the level are the one piece of process state outside main(): set them once, before the first thread starts.
 */
#ifndef GRIZZLY_COMMON_BASE_LOG_H
#define GRIZZLY_COMMON_BASE_LOG_H

#include "common/base/err.h" /* PRINTF_LIKE */

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

/* name: which process speaks ("node1", "supervisor"); copied, cut at 31 bytes. */
void log_init(const char *name, enum log_level level);

/* Each writes one line; a failed write is ignored, for there is nobody left to tell. Any thread. */
void log_debug(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_info(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_warn(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_error(const char *fmt, ...) PRINTF_LIKE(1, 2);

#endif

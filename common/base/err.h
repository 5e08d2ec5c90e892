/*
 * err.h - the one list of internal errors, and messages that gain context as they rise.
 *
 * Every fallible function of the project returns an enum db_err (DB_OK is 0) and, where a person will read the reason,
 * fills a struct errmsg. What a client sees over HTTP is a different list (common/query/answer.h): a client's codes are
 * a contract, these are ours to extend. The idea of one list that yields code and text is from canonical/raft's err.h.
 */
#ifndef GRIZZLY_COMMON_BASE_ERR_H
#define GRIZZLY_COMMON_BASE_ERR_H

#include <stdarg.h>

#define MUST_CHECK                      __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt_arg, first_arg) __attribute__((format(printf, fmt_arg, first_arg)))

/* X(code, short text). The text is what an errmsg says when nobody said more. */
#define DB_ERR_LIST(X)                                                                                                 \
	X(DB_OK, "ok")                                                                                                 \
	X(DB_NOMEM, "out of memory")                                                                                   \
	X(DB_IO, "input/output error")                                                                                 \
	X(DB_FULL, "no space left on device")                                                                          \
	X(DB_CORRUPT, "data is corrupt")                                                                               \
	X(DB_INVALID, "invalid argument or message")                                                                   \
	X(DB_NOTFOUND, "not found")                                                                                    \
	X(DB_EXISTS, "exists already")                                                                                 \
	X(DB_TOO_LARGE, "too large")                                                                                   \
	X(DB_TIMEOUT, "timed out")                                                                                     \
	X(DB_BUSY, "busy")                                                                                             \
	X(DB_GAP, "a record is missing")                                                                               \
	X(DB_STALE_TERM, "superseded by a newer term")                                                                 \
	X(DB_DIVERGED, "database differs from the master's")                                                           \
	X(DB_UNAVAILABLE, "peer cannot be reached")                                                                    \
	X(DB_CLOSED, "closed")

enum db_err {
#define X(code, text) code,
	DB_ERR_LIST(X)
#undef X
};

#define ERRMSG_TEXT_MAX 512

/* A caller-owned error report; zero-initialise it, nothing to free. */
struct errmsg {
	enum db_err err;
	char text[ERRMSG_TEXT_MAX]; /* NUL-terminated, cut when too long */
};

/* The short text of an error; a static string, never NULL. */
const char *db_err_text(enum db_err err);

/* Each of these fills *em (NULL is allowed: then the text is dropped) and returns the error, so that a caller can write
 * `return errmsg_set(em, DB_CORRUPT, "record %" PRIu64 ": checksum mismatch", lsn);`. */
enum db_err errmsg_set(struct errmsg *em, enum db_err err, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* A file of a format that this program does not know yet: DB_INVALID, never DB_CORRUPT, for what is damaged is made anew and
 * what is newer must be left alone. what: which file or part, as in a sentence. */
enum db_err errmsg_newer(struct errmsg *em, const char *what, unsigned long version, unsigned long known);

/* Like errmsg_set() for a failed system call: the error is derived from saved_errno (ENOSPC and EDQUOT: DB_FULL, ENOMEM:
 * DB_NOMEM, ENOENT: DB_NOTFOUND, EEXIST: DB_EXISTS, EADDRINUSE: DB_BUSY, everything else DB_IO), and ": " with its
 * description is appended. */
enum db_err errmsg_errno(struct errmsg *em, int saved_errno, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Puts "<text>: " before the message that *em already holds and returns its error. */
enum db_err errmsg_context(struct errmsg *em, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif

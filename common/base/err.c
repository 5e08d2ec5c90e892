/* err.c - see err.h. Nothing here allocates or fails. */
#include "common/base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *db_err_text(enum db_err err)
{
	switch (err) {
#define X(code, text)                                                                                                  \
	case code:                                                                                                     \
		return text;
		DB_ERR_LIST(X)
#undef X
	}
	return "unknown error";
}

enum db_err errmsg_set(struct errmsg *em, enum db_err err, const char *fmt, ...)
{
	va_list ap;

	if (em == NULL)
		return err;
	em->err = err;
	va_start(ap, fmt);
	vsnprintf(em->text, sizeof(em->text), fmt, ap);
	va_end(ap);
	return err;
}

static enum db_err err_from_errno(int saved_errno)
{
	switch (saved_errno) {
	case ENOSPC:
	case EDQUOT:
		return DB_FULL;
	case ENOMEM:
		return DB_NOMEM;
	case ENOENT:
		return DB_NOTFOUND;
	case EEXIST:
		return DB_EXISTS;
	case EADDRINUSE:
		return DB_BUSY;
	default:
		return DB_IO;
	}
}

enum db_err errmsg_errno(struct errmsg *em, int saved_errno, const char *fmt, ...)
{
	enum db_err err = err_from_errno(saved_errno);
	char reason[128];
	size_t used;
	va_list ap;

	if (em == NULL)
		return err;
	em->err = err;
	va_start(ap, fmt);
	vsnprintf(em->text, sizeof(em->text), fmt, ap);
	va_end(ap);
	used = strlen(em->text);
	snprintf(em->text + used, sizeof(em->text) - used, ": %s", strerror_r(saved_errno, reason, sizeof(reason)));
	return err;
}

enum db_err errmsg_context(struct errmsg *em, const char *fmt, ...)
{
	char inner[ERRMSG_TEXT_MAX];
	size_t used;
	va_list ap;

	if (em == NULL)
		return DB_INVALID;
	memcpy(inner, em->text, sizeof(inner));
	va_start(ap, fmt);
	vsnprintf(em->text, sizeof(em->text), fmt, ap);
	va_end(ap);
	used = strlen(em->text);
	snprintf(em->text + used, sizeof(em->text) - used, ": %s", inner);
	return em->err;
}

enum db_err errmsg_newer(struct errmsg *em, const char *what, unsigned long version, unsigned long known)
{
	return errmsg_set(
	    em, DB_INVALID,
	    "%s was written by a newer version: it has format %lu, this program knows %lu; it is left as it "
	    "is: run the newer program, or restore a backup",
	    what, version, known);
}

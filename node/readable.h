/*
 * readable.h - can every byte of a node's files be read?
 *
 * Asked at a start after the process before was ended by a page that the disk did not deliver (node/last_words.h), or
 * when opening the store met such an error. It reads main.db and the log whole, which takes as long as the disk needs for
 * them: a node whose files are fine after all goes on with them, and only one whose files are not is rebuilt. So a disk
 * that was away for a moment below all nodes does not make all of them throw away what they have.
 */
#ifndef GRIZZLY_NODE_READABLE_H
#define GRIZZLY_NODE_READABLE_H

#include <stdbool.h>

#include "common/base/err.h"

/* Whether the mark is there; why (of ERRMSG_TEXT_MAX bytes) gets what it says. dir: the node's. */
bool readable_is_doubted(const char *dir, char *why);
/* DB_OK: all of it can be read. DB_IO: em says which file cannot, and where. Files that are not there, or
 * cannot be opened, are passed over. DB_NOMEM. */
enum db_err readable_check(const char *dir, struct errmsg *em);
enum db_err readable_settle(const char *dir, struct errmsg *em); /* removes the mark, durably */

#endif

/*
 * end_watch.h - a process that ends has so long for it, and no longer.
 *
 * Ending joins threads and closes sockets of others' code, and one of those may never return: an NNG 1.5 whose connection
 * ended between two reads or writes of one message waits for ever in every later nng_close(). Nothing that such a
 * node would still do is needed, for it is made to be killed at any time; but while the process is there its supervisor
 * waits for it, and starts no other.
 */
#ifndef GRIZZLY_NODE_END_WATCH_H
#define GRIZZLY_NODE_END_WATCH_H

#include "common/base/err.h"

struct end_watch;

/* From now on the process has limit_ms to get to end_watch_free(); else it ends at once, with exit_code. DB_NOMEM: there
 * is no thread for it. */
enum db_err end_watch_create(struct end_watch **out, unsigned limit_ms, int exit_code, struct errmsg *em) MUST_CHECK;
void end_watch_free(struct end_watch *e); /* NULL is fine */

#endif

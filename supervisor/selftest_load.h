/*
 * selftest_load.h - the clients of a selftest: they write and read over HTTP, and know what must be there afterwards.
 *
 * Each client is a thread with a connection of its own. An appender inserts numbered rows, a bank moves money between
 * accounts, a reader checks that money neither appears nor vanishes and that what was acknowledged is seen. Every write has a
 * request_id and is sent again until an answer settles it, so what is acknowledged must be there exactly once. What a client
 * knows is read after load_stop(); counters may be looked at any time.
 */
#ifndef GRIZZLY_SUPERVISOR_SELFTEST_LOAD_H
#define GRIZZLY_SUPERVISOR_SELFTEST_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/timings.h"

struct load; /* body in selftest_load.c */

struct load_result {
	uint64_t appends, transfers, refused, reads; /* settled; refused: transfers that a constraint forbade */
	uint64_t longest_wait_ms;                    /* between two acknowledgements of one client, at the most */
	uint64_t lost, doubled;                      /* acknowledged and not there; there more than once */
	uint64_t stale_reads, torn_reads;            /* that lacked what was acknowledged; whose sum was another one */
	int64_t balance_off;                         /* of the final sum of all accounts */
	char complaint[256];                         /* the first answer that nothing explains; empty: none */
	struct histogram write_us;
};

/* The endpoint is 127.0.0.1:port. Makes the tables. DB_IO: the message has the answer. */
enum db_err load_create(struct load **out, unsigned port, const char *token, struct errmsg *em);
enum db_err load_start(struct load *l, struct errmsg *em);
void load_stop(struct load *l); /* returns when the last write under way is settled, or half a minute has passed */
/* After load_stop(): compares what the clients know with what the cluster at port has. */
enum db_err load_check(struct load *l, struct load_result *out, struct errmsg *em);
void load_free(struct load *l); /* stops first; NULL is fine */

#endif

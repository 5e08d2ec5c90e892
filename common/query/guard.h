/*
 * guard.h - stops a running statement: too many operations, too late, or nobody left to answer.
 *
 * SQLite calls it about every GUARD_PERIOD_OPS virtual-machine steps; when it says stop, the step fails with
 * SQLITE_INTERRUPT and guard.stop tells why. Armed only around a client's statements, so that no COMMIT or ROLLBACK of
 * ours is ever interrupted. One per connection, on the connection's thread.
 */
#ifndef GRIZZLY_COMMON_QUERY_GUARD_H
#define GRIZZLY_COMMON_QUERY_GUARD_H

#include <sqlite3.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define GUARD_PERIOD_OPS 1000

enum guard_stop { GUARD_GO, GUARD_OVER_BUDGET, GUARD_TOO_LATE, GUARD_CANCELLED };

struct guard {
	bool armed;
	uint64_t ops;                 /* since it was armed */
	uint64_t ops_max;             /* 0: no limit */
	uint64_t deadline_ms;         /* clock_mono_ms(); 0: none */
	const atomic_bool *cancelled; /* NULL: never */
	enum guard_stop stop;
};

void guard_install(struct guard *g, sqlite3 *db); /* g outlives db's use of it */
void guard_arm(struct guard *g, uint64_t ops_max, uint64_t deadline_ms, const atomic_bool *cancelled);
void guard_disarm(struct guard *g);

/* Asks the clock and the flag at once, the budget aside. */
enum guard_stop guard_check(struct guard *g);

#endif

/*
 * unit.h - what every unit test program shares: one suite run by CUnit, and temporary directories.
 *
 * A program is one module's tests: `int main(void) { return unit_run("wal", tests); }`. It fails, too, when anything in it
 * closes a descriptor that is not open.
 */
#ifndef GRIZZLY_TESTS_UNIT_UNIT_H
#define GRIZZLY_TESTS_UNIT_UNIT_H

#include <CUnit/CUnit.h>
#include <poll.h>

#include "common/base/clock.h"
#include "common/base/err.h"

#define UNIT_PATH_MAX 512

struct unit_test {
	const char *name;
	void (*run)(void);
};

/* Runs the tests up to the one with a NULL name and prints CUnit's summary. Returns main()'s exit code. */
int unit_run(const char *suite, const struct unit_test *tests);

/* A fresh directory below $TMPDIR or /tmp; removed with everything in it when the program exits. */
void unit_tmpdir(char out[UNIT_PATH_MAX]);
void unit_rmtree(const char *path);

/* Asserts DB_OK and prints the message when it is something else. */
void unit_ok(enum db_err err, const struct errmsg *em, const char *file, int line);
#define UNIT_OK(call, em) unit_ok((call), (em), __FILE__, __LINE__)

/* Waits for another thread to do what no event tells of, WAIT_MS (the program's own) at the most. */
#define AWAIT(condition)                                                                                               \
	do {                                                                                                           \
		uint64_t await_until_ms = clock_mono_ms() + WAIT_MS;                                                   \
                                                                                                                       \
		while (!(condition) && clock_mono_ms() < await_until_ms)                                               \
			poll(NULL, 0, 1);                                                                              \
		CU_ASSERT(condition);                                                                                  \
	} while (0)

#endif

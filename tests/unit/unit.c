/* unit.c - see unit.h. */
#include "tests/unit/unit.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <ftw.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define UNIT_TMPDIRS_MAX 256

static char unit_tmpdirs[UNIT_TMPDIRS_MAX][UNIT_PATH_MAX];
static int unit_tmpdir_count;

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void unit_rmtree(const char *path)
{
	nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void remove_tmpdirs(void)
{
	while (unit_tmpdir_count > 0)
		unit_rmtree(unit_tmpdirs[--unit_tmpdir_count]);
}

void unit_tmpdir(char out[UNIT_PATH_MAX])
{
	const char *base = getenv("TMPDIR");

	snprintf(out, UNIT_PATH_MAX, "%s/grizzly-unit-XXXXXX", base == NULL ? "/tmp" : base);
	if (unit_tmpdir_count == UNIT_TMPDIRS_MAX || mkdtemp(out) == NULL) {
		perror(out);
		exit(1);
	}
	memcpy(unit_tmpdirs[unit_tmpdir_count++], out, UNIT_PATH_MAX);
}

void unit_ok(enum db_err err, const struct errmsg *em, const char *file, int line)
{
	if (err != DB_OK)
		fprintf(stderr, "%s:%d: %s\n", file, line,
			em != NULL && em->err != DB_OK ? em->text : db_err_text(err));
	CU_assertImplementation(err == DB_OK, (unsigned)line, "UNIT_OK", file, "", CU_FALSE);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static atomic_uint stray_closes;

/* In place of the C library's, in the whole program: closing what is not open hits nothing today, and somebody else's
 * descriptor the day another thread is quicker. */
int close(int fd)
{
	int result = (int)syscall(SYS_close, fd);

	if (result == -1 && errno == EBADF) {
		atomic_fetch_add(&stray_closes, 1);
		fprintf(stderr, "close(%d): it is not open\n", fd);
		errno = EBADF;
	}
	return result;
}

static unsigned count_stray_closes(void)
{
	return atomic_load(&stray_closes);
}
#else
static unsigned count_stray_closes(void)
{
	return 0; /* close() is the sanitizer's */
}
#endif

#ifdef __SANITIZE_ADDRESS__
/* What the leak checker leaves out, in every program, for any of them may close a link: a dialer whose connection ends in
 * its handshake while its socket is closed. NNG 1.5 leaves the two with references to each other. What is not closed at all
 * is found by test_link.c (nothing_is_left_open()). */
const char *__lsan_default_suppressions(void);

const char *__lsan_default_suppressions(void)
{
	return "leak:nng_dialer_create\n";
}
#endif

int unit_run(const char *suite, const struct unit_test *tests)
{
	CU_pSuite registered;
	unsigned failures;

	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	registered = CU_add_suite(suite, NULL, NULL);
	if (registered == NULL)
		return 1;
	for (; tests->name != NULL; tests++)
		if (CU_add_test(registered, tests->name, tests->run) == NULL)
			return 1;
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	failures = CU_get_number_of_failures() + count_stray_closes();
	CU_cleanup_registry();
	remove_tmpdirs();
	return failures == 0 ? 0 : 1;
}

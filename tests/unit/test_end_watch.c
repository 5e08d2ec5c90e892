/*
 * test_end_watch.c - an end that hangs is ended, one that does not is left alone.
 *
 * What hangs is a process of its own: this program with the argument "hang" or "end".
 */
#include "node/end_watch.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/unit.h"

#define HUNG_CODE 7
#define DONE_CODE 3

static int child(const char *what)
{
	struct end_watch *e;
	struct errmsg em = {0};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (strcmp(what, "hang") == 0) {
		if (end_watch_create(&e, 50, HUNG_CODE, &em) != DB_OK)
			return 1;
		for (;;)
			pause();
	}
	if (end_watch_create(&e, 600000, HUNG_CODE, &em) != DB_OK)
		return 1;
	end_watch_free(e);
	return DONE_CODE;
}

/* Its exit code. */
static int run_child(const char *what)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		execl("/proc/self/exe", "test_end_watch", what, (char *)NULL);
		_exit(127);
	}
	CU_ASSERT_FATAL(pid > 0 && waitpid(pid, &status, 0) == pid);
	CU_ASSERT(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void an_end_that_hangs_is_ended(void)
{
	CU_ASSERT_EQUAL(run_child("hang"), HUNG_CODE);
}

static void an_end_in_time_is_left_alone(void)
{
	CU_ASSERT_EQUAL(run_child("end"), DONE_CODE);
	end_watch_free(NULL);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
	    {"an end that hangs is ended", an_end_that_hangs_is_ended},
	    {"an end in time is left alone", an_end_in_time_is_left_alone},
	    {NULL, NULL},
	};

	if (argc == 2)
		return child(argv[1]);
	return unit_run("end_watch", tests);
}

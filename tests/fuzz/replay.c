/*
 * replay.c - main() of a fuzz target without libFuzzer: runs inputs that are kept, each in memory of exactly its size.
 *
 * Arguments are files and directories. Without any it is a test of `make check`: it runs corpus/<name> and
 * regressions/<name> below $srcdir/tests/fuzz, <name> being what follows "fuzz_" in the program's own name. It fails when
 * there is nothing to run. The name of each input is printed before it runs, so that the last one is what crashed; the
 * last line has the form of CUnit's summary, which scripts/run-tests.sh adds up: each input is a test.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

static unsigned replayed;

static void replay_file(const char *path)
{
	size_t len;
	uint8_t *bytes = fuzz_read_file(path, &len);

	printf("%s\n", path);
	fflush(stdout);
	LLVMFuzzerTestOneInput(bytes, len);
	free(bytes);
	replayed++;
}

static int is_visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* False: there is nothing at path. */
static bool replay(const char *path)
{
	char inner[FUZZ_PATH_MAX * 2];
	struct dirent **entries;
	struct stat st;
	int i, count;

	if (stat(path, &st) != 0)
		return false;
	if (!S_ISDIR(st.st_mode)) {
		replay_file(path);
		return true;
	}
	count = scandir(path, &entries, is_visible, alphasort);
	for (i = 0; i < count; i++) {
		snprintf(inner, sizeof(inner), "%s/%s", path, entries[i]->d_name);
		replay(inner);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	return count >= 0;
}

static void replay_kept(const char *program)
{
	const char *srcdir = getenv("srcdir");
	const char *name = strrchr(program, '/');
	char path[FUZZ_PATH_MAX * 2];

	name = strstr(name != NULL ? name : program, "fuzz_");
	if (name == NULL)
		return;
	name += strlen("fuzz_");
	snprintf(path, sizeof(path), "%s/tests/fuzz/corpus/%s", srcdir != NULL ? srcdir : ".", name);
	replay(path);
	snprintf(path, sizeof(path), "%s/tests/fuzz/regressions/%s", srcdir != NULL ? srcdir : ".", name);
	replay(path); /* there may be none yet */
}

int main(int argc, char **argv)
{
	int i;

	LLVMFuzzerInitialize(&argc, &argv);
	for (i = 1; i < argc; i++) {
		if (!replay(argv[i])) {
			fprintf(stderr, "%s: %s\n", argv[i], strerror(errno));
			return 2;
		}
	}
	if (argc == 1)
		replay_kept(argv[0]);
	printf("tests %u %u %u 0 0\n", replayed, replayed, replayed);
	return replayed > 0 ? 0 : 1;
}

/*
 * test_standing.c - what a node remembers about its own log, and what becomes of a store that is set aside.
 */
#include "node/standing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/store/dirs.h"
#include "tests/unit/unit.h"

struct place {
	char top[64];
	char dir[128];
};

static void place_make(struct place *p)
{
	snprintf(p->top, sizeof(p->top), "/tmp/grizzly-unit-XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(p->top));
	snprintf(p->dir, sizeof(p->dir), "%s/node2", p->top);
}

static void place_remove(const struct place *p)
{
	struct errmsg em = {0};

	UNIT_OK(dirs_remove(p->top, &em), &em);
}

static void put(const struct place *p, const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s%s", p->dir, name);
	f = fopen(path, "w");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	fputs(text, f);
	fclose(f);
}

/* The first bytes of a file; "-" when there is none. */
static const char *look(const struct place *p, const char *name)
{
	static char text[64];
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s%s", p->dir, name);
	f = fopen(path, "r");
	if (f == NULL)
		return "-";
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	fclose(f);
	return text;
}

static enum standing read_it(const struct place *p)
{
	struct errmsg em = {0};
	enum standing standing = STANDING_NEW;

	UNIT_OK(standing_read(p->dir, &standing, &em), &em);
	return standing;
}

static void test_what_was_written_is_read(void)
{
	static const enum standing all[] = {STANDING_WHOLE, STANDING_REBUILD, STANDING_WRONG, STANDING_WHOLE};
	struct errmsg em = {0};
	struct place p;
	size_t i;

	place_make(&p);
	CU_ASSERT_EQUAL(read_it(&p), STANDING_NEW);
	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		UNIT_OK(standing_write(p.dir, all[i], &em), &em);
		CU_ASSERT_EQUAL(read_it(&p), all[i]);
	}
	CU_ASSERT_STRING_EQUAL(look(&p, ".state.new"), "-");
	place_remove(&p);
}

static void test_a_file_without_sense_does_not_count_as_whole(void)
{
	static const char *const texts[] = {"", "whol", "whole", "whole\nand more", "WHOLE\n", "\n"};
	struct place p;
	size_t i;

	place_make(&p);
	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		put(&p, ".state", texts[i]);
		CU_ASSERT_EQUAL(read_it(&p), STANDING_REBUILD);
	}
	place_remove(&p);
}

static void test_a_store_that_lost_its_meta_is_told_from_an_empty_place(void)
{
	struct place p;
	char path[256];

	place_make(&p);
	CU_ASSERT_EQUAL(standing_look(p.dir), STANDING_STORE_NONE);
	mkdir(p.dir, 0700);
	snprintf(path, sizeof(path), "%s/wal", p.dir);
	mkdir(path, 0700);
	put(&p, "/main.db", "");
	put(&p, "/term", "promise");
	CU_ASSERT_EQUAL(standing_look(p.dir), STANDING_STORE_NONE);
	put(&p, "/wal/1.wal", "records");
	CU_ASSERT_EQUAL(standing_look(p.dir), STANDING_STORE_NO_META);
	put(&p, "/store.meta", "");
	CU_ASSERT_EQUAL(standing_look(p.dir), STANDING_STORE_NO_META);
	put(&p, "/store.meta", "meta");
	CU_ASSERT_EQUAL(standing_look(p.dir), STANDING_STORE_THERE);
	place_remove(&p);
}

static void test_a_store_set_aside_is_kept_and_leaves_the_promise(void)
{
	struct errmsg em = {0};
	struct place p;

	place_make(&p);
	mkdir(p.dir, 0700);
	put(&p, "/main.db", "first");
	put(&p, "/term", "promise");
	UNIT_OK(standing_set_aside(p.dir, true, &em), &em);
	CU_ASSERT_STRING_EQUAL(look(&p, "/main.db"), "-");
	CU_ASSERT_STRING_EQUAL(look(&p, "/term"), "promise");
	CU_ASSERT_STRING_EQUAL(look(&p, ".damaged/main.db"), "first");
	/* One that is not worth it does not push the other out. */
	put(&p, "/main.db", "second");
	UNIT_OK(standing_set_aside(p.dir, false, &em), &em);
	CU_ASSERT_STRING_EQUAL(look(&p, "/main.db"), "-");
	CU_ASSERT_STRING_EQUAL(look(&p, "/term"), "promise");
	CU_ASSERT_STRING_EQUAL(look(&p, ".damaged/main.db"), "first");
	CU_ASSERT_STRING_EQUAL(look(&p, ".incoming/main.db"), "-");
	put(&p, "/main.db", "third");
	UNIT_OK(standing_set_aside(p.dir, true, &em), &em);
	CU_ASSERT_STRING_EQUAL(look(&p, ".damaged/main.db"), "third");
	place_remove(&p);
}

static void test_a_promise_that_is_not_there_is_no_obstacle(void)
{
	struct errmsg em = {0};
	struct place p;

	place_make(&p);
	mkdir(p.dir, 0700);
	put(&p, "/main.db", "first");
	UNIT_OK(standing_set_aside(p.dir, true, &em), &em);
	CU_ASSERT_STRING_EQUAL(look(&p, "/term"), "-");
	CU_ASSERT_STRING_EQUAL(look(&p, ".damaged/main.db"), "first");
	place_remove(&p);
}

static void test_a_snapshot_that_reaches_as_far_as_the_log_did_leaves_a_store_whole(void)
{
	CU_ASSERT_EQUAL(standing_after_snapshot(STANDING_WHOLE, 10, 10), STANDING_WHOLE);
	CU_ASSERT_EQUAL(standing_after_snapshot(STANDING_WHOLE, 10, 11), STANDING_WHOLE);
	CU_ASSERT_EQUAL(standing_after_snapshot(STANDING_WHOLE, 10, 9), STANDING_REBUILD);
	CU_ASSERT_EQUAL(standing_after_snapshot(STANDING_REBUILD, 0, 9), STANDING_REBUILD);
	CU_ASSERT_EQUAL(standing_after_snapshot(STANDING_WRONG, 5, 9), STANDING_REBUILD);
	CU_ASSERT(standing_counts(STANDING_WHOLE) && standing_counts(STANDING_NEW));
	CU_ASSERT(!standing_counts(STANDING_REBUILD) && !standing_counts(STANDING_WRONG));
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"what was written is read", test_what_was_written_is_read},
	    {"a file without sense does not count as whole", test_a_file_without_sense_does_not_count_as_whole},
	    {"a store that lost its meta is told from an empty place",
	     test_a_store_that_lost_its_meta_is_told_from_an_empty_place},
	    {"a store set aside is kept and leaves the promise", test_a_store_set_aside_is_kept_and_leaves_the_promise},
	    {"a promise that is not there is no obstacle", test_a_promise_that_is_not_there_is_no_obstacle},
	    {"a snapshot that reaches as far as the log did leaves a store whole",
	     test_a_snapshot_that_reaches_as_far_as_the_log_did_leaves_a_store_whole},
	    {NULL, NULL},
	};

	return unit_run("standing", tests);
}

/*
 * test_timeline.c - the timeline's file, the ledger of positions and the recovery mark: what they keep, and through what.
 */
#include "supervisor/timeline.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/slotfile.h"
#include "supervisor/ledger.h"
#include "supervisor/recovery_mark.h"
#include "tests/unit/unit.h"

/* Works in a fresh directory with log/ in it. */
static void enter(void)
{
	char dir[UNIT_PATH_MAX];

	unit_tmpdir(dir);
	CU_ASSERT_EQUAL_FATAL(chdir(dir), 0);
	CU_ASSERT_EQUAL_FATAL(mkdir("log", 0700), 0);
}

static struct timeline *open_it(void)
{
	struct timeline *t = NULL;
	struct errmsg em = {0};

	UNIT_OK(timeline_open(&t, &em), &em);
	CU_ASSERT_PTR_NOT_NULL_FATAL(t);
	return t;
}

/* The whole of a small file; the caller's to free. */
static char *content(const char *path)
{
	FILE *f = fopen(path, "r");
	char *text = calloc(1, 1 << 16);

	CU_ASSERT_FATAL(f != NULL && text != NULL);
	CU_ASSERT(fread(text, 1, (1 << 16) - 1, f) > 0);
	fclose(f);
	return text;
}

static void an_event_says_what_it_was_given_and_nothing_else(void)
{
	struct timeline_note note = timeline_note_of(TIMELINE_NODE_EXIT);
	struct timeline *t;
	json_t *json;
	char *text;

	enter();
	t = open_it();
	note.term = 3;
	note.last = (struct wal_pos){2, 17};
	note.signal = 9;
	note.restart_ms = 0;
	timeline_append(t, &note, 1, "ended by \"signal\" 9\n");
	timeline_close(t);
	text = content(TIMELINE_PATH);
	CU_ASSERT_EQUAL(strchr(text, '\n'), text + strlen(text) - 1);
	json = json_loads(text, 0, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(json);
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(json, "event")), "node-exit");
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(json, "node")), "node2");
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(json, "text")), "ended by \"signal\" 9\n");
	CU_ASSERT_EQUAL(strlen(json_string_value(json_object_get(json, "time"))), strlen("2026-01-01T00:00:00.000Z"));
	CU_ASSERT_EQUAL(json_integer_value(json_object_get(json, "term")), 3);
	CU_ASSERT_EQUAL(json_integer_value(json_object_get(json, "lsn")), 17);
	CU_ASSERT_EQUAL(json_integer_value(json_object_get(json, "last_term")), 2);
	CU_ASSERT_EQUAL(json_integer_value(json_object_get(json, "signal")), 9);
	CU_ASSERT(json_is_integer(json_object_get(json, "restart_ms")));
	CU_ASSERT(json_is_integer(json_object_get(json, "mono_ms")));
	CU_ASSERT(json_object_get(json, "code") == NULL && json_object_get(json, "outage_ms") == NULL);
	json_decref(json);
	free(text);
}

static void a_torn_line_does_not_take_the_next_one_along(void)
{
	struct timeline_note note = timeline_note_of(TIMELINE_STOPPING);
	struct timeline *t;
	char *text;
	FILE *f;

	enter();
	f = fopen(TIMELINE_PATH, "w");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	fputs("{\"time\":\"20", f);
	fclose(f);
	t = open_it();
	timeline_append(t, &note, TIMELINE_NOBODY, "x");
	timeline_close(t);
	text = content(TIMELINE_PATH);
	CU_ASSERT_EQUAL(strstr(text, "{\"time\":\"20\n{\"time\":"), text);
	free(text);
}

static void the_files_are_bounded(void)
{
	struct timeline_note note = timeline_note_of(TIMELINE_NO_MASTER);
	char long_text[2000];
	struct timeline *t;
	struct stat now, old;
	unsigned i;

	enter();
	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	t = open_it();
	for (i = 0; i < 3 * TIMELINE_BYTES_MAX / sizeof(long_text); i++)
		timeline_append(t, &note, TIMELINE_NOBODY, long_text);
	timeline_close(t);
	CU_ASSERT_EQUAL(stat(TIMELINE_PATH, &now), 0);
	CU_ASSERT_EQUAL(stat(TIMELINE_PATH_OLD, &old), 0);
	CU_ASSERT(now.st_size > 0 && (uint64_t)now.st_size <= TIMELINE_BYTES_MAX);
	CU_ASSERT((uint64_t)old.st_size <= TIMELINE_BYTES_MAX && (uint64_t)old.st_size > TIMELINE_BYTES_MAX / 2);
}

/* A full disk: what was written in part is ended before the next event, once there is room again. */
static void what_cannot_be_written_is_not_fatal(void)
{
	struct timeline_note note = timeline_note_of(TIMELINE_STOPPING);
	struct timeline *t;
	char *text;

	enter();
	CU_ASSERT_EQUAL(symlink("/dev/full", TIMELINE_PATH), 0);
	t = open_it();
	timeline_append(t, &note, TIMELINE_NOBODY, "lost");
	timeline_append(t, &note, TIMELINE_NOBODY, "lost");
	timeline_close(t);
	CU_ASSERT_EQUAL(unlink(TIMELINE_PATH), 0);
	t = open_it();
	timeline_append(t, &note, TIMELINE_NOBODY, "kept");
	timeline_close(t);
	text = content(TIMELINE_PATH);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "kept"));
	free(text);
}

/* ---- the ledger */

static struct ledger_entry at(uint64_t term, uint64_t lsn, uint64_t committed_lsn)
{
	return (struct ledger_entry){.last = {term, lsn}, .committed_lsn = committed_lsn, .seen_us = 1000 * lsn};
}

static void the_ledger_keeps_the_highest_position(void)
{
	struct ledger_entry entries[] = {at(1, 10, 9), at(0, 0, 0), at(1, 4, 4), at(2, 7, 7), at(1, 99, 9)};
	struct ledger_book book;
	struct ledger *l = NULL;
	struct errmsg em = {0};
	size_t i;

	enter();
	UNIT_OK(ledger_read(&book, &em), &em);
	CU_ASSERT_EQUAL(book.node_count, 0);
	UNIT_OK(ledger_create(&l, 3, &em), &em);
	CU_ASSERT_PTR_NOT_NULL_FATAL(l);
	for (i = 0; i < 3; i++)
		ledger_note(l, 1, &entries[i]);
	ledger_free(l);
	UNIT_OK(ledger_read(&book, &em), &em);
	CU_ASSERT(book.node_count == 3 && book.nodes[1].last.term == 1 && book.nodes[1].last.lsn == 10);
	CU_ASSERT(book.nodes[1].seen_us == 10000 && book.nodes[0].last.lsn == 0);
	UNIT_OK(ledger_create(&l, 3, &em), &em);
	ledger_note(l, 1, &entries[3]); /* a newer term: its tail was cut in order */
	ledger_note(l, 1, &entries[4]);
	ledger_free(l);
	UNIT_OK(ledger_read(&book, &em), &em);
	CU_ASSERT(book.nodes[1].last.term == 2 && book.nodes[1].last.lsn == 7);
	memset(&book, 0, sizeof(book));
	book.node_count = 2;
	UNIT_OK(ledger_write(&book, &em), &em);
	UNIT_OK(ledger_read(&book, &em), &em);
	CU_ASSERT(book.node_count == 2 && book.nodes[1].last.lsn == 0);
}

static void a_ledger_of_nonsense_is_refused(void)
{
	struct slotfile f;
	struct ledger_book book;
	struct ledger *l;
	struct errmsg em = {0};
	uint8_t bytes[12] = {0};
	size_t len;

	enter();
	UNIT_OK(slotfile_open(&f, LEDGER_PATH, bytes, sizeof(bytes), &len, &em), &em);
	UNIT_OK(slotfile_write(&f, bytes, sizeof(bytes), &em), &em);
	slotfile_close(&f);
	CU_ASSERT_EQUAL(ledger_read(&book, &em), DB_CORRUPT);
	CU_ASSERT_EQUAL(ledger_create(&l, 3, &em), DB_CORRUPT);
	CU_ASSERT_PTR_NULL(l);
	memset(&book, 0, sizeof(book));
	UNIT_OK(ledger_write(&book, &em), &em); /* but can be begun anew */
	UNIT_OK(ledger_read(&book, &em), &em);
}

/* ---- the recovery mark */

static void an_order_to_recover_is_read_back_and_removed(void)
{
	struct errmsg em = {0};
	unsigned node = 99;
	FILE *f;

	enter();
	CU_ASSERT_EQUAL(recovery_mark_read(&node, 3, &em), DB_NOTFOUND);
	UNIT_OK(recovery_mark_write(2, &em), &em);
	UNIT_OK(recovery_mark_read(&node, 3, &em), &em);
	CU_ASSERT_EQUAL(node, 2);
	CU_ASSERT_EQUAL(recovery_mark_read(&node, 2, &em), DB_CORRUPT); /* there is no such node */
	UNIT_OK(recovery_mark_remove(&em), &em);
	UNIT_OK(recovery_mark_remove(&em), &em);
	CU_ASSERT_EQUAL(recovery_mark_read(&node, 3, &em), DB_NOTFOUND);
	f = fopen(RECOVERY_MARK_PATH, "w");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	fputs("{\"node\":", f);
	fclose(f);
	CU_ASSERT_EQUAL(recovery_mark_read(&node, 3, &em), DB_CORRUPT);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"an_event_says_what_it_was_given_and_nothing_else", an_event_says_what_it_was_given_and_nothing_else},
	    {"a_torn_line_does_not_take_the_next_one_along", a_torn_line_does_not_take_the_next_one_along},
	    {"the_files_are_bounded", the_files_are_bounded},
	    {"what_cannot_be_written_is_not_fatal", what_cannot_be_written_is_not_fatal},
	    {"the_ledger_keeps_the_highest_position", the_ledger_keeps_the_highest_position},
	    {"a_ledger_of_nonsense_is_refused", a_ledger_of_nonsense_is_refused},
	    {"an_order_to_recover_is_read_back_and_removed", an_order_to_recover_is_read_back_and_removed},
	    {NULL, NULL},
	};

	return unit_run("timeline", tests);
}

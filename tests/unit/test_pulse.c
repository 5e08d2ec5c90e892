/*
 * test_pulse.c - what a node knows of its own standing still: common/base/pulse.h and node/disk_watch.h.
 */
#include "common/base/pulse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "node/disk_watch.h"
#include "tests/unit/unit.h"

static void the_oldest_operation_counts(void)
{
	struct disk_pulse p;
	uint64_t now_ms = clock_mono_ms();
	int first, second;

	disk_pulse_init(&p, now_ms);
	CU_ASSERT_EQUAL(disk_pulse_busy_ms(&p, now_ms + 1000), 0);
	first = disk_pulse_begin(&p);
	second = disk_pulse_begin(&p);
	CU_ASSERT(first >= 0 && second >= 0 && first != second);
	atomic_store(&p.since_ms[first], now_ms - 500);
	atomic_store(&p.since_ms[second], now_ms - 20);
	CU_ASSERT_EQUAL(disk_pulse_busy_ms(&p, now_ms), 500);
	disk_pulse_end(&p, first, false);
	CU_ASSERT_EQUAL(disk_pulse_busy_ms(&p, now_ms), 20);
	disk_pulse_end(&p, second, false);
	CU_ASSERT_EQUAL(disk_pulse_busy_ms(&p, now_ms), 0);
}

static void a_pause_of_the_whole_process_ages_nothing(void)
{
	struct disk_pulse p;
	uint64_t now_ms = clock_mono_ms();
	int slot;

	disk_pulse_init(&p, now_ms - 7000);
	slot = disk_pulse_begin(&p);
	atomic_store(&p.since_ms[slot], now_ms - 6000);
	disk_pulse_forgive(&p, 5000);
	CU_ASSERT_EQUAL(disk_pulse_busy_ms(&p, now_ms), 1000);
	CU_ASSERT_EQUAL(disk_pulse_age_ms(&p, now_ms), 2000);
	disk_pulse_end(&p, slot, false);
	disk_pulse_forgive(&p, 5000); /* a free slot stays free; what became durable in the future is not old */
	CU_ASSERT_EQUAL(disk_pulse_busy_ms(&p, now_ms), 0);
	CU_ASSERT_EQUAL(disk_pulse_age_ms(&p, now_ms), 0);
}

static void only_a_sync_that_succeeded_is_proof(void)
{
	struct disk_pulse p;
	uint64_t now_ms = clock_mono_ms();

	disk_pulse_init(&p, now_ms - 5000);
	disk_pulse_end(&p, disk_pulse_begin(&p), false);
	CU_ASSERT(disk_pulse_age_ms(&p, clock_mono_ms()) >= 5000);
	disk_pulse_end(&p, disk_pulse_begin(&p), true);
	CU_ASSERT(disk_pulse_age_ms(&p, clock_mono_ms()) < 5000);
	CU_ASSERT_EQUAL(disk_pulse_age_ms(&p, now_ms - 10), 0); /* asked with an older time than the last sync's */
}

static void more_operations_than_slots_do_no_harm(void)
{
	struct disk_pulse p;
	int slots[DISK_PULSE_SLOTS + 3], i;

	disk_pulse_init(&p, clock_mono_ms());
	for (i = 0; i < DISK_PULSE_SLOTS + 3; i++)
		slots[i] = disk_pulse_begin(&p);
	CU_ASSERT_EQUAL(slots[DISK_PULSE_SLOTS], -1);
	for (i = 0; i < DISK_PULSE_SLOTS + 3; i++)
		disk_pulse_end(&p, slots[i], true);
	CU_ASSERT_EQUAL(disk_pulse_busy_ms(&p, clock_mono_ms() + 1000), 0);
	CU_ASSERT_EQUAL(disk_pulse_begin(NULL), -1); /* nobody watches */
	disk_pulse_end(NULL, -1, true);
}

/* A thread that begins a piece of work and then waits for the lock that the test holds. */
struct worker {
	struct work_pulse pulse;
	pthread_mutex_t gate;
	_Atomic int begun;
};

static void *work(void *arg)
{
	struct worker *w = arg;

	work_pulse_begin(&w->pulse);
	atomic_store(&w->begun, 1);
	pthread_mutex_lock(&w->gate);
	work_pulse_end(&w->pulse);
	pthread_mutex_unlock(&w->gate);
	return NULL;
}

static void a_thread_that_waits_amid_its_work_is_stuck(void)
{
	struct worker w = {.gate = PTHREAD_MUTEX_INITIALIZER};
	uint64_t stuck_ms = 0, now_ms, asked = 0;
	pthread_t thread;

	work_pulse_init(&w.pulse);
	CU_ASSERT_EQUAL(work_pulse_stuck_ms(&w.pulse, clock_mono_ms()), 0); /* it waits for work */
	pthread_mutex_lock(&w.gate);
	CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, work, &w), 0);
	while (atomic_load(&w.begun) == 0)
		usleep(100);
	now_ms = clock_mono_ms();
	while (stuck_ms < 400 && asked++ < 1000) { /* virtual time; it may use a little more time until it waits */
		now_ms += 100;
		stuck_ms = work_pulse_stuck_ms(&w.pulse, now_ms);
		usleep(100);
	}
	CU_ASSERT(stuck_ms >= 400);
	now_ms += 100000; /* nobody looked: that was a pause, and counts for no more than it was seen */
	CU_ASSERT(work_pulse_stuck_ms(&w.pulse, now_ms) <= stuck_ms + PULSE_UNSEEN_MS);
	pthread_mutex_unlock(&w.gate);
	pthread_join(thread, NULL);
	CU_ASSERT_EQUAL(work_pulse_stuck_ms(&w.pulse, now_ms + 10000), 0);
	work_pulse_fini(&w.pulse);
}

static void work_that_uses_the_processor_gets_on(void)
{
	struct work_pulse w;
	volatile unsigned spin;
	int i;

	work_pulse_init(&w);
	work_pulse_begin(&w);
	for (i = 1; i <= 20; i++) {
		for (spin = 0; spin < 100000; spin++)
			;
		CU_ASSERT_EQUAL(work_pulse_stuck_ms(&w, clock_mono_ms() + 10000u * (unsigned)i), 0);
	}
	work_pulse_end(&w);
	work_pulse_fini(&w);
}

static void each_piece_of_work_is_progress(void)
{
	struct work_pulse w;
	int i;

	work_pulse_init(&w);
	for (i = 1; i <= 20; i++) {
		work_pulse_begin(&w);
		CU_ASSERT_EQUAL(work_pulse_stuck_ms(&w, clock_mono_ms() + 10000u * (unsigned)i), 0);
		work_pulse_end(&w);
	}
	work_pulse_fini(&w);
}

#define DIR_SIZE 32

/* ---- the watch */

static struct disk_watch *start_watch(char dir[], uint64_t low_space_bytes)
{
	const struct disk_watch_options o = {.dir = dir, .probe_ms = 50, .low_space_bytes = low_space_bytes};
	struct disk_watch *w;
	struct errmsg em = {0};

	snprintf(dir, DIR_SIZE, "/tmp/grizzly-pulse-XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
	UNIT_OK(disk_watch_create(&w, &o, &em), &em);
	UNIT_OK(disk_watch_start(w, &em), &em);
	return w;
}

static void end_watch(struct disk_watch *w, const char *dir)
{
	char path[64];

	disk_watch_free(w);
	snprintf(path, sizeof(path), "%s/probe", dir);
	unlink(path);
	CU_ASSERT_EQUAL(rmdir(dir), 0);
}

static void an_idle_node_tries_its_disk(void)
{
	struct disk_report report = {0};
	char dir[DIR_SIZE], path[64];
	struct stat st;
	struct disk_watch *w = start_watch(dir, 0);
	unsigned i;

	snprintf(path, sizeof(path), "%s/probe", dir);
	for (i = 0; i < 10000 && (stat(path, &st) != 0 || st.st_size == 0); i++)
		usleep(1000);
	CU_ASSERT_EQUAL(st.st_size, 512);
	disk_watch_get_report(w, &report);
	CU_ASSERT_STRING_EQUAL(report.failure, "");
	CU_ASSERT_FALSE(report.low_space);
	CU_ASSERT_NOT_EQUAL(report.free_bytes, UINT64_MAX);
	end_watch(w, dir);
}

static void a_probe_that_fails_is_told(void)
{
	struct disk_report report = {0};
	char dir[DIR_SIZE], path[64];
	struct disk_watch *w;
	unsigned i;

	w = start_watch(dir, 0);
	snprintf(path, sizeof(path), "%s/probe", dir);
	disk_watch_free(w);
	unlink(path);
	CU_ASSERT_EQUAL(mkdir(path, 0700), 0); /* cannot be opened for writing, whoever asks */
	{
		const struct disk_watch_options o = {.dir = dir, .probe_ms = 50};
		struct errmsg em = {0};

		UNIT_OK(disk_watch_create(&w, &o, &em), &em);
		UNIT_OK(disk_watch_start(w, &em), &em);
	}
	for (i = 0; i < 10000 && report.failure[0] == '\0'; i++) {
		usleep(1000);
		disk_watch_get_report(w, &report);
	}
	CU_ASSERT_PTR_NOT_NULL(strstr(report.failure, "probe"));
	CU_ASSERT_EQUAL(rmdir(path), 0);
	for (i = 0; i < 10000 && report.failure[0] != '\0'; i++) {
		usleep(1000);
		disk_watch_get_report(w, &report);
	}
	CU_ASSERT_STRING_EQUAL(report.failure, ""); /* the next one succeeded */
	end_watch(w, dir);
}

static void less_than_the_mark_is_low(void)
{
	struct disk_report report = {0};
	char dir[DIR_SIZE], text[256];
	struct disk_watch *w = start_watch(dir, UINT64_MAX / 2); /* more than any disk has */

	CU_ASSERT_TRUE(disk_watch_is_low(w));
	disk_watch_get_report(w, &report);
	CU_ASSERT_TRUE(report.low_space);
	disk_watch_say_low(&report, text, sizeof(text));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "no space left"));
	end_watch(w, dir);
}

#define TEST(name)                                                                                                     \
	{                                                                                                              \
#name, name                                                                                            \
	}

static const struct unit_test tests[] = {
    TEST(the_oldest_operation_counts),
    TEST(a_pause_of_the_whole_process_ages_nothing),
    TEST(only_a_sync_that_succeeded_is_proof),
    TEST(more_operations_than_slots_do_no_harm),
    TEST(a_thread_that_waits_amid_its_work_is_stuck),
    TEST(work_that_uses_the_processor_gets_on),
    TEST(each_piece_of_work_is_progress),
    TEST(an_idle_node_tries_its_disk),
    TEST(a_probe_that_fails_is_told),
    TEST(less_than_the_mark_is_low),
    {NULL, NULL},
};

int main(void)
{
	return unit_run("pulse", tests);
}

/*
 * sim.c - the simulator's command line: runs schedules, counts them, says which seed failed and why.
 *
 * Exit codes: 0 every schedule kept every promise (with --plant: the bug was found), 1 one did not, 2 usage.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/sim/bugs.h"
#include "tests/sim/sim_log.h"
#include "tests/sim/world.h"

/* Seconds are those of processor time; on a machine with little of it to give, this many times as long. */
#define LATE_FACTOR 4.0

struct options {
	uint64_t seed, seed_base, schedules, seconds;
	bool one, forever, trace, plants;
	enum bug bug;
	const char *regressions, *check;
};

static volatile sig_atomic_t stopped;

static void on_signal(int signal)
{
	(void)signal;
	stopped = 1;
}

static double seconds_of(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void print_totals(const struct sim_totals *t, double cpu_s)
{
	double n = t->schedules > 0 ? (double)t->schedules : 1;

	printf("%" PRIu64 " schedules in %.1f s of processor time: %.0f a minute\n", t->schedules, cpu_s,
	       cpu_s > 0 ? (double)t->schedules * 60 / cpu_s : 0);
	printf("each on average: %.1f s simulated, %.1f faults, %.1f elections, %.0f writes acknowledged, %.0f reads, "
	       "%.2f cuts, %.2f snapshots, %.2f switchovers, %.2f changes of the members, %.3f lossy failovers "
	       "(async), %.0f events\n",
	       (double)t->simulated_us / n / 1e6, (double)t->faults / n, (double)t->elections / n, (double)t->acked / n,
	       (double)t->reads / n, (double)t->cuts / n, (double)t->snapshots / n, (double)t->switchovers / n,
	       (double)t->changes / n, (double)t->losses / n, (double)t->events / n);
}

static bool run_one(struct world *w, uint64_t seed, bool tracing)
{
	sim_log_to(tracing ? w : NULL);
	return world_run(w, seed, tracing);
}

static void report(const struct world *w, uint64_t seed, enum bug bug)
{
	printf("seed %" PRIu64 " breaks a promise after %.3f s: %s\n", seed, (double)(w->now_us - MS(1000)) / 1e6,
	       w->why);
	printf("replay: sim --seed %" PRIu64 "%s%s --trace\n", seed, bug == BUG_NONE ? "" : " --plant ",
	       bug == BUG_NONE ? "" : bug_name(bug));
	fflush(stdout);
}

/* True when the bug shows within so many seconds of processor time. */
static bool find_bug(struct world *w, enum bug bug, uint64_t seed_base, uint64_t seconds)
{
	double started = seconds_of(CLOCK_PROCESS_CPUTIME_ID),
	       late = seconds_of(CLOCK_MONOTONIC) + LATE_FACTOR * (double)seconds;
	double used = 0;
	uint64_t count = 0;

	bug_plant(bug);
	while (used < (double)seconds && seconds_of(CLOCK_MONOTONIC) < late && !stopped) {
		bool kept = run_one(w, seed_base + count++, false);

		used = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - started;
		if (kept)
			continue;
		printf("found %s (%s) after %" PRIu64 " schedules, %.2f s:\n    ", bug_name(bug), bug_text(bug), count,
		       used);
		report(w, seed_base + count - 1, bug);
		bug_plant(BUG_NONE);
		return true;
	}
	printf("NOT FOUND: %s (%s) in %" PRIu64 " schedules, %.1f s\n", bug_name(bug), bug_text(bug), count, used);
	bug_plant(BUG_NONE);
	return false;
}

static int find_bugs(struct world *w, const struct options *o)
{
	uint64_t seconds = o->seconds > 0 ? o->seconds : 60;
	bool all = true;
	int bug;

	if (o->bug != BUG_NONE)
		return find_bug(w, o->bug, o->seed_base, seconds) ? 0 : 1;
	for (bug = BUG_NONE + 1; bug < BUG_COUNT; bug++)
		all = find_bug(w, (enum bug)bug, o->seed_base, seconds) && all;
	return all ? 0 : 1;
}

/* The seeds in the file, one a line; what follows a '#' is a comment. */
static int run_regressions(struct world *w, const char *path)
{
	FILE *f = fopen(path, "r");
	char line[512];
	int failed = 0, count = 0;

	if (f == NULL) {
		fprintf(stderr, "sim: cannot open \"%s\": %s\n", path, strerror(errno));
		return 1;
	}
	while (fgets(line, sizeof(line), f) != NULL) {
		char *end;
		uint64_t seed = strtoull(line, &end, 10);

		if (end == line)
			continue;
		count++;
		if (!run_one(w, seed, false)) {
			report(w, seed, BUG_NONE);
			failed++;
		}
	}
	fclose(f);
	printf("%d seeds of \"%s\", %d failed\n", count, path, failed);
	return failed > 0 ? 1 : 0;
}

static int run_many(struct world *w, const struct options *o)
{
	double started = seconds_of(CLOCK_PROCESS_CPUTIME_ID), said = started, now = started;
	double late = seconds_of(CLOCK_MONOTONIC) + LATE_FACTOR * (double)o->seconds;
	uint64_t seed = o->seed_base;
	int code = 0;

	printf("seeds from %" PRIu64 "\n", seed);
	while (!stopped && (o->forever || (o->schedules > 0 ? w->totals.schedules < o->schedules
							    : now - started < (double)o->seconds &&
								  seconds_of(CLOCK_MONOTONIC) < late))) {
		if (!run_one(w, seed++, false)) {
			report(w, seed - 1, BUG_NONE);
			code = 1;
			if (!o->forever)
				break;
		}
		now = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
		if (now - said < 60)
			continue;
		said = now;
		print_totals(&w->totals, now - started);
		fflush(stdout);
	}
	print_totals(&w->totals, seconds_of(CLOCK_PROCESS_CPUTIME_ID) - started);
	return code;
}

/* Under a sanitizer everything takes ten times as long and finds other things. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CHECK_SECONDS 3u
#define CHECK_PLANTS  false
#else
#define CHECK_SECONDS 20u
#define CHECK_PLANTS  true
#endif

/* What the test suite runs: the seeds that once failed, fresh ones, and the planted bugs, from seeds that do not change. */
static int check(struct world *w, const struct options *o)
{
	const struct options fresh = {.seed_base = o->seed_base, .seconds = CHECK_SECONDS};
	const struct options plants = {.seed_base = 1, .seconds = 60};
	int total = CHECK_PLANTS ? 3 : 2, failed = run_regressions(w, o->check);

	fflush(stdout);
	failed += run_many(w, &fresh);
	fflush(stdout);
	if (CHECK_PLANTS)
		failed += find_bugs(w, &plants);
	printf("tests %d %d %d %d 0\n", total, total, total - failed, failed); /* as CUnit's summary has it */
	return failed > 0 ? 1 : 0;
}

static int run(struct world *w, const struct options *o)
{
	if (o->check != NULL)
		return check(w, o);
	if (o->regressions != NULL)
		return run_regressions(w, o->regressions);
	if (o->one) {
		bool kept;

		bug_plant(o->bug);
		kept = run_one(w, o->seed, o->trace);
		if (kept)
			printf("seed %" PRIu64 " keeps every promise\n", o->seed);
		else
			report(w, o->seed, o->bug);
		print_totals(&w->totals, seconds_of(CLOCK_PROCESS_CPUTIME_ID));
		return kept ? 0 : 1;
	}
	if (o->plants || o->bug != BUG_NONE)
		return find_bugs(w, o);
	return run_many(w, o);
}

static void print_help(void)
{
	int bug;

	puts("usage: sim [options]\n"
	     "  --schedules N     run N schedules (default 1000)\n"
	     "  --seconds N       run for N seconds of processor time\n"
	     "  --forever         until interrupted; failing seeds are printed\n"
	     "  --seed-base S     the first seed (default: drawn from the clock, and printed)\n"
	     "  --seed N          run this one\n"
	     "  --trace           print every step of it\n"
	     "  --regressions F   run the seeds of a file\n"
	     "  --check F         those, fresh ones, and every planted bug: what the test suite runs\n"
	     "  --plant NAME      plant a bug and look for it (--seconds: how long, default 60)\n"
	     "  --plants          all of them, one after another:");
	for (bug = BUG_NONE + 1; bug < BUG_COUNT; bug++)
		printf("      %-24s%s\n", bug_name((enum bug)bug), bug_text((enum bug)bug));
}

static bool parse_number(const char *text, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	return errno == 0 && end != text && *end == '\0';
}

enum {
	OPT_SEED = 1,
	OPT_BASE,
	OPT_SCHEDULES,
	OPT_SECONDS,
	OPT_FOREVER,
	OPT_TRACE,
	OPT_PLANT,
	OPT_PLANTS,
	OPT_FILE,
	OPT_CHECK,
	OPT_HELP
};

/* -1: go on; else the exit code. */
static int parse_options(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = {{"seed", required_argument, NULL, OPT_SEED},
					      {"seed-base", required_argument, NULL, OPT_BASE},
					      {"schedules", required_argument, NULL, OPT_SCHEDULES},
					      {"seconds", required_argument, NULL, OPT_SECONDS},
					      {"forever", no_argument, NULL, OPT_FOREVER},
					      {"trace", no_argument, NULL, OPT_TRACE},
					      {"plant", required_argument, NULL, OPT_PLANT},
					      {"plants", no_argument, NULL, OPT_PLANTS},
					      {"regressions", required_argument, NULL, OPT_FILE},
					      {"check", required_argument, NULL, OPT_CHECK},
					      {"help", no_argument, NULL, OPT_HELP},
					      {NULL, 0, NULL, 0}};
	bool ok = true;
	int c;

	while (ok && (c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case OPT_SEED:
			o->one = true;
			ok = parse_number(optarg, &o->seed);
			break;
		case OPT_BASE:
			ok = parse_number(optarg, &o->seed_base);
			break;
		case OPT_SCHEDULES:
			ok = parse_number(optarg, &o->schedules);
			break;
		case OPT_SECONDS:
			ok = parse_number(optarg, &o->seconds);
			break;
		case OPT_FOREVER:
			o->forever = true;
			break;
		case OPT_TRACE:
			o->trace = true;
			break;
		case OPT_PLANT:
			o->bug = bug_find(optarg);
			ok = o->bug != BUG_NONE;
			break;
		case OPT_PLANTS:
			o->plants = true;
			break;
		case OPT_FILE:
			o->regressions = optarg;
			break;
		case OPT_CHECK:
			o->check = optarg;
			break;
		case OPT_HELP:
			print_help();
			return 0;
		default:
			ok = false;
			break;
		}
	}
	if (ok && optind == argc)
		return -1;
	fputs("sim: wrong usage, see --help\n", stderr);
	return 2;
}

int main(int argc, char **argv)
{
	struct options o = {.seed_base = (uint64_t)time(NULL) * 1000000u};
	struct world *w;
	int code = parse_options(&o, argc, argv);

	if (code >= 0)
		return code;
	if (o.schedules == 0 && o.seconds == 0 && !o.plants && o.bug == BUG_NONE)
		o.schedules = 1000;
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	w = world_create();
	if (w == NULL) {
		fputs("sim: out of memory\n", stderr);
		return 1;
	}
	code = run(w, &o);
	world_free(w);
	return code;
}

/*
 * sync_rate.c - the yardstick of durable writes: how often a second this disk can pwrite() and fdatasync().
 *
 * Three kinds of file, because they differ by a factor of two: written (blocks written and synced before, what the log
 * uses), fallocated (blocks reserved, never written), growing (appended to). One thread; one kind a run; one JSON line.
 *
 * Exit: 0 ran, 1 failed, 2 bad usage.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "tests/bench/hist.h"

#define FILE_BYTES      ((size_t)16 << 20)
#define WRITE_BYTES_MAX ((size_t)1 << 20)

struct run {
	const char *path;
	const char *kind;
	size_t write_bytes;
	uint64_t duration_ms;
	char *block; /* WRITE_BYTES_MAX bytes of noise */
};

static bool prepare(const struct run *r, int fd)
{
	if (strcmp(r->kind, "fallocated") == 0)
		return fallocate(fd, 0, 0, (off_t)FILE_BYTES) == 0 && fsync(fd) == 0;
	if (strcmp(r->kind, "growing") == 0)
		return fsync(fd) == 0;
	for (size_t at = 0; at < FILE_BYTES; at += WRITE_BYTES_MAX) {
		if (pwrite(fd, r->block, WRITE_BYTES_MAX, (off_t)at) != (ssize_t)WRITE_BYTES_MAX)
			return false;
	}
	return fsync(fd) == 0;
}

static bool measure(const struct run *r, int fd, struct hist *h)
{
	bool growing = strcmp(r->kind, "growing") == 0;
	uint64_t end_us = clock_mono_us() + r->duration_ms * 1000, before_us;
	off_t at = 0;

	do {
		memcpy(r->block, &h->count, sizeof h->count); /* no two writes alike */
		before_us = clock_mono_us();
		if (pwrite(fd, r->block, r->write_bytes, at) != (ssize_t)r->write_bytes || fdatasync(fd) != 0)
			return false;
		hist_add(h, clock_mono_us() - before_us);
		at += (off_t)r->write_bytes;
		if (!growing && (size_t)at + r->write_bytes > FILE_BYTES)
			at = 0;
	} while (before_us < end_us);
	return true;
}

static bool run_kind(const struct run *r)
{
	int fd = open(r->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct hist h;
	uint64_t start_us;
	bool ok;

	if (fd < 0) {
		fprintf(stderr, "sync_rate: cannot create \"%s\": %s\n", r->path, strerror(errno));
		return false;
	}
	hist_init(&h);
	ok = prepare(r, fd);
	start_us = clock_mono_us();
	ok = ok && measure(r, fd, &h);
	if (!ok) {
		fprintf(stderr, "sync_rate: \"%s\": %s\n", r->path, strerror(errno));
	} else {
		printf("{\"kind\":\"%s\",\"write_bytes\":%zu,\"rate\":%.1f,", r->kind, r->write_bytes,
		       (double)h.count * 1e6 / (double)(clock_mono_us() - start_us));
		hist_print_json(&h, "", stdout);
		puts("}");
	}
	close(fd);
	unlink(r->path);
	return ok;
}

static int usage(void)
{
	fputs("usage: sync_rate --file PATH [--kind written|fallocated|growing] [--bytes N] [--duration-ms N]\n",
	      stderr);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option table[] = {
	    {"file", required_argument, NULL, 'f'},
	    {"kind", required_argument, NULL, 'k'},
	    {"bytes", required_argument, NULL, 'b'},
	    {"duration-ms", required_argument, NULL, 'd'},
	    {NULL, 0, NULL, 0},
	};
	struct run r = {.kind = NULL, .write_bytes = 8192, .duration_ms = 1000};
	int c, status = 0;

	while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
		if (c == 'f')
			r.path = optarg;
		else if (c == 'k')
			r.kind = optarg;
		else if (c == 'b')
			r.write_bytes = strtoul(optarg, NULL, 10);
		else if (c == 'd')
			r.duration_ms = strtoull(optarg, NULL, 10);
		else
			return usage();
	}
	if (r.path == NULL || r.write_bytes < 8 || r.write_bytes > WRITE_BYTES_MAX)
		return usage();
	if (r.kind == NULL)
		r.kind = "written";
	if (strcmp(r.kind, "written") != 0 && strcmp(r.kind, "fallocated") != 0 && strcmp(r.kind, "growing") != 0)
		return usage();
	r.block = malloc(WRITE_BYTES_MAX);
	if (r.block == NULL)
		return 1;
	memset(r.block, 0x5a, WRITE_BYTES_MAX);
	if (!run_kind(&r))
		status = 1;
	free(r.block);
	return status;
}

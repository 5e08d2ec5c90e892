/*
 * metrics_text.h - writing Prometheus' text format: names, types, help, labels, histograms.
 *
 * A family is begun once, then its samples follow, as the format demands. Pure; a short buffer shows in out->failed.
 */
#ifndef GRIZZLY_COMMON_BASE_METRICS_TEXT_H
#define GRIZZLY_COMMON_BASE_METRICS_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/timings.h"

struct metrics_text {
	struct buf *out;
	const char *labels; /* of every sample, like node="node1"; "" for none */
	const char *name;   /* of the family, without "grizzly_" */
};

void metrics_family(struct metrics_text *m, const char *name, const char *type, const char *help);
/* A sample of the family; labels: further ones, or "". */
void metrics_sample(struct metrics_text *m, const char *labels, uint64_t value);
void metrics_sample_ms(struct metrics_text *m, const char *labels, uint64_t ms); /* in seconds */
/* A histogram of the family. us: its values are microseconds, and are shown in seconds. */
void metrics_histogram(struct metrics_text *m, const char *labels, const struct histogram *h,
		       const struct histogram_scale *scale, bool us);

/* A family with one sample. */
void metrics_one(struct metrics_text *m, const char *name, const char *type, const char *help, uint64_t value);
void metrics_one_ms(struct metrics_text *m, const char *name, const char *help, uint64_t ms);

#endif

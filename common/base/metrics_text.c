/* metrics_text.c - see metrics_text.h. */
#include "common/base/metrics_text.h"

#include <inttypes.h>
#include <stdio.h>

void metrics_family(struct metrics_text *m, const char *name, const char *type, const char *help)
{
	m->name = name;
	buf_printf(m->out, "# HELP grizzly_%s %s\n# TYPE grizzly_%s %s\n", name, help, name, type);
}

/* The name with a suffix, and the labels; more may follow before the value. */
static void put_name(struct metrics_text *m, const char *suffix, const char *labels, const char *more)
{
	const char *parts[] = {m->labels, labels, more};
	size_t i, count = 0;

	buf_printf(m->out, "grizzly_%s%s", m->name, suffix);
	for (i = 0; i < 3; i++)
		if (parts[i][0] != '\0')
			buf_printf(m->out, "%s%s", count++ == 0 ? "{" : ",", parts[i]);
	buf_puts(m->out, count > 0 ? "} " : " ");
}

static void put_seconds(struct buf *out, uint64_t us)
{
	buf_printf(out, "%" PRIu64 ".%06u", us / 1000000, (unsigned)(us % 1000000));
}

void metrics_sample(struct metrics_text *m, const char *labels, uint64_t value)
{
	put_name(m, "", labels, "");
	buf_printf(m->out, "%" PRIu64 "\n", value);
}

void metrics_sample_ms(struct metrics_text *m, const char *labels, uint64_t ms)
{
	put_name(m, "", labels, "");
	buf_printf(m->out, "%" PRIu64 ".%03u\n", ms / 1000, (unsigned)(ms % 1000));
}

/* Without needless zeroes: 0.00001, 0.5, 1. */
static void bound_text(char *out, size_t size, uint64_t bound, bool us)
{
	int n;

	if (!us) {
		snprintf(out, size, "le=\"%" PRIu64 "\"", bound);
		return;
	}
	n = snprintf(out, size, "le=\"%" PRIu64 ".%06u", bound / 1000000, (unsigned)(bound % 1000000));
	while (out[n - 1] == '0')
		n--;
	if (out[n - 1] == '.')
		n--;
	snprintf(out + n, size - (size_t)n, "\"");
}

void metrics_histogram(struct metrics_text *m, const char *labels, const struct histogram *h,
		       const struct histogram_scale *scale, bool us)
{
	uint64_t total = 0, sum = atomic_load_explicit(&h->sum, memory_order_relaxed);
	char bound[40];
	size_t i;

	for (i = 0; i <= scale->count; i++) {
		total += atomic_load_explicit(&h->counts[i], memory_order_relaxed);
		if (i < scale->count)
			bound_text(bound, sizeof(bound), scale->bounds[i], us);
		else
			snprintf(bound, sizeof(bound), "le=\"+Inf\"");
		put_name(m, "_bucket", labels, bound);
		buf_printf(m->out, "%" PRIu64 "\n", total);
	}
	put_name(m, "_sum", labels, "");
	if (us)
		put_seconds(m->out, sum);
	else
		buf_printf(m->out, "%" PRIu64, sum);
	buf_puts(m->out, "\n");
	put_name(m, "_count", labels, "");
	buf_printf(m->out, "%" PRIu64 "\n", total);
}

void metrics_one(struct metrics_text *m, const char *name, const char *type, const char *help, uint64_t value)
{
	metrics_family(m, name, type, help);
	metrics_sample(m, "", value);
}

void metrics_one_ms(struct metrics_text *m, const char *name, const char *help, uint64_t ms)
{
	metrics_family(m, name, "gauge", help);
	metrics_sample_ms(m, "", ms);
}

/*
 * event.c - simulated time: a heap of events ordered by time, then by when they were added.
 */
#include "tests/sim/world.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

uint64_t now_ms(const struct world *w)
{
	return w->now_us / 1000;
}

static bool before(const struct event *a, const struct event *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

void event_add(struct world *w, struct event ev)
{
	struct event_queue *q = &w->events;
	size_t i = q->count;

	if (q->count == SIM_EVENTS_MAX) {
		free(ev.bytes);
		violated(w, "the simulator has more than %u events to come", SIM_EVENTS_MAX);
		return;
	}
	ev.order = ++q->order;
	q->count++;
	while (i > 0 && before(&ev, &q->heap[(i - 1) / 2])) {
		q->heap[i] = q->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	q->heap[i] = ev;
}

bool event_take(struct world *w, struct event *out)
{
	struct event_queue *q = &w->events;
	size_t i = 0, child;
	struct event last;

	if (q->count == 0)
		return false;
	*out = q->heap[0];
	last = q->heap[--q->count];
	while ((child = 2 * i + 1) < q->count) {
		if (child + 1 < q->count && before(&q->heap[child + 1], &q->heap[child]))
			child++;
		if (!before(&q->heap[child], &last))
			break;
		q->heap[i] = q->heap[child];
		i = child;
	}
	if (q->count > 0)
		q->heap[i] = last;
	return true;
}

void event_clear(struct world *w)
{
	size_t i;

	for (i = 0; i < w->events.count; i++)
		free(w->events.heap[i].bytes);
	w->events.count = 0;
	w->events.order = 0;
}

void node_later(struct node *n, enum event_kind kind, uint64_t delay_us, uint64_t a, uint64_t b)
{
	event_add(n->world, (struct event){.at_us = n->world->now_us + delay_us,
					   .kind = kind,
					   .node = n->index,
					   .process = n->process,
					   .a = a,
					   .b = b});
}

void supervisor_later(struct world *w, enum event_kind kind, uint32_t node, uint64_t delay_us, uint64_t a, uint64_t b)
{
	event_add(w, (struct event){.at_us = w->now_us + delay_us,
				    .kind = kind,
				    .node = node,
				    .process = w->supervisor.process,
				    .a = a,
				    .b = b});
}

void world_later(struct world *w, enum event_kind kind, uint32_t node, uint64_t delay_us, uint64_t a, uint64_t b)
{
	event_add(w, (struct event){.at_us = w->now_us + delay_us, .kind = kind, .node = node, .a = a, .b = b});
}

void trace(const struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (!w->trace)
		return;
	printf("%6" PRIu64 ".%03" PRIu64 " ", w->now_us / 1000, w->now_us % 1000);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

void violated(struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (w->failed)
		return;
	va_start(ap, fmt);
	vsnprintf(w->why, sizeof(w->why), fmt, ap);
	va_end(ap);
	w->failed = true;
	trace(w, "VIOLATED: %s", w->why);
}

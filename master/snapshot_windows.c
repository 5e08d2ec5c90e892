/* snapshot_windows.c - see snapshot_windows.h. */
#include "master/snapshot_windows.h"

#include <string.h>

void snapshot_windows_init(struct snapshot_windows *s, uint32_t size_pages)
{
	memset(s, 0, sizeof(*s));
	s->size_pages = size_pages;
}

bool snapshot_windows_offer(struct snapshot_windows *s, uint32_t *first_pgno, uint32_t *count)
{
	struct snapshot_window *w = &s->ring[(s->first + s->open) % SNAPSHOT_WINDOWS_OPEN];
	uint32_t left = s->size_pages - s->offered;

	if (s->open == SNAPSHOT_WINDOWS_OPEN || left == 0)
		return false;
	memset(w, 0, sizeof(*w));
	w->first_pgno = s->offered + 1;
	w->count = left < WIRE_WINDOW_PAGES ? left : WIRE_WINDOW_PAGES;
	s->offered += w->count;
	s->open++;
	*first_pgno = w->first_pgno;
	*count = w->count;
	return true;
}

bool snapshot_windows_answer(struct snapshot_windows *s, const struct wire_snapshot_want *want)
{
	struct snapshot_window *w;
	unsigned i;

	for (i = 0; i < s->open; i++) {
		w = &s->ring[(s->first + i) % SNAPSHOT_WINDOWS_OPEN];
		if (w->answered || w->first_pgno != want->first_pgno || w->count != want->count)
			continue;
		memcpy(w->want, want->bits, sizeof(w->want));
		w->answered = true;
		return true;
	}
	return false;
}

static bool is_wanted(const struct snapshot_window *w, uint32_t i)
{
	return (w->want[i / 8] >> (i % 8) & 1) != 0;
}

bool snapshot_windows_take(struct snapshot_windows *s, uint32_t max, uint32_t *first_pgno, uint32_t *count)
{
	struct snapshot_window *w;
	uint32_t from;

	while (s->open > 0 && s->ring[s->first].answered) {
		w = &s->ring[s->first];
		while (w->next < w->count && !is_wanted(w, w->next))
			w->next++;
		from = w->next;
		while (w->next < w->count && w->next - from < max && is_wanted(w, w->next))
			w->next++;
		if (w->next > from) {
			*first_pgno = w->first_pgno + from;
			*count = w->next - from;
			s->taken += *count;
			return true;
		}
		s->first = (s->first + 1) % SNAPSHOT_WINDOWS_OPEN;
		s->open--;
	}
	return false;
}

bool snapshot_windows_done(const struct snapshot_windows *s)
{
	return s->open == 0 && s->offered == s->size_pages;
}

/* ack_watch.c - see ack_watch.h. */
#include "replica/ack_watch.h"

#include <string.h>

static void begin_row(struct ack_watch *w, uint64_t now_ms)
{
	w->first_ms = now_ms;
	w->unheard = 0;
}

void ack_watch_init(struct ack_watch *w)
{
	memset(w, 0, sizeof(*w));
	w->patience_ms = ACK_WATCH_PATIENCE_MS;
}

enum ack_watch_verdict ack_watch_on_hello(struct ack_watch *w, uint64_t now_ms)
{
	if (w->last_ms == 0 || now_ms - w->last_ms > ACK_WATCH_GAP_MS)
		begin_row(w, now_ms);
	w->last_ms = now_ms;
	if (w->unheard < ACK_WATCH_HELLOS_MIN || now_ms - w->first_ms < w->patience_ms)
		return ACK_WATCH_FINE;
	begin_row(w, now_ms);
	w->patience_ms *= 2;
	if (w->patience_ms > ACK_WATCH_PATIENCE_MS_MAX)
		w->patience_ms = ACK_WATCH_PATIENCE_MS_MAX;
	return ACK_WATCH_RECONNECT;
}

void ack_watch_on_answer(struct ack_watch *w)
{
	w->unheard++;
}

void ack_watch_on_heard(struct ack_watch *w)
{
	w->patience_ms = ACK_WATCH_PATIENCE_MS;
	w->last_ms = 0;
	w->unheard = 0;
}

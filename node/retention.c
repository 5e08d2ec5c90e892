/* retention.c - see retention.h. */
#include "node/retention.h"

/* The segment being filled, and the spare that is made for the one after it. */
#define ROOM_SEGMENTS 2u

uint64_t retention_limit(const struct retention_policy *p)
{
	return p->max_bytes - p->max_bytes / 8 - ROOM_SEGMENTS * p->segment_size_bytes;
}

uint64_t retention_after_cut(const struct retention_policy *p)
{
	uint64_t most = retention_limit(p) / 2;

	return p->keep_bytes < most ? p->keep_bytes : most;
}

void retention_decide(const struct retention_policy *p, const struct retention_facts *f, struct retention_plan *out)
{
	out->over = f->log_bytes > retention_limit(p);
	if (out->over) {
		out->keep_lsn = f->cut_lsn;
		return;
	}
	out->keep_lsn = f->keep_lsn;
	if (f->archiving && f->archived_lsn + 1 < out->keep_lsn)
		out->keep_lsn = f->archived_lsn + 1;
}

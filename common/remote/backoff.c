/* backoff.c - see backoff.h. */
#include "common/remote/backoff.h"

#include <assert.h>

bool backoff_is_failing(const struct backoff *b)
{
	return b->failures > 0;
}

bool backoff_may_go(struct backoff *b, uint64_t now_ms, bool *probe)
{
	*probe = false;
	if (b->failures == 0)
		return true;
	if (now_ms < b->until_ms)
		return false;
	if (b->probing)
		return true; /* it has not failed in all its time */
	b->probing = true;
	b->until_ms = now_ms + BACKOFF_PROBE_MS;
	*probe = true;
	return true;
}

uint64_t backoff_next_ms(const struct backoff *b)
{
	assert(b->failures > 0);
	return b->until_ms;
}

void backoff_answered(struct backoff *b)
{
	*b = (struct backoff){0};
}

bool backoff_failed(struct backoff *b, uint64_t now_ms)
{
	uint64_t pause_ms = BACKOFF_FIRST_MS;
	unsigned i;

	if (b->failures > 0 && !b->probing)
		return false; /* it is known */
	for (i = 0; i < b->failures && pause_ms < BACKOFF_MAX_MS; i++)
		pause_ms *= 2;
	b->failures++;
	b->probing = false;
	b->until_ms = now_ms + (pause_ms < BACKOFF_MAX_MS ? pause_ms : BACKOFF_MAX_MS);
	return true;
}

void backoff_undecided(struct backoff *b)
{
	if (!b->probing)
		return;
	b->probing = false;
	b->until_ms = 0;
}

/* throttle.c - see throttle.h. A set-associative table: an address has one set, in which it takes the place of the
 * oldest. */
#include "common/auth/throttle.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define SETS 256u
#define WAYS 4u

struct entry {
	struct throttle_address address;
	bool used;
	unsigned waiting;
	uint64_t score; /* as of last_ms, in thousandths */
	uint64_t last_ms;
	uint64_t failures, next_line;
};

struct throttle {
	uint64_t seed;
	uint64_t lines_since_ms;
	unsigned lines;
	uint64_t not_shown;
	struct entry entries[SETS][WAYS];
};

struct throttle *throttle_create(uint64_t seed)
{
	struct throttle *t = calloc(1, sizeof(*t));

	if (t != NULL)
		t->seed = seed;
	return t;
}

void throttle_free(struct throttle *t)
{
	free(t);
}

bool throttle_address_of(struct throttle_address *out, const struct sockaddr *address)
{
	const struct sockaddr_in *four = (const struct sockaddr_in *)address;
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;

	memset(out, 0, sizeof(*out));
	if (address->sa_family == AF_INET) {
		out->bytes[10] = out->bytes[11] = 0xff;
		memcpy(out->bytes + 12, &four->sin_addr, 4);
		return true;
	}
	if (address->sa_family != AF_INET6)
		return false;
	memcpy(out->bytes, &six->sin6_addr, IN6_IS_ADDR_V4MAPPED(&six->sin6_addr) ? 16 : 8);
	return true;
}

static struct entry *set_of(struct throttle *t, const struct throttle_address *address)
{
	return t->entries[XXH3_64bits_withSeed(address->bytes, sizeof(address->bytes), t->seed) % SETS];
}

static struct entry *find(struct entry *set, const struct throttle_address *address)
{
	unsigned i;

	for (i = 0; i < WAYS; i++)
		if (set[i].used && memcmp(&set[i].address, address, sizeof(*address)) == 0)
			return &set[i];
	return NULL;
}

/* A free place, or that of the address that failed longest ago; one with answers waiting only if all have. */
static struct entry *take_place(struct entry *set, const struct throttle_address *address, uint64_t now_ms)
{
	struct entry *best = &set[0];
	unsigned i;

	for (i = 1; i < WAYS && best->used; i++) {
		bool waits = set[i].waiting > 0, best_waits = best->waiting > 0;

		if (!set[i].used || (best_waits && !waits) || (best_waits == waits && set[i].last_ms < best->last_ms))
			best = &set[i];
	}
	*best = (struct entry){.address = *address, .used = true, .last_ms = now_ms, .next_line = 1};
	return best;
}

static bool may_log(struct throttle *t, struct entry *e, uint64_t now_ms)
{
	if (e->failures < e->next_line)
		return false;
	e->next_line *= 10;
	if (now_ms - t->lines_since_ms >= 1000) {
		t->lines_since_ms = now_ms;
		t->lines = 0;
	}
	if (t->lines < THROTTLE_LINES_MAX) {
		t->lines++;
		return true;
	}
	t->not_shown++;
	return false;
}

struct throttle_verdict throttle_failed(struct throttle *t, const struct throttle_address *address, uint64_t now_ms)
{
	struct throttle_verdict v = {0};
	struct entry *set = set_of(t, address), *e = find(set, address);
	uint64_t passed_ms, over;

	if (e == NULL)
		e = take_place(set, address, now_ms);
	passed_ms = now_ms - e->last_ms; /* a second takes off 1000 thousandths */
	e->score = (e->score > passed_ms ? e->score - passed_ms : 0) + 1000;
	e->last_ms = now_ms;
	e->failures++;
	v.failures = e->failures;
	v.log = may_log(t, e, now_ms);
	if (v.log) {
		v.not_shown = t->not_shown;
		t->not_shown = 0;
	}
	over = e->score > THROTTLE_FREE * 1000 ? (e->score - THROTTLE_FREE * 1000 + 999) / 1000 : 0;
	if (over > THROTTLE_DELAY_MAX_MS / THROTTLE_STEP_MS) {
		over = THROTTLE_DELAY_MAX_MS / THROTTLE_STEP_MS;
		e->score = (THROTTLE_FREE + over) * 1000; /* forgiven some 40 s after the last one, however many */
	}
	v.delay_ms = over * THROTTLE_STEP_MS;
	v.refuse = v.delay_ms > 0 && e->waiting >= THROTTLE_WAITING_MAX;
	if (v.delay_ms > 0 && !v.refuse)
		e->waiting++;
	return v;
}

void throttle_answered(struct throttle *t, const struct throttle_address *address)
{
	struct entry *e = find(set_of(t, address), address);

	if (e != NULL && e->waiting > 0)
		e->waiting--; /* else it was forgotten meanwhile */
}

/*
 * template.c - see template.h. Numbers come from xorshift64*: cheap, and the same at each run.
 */
#include "tests/bench/template.h"

#include <stdlib.h>
#include <string.h>

#include "tests/bench/http1.h"

struct slot {
	size_t offset; /* in request */
	char kind;     /* 'r' or 's' */
};

struct template
{
	char *request;
	size_t len;
	struct slot *slots;
	size_t slot_count;
	uint64_t ids;
	uint64_t sequence;
	uint64_t random;
};

static int is_slot(const char *p)
{
	return p[0] == '%' && (p[1] == 'r' || p[1] == 's');
}

/* Copies body with each gap widened, and notes where they are, relative to the body. */
static char *widen(struct template *t, const char *body, size_t *out_len)
{
	size_t count = 0, pos = 0;
	char *wide;

	for (const char *p = body; *p != '\0'; p++)
		count += is_slot(p) ? 1 : 0;
	wide = malloc(strlen(body) + count * TEMPLATE_WIDTH + 1);
	t->slots = calloc(count + 1, sizeof *t->slots);
	if (wide == NULL || t->slots == NULL) {
		free(wide);
		return NULL;
	}
	for (const char *p = body; *p != '\0'; p++) {
		if (!is_slot(p)) {
			wide[pos++] = *p;
			continue;
		}
		p++;
		t->slots[t->slot_count++] = (struct slot){.offset = pos, .kind = *p};
		memset(wide + pos, ' ', TEMPLATE_WIDTH);
		pos += TEMPLATE_WIDTH;
	}
	*out_len = pos;
	return wide;
}

struct template *template_create(const char *address, const char *path, const char *token, const char *body,
				 uint64_t ids, uint64_t first_sequence)
{
	struct template *t = calloc(1, sizeof *t);
	size_t head_len = 0, body_len;
	char *wide;

	if (t == NULL)
		return NULL;
	t->ids = ids > 0 ? ids : 1;
	t->sequence = first_sequence;
	t->random = 88172645463325252ULL;
	wide = widen(t, body, &body_len);
	if (wide != NULL)
		t->request = http1_build_post(address, path, token, wide, body_len, &head_len, &t->len);
	free(wide);
	if (t->request == NULL) {
		template_free(t);
		return NULL;
	}
	for (size_t i = 0; i < t->slot_count; i++)
		t->slots[i].offset += head_len;
	return t;
}

void template_free(struct template *t)
{
	if (t == NULL)
		return;
	free(t->request);
	free(t->slots);
	free(t);
}

static uint64_t next_random(struct template *t)
{
	t->random ^= t->random >> 12;
	t->random ^= t->random << 25;
	t->random ^= t->random >> 27;
	return t->random * 2685821657736338717ULL;
}

static void put_number(char *at, uint64_t v)
{
	char *p = at + TEMPLATE_WIDTH;

	do {
		*--p = (char)('0' + v % 10);
		v /= 10;
	} while (v > 0 && p > at);
	while (p > at)
		*--p = ' ';
}

const char *template_next(struct template *t, size_t *len)
{
	for (size_t i = 0; i < t->slot_count; i++)
		put_number(t->request + t->slots[i].offset,
			   t->slots[i].kind == 'r' ? next_random(t) % t->ids + 1 : t->sequence++);
	*len = t->len;
	return t->request;
}

uint64_t template_sequence(const struct template *t)
{
	return t->sequence;
}

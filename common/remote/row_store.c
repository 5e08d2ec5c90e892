/* row_store.c - see row_store.h. */
#include "common/remote/row_store.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/spill.h"

#define CHUNK_FIRST ((size_t)16 << 10)
#define CHUNK_MAX   ((size_t)1 << 20)
#define CHUNK_SPILL ((size_t)16 << 20)

struct chunk {
	uint8_t *data;
	size_t size, used;
	struct spill file; /* data is its; closed: data is memory */
};

struct row_store {
	struct row_budget *budget;
	size_t columns;
	struct chunk *chunks;
	size_t count, room;
	uint64_t rows;
};

struct row_store *row_store_create(struct row_budget *budget, size_t columns)
{
	struct row_store *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->budget = budget;
	s->columns = columns;
	return s;
}

void row_store_free(struct row_store *s)
{
	size_t i;

	if (s == NULL)
		return;
	for (i = 0; i < s->count; i++) {
		if (s->chunks[i].file.data != NULL) {
			s->budget->disk_left += s->chunks[i].size;
			spill_close(&s->chunks[i].file);
		} else {
			s->budget->memory_left += s->chunks[i].size;
			free(s->chunks[i].data);
		}
	}
	free(s->chunks);
	free(s);
}

uint64_t row_store_count(const struct row_store *s)
{
	return s->rows;
}

/* ---- adding */

/* Rows begin at multiples of this in their chunk. */
static size_t aligned(size_t size)
{
	return (size + sizeof(void *) - 1) & ~(sizeof(void *) - 1);
}

static size_t uint_size(uint64_t v)
{
	size_t n = 1;

	while (n < 8 && v >> (8 * n) != 0)
		n++;
	return n;
}

/* A value is a byte with its type in the low three bits, and how many bytes of number follow above them; then the number
 * (an integer, sign folded in; a real; a length), then the bytes of a text or blob. */
static uint64_t number_of(const struct query_value *v)
{
	uint64_t n;

	switch (v->type) {
	case QUERY_INTEGER:
		return ((uint64_t)v->integer << 1) ^ (uint64_t)(v->integer >> 63);
	case QUERY_REAL:
		memcpy(&n, &v->real, sizeof(n));
		return n;
	case QUERY_TEXT:
	case QUERY_BLOB:
		return v->data.len;
	case QUERY_NULL:
		break;
	}
	return 0;
}

static size_t value_size(const struct query_value *v)
{
	if (v->type == QUERY_NULL)
		return 1;
	return 1 + uint_size(number_of(v)) + (v->type == QUERY_TEXT || v->type == QUERY_BLOB ? v->data.len : 0);
}

static uint8_t *put_value(uint8_t *p, const struct query_value *v)
{
	uint64_t n = number_of(v);
	size_t size = v->type == QUERY_NULL ? 0 : uint_size(n), i;

	*p++ = (uint8_t)((unsigned)v->type | (unsigned)(size << 3));
	for (i = 0; i < size; i++)
		*p++ = (uint8_t)(n >> (8 * i));
	if ((v->type == QUERY_TEXT || v->type == QUERY_BLOB) && v->data.len > 0) {
		memcpy(p, v->data.bytes, v->data.len);
		p += v->data.len;
	}
	return p;
}

static enum db_err too_large(struct errmsg *em)
{
	return errmsg_set(
	    em, DB_TOO_LARGE,
	    "the query keeps more rows of other nodes than it may: let it ask for fewer, with conditions that "
	    "the other node can use, or in a subquery that is sent there whole");
}

/* size: of the row that does not fit any more. */
static enum db_err add_chunk(struct row_store *s, size_t size, struct errmsg *em)
{
	struct row_budget *b = s->budget;
	struct chunk *grown, *c;
	size_t want = s->count < 6 ? CHUNK_FIRST << s->count : CHUNK_MAX;
	enum db_err err;

	if (s->count == s->room) {
		s->room = s->room > 0 ? s->room * 2 : 8;
		grown = realloc(s->chunks, s->room * sizeof(*grown));
		if (grown == NULL)
			return errmsg_set(em, DB_NOMEM, "out of memory");
		s->chunks = grown;
	}
	c = &s->chunks[s->count];
	memset(c, 0, sizeof(*c));
	c->size = size > want ? size : want;
	if (c->size <= b->memory_left) {
		c->data = malloc(c->size);
		if (c->data == NULL)
			return errmsg_set(em, DB_NOMEM, "out of memory");
		b->memory_left -= c->size;
	} else {
		c->size = size > CHUNK_SPILL ? size : CHUNK_SPILL;
		if (b->dir == NULL || c->size > b->disk_left)
			return too_large(em);
		err = spill_open(&c->file, b->dir, c->size, em);
		if (err != DB_OK)
			return err;
		c->data = c->file.data;
		b->disk_left -= c->size;
	}
	s->count++;
	return DB_OK;
}

enum db_err row_store_add(struct row_store *s, const struct query_value *values, struct stored_row **row,
			  struct errmsg *em)
{
	struct chunk *c = s->count > 0 ? &s->chunks[s->count - 1] : NULL;
	size_t size = 0, whole, i;
	enum db_err err;
	uint8_t *p;

	for (i = 0; i < s->columns; i++)
		size += value_size(&values[i]);
	if (size > UINT32_MAX)
		return too_large(em);
	whole = aligned(sizeof(struct stored_row) + size);
	if (c == NULL || c->size - c->used < whole) {
		err = add_chunk(s, whole, em);
		if (err != DB_OK)
			return err;
		c = &s->chunks[s->count - 1];
	}
	*row = (struct stored_row *)(void *)(c->data + c->used);
	(*row)->next = NULL;
	(*row)->hash = 0;
	(*row)->size = (uint32_t)size;
	p = (*row)->bytes;
	for (i = 0; i < s->columns; i++)
		p = put_value(p, &values[i]);
	assert(p == (*row)->bytes + size);
	c->used += whole;
	s->rows++;
	return DB_OK;
}

bool row_store_same(const struct stored_row *a, const struct stored_row *b)
{
	return a->size == b->size && memcmp(a->bytes, b->bytes, a->size) == 0;
}

void row_store_drop_last(struct row_store *s, struct stored_row *row)
{
	struct chunk *c = &s->chunks[s->count - 1];

	assert((uint8_t *)row + aligned(sizeof(*row) + row->size) == c->data + c->used);
	c->used = (size_t)((uint8_t *)row - c->data);
	s->rows--;
}

/* ---- reading */

struct stored_row *row_store_next(const struct row_store *s, struct row_walk *w)
{
	struct stored_row *row;

	while (w->chunk < s->count && w->at == s->chunks[w->chunk].used) {
		if (w->chunk + 1 == s->count)
			return NULL; /* more may come into this one */
		w->chunk++;
		w->at = 0;
	}
	if (w->chunk >= s->count)
		return NULL;
	row = (struct stored_row *)(void *)(s->chunks[w->chunk].data + w->at);
	w->at += aligned(sizeof(*row) + row->size);
	return row;
}

void row_store_values(const struct row_store *s, const struct stored_row *row, struct query_value *values)
{
	const uint8_t *p = row->bytes;
	uint64_t n;
	size_t i, k, size;

	for (i = 0; i < s->columns; i++) {
		struct query_value *v = &values[i];

		v->type = (enum query_value_type)(*p & 7);
		size = *p++ >> 3;
		for (n = 0, k = 0; k < size; k++)
			n |= (uint64_t)*p++ << (8 * k);
		if (v->type == QUERY_INTEGER) {
			v->integer = (int64_t)(n >> 1) ^ -(int64_t)(n & 1);
		} else if (v->type == QUERY_REAL) {
			memcpy(&v->real, &n, sizeof(n));
		} else if (v->type != QUERY_NULL) {
			v->data.bytes = (const char *)p;
			v->data.len = n;
			p += n;
		}
	}
}

/* ---- by hash */

struct row_index {
	size_t mask;
	struct bucket {
		struct stored_row *first, *last;
	} buckets[];
};

enum db_err row_index_create(struct row_index **out, struct row_store *s)
{
	struct row_walk walk = {0};
	struct stored_row *row;
	struct row_index *i;
	size_t buckets = 16;

	*out = NULL;
	while (buckets < s->rows)
		buckets *= 2;
	i = calloc(1, sizeof(*i) + buckets * sizeof(i->buckets[0]));
	if (i == NULL)
		return DB_NOMEM;
	i->mask = buckets - 1;
	while ((row = row_store_next(s, &walk)) != NULL) {
		struct bucket *b = &i->buckets[row->hash & i->mask];

		row->next = NULL;
		if (b->last != NULL)
			b->last->next = row;
		else
			b->first = row;
		b->last = row;
	}
	*out = i;
	return DB_OK;
}

void row_index_free(struct row_index *i)
{
	free(i);
}

static const struct stored_row *with_hash(const struct stored_row *row, uint32_t hash)
{
	while (row != NULL && row->hash != hash)
		row = row->next;
	return row;
}

const struct stored_row *row_index_find(const struct row_index *i, uint32_t hash)
{
	return with_hash(i->buckets[hash & i->mask].first, hash);
}

const struct stored_row *row_index_next(const struct stored_row *row)
{
	return with_hash(row->next, row->hash);
}

/* disk.c - see disk.h. */
#include "tests/sim/disk.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "tests/sim/bugs.h"

#define HASHED_HEADER_SIZE 64u /* what a record's checksum covers when it has no payload */

bool disk_init(struct disk *d)
{
	memset(d, 0, sizeof(*d));
	d->log = calloc(SIM_LSN_MAX, sizeof(*d->log));
	return d->log != NULL;
}

void disk_fini(struct disk *d)
{
	free(d->log);
	d->log = NULL;
}

static void clear_store(struct disk *d)
{
	d->first_lsn = 1;
	d->last = d->base = (struct wal_pos){0, 0};
	d->last_checksum = d->base_checksum = 0;
	memset(&d->base_state, 0, sizeof(d->base_state));
	memset(&d->applied, 0, sizeof(d->applied));
	d->durable_lsn = d->visible_lsn = 0;
	d->diverged = d->failed = d->has_store = false;
}

void disk_clear(struct disk *d)
{
	clear_store(d);
	d->promised_term = 0;
	d->standing = STANDING_NEW;
	d->full = d->sync_fails = d->rotten = false;
}

void disk_set_aside(struct disk *d)
{
	clear_store(d);
}

unsigned disk_register_of(uint64_t value)
{
	return value & SIM_MEMBERS_VALUE ? SIM_REGISTERS - 1 : (unsigned)(value % (SIM_REGISTERS - 1));
}

uint64_t disk_members_version(const struct disk_state *s)
{
	return s->registers[SIM_REGISTERS - 1] & ~SIM_MEMBERS_VALUE;
}

uint64_t disk_hash(unsigned reg, uint64_t value)
{
	uint64_t z = (value + 1) * 0x9e3779b97f4a7c15u + reg * 0xd6e8feb86659fd93u;

	return value == 0 ? 0 : (z ^ (z >> 29)) * 0xbf58476d1ce4e5b9u;
}

static void state_put(struct disk_state *s, const struct wal_record *r)
{
	s->lsn = r->lsn;
	s->db_checksum = r->db_checksum;
	if (r->type == WAL_PAGES)
		s->registers[disk_register_of(r->time_us)] = r->time_us;
}

const struct disk_record *disk_read(const struct disk *d, uint64_t lsn)
{
	return lsn >= d->first_lsn && lsn <= d->last.lsn && d->log[lsn].intact ? &d->log[lsn] : NULL;
}

/* ---- writing */

static void put_record(struct disk *d, const struct wal_record *r, const uint8_t *bytes)
{
	struct disk_record *slot = &d->log[r->lsn];

	assert(r->lsn < SIM_LSN_MAX && r->lsn == d->last.lsn + 1);
	memcpy(slot->bytes, bytes, sizeof(slot->bytes));
	slot->r = *r;
	slot->r.payload = slot->bytes + WAL_RECORD_HEADER_SIZE;
	slot->synced_lsn = d->durable_lsn;
	slot->intact = true;
	d->last = (struct wal_pos){r->term, r->lsn};
	d->last_checksum = r->checksum;
}

static enum db_err may_append(const struct disk *d, struct errmsg *em)
{
	if (d->failed)
		return errmsg_set(em, DB_IO, "the log failed earlier and must be reopened");
	if (d->full)
		return errmsg_set(em, DB_FULL, "no space left on device");
	return DB_OK;
}

enum db_err disk_append_record(struct disk *d, const uint8_t *bytes, size_t len, struct errmsg *em)
{
	struct wal_record r;

	if (wal_record_decode(&r, bytes, len, em) != DB_OK || len != WAL_RECORD_HEADER_SIZE + r.payload_len)
		return errmsg_set(em, DB_CORRUPT, "not a record");
	if (r.lsn != d->last.lsn + 1)
		return errmsg_set(em, DB_GAP, "record %" PRIu64 " does not follow %" PRIu64, r.lsn, d->last.lsn);
	if (r.prev_checksum != d->last_checksum)
		return errmsg_set(em, DB_GAP, "record %" PRIu64 " follows another record than ours", r.lsn);
	if (r.term < d->last.term)
		return errmsg_set(em, DB_STALE_TERM, "record %" PRIu64 " is of term %" PRIu64 ", ours of %" PRIu64,
				  r.lsn, r.term, d->last.term);
	if (may_append(d, em) != DB_OK)
		return em->err;
	put_record(d, &r, bytes);
	return DB_OK;
}

enum db_err disk_seal(struct disk *d, enum wal_type type, uint64_t term, uint64_t value, struct errmsg *em)
{
	struct wal_record r = {.type = type, .lsn = d->last.lsn + 1, .term = term, .time_us = value};
	uint8_t bytes[WAL_RECORD_HEADER_SIZE];
	unsigned reg = disk_register_of(value);

	assert(d->applied.lsn == d->last.lsn && term >= d->last.term);
	if (may_append(d, em) != DB_OK)
		return em->err;
	r.db_size_pages = SIM_REGISTERS;
	r.prev_checksum = d->last_checksum;
	r.db_checksum = d->applied.db_checksum;
	if (type == WAL_PAGES)
		r.db_checksum ^= disk_hash(reg, d->applied.registers[reg]) ^ disk_hash(reg, value);
	wal_record_encode_header(&r, bytes);
	r.checksum = XXH3_64bits(bytes, HASHED_HEADER_SIZE);
	wal_record_encode_header(&r, bytes);
	put_record(d, &r, bytes);
	state_put(&d->applied, &r);
	return DB_OK;
}

enum db_err disk_sync(struct disk *d, uint64_t upto_lsn, struct errmsg *em)
{
	if (d->failed || d->sync_fails) {
		d->failed = true;
		return errmsg_set(em, DB_IO, "the log cannot be synced");
	}
	if (upto_lsn > d->last.lsn)
		upto_lsn = d->last.lsn;
	if (upto_lsn > d->durable_lsn)
		d->durable_lsn = upto_lsn;
	return DB_OK;
}

enum db_err disk_apply(struct disk *d, uint64_t lsn, struct errmsg *em)
{
	while (d->applied.lsn < lsn && !d->diverged) {
		const struct wal_record *r = &d->log[d->applied.lsn + 1].r;
		unsigned reg = disk_register_of(r->time_us);
		uint64_t checksum = d->applied.db_checksum;

		if (r->type == WAL_PAGES)
			checksum ^= disk_hash(reg, d->applied.registers[reg]) ^ disk_hash(reg, r->time_us);
		d->diverged = checksum != r->db_checksum;
		if (!d->diverged)
			state_put(&d->applied, r);
	}
	if (d->diverged)
		return errmsg_set(em, DB_DIVERGED, "record %" PRIu64 ": database checksum differs", d->applied.lsn + 1);
	return DB_OK;
}

bool disk_state_at(const struct disk *d, uint64_t lsn, struct disk_state *out)
{
	uint64_t i;

	if (lsn < d->base.lsn || lsn > d->last.lsn)
		return false;
	*out = d->base_state;
	for (i = d->base.lsn + 1; i <= lsn; i++)
		state_put(out, &d->log[i].r);
	out->lsn = lsn;
	return true;
}

enum db_err disk_cut(struct disk *d, uint64_t keep_lsn, struct errmsg *em)
{
	if (keep_lsn < d->visible_lsn || keep_lsn < d->base.lsn)
		return errmsg_set(em, DB_INVALID,
				  "cannot cut to %" PRIu64 ": everything up to %" PRIu64 " is committed", keep_lsn,
				  d->visible_lsn);
	if (keep_lsn >= d->last.lsn)
		return DB_OK;
	if (d->failed)
		return errmsg_set(em, DB_IO, "the log failed earlier and must be reopened");
	if (keep_lsn < d->applied.lsn && !disk_state_at(d, keep_lsn, &d->applied))
		return errmsg_set(em, DB_INVALID, "cannot cut to %" PRIu64, keep_lsn);
	d->last.lsn = keep_lsn;
	if (keep_lsn >= d->first_lsn) {
		d->last.term = d->log[keep_lsn].r.term;
		d->last_checksum = d->log[keep_lsn].r.checksum;
	} else {
		d->last = d->base;
		d->last_checksum = d->base_checksum;
	}
	if (d->durable_lsn > keep_lsn)
		d->durable_lsn = keep_lsn;
	d->diverged = false;
	return DB_OK;
}

void disk_set_committed(struct disk *d, uint64_t lsn)
{
	if (lsn > d->applied.lsn)
		lsn = d->applied.lsn;
	if (lsn > d->visible_lsn)
		d->visible_lsn = lsn;
}

void disk_checkpoint(struct disk *d, uint64_t keep_lsn)
{
	uint64_t target = d->visible_lsn < d->durable_lsn ? d->visible_lsn : d->durable_lsn;

	if (bug_planted(BUG_CHECKPOINT_UNCOMMITTED))
		target = d->applied.lsn;
	if (target > d->base.lsn) {
		disk_state_at(d, target, &d->base_state);
		d->base = (struct wal_pos){d->log[target].r.term, target};
		d->base_checksum = d->log[target].r.checksum;
	}
	if (keep_lsn > d->base.lsn + 1)
		keep_lsn = d->base.lsn + 1;
	if (keep_lsn > d->first_lsn)
		d->first_lsn = keep_lsn;
}

/* ---- reading */

enum db_err disk_describe(const struct disk *d, uint64_t lsn, uint64_t *term, uint64_t *checksum, struct errmsg *em)
{
	const struct disk_record *record = disk_read(d, lsn);

	if (record != NULL) {
		*term = record->r.term;
		*checksum = record->r.checksum;
		return DB_OK;
	}
	if (lsn == d->last.lsn) {
		*term = d->last.term;
		*checksum = d->last_checksum;
		return DB_OK;
	}
	record = disk_read(d, lsn + 1);
	if (record == NULL)
		return errmsg_set(em, DB_NOTFOUND, "record %" PRIu64 " is not in the log", lsn);
	*term = record->r.term;
	*checksum = record->r.prev_checksum;
	return DB_OK;
}

static size_t note_term(struct wal_pos *out, size_t count, size_t max, uint64_t term, uint64_t lsn)
{
	if ((count > 0 && out[count - 1].term == term) || count == max)
		return count;
	out[count] = (struct wal_pos){term, lsn};
	return count + 1;
}

size_t disk_terms(const struct disk *d, struct wal_pos *out, size_t max)
{
	size_t count = 0;
	uint64_t lsn;

	if (d->base.lsn > 0 && d->first_lsn == d->base.lsn + 1)
		count = note_term(out, count, max, d->base.term, d->base.lsn);
	for (lsn = d->first_lsn; lsn <= d->last.lsn; lsn++)
		count = note_term(out, count, max, d->log[lsn].r.term, lsn);
	return count;
}

/* ---- opening */

/* Walks the log from the base's record on to the first that is not intact; what a later frame knows to have been durable
 * must not be missing. */
static enum db_err recover(struct disk *d, struct errmsg *em)
{
	uint64_t end = d->base.lsn, lsn;

	while (end < d->last.lsn && d->log[end + 1].intact)
		end++;
	for (lsn = end + 2; lsn <= d->last.lsn; lsn++)
		if (d->log[lsn].intact && d->log[lsn].synced_lsn > end)
			return errmsg_set(em, DB_CORRUPT, "record %" PRIu64 " is damaged though it had been durable",
					  end + 1);
	if (end == d->base.lsn) {
		if (d->first_lsn > end || d->last.lsn < end)
			d->first_lsn = end + 1;
		d->last = d->base;
		d->last_checksum = d->base_checksum;
	} else {
		d->last = (struct wal_pos){d->log[end].r.term, end};
		d->last_checksum = d->log[end].r.checksum;
	}
	return DB_OK;
}

enum db_err disk_open(struct disk *d, struct errmsg *em)
{
	uint64_t lsn;
	enum db_err err = recover(d, em);

	if (err != DB_OK)
		return err;
	d->has_store = true;
	d->failed = d->diverged = false;
	d->durable_lsn = d->last.lsn;
	d->visible_lsn = d->base.lsn;
	d->applied = d->base_state;
	for (lsn = d->base.lsn + 1; lsn <= d->last.lsn; lsn++)
		state_put(&d->applied, &d->log[lsn].r);
	return DB_OK;
}

void disk_install(struct disk *d, struct wal_pos pos, uint64_t record_checksum, const struct disk_state *state)
{
	clear_store(d);
	d->has_store = true;
	d->base = d->last = pos;
	d->base_checksum = d->last_checksum = record_checksum;
	d->base_state = *state;
	d->first_lsn = pos.lsn + 1;
}

/* ---- accidents */

void disk_power_cut(struct disk *d, struct rng *rng)
{
	uint64_t lsn;

	for (lsn = d->durable_lsn + 1; lsn <= d->last.lsn; lsn++)
		d->log[lsn].intact = !rng_once_in(rng, 2);
}

void disk_torn_write(struct disk *d)
{
	if (d->last.lsn > d->durable_lsn && d->last.lsn >= d->first_lsn)
		d->log[d->last.lsn].intact = false;
}

bool disk_rot(struct disk *d, struct rng *rng)
{
	uint64_t newest, lsn;

	if (d->last.lsn < d->base.lsn + 2)
		return false;
	newest = d->log[d->last.lsn].synced_lsn;
	if (!d->log[d->last.lsn].intact || newest <= d->base.lsn || newest >= d->last.lsn)
		return false;
	lsn = rng_between(rng, d->base.lsn + 1, newest);
	d->log[lsn].intact = false;
	d->rotten = true;
	return true;
}

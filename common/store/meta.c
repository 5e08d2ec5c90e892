/* meta.c - see meta.h. Used by store_open() and by whoever holds store.checkpoint_lock. */
#include "common/store/meta.h"

#include <string.h>

#include "common/base/buf.h"

#define META_MAGIC 0x314d7a47u /* "GzM1" read little-endian */

static enum db_err meta_decode(struct meta *m, const uint8_t *bytes, size_t len, const char *path, struct errmsg *em)
{
	struct rd r;
	uint32_t magic;
	uint16_t version;
	const uint8_t *id;

	rd_init(&r, bytes, len);
	magic = rd_u32le(&r);
	version = rd_u16le(&r);
	rd_u16le(&r);
	if (r.bad || magic != META_MAGIC)
		return errmsg_set(em, DB_CORRUPT, "\"%s\" is no store.meta", path);
	if (version > META_VERSION)
		return errmsg_newer(em, path, version, META_VERSION);
	if (version != META_VERSION)
		return errmsg_set(em, DB_CORRUPT, "\"%s\" has format %u, which there is not", path, version);
	id = rd_bytes(&r, sizeof(m->cluster_id));
	if (id != NULL)
		memcpy(m->cluster_id, id, sizeof(m->cluster_id));
	m->checkpoint.term = rd_u64le(&r);
	m->checkpoint.lsn = rd_u64le(&r);
	m->record_checksum = rd_u64le(&r);
	m->db_checksum = rd_u64le(&r);
	m->time_us = rd_u64le(&r);
	m->db_size_pages = rd_u32le(&r);
	m->intent_size_pages = rd_u32le(&r);
	m->intent_lsn = rd_u64le(&r);
	m->page1_hash = rd_u64le(&r);
	if (r.bad || m->intent_lsn < m->checkpoint.lsn || m->intent_lsn > WAL_LSN_MAX ||
	    m->checkpoint.term > WAL_TERM_MAX)
		return errmsg_set(em, DB_CORRUPT, "\"%s\" is damaged", path);
	return DB_OK;
}

enum db_err meta_open(struct slotfile *f, const char *path, struct meta *m, bool *found, struct errmsg *em)
{
	uint8_t bytes[SLOTFILE_DATA_MAX];
	size_t len;
	enum db_err err;

	memset(m, 0, sizeof(*m));
	err = slotfile_open(f, path, bytes, sizeof(bytes), &len, em);
	if (err != DB_OK)
		return err;
	*found = len > 0;
	if (len > 0)
		err = meta_decode(m, bytes, len, path, em);
	if (err != DB_OK)
		slotfile_close(f);
	return err;
}

enum db_err meta_write(struct slotfile *f, const struct meta *m, struct errmsg *em)
{
	struct buf b = {0};
	enum db_err err;

	buf_put_u32le(&b, META_MAGIC);
	buf_put_u16le(&b, META_VERSION);
	buf_put_u16le(&b, 0);
	buf_put(&b, m->cluster_id, sizeof(m->cluster_id));
	buf_put_u64le(&b, m->checkpoint.term);
	buf_put_u64le(&b, m->checkpoint.lsn);
	buf_put_u64le(&b, m->record_checksum);
	buf_put_u64le(&b, m->db_checksum);
	buf_put_u64le(&b, m->time_us);
	buf_put_u32le(&b, m->db_size_pages);
	buf_put_u32le(&b, m->intent_size_pages);
	buf_put_u64le(&b, m->intent_lsn);
	buf_put_u64le(&b, m->page1_hash);
	err =
	    b.failed ? errmsg_set(em, DB_NOMEM, "no memory for \"%s\"", f->path) : slotfile_write(f, b.data, b.len, em);
	buf_fini(&b);
	return err;
}

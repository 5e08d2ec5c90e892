/*
 * wire.c - see wire.h. Each body is a put_/get_ pair side by side, so that they cannot drift apart unseen.
 *
 * A pure codec, any thread. Invariants: (1) the decoder is total: it reads through struct rd only, every number that
 * sizes or indexes something is checked before it is used, and every byte of the message is accounted for. (2) what
 * wire_encode() writes from a legal message, wire_decode() accepts and yields the same fields. (3) borrowed bytes are
 * the last field of their body (wire_encode_split()). A format change bumps WIRE_VERSION or WIRE_MINOR; the golden bytes in
 * the unit test fail otherwise. (4) of a message of our own or an older minor version every byte is accounted for; of a newer
 * one its additions alone are not.
 */
#include "common/wire/wire.h"

#include <assert.h>
#include <string.h>

/* ---- fields */

static void put_str(struct buf *b, const char *s, size_t size)
{
	size_t len = strnlen(s, size - 1);
	size_t i;

	buf_put_u32le(b, (uint32_t)len);
	for (i = 0; i < len; i++) {
		uint8_t c = (uint8_t)s[i];

		buf_put_u8(b, c < 0x20 || c == 0x7f ? '?' : c);
	}
}

static void get_str(struct rd *r, char *out, size_t size)
{
	const char *c;

	rd_str(r, out, size);
	for (c = out; *c != '\0'; c++)
		if ((uint8_t)*c < 0x20 || *c == 0x7f)
			r->bad = true;
}

static bool get_bool(struct rd *r)
{
	uint8_t v = rd_u8(r);

	if (v > 1)
		r->bad = true;
	return v == 1;
}

static void put_pos(struct buf *b, struct wal_pos pos)
{
	buf_put_u64le(b, pos.term);
	buf_put_u64le(b, pos.lsn);
}

static struct wal_pos get_pos(struct rd *r)
{
	struct wal_pos pos;

	pos.term = rd_u64le(r);
	pos.lsn = rd_u64le(r);
	return pos;
}

static void put_head(struct buf *b, const struct wire_head *h)
{
	buf_put_u32le(b, WIRE_MAGIC);
	buf_put_u8(b, WIRE_VERSION);
	buf_put_u8(b, WIRE_MINOR);
	buf_put_u16le(b, (uint16_t)h->type);
	buf_put(b, h->cluster_id, sizeof(h->cluster_id));
	buf_put_u64le(b, h->term);
	put_str(b, h->sender, sizeof(h->sender));
}

/* ---- master -> replica */

static void put_hello(struct buf *b, const struct wire_hello *m)
{
	buf_put_u64le(b, m->stream_id);
	put_str(b, m->ack_address, sizeof(m->ack_address));
	put_str(b, m->http_address, sizeof(m->http_address));
	buf_put_u64le(b, m->last_lsn);
}

static void get_hello(struct rd *r, struct wire_hello *m)
{
	m->stream_id = rd_u64le(r);
	get_str(r, m->ack_address, sizeof(m->ack_address));
	get_str(r, m->http_address, sizeof(m->http_address));
	m->last_lsn = rd_u64le(r);
}

static void put_start(struct buf *b, const struct wire_start *m)
{
	buf_put_u64le(b, m->stream_id);
	put_pos(b, m->prev);
	buf_put_u64le(b, m->prev_checksum);
}

static void get_start(struct rd *r, struct wire_start *m)
{
	m->stream_id = rd_u64le(r);
	m->prev = get_pos(r);
	m->prev_checksum = rd_u64le(r);
}

static void put_records(struct buf *b, const struct wire_records *m)
{
	assert(m->len >= 1 && m->len <= WIRE_CHUNK_MAX);
	buf_put_u64le(b, m->stream_id);
	buf_put_u64le(b, m->committed_lsn);
	buf_put_u64le(b, m->last_lsn);
	buf_put_u64le(b, m->first_lsn);
	buf_put_u64le(b, m->offset);
	buf_put_u32le(b, (uint32_t)m->len); /* the bytes follow: (3) */
}

static void get_records(struct rd *r, struct wire_records *m)
{
	m->stream_id = rd_u64le(r);
	m->committed_lsn = rd_u64le(r);
	m->last_lsn = rd_u64le(r);
	m->first_lsn = rd_u64le(r);
	m->offset = rd_u64le(r);
	m->bytes = rd_blob(r, WIRE_CHUNK_MAX, &m->len);
	if (m->len == 0 || m->first_lsn == 0 || m->offset > WAL_RECORD_BYTES_MAX)
		r->bad = true;
}

static void put_commit(struct buf *b, const struct wire_commit *m)
{
	buf_put_u64le(b, m->stream_id);
	buf_put_u64le(b, m->committed_lsn);
	buf_put_u64le(b, m->last_lsn);
}

static void get_commit(struct rd *r, struct wire_commit *m)
{
	m->stream_id = rd_u64le(r);
	m->committed_lsn = rd_u64le(r);
	m->last_lsn = rd_u64le(r);
}

static void put_snapshot_begin(struct buf *b, const struct wire_snapshot_begin *m)
{
	buf_put_u64le(b, m->stream_id);
	put_pos(b, m->pos);
	buf_put_u64le(b, m->record_checksum);
	buf_put_u64le(b, m->db_checksum);
	buf_put_u32le(b, m->db_size_pages);
}

static void get_snapshot_begin(struct rd *r, struct wire_snapshot_begin *m)
{
	m->stream_id = rd_u64le(r);
	m->pos = get_pos(r);
	m->record_checksum = rd_u64le(r);
	m->db_checksum = rd_u64le(r);
	m->db_size_pages = rd_u32le(r);
}

static void put_snapshot_pages(struct buf *b, const struct wire_snapshot_pages *m)
{
	assert(m->len >= WAL_PAGE_SIZE && m->len <= WIRE_CHUNK_MAX && m->len % WAL_PAGE_SIZE == 0);
	buf_put_u64le(b, m->stream_id);
	buf_put_u32le(b, m->first_pgno);
	buf_put_u32le(b, (uint32_t)m->len); /* the bytes follow: (3) */
}

static void get_snapshot_pages(struct rd *r, struct wire_snapshot_pages *m)
{
	m->stream_id = rd_u64le(r);
	m->first_pgno = rd_u32le(r);
	m->bytes = rd_blob(r, WIRE_CHUNK_MAX, &m->len);
	if (m->len == 0 || m->len % WAL_PAGE_SIZE != 0 || m->first_pgno == 0 ||
	    m->first_pgno > UINT32_MAX - m->len / WAL_PAGE_SIZE)
		r->bad = true; /* so that first_pgno + pages cannot wrap around */
}

static void put_snapshot_hashes(struct buf *b, const struct wire_snapshot_hashes *m)
{
	assert(m->count >= 1 && m->count <= WIRE_WINDOW_PAGES);
	buf_put_u64le(b, m->stream_id);
	buf_put_u32le(b, m->first_pgno);
	buf_put_u32le(b, m->count * 8); /* the bytes follow: (3) */
}

static void get_snapshot_hashes(struct rd *r, struct wire_snapshot_hashes *m)
{
	size_t len;

	m->stream_id = rd_u64le(r);
	m->first_pgno = rd_u32le(r);
	m->bytes = rd_blob(r, WIRE_WINDOW_PAGES * 8, &len);
	m->count = (uint32_t)(len / 8);
	if (len == 0 || len % 8 != 0 || m->first_pgno == 0 || m->first_pgno > UINT32_MAX - m->count)
		r->bad = true;
}

/* ---- replica -> master */

static void put_snapshot_want(struct buf *b, const struct wire_snapshot_want *m)
{
	assert(m->count >= 1 && m->count <= WIRE_WINDOW_PAGES);
	buf_put_u64le(b, m->stream_id);
	buf_put_u32le(b, m->first_pgno);
	buf_put_u32le(b, m->count);
	buf_put(b, m->bits, (m->count + 7) / 8);
}

static void get_snapshot_want(struct rd *r, struct wire_snapshot_want *m)
{
	const uint8_t *bits;
	size_t len;

	m->stream_id = rd_u64le(r);
	m->first_pgno = rd_u32le(r);
	m->count = rd_u32le(r);
	if (m->count == 0 || m->count > WIRE_WINDOW_PAGES)
		r->bad = true;
	len = r->bad ? 0 : (m->count + 7) / 8;
	bits = rd_bytes(r, len);
	if (r->bad)
		return;
	memset(m->bits, 0, sizeof(m->bits));
	memcpy(m->bits, bits, len);
	if (m->count % 8 != 0 && bits[len - 1] >> (m->count % 8) != 0)
		r->bad = true;
}

static void put_position(struct buf *b, const struct wire_position *m)
{
	size_t i;

	assert(m->term_count <= WIRE_TERMS_MAX);
	buf_put_u64le(b, m->stream_id);
	put_pos(b, m->last);
	buf_put_u64le(b, m->last_checksum);
	buf_put_u64le(b, m->visible_lsn);
	buf_put_u8(b, m->needs_snapshot);
	buf_put_u32le(b, (uint32_t)m->term_count);
	for (i = 0; i < m->term_count; i++)
		put_pos(b, m->terms[i]);
}

static void get_position(struct rd *r, struct wire_position *m)
{
	size_t i;

	m->stream_id = rd_u64le(r);
	m->last = get_pos(r);
	m->last_checksum = rd_u64le(r);
	m->visible_lsn = rd_u64le(r);
	m->needs_snapshot = get_bool(r);
	m->term_count = rd_u32le(r);
	if (m->term_count > WIRE_TERMS_MAX)
		r->bad = true;
	for (i = 0; i < m->term_count && !r->bad; i++) {
		m->terms[i] = get_pos(r);
		if (i > 0 && (m->terms[i].term <= m->terms[i - 1].term || m->terms[i].lsn <= m->terms[i - 1].lsn))
			r->bad = true; /* a term history only ever grows in both */
	}
}

static void put_ack(struct buf *b, const struct wire_ack *m)
{
	buf_put_u64le(b, m->stream_id);
	buf_put_u64le(b, m->durable_lsn);
	buf_put_u64le(b, m->applied_lsn);
	buf_put_u64le(b, m->db_checksum);
}

static void get_ack(struct rd *r, struct wire_ack *m)
{
	m->stream_id = rd_u64le(r);
	m->durable_lsn = rd_u64le(r);
	m->applied_lsn = rd_u64le(r);
	m->db_checksum = rd_u64le(r);
}

/* ---- control */

static void put_status(struct buf *b, const struct wire_node_status *m)
{
	buf_put_u8(b, (uint8_t)m->role);
	buf_put_u8(b, (uint8_t)m->state);
	buf_put_u8(b, m->accepted);
	buf_put_u8(b, m->ready);
	buf_put_u8(b, m->draining);
	buf_put_u32le(b, m->pid);
	buf_put_u64le(b, m->promised_term);
	put_pos(b, m->last);
	buf_put_u64le(b, m->durable_lsn);
	buf_put_u64le(b, m->applied_lsn);
	buf_put_u64le(b, m->committed_lsn);
	buf_put_u64le(b, m->db_checksum);
	buf_put_u64le(b, m->lag_ms);
	buf_put_u64le(b, m->disk_age_ms);
	buf_put_u64le(b, m->disk_busy_ms);
	buf_put_u64le(b, m->stuck_ms);
	buf_put_u64le(b, m->disk_free_bytes);
	buf_put_u8(b, m->low_space);
	members_put(b, &m->members);
	put_str(b, m->http_address, sizeof(m->http_address));
	put_str(b, m->replication_address, sizeof(m->replication_address));
	put_str(b, m->reason, sizeof(m->reason));
	put_str(b, m->version, sizeof(m->version));
}

static void get_status(struct rd *r, struct wire_node_status *m, uint8_t minor)
{
	uint8_t role = rd_u8(r);
	uint8_t state = rd_u8(r);

	if (role < WIRE_ROLE_REPLICA || role > WIRE_ROLE_MASTER || state < WIRE_STATE_STARTING ||
	    state > WIRE_STATE_FAILED)
		r->bad = true;
	m->role = (enum wire_role)role;
	m->state = (enum wire_node_state)state;
	m->accepted = get_bool(r);
	m->ready = get_bool(r);
	m->draining = get_bool(r);
	m->pid = rd_u32le(r);
	m->promised_term = rd_u64le(r);
	m->last = get_pos(r);
	m->durable_lsn = rd_u64le(r);
	m->applied_lsn = rd_u64le(r);
	m->committed_lsn = rd_u64le(r);
	m->db_checksum = rd_u64le(r);
	m->lag_ms = rd_u64le(r);
	m->disk_age_ms = rd_u64le(r);
	m->disk_busy_ms = rd_u64le(r);
	m->stuck_ms = rd_u64le(r);
	m->disk_free_bytes = rd_u64le(r);
	m->low_space = get_bool(r);
	members_get(r, &m->members);
	get_str(r, m->http_address, sizeof(m->http_address));
	get_str(r, m->replication_address, sizeof(m->replication_address));
	get_str(r, m->reason, sizeof(m->reason));
	m->version[0] = '\0';
	if (minor >= 1)
		get_str(r, m->version, sizeof(m->version));
}

static void put_text(struct buf *b, const struct wire_text *m)
{
	if (m->len > WIRE_CHUNK_MAX)
		b->failed = true;           /* what a user typed may be that long; it is not ours to assert */
	buf_put_u32le(b, (uint32_t)m->len); /* the bytes follow: (3) */
}

static void get_text(struct rd *r, struct wire_text *m)
{
	m->text = (const char *)rd_blob(r, WIRE_CHUNK_MAX, &m->len);
}

/* ---- whole messages */

static void put_body(struct buf *b, const struct wire_msg *msg, const void **tail, size_t *tail_len)
{
	switch (msg->head.type) {
	case WIRE_HELLO:
		put_hello(b, &msg->body.hello);
		return;
	case WIRE_START:
		put_start(b, &msg->body.start);
		return;
	case WIRE_RECORDS:
		put_records(b, &msg->body.records);
		*tail = msg->body.records.bytes;
		*tail_len = msg->body.records.len;
		return;
	case WIRE_COMMIT:
		put_commit(b, &msg->body.commit);
		return;
	case WIRE_SNAPSHOT_BEGIN:
		put_snapshot_begin(b, &msg->body.snapshot_begin);
		return;
	case WIRE_SNAPSHOT_PAGES:
		put_snapshot_pages(b, &msg->body.snapshot_pages);
		*tail = msg->body.snapshot_pages.bytes;
		*tail_len = msg->body.snapshot_pages.len;
		return;
	case WIRE_SNAPSHOT_END:
		buf_put_u64le(b, msg->body.snapshot_end.stream_id);
		return;
	case WIRE_SNAPSHOT_HASHES:
		put_snapshot_hashes(b, &msg->body.snapshot_hashes);
		*tail = msg->body.snapshot_hashes.bytes;
		*tail_len = (size_t)msg->body.snapshot_hashes.count * 8;
		return;
	case WIRE_SNAPSHOT_WANT:
		put_snapshot_want(b, &msg->body.snapshot_want);
		return;
	case WIRE_POSITION:
		put_position(b, &msg->body.position);
		return;
	case WIRE_ACK:
		put_ack(b, &msg->body.ack);
		return;
	case WIRE_PROMOTE:
	case WIRE_MEMBERS:
		members_put(b, &msg->body.members);
		return;
	case WIRE_HEARTBEAT:
	case WIRE_SET_TERM:
	case WIRE_DRAIN:
	case WIRE_RESUME:
		return; /* the head says it all */
	case WIRE_NODE_STATUS:
		put_status(b, &msg->body.status);
		return;
	case WIRE_CLI_REQUEST:
	case WIRE_CLI_REPLY:
		put_text(b, &msg->body.text);
		*tail = msg->body.text.text;
		*tail_len = msg->body.text.len;
		return;
	}
	assert(!"a message type of our own that has no encoding");
}

void wire_encode_split(struct buf *b, const struct wire_msg *msg, const void **tail, size_t *tail_len)
{
	*tail = NULL;
	*tail_len = 0;
	put_head(b, &msg->head);
	put_body(b, msg, tail, tail_len);
#if WIRE_MINOR > 1 /* what a successor may add: that we can do with it is tried before there is one */
	if (*tail == NULL)
		buf_put_u64le(b, WIRE_MINOR);
#endif
}

static void get_additions(struct rd *r, const struct wire_msg *msg)
{
#if WIRE_MINOR > 1
	if (msg->head.minor > 1 && r->left > 0)
		r->bad = rd_u64le(r) != WIRE_MINOR || r->bad;
#else
	(void)r;
	(void)msg;
#endif
}

void wire_encode(struct buf *b, const struct wire_msg *msg)
{
	const void *tail;
	size_t tail_len;

	wire_encode_split(b, msg, &tail, &tail_len);
	buf_put(b, tail, tail_len);
}

/* False: no such type. Sets r->bad for a body that is not well-formed. */
static bool get_body(struct rd *r, struct wire_msg *msg)
{
	switch (msg->head.type) {
	case WIRE_HELLO:
		get_hello(r, &msg->body.hello);
		return true;
	case WIRE_START:
		get_start(r, &msg->body.start);
		return true;
	case WIRE_RECORDS:
		get_records(r, &msg->body.records);
		return true;
	case WIRE_COMMIT:
		get_commit(r, &msg->body.commit);
		return true;
	case WIRE_SNAPSHOT_BEGIN:
		get_snapshot_begin(r, &msg->body.snapshot_begin);
		return true;
	case WIRE_SNAPSHOT_PAGES:
		get_snapshot_pages(r, &msg->body.snapshot_pages);
		return true;
	case WIRE_SNAPSHOT_END:
		msg->body.snapshot_end.stream_id = rd_u64le(r);
		return true;
	case WIRE_SNAPSHOT_HASHES:
		get_snapshot_hashes(r, &msg->body.snapshot_hashes);
		return true;
	case WIRE_SNAPSHOT_WANT:
		get_snapshot_want(r, &msg->body.snapshot_want);
		return true;
	case WIRE_POSITION:
		get_position(r, &msg->body.position);
		return true;
	case WIRE_ACK:
		get_ack(r, &msg->body.ack);
		return true;
	case WIRE_PROMOTE:
	case WIRE_MEMBERS:
		members_get(r, &msg->body.members);
		if (members_count(&msg->body.members) == 0)
			r->bad = true;
		return true;
	case WIRE_HEARTBEAT:
	case WIRE_SET_TERM:
	case WIRE_DRAIN:
	case WIRE_RESUME:
		return true;
	case WIRE_NODE_STATUS:
		get_status(r, &msg->body.status, msg->head.minor);
		return true;
	case WIRE_CLI_REQUEST:
	case WIRE_CLI_REPLY:
		get_text(r, &msg->body.text);
		return true;
	}
	return false;
}

static enum db_err get_head(struct rd *r, struct wire_head *h, const uint8_t *cluster_id, struct errmsg *em)
{
	const uint8_t *id;
	uint32_t magic = rd_u32le(r);
	uint8_t version = rd_u8(r);

	if (r->bad || magic != WIRE_MAGIC)
		return errmsg_set(em, DB_INVALID, "not a message of this protocol");
	if (version != WIRE_VERSION)
		return errmsg_set(
		    em, DB_INVALID,
		    "the peer speaks protocol version %u, we speak %u: nodes and supervisor must be of one "
		    "version",
		    version, WIRE_VERSION);
	h->minor = rd_u8(r);
	h->type = (enum wire_type)rd_u16le(r);
	id = rd_bytes(r, sizeof(h->cluster_id));
	h->term = rd_u64le(r);
	get_str(r, h->sender, sizeof(h->sender));
	if (r->bad || id == NULL)
		return errmsg_set(em, DB_INVALID, "malformed head of a message");
	memcpy(h->cluster_id, id, sizeof(h->cluster_id));
	if (cluster_id != NULL && memcmp(id, cluster_id, sizeof(h->cluster_id)) != 0)
		return errmsg_set(em, DB_INVALID, "\"%s\" belongs to another cluster", h->sender);
	return DB_OK;
}

enum db_err wire_decode(struct wire_msg *msg, const void *bytes, size_t len, const uint8_t *cluster_id,
			struct errmsg *em)
{
	struct rd r;
	enum db_err err;

	rd_init(&r, bytes, len);
	err = get_head(&r, &msg->head, cluster_id, em);
	if (err != DB_OK)
		return err;
	if (!get_body(&r, msg))
		return errmsg_set(em, DB_INVALID, "message of unknown type %d from \"%s\"", (int)msg->head.type,
				  msg->head.sender);
	get_additions(&r, msg);
	if (r.bad || (r.left != 0 && msg->head.minor <= WIRE_MINOR)) /* (4) */
		return errmsg_set(em, DB_INVALID, "malformed %s message of %zu bytes from \"%s\"",
				  wire_type_name(msg->head.type), len, msg->head.sender);
	return DB_OK;
}

bool wire_term_is_credible(uint64_t term, uint64_t ours)
{
	return term <= WIRE_TERM_MAX && (term <= ours || term - ours <= WIRE_TERM_STEP_MAX);
}

const char *wire_type_name(enum wire_type type)
{
	switch (type) {
	case WIRE_HELLO:
		return "hello";
	case WIRE_START:
		return "start";
	case WIRE_RECORDS:
		return "records";
	case WIRE_COMMIT:
		return "commit";
	case WIRE_SNAPSHOT_BEGIN:
		return "snapshot-begin";
	case WIRE_SNAPSHOT_PAGES:
		return "snapshot-pages";
	case WIRE_SNAPSHOT_END:
		return "snapshot-end";
	case WIRE_SNAPSHOT_HASHES:
		return "snapshot-hashes";
	case WIRE_SNAPSHOT_WANT:
		return "snapshot-want";
	case WIRE_POSITION:
		return "position";
	case WIRE_ACK:
		return "ack";
	case WIRE_HEARTBEAT:
		return "heartbeat";
	case WIRE_SET_TERM:
		return "set-term";
	case WIRE_PROMOTE:
		return "promote";
	case WIRE_DRAIN:
		return "drain";
	case WIRE_RESUME:
		return "resume";
	case WIRE_MEMBERS:
		return "members";
	case WIRE_NODE_STATUS:
		return "node-status";
	case WIRE_CLI_REQUEST:
		return "cli-request";
	case WIRE_CLI_REPLY:
		return "cli-reply";
	}
	return "unknown";
}

const char *wire_state_name(enum wire_node_state state)
{
	switch (state) {
	case WIRE_STATE_STARTING:
		return "starting";
	case WIRE_STATE_UP:
		return "up";
	case WIRE_STATE_CATCHING_UP:
		return "catching-up";
	case WIRE_STATE_DIVERGED:
		return "diverged";
	case WIRE_STATE_FAILED:
		return "failed";
	}
	return "unknown";
}

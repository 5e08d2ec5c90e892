/*
 * test_wire.c - the codec: what is written comes back, the format does not move, and no input whatever breaks it.
 */
#include "common/wire/wire.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/unit.h"

static const uint8_t cluster[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static const enum wire_type all_types[] = {
    WIRE_HELLO,
    WIRE_START,
    WIRE_RECORDS,
    WIRE_COMMIT,
    WIRE_SNAPSHOT_BEGIN,
    WIRE_SNAPSHOT_PAGES,
    WIRE_SNAPSHOT_HASHES,
    WIRE_SNAPSHOT_WANT,
    WIRE_SNAPSHOT_END,
    WIRE_POSITION,
    WIRE_ACK,
    WIRE_HEARTBEAT,
    WIRE_SET_TERM,
    WIRE_PROMOTE,
    WIRE_DRAIN,
    WIRE_RESUME,
    WIRE_NODE_STATUS,
    WIRE_CLI_REQUEST,
    WIRE_CLI_REPLY,
    WIRE_MEMBERS,
};
#define TYPE_COUNT (sizeof(all_types) / sizeof(all_types[0]))

static uint8_t pages[2 * WAL_PAGE_SIZE];

static void fill_members(struct members *m)
{
	memset(m, 0, sizeof(*m));
	m->version = 77;
	m->entries[0] = (struct members_entry){MEMBERS_VOTER, 8081, 8181, 8281};
	m->entries[1] = (struct members_entry){MEMBERS_REMOVED, 8082, 8182, 8282};
	m->entries[3] = (struct members_entry){MEMBERS_JOINING, 8084, 8184, 8284};
	m->entries[4] = (struct members_entry){MEMBERS_READONLY, 9000, 9100, 9200};
}

static void fill_status(struct wire_node_status *s)
{
	fill_members(&s->members);
	s->role = WIRE_ROLE_MASTER;
	s->state = WIRE_STATE_CATCHING_UP;
	s->accepted = true;
	s->ready = false;
	s->draining = true;
	s->pid = 4711;
	s->promised_term = 8;
	s->last = (struct wal_pos){7, 99};
	s->durable_lsn = 98;
	s->applied_lsn = 97;
	s->committed_lsn = 96;
	s->db_checksum = 0x1122334455667788u;
	s->lag_ms = 5;
	s->disk_age_ms = 900;
	s->disk_busy_ms = 800;
	s->stuck_ms = 700;
	s->disk_free_bytes = (uint64_t)1 << 40;
	s->low_space = true;
	strcpy(s->http_address, "127.0.0.1:8081");
	strcpy(s->replication_address, "[::1]:8181");
	strcpy(s->reason, "disk \"full\", caf\xc3\xa9");
	strcpy(s->version, "1.2.3");
}

/* A legal message of each type with every field set. msg is static: it is large. */
static struct wire_msg *sample(enum wire_type type)
{
	static struct wire_msg msg;
	size_t i;

	memset(&msg, 0, sizeof(msg));
	for (i = 0; i < sizeof(pages); i++)
		pages[i] = (uint8_t)(i * 7);
	msg.head.type = type;
	memcpy(msg.head.cluster_id, cluster, sizeof(cluster));
	msg.head.term = 7;
	strcpy(msg.head.sender, "node1");
	switch (type) {
	case WIRE_HELLO:
		msg.body.hello = (struct wire_hello){.stream_id = 11, .last_lsn = 12};
		strcpy(msg.body.hello.ack_address, "host-a:8281");
		strcpy(msg.body.hello.http_address, "host-a:8081");
		break;
	case WIRE_START:
		msg.body.start = (struct wire_start){11, {3, 4}, 5};
		break;
	case WIRE_RECORDS:
		msg.body.records = (struct wire_records){11, 20, 22, 21, 4096, pages, 100};
		break;
	case WIRE_COMMIT:
		msg.body.commit = (struct wire_commit){11, 20, 22};
		break;
	case WIRE_SNAPSHOT_BEGIN:
		msg.body.snapshot_begin = (struct wire_snapshot_begin){11, {3, 4}, 5, 6, 7};
		break;
	case WIRE_SNAPSHOT_PAGES:
		msg.body.snapshot_pages = (struct wire_snapshot_pages){11, 1, pages, sizeof(pages)};
		break;
	case WIRE_SNAPSHOT_HASHES:
		msg.body.snapshot_hashes =
		    (struct wire_snapshot_hashes){11, 12, 2, (const uint8_t *)"0123456789abcdef"};
		break;
	case WIRE_SNAPSHOT_WANT:
		msg.body.snapshot_want = (struct wire_snapshot_want){11, 12, 11, {0xa5, 0x07}};
		break;
	case WIRE_SNAPSHOT_END:
		msg.body.snapshot_end.stream_id = 11;
		break;
	case WIRE_POSITION:
		msg.body.position = (struct wire_position){.stream_id = 11,
							   .last = {3, 40},
							   .last_checksum = 5,
							   .visible_lsn = 6,
							   .needs_snapshot = true,
							   .term_count = 3,
							   .terms = {{1, 1}, {2, 10}, {3, 39}}};
		break;
	case WIRE_ACK:
		msg.body.ack = (struct wire_ack){11, 12, 13, 14};
		break;
	case WIRE_NODE_STATUS:
		fill_status(&msg.body.status);
		break;
	case WIRE_PROMOTE:
	case WIRE_MEMBERS:
		fill_members(&msg.body.members);
		break;
	case WIRE_CLI_REQUEST:
	case WIRE_CLI_REPLY:
		msg.body.text = (struct wire_text){"{\"command\":\"status\"}", 20};
		break;
	default:
		break;
	}
	return &msg;
}

static void encode(struct buf *b, enum wire_type type)
{
	buf_clear(b);
	wire_encode(b, sample(type));
	CU_ASSERT_FALSE_FATAL(b->failed);
}

/* Decodes a copy that ends exactly where the allocation does, so that AddressSanitizer sees any read beyond it. */
static enum db_err decode_exact(struct wire_msg *out, const uint8_t *bytes, size_t len, uint8_t **copy)
{
	struct errmsg em = {0};
	enum db_err err;

	*copy = malloc(len == 0 ? 1 : len);
	memcpy(*copy, bytes, len);
	err = wire_decode(out, *copy, len, NULL, &em);
	if (err != DB_OK) {
		CU_ASSERT_EQUAL(err, DB_INVALID);
		CU_ASSERT_TRUE(em.text[0] != '\0');
	}
	return err;
}

static void every_type_comes_back_as_it_was_sent(void)
{
	struct buf b = {0};
	struct buf again = {0};
	struct errmsg em = {0};
	size_t i;

	for (i = 0; i < TYPE_COUNT; i++) {
		static struct wire_msg got;

		encode(&b, all_types[i]);
		UNIT_OK(wire_decode(&got, b.data, b.len, cluster, &em), &em);
		CU_ASSERT_EQUAL(got.head.type, all_types[i]);
		CU_ASSERT_EQUAL(got.head.term, 7);
		CU_ASSERT_STRING_EQUAL(got.head.sender, "node1");
		buf_clear(&again);
		wire_encode(&again, &got);
		CU_ASSERT_EQUAL_FATAL(again.len, b.len);
		CU_ASSERT_EQUAL(memcmp(again.data, b.data, b.len), 0);
	}
	buf_fini(&b);
	buf_fini(&again);
}

static void fields_arrive_in_their_places(void)
{
	static struct wire_msg got;
	struct wire_node_status *s = &got.body.status;
	struct buf b = {0};
	struct errmsg em = {0};

	encode(&b, WIRE_NODE_STATUS);
	UNIT_OK(wire_decode(&got, b.data, b.len, cluster, &em), &em);
	CU_ASSERT_TRUE(s->role == WIRE_ROLE_MASTER && s->state == WIRE_STATE_CATCHING_UP);
	CU_ASSERT_TRUE(s->accepted && !s->ready && s->draining);
	CU_ASSERT_TRUE(s->pid == 4711 && s->promised_term == 8 && s->last.term == 7 && s->last.lsn == 99);
	CU_ASSERT_TRUE(s->durable_lsn == 98 && s->applied_lsn == 97 && s->committed_lsn == 96 && s->lag_ms == 5);
	CU_ASSERT_EQUAL(s->db_checksum, 0x1122334455667788u);
	CU_ASSERT_TRUE(s->disk_age_ms == 900 && s->disk_busy_ms == 800 && s->stuck_ms == 700);
	CU_ASSERT_TRUE(s->disk_free_bytes == (uint64_t)1 << 40 && s->low_space);
	CU_ASSERT_STRING_EQUAL(s->http_address, "127.0.0.1:8081");
	CU_ASSERT_STRING_EQUAL(s->replication_address, "[::1]:8181");
	CU_ASSERT_STRING_EQUAL(s->reason, "disk \"full\", caf\xc3\xa9");
	encode(&b, WIRE_RECORDS);
	UNIT_OK(wire_decode(&got, b.data, b.len, cluster, &em), &em);
	CU_ASSERT_TRUE(got.body.records.committed_lsn == 20 && got.body.records.last_lsn == 22);
	CU_ASSERT_TRUE(got.body.records.first_lsn == 21 && got.body.records.offset == 4096);
	CU_ASSERT_TRUE(got.body.records.len == 100 && memcmp(got.body.records.bytes, pages, 100) == 0);
	CU_ASSERT_TRUE(got.body.records.bytes + 100 == b.data + b.len); /* borrowed, and the last field */
	encode(&b, WIRE_POSITION);
	UNIT_OK(wire_decode(&got, b.data, b.len, cluster, &em), &em);
	CU_ASSERT_TRUE(got.body.position.needs_snapshot && got.body.position.term_count == 3);
	CU_ASSERT_TRUE(got.body.position.terms[2].term == 3 && got.body.position.terms[2].lsn == 39);
	buf_fini(&b);
}

/* When this fails, the format has changed: bump WIRE_VERSION and docs/ with it. */
static void golden_bytes_of_an_ack(void)
{
	static const uint8_t golden[] = {
	    'G', 'z', 'M', '1', WIRE_VERSION,
	    1,   17,  0, /* magic, version, minor version, type */
	    0,   1,   2,   3,   4,
	    5,   6,   7,   8,   9,
	    10,  11,  12,  13,  14,
	    15, /* cluster id */
	    7,   0,   0,   0,   0,
	    0,   0,   0,   5,   0,
	    0,   0,   'n', 'o', 'd',
	    'e', '1', /* term, sender */
	    11,  0,   0,   0,   0,
	    0,   0,   0,   12,  0,
	    0,   0,   0,   0,   0,
	    0, /* stream id, durable_lsn */
	    13,  0,   0,   0,   0,
	    0,   0,   0,   14,  0,
	    0,   0,   0,   0,   0,
	    0, /* applied_lsn, db_checksum */
	};
	struct buf b = {0};

	encode(&b, WIRE_ACK);
	CU_ASSERT_EQUAL_FATAL(b.len, sizeof(golden));
	CU_ASSERT_EQUAL(memcmp(b.data, golden, b.len), 0);
	buf_fini(&b);
}

static void every_truncation_and_every_extension_is_refused(void)
{
	static struct wire_msg got;
	struct buf b = {0};
	uint8_t *copy;
	size_t i, len;

	for (i = 0; i < TYPE_COUNT; i++) {
		encode(&b, all_types[i]);
		for (len = 0; len < b.len; len++) {
			CU_ASSERT_EQUAL(decode_exact(&got, b.data, len, &copy), DB_INVALID);
			free(copy);
		}
		buf_put_u8(&b, 0);
		CU_ASSERT_EQUAL(decode_exact(&got, b.data, b.len, &copy), DB_INVALID);
		free(copy);
	}
	buf_fini(&b);
}

/* Whatever the decoder accepts must be something that the encoder could have written: the same bytes again. */
static void check_canonical(const struct wire_msg *got, const uint8_t *bytes, size_t len)
{
	struct buf again = {0};

	if (got->head.minor != WIRE_MINOR)
		return; /* another one's encoding */
	wire_encode(&again, got);
	CU_ASSERT_EQUAL(again.len, len);
	CU_ASSERT_TRUE(again.len == len && memcmp(again.data, bytes, len) == 0);
	buf_fini(&again);
}

static void every_bit_flip_is_refused_or_decodes_to_a_legal_message(void)
{
	static struct wire_msg got;
	struct buf b = {0};
	uint8_t *copy;
	size_t i, bit, bits;

	for (i = 0; i < TYPE_COUNT; i++) {
		encode(&b, all_types[i]);
		bits = b.len > 700 ? 700 * 8 : b.len * 8; /* page images are opaque: their bits are all alike */
		for (bit = 0; bit < bits; bit++) {
			b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
			if (decode_exact(&got, b.data, b.len, &copy) == DB_OK)
				check_canonical(&got, b.data, b.len);
			free(copy);
			b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
	}
	buf_fini(&b);
}

static uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

/* Good heads with random bodies: random bytes alone would all die at the magic number. */
static void random_garbage_is_survived(void)
{
	static struct wire_msg got;
	uint32_t seed = 1;
	struct buf b = {0};
	uint8_t *copy;
	size_t i, round, len;

	for (round = 0; round < 20000; round++) {
		size_t head = round % 10 == 0 ? 0 : 4 + 2 + 2 + 16 + 8 + 4 + 5;

		encode(&b, all_types[round % TYPE_COUNT]);
		len = head + next_random(&seed) % 300;
		while (b.len < len)
			buf_put_u8(&b, 0);
		for (i = head; i < len; i++)
			b.data[i] = next_random(&seed) % 3 == 0 ? (uint8_t)next_random(&seed) : 0;
		if (decode_exact(&got, b.data, len, &copy) == DB_OK)
			check_canonical(&got, b.data, len);
		free(copy);
	}
	buf_fini(&b);
}

/* Overwrites a u32 of a sample and expects a refusal. */
static void expect_refusal_with_u32(enum wire_type type, size_t at, uint32_t value)
{
	static struct wire_msg got;
	struct buf b = {0};
	uint8_t *copy;

	encode(&b, type);
	CU_ASSERT_TRUE_FATAL(at + 4 <= b.len);
	store_u32le(b.data + at, value);
	CU_ASSERT_EQUAL(decode_exact(&got, b.data, b.len, &copy), DB_INVALID);
	free(copy);
	buf_fini(&b);
}

static void lying_lengths_and_counts_are_refused(void)
{
	const size_t sender_len = 32, body = 41;
	const uint32_t lies[] = {6, 64, 65, 1u << 20, (1u << 20) + 1, 0x7fffffffu, 0x80000000u, 0xffffffffu};
	size_t i;

	for (i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		expect_refusal_with_u32(WIRE_ACK, sender_len, lies[i]);
		expect_refusal_with_u32(WIRE_HELLO, body + 8, lies[i]);
		expect_refusal_with_u32(WIRE_RECORDS, body + 40, lies[i]);
		expect_refusal_with_u32(WIRE_SNAPSHOT_PAGES, body + 12, lies[i]);
		expect_refusal_with_u32(WIRE_CLI_REQUEST, body, lies[i]);
		expect_refusal_with_u32(WIRE_POSITION, body + 41, lies[i]);
	}
	expect_refusal_with_u32(WIRE_POSITION, body + 41, WIRE_TERMS_MAX + 1);
	expect_refusal_with_u32(WIRE_SNAPSHOT_PAGES, body + 8, 0);          /* there is no page 0 */
	expect_refusal_with_u32(WIRE_SNAPSHOT_PAGES, body + 8, UINT32_MAX); /* page numbers would wrap */
	expect_refusal_with_u32(WIRE_SNAPSHOT_HASHES, body + 8, 0);
	expect_refusal_with_u32(WIRE_SNAPSHOT_HASHES, body + 12, 9); /* half a hash */
	expect_refusal_with_u32(WIRE_SNAPSHOT_WANT, body + 12, 0);
	expect_refusal_with_u32(WIRE_SNAPSHOT_WANT, body + 12, 10); /* a bit beyond the count */
	expect_refusal_with_u32(WIRE_SNAPSHOT_WANT, body + 12, WIRE_WINDOW_PAGES + 1);
	expect_refusal_with_u32(WIRE_NODE_STATUS, body, 0x01010003u); /* no such role */
	expect_refusal_with_u32(WIRE_NODE_STATUS, body, 0x01010601u); /* no such state */
	expect_refusal_with_u32(WIRE_NODE_STATUS, body, 0x02010201u); /* a bool of 2 */
}

static void a_full_term_history_travels_and_one_more_does_not(void)
{
	static struct wire_msg got;
	struct wire_msg *msg = sample(WIRE_POSITION);
	struct buf b = {0};
	struct errmsg em = {0};
	size_t i;

	msg->body.position.term_count = WIRE_TERMS_MAX;
	for (i = 0; i < WIRE_TERMS_MAX; i++)
		msg->body.position.terms[i] = (struct wal_pos){i + 1, 10 * i + 1};
	wire_encode(&b, msg);
	UNIT_OK(wire_decode(&got, b.data, b.len, cluster, &em), &em);
	CU_ASSERT_EQUAL(got.body.position.terms[WIRE_TERMS_MAX - 1].lsn, 10 * (WIRE_TERMS_MAX - 1) + 1);
	store_u32le(b.data + 41 + 41, WIRE_TERMS_MAX + 1); /* and bytes for it are there */
	buf_put_u64le(&b, 5000);
	buf_put_u64le(&b, 500000);
	CU_ASSERT_EQUAL(wire_decode(&got, b.data, b.len, cluster, &em), DB_INVALID);
	msg->body.position.terms[5] = msg->body.position.terms[4];
	buf_clear(&b);
	wire_encode(&b, msg);
	CU_ASSERT_EQUAL(wire_decode(&got, b.data, b.len, cluster, &em), DB_INVALID);
	buf_fini(&b);
}

/* What the last field of a status was before it had a version: an older sender's, and that of a successor which adds fields. */
static void other_minor_versions_are_understood(void)
{
	static struct wire_msg got;
	struct buf b = {0};
	uint8_t *copy;
	size_t i, version_bytes;

	encode(&b, WIRE_NODE_STATUS);
	CU_ASSERT_EQUAL(decode_exact(&got, b.data, b.len, &copy), DB_OK);
	CU_ASSERT_EQUAL(got.head.minor, WIRE_MINOR);
	CU_ASSERT_STRING_EQUAL(got.body.status.version, "1.2.3");
	free(copy);
	version_bytes = 4 + strlen("1.2.3");
	b.data[5] = 0;
	CU_ASSERT_EQUAL(decode_exact(&got, b.data, b.len, &copy), DB_INVALID); /* it had none: what is this? */
	free(copy);
	CU_ASSERT_EQUAL(decode_exact(&got, b.data, b.len - version_bytes, &copy), DB_OK);
	CU_ASSERT_STRING_EQUAL(got.body.status.version, "");
	CU_ASSERT_STRING_EQUAL(got.body.status.reason, "disk \"full\", caf\xc3\xa9");
	free(copy);
	for (i = 0; i < TYPE_COUNT; i++) {
		encode(&b, all_types[i]);
		b.data[5] = WIRE_MINOR + 1;
		buf_put_u64le(&b, 4711);
		CU_ASSERT_EQUAL(decode_exact(&got, b.data, b.len, &copy), DB_OK);
		CU_ASSERT_EQUAL(got.head.minor, WIRE_MINOR + 1);
		CU_ASSERT_EQUAL(got.head.type, all_types[i]);
		free(copy);
		CU_ASSERT_EQUAL(decode_exact(&got, b.data, b.len / 2, &copy),
				DB_INVALID); /* but what we know is there */
		free(copy);
	}
	buf_fini(&b);
}

static void strangers_are_refused_by_name(void)
{
	static struct wire_msg got;
	uint8_t other[16] = {9};
	struct buf b = {0};
	struct errmsg em = {0};
	char text[160];

	encode(&b, WIRE_HEARTBEAT);
	CU_ASSERT_EQUAL(wire_decode(&got, b.data, b.len, other, &em), DB_INVALID);
	CU_ASSERT_STRING_EQUAL(em.text, "\"node1\" belongs to another cluster");
	UNIT_OK(wire_decode(&got, b.data, b.len, NULL, &em), &em);
	b.data[4] = WIRE_VERSION + 1;
	CU_ASSERT_EQUAL(wire_decode(&got, b.data, b.len, cluster, &em), DB_INVALID);
	snprintf(text, sizeof(text),
		 "the peer speaks protocol version %u, we speak %u: nodes and supervisor must be of one "
		 "version",
		 WIRE_VERSION + 1, WIRE_VERSION);
	CU_ASSERT_STRING_EQUAL(em.text, text);
	b.data[4] = WIRE_VERSION;
	b.data[6] = 99;
	CU_ASSERT_EQUAL(wire_decode(&got, b.data, b.len, cluster, &em), DB_INVALID);
	CU_ASSERT_STRING_EQUAL(em.text, "message of unknown type 99 from \"node1\"");
	b.data[6] = WIRE_HEARTBEAT;
	b.data[0] = 'X';
	CU_ASSERT_EQUAL(wire_decode(&got, b.data, b.len, cluster, &em), DB_INVALID);
	CU_ASSERT_EQUAL(wire_decode(&got, NULL, 0, cluster, &em), DB_INVALID);
	CU_ASSERT_EQUAL(wire_decode(&got, NULL, 0, cluster, NULL), DB_INVALID);
	buf_fini(&b);
}

static void control_characters_never_reach_a_log(void)
{
	static struct wire_msg got;
	struct wire_msg *msg = sample(WIRE_NODE_STATUS);
	struct buf b = {0};
	struct errmsg em = {0};

	strcpy(msg->body.status.reason, "first line\nsecond\x7f");
	wire_encode(&b, msg);
	UNIT_OK(wire_decode(&got, b.data, b.len, cluster, &em), &em);
	CU_ASSERT_STRING_EQUAL(got.body.status.reason, "first line?second?");
	b.data[36] = '\n'; /* in the sender's name */
	CU_ASSERT_EQUAL(wire_decode(&got, b.data, b.len, cluster, &em), DB_INVALID);
	CU_ASSERT_PTR_NULL(strchr(em.text, '\n'));
	buf_fini(&b);
}

static void strings_without_an_end_are_cut_when_sent(void)
{
	static struct wire_msg got;
	struct wire_msg *msg = sample(WIRE_HEARTBEAT);
	struct buf b = {0};
	struct errmsg em = {0};

	memset(msg->head.sender, 'x', sizeof(msg->head.sender));
	wire_encode(&b, msg);
	UNIT_OK(wire_decode(&got, b.data, b.len, cluster, &em), &em);
	CU_ASSERT_EQUAL(strlen(got.head.sender), WIRE_NAME_MAX - 1);
	buf_fini(&b);
}

static void the_largest_messages_fit_and_a_longer_text_fails(void)
{
	static struct wire_msg got;
	struct wire_msg *msg = sample(WIRE_RECORDS);
	uint8_t *big = calloc(1, WIRE_CHUNK_MAX + 1);
	struct buf b = {0};
	struct errmsg em = {0};

	CU_ASSERT_PTR_NOT_NULL_FATAL(big);
	msg->body.records.bytes = big;
	msg->body.records.len = WIRE_CHUNK_MAX;
	wire_encode(&b, msg);
	UNIT_OK(wire_decode(&got, b.data, b.len, cluster, &em), &em);
	CU_ASSERT_EQUAL(got.body.records.len, WIRE_CHUNK_MAX);
	msg = sample(WIRE_CLI_REQUEST);
	msg->body.text = (struct wire_text){(const char *)big, WIRE_CHUNK_MAX + 1};
	buf_clear(&b);
	wire_encode(&b, msg);
	CU_ASSERT_TRUE(b.failed);
	buf_fini(&b);
	free(big);
}

static void a_split_encoding_is_the_whole_one_in_two_parts(void)
{
	struct buf whole = {0}, head = {0};
	const void *tail;
	size_t i, tail_len;

	for (i = 0; i < TYPE_COUNT; i++) {
		buf_clear(&head);
		encode(&whole, all_types[i]);
		wire_encode_split(&head, sample(all_types[i]), &tail, &tail_len);
		buf_put(&head, tail, tail_len);
		CU_ASSERT_TRUE(head.len == whole.len && memcmp(head.data, whole.data, whole.len) == 0);
	}
	buf_fini(&whole);
	buf_fini(&head);
}

static void every_type_and_state_has_its_own_name(void)
{
	size_t i, k;

	for (i = 0; i < TYPE_COUNT; i++)
		for (k = 0; k < i; k++)
			CU_ASSERT_STRING_NOT_EQUAL(wire_type_name(all_types[i]), wire_type_name(all_types[k]));
	CU_ASSERT_STRING_EQUAL(wire_type_name((enum wire_type)999), "unknown");
	CU_ASSERT_STRING_EQUAL(wire_state_name(WIRE_STATE_CATCHING_UP), "catching-up");
	CU_ASSERT_STRING_EQUAL(wire_state_name((enum wire_node_state)0), "unknown");
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"every type comes back as it was sent", every_type_comes_back_as_it_was_sent},
	    {"fields arrive in their places", fields_arrive_in_their_places},
	    {"golden bytes of an ack", golden_bytes_of_an_ack},
	    {"every truncation and every extension is refused", every_truncation_and_every_extension_is_refused},
	    {"every bit flip is refused or legal", every_bit_flip_is_refused_or_decodes_to_a_legal_message},
	    {"random garbage is survived", random_garbage_is_survived},
	    {"lying lengths and counts are refused", lying_lengths_and_counts_are_refused},
	    {"a full term history travels, one more does not", a_full_term_history_travels_and_one_more_does_not},
	    {"other minor versions are understood", other_minor_versions_are_understood},
	    {"strangers are refused by name", strangers_are_refused_by_name},
	    {"control characters never reach a log", control_characters_never_reach_a_log},
	    {"strings without an end are cut when sent", strings_without_an_end_are_cut_when_sent},
	    {"the largest messages fit, a longer text fails", the_largest_messages_fit_and_a_longer_text_fails},
	    {"a split encoding is the whole one", a_split_encoding_is_the_whole_one_in_two_parts},
	    {"every type and state has its own name", every_type_and_state_has_its_own_name},
	    {NULL, NULL},
	};

	return unit_run("wire", tests);
}

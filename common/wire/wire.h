/*
 * wire.h - every message that travels over NNG, and its encoding.
 *
 * Frame, little-endian: magic u32 "GzM1", version u8, minor version u8, type u16, cluster_id 16 bytes, term u64, sender
 * string, then the body of its type. Strings are u32 length + bytes. A message with another magic, version or cluster id, of
 * unknown type, cut short, or with bytes left over is DB_INVALID and changes nothing: a peer's data is input, never trusted.
 *
 * Nodes and supervisors of one version understand each other whatever their minor versions, so that a cluster is upgraded
 * (and downgraded) one process at a time. A new minor version may only add fields at the end of bodies without borrowed
 * bytes: a decoder of an older one leaves what it does not know, one of a newer one takes a default for what is not there.
 * Anything else is a new version.
 * Pure: no sockets here. Encoders append to a buf; decoders borrow from the message.
 */
#ifndef GRIZZLY_COMMON_WIRE_WIRE_H
#define GRIZZLY_COMMON_WIRE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/members.h"
#include "common/wal/record.h"

#define WIRE_MAGIC   0x314d7a47u /* "GzM1" read little-endian */
#define WIRE_VERSION 3u          /* bump when a body changes; peers of another version are refused by name */
#ifndef WIRE_MINOR               /* a test builds a successor */
#define WIRE_MINOR 1u            /* bump when fields are added as said above; 1: wire_node_status.version */
#endif
#define WIRE_NAME_MAX     64 /* node ids and "host:port" addresses, NUL included */
#define WIRE_REASON_MAX   256
#define WIRE_TERMS_MAX    1024              /* newest entries of a term history that travel */
#define WIRE_CHUNK_MAX    ((size_t)1 << 20) /* record bytes in one message */
#define WIRE_WINDOW_PAGES 4096u             /* pages of a snapshot whose hashes make one message */

/* Terms begin at 1 and grow by one with each election: a higher one than WIRE_TERM_MAX comes from nobody honest. Nor does
 * a peer on the record stream know of a term so far ahead of ours that WIRE_TERM_STEP_MAX elections were missed. Whoever
 * may speak there could otherwise use up all terms there are with a single message, and no election would ever succeed
 * again. */
#define WIRE_TERM_MAX      WAL_TERM_MAX
#define WIRE_TERM_STEP_MAX ((uint64_t)1 << 20)

enum wire_type {
	/* master -> replica, PUSH/PULL at the replica's replication address */
	WIRE_HELLO = 1,          /* who the master is; the replica answers with WIRE_POSITION */
	WIRE_START = 2,          /* from where the stream goes on; the replica cuts what lies behind */
	WIRE_RECORDS = 3,        /* a piece of the record stream */
	WIRE_COMMIT = 4,         /* committed_lsn and end of the log; also the keep-alive */
	WIRE_SNAPSHOT_BEGIN = 5, /* the replica's log cannot be joined: a whole database follows */
	WIRE_SNAPSHOT_PAGES = 6,
	WIRE_SNAPSHOT_END = 7,
	WIRE_SNAPSHOT_HASHES = 8, /* of the pages that come next; the replica answers with WIRE_SNAPSHOT_WANT */
	/* replica -> master, PUSH/PULL at the master's ack address */
	WIRE_POSITION = 16,      /* the replica's log: last position, checksum, term history; asks for WIRE_START */
	WIRE_ACK = 17,           /* how far the replica is */
	WIRE_SNAPSHOT_WANT = 18, /* which of the pages it has not got already */
	/* supervisor -> node, REQ/REP at the node's control address; each is idempotent */
	WIRE_HEARTBEAT = 32, /* how are you? */
	WIRE_SET_TERM =
	    33, /* promise durably to refuse every smaller term; the answer is the node's position after it */
	WIRE_PROMOTE = 34, /* become master of the term promised, with these members */
	WIRE_DRAIN = 35, /* master: hold new writes, commit what is in flight; drained once committed_lsn == last.lsn */
	WIRE_RESUME = 36,      /* master: undo WIRE_DRAIN, the switchover was given up */
	WIRE_MEMBERS = 37,     /* master: count by these members from now on, and write them into the log */
	WIRE_NODE_STATUS = 48, /* the answer to each of the above */
	/* command line, or a node on behalf of a client -> supervisor, REQ/REP at the supervisor's control address */
	WIRE_CLI_REQUEST =
	    64, /* body: one JSON text {"command": "status"|"switchover"|"add-replica"|"remove-replica"|"replicas"|"stop", …} */
	WIRE_CLI_REPLY = 65, /* body: one JSON text */
};

enum wire_role { WIRE_ROLE_REPLICA = 1, WIRE_ROLE_MASTER = 2 };

/* Fields that every message carries. */
struct wire_head {
	enum wire_type type;
	uint8_t minor; /* the sender's, when decoded; not looked at when encoded */
	uint8_t cluster_id[16];
	uint64_t term; /* the sender's current term */
	char sender[WIRE_NAME_MAX];
};

struct wire_hello {
	uint64_t stream_id; /* chosen anew for every connection attempt; acks of another stream are ignored */
	char ack_address[WIRE_NAME_MAX];  /* host:port where the master listens for acks */
	char http_address[WIRE_NAME_MAX]; /* host:port for forwarded requests */
	uint64_t last_lsn;
};

struct wire_start {
	uint64_t stream_id;
	struct wal_pos prev;    /* the record before the first that follows; the replica cuts everything after it */
	uint64_t prev_checksum; /* its checksum; when the replica's differs it has diverged */
};

/* The record stream is the concatenation of canonical records. A message carries either whole records (offset 0: one or
 * more, the first being first_lsn) or one piece of a single record larger than WIRE_CHUNK_MAX: its bytes
 * [offset, offset + len). The record's own header says how long it is, so the receiver knows when it is complete. */
struct wire_records {
	uint64_t stream_id;
	uint64_t committed_lsn;
	uint64_t last_lsn;    /* end of the master's log, for the replica's lag */
	uint64_t first_lsn;   /* of the first record in bytes, or of the record being cut */
	uint64_t offset;      /* within that record; 0: bytes start at its header */
	const uint8_t *bytes; /* borrowed */
	size_t len;           /* 1..WIRE_CHUNK_MAX */
};

struct wire_commit {
	uint64_t stream_id;
	uint64_t committed_lsn;
	uint64_t last_lsn;
};

struct wire_snapshot_begin {
	uint64_t stream_id;
	struct wal_pos pos;
	uint64_t record_checksum; /* of the record at pos */
	uint64_t db_checksum;
	uint32_t db_size_pages;
};

struct wire_snapshot_pages {
	uint64_t stream_id;
	uint32_t first_pgno;
	const uint8_t *bytes; /* consecutive page images, borrowed */
	size_t len;           /* a multiple of WAL_PAGE_SIZE, 1 page..WIRE_CHUNK_MAX */
};

struct wire_snapshot_hashes {
	uint64_t stream_id;
	uint32_t first_pgno;
	uint32_t count;       /* 1..WIRE_WINDOW_PAGES */
	const uint8_t *bytes; /* 8 a page, little-endian: its part of the database checksum; borrowed */
};

struct wire_snapshot_end {
	uint64_t stream_id;
};

struct wire_position {
	uint64_t stream_id; /* of the hello it answers */
	struct wal_pos last;
	uint64_t last_checksum;
	uint64_t visible_lsn; /* nothing at or below may be cut */
	bool needs_snapshot;  /* diverged or corrupt: the log is of no use */
	size_t term_count;
	struct wal_pos terms[WIRE_TERMS_MAX]; /* first LSN of each term, oldest first (wal_terms()) */
};

struct wire_ack {
	uint64_t stream_id;
	uint64_t durable_lsn;
	uint64_t applied_lsn;
	uint64_t db_checksum; /* at applied_lsn */
};

struct wire_snapshot_want {
	uint64_t stream_id;
	uint32_t first_pgno; /* the window it answers */
	uint32_t count;
	uint8_t bits[WIRE_WINDOW_PAGES / 8]; /* bit i % 8 of byte i / 8: page first_pgno + i; none set beyond count */
};

enum wire_node_state {
	WIRE_STATE_STARTING = 1,
	WIRE_STATE_UP = 2,
	WIRE_STATE_CATCHING_UP = 3,
	WIRE_STATE_DIVERGED = 4,
	WIRE_STATE_FAILED = 5, /* cannot keep its promises; reason says why */
};

struct wire_node_status {
	enum wire_role role;
	enum wire_node_state state;
	bool accepted; /* the request this answers was carried out (heartbeat: always true) */
	bool ready;    /* master: its term-start record is committed and it accepts; replica: it streams */
	bool draining;
	uint32_t pid;
	uint64_t promised_term; /* durable */
	struct wal_pos last;    /* last record, durable part: lsn == durable_lsn */
	uint64_t durable_lsn;
	uint64_t applied_lsn;
	uint64_t committed_lsn;
	uint64_t db_checksum;
	uint64_t lag_ms;
	/* What its heartbeat proves: see common/base/pulse.h. */
	uint64_t disk_age_ms;  /* since its disk last made something durable, a probe at the least */
	uint64_t disk_busy_ms; /* how long the oldest operation of its disk has been under way; 0: none */
	uint64_t stuck_ms; /* how long the thread that writes its log has stood still amid its work; 0: it has not */
	uint64_t disk_free_bytes; /* UINT64_MAX: not known */
	bool low_space;           /* below its low-space mark: it takes no writes */
	struct members
	    members; /* of its log, version 0: none. Master: committed; replica: what refused its promotion */
	char http_address[WIRE_NAME_MAX];
	char replication_address[WIRE_NAME_MAX];
	char reason[WIRE_REASON_MAX]; /* why not accepted, or why state is what it is; may be empty */
	char version[WIRE_NAME_MAX];  /* of its program; "": it does not say (minor version 0) */
};

/* A message with a body of JSON text (WIRE_CLI_*). */
struct wire_text {
	const char *text; /* borrowed, not NUL-terminated */
	size_t len;       /* <= WIRE_CHUNK_MAX */
};

/* One decoded message. */
struct wire_msg {
	struct wire_head head;
	union {
		struct wire_hello hello;
		struct wire_start start;
		struct wire_records records;
		struct wire_commit commit;
		struct wire_snapshot_begin snapshot_begin;
		struct wire_snapshot_pages snapshot_pages;
		struct wire_snapshot_end snapshot_end;
		struct wire_snapshot_hashes snapshot_hashes;
		struct wire_snapshot_want snapshot_want;
		struct wire_position position;
		struct wire_ack ack;
		struct wire_node_status status;
		struct wire_text text;
		struct members members; /* of PROMOTE and MEMBERS */
	} body;                         /* HEARTBEAT, SET_TERM, DRAIN, RESUME have none: head.term says it all */
};

/* Appends the encoded message to b; a failed allocation, or a text longer than WIRE_CHUNK_MAX, shows in b->failed.
 * Control characters in strings travel as '?': the decoder refuses them, because names and reasons end up in logs. */
void wire_encode(struct buf *b, const struct wire_msg *msg);
/* The same without the borrowed bytes that end a RECORDS, SNAPSHOT_PAGES, SNAPSHOT_HASHES or CLI message: they are left in *tail (NULL
 * and 0 for other types) for a sender that can put them behind b's content without copying them twice. */
void wire_encode_split(struct buf *b, const struct wire_msg *msg, const void **tail, size_t *tail_len);

/* Decodes bytes, which must outlive msg. cluster_id: what head.cluster_id must be; NULL: any (a node that does not know
 * its cluster yet, or the command line). DB_INVALID with a reason, never more; what msg holds is then undefined. */
enum db_err wire_decode(struct wire_msg *msg, const void *bytes, size_t len, const uint8_t *cluster_id,
			struct errmsg *em);

/* Whether a term that a peer on the record stream names is to be believed by one who knows of `ours`. */
bool wire_term_is_credible(uint64_t term, uint64_t ours);

const char *wire_type_name(enum wire_type type);         /* "hello", "records", …; "unknown" */
const char *wire_state_name(enum wire_node_state state); /* "starting", "up", "catching-up", "diverged", "failed" */

#endif

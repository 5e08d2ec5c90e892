/*
 * members.h - who belongs to the cluster, who of them votes, and the change that is under way: one value, changed by
 * version.
 *
 * The supervisor decides each version and stores it; the master counts acknowledgements by it and writes it into the
 * log. Only one member at a time is in a passing state, and between two sets of voters lies a version that holds both (joint
 * consensus, Ongaro's dissertation, 4.3): what must hold of a quorum then holds of a quorum of each.
 *
 *   add:     NONE -> LEARNING -> JOINING (joint) -> VOTER          remove:  VOTER -> LEAVING (joint) -> REMOVED
 *            NONE -> LEARNING_READONLY -> READONLY                          READONLY -> REMOVED
 *   undone:  LEARNING*, JOINING -> NONE; LEAVING -> VOTER
 *
 * Pure values, any thread. Numbers count from 1 outside and index entries from 0 here.
 */
#ifndef GRIZZLY_COMMON_BASE_MEMBERS_H
#define GRIZZLY_COMMON_BASE_MEMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/config.h"

#define MEMBERS_MAX       CONFIG_NODES_MAX
#define MEMBERS_NOBODY    UINT32_MAX
#define MEMBERS_BYTES_MAX (8u + 1u + MEMBERS_MAX * 7u)

/* Stored and sent as they are: add, never renumber. */
enum members_state {
	MEMBERS_NONE = 0, /* never was a member, as far as anybody relied on it */
	MEMBERS_VOTER = 1,
	MEMBERS_READONLY = 2,          /* streams and serves reads; counts for nothing */
	MEMBERS_LEARNING = 3,          /* catches up, will vote */
	MEMBERS_LEARNING_READONLY = 4, /* catches up, will not vote */
	MEMBERS_JOINING = 5,           /* of the new voters, not of the old */
	MEMBERS_LEAVING = 6,           /* of the old voters, not of the new */
	MEMBERS_REMOVED = 7,           /* was a member; its number is not used again */
};

struct members_entry {
	enum members_state state;
	uint16_t http_port; /* the three are 0 where state is MEMBERS_NONE */
	uint16_t replication_port;
	uint16_t ack_port;
};

struct members {
	uint64_t version; /* 0: as cluster.json had it in the beginning; never written to the log */
	struct members_entry entries[MEMBERS_MAX];
};

/* A set of voters, and how many of them must hold a record before it is acknowledged. */
struct members_quorum {
	uint32_t nodes; /* bit n: entry n */
	unsigned acks;
};

/* The cluster of the configuration: version 0, nodes 1 to replicas + 1, all voting. */
void members_init(struct members *m, const struct cluster_config *config);
/* A new entry's ports as the configuration deals them out: http_port + node, + 100, + 200. node counts from 1. */
void members_standard_ports(struct members_entry *e, const struct cluster_config *config, unsigned node);

bool members_present(enum members_state state); /* has a process */
bool members_votes(enum members_state state);   /* in the old set, the new one, or both */
bool members_passing(enum members_state state); /* a change of it is under way */
unsigned members_count(const struct members *m);
unsigned members_voters(const struct members *m);  /* of the new set */
unsigned members_pending(const struct members *m); /* the entry in a passing state; MEMBERS_NOBODY: none */
uint32_t members_old_set(const struct members *m);
uint32_t members_new_set(const struct members *m);
/* The one or two quorums that acknowledging takes; returns how many. */
unsigned members_quorums(const struct members *m, enum durability durability, struct members_quorum out[2]);
const char *members_state_name(enum members_state state); /* "voter", "learning", …; for people and the log's table */
/* False: there is no such name. */
bool members_state_parse(const char *name, enum members_state *out);

/* "host:port" of an entry, at the configuration's bind address. */
void members_address(const struct members_entry *e, const struct cluster_config *config, enum config_port which,
		     char out[CONFIG_ADDRESS_MAX]);

/* version u64, count u8, then for each entry up to the last used one: state u8, three ports u16. */
void members_put(struct buf *b, const struct members *m);
/* Sets r->bad for what no members_put() writes: a state or port out of range, two changes at once, nobody who votes (but
 * none at all is what version 0 may be: unknown). */
void members_get(struct rd *r, struct members *m);
/* What members_get() checks. */
bool members_valid(const struct members *m);

#endif

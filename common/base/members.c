/* members.c - see members.h. */
#include "common/base/members.h"

#include <string.h>

static const char *const state_names[] = {"none",    "voter",   "readonly", "learning", "learning-readonly",
					  "joining", "leaving", "removed"};

#define STATE_COUNT (sizeof(state_names) / sizeof(state_names[0]))

void members_standard_ports(struct members_entry *e, const struct cluster_config *config, unsigned node)
{
	e->http_port = (uint16_t)config_node_port(config, node, CONFIG_HTTP);
	e->replication_port = (uint16_t)config_node_port(config, node, CONFIG_REPLICATION);
	e->ack_port = (uint16_t)config_node_port(config, node, CONFIG_ACKS);
}

void members_init(struct members *m, const struct cluster_config *config)
{
	unsigned count = config_node_count(config);
	unsigned n;

	memset(m, 0, sizeof(*m));
	for (n = 0; n < count; n++) {
		m->entries[n].state = MEMBERS_VOTER;
		members_standard_ports(&m->entries[n], config, n + 1);
	}
}

bool members_present(enum members_state state)
{
	return state != MEMBERS_NONE && state != MEMBERS_REMOVED;
}

bool members_votes(enum members_state state)
{
	return state == MEMBERS_VOTER || state == MEMBERS_JOINING || state == MEMBERS_LEAVING;
}

bool members_passing(enum members_state state)
{
	return state == MEMBERS_LEARNING || state == MEMBERS_LEARNING_READONLY || state == MEMBERS_JOINING ||
	       state == MEMBERS_LEAVING;
}

unsigned members_count(const struct members *m)
{
	unsigned count = 0;
	unsigned n;

	for (n = 0; n < MEMBERS_MAX; n++)
		count += members_present(m->entries[n].state);
	return count;
}

unsigned members_pending(const struct members *m)
{
	unsigned n;

	for (n = 0; n < MEMBERS_MAX; n++)
		if (members_passing(m->entries[n].state))
			return n;
	return MEMBERS_NOBODY;
}

static uint32_t set_of(const struct members *m, enum members_state also)
{
	uint32_t set = 0;
	unsigned n;

	for (n = 0; n < MEMBERS_MAX; n++)
		if (m->entries[n].state == MEMBERS_VOTER || m->entries[n].state == also)
			set |= 1u << n;
	return set;
}

uint32_t members_old_set(const struct members *m)
{
	return set_of(m, MEMBERS_LEAVING);
}

uint32_t members_new_set(const struct members *m)
{
	return set_of(m, MEMBERS_JOINING);
}

unsigned members_voters(const struct members *m)
{
	return (unsigned)__builtin_popcount(members_new_set(m));
}

unsigned members_quorums(const struct members *m, enum durability durability, struct members_quorum out[2])
{
	out[0].nodes = members_old_set(m);
	out[0].acks = config_acks_of(durability, (unsigned)__builtin_popcount(out[0].nodes));
	out[1].nodes = members_new_set(m);
	out[1].acks = config_acks_of(durability, (unsigned)__builtin_popcount(out[1].nodes));
	return out[0].nodes == out[1].nodes ? 1 : 2;
}

const char *members_state_name(enum members_state state)
{
	return (size_t)state < STATE_COUNT ? state_names[state] : "unknown";
}

bool members_state_parse(const char *name, enum members_state *out)
{
	size_t i;

	for (i = 0; i < STATE_COUNT; i++) {
		if (strcmp(name, state_names[i]) == 0) {
			*out = (enum members_state)i;
			return true;
		}
	}
	return false;
}

void members_address(const struct members_entry *e, const struct cluster_config *config, enum config_port which,
		     char out[CONFIG_ADDRESS_MAX])
{
	unsigned port = which == CONFIG_HTTP          ? e->http_port
			: which == CONFIG_REPLICATION ? e->replication_port
						      : e->ack_port;

	config_address(config, port, out);
}

/* ---- bytes */

void members_put(struct buf *b, const struct members *m)
{
	unsigned count = MEMBERS_MAX;
	unsigned n;

	while (count > 0 && m->entries[count - 1].state == MEMBERS_NONE)
		count--;
	buf_put_u64le(b, m->version);
	buf_put_u8(b, (uint8_t)count);
	for (n = 0; n < count; n++) {
		buf_put_u8(b, (uint8_t)m->entries[n].state);
		buf_put_u16le(b, m->entries[n].http_port);
		buf_put_u16le(b, m->entries[n].replication_port);
		buf_put_u16le(b, m->entries[n].ack_port);
	}
}

static bool entry_valid(const struct members_entry *e)
{
	bool any = e->http_port != 0 || e->replication_port != 0 || e->ack_port != 0;
	bool all = e->http_port != 0 && e->replication_port != 0 && e->ack_port != 0;

	return (size_t)e->state < STATE_COUNT && (e->state == MEMBERS_NONE ? !any : all);
}

bool members_valid(const struct members *m)
{
	unsigned passing = 0;
	bool any = false;
	unsigned n;

	for (n = 0; n < MEMBERS_MAX; n++) {
		if (!entry_valid(&m->entries[n]))
			return false;
		any = any || m->entries[n].state != MEMBERS_NONE;
		passing += members_passing(m->entries[n].state);
	}
	if (!any)
		return m->version == 0;
	return passing <= 1 && members_old_set(m) != 0 && members_new_set(m) != 0;
}

void members_get(struct rd *r, struct members *m)
{
	unsigned count;
	unsigned n;

	memset(m, 0, sizeof(*m));
	m->version = rd_u64le(r);
	count = rd_u8(r);
	if (count > MEMBERS_MAX)
		r->bad = true;
	for (n = 0; n < count && !r->bad; n++) {
		m->entries[n].state = (enum members_state)rd_u8(r);
		m->entries[n].http_port = rd_u16le(r);
		m->entries[n].replication_port = rd_u16le(r);
		m->entries[n].ack_port = rd_u16le(r);
	}
	if (r->bad || !members_valid(m)) {
		r->bad = true;
		memset(m, 0, sizeof(*m));
	}
}

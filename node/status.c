/* status.c - see status.h. */
#include "node/status.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/query/answer.h"

static const char *role_name(enum wire_role role)
{
	return role == WIRE_ROLE_MASTER ? "master" : "replica";
}

static void put_text(struct buf *out, const char *key, const char *value)
{
	buf_printf(out, ",\"%s\":", key);
	json_put_string(out, value, strlen(value));
}

static void put_number(struct buf *out, const char *key, uint64_t value)
{
	buf_printf(out, ",\"%s\":%" PRIu64, key, value);
}

static void put_peers(struct buf *out, struct roles *roles)
{
	struct replication_peer peers[CONFIG_NODES_MAX];
	size_t count = roles_get_peers(roles, peers, CONFIG_NODES_MAX);
	size_t i;

	buf_puts(out, ",\"replicas\":[");
	for (i = 0; i < count; i++) {
		buf_printf(out, "%s{\"id\":\"%s\"", i > 0 ? "," : "", peers[i].id);
		put_text(out, "replication", peers[i].address);
		put_text(out, "state", walsender_state_name(peers[i].walsender.state));
		put_number(out, "durable_lsn", peers[i].walsender.acked_lsn);
		put_number(out, "applied_lsn", peers[i].walsender.applied_lsn);
		put_number(out, "held_lsn", peers[i].held_lsn == UINT64_MAX ? 0 : peers[i].held_lsn);
		put_number(out, "cut_offs", peers[i].cut_offs);
		buf_puts(out, "}");
	}
	buf_puts(out, "]");
}

/* What is kept of the log, and why. */
static void put_log(struct buf *out, const struct status_sources *sources, const struct store_status *store)
{
	buf_printf(out,
		   ",\"log\":{\"first_lsn\":%" PRIu64 ",\"size_bytes\":%" PRIu64 ",\"keep_bytes\":%" PRIu64
		   ",\"max_bytes\":%" PRIu64 "}",
		   store->first_lsn, store->wal_bytes, sources->config->log.keep_bytes, sources->config->log.max_bytes);
}

static void put_archive(struct buf *out, const struct status_sources *sources)
{
	struct archiver_status archive;

	archiver_get_status(sources->archiver, &archive);
	if (!archive.on)
		return;
	buf_puts(out, ",\"archive\":{\"dir\":");
	json_put_string(out, sources->config->archive.dir, strlen(sources->config->archive.dir));
	put_number(out, "archived_lsn", archive.archived_lsn);
	put_number(out, "lag_ms", archive.lag_ms);
	put_number(out, "files_written", archive.files_total);
	if (archive.hole_lsn > 0)
		put_number(out, "hole_before_lsn", archive.hole_lsn);
	if (archive.error[0] != '\0')
		put_text(out, "error", archive.error);
	buf_puts(out, "}");
}

/* The nodes asked lately, by address. */
static void put_remote(struct buf *out, struct remote_pool *pool)
{
	struct remote_pool_address *list = calloc(REMOTE_LISTED_MAX, sizeof(*list));
	size_t i, count = list != NULL ? remote_pool_get_addresses(pool, list, REMOTE_LISTED_MAX) : 0;

	out->failed = out->failed || list == NULL;
	buf_puts(out, ",\"remote\":[");
	for (i = 0; i < count; i++) {
		buf_puts(out, i > 0 ? ",{\"address\":" : "{\"address\":");
		json_put_string(out, list[i].address, strlen(list[i].address));
		put_number(out, "connections", list[i].connections);
		put_number(out, "in_flight", list[i].in_flight);
		put_number(out, "queued", list[i].queued);
		put_number(out, "requests", list[i].requests_total);
		put_number(out, "failures", list[i].failures_total);
		put_number(out, "asked_ms", list[i].asked_ms);
		if (list[i].failing)
			put_number(out, "failing_ms", list[i].failing_ms);
		else
			buf_puts(out, ",\"failing_ms\":null");
		if (list[i].last_error[0] != '\0')
			put_text(out, "last_error", list[i].last_error);
		buf_puts(out, "}");
	}
	buf_puts(out, "]");
	free(list);
}

void status_put_json(struct buf *out, const struct status_sources *sources)
{
	struct wire_node_status node;
	struct store_status store;
	char checksum[20];

	roles_get_status(sources->roles, &node);
	store_get_status(sources->store, &store);
	snprintf(checksum, sizeof(checksum), "%016" PRIx64, node.db_checksum);
	buf_printf(out, "{\"id\":\"%s\",\"role\":\"%s\"", sources->node_id, role_name(node.role));
	put_text(out, "state", wire_state_name(node.state));
	buf_printf(out, ",\"ready\":%s", node.ready ? "true" : "false");
	if (node.reason[0] != '\0')
		put_text(out, "reason", node.reason);
	put_number(out, "term", node.promised_term);
	put_number(out, "last_term", node.last.term);
	put_number(out, "durable_lsn", node.durable_lsn);
	put_number(out, "applied_lsn", node.applied_lsn);
	put_number(out, "committed_lsn", node.committed_lsn);
	put_number(out, "checkpoint_lsn", store.checkpoint_lsn);
	put_number(out, "first_lsn", store.first_lsn);
	put_number(out, "lag_ms", node.lag_ms);
	put_number(out, "disk_age_ms", node.disk_age_ms);
	put_number(out, "disk_busy_ms", node.disk_busy_ms);
	put_number(out, "stuck_ms", node.stuck_ms);
	if (node.disk_free_bytes != UINT64_MAX)
		put_number(out, "disk_free_bytes", node.disk_free_bytes);
	buf_printf(out, ",\"low_space\":%s", node.low_space ? "true" : "false");
	put_text(out, "db_checksum", checksum);
	put_number(out, "db_size_bytes", (uint64_t)store.db_size_pages * WAL_PAGE_SIZE);
	put_number(out, "wal_size_bytes", store.wal_bytes);
	put_log(out, sources, &store);
	put_archive(out, sources);
	put_remote(out, sources->pool);
	put_number(out, "uptime_ms", clock_mono_ms() - sources->started_ms);
	if (node.role == WIRE_ROLE_MASTER)
		put_peers(out, sources->roles);
	buf_puts(out, "}\n");
}

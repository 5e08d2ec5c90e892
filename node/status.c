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

static void metric(struct buf *out, const char *name, const char *type, const char *help, uint64_t value)
{
	buf_printf(out, "# HELP grizzly_%s %s\n# TYPE grizzly_%s %s\ngrizzly_%s %" PRIu64 "\n", name, help, name, type,
		   name, value);
}

static void seconds(struct buf *out, const char *name, const char *help, uint64_t ms)
{
	buf_printf(out, "# HELP grizzly_%s %s\n# TYPE grizzly_%s gauge\ngrizzly_%s %" PRIu64 ".%03u\n", name, help,
		   name, name, ms / 1000, (unsigned)(ms % 1000));
}

static void put_token_metrics(struct buf *out, struct tokens *t)
{
	struct tokens_counters tokens;

	tokens_get_counters(t, &tokens);
	metric(out, "tokens", "gauge", "Tokens accepted besides the first, expired ones included.", tokens.tokens);
	metric(out, "tokens_file_failures_total", "counter", "Times that a token file could not be used.",
	       tokens.failures_total);
}

static void put_http_metrics(struct buf *out, struct http_server *server)
{
	struct http_counters http;
	unsigned class;

	http_server_get_counters(server, &http);
	metric(out, "http_connections", "gauge", "Open client connections.", http.connections_open);
	metric(out, "http_connections_total", "counter", "Client connections accepted.", http.connections_total);
	metric(out, "http_requests_total", "counter", "HTTP requests received.", http.requests_total);
	metric(out, "http_requests_in_flight", "gauge", "HTTP requests being answered.", http.requests_in_flight);
	metric(out, "http_auth_failures_total", "counter", "Requests without a valid token.", http.auth_failures_total);
	metric(out, "http_auth_delayed_total", "counter", "Of these: answered late, for many came from that address.",
	       http.auth_delayed_total);
	metric(out, "http_auth_refused_total", "counter", "Of these: answered with 429, for too many were waiting.",
	       http.auth_refused_total);
	buf_puts(out, "# HELP grizzly_http_replies_total HTTP replies by status class.\n"
		      "# TYPE grizzly_http_replies_total counter\n");
	for (class = 2; class <= 5; class ++)
		buf_printf(out, "grizzly_http_replies_total{class=\"%uxx\"} %" PRIu64 "\n", class,
			   http.replies_by_class[class]);
}

static void put_query_metrics(struct buf *out, const struct status_sources *sources)
{
	struct frontend_counters front;
	struct writer_counters writer;

	frontend_get_counters(sources->frontend, &front);
	roles_get_write_counters(sources->roles, &writer);
	metric(out, "reads_inline_total", "counter", "Reads answered on an HTTP worker.", front.reads_inline);
	metric(out, "reads_slow_total", "counter", "Reads moved to the slow-query threads.", front.reads_slow);
	metric(out, "writes_total", "counter", "Write requests submitted.", front.writes);
	metric(out, "requests_forwarded_total", "counter", "Requests forwarded to the master.", front.forwarded);
	metric(out, "requests_parked_total", "counter", "Times a request waited for a master.", front.parked);
	metric(out, "write_batches_total", "counter", "Group commits of this term.", writer.batches_total);
	metric(out, "write_batch_requests_total", "counter", "Write requests in those.", writer.jobs_total);
	metric(out, "write_queue_length", "gauge", "Write requests waiting for the writer.", writer.queue_length);
}

struct address_metric {
	const char *name, *type, *help;
	size_t offset; /* of its uint64_t in struct remote_pool_address */
};

static void put_label(struct buf *out, const char *value)
{
	for (; *value != '\0'; value++) {
		if (*value == '"' || *value == '\\')
			buf_put_u8(out, '\\');
		buf_put_u8(out, (uint8_t)(*value == '\n' ? ' ' : *value));
	}
}

static void put_address_metrics(struct buf *out, struct remote_pool *pool)
{
	static const struct address_metric metrics[] = {
	    {"connections", "gauge", "Open connections to that address.",
	     offsetof(struct remote_pool_address, connections)},
	    {"in_flight", "gauge", "Requests under way to it.", offsetof(struct remote_pool_address, in_flight)},
	    {"queued", "gauge", "Requests that wait for a connection, or for it to answer again.",
	     offsetof(struct remote_pool_address, queued)},
	    {"failures_total", "counter", "Requests to it that failed.",
	     offsetof(struct remote_pool_address, failures_total)},
	};
	struct remote_pool_address *list = calloc(REMOTE_LISTED_MAX, sizeof(*list));
	size_t i, j, count = list != NULL ? remote_pool_get_addresses(pool, list, REMOTE_LISTED_MAX) : 0;
	uint64_t value;

	out->failed = out->failed || list == NULL;
	for (j = 0; count > 0 && j < sizeof(metrics) / sizeof(metrics[0]); j++) {
		buf_printf(out, "# HELP grizzly_remote_address_%s %s\n# TYPE grizzly_remote_address_%s %s\n",
			   metrics[j].name, metrics[j].help, metrics[j].name, metrics[j].type);
		for (i = 0; i < count; i++) {
			memcpy(&value, (const char *)&list[i] + metrics[j].offset, sizeof(value));
			buf_printf(out, "grizzly_remote_address_%s{address=\"", metrics[j].name);
			put_label(out, list[i].address);
			buf_printf(out, "\"} %" PRIu64 "\n", value);
		}
	}
	free(list);
}

/* Requests to other nodes: forwarded ones, and for their tables. */
static void put_remote_metrics(struct buf *out, const struct status_sources *sources)
{
	struct remote_pool_counters pool;

	remote_pool_get_counters(sources->pool, &pool);
	metric(out, "remote_requests_total", "counter", "HTTP requests to other nodes.", pool.requests_total);
	metric(out, "remote_failures_total", "counter", "Those that failed.", pool.failures_total);
	metric(out, "remote_connections", "gauge", "Open connections to other nodes.", pool.connections_open);
	metric(out, "remote_connections_opened_total", "counter", "Connections opened to other nodes.",
	       pool.connections_opened_total);
	metric(out, "remote_connections_reused_total", "counter", "Requests on a connection that was open already.",
	       pool.reused_total);
	metric(out, "remote_requests_in_flight", "gauge", "Requests to other nodes under way.", pool.in_flight);
	metric(out, "remote_requests_queued", "gauge", "Those that wait for a connection.", pool.queued);
	metric(out, "remote_requests_waited_total", "counter", "Requests that waited for a free connection.",
	       pool.waited_total);
	metric(out, "remote_requests_resent_total", "counter", "Reads sent again, for a kept connection was closed.",
	       pool.retries_total);
	metric(out, "remote_requests_refused_total", "counter", "Requests not sent: the node failed just before.",
	       pool.backoff_refusals_total);
	put_address_metrics(out, sources->pool);
}

static void put_archive_metrics(struct buf *out, const struct status_sources *sources)
{
	struct archiver_status archive;

	archiver_get_status(sources->archiver, &archive);
	metric(out, "log_max_bytes", "gauge", "Size of the log's files at which whoever holds them is cut off.",
	       sources->config->log.max_bytes);
	metric(out, "archived_lsn", "gauge", "Last log record that was archived.", archive.archived_lsn);
	seconds(out, "archive_lag_seconds", "How long the oldest commit has waited to be archived.", archive.lag_ms);
	metric(out, "archive_failing", "gauge", "1 when the archive cannot be written.", archive.error[0] != '\0');
}

void status_put_metrics(struct buf *out, const struct status_sources *sources)
{
	struct wire_node_status node;
	struct store_status store;

	roles_get_status(sources->roles, &node);
	store_get_status(sources->store, &store);
	metric(out, "is_master", "gauge", "1 when this node is the master.", node.role == WIRE_ROLE_MASTER);
	metric(out, "ready", "gauge", "1 when this node can serve its role.", node.ready);
	metric(out, "term", "gauge", "The term promised.", node.promised_term);
	metric(out, "durable_lsn", "gauge", "Last log record synced here.", node.durable_lsn);
	metric(out, "applied_lsn", "gauge", "Last log record applied.", node.applied_lsn);
	metric(out, "committed_lsn", "gauge", "Last log record known to be committed.", node.committed_lsn);
	metric(out, "checkpoint_lsn", "gauge", "Last log record in the base file.", store.checkpoint_lsn);
	seconds(out, "replication_lag_seconds", "How long ago this node last had all its master had.", node.lag_ms);
	metric(out, "database_size_bytes", "gauge", "Size of the database.",
	       (uint64_t)store.db_size_pages * WAL_PAGE_SIZE);
	metric(out, "wal_size_bytes", "gauge", "Size of the log's files.", store.wal_bytes);
	put_archive_metrics(out, sources);
	if (node.disk_free_bytes != UINT64_MAX)
		metric(out, "disk_free_bytes", "gauge", "Bytes free on the disk.", node.disk_free_bytes);
	metric(out, "low_space", "gauge", "1 below the low-space mark: no writes are taken.", node.low_space);
	seconds(out, "disk_durable_age_seconds", "How long ago the disk last made something durable.",
		node.disk_age_ms);
	seconds(out, "uptime_seconds", "Age of the process.", clock_mono_ms() - sources->started_ms);
	put_http_metrics(out, sources->server);
	put_token_metrics(out, sources->tokens);
	put_query_metrics(out, sources);
	put_remote_metrics(out, sources);
}

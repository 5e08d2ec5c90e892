/* metrics.c - see metrics.h. */
#include "node/metrics.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "common/base/metrics_text.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#define SUPERVISOR_FILE      "run/metrics"
#define SUPERVISOR_BYTES_MAX ((size_t)64 << 10)

static void put_http(struct metrics_text *m, struct http_server *server)
{
	struct http_counters http;
	unsigned class;
	char label[24];

	http_server_get_counters(server, &http);
	metrics_one(m, "http_connections", "gauge", "Open client connections.", http.connections_open);
	metrics_one(m, "http_connections_total", "counter", "Client connections accepted.", http.connections_total);
	metrics_one(m, "http_connections_evicted_total", "counter",
		    "Idle or slow client connections closed to make room for others.", http.connections_evicted_total);
	metrics_one(m, "http_connections_refused_total", "counter",
		    "Client connections refused, for their address had too many.", http.connections_refused_total);
	metrics_one(m, "http_requests_total", "counter", "HTTP requests received.", http.requests_total);
	metrics_one(m, "http_requests_in_flight", "gauge", "HTTP requests being answered.", http.requests_in_flight);
	metrics_one(m, "http_auth_failures_total", "counter", "Requests without a valid token.",
		    http.auth_failures_total);
	metrics_one(m, "http_auth_delayed_total", "counter",
		    "Of these: answered late, for many came from that address.", http.auth_delayed_total);
	metrics_one(m, "http_auth_refused_total", "counter", "Of these: answered with 429, for too many were waiting.",
		    http.auth_refused_total);
	metrics_family(m, "http_replies_total", "counter", "HTTP replies by status class.");
	for (class = 2; class <= 5; class ++) {
		snprintf(label, sizeof(label), "class=\"%uxx\"", class);
		metrics_sample(m, label, http.replies_by_class[class]);
	}
}

static void put_tokens(struct metrics_text *m, struct tokens *t)
{
	struct tokens_counters tokens;

	tokens_get_counters(t, &tokens);
	metrics_one(m, "tokens", "gauge", "Tokens accepted besides the first, expired ones included.", tokens.tokens);
	metrics_one(m, "tokens_file_failures_total", "counter", "Times that a token file could not be used.",
		    tokens.failures_total);
}

static void put_queries(struct metrics_text *m, const struct status_sources *sources)
{
	struct frontend_counters front;
	struct writer_counters writer;

	frontend_get_counters(sources->frontend, &front);
	roles_get_write_counters(sources->roles, &writer);
	metrics_one(m, "reads_inline_total", "counter", "Reads answered on an HTTP worker.", front.reads_inline);
	metrics_one(m, "reads_slow_total", "counter", "Reads moved to the slow-query threads.", front.reads_slow);
	metrics_one(m, "writes_total", "counter", "Write requests submitted.", front.writes);
	metrics_one(m, "requests_forwarded_total", "counter", "Requests forwarded to the master.", front.forwarded);
	metrics_one(m, "requests_parked_total", "counter", "Requests that waited for a master.", front.parked);
	metrics_one(m, "slow_queries_total", "counter", "Requests that took longer than logging.slow_query_ms.",
		    atomic_load(&sources->slow_log->slow_total));
	metrics_one(m, "write_batches_total", "counter", "Group commits of this term.", writer.batches_total);
	metrics_one(m, "write_batch_requests_total", "counter", "Write requests in those.", writer.jobs_total);
	metrics_one(m, "write_queue_length", "gauge", "Write requests waiting for the writer.", writer.queue_length);
}

struct address_metric {
	const char *name, *type, *help;
	size_t offset; /* of its uint64_t in struct remote_pool_address */
};

/* Addresses come from clients' SQL: nothing in them may end the label. */
static void address_label(char *out, size_t size, const char *address)
{
	size_t n = (size_t)snprintf(out, size, "address=\"");

	for (; *address != '\0' && n + 4 < size; address++) {
		if (*address == '"' || *address == '\\')
			out[n++] = '\\';
		out[n++] = *address == '\n' ? ' ' : *address;
	}
	out[n++] = '"';
	out[n] = '\0';
}

static void put_addresses(struct metrics_text *m, struct remote_pool *pool)
{
	static const struct address_metric metrics[] = {
	    {"remote_address_connections", "gauge", "Open connections to that address.",
	     offsetof(struct remote_pool_address, connections)},
	    {"remote_address_in_flight", "gauge", "Requests under way to it.",
	     offsetof(struct remote_pool_address, in_flight)},
	    {"remote_address_queued", "gauge", "Requests that wait for a connection, or for it to answer again.",
	     offsetof(struct remote_pool_address, queued)},
	    {"remote_address_failures_total", "counter", "Requests to it that failed.",
	     offsetof(struct remote_pool_address, failures_total)},
	};
	struct remote_pool_address *list = calloc(REMOTE_LISTED_MAX, sizeof(*list));
	size_t i, j, count = list != NULL ? remote_pool_get_addresses(pool, list, REMOTE_LISTED_MAX) : 0;
	char label[2 * CONFIG_REMOTE_ADDRESS_MAX + 16];
	uint64_t value;

	m->out->failed = m->out->failed || list == NULL;
	for (j = 0; count > 0 && j < sizeof(metrics) / sizeof(metrics[0]); j++) {
		metrics_family(m, metrics[j].name, metrics[j].type, metrics[j].help);
		for (i = 0; i < count; i++) {
			memcpy(&value, (const char *)&list[i] + metrics[j].offset, sizeof(value));
			address_label(label, sizeof(label), list[i].address);
			metrics_sample(m, label, value);
		}
	}
	free(list);
}

/* Requests to other nodes: forwarded ones, and for their tables. */
static void put_remote(struct metrics_text *m, const struct status_sources *sources)
{
	struct remote_pool_counters pool;

	remote_pool_get_counters(sources->pool, &pool);
	metrics_one(m, "remote_requests_total", "counter", "HTTP requests to other nodes.", pool.requests_total);
	metrics_one(m, "remote_failures_total", "counter", "Requests to other nodes that failed.", pool.failures_total);
	metrics_one(m, "remote_connections", "gauge", "Open connections to other nodes.", pool.connections_open);
	metrics_one(m, "remote_connections_opened_total", "counter", "Connections opened to other nodes.",
		    pool.connections_opened_total);
	metrics_one(m, "remote_connections_reused_total", "counter", "Requests on a connection that was open already.",
		    pool.reused_total);
	metrics_one(m, "remote_requests_in_flight", "gauge", "Requests to other nodes under way.", pool.in_flight);
	metrics_one(m, "remote_requests_queued", "gauge", "Requests to other nodes that wait for a connection.",
		    pool.queued);
	metrics_one(m, "remote_requests_waited_total", "counter", "Requests that waited for a free connection.",
		    pool.waited_total);
	metrics_one(m, "remote_requests_resent_total", "counter", "Reads sent again, for a kept connection was closed.",
		    pool.retries_total);
	metrics_one(m, "remote_requests_refused_total", "counter", "Requests not sent: the node failed just before.",
		    pool.backoff_refusals_total);
	put_addresses(m, sources->pool);
}

/* Kinds of requests that this node has had: empty histograms would be most of the text. */
static bool is_empty(const struct histogram *h)
{
	size_t i;

	for (i = 0; i <= HISTOGRAM_BOUNDS_MAX; i++)
		if (atomic_load_explicit(&h->counts[i], memory_order_relaxed) > 0)
			return false;
	return true;
}

static void put_timings(struct metrics_text *m, const struct status_sources *sources)
{
	struct timings *sum = calloc(1, sizeof(*sum));
	char labels[64];
	unsigned i;

	if (sum == NULL) {
		m->out->failed = true;
		return;
	}
	timings_collect(sum, sources->timings);
	frontend_collect_timings(sources->frontend, sum);
	metrics_family(m, "request_stage_seconds", "histogram",
		       "How long requests took, by kind and stage; stage whole is all of it.");
	for (i = 0; i < TIMING_COUNT; i++) {
		if (is_empty(&sum->stages[i]))
			continue;
		snprintf(labels, sizeof(labels), "kind=\"%s\",stage=\"%s\"", timing_kind((enum timing)i),
			 timing_stage((enum timing)i));
		metrics_histogram(m, labels, &sum->stages[i], &histogram_us, true);
	}
	metrics_family(m, "write_batch_size_requests", "histogram", "Write requests of one group commit.");
	metrics_histogram(m, "", &sum->batch_requests, &histogram_count, false);
	free(sum);
}

static void put_archive(struct metrics_text *m, const struct status_sources *sources)
{
	struct archiver_status archive;

	archiver_get_status(sources->archiver, &archive);
	metrics_one(m, "log_max_bytes", "gauge", "Size of the log's files at which whoever holds them is cut off.",
		    sources->config->log.max_bytes);
	metrics_one(m, "archived_lsn", "gauge", "Last log record that was archived.", archive.archived_lsn);
	metrics_one_ms(m, "archive_lag_seconds", "How long the oldest commit has waited to be archived.",
		       archive.lag_ms);
	metrics_one(m, "archive_failing", "gauge", "1 when the archive cannot be written.", archive.error[0] != '\0');
}

/* The replicas as their master sees them. */
static void put_replicas(struct metrics_text *m, const struct status_sources *sources, uint64_t tip_lsn)
{
	struct replication_peer peers[CONFIG_NODES_MAX];
	size_t count = roles_get_peers(sources->roles, peers, CONFIG_NODES_MAX);
	char label[64];
	size_t i;

	if (count == 0)
		return;
	metrics_family(m, "replica_lag_records", "gauge", "Log records that a replica does not have durably yet.");
	for (i = 0; i < count; i++) {
		snprintf(label, sizeof(label), "replica=\"%.32s\"", peers[i].id);
		metrics_sample(m, label,
			       tip_lsn > peers[i].walsender.acked_lsn ? tip_lsn - peers[i].walsender.acked_lsn : 0);
	}
	metrics_family(m, "replica_streaming", "gauge", "1 when the replica is being streamed to.");
	for (i = 0; i < count; i++) {
		snprintf(label, sizeof(label), "replica=\"%.32s\"", peers[i].id);
		metrics_sample(m, label, peers[i].walsender.state == WALSENDER_STREAMING);
	}
	metrics_family(m, "replica_cut_offs_total", "counter", "Times the log was not kept for a replica any more.");
	for (i = 0; i < count; i++) {
		snprintf(label, sizeof(label), "replica=\"%.32s\"", peers[i].id);
		metrics_sample(m, label, peers[i].cut_offs);
	}
}

static uint64_t behind(uint64_t all, uint64_t have)
{
	return all > have ? all - have : 0;
}

static void put_log(struct metrics_text *m, const struct wire_node_status *node, const struct store_status *store)
{
	metrics_one(m, "durable_lsn", "gauge", "Last log record synced here.", node->durable_lsn);
	metrics_one(m, "applied_lsn", "gauge", "Last log record applied.", node->applied_lsn);
	metrics_one(m, "committed_lsn", "gauge", "Last log record known to be committed.", node->committed_lsn);
	metrics_one(m, "checkpoint_lsn", "gauge", "Last log record in the base file.", store->checkpoint_lsn);
	metrics_one(m, "checkpoint_lag_records", "gauge", "Log records that are not in the base file yet.",
		    behind(store->tip.lsn, store->checkpoint_lsn));
	metrics_one_ms(m, "replication_lag_seconds", "How long ago this node last had all its master had.",
		       node->lag_ms);
	metrics_one(m, "replication_lag_records", "gauge", "Committed log records that are not applied here yet.",
		    behind(node->committed_lsn, node->applied_lsn));
	metrics_one(m, "database_size_bytes", "gauge", "Size of the database.",
		    (uint64_t)store->db_size_pages * WAL_PAGE_SIZE);
	metrics_one(m, "wal_size_bytes", "gauge", "Size of the log's files.", store->wal_bytes);
	metrics_one(m, "wal_records", "gauge", "Records in the log's files.",
		    store->tip.lsn < store->first_lsn ? 0 : store->tip.lsn - store->first_lsn + 1);
}

/* As top shows it: pages of 4 KiB on every machine we run on, asked all the same. */
static void put_process(struct metrics_text *m)
{
	FILE *f = fopen("/proc/self/statm", "re");
	uint64_t pages = 0;

	if (f == NULL)
		return;
	if (fscanf(f, "%*u %" SCNu64, &pages) == 1)
		metrics_one(m, "resident_memory_bytes", "gauge", "Memory of the process.",
			    pages * (uint64_t)sysconf(_SC_PAGESIZE));
	fclose(f);
}

/* Whole lines of the supervisor's file; it is replaced as a whole, and may be absent. */
static void put_supervisor(struct buf *out)
{
	int fd = open(SUPERVISOR_FILE, O_RDONLY | O_CLOEXEC);
	ssize_t n = 0;

	if (fd < 0)
		return;
	if (buf_reserve(out, SUPERVISOR_BYTES_MAX))
		n = read(fd, out->data + out->len, SUPERVISOR_BYTES_MAX);
	close(fd);
	if (n > 0 && out->data[out->len + (size_t)n - 1] == '\n')
		out->len += (size_t)n;
}

void metrics_put(struct buf *out, const struct status_sources *sources)
{
	struct wire_node_status node;
	struct store_status store;
	char labels[64];
	struct metrics_text m = {.out = out, .labels = labels};

	roles_get_status(sources->roles, &node);
	store_get_status(sources->store, &store);
	snprintf(labels, sizeof(labels), "node=\"%.20s\",role=\"%s\"", sources->node_id,
		 node.role == WIRE_ROLE_MASTER ? "master" : "replica");
	metrics_family(&m, "build_info", "gauge", "1; the version is the label.");
	metrics_sample(&m, "version=\"" PACKAGE_VERSION "\"", 1);
	metrics_one(&m, "is_master", "gauge", "1 when this node is the master.", node.role == WIRE_ROLE_MASTER);
	metrics_one(&m, "ready", "gauge", "1 when this node can serve its role.", node.ready);
	metrics_one(&m, "term", "gauge", "The term promised.", node.promised_term);
	put_log(&m, &node, &store);
	put_replicas(&m, sources, node.durable_lsn);
	put_archive(&m, sources);
	if (node.disk_free_bytes != UINT64_MAX)
		metrics_one(&m, "disk_free_bytes", "gauge", "Bytes free on the disk.", node.disk_free_bytes);
	metrics_one(&m, "low_space", "gauge", "1 below the low-space mark: no writes are taken.", node.low_space);
	metrics_one_ms(&m, "disk_durable_age_seconds", "How long ago the disk last made something durable.",
		       node.disk_age_ms);
	metrics_one_ms(&m, "uptime_seconds", "Age of the process.", clock_mono_ms() - sources->started_ms);
	put_process(&m);
	put_http(&m, sources->server);
	put_tokens(&m, sources->tokens);
	put_queries(&m, sources);
	put_remote(&m, sources);
	put_timings(&m, sources);
	put_supervisor(out);
}

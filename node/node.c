/*
 * node.c - see node.h.
 *
 * Threads: main (signals, role changes, handing out the endpoint's socket), HTTP workers, slow-query threads, admin
 * (asks the supervisor for clients), the pool of connections to other nodes, the checkpointer, NNG's threads (control,
 * replication, acks), and on a master the writer, sync and ticker threads.
 * The main thread sleeps in poll(); others wake it through an eventfd.
 *
 * A snapshot from the master replaces the store while nothing has it open: the node stops in order, exchanges the two
 * directories, and ends with code 0; the supervisor starts it again at once.
 */
#include "node/node.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/audit.h"
#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/config_show.h"
#include "common/base/exit_code.h"
#include "common/base/fdpass.h"
#include "common/base/log.h"
#include "common/http/server.h"
#include "common/remote/http_client.h"
#include "common/remote/remote_access.h"
#include "common/remote/remote_pool.h"
#include "common/store/store.h"
#include "common/wire/link.h"
#include "node/admin.h"
#include "node/archiver.h"
#include "node/backup.h"
#include "node/checkpointer.h"
#include "node/control.h"
#include "node/disk_watch.h"
#include "node/frontend.h"
#include "node/last_words.h"
#include "node/metrics.h"
#include "node/no_master.h"
#include "node/readable.h"
#include "node/roles.h"
#include "node/slow_pool.h"
#include "node/standing.h"
#include "node/status.h"
#include "node/tokens.h"

#define LISTEN_FD_FIRST    3 /* sd_listen_fds(3) */
#define STOP_GRACE_MS      3000
#define DESCRIPTORS_NEEDED 96u /* beside the log's files: links, epoll, sockets, scratch files */
#define CONNECTIONS_LEAST  16u
#define REMOTES_EXPECTED   4u  /* addresses that are asked at a time: the master, and other clusters */
#define FAILED_GRACE_MS    100 /* the same when the log cannot be written: a successor is waited for */
#define REPLACE_GRACE_MS   200 /* the same before a snapshot is put in place: long reads are not waited for */

struct node {
	struct node_options options;
	struct cluster_config config;
	struct members_entry entry; /* our ports */
	unsigned members;           /* of the cluster, when we were started */
	struct tokens *tokens;
	char dir[64];
	uint64_t started_ms;
	int wake_fd, signal_fd, fdpass_fd;
	int endpoint_fd; /* inherited; -1: none */
	int http_fd;     /* our own port */
	int endpoint_listener;
	struct disk_watch *disk;
	struct store *store;
	enum standing standing;           /* of several nodes' cluster only: alone there is nobody to rebuild from */
	struct snapshot_target *snapshot; /* received whole: the store's successor; NULL: none */
	struct lost_writes *lost_writes;
	struct remote_access *access;
	struct remote_pool *pool;
	struct remote_tables *remote_tables;
	struct roles *roles;
	struct slow_pool *slow_pool;
	struct slow_pool *federated_pool; /* for reads that name tables of other nodes */
	struct admin *admin;
	struct frontend *frontend;
	struct backups *backups;
	struct tls_server *tls; /* NULL: plain HTTP */
	struct http_server *server;
	struct checkpointer *checkpointer;
	struct archiver *archiver;
	struct timings timings; /* of all threads but the HTTP workers, who have their own */
	struct slow_log slow_log;
	struct link_pull *replication, *acks;
	struct control *control;
};

/* ---- HTTP */

static enum db_err worker_start(void *arg, struct http_worker *worker, void **data, struct errmsg *em)
{
	struct node *n = arg;
	struct front_worker *w = NULL;
	enum db_err err = front_worker_create(&w, n->frontend, worker, em);

	*data = w;
	return err;
}

static void worker_stop(void *arg, struct http_worker *worker, void *data)
{
	(void)arg;
	(void)worker;
	front_worker_free(data);
}

static struct status_sources sources_of(struct node *n)
{
	struct status_sources sources = {n->options.id, n->store,    n->roles, n->frontend, n->server,   n->started_ms,
					 &n->config,    n->archiver, n->pool,  n->tokens,   &n->timings, &n->slow_log};

	return sources;
}

static void on_query(void *arg, struct http_request *req)
{
	(void)arg;
	frontend_on_query(req);
}

static void on_writes(void *arg, struct http_request *req)
{
	(void)arg;
	frontend_on_writes(req);
}

static void on_health(void *arg, struct http_request *req)
{
	struct buf body = {0};

	(void)arg;
	buf_puts(&body, "{\"status\":\"ok\"}\n");
	http_reply(req, 200, "application/json", &body);
}

static void on_ready(void *arg, struct http_request *req)
{
	struct node *n = arg;
	struct buf body = {0};
	struct roles_view view;
	char reason[1024];
	bool is_master;

	roles_get_view(n->roles, &view);
	is_master = view.role == WIRE_ROLE_MASTER;
	buf_printf(&body, "{\"status\":\"%s\"", view.ready ? "ok" : "error");
	if (!view.ready) {
		no_master_reason(reason, sizeof(reason),
				 is_master ? "this master does not have a quorum for its term yet"
					   : "this replica is not being streamed to by a master");
		buf_printf(&body, ",\"code\":\"%s\",\"message\":", query_code_name(QUERY_NO_MASTER));
		json_put_string(&body, reason, strlen(reason));
	}
	buf_printf(&body, ",\"role\":\"%s\",\"term\":%" PRIu64 "}\n", is_master ? "master" : "replica", view.term);
	http_reply(req, view.ready ? 200 : 503, "application/json", &body);
}

static void on_status(void *arg, struct http_request *req)
{
	struct status_sources sources = sources_of(arg);
	struct buf body = {0};

	status_put_json(&body, &sources);
	http_reply(req, 200, "application/json", &body);
}

/* A database that differs from the master's, or lacks what was committed, is nobody's backup. Nor is that of a replica which
 * has just started: it shows its last checkpoint, perhaps nothing, until it has heard of a master. */
static void on_backup(void *arg, struct http_request *req)
{
	struct node *n = arg;
	struct query_error error = {.statement = -1};
	struct wire_node_status status;
	struct roles_view view;

	roles_get_status(n->roles, &status);
	roles_get_view(n->roles, &view);
	if (status.state == WIRE_STATE_DIVERGED || status.state == WIRE_STATE_FAILED)
		query_error_set(&error, QUERY_NO_MASTER, "this node's database is not to be relied on: %.300s",
				status.reason);
	else if (view.role == WIRE_ROLE_REPLICA && !view.lag_known)
		query_error_set(&error, QUERY_NO_MASTER,
				"this replica has not had all that its master has since it started");
	audit_write(n->options.id, "backup", "", "a client", error.code == QUERY_OK ? "begun" : error.message);
	if (error.code == QUERY_OK)
		backups_on_request(n->backups, req);
	else
		http_reply_error(req, &error);
}

static void on_metrics(void *arg, struct http_request *req)
{
	struct status_sources sources = sources_of(arg);
	struct buf body = {0};

	metrics_put(&body, &sources);
	http_reply(req, 200, "text/plain; version=0.0.4", &body);
}

static enum db_err start_http(struct node *n, struct errmsg *em)
{
	static const struct http_route routes[] = {
	    {"/query", HTTP_POST, HTTP_TOKEN_OR_BODY, AUTH_NONE, on_query}, /* by statement */
	    {"/writes/*", HTTP_GET | HTTP_HEAD, HTTP_TOKEN, AUTH_READ, on_writes},
	    {"/health", HTTP_GET | HTTP_HEAD, HTTP_OPEN, AUTH_NONE, on_health},
	    {"/ready", HTTP_GET | HTTP_HEAD, HTTP_OPEN, AUTH_NONE, on_ready},
	    {"/status", HTTP_GET | HTTP_HEAD, HTTP_TOKEN, AUTH_READ, on_status},
	    {"/backup", HTTP_GET, HTTP_TOKEN, AUTH_ADMIN, on_backup},
	    {"/metrics", HTTP_GET | HTTP_HEAD, HTTP_TOKEN, AUTH_READ, on_metrics},
	    {NULL, 0, HTTP_OPEN, AUTH_NONE, NULL},
	};
	const struct http_options options = {.worker_count = n->config.http.workers,
					     .body_bytes_max = n->config.http.body_bytes_max,
					     .connections_max = n->config.http.connections_max,
					     .address_connections_max = n->config.http.address_connections_max,
					     .requests_bytes_max = n->config.http.requests_bytes_max,
					     .request_timeout_ms = n->config.http.request_timeout_ms,
					     .idle_timeout_ms = n->config.http.idle_timeout_ms,
					     .tls = n->tls,
					     .auth = tokens_auth(n->tokens),
					     .routes = routes,
					     .arg = n,
					     .worker_start = worker_start,
					     .worker_stop = worker_stop};
	int own_listener;
	enum db_err err;

	err = http_server_create(&n->server, &options, em);
	if (err != DB_OK)
		return err;
	if (n->endpoint_fd >= 0)
		err = http_server_listen(n->server, n->endpoint_fd, false, &n->endpoint_listener, em);
	if (err == DB_OK)
		err = http_server_listen(n->server, n->http_fd, true, &own_listener, em);
	return err;
}

/* ---- replication sockets */

static bool on_replication_bytes(void *arg, const void *bytes, size_t len)
{
	struct node *n = arg;
	struct wire_msg msg;
	struct errmsg em = {0};

	if (wire_decode(&msg, bytes, len, n->config.cluster_id, &em) != DB_OK) {
		log_warn("replication: dropped a message and its connection: %s", em.text);
		return false;
	}
	return roles_on_replication_message(n->roles, &msg);
}

static bool on_ack_bytes(void *arg, const void *bytes, size_t len)
{
	struct node *n = arg;
	struct wire_msg msg;
	struct errmsg em = {0};

	if (wire_decode(&msg, bytes, len, n->config.cluster_id, &em) != DB_OK) {
		log_warn("acks: dropped a message and its connection: %s", em.text);
		return false;
	}
	roles_on_ack_message(n->roles, &msg);
	return true;
}

static enum db_err listen_on(struct link_pull **out, struct node *n, enum config_port which, link_message_fn on_bytes,
			     struct errmsg *em)
{
	char address[CONFIG_ADDRESS_MAX], url[LINK_URL_MAX];
	enum db_err err;

	members_address(&n->entry, &n->config, which, address);
	err = link_tcp_url(url, address, em);
	if (err == DB_OK)
		err = link_pull_create(out, url, on_bytes, n, em);
	if (err == DB_BUSY)
		errmsg_set(em, DB_BUSY, "%s port %s is in use; it follows from http_port in %s",
			   which == CONFIG_ACKS ? "ack" : "replication", address, n->options.config_path);
	return err;
}

/* ---- sockets of our own */

static enum db_err bind_http(struct node *n, struct errmsg *em)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *address = NULL;
	char port[8], name[CONFIG_ADDRESS_MAX];
	const int one = 1;
	int rc;

	members_address(&n->entry, &n->config, CONFIG_HTTP, name);
	snprintf(port, sizeof(port), "%u", n->entry.http_port);
	rc = getaddrinfo(n->config.bind, port, &hints, &address);
	if (rc != 0)
		return errmsg_set(em, DB_INVALID, "bind address \"%s\": %s", n->config.bind, gai_strerror(rc));
	n->http_fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	rc = n->http_fd < 0 ? errno : 0;
	if (rc == 0 && setsockopt(n->http_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0)
		rc = errno;
	if (rc == 0 && bind(n->http_fd, address->ai_addr, address->ai_addrlen) != 0)
		rc = errno;
	if (rc == 0 && listen(n->http_fd, 1024) != 0)
		rc = errno;
	freeaddrinfo(address);
	if (rc == EADDRINUSE)
		return errmsg_set(em, DB_BUSY, "HTTP port %s is in use; it follows from http_port in %s", name,
				  n->options.config_path);
	if (rc != 0)
		return errmsg_errno(em, rc, "cannot listen on %s", name);
	return DB_OK;
}

/* The endpoint's socket, by the LISTEN_FDS convention; absent when started by hand. */
static int inherited_endpoint(void)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");

	if (pid == NULL || count == NULL || strtol(pid, NULL, 10) != (long)getpid() || strtol(count, NULL, 10) < 1)
		return -1;
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	fcntl(LISTEN_FD_FIRST, F_SETFD, FD_CLOEXEC);
	fcntl(LISTEN_FD_FIRST, F_SETFL, fcntl(LISTEN_FD_FIRST, F_GETFL) | O_NONBLOCK);
	return LISTEN_FD_FIRST;
}

static enum db_err serve_endpoint_fd(struct node *n, struct errmsg *em)
{
	char path[64];

	if (n->endpoint_fd < 0)
		return DB_OK;
	snprintf(path, sizeof(path), "run/%.32s.fd", n->options.id);
	return fdpass_listen(path, &n->fdpass_fd, em);
}

/* ---- starting */

static void on_visible(void *arg)
{
	struct node *n = arg;

	frontend_on_visible(n->frontend);
}

static void wake_main(void *arg)
{
	struct node *n = arg;
	const uint64_t one = 1;

	if (write(n->wake_fd, &one, sizeof(one)) < 0)
		return; /* the counter is full: it is awake */
}

static enum db_err open_events(struct node *n, struct errmsg *em)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL); /* before any thread: they all inherit it */
	n->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	n->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (n->signal_fd < 0 || n->wake_fd < 0)
		return errmsg_errno(em, errno, "cannot create event descriptors");
	return DB_OK;
}

static enum db_err try_open(struct node *n, struct errmsg *em)
{
	struct store_options options = {.dir = n->dir,
					.segment_size_bytes = n->config.store.segment_size_bytes,
					.checkpoint_bytes = n->config.store.checkpoint_bytes,
					.transaction_bytes_max = n->config.store.transaction_bytes_max,
					.low_space_bytes = n->config.store.low_space_bytes,
					.pulse = disk_watch_pulse(n->disk),
					.timings = &n->timings};
	enum db_err err;

	memcpy(options.cluster_id, n->config.cluster_id, sizeof(options.cluster_id));
	err = store_open(&n->store, &options, em);
	if (err == DB_OK)
		err = store_set_cluster_id(n->store, n->config.cluster_id, em);
	return err == DB_OK ? DB_OK : errmsg_context(em, "cannot open %s", n->dir);
}

static enum db_err set_standing(struct node *n, enum standing standing, struct errmsg *em)
{
	enum db_err err = n->standing == standing ? DB_OK : standing_write(n->dir, standing, em);

	if (err == DB_OK)
		n->standing = standing;
	return err;
}

/* A store that cannot be relied on makes way for an empty one, which the master will fill; until then this node does not
 * count. Each step is safe to be the last: what is WRONG is set aside at the next start. */
static enum db_err start_rebuilding(struct node *n, bool set_aside, struct errmsg *em)
{
	bool keep = n->standing != STANDING_REBUILD;
	enum db_err err = DB_OK;

	if (keep && set_aside)
		err = set_standing(n, STANDING_WRONG, em);
	if (err == DB_OK && set_aside)
		err = standing_set_aside(n->dir, keep, em);
	if (err == DB_OK)
		err = set_standing(n, STANDING_REBUILD, em);
	return err;
}

/* A process before this one ended because a page of its files could not be read, or opening them just failed: are they
 * really unreadable? True: the store is to be rebuilt. Without others to rebuild it from it is used as it is. */
static bool is_unreadable(struct node *n)
{
	struct errmsg em = {0};
	enum db_err err = readable_check(n->dir, &em);

	if (err == DB_IO) {
		log_error("%s", em.text);
		return true;
	}
	log_info("%s: %s", n->dir, err == DB_OK ? "every byte of it can be read" : em.text);
	return false;
}

static enum db_err look_at_mark(struct node *n, bool *unreadable, struct errmsg *em)
{
	char why[ERRMSG_TEXT_MAX];

	*unreadable = false;
	if (!readable_is_doubted(n->dir, why))
		return DB_OK;
	log_warn("reads %s whole, for the process before ended so: %s", n->dir, why);
	*unreadable = is_unreadable(n);
	return *unreadable ? DB_OK : readable_settle(n->dir, em);
}

/* An error of the disk when the store was opened: of one that cannot be read another can be made. */
static bool calls_for_rebuilding(struct node *n, enum db_err err)
{
	return err == DB_CORRUPT || (err == DB_IO && is_unreadable(n));
}

static enum db_err open_replicated_store(struct node *n, struct errmsg *em)
{
	enum standing_store there;
	bool unreadable = false;
	enum db_err err = standing_read(n->dir, &n->standing, em);

	if (err == DB_OK)
		err = look_at_mark(n, &unreadable, em);
	if (err != DB_OK)
		return err;
	there = standing_look(n->dir);
	if (unreadable) {
		log_error("%s cannot be read: it is rebuilt from the master's", n->dir);
		err = start_rebuilding(n, true, em);
		if (err == DB_OK)
			err = readable_settle(n->dir, em);
	} else if (there == STANDING_STORE_NONE && n->standing != STANDING_NEW) {
		log_error("%s is empty, though this node had a database: it is rebuilt from the master's", n->dir);
		err = start_rebuilding(n, false, em);
	} else if (there == STANDING_STORE_NO_META) {
		log_error("%s/store.meta is gone: the store is rebuilt from the master's", n->dir);
		err = start_rebuilding(n, true, em);
	} else if (n->standing == STANDING_WRONG) {
		log_error("%s differed from the master's database: it is rebuilt", n->dir);
		err = start_rebuilding(n, true, em);
	}
	if (err == DB_OK)
		err = try_open(n, em);
	if (calls_for_rebuilding(n, err)) {
		log_error("%s: the store is rebuilt from the master's", em->text);
		err = start_rebuilding(n, true, em);
		if (err == DB_OK)
			err = try_open(n, em);
	}
	if (err == DB_OK && n->standing == STANDING_NEW)
		err = set_standing(n, STANDING_WHOLE, em);
	return err;
}

/* There is nobody to rebuild it from: what can be read is used, and who reads the rest ends the process again. */
static enum db_err open_single_store(struct node *n, struct errmsg *em)
{
	bool unreadable;
	enum db_err err = look_at_mark(n, &unreadable, em);

	return err == DB_OK ? try_open(n, em) : err;
}

static enum db_err open_store(struct node *n, struct errmsg *em)
{
	const struct disk_watch_options disk = {.dir = n->dir,
						.probe_ms = n->config.heartbeat.probe_ms,
						.low_space_bytes = n->config.store.low_space_bytes};
	struct store_status status;
	enum db_err err;

	err = store_init_sqlite(em);
	if (err == DB_OK)
		err = disk_watch_create(&n->disk, &disk, em);
	if (err == DB_OK)
		err = n->members > 1 ? open_replicated_store(n, em) : open_single_store(n, em);
	if (err == DB_OK)
		err = disk_watch_start(n->disk, em);
	if (err != DB_OK)
		return err;
	store_get_status(n->store, &status);
	log_info("opened %s in %" PRIu64 " ms: lsn=%" PRIu64 " term=%" PRIu64 " checkpoint=%" PRIu64 "%s", n->dir,
		 clock_mono_ms() - n->started_ms, status.tip.lsn, status.tip.term, status.checkpoint_lsn,
		 n->standing == STANDING_REBUILD ? " rebuilding" : "");
	return DB_OK;
}

/* An NNG thread: what this node wrote as a deposed master is about to be cut. */
static void on_cut(void *arg, uint64_t keep_lsn)
{
	struct node *n = arg;

	lost_writes_note_tail(n->lost_writes, n->store, keep_lsn);
}

static struct retention_policy policy_of(const struct node *n)
{
	struct retention_policy policy = {.keep_bytes = n->config.log.keep_bytes,
					  .max_bytes = n->config.log.max_bytes,
					  .segment_size_bytes = n->config.store.segment_size_bytes};

	return policy;
}

static bool archived(void *arg, uint64_t *lsn)
{
	struct node *n = arg;
	struct archiver_status status;

	archiver_get_status(n->archiver, &status);
	*lsn = status.archived_lsn;
	return status.on;
}

static void cut_slow(void *arg, uint64_t keep_lsn)
{
	struct node *n = arg;

	roles_cut_slow(n->roles, keep_lsn);
	backups_cut(n->backups, keep_lsn);
}

static enum db_err start_checkpointer(struct node *n, struct errmsg *em)
{
	const struct checkpointer_options options = {
	    .store = n->store, .policy = policy_of(n), .archived = archived, .cut = cut_slow, .arg = n};

	return checkpointer_create(&n->checkpointer, &options, em);
}

/* The first master of a new cluster, whose members nobody has changed yet; or of one that is recovered, whose log knows
 * them if they were changed. */
static enum db_err begin_as_master(struct node *n, struct errmsg *em)
{
	struct wire_node_status status;
	struct members members;
	enum db_err err;

	members_init(&members, &n->config);
	err = roles_set_term(n->roles, n->options.term, em);
	if (err == DB_OK)
		err = roles_promote(n->roles, n->options.term, &members, em);
	if (err != DB_INVALID)
		return err;
	roles_get_status(n->roles, &status);
	return status.members.version > members.version ? roles_promote(n->roles, n->options.term, &status.members, em)
							: err;
}

static enum db_err start_parts(struct node *n, struct errmsg *em)
{
	const struct roles_options roles = {.store = n->store,
					    .disk = n->disk,
					    .config = &n->config,
					    .node_id = n->options.id,
					    .node = n->options.node,
					    .dir = n->dir,
					    .rebuilding = !standing_counts(n->standing),
					    .timings = &n->timings,
					    .on_change = wake_main,
					    .on_cut = on_cut,
					    .arg = n};
	struct remote_tables_env remote;
	struct slow_pool_options slow_pool = {.store = n->store,
					      .node_id = n->options.id,
					      .thread_count = n->config.query.slow_threads,
					      .queue_max = n->config.query.slow_queue_max,
					      .result_rows_max = n->config.query.result_rows_max,
					      .result_bytes_max = n->config.query.result_bytes_max,
					      .timings = &n->timings,
					      .slow_log = &n->slow_log};
	const struct control_options control = {NULL, &n->config, n->options.id, &n->entry, n->tokens};
	const struct backups_options backups = {
	    .store = n->store, .node_id = n->options.id, .cluster_id = n->config.cluster_id};
	struct archiver_options archiver = {.store = n->store, .config = &n->config, .node_id = n->options.id};
	struct remote_pool_options pool = {.max_connections = n->config.remote.max_connections};
	struct control_options with_roles = control;
	struct frontend_options frontend = {.store = n->store,
					    .config = &n->config,
					    .node_id = n->options.id,
					    .node = n->options.node,
					    .slow_log = &n->slow_log};
	enum db_err err;

	err = lost_writes_create(&n->lost_writes, n->dir, em);
	if (err == DB_OK)
		err = roles_create(&n->roles, &roles, em);
	if (err == DB_OK)
		err = remote_access_create(&n->access, &n->config, n->options.token_path, em);
	pool.access = n->access;
	if (err == DB_OK)
		err = remote_pool_create(&n->pool, &pool, em);
	if (err == DB_OK)
		err = remote_tables_create(&n->remote_tables, n->dir, em);
	remote.access = n->access;
	remote.pool = n->pool;
	remote.tables = n->remote_tables;
	slow_pool.remote = &remote;
	if (err == DB_OK)
		err = slow_pool_create(&n->slow_pool, &slow_pool, em);
	if (err ==
	    DB_OK) /* threads of their own: they wait for other nodes, whose queries may wait for reads of ours */
		err = slow_pool_create(&n->federated_pool, &slow_pool, em);
	if (err == DB_OK)
		err = backups_create(&n->backups, &backups, em);
	if (err == DB_OK)
		err = admin_create(&n->admin, "run/supervisor.ctl", n->options.id, em);
	frontend.roles = n->roles;
	archiver.roles = n->roles;
	frontend.admin = n->admin;
	frontend.slow_pool = n->slow_pool;
	frontend.federated_pool = n->federated_pool;
	frontend.lost_writes = n->lost_writes;
	frontend.access = n->access;
	frontend.pool = n->pool;
	with_roles.roles = n->roles;
	if (err == DB_OK)
		err = frontend_create(&n->frontend, &frontend, em);
	if (err == DB_OK)
		store_on_visible(n->store, on_visible, n);
	if (err == DB_OK)
		err = archiver_create(&n->archiver, &archiver, em);
	if (err == DB_OK)
		err = start_http(n, em); /* after all that its routes ask */
	if (err == DB_OK)
		err = start_checkpointer(n, em);
	if (err == DB_OK)
		err = listen_on(&n->acks, n, CONFIG_ACKS, on_ack_bytes, em);
	if (err == DB_OK)
		err = listen_on(&n->replication, n, CONFIG_REPLICATION, on_replication_bytes, em);
	if (err == DB_OK && n->options.term > 0)
		err = begin_as_master(n, em);
	if (err == DB_OK)
		err = serve_endpoint_fd(n, em);
	if (err == DB_OK)
		err = control_create(&n->control, &with_roles, em); /* last: whoever gets an answer finds all of it */
	if (err == DB_OK)
		tokens_look(n->tokens); /* who changed them before had nobody here to tell */
	return err;
}

/* The supervisor says where we listen and how many we are; by hand the configuration does. */
static enum db_err find_place(struct node *n, struct errmsg *em)
{
	unsigned count = config_node_count(&n->config);
	const unsigned *ports = n->options.ports;

	if (ports[0] == 0 && n->options.node > count)
		return errmsg_set(em, DB_INVALID,
				  "%s: there are %u nodes (replicas + 1), no %s; one that was added "
				  "needs --ports",
				  n->options.config_path, count, n->options.id);
	if (n->options.node > MEMBERS_MAX)
		return errmsg_set(em, DB_INVALID, "there can be no %s: nodes are numbered up to %u", n->options.id,
				  MEMBERS_MAX);
	n->members = n->options.members > 0 ? n->options.members : count;
	members_standard_ports(&n->entry, &n->config, n->options.node);
	if (ports[0] != 0)
		n->entry =
		    (struct members_entry){MEMBERS_VOTER, (uint16_t)ports[0], (uint16_t)ports[1], (uint16_t)ports[2]};
	return DB_OK;
}

static enum db_err start_tls(struct node *n, struct errmsg *em)
{
	char text[TLS_TEXT_MAX];
	enum db_err err = tls_server_create(&n->tls, &n->config, em);

	if (err != DB_OK)
		return err;
	tls_server_describe(n->tls, text);
	log_info("https: %s; client certificates: %s", text,
		 config_client_certificates_name(n->config.tls.client_certificates));
	return DB_OK;
}

static enum db_err load_configuration(struct node *n, struct errmsg *em)
{
	enum db_err err;

	if (chdir(n->options.data_dir) != 0)
		return errmsg_errno(em, errno, "data directory \"%s\"", n->options.data_dir);
	config_init(&n->config);
	err = config_load(&n->config, n->options.config_path, em);
	if (err == DB_OK)
		log_set(n->config.logging.level, n->config.logging.format);
	slow_log_set(&n->slow_log, n->config.logging.slow_query_ms);
	if (err == DB_OK)
		err = config_check_exposure(&n->config, n->options.config_path, em);
	if (err == DB_OK)
		err = find_place(n, em);
	if (err == DB_OK)
		err = tokens_create(&n->tokens, n->config.cluster_id, n->options.token_path, em);
	if (err == DB_OK && config_has_tls(&n->config))
		err = start_tls(n, em);
	return err;
}

/* Clients may use the descriptors that the log, the links and the rest do not need: else a crowd of them would stop the
 * log at its next file. */
static void fit_descriptors(struct node *n)
{
	const struct cluster_config *c = &n->config;
	uint64_t needed = DESCRIPTORS_NEEDED + 4 * c->query.slow_threads +
			  REMOTES_EXPECTED * c->remote.max_connections +
			  (c->log.max_bytes + c->store.checkpoint_bytes) / c->store.segment_size_bytes;
	uint64_t left = CONNECTIONS_LEAST;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		log_warn("the limit of open files cannot be raised: %s", strerror(errno));
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed + c->http.connections_max)
		return;
	if (limit.rlim_cur > needed + left)
		left = limit.rlim_cur - needed;
	log_warn("at most %" PRIu64
		 " client connections instead of http.connections_max %u: the limit of open files is %" PRIu64
		 ", and %" PRIu64 " are for the log and the like",
		 left, c->http.connections_max, (uint64_t)limit.rlim_cur, needed);
	n->config.http.connections_max = (unsigned)left;
	if (c->http.address_connections_max > left / 2)
		n->config.http.address_connections_max = (unsigned)(left / 2);
}

static enum db_err start(struct node *n, struct errmsg *em)
{
	enum db_err err;

	n->endpoint_fd = inherited_endpoint();
	fit_descriptors(n);
	if (mkdir("run", 0700) != 0 && errno != EEXIST)
		return errmsg_errno(em, errno, "cannot create \"run\"");
	err = open_events(n, em);
	if (err == DB_OK)
		err = http_client_init_library(em);
	if (err == DB_OK)
		err = bind_http(n, em);
	if (err == DB_OK)
		err = open_store(n, em);
	if (err == DB_OK)
		err = start_parts(n, em);
	return err;
}

/* ---- running */

/* Writes down what the replica has found out about its store. A disk that is full just now does not end the node: until it
 * is written the node is told again, and stands as badly as before. */
static void follow_news(struct node *n)
{
	struct roles_news news;
	struct errmsg em = {0};
	enum db_err err = DB_OK;

	roles_take_news(n->roles, &news);
	n->snapshot = news.snapshot;
	if (news.diverged) {
		err = set_standing(n, STANDING_WRONG, &em);
	} else if (n->snapshot == NULL && news.rebuilt) {
		err = set_standing(n, STANDING_WHOLE, &em);
		if (err == DB_OK) {
			roles_set_rebuilt(n->roles);
			log_info("rebuilt: this node holds all that its master had, and counts again");
		}
	}
	if (err != DB_OK)
		log_error("%s", em.text);
}

/* Applies what the present role means for the endpoint, and tells the HTTP workers. */
static enum db_err follow_role(struct node *n, struct errmsg *em)
{
	struct roles_view view;
	enum db_err err;
	bool is_master;

	err = roles_settle(n->roles, em);
	if (err != DB_OK)
		return err;
	follow_news(n);
	roles_get_view(n->roles, &view);
	is_master = view.role == WIRE_ROLE_MASTER;
	prctl(PR_SET_NAME, is_master ? "grizzly-master" : "grizzly-replica"); /* what ps and top show */
	if (n->endpoint_fd >= 0)
		http_server_set_accepting(n->server, n->endpoint_listener, is_master && view.ready);
	frontend_on_role_change(n->frontend);
	return DB_OK;
}

/* Connections keep the certificate that they began with; new ones get the new one. */
static void reload_tls(struct node *n)
{
	char text[TLS_TEXT_MAX];
	struct errmsg em = {0};

	if (n->tls == NULL)
		return;
	if (tls_server_reload(n->tls, &n->config, &em) != DB_OK)
		log_error("the certificate stays what it is: %s", em.text);
	tls_server_describe(n->tls, text);
	log_info("https: %s", text);
}

/* Settings that cannot be taken up are the supervisor's to tell: it has read the same file. */
static void reload(struct node *n)
{
	struct cluster_config running = n->config;
	struct buf waiting = {0};
	struct errmsg em = {0};
	enum db_err err = config_reload(&running, n->options.config_path, &waiting, &em);

	if (err == DB_OK)
		log_info("reloaded \"logging\" (level %s)", log_level_name(running.logging.level));
	else
		log_error("nothing is reloaded: %s", em.text);
	if (err == DB_OK)
		slow_log_set(&n->slow_log, running.logging.slow_query_ms);
	reload_tls(n);
	buf_fini(&waiting);
}

/* False: it is time to end. */
static bool take_signals(struct node *n)
{
	struct signalfd_siginfo info;

	while (read(n->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo != SIGHUP)
			return false;
		reload(n);
	}
	return true;
}

static enum db_err run_loop(struct node *n, struct errmsg *em)
{
	struct pollfd fds[] = {{n->wake_fd, POLLIN, 0}, {n->signal_fd, POLLIN, 0}, {n->fdpass_fd, POLLIN, 0}};
	struct errmsg ignored = {0};
	uint64_t count;
	enum db_err err = follow_role(n, em);

	while (err == DB_OK && n->snapshot == NULL) {
		if (poll(fds, 3, TOKENS_LOOK_MS) < 0) {
			if (errno == EINTR)
				continue;
			return errmsg_errno(em, errno, "poll");
		}
		tokens_look(n->tokens);
		if (fds[1].revents != 0 && !take_signals(n)) {
			log_info("stopping");
			return DB_OK;
		}
		if (fds[2].revents != 0 && fdpass_accept_and_send(n->fdpass_fd, n->endpoint_fd, &ignored) != DB_OK)
			log_debug("endpoint socket not handed out: %s", ignored.text);
		if (fds[0].revents != 0 && read(n->wake_fd, &count, sizeof(count)) > 0)
			err = follow_role(n, em);
	}
	return err;
}

/* ---- ending: what feeds others goes first */

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* failed: the log cannot be written. What waits for it is answered first, for it would wait in vain. */
static void stop(struct node *n, bool failed, uint64_t grace_ms)
{
	control_free(n->control);
	frontend_stop(n->frontend);
	if (failed)
		roles_stop(n->roles);
	if (n->server != NULL)
		http_server_stop(n->server, grace_ms); /* writes under way are still committed and answered */
	link_pull_free(n->replication);
	link_pull_free(n->acks);
	archiver_stop(n->archiver);
	slow_pool_stop_fills(n->federated_pool);
	roles_stop(n->roles);
	admin_free(n->admin);
	http_server_free(n->server); /* its workers use the pool to the last; clients are gone: long queries give up */
	backups_free(n->backups);
	slow_pool_free(n->federated_pool);
	slow_pool_free(n->slow_pool);
	frontend_free(n->frontend);
	remote_tables_free(n->remote_tables);
	remote_pool_free(n->pool);
	remote_access_free(n->access);
	roles_free(n->roles);
	lost_writes_free(n->lost_writes);
	checkpointer_free(n->checkpointer);
	archiver_free(n->archiver);
	store_close(n->store);
	disk_watch_free(n->disk);
	close_fd(n->fdpass_fd);
	close_fd(n->http_fd);
	close_fd(n->wake_fd);
	close_fd(n->signal_fd);
	tls_server_free(n->tls);
	tokens_free(n->tokens);
}

/* Puts the snapshot in the place of the closed store. The promise goes with it. What was acknowledged before and is not in
 * the snapshot comes back from the master; until then this node does not count. last_lsn: where its log ended. */
static enum db_err replace_store(struct node *n, uint64_t last_lsn, struct errmsg *em)
{
	enum standing after = standing_after_snapshot(n->standing, last_lsn, snapshot_target_lsn(n->snapshot));
	enum db_err err = DB_OK;

	if (n->standing != STANDING_WRONG) /* a wrong store is called so until it is gone */
		err = set_standing(n, after, em);
	if (err == DB_OK)
		err = snapshot_target_keep(n->snapshot, "term", em);
	if (err == DB_OK)
		err = snapshot_target_finish(n->snapshot, em);
	if (err == DB_OK)
		err = set_standing(n, after, em);
	if (err == DB_OK)
		log_info("ends, to be started again with the snapshot");
	return err;
}

int node_run(const struct node_options *options)
{
	struct node n = {.options = *options,
			 .wake_fd = -1,
			 .signal_fd = -1,
			 .fdpass_fd = -1,
			 .endpoint_fd = -1,
			 .http_fd = -1,
			 .started_ms = clock_mono_ms()};
	struct errmsg em = {0};
	uint64_t last_lsn = 0;
	enum db_err err;
	int exit_code = EXIT_CODE_DONE;
	bool failed = false, stuck = false;

	log_init(options->id, LOG_LEVEL_INFO);
	snprintf(n.dir, sizeof(n.dir), "%s", options->id);
	err = load_configuration(&n, &em);
	if (err != DB_OK)
		exit_code = EXIT_CODE_CONFIG;
	if (err == DB_OK) {
		last_words_init(options->id);
		err = start(&n, &em);
		if (err == DB_OK) {
			err = run_loop(&n, &em);
			failed = err == DB_IO;
			stuck = err == DB_TIMEOUT;
		}
		if (err != DB_OK)
			exit_code = failed ? EXIT_CODE_LOG : err == DB_INVALID ? EXIT_CODE_CONFIG : EXIT_CODE_FAILED;
	}
	if (err != DB_OK) {
		log_error("%s", em.text);
		last_words_say(em.text);
	}
	if (stuck)
		_exit(exit_code); /* stop() would hang too */
	if (n.snapshot != NULL)
		last_lsn = store_tip_lsn(n.store);
	stop(&n, failed, failed ? FAILED_GRACE_MS : n.snapshot != NULL ? REPLACE_GRACE_MS : STOP_GRACE_MS);
	if (err == DB_OK && n.snapshot != NULL && replace_store(&n, last_lsn, &em) != DB_OK) {
		log_error("the snapshot cannot be put in place: %s", em.text);
		last_words_say(em.text);
		exit_code = EXIT_CODE_FAILED;
	}
	snapshot_target_free(n.snapshot);
	if (err == DB_OK)
		log_info("stopped");
	return exit_code;
}

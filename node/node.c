/*
 * node.c - see node.h.
 *
 * Threads: main (signals, role changes, handing out the endpoint's socket), HTTP workers, slow-query threads, admin
 * (asks the supervisor for clients), the pool of connections to other nodes, the checkpointer, the receivers of
 * replication and acks, a sender for each way out, NNG's threads (control), and on a master the writer, sync and ticker threads.
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
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/auth/tls_members.h"
#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/config_show.h"
#include "common/base/exit_code.h"
#include "common/base/fdpass.h"
#include "common/base/log.h"
#include "common/base/wake.h"
#include "common/http/server.h"
#include "common/remote/http_client.h"
#include "common/remote/remote_access.h"
#include "common/remote/remote_pool.h"
#include "common/store/store.h"
#include "common/wire/link.h"
#include "common/wire/mesh.h"
#include "common/wire/tunnel.h"
#include "node/admin.h"
#include "node/archiver.h"
#include "node/backup.h"
#include "node/checkpointer.h"
#include "node/control.h"
#include "node/disk_watch.h"
#include "node/end_watch.h"
#include "node/endpoints.h"
#include "node/frontend.h"
#include "node/last_words.h"
#include "node/own_store.h"
#include "node/roles.h"
#include "node/slow_pool.h"
#include "node/tokens.h"

#define LISTEN_FD_FIRST    3 /* sd_listen_fds(3) */
#define STOP_GRACE_MS      3000
#define DESCRIPTORS_NEEDED 96u /* beside the log's files: links, epoll, sockets, scratch files */
/* Strangers at two ports. Of each member a tunnel in and one out, with two ends and the link's one, and a gate. */
#define TUNNELS_NEEDED     (2 * TUNNEL_HANDSHAKES_MAX + 7 * MEMBERS_MAX)
#define CONNECTIONS_LEAST  16u
#define REMOTES_EXPECTED   4u     /* addresses that are asked at a time: the master, and other clusters */
#define FAILED_GRACE_MS    100    /* the same when the log cannot be written: a successor is waited for */
#define REPLACE_GRACE_MS   200    /* the same before a snapshot is put in place: long reads are not waited for */
#define STOP_LIMIT_MS      30000u /* the whole end, beyond its grace */
#define UNSTARTED_LIMIT_MS 5000u  /* the same of a node that did not come to serve */

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
	struct own_store own;
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
	struct endpoints endpoints;
	struct http_server *server;
	struct checkpointer *checkpointer;
	struct archiver *archiver;
	struct timings timings; /* of all threads but the HTTP workers, who have their own */
	struct slow_log slow_log;
	struct mesh *mesh;
	struct link_pull *replication, *acks;
	struct control *control;
};

/* ---- HTTP */

/* All that its routes ask is there. */
static enum db_err start_http(struct node *n, struct errmsg *em)
{
	int own_listener;
	enum db_err err;

	n->endpoints = (struct endpoints){{n->options.id, n->own.store, n->roles, n->frontend, NULL, n->started_ms,
					   &n->config, n->archiver, n->pool, n->tokens, &n->timings, &n->slow_log},
					  n->backups};
	err = endpoints_create_server(&n->endpoints, n->tls, em);
	n->server = n->endpoints.sources.server;
	if (err == DB_OK && n->endpoint_fd >= 0)
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
	char address[CONFIG_ADDRESS_MAX];
	struct errmsg why = {0};
	enum db_err err;

	members_address(&n->entry, &n->config, which, address);
	err = mesh_listen(out, n->mesh, which, address, on_bytes, n, &why);
	if (err == DB_BUSY)
		errmsg_set(em, DB_BUSY, "%s port %s is in use; it follows from http_port in %s (%.200s)",
			   which == CONFIG_ACKS ? "ack" : "replication", address, n->options.config_path, why.text);
	else
		*em = why;
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

	wake_up(n->wake_fd);
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
	n->wake_fd = wake_create();
	if (n->signal_fd < 0 || n->wake_fd < 0)
		return errmsg_errno(em, errno, "cannot create event descriptors");
	return DB_OK;
}

static enum db_err open_store(struct node *n, struct errmsg *em)
{
	const struct disk_watch_options disk = {.dir = n->dir,
						.probe_ms = n->config.heartbeat.probe_ms,
						.low_space_bytes = n->config.store.low_space_bytes};
	struct own_store_options own = {
	    .dir = n->dir, .config = &n->config, .timings = &n->timings, .alone = n->members <= 1};
	struct store_status status;
	enum db_err err;

	err = store_init_sqlite(em);
	if (err == DB_OK)
		err = disk_watch_create(&n->disk, &disk, em);
	own.disk = n->disk;
	if (err == DB_OK)
		err = own_store_open(&n->own, &own, em);
	if (err == DB_OK)
		err = disk_watch_start(n->disk, em);
	if (err != DB_OK)
		return err;
	store_get_status(n->own.store, &status);
	log_info("opened %s in %" PRIu64 " ms: lsn=%" PRIu64 " term=%" PRIu64 " checkpoint=%" PRIu64 "%s", n->dir,
		 clock_mono_ms() - n->started_ms, status.tip.lsn, status.tip.term, status.checkpoint_lsn,
		 n->own.standing == STANDING_REBUILD ? " rebuilding" : "");
	return DB_OK;
}

/* The receiver's thread: what this node wrote as a deposed master is about to be cut. */
static void on_cut(void *arg, uint64_t keep_lsn)
{
	struct node *n = arg;

	lost_writes_note_tail(n->lost_writes, n->own.store, keep_lsn);
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
	    .store = n->own.store, .policy = policy_of(n), .archived = archived, .cut = cut_slow, .arg = n};

	return checkpointer_create(&n->checkpointer, &options, em);
}

/* The first master of a new cluster, whose members nobody has changed yet; or of one that is recovered, whose log knows
 * them if they were changed. */
static enum db_err begin_as_master(struct node *n, struct errmsg *em)
{
	enum db_err err = roles_set_term(n->roles, n->options.term, em);

	return err == DB_OK ? roles_promote(n->roles, n->options.term, NULL, em) : err;
}

static enum db_err start_parts(struct node *n, struct errmsg *em)
{
	const struct roles_options roles = {.store = n->own.store,
					    .disk = n->disk,
					    .config = &n->config,
					    .mesh = n->mesh,
					    .node_id = n->options.id,
					    .node = n->options.node,
					    .dir = n->dir,
					    .rebuilding = !standing_counts(n->own.standing),
					    .timings = &n->timings,
					    .on_change = wake_main,
					    .on_cut = on_cut,
					    .arg = n};
	struct remote_tables_env remote;
	struct slow_pool_options slow_pool = {.store = n->own.store,
					      .node_id = n->options.id,
					      .thread_count = n->config.query.slow_threads,
					      .queue_max = n->config.query.slow_queue_max,
					      .result_rows_max = n->config.query.result_rows_max,
					      .result_bytes_max = n->config.query.result_bytes_max,
					      .timings = &n->timings,
					      .slow_log = &n->slow_log};
	const struct control_options control = {NULL, &n->config, n->options.id, &n->entry, n->tokens};
	const struct backups_options backups = {
	    .store = n->own.store, .node_id = n->options.id, .cluster_id = n->config.cluster_id};
	struct archiver_options archiver = {.store = n->own.store, .config = &n->config, .node_id = n->options.id};
	struct remote_pool_options pool = {.max_connections = n->config.remote.max_connections};
	struct control_options with_roles = control;
	struct frontend_options frontend = {.store = n->own.store,
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
		store_on_visible(n->own.store, on_visible, n);
	if (err == DB_OK)
		err = archiver_create(&n->archiver, &archiver, em);
	if (err == DB_OK)
		err = start_http(n, em);
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
	if (err == DB_OK)
		err = mesh_create(&n->mesh, &n->config, n->options.node, em);
	return err;
}

/* Clients may use the descriptors that the log, the links and the rest do not need: else a crowd of them would stop the
 * log at its next file. */
static void fit_descriptors(struct node *n)
{
	const struct cluster_config *c = &n->config;
	uint64_t needed = DESCRIPTORS_NEEDED + 4 * c->query.slow_threads +
			  REMOTES_EXPECTED * c->remote.max_connections +
			  (c->log.max_bytes + c->store.checkpoint_bytes) / c->store.segment_size_bytes +
			  (config_has_tls(c) ? TUNNELS_NEEDED : 0);
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
		err = own_store_set_standing(&n->own, STANDING_WRONG, &em);
	} else if (n->snapshot == NULL && news.rebuilt) {
		err = own_store_set_standing(&n->own, STANDING_WHOLE, &em);
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
	if (tls_check(&n->config, &em) != DB_OK || tls_server_reload(n->tls, &n->config, &em) != DB_OK)
		log_error("the certificate stays what it is: %s", em.text);
	else if (mesh_reload(n->mesh, &em) != DB_OK) /* the files have changed again since they were looked at */
		log_error("links keep the certificate they had: %s", em.text);
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
		if (fds[0].revents != 0 && wake_clear(n->wake_fd))
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
	if (n->mesh != NULL)
		mesh_unlisten(n->mesh);
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
	store_close(n->own.store);
	disk_watch_free(n->disk);
	close_fd(n->fdpass_fd);
	close_fd(n->http_fd);
	close_fd(n->wake_fd);
	close_fd(n->signal_fd);
	mesh_free(n->mesh);
	tls_server_free(n->tls);
	tokens_free(n->tokens);
}

/* The same, within a limit. A node that did not come to serve has nobody to wait for. */
static void stop_in_time(struct node *n, bool served, bool failed, int exit_code)
{
	unsigned grace_ms = failed ? FAILED_GRACE_MS : n->snapshot != NULL ? REPLACE_GRACE_MS : STOP_GRACE_MS;
	unsigned limit_ms = served ? grace_ms + STOP_LIMIT_MS : UNSTARTED_LIMIT_MS;
	struct end_watch *watch;
	struct errmsg em = {0};

	if (exit_code == EXIT_CODE_DONE)
		exit_code = EXIT_CODE_FAILED; /* of an end that hangs */
	if (end_watch_create(&watch, limit_ms, exit_code, &em) != DB_OK)
		log_warn("%s", em.text);
	stop(n, failed, grace_ms);
	end_watch_free(watch);
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
	bool served = false, failed = false;

	log_init(options->id, LOG_LEVEL_INFO);
	snprintf(n.dir, sizeof(n.dir), "%s", options->id);
	err = load_configuration(&n, &em);
	if (err != DB_OK)
		exit_code = EXIT_CODE_CONFIG;
	if (err == DB_OK) {
		last_words_init(options->id);
		err = start(&n, &em);
		served = err == DB_OK;
		if (served) {
			err = run_loop(&n, &em);
			failed = err == DB_IO;
		}
		if (err != DB_OK)
			exit_code = failed ? EXIT_CODE_LOG : err == DB_INVALID ? EXIT_CODE_CONFIG : EXIT_CODE_FAILED;
	}
	if (err != DB_OK) {
		log_error("%s", em.text);
		last_words_say(em.text);
	}
	if (n.snapshot != NULL)
		last_lsn = store_tip_lsn(n.own.store);
	stop_in_time(&n, served, failed, exit_code);
	if (err == DB_OK && n.snapshot != NULL && own_store_replace(&n.own, n.snapshot, last_lsn, &em) != DB_OK) {
		log_error("the snapshot cannot be put in place: %s", em.text);
		last_words_say(em.text);
		exit_code = EXIT_CODE_FAILED;
	}
	snapshot_target_free(n.snapshot);
	if (err == DB_OK)
		log_info("stopped");
	return exit_code;
}

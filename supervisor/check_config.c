/*
 * check_config.c - `grizzly-supervisor check-config`: is a configuration right, and what does it come to?
 *
 * Reads the file as `run` would, then looks at what the file only names: token files, the archive, the ports, the disk,
 * the limit of open files. What stops a start is an error (exit code 2), what an operator should know a warning. Errors
 * and warnings go to stderr, the effective values to stdout as JSON that is a configuration itself. Changes nothing.
 */
#include "supervisor/commands.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/auth/tls_members.h"
#include "common/base/config_show.h"

#define NODE_DESCRIPTORS 512u /* of a node beside its clients: about what the default settings need */

struct findings {
	unsigned errors;
};

static void warn_of(const char *fmt, ...) PRINTF_LIKE(1, 2);

static void warn_of(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("warning: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
}

static void error_of(struct findings *f, const char *text)
{
	fprintf(stderr, "error: %s\n", text);
	f->errors++;
}

static bool has_identity(const struct cluster_config *c)
{
	static const uint8_t none[16];

	return memcmp(c->cluster_id, none, sizeof(none)) != 0;
}

static void check_tokens(struct findings *f, const struct cluster_config *c, bool in_data_dir)
{
	struct errmsg em = {0};
	char *token = NULL;
	size_t i;

	if (in_data_dir && access(DATADIR_TOKEN, F_OK) == 0 && token_load(&token, DATADIR_TOKEN, &em) != DB_OK)
		error_of(f, em.text);
	free(token);
	for (i = 0; in_data_dir && i < c->remote.node_count; i++) {
		token = NULL;
		/* A node that lacks the token of another one starts all the same. */
		if (token_load(&token, c->remote.nodes[i].token_file, &em) != DB_OK)
			warn_of("remote.nodes \"%s\": %s", c->remote.nodes[i].address, em.text);
		free(token);
	}
}

static void check_archive(const struct cluster_config *c, bool in_data_dir)
{
	const char *dir = c->archive.dir;

	if (dir[0] != '\0' && (in_data_dir || dir[0] == '/') && access(dir, W_OK | X_OK) != 0 && errno != ENOENT)
		warn_of("archive.dir \"%s\" cannot be written by this user: %s", dir, strerror(errno));
}

/* Only while nothing runs here: the cluster's own sockets are no discovery. */
static void check_address(struct findings *f, const struct cluster_config *c)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *found = NULL;
	char port[8], text[256];
	const int one = 1;
	int fd, rc;

	snprintf(port, sizeof(port), "%u", c->http_port);
	rc = getaddrinfo(c->bind, port, &hints, &found);
	if (rc != 0) {
		snprintf(text, sizeof(text), "bind: \"%s\": %s", c->bind, gai_strerror(rc));
		error_of(f, text);
		return;
	}
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
	    bind(fd, found->ai_addr, found->ai_addrlen) != 0) {
		snprintf(text, sizeof(text), "bind, http_port: cannot listen on %s port %u: %s", c->bind, c->http_port,
			 strerror(errno));
		error_of(f, text);
	}
	if (fd >= 0)
		close(fd);
	freeaddrinfo(found);
}

static void check_disk(const struct cluster_config *c)
{
	uint64_t wanted = config_node_count(c) * (c->log.keep_bytes + c->store.checkpoint_bytes);
	struct statvfs disk;
	uint64_t free_bytes;

	if (statvfs(".", &disk) != 0)
		return;
	free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
	if (free_bytes < c->store.low_space_bytes)
		warn_of("%" PRIu64 " bytes are free, less than store.low_space_bytes: no write will be taken",
			free_bytes);
	else if (free_bytes < wanted)
		warn_of("%" PRIu64 " bytes are free; the logs of %u nodes may keep %" PRIu64
			" (log.keep_bytes, store.checkpoint_bytes)",
			free_bytes, config_node_count(c), wanted);
}

static void check_descriptors(const struct cluster_config *c)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max < NODE_DESCRIPTORS + c->http.connections_max)
		warn_of("the limit of open files is %" PRIu64
			" for this user: nodes will allow fewer connections than http.connections_max %u",
			(uint64_t)limit.rlim_max, c->http.connections_max);
}

/* Relative files are looked for where the nodes will: in the data directory. */
static void check_tls(struct findings *f, const struct cluster_config *c, bool in_data_dir)
{
	struct errmsg em = {0};

	if (config_check_exposure(c, DATADIR_CONFIG, &em) != DB_OK)
		error_of(f, em.text);
	else if (c->insecure && !config_is_loopback(c->bind) && !config_has_tls(c))
		warn_of("insecure: tokens and data cross the network in the clear");
	if (in_data_dir && config_has_tls(c) && tls_check(c, &em) != DB_OK)
		error_of(f, em.text);
}

static void check_safety(const struct cluster_config *c)
{
	if (c->durability == DURABILITY_ASYNC)
		warn_of("durability \"async\": a failover may lose writes that were answered with ok");
	if (c->replicas == 1)
		warn_of("replicas 1: with either node gone there is no majority, and no write is taken");
	if (c->http.request_timeout_ms > c->http.idle_timeout_ms)
		warn_of("http.request_timeout_ms is longer than http.idle_timeout_ms, which may end a request first");
}

static enum exit_code print_effective(const struct cluster_config *c)
{
	struct buf text = {0};
	enum exit_code code = EXIT_FAILED;

	config_put_json(&text, c);
	if (!text.failed && fwrite(text.data, 1, text.len, stdout) == text.len && fflush(stdout) == 0)
		code = EXIT_OK;
	else
		fputs("grizzly-supervisor: the configuration cannot be printed\n", stderr);
	buf_fini(&text);
	return code;
}

static enum exit_code check(const struct cluster_config *c, bool in_data_dir)
{
	struct findings f = {0};

	if (in_data_dir && !has_identity(c))
		error_of(&f, DATADIR_CONFIG " has no \"cluster\": 32 hex digits");
	check_tokens(&f, c, in_data_dir);
	check_archive(c, in_data_dir);
	if (!in_data_dir || datadir_lock_holder() == 0)
		check_address(&f, c);
	if (in_data_dir)
		check_disk(c);
	check_descriptors(c);
	check_tls(&f, c, in_data_dir);
	check_safety(c);
	return f.errors > 0 ? EXIT_USAGE : print_effective(c);
}

enum exit_code command_check_config(const char *data_dir, const char *config_path)
{
	char path[PATH_MAX] = DATADIR_CONFIG;
	struct cluster_config *c = malloc(sizeof(*c));
	struct errmsg em = {0};
	enum exit_code code = EXIT_USAGE;
	enum db_err err = c == NULL ? errmsg_set(&em, DB_NOMEM, "out of memory") : DB_OK;

	if (err == DB_OK && config_path != NULL)
		err = datadir_absolute(path, config_path, &em);
	if (err == DB_OK && data_dir != NULL)
		err = datadir_enter(data_dir, false, &em);
	if (err == DB_OK) {
		config_init(c);
		err = config_load(c, path, &em);
	}
	if (err == DB_OK)
		code = check(c, data_dir != NULL && config_path == NULL);
	else
		fprintf(stderr, "error: %s\n", em.text);
	free(c);
	return code;
}

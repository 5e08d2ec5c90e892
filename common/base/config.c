/*
 * config.c - see config.h.
 *
 * One table says everything about the numeric keys: where they lie, their range, unit and meaning; reading, checking and
 * writing a new file all go by it. The few keys that are not numbers are handled by name.
 */
#include "common/base/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/config_remote.h"
#include "common/base/config_tls.h"

#define CONFIG_FILE_BYTES_MAX ((size_t)1 << 20)
#define PORT_SPREAD           200 /* acks are http_port + 200 + node */
#define LOG_SEGMENTS_MIN      4u  /* below, the cap would not leave room to work (node/retention.c) */

enum number_width { WIDTH_UNSIGNED, WIDTH_U64, WIDTH_SIZE };

struct number_key {
	const char *section; /* "" for the top level */
	const char *name;
	enum number_width width;
	size_t offset; /* in struct cluster_config */
	uint64_t min, max;
	const char *help; /* NULL: understood, but not written to a new file */
};

#define AT(field) offsetof(struct cluster_config, field)
#define GIB       ((uint64_t)1 << 30)
#define DAY_MS    ((uint64_t)86400000)

static const struct number_key number_keys[] = {
    {"", "replicas", WIDTH_UNSIGNED, AT(replicas), 0, CONFIG_NODES_MAX - 1, "nodes besides the first"},
    {"", "http_port", WIDTH_UNSIGNED, AT(http_port), 1, 65535 - PORT_SPREAD,
     "the endpoint; node i: HTTP +i, replication +100+i, acks +200+i"},
    {"", "commit_timeout_ms", WIDTH_U64, AT(commit_timeout_ms), 1, DAY_MS,
     "how long a write may wait for its quorum (then: NO_QUORUM)"},
    {"", "commit_pipeline_depth", WIDTH_UNSIGNED, AT(commit_pipeline_depth), 0, 64,
     "commits under way while the next one is executed; 0: one, and nothing is executed meanwhile"},
    {"heartbeat", "interval_ms", WIDTH_U64, AT(heartbeat.interval_ms), 10, 60000, "between heartbeats"},
    {"heartbeat", "misses", WIDTH_UNSIGNED, AT(heartbeat.misses), 1, 100,
     "unanswered in a row: hung if its process stands still; 10 times that if it works"},
    {"heartbeat", "probe_ms", WIDTH_U64, AT(heartbeat.probe_ms), 50, 60000,
     "without a sync for so long a node tries its disk"},
    {"heartbeat", "stall_ms", WIDTH_U64, AT(heartbeat.stall_ms), 100, 600000,
     "a disk that completes no write, or a writer that stands still, for so long: hung"},
    {"http", "workers", WIDTH_UNSIGNED, AT(http.workers), 1, 64, "event-loop threads"},
    {"http", "body_bytes_max", WIDTH_SIZE, AT(http.body_bytes_max), 1024, GIB, "of a request"},
    {"http", "connections_max", WIDTH_UNSIGNED, AT(http.connections_max), 1, 1000000,
     "then idle ones make room, or further ones wait"},
    {"http", "address_connections_max", WIDTH_UNSIGNED, AT(http.address_connections_max), 0, 1000000,
     "of one client address; 0: no limit of its own"},
    {"http", "requests_bytes_max", WIDTH_SIZE, AT(http.requests_bytes_max), 65536, 64 * GIB,
     "of large request bodies in memory; then OVERLOADED"},
    {"http", "request_timeout_ms", WIDTH_U64, AT(http.request_timeout_ms), 10, DAY_MS,
     "from a request's first byte to its last"},
    {"http", "idle_timeout_ms", WIDTH_U64, AT(http.idle_timeout_ms), 10, DAY_MS, "of a kept-alive connection"},
    {"query", "timeout_ms", WIDTH_U64, AT(query.timeout_ms), 1, DAY_MS, "of a request that names none"},
    {"query", "timeout_max_ms", WIDTH_U64, AT(query.timeout_max_ms), 1, DAY_MS, "the most a request may ask for"},
    {"query", "sql_length_max", WIDTH_SIZE, AT(query.sql_length_max), 1024, GIB, "bytes of one SQL text"},
    {"query", "statements_max", WIDTH_SIZE, AT(query.statements_max), 1, 10000000, "in one request"},
    {"query", "inline_ops", WIDTH_U64, AT(query.inline_ops), 1000, UINT32_MAX,
     "SQLite steps of a read before it moves to a slow-query thread"},
    {"query", "slow_threads", WIDTH_UNSIGNED, AT(query.slow_threads), 1, 256, "for long reads"},
    {"query", "slow_queue_max", WIDTH_UNSIGNED, AT(query.slow_queue_max), 1, 1000000, "long reads waiting"},
    {"query", "result_rows_max", WIDTH_U64, AT(query.result_rows_max), 0, INT64_MAX,
     "of the answer to a request that reads; 0: no limit"},
    {"query", "result_bytes_max", WIDTH_U64, AT(query.result_bytes_max), 0, INT64_MAX, "likewise"},
    {"query", "write_queue_max", WIDTH_UNSIGNED, AT(query.write_queue_max), 1, 1000000, "writes waiting"},
    {"store", "segment_size_bytes", WIDTH_SIZE, AT(store.segment_size_bytes), 65536, GIB, "of the log"},
    {"store", "checkpoint_bytes", WIDTH_U64, AT(store.checkpoint_bytes), 65536, 1024 * GIB,
     "of log between checkpoints"},
    {"store", "transaction_bytes_max", WIDTH_U64, AT(store.transaction_bytes_max), 65536, 4 * GIB,
     "of pages that one transaction may change"},
    {"store", "low_space_bytes", WIDTH_U64, AT(store.low_space_bytes), 0, 1024 * GIB,
     "with less free on its disk a node takes no writes; 0: no such mark"},
    {"retries", "count_max", WIDTH_U64, AT(retries.count_max), 1, 10000000,
     "writes with a request_id that are remembered"},
    {"retries", "age_max_ms", WIDTH_U64, AT(retries.age_max_ms), 1000, 366 * DAY_MS, "for how long"},
    {"retries", "bytes_max", WIDTH_U64, AT(retries.bytes_max), 65536, 64 * GIB, "of their answers"},
    {"log", "keep_bytes", WIDTH_U64, AT(log.keep_bytes), 65536, 1024 * GIB, "of log kept for replicas that are behind"},
    {"log", "max_bytes", WIDTH_U64, AT(log.max_bytes), 65536, 4096 * GIB,
     "of log files: then whoever still holds more (a slow replica, a backup, the archive) is cut off"},
    {"store", "keep_bytes", WIDTH_U64, AT(log.keep_bytes), 65536, 1024 * GIB, NULL}, /* its older name */
    {"archive", "interval_ms", WIDTH_U64, AT(archive.interval_ms), 10, DAY_MS, "the most that commits wait for it"},
    {"logging", "slow_query_ms", WIDTH_U64, AT(logging.slow_query_ms), 0, DAY_MS,
     "requests that take longer are logged with their plan; 0: none"},
    {"remote", "max_connections", WIDTH_UNSIGNED, AT(remote.max_connections), 1, 1000, "to each other node"},
};

#define NUMBER_KEY_COUNT (sizeof(number_keys) / sizeof(number_keys[0]))

static const char *const section_names[] = {"heartbeat", "http", "query",       "store",  "retries", "log",
					    "archive",   "tls",  "replication", "remote", "logging"};
#define SECTION_COUNT (sizeof(section_names) / sizeof(section_names[0]))

static const char *const durability_names[] = {"quorum", "all", "async"};
static const char *const local_names[] = {"ipc", "tcp"};

/* ---- numbers by table */

static uint64_t number_get(const struct cluster_config *c, const struct number_key *k)
{
	const char *at = (const char *)c + k->offset;

	if (k->width == WIDTH_UNSIGNED)
		return *(const unsigned *)(const void *)at;
	return k->width == WIDTH_SIZE ? *(const size_t *)(const void *)at : *(const uint64_t *)(const void *)at;
}

static void number_set(struct cluster_config *c, const struct number_key *k, uint64_t value)
{
	char *at = (char *)c + k->offset;

	if (k->width == WIDTH_UNSIGNED)
		*(unsigned *)(void *)at = (unsigned)value;
	else if (k->width == WIDTH_SIZE)
		*(size_t *)(void *)at = (size_t)value;
	else
		*(uint64_t *)(void *)at = value;
}

void config_init(struct cluster_config *c)
{
	memset(c, 0, sizeof(*c));
	c->replicas = 2;
	snprintf(c->bind, sizeof(c->bind), "127.0.0.1");
	c->http_port = 8080;
	c->durability = DURABILITY_QUORUM;
	c->commit_timeout_ms = 5000;
	c->commit_pipeline_depth = 2;
	c->heartbeat.interval_ms = 100;
	c->heartbeat.misses = 3;
	c->heartbeat.probe_ms = 1000;
	c->heartbeat.stall_ms = 3000;
	c->http.workers = 2;
	c->http.body_bytes_max = (size_t)16 << 20;
	c->http.connections_max = 4096;
	c->http.address_connections_max = 2048;
	c->http.requests_bytes_max = (size_t)256 << 20;
	c->http.request_timeout_ms = 10000;
	c->http.idle_timeout_ms = 60000;
	c->query.timeout_ms = 30000;
	c->query.timeout_max_ms = 300000;
	c->query.sql_length_max = (size_t)1 << 20;
	c->query.statements_max = 10000;
	c->query.inline_ops = 20000;
	c->query.slow_threads = 4;
	c->query.slow_queue_max = 256;
	c->query.write_queue_max = 4096;
	c->store.segment_size_bytes = (size_t)16 << 20;
	c->store.checkpoint_bytes = (uint64_t)64 << 20;
	c->store.transaction_bytes_max = GIB;
	c->store.low_space_bytes = (uint64_t)64 << 20;
	c->retries.count_max = 100000;
	c->retries.age_max_ms = DAY_MS;
	c->retries.bytes_max = (uint64_t)64 << 20;
	c->log.keep_bytes = GIB;
	c->log.max_bytes = 4 * GIB;
	c->archive.interval_ms = 10000;
	c->remote.max_connections = 10;
	c->logging.level = LOG_LEVEL_INFO;
	c->logging.format = LOG_FORMAT_TEXT;
}

bool config_number(const struct cluster_config *c, size_t i, const char **section, const char **name, uint64_t *value,
		   bool *hidden)
{
	if (i >= NUMBER_KEY_COUNT)
		return false;
	*section = number_keys[i].section;
	*name = number_keys[i].name;
	*value = number_get(c, &number_keys[i]);
	*hidden = number_keys[i].help == NULL;
	return true;
}

const char *config_durability_name(enum durability durability)
{
	return durability_names[durability];
}

const char *config_replication_local_name(enum replication_local local)
{
	return local_names[local];
}

/* ---- addresses and quorum */

void config_address(const struct cluster_config *c, unsigned port, char out[CONFIG_ADDRESS_MAX])
{
	const char *form = strchr(c->bind, ':') != NULL ? "[%s]:%u" : "%s:%u";

	snprintf(out, CONFIG_ADDRESS_MAX, form, c->bind, port);
}

unsigned config_node_port(const struct cluster_config *c, unsigned node, enum config_port which)
{
	static const unsigned spread[] = {[CONFIG_HTTP] = 0, [CONFIG_REPLICATION] = 100, [CONFIG_ACKS] = PORT_SPREAD};

	return c->http_port + spread[which] + node;
}

void config_node_address(const struct cluster_config *c, unsigned node, enum config_port which,
			 char out[CONFIG_ADDRESS_MAX])
{
	config_address(c, config_node_port(c, node, which), out);
}

void config_endpoint_address(const struct cluster_config *c, char out[CONFIG_ADDRESS_MAX])
{
	config_address(c, c->http_port, out);
}

unsigned config_node_count(const struct cluster_config *c)
{
	return c->replicas + 1;
}

unsigned config_acks_of(enum durability durability, unsigned nodes)
{
	switch (durability) {
	case DURABILITY_ALL:
		return nodes;
	case DURABILITY_ASYNC:
		return 1;
	case DURABILITY_QUORUM:
		break;
	}
	return nodes / 2 + 1;
}

unsigned config_ack_nodes(const struct cluster_config *c)
{
	return config_acks_of(c->durability, config_node_count(c));
}

/* ---- reading */

/* Blanks comments with spaces, so that lines and columns stay where they are. Strings are left alone. */
static void blank_comments(char *text, size_t len)
{
	bool in_string = false;
	size_t i;

	for (i = 0; i < len; i++) {
		if (in_string) {
			if (text[i] == '\\')
				i++;
			else if (text[i] == '"' || text[i] == '\n')
				in_string = false;
		} else if (text[i] == '"') {
			in_string = true;
		} else if (text[i] == '/' && i + 1 < len && text[i + 1] == '/') {
			while (i < len && text[i] != '\n')
				text[i++] = ' ';
		} else if (text[i] == '/' && i + 1 < len && text[i + 1] == '*') {
			for (; i + 1 < len && !(text[i] == '*' && text[i + 1] == '/'); i++)
				if (text[i] != '\n')
					text[i] = ' ';
			text[i] = ' ';
			if (i + 1 < len)
				text[i + 1] = ' ';
		}
	}
}

/* Blanks each comma before a closing brace or bracket, so that lines can be added and taken out freely. After
 * blank_comments(). */
static void blank_last_commas(char *text, size_t len)
{
	bool in_string = false;
	size_t i, next;

	for (i = 0; i < len; i++) {
		if (text[i] == '\\' && in_string) {
			i++;
		} else if (text[i] == '"') {
			in_string = !in_string;
		} else if (text[i] == ',' && !in_string) {
			next = i + 1 + strspn(text + i + 1, " \t\r\n");
			if (text[next] == '}' || text[next] == ']')
				text[i] = ' ';
		}
	}
}

static const char *type_name(const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "a list";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
		return "a whole number";
	case JSON_REAL:
		return "a number with a fraction";
	case JSON_NULL:
		return "null";
	default:
		return "true or false";
	}
}

static void full_name(char *out, size_t size, const char *section, const char *name)
{
	snprintf(out, size, "%s%s%s", section, section[0] != '\0' ? "." : "", name);
}

static enum db_err read_number(struct cluster_config *c, const struct number_key *k, const json_t *value,
			       const char *path, struct errmsg *em)
{
	char name[64];

	full_name(name, sizeof(name), k->section, k->name);
	if (!json_is_integer(value))
		return errmsg_set(em, DB_INVALID,
				  "%s: %s: expected a whole number from %" PRIu64 " to %" PRIu64 ", found %s", path,
				  name, k->min, k->max, type_name(value));
	if (json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) < k->min ||
	    (uint64_t)json_integer_value(value) > k->max)
		return errmsg_set(em, DB_INVALID,
				  "%s: %s: expected a whole number from %" PRIu64 " to %" PRIu64 ", found %" PRId64,
				  path, name, k->min, k->max, (int64_t)json_integer_value(value));
	number_set(c, k, (uint64_t)json_integer_value(value));
	return DB_OK;
}

static enum db_err read_cluster_id(struct cluster_config *c, const json_t *value, const char *path, struct errmsg *em)
{
	const char *hex = json_string_value(value);
	unsigned byte;
	size_t i;

	if (hex == NULL || strlen(hex) != 32 || strspn(hex, "0123456789abcdefABCDEF") != 32)
		return errmsg_set(em, DB_INVALID, "%s: cluster: expected a string of 32 hexadecimal digits", path);
	for (i = 0; i < sizeof(c->cluster_id); i++) {
		sscanf(hex + 2 * i, "%2x", &byte);
		c->cluster_id[i] = (uint8_t)byte;
	}
	return DB_OK;
}

static enum db_err read_bind(struct cluster_config *c, const json_t *value, const char *path, struct errmsg *em)
{
	const char *host = json_string_value(value);
	struct in6_addr address;

	if (host == NULL || strlen(host) >= sizeof(c->bind) ||
	    (strcmp(host, "localhost") != 0 && inet_pton(AF_INET, host, &address) != 1 &&
	     inet_pton(AF_INET6, host, &address) != 1))
		return errmsg_set(em, DB_INVALID, "%s: bind: expected an IPv4 or IPv6 address or \"localhost\"", path);
	snprintf(c->bind, sizeof(c->bind), "%s", host);
	return DB_OK;
}

static enum db_err read_durability(struct cluster_config *c, const json_t *value, const char *path, struct errmsg *em)
{
	const char *name = json_string_value(value);
	size_t i;

	for (i = 0; name != NULL && i < sizeof(durability_names) / sizeof(durability_names[0]); i++) {
		if (strcmp(name, durability_names[i]) == 0) {
			c->durability = (enum durability)i;
			return DB_OK;
		}
	}
	return errmsg_set(em, DB_INVALID, "%s: durability: expected \"quorum\", \"all\" or \"async\"", path);
}

static enum db_err read_local(struct cluster_config *c, const json_t *value, const char *path, struct errmsg *em)
{
	const char *name = json_is_string(value) ? json_string_value(value) : "";
	size_t i;

	for (i = 0; i < sizeof(local_names) / sizeof(local_names[0]); i++) {
		if (strcmp(name, local_names[i]) == 0) {
			c->replication.local = (enum replication_local)i;
			return DB_OK;
		}
	}
	return errmsg_set(em, DB_INVALID, "%s: replication.local: expected \"ipc\" or \"tcp\"", path);
}

static enum db_err read_archive_dir(struct cluster_config *c, const json_t *value, const char *path, struct errmsg *em)
{
	const char *dir = json_string_value(value);

	if (dir == NULL || strlen(dir) >= sizeof(c->archive.dir))
		return errmsg_set(em, DB_INVALID, "%s: archive.dir: expected a directory of at most %zu characters",
				  path, sizeof(c->archive.dir) - 1);
	snprintf(c->archive.dir, sizeof(c->archive.dir), "%s", dir);
	return DB_OK;
}

static enum db_err read_logging(struct cluster_config *c, const char *key, const json_t *value, const char *path,
				struct errmsg *em)
{
	const char *name = json_is_string(value) ? json_string_value(value) : "";
	bool is_level = strcmp(key, "level") == 0;
	int level;

	for (level = LOG_LEVEL_DEBUG; is_level && level <= LOG_LEVEL_ERROR; level++) {
		if (strcmp(name, log_level_name((enum log_level)level)) == 0) {
			c->logging.level = (enum log_level)level;
			return DB_OK;
		}
	}
	if (!is_level && (strcmp(name, "text") == 0 || strcmp(name, "json") == 0)) {
		c->logging.format = name[0] == 't' ? LOG_FORMAT_TEXT : LOG_FORMAT_JSON;
		return DB_OK;
	}
	return errmsg_set(em, DB_INVALID, "%s: logging.%s: expected %s", path, key,
			  is_level ? "\"debug\", \"info\", \"warn\" or \"error\"" : "\"text\" or \"json\"");
}

/* Edit distance with a cut-off is more than a misspelt key needs: the best is the one that shares most of its letters in
 * order. */
static size_t likeness(const char *a, const char *b)
{
	size_t same = 0;

	while (*a != '\0' && *b != '\0') {
		if (*a == *b) {
			same++;
			a++;
			b++;
		} else if (strchr(b, *a) != NULL && strlen(b) > strlen(a)) {
			b++;
		} else {
			a++;
		}
	}
	return same;
}

static enum db_err unknown_key(const char *section, const char *name, const char *path, struct errmsg *em)
{
	const char *best = NULL;
	size_t i, score, best_score = strlen(name) / 2;
	char shown[128];

	full_name(shown, sizeof(shown), section, name);
	for (i = 0; i < NUMBER_KEY_COUNT; i++) {
		score = likeness(name, number_keys[i].name);
		if (strcmp(number_keys[i].section, section) == 0 && score > best_score) {
			best = number_keys[i].name;
			best_score = score;
		}
	}
	if (best == NULL)
		return errmsg_set(em, DB_INVALID, "%s: unknown key \"%s\"", path, shown);
	return errmsg_set(em, DB_INVALID, "%s: unknown key \"%s\"; did you mean \"%s\"?", path, shown, best);
}

static bool is_section(const char *name)
{
	size_t i;

	for (i = 0; i < SECTION_COUNT; i++)
		if (strcmp(name, section_names[i]) == 0)
			return true;
	return false;
}

static enum db_err read_section(struct cluster_config *c, const char *section, const json_t *object, const char *path,
				struct errmsg *em);

static enum db_err read_key(struct cluster_config *c, const char *section, const char *name, const json_t *value,
			    const char *path, struct errmsg *em)
{
	size_t i;

	for (i = 0; i < NUMBER_KEY_COUNT; i++)
		if (strcmp(number_keys[i].section, section) == 0 && strcmp(number_keys[i].name, name) == 0)
			return read_number(c, &number_keys[i], value, path, em);
	if (strcmp(section, "remote") == 0 && strcmp(name, "nodes") == 0)
		return config_read_remote_nodes(c, value, path, em);
	if (strcmp(section, "remote") == 0 && strcmp(name, "allow") == 0)
		return config_read_remote_allow(c, value, path, em);
	if (strcmp(section, "archive") == 0 && strcmp(name, "dir") == 0)
		return read_archive_dir(c, value, path, em);
	if (strcmp(section, "logging") == 0 && (strcmp(name, "level") == 0 || strcmp(name, "format") == 0))
		return read_logging(c, name, value, path, em);
	if (strcmp(section, "replication") == 0 && strcmp(name, "local") == 0)
		return read_local(c, value, path, em);
	if (strcmp(section, "tls") == 0 && config_is_tls_key(name))
		return config_read_tls(c, name, value, path, em);
	if (section[0] != '\0')
		return unknown_key(section, name, path, em);
	if (strcmp(name, "cluster") == 0)
		return read_cluster_id(c, value, path, em);
	if (strcmp(name, "bind") == 0)
		return read_bind(c, value, path, em);
	if (strcmp(name, "insecure") == 0)
		return config_read_insecure(c, value, path, em);
	if (strcmp(name, "durability") == 0)
		return read_durability(c, value, path, em);
	if (!is_section(name))
		return unknown_key(section, name, path, em);
	if (!json_is_object(value))
		return errmsg_set(em, DB_INVALID, "%s: %s: expected an object, found %s", path, name, type_name(value));
	return read_section(c, name, value, path, em);
}

static enum db_err read_section(struct cluster_config *c, const char *section, const json_t *object, const char *path,
				struct errmsg *em)
{
	const char *name;
	json_t *value;
	enum db_err err;

	json_object_foreach((json_t *)(uintptr_t)object, name, value)
	{
		err = read_key(c, section, name, value, path, em);
		if (err != DB_OK)
			return err;
	}
	return DB_OK;
}

static enum db_err check_whole(const struct cluster_config *c, const char *path, struct errmsg *em)
{
	if (c->http_port + PORT_SPREAD + config_node_count(c) > 65535)
		return errmsg_set(em, DB_INVALID, "%s: http_port: %u leaves no room for the nodes' ports (up to +%u)",
				  path, c->http_port, PORT_SPREAD + config_node_count(c));
	if (c->log.max_bytes < c->log.keep_bytes)
		return errmsg_set(em, DB_INVALID, "%s: log.max_bytes: expected at least log.keep_bytes", path);
	if (c->log.max_bytes / LOG_SEGMENTS_MIN < c->store.segment_size_bytes)
		return errmsg_set(em, DB_INVALID,
				  "%s: log.max_bytes: expected at least %u times store.segment_size_bytes", path,
				  LOG_SEGMENTS_MIN);
	if (c->query.timeout_ms > c->query.timeout_max_ms)
		return errmsg_set(em, DB_INVALID, "%s: query.timeout_ms: expected at most query.timeout_max_ms", path);
	return DB_OK;
}

enum db_err config_parse(struct cluster_config *c, const char *text, size_t len, const char *path, struct errmsg *em)
{
	char *copy = malloc(len + 1);
	json_error_t error;
	json_t *root;
	enum db_err err;

	if (copy == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	memcpy(copy, text, len);
	copy[len] = '\0';
	blank_comments(copy, len);
	blank_last_commas(copy, len);
	root = json_loadb(copy, len, JSON_REJECT_DUPLICATES, &error);
	free(copy);
	if (root == NULL)
		return errmsg_set(em, DB_INVALID, "%s:%d: expected JSON: %s", path, error.line, error.text);
	if (json_is_object(root))
		err = read_section(c, "", root, path, em);
	else
		err = errmsg_set(em, DB_INVALID, "%s: expected an object, found %s", path, type_name(root));
	json_decref(root);
	if (err == DB_OK)
		err = check_whole(c, path, em);
	return err == DB_OK ? config_check_tls(c, path, em) : err;
}

/* Reads a whole small file; the caller frees *text. */
static enum db_err read_file(char **text, size_t *len, const char *path, size_t bytes_max, struct errmsg *em)
{
	FILE *f = fopen(path, "re");
	enum db_err err = DB_OK;

	*text = NULL;
	if (f == NULL)
		return errmsg_errno(em, errno, "cannot read \"%s\"", path);
	*text = malloc(bytes_max + 1);
	if (*text == NULL)
		err = errmsg_set(em, DB_NOMEM, "out of memory");
	*len = err == DB_OK ? fread(*text, 1, bytes_max + 1, f) : 0;
	if (err == DB_OK && ferror(f))
		err = errmsg_errno(em, errno, "cannot read \"%s\"", path);
	else if (err == DB_OK && *len > bytes_max)
		err = errmsg_set(em, DB_INVALID, "\"%s\" is larger than %zu bytes", path, bytes_max);
	fclose(f);
	if (err != DB_OK) {
		free(*text);
		*text = NULL;
	}
	return err;
}

enum db_err config_load(struct cluster_config *c, const char *path, struct errmsg *em)
{
	char *text;
	size_t len;
	enum db_err err;

	err = read_file(&text, &len, path, CONFIG_FILE_BYTES_MAX, em);
	if (err != DB_OK)
		return err;
	err = config_parse(c, text, len, path, em);
	free(text);
	return err;
}

/* ---- writing a new file */

static void put_section(struct buf *out, const struct cluster_config *c, const char *section)
{
	size_t i;

	buf_printf(out, "\n\t// \"%s\": {\n", section);
	if (strcmp(section, "archive") == 0)
		buf_printf(out, "\t//\t\"dir\": \"%s\", // committed log is copied there; none: it is not\n",
			   c->archive.dir);
	if (strcmp(section, "tls") == 0)
		config_put_tls_help(out);
	if (strcmp(section, "replication") == 0)
		buf_puts(out, "\t//\t\"local\": \"ipc\", // between nodes of one host: ipc, sockets in run/, or tcp\n");
	if (strcmp(section, "logging") == 0)
		buf_puts(out, "\t//\t\"level\": \"info\", // debug, info, warn, error\n"
			      "\t//\t\"format\": \"text\", // text or json\n");
	for (i = 0; i < NUMBER_KEY_COUNT; i++)
		if (strcmp(number_keys[i].section, section) == 0 && number_keys[i].help != NULL)
			buf_printf(out, "\t//\t\"%s\": %" PRIu64 ", // %s\n", number_keys[i].name,
				   number_get(c, &number_keys[i]), number_keys[i].help);
	buf_puts(out, "\t// },\n");
}

static void put_new_config(struct buf *out, const struct cluster_config *c)
{
	size_t i;

	buf_puts(out, "// Configuration of a Grizzly cluster: JSON with comments, and with a comma after the last item "
		      "if you like.\n"
		      "// Read when a process starts; \"logging\" also on `grizzly-supervisor reload`.\n"
		      "// What is commented out shows its default. Times are in milliseconds, sizes in bytes.\n{\n"
		      "\t\"cluster\": \"");
	for (i = 0; i < sizeof(c->cluster_id); i++)
		buf_printf(out, "%02x", c->cluster_id[i]);
	buf_printf(
	    out,
	    "\", // identity, never change it\n"
	    "\t\"replicas\": %u, // nodes besides the first\n"
	    "\t\"bind\": \"%s\", // address of every socket\n"
	    "\t\"http_port\": %u, // the endpoint; node i: HTTP +i, replication +100+i, acks +200+i\n"
	    "\t\"durability\": \"%s\", // who has fsynced a write that is answered: quorum, all, async (master only)\n"
	    "\t\"commit_timeout_ms\": %" PRIu64 ", // how long a write may wait for its quorum\n",
	    c->replicas, c->bind, c->http_port, durability_names[c->durability], c->commit_timeout_ms);
	for (i = 0; i < SECTION_COUNT; i++)
		put_section(out, c, section_names[i]);
	buf_puts(out, "}\n");
}

static enum db_err write_and_sync(int fd, const struct buf *content, const char *path, struct errmsg *em)
{
	if (write(fd, content->data, content->len) != (ssize_t)content->len)
		return errmsg_errno(em, errno, "cannot write \"%s\"", path);
	if (fsync(fd) != 0)
		return errmsg_errno(em, errno, "cannot sync \"%s\"", path);
	return DB_OK;
}

/* Creates path with content, mode 0600, whole or not at all. DB_EXISTS: it is there already. */
static enum db_err create_file(const char *path, const struct buf *content, struct errmsg *em)
{
	char temporary[PATH_MAX];
	enum db_err err;
	int fd;

	if (content->failed)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	if (snprintf(temporary, sizeof(temporary), "%s.new.%d", path, (int)getpid()) >= (int)sizeof(temporary))
		return errmsg_set(em, DB_INVALID, "path too long: \"%s\"", path);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return errmsg_errno(em, errno, "cannot create \"%s\"", temporary);
	err = write_and_sync(fd, content, temporary, em);
	close(fd);
	/* link() and not rename(): a file that another process created meanwhile is not replaced. */
	if (err == DB_OK && link(temporary, path) != 0)
		err = errmsg_errno(em, errno, "cannot create \"%s\"", path);
	unlink(temporary);
	return err;
}

enum db_err config_write_new(const struct cluster_config *c, const char *path, struct errmsg *em)
{
	struct buf out = {0};
	enum db_err err;

	put_new_config(&out, c);
	err = create_file(path, &out, em);
	buf_fini(&out);
	return err;
}

/* ---- tokens */

#define TOKEN_LEN_MIN      16
#define TOKEN_LEN_MAX      256
#define TOKEN_RANDOM_BYTES 32

static enum db_err check_token(const char *token, size_t len, const char *path, struct errmsg *em)
{
	size_t i;

	if (len < TOKEN_LEN_MIN || len > TOKEN_LEN_MAX)
		return errmsg_set(em, DB_INVALID, "%s: expected a token of %d to %d characters, found %zu", path,
				  TOKEN_LEN_MIN, TOKEN_LEN_MAX, len);
	for (i = 0; i < len; i++)
		if (token[i] <= ' ' || token[i] > '~')
			return errmsg_set(em, DB_INVALID,
					  "%s: a token is one line of printable characters without spaces", path);
	return DB_OK;
}

enum db_err token_load(char **token, const char *path, struct errmsg *em)
{
	size_t len;
	enum db_err err;

	err = read_file(token, &len, path, TOKEN_LEN_MAX + 2, em);
	if (err != DB_OK)
		return err;
	while (len > 0 && ((*token)[len - 1] == '\n' || (*token)[len - 1] == '\r'))
		len--;
	(*token)[len] = '\0';
	err = check_token(*token, len, path, em);
	if (err != DB_OK) {
		free(*token);
		*token = NULL;
	}
	return err;
}

static enum db_err put_random_token(struct buf *out, struct errmsg *em)
{
	uint8_t bytes[TOKEN_RANDOM_BYTES];
	size_t i;

	if (getentropy(bytes, sizeof(bytes)) != 0)
		return errmsg_errno(em, errno, "cannot get random bytes");
	for (i = 0; i < sizeof(bytes); i++)
		buf_printf(out, "%02x", bytes[i]);
	return DB_OK;
}

enum db_err token_create(const char *path, const char *preset, struct errmsg *em)
{
	struct buf out = {0};
	enum db_err err;

	if (access(path, F_OK) == 0)
		return DB_OK;
	if (preset == NULL) {
		err = put_random_token(&out, em);
	} else {
		err = check_token(preset, strlen(preset), "GRIZZLY_TOKEN", em);
		buf_puts(&out, preset);
	}
	buf_puts(&out, "\n");
	if (err == DB_OK)
		err = create_file(path, &out, em);
	buf_fini(&out);
	return err == DB_EXISTS ? DB_OK : err;
}

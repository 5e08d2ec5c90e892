/*
 * config.h - cluster.json: JSON with comments, read by the supervisor and by every node.
 *
 * Each key has a default, so the smallest file is {}. An error names file, line or key, and what was expected.
 * Comments are // to the end of the line and C style; a comma after the last item is allowed. Unknown keys are errors: a misspelt setting must not be ignored.
 */
#ifndef GRIZZLY_COMMON_BASE_CONFIG_H
#define GRIZZLY_COMMON_BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/log.h"

#define CONFIG_NODES_MAX   31
#define CONFIG_HOST_MAX    48
#define CONFIG_ADDRESS_MAX 64
#define CONFIG_PATH_MAX    256

#define CONFIG_REMOTE_NODES_MAX   64
#define CONFIG_REMOTE_ADDRESS_MAX 272 /* 253 of a name, its port, and the NUL */

/* How members of one host reach each other: over socket files, or over TCP like the others. */
enum replication_local { REPLICATION_IPC, REPLICATION_TCP };

enum client_certificates {
	CLIENT_CERTIFICATES_NONE,     /* none is asked for */
	CLIENT_CERTIFICATES_OPTIONAL, /* one that is shown must be good */
	CLIENT_CERTIFICATES_REQUIRED,
};

enum durability { DURABILITY_QUORUM, DURABILITY_ALL, DURABILITY_ASYNC };

struct cluster_config {
	uint8_t cluster_id[16];     /* "cluster": 32 hex digits; all zero when absent */
	unsigned replicas;          /* "replicas": 0..30; in the beginning: see common/base/members.h */
	char bind[CONFIG_HOST_MAX]; /* "bind": address that every socket binds to; "127.0.0.1" */
	bool insecure;              /* "insecure": false; true: bind may be reached from outside without TLS */
	unsigned http_port; /* "http_port": 8080; node i: http_port + i, replication + 100 + i, acks + 200 + i */
	enum durability durability;     /* "durability": "quorum" | "all" | "async" */
	uint64_t commit_timeout_ms;     /* "commit_timeout_ms": 5000 */
	unsigned commit_pipeline_depth; /* "commit_pipeline_depth": 2 */
	struct {
		uint64_t interval_ms; /* 100 */
		unsigned misses;      /* 3 */
		uint64_t probe_ms;    /* 1000: without a sync of the log for so long a node tries its disk */
		uint64_t stall_ms; /* 3000: a disk that completes no write for so long, or a writer that stands still */
	} heartbeat;
	struct {
		unsigned workers;                 /* 2 */
		size_t body_bytes_max;            /* 16 MiB */
		unsigned connections_max;         /* 4096 */
		unsigned address_connections_max; /* 2048; 0: no limit of its own */
		size_t requests_bytes_max;        /* 256 MiB */
		uint64_t request_timeout_ms;      /* 10000 */
		uint64_t idle_timeout_ms;         /* 60000 */
	} http;
	struct {
		uint64_t timeout_ms; /* 30000: of a request without timeout_ms; also the most a request may ask for… */
		uint64_t timeout_max_ms;   /* …unless this is set higher: 300000 */
		size_t sql_length_max;     /* 1 MiB */
		size_t statements_max;     /* 10000 */
		uint64_t inline_ops;       /* 20000: VM steps of a read before it moves to a slow-query thread */
		unsigned slow_threads;     /* 4 */
		uint64_t result_rows_max;  /* of a request that reads; 0: no limit */
		uint64_t result_bytes_max; /* likewise */
		unsigned slow_queue_max;   /* 256 waiting; beyond: OVERLOADED */
		unsigned write_queue_max;  /* 4096 waiting; beyond: OVERLOADED */
	} query;
	struct {
		size_t segment_size_bytes;      /* 16 MiB */
		uint64_t checkpoint_bytes;      /* 64 MiB */
		uint64_t transaction_bytes_max; /* 1 GiB */
		uint64_t low_space_bytes; /* 64 MiB: with less free on its disk a node takes no writes; 0: no mark */
	} store;
	struct {
		uint64_t count_max;  /* 100000: writes with a request_id that are remembered */
		uint64_t age_max_ms; /* one day */
		uint64_t bytes_max;  /* 64 MiB: of their answers */
	} retries;
	struct {
		uint64_t
		    keep_bytes;     /* 1 GiB: log kept for replicas that are behind. "store.keep_bytes" says the same */
		uint64_t max_bytes; /* 4 GiB: whoever holds more of it is cut off */
	} log;
	struct {
		char dir[CONFIG_PATH_MAX]; /* "": nothing is archived. Relative to the data directory */
		uint64_t interval_ms;      /* 10000: the most that commits wait to be archived */
	} archive;
	struct {
		/* Files in PEM form, relative to the data directory; all "": HTTP without TLS. */
		char cert_file[CONFIG_PATH_MAX]; /* the nodes' certificate, and those between it and its CA */
		char key_file[CONFIG_PATH_MAX];
		char ca_file[CONFIG_PATH_MAX]; /* whom members trust to be members; "": cert_file itself alone */
		char client_ca_file[CONFIG_PATH_MAX];
		enum client_certificates client_certificates; /* "none" | "optional" | "required" */
	} tls;
	struct {
		enum replication_local local; /* "ipc" | "tcp" */
	} replication;
	struct {
		unsigned max_connections; /* 10 */
		/* "nodes": {"host:port or pattern": {"token_file": "path", "tls": {"ca_file": "path"}}} */
		struct config_remote_node {
			char address[CONFIG_REMOTE_ADDRESS_MAX]; /* lower case */
			char token_file[CONFIG_PATH_MAX];        /* relative to the data directory */
			bool tls;                                /* asked with https */
			char ca_file[CONFIG_PATH_MAX];           /* relative, too; "": whom the system trusts */
		} nodes[CONFIG_REMOTE_NODES_MAX];
		size_t node_count;
		/* "allow": ["host:port or pattern", …] that may be asked, without a token */
		char allow[CONFIG_REMOTE_NODES_MAX][CONFIG_REMOTE_ADDRESS_MAX];
		size_t allow_count;
	} remote;
	struct {
		enum log_level level;   /* "level": "debug" | "info" | "warn" | "error" */
		enum log_format format; /* "format": "text" | "json" */
		uint64_t slow_query_ms; /* 0: requests that take longer are logged with their plan; 0: none is */
	} logging;                      /* the one section that a running cluster takes up, see config_reload() */
};

/* Addresses of node i, 1-based; "host:port" with [] around an IPv6 host. */
enum config_port { CONFIG_HTTP, CONFIG_REPLICATION, CONFIG_ACKS };
void config_node_address(const struct cluster_config *c, unsigned node, enum config_port which,
			 char out[CONFIG_ADDRESS_MAX]);
unsigned config_node_port(const struct cluster_config *c, unsigned node, enum config_port which);
void config_address(const struct cluster_config *c, unsigned port, char out[CONFIG_ADDRESS_MAX]); /* bind:port */
void config_endpoint_address(const struct cluster_config *c, char out[CONFIG_ADDRESS_MAX]);
unsigned config_node_count(const struct cluster_config *c); /* replicas + 1 */
/* Number of nodes, the master included, that must hold a record durably before it is acknowledged. */
unsigned config_ack_nodes(const struct cluster_config *c);
/* The same of any number of voting nodes. */
unsigned config_acks_of(enum durability durability, unsigned nodes);

void config_init(struct cluster_config *c); /* the defaults */
/* DB_NOTFOUND: no such file. DB_INVALID: the message names path, line or key, and what was expected. */
enum db_err config_load(struct cluster_config *c, const char *path, struct errmsg *em);
enum db_err config_parse(struct cluster_config *c, const char *text, size_t len, const char *path, struct errmsg *em);
/* A number by its place in the file's order, for whoever goes through all of them. False: there are no more. "hidden" is
 * another name of one that was given already. */
bool config_number(const struct cluster_config *c, size_t i, const char **section, const char **name, uint64_t *value,
		   bool *hidden);
/* As the file says it: "quorum". */
const char *config_durability_name(enum durability durability);
const char *config_client_certificates_name(enum client_certificates which);
const char *config_replication_local_name(enum replication_local local);
bool config_has_tls(const struct cluster_config *c);
/* Whether only this machine can reach what is bound to bind. */
bool config_is_loopback(const char *bind);
/* For who is about to bind. DB_INVALID: others than this machine would reach it without TLS, and "insecure" does not say that
 * this is wanted; the message says what the risk is. */
enum db_err config_check_exposure(const struct cluster_config *c, const char *path, struct errmsg *em);
/* Writes a new commented file (mode 0600, temp file, fsync, rename). DB_EXISTS: there is one already. */
enum db_err config_write_new(const struct cluster_config *c, const char *path, struct errmsg *em);

/* Reads a token file: one line, 16..256 printable characters without spaces; the environment is not looked at. The caller
 * frees *token. */
enum db_err token_load(char **token, const char *path, struct errmsg *em);
/* Creates path (0600) with 32 random bytes in hex, or with preset when that is not NULL. DB_OK when it exists already. */
enum db_err token_create(const char *path, const char *preset, struct errmsg *em);

#endif

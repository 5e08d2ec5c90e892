/*
 * remote_access.c - see remote_access.h. Tables made at the start and a cache of token files behind a mutex.
 *
 * Invariant: a token leaves remote_access_token() only for an address that an entry of remote.nodes covers, or that is
 * one of this cluster's own as the configuration spells it. Loopback and remote.allow open the door and give no key.
 */
#include "common/remote/remote_access.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A token file's content as it was when last looked at. */
struct token_cache {
	struct timespec modified;
	ino_t inode;
	off_t size;
	char token[REMOTE_TOKEN_MAX]; /* "": nothing is cached */
};

struct remote_access {
	const struct cluster_config *config;
	const char *own_token_path;
	char (*own)[CONFIG_ADDRESS_MAX]; /* the endpoint and the members */
	size_t own_count;
	pthread_mutex_t mutex; /* guards what follows */
	struct token_cache cache[CONFIG_REMOTE_NODES_MAX];
	struct token_cache own_cache;
};

/* ---- addresses and patterns */

/* Fills host, NUL-terminated and without []; *port is inside address. False: it is not host:port. */
static bool split(const char *address, char host[CONFIG_REMOTE_ADDRESS_MAX], const char **port)
{
	const char *colon = strrchr(address, ':');
	size_t len = colon != NULL ? (size_t)(colon - address) : 0;

	if (len == 0 || len >= CONFIG_REMOTE_ADDRESS_MAX)
		return false;
	memcpy(host, address, len);
	host[len] = '\0';
	*port = colon + 1;
	if (host[0] == '[' && host[len - 1] == ']') {
		memmove(host, host + 1, len - 2);
		host[len - 2] = '\0';
	}
	return true;
}

/* '*' stands for any run of characters. Goes back to the last star only, so in time proportional to the product at most. */
static bool glob(const char *pattern, const char *text)
{
	const char *star = NULL, *from = NULL;

	while (*text != '\0') {
		if (*pattern == '*') {
			star = pattern++;
			from = text;
		} else if (*pattern == *text) {
			pattern++;
			text++;
		} else if (star != NULL) {
			pattern = star + 1;
			text = ++from;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == '\0';
}

static bool is_ipv4(const char *host)
{
	struct in_addr address;

	return inet_pton(AF_INET, host, &address) == 1;
}

static bool is_ipv6(const char *host)
{
	struct in6_addr address;

	return inet_pton(AF_INET6, host, &address) == 1;
}

/* Two spellings of an IPv6 address are one address; anything else is its text. */
static bool same_host(const char *a, const char *b)
{
	struct in6_addr in_a, in_b;

	if (inet_pton(AF_INET6, a, &in_a) == 1 && inet_pton(AF_INET6, b, &in_b) == 1)
		return memcmp(&in_a, &in_b, sizeof(in_a)) == 0;
	return strcmp(a, b) == 0;
}

bool remote_access_matches(const char *pattern, const char *address)
{
	char pattern_host[CONFIG_REMOTE_ADDRESS_MAX], host[CONFIG_REMOTE_ADDRESS_MAX];
	const char *pattern_port, *port;

	if (!split(pattern, pattern_host, &pattern_port) || !split(address, host, &port))
		return false;
	if (strcmp(pattern_port, "*") != 0 && strtoul(pattern_port, NULL, 10) != strtoul(port, NULL, 10))
		return false;
	if (strchr(pattern_host, '*') == NULL)
		return same_host(pattern_host, host);
	/* What reads as part of an IP address covers no name: names can be registered to fit. */
	if (strcmp(pattern_host, "*") != 0) {
		if (strspn(pattern_host, "0123456789.*") == strlen(pattern_host) && !is_ipv4(host))
			return false;
		if (strchr(pattern_host, ':') != NULL && !is_ipv6(host))
			return false;
	}
	return glob(pattern_host, host);
}

static bool is_loopback(const char *address)
{
	char host[CONFIG_REMOTE_ADDRESS_MAX];
	struct in6_addr six;
	struct in_addr four;
	const char *port;

	if (!split(address, host, &port))
		return false;
	if (inet_pton(AF_INET, host, &four) == 1)
		return (ntohl(four.s_addr) >> 24) == 127;
	if (inet_pton(AF_INET6, host, &six) == 1)
		return IN6_IS_ADDR_LOOPBACK(&six);
	return strcmp(host, "localhost") == 0;
}

/* ---- tokens */

static bool is_unchanged(const struct token_cache *cache, const struct stat *st)
{
	return cache->token[0] != '\0' && cache->inode == st->st_ino && cache->size == st->st_size &&
	       cache->modified.tv_sec == st->st_mtim.tv_sec && cache->modified.tv_nsec == st->st_mtim.tv_nsec;
}

/* Looked at before it is read: a change in between is seen the next time. */
static enum db_err load_token(struct token_cache *cache, const char *path, struct errmsg *em)
{
	struct stat st;
	char *token;
	enum db_err err;

	memset(&st, 0, sizeof(st));
	if (stat(path, &st) == 0 && is_unchanged(cache, &st))
		return DB_OK;
	cache->token[0] = '\0';
	err = token_load(&token, path, em);
	if (err != DB_OK)
		return err;
	snprintf(cache->token, sizeof(cache->token), "%s", token);
	free(token);
	cache->modified = st.st_mtim;
	cache->inode = st.st_ino;
	cache->size = st.st_size;
	return DB_OK;
}

static enum db_err token_from(struct remote_access *a, struct token_cache *cache, const char *path, const char *address,
			      char token[REMOTE_TOKEN_MAX], struct errmsg *em)
{
	enum db_err err;

	pthread_mutex_lock(&a->mutex);
	err = load_token(cache, path, em);
	if (err == DB_OK)
		memcpy(token, cache->token, REMOTE_TOKEN_MAX);
	pthread_mutex_unlock(&a->mutex);
	if (err == DB_OK)
		return DB_OK;
	errmsg_context(em, "the token for %s", address);
	return err == DB_INVALID ? DB_IO : err; /* DB_INVALID says "not allowed" here */
}

/* The entry of remote.nodes for an address: an exact one before patterns; node_count when there is none. */
static size_t find_node(const struct remote_access *a, const char *address)
{
	const struct config_remote_node *nodes = a->config->remote.nodes;
	size_t i, found = a->config->remote.node_count;

	for (i = 0; i < a->config->remote.node_count; i++) {
		if (!remote_access_matches(nodes[i].address, address))
			continue;
		if (strchr(nodes[i].address, '*') == NULL)
			return i;
		if (found == a->config->remote.node_count)
			found = i;
	}
	return found;
}

static bool is_own(const struct remote_access *a, const char *address)
{
	size_t i;

	for (i = 0; i < a->own_count; i++)
		if (remote_access_matches(a->own[i], address))
			return true;
	return false;
}

static bool is_allowed(const struct remote_access *a, const char *address)
{
	size_t i;

	for (i = 0; i < a->config->remote.allow_count; i++)
		if (remote_access_matches(a->config->remote.allow[i], address))
			return true;
	return is_loopback(address);
}

enum db_err remote_access_token(struct remote_access *a, const char *address, char token[REMOTE_TOKEN_MAX],
				struct errmsg *em)
{
	size_t node = find_node(a, address);

	token[0] = '\0';
	if (node < a->config->remote.node_count)
		return token_from(a, &a->cache[node], a->config->remote.nodes[node].token_file, address, token, em);
	if (is_own(a, address))
		return token_from(a, &a->own_cache, a->own_token_path, address, token, em);
	if (is_allowed(a, address))
		return DB_OK;
	return errmsg_set(em, DB_INVALID,
			  "%s: it is neither this cluster's own nor a loopback address, and "
			  "cluster.json names it neither in remote.nodes nor in remote.allow",
			  address);
}

void remote_access_tls(const void *access, const char *address, bool member, struct client_tls *tls)
{
	const struct remote_access *a = access;
	const struct config_remote_node *node;
	size_t i = member ? a->config->remote.node_count : find_node(a, address);

	memset(tls, 0, sizeof(*tls));
	if (member || (i == a->config->remote.node_count && is_own(a, address))) {
		client_tls_own(tls, a->config);
	} else if (i < a->config->remote.node_count) {
		node = &a->config->remote.nodes[i];
		tls->on = node->tls;
		tls->ca_file = node->ca_file[0] != '\0' ? node->ca_file : NULL;
	}
}

/* ---- life */

/* Where every address is bound to, the loopback ones lead to us, too. */
static void add_own(struct remote_access *a, const char *address)
{
	static const struct {
		const char *any, *loopback;
	} wildcards[] = {{"0.0.0.0", "127.0.0.1"}, {"::", "[::1]"}};
	char host[CONFIG_REMOTE_ADDRESS_MAX];
	const char *port;
	size_t i;

	snprintf(a->own[a->own_count++], CONFIG_ADDRESS_MAX, "%s", address);
	if (!split(address, host, &port))
		return;
	for (i = 0; i < sizeof(wildcards) / sizeof(wildcards[0]); i++)
		if (strcmp(host, wildcards[i].any) == 0)
			snprintf(a->own[a->own_count++], CONFIG_ADDRESS_MAX, "%s:%.5s", wildcards[i].loopback, port);
}

enum db_err remote_access_create(struct remote_access **out, const struct cluster_config *config,
				 const char *own_token_path, struct errmsg *em)
{
	struct remote_access *a = calloc(1, sizeof(*a));
	char address[CONFIG_ADDRESS_MAX];
	unsigned node;

	*out = NULL;
	if (a == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	a->own = calloc(2 * ((size_t)config_node_count(config) + 1), sizeof(*a->own));
	if (a->own == NULL) {
		free(a);
		return errmsg_set(em, DB_NOMEM, "out of memory");
	}
	a->config = config;
	a->own_token_path = own_token_path;
	pthread_mutex_init(&a->mutex, NULL);
	config_endpoint_address(config, address);
	add_own(a, address);
	for (node = 1; node <= config_node_count(config); node++) {
		config_node_address(config, node, CONFIG_HTTP, address);
		add_own(a, address);
	}
	*out = a;
	return DB_OK;
}

void remote_access_free(struct remote_access *a)
{
	if (a == NULL)
		return;
	pthread_mutex_destroy(&a->mutex);
	free(a->own);
	explicit_bzero(a->cache, sizeof(a->cache));
	explicit_bzero(&a->own_cache, sizeof(a->own_cache));
	free(a);
}

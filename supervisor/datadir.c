/* datadir.c - see datadir.h. */
#include "supervisor/datadir.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/auth/auth.h"
#include "common/base/buf.h"
#include "common/base/log.h"
#include "supervisor/launcher.h"

#define CONFIG_FILE_MAX ((size_t)1 << 20)
#define RETIRED_MAX     1000u
#define HEIR_MS         2000u /* how long a lock of a dead supervisor's may last, see holder_is_dead() */
#define HEIR_LOOK_MS    10

static enum db_err make_directories(const char *path, struct errmsg *em)
{
	char part[PATH_MAX];
	char *slash;
	int n = snprintf(part, sizeof(part), "%s", path);

	if (n <= 0 || (size_t)n >= sizeof(part))
		return errmsg_set(em, DB_INVALID, "\"%s\" is no possible directory", path);
	for (slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(part, 0777) != 0 && errno != EEXIST)
			return errmsg_errno(em, errno, "cannot create \"%s\"", part);
		*slash = '/';
	}
	if (mkdir(part, 0700) != 0 && errno != EEXIST)
		return errmsg_errno(em, errno, "cannot create \"%s\"", part);
	return DB_OK;
}

enum db_err datadir_absolute(char out[PATH_MAX], const char *path, struct errmsg *em)
{
	char here[PATH_MAX] = "";
	int n;

	if (path[0] != '/' && getcwd(here, sizeof(here)) == NULL)
		return errmsg_errno(em, errno, "the current directory has no usable path");
	n = snprintf(out, PATH_MAX, "%s%s%s", here, path[0] != '/' ? "/" : "", path);
	return n < PATH_MAX ? DB_OK : errmsg_set(em, DB_INVALID, "\"%s\" is too long", path);
}

enum db_err datadir_enter(const char *path, bool create, struct errmsg *em)
{
	enum db_err err = create ? make_directories(path, em) : DB_OK;

	if (err == DB_OK && chdir(path) != 0)
		err = errmsg_errno(em, errno, "cannot enter the data directory \"%s\"", path);
	return err;
}

enum db_err datadir_prepare(struct errmsg *em)
{
	static const char *const names[] = {"run", "log"};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (mkdir(names[i], 0700) != 0 && errno != EEXIST)
			return errmsg_errno(em, errno, "cannot create \"%s\" in the data directory", names[i]);
		/* Whoever can enter run/ controls the cluster. */
		if (chmod(names[i], 0700) != 0)
			return errmsg_errno(em, errno, "cannot protect \"%s\" in the data directory", names[i]);
	}
	return DB_OK;
}

/* ---- the lock */

static pid_t read_pid(int fd)
{
	char text[32];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	long pid;

	if (n <= 0)
		return 0;
	text[n] = '\0';
	pid = strtol(text, NULL, 10);
	return pid > 0 && pid <= INT_MAX ? (pid_t)pid : 0;
}

/* A process that a killed supervisor was just starting has its parent's lock until it becomes a node's program. */
static bool holder_is_dead(int fd)
{
	pid_t pid = read_pid(fd);
	struct process p;
	enum db_err err;

	if (pid == 0)
		return false;
	err = process_adopt(&p, pid, 0, NULL);
	if (err == DB_OK)
		process_close(&p);
	return err == DB_NOTFOUND;
}

/* False: errno says why. */
static bool lock_now_or_soon(int fd)
{
	unsigned waited_ms = 0;
	int error;

	while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		error = errno;
		if (error != EWOULDBLOCK || waited_ms >= HEIR_MS || !holder_is_dead(fd)) {
			errno = error;
			return false;
		}
		poll(NULL, 0, HEIR_LOOK_MS);
		waited_ms += HEIR_LOOK_MS;
	}
	return true;
}

enum db_err datadir_lock(int *out, pid_t *holder, struct errmsg *em)
{
	enum db_err err;
	char text[32];
	int fd;
	int n;

	*out = -1;
	*holder = 0;
	fd = open(DATADIR_LOCK, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return errmsg_errno(em, errno, "cannot open \"%s\"", DATADIR_LOCK);
	if (!lock_now_or_soon(fd)) {
		err = errno == EWOULDBLOCK ? errmsg_set(em, DB_BUSY, "a supervisor runs already")
					   : errmsg_errno(em, errno, "cannot lock \"%s\"", DATADIR_LOCK);
		*holder = err == DB_BUSY ? read_pid(fd) : 0;
		close(fd);
		return err;
	}
	n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n) {
		err = errmsg_errno(em, errno, "cannot write \"%s\"", DATADIR_LOCK);
		close(fd);
		return err;
	}
	*out = fd;
	return DB_OK;
}

pid_t datadir_lock_holder(void)
{
	pid_t pid = 0;
	int fd = open(DATADIR_LOCK, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	if (flock(fd, LOCK_SH | LOCK_NB) != 0)
		pid = read_pid(fd);
	close(fd);
	return pid;
}

/* ---- configuration */

static enum db_err random_cluster_id(uint8_t id[16], struct errmsg *em)
{
	ssize_t n = getrandom(id, 16, 0);

	return n == 16 ? DB_OK : errmsg_errno(em, errno, "cannot make a cluster id");
}

static bool is_zero(const uint8_t id[16])
{
	static const uint8_t zero[16];

	return memcmp(id, zero, 16) == 0;
}

static enum db_err contradiction(const char *key, const char *path, struct errmsg *em)
{
	if (strcmp(key, "replicas") == 0)
		return errmsg_set(
		    em, DB_INVALID,
		    "the option for \"replicas\" contradicts \"%s\" in the data directory: leave it out; members of an "
		    "existing cluster are added and removed with grizzly-supervisor add-replica and remove-replica",
		    path);
	return errmsg_set(
	    em, DB_INVALID,
	    "the option for \"%s\" contradicts \"%s\" in the data directory: change it there, or leave the "
	    "option out",
	    key, path);
}

/* Options that differ from what is configured are errors: following either in silence would surprise somebody. */
static enum db_err check_options(const struct cluster_config *c, const struct datadir_options *o, struct errmsg *em)
{
	if (o->has_replicas && o->replicas != c->replicas)
		return contradiction("replicas", DATADIR_CONFIG, em);
	if (o->has_http_port && o->http_port != c->http_port)
		return contradiction("http_port", DATADIR_CONFIG, em);
	if (o->bind != NULL && strcmp(o->bind, c->bind) != 0)
		return contradiction("bind", DATADIR_CONFIG, em);
	return DB_OK;
}

static enum db_err read_file(struct buf *b, int dir, const char *path, struct errmsg *em)
{
	enum db_err err = DB_OK;
	ssize_t n;
	int fd;

	fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errmsg_errno(em, errno, "cannot open \"%s\"", path);
	do {
		if (b->len > CONFIG_FILE_MAX) {
			err = errmsg_set(em, DB_TOO_LARGE, "\"%s\" is too large for a configuration", path);
			break;
		}
		if (!buf_reserve(b, 4096)) {
			err = errmsg_set(em, DB_NOMEM, "no memory to read \"%s\"", path);
			break;
		}
		n = read(fd, b->data + b->len, 4096);
		if (n < 0)
			err = errmsg_errno(em, errno, "cannot read \"%s\"", path);
		else
			b->len += (size_t)n;
	} while (n > 0);
	close(fd);
	return err;
}

static enum db_err read_given(struct cluster_config *c, struct buf *text, const struct datadir_options *o, int dir,
			      struct errmsg *em)
{
	enum db_err err = read_file(text, dir, o->config_path, em);

	if (err != DB_OK)
		return err == DB_NOTFOUND ? errmsg_set(em, DB_INVALID, "there is no \"%s\"", o->config_path) : err;
	config_init(c);
	return config_parse(c, (const char *)text->data, text->len, o->config_path, em);
}

/* Skips white space and comments. */
static size_t skip_blank(const struct buf *b, size_t i)
{
	const char *s = (const char *)b->data;

	while (i < b->len) {
		if (strchr(" \t\r\n", s[i]) != NULL && s[i] != '\0') {
			i++;
		} else if (i + 1 < b->len && s[i] == '/' && s[i + 1] == '/') {
			while (i < b->len && s[i] != '\n')
				i++;
		} else if (i + 1 < b->len && s[i] == '/' && s[i + 1] == '*') {
			for (i += 2; i + 1 < b->len && !(s[i] == '*' && s[i + 1] == '/'); i++)
				;
			i += 2;
		} else {
			break;
		}
	}
	return i < b->len ? i : b->len;
}

/* Puts members in front of those of the object in text. */
static void insert_members(struct buf *out, const struct buf *text, const struct buf *members)
{
	size_t open = skip_blank(text, 0);
	size_t next = skip_blank(text, open + 1);

	buf_put(out, text->data, open + 1);
	buf_put(out, members->data, members->len);
	if (next < text->len && text->data[next] != '}')
		buf_puts(out, ",");
	buf_put(out, text->data + open + 1, text->len - open - 1);
}

static void cluster_id_text(const uint8_t id[16], char out[33])
{
	size_t i;

	for (i = 0; i < 16; i++)
		snprintf(out + 2 * i, 3, "%02x", id[i]);
}

/* Writes another id over the one that text gives, wherever it stands, for both are as long. */
static enum db_err renew_cluster_id(struct buf *text, const struct cluster_config *c, struct errmsg *em)
{
	char old[33], fresh[33];
	uint8_t id[16];
	enum db_err err = random_cluster_id(id, em);
	size_t i;

	cluster_id_text(c->cluster_id, old);
	cluster_id_text(id, fresh);
	for (i = 0; err == DB_OK && i + 32 <= text->len; i++)
		if (strncasecmp((const char *)text->data + i, old, 32) == 0)
			memcpy(text->data + i, fresh, 32);
	return err;
}

static void put_cluster_id(struct buf *b, const uint8_t id[16])
{
	char text[33];

	cluster_id_text(id, text);
	buf_printf(b, "\n\t\"cluster\": \"%s\"", text);
}

static enum db_err write_new_text(const struct buf *b, struct errmsg *em)
{
	static const char temp[] = DATADIR_CONFIG ".new";
	enum db_err err = DB_OK;
	int fd;

	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return errmsg_errno(em, errno, "cannot create \"%s\"", temp);
	if (write(fd, b->data, b->len) != (ssize_t)b->len || fsync(fd) != 0)
		err = errmsg_errno(em, errno, "cannot write \"%s\"", temp);
	close(fd);
	if (err == DB_OK && rename(temp, DATADIR_CONFIG) != 0)
		err = errmsg_errno(em, errno, "cannot rename \"%s\"", temp);
	return err;
}

/* First start with a configuration given: it is copied with its comments, the options and a cluster id added. */
static enum db_err copy_given(struct cluster_config *c, const struct datadir_options *o, int dir, struct errmsg *em)
{
	struct buf text = {0};
	struct buf members = {0};
	struct buf whole = {0};
	uint8_t id[16];
	enum db_err err;

	err = read_given(c, &text, o, dir, em);
	if (err == DB_OK && o->new_cluster && !is_zero(c->cluster_id))
		err = renew_cluster_id(&text, c, em);
	if (err == DB_OK && is_zero(c->cluster_id)) {
		err = random_cluster_id(id, em);
		put_cluster_id(&members, id);
	}
	if (err != DB_OK)
		goto fini;
	if (o->has_replicas && o->replicas != c->replicas)
		buf_printf(&members, "%s\n\t\"replicas\": %u", members.len > 0 ? "," : "", o->replicas);
	if (o->has_http_port && o->http_port != c->http_port)
		buf_printf(&members, "%s\n\t\"http_port\": %u", members.len > 0 ? "," : "", o->http_port);
	if (o->bind != NULL && strcmp(o->bind, c->bind) != 0)
		buf_printf(&members, "%s\n\t\"bind\": \"%s\"", members.len > 0 ? "," : "", o->bind);
	if (members.len > 0)
		insert_members(&whole, &text, &members);
	else
		buf_put(&whole, text.data, text.len);
	if (whole.failed || members.failed) {
		err = errmsg_set(em, DB_NOMEM, "no memory for the configuration");
		goto fini;
	}
	/* A key that the file sets too is now there twice, or wins: both mean that the option contradicts it. */
	config_init(c);
	err = config_parse(c, (const char *)whole.data, whole.len, o->config_path, em);
	if (err == DB_OK)
		err = check_options(c, o, em);
	if (err == DB_OK)
		err = write_new_text(&whole, em);
fini:
	buf_fini(&text);
	buf_fini(&members);
	buf_fini(&whole);
	return err;
}

static enum db_err create_config(struct cluster_config *c, const struct datadir_options *o, struct errmsg *em)
{
	enum db_err err;

	config_init(c);
	c->replicas = o->has_replicas ? o->replicas : 2;
	if (o->has_http_port)
		c->http_port = o->http_port;
	if (o->bind != NULL) {
		if (strlen(o->bind) >= sizeof(c->bind))
			return errmsg_set(em, DB_INVALID, "address \"%s\" is too long", o->bind);
		memcpy(c->bind, o->bind, strlen(o->bind) + 1);
	}
	err = random_cluster_id(c->cluster_id, em);
	return err == DB_OK ? config_write_new(c, DATADIR_CONFIG, em) : err;
}

struct compared_key {
	const char *key;
	size_t offset;
	size_t size;
};

#define COMPARED(key, field)                                                                                           \
	{                                                                                                              \
		key, offsetof(struct cluster_config, field), sizeof(((struct cluster_config *)0)->field)               \
	}

/* --config with an existing cluster.json: the same again is fine, anything else is not followed in silence. */
static enum db_err compare_given(const struct cluster_config *c, const struct datadir_options *o, int dir,
				 struct errmsg *em)
{
	static const struct compared_key keys[] = {
	    COMPARED("replicas", replicas),
	    COMPARED("http_port", http_port),
	    COMPARED("durability", durability),
	    COMPARED("commit_timeout_ms", commit_timeout_ms),
	    COMPARED("heartbeat.interval_ms", heartbeat.interval_ms),
	    COMPARED("heartbeat.misses", heartbeat.misses),
	    COMPARED("heartbeat.probe_ms", heartbeat.probe_ms),
	    COMPARED("heartbeat.stall_ms", heartbeat.stall_ms),
	    COMPARED("http.workers", http.workers),
	    COMPARED("http.body_bytes_max", http.body_bytes_max),
	    COMPARED("http.connections_max", http.connections_max),
	    COMPARED("http.address_connections_max", http.address_connections_max),
	    COMPARED("http.requests_bytes_max", http.requests_bytes_max),
	    COMPARED("http.request_timeout_ms", http.request_timeout_ms),
	    COMPARED("http.idle_timeout_ms", http.idle_timeout_ms),
	    COMPARED("query.timeout_ms", query.timeout_ms),
	    COMPARED("query.timeout_max_ms", query.timeout_max_ms),
	    COMPARED("query.sql_length_max", query.sql_length_max),
	    COMPARED("query.statements_max", query.statements_max),
	    COMPARED("query.inline_ops", query.inline_ops),
	    COMPARED("query.slow_threads", query.slow_threads),
	    COMPARED("query.slow_queue_max", query.slow_queue_max),
	    COMPARED("query.result_rows_max", query.result_rows_max),
	    COMPARED("query.result_bytes_max", query.result_bytes_max),
	    COMPARED("query.write_queue_max", query.write_queue_max),
	    COMPARED("store.segment_size_bytes", store.segment_size_bytes),
	    COMPARED("store.checkpoint_bytes", store.checkpoint_bytes),
	    COMPARED("store.transaction_bytes_max", store.transaction_bytes_max),
	    COMPARED("store.low_space_bytes", store.low_space_bytes),
	    COMPARED("log.keep_bytes", log.keep_bytes),
	    COMPARED("log.max_bytes", log.max_bytes),
	    COMPARED("archive.interval_ms", archive.interval_ms),
	    COMPARED("remote.max_connections", remote.max_connections),
	};
	struct cluster_config given;
	struct datadir_options seen = *o;
	struct buf text = {0};
	enum db_err err;
	size_t i;

	memset(&given, 0, sizeof(given));
	err = read_given(&given, &text, &seen, dir, em);
	buf_fini(&text);
	if (err != DB_OK)
		return err;
	if (!is_zero(given.cluster_id) && memcmp(given.cluster_id, c->cluster_id, sizeof(c->cluster_id)) != 0)
		return errmsg_set(em, DB_INVALID, "\"%s\" is of another cluster than the data directory (\"cluster\")",
				  o->config_path);
	if (o->bind == NULL && strcmp(given.bind, c->bind) != 0)
		return contradiction("bind", DATADIR_CONFIG, em);
	if (strcmp(given.archive.dir, c->archive.dir) != 0)
		return contradiction("archive.dir", DATADIR_CONFIG, em);
	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const struct compared_key *k = &keys[i];
		bool overridden = (o->has_replicas && strcmp(k->key, "replicas") == 0) ||
				  (o->has_http_port && strcmp(k->key, "http_port") == 0);

		if (!overridden && memcmp((char *)&given + k->offset, (const char *)c + k->offset, k->size) != 0)
			return errmsg_set(em, DB_INVALID, "\"%s\" contradicts \"%s\" in the data directory in \"%s\"",
					  o->config_path, DATADIR_CONFIG, k->key);
	}
	return DB_OK;
}

enum db_err datadir_config(struct cluster_config *config, const struct datadir_options *o, int original_dir,
			   struct errmsg *em)
{
	enum db_err err;

	if (access(DATADIR_CONFIG, F_OK) != 0) {
		err = o->config_path != NULL ? copy_given(config, o, original_dir, em) : create_config(config, o, em);
		if (err != DB_OK)
			return err;
	}
	config_init(config);
	err = config_load(config, DATADIR_CONFIG, em);
	if (err != DB_OK)
		return err;
	if (is_zero(config->cluster_id))
		return errmsg_set(em, DB_INVALID, "\"%s\" has no \"cluster\": 32 hex digits", DATADIR_CONFIG);
	err = check_options(config, o, em);
	if (err == DB_OK)
		err = config_check_exposure(config, DATADIR_CONFIG, em);
	if (err == DB_OK && o->config_path != NULL && !o->new_cluster)
		err = compare_given(config, o, original_dir, em);
	return err;
}

/* Of an address that only this host reaches, or of all of them, among which there are such. */
static bool has_loopback(const char *host)
{
	struct in6_addr six;
	struct in_addr four;

	if (inet_pton(AF_INET, host, &four) == 1)
		return ntohl(four.s_addr) >> 24 == 127 || four.s_addr == htonl(INADDR_ANY);
	if (inet_pton(AF_INET6, host, &six) == 1)
		return IN6_IS_ADDR_LOOPBACK(&six) || IN6_IS_ADDR_UNSPECIFIED(&six);
	return strcmp(host, "localhost") == 0;
}

enum db_err datadir_token(const struct cluster_config *config, struct errmsg *em)
{
	const char *preset = getenv("GRIZZLY_TOKEN");
	struct token_file f;
	enum db_err err;

	if (preset != NULL && strcmp(preset, AUTH_WELL_KNOWN) == 0 && access(DATADIR_TOKEN, F_OK) != 0 &&
	    !has_loopback(config->bind))
		return errmsg_set(em, DB_INVALID,
				  "GRIZZLY_TOKEN is a token that everybody knows: it works on loopback addresses only, "
				  "and \"bind\" is %s",
				  config->bind);
	err = token_create(DATADIR_TOKEN, preset != NULL && preset[0] != '\0' ? preset : NULL, em);
	if (err != DB_OK)
		return err;
	err = token_file_load(&f, DATADIR_TOKENS, config->cluster_id, em);
	token_file_fini(&f);
	if (err == DB_CORRUPT)
		errmsg_context(em, "restore it, or remove it and make new tokens");
	return err == DB_NOTFOUND ? DB_OK : err == DB_CORRUPT ? DB_INVALID : err;
}

/* The number in "node<i>"; 0: it is no such name. */
static unsigned node_number(const char *name)
{
	unsigned long v;
	char *end;

	if (strncmp(name, "node", 4) != 0 || name[4] < '1' || name[4] > '9')
		return 0;
	v = strtoul(name + 4, &end, 10);
	return *end == '\0' && v <= CONFIG_NODES_MAX ? (unsigned)v : 0;
}

unsigned datadir_last_node(void)
{
	unsigned last = 0;
	struct dirent *entry;
	DIR *dir = opendir(".");

	while (dir != NULL && (entry = readdir(dir)) != NULL)
		if (node_number(entry->d_name) > last)
			last = node_number(entry->d_name);
	if (dir != NULL)
		closedir(dir);
	return last;
}

/* A name that nothing has yet. */
static enum db_err free_name(char out[PATH_MAX], const char *base, struct errmsg *em)
{
	unsigned i;

	snprintf(out, PATH_MAX, "%s", base);
	for (i = 2; access(out, F_OK) == 0; i++) {
		if (i > RETIRED_MAX)
			return errmsg_set(em, DB_FULL, "there are too many of \"%s\": remove some", base);
		snprintf(out, PATH_MAX, "%s.%u", base, i);
	}
	return DB_OK;
}

static enum db_err set_aside(const char *from, const char *base, struct errmsg *em)
{
	char to[PATH_MAX];
	enum db_err err;

	if (access(from, F_OK) != 0)
		return DB_OK;
	err = free_name(to, base, em);
	if (err == DB_OK && rename(from, to) != 0)
		err = errmsg_errno(em, errno, "cannot rename \"%s\" to \"%s\"", from, to);
	if (err == DB_OK)
		log_info("what was in \"%s\" is kept in \"%s\"", from, to);
	return err;
}

enum db_err datadir_retire(unsigned node, struct errmsg *em)
{
	char from[64], base[64];
	enum db_err err;

	snprintf(from, sizeof(from), "node%u", node);
	snprintf(base, sizeof(base), "node%u.removed", node);
	err = set_aside(from, base, em);
	snprintf(from, sizeof(from), "node%u.state", node);
	snprintf(base, sizeof(base), "node%u.removed.state", node);
	return err == DB_OK ? set_aside(from, base, em) : err;
}

bool datadir_has_nodes(void)
{
	bool found = false;
	struct dirent *entry;
	DIR *dir = opendir(".");

	if (dir == NULL)
		return true; /* when in doubt it is not the first start: that one trusts an empty node1 */
	while (!found && (entry = readdir(dir)) != NULL)
		found = strncmp(entry->d_name, "node", 4) == 0 && entry->d_name[4] >= '0' && entry->d_name[4] <= '9';
	closedir(dir);
	return found;
}

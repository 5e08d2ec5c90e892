/*
 * datadir.h - a cluster's data directory: made at the first start, checked and locked at every one.
 *
 *   cluster.json     configuration, written once        run/   sockets, locks, supervisor.json (mode 0700)
 *   token            the clients' token (mode 0600)     log/   a file for each process
 *   tokens           further tokens, hashed (0600)      node<i>/  a node's own
 *   supervisor.term  term, members
 *                                                   node<i>.removed  what a member that was removed had
 *
 * The process works inside the directory from datadir_enter() on; all other paths of the supervisor are relative.
 */
#ifndef GRIZZLY_SUPERVISOR_DATADIR_H
#define GRIZZLY_SUPERVISOR_DATADIR_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "common/base/config.h"
#include "common/base/err.h"

#define DATADIR_CONFIG    "cluster.json"
#define DATADIR_TOKEN     "token"
#define DATADIR_TOKENS    "tokens"
#define DATADIR_TERM      "supervisor.term"
#define DATADIR_RUN       "run"
#define DATADIR_ROSTER    "run/supervisor.json"
#define DATADIR_LOCK      "run/supervisor.lock"
#define DATADIR_CONTROL   "run/supervisor.ctl"
#define DATADIR_NO_MASTER "run/no-master" /* why there is none, while there is none */
#define DATADIR_LOG       "log/supervisor.log"

/* What the command line says about the configuration; the rest is cluster.json's business. */
struct datadir_options {
	const char *config_path; /* NULL: none. Relative to where the command was given */
	bool has_replicas;
	bool has_http_port;
	const char *bind; /* NULL: not given */
	unsigned replicas;
	unsigned http_port;
	bool new_cluster; /* a "cluster" in config_path is replaced by a new one */
};

/* path, which is relative to the current directory, in a form that stays right after datadir_enter(). */
enum db_err datadir_absolute(char out[PATH_MAX], const char *path, struct errmsg *em);
/* mkdir -p (0700) where create is true, then chdir. DB_NOTFOUND, DB_IO. */
enum db_err datadir_enter(const char *path, bool create, struct errmsg *em);
/* run/ and log/. */
enum db_err datadir_prepare(struct errmsg *em);

/* Takes run/supervisor.lock for the life of *fd. DB_BUSY: *holder is the pid of who has it (0: not known yet). That of a
 * supervisor that was killed while it started a process is waited for, some milliseconds in all likelihood. */
enum db_err datadir_lock(int *fd, pid_t *holder, struct errmsg *em);
/* The pid in the lock file, if somebody holds it; else 0. */
pid_t datadir_lock_holder(void);

/* Loads cluster.json, or writes it from the options at the first start. original_dir: where relative paths of the
 * options begin. DB_INVALID: wrong, or an option contradicts it; the message names the key. */
enum db_err datadir_config(struct cluster_config *config, const struct datadir_options *o, int original_dir,
			   struct errmsg *em);
/* The first token's file, from GRIZZLY_TOKEN or at random, when there is none. DB_INVALID: that token is the
 * well-known one, and the cluster is bound to an address where nobody could use it; or the tokens file, which is
 * looked at as well, cannot be used. */
enum db_err datadir_token(const struct cluster_config *config, struct errmsg *em);
/* The highest i of the node<i> directories; 0: there is none. */
unsigned datadir_last_node(void);
/* Moves node<node>, if it is there, to node<node>.removed (or .removed.2, …), so that nothing of it is used or lost. */
enum db_err datadir_retire(unsigned node, struct errmsg *em);
/* Is there any node<i> directory? */
bool datadir_has_nodes(void);

#endif

/*
 * commands.h - the command line: run, status, switchover, add-replica, remove-replica, replicas, backup, restore, stop, events,
 * salvage, recover, token, check-config, reload, restart, selftest. Each returns the exit code of the program.
 *
 * Messages for people go to stderr, results to stdout. Main thread.
 */
#ifndef GRIZZLY_SUPERVISOR_COMMANDS_H
#define GRIZZLY_SUPERVISOR_COMMANDS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/archive/replay.h"
#include "common/auth/role.h"
#include "common/wire/wire.h"
#include "supervisor/cluster.h"
#include "supervisor/datadir.h"
#include "supervisor/timeline_show.h"

enum exit_code { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_UNREACHABLE = 3 };

struct run_options {
	const char *data_dir;
	bool daemon;
	struct datadir_options config;
};

struct backup_options {
	const char *data_dir;
	const char *to;
	const char *node; /* NULL: the best */
	bool force;
	bool progress; /* lines, also where stderr is no terminal */
	bool offline;
};

struct restore_options {
	const char *data_dir;
	const char *from;
	const char *archive; /* NULL: the backup as it is */
	struct replay_goal goal;
	struct datadir_options config; /* of the new cluster */
};

struct selftest_options {
	const char *data_dir;
	unsigned seconds;
	unsigned replicas;
	bool json;
	bool keep; /* the scratch directory */
};

/* command_line.c: the whole program */
int command_line(int argc, char **argv);

/* run.c */
enum exit_code command_run(const struct run_options *o);

/* backup.c */
enum exit_code command_backup(const struct backup_options *o);

/* restore.c */
enum exit_code command_restore(const struct restore_options *o);

/* commands.c */
enum exit_code command_status(const char *data_dir, bool json, bool watch);
enum exit_code command_switchover(const char *data_dir, const char *to); /* to NULL: the best replica */
/* The same for one who has entered the data directory; data_dir is for messages only. */
enum exit_code command_hand_over(const char *data_dir, const char *to);
enum exit_code command_add_replica(const char *data_dir, const char *address, bool readonly);
enum exit_code command_remove_replica(const char *data_dir, const char *address);
enum exit_code command_replicas(const char *data_dir, bool json);
enum exit_code command_stop(const char *data_dir);
enum exit_code command_reload(const char *data_dir);
enum exit_code command_events(const char *data_dir, const struct timeline_view *view);

/* Asking the supervisor; also commands.c. Goes into the data directory; an error has been printed. */
enum exit_code command_enter(const char *data_dir);
/* Sends a JSON text with "command"; *answer is the text of the reply, in memory owned by reply. */
enum db_err command_ask(const char *request, struct buf *reply, struct wire_text *answer, struct errmsg *em);
/* Prints why nobody could be asked. */
enum exit_code command_unreachable(const char *data_dir, enum db_err err, const struct errmsg *em);

/* An answer of supervisor/answers.h that is no document. */
struct command_result {
	char status[16]; /* "ok", "running", "error" */
	char code[32];
	char message[CLUSTER_TEXT_MAX];
	uint64_t id;
	pid_t pid;
};
enum db_err command_ask_for_result(const char *request, struct command_result *out, struct errmsg *em);

/* restart.c: "node2", "all" or "supervisor" */
enum exit_code command_restart(const char *data_dir, const char *what);

/* token.c */
enum exit_code command_token_add(const char *data_dir, const char *name, enum auth_role role, uint64_t expires_us);
enum exit_code command_token_list(const char *data_dir, bool json);
enum exit_code command_token_revoke(const char *data_dir, const char *name);

/* check_config.c: that of the data directory, or the file; either may be NULL, not both */
enum exit_code command_check_config(const char *data_dir, const char *config_path);

/* salvage.c */
enum exit_code command_salvage(const char *data_dir, bool json);

/* selftest.c */
enum exit_code command_selftest(const struct selftest_options *options);

/* recover.c */
enum exit_code command_recover(const char *data_dir, bool accept_loss);

#endif

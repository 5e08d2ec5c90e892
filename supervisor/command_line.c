/*
 * command_line.c - the options of grizzly-supervisor, handed over to supervisor/run.c or supervisor/commands.c.
 *
 * Apart from main.c so that tests can be the program.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "supervisor/commands.h"
#include "supervisor/time_text.h"

#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "unknown"
#endif

#define PORT_MAX             65535u
#define REPLICAS_MAX         (CONFIG_NODES_MAX - 1)
#define DAYS_MAX             36500u
#define SELFTEST_SECONDS     30u
#define SELFTEST_SECONDS_MAX (7 * 86400u)

static const char usage_text[] =
    "usage: grizzly-supervisor COMMAND --data-dir D [OPTION]...\n"
    "\n"
    "commands\n"
    "  run         start the cluster in D, or take over one that runs there\n"
    "      --config F      configuration to begin with; becomes D/cluster.json at the first start\n"
    "      --replicas N    replicas beside the master, 0 to 30 (first start; 2)\n"
    "      --http-port P   port of the endpoint; node i uses P+i, P+100+i, P+200+i (first start; 8080)\n"
    "      --bind A        address to bind (first start; 127.0.0.1)\n"
    "      --daemon        go to the background once the supervisor is up\n"
    "  status      show master, nodes and their state\n"
    "      --json          as JSON\n"
    "      --watch         again every second\n"
    "  switchover  hand over to another master without losing a request\n"
    "      --to ID         to this node, e.g. node2 (the most advanced replica)\n"
    "  add-replica ADDRESS     start a node at host:port and make it a member (port: http-port + number)\n"
    "      --readonly      it serves reads and never votes\n"
    "  remove-replica ADDRESS  end a member, by its address or id; what it had is kept in D/nodeN.removed\n"
    "  replicas    show the members\n"
    "      --json          as JSON\n"
    "  backup      copy the database to a file while the cluster runs\n"
    "      --to FILE       the file; FILE.json beside it says what it holds\n"
    "      --node ID       from this node (a replica that has all, else the master)\n"
    "      --offline       from the files of nodes that do not run\n"
    "      --force         replace FILE\n"
    "      --progress      a line about it every second\n"
    "  restore     make a new cluster's data directory from a backup or any SQLite file\n"
    "      --from FILE     what to restore\n"
    "      --archive DIR   go on from FILE with the log archived in DIR, to\n"
    "      --to-lsn N      exactly this LSN, or\n"
    "      --to-time T     the last record not later than T (RFC 3339, or seconds since 1970), or\n"
    "      --to-end        the end of the archive\n"
    "      --config, --replicas, --http-port, --bind as for run\n"
    "  stop        end all nodes and the supervisor\n"
    "  restart nodeN|all|supervisor  start it anew, an upgraded program perhaps, while the cluster serves\n"
    "  reload      take up what can be of a changed D/cluster.json (the section logging), and say what cannot\n"
    "  check-config  check D/cluster.json, or a file, and print the effective values\n"
    "      --config F      this file; --data-dir may be left out\n"
    "  selftest    try this machine: a scratch cluster in a directory below D, writes under kills, a verdict\n"
    "      --seconds N     how long (30)\n"
    "      --replicas N    replicas beside the master (2)\n"
    "      --json          as JSON\n"
    "      --keep          leave the scratch directory behind\n"
    "  events      show what has happened; needs no running supervisor\n"
    "      --json          as JSON, one object a line\n"
    "      --last N        only the last N events (all)\n"
    "      --follow        go on with what comes\n"
    "  salvage     list the changes that only a deposed master had, kept before they were cut\n"
    "      --json          as JSON\n"
    "  recover     when too few nodes are left for ever: show what survives and what may be missing\n"
    "      --accept-loss   start again from the best surviving node, the others are made anew\n"
    "  token add NAME --role R    make a token and print it, once: R is read, write or admin\n"
    "      --expires T     until T: RFC 3339, seconds since 1970, or 90d, 12h, 30m from now (never)\n"
    "  token list      show names, roles and ends of the tokens\n"
    "      --json          as JSON\n"
    "  token revoke NAME          refuse that token from now on\n"
    "\n"
    "  --help, --version\n"
    "\n"
    "exit codes: 0 ok, 1 failed, 2 usage or configuration error, 3 the supervisor cannot be reached\n";

enum option_id {
	OPT_DATA_DIR = 256,
	OPT_CONFIG,
	OPT_REPLICAS,
	OPT_PORT,
	OPT_BIND,
	OPT_DAEMON,
	OPT_JSON,
	OPT_WATCH,
	OPT_READONLY,
	OPT_TO,
	OPT_LAST,
	OPT_SECONDS,
	OPT_KEEP,
	OPT_FOLLOW,
	OPT_ACCEPT_LOSS,
	OPT_NODE,
	OPT_FROM,
	OPT_ARCHIVE,
	OPT_TO_LSN,
	OPT_TO_TIME,
	OPT_TO_END,
	OPT_FORCE,
	OPT_PROGRESS,
	OPT_OFFLINE,
	OPT_ROLE,
	OPT_EXPIRES
};

struct arguments {
	struct run_options run;
	bool json;
	bool watch;
	bool readonly;
	const char *to;
	unsigned last;
	unsigned seconds;
	bool keep;
	bool follow;
	bool accept_loss;
	const char *node;
	const char *from;
	const char *archive;
	struct replay_goal goal;
	unsigned goals; /* how many of --to-lsn, --to-time, --to-end */
	bool force;
	bool progress;
	bool offline;
	const char *address; /* or name: what the command is about */
	enum auth_role role;
	uint64_t expires_us;    /* 0: never */
	bool data_dir_optional; /* for a command that was given --config */
};

static enum exit_code usage_error(const char *why, const char *what)
{
	fprintf(stderr, "grizzly-supervisor: %s%s%s%s\n%s", why, what == NULL ? "" : " \"", what == NULL ? "" : what,
		what == NULL ? "" : "\"", usage_text);
	return EXIT_USAGE;
}

static bool parse_number(const char *text, unsigned min, unsigned max, unsigned *out)
{
	unsigned long v;
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	v = strtoul(text, &end, 10);
	if (errno != 0 || *end != '\0' || v < min || v > max)
		return false;
	*out = (unsigned)v;
	return true;
}

static bool take_goal(struct replay_goal *goal, int id, const char *value)
{
	char *end;

	if (id == OPT_TO_END) {
		goal->until = REPLAY_TO_END;
		return true;
	}
	if (id == OPT_TO_TIME) {
		goal->until = REPLAY_TO_TIME;
		return time_text_parse(value, &goal->time_us);
	}
	goal->until = REPLAY_TO_LSN;
	errno = 0;
	goal->lsn = strtoull(value, &end, 10);
	return value[0] >= '0' && value[0] <= '9' && *end == '\0' && errno == 0 && goal->lsn > 0;
}

/* A time, or how long from now. */
static bool parse_end(const char *text, uint64_t *out)
{
	static const struct {
		const char *unit;
		uint64_t seconds;
	} units[] = {{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
	unsigned long count;
	char *end;
	size_t i;

	errno = 0;
	count = text[0] >= '0' && text[0] <= '9' ? strtoul(text, &end, 10) : 0;
	for (i = 0; count > 0 && i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(end, units[i].unit) != 0)
			continue;
		*out = clock_wall_us() + count * units[i].seconds * 1000000;
		return errno == 0 && count <= DAYS_MAX * 86400 / units[i].seconds;
	}
	return time_text_parse(text, out) && *out > 0;
}

static bool take_option(struct arguments *a, int id, const char *value)
{
	struct datadir_options *c = &a->run.config;

	switch (id) {
	case OPT_DATA_DIR:
		a->run.data_dir = value;
		return value[0] != '\0';
	case OPT_CONFIG:
		c->config_path = value;
		return value[0] != '\0';
	case OPT_REPLICAS:
		c->has_replicas = true;
		return parse_number(value, 0, REPLICAS_MAX, &c->replicas);
	case OPT_PORT:
		c->has_http_port = true;
		return parse_number(value, 1, PORT_MAX, &c->http_port);
	case OPT_BIND:
		c->bind = value;
		return value[0] != '\0' && strlen(value) < CONFIG_HOST_MAX;
	case OPT_DAEMON:
		a->run.daemon = true;
		return true;
	case OPT_JSON:
		a->json = true;
		return true;
	case OPT_LAST:
		return parse_number(value, 1, UINT_MAX, &a->last);
	case OPT_SECONDS:
		return parse_number(value, 1, SELFTEST_SECONDS_MAX, &a->seconds);
	case OPT_KEEP:
		a->keep = true;
		return true;
	case OPT_FOLLOW:
		a->follow = true;
		return true;
	case OPT_ACCEPT_LOSS:
		a->accept_loss = true;
		return true;
	case OPT_WATCH:
		a->watch = true;
		return true;
	case OPT_FROM:
		a->from = value;
		return value[0] != '\0';
	case OPT_ARCHIVE:
		a->archive = value;
		return value[0] != '\0';
	case OPT_TO_LSN:
	case OPT_TO_TIME:
	case OPT_TO_END:
		a->goals++;
		return take_goal(&a->goal, id, value);
	case OPT_NODE:
		a->node = value;
		return true;
	case OPT_FORCE:
		a->force = true;
		return true;
	case OPT_PROGRESS:
		a->progress = true;
		return true;
	case OPT_OFFLINE:
		a->offline = true;
		return true;
	case OPT_READONLY:
		a->readonly = true;
		return true;
	case OPT_ROLE:
		return auth_role_parse(value, &a->role);
	case OPT_EXPIRES:
		return parse_end(value, &a->expires_us);
	default:
		a->to = value;
		return true;
	}
}

static enum exit_code parse(struct arguments *a, int argc, char **argv, const struct option *options, const char *wants)
{
	int index = 0;
	int id;

	opterr = 0;
	while ((id = getopt_long(argc, argv, "", options, &index)) != -1) {
		if (id == '?')
			return usage_error("unknown or incomplete option", argv[optind - 1]);
		if (!take_option(a, id, optarg))
			return usage_error("wrong value for option", options[index].name);
	}
	if (wants != NULL && optind < argc)
		a->address = argv[optind++];
	if (optind < argc)
		return usage_error("unexpected argument", argv[optind]);
	if (a->run.data_dir == NULL && !(a->data_dir_optional && a->run.config.config_path != NULL))
		return usage_error("--data-dir is missing", NULL);
	if (wants != NULL && a->address == NULL)
		return usage_error(wants, NULL);
	return EXIT_OK;
}

#define COMMON_OPTIONS                                                                                                 \
	{                                                                                                              \
		"data-dir", required_argument, NULL, OPT_DATA_DIR                                                      \
	}
#define END_OF_OPTIONS                                                                                                 \
	{                                                                                                              \
		NULL, 0, NULL, 0                                                                                       \
	}

static const struct option run_options[] = {COMMON_OPTIONS,
					    {"config", required_argument, NULL, OPT_CONFIG},
					    {"replicas", required_argument, NULL, OPT_REPLICAS},
					    {"http-port", required_argument, NULL, OPT_PORT},
					    {"bind", required_argument, NULL, OPT_BIND},
					    {"daemon", no_argument, NULL, OPT_DAEMON},
					    END_OF_OPTIONS};
static const struct option status_options[] = {
    COMMON_OPTIONS, {"json", no_argument, NULL, OPT_JSON}, {"watch", no_argument, NULL, OPT_WATCH}, END_OF_OPTIONS};
static const struct option switchover_options[] = {
    COMMON_OPTIONS, {"to", required_argument, NULL, OPT_TO}, END_OF_OPTIONS};
static const struct option backup_options[] = {COMMON_OPTIONS,
					       {"to", required_argument, NULL, OPT_TO},
					       {"node", required_argument, NULL, OPT_NODE},
					       {"offline", no_argument, NULL, OPT_OFFLINE},
					       {"force", no_argument, NULL, OPT_FORCE},
					       {"progress", no_argument, NULL, OPT_PROGRESS},
					       END_OF_OPTIONS};
static const struct option restore_options[] = {COMMON_OPTIONS,
						{"from", required_argument, NULL, OPT_FROM},
						{"archive", required_argument, NULL, OPT_ARCHIVE},
						{"to-lsn", required_argument, NULL, OPT_TO_LSN},
						{"to-time", required_argument, NULL, OPT_TO_TIME},
						{"to-end", no_argument, NULL, OPT_TO_END},
						{"config", required_argument, NULL, OPT_CONFIG},
						{"replicas", required_argument, NULL, OPT_REPLICAS},
						{"http-port", required_argument, NULL, OPT_PORT},
						{"bind", required_argument, NULL, OPT_BIND},
						END_OF_OPTIONS};
static const struct option add_options[] = {
    COMMON_OPTIONS, {"readonly", no_argument, NULL, OPT_READONLY}, END_OF_OPTIONS};
static const struct option remove_options[] = {COMMON_OPTIONS, END_OF_OPTIONS};
static const struct option replicas_options[] = {COMMON_OPTIONS, {"json", no_argument, NULL, OPT_JSON}, END_OF_OPTIONS};
static const struct option stop_options[] = {COMMON_OPTIONS, END_OF_OPTIONS};
static const struct option events_options[] = {COMMON_OPTIONS,
					       {"json", no_argument, NULL, OPT_JSON},
					       {"last", required_argument, NULL, OPT_LAST},
					       {"follow", no_argument, NULL, OPT_FOLLOW},
					       END_OF_OPTIONS};

static enum exit_code run_command(const struct arguments *a)
{
	return command_run(&a->run);
}

static enum exit_code status_command(const struct arguments *a)
{
	return command_status(a->run.data_dir, a->json, a->watch);
}

static enum exit_code switchover_command(const struct arguments *a)
{
	return command_switchover(a->run.data_dir, a->to);
}

static enum exit_code backup_command(const struct arguments *a)
{
	const struct backup_options o = {.data_dir = a->run.data_dir,
					 .to = a->to,
					 .node = a->node,
					 .force = a->force,
					 .progress = a->progress,
					 .offline = a->offline};

	if (a->to == NULL || a->to[0] == '\0')
		return usage_error("--to is missing", NULL);
	return command_backup(&o);
}

static enum exit_code restore_command(const struct arguments *a)
{
	const struct restore_options o = {.data_dir = a->run.data_dir,
					  .from = a->from,
					  .archive = a->archive,
					  .goal = a->goal,
					  .config = a->run.config};

	if (a->from == NULL)
		return usage_error("--from is missing", NULL);
	if ((a->archive != NULL) != (a->goals > 0) || a->goals > 1)
		return usage_error("--archive needs one of --to-lsn, --to-time and --to-end, and these need --archive",
				   NULL);
	return command_restore(&o);
}

static enum exit_code add_command(const struct arguments *a)
{
	return command_add_replica(a->run.data_dir, a->address, a->readonly);
}

static enum exit_code remove_command(const struct arguments *a)
{
	return command_remove_replica(a->run.data_dir, a->address);
}

static enum exit_code replicas_command(const struct arguments *a)
{
	return command_replicas(a->run.data_dir, a->json);
}

static enum exit_code stop_command(const struct arguments *a)
{
	return command_stop(a->run.data_dir);
}

static enum exit_code events_command(const struct arguments *a)
{
	const struct timeline_view view = {.json = a->json, .follow = a->follow, .last = a->last};

	return command_events(a->run.data_dir, &view);
}

static const struct option salvage_options[] = {COMMON_OPTIONS, {"json", no_argument, NULL, OPT_JSON}, END_OF_OPTIONS};

static enum exit_code salvage_command(const struct arguments *a)
{
	return command_salvage(a->run.data_dir, a->json);
}

static enum exit_code reload_command(const struct arguments *a)
{
	return command_reload(a->run.data_dir);
}

static const struct option check_config_options[] = {
    COMMON_OPTIONS, {"config", required_argument, NULL, OPT_CONFIG}, END_OF_OPTIONS};

static enum exit_code check_config_command(const struct arguments *a)
{
	return command_check_config(a->run.data_dir, a->run.config.config_path);
}

static const struct option selftest_options[] = {COMMON_OPTIONS,
						 {"seconds", required_argument, NULL, OPT_SECONDS},
						 {"replicas", required_argument, NULL, OPT_REPLICAS},
						 {"json", no_argument, NULL, OPT_JSON},
						 {"keep", no_argument, NULL, OPT_KEEP},
						 END_OF_OPTIONS};

static enum exit_code selftest_command(const struct arguments *a)
{
	const struct selftest_options o = {.data_dir = a->run.data_dir,
					   .seconds = a->seconds > 0 ? a->seconds : SELFTEST_SECONDS,
					   .replicas = a->run.config.has_replicas ? a->run.config.replicas : 2,
					   .json = a->json,
					   .keep = a->keep};

	return command_selftest(&o);
}

static const struct option recover_options[] = {
    COMMON_OPTIONS, {"accept-loss", no_argument, NULL, OPT_ACCEPT_LOSS}, END_OF_OPTIONS};

static enum exit_code recover_command(const struct arguments *a)
{
	return command_recover(a->run.data_dir, a->accept_loss);
}

static const struct option token_add_options[] = {COMMON_OPTIONS,
						  {"role", required_argument, NULL, OPT_ROLE},
						  {"expires", required_argument, NULL, OPT_EXPIRES},
						  END_OF_OPTIONS};
static const struct option token_list_options[] = {
    COMMON_OPTIONS, {"json", no_argument, NULL, OPT_JSON}, END_OF_OPTIONS};
static const struct option token_revoke_options[] = {COMMON_OPTIONS, END_OF_OPTIONS};

static enum exit_code token_add_command(const struct arguments *a)
{
	if (a->role == AUTH_NONE)
		return usage_error("--role is missing: read, write or admin", NULL);
	return command_token_add(a->run.data_dir, a->address, a->role, a->expires_us);
}

static enum exit_code token_list_command(const struct arguments *a)
{
	return command_token_list(a->run.data_dir, a->json);
}

static enum exit_code token_revoke_command(const struct arguments *a)
{
	return command_token_revoke(a->run.data_dir, a->address);
}

static const char wants_address[] = "an address is missing, like 127.0.0.1:8084";
static enum exit_code restart_command(const struct arguments *a)
{
	return command_restart(a->run.data_dir, a->address);
}

static const char wants_part[] = "what to restart is missing: nodeN, all or supervisor";
static const char wants_name[] = "the token's name is missing";

static const struct command {
	const char *name;
	const struct option *options;
	enum exit_code (*run)(const struct arguments *a);
	const char *wants; /* what is missing without an argument; NULL: it takes none */
} commands[] = {
    {"run", run_options, run_command, NULL},
    {"status", status_options, status_command, NULL},
    {"switchover", switchover_options, switchover_command, NULL},
    {"add-replica", add_options, add_command, wants_address},
    {"remove-replica", remove_options, remove_command, wants_address},
    {"replicas", replicas_options, replicas_command, NULL},
    {"backup", backup_options, backup_command, NULL},
    {"restore", restore_options, restore_command, NULL},
    {"stop", stop_options, stop_command, NULL},
    {"events", events_options, events_command, NULL},
    {"salvage", salvage_options, salvage_command, NULL},
    {"recover", recover_options, recover_command, NULL},
    {"token add", token_add_options, token_add_command, wants_name},
    {"token list", token_list_options, token_list_command, NULL},
    {"token revoke", token_revoke_options, token_revoke_command, wants_name},
    {"reload", stop_options, reload_command, NULL},
    {"restart", stop_options, restart_command, wants_part},
    {"check-config", check_config_options, check_config_command, NULL},
    {"reload", stop_options, reload_command, NULL},
    {"selftest", selftest_options, selftest_command, NULL},
    {"check-config", check_config_options, check_config_command, NULL},
};

static bool asks_for(int argc, char **argv, const char *option)
{
	int i;

	for (i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], option) == 0)
			return true;
	return false;
}

/* The command's name may be of two words: returns how many of argv it takes, 0: it is another. */
static int command_words(const char *name, int argc, char **argv)
{
	const char *second = strchr(name, ' ');
	size_t len = second != NULL ? (size_t)(second - name) : strlen(name);

	if (strlen(argv[1]) != len || memcmp(argv[1], name, len) != 0)
		return 0;
	if (second == NULL)
		return 1;
	return argc > 2 && strcmp(argv[2], second + 1) == 0 ? 2 : 0;
}

int command_line(int argc, char **argv)
{
	struct arguments a = {0};
	enum exit_code code;
	size_t i;
	int words;

	if (asks_for(argc, argv, "--help")) {
		fputs(usage_text, stdout);
		return EXIT_OK;
	}
	if (asks_for(argc, argv, "--version")) {
		puts("grizzly-supervisor " PACKAGE_VERSION);
		return EXIT_OK;
	}
	if (argc < 2)
		return (int)usage_error("a command is missing", NULL);
	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		words = command_words(commands[i].name, argc, argv);
		if (words == 0)
			continue;
		a.data_dir_optional = commands[i].run == check_config_command;
		code = parse(&a, argc - words, argv + words, commands[i].options, commands[i].wants);
		return (int)(code == EXIT_OK ? commands[i].run(&a) : code);
	}
	return (int)usage_error("unknown command", argv[1]);
}

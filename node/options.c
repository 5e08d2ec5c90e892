/* options.c - see options.h. */
#include "node/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"

#include "common/base/config.h"

#define EXIT_USAGE 2

static const char *program_name(enum node_program program)
{
	return program == NODE_PROGRAM_MASTER ? "grizzly-master" : "grizzly-replica";
}

static void print_usage(FILE *out, enum node_program program)
{
	fprintf(out,
		"usage: %s --data-dir D --id nodeN [options]\n"
		"\n"
		"One node of a Grizzly cluster. grizzly-supervisor starts it; by hand it serves debugging.\n"
		"\n"
		"  --data-dir D     the cluster's directory; the node's own files are below D/nodeN\n"
		"  --id nodeN       which node this is, N counting from 1\n"
		"  --config F       the cluster's configuration (D/cluster.json)\n"
		"  --token-file F   the cluster's token (D/token)\n"
		"  --ports H,R,A    HTTP, replication and ack port (http_port + N, + 100 + N, + 200 + N)\n"
		"  --members N      how many nodes the cluster has (replicas + 1)\n",
		program_name(program));
	if (program == NODE_PROGRAM_MASTER)
		fprintf(out, "  --term T         become master of term T, which must be newer than any promised (1)\n");
	fprintf(out,
		"  --help           print this text\n"
		"  --version        print the version\n"
		"\n"
		"The endpoint's listening socket is inherited as descriptor 3 when LISTEN_FDS and LISTEN_PID say so.\n"
		"Exit codes: 0 stopped by SIGTERM, 1 failed, 2 usage or configuration error.\n");
}

static bool parse_node(const char *id, unsigned *node)
{
	char *end;
	unsigned long n;

	if (strncmp(id, "node", 4) != 0 || id[4] < '1' || id[4] > '9')
		return false;
	n = strtoul(id + 4, &end, 10);
	*node = (unsigned)n;
	return *end == '\0' && n <= 1000;
}

static bool parse_ports(const char *text, unsigned ports[3])
{
	const char *p = text;
	char *end;
	int i;

	for (i = 0; i < 3; i++) {
		unsigned long v = p[0] >= '0' && p[0] <= '9' ? strtoul(p, &end, 10) : 0;

		if (v < 1 || v > 65535 || *end != (i < 2 ? ',' : '\0'))
			return false;
		ports[i] = (unsigned)v;
		p = end + 1;
	}
	return true;
}

static bool parse_members(const char *text, unsigned *members)
{
	char *end;
	unsigned long v = text[0] >= '1' && text[0] <= '9' ? strtoul(text, &end, 10) : 0;

	*members = (unsigned)v;
	return v >= 1 && v <= CONFIG_NODES_MAX && *end == '\0';
}

static bool parse_term(const char *text, uint64_t *term)
{
	char *end;

	errno = 0;
	*term = strtoull(text, &end, 10);
	return text[0] >= '1' && text[0] <= '9' && *end == '\0' && errno == 0 && *term < UINT64_MAX;
}

static int usage_error(enum node_program program, const char *what, const char *value)
{
	fprintf(stderr, "%s: %s%s%s\nTry --help.\n", program_name(program), what, value != NULL ? ": " : "",
		value != NULL ? value : "");
	return EXIT_USAGE;
}

static int check(const struct node_options *o, enum node_program program)
{
	if (o->data_dir == NULL)
		return usage_error(program, "--data-dir is required", NULL);
	if (o->id == NULL)
		return usage_error(program, "--id is required", NULL);
	return -1;
}

int node_options_parse(struct node_options *out, enum node_program program, int argc, char **argv)
{
	static const struct option known[] = {
	    {"data-dir", required_argument, NULL, 'd'}, {"id", required_argument, NULL, 'i'},
	    {"config", required_argument, NULL, 'c'},   {"token-file", required_argument, NULL, 't'},
	    {"ports", required_argument, NULL, 'p'},    {"members", required_argument, NULL, 'm'},
	    {"term", required_argument, NULL, 'T'},     {"help", no_argument, NULL, 'h'},
	    {"version", no_argument, NULL, 'V'},        {NULL, 0, NULL, 0},
	};
	int c;

	opterr = 0; /* we say it ourselves, once */
	memset(out, 0, sizeof(*out));
	out->config_path = "cluster.json";
	out->token_path = "token";
	out->term = program == NODE_PROGRAM_MASTER ? 1 : 0;
	while ((c = getopt_long(argc, argv, ":", known, NULL)) != -1) {
		if (c == 'd') {
			out->data_dir = optarg;
		} else if (c == 'i') {
			out->id = optarg;
			if (!parse_node(optarg, &out->node))
				return usage_error(program, "--id expects node1, node2, …", optarg);
		} else if (c == 'c') {
			out->config_path = optarg;
		} else if (c == 't') {
			out->token_path = optarg;
		} else if (c == 'p') {
			if (!parse_ports(optarg, out->ports))
				return usage_error(program, "--ports expects three ports like 8081,8181,8281", optarg);
		} else if (c == 'm') {
			if (!parse_members(optarg, &out->members))
				return usage_error(program, "--members expects a number from 1", optarg);
		} else if (c == 'T' && program == NODE_PROGRAM_MASTER) {
			if (!parse_term(optarg, &out->term))
				return usage_error(program, "--term expects a number from 1", optarg);
		} else if (c == 'h') {
			print_usage(stdout, program);
			return 0;
		} else if (c == 'V') {
			printf("%s %s\n", program_name(program), PACKAGE_VERSION);
			return 0;
		} else if (c == 'T') {
			return usage_error(program, "no option of this program", "--term");
		} else if (c == ':') {
			return usage_error(program, "a value is missing after", argv[optind - 1]);
		} else {
			return usage_error(program, "no option of this program", argv[optind - 1]);
		}
	}
	if (optind < argc)
		return usage_error(program, "unexpected argument", argv[optind]);
	return check(out, program);
}

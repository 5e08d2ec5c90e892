/*
 * options.h - the command line of grizzly-master and grizzly-replica.
 */
#ifndef GRIZZLY_NODE_OPTIONS_H
#define GRIZZLY_NODE_OPTIONS_H

#include <stdint.h>

#include "common/base/err.h"

struct node_options {
	const char *data_dir;    /* the cluster's directory */
	const char *id;          /* "node1" */
	const char *config_path; /* default: cluster.json, relative to data_dir */
	const char *token_path;  /* default: token, relative to data_dir */
	uint64_t term;           /* grizzly-master: become master of this term at once; 0: start as a replica */
	unsigned node;           /* from id */
	unsigned members;        /* of the cluster; 0: as the configuration says */
	unsigned ports[3];       /* HTTP, replication, acks; all 0: as the configuration says */
};

enum node_program { NODE_PROGRAM_MASTER, NODE_PROGRAM_REPLICA };

/* Returns -1 to go on, or the exit code (help, version or a usage error has been printed). The strings are argv's. */
int node_options_parse(struct node_options *out, enum node_program program, int argc, char **argv);

#endif

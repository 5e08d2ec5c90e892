/* main.c - grizzly-replica: a node that starts as a replica, and is promoted when the supervisor says so. */
#include "node/node.h"

int main(int argc, char **argv)
{
	struct node_options options;
	int code = node_options_parse(&options, NODE_PROGRAM_REPLICA, argc, argv);

	return code >= 0 ? code : node_run(&options);
}

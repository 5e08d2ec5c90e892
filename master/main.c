/* main.c - grizzly-master: a node that starts as the master of a new cluster. */
#include "node/node.h"

int main(int argc, char **argv)
{
	struct node_options options;
	int code = node_options_parse(&options, NODE_PROGRAM_MASTER, argc, argv);

	return code >= 0 ? code : node_run(&options);
}

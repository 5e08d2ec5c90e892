/*
 * node.h - a node process: the shell that grizzly-master and grizzly-replica share.
 *
 * Puts the parts together (store, roles, HTTP front, control, replication and ack sockets, checkpointer), runs until
 * SIGTERM or SIGINT, and takes everything apart again. Both programs are this shell; they differ in the role they start
 * in, because a node changes its role in place: a promoted replica keeps its open store and its clients' connections,
 * and so does a master that hands over in a switchover.
 */
#ifndef GRIZZLY_NODE_NODE_H
#define GRIZZLY_NODE_NODE_H

#include "node/options.h"

/* Returns the process's exit code: 0 stopped in order, 1 failed, 2 configuration error. */
int node_run(const struct node_options *options);

#endif

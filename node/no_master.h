/*
 * no_master.h - why there is no master, as the supervisor of this host says, for the clients of this node.
 *
 * The supervisor keeps the reason in D/run/no-master while there is none for longer than a failover takes; the working
 * directory of a node is D. Reads a small file; any thread.
 */
#ifndef GRIZZLY_NODE_NO_MASTER_H
#define GRIZZLY_NODE_NO_MASTER_H

#include <stddef.h>

/* "there is no master at the moment; the request was not executed: <reason>", or without a reason when none is told. */
void no_master_message(char *out, size_t size);
/* The reason alone, or otherwise when none is told. Never holds control characters. */
void no_master_reason(char *out, size_t size, const char *otherwise);

#endif

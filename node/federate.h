/*
 * federate.h - requests that name tables of other nodes.
 *
 * A request whose tables are all of one other node is sent there whole, from whichever node it came to and whatever that
 * one's role: none of its data is here. The answer comes through as a stream, no faster than the client reads, with our
 * own end and "remote": who was asked, how often, for how much. Any other request with references goes where reads of
 * its consistency go, and runs there with the other nodes' tables as virtual ones.
 *
 * What goes wrong with the other node is REMOTE_ERROR and names node and table; what is wrong with the statement itself
 * (an SQL error, a constraint) keeps its code. On a worker's thread.
 */
#ifndef GRIZZLY_NODE_FEDERATE_H
#define GRIZZLY_NODE_FEDERATE_H

#include "node/front_request.h"

/* req->federated is set. Takes the request. */
void federate_start(struct front_request *req);
/* Now and then: gives up what no client is there for any more. */
void federate_look_after(struct front_worker *w);
/* The worker stops, and its fetches have ended: gives up what still waits for slow clients. */
void federate_stop(struct front_worker *w);

#endif

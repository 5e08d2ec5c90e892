/*
 * ack_watch.h - whether what a replica says reaches its master.
 *
 * Nobody is told that a message was lost, nor always that a connection is dead. But a master that hears nothing says
 * HELLO again, twice a second (WALSENDER_HELLO_RETRY_MS), and one that hears a POSITION goes on, with START or a snapshot. So HELLOs in a
 * row, each answered and none followed by anything, mean that the answers get lost, or that the master can do nothing
 * with them (it refuses us, or cannot read its log). The first is cured by a fresh connection, the second takes no harm
 * from one: it is made ever more rarely.
 *
 * A pure core: the caller serialises, and knows the time. replica/replica.c calls it.
 */
#ifndef GRIZZLY_REPLICA_ACK_WATCH_H
#define GRIZZLY_REPLICA_ACK_WATCH_H

#include <stdint.h>

#define ACK_WATCH_PATIENCE_MS     5000u /* of HELLOs in a row before the first fresh connection; then twice as long each */
#define ACK_WATCH_PATIENCE_MS_MAX 300000u
#define ACK_WATCH_GAP_MS          3000u /* HELLOs further apart are in no row: somebody was paused, or gone */
#define ACK_WATCH_HELLOS_MIN      6u    /* so many in a row, whatever the clock says */

struct ack_watch {
	uint64_t patience_ms;
	uint64_t first_ms, last_ms; /* of the row; 0: none began */
	unsigned unheard;           /* answers in this row */
};

enum ack_watch_verdict {
	ACK_WATCH_FINE,
	ACK_WATCH_RECONNECT, /* drop the connection, make another */
};

void ack_watch_init(struct ack_watch *w); /* also when the link goes to another address */

/* A HELLO was accepted and is to be answered. */
enum ack_watch_verdict ack_watch_on_hello(struct ack_watch *w, uint64_t now_ms);
void ack_watch_on_answer(struct ack_watch *w); /* a POSITION was handed to the link */
void ack_watch_on_heard(struct ack_watch *w);  /* the master acts upon one */

#endif

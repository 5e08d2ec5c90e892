/*
 * throttle.h - how long an address that sends wrong tokens waits for its answers. Pure: the caller has the clock and
 * a lock.
 *
 * Each failure of an address adds one to its score, each second takes one off. The first THROTTLE_FREE are answered at
 * once, each further one THROTTLE_STEP_MS later than the one before it, at most THROTTLE_DELAY_MAX_MS. At most
 * THROTTLE_WAITING_MAX answers of an address wait at a time; more are refused at once. Right tokens are never held
 * up, so nobody can lock out another who shares his address.
 *
 * A table of fixed size; when its place is needed, the address of a set that failed longest ago is forgotten. An IPv6
 * client has its /64 for an address.
 */
#ifndef GRIZZLY_COMMON_AUTH_THROTTLE_H
#define GRIZZLY_COMMON_AUTH_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define THROTTLE_FREE         20
#define THROTTLE_STEP_MS      50
#define THROTTLE_DELAY_MAX_MS 1000
#define THROTTLE_WAITING_MAX  32
#define THROTTLE_LINES_MAX    5 /* in the log, in a second */

struct throttle;

struct throttle_address {
	uint8_t bytes[16]; /* IPv4 as ::ffff:a.b.c.d */
};

struct throttle_verdict {
	uint64_t delay_ms;  /* 0: answer now. Else throttle_answered() when it was */
	bool refuse;        /* too many wait: not even that */
	bool log;           /* it deserves a line: the first, the 10th, the 100th, … of an address */
	uint64_t failures;  /* of this address since it is in the table */
	uint64_t not_shown; /* lines that were not written since the last one, for there were too many */
};

struct throttle *throttle_create(uint64_t seed); /* NULL: no memory. seed: of the table's hash */
void throttle_free(struct throttle *t);          /* NULL is fine */

/* False: neither IPv4 nor IPv6. */
bool throttle_address_of(struct throttle_address *out, const struct sockaddr *address);

struct throttle_verdict throttle_failed(struct throttle *t, const struct throttle_address *address, uint64_t now_ms);
void throttle_answered(struct throttle *t, const struct throttle_address *address);

#endif

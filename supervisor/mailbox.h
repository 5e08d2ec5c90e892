/*
 * mailbox.h - answers of nodes on their way from NNG's threads to the supervisor's loop.
 *
 * A request is allocated whole when it is sent, so that its answer cannot fail for want of memory. NNG's thread decodes
 * the answer and posts the request here; the loop is woken through an eventfd and takes everything at once. Whatever
 * becomes of a link, each request comes back exactly once.
 */
#ifndef GRIZZLY_SUPERVISOR_MAILBOX_H
#define GRIZZLY_SUPERVISOR_MAILBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/wire/link.h"
#include "common/wire/wire.h"

struct mailbox; /* body in mailbox.c */

struct mail {
	struct mail *next;
	unsigned node;
	uint32_t seq;
	enum db_err err; /* DB_OK: status is the answer */
	struct wire_node_status status;
	struct mailbox *owner;
};

/* Answers that do not carry cluster_id are DB_INVALID. */
enum db_err mailbox_create(struct mailbox **out, const uint8_t cluster_id[16], struct errmsg *em);
/* Frees what nobody took; every link that mailbox_ask() used must have been freed before. NULL is fine. */
void mailbox_free(struct mailbox *m);
int mailbox_fd(const struct mailbox *m); /* readable when there is mail */
/* Everything that has come, oldest first; the caller free()s each. NULL: nothing. Loop thread. */
struct mail *mailbox_take(struct mailbox *m);

/* Sends a message of head's type over link, with members as its body (NULL: without one); the outcome arrives as mail with node and seq. DB_NOMEM,
 * DB_CLOSED: none will arrive. Loop thread. */
enum db_err mailbox_ask(struct mailbox *m, struct link_req *link, const struct wire_head *head, unsigned node,
			uint32_t seq, const struct members *members, uint64_t timeout_ms);

#endif

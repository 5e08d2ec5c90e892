/*
 * admin.h - the supervisor, asked on behalf of a client: ADD REPLICA, REMOVE REPLICA, SHOW REPLICAS.
 *
 * A thread of its own speaks the command line's protocol with the supervisor's control socket (supervisor/answers.h), so
 * that both roads run the same code and no HTTP worker waits for it. A change is asked after until it is done or its
 * request's time is over; it goes on without us.
 */
#ifndef GRIZZLY_NODE_ADMIN_H
#define GRIZZLY_NODE_ADMIN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/audit.h"
#include "common/base/buf.h"
#include "common/query/admin_sql.h"

struct admin;

/* One request; owned by whoever submits it, and by the admin until done() is called. */
struct admin_job {
	struct admin_job *next;                  /* private */
	const struct admin_statement *statement; /* borrowed */
	const char *request_id;                  /* borrowed; for the audit log, like by */
	char by[AUDIT_BY_MAX];                   /* whose request it is */
	uint64_t deadline_ms;                    /* clock_mono_ms() */
	struct query_error error;                /* code QUERY_OK: it was done */
	char message[ERRMSG_TEXT_MAX];           /* of a change that was */
	struct buf text;                         /* of SHOW: the supervisor's JSON; the owner's to free */
	void (*done)(struct admin_job *job);     /* the admin's thread, no lock held; its last access */
	bool asked;                              /* private, like what follows */
	uint64_t id;
	int pid;
	uint64_t next_ms;
};

/* path: the supervisor's control socket. node_id: ours; for our own end nobody here waits. Both are copied. */
enum db_err admin_create(struct admin **out, const char *path, const char *node_id, struct errmsg *em);
/* What is under way is answered: it goes on, but nobody asks after it. NULL is fine. */
void admin_free(struct admin *a);
void admin_submit(struct admin *a, struct admin_job *job); /* any thread */

#endif

/*
 * control.h - the supervisor's own control socket: commands come in, the loop answers.
 *
 * NNG's thread hands the request to the loop and waits for the answer, for a bounded time; so the answer is always the
 * loop's own, and a supervisor whose loop is stuck is seen to be stuck. Requests come one at a time.
 */
#ifndef GRIZZLY_SUPERVISOR_CONTROL_H
#define GRIZZLY_SUPERVISOR_CONTROL_H

#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"

struct control; /* body in control.c */

/* Answers one request: JSON text in, JSON text out. On the loop thread. */
typedef void (*control_answer_fn)(void *arg, const char *text, size_t len, struct buf *reply);

/* Listens at the ipc path; cluster_id is put on answers. DB_BUSY: somebody listens there. */
enum db_err control_create(struct control **out, const char *path, const uint8_t cluster_id[16],
			   control_answer_fn answer, void *arg, struct errmsg *em);
int control_fd(const struct control *c); /* readable: call control_serve() */
void control_serve(struct control *c);   /* loop thread */
void control_free(struct control *c);    /* loop thread; NULL is fine */

#endif

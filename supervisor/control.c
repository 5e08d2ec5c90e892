/*
 * control.c - see control.h.
 *
 * One slot, guarded by lock: IDLE -> WAITING (NNG's thread) -> TAKEN -> ANSWERED (loop) -> IDLE (NNG's thread). When
 * NNG's thread gives up, it frees the slot itself if nobody took the request, else it leaves it ABANDONED for the loop.
 */
#include "supervisor/control.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/wake.h"
#include "common/wire/link.h"
#include "common/wire/wire.h"

#define ANSWER_TIMEOUT_S 3

enum slot_state { SLOT_IDLE, SLOT_WAITING, SLOT_TAKEN, SLOT_ANSWERED, SLOT_ABANDONED };

struct control {
	struct link_rep *rep;
	uint8_t cluster_id[16];
	control_answer_fn answer;
	void *arg;
	int fd;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool closing;
	enum slot_state state;
	struct buf request;
	struct buf reply;
};

static void encode_reply(const struct control *c, const struct buf *text, struct buf *out)
{
	struct wire_msg *msg = calloc(1, sizeof(*msg));

	if (msg == NULL) {
		out->failed = true;
		return;
	}
	msg->head.type = WIRE_CLI_REPLY;
	memcpy(msg->head.cluster_id, c->cluster_id, sizeof(c->cluster_id));
	memcpy(msg->head.sender, "supervisor", sizeof("supervisor"));
	msg->body.text.text = (const char *)text->data;
	msg->body.text.len = text->len;
	wire_encode(out, msg);
	free(msg);
}

/* With lock held: waits until the loop has answered, the time is over, or the supervisor ends. */
static void await_answer(struct control *c)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ANSWER_TIMEOUT_S;
	while (c->state != SLOT_ANSWERED && !c->closing)
		if (pthread_cond_clockwait(&c->changed, &c->lock, CLOCK_MONOTONIC, &until) != 0)
			return;
}

/* On a thread of NNG. */
static void on_request(void *arg, const void *bytes, size_t len, struct buf *out)
{
	struct control *c = arg;
	struct wire_msg msg;

	if (wire_decode(&msg, bytes, len, NULL, NULL) != DB_OK || msg.head.type != WIRE_CLI_REQUEST)
		return; /* not from our command line: it runs into its deadline */
	pthread_mutex_lock(&c->lock);
	if (c->state != SLOT_IDLE || c->closing)
		goto unlock;
	buf_clear(&c->request);
	buf_clear(&c->reply);
	buf_put(&c->request, msg.body.text.text, msg.body.text.len);
	if (c->request.failed)
		goto unlock;
	c->state = SLOT_WAITING;
	wake_up(c->fd);
	await_answer(c);
	if (c->state == SLOT_ANSWERED && !c->reply.failed)
		encode_reply(c, &c->reply, out);
	c->state = c->state == SLOT_TAKEN ? SLOT_ABANDONED : SLOT_IDLE;
unlock:
	pthread_mutex_unlock(&c->lock);
}

enum db_err control_create(struct control **out, const char *path, const uint8_t cluster_id[16],
			   control_answer_fn answer, void *arg, struct errmsg *em)
{
	struct control *c = calloc(1, sizeof(*c));
	char url[LINK_URL_MAX];
	enum db_err err;

	*out = NULL;
	if (c == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for the control socket");
	memcpy(c->cluster_id, cluster_id, sizeof(c->cluster_id));
	c->answer = answer;
	c->arg = arg;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	c->fd = wake_create();
	if (c->fd < 0) {
		err = errmsg_errno(em, errno, "cannot create an eventfd");
		goto free_control;
	}
	err = link_ipc_url(url, path, em);
	if (err == DB_OK)
		err = link_rep_create(&c->rep, url, on_request, c, em);
	if (err != DB_OK)
		goto free_control;
	*out = c;
	return DB_OK;
free_control:
	control_free(c);
	return err;
}

int control_fd(const struct control *c)
{
	return c->fd;
}

void control_serve(struct control *c)
{
	bool mine;

	if (!wake_clear(c->fd))
		return;
	pthread_mutex_lock(&c->lock);
	mine = c->state == SLOT_WAITING;
	if (mine)
		c->state = SLOT_TAKEN;
	pthread_mutex_unlock(&c->lock);
	if (!mine)
		return;
	/* The slot is ours: NNG's thread touches neither buffer while it is TAKEN or ABANDONED. */
	c->answer(c->arg, (const char *)c->request.data, c->request.len, &c->reply);
	pthread_mutex_lock(&c->lock);
	c->state = c->state == SLOT_TAKEN ? SLOT_ANSWERED : SLOT_IDLE;
	pthread_cond_signal(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

void control_free(struct control *c)
{
	if (c == NULL)
		return;
	pthread_mutex_lock(&c->lock);
	c->closing = true;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	link_rep_free(c->rep);
	if (c->fd >= 0)
		close(c->fd);
	buf_fini(&c->request);
	buf_fini(&c->reply);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

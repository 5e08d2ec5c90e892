/* mailbox.c - see mailbox.h. lock guards the list alone and is held for a few instructions. */
#include "supervisor/mailbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/wake.h"

struct mailbox {
	pthread_mutex_t lock;
	struct mail *first;
	struct mail **last; /* where the next one is hung up */
	int fd;
	uint8_t cluster_id[16];
};

enum db_err mailbox_create(struct mailbox **out, const uint8_t cluster_id[16], struct errmsg *em)
{
	struct mailbox *m = calloc(1, sizeof(*m));

	*out = NULL;
	if (m == NULL)
		return errmsg_set(em, DB_NOMEM, "no memory for a mailbox");
	m->fd = wake_create();
	if (m->fd < 0) {
		free(m);
		return errmsg_errno(em, errno, "cannot create an eventfd");
	}
	memcpy(m->cluster_id, cluster_id, sizeof(m->cluster_id));
	pthread_mutex_init(&m->lock, NULL);
	m->last = &m->first;
	*out = m;
	return DB_OK;
}

void mailbox_free(struct mailbox *m)
{
	struct mail *mail;

	if (m == NULL)
		return;
	mail = mailbox_take(m);
	while (mail != NULL) {
		struct mail *next = mail->next;

		free(mail);
		mail = next;
	}
	close(m->fd);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

int mailbox_fd(const struct mailbox *m)
{
	return m->fd;
}

static void post(struct mailbox *m, struct mail *mail)
{
	bool was_empty;

	mail->next = NULL;
	pthread_mutex_lock(&m->lock);
	was_empty = m->first == NULL;
	*m->last = mail;
	m->last = &mail->next;
	pthread_mutex_unlock(&m->lock);
	if (was_empty)
		wake_up(m->fd);
}

struct mail *mailbox_take(struct mailbox *m)
{
	struct mail *first;

	wake_clear(m->fd); /* before the list is taken: a post in between wakes again */
	pthread_mutex_lock(&m->lock);
	first = m->first;
	m->first = NULL;
	m->last = &m->first;
	pthread_mutex_unlock(&m->lock);
	return first;
}

/* On a thread of NNG. */
static void on_reply(void *arg, enum db_err err, const void *bytes, size_t len)
{
	struct mail *mail = arg;
	struct wire_msg msg;

	mail->err = err;
	if (err == DB_OK)
		mail->err = wire_decode(&msg, bytes, len, mail->owner->cluster_id, NULL);
	if (mail->err == DB_OK && msg.head.type != WIRE_NODE_STATUS)
		mail->err = DB_INVALID;
	if (mail->err == DB_OK)
		mail->status = msg.body.status;
	post(mail->owner, mail);
}

enum db_err mailbox_ask(struct mailbox *m, struct link_req *link, const struct wire_head *head, unsigned node,
			uint32_t seq, const struct members *members, uint64_t timeout_ms)
{
	struct mail *mail = calloc(1, sizeof(*mail));
	struct buf bytes = {0};
	struct wire_msg *msg;
	enum db_err err;

	msg = calloc(1, sizeof(*msg));
	if (mail == NULL || msg == NULL) {
		err = DB_NOMEM;
		goto free_all;
	}
	mail->owner = m;
	mail->node = node;
	mail->seq = seq;
	msg->head = *head;
	if (members != NULL)
		msg->body.members = *members;
	wire_encode(&bytes, msg);
	err = bytes.failed ? DB_NOMEM : link_req_send(link, bytes.data, bytes.len, timeout_ms, on_reply, mail);
	if (err == DB_OK)
		mail = NULL; /* it comes back through on_reply() */
free_all:
	buf_fini(&bytes);
	free(msg);
	free(mail);
	return err;
}

/* inbox.c - see inbox.h. A push releases the task's content to the exchange that takes it. */
#include "common/http/inbox.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/wake.h"

enum db_err http_inbox_init(struct http_inbox *inbox, struct errmsg *em)
{
	atomic_init(&inbox->top, NULL);
	atomic_init(&inbox->posting, 0);
	inbox->fd = wake_create();
	if (inbox->fd == -1)
		return errmsg_errno(em, errno, "eventfd");
	return DB_OK;
}

void http_inbox_fini(struct http_inbox *inbox)
{
	assert(atomic_load(&inbox->top) == NULL);
	/* A thread may have pushed and not yet written. Were the descriptor closed first, what it writes would go into
	 * whatever is opened next. */
	while (atomic_load_explicit(&inbox->posting, memory_order_acquire) > 0)
		sched_yield();
	if (inbox->fd != -1)
		close(inbox->fd);
	inbox->fd = -1;
}

void http_inbox_post(struct http_inbox *inbox, struct http_task *task)
{
	struct http_task *top = atomic_load_explicit(&inbox->top, memory_order_relaxed);

	/* Once pushed, a task may end the worker that owns the inbox: it stays until this is taken back. */
	atomic_fetch_add_explicit(&inbox->posting, 1, memory_order_relaxed);
	do
		task->next = top;
	while (!atomic_compare_exchange_weak_explicit(&inbox->top, &top, task, memory_order_release,
						      memory_order_relaxed));
	if (top == NULL)
		wake_up(inbox->fd);
	atomic_fetch_sub_explicit(&inbox->posting, 1, memory_order_release);
}

size_t http_inbox_run(struct http_inbox *inbox)
{
	struct http_task *task, *next, *first = NULL;
	size_t count = 0;

	wake_clear(inbox->fd); /* before the stack is emptied: a post in between wakes again */
	task = atomic_exchange_explicit(&inbox->top, NULL, memory_order_acquire);
	for (; task != NULL; task = next) {
		next = task->next;
		task->next = first;
		first = task;
	}
	for (; first != NULL; first = next, count++) {
		next = first->next; /* run() may free or post the task again */
		first->run(first);
		log_set_request_id(NULL); /* whoever it was about */
	}
	return count;
}

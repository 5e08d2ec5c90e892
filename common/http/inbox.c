/* inbox.c - see inbox.h. A push releases the task's content to the exchange that takes it. */
#include "common/http/inbox.h"

#include <assert.h>
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum db_err http_inbox_init(struct http_inbox *inbox, struct errmsg *em)
{
	atomic_init(&inbox->top, NULL);
	inbox->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (inbox->fd == -1)
		return errmsg_errno(em, errno, "eventfd");
	return DB_OK;
}

void http_inbox_fini(struct http_inbox *inbox)
{
	assert(atomic_load(&inbox->top) == NULL);
	if (inbox->fd != -1)
		close(inbox->fd);
	inbox->fd = -1;
}

void http_inbox_post(struct http_inbox *inbox, struct http_task *task)
{
	struct http_task *top = atomic_load_explicit(&inbox->top, memory_order_relaxed);
	int fd = inbox->fd; /* once pushed, a task may end the worker that owns the inbox */
	const uint64_t one = 1;
	ssize_t n;

	do
		task->next = top;
	while (!atomic_compare_exchange_weak_explicit(&inbox->top, &top, task, memory_order_release,
						      memory_order_relaxed));
	if (top != NULL)
		return;
	do
		n = write(fd, &one, sizeof(one));
	while (n == -1 && errno == EINTR);
	/* EAGAIN alone is left, and means that the counter is set, which is what we want. */
}

size_t http_inbox_run(struct http_inbox *inbox)
{
	struct http_task *task, *next, *first = NULL;
	uint64_t wakeups;
	size_t count = 0;

	/* The eventfd is emptied before the stack: a post in between finds it empty and writes again. */
	while (read(inbox->fd, &wakeups, sizeof(wakeups)) == -1 && errno == EINTR)
		;
	task = atomic_exchange_explicit(&inbox->top, NULL, memory_order_acquire);
	for (; task != NULL; task = next) {
		next = task->next;
		task->next = first;
		first = task;
	}
	for (; first != NULL; first = next, count++) {
		next = first->next; /* run() may free or post the task again */
		first->run(first);
	}
	return count;
}

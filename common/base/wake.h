/*
 * wake.h - waking a thread that sleeps in poll(), epoll or an event loop, through an eventfd of its own.
 *
 * Who sleeps waits for the descriptor to be readable, calls wake_clear() and only then looks at what it was woken for:
 * what comes in between wakes it again. Any number of wake-ups before that are one.
 */
#ifndef GRIZZLY_COMMON_BASE_WAKE_H
#define GRIZZLY_COMMON_BASE_WAKE_H

#include <stdbool.h>

/* A new descriptor, the caller's to close; -1 with errno set when there is none to be had. */
int wake_create(void);

/* Wakes who waits for fd. Any thread; never blocks. */
void wake_up(int fd);

/* Takes what was written to fd. True: somebody had written. Never blocks. */
bool wake_clear(int fd);

#endif

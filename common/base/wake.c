/* wake.c - see wake.h. */
#include "common/base/wake.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/log.h"

int wake_create(void)
{
	return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

void wake_up(int fd)
{
	const uint64_t one = 1;
	ssize_t n;

	do
		n = write(fd, &one, sizeof(one));
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN) /* EAGAIN: the counter is full, so it has been woken */
		log_error("a thread cannot be woken: errno %d", errno);
}

bool wake_clear(int fd)
{
	uint64_t count;
	ssize_t n;

	do
		n = read(fd, &count, sizeof(count));
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN)
		log_error("an eventfd cannot be read: errno %d", errno);
	return n > 0;
}

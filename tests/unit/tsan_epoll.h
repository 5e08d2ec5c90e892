/*
 * tsan_epoll.h - what ThreadSanitizer is to overlook in programs whose threads open sockets beside libevent's.
 *
 * libevent may still name a descriptor that is closed and that another thread was just given by accept(): its changelist
 * does when a connection ends, and libcurl tells of a socket after closing it when it gives up connecting. The
 * EPOLL_CTL_DEL then fails with EBADF or ENOENT, for it is not in that epoll set, and libevent ignores it.
 *
 * For one file of a program.
 */
#ifndef GRIZZLY_TESTS_UNIT_TSAN_EPOLL_H
#define GRIZZLY_TESTS_UNIT_TSAN_EPOLL_H

#ifdef __SANITIZE_THREAD__
const char *__tsan_default_suppressions(void);

const char *__tsan_default_suppressions(void)
{
	return "race:epoll_ctl\n";
}
#endif

#endif

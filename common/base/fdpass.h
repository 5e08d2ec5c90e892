/*
 * fdpass.h - handing an open file descriptor to another process over a Unix socket.
 *
 * A node serves the cluster's listening socket at run/<id>.fd, so that a supervisor that was restarted gets it back
 * without anybody closing it: the port stays bound and queued connections stay queued. Both sides check that the other
 * belongs to the same user (SO_PEERCRED). No state of its own; any thread.
 */
#ifndef GRIZZLY_COMMON_BASE_FDPASS_H
#define GRIZZLY_COMMON_BASE_FDPASS_H

#include <stdint.h>
#include <sys/types.h>

#include "common/base/err.h"

/* Listens at path, replacing what lies there (a process that was killed leaves its socket file behind). *listen_fd is
 * non-blocking, close-on-exec and the caller's: wait until it is readable, then fdpass_accept_and_send(); close() and
 * unlink() at the end. DB_INVALID: longer than a Unix socket's name may be (107 bytes). DB_IO. */
enum db_err fdpass_listen(const char *path, int *listen_fd, struct errmsg *em);

/* Accepts one peer and sends it a duplicate of fd. Never blocks. DB_NOTFOUND: nobody waits. DB_INVALID: another user's
 * process, turned away. DB_IO. After each of them listen_fd can be waited for again. */
enum db_err fdpass_accept_and_send(int listen_fd, int fd, struct errmsg *em);

/* Fetches the descriptor served at path; *fd is close-on-exec and the caller's. DB_NOTFOUND: no such socket.
 * DB_UNAVAILABLE: nobody listens there. DB_TIMEOUT: no answer within timeout_ms. DB_INVALID: another user's process, or
 * an answer without a descriptor. DB_IO. */
enum db_err fdpass_fetch(const char *path, int *fd, uint64_t timeout_ms, struct errmsg *em);

/* The process that listens at path, known without its help. DB_NOTFOUND, DB_UNAVAILABLE, DB_INVALID, DB_IO as above. */
enum db_err fdpass_owner(const char *path, pid_t *pid, struct errmsg *em);

#endif

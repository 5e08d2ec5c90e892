/* fdpass.c - see fdpass.h. The message is one byte 'F' with one descriptor attached (SCM_RIGHTS). */
#include "common/base/fdpass.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/clock.h"

#define FDPASS_BACKLOG          8
#define FDPASS_BYTE             'F'
#define FDPASS_CONNECT_PAUSE_MS 5 /* a full backlog cannot be waited for with poll(2) */

static enum db_err address_of(const char *path, struct sockaddr_un *addr, struct errmsg *em)
{
	memset(addr, 0, sizeof(*addr));
	addr->sun_family = AF_UNIX;
	if (path[0] == '\0' || strlen(path) >= sizeof(addr->sun_path))
		return errmsg_set(em, DB_INVALID, "\"%s\" is no possible name of a Unix socket", path);
	memcpy(addr->sun_path, path, strlen(path) + 1);
	return DB_OK;
}

static enum db_err check_peer(int sock, struct ucred *peer, struct errmsg *em)
{
	socklen_t len = sizeof(*peer);

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, peer, &len) != 0)
		return errmsg_errno(em, errno, "cannot tell who the peer is");
	if (peer->uid != geteuid())
		return errmsg_set(em, DB_INVALID, "the peer belongs to user %u, not %u", (unsigned)peer->uid,
				  (unsigned)geteuid());
	return DB_OK;
}

enum db_err fdpass_listen(const char *path, int *listen_fd, struct errmsg *em)
{
	struct sockaddr_un addr;
	enum db_err err;
	int sock;

	*listen_fd = -1;
	err = address_of(path, &addr, em);
	if (err != DB_OK)
		return err;
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock < 0)
		return errmsg_errno(em, errno, "cannot create a Unix socket");
	if (unlink(path) != 0 && errno != ENOENT) {
		err = errmsg_errno(em, errno, "cannot replace \"%s\"", path);
		goto close_socket;
	}
	if (bind(sock, (struct sockaddr *)&addr, sizeof(addr)) != 0 || chmod(path, 0600) != 0 ||
	    listen(sock, FDPASS_BACKLOG) != 0) {
		err = errmsg_errno(em, errno, "cannot listen at \"%s\"", path);
		goto close_socket;
	}
	*listen_fd = sock;
	return DB_OK;
close_socket:
	close(sock);
	return err;
}

static enum db_err send_fd(int sock, int fd, struct errmsg *em)
{
	char byte = FDPASS_BYTE;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *cmsg;

	memset(&control, 0, sizeof(control));
	msg.msg_control = control.bytes;
	msg.msg_controllen = sizeof(control.bytes);
	cmsg = CMSG_FIRSTHDR(&msg);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) != 1)
		return errmsg_errno(em, errno, "cannot hand over the descriptor");
	return DB_OK;
}

enum db_err fdpass_accept_and_send(int listen_fd, int fd, struct errmsg *em)
{
	struct ucred peer;
	enum db_err err;
	int sock;

	sock = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (sock < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
		return errmsg_set(em, DB_NOTFOUND, "nobody waits for the descriptor");
	if (sock < 0)
		return errmsg_errno(em, errno, "cannot accept");
	err = check_peer(sock, &peer, em);
	if (err == DB_OK)
		err = send_fd(sock, fd, em);
	close(sock);
	return err;
}

/* Connects before deadline_ms; the socket is non-blocking. */
static enum db_err connect_to(const char *path, uint64_t deadline_ms, int *out, struct errmsg *em)
{
	struct sockaddr_un addr;
	struct ucred peer;
	enum db_err err;
	int sock;

	err = address_of(path, &addr, em);
	if (err != DB_OK)
		return err;
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock < 0)
		return errmsg_errno(em, errno, "cannot create a Unix socket");
	while (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) != 0) {
		if (errno == ECONNREFUSED)
			err = errmsg_set(em, DB_UNAVAILABLE, "nobody listens at \"%s\"", path);
		else if (errno != EAGAIN && errno != EINTR)
			err = errmsg_errno(em, errno, "cannot connect to \"%s\"", path);
		else if (clock_mono_ms() >= deadline_ms)
			err = errmsg_set(em, DB_TIMEOUT, "\"%s\": too many wait there", path);
		else
			poll(NULL, 0, FDPASS_CONNECT_PAUSE_MS);
		if (err != DB_OK)
			goto close_socket;
	}
	err = check_peer(sock, &peer, em);
	if (err != DB_OK)
		goto close_socket;
	*out = sock;
	return DB_OK;
close_socket:
	close(sock);
	return err;
}

/* Waits until the socket is readable. */
static enum db_err await_answer(int sock, uint64_t deadline_ms, struct errmsg *em)
{
	struct pollfd pfd = {.fd = sock, .events = POLLIN};

	for (;;) {
		uint64_t now_ms = clock_mono_ms();
		int n = now_ms >= deadline_ms ? 0 : poll(&pfd, 1, (int)(deadline_ms - now_ms));

		if (n > 0)
			return DB_OK;
		if (n == 0)
			return errmsg_set(em, DB_TIMEOUT, "no descriptor was handed over in time");
		if (errno != EINTR)
			return errmsg_errno(em, errno, "cannot wait for the descriptor");
	}
}

static enum db_err receive_fd(int sock, int *fd, struct errmsg *em)
{
	char byte = 0;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	union {
		char bytes[CMSG_SPACE(sizeof(int))]; /* room for one: the kernel closes what does not fit */
		struct cmsghdr align;
	} control;
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *cmsg;
	ssize_t n;

	memset(&control, 0, sizeof(control));
	msg.msg_control = control.bytes;
	msg.msg_controllen = sizeof(control.bytes);
	n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errmsg_errno(em, errno, "cannot receive the descriptor");
	cmsg = CMSG_FIRSTHDR(&msg);
	if (cmsg == NULL || cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS ||
	    cmsg->cmsg_len != CMSG_LEN(sizeof(int)))
		return errmsg_set(em, DB_INVALID, "the answer holds no descriptor");
	memcpy(fd, CMSG_DATA(cmsg), sizeof(*fd));
	if (n != 1 || byte != FDPASS_BYTE) {
		close(*fd);
		*fd = -1;
		return errmsg_set(em, DB_INVALID, "the answer is not understood");
	}
	return DB_OK;
}

enum db_err fdpass_fetch(const char *path, int *fd, uint64_t timeout_ms, struct errmsg *em)
{
	uint64_t deadline_ms = clock_mono_ms() + timeout_ms;
	enum db_err err;
	int sock = -1;

	*fd = -1;
	err = connect_to(path, deadline_ms, &sock, em);
	if (err != DB_OK)
		return err;
	err = await_answer(sock, deadline_ms, em);
	if (err == DB_OK)
		err = receive_fd(sock, fd, em);
	close(sock);
	return err == DB_OK ? DB_OK : errmsg_context(em, "\"%s\"", path);
}

enum db_err fdpass_owner(const char *path, pid_t *pid, struct errmsg *em)
{
	struct ucred peer;
	enum db_err err;
	int sock = -1;

	err = connect_to(path, 0, &sock, em);
	if (err != DB_OK)
		return err;
	err = check_peer(sock, &peer, em);
	if (err == DB_OK)
		*pid = peer.pid;
	close(sock);
	return err;
}

/*
 * faults.c - a disk and a clock that fail when told to: a library to be preloaded into a node.
 *
 * Built by tests/integration/faults.py. $GRIZZLY_FAULTS names a directory. A file in it switches one fault on for as long
 * as it is there; its first line is what the fault does, its second the path below which it does it:
 *
 *   sync    fdatasync(), fsync()             hang | errno NUMBER
 *   write   pwrite(), pwritev(), write()     hang | errno NUMBER
 *   read    pread()                          hang | errno NUMBER
 *   open    open(), openat() for writing     errno NUMBER
 *   space   statvfs(), fstatvfs()            free BYTES
 *   wall    clock_gettime(CLOCK_REALTIME)    offset SECONDS             (no path: every process)
 *   acks    sendmsg()                        swallow             (instead of a path: a TCP port; what the first connection to it
 *                                                                sends is lost, as if a network ate it; later ones work)
 *   stick   clock_gettime(CLOCK_REALTIME)    thread NAME                (that thread hangs there; instead of a path: the pid)
 *
 * What hangs waits for the lock that the test holds on the file. Every call that a fault hit adds a byte to the file "<fault>.hits", so a
 * test can wait for that.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct fault {
	char verb[16];
	char word[64];
	char place[PATH_MAX];
};

/* System calls made directly: never through what is interposed below. */
static long raw_open(const char *path, int flags)
{
	return syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0600);
}

static bool fault_path(char out[PATH_MAX], const char *name, const char *suffix)
{
	const char *dir = getenv("GRIZZLY_FAULTS");

	return dir != NULL && snprintf(out, PATH_MAX, "%s/%s%s", dir, name, suffix) < PATH_MAX;
}

/* False: the fault is off. */
static bool load(struct fault *f, const char *name)
{
	char path[PATH_MAX], text[PATH_MAX + 128], *line;
	long fd, n;

	if (!fault_path(path, name, ""))
		return false;
	fd = raw_open(path, O_RDONLY);
	if (fd < 0)
		return false;
	n = syscall(SYS_read, fd, text, sizeof(text) - 1);
	syscall(SYS_close, fd);
	if (n <= 0)
		return false;
	text[n] = '\0';
	line = strchr(text, '\n');
	if (line == NULL)
		return false;
	*line++ = '\0';
	line[strcspn(line, "\n")] = '\0';
	f->word[0] = '\0';
	if (sscanf(text, "%15s %63s", f->verb, f->word) < 1)
		return false;
	snprintf(f->place, sizeof(f->place), "%s", line);
	return true;
}

static void hit(const char *name)
{
	char path[PATH_MAX];
	long fd;

	if (!fault_path(path, name, ".hits"))
		return;
	fd = raw_open(path, O_WRONLY | O_CREAT | O_APPEND);
	if (fd < 0)
		return;
	syscall(SYS_write, fd, "x", 1);
	syscall(SYS_close, fd);
}

static bool below(const char *path, const char *place)
{
	size_t len = strlen(place);

	return len > 0 && strncmp(path, place, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

static bool path_of(int fd, char out[PATH_MAX])
{
	char link[64];
	long n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
	if (n <= 0)
		return false;
	out[n] = '\0';
	return true;
}

/* Waits, in the kernel and without using the processor, until the fault is switched off. */
static void hang(const char *name)
{
	char path[PATH_MAX];
	long fd;

	hit(name);
	if (!fault_path(path, name, ""))
		return;
	fd = raw_open(path, O_RDONLY);
	if (fd < 0)
		return;
	while (flock((int)fd, LOCK_SH) != 0 && errno == EINTR)
		;
	syscall(SYS_close, fd);
}

/* The errno that the call shall fail with, or 0; waits while the fault hangs. */
static int suffer_path(const char *name, const char *path)
{
	struct fault f;

	if (!load(&f, name) || !below(path, f.place))
		return 0;
	if (strcmp(f.verb, "hang") == 0) {
		hang(name);
		return 0;
	}
	hit(name);
	return atoi(f.word);
}

static int suffer(const char *name, int fd)
{
	char path[PATH_MAX];
	struct fault f;

	return load(&f, name) && path_of(fd, path) ? suffer_path(name, path) : 0;
}

#define REAL(type, function, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, function))

#define FAIL_IF(error, result)                                                                                         \
	do {                                                                                                           \
		int fail_errno = (error);                                                                              \
		if (fail_errno != 0) {                                                                                 \
			errno = fail_errno;                                                                            \
			return result;                                                                                 \
		}                                                                                                      \
	} while (0)

int fdatasync(int fd)
{
	FAIL_IF(suffer("sync", fd), -1);
	return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	FAIL_IF(suffer("sync", fd), -1);
	return (int)syscall(SYS_fsync, fd);
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at)
{
	FAIL_IF(suffer("write", fd), -1);
	return syscall(SYS_pwrite64, fd, bytes, len, at);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t at)
{
	FAIL_IF(suffer("write", fd), -1);
	return REAL(ssize_t, "pwritev", int, const struct iovec *, int, off_t)(fd, pieces, count, at);
}

ssize_t write(int fd, const void *bytes, size_t len)
{
	if (fd > STDERR_FILENO)
		FAIL_IF(suffer("write", fd), -1);
	return syscall(SYS_write, fd, bytes, len);
}

ssize_t pread(int fd, void *bytes, size_t len, off_t at)
{
	FAIL_IF(suffer("read", fd), -1);
	return syscall(SYS_pread64, fd, bytes, len, at);
}

/* ---- connections that lose what is sent */

/* The port at one end of a TCP connection; 0: it is none. */
static unsigned port_of(int fd, int (*end)(int, struct sockaddr *, socklen_t *))
{
	struct sockaddr_in a = {0};
	socklen_t len = sizeof(a);

	return end(fd, (struct sockaddr *)&a, &len) == 0 && a.sin_family == AF_INET ? ntohs(a.sin_port) : 0;
}

/* The handshake, of eight bytes, gets through: the connection looks well. */
static bool swallowed(int fd, size_t len)
{
	static unsigned victim; /* the local port of the first connection */
	struct fault f;
	unsigned port;

	if (len <= 8 || !load(&f, "acks") || port_of(fd, getpeername) != (unsigned)atoi(f.place))
		return false;
	port = port_of(fd, getsockname);
	if (victim == 0)
		victim = port;
	if (port == victim)
		hit("acks");
	return port == victim;
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	size_t len = 0, i;

	for (i = 0; i < (size_t)msg->msg_iovlen; i++)
		len += msg->msg_iov[i].iov_len;
	if (swallowed(fd, len))
		return (ssize_t)len;
	return REAL(ssize_t, "sendmsg", int, const struct msghdr *, int)(fd, msg, flags);
}

/* ---- opening for writing: a read-only file system */

static int open_fault(int dir, const char *path, int flags)
{
	char base[PATH_MAX], full[PATH_MAX * 2];
	struct fault f;

	if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) == 0 || !load(&f, "open"))
		return 0;
	if (path[0] == '/') {
		snprintf(full, sizeof(full), "%s", path);
	} else {
		if (dir == AT_FDCWD ? getcwd(base, sizeof(base)) == NULL : !path_of(dir, base))
			return 0;
		snprintf(full, sizeof(full), "%s/%s", base, path);
	}
	return suffer_path("open", full);
}

int open(const char *path, int flags, ...)
{
	va_list ap;
	int mode;

	va_start(ap, flags);
	mode = va_arg(ap, int);
	va_end(ap);
	FAIL_IF(open_fault(AT_FDCWD, path, flags), -1);
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int openat(int dir, const char *path, int flags, ...)
{
	va_list ap;
	int mode;

	va_start(ap, flags);
	mode = va_arg(ap, int);
	va_end(ap);
	FAIL_IF(open_fault(dir, path, flags), -1);
	return (int)syscall(SYS_openat, dir, path, flags, mode);
}

/* ---- space */

static void shrink(struct statvfs *fs, const char *path)
{
	struct fault f;

	if (!load(&f, "space") || !below(path, f.place))
		return;
	hit("space");
	fs->f_bavail = (fsblkcnt_t)(strtoull(f.word, NULL, 10) / fs->f_frsize);
}

int statvfs(const char *path, struct statvfs *fs)
{
	char base[PATH_MAX], full[PATH_MAX * 2];
	int rc = REAL(int, "statvfs", const char *, struct statvfs *)(path, fs);

	if (rc == 0 && path[0] == '/')
		shrink(fs, path);
	else if (rc == 0 && getcwd(base, sizeof(base)) != NULL) {
		snprintf(full, sizeof(full), "%s/%s", base, path);
		shrink(fs, full);
	}
	return rc;
}

int fstatvfs(int fd, struct statvfs *fs)
{
	char path[PATH_MAX];
	int rc = REAL(int, "fstatvfs", int, struct statvfs *)(fd, fs);

	if (rc == 0 && path_of(fd, path))
		shrink(fs, path);
	return rc;
}

/* ---- the clock */

static void stick(void)
{
	char name[16] = "";
	struct fault f;

	if (!load(&f, "stick") || atol(f.place) != (long)getpid())
		return;
	prctl(PR_GET_NAME, name);
	if (strcmp(f.word, name) == 0)
		hang("stick");
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
	int rc = (int)syscall(SYS_clock_gettime, id, ts);
	struct fault f;

	if (rc == 0 && id == CLOCK_REALTIME) {
		stick();
		if (load(&f, "wall"))
			ts->tv_sec += atol(f.word);
	}
	return rc;
}

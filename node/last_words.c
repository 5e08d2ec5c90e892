/* last_words.c - see last_words.h. */
#include "node/last_words.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/exit_code.h"
#include "common/base/log.h"

#define LINE_MAX_BYTES 1024u

static char name[33];
static char why_path[64];
static char mark_path[64];

/* ---- async-signal-safe helpers */

struct line {
	char text[LINE_MAX_BYTES];
	size_t len;
};

static void put(struct line *l, const char *s)
{
	while (*s != '\0' && l->len < sizeof(l->text) - 2)
		l->text[l->len++] = *s++;
}

static void put_number(struct line *l, uint64_t n)
{
	char digits[21];
	size_t i = sizeof(digits) - 1;

	digits[i] = '\0';
	do {
		digits[--i] = (char)('0' + n % 10);
		n /= 10;
	} while (n > 0);
	put(l, digits + i);
}

/* False: it could not be written; there is nobody left to tell. */
static bool write_file(const char *path, const char *text, size_t len, bool durable)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, text, len) == (ssize_t)len && (!durable || fsync(fd) == 0);
	close(fd);
	return ok;
}

/* ---- which file an address belongs to */

static uint64_t parse_hex(const char **p)
{
	uint64_t n = 0;

	for (;; (*p)++) {
		if (**p >= '0' && **p <= '9')
			n = n * 16 + (uint64_t)(**p - '0');
		else if (**p >= 'a' && **p <= 'f')
			n = n * 16 + (uint64_t)(**p - 'a' + 10);
		else
			return n;
	}
}

/* A line of /proc/self/maps: "start-end perms offset dev inode   /path". The path when address lies in it, else NULL. */
static const char *match(const char *text, uint64_t address, uint64_t *file_offset)
{
	const char *p = text;
	uint64_t start = parse_hex(&p), end;

	if (*p++ != '-')
		return NULL;
	end = parse_hex(&p);
	if (address < start || address >= end || strlen(p) < 7)
		return NULL;
	p += 6; /* " r--p " */
	*file_offset = parse_hex(&p) + (address - start);
	return strchr(p, '/');
}

/* Puts the file and the place in it; false: the address belongs to none. */
static bool put_place(struct line *out, uint64_t address)
{
	char chunk[512], text[768];
	size_t used = 0;
	const char *path = NULL;
	uint64_t offset = 0;
	ssize_t n, i;
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

	while (fd >= 0 && path == NULL && (n = read(fd, chunk, sizeof(chunk))) > 0) {
		for (i = 0; i < n && path == NULL; i++) {
			if (chunk[i] != '\n') {
				if (used < sizeof(text) - 1)
					text[used++] = chunk[i];
				continue;
			}
			text[used] = '\0';
			used = 0;
			path = match(text, address, &offset);
		}
	}
	if (fd >= 0)
		close(fd);
	if (path == NULL)
		return false;
	put(out, "byte ");
	put_number(out, offset);
	put(out, " of \"");
	put(out, path);
	put(out, "\"");
	return true;
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
	struct line why = {.len = 0}, log = {.len = 0};

	(void)context;
	put(&why, "the disk did not deliver ");
	if (info->si_code <= 0 || !put_place(&why, (uint64_t)(uintptr_t)info->si_addr)) {
		signal(number, SIG_DFL); /* sent by somebody, or a fault of our own: as if nobody handled it */
		raise(number);
		return;
	}
	put(&log, name); /* without the time: what formats it is not to be called here */
	put(&log, " error ");
	why.text[why.len] = '\0';
	put(&log, why.text);
	put(&log, "; the process ends");
	log.text[log.len++] = '\n';
	if (write(STDERR_FILENO, log.text, log.len) < 0)
		put(&why, " (and its log cannot be written)");
	if (!write_file(mark_path, why.text, why.len, true))
		put(&why, " (and no mark of it be left)");
	write_file(why_path, why.text, why.len, false);
	_exit(EXIT_CODE_READ);
}

/* ---- */

void last_words_init(const char *id)
{
	struct sigaction action;

	snprintf(name, sizeof(name), "%s", id);
	snprintf(why_path, sizeof(why_path), "run/%.32s.why", id);
	snprintf(mark_path, sizeof(mark_path), "%.32s.unreadable", id);
	if (unlink(why_path) != 0 && errno != ENOENT)
		log_warn("\"%s\" cannot be removed: %s", why_path, strerror(errno));
	memset(&action, 0, sizeof(action));
	action.sa_sigaction = on_bus_error;
	action.sa_flags = SA_SIGINFO | SA_RESETHAND;
	sigaction(SIGBUS, &action, NULL); /* fails for bad arguments only */
}

void last_words_say(const char *text)
{
	if (!write_file(why_path, text, strlen(text), false))
		log_debug("\"%s\" cannot be written: %s", why_path, strerror(errno));
}

/* log.c - see log.h. */
#include "common/base/log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"

#define LOG_LINE_MAX 2048

static char log_name[32] = "grizzly";
static enum log_level log_threshold = LOG_LEVEL_INFO;

void log_init(const char *name, enum log_level level)
{
	snprintf(log_name, sizeof(log_name), "%s", name);
	log_threshold = level;
}

static size_t put_prefix(char *line, size_t size, const char *level)
{
	uint64_t now_us = clock_wall_us();
	char stamp[32];
	int n;

	clock_format(stamp, sizeof(stamp), now_us, "%Y-%m-%dT%H:%M:%S");
	n = snprintf(line, size, "%s.%03uZ %s %s ", stamp, (unsigned)(now_us / 1000 % 1000), log_name, level);
	return n < 0 ? 0 : (size_t)n;
}

static void log_line(enum log_level level, const char *level_name, const char *fmt, va_list ap)
{
	char line[LOG_LINE_MAX];
	size_t used;
	int n;

	if (level < log_threshold)
		return;
	used = put_prefix(line, sizeof(line), level_name);
	n = vsnprintf(line + used, sizeof(line) - used - 1, fmt, ap);
	if (n > 0)
		used += (size_t)n < sizeof(line) - used - 1 ? (size_t)n : sizeof(line) - used - 2;
	line[used++] = '\n';
	if (write(STDERR_FILENO, line, used) < 0)
		return;
}

void log_debug(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(LOG_LEVEL_DEBUG, "debug", fmt, ap);
	va_end(ap);
}

void log_info(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(LOG_LEVEL_INFO, "info", fmt, ap);
	va_end(ap);
}

void log_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(LOG_LEVEL_WARN, "warn", fmt, ap);
	va_end(ap);
}

void log_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(LOG_LEVEL_ERROR, "error", fmt, ap);
	va_end(ap);
}

/*
 * log.c - common/base/log.h for the simulator: what the cores log appears in the trace, at its simulated time.
 */
#include "common/base/log.h"

#include <stdio.h>

#include "tests/sim/sim_log.h"

static const struct world *traced; /* NULL: lines are dropped */

void sim_log_to(const struct world *w)
{
	traced = w;
}

static void put(const char *fmt, va_list ap)
{
	char text[512];

	vsnprintf(text, sizeof(text), fmt, ap);
	trace(traced, "    %s", text);
}

#define LOG_FUNCTION(name)                                                                                             \
	void name(const char *fmt, ...)                                                                                \
	{                                                                                                              \
		va_list ap;                                                                                            \
                                                                                                                       \
		if (traced == NULL)                                                                                    \
			return;                                                                                        \
		va_start(ap, fmt);                                                                                     \
		put(fmt, ap);                                                                                          \
		va_end(ap);                                                                                            \
	}

LOG_FUNCTION(log_debug)
LOG_FUNCTION(log_info)
LOG_FUNCTION(log_warn)
LOG_FUNCTION(log_error)

void log_init(const char *name, enum log_level level)
{
	(void)name;
	(void)level;
}

const char *log_level_name(enum log_level level)
{
	static const char *const names[] = {"debug", "info", "warn", "error"};

	return names[level];
}

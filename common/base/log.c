/*
 * log.c - see log.h.
 *
 * A line is put together on the stack and cut where it is full; in JSON the parts are cut before they are quoted, so that
 * a line is always whole.
 */
#include "common/base/log.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"

#define LOG_TEXT_MAX 2048 /* what is said */
#define LOG_LINE_MAX (4 * LOG_TEXT_MAX)
#define LOG_TAIL     8 /* room that is kept for the end of a JSON line */

static char log_name[32] = "grizzly";
static atomic_int log_threshold = LOG_LEVEL_INFO;
static atomic_int log_form = LOG_FORMAT_TEXT;

/* Beside the process's state the one of each thread: whose request it works for, NUL-terminated. */
static _Thread_local char log_request[LOG_REQUEST_ID_MAX + 1];

struct line {
	char text[LOG_LINE_MAX];
	size_t used;
};

void log_init(const char *name, enum log_level level)
{
	snprintf(log_name, sizeof(log_name), "%s", name);
	atomic_store_explicit(&log_threshold, (int)level, memory_order_relaxed);
}

void log_set(enum log_level level, enum log_format format)
{
	atomic_store_explicit(&log_threshold, (int)level, memory_order_relaxed);
	atomic_store_explicit(&log_form, (int)format, memory_order_relaxed);
}

const char *log_level_name(enum log_level level)
{
	static const char *const names[] = {"debug", "info", "warn", "error"};

	return names[level];
}

void log_set_request_id(const char *id)
{
	size_t i = 0;

	if (id != NULL)
		for (; i < LOG_REQUEST_ID_MAX && id[i] != '\0'; i++)
			log_request[i] = id[i];
	log_request[i] = '\0';
}

const char *log_request_id(void)
{
	return log_request;
}

bool log_is_wanted(enum log_level level)
{
	return (int)level >= atomic_load_explicit(&log_threshold, memory_order_relaxed);
}

static bool is_json(void)
{
	return atomic_load_explicit(&log_form, memory_order_relaxed) == LOG_FORMAT_JSON;
}

/* ---- putting */

static void put(struct line *l, const char *text, size_t len)
{
	size_t room = sizeof(l->text) - LOG_TAIL - l->used;

	if (len > room)
		len = room;
	memcpy(l->text + l->used, text, len);
	l->used += len;
}

static void put_text(struct line *l, const char *text)
{
	put(l, text, strlen(text));
}

/* How many bytes the UTF-8 character at s has; 0: it is none. */
static size_t character_len(const unsigned char *s)
{
	size_t len = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : 0;
	size_t i;

	if (s[0] >= 0xf0 && s[0] < 0xf5)
		len = 4;
	for (i = 1; i < len; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	/* Overlong forms, surrogates, and what is beyond the last character. */
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
	    (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return len;
}

/* Between quotes; nothing that could end them, the line, or the JSON stands in between, however it is cut. */
static void put_quoted(struct line *l, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t kept = 0, len;
	char escape[8];

	put(l, "\"", 1);
	while (*s != '\0' && kept < LOG_TEXT_MAX && l->used + 2 * LOG_TAIL < sizeof(l->text)) {
		len = character_len(s);
		if (len == 0) {
			put(l, "?", 1);
			len = 1;
		} else if (*s == '"' || *s == '\\') {
			escape[0] = '\\';
			escape[1] = (char)*s;
			put(l, escape, 2);
		} else if (*s < ' ' || *s == 0x7f) {
			snprintf(escape, sizeof(escape), "\\u%04x", *s);
			put(l, escape, 6);
		} else {
			put(l, (const char *)s, len);
		}
		s += len;
		kept += len;
	}
	put(l, "\"", 1);
}

static void put_stamp(struct line *l)
{
	uint64_t now_us = clock_wall_us();
	char stamp[32], fraction[8];

	clock_format(stamp, sizeof(stamp), now_us, "%Y-%m-%dT%H:%M:%S");
	snprintf(fraction, sizeof(fraction), ".%03uZ", (unsigned)(now_us / 1000 % 1000));
	put_text(l, stamp);
	put_text(l, fraction);
}

static void begin(struct line *l, enum log_level level, bool json)
{
	l->used = 0;
	put_text(l, json ? "{\"time\":\"" : "");
	put_stamp(l);
	put_text(l, json ? "\",\"process\":\"" : " ");
	put_text(l, log_name);
	put_text(l, json ? "\",\"level\":\"" : " ");
	put_text(l, log_level_name(level));
	put_text(l, json ? "\"" : " ");
}

static bool is_word(const char *value)
{
	return value[0] != '\0' && strcspn(value, " \t\r\n\"\\=") == strlen(value);
}

/* A member is there with its value, or not at all. False: there is no room for it. */
static bool put_field(struct line *l, const char *key, const char *value, bool json)
{
	if (l->used + strlen(key) + 4 * LOG_TAIL >= sizeof(l->text))
		return false;
	put_text(l, json ? ",\"" : " ");
	put_text(l, key);
	put_text(l, json ? "\":" : "=");
	if (json || !is_word(value))
		put_quoted(l, value);
	else
		put_text(l, value);
	return true;
}

static void put_request(struct line *l, bool json)
{
	if (log_request[0] != '\0')
		put_field(l, "request_id", log_request, json);
}

static void end(struct line *l, bool json)
{
	if (json)
		l->text[l->used++] = '}';
	l->text[l->used++] = '\n';
	if (write(STDERR_FILENO, l->text, l->used) < 0)
		return;
}

/* ---- lines */

static void log_line(enum log_level level, const char *fmt, va_list ap)
{
	bool json = is_json();
	char text[LOG_TEXT_MAX];
	struct line l;

	if (!log_is_wanted(level))
		return;
	vsnprintf(text, sizeof(text), fmt, ap);
	begin(&l, level, json);
	if (json) {
		put_text(&l, ",\"text\":");
		put_quoted(&l, text);
	} else {
		put_text(&l, text);
	}
	put_request(&l, json);
	end(&l, json);
}

void log_event(enum log_level level, const char *event, const struct log_field *fields, size_t count)
{
	bool json = is_json();
	struct line l;
	size_t i;

	if (!log_is_wanted(level))
		return;
	begin(&l, level, json);
	put_text(&l, json ? ",\"text\":\"" : "");
	put_text(&l, event);
	put_text(&l, json ? "\"" : "");
	put_request(&l, json); /* first: long fields may be cut */
	for (i = 0; i < count; i++)
		if (!put_field(&l, fields[i].key, fields[i].value, json))
			break;
	end(&l, json);
}

void log_debug(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(LOG_LEVEL_DEBUG, fmt, ap);
	va_end(ap);
}

void log_info(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(LOG_LEVEL_INFO, fmt, ap);
	va_end(ap);
}

void log_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(LOG_LEVEL_WARN, fmt, ap);
	va_end(ap);
}

void log_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(LOG_LEVEL_ERROR, fmt, ap);
	va_end(ap);
}

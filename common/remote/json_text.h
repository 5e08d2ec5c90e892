/*
 * json_text.h - checks the inside of a JSON text that comes in pieces (escapes, control characters, UTF-8), and scalars.
 *
 * Used by shipped_answer.c, which passes values on without building them. Pure; the bytes are hostile.
 */
#ifndef GRIZZLY_COMMON_REMOTE_JSON_TEXT_H
#define GRIZZLY_COMMON_REMOTE_JSON_TEXT_H

#include <stdbool.h>
#include <stdint.h>

/* All zero at a text's beginning, behind its opening quote. */
struct json_text {
	bool escaped;      /* a backslash came last */
	uint8_t hex_left;  /* digits that a \u still needs */
	uint8_t more;      /* bytes that a character of several still needs */
	uint8_t low, high; /* what the next of them may be */
};

/* Goes on from p, at most to end. Returns where it stopped: behind the closing quote with *done true, or at end. NULL: this
 * is no JSON text; *wrong (a constant) says why. */
const char *json_text_take(struct json_text *t, const char *p, const char *end, bool *done, const char **wrong);

/* Whether p to end is a number, true, false or null. At end stands a byte that is part of none. */
bool json_text_is_scalar(const char *p, const char *end);

#endif

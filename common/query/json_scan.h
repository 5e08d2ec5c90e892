/*
 * json_scan.h - where a JSON text goes on plainly: what every scanner of JSON spends most of its time on. Pure.
 */
#ifndef GRIZZLY_COMMON_QUERY_JSON_SCAN_H
#define GRIZZLY_COMMON_QUERY_JSON_SCAN_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The first quote, backslash or control character from p on; end when there is none before it. */
static inline const char *json_find_special(const char *p, const char *end)
{
	const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
	uint64_t w, quote, backslash, hit;

	for (; (size_t)(end - p) >= sizeof(w); p += sizeof(w)) {
		memcpy(&w, p, sizeof(w));
		w = le64toh(w);
		quote = w ^ ones * '"';
		backslash = w ^ ones * '\\';
		/* A borrow may raise a false hit behind a true one, never before it. */
		hit =
		    (((quote - ones) & ~quote) | ((backslash - ones) & ~backslash) | ((w - ones * 0x20) & ~w)) & highs;
		if (hit != 0)
			return p + __builtin_ctzll(hit) / 8;
	}
	while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20)
		p++;
	return p;
}

#endif

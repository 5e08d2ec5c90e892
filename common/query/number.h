/*
 * number.h - integers and reals as decimal text, fast and exact.
 *
 * Reals are written with the fewest digits that read back as the same double, and always with a point or an exponent,
 * so that 1.0 stays a real. Pure, cannot fail.
 */
#ifndef GRIZZLY_COMMON_QUERY_NUMBER_H
#define GRIZZLY_COMMON_QUERY_NUMBER_H

#include <stddef.h>
#include <stdint.h>

#define NUMBER_TEXT_MAX 32 /* room that out needs; no NUL is written */

/* Each returns the number of bytes written to out. */
size_t number_put_uint(char *out, uint64_t v);
size_t number_put_int(char *out, int64_t v);
size_t number_put_real(char *out, double v); /* v is finite */

#endif

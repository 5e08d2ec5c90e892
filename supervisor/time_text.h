/*
 * time_text.h - points in time as people write them on a command line, and as we print them. Pure.
 */
#ifndef GRIZZLY_SUPERVISOR_TIME_TEXT_H
#define GRIZZLY_SUPERVISOR_TIME_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#define TIME_TEXT_MAX 40

/* RFC 3339 ("2026-11-23T08:00:00Z", "2026-11-23 09:00:00.25+01:00"; the zone must be there) or seconds since 1970
 * ("1795420800", "1795420800.5"). Up to six digits of a fraction count, further ones are cut. False: neither. */
bool time_text_parse(const char *text, uint64_t *time_us);
/* "2026-11-23T08:00:00.123456Z"; "unknown" for 0. */
void time_text_put(uint64_t time_us, char out[TIME_TEXT_MAX]);

#endif

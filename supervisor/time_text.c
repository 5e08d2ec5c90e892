/* time_text.c - see time_text.h. */
#include "supervisor/time_text.h"

#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"

#define SECONDS_MAX 253402300799u /* the end of the year 9999 */

/* Exactly so many digits. */
static bool take_digits(const char **at, unsigned digits, unsigned min, unsigned max, unsigned *out)
{
	unsigned v = 0;

	for (; digits > 0; digits--, (*at)++) {
		if (!isdigit((unsigned char)**at))
			return false;
		v = v * 10 + (unsigned)(**at - '0');
	}
	*out = v;
	return v >= min && v <= max;
}

static bool take_char(const char **at, const char *any)
{
	if (**at == '\0' || strchr(any, **at) == NULL)
		return false;
	(*at)++;
	return true;
}

/* ".25" is 250000; nothing is 0. */
static bool take_fraction(const char **at, uint64_t *us)
{
	unsigned scale = 100000;

	*us = 0;
	if (!take_char(at, "."))
		return true;
	if (!isdigit((unsigned char)**at))
		return false;
	for (; isdigit((unsigned char)**at); (*at)++, scale /= 10)
		*us += (uint64_t)(**at - '0') * scale;
	return true;
}

/* "Z" or "+01:00": seconds east of Greenwich. */
static bool take_zone(const char **at, int64_t *east_s)
{
	int64_t sign = **at == '-' ? -1 : 1;
	unsigned hours, minutes;

	*east_s = 0;
	if (take_char(at, "Zz"))
		return true;
	if (!take_char(at, "+-") || !take_digits(at, 2, 0, 23, &hours) || !take_char(at, ":") ||
	    !take_digits(at, 2, 0, 59, &minutes))
		return false;
	*east_s = sign * (int64_t)(hours * 3600 + minutes * 60);
	return true;
}

static bool parse_date(const char *at, uint64_t *time_us)
{
	unsigned year, month, day, hour, minute, second;
	struct tm tm = {0}, back;
	int64_t seconds, east_s;
	uint64_t us;
	time_t t;

	if (!take_digits(&at, 4, 1970, 9999, &year) || !take_char(&at, "-") || !take_digits(&at, 2, 1, 12, &month) ||
	    !take_char(&at, "-") || !take_digits(&at, 2, 1, 31, &day) || !take_char(&at, "Tt ") ||
	    !take_digits(&at, 2, 0, 23, &hour) || !take_char(&at, ":") || !take_digits(&at, 2, 0, 59, &minute) ||
	    !take_char(&at, ":") || !take_digits(&at, 2, 0, 60, &second) || !take_fraction(&at, &us) ||
	    !take_zone(&at, &east_s) || *at != '\0')
		return false;
	tm.tm_year = (int)year - 1900;
	tm.tm_mon = (int)month - 1;
	tm.tm_mday = (int)day;
	t = timegm(&tm);
	if (gmtime_r(&t, &back) == NULL || back.tm_mday != (int)day) /* February 30 */
		return false;
	seconds = (int64_t)t + (int64_t)(hour * 3600 + minute * 60 + second) - east_s;
	if (seconds < 0)
		return false;
	*time_us = (uint64_t)seconds * 1000000 + us;
	return true;
}

static bool parse_seconds(const char *at, uint64_t *time_us)
{
	uint64_t seconds = 0, us;

	if (!isdigit((unsigned char)*at))
		return false;
	for (; isdigit((unsigned char)*at); at++) {
		seconds = seconds * 10 + (uint64_t)(*at - '0');
		if (seconds > SECONDS_MAX)
			return false;
	}
	if (!take_fraction(&at, &us) || *at != '\0')
		return false;
	*time_us = seconds * 1000000 + us;
	return true;
}

bool time_text_parse(const char *text, uint64_t *time_us)
{
	return parse_date(text, time_us) || parse_seconds(text, time_us);
}

void time_text_put(uint64_t time_us, char out[TIME_TEXT_MAX])
{
	char date[TIME_TEXT_MAX - sizeof(".000000Z")];

	clock_format(date, sizeof(date), time_us, "%Y-%m-%dT%H:%M:%S");
	if (time_us == 0)
		snprintf(out, TIME_TEXT_MAX, "unknown");
	else
		snprintf(out, TIME_TEXT_MAX, "%s.%06uZ", date, (unsigned)(time_us % 1000000));
}

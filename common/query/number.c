/*
 * number.c - see number.h. Reals: the Schubfach algorithm of Raffaello Giulietti ("The Schubfach way to render doubles",
 * 2020), which finds the shortest decimal inside the rounding interval with three 64x128-bit multiplications.
 */
#include "common/query/number.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "common/query/number_powers.h"

#define FRACTION_BITS 52
#define EXPONENT_BIAS (1023 + FRACTION_BITS)
#define EXPONENT_MASK 0x7FFu
#define FRACTION_MASK (((uint64_t)1 << FRACTION_BITS) - 1)

/* Plain notation from 0.0001 up to 17 digits before the point, an exponent beyond. */
#define PLAIN_POINT_MIN (-3)
#define PLAIN_POINT_MAX 17

__extension__ typedef unsigned __int128 uint128;

static const char digit_pairs[201] = "00010203040506070809101112131415161718192021222324"
				     "25262728293031323334353637383940414243444546474849"
				     "50515253545556575859606162636465666768697071727374"
				     "75767778798081828384858687888990919293949596979899";

size_t number_put_uint(char *out, uint64_t v)
{
	char digits[20];
	char *at = digits + sizeof(digits);
	size_t len;

	while (v >= 100) {
		at -= 2;
		memcpy(at, digit_pairs + v % 100 * 2, 2);
		v /= 100;
	}
	if (v >= 10) {
		at -= 2;
		memcpy(at, digit_pairs + v * 2, 2);
	} else {
		*--at = (char)('0' + v);
	}
	len = (size_t)(digits + sizeof(digits) - at);
	memcpy(out, at, len);
	return len;
}

size_t number_put_int(char *out, int64_t v)
{
	if (v >= 0)
		return number_put_uint(out, (uint64_t)v);
	out[0] = '-';
	return 1 + number_put_uint(out + 1, -(uint64_t)v);
}

/* A decimal: digits * 10^exponent. */
struct decimal {
	uint64_t digits;
	int exponent;
};

static int floor_log2_pow10(int e)
{
	return (e * 1741647) >> 19; /* exact for |e| <= 1233 */
}

/* g * cp / 2^128 rounded to odd: the lowest bit says whether anything was cut off. */
static uint64_t round_to_odd(struct number_power g, uint64_t cp)
{
	uint128 low = (uint128)g.low * cp;
	uint128 high = (uint128)g.high * cp + (uint64_t)(low >> 64);

	return (uint64_t)(high >> 64) | ((uint64_t)high > 1);
}

/* The shortest decimal in the rounding interval of c * 2^q, the closest to it of several. */
static struct decimal shortest_decimal(uint64_t c, int q, bool lower_is_closer)
{
	int k = (q * 1262611 - (lower_is_closer ? 524031 : 0)) >> 22; /* floor(log10(interval's width)) */
	int h = q + floor_log2_pow10(-k) + 1;
	struct number_power g = number_powers[-k - NUMBER_POWER_MIN];
	uint64_t odd = c & 1; /* an odd c's interval excludes its ends: IEEE rounds half to even */
	uint64_t vb = round_to_odd(g, 4 * c << h);
	uint64_t lower = round_to_odd(g, (4 * c - 2 + lower_is_closer) << h) + odd;
	uint64_t upper = round_to_odd(g, (4 * c + 2) << h) - odd;
	uint64_t s = vb / 4;
	uint64_t mid = 4 * s + 2;

	assert(-k >= NUMBER_POWER_MIN && -k <= NUMBER_POWER_MAX);
	if (s >= 10) { /* one digit less, when exactly one such number is inside */
		uint64_t tens = s / 10;
		bool down_inside = lower <= 40 * tens;
		bool up_inside = 40 * tens + 40 <= upper;

		if (down_inside != up_inside)
			return (struct decimal){tens + up_inside, k + 1};
	}
	if ((lower <= 4 * s) != (4 * s + 4 <= upper))
		return (struct decimal){s + (4 * s + 4 <= upper), k};
	return (struct decimal){s + (vb > mid || (vb == mid && (s & 1) != 0)), k};
}

static struct decimal decimal_of(uint64_t fraction, unsigned exponent)
{
	uint64_t c = exponent == 0 ? fraction : fraction | (uint64_t)1 << FRACTION_BITS;
	int q = (exponent == 0 ? 1 : (int)exponent) - EXPONENT_BIAS;

	/* A whole number below 2^53 is its own shortest decimal. */
	if (q <= 0 && q > -FRACTION_BITS - 1 && (c & (((uint64_t)1 << -q) - 1)) == 0)
		return (struct decimal){c >> -q, 0};
	return shortest_decimal(c, q, fraction == 0 && exponent > 1);
}

static void strip_zeros(struct decimal *d)
{
	while (d->digits % 10000 == 0) {
		d->digits /= 10000;
		d->exponent += 4;
	}
	while (d->digits % 10 == 0) {
		d->digits /= 10;
		d->exponent++;
	}
}

static size_t put_exponent_form(char *out, const char *digits, size_t count, int exponent)
{
	size_t len = 0;

	out[len++] = digits[0];
	if (count > 1) {
		out[len++] = '.';
		memcpy(out + len, digits + 1, count - 1);
		len += count - 1;
	}
	out[len++] = 'e';
	out[len++] = exponent < 0 ? '-' : '+';
	return len + number_put_uint(out + len, (uint64_t)(exponent < 0 ? -exponent : exponent));
}

/* point: digits before the decimal point, may be negative. */
static size_t put_plain_form(char *out, const char *digits, size_t count, int point)
{
	size_t before = point > 0 ? (size_t)point : 0;

	if (point <= 0) {
		size_t zeros = (size_t)-point;

		memcpy(out, "0.0000000", 2 + zeros);
		memcpy(out + 2 + zeros, digits, count);
		return 2 + zeros + count;
	}
	if (before >= count) {
		memcpy(out, digits, count);
		memset(out + count, '0', before - count);
		memcpy(out + before, ".0", 2);
		return before + 2;
	}
	memcpy(out, digits, before);
	out[before] = '.';
	memcpy(out + before + 1, digits + before, count - before);
	return count + 1;
}

size_t number_put_real(char *out, double v)
{
	char digits[NUMBER_TEXT_MAX];
	size_t sign, count;
	struct decimal d;
	uint64_t bits;
	int point;

	memcpy(&bits, &v, sizeof(bits));
	assert((bits >> FRACTION_BITS & EXPONENT_MASK) != EXPONENT_MASK);
	sign = bits >> 63;
	out[0] = '-'; /* overwritten when there is no sign */
	out += sign;
	bits &= ~((uint64_t)1 << 63);
	if (bits == 0) {
		memcpy(out, "0.0", 3);
		return sign + 3;
	}
	d = decimal_of(bits & FRACTION_MASK, (unsigned)(bits >> FRACTION_BITS));
	strip_zeros(&d);
	count = number_put_uint(digits, d.digits);
	point = (int)count + d.exponent;
	if (point < PLAIN_POINT_MIN || point > PLAIN_POINT_MAX)
		return sign + put_exponent_form(out, digits, count, point - 1);
	return sign + put_plain_form(out, digits, count, point);
}

/* base64.c - see base64.h. */
#include "common/query/base64.h"

/* 0 to 63, or -1. */
static int digit_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+')
		return 62;
	return c == '/' ? 63 : -1;
}

/* One group of 4 - padding digits; the bits that padding leaves over must be zero. */
static bool decode_group(uint8_t *out, const char *text, size_t padding)
{
	uint32_t bits = 0;
	size_t i;

	for (i = 0; i < 4; i++) {
		int value = i < 4 - padding ? digit_value(text[i]) : 0;

		if (value < 0)
			return false;
		bits = bits << 6 | (uint32_t)value;
	}
	for (i = 0; i < 3 - padding; i++)
		out[i] = (uint8_t)(bits >> (16 - 8 * i));
	return padding == 0 || (bits & ((1u << 8 * padding) - 1)) == 0;
}

bool base64_decode(uint8_t *out, size_t *out_len, const char *text, size_t len)
{
	size_t padding = 0;
	size_t i;

	*out_len = 0;
	if (len % 4 != 0)
		return false;
	if (len > 0 && text[len - 1] == '=')
		padding = text[len - 2] == '=' ? 2 : 1;
	for (i = 0; i < len; i += 4) {
		size_t group_padding = i + 4 == len ? padding : 0;

		if (!decode_group(out + *out_len, text + i, group_padding))
			return false;
		*out_len += 3 - group_padding;
	}
	return true;
}

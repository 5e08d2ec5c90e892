/* base64.h - decodes the "$blob" of a parameter (RFC 4648, section 4, padding required). Pure. */
#ifndef GRIZZLY_COMMON_QUERY_BASE64_H
#define GRIZZLY_COMMON_QUERY_BASE64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BASE64_DECODED_MAX(len) ((len) / 4 * 3)

/* Decodes len characters into out, which holds BASE64_DECODED_MAX(len) bytes, and sets *out_len. False: not base64,
 * white space, missing padding or bits beyond the end included. */
bool base64_decode(uint8_t *out, size_t *out_len, const char *text, size_t len);

#endif

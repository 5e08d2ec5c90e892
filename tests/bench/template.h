/*
 * template.h - a prebuilt request whose numbers are patched in place, so that sending one costs no formatting of text.
 *
 * In the body "%r" is a random number in 1..ids and "%s" the next number of a sequence. Each takes TEMPLATE_WIDTH
 * bytes, padded with blanks on the left (JSON allows blanks before a number), so the length never changes.
 */
#ifndef GRIZZLY_TESTS_BENCH_TEMPLATE_H
#define GRIZZLY_TESTS_BENCH_TEMPLATE_H

#include <stddef.h>
#include <stdint.h>

#define TEMPLATE_WIDTH 12

struct template;

/* Builds the POST around body. token may be NULL. NULL: out of memory. The caller frees. */
struct template *template_create(const char *address, const char *path, const char *token, const char *body,
				 uint64_t ids, uint64_t first_sequence);
void template_free(struct template *t); /* NULL is fine */

/* Puts new numbers in and returns the request's bytes, valid until the next call. */
const char *template_next(struct template *t, size_t *len);
uint64_t template_sequence(const struct template *t); /* the next number "%s" would give */

#endif
